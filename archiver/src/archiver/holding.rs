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

/// An archive that takes nothing for so long is as good as away; one that takes too little to make room for so long, too.
const BEHIND: std::time::Duration = std::time::Duration::from_secs(30);

/// What is held beyond the budget may take so long to become less: a log goes as a whole, over a slow line.
const BECOMES_LESS: std::time::Duration = std::time::Duration::from_secs(300);

/// What was last measured, and what was done about it.
#[derive(Debug, Default)]
pub(crate) struct HeldBack {
    measured: Micros,
    alarm: Option<Limit>,
    /// Since when a limit has been met without that less was held, and how much that was.
    since: Option<(Micros, u64)>,
    /// What was still held when everything had been given up.
    rest: u64,
}

/// Where what is not acknowledged is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backlog {
    /// On its way: it goes by itself, before anything could be won by giving it up, as long as it becomes less.
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
    pub(crate) fn decide(&mut self, budget: &Budget, holding: &Holding, backlog: Backlog, now: Micros) -> Act {
        let verdict = budget.judge(holding);
        let backlog = if self.grows(verdict, holding.pins, now) { Backlog::Stuck } else { backlog };
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

    /// Whether what is held beyond a limit does not become less by itself: an archive that takes something all the time, but
    /// less than is written, is no better than one that is away.
    fn grows(&mut self, verdict: Verdict, pins: u64, now: Micros) -> bool {
        let Verdict::GiveUp(limit) = verdict else {
            self.since = None;
            return false;
        };
        let (since, most) = *self.since.get_or_insert((now, pins));
        if pins < most {
            self.since = Some((now, pins));
        }
        // So near to a full disk nothing is waited for.
        let (desperate, patience) = match limit {
            Limit::Floor { free, floor } => (free < floor / 2, BEHIND),
            Limit::Budget { .. } => (false, BECOMES_LESS),
        };
        desperate || pins >= most && elapsed(since, now) >= patience
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
    /// When the oldest entry was read that is not acknowledged.
    fn oldest_read(&self) -> Option<Micros> {
        // Behind a sign of life that is under way, all that is read waits.
        self.pending.as_ref().and_then(|shipment| shipment.oldest).or(self.engine.stream.oldest())
    }

    /// What is held back now.
    pub(crate) fn holding(&self) -> Result<Holding> {
        let registry = self.engine.registry();
        let oldest = self.unread.since().into_iter().chain(self.oldest_read()).min();
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

    /// What is held back now, as it counts for the limits.
    fn holding_beside(&self, base: BaseInProgress) -> Result<Holding> {
        let mut holding = self.holding()?;
        if base == BaseInProgress::No {
            // Nothing that could be abandoned, so nothing that goes before the log.
            holding.base = 0;
        }
        Ok(holding)
    }

    /// Whether anything is held that an unreachable archive would leave here. Only what is not acknowledged is held for
    /// long, so with nothing of it there is nothing to measure.
    fn holds_something(&self, base: BaseInProgress) -> bool {
        // Behind a fork nothing is read, until the archive has answered.
        let forked = self.engine.forked().is_some();
        // Nor while the server has a log that cannot be read or crossed: then logs are only held.
        let stuck = self.engine.waiting().is_some();
        let unshipped = self.pending.is_some() || !self.engine.stream.is_empty();
        let files_wait = self.engine.files_wait();
        unshipped || files_wait || base == BaseInProgress::Yes || forked || stuck
    }

    /// Keeps what is held back within its limits; says whether the base in progress has to go.
    pub(crate) fn keep_within_limits(&mut self, now: Micros, base: BaseInProgress) -> Result<BaseInProgress> {
        let waits = self.holds_something(base) || self.held_back.alarm().is_some();
        if !waits || !self.held_back.is_due(now) {
            return Ok(base);
        }
        let mut holding = self.holding_beside(base)?;
        // What flushes wrote goes before anything else: without it a restore takes longer, and that is all. What is decided
        // then is decided on what is left: flushes that keep coming must not keep the log from its turn.
        if self.config.budget.judge(&holding) != Verdict::Fine && self.engine.leave_waiting_flushes()? {
            tracing::warn!(
                "files of flushes that waited for their upload were given up: a restore replays the log instead"
            );
            holding = self.holding_beside(base)?;
        }
        // What is not read yet can be far older: as long as it goes on, that is no reason.
        let behind = self.oldest_read().is_some_and(|oldest| elapsed(oldest, now) >= BEHIND);
        let stuck = self.engine.waiting().is_some();
        let backlog =
            if behind || stuck || self.reach.failing().is_some() { Backlog::Stuck } else { Backlog::OnItsWay };
        match self.held_back.decide(&self.config.budget, &holding, backlog, now) {
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

    const NOW: Micros = Micros(1_000_000_000);

    fn later(seconds: i64) -> Micros {
        Micros(NOW.0 + seconds * 1_000_000)
    }

    #[test]
    fn what_is_left_after_everything_was_given_up_is_not_given_up_again_until_more_came() {
        let budget = Budget { bytes: Some(100), when_full: WhenFull::Barrier, ..Budget::default() };
        let mut held = HeldBack::default();
        let holding = |pins| Holding { pins, ..Holding::default() };
        let mut decide = |pins, backlog| {
            let act = held.decide(&budget, &holding(pins), backlog, NOW);
            if let Act::GiveUp(_) = act {
                held.gave_up(2 << 20);
            }
            (act, held.alarm().is_some())
        };
        assert_eq!(decide(8 << 20, Backlog::OnItsWay), (Act::Nothing, true));
        assert!(matches!(decide(8 << 20, Backlog::Stuck).0, Act::GiveUp(_)));
        assert_eq!(decide(2 << 20, Backlog::Stuck), (Act::Nothing, true), "it is still said");
        assert!(matches!(decide(3 << 20, Backlog::Stuck).0, Act::GiveUp(_)));
        assert_eq!(decide(0, Backlog::Stuck), (Act::Nothing, false));
        assert!(matches!(decide(1 << 20, Backlog::Stuck).0, Act::GiveUp(_)), "from the beginning");
    }

    #[test]
    fn what_is_on_its_way_is_given_up_where_it_does_not_become_less() {
        let budget = Budget { bytes: Some(100), when_full: WhenFull::Barrier, ..Budget::default() };
        let mut held = HeldBack::default();
        let mut at = |seconds, pins| {
            held.decide(&budget, &Holding { pins, ..Holding::default() }, Backlog::OnItsWay, later(seconds))
        };
        assert_eq!((at(0, 8 << 20), at(299, 9 << 20)), (Act::Nothing, Act::Nothing));
        assert_eq!(at(300, 7 << 20), Act::Nothing, "it becomes less");
        assert_eq!(at(599, 9 << 20), Act::Nothing);
        assert!(matches!(at(600, 7 << 20), Act::GiveUp(_)), "an archive that takes less than is written");
    }

    #[test]
    fn nothing_is_waited_for_where_the_disk_is_nearly_full() {
        let room = |free| Holding { pins: 8 << 20, rooms: vec![Room { free, total: 100 << 30 }], ..Holding::default() };
        let decide = |free| HeldBack::default().decide(&Budget::default(), &room(free), Backlog::OnItsWay, NOW);
        assert_eq!(decide(600 << 20), Act::Nothing);
        assert!(matches!(decide(500 << 20), Act::GiveUp(_)));
    }
}
