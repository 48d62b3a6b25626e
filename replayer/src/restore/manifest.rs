//! The restored database's MANIFEST: the base's prefix, and what must be appended to it.
//!
//! Owns: appending column family edits and flushes as the source wrote them but for their sequence number, and the last
//! sequence number itself. Rules: RocksDB takes the *last* LastSequence of a MANIFEST, so every appended edit carries the running
//! maximum, and recovery reports the larger of that and the end of the last record. Where that is less than the
//! database had, one more edit raises it; where it would be more, the restore is refused. A MANIFEST that tracks the
//! synced sizes of WALs is told that they are gone: the restored ones have other sizes.
//! Pure: bytes in, bytes out.

use pitr_archive::{
    Code, Error, Result,
    ids::{FileNumber, SequenceNumber},
    rocks::{
        log_reader::{Finality, LogKind, LogReader, Read},
        log_writer::LogWriter,
        manifest::ManifestModel,
        version_edit::VersionEdit,
    },
};

use crate::plan::{ColumnFamilyEdit, edit, flushed::PlannedFlush};

/// A complete MANIFEST and what it amounts to.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub bytes: Vec<u8>,
    pub model: ManifestModel,
}

impl Manifest {
    /// Reads a MANIFEST to its end, which must be a record's and no atomic group's inside.
    pub fn read(number: FileNumber, bytes: Vec<u8>) -> Result<Self> {
        let damaged = || Error::new(Code::ManifestCorrupt, "reading the MANIFEST").on(number);
        let mut model = ManifestModel::new(number);
        let mut reader = LogReader::new(LogKind::Manifest);
        for answer in reader.read_all(&bytes, Finality::Final) {
            match answer {
                Read::Record { payload, end, .. } => {
                    model.apply(&payload, end).map_err(|e| damaged().because(e))?;
                }
                Read::End { void_bytes: 0, .. } => {}
                Read::Metadata { start, .. } => return Err(damaged().with("metadata at", start)),
                Read::End { at, void_bytes, .. } => {
                    return Err(damaged().with("at", at).with("bytes after it", void_bytes));
                }
                Read::Incomplete { at, .. } => return Err(damaged().with("incomplete record at", at)),
                Read::Corrupt { at, reason } => return Err(damaged().with("at", at).because(reason)),
            }
        }
        if model.in_atomic_group() {
            return Err(damaged().with("ends inside", "an atomic group"));
        }
        Ok(Self { bytes, model })
    }

    /// Appends an edit and applies it.
    pub fn append(&mut self, edit: &VersionEdit<'_>) -> Result<()> {
        let end = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        let mut writer = LogWriter::new(end);
        let payload = edit.encode();
        writer.append(&payload, &mut self.bytes);
        self.model.apply(&payload, writer.offset()).map(drop).map_err(|e| {
            Error::new(Code::ManifestCorrupt, "appending to the MANIFEST").on(self.model.file()).because(e)
        })
    }

    /// Appends column family edits of the plan. `shift` is what the restored WALs' numbers are above the source's.
    pub fn append_families(&mut self, edits: &[ColumnFamilyEdit], shift: u64) -> Result<()> {
        for planned in edits {
            let malformed = || {
                Error::new(Code::SegmentDamaged, "reading the edit of column family")
                    .on(&planned.name)
                    .with("MANIFEST", planned.manifest.file)
                    .with("offset", planned.manifest.offset)
            };
            let payload = edit::payload(&planned.edit).ok_or_else(malformed)?;
            let mut edit = VersionEdit::decode(&payload).map_err(|e| malformed().because(e))?;
            let touches_files = !edit.new_files.is_empty() || !edit.deleted_files.is_empty();
            if edit.column_family != planned.id || edit.in_atomic_group.is_some() || touches_files {
                return Err(malformed().with("it is", "not only a column family edit"));
            }
            edit.last_sequence = Some(self.model.last_sequence().max(edit.last_sequence.unwrap_or_default()));
            let moved = |log: FileNumber| FileNumber::new(log.get().saturating_add(shift));
            edit.log_number = edit.log_number.map(moved);
            // Numbers given to files since may be smaller in an older edit.
            edit.next_file_number = edit.next_file_number.max(self.model.next_file_number());
            self.append(&edit)?;
        }
        Ok(())
    }

    /// Appends a flush of the plan. It can have been written after the target, and then names a later sequence number: what
    /// counts is the largest one in its files.
    pub fn append_flush(&mut self, flush: &PlannedFlush) -> Result<()> {
        let malformed = || {
            Error::new(Code::SegmentDamaged, "reading the edit of a flush")
                .with("MANIFEST", flush.manifest.file)
                .with("offset", flush.manifest.offset)
        };
        let payload = edit::payload(&flush.edit).ok_or_else(malformed)?;
        let mut edit = VersionEdit::decode(&payload).map_err(|e| malformed().because(e))?;
        let takes_away = !edit.deleted_files.is_empty() || edit.column_family_add.is_some() || edit.column_family_drop;
        if edit.column_family != flush.column_family || edit.in_atomic_group.is_some() || takes_away {
            return Err(malformed().with("it is", "not only a flush"));
        }
        edit.last_sequence = Some(self.model.last_sequence().max(flush.largest_sequence));
        edit.next_file_number = edit.next_file_number.max(self.model.next_file_number());
        // The restored logs have other sizes than those that were tracked.
        (edit.wal_additions, edit.wal_deletion) = (Default::default(), None);
        self.append(&edit)
    }

    /// Forgets the tracked sizes of WALs.
    pub fn forget_tracked_wals(&mut self) -> Result<()> {
        let Some((newest, _)) = self.model.tracked_wals().last_key_value() else { return Ok(()) };
        let after = newest.next().ok_or_else(|| {
            Error::new(Code::ManifestCorrupt, "reading the tracked WALs of the MANIFEST").on(self.model.file())
        })?;
        self.append(&VersionEdit { wal_deletion: Some(after), ..VersionEdit::default() })
    }

    /// Says that no WAL below `first` is needed, where the MANIFEST says nothing about that. With two-phase commit RocksDB goes by
    /// this number, and before 7.5 it names it at its first flush only; until then nobody could tell whether a log of the copy
    /// is missing. Only for databases with two-phase commit: others of that age would never raise it again.
    pub fn name_first_wal(&mut self, first: FileNumber) -> Result<()> {
        if self.model.min_log_number_to_keep() > FileNumber::default() {
            return Ok(());
        }
        self.append(&VersionEdit { min_log_number_to_keep: Some(first), ..VersionEdit::default() })
    }

    /// Makes recovery report exactly `expected`; `replayed` is the end of the last record in the log, if there is one.
    pub fn settle_sequence(
        &mut self,
        expected: SequenceNumber,
        replayed: Option<SequenceNumber>,
        newest_file: SequenceNumber,
    ) -> Result<()> {
        let most = self.model.last_sequence().max(replayed.unwrap_or_default()).max(newest_file);
        if most > expected {
            return Err(Error::new(Code::SequenceMismatch, "settling the restored database's sequence number")
                .with("the database had", expected)
                .with("recovery would report", most)
                .hint("restore to a neighbouring position; pitr plan shows them"));
        }
        // RocksDB opens no database whose MANIFEST names none. Snapshots of 6.17 do not, and a base of an open can end there.
        if self.model.next_file_number().is_none() {
            let families = self.model.column_families().values().map(|family| family.log_number);
            let tables = self.model.live_files().map(|(_, number, _)| number);
            let blobs = self.model.live_blob_files().map(|(_, number, _)| number);
            let highest = families.chain(tables).chain(blobs).max().unwrap_or_default();
            let highest = highest.max(self.model.file()).max(self.model.min_log_number_to_keep());
            let next = highest.next().ok_or_else(|| Error::new(Code::ManifestCorrupt, "numbering the copy's files"))?;
            let next =
                VersionEdit { next_file_number: Some(next), last_sequence: Some(expected), ..VersionEdit::default() };
            self.append(&next)?;
        }
        // Also where records reach it: of a WAL that only a dropped column family needed, RocksDB reads none.
        if self.model.last_sequence() < expected {
            self.append(&VersionEdit { last_sequence: Some(expected), ..VersionEdit::default() })?;
        }
        Ok(())
    }
}

/// The first WAL whose records are for the column family that an edit adds. One that cannot be read is refused when it is
/// appended.
pub(crate) fn log_number(planned: &ColumnFamilyEdit) -> Option<FileNumber> {
    edit::look(&planned.edit, |edit| edit.log_number)
}

#[cfg(test)]
mod tests;
