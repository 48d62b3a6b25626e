//! Two-phase commit: what is prepared at the target is prepared in the copy, wherever bases and edges lie.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::path::Path;

use harness::{
    driver::BROKEN,
    program::{ArchiverStep, End, Op, Settings, Step},
    scenario::Scenario,
    server::{self, Places},
    transactions::TransactionDb,
};
use pitr_archive::{Code, rocks::write_batch::WritePolicy, segment::entry::BarrierReason};
use pitr_replayer::{
    plan::{NoteKind, RestorePlan},
    restore::Finish,
};

/// Not a test of its own: the process that the others kill.
#[test]
fn database_process() {
    harness::server::serve_if_asked();
}

fn settings(policy: WritePolicy) -> Settings {
    Settings { transactions: Some(policy), allow_2pc: true, without_merge_operator: true, ..Settings::default() }
}

fn put(key: &str, value: &str) -> Op {
    Op::Put("default".to_owned(), key.into(), value.into())
}

fn prepare(name: &str, keys: &[&str]) -> Step {
    Step::Prepare(name.to_owned(), keys.iter().map(|key| put(key, name)).collect())
}

fn open(story: &Scenario, dir: &Path, places: &Places) -> TransactionDb {
    let settings = &story.driver.settings;
    TransactionDb::open(dir, &server::database_options(places, settings), settings, settings.transactions.unwrap())
        .unwrap()
}

fn keys(db: &TransactionDb) -> Vec<String> {
    db.dump().unwrap()["default"].iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect()
}

fn pending(plan: &RestorePlan) -> Vec<(&str, u64)> {
    plan.pending.iter().map(|t| (t.name.as_str(), t.operations)).collect()
}

#[test]
fn what_is_pending_at_the_target_can_be_committed_or_rolled_back_in_the_copy_also_when_the_restore_recovered_it() {
    let mut story = Scenario::new(&settings(WritePolicy::WriteCommitted));
    story.archive(ArchiverStep::Poll);
    story.base();
    story.put("before", "1");
    story.step(prepare("first", &["a", "b"]));
    story.step(prepare("second", &["c"]));
    // A segment's edge, a flush, a base and a reopen inside both transactions.
    story.archive(ArchiverStep::Ship);
    story.step(Step::Flush(None));
    let inside = story.base();
    story.put("between", "1");
    story.step(Step::Reopen(End::Killed));
    story.put("after", "1");
    story.step(Step::Commit("second".to_owned()));
    story.archive(ArchiverStep::Ship);
    for base in [None, Some(&inside.id)] {
        for finish in [Finish::Leave, Finish::Recover] {
            let plan = story.plan(5, base).unwrap();
            assert_eq!(pending(&plan), [("first", 2), ("second", 1)]);
            assert_eq!(plan.write_policy, Some(WritePolicy::WriteCommitted));
            assert!(plan.notes.iter().any(|note| note.kind == NoteKind::PendingTransactions));
            let (dir, places) = story.lay_down_and(&plan, finish).unwrap();
            {
                let mut db = open(&story, &dir, &places);
                assert_eq!(db.latest_sequence(), plan.position.sequence.get());
                assert_eq!(
                    (db.pending(), keys(&db)),
                    (vec!["first".into(), "second".into()], vec!["after".into(), "before".into(), "between".into()])
                );
                db.commit("first").unwrap();
                db.roll_back("second", &[]).unwrap();
            }
            let db = open(&story, &dir, &places);
            assert_eq!((db.pending(), keys(&db).join(" ")), (Vec::new(), "a after b before between".to_owned()));
        }
    }
    let plan = story.plan(6, None).unwrap();
    assert_eq!(pending(&plan), [("first", 2)], "the other one is committed");
    story.check_everything();
}

#[test]
fn a_commit_of_what_was_prepared_before_the_archive_began_is_refused_until_a_base_lies_behind_it() {
    let mut story = Scenario::new(&settings(WritePolicy::WriteCommitted));
    story.step(Step::Create("other".to_owned()));
    story.step(prepare("early", &["a", "b"]));
    story.put("x", "1");
    story.step(Step::Flush(Some("default".to_owned())));
    // The commit lies in a log that `other` still needs; what it commits is flushed, and the log with the prepare section
    // is given up.
    story.put_in("other", "o", "1");
    story.step(Step::Commit("early".to_owned()));
    story.step(Step::Flush(Some("default".to_owned())));
    story.archive(ArchiverStep::Poll);
    story.put("y", "1");
    let (_, catalog) = {
        story.archive(ArchiverStep::Ship);
        story.catalog()
    };
    let barriers: Vec<_> = catalog.current_timeline().unwrap().barriers().iter().map(|b| b.reason).collect();
    // Behind it nobody can tell which number is due.
    assert_eq!(barriers, [BarrierReason::TwoPhaseCommit, BarrierReason::SequenceJump]);
    story.step(Step::Flush(None));
    story.put("z", "1");
    let base = story.base();
    let records = base.floor.boundary.get();
    let refused = story.plan(records - 1, None).unwrap_err();
    assert!(matches!(refused.code(), Code::TargetUnsupported | Code::TargetBeforeStart), "{refused}");
    let plan = story.plan(records, None).unwrap();
    let (dir, places) = story.lay_down(&plan).unwrap();
    let db = open(&story, &dir, &places);
    assert_eq!(keys(&db).join(" "), "a b x y z");
    assert_eq!(db.latest_sequence(), plan.position.sequence.get());
}

#[test]
fn prepared_transactions_that_rocksdb_itself_loses_are_never_replayed() {
    let mut story = Scenario::new(&Settings { pipelined: true, ..settings(WritePolicy::WriteCommitted) });
    story.archive(ArchiverStep::Poll);
    story.base();
    story.put("before", "1");
    story.step(prepare("lost", &["a"]));
    story.archive(ArchiverStep::Ship);
    assert!(story.plan(1, None).is_ok());
    assert_eq!(story.plan(2, None).unwrap_err().code(), Code::TargetUnsupported);
    story.put("x", "1");
    story.step(Step::Flush(None));
    story.step(Step::Commit("lost".to_owned()));
    assert!(story.driver.content()["default"].contains_key(&b"a"[..]), "it is committed");
    // Not a step of the story: the model is right, and RocksDB is not.
    let mut copy = story.driver.model.content()["default"].as_ref().clone();
    let found = story.driver.content_after_a_kill();
    assert_ne!(found["default"].as_ref(), &copy, "RocksDB has learnt to keep it: lift the refusal");
    copy.remove(&b"a"[..]);
    assert_eq!(found["default"].as_ref(), &copy);
}

#[test]
fn a_restore_does_not_recover_what_only_the_server_s_own_policy_can() {
    for policy in [WritePolicy::WritePrepared, WritePolicy::WriteUnprepared] {
        let mut story = Scenario::new(&settings(policy));
        story.archive(ArchiverStep::Poll);
        story.base();
        story.step(prepare("pending", &["a"]));
        story.put("b", "1");
        story.archive(ArchiverStep::Ship);
        let plan = story.plan(2, None).unwrap();
        assert_eq!(pending(&plan), [("pending", 1)]);
        let refused = story.lay_down_and(&plan, Finish::Recover).unwrap_err();
        assert_eq!(refused.code(), Code::DatabaseUnsupported, "{refused}");
        let (dir, places) = story.lay_down(&plan).unwrap();
        let mut db = open(&story, &dir, &places);
        assert_eq!((db.pending(), keys(&db)), (vec!["pending".to_owned()], vec!["b".to_owned()]));
        db.commit("pending").unwrap();
        assert_eq!(keys(&db), ["a", "b"]);
    }
}

#[test]
fn what_recovery_would_show_of_a_pending_transaction_is_refused_and_rocksdb_shows_it_without_us() {
    for policy in [WritePolicy::WritePrepared, WritePolicy::WriteUnprepared] {
        let mut story = Scenario::new(&settings(policy));
        story.archive(ArchiverStep::Poll);
        story.base();
        story.put("before", "1");
        let ops = vec![put("k", "1"), put("k", "2"), put("k", "3"), put("other", "1")];
        story.step(Step::Prepare("thrice".to_owned(), ops));
        story.archive(ArchiverStep::Ship);
        assert_eq!(story.restore(1, None).unwrap().text("default"), "before=1");
        let refused = story.plan(2, None).unwrap_err();
        assert_eq!(refused.code(), Code::TargetUnsupported, "{refused}");
        story.step(Step::Flush(None));
        story.step(Step::Reopen(End::Killed));
        assert!(story.driver.noted.contains(BROKEN), "RocksDB counts the parts rightly now: the refusal can go");
    }
}
