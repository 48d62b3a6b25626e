//! Write batches: what a logical WAL record holds (RocksDB's `db/write_batch.cc`).
//!
//! Layout: `fixed64 sequence | fixed32 count | operations`; an operation is a tag byte, for a column family other than
//! the default its id, and length-prefixed fields. `count` counts data operations, prepared ones included.
//! Owns: every tag that RocksDB writes to a log, up to 11.8. An unknown tag is an error: none may be skipped.
//! Refuses: to interpret keys, values, timestamps or blob references.

mod builder;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, ops::Range};

use serde::{Deserialize, Serialize};

pub use self::builder::WriteBatchBuilder;
use super::coding::{CodingError, Decoder};
use crate::ids::{ColumnFamilyId, SequenceNumber};

/// Bytes before the first operation.
pub const HEADER_SIZE: usize = 12;

/// RocksDB's `ValueType` as it appears in write batches.
mod tag {
    pub(super) const DELETION: u8 = 0x00;
    pub(super) const VALUE: u8 = 0x01;
    pub(super) const MERGE: u8 = 0x02;
    pub(super) const LOG_DATA: u8 = 0x03;
    pub(super) const CF_DELETION: u8 = 0x04;
    pub(super) const CF_VALUE: u8 = 0x05;
    pub(super) const CF_MERGE: u8 = 0x06;
    pub(super) const SINGLE_DELETION: u8 = 0x07;
    pub(super) const CF_SINGLE_DELETION: u8 = 0x08;
    pub(super) const BEGIN_PREPARE: u8 = 0x09;
    pub(super) const END_PREPARE: u8 = 0x0A;
    pub(super) const COMMIT: u8 = 0x0B;
    pub(super) const ROLLBACK: u8 = 0x0C;
    pub(super) const NOOP: u8 = 0x0D;
    pub(super) const CF_RANGE_DELETION: u8 = 0x0E;
    pub(super) const RANGE_DELETION: u8 = 0x0F;
    pub(super) const CF_BLOB_INDEX: u8 = 0x10;
    pub(super) const BLOB_INDEX: u8 = 0x11;
    pub(super) const BEGIN_PERSISTED_PREPARE: u8 = 0x12;
    pub(super) const BEGIN_UNPREPARE: u8 = 0x13;
    pub(super) const COMMIT_AND_TIMESTAMP: u8 = 0x15;
    pub(super) const WIDE_COLUMN_ENTITY: u8 = 0x16;
    pub(super) const CF_WIDE_COLUMN_ENTITY: u8 = 0x17;
    pub(super) const VALUE_PREFERRED_SEQNO: u8 = 0x18;
    pub(super) const CF_VALUE_PREFERRED_SEQNO: u8 = 0x19;
}

/// The tag of [`Op::Noop`], a whole operation by itself.
pub(super) const NOOP: u8 = tag::NOOP;

/// Why a write batch cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header.
    #[error("a write batch of {len} bytes is shorter than its header")]
    TooSmall {
        /// Bytes there are.
        len: usize,
    },
    /// A tag that RocksDB does not write to logs, or one of a later version.
    #[error("unknown operation tag {tag:#04x} at offset {offset} of the write batch")]
    UnknownTag {
        /// Offset in the batch.
        offset: usize,
        /// The tag byte.
        tag: u8,
    },
    /// A field is cut off or malformed.
    #[error("in the operation with tag {tag:#04x} at offset {offset} of the write batch: {source}")]
    Malformed {
        /// Offset of the operation in the batch.
        offset: usize,
        /// The tag byte.
        tag: u8,
        /// What is wrong; its offset is in the batch too.
        source: CodingError,
    },
    /// A value with a preferred time has no room for the time.
    #[error("the value of the timed put at offset {offset} of the write batch has no time")]
    NoTime {
        /// Offset of the operation in the batch.
        offset: usize,
    },
    /// The header counts other than what is there.
    #[error("the write batch's header counts {header} data operations, there are {found}")]
    WrongCount {
        /// In the header.
        header: u32,
        /// Found.
        found: u64,
    },
    /// A prepare section is not closed, not opened, or opened twice.
    #[error("unbalanced prepare section at offset {offset} of the write batch")]
    UnbalancedPrepare {
        /// Offset of the operation, or of the batch's end.
        offset: usize,
    },
}

/// Which transaction write policy wrote a prepare section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WritePolicy {
    /// `BeginPrepareXID`: data takes effect at the commit.
    WriteCommitted,
    /// `BeginPersistedPrepareXID`.
    WritePrepared,
    /// `BeginUnprepareXID`.
    WriteUnprepared,
}

/// One operation of a write batch. Keys include the user-defined timestamp where the column family has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields say what they are
pub enum Op<'a> {
    /// Put.
    Put { cf: ColumnFamilyId, key: &'a [u8], value: &'a [u8] },
    /// Delete.
    Delete { cf: ColumnFamilyId, key: &'a [u8] },
    /// SingleDelete.
    SingleDelete { cf: ColumnFamilyId, key: &'a [u8] },
    /// Merge.
    Merge { cf: ColumnFamilyId, key: &'a [u8], operand: &'a [u8] },
    /// DeleteRange: from `begin` up to, not including, `end`.
    DeleteRange { cf: ColumnFamilyId, begin: &'a [u8], end: &'a [u8] },
    /// PutEntity: serialised wide columns.
    PutEntity { cf: ColumnFamilyId, key: &'a [u8], entity: &'a [u8] },
    /// TimedPut: a value and the write time (Unix, seconds) it shall be taken to have.
    TimedPut { cf: ColumnFamilyId, key: &'a [u8], value: &'a [u8], unix_time: u64 },
    /// A reference to a value in a blob file. Only stacked BlobDB and blob direct write put these into a log; RocksDB
    /// itself cannot replay them.
    BlobIndex { cf: ColumnFamilyId, key: &'a [u8], index: &'a [u8] },
    /// An application's remark: only in the log, never in the database.
    LogData { blob: &'a [u8] },
    /// Nothing; separates sub-batches of prepared transactions.
    Noop,
    /// The following operations belong to a transaction being prepared.
    BeginPrepare { policy: WritePolicy },
    /// Ends a prepare section and names its transaction.
    EndPrepare { xid: &'a [u8] },
    /// The transaction takes effect.
    Commit { xid: &'a [u8] },
    /// The transaction takes effect with this timestamp in its keys.
    CommitWithTimestamp { xid: &'a [u8], timestamp: &'a [u8] },
    /// The transaction is abandoned.
    Rollback { xid: &'a [u8] },
}

impl<'a> Op<'a> {
    /// Whether the operation counts in the header and (outside prepare sections) consumes a sequence number.
    pub const fn is_data(&self) -> bool {
        self.column_family().is_some()
    }

    /// The column family it writes to; `None` for operations that are no data.
    pub const fn column_family(&self) -> Option<ColumnFamilyId> {
        match self {
            Self::Put { cf, .. }
            | Self::Delete { cf, .. }
            | Self::SingleDelete { cf, .. }
            | Self::Merge { cf, .. }
            | Self::DeleteRange { cf, .. }
            | Self::PutEntity { cf, .. }
            | Self::TimedPut { cf, .. }
            | Self::BlobIndex { cf, .. } => Some(*cf),
            Self::LogData { .. }
            | Self::Noop
            | Self::BeginPrepare { .. }
            | Self::EndPrepare { .. }
            | Self::Commit { .. }
            | Self::CommitWithTimestamp { .. }
            | Self::Rollback { .. } => None,
        }
    }

    /// The key (the first key of a range), if it has one.
    pub const fn key(&self) -> Option<&'a [u8]> {
        match self {
            Self::Put { key, .. }
            | Self::Delete { key, .. }
            | Self::SingleDelete { key, .. }
            | Self::Merge { key, .. }
            | Self::PutEntity { key, .. }
            | Self::TimedPut { key, .. }
            | Self::BlobIndex { key, .. } => Some(key),
            Self::DeleteRange { begin, .. } => Some(begin),
            _ => None,
        }
    }
}

/// A write batch over borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct WriteBatch<'a> {
    sequence: SequenceNumber,
    count: u32,
    bytes: &'a [u8],
}

impl<'a> WriteBatch<'a> {
    /// Reads the header; operations are decoded on demand.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let mut decoder = Decoder::new(bytes);
        match (decoder.fixed64(), decoder.fixed32()) {
            (Ok(sequence), Ok(count)) => Ok(Self { sequence: SequenceNumber::new(sequence), count, bytes }),
            _ => Err(BatchError::TooSmall { len: bytes.len() }),
        }
    }

    /// The sequence number of the first data operation that consumes one.
    pub const fn sequence(&self) -> SequenceNumber {
        self.sequence
    }

    /// The header's count of data operations.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The whole batch.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The operations in order, each with its offset in the batch; after an error nothing follows.
    pub fn ops(&self) -> Ops<'a> {
        let mut decoder = Decoder::new(self.bytes);
        let broken = decoder.bytes(HEADER_SIZE).is_err();
        Ops { decoder, broken }
    }

    /// One pass over all operations: everything is decodable, the count is right, prepare sections are balanced; and
    /// what the batch amounts to.
    pub fn scan(&self) -> Result<Summary, BatchError> {
        let mut summary = Summary::default();
        self.scan_into(&mut summary)?;
        Ok(summary)
    }

    /// [`WriteBatch::scan`] into a summary whose memory is used again; what it said before is forgotten.
    pub fn scan_into(&self, summary: &mut Summary) -> Result<(), BatchError> {
        self.scan_with(summary, |_| ())
    }

    /// [`WriteBatch::scan_into`] for somebody who looks at every operation himself in the same pass.
    #[inline(always)]
    pub(super) fn scan_with(&self, summary: &mut Summary, mut visit: impl FnMut(&Op<'a>)) -> Result<(), BatchError> {
        summary.clear();
        let mut in_prepare = false;
        let mut section_from = 0;
        let mut last_cf = None;
        let mut ops = self.ops();
        loop {
            let offset = ops.offset();
            let Some(op) = ops.next().transpose()? else { break };
            visit(&op);
            if let Some(cf) = op.column_family() {
                summary.data_ops += 1;
                if in_prepare {
                    summary.prepared_ops += 1;
                }
                if last_cf != Some(cf) {
                    last_cf = Some(cf);
                    summary.column_families.insert(cf);
                }
            }
            let named = |xid: &[u8]| ops.offset().saturating_sub(xid.len())..ops.offset();
            match op {
                Op::BlobIndex { .. } => summary.blob_indexes += 1,
                Op::TimedPut { .. } => summary.timed_puts += 1,
                Op::Merge { .. } => summary.merges += 1,
                Op::LogData { .. } => summary.log_data += 1,
                Op::Noop => summary.noops += 1,
                Op::BeginPrepare { policy } => {
                    if in_prepare {
                        return Err(BatchError::UnbalancedPrepare { offset });
                    }
                    in_prepare = true;
                    section_from = summary.prepared_ops;
                    let markers = summary.two_phase.get_or_insert_default();
                    // WriteUnprepared writes a transaction's last section with WritePrepared's tag.
                    if markers.policy != Some(WritePolicy::WriteUnprepared) {
                        markers.policy = Some(policy);
                    }
                }
                Op::EndPrepare { xid } => {
                    if !in_prepare {
                        return Err(BatchError::UnbalancedPrepare { offset });
                    }
                    in_prepare = false;
                    summary.two_phase.get_or_insert_default().prepares += 1;
                    let operations = summary.prepared_ops - section_from;
                    summary.decisions.push(Decision::Prepared { xid: named(xid), operations });
                }
                Op::Commit { xid } => {
                    summary.two_phase.get_or_insert_default().commits += 1;
                    summary.decisions.push(Decision::Committed { xid: named(xid) });
                }
                Op::CommitWithTimestamp { xid, .. } => {
                    summary.decisions.push(Decision::Committed { xid: named(xid) });
                    let two_phase = summary.two_phase.get_or_insert_default();
                    two_phase.commits += 1;
                    two_phase.commits_with_timestamp += 1;
                }
                Op::Rollback { xid } => {
                    summary.two_phase.get_or_insert_default().rollbacks += 1;
                    summary.decisions.push(Decision::RolledBack { xid: named(xid) });
                }
                Op::Put { .. }
                | Op::Delete { .. }
                | Op::SingleDelete { .. }
                | Op::DeleteRange { .. }
                | Op::PutEntity { .. } => {}
            }
        }
        if in_prepare {
            return Err(BatchError::UnbalancedPrepare { offset: self.bytes.len() });
        }
        if u64::from(self.count) != summary.data_ops {
            return Err(BatchError::WrongCount { header: self.count, found: summary.data_ops });
        }
        Ok(())
    }
}

/// What a batch amounts to ([`WriteBatch::scan`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Data operations, prepared ones included; equals the header's count.
    pub data_ops: u64,
    /// Data operations inside prepare sections.
    pub prepared_ops: u64,
    /// Application remarks.
    pub log_data: u64,
    /// Noops.
    pub noops: u64,
    /// Merge operands.
    pub merges: u64,
    /// Values with a time of their own.
    pub timed_puts: u64,
    /// References into blob files: the batch cannot be replayed.
    pub blob_indexes: u64,
    /// Column families that data operations name, whether they exist or not.
    pub column_families: BTreeSet<ColumnFamilyId>,
    /// Markers of two-phase commit, if there are any.
    pub two_phase: Option<TwoPhaseMarkers>,
    /// The same one by one, in their order, with the names of their transactions.
    #[serde(skip)]
    pub decisions: Vec<Decision>,
}

/// What a batch does to a transaction. Names are ranges of the batch's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields say what they are
pub enum Decision {
    /// A prepare section with this many data operations.
    Prepared { xid: Range<usize>, operations: u64 },
    /// The transaction takes effect.
    Committed { xid: Range<usize> },
    /// The transaction is abandoned.
    RolledBack { xid: Range<usize> },
}

/// Markers of two-phase commit in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwoPhaseMarkers {
    /// The policy that the batch's prepare sections show; `None` if it has none.
    pub policy: Option<WritePolicy>,
    /// Complete prepare sections.
    pub prepares: u64,
    /// Commits, with and without timestamp.
    pub commits: u64,
    /// Commits with timestamp.
    pub commits_with_timestamp: u64,
    /// Rollbacks.
    pub rollbacks: u64,
}

impl Summary {
    /// As of an empty batch; lists keep their memory.
    fn clear(&mut self) {
        let Self { mut column_families, mut decisions, .. } = std::mem::take(self);
        column_families.clear();
        decisions.clear();
        *self = Self { column_families, decisions, ..Self::default() };
    }

    /// How far the batch moves the sequence under the default write policy: one for each data operation, also when its
    /// column family does not exist. `None` when two-phase commit markers make it depend on other records.
    pub const fn sequence_advance(&self) -> Option<u64> {
        match self.two_phase {
            None => Some(self.data_ops),
            Some(_) => None,
        }
    }

    /// Data operations outside prepare sections: what a WriteCommitted batch consumes beside its commits.
    pub const fn unprepared_ops(&self) -> u64 {
        self.data_ops.saturating_sub(self.prepared_ops)
    }
}

/// Iterator over a batch's operations.
#[derive(Clone, Debug)]
pub struct Ops<'a> {
    decoder: Decoder<'a>,
    broken: bool,
}

impl<'a> Ops<'a> {
    /// Offset in the batch of the operation that comes next.
    pub const fn offset(&self) -> usize {
        self.decoder.offset()
    }

    #[inline(always)]
    fn op(&mut self, offset: usize, tag: u8) -> Result<Op<'a>, BatchError> {
        let d = &mut self.decoder;
        let malformed = |source| BatchError::Malformed { offset, tag, source };
        let cf = match tag {
            tag::CF_DELETION
            | tag::CF_VALUE
            | tag::CF_MERGE
            | tag::CF_SINGLE_DELETION
            | tag::CF_RANGE_DELETION
            | tag::CF_BLOB_INDEX
            | tag::CF_WIDE_COLUMN_ENTITY
            | tag::CF_VALUE_PREFERRED_SEQNO => ColumnFamilyId::new(d.varint32().map_err(malformed)?),
            _ => ColumnFamilyId::DEFAULT,
        };
        let mut field = || d.length_prefixed().map_err(malformed);
        Ok(match tag {
            tag::VALUE | tag::CF_VALUE => Op::Put { cf, key: field()?, value: field()? },
            tag::DELETION | tag::CF_DELETION => Op::Delete { cf, key: field()? },
            tag::SINGLE_DELETION | tag::CF_SINGLE_DELETION => Op::SingleDelete { cf, key: field()? },
            tag::MERGE | tag::CF_MERGE => Op::Merge { cf, key: field()?, operand: field()? },
            tag::RANGE_DELETION | tag::CF_RANGE_DELETION => Op::DeleteRange { cf, begin: field()?, end: field()? },
            tag::WIDE_COLUMN_ENTITY | tag::CF_WIDE_COLUMN_ENTITY => {
                Op::PutEntity { cf, key: field()?, entity: field()? }
            }
            tag::VALUE_PREFERRED_SEQNO | tag::CF_VALUE_PREFERRED_SEQNO => {
                let (key, packed) = (field()?, field()?);
                let (value, time) = packed.split_last_chunk::<8>().ok_or(BatchError::NoTime { offset })?;
                Op::TimedPut { cf, key, value, unix_time: u64::from_le_bytes(*time) }
            }
            tag::BLOB_INDEX | tag::CF_BLOB_INDEX => Op::BlobIndex { cf, key: field()?, index: field()? },
            tag::LOG_DATA => Op::LogData { blob: field()? },
            tag::NOOP => Op::Noop,
            tag::BEGIN_PREPARE => Op::BeginPrepare { policy: WritePolicy::WriteCommitted },
            tag::BEGIN_PERSISTED_PREPARE => Op::BeginPrepare { policy: WritePolicy::WritePrepared },
            tag::BEGIN_UNPREPARE => Op::BeginPrepare { policy: WritePolicy::WriteUnprepared },
            tag::END_PREPARE => Op::EndPrepare { xid: field()? },
            tag::COMMIT => Op::Commit { xid: field()? },
            // The timestamp comes first.
            tag::COMMIT_AND_TIMESTAMP => Op::CommitWithTimestamp { timestamp: field()?, xid: field()? },
            tag::ROLLBACK => Op::Rollback { xid: field()? },
            tag => return Err(BatchError::UnknownTag { offset, tag }),
        })
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Result<Op<'a>, BatchError>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.broken {
            return None;
        }
        let offset = self.decoder.offset();
        let tag = self.decoder.byte().ok()?;
        let op = self.op(offset, tag);
        self.broken = op.is_err();
        Some(op)
    }
}
