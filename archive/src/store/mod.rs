//! Where an archive's objects live.
//!
//! Owns: the small interface that everything else uses, and what each answer means. Backends: [`local`] (durable,
//! exclusive, our own), [`cloud`] (opendal), [`memory`] (tests, with
//! [`faulty`] around it). [`url`] chooses one, [`probe`] tests it, [`measured`] counts what it is asked, [`limited`]
//! slows it down.
//!
//! Rules every backend keeps:
//! - an object is visible whole or not at all, and durable when the call returns;
//! - "not there" is `Ok(None)`; "could not be read" is an error; they never share a path;
//! - `put` creates exclusively: it answers [`Put::Exists`] when the name is taken, whoever took it. A lost reply can
//!   make a writer meet its own object, so callers compare nonces before they believe in another writer.

use std::{fmt, ops::Range, path::Path};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{error::Result, object_key::ObjectKey};

mod account;
mod answer;
#[cfg(feature = "cloud")]
pub mod cloud;
pub mod environment;
pub mod faulty;
pub mod limited;
pub mod local;
pub mod measured;
pub mod memory;
pub mod probe;
mod request;
mod services;
pub mod url;

/// The answer to an exclusive creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Put {
    /// The object is ours and durable.
    Created,
    /// The name was already taken; nothing was changed.
    Exists,
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The object's name.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub size: u64,
}

/// An object being written piece by piece. Dropping it without [`Upload::finish`] leaves nothing visible.
#[async_trait]
pub trait Upload: Send {
    /// Appends a piece.
    async fn write(&mut self, piece: Bytes) -> Result<()>;
    /// Makes the object visible and durable, exclusively.
    async fn finish(self: Box<Self>) -> Result<Put>;
    /// Gives it up and removes what was sent.
    async fn abort(self: Box<Self>) -> Result<()>;
}

/// An object store.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Creates an object exclusively from one buffer.
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<Put>;

    /// Starts an object that is written in pieces; `size_hint` is its expected size in bytes.
    async fn upload(&self, key: &ObjectKey, size_hint: u64) -> Result<Box<dyn Upload>>;

    /// Reads a whole object, or `None` if it is not there. Refuses objects above `limit` bytes before reading them.
    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Option<Bytes>>;

    /// Reads `range` of an object, exactly that many bytes; an object that is shorter is an error.
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>>;

    /// The size of an object, or `None` if it is not there.
    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>>;

    /// Every object below `prefix` (which ends with `/`, or is empty), sorted by key. Objects whose names are not
    /// ours are left out. With `after`, only keys greater than it.
    async fn list(&self, prefix: &str, after: Option<&ObjectKey>) -> Result<Vec<Listed>>;

    /// Deletes an object; deleting what is not there is success.
    async fn delete(&self, key: &ObjectKey) -> Result<()>;

    /// What this is, for people, without credentials: `file:/var/backups/db`, `s3://bucket/prefix`.
    fn describe(&self) -> String;

    /// The directory on this machine that holds the objects, if that is what it is.
    fn local_path(&self) -> Option<&Path> {
        None
    }

    /// How many requests were repeated inside until now, before a caller got an answer.
    fn repeated(&self) -> u64 {
        0
    }
}

/// For a store around `inner`: what it is and where it is, the inner one says.
macro_rules! said_by_inner {
    () => {
        fn describe(&self) -> String {
            self.inner.describe()
        }

        fn local_path(&self) -> Option<&std::path::Path> {
            self.inner.local_path()
        }

        fn repeated(&self) -> u64 {
            self.inner.repeated()
        }
    };
}
use said_by_inner;
