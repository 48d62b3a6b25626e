//! The oracle: every restore equals the model, or is refused for a reason that the program gave.
//!
//! Owns: which archived record is which batch of the program, the comparison of a restored copy with the model, and
//! which refusals are legitimate. A run of the archive must hold the program's records without a gap; every other gap
//! must be explained by something the driver noted.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use pitr_archive::{
    Code, Error,
    catalog::{
        archive::Archive,
        model::{Barrier, Catalog, Timeline},
        schema::BaseDocument,
    },
    ids::{BaseId, Boundary, RecordNumber, TimelineId},
    rocks::write_batch::{WriteBatch, WritePolicy},
    segment::entry::{BarrierReason, Entry, Event, Interval},
};
use pitr_replayer::{
    plan::{
        CrossIngest, PlanOptions, RestorePlan,
        engine::{Engine, EngineChoice},
        plan,
    },
    progress::Silent,
    restore::restore,
    target::Target,
};
use rocksdb::{BottommostLevelCompaction, CompactOptions, DBRecoveryMode, Options};

use super::{
    archive_driver::ArchiveDriver,
    driver::{Cause, Driver, Incident},
    model::{self, Moment, Pending, State},
    program::Op,
    server::{self, Places},
    transactions::TransactionDb,
};

mod parts;

/// Where a boundary of the archive lies in the program.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Records of the program before it.
    records: usize,
    /// The same in the run that begins there, if one does; in the last of them, if several do.
    new_run: Option<usize>,
    /// Runs without a record lie there, between the run before and the last that begins: what they mean is somewhere
    /// between the two.
    empty_runs: bool,
    /// The last record before it is the server's own, written at some time after the program's last one.
    after_server: bool,
}

impl Place {
    fn of(records: usize) -> Self {
        Self { records, new_run: None, empty_runs: false, after_server: false }
    }

    /// The numbers of records that a tag or a time there can mean.
    fn meanings(self) -> Vec<usize> {
        match self.new_run {
            Some(last) if self.empty_runs => (self.records..=last).collect(),
            new_run => std::iter::once(self.records).chain(new_run).collect(),
        }
    }
}

/// In which of the states between two records a copy must be.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// Directly after the record.
    First,
    /// That of the end.
    Last,
    /// Not before the one moment, not after the other.
    Within(Moment, Moment),
    /// One of them.
    Any,
}

/// How the latest sequence number of a copy must agree with the model's.
#[derive(Clone, Copy, Debug)]
enum Numbers {
    Exact,
    AtMost,
}

impl Numbers {
    fn allow(self, found: u64, expected: u64) -> bool {
        match self {
            Self::Exact => found == expected,
            Self::AtMost => found <= expected,
        }
    }
}

impl Expected {
    fn of(self, states: &[Vec<State>], records: usize) -> impl Iterator<Item = &State> {
        let end = states[records].len() - 1;
        states[records]
            .iter()
            .enumerate()
            .filter(move |(state, _)| match self {
                Self::First => *state == 0,
                Self::Last => *state == end,
                Self::Within(from, to) => (from..=to).contains(&Moment { records, state: *state }),
                Self::Any => true,
            })
            .map(|(_, state)| state)
    }
}

/// What an archive holds, in the program's terms.
pub struct Comparison<'a> {
    driver: &'a Driver,
    archiver: &'a ArchiveDriver,
    archive: Archive,
    catalog: Catalog,
    places: Vec<Place>,
    /// Targets restored and compared.
    pub restored: usize,
    /// Targets refused for a legitimate reason.
    pub refused: HashMap<&'static str, usize>,
    /// What the targets met, for the coverage table.
    pub noted: BTreeSet<&'static str>,
    scratch: PathBuf,
}

impl<'a> Comparison<'a> {
    /// Reads the archive and finds every record in the program.
    pub fn new(driver: &'a Driver, archiver: &'a ArchiveDriver, scratch: &Path) -> Self {
        let archive = archiver.archive();
        let catalog = archiver.wait(archive.load_catalog()).unwrap_or_else(|e| panic!("the catalog: {e}"));
        let places = places(driver, archiver, &archive, &catalog);
        Self {
            driver,
            archiver,
            archive,
            catalog,
            places,
            restored: 0,
            refused: HashMap::new(),
            noted: BTreeSet::new(),
            scratch: scratch.to_owned(),
        }
    }

    fn timeline(&self) -> &Timeline {
        self.catalog.current_timeline().expect("a timeline")
    }

    /// The number of boundaries: targets are below it.
    pub fn boundaries(&self) -> usize {
        self.places.len()
    }

    /// The boundaries after which something happened that deserves a look: incidents, floors and their neighbours.
    pub fn interesting(&self) -> Vec<usize> {
        let wanted = self.driver.incidents.iter().flat_map(|i| [Some(i.lo), i.hi]).flatten();
        let floors = self.catalog.bases().iter().map(|b| index(b.floor.boundary));
        let places = self.places.iter().enumerate();
        let incidents: Vec<_> = wanted.collect();
        let mut found: Vec<_> =
            places.filter(|(_, p)| incidents.contains(&p.records)).map(|(b, _)| b).chain(floors).collect();
        found =
            found.iter().flat_map(|b| [b.saturating_sub(1), *b, b + 1]).filter(|b| *b < self.places.len()).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Restores to the boundary, compares, or judges the refusal.
    pub fn check_boundary(&mut self, boundary: usize) {
        // The start of the timeline has no record that could be a target.
        let Some(record) = Boundary::new(boundary as u64).last_record() else { return };
        let plan = self.plan(&Target::Record(record));
        match plan {
            Ok(plan) => {
                assert!(plan.distance.exact, "record {record} is not reached exactly: {:?}", plan.distance);
                assert_eq!(index(plan.position.boundary), boundary, "the plan for record {record} goes elsewhere");
                self.restore(&plan, Expected::First);
            }
            Err(e) => self.judge(boundary, &e),
        }
        self.check_engines(record);
        self.check_part(record);
        self.check_crossing(record);
    }

    /// From every base from which flushes can be laid down: the copy must be the same with them and without.
    fn check_engines(&mut self, record: RecordNumber) {
        let bases: Vec<_> = self.catalog.bases().iter().map(|base| base.id.clone()).collect();
        for base in bases {
            let target = Target::Record(record);
            let plan_with = |engine| {
                // By itself a plan makes tables of long logs only.
                let options =
                    PlanOptions { base: Some(base.clone()), engine, tables_from: 0, ..PlanOptions::default() };
                self.archiver.wait(plan(&self.archive, &self.catalog, &target, &options))
            };
            let (bulk, flush) = (plan_with(EngineChoice::Bulk), plan_with(EngineChoice::Flush));
            let native = plan_with(EngineChoice::Native);
            let (auto, both) = (plan_with(EngineChoice::Auto), plan_with(EngineChoice::FlushAndBulk));
            if let Ok(bulk) = bulk {
                self.restore(&bulk, Expected::First);
            }
            // What is not asked for falls back.
            if let Some(auto) = auto.ok().filter(|auto| auto.engine.name == Engine::Bulk) {
                self.noted.insert("made tables of its own accord");
                self.restore(&auto, Expected::First);
            }
            if let Ok(both) = both {
                self.noted.insert("made tables behind flushes");
                self.restore(&both, Expected::First);
            }
            let Ok(flush) = flush else { continue };
            let native = native.expect("whatever another engine reaches, native does");
            assert_eq!(flush.position, native.position, "record {record}");
            assert!(flush.base.first_wal > native.base.first_wal, "record {record}: {flush:?}");
            self.noted.insert("laid down flushes");
            self.restore(&flush, Expected::First);
            self.restore(&native, Expected::First);
        }
    }

    /// From every base from which ingestions can be repeated: the copy must be the same.
    fn check_crossing(&mut self, record: RecordNumber) {
        if !self.driver.incidents.iter().any(|i| i.cause == Cause::OutsideWal) {
            return;
        }
        let bases: Vec<_> = self.catalog.bases().iter().map(|base| base.id.clone()).collect();
        for base in bases {
            let options = PlanOptions { base: Some(base), cross_ingest: CrossIngest::Repeat, ..PlanOptions::default() };
            let target = Target::Record(record);
            let planned = plan(&self.archive, &self.catalog, &target, &options);
            // Where it is refused, it is as without crossing, or a reason of its own.
            if let Ok(plan) = self.archiver.wait(planned)
                && !plan.ingestions.is_empty()
            {
                self.noted.insert("repeated ingestion");
                self.restore(&plan, Expected::First);
            }
        }
    }

    /// Plans for the newest timeline.
    pub fn plan(&self, target: &Target) -> Result<RestorePlan, Error> {
        self.archiver.wait(plan(&self.archive, &self.catalog, target, &PlanOptions::default()))
    }

    /// Restores to the end of the archive.
    pub fn check_latest(&mut self) {
        match self.plan(&Target::Latest) {
            Ok(plan) => {
                assert_eq!(index(plan.position.boundary), self.places.len() - 1, "the latest position is the end");
                self.restore(&plan, Expected::Last);
            }
            Err(e) => self.judge(self.places.len() - 1, &e),
        }
    }

    /// A tag names the records that were there when it was asked for.
    pub fn check_tag(&mut self, name: &str, moment: Moment) {
        let records = moment.records;
        let tag = self.catalog.tag(name).unwrap_or_else(|| panic!("the tag {name} is not there"));
        let boundary = index(tag.position.boundary);
        let place = self.places.get(boundary).unwrap_or_else(|| panic!("tag {name} lies beyond the end"));
        assert!(place.meanings().contains(&records), "tag {name} names {place:?}, not {records} records");
        match self.plan(&Target::tag(name)) {
            Ok(plan) => self.restore(&plan, Expected::Within(moment, moment)),
            Err(e) => self.judge(boundary, &e),
        }
    }

    /// A time names the last position that was observed at or before it.
    pub fn check_time(&mut self, look: usize) {
        let Some(look) = self.archiver.looks.get(look) else { return };
        let target = Target::Time(look.at.to_datetime());
        let certain = self.archiver.looks.iter().filter(|l| l.shipped && l.at <= look.at).map(|l| l.moment).max();
        match self.plan(&target) {
            Ok(plan) => {
                let place = self.places[index(plan.position.boundary)];
                // A run archives again what the server still has: it can begin with fewer than there were before.
                let records = place.new_run.unwrap_or_default().max(place.records);
                assert!(
                    place.records <= look.moment.records && certain.is_none_or(|c| records >= c.records),
                    "at {} the program was at {:?} ({certain:?} at an earlier look), the plan reaches {place:?}",
                    look.at,
                    look.moment
                );
                let from = certain.unwrap_or(Moment { records: 0, state: 0 });
                self.restore(&plan, Expected::Within(from, look.moment));
            }
            Err(e) => {
                // Which boundary was meant is not told: one of those between the certain one and the look.
                let from = certain.map_or(0, |c| c.records);
                let meant: Vec<_> = (0..self.places.len())
                    .filter(|b| {
                        let mut meanings = self.places[*b].meanings().into_iter();
                        meanings.any(|records| (from..=look.moment.records).contains(&records))
                    })
                    .collect();
                let early = e.code() == Code::TargetBeforeStart;
                if !(early || meant.iter().any(|b| self.legitimate(*b, &e))) {
                    panic!("the time {} is refused without a reason: {e}", look.at);
                }
                *self.refused.entry(e.code().name()).or_default() += 1;
            }
        }
    }

    /// A sequence number names the last record that ends at or below it; one that was used twice is refused.
    pub fn check_sequence(&mut self, boundary: usize) {
        let place = self.places[boundary];
        let Some(state) = self.driver.model.states[place.records].first() else { return };
        let sequence = state.sequence;
        let target = Target::Sequence(pitr_archive::ids::SequenceNumber::new(sequence));
        match self.plan(&target) {
            Ok(plan) => {
                let reached = index(plan.position.boundary);
                assert!(
                    plan.position.sequence.get() <= sequence,
                    "asked for sequence {sequence}, the plan reaches {}",
                    plan.position.sequence
                );
                // Nothing after it would do as well.
                if let Some(next) = self.places.get(reached + 1)
                    && self.driver.incidents.is_empty()
                    && let Some(state) = self.driver.model.states[next.records].first()
                {
                    assert!(
                        state.sequence > sequence || next.records == self.places[reached].records,
                        "asked for sequence {sequence}, {} would have done, the plan stops before it",
                        state.sequence
                    );
                }
                self.restore(&plan, Expected::Any);
            }
            Err(e) if e.code() == Code::TargetAmbiguous => {
                assert!(
                    self.driver.incidents.iter().any(|i| !matches!(i.cause, Cause::ColumnFamily | Cause::OutsideWal)),
                    "sequence {sequence} was used once: {e}"
                );
                *self.refused.entry(e.code().name()).or_default() += 1;
            }
            Err(e) => {
                // What was before anybody watched can have had higher numbers than anything that is archived.
                let early = matches!(e.code(), Code::TargetBeforeStart | Code::TargetAfterEnd) && boundary == 0;
                let excused = early || (0..self.places.len()).any(|b| self.legitimate(b, &e));
                assert!(excused, "sequence {sequence} is refused without a reason: {e}");
                *self.refused.entry(e.code().name()).or_default() += 1;
            }
        }
    }

    fn judge(&mut self, boundary: usize, e: &Error) {
        if !self.legitimate(boundary, e) {
            let bases: Vec<_> = self
                .catalog
                .bases()
                .iter()
                .map(|b| (b.run, b.first_record, b.floor.boundary, self.places[index(b.floor.boundary)].records))
                .collect();
            panic!(
                "boundary {boundary} ({:?}) is refused without a reason: {e}\nbases (run, first record, floor, records): {bases:?}\nincidents: {:#?}\nbarriers: {:#?}",
                self.places[boundary],
                self.driver.incidents,
                self.timeline().barriers(),
            );
        }
        *self.refused.entry(e.code().name()).or_default() += 1;
    }

    /// Whether what the program did explains the refusal of a boundary.
    fn legitimate(&self, boundary: usize, e: &Error) -> bool {
        let at = Boundary::new(boundary as u64);
        let before = self.timeline().run_of(at).map(|r| r.number);
        // A tag or a time can mean the beginning of another run there.
        let begun = self.timeline().runs().iter().filter(|r| r.start == at).map(|r| Some(r.number));
        std::iter::once(before).chain(begun).any(|run| self.legitimate_in(run, boundary, e))
    }

    fn legitimate_in(&self, run: Option<u64>, boundary: usize, e: &Error) -> bool {
        let records = self.places[boundary].records;
        let below: Vec<_> =
            self.catalog.bases().iter().filter(|b| Some(b.run) == run && index(b.floor.boundary) <= boundary).collect();
        match e.code() {
            Code::TargetBeforeStart => below.is_empty(),
            Code::TargetBehindBarrier => {
                let explained = |base: &&BaseDocument| {
                    self.ahead(base, boundary)
                        || self.began_with_a_jump(base)
                        || self.emptied(base, boundary)
                        || self.driver.incidents.iter().any(|i| self.blocks(i, base, records))
                };
                if below.is_empty() { !self.driver.incidents.is_empty() } else { below.iter().all(explained) }
            }
            Code::TargetInsideEvent => {
                // Where WALs are created ahead of their use, whether a change came before a session's start or after it can be
                // unknown.
                let ahead = usize::from(self.driver.settings.precreate_wal);
                let inside = |i: &Incident| i.lo < records && i.hi.is_none_or(|hi| records < hi + ahead);
                let emptied = |interval: Interval| {
                    index(interval.lo) < boundary && interval.hi.is_none_or(|hi| boundary < index(hi))
                };
                self.driver.incidents.iter().any(inside)
                    || self.emptied_intervals().any(emptied)
                    || self.left_open(run).any(|interval| index(interval.lo) < boundary)
            }
            // After a reopen that lowered the sequence number, until a record consumes one: no base taken before it can tell
            // the lower number.
            // And where a column family came directly after a write without the log.
            // And where RocksDB would show what is only prepared.
            Code::TargetUnsupported => {
                let lowered = |i: &Incident| matches!(i.cause, Cause::Reuse | Cause::Unlogged) && i.lo <= records;
                self.driver.incidents.iter().any(lowered) || self.is_miscounted(records)
            }
            _ => false,
        }
    }

    /// Whether a pending transaction writes a key three times: recovery counts its parts wrongly.
    fn is_miscounted(&self, records: usize) -> bool {
        let counted = self.driver.settings.transactions.is_some_and(|policy| policy != WritePolicy::WriteCommitted);
        let mut pending = self.driver.model.states[records].iter().flat_map(|state| state.pending.values());
        counted
            && pending.any(|ops| {
                let mut times: HashMap<(&str, &[u8]), usize> = HashMap::new();
                for op in ops.iter() {
                    if let Op::Put(family, key, _) | Op::Delete(family, key) = op {
                        *times.entry((family, key)).or_default() += 1;
                    }
                }
                times.values().any(|times| *times > 2)
            })
    }

    /// Whether the base has, at the target's own boundary, a change that may have come after the target.
    fn ahead(&self, base: &BaseDocument, boundary: usize) -> bool {
        let records = self.places[boundary].records;
        let outside = |i: &&Incident| matches!(i.cause, Cause::ColumnFamily | Cause::OutsideWal);
        let mut changes = self.driver.incidents.iter().filter(outside);
        index(base.floor.boundary) == boundary
            && changes.any(|i| i.lo <= records && i.hi.is_none_or(|hi| records <= hi))
    }

    /// Whether the archive has a barrier because a compaction left nothing, between the base and the target: from the
    /// MANIFEST alone it looks like a dropped range of files.
    fn emptied(&self, base: &BaseDocument, boundary: usize) -> bool {
        self.emptied_intervals().any(|interval| {
            let hi = interval.hi.map_or(usize::MAX, index);
            index(base.floor.boundary) <= hi && index(interval.lo) <= boundary
        })
    }

    /// Intervals that a run left open because it ended before the end of everything readable was reached.
    fn left_open(&self, run: Option<u64>) -> impl Iterator<Item = Interval> {
        let ended = self.timeline().runs().last().is_some_and(|last| Some(last.number) > run);
        let families = self.timeline().column_families().iter().map(|event| event.interval);
        let barriers = self.timeline().barriers().iter().map(|barrier| barrier.interval);
        families.chain(barriers).filter(move |interval| ended && interval.hi.is_none())
    }

    fn emptied_intervals(&self) -> impl Iterator<Item = Interval> {
        let dropped = |b: &&Barrier| b.reason == BarrierReason::ChangeOutsideWal && b.detail.contains("dropped range");
        self.timeline().barriers().iter().filter(dropped).map(|b| b.interval)
    }

    /// Whether the base's run begins with a number that is not the next one after what flushed files reach: the flush left
    /// nothing of the last records, or there were writes without the log. Nobody can tell.
    fn began_with_a_jump(&self, base: &BaseDocument) -> bool {
        self.timeline().barriers().iter().any(|b| {
            b.reason == BarrierReason::SequenceJump
                && b.interval.lo == base.first_record
                && self.timeline().run(base.run).is_some_and(|run| run.start == b.interval.lo)
        })
    }

    /// Whether the incident may stop a plan from the base to the target.
    fn blocks(&self, incident: &Incident, base: &BaseDocument, target: usize) -> bool {
        let records = |boundary: Boundary| {
            let place = self.places[index(boundary)];
            place.new_run.filter(|_| base.run > 0 && !place.empty_runs).unwrap_or(place.records)
        };
        match incident.cause {
            Cause::ColumnFamily => false,
            Cause::OutsideWal => {
                incident.hi.is_none_or(|hi| records(base.floor.boundary) <= hi) && incident.lo <= target
            }
            // A base that begins at the jump lacks what was written without the log, unless its files reach it.
            Cause::Unlogged => incident.hi.is_none_or(|hi| records(base.first_record) <= hi) && incident.lo <= target,
            Cause::Reuse | Cause::Unseen | Cause::ManifestUnseen => {
                incident.hi.is_none_or(|hi| records(base.first_record) < hi) && incident.lo < target
            }
        }
    }

    /// Restores, opens the copy in the strictest mode, compares; then compacts, compares again and writes.
    fn restore(&mut self, plan: &RestorePlan, expected: Expected) {
        self.restored += 1;
        let into = self.scratch.join(format!("restored-{}", self.restored));
        let (options, places) = self.driver.restore_to(&into);
        let restored = self.archiver.wait(restore(&self.archive, plan, &options, Arc::new(Silent)));
        if plan.engine.name == Engine::Bulk {
            // What operations there are is seen when they are read.
            let asked = plan.engine.wanted != EngineChoice::Auto;
            if asked && restored.as_ref().is_err_and(|e| e.code() == Code::EngineUnusable) {
                return;
            }
            self.noted.insert("replayed into tables");
        }
        restored.unwrap_or_else(|e| panic!("restoring {:?} as planned: {e}\n{plan:#?}", plan.target));
        if !plan.pending.is_empty() {
            self.noted.insert("pending transaction at a target");
        }
        let accepted = self.accepted(plan, expected);
        // Of what a flush left nothing before the archiver came, no file tells the numbers.
        let here = plan.position.boundary;
        let first = plan.base.floor.boundary == here && plan.wals.is_empty() && self.is_first_of_run(&plan.base.id);
        let numbers = if first { Numbers::AtMost } else { Numbers::Exact };
        self.compare(plan, &into, &places, &accepted, numbers);
        remove(into, places);
    }

    /// The states in which a copy that is restored as planned may be.
    fn accepted(&self, plan: &RestorePlan, expected: Expected) -> Vec<&'a State> {
        let place = self.places[index(plan.position.boundary)];
        // Where the interval of a change ends is certain that it was over before the next record, and nothing more.
        let here = plan.position.boundary;
        let families = self.timeline().column_families().iter().map(|f| f.interval);
        let mut intervals = families.chain(self.timeline().barriers().iter().map(|b| b.interval));
        let expected = match expected {
            Expected::First if intervals.any(|i| i.lo < here && i.hi == Some(here)) => Expected::Any,
            Expected::First if place.after_server => Expected::Any,
            // What happened before anybody watched has no place in the stream; the first base of a run has all of it.
            Expected::First if plan.base.floor.boundary == here && self.is_first_of_run(&plan.base.id) => Expected::Any,
            expected => expected,
        };
        let driver: &'a Driver = self.driver;
        let states = &driver.model.states;
        let mut accepted: Vec<&'a State> = Vec::new();
        let meanings = match expected {
            // An observed moment is one, whichever of the runs it belongs to.
            Expected::Within(..) => place.meanings(),
            _ => std::iter::once(place.records).chain(place.new_run).collect(),
        };
        for mut n in meanings {
            accepted.extend(expected.of(states, n));
            while self.driver.model.records.get(n).is_some_and(|next| does_nothing(next)) {
                n += 1;
                accepted.extend(expected.of(states, n));
            }
        }
        accepted
    }

    /// Whether a base has the floor of the first one of its run: later ones at that floor have all that it has.
    fn is_first_of_run(&self, id: &BaseId) -> bool {
        let bases = self.catalog.bases();
        let Some(base) = bases.iter().find(|b| b.id == *id) else { return false };
        bases.iter().filter(|b| b.run == base.run).all(|b| base.floor.boundary <= b.floor.boundary)
    }

    fn compare(&self, plan: &RestorePlan, into: &Path, places: &Places, accepted: &[&State], numbers: Numbers) {
        let settings = &self.driver.settings;
        let mut options = server::database_options(places, settings);
        options.set_wal_recovery_mode(DBRecoveryMode::AbsoluteConsistency);
        if let Some(policy) = settings.transactions {
            return self.compare_transactions(plan, into, &options, policy, accepted);
        }
        let opened = server::open_with(into, &options, settings)
            .unwrap_or_else(|e| panic!("the restored copy does not open: {e}\n{plan:#?}"));
        let sequence = opened.db.latest_sequence_number();
        let look = |when: &str| {
            let dump = server::dump(&opened.db, &opened.names)
                .unwrap_or_else(|e| panic!("reading the restored copy {when}: {e}\n{plan:#?}"));
            let state = State { content: server::content(dump), sequence, pending: Pending::new() };
            let same = |accepted: &State| {
                numbers.allow(state.sequence, accepted.sequence) && accepted.content == state.content
            };
            if !accepted.iter().any(|accepted| same(accepted)) {
                let differences: Vec<_> = accepted.iter().map(|a| a.differences(&state)).collect();
                panic!(
                    "{when}, the restored copy is {state:?}; accepted: {accepted:?}\n{differences:#?}\n{plan:#?}\nincidents: {:#?}",
                    self.driver.incidents
                );
            }
        };
        assert_eq!(
            sequence,
            plan.position.sequence.get(),
            "the latest sequence number is not the planned one: {plan:#?}"
        );
        look("after opening");
        let mut compaction = CompactOptions::default();
        compaction.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        for name in &opened.names {
            let family = opened.db.cf_handle(name).expect("a column family");
            opened.db.compact_range_cf_opt(&family, None::<&[u8]>, None::<&[u8]>, &compaction);
        }
        // What a wrong sequence number hides until then: a key that comes back.
        look("after a compaction");
        opened.db.put(b"written after the restore", b"1").expect("writing to the restored copy");
        assert_eq!(opened.db.latest_sequence_number(), sequence + 1, "the restored copy goes on from there");
    }
}

impl Comparison<'_> {
    /// The same for a transaction database: what is pending must be pending, and can be decided.
    fn compare_transactions(
        &self,
        plan: &RestorePlan,
        into: &Path,
        options: &Options,
        policy: WritePolicy,
        accepted: &[&State],
    ) {
        let settings = &self.driver.settings;
        let mut db = TransactionDb::open(into, options, settings, policy)
            .unwrap_or_else(|e| panic!("the restored copy does not open: {e}\n{plan:#?}"));
        let planned = plan.position.sequence.get();
        // An open consumes a number where sub-batches do, unless the database is empty.
        let by_open = u64::from(policy != WritePolicy::WriteCommitted && planned > 0);
        assert_eq!(
            db.latest_sequence(),
            planned + by_open,
            "the latest sequence number is not the planned one: {plan:#?}"
        );
        let mut pending = db.pending();
        pending.sort();
        let mut named: Vec<_> = plan.pending.iter().map(|t| t.name.clone()).collect();
        named.sort();
        assert_eq!(pending, named, "the plan names other pending transactions than there are: {plan:#?}");
        let content =
            server::content(db.dump().unwrap_or_else(|e| panic!("reading the restored copy: {e}\n{plan:#?}")));
        let same = |state: &&&State| {
            let sequence = (planned..=planned + by_open).contains(&state.sequence);
            sequence && state.content == content && state.pending.keys().eq(pending.iter())
        };
        let Some(state) = accepted.iter().find(same) else {
            let names = pending.iter().map(|name| (name.clone(), Arc::default())).collect();
            let found = State { content, sequence: planned, pending: names };
            let differences: Vec<_> = accepted.iter().map(|a| a.differences(&found)).collect();
            panic!(
                "the restored copy is {found:?}; accepted: {accepted:?}\n{differences:#?}\n{plan:#?}\nincidents: {:#?}",
                self.driver.incidents
            );
        };
        // Every second one takes effect, the others leave nothing.
        let mut expected = content;
        for (n, (name, ops)) in state.pending.iter().enumerate() {
            let decided = if n % 2 == 0 {
                expected = model::preview(&expected, ops);
                db.commit(name)
            } else {
                db.roll_back(name, &[])
            };
            decided.unwrap_or_else(|e| panic!("deciding {name} in the restored copy: {e}\n{plan:#?}"));
        }
        for name in expected.keys() {
            db.compact(name);
        }
        let content =
            server::content(db.dump().unwrap_or_else(|e| panic!("reading the restored copy: {e}\n{plan:#?}")));
        assert!(content == expected, "after deciding what was pending, the restored copy differs: {plan:#?}");
    }
}

/// A copy was compared.
fn remove(into: PathBuf, places: Places) {
    for dir in [Some(into), places.wals, places.data, places.more].into_iter().flatten() {
        std::fs::remove_dir_all(dir).expect("removing the restored copy");
    }
}

/// Whether a batch has no operation and decides no transaction: only data for the log.
fn does_nothing(batch: &[u8]) -> bool {
    let summary = WriteBatch::parse(batch).and_then(|batch| batch.scan()).expect("a batch of the program");
    summary.data_ops == 0 && summary.two_phase.is_none()
}

fn index(boundary: Boundary) -> usize {
    usize::try_from(boundary.get()).expect("a boundary of a small archive")
}

/// What an archive says, entry by entry, for somebody who looks for a cause.
pub fn tell_stream(archiver: &ArchiveDriver) {
    let archive = archiver.archive();
    let catalog = archiver.wait(archive.load_catalog()).unwrap_or_else(|e| panic!("the catalog: {e}"));
    for base in catalog.bases() {
        let (point, floor) = (base.manifest, base.floor);
        println!(
            "base {}: run {}, first WAL {} at {}, floor {} (sequence {}), MANIFEST {} to {}, sequences {} and {}, {} files",
            base.id,
            base.run,
            base.first_wal,
            base.first_record,
            floor.boundary,
            floor.sequence,
            point.file,
            point.offset,
            base.last_sequence,
            base.max_file_sequence,
            base.files.len()
        );
    }
    for timeline in catalog.timelines() {
        for segment in timeline.segments() {
            println!("segment {} {:?} {:?}", segment.ordinal, segment.observed, segment.observed_through);
            let read = archiver.wait(archive.read_segment(timeline.id(), segment.ordinals()));
            let reader = read.unwrap_or_else(|e| panic!("segment {}: {e}", segment.ordinal));
            for placed in reader.entries() {
                let placed = placed.unwrap_or_else(|e| panic!("segment {}: {e}", segment.ordinal));
                match placed.entry {
                    Entry::Record(record) => {
                        let sequence: [u8; 8] = record.payload[..8].try_into().expect("a header");
                        let (sequence, count) = (u64::from_le_bytes(sequence), &record.payload[8..12]);
                        println!(
                            "  {} record of WAL {} at {}: sequence {sequence}, {count:?}",
                            placed.at, record.wal, record.start
                        );
                    }
                    Entry::Event(Event::ColumnFamily { change, name, interval, manifest, .. }) => {
                        println!("  {} {change:?} {name} {interval:?} {manifest:?}", placed.at);
                    }
                    Entry::Event(event) => println!("  {} {event:?}", placed.at),
                }
            }
        }
    }
}

/// Places behind the empty records that a run began with.
fn settle(places: &mut [Place], unplaced: &mut Vec<usize>, records: usize) {
    for before in unplaced.drain(..) {
        places[before + 1].records = records;
        if before == 0 {
            places[0].records = records;
        }
    }
}

/// Finds every archived record among the program's batches.
fn places(driver: &Driver, archiver: &ArchiveDriver, archive: &Archive, catalog: &Catalog) -> Vec<Place> {
    let mut written: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (i, payload) in driver.model.records.iter().enumerate() {
        written.entry(payload).or_default().push(i);
    }
    assert_eq!(catalog.timelines().count(), 1, "nothing was restored and gone on with: one timeline");
    let timeline = catalog.timeline(TimelineId::FIRST).expect("the first timeline");
    let mut places = vec![Place::of(0)];
    // Records of the program until now in this run; `None` at its beginning, which may be anywhere.
    let mut here: Option<usize> = None;
    let (mut unplaced, mut begun) = (Vec::new(), 0);
    let mut runs = timeline.runs().iter().map(|run| index(run.start)).peekable();
    for segment in timeline.segments() {
        let reader = archiver
            .wait(archive.read_segment(timeline.id(), segment.ordinals()))
            .unwrap_or_else(|e| panic!("segment {}: {e}", segment.ordinal));
        for placed in reader.entries() {
            let placed = placed.unwrap_or_else(|e| panic!("segment {}: {e}", segment.ordinal));
            let Entry::Record(record) = placed.entry else { continue };
            let boundary = places.len() - 1;
            while runs.next_if(|start| *start <= boundary).is_some() {
                settle(&mut places, &mut unplaced, driver.model.records.len());
                here = None;
                begun += 1;
            }
            let found = written.get(&record.payload[..]).into_iter().flatten();
            // The server writes an empty batch of its own when it met a torn record at its start.
            let empty = record.payload.len() == 12 && record.payload[8..12] == [0; 4];
            let next = match here {
                None => found.copied().next(),
                Some(here) => found.copied().find(|i| *i >= here),
            };
            if empty && here.is_none() && next.is_none() {
                // Where a run that begins with it lies is known with its next record.
                unplaced.push(places.len() - 1);
                places.push(Place::of(0));
                continue;
            }
            let after = match (next, empty) {
                (Some(i), _) => i + 1,
                (None, true) => here.unwrap_or(0),
                (None, false) => panic!(
                    "record {boundary} of WAL {} at {} was never written by the program: {:?}",
                    record.wal, record.start, record.payload
                ),
            };
            match here {
                Some(here) => assert!(
                    // Records without an operation can hide where a recycled WAL is overwritten: nothing depends on them.
                    after == here + 1 || empty || driver.model.records[here..after - 1].iter().all(|r| does_nothing(r)),
                    "inside a run, after {here} records of the program comes its record {}",
                    after - 1
                ),
                // Before the first record of a run lies what was there without it.
                None => {
                    if let Some(first) = unplaced.first().copied() {
                        settle(&mut places, &mut unplaced, after - 1);
                        if first > 0 {
                            places[first].new_run = Some(after - 1);
                        }
                        here = Some(after);
                        places.push(Place::of(after));
                        continue;
                    }
                    let place = places.last_mut().expect("a place");
                    let before = if empty { after } else { after - 1 };
                    if boundary == 0 {
                        // An earlier run without a record holds what was there at the first look.
                        let earlier = archiver.looks.first().filter(|_| begun > 1);
                        place.records = earlier.map_or(before, |look| look.moment.records);
                        place.new_run = earlier.map(|_| before);
                    } else {
                        place.new_run = Some(before);
                    }
                }
            }
            here = Some(after);
            places.push(Place { after_server: next.is_none(), ..Place::of(after) });
        }
    }
    // Of a run without a record yet is only known that all of the program came before.
    let first = unplaced.first().copied();
    settle(&mut places, &mut unplaced, driver.model.records.len());
    if let Some(first) = first {
        places[first].new_run = Some(driver.model.records.len());
    }
    if runs.next().is_some() {
        places.last_mut().expect("a place").new_run = Some(driver.model.records.len());
    }
    for (boundary, place) in places.iter_mut().enumerate() {
        let begun = timeline.runs().iter().filter(|run| index(run.start) == boundary).count();
        // The first run of all has nothing before it.
        place.empty_runs = begun > if boundary == 0 { 2 } else { 1 };
    }
    let lost = driver.incidents.iter().filter(|i| matches!(i.cause, Cause::Unseen | Cause::ManifestUnseen)).count();
    let runs = timeline.runs().len();
    assert!(
        runs <= 1 + lost,
        "{runs} runs, but records could have been missed only {lost} times: {:#?}\nbarriers: {:#?}",
        driver.incidents,
        timeline.barriers()
    );
    if lost == 0 {
        assert_eq!(
            here.unwrap_or(0),
            driver.model.records.len(),
            "the archive ends before the program: records are missing"
        );
    }
    places
}
