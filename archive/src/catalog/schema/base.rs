//! What is stored about a base.

use serde::{Deserialize, Serialize};

use super::{Extra, Position};
use crate::{
    clock::Micros,
    ids::{
        ArchiveId, BaseId, Boundary, ColumnFamilyId, ContentHash, Epoch, FileNumber, Nonce, RunningHash, SequenceNumber,
    },
    segment::entry::ManifestPoint,
};

/// A base: a consistent set of the database's files and the place from which records are replayed on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseDocument {
    /// Version of this document.
    pub version: u32,
    /// The archive.
    pub archive: ArchiveId,
    /// Its name.
    pub id: BaseId,
    /// The run of the stream (`Event::RunStarted`) it belongs to.
    pub run: u64,
    /// The earliest target it can serve, acknowledged.
    pub floor: Position,
    /// RocksDB's first WAL needed (W0).
    pub first_wal: FileNumber,
    /// Boundary before the first record that is replayed on it: the first of the run in a WAL >= W0.
    pub first_record: Boundary,
    /// The running hash there.
    pub first_hash: RunningHash,
    /// `LastSequence` that RocksDB recovers from the base alone.
    pub last_sequence: SequenceNumber,
    /// Largest sequence number of any live file.
    pub max_file_sequence: SequenceNumber,
    /// Where the MANIFEST prefix ends.
    pub manifest: ManifestPoint,
    /// The database's own identity.
    pub db_id: String,
    /// Version of RocksDB from its OPTIONS file.
    pub rocksdb_version: String,
    /// Column families in order of their ids.
    pub column_families: Vec<BaseColumnFamily>,
    /// The server writes two-phase-commit records.
    #[serde(default)]
    pub allow_2pc: bool,
    /// Directories of the database outside its own, as its OPTIONS name them.
    pub paths: DatabasePaths,
    /// Small files stored inside: MANIFEST prefix, CURRENT, IDENTITY, OPTIONS and what the operator included.
    pub inline: Vec<InlineFile>,
    /// SST and blob files.
    pub files: Vec<BaseFile>,
    /// When the MANIFEST prefix was read.
    pub created: Micros,
    /// The writer.
    pub epoch: Epoch,
    /// The writer's nonce.
    pub nonce: Nonce,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A column family of a base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseColumnFamily {
    /// Its id.
    pub id: ColumnFamilyId,
    /// Its name.
    pub name: String,
    /// Its comparator's name.
    pub comparator: String,
    /// Its merge operator's name, where OPTIONS name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge_operator: Option<String>,
    /// Its compaction filter or filter factory, which drops keys without a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compaction_filter: Option<String>,
    /// `log_number`: records of older WALs are skipped for it.
    pub log_number: FileNumber,
}

/// Where the source keeps its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabasePaths {
    /// The database directory.
    pub db: String,
    /// `wal_dir`, when it is not the database directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_dir: Option<String>,
    /// `db_log_dir`, when set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db_log_dir: Option<String>,
    /// `db_paths` in order; empty when only the database directory is used.
    #[serde(default)]
    pub db_paths: Vec<String>,
    /// `cf_paths` by column family.
    #[serde(default)]
    pub cf_paths: Vec<(ColumnFamilyId, Vec<String>)>,
}

/// A small file stored in the base's document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineFile {
    /// Its name below the database directory.
    pub name: String,
    /// Its bytes, base64.
    pub content: String,
}

/// An SST or blob file of a base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseFile {
    /// Its name in the database, `000123.sst`.
    pub name: String,
    /// The column family.
    pub column_family: ColumnFamilyId,
    /// Index into the paths of its column family.
    #[serde(default)]
    pub path_id: u32,
    /// Its size in bytes.
    pub size: u64,
    /// blake3 of its bytes.
    pub hash: ContentHash,
    /// Name of the object below `files/` (`base::FileIdentity`).
    pub object: String,
    /// The epoch whose key seals the object.
    pub epoch: Epoch,
}
