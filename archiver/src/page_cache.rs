//! Reading files of the server without leaving them in its page cache.
//!
//! Owns: a file read once from front to back, of which the pages that were not in memory before are given back after they
//! were read, and those that were stay: they are what the server works with. Reading ahead is switched off for our
//! descriptor, because pages that the kernel fetched for us ahead of time could not be told from the server's later.
//! Where the system does not say what is in memory, nothing is given back.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    ptr,
};

use rustix::fs::{Advice, fadvise};

/// A file that passes by.
#[derive(Debug)]
pub struct Passing {
    file: File,
    offset: u64,
    /// What was given back already; pages that were busy then are tried again at the end.
    given_back: Vec<(u64, u64)>,
}

impl Passing {
    /// Reads `file` from its beginning, with a position of its own.
    pub fn new(file: File) -> Self {
        no_reading_ahead(&file);
        Self { file, offset: 0, given_back: Vec::new() }
    }

    /// Reads on; 0 at the end. A buffer of whole pages keeps pages from being read twice.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (read, given_back) = loop {
            match read_passing(&self.file, buffer, self.offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.offset = self.offset.saturating_add(read as u64);
        for (begin, end) in given_back {
            match self.given_back.last_mut() {
                Some(last) if last.1 == begin => last.1 = end,
                _ => self.given_back.push((begin, end)),
            }
        }
        if read == 0 {
            for (begin, end) in std::mem::take(&mut self.given_back) {
                forget(&self.file, begin, end);
            }
        }
        Ok(read)
    }
}

/// Switches reading ahead off for this descriptor. Not every file system takes advice; without it more stays in memory,
/// and nothing else happens.
pub fn no_reading_ahead(file: &File) {
    let _ = fadvise(file, 0, None, Advice::Random);
}

/// Reads once, and gives back what was not in memory before; answers how much was read, and what was given back. Without
/// [`no_reading_ahead`] before, the kernel leaves more in memory than was read.
pub fn read_passing(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<(usize, Vec<(u64, u64)>)> {
    let page = rustix::param::page_size();
    let resident = residency(file, offset, buffer.len(), page);
    let read = file.read_at(buffer, offset)?;
    let (page, behind) = (page as u64, offset.saturating_add(read as u64));
    let first = offset / page * page;
    let runs = absent_runs(&resident.unwrap_or_default()).into_iter();
    let runs = runs.map(|(begin, end)| (first + begin as u64 * page, (first + end as u64 * page).min(behind)));
    let given_back: Vec<_> = runs.filter(|(begin, end)| begin < end).collect();
    for (begin, end) in &given_back {
        forget(file, *begin, *end);
    }
    Ok((read, given_back))
}

/// Advice only: what it does not reach, the kernel drops when it needs memory.
fn forget(file: &File, begin: u64, end: u64) {
    if let Some(length) = end.checked_sub(begin).and_then(std::num::NonZeroU64::new) {
        let _ = fadvise(file, begin, Some(length), Advice::DontNeed);
    }
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

    fn read_through(file: File, size: usize) {
        let mut passing = Passing::new(file);
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
        let (file, path) = file_of(directory.path(), size);
        assert_eq!(in_memory(&path), 0);
        read_through(file, size);
        assert_eq!(in_memory(&path), 0);
    }

    #[test]
    fn a_warm_file_is_in_memory_as_before() {
        let Some(directory) = directory() else { return };
        let (file, path) = file_of(directory.path(), 64 * MIB);
        std::fs::read(&path).unwrap();
        let before = in_memory(&path);
        assert_eq!(before, 64 * MIB / rustix::param::page_size());
        read_through(file, 64 * MIB);
        assert_eq!(in_memory(&path), before);
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
        read_through(file.try_clone().unwrap(), 16 * MIB);
        assert!(residency(&file, 0, 16 * MIB, page).unwrap() == before);
    }

    #[test]
    fn runs_of_absent_pages_are_found() {
        assert_eq!(absent_runs(&[]), []);
        assert_eq!(absent_runs(&[true, true]), []);
        assert_eq!(absent_runs(&[false, false, true, false]), [(0, 2), (3, 4)]);
        assert_eq!(absent_runs(&[true, false]), [(1, 2)]);
    }
}
