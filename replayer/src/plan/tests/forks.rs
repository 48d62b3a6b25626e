//! Places behind a fork or lost segments, where a run begins.

use pitr_archive::{Code, ids::ColumnFamilyId, segment::entry::Event};

use super::{
    base, record,
    scene::{Scene, point},
    summary,
};
use crate::target::Target;

#[test]
fn below_a_fork_the_parent_s_bases_serve_also_where_the_beginning_of_their_run_was_deleted() {
    // Every timeline counts its own runs: the child's first one has the number of the parent's first, too.
    for run in [0, 1] {
        let mut s = Scene::empty();
        s.run_started(run, 10).session(1, 0).put(1).put(1).put(1).cut();
        s.wal(11).put(1).put(1).cut();
        s.wal(12).base(5, 2, 5).put(1).put(1).put(1).cut();
        s.fork(20).session(3, 8).base(8, 4, 8).put(1).put(1).cut();
        s.prune_parent(0..1);
        let plan = |n| summary(s.plan_on_child(&record(n)));
        assert_eq!(plan(5), Ok((6, base(0), 6)), "run {run}: a place of the parent's, from the parent's base");
        assert_eq!(plan(7), Ok((8, base(0), 8)), "run {run}: directly before the fork");
        assert_eq!(plan(9), Ok((10, base(1), 10)), "run {run}: the child's own");
        assert_eq!(plan(3), Err(Code::TargetBeforeStart), "run {run}: before every floor that is left");
    }
}

#[test]
fn a_child_s_base_serves_where_the_parent_was_deleted_up_to_the_fork_also_one_whose_records_begin_there() {
    // Behind what is kept of the parent for a tag lies a hole; the first kept segment can be none.
    for (first, deleted) in [(8, 0..2), (9, 0..2), (8, 1..2), (9, 1..2)] {
        let mut s = Scene::empty();
        s.run_started(0, 10).session(1, 0).put(1).put(1).put(1).cut();
        s.wal(11).put(1).put(1).put(1).put(1).put(1).cut();
        s.fork(20).session(3, 8).put(1).put(1).base(first, 4, 10).put(1).cut();
        s.prune_parent(deleted.clone());
        let plan = |n| summary(s.plan_on_child(&record(n)));
        assert_eq!(plan(10), Ok((11, base(0), 11)), "records from {first} on, {deleted:?} deleted");
        assert_eq!(plan(8), Err(Code::TargetBeforeStart), "before its floor, {deleted:?} deleted");
    }
}

#[test]
fn a_tag_at_the_fork_itself_is_the_child_s_or_the_parent_s_by_its_hash() {
    for deleted in [0..0, 0..2, 1..2] {
        let mut s = Scene::empty();
        s.run_started(0, 10).session(1, 0).base(0, 1, 0).put(1).put(1).put(1).cut();
        s.wal(11).put(1).put(1).put(1).put(1).put(1).cut();
        s.fork(20).session(3, 8).base(8, 4, 8).tag("after the fork").put(1).cut();
        s.prune_parent(deleted.clone());
        let tag = Target::tag("after the fork");
        assert_eq!(summary(s.plan_on_child(&tag)), Ok((8, base(1), 8)), "{deleted:?} deleted");
    }
}

#[test]
fn a_base_of_the_parent_s_further_life_at_the_fork_itself_is_not_the_child_s() {
    let mut s = Scene::empty();
    s.run_started(0, 10).session(1, 0).base(0, 1, 0).put(1).put(1).put(1).cut();
    let fork = s.position();
    s.session(2, 3).base(3, 4, 3).cut();
    // Before the child has a segment of its own, and behind it.
    s.fork_at(fork, 20);
    assert_eq!(summary(s.plan_on_child(&record(2))), Ok((3, base(0), 3)));
    s.session(3, 3).put(1).cut();
    assert_eq!(summary(s.plan_on_child(&record(2))), Ok((3, base(0), 3)));
}

#[test]
fn so_it_is_where_one_segment_holds_both_lives_whatever_the_parent_did_next() {
    let captured = || Event::Captured {
        manifest: point(4),
        column_family: ColumnFamilyId::DEFAULT,
        edit: String::new(),
        files: Vec::new(),
        behind: false,
        settings: None,
    };
    let lives: [&dyn Fn(&mut Scene); 3] = [
        &|s| _ = s.ingested(4, 3, None).event(captured()),
        // Which only tells of what was before, but is not of the child's chain.
        &|s| _ = s.event(captured()),
        &|s| _ = s.session(4, 3).event(captured()),
    ];
    for (n, further) in lives.into_iter().enumerate() {
        let mut s = Scene::empty();
        s.run_started(0, 10).session(1, 0).base(0, 1, 0).put(1).put(1).put(1);
        let fork = s.position();
        further(&mut s);
        s.base(3, 5, 3).cut();
        s.fork_at(fork, 20).session(3, 3).put(1).cut();
        assert_eq!(summary(s.plan_on_child(&record(2))), Ok((3, base(0), 3)), "life {n}");
    }
}

#[test]
fn a_run_that_begins_right_behind_lost_segments_serves_and_one_whose_beginning_is_lost_with_them_does_not() {
    // The second run's first segment holds its beginning; a barrier ends the first one.
    let mut s = Scene::empty();
    s.run_started(0, 10).session(1, 0).base(0, 1, 0).put(1).put(1).cut();
    s.put(1).put(1).cut();
    s.run_started(1, 20).session(2, 4).base(4, 2, 4).put(1).put(1).cut();
    s.put(1).cut();
    let after_losing = |lost, at| {
        let (plan, windows) = s.after_losing(lost, &record(at));
        (summary(plan), windows)
    };
    let windows = |windows: &[(u64, u64)]| windows.to_vec();
    assert_eq!(after_losing(1, 6), (Ok((7, base(1), 7)), windows(&[(0, 2), (4, 7)])), "it begins behind the hole");
    assert_eq!(after_losing(1, 1), (Ok((2, base(0), 2)), windows(&[(0, 2), (4, 7)])), "before the hole");
    let (plan, windows) = after_losing(2, 6);
    assert!(plan.is_err() && windows == [(0, 4)], "{plan:?} {windows:?}");
}
