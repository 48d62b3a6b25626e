//! The control socket: how `pitr tag`, `base`, `flush` and `status` talk to the running archiver.
//!
//! Owns: the protocol (one JSON object per line and direction, one request per connection), the socket file (mode 0600
//! in the state directory, mode 0700) and both of its ends. Refuses: requests over 64 KiB, and to decide anything: a
//! request becomes a [`Command`] for the runner.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use pitr_archive::{
    Code, Error, Result,
    catalog::schema::{Position, TagDocument, TagMember},
    clock::Micros,
    error,
    ids::{ArchiveId, BaseId, Epoch, Nonce},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};

use crate::{delay::PinDelay, ship::Failing, state::StateDir};

/// Requests are names and notes; anything longer is not one of ours.
const MAX_LINE: u64 = 64 * 1024;

/// What can be asked of a running archiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Name the present position; answered when it is durable.
    Tag(TagRequest),
    /// Take back a tag of a group.
    Untag(UntagRequest),
    /// Take a base now; answered when it is published.
    Base,
    /// Ship what is readable now; answered when it is durable.
    Flush,
    /// Say how things are.
    Status,
    /// Read the service's configuration again.
    Reload,
}

/// A tag to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagRequest {
    /// Its name.
    pub name: String,
    /// A person's words.
    #[serde(default)]
    pub note: String,
    /// What to do about writes that the server still holds in its memory.
    #[serde(default)]
    pub unflushed: Unflushed,
    /// From when on it need not be kept; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Micros>,
    /// The group tag that it shall be a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupRequest>,
}

/// The group tag that a tag is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRequest {
    /// The group's name.
    pub name: String,
    /// Random, the same for all of its databases.
    pub id: Nonce,
    /// All databases of the group.
    pub members: Vec<TagMember>,
    /// Before anybody was asked.
    pub began: Micros,
    /// A position that is fixed later than this is too far from the others: there is no tag then.
    pub until: Micros,
}

/// A tag of a group to take back, because not all of its databases could be tagged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UntagRequest {
    /// Its name.
    pub name: String,
    /// The group tag's id: one of another id stays.
    pub group: Nonce,
}

/// What a tag means where the server keeps committed writes in its own buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unflushed {
    /// Refuse the tag: it could miss committed writes.
    #[default]
    Refuse,
    /// Tag what is in the files, and say so in the tag.
    Observed,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Answer {
    /// The tag is durable.
    Tag(Box<TagDocument>),
    /// The tag is not there any more.
    Untag {
        /// Whether it was.
        deleted: bool,
    },
    /// The base is published.
    Base {
        /// Its name.
        id: BaseId,
        /// Its floor.
        floor: Position,
    },
    /// Everything readable at the request is durable up to here.
    Flush(Position),
    /// How things are.
    Status(Box<Status>),
    /// The configuration was read again.
    Reload(Reloaded),
    /// It could not be done.
    Error(WireError),
}

/// What became of a configuration that was read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What differs; nothing where nothing does.
    pub changes: Vec<Change>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The database, and the archive where it has several.
    pub database: String,
    /// What.
    pub what: String,
    /// What became of it.
    pub effect: Effect,
}

/// What became of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It is in force.
    Applied,
    /// It will be, after a restart.
    NeedsRestart,
}

/// How an archiver is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The database directory.
    pub database: String,
    /// The archive, without credentials.
    pub archive: String,
    /// Its id; archivers of an earlier version do not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_id: Option<ArchiveId>,
    /// This archiver's claim.
    pub epoch: Epoch,
    /// Up to where records were read.
    pub read: Position,
    /// Up to where the archive has acknowledged them.
    pub acknowledged: Position,
    /// Records read and not acknowledged.
    pub unacknowledged_records: u64,
    /// When the oldest of them was read; while the log is not read to its end, a time before which everything was.
    pub oldest_unacknowledged: Option<Micros>,
    /// When the readable end was last looked at and fully read.
    pub caught_up: Option<Micros>,
    /// When the archive last acknowledged a segment.
    pub last_acknowledged: Option<Micros>,
    /// The last base that was published by this process.
    pub last_base: Option<BaseId>,
    /// Whether a base is being taken, or why one is wanted.
    pub base: Option<String>,
    /// When the wanted base will be taken, where it is only for barriers and they have come too often.
    #[serde(default)]
    pub base_due: Option<Micros>,
    /// Bytes on disk that only our pins hold.
    pub pinned_bytes: u64,
    /// Bytes of the log, from the oldest that the archive has not acknowledged.
    #[serde(default)]
    pub backlog_bytes: u64,
    /// Seconds until what is held back meets a limit, if the log goes on growing as it does; absent while nothing waits.
    #[serde(default)]
    pub time_to_full: Option<u64>,
    /// The limit that was met: what is held back is more than it may be, or the disk is nearly full.
    #[serde(default)]
    pub alarm: Option<String>,
    /// The archive does not answer.
    #[serde(default)]
    pub away: Option<Failing>,
    /// How long new WALs waited for their pins; absent before the first.
    #[serde(default)]
    pub pin_delay: Option<PinDelay>,
    /// What a base that was begun waits for, if it has for long.
    #[serde(default)]
    pub base_waits: Option<String>,
    /// Barriers recorded by this process.
    pub barriers: u64,
    /// Why nothing is archived at the moment, if that is so.
    pub waiting: Option<String>,
    /// When the status was made.
    pub now: Micros,
}

/// An error as it travels: enough to show and to exit with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// The code's dotted name.
    pub code: String,
    /// The whole line.
    pub message: String,
    /// The hint.
    pub hint: String,
}

impl From<&Error> for WireError {
    fn from(e: &Error) -> Self {
        Self { code: e.code().name().to_owned(), message: e.to_string(), hint: e.hint_text().to_owned() }
    }
}

impl WireError {
    /// The error on this side of the socket; a code that this version does not know is `control.unavailable`.
    fn into_error(self) -> Error {
        let code = Code::ALL.iter().copied().find(|c| c.name() == self.code).unwrap_or(Code::ControlUnavailable);
        Error::new(code, "asking the running archiver").hint(self.hint).because(self.message)
    }
}

/// A request on its way to the runner, with the way back.
#[derive(Debug)]
pub struct Command {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes; a requester that has gone away is no error.
    pub reply: oneshot::Sender<Result<Answer>>,
}

/// The socket's path in a form that fits `sockaddr_un` (108 bytes) however long the state directory's path is.
struct SocketPath {
    path: PathBuf,
    _dir: File,
}

impl SocketPath {
    fn of(state: &Path) -> Result<Option<Self>> {
        let dir = match File::open(state) {
            Ok(dir) => dir,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(error::io("opening the state directory", state, e)),
        };
        let socket = StateDir::socket(state);
        let name = socket.file_name().unwrap_or_default();
        Ok(Some(Self { path: PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name), _dir: dir }))
    }
}

/// The listening end; dropping it removes the socket.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl ControlServer {
    /// Listens in a locked state directory. Commands arrive at `commands`.
    pub fn start(state: &StateDir, commands: mpsc::Sender<Command>) -> Result<Self> {
        let path = StateDir::socket(state.root());
        // The lock on the state directory proves that a socket found here has no listener.
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(error::io("removing the old socket", &path, e)),
        }
        let short = SocketPath::of(state.root())?
            .ok_or_else(|| Error::new(Code::Internal, "opening the state directory").on(state.root().display()))?;
        let listener =
            UnixListener::bind(&short.path).map_err(|e| error::io("listening on the control socket", &path, e))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .map_err(|e| error::io("protecting the control socket", &path, e))?;
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let commands = commands.clone();
                        tokio::spawn(async move {
                            if let Err(e) = serve(stream, commands).await {
                                tracing::debug!(error = %e, "a control connection ended early");
                            }
                        });
                    }
                    Err(e) => {
                        // Out of descriptors, most likely: the archiver itself must go on.
                        tracing::warn!(error = %e, "the control socket could not accept a connection");
                        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    }
                }
            }
        });
        Ok(Self { path, task })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.task.abort();
        if let Err(e) = fs::remove_file(&self.path) {
            tracing::debug!(error = %e, "the control socket was already gone");
        }
    }
}

async fn serve(stream: UnixStream, commands: mpsc::Sender<Command>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut lines = BufReader::new(read.take(MAX_LINE));
    lines.read_line(&mut line).await?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Err(e) => Err(Error::new(Code::Usage, "reading the request").because(e)),
        Ok(request) => {
            let (reply, answer) = oneshot::channel();
            let mut more = String::new();
            let stopped = || Error::new(Code::ControlUnavailable, "asking the archiver").with("state", "stopping");
            match commands.send(Command { request, reply }).await {
                Err(_) => Err(stopped()),
                Ok(()) => tokio::select! {
                    answer = answer => answer.unwrap_or_else(|_| Err(stopped())),
                    // A second line, or the end: nobody waits any more.
                    _ = lines.read_line(&mut more) => return Ok(()),
                },
            }
        }
    };
    let answer = answer.unwrap_or_else(|e| Answer::Error(WireError::from(&e)));
    let mut text = serde_json::to_string(&answer).map_err(std::io::Error::other)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await?;
    write.shutdown().await
}

/// Asks the archiver that has its state in `state`; `None` if none is listening.
pub async fn ask(state: &Path, request: &Request) -> Result<Option<Answer>> {
    let shown = StateDir::socket(state);
    let Some(short) = SocketPath::of(state)? else { return Ok(None) };
    let stream = match UnixStream::connect(&short.path).await {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) => return Err(error::io("connecting to the control socket", &shown, e)),
    };
    let failed = |e: std::io::Error| {
        Error::new(Code::ControlUnavailable, "asking the running archiver").on(shown.display()).because(e)
    };
    let (read, mut write) = stream.into_split();
    let mut line =
        serde_json::to_string(request).map_err(|e| Error::new(Code::Internal, "encoding the request").because(e))?;
    line.push('\n');
    write.write_all(line.as_bytes()).await.map_err(failed)?;
    let mut text = String::new();
    BufReader::new(read).read_line(&mut text).await.map_err(failed)?;
    if text.is_empty() {
        return Err(Error::new(Code::ControlUnavailable, "asking the running archiver")
            .on(shown.display())
            .with("reason", "it ended before it answered"));
    }
    match serde_json::from_str(&text) {
        Ok(Answer::Error(e)) => Err(e.into_error()),
        Ok(answer) => Ok(Some(answer)),
        Err(e) => Err(Error::new(Code::ControlUnavailable, "reading the archiver's answer").because(e)),
    }
}
