//! The latest sequence number along the stream.
//!
//! Owns: what each record does to it, by the same rules (`rocks::transactions`) by which the archiver decided that no
//! barrier was needed. What a session does is told by its event.

use pitr_archive::{
    Code, Error, Result,
    ids::{RecordNumber, SequenceNumber},
    rocks::{
        transactions::{Advance, Transactions},
        write_batch::WriteBatch,
    },
    segment::entry::Record,
};

/// What a record did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The number in its header.
    pub first: SequenceNumber,
    /// The latest sequence number after it, as recovery that begins where `transactions` did reports it.
    pub end: SequenceNumber,
    /// Whether it consumed any number.
    pub consumed: bool,
    /// Whether `end` is also what the server had.
    pub certain: bool,
}

/// Reads what a record does. A record that consumes nothing carries the number that is due next.
pub(crate) fn step(transactions: &mut Transactions, number: RecordNumber, record: &Record) -> Result<Step> {
    let malformed = |e| Error::new(Code::BatchMalformed, "decoding record").on(number).because(e);
    let batch = WriteBatch::parse(&record.payload).map_err(malformed)?;
    let scanned = transactions.scan(&batch).map_err(malformed)?;
    let advance = transactions.apply(&batch, &scanned, record.wal, number).map_err(malformed)?;
    let (advance, certain) = match advance {
        Advance::Exactly(advance) => (advance, true),
        Advance::AtLeast(advance) => (advance, false),
    };
    let first = batch.sequence();
    let after = first.get().checked_add(advance).filter(|after| *after <= SequenceNumber::MAX.get() + 1);
    match after {
        Some(after) if advance == 0 || first.get() > 0 => {
            Ok(Step { first, end: SequenceNumber::new(after.saturating_sub(1)), consumed: advance > 0, certain })
        }
        _ => Err(Error::new(Code::BatchMalformed, "decoding record")
            .on(number)
            .with("sequence", first)
            .with("count", advance)),
    }
}
