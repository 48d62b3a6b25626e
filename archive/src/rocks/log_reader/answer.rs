//! The four answers of the log reader and what they carry.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::ids::{ColumnFamilyId, FileNumber, SequenceNumber};

/// Which file is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogKind {
    /// The write-ahead log of this number.
    Wal(FileNumber),
    /// A MANIFEST.
    Manifest,
}

impl LogKind {
    /// What recyclable headers of this file's own records hold: the low 32 bits of its number.
    pub(crate) const fn header_number(self) -> u32 {
        match self {
            #[allow(clippy::cast_possible_truncation)] // RocksDB stores the low half
            Self::Wal(number) => number.get() as u32,
            Self::Manifest => 0,
        }
    }
}

/// Whether bytes can still be added to the file.
///
/// A WAL is final when a higher-numbered WAL holds at least one data record, when it lies in `archive/`, or when its
/// number is below the MANIFEST's minimum log number to keep. The mere existence of a higher-numbered file is not
/// enough. A MANIFEST is final when CURRENT names another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finality {
    /// It may grow (or, when recycled, be overwritten).
    Growing,
    /// What it holds now is all it will ever hold.
    Final,
}

/// What [`LogReader::read`](super::LogReader::read) found at its offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// A complete logical record. The reader's offset is now `end`.
    Record {
        /// Offset of its first fragment's header.
        start: u64,
        /// Offset of the byte after its last fragment.
        end: u64,
        /// Its content after WAL decompression; borrowed from the caller's bytes when it lay there in one piece.
        payload: Cow<'a, [u8]>,
    },
    /// A record about the log itself. The reader's offset is now `end`.
    Metadata {
        /// Offset of its header.
        start: u64,
        /// Offset of the byte after it.
        end: u64,
        /// What it says.
        metadata: Metadata,
    },
    /// No record begins here: a clean end so far, or the end for good when the file is final.
    End {
        /// Offset after the last complete record.
        at: u64,
        /// Bytes from `at` to the end of what was given, which are not, and in a final file never will be, a record.
        void_bytes: u64,
        /// What lies at `at`.
        why: Stop,
    },
    /// The beginning of a record that is not complete yet; read again from the same offset when there is more.
    Incomplete {
        /// Offset after the last complete record.
        at: u64,
        /// Reading again can give another answer once the file reaches this offset; where that is no more than what
        /// was given, once the same bytes have been read from the file afresh (a torn read). It is a lower bound: of
        /// a long record only the next fragment is known, so give a reader of large files twice as much each time.
        needed: u64,
        /// What is missing.
        why: Stop,
    },
    /// Bytes that no writer leaves behind. In a growing file read them afresh before believing it.
    Corrupt {
        /// Offset of the physical record concerned.
        at: u64,
        /// What is wrong with it.
        reason: Corruption,
    },
}

/// A record about the log itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metadata {
    /// The following records are compressed.
    Compression(WalCompression),
    /// Sizes of user-defined timestamps in the keys of the following records.
    TimestampSizes(Vec<(ColumnFamilyId, u16)>),
    /// What the WAL before this one held (option `track_and_verify_wals`).
    Predecessor(PredecessorWal),
    /// A record type of a later RocksDB version that its writer declared safe to ignore.
    Ignorable {
        /// Its type byte.
        record_type: u8,
        /// Bytes of its payload.
        len: u16,
    },
}

/// How a WAL's records are compressed. RocksDB accepts zstd only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WalCompression {
    /// Not at all.
    #[default]
    None,
    /// One zstd frame for each logical record.
    Zstd,
}

/// RocksDB's `PredecessorWALInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PredecessorWal {
    /// Number of the WAL before this one.
    pub log_number: FileNumber,
    /// Its size in bytes when this WAL was begun.
    pub size_bytes: u64,
    /// The *start* sequence number of its last record; 0 if it had none.
    pub last_seqno_recorded: SequenceNumber,
}

/// Why there is no complete record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Stop {
    /// The bytes end exactly behind the last record.
    #[error("nothing follows")]
    NothingMore,
    /// Only zeros follow: padding, or preallocated space.
    #[error("only zeros follow")]
    Zeros,
    /// A record of the file's earlier life under another number.
    #[error("a record of an earlier log (number {low32} modulo 2^32) follows in the recycled file")]
    OlderRecord {
        /// The low 32 bits of that number.
        low32: u32,
    },
    /// Bytes of a recycled file's earlier life that are no record from here.
    #[error("remains of an earlier log follow in the recycled file")]
    StaleBytes,
    /// The bytes end inside a header.
    #[error("the bytes end inside a record's header")]
    ShortHeader,
    /// The bytes end inside a payload.
    #[error("the bytes end inside a record's body")]
    ShortBody,
    /// Fragments are there, the last one is not.
    #[error("the last fragment of a record is missing")]
    ShortRecord,
    /// The checksum does not match, and no valid record follows.
    #[error("the checksum does not match and no valid record follows")]
    ChecksumMismatch,
    /// The length reaches beyond the block, and no valid record follows.
    #[error("the length reaches beyond the block and no valid record follows")]
    BadLength,
    /// Zeros and then bytes that are no record.
    #[error("zeros and then bytes that are no record follow")]
    ZerosThenGarbage,
}

/// What is wrong with bytes that no writer leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Corruption {
    /// The checksum does not match although valid records follow.
    #[error("checksum mismatch, but a valid record follows at offset {valid_at}")]
    ChecksumMismatch {
        /// Where the first valid record after it was found.
        valid_at: u64,
    },
    /// The length reaches beyond the block although valid records follow.
    #[error("the record's length reaches beyond its block, but a valid record follows at offset {valid_at}")]
    BadLength {
        /// Where the first valid record after it was found.
        valid_at: u64,
    },
    /// Zeros where there must have been records.
    #[error("zeros where records should be; a valid record follows at offset {valid_at}")]
    Hole {
        /// Where the first valid record after it was found.
        valid_at: u64,
    },
    /// A middle or last fragment without a first.
    #[error("a fragment without the start of its record")]
    MissingStart,
    /// A record begins inside another.
    #[error("a record begins before the one at offset {started_at} has ended")]
    PartialRecordWithoutEnd {
        /// Where the unfinished record begins.
        started_at: u64,
    },
    /// A log that began with short headers goes on with recyclable ones.
    #[error("a recyclable record in a log that is not recyclable")]
    MixedFraming,
    /// A metadata record between the fragments of a record.
    #[error("a metadata record inside the record that begins at offset {started_at}")]
    MetadataInsideRecord {
        /// Where the unfinished record begins.
        started_at: u64,
    },
    /// A record type of a later version that must not be ignored.
    #[error("unknown record type {record_type}")]
    UnknownType {
        /// The type byte.
        record_type: u8,
    },
    /// The compression record is not the file's first record.
    #[error("the compression record is not the first record")]
    CompressionNotFirst,
    /// The compression is not one that RocksDB itself accepts in a WAL.
    #[error("WAL compression type {compression_type} is not supported")]
    UnsupportedCompression {
        /// RocksDB's `CompressionType`.
        compression_type: u32,
    },
    /// A metadata record's payload has the wrong length.
    #[error("a metadata record of type {record_type} with {len} bytes of payload")]
    MalformedMetadata {
        /// The type byte.
        record_type: u8,
        /// Bytes of its payload.
        len: u16,
    },
    /// A timestamp size of zero, or a second one for the same column family.
    #[error("the timestamp size of column family {column_family} is zero or repeated")]
    TimestampSizes {
        /// The column family.
        column_family: ColumnFamilyId,
    },
    /// The payload is not one complete zstd frame.
    #[error("the record's zstd frame cannot be decompressed")]
    Decompression,
    /// The record is larger than the limit that the reader was given.
    #[error("the record has more than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
}

impl Corruption {
    /// Whether the bytes may be in order and it is this reader that does not know them.
    pub const fn is_unsupported(&self) -> bool {
        matches!(self, Self::UnknownType { .. } | Self::UnsupportedCompression { .. } | Self::TooLarge { .. })
    }
}
