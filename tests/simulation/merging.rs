//! Merging in the middle of everything: minutes pass, manifests are written, and small segments become large ones.
//!
//! Owns: the comparison. Every target of an archive, by record, by sequence number, by time and by tag, is resolved before a
//! merge and behind each of its effects, dead or alive: it must come out at the same place, or be refused for the same reason.
//! A restore that was planned before goes on where it holds what it reads; where it does not and comes too late, it says why.

use std::{sync::Arc, time::Duration};

use pitr_archive::{
    Code,
    catalog::{
        archive::Archive,
        model::{Catalog, Timeline},
    },
    clock::{Clock, Micros},
    ids::{Boundary, Nonce, RunningHash, SequenceNumber, TimelineId},
    random::Random,
    store::faulty::Schedule,
};
use pitr_archiver::{
    crash::MERGE_POINTS,
    merge::{Merging, Policy, policy::LEAST_GRACE},
};
use pitr_replayer::{
    hold::Hold,
    plan::{PlanOptions, RestorePlan, plan},
    progress::Silent,
    restore::{RestoreOptions, restore},
    target::Target,
};
use rand::{Rng, seq::IndexedRandom};

use crate::{
    judge, process,
    profile::Feature,
    run::{Run, Tagged},
};

/// How a run's archivers merge.
pub fn policy(merging: bool, max_size: u64) -> Policy {
    Policy {
        merging: if merging { Merging::On } else { Merging::Off },
        levels: [10, 60, 600].map(Duration::from_secs).to_vec(),
        max_size,
        grace: LEAST_GRACE,
    }
}

/// Lets time pass, and merges.
pub fn merge(run: &mut Run<'_>) {
    let open: Vec<usize> = (0..2).filter(|which| run.hosts[*which].is_open()).collect();
    let Some(which) = open.choose(&mut run.merge_rng).copied() else { return };
    for _ in 0..run.merge_rng.random_range(1..4) {
        for _ in 0..run.merge_rng.random_range(1..3) {
            run.write_something();
            run.poll(which);
            run.work(which, "archiver: ship", async |a| a.ship().await);
            let pause = run.merge_rng.random_range(1..20_000_000);
            run.place.clock.advance(pause);
        }
        run.work(which, "archiver: heartbeat", async |a| a.heartbeat().await);
        run.work(which, "archiver: close manifest", async |a| a.close_manifest().await);
    }
    let minutes = run.merge_rng.random_range(0..15);
    run.place.clock.advance(minutes * 60_000_000);
    run.work(which, "archiver: heartbeat", async |a| a.heartbeat().await);
    let Some((archive, catalog)) = judge::load(run) else { return };
    let before = Outcomes::find(run, &archive, &catalog);
    let reader = Reader::plan(run, &archive, &catalog);
    deed(run, which);
    before.check(run, "while a merged segment is not named");
    // No segment more: what it would tell of the rest is no matter of merging.
    run.work(which, "archiver: close manifest", async |a| a.close_manifest().await);
    before.check(run, "once a manifest names it");
    if run.merge_rng.random_ratio(1, 2) {
        return;
    }
    let held = reader.as_ref().filter(|_| run.merge_rng.random_ratio(1, 2));
    let random = run.place.random.clone();
    let clock = run.place.clock.clone();
    let hold = held.map(|reader| {
        let random: &dyn Random = &*random;
        let clock: &dyn Clock = &clock;
        let placed = run.place.runtime.block_on(Hold::place(&archive, &reader.plan, clock, random, "the simulation"));
        placed.expect("a hold")
    });
    let grace = i64::try_from(LEAST_GRACE.as_micros()).expect("minutes");
    run.place.clock.advance(grace);
    deed(run, which);
    before.check(run, "once the parts are deleted");
    if let Some(reader) = &reader {
        reader.restore(run, &archive, hold.is_some());
    }
    if let Some(hold) = hold {
        run.place.runtime.block_on(hold.release()).expect("the end of a hold");
    }
}

/// Merges or deletes what is due, perhaps dying on the way.
fn deed(run: &mut Run<'_>, which: usize) {
    if run.profile.has(Feature::Deaths) && run.merge_rng.random_ratio(1, 3) {
        if run.merge_rng.random_ratio(1, 2) {
            let effects = run.merge_rng.random_range(1..12);
            process::die_after(Some(effects));
        } else {
            process::die_at(MERGE_POINTS.choose(&mut run.merge_rng).expect("names"));
        }
    }
    let counted = |run: &Run<'_>| run.hosts[which].archiver().map(|a| a.metrics().counts().superseded_deleted);
    let before = counted(run);
    if let Some(Ok(deeds)) = run.work(which, "archiver: merge", async |a| a.merge().await)
        && deeds > 0
    {
        run.coverage.note("merge: something was due");
    }
    if counted(run) > before {
        run.coverage.note("merge: parts deleted");
    }
    process::die_after(None);
}

/// Lets the second archiver merge the ordinal that the first one, which is stalled, believes to be its next, and delete it.
pub fn take_the_ordinals(run: &mut Run<'_>) -> bool {
    run.faulty.set_outage(false);
    run.faulty.set_schedule(Schedule::default());
    for _ in 0..2 {
        run.place.clock.advance(1_200_000_000);
        for _ in 0..2 {
            run.write_something();
            run.poll(1);
            run.work(1, "archiver: ship", async |a| a.ship().await);
        }
        run.work(1, "archiver: close manifest", async |a| a.close_manifest().await);
    }
    run.work(1, "archiver: merge", async |a| a.merge().await);
    run.work(1, "archiver: heartbeat", async |a| a.heartbeat().await);
    run.work(1, "archiver: close manifest", async |a| a.close_manifest().await);
    run.place.clock.advance(i64::try_from(LEAST_GRACE.as_micros()).expect("minutes"));
    run.work(1, "archiver: merge", async |a| a.merge().await);
    let deleted = run.hosts[1].archiver().map_or(0, |a| a.metrics().counts().superseded_deleted);
    run.say(format_args!("    {deleted} merged segments are deleted"));
    deleted > 0
}

/// Where a target comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Reached(TimelineId, Boundary, RunningHash, SequenceNumber),
    Refused(Code),
}

/// What becomes of every target.
struct Outcomes(Vec<(TimelineId, Target, Outcome)>);

impl Outcomes {
    fn find(run: &mut Run<'_>, archive: &Archive, catalog: &Catalog) -> Self {
        let mut targets: Vec<(TimelineId, Target)> = Vec::new();
        for timeline in catalog.timelines() {
            let (id, rng) = (timeline.id(), &mut run.merge_rng);
            let records = (timeline.start().get() + 1..=timeline.end().get()).map(Boundary::new);
            targets.extend(records.filter_map(|b| Some((id, Target::Record(b.last_record()?)))));
            let highest = timeline.segments().iter().filter_map(|s| s.max_sequence).max().unwrap_or_default().get();
            targets
                .extend((0..4).map(|_| (id, Target::Sequence(SequenceNumber::new(rng.random_range(0..=highest + 2))))));
            // Behind the newest look, what is asked for is to come.
            let looks = |t: &Timeline| t.segments().iter().filter_map(|s| s.observed.map(|(first, _)| first.at)).min();
            let newest =
                timeline.segments().iter().rev().nth(1).and_then(|s| s.observed_through.or(s.observed.map(|o| o.1.at)));
            if let (Some(from), Some(to)) = (looks(timeline), newest)
                && from < to
            {
                let times = (0..8).map(|_| Micros(rng.random_range(from.0..=to.0)));
                targets.extend(times.map(|at| (id, Target::Time(at.to_datetime()))));
            }
        }
        for Tagged { name, .. } in &run.tags {
            targets.extend(catalog.tag(name).map(|tag| (tag.position.timeline, Target::tag(name))));
        }
        let found = targets.into_iter().map(|(timeline, target)| {
            let outcome = outcome(run, archive, catalog, timeline, &target);
            (timeline, target, outcome)
        });
        Self(found.collect())
    }

    fn check(&self, run: &Run<'_>, when: &str) {
        let (archive, catalog) = judge::load(run).expect("an archive");
        for (timeline, target, before) in &self.0 {
            let now = outcome(run, &archive, &catalog, *timeline, target);
            assert_eq!(&now, before, "{when}, {target} of timeline {timeline}");
        }
    }
}

fn planned(
    run: &Run<'_>,
    archive: &Archive,
    catalog: &Catalog,
    timeline: TimelineId,
    target: &Target,
) -> pitr_archive::Result<RestorePlan> {
    let options = PlanOptions { timeline: Some(timeline), ..PlanOptions::default() };
    run.place.runtime.block_on(plan(archive, catalog, target, &options))
}

fn outcome(run: &Run<'_>, archive: &Archive, catalog: &Catalog, timeline: TimelineId, target: &Target) -> Outcome {
    match planned(run, archive, catalog, timeline, target) {
        Ok(plan) => {
            let at = plan.position;
            Outcome::Reached(at.timeline, at.boundary, at.hash, at.sequence)
        }
        Err(e) => Outcome::Refused(e.code()),
    }
}

/// A restore that was planned before.
struct Reader {
    plan: RestorePlan,
}

impl Reader {
    fn plan(run: &mut Run<'_>, archive: &Archive, catalog: &Catalog) -> Option<Self> {
        let timeline = catalog.current_timeline()?;
        let (from, to) = (timeline.start().get() + 1, timeline.end().get());
        if from > to {
            return None;
        }
        let record = Boundary::new(run.merge_rng.random_range(from..=to)).last_record()?;
        let plan = planned(run, archive, catalog, timeline.id(), &Target::Record(record)).ok()?;
        Some(Self { plan })
    }

    /// By now parts of it may be gone.
    fn restore(&self, run: &mut Run<'_>, archive: &Archive, held: bool) {
        let into = run.root.path().join("planned-before");
        let options = RestoreOptions::new(&into, Nonce([8; 16]), run.place.clock.now());
        let restored = run.place.runtime.block_on(restore(archive, &self.plan, &options, Arc::new(Silent)));
        match restored {
            Ok(_) => {
                run.coverage.note(if held { "merge: a held restore goes on" } else { "merge: an old plan restores" })
            }
            Err(e) if !held && e.code() == Code::SegmentMissing => {
                assert!(e.to_string().contains("merged into"), "it does not say why: {e}");
                run.coverage.note("merge: an old plan comes too late");
            }
            Err(e) => panic!("a restore that was planned before a merge, held: {held}: {e}"),
        }
        if into.exists() {
            std::fs::remove_dir_all(&into).expect("removing the copy");
        }
    }
}
