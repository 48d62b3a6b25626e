//! The locks of a database that is replaced.
//!
//! Owns: the one by which RocksDB knows that a database is open (a POSIX record lock on `LOCK`), so that a server that has it
//! open is seen, and none can open it meanwhile; and the one that keeps two commands of ours from swapping at once. Both end
//! with this process, whatever happens to it.
//! Refuses: to wait.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{MetadataExt, fchown},
    path::Path,
};

use pitr_archive::{
    Code, Error, Result,
    error::io,
    machine_lock::{MachineLock, Name},
};
use rustix::{
    fs::FlockOperation,
    io::Errno,
    process::{Flock, FlockType, fcntl_getlk},
};

/// Nobody else on this machine swaps or settles this database.
#[derive(Debug)]
pub struct SwapLock(#[allow(dead_code)] MachineLock);

impl SwapLock {
    /// Locks a database's swaps.
    ///
    /// # Errors
    /// `restore.in-use` with the process that swaps.
    pub fn take(db: &Path) -> Result<Self> {
        let failed = |e| io("locking the swaps of", db, e);
        let name = Name::new("swaps", db).map_err(failed)?;
        name.take().map_err(failed)?.map(Self).ok_or_else(|| {
            let mut e = Error::new(Code::DatabaseInUse, "swapping").on(db.display());
            if let Some(process) = name.holder() {
                e = e.with("process", process);
            }
            e.hint("another pitr restores, rolls back or settles it: wait for that one")
        })
    }
}

/// A database that no server can open. POSIX releases such a lock when *any* descriptor of the file is closed: nothing else in
/// this process may open it.
#[derive(Debug)]
pub struct ServerLock(#[allow(dead_code)] File);

impl ServerLock {
    /// Locks a database.
    ///
    /// # Errors
    /// `restore.in-use` with the process that has it open.
    pub fn take(db: &Path) -> Result<Self> {
        let path = db.join("LOCK");
        let exists = path.exists();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| io("opening the database's lock", &path, e))?;
        if !exists && let Ok(own) = std::fs::metadata(db) {
            // A server that runs as another user must be able to open it. Without the right to give it away we are that user.
            let _ = fchown(&file, Some(own.uid()), Some(own.gid()));
        }
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(Errno::AGAIN | Errno::ACCESS) => {
                let mut e = Error::new(Code::DatabaseInUse, "locking").on(db.display());
                if let Ok(Some(holder)) = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))
                    && let Some(pid) = holder.pid
                {
                    e = e.with("process", pid.as_raw_nonzero().get());
                }
                Err(e)
            }
            Err(e) => Err(io("locking", &path, e.into())),
        }
    }
}
