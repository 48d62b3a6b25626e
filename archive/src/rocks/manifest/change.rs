//! What a MANIFEST record changed, and how that can be told from the record.

use serde::Serialize;

use super::Name;
use crate::{
    ids::{ColumnFamilyId, FileNumber, SequenceNumber},
    rocks::version_edit::DeletedFile,
};

/// One change that a record made. A record may make several.
///
/// How table files are told apart: a flush carries a LogNumber, a compaction takes files away and adds files that hold
/// nothing newer than those, a move takes away and adds the same file. What remains did not come from the WAL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// A column family came into being.
    ColumnFamilyAdded {
        /// Its id.
        id: ColumnFamilyId,
        /// Its name.
        name: Name,
        /// Its comparator.
        comparator: Option<Name>,
        /// The WAL that was current; records in earlier WALs are not for it.
        log_number: FileNumber,
        /// The record's payload, to be appended to another MANIFEST.
        #[serde(skip)]
        edit: Vec<u8>,
    },
    /// A column family was dropped, with its files.
    ColumnFamilyDropped {
        /// Its id.
        id: ColumnFamilyId,
        /// Its name.
        name: Name,
        /// The record's payload.
        #[serde(skip)]
        edit: Vec<u8>,
    },
    /// Memtables became files, or (no files) turned out to hold nothing that survived.
    Flush {
        /// The column family.
        cf: ColumnFamilyId,
        /// The new files.
        files: Vec<FileNumber>,
        /// The column family needs no WAL below this number any more.
        log_number: FileNumber,
        /// The record's payload.
        #[serde(skip)]
        edit: Vec<u8>,
    },
    /// Files joined that no flush and no compaction made: ingestion or import.
    FilesIngested {
        /// The column family.
        cf: ColumnFamilyId,
        /// The new files.
        files: Vec<FileNumber>,
        /// The record's payload.
        #[serde(skip)]
        edit: Vec<u8>,
    },
    /// Files left and none came for them: dropped file ranges, FIFO expiry, or a compaction that left nothing.
    FilesDropped {
        /// The column family.
        cf: ColumnFamilyId,
        /// The files, each with the level that it lay in.
        files: Vec<DeletedFile>,
        /// Whether one of them lay in level 0. `DeleteFilesInRange` never takes those: outside FIFO column families
        /// this was a compaction that left nothing, unless [`Change::may_be_delete_file`].
        level_zero: bool,
    },
    /// Files were rewritten: the database's content is the same (but for its own compaction filters).
    Compaction {
        /// The column family.
        cf: ColumnFamilyId,
        /// What was read.
        inputs: Vec<DeletedFile>,
        /// What was written.
        outputs: Vec<FileNumber>,
    },
    /// Files left and others came that hold newer data than those: an ingestion that replaces a range.
    FilesReplaced {
        /// The column family.
        cf: ColumnFamilyId,
        /// What left.
        removed: Vec<DeletedFile>,
        /// What came.
        added: Vec<FileNumber>,
    },
    /// Files moved to another level, or were described anew, unchanged.
    FilesMoved {
        /// The column family.
        cf: ColumnFamilyId,
        /// The moves.
        moves: Vec<FileMove>,
    },
    /// WALs below this number are no longer needed.
    MinLogNumberToKeep {
        /// The number.
        number: FileNumber,
    },
    /// `LastSequence` was written and differs from the one before.
    LastSequence {
        /// The new one.
        sequence: SequenceNumber,
    },
    /// The database's id was written for the first time in this MANIFEST, or has changed.
    DbId {
        /// The id.
        id: Name,
    },
}

/// A file that moved from one level to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FileMove {
    /// Its number.
    pub number: FileNumber,
    /// The level that it left.
    pub from: u32,
    /// The level that it is in now.
    pub to: u32,
}

impl Change {
    /// Whether this can be `DB::DeleteFile`, which RocksDB had until version 9: it takes one file, and of those in level 0
    /// the oldest. A compaction of one such file that leaves nothing looks the same.
    pub fn may_be_delete_file(&self) -> bool {
        matches!(self, Self::FilesDropped { files, .. } if files.len() == 1)
    }

    /// Whether the database's content changed by something that no WAL record tells, as far as the record alone can
    /// say. Several files dropped from level 0 do not count: that was a compaction that left nothing, or a FIFO column
    /// family that forgets by itself.
    pub fn is_outside_wal(&self) -> bool {
        match self {
            Self::FilesIngested { .. } | Self::FilesReplaced { .. } => true,
            Self::FilesDropped { level_zero, .. } => !level_zero || self.may_be_delete_file(),
            _ => false,
        }
    }
}
