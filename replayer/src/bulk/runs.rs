//! The sorted runs of a log, oldest first.
//!
//! Owns: the threads that sort chunks beside reading, whether runs stay in memory or go to disk, when they are merged, and that
//! those on disk are noted. A short log stays in memory as a whole; of a longer one everything but the last chunk is on disk,
//! because only that can be gone on with after an interruption.
//! Memory: what [`Limits`] say.

use std::{collections::VecDeque, ops::Range, thread::JoinHandle};

use pitr_archive::{Code, Error, Result};

use super::{
    chunk::Chunk,
    merge::{Merge, Part, Run},
    noted::{FoundRun, Made, NotedRun, Notes},
    order::KeyOrder,
    run::{RunFile, RunWriter},
    sink::Limits,
    tombstones::FamilyTombstone,
};
use crate::{crash, restore::resume::Reached};

/// A run of the log, and what else is known where it ends.
struct Kept {
    run: Run,
    end: End,
}

#[derive(Clone)]
struct End {
    /// Of its file, if it has one.
    number: u64,
    made: Made,
    /// Those of all deleted ranges that belong to it.
    tombstones: Range<usize>,
    age: u64,
    reached: Option<Reached>,
}

struct Sorting {
    end: End,
    thread: JoinHandle<Result<Run>>,
}

/// Where what is sorted waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    Memory,
    Disk,
}

pub(super) struct Runs {
    limits: Limits,
    orders: Vec<KeyOrder>,
    notes: Notes,
    /// All deleted ranges, with the index of their column family, as they came.
    pub tombstones: Vec<FamilyTombstone>,
    /// So many of them belong to runs.
    divided: usize,
    sorting: VecDeque<Sorting>,
    kept: Vec<Kept>,
    waits: Waits,
    /// Bytes that stay in memory.
    in_memory: usize,
    /// There is a file of notes of these runs, or older ones.
    noted: bool,
    /// The number of the next file.
    next: u64,
}

impl Runs {
    pub fn new(limits: Limits, orders: Vec<KeyOrder>, notes: Notes) -> Self {
        Self {
            limits,
            orders,
            notes,
            tombstones: Vec::new(),
            divided: 0,
            sorting: VecDeque::new(),
            kept: Vec::new(),
            waits: Waits::Memory,
            in_memory: 0,
            noted: false,
            next: 0,
        }
    }

    /// Begins with the runs that an interrupted restore left; answers where the log goes on behind them, and how many
    /// operations are before that.
    pub fn go_on(&mut self) -> Option<(Reached, u64)> {
        let found = self.notes.find(&self.orders);
        let behind = found.last().and_then(|last| Some((last.noted.reached.clone()?, last.noted.age)));
        for FoundRun { noted, file, tombstones } in found {
            let first = self.tombstones.len();
            self.tombstones.extend(tombstones);
            let NotedRun { number, made, age, reached, .. } = noted;
            let end = End { number, made, tombstones: first..self.tombstones.len(), age, reached };
            self.kept.push(Kept { run: Run::File(file), end });
            self.next = self.next.max(number.saturating_add(1));
            (self.waits, self.noted) = (Waits::Disk, true);
        }
        self.divided = self.tombstones.len();
        behind
    }

    /// The files that it goes on with.
    pub fn files(&self) -> Vec<std::path::PathBuf> {
        self.kept.iter().map(|kept| self.notes.run(kept.end.number)).collect()
    }

    /// The next chunk of the log: it is sorted beside what follows. `age`: operations of the log before its end; `reached`: where
    /// the log goes on, `None` in the midst of a record.
    pub fn sort(&mut self, chunk: Chunk, age: u64, reached: Option<Reached>) -> Result<()> {
        if chunk.is_empty() {
            return Ok(());
        }
        if self.waits == Waits::Memory {
            self.in_memory += chunk.bytes();
            if self.in_memory > self.limits.kept {
                self.leave_memory();
            }
        }
        self.begin(chunk, age, reached);
        while self.sorting.len() > self.limits.sorting {
            self.join()?;
        }
        Ok(())
    }

    /// The end of the next run.
    fn end(&mut self, age: u64, reached: Option<Reached>) -> End {
        let tombstones = self.divided..self.tombstones.len();
        let number = self.next;
        (self.divided, self.next) = (tombstones.end, number + 1);
        End { number, made: Made::Sorted, tombstones, age, reached }
    }

    fn begin(&mut self, chunk: Chunk, age: u64, reached: Option<Reached>) {
        let end = self.end(age, reached);
        let thread = match self.waits {
            Waits::Memory => std::thread::spawn(move || Ok(Run::Memory(chunk.sort()))),
            Waits::Disk => {
                let put = self.to_disk(&end);
                std::thread::spawn(move || put(Run::Memory(chunk.sort())))
            }
        };
        self.sorting.push_back(Sorting { end, thread });
    }

    /// What puts a run into its file, if it is not in one.
    fn to_disk(&self, end: &End) -> impl FnOnce(Run) -> Result<Run> + Send + 'static {
        let (path, orders) = (self.notes.run(end.number), self.orders.clone());
        let tombstones = self.tombstones_of(end).to_vec();
        move |run| match run {
            Run::Memory(sorted) => Ok(Run::File(RunFile::write(&path, &sorted, &tombstones, &orders)?)),
            file @ Run::File(_) => Ok(file),
        }
    }

    fn tombstones_of(&self, end: &End) -> &[FamilyTombstone] {
        self.tombstones.get(end.tombstones.clone()).unwrap_or_default()
    }

    /// The log is too long for memory: what is there goes to disk, in front of what follows.
    fn leave_memory(&mut self) {
        (self.waits, self.in_memory) = (Waits::Disk, 0);
        let sorting = std::mem::take(&mut self.sorting);
        for Kept { run, end } in std::mem::take(&mut self.kept) {
            let put = self.to_disk(&end);
            self.sorting.push_back(Sorting { end, thread: std::thread::spawn(move || put(run)) });
        }
        for Sorting { end, thread } in sorting {
            let put = self.to_disk(&end);
            let thread = std::thread::spawn(move || put(joined(thread)?));
            self.sorting.push_back(Sorting { end, thread });
        }
    }

    fn join(&mut self) -> Result<()> {
        let Some(Sorting { end, thread }) = self.sorting.pop_front() else { return Ok(()) };
        self.kept.push(Kept { run: joined(thread)?, end });
        self.note()?;
        let merged = self.kept.iter().take_while(|kept| kept.end.made == Made::Merged).count();
        if self.kept.len() - merged >= self.limits.merged {
            // What ends in the midst of a record would take what is noted with it.
            let last = self.kept.iter().rposition(|kept| kept.end.reached.is_some()).map(|last| last + 1);
            self.merge(merged..last.filter(|last| *last > merged + 1).unwrap_or(self.kept.len()))?;
        }
        Ok(())
    }

    /// Notes the runs on disk, up to the last one behind which the log can be gone on with.
    fn note(&mut self) -> Result<()> {
        let on_disk = self.kept.iter().map_while(|Kept { run, end }| match run {
            Run::Memory(_) => None,
            Run::File(file) => Some((file, end)),
        });
        let mut runs: Vec<_> = on_disk
            .map(|(file, End { number, made, age, reached, .. })| NotedRun {
                number: *number,
                written: file.written(),
                made: *made,
                age: *age,
                reached: reached.clone(),
            })
            .collect();
        runs.truncate(runs.iter().rposition(|run| run.reached.is_some()).map_or(0, |last| last + 1));
        if self.noted || !runs.is_empty() {
            self.notes.put(runs)?;
            self.noted = true;
            crash::point("restore-sorted-noted");
        }
        Ok(())
    }

    /// Makes one run of several that follow each other.
    fn merge(&mut self, which: Range<usize>) -> Result<()> {
        let at = which.start;
        let old: Vec<Kept> = self.kept.splice(which, []).collect();
        let (Some(first), Some(last)) = (old.first(), old.last()) else { return Ok(()) };
        let tombstones = first.end.tombstones.start..last.end.tombstones.end;
        let end = End { number: self.next, made: Made::Merged, tombstones, ..last.end.clone() };
        self.next += 1;
        let mut writer = RunWriter::create(&self.notes.run(end.number))?;
        for (family, order) in (0_u16..).zip(&self.orders) {
            let runs = old.iter().map(|kept| &kept.run);
            let mut merge = Merge::new(runs, Part { family, from: None, to: None }, *order)?;
            while let Some(version) = merge.next()? {
                writer.push(&version)?;
            }
        }
        let file = writer.finish(self.tombstones_of(&end), &self.orders)?;
        self.kept.insert(at, Kept { run: Run::File(file), end });
        // Before the others go: what is noted is there.
        self.note()?;
        for kept in old {
            match kept.run {
                Run::Memory(_) => {}
                Run::File(file) => file.remove()?,
            }
        }
        Ok(())
    }

    /// Makes one run of the oldest ones, of as many as can be read at once.
    fn merge_some(&mut self) -> Result<()> {
        let mut read = 0;
        let fits = self.kept.iter().take_while(|kept| {
            read += kept.run.largest_block();
            read <= self.limits.reading
        });
        let some = fits.count().clamp(2, self.kept.len());
        self.merge(0..some)
    }

    /// All are sorted. The last chunk stays in memory: nobody would go on behind it.
    pub fn finish(&mut self, last: Chunk, age: u64) -> Result<()> {
        while !self.sorting.is_empty() {
            self.join()?;
        }
        let end = self.end(age, None);
        self.kept.push(Kept { run: Run::Memory(last.sort()), end });
        Ok(())
    }

    /// So many threads, as far as what each has to read fits into memory. Where even one has to read too much, there are too
    /// many runs for so large values: they become fewer first.
    pub fn threads(&mut self, wanted: usize) -> Result<usize> {
        let largest = |kept: &[Kept]| kept.iter().map(|kept| kept.run.largest_block()).sum::<usize>();
        while largest(&self.kept) > self.limits.reading && self.kept.len() > 2 {
            self.merge_some()?;
        }
        let blocks = largest(&self.kept);
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

    /// All of them, and all deleted ranges.
    pub fn take(&mut self) -> (Vec<Run>, Vec<FamilyTombstone>) {
        let runs = std::mem::take(&mut self.kept).into_iter().map(|kept| kept.run).collect();
        (runs, std::mem::take(&mut self.tombstones))
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        // Nothing is written any more when the directory goes.
        for sorting in self.sorting.drain(..) {
            let _ = sorting.thread.join();
        }
    }
}

fn joined(thread: JoinHandle<Result<Run>>) -> Result<Run> {
    thread.join().map_err(|_| Error::new(Code::Internal, "sorting operations"))?
}
