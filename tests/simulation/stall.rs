//! A stalled writer that wakes up after pruning.
//!
//! Owns: the story. An archiver has cut a segment that has not reached the store when its process stops running; another
//! one takes the archive over and goes on; retention deletes what is behind the newest base, the ordinal of the first
//! one's segment included. Then the first one wakes up, and the store lets it create what was deleted. It must find out:
//! nothing that it says from there on may be believed.
//! The pruning here is what retention does to segments: the boundary is stated, then they are deleted; the newest are kept.

use std::time::Duration;

use pitr_archive::{
    Code,
    catalog::{
        archive::PutDocument,
        schema::{BoundaryDocument, DOCUMENT_VERSION, Extra},
    },
    clock::Clock,
    object_key::ObjectKey,
    random::Random,
    store::{
        Store,
        faulty::{Fault, Request, Schedule},
    },
};
use rand::Rng;

use crate::{judge, run::Run};

/// So many of the newest segments are never deleted.
const KEPT: usize = 2;
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
    run.faulty.fail_next(Request::Put, Fault::BeforeEffect);
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
    run.work(1, "archiver: take base", async |a| a.take_base().await);
    for _ in 0..KEPT {
        run.write_something();
        run.poll(1);
        run.work(1, "archiver: ship", async |a| a.ship().await);
    }
    if run.rng.random_ratio(1, 2) {
        run.work(1, "archiver: close manifest", async |a| a.close_manifest().await);
    }
    let sleep = i64::try_from(SLEEP.as_micros()).expect("an hour");
    run.place.clock.advance(sleep);
    if run.clock_rng.random_ratio(1, 2) {
        // By the wall clock, nobody slept.
        run.place.clock.jump(-sleep);
        run.coverage.note("stall: the clock hides it");
    }
    if !prune(run) {
        return;
    }
    if run.rng.random_ratio(1, 2) {
        run.hosts[1].kill();
    }
    wake(run);
}

/// The first archiver goes on as if nothing had happened.
fn wake(run: &mut Run<'_>) {
    run.coverage.note("stall: awake after pruning");
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

/// Deletes what lies behind the newest base, but for the newest segments.
fn prune(run: &mut Run<'_>) -> bool {
    let Some((archive, catalog)) = judge::load(run) else { return false };
    let timeline = catalog.current_timeline().expect("a timeline");
    let segments = timeline.segments();
    let Some(base) = catalog.bases().last() else { return false };
    let needed = segments.iter().position(|segment| segment.end > base.first_record).unwrap_or(segments.len());
    // Two segments can end at the same boundary, with events between: the base's own hash decides where it begins.
    let begins = segments.iter().position(|segment| segment.hash_before == base.first_hash).unwrap_or(needed);
    let keep = needed.min(begins).min(segments.len().saturating_sub(KEPT));
    let Some(first) = segments.get(keep).filter(|_| keep > 0) else { return false };
    let random: &dyn Random = &*run.place.random;
    let clock: &dyn Clock = &run.place.clock;
    run.place.runtime.block_on(async {
        let claim = archive.claim_epoch("retention", clock, random).await.expect("a claim");
        let document = BoundaryDocument {
            version: DOCUMENT_VERSION,
            archive: archive.id(),
            timeline: timeline.id(),
            ordinal: first.ordinal,
            first: first.first,
            hash_before: first.hash_before,
            created: clock.now(),
            epoch: claim.epoch(),
            nonce: random.nonce().expect("a nonce"),
            extra: Extra::new(),
        };
        let put = archive.put_boundary(&document, &claim, random).await.expect("stating the boundary");
        assert!(matches!(put, PutDocument::Created { .. }), "one boundary for each ordinal");
        for segment in segments.iter().take(keep) {
            let key = ObjectKey::segment(timeline.id(), segment.ordinal);
            run.memory.delete(&key).await.expect("deleting");
        }
    });
    let (ordinal, count) = (first.ordinal, keep);
    run.say(format_args!("    {count} segments below {ordinal} are deleted"));
    run.disturbed.insert("stall: pruned");
    true
}
