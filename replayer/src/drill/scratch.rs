//! The directory of a drill, which is gone afterwards.
//!
//! Owns: making it, readable by nobody else, and removing it: at the end, when the drill is dropped in the middle (Ctrl-C), and
//! by the next drill in the same place where its process was killed. One whose lock file can be locked belongs to nobody; one
//! that has none was kept on purpose. It is renamed before it is removed: threads that still write find no directory of
//! that name any more, and bring nothing back.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use pitr_archive::{Code, Error, Result, error::io, ids::BaseId};

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
        let within = within.canonicalize().map_err(|e| io("finding the scratch directory", within, e))?;
        remove_leftovers(&within);
        let root = within.join(format!("{PREFIX}{id}"));
        // What is restored may be secret.
        DirBuilder::new().mode(0o700).create(&root).map_err(|e| io("making the scratch directory", &root, e))?;
        let path = root.join(LOCK);
        let lock = OpenOptions::new().write(true).create_new(true).open(&path);
        let lock = lock.map_err(|e| io("creating", &path, e))?;
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
        fs::remove_file(&lock).map_err(|e| io("deleting", &lock, e))?;
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
    fs::rename(root, &removed).map_err(|e| io("removing", root, e))?;
    let mut outcome = Ok(());
    for _ in 0..ATTEMPTS {
        outcome = fs::remove_dir_all(&removed);
        if outcome.is_ok() {
            return Ok(());
        }
    }
    outcome.map_err(|e| io("removing", &removed, e))
}

/// What cannot be removed is in nobody's way.
fn remove_leftovers(within: &Path) {
    let Ok(entries) = fs::read_dir(within) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())) {
        let path = entry.path();
        // One that was being removed when its process ended can have lost its lock file already.
        let gone = path.as_os_str().as_encoded_bytes().ends_with(REMOVED.as_bytes());
        let abandoned = match OpenOptions::new().write(true).open(path.join(LOCK)) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => gone,
        };
        if abandoned {
            tracing::info!(directory = %path.display(), "removing what a drill left that was killed");
            if let Err(e) = fs::remove_dir_all(&path) {
                tracing::warn!(directory = %path.display(), error = %e, "it cannot be removed");
            }
        }
    }
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
        for (name, lock) in
            [("pitr-drill-killed", true), ("pitr-drill-half.removed", false), ("pitr-drill-mine", false)]
        {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("000004.log"), "x").unwrap();
            if lock {
                fs::write(dir.path().join(name).join(LOCK), "").unwrap();
            }
        }
        let other = Scratch::create(dir.path(), &id(2)).unwrap();
        let expected = [1, 2].map(|n| format!("pitr-drill-{}", id(n)));
        assert_eq!(names(dir.path()), [&expected[..], &["pitr-drill-mine".to_owned()]].concat());
        drop((running, other));
        assert_eq!(names(dir.path()), ["pitr-drill-mine"]);
    }
}
