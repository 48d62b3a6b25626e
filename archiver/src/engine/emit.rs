//! Judging records and putting them into the stream.
//!
//! Owns: what a record's sequence number and operations mean for replay. Every record that was read goes into the
//! stream, also one that cannot be replayed: the barrier before it says so.

use std::collections::BTreeSet;

use pitr_archive::{
    Result,
    ids::{Boundary, ColumnFamilyId, FileNumber, SequenceNumber},
    rocks::{
        transactions::Advance,
        write_batch::{Summary, WriteBatch},
    },
    segment::entry::{BarrierReason, Event, MAX_PAYLOAD, Record},
};

use super::{Engine, Item};
use crate::sequence_model::Verdict;

/// Whether the run goes on after a round's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// It does.
    GoesOn,
    /// A record could not be taken: a new run has begun, or is waited for.
    Ended,
}

impl Engine {
    pub(super) fn emit(&mut self, items: Vec<Item>) -> Result<Run> {
        for item in items {
            match item {
                Item::Event(event) => self.stream.event(&event)?,
                Item::Record(record) => {
                    if let Some(detail) = self.record(&record)? {
                        self.end_run(BarrierReason::Unreadable, detail)?;
                        return Ok(Run::Ended);
                    }
                }
            }
        }
        Ok(Run::GoesOn)
    }

    /// Takes one record, or says why it cannot be taken.
    fn record(&mut self, record: &Record) -> Result<Option<String>> {
        let place = || format!("WAL {} at offset {}", record.wal, record.start);
        let transactions = &mut self.state.transactions;
        let scanned = WriteBatch::parse(&record.payload).and_then(|batch| Ok((transactions.scan(&batch)?, batch)));
        let (scanned, batch) = match scanned {
            Ok(scanned) => scanned,
            Err(e) => return Ok(Some(format!("{}: {e}", place()))),
        };
        let summary = &scanned.summary;
        if record.payload.len() as u64 > MAX_PAYLOAD {
            return Ok(Some(format!("{}: a record of {} bytes", place(), record.payload.len())));
        }
        if summary.blob_indexes > 0 {
            let what = "a reference into a blob file, which RocksDB itself cannot replay";
            return Ok(Some(format!("{}: {what}", place())));
        }
        let here = self.stream.boundary();
        let applied = self.state.transactions.apply(&batch, &scanned, record.wal, here.next_record());
        let advance = match applied {
            Ok(advance) => advance,
            Err(e) => return Ok(Some(format!("{}: {e}", place()))),
        };
        match advance {
            Advance::Exactly(advance) => {
                let by_open = self.state.transactions.consumed_by_open(&batch, summary);
                self.judge(record.wal, batch.sequence(), (advance, by_open), here, place)?;
            }
            Advance::AtLeast(_) => {
                let why = "the commit of a transaction that was prepared before the first record";
                self.not_replayed(record, here, format!("{}: {why}", place()))?;
                // The next record sets the number again.
                self.state.model.forget_last();
            }
        }
        if summary.two_phase.is_some_and(|markers| markers.prepares > 0) && self.layout.forgets_prepared() {
            let why = "a prepared transaction in a database with enable_pipelined_write, whose logs RocksDB gives up too early";
            self.not_replayed(record, here, format!("{}: {why}", place()))?;
        }
        let consumed = matches!(advance, Advance::Exactly(1..));
        let last = self.state.model.last().filter(|_| consumed);
        self.state.recent.note(record.wal, record.end, here, last);
        self.close_by_first_use(summary, here)?;
        self.stream.record(record, &batch, self.state.model.last())?;
        Ok(None)
    }

    fn judge(
        &mut self,
        wal: FileNumber,
        sequence: SequenceNumber,
        (advance, by_open): (u64, u64),
        here: Boundary,
        place: impl Fn() -> String,
    ) -> Result<()> {
        // Records that consume nothing can come before the first one that shows the reuse: all of them are the session's.
        let session_start = self.state.session_start;
        // Behind a two-phase record nothing tells which number is due. Where the WAL with that record is left behind, a
        // base can begin with this one: it serves only if it holds everything below this number.
        if self.state.model.is_forgotten() && self.state.two_phase_wal != Some(wal) {
            let unexplained = SequenceNumber::new(sequence.get().saturating_sub(1));
            self.jump(here, unexplained, format!("{}: behind records of two-phase commit", place()))?;
        }
        // The record leaves none of those that it passes.
        let explained = self.explained();
        let verdict = self.state.model.record(sequence, advance, by_open);
        let taken_back = self.state.recent.taken_back(wal, sequence);
        let (reason, at, what) = match verdict {
            Verdict::Continues => return Ok(()),
            Verdict::Jumped { expected } => return self.jumped(sequence, expected, &explained, here, place),
            Verdict::WentBack { expected } => {
                let what = format!("sequence {sequence} again, {expected} was due: the server took records back");
                if let Some(from) = taken_back {
                    let evidence = format!("{}: {what}", place());
                    self.stream.event(&Event::Withdrawn { from, to: here, evidence })?;
                    self.state.transactions.withdraw(from.next_record(), here.next_record());
                }
                (BarrierReason::SequenceWentBack, here, what)
            }
            Verdict::Reused { highest, jumped } => {
                let what = format!("the session begins with sequence {sequence}; earlier records reach {highest}");
                self.barrier(BarrierReason::Reuse, session_start, format!("{}: {what}", place()))?;
                return match jumped {
                    None => Ok(()),
                    Some(expected) => self.jumped(sequence, expected, &explained, here, place),
                };
            }
        };
        self.barrier(reason, at, format!("{}: {what}", place()))
    }

    /// Numbers from `expected` on, below `sequence`, were given to writes that are not in the log; all but those that are
    /// `explained`.
    fn jumped(
        &mut self,
        sequence: SequenceNumber,
        expected: SequenceNumber,
        explained: &BTreeSet<u64>,
        here: Boundary,
        place: impl Fn() -> String,
    ) -> Result<()> {
        let what = format!("sequence {sequence} where {expected} was due: writes that are not in the log");
        let unexplained = SequenceNumber::new(sequence.get().saturating_sub(1));
        let detail = format!("{}: {what}", place());
        if self.tolerate((expected, unexplained), explained, &detail)? {
            return Ok(());
        }
        self.jump(here, unexplained, detail)
    }

    /// Notes, once for each WAL, that this record is archived and not replayed.
    ///
    /// Once is enough: a base's replay begins with the first record of a WAL, so a plan that replays any later record
    /// of this WAL also replays this one.
    fn not_replayed(&mut self, record: &Record, here: Boundary, detail: String) -> Result<()> {
        if self.state.two_phase_wal == Some(record.wal) {
            return Ok(());
        }
        self.state.two_phase_wal = Some(record.wal);
        self.barrier(BarrierReason::TwoPhaseCommit, here, detail)
    }

    /// A column family certainly existed before the first record that names it.
    fn close_by_first_use(&mut self, summary: &Summary, here: Boundary) -> Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let used = |id: Option<ColumnFamilyId>| id.is_some_and(|id| summary.column_families.contains(&id));
        let (closed, open): (Vec<_>, Vec<_>) = std::mem::take(&mut self.open).into_iter().partition(|o| used(o.added));
        self.open = open;
        for interval in closed {
            self.stream.event(&Event::IntervalClosed { manifest: interval.manifest, hi: here })?;
        }
        Ok(())
    }
}
