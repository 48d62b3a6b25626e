//! Waiting for a quiet database to go on, at the price of a few system calls a look.
//!
//! Owns: the thread that, while the daemon rests, looks every poll interval at the places where the next byte would
//! appear: behind the end of the present WAL, behind the end of the MANIFEST, and at CURRENT. Bytes are compared as well
//! as lengths: a recycled or preallocated WAL changes without growing, and times are as coarse as the kernel's tick. Where
//! nothing has come for ten seconds it looks a quarter as often: the first write after that is seen up to four poll intervals
//! later, and a process with many idle databases costs next to nothing.
//! Refuses: to say what changed, or that nothing did. The daemon looks itself, and the directories are listed by it: new
//! files are told by file events, and where these are not there, none waits longer for the listing than in a busy database.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use pitr_archive::{Result, error, rocks::log_format::BLOCK_SIZE};
use tokio::sync::Notify;

/// Nothing has come for so long: then there are fewer looks.
const LONG: Duration = Duration::from_secs(10);
/// So many times fewer.
const SELDOM: u32 = 4;

/// More than a header of any form.
const HEAD: usize = 64;

/// What lies behind the end of a log.
#[derive(Debug, PartialEq, Eq)]
struct Glimpse {
    length: u64,
    here: [u8; HEAD],
    /// Where the next record begins if this block is padded.
    next_block: [u8; HEAD],
}

impl Glimpse {
    fn of(file: &File, end: u64) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let head = |at| {
            let mut bytes = [0; HEAD];
            if at < length { file.read_at(&mut bytes, at).map(|_| bytes) } else { Ok(bytes) }
        };
        Ok(Self { length, here: head(end)?, next_block: head((end / BLOCK_SIZE + 1) * BLOCK_SIZE)? })
    }
}

/// The readable end of a log, in which everything before `end` is read and behind it no record has begun.
#[derive(Debug)]
struct End {
    file: Arc<File>,
    end: u64,
    seen: Glimpse,
}

/// What tells one file of a name from another.
#[derive(Debug, PartialEq, Eq)]
struct Identity(u64, u64, u64, i64, i64);

impl From<Metadata> for Identity {
    fn from(meta: Metadata) -> Self {
        Self(meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())
    }
}

/// CURRENT.
#[derive(Debug)]
struct Current {
    path: PathBuf,
    identity: Identity,
    /// While it is open, its inode's number is not given to the next one.
    _file: File,
}

impl Current {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        Ok(Self { path, identity: file.metadata()?.into(), _file: file })
    }

    fn is_another(&self) -> io::Result<bool> {
        Ok(self.identity != fs::metadata(&self.path)?.into())
    }
}

/// Where the next byte would appear. Taken *before* a look that finds nothing: what came after it then differs from this.
#[derive(Debug)]
pub struct Ahead {
    logs: Vec<End>,
    current: Current,
}

impl Ahead {
    /// Behind the ends of `logs`. `None` if something cannot be read: then the look says what.
    pub fn of(db: &Path, logs: impl IntoIterator<Item = (Arc<File>, u64)>) -> Option<Self> {
        let current = Current::open(db.join("CURRENT")).ok()?;
        let end = |(file, end): (Arc<File>, u64)| Some(End { seen: Glimpse::of(&file, end).ok()?, file, end });
        Some(Self { logs: logs.into_iter().map(end).collect::<Option<_>>()?, current })
    }

    /// Whether there is something to look at; also when that cannot be told.
    fn has_news(&self) -> bool {
        let log = |log: &End| Glimpse::of(&log.file, log.end).map_or(true, |now| now != log.seen);
        self.logs.iter().any(log) || self.current.is_another().unwrap_or(true)
    }
}

#[derive(Debug)]
struct State {
    ahead: Option<Ahead>,
    ended: bool,
    /// The ends of the logs that were last waited behind, and since when they are these.
    ends: Vec<(u64, u64)>,
    since: Instant,
}

impl Default for State {
    fn default() -> Self {
        Self { ahead: None, ended: false, ends: Vec::new(), since: Instant::now() }
    }
}

impl State {
    fn wait_for(&mut self, ahead: Option<Ahead>) {
        if let Some(ahead) = &ahead {
            let ends: Vec<_> = ahead.logs.iter().map(|log| (log.end, log.seen.length)).collect();
            if ends != self.ends {
                (self.ends, self.since) = (ends, Instant::now());
            }
        }
        self.ahead = ahead;
    }

    fn pause(&self, usual: Duration) -> Duration {
        if self.since.elapsed() >= LONG { usual * SELDOM } else { usual }
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    begun: Condvar,
}

impl Shared {
    // A panic while the lock is held leaves a state that is still true: it is replaced as a whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, poll: Duration, changed: &Notify) {
        let mut state = self.lock();
        while !state.ended {
            if state.ahead.is_none() {
                state = self.begun.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let pause = state.pause(poll);
            (state, _) = self.begun.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
            if state.ahead.take_if(|ahead| ahead.has_news()).is_some() {
                changed.notify_one();
            }
        }
    }
}

/// The thread; dropping this ends it.
#[derive(Debug)]
pub struct Sentry {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Sentry {
    /// A thread that looks every `poll` while there is something to wait for, and notifies `changed` once of a change.
    pub fn start(poll: Duration, changed: Arc<Notify>) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let thread = std::thread::Builder::new()
            .name("pitr-quiet".to_owned())
            .spawn({
                let shared = shared.clone();
                move || shared.run(poll, &changed)
            })
            .map_err(|e| error::io("starting a thread for", "the quiet database", e))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How long to wait where one usually waits `usual`: longer where nothing has come for long.
    pub fn pause(&self, usual: Duration) -> Duration {
        self.shared.lock().pause(usual)
    }

    /// What to wait for from now on.
    pub fn wait_for(&self, ahead: Option<Ahead>) {
        let mut state = self.shared.lock();
        let begins = state.ahead.is_none() && ahead.is_some();
        state.wait_for(ahead);
        if begins {
            self.shared.begun.notify_one();
        }
    }
}

impl Drop for Sentry {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.begun.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has already been reported by the panic hook.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn database() -> (tempfile::TempDir, Arc<File>, File) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("CURRENT"), "MANIFEST-000005\n").unwrap();
        let path = dir.path().join("000004.log");
        let writer = fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        (dir, Arc::new(File::open(&path).unwrap()), writer)
    }

    #[test]
    fn growth_is_news() {
        let (dir, log, mut writer) = database();
        writer.write_all(&[1; 100]).unwrap();
        let ahead = Ahead::of(dir.path(), [(log, 100)]).unwrap();
        assert!(!ahead.has_news());
        writer.write_all(&[0]).unwrap();
        assert!(ahead.has_news());
    }

    #[test]
    fn bytes_written_in_place_are_news() {
        for at in [100, BLOCK_SIZE] {
            let (dir, log, mut writer) = database();
            writer.write_all(&vec![0; 100_000]).unwrap();
            let ahead = Ahead::of(dir.path(), [(log, 100)]).unwrap();
            assert!(!ahead.has_news());
            let in_place = fs::OpenOptions::new().write(true).open(dir.path().join("000004.log")).unwrap();
            in_place.write_all_at(&[7; 20], at).unwrap();
            assert!(ahead.has_news(), "at {at}");
        }
    }

    #[test]
    fn another_current_is_news_and_so_is_none() {
        let (dir, log, _writer) = database();
        let ahead = Ahead::of(dir.path(), [(log, 0)]).unwrap();
        assert!(!ahead.has_news());
        fs::write(dir.path().join("new"), "MANIFEST-000006\n").unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("CURRENT")).unwrap();
        assert!(ahead.has_news());
        fs::remove_file(dir.path().join("CURRENT")).unwrap();
        assert!(ahead.has_news());
        assert!(Ahead::of(dir.path(), []).is_none());
    }

    #[test]
    fn what_stays_quiet_is_looked_at_less_often_until_something_comes() {
        let (dir, log, _writer) = database();
        let poll = Duration::from_millis(25);
        let mut state = State::default();
        state.wait_for(Ahead::of(dir.path(), [(log.clone(), 100)]));
        assert_eq!(state.pause(poll), poll);
        state.since -= LONG;
        // Looked at in between, and nothing was there.
        state.wait_for(None);
        state.wait_for(Ahead::of(dir.path(), [(log.clone(), 100)]));
        assert_eq!(state.pause(poll), poll * SELDOM);
        state.wait_for(Ahead::of(dir.path(), [(log, 120)]));
        assert_eq!(state.pause(poll), poll);
    }

    #[tokio::test]
    async fn the_sentry_tells_once_and_waits_for_the_next() {
        let (dir, log, mut writer) = database();
        let changed = Arc::new(Notify::new());
        let sentry = Sentry::start(Duration::from_millis(1), changed.clone()).unwrap();
        for end in 0..3 {
            sentry.wait_for(Ahead::of(dir.path(), [(log.clone(), end)]));
            assert!(tokio::time::timeout(Duration::from_millis(20), changed.notified()).await.is_err());
            writer.write_all(&[1]).unwrap();
            tokio::time::timeout(Duration::from_secs(10), changed.notified()).await.unwrap();
        }
    }
}
