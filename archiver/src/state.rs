//! The state directory: the lock that makes one archiver per directory, and where its parts live.
//!
//! Owns: the directory's layout and the lock. Refuses: to hold anything that the archive and the database cannot rebuild:
//! deleting the whole directory (with no archiver running) costs at most a barrier and a new base.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use pitr_archive::{Code, Error, Result, error};

/// A locked state directory; the lock ends with the process.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Where the state of a database lives unless told otherwise: beside it, so that hard links are possible.
    pub fn default_for(db: &Path) -> PathBuf {
        let mut name = db.file_name().unwrap_or_default().to_os_string();
        name.push(".pitr");
        db.with_file_name(name)
    }

    /// Creates the directory (mode 0700) if needed and takes its lock.
    ///
    /// # Errors
    /// `writer.state-locked` when another process holds it.
    pub fn lock(root: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|e| error::io("creating the state directory", root, e))?;
        let path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| error::io("opening the lock", &path, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root: root.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(Code::StateLocked, "locking the state directory").on(root.display()))
            }
            Err(TryLockError::Error(e)) => Err(error::io("locking the state directory", root, e)),
        }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The control socket of the archiver that has (or would have) its state in `root`.
    pub fn socket(root: &Path) -> PathBuf {
        root.join("control.sock")
    }

    /// Where it is noted which directory the pins were made of.
    pub(crate) fn pinned_from(&self) -> PathBuf {
        self.root.join("pinned-from.json")
    }

    /// Where files of a base are linked while it is uploaded.
    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }
}
