//! Tables of random operations against a map, opened by RocksDB itself.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use pitr_archive::{
    ids::{ColumnFamilyId, FileNumber, RecordNumber, SequenceNumber},
    rocks::{
        file_name,
        write_batch::{Op, WriteBatchBuilder},
    },
    segment::entry::Record,
};
use proptest::prelude::*;
use rocksdb::{ColumnFamilyDescriptor, DB, IteratorMode, Options};

use super::{
    order::KeyOrder,
    place::{self, Behind},
    sink::{Limits, Sink},
    tables::{Below, Family},
};
use crate::{finish::FamilySpec, restore::manifest::Manifest};

/// So small that everything happens: runs on disk, merged ones, several parts and files.
const TINY: Limits =
    Limits { chunk: 600, sorting: 2, kept: 1500, merged: 4, reading: 1 << 20, part: 900, least_part: 300, sampled: 64 };

#[derive(Clone, Debug)]
enum Write {
    Put(u8, Vec<u8>, Vec<u8>),
    Delete(u8, Vec<u8>),
    DeleteRange(u8, Vec<u8>, Vec<u8>),
}

fn writes(most: usize) -> impl Strategy<Value = Vec<Write>> {
    let key = || prop::collection::vec(0..6_u8, 1..4);
    let value = prop::collection::vec(any::<u8>(), 0..60);
    let one = prop_oneof![
        6 => (0..2_u8, key(), value).prop_map(|(cf, key, value)| Write::Put(cf, key, value)),
        2 => (0..2_u8, key()).prop_map(|(cf, key)| Write::Delete(cf, key)),
        1 => (0..2_u8, key(), key()).prop_map(|(cf, a, b)| Write::DeleteRange(cf, a, b)),
    ];
    prop::collection::vec(one, 0..most)
}

type Contents = [BTreeMap<Vec<u8>, Vec<u8>>; 2];

const ORDERS: [KeyOrder; 2] = [KeyOrder::Bytewise, KeyOrder::Reverse];
const NAMES: [&str; 2] = ["default", "reverse"];

fn comparator(cf: usize) -> &'static str {
    ["leveldb.BytewiseComparator", "rocksdb.ReverseBytewiseComparator"][cf]
}

fn spec(cf: usize) -> FamilySpec {
    FamilySpec {
        id: ColumnFamilyId::new(u32::try_from(cf).unwrap()),
        name: NAMES[cf].to_owned(),
        comparator: comparator(cf).to_owned(),
        merge_operator: None,
        format_version: Some(5),
        levels: Some(7),
        paths: Vec::new(),
    }
}

fn open(dir: &Path) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_disable_auto_compactions(true);
    let families =
        (0..2).map(|cf| ColumnFamilyDescriptor::new(NAMES[cf], crate::finish::family_options(&spec(cf)).unwrap()));
    DB::open_cf_descriptors(&options, dir, families).unwrap()
}

fn contents(db: &DB) -> Contents {
    NAMES.map(|name| {
        let pairs = db.iterator_cf(&db.cf_handle(name).unwrap(), IteratorMode::Start).map(Result::unwrap);
        pairs.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    })
}

/// In order: a range from a later key to an earlier one is none.
fn in_order(cf: u8, a: &[u8], b: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let swapped = ORDERS[usize::from(cf)].compare(a, b).is_gt();
    if swapped { (b.to_vec(), a.to_vec()) } else { (a.to_vec(), b.to_vec()) }
}

fn apply(model: &mut Contents, write: &Write) {
    match write {
        Write::Put(cf, key, value) => drop(model[usize::from(*cf)].insert(key.clone(), value.clone())),
        Write::Delete(cf, key) => drop(model[usize::from(*cf)].remove(key)),
        Write::DeleteRange(cf, a, b) => {
            let order = ORDERS[usize::from(*cf)];
            let (from, to) = in_order(*cf, a, b);
            let inside = |key: &[u8]| order.compare(&from, key).is_le() && order.compare(key, &to).is_lt();
            model[usize::from(*cf)].retain(|key, _| !inside(key));
        }
    }
}

fn write(db: &DB, write: &Write) {
    let cf = |cf: &u8| db.cf_handle(NAMES[usize::from(*cf)]).unwrap();
    match write {
        Write::Put(f, key, value) => db.put_cf(&cf(f), key, value).unwrap(),
        Write::Delete(f, key) => db.delete_cf(&cf(f), key).unwrap(),
        Write::DeleteRange(f, a, b) => {
            let (from, to) = in_order(*f, a, b);
            db.delete_range_cf(&cf(f), from, to).unwrap();
        }
    }
}

fn record(sequence: u64, write: &Write) -> Record {
    let mut batch = WriteBatchBuilder::new(SequenceNumber::new(sequence));
    let id = |cf: &u8| ColumnFamilyId::new(u32::from(*cf));
    match write {
        Write::Put(f, key, value) => {
            batch.push(&Op::Put { cf: id(f), key, value });
        }
        Write::Delete(f, key) => {
            batch.push(&Op::Delete { cf: id(f), key });
        }
        Write::DeleteRange(f, a, b) => {
            let (begin, end) = in_order(*f, a, b);
            batch.push(&Op::DeleteRange { cf: id(f), begin: &begin, end: &end });
        }
    };
    Record { wal: FileNumber::new(1000), start: sequence, end: sequence + 1, payload: batch.finish().into() }
}

fn manifest_of(dir: &Path) -> (PathBuf, Manifest) {
    let number = file_name::parse_current(&fs::read(dir.join("CURRENT")).unwrap()).unwrap();
    let path = dir.join(file_name::manifest(number));
    let bytes = fs::read(&path).unwrap();
    (path, Manifest::read(number, bytes).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn tables_hold_what_the_operations_left_above_what_was_there(
        before in writes(30), flushed_twice: bool, behind in writes(200), threads in 1..4_usize,
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let (dir, sorted) = (scratch.path().join("db"), scratch.path().join("sorted"));
        fs::create_dir(&sorted).unwrap();
        let mut model = Contents::default();
        let db = open(&dir);
        for (at, one) in before.iter().enumerate() {
            write(&db, one);
            apply(&mut model, one);
            if at + 1 == before.len() || flushed_twice && at == before.len() / 2 {
                NAMES.iter().for_each(|name| db.flush_cf(&db.cf_handle(name).unwrap()).unwrap());
            }
        }
        let first = db.latest_sequence_number() + 1;
        drop(db);

        let (path, mut manifest) = manifest_of(&dir);
        let family = |cf: usize| {
            let own = manifest.model.live_files().filter(|(id, ..)| *id == spec(cf).id);
            let top = own.map(|(_, _, file)| file.level).min();
            let below = if top.is_some() { Below::Files } else { Below::Nothing };
            let level = place::level(Some(7), top);
            (Family { spec: spec(cf), order: ORDERS[cf], directory: dir.clone(), below, level }, FileNumber::new(1))
        };
        // Blocks that do not fit together: runs become fewer first.
        let limits = Limits { reading: if threads > 1 { 1 << 20 } else { 8000 }, ..TINY };
        let mut sink = Sink::new(limits, (0..2).map(family).collect(), sorted.clone()).unwrap();
        for (sequence, one) in (first..).zip(&behind) {
            sink.record(RecordNumber::new(sequence), &record(sequence, one)).unwrap();
            apply(&mut model, one);
        }
        let sequence = SequenceNumber::new(first - 1 + behind.len() as u64);
        let (families, files, log) = sink.finish(FileNumber::new(2000), threads).unwrap();
        prop_assert_eq!(fs::read_dir(&sorted).unwrap().count(), 0);
        let next_file = log.next().unwrap();
        place::place(&mut manifest, &families, &files, Behind { sequence, log, next_file }).unwrap();
        fs::write(&path, &manifest.bytes).unwrap();
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        let db = open(&dir);
        prop_assert_eq!(db.latest_sequence_number(), sequence.get());
        prop_assert_eq!(contents(&db), model.clone());
        // RocksDB's own checks of files and order are in a compaction of all of them.
        NAMES.iter().for_each(|name| db.compact_range_cf(&db.cf_handle(name).unwrap(), None::<&[u8]>, None::<&[u8]>));
        prop_assert_eq!(contents(&db), model);
    }
}
