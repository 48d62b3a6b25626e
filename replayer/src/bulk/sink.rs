//! Takes records in their order and makes table files of them.
//!
//! Owns: what of a record counts, memory ([`Limits`]), and the threads: chunks are sorted beside reading, parts of
//! the keys are written beside one another.
//! Refuses: operations whose outcome is not the last one's alone: merge operands, wide columns, values with a time, prepared
//! transactions. Whoever restores goes on with the log itself then.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    thread::JoinHandle,
};

use pitr_archive::{
    Code, Error, Result,
    ids::{ColumnFamilyId, FileNumber, RecordNumber},
    rocks::write_batch::{Op, WriteBatch},
    segment::entry::Record,
};

use super::{
    chunk::{Chunk, Kind, Version},
    merge::{Merge, Part, Run},
    order::KeyOrder,
    run::{RunFile, RunWriter},
    tables::{self, Below, Family, TableFile},
    tombstones::{Tombstone, Tombstones},
};

/// Deleted ranges are all in memory; so many take at most some hundred bytes each, beside their keys.
const MAX_TOMBSTONE_BYTES: usize = 32 << 20;

/// What a sink may take of memory, and how it divides its work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A chunk is sorted when it takes so many bytes.
    pub chunk: usize,
    /// So many are sorted at a time, beside the one that is filled.
    pub sorting: usize,
    /// Sorted chunks of no more bytes than this stay in memory.
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
    /// Below 512 MiB, whatever the length of the log: three chunks, and what is kept, while it is read; what is kept and what
    /// is read back while tables are written.
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
    /// Where sorted chunks go that do not stay in memory.
    directory: PathBuf,
    chunk: Chunk,
    /// Operations so far.
    age: u64,
    tombstones: Vec<(u16, Tombstone)>,
    tombstone_bytes: usize,
    sorting: VecDeque<JoinHandle<Result<Run>>>,
    runs: Vec<Run>,
    /// Bytes of those that stay in memory.
    kept: usize,
    started: usize,
    /// Runs from here on were not merged.
    unmerged: usize,
}

impl Sink {
    /// `families`, each with the first log that it needs; `directory` is for what is only needed meanwhile.
    pub fn new(limits: Limits, families: Vec<(Family, FileNumber)>, directory: PathBuf) -> Result<Self> {
        let too_many =
            || Error::new(Code::EngineUnusable, "replaying into tables").with("column families", families.len());
        if u16::try_from(families.len()).is_err() {
            return Err(too_many());
        }
        let known = (0_u16..).zip(&families).map(|(index, (family, log))| (family.spec.id, (index, *log))).collect();
        let families: Vec<Family> = families.into_iter().map(|(family, _)| family).collect();
        Ok(Self {
            limits,
            chunk: Chunk::new(orders(&families), 0),
            families,
            known,
            directory,
            age: 0,
            tombstones: Vec::new(),
            tombstone_bytes: 0,
            sorting: VecDeque::new(),
            runs: Vec::new(),
            kept: 0,
            started: 0,
            unmerged: 0,
        })
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
            self.sort()?;
        }
        let version = Version { family, key, age: self.age, kind, value };
        if !self.chunk.push(&version) {
            self.sort()?;
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
        self.tombstone_bytes += begin.len() + end.len() + size_of::<Tombstone>();
        if self.tombstone_bytes > MAX_TOMBSTONE_BYTES {
            return Err(Error::new(Code::EngineUnusable, "replaying into tables")
                .with("deleted ranges", self.tombstones.len())
                .hint("--engine native replays them"));
        }
        let tombstone = Tombstone { begin: begin.to_vec(), end: end.to_vec(), age: self.age };
        self.tombstones.push((family, tombstone));
        Ok(())
    }

    /// The chunk is full: it is sorted beside what follows.
    fn sort(&mut self) -> Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Chunk::new(orders(&self.families), self.age));
        if chunk.is_empty() {
            return Ok(());
        }
        let stays = self.kept + chunk.bytes() <= self.limits.kept;
        self.kept += if stays { chunk.bytes() } else { 0 };
        let path = self.directory.join(format!("pitr-sorted-{}", self.started));
        self.started += 1;
        let orders = orders(&self.families);
        self.sorting.push_back(std::thread::spawn(move || {
            let sorted = chunk.sort();
            match stays {
                true => Ok(Run::Memory(sorted)),
                false => Ok(Run::File(RunFile::write(&path, &sorted, &orders)?)),
            }
        }));
        while self.sorting.len() > self.limits.sorting {
            self.join()?;
        }
        Ok(())
    }

    fn join(&mut self) -> Result<()> {
        if let Some(sorting) = self.sorting.pop_front() {
            let run = sorting.join().map_err(|_| Error::new(Code::Internal, "sorting operations"))??;
            self.runs.push(run);
        }
        if self.runs.len() - self.unmerged >= self.limits.merged {
            self.merge()?;
        }
        Ok(())
    }

    /// Makes one run of the oldest ones, of as many as can be read at once.
    fn merge_some(&mut self) -> Result<()> {
        let mut read = 0;
        let fits = self.runs.iter().take_while(|run| {
            read += run.largest_block();
            read <= self.limits.reading
        });
        let some = fits.count().clamp(2, self.runs.len());
        let newer = self.runs.split_off(some);
        self.unmerged = 0;
        self.merge()?;
        self.runs.extend(newer);
        Ok(())
    }

    /// Makes one run of those that were not merged.
    fn merge(&mut self) -> Result<()> {
        let runs = self.runs.split_off(self.unmerged);
        let mut writer = RunWriter::create(&self.directory.join(format!("pitr-merged-{}", self.started)))?;
        self.started += 1;
        for (index, family) in (0_u16..).zip(&self.families) {
            let mut merge = Merge::new(&runs, Part { family: index, from: None, to: None }, family.order)?;
            while let Some(version) = merge.next()? {
                writer.push(&version)?;
            }
        }
        self.runs.push(Run::File(writer.finish(&orders(&self.families))?));
        self.unmerged = self.runs.len();
        Ok(())
    }

    /// So many threads, as far as what each has to read fits into memory. Where even one has to read too much, there are too
    /// many runs for so large values: they become fewer first.
    fn threads(&mut self, wanted: usize) -> Result<usize> {
        let largest = |runs: &[Run]| runs.iter().map(Run::largest_block).sum::<usize>();
        while largest(&self.runs) > self.limits.reading && self.runs.len() > 2 {
            self.merge_some()?;
        }
        let blocks = largest(&self.runs);
        match self.limits.reading.checked_div(blocks) {
            None => Ok(wanted),
            // Of two runs one thread may read more than its share: what sorting held is free by now.
            Some(0) if blocks <= 3 * self.limits.reading => Ok(1),
            Some(0) => Err(Error::new(Code::EngineUnusable, "merging sorted operations")
                .with("bytes of their largest values together", blocks)
                .hint("--engine native replays the log")),
            Some(most) => Ok(wanted.min(most)),
        }
    }

    /// Writes the table files, with numbers from `first` on; answers them by column family and key, and the first number
    /// that is free. Uses so many threads.
    pub fn finish(mut self, first: FileNumber, threads: usize) -> Result<(Vec<Family>, Vec<TableFile>, FileNumber)> {
        self.sort()?;
        while !self.sorting.is_empty() {
            self.join()?;
        }
        let threads = self.threads(threads.max(1))?;
        let mut tombstones: Vec<Vec<Tombstone>> = self.families.iter().map(|_| Vec::new()).collect();
        for (family, tombstone) in std::mem::take(&mut self.tombstones) {
            if let Some(own) = tombstones.get_mut(usize::from(family)) {
                own.push(tombstone);
            }
        }
        let tombstones: Vec<Tombstones> =
            self.families.iter().zip(tombstones).map(|(family, own)| Tombstones::new(family.order, own)).collect();
        let parts: Vec<Part> =
            (0_u16..).zip(&self.families).flat_map(|(index, f)| self.parts(index, f.order, threads)).collect();
        let numbers = AtomicU64::new(first.get());
        let next = Mutex::new(parts.iter().enumerate());
        let done: Mutex<Vec<(usize, Vec<TableFile>)>> = Mutex::new(Vec::new());
        let work = || -> Result<()> {
            loop {
                let taken = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((index, part)) = taken else { return Ok(()) };
                let at = usize::from(part.family);
                let (Some(family), Some(own)) = (self.families.get(at), tombstones.get(at)) else { return Ok(()) };
                let files = tables::write(part, &self.runs, family, own, &numbers)?;
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
    fn parts(&self, family: u16, order: KeyOrder, threads: usize) -> Vec<Part> {
        let mut samples: Vec<Vec<u8>> =
            self.runs.iter().flat_map(|run| run.samples(family, self.limits.sampled)).collect();
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

impl Drop for Sink {
    fn drop(&mut self) {
        // Nothing is written any more when the directory goes.
        for sorting in self.sorting.drain(..) {
            let _ = sorting.join();
        }
    }
}

fn orders(families: &[Family]) -> Vec<KeyOrder> {
    families.iter().map(|family| family.order).collect()
}
