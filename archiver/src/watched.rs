//! What a watch on the database's WALs has shown, in a form that outlives the process.
//!
//! Owns: the claim, and what follows from it for a process that finds the pins of an earlier one. Without it an archiver that
//! starts behind several WALs that only pins hold could not tell that there was none between them.
//! Only believed within one boot of the machine: pins are links that nobody made durable, and so is the note.

use std::collections::BTreeSet;

use pitr_archive::ids::FileNumber;
use serde::{Deserialize, Serialize};

/// The version of [`Note`] that this program writes, and the only one that it reads.
const VERSION: u32 = 1;
/// So many WALs are noted of a watch; of more, the newest.
const MAX_WALS: usize = 2048;
/// So many watches are noted; of more, the newest.
const MAX_WATCHES: usize = 8;

/// Every WAL that was created behind `from` and is not above the last of `wals` is one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Nothing is claimed about WALs up to this one.
    pub from: FileNumber,
    /// Those that there were.
    pub wals: BTreeSet<FileNumber>,
}

impl Watched {
    /// A claim of the newest WALs only, if they are too many.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        while self.wals.len() > MAX_WALS {
            let Some(first) = self.wals.pop_first() else { break };
            self.from = self.from.max(first);
        }
        self
    }

    /// Whether it shows that every WAL between two, of which it saw the second, is among `known`.
    pub fn shows_all_between(&self, after: FileNumber, before: FileNumber, known: impl Fn(FileNumber) -> bool) -> bool {
        let between = || self.wals.range(after..before).filter(|wal| **wal != after);
        after < before && self.from <= after && self.wals.contains(&before) && between().all(|wal| known(*wal))
    }
}

/// What the state directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    version: u32,
    boot: String,
    watches: Vec<Watched>,
}

impl Note {
    /// Of watches, the newest last.
    pub fn new(boot: String, mut watches: Vec<Watched>) -> Self {
        watches.retain(|watched| !watched.wals.is_empty());
        watches.drain(..watches.len().saturating_sub(MAX_WATCHES));
        Self { version: VERSION, boot, watches }
    }

    /// The watches of this boot; none of another one, or of a note that cannot be read.
    pub fn read(bytes: &[u8], boot: &str) -> Vec<Watched> {
        match serde_json::from_slice::<Self>(bytes) {
            Ok(note) if note.version == VERSION && note.boot == boot => note.watches,
            Ok(_) | Err(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(from: u64, wals: &[u64]) -> Watched {
        Watched { from: FileNumber::new(from), wals: wals.iter().copied().map(FileNumber::new).collect() }
    }

    fn shows(watched: &Watched, after: u64, before: u64, known: &[u64]) -> bool {
        watched.shows_all_between(FileNumber::new(after), FileNumber::new(before), |wal| known.contains(&wal.get()))
    }

    #[test]
    fn only_what_was_watched_from_before_the_first_to_the_second_shows_anything() {
        let watch = watched(4, &[7, 9, 15]);
        assert!(shows(&watch, 4, 7, &[]) && shows(&watch, 9, 15, &[]));
        assert!(shows(&watch, 7, 15, &[9]), "the one between is known");
        assert!(!shows(&watch, 7, 15, &[]), "there was one between, and it is not known");
        assert!(!shows(&watch, 3, 7, &[]), "the watch began later");
        assert!(!shows(&watch, 15, 18, &[]) && !shows(&watch, 9, 12, &[]), "one that the watch did not see");
        assert!(!shows(&watch, 9, 9, &[]) && !shows(&watch, 9, u64::MAX, &[]));
    }

    #[test]
    fn a_long_watch_claims_only_what_it_names() {
        let many: Vec<u64> = (10..10 + MAX_WALS as u64 + 5).collect();
        let bounded = watched(4, &many).bounded();
        assert_eq!((bounded.from.get(), bounded.wals.len()), (14, MAX_WALS));
        assert!(!shows(&bounded, 13, 16, &[14, 15]) && shows(&bounded, 14, 15, &[]));
    }

    #[test]
    fn a_note_of_another_boot_or_version_or_a_torn_one_shows_nothing() {
        let note = Note::new("here".to_owned(), vec![watched(0, &[]), watched(4, &[7])]);
        let bytes = serde_json::to_vec(&note).unwrap();
        assert_eq!(Note::read(&bytes, "here"), [watched(4, &[7])]);
        assert_eq!(Note::read(&bytes, "there"), []);
        assert_eq!(Note::read(&bytes[..bytes.len() / 2], "here"), []);
        let other = serde_json::to_vec(&Note { version: 2, ..note }).unwrap();
        assert_eq!(Note::read(&other, "here"), []);
    }
}
