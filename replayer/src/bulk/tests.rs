//! Tables of random operations against a map, opened by RocksDB itself.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use pitr_archive::{
    ids::{Boundary, ColumnFamilyId, FileNumber, RecordNumber, RunningHash, SequenceNumber, TimelineId},
    rocks::{
        file_name,
        transactions::Transactions,
        write_batch::{Op, WriteBatchBuilder},
    },
    segment::entry::Record,
};
use proptest::prelude::*;
use rocksdb::{ColumnFamilyDescriptor, DB, IteratorMode, Options};

use super::{
    chunk::Kind,
    noted::Notes,
    order::KeyOrder,
    place::{self, Behind},
    sink::{Limits, Sink},
    tables::{Below, Edge, Family},
};
use crate::{
    finish::FamilySpec,
    restore::{manifest::Manifest, resume::Reached, wal::WalTotals},
};

/// So small that everything happens: runs on disk, merged ones, several parts and files.
const TINY: Limits =
    Limits { chunk: 600, sorting: 2, kept: 1500, merged: 4, reading: 1 << 20, part: 900, least_part: 300, sampled: 64 };

#[derive(Clone, Debug)]
enum Write {
    Put(u8, Vec<u8>, Vec<u8>),
    Delete(u8, Vec<u8>),
    DeleteRange(u8, Vec<u8>, Vec<u8>),
}

fn writes(sizes: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<Write>> {
    let key = || prop::collection::vec(0..6_u8, 1..4);
    let value = prop::collection::vec(any::<u8>(), 0..60);
    let one = prop_oneof![
        6 => (0..2_u8, key(), value).prop_map(|(cf, key, value)| Write::Put(cf, key, value)),
        2 => (0..2_u8, key()).prop_map(|(cf, key)| Write::Delete(cf, key)),
        1 => (0..2_u8, key(), key()).prop_map(|(cf, a, b)| Write::DeleteRange(cf, a, b)),
    ];
    prop::collection::vec(one, sizes)
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

fn record(sequence: u64, writes: &[Write]) -> Record {
    let mut batch = WriteBatchBuilder::new(SequenceNumber::new(sequence));
    let id = |cf: &u8| ColumnFamilyId::new(u32::from(*cf));
    for write in writes {
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
    }
    Record { wal: FileNumber::new(1000), start: sequence, end: sequence + 1, payload: batch.finish().into() }
}

fn manifest_of(dir: &Path) -> (PathBuf, Manifest) {
    let number = file_name::parse_current(&fs::read(dir.join("CURRENT")).unwrap()).unwrap();
    let path = dir.join(file_name::manifest(number));
    let bytes = fs::read(&path).unwrap();
    (path, Manifest::read(number, bytes).unwrap())
}

fn reached(at: usize) -> Reached {
    let totals = WalTotals { records: at as u64, ..WalTotals::default() };
    Reached {
        timeline: TimelineId::FIRST,
        boundary: Boundary::new(at as u64),
        hash: RunningHash::ZERO,
        transactions: Transactions::recovering(None),
        totals,
        seen: Vec::new(),
    }
}

/// A sink that goes on with what another one left, and with which record.
fn gone_on(mut sink: Sink, sorted: &Path) -> (Sink, usize) {
    let at = sink.go_on().map_or(0, |reached| usize::try_from(reached.boundary.get()).unwrap());
    let kept = sink.files();
    for entry in fs::read_dir(sorted).unwrap().flatten().filter(|entry| !kept.contains(&entry.path())) {
        fs::remove_file(entry.path()).unwrap();
    }
    (sink, at)
}

/// Changes a byte of a file, or cuts it off.
fn spoil_one(sorted: &Path, which: u16) {
    let mut files: Vec<_> = fs::read_dir(sorted).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let Some(path) = files.get(usize::from(which) % files.len().max(1)) else { return };
    let mut bytes = fs::read(path).unwrap();
    let at = usize::from(which) * 31 % bytes.len();
    if which.is_multiple_of(3) {
        bytes.truncate(at)
    } else {
        bytes[at] ^= 1
    };
    fs::write(path, bytes).unwrap();
}

/// Not vacuous: nearly everything is kept, behind the last run that is as it was written, and nothing of another plan.
#[test]
fn an_interrupted_log_goes_on_behind_the_last_run_on_disk() {
    let scratch = tempfile::tempdir().unwrap();
    let sorted = scratch.path().join("sorted");
    fs::create_dir(&sorted).unwrap();
    let family = Family {
        spec: spec(0),
        order: ORDERS[0],
        directory: scratch.path().to_owned(),
        below: Below::Nothing,
        level: 6,
    };
    let begin = |of: &str| {
        let notes = Notes { staging: scratch.path().to_owned(), sorted: sorted.clone(), of: of.to_owned() };
        Sink::new(TINY, vec![(family.clone(), FileNumber::new(1))], notes).unwrap()
    };
    let written = |sink: &mut Sink, records: std::ops::Range<usize>| {
        for at in records {
            if sink.is_full() {
                sink.end_run(reached(at)).unwrap();
            }
            let one = Write::Put(0, (at as u32).to_be_bytes().to_vec(), vec![1; 50]);
            sink.record(RecordNumber::new(at as u64 + 1), &record(at as u64 + 1, &[one])).unwrap();
        }
    };
    // All of it fits into memory.
    let mut sink = begin("a");
    written(&mut sink, 0..10);
    drop(sink);
    assert_eq!(gone_on(begin("a"), &sorted).1, 0);
    let mut sink = begin("a");
    written(&mut sink, 0..200);
    drop(sink);
    let (_, whole) = gone_on(begin("a"), &sorted);
    assert!(whole > 170, "{whole}");
    // Runs that became one are gone, and each is behind the other.
    let mut numbers: Vec<_> = fs::read_dir(&sorted).unwrap().map(|entry| entry.unwrap().path()).collect();
    numbers.sort();
    assert!(numbers.len() < 20, "{numbers:?}");
    let last = gone_on(begin("a"), &sorted).0.files().pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    fs::write(&last, &bytes[..bytes.len() - 1]).unwrap();
    let (mut sink, shorter) = gone_on(begin("a"), &sorted);
    assert!(shorter < whole && shorter > 100, "{shorter} of {whole}");
    written(&mut sink, shorter..300);
    let (_, tables, _) = sink.finish(FileNumber::new(50), 1).unwrap();
    let key = |at: u32| Edge::Key(at.to_be_bytes().to_vec(), Kind::Put);
    assert_eq!(tables.first().map(|table| table.smallest.clone()), Some(key(0)));
    assert_eq!(tables.last().map(|table| table.largest.clone()), Some(key(299)));
    assert_eq!(gone_on(begin("b"), &sorted).1, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn tables_hold_what_the_operations_left_above_what_was_there(
        before in writes(0..30), flushed_twice: bool, threads in 1..4_usize,
        behind in prop::collection::vec(prop_oneof![3 => writes(1..4), 1 => writes(1..40)], 0..80),
        divided: bool, mut interruptions in prop::collection::vec((0..100_usize, any::<Option<u16>>()), 0..4),
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
        let notes = Notes { staging: scratch.path().to_owned(), sorted, of: "these".to_owned() };
        let begin = || Sink::new(limits, (0..2).map(family).collect(), notes.clone()).unwrap();
        interruptions.sort_unstable();
        let mut interruptions = interruptions.into_iter().peekable();
        let (mut sink, mut at) = (begin(), 0);
        loop {
            if let Some((_, damage)) = interruptions.next_if(|(then, _)| *then <= at) {
                drop(sink);
                damage.into_iter().for_each(|damage| spoil_one(&notes.sorted, damage));
                (sink, at) = gone_on(begin(), &notes.sorted);
                continue;
            }
            let Some(batch) = behind.get(at) else { break };
            if divided && sink.is_full() {
                sink.end_run(reached(at)).unwrap();
            }
            let before: usize = behind.iter().take(at).map(Vec::len).sum();
            sink.record(RecordNumber::new(at as u64 + 1), &record(first + before as u64, batch)).unwrap();
            at += 1;
        }
        behind.iter().flatten().for_each(|one| apply(&mut model, one));
        let sequence = SequenceNumber::new(first - 1 + behind.iter().flatten().count() as u64);
        let (families, files, log) = sink.finish(FileNumber::new(2000), threads).unwrap();
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
