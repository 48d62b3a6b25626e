//! Indexes over manifests: what the archive's readers find their way with.
//!
//! Owns: which of them are due, and writing one. An index follows from manifests, so nothing waits for it and its failure is
//! no failure: the next larger one is built with what is missing, and readers read manifests meanwhile.
//! Refuses: being in anybody's way. One is written at a time, beside everything else.

use std::sync::Arc;

use pitr_archive::{
    catalog::archive::{Archive, EpochClaim, indexes::IndexWriting},
    catalog::index::Shape,
    ids::{ManifestNumber, ManifestNumbers, TimelineId},
};

use super::Archiver;
use crate::config::Parts;

/// So many may wait: a store that does not answer must not make a list grow.
const WAITING: usize = 16;

/// An index that is to be written.
#[derive(Debug)]
pub(crate) struct Indexing {
    archive: Arc<Archive>,
    claim: EpochClaim,
    parts: Parts,
    shape: Shape,
    timeline: TimelineId,
    group: ManifestNumbers,
}

impl Archiver {
    /// A manifest was written: groups that are complete with it have an index soon.
    pub(super) fn manifest_is_written(&mut self, timeline: TimelineId, number: ManifestNumber) {
        let complete = self.config.index.completed_by(number);
        self.unindexed.extend(complete.into_iter().map(|group| (timeline, group)));
        let excess = self.unindexed.len().saturating_sub(WAITING);
        self.unindexed.drain(..excess);
    }

    /// The next index to write.
    pub(crate) fn next_index(&mut self) -> Option<Indexing> {
        let (timeline, group) = self.unindexed.pop_front()?;
        let (archive, claim, parts) = (self.archive.clone(), self.claim.clone(), self.parts.clone());
        Some(Indexing { archive, claim, parts, shape: self.config.index, timeline, group })
    }

    /// Writes the indexes that are due: where no daemon does it beside everything else.
    pub async fn write_indexes(&mut self) {
        while let Some(next) = self.next_index() {
            next.write().await;
        }
    }
}

impl Indexing {
    /// Writes it. A failure is only told.
    pub(crate) async fn write(self) {
        let Self { archive, claim, parts, shape, timeline, group } = self;
        crate::crash::point("index-before-put");
        let writing = IndexWriting { shape, claim: &claim, clock: &*parts.clock, random: &*parts.random };
        match archive.write_index(timeline, group, &writing).await {
            Ok(()) => tracing::debug!(%timeline, manifests = %group, "wrote an index"),
            Err(e) => tracing::info!(error = %e, manifests = %group, "an index could not be written; plans read more"),
        }
        crate::crash::point("index-after-put");
    }
}
