//! Sub-batches: how many numbers a batch consumes where every sub-batch consumes one.
//!
//! Owns: where a sub-batch ends, and whether a key comes again in one. A hash of every key tells nearly always that none
//! does; where two hashes are equal, the keys themselves are compared in a second pass.

use std::collections::HashSet;

use crate::{
    ids::ColumnFamilyId,
    rocks::write_batch::{BatchError, Op, Summary, WriteBatch},
};

/// The sub-batches of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batches {
    /// So many.
    pub count: u64,
    /// The last operation ended one.
    pub ended: bool,
}

impl Batches {
    /// One pass over the batch for both, two where hashes are equal.
    pub fn scan(batch: &WriteBatch<'_>, summary: &mut Summary, scratch: &mut Fingerprints) -> Result<Self, BatchError> {
        scratch.begin(batch);
        let mut repeats = false;
        let mut counter = Counter::new(|key| repeats |= !scratch.is_new(key));
        batch.scan_with(summary, |op| counter.op(op))?;
        let found = counter.found;
        if !repeats {
            return Ok(found);
        }
        let (mut seen, mut again) = (Seen::new(Memory::Exact), 0);
        let mut counter = Counter::new(|key| again += u64::from(seen.comes_again(key)));
        for op in batch.ops() {
            counter.op(&op?);
        }
        Ok(Self { count: found.count + again, ..found })
    }
}

/// Whether RocksDB, when it recovers this prepared batch and its data is in files already, counts fewer sub-batches than
/// the batch has: of a key that comes again it forgets at once that it was there (`DuplicateDetector`, 11.8). The numbers
/// of the last sub-batches are then taken for committed.
pub fn recovery_miscounts(batch: &WriteBatch<'_>) -> Result<bool, BatchError> {
    let (mut exact, mut recovery) = (Seen::new(Memory::Exact), Seen::new(Memory::OfRecovery));
    let mut missed = false;
    let mut counter = Counter::new(|key| missed |= exact.comes_again(key) != recovery.comes_again(key));
    for op in batch.ops() {
        counter.op(&op?);
    }
    Ok(missed)
}

/// A key that is written, or the first one of a range: ranges are kept apart, as RocksDB's memtables do.
#[derive(Clone, Copy)]
struct Key<'a> {
    /// Markers that ended a sub-batch before it.
    sub_batch: u64,
    family: ColumnFamilyId,
    range: bool,
    bytes: &'a [u8],
}

/// What is remembered of a key that comes again, and so begins another sub-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// That it is the first of the new one.
    Exact,
    /// Nothing.
    OfRecovery,
}

/// The keys of the present sub-batch.
struct Seen<'a> {
    memory: Memory,
    sub_batch: u64,
    keys: HashSet<(ColumnFamilyId, bool, &'a [u8])>,
}

impl<'a> Seen<'a> {
    fn new(memory: Memory) -> Self {
        Self { memory, sub_batch: 0, keys: HashSet::new() }
    }

    fn comes_again(&mut self, key: Key<'a>) -> bool {
        if key.sub_batch != self.sub_batch {
            self.sub_batch = key.sub_batch;
            self.keys.clear();
        }
        let which = (key.family, key.range, key.bytes);
        let again = !self.keys.insert(which);
        if again {
            self.keys.clear();
            if self.memory == Memory::Exact {
                self.keys.insert(which);
            }
        }
        again
    }
}

/// Counts the markers that end a sub-batch, and shows every key.
struct Counter<F> {
    found: Batches,
    /// Something has come since the last end.
    open: bool,
    key: F,
}

impl<'a, F: FnMut(Key<'a>)> Counter<F> {
    const fn new(key: F) -> Self {
        Self { found: Batches { count: 0, ended: false }, open: false, key }
    }

    #[inline(always)]
    fn op(&mut self, op: &Op<'a>) {
        self.found.ended = false;
        match op {
            Op::LogData { .. } | Op::BeginPrepare { .. } => self.open = true,
            Op::Noop if !self.open => {}
            Op::Noop
            | Op::EndPrepare { .. }
            | Op::Commit { .. }
            | Op::CommitWithTimestamp { .. }
            | Op::Rollback { .. } => {
                self.found.count += 1;
                self.open = false;
                self.found.ended = true;
            }
            Op::Put { .. }
            | Op::Delete { .. }
            | Op::SingleDelete { .. }
            | Op::Merge { .. }
            | Op::DeleteRange { .. }
            | Op::PutEntity { .. }
            | Op::TimedPut { .. }
            | Op::BlobIndex { .. } => {
                self.open = true;
                let (Some(family), Some(bytes)) = (op.column_family(), op.key()) else { return };
                let range = matches!(op, Op::DeleteRange { .. });
                (self.key)(Key { sub_batch: self.found.count, family, range, bytes });
            }
        }
    }
}

/// A set of hashes. Its memory is used from batch to batch; what it holds means nothing between two.
#[derive(Clone, Debug, Default)]
pub(super) struct Fingerprints {
    /// Open addressing; zero is free.
    slots: Vec<u64>,
    /// Of the batch: a power of two, more than twice its keys.
    in_use: usize,
    /// Keys that the batch can still have, by its header.
    due: usize,
}

/// Only memory to be used again: all are the same.
impl PartialEq for Fingerprints {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Fingerprints {}

impl Fingerprints {
    fn begin(&mut self, batch: &WriteBatch<'_>) {
        // The header's count is a claim until the batch was gone through; no operation is shorter than two bytes.
        let keys = (batch.count() as usize).min(batch.bytes().len() / 2);
        self.due = keys;
        self.in_use = (2 * keys + 2).next_power_of_two();
        if self.slots.len() < self.in_use {
            self.slots.resize(self.in_use, 0);
        }
        if let Some(in_use) = self.slots.get_mut(..self.in_use) {
            in_use.fill(0);
        }
    }

    /// Notes a key. Never true for one that came before in its sub-batch; false may be an error.
    #[inline]
    fn is_new(&mut self, key: Key<'_>) -> bool {
        // A batch with more keys than its header says is refused in the end; until then there must be a free slot.
        let Some(due) = self.due.checked_sub(1) else { return false };
        self.due = due;
        let hash = fingerprint(&key).max(1);
        let mask = self.in_use.wrapping_sub(1);
        let mut at = (hash >> 32) as usize & mask;
        while let Some(slot) = self.slots.get_mut(at) {
            if *slot == 0 {
                *slot = hash;
                return true;
            }
            if *slot == hash {
                return false;
            }
            at = at.wrapping_add(1) & mask;
        }
        false
    }
}

/// A hash of a key in its sub-batch. Equal ones have equal hashes; of different ones nothing is promised.
#[inline]
fn fingerprint(key: &Key<'_>) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(29) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let bytes = key.bytes;
    let which = u64::from(key.family.get()) << 1 | u64::from(key.range);
    let about = (key.sub_batch ^ which.rotate_left(16)) ^ (bytes.len() as u64).rotate_left(32);
    let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) else {
        return mix(about, bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    };
    // The first word and the last overlap in what is shorter than two.
    let mut hash = mix(about, u64::from_le_bytes(*first).wrapping_add(u64::from_le_bytes(*last).rotate_left(23)));
    for word in bytes.get(8..bytes.len() - 8).unwrap_or_default().chunks(8) {
        hash = mix(hash, word.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }
    hash
}
