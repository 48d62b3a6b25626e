//! A file that is written once, from front to back.
//!
//! Owns: what keeps the disk at work meanwhile, so that the fsync at the end is short; and that a large file does not push out
//! of memory what other programs work with: its pages are given back once they are on the disk, and serve for what follows.
//! Refuses: seeking, and promising anything before [`Outgoing::sync`].

use std::{
    fs::File,
    io::{self, Write as _},
    num::NonZeroU64,
    os::fd::AsRawFd as _,
};

use rustix::{
    fs::{Advice, fadvise},
    io::Errno,
};

/// Writing back begins when this much is dirty. What is dirty of a file that is given back is twice as much at most.
const WRITE_BACK: u64 = 8 << 20;

/// What becomes of the file's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// They stay in memory as long as the kernel likes: somebody reads them soon.
    Kept,
    /// They are given back.
    GivenBack,
}

/// A new file.
#[derive(Debug)]
pub struct Outgoing {
    file: File,
    after: After,
    written: u64,
    /// Up to here writing back has begun.
    begun: u64,
    /// Up to here it has ended, and the pages are given back.
    given_back: u64,
}

impl Outgoing {
    /// `file` is empty, or complete and only to be made durable, and nobody else writes it.
    pub const fn new(file: File, after: After) -> Self {
        Self { file, after, written: 0, begun: 0, given_back: 0 }
    }

    /// Bytes that were given to it.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// The file.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Appends `bytes`. After an error the file must be given up.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written - self.begun < WRITE_BACK {
            return Ok(());
        }
        let before = self.begun;
        self.write_back();
        match self.after {
            After::Kept => Ok(()),
            After::GivenBack => self.give_back(before),
        }
    }

    /// All bytes were given: writing back what is left begins.
    pub fn end(&mut self) {
        self.write_back();
    }

    /// Makes all of it durable, with its length. After an error the file must be given up: a second attempt may succeed without
    /// having written anything.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        if self.after == After::GivenBack {
            forget(&self.file, self.given_back, u64::MAX);
        }
        Ok(())
    }

    /// A hint: whether or not the kernel takes it, [`Outgoing::sync`] comes later and tells of errors.
    fn write_back(&mut self) {
        let _ = sync_range(&self.file, self.begun, self.written, libc::SYNC_FILE_RANGE_WRITE);
        self.begun = self.written;
    }

    /// What is before `end` is on its way to the disk; waits for it. Waiting takes the errors of writing back that a later fsync would
    /// tell, so they are told here.
    fn give_back(&mut self, end: u64) -> io::Result<()> {
        if end <= self.given_back {
            return Ok(());
        }
        let wait = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        match sync_range(&self.file, self.given_back, end, wait) {
            Err(e) if !is_unsupported(&e) => return Err(e),
            _ => {}
        }
        // Once more what came before it: pages come and go in blocks, and one can lie on both sides.
        forget(&self.file, self.given_back.saturating_sub(WRITE_BACK), end);
        self.given_back = end;
        Ok(())
    }
}

/// The file's pages that are on the disk.
fn forget(file: &File, begin: u64, end: u64) {
    if let Some(length) = NonZeroU64::new(end.saturating_sub(begin)) {
        // 0 is up to the end of the file.
        let length = if end == u64::MAX { None } else { Some(length) };
        let _ = fadvise(file, begin, length, Advice::DontNeed);
    }
}

/// The file system knows no such call.
fn is_unsupported(e: &io::Error) -> bool {
    matches!(Errno::from_io_error(e), Some(Errno::INVAL | Errno::NOSYS | Errno::SPIPE | Errno::OPNOTSUPP))
}

#[allow(unsafe_code)] // neither the standard library nor rustix has this call
fn sync_range(file: &File, from: u64, to: u64, flags: libc::c_uint) -> io::Result<()> {
    let (Ok(from), Ok(length)) = (i64::try_from(from), i64::try_from(to.saturating_sub(from))) else { return Ok(()) };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches no memory of ours.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), from, length, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::lab, *};

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn every_byte_is_there_and_of_what_is_given_back_nothing_stays_in_memory() {
        let Some(directory) = lab::directory() else { return };
        for size in [0, 1, lab::MIB, 8 * lab::MIB, 40 * lab::MIB + 12_345] {
            for (piece, after) in [(777_777, After::Kept), (4096, After::GivenBack), (12 * lab::MIB, After::GivenBack)]
            {
                let path = directory.path().join(format!("{size}-{piece}-{after:?}"));
                let mut out = Outgoing::new(File::create_new(&path).unwrap(), after);
                let all = bytes(size);
                all.chunks(piece).for_each(|piece| out.write(piece).unwrap());
                out.end();
                assert_eq!(out.written(), size as u64);
                out.sync().unwrap();
                let kept = lab::in_memory(&path);
                assert_eq!(kept > 0, after == After::Kept && size > 0, "{size}, {after:?}: {kept} pages");
                assert!(std::fs::read(&path).unwrap() == all);
            }
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut out = Outgoing::new(File::options().write(true).open("/dev/full").unwrap(), After::GivenBack);
        assert_eq!(out.write(&bytes(10)).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
