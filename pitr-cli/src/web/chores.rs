//! What was done by the clock, as it is seen: when each last went well, and how it last failed.
//!
//! Owns: the outcome of scheduled bases, verifications, drills and prunings since the service began, and what the last drill
//! measured that went well. A verification that found damage failed. Refuses: to do any of it.

use std::time::Duration;

use pitr_archive::{Error, Result, catalog::schema::DrillDocument, clock::Micros};

use super::board::Trouble;

/// Something that is due by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// A base is asked for.
    Base,
    /// What is not kept is deleted.
    Prune,
    /// Everything in the archive is read and checked.
    Verify,
    /// Something is restored, to see that it works.
    Drill,
}

impl Chore {
    /// All, in the order in which they are done and shown.
    pub const ALL: [Self; 4] = [Self::Base, Self::Prune, Self::Verify, Self::Drill];

    /// Its stable name, as in `[schedule]`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Prune => "prune",
            Self::Verify => "verify",
            Self::Drill => "drill",
        }
    }
}

/// How one of them went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// How often it went well.
    pub succeeded: u64,
    /// How often it did not.
    pub failed: u64,
    /// When it last went well.
    pub success: Option<Micros>,
    /// When it failed and why, where it has not gone well since.
    pub trouble: Option<(Micros, Trouble)>,
}

/// What a drill measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// When it began.
    pub at: Micros,
    /// From the beginning of planning to a database that can be read.
    pub restore: Duration,
    /// As it was estimated.
    pub estimated: Option<Duration>,
    /// The age of what could be restored last.
    pub at_risk: Option<Duration>,
}

impl Measured {
    /// What a report tells, where the drill went well.
    pub(super) fn of(report: &DrillDocument) -> Option<Self> {
        let restore = report.restore_micros().filter(|_| report.went_well())?;
        Some(Self {
            at: report.created,
            restore: Duration::from_micros(restore),
            estimated: report.estimate.map(|estimate| Duration::from_micros(estimate.micros)),
            at_risk: report.at_risk_micros.map(Duration::from_micros),
        })
    }
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chores([Outcomes; Chore::ALL.len()]);

impl Chores {
    /// How this one went.
    pub const fn of(&self, chore: Chore) -> &Outcomes {
        &self.0[chore as usize]
    }

    /// Those that were ever due, in order.
    pub fn known(&self) -> impl Iterator<Item = (Chore, &Outcomes)> {
        let all = Chore::ALL.into_iter().map(|chore| (chore, self.of(chore)));
        all.filter(|(_, outcomes)| outcomes.succeeded + outcomes.failed > 0)
    }

    /// Those that failed and have not gone well since.
    pub fn troubles(&self) -> impl Iterator<Item = (Chore, Micros, &Trouble)> {
        self.known().filter_map(|(chore, o)| o.trouble.as_ref().map(|(at, trouble)| (chore, *at, trouble)))
    }

    pub(super) fn note(&mut self, chore: Chore, now: Micros, result: Result<(), &Error>) {
        let outcomes = &mut self.0[chore as usize];
        match result {
            Ok(()) => {
                outcomes.succeeded += 1;
                outcomes.success = Some(now);
                outcomes.trouble = None;
            }
            Err(e) => {
                outcomes.failed += 1;
                outcomes.trouble = Some((now, e.into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pitr_archive::Code;

    use super::*;

    #[test]
    fn what_failed_is_shown_until_it_goes_well_again() {
        let mut chores = Chores::default();
        assert_eq!(chores.known().count(), 0);
        chores.note(Chore::Prune, Micros(1), Err(&Error::new(Code::StoreUnavailable, "pruning")));
        chores.note(Chore::Base, Micros(2), Ok(()));
        let shown: Vec<_> = chores.troubles().map(|(chore, at, trouble)| (chore, at, trouble.code)).collect();
        assert_eq!(shown, [(Chore::Prune, Micros(1), Code::StoreUnavailable)]);
        chores.note(Chore::Prune, Micros(3), Ok(()));
        assert_eq!(chores.troubles().count(), 0);
        let prune = chores.of(Chore::Prune);
        assert_eq!((prune.succeeded, prune.failed, prune.success), (1, 1, Some(Micros(3))));
    }
}
