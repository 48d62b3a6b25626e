//! The stored types: what the archive's documents and segment footers hold, as JSON.
//!
//! Owns: field names (never reused) and versions. Unknown fields of documents are kept (`extra`) and written back.
//! Refuses: logic. What the values must satisfy together is in `invariants`; the in-memory view is `model`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    clock::Micros,
    ids::{ArchiveId, Boundary, ContentHash, Epoch, FileNumber, Nonce, RunningHash, SequenceNumber, TimelineId},
};

mod base;
mod deletion;
mod drill;
mod group;
mod index;
mod segment;

pub use base::{BaseColumnFamily, BaseDocument, BaseFile, DatabasePaths, InlineFile};
pub use deletion::{
    BoundaryDocument, Condemnation, CondemnedDocument, CondemnedObject, HeldSegments, HoldDocument, KeptManifests,
    KeptSegments, OpenRun, UnloggedRun,
};
pub use drill::{
    DrillChecks, DrillChoice, DrillDocument, DrillEstimate, DrillFailure, DrillFamily, DrillPlace, DrillPlan,
    DrillStructure, DrillTarget, DrillTimes, DrillVerdict,
};
pub use group::{TagGroup, TagMember};
pub use index::{IndexDocument, IndexedManifest, IndexedSegments};
pub use segment::{
    FrameIndex, KeyBounds, ManifestDocument, ManifestProgress, Merged, PlacedEvent, RolledUp, SegmentFooter,
    SegmentSummary, Special, TimeSample, Touched, WalSpan,
};

/// The version of every document that this program writes, and the newest that it reads.
pub const DOCUMENT_VERSION: u32 = 1;
/// [`ArchiveDocument::format`].
pub const ARCHIVE_FORMAT: &str = "pitr-archive";

/// Fields that a newer version wrote and this one does not know.
pub type Extra = Map<String, Value>;

/// A position as it is shown and stored: the record before a boundary, with what helps to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The timeline.
    pub timeline: TimelineId,
    /// The boundary after the position's record.
    pub boundary: Boundary,
    /// The running hash there.
    pub hash: RunningHash,
    /// The WAL that holds the record, if there is a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal: Option<FileNumber>,
    /// Offset after the record in that WAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// `LastSequence` of the database after the record.
    pub sequence: SequenceNumber,
}

/// `archive.json`: plain JSON, readable without a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveDocument {
    /// Always `pitr-archive`.
    pub format: String,
    /// Version of the whole archive format.
    pub version: u32,
    /// The archive's identity.
    pub id: ArchiveId,
    /// When it was created.
    pub created: Micros,
    /// How it is encrypted; absent when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// The writer's nonce.
    pub nonce: Nonce,
    /// blake3 of the file's text in which these 64 digits are zeros.
    pub check: ContentHash,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How an archive is encrypted. Reserved kinds of recipients: `x25519`, `command`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// Always `aes-256-gcm`.
    pub cipher: String,
    /// The timeline hash key, wrapped for each recipient.
    pub hash_key: Vec<WrappedKey>,
}

/// A key wrapped for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    /// `symmetric-file` in this version.
    pub recipient: String,
    /// Identifies the recipient's key without revealing it.
    pub key_id: String,
    /// Nonce and ciphertext, base64.
    pub wrapped: String,
}

/// A timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineDocument {
    /// Version of this document.
    pub version: u32,
    /// The archive.
    pub archive: ArchiveId,
    /// Its number.
    pub timeline: TimelineId,
    /// Where it left its parent; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Position>,
    /// The random id in the marker file of the restore that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_marker: Option<Nonce>,
    /// The database's own identity (`IDENTITY`).
    pub db_id: String,
    /// What showed that a history begins here, for people; empty for the first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// When it was opened.
    pub created: Micros,
    /// The writer.
    #[serde(default)]
    pub epoch: Epoch,
    /// The writer's nonce.
    pub nonce: Nonce,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A writer's claim on the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochDocument {
    /// Version of this document.
    pub version: u32,
    /// The archive.
    pub archive: ArchiveId,
    /// The claim's number.
    pub epoch: Epoch,
    /// When it was made.
    pub created: Micros,
    /// Who made it, for people: host and process.
    pub writer: String,
    /// The data key of this epoch's objects, wrapped for each recipient; empty when not encrypted.
    #[serde(default)]
    pub data_key: Vec<WrappedKey>,
    /// The writer's nonce.
    pub nonce: Nonce,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A tag: a name for a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagDocument {
    /// Version of this document.
    pub version: u32,
    /// The archive.
    pub archive: ArchiveId,
    /// Its name.
    pub name: String,
    /// What it names.
    pub position: Position,
    /// When it was asked for.
    pub created: Micros,
    /// A person's words.
    #[serde(default)]
    pub note: String,
    /// The server may have held committed writes in its memory that the tag does not include.
    #[serde(default)]
    pub observed_only: bool,
    /// From when on it protects nothing and may be deleted; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Micros>,
    /// The group tag that it is a part of; absent: it is of one database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<TagGroup>,
    /// The writer's nonce.
    pub nonce: Nonce,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}
