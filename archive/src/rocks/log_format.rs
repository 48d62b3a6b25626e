//! The framing that WAL and MANIFEST share (RocksDB's `db/log_format.h`).
//!
//! Owns: block size, header sizes, record types, checksum masking, the header's layout.
//! A file is a sequence of 32 KiB blocks; a physical record never crosses a block; a logical record is one Full, or
//! First, any number of Middle, Last. The recyclable forms carry the low 32 bits of the WAL's number, so that a file
//! that is overwritten in place tells its own records from those of its earlier life.

use serde::{Deserialize, Serialize};

/// Bytes in a block.
pub const BLOCK_SIZE: u64 = 32_768;
/// Checksum (4), length (2), type (1).
pub const HEADER_SIZE: u64 = 7;
/// The same and the low 32 bits of the WAL's number (4).
pub const RECYCLABLE_HEADER_SIZE: u64 = 11;
/// Unknown record types with this bit set may be ignored.
pub const SAFE_IGNORE_MASK: u8 = 0x80;

const MASK_DELTA: u32 = 0xa282_ead8;

/// A physical record's type, under RocksDB's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RecordType {
    /// 0: preallocated or padded space.
    Zero,
    /// 1: a whole logical record.
    Full,
    /// 2: the first fragment.
    First,
    /// 3: a fragment in between.
    Middle,
    /// 4: the last fragment.
    Last,
    /// 5
    RecyclableFull,
    /// 6
    RecyclableFirst,
    /// 7
    RecyclableMiddle,
    /// 8
    RecyclableLast,
    /// 9: WAL compression; always with the short header.
    SetCompressionType,
    /// 10: sizes of user-defined timestamps.
    UserDefinedTimestampSize,
    /// 11
    RecyclableUserDefinedTimestampSize,
    /// 130: what the WAL before this one held.
    PredecessorWalInfo,
    /// 131
    RecyclePredecessorWalInfo,
    /// A type of a later version.
    Unknown(u8),
}

/// A record type's part in a logical record, whatever its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Padding.
    Zero,
    /// A whole logical record.
    Full,
    /// Its first fragment.
    First,
    /// A fragment in between.
    Middle,
    /// Its last fragment.
    Last,
    /// WAL compression.
    Compression,
    /// Timestamp sizes.
    TimestampSizes,
    /// Predecessor.
    Predecessor,
    /// Unknown.
    Unknown(u8),
}

impl Role {
    /// Whether it is a fragment that is not the first.
    pub const fn continues_record(self) -> bool {
        matches!(self, Self::Middle | Self::Last)
    }
}

impl From<u8> for RecordType {
    fn from(byte: u8) -> Self {
        match byte {
            0 => Self::Zero,
            1 => Self::Full,
            2 => Self::First,
            3 => Self::Middle,
            4 => Self::Last,
            5 => Self::RecyclableFull,
            6 => Self::RecyclableFirst,
            7 => Self::RecyclableMiddle,
            8 => Self::RecyclableLast,
            9 => Self::SetCompressionType,
            10 => Self::UserDefinedTimestampSize,
            11 => Self::RecyclableUserDefinedTimestampSize,
            130 => Self::PredecessorWalInfo,
            131 => Self::RecyclePredecessorWalInfo,
            other => Self::Unknown(other),
        }
    }
}

impl RecordType {
    /// The byte in the header.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Zero => 0,
            Self::Full => 1,
            Self::First => 2,
            Self::Middle => 3,
            Self::Last => 4,
            Self::RecyclableFull => 5,
            Self::RecyclableFirst => 6,
            Self::RecyclableMiddle => 7,
            Self::RecyclableLast => 8,
            Self::SetCompressionType => 9,
            Self::UserDefinedTimestampSize => 10,
            Self::RecyclableUserDefinedTimestampSize => 11,
            Self::PredecessorWalInfo => 130,
            Self::RecyclePredecessorWalInfo => 131,
            Self::Unknown(byte) => byte,
        }
    }

    /// Whether the header carries the WAL's number. For unknown types: RocksDB promises that from 10 on the lowest bit
    /// says so, but its own reader does not rely on that; see `log_reader`.
    pub const fn is_recyclable(self) -> bool {
        matches!(
            self,
            Self::RecyclableFull
                | Self::RecyclableFirst
                | Self::RecyclableMiddle
                | Self::RecyclableLast
                | Self::RecyclableUserDefinedTimestampSize
                | Self::RecyclePredecessorWalInfo
        )
    }

    /// Bytes of the header.
    pub const fn header_size(self) -> u64 {
        if self.is_recyclable() { RECYCLABLE_HEADER_SIZE } else { HEADER_SIZE }
    }

    /// The part that the type plays, whatever its header.
    pub const fn role(self) -> Role {
        match self {
            Self::Zero => Role::Zero,
            Self::Full | Self::RecyclableFull => Role::Full,
            Self::First | Self::RecyclableFirst => Role::First,
            Self::Middle | Self::RecyclableMiddle => Role::Middle,
            Self::Last | Self::RecyclableLast => Role::Last,
            Self::SetCompressionType => Role::Compression,
            Self::UserDefinedTimestampSize | Self::RecyclableUserDefinedTimestampSize => Role::TimestampSizes,
            Self::PredecessorWalInfo | Self::RecyclePredecessorWalInfo => Role::Predecessor,
            Self::Unknown(byte) => Role::Unknown(byte),
        }
    }
}

/// The seven bytes that every header begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Masked crc32c of everything from the type byte to the end of the payload.
    pub masked_crc: u32,
    /// Bytes of payload.
    pub len: u16,
    /// The type.
    pub kind: RecordType,
}

impl Header {
    /// Reads the first seven bytes of a header.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [c0, c1, c2, c3, l0, l1, kind] = *bytes.first_chunk::<7>()?;
        Some(Self {
            masked_crc: u32::from_le_bytes([c0, c1, c2, c3]),
            len: u16::from_le_bytes([l0, l1]),
            kind: kind.into(),
        })
    }

    /// Bytes of header and payload.
    pub fn record_size(&self) -> u64 {
        self.kind.header_size() + u64::from(self.len)
    }
}

/// RocksDB stores checksums masked, because a checksum over data that contains checksums is weak.
pub const fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(MASK_DELTA)
}

/// The reverse of [`mask`].
pub const fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(MASK_DELTA).rotate_left(15)
}

/// Whether a valid record of the file begins at the start of `bytes`; its size if so.
///
/// `bytes` must not reach beyond the block. Records of another log in a recycled file do not count, and neither do
/// unknown types, whose header size is not known.
pub(super) fn valid_record(bytes: &[u8], header_number: u32) -> Option<u64> {
    let header = Header::decode(bytes)?;
    if matches!(header.kind, RecordType::Zero | RecordType::Unknown(_)) {
        return None;
    }
    let size = header.record_size();
    let record = bytes.get(..usize::try_from(size).ok()?)?;
    if header.kind.is_recyclable() && record.get(7..11)? != header_number.to_le_bytes() {
        return None;
    }
    (crc32c::crc32c(record.get(6..)?) == unmask(header.masked_crc)).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_byte_survives() {
        for byte in 0..=u8::MAX {
            assert_eq!(RecordType::from(byte).to_byte(), byte);
        }
    }

    #[test]
    fn masking_is_reversible_and_is_rocksdbs() {
        // crc32c("foo") as in RocksDB's crc32c_test: mask(crc) != crc, unmask(mask(crc)) == crc.
        let crc = crc32c::crc32c(b"foo");
        assert_ne!(mask(crc), crc);
        assert_ne!(mask(mask(crc)), crc);
        assert_eq!(unmask(mask(crc)), crc);
        assert_eq!(mask(0), MASK_DELTA);
    }
}
