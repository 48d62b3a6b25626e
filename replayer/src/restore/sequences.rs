//! The sequence numbers of the records that are replayed.
//!
//! Owns: that they grow from record to record, and what the latest one is behind each. Where they did not grow, a barrier
//! stands and no plan crosses it.

use pitr_archive::{
    Code, Error, Result,
    ids::{RecordNumber, SequenceNumber},
    rocks::{transactions::Transactions, write_batch::WritePolicy},
    segment::entry::Record,
};

use super::resume::Reached;
use crate::plan::sequence;

/// What recovery will know of sequence numbers.
#[derive(Clone, Debug)]
pub(crate) struct Sequences {
    /// Of transactions, too.
    pub transactions: Transactions,
    /// The latest one that RocksDB recovers from the records of this stage; `None` without any.
    pub latest: Option<SequenceNumber>,
    /// That of an earlier stage.
    before: Option<SequenceNumber>,
}

impl Sequences {
    /// Before the first record; `policy` is that of its transactions.
    pub fn new(policy: Option<WritePolicy>) -> Self {
        Self { transactions: Transactions::recovering(policy), latest: None, before: None }
    }

    /// Goes on where an interrupted restore had come to.
    pub fn go_on(&mut self, reached: &Reached) {
        self.transactions = reached.transactions.clone();
        self.latest = reached.totals.last_sequence;
    }

    /// Another stage begins.
    pub fn begin_again(&mut self) {
        self.before = self.before.max(self.latest.take());
    }

    /// The next record.
    pub fn pass(&mut self, number: RecordNumber, record: &Record) -> Result<()> {
        let counted = self.transactions.counts_batches();
        let step = sequence::step(&mut self.transactions, number, record)?;
        if counted != self.transactions.counts_batches() {
            // The server emptied its log before it was opened with another policy; recovery would read all of it with one.
            return Err(Error::new(Code::TargetUnsupported, "replaying record")
                .on(number)
                .with("reason", "the write policy changes here")
                .hint("restore to a target from the next base on; pitr list shows it"));
        }
        let before = self.latest.max(self.before);
        if step.consumed && before.is_some_and(|before| step.first <= before) {
            return Err(Error::new(Code::TargetUnsupported, "replaying record")
                .on(number)
                .with("its sequence number", step.first)
                .with("the record before ends at", before.unwrap_or_default()));
        }
        // RocksDB takes the number of the last batch, whether it consumed any or not.
        self.latest = Some(self.latest.map_or(step.end, |latest| latest.max(step.end)));
        Ok(())
    }
}
