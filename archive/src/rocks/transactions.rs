//! Two-phase commit: which transactions are prepared, and how many sequence numbers a record therefore consumes.
//!
//! Owns: the rule of RocksDB's `MemTableInserter` (db/write_batch.cc), which is the same for a live write and for
//! recovery. Under WriteCommitted (and without transactions) every data operation outside a prepare section consumes one
//! number, and a commit as many as its prepare section has operations. Under WritePrepared and WriteUnprepared every
//! sub-batch consumes one: it ends at the end of a prepare section, at a commit, a rollback, or a Noop behind anything;
//! and a key that comes again inside a sub-batch begins another.
//! Refuses: to guess. A commit whose prepare section was not seen has an unknown effect, and the answer says so.
//!
//! The write policy is not stored anywhere: it is read off the tags, and stays until a record contradicts it. A database
//! whose policy is still unknown, and that writes a batch whose last operation is a Noop, is taken for WritePrepared,
//! which ends every batch so; under WriteCommitted only an empty transaction that shares a record with another writer
//! looks the same. The next record's number then contradicts, and the archiver makes that a barrier.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    ops::Range,
};

use serde::{Deserialize, Serialize};

use super::{
    name::Name,
    write_batch::{BatchError, Decision, NOOP, Op, Summary, WriteBatch, WritePolicy},
};
use crate::ids::{ColumnFamilyId, FileNumber, RecordNumber, hex_byte};

/// A transaction's name: any bytes. Stored in hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(Box<[u8]>);

impl Xid {
    /// As stored in the log.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Xid {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

/// As people read it: text where it is UTF-8, otherwise hexadecimal after `0x`.
impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Name::new(self.0.clone()).fmt(f)
    }
}

impl fmt::Debug for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for Xid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = self.0.iter().map(|b| format!("{b:02x}")).collect();
        serializer.serialize_str(&digits)
    }
}

impl<'de> Deserialize<'de> for Xid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(hex_byte).collect();
        bytes
            .map(|bytes| Self(bytes.into()))
            .ok_or_else(|| serde::de::Error::custom("a transaction's name is not in hexadecimal"))
    }
}

/// A prepared transaction that is neither committed nor rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Data operations in its prepare sections.
    pub operations: u64,
    /// The WAL of its first prepare section.
    pub wal: FileNumber,
    /// The record that holds it.
    pub record: RecordNumber,
}

/// How many sequence numbers a record consumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// So many.
    Exactly(u64),
    /// At least so many: it commits a transaction whose prepare section was not seen, or prepares one a second time.
    /// Recovery that begins behind an unseen section consumes this many: what was prepared there is in files already.
    AtLeast(u64),
}

/// The transactions that are pending at a place of the log. The default is that of a log's beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transactions {
    /// The database's write policy, as far as its tags have shown it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<WritePolicy>,
    /// By name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    prepared: BTreeMap<Xid, Prepared>,
    /// Empty; its memory is used again.
    #[serde(skip)]
    scratch: Vec<u64>,
}

impl Transactions {
    /// Nothing is pending and no policy is known: what most databases have always, and segments do not store.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What is pending.
    pub fn pending(&self) -> impl ExactSizeIterator<Item = (&Xid, &Prepared)> {
        self.prepared.iter()
    }

    /// The write policy, once it is known.
    pub const fn policy(&self) -> Option<WritePolicy> {
        self.policy
    }

    /// What recovery knows that begins here: the policy, and none of the transactions prepared before.
    pub const fn recovering(policy: Option<WritePolicy>) -> Self {
        Self { policy, prepared: BTreeMap::new(), scratch: Vec::new() }
    }

    /// Whether sub-batches consume numbers, and not operations.
    pub const fn counts_batches(&self) -> bool {
        matches!(self.policy, Some(WritePolicy::WritePrepared | WritePolicy::WriteUnprepared))
    }

    /// How many numbers the open of such a database consumes, unless nothing was ever written to it: one where
    /// sub-batches count, and where this record of it looks as if they did.
    pub fn consumed_by_open(&self, batch: &WriteBatch<'_>, summary: &Summary) -> u64 {
        u64::from(self.counts_batches() || self.policy.is_none() && may_end_with_noop(batch, summary))
    }

    /// The records from `first` up to, not including, `end` never were: the server took them back. What they committed
    /// or rolled back is not brought back: the barrier at the same place keeps every replay from crossing it.
    pub fn withdraw(&mut self, first: RecordNumber, end: RecordNumber) {
        self.prepared.retain(|_, prepared| prepared.record < first || prepared.record >= end);
    }

    /// Goes past a record.
    pub fn apply(
        &mut self,
        batch: &WriteBatch<'_>,
        summary: &Summary,
        wal: FileNumber,
        record: RecordNumber,
    ) -> Result<Advance, BatchError> {
        let plain = summary.two_phase.is_none() && !self.counts_batches();
        if plain && (self.policy.is_some() || !may_end_with_noop(batch, summary)) {
            return Ok(Advance::Exactly(summary.data_ops));
        }
        if let Some(shown) = summary.two_phase.and_then(|markers| markers.policy) {
            // WriteUnprepared writes its last section with WritePrepared's tag.
            let both = self.policy == Some(WritePolicy::WriteUnprepared) && shown == WritePolicy::WritePrepared;
            self.policy = if both { self.policy } else { Some(shown) };
        }
        let decided = self.decide(batch, summary, wal, record);
        let outside = summary.unprepared_ops();
        let sum = outside.saturating_add(decided.committed);
        if decided.prepared_again {
            // Recovery would take the first of the two sections, the server took the second.
            return Ok(Advance::AtLeast(sum));
        }
        let by_operation = if decided.unseen { Advance::AtLeast(sum) } else { Advance::Exactly(sum) };
        if self.policy == Some(WritePolicy::WriteCommitted) {
            return Ok(by_operation);
        }
        let mut batches = Batches { keys: Keys::Fingerprints(std::mem::take(&mut self.scratch)), ..Batches::default() };
        batches.all(batch)?;
        if let Keys::Fingerprints(mut scratch) = std::mem::take(&mut batches.keys) {
            scratch.clear();
            self.scratch = scratch;
        }
        if batches.repeats {
            batches = Batches { keys: Keys::Exact(HashSet::new()), ..Batches::default() };
            batches.all(batch)?;
        }
        let by_batch = Advance::Exactly(batches.count);
        if self.counts_batches() {
            if batches.ended || outside == 0 {
                return Ok(by_batch);
            }
            // Such a database would have ended the batch: it is opened in another way now.
            self.policy = None;
            return Ok(Advance::Exactly(summary.data_ops));
        }
        // Without a policy there is a marker, or the batch may show the policy by its end.
        if by_operation == by_batch {
            return Ok(by_batch);
        }
        if summary.two_phase.is_some() {
            return Ok(Advance::AtLeast(outside.min(batches.count)));
        }
        if batches.ended {
            self.policy = Some(WritePolicy::WritePrepared);
            return Ok(by_batch);
        }
        Ok(by_operation)
    }

    /// Notes what the batch prepares, commits and rolls back.
    fn decide(&mut self, batch: &WriteBatch<'_>, summary: &Summary, wal: FileNumber, record: RecordNumber) -> Decided {
        let mut decided = Decided::default();
        let name = |xid: &Range<usize>| Xid::from(batch.bytes().get(xid.clone()).unwrap_or_default());
        for decision in &summary.decisions {
            match decision {
                Decision::Prepared { xid, operations } => {
                    let fresh = Prepared { operations: 0, wal, record };
                    let name = name(xid);
                    // Only a WriteUnprepared transaction has several sections.
                    if self.policy != Some(WritePolicy::WriteUnprepared) && self.prepared.remove(&name).is_some() {
                        decided.prepared_again = true;
                    }
                    let prepared = self.prepared.entry(name).or_insert(fresh);
                    prepared.operations = prepared.operations.saturating_add(*operations);
                }
                Decision::Committed { xid } => match self.prepared.remove(&name(xid)) {
                    Some(prepared) => decided.committed = decided.committed.saturating_add(prepared.operations),
                    None => decided.unseen = true,
                },
                Decision::RolledBack { xid } => drop(self.prepared.remove(&name(xid))),
            }
        }
        decided
    }
}

/// Whether the last operation can be a Noop: without a marker, only such a batch can show a policy that counts batches.
fn may_end_with_noop(batch: &WriteBatch<'_>, summary: &Summary) -> bool {
    summary.noops > 0 && batch.bytes().last() == Some(&NOOP)
}

/// What a batch decides.
#[derive(Default)]
struct Decided {
    /// Data operations that its commits make effective, as far as their sections were seen.
    committed: u64,
    /// A commit's section was not.
    unseen: bool,
    /// It prepares a transaction whose name is pending already: a write that failed left the first section in the log.
    prepared_again: bool,
}

/// Keys of a sub-batch. Ranges are kept apart, as RocksDB's memtables do.
enum Keys<'a> {
    /// Hashes: none of them twice means no key twice, and that is how nearly every batch is.
    Fingerprints(Vec<u64>),
    /// The keys themselves, to tell which come again.
    Exact(HashSet<(ColumnFamilyId, bool, &'a [u8])>),
}

impl Default for Keys<'_> {
    fn default() -> Self {
        Self::Fingerprints(Vec::new())
    }
}

/// Counts sub-batches.
#[derive(Default)]
struct Batches<'a> {
    count: u64,
    /// Of the present one.
    keys: Keys<'a>,
    /// With fingerprints: a key may have come again, so the count may be too low.
    repeats: bool,
    /// Something has come since the last end.
    open: bool,
    /// The last operation ended one.
    ended: bool,
}

impl<'a> Batches<'a> {
    fn all(&mut self, batch: &WriteBatch<'a>) -> Result<(), BatchError> {
        for op in batch.ops() {
            self.op(&op?);
        }
        self.end_keys();
        Ok(())
    }

    fn op(&mut self, op: &Op<'a>) {
        self.ended = false;
        match op {
            Op::LogData { .. } | Op::BeginPrepare { .. } => self.open = true,
            Op::Noop if !self.open => {}
            Op::Noop
            | Op::EndPrepare { .. }
            | Op::Commit { .. }
            | Op::CommitWithTimestamp { .. }
            | Op::Rollback { .. } => {
                self.count += 1;
                self.end_keys();
                self.open = false;
                self.ended = true;
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
                let (Some(family), Some(key)) = (op.column_family(), op.key()) else { return };
                self.key(family, matches!(op, Op::DeleteRange { .. }), key);
            }
        }
    }

    fn key(&mut self, family: ColumnFamilyId, range: bool, key: &'a [u8]) {
        match &mut self.keys {
            Keys::Fingerprints(seen) => seen.push(fingerprint(family, range, key)),
            Keys::Exact(seen) => {
                if !seen.insert((family, range, key)) {
                    self.count += 1;
                    seen.clear();
                    seen.insert((family, range, key));
                }
            }
        }
    }

    fn end_keys(&mut self) {
        match &mut self.keys {
            Keys::Fingerprints(seen) => {
                seen.sort_unstable();
                self.repeats |= seen.windows(2).any(|pair| matches!(pair, [a, b] if a == b));
                seen.clear();
            }
            Keys::Exact(seen) => seen.clear(),
        }
    }
}

/// A hash of a key. Equal keys have equal ones; of different ones nothing is promised.
fn fingerprint(family: ColumnFamilyId, range: bool, key: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(26) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut hash = mix(u64::from(family.get()) << 1 | u64::from(range), key.len() as u64);
    let mut words = key.chunks_exact(8);
    for word in &mut words {
        hash = mix(hash, word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }
    mix(hash, words.remainder().iter().fold(0, |word, byte| word << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests;
