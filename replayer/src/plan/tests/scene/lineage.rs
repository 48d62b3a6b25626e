//! Timelines that fork, and what pruning leaves of them.

use std::ops::Range;

use pitr_archive::{
    Result,
    catalog::{
        model::Timeline,
        schema::{
            BoundaryDocument, DOCUMENT_VERSION, Extra, KeptSegments, OpenRun, Position, SegmentSummary,
            TimelineDocument,
        },
        windows::windows,
    },
    clock::Micros,
    ids::{ArchiveId, Epoch, Nonce, Ordinal, TimelineId},
    segment::entry::Event,
};

use super::Scene;
use crate::{
    plan::{Lineage, PlanOptions, RestorePlan},
    target::Target,
};

/// A timeline that was left.
pub(super) struct Ended {
    timeline: TimelineId,
    parent: Option<Position>,
    segments: Vec<SegmentSummary>,
    /// Of its segments, those that were deleted.
    deleted: Range<u64>,
    fork: Position,
}

impl Scene {
    /// The history forks at the end of the last segment: what follows is a child's, in a run of its own.
    pub fn fork(&mut self, first_wal: u64) -> &mut Self {
        self.fork_at(self.position(), first_wal)
    }

    /// The same, at a place behind which the parent had events at the same boundary.
    pub fn fork_at(&mut self, fork: Position, first_wal: u64) -> &mut Self {
        assert!(self.open.entries.is_empty(), "a segment is open");
        assert_eq!(fork.boundary, self.position().boundary);
        let parent = self.left.last().map(|ended| ended.fork);
        let segments = std::mem::take(&mut self.segments);
        self.hash = fork.hash;
        self.left.push(Ended { timeline: self.timeline, parent, segments, deleted: 0..0, fork });
        self.timeline = self.timeline.next().unwrap();
        self.run_started(0, first_wal)
    }

    /// Pruning deletes these segments of the parent.
    pub fn prune_parent(&mut self, deleted: Range<u64>) -> &mut Self {
        self.left.last_mut().unwrap().deleted = deleted;
        self
    }

    /// A plan on the only timeline, and the windows that people are shown of it, where one of its segments is lost.
    pub fn after_losing(&self, lost: u64, target: &Target) -> (Result<RestorePlan>, Vec<(u64, u64)>) {
        let mut segments = self.segments.clone();
        segments.retain(|segment| segment.ordinal != Ordinal::new(lost));
        let left = timeline(self.timeline, None, &segments, &(0..0));
        let lineage = Lineage {
            archive: ArchiveId([1; 16]),
            timelines: &[(&left, None)],
            bases: self.bases.clone(),
            source: self,
            tag: None,
        };
        let plan = futures::executor::block_on(lineage.plan(target, &PlanOptions::default()));
        let windows = windows(&left, &self.bases.iter().collect::<Vec<_>>());
        (plan, windows.iter().map(|window| (window.from.get(), window.to.get())).collect())
    }

    /// Plans on the child's timeline.
    pub fn plan_on_child(&self, target: &Target) -> Result<RestorePlan> {
        let left: Vec<Timeline> = self
            .left
            .iter()
            .map(|ended| timeline(ended.timeline, ended.parent, &ended.segments, &ended.deleted))
            .collect();
        let parent = self.left.last().map(|ended| ended.fork);
        let child = timeline(self.timeline, parent, &self.segments, &(0..0));
        let until = self.left.iter().map(|ended| Some(ended.fork)).chain([None]);
        let timelines: Vec<(&Timeline, Option<Position>)> = left.iter().chain([&child]).zip(until).collect();
        let lineage = Lineage {
            archive: ArchiveId([1; 16]),
            timelines: &timelines,
            bases: self.bases.clone(),
            source: self,
            tag: self.tag.as_ref(),
        };
        futures::executor::block_on(lineage.plan(target, &PlanOptions::default()))
    }
}

fn timeline(id: TimelineId, parent: Option<Position>, segments: &[SegmentSummary], deleted: &Range<u64>) -> Timeline {
    let document = TimelineDocument {
        version: DOCUMENT_VERSION,
        archive: ArchiveId([1; 16]),
        timeline: id,
        parent,
        restore_marker: None,
        db_id: "id".to_owned(),
        detail: String::new(),
        created: Micros(0),
        epoch: Epoch::new(1),
        nonce: Nonce([0; 16]),
        extra: Extra::new(),
    };
    let whole = Timeline::new(document, Vec::new(), None, segments.to_vec());
    if deleted.is_empty() {
        return whole;
    }
    let from = Ordinal::new(deleted.end);
    // Behind the last one nothing is left.
    let end = || segments.last().map(|last| (last.end, last.hash_after));
    let (first, hash_before) = whole.segment(from).map(|s| (s.first, s.hash_before)).or_else(end).unwrap();
    let kept = segments.get(..deleted.start as usize).and_then(|kept| Some((kept.first()?, kept.last()?)));
    let kept = kept.map(|(head, last)| KeptSegments {
        from: head.ordinal,
        to: Ordinal::new(deleted.start),
        first: head.first,
        hash_before: head.hash_before,
        end: last.end,
        hash_after: last.hash_after,
        run: None,
        head: None,
    });
    let before = segments.iter().filter(|segment| segment.ordinal < from).flat_map(|segment| &segment.events);
    let mut run = before.filter_map(|placed| match &placed.event {
        Event::RunStarted { run, first_wal, db_id } => {
            Some(OpenRun { run: *run, start: placed.at, first_wal: *first_wal, db_id: db_id.clone() })
        }
        _ => None,
    });
    whole.without(BoundaryDocument {
        version: DOCUMENT_VERSION,
        archive: ArchiveId([1; 16]),
        timeline: id,
        ordinal: from,
        first,
        hash_before,
        revision: 0,
        run: run.next_back(),
        head: None,
        kept: kept.into_iter().collect(),
        manifests: Vec::new(),
        unlogged: Vec::new(),
        created: Micros(0),
        epoch: Epoch::new(1),
        nonce: Nonce([0; 16]),
        extra: Extra::new(),
    })
}
