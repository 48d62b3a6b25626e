//! The database of which bases are taken: written once, and for each round as it was then.
//!
//! Owns: what is in it, and what of it changes. Values are random: neither RocksDB's compression nor ours makes them smaller,
//! so every side moves the same bytes. Everything else is RocksDB's default: sizes of files, levels, compactions.

use std::path::Path;

use rand::{RngCore, SeedableRng, rngs::StdRng};
use rocksdb::{DB, Options, WaitForCompactOptions, WriteBatch};

use crate::cache;

/// Keys are so long, and values.
const KEY: u64 = 16;
const VALUE: usize = 1000;
/// Writes in a batch.
const BATCH: u64 = 100;
/// Every so many-th key changes: 5 %.
const CHANGED: u64 = 20;
/// A prime that no number of keys is a multiple of: its multiples come to every key once, in no order.
const STRIDE: u64 = 2_654_435_761;

/// A database that is there.
pub fn open(dir: &Path) -> DB {
    DB::open(&Options::default(), dir).expect("an open database")
}

/// Until nothing is left to flush and to compact.
pub fn settle(db: &DB) {
    db.flush().expect("a flush");
    db.wait_for_compact(&WaitForCompactOptions::default()).expect("the end of compactions");
}

/// How many keys make so many bytes.
pub const fn keys(bytes: u64) -> u64 {
    bytes / (KEY + VALUE as u64)
}

/// Puts these keys, in this order, with values that follow from the seed.
pub fn put(db: &DB, keys: impl Iterator<Item = u64>, seed: u64) {
    let (mut rng, mut value, mut batch) = (StdRng::seed_from_u64(seed), vec![0; VALUE], WriteBatch::default());
    let mut waiting = 0;
    for key in keys {
        rng.fill_bytes(&mut value);
        batch.put(format!("{key:016}"), &value);
        waiting += 1;
        if waiting == BATCH {
            db.write(std::mem::take(&mut batch)).expect("a write");
            waiting = 0;
        }
    }
    db.write(batch).expect("a write");
}

/// Writes the database.
pub fn write(dir: &Path, bytes: u64) {
    let db = crate::beside::database(dir);
    put(&db, 0..keys(bytes), 1);
    settle(&db);
}

/// Changes a twentieth of the keys, all over the database.
pub fn change(db: &DB, bytes: u64) {
    let keys = keys(bytes);
    put(db, (0..keys / CHANGED).map(|n| n * STRIDE % keys), 2);
    settle(db);
}

/// The same database once more. RocksDB never writes into a table file again, so those are links.
pub fn again(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a directory");
    for path in cache::files(from) {
        let into = to.join(path.file_name().expect("a name"));
        if path.extension().is_some_and(|extension| extension == "sst") {
            std::fs::hard_link(&path, &into).expect("a link");
        } else {
            std::fs::copy(&path, &into).expect("a copy");
        }
    }
}
