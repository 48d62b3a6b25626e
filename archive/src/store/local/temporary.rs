//! Files that are being written and have no object's name yet.
//!
//! Owns: where they live, their random names, their removal when a writer gives up or has crashed. A live file is
//! removed when its value is dropped; a crash leaves it, and [`remove_leftovers`] takes it a day later. A writer
//! that is slower than that keeps its file young by writing to it.

use std::{
    fs::{self, OpenOptions},
    io::ErrorKind,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::{failed, tree::Tree};
use crate::{
    clock::Micros,
    code::Code,
    error::{Error, Result},
    page_cache::{After, Outgoing},
};

/// Below the archive's directory, so that it shares its file system; no object's key begins like this.
pub(super) const DIRECTORY: &str = ".pitr-unfinished";

/// When a leftover is certainly nobody's.
const LEFTOVER_AGE_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

/// From this size on the space is asked for at the start: a full disk shows before the upload, and the file lies in
/// few pieces.
const RESERVE_FROM: u64 = 4 << 20;

/// A new file, removed when dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    out: Outgoing,
    reserved: u64,
    gone: bool,
}

impl Temporary {
    /// A new, empty file for about `size_hint` bytes. The tree must be prepared for writing.
    pub(super) fn create(tree: &Tree, size_hint: u64, after: After) -> Result<Self> {
        let mut name = [0; 16];
        getrandom::fill(&mut name)
            .map_err(|e| Error::new(Code::Internal, "choosing a name for a new file").because(e))?;
        let name: String = name.iter().map(|b| format!("{b:02x}")).collect();
        let path = tree.root().join(DIRECTORY).join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(|e| tree.explain(failed("creating a file for the new object", &path, e)))?;
        let mut temporary = Self { path, out: Outgoing::new(file, after), reserved: 0, gone: false };
        if size_hint >= RESERVE_FROM {
            temporary.reserve(size_hint)?;
        }
        Ok(temporary)
    }

    fn reserve(&mut self, size: u64) -> Result<()> {
        use rustix::{fs::FallocateFlags, io::Errno};
        match rustix::fs::fallocate(self.out.file(), FallocateFlags::KEEP_SIZE, 0, size) {
            Ok(()) => {
                self.reserved = size;
                Ok(())
            }
            // File systems that cannot reserve (NFS 3, FUSE): the writes themselves will show a full disk.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(e) => Err(failed("reserving space for the new object", &self.path, e.into())),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends `bytes`.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write(bytes).map_err(|e| failed("writing the new object", &self.path, e))
    }

    /// Makes what was written durable, all of it and the file's length: that writing back has begun promises nothing. After an error the file must be given up: a second fsync may succeed without
    /// having written anything.
    pub(super) fn sync(&mut self) -> Result<()> {
        let written = self.out.written();
        let cut = if self.reserved > written { self.out.file().set_len(written) } else { Ok(()) };
        cut.and_then(|()| self.out.sync()).map_err(|e| failed("making the new object durable", &self.path, e))
    }

    /// Takes the temporary name away.
    pub(super) fn remove(mut self) -> Result<()> {
        self.gone = true;
        fs::remove_file(&self.path).map_err(|e| failed("removing the temporary name", &self.path, e))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a temporary file stays behind; it is removed after a day");
        }
    }
}

/// Removes temporary files that were not written to for a day before `now`.
pub(super) fn remove_leftovers(tree: &Tree, now: Micros) -> Result<()> {
    let directory = tree.root().join(DIRECTORY);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        // Nothing was ever written here, or we may only read: then it is the writer's to tidy.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Ok(()),
        Err(e) => return Err(failed("looking for unfinished objects", &directory, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| failed("looking for unfinished objects", &directory, e))?;
        let modified = match entry.metadata().and_then(|meta| meta.modified()) {
            Ok(modified) => modified,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(failed("looking at an unfinished object", &entry.path(), e)),
        };
        // A time before 1970 counts as very old.
        let modified =
            modified.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
        if now.0.saturating_sub(modified) < LEFTOVER_AGE_MICROS {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Ok(()) => tracing::info!(path = %entry.path().display(), "removed what a crashed writer left behind"),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                ) => {}
            Err(e) => return Err(failed("removing an unfinished object", &entry.path(), e)),
        }
    }
    Ok(())
}
