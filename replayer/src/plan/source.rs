//! The few reads that planning needs where the catalog's summaries are not exact enough.
//!
//! Owns: the interface, so that planning can be tested on hand-made streams. The archive's side of it is in
//! `plan::archive_source`.

use async_trait::async_trait;
use pitr_archive::{
    Code, Error, Result,
    catalog::schema::{BaseDocument, SegmentSummary, TimeSample},
    ids::{Boundary, RunningHash, TimelineId},
    segment::entry::{CapturedFile, Entry, ManifestPoint},
};

use super::stream::Piece;

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

    /// Whether the archive still has a file that an event names.
    async fn has(&self, file: &CapturedFile) -> Result<bool>;

    /// Whether an entry of the catalog is a segment. Where it stands for those of a manifest that was not read, this notes
    /// that the manifest is wanted, and that is the error: whatever comes of the plan, it is made again with it.
    fn exact(&self, _: TimelineId, segment: &SegmentSummary) -> Result<()> {
        match segment.rolled_up {
            None => Ok(()),
            Some(_) => Err(unread()),
        }
    }

    /// Whether a base is known with its files, in the same way.
    fn with_files(&self, _: &BaseDocument) -> Result<()> {
        Ok(())
    }
}

/// What is wanted exactly is not read yet.
pub(crate) fn unread() -> Error {
    Error::new(Code::Internal, "planning with a part of the catalog that was not read")
}

/// Whether all entries are segments; notes every one that is none.
pub(crate) fn all_exact<'a>(source: &dyn Source, pieces: impl IntoIterator<Item = &'a Piece>) -> Result<()> {
    let mut all = Ok(());
    for piece in pieces {
        all = all.and(source.exact(piece.timeline, &piece.summary));
    }
    all
}
