//! A MANIFEST in words.

use serde::Serialize;

use super::{Ending, Shown};
use crate::{
    ids::{ColumnFamilyId, ContentHash, FileNumber, SequenceNumber},
    rocks::{
        log_reader::{Finality, LogKind, LogReader, Read},
        manifest::{Change, ManifestModel, Name, TwoPhase},
        version_edit::{DeletedFile, NewFile, VersionEdit, WalAddition},
    },
};

/// One thing in a MANIFEST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum ManifestLine {
    /// A VersionEdit.
    Edit(Box<EditLine>),
    /// How reading ended.
    Ending(Ending),
}

/// A VersionEdit, under the names of `ldb manifest_dump --verbose` (VersionEdit::DebugString). Absent fields are left
/// out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // RocksDB's own names
pub struct EditLine {
    /// Offset of its record.
    pub offset: u64,
    /// Offset after its record.
    pub end: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_id: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparator: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_number: Option<FileNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_log_number: Option<FileNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_file_number: Option<FileNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_log_number_to_keep: Option<FileNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sequence: Option<SequenceNumber>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deleted_files: Vec<DeletedFile>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub added_files: Vec<FileLine>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blob_file_additions: Vec<BlobLine>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blob_file_garbages: Vec<BlobLine>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wal_additions: Vec<WalAddition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_deletion: Option<FileNumber>,
    pub column_family: ColumnFamilyId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column_family_add: Option<Name>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub column_family_drop: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_column_family: Option<ColumnFamilyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub atomic_group_remaining: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_history_ts_low: Option<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist_user_defined_timestamps: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_compacted_manifest_file_size: Option<u64>,
    /// Number of round-robin compaction cursors.
    #[serde(skip_serializing_if = "is_zero")]
    pub compact_cursors: usize,
    /// Tags of later versions that may be ignored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown_tags: Vec<u32>,
    /// What the edit changed; those of an atomic group stand at its last edit. In the opening snapshot of a MANIFEST
    /// they only describe how the state is put together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Why it cannot be decoded or does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// A table file in an edit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // RocksDB's own names
pub struct FileLine {
    pub level: u32,
    pub number: FileNumber,
    pub file_size: u64,
    pub path_id: u8,
    /// User key.
    pub smallest: Shown,
    /// User key.
    pub largest: Shown,
    pub smallest_seqno: SequenceNumber,
    pub largest_seqno: SequenceNumber,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_blob_file: Option<FileNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_creation_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch_number: Option<u64>,
    /// 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_checksum: Option<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_checksum_func_name: Option<Shown>,
}

impl FileLine {
    fn new(file: &NewFile<'_>) -> Self {
        Self {
            level: file.level,
            number: file.number,
            file_size: file.file_size,
            path_id: file.path_id,
            smallest: Shown::new(file.smallest.user_key()),
            largest: Shown::new(file.largest.user_key()),
            smallest_seqno: file.smallest_seqno,
            largest_seqno: file.largest_seqno,
            oldest_blob_file: file.oldest_blob_file_number,
            file_creation_time: file.file_creation_time,
            epoch_number: file.epoch_number,
            unique_id: file.unique_id.map(|id| id.to_string()),
            file_checksum: file.file_checksum.map(Shown::new),
            file_checksum_func_name: file.file_checksum_func_name.map(Shown::new),
        }
    }
}

/// A blob file, or garbage in one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlobLine {
    /// Its number.
    pub number: FileNumber,
    /// Values, all or garbage.
    pub count: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl EditLine {
    /// Describes the edit in the record from `offset` to `end`.
    pub fn new(offset: u64, end: u64, payload: &[u8]) -> Self {
        match VersionEdit::decode(payload) {
            Ok(edit) => Self::of(offset, end, &edit),
            Err(e) => Self { offset, end, error: Some(e.to_string()), ..Self::default() },
        }
    }

    fn of(offset: u64, end: u64, edit: &VersionEdit<'_>) -> Self {
        let additions = edit.blob_file_additions.iter();
        let garbages = edit.blob_file_garbages.iter();
        Self {
            offset,
            end,
            db_id: edit.db_id.map(Name::new),
            comparator: edit.comparator.map(Name::new),
            log_number: edit.log_number,
            prev_log_number: edit.prev_log_number,
            next_file_number: edit.next_file_number,
            min_log_number_to_keep: edit.effective_min_log_number_to_keep(),
            last_sequence: edit.last_sequence,
            deleted_files: edit.deleted_files.clone(),
            added_files: edit.new_files.iter().map(FileLine::new).collect(),
            blob_file_additions: additions
                .map(|b| BlobLine { number: b.number, count: b.total_blob_count, bytes: b.total_blob_bytes })
                .collect(),
            blob_file_garbages: garbages
                .map(|b| BlobLine { number: b.number, count: b.garbage_blob_count, bytes: b.garbage_blob_bytes })
                .collect(),
            wal_additions: edit.wal_additions.clone(),
            wal_deletion: edit.wal_deletion,
            column_family: edit.column_family,
            column_family_add: edit.column_family_add.map(Name::new),
            column_family_drop: edit.column_family_drop,
            max_column_family: edit.max_column_family,
            atomic_group_remaining: edit.in_atomic_group,
            full_history_ts_low: edit.full_history_ts_low.map(Shown::new),
            persist_user_defined_timestamps: edit.persist_user_defined_timestamps,
            last_compacted_manifest_file_size: edit.last_compacted_manifest_file_size,
            compact_cursors: edit.compact_cursors.len(),
            unknown_tags: edit.unknown.iter().map(|(tag, _)| *tag).collect(),
            changes: Vec::new(),
            error: None,
        }
    }
}

/// The state at the end of a MANIFEST: the head and foot of `ldb manifest_dump`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManifestState {
    /// The MANIFEST's number.
    pub manifest: FileNumber,
    /// End of the last record that takes effect.
    pub applied_to: u64,
    /// The database's id.
    pub db_id: Option<String>,
    /// Next file number.
    pub next_file_number: Option<FileNumber>,
    /// Flushed floor of the sequence.
    pub last_sequence: SequenceNumber,
    /// Largest column family id.
    pub max_column_family: ColumnFamilyId,
    /// No WAL below is needed.
    pub min_log_number_to_keep: FileNumber,
    /// First WAL that recovery needs without two-phase commit.
    pub first_wal_needed: FileNumber,
    /// First WAL that recovery needs with two-phase commit.
    pub first_wal_needed_2pc: FileNumber,
    /// Hash of column families and files.
    pub digest: ContentHash,
    /// Live column families.
    pub column_families: Vec<FamilyLine>,
}

/// A live column family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FamilyLine {
    /// Its id.
    pub id: ColumnFamilyId,
    /// Its name.
    pub name: Name,
    /// Its comparator.
    pub comparator: Option<Name>,
    /// No WAL below is needed for it.
    pub log_number: FileNumber,
    /// Live files and their bytes for each level that has any.
    pub levels: Vec<LevelLine>,
    /// Live blob files.
    pub blob_files: usize,
    /// Bytes of values in them.
    pub blob_bytes: u64,
}

/// The files of a level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LevelLine {
    /// The level.
    pub level: u32,
    /// Files.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
}

impl ManifestState {
    /// Describes a model.
    pub fn new(model: &ManifestModel) -> Self {
        let families = model.column_families().iter().map(|(id, family)| {
            let mut levels = std::collections::BTreeMap::<u32, (usize, u64)>::new();
            for file in family.files.values() {
                let (files, bytes) = levels.entry(file.level).or_default();
                *files = files.saturating_add(1);
                *bytes = bytes.saturating_add(file.size);
            }
            let levels = levels.into_iter().map(|(level, (files, bytes))| LevelLine { level, files, bytes }).collect();
            FamilyLine {
                id: *id,
                name: family.name.clone(),
                comparator: family.comparator.clone(),
                log_number: family.log_number,
                levels,
                blob_files: family.blobs.len(),
                blob_bytes: family.blobs.values().fold(0, |sum, blob| sum.saturating_add(blob.total_bytes)),
            }
        });
        Self {
            manifest: model.file(),
            applied_to: model.applied_to(),
            db_id: model.db_id().map(str::to_owned),
            next_file_number: model.next_file_number(),
            last_sequence: model.last_sequence(),
            max_column_family: model.max_column_family(),
            min_log_number_to_keep: model.min_log_number_to_keep(),
            first_wal_needed: model.first_wal_needed(TwoPhase::Off),
            first_wal_needed_2pc: model.first_wal_needed(TwoPhase::On),
            digest: model.digest(),
            column_families: families.collect(),
        }
    }
}

/// Describes a MANIFEST while it is read.
#[derive(Debug)]
pub struct ManifestDescriber {
    reader: LogReader,
    model: ManifestModel,
    /// After an edit that does not fit, later ones are described but no longer applied.
    fits: bool,
    done: bool,
}

impl ManifestDescriber {
    /// At the start of the MANIFEST of this number.
    pub fn new(number: FileNumber) -> Self {
        Self { reader: LogReader::new(LogKind::Manifest), model: ManifestModel::new(number), fits: true, done: false }
    }

    /// The file offset at which the bytes of the next call must begin.
    pub const fn offset(&self) -> u64 {
        self.reader.offset()
    }

    /// The state after what has been read.
    pub fn state(&self) -> ManifestState {
        ManifestState::new(&self.model)
    }

    /// What comes next; as [`WalDescriber::next`](super::WalDescriber::next).
    pub fn next(&mut self, bytes: &[u8], finality: Finality) -> Option<ManifestLine> {
        if self.done {
            return None;
        }
        match self.reader.read(bytes, finality) {
            Read::Record { start, end, payload } => {
                let mut line = EditLine::new(start, end, &payload);
                if self.fits {
                    match self.model.apply(&payload, end) {
                        Ok(changes) => line.changes = changes,
                        Err(e) => {
                            self.fits = false;
                            line.error = Some(e.to_string());
                        }
                    }
                }
                Some(ManifestLine::Edit(Box::new(line)))
            }
            Read::Metadata { start, end, metadata } => {
                let error = Some(format!("a record about the log itself, which has no place here: {metadata:?}"));
                Some(ManifestLine::Edit(Box::new(EditLine { offset: start, end, error, ..EditLine::default() })))
            }
            Read::End { .. } | Read::Incomplete { .. } if finality == Finality::Growing => None,
            ref ending => {
                self.done = true;
                Ending::of(ending).map(ManifestLine::Ending)
            }
        }
    }
}
