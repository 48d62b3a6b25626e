//! The state directory: the lock that makes one archiver per directory, and where its parts live.
//!
//! Owns: the directory's layout, the lock, and how a file in it is replaced: written aside, fsynced, renamed, and the
//! directory fsynced, so that after a power cut there is the old one or the new one, whole. A file says its version.
//! Refuses: to hold anything that the archive and the database cannot rebuild: deleting the whole directory, or any file
//! in it (with no archiver running), costs at most a barrier and a new base.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use pitr_archive::{Code, Error, Result, error};

/// No file of the directory is longer.
const MAX_FILE: u64 = 1 << 20;

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

    /// Whether a process has its state in `root`, also one that does not listen yet: it has not reached its archive.
    ///
    /// # Errors
    /// Those of the local file system.
    pub fn is_taken(root: &Path) -> Result<bool> {
        let path = root.join("lock");
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(error::io("opening the lock", &path, e)),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(e)) => Err(error::io("examining the lock", &path, e)),
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
    pub(crate) const PINNED_FROM: &str = "pinned-from.json";

    /// Where it is noted what the watch on the WALs has shown.
    pub(crate) const WATCHED: &str = "watched.json";

    /// A file of the directory; `None` if it is not there. What is longer than any of ours is cut.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.root.join(name);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(error::io("reading", &path, e)),
        }
    }

    /// Replaces a file of the directory, durably: when this returns, a power cut brings back nothing older.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        let aside = self.root.join(format!("{name}.new"));
        // One that a crash left is overwritten: the lock says that nobody else writes here.
        let written =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside).and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            });
        written.map_err(|e| error::io("writing", &aside, e))?;
        crate::crash::point("state-before-rename");
        fs::rename(&aside, &path).map_err(|e| error::io("renaming", &aside, e))?;
        let synced = File::open(&self.root).and_then(|directory| directory.sync_all());
        synced.map_err(|e| error::io("making durable", &self.root, e))?;
        crate::crash::point("state-replaced");
        Ok(())
    }

    /// Removes a file of the directory, durably.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.root.join(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(error::io("removing", &path, e)),
        }
        let synced = File::open(&self.root).and_then(|directory| directory.sync_all());
        synced.map_err(|e| error::io("making durable", &self.root, e))
    }

    /// Replaces a file of the directory that only counts until the machine is started anew: a process that is killed leaves
    /// it as it is, and nothing waits for the disk.
    pub(crate) fn replace_for_this_boot(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (path, aside) = (self.root.join(name), self.root.join(format!("{name}.new")));
        let written = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside);
        written.and_then(|mut file| file.write_all(bytes)).map_err(|e| error::io("writing", &aside, e))?;
        fs::rename(&aside, &path).map_err(|e| error::io("renaming", &aside, e))
    }

    /// Removes what a process that died left of a base.
    pub(crate) fn clear_staging(&self) -> Result<()> {
        let staging = self.staging();
        match fs::remove_dir_all(&staging) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(error::io("clearing the staging directory", &staging, e)),
        }
    }

    /// Where files of a base are linked while it is uploaded.
    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }
}
