//! Writes logical records in RocksDB's log framing, byte for byte as `db/log_writer.cc` does.
//!
//! Owns: fragmentation, block trailers and the padding before metadata records. It appends to a buffer; what becomes of
//! the buffer is the caller's business. A restore writes WALs with short headers and without compression, whatever
//! form the source used: every RocksDB reads that.
//! Invariant: [`LogWriter::offset`] is the file offset at which the next byte belongs.

use super::{
    log_format::{BLOCK_SIZE, HEADER_SIZE, RECYCLABLE_HEADER_SIZE, RecordType, mask},
    log_sum::LogSum,
};
use crate::ids::{ColumnFamilyId, FileNumber};

/// Appends records to a log.
#[derive(Clone, Debug)]
pub struct LogWriter {
    offset: u64,
    /// The low 32 bits of the WAL's number, in logs with recyclable headers.
    recyclable: Option<u32>,
    sum: LogSum,
}

impl LogWriter {
    /// Goes on at this file offset with short headers; 0 for a new file, the end of the last record for a MANIFEST
    /// that gets more edits.
    pub const fn new(offset: u64) -> Self {
        Self { offset, recyclable: None, sum: LogSum(0) }
    }

    /// A new WAL with recyclable headers.
    #[allow(clippy::cast_possible_truncation)] // RocksDB stores the low half
    pub const fn recyclable(number: FileNumber) -> Self {
        Self { offset: 0, recyclable: Some(number.get() as u32), sum: LogSum(0) }
    }

    /// The file offset after everything appended so far.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Of everything appended so far.
    pub const fn sum(&self) -> LogSum {
        self.sum
    }

    const fn header_size(&self) -> u64 {
        if self.recyclable.is_some() { RECYCLABLE_HEADER_SIZE } else { HEADER_SIZE }
    }

    const fn block_left(&self) -> u64 {
        BLOCK_SIZE - self.offset % BLOCK_SIZE
    }

    /// Appends one logical record. An empty one takes a header.
    pub fn append(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        let mut rest = payload;
        let mut first = true;
        loop {
            if self.block_left() < self.header_size() {
                self.pad(out);
            }
            let room = usize::try_from(self.block_left() - self.header_size()).unwrap_or(0);
            let (fragment, left) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            let kind = match (first, left.is_empty(), self.recyclable.is_some()) {
                (true, true, false) => RecordType::Full,
                (true, false, false) => RecordType::First,
                (false, false, false) => RecordType::Middle,
                (false, true, false) => RecordType::Last,
                (true, true, true) => RecordType::RecyclableFull,
                (true, false, true) => RecordType::RecyclableFirst,
                (false, false, true) => RecordType::RecyclableMiddle,
                (false, true, true) => RecordType::RecyclableLast,
            };
            self.emit(kind, fragment, out);
            rest = left;
            first = false;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Appends the record that announces sizes of user-defined timestamps for the records after it. Sizes of zero are
    /// left out, and nothing is written if none is left; a column family may be announced once in a file.
    pub fn append_timestamp_sizes(&mut self, sizes: &[(ColumnFamilyId, u16)], out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        for (column_family, size) in sizes.iter().filter(|(_, size)| *size != 0) {
            payload.extend_from_slice(&column_family.get().to_le_bytes());
            payload.extend_from_slice(&size.to_le_bytes());
        }
        if payload.is_empty() {
            return;
        }
        let kind = match self.recyclable {
            Some(_) => RecordType::RecyclableUserDefinedTimestampSize,
            None => RecordType::UserDefinedTimestampSize,
        };
        self.append_metadata(kind, &payload, out);
    }

    /// A metadata record is never fragmented: the rest of the block is left empty if it does not fit.
    fn append_metadata(&mut self, kind: RecordType, payload: &[u8], out: &mut Vec<u8>) {
        let size = self.header_size().saturating_add(u64::try_from(payload.len()).unwrap_or(u64::MAX));
        if self.block_left() < size {
            self.pad(out);
        }
        self.emit(kind, payload, out);
    }

    fn pad(&mut self, out: &mut Vec<u8>) {
        let left = self.block_left();
        out.resize(out.len() + usize::try_from(left).unwrap_or(0), 0);
        self.offset += left;
    }

    fn emit(&mut self, kind: RecordType, payload: &[u8], out: &mut Vec<u8>) {
        let number = self.recyclable.filter(|_| kind.is_recyclable()).map(u32::to_le_bytes);
        let number = number.as_ref().map_or(&[][..], |n| &n[..]);
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&[kind.to_byte()]), number), payload);
        let [c0, c1, c2, c3] = mask(crc).to_le_bytes();
        // A fragment is smaller than a block, so it fits in 16 bits.
        let [l0, l1] = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes();
        let header = [c0, c1, c2, c3, l0, l1, kind.to_byte()];
        self.sum.add(&header);
        out.extend_from_slice(&header);
        out.extend_from_slice(number);
        out.extend_from_slice(payload);
        self.offset += HEADER_SIZE + u64::try_from(number.len() + payload.len()).unwrap_or(0);
    }

    /// Announces zstd compression; the records after it must be zstd frames. Only tests write compressed logs.
    #[cfg(test)]
    pub(crate) fn append_compression(&mut self, compression_type: u32, out: &mut Vec<u8>) {
        self.emit(RecordType::SetCompressionType, &compression_type.to_le_bytes(), out);
    }

    #[cfg(test)]
    pub(crate) fn append_raw_metadata(&mut self, kind: RecordType, payload: &[u8], out: &mut Vec<u8>) {
        self.append_metadata(kind, payload, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_record_is_a_header_and_a_full_block_gets_no_trailer() {
        let mut out = Vec::new();
        let mut writer = LogWriter::new(0);
        writer.append(b"", &mut out);
        assert_eq!((out.len(), writer.offset()), (7, 7));
        writer.append(&vec![b'x'; 32_768 - 14], &mut out);
        assert_eq!(out.len(), 32_768);
        writer.append(b"y", &mut out);
        assert_eq!(out.len(), 32_776);
    }

    #[test]
    fn a_record_that_meets_a_block_end_with_room_for_a_header_only_begins_with_an_empty_fragment() {
        let mut out = Vec::new();
        let mut writer = LogWriter::new(0);
        writer.append(&vec![b'x'; 32_768 - 14], &mut out);
        writer.append(b"y", &mut out);
        assert_eq!(out[32_761 + 6], RecordType::First.to_byte());
        assert_eq!(out[32_768 + 6], RecordType::Last.to_byte());
    }

    #[test]
    fn appending_to_a_file_goes_on_in_its_block() {
        let mut whole = Vec::new();
        let mut writer = LogWriter::new(0);
        writer.append(&[1; 30_000], &mut whole);
        let (mut second, mut parts) = (LogWriter::new(writer.offset()), whole.clone());
        writer.append(&[2; 30_000], &mut whole);
        second.append(&[2; 30_000], &mut parts);
        assert_eq!(whole, parts);
    }
}
