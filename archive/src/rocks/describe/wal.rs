//! A WAL in words.

use serde::Serialize;

use super::{Ending, Shown};
use crate::{
    ids::{ColumnFamilyId, FileNumber, SequenceNumber},
    rocks::{
        log_reader::{Finality, LogKind, LogReader, Metadata, Read},
        write_batch::{Op, Summary, WriteBatch, WritePolicy},
    },
};

/// One thing in a WAL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum WalLine {
    /// A record about the log itself.
    Metadata {
        /// Offset of its header.
        offset: u64,
        /// Offset after it.
        end: u64,
        /// What it says.
        metadata: Metadata,
    },
    /// A write batch.
    Batch(Box<BatchLine>),
    /// How reading ended; the last line.
    Ending(Ending),
}

/// A write batch: the columns of `ldb dump_wal` (Sequence, Count, ByteSize, Physical Offset, Key(s)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchLine {
    /// Physical offset of its record.
    pub offset: u64,
    /// Offset after its record.
    pub end: u64,
    /// Bytes of the batch after decompression.
    pub byte_size: usize,
    /// First sequence number; absent when not even the header can be read.
    pub sequence: Option<SequenceNumber>,
    /// The header's count.
    pub count: Option<u32>,
    /// How far it moves the sequence, where that does not depend on other records.
    pub sequence_advance: Option<u64>,
    /// Operations; empty when they were not asked for.
    pub ops: Vec<OpLine>,
    /// What it amounts to; absent when it cannot be decoded.
    pub summary: Option<Summary>,
    /// Why it cannot be decoded.
    pub error: Option<String>,
}

/// An operation, under the name that `ldb dump_wal` gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpLine {
    /// `PUT`, `DELETE`, `SINGLE_DELETE`, `MERGE`, `DELETE_RANGE`, `PUT_ENTITY`, `TIMED_PUT`, `BLOB_INDEX`, `LOG_DATA`,
    /// `NOOP`, `BEGIN_PREPARE`, `BEGIN_PERSISTED_PREPARE`, `BEGIN_UNPREPARE`, `END_PREPARE`, `COMMIT`,
    /// `COMMIT_WITH_TIMESTAMP`, `ROLLBACK`.
    pub op: &'static str,
    /// The column family that it writes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cf: Option<ColumnFamilyId>,
    /// Key, first key of a range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Shown>,
    /// End of a range, not included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_key: Option<Shown>,
    /// Value, operand, entity, blob reference or remark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Shown>,
    /// Transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xid: Option<Shown>,
    /// User-defined timestamp of a commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Shown>,
    /// Write time of a timed put, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unix_time: Option<u64>,
}

impl OpLine {
    /// Describes an operation.
    pub fn new(op: &Op<'_>) -> Self {
        let (name, value, end_key) = match op {
            Op::Put { value, .. } => ("PUT", Some(value), None),
            Op::Delete { .. } => ("DELETE", None, None),
            Op::SingleDelete { .. } => ("SINGLE_DELETE", None, None),
            Op::Merge { operand, .. } => ("MERGE", Some(operand), None),
            Op::DeleteRange { end, .. } => ("DELETE_RANGE", None, Some(end)),
            Op::PutEntity { entity, .. } => ("PUT_ENTITY", Some(entity), None),
            Op::TimedPut { value, .. } => ("TIMED_PUT", Some(value), None),
            Op::BlobIndex { index, .. } => ("BLOB_INDEX", Some(index), None),
            Op::LogData { blob } => ("LOG_DATA", Some(blob), None),
            Op::Noop => ("NOOP", None, None),
            Op::BeginPrepare { policy: WritePolicy::WriteCommitted } => ("BEGIN_PREPARE", None, None),
            Op::BeginPrepare { policy: WritePolicy::WritePrepared } => ("BEGIN_PERSISTED_PREPARE", None, None),
            Op::BeginPrepare { policy: WritePolicy::WriteUnprepared } => ("BEGIN_UNPREPARE", None, None),
            Op::EndPrepare { .. } => ("END_PREPARE", None, None),
            Op::Commit { .. } => ("COMMIT", None, None),
            Op::CommitWithTimestamp { .. } => ("COMMIT_WITH_TIMESTAMP", None, None),
            Op::Rollback { .. } => ("ROLLBACK", None, None),
        };
        let (xid, timestamp) = match op {
            Op::EndPrepare { xid } | Op::Commit { xid } | Op::Rollback { xid } => (Some(xid), None),
            Op::CommitWithTimestamp { xid, timestamp } => (Some(xid), Some(timestamp)),
            _ => (None, None),
        };
        let shown = |bytes: Option<&&[u8]>| bytes.map(|bytes| Shown::new(bytes));
        Self {
            op: name,
            cf: op.column_family(),
            key: op.key().map(Shown::new),
            end_key: shown(end_key),
            value: shown(value),
            xid: shown(xid),
            timestamp: shown(timestamp),
            unix_time: match op {
                Op::TimedPut { unix_time, .. } => Some(*unix_time),
                _ => None,
            },
        }
    }
}

/// Whether a batch's operations are described one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operations {
    /// Each of them.
    Shown,
    /// Only what the batch amounts to.
    Summarised,
}

impl BatchLine {
    /// Describes the write batch in the record from `offset` to `end`.
    pub fn new(offset: u64, end: u64, payload: &[u8], operations: Operations) -> Self {
        let mut line = Self {
            offset,
            end,
            byte_size: payload.len(),
            sequence: None,
            count: None,
            sequence_advance: None,
            ops: Vec::new(),
            summary: None,
            error: None,
        };
        let batch = match WriteBatch::parse(payload) {
            Ok(batch) => batch,
            Err(e) => {
                line.error = Some(e.to_string());
                return line;
            }
        };
        line.sequence = Some(batch.sequence());
        line.count = Some(batch.count());
        if operations == Operations::Shown {
            // What precedes an undecodable operation is shown; the scan below gives the error.
            line.ops = batch.ops().map_while(Result::ok).map(|op| OpLine::new(&op)).collect();
        }
        match batch.scan() {
            Ok(summary) => {
                line.sequence_advance = summary.sequence_advance();
                line.summary = Some(summary);
            }
            Err(e) => line.error = Some(e.to_string()),
        }
        line
    }
}

/// Describes a WAL while it is read.
#[derive(Debug)]
pub struct WalDescriber {
    reader: LogReader,
    operations: Operations,
    done: bool,
}

impl WalDescriber {
    /// At the start of the WAL of this number.
    pub fn new(number: FileNumber, operations: Operations) -> Self {
        Self { reader: LogReader::new(LogKind::Wal(number)), operations, done: false }
    }

    /// The file offset at which the bytes of the next call must begin.
    pub const fn offset(&self) -> u64 {
        self.reader.offset()
    }

    /// What comes next. `bytes` are the file's content from [`offset`](Self::offset) on; `Growing` means that more of
    /// the file follows than was given. `None`: more bytes are needed, or the ending has been given.
    pub fn next(&mut self, bytes: &[u8], finality: Finality) -> Option<WalLine> {
        if self.done {
            return None;
        }
        let answer = self.reader.read(bytes, finality);
        match answer {
            Read::Record { start, end, payload } => {
                Some(WalLine::Batch(Box::new(BatchLine::new(start, end, &payload, self.operations))))
            }
            Read::Metadata { start, end, metadata } => Some(WalLine::Metadata { offset: start, end, metadata }),
            Read::End { .. } | Read::Incomplete { .. } if finality == Finality::Growing => None,
            ref ending => {
                self.done = true;
                Ending::of(ending).map(WalLine::Ending)
            }
        }
    }
}
