//! How long work tells what it is doing.
//!
//! Owns: the words. The command line draws bars from them; [`Silent`] draws nothing. Calls are cheap and come from
//! several threads at once.

use serde::Serialize;

/// A part of the work that has a size of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Files of a base; bytes.
    Base,
    /// Records of the write-ahead log; records.
    Records,
    /// Making files and directories durable; files.
    Sync,
    /// RocksDB recovers the restored database; no size.
    Recovery,
    /// Objects of the archive are checked; objects.
    Objects,
    /// Keys and values are read for a digest; pairs, size not known before.
    Digest,
}

impl Phase {
    /// What its numbers count.
    pub const fn unit(self) -> Unit {
        match self {
            Self::Base => Unit::Bytes,
            Self::Records => Unit::Records,
            Self::Sync => Unit::Files,
            Self::Recovery => Unit::Nothing,
            Self::Objects => Unit::Objects,
            Self::Digest => Unit::Pairs,
        }
    }
}

/// What the numbers of a phase count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Records of the write-ahead log.
    Records,
    /// Local files.
    Files,
    /// Objects of the archive.
    Objects,
    /// Pairs of key and value.
    Pairs,
    /// The phase only begins and ends.
    Nothing,
}

/// The receiver of progress.
pub trait Progress: Send + Sync {
    /// A phase begins; `total` in the phase's unit, where it is known. Phases may overlap.
    fn begin(&self, phase: Phase, total: Option<u64>);
    /// So much more of it is done.
    fn advance(&self, phase: Phase, done: u64);
    /// It is over.
    fn end(&self, phase: Phase);
}

/// Nobody is looking.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Phase, _: Option<u64>) {}
    fn advance(&self, _: Phase, _: u64) {}
    fn end(&self, _: Phase) {}
}
