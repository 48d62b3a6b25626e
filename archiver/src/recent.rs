//! The last records of the stream: which of them a server takes back.
//!
//! Owns: the rule of a failed WAL write. The bytes of a write that RocksDB could not make durable can be complete in its
//! WAL, and are archived; the server tells its client that the write failed. Then either it cuts them off when it closes
//! that WAL, or it leaves them and gives their numbers out again in the next one. Such records never were.
//! Refuses: to guess beyond what it remembers; the barrier at the same place stands in any case.

use std::collections::VecDeque;

use pitr_archive::ids::{Boundary, FileNumber, SequenceNumber};
use serde::{Deserialize, Serialize};

/// One group of writers is one record, and the first that fails stops the others: more than a few cannot fail together.
const REMEMBERED: usize = 16;

/// A record of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    wal: FileNumber,
    /// Offset after it.
    offset: u64,
    /// The boundary before it.
    before: Boundary,
    /// Its last sequence number, if it consumed any.
    last: Option<SequenceNumber>,
}

/// The last records, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent(VecDeque<Noted>);

impl Recent {
    /// A record that ends at `offset` of `wal`; `last` is its last sequence number, if it consumed any.
    pub fn note(&mut self, wal: FileNumber, offset: u64, before: Boundary, last: Option<SequenceNumber>) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Noted { wal, offset, before, last });
    }

    /// A record in `wal` begins with the number `sequence`: the boundary before the first record that thereby was taken
    /// back. All of them are in the WAL before.
    pub fn taken_back(&self, wal: FileNumber, sequence: SequenceNumber) -> Option<Boundary> {
        let last = self.0.back()?.wal;
        if last == wal {
            return None;
        }
        let same_wal = self.0.iter().rev().take_while(|record| record.wal == last);
        let void: Vec<_> = same_wal.take_while(|record| record.last.is_none_or(|number| number >= sequence)).collect();
        self.first_of(&void)?;
        void.iter().rfind(|record| record.last.is_some()).map(|record| record.before)
    }

    /// `wal` ends at `offset` now: the boundary before the first record that is no longer in it.
    pub fn cut_off(&self, wal: FileNumber, offset: u64) -> Option<Boundary> {
        let beyond = self.0.iter().rev().take_while(|record| record.wal == wal && record.offset > offset);
        self.first_of(&beyond.collect::<Vec<_>>())
    }

    /// The boundary before the oldest of these, which are the newest; `None` where there may be more than is remembered.
    fn first_of(&self, newest: &[&Noted]) -> Option<Boundary> {
        newest.last().filter(|_| newest.len() < REMEMBERED).map(|record| record.before)
    }

    /// A new run begins.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEVEN: FileNumber = FileNumber::new(7);

    /// Forty records of two numbers and ten bytes each.
    fn forty() -> Recent {
        let mut recent = Recent::default();
        for n in 0..40 {
            recent.note(SEVEN, 10 * (n + 1), Boundary::new(n), Some(SequenceNumber::new(2 * n + 1)));
        }
        recent
    }

    #[test]
    fn what_reached_the_number_again_in_the_wal_before_was_taken_back() {
        let again = |recent: &Recent, n| recent.taken_back(FileNumber::new(9), SequenceNumber::new(n));
        assert_eq!(again(&Recent::default(), 1), None);
        let mut recent = forty();
        assert_eq!(again(&recent, 79), Some(Boundary::new(39)));
        assert_eq!(again(&recent, 78), Some(Boundary::new(39)), "a record is taken back whole");
        assert_eq!(again(&recent, 76), Some(Boundary::new(38)));
        assert_eq!(again(&recent, 80), None);
        assert_eq!(recent.taken_back(SEVEN, SequenceNumber::new(79)), None, "within one WAL it is something else");
        recent.note(SEVEN, 410, Boundary::new(40), None);
        assert_eq!(again(&recent, 79), Some(Boundary::new(39)), "what consumes nothing follows it");
        assert_eq!(again(&recent, 80), None, "and is not taken back alone");
    }

    #[test]
    fn what_lies_behind_a_cut_is_gone() {
        let recent = forty();
        assert_eq!(recent.cut_off(SEVEN, 400), None);
        assert_eq!(recent.cut_off(SEVEN, 399), Some(Boundary::new(39)));
        assert_eq!(recent.cut_off(SEVEN, 380), Some(Boundary::new(38)));
        assert_eq!(recent.cut_off(FileNumber::new(6), 0), None);
        assert_eq!(recent.cut_off(SEVEN, 100), None, "more than is remembered may be gone");
    }
}
