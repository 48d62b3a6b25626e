//! The ready [`Owner`] for programs that have their database open through the `rocksdb` crate.
//!
//! Owns: nothing but a reference to the program's own database; this is the only file of the crate that names a RocksDB
//! library. A program that links another version implements [`Owner`] itself: it is four small methods.

use std::{fmt, sync::Arc};

use pitr_archive::{Code, Error, Result};
use rocksdb::{DBWithThreadMode, ThreadMode};

use crate::owner::{Done, Owner};

/// An owner over a shared database handle.
pub struct RocksDbOwner<T: ThreadMode> {
    db: Arc<DBWithThreadMode<T>>,
}

impl<T: ThreadMode> RocksDbOwner<T> {
    /// Callbacks into `db`.
    pub fn new(db: Arc<DBWithThreadMode<T>>) -> Self {
        Self { db }
    }

    fn error(&self, doing: &'static str, source: rocksdb::Error) -> Error {
        Error::new(Code::DatabaseOpen, doing).on(self.db.path().display()).because(source)
    }
}

impl<T: ThreadMode> fmt::Debug for RocksDbOwner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksDbOwner").field("db", &self.db.path()).finish()
    }
}

impl<T: ThreadMode + Send + Sync> Owner for RocksDbOwner<T> {
    fn flush_wal(&self) -> Result<Done> {
        // Readable is enough: the archive makes it durable, and an fsync would stall the program's writers.
        self.db.flush_wal(false).map(|()| Done::Yes).map_err(|e| self.error("flushing the log of", e))
    }

    fn hold_file_deletions(&self) -> Result<Done> {
        self.db.disable_file_deletions().map(|()| Done::Yes).map_err(|e| self.error("holding file deletions of", e))
    }

    fn release_file_deletions(&self) -> Result<()> {
        self.db.enable_file_deletions().map_err(|e| self.error("releasing file deletions of", e))
    }

    fn latest_sequence(&self) -> Result<Option<u64>> {
        Ok(Some(self.db.latest_sequence_number()))
    }
}
