//! Writes the WAL files of a restored database.
//!
//! Owns: one file for each WAL of the plan, from offset 0, with complete records only, in short headers and without
//! compression, so that every RocksDB reads it to its end in its strictest mode; the sizes of user-defined timestamps
//! where the source announced them.
//! How its bytes come to the disk is [`super::wal_disk`]'s.
//! Refuses: records out of order, and every record that RocksDB could not replay exactly.

use std::path::{Path, PathBuf};

use pitr_archive::{
    Code, Error, Result,
    ids::{FileNumber, RecordNumber, SequenceNumber},
    rocks::{log_writer::LogWriter, transactions::Transactions, write_batch::WritePolicy},
    segment::entry::Record,
};

use serde::{Deserialize, Serialize};

use super::{
    resume::{Checkpoint, WrittenWal},
    sequences::Sequences,
    wal_disk::WalDisk,
};
use crate::plan::{PlannedWal, WalTimestampSizes};

/// Written in pieces of this many bytes.
const BUFFER: usize = 1 << 20;

/// The WALs being written.
pub(crate) struct WalFiles {
    directory: PathBuf,
    planned: Vec<PlannedWal>,
    open: Option<Open>,
    totals: WalTotals,
    sequences: Sequences,
    /// The last one of this directory that has begun.
    last: Option<FileNumber>,
    /// Those that were complete before.
    before: Vec<WrittenWal>,
    disk: Option<WalDisk>,
    /// One to be filled.
    buffer: Vec<u8>,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WalTotals {
    pub files: usize,
    pub records: u64,
    pub bytes: u64,
    /// The latest sequence number that RocksDB recovers from the records; `None` without any.
    pub last_sequence: Option<SequenceNumber>,
}

impl WalTotals {
    /// Of all stages together.
    pub fn sum(stages: &[Self]) -> Self {
        stages.iter().fold(Self::default(), |sum, stage| Self {
            files: sum.files + stage.files,
            records: sum.records + stage.records,
            bytes: sum.bytes + stage.bytes,
            last_sequence: sum.last_sequence.max(stage.last_sequence),
        })
    }
}

struct Open {
    number: FileNumber,
    writer: LogWriter,
    /// Announcements still to be made, in the order of their offsets.
    sizes: std::vec::IntoIter<WalTimestampSizes>,
    next_sizes: Option<WalTimestampSizes>,
    source_end: u64,
}

impl WalFiles {
    /// Writes the planned WALs into `directory`; `policy` is that of their transactions.
    pub fn new(directory: &Path, planned: &[PlannedWal], policy: Option<WritePolicy>) -> Self {
        Self {
            directory: directory.to_owned(),
            planned: planned.to_vec(),
            open: None,
            totals: WalTotals::default(),
            sequences: Sequences::new(policy),
            last: None,
            before: Vec::new(),
            disk: None,
            buffer: Vec::new(),
        }
    }

    /// Goes on behind WALs that are complete.
    pub fn go_on(&mut self, checkpoint: &Checkpoint) {
        self.sequences.go_on(&checkpoint.reached);
        self.totals = checkpoint.reached.totals;
        self.last = checkpoint.wals.last().map(|wal| wal.number);
        self.before = checkpoint.wals.clone();
    }

    /// Whether the next record is the first one behind a WAL that is complete with it.
    pub fn ends_before(&self, record: &Record) -> bool {
        self.open.as_ref().is_some_and(|open| open.number != record.wal)
    }

    /// What is known behind the WALs until now.
    pub fn state(&self) -> (Transactions, WalTotals) {
        let open = self.open.as_ref().map_or(0, |open| open.writer.offset());
        let totals = WalTotals { bytes: self.totals.bytes + open, ..self.totals };
        (self.sequences.transactions.clone(), totals)
    }

    /// Ends the present WAL, and notes it, when it is durable.
    pub fn note(&mut self, checkpoint: Checkpoint, notes: &Path) -> Result<()> {
        self.close()?;
        self.disk().note(checkpoint, notes)
    }

    fn disk(&mut self) -> &mut WalDisk {
        self.disk.get_or_insert_with(|| WalDisk::begin(&self.directory, std::mem::take(&mut self.before), BUFFER))
    }

    /// Makes everything in this directory durable.
    fn settle(&mut self) -> Result<()> {
        self.close()?;
        self.disk();
        self.disk.take().map_or(Ok(()), WalDisk::finish)
    }

    /// Ends a stage; what follows goes into another directory, also where it goes on in the same WAL.
    pub fn begin_again_in(&mut self, directory: PathBuf) -> Result<WalTotals> {
        self.settle()?;
        self.directory = directory;
        let totals = std::mem::take(&mut self.totals);
        self.sequences.begin_again();
        // The next stage's files are others, also of the same number.
        self.last = None;
        Ok(totals)
    }

    /// Makes the last stage durable.
    pub fn finish_stage(mut self) -> Result<WalTotals> {
        self.settle()?;
        Ok(self.totals)
    }

    /// The next record of the stream.
    pub fn record(&mut self, number: RecordNumber, record: &Record) -> Result<()> {
        self.sequences.pass(number, record)?;
        self.totals.last_sequence = self.sequences.latest;
        if self.open.as_ref().is_none_or(|open| open.number != record.wal) {
            self.switch_to(number, record)?;
        }
        let Some(open) = &mut self.open else {
            return Err(Error::new(Code::Internal, "writing a record without a WAL").on(number));
        };
        if record.start < open.source_end || record.end <= record.start {
            return Err(Error::new(Code::SegmentDamaged, "writing record")
                .on(number)
                .with("offset", record.start)
                .with("end of the record before", open.source_end));
        }
        while let Some(sizes) = open.next_sizes.take_if(|s| s.offset <= record.start) {
            open.writer.append_timestamp_sizes(&sizes.sizes, &mut self.buffer);
            open.next_sizes = open.sizes.next();
        }
        open.writer.append(&record.payload, &mut self.buffer);
        open.source_end = record.end;
        self.totals.records += 1;
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(())
    }

    fn switch_to(&mut self, number: RecordNumber, record: &Record) -> Result<()> {
        let planned = self.planned.iter().find(|wal| wal.number == record.wal);
        let Some(planned) = planned.filter(|_| self.last.is_none_or(|last| last < record.wal)) else {
            return Err(Error::new(Code::SegmentDamaged, "writing record")
                .on(number)
                .with("its WAL", record.wal)
                .with("WAL before", self.last.unwrap_or_default()));
        };
        let mut sizes = planned.timestamp_sizes.clone();
        sizes.sort_by_key(|s| s.offset);
        self.close()?;
        self.begin(record.wal, sizes)?;
        self.totals.files += 1;
        Ok(())
    }

    fn begin(&mut self, number: FileNumber, sizes: Vec<WalTimestampSizes>) -> Result<()> {
        self.disk().begin_wal(number)?;
        let mut sizes = sizes.into_iter();
        let next_sizes = sizes.next();
        self.open = Some(Open { number, writer: LogWriter::new(0), sizes, next_sizes, source_end: 0 });
        self.last = Some(number);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            let bytes = std::mem::take(&mut self.buffer);
            self.buffer = self.disk().write(bytes)?;
            // Room for a record of the usual size beyond the piece.
            self.buffer.reserve(BUFFER + (1 << 16));
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if let Some(open) = self.open.take() {
            self.flush()?;
            self.disk().end_wal(open.writer.sum())?;
            self.totals.bytes += open.writer.offset();
        }
        Ok(())
    }

    /// Makes everything durable. RocksDB with `track_and_verify_wals` refuses a database without any WAL, so an empty
    /// one is left where there are no records: RocksDB itself leaves such files. A database that never flushed needs its logs
    /// from number 0 on, which is no log's.
    pub fn finish(mut self, first_wal: FileNumber) -> Result<WalTotals> {
        self.close()?;
        if self.totals.files == 0 {
            self.begin(first_wal.max(FileNumber::new(1)), Vec::new())?;
            self.totals.files = 1;
        }
        self.settle()?;
        Ok(self.totals)
    }
}

/// A log of one record, durable.
pub(crate) fn write_one(directory: &Path, number: FileNumber, batch: &[u8]) -> Result<()> {
    let mut bytes = Vec::with_capacity(batch.len() + batch.len() / 64 + 64);
    let mut writer = LogWriter::new(0);
    writer.append(batch, &mut bytes);
    let mut disk = WalDisk::begin(directory, Vec::new(), BUFFER);
    disk.begin_wal(number)?;
    disk.write(bytes)?;
    disk.end_wal(writer.sum())?;
    disk.finish()
}
