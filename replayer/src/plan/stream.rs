//! A timeline as planning sees it: segments, and the events between records, in their order.
//!
//! Owns: places (a boundary has several when events lie at it), runs, sessions, barriers, intervals, withdrawn ranges,
//! all as pure functions over summaries. Refuses: reading anything.
//!
//! Why places: at one boundary the stream can end a run and begin the next, or a session of the server. "After record
//! n" is the place before every event at that boundary; "the end of the archive" is the place after all of them.

mod change;

use std::collections::{BTreeMap, BTreeSet};

use pitr_archive::{
    catalog::{
        crossing::Footing,
        schema::{BaseDocument, Position, SegmentSummary, TimeSample},
    },
    ids::{Boundary, ColumnFamilyId, FileNumber, Ordinals, RunningHash, SequenceNumber, TimelineId},
    segment::entry::{BarrierReason, Blocks, CapturedSettings, Entry, Event, ManifestPoint},
};

use super::CrossIngest;
pub(crate) use change::{Barrier, Capture, FamilyEvent, Flush, Side, When};

/// A place in the stream: after the records before `boundary` and after the first `events` events that lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub boundary: Boundary,
    pub events: usize,
}

impl Place {
    /// Directly after the record before `boundary`.
    pub const fn before_events(boundary: Boundary) -> Self {
        Self { boundary, events: 0 }
    }
}

/// A segment, with the places that it covers.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub timeline: TimelineId,
    /// As archived, also where only a part of it belongs to this stream.
    pub summary: SegmentSummary,
    pub start: Place,
    pub end: Place,
    /// Where a child left its timeline: what lies behind is not on this stream.
    until: Option<Position>,
    /// Index of its first event in the stream's.
    first_event: usize,
}

impl Piece {
    /// Whether an event at `at` belongs to this stream.
    ///
    /// What lies exactly where a child left its parent belongs to the parent's further life, except column family edits
    /// and what is said of earlier changes: those name the interval they lie in. A change outside the log that may have
    /// come before that place, and was noticed there, is one of them.
    pub fn keeps_event(&self, at: Boundary, event: &Event) -> bool {
        let of_an_interval = |until: Boundary| match event {
            Event::ColumnFamily { .. } | Event::IntervalClosed { .. } | Event::Captured { .. } => true,
            Event::Barrier { reason, interval, .. } => reason.blocks() == Blocks::Floor && interval.lo < until,
            _ => false,
        };
        self.leaves().is_none_or(|until| at < until || at == until && of_an_interval(until))
    }

    fn leaves(&self) -> Option<Boundary> {
        self.until.map(|until| until.boundary)
    }

    /// Whether a child left its timeline right there.
    pub fn is_left_at(&self, boundary: Boundary, hash: RunningHash) -> bool {
        self.until.is_some_and(|until| (until.boundary, until.hash) == (boundary, hash))
    }

    /// Whether an entry at `at` belongs to this stream.
    pub fn keeps(&self, at: Boundary, entry: &Entry) -> bool {
        match entry {
            Entry::Record(_) => self.leaves().is_none_or(|until| at < until),
            Entry::Event(event) => self.keeps_event(at, event),
        }
    }

    /// Whether it says at any time what was readable then.
    pub fn tells_a_time(&self) -> bool {
        let s = &self.summary;
        let inside = s.rolled_up.as_ref().is_some_and(|inside| inside.earliest.is_some());
        inside || s.observed.is_some() || s.observed_through.is_some()
    }

    /// Whether what the summary says of the segment's end is true at this piece's end.
    pub fn is_whole(&self) -> bool {
        let all = || self.summary.events.iter().all(|e| self.keeps_event(e.at, &e.event));
        self.end.boundary == self.summary.end && all()
    }
}

/// An event; it lies directly after `place`.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub place: Place,
    pub event: Event,
}

/// A contiguous run of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub timeline: TimelineId,
    pub number: u64,
    pub start: Place,
}

/// A session of the server: later records are its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    /// It begins directly after this place.
    pub place: Place,
    /// Its MANIFEST edits lie behind this.
    pub manifest: ManifestPoint,
}

/// The place behind the event that lies directly after `place`.
fn after(place: Place) -> Place {
    Place { events: place.events + 1, ..place }
}

/// Records that the server took back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Withdrawn {
    pub from: Boundary,
    pub to: Boundary,
    /// It was noted directly after this place: what lies behind is not in it, also at the same boundary.
    pub noted: Place,
}

/// User-timestamp sizes noted in a WAL.
#[derive(Clone, Debug)]
pub(crate) struct TimestampSizes {
    pub place: Place,
    pub wal: FileNumber,
    pub offset: u64,
    pub sizes: Vec<(ColumnFamilyId, u16)>,
}

/// A timeline, with its ancestors below the places where it left them.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub timeline: TimelineId,
    pub pieces: Vec<Piece>,
    pub events: Vec<Placed>,
    pub runs: Vec<Run>,
    pub barriers: Vec<Barrier>,
    pub families: Vec<FamilyEvent>,
    pub captures: Vec<Capture>,
    pub flushes: Vec<Flush>,
    /// Column families in which writes without the log were tolerated.
    pub unlogged: Vec<(Place, Vec<String>)>,
    /// The same of runs of which a part was deleted.
    pub unlogged_deleted: BTreeMap<(TimelineId, u64), BTreeSet<String>>,
    pub timestamp_sizes: Vec<TimestampSizes>,
    /// Sorted.
    pub withdrawn: Vec<Withdrawn>,
    pub sessions: Vec<Session>,
}

/// The segments of one timeline, up to where a child left it.
pub(crate) struct Ancestor<'a> {
    pub timeline: TimelineId,
    pub segments: &'a [SegmentSummary],
    pub until: Option<Position>,
}

impl Stream {
    /// `lineage` runs from the oldest ancestor to the timeline itself.
    pub fn new(timeline: TimelineId, lineage: &[Ancestor<'_>]) -> Self {
        let mut stream = Self {
            timeline,
            pieces: Vec::new(),
            events: Vec::new(),
            runs: Vec::new(),
            barriers: Vec::new(),
            families: Vec::new(),
            captures: Vec::new(),
            flushes: Vec::new(),
            unlogged: Vec::new(),
            unlogged_deleted: BTreeMap::new(),
            timestamp_sizes: Vec::new(),
            withdrawn: Vec::new(),
            sessions: Vec::new(),
        };
        for ancestor in lineage {
            let in_lineage = |at: Boundary| ancestor.until.is_none_or(|until| at < until.boundary);
            for summary in ancestor.segments.iter().filter(|s| s.first == Boundary::START || in_lineage(s.first)) {
                stream.push(ancestor, summary.clone());
            }
        }
        stream.close_intervals();
        stream.find_sessions();
        stream.withdrawn.sort_unstable();
        stream
    }

    fn push(&mut self, ancestor: &Ancestor<'_>, summary: SegmentSummary) {
        let start = self.place_at(summary.first);
        let first_event = self.events.len();
        let until = ancestor.until;
        let mut piece = Piece { timeline: ancestor.timeline, summary, start, end: start, until, first_event };
        for placed in piece.summary.events.iter().filter(|e| piece.keeps_event(e.at, &e.event)) {
            let place = self.place_at(placed.at);
            self.note((ancestor.timeline, piece.summary.ordinals()), place, &placed.event);
            self.events.push(Placed { place, event: placed.event.clone() });
        }
        piece.end = self.place_at(until.map_or(piece.summary.end, |until| piece.summary.end.min(until.boundary)));
        self.pieces.push(piece);
    }

    /// The place after every event so far that lies at `boundary`.
    fn place_at(&self, boundary: Boundary) -> Place {
        match self.events.last() {
            Some(last) if last.place.boundary == boundary => Place { boundary, events: last.place.events + 1 },
            _ => Place::before_events(boundary),
        }
    }

    fn note(&mut self, told_in: (TimelineId, Ordinals), place: Place, event: &Event) {
        let (timeline, _) = told_in;
        match event {
            Event::RunStarted { run, .. } => self.runs.push(Run { timeline, number: *run, start: place }),
            Event::SessionStarted { manifest, .. } => self.sessions.push(Session { place, manifest: *manifest }),
            Event::TimestampSizes { wal, offset, sizes } => {
                self.timestamp_sizes.push(TimestampSizes { place, wal: *wal, offset: *offset, sizes: sizes.clone() })
            }
            Event::ColumnFamily { change, id, name, interval, manifest, edit } => self.families.push(FamilyEvent {
                when: When::noted(place, *interval),
                change: *change,
                id: *id,
                name: name.clone(),
                manifest: *manifest,
                edit: edit.clone(),
            }),
            Event::Withdrawn { from, to, .. } => self.withdrawn.push(Withdrawn { from: *from, to: *to, noted: place }),
            Event::Barrier { reason, interval, manifest, unexplained, detail, .. } => self.barriers.push(Barrier {
                unexplained: *unexplained,
                when: When::noted(place, *interval),
                reason: *reason,
                manifest: *manifest,
                detail: detail.clone(),
            }),
            Event::Captured { manifest, column_family, edit, files, behind, settings } => self.captures.push(Capture {
                place,
                told_in,
                manifest: *manifest,
                column_family: *column_family,
                edit: edit.clone(),
                files: files.clone(),
                behind: *behind,
                settings: settings.clone(),
            }),
            Event::Flushed { manifest, previous, column_family, edit, files, first_wal_needed } => {
                self.flushes.push(Flush {
                    place,
                    told_in,
                    manifest: *manifest,
                    previous: *previous,
                    column_family: *column_family,
                    edit: edit.clone(),
                    files: files.clone(),
                    first_wal_needed: *first_wal_needed,
                })
            }
            Event::UnloggedTolerated { column_families, .. } => self.unlogged.push((place, column_families.clone())),
            // Collected once all intervals are known.
            Event::IntervalClosed { .. } => {}
            // Where a WAL begins and ends shows in the records.
            Event::WalStarted { .. } | Event::WalEnded { .. } => {}
        }
    }

    /// Each is closed by what comes behind it in its own run: another run's MANIFEST can have the same number.
    fn close_intervals(&mut self) {
        let runs = &self.runs;
        let run = |place: Place| runs.iter().rev().find(|r| r.start < after(place)).map(|r| r.start);
        for placed in &self.events {
            let Event::IntervalClosed { manifest, hi } = &placed.event else { continue };
            let closes = |noted: Place, shown: ManifestPoint| {
                shown == *manifest && noted < placed.place && run(noted) == run(placed.place)
            };
            let families = self.families.iter_mut().filter(|f| closes(f.when.noted, f.manifest)).map(|f| &mut f.when);
            let barriers =
                self.barriers.iter_mut().filter(|b| b.manifest.is_some_and(|shown| closes(b.when.noted, shown)));
            for when in families.chain(barriers.map(|b| &mut b.when)) {
                when.interval.hi.get_or_insert(*hi);
            }
        }
    }

    /// Changes are noted as soon as the MANIFEST shows them, which can be before the records of the session before have
    /// been read to their end.
    fn find_sessions(&mut self) {
        let (sessions, runs) = (&self.sessions, &self.runs);
        let run = |place: Place| runs.iter().rev().find(|r| r.start < place).map(|r| r.start);
        let start = |noted: Place, shown: ManifestPoint| {
            let of_run = |s: &&Session| run(after(s.place)) == run(after(noted));
            sessions.iter().rev().find(|s| of_run(s) && s.manifest < shown).map(|s| s.place)
        };
        // A session's own MANIFEST says nothing of changes up to where the session began, unless that is not certain.
        let doubt = |noted: Place, shown: ManifestPoint| {
            let of_run = |s: &&Session| run(after(s.place)) == run(after(noted));
            let unsure = |s: &&Session| s.manifest.file == shown.file && shown <= s.manifest && noted < s.place;
            sessions.iter().rev().find(|s| of_run(s) && unsure(s)).map(|s| s.place)
        };
        for family in &mut self.families {
            family.when.session = start(family.when.noted, family.manifest);
            family.when.doubt = doubt(family.when.noted, family.manifest);
        }
        for barrier in &mut self.barriers {
            barrier.when.session = barrier.manifest.and_then(|shown| start(barrier.when.noted, shown));
            barrier.when.doubt = barrier.manifest.and_then(|shown| doubt(barrier.when.noted, shown));
        }
    }

    /// What began the run of the first records is lost: it began somewhere before.
    pub fn assume_run(&mut self, timeline: TimelineId, number: u64) {
        let before = Boundary::new(self.start().get().saturating_sub(1));
        self.runs.insert(0, Run { timeline, number, start: Place { boundary: before, events: usize::MAX - 1 } });
    }

    /// The end of the archive on this timeline.
    pub fn head(&self) -> Place {
        self.pieces.last().map_or(Place::before_events(Boundary::START), |p| p.end)
    }

    /// The first boundary of the archive on this timeline.
    pub fn start(&self) -> Boundary {
        self.pieces.first().map_or(Boundary::START, |p| p.summary.first)
    }

    /// The timeline of which a place is: that of an ancestor below the fork.
    pub fn timeline_at(&self, place: Place) -> TimelineId {
        let index = self.pieces.partition_point(|p| p.end < place);
        self.pieces.get(index).map_or(self.timeline, |p| p.timeline)
    }

    /// Whether a boundary of `timeline` lies on this stream.
    pub fn holds(&self, timeline: TimelineId, boundary: Boundary) -> bool {
        let of_timeline = |p: &&Piece| p.timeline == timeline;
        let first = self.pieces.iter().find(of_timeline).map(|p| p.start.boundary);
        let last = self.pieces.iter().rev().find(of_timeline).map(|p| p.end.boundary);
        first.is_some_and(|first| first <= boundary) && last.is_some_and(|last| boundary <= last)
    }

    /// Where the stream leaves `timeline` for a child of it, if it does.
    pub fn leaves(&self, timeline: TimelineId) -> Option<Boundary> {
        let last = self.pieces.iter().rev().find(|piece| piece.timeline == timeline)?;
        (timeline != self.timeline).then_some(last.end.boundary)
    }

    /// The run that a place lies in.
    pub fn run_at(&self, place: Place) -> Option<Run> {
        self.runs.iter().rev().find(|r| r.start < place).copied()
    }

    /// The session that a place lies in, counted from the start of the stream.
    pub fn session_at(&self, place: Place) -> usize {
        self.sessions.iter().filter(|s| s.place < place).count()
    }

    /// `place`, or the last one before it that does not follow a withdrawn record.
    pub fn before_withdrawn(&self, place: Place) -> Place {
        let mut at = place;
        let holds = |w: &&Withdrawn, at: Place| w.from < at.boundary && at.boundary <= w.to && at <= w.noted;
        while let Some(withdrawn) = self.withdrawn.iter().rev().find(|w| holds(w, at)) {
            at = Place::before_events(withdrawn.from);
        }
        at
    }

    /// The earliest place at the same boundary from which on nothing happened: events in between only tell of what was
    /// before, or where a log begins.
    pub fn first_alike(&self, place: Place) -> Place {
        let mut first = place;
        while let Some(events) = first.events.checked_sub(1) {
            let before = Place { events, ..first };
            let index = self.events.partition_point(|e| e.place < before);
            let silent = self.events.get(index).is_some_and(|e| {
                let silent = matches!(
                    e.event,
                    Event::Captured { .. }
                        | Event::Flushed { .. }
                        | Event::IntervalClosed { .. }
                        | Event::WalStarted { .. }
                        | Event::WalEnded { .. }
                        | Event::TimestampSizes { .. }
                );
                e.place == before && silent
            });
            if !silent {
                break;
            }
            first = before;
        }
        first
    }

    /// The last place at the same boundary that is known to show the same database: up to it, events tell only of what was
    /// before, or of the server's sessions.
    pub fn unchanged_until(&self, place: Place) -> Place {
        let from = self.events.partition_point(|e| e.place < place);
        let changes = |event: &Event| match event {
            Event::RunStarted { .. } => true,
            Event::Barrier { interval, .. } | Event::ColumnFamily { interval, .. } => interval.lo >= place.boundary,
            _ => false,
        };
        let here = self.events.iter().skip(from).take_while(|e| e.place.boundary == place.boundary);
        here.take_while(|e| !changes(&e.event)).last().map_or(place, |last| after(last.place))
    }

    /// Whether any record of `first .. end` was withdrawn.
    pub fn touches_withdrawn(&self, first: Boundary, end: Boundary) -> bool {
        self.withdrawn.iter().any(|w| w.from < end && first < w.to)
    }

    /// Whether what lies at `place` was written in `run`. Another run can be of another database, whose MANIFESTs and
    /// WALs are numbered on their own.
    pub fn in_run(&self, run: Run, place: Place) -> bool {
        let next = self.runs.iter().find(|r| r.start > run.start);
        run.start < place && next.is_none_or(|next| place < next.start)
    }

    /// The column family events of a run.
    pub fn families_of(&self, run: Run) -> impl Iterator<Item = &FamilyEvent> {
        self.families.iter().filter(move |f| self.in_run(run, f.when.noted))
    }

    /// Column families of a run in which writes without the log were tolerated, wherever that was noticed: it can have been
    /// later than they were written.
    pub fn unlogged_in(&self, run: Run) -> BTreeSet<&str> {
        let noticed = self.unlogged.iter().filter(|(place, _)| self.in_run(run, *place));
        let deleted = self.unlogged_deleted.get(&(run.timeline, run.number)).into_iter().flatten();
        noticed.flat_map(|(_, families)| families).chain(deleted).map(String::as_str).collect()
    }

    /// The flushes of a run whose files are in the archive, in the order of the MANIFEST.
    pub fn flushes_of(&self, run: Run) -> Vec<&Flush> {
        let mut flushes: Vec<&Flush> = self.flushes.iter().filter(|flush| self.in_run(run, flush.place)).collect();
        flushes.sort_by_key(|flush| flush.manifest);
        flushes
    }

    /// The settings of a column family, where captured files came with them. Ids are never given again in a run.
    pub fn settings_of(&self, run: Run, id: ColumnFamilyId) -> Option<&CapturedSettings> {
        let captures = self.captures.iter().filter(|c| c.column_family == id && self.in_run(run, c.place));
        captures.filter_map(|capture| capture.settings.as_ref()).next()
    }

    /// What is in the archive of the files that a barrier is about, by column family. Empty unless it is all of them.
    pub fn captures_of(&self, run: Run, barrier: &Barrier) -> Vec<&Capture> {
        let Some(point) = barrier.manifest.filter(|_| barrier.reason == BarrierReason::ChangeOutsideWal) else {
            return Vec::new();
        };
        let same = |b: &&Barrier| b.manifest == Some(point) && self.in_run(run, b.when.noted);
        let changes = self.barriers.iter().filter(same).count();
        let mut captures: Vec<&Capture> =
            self.captures.iter().filter(|c| c.manifest == point && self.in_run(run, c.place)).collect();
        captures.sort_by_key(|capture| capture.column_family);
        captures.dedup_by_key(|capture| capture.column_family);
        if captures.len() == changes { captures } else { Vec::new() }
    }

    /// The largest number that ingested files were given which certainly entered before `place`, in its session: no record
    /// shows it.
    pub fn ingested_by(&self, run: Run, place: Place) -> Option<SequenceNumber> {
        let session = self.session_at(place);
        let before = self.barriers.iter().filter(|b| {
            self.in_run(run, b.when.noted)
                && self.session_at(b.when.noted) == session
                && b.when.side(place) == Side::After
        });
        before.flat_map(|barrier| self.captures_of(run, barrier)).filter_map(Capture::largest_number).max()
    }

    /// Whether a barrier between `base` and `target` is a change whose files are in the archive, all of it behind the
    /// base's floor and before the target.
    fn can_be_crossed(&self, run: Run, base: &BaseDocument, target: Place, barrier: &Barrier) -> bool {
        barrier.when.side(target) == Side::After
            && barrier.when.certain_lo() >= base.floor.boundary
            && !self.captures_of(run, barrier).is_empty()
    }

    /// The barriers that a replay on `base` up to `target` crosses by bringing captured files in.
    pub fn crossed(&self, run: Run, base: &BaseDocument, target: Place) -> Vec<&Barrier> {
        let footing = Footing::from(base);
        self.barriers
            .iter()
            .filter(|b| b.reason.blocks() == Blocks::Floor && self.in_run(run, b.when.noted))
            .filter(|b| b.when.side(target) != Side::Before && b.hurdle().concerns(&footing))
            .filter(|b| self.can_be_crossed(run, base, target, b))
            .collect()
    }

    /// The barrier that stops a replay on `base` up to `target`, all in `run`.
    pub fn blocking(&self, run: Run, base: &BaseDocument, target: Place, cross: CrossIngest) -> Option<&Barrier> {
        let crossed = |b: &Barrier| cross == CrossIngest::Repeat && self.can_be_crossed(run, base, target, b);
        self.barriers.iter().filter(|b| self.in_run(run, b.when.noted) && !crossed(b)).find(|b| {
            let lo = b.when.interval.lo;
            let stops = match b.reason.blocks() {
                Blocks::Replay | Blocks::Record => lo < target.boundary,
                // At its very place lie targets before it and after it.
                Blocks::Jump => lo < target.boundary || lo == target.boundary && b.when.noted < target,
                Blocks::Floor => b.when.side(target) != Side::Before,
            };
            stops && b.hurdle().concerns(&Footing::from(base))
        })
    }

    /// A change without a record that `base` has (or can have) and the database at `target` had not: both lie at one
    /// boundary, or the base's copy ends later than its floor says. `floor` is the floor's place, where that is known.
    pub fn ahead(&self, run: Run, base: &BaseDocument, target: Place, floor: Option<Place>) -> bool {
        let footing = Footing::from(base);
        // Nothing of what ended the run is in its bases: they were judged when everything had been read that there was
        // once their copy was made, and the run went on.
        let barriers = self.barriers.iter().filter(|b| {
            b.reason.blocks() == Blocks::Floor && !b.reason.ends_run() && b.hurdle().change_is_in(&footing)
        });
        let families = self.families.iter().filter(|f| f.manifest <= base.manifest);
        let changes = barriers.map(|b| b.when).chain(families.map(|f| f.when));
        let jumped = self
            .barriers
            .iter()
            .filter(|b| b.reason.blocks() == Blocks::Jump && self.in_run(run, b.when.noted))
            .any(|b| {
                let shown = b.unexplained.is_none_or(|number| number <= base.last_sequence.max(base.max_file_sequence));
                b.when.interval.lo == target.boundary && target <= b.when.noted && shown
            });
        let here = base.floor.boundary == target.boundary;
        // What may have happened by the target certainly has by the floor.
        let before_floor = here && floor.is_none_or(|floor| target < floor);
        let ahead = |when: When| match when.side(target) {
            Side::Before => true,
            Side::Inside => before_floor,
            Side::After => false,
        };
        here && jumped || changes.filter(|when| self.in_run(run, when.noted)).any(ahead)
    }

    /// The place that a look showed.
    pub fn shown(&self, piece: &Piece, look: TimeSample) -> Place {
        if look.boundary > piece.end.boundary {
            return piece.end;
        }
        let noted = usize::try_from(look.events).unwrap_or(usize::MAX);
        let last = noted.checked_sub(1).and_then(|n| self.events.get(piece.first_event.saturating_add(n)));
        match last {
            Some(last) if last.place.boundary == look.boundary => {
                Place { events: last.place.events + 1, ..last.place }.min(piece.end)
            }
            _ if look.boundary == piece.start.boundary => piece.start,
            _ => Place::before_events(look.boundary),
        }
    }

    /// The segments that hold records of `first .. end`.
    pub fn covering(&self, first: Boundary, end: Boundary) -> impl Iterator<Item = &Piece> {
        let from = self.pieces.partition_point(|p| p.end.boundary <= first);
        self.pieces
            .iter()
            .skip(from)
            .take_while(move |p| p.summary.first < end)
            .filter(|p| p.summary.first < p.end.boundary)
    }
}
