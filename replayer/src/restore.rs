//! Performs a plan: fetch, lay down, check, rename.
//!
//! Owns: the order of effects. (1) Everything that can be refused is refused before anything is touched. (2) A staging
//! directory beside the destination is filled, every byte verified. (3) Files, then directories are made durable.
//! (4) The staging directory is renamed to the destination, and the directory above it made durable. An interruption
//! leaves the staging directory and nothing else; the next run replaces it.
//! Refuses: destinations that hold anything; paths of the source that nobody mapped.

use std::path::PathBuf;

use pitr_archive::ids::{BaseId, Nonce};
use serde::Serialize;

use crate::{
    owner::Owner,
    plan::{Note, PlannedPosition},
};

/// How to restore.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The directory that the database shall be in: not existing yet, or empty.
    pub into: PathBuf,
    /// To whom the files shall belong.
    pub owner: Option<Owner>,
    /// Where directories of the source outside its database directory go.
    pub map_paths: Vec<PathMap>,
    /// Who recovers the restored database.
    pub finish: Finish,
    /// A random id for the marker file that tells an archiver where this copy comes from.
    pub marker: Nonce,
    /// Files laid down at once.
    pub workers: usize,
}

impl RestoreOptions {
    /// Into `into`, owner unchanged, no paths mapped, recovery left to the server. `marker` must be random.
    pub fn new(into: impl Into<PathBuf>, marker: Nonce) -> Self {
        Self { into: into.into(), owner: None, map_paths: Vec::new(), finish: Finish::Leave, marker, workers: 4 }
    }
}

/// `--map-path OLD=NEW`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMap {
    /// A directory of the source, as its OPTIONS name it, or one above it.
    pub old: String,
    /// Where it goes; absolute.
    pub new: PathBuf,
}

/// Who runs RocksDB's recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finish {
    /// The server, when it opens the restored directory. Nothing is opened here.
    #[default]
    Leave,
    /// This process, in AbsoluteConsistency mode, before the directory gets its final name.
    Recover,
}

/// What a restore did. `.position.{timeline,record,wal,sequence}` is where it arrived.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreReport {
    /// The restored directory.
    pub into: PathBuf,
    /// Where it arrived.
    pub position: PlannedPosition,
    /// The base.
    pub base: BaseId,
    /// The random id in the marker file.
    pub marker: Nonce,
    /// SST and blob files laid down.
    pub files: usize,
    /// Their bytes.
    pub file_bytes: u64,
    /// Records written.
    pub records: u64,
    /// Bytes of the WAL files written.
    pub wal_bytes: u64,
    /// RocksDB recovered it here and reported the planned sequence number.
    pub recovered: bool,
    /// The plan's notes, and what came to light.
    pub notes: Vec<Note>,
}
