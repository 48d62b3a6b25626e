//! The barriers of the present run, as far as the archiver itself must know them.
//!
//! Owns: the rule whether a base would be of any use: no target can be reached from it when a barrier that concerns it
//! lies before its floor.

use pitr_archive::{
    catalog::crossing::{Footing, Hurdle},
    ids::SequenceNumber,
    segment::entry::{BarrierReason, Blocks, Interval, ManifestPoint},
};
use serde::{Deserialize, Serialize};

/// A barrier as it is stored in every segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    reason: BarrierReason,
    interval: Interval,
    manifest: Option<ManifestPoint>,
    unexplained: Option<SequenceNumber>,
}

impl From<Noted> for Hurdle {
    fn from(noted: Noted) -> Self {
        let Noted { reason, interval, manifest, unexplained } = noted;
        Self { reason, interval, manifest, unexplained }
    }
}

/// The newest barrier of each kind: a base's first record, its MANIFEST and its files only move forward, so one that is
/// beyond the newest is beyond all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BarrierLog {
    newest: Vec<Noted>,
}

impl BarrierLog {
    /// Notes a barrier.
    pub fn note(&mut self, barrier: Hurdle) {
        let Hurdle { reason, interval, manifest, unexplained } = barrier;
        self.newest.retain(|noted| noted.reason.blocks() != reason.blocks());
        self.newest.push(Noted { reason, interval, manifest, unexplained });
    }

    /// Whether targets at or after its floor can be reached from a base whose floor is the end of what was read.
    pub fn serves(&self, base: &Footing) -> bool {
        // A change that lies there, and that the base lacks, came before the base was complete.
        let lacks = |noted: &Noted| noted.interval.lo == base.floor && noted.reason.blocks() == Blocks::Floor;
        self.still_serves(base) && !self.newest.iter().any(|noted| lacks(noted) && Hurdle::from(*noted).concerns(base))
    }

    /// Whether they still can, of a base that served when its floor was fixed: a barrier behind the floor stops later
    /// targets only.
    pub fn still_serves(&self, base: &Footing) -> bool {
        !self.newest.iter().any(|noted| {
            let jumped = noted.reason.blocks() == Blocks::Jump && noted.interval.lo == base.floor;
            (noted.interval.lo < base.floor || jumped) && Hurdle::from(*noted).concerns(base)
        })
    }

    /// Whether any of them stops targets of a base.
    pub fn concern(&self, base: &Footing) -> bool {
        self.newest.iter().any(|noted| Hurdle::from(*noted).concerns(base))
    }
}

#[cfg(test)]
mod tests {
    use pitr_archive::ids::{Boundary, FileNumber};

    use super::*;

    #[test]
    fn a_base_serves_only_when_no_barrier_before_its_floor_concerns_it() {
        let at = |reason, lo| {
            let lo = Boundary::new(lo);
            Hurdle { reason, interval: Interval { lo, hi: Some(lo) }, manifest: None, unexplained: None }
        };
        let point = |offset| ManifestPoint { file: FileNumber::new(4), offset };
        let base = |first, floor, end| Footing {
            first: Boundary::new(first),
            floor: Boundary::new(floor),
            manifest: point(end),
            max_file_sequence: SequenceNumber::new(50),
        };
        let mut log = BarrierLog::default();
        assert!(log.serves(&base(0, 9, 90)));
        log.note(at(BarrierReason::Reuse, 5));
        assert!(!log.serves(&base(0, 9, 90)) && !log.serves(&base(4, 6, 90)));
        assert!(log.serves(&base(5, 9, 90)) && log.serves(&base(0, 5, 90)));
        log.note(Hurdle { manifest: Some(point(91)), ..at(BarrierReason::ChangeOutsideWal, 9) });
        assert!(!log.serves(&base(6, 9, 90)) && log.serves(&base(6, 9, 91)));
    }

    #[test]
    fn what_changes_behind_a_bases_floor_while_it_is_uploaded_does_not_make_it_useless() {
        let mut log = BarrierLog::default();
        let base = Footing {
            first: Boundary::new(6),
            floor: Boundary::new(9),
            manifest: ManifestPoint { file: FileNumber::new(4), offset: 90 },
            max_file_sequence: SequenceNumber::new(50),
        };
        for (lo, serves, still) in [(8, false, false), (9, false, true), (10, true, true)] {
            let lo = Boundary::new(lo);
            log.note(Hurdle {
                reason: BarrierReason::ChangeOutsideWal,
                interval: Interval { lo, hi: Some(lo) },
                manifest: Some(ManifestPoint { file: FileNumber::new(4), offset: 91 }),
                unexplained: None,
            });
            assert_eq!((log.serves(&base), log.still_serves(&base), log.concern(&base)), (serves, still, true), "{lo}");
        }
    }
}
