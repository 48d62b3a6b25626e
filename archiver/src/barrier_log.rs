//! The barriers of the present run, as far as the archiver itself must know them.
//!
//! Owns: the rule whether a base would be of any use: no target can be reached from it when a barrier that blocks
//! replay lies between its first record and its floor.

use pitr_archive::{
    ids::Boundary,
    segment::entry::{BarrierReason, Blocks},
};
use serde::{Deserialize, Serialize};

/// Places that replay cannot cross, newest last. Only the newest matter: a base's first record only moves forward.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BarrierLog {
    /// The highest place that blocks replay.
    replay: Option<Boundary>,
    /// The highest place whose next record cannot be replayed.
    record: Option<Boundary>,
    /// The highest end of a change outside the log; bases below it do not reach beyond it.
    floor: Option<Boundary>,
}

impl BarrierLog {
    /// Notes a barrier. `place` is where it cannot be crossed (replay), or its known end (changes outside the log).
    pub fn note(&mut self, reason: BarrierReason, place: Boundary) {
        let slot = match reason.blocks() {
            Blocks::Replay => &mut self.replay,
            Blocks::Record => &mut self.record,
            Blocks::Floor => &mut self.floor,
        };
        *slot = (*slot).max(Some(place));
    }

    /// Whether targets at or after `floor` can be reached from a base whose first replayed record follows `first`.
    pub fn serves(&self, first: Boundary, floor: Boundary) -> bool {
        let crossed = |place: Boundary| first < place && place < floor;
        let replayed = |place: Boundary| first <= place && place < floor;
        !self.replay.is_some_and(crossed) && !self.record.is_some_and(replayed) && self.floor.is_none_or(|p| p <= floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_serves_only_when_its_records_begin_behind_every_replay_barrier() {
        let mut log = BarrierLog::default();
        let b = Boundary::new;
        assert!(log.serves(b(0), b(9)));
        log.note(BarrierReason::SequenceJump, b(5));
        assert!(!log.serves(b(0), b(9)) && !log.serves(b(4), b(6)));
        assert!(log.serves(b(5), b(9)) && log.serves(b(0), b(5)));
        log.note(BarrierReason::ChangeOutsideWal, b(10));
        assert!(!log.serves(b(6), b(9)) && log.serves(b(6), b(10)));
        log.note(BarrierReason::TwoPhaseCommit, b(7));
        assert!(!log.serves(b(7), b(10)) && log.serves(b(8), b(10)));
    }
}
