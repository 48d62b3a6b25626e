//! Applying MANIFEST records to the model.

use std::collections::{BTreeMap, BTreeSet};

use super::{BlobFile, Change, ColumnFamily, FileChecksum, FileMove, ManifestModel, Name, SstFile};
use crate::{
    ids::{ColumnFamilyId, FileNumber, SequenceNumber},
    rocks::version_edit::{DeletedFile, NewFile, VersionEdit, VersionEditError, new_files},
};

/// A MANIFEST record that cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the MANIFEST record that ends at offset {end}: {problem}")]
pub struct ManifestError {
    /// End offset of the record.
    pub end: u64,
    /// What is wrong.
    pub problem: ManifestProblem,
}

/// What can be wrong with a MANIFEST record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestProblem {
    /// It cannot be decoded.
    #[error(transparent)]
    Edit(#[from] VersionEditError),
    /// The count of remaining edits does not go down to 0, or another edit stands inside the group.
    #[error("an atomic group is broken")]
    AtomicGroup,
    /// A column family that was never added, or has been dropped.
    #[error("column family {0} does not exist")]
    UnknownColumnFamily(ColumnFamilyId),
    /// A column family is added under an id that is in use.
    #[error("column family {0} is added twice")]
    ColumnFamilyTwice(ColumnFamilyId),
    /// The default column family cannot be dropped.
    #[error("the default column family is dropped")]
    DefaultDropped,
    /// A file leaves a level in which it is not.
    #[error("file {number} leaves level {level}, where it is not")]
    FileNotThere {
        /// The file.
        number: FileNumber,
        /// The level.
        level: u32,
    },
    /// A file joins that is there already.
    #[error("file {0} joins twice")]
    FileTwice(FileNumber),
    /// A blob file joins that is there already.
    #[error("blob file {0} joins twice")]
    BlobTwice(FileNumber),
}

impl ManifestError {
    /// Whether the record may be in order and it is this reader that does not know it.
    pub const fn is_unsupported(&self) -> bool {
        matches!(&self.problem, ManifestProblem::Edit(e) if e.is_unsupported())
    }
}

impl ManifestModel {
    /// Applies one logical record that ends at file offset `end`.
    ///
    /// Returns what changed; nothing for a record inside an atomic group until the group is complete. After an error the
    /// model is as it was before the record (or, at the end of a group, before the group).
    pub fn apply(&mut self, payload: &[u8], end: u64) -> Result<Vec<Change>, ManifestError> {
        let fail = |problem| ManifestError { end, problem };
        let edit = VersionEdit::decode_without_new_files(payload).map_err(|e| fail(e.into()))?;
        match edit.in_atomic_group {
            None if self.pending.is_empty() => self.apply_all(&[(payload, edit)], end),
            None => Err(fail(ManifestProblem::AtomicGroup)),
            Some(remaining) => self.group(payload, edit, remaining, end),
        }
    }

    /// Whether a record, applied now, would change the content by something that no WAL record tells: the judgement of
    /// [`Change::is_outside_wal`] without applying anything. A member of an atomic group is judged by itself.
    ///
    /// # Errors
    /// The record cannot be decoded.
    pub fn would_change_outside_wal(&self, payload: &[u8]) -> Result<bool, VersionEditError> {
        let edit = VersionEdit::decode_without_new_files(payload)?;
        if edit.column_family_add.is_some() || edit.column_family_drop {
            return Ok(false);
        }
        let family = self.families.get(&edit.column_family);
        let file = |deleted: &DeletedFile| Some((deleted.number, family?.files.get(&deleted.number)?.clone()));
        let removed = edit.deleted_files.iter().filter_map(file).collect();
        Ok(classify(payload, &edit, &removed).iter().any(Change::is_outside_wal))
    }

    fn group(
        &mut self,
        payload: &[u8],
        edit: VersionEdit<'_>,
        remaining: u32,
        end: u64,
    ) -> Result<Vec<Change>, ManifestError> {
        let broken = || ManifestError { end, problem: ManifestProblem::AtomicGroup };
        // The record before said how many were to follow it.
        if let Some(previous) = self.pending.last() {
            let previous = VersionEdit::decode_without_new_files(previous).ok().and_then(|edit| edit.in_atomic_group);
            if previous.and_then(|n| n.checked_sub(1)) != Some(remaining) {
                return Err(broken());
            }
        }
        if remaining > 0 {
            self.pending.push(payload.into());
            return Ok(Vec::new());
        }
        let pending = std::mem::take(&mut self.pending);
        let decoded: Result<Vec<_>, _> =
            pending.iter().map(|p| VersionEdit::decode_without_new_files(p).map(|edit| (&**p, edit))).collect();
        let mut edits = decoded.map_err(|e| ManifestError { end, problem: e.into() })?;
        edits.push((payload, edit));
        let result = self.apply_all(&edits, end);
        drop(edits);
        if result.is_err() {
            self.pending = pending;
        }
        result
    }

    /// All or nothing: every edit is checked against the state that the ones before it leave before anything changes.
    fn apply_all(&mut self, edits: &[(&[u8], VersionEdit<'_>)], end: u64) -> Result<Vec<Change>, ManifestError> {
        Check::default().all(self, edits).map_err(|problem| ManifestError { end, problem })?;
        let mut changes = Vec::new();
        for (payload, edit) in edits {
            self.apply_checked(payload, edit, &mut changes);
        }
        self.applied_to = end;
        Ok(changes)
    }

    fn apply_checked(&mut self, payload: &[u8], edit: &VersionEdit<'_>, changes: &mut Vec<Change>) {
        self.database_fields(edit, changes);
        let id = edit.column_family;
        if let Some(name) = edit.column_family_add {
            let mut family = ColumnFamily::new(Name::new(name));
            family.comparator = edit.comparator.map(Name::new);
            family.log_number = edit.log_number.unwrap_or_default();
            family.persist_user_defined_timestamps = edit.persist_user_defined_timestamps.unwrap_or(true);
            self.sum.add_family(id, &family);
            self.max_column_family = self.max_column_family.max(id);
            changes.push(Change::ColumnFamilyAdded {
                id,
                name: family.name.clone(),
                comparator: family.comparator.clone(),
                log_number: family.log_number,
                edit: payload.to_vec(),
            });
            self.families.insert(id, family);
        } else if edit.column_family_drop {
            if let Some(family) = self.families.remove(&id) {
                self.sum.remove_family(id, &family);
                family.files.iter().for_each(|(number, file)| self.sum.remove_file(id, *number, file));
                changes.push(Change::ColumnFamilyDropped { id, name: family.name, edit: payload.to_vec() });
            }
        } else {
            self.family_fields(edit);
            if let Some(change) = self.files(payload, edit) {
                changes.extend(change);
            }
        }
        // Last: it speaks of what its own edit did, too.
        if let Some(number) = edit.effective_min_log_number_to_keep().filter(|n| *n > self.min_log_number_to_keep) {
            self.min_log_number_to_keep = number;
            changes.push(Change::MinLogNumberToKeep { number });
        }
    }

    fn database_fields(&mut self, edit: &VersionEdit<'_>, changes: &mut Vec<Change>) {
        if let Some(id) = edit.db_id.map(Name::new).filter(|id| self.db_id.as_ref() != Some(id)) {
            changes.push(Change::DbId { id: id.clone() });
            self.db_id = Some(id);
        }
        if let Some(sequence) = edit.last_sequence.filter(|sequence| *sequence != self.last_sequence) {
            self.last_sequence = sequence;
            changes.push(Change::LastSequence { sequence });
        }
        self.next_file_number = edit.next_file_number.or(self.next_file_number);
        if let Some(id) = edit.max_column_family {
            self.max_column_family = self.max_column_family.max(id);
        }
        for wal in &edit.wal_additions {
            self.tracked_wals.insert(wal.number, wal.synced_size);
        }
        if let Some(below) = edit.wal_deletion {
            self.tracked_wals = self.tracked_wals.split_off(&below);
        }
    }

    fn family_fields(&mut self, edit: &VersionEdit<'_>) {
        let id = edit.column_family;
        let Some(family) = self.families.get_mut(&id) else { return };
        if let Some(comparator) = edit.comparator {
            self.sum.remove_family(id, family);
            family.comparator = Some(Name::new(comparator));
            self.sum.add_family(id, family);
        }
        if let Some(persist) = edit.persist_user_defined_timestamps {
            family.persist_user_defined_timestamps = persist;
        }
        if let Some(number) = edit.log_number {
            family.log_number = family.log_number.max(number);
        }
    }

    /// Blob files, then deletions, then additions.
    fn files(&mut self, payload: &[u8], edit: &VersionEdit<'_>) -> Option<Vec<Change>> {
        let id = edit.column_family;
        let family = self.families.get_mut(&id)?;
        for blob in &edit.blob_file_additions {
            let file = BlobFile {
                total_count: blob.total_blob_count,
                total_bytes: blob.total_blob_bytes,
                garbage_count: 0,
                garbage_bytes: 0,
                checksum_method: Name::new(blob.checksum_method),
                checksum_value: blob.checksum_value.into(),
                linked_ssts: 0,
            };
            family.blobs.insert(blob.number, file);
        }
        for garbage in &edit.blob_file_garbages {
            // Garbage in a file that is obsolete already changes nothing.
            if let Some(blob) = family.blobs.get_mut(&garbage.number) {
                blob.garbage_count = blob.garbage_count.saturating_add(garbage.garbage_blob_count);
                blob.garbage_bytes = blob.garbage_bytes.saturating_add(garbage.garbage_blob_bytes);
            }
        }
        let mut removed = BTreeMap::new();
        for deleted in &edit.deleted_files {
            if let Some(file) = family.files.remove(&deleted.number) {
                self.sum.remove_file(id, deleted.number, &file);
                link(&mut family.blobs, &file, false);
                removed.insert(deleted.number, file);
            }
        }
        for new in new_files(payload) {
            let file = sst(&new);
            self.sum.add_file(id, new.number, &file);
            link(&mut family.blobs, &file, true);
            family.files.insert(new.number, file);
        }
        if !(edit.blob_file_additions.is_empty() && edit.blob_file_garbages.is_empty() && removed.is_empty()) {
            family.drop_obsolete_blobs();
        }
        Some(classify(payload, edit, &removed))
    }
}

fn link(blobs: &mut BTreeMap<FileNumber, BlobFile>, file: &SstFile, linked: bool) {
    if let Some(blob) = file.oldest_blob_file.and_then(|number| blobs.get_mut(&number)) {
        blob.linked_ssts = if linked { blob.linked_ssts.saturating_add(1) } else { blob.linked_ssts.saturating_sub(1) };
    }
}

fn sst(new: &NewFile<'_>) -> SstFile {
    SstFile {
        size: new.file_size,
        smallest_seqno: new.smallest_seqno,
        largest_seqno: new.largest_seqno,
        unique_id: new.unique_id,
        oldest_blob_file: new.oldest_blob_file_number.filter(|number| number.get() != 0),
        epoch_number: new.epoch_number,
        checksum: new.file_checksum.map(|value| {
            let function = Name::new(new.file_checksum_func_name.unwrap_or_default());
            Box::new(FileChecksum { function, value: value.into() })
        }),
        level: new.level,
        path_id: new.path_id,
    }
}

/// What an edit's file changes mean.
fn classify(payload: &[u8], edit: &VersionEdit<'_>, removed: &BTreeMap<FileNumber, SstFile>) -> Vec<Change> {
    let cf = edit.column_family;
    let mut changes = Vec::new();
    let mut moves = BTreeMap::new();
    let mut outputs = Vec::new();
    // Whether an output holds something that nothing that leaves has held.
    let mut newer = false;
    let stays = || new_files(payload).map(|new| new.number).collect::<BTreeSet<_>>();
    let again = if removed.is_empty() { BTreeSet::new() } else { stays() };
    let replaced = Newest::of(removed.iter().filter(|(number, _)| !again.contains(number)).map(|(_, file)| file));
    for new in new_files(payload) {
        match removed.get(&new.number) {
            Some(old) => {
                moves.insert(new.number, FileMove { number: new.number, from: old.level, to: new.level });
            }
            None => {
                newer |= replaced.is_older_than(&new);
                outputs.push(new.number);
            }
        }
    }
    let inputs: Vec<DeletedFile> =
        edit.deleted_files.iter().filter(|d| !moves.contains_key(&d.number)).copied().collect();
    match (edit.log_number, inputs.is_empty(), outputs.is_empty()) {
        (Some(log_number), true, _) => {
            changes.push(Change::Flush { cf, files: outputs, log_number, edit: payload.to_vec() });
        }
        (None, true, true) => {}
        (None, true, false) => changes.push(Change::FilesIngested { cf, files: outputs, edit: payload.to_vec() }),
        (_, false, true) => {
            let level_zero = inputs.iter().any(|file| file.level == 0);
            changes.push(Change::FilesDropped { cf, files: inputs, level_zero });
        }
        (log_number, false, false) => {
            if log_number.is_some() || newer {
                changes.push(Change::FilesReplaced { cf, removed: inputs, added: outputs });
            } else {
                changes.push(Change::Compaction { cf, inputs, outputs });
            }
        }
    }
    if !moves.is_empty() {
        changes.push(Change::FilesMoved { cf, moves: moves.into_values().collect() });
    }
    changes
}

/// The newest data among the files that an edit takes away.
///
/// A compaction's output holds no sequence number above those of its inputs, and its epoch number is the smallest of
/// theirs; an ingested file gets a new one.
struct Newest {
    seqno: Option<SequenceNumber>,
    /// `None` where a file has none.
    epoch: Option<u64>,
}

impl Newest {
    fn of<'f>(files: impl Iterator<Item = &'f SstFile> + Clone) -> Self {
        let epochs: Option<Vec<u64>> = files.clone().map(|file| file.epoch_number).collect();
        Self { seqno: files.map(|file| file.largest_seqno).max(), epoch: epochs.and_then(|e| e.into_iter().max()) }
    }

    fn is_older_than(&self, new: &NewFile<'_>) -> bool {
        let by_epoch = matches!((new.epoch_number, self.epoch), (Some(new), Some(old)) if new > old);
        by_epoch || self.seqno.is_some_and(|newest| new.largest_seqno > newest)
    }
}

/// Whether a sequence of edits fits the model, without changing it.
#[derive(Default)]
struct Check {
    /// Column families that exist (or not) after the edits checked so far, where they differ from the model.
    families: BTreeMap<ColumnFamilyId, bool>,
    /// Column families that these edits have begun: what the model has under their ids is another one's.
    begun: BTreeSet<ColumnFamilyId>,
    /// Level of files, where it differs from the model.
    files: BTreeMap<(ColumnFamilyId, FileNumber), Option<u32>>,
    /// Blob files that have joined.
    blobs: BTreeSet<(ColumnFamilyId, FileNumber)>,
}

impl Check {
    fn all(mut self, model: &ManifestModel, edits: &[(&[u8], VersionEdit<'_>)]) -> Result<(), ManifestProblem> {
        edits.iter().try_for_each(|(payload, edit)| self.one(model, payload, edit))
    }

    fn one(&mut self, model: &ManifestModel, payload: &[u8], edit: &VersionEdit<'_>) -> Result<(), ManifestProblem> {
        let id = edit.column_family;
        let exists = self.families.get(&id).copied().unwrap_or_else(|| model.families.contains_key(&id));
        if edit.column_family_add.is_some() {
            if exists {
                return Err(ManifestProblem::ColumnFamilyTwice(id));
            }
            self.families.insert(id, true);
            self.begun.insert(id);
            self.files.retain(|(family, _), _| *family != id);
            self.blobs.retain(|(family, _)| *family != id);
            return Ok(());
        }
        if !exists {
            return Err(ManifestProblem::UnknownColumnFamily(id));
        }
        if edit.column_family_drop {
            if id == ColumnFamilyId::DEFAULT {
                return Err(ManifestProblem::DefaultDropped);
            }
            self.families.insert(id, false);
            return Ok(());
        }
        let family = model.families.get(&id).filter(|_| !self.begun.contains(&id));
        for blob in &edit.blob_file_additions {
            let there = family.is_some_and(|family| family.blobs.contains_key(&blob.number));
            if there || !self.blobs.insert((id, blob.number)) {
                return Err(ManifestProblem::BlobTwice(blob.number));
            }
        }
        let in_model = |number: &FileNumber| family.and_then(|f| f.files.get(number)).map(|file| file.level);
        for deleted in &edit.deleted_files {
            let entry = self.files.entry((id, deleted.number)).or_insert_with(|| in_model(&deleted.number));
            if *entry != Some(deleted.level) {
                return Err(ManifestProblem::FileNotThere { number: deleted.number, level: deleted.level });
            }
            *entry = None;
        }
        for new in new_files(payload) {
            let entry = self.files.entry((id, new.number)).or_insert_with(|| in_model(&new.number));
            if entry.is_some() {
                return Err(ManifestProblem::FileTwice(new.number));
            }
            *entry = Some(new.level);
        }
        Ok(())
    }
}
