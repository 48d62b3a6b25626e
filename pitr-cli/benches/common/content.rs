//! What is in a database.

use rocksdb::{DB, IteratorMode};

/// Everything in the default column family and in these, as a hash, and the latest sequence number.
pub fn content(db: &DB, families: &[&str]) -> (blake3::Hash, u64) {
    let mut hasher = blake3::Hasher::new();
    let families: Vec<_> = families.iter().map(|name| db.cf_handle(name).expect("a column family")).collect();
    let others = families.iter().map(|cf| db.iterator_cf(cf, IteratorMode::Start));
    for pair in std::iter::once(db.iterator(IteratorMode::Start)).chain(others).flatten() {
        let (key, value) = pair.expect("a pair");
        hasher.update(&(key.len() as u64).to_le_bytes()).update(&key).update(&value);
    }
    (hasher.finalize(), db.latest_sequence_number())
}
