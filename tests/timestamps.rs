//! User-defined timestamps: every version of every key, at every record.
//!
//! Keys in the log carry their timestamps, and the log announces which column families have them. A restore that lost
//! either would still open, and answer wrongly.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::{collections::BTreeMap, path::Path};

use harness::{
    command::{pitr, succeed, text, url},
    scratch,
};
use librocksdb_sys as ffi;
use rocksdb::{AsRawPtr, ColumnFamilyDescriptor, DB, DBRecoveryMode, FlushOptions, Options, ReadOptions, WriteBatch};

const SIZE: usize = 8;
const FAMILIES: [&str; 2] = ["history", "later"];

fn stamp(at: u64) -> [u8; SIZE] {
    at.to_le_bytes()
}

/// RocksDB's own comparator for timestamps of 8 bytes; it is only to be had by its name.
fn stamped() -> Options {
    let (base, changed) = (Options::default(), Options::default());
    let mut error = std::ptr::null_mut();
    // SAFETY: both options live until after the call, and the text ends with a zero.
    unsafe {
        ffi::rocksdb_get_options_from_string(
            base.as_raw_ptr(),
            c"comparator=leveldb.BytewiseComparator.u64ts;".as_ptr(),
            changed.as_raw_ptr(),
            &mut error,
        );
    }
    assert!(error.is_null(), "RocksDB has no such comparator");
    changed
}

fn open(dir: &Path, families: &[&str]) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_wal_recovery_mode(DBRecoveryMode::AbsoluteConsistency);
    let stamped = families.iter().map(|name| ColumnFamilyDescriptor::new(*name, stamped()));
    let plain = ColumnFamilyDescriptor::new("default", Options::default());
    DB::open_cf_descriptors(&options, dir, stamped.chain([plain])).unwrap()
}

/// One write: family, key, timestamp, value or deletion.
#[derive(Clone)]
struct Write {
    family: &'static str,
    key: String,
    at: u64,
    value: Option<String>,
}

/// Versions by family, key and timestamp.
type Versions = BTreeMap<(String, String, u64), Option<String>>;

fn after(writes: &[Vec<Write>]) -> Versions {
    let all = writes.iter().flatten();
    all.map(|w| ((w.family.to_owned(), w.key.clone(), w.at), w.value.clone())).collect()
}

/// What a reader at `at` sees.
fn visible(versions: &Versions, family: &str, key: &str, at: u64) -> Option<String> {
    let from = (family.to_owned(), key.to_owned(), 0);
    let to = (family.to_owned(), key.to_owned(), at);
    versions.range(from..=to).next_back().and_then(|(_, value)| value.clone())
}

#[test]
fn every_version_of_every_key_is_there_at_every_record() {
    let root = scratch::directory();
    let (dir, archive) = (root.path().join("db"), url(&root.path().join("archive")));
    let catch_up = || {
        let state = root.path().join("state");
        succeed(&mut pitr(["run", "--once", "--db", text(&dir), "--archive", &archive, "--state", text(&state)]));
    };
    let mut written: Vec<Vec<Write>> = Vec::new();
    let mut clock = 0;
    let mut db = open(&dir, &FAMILIES[..1]);
    let mut family_made_at = None;
    for step in 0..60u64 {
        match step {
            // A base, then a family that it does not have, flushes, reopens with and without anything archived between.
            10 => catch_up(),
            15 => {
                // Looked at just before and after, so that no record lies in the interval.
                catch_up();
                db.create_cf(FAMILIES[1], &stamped()).unwrap();
                family_made_at = Some(written.len());
                catch_up();
            }
            25 | 45 => db.flush_cf_opt(&db.cf_handle(FAMILIES[0]).unwrap(), &FlushOptions::default()).unwrap(),
            30 => catch_up(),
            35 | 50 => {
                drop(db);
                catch_up();
                db = open(&dir, &FAMILIES);
            }
            _ => {}
        }
        let families = if family_made_at.is_some() { 2 } else { 1 };
        let mut batch = WriteBatch::default();
        let mut writes = Vec::new();
        for n in 0..=step % 3 {
            clock += 1;
            let family = FAMILIES[(step + n) as usize % families];
            let (key, handle) = (format!("key{}", (step * 7 + n) % 9), db.cf_handle(family).unwrap());
            let value = (step % 5 != 4).then(|| format!("value {clock}"));
            match &value {
                Some(value) => batch.put_cf_with_ts(&handle, &key, stamp(clock), value),
                None => batch.delete_cf_with_ts(&handle, &key, stamp(clock)),
            }
            writes.push(Write { family, key, at: clock, value });
        }
        batch.put(format!("plain {step}"), "1");
        db.write(batch).unwrap();
        written.push(writes);
    }
    drop(db);
    catch_up();
    for record in (0..written.len()).filter(|record| record % 4 == 1 || *record + 1 == written.len()) {
        // The first base has its floor behind the records before it.
        if record < 10 {
            continue;
        }
        let into = root.path().join(format!("copy-{record}"));
        let target = record.to_string();
        succeed(&mut pitr(["restore", "--to-record", &target, "--archive", &archive, "--into", text(&into)]));
        let families = if family_made_at.is_some_and(|made| made <= record) { &FAMILIES[..] } else { &FAMILIES[..1] };
        let copy = open(&into, families);
        let versions = after(&written[..=record]);
        let last = written[record].last().unwrap().at;
        for family in families {
            let handle = copy.cf_handle(family).unwrap();
            for (key, at) in (0..9).flat_map(|n| (0..=last + 1).map(move |at| (format!("key{n}"), at))) {
                let mut options = ReadOptions::default();
                options.set_timestamp(stamp(at));
                let found = copy.get_cf_opt(&handle, &key, &options).unwrap();
                let found = found.map(|bytes| String::from_utf8(bytes).unwrap());
                assert_eq!(
                    found,
                    visible(&versions, family, &key, at),
                    "{family}/{key} at {at}, after record {record}"
                );
            }
        }
        assert_eq!(copy.get(format!("plain {record}")).unwrap().as_deref(), Some(&b"1"[..]));
        assert!(copy.get(format!("plain {}", record + 1)).unwrap().is_none());
    }
}
