//! Writes the WAL files of a restored database.
//!
//! Owns: one file for each WAL of the plan, from offset 0, with complete records only, in short headers and without
//! compression, so that every RocksDB reads it to its end in its strictest mode; the sizes of user-defined timestamps
//! where the source announced them.
//! Refuses: records out of order, and every record that RocksDB could not replay exactly.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use pitr_archive::{
    Code, Error, Result,
    error::io,
    ids::{ContentHash, FileNumber, RecordNumber, SequenceNumber},
    rocks::{file_name, log_writer::LogWriter, transactions::Transactions, write_batch::WritePolicy},
    segment::entry::Record,
};

use serde::{Deserialize, Serialize};

use super::{
    resume::{Checkpoint, WrittenWal},
    sequences::Sequences,
    staging::sync_directory,
};
use crate::{
    crash,
    plan::{PlannedWal, WalTimestampSizes},
};

/// Written in pieces of this many bytes.
const BUFFER: usize = 1 << 20;

/// The WALs being written.
pub(crate) struct WalFiles {
    directory: PathBuf,
    planned: Vec<PlannedWal>,
    open: Option<Open>,
    totals: WalTotals,
    sequences: Sequences,
    /// Those that are complete.
    written: Vec<WrittenWal>,
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
    path: PathBuf,
    file: File,
    writer: LogWriter,
    buffer: Vec<u8>,
    hasher: blake3::Hasher,
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
            written: Vec::new(),
        }
    }

    /// Goes on behind WALs that are complete.
    pub fn go_on(&mut self, checkpoint: &Checkpoint) {
        self.sequences.transactions = checkpoint.transactions.clone();
        self.sequences.latest = checkpoint.totals.last_sequence;
        self.totals = checkpoint.totals;
        self.written = checkpoint.wals.clone();
    }

    /// Ends the present WAL if the next record belongs to another one; answers whether it did.
    pub fn end_before(&mut self, record: &Record) -> Result<bool> {
        if self.open.as_ref().is_none_or(|open| open.number == record.wal) {
            return Ok(false);
        }
        self.close()?;
        // Its name, too: a checkpoint tells of it.
        sync_directory(&self.directory)?;
        Ok(true)
    }

    /// What is known behind the WALs that are complete.
    pub fn state(&self) -> (Transactions, WalTotals, Vec<WrittenWal>) {
        (self.sequences.transactions.clone(), self.totals, self.written.clone())
    }

    /// Ends a stage; what follows goes into another directory, also where it goes on in the same WAL.
    pub fn begin_again_in(&mut self, directory: PathBuf) -> Result<WalTotals> {
        self.close()?;
        sync_directory(&self.directory)?;
        self.directory = directory;
        let totals = std::mem::take(&mut self.totals);
        self.sequences.begin_again();
        // The next stage's files are others, also of the same number.
        self.written.clear();
        Ok(totals)
    }

    /// Makes the last stage durable.
    pub fn finish_stage(mut self) -> Result<WalTotals> {
        self.close()?;
        sync_directory(&self.directory)?;
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
            open.writer.append_timestamp_sizes(&sizes.sizes, &mut open.buffer);
            open.next_sizes = open.sizes.next();
        }
        open.writer.append(&record.payload, &mut open.buffer);
        open.source_end = record.end;
        self.totals.records += 1;
        if open.buffer.len() >= BUFFER {
            open.flush()?;
        }
        Ok(())
    }

    fn switch_to(&mut self, number: RecordNumber, record: &Record) -> Result<()> {
        let before = self.open.as_ref().map(|open| open.number).or_else(|| self.written.last().map(|wal| wal.number));
        let planned = self.planned.iter().find(|wal| wal.number == record.wal);
        let Some(planned) = planned.filter(|_| before.is_none_or(|before| before < record.wal)) else {
            return Err(Error::new(Code::SegmentDamaged, "writing record")
                .on(number)
                .with("its WAL", record.wal)
                .with("WAL before", before.unwrap_or_default()));
        };
        let mut sizes = planned.timestamp_sizes.clone();
        sizes.sort_by_key(|s| s.offset);
        self.close()?;
        self.open = Some(Open::create(&self.directory, record.wal, sizes)?);
        self.totals.files += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if let Some(mut open) = self.open.take() {
            open.flush()?;
            open.file.sync_all().map_err(|e| io("making durable", &open.path, e))?;
            self.totals.bytes += open.writer.offset();
            let (size, hash) = (open.writer.offset(), ContentHash(*open.hasher.finalize().as_bytes()));
            self.written.push(WrittenWal { number: open.number, size, hash });
            crash::point("restore-wal-closed");
        }
        Ok(())
    }

    /// Makes everything durable. RocksDB with `track_and_verify_wals` refuses a database without any WAL, so an empty
    /// one is left where there are no records: RocksDB itself leaves such files. A database that never flushed needs its logs
    /// from number 0 on, which is no log's.
    pub fn finish(mut self, first_wal: FileNumber) -> Result<WalTotals> {
        self.close()?;
        if self.totals.files == 0 {
            let first_wal = first_wal.max(FileNumber::new(1));
            let empty = Open::create(&self.directory, first_wal, Vec::new())?;
            empty.file.sync_all().map_err(|e| io("making durable", &empty.path, e))?;
            self.totals.files = 1;
        }
        sync_directory(&self.directory)?;
        Ok(self.totals)
    }
}

/// A log of one record, durable.
pub(crate) fn write_one(directory: &Path, number: FileNumber, batch: &[u8]) -> Result<()> {
    let mut open = Open::create(directory, number, Vec::new())?;
    open.writer.append(batch, &mut open.buffer);
    open.flush()?;
    open.file.sync_all().map_err(|e| io("making durable", &open.path, e))?;
    sync_directory(directory)
}

impl Open {
    fn create(directory: &Path, number: FileNumber, sizes: Vec<WalTimestampSizes>) -> Result<Self> {
        let path = directory.join(file_name::wal(number));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| io("creating the WAL", &path, e))?;
        let mut sizes = sizes.into_iter();
        let next_sizes = sizes.next();
        let buffer = Vec::with_capacity(BUFFER + (1 << 16));
        Ok(Self {
            number,
            path,
            file,
            writer: LogWriter::new(0),
            buffer,
            hasher: blake3::Hasher::new(),
            sizes,
            next_sizes,
            source_end: 0,
        })
    }

    fn flush(&mut self) -> Result<()> {
        self.hasher.update(&self.buffer);
        self.file.write_all(&self.buffer).map_err(|e| io("writing the WAL", &self.path, e))?;
        self.buffer.clear();
        Ok(())
    }
}
