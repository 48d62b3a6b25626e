//! Reads logical records from a WAL or MANIFEST, also while it grows.
//!
//! Owns: the four answers at any place of a log (record, end, incomplete, corrupt; [`Read`]) and the little state that
//! they depend on. It does no I/O: the caller gives the file's bytes from [`LogReader::offset`] on and advances by what
//! was consumed. Checked against RocksDB 6.29 to 11.8 (`db/log_reader.cc`); where RocksDB would skip something
//! silently (a whole block of zeros before more records, a partial record before an unknown one) this reader says
//! `Corrupt`, because what an archive skips is lost.
//! Invariants: the offset only moves over complete records; the same bytes give the same answer however they are cut
//! into calls; memory is bounded by the record limit.
//!
//! ```
//! use pitr_archive::{ids::FileNumber, rocks::log_reader::{Finality, LogKind, LogReader, Read}};
//!
//! let file: &[u8] = b""; // the content of 000004.log
//! let mut reader = LogReader::new(LogKind::Wal(FileNumber::new(4)));
//! for answer in reader.read_all(file, Finality::Growing) {
//!     match answer {
//!         Read::Record { start, payload, .. } => println!("{start}: {} bytes", payload.len()),
//!         Read::Metadata { metadata, .. } => println!("{metadata:?}"),
//!         Read::End { at, .. } | Read::Incomplete { at, .. } => println!("read up to {at}"),
//!         Read::Corrupt { at, reason } => println!("{reason} at {at}"),
//!     }
//! }
//! ```

mod answer;
mod decompress;
mod metadata;
mod resync;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, ops::Range};

use serde::{Deserialize, Serialize};

pub use self::answer::{Corruption, Finality, LogKind, Metadata, PredecessorWal, Read, Stop, WalCompression};
use self::decompress::{Decompressor, Failure};
use super::log_format::{BLOCK_SIZE, HEADER_SIZE, Header, RECYCLABLE_HEADER_SIZE, RecordType, Role, unmask};
use crate::ids::ColumnFamilyId;

/// Which headers a log uses. Known from its first record that is not the compression record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// No record has told yet.
    #[default]
    Unknown,
    /// Seven bytes: the file holds nothing but this log.
    Legacy,
    /// Eleven bytes with the log's number: the file may hold remains of an earlier log, and may be overwritten.
    Recyclable,
}

/// What must be kept to go on reading a log after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// Offset after the last complete record.
    pub offset: u64,
    /// The header form.
    pub framing: Framing,
    /// The compression of the following records.
    pub compression: WalCompression,
    /// Sizes of user-defined timestamps, in the order in which the log gave them.
    pub timestamp_sizes: Vec<(ColumnFamilyId, u16)>,
}

/// Records larger than this (after decompression) are refused: RocksDB keeps batches below 4 GiB.
pub const MAX_RECORD: u64 = 4 << 30;

/// An incremental reader of one log.
#[derive(Debug)]
pub struct LogReader {
    kind: LogKind,
    state: LogState,
    limit: u64,
    /// Fragments of the unfinished record that end at or before this offset have been checked in an earlier call.
    /// They are checked once more when the record is complete, so that a long record that grows slowly costs two
    /// passes, not one for each call, and yet every returned byte has been checked as it was returned.
    checked_to: u64,
    decompressor: Decompressor,
}

/// Fragments of a logical record seen so far, as ranges of the caller's bytes.
struct Partial {
    start: u64,
    pieces: Vec<Range<usize>>,
    len: u64,
    /// The first fragment was empty and ended its block: an old writer's slip, after which a new record may begin.
    empty_at_block_end: bool,
}

/// Why the scan stopped, before finality and framing decide what that means.
enum Halt<'a> {
    Answer(Read<'a>),
    Stop {
        at: u64,
        why: Stop,
        needed: u64,
    },
    /// `recyclable`: the header says so, or the log is known to be.
    Bad {
        at: u64,
        size: u64,
        how: Bad,
        recyclable: bool,
    },
}

#[derive(Clone, Copy)]
enum Bad {
    Checksum,
    Length,
    Zeros,
}

impl LogReader {
    /// A reader at the start of a file.
    pub fn new(kind: LogKind) -> Self {
        Self::resume(kind, LogState::default())
    }

    /// A reader that goes on where `state` was taken.
    pub fn resume(kind: LogKind, state: LogState) -> Self {
        Self { kind, state, limit: MAX_RECORD, checked_to: 0, decompressor: Decompressor::default() }
    }

    /// Refuses records of more than `bytes` bytes, compressed or not, instead of [`MAX_RECORD`].
    #[must_use]
    pub const fn with_record_limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// The file.
    pub const fn kind(&self) -> LogKind {
        self.kind
    }

    /// The file offset at which the bytes of the next call must begin: the end of the last complete record.
    pub const fn offset(&self) -> u64 {
        self.state.offset
    }

    /// What must be kept to go on after a restart. Small.
    pub const fn state(&self) -> &LogState {
        &self.state
    }

    /// Whether the log's headers carry its number, so that the file may be overwritten in place. `None` before the
    /// first record has told.
    pub const fn is_recyclable(&self) -> Option<bool> {
        match self.state.framing {
            Framing::Unknown => None,
            Framing::Legacy => Some(false),
            Framing::Recyclable => Some(true),
        }
    }

    /// Sizes of user-defined timestamps in the keys of the following records.
    pub fn timestamp_sizes(&self) -> &[(ColumnFamilyId, u16)] {
        &self.state.timestamp_sizes
    }

    /// Reads on until something other than a record or metadata comes; that answer is the last item.
    ///
    /// `bytes` are the file's content from [`offset`](Self::offset) on.
    pub fn read_all<'r, 'b>(&'r mut self, bytes: &'b [u8], finality: Finality) -> ReadAll<'r, 'b> {
        let base = self.offset();
        ReadAll { reader: self, bytes, base, finality, done: false }
    }

    /// What is at [`offset`](Self::offset). `bytes` are the file's content from there on, as much as the caller has.
    pub fn read<'b>(&mut self, bytes: &'b [u8], finality: Finality) -> Read<'b> {
        if finality == Finality::Final {
            // The last word is about these bytes, not about what a recycled file held in their place before.
            self.checked_to = 0;
        }
        let trusted = self.checked_to > self.state.offset;
        match self.judge(bytes, finality) {
            // Neither is damage said of bytes that follow some which may have changed since they were checked.
            Read::Corrupt { .. } if trusted => {
                self.checked_to = 0;
                self.judge(bytes, finality)
            }
            answer => answer,
        }
    }

    fn judge<'b>(&mut self, bytes: &'b [u8], finality: Finality) -> Read<'b> {
        let base = self.state.offset;
        // No file reaches beyond i64::MAX; below it no offset computed here can overflow.
        let end = u64::try_from(bytes.len()).ok().and_then(|len| base.checked_add(len));
        let Some(end) = end.filter(|end| i64::try_from(*end).is_ok()) else {
            return Read::Corrupt { at: base, reason: Corruption::TooLarge { limit: self.limit } };
        };
        let mut partial = None;
        let halt = match self.scan(bytes, base, end, &mut partial) {
            Some(halt) => halt,
            // Bytes that were checked in an earlier call have changed since: check everything.
            None => {
                self.checked_to = 0;
                partial = None;
                match self.scan(bytes, base, end, &mut partial) {
                    Some(halt) => halt,
                    None => Halt::Bad { at: base, size: HEADER_SIZE, how: Bad::Checksum, recyclable: false },
                }
            }
        };
        match halt {
            Halt::Answer(answer) => answer,
            Halt::Stop { at, why, needed } => self.stop(bytes, at, why, needed, end, partial.is_some(), finality),
            Halt::Bad { at, size, how, recyclable } => {
                self.bad(bytes, at, size, how, recyclable, end, partial.is_some(), finality)
            }
        }
    }

    /// Walks over physical records from the offset. `None` if a fragment checked earlier no longer has its checksum.
    fn scan<'b>(&mut self, bytes: &'b [u8], base: u64, end: u64, partial: &mut Option<Partial>) -> Option<Halt<'b>> {
        let mut at = base;
        let mut unchecked: Vec<Range<usize>> = Vec::new();
        loop {
            let in_block = at % BLOCK_SIZE;
            let block_left = BLOCK_SIZE - in_block;
            let available = end.saturating_sub(at);
            let rest = usize::try_from(at - base).ok().and_then(|i| bytes.get(i..)).unwrap_or_default();
            let short = |why: Stop| if partial.is_some() { Stop::ShortRecord } else { why };
            let min_header = match self.state.framing {
                Framing::Recyclable => RECYCLABLE_HEADER_SIZE,
                Framing::Unknown | Framing::Legacy => HEADER_SIZE,
            };
            if block_left < min_header {
                // A trailer in which no header fits; its bytes mean nothing.
                if available <= block_left {
                    let needed = at + block_left + 1;
                    return Some(Halt::Stop { at, why: short(Stop::NothingMore), needed });
                }
                at += block_left;
                continue;
            }
            if available == 0 {
                return Some(Halt::Stop { at, why: short(Stop::NothingMore), needed: at + 1 });
            }
            let Some(header) = Header::decode(rest) else {
                let why = if all_zero(rest) { Stop::Zeros } else { Stop::ShortHeader };
                return Some(Halt::Stop { at, why: short(why), needed: at + HEADER_SIZE });
            };
            if header.kind == RecordType::Zero && header.len == 0 {
                match self.zeros(rest, at, end, block_left, partial.is_some()) {
                    Some(halt) => return Some(halt),
                    None => {
                        at += block_left;
                        continue;
                    }
                }
            }
            if header.kind.is_recyclable() && self.state.framing != Framing::Legacy {
                if block_left < RECYCLABLE_HEADER_SIZE {
                    return Some(Halt::Bad { at, size: block_left, how: Bad::Length, recyclable: true });
                }
                match rest.get(7..11).and_then(|b| b.first_chunk::<4>()) {
                    None => {
                        return Some(Halt::Stop { at, why: Stop::ShortHeader, needed: at + RECYCLABLE_HEADER_SIZE });
                    }
                    Some(low32) if u32::from_le_bytes(*low32) != self.kind.header_number() => {
                        let why = Stop::OlderRecord { low32: u32::from_le_bytes(*low32) };
                        return Some(Halt::Stop { at, why: short(why), needed: end });
                    }
                    Some(_) => {}
                }
            }
            let recyclable = match self.state.framing {
                Framing::Unknown => header.kind.is_recyclable(),
                known => known == Framing::Recyclable,
            };
            let mut size = header.record_size();
            if size > block_left {
                return Some(Halt::Bad { at, size, how: Bad::Length, recyclable });
            }
            if available < size {
                return Some(Halt::Stop { at, why: Stop::ShortBody, needed: at + size });
            }
            let offset_in_bytes = usize::try_from(at - base).unwrap_or(usize::MAX);
            if let RecordType::Unknown(byte) = header.kind
                && !checksum_matches(rest, size)
                && byte >= 10
                && byte & 1 == 1
                && checksum_matches(rest, size + 4)
            {
                // From type 10 on the lowest bit of a type announces the longer header.
                size += 4;
                let low32 = rest.get(7..11).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_le_bytes(*b));
                if low32 != self.kind.header_number() {
                    return Some(Halt::Stop { at, why: short(Stop::OlderRecord { low32 }), needed: end });
                }
            } else if at + size <= self.checked_to && partial.is_some() && header.kind.role().continues_record() {
                unchecked.push(offset_in_bytes..offset_in_bytes + usize::try_from(size).unwrap_or(0));
            } else if !checksum_matches(rest, size) {
                return Some(Halt::Bad { at, size, how: Bad::Checksum, recyclable });
            }
            let next = at + size;
            if let Some(halt) = self.framing_conflict(header.kind, at, partial.is_some(), end) {
                return Some(halt);
            }
            let header_len = usize::try_from(header.kind.header_size()).unwrap_or(usize::MAX);
            let piece = offset_in_bytes + header_len..offset_in_bytes + usize::try_from(size).unwrap_or(0);
            match header.kind.role() {
                role @ (Role::Full | Role::First) => {
                    if let Some(open) = partial.as_ref().filter(|open| !open.empty_at_block_end) {
                        let reason = Corruption::PartialRecordWithoutEnd { started_at: open.start };
                        return Some(Halt::Answer(Read::Corrupt { at, reason }));
                    }
                    let len = u64::from(header.len);
                    if role == Role::Full {
                        let framing = header.kind;
                        return Some(Halt::Answer(self.complete(bytes, at, next, framing, &[piece], len)));
                    }
                    let empty_at_block_end = header.len == 0 && next.is_multiple_of(BLOCK_SIZE);
                    *partial = Some(Partial { start: at, pieces: vec![piece], len, empty_at_block_end });
                }
                role @ (Role::Middle | Role::Last) => {
                    let Some(open) = partial.as_mut() else {
                        return Some(Halt::Answer(Read::Corrupt { at, reason: Corruption::MissingStart }));
                    };
                    open.empty_at_block_end = false;
                    open.len = open.len.saturating_add(u64::from(header.len));
                    open.pieces.push(piece);
                    if open.len > self.limit {
                        let reason = Corruption::TooLarge { limit: self.limit };
                        return Some(Halt::Answer(Read::Corrupt { at: open.start, reason }));
                    }
                    if role == Role::Last {
                        if !unchecked.iter().all(|r| bytes.get(r.clone()).is_some_and(checksum_matches_all)) {
                            return None;
                        }
                        let Partial { start, pieces, len, .. } = partial.take()?;
                        return Some(Halt::Answer(self.complete(bytes, start, next, header.kind, &pieces, len)));
                    }
                }
                _ if partial.is_some() => {
                    let started_at = partial.as_ref().map_or(at, |open| open.start);
                    let reason = Corruption::MetadataInsideRecord { started_at };
                    return Some(Halt::Answer(Read::Corrupt { at, reason }));
                }
                _ => {
                    let payload = bytes.get(piece).unwrap_or_default();
                    return Some(Halt::Answer(self.metadata(at, next, header, payload)));
                }
            }
            at = next;
        }
    }

    /// Zeros where a header should be: padding, preallocated space, or a hole. `None`: padding; go on behind it.
    fn zeros<'b>(&self, rest: &[u8], at: u64, end: u64, block_left: u64, in_record: bool) -> Option<Halt<'b>> {
        let in_block = usize::try_from(block_left).ok().and_then(|n| rest.get(..n)).unwrap_or(rest);
        let why = if in_record { Stop::ShortRecord } else { Stop::Zeros };
        if all_zero(rest) {
            return Some(Halt::Stop { at, why, needed: end + 1 });
        }
        let recyclable = self.state.framing == Framing::Recyclable;
        let bad = Halt::Bad { at, size: HEADER_SIZE, how: Bad::Zeros, recyclable };
        if !all_zero(in_block) {
            return Some(match self.state.framing {
                Framing::Recyclable => Halt::Stop { at, why: Stop::StaleBytes, needed: end },
                Framing::Unknown | Framing::Legacy => bad,
            });
        }
        // The writer pads less than a block before a metadata record that would not fit. A whole block of zeros
        // before more data, or zeros inside a record, is a hole.
        if in_record || block_left == BLOCK_SIZE { Some(bad) } else { None }
    }

    /// A valid record whose header form is not the log's.
    fn framing_conflict<'b>(&self, kind: RecordType, at: u64, in_record: bool, end: u64) -> Option<Halt<'b>> {
        match (self.state.framing, kind.is_recyclable(), kind) {
            (_, _, RecordType::SetCompressionType | RecordType::Unknown(_)) => None,
            (Framing::Legacy, true, _) => Some(Halt::Answer(Read::Corrupt { at, reason: Corruption::MixedFraming })),
            // Bytes of an earlier life that happen to look like a record: a log's header form never changes.
            (Framing::Recyclable, false, _) => {
                let why = if in_record { Stop::ShortRecord } else { Stop::StaleBytes };
                Some(Halt::Stop { at, why, needed: end })
            }
            _ => None,
        }
    }

    fn complete<'b>(
        &mut self,
        bytes: &'b [u8],
        start: u64,
        end: u64,
        kind: RecordType,
        pieces: &[Range<usize>],
        len: u64,
    ) -> Read<'b> {
        let stored: Cow<'b, [u8]> = match pieces {
            [piece] => Cow::Borrowed(bytes.get(piece.clone()).unwrap_or_default()),
            _ => {
                // `len` is the sum of pieces of `bytes`, so this allocates no more than the caller already holds.
                let mut joined = Vec::with_capacity(usize::try_from(len).unwrap_or(0).min(bytes.len()));
                pieces.iter().filter_map(|p| bytes.get(p.clone())).for_each(|piece| joined.extend_from_slice(piece));
                Cow::Owned(joined)
            }
        };
        let payload = match self.state.compression {
            WalCompression::None => stored,
            WalCompression::Zstd => match self.decompressor.decompress(&stored, self.limit) {
                Ok(plain) => Cow::Owned(plain),
                Err(Failure::Damaged) => return Read::Corrupt { at: start, reason: Corruption::Decompression },
                Err(Failure::TooLarge) => {
                    return Read::Corrupt { at: start, reason: Corruption::TooLarge { limit: self.limit } };
                }
            },
        };
        self.advance(end, kind);
        Read::Record { start, end, payload }
    }

    fn advance(&mut self, end: u64, kind: RecordType) {
        self.state.offset = end;
        self.checked_to = 0;
        if self.state.framing == Framing::Unknown
            && !matches!(kind, RecordType::SetCompressionType | RecordType::Unknown(_))
        {
            self.state.framing = if kind.is_recyclable() { Framing::Recyclable } else { Framing::Legacy };
        }
    }

    /// No complete record, and nothing wrong with that.
    #[allow(clippy::too_many_arguments)] // one call, all of them the scan's own values
    fn stop<'b>(
        &mut self,
        bytes: &[u8],
        broken: u64,
        why: Stop,
        needed: u64,
        end: u64,
        in_record: bool,
        finality: Finality,
    ) -> Read<'b> {
        let at = self.state.offset;
        // A damaged header can look like another log's, or like that of a record longer than the file; when nothing is
        // written any more, valid records behind it tell.
        let suspicious = match why {
            Stop::OlderRecord { .. } => self.state.framing == Framing::Unknown,
            Stop::ShortBody => true,
            _ => false,
        };
        if suspicious && finality == Finality::Final {
            let found = resync::find_valid_after(bytes, at, broken, HEADER_SIZE, self.kind.header_number());
            if let Some(valid_at) = found {
                let reason = match why {
                    Stop::ShortBody => Corruption::BadLength { valid_at },
                    _ => Corruption::ChecksumMismatch { valid_at },
                };
                return Read::Corrupt { at: broken, reason };
            }
        }
        if in_record {
            self.checked_to = end;
        }
        let end_like = matches!(why, Stop::NothingMore | Stop::Zeros | Stop::OlderRecord { .. } | Stop::StaleBytes);
        match finality {
            Finality::Growing if in_record || !end_like => Read::Incomplete { at, needed, why },
            Finality::Growing | Finality::Final => Read::End { at, void_bytes: end.saturating_sub(at), why },
        }
    }

    /// Bytes that are no record: torn, stale or corrupt.
    #[allow(clippy::too_many_arguments)] // one call, all of them the scan's own values
    fn bad<'b>(
        &mut self,
        bytes: &[u8],
        at: u64,
        size: u64,
        how: Bad,
        recycled: bool,
        end: u64,
        in_record: bool,
        finality: Finality,
    ) -> Read<'b> {
        // In a recycled file a reader can see a new record's end before its beginning; only when nothing is written
        // any more does a record of this log behind a damaged one prove anything.
        if !recycled || finality == Finality::Final {
            let base = self.state.offset;
            let found = resync::find_valid_after(bytes, base, at, size, self.kind.header_number());
            if let Some(valid_at) = found {
                let reason = match how {
                    Bad::Checksum => Corruption::ChecksumMismatch { valid_at },
                    Bad::Length => Corruption::BadLength { valid_at },
                    Bad::Zeros => Corruption::Hole { valid_at },
                };
                return Read::Corrupt { at, reason };
            }
        }
        let why = match how {
            _ if recycled && in_record => Stop::ShortRecord,
            _ if recycled => Stop::StaleBytes,
            Bad::Checksum => Stop::ChecksumMismatch,
            Bad::Length => Stop::BadLength,
            Bad::Zeros => Stop::ZerosThenGarbage,
        };
        if in_record {
            self.checked_to = at;
        }
        let void_bytes = end.saturating_sub(self.state.offset);
        match finality {
            Finality::Growing if recycled && !in_record => Read::End { at: self.state.offset, void_bytes, why },
            Finality::Growing => Read::Incomplete { at: self.state.offset, needed: end, why },
            Finality::Final => Read::End { at: self.state.offset, void_bytes, why },
        }
    }
}

/// Whether the record of `size` bytes at the start of `bytes` has the checksum in its header.
fn checksum_matches(bytes: &[u8], size: u64) -> bool {
    usize::try_from(size).ok().and_then(|n| bytes.get(..n)).is_some_and(checksum_matches_all)
}

fn checksum_matches_all(record: &[u8]) -> bool {
    match (record.first_chunk::<4>(), record.get(6..)) {
        (Some(masked), Some(covered)) => crc32c::crc32c(covered) == unmask(u32::from_le_bytes(*masked)),
        _ => false,
    }
}

fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}

/// Iterator of [`LogReader::read_all`].
#[derive(Debug)]
pub struct ReadAll<'r, 'b> {
    reader: &'r mut LogReader,
    bytes: &'b [u8],
    base: u64,
    finality: Finality,
    done: bool,
}

impl<'b> Iterator for ReadAll<'_, 'b> {
    type Item = Read<'b>;

    fn next(&mut self) -> Option<Read<'b>> {
        if self.done {
            return None;
        }
        // The offset never goes back and never passes the end of the bytes.
        let consumed = usize::try_from(self.reader.offset().checked_sub(self.base)?).ok()?;
        let answer = self.reader.read(self.bytes.get(consumed..)?, self.finality);
        self.done = !matches!(answer, Read::Record { .. } | Read::Metadata { .. });
        Some(answer)
    }
}
