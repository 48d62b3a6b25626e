//! What shipping the files of flushes would cost, from what a MANIFEST tells of the flushes so far.
//!
//! Owns: telling a flush from the opening snapshot and from compactions, and the words for people.
//! Refuses: to guess where the MANIFEST is too young to tell a rate.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pitr_archive::rocks::describe::EditLine;

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
        // The snapshot that opens a MANIFEST lists files without saying what the last sequence number was then.
        let by_flush = edit.log_number.is_some()
            && edit.last_sequence.is_some()
            && edit.deleted_files.is_empty()
            && edit.added_files.iter().all(|file| file.level == 0);
        if !by_flush {
            return;
        }
        for file in &edit.added_files {
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
            "the MANIFEST names no flush yet, so what it would cost cannot be said".to_owned()
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
                "with --ship-flushes restores replay only the log behind the last flush, and the archive grows by what flushes write, before compression of the log's segments: {said}"
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
        rocks::version_edit::{DeletedFile, InternalKey, NewFile, VersionEdit},
    };

    use super::*;

    fn edit(level: u32, bytes: u64, at: u64) -> VersionEdit<'static> {
        let key = InternalKey::new(b"key\x01\x05\0\0\0\0\0\0").unwrap();
        let one = SequenceNumber::new(1);
        let mut file = NewFile::new(level, FileNumber::new(7), bytes, key, key, one, one);
        file.file_creation_time = Some(at);
        VersionEdit {
            log_number: Some(FileNumber::new(3)),
            last_sequence: Some(one),
            new_files: vec![file],
            ..VersionEdit::default()
        }
    }

    fn learnt(edits: &[VersionEdit<'_>]) -> Flushes {
        let mut flushes = Flushes::default();
        edits.iter().for_each(|edit| flushes.learn(&EditLine::new(0, 9, &edit.encode())));
        flushes
    }

    #[test]
    fn flushes_are_told_from_snapshots_and_compactions_and_give_a_rate_where_they_last_long_enough() {
        let snapshot = VersionEdit { last_sequence: None, ..edit(0, 1 << 40, 50) };
        let gone = DeletedFile { level: 0, number: FileNumber::new(6) };
        let compaction = VersionEdit { deleted_files: vec![gone], ..edit(1, 1 << 40, 60) };
        let deeper = edit(1, 1 << 40, 60);
        assert_eq!(learnt(&[snapshot.clone(), compaction, deeper]), Flushes::default());
        let some = learnt(&[snapshot, edit(0, 500, 1000), edit(0, 1000, 1500), edit(0, 2000, 1864)]);
        assert_eq!((some.files, some.bytes), (3, 3500));
        // Three thousand bytes in 864 s.
        assert_eq!(some.a_day().map(|(since, bytes)| (since.timestamp(), bytes)), Some((1000, 300_000)));
        assert_eq!(learnt(&[edit(0, 500, 1000), edit(0, 500, 1059)]).a_day(), None, "too short");
        assert_eq!(learnt(&[edit(0, 500, 0), edit(0, 500, 0)]).a_day(), None, "nobody says when");
        assert_eq!(learnt(&[edit(0, 500, 1000)]).a_day(), None, "one alone");
    }
}
