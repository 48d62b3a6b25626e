//! The effects of merging.
//!
//! Owns: reading the parts, creating the merged object, finding out whose it is where one is there, deleting parts. One deed
//! at a time, apart from the archiver, so that a task can perform it and nothing is held up by it; what came of it is a value
//! that the archiver takes in.
//! Refuses: to make a merge count; that is the manifest's.

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::{Archive, CONCURRENCY, EpochClaim, PutSegment},
        schema::{BoundaryDocument, ManifestDocument, SegmentSummary},
    },
    code::Retry,
    ids::{ManifestNumber, Ordinals, TimelineId},
    object_key::{ObjectKey, prefix},
    segment::{
        envelope::Level,
        reader::SegmentReader,
        writer::{FinishedSegment, MergeStart, SegmentMerger, Unmerged},
    },
};

use super::{
    ledger::{Ledger, MOST, Superseded},
    plan::Group,
    policy::Policy,
};
use crate::config::Parts;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Task {
    /// Reads what is there.
    Learn { next: ManifestNumber },
    /// Makes one segment of several.
    Merge(Group),
    /// Deletes what was superseded.
    Delete(Vec<Superseded>),
}

/// A deed that has not begun.
#[derive(Debug)]
pub(crate) struct Deed {
    pub archive: Arc<Archive>,
    pub claim: EpochClaim,
    pub parts: Parts,
    pub timeline: TimelineId,
    pub policy: Policy,
    pub level: Level,
    /// The statement about deletion that was the newest when it was planned.
    pub deleted: Option<BoundaryDocument>,
    pub task: Task,
    /// [`super::super::Archiver::joins`] then.
    pub joins: u64,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Done {
    Learned(Box<Ledger>),
    /// It is in the archive; no manifest names it yet.
    Merged(Box<SegmentSummary>),
    /// These cannot be merged.
    LeftAlone(Ordinals),
    /// These are gone, and these were left: they are held, or what they were merged into is lost.
    Deleted {
        gone: Vec<Superseded>,
        left: Vec<Superseded>,
    },
    /// What it was planned on is not the newest any more.
    Outdated,
}

impl Deed {
    /// Performs it.
    pub(crate) async fn perform(self) -> Result<Done> {
        if matches!(self.task, Task::Learn { .. }) {
            return self.learn().await.map(|ledger| Done::Learned(Box::new(ledger)));
        }
        if self.archive.deletion_boundary(self.timeline).await? != self.deleted {
            return Ok(Done::Outdated);
        }
        match &self.task {
            Task::Merge(group) => self.merge(group).await,
            Task::Delete(superseded) => {
                let gone = self.delete(superseded).await?;
                let left = superseded.iter().filter(|s| !gone.contains(s)).copied().collect();
                Ok(Done::Deleted { gone, left })
            }
            Task::Learn { .. } => Ok(Done::Outdated),
        }
    }

    /// Reads the newest manifests, back to where more than two of the longest periods are known.
    async fn learn(&self) -> Result<Ledger> {
        let Task::Learn { next } = self.task else { return Err(Error::new(Code::Internal, "learning what is there")) };
        let (archive, timeline) = (&self.archive, self.timeline);
        let deleted = archive.deletion_boundary(timeline).await?;
        let mut numbers = archive.list_manifests(timeline).await?;
        numbers.retain(|number| *number < next && deleted.as_ref().is_none_or(|d| d.keeps_manifest(*number)));
        let back = self.policy.levels.iter().max().copied().unwrap_or_default() * 2 + self.policy.effective_grace();
        let back = i64::try_from(back.as_micros()).unwrap_or(i64::MAX);
        let since = self.parts.clock.now().0.saturating_sub(back);
        let mut ledger = Ledger::new(timeline, deleted, next);
        for chunk in numbers.rchunks(CONCURRENCY) {
            let read: Vec<ManifestDocument> = stream::iter(chunk.iter().rev().copied())
                .map(|number| async move {
                    let found = archive.get_manifest(timeline, number).await?;
                    found.map(|(document, _)| document).ok_or_else(|| {
                        Error::new(Code::ObjectMissing, "reading the manifest")
                            .on(ObjectKey::manifest(timeline, number))
                    })
                })
                .buffered(CONCURRENCY)
                .try_collect()
                .await?;
            read.iter().for_each(|document| ledger.manifest_before(document));
            if ledger.len() >= MOST || read.last().is_none_or(|oldest| oldest.created.0 < since) {
                break;
            }
        }
        let begins = ledger.superseded().iter().map(|s| s.ordinals.first()).min();
        if let Some(begins) = begins {
            let before = begins.get().checked_sub(1).map(pitr_archive::ids::Ordinal::new);
            let after = before.map(|before| ObjectKey::segment(timeline, before));
            let listed = archive.store().list(&prefix::segments(timeline), after.as_ref()).await?;
            let there: BTreeSet<Ordinals> = listed.iter().filter_map(|l| l.key.segment_ordinals()).collect();
            ledger.retain_superseded(&there);
        }
        Ok(ledger)
    }

    async fn merge(&self, group: &Group) -> Result<Done> {
        let Some(ordinals) = group.ordinals() else { return Ok(Done::Outdated) };
        // A name that was condemned once is not used again as long as that is remembered: sweeps delete what has it.
        if self.archive.condemned_keys().await?.contains(&ObjectKey::segment(self.timeline, ordinals)) {
            return Ok(Done::LeftAlone(ordinals));
        }
        let finished = match self.build(group, ordinals).await {
            Ok(finished) => finished,
            Err(Unmerged::ClockWentBack { .. }) => return Ok(Done::LeftAlone(ordinals)),
            // Whoever restores finds out, and so does `verify`; nothing is made worse by leaving it as it is.
            Err(Unmerged::Failed(e)) if e.code().retry() == Retry::Never && e.code() != Code::Internal => {
                tracing::warn!(error = %e, %ordinals, "segments cannot be merged; pitr verify tells more");
                return Ok(Done::LeftAlone(ordinals));
            }
            Err(Unmerged::Failed(e)) => return Err(e),
        };
        if !group.affords(finished.summary.object_bytes) {
            return Ok(Done::LeftAlone(ordinals));
        }
        crate::crash::point("merge-before-put");
        let put = self.archive.put_merged(&finished).await?;
        crate::crash::point("merge-after-put");
        match put {
            PutSegment::Created => Ok(Done::Merged(Box::new(finished.summary))),
            PutSegment::Conflict(_) => self.take_over(group, ordinals).await,
        }
    }

    async fn build(&self, group: &Group, ordinals: Ordinals) -> Result<FinishedSegment, Unmerged> {
        let first = group.parts.first().ok_or_else(|| Error::new(Code::Internal, "merging").on(ordinals))?;
        let start = MergeStart {
            archive: self.archive.id(),
            timeline: self.timeline,
            ordinals,
            epoch: self.claim.epoch(),
            first: first.first,
            hash_before: first.hash_before,
        };
        let mut merger = SegmentMerger::new(start, self.archive.keyring(), &*self.parts.random, self.level)?;
        for part in &group.parts {
            let reader = self.archive.read_segment(self.timeline, part.ordinals()).await?;
            // Decompressing and compressing keeps a thread busy.
            merger = off_the_loop(move || {
                merger.push(&reader)?;
                Ok(merger)
            })
            .await?;
        }
        let now = self.parts.clock.now();
        off_the_loop(move || Ok(merger.finish(now)?)).await
    }

    /// A merged segment is there that this process did not create: an earlier one died between it and its manifest, or another
    /// archiver has the same plan. It is as good as ours, if it is whole and nobody is about to delete it.
    async fn take_over(&self, group: &Group, ordinals: Ordinals) -> Result<Done> {
        let key = ObjectKey::segment(self.timeline, ordinals);
        let read = self.archive.read_segment(self.timeline, ordinals).await;
        let (reader, checked) = match read {
            Ok(reader) => {
                let reader = Arc::new(reader);
                let own = reader.clone();
                (Some(reader), off_the_loop(move || Ok(own.verify()?)).await)
            }
            Err(e) => (None, Err(Unmerged::Failed(e))),
        };
        match checked {
            Err(Unmerged::Failed(e)) if e.code().retry() == Retry::Later => return Err(e),
            Ok(()) if self.archive.condemned_keys().await?.contains(&key) => {}
            Ok(()) => {
                if let Some(summary) = reader.as_deref().and_then(|reader| same(reader, group)) {
                    return Ok(Done::Merged(Box::new(summary)));
                }
            }
            Err(_) => {}
        }
        tracing::warn!(%key, "another merged segment is there, which cannot be used; its parts stay as they are");
        Ok(Done::LeftAlone(ordinals))
    }

    async fn delete(&self, superseded: &[Superseded]) -> Result<Vec<Superseded>> {
        let now = self.parts.clock.now();
        let holds = self.archive.holds().await?;
        let held =
            |ordinals: Ordinals| holds.iter().any(|hold| hold.expires > now && hold.holds(self.timeline, ordinals));
        let admitted = |by: Ordinals| self.deleted.as_ref().is_none_or(|deleted| deleted.admits(by));
        let free: Vec<Superseded> =
            superseded.iter().filter(|s| !held(s.ordinals) && admitted(s.by)).copied().collect();
        let lost = self.lost(&free).await?;
        let free: Vec<Superseded> = free.into_iter().filter(|s| !lost.contains(&s.by)).collect();
        crate::crash::point("merge-before-delete");
        let deletions: Vec<_> = free
            .iter()
            .map(|superseded| async move {
                self.archive.store().delete(&ObjectKey::segment(self.timeline, superseded.ordinals)).await?;
                crate::crash::point("merge-deleted-one");
                Ok::<_, Error>(())
            })
            .collect();
        stream::iter(deletions).buffer_unordered(CONCURRENCY).try_collect::<()>().await?;
        crate::crash::point("merge-after-delete");
        Ok(free)
    }
}

impl Deed {
    /// Larger segments that are not there as long as they were: nothing is deleted for the sake of what is lost.
    async fn lost(&self, free: &[Superseded]) -> Result<BTreeSet<Ordinals>> {
        let larger: BTreeSet<(Ordinals, u64)> = free.iter().map(|s| (s.by, s.by_bytes)).collect();
        let mut lost = BTreeSet::new();
        for (by, bytes) in larger {
            let key = ObjectKey::segment(self.timeline, by);
            let found = self.archive.store().size(&key).await?;
            if found != Some(bytes) {
                tracing::error!(%key, bytes, found, "a merged segment is lost or damaged; its parts are kept: pitr verify tells more");
                lost.insert(by);
            }
        }
        Ok(lost)
    }
}

/// What a segment says, if it is made of these parts.
fn same(reader: &SegmentReader, group: &Group) -> Option<SegmentSummary> {
    let (first, last) = (group.parts.first()?, group.parts.last()?);
    let mut summary = reader.footer().summary.clone();
    summary.object_bytes = reader.header().object_len()?;
    let edges = (summary.first, summary.hash_before, summary.end, summary.hash_after)
        == (first.first, first.hash_before, last.end, last.hash_after);
    (edges && group.affords(summary.object_bytes)).then_some(summary)
}

async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Unmerged> + Send + 'static,
) -> Result<T, Unmerged> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Unmerged::Failed(Error::new(Code::Internal, "merging").because(e))))
}
