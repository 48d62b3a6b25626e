use proptest::prelude::*;

use super::*;

/// Level, number, key, optional numbers, optional strings.
type FileParts = (u32, u64, Vec<u8>, Vec<Option<u64>>, Vec<Option<Vec<u8>>>);

/// The variable part of an edit, owned, so that proptest can make and shrink it.
#[derive(Clone, Debug)]
struct Parts {
    numbers: Vec<Option<u64>>,
    strings: Vec<Option<Vec<u8>>>,
    files: Vec<FileParts>,
    deleted: Vec<(u32, u64)>,
    blobs: Vec<(u64, u64, Vec<u8>)>,
    wals: Vec<(u64, Option<u64>)>,
    flags: (bool, Option<bool>, Option<u32>),
}

fn parts() -> impl Strategy<Value = Parts> {
    let string = || prop::collection::vec(any::<u8>(), 1..40);
    let key = || prop::collection::vec(any::<u8>(), 8..40);
    let number = || prop::option::of(any::<u64>());
    let file = (
        any::<u32>(),
        any::<u64>(),
        key(),
        prop::collection::vec(number(), 12),
        prop::collection::vec(prop::option::of(string()), 6),
    );
    (
        prop::collection::vec(number(), 10),
        prop::collection::vec(prop::option::of(string()), 6),
        prop::collection::vec(file, 0..5),
        prop::collection::vec(any::<(u32, u64)>(), 0..5),
        prop::collection::vec((any::<u64>(), any::<u64>(), string()), 0..4),
        prop::collection::vec((any::<u64>(), number()), 0..4),
        (any::<bool>(), any::<Option<bool>>(), any::<Option<u32>>()),
    )
        .prop_map(|(numbers, strings, files, deleted, blobs, wals, flags)| Parts {
            numbers,
            strings,
            files,
            deleted,
            blobs,
            wals,
            flags,
        })
}

impl Parts {
    fn edit(&self) -> VersionEdit<'_> {
        let number = |i: usize| self.numbers[i].map(FileNumber::new);
        let string = |i: usize| self.strings[i].as_deref();
        VersionEdit {
            db_id: string(0),
            comparator: string(1),
            log_number: number(0),
            prev_log_number: number(1),
            next_file_number: number(2),
            max_column_family: self.numbers[3].map(|n| ColumnFamilyId::new(n as u32)),
            min_log_number_to_keep: number(4),
            last_sequence: self.numbers[5].map(SequenceNumber::new),
            compact_cursors: self.files.iter().map(|f| (f.0, InternalKey::new(&f.2).unwrap())).collect(),
            deleted_files: self
                .deleted
                .iter()
                .map(|(level, n)| DeletedFile { level: *level, number: FileNumber::new(*n) })
                .collect(),
            new_files: self.files.iter().map(file).collect(),
            blob_file_additions: self
                .blobs
                .iter()
                .map(|(n, count, text)| BlobFileAddition {
                    number: FileNumber::new(*n),
                    total_blob_count: *count,
                    total_blob_bytes: *n,
                    checksum_method: text,
                    checksum_value: &[],
                    unknown: vec![(5, text.as_slice())],
                })
                .collect(),
            blob_file_garbages: self
                .blobs
                .iter()
                .map(|(n, count, _)| BlobFileGarbage {
                    number: FileNumber::new(*n),
                    garbage_blob_count: *count,
                    garbage_blob_bytes: *n,
                    unknown: vec![],
                })
                .collect(),
            wal_additions: self
                .wals
                .iter()
                .map(|(n, size)| WalAddition { number: FileNumber::new(*n), synced_size: *size })
                .collect(),
            wal_deletion: number(6),
            column_family: ColumnFamilyId::new(self.numbers[7].unwrap_or(0) as u32),
            column_family_add: string(2),
            column_family_drop: self.flags.0,
            in_atomic_group: self.flags.2,
            full_history_ts_low: string(3),
            persist_user_defined_timestamps: self.flags.1,
            subcompaction_progress: string(4),
            last_compacted_manifest_file_size: self.numbers[8],
            unknown: string(5).into_iter().map(|bytes| (8192 + 4000, bytes)).collect(),
        }
    }
}

fn file((level, number, key, numbers, strings): &FileParts) -> NewFile<'_> {
    let key = InternalKey::new(key).unwrap();
    let n = |i: usize| numbers[i];
    let s = |i: usize| strings[i].as_deref();
    NewFile {
        path_id: (*number % 4) as u8,
        marked_for_compaction: n(0).is_some(),
        min_log_number_to_keep: n(1).map(FileNumber::new),
        oldest_blob_file_number: n(2).map(FileNumber::new),
        oldest_ancester_time: n(3),
        file_creation_time: n(4),
        epoch_number: n(5),
        file_checksum: s(0),
        file_checksum_func_name: s(1),
        temperature: n(6).map(|t| t as u8),
        min_timestamp: s(2),
        max_timestamp: s(3),
        unique_id: n(7).map(|id| SstUniqueId(id, !id)),
        compensated_range_deletion_size: n(8),
        tail_size: n(9),
        user_defined_timestamps_persisted: n(10).map(|b| b % 2 == 0),
        file_open_metadata: s(4),
        unknown: s(5).into_iter().map(|bytes| (40, bytes)).collect(),
        ..NewFile::new(
            *level,
            FileNumber::new(*number),
            *number,
            key,
            key,
            SequenceNumber::new(n(11).unwrap_or(1)),
            SequenceNumber::new(*number),
        )
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn edits_round_trip(parts in parts()) {
        let edit = parts.edit();
        let bytes = edit.encode();
        prop_assert_eq!(VersionEdit::decode(&bytes).unwrap(), edit);
    }

    #[test]
    fn a_cut_or_damaged_edit_never_panics(parts in parts(), cut in any::<prop::sample::Index>(), xor: u8) {
        let mut bytes = parts.edit().encode();
        prop_assume!(!bytes.is_empty());
        let cut = cut.index(bytes.len());
        let _ = VersionEdit::decode(&bytes[..cut]);
        bytes[cut] ^= xor;
        let _ = VersionEdit::decode(&bytes);
    }
}

/// The four forms of NewFile, as their bytes are.
#[test]
fn every_form_of_new_file_is_decoded() {
    let key = b"k\x01\x05\0\0\0\0\0\0"; // k @ 5 : 1
    let keys = [&[9][..], key, &[9], key].concat();
    let decode = |head: &[u8], tail: &[u8]| {
        let bytes = [head, &keys, tail].concat();
        let edit = VersionEdit::decode(&bytes).unwrap();
        let file = &edit.new_files[0];
        assert_eq!((file.level, file.number.get(), file.file_size), (2, 300, 77));
        assert_eq!(file.smallest.user_key(), b"k");
        assert_eq!((file.smallest.sequence().get(), file.smallest.value_type()), (5, 1));
        (file.path_id, file.smallest_seqno.get(), file.largest_seqno.get())
    };
    assert_eq!(decode(&[7, 2, 0xac, 2, 77], &[]), (0, SequenceNumber::MAX.get(), 0));
    assert_eq!(decode(&[100, 2, 0xac, 2, 77], &[5, 6]), (0, 5, 6));
    assert_eq!(decode(&[102, 2, 0xac, 2, 3, 77], &[5, 6]), (3, 5, 6));
    assert_eq!(decode(&[103, 2, 0xac, 2, 77], &[5, 6, 65, 1, 2, 1]), (2, 5, 6));
}

#[test]
fn deprecated_tags_without_a_length_are_decoded() {
    let addition: Vec<u8> = [&[0x82, 0x40][..], &[9, 1, 2, 0, 0, 0]].concat(); // 8194
    let edit = VersionEdit::decode(&addition).unwrap();
    assert_eq!(edit.blob_file_additions[0].number.get(), 9);
    let wal: Vec<u8> = [&[0x84, 0x40][..], &[4, 2, 100, 1], &[0x85, 0x40], &[3]].concat(); // 8196, 8197
    let edit = VersionEdit::decode(&wal).unwrap();
    assert_eq!(edit.wal_additions, [WalAddition { number: FileNumber::new(4), synced_size: Some(100) }]);
    assert_eq!(edit.wal_deletion, Some(FileNumber::new(3)));
}

#[test]
fn unknown_tags_are_kept_or_refused_as_their_bits_say() {
    let bytes = [0xff, 0x7f, 2, b'h', b'i']; // 16383 has bit 13
    let edit = VersionEdit::decode(&bytes).unwrap();
    assert_eq!(edit.unknown, [(16_383, &b"hi"[..])]);
    assert_eq!(edit.encode(), bytes);
    let error = VersionEdit::decode(&[2, 1, 11, 0]).unwrap_err();
    assert_eq!(error, VersionEditError { offset: 2, tag: 11, problem: VersionEditProblem::UnknownTag });
    assert!(error.is_unsupported());

    let key = b"k\x01\x05\0\0\0\0\0\0";
    let file = |custom: &[u8]| [&[103, 0, 1, 1, 9][..], key, &[9], key, &[5, 6], custom].concat();
    let safe = file(&[40, 1, b'x', 1]);
    assert_eq!(VersionEdit::decode(&safe).unwrap().new_files[0].unknown, [(40, &b"x"[..])]);
    let problem = VersionEditProblem::UnknownCustomTag { custom_tag: 66 };
    assert_eq!(VersionEdit::decode(&file(&[66, 1, b'x', 1])).unwrap_err().problem, problem);
    assert_eq!(VersionEdit::decode(&file(&[65, 1, 4, 1])).unwrap_err().problem, VersionEditProblem::PathId(4));
}

#[test]
fn a_tag_alone_cut_off_or_a_short_key_is_an_error() {
    for bad in [&[2][..], &[0x80], &[1, 5, b'x'], &[5, 0, 7, 1, 2, 3, 4, 5, 6, 7], &[0x86, 0x40, 0]] {
        assert!(VersionEdit::decode(bad).is_err(), "{bad:?}");
    }
}
