//! What is in a database.

use rocksdb::{DB, IteratorMode};

/// Everything in the default column family and in these, as a hash, and the latest sequence number.
pub fn content(db: &DB, families: &[&str]) -> (blake3::Hash, u64) {
    let mut hasher = blake3::Hasher::new();
    let mut add = |pair: Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>| {
        let (key, value) = pair.expect("a pair");
        hasher.update(&(key.len() as u64).to_le_bytes()).update(&key).update(&value);
    };
    db.iterator(IteratorMode::Start).for_each(&mut add);
    for name in families {
        let cf = db.cf_handle(name).expect("a column family");
        db.iterator_cf(&cf, IteratorMode::Start).for_each(&mut add);
    }
    (hasher.finalize(), db.latest_sequence_number())
}
