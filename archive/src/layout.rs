//! What all our binary structures share: reading fixed fields, and what can be wrong with stored bytes.
//!
//! Owns: [`Fields`], a cursor that never reads beyond its bytes, and [`Fault`], the one list of reasons for which stored
//! bytes are refused. A fault becomes an [`Error`] where the object's name is known. All integers are little-endian.

use crate::{
    code::Code,
    error::{Error, Result},
    object_key::ObjectKey,
};

/// Which kind of object is read: it decides the error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A segment.
    Segment,
    /// A document or a file of a base.
    Object,
}

/// Why stored bytes are refused.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The bytes end too early.
    #[error("{what} at offset {offset} needs {needed} bytes and there are {have}")]
    Short {
        /// The structure.
        what: &'static str,
        /// Where it begins in the object.
        offset: u64,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that are there.
        have: u64,
    },
    /// Bytes follow that belong to nothing.
    #[error("{count} bytes follow {what} and belong to nothing")]
    Excess {
        /// The structure.
        what: &'static str,
        /// How many.
        count: u64,
    },
    /// Not the kind of object that was expected.
    #[error("{what} does not begin with the bytes that mark one")]
    Magic {
        /// The structure.
        what: &'static str,
    },
    /// Written by a newer program.
    #[error("{what} has version {found}, this program reads version {known}")]
    Version {
        /// The structure.
        what: &'static str,
        /// In the object.
        found: u16,
        /// The newest that is known here.
        known: u16,
    },
    /// Written with a feature that must be known to read it.
    #[error("{what} needs features {flags:#010x} that this program does not have")]
    Flags {
        /// The structure.
        what: &'static str,
        /// The unknown bits.
        flags: u32,
    },
    /// A checksum or hash differs.
    #[error("the checksum of {what} differs: stored {stored}, computed {computed}")]
    Checksum {
        /// The structure.
        what: &'static str,
        /// In the object.
        stored: String,
        /// Over the object.
        computed: String,
    },
    /// The seal does not open: other bytes, another key, another place.
    #[error("the seal of {what} does not open: its bytes, its place or its key are not what they were")]
    Seal {
        /// The structure.
        what: &'static str,
    },
    /// The compressed bytes cannot be expanded to the declared length.
    #[error("{what} cannot be decompressed")]
    Compression {
        /// The structure.
        what: &'static str,
        /// The library's reason, where it gave one.
        #[source]
        source: Option<std::io::Error>,
    },
    /// JSON that is not what the schema says.
    #[error("{what} is not the JSON that was expected")]
    Json {
        /// The structure.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A length above its limit: refused before anything is allocated.
    #[error("{what} declares {declared} bytes, the limit is {limit}")]
    Limit {
        /// The structure.
        what: &'static str,
        /// In the object.
        declared: u64,
        /// The highest that is accepted.
        limit: u64,
    },
    /// The object belongs to another archive.
    #[error("belongs to archive {found}, not to {expected}")]
    Foreign {
        /// The archive that is open.
        expected: String,
        /// In the object.
        found: String,
    },
    /// A value is not the one that its place demands: the body of another object, or an inconsistent one.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// The field.
        what: &'static str,
        /// What its place demands.
        expected: String,
        /// In the object.
        found: String,
    },
    /// The running hash over the entries is not the recorded one.
    #[error("the running hash after {what} is {computed}, recorded is {recorded}")]
    Chain {
        /// Which entries.
        what: String,
        /// Over the entries.
        computed: String,
        /// In the object.
        recorded: String,
    },
    /// An entry cannot be decoded.
    #[error("entry at plain offset {offset}")]
    Entry {
        /// Offset in the frame's plain bytes.
        offset: u64,
        /// Why.
        #[source]
        source: crate::segment::entry::EntryError,
    },
}

impl Fault {
    /// A [`Fault::Mismatch`] unless the two are equal.
    pub fn unless_equal<T: PartialEq + std::fmt::Display>(
        what: &'static str,
        expected: &T,
        found: &T,
    ) -> Result<(), Self> {
        if expected == found {
            return Ok(());
        }
        Err(Self::Mismatch { what, expected: expected.to_string(), found: found.to_string() })
    }

    /// The stable code.
    pub const fn code(&self, family: Family) -> Code {
        match (self, family) {
            (Self::Version { .. } | Self::Flags { .. }, Family::Segment) => Code::SegmentUnsupported,
            (Self::Version { .. } | Self::Flags { .. }, Family::Object) => Code::ObjectUnsupported,
            (Self::Foreign { .. }, _) => Code::WrongArchive,
            (Self::Chain { .. }, _) => Code::ChainBroken,
            (_, Family::Segment) => Code::SegmentDamaged,
            (_, Family::Object) => Code::ObjectDamaged,
        }
    }

    /// The error, now that the object is known.
    pub fn on(self, family: Family, doing: &'static str, key: &ObjectKey) -> Error {
        Error::new(self.code(family), doing).on(key).because(self)
    }
}

/// A cursor over the fields of a structure.
#[derive(Debug)]
pub struct Fields<'a> {
    what: &'static str,
    base: u64,
    whole: usize,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Over `bytes`, which lie at offset `base` of the object and hold a `what`.
    pub const fn new(what: &'static str, base: u64, bytes: &'a [u8]) -> Self {
        Self { what, base, whole: bytes.len(), rest: bytes }
    }

    /// The next `n` bytes.
    pub fn slice(&mut self, n: usize) -> Result<&'a [u8], Fault> {
        let Some((head, tail)) = self.rest.split_at_checked(n) else {
            return Err(Fault::Short {
                what: self.what,
                offset: self.base,
                needed: (self.whole - self.rest.len()).saturating_add(n) as u64,
                have: self.whole as u64,
            });
        };
        self.rest = tail;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(N)?);
        Ok(out)
    }

    /// The next `u8`.
    pub fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(u8::from_le_bytes)
    }

    /// The next `u16`.
    pub fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next `u32`.
    pub fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next `u64`.
    pub fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next `i64`.
    pub fn i64(&mut self) -> Result<i64, Fault> {
        self.array().map(i64::from_le_bytes)
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), Fault> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Fault::Excess { what: self.what, count: self.rest.len() as u64 })
        }
    }
}

/// The crc32c of `bytes` must be `stored`.
pub fn check_crc(what: &'static str, bytes: &[u8], stored: u32) -> Result<(), Fault> {
    let computed = crc32c::crc32c(bytes);
    if computed == stored {
        return Ok(());
    }
    Err(Fault::Checksum { what, stored: format!("{stored:08x}"), computed: format!("{computed:08x}") })
}
