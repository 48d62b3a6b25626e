//! A timeline in memory: its segments by boundary, and its history.
//!
//! Owns: queries over boundaries, which are binary searches, and the comparison of a named hash with the archive's.

use std::collections::{BTreeMap, BTreeSet};

use super::{Barrier, ColumnFamilyEvent, History, Manifest, Run, Session};
use crate::{
    catalog::schema::{BoundaryDocument, OpenRun, PlacedEvent, SegmentSummary, TimelineDocument},
    clock::Micros,
    ids::{Boundary, Ordinal, RunningHash, SequenceNumber, TimelineId},
    segment::entry::{CapturedFile, Event},
};

/// What a named boundary is against the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// The running hash there is the named one.
    Same,
    /// Inside a segment, or between events: the segment must be read to tell.
    InsideSegment,
    /// Retention has deleted the segments there.
    Deleted,
    /// The archive ends before it.
    BeyondHead,
    /// Another stream: the running hash there is a different one.
    Different,
}

/// A timeline with its segments and history.
#[derive(Clone, Debug)]
pub struct Timeline {
    document: TimelineDocument,
    manifests: Vec<Manifest>,
    deleted: Option<BoundaryDocument>,
    segments: Vec<SegmentSummary>,
    history: History,
    lost_end: Option<String>,
    /// Since when merged segments count, by their first ordinals.
    merged_since: BTreeMap<Ordinal, Micros>,
}

impl Timeline {
    /// From its parts, segments in order of their ordinals. Those that were deleted are left out.
    pub fn new(
        document: TimelineDocument,
        manifests: Vec<Manifest>,
        deleted: Option<BoundaryDocument>,
        mut segments: Vec<SegmentSummary>,
    ) -> Self {
        if let Some(deleted) = &deleted {
            segments.retain(|s| deleted.keeps(s.ordinal));
        }
        let (history, merged_since) = (History::default(), BTreeMap::new());
        let mut timeline = Self { document, manifests, deleted, segments, history, lost_end: None, merged_since };
        // The events that began these runs were deleted.
        let ranges = timeline.deleted.iter().flat_map(BoundaryDocument::ranges);
        let open: BTreeMap<Ordinal, PlacedEvent> = ranges
            .filter_map(|range| {
                let OpenRun { run, start, first_wal, db_id } = range.run?.clone();
                Some((range.from, PlacedEvent { at: start, event: Event::RunStarted { run, first_wal, db_id } }))
            })
            .collect();
        let events = timeline.segments.iter().flat_map(|s| open.get(&s.ordinal).into_iter().chain(&s.events));
        timeline.history = History::tell(events, timeline.end());
        for deleted in timeline.deleted.iter().flat_map(|deleted| &deleted.unlogged) {
            let families = deleted.column_families.iter().cloned();
            timeline.history.unlogged.entry(deleted.run).or_default().extend(families);
        }
        timeline
    }

    /// What deletion would leave of it.
    #[must_use]
    pub fn without(&self, deleted: BoundaryDocument) -> Self {
        let manifests = self.manifests.iter().filter(|m| deleted.keeps_manifest(m.number)).cloned().collect();
        // Of a million, those that stay.
        let segments = self.segments.iter().filter(|s| deleted.keeps(s.ordinal)).cloned().collect();
        Self::new(self.document.clone(), manifests, Some(deleted), segments).merged(self.merged_since.clone())
    }

    /// With what is known about merged segments.
    #[must_use]
    pub(crate) fn merged(self, since: BTreeMap<Ordinal, Micros>) -> Self {
        Self { merged_since: since, ..self }
    }

    /// Since when the merged segment that begins at an ordinal counts.
    pub fn merged_since(&self, ordinal: Ordinal) -> Option<Micros> {
        self.merged_since.get(&ordinal).copied()
    }

    /// The same with other entries for the same segments, and since when those of them count that were merged.
    pub(crate) fn with_segments(&self, segments: Vec<SegmentSummary>, since: BTreeMap<Ordinal, Micros>) -> Self {
        let since = self.merged_since.iter().map(|(ordinal, at)| (*ordinal, *at)).chain(since).collect();
        Self::new(self.document.clone(), self.manifests.clone(), self.deleted.clone(), segments).merged(since)
    }

    /// An object that shows that the archive went on behind the last segment that can be read, if there is one.
    pub fn lost_end(&self) -> Option<&str> {
        self.lost_end.as_deref()
    }

    /// `object` shows that the archive went on behind the last segment.
    pub(crate) fn note_lost_end(&mut self, object: String) {
        self.lost_end.get_or_insert(object);
    }

    /// Its number.
    pub const fn id(&self) -> TimelineId {
        self.document.timeline
    }

    /// What is stored about it.
    pub const fn document(&self) -> &TimelineDocument {
        &self.document
    }

    /// Its manifests in order.
    pub fn manifests(&self) -> &[Manifest] {
        &self.manifests
    }

    /// Where deletion stopped.
    pub const fn deleted(&self) -> Option<&BoundaryDocument> {
        self.deleted.as_ref()
    }

    /// All segments that are kept, in order.
    pub fn segments(&self) -> &[SegmentSummary] {
        &self.segments
    }

    /// The segment that stands for an ordinal.
    pub fn segment(&self, ordinal: Ordinal) -> Option<&SegmentSummary> {
        let behind = self.segments.partition_point(|s| s.ordinal <= ordinal);
        behind.checked_sub(1).and_then(|i| self.segments.get(i)).filter(|s| s.ordinals().contains(ordinal))
    }

    /// The last segment.
    pub fn head(&self) -> Option<&SegmentSummary> {
        self.segments.last()
    }

    /// The ordinal that the next segment must have.
    pub fn next_ordinal(&self) -> Ordinal {
        match (self.head(), &self.deleted) {
            (Some(head), _) => head.ordinals().next().unwrap_or(head.ordinal),
            (None, Some(deleted)) => deleted.ordinal,
            (None, None) => Ordinal::new(0),
        }
    }

    /// Boundary before the first record that is kept.
    pub fn start(&self) -> Boundary {
        match (self.segments.first(), &self.deleted, &self.document.parent) {
            (Some(first), _, _) => first.first,
            (None, Some(deleted), _) => deleted.first,
            (None, None, Some(parent)) => parent.boundary,
            (None, None, None) => Boundary::START,
        }
    }

    /// Boundary after the last record.
    pub fn end(&self) -> Boundary {
        self.head().map_or_else(|| self.start(), |head| head.end)
    }

    /// "Nothing more was readable at this time": the last one said.
    pub fn observed_through(&self) -> Option<Micros> {
        self.segments.iter().rev().find_map(|s| s.observed_through.max(s.observed.map(|(_, last)| last.at)))
    }

    /// Runs in order.
    pub fn runs(&self) -> &[Run] {
        &self.history.runs
    }

    /// The run of the record before `boundary`: the one that a target there ends in. At the start, the first run.
    pub fn run_of(&self, boundary: Boundary) -> Option<&Run> {
        let after = self.history.runs.partition_point(|run| run.start < boundary);
        self.history.runs.get(after.saturating_sub(1)).filter(|_| boundary <= self.end())
    }

    /// A run by its number.
    pub fn run(&self, number: u64) -> Option<&Run> {
        self.history.runs.iter().rev().find(|run| run.number == number)
    }

    /// Sessions of the server in order.
    pub fn sessions(&self) -> &[Session] {
        &self.history.sessions
    }

    /// Barriers in order.
    pub fn barriers(&self) -> &[Barrier] {
        &self.history.barriers
    }

    /// Barriers whose interval touches `from ..= to`.
    pub fn barriers_between(&self, from: Boundary, to: Boundary) -> impl Iterator<Item = &Barrier> {
        self.history.barriers.iter().filter(move |b| b.interval.lo <= to && b.interval.hi.is_none_or(|hi| from <= hi))
    }

    /// Files that entered without the log and are in the archive.
    pub fn captured(&self) -> &[CapturedFile] {
        &self.history.captured
    }

    /// Column families that came and went, in order.
    pub fn column_families(&self) -> &[ColumnFamilyEvent] {
        &self.history.column_families
    }

    /// Column families that were written without the log, by run; also where the place that showed it was deleted.
    pub const fn unlogged(&self) -> &BTreeMap<u64, BTreeSet<String>> {
        &self.history.unlogged
    }

    /// Ranges of records that were taken back.
    pub fn withdrawn(&self) -> &[(Boundary, Boundary)] {
        &self.history.withdrawn
    }

    /// Events at boundaries `from ..= to`, in order.
    pub fn events(&self, from: Boundary, to: Boundary) -> impl Iterator<Item = &PlacedEvent> {
        self.segments_touching(from, to).iter().flat_map(|s| &s.events).filter(move |e| from <= e.at && e.at <= to)
    }

    /// The segments that hold the records from `from` to before `to`, and the events between them.
    pub fn segments_covering(&self, from: Boundary, to: Boundary) -> &[SegmentSummary] {
        let start = self.segments.partition_point(|s| s.end <= from);
        let end = self.segments.partition_point(|s| s.first < to);
        self.segments.get(start.min(end)..end).unwrap_or_default()
    }

    /// The segments that contain any of the boundaries `from ..= to`, at their edges too.
    pub fn segments_touching(&self, from: Boundary, to: Boundary) -> &[SegmentSummary] {
        let start = self.segments.partition_point(|s| s.end < from);
        let end = self.segments.partition_point(|s| s.first <= to);
        self.segments.get(start.min(end)..end).unwrap_or_default()
    }

    /// The segments in which a record may end at or begin with a sequence number.
    pub fn segments_with_sequence(&self, sequence: SequenceNumber) -> impl Iterator<Item = &SegmentSummary> {
        self.segments
            .iter()
            .filter(move |s| s.min_sequence.is_some_and(|min| min <= sequence) && s.max_sequence >= Some(sequence))
    }

    /// The segments whose footers can tell what was readable at a time: the last one with a look at or before it, those
    /// after it up to the next look, and any inside which the clock was set back.
    pub fn time_candidates(&self, at: Micros) -> impl Iterator<Item = &SegmentSummary> {
        let early = |s: &SegmentSummary| s.observed.is_some_and(|(first, last)| first.at.min(last.at) <= at);
        let from = self.segments.iter().rposition(early).unwrap_or(0);
        let after = self.segments.iter().skip(from + 1).position(|s| s.observed.is_some());
        let to = after.map_or(self.segments.len(), |n| from + n + 1);
        self.segments.iter().enumerate().filter_map(move |(i, s)| {
            let stepped = i < from && s.observed.is_some_and(|(first, last)| last.at < first.at);
            (stepped || (from..=to).contains(&i)).then_some(s)
        })
    }

    /// What a boundary and the hash that somebody noted there are against this timeline.
    pub fn compare(&self, boundary: Boundary, hash: RunningHash) -> Named {
        if boundary > self.end() {
            return Named::BeyondHead;
        }
        if boundary < self.start() {
            return if self.deleted.is_some() { Named::Deleted } else { Named::Different };
        }
        if self.deleted.as_ref().is_some_and(|deleted| deleted.has_deleted(boundary)) {
            return Named::Deleted;
        }
        // What deletion left begins and ends with one of the hashes that this boundary had; the others went with the events.
        let other = match &self.deleted {
            Some(deleted) if deleted.cuts_at(boundary) => Named::Deleted,
            _ => Named::Different,
        };
        let touching = self.segments_touching(boundary, boundary);
        if touching.is_empty() {
            let before = match (&self.deleted, &self.document.parent) {
                (Some(deleted), _) => deleted.hash_before,
                (None, Some(parent)) => parent.hash,
                (None, None) => RunningHash::ZERO,
            };
            return if before == hash { Named::Same } else { other };
        }
        let mut inside = false;
        for segment in touching {
            let at_start = segment.first == boundary && segment.hash_before == hash;
            let at_end = segment.end == boundary && segment.hash_after == hash;
            if at_start || at_end {
                return Named::Same;
            }
            // Events at the boundary give the hash other values there, which the summary does not show.
            inside |= segment.first < boundary && boundary < segment.end;
            inside |= segment.events.iter().any(|e| e.at == boundary);
        }
        if inside { Named::InsideSegment } else { other }
    }
}
