//! The archive as it is in memory, and its questions.
//!
//! Owns: [`Catalog`] and [`Timeline`]: segments by boundary, the history that their events tell, and pure queries over
//! both. Queries over boundaries are binary searches; what is derived is derived once.
//! Refuses: reading, and deciding what a restore does (`replayer::plan`).

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use crate::{
    catalog::schema::{
        ArchiveDocument, BaseDocument, BoundaryDocument, EpochDocument, ManifestDocument, PlacedEvent, Position,
        SegmentSummary, TagDocument, TimelineDocument,
    },
    clock::Micros,
    ids::{
        BaseId, Boundary, ContentHash, Epoch, FileNumber, ManifestNumber, Ordinal, RunningHash, SequenceNumber,
        TimelineId,
    },
    segment::entry::{BarrierReason, ColumnFamilyChange, Event, Interval, ManifestPoint},
};

/// All that an archive says about itself.
#[derive(Clone, Debug)]
pub struct Catalog {
    archive: ArchiveDocument,
    epochs: BTreeMap<Epoch, EpochDocument>,
    timelines: BTreeMap<TimelineId, Timeline>,
    bases: Vec<BaseDocument>,
    tags: Vec<TagDocument>,
}

impl Catalog {
    /// From its parts; `bases` in order of their names, `tags` of theirs.
    pub fn new(
        archive: ArchiveDocument,
        epochs: Vec<EpochDocument>,
        timelines: Vec<Timeline>,
        bases: Vec<BaseDocument>,
        tags: Vec<TagDocument>,
    ) -> Self {
        Self {
            archive,
            epochs: epochs.into_iter().map(|e| (e.epoch, e)).collect(),
            timelines: timelines.into_iter().map(|t| (t.id(), t)).collect(),
            bases,
            tags,
        }
    }

    /// `archive.json`.
    pub const fn archive(&self) -> &ArchiveDocument {
        &self.archive
    }

    /// A writer's claim.
    pub fn epoch(&self, epoch: Epoch) -> Option<&EpochDocument> {
        self.epochs.get(&epoch)
    }

    /// All claims in order.
    pub fn epochs(&self) -> impl Iterator<Item = &EpochDocument> {
        self.epochs.values()
    }

    /// A timeline.
    pub fn timeline(&self, id: TimelineId) -> Option<&Timeline> {
        self.timelines.get(&id)
    }

    /// All timelines in order of their numbers.
    pub fn timelines(&self) -> impl DoubleEndedIterator<Item = &Timeline> {
        self.timelines.values()
    }

    /// The timeline that was opened last.
    pub fn newest_timeline(&self) -> Option<&Timeline> {
        self.timelines.values().next_back()
    }

    /// A base.
    pub fn base(&self, id: &BaseId) -> Option<&BaseDocument> {
        self.bases.binary_search_by(|base| base.id.cmp(id)).ok().and_then(|i| self.bases.get(i))
    }

    /// All bases in order of their names, which is that of time.
    pub fn bases(&self) -> &[BaseDocument] {
        &self.bases
    }

    /// The bases of a run, in order of their floors.
    pub fn bases_of_run(&self, timeline: TimelineId, run: u64) -> Vec<&BaseDocument> {
        let mut found: Vec<_> = self.bases.iter().filter(|b| b.floor.timeline == timeline && b.run == run).collect();
        found.sort_by_key(|base| base.floor.boundary);
        found
    }

    /// A tag by its name.
    pub fn tag(&self, name: &str) -> Option<&TagDocument> {
        self.tags.binary_search_by(|tag| tag.name.as_str().cmp(name)).ok().and_then(|i| self.tags.get(i))
    }

    /// All tags in order of their names.
    pub fn tags(&self) -> &[TagDocument] {
        &self.tags
    }
}

/// A manifest without its segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its number.
    pub number: ManifestNumber,
    /// Hash of its stored bytes.
    pub hash: ContentHash,
    /// Hash of the manifest before, as it says.
    pub previous: Option<ContentHash>,
    /// The ordinals of its segments.
    pub segments: Range<Ordinal>,
    /// Bases that it names.
    pub bases: Vec<BaseId>,
    /// Tags that it names: hash of the name, position.
    pub tags: Vec<(ContentHash, Position)>,
    /// Ranges of boundaries whose segments were deleted.
    pub pruned: Vec<(Boundary, Boundary)>,
    /// Rebuilt by reading segments.
    pub rebuilt: bool,
    /// When it was written.
    pub created: Micros,
    /// The writer.
    pub epoch: Epoch,
}

impl Manifest {
    /// Takes a document apart.
    pub fn outline(document: ManifestDocument, hash: ContentHash) -> (Self, Vec<SegmentSummary>) {
        let first = document.segments.first().map_or(Ordinal::new(0), |s| s.ordinal);
        let end = document.segments.last().and_then(|s| s.ordinal.next()).unwrap_or(first);
        let outline = Self {
            number: document.number,
            hash,
            previous: document.previous,
            segments: first..end,
            bases: document.bases,
            tags: document.tags,
            pruned: document.pruned,
            rebuilt: document.rebuilt,
            created: document.created,
            epoch: document.epoch,
        };
        (outline, document.segments)
    }
}

/// A contiguous part of the stream: every WAL from its first one on, completely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its number.
    pub number: u64,
    /// Boundary before its first record.
    pub start: Boundary,
    /// Boundary after its last record: where the next run starts, or the end of the archive.
    pub end: Boundary,
    /// The first WAL.
    pub first_wal: FileNumber,
    /// The database's own identity.
    pub db_id: String,
    /// Its WALs in order.
    pub wals: Vec<Wal>,
}

impl Run {
    /// Boundary before the first record in a WAL numbered `wal` or higher; the run's end when there is none yet.
    pub fn first_record_of_wal(&self, wal: FileNumber) -> Boundary {
        let index = self.wals.partition_point(|w| w.number < wal);
        self.wals.get(index).map_or(self.end, |w| w.first)
    }
}

/// A WAL in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wal {
    /// Its number.
    pub number: FileNumber,
    /// Boundary before its first record.
    pub first: Boundary,
    /// Its final end, once that was seen: offset after the last complete record.
    pub ended: Option<u64>,
}

/// A session of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Where it begins.
    pub at: Boundary,
    /// Its number on the timeline.
    pub number: u64,
    /// RocksDB's own name of it.
    pub db_session_id: Option<String>,
    /// Where its MANIFEST edits begin.
    pub manifest: ManifestPoint,
    /// `LastSequence` after the open.
    pub last_sequence: SequenceNumber,
}

/// A barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// Where it lies in the stream.
    pub at: Boundary,
    /// Why.
    pub reason: BarrierReason,
    /// Where it stands; closed by a later event where it was open.
    pub interval: Interval,
    /// The MANIFEST record that showed it.
    pub manifest: Option<ManifestPoint>,
    /// What was seen.
    pub detail: String,
    /// When.
    pub noticed: Micros,
}

/// A column family that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnFamilyEvent {
    /// Where it lies in the stream.
    pub at: Boundary,
    /// Which of the two.
    pub change: ColumnFamilyChange,
    /// Its id.
    pub id: crate::ids::ColumnFamilyId,
    /// Its name.
    pub name: String,
    /// When; closed by a later event where it was open.
    pub interval: Interval,
    /// The end of the MANIFEST record.
    pub manifest: ManifestPoint,
    /// Its payload, base64.
    pub edit: String,
}

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
    runs: Vec<Run>,
    sessions: Vec<Session>,
    barriers: Vec<Barrier>,
    column_families: Vec<ColumnFamilyEvent>,
    withdrawn: Vec<(Boundary, Boundary)>,
}

impl Timeline {
    /// From its parts, segments in order of their ordinals. Those below the deletion boundary are left out.
    pub fn new(
        document: TimelineDocument,
        manifests: Vec<Manifest>,
        deleted: Option<BoundaryDocument>,
        mut segments: Vec<SegmentSummary>,
    ) -> Self {
        if let Some(deleted) = &deleted {
            segments.retain(|s| s.ordinal >= deleted.ordinal);
        }
        let mut timeline = Self {
            document,
            manifests,
            deleted,
            segments,
            runs: Vec::new(),
            sessions: Vec::new(),
            barriers: Vec::new(),
            column_families: Vec::new(),
            withdrawn: Vec::new(),
        };
        timeline.derive();
        timeline
    }

    fn derive(&mut self) {
        // Which open intervals a MANIFEST record left: indexes into barriers and column families.
        let mut open: HashMap<ManifestPoint, Vec<(bool, usize)>> = HashMap::new();
        let events: Vec<PlacedEvent> = self.segments.iter().flat_map(|s| s.events.iter().cloned()).collect();
        for PlacedEvent { at, event } in events {
            match event {
                Event::RunStarted { run, first_wal, db_id } => {
                    if let Some(last) = self.runs.last_mut() {
                        last.end = at;
                    }
                    self.runs.push(Run { number: run, start: at, end: at, first_wal, db_id, wals: Vec::new() });
                }
                Event::SessionStarted { session, db_session_id, manifest, last_sequence } => {
                    self.sessions.push(Session { at, number: session, db_session_id, manifest, last_sequence });
                }
                Event::WalStarted { wal } => {
                    if let Some(run) = self.runs.last_mut() {
                        run.wals.push(Wal { number: wal, first: at, ended: None });
                    }
                }
                Event::WalEnded { wal, end, void_bytes: _ } => {
                    let wals = self.runs.last_mut().map(|run| run.wals.iter_mut().rev());
                    if let Some(wal) = wals.into_iter().flatten().find(|w| w.number == wal) {
                        wal.ended = Some(end);
                    }
                }
                // Replay reads these where they lie.
                Event::TimestampSizes { .. } => {}
                Event::ColumnFamily { change, id, name, interval, manifest, edit } => {
                    if interval.hi.is_none() {
                        open.entry(manifest).or_default().push((false, self.column_families.len()));
                    }
                    self.column_families.push(ColumnFamilyEvent { at, change, id, name, interval, manifest, edit });
                }
                Event::Barrier { reason, interval, manifest, detail, noticed } => {
                    if let (None, Some(manifest)) = (interval.hi, manifest) {
                        open.entry(manifest).or_default().push((true, self.barriers.len()));
                    }
                    self.barriers.push(Barrier { at, reason, interval, manifest, detail, noticed });
                }
                Event::IntervalClosed { manifest, hi } => {
                    for (barrier, index) in open.remove(&manifest).unwrap_or_default() {
                        let interval = if barrier {
                            self.barriers.get_mut(index).map(|b| &mut b.interval)
                        } else {
                            self.column_families.get_mut(index).map(|f| &mut f.interval)
                        };
                        if let Some(interval) = interval {
                            interval.hi = Some(hi);
                        }
                    }
                }
                Event::Withdrawn { from, to, evidence: _ } => self.withdrawn.push((from, to)),
            }
        }
        let end = self.end();
        if let Some(last) = self.runs.last_mut() {
            last.end = end;
        }
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

    /// A segment by its ordinal.
    pub fn segment(&self, ordinal: Ordinal) -> Option<&SegmentSummary> {
        self.segments.binary_search_by_key(&ordinal, |s| s.ordinal).ok().and_then(|i| self.segments.get(i))
    }

    /// The last segment.
    pub fn head(&self) -> Option<&SegmentSummary> {
        self.segments.last()
    }

    /// The ordinal that the next segment must have.
    pub fn next_ordinal(&self) -> Ordinal {
        match (self.head(), &self.deleted) {
            (Some(head), _) => head.ordinal.next().unwrap_or(head.ordinal),
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
        &self.runs
    }

    /// The run of the record before `boundary`: the one that a target there ends in. At the start, the first run.
    pub fn run_of(&self, boundary: Boundary) -> Option<&Run> {
        let after = self.runs.partition_point(|run| run.start < boundary);
        self.runs.get(after.saturating_sub(1)).filter(|_| boundary <= self.end())
    }

    /// A run by its number.
    pub fn run(&self, number: u64) -> Option<&Run> {
        self.runs.iter().rev().find(|run| run.number == number)
    }

    /// Sessions of the server in order.
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// Barriers in order.
    pub fn barriers(&self) -> &[Barrier] {
        &self.barriers
    }

    /// Barriers whose interval touches `from ..= to`.
    pub fn barriers_between(&self, from: Boundary, to: Boundary) -> impl Iterator<Item = &Barrier> {
        self.barriers.iter().filter(move |b| b.interval.lo <= to && b.interval.hi.is_none_or(|hi| from <= hi))
    }

    /// Column families that came and went, in order.
    pub fn column_families(&self) -> &[ColumnFamilyEvent] {
        &self.column_families
    }

    /// Ranges of records that were taken back.
    pub fn withdrawn(&self) -> &[(Boundary, Boundary)] {
        &self.withdrawn
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
        let touching = self.segments_touching(boundary, boundary);
        if touching.is_empty() {
            let before = match (&self.deleted, &self.document.parent) {
                (Some(deleted), _) => deleted.hash_before,
                (None, Some(parent)) => parent.hash,
                (None, None) => RunningHash::ZERO,
            };
            return if before == hash { Named::Same } else { Named::Different };
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
        if inside { Named::InsideSegment } else { Named::Different }
    }
}
