//! Names of transactions.

use std::{borrow::Borrow, fmt};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{ids::hex_byte, rocks::name::Name};

/// Names up to this many bytes need no allocation: two of them are made for nearly every record of such a database.
const IN_PLACE: usize = 32;

/// A transaction's name: any bytes. Stored in hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(SmallVec<[u8; IN_PLACE]>);

impl Xid {
    /// As stored in the log.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Ordered as its bytes are: it can be looked up without a copy.
impl Borrow<[u8]> for Xid {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Xid {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

/// As people read it: text where it is UTF-8, otherwise hexadecimal after `0x`.
impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Name::new(self.0.as_slice()).fmt(f)
    }
}

impl fmt::Debug for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for Xid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = self.0.iter().map(|b| format!("{b:02x}")).collect();
        serializer.serialize_str(&digits)
    }
}

impl<'de> Deserialize<'de> for Xid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let bytes: Option<SmallVec<_>> = digits.as_bytes().chunks(2).map(hex_byte).collect();
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("a transaction's name is not in hexadecimal"))
    }
}
