//! Writes that are not in the log, against a real database in this process: what is refused, what is crossed by
//! repeating an ingestion, and that a restored copy is the source's state in every way in which RocksDB can be asked.
//!
//! A wrong sequence number hides well: an iterator orders versions of a key by number, a point read stops at the first
//! level that has the key, and a compaction drops what the number says is older. Every copy is therefore read by both,
//! then compacted and read by both again.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;
#[path = "ingest/import.rs"]
mod import;
#[path = "ingest/random.rs"]
mod random;
#[path = "ingest/story.rs"]
mod story;

use pitr_archive::{Code, segment::entry::BarrierReason};
use pitr_replayer::plan::{CrossIngest, NoteKind};
use rocksdb::{IngestExternalFileOptions, Options};
use story::{Story, pairs};

/// Not a test of its own: the process that other test programs kill.
#[test]
fn database_process() {
    harness::server::serve_if_asked();
}

#[test]
fn the_deleted_key_does_not_come_back_when_an_ingestion_at_sequence_zero_is_repeated() {
    let mut story = Story::new();
    story.put("a", "stays");
    story.put("k", "old");
    story.delete("k");
    story.db().flush().unwrap();
    story.compact();
    // Nothing of the key is left in the source: the ingested one gets no number, and no gap tells of it.
    story.ingest("default", &[("k", "ingested")]);
    assert_eq!(story.db().latest_sequence_number(), 3, "else this test proves nothing");
    story.delete("k");
    story.put("other", "1");
    story.compact();
    // The copy still has the tombstone, at number 3: with a number of its own, the ingested key would take that of the
    // second delete.
    assert_eq!(story.crossed_from_the_first_base(), 9, "every moment is reached");
    story.refused_without_crossing(&[0, 1, 2, 3, 4]);
}

#[test]
fn an_older_value_does_not_come_back_where_ingested_keys_overlap() {
    let mut story = Story::new();
    story.put("k", "1");
    story.put("l", "1");
    story.ingest("default", &[("k", "ingested"), ("m", "ingested")]);
    assert_eq!(story.db().latest_sequence_number(), 3, "it has a number");
    story.delete("k");
    story.db().flush().unwrap();
    story.compact();
    story.put("m", "2");
    story.ingest("default", &[("k", "again"), ("l", "again")]);
    story.put("k", "2");
    story.delete("l");
    assert_eq!(story.crossed_from_the_first_base(), 10);
    story.refused_without_crossing(&[0, 1, 2]);
    let plan = story.plan(3, CrossIngest::Repeat).unwrap();
    assert_eq!((plan.ingestions.len(), plan.position.sequence.get()), (1, 3));
    assert!(plan.notes.iter().any(|note| note.kind == NoteKind::RepeatedIngestion));
}

#[test]
fn several_files_in_one_ingestion_and_several_column_families_keep_their_numbers() {
    let mut story = Story::new();
    story.create("alpha");
    story.put_in("alpha", "b", "1");
    story.put("b", "1");
    // Overlapping files of one ingestion each have a number.
    story.ingest_files("default", &[&[("a", "first"), ("c", "first")], &[("b", "second"), ("c", "second")]]);
    story.ingest("alpha", &[("b", "ingested"), ("z", "ingested")]);
    // No overlap with anything: no number.
    story.ingest("alpha", &[("x1", "quiet"), ("x2", "quiet")]);
    story.create("beta");
    story.put_in("beta", "p", "1");
    story.ingest("beta", &[("p", "ingested")]);
    story.db().flush().unwrap();
    story.put_in("beta", "p", "2");
    story.put_in("alpha", "x1", "2");
    story.drop_family("alpha");
    story.put("b", "2");
    assert!(story.crossed_from_the_first_base() >= 12);
}

#[test]
fn an_ingestion_between_two_records_that_were_read_together_is_placed_by_its_number() {
    let mut story = Story::new();
    story.quietly(|story| {
        story.put("k", "1");
        story.ingest("default", &[("k", "ingested")]);
        story.put("k", "2");
        story.delete("k");
        story.ingest("default", &[("k", "again")]);
        story.put("other", "1");
    });
    story.put("end", "1");
    story.delete("k");
    // Inside the interval nothing can be said, but behind it everything is known.
    let last = story.moments() - 1;
    let plan = story.plan(last, CrossIngest::Repeat).unwrap();
    let places: Vec<_> = plan.ingestions.iter().map(|one| (one.at.get(), one.sequence_after.get())).collect();
    let first = story.first_record();
    assert_eq!(places, [(first + 1, 2), (first + 3, 5)]);
    assert_eq!(story.crossed_from_the_first_base(), 3);
    assert_eq!(story.refusal_of_record(first + 1, CrossIngest::Repeat), Code::TargetInsideEvent);
}

#[test]
fn an_ingestion_without_a_number_is_placed_only_where_no_record_near_it_touches_its_keys() {
    let mut story = Story::new();
    story.quietly(|story| {
        story.put("a", "1");
        story.ingest("default", &[("m", "ingested"), ("n", "ingested")]);
        story.put("z", "1");
    });
    story.moment();
    story.put("m", "2");
    assert_eq!(story.db().latest_sequence_number(), 3, "no number");
    assert_eq!(story.crossed_from_the_first_base(), 3);
    assert_eq!(story.plan(2, CrossIngest::Repeat).unwrap().ingestions[0].at.get(), 0);

    let mut story = Story::new();
    story.quietly(|story| {
        story.put("a", "1");
        story.ingest("default", &[("m", "ingested"), ("p", "ingested")]);
        story.put("n", "between its keys");
    });
    story.moment();
    let refused = story.plan(story.moments() - 1, CrossIngest::Repeat).unwrap_err();
    assert_eq!(refused.code(), Code::TargetBehindBarrier);
    assert!(refused.to_string().contains("whether before or after"), "{refused}");
}

#[test]
fn an_ingestion_without_a_number_comes_behind_what_its_manifest_record_had_reached() {
    let mut story = Story::new();
    story.quietly(|story| {
        story.put("a", "1");
        story.put("b", "1");
        story.flush_family("default");
        story.create("alpha");
        story.ingest("alpha", &[("m", "ingested")]);
        story.put("z", "1");
    });
    story.moment();
    story.put_in("alpha", "m", "2");
    let last = story.moments() - 1;
    let plan = story.plan(last, CrossIngest::Repeat).unwrap();
    let places: Vec<_> = plan.ingestions.iter().map(|one| (one.at.get(), one.sequence_after.get())).collect();
    assert_eq!(places, [(story.first_record() + 2, 2)], "behind the records that were there before it");
    story.crossed_from_the_first_base();
}

#[test]
fn what_a_compaction_removes_after_the_manifest_was_read_is_captured_and_what_it_removed_before_is_not() {
    for watched in [true, false] {
        let mut story = Story::new();
        story.put("k", "1");
        let ingest = |story: &mut Story| {
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(true);
            story.ingest_with("default", &[("k", "ingested")], &options);
        };
        if watched {
            ingest(&mut story);
            story.compact();
        } else {
            story.quietly(|story| {
                ingest(story);
                story.compact();
            });
        }
        story.put("k", "2");
        let last = story.moments() - 1;
        if watched {
            story.crossed_from_the_first_base();
            story.plan(last, CrossIngest::Repeat).unwrap();
            continue;
        }
        let refused = story.plan(last, CrossIngest::Repeat).unwrap_err();
        assert_eq!(refused.code(), Code::TargetBehindBarrier);
        assert!(refused.to_string().contains("gone before it could be linked"), "{refused}");
    }
}

#[test]
fn an_archiver_that_dies_before_the_upload_finds_the_file_in_its_pins() {
    let mut story = Story::new();
    story.put("a", "1");
    story.quietly(|story| story.ingest("default", &[("k", "ingested")]));
    story.look_without_shipping();
    story.restart_archiver();
    story.moment();
    story.quietly(Story::compact);
    story.put("k", "2");
    story.crossed_from_the_first_base();
    assert!(story.plan(story.moments() - 1, CrossIngest::Repeat).is_ok());
    assert_eq!(story.table_pins(), 0, "what is acknowledged is not pinned any more");
}

#[test]
fn what_is_larger_than_the_limit_is_not_captured_and_the_barrier_says_so() {
    let mut story = Story::with(|config| config.capture_bytes = 100);
    story.ingest("default", &[("k", "ingested")]);
    story.put("k", "2");
    let refused = story.plan(story.moments() - 1, CrossIngest::Repeat).unwrap_err();
    assert_eq!(refused.code(), Code::TargetBehindBarrier);
    assert!(refused.to_string().contains("more than the limit of 100"), "{refused}");
    // A base behind it reaches everything, as without any of this.
    story.base();
    story.put("l", "1");
    story.reach(story.moments() - 1, None, CrossIngest::Refuse).unwrap();
}

/// A database whose files may be ingested below what is there.
fn that_ingests_behind() -> Story {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_allow_ingest_behind(true);
    options.set_compaction_style(rocksdb::DBCompactionStyle::Universal);
    Story::opened(&options, |_| {})
}

fn ingest_behind(story: &mut Story, keys: &[&str]) {
    let mut behind = IngestExternalFileOptions::default();
    behind.set_ingest_behind(true);
    let content: Vec<_> = keys.iter().map(|key| (*key, "behind")).collect();
    story.ingest_with("default", &content, &behind);
}

fn is_refused_as_below_what_was_there(story: &Story) {
    let refused = story.plan(story.moments() - 1, CrossIngest::Repeat).unwrap_err();
    assert_eq!(refused.code(), Code::TargetBehindBarrier);
    assert!(refused.to_string().contains("below what was there"), "{refused}");
}

#[test]
fn what_may_lie_below_older_keys_is_not_repeated() {
    let mut story = that_ingests_behind();
    story.put("k", "new");
    story.delete("l");
    story.db().flush().unwrap();
    ingest_behind(&mut story, &["k", "l", "m"]);
    assert_eq!(story.read("k"), Some("new".to_owned()));
    assert_eq!(story.read("l"), None, "a tombstone hides it");
    story.put("z", "1");
    is_refused_as_below_what_was_there(&story);
}

#[test]
fn what_may_lie_below_older_keys_is_not_repeated_when_a_later_session_forbids_it() {
    let mut story = that_ingests_behind();
    story.put("k", "new");
    story.db().flush().unwrap();
    story.quietly(|story| {
        ingest_behind(story, &["k", "m"]);
        story.reopen(|options| options.set_allow_ingest_behind(false));
    });
    story.put("z", "1");
    is_refused_as_below_what_was_there(&story);
}

#[test]
fn a_manifest_that_grew_too_large_twice_at_once_does_not_hide_what_came_behind_it() {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_max_manifest_file_size(1);
    let mut story = Story::opened(&options, |_| {});
    story.put("before", "1");
    // The number of a later file's epoch tells that it does not lie below what is there.
    story.db().flush().unwrap();
    story.quietly(|story| {
        story.put("a", "1");
        story.roll_manifest();
        story.roll_manifest();
        story.ingest("default", &[("m", "ingested")]);
        story.put("b", "1");
    });
    story.moment();
    let behind = story.first_record() + 3;
    for _ in 0..2 {
        // A record behind the ingestion that was read with it: both before the next log begins and afterwards.
        assert_eq!(story.refusal_of_record(behind - 1, CrossIngest::Repeat), Code::TargetInsideEvent);
        story.restart_archiver();
        story.put("c", "1");
        story.db().flush().unwrap();
        story.put("m", "2");
    }
    assert_eq!(story.barriers(), [BarrierReason::ChangeOutsideWal]);
    assert!(story.crossed_from_the_first_base() > 5);
}

#[test]
fn a_copy_with_repeated_ingestions_has_no_more_levels_than_its_server() {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_num_levels(4);
    let mut story = Story::opened(&options, |_| {});
    story.put("a", "1");
    story.ingest("default", &[("m", "ingested"), ("n", "ingested")]);
    story.put("m", "2");
    story.compact();
    story.ingest("default", &[("m", "again")]);
    assert_eq!(story.crossed_from_the_first_base(), 6);
}

#[test]
fn merges_in_a_column_family_that_is_younger_than_the_base_are_planned_only_with_its_settings() {
    let mut options = Options::default();
    options.set_merge_operator_associative("UInt64AddOperator", |_, _, operands| {
        operands.iter().last().map(<[u8]>::to_vec)
    });
    let mut story = Story::new();
    story.put("k", "1");
    story.ingest("default", &[("k", "ingested")]);
    story.create_with("sums", &options);
    story.add("sums", "a", 1);
    let refused = story.plan(story.moments() - 1, CrossIngest::Repeat).unwrap_err();
    assert_eq!(refused.code(), Code::TargetBehindBarrier);
    assert!(refused.to_string().contains("its operator is not known"), "{refused}");
    story.ingest("sums", &[("b", "ingested")]);
    story.plan(story.moments() - 1, CrossIngest::Repeat).unwrap();
}

#[test]
fn what_waits_for_its_upload_is_bounded_and_the_barrier_says_so() {
    let mut story = Story::with(|config| config.capture_bytes = 1500);
    story.quietly(|story| {
        for key in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
            story.ingest("default", &[(key, "ingested")]);
        }
    });
    story.moment();
    let details = story.details();
    let held = details.iter().filter(|detail| !detail.contains("not captured")).count();
    assert!((4..=8).contains(&held), "{details:?}");
    assert!(details[9].contains("wait for their upload"), "{details:?}");
    assert_eq!(story.table_pins(), 0, "nothing else stays pinned");
    story.ingest("default", &[("k", "ingested")]);
    assert!(!story.details()[10].contains("not captured"), "there is room again");
}

#[test]
fn what_can_never_be_crossed_is_not_captured() {
    let mut story = Story::new();
    story.put("k", "1");
    story.quietly(|story| import::import(story.db(), story.scratch(), "imported", &[("a", "1")]));
    story.look_without_shipping();
    story.moment();
    let details = story.details();
    assert!(details.iter().any(|detail| detail.contains("; not captured: file")), "{details:?}");
    story.put("k", "2");
    assert_eq!(story.table_pins(), 0);
}

#[test]
fn comparators_that_are_not_built_in_are_not_crossed() {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_comparator("pitr.test.order", Box::new(|a: &[u8], b: &[u8]| b.cmp(a)));
    let mut story = Story::opened(&options, |_| {});
    story.put("k", "1");
    story.ingest_keeping_order("default", &options, &[("k", "ingested")]);
    let refused = story.plan(story.moments() - 1, CrossIngest::Repeat).unwrap_err();
    assert_eq!(refused.code(), Code::TargetBehindBarrier);
    assert!(refused.to_string().contains("not built in"), "{refused}");
}

#[test]
fn an_imported_column_family_is_a_barrier_that_is_not_crossed_and_a_base_follows() {
    let mut story = Story::new();
    story.put("k", "1");
    story.quietly(|story| import::import(story.db(), story.scratch(), "imported", &[("a", "1"), ("b", "1")]));
    story.put("k", "2");
    assert!(story.barriers().contains(&BarrierReason::ChangeOutsideWal), "{:?}", story.barriers());
    let last = story.moments() - 1;
    let refused = story.plan(last, CrossIngest::Repeat).unwrap_err();
    assert_eq!(refused.code(), Code::TargetBehindBarrier);
    assert!(refused.to_string().contains("not made to be ingested"), "{refused}");
    let base = story.wanted_base().expect("a base follows");
    let behind = base.floor.boundary.get();
    let copy = story.copy_of_record(behind - 1);
    assert_eq!(pairs(&copy["imported"]), "a=1 b=1");
}

/// `PITR_FIRST` and `PITR_PROGRAMS` choose others.
#[test]
fn random_ingestions_among_random_writes_are_repeated_exactly_or_refused() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (first, programs): (u64, u64) = (number("PITR_FIRST", 1), number("PITR_PROGRAMS", 6));
    let (mut reached, mut refused, mut repeated) = (0, 0, 0);
    for seed in first..first + programs {
        let mut story = random::story(seed);
        // A compaction that leaves nothing looks like a dropped range: what lies behind it is refused.
        for moment in 0..story.moments() {
            match story.reach_from_the_first_base(moment) {
                Ok(ingestions) => {
                    reached += 1;
                    repeated += ingestions;
                }
                Err(e) => {
                    assert!(
                        matches!(e.code(), Code::TargetBehindBarrier | Code::TargetInsideEvent),
                        "seed {seed}, moment {moment}: {e}"
                    );
                    refused += 1;
                }
            }
        }
        story.end();
    }
    println!("{reached} moments reached, {repeated} ingestions repeated, {refused} refused");
    assert!(reached > refused && repeated > reached, "{reached} reached, {repeated} repeated, {refused} refused");
}

#[test]
fn writes_without_the_log_stop_every_target_behind_them_unless_they_are_tolerated() {
    let mut story = Story::with_families(&["cache"], |_| {});
    story.put("a", "1");
    story.put_unlogged("cache", "x", "lost");
    story.put("b", "1");
    let refused = story.plan(story.moments() - 1, CrossIngest::Refuse).unwrap_err();
    assert_eq!(refused.code(), Code::TargetBehindBarrier);
    assert_eq!(story.barriers(), [BarrierReason::SequenceJump]);
}

#[test]
fn tolerated_column_families_hold_what_a_crash_would_have_kept_and_the_others_everything() {
    let mut story = Story::with_families(&["cache"], |config| config.unlogged_tolerate = vec!["cache".to_owned()]);
    story.put("a", "1");
    story.put_in("cache", "logged", "1");
    story.put_unlogged("cache", "flushed", "1");
    story.flush_family("cache");
    story.put("b", "1");
    let second = story.base();
    story.put_unlogged("cache", "unflushed", "1");
    story.put("c", "1");
    story.put_in("cache", "logged", "2");
    assert_eq!(story.barriers(), [], "none of it stops anything");
    let last = story.moments() - 1;
    let plan = story.plan(last, CrossIngest::Refuse).unwrap();
    let families: Vec<_> = plan.unlogged.iter().map(|family| family.column_family.as_str()).collect();
    assert_eq!(families, ["cache"]);
    let note = plan.notes.iter().find(|note| note.kind == NoteKind::UnloggedTolerated).expect("the meaning");
    assert!(note.text.contains("\"cache\" holds what a crash would have kept"), "{}", note.text);
    // From the first base: nothing unlogged had been flushed. From the second: what had been.
    for (base, cache) in [(None, "logged=2"), (Some(&second.id), "flushed=1 logged=2")] {
        let (copy, sequence) = story.copy_of(last, base);
        assert_eq!((pairs(&copy["default"]).as_str(), pairs(&copy["cache"]).as_str()), ("a=1 b=1 c=1", cache));
        assert_eq!(sequence, story.db().latest_sequence_number());
    }
}

#[test]
fn a_file_of_another_column_family_proves_that_the_tolerance_does_not_cover_the_writes() {
    let mut story = Story::with_families(&["cache"], |config| config.unlogged_tolerate = vec!["cache".to_owned()]);
    story.put("a", "1");
    story.put_unlogged("default", "x", "1");
    story.flush_family("default");
    story.put("b", "1");
    assert_eq!(story.barriers(), [BarrierReason::SequenceJump]);
    let refused = story.plan(story.moments() - 1, CrossIngest::Refuse).unwrap_err();
    assert_eq!(refused.code(), Code::TargetBehindBarrier);
}

#[test]
fn an_ingestion_beside_tolerated_writes_is_no_proof_against_them() {
    let mut story = Story::with_families(&["cache"], |config| config.unlogged_tolerate = vec!["cache".to_owned()]);
    story.put("k", "1");
    story.quietly(|story| {
        story.put_unlogged("cache", "x", "1");
        story.ingest("default", &[("k", "ingested")]);
    });
    assert_eq!(story.db().latest_sequence_number(), 3, "the file has a number");
    story.put("b", "1");
    assert_eq!(story.barriers(), [BarrierReason::ChangeOutsideWal]);
}
