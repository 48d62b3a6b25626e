//! Two-phase commit: which transactions are prepared, and how many sequence numbers a record therefore consumes.
//!
//! Owns: the rule of RocksDB's `MemTableInserter` (db/write_batch.cc), which is the same for a live write and for
//! recovery. Under WriteCommitted (and without transactions) every data operation outside a prepare section consumes one
//! number, and a commit as many as its prepare section has operations. Under WritePrepared and WriteUnprepared every
//! sub-batch consumes one: it ends at the end of a prepare section, at a commit, a rollback, or a Noop behind anything;
//! and a key that comes again inside a sub-batch begins another.
//! Refuses: to guess. A commit whose prepare section was not seen has an unknown effect, and the answer says so.
//!
//! The write policy is not stored anywhere: it is read off the tags, and stays until a record contradicts it. A database whose policy is still unknown, and that
//! writes a batch whose last operation is a Noop, is taken for WritePrepared, which ends every batch so; under
//! WriteCommitted only an empty transaction that shares a record with another writer looks the same. The next record's
//! number then contradicts, and the archiver makes that a barrier.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::{
    name::Name,
    write_batch::{BatchError, Op, Summary, WriteBatch, WritePolicy},
};
use crate::ids::{ColumnFamilyId, FileNumber, RecordNumber};

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
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        };
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
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
    /// At least so many: it commits a transaction whose prepare section was not seen. Recovery that begins behind that
    /// section consumes this many, because what was prepared there is in files already.
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
        Self { policy, prepared: BTreeMap::new() }
    }

    /// Whether sub-batches consume numbers, and not operations.
    pub const fn counts_batches(&self) -> bool {
        matches!(self.policy, Some(WritePolicy::WritePrepared | WritePolicy::WriteUnprepared))
    }

    /// The records from `first` on never were: the server took them back.
    pub fn withdraw_from(&mut self, first: RecordNumber) {
        self.prepared.retain(|_, prepared| prepared.record < first);
    }

    /// Goes past a record.
    pub fn apply(
        &mut self,
        batch: &WriteBatch<'_>,
        summary: &Summary,
        wal: FileNumber,
        record: RecordNumber,
    ) -> Result<Advance, BatchError> {
        if summary.two_phase.is_none() && !self.counts_batches() && (summary.noops == 0 || self.policy.is_some()) {
            return Ok(Advance::Exactly(summary.data_ops));
        }
        if let Some(shown) = summary.two_phase.and_then(|markers| markers.policy) {
            // WriteUnprepared writes its last section with WritePrepared's tag.
            let both = self.policy == Some(WritePolicy::WriteUnprepared) && shown == WritePolicy::WritePrepared;
            self.policy = if both { self.policy } else { Some(shown) };
        }
        let by_operation = self.policy.is_none_or(|policy| policy == WritePolicy::WriteCommitted);
        let by_batch = self.policy.is_none_or(|policy| policy != WritePolicy::WriteCommitted);
        let mut walk = Walk { sub_batch: by_batch.then(HashSet::new), ..Walk::default() };
        for op in batch.ops() {
            walk.op(self, &op?, wal, record);
        }
        if !by_operation && (walk.ends_a_batch || walk.operations == 0) {
            return Ok(Advance::Exactly(walk.batches));
        }
        if !by_operation {
            // Such a database would have ended the batch: it is opened in another way now.
            self.policy = None;
            return Ok(Advance::Exactly(summary.data_ops));
        }
        // Without a policy there is a marker, or the batch may show the policy by its end.
        if by_batch && summary.two_phase.is_some() && walk.batches != walk.operations {
            return Ok(Advance::AtLeast(walk.operations.min(walk.batches)));
        }
        if by_batch && summary.two_phase.is_none() && walk.ends_a_batch && walk.batches != walk.operations {
            self.policy = Some(WritePolicy::WritePrepared);
            return Ok(Advance::Exactly(walk.batches));
        }
        Ok(if walk.unseen { Advance::AtLeast(walk.operations) } else { Advance::Exactly(walk.operations) })
    }
}

/// One pass over a record's operations, counting in both ways.
#[derive(Default)]
struct Walk<'a> {
    /// Numbers consumed where operations count, without those of commits whose sections were not seen.
    operations: u64,
    /// There was such a commit.
    unseen: bool,
    /// Numbers consumed where sub-batches count.
    batches: u64,
    /// Keys of the present sub-batch, where that matters. Ranges are kept apart, as RocksDB's memtables do.
    sub_batch: Option<HashSet<(ColumnFamilyId, bool, &'a [u8])>>,
    /// Something has come since the last end of a sub-batch.
    open: bool,
    /// The last operation ended one.
    ends_a_batch: bool,
    /// Inside a prepare section: its data operations so far.
    section: Option<u64>,
}

impl<'a> Walk<'a> {
    fn op(&mut self, transactions: &mut Transactions, op: &Op<'a>, wal: FileNumber, record: RecordNumber) {
        self.ends_a_batch = false;
        match *op {
            Op::LogData { .. } => self.open = true,
            Op::BeginPrepare { .. } => {
                self.section = Some(0);
                self.open = true;
            }
            Op::EndPrepare { xid } => {
                let operations = self.section.take().unwrap_or_default();
                let unprepared = transactions.policy == Some(WritePolicy::WriteUnprepared);
                let prepared = transactions
                    .prepared
                    .entry(xid.into())
                    .and_modify(|known| {
                        // Only a WriteUnprepared transaction has several sections.
                        if !unprepared {
                            *known = Prepared { operations: 0, wal, record };
                        }
                    })
                    .or_insert(Prepared { operations: 0, wal, record });
                prepared.operations = prepared.operations.saturating_add(operations);
                self.end_batch();
            }
            Op::Commit { xid } | Op::CommitWithTimestamp { xid, .. } => {
                match transactions.prepared.remove(&Xid::from(xid)) {
                    Some(prepared) => self.operations = self.operations.saturating_add(prepared.operations),
                    None => self.unseen = true,
                }
                self.end_batch();
            }
            Op::Rollback { xid } => {
                transactions.prepared.remove(&Xid::from(xid));
                self.end_batch();
            }
            Op::Noop => {
                if self.open {
                    self.end_batch();
                }
            }
            Op::Put { .. }
            | Op::Delete { .. }
            | Op::SingleDelete { .. }
            | Op::Merge { .. }
            | Op::DeleteRange { .. }
            | Op::PutEntity { .. }
            | Op::TimedPut { .. }
            | Op::BlobIndex { .. } => self.data(op),
        }
    }

    fn data(&mut self, op: &Op<'a>) {
        self.open = true;
        match &mut self.section {
            Some(operations) => *operations += 1,
            None => self.operations += 1,
        }
        let (Some(keys), Some(family), Some(key)) = (&mut self.sub_batch, op.column_family(), op.key()) else { return };
        let key = (family, matches!(op, Op::DeleteRange { .. }), key);
        if !keys.insert(key) {
            self.batches += 1;
            keys.clear();
            keys.insert(key);
        }
    }

    fn end_batch(&mut self) {
        self.batches += 1;
        self.open = false;
        self.ends_a_batch = true;
        if let Some(keys) = &mut self.sub_batch {
            keys.clear();
        }
    }
}

#[cfg(test)]
mod tests;
