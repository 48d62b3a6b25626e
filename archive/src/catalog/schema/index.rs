//! What is stored in an index: what manifests say, without going into their segments.

use serde::{Deserialize, Serialize};

use super::{BaseDocument, Extra, Position, SegmentSummary};
use crate::{
    clock::Micros,
    ids::{
        ArchiveId, BaseId, Boundary, ContentHash, Epoch, ManifestNumber, ManifestNumbers, Nonce, Ordinal, TimelineId,
    },
};

/// A roll-up over manifests. All of it follows from them: where it is lost, they are read; where it contradicts them, they
/// count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexDocument {
    /// Version of this document.
    pub version: u32,
    /// The archive.
    pub archive: ArchiveId,
    /// The timeline.
    pub timeline: TimelineId,
    /// The first manifest that it is over.
    pub first: ManifestNumber,
    /// The last one.
    pub last: ManifestNumber,
    /// Those of them that were there, in order.
    pub manifests: Vec<IndexedManifest>,
    /// The bases that they name and that were there, in order of their names, without `files` and `inline`.
    pub bases: Vec<BaseDocument>,
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

/// A manifest in an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedManifest {
    /// Its number.
    pub number: ManifestNumber,
    /// Hash of its stored bytes.
    pub hash: ContentHash,
    /// Hash of the manifest before, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<ContentHash>,
    /// Its segments as one; absent where they do not join, so that the manifest itself must be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<IndexedSegments>,
    /// Bases that it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<BaseId>,
    /// Tags that it names: hash of the name, position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(ContentHash, Position)>,
    /// Ranges of boundaries whose segments were deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pruned: Vec<(Boundary, Boundary)>,
    /// It was rebuilt by reading segments.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rebuilt: bool,
    /// The first and the last ordinal of each merged segment that it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<(Ordinal, Ordinal)>,
    /// When it was written.
    pub created: Micros,
    /// Its writer.
    pub epoch: Epoch,
}

/// The segments of a manifest as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedSegments {
    /// From the first ordinal to the last: every event, neighbouring spans of a WAL joined, bytes summed, and what is true
    /// at the end as the last segment says it. Without `observed` and `observed_through`.
    pub summary: SegmentSummary,
    /// The earliest of the times in their `observed` and `observed_through`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest: Option<Micros>,
    /// The latest of their last looks and `observed_through`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Micros>,
    /// Sequence numbers only grow from segment to segment, and no event tells of a session, run or barrier.
    #[serde(default)]
    pub ascending: bool,
}

impl IndexDocument {
    /// The manifests that it is over; `None` where it says nonsense.
    pub fn numbers(&self) -> Option<ManifestNumbers> {
        ManifestNumbers::new(self.first, self.last)
    }
}
