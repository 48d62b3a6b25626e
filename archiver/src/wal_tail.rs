//! The end of one WAL file, followed while the server writes it.
//!
//! Owns: one open WAL, the reader over it, and (for a recycled WAL) the copy of its bytes. Refuses: to decide when a WAL is final, which WAL comes next, or what a record means.

use std::{
    fs::File,
    os::unix::fs::{FileExt, MetadataExt},
    sync::Arc,
};

use bytes::Bytes;
use pitr_archive::{
    Code, Error, Result, error,
    ids::{ColumnFamilyId, FileNumber},
    rocks::log_reader::{Finality, LogKind, LogReader, Metadata, Read, Stop},
    segment::{
        chain::{HashKey, WalPrefix},
        entry::Record,
    },
};

use crate::{
    pin::{PinKind, Pins, inode},
    registry::{Registry, Seen},
    window::{Passing, Window},
};

/// Where the bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file itself, through a hard link or under its own name.
    File,
    /// Our copy of a recycled WAL whose file has been overwritten.
    Copy,
}

/// Whether the server may overwrite WALs in place (`recycle_log_file_num`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recycling {
    /// It may, or nobody can say.
    Possible,
    /// Its settings say that it does not.
    Off,
}

/// One step of reading.
#[derive(Debug)]
pub enum Step {
    /// A record.
    Record(Record),
    /// Timestamp sizes for the records that follow.
    TimestampSizes {
        /// Offset of the metadata record.
        offset: u64,
        /// Column family and size.
        sizes: Vec<(ColumnFamilyId, u16)>,
    },
    /// Nothing more is readable now.
    EndSoFar,
    /// Nothing more will ever be: only after [`WalTail::next`] was asked with [`Finality::Final`].
    FinalEnd {
        /// Bytes behind the last complete record that are none.
        void_bytes: u64,
    },
    /// A record that is complete and wrong.
    Corrupt {
        /// Its offset.
        at: u64,
        /// What is wrong.
        reason: String,
    },
}

/// A WAL being followed.
#[derive(Debug)]
pub struct WalTail {
    wal: FileNumber,
    origin: Origin,
    window: Window,
    reader: LogReader,
    end: u64,
    /// No record has begun behind the readable end.
    rests: bool,
    copy: Option<(File, u64)>,
}

impl WalTail {
    /// Opens a WAL at offset 0: its pin, else its file, else its copy. `None` if none of them is there.
    pub fn open(registry: &Registry, wal: FileNumber) -> Result<Option<Self>> {
        let pins = registry.pins();
        let live = registry.wal_dir().join(pitr_archive::rocks::file_name::wal(wal));
        // The end of the newest is hot whatever we do; older ones are read once, when the archiver is behind.
        let newest = wal.next().is_none_or(|next| registry.wals_from(next).is_empty());
        let passing = if newest { Passing::Stays } else { Passing::Goes };
        let recycled = pins.copy_of(wal)?;
        if let Some(copy) = recycled {
            // The copy holds what was read; the file itself, as long as it still is this WAL, holds that and more.
            if let Some(file) = crate::pin::open_if_there(&live)? {
                return Ok(Some(Self::new(wal, Origin::File, file, live, passing)));
            }
            return Ok(Some(Self::new(wal, Origin::Copy, copy, live, passing)));
        }
        let file = match pins.open_pin(PinKind::Wal, wal)? {
            Some(file) => file,
            None => match crate::pin::open_if_there(&live)? {
                Some(file) => file,
                None => return Ok(None),
            },
        };
        Ok(Some(Self::new(wal, Origin::File, file, live, passing)))
    }

    fn new(wal: FileNumber, origin: Origin, file: File, path: std::path::PathBuf, passing: Passing) -> Self {
        Self {
            wal,
            origin,
            window: Window::new(file, path, passing),
            reader: LogReader::new(LogKind::Wal(wal)),
            end: 0,
            rests: false,
            copy: None,
        }
    }

    /// Its number.
    pub fn wal(&self) -> FileNumber {
        self.wal
    }

    /// Where the bytes come from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Offset after the last record that was read.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The file and where in it the next record begins, if the last step found that none has begun there.
    pub fn ahead(&self) -> Option<(Arc<File>, u64)> {
        self.rests.then(|| (self.window.file().clone(), self.reader.offset()))
    }

    /// Whether the server overwrites its WALs in place.
    pub fn is_recycled(&self) -> bool {
        self.reader.is_recyclable() == Some(true)
    }

    /// Forgets bytes beyond the last record, so that the next step looks again.
    pub fn look_again(&mut self) {
        self.window.rewind();
    }

    /// Reads one step. With [`Finality::Final`] the end is the WAL's end, for good.
    pub fn next(&mut self, finality: Finality) -> Result<Step> {
        let mut read_afresh = false;
        loop {
            let offset = self.reader.offset();
            // The end may only be called final when all of the file is in the window.
            let asked = if self.window.at_end() { finality } else { Finality::Growing };
            let read = self.reader.read(self.window.from(offset), asked);
            let nothing = |why: &Stop| matches!(why, Stop::NothingMore | Stop::Zeros | Stop::OlderRecord { .. });
            self.rests = matches!(&read, Read::End { why, .. } if nothing(why));
            match read {
                Read::Record { start, end, payload } => {
                    let record = Record { wal: self.wal, start, end, payload: Bytes::from(payload.into_owned()) };
                    self.end = end;
                    return Ok(Step::Record(record));
                }
                Read::Metadata { start, metadata: Metadata::TimestampSizes(sizes), .. } => {
                    return Ok(Step::TimestampSizes { offset: start, sizes });
                }
                // None of these changes what a replay of our own, uncompressed copy of the records must do.
                Read::Metadata {
                    metadata: Metadata::Compression(_) | Metadata::Predecessor(_) | Metadata::Ignorable { .. },
                    ..
                } => {}
                Read::End { void_bytes, .. } if asked == Finality::Final => return Ok(Step::FinalEnd { void_bytes }),
                Read::End { .. } | Read::Incomplete { .. } => {
                    if self.window.at_end() && asked == finality {
                        return Ok(Step::EndSoFar);
                    }
                    self.window.extend(offset)?;
                }
                Read::Corrupt { at, reason } => {
                    // The bytes may have been read while they were being written.
                    if read_afresh {
                        return Ok(Step::Corrupt { at, reason: reason.to_string() });
                    }
                    read_afresh = true;
                    self.window.rewind();
                    self.window.extend(offset)?;
                }
            }
        }
    }

    /// Reads from offset 0 through `end` without giving the records out: after a restart, or to compare.
    ///
    /// Answers the hash over these records, or `None` if they cannot be read (any more).
    pub fn skip_to(&mut self, key: &HashKey, end: u64) -> Result<Option<WalPrefix>> {
        let mut prefix = WalPrefix::new(key);
        while self.end < end {
            match self.next(Finality::Growing)? {
                Step::Record(record) => prefix.push(&record),
                Step::TimestampSizes { .. } => {}
                Step::EndSoFar | Step::FinalEnd { .. } | Step::Corrupt { .. } => return Ok(None),
            }
        }
        Ok((self.end == end).then_some(prefix))
    }

    /// Keeps the bytes read so far in the copy, if the server recycles its WALs.
    ///
    /// Called after records were taken and before they count as read: should this process die now, the copy is what the
    /// next one reads when the server has overwritten the file meanwhile.
    pub fn keep_copy(&mut self, pins: &Pins) -> Result<()> {
        if !self.is_recycled() || self.origin == Origin::Copy {
            return Ok(());
        }
        if self.copy.is_none() {
            // What an earlier process copied was this file's then; by now the server may have overwritten it.
            let copy = pins.copy_for(self.wal)?;
            let kept = copy.metadata().map_err(|e| error::io("examining the copy of", self.window.path(), e))?.len();
            self.copy = Some((copy, kept));
        }
        let Some((copy, kept)) = &mut self.copy else { return Ok(()) };
        let mut buffer = vec![0; 256 * 1024];
        while *kept < self.end {
            let left = usize::try_from(self.end - *kept).unwrap_or(usize::MAX).min(buffer.len());
            let piece = &mut buffer[..left];
            match self.window.file().read_exact_at(piece, *kept) {
                Ok(()) => {}
                // The server cut the file: whoever looks next sees it.
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(error::io("copying the recycled WAL", self.window.path(), e)),
            }
            copy.write_all_at(piece, *kept)
                .map_err(|e| error::io("copying the recycled WAL", self.window.path(), e))?;
            *kept += left as u64;
        }
        Ok(())
    }

    /// Whether what was read is certainly all of this WAL.
    ///
    /// Where the server may overwrite its WALs in place, a link holds the file but not its bytes, and a WAL of which
    /// nothing was read before it was overwritten looks like an empty one: there the name must still lead to the same
    /// file, which is renamed before it is overwritten, or our pin must be its only name: then it was deleted under its
    /// own. A copy holds what was read before and says nothing about the rest.
    pub fn is_certain(&self, registry: &Registry, recycling: Recycling) -> Result<bool> {
        if self.origin == Origin::Copy {
            return Ok(false);
        }
        match (self.reader.is_recyclable(), recycling) {
            (Some(false), _) | (None, Recycling::Off) => return Ok(true),
            (Some(true), _) | (None, Recycling::Possible) => {}
        }
        if registry.seen(self.wal) == Some(Seen::Archived) {
            return Ok(true);
        }
        let meta = self.window.file().metadata().map_err(|e| error::io("examining", self.window.path(), e))?;
        let here = Some((meta.dev(), meta.ino()));
        if inode(self.window.path())? == here {
            return Ok(true);
        }
        // Under another name it would be pinned, too, unless that name was missed.
        Ok(meta.nlink() == 1 && registry.missed_none_after(self.wal))
    }

    /// The file's length, if it has become shorter than what was read: the server cut it.
    pub fn cut_to(&self) -> Result<Option<u64>> {
        let length = self.window.file().metadata().map_err(|e| error::io("examining", self.window.path(), e))?.len();
        Ok(Some(length).filter(|length| *length < self.end))
    }

    /// An error about this WAL.
    pub fn error(&self, code: Code, doing: &'static str) -> Error {
        Error::new(code, doing).on(self.window.path().display()).with("offset", self.end)
    }
}
