//! The barriers of the present run, as far as the archiver itself must know them.
//!
//! Owns: the rule whether a base would be of any use: no target can be reached from it when a barrier that blocks
//! replay lies between its first record and its floor.

use pitr_archive::{
    ids::Boundary,
    segment::entry::{BarrierReason, Blocks, ManifestPoint},
};
use serde::{Deserialize, Serialize};

/// Places that replay cannot cross, newest last. Only the newest matter: a base's first record only moves forward.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BarrierLog {
    /// The highest place that blocks replay.
    replay: Option<Boundary>,
    /// The highest place whose next record cannot be replayed.
    record: Option<Boundary>,
    /// The MANIFEST record of the newest change outside the log; bases without it do not reach beyond it.
    outside: Option<ManifestPoint>,
}

impl BarrierLog {
    /// Notes a barrier: where it cannot be crossed, and the MANIFEST record that showed it.
    pub fn note(&mut self, reason: BarrierReason, place: Boundary, shown: Option<ManifestPoint>) {
        match reason.blocks() {
            Blocks::Replay => self.replay = self.replay.max(Some(place)),
            Blocks::Record => self.record = self.record.max(Some(place)),
            Blocks::Floor => self.outside = self.outside.max(shown),
        }
    }

    /// Whether targets at or after `floor` can be reached from a base whose first replayed record follows `first`, and
    /// whose MANIFEST prefix ends at `manifest`.
    pub fn serves(&self, first: Boundary, floor: Boundary, manifest: ManifestPoint) -> bool {
        let crossed = |place: Boundary| first < place && place < floor;
        let replayed = |place: Boundary| first <= place && place < floor;
        !self.replay.is_some_and(crossed)
            && !self.record.is_some_and(replayed)
            && self.outside.is_none_or(|change| change <= manifest)
    }
}

#[cfg(test)]
mod tests {
    use pitr_archive::ids::FileNumber;

    use super::*;

    #[test]
    fn a_base_serves_only_when_its_records_begin_behind_every_replay_barrier() {
        let mut log = BarrierLog::default();
        let b = Boundary::new;
        let point = |offset| ManifestPoint { file: FileNumber::new(4), offset };
        let serves = |log: &BarrierLog, first, floor| log.serves(b(first), b(floor), point(90));
        assert!(serves(&log, 0, 9));
        log.note(BarrierReason::SequenceJump, b(5), None);
        assert!(!serves(&log, 0, 9) && !serves(&log, 4, 6));
        assert!(serves(&log, 5, 9) && serves(&log, 0, 5));
        // A base with the same floor can have been taken before the change or after it: its MANIFEST tells.
        log.note(BarrierReason::ChangeOutsideWal, b(9), Some(point(91)));
        assert!(!serves(&log, 6, 9) && log.serves(b(6), b(9), point(91)));
        log.note(BarrierReason::TwoPhaseCommit, b(7), None);
        assert!(!log.serves(b(7), b(10), point(99)) && log.serves(b(8), b(10), point(99)));
    }
}
