//! Which base a place is restored from, or why none will do.
//!
//! Owns: the rules of design: a base of the same run, its floor at or before the target, no barrier between, no column
//! family event whose interval holds the target. Pure: bases and the stream go in, a base or an exact refusal comes
//! out, with the nearest positions before and after that can be restored.

use std::collections::BTreeMap;

use pitr_archive::{
    Code, Error,
    catalog::schema::BaseDocument,
    ids::{BaseId, Boundary, SequenceNumber},
    segment::entry::{BarrierReason, Blocks},
};

use super::{
    CrossIngest,
    stream::{Barrier, FamilyEvent, Place, Run, Side, Stream},
};
use crate::target::Target;

/// A base that will do, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice<'a> {
    pub base: &'a BaseDocument,
    /// Bases passed over although they are newer.
    pub passed: usize,
    pub last_reason: Option<&'static str>,
}

/// What bases are judged by beside the stream's summaries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    /// The latest sequence number at the place, as far as it is known.
    pub there: Option<SequenceNumber>,
    /// What recovery of a base with the records up to the place would report, where that has been found out.
    pub recovered: BTreeMap<BaseId, SequenceNumber>,
    /// The floors of bases at the same boundary.
    pub floors: BTreeMap<BaseId, Place>,
}

/// Why a base will not do.
#[derive(Clone, Debug)]
pub(crate) enum Obstacle<'a> {
    /// It belongs to another run: records are missing between.
    OtherRun,
    /// Its floor is after the target.
    FloorAfter,
    Barrier(&'a Barrier),
    Inside(&'a FamilyEvent),
    /// Recovery would report a higher latest sequence number than the database had.
    Sequence {
        recovered: SequenceNumber,
        expected: SequenceNumber,
    },
}

impl Obstacle<'_> {
    const fn reason(&self) -> &'static str {
        match self {
            Self::OtherRun => "records are missing between it and the target",
            Self::FloorAfter => "it was taken after the target",
            Self::Barrier(_) => "a barrier lies between it and the target",
            Self::Inside(_) => "the target lies inside the interval of a column family event",
            Self::Sequence { .. } => "it would give another latest sequence number",
        }
    }

    /// The more it says about the target itself, the higher.
    const fn rank(&self) -> u8 {
        match self {
            Self::FloorAfter => 0,
            Self::OtherRun => 1,
            Self::Barrier(_) => 2,
            Self::Sequence { .. } => 3,
            Self::Inside(_) => 4,
        }
    }
}

/// What bases are judged by.
pub(crate) struct Chooser<'a> {
    pub stream: &'a Stream,
    /// Of this lineage, oldest first.
    pub bases: &'a [BaseDocument],
    pub cross: CrossIngest,
}

impl<'a> Chooser<'a> {
    /// The newest base that reaches `place`.
    pub fn choose(&self, place: Place, expected: &Expected) -> Result<Choice<'a>, Option<Obstacle<'a>>> {
        let run = self.stream.run_at(place);
        let mut passed = 0;
        let mut worst: Option<Obstacle<'a>> = None;
        let mut last_reason = None;
        for base in self.bases.iter().rev() {
            match self.obstacle(base, run, place, expected) {
                None => return Ok(Choice { base, passed, last_reason }),
                Some(obstacle) => {
                    if !matches!(obstacle, Obstacle::FloorAfter) {
                        passed += 1;
                        last_reason = Some(obstacle.reason());
                    }
                    if worst.as_ref().is_none_or(|w| w.rank() < obstacle.rank()) {
                        worst = Some(obstacle);
                    }
                }
            }
        }
        Err(worst)
    }

    fn obstacle(
        &self,
        base: &BaseDocument,
        run: Option<Run>,
        place: Place,
        expected: &Expected,
    ) -> Option<Obstacle<'a>> {
        if base.floor.boundary > place.boundary {
            return Some(Obstacle::FloorAfter);
        }
        let Some(run) = run.filter(|r| r.number == base.run && r.timeline == base.floor.timeline) else {
            return Some(Obstacle::OtherRun);
        };
        if self.stream.ahead(run, base, place, expected.floors.get(&base.id).copied()) {
            return Some(Obstacle::FloorAfter);
        }
        if let Some(event) = self.stream.families_of(run).find(|f| {
            // A base that holds the edit already was taken after it, and so was every position from its floor on.
            f.manifest > base.manifest && f.when.side(place) == Side::Inside
        }) {
            return Some(Obstacle::Inside(event));
        }
        if let Some(barrier) = self.stream.blocking(run, base, place, self.cross) {
            return Some(Obstacle::Barrier(barrier));
        }
        let replayed = expected.recovered.get(&base.id).copied().unwrap_or_default();
        let recovered = replayed.max(base.last_sequence).max(base.max_file_sequence);
        match self.sequence(base, place, expected) {
            Some(expected) if recovered > expected => Some(Obstacle::Sequence { recovered, expected }),
            _ => None,
        }
    }

    /// The latest sequence number that the database has at `place`.
    ///
    /// At its own floor a base knows more than the stream's records: files ingested there were given numbers that no
    /// record shows. A session that began in between starts anew.
    pub fn sequence(&self, base: &BaseDocument, place: Place, expected: &Expected) -> Option<SequenceNumber> {
        let at_floor = expected
            .floors
            .get(&base.id)
            .is_some_and(|floor| *floor <= place && self.stream.session_at(*floor) == self.stream.session_at(place));
        let at_floor = at_floor.then_some(base.floor.sequence);
        match expected.there {
            // Where nothing is replayed the base is itself the state.
            None if base.first_record >= place.boundary => at_floor.max(Some(base.last_sequence)),
            there => there.max(at_floor),
        }
    }

    /// Whether the places at `boundary` can be restored, sequence numbers aside.
    fn restorable(&self, boundary: Boundary) -> bool {
        let place = Place::before_events(boundary);
        self.stream.before_withdrawn(place) == place && self.choose(place, &Expected::default()).is_ok()
    }

    /// The nearest boundaries before and after `boundary` that can be restored.
    pub fn nearest(&self, boundary: Boundary) -> (Option<Boundary>, Option<Boundary>) {
        let head = self.stream.head().boundary;
        // What can be restored changes only at these boundaries.
        let mut edges: Vec<Boundary> = vec![self.stream.start(), head, boundary];
        edges.extend(self.bases.iter().flat_map(|b| [b.floor.boundary, b.first_record]));
        edges
            .extend(self.stream.barriers.iter().flat_map(|b| [Some(b.when.interval.lo), b.when.interval.hi]).flatten());
        edges
            .extend(self.stream.families.iter().flat_map(|f| [Some(f.when.interval.lo), f.when.interval.hi]).flatten());
        edges.extend(self.stream.runs.iter().map(|r| r.start.boundary));
        edges.extend(self.stream.withdrawn.iter().flat_map(|w| [w.from, w.to]));
        let mut edges: Vec<Boundary> = edges
            .into_iter()
            .flat_map(|b| [b.get().saturating_sub(1), b.get(), b.get().saturating_add(1)])
            .map(Boundary::new)
            .filter(|b| *b <= head)
            .collect();
        edges.sort_unstable();
        edges.dedup();
        let before = edges.iter().rev().find(|b| **b < boundary && self.restorable(**b)).copied();
        let after = edges.iter().find(|b| **b > boundary && self.restorable(**b)).copied();
        (before, after)
    }

    /// The refusal for a target at `place` that no base reaches.
    pub fn refuse(&self, target: &Target, place: Place, obstacle: Option<&Obstacle<'_>>) -> Error {
        let code = match obstacle {
            None | Some(Obstacle::FloorAfter) => Code::TargetBeforeStart,
            Some(Obstacle::OtherRun) => Code::TargetBehindBarrier,
            Some(Obstacle::Sequence { .. }) => Code::TargetUnsupported,
            Some(Obstacle::Inside(_)) => Code::TargetInsideEvent,
            Some(Obstacle::Barrier(barrier)) => match barrier.reason {
                BarrierReason::TwoPhaseCommit => Code::TargetUnsupported,
                reason if reason.blocks() == Blocks::Floor && barrier.when.side(place) == Side::Inside => {
                    Code::TargetInsideEvent
                }
                _ => Code::TargetBehindBarrier,
            },
        };
        let mut e = Error::new(code, "planning a restore to").on(target).with("boundary", place.boundary);
        match obstacle {
            Some(Obstacle::Barrier(barrier)) => {
                e = e
                    .with("barrier", name(barrier.reason))
                    .with("at", barrier.when.interval.lo)
                    .with("detail", &barrier.detail);
            }
            Some(Obstacle::Inside(event)) => {
                e = e.with("column family", &event.name).with("not before", event.when.interval.lo).with(
                    "not after",
                    event.when.interval.hi.map_or_else(|| "unknown yet".to_owned(), |hi| hi.to_string()),
                );
            }
            Some(Obstacle::Sequence { recovered, expected }) => {
                e = e.with("recovery would report", recovered).with("the database had", expected);
            }
            Some(Obstacle::OtherRun) => {
                // The barrier that ended the run of the newest base at or before the target.
                let ended = self.stream.barriers.iter().rev().find(|b| b.reason.ends_run() && b.when.noted <= place);
                if let Some(barrier) = ended {
                    e = e
                        .with("barrier", name(barrier.reason))
                        .with("at", barrier.when.interval.lo)
                        .with("detail", &barrier.detail);
                }
            }
            None | Some(Obstacle::FloorAfter) => {}
        }
        self.with_nearest(place, e)
    }

    /// A refusal that names the nearest places that are none.
    pub fn with_nearest(&self, place: Place, e: Error) -> Error {
        let (before, after) = self.nearest(place.boundary);
        let shown =
            |b: Boundary| b.last_record().map_or_else(|| "the start".to_owned(), |r| format!("--to-record {r}"));
        e.with("nearest before", before.map_or_else(|| "none".to_owned(), shown))
            .with("nearest after", after.map_or_else(|| "none yet".to_owned(), shown))
    }
}

/// The stored name of a reason.
fn name(reason: BarrierReason) -> &'static str {
    match reason {
        BarrierReason::RecordsMissing => "records-missing",
        BarrierReason::Reuse => "reuse",
        BarrierReason::SequenceJump => "sequence-jump",
        BarrierReason::SequenceWentBack => "sequence-went-back",
        BarrierReason::ChangeOutsideWal => "change-outside-wal",
        BarrierReason::TwoPhaseCommit => "two-phase-commit",
        BarrierReason::Fork => "fork",
        BarrierReason::Unreadable => "unreadable",
        BarrierReason::ManifestMissed => "manifest-missed",
    }
}
