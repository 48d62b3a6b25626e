//! A window of a growing file's bytes, for decoders that do no I/O.
//!
//! Owns: one buffer over one open file. Bytes that a decoder has not consumed are forgotten by [`Window::rewind`] before
//! the next look, because the end of a file that is being written (or of a recycled WAL that is being overwritten) can
//! be other bytes next time.

use std::{fs::File, io::ErrorKind, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use pitr_archive::{Result, error, page_cache};

/// The first read after a rewind: large enough for what an interval brings, small enough to be cheap when nothing came.
const FIRST: usize = 64 * 1024;
/// Further reads: sequential speed without holding more than this beyond a record.
const CHUNK: usize = 256 * 1024;

/// The window.
#[derive(Debug)]
pub struct Window {
    file: Arc<File>,
    path: PathBuf,
    bytes: Vec<u8>,
    start: u64,
    at_end: bool,
    passing: Passing,
}

/// What is left in the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// What was read: it is the end of a file that is being written.
    Stays,
    /// What was there before: nobody reads this file again.
    Goes,
}

impl Window {
    /// A window of `file`; `path` is for error messages.
    pub fn new(file: File, path: PathBuf, passing: Passing) -> Self {
        if passing == Passing::Goes {
            page_cache::no_reading_ahead(&file);
        }
        Self { file: Arc::new(file), path, bytes: Vec::new(), start: 0, at_end: false, passing }
    }

    /// The file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Its name, for messages.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Forgets everything that was read.
    pub fn rewind(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(4 * CHUNK);
        self.at_end = false;
    }

    /// The bytes known from `offset` on.
    pub fn from(&self, offset: u64) -> &[u8] {
        offset
            .checked_sub(self.start)
            .and_then(|skip| usize::try_from(skip).ok())
            .and_then(|skip| self.bytes.get(skip..))
            .unwrap_or_default()
    }

    /// Whether the last read met the end of the file.
    pub fn at_end(&self) -> bool {
        self.at_end
    }

    /// Reads more bytes behind those known, keeping what lies at or after `offset`. Answers whether any came.
    pub fn extend(&mut self, offset: u64) -> Result<bool> {
        let known = self.from(offset).len();
        if known == 0 {
            self.bytes.clear();
        } else {
            let drop = self.bytes.len() - known;
            self.bytes.drain(..drop);
        }
        self.start = offset;
        // A record larger than the window doubles it, so that it is rescanned a logarithmic number of times.
        let wanted = if known == 0 { FIRST } else { CHUNK.max(known) };
        self.bytes.resize(known + wanted, 0);
        let mut filled = known;
        while filled < self.bytes.len() {
            let at = self.start + filled as u64;
            let rest = &mut self.bytes[filled..];
            let read = match self.passing {
                Passing::Stays => self.file.read_at(rest, at),
                Passing::Goes => page_cache::read_passing(&self.file, rest, at),
            };
            match read {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(error::io("reading", &self.path, e)),
            }
        }
        self.at_end = filled < self.bytes.len();
        self.bytes.truncate(filled);
        Ok(filled > known)
    }
}
