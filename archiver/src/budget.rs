//! How much may be held back while the archive is away, and what is done beyond that.
//!
//! Owns: the decision. Pins keep what the server deletes until the archive has acknowledged it, so they grow for as long
//! as the archive is away; the server's own file system must outlive that. Two limits: a budget of what pins may hold,
//! with what follows beyond it, and a floor of free space, below which everything that only we hold is given up whatever
//! the operator asked for: a server that stops is worse than a gap.
//! Pure: [`crate::archiver`] measures and acts.

use std::time::Duration;

use pitr_archive::clock::Micros;
use serde::{Deserialize, Serialize};

use crate::elapsed::elapsed;

/// What is done when pins hold more than their budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// They are kept and an alarm is given: nothing is lost as long as the file system has room.
    #[default]
    Hold,
    /// What only they hold is given up: a barrier in the archive, and a new base once it can be reached.
    Barrier,
}

/// How much of the server's file systems stays free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// The smaller of 1 GiB and a twentieth of the file system.
    Usual,
    /// Bytes.
    Bytes(u64),
}

/// What is left free where nobody said how much.
const USUAL_FLOOR: u64 = 1 << 30;
/// On a small file system, this part of it.
const USUAL_PART: u64 = 20;

impl Floor {
    /// Bytes that must stay free on a file system of `total` bytes.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Usual => USUAL_FLOOR.min(total / USUAL_PART),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// What the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes that only pins hold; `None`: as much as the floor allows.
    pub bytes: Option<u64>,
    /// What follows beyond them.
    pub when_full: WhenFull,
    /// What stays free.
    pub floor: Floor,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: None, when_full: WhenFull::Hold, floor: Floor::Usual }
    }
}

/// Room on one file system that pins lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that an ordinary user can still write.
    pub free: u64,
    /// Its size in bytes.
    pub total: u64,
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Bytes that only pins hold: of logs and MANIFESTs that the server has deleted, and copies of recycled logs.
    pub pins: u64,
    /// Bytes that only the links of a base in progress hold.
    pub base: u64,
    /// Bytes of the log, from the oldest that the archive has not acknowledged.
    pub backlog: u64,
    /// When the oldest of them was read; while the log is not read to its end, a time before which everything was.
    pub oldest: Option<Micros>,
    /// Every file system that pins lie on.
    pub rooms: Vec<Room>,
}

/// Which limit was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Pins (and a base in progress) hold more than they may.
    Budget {
        /// Bytes held.
        held: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// A file system has less room left than it must have.
    Floor {
        /// Bytes free.
        free: u64,
        /// Bytes that must stay free.
        floor: u64,
    },
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Budget { held, allowed } => write!(f, "{held} bytes are held, the budget is {allowed}"),
            Self::Floor { free, floor } => write!(f, "{free} bytes are free, {floor} must stay so"),
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// Tell people; keep everything.
    Alarm(Limit),
    /// Give up the base in progress: it can be taken again, what pins hold cannot.
    AbandonBase(Limit),
    /// Give up what only pins hold.
    GiveUp(Limit),
}

impl Budget {
    /// What these measurements ask for.
    pub fn judge(&self, holding: &Holding) -> Verdict {
        let short = holding.rooms.iter().find_map(|room| {
            let floor = self.floor.of(room.total);
            (room.free < floor).then_some(Limit::Floor { free: room.free, floor })
        });
        let held = holding.pins.saturating_add(holding.base);
        let over = self.bytes.filter(|allowed| held > *allowed).map(|allowed| Limit::Budget { held, allowed });
        match (short, over) {
            (None, None) => Verdict::Fine,
            (Some(limit), _) | (None, Some(limit)) if holding.base > 0 => Verdict::AbandonBase(limit),
            // Where the disk is filled by others there is nothing that we could give back.
            (Some(limit), _) if holding.pins > 0 => Verdict::GiveUp(limit),
            (Some(limit), _) => Verdict::Alarm(limit),
            (None, Some(limit)) => match self.when_full {
                WhenFull::Hold => Verdict::Alarm(limit),
                WhenFull::Barrier => Verdict::GiveUp(limit),
            },
        }
    }

    /// How long until a limit is met, if the log goes on growing as it has since its oldest unacknowledged byte. `None`
    /// where nothing waits.
    pub fn time_to_full(&self, holding: &Holding, now: Micros) -> Option<Duration> {
        let waits = elapsed(holding.oldest?, now);
        if holding.backlog == 0 || waits == Duration::MAX {
            return None;
        }
        // A moment's burst is no trend.
        let seconds = waits.as_secs_f64().max(1.0);
        let held = holding.pins.saturating_add(holding.base);
        let by_budget = self.bytes.map(|allowed| allowed.saturating_sub(held));
        let by_room = holding.rooms.iter().map(|room| room.free.saturating_sub(self.floor.of(room.total))).min();
        let left = by_budget.into_iter().chain(by_room).min()?;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let estimate = left as f64 / (holding.backlog as f64 / seconds);
        Some(Duration::try_from_secs_f64(estimate).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Room = Room { free: 50 << 30, total: 100 << 30 };
    const TIGHT: Room = Room { free: (1 << 30) - 1, total: 100 << 30 };

    fn holding(pins: u64, base: u64, room: Room) -> Holding {
        Holding { pins, base, rooms: vec![ROOMY, room], ..Holding::default() }
    }

    fn budget(bytes: Option<u64>, when_full: WhenFull) -> Budget {
        Budget { bytes, when_full, floor: Floor::Usual }
    }

    #[test]
    fn beyond_the_budget_follows_what_the_operator_chose() {
        let full = holding(101, 0, ROOMY);
        let limit = Limit::Budget { held: 101, allowed: 100 };
        assert_eq!(budget(Some(100), WhenFull::Hold).judge(&full), Verdict::Alarm(limit));
        assert_eq!(budget(Some(100), WhenFull::Barrier).judge(&full), Verdict::GiveUp(limit));
        assert_eq!(budget(Some(101), WhenFull::Barrier).judge(&full), Verdict::Fine);
        assert_eq!(budget(None, WhenFull::Barrier).judge(&full), Verdict::Fine);
    }

    #[test]
    fn the_floor_of_free_space_is_kept_whatever_the_operator_chose() {
        for policy in [WhenFull::Hold, WhenFull::Barrier] {
            let verdict = budget(None, policy).judge(&holding(1, 0, TIGHT));
            assert!(matches!(verdict, Verdict::GiveUp(Limit::Floor { .. })), "{verdict:?}");
            let others = budget(None, policy).judge(&holding(0, 0, TIGHT));
            assert!(matches!(others, Verdict::Alarm(Limit::Floor { .. })), "nothing is ours to give back: {others:?}");
        }
    }

    #[test]
    fn a_base_in_progress_is_given_up_before_the_log_is() {
        for room in [ROOMY, TIGHT] {
            let verdict = budget(Some(100), WhenFull::Barrier).judge(&holding(60, 60, room));
            assert!(matches!(verdict, Verdict::AbandonBase(_)), "{verdict:?}");
        }
    }

    #[test]
    fn a_small_file_system_keeps_a_twentieth_free() {
        assert_eq!(Floor::Usual.of(4 << 20), (4 << 20) / 20);
        assert_eq!(Floor::Usual.of(1 << 40), 1 << 30);
        assert_eq!(Floor::Bytes(7).of(1 << 40), 7);
    }

    #[test]
    fn the_time_to_full_is_measured_from_the_oldest_unacknowledged_byte() {
        let budget = budget(Some(1_000), WhenFull::Hold);
        // 100 bytes in 10 seconds, 900 left: 90 seconds, however much of it the server itself still has.
        let waits = Holding { pins: 100, backlog: 100, oldest: Some(Micros(0)), ..Holding::default() };
        assert_eq!(budget.time_to_full(&waits, Micros(10_000_000)), Some(Duration::from_secs(90)));
        assert_eq!(budget.time_to_full(&Holding::default(), Micros(10_000_000)), None);
    }
}
