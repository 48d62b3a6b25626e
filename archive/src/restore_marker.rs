//! The small file that a restore leaves in the database's directory.
//!
//! Owns: its name (one that RocksDB ignores) and content. By it an archiver sees that a database is not the one it
//! archived before, although its identity is the same, and where it branched off. No I/O.

use serde::{Deserialize, Serialize};

use crate::{
    catalog::schema::Position,
    clock::Micros,
    ids::{ArchiveId, Boundary, Nonce, RunningHash, SequenceNumber, TimelineId},
};

/// The file's name below the database directory.
pub const FILE_NAME: &str = "pitr-restored.json";

/// What it holds, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreMarker {
    /// Version of this structure.
    pub version: u32,
    /// Random for every restore.
    pub marker: Nonce,
    /// The archive it was restored from.
    pub archive: ArchiveId,
    /// The timeline.
    pub timeline: TimelineId,
    /// The target.
    pub boundary: Boundary,
    /// The running hash there: by it the archive is known to still be the one that the restore read.
    pub hash: RunningHash,
    /// `LastSequence` there.
    pub sequence: SequenceNumber,
    /// When it was restored.
    pub created: Micros,
}

impl RestoreMarker {
    /// Where the restored database left the archived history.
    pub const fn position(&self) -> Position {
        let Self { timeline, boundary, hash, sequence, .. } = *self;
        Position { timeline, boundary, hash, wal: None, offset: None, sequence }
    }
}

/// The present version of [`RestoreMarker`].
pub const VERSION: u32 = 1;
