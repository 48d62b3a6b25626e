//! A file read from front to end through a window that grows where a record does.
//!
//! Owns: the loop between a describer, which wants the bytes from its own offset on, and the file. Memory is bounded by
//! the longest record and one piece.

use std::{fs::File, io::Read, path::Path};

use pitr_archive::{Code, Error, Result, error, rocks::log_reader::Finality};

const PIECE: usize = 1 << 20;

/// A file and the part of it in memory.
pub struct Window {
    file: File,
    path: std::path::PathBuf,
    buffer: Vec<u8>,
    /// File offset of the buffer's first byte.
    start: u64,
    ended: bool,
}

impl Window {
    /// Opens the file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| error::io("opening", path, e))?;
        let metadata = file.metadata().map_err(|e| error::io("looking at", path, e))?;
        // A device or a pipe has no end that anybody could wait for.
        if !metadata.is_file() {
            return Err(Error::new(Code::Usage, "opening").on(path.display()).hint("name a regular file"));
        }
        Ok(Self { file, path: path.to_owned(), buffer: Vec::new(), start: 0, ended: false })
    }

    /// The bytes from `offset` on that are in memory, and whether more of the file may follow them.
    pub fn from(&self, offset: u64) -> (&[u8], Finality) {
        let skip = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let finality = if self.ended { Finality::Final } else { Finality::Growing };
        (self.buffer.get(skip..).unwrap_or_default(), finality)
    }

    /// Forgets what lies before `offset` and reads more; `false` at the end of the file.
    pub fn grow(&mut self, offset: u64) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let used = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.buffer.len());
        self.buffer.drain(..used);
        self.start += used as u64;
        // As much again as is there, so that a long record is not read in many small steps.
        let wanted = PIECE.max(self.buffer.len()) as u64;
        let before = self.buffer.len();
        let mut piece = (&mut self.file).take(wanted);
        piece.read_to_end(&mut self.buffer).map_err(|e| error::io("reading", &self.path, e))?;
        self.ended = ((self.buffer.len() - before) as u64) < wanted;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_given_once_and_the_end_is_final() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let content: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let mut window = Window::open(&path).unwrap();
        let mut offset = 0;
        while window.grow(offset).unwrap() {
            let (bytes, _) = window.from(offset);
            // Leaves a part behind each time, as a record that is not complete does.
            let step = if window.ended { bytes.len() } else { bytes.len() / 3 };
            assert_eq!(&bytes[..step], &content[offset as usize..offset as usize + step]);
            offset += step as u64;
        }
        assert_eq!(offset, content.len() as u64);
        assert_eq!(window.from(offset), (&[][..], Finality::Final));
    }
}
