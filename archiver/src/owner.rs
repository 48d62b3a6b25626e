//! What only the owner of an open database can do for the archiver, as callbacks.
//!
//! Owns: the trait. The engine reads files and nothing else, so it never needs a RocksDB library; a program that embeds
//! RocksDB implements this trait over whatever version it links (`embedded` has it ready for the `rocksdb` crate).
//! Refuses: to require anything. Every method has a default that says "cannot".

use std::fmt;

use pitr_archive::Result;

/// Whether the owner did what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It did.
    Yes,
    /// It has no means to.
    Cannot,
}

/// Callbacks into the program that has the database open. They are called from the archiver's own thread and may block
/// it briefly; they must not call back into the archiver.
pub trait Owner: Send + Sync + fmt::Debug {
    /// Writes the WAL buffer of `manual_wal_flush` to the file, so that every committed write is readable.
    fn flush_wal(&self) -> Result<Done> {
        Ok(Done::Cannot)
    }

    /// Keeps the database from deleting files until [`Owner::release_file_deletions`]; nested calls count.
    fn hold_file_deletions(&self) -> Result<Done> {
        Ok(Done::Cannot)
    }

    /// Ends one [`Owner::hold_file_deletions`].
    fn release_file_deletions(&self) -> Result<()> {
        Ok(())
    }

    /// The database's own latest sequence number, to compare with what the archiver read.
    fn latest_sequence(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// No owner: the archiver runs beside a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoOwner;

impl Owner for NoOwner {}
