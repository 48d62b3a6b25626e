//! How far shipped flushes are followed.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pitr_archive::{
    Code, Error,
    catalog::schema::BaseColumnFamily,
    ids::{ColumnFamilyId, ContentHash, Epoch, FileNumber},
    object_key::ObjectKey,
    rocks::version_edit::{InternalKey, NewFile, VersionEdit},
    segment::entry::{CapturedFile, ColumnFamilyChange, Event},
};

use super::{
    super::{
        PlanOptions, RestorePlan,
        engine::{Engine, EngineChoice},
        flushed::advise,
    },
    record,
    scene::{Scene, b, point, seq},
};
use crate::hold::held;

/// A flush of column family `cf` at MANIFEST offset `at`, behind that at `previous`: it needs no log below `log` any more.
pub(super) fn flush(cf: u32, (at, previous): (u64, u64), log: u64, largest: u64) -> Event {
    let number = FileNumber::new(1000 + at);
    let key = InternalKey::new(b"key\x01\x05\0\0\0\0\0\0").unwrap();
    let file = NewFile::new(0, number, 7, key, key, seq(1), seq(largest));
    let edit = VersionEdit {
        column_family: ColumnFamilyId::new(cf),
        log_number: Some(FileNumber::new(log)),
        new_files: vec![file],
        ..VersionEdit::default()
    };
    Event::Flushed {
        manifest: point(at),
        previous: point(previous),
        column_family: ColumnFamilyId::new(cf),
        edit: STANDARD.encode(edit.encode()),
        files: vec![CapturedFile {
            number,
            size: 7,
            hash: ContentHash([1; 32]),
            object: "o".to_owned(),
            epoch: Epoch::new(1),
            external: false,
        }],
        first_wal_needed: None,
    }
}

/// The flush, where the MANIFEST says with it that no column family needs a log below `log` any more.
fn needing(mut flush: Event, log: u64) -> Event {
    if let Event::Flushed { first_wal_needed, .. } = &mut flush {
        *first_wal_needed = Some(FileNumber::new(log));
    }
    flush
}

/// Two records in each of the logs 10 to 13. The base has the MANIFEST up to 5.
fn begun(families: u32) -> Scene {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 5, 0);
    s.bases[0].column_families = (0..families)
        .map(|id| BaseColumnFamily {
            id: ColumnFamilyId::new(id),
            name: id.to_string(),
            comparator: String::new(),
            merge_operator: None,
            compaction_filter: None,
            log_number: FileNumber::new(10),
        })
        .collect();
    for wal in 10..14 {
        s.wal(wal).put(1).put(1);
    }
    s
}

/// Offsets of the flushes that a plan lays down, the first log that it still replays, and where.
fn used(plan: &RestorePlan) -> (Vec<u64>, u64, u64) {
    let flushes = plan.flushes.iter().map(|flush| flush.manifest.offset).collect();
    assert_eq!(plan.engine.name == Engine::Flush, !plan.flushes.is_empty());
    (flushes, plan.base.first_wal.get(), plan.base.first_record.get())
}

#[test]
fn a_flush_is_laid_down_where_all_that_it_can_hold_lies_before_the_target() {
    let mut s = begun(1);
    s.event(flush(0, (6, 5), 11, 2)).event(flush(0, (7, 6), 12, 4)).cut();
    for (target, expected) in [
        (0, (vec![], 10, 0)),
        (1, (vec![6], 11, 2)),
        (2, (vec![6], 11, 2)),
        (3, (vec![6, 7], 12, 4)),
        (7, (vec![6, 7], 12, 4)),
    ] {
        assert_eq!(used(&s.plan(&record(target)).unwrap()), expected, "record {target}");
    }
    let plan = s.plan(&record(7)).unwrap();
    assert_eq!(
        plan.wals.iter().map(|w| (w.number.get(), w.first, w.end)).collect::<Vec<_>>(),
        [(12, b(4), b(6)), (13, b(6), b(8))]
    );
    assert_eq!(plan.position.sequence, seq(8));
}

#[test]
fn a_flush_that_was_not_shipped_ends_the_chain_and_the_first_log_is_that_of_whoever_needs_the_oldest() {
    for (what, families, flushes, expected) in [
        ("that of the other one, at 7, is missing", 2, vec![(0, (6, 5), 11), (0, (8, 7), 12)], (vec![], 10, 0)),
        ("it does not join the base", 1, vec![(0, (7, 6), 11)], (vec![], 10, 0)),
        ("both were flushed", 2, vec![(0, (6, 5), 12), (1, (7, 6), 11)], (vec![6, 7], 11, 2)),
        ("the other one still needs the first log", 2, vec![(0, (6, 5), 12)], (vec![], 10, 0)),
    ] {
        let mut s = begun(families);
        for (family, places, log) in flushes {
            s.event(flush(family, places, log, 2 * (log - 10)));
        }
        s.cut();
        assert_eq!(used(&s.plan(&record(7)).unwrap()), expected, "{what}");
    }
}

#[test]
fn a_column_family_that_is_idle_does_not_hold_the_log_back_but_one_that_is_dropped_before_the_flush_does() {
    let mut s = begun(2);
    s.event(needing(flush(0, (6, 5), 12, 4), 12)).cut();
    assert_eq!(used(&s.plan(&record(7)).unwrap()), (vec![6], 12, 4));
    assert_eq!(used(&s.plan(&record(2)).unwrap()).0, [0; 0], "the flush can hold records behind the target");
    // What the dropped one had not flushed is in a log that the flush does not speak of.
    let mut s = begun(2);
    s.put(1)
        .put(1)
        .family(ColumnFamilyChange::Dropped, 6, 10, Some(10))
        .event(needing(flush(0, (7, 5), 12, 4), 12))
        .put(1)
        .cut();
    assert_eq!(used(&s.plan(&record(7)).unwrap()).0, [0; 0], "it is there at the target");
    assert_eq!(used(&s.plan(&record(10)).unwrap()), (vec![7], 12, 4), "it is not");
}

#[test]
fn a_flush_whose_file_is_gone_is_left_to_the_log_with_all_behind_it() {
    let mut s = begun(1);
    s.event(flush(0, (6, 5), 11, 2)).event(flush(0, (7, 6), 12, 4)).cut();
    s.lost_files = vec![FileNumber::new(1007)];
    assert_eq!(used(&s.plan(&record(7)).unwrap()), (vec![6], 11, 2));
    s.lost_files.push(FileNumber::new(1006));
    assert_eq!(used(&s.plan(&record(7)).unwrap()), (vec![], 10, 0));
}

#[test]
fn what_an_open_says_behind_the_first_of_its_flushes_is_not_believed_of_the_others() {
    // The log 14 never was; the flush of the other column family was not shipped.
    let mut s = begun(2);
    s.event(needing(flush(0, (6, 5), 14, 8), 14)).wal(15).put(1).put(1).cut();
    assert_eq!(used(&s.plan(&record(9)).unwrap()), (vec![], 10, 0));
    s.event(flush(1, (7, 6), 14, 8)).cut();
    assert_eq!(used(&s.plan(&record(9)).unwrap()), (vec![6, 7], 14, 8));
}

#[test]
fn what_names_the_files_that_are_laid_down_is_held_also_where_it_lies_behind_the_target() {
    let mut s = begun(1);
    s.cut().put(1).cut().put(1).event(flush(0, (6, 5), 11, 2)).cut();
    let plan = s.plan(&record(3)).unwrap();
    assert_eq!(used(&plan).0, [6]);
    let held: Vec<_> = held(&plan).iter().map(|held| (held.from.get(), held.to.get())).collect();
    assert_eq!(held, [(0, 3)]);
}

#[test]
fn what_is_asked_for_is_used_or_refused() {
    let mut s = begun(1);
    s.event(flush(0, (6, 5), 11, 2)).cut();
    let with = |engine| PlanOptions { engine, ..PlanOptions::default() };
    assert_eq!(used(&s.plan_with(&record(7), &with(EngineChoice::Native)).unwrap()).0, [0; 0]);
    assert_eq!(used(&s.plan_with(&record(7), &with(EngineChoice::Flush)).unwrap()).0, [6]);
    let refused = s.plan_with(&record(0), &with(EngineChoice::Flush)).unwrap_err();
    assert_eq!(refused.code(), Code::EngineUnusable);
}

#[test]
fn records_that_the_server_took_back_and_numbers_beyond_the_target_s_are_left_to_the_log() {
    let mut s = begun(1);
    s.event(flush(0, (6, 5), 11, 2)).withdraw(7, 8).put(1).cut();
    assert_eq!(used(&s.plan(&record(8)).unwrap()).0, [0; 0]);
    let mut s = begun(1);
    s.event(flush(0, (6, 5), 11, 99)).cut();
    assert_eq!(used(&s.plan(&record(7)).unwrap()).0, [0; 0]);
}

#[test]
fn a_flush_of_a_column_family_that_the_base_does_not_know_ends_the_chain() {
    let mut s = begun(1);
    s.event(flush(0, (6, 5), 11, 2)).family(ColumnFamilyChange::Added, 7, 1, Some(2));
    s.event(flush(1, (8, 6), 12, 4)).event(flush(0, (9, 8), 13, 6)).put(1).cut();
    assert_eq!(used(&s.plan(&record(7)).unwrap()).0, [0; 0], "and its first log is not known");
}

#[test]
fn what_a_flush_may_have_changed_beside_writing_it_down_is_left_to_the_log() {
    let mut s = begun(1);
    s.event(flush(0, (6, 5), 11, 2)).jump(20).put_at(21, 1).base(0, 9, 20).cut();
    s.bases.truncate(1);
    assert_eq!(used(&s.plan(&record(7)).unwrap()).0, [0; 0], "a write that is not in the log");
    let mut s = begun(1);
    s.event(flush(0, (6, 5), 11, 2)).cut();
    s.bases[0].column_families[0].compaction_filter = Some("ttl".to_owned());
    assert_eq!(used(&s.plan(&record(7)).unwrap()).0, [0; 0], "a filter");
}

#[test]
fn who_lacks_a_flush_s_file_is_told_of_the_log_and_who_lacks_anything_else_is_not() {
    let mut s = begun(1);
    s.event(flush(0, (6, 5), 11, 2)).cut();
    let plan = s.plan(&record(7)).unwrap();
    let lost = |object: &str| Error::new(Code::ObjectMissing, "reading").on(ObjectKey::file(object));
    assert!(advise(&plan.flushes, lost("o")).hint_text().contains("--engine native"));
    assert_eq!(advise(&plan.flushes, lost("p")).hint_text(), Code::ObjectMissing.hint());
    assert_eq!(advise(&[], lost("o")).hint_text(), Code::ObjectMissing.hint());
}
