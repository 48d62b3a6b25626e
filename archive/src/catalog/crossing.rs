//! Whether a barrier concerns a base: the one rule that the archiver (is this base worth publishing?), plans and `status`
//! share.
//!
//! Owns: what "behind the barrier" means for each reason. Which *targets* a barrier stops is the plan's business.

use crate::{
    catalog::schema::BaseDocument,
    ids::{Boundary, SequenceNumber},
    segment::entry::{BarrierReason, Blocks, Interval, ManifestPoint},
};

/// What of a base decides what can be replayed on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footing {
    /// The boundary before the first record that is replayed.
    pub first: Boundary,
    /// Its floor.
    pub floor: Boundary,
    /// The end of its MANIFEST prefix.
    pub manifest: ManifestPoint,
    /// The largest sequence number in its files.
    pub max_file_sequence: SequenceNumber,
}

impl From<&BaseDocument> for Footing {
    fn from(base: &BaseDocument) -> Self {
        Self {
            first: base.first_record,
            floor: base.floor.boundary,
            manifest: base.manifest,
            max_file_sequence: base.max_file_sequence,
        }
    }
}

/// What of a barrier decides which bases it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hurdle {
    /// Why it stands.
    pub reason: BarrierReason,
    /// Where.
    pub interval: Interval,
    /// The MANIFEST record that showed it, if one did.
    pub manifest: Option<ManifestPoint>,
    /// For a jump: the last number that nothing explains.
    pub unexplained: Option<SequenceNumber>,
}

impl Hurdle {
    /// Whether a base is on the near side: targets on the far side are out of its reach.
    pub fn concerns(&self, base: &Footing) -> bool {
        let lo = self.interval.lo;
        match self.reason.blocks() {
            Blocks::Replay => base.first < lo,
            Blocks::Jump => base.first < lo || (base.first == lo && !self.jump_is_in(base)),
            Blocks::Record => base.first <= lo,
            Blocks::Floor => !self.change_is_in(base),
        }
    }

    /// Whether the base was taken after the change: then it holds the MANIFEST record, and so does all from its floor on.
    pub fn change_is_in(&self, base: &Footing) -> bool {
        match self.manifest {
            Some(point) => point <= base.manifest,
            None => self.interval.hi.is_some_and(|hi| hi <= base.floor),
        }
    }

    /// Whether the base's files reach what was written without the log.
    fn jump_is_in(&self, base: &Footing) -> bool {
        self.unexplained.is_some_and(|number| number <= base.max_file_sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::FileNumber;

    fn base(first: u64, floor: u64, offset: u64, sequence: u64) -> Footing {
        Footing {
            first: Boundary::new(first),
            floor: Boundary::new(floor),
            manifest: ManifestPoint { file: FileNumber::new(4), offset },
            max_file_sequence: SequenceNumber::new(sequence),
        }
    }

    fn hurdle(reason: BarrierReason, lo: u64) -> Hurdle {
        let lo = Boundary::new(lo);
        Hurdle { reason, interval: Interval { lo, hi: Some(lo) }, manifest: None, unexplained: None }
    }

    #[test]
    fn a_base_whose_records_begin_behind_it_is_not_concerned_by_a_replay_barrier() {
        let reuse = hurdle(BarrierReason::Reuse, 5);
        assert!(reuse.concerns(&base(4, 9, 0, 0)));
        assert!(!reuse.concerns(&base(5, 9, 0, 0)));
    }

    #[test]
    fn what_jumped_is_in_the_files_of_a_base_that_begins_there_or_not_in_the_base() {
        let jump = Hurdle { unexplained: Some(SequenceNumber::new(50)), ..hurdle(BarrierReason::SequenceJump, 5) };
        assert!(jump.concerns(&base(5, 9, 0, 49)));
        assert!(!jump.concerns(&base(5, 9, 0, 50)) && !jump.concerns(&base(6, 9, 0, 49)));
        assert!(jump.concerns(&base(4, 9, 0, 50)), "the records before the jump lack it");
    }

    #[test]
    fn two_bases_with_one_floor_were_taken_before_a_change_and_after_it() {
        let shown = ManifestPoint { file: FileNumber::new(4), offset: 91 };
        let change = Hurdle { manifest: Some(shown), ..hurdle(BarrierReason::ChangeOutsideWal, 9) };
        assert!(change.concerns(&base(0, 9, 90, 0)));
        assert!(!change.concerns(&base(0, 9, 91, 0)));
    }

    #[test]
    fn a_record_that_cannot_be_replayed_stops_the_base_that_begins_with_it() {
        let record = hurdle(BarrierReason::TwoPhaseCommit, 7);
        assert!(record.concerns(&base(7, 9, 0, 0)) && !record.concerns(&base(8, 9, 0, 0)));
    }
}
