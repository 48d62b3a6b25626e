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

    /// Whether targets at or after its floor can be reached from a base.
    pub fn serves(&self, base: &Footing) -> bool {
        !self.newest.iter().any(|noted| {
            // A barrier behind the floor stops later targets only; a change that the base lacks stops all of them.
            let before = noted.interval.lo < base.floor || noted.reason.blocks() == Blocks::Floor;
            let jumped = noted.reason.blocks() == Blocks::Jump && noted.interval.lo == base.floor;
            (before || jumped) && Hurdle::from(*noted).concerns(base)
        })
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
}
