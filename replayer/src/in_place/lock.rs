//! The lock by which RocksDB knows that a database is open.
//!
//! Owns: taking it as RocksDB does (a POSIX record lock on `LOCK`), so that a server that has the database open is seen, and
//! none can open it meanwhile. It ends with this process, whatever happens to it.
//! Refuses: to wait.

use std::{
    fs::{File, OpenOptions},
    io::ErrorKind,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{MetadataExt, fchown},
            net::{SocketAddr, UnixListener},
        },
    },
    path::Path,
};

use pitr_archive::{Code, Error, Result, error::io};
use rustix::{
    fs::FlockOperation,
    io::Errno,
    process::{Flock, FlockType, fcntl_getlk},
};

/// Nobody else swaps or settles this database. A socket with an abstract name: no file is left, and it ends with its process.
#[derive(Debug)]
pub struct SwapLock(#[allow(dead_code)] UnixListener);

impl SwapLock {
    /// Locks a database's swaps.
    ///
    /// # Errors
    /// `restore.in-use`.
    pub fn take(db: &Path) -> Result<Self> {
        let name = blake3::hash(db.as_os_str().as_bytes()).to_hex();
        let address = SocketAddr::from_abstract_name(format!("pitr-swaps-{}", name.get(..32).unwrap_or_default()));
        match address.and_then(|address| UnixListener::bind_addr(&address)) {
            Ok(listener) => Ok(Self(listener)),
            Err(e) if e.kind() == ErrorKind::AddrInUse => Err(Error::new(Code::DatabaseInUse, "swapping")
                .on(db.display())
                .hint("another pitr restores, rolls back or settles it: wait for that one")),
            Err(e) => Err(io("locking the swaps of", db, e)),
        }
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
