//! Reading a file once without leaving it in the page cache.
//!
//! Owns: a file read from front to back, of which the pages that were not in memory before are given back after they were read,
//! and those that were stay: they are what others work with, the server above all. Whoever is in a hurry lets the kernel read
//! ahead, and looks what is in memory before it can have come that far: what is there then is not ours. Whoever reads slowly
//! switches that off, and looks directly before each read: others have the time to bring in pages meanwhile.
//! Giving back is also what makes reading fast: the next pages are those that were used a moment ago, where new ones cost as
//! much as reading (a restore of 2 GB took 1.9 s instead of 2.8).
//! Where the system does not say what is in memory, nothing is given back.

use std::{
    fs::File,
    io::{self, Read},
    mem,
    os::unix::fs::FileExt as _,
};

use rustix::fs::{Advice, fadvise};

use super::residency;

/// So far ahead of the reader it is looked what is in memory: further than kernels read ahead (8 MiB on large disks).
const LOOKED_AHEAD: u64 = 32 << 20;
/// Given back at once. Pages that were read ahead come in blocks, and leave only as whole ones.
const STEP: u64 = 4 << 20;

/// Whether the disk works ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hurry {
    /// What comes next is on its way to memory meanwhile.
    Ahead,
    /// What is read slowly would lie in memory for long.
    None,
}

/// A file that passes by.
#[derive(Debug)]
pub struct Passing {
    file: File,
    hurry: Hurry,
    offset: u64,
    /// Up to here, which is the end of a page, it was looked what is in memory.
    looked: u64,
    /// Whole pages before `looked` that were not in memory, and are not given back.
    ours: Vec<(u64, u64)>,
    /// What was given back already; pages that were busy then are tried again at the end.
    given_back: Vec<(u64, u64)>,
    /// Up to here everything of ours was.
    given_back_to: u64,
}

impl Passing {
    /// Reads `file` from its beginning, with a position of its own.
    pub fn new(file: File, hurry: Hurry) -> Self {
        match hurry {
            Hurry::Ahead => drop(fadvise(&file, 0, None, Advice::Sequential)),
            Hurry::None => no_reading_ahead(&file),
        }
        Self { file, hurry, offset: 0, looked: 0, ours: Vec::new(), given_back: Vec::new(), given_back_to: 0 }
    }

    /// The same, from `offset` on.
    #[must_use]
    pub fn beginning_at(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Looks what is in memory up to the end of the page of `end`, of what was not looked at before.
    fn look(&mut self, end: u64) {
        let page = rustix::param::page_size();
        let end = end.div_ceil(page as u64).saturating_mul(page as u64);
        let Ok(length) = usize::try_from(end.saturating_sub(self.looked)) else { return };
        let resident = residency(&self.file, self.looked, length, page).unwrap_or_default();
        for range in absent_ranges(&resident, self.looked, page as u64) {
            join(&mut self.ours, range);
        }
        self.looked = self.looked.max(end);
    }

    /// Before the next `length` bytes are read.
    fn look_for(&mut self, length: u64) {
        let end = self.offset.saturating_add(length);
        match self.hurry {
            Hurry::None => self.look(end),
            Hurry::Ahead if self.looked < end.saturating_add(LOOKED_AHEAD) => {
                self.look(end.saturating_add(2 * LOOKED_AHEAD));
            }
            Hurry::Ahead => {}
        }
    }

    /// Gives back the pages of ours that end at `end` or before.
    fn give_back(&mut self, end: u64) {
        let page = rustix::param::page_size() as u64;
        let end = end / page * page;
        for (begin, last) in mem::take(&mut self.ours) {
            if begin < end {
                join(&mut self.given_back, (begin, last.min(end)));
            }
            if last > end {
                join(&mut self.ours, (begin.max(end), last));
            }
        }
        // Once more what was given back last: a block with its end in this step was kept then.
        let again = self.given_back_to.saturating_sub(STEP);
        for (begin, last) in self.given_back.iter().rev().take_while(|(_, last)| *last > again) {
            forget(&self.file, (*begin).max(again), *last);
        }
        self.given_back_to = end;
    }

    /// Gives back everything of ours, and tries again what was busy.
    fn give_all_back(&mut self) {
        for (begin, end) in mem::take(&mut self.ours).into_iter().chain(mem::take(&mut self.given_back)) {
            forget(&self.file, begin, end);
        }
    }
}

impl Read for Passing {
    /// Reads on; 0 at the end. With buffers of whole pages every page is read once.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.look_for(buffer.len() as u64);
        let read = loop {
            match self.file.read_at(buffer, self.offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.offset = self.offset.saturating_add(read as u64);
        if read == 0 {
            self.give_all_back();
        } else if self.hurry == Hurry::None || self.offset - self.given_back_to.min(self.offset) >= STEP {
            self.give_back(self.offset);
        }
        Ok(read)
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        // Where reading ended before the file did.
        self.give_all_back();
    }
}

/// Adds a range behind the others.
fn join(ranges: &mut Vec<(u64, u64)>, range: (u64, u64)) {
    match ranges.last_mut() {
        Some(last) if last.1 == range.0 => last.1 = range.1,
        _ => ranges.push(range),
    }
}

/// Switches reading ahead off for this descriptor. Not every file system takes advice; without it more stays in memory,
/// and nothing else happens.
pub fn no_reading_ahead(file: &File) {
    let _ = fadvise(file, 0, None, Advice::Random);
}

/// Reads once, and gives back what was not in memory before. Without [`no_reading_ahead`] before, the kernel leaves more in
/// memory than was read.
pub fn read_passing(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let page = rustix::param::page_size();
    let resident = residency(file, offset, buffer.len(), page).unwrap_or_default();
    let read = file.read_at(buffer, offset)?;
    let (page, behind) = (page as u64, offset.saturating_add(read as u64));
    for (begin, end) in absent_ranges(&resident, offset / page * page, page) {
        forget(file, begin, end.min(behind));
    }
    Ok(read)
}

/// Advice only: what it does not reach, the kernel drops when it needs memory.
fn forget(file: &File, begin: u64, end: u64) {
    if let Some(length) = end.checked_sub(begin).and_then(std::num::NonZeroU64::new) {
        let _ = fadvise(file, begin, Some(length), Advice::DontNeed);
    }
}

/// What is not in memory, of pages from `first` on.
fn absent_ranges(resident: &[bool], first: u64, page: u64) -> Vec<(u64, u64)> {
    let runs = absent_runs(resident).into_iter();
    runs.map(|(begin, end)| (first + begin as u64 * page, first + end as u64 * page)).collect()
}

/// Runs of pages that are not in memory, as indices.
fn absent_runs(resident: &[bool]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (i, _) in resident.iter().enumerate().filter(|(_, resident)| !**resident) {
        match runs.last_mut() {
            Some(last) if last.1 == i => last.1 = i + 1,
            _ => runs.push((i, i + 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::{
        super::lab::{MIB, directory, file_of, in_memory},
        *,
    };

    const HURRIES: [Hurry; 2] = [Hurry::Ahead, Hurry::None];

    fn read_through(file: File, size: usize, hurry: Hurry) {
        let mut passing = Passing::new(file, hurry);
        let mut buffer = vec![0; MIB];
        let mut total = 0;
        loop {
            let read = passing.read(&mut buffer).unwrap();
            if read == 0 {
                break;
            }
            assert!(buffer[..read].iter().all(|b| *b == 7));
            total += read;
        }
        assert_eq!(total, size);
    }

    /// One of three attempts succeeds. The kernel takes single pages of its own accord, though seldom; what we take of them we
    /// would take each time.
    fn undisturbed(mut attempt: impl FnMut() -> Result<(), String>) {
        let failed: Vec<_> = (0..3).map_while(|_| attempt().err()).collect();
        assert!(failed.len() < 3, "{failed:?}");
    }

    #[test]
    fn a_cold_file_is_not_in_memory_after_it_was_read() {
        let Some(directory) = directory() else { return };
        let size = 64 * MIB + 4321;
        for hurry in HURRIES {
            undisturbed(|| {
                let (file, path) = file_of(directory.path(), size);
                read_through(file, size, hurry);
                let left = in_memory(&path);
                (left == 0).then_some(()).ok_or(format!("{hurry:?}: {left} pages are left"))
            });
        }
    }

    #[test]
    fn what_was_read_ahead_goes_again_where_reading_ends_early() {
        let Some(directory) = directory() else { return };
        undisturbed(|| {
            let (file, path) = file_of(directory.path(), 16 * MIB);
            let mut passing = Passing::new(file, Hurry::Ahead);
            passing.read_exact(&mut vec![0; MIB]).unwrap();
            let comes = (0..1000).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(5));
                in_memory(&path) > MIB / rustix::param::page_size()
            });
            assert!(comes, "more than was read");
            // The disk is done with the last of them a moment after it can be seen, or a busy one later.
            std::thread::sleep(std::time::Duration::from_millis(50));
            drop(passing);
            let left = in_memory(&path);
            (left == 0).then_some(()).ok_or(format!("{left} pages are left"))
        });
    }

    #[test]
    fn a_warm_file_is_in_memory_as_before() {
        let Some(directory) = directory() else { return };
        let (file, path) = file_of(directory.path(), 64 * MIB);
        let all = 64 * MIB / rustix::param::page_size();
        for hurry in HURRIES {
            undisturbed(|| {
                std::fs::read(&path).unwrap();
                read_through(file.try_clone().unwrap(), 64 * MIB, hurry);
                let after = in_memory(&path);
                (after == all).then_some(()).ok_or(format!("{hurry:?}: {after} of {all} pages"))
            });
        }
    }

    #[test]
    fn of_a_file_that_is_partly_in_memory_exactly_that_part_stays() {
        let Some(directory) = directory() else { return };
        let (file, path) = file_of(directory.path(), 16 * MIB);
        let warm = File::open(&path).unwrap();
        fadvise(&warm, 0, None, Advice::Random).unwrap();
        let mut piece = vec![0; 100_000];
        let page = rustix::param::page_size();
        for hurry in HURRIES {
            undisturbed(|| {
                for offset in [0, 5_000_000, 16 * MIB as u64 - 100_000] {
                    warm.read_exact_at(&mut piece, offset).unwrap();
                }
                let before = residency(&file, 0, 16 * MIB, page).unwrap();
                assert!(before.iter().any(|r| *r) && before.iter().any(|r| !*r));
                read_through(file.try_clone().unwrap(), 16 * MIB, hurry);
                let after = residency(&file, 0, 16 * MIB, page).unwrap();
                (after == before).then_some(()).ok_or(format!("{hurry:?}: other pages than before"))
            });
        }
    }

    #[test]
    fn reading_can_begin_in_the_middle() {
        let Some(directory) = directory() else { return };
        undisturbed(|| {
            let (file, path) = file_of(directory.path(), 12 * MIB);
            let mut all = Vec::new();
            Passing::new(file, Hurry::Ahead).beginning_at(112).read_to_end(&mut all).unwrap();
            assert_eq!(all.len(), 12 * MIB - 112);
            // The page in which it began.
            let left = in_memory(&path);
            (left <= 1).then_some(()).ok_or(format!("{left} pages are left"))
        });
    }

    #[test]
    fn runs_of_absent_pages_are_found() {
        assert_eq!(absent_runs(&[]), []);
        assert_eq!(absent_runs(&[true, true]), []);
        assert_eq!(absent_runs(&[false, false, true, false]), [(0, 2), (3, 4)]);
        assert_eq!(absent_runs(&[true, false]), [(1, 2)]);
    }
}
