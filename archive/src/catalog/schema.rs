//! The stored types: what the archive's documents and segment footers hold, as JSON.
//!
//! Owns: field names (never reused) and versions. Unknown fields of documents are kept (`extra`) and written back.
//! Refuses: logic. What the values must satisfy together is in `invariants`; the in-memory view is `model`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    clock::Micros,
    ids::{
        ArchiveId, BaseId, Boundary, ColumnFamilyId, ContentHash, Epoch, FileNumber, ManifestNumber, Nonce, Ordinal,
        RunningHash, SequenceNumber, TimelineId,
    },
    object_key::ObjectKey,
    rocks::transactions::Transactions,
    segment::entry::{Event, ManifestPoint},
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

/// A moment at which the archiver looked at the readable end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeSample {
    /// The clock before the read: every record up to the *previous* sample's boundary, and no later one that the
    /// previous read did not show, was readable then.
    pub from: Micros,
    /// The clock after the read: every record before `boundary` was committed by then.
    pub at: Micros,
    /// The readable end that the read showed.
    pub boundary: Boundary,
    /// How many of the segment's events were noted by then: at one boundary a look can lie before a change or after it.
    #[serde(default)]
    pub events: u64,
}

/// Part of a WAL in one segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalSpan {
    /// The WAL.
    pub wal: FileNumber,
    /// Boundary before this segment's first record of it.
    pub first: Boundary,
    /// Offset of that record.
    pub start: u64,
    /// Offset after this segment's last record of it.
    pub end: u64,
    /// blake3 over all records of the WAL from offset 0 to `end` (`segment::chain::WalPrefix`).
    pub prefix: ContentHash,
}

/// How far RocksDB's MANIFEST had been consumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestProgress {
    /// The place.
    pub point: ManifestPoint,
    /// Digest of the model of the database's files at that place.
    pub digest: ContentHash,
    /// Hash of the MANIFEST's edits up to that place, byte for byte: the model of another history can look the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edits: Option<ContentHash>,
    /// The server's session.
    pub session: u64,
    /// RocksDB's name of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db_session_id: Option<String>,
}

/// One frame of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameIndex {
    /// Offset in the object.
    pub offset: u64,
    /// Stored length in bytes, with the frame's header.
    pub stored: u32,
    /// Plain length in bytes.
    pub plain: u32,
    /// Boundary before its first record.
    pub first: Boundary,
    /// The running hash before its first entry.
    pub hash_before: RunningHash,
}

/// A segment's footer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentFooter {
    /// What a reader of the catalog needs.
    pub summary: SegmentSummary,
    /// Frames in order.
    pub frames: Vec<FrameIndex>,
    /// Every look at the readable end.
    pub samples: Vec<TimeSample>,
    /// How far the MANIFEST was consumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<ManifestProgress>,
    /// The state of the sequence model at the end, opaque to readers.
    #[serde(default)]
    pub sequence_model: Value,
    /// The machine's boot id when the records were read: page cache that was seen is only trusted within one boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a segment holds, as manifests and footers say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSummary {
    /// Its ordinal.
    pub ordinal: Ordinal,
    /// The writer.
    pub epoch: Epoch,
    /// Boundary before its first record.
    pub first: Boundary,
    /// Boundary after its last record; equal to `first` in a heartbeat.
    pub end: Boundary,
    /// Running hash before its first entry.
    pub hash_before: RunningHash,
    /// Running hash after its last entry.
    pub hash_after: RunningHash,
    /// Lowest sequence number in a record's header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_sequence: Option<SequenceNumber>,
    /// Highest end sequence of a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sequence: Option<SequenceNumber>,
    /// `LastSequence` after the last entry, by the sequence model.
    pub last_sequence: SequenceNumber,
    /// Transactions that are prepared and pending after the last entry.
    #[serde(default, skip_serializing_if = "Transactions::is_none")]
    pub transactions: Transactions,
    /// WALs.
    pub wals: Vec<WalSpan>,
    /// First and last look at the readable end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<(TimeSample, TimeSample)>,
    /// "Nothing more was readable at this time": the clock before reads that found nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_through: Option<Micros>,
    /// Plain bytes of the entries.
    pub plain_bytes: u64,
    /// Events, each with the boundary at which it lies in the stream.
    #[serde(default)]
    pub events: Vec<PlacedEvent>,
    /// Object size in bytes; 0 in the footer itself, which cannot know it.
    #[serde(default)]
    pub object_bytes: u64,
}

/// An event and where it lies in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedEvent {
    /// The boundary at which it was shipped.
    pub at: Boundary,
    /// The event.
    pub event: Event,
}

/// A roll-up over consecutive segments of one timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestDocument {
    /// Version of this document.
    pub version: u32,
    /// The archive.
    pub archive: ArchiveId,
    /// The timeline.
    pub timeline: TimelineId,
    /// Its number.
    pub number: ManifestNumber,
    /// Hash of the stored bytes of the manifest before; absent in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<ContentHash>,
    /// Rebuilt by reading segments, not written by the archiver: it proves only what it read.
    #[serde(default)]
    pub rebuilt: bool,
    /// Segments in order of their ordinals, densely from where the manifest before ended.
    pub segments: Vec<SegmentSummary>,
    /// Bases published since the manifest before.
    #[serde(default)]
    pub bases: Vec<BaseId>,
    /// Tags created since the manifest before: hash of the name, position.
    #[serde(default)]
    pub tags: Vec<(ContentHash, Position)>,
    /// Ranges of boundaries whose segments were deleted by retention.
    #[serde(default)]
    pub pruned: Vec<(Boundary, Boundary)>,
    /// When it was written.
    pub created: Micros,
    /// The writer.
    pub epoch: Epoch,
    /// The writer's nonce.
    pub nonce: Nonce,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Segments below an ordinal were deleted, and must not be created again: an ordinal that is free again would let a
/// stalled writer commit into the past. Written before the first of them is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundaryDocument {
    /// Version of this document.
    pub version: u32,
    /// The archive.
    pub archive: ArchiveId,
    /// The timeline.
    pub timeline: TimelineId,
    /// The first segment that is kept.
    pub ordinal: Ordinal,
    /// Boundary before its first record.
    pub first: Boundary,
    /// Running hash before its first entry.
    pub hash_before: RunningHash,
    /// Counts the statements about one ordinal: more was deleted below it since. The highest counts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revision: u64,
    /// The run that goes on there, unless it begins there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<OpenRun>,
    /// Segments below `ordinal` that are kept all the same, in order, none next to another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<KeptSegments>,
    /// The manifests that are kept, in order; the last range has no end. Empty: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<KeptManifests>,
    /// When it was written.
    pub created: Micros,
    /// The writer.
    pub epoch: Epoch,
    /// The writer's nonce.
    pub nonce: Nonce,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A run of which the beginning was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRun {
    /// Its number.
    pub run: u64,
    /// Where it begins.
    pub start: Boundary,
    /// Its first WAL.
    pub first_wal: FileNumber,
    /// The database's own identity.
    pub db_id: String,
}

/// Segments that are kept where what lies before and behind them was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSegments {
    /// The first of them.
    pub from: Ordinal,
    /// The first behind them.
    pub to: Ordinal,
    /// Boundary before their first record.
    pub first: Boundary,
    /// Running hash before their first entry.
    pub hash_before: RunningHash,
    /// Boundary after their last record.
    pub end: Boundary,
    /// Running hash after their last entry.
    pub hash_after: RunningHash,
    /// The run that goes on where they begin, unless it begins there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<OpenRun>,
}

/// Manifests that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptManifests {
    /// The first of them.
    pub from: ManifestNumber,
    /// The first behind them; absent where all that follow are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ManifestNumber>,
    /// Hash of the stored bytes of the manifest before the first; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<ContentHash>,
}

/// Objects that are no longer part of the archive. They are deleted a grace period later, unless something needs them by
/// then. A base in it is not offered any more, at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CondemnedDocument {
    /// Version of this document.
    pub version: u32,
    /// The archive.
    pub archive: ArchiveId,
    /// Its name: time and random.
    pub id: BaseId,
    /// The objects, by name, in order.
    pub objects: Vec<CondemnedObject>,
    /// When it was written: the grace period begins here.
    pub created: Micros,
    /// The writer.
    pub epoch: Epoch,
    /// The writer's nonce.
    pub nonce: Nonce,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// An object that is no longer part of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CondemnedObject {
    /// Its name.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub bytes: u64,
    /// Why.
    pub why: Condemnation,
}

/// Why an object is no longer part of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condemnation {
    /// A base that the retention policy does not keep.
    Base,
    /// A tag that has expired.
    ExpiredTag,
    /// A file that only such bases have.
    FileOfBase,
    /// A file that nothing names.
    Unreferenced,
    /// A segment whose entries are in a larger one.
    Superseded,
    /// What an interrupted test of the store left.
    Leftover,
}

/// A restore that reads a base and what follows it: nothing of that is deleted before this has expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldDocument {
    /// Version of this document.
    pub version: u32,
    /// The archive.
    pub archive: ArchiveId,
    /// Its name: time and random.
    pub id: BaseId,
    /// The base.
    pub base: BaseId,
    /// The timeline of its records.
    pub timeline: TimelineId,
    /// The segments, from the first to before the second; absent where none is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<(Ordinal, Ordinal)>,
    /// When it was written.
    pub created: Micros,
    /// From when on it holds nothing.
    pub expires: Micros,
    /// Who holds, for people: host and process.
    pub holder: String,
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
    /// The writer's nonce.
    pub nonce: Nonce,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

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
