//! What this archiver holds back, measured, and kept within what the operator allows.
//!
//! Owns: what counts as held (bytes on disk that nobody but us needs any more), and doing what [`crate::budget`] decides.
//! Refuses: to touch anything that the server itself still has.

use std::{fs, io::ErrorKind, path::Path};

use pitr_archive::{Result, clock::Micros, error, ids::FileNumber};

use super::Archiver;
use crate::{
    budget::{Budget, Holding, Limit, Room, Verdict},
    elapsed::elapsed,
    pin::OurLinks,
    registry::Registry,
    state::StateDir,
};

/// Between two measurements: a disk of the fastest kind fills by a few gigabytes meanwhile, the usual floor.
const MEASURED_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

/// What is still held directly after everything was given up (the copy of a recycled log that is being read, for one) is
/// not given up over and over: so much more must have come.
const WORTH_GIVING_UP: u64 = 1 << 20;

/// An archive that takes nothing for so long is as good as away.
const BEHIND: std::time::Duration = std::time::Duration::from_secs(30);

/// What was last measured, and what was done about it.
#[derive(Debug, Default)]
pub(crate) struct HeldBack {
    measured: Micros,
    alarm: Option<Limit>,
    /// What was still held when everything had been given up.
    rest: u64,
}

/// Where what is not acknowledged is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backlog {
    /// On its way: it goes by itself, before anything could be won by giving it up.
    OnItsWay,
    /// The archive does not take it.
    Stuck,
}

/// What is to be done by whoever has what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Nothing,
    AbandonBase(Limit),
    GiveUp(Limit),
}

impl HeldBack {
    /// The limit that is exceeded, if one is.
    pub(crate) fn alarm(&self) -> Option<Limit> {
        self.alarm
    }

    /// Whether it is time to measure again.
    pub(crate) fn is_due(&mut self, now: Micros) -> bool {
        let due = elapsed(self.measured, now) >= MEASURED_EVERY;
        if due {
            self.measured = now;
        }
        due
    }

    /// Decides, and tells people when a limit is met and when it is no longer.
    pub(crate) fn decide(&mut self, budget: &Budget, holding: &Holding, backlog: Backlog) -> Act {
        let verdict = budget.judge(holding);
        let (limit, act) = match verdict {
            Verdict::Fine => {
                self.rest = self.rest.min(holding.pins);
                (None, Act::Nothing)
            }
            Verdict::Alarm(limit) => (Some(limit), Act::Nothing),
            Verdict::AbandonBase(limit) => (Some(limit), Act::AbandonBase(limit)),
            Verdict::GiveUp(limit) if backlog == Backlog::OnItsWay => (Some(limit), Act::Nothing),
            Verdict::GiveUp(limit) if holding.pins < self.rest.saturating_add(WORTH_GIVING_UP) => {
                (Some(limit), Act::Nothing)
            }
            Verdict::GiveUp(limit) => (Some(limit), Act::GiveUp(limit)),
        };
        match (&self.alarm, &limit) {
            (None, Some(limit)) => tracing::error!(%limit, "what is held back for the archive has met a limit"),
            (Some(_), None) => tracing::info!("what is held back for the archive is within its limits again"),
            _ => {}
        }
        self.alarm = limit;
        act
    }

    /// Everything that could be was given up; this is left.
    pub(crate) fn gave_up(&mut self, left: u64) {
        self.rest = left;
    }
}

/// Rooms of the file systems of these directories, each once.
pub(crate) fn rooms(directories: &[&Path]) -> Result<Vec<Room>> {
    let mut seen = Vec::new();
    let mut rooms = Vec::new();
    for dir in directories {
        let device = crate::pin::device(dir)?;
        if seen.contains(&device) {
            continue;
        }
        seen.push(device);
        let stat = rustix::fs::statvfs(*dir).map_err(|e| error::io("measuring the room of", dir, e.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        rooms.push(Room { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) });
    }
    Ok(rooms)
}

/// Bytes that only links of a base in progress, and of those of the archivers of other archives, hold.
pub(crate) fn held_by_base(state: &StateDir, archive_name: Option<&str>) -> Result<u64> {
    let (mut held, staging) = (0, &state.staging());
    let entries = match fs::read_dir(staging) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(error::io("listing", staging, e)),
    };
    let ours = OurLinks::of(state.root(), staging, archive_name)?;
    for entry in entries {
        let entry = entry.map_err(|e| error::io("listing", staging, e))?;
        match entry.metadata() {
            Ok(meta) if ours.are_all_of(&entry.path(), &meta) => held += meta.len(),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(error::io("measuring", entry.path(), e)),
        }
    }
    Ok(held)
}

/// Bytes of the log from an offset of a WAL on.
pub(crate) fn backlog(registry: &Registry, wal: FileNumber, offset: u64) -> Result<u64> {
    let mut bytes = 0u64;
    for (number, _) in registry.wals_from(wal) {
        let size = registry.pins().wal_bytes(number)?.unwrap_or_default();
        bytes += if number == wal { size.saturating_sub(offset) } else { size };
    }
    Ok(bytes)
}

/// What is held while nothing is read.
pub(crate) fn held_by_pins(registry: &Registry) -> Result<Holding> {
    let pins = registry.pins();
    Ok(Holding { pins: pins.held_bytes()?, rooms: rooms(&pins.directories())?, ..Holding::default() })
}

impl Archiver {
    /// What is held back now.
    pub(crate) fn holding(&self) -> Result<Holding> {
        let registry = self.engine.registry();
        let oldest = match &self.pending {
            Some(shipment) => shipment.oldest,
            None => self.engine.stream.oldest(),
        };
        let at = self.acknowledged.position;
        let backlog = match (oldest, at.wal, at.offset) {
            (Some(_), Some(wal), Some(offset)) => backlog(registry, wal, offset)?,
            (Some(_), ..) => backlog(registry, self.engine.first_wal_needed(), 0)?,
            (None, ..) => 0,
        };
        Ok(Holding {
            pins: registry.pins().held_bytes()?,
            base: held_by_base(&self.state_dir, self.config.archive_name.as_deref())?,
            backlog,
            oldest,
            rooms: rooms(&registry.pins().directories())?,
        })
    }

    /// Keeps what is held back within its limits; says whether the base in progress has to go. Only what is not
    /// acknowledged is held for long, so with nothing of it there is nothing to measure.
    pub(crate) fn keep_within_limits(&mut self, now: Micros, base: BaseInProgress) -> Result<BaseInProgress> {
        let waits = self.pending.is_some() || !self.engine.stream.is_empty() || base == BaseInProgress::Yes;
        if !(waits || self.held_back.alarm().is_some()) || !self.held_back.is_due(now) {
            return Ok(base);
        }
        let holding = self.holding()?;
        let behind = holding.oldest.is_some_and(|oldest| elapsed(oldest, now) >= BEHIND);
        let backlog = if behind || self.reach.failing().is_some() { Backlog::Stuck } else { Backlog::OnItsWay };
        match self.held_back.decide(&self.config.budget, &holding, backlog) {
            Act::Nothing => Ok(base),
            Act::AbandonBase(limit) => {
                tracing::warn!(%limit, "the base in progress is abandoned; another is taken later");
                Ok(BaseInProgress::No)
            }
            Act::GiveUp(limit) => {
                let detail = format!("what the archive had not acknowledged was given up: {limit}");
                self.engine.give_up(detail)?;
                self.held_back.gave_up(self.engine.registry().pins().held_bytes()?);
                Ok(base)
            }
        }
    }
}

/// Whether a base is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BaseInProgress {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::WhenFull;

    #[test]
    fn what_is_left_after_everything_was_given_up_is_not_given_up_again_until_more_came() {
        let budget = Budget { bytes: Some(100), when_full: WhenFull::Barrier, ..Budget::default() };
        let mut held = HeldBack::default();
        let holding = |pins| Holding { pins, ..Holding::default() };
        assert_eq!(held.decide(&budget, &holding(8 << 20), Backlog::OnItsWay), Act::Nothing);
        assert!(matches!(held.decide(&budget, &holding(8 << 20), Backlog::Stuck), Act::GiveUp(_)));
        held.gave_up(2 << 20);
        assert_eq!(held.decide(&budget, &holding(2 << 20), Backlog::Stuck), Act::Nothing);
        assert!(held.alarm().is_some(), "it is still said");
        assert!(matches!(held.decide(&budget, &holding(3 << 20), Backlog::Stuck), Act::GiveUp(_)));
        assert_eq!(held.decide(&budget, &holding(0), Backlog::Stuck), Act::Nothing);
        assert_eq!(held.alarm(), None);
        assert!(
            matches!(held.decide(&budget, &holding(1 << 20), Backlog::Stuck), Act::GiveUp(_)),
            "from the beginning"
        );
    }
}
