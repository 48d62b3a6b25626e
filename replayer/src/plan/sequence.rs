//! The latest sequence number along the stream.
//!
//! Owns: what each record and each session does to it, under RocksDB's default write policy: the same rules by which
//! the archiver decided that no barrier was needed. Two-phase-commit records are refused; their effect depends on
//! records elsewhere.

use pitr_archive::{
    Code, Error, Result,
    ids::{RecordNumber, SequenceNumber},
    rocks::write_batch::WriteBatch,
};

/// What a record did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The number in its header.
    pub first: SequenceNumber,
    /// The latest sequence number after it.
    pub end: SequenceNumber,
    /// Whether it consumed any number.
    pub consumed: bool,
}

/// Reads what a record does. A record that consumes nothing carries the number that is due next.
pub(crate) fn step(number: RecordNumber, payload: &[u8]) -> Result<Step> {
    let malformed = |e| Error::new(Code::BatchMalformed, "decoding record").on(number).because(e);
    let batch = WriteBatch::parse(payload).map_err(malformed)?;
    let Some(advance) = batch.scan().map_err(malformed)?.sequence_advance() else {
        return Err(Error::new(Code::TargetUnsupported, "replaying record")
            .on(number)
            .with("reason", "two-phase commit"));
    };
    let first = batch.sequence();
    let after = first.get().checked_add(advance).filter(|after| *after <= SequenceNumber::MAX.get() + 1);
    match after {
        Some(after) if advance == 0 || first.get() > 0 => {
            Ok(Step { first, end: SequenceNumber::new(after.saturating_sub(1)), consumed: advance > 0 })
        }
        _ => Err(Error::new(Code::BatchMalformed, "decoding record")
            .on(number)
            .with("sequence", first)
            .with("count", advance)),
    }
}
