//! What an archive is: RocksDB's files as they are read, the archive's own byte formats, the names of its objects, and
//! the stores that hold them. No RocksDB library, no command line, no daemon.
//!
//! - [`rocks`]: decoders (and the few encoders) of RocksDB's WAL, MANIFEST, write batch and OPTIONS. No I/O.
//! - [`segment`]: the archived stream: entries, running hash, frames, writer and reader. No I/O.
//! - [`catalog`]: the documents of an archive and the view of it in memory.
//! - [`store`]: where objects live.
//! - [`keyring`], [`cipher`]: who can read it. [`base`]: the database's own files. [`tag`]: names.
//! - [`ids`], [`clock`], [`random`], [`error`], [`code`], [`layout`]: the words everything else is written in.
//!
//! The bytes are specified in FORMAT.md, which is part of this documentation:
//!
#![doc = include_str!("../FORMAT.md")]
#![deny(unsafe_code, clippy::indexing_slicing)]
#![warn(clippy::cast_possible_truncation, clippy::expect_used)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, clippy::cast_possible_truncation)
)]

pub mod base;
pub mod catalog;
pub mod cipher;
pub mod clock;
pub mod code;
pub mod crash;
pub mod error;
pub mod ids;
pub mod keyring;
pub mod layout;
pub mod machine_lock;
pub mod measure;
pub mod object_key;
pub mod page_cache;
pub mod random;
pub mod rate;
pub mod restore_marker;
pub mod rocks;
pub mod segment;
pub mod store;
pub mod tag;
pub mod time_text;

pub use code::Code;
pub use error::{Error, Result};
