//! The records of a restore in stages: up to the first ingestion that is repeated, from there to the next, and so on.
//!
//! Owns: which records belong to which stage, and a directory of WAL files for each. A stage's WALs may only be there
//! when the one before has been recovered: RocksDB replays whatever it finds. The first stage's lie where they belong.

use std::{collections::VecDeque, path::PathBuf};

use pitr_archive::{
    Result,
    error::io,
    ids::{Boundary, FileNumber},
    rocks::write_batch::WritePolicy,
    segment::entry::Record,
};

use super::wal::{WalFiles, WalTotals};
use crate::plan::{PlannedWal, ingestion::PlannedIngestion};

/// The WALs of every stage, being written.
pub(crate) struct StagedWals {
    current: WalFiles,
    /// Where the next stages begin, and their directories.
    next: VecDeque<(Boundary, PathBuf)>,
    done: Vec<WalTotals>,
}

/// Where the WALs of a later stage wait, beside those of the first.
pub(crate) fn directory(wals: &std::path::Path, stage: usize) -> PathBuf {
    wals.join(format!("pitr-stage-{stage}"))
}

impl StagedWals {
    /// Writes into `directory` and, for later stages, below it.
    pub fn new(
        wals: &std::path::Path,
        planned: &[PlannedWal],
        policy: Option<WritePolicy>,
        ingestions: &[PlannedIngestion],
    ) -> Self {
        let next = ingestions.iter().enumerate().map(|(index, one)| (one.at, directory(wals, index + 1))).collect();
        Self { current: WalFiles::new(wals, planned, policy), next, done: Vec::new() }
    }

    /// The only stage, where there is one alone: then it can be gone on with after an interruption.
    pub fn single(&mut self) -> Option<&mut WalFiles> {
        (self.next.is_empty() && self.done.is_empty()).then_some(&mut self.current)
    }

    /// The record after boundary `at`.
    pub fn record(&mut self, at: Boundary, record: &Record) -> Result<()> {
        while self.next.front().is_some_and(|(begins, _)| *begins <= at) {
            self.advance()?;
        }
        self.current.record(at.next_record(), record)
    }

    fn advance(&mut self) -> Result<()> {
        let Some((_, directory)) = self.next.pop_front() else { return Ok(()) };
        std::fs::create_dir(&directory).map_err(|e| io("creating", &directory, e))?;
        self.done.push(self.current.begin_again_in(directory)?);
        Ok(())
    }

    /// Makes everything durable; answers what each stage holds.
    pub fn finish(mut self, first_wal: FileNumber) -> Result<Vec<WalTotals>> {
        while !self.next.is_empty() {
            self.advance()?;
        }
        let last = match self.done.is_empty() {
            true => self.current.finish(first_wal)?,
            false => self.current.finish_stage()?,
        };
        self.done.push(last);
        Ok(self.done)
    }
}
