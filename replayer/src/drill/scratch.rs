//! The directory of a drill, which is gone afterwards.
//!
//! Owns: making it, readable by nobody else, and removing it: at the end, when the drill is dropped in the middle (Ctrl-C), and
//! by the next drill in the same place where its process was killed. One whose lock file can be locked belongs to nobody; one
//! that has none was kept on purpose. It is renamed before it is removed: threads that still write find no directory of
//! that name any more, and bring nothing back.
//! Refuses: to remove what another user made, or what only looks like ours. The place may be `/tmp`, where anybody can
//! give any name to anything.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use pitr_archive::{Code, Error, Result, error::io as failed, ids::BaseId};

use crate::owner::is_own_directory;

const PREFIX: &str = "pitr-drill-";
const LOCK: &str = "drill.lock";
const REMOVED: &str = ".removed";
/// A thread that still writes into a directory that it has open makes its removal fail once or twice.
const ATTEMPTS: usize = 20;

/// The directory. Dropping it removes it.
#[derive(Debug)]
pub struct Scratch {
    root: PathBuf,
    state: State,
    _lock: File,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    There,
    Gone,
}

impl Scratch {
    /// Makes one in `within`, which must exist, and removes what killed drills left there.
    pub fn create(within: &Path, id: &BaseId) -> Result<Self> {
        let within = within.canonicalize().map_err(|e| failed("finding the scratch directory", within, e))?;
        remove_leftovers(&within);
        let root = within.join(format!("{PREFIX}{id}"));
        // What is restored may be secret.
        DirBuilder::new().mode(0o700).create(&root).map_err(|e| failed("making the scratch directory", &root, e))?;
        let path = root.join(LOCK);
        let lock = OpenOptions::new().write(true).create_new(true).open(&path);
        let lock = lock.map_err(|e| failed("creating", &path, e))?;
        lock.try_lock().map_err(|e| Error::new(Code::FileIo, "locking").on(path.display()).because(e))?;
        Ok(Self { root, state: State::There, _lock: lock })
    }

    /// Where the database is restored to.
    pub fn database(&self) -> PathBuf {
        self.root.join("db")
    }

    /// Leaves it, for somebody who looks into it; answers where the database is.
    pub fn keep(mut self) -> Result<PathBuf> {
        self.state = State::Gone;
        let lock = self.root.join(LOCK);
        fs::remove_file(&lock).map_err(|e| failed("deleting", &lock, e))?;
        Ok(self.database())
    }

    /// Removes it.
    pub fn remove(mut self) -> Result<()> {
        self.state = State::Gone;
        remove(&self.root)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.state == State::There
            && let Err(e) = remove(&self.root)
        {
            tracing::warn!("the next drill in this directory removes it: {e}");
        }
    }
}

fn remove(root: &Path) -> Result<()> {
    let mut removed = root.as_os_str().to_owned();
    removed.push(REMOVED);
    let removed = PathBuf::from(removed);
    fs::rename(root, &removed).map_err(|e| failed("removing", root, e))?;
    let mut outcome = Ok(());
    for _ in 0..ATTEMPTS {
        outcome = fs::remove_dir_all(&removed);
        if outcome.is_ok() {
            return Ok(());
        }
    }
    outcome.map_err(|e| failed("removing", &removed, e))
}

/// What cannot be removed is in nobody's way.
fn remove_leftovers(within: &Path) {
    let Ok(entries) = fs::read_dir(within) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Some(left) = entry.file_name().to_str().and_then(Left::by_name) else { continue };
        if !is_own_directory(&path) {
            continue;
        }
        // Held until it is gone: nobody else finds it abandoned meanwhile.
        let lock = match (lock_of(&path), left) {
            (Ok(lock), _) if lock.try_lock().is_ok() => Some(lock),
            (Err(e), Left::Removed) if e.kind() == ErrorKind::NotFound => None,
            _ => continue,
        };
        tracing::info!(directory = %path.display(), "removing what a drill left that was killed");
        if let Err(e) = fs::remove_dir_all(&path) {
            tracing::warn!(directory = %path.display(), error = %e, "it cannot be removed");
        }
        drop(lock);
    }
}

/// What a directory's name says.
#[derive(Clone, Copy)]
enum Left {
    Drill,
    /// It was being removed when its process ended, and can have lost its lock file already.
    Removed,
}

impl Left {
    /// Of names that only a drill makes.
    fn by_name(name: &str) -> Option<Self> {
        let id = name.strip_prefix(PREFIX)?;
        let (id, left) = id.strip_suffix(REMOVED).map_or((id, Self::Drill), |id| (id, Self::Removed));
        id.parse::<BaseId>().is_ok().then_some(left)
    }
}

/// Its lock file, and nothing else that has the name: opening waits for nobody, and follows no link.
fn lock_of(directory: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let lock = OpenOptions::new().write(true).custom_flags(flags).open(directory.join(LOCK))?;
    if lock.metadata()?.is_file() { Ok(lock) } else { Err(ErrorKind::InvalidInput.into()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use pitr_archive::clock::Micros;

    use super::*;

    fn id(n: u32) -> BaseId {
        BaseId::new(Micros(0).to_datetime(), n)
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_gone_at_the_end_and_when_it_is_dropped_unless_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(dir.path(), &id(1)).unwrap();
        let mode = fs::metadata(scratch.database().parent().unwrap()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::create_dir(scratch.database()).unwrap();
        scratch.remove().unwrap();
        let dropped = Scratch::create(dir.path(), &id(2)).unwrap();
        fs::create_dir(dropped.database()).unwrap();
        drop(dropped);
        assert!(names(dir.path()).is_empty());
        let kept = Scratch::create(dir.path(), &id(3)).unwrap();
        let db = kept.keep().unwrap();
        assert!(db.parent().unwrap().is_dir());
        drop(Scratch::create(dir.path(), &id(4)).unwrap());
        assert_eq!(names(dir.path()), [format!("pitr-drill-{}", id(3))], "what is kept stays");
    }

    #[test]
    fn what_a_killed_drill_left_is_removed_and_what_another_one_uses_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let running = Scratch::create(dir.path(), &id(1)).unwrap();
        let named = |n: u32, rest: &str| format!("pitr-drill-{}{rest}", id(n));
        let kept = [named(3, ""), "pitr-drill-mine".to_owned(), "pitr-drill-mine.removed".to_owned()];
        let left = [named(4, ""), named(5, ".removed"), named(6, ".removed")];
        for (name, lock) in kept.iter().chain(&left).zip([false, true, true, true, false, true]) {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("000004.log"), "x").unwrap();
            if lock {
                fs::write(dir.path().join(name).join(LOCK), "").unwrap();
            }
        }
        // Not a directory, and one whose lock is none.
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(named(7, ".removed"))).unwrap();
        fs::create_dir(dir.path().join(named(8, ""))).unwrap();
        fs::write(elsewhere.path().join("lock"), "").unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("lock"), dir.path().join(named(8, "")).join(LOCK)).unwrap();
        let other = Scratch::create(dir.path(), &id(2)).unwrap();
        let mut expected = kept.to_vec();
        expected.extend([named(1, ""), named(2, ""), named(7, ".removed"), named(8, "")]);
        expected.sort();
        assert_eq!(names(dir.path()), expected);
        drop((running, other));
        expected.retain(|name| *name != named(1, "") && *name != named(2, ""));
        assert_eq!(names(dir.path()), expected);
    }
}
