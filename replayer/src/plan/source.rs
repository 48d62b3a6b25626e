//! The few reads that planning needs where the catalog's summaries are not exact enough.
//!
//! Owns: the interface, so that planning can be tested on hand-made streams. The archive's side of it is in
//! `plan::archive_source`.

use async_trait::async_trait;
use pitr_archive::{
    Result,
    catalog::schema::{SegmentSummary, TimeSample},
    ids::{Boundary, RunningHash, TimelineId},
    segment::entry::{Entry, ManifestPoint},
};

/// An entry of a segment and where it lies.
#[derive(Clone, Debug)]
pub(crate) struct ReadEntry {
    /// The boundary before it.
    pub at: Boundary,
    /// The entry.
    pub entry: Entry,
    /// The running hash after it.
    pub hash: RunningHash,
}

/// Where segments are read from.
#[async_trait]
pub(crate) trait Source: Sync {
    /// Every entry of a segment, verified.
    async fn entries(&self, timeline: TimelineId, segment: &SegmentSummary) -> Result<Vec<ReadEntry>>;

    /// Every look at the readable end that a segment's footer holds.
    async fn samples(&self, timeline: TimelineId, segment: &SegmentSummary) -> Result<Vec<TimeSample>>;

    /// How far the MANIFEST had been read when the segment was cut.
    async fn manifest(&self, timeline: TimelineId, segment: &SegmentSummary) -> Result<Option<ManifestPoint>>;
}
