//! What the next record's sequence number must be, within one session of the server.
//!
//! Owns: the comparison of a record's number with the one that is due, and what explains a number that no record
//! consumed: ingested files, and the open of a WritePrepared database. How many a record consumes is told by
//! `rocks::transactions`. Sequence numbers order nothing across sessions: a session starts from what RocksDB recovered at
//! its open.
//! Refuses: to smooth anything over. A jump without an explanation, a number that comes again: each is a verdict of its
//! own, and the engine makes it a barrier.

use std::collections::BTreeSet;

use pitr_archive::ids::SequenceNumber;
use serde::{Deserialize, Serialize};

/// How a record's sequence number joins what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next number, or the numbers in between are explained.
    Continues,
    /// Numbers are missing and nothing explains them.
    Jumped {
        /// The number that was due.
        expected: SequenceNumber,
    },
    /// A number comes again inside a session.
    WentBack {
        /// The number that was due.
        expected: SequenceNumber,
    },
    /// The first record of a session uses numbers that records of an earlier session have.
    Reused {
        /// The end of the records before.
        highest: SequenceNumber,
        /// The number that was due, if nothing explains those from it on either.
        jumped: Option<SequenceNumber>,
    },
}

/// The model's state; stored in every segment so that an archiver that restarts goes on with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceModel {
    /// `LastSequence` after the last record; unknown until the first record of a run.
    last: Option<SequenceNumber>,
    /// The highest end of a record in this run, as far as one replay can reach back.
    highest: SequenceNumber,
    /// No record of the present session that consumes a number has been seen.
    fresh: bool,
    /// The next record is the first of a session.
    #[serde(default)]
    opened: bool,
    /// `last` is not known because of a record whose consumption is not.
    #[serde(default)]
    forgotten: bool,
    /// While `last` is not known: it is at most this, or what the first record shows.
    #[serde(default)]
    flushed: Option<SequenceNumber>,
    /// Numbers above `last` that files outside the log were given.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    explained: BTreeSet<u64>,
}

/// More explained numbers than this at once are not kept: an import can claim billions. The jump is then a barrier.
const MAX_EXPLAINED: usize = 4096;

impl SequenceModel {
    /// `LastSequence`, once it is known.
    pub fn last(&self) -> Option<SequenceNumber> {
        self.last
    }

    /// The last number that a record was given, or what the session began with, if that is lower. Files can have been given
    /// higher ones.
    pub fn last_of_records(&self) -> SequenceNumber {
        self.last.map_or(self.highest, |last| last.min(self.highest))
    }

    /// [`SequenceModel::last`], and the numbers directly behind it that files outside the log were given.
    pub fn last_with_files(&self) -> Option<SequenceNumber> {
        let mut last = self.last?;
        while let Some(next) = last.checked_add(1).filter(|next| self.explained.contains(&next.get())) {
            last = next;
        }
        Some(last)
    }

    /// The number that is due next, as far as one is known.
    pub fn due(&self) -> Option<SequenceNumber> {
        self.last.or(self.flushed)?.checked_add(1)
    }

    /// A run begins; with a session of the server, if `opened`. Where its first record begins is not known, but if it lies
    /// beyond what flushed files reach, there were writes in between.
    pub fn start_run(&mut self, flushed: SequenceNumber, opened: bool) {
        *self = Self { fresh: true, opened, flushed: Some(flushed), ..Self::default() };
    }

    /// A record was seen whose consumption is not known: the next one sets the number.
    pub fn forget_last(&mut self) {
        self.last = None;
        self.flushed = None;
        self.fresh = false;
        self.opened = false;
        self.forgotten = true;
    }

    /// Whether the number of the next record can be anything, because of [`SequenceModel::forget_last`].
    pub fn is_forgotten(&self) -> bool {
        self.forgotten
    }

    /// Whether a session that begins at `recovered` repeats the one before: that one was given no number, and nothing it
    /// began with is given out again. Whichever reused numbers, the earlier of the two did.
    pub fn only_reopened(&self, recovered: SequenceNumber) -> bool {
        self.fresh && self.last.is_some_and(|last| last <= recovered)
    }

    /// A session begins at `last`, which is what RocksDB recovered.
    pub fn start_session(&mut self, last: SequenceNumber) {
        self.last = Some(last);
        self.fresh = true;
        self.opened = true;
        self.forgotten = false;
        self.explained.clear();
    }

    /// Numbers that files outside the log were given.
    pub fn explain(&mut self, first: SequenceNumber, last: SequenceNumber) {
        let known = self.last.map_or(0, SequenceNumber::get);
        let first = first.get().max(known.saturating_add(1));
        let room = MAX_EXPLAINED.saturating_sub(self.explained.len());
        self.explained.extend((first..=last.get()).take(room));
    }

    /// Numbers above `LastSequence` that files outside the log were given.
    pub fn explained(&self) -> &BTreeSet<u64> {
        &self.explained
    }

    /// Everything readable has been read: explained numbers directly after the last record are part of `LastSequence`.
    pub fn settle(&mut self) {
        let known = if self.last.is_some() { &mut self.last } else { &mut self.flushed };
        while let Some(last) = *known {
            let Some(next) = last.checked_add(1) else { return };
            if !self.explained.remove(&next.get()) {
                break;
            }
            *known = Some(next);
        }
    }

    /// Whether flushed files that reach `flushed` show numbers that neither a record nor the open of the session was given.
    pub fn is_beyond(&self, flushed: SequenceNumber, by_open: u64) -> bool {
        // Before the first record of a run, what flushed files reached at its start is all that is known.
        self.last.or(self.flushed).is_some_and(|last| {
            let by_open = if self.opened && last.get() > 0 { by_open } else { 0 };
            flushed.get() > last.get().saturating_add(by_open)
        })
    }

    /// Flushed files reach `number`: where that is beyond every readable record, the open or writes outside the log were
    /// given it.
    pub fn accept(&mut self, number: SequenceNumber) {
        self.opened &= Some(number) <= self.last;
        let known = if self.last.is_some() { &mut self.last } else { &mut self.flushed };
        *known = (*known).max(Some(number));
        self.explained.retain(|n| *n > number.get());
    }

    /// Judges a record that starts at `sequence` and consumes `advance` numbers, and goes on behind it, whatever the
    /// verdict. In such a database an open of the server consumes `by_open` numbers, unless nothing was ever written.
    pub fn record(&mut self, sequence: SequenceNumber, advance: u64, by_open: u64) -> Verdict {
        let verdict = self.judge(sequence, advance, by_open);
        self.opened = false;
        // A record that consumes nothing carries the number that is due next.
        let end = SequenceNumber::new(sequence.get().saturating_add(advance).saturating_sub(1));
        self.last = Some(end);
        self.forgotten = false;
        // No replay crosses the barrier that such a verdict becomes: what was used before it may be used again.
        let anew = matches!(verdict, Verdict::Reused { .. } | Verdict::WentBack { .. });
        self.highest = if anew { end } else { self.highest.max(end) };
        self.fresh &= advance == 0;
        self.flushed = None;
        let known = end.get();
        self.explained.retain(|n| *n > known);
        verdict
    }

    fn judge(&self, sequence: SequenceNumber, advance: u64, by_open: u64) -> Verdict {
        let joins = self.joins(sequence, by_open);
        if self.fresh && advance > 0 && sequence <= self.highest {
            // A session that begins lower can also have begun with writes that are not in the log.
            let jumped = match joins {
                Verdict::Jumped { expected } => Some(expected),
                _ => None,
            };
            return Verdict::Reused { highest: self.highest, jumped };
        }
        joins
    }

    /// How the number follows the last one, whatever an earlier session used.
    fn joins(&self, sequence: SequenceNumber, by_open: u64) -> Verdict {
        let Some(last) = self.last.or(self.flushed.filter(|flushed| sequence > *flushed)) else {
            return Verdict::Continues;
        };
        let Some(expected) = last.checked_add(1) else { return Verdict::WentBack { expected: last } };
        match sequence.cmp(&expected) {
            std::cmp::Ordering::Equal => Verdict::Continues,
            std::cmp::Ordering::Less => Verdict::WentBack { expected },
            std::cmp::Ordering::Greater => {
                let between = expected.get()..sequence.get();
                let opened = self.opened && last.get() > 0 && sequence.get() - expected.get() == by_open;
                let explained = opened
                    || sequence.get() - expected.get() <= MAX_EXPLAINED as u64
                        && between.into_iter().all(|n| self.explained.contains(&n));
                if explained { Verdict::Continues } else { Verdict::Jumped { expected } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(raw: u64) -> SequenceNumber {
        SequenceNumber::new(raw)
    }

    #[test]
    fn records_in_a_row_continue_and_empty_ones_consume_nothing() {
        let mut model = SequenceModel::default();
        model.start_run(n(120), false);
        assert_eq!(model.record(n(101), 3, 0), Verdict::Continues, "the first record of a run sets the number");
        assert_eq!(model.record(n(104), 0, 0), Verdict::Continues);
        assert_eq!(model.last(), Some(n(103)));
        assert_eq!(model.record(n(104), 1, 0), Verdict::Continues);
    }

    #[test]
    fn a_run_whose_first_record_lies_beyond_the_flushed_files_has_jumped() {
        let mut model = SequenceModel::default();
        model.start_run(n(16), false);
        assert_eq!(model.record(n(19), 1, 0), Verdict::Jumped { expected: n(17) });
        model.start_run(n(16), false);
        assert_eq!(model.record(n(17), 1, 0), Verdict::Continues);
    }

    #[test]
    fn a_jump_is_reported_unless_ingested_files_explain_every_number_of_it() {
        let mut model = SequenceModel::default();
        model.start_run(n(0), false);
        let _ = model.record(n(1), 1, 0);
        assert_eq!(model.record(n(3), 1, 0), Verdict::Jumped { expected: n(2) });
        model.explain(n(4), n(5));
        assert_eq!(model.record(n(6), 1, 0), Verdict::Continues);
        model.explain(n(7), n(7));
        model.settle();
        assert_eq!(model.last(), Some(n(7)));
    }

    #[test]
    fn numbers_that_only_files_have_are_no_record_s() {
        let mut model = SequenceModel::default();
        model.start_run(n(0), false);
        let _ = model.record(n(1), 4, 0);
        model.explain(n(6), n(6));
        assert_eq!(model.last_with_files(), Some(n(4)), "5 may be a record's");
        model.explain(n(5), n(5));
        assert_eq!((model.last(), model.last_with_files()), (Some(n(4)), Some(n(6))));
        model.settle();
        assert_eq!((model.last(), model.last_of_records()), (Some(n(6)), n(4)));
        model.start_session(n(2));
        assert_eq!(model.last_of_records(), n(2));
    }

    #[test]
    fn an_import_that_claims_billions_of_numbers_explains_as_many_as_are_kept_at_once() {
        let mut model = SequenceModel::default();
        model.start_run(n(0), false);
        let _ = model.record(n(1), 1, 0);
        model.explain(n(1), SequenceNumber::MAX);
        assert_eq!(model.explained.len(), MAX_EXPLAINED);
        assert_eq!(model.record(n(10), 1, 0), Verdict::Continues);
        assert_eq!(model.record(n(10 + MAX_EXPLAINED as u64), 1, 0), Verdict::Jumped { expected: n(11) });
    }

    #[test]
    fn a_session_that_reuses_numbers_is_seen_at_its_first_consuming_record() {
        let mut model = SequenceModel::default();
        model.start_run(n(0), false);
        let _ = model.record(n(1), 1, 0);
        let _ = model.record(n(2), 2, 0);
        model.start_session(n(1));
        assert_eq!(model.record(n(2), 0, 0), Verdict::Continues, "it consumes nothing, so it reuses nothing");
        assert_eq!(model.record(n(2), 1, 0), Verdict::Reused { highest: n(3), jumped: None });
        assert_eq!(model.record(n(3), 1, 0), Verdict::Continues);
        assert_eq!(model.record(n(3), 1, 0), Verdict::WentBack { expected: n(4) });
    }

    #[test]
    fn a_session_that_reuses_numbers_can_have_begun_with_writes_that_are_not_in_the_log() {
        let mut model = SequenceModel::default();
        model.start_run(n(0), false);
        let _ = model.record(n(1), 5, 0);
        model.start_session(n(1));
        assert_eq!(model.record(n(3), 1, 0), Verdict::Reused { highest: n(5), jumped: Some(n(2)) });
        model.start_session(n(2));
        model.explain(n(3), n(3));
        assert_eq!(
            model.record(n(4), 1, 0),
            Verdict::Continues,
            "and numbers above what the run has kept are no reuse"
        );
    }

    #[test]
    fn a_session_that_was_given_no_number_is_repeated_by_a_reopen_that_begins_no_lower() {
        let mut model = SequenceModel::default();
        model.start_run(n(0), false);
        let _ = model.record(n(1), 3, 0);
        assert!(!model.only_reopened(n(3)), "a record was given numbers");
        model.start_session(n(2));
        let _ = model.record(n(3), 0, 0);
        assert!(model.only_reopened(n(2)) && !model.only_reopened(n(1)));
    }

    #[test]
    fn what_is_flushed_before_the_first_record_of_a_run_was_not_in_the_log() {
        let mut model = SequenceModel::default();
        model.start_run(n(16), false);
        assert!(!model.is_beyond(n(16), 0) && model.is_beyond(n(18), 0));
        model.explain(n(17), n(18));
        model.settle();
        assert!(!model.is_beyond(n(18), 0), "ingested files were given them");
        model.accept(n(20));
        assert!(!model.is_beyond(n(20), 0));
        assert_eq!(model.record(n(22), 1, 0), Verdict::Jumped { expected: n(21) });
    }

    #[test]
    fn the_open_of_a_write_prepared_database_consumes_a_number() {
        for (gap, by_open, continues) in [(1, 1, true), (2, 1, false), (1, 0, false), (0, 1, true)] {
            let mut model = SequenceModel::default();
            model.start_session(n(7));
            let verdict = model.record(n(8 + gap), 1, by_open);
            assert_eq!(verdict == Verdict::Continues, continues, "{gap} {by_open}");
        }
        let mut model = SequenceModel::default();
        model.start_session(n(7));
        let _ = model.record(n(9), 1, 1);
        assert_eq!(model.record(n(11), 1, 1), Verdict::Jumped { expected: n(10) }, "only the first record of it");
        let mut model = SequenceModel::default();
        model.start_session(n(0));
        assert_eq!(model.record(n(2), 1, 1), Verdict::Jumped { expected: n(1) }, "an empty database stays at 0");
        model.start_session(n(7));
        assert!(!model.is_beyond(n(8), 1) && model.is_beyond(n(9), 1) && model.is_beyond(n(8), 0));
    }
}
