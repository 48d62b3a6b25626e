//! Encoding of write batches.

use super::{HEADER_SIZE, Op, WritePolicy, tag};
use crate::{
    ids::{ColumnFamilyId, SequenceNumber},
    rocks::coding::{put_length_prefixed, put_varint},
};

/// Builds a write batch, byte for byte as RocksDB would.
#[derive(Clone, Debug)]
pub struct WriteBatchBuilder {
    bytes: Vec<u8>,
    count: u32,
}

impl WriteBatchBuilder {
    /// An empty batch.
    pub fn new(sequence: SequenceNumber) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_SIZE);
        bytes.extend_from_slice(&sequence.get().to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        Self { bytes, count: 0 }
    }

    /// Adds an operation. The default column family is written in the short form.
    pub fn push(&mut self, op: &Op<'_>) -> &mut Self {
        if op.is_data() {
            self.count = self.count.saturating_add(1);
        }
        let out = &mut self.bytes;
        let begin = |short: u8, long: u8, cf: &ColumnFamilyId, out: &mut Vec<u8>| {
            if *cf == ColumnFamilyId::DEFAULT {
                out.push(short);
            } else {
                out.push(long);
                put_varint(out, cf.get());
            }
        };
        match op {
            Op::Put { cf, key, value } => {
                begin(tag::VALUE, tag::CF_VALUE, cf, out);
                put_length_prefixed(out, key);
                put_length_prefixed(out, value);
            }
            Op::Delete { cf, key } => {
                begin(tag::DELETION, tag::CF_DELETION, cf, out);
                put_length_prefixed(out, key);
            }
            Op::SingleDelete { cf, key } => {
                begin(tag::SINGLE_DELETION, tag::CF_SINGLE_DELETION, cf, out);
                put_length_prefixed(out, key);
            }
            Op::Merge { cf, key, operand } => {
                begin(tag::MERGE, tag::CF_MERGE, cf, out);
                put_length_prefixed(out, key);
                put_length_prefixed(out, operand);
            }
            Op::DeleteRange { cf, begin: from, end } => {
                begin(tag::RANGE_DELETION, tag::CF_RANGE_DELETION, cf, out);
                put_length_prefixed(out, from);
                put_length_prefixed(out, end);
            }
            Op::PutEntity { cf, key, entity } => {
                begin(tag::WIDE_COLUMN_ENTITY, tag::CF_WIDE_COLUMN_ENTITY, cf, out);
                put_length_prefixed(out, key);
                put_length_prefixed(out, entity);
            }
            Op::TimedPut { cf, key, value, unix_time } => {
                begin(tag::VALUE_PREFERRED_SEQNO, tag::CF_VALUE_PREFERRED_SEQNO, cf, out);
                put_length_prefixed(out, key);
                put_varint(out, u64::try_from(value.len()).unwrap_or(u64::MAX).saturating_add(8));
                out.extend_from_slice(value);
                out.extend_from_slice(&unix_time.to_le_bytes());
            }
            Op::BlobIndex { cf, key, index } => {
                begin(tag::BLOB_INDEX, tag::CF_BLOB_INDEX, cf, out);
                put_length_prefixed(out, key);
                put_length_prefixed(out, index);
            }
            Op::LogData { blob } => {
                out.push(tag::LOG_DATA);
                put_length_prefixed(out, blob);
            }
            Op::Noop => out.push(tag::NOOP),
            Op::BeginPrepare { policy } => out.push(match policy {
                WritePolicy::WriteCommitted => tag::BEGIN_PREPARE,
                WritePolicy::WritePrepared => tag::BEGIN_PERSISTED_PREPARE,
                WritePolicy::WriteUnprepared => tag::BEGIN_UNPREPARE,
            }),
            Op::EndPrepare { xid } => {
                out.push(tag::END_PREPARE);
                put_length_prefixed(out, xid);
            }
            Op::Commit { xid } => {
                out.push(tag::COMMIT);
                put_length_prefixed(out, xid);
            }
            Op::CommitWithTimestamp { xid, timestamp } => {
                out.push(tag::COMMIT_AND_TIMESTAMP);
                put_length_prefixed(out, timestamp);
                put_length_prefixed(out, xid);
            }
            Op::Rollback { xid } => {
                out.push(tag::ROLLBACK);
                put_length_prefixed(out, xid);
            }
        }
        self
    }

    /// The batch's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        if let Some(count) = self.bytes.get_mut(8..HEADER_SIZE) {
            count.copy_from_slice(&self.count.to_le_bytes());
        }
        self.bytes
    }
}
