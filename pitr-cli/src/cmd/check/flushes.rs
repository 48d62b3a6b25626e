//! What shipping the files of flushes would cost, from what a MANIFEST tells of the flushes so far.
//!
//! Owns: which of them would be shipped, at what rate they come, and the words for people.
//! Refuses: to guess where the MANIFEST is too young to tell a rate.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pitr_archive::rocks::{describe::EditLine, manifest::Change, version_edit::VersionEdit};

use super::Finding;
use crate::output::text;

/// A rate over less than this would be a guess.
const LONG_ENOUGH: Duration = Duration::from_secs(60);

/// The flushes that a MANIFEST names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushes {
    files: u64,
    bytes: u64,
    /// Bytes of those that are the first at their time: what was written before it is not known.
    first_bytes: u64,
    /// Seconds since 1970 at which the first and the last of their files were made.
    between: Option<(u64, u64)>,
}

impl Flushes {
    /// Learns what an edit says, in the MANIFEST's order.
    pub fn learn(&mut self, edit: &EditLine) {
        // The snapshot that opens a MANIFEST lists files, but gives none a number.
        if edit.next_file_number.is_some() {
            edit.changes.iter().for_each(|change| self.learn_change(change));
        }
    }

    fn learn_change(&mut self, change: &Change) {
        let Change::Flush { edit: payload, .. } = change else { return };
        // What cannot be decoded is told of where the MANIFEST itself is judged.
        let Ok(flush) = VersionEdit::decode(payload) else { return };
        if flush.lone_flush().is_err() {
            return;
        }
        for file in &flush.new_files {
            self.files += 1;
            self.bytes = self.bytes.saturating_add(file.file_size);
            // Versions before 6.x do not say when, and say 0.
            let Some(at) = file.file_creation_time.filter(|at| *at > 0) else { continue };
            match &mut self.between {
                None => (self.first_bytes, self.between) = (file.file_size, Some((at, at))),
                Some((_, last)) => *last = at.max(*last),
            }
        }
    }

    /// What people are told. `unused` says why no restore would use them.
    pub fn finding(&self, unused: Option<&str>) -> Finding {
        const ID: &str = "database.flushes";
        if let Some(why) = unused {
            return Finding::info(ID, format!("--ship-flushes would gain nothing here: {why}"));
        }
        let said = if self.files == 0 {
            "the MANIFEST names no flush yet that would be shipped, so what it would cost cannot be said".to_owned()
        } else {
            let named = format!(
                "the MANIFEST names {} with {}",
                text::count(self.files, "flushed file"),
                text::bytes(self.bytes)
            );
            match self.a_day() {
                Some((since, a_day)) => {
                    format!("{named} since {}: about {} a day", since.format("%Y-%m-%dT%H:%M:%SZ"), text::bytes(a_day))
                }
                None => format!("{named}, too few to say how many come in a day"),
            }
        };
        Finding::info(
            ID,
            format!(
                "with --ship-flushes restores replay only the log behind the last flush, and the archive grows by what flushes write: {said}"
            ),
        )
    }

    fn a_day(&self) -> Option<(DateTime<Utc>, u64)> {
        let (first, last) = self.between?;
        let span = last.saturating_sub(first);
        let since = DateTime::from_timestamp(i64::try_from(first).ok()?, 0)?;
        let bytes = u128::from(self.bytes.saturating_sub(self.first_bytes));
        let a_day = (bytes * 86_400).checked_div(u128::from(span))?;
        (span >= LONG_ENOUGH.as_secs()).then(|| (since, u64::try_from(a_day).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use pitr_archive::{
        ids::{FileNumber, SequenceNumber},
        rocks::{
            describe::{ManifestDescriber, ManifestLine},
            log_reader::Finality,
            log_writer::LogWriter,
            version_edit::{DeletedFile, InternalKey, NewFile},
        },
    };

    use super::*;

    fn edit(level: u32, bytes: u64, at: u64) -> VersionEdit<'static> {
        let key = InternalKey::new(b"key\x01\x05\0\0\0\0\0\0").unwrap();
        let one = SequenceNumber::new(1);
        let mut file = NewFile::new(level, FileNumber::new(0), bytes, key, key, one, one);
        file.file_creation_time = Some(at);
        VersionEdit {
            log_number: Some(FileNumber::new(3)),
            last_sequence: Some(one),
            next_file_number: Some(FileNumber::new(100)),
            new_files: vec![file],
            ..VersionEdit::default()
        }
    }

    /// What a MANIFEST of these edits tells, in which the first file has the number 1.
    fn learnt(edits: &[VersionEdit<'_>]) -> Flushes {
        let (mut writer, mut bytes) = (LogWriter::new(0), Vec::new());
        let mut number = 0;
        for edit in edits {
            let mut edit = edit.clone();
            for file in &mut edit.new_files {
                number += 1;
                file.number = FileNumber::new(number);
            }
            writer.append(&edit.encode(), &mut bytes);
        }
        let mut describer = ManifestDescriber::new(FileNumber::new(5));
        let mut flushes = Flushes::default();
        while let Some(line) =
            describer.next(bytes.get(describer.offset() as usize..).unwrap_or_default(), Finality::Final)
        {
            if let ManifestLine::Edit(edit) = line {
                assert_eq!(edit.error, None);
                flushes.learn(&edit);
            }
        }
        flushes
    }

    #[test]
    fn flushes_are_told_from_snapshots_and_compactions_and_give_a_rate_where_they_last_long_enough() {
        let snapshot = VersionEdit { next_file_number: None, ..edit(0, 1 << 40, 50) };
        let gone = DeletedFile { level: 0, number: FileNumber::new(1) };
        let compaction = VersionEdit { deleted_files: vec![gone], ..edit(1, 1 << 40, 60) };
        let ingested = VersionEdit { log_number: None, ..edit(1, 1 << 40, 60) };
        let of_a_group = VersionEdit { in_atomic_group: Some(0), ..edit(0, 1 << 40, 60) };
        assert_eq!(learnt(&[snapshot.clone(), compaction, ingested, of_a_group]), Flushes::default());
        let some = learnt(&[snapshot, edit(0, 500, 1000), edit(0, 1000, 1500), edit(0, 2000, 1864)]);
        assert_eq!((some.files, some.bytes), (3, 3500));
        // Three thousand bytes in 864 s.
        assert_eq!(some.a_day().map(|(since, bytes)| (since.timestamp(), bytes)), Some((1000, 300_000)));
        assert_eq!(learnt(&[edit(0, 500, 1000), edit(0, 500, 1059)]).a_day(), None, "too short");
        assert_eq!(learnt(&[edit(0, 500, 0), edit(0, 500, 0)]).a_day(), None, "nobody says when");
        assert_eq!(learnt(&[edit(0, 500, 1000)]).a_day(), None, "one alone");
    }
}
