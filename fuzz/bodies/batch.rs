//! Write batches and what two-phase commit makes of a sequence of them.
//!
//! Asserts: operations survive encoding; `scan`, the operations one by one and the description agree; the number of
//! sequence numbers that a record consumes, and what stays pending, are those of a slow reading of the rule.

use std::collections::{BTreeMap, HashSet};

use pitr_archive::{
    ids::{FileNumber, RecordNumber},
    rocks::{
        describe::{BatchLine, Operations},
        transactions::{Advance, Transactions},
        write_batch::{HEADER_SIZE, Op, Summary, WriteBatch, WriteBatchBuilder, WritePolicy},
    },
};

use super::input::Input;

/// The header's count is mended.
pub const COUNTED: u8 = 1;

pub fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let mut transactions = Transactions::default();
    let mut model = Model::default();
    for number in 0..32 {
        if input.is_empty() {
            break;
        }
        let mut bytes = input.piece().to_vec();
        if flags & COUNTED != 0 {
            mend_count(&mut bytes);
        }
        let Some((batch, summary)) = scanned(&bytes) else { continue };
        let record = RecordNumber::new(number);
        let scanned = transactions.scan(&batch).expect("it was scanned");
        assert_eq!(scanned.summary, summary);
        let advance = transactions.apply(&batch, &scanned, FileNumber::new(4), record).expect("it was scanned");
        assert_eq!(advance, model.apply(&batch), "sequence numbers of record {number}");
        let pending: BTreeMap<Vec<u8>, u64> =
            transactions.pending().map(|(xid, prepared)| (xid.as_bytes().to_vec(), prepared.operations)).collect();
        assert_eq!(pending, model.pending);
        assert_eq!(transactions.policy(), model.policy);
        let json = serde_json::to_vec(&transactions).unwrap();
        assert_eq!(serde_json::from_slice::<Transactions>(&json).unwrap(), transactions);
    }
}

pub fn mend_count(bytes: &mut [u8]) {
    let Ok(batch) = WriteBatch::parse(bytes) else { return };
    let count = batch.ops().map_while(Result::ok).filter(Op::is_data).count() as u32;
    bytes[8..HEADER_SIZE].copy_from_slice(&count.to_le_bytes());
}

fn scanned(bytes: &[u8]) -> Option<(WriteBatch<'_>, Summary)> {
    let line = BatchLine::new(0, bytes.len() as u64, bytes, Operations::Shown);
    serde_json::to_vec(&line).unwrap();
    let batch = match WriteBatch::parse(bytes) {
        Ok(batch) => batch,
        Err(e) => {
            assert_eq!(line.error, Some(e.to_string()));
            return None;
        }
    };
    let ops: Vec<Op<'_>> = batch.ops().map_while(Result::ok).collect();
    assert_eq!(line.ops.len(), ops.len());
    survives(&batch, &ops);
    match batch.scan() {
        Ok(summary) => {
            assert!(line.error.is_none());
            let all: Result<Vec<_>, _> = batch.ops().collect();
            assert_eq!(all.as_deref(), Ok(ops.as_slice()), "what can be scanned can be decoded");
            assert_eq!(summary.data_ops, ops.iter().filter(|op| op.is_data()).count() as u64);
            assert!(summary.prepared_ops <= summary.data_ops);
            Some((batch, summary))
        }
        Err(e) => {
            assert_eq!(line.error, Some(e.to_string()));
            None
        }
    }
}

fn survives(batch: &WriteBatch<'_>, ops: &[Op<'_>]) {
    let mut builder = WriteBatchBuilder::new(batch.sequence());
    for op in ops {
        builder.push(op);
    }
    let bytes = builder.finish();
    let again = WriteBatch::parse(&bytes).unwrap();
    assert_eq!(again.sequence(), batch.sequence());
    let read: Result<Vec<Op<'_>>, _> = again.ops().collect();
    assert_eq!(read.as_deref(), Ok(ops));
    assert!(bytes.len() <= batch.bytes().len(), "the encoding is the shortest");
}

/// The module documentation of `rocks::transactions`, word by word and without its shortcuts.
#[derive(Default)]
struct Model {
    policy: Option<WritePolicy>,
    pending: BTreeMap<Vec<u8>, u64>,
}

impl Model {
    fn counts_batches(&self) -> bool {
        matches!(self.policy, Some(WritePolicy::WritePrepared | WritePolicy::WriteUnprepared))
    }

    fn apply(&mut self, batch: &WriteBatch<'_>) -> Advance {
        let ops: Vec<Op<'_>> = batch.ops().map(Result::unwrap).collect();
        let marker = |op: &Op<'_>| !op.is_data() && !matches!(op, Op::LogData { .. } | Op::Noop);
        let two_phase = ops.iter().any(marker);
        let (batches, ended) = sub_batches(&ops);
        let (mut outside, mut committed, mut section) = (0u64, 0u64, None);
        let (mut unseen, mut again) = (false, false);
        // The policy that the last section shows holds for the whole record.
        for op in &ops {
            if let Op::BeginPrepare { policy } = op {
                section = match (section, *policy) {
                    (Some(WritePolicy::WriteUnprepared), _) => section,
                    (_, shown) => Some(shown),
                };
            }
        }
        if let Some(shown) = section {
            let both = self.policy == Some(WritePolicy::WriteUnprepared) && shown == WritePolicy::WritePrepared;
            self.policy = if both { self.policy } else { Some(shown) };
        }
        let mut inside = None;
        for op in &ops {
            match op {
                Op::BeginPrepare { .. } => inside = Some(0),
                Op::EndPrepare { xid } => {
                    let operations = inside.take().unwrap();
                    if self.policy != Some(WritePolicy::WriteUnprepared) && self.pending.remove(*xid).is_some() {
                        again = true;
                    }
                    *self.pending.entry(xid.to_vec()).or_default() += operations;
                }
                Op::Commit { xid } | Op::CommitWithTimestamp { xid, .. } => match self.pending.remove(*xid) {
                    Some(operations) => committed += operations,
                    None => unseen = true,
                },
                Op::Rollback { xid } => drop(self.pending.remove(*xid)),
                op if op.is_data() => match &mut inside {
                    Some(operations) => *operations += 1,
                    None => outside += 1,
                },
                _ => {}
            }
        }
        let sum = outside + committed;
        if again {
            return Advance::AtLeast(sum);
        }
        let by_operation = if unseen { Advance::AtLeast(sum) } else { Advance::Exactly(sum) };
        if self.policy == Some(WritePolicy::WriteCommitted) {
            return by_operation;
        }
        let by_batch = Advance::Exactly(batches);
        if self.counts_batches() {
            if ended || outside == 0 {
                return by_batch;
            }
            self.policy = None;
            return Advance::Exactly(ops.iter().filter(|op| op.is_data()).count() as u64);
        }
        if by_operation == by_batch {
            return by_batch;
        }
        if two_phase {
            return Advance::AtLeast(outside.min(batches));
        }
        if ended {
            self.policy = Some(WritePolicy::WritePrepared);
            return by_batch;
        }
        by_operation
    }
}

/// How many sub-batches the operations are, and whether the last one ends them.
fn sub_batches(ops: &[Op<'_>]) -> (u64, bool) {
    let (mut count, mut open, mut ended) = (0, false, false);
    let mut keys = HashSet::new();
    for op in ops {
        ended = false;
        match op {
            Op::Noop if !open => {}
            Op::Noop
            | Op::EndPrepare { .. }
            | Op::Commit { .. }
            | Op::CommitWithTimestamp { .. }
            | Op::Rollback { .. } => {
                count += 1;
                keys.clear();
                (open, ended) = (false, true);
            }
            op => {
                open = true;
                if let (Some(cf), Some(key)) = (op.column_family(), op.key())
                    && !keys.insert((cf, matches!(op, Op::DeleteRange { .. }), key))
                {
                    count += 1;
                    keys.clear();
                    keys.insert((cf, matches!(op, Op::DeleteRange { .. }), key));
                }
            }
        }
    }
    (count, ended)
}
