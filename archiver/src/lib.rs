//! Archives a RocksDB database while its server runs: follows the write-ahead log and the MANIFEST by reading files,
//! takes bases by hard links, and ships both into an archive.
//!
//! - [`Archiver`] is the whole thing: open it, then [`Archiver::run`] it as a daemon or drive it step by step.
//! - [`engine`] decides: what is continuous, what is a barrier, when a base is wanted. [`pin`], [`registry`] and
//!   [`watch`] hold files before the server deletes them; [`wal_tail`] and [`manifest_tail`] read them.
//! - [`retention`] decides what of an archive is kept, and deletes the rest. [`merge`] makes large segments of small ones.
//! - [`base`] takes bases, [`ship`] delivers segments, [`control`] is the socket that `pitr tag` talks to, [`metrics`] what
//!   can be seen of it from outside.
//!
//! In the database's directories it reads and hard-links out, nothing else. Nothing here links a RocksDB library, except
//! the ready [`Owner`] in `embedded` (behind the feature of that name).
//!
//! ```no_run
//! use std::sync::Arc;
//! use pitr_archive::{Result, store};
//! use pitr_archiver::{Archiver, ArchiverConfig, Parts, known_archive};
//!
//! # async fn example() -> Result<()> {
//! let parts = Parts::system();
//! let store = store::url::open("file:/var/backups/orders", &store::url::OpenOptions::of_process()).await?;
//! let config = ArchiverConfig::new("/var/lib/orders/db");
//! let archive = known_archive::open_or_create(&config.state, store, None, &*parts.clock, &*parts.random).await?;
//! let mut archiver = Archiver::open(config, archive, parts).await?;
//!
//! // Everything committed before this call is durable in the archive when it returns.
//! let position = archiver.catch_up().await?;
//! println!("archived through sequence {}", position.sequence);
//!
//! // Or leave it running until a signal comes.
//! archiver.run(async { let _ = tokio::signal::ctrl_c().await; }).await
//! # }
//! ```
#![warn(clippy::expect_used)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod archiver;
mod barrier_log;
pub mod base;
pub mod budget;
pub mod config;
pub mod control;
pub mod crash;
mod daemon;
mod delay;
mod elapsed;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod engine;
mod fork;
pub mod known_archive;
pub mod layout;
pub mod lineage;
pub mod manifest_tail;
pub mod merge;
pub mod metrics;
pub mod observer;
pub mod owner;
pub mod pin;
mod quiet;
mod recent;
pub mod registry;
mod requests;
pub mod retention;
mod roll_up;
mod sequence_model;
pub mod session;
pub mod ship;
mod source;
pub mod standby;
pub mod state;
mod stream;
mod unread;
pub mod wal_tail;
pub mod watch;
pub mod watched;
mod window;

pub use archiver::Archiver;
pub use config::{ArchiverConfig, Parts};
pub use delay::PinDelay;
pub use metrics::Metrics;
pub use owner::Owner;
pub use standby::Standby;
