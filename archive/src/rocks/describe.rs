//! RocksDB's files in words: what `pitr inspect` shows.
//!
//! Owns: typed, serialisable descriptions of the content of a WAL, a MANIFEST and an OPTIONS file, in the terms that
//! `ldb dump_wal --header --print_value` and `ldb manifest_dump --verbose` use. Made one at a time while the file is
//! read: a description of a whole file is never in memory.
//! Refuses: layout. Tables are made by the command line.
//! Damage is part of a description: the last thing described says how the file ends.

mod manifest;
#[cfg(test)]
mod tests;
mod wal;

use serde::{Deserialize, Serialize};

pub use self::{
    manifest::{BlobLine, EditLine, FamilyLine, FileLine, LevelLine, ManifestDescriber, ManifestLine, ManifestState},
    wal::{BatchLine, OpLine, Operations, WalDescriber, WalLine},
};

/// A key or a value: as text where all of it is printable UTF-8, and otherwise in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// Printable text.
    Text(String),
    /// Bytes, two hexadecimal digits each.
    Hex(String),
}

impl Shown {
    /// Shows bytes.
    pub fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if text.chars().all(is_printable) => Self::Text(text.to_owned()),
            _ => Self::Hex(hex(bytes)),
        }
    }
}

/// Text as it is; bytes as `0x...`, as `ldb --hex` prints them.
impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Hex(digits) => write!(f, "0x{digits}"),
        }
    }
}

/// Neither a control character nor one that changes the direction or order of text on a terminal.
fn is_printable(c: char) -> bool {
    let reorders =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !c.is_control() && !reorders && c != '\u{fffd}'
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// How reading a log ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Ending {
    /// Nothing but whole records, and what may lie behind them.
    End {
        /// Offset after the last whole record.
        offset: u64,
        /// Bytes behind it.
        void_bytes: u64,
        /// What they are, in words.
        why: String,
    },
    /// A record that is not complete (yet).
    Incomplete {
        /// Offset after the last whole record.
        offset: u64,
        /// What is missing, in words.
        why: String,
    },
    /// Damage.
    Corrupt {
        /// Offset of the damage.
        offset: u64,
        /// What is wrong, in words.
        reason: String,
    },
}

impl Ending {
    /// From the log reader's last answer; `None` for a record or metadata.
    pub fn of(answer: &super::log_reader::Read<'_>) -> Option<Self> {
        use super::log_reader::Read;
        match answer {
            Read::Record { .. } | Read::Metadata { .. } => None,
            Read::End { at, void_bytes, why } => {
                Some(Self::End { offset: *at, void_bytes: *void_bytes, why: why.to_string() })
            }
            Read::Incomplete { at, why, .. } => Some(Self::Incomplete { offset: *at, why: why.to_string() }),
            Read::Corrupt { at, reason } => Some(Self::Corrupt { offset: *at, reason: reason.to_string() }),
        }
    }

    /// Whether the file is damaged.
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}
