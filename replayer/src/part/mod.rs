//! A part of a database: some column families, or some keys of them, as a database of its own.
//!
//! - this file: what can be asked for, and what a plan says of it;
//! - `narrow`: from a plan of the whole database to one of the part, or why it cannot be;
//! - `files`: which table files it needs, and what its MANIFEST says of the others;
//! - `records`: which records and frames it needs, and what is left of a record.
//!
//! Keys are chosen byte by byte. Table files are taken whole: what else they hold is hidden by range deletions behind the
//! last record, which take one sequence number more than the source had.
//! Refuses: what cannot be exact. A column family whose comparator orders keys otherwise than byte by byte comes whole or not
//! at all, and so does everything where transactions are prepared.

use bytes::Bytes;
use pitr_archive::ids::{ColumnFamilyId, SequenceNumber};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::log::Raw;

pub(crate) mod files;
pub(crate) mod narrow;
pub(crate) mod records;

/// What is wanted of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Column families by name; none means all.
    pub families: Vec<String>,
    /// Which keys of them.
    pub keys: KeyRange,
}

/// Keys from one on and below another, byte by byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl KeyRange {
    /// The keys that begin so.
    pub fn prefix(prefix: &[u8]) -> Self {
        let last = prefix.iter().rposition(|byte| *byte < u8::MAX);
        let to = last.and_then(|last| {
            let mut to = prefix.get(..=last)?.to_vec();
            *to.last_mut()? += 1;
            Some(to)
        });
        Self { from: prefix.to_vec(), to }
    }

    /// The keys from `from` on and below `to`; `None` where there can be none.
    pub fn between(from: &[u8], to: &[u8]) -> Option<Self> {
        (from < to).then(|| Self { from: from.to_vec(), to: Some(to.to_vec()) })
    }

    /// Whether that is every key.
    pub const fn is_all(&self) -> bool {
        self.from.is_empty() && self.to.is_none()
    }

    /// The first key.
    pub fn from(&self) -> &[u8] {
        &self.from
    }

    /// What every key is below.
    pub fn to(&self) -> Option<&[u8]> {
        self.to.as_deref()
    }

    /// Whether a key is among them.
    pub fn holds(&self, key: &[u8]) -> bool {
        key >= self.from() && self.to().is_none_or(|to| key < to)
    }

    /// Whether any of the keys from `first` to `last` (included) can be among them.
    pub fn meets(&self, first: &[u8], last: &[u8]) -> bool {
        last >= self.from() && self.to().is_none_or(|to| first < to)
    }
}

impl Serialize for KeyRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = |bytes: &[u8]| Raw(Bytes::copy_from_slice(bytes));
        let mut shown = serializer.serialize_struct("KeyRange", 2)?;
        shown.serialize_field("from", &raw(&self.from))?;
        shown.serialize_field("to", &self.to.as_deref().map(raw))?;
        shown.end()
    }
}

/// What of the database a plan restores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedPart {
    /// The column families, in the order of their ids.
    pub families: Vec<PlannedFamily>,
    /// Which of their keys; absent where all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<KeyRange>,
    /// Table and blob files of the base that are not fetched.
    pub files_left_out: usize,
    /// Their bytes.
    pub bytes_left_out: u64,
    /// The part's latest sequence number: the target's, or behind the deletions of what files hold beside it.
    pub latest_sequence: SequenceNumber,
}

/// A column family of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedFamily {
    /// Its id.
    pub id: ColumnFamilyId,
    /// Its name.
    pub name: String,
}

impl PlannedPart {
    /// Whether the column family is wanted.
    pub fn has(&self, id: ColumnFamilyId) -> bool {
        self.families.iter().any(|family| family.id == id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_prefix_is_the_range_of_the_keys_that_begin_with_it(
            prefix in prop::collection::vec(prop_oneof![Just(0_u8), Just(7), Just(255)], 0..4),
            key in prop::collection::vec(prop_oneof![Just(0_u8), Just(7), Just(8), Just(255)], 0..6),
        ) {
            prop_assert_eq!(KeyRange::prefix(&prefix).holds(&key), key.starts_with(&prefix));
        }

        #[test]
        fn a_range_meets_what_holds_one_of_its_keys(
            bounds in (prop::collection::vec(0_u8..4, 0..3), prop::collection::vec(0_u8..4, 0..3)),
            keys in prop::collection::vec(prop::collection::vec(0_u8..4, 0..3), 1..6),
        ) {
            let (Some(first), Some(last)) = (keys.iter().min(), keys.iter().max()) else { return Ok(()) };
            let Some(range) = KeyRange::between(&bounds.0, &bounds.1) else {
                prop_assert!(bounds.0 >= bounds.1);
                return Ok(());
            };
            prop_assert!(!keys.iter().any(|key| range.holds(key)) || range.meets(first, last));
        }
    }

    #[test]
    fn everything_is_said_to_be_everything() {
        assert!(KeyRange::default().is_all() && KeyRange::prefix(b"").is_all());
        assert!(!KeyRange::prefix(b"\xff").is_all() && KeyRange::prefix(b"\xff").to().is_none());
        let shown = serde_json::to_value(KeyRange::prefix(b"a\xfe")).unwrap();
        assert_eq!(shown, serde_json::json!({"from": "a\\xfe", "to": "a\\xff"}));
    }
}
