//! What is stored about segments: footers, summaries, and the manifests that roll them up.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Extra, Position};
use crate::{
    clock::Micros,
    ids::{
        ArchiveId, BaseId, Boundary, ColumnFamilyId, ContentHash, Epoch, FileNumber, ManifestNumber, Nonce, Ordinal,
        Ordinals, RunningHash, SequenceNumber, TimelineId,
    },
    rocks::transactions::Transactions,
    segment::entry::{Event, ManifestPoint},
};

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// What its records write; absent where nothing is known of it, and anything can be in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub touches: Option<Vec<Touched>>,
}

/// Operations other than putting a value and deleting a key or a range: what a key holds after them is not told by the last
/// one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Special {
    /// `SingleDelete`.
    SingleDelete,
    /// `Merge`.
    Merge,
    /// `PutEntity`.
    Entity,
    /// `TimedPut`.
    TimedPut,
    /// A reference into a blob file.
    BlobIndex,
    /// Two-phase commit.
    TwoPhase,
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// Keys of one column family that the records of a frame write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// The column family.
    pub family: ColumnFamilyId,
    /// Bounds of the keys; absent where a range is deleted, which can hold any key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<KeyBounds>,
}

/// Bounds of keys, byte by byte, whatever their comparator; base64. Long ones are cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyBounds {
    /// No key is below it.
    pub from: String,
    /// No key is above it that does not begin with it.
    pub to: String,
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
    /// Its ordinal; the first of them in a merged segment.
    pub ordinal: Ordinal,
    /// The last of its ordinals, in a merged segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ordinal: Option<Ordinal>,
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
    /// Which operations its records have beside plain ones; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub special: Option<BTreeSet<Special>>,
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
    /// In memory only: this is no segment, it stands for all those of a manifest that was not read (`catalog::outline`).
    #[serde(skip)]
    pub rolled_up: Option<Box<RolledUp>>,
    /// What a merged segment stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<Merged>,
}

/// What is known of the segments that a [`SegmentSummary`] stands for which is none itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolledUp {
    /// The manifest that has them.
    pub manifest: ManifestNumber,
    /// The earliest of the times in their `observed` and `observed_through`.
    pub earliest: Option<Micros>,
    /// The latest of their last looks and `observed_through`.
    pub latest: Option<Micros>,
    /// Sequence numbers only grow from segment to segment, without a session, run or barrier between.
    pub ascending: bool,
}

/// What a merged segment stands for: the account of what its entries have cost the store, and what its numbers do not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// Stored bytes of the segments as archivers wrote them.
    pub original_bytes: u64,
    /// Stored bytes of everything that was ever written for these entries before this segment.
    pub written_bytes: u64,
    /// Sequence numbers do not only grow from one of the parts to the next: lowest and highest do not tell what is in between.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub numbers_repeat: bool,
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
    /// Merged segments, each in the place of those that it stands for. In the order in which they count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<SegmentSummary>,
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

impl SegmentSummary {
    /// Whether both say the same of a segment. An archiver that does not know `special` leaves it out where it repeats what a
    /// segment says.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let known = self.special.is_none() || other.special.is_none() || self.special == other.special;
        known && Self { special: other.special.clone(), ..self.clone() } == *other
    }

    /// The ordinals that it stands for.
    pub fn ordinals(&self) -> Ordinals {
        self.last_ordinal.and_then(|last| Ordinals::new(self.ordinal, last)).unwrap_or_else(|| self.ordinal.into())
    }

    /// Stored bytes of the segments as archivers wrote them.
    pub fn original_bytes(&self) -> u64 {
        self.merged.map_or(self.object_bytes, |merged| merged.original_bytes)
    }

    /// Stored bytes of everything that was ever written for its entries, itself included.
    pub fn written_bytes(&self) -> u64 {
        self.merged.map_or(0, |merged| merged.written_bytes).saturating_add(self.object_bytes)
    }
}
