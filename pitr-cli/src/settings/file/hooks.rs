//! Commands that are told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de};

use super::values::Period;

/// Commands that are run: the program and its arguments, no shell. Each is given PITR_EVENT, PITR_DATABASE and PITR_ARCHIVE
/// in its environment and one JSON object on its standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Before a base's files are linked: brings the server to rest, where that is wanted. If it fails, no base is taken then. The
    /// server should go on by itself after some seconds: an archiver that is killed meanwhile tells it nothing
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_base: Option<Command>,
    /// As soon as they are linked, milliseconds later, and also where that failed: the server goes on
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_base: Option<Command>,
    /// When a barrier is recorded
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_barrier: Option<Command>,
    /// When the archive does not answer (and when it does again), a base failed, a limit of what is held back is met, a
    /// verification found something, a drill failed, or an archiver is given up
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Command>,
    /// After each verification, whatever it found
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_verify: Option<Command>,
    /// After each drill that is done by the clock, whatever came of it, with its report
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_drill: Option<Command>,
    /// A command that takes longer is ended, with its process group; default: 30s
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
}

impl Hooks {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This, and where it says nothing, `other`.
    pub fn or(&self, other: &Self) -> Self {
        let first = |a: &Option<Command>, b: &Option<Command>| a.clone().or_else(|| b.clone());
        Self {
            before_base: first(&self.before_base, &other.before_base),
            after_base: first(&self.after_base, &other.after_base),
            on_barrier: first(&self.on_barrier, &other.on_barrier),
            on_failure: first(&self.on_failure, &other.on_failure),
            after_verify: first(&self.after_verify, &other.after_verify),
            after_drill: first(&self.after_drill, &other.after_drill),
            timeout: self.timeout.or(other.timeout),
        }
    }
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Command(#[schemars(length(min = 1))] pub Vec<String>);

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        match words.first() {
            Some(program) if program.starts_with('/') => Ok(Self(words)),
            _ => Err(de::Error::custom("a program by its absolute path, then its arguments")),
        }
    }
}
