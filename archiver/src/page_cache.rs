//! Reading files of the server without leaving them in its page cache.
//!
//! Owns: a file read once from front to back, of which the pages that were not in memory before are given back after they
//! were read, and those that were stay: they are what the server works with. Reading ahead is switched off for our
//! descriptor, because pages that the kernel fetched for us ahead of time could not be told from the server's later. What a
//! reader in a hurry will want next is asked for by us instead, after a look at what of it is in memory.
//! Where the system does not say what is in memory, nothing is given back.

use std::{
    fs::File,
    io::{self, Read},
    mem,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    ptr,
};

use rustix::fs::{Advice, fadvise};

/// The kernel cuts what is asked for ahead to the size of one request of the disk; no disk has smaller ones.
const ASKED_FOR: u64 = 128 << 10;

/// Whether the disk works ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hurry {
    /// As much again as is read is on its way to memory meanwhile.
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
}

impl Passing {
    /// Reads `file` from its beginning, with a position of its own.
    pub fn new(file: File, hurry: Hurry) -> Self {
        no_reading_ahead(&file);
        Self { file, hurry, offset: 0, looked: 0, ours: Vec::new(), given_back: Vec::new() }
    }

    /// Looks what is in memory up to the end of the page of `end`. Answers what is not, of what was not looked at before.
    fn look(&mut self, end: u64) -> Vec<(u64, u64)> {
        let page = rustix::param::page_size();
        let end = end.div_ceil(page as u64).saturating_mul(page as u64);
        let Ok(length) = usize::try_from(end.saturating_sub(self.looked)) else { return Vec::new() };
        let resident = residency(&self.file, self.looked, length, page).unwrap_or_default();
        let absent = absent_ranges(&resident, self.looked, page as u64);
        for range in &absent {
            join(&mut self.ours, *range);
        }
        self.looked = self.looked.max(end);
        absent
    }

    /// What is read after the next `length` bytes is on its way to memory from now on, and known to be ours.
    fn ask_ahead(&mut self, length: u64) {
        let end = self.offset.saturating_add(length.saturating_mul(2));
        for (begin, end) in self.look(end) {
            let mut at = begin;
            while at < end {
                let some = ASKED_FOR.min(end - at);
                if let Some(some) = std::num::NonZeroU64::new(some) {
                    let _ = fadvise(&self.file, at, Some(some), Advice::WillNeed);
                }
                at += some;
            }
        }
    }

    /// Gives back the pages of ours that end at `end` or before.
    fn give_back(&mut self, end: u64) {
        let page = rustix::param::page_size() as u64;
        let end = end / page * page;
        for (begin, last) in mem::take(&mut self.ours) {
            if begin < end {
                forget(&self.file, begin, last.min(end));
                join(&mut self.given_back, (begin, last.min(end)));
            }
            if last > end {
                join(&mut self.ours, (begin.max(end), last));
            }
        }
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
        let length = buffer.len() as u64;
        self.look(self.offset.saturating_add(length));
        if self.hurry == Hurry::Ahead {
            self.ask_ahead(length);
        }
        let read = loop {
            match self.file.read_at(buffer, self.offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.offset = self.offset.saturating_add(read as u64);
        if read == 0 {
            self.give_all_back();
        } else {
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

/// Which pages of `length` bytes from `offset` on are in memory, beginning with the page that holds `offset`; `None`
/// where the system does not say. Pages behind the end of the file count as absent.
pub fn residency(file: &File, offset: u64, length: usize, page: usize) -> Option<Vec<bool>> {
    let begin = offset / page as u64 * page as u64;
    let length = length.checked_add(usize::try_from(offset - begin).ok()?)?;
    let pages = length.div_ceil(page);
    if pages == 0 {
        return Some(Vec::new());
    }
    let begin = libc::off_t::try_from(begin).ok()?;
    let mut states = vec![0_u8; pages];
    // SAFETY: a new mapping at an address of the kernel's choice; its bytes are never touched, so a file that is cut
    // meanwhile does no harm. mincore writes one byte for each page of the mapping into a buffer of as many.
    let told = unsafe {
        let address = libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), begin);
        if address == libc::MAP_FAILED {
            return None;
        }
        let told = libc::mincore(address, length, states.as_mut_ptr().cast());
        libc::munmap(address, length);
        told
    };
    (told == 0).then(|| states.into_iter().map(|state| state & 1 == 1).collect())
}

/// Files of which the tests know what is in memory.
#[cfg(test)]
pub(crate) mod lab {
    use std::{
        io::Write as _,
        path::{Path, PathBuf},
    };

    use super::*;

    pub(crate) const MIB: usize = 1 << 20;

    /// A directory on a file system with a page cache that can be given back, or `None`, said on stderr.
    pub(crate) fn directory() -> Option<tempfile::TempDir> {
        let candidates = [std::env::temp_dir(), PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
        for place in candidates {
            let Ok(directory) = tempfile::tempdir_in(place) else { continue };
            let (_, path) = file_of(directory.path(), MIB);
            if in_memory(&path) == 0 {
                return Some(directory);
            }
        }
        let skipped =
            "SKIPPED: neither the temporary directory nor the checkout is on a file system that gives pages back";
        writeln!(io::stderr(), "{skipped} (tmpfs?)").unwrap();
        None
    }

    /// A durable file of which nothing is in memory, if the file system can do that.
    pub(crate) fn file_of(directory: &Path, size: usize) -> (File, PathBuf) {
        let path = directory.join("000007.sst");
        let mut file = File::create(&path).unwrap();
        file.write_all(&vec![7; size]).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        (File::open(&path).unwrap(), path)
    }

    pub(crate) fn in_memory(path: &Path) -> usize {
        let file = File::open(path).unwrap();
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        residency(&file, 0, length, rustix::param::page_size()).unwrap().into_iter().filter(|r| *r).count()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        lab::{MIB, directory, file_of, in_memory},
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

    #[test]
    fn a_cold_file_is_not_in_memory_after_it_was_read() {
        let Some(directory) = directory() else { return };
        let size = 64 * MIB + 4321;
        for hurry in HURRIES {
            let (file, path) = file_of(directory.path(), size);
            assert_eq!(in_memory(&path), 0);
            read_through(file, size, hurry);
            assert_eq!(in_memory(&path), 0, "{hurry:?}");
        }
    }

    #[test]
    fn what_was_asked_for_ahead_comes_and_goes_again_where_reading_ends_early() {
        let Some(directory) = directory() else { return };
        let (file, path) = file_of(directory.path(), 16 * MIB);
        let page = rustix::param::page_size();
        let mut passing = Passing::new(file.try_clone().unwrap(), Hurry::Ahead);
        passing.read_exact(&mut vec![0; MIB]).unwrap();
        let comes = || residency(&file, 0, 4 * MIB, page).unwrap();
        for _ in 0..1000 {
            if comes().iter().filter(|resident| **resident).count() == MIB / page {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let ahead: Vec<_> = comes().into_iter().enumerate().filter(|(_, r)| *r).map(|(i, _)| i * page / MIB).collect();
        assert!(ahead == vec![1; MIB / page], "the second MiB, and nothing else: {ahead:?}");
        // The disk is done with the last of them a moment after it can be seen.
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(passing);
        assert_eq!(in_memory(&path), 0);
    }

    #[test]
    fn a_warm_file_is_in_memory_as_before() {
        let Some(directory) = directory() else { return };
        let (file, path) = file_of(directory.path(), 64 * MIB);
        std::fs::read(&path).unwrap();
        let before = in_memory(&path);
        assert_eq!(before, 64 * MIB / rustix::param::page_size());
        for hurry in HURRIES {
            read_through(file.try_clone().unwrap(), 64 * MIB, hurry);
            assert_eq!(in_memory(&path), before, "{hurry:?}");
        }
    }

    #[test]
    fn of_a_file_that_is_partly_in_memory_exactly_that_part_stays() {
        let Some(directory) = directory() else { return };
        let (file, path) = file_of(directory.path(), 16 * MIB);
        let warm = File::open(&path).unwrap();
        fadvise(&warm, 0, None, Advice::Random).unwrap();
        let mut piece = vec![0; 100_000];
        for offset in [0, 5_000_000, 16 * MIB as u64 - 100_000] {
            warm.read_exact_at(&mut piece, offset).unwrap();
        }
        let page = rustix::param::page_size();
        let before = residency(&file, 0, 16 * MIB, page).unwrap();
        assert!(before.iter().any(|r| *r) && before.iter().any(|r| !*r));
        for hurry in HURRIES {
            read_through(file.try_clone().unwrap(), 16 * MIB, hurry);
            assert!(residency(&file, 0, 16 * MIB, page).unwrap() == before, "{hurry:?}");
        }
    }

    #[test]
    fn runs_of_absent_pages_are_found() {
        assert_eq!(absent_runs(&[]), []);
        assert_eq!(absent_runs(&[true, true]), []);
        assert_eq!(absent_runs(&[false, false, true, false]), [(0, 2), (3, 4)]);
        assert_eq!(absent_runs(&[true, false]), [(1, 2)]);
    }
}
