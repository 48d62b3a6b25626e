//! What only one process of this machine does at a time.
//!
//! Owns: a lock that leaves no file behind and ends with its process: a socket with an abstract name (`unix(7)`), which the
//! kernel gives to one process only. Another network namespace is another machine here.
//! Refuses: to wait; to say what is locked and what follows from it, which its callers do.

use std::{
    io::{self, ErrorKind},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixListener},
        },
    },
    path::Path,
};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt::socket_peercred,
};

/// Digits of the path's hash in a name, of which a socket takes 107 bytes.
const DIGITS: usize = 32;

/// What is locked.
#[derive(Clone, Debug)]
pub struct Name(SocketAddr);

/// Nobody else has the name as long as this lives.
#[derive(Debug)]
pub struct MachineLock(#[allow(dead_code)] UnixListener);

impl Name {
    /// `purpose` at `path`, as it is spelled. Two purposes are two locks.
    ///
    /// # Errors
    /// Where `purpose` is longer than a name can be.
    pub fn new(purpose: &str, path: &Path) -> io::Result<Self> {
        let path = blake3::hash(path.as_os_str().as_bytes()).to_hex();
        let name = format!("pitr-{purpose}-{}", path.get(..DIGITS).unwrap_or_default());
        SocketAddr::from_abstract_name(name).map(Self)
    }

    /// Takes it; none where somebody else has it.
    ///
    /// # Errors
    /// What else the kernel says.
    pub fn take(&self) -> io::Result<Option<MachineLock>> {
        match UnixListener::bind_addr(&self.0) {
            Ok(listener) => Ok(Some(MachineLock(listener))),
            Err(e) if e.kind() == ErrorKind::AddrInUse => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The process that has it, as far as the kernel tells: processes of other namespaces have no number. Nobody accepts
    /// connections there, so one that asked stays in the queue; where that is full, there is no answer, and no waiting for one.
    pub fn holder(&self) -> Option<i32> {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None);
        let socket = socket.ok()?;
        connect(&socket, &SocketAddrUnix::new_abstract_name(self.0.as_abstract_name()?).ok()?).ok()?;
        Some(socket_peercred(&socket).ok()?.pid.as_raw_nonzero().get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_and_is_known_until_it_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let name = Name::new("tests", dir.path()).unwrap();
        assert_eq!(name.holder(), None);
        let first = name.take().unwrap().expect("free");
        assert!(name.take().unwrap().is_none());
        assert_eq!(name.holder(), Some(i32::try_from(std::process::id()).unwrap()));
        assert!(Name::new("other-tests", dir.path()).unwrap().take().unwrap().is_some());
        drop(first);
        // A process that another test is just starting holds it, too, until it has become that process.
        let free = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            name.take().unwrap().is_some()
        });
        assert!(free);
    }
}
