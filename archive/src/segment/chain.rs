//! The running hash over the stream of entries, and the hash over one WAL's records.
//!
//! Owns: `leaf = blake3(encoded entry)` (keyed in an encrypted archive) and `h' = blake3(h || leaf)`. Both depend only
//! on the entries and their order, never on frames, segments, compression or encryption: merging, re-encrypting and
//! copying keep the proof. Leaves can be computed in parallel; joining them is one small hash an entry.
//!
//! Between two records the hash can take several values, because events lie there: the value directly after the record
//! before, and one after each event. Each of them commits to everything before, so **any of them names the boundary**
//! (`reader::SegmentReader::hashes_at`).

use crate::{
    cipher::Secret,
    ids::{ContentHash, RunningHash},
    segment::entry::Record,
};

/// The key of leaves and names: none in a clear archive, one for the life of an encrypted one.
///
/// It is independent of the data keys, so that re-encryption keeps the running hash.
#[derive(Clone, Debug, Default)]
pub struct HashKey(Option<Secret>);

impl HashKey {
    /// Of a clear archive.
    pub const CLEAR: Self = Self(None);

    /// Of an encrypted archive.
    pub const fn keyed(secret: Secret) -> Self {
        Self(Some(secret))
    }

    /// The secret, in an encrypted archive.
    pub const fn secret(&self) -> Option<&Secret> {
        self.0.as_ref()
    }

    /// An empty hasher under this key.
    pub fn hasher(&self) -> blake3::Hasher {
        match &self.0 {
            None => blake3::Hasher::new(),
            Some(secret) => blake3::Hasher::new_keyed(secret.expose()),
        }
    }
}

/// The hash of one encoded entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf(pub [u8; 32]);

impl Leaf {
    /// Of an entry's encoded bytes, given in pieces that follow each other.
    pub fn of(key: &HashKey, pieces: &[&[u8]]) -> Self {
        match (pieces, &key.0) {
            ([one], None) => Self(*blake3::hash(one).as_bytes()),
            ([one], Some(secret)) => Self(*blake3::keyed_hash(secret.expose(), one).as_bytes()),
            _ => {
                let mut hasher = key.hasher();
                for piece in pieces {
                    hasher.update(piece);
                }
                Self(*hasher.finalize().as_bytes())
            }
        }
    }
}

/// The running hash at a place in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain(RunningHash);

impl Chain {
    /// Continues from a place whose hash is known.
    pub const fn at(hash: RunningHash) -> Self {
        Self(hash)
    }

    /// Goes past one entry.
    pub fn push(&mut self, leaf: Leaf) -> RunningHash {
        let mut both = [0; 64];
        let (before, entry) = both.split_at_mut(32);
        before.copy_from_slice(&self.0.0);
        entry.copy_from_slice(&leaf.0);
        self.0 = RunningHash(*blake3::hash(&both).as_bytes());
        self.0
    }

    /// The hash here.
    pub const fn value(&self) -> RunningHash {
        self.0
    }
}

/// Hash over all records of one WAL from offset 0 on, fed in order; cheap to look at in between.
#[derive(Clone, Debug)]
pub struct WalPrefix {
    hasher: blake3::Hasher,
    /// What it has not seen yet: of many small pieces it hashes one after the other, of a large one several at once.
    rest: Vec<u8>,
}

/// Hashed in one go: as much as the widest vector instructions take, times four.
const AT_ONCE: usize = 64 << 10;

impl WalPrefix {
    /// At offset 0.
    pub fn new(key: &HashKey) -> Self {
        Self { hasher: key.hasher(), rest: Vec::new() }
    }

    /// The WAL's next record: `start`, `end`, length of the payload (u64 each), payload.
    pub fn push(&mut self, record: &Record) {
        let mut head = [0; 24];
        let (start, rest) = head.split_at_mut(8);
        let (end, len) = rest.split_at_mut(8);
        start.copy_from_slice(&record.start.to_le_bytes());
        end.copy_from_slice(&record.end.to_le_bytes());
        len.copy_from_slice(&(record.payload.len() as u64).to_le_bytes());
        self.rest.extend_from_slice(&head);
        if self.rest.len() + record.payload.len() <= AT_ONCE {
            self.rest.extend_from_slice(&record.payload);
            return;
        }
        // A large payload is not copied.
        self.hasher.update(&self.rest).update(&record.payload);
        self.rest.clear();
    }

    /// The hash over what was fed.
    pub fn value(&self) -> ContentHash {
        ContentHash(*self.hasher.clone().update(&self.rest).finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::FileNumber;

    #[test]
    fn leaves_do_not_depend_on_pieces_and_depend_on_the_key() {
        for key in [HashKey::CLEAR, HashKey::keyed(Secret::new([3; 32]))] {
            assert_eq!(Leaf::of(&key, &[b"abcdef"]), Leaf::of(&key, &[b"abc", b"", b"def"]));
        }
        assert_ne!(
            Leaf::of(&HashKey::CLEAR, &[b"abcdef"]),
            Leaf::of(&HashKey::keyed(Secret::new([3; 32])), &[b"abcdef"])
        );
    }

    #[test]
    fn the_chain_sees_order_and_where_it_began() {
        let (a, b) = (Leaf([1; 32]), Leaf([2; 32]));
        let run = |start, leaves: &[Leaf]| {
            let mut chain = Chain::at(start);
            for leaf in leaves {
                chain.push(*leaf);
            }
            chain.value()
        };
        assert_ne!(run(RunningHash::ZERO, &[a, b]), run(RunningHash::ZERO, &[b, a]));
        assert_ne!(run(RunningHash::ZERO, &[a]), run(RunningHash([9; 32]), &[a]));
        let middle = run(RunningHash::ZERO, &[a]);
        assert_eq!(run(middle, &[b]), run(RunningHash::ZERO, &[a, b]));
    }

    #[test]
    fn a_prefix_can_be_looked_at_and_continued() {
        let record =
            |start, end| Record { wal: 4u64.to_string().parse().unwrap(), start, end, payload: vec![1, 2, 3].into() };
        let mut whole = WalPrefix::new(&HashKey::CLEAR);
        whole.push(&record(0, 10));
        let first = whole.value();
        let mut other = whole.clone();
        whole.push(&record(10, 20));
        assert_ne!(first, whole.value());
        other.push(&record(10, 20));
        assert_eq!(other.value(), whole.value());
    }

    #[test]
    fn a_prefix_is_one_hash_over_its_records_however_they_were_fed() {
        for key in [HashKey::CLEAR, HashKey::keyed(Secret::new([3; 32]))] {
            let (mut prefix, mut whole) = (WalPrefix::new(&key), Vec::new());
            for (n, len) in [0, 1, 400, 40_000, 30_000, 20, 70_000, 5, 64 << 10, 24, 300_000].into_iter().enumerate() {
                let (start, end) = (n as u64 * 1000, n as u64 * 1000 + 999);
                let record = Record { wal: FileNumber::new(4), start, end, payload: vec![n as u8; len].into() };
                prefix.push(&record);
                whole.extend([start, end, len as u64].iter().flat_map(|n| n.to_le_bytes()));
                whole.extend_from_slice(&record.payload);
                assert_eq!(prefix.value(), ContentHash(*key.hasher().update(&whole).finalize().as_bytes()));
                assert_eq!(prefix.clone().value(), prefix.value());
            }
        }
    }
}
