//! The state that a MANIFEST's records amount to.
//!
//! Owns: [`ManifestModel`], fed one logical record after another, and what each of them changed ([`Change`]).
//! Rules as in RocksDB's recovery (`version_edit_handler.cc`, `version_builder.cc`): atomic groups take effect as a
//! whole; inside an edit blob files come first, then deletions, then additions; `LastSequence` is the last one written,
//! log numbers and the minimum log number to keep never go back.
//! Refuses: an edit that does not fit the state (an unknown column family, a file deleted that is not there): edits
//! were missed. A refused record changes nothing.
//! Memory: about 100 bytes for a live file; keys are not kept.
//!
//! A new MANIFEST opens with a snapshot. Feed it to a model of its own and compare [`digest`](ManifestModel::digest)
//! after each record with the model at the end of the MANIFEST before: the first equality is the end of the snapshot
//! (of what the digest covers), and no equality means that edits were missed. Changes reported before that are the
//! snapshot's, not events.

mod apply;
mod change;
mod digest;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::digest::DigestSum;
pub use self::{
    apply::{ManifestError, ManifestProblem},
    change::{Change, FileMove},
};
pub use super::name::Name;
use super::version_edit::SstUniqueId;
use crate::ids::{ColumnFamilyId, ContentHash, FileNumber, SequenceNumber};

/// Whether the server runs with `allow_2pc`, which decides the WALs that recovery needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TwoPhase {
    /// `allow_2pc` is off.
    Off,
    /// `allow_2pc` is on.
    On,
}

/// A table file, as far as copying and comparing it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SstFile {
    /// Bytes.
    pub size: u64,
    /// Smallest sequence number in it.
    pub smallest_seqno: SequenceNumber,
    /// Largest sequence number in it.
    pub largest_seqno: SequenceNumber,
    /// Identity of its content, from RocksDB 7.3 on.
    pub unique_id: Option<SstUniqueId>,
    /// The oldest blob file that it refers to.
    pub oldest_blob_file: Option<FileNumber>,
    /// RocksDB's epoch number, from 7.10 on.
    pub epoch_number: Option<u64>,
    /// Whole-file checksum and the name of the function that made it, where the database keeps them.
    pub checksum: Option<Box<FileChecksum>>,
    /// Level in the tree.
    pub level: u32,
    /// Which path it lies in: an index into `cf_paths`, or `db_paths` where a column family has none.
    pub path_id: u8,
}

/// A whole-file checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChecksum {
    /// The name of the function.
    pub function: Name,
    /// Its value.
    pub value: Box<[u8]>,
}

/// A blob file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobFile {
    /// Values in it.
    pub total_count: u64,
    /// Bytes of them.
    pub total_bytes: u64,
    /// Values that nothing refers to any more.
    pub garbage_count: u64,
    /// Bytes of them.
    pub garbage_bytes: u64,
    /// Name of the checksum function; may be empty.
    pub checksum_method: Name,
    /// The checksum; may be empty.
    pub checksum_value: Box<[u8]>,
    /// Live table files whose oldest blob file this is.
    pub linked_ssts: u64,
}

/// A live column family.
#[derive(Clone, Debug)]
pub struct ColumnFamily {
    /// Its name.
    pub name: Name,
    /// Its comparator; `None` until an edit has named it (the default column family of a new database).
    pub comparator: Option<Name>,
    /// It needs no WAL below this number. Idle column families advance it in memory only.
    pub log_number: FileNumber,
    /// Live table files.
    pub files: BTreeMap<FileNumber, SstFile>,
    /// Blob files that RocksDB has not made obsolete.
    pub blobs: BTreeMap<FileNumber, BlobFile>,
    /// Whether user-defined timestamps are in its files.
    pub persist_user_defined_timestamps: bool,
}

impl ColumnFamily {
    fn new(name: Name) -> Self {
        Self {
            name,
            comparator: None,
            log_number: FileNumber::new(0),
            files: BTreeMap::new(),
            blobs: BTreeMap::new(),
            persist_user_defined_timestamps: true,
        }
    }

    /// RocksDB's rule (`VersionBuilder::SaveBlobFilesTo`): there is no delete record; a blob file is obsolete when it is
    /// older than the oldest one that a table file is linked to, or has no link and nothing but garbage.
    fn drop_obsolete_blobs(&mut self) {
        let oldest_linked = self.blobs.iter().find(|(_, blob)| blob.linked_ssts > 0).map(|(number, _)| *number);
        match oldest_linked {
            None => self.blobs.clear(),
            Some(oldest) => self.blobs.retain(|number, blob| {
                *number >= oldest && (blob.linked_ssts > 0 || blob.garbage_count < blob.total_count)
            }),
        }
    }
}

/// The state after a prefix of a MANIFEST. Cloning it keeps that prefix.
#[derive(Clone, Debug)]
pub struct ManifestModel {
    file: FileNumber,
    applied_to: u64,
    /// Payloads of an atomic group that is not complete yet.
    pending: Vec<Box<[u8]>>,
    families: BTreeMap<ColumnFamilyId, ColumnFamily>,
    min_log_number_to_keep: FileNumber,
    last_sequence: SequenceNumber,
    next_file_number: Option<FileNumber>,
    max_column_family: ColumnFamilyId,
    db_id: Option<Name>,
    tracked_wals: BTreeMap<FileNumber, Option<u64>>,
    sum: DigestSum,
}

impl ManifestModel {
    /// Before the first record of the MANIFEST of this number. The default column family is always there.
    pub fn new(file: FileNumber) -> Self {
        let default = ColumnFamily::new("default".into());
        let mut sum = DigestSum::default();
        sum.add_family(ColumnFamilyId::DEFAULT, &default);
        Self {
            file,
            applied_to: 0,
            pending: Vec::new(),
            families: BTreeMap::from([(ColumnFamilyId::DEFAULT, default)]),
            min_log_number_to_keep: FileNumber::new(0),
            last_sequence: SequenceNumber::new(0),
            next_file_number: None,
            max_column_family: ColumnFamilyId::DEFAULT,
            db_id: None,
            tracked_wals: BTreeMap::new(),
            sum,
        }
    }

    /// The MANIFEST's number.
    pub const fn file(&self) -> FileNumber {
        self.file
    }

    /// End offset of the last record that has taken effect: a place at which a copy of the MANIFEST may be cut.
    /// Records of an incomplete atomic group lie behind it.
    pub const fn applied_to(&self) -> u64 {
        self.applied_to
    }

    /// Whether records of an incomplete atomic group have been fed.
    pub fn in_atomic_group(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Forgets the records of an incomplete atomic group, as recovery does at the end of a MANIFEST. Reading may go on
    /// from [`applied_to`](Self::applied_to).
    pub fn abandon_atomic_group(&mut self) {
        self.pending.clear();
    }

    /// A hash of column families (id, name, comparator) and table files (column family, level, number, size, path id,
    /// sequence numbers), whatever the order in which they came. Log numbers are not part of it: those of idle column
    /// families advance without an edit.
    pub fn digest(&self) -> ContentHash {
        self.sum.finish()
    }

    /// Live column families by id.
    pub const fn column_families(&self) -> &BTreeMap<ColumnFamilyId, ColumnFamily> {
        &self.families
    }

    /// A live column family.
    pub fn column_family(&self, id: ColumnFamilyId) -> Option<&ColumnFamily> {
        self.families.get(&id)
    }

    /// A live column family by its name.
    pub fn column_family_named(&self, name: &[u8]) -> Option<(ColumnFamilyId, &ColumnFamily)> {
        self.families.iter().find(|(_, family)| family.name.as_bytes() == name).map(|(id, family)| (*id, family))
    }

    /// The database needs no WAL below this number; 0 before an edit has said so.
    pub const fn min_log_number_to_keep(&self) -> FileNumber {
        self.min_log_number_to_keep
    }

    /// The largest sequence number in any table file ever added: what survives without a WAL, not the live sequence.
    pub const fn last_sequence(&self) -> SequenceNumber {
        self.last_sequence
    }

    /// A MANIFEST that took over where `before` was its predecessor's: snapshots of RocksDB 6.17 name no sequence number
    /// (measured), and the number lives on in the server.
    pub fn inherit_last_sequence(&mut self, before: SequenceNumber) {
        if self.last_sequence == SequenceNumber::default() {
            self.last_sequence = before;
        }
    }

    /// The next number that the database will give to a file.
    pub const fn next_file_number(&self) -> Option<FileNumber> {
        self.next_file_number
    }

    /// The largest column family id ever given.
    pub const fn max_column_family(&self) -> ColumnFamilyId {
        self.max_column_family
    }

    /// The database's id, if its version writes it to the MANIFEST.
    pub fn db_id(&self) -> Option<&str> {
        self.db_id.as_ref().and_then(Name::as_str)
    }

    /// WALs whose synced size the MANIFEST tracks. Empty unless the server runs with
    /// `track_and_verify_wals_in_manifest`.
    pub const fn tracked_wals(&self) -> &BTreeMap<FileNumber, Option<u64>> {
        &self.tracked_wals
    }

    /// The first WAL that recovery from this state needs (design.md: W0); every WAL from this number on belongs to it.
    pub fn first_wal_needed(&self, two_phase: TwoPhase) -> FileNumber {
        let families = self.families.values().map(|family| family.log_number).min().unwrap_or_default();
        match two_phase {
            TwoPhase::On => self.min_log_number_to_keep,
            TwoPhase::Off => self.min_log_number_to_keep.max(families),
        }
    }

    /// Live table files of all column families: the set that a base at this prefix needs.
    pub fn live_files(&self) -> impl Iterator<Item = (ColumnFamilyId, FileNumber, &SstFile)> {
        self.families
            .iter()
            .flat_map(|(id, family)| family.files.iter().map(move |(number, file)| (*id, *number, file)))
    }

    /// Blob files that are not obsolete. One that has vanished is fatal for a base: all of these are needed.
    pub fn live_blob_files(&self) -> impl Iterator<Item = (ColumnFamilyId, FileNumber, &BlobFile)> {
        self.families
            .iter()
            .flat_map(|(id, family)| family.blobs.iter().map(move |(number, blob)| (*id, *number, blob)))
    }
}
