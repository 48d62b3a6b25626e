//! Since when something has been written that is not read yet.
//!
//! Owns: the answer while the end of the log is not reached: where the store takes less than is written, or reading is slowed
//! down, what is read is young, however old the log behind it is. The end of the log is noted with the clock; once reading
//! has come that far, nothing that is older than that note is unread, and the present end is noted instead. The answer is
//! never later than the truth, and at most twice as long ago.
//! Pure: the archiver measures.

use pitr_archive::{clock::Micros, ids::FileNumber};

/// A place in the log.
type Place = (FileNumber, u64);

/// What is written and not read; nothing unless noted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unread(Option<Noted>);

#[derive(Clone, Copy, Debug)]
struct Noted {
    /// Everything that was written before is read.
    since: Micros,
    /// When the log ended at `end`.
    at: Micros,
    end: Place,
}

impl Unread {
    /// Everything unread was written later.
    pub(crate) fn since(&self) -> Option<Micros> {
        self.0.map(|noted| noted.since)
    }

    /// Whether the end of the log is to be noted, where reading has come to `read`.
    pub(crate) fn is_due(&self, read: Option<Place>) -> bool {
        self.0.is_none_or(|noted| read.is_some_and(|read| read >= noted.end))
    }

    /// The log ends here now; `observed` is when it was last read to its end.
    pub(crate) fn ends(&mut self, observed: Micros, now: Micros, end: Place) {
        let since = self.0.map_or(observed, |noted| noted.at);
        self.0 = Some(Noted { since, at: now, end });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Place {
        (FileNumber::new(7), offset)
    }

    #[test]
    fn what_is_unread_is_as_old_as_the_note_that_reading_has_passed() {
        let mut unread = Unread::default();
        assert!(unread.since().is_none() && unread.is_due(None));
        unread.ends(Micros(100), Micros(130), at(900));
        assert_eq!(unread.since(), Some(Micros(100)));
        assert!(!unread.is_due(None) && !unread.is_due(Some(at(899))));
        assert!(unread.is_due(Some(at(900))) && unread.is_due(Some((FileNumber::new(8), 0))));
        unread.ends(Micros(100), Micros(190), at(2_000));
        assert_eq!(unread.since(), Some(Micros(130)));
        assert!(!unread.is_due(Some(at(900))));
    }
}
