//! Takes records in their order and makes table files of them.
//!
//! Owns: what of a record counts, memory ([`Limits`]), and that parts of the keys are written beside one another. What is
//! sorted meanwhile is [`super::runs`]'.
//! Refuses: operations whose outcome is not the last one's alone: merge operands, wide columns, values with a time, prepared
//! transactions. Whoever restores goes on with the log itself then.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
};

use pitr_archive::{
    Code, Error, Result,
    ids::{ColumnFamilyId, FileNumber, RecordNumber},
    rocks::write_batch::{Op, WriteBatch},
    segment::entry::Record,
};

use super::{
    chunk::{Chunk, Kind, Version},
    merge::{Part, Run},
    noted::Notes,
    order::KeyOrder,
    runs::Runs,
    tables::{self, Below, Family, TableFile},
    tombstones::{Tombstone, Tombstones},
};
use crate::restore::resume::Reached;

/// Deleted ranges are all in memory; so many take at most some hundred bytes each, beside their keys.
const MAX_TOMBSTONE_BYTES: usize = 32 << 20;

/// What a sink may take of memory, and how it divides its work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A chunk is sorted when it takes so many bytes.
    pub chunk: usize,
    /// So many are sorted at a time, beside the one that is filled.
    pub sorting: usize,
    /// Sorted chunks stay in memory as long as all of them are no more bytes than this.
    pub kept: usize,
    /// So many runs become one as soon as they are there: each is an open file, and a block in memory for everybody who reads.
    pub merged: usize,
    /// What the blocks of all who read may take together.
    pub reading: usize,
    /// Parts of a column family's keys are of about so many bytes.
    pub part: usize,
    /// No part is made smaller than this for the sake of more threads.
    pub least_part: usize,
    /// One key is looked at for so many bytes, where keys are divided.
    pub sampled: usize,
}

impl Default for Limits {
    /// Below 512 MiB, whatever the length of the log: three chunks, and what is kept, while it is read; what is kept, or the last
    /// chunk and what is read back, while tables are written.
    fn default() -> Self {
        Self {
            chunk: 64 << 20,
            sorting: 2,
            kept: 160 << 20,
            merged: 48,
            reading: 96 << 20,
            part: 96 << 20,
            least_part: 16 << 20,
            sampled: 128 << 10,
        }
    }
}

/// What is replayed into table files.
pub(crate) struct Sink {
    limits: Limits,
    families: Vec<Family>,
    /// Index of a column family, and the log from which on it needs records.
    known: BTreeMap<ColumnFamilyId, (u16, FileNumber)>,
    chunk: Chunk,
    /// The last run ended in the midst of a record.
    divided: bool,
    /// Operations so far.
    age: u64,
    /// Of deleted ranges, in bytes.
    tombstone_bytes: usize,
    runs: Runs,
}

impl Sink {
    /// `families`, each with the first log that it needs; `notes` say where what is only needed meanwhile goes.
    pub fn new(limits: Limits, families: Vec<(Family, FileNumber)>, notes: Notes) -> Result<Self> {
        let too_many =
            || Error::new(Code::EngineUnusable, "replaying into tables").with("column families", families.len());
        if u16::try_from(families.len()).is_err() {
            return Err(too_many());
        }
        let known = (0_u16..).zip(&families).map(|(index, (family, log))| (family.spec.id, (index, *log))).collect();
        let families: Vec<Family> = families.into_iter().map(|(family, _)| family).collect();
        let orders = orders(&families);
        Ok(Self {
            limits,
            chunk: Chunk::new(orders.clone(), 0),
            families,
            known,
            divided: false,
            age: 0,
            tombstone_bytes: 0,
            runs: Runs::new(limits, orders, notes),
        })
    }

    /// Begins behind what an interrupted restore has sorted, before the first record; answers where the log goes on, if that is
    /// not at its beginning.
    pub fn go_on(&mut self) -> Option<Reached> {
        let (reached, age) = self.runs.go_on()?;
        self.age = age;
        self.chunk = Chunk::new(orders(&self.families), age);
        self.tombstone_bytes = self.runs.tombstones.iter().map(|(_, tombstone)| tombstone.bytes()).sum();
        Some(reached)
    }

    /// The files that it goes on with.
    pub fn files(&self) -> Vec<PathBuf> {
        self.runs.files()
    }

    /// Whether a run should end before the next record. Where a record was too long for the one in which it began, the next
    /// one ends with it: only between records can the log be gone on with.
    pub fn is_full(&self) -> bool {
        let full = self.chunk.bytes() >= self.limits.chunk - self.limits.chunk / 8;
        full || self.divided && !self.chunk.is_empty()
    }

    /// Ends a run between two records; `reached` tells where the log goes on.
    pub fn end_run(&mut self, reached: Reached) -> Result<()> {
        self.sort(Some(reached))
    }

    /// The next record of the log.
    pub fn record(&mut self, number: RecordNumber, record: &Record) -> Result<()> {
        let damaged = |e| Error::new(Code::SegmentDamaged, "replaying record").on(number).because(e);
        let batch = WriteBatch::parse(&record.payload).map_err(damaged)?;
        for op in batch.ops() {
            let op = op.map_err(damaged)?;
            self.age += 1;
            let refused = |what: &str| {
                Err(Error::new(Code::EngineUnusable, "replaying into tables")
                    .on(number)
                    .with("the record has", what.to_owned())
                    .hint("--engine native replays it"))
            };
            match op {
                Op::Put { cf, key, value } => self.key(record, cf, key, Kind::Put, value)?,
                Op::Delete { cf, key } => self.key(record, cf, key, Kind::Delete, &[])?,
                // It takes one write away, not all: above older ones it is no deletion, and a table cannot hold it.
                Op::SingleDelete { cf, .. } if self.lies_above_files(record, cf) => {
                    return refused("a single deletion above files of the base");
                }
                Op::SingleDelete { cf, key } => self.key(record, cf, key, Kind::Delete, &[])?,
                Op::DeleteRange { cf, begin, end } => self.range(record, cf, begin, end)?,
                Op::LogData { .. } | Op::Noop => {}
                Op::Merge { .. } => return refused("a merge operand"),
                Op::PutEntity { .. } => return refused("wide columns"),
                Op::TimedPut { .. } => return refused("a value with a write time"),
                Op::BlobIndex { .. } => return refused("a reference into a blob file"),
                Op::BeginPrepare { .. }
                | Op::EndPrepare { .. }
                | Op::Commit { .. }
                | Op::CommitWithTimestamp { .. }
                | Op::Rollback { .. } => return refused("a prepared transaction"),
            }
        }
        Ok(())
    }

    fn lies_above_files(&self, record: &Record, cf: ColumnFamilyId) -> bool {
        let family = self.wanted(record, cf).and_then(|index| self.families.get(usize::from(index)));
        family.is_some_and(|family| family.below == Below::Files)
    }

    /// The column family's index, where the record is for it: what lies in older logs is in its files, and what is gone at
    /// the target is not replayed.
    fn wanted(&self, record: &Record, cf: ColumnFamilyId) -> Option<u16> {
        self.known.get(&cf).filter(|(_, log)| *log <= record.wal).map(|(index, _)| *index)
    }

    fn key(&mut self, record: &Record, cf: ColumnFamilyId, key: &[u8], kind: Kind, value: &[u8]) -> Result<()> {
        let Some(family) = self.wanted(record, cf) else { return Ok(()) };
        if self.chunk.bytes() >= self.limits.chunk {
            self.sort(None)?;
        }
        let version = Version { family, key, age: self.age, kind, value };
        if !self.chunk.push(&version) {
            self.sort(None)?;
            if !self.chunk.push(&version) {
                return Err(
                    Error::new(Code::EngineUnusable, "replaying into tables").with("bytes of a value", value.len())
                );
            }
        }
        Ok(())
    }

    fn range(&mut self, record: &Record, cf: ColumnFamilyId, begin: &[u8], end: &[u8]) -> Result<()> {
        let Some(family) = self.wanted(record, cf) else { return Ok(()) };
        let order = self.families.get(usize::from(family)).map_or(KeyOrder::Bytewise, |family| family.order);
        if order.compare(begin, end).is_gt() {
            return Err(Error::new(Code::EngineUnusable, "replaying into tables")
                .with("a deleted range", "ends before it begins, which RocksDB's recovery refuses"));
        }
        let tombstone = Tombstone { begin: begin.to_vec(), end: end.to_vec(), age: self.age };
        self.tombstone_bytes += tombstone.bytes();
        if self.tombstone_bytes > MAX_TOMBSTONE_BYTES {
            return Err(Error::new(Code::EngineUnusable, "replaying into tables")
                .with("deleted ranges", self.runs.tombstones.len())
                .hint("--engine native replays them"));
        }
        self.runs.tombstones.push((family, tombstone));
        Ok(())
    }

    fn chunk(&mut self) -> Chunk {
        std::mem::replace(&mut self.chunk, Chunk::new(orders(&self.families), self.age))
    }

    /// The chunk is full.
    fn sort(&mut self, reached: Option<Reached>) -> Result<()> {
        self.divided = reached.is_none();
        let chunk = self.chunk();
        self.runs.sort(chunk, self.age, reached)
    }

    /// Writes the table files, with numbers from `first` on; answers them by column family and key, and the first number
    /// that is free. Uses so many threads.
    pub fn finish(mut self, first: FileNumber, threads: usize) -> Result<(Vec<Family>, Vec<TableFile>, FileNumber)> {
        let last = self.chunk();
        self.runs.finish(last, self.age)?;
        let threads = self.runs.threads(threads.max(1))?;
        let (runs, deleted) = self.runs.take();
        let mut tombstones: Vec<Vec<Tombstone>> = self.families.iter().map(|_| Vec::new()).collect();
        for (family, tombstone) in deleted {
            if let Some(own) = tombstones.get_mut(usize::from(family)) {
                own.push(tombstone);
            }
        }
        let tombstones: Vec<Tombstones> =
            self.families.iter().zip(tombstones).map(|(family, own)| Tombstones::new(family.order, own)).collect();
        let parts: Vec<Part> =
            (0_u16..).zip(&self.families).flat_map(|(index, f)| self.parts(&runs, index, f.order, threads)).collect();
        let numbers = AtomicU64::new(first.get());
        let next = Mutex::new(parts.iter().enumerate());
        let done: Mutex<Vec<(usize, Vec<TableFile>)>> = Mutex::new(Vec::new());
        let work = || -> Result<()> {
            loop {
                let taken = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((index, part)) = taken else { return Ok(()) };
                let at = usize::from(part.family);
                let (Some(family), Some(own)) = (self.families.get(at), tombstones.get(at)) else { return Ok(()) };
                let files = tables::write(part, &runs, family, own, &numbers)?;
                done.lock().unwrap_or_else(PoisonError::into_inner).push((index, files));
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.clamp(1, parts.len().max(1))).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().map_err(|_| Error::new(Code::Internal, "writing table files"))?)
        })?;
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(index, _)| *index);
        let files = done.into_iter().flat_map(|(_, files)| files).collect();
        let free = FileNumber::new(numbers.into_inner());
        Ok((std::mem::take(&mut self.families), files, free))
    }

    /// A column family's keys in parts of about the same size.
    fn parts(&self, runs: &[Run], family: u16, order: KeyOrder, threads: usize) -> Vec<Part> {
        let mut samples: Vec<Vec<u8>> = runs.iter().flat_map(|run| run.samples(family, self.limits.sampled)).collect();
        let bytes = samples.len() * self.limits.sampled;
        let count = threads.min(bytes / self.limits.least_part).max(bytes / self.limits.part).max(1);
        samples.sort_by(|a, b| order.compare(a, b));
        let mut edges: Vec<Vec<u8>> =
            (1..count).filter_map(|n| samples.get(samples.len() * n / count)).cloned().collect();
        edges.dedup();
        let from = std::iter::once(None).chain(edges.iter().cloned().map(Some));
        let to = edges.iter().cloned().map(Some).chain([None]);
        from.zip(to).map(|(from, to)| Part { family, from, to }).collect()
    }
}

fn orders(families: &[Family]) -> Vec<KeyOrder> {
    families.iter().map(|family| family.order).collect()
}
