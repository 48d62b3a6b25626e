//! Every case that broke reasoning by sequence numbers when RocksDB was studied, as a promise of its own.
//!
//! Each was seen to produce a database that opens without an error, with the right latest sequence number, and with a
//! key missing or back from the dead.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use harness::{
    program::{ArchiverStep, End, Op, Settings, Step},
    scenario::Scenario,
    server::{self, Places},
};
use pitr_archive::{Code, clock::Micros, ids::Nonce, restore_marker};
use pitr_replayer::{
    plan::NoteKind,
    progress::Silent,
    restore::{RestoreOptions, restore},
};
use rocksdb::{Cache, DB, DBPath, Env, Options};

/// Not a test of its own: the process that the others kill.
#[test]
fn database_process() {
    harness::server::serve_if_asked();
}

/// put a@1, put b@2, SingleDelete b@3, flush: nothing is left of b, and the MANIFEST's last sequence is 1.
fn two_puts_and_a_single_delete(story: &mut Scenario) {
    story.put("a", "1");
    story.put("b", "1");
    story.single_delete("b");
    story.step(Step::Flush(None));
}

#[test]
fn a_base_after_a_flush_that_lost_keys_has_its_floor_at_the_log_s_end_not_at_the_manifest_s_last_sequence() {
    let mut story = Scenario::new(&Settings::default());
    story.archive(ArchiverStep::Poll);
    two_puts_and_a_single_delete(&mut story);
    let base = story.base();
    assert_eq!((base.floor.boundary.get(), base.floor.sequence.get()), (3, 3), "the floor is after the single delete");
    assert_eq!(base.last_sequence.get(), 1, "what RocksDB recovers from the files alone");
    // A base with its floor at sequence 1 would answer for 2, and open without b.
    for records in [1, 2] {
        let refused = story.restore(records, Some(&base.id)).err().expect("below the floor");
        assert_eq!(refused.code(), Code::TargetBeforeStart, "{refused}");
    }
    let copy = story.restore(3, Some(&base.id)).unwrap();
    assert_eq!((copy.text("default").as_str(), copy.sequence), ("a=1", 3));
    story.check_everything();
}

#[test]
fn a_clean_reopen_that_lowers_the_sequence_number_keeps_every_position_restorable() {
    let mut story = Scenario::new(&Settings::default());
    story.archive(ArchiverStep::Poll);
    let empty = story.base();
    two_puts_and_a_single_delete(&mut story);
    story.step(Step::Reopen(End::Clean));
    assert_eq!(story.driver.model.present().sequence, 1, "RocksDB still lowers it; else this test proves nothing");
    story.archive(ArchiverStep::WantedBase);
    story.put("z", "z");
    assert_eq!(story.driver.model.present().sequence, 2, "the number of b is used again");
    story.archive(ArchiverStep::Ship);
    let before = story.restore(2, Some(&empty.id)).unwrap();
    assert_eq!((before.text("default").as_str(), before.sequence), ("a=1 b=1", 2));
    let after = story.restore(4, None).unwrap();
    assert_eq!((after.text("default").as_str(), after.sequence), ("a=1 z=z", 2));
    story.check_everything();
}

#[test]
fn a_deleted_key_does_not_come_back_through_an_ingestion_at_sequence_zero() {
    let mut story = Scenario::new(&Settings::default());
    story.archive(ArchiverStep::Poll);
    let old = story.base();
    story.put("k", "old");
    story.delete("k");
    story.step(Step::Flush(None));
    story.step(Step::Compact("default".to_owned()));
    story.step(Step::Ingest("default".to_owned(), vec![(b"k".to_vec(), b"ing".to_vec())]));
    assert_eq!(story.driver.model.present().sequence, 2, "the ingestion took no sequence number: no gap tells of it");
    story.delete("k");
    story.archive(ArchiverStep::Ship);
    // The old base knows nothing of the ingested file: from it, the positions from there on are out of reach.
    assert_eq!(story.restore(1, Some(&old.id)).unwrap().text("default"), "k=old");
    let refused = story.restore(3, Some(&old.id)).err().expect("behind the ingestion");
    assert_eq!(refused.code(), Code::TargetBehindBarrier, "{refused}");
    let new = story.base();
    let copy = story.restore(3, Some(&new.id)).unwrap();
    assert_eq!((copy.text("default").as_str(), copy.sequence), ("", 3));
    story.check_everything();
}

#[test]
fn dropping_a_flushed_column_family_lowers_the_sequence_number_and_is_restored_on_both_sides() {
    let mut story = Scenario::new(&Settings::default());
    story.step(Step::Create("alpha".to_owned()));
    story.archive(ArchiverStep::Poll);
    let base = story.base();
    story.put("a", "1");
    for i in 0..5 {
        story.put_in("alpha", &format!("k{i}"), "v");
    }
    story.step(Step::Drop("alpha".to_owned()));
    story.step(Step::Flush(None));
    story.step(Step::Reopen(End::Clean));
    assert_eq!(story.driver.model.present().sequence, 1, "RocksDB still lowers it; else this test proves nothing");
    story.archive(ArchiverStep::WantedBase);
    story.put("b", "2");
    story.archive(ArchiverStep::Ship);
    let before = story.restore(5, Some(&base.id)).unwrap();
    assert_eq!((before.text("alpha").as_str(), before.sequence), ("k0=v k1=v k2=v k3=v", 5));
    let after = story.restore(7, None).unwrap();
    assert_eq!((after.text("alpha").as_str(), after.text("default").as_str()), ("no such column family", "a=1 b=2"));
    assert_eq!(after.sequence, 2);
    story.check_everything();
}

/// Session 1: a, base, b, q, both single-deleted, flush. Session 2 uses the numbers again.
fn replay_across_a_reopen(second_session: Vec<Step>) {
    let mut story = Scenario::new(&Settings::default());
    story.archive(ArchiverStep::Poll);
    story.put("a", "1");
    let old = story.base();
    story.put("b", "old");
    story.put("q", "1");
    story.single_delete("q");
    story.single_delete("b");
    story.step(Step::Flush(None));
    story.step(Step::Reopen(End::Clean));
    assert_eq!(story.driver.model.present().sequence, 1, "RocksDB still lowers it; else this test proves nothing");
    story.archive(ArchiverStep::WantedBase);
    let open = story.newest_base();
    assert_ne!(open.id, old.id, "the open of the server was followed by a base");
    assert_eq!(open.floor.boundary.get(), 5, "its floor is the end of the session before");
    for step in second_session {
        story.step(step);
    }
    story.archive(ArchiverStep::Ship);
    let end = story.driver.model.records.len() as u64;
    let expected = story.driver.model.present().clone();
    // From the old base, both sessions replayed open without an error, with the right number, and without b.
    for records in 6..=end {
        let refused = story.restore(records, Some(&old.id)).err().expect("the old base cannot cross the reopen");
        assert_eq!(refused.code(), Code::TargetBehindBarrier, "{refused}");
    }
    let copy = story.restore(end, None).unwrap();
    assert_eq!(
        (copy.content, copy.sequence),
        (expected.content, expected.sequence),
        "the open's base restores exactly"
    );
    assert_eq!(story.restore(3, Some(&old.id)).unwrap().text("default"), "a=1 b=old q=1");
    assert_eq!(story.restore(5, Some(&open.id)).unwrap().text("default"), "a=1");
    story.check_everything();
}

fn put(key: &str, value: &str) -> Op {
    Op::Put("default".to_owned(), key.into(), value.into())
}

#[test]
fn replay_across_a_reopen_is_refused_and_the_base_of_the_open_restores_exactly_with_small_batches() {
    let batches = [("x", "1"), ("b", "new"), ("y", "1")].map(|(k, v)| Step::Write(vec![put(k, v)]));
    replay_across_a_reopen(batches.into());
}

#[test]
fn replay_across_a_reopen_is_refused_and_the_base_of_the_open_restores_exactly_with_a_big_batch() {
    let ops = [("x", "1"), ("b", "new"), ("y", "1"), ("z", "1"), ("zz", "1")].map(|(k, v)| put(k, v));
    replay_across_a_reopen(vec![Step::Write(ops.into())]);
}

/// The archiver takes the base of an open when it can, which can be long after the open: nothing that happened since
/// may be in it, or positions before would lack what was dropped later.
#[test]
fn a_base_of_an_open_that_comes_late_holds_nothing_of_what_happened_since() {
    let drop = |story: &mut Scenario| story.step(Step::DropFiles("default".to_owned(), b"a".to_vec(), b"z".to_vec()));
    let add = |story: &mut Scenario| {
        story.step(Step::Ingest("default".to_owned(), vec![(b"old".to_vec(), b"new".to_vec())]));
    };
    for change in [&drop as &dyn Fn(&mut Scenario), &add] {
        let mut story = Scenario::new(&Settings { avoid_flush_during_recovery: true, ..Settings::default() });
        story.put("old", "1");
        story.step(Step::Flush(None));
        story.step(Step::Compact("default".to_owned()));
        story.archive(ArchiverStep::Poll);
        story.base();
        two_puts_and_a_single_delete(&mut story);
        story.step(Step::Reopen(End::Clean));
        for key in ["r1", "r2", "r3"] {
            story.put(key, "v");
        }
        let before = story.driver.model.present().clone();
        // The first of all lies in a log that was given up before anybody watched.
        let records = story.driver.model.records.len() as u64 - 1;
        change(&mut story);
        assert_ne!(story.driver.model.present().content, before.content, "else this test proves nothing");
        story.put("r4", "v");
        story.archive(ArchiverStep::WantedBase);
        story.archive(ArchiverStep::Ship);
        match story.restore(records, None) {
            Ok(copy) => assert_eq!((copy.content, copy.sequence), (before.content, before.sequence)),
            Err(e) => assert_eq!(e.code(), Code::TargetBehindBarrier, "{e}"),
        }
        story.check_everything();
    }
}

#[test]
fn a_column_family_that_was_created_after_the_base_is_there_with_its_keys() {
    let mut story = Scenario::new(&Settings::default());
    story.archive(ArchiverStep::Poll);
    story.put("a", "1");
    let base = story.base();
    story.step(Step::Create("alpha".to_owned()));
    story.put_in("alpha", "n1", "1");
    story.put("b", "1");
    // Dropped and created again under the same name: another column family, without the old one's keys.
    story.step(Step::Drop("alpha".to_owned()));
    story.put("c", "1");
    story.step(Step::Create("alpha".to_owned()));
    story.put_in("alpha", "n2", "2");
    story.archive(ArchiverStep::Ship);
    let first = story.restore(2, Some(&base.id)).unwrap();
    assert_eq!((first.text("alpha").as_str(), first.sequence), ("n1=1", 2));
    let last = story.restore(5, Some(&base.id)).unwrap();
    assert_eq!((last.text("alpha").as_str(), last.text("default").as_str()), ("n2=2", "a=1 b=1 c=1"));
    assert_eq!(last.sequence, 5);
    story.check_everything();
}

#[test]
fn the_latest_sequence_number_is_that_of_the_source_even_where_no_file_and_no_record_holds_it() {
    let mut story = Scenario::new(&Settings::default());
    story.archive(ArchiverStep::Poll);
    two_puts_and_a_single_delete(&mut story);
    let base = story.base();
    let plan = story.plan(3, Some(&base.id)).unwrap();
    let (dir, _) = story.lay_down(&plan).unwrap();
    // RocksDB would recover 1 from these files.
    {
        let settings = story.driver.settings.clone();
        let opened = server::open(&dir, &Places::default(), &settings).unwrap();
        assert_eq!(opened.db.latest_sequence_number(), 3);
        opened.db.put("c", "1").unwrap();
        assert_eq!(opened.db.latest_sequence_number(), 4, "writes go on from there");
    }
    assert_eq!(story.open(&dir, &Places::default()).text("default"), "a=1 c=1");
}

/// Every file below a directory: size and contents.
/// What reached the files is not all that was committed, and a plan must not claim so.
#[test]
fn a_plan_says_when_the_server_keeps_committed_writes_to_itself() {
    for manual_wal_flush in [true, false] {
        let mut story = Scenario::new(&Settings { manual_wal_flush, ..Settings::default() });
        story.archive(ArchiverStep::Poll);
        story.put("a", "1");
        story.step(Step::Flush(None));
        story.put("b", "2");
        story.step(Step::Flush(None));
        story.base();
        story.archive(ArchiverStep::Ship);
        let plan = story.plan(2, None).unwrap();
        let said = plan.notes.iter().any(|note| note.kind == NoteKind::ObservedOnly);
        assert_eq!(said, manual_wal_flush, "{:?}", plan.notes);
    }
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_file() {
            found.insert(entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn a_restored_copy_is_used_while_the_source_runs_with_absolute_paths_and_the_source_is_unharmed() {
    let mut story = Scenario::new(&Settings { separate_wal_dir: true, db_paths: true, ..Settings::default() });
    story.archive(ArchiverStep::Poll);
    story.put("flushed", "1");
    story.step(Step::Flush(None));
    story.base();
    story.put("live", "1");
    story.archive(ArchiverStep::Ship);
    let plan = story.plan(2, None).unwrap();

    // Without a word where they shall go, directories outside the database are refused, and nothing is made.
    let (archive, _) = story.catalog();
    let into = story.root.path().join("unmapped");
    let options = RestoreOptions::new(&into, Nonce([2; 16]), Micros(0));
    let refused = story.archiver.wait(restore(&archive, &plan, &options, Arc::new(Silent))).unwrap_err();
    assert_eq!(refused.code(), Code::ForeignPath, "{refused}");
    assert!(!into.exists());

    let (dir, places) = story.lay_down(&plan).unwrap();
    let wals = story.driver.places.wals.clone().unwrap();
    let data = story.driver.places.data.clone().unwrap();
    let before = (files(&wals), files(&data), files(&story.driver.dir));
    assert!(before.0.keys().any(|name| name.ends_with(".log")) && before.1.keys().any(|name| name.ends_with(".sst")));
    // As a person would: with the copy's own OPTIONS, written to, flushed and closed, while the source runs.
    {
        let env = Env::new().unwrap();
        let (mut options, _) = Options::load_latest(&dir, env, true, Cache::new_lru_cache(1 << 20)).unwrap();
        // RocksDB does not write db_paths into OPTIONS: whoever opens it gives them.
        options.set_db_paths(&[DBPath::new(places.data.as_ref().unwrap(), 1 << 40).unwrap()]);
        let db = DB::open(&options, &dir).unwrap();
        assert_eq!(db.get("live").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(db.get("flushed").unwrap().as_deref(), Some(&b"1"[..]));
        for i in 0..100 {
            db.put(format!("copy {i}"), "1").unwrap();
        }
        db.flush().unwrap();
        db.compact_range(None::<&[u8]>, None::<&[u8]>);
    }
    let info_log = |files: &BTreeMap<String, Vec<u8>>| {
        files.iter().filter(|(name, _)| !name.starts_with("LOG")).map(|(n, b)| (n.clone(), b.clone())).collect()
    };
    let after = (files(&wals), files(&data), files(&story.driver.dir));
    assert_eq!(after.0, before.0, "the source's WALs");
    assert_eq!(after.1, before.1, "the source's data files");
    let (a, b): (BTreeMap<_, _>, BTreeMap<_, _>) = (info_log(&after.2), info_log(&before.2));
    assert_eq!(a, b, "the source's directory");
    assert!(places.wals.unwrap().exists() && places.data.unwrap().exists(), "the copy has directories of its own");
    // The source goes on, and a restart finds every acknowledged write.
    story.put("live2", "1");
    story.step(Step::Reopen(End::Killed));
    assert_eq!(story.driver.content()["default"].len(), 3);
    assert!(dir.join(restore_marker::FILE_NAME).exists(), "the copy says where it comes from");
}
