//! The directory tree of a local archive.
//!
//! Owns: which directory this store stands for (by device and inode, so that an unmounted disk is noticed), that its
//! directories are durable before they are used, and the listing.
//! Invariant: a directory in `settled` was fsynced by this process, and so was every parent up to the root's, after
//! its name was made. What a writer that died made visible is thereby durable before anybody relies on it.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use rustix::io::Errno;

use super::{
    failed,
    listing::{Directory, Found},
    temporary,
};
use crate::{
    code::Code,
    error::{Error, Result},
    object_key::ObjectKey,
    store::Listed,
};

#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    /// Device and inode of the root, since it was first seen.
    identity: OnceLock<(u64, u64)>,
    settled: Mutex<HashSet<PathBuf>>,
    /// Directories that were only read, and fsynced before.
    read: Mutex<HashSet<PathBuf>>,
}

impl Tree {
    /// `root` need not exist yet, but must not be something else than a directory.
    pub(super) fn open(root: PathBuf) -> Result<Self> {
        if !root.is_absolute() {
            return Err(Error::new(Code::StoreUrl, "opening the archive's directory")
                .on(root.display())
                .hint("an absolute path is needed here"));
        }
        let tree = Self { root, identity: OnceLock::new(), settled: Mutex::default(), read: Mutex::default() };
        tree.exists()?;
        Ok(tree)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The object's file and that file's directory.
    pub(super) fn locate(&self, key: &ObjectKey) -> (PathBuf, PathBuf) {
        let path = self.root.join(key.as_str());
        let directory = path.parent().unwrap_or(&self.root).to_path_buf();
        (path, directory)
    }

    /// Whether the root is there; an error when it was there before and is not, or is another one.
    fn exists(&self) -> Result<bool> {
        let meta = match fs::metadata(&self.root) {
            Ok(meta) => meta,
            Err(e) if e.kind() == ErrorKind::NotFound && self.identity.get().is_none() => return Ok(false),
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(self.vanished().because(e)),
            Err(e) => return Err(failed("looking for the archive's directory", &self.root, e)),
        };
        if !meta.is_dir() {
            return Err(Error::new(Code::StoreUrl, "opening the archive's directory")
                .on(self.root.display())
                .hint("there is a file of this name; give a directory"));
        }
        let identity = (meta.dev(), meta.ino());
        if *self.identity.get_or_init(|| identity) != identity {
            return Err(self.vanished().with("reason", "another directory is at its place"));
        }
        Ok(true)
    }

    fn vanished(&self) -> Error {
        Error::new(Code::StoreUnavailable, "looking for the archive's directory")
            .on(self.root.display())
            .hint("the directory has disappeared since it was opened: check that its disk is mounted")
    }

    /// The answer "not there", after making sure that it is the object that is missing and not the archive.
    pub(super) fn absent<T>(&self) -> Result<Option<T>> {
        self.exists().map(|_| None)
    }

    /// Prefers "the archive's directory is gone" over an error that only follows from it.
    pub(super) fn explain(&self, error: Error) -> Error {
        self.exists().err().unwrap_or(error)
    }

    /// Makes the directories that writing `key` needs, durably.
    pub(super) fn prepare(&self, key: &ObjectKey) -> Result<()> {
        let (_, directory) = self.locate(key);
        let unfinished = self.root.join(temporary::DIRECTORY);
        if !self.exists()? {
            fs::create_dir_all(&self.root).map_err(|e| failed("creating the archive's directory", &self.root, e))?;
            self.exists()?;
        }
        self.settle(&unfinished)?;
        self.settle(&directory)
    }

    /// Makes `directory` (the root or below it) and its parents where they are missing, and fsyncs from the top down
    /// to it: a name is durable before anything is put under it.
    fn settle(&self, directory: &Path) -> Result<()> {
        if self.is_settled(directory) {
            return Ok(());
        }
        if directory == self.root {
            // The root may be several levels deep and new: make its own name durable as far up as we may.
            for parent in self.root.ancestors().skip(1) {
                sync_for_reading(parent)?;
            }
        } else if let Some(parent) = directory.parent() {
            self.settle(parent)?;
            match fs::create_dir(directory) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(self.explain(failed("creating a directory of the archive", directory, e))),
            }
            sync_directory(parent)?;
        }
        sync_directory(directory)?;
        lock(&self.settled).insert(directory.to_path_buf());
        Ok(())
    }

    /// Makes durable what a dead writer may have left visible in `directory`, once, if we are allowed to.
    pub(super) fn settle_for_reading(&self, directory: &Path) -> Result<()> {
        if self.is_settled(directory) || lock(&self.read).contains(directory) {
            return Ok(());
        }
        // A directory that is missing can come to be later: it is not remembered.
        if sync_for_reading(directory)? == Synced::Present {
            lock(&self.read).insert(directory.to_path_buf());
        }
        Ok(())
    }

    fn is_settled(&self, directory: &Path) -> bool {
        lock(&self.settled).contains(directory)
    }

    /// Objects below `prefix` greater than `after`, sorted.
    pub(super) fn list(&self, prefix: &str, after: Option<&ObjectKey>) -> Result<Vec<Listed>> {
        let mut found = Vec::new();
        let mut waiting = vec![(self.root.join(prefix), prefix.to_owned())];
        while let Some((path, prefix)) = waiting.pop() {
            self.settle_for_reading(&path)?;
            let Found { objects, directories } = Directory { path, prefix, after }.read()?;
            found.extend(objects);
            waiting.extend(directories);
        }
        if found.is_empty() {
            self.exists()?;
        }
        // They come in runs that are in order: this one merges them.
        found.sort();
        Ok(found)
    }
}

/// Makes the names in `directory` durable.
///
/// Where this fails, the object is not acknowledged, and whoever tries again finds its name taken and comes here once
/// more. Other than with a file's bytes, a second fsync can be believed: names go through the journal, and a file system
/// whose journal could not be written goes on failing (ext4 aborts it, xfs shuts down).
pub(super) fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|d| d.sync_all())
        .map_err(|e| failed("making a directory of the archive durable", directory, e))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Synced {
    Present,
    Missing,
}

/// The same where nobody promised that we may write: a reader without the right, a read-only or a missing directory
/// have nothing that this process could make durable.
fn sync_for_reading(directory: &Path) -> Result<Synced> {
    let error = match File::open(directory).and_then(|d| d.sync_all()) {
        Ok(()) => return Ok(Synced::Present),
        Err(e) => e,
    };
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Ok(Synced::Missing),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Ok(Synced::Present),
        _ => match Errno::from_io_error(&error) {
            // File systems on which a directory cannot be fsynced through a descriptor for reading.
            Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::BADF) => Ok(Synced::Present),
            _ => Err(failed("making a directory of the archive durable", directory, error)),
        },
    }
}

/// The sets only ever grow by whole elements, so a panic elsewhere does not spoil them.
fn lock(set: &Mutex<HashSet<PathBuf>>) -> MutexGuard<'_, HashSet<PathBuf>> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}
