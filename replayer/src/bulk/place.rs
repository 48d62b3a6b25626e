//! Where the written files go in the tree, and with which sequence numbers.
//!
//! Owns: the edits that make them the database's. A file that RocksDB's own writer of external files made has one sequence
//! number for all its keys, which the MANIFEST tells (that is how RocksDB ingests such files, too). They lie above the files of
//! the base, as low as that allows; in level 0 RocksDB wants each to have a number of its own.
//! Behind the edits no log is needed.
//! Refuses: where there are not so many numbers between the newest file of the base and the target.

use pitr_archive::{
    Code, Error, Result,
    ids::{FileNumber, SequenceNumber},
    rocks::version_edit::{InternalKey, NewFile, VersionEdit},
};

use super::{
    chunk::Kind,
    tables::{Edge, Family, TableFile},
};
use crate::restore::manifest::Manifest;

/// The level for files above those of a base, of which `top` is the first level that has any: the lowest one above it. A
/// server opens no database with a file below its last level, so where the number of levels is not known it is level 0.
pub(crate) fn level(levels: Option<u32>, top: Option<u32>) -> u32 {
    match top {
        None => levels.unwrap_or(1).saturating_sub(1),
        Some(top) => top.saturating_sub(1),
    }
}

/// RocksDB's `ValueType`s.
const DELETION: u8 = 0;
const VALUE: u8 = 1;
const RANGE_DELETION: u8 = 0xf;

/// Sorts before every operation on the same key.
const LARGEST_SEQUENCE: u64 = (1 << 56) - 1;

/// What the edits say beside the files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    /// The latest sequence number of the target.
    pub sequence: SequenceNumber,
    /// The first log that is needed: an empty one.
    pub log: FileNumber,
    /// The first number that no file has.
    pub next_file: FileNumber,
}

fn internal(edge: &Edge, sequence: SequenceNumber) -> Vec<u8> {
    let (key, number, kind) = match edge {
        Edge::Key(key, Kind::Put) => (key, sequence.get(), VALUE),
        Edge::Key(key, Kind::Delete) => (key, sequence.get(), DELETION),
        Edge::RangeBegins(key) => (key, sequence.get(), RANGE_DELETION),
        Edge::RangeEnds(key) => (key, LARGEST_SEQUENCE, RANGE_DELETION),
    };
    let mut bytes = Vec::with_capacity(key.len() + 8);
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&(number << 8 | u64::from(kind)).to_le_bytes());
    bytes
}

/// Appends the edits of every column family.
pub(crate) fn place(manifest: &mut Manifest, families: &[Family], files: &[TableFile], behind: Behind) -> Result<()> {
    for (index, family) in families.iter().enumerate() {
        let own: Vec<_> = files.iter().filter(|file| usize::from(file.family) == index).collect();
        place_family(manifest, family, &own, behind)?;
    }
    // Where the MANIFEST never named one, others would never raise it again.
    let names_one = manifest.model.min_log_number_to_keep() > FileNumber::default();
    manifest.append(&VersionEdit {
        min_log_number_to_keep: names_one.then_some(behind.log),
        next_file_number: Some(behind.next_file),
        last_sequence: Some(behind.sequence),
        ..VersionEdit::default()
    })
}

fn place_family(manifest: &mut Manifest, family: &Family, files: &[&TableFile], behind: Behind) -> Result<()> {
    let level = family.level;
    let own = || manifest.model.column_family(family.spec.id).into_iter().flat_map(|model| model.files.values());
    let newest_epoch = own().filter_map(|file| file.epoch_number).max();
    let newest_below = own().map(|file| file.largest_seqno).max();
    let count = files.len() as u64;
    let numbers = if level == 0 { count } else { count.min(1) };
    let oldest = behind.sequence.get().checked_sub(numbers.saturating_sub(1)).map(SequenceNumber::new);
    let Some(oldest) = oldest.filter(|oldest| count == 0 || newest_below.is_none_or(|newest| newest < *oldest)) else {
        return Err(Error::new(Code::EngineUnusable, "numbering the files of a bulk restore")
            .with("column family", &family.spec.name)
            .with("files", count)
            .with("the target's sequence number", behind.sequence)
            .with("the largest one in the base", newest_below.unwrap_or_default())
            .hint("--engine native replays the log"));
    };
    let mut keys = Vec::with_capacity(files.len());
    for (index, file) in (0_u64..).zip(files) {
        let sequence = if level == 0 { SequenceNumber::new(oldest.get() + index) } else { behind.sequence };
        keys.push((internal(&file.smallest, sequence), internal(&file.largest, sequence), sequence));
    }
    let malformed = || Error::new(Code::Internal, "naming the keys of a table file");
    let mut new_files = Vec::with_capacity(files.len());
    for (index, (file, (smallest, largest, sequence))) in (1_u64..).zip(files.iter().zip(&keys)) {
        let smallest = InternalKey::new(smallest).ok_or_else(malformed)?;
        let largest = InternalKey::new(largest).ok_or_else(malformed)?;
        let mut new = NewFile::new(level, file.number, file.bytes, smallest, largest, *sequence, *sequence);
        new.epoch_number = newest_epoch.map(|newest| newest.saturating_add(index));
        new_files.push(new);
    }
    manifest.append(&VersionEdit {
        column_family: family.spec.id,
        log_number: Some(behind.log),
        next_file_number: Some(behind.next_file),
        last_sequence: Some(behind.sequence),
        new_files,
        ..VersionEdit::default()
    })
}
