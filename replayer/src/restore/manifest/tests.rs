//! The appended edits, on a MANIFEST that RocksDB wrote; RocksDB itself says what they amount to in `restore::tests`.

use pitr_archive::{
    ids::ColumnFamilyId,
    segment::entry::{ColumnFamilyChange, ManifestPoint},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;

fn seq(n: u64) -> SequenceNumber {
    SequenceNumber::new(n)
}

fn number() -> FileNumber {
    FileNumber::new(5)
}

/// A MANIFEST of a new database with this last sequence.
fn manifest(last: u64) -> Manifest {
    let mut manifest = Manifest::read(number(), Vec::new()).unwrap();
    let edit = VersionEdit {
        comparator: Some(b"leveldb.BytewiseComparator"),
        log_number: Some(FileNumber::new(0)),
        next_file_number: Some(FileNumber::new(20)),
        last_sequence: Some(seq(last)),
        ..VersionEdit::default()
    };
    manifest.append(&edit).unwrap();
    manifest
}

fn planned(change: ColumnFamilyChange, edit: &VersionEdit<'_>) -> ColumnFamilyEdit {
    ColumnFamilyEdit {
        change,
        id: edit.column_family,
        name: "x".to_owned(),
        manifest: ManifestPoint { file: number(), offset: 1 },
        edit: STANDARD.encode(edit.encode()),
        settings: None,
    }
}

fn added<'a>(last: u64) -> VersionEdit<'a> {
    VersionEdit {
        column_family: ColumnFamilyId::new(1),
        column_family_add: Some(b"x"),
        comparator: Some(b"leveldb.BytewiseComparator"),
        log_number: Some(FileNumber::new(9)),
        next_file_number: Some(FileNumber::new(12)),
        last_sequence: Some(seq(last)),
        max_column_family: Some(ColumnFamilyId::new(1)),
        ..VersionEdit::default()
    }
}

fn reread(manifest: &Manifest) -> Manifest {
    Manifest::read(number(), manifest.bytes.clone()).unwrap()
}

#[test]
fn a_stale_last_sequence_in_a_column_family_edit_does_not_lower_the_database_s() {
    let mut m = manifest(70);
    m.append_families(&[planned(ColumnFamilyChange::Added, &added(3))], 0).unwrap();
    let m = reread(&m);
    assert_eq!(m.model.last_sequence(), seq(70));
    assert_eq!(m.model.next_file_number(), Some(FileNumber::new(20)));
    let family = m.model.column_family(ColumnFamilyId::new(1)).unwrap();
    assert_eq!((family.name.to_string(), family.log_number.get()), ("x".to_owned(), 9));
}

#[test]
fn a_family_that_was_added_and_dropped_leaves_its_id_used() {
    let mut m = manifest(1);
    let dropped =
        VersionEdit { column_family: ColumnFamilyId::new(1), column_family_drop: true, ..VersionEdit::default() };
    m.append_families(
        &[planned(ColumnFamilyChange::Added, &added(1)), planned(ColumnFamilyChange::Dropped, &dropped)],
        0,
    )
    .unwrap();
    let m = reread(&m);
    assert!(m.model.column_family(ColumnFamilyId::new(1)).is_none());
    assert_eq!(m.model.max_column_family(), ColumnFamilyId::new(1));
}

#[test]
fn the_last_edit_has_the_sequence_whatever_recovery_reads_of_the_log() {
    for (last, replayed, expected, edits) in [(5, Some(9), 9, 1), (9, None, 9, 0), (5, Some(8), 9, 1), (5, None, 6, 1)]
    {
        let mut m = manifest(last);
        let before = m.bytes.len();
        m.settle_sequence(seq(expected), replayed.map(seq), seq(0)).unwrap();
        assert_eq!(m.bytes.len() > before, edits == 1, "{last} {replayed:?} {expected}");
        assert_eq!(reread(&m).model.last_sequence(), seq(expected));
    }
}

#[test]
fn more_than_the_database_had_is_refused() {
    for (last, replayed, newest) in [(6, None, 0), (1, Some(6), 0), (1, None, 6)] {
        let e = manifest(last).settle_sequence(seq(5), replayed.map(seq), seq(newest)).unwrap_err();
        assert_eq!(e.code(), Code::SequenceMismatch);
    }
}

#[test]
fn tracked_wals_are_forgotten_and_an_untracked_manifest_stays_as_it_is() {
    let mut m = manifest(1);
    let before = m.bytes.len();
    m.forget_tracked_wals().unwrap();
    assert_eq!(m.bytes.len(), before);
    let wal = pitr_archive::rocks::version_edit::WalAddition { number: FileNumber::new(12), synced_size: Some(4711) };
    m.append(&VersionEdit { wal_additions: vec![wal], ..VersionEdit::default() }).unwrap();
    m.forget_tracked_wals().unwrap();
    assert!(reread(&m).model.tracked_wals().is_empty());
}

#[test]
fn an_edit_that_changes_more_than_column_families_is_refused() {
    let mut edit = added(1);
    edit.deleted_files.push(pitr_archive::rocks::version_edit::DeletedFile { level: 0, number: FileNumber::new(1) });
    let e = manifest(1).append_families(&[planned(ColumnFamilyChange::Added, &edit)], 0).unwrap_err();
    assert_eq!(e.code(), Code::SegmentDamaged);
}

#[test]
fn a_prefix_that_ends_inside_a_record_is_refused() {
    let m = manifest(1);
    let cut = m.bytes[..m.bytes.len() - 1].to_vec();
    assert_eq!(Manifest::read(number(), cut).unwrap_err().code(), Code::ManifestCorrupt);
}
