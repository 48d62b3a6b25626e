use super::*;
use crate::rocks::version_edit::{BlobFileAddition, BlobFileGarbage, DeletedFile, InternalKey, NewFile, VersionEdit};

const KEY: InternalKey<'static> = match InternalKey::new(b"key\x01\x05\0\0\0\0\0\0") {
    Some(key) => key,
    None => unreachable!(),
};

fn n(number: u64) -> FileNumber {
    FileNumber::new(number)
}

fn cf(id: u32) -> ColumnFamilyId {
    ColumnFamilyId::new(id)
}

fn file(level: u32, number: u64, seqs: (u64, u64)) -> NewFile<'static> {
    NewFile::new(level, n(number), 1000 + number, KEY, KEY, SequenceNumber::new(seqs.0), SequenceNumber::new(seqs.1))
}

fn deleted(level: u32, number: u64) -> DeletedFile {
    DeletedFile { level, number: n(number) }
}

fn add_family(id: u32, name: &'static str, log: u64) -> VersionEdit<'static> {
    VersionEdit {
        column_family: cf(id),
        column_family_add: Some(name.as_bytes()),
        comparator: Some(b"leveldb.BytewiseComparator"),
        log_number: Some(n(log)),
        ..VersionEdit::default()
    }
}

fn flush(id: u32, log: u64, files: Vec<NewFile<'static>>) -> VersionEdit<'static> {
    VersionEdit { column_family: cf(id), log_number: Some(n(log)), new_files: files, ..VersionEdit::default() }
}

fn files(id: u32, gone: Vec<DeletedFile>, new: Vec<NewFile<'static>>) -> VersionEdit<'static> {
    VersionEdit { column_family: cf(id), deleted_files: gone, new_files: new, ..VersionEdit::default() }
}

/// Feeds edits at made-up offsets and gives the changes of the last one.
fn feed(model: &mut ManifestModel, edits: &[VersionEdit<'_>]) -> Vec<Change> {
    edits
        .iter()
        .map(|edit| {
            let end = model.applied_to() + 100;
            model.apply(&edit.encode(), end).unwrap()
        })
        .last()
        .unwrap_or_default()
}

fn problem(model: &mut ManifestModel, edit: &VersionEdit<'_>) -> ManifestProblem {
    let before = (model.digest(), model.applied_to(), model.live_files().count());
    let problem = model.apply(&edit.encode(), 99_999).unwrap_err().problem;
    assert_eq!(
        (model.digest(), model.applied_to(), model.live_files().count()),
        before,
        "a refused record changes nothing"
    );
    problem
}

#[test]
fn every_way_in_which_files_change_is_told_apart() {
    let mut model = ManifestModel::new(n(1));
    for (edit, numbers, log_number) in
        [(flush(0, 5, vec![file(0, 10, (1, 9))]), vec![n(10)], n(5)), (flush(0, 6, vec![]), vec![], n(6))]
    {
        let payload = edit.encode();
        let flushed = Change::Flush { cf: cf(0), files: numbers, log_number, edit: payload };
        assert_eq!(feed(&mut model, &[edit]), [flushed]);
    }
    let ingestion = files(0, vec![], vec![file(6, 11, (0, 0))]);
    let edit = ingestion.encode();
    assert_eq!(feed(&mut model, &[ingestion]), [Change::FilesIngested { cf: cf(0), files: vec![n(11)], edit }]);
    let moves = vec![FileMove { number: n(10), from: 0, to: 3 }];
    assert_eq!(
        feed(&mut model, &[files(0, vec![deleted(0, 10)], vec![file(3, 10, (1, 9))])]),
        [Change::FilesMoved { cf: cf(0), moves }]
    );
    let inputs = vec![deleted(3, 10), deleted(6, 11)];
    assert_eq!(
        feed(&mut model, &[files(0, inputs.clone(), vec![file(6, 12, (0, 9))])]),
        [Change::Compaction { cf: cf(0), inputs, outputs: vec![n(12)] }]
    );
    // An output that is newer than everything that left did not come from it.
    let removed = vec![deleted(6, 12)];
    assert_eq!(
        feed(&mut model, &[files(0, removed.clone(), vec![file(6, 13, (10, 10))])]),
        [Change::FilesReplaced { cf: cf(0), removed, added: vec![n(13)] }]
    );
    let gone = vec![deleted(6, 13)];
    let change = feed(&mut model, &[files(0, gone.clone(), vec![])]);
    assert_eq!(change, [Change::FilesDropped { cf: cf(0), files: gone, level_zero: false }]);
    assert!(change[0].is_outside_wal());
    assert_eq!(model.live_files().count(), 0);
}

#[test]
fn one_file_that_leaves_level_zero_can_have_been_deleted_and_several_were_compacted_to_nothing() {
    let mut model = ManifestModel::new(n(1));
    feed(&mut model, &[flush(0, 5, vec![file(0, 10, (1, 1)), file(0, 11, (2, 2)), file(0, 12, (3, 3))])]);
    let several = feed(&mut model, &[files(0, vec![deleted(0, 10), deleted(0, 11)], vec![])]);
    assert!(matches!(several[..], [Change::FilesDropped { level_zero: true, .. }]) && !several[0].is_outside_wal());
    let one = feed(&mut model, &[files(0, vec![deleted(0, 12)], vec![])]);
    assert!(one[0].may_be_delete_file() && one[0].is_outside_wal());
}

#[test]
fn a_replacing_ingestion_at_sequence_zero_shows_by_its_epoch() {
    let mut model = ManifestModel::new(n(1));
    let with_epoch = |level, number, epoch| NewFile { epoch_number: Some(epoch), ..file(level, number, (0, 0)) };
    feed(&mut model, &[flush(0, 5, vec![with_epoch(6, 10, 4)])]);
    let change = feed(&mut model, &[files(0, vec![deleted(6, 10)], vec![with_epoch(6, 11, 4)])]);
    assert!(matches!(change[..], [Change::Compaction { .. }]));
    let change = feed(&mut model, &[files(0, vec![deleted(6, 11)], vec![with_epoch(6, 12, 5)])]);
    assert!(matches!(change[..], [Change::FilesReplaced { .. }]));
}

#[test]
fn column_families_come_and_go_with_their_edits() {
    let mut model = ManifestModel::new(n(1));
    let empty = model.digest();
    let add = add_family(3, "users", 7);
    let changes = feed(&mut model, std::slice::from_ref(&add));
    assert!(matches!(&changes[..], [Change::ColumnFamilyAdded { id, name, log_number, edit, .. }]
        if *id == cf(3) && name.as_str() == Some("users") && *log_number == n(7) && *edit == add.encode()));
    feed(&mut model, &[flush(3, 9, vec![file(0, 20, (1, 2))])]);
    assert_eq!(model.column_family_named(b"users").map(|(id, f)| (id, f.log_number)), Some((cf(3), n(9))));
    let drop = VersionEdit { column_family: cf(3), column_family_drop: true, ..VersionEdit::default() };
    assert!(matches!(&feed(&mut model, std::slice::from_ref(&drop))[..], [Change::ColumnFamilyDropped { .. }]));
    assert_eq!(model.digest(), empty, "nothing of it is left");
    assert_eq!(model.max_column_family(), cf(3), "but its id is never given again");
    assert_eq!(problem(&mut model, &drop), ManifestProblem::UnknownColumnFamily(cf(3)));
}

#[test]
fn edits_that_do_not_fit_are_refused() {
    let mut model = ManifestModel::new(n(1));
    feed(&mut model, &[flush(0, 5, vec![file(0, 10, (1, 9))]), add_family(1, "a", 5)]);
    for (edit, expected) in [
        (files(0, vec![deleted(0, 11)], vec![]), ManifestProblem::FileNotThere { number: n(11), level: 0 }),
        (files(0, vec![deleted(1, 10)], vec![]), ManifestProblem::FileNotThere { number: n(10), level: 1 }),
        (
            files(0, vec![deleted(0, 10), deleted(0, 10)], vec![]),
            ManifestProblem::FileNotThere { number: n(10), level: 0 },
        ),
        (files(0, vec![], vec![file(1, 10, (1, 9))]), ManifestProblem::FileTwice(n(10))),
        (files(9, vec![], vec![]), ManifestProblem::UnknownColumnFamily(cf(9))),
        (add_family(1, "b", 5), ManifestProblem::ColumnFamilyTwice(cf(1))),
        (VersionEdit { column_family_drop: true, ..VersionEdit::default() }, ManifestProblem::DefaultDropped),
    ] {
        assert_eq!(problem(&mut model, &edit), expected);
    }
    assert!(matches!(model.apply(&[11, 0], 7).unwrap_err(), e if e.is_unsupported() && e.end == 7));
}

#[test]
fn an_atomic_group_takes_effect_as_a_whole() {
    let grouped = |remaining, edit: VersionEdit<'static>| VersionEdit { in_atomic_group: Some(remaining), ..edit };
    let group = [
        grouped(2, flush(0, 9, vec![file(0, 10, (1, 1))])),
        grouped(1, flush(1, 9, vec![file(0, 11, (1, 1))])),
        grouped(0, flush(2, 9, vec![file(0, 12, (1, 1))])),
    ];
    let mut model = ManifestModel::new(n(1));
    feed(&mut model, &[add_family(1, "a", 2), add_family(2, "b", 2)]);
    let (applied, digest) = (model.applied_to(), model.digest());
    for edit in &group[..2] {
        assert_eq!(model.apply(&edit.encode(), applied + 50).unwrap(), []);
        assert_eq!((model.applied_to(), model.digest()), (applied, digest));
    }
    assert!(model.in_atomic_group());
    // What does not belong to the group is refused, and the group can still be completed.
    assert_eq!(problem(&mut model, &flush(0, 9, vec![])), ManifestProblem::AtomicGroup);
    assert_eq!(problem(&mut model, &grouped(1, flush(2, 9, vec![]))), ManifestProblem::AtomicGroup);
    let changes = model.apply(&group[2].encode(), applied + 90).unwrap();
    assert_eq!(changes.len(), 3);
    assert_eq!((model.live_files().count(), model.applied_to()), (3, applied + 90));

    let mut cut = ManifestModel::new(n(1));
    feed(&mut cut, &[add_family(1, "a", 2), add_family(2, "b", 2)]);
    cut.apply(&group[0].encode(), 500).unwrap();
    cut.abandon_atomic_group();
    assert_eq!((cut.digest(), cut.applied_to(), cut.in_atomic_group()), (digest, applied, false));
}

#[test]
fn a_group_that_fails_at_its_end_changes_nothing() {
    let grouped = |remaining, edit: VersionEdit<'static>| VersionEdit { in_atomic_group: Some(remaining), ..edit };
    let mut model = ManifestModel::new(n(1));
    feed(&mut model, &[grouped(1, flush(0, 9, vec![file(0, 10, (1, 1))]))]);
    let last = grouped(0, files(0, vec![], vec![file(0, 10, (1, 1))]));
    assert_eq!(problem(&mut model, &last), ManifestProblem::FileTwice(n(10)));
}

#[test]
fn the_digest_of_a_snapshot_equals_that_of_the_history() {
    let comparator = VersionEdit { comparator: Some(b"leveldb.BytewiseComparator"), ..VersionEdit::default() };
    let mut history = ManifestModel::new(n(1));
    feed(
        &mut history,
        &[
            comparator.clone(),
            add_family(1, "gone", 3),
            add_family(2, "kept", 3),
            flush(0, 4, vec![file(0, 10, (1, 5))]),
            flush(2, 4, vec![file(0, 11, (2, 6)), file(0, 12, (3, 7))]),
            VersionEdit { column_family: cf(1), column_family_drop: true, ..VersionEdit::default() },
            files(2, vec![deleted(0, 11), deleted(0, 12)], vec![file(6, 13, (0, 7))]),
        ],
    );
    // Other order, other log numbers, files in one record.
    let snapshot = [
        comparator,
        flush(0, 50, vec![file(0, 10, (1, 5))]),
        add_family(2, "kept", 60),
        flush(2, 61, vec![file(6, 13, (0, 7))]),
    ];
    let mut model = ManifestModel::new(n(2));
    for (i, edit) in snapshot.iter().enumerate() {
        assert_ne!(model.digest(), history.digest(), "before record {i}");
        feed(&mut model, std::slice::from_ref(edit));
    }
    assert_eq!(model.digest(), history.digest());
    feed(&mut model, &[files(2, vec![deleted(6, 13)], vec![file(5, 13, (0, 7))])]);
    assert_ne!(model.digest(), history.digest(), "a file in another level is another state");
}

#[test]
fn the_first_wal_needed_follows_two_phase_commit() {
    let mut model = ManifestModel::new(n(1));
    let min_log = |number| VersionEdit { min_log_number_to_keep: Some(n(number)), ..VersionEdit::default() };
    feed(&mut model, &[add_family(1, "a", 8), flush(0, 12, vec![]), min_log(5)]);
    assert_eq!((model.first_wal_needed(TwoPhase::Off), model.first_wal_needed(TwoPhase::On)), (n(8), n(5)));
    // Idle column families advance in memory only; what is deleted follows the persisted minimum.
    feed(&mut model, &[min_log(10)]);
    assert_eq!((model.first_wal_needed(TwoPhase::Off), model.first_wal_needed(TwoPhase::On)), (n(10), n(10)));
    assert_eq!(feed(&mut model, &[min_log(9)]), [], "it never goes back");
    // The hidden place inside a file's description counts too.
    let hidden = NewFile { min_log_number_to_keep: Some(n(11)), ..file(0, 20, (1, 1)) };
    feed(&mut model, &[flush(0, 12, vec![hidden])]);
    assert_eq!(model.min_log_number_to_keep(), n(11));
}

#[test]
fn last_sequence_is_the_last_one_written() {
    let mut model = ManifestModel::new(n(1));
    let sequence = |s| VersionEdit { last_sequence: Some(SequenceNumber::new(s)), ..VersionEdit::default() };
    feed(&mut model, &[sequence(9)]);
    let changes = feed(&mut model, &[sequence(4)]);
    assert_eq!(changes, [Change::LastSequence { sequence: SequenceNumber::new(4) }]);
    assert_eq!(feed(&mut model, &[sequence(4)]), []);
    assert_eq!(model.last_sequence(), SequenceNumber::new(4));
}

#[test]
fn blob_files_live_as_long_as_rocksdb_keeps_them() {
    let blob = |number| BlobFileAddition {
        number: n(number),
        total_blob_count: 10,
        total_blob_bytes: 100,
        checksum_method: b"",
        checksum_value: b"",
        unknown: vec![],
    };
    let garbage = |number, count| BlobFileGarbage {
        number: n(number),
        garbage_blob_count: count,
        garbage_blob_bytes: count * 10,
        unknown: vec![],
    };
    let linked = |sst: u64, blob: u64| NewFile { oldest_blob_file_number: Some(n(blob)), ..file(0, sst, (sst, sst)) };
    let with_blobs = |edit: VersionEdit<'static>, add: &[u64], rot: &[(u64, u64)]| VersionEdit {
        blob_file_additions: add.iter().map(|b| blob(*b)).collect(),
        blob_file_garbages: rot.iter().map(|(b, c)| garbage(*b, *c)).collect(),
        ..edit
    };
    let live = |model: &ManifestModel| model.live_blob_files().map(|(_, number, _)| number.get()).collect::<Vec<_>>();

    let mut model = ManifestModel::new(n(1));
    feed(&mut model, &[with_blobs(flush(0, 5, vec![linked(10, 30)]), &[30], &[])]);
    feed(&mut model, &[with_blobs(flush(0, 6, vec![linked(11, 31)]), &[31, 32], &[])]);
    assert_eq!(live(&model), [30, 31, 32]);
    // A compaction leaves half of 30 and all of 32 as garbage; the new file still refers to 30.
    let compact = files(0, vec![deleted(0, 10), deleted(0, 11)], vec![linked(12, 30)]);
    feed(&mut model, &[with_blobs(compact, &[], &[(30, 5), (32, 10)])]);
    assert_eq!(live(&model), [30, 31], "32 has no link and nothing but garbage");
    let compact = files(0, vec![deleted(0, 12)], vec![NewFile { level: 1, ..linked(13, 31) }]);
    feed(&mut model, &[with_blobs(compact, &[], &[(30, 3)])]);
    assert_eq!(live(&model), [31], "30 is older than the oldest one in use, garbage or not");
    let again = with_blobs(flush(0, 7, vec![]), &[31], &[]);
    assert_eq!(problem(&mut model, &again), ManifestProblem::BlobTwice(n(31)));
    feed(&mut model, &[files(0, vec![deleted(1, 13)], vec![])]);
    assert_eq!(live(&model), [0u64; 0]);
}

#[test]
fn tracked_wals_and_the_databases_id_are_kept() {
    use crate::rocks::version_edit::WalAddition;
    let mut model = ManifestModel::new(n(1));
    let wal = |number, synced_size| VersionEdit {
        wal_additions: vec![WalAddition { number: n(number), synced_size }],
        ..VersionEdit::default()
    };
    feed(&mut model, &[wal(4, None), wal(4, Some(100)), wal(6, Some(7))]);
    assert_eq!(model.tracked_wals().get(&n(4)), Some(&Some(100)));
    feed(&mut model, &[VersionEdit { wal_deletion: Some(n(6)), ..VersionEdit::default() }]);
    assert_eq!(model.tracked_wals().keys().collect::<Vec<_>>(), [&n(6)]);
    let id = VersionEdit { db_id: Some(b"c0ffee"), ..VersionEdit::default() };
    assert_eq!(feed(&mut model, std::slice::from_ref(&id)), [Change::DbId { id: "c0ffee".into() }]);
    assert_eq!(feed(&mut model, &[id]), []);
    assert_eq!(model.db_id(), Some("c0ffee"));
}

#[test]
fn a_clone_stays_at_its_prefix() {
    let mut model = ManifestModel::new(n(1));
    feed(&mut model, &[flush(0, 5, vec![file(0, 10, (1, 9))])]);
    let kept = model.clone();
    feed(&mut model, &[flush(0, 6, vec![file(0, 11, (10, 11))])]);
    assert_eq!((kept.live_files().count(), model.live_files().count()), (1, 2));
    assert_ne!(kept.digest(), model.digest());
}
