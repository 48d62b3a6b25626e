//! Newtypes for every number and identifier that crosses a function boundary.
//!
//! Owns: their ranges, their text form (decimal, as RocksDB's own tools print them) and their order.
//! Refuses: arithmetic that could wrap; a number of one kind where another is wanted.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Wraps a raw number.
            pub const fn new(raw: $inner) -> Self {
                Self(raw)
            }

            /// The raw number.
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The number after this one, or `None` at the end of the range.
            pub fn next(self) -> Option<Self> {
                self.0.checked_add(1).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

number!(
    /// RocksDB's sequence number, at most 2^56 - 1. It orders nothing by itself: numbers repeat and go back.
    SequenceNumber(u64)
);
number!(
    /// The number in the name of one of RocksDB's files (WAL, MANIFEST, SST, blob, OPTIONS).
    FileNumber(u64)
);
number!(
    /// RocksDB's column family id; 0 is `default`. Never reused within a database.
    ColumnFamilyId(u32)
);
number!(
    /// The number of a timeline within an archive, from 1.
    TimelineId(u32)
);
number!(
    /// The ordinal of a segment on its timeline, dense from 0.
    Ordinal(u64)
);
number!(
    /// The number of a roll-up manifest on its timeline, dense from 0.
    ManifestNumber(u64)
);
number!(
    /// The number of a writer's claim on the archive; the highest claimed epoch is the writer.
    Epoch(u64)
);
number!(
    /// The number of a logical WAL record on its timeline, dense from 0 in archiving order.
    RecordNumber(u64)
);
number!(
    /// A place between records: `Boundary(n)` has the records 0 .. n-1 before it.
    ///
    /// Floors, barriers, heads, tags and targets are boundaries, so that "before the first record" needs no special
    /// case. The *position* shown to people is the record before the boundary ([`Boundary::last_record`]).
    Boundary(u64)
);

impl Boundary {
    /// Before every record.
    pub const START: Self = Self(0);

    /// The last record before this boundary; `None` at the start of the timeline.
    pub fn last_record(self) -> Option<RecordNumber> {
        self.0.checked_sub(1).map(RecordNumber)
    }

    /// The record that follows this boundary.
    pub const fn next_record(self) -> RecordNumber {
        RecordNumber(self.0)
    }
}

/// The ordinals that a segment stands for: one, or those of all the segments that were merged into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ordinals {
    first: Ordinal,
    last: Ordinal,
}

impl Ordinals {
    /// One ordinal.
    pub const fn one(ordinal: Ordinal) -> Self {
        Self { first: ordinal, last: ordinal }
    }

    /// From the first to the last, both included; `None` where that is no range.
    pub fn new(first: Ordinal, last: Ordinal) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The first of them.
    pub const fn first(self) -> Ordinal {
        self.first
    }

    /// The last of them.
    pub const fn last(self) -> Ordinal {
        self.last
    }

    /// Whether they are several: the segment was merged.
    pub fn is_merged(self) -> bool {
        self.first != self.last
    }

    /// Whether one of them is `ordinal`.
    pub fn contains(self, ordinal: Ordinal) -> bool {
        self.first <= ordinal && ordinal <= self.last
    }

    /// The ordinal behind them; `None` at the end of the range.
    pub fn next(self) -> Option<Ordinal> {
        self.last.next()
    }
}

/// Manifests of a timeline that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManifestNumbers {
    first: ManifestNumber,
    last: ManifestNumber,
}

impl ManifestNumbers {
    /// From the first to the last, both included; `None` where that is no range.
    pub fn new(first: ManifestNumber, last: ManifestNumber) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The first of them.
    pub const fn first(self) -> ManifestNumber {
        self.first
    }

    /// The last of them.
    pub const fn last(self) -> ManifestNumber {
        self.last
    }

    /// Whether one of them is `number`.
    pub fn contains(self, number: ManifestNumber) -> bool {
        self.first <= number && number <= self.last
    }
}

impl fmt::Display for ManifestNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl From<Ordinal> for Ordinals {
    fn from(ordinal: Ordinal) -> Self {
        Self::one(ordinal)
    }
}

impl fmt::Display for Ordinals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_merged() { write!(f, "{}-{}", self.first, self.last) } else { self.first.fmt(f) }
    }
}

impl RecordNumber {
    /// The boundary directly after this record.
    pub fn after(self) -> Option<Boundary> {
        self.0.checked_add(1).map(Boundary)
    }

    /// The boundary directly before this record.
    pub const fn before(self) -> Boundary {
        Boundary(self.0)
    }
}

impl SequenceNumber {
    /// RocksDB's `kMaxSequenceNumber`: the low 56 bits of an internal key's trailer.
    pub const MAX: Self = Self((1 << 56) - 1);

    /// `self + n`, or `None` beyond [`SequenceNumber::MAX`].
    pub fn checked_add(self, n: u64) -> Option<Self> {
        self.0.checked_add(n).map(Self).filter(|s| *s <= Self::MAX)
    }
}

impl ColumnFamilyId {
    /// The id of the column family that every database has.
    pub const DEFAULT: Self = Self(0);
}

impl TimelineId {
    /// The timeline that an archive begins with.
    pub const FIRST: Self = Self(1);
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident[$len:literal]) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = MalformedHex;
            fn from_str(text: &str) -> Result<Self, MalformedHex> {
                let bytes = text.as_bytes();
                if bytes.len() != $len * 2 {
                    return Err(MalformedHex);
                }
                let mut out = [0u8; $len];
                // One look for all of them at the end: a catalog of a million segments has hundreds of millions of digits.
                let mut wrong = 0;
                for (slot, pair) in out.iter_mut().zip(bytes.as_chunks().0) {
                    let [high, low] = *pair;
                    let (high, low) = (digit(high), digit(low));
                    wrong |= high | low;
                    *slot = high << 4 | low & 0xF;
                }
                if wrong & NO_DIGIT != 0 {
                    return Err(MalformedHex);
                }
                Ok(Self(out))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// What no hexadecimal digit stands for.
const NO_DIGIT: u8 = 0x80;

/// What each byte stands for as a hexadecimal digit.
#[expect(clippy::indexing_slicing, reason = "made by the compiler")]
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        let lower = b"0123456789abcdef"[value as usize];
        digits[lower as usize] = value;
        digits[lower.to_ascii_uppercase() as usize] = value;
        value += 1;
    }
    digits
};

#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
const fn digit(text: u8) -> u8 {
    DIGITS[text as usize]
}

/// The byte that two hexadecimal digits stand for.
pub(crate) fn hex_byte(digits: &[u8]) -> Option<u8> {
    let &[high, low] = digits else { return None };
    let (high, low) = (digit(high), digit(low));
    ((high | low) & NO_DIGIT == 0).then_some(high << 4 | low)
}

/// Text that is not the expected number of hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the expected number of hexadecimal digits")]
pub struct MalformedHex;

bytes_id!(
    /// The archive's identity, random, chosen when it is created.
    ArchiveId[16]
);
bytes_id!(
    /// A random value in every object's body by which a writer recognises its own write after a lost reply.
    Nonce[16]
);
bytes_id!(
    /// The running hash over the stream of entries up to a boundary (`segment::chain`).
    RunningHash[32]
);
bytes_id!(
    /// A blake3 hash of stored or copied bytes.
    ContentHash[32]
);

impl RunningHash {
    /// The hash before the first entry of an archive's first timeline.
    pub const ZERO: Self = Self([0; 32]);
}

/// The name of a base: its creation time and a random suffix, `20261120T133313Z-1f2e3d4c`. Sorts by time.
///
/// Other text is none, in a document neither.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct BaseId(String);

impl BaseId {
    /// A new name from the archiver's clock and its random source.
    pub fn new(now: chrono::DateTime<chrono::Utc>, random: u32) -> Self {
        Self(format!("{}-{random:08x}", now.format("%Y%m%dT%H%M%SZ")))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When the base was begun, to the second; `None` where the name holds no such day.
    pub fn time(&self) -> Option<chrono::DateTime<chrono::Utc>> {
        let stamp = self.0.get(..16)?;
        chrono::NaiveDateTime::parse_from_str(stamp, "%Y%m%dT%H%M%SZ").ok().map(|time| time.and_utc())
    }
}

impl fmt::Display for BaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BaseId {
    type Err = MalformedBaseId;
    fn from_str(text: &str) -> Result<Self, MalformedBaseId> {
        let shaped = text.len() == 25
            && text.bytes().enumerate().all(|(i, b)| match i {
                8 => b == b'T',
                15 => b == b'Z',
                16 => b == b'-',
                0..=14 => b.is_ascii_digit(),
                _ => b.is_ascii_hexdigit() && !b.is_ascii_uppercase(),
            });
        if shaped { Ok(Self(text.to_owned())) } else { Err(MalformedBaseId) }
    }
}

impl TryFrom<String> for BaseId {
    type Error = MalformedBaseId;
    fn try_from(text: String) -> Result<Self, MalformedBaseId> {
        text.parse()
    }
}

/// Text that is not a base's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a base's name, which looks like 20261120T133313Z-1f2e3d4c")]
pub struct MalformedBaseId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_ids_round_trip_and_refuse_other_text() {
        let id = ArchiveId(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse::<ArchiveId>(), Ok(id));
        for bad in ["", "00", "zz3132333435363738396162636465ff", "+03132333435363738396162636465666"] {
            assert_eq!(bad.parse::<Nonce>(), Err(MalformedHex), "{bad}");
        }
    }

    #[test]
    fn a_boundary_names_the_record_before_it() {
        assert_eq!(Boundary::START.last_record(), None);
        assert_eq!(Boundary::new(3).last_record(), Some(RecordNumber::new(2)));
        assert_eq!(RecordNumber::new(2).after(), Some(Boundary::new(3)));
    }

    #[test]
    fn base_names_round_trip() {
        let id = BaseId::new(chrono::DateTime::from_timestamp(0, 0).unwrap_or_default(), 0xabc);
        assert_eq!(id.as_str(), "19700101T000000Z-00000abc");
        assert_eq!(id.as_str().parse::<BaseId>(), Ok(id));
        assert_eq!("../../etc/passwd-x-x-x-xx".parse::<BaseId>(), Err(MalformedBaseId));
    }
}
