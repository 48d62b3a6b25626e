//! What is written, and what a restore of it is measured against.

use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use rocksdb::{DB, WriteBatch};

/// A kind of database.
pub struct Shape {
    pub name: &'static str,
    pub title: &'static str,
    /// How many different keys, in each column family.
    keys: u64,
    /// Column families beside the default one.
    pub families: &'static [&'static str],
    value: usize,
    /// So many in a hundred are deletions, and so many in ten thousand delete a range.
    deletes: u32,
    range_deletes: u32,
    /// The share of [`crate::Settings::writes`] that is written: with large values fewer.
    share: u64,
    /// Of these, the part that is in the base, in a hundred.
    in_base: u64,
    /// How many times as fast as RocksDB's own recovery the restore must be.
    pub least: f64,
}

pub const SHAPES: &[Shape] = &[
    Shape {
        name: "random",
        title: "random keys, 20 + 100 bytes",
        keys: u64::MAX,
        families: &[],
        value: 100,
        deletes: 0,
        range_deletes: 0,
        share: 1,
        in_base: 0,
        least: 3.0,
    },
    Shape {
        name: "hot",
        title: "100,000 hot keys, 20 + 100 bytes",
        keys: 100_000,
        families: &[],
        value: 100,
        deletes: 0,
        range_deletes: 0,
        share: 1,
        in_base: 0,
        least: 10.0,
    },
    Shape {
        name: "mixed",
        title: "four column families, a fifth deletions, range deletions, 20 + 1000 bytes",
        keys: u64::MAX,
        families: &["first", "second", "third"],
        value: 1000,
        deletes: 20,
        range_deletes: 1,
        share: 5,
        in_base: 20,
        least: 3.0,
    },
];

/// Twenty bytes in random order.
fn key(n: u64) -> [u8; 20] {
    let mut key = [0; 20];
    key[..8].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    key[8..16].copy_from_slice(&n.to_be_bytes());
    key
}

impl Shape {
    /// How many writes are in the base, and how many behind it.
    pub fn writes(&self, all: u64) -> (u64, u64) {
        let all = all / self.share;
        let in_base = all * self.in_base / 100;
        (in_base, all - in_base)
    }

    /// Writes so many batches of one operation.
    pub fn write(&self, db: &DB, writes: u64) {
        let mut rng = StdRng::seed_from_u64(writes);
        // Half of a value can be compressed, as of most.
        let mut value = vec![b'v'; self.value];
        let families: Vec<_> =
            ["default"].iter().chain(self.families).map(|name| db.cf_handle(name).unwrap()).collect();
        for _ in 0..writes {
            let cf = &families[rng.random_range(0..families.len())];
            let n = rng.random_range(0..self.keys);
            let mut batch = WriteBatch::default();
            if rng.random_ratio(self.range_deletes, 10_000) {
                let from = key(n);
                let mut to = from;
                to[1] = to[1].saturating_add(1);
                batch.delete_range_cf(cf, from, to.max(from));
            } else if rng.random_ratio(self.deletes, 100) {
                batch.delete_cf(cf, key(n));
            } else {
                rng.fill_bytes(&mut value[..self.value / 2]);
                batch.put_cf(cf, key(n), &value);
            }
            db.write(batch).expect("a write");
        }
    }
}
