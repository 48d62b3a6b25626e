//! A stalled writer that wakes up after pruning, or after merging.
//!
//! Owns: the story. An archiver has cut a segment that has not reached the store when its process stops running; another
//! one takes the archive over and goes on; retention deletes what is behind the newest base, the ordinal of the first
//! one's segment included; or the other one merges that ordinal with its neighbours and deletes it. Then the first one wakes up, and the store lets it create what was deleted. It must find out:
//! nothing that it says from there on may be believed.

use std::time::Duration;

use pitr_archive::{
    Code,
    clock::Clock,
    random::Random,
    store::faulty::{Fault, Request as StoreRequest, Schedule},
};
use pitr_archiver::retention::{self, Floor, Mode, Policy, Request, policy::YOUNG};
use rand::Rng;

use crate::{judge, merging, profile::Feature, run::Run};

/// So many segments come behind the newest base.
const BEHIND: usize = 2;
/// A process sleeps so long, at least; nothing younger is ever deleted.
const SLEEP: Duration = Duration::from_secs(3600);

/// Lets it happen, if the first archiver runs alone.
pub fn stall(run: &mut Run<'_>) {
    if !run.hosts[0].is_open() || run.hosts[1].is_open() {
        return;
    }
    run.faulty.set_outage(false);
    run.faulty.set_schedule(Schedule::default());
    run.drain();
    run.write_something();
    run.poll(0);
    run.faulty.fail_next(StoreRequest::Put, Fault::BeforeEffect);
    if run.work(0, "archiver: ship", async |a| a.ship().await).is_none() {
        return;
    }
    run.say(format_args!("    the first archiver stalls"));
    run.open(1);
    for _ in 0..run.rng.random_range(1..6) {
        run.write_something();
        run.poll(1);
        run.work(1, "archiver: ship", async |a| a.ship().await);
    }
    let families: Vec<u32> = run.server.families().iter().map(|(id, _)| *id).collect();
    run.server.flush(&families, &mut run.disk);
    run.drain();
    run.work(1, "archiver: take base", async |a| a.take_base().await);
    for _ in 0..BEHIND {
        run.write_something();
        run.poll(1);
        run.work(1, "archiver: ship", async |a| a.ship().await);
    }
    // Nothing is deleted that no manifest names.
    run.work(1, "archiver: close manifest", async |a| a.close_manifest().await);
    let before = run.place.clock.now();
    let sleep = i64::try_from(SLEEP.as_micros()).expect("an hour");
    run.place.clock.advance(sleep);
    // The archive's own time ends with the last look.
    run.work(1, "archiver: heartbeat", async |a| a.heartbeat().await);
    let merged = run.profile.has(Feature::Merging) && run.merge_rng.random_ratio(2, 3);
    let gone = if merged { merging::take_the_ordinals(run) } else { prune(run) };
    if !gone {
        return;
    }
    run.coverage.note(if merged { "stall: awake after merging" } else { "stall: awake after pruning" });
    if run.clock_rng.random_ratio(1, 2) {
        // By the wall clock, nobody slept.
        run.place.clock.set(before);
        run.coverage.note("stall: the clock hides it");
    }
    if run.rng.random_ratio(1, 2) {
        run.hosts[1].kill();
    }
    wake(run);
}

/// The first archiver goes on as if nothing had happened.
fn wake(run: &mut Run<'_>) {
    let sent = match run.rng.random_range(0..3) {
        0 => run.work(0, "archiver: catch up", async |a| a.catch_up().await.map(drop)),
        1 => run.work(0, "archiver: take base", async |a| a.take_base().await.map(drop)),
        _ => run.work(0, "archiver: ship", async |a| a.ship().await.map(drop)),
    };
    if let Some(Err(Code::Fenced)) = sent {
        run.coverage.note("stall: fenced");
    }
    let Some(acknowledged) = run.hosts[0].archiver().map(|a| a.acknowledged()) else { return };
    let (archive, catalog) = judge::load(run).expect("an archive");
    let timeline = catalog.current_timeline().expect("a timeline");
    let confirmed = run.place.runtime.block_on(archive.confirm_position(timeline, &acknowledged));
    confirmed.unwrap_or_else(|e| panic!("what a stalled archiver says to be acknowledged is not there: {e}"));
}

/// Keeps what is needed from the newest base on, and deletes everything else.
fn prune(run: &mut Run<'_>) -> bool {
    let policy = Policy {
        window: Duration::ZERO,
        last: 1,
        daily: 0,
        weekly: 0,
        monthly: 0,
        yearly: 0,
        grace: YOUNG,
        ..Policy::default()
    };
    let request = Request { policy, floor: Floor::Ignored, mode: Mode::Act };
    let grace = i64::try_from(YOUNG.as_micros()).expect("minutes");
    let mut deleted = 0;
    for _ in 0..2 {
        let Some((archive, _)) = judge::load(run) else { return false };
        let random: &dyn Random = &*run.place.random;
        let clock: &dyn Clock = &run.place.clock;
        let report = run.place.runtime.block_on(retention::prune(&archive, &request, clock, random)).expect("pruning");
        deleted += report.deleted.segments.objects;
        run.place.clock.advance(grace);
    }
    run.say(format_args!("    {deleted} segments are deleted"));
    if deleted > 0 {
        run.disturbed.insert("stall: pruned");
    }
    deleted > 0
}
