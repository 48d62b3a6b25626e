//! Secrets: never in the configuration, only where they are.
//!
//! Owns: the three forms and reading them, into memory that is overwritten afterwards. Refuses: a secret written down where
//! a place is expected; files that others can read; commands that take longer than [`PATIENCE`] or print more than
//! [`LIMIT`] bytes.

use std::{
    fmt,
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use pitr_archive::{Code, Error, Result, error, keyring::MasterKey};
use rustix::process::{Pid, Signal, kill_process_group};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer, de};
use zeroize::Zeroizing;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Said of what is no place of a secret. The line in which it stands must not be shown: it can be the secret itself.
pub const NO_PLACE: &str = "say where the secret is: file:/path, env:NAME or exec:COMMAND";
/// A key has 64 digits.
const LIMIT: usize = 4096;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// In a variable of the environment.
    Env(String),
    /// In a file.
    File(PathBuf),
    /// What a shell's command prints.
    Exec(String),
}

impl SecretRef {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if path.starts_with('/') => Ok(Self::File(PathBuf::from(path))),
            Some(("exec", command)) if !command.trim().is_empty() => Ok(Self::Exec(command.to_owned())),
            // What was written is perhaps the secret itself: it is not repeated.
            _ => Err(NO_PLACE.to_owned()),
        }
    }

    /// The key that is there; a command that tells it can take its time.
    pub async fn read_key(self) -> Result<MasterKey> {
        let read = tokio::task::spawn_blocking(move || self.key(|name| std::env::var(name).ok())).await;
        read.map_err(|e| Error::new(Code::Internal, "reading the key").because(e))?
    }

    /// The key that is there, with these variables.
    pub fn key(&self, variable: impl FnOnce(&str) -> Option<String>) -> Result<MasterKey> {
        match self {
            Self::File(path) => MasterKey::from_file(path),
            Self::Env(name) => {
                let text = variable(name).map(Zeroizing::new).ok_or_else(|| {
                    Error::new(Code::KeyMalformed, "reading the key").on(self).with("found", "no such variable")
                })?;
                MasterKey::from_text(&text, self)
            }
            Self::Exec(command) => MasterKey::from_text(&printed(command)?, self),
        }
    }
}

/// What a command prints.
fn printed(command: &str) -> Result<Zeroizing<String>> {
    let failed = || Error::new(Code::KeyMalformed, "asking a command for the key").on(format_args!("exec:{command}"));
    let io = |e| error::io("asking a command for the key", command, e);
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // With all that it begins.
        .process_group(0)
        .spawn()
        .map_err(io)?;
    let Some(output) = child.stdout.take() else { return Err(failed()) };
    let (done, answer) = mpsc::channel();
    // The thread ends with the command's output; a command that is killed has none any more.
    std::thread::spawn(move || {
        // All of it at once: a string that grows leaves what it held before in memory.
        let mut text = Zeroizing::new(String::with_capacity(LIMIT));
        let read = output.take(LIMIT as u64).read_to_string(&mut text).map(|_| text);
        let _ = done.send(read);
    });
    let Ok(text) = answer.recv_timeout(PATIENCE) else {
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
        group.map_or(Ok(()), |group| kill_process_group(group, Signal::KILL)).map_err(|e| io(e.into()))?;
        child.wait().map_err(io)?;
        return Err(failed().with("found", format!("no answer within {} s", PATIENCE.as_secs())));
    };
    let status = child.wait().map_err(io)?;
    if !status.success() {
        return Err(failed().with("found", status));
    }
    text.map_err(io)
}

/// Where it is, not what it is.
impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Exec(command) => write!(f, "exec:{command}"),
        }
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for SecretRef {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(file:/|env:.|exec:.)", "examples": ["file:/etc/pitr.key"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn code(secret: &str, variable: Option<&str>) -> Option<Code> {
        let found = SecretRef::parse(secret).unwrap().key(|_| variable.map(ToOwned::to_owned));
        found.err().map(|e| e.code())
    }

    #[test]
    fn a_key_comes_from_a_variable_a_file_or_a_command() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, KEY).unwrap();
        let file = format!("file:{}", path.display());
        assert_eq!(code(&file, None), Some(Code::KeyExposed), "others can read it");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(code(&file, None), None);
        assert_eq!(code("env:K", Some(KEY)), None);
        assert_eq!(code("env:K", None), Some(Code::KeyMalformed));
        assert_eq!(code("env:K", Some("short")), Some(Code::KeyMalformed));
        assert_eq!(code(&format!("exec:echo {KEY}"), None), None);
        assert_eq!(code("exec:exit 3", None), Some(Code::KeyMalformed));
    }

    #[test]
    fn a_secret_that_is_written_down_is_refused_and_not_repeated() {
        for bad in [KEY, "env:", "file:relative", "exec: ", ""] {
            assert_eq!(SecretRef::parse(bad), Err(NO_PLACE.to_owned()), "{bad:?}");
        }
    }
}
