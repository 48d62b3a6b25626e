//! The archive against the oracle.
//!
//! Owns: what an archive must be at any time (its catalog holds together), and at the end: the records of every run of
//! the stream are the server's, without a gap; every target that is accepted is restored to what the database was there;
//! what is refused is explained by something that the run had. Where a power loss took records back, the archive branches
//! exactly behind the last record that was left, and the dead branch is judged, too.
//! A restore is the real one, into files; the copy is opened by the simulated recovery in its strictest mode.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use pitr_archive::{
    Code, Error,
    catalog::{
        archive::Archive,
        model::{Barrier, Catalog, Run as StreamRun, Timeline},
        schema::{BaseDocument, SegmentSummary},
    },
    clock::{Clock, Micros},
    ids::{Boundary, Nonce, SequenceNumber},
    segment::entry::{BarrierReason, Entry, Event, Interval},
};
use pitr_replayer::{
    plan::{PlanOptions, RestorePlan, outlined, plan},
    progress::Silent,
    restore::{RestoreOptions, restore},
    target::Target,
};
use rand::{Rng, seq::IndexedRandom};

use crate::{
    oracle::{Mark, Oracle, State},
    recovery::{self, Mode},
    run::{Run, Tagged},
    server::LogBuffer,
};

/// Opens the archive and its catalog as any reader would; `None` while nothing is there.
pub fn load(run: &Run<'_>) -> Option<(Archive, Catalog)> {
    let store = Arc::new(run.memory.clone());
    run.place.runtime.block_on(async {
        let archive = match Archive::open(store, run.place.key.clone()).await {
            Ok(archive) => archive,
            Err(e) if e.code() == Code::NotAnArchive => return None,
            Err(e) => panic!("opening the archive: {e}"),
        };
        let catalog = match archive.load_catalog().await {
            Ok(catalog) => catalog,
            Err(e) => {
                let keys: Vec<_> = run.memory.contents().into_iter().map(|(key, _)| key.to_string()).collect();
                panic!("the catalog: {e}\n{}\n{}", keys.join("\n"), manifests(&archive).await)
            }
        };
        Some((archive, catalog))
    })
}

/// What the manifests say of segments, for whoever looks for a fault.
async fn manifests(archive: &Archive) -> String {
    let mut text = String::new();
    let range = |s: &SegmentSummary| format!(" {}:{}..{}", s.ordinals(), s.first, s.end);
    for timeline in archive.timelines().await.unwrap_or_default() {
        let timeline = timeline.timeline;
        for number in archive.list_manifests(timeline).await.unwrap_or_default() {
            let Ok(Some((manifest, _))) = archive.get_manifest(timeline, number).await else { continue };
            let segments: String = manifest.segments.iter().map(range).collect();
            let merged: String = manifest.merged.iter().map(range).collect();
            let (epoch, at) = (manifest.epoch, manifest.created);
            text +=
                &format!("timeline {timeline} manifest {number} epoch {epoch} at {at}:{segments}; merged{merged}\n");
        }
    }
    text
}

/// What a target must be restored to.
#[derive(Clone, Debug)]
enum Expected {
    /// What the database was directly behind the record.
    BehindRecord,
    /// What it was when this was noted.
    Noted(State),
    /// What its files showed when this was noted. The server had more in its memory, numbers included.
    Shown(State),
}

/// An archive and what its records are to the oracle.
struct Judge<'a> {
    archive: &'a Archive,
    catalog: &'a Catalog,
    timeline: &'a Timeline,
    /// The server's history goes on with it.
    current: bool,
    oracle: &'a Oracle,
    /// The moments of the records that are kept, by the boundaries behind them.
    moments: BTreeMap<u64, usize>,
    /// What the files show at the end.
    end: Mark,
    /// What the server would recover from them.
    end_state: State,
    /// The server's files always showed all that it had.
    exact: bool,
}

/// Judges a run's archive.
pub fn judge(run: &mut Run<'_>) {
    let (archive, catalog) = load(run).expect("an archive");
    let current = catalog.current_timeline().expect("a timeline").id();
    assert_eq!(catalog.timelines().last().map(Timeline::id), Some(current), "the one that was opened last goes on");
    let oracle = std::mem::replace(&mut run.oracle, Oracle::new(crate::server::empty_state()));
    let end_state = run.recoverable();
    if run.disturbed.is_empty() {
        run.coverage.note("check: strict");
        assert_eq!(catalog.timelines().count(), 1, "one timeline");
    }
    for timeline in catalog.timelines() {
        let judge = Judge {
            archive: &archive,
            catalog: &catalog,
            timeline,
            current: timeline.id() == current,
            oracle: &oracle,
            moments: records(run, &archive, timeline, &oracle),
            end: oracle.readable(),
            end_state: end_state.clone(),
            exact: !run.disturbed.contains("server: unlogged")
                && run.profile.settings.log_buffer == LogBuffer::WrittenAtOnce,
        };
        if run.is_aloud() {
            judge.tell();
        }
        if run.disturbed.is_empty() {
            assert_eq!(timeline.runs().len(), 1, "one run");
            assert!(timeline.barriers().is_empty(), "barriers without a reason: {:?}", timeline.barriers());
        }
        if judge.current {
            judge.latest(run);
        }
        judge.fork(run);
        judge.boundaries(run);
        judge.times_and_numbers(run);
        judge.tags(run);
    }
}

/// The moments of the archived records: in every run of the stream they follow each other as the server wrote them.
fn records(run: &Run<'_>, archive: &Archive, timeline: &Timeline, oracle: &Oracle) -> BTreeMap<u64, usize> {
    let mut moments: BTreeMap<u64, usize> = BTreeMap::new();
    let mut before: Option<usize> = None;
    for segment in timeline.segments() {
        if timeline.deleted().is_some_and(|deleted| deleted.ranges().any(|range| range.from == segment.ordinal)) {
            before = None;
        }
        let read = run.place.runtime.block_on(archive.read_segment(timeline.id(), segment.ordinals()));
        let reader = read.unwrap_or_else(|e| panic!("segment {}: {e}", segment.ordinal));
        for placed in reader.entries() {
            let placed = placed.unwrap_or_else(|e| panic!("segment {}: {e}", segment.ordinal));
            match placed.entry {
                Entry::Event(Event::RunStarted { .. }) => before = None,
                // Records of which a flush left nothing can hide where a log was deleted unseen; the next one jumps.
                Entry::Event(Event::Barrier { reason: BarrierReason::SequenceJump, .. }) => before = None,
                Entry::Event(_) => {}
                Entry::Record(record) => {
                    let (wal, end) = (record.wal.get(), record.end);
                    let Some(moment) = oracle.at(wal, end) else { panic!("no record of WAL {wal} ends at {end}") };
                    let written = oracle.moment(moment);
                    assert!(written.payload == record.payload, "the record of WAL {wal} that ends at {end} differs");
                    if let Some(before) = before {
                        assert_eq!(
                            written.before, before,
                            "records are missing before WAL {wal} offset {}",
                            record.start
                        );
                    }
                    before = Some(moment);
                    moments.insert(placed.at.get() + 1, moment);
                }
            }
        }
    }
    moments
}

/// On an outline, a segment that names a flush's files is not told from others that were rolled up with it.
fn told_as(mut outlined: RestorePlan, planned: &RestorePlan) -> RestorePlan {
    for (coarse, exact) in outlined.flushes.iter_mut().zip(&planned.flushes) {
        let ((timeline, among), (of, one)) = (coarse.told_in, exact.told_in);
        // One that was merged since the outline was written can reach beyond it.
        let inside = among.contains(one.first()) && among.contains(one.last());
        let overlap = among.first() <= one.last() && one.first() <= among.last();
        assert!(timeline == of && (inside || one.is_merged() && overlap), "{coarse:#?}\n{exact:#?}");
        coarse.told_in = exact.told_in;
    }
    outlined
}

impl Judge<'_> {
    /// The plan, which is the same on the whole catalog and on its outline.
    fn plan(&self, run: &mut Run<'_>, target: &Target) -> Result<RestorePlan, Error> {
        let options = PlanOptions { timeline: Some(self.timeline.id()), ..PlanOptions::default() };
        let (planned, outlined, rolled_up, merged) = run.place.runtime.block_on(async {
            let planned = plan(self.archive, self.catalog, target, &options).await;
            let mut outline = self.archive.load_outline().await.expect("an outline");
            let findings = outline.take_findings();
            assert!(findings.is_empty(), "findings: {findings:?}");
            let rolled_up = outline.catalog().timelines().flat_map(Timeline::segments).any(|s| s.rolled_up.is_some());
            let merges = |timeline: &Timeline| timeline.manifests().iter().any(|manifest| !manifest.merged.is_empty());
            let merged = rolled_up && outline.catalog().timelines().any(merges);
            (planned, outlined::plan(self.archive, &mut outline, target, &options).await, rolled_up, merged)
        });
        let outlined = outlined.map(|outlined| match &planned {
            Ok(planned) => told_as(outlined, planned),
            Err(_) => outlined,
        });
        if rolled_up {
            run.coverage.note("check: planned on an outline");
        }
        if merged {
            run.coverage.note("check: planned on an outline with merged segments");
        }
        let told = |planned: &Result<RestorePlan, Error>| planned.as_ref().map_err(ToString::to_string).cloned();
        assert_eq!(told(&outlined), told(&planned), "{target} on the outline and on the whole catalog");
        planned
    }

    /// Times and numbers: whatever they mean, it is the same on an outline.
    fn times_and_numbers(&self, run: &mut Run<'_>) {
        let looks = self.timeline.segments().iter().filter_map(|s| s.observed);
        let times: Vec<i64> = looks.flat_map(|(first, last)| [first.at.0, last.at.0, last.at.0 + 1]).collect();
        let ends: Vec<u64> = self.timeline.segments().iter().map(|s| s.last_sequence.get()).collect();
        let times: Vec<i64> = times.choose_multiple(&mut run.rng, 2).copied().collect();
        let ends: Vec<u64> = ends.choose_multiple(&mut run.rng, 2).copied().collect();
        let targets = times.into_iter().map(|at| Target::Time(Micros(at).to_datetime()));
        let targets: Vec<_> =
            targets.chain(ends.into_iter().map(|n| Target::Sequence(SequenceNumber::new(n)))).collect();
        for target in targets {
            let _ = self.plan(run, &target);
        }
    }

    fn bases(&self) -> impl Iterator<Item = &BaseDocument> {
        self.catalog.bases().iter().filter(|base| base.floor.timeline == self.timeline.id())
    }

    /// A child leaves its parent behind the last record of it that the server's history still has.
    fn fork(&self, run: &mut Run<'_>) {
        let Some(parent) = self.timeline.document().parent else { return };
        let of = self.catalog.timeline(parent.timeline).expect("the parent");
        let moments = records(run, self.archive, of, self.oracle);
        let fork = parent.boundary.get();
        let Some(mut at) = self.moments.values().next_back().copied() else { return };
        let mut history = BTreeSet::from([at]);
        while self.oracle.moment(at).place.is_some() {
            at = self.oracle.moment(at).before;
            history.insert(at);
        }
        let in_run = of.runs().last().map_or(0, |run| run.start.get());
        if let Some(last) = moments.get(&fork) {
            assert!(
                history.contains(last),
                "the last record before the fork is not the child's: {moments:?} at {fork}"
            );
        }
        // Of records whose numbers no file shows, a session that begins with the number after those that are shown seems to
        // take them back: the fork lies before them, and nothing is lost of either branch.
        let by_number = self.timeline.document().detail.contains("taking back");
        let shown = !(run.hidden_numbers && by_number);
        if let Some(next) = moments.get(&(fork + 1)).filter(|_| fork >= in_run && shown) {
            assert!(!history.contains(next), "the fork lies too early: {moments:?} at {fork}, {history:?}");
        }
        run.coverage.note("check: fork");
    }

    /// The moment of the record before a boundary.
    fn moment_before(&self, boundary: u64) -> Option<usize> {
        self.moments.get(&boundary).copied()
    }

    /// The moments that a boundary of a run of the stream may mean. Where the run begins, it is what was there before the
    /// run's first record.
    fn moments_at(&self, boundary: Boundary, number: u64) -> Vec<usize> {
        let begins = self.timeline.runs().iter().any(|run| run.number == number && run.start == boundary);
        let behind = self.moment_before(boundary.get());
        if !begins {
            return behind.into_iter().collect();
        }
        match self.moment_before(boundary.get() + 1) {
            Some(next) => vec![self.oracle.moment(next).before],
            // Of a run without a record only the end is known.
            None => vec![self.end.moment],
        }
    }

    fn latest(&self, run: &mut Run<'_>) {
        match self.plan(run, &Target::Latest) {
            Ok(plan) => {
                assert_eq!(plan.position.boundary, self.timeline.end(), "the latest position is the end");
                self.restore(run, &plan, self.noted(self.end, self.end_state.clone()));
                run.coverage.note("check: latest");
            }
            Err(e) => self.refused(run, self.timeline.end(), &e),
        }
        // Everything that is readable is in the archive.
        let last = self.moments_at(self.timeline.end(), self.timeline.runs().last().map_or(0, |run| run.number));
        // But for records of which a flush left nothing, in a log that was deleted unseen.
        let vanished = run.disturbed.contains("server: numbers that no file shows")
            && run.disturbed.contains("server: log deleted unseen");
        assert!(vanished || last == [self.end.moment], "the archive ends before the server's log");
    }

    fn boundaries(&self, run: &mut Run<'_>) {
        let (first, end) = (self.timeline.start().get(), self.timeline.end().get());
        let floors = self.bases().map(|base| base.floor.boundary.get());
        let cuts = self.timeline.segments().iter().map(|segment| segment.end.get());
        let interesting: Vec<u64> =
            floors.chain(cuts).flat_map(|b| [b, b + 1]).filter(|b| *b > first && *b <= end).collect();
        let mut wanted: BTreeSet<u64> = interesting.choose_multiple(&mut run.rng, 2).copied().collect();
        if end > first {
            wanted.insert(run.rng.random_range(first + 1..=end));
        }
        for boundary in wanted.into_iter().map(Boundary::new) {
            let Some(record) = boundary.last_record() else { continue };
            match self.plan(run, &Target::Record(record)) {
                Ok(plan) => {
                    assert!(plan.distance.exact && plan.position.boundary == boundary, "record {record}: {plan:#?}");
                    self.restore(run, &plan, Expected::BehindRecord);
                    run.coverage.note("check: boundary");
                }
                Err(e) => self.refused(run, boundary, &e),
            }
        }
    }

    fn tags(&self, run: &mut Run<'_>) {
        for Tagged { name, mark, state } in run.tags.clone() {
            let tag = self.catalog.tag(&name).unwrap_or_else(|| panic!("the tag {name} is not there"));
            if tag.position.timeline != self.timeline.id() {
                continue;
            }
            match self.plan(run, &Target::tag(&name)) {
                Ok(plan) => {
                    self.restore(run, &plan, self.noted(mark, state));
                    run.coverage.note("check: tag");
                }
                Err(e) => self.refused(run, tag.position.boundary, &e),
            }
        }
    }

    fn noted(&self, mark: Mark, shown: State) -> Expected {
        if !self.exact {
            return Expected::Shown(shown);
        }
        let state = self.oracle.state(mark);
        assert_eq!(state.families, shown.families, "the oracle and recovery disagree");
        Expected::Noted(state.clone())
    }

    /// Whether a boundary lies in the interval of a change outside the log, its ends included.
    fn touches_change(&self, boundary: Boundary) -> bool {
        let families = self.timeline.column_families().iter().map(|event| event.interval);
        let outside = |barrier: &&Barrier| barrier.reason == BarrierReason::ChangeOutsideWal;
        let barriers = self.timeline.barriers().iter().filter(outside).map(|barrier| barrier.interval);
        families.chain(barriers).any(|Interval { lo, hi }| lo <= boundary && hi.is_none_or(|hi| boundary <= hi))
    }

    /// A refusal needs a reason that the run gave.
    fn refused(&self, run: &mut Run<'_>, boundary: Boundary, e: &Error) {
        let kind = match e.code() {
            Code::TargetBehindBarrier => "check: refused target.behind-barrier",
            Code::TargetBeforeStart => "check: refused target.before-start",
            Code::TargetInsideEvent => "check: refused target.inside-event",
            Code::TargetUnsupported => "check: refused target.unsupported",
            // What could prove the tag's position went with what was deleted.
            _ => panic!("boundary {boundary} is refused: {e}"),
        };
        run.say(format_args!("    boundary {boundary}: {}", e.code()));
        run.coverage.note(kind);
        let lowest = self.bases().map(|base| base.floor.boundary).min();
        let explained = match e.code() {
            // A base shows a change at its own floor, and the target may be before that.
            Code::TargetBeforeStart => {
                lowest.is_none_or(|lowest| boundary < lowest || boundary == lowest && self.touches_change(boundary))
            }
            Code::TargetInsideEvent | Code::TargetBehindBarrier => self.touches_change(boundary),
            _ => false,
        };
        assert!(explained || !run.disturbed.is_empty(), "boundary {boundary} is refused without a reason: {e}");
    }

    /// Restores, opens the copy and compares.
    fn restore(&self, run: &mut Run<'_>, plan: &RestorePlan, expected: Expected) {
        let into = run.root.path().join("restored");
        let options = RestoreOptions::new(&into, Nonce([9; 16]), run.place.clock.now());
        let restored = run.place.runtime.block_on(restore(self.archive, plan, &options, Arc::new(Silent)));
        restored.unwrap_or_else(|e| panic!("restoring {} as planned: {e}\n{plan:#?}", plan.target));
        let copy = recovery::recover(&into, Mode::Absolute).unwrap_or_else(|e| panic!("the copy does not open: {e}"));
        if !plan.flushes.is_empty() {
            run.coverage.note("check: flushes laid down");
        }
        let state = copy.state();
        assert_eq!(state.sequence, plan.position.sequence.get(), "another sequence number than planned: {plan:#?}");
        let unlogged = run.disturbed.contains("server: unlogged");
        let held = run.profile.settings.log_buffer == LogBuffer::Held;
        if held && self.is_ahead(plan) {
            run.coverage.note("check: a base ahead of its run");
            std::fs::remove_dir_all(&into).expect("removing the copy");
            return;
        }
        let accepted = self.accepted(plan, &expected, unlogged);
        // A flush may have left nothing of the last records: where a run begins, and where their log was deleted unseen,
        // nothing tells the number.
        let run_here = |r: &StreamRun| r.number == plan.position.run && r.start == plan.position.boundary;
        let unseen = run.disturbed.contains("server: log deleted unseen");
        let vanished = run.hidden_numbers && (unseen || self.timeline.runs().iter().any(run_here));
        let number = |accepted: &State| {
            let uncertain = unlogged || matches!(expected, Expected::Shown(_));
            uncertain || accepted.sequence == state.sequence || vanished && state.sequence < accepted.sequence
        };
        assert!(
            accepted.iter().any(|accepted| accepted.families == state.families && number(accepted)),
            "{} is restored to\n{}\naccepted:\n{}\n{plan:#?}",
            plan.target,
            shown(&state),
            accepted.iter().map(|state| shown(state)).collect::<Vec<_>>().join("\n"),
        );
        std::fs::remove_dir_all(&into).expect("removing the copy");
    }

    /// A run may begin with a MANIFEST that is ahead of the log, where the server holds records in its memory: a column
    /// family that it shows came behind records that were not readable. Nothing tells, and the archiver does not either:
    /// the one known inexactness, of targets directly behind the beginning of such a run.
    fn is_ahead(&self, plan: &RestorePlan) -> bool {
        let begins = self.timeline.run(plan.position.run).map(|run| run.start);
        begins == Some(plan.base.floor.boundary)
    }

    fn accepted<'s>(&'s self, plan: &RestorePlan, expected: &'s Expected, unlogged: bool) -> Vec<&'s State> {
        let here = plan.position.boundary;
        let moments = self.moments_at(here, plan.position.run);
        let states = moments.iter().map(|moment| &self.oracle.moment(*moment).states);
        match expected {
            Expected::Noted(state) => vec![state],
            // A column family that came or went while records were in the server's memory has no certain place.
            // A base at the same place may have flushed what was in no log when this was noted.
            Expected::Shown(state) if unlogged || self.touches_change(here) => {
                states.flatten().chain(std::iter::once(state)).collect()
            }
            Expected::Shown(state) => vec![state],
            Expected::BehindRecord => {
                let families = self.timeline.column_families().iter().map(|event| event.interval);
                let mut intervals = families.chain(self.timeline.barriers().iter().map(|barrier| barrier.interval));
                let changes_here = intervals.any(|Interval { lo, hi }| lo < here && hi == Some(here));
                if unlogged || changes_here || plan.base.floor.boundary == here {
                    states.flatten().collect()
                } else {
                    states.filter_map(|states| states.first()).collect()
                }
            }
        }
    }

    /// What the archive says, for somebody who looks for a cause.
    fn tell(&self) {
        println!("timeline {}: {:?}", self.timeline.id(), self.timeline.document().parent);
        for base in self.bases() {
            println!(
                "base {}: run {}, first WAL {} at {}, floor {} (sequence {}), MANIFEST {:?}",
                base.id,
                base.run,
                base.first_wal,
                base.first_record,
                base.floor.boundary,
                base.floor.sequence,
                base.manifest
            );
        }
        for segment in self.timeline.segments() {
            println!("segment {} of epoch {}: {} to {}", segment.ordinal, segment.epoch, segment.first, segment.end);
            for event in &segment.events {
                println!("  {event:?}");
            }
        }
        println!("moments {:?}, at the end {:?}", self.moments, self.end);
    }
}

fn shown(state: &State) -> String {
    let family = |(name, contents): (&String, &Arc<crate::table::Contents>)| {
        let pairs = contents.iter().map(|(key, value)| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(20)]).into_owned();
            format!("{}={}", text(key), text(value))
        });
        format!("{name} {{{}}}", pairs.collect::<Vec<_>>().join(" "))
    };
    format!("sequence {} {}", state.sequence, state.families.iter().map(family).collect::<Vec<_>>().join(", "))
}
