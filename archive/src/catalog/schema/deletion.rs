//! What is stored about deletion: what of a timeline is kept, what is no longer part of the archive, and what must stay for
//! a while.

use serde::{Deserialize, Serialize};

use super::Extra;
use crate::{
    clock::Micros,
    ids::{
        ArchiveId, BaseId, Boundary, ContentHash, Epoch, FileNumber, ManifestNumber, Nonce, Ordinal, Ordinals,
        RunningHash, TimelineId,
    },
    object_key::ObjectKey,
};

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
    /// The last ordinal of the segment there, where it is a merged one. No other merged segment counts there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Ordinal>,
    /// Segments below `ordinal` that are kept all the same, in order, none next to another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<KeptSegments>,
    /// The manifests that are kept, in order; the last range has no end. Empty: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<KeptManifests>,
    /// Column families that were written without the log, which was tolerated: a run says so once, and that place can have
    /// been deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlogged: Vec<UnloggedRun>,
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

/// Column families of a run that were written without the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnloggedRun {
    /// The run.
    pub run: u64,
    /// Their names.
    pub column_families: Vec<String>,
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
    /// The last ordinal of the first of them, where it is a merged one. No other merged segment counts there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Ordinal>,
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
    /// Nothing of it is deleted before, whatever grace period a later prune is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Micros>,
    /// The writer.
    pub epoch: Epoch,
    /// The writer's nonce.
    pub nonce: Nonce,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

impl CondemnedDocument {
    /// Whether at `now` so much of the grace period is left that what names an object of it now is there long before it could
    /// be deleted: half of it and an hour, so that clocks which differ do not matter.
    pub fn leaves_time(&self, now: Micros) -> bool {
        const LEAST: i64 = 3_600_000_000;
        let left = self.until.map_or(0, |until| until.0.saturating_sub(now.0));
        let whole = self.until.map_or(0, |until| until.0.saturating_sub(self.created.0));
        self.created <= now && left >= LEAST && left >= whole / 2
    }
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

/// Segments that a restore reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSegments {
    /// Of this timeline.
    pub timeline: TimelineId,
    /// The first of them.
    pub from: Ordinal,
    /// The first behind them.
    pub to: Ordinal,
}

impl HoldDocument {
    /// Whether it is read what stands for any of these ordinals.
    pub fn holds(&self, timeline: TimelineId, ordinals: Ordinals) -> bool {
        let shares = |held: &HeldSegments| held.from <= ordinals.last() && ordinals.first() < held.to;
        self.segments.iter().any(|held| held.timeline == timeline && shares(held))
    }
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
    /// The segments, of every timeline on the way; empty where none is read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<HeldSegments>,
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
