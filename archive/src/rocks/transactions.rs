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

mod batches;
mod xid;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Range,
};

use serde::{Deserialize, Serialize};

use self::batches::{Batches, Fingerprints};
pub use self::{batches::recovery_miscounts, xid::Xid};
use super::write_batch::{BatchError, Decision, NOOP, Summary, WriteBatch, WritePolicy};
use crate::ids::{FileNumber, RecordNumber};

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
    #[serde(skip)]
    scratch: Fingerprints,
}

/// A batch that was gone through once ([`Transactions::scan`]).
#[derive(Clone, Debug, Default)]
pub struct Scanned {
    /// What it amounts to.
    pub summary: Summary,
    /// Its sub-batches, where they were counted in the same pass.
    batches: Option<Batches>,
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
    pub fn recovering(policy: Option<WritePolicy>) -> Self {
        Self { policy, prepared: BTreeMap::new(), scratch: Fingerprints::default() }
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

    /// [`WriteBatch::scan`], which counts sub-batches in the same pass where the database is known to count them.
    pub fn scan(&mut self, batch: &WriteBatch<'_>) -> Result<Scanned, BatchError> {
        let mut scanned = Scanned::default();
        self.scan_into(batch, &mut scanned)?;
        Ok(scanned)
    }

    /// [`Transactions::scan`] into what was used for another batch before, whose memory is used again.
    pub fn scan_into(&mut self, batch: &WriteBatch<'_>, scanned: &mut Scanned) -> Result<(), BatchError> {
        scanned.batches = None;
        if self.counts_batches() {
            scanned.batches = Some(Batches::scan(batch, &mut scanned.summary, &mut self.scratch)?);
            return Ok(());
        }
        batch.scan_into(&mut scanned.summary)
    }

    /// Goes past a record.
    pub fn apply(
        &mut self,
        batch: &WriteBatch<'_>,
        Scanned { summary, batches }: &Scanned,
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
        let batches = match batches {
            Some(counted) => *counted,
            None => Batches::scan(batch, &mut Summary::default(), &mut self.scratch)?,
        };
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
        let name = |xid: &Range<usize>| batch.bytes().get(xid.clone()).unwrap_or_default();
        for decision in &summary.decisions {
            match decision {
                Decision::Prepared { xid, operations } => {
                    let fresh = Prepared { operations: 0, wal, record };
                    let prepared = match self.prepared.entry(Xid::from(name(xid))) {
                        Entry::Vacant(entry) => entry.insert(fresh),
                        Entry::Occupied(entry) => {
                            let prepared = entry.into_mut();
                            // Only a WriteUnprepared transaction has several sections.
                            if self.policy != Some(WritePolicy::WriteUnprepared) {
                                decided.prepared_again = true;
                                *prepared = fresh;
                            }
                            prepared
                        }
                    };
                    prepared.operations = prepared.operations.saturating_add(*operations);
                }
                Decision::Committed { xid } => match self.prepared.remove(name(xid)) {
                    Some(prepared) => decided.committed = decided.committed.saturating_add(prepared.operations),
                    None => decided.unseen = true,
                },
                Decision::RolledBack { xid } => drop(self.prepared.remove(name(xid))),
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

#[cfg(test)]
mod tests;
