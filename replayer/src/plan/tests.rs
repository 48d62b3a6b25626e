//! What a target means and which base serves it, on hand-made streams.

use chrono::DateTime;
use pitr_archive::{
    Code, Error,
    ids::{BaseId, ColumnFamilyId, RecordNumber, SequenceNumber},
    segment::entry::{BarrierReason, ColumnFamilyChange, Event},
};

use super::{InsideEvent, PlanOptions, RestorePlan};
use crate::target::Target;

mod flushes;
mod forks;
mod scene;
mod tables;
use scene::{Scene, b, point, seq};

fn record(n: u64) -> Target {
    Target::Record(RecordNumber::new(n))
}

fn to_seq(n: u64) -> Target {
    Target::Sequence(SequenceNumber::new(n))
}

fn to_time(micros: i64) -> Target {
    Target::Time(DateTime::from_timestamp_micros(micros).unwrap())
}

fn base(n: u32) -> BaseId {
    BaseId::new(DateTime::UNIX_EPOCH, n)
}

/// Boundary, base and sequence of a plan, or the code of its refusal.
fn summary(plan: Result<RestorePlan, Error>) -> Result<(u64, BaseId, u64), Code> {
    plan.map(|p| (p.position.boundary.get(), p.base.id, p.position.sequence.get())).map_err(|e| e.code())
}

fn details(e: &Error, name: &str) -> Vec<String> {
    e.details().filter(|(n, _)| *n == name).map(|(_, v)| v.to_owned()).collect()
}

/// Ten records of one put each in two segments; a base before all and one after the sixth.
fn simple() -> Scene {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0);
    for n in 0..6 {
        s.put(1).look(n * 100, n * 100 + 10);
        if n == 2 {
            s.cut();
        }
    }
    s.cut().wal(11).base(6, 2, 6);
    for n in 6..10 {
        s.put(1).look(n * 100, n * 100 + 10);
    }
    s.through(2_000).cut();
    s
}

#[test]
fn a_record_is_reached_exactly_from_the_newest_base_at_or_before_it() {
    let s = simple();
    for (target, expected) in [
        (record(0), Ok((1, base(0), 1))),
        (record(4), Ok((5, base(0), 5))),
        (record(5), Ok((6, base(1), 6))),
        (record(6), Ok((7, base(1), 7))),
        (record(9), Ok((10, base(1), 10))),
        (Target::Latest, Ok((10, base(1), 10))),
        (record(10), Err(Code::TargetAfterEnd)),
        (record(u64::MAX), Err(Code::TargetAfterEnd)),
    ] {
        assert_eq!(summary(s.plan(&target)), expected, "{target}");
    }
}

#[test]
fn the_plan_names_what_is_read_and_written() {
    let plan = simple().plan(&record(4)).unwrap();
    assert_eq!(plan.segments.iter().map(|s| s.ordinal.get()).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(plan.wals.iter().map(|w| (w.number.get(), w.first, w.end)).collect::<Vec<_>>(), [(10, b(0), b(5))]);
    assert!(plan.distance.exact);
    let plan = simple().plan(&record(8)).unwrap();
    assert_eq!(plan.segments.iter().map(|s| s.ordinal.get()).collect::<Vec<_>>(), [2]);
    assert_eq!(plan.wals.iter().map(|w| (w.number.get(), w.first, w.end)).collect::<Vec<_>>(), [(11, b(6), b(9))]);
    assert_eq!(plan.position.wal.map(|w| w.get()), Some(11));
}

#[test]
fn a_target_equal_to_a_floor_is_legal_and_reads_no_records() {
    let plan = simple().plan(&record(5)).unwrap();
    assert_eq!((plan.base.id, plan.wals.len()), (base(1), 0));
}

#[test]
fn segments_that_hold_only_events_are_read_too_because_the_running_hash_goes_through_them() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).cut();
    s.family(ColumnFamilyChange::Added, 5, 1, Some(1)).cut();
    s.through(50).cut();
    s.put(1).cut();
    let plan = s.plan(&record(1)).unwrap();
    assert_eq!(
        plan.segments.iter().map(|s| s.ordinal.get()).collect::<Vec<_>>(),
        [0, 1, 3],
        "a heartbeat has no entry"
    );
    for pair in plan.segments.windows(2) {
        assert_eq!(pair[0].hash_after, pair[1].hash_before);
    }
}

#[test]
fn files_ingested_at_a_floor_have_numbers_that_no_record_shows() {
    let mut s = Scene::new();
    s.session(0, 0).put(1).put(1).base(0, 9, 5);
    s.bases[0].floor.sequence = seq(5);
    s.put_at(6, 1).cut();
    assert_eq!(summary(s.plan(&record(1))), Ok((2, base(0), 5)));
    assert_eq!(summary(s.plan(&record(2))), Ok((3, base(0), 6)));
}

#[test]
fn a_named_base_is_used_though_a_newer_one_reaches_the_target() {
    let mut s = simple();
    s.bases.remove(1);
    assert_eq!(summary(s.plan(&record(8))), Ok((9, base(0), 9)));
}

#[test]
fn below_every_floor_is_refused_with_the_earliest_position() {
    let mut s = Scene::new();
    s.session(0, 0).put(1).put(1).put(1).base(0, 1, 0).put(1).cut();
    let e = s.plan(&record(1)).unwrap_err();
    assert_eq!(e.code(), Code::TargetBeforeStart);
    assert_eq!(details(&e, "nearest after"), ["--to-record 2"]);
    assert_eq!(details(&e, "nearest before"), ["none"]);
    assert!(s.plan(&record(2)).is_ok());
}

#[test]
fn a_sequence_number_inside_a_record_goes_to_the_end_of_the_one_before_and_says_so() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(3).put(4).put(0).put(2).cut();
    let plan = s.plan(&to_seq(7)).unwrap();
    assert_eq!((plan.position.boundary, plan.position.sequence), (b(3), seq(7)), "the remark consumes nothing");
    assert!(plan.distance.exact);
    let plan = s.plan(&to_seq(5)).unwrap();
    assert_eq!((plan.position.boundary, plan.position.sequence), (b(1), seq(3)));
    assert_eq!((plan.distance.exact, plan.distance.sequences), (false, Some(2)));
    assert!(plan.distance.text.contains("inside a record"), "{}", plan.distance.text);
    assert_eq!(summary(s.plan(&to_seq(0))), Ok((0, base(0), 0)), "before the first record is a place too");
    assert_eq!(summary(s.plan(&to_seq(10))), Err(Code::TargetAfterEnd));
}

/// Session 1 ends at 5; a clean reopen lowers that to 1; session 2 goes on from there.
fn reused() -> Scene {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0);
    s.put(1).put(1).put(1).put(1).put(1).cut();
    s.wal(12).session(1, 1).base(5, 9, 1).barrier(BarrierReason::Reuse, 5, Some(5));
    s.put(1).put(1).put(1).cut();
    s
}

#[test]
fn a_sequence_number_that_was_used_twice_is_refused_with_both_candidates() {
    let e = reused().plan(&to_seq(3)).unwrap_err();
    assert_eq!(e.code(), Code::TargetAmbiguous);
    assert_eq!(details(&e, "candidate"), ["--to-record 2 (sequence 3)", "--to-record 6 (sequence 3)"]);
    // 5 was only reached in the first session, 0 only before it.
    assert_eq!(summary(reused().plan(&to_seq(5))), Ok((5, base(1), 5)));
    assert_eq!(summary(reused().plan(&to_seq(0))), Ok((0, base(0), 0)));
}

#[test]
fn no_base_of_the_first_session_is_replayed_across_a_reopen_that_reused_numbers() {
    let mut s = reused();
    assert_eq!(summary(s.plan(&record(4))), Ok((5, base(1), 5)), "content of both is the same");
    assert_eq!(summary(s.plan(&record(5))), Ok((6, base(1), 2)));
    assert_eq!(summary(s.plan(&Target::Latest)), Ok((8, base(1), 4)));
    // Without the base at the open, the new session cannot be reached.
    s.bases.truncate(1);
    let e = s.plan(&record(6)).unwrap_err();
    assert_eq!(e.code(), Code::TargetBehindBarrier);
    assert_eq!(details(&e, "barrier"), ["reuse"]);
    assert_eq!(details(&e, "nearest before"), ["--to-record 4"]);
}

#[test]
fn the_latest_position_after_a_reopen_that_lowered_the_number_is_the_new_session_s() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).put(1).put(1).cut();
    s.session(1, 1).cut();
    // The old base would recover 3: it serves the position after the record, which is not the latest.
    assert_eq!(summary(s.plan(&Target::Latest)), Err(Code::TargetUnsupported));
    assert_eq!(summary(s.plan(&record(2))), Ok((3, base(0), 3)));
    s.wal(11).base(3, 5, 1).cut();
    assert_eq!(summary(s.plan(&Target::Latest)), Ok((3, base(1), 1)));
    assert_eq!(summary(s.plan(&record(2))), Ok((3, base(1), 3)), "raised to what it was after the record");
}

#[test]
fn a_record_that_consumes_nothing_does_not_hide_that_its_session_began_lower() {
    // No barrier stands yet: the session has not used a number again. But the old base would recover 5.
    for cuts in [true, false] {
        let mut s = Scene::new();
        s.session(0, 0).base(0, 1, 0).put(1).put(1).put(1).put(1).put(1);
        if cuts {
            s.cut();
        }
        s.session(1, 2).wal(11).put(0).cut();
        let e = s.plan(&record(5)).unwrap_err();
        assert_eq!(e.code(), Code::TargetUnsupported, "{cuts}");
        assert_eq!(details(&e, "recovery would report"), ["5"]);
        assert_eq!(summary(s.plan(&record(4))), Ok((5, base(0), 5)));
    }
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).put(1).put(1).session(1, 2).wal(11).base(3, 9, 2).put(0).cut();
    assert_eq!(summary(s.plan(&record(3))), Ok((4, base(1), 2)), "the open's own base");
}

#[test]
fn barriers_block_exactly_what_lies_across_them() {
    use BarrierReason::{ChangeOutsideWal, ManifestMissed, Reuse, SequenceJump, SequenceWentBack, TwoPhaseCommit};
    // A base with its first record at `first` and its floor at 4; a barrier at [lo, hi]; ten records.
    let plan = |first: u64, reason, lo: u64, hi: Option<u64>, target: u64| {
        let mut s = Scene::new();
        s.session(0, 0).put(1).put(1).put(1).put(1).base(first, 1, first);
        s.put(1).put(1).put(1).put(1).put(1).put(1).barrier(reason, lo, hi).cut();
        summary(s.plan(&record(target - 1))).map(|p| p.0)
    };
    let behind = Err(Code::TargetBehindBarrier);
    for reason in [Reuse, SequenceJump, SequenceWentBack] {
        assert_eq!(plan(2, reason, 6, Some(6), 6), Ok(6), "{reason:?}: before it");
        assert_eq!(plan(2, reason, 6, Some(6), 7), behind, "{reason:?}: after it");
        assert_eq!(plan(2, reason, 3, Some(3), 5), behind, "{reason:?}: between first record and floor");
        // Whether the files of a base reach a jump directly before its first record, this one does not tell.
        let directly = if reason == SequenceJump { behind } else { Ok(5) };
        assert_eq!(plan(2, reason, 2, Some(2), 5), directly, "{reason:?}: directly before the first record");
        assert_eq!(plan(2, reason, 1, Some(1), 5), Ok(5), "{reason:?}: before the first record");
    }
    assert_eq!(plan(2, TwoPhaseCommit, 6, Some(6), 6), Ok(6));
    assert_eq!(plan(2, TwoPhaseCommit, 6, Some(6), 7), Err(Code::TargetUnsupported));
    assert_eq!(plan(2, TwoPhaseCommit, 2, Some(2), 5), Err(Code::TargetUnsupported), "the first record itself");
    assert_eq!(plan(2, TwoPhaseCommit, 1, Some(1), 5), Ok(5));
    // A change outside the log, not before 6 and not after 8.
    assert_eq!(plan(2, ChangeOutsideWal, 6, Some(8), 6), Ok(6), "certainly before");
    assert_eq!(plan(2, ChangeOutsideWal, 6, Some(8), 7), Err(Code::TargetInsideEvent));
    assert_eq!(plan(2, ChangeOutsideWal, 6, Some(8), 8), behind, "certainly after, and the base lacks it");
    assert_eq!(plan(2, ChangeOutsideWal, 6, None, 7), Err(Code::TargetInsideEvent), "no end is known");
    assert_eq!(plan(2, ChangeOutsideWal, 6, Some(6), 6), Ok(6), "after the record and before the change");
    assert_eq!(plan(2, ChangeOutsideWal, 6, Some(6), 7), behind);
    assert_eq!(plan(2, ChangeOutsideWal, 3, Some(4), 5), Ok(5), "the floor is certainly after it");
    assert_eq!(plan(2, ChangeOutsideWal, 3, Some(5), 5), behind, "the floor may be before it");
    // What a MANIFEST said that nobody read: anywhere between the last look and the place where that was noticed.
    assert_eq!(plan(2, ManifestMissed, 6, Some(8), 6), Ok(6), "before the last look");
    assert_eq!(plan(2, ManifestMissed, 6, Some(8), 7), Err(Code::TargetInsideEvent));
    assert_eq!(plan(2, ManifestMissed, 6, Some(8), 9), behind);
    assert_eq!(plan(2, ManifestMissed, 3, Some(4), 5), Ok(5), "the floor is certainly after it");
    assert_eq!(plan(2, ManifestMissed, 3, Some(5), 5), behind, "the floor may be before it");
}

#[test]
fn a_base_after_a_change_outside_the_log_serves_what_follows() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).put(1).put(1);
    s.barrier(BarrierReason::ChangeOutsideWal, 1, Some(3)).base(0, 5, 0).put(1).cut();
    assert_eq!(summary(s.plan(&record(0))), Ok((1, base(0), 1)));
    assert_eq!(summary(s.plan(&record(1))), Err(Code::TargetInsideEvent));
    assert_eq!(summary(s.plan(&record(2))), Ok((3, base(1), 3)));
    assert_eq!(summary(s.plan(&record(3))), Ok((4, base(1), 4)));
    let e = s.plan(&record(1)).unwrap_err();
    assert_eq!(details(&e, "nearest before"), ["--to-record 0"]);
    assert_eq!(details(&e, "nearest after"), ["--to-record 2"]);
    let before = PlanOptions { inside_event: InsideEvent::Before, ..PlanOptions::default() };
    let plan = s.plan_with(&record(1), &before).unwrap();
    assert_eq!((plan.position.boundary, plan.distance.records, plan.distance.exact), (b(1), 1, false));
}

#[test]
fn a_base_that_holds_the_change_serves_everything_from_its_floor_on() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).put(1).base(0, 20, 0).put(1).put(1);
    s.ingested(10, 1, None).cut();
    assert_eq!(summary(s.plan(&record(0))), Ok((1, base(0), 1)));
    assert_eq!(summary(s.plan(&record(1))), Ok((2, base(1), 2)), "although no end of the interval is known");
    assert_eq!(summary(s.plan(&record(3))), Ok((4, base(1), 4)));
    s.bases.pop();
    assert_eq!(summary(s.plan(&record(3))), Err(Code::TargetInsideEvent));
    s.event(Event::IntervalClosed { manifest: point(10), hi: b(3) }).cut();
    assert_eq!(summary(s.plan(&record(3))), Err(Code::TargetBehindBarrier));
    assert_eq!(summary(s.plan(&record(1))), Err(Code::TargetInsideEvent));
}

#[test]
fn events_of_another_run_say_nothing_about_this_one() {
    // Another run can be another database, whose MANIFEST numbers and column family ids are its own.
    let mut s = Scene::new();
    s.session(0, 0).base(0, 5, 0).put(1).family(ColumnFamilyChange::Added, 900, 1, Some(1)).put(1);
    s.barrier(BarrierReason::ManifestMissed, 2, Some(2)).cut();
    s.run_started(1, 3).base(2, 2, 0).put(1).cut();
    let plan = s.plan(&record(2)).unwrap();
    assert_eq!((plan.base.id.clone(), plan.column_families.len()), (base(1), 0));
    assert_eq!(s.plan(&record(1)).unwrap().column_families.len(), 1);
    assert_eq!(s.plan(&record(0)).unwrap().column_families.len(), 0, "it was not there yet");
}

#[test]
fn an_interval_is_closed_by_its_own_run_only() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 5, 0).put(1).family(ColumnFamilyChange::Added, 9, 0, None).put(1);
    s.event(Event::IntervalClosed { manifest: point(9), hi: b(1) });
    s.barrier(BarrierReason::ManifestMissed, 2, Some(2)).cut();
    s.run_started(1, 3).base(2, 2, 0).put(1).put(1).family(ColumnFamilyChange::Dropped, 9, 3, None).put(1).cut();
    assert_eq!(summary(s.plan(&record(0))), Ok((1, base(0), 1)), "closed behind it, in its run");
    assert_eq!(summary(s.plan(&record(2))), Ok((3, base(1), 3)));
    assert_eq!(summary(s.plan(&record(4))), Err(Code::TargetInsideEvent), "still open");
}

#[test]
fn what_an_ingestion_took_counts_where_it_certainly_has_happened() {
    // RocksDB's own edit: one file, with number 15. The archive had the file only later.
    const EDIT: &str =
        "CQADHwQPZwAcwAoMazAwMAEPAAAAAAAADGswMjkBDwAAAAAAAA8PBQXh64TYBgYF4euE2AYNAQQMELo2FKTuhZKXxlpwmF8RLBIPAsgJAQ==";
    let captured = Event::Captured {
        manifest: point(10),
        column_family: ColumnFamilyId::new(0),
        edit: EDIT.to_owned(),
        settings: None,
        files: Vec::new(),
        behind: false,
    };
    let begun = || {
        let mut s = Scene::new();
        s.session(0, 0).base(0, 1, 0).put(7).put(7).ingested(10, 1, Some(2)).look(40, 50);
        s
    };
    // A base of the same session, with its floor behind the note that the file was kept.
    let mut s = begun();
    s.event(captured.clone()).look(60, 70);
    s.latest = 15;
    s.base(2, 10, 15).cut();
    assert_eq!(summary(s.plan(&to_time(50))), Ok((2, base(1), 15)));
    // A base of the next session, which begins there.
    let mut s = begun();
    s.event(captured).next_session(5, 15).base(2, 20, 15).cut();
    assert_eq!(summary(s.plan(&to_time(50))), Ok((2, base(1), 15)));
}

#[test]
fn what_may_have_come_before_a_session_or_in_it_is_neither_directly_before_its_start() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).put(1);
    // Whoever wrote this could not tell which of the two it was: the session names the last edit that had been read.
    s.family(ColumnFamilyChange::Added, 10, 1, Some(2)).session(10, 2).base(2, 10, 2).look(40, 50).put(1).cut();
    assert_eq!(summary(s.plan(&record(1))), Err(Code::TargetInsideEvent));
    assert_eq!(summary(s.plan(&to_time(50))), Ok((2, base(1), 2)), "behind the start it has certainly come");
    assert_eq!(summary(s.plan(&record(2))), Ok((3, base(1), 3)));
}

#[test]
fn an_archive_without_records_is_refused_in_words() {
    let e = Scene::empty().plan(&Target::Latest).unwrap_err();
    assert_eq!(e.code(), Code::TargetBeforeStart);
}

#[test]
fn a_run_is_only_served_by_its_own_bases() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).put(1).put(1);
    s.barrier(BarrierReason::RecordsMissing, 3, Some(3)).cut();
    // The new run archives WAL 12 from its beginning.
    s.run_started(1, 12).session(1, 9).put(1).put(1).base(3, 5, 9).put(1).cut();
    assert_eq!(summary(s.plan(&record(2))), Ok((3, base(0), 3)), "the end of the first run");
    let e = s.plan(&record(3)).unwrap_err();
    assert_eq!(e.code(), Code::TargetBehindBarrier, "before the new run's floor");
    assert_eq!(details(&e, "barrier"), ["records-missing"]);
    assert_eq!(details(&e, "nearest before"), ["--to-record 2"]);
    assert_eq!(details(&e, "nearest after"), ["--to-record 4"]);
    assert_eq!(summary(s.plan(&record(4))), Ok((5, base(1), 11)));
    assert_eq!(summary(s.plan(&Target::Latest)), Ok((6, base(1), 12)));
}

#[test]
fn a_new_run_without_records_is_the_latest_as_soon_as_it_has_a_base() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).put(1).cut();
    s.barrier(BarrierReason::ManifestMissed, 2, Some(2)).run_started(1, 20).cut();
    assert_eq!(summary(s.plan(&Target::Latest)), Err(Code::TargetBehindBarrier));
    s.base(2, 1, 77).cut();
    assert_eq!(summary(s.plan(&Target::Latest)), Ok((2, base(1), 77)));
    assert_eq!(summary(s.plan(&record(1))), Ok((2, base(0), 2)), "after that record is still the old run");
}

#[test]
fn a_time_in_which_records_went_missing_is_not_certain() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).look(10, 20).cut();
    s.barrier(BarrierReason::RecordsMissing, 1, Some(1)).run_started(1, 12).session(1, 9).base(1, 5, 9).look(20, 90);
    s.put(1).look(90, 100).cut();
    let plan = s.plan(&to_time(50)).unwrap();
    assert_eq!((plan.position.boundary, plan.distance.exact, plan.distance.micros), (b(1), false, Some(30)));
    assert_eq!(plan.time.to.map(|t| t.timestamp_micros()), Some(20), "the last look before");
    let plan = s.plan(&to_time(90)).unwrap();
    assert_eq!((plan.base.id, plan.distance.exact), (base(1), true), "where the new run begins");
}

#[test]
fn a_segment_without_a_look_leaves_it_to_the_next_one_until_when_a_state_is_certain() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).look(10, 20).cut().put(1).cut().put(1).look(40, 50).cut();
    let plan = s.plan(&to_time(30)).unwrap();
    assert_eq!((plan.position.boundary, plan.distance.exact), (b(1), true));
    assert_eq!(plan.time.to.map(|t| t.timestamp_micros()), Some(40), "when the look began that saw more");
}

#[test]
fn a_time_is_certain_up_to_what_came_without_a_record() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).look(10, 20).look(20, 30);
    s.family(ColumnFamilyChange::Added, 10, 1, Some(1)).look(30, 40).through(60).cut();
    let time = |target: &Target| s.plan(target).unwrap().time.to.map(|t| t.timestamp_micros());
    assert_eq!((time(&record(0)), time(&Target::Latest)), (Some(30), Some(60)));
}

#[test]
fn numbers_that_a_barrier_took_are_refused_and_their_neighbours_are_not() {
    let behind = Err(Code::TargetBehindBarrier);
    // Behind the beginning of a run, and inside one.
    let mut s = Scene::new();
    s.session(0, 2).base(0, 1, 2).jump(5).put_at(6, 1).base(1, 9, 6).put(1).cut();
    assert_eq!(summary(s.plan(&to_seq(2))), Ok((0, base(0), 2)));
    for lost in [3, 4, 5] {
        assert_eq!(summary(s.plan(&to_seq(lost))), behind, "{lost}");
    }
    assert_eq!(summary(s.plan(&to_seq(6))), Ok((1, base(1), 6)));
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(2).jump(9).put_at(10, 1).base(2, 9, 10);
    s.put(1).cut();
    assert_eq!(summary(s.plan(&to_seq(2))), Ok((1, base(0), 2)));
    let e = s.plan(&to_seq(5)).unwrap_err();
    assert_eq!(
        (e.code(), details(&e, "known before"), details(&e, "known again from")),
        (Code::TargetBehindBarrier, vec!["2".into()], vec!["9".into()])
    );
    assert_eq!(summary(s.plan(&to_seq(10))), Ok((2, base(1), 10)));
    // Between two runs.
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(2).barrier(BarrierReason::RecordsMissing, 1, Some(1)).cut();
    s.run_started(1, 12).session(1, 9).base(1, 5, 9).put(1).cut();
    assert_eq!(summary(s.plan(&to_seq(2))), Ok((1, base(0), 2)));
    assert_eq!(summary(s.plan(&to_seq(5))), behind);
    assert_eq!(summary(s.plan(&to_seq(9))), Ok((1, base(1), 9)));
}

#[test]
fn a_number_of_an_ingested_file_is_no_record_s() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(2).ingested(10, 1, Some(1)).put_at(5, 1).cut();
    let plan = s.plan(&to_seq(3)).unwrap();
    assert_eq!((plan.position.boundary, plan.distance.exact, plan.distance.sequences), (b(1), false, Some(1)));
    assert!(plan.distance.text.contains("given to no record"), "{}", plan.distance.text);
}

#[test]
fn a_base_whose_copy_ends_behind_its_floor_does_not_serve_what_lies_directly_before_the_floor() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).put(1).look(10, 20);
    // What was ingested has happened by the floor; whether it had when the second record was written, nobody knows.
    s.ingested(10, 1, None).base(2, 20, 2).look(30, 40).put(1).cut();
    assert_eq!(summary(s.plan(&record(1))), Err(Code::TargetInsideEvent));
    assert_eq!(summary(s.plan(&to_time(40))), Ok((2, base(1), 2)), "the floor itself");
    assert_eq!(summary(s.plan(&record(2))), Ok((3, base(1), 3)));
}

#[test]
fn a_sequence_number_directly_before_a_commit_of_unknown_effect_is_found() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).put(1).barrier(BarrierReason::TwoPhaseCommit, 2, Some(2));
    s.commit_of_unknown().put_at(9, 1).cut();
    assert_eq!(summary(s.plan(&to_seq(2))), Ok((2, base(0), 2)));
    assert_eq!(summary(s.plan(&to_seq(1))), Ok((1, base(0), 1)));
}

#[test]
fn a_base_does_not_have_what_ended_its_run() {
    let mut s = Scene::new();
    s.session(0, 0)
        .base(0, 1, 0)
        .put(1)
        .barrier(BarrierReason::ChangeOutsideWal, 1, Some(1))
        .put(1)
        .base(2, 9, 2)
        .cut();
    s.look(30, 40).barrier(BarrierReason::ManifestMissed, 2, Some(2)).run_started(1, 20).base(2, 1, 77).cut();
    assert_eq!(summary(s.plan(&record(1))), Ok((2, base(1), 2)), "the base before the missed changes");
    assert_eq!(summary(s.plan(&to_time(40))), Ok((2, base(1), 2)));
    assert_eq!(summary(s.plan(&Target::Latest)), Ok((2, base(2), 77)));
}

#[test]
fn column_families_created_before_the_target_are_appended_and_later_ones_are_not() {
    use ColumnFamilyChange::{Added, Dropped};
    let mut s = Scene::new();
    s.session(0, 0).base(0, 5, 0).put(1).put(1).put(1).put(1).put(1).put(1);
    s.family(Added, 3, 0, Some(0)).family(Added, 10, 1, Some(2)).family(Dropped, 11, 4, Some(6)).cut();
    let edits = |target: u64| {
        s.plan(&record(target - 1))
            .map(|p| p.column_families.iter().map(|e| e.manifest.offset).collect::<Vec<_>>())
            .map_err(|e| e.code())
    };
    assert_eq!(edits(1), Ok(vec![]), "offset 3 is in the base already");
    assert_eq!(edits(2), Ok(vec![10]));
    assert_eq!(edits(4), Ok(vec![10]));
    assert_eq!(edits(5), Err(Code::TargetInsideEvent));
    assert_eq!(edits(6), Ok(vec![10, 11]), "both, so that the id is never used again");
}

#[test]
fn a_base_that_holds_a_column_family_edit_serves_positions_inside_the_edit_s_interval() {
    let mut s = Scene::new();
    s.session(0, 0).put(1).put(1).base(0, 20, 0).put(1);
    s.family(ColumnFamilyChange::Added, 10, 1, None).cut();
    assert_eq!(summary(s.plan(&record(2))), Ok((3, base(0), 3)));
    assert!(s.plan(&record(2)).unwrap().column_families.is_empty());
}

#[test]
fn an_interval_that_is_closed_later_counts_with_its_end() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 5, 0).put(1).put(1).family(ColumnFamilyChange::Added, 10, 1, None).put(1).cut();
    assert_eq!(summary(s.plan(&record(2))), Err(Code::TargetInsideEvent));
    let manifest = s.stream().families[0].manifest;
    s.event(Event::IntervalClosed { manifest, hi: b(3) }).cut();
    assert_eq!(s.plan(&record(2)).unwrap().column_families.len(), 1);
    assert_eq!(summary(s.plan(&record(1))), Err(Code::TargetInsideEvent));
}

#[test]
fn a_target_behind_withdrawn_records_goes_to_the_last_record_before_them() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).put(1).put(1).put(1).withdraw(2, 4).wal(11);
    s.put_at(3, 1).put(1).cut();
    let plan = s.plan(&record(3)).unwrap();
    assert_eq!((plan.position.boundary, plan.position.sequence, plan.distance.records), (b(2), seq(2), 2));
    assert!(!plan.distance.exact && plan.distance.text.contains("took back"), "{}", plan.distance.text);
    assert_eq!(summary(s.plan(&to_seq(3))), Ok((5, base(0), 3)), "withdrawn numbers are not looked at");
    let plan = s.plan(&Target::Latest).unwrap();
    assert_eq!(plan.withdrawn, [(b(2), b(4))]);
    assert_eq!(plan.position.sequence, seq(4));
}

#[test]
fn what_lies_behind_the_note_of_a_withdrawal_is_not_moved_before_it() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).put(1).put(1).tag("failed").withdraw(2, 3);
    s.barrier(BarrierReason::Fork, 3, Some(3)).run_started(1, 20).session(1, 2).base(3, 1, 2).cut();
    // The record itself, and a tag set while it stood, go to the record before.
    for target in [record(2), Target::tag("failed")] {
        let plan = s.plan(&target).unwrap();
        assert_eq!(
            (plan.position.boundary, plan.base.floor.boundary, plan.distance.records),
            (b(2), b(0), 1),
            "{target}"
        );
    }
    // The end of the archive is in the next run, and so is a tag that was set there.
    assert_eq!(summary(s.plan(&Target::Latest)), Ok((3, base(1), 2)));
    s.tag("after").cut();
    assert_eq!(summary(s.plan(&Target::tag("after"))), Ok((3, base(1), 2)));
}

#[test]
fn a_time_resolves_to_the_last_observation_at_or_before_it_with_the_certain_interval() {
    let s = simple();
    // Records become visible between n * 100 and n * 100 + 10.
    for (at, expected) in [
        (10, Ok((1, base(0), 1))),
        (9, Err(Code::TargetBeforeStart)),
        (109, Ok((1, base(0), 1))),
        (110, Ok((2, base(0), 2))),
        (555, Ok((6, base(1), 6))),
        (910, Ok((10, base(1), 10))),
        (2_000, Ok((10, base(1), 10))),
        (2_001, Err(Code::TargetAfterEnd)),
    ] {
        assert_eq!(summary(s.plan(&to_time(at))), expected, "{at}");
    }
    let plan = s.plan(&to_time(350)).unwrap();
    let micros = |t: Option<DateTime<chrono::Utc>>| t.map(|t| t.timestamp_micros());
    assert_eq!((micros(plan.time.from), micros(plan.time.to)), (Some(310), Some(400)));
    assert!(plan.distance.exact);
    let plan = s.plan(&to_time(405)).unwrap();
    assert_eq!((plan.position.boundary, plan.distance.exact, plan.distance.micros), (b(4), false, Some(95)));
    let plan = s.plan(&Target::Latest).unwrap();
    assert_eq!((micros(plan.time.from), micros(plan.time.to)), (Some(910), Some(2_000)), "heartbeats count");
}

#[test]
fn a_tag_is_compared_by_its_running_hash() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).put(1).tag("before").put(1).cut();
    assert_eq!(summary(s.plan(&Target::tag("before"))), Ok((2, base(0), 2)));
    s.tag.as_mut().unwrap().position.hash.0[0] ^= 1;
    assert_eq!(summary(s.plan(&Target::tag("before"))), Err(Code::ChainBroken));
    s.tag = None;
    assert_eq!(summary(s.plan(&Target::tag("before"))), Err(Code::TagUnknown));
}

#[test]
fn a_tag_where_a_run_ends_belongs_to_the_run_it_was_made_in() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).put(1).tag("old").cut();
    s.barrier(BarrierReason::ManifestMissed, 2, Some(2)).run_started(1, 20).base(2, 1, 77).cut();
    assert_eq!(summary(s.plan(&Target::tag("old"))), Ok((2, base(0), 2)));
    s.tag("new").cut();
    assert_eq!(summary(s.plan(&Target::tag("new"))), Ok((2, base(1), 77)));
}

#[test]
fn a_base_that_is_not_of_this_stream_is_refused() {
    let mut s = simple();
    s.bases[1].first_hash.0[0] ^= 1;
    assert_eq!(summary(s.plan(&record(8))), Err(Code::ChainBroken));
}

#[test]
fn two_phase_commit_is_refused_by_the_barrier_before_its_record() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(1).barrier(BarrierReason::TwoPhaseCommit, 1, Some(1)).prepare().put(1).cut();
    assert_eq!(summary(s.plan(&record(0))), Ok((1, base(0), 1)));
    assert_eq!(summary(s.plan(&record(1))), Err(Code::TargetUnsupported));
    assert_eq!(summary(s.plan(&to_seq(1))), Err(Code::TargetUnsupported));
}

#[test]
fn a_timeline_that_left_another_keeps_what_may_have_changed_before_and_was_noticed_there() {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(3).put(1).put(1).ingested(5, 2, None).barrier(BarrierReason::Reuse, 2, Some(2));
    s.put(1).cut();
    let kept: Vec<_> = s.stream_until(3).barriers.iter().map(|barrier| barrier.reason).collect();
    assert_eq!(kept, [BarrierReason::ChangeOutsideWal]);
    let mut s = Scene::new();
    s.session(0, 0).base(0, 1, 0).put(3).put(1).put(1).ingested(5, 3, None).put(1).cut();
    assert!(s.stream_until(3).barriers.is_empty(), "it came behind that place");
}
