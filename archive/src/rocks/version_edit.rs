//! VersionEdits: what a MANIFEST record holds (RocksDB's `db/version_edit.cc`).
//!
//! A VersionEdit is a sequence of `varint32 tag, fields`. Owns: every tag up to 11.8, decoding and encoding in
//! RocksDB's own order, and the rule for unknown tags: those with bit 13 are kept as bytes, others are an error.
//! Keys, names and checksums are borrowed, so that the snapshot record of a database with very many files costs little.
//! Refuses: to judge whether an edit fits the state before it ([`manifest`](super::manifest)).

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::decode::{Field, Fields, VersionEditError, VersionEditProblem};
use crate::ids::{ColumnFamilyId, FileNumber, SequenceNumber};

/// RocksDB's `Tag`.
pub(super) mod tag {
    pub(in crate::rocks) const COMPARATOR: u32 = 1;
    pub(in crate::rocks) const LOG_NUMBER: u32 = 2;
    pub(in crate::rocks) const NEXT_FILE_NUMBER: u32 = 3;
    pub(in crate::rocks) const LAST_SEQUENCE: u32 = 4;
    pub(in crate::rocks) const COMPACT_CURSOR: u32 = 5;
    pub(in crate::rocks) const DELETED_FILE: u32 = 6;
    pub(in crate::rocks) const NEW_FILE: u32 = 7;
    pub(in crate::rocks) const PREV_LOG_NUMBER: u32 = 9;
    pub(in crate::rocks) const MIN_LOG_NUMBER_TO_KEEP: u32 = 10;
    pub(in crate::rocks) const NEW_FILE_2: u32 = 100;
    pub(in crate::rocks) const NEW_FILE_3: u32 = 102;
    pub(in crate::rocks) const NEW_FILE_4: u32 = 103;
    pub(in crate::rocks) const COLUMN_FAMILY: u32 = 200;
    pub(in crate::rocks) const COLUMN_FAMILY_ADD: u32 = 201;
    pub(in crate::rocks) const COLUMN_FAMILY_DROP: u32 = 202;
    pub(in crate::rocks) const MAX_COLUMN_FAMILY: u32 = 203;
    pub(in crate::rocks) const IN_ATOMIC_GROUP: u32 = 300;
    pub(in crate::rocks) const BLOB_FILE_ADDITION: u32 = 400;
    pub(in crate::rocks) const BLOB_FILE_GARBAGE: u32 = 401;
    /// A tag with this bit may be ignored by whoever does not know it.
    pub(in crate::rocks) const SAFE_IGNORE_MASK: u32 = 1 << 13;
    pub(in crate::rocks) const DB_ID: u32 = 8193;
    pub(in crate::rocks) const BLOB_FILE_ADDITION_DEPRECATED: u32 = 8194;
    pub(in crate::rocks) const BLOB_FILE_GARBAGE_DEPRECATED: u32 = 8195;
    pub(in crate::rocks) const WAL_ADDITION: u32 = 8196;
    pub(in crate::rocks) const WAL_DELETION: u32 = 8197;
    pub(in crate::rocks) const FULL_HISTORY_TS_LOW: u32 = 8198;
    pub(in crate::rocks) const WAL_ADDITION_2: u32 = 8199;
    pub(in crate::rocks) const WAL_DELETION_2: u32 = 8200;
    pub(in crate::rocks) const PERSIST_USER_DEFINED_TIMESTAMPS: u32 = 8201;
    pub(in crate::rocks) const SUBCOMPACTION_PROGRESS: u32 = 8202;
    pub(in crate::rocks) const LAST_COMPACTED_MANIFEST_FILE_SIZE: u32 = 8203;
}

/// RocksDB's `NewFileCustomTag`.
pub(super) mod custom {
    pub(in crate::rocks) const TERMINATE: u32 = 1;
    pub(in crate::rocks) const NEED_COMPACTION: u32 = 2;
    pub(in crate::rocks) const MIN_LOG_NUMBER_TO_KEEP_HACK: u32 = 3;
    pub(in crate::rocks) const OLDEST_BLOB_FILE_NUMBER: u32 = 4;
    pub(in crate::rocks) const OLDEST_ANCESTER_TIME: u32 = 5;
    pub(in crate::rocks) const FILE_CREATION_TIME: u32 = 6;
    pub(in crate::rocks) const FILE_CHECKSUM: u32 = 7;
    pub(in crate::rocks) const FILE_CHECKSUM_FUNC_NAME: u32 = 8;
    pub(in crate::rocks) const TEMPERATURE: u32 = 9;
    pub(in crate::rocks) const MIN_TIMESTAMP: u32 = 10;
    pub(in crate::rocks) const MAX_TIMESTAMP: u32 = 11;
    pub(in crate::rocks) const UNIQUE_ID: u32 = 12;
    pub(in crate::rocks) const EPOCH_NUMBER: u32 = 13;
    pub(in crate::rocks) const COMPENSATED_RANGE_DELETION_SIZE: u32 = 14;
    pub(in crate::rocks) const TAIL_SIZE: u32 = 15;
    pub(in crate::rocks) const USER_DEFINED_TIMESTAMPS_PERSISTED: u32 = 16;
    pub(in crate::rocks) const FILE_OPEN_METADATA: u32 = 17;
    /// An unknown field with this bit must not be ignored.
    pub(in crate::rocks) const NON_SAFE_IGNORE_MASK: u32 = 1 << 6;
    pub(in crate::rocks) const PATH_ID: u32 = 65;
}

/// A key as RocksDB stores it: user key, then sequence number and type in eight bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InternalKey<'a>(&'a [u8]);

impl<'a> InternalKey<'a> {
    /// `None` if there is no room for the trailer.
    pub const fn new(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < 8 { None } else { Some(Self(bytes)) }
    }

    /// As stored.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    fn parts(&self) -> (&'a [u8], u64) {
        self.0.split_last_chunk::<8>().map_or((&[], 0), |(key, trailer)| (key, u64::from_le_bytes(*trailer)))
    }

    /// The user key (with its user-defined timestamp, if the column family has them).
    pub fn user_key(&self) -> &'a [u8] {
        self.parts().0
    }

    /// The sequence number.
    pub fn sequence(&self) -> SequenceNumber {
        SequenceNumber::new(self.parts().1 >> 8)
    }

    /// RocksDB's `ValueType`.
    pub fn value_type(&self) -> u8 {
        self.parts().1.to_le_bytes()[0]
    }
}

impl fmt::Debug for InternalKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} @ {} : {}", self.user_key().escape_ascii().to_string(), self.sequence(), self.value_type())
    }
}

/// An SST's identity across databases and copies: RocksDB's `UniqueId64x2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SstUniqueId(pub u64, pub u64);

/// Hexadecimal, 32 digits, as `ldb` and `sst_dump` print it.
impl fmt::Display for SstUniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0, self.1)
    }
}

/// A file that joins the database (NewFile, NewFile2, NewFile3 and NewFile4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile<'a> {
    /// Level in the tree.
    pub level: u32,
    /// The file's number.
    pub number: FileNumber,
    /// Bytes.
    pub file_size: u64,
    /// First key.
    pub smallest: InternalKey<'a>,
    /// Last key.
    pub largest: InternalKey<'a>,
    /// Smallest sequence number in the file.
    pub smallest_seqno: SequenceNumber,
    /// Largest sequence number in the file.
    pub largest_seqno: SequenceNumber,
    /// Which of the column family's (or database's) paths it lies in, 0 to 3.
    pub path_id: u8,
    /// `kNeedCompaction`.
    pub marked_for_compaction: bool,
    /// `kMinLogNumberToKeepHack`: belongs to the database, not to the file.
    pub min_log_number_to_keep: Option<FileNumber>,
    /// Oldest blob file that the file's values refer to.
    pub oldest_blob_file_number: Option<FileNumber>,
    /// Unix seconds; 0 is unknown.
    pub oldest_ancester_time: Option<u64>,
    /// Unix seconds; 0 is unknown.
    pub file_creation_time: Option<u64>,
    /// From RocksDB 7.10 on.
    pub epoch_number: Option<u64>,
    /// Whole-file checksum, if the database keeps them.
    pub file_checksum: Option<&'a [u8]>,
    /// How that checksum is made.
    pub file_checksum_func_name: Option<&'a [u8]>,
    /// Storage temperature.
    pub temperature: Option<u8>,
    /// Smallest user-defined timestamp.
    pub min_timestamp: Option<&'a [u8]>,
    /// Largest user-defined timestamp.
    pub max_timestamp: Option<&'a [u8]>,
    /// Identity of the file's content.
    pub unique_id: Option<SstUniqueId>,
    /// `kCompensatedRangeDeletionSize`.
    pub compensated_range_deletion_size: Option<u64>,
    /// `kTailSize`.
    pub tail_size: Option<u64>,
    /// Whether user-defined timestamps are in the file; absent means yes.
    pub user_defined_timestamps_persisted: Option<bool>,
    /// `kFileOpenMetadata`, 11.2 and later.
    pub file_open_metadata: Option<&'a [u8]>,
    /// Fields of later versions that may be ignored, with their tags.
    pub unknown: Vec<(u32, &'a [u8])>,
}

impl<'a> NewFile<'a> {
    /// A file with the fields that every form has.
    pub const fn new(
        level: u32,
        number: FileNumber,
        file_size: u64,
        smallest: InternalKey<'a>,
        largest: InternalKey<'a>,
        smallest_seqno: SequenceNumber,
        largest_seqno: SequenceNumber,
    ) -> Self {
        Self {
            level,
            number,
            file_size,
            smallest,
            largest,
            smallest_seqno,
            largest_seqno,
            path_id: 0,
            marked_for_compaction: false,
            min_log_number_to_keep: None,
            oldest_blob_file_number: None,
            oldest_ancester_time: None,
            file_creation_time: None,
            epoch_number: None,
            file_checksum: None,
            file_checksum_func_name: None,
            temperature: None,
            min_timestamp: None,
            max_timestamp: None,
            unique_id: None,
            compensated_range_deletion_size: None,
            tail_size: None,
            user_defined_timestamps_persisted: None,
            file_open_metadata: None,
            unknown: Vec::new(),
        }
    }
}

/// A file that leaves a level. A file moved to another level is deleted and added under its number in one edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeletedFile {
    /// The level that it leaves.
    pub level: u32,
    /// The file's number.
    pub number: FileNumber,
}

/// A blob file that joins the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobFileAddition<'a> {
    /// The file's number.
    pub number: FileNumber,
    /// Values in it.
    pub total_blob_count: u64,
    /// Bytes of them.
    pub total_blob_bytes: u64,
    /// How its checksum is made; may be empty.
    pub checksum_method: &'a [u8],
    /// Its checksum; may be empty.
    pub checksum_value: &'a [u8],
    /// Fields of later versions that may be ignored.
    pub unknown: Vec<(u32, &'a [u8])>,
}

/// Values in a blob file that nothing refers to any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobFileGarbage<'a> {
    /// The file's number.
    pub number: FileNumber,
    /// Additional values that are garbage.
    pub garbage_blob_count: u64,
    /// Bytes of them.
    pub garbage_blob_bytes: u64,
    /// Fields of later versions that may be ignored.
    pub unknown: Vec<(u32, &'a [u8])>,
}

/// A WAL whose synced size the MANIFEST tracks (`track_and_verify_wals_in_manifest`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalAddition {
    /// Its number.
    pub number: FileNumber,
    /// Bytes that were synced; `None` when it has only been created.
    pub synced_size: Option<u64>,
}

/// One decoded VersionEdit. Absent fields are `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionEdit<'a> {
    /// The database's id.
    pub db_id: Option<&'a [u8]>,
    /// The comparator's name.
    pub comparator: Option<&'a [u8]>,
    /// The column family needs no WAL below this number.
    pub log_number: Option<FileNumber>,
    /// Always 0 today.
    pub prev_log_number: Option<FileNumber>,
    /// The next number to give to a file.
    pub next_file_number: Option<FileNumber>,
    /// The largest column family id ever given.
    pub max_column_family: Option<ColumnFamilyId>,
    /// The database needs no WAL below this number.
    pub min_log_number_to_keep: Option<FileNumber>,
    /// The largest sequence number in any table file: a floor, not the live sequence.
    pub last_sequence: Option<SequenceNumber>,
    /// Level and key at which round-robin compaction goes on.
    pub compact_cursors: Vec<(u32, InternalKey<'a>)>,
    /// Files that leave.
    pub deleted_files: Vec<DeletedFile>,
    /// Files that join.
    pub new_files: Vec<NewFile<'a>>,
    /// Blob files that join.
    pub blob_file_additions: Vec<BlobFileAddition<'a>>,
    /// Garbage in blob files.
    pub blob_file_garbages: Vec<BlobFileGarbage<'a>>,
    /// WALs being tracked.
    pub wal_additions: Vec<WalAddition>,
    /// Tracked WALs below this number are gone.
    pub wal_deletion: Option<FileNumber>,
    /// The column family that the edit is about.
    pub column_family: ColumnFamilyId,
    /// The column family is created, under this name.
    pub column_family_add: Option<&'a [u8]>,
    /// The column family is dropped.
    pub column_family_drop: bool,
    /// Number of edits that follow in the atomic group.
    pub in_atomic_group: Option<u32>,
    /// History below this user-defined timestamp is gone.
    pub full_history_ts_low: Option<&'a [u8]>,
    /// Whether user-defined timestamps are persisted.
    pub persist_user_defined_timestamps: Option<bool>,
    /// Progress of a subcompaction, as bytes: it says nothing about the database's content.
    pub subcompaction_progress: Option<&'a [u8]>,
    /// Size of the MANIFEST's opening snapshot.
    pub last_compacted_manifest_file_size: Option<u64>,
    /// Tags of later versions that may be ignored, with their bytes.
    pub unknown: Vec<(u32, &'a [u8])>,
}

impl<'a> VersionEdit<'a> {
    /// Decodes one MANIFEST record.
    pub fn decode(payload: &'a [u8]) -> Result<Self, VersionEditError> {
        let mut edit = Self::default();
        edit.fill(payload, |edit, file| edit.new_files.push(file))?;
        Ok(edit)
    }

    /// Decodes one MANIFEST record, checking new files but leaving them out ([`new_files`] gives them one by one): the
    /// snapshot of a database with very many files would take several times the record's size. The minimum log number
    /// that may hide in one of them is kept.
    pub(super) fn decode_without_new_files(payload: &'a [u8]) -> Result<Self, VersionEditError> {
        let mut edit = Self::default();
        let mut hidden = None;
        edit.fill(payload, |_, file| hidden = hidden.max(file.min_log_number_to_keep))?;
        edit.min_log_number_to_keep = edit.min_log_number_to_keep.max(hidden);
        Ok(edit)
    }

    fn fill(
        &mut self,
        payload: &'a [u8],
        mut new_file: impl FnMut(&mut Self, NewFile<'a>),
    ) -> Result<(), VersionEditError> {
        let edit = self;
        for field in Fields::new(payload) {
            match field? {
                Field::DbId(id) => edit.db_id = Some(id),
                Field::Comparator(name) => edit.comparator = Some(name),
                Field::LogNumber(number) => edit.log_number = Some(number),
                Field::PrevLogNumber(number) => edit.prev_log_number = Some(number),
                Field::NextFileNumber(number) => edit.next_file_number = Some(number),
                Field::MaxColumnFamily(id) => edit.max_column_family = Some(id),
                Field::MinLogNumberToKeep(number) => edit.min_log_number_to_keep = Some(number),
                Field::LastSequence(sequence) => edit.last_sequence = Some(sequence),
                Field::CompactCursor { level, key } => edit.compact_cursors.push((level, key)),
                Field::DeletedFile(file) => edit.deleted_files.push(file),
                Field::NewFile(file) => new_file(edit, file),
                Field::BlobFileAddition(file) => edit.blob_file_additions.push(file),
                Field::BlobFileGarbage(garbage) => edit.blob_file_garbages.push(garbage),
                Field::WalAddition(wal) => edit.wal_additions.push(wal),
                Field::WalDeletion(number) => edit.wal_deletion = Some(number),
                Field::ColumnFamily(id) => edit.column_family = id,
                Field::ColumnFamilyAdd(name) => edit.column_family_add = Some(name),
                Field::ColumnFamilyDrop => edit.column_family_drop = true,
                Field::InAtomicGroup(remaining) => edit.in_atomic_group = Some(remaining),
                Field::FullHistoryTsLow(timestamp) => edit.full_history_ts_low = Some(timestamp),
                Field::PersistUserDefinedTimestamps(yes) => edit.persist_user_defined_timestamps = Some(yes),
                Field::SubcompactionProgress(bytes) => edit.subcompaction_progress = Some(bytes),
                Field::LastCompactedManifestFileSize(size) => edit.last_compacted_manifest_file_size = Some(size),
                Field::Unknown { tag, bytes } => edit.unknown.push((tag, bytes)),
            }
        }
        Ok(())
    }

    /// Appends the edit as RocksDB would write it.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        encode::edit(self, out);
    }

    /// The edit as RocksDB would write it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// Of a flush whose table files are all that it changed, and which came by itself: the log that its column family needs
    /// from then on.
    ///
    /// # Errors
    /// Why it is not that, in words.
    pub fn lone_flush(&self) -> Result<FileNumber, &'static str> {
        let names_blobs = |file: &NewFile<'_>| file.oldest_blob_file_number.is_some_and(|number| number.get() != 0);
        if self.in_atomic_group.is_some() {
            Err("column families are flushed together")
        } else if !(self.blob_file_additions.is_empty() && self.blob_file_garbages.is_empty())
            || self.new_files.iter().any(names_blobs)
        {
            Err("it wrote blob files")
        } else if !self.deleted_files.is_empty() || self.new_files.iter().any(|file| file.level != 0) {
            Err("it did not only write files of level 0")
        } else {
            self.log_number.ok_or("it does not say which log is needed from then on")
        }
    }

    /// The minimum log number to keep that the edit gives, in either of its two places.
    pub fn effective_min_log_number_to_keep(&self) -> Option<FileNumber> {
        let in_files = self.new_files.iter().filter_map(|file| file.min_log_number_to_keep);
        self.min_log_number_to_keep.into_iter().chain(in_files).max()
    }
}

/// The new files of a record that has been decoded without an error, one by one.
pub fn new_files(payload: &[u8]) -> impl Iterator<Item = NewFile<'_>> {
    Fields::new(payload).filter_map(|field| match field {
        Ok(Field::NewFile(file)) => Some(file),
        _ => None,
    })
}
