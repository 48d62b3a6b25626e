//! How often barriers may have a base.
//!
//! Owns: the waiting time between bases that nobody but barriers asks for. The first comes at once: what lies behind its
//! barrier is out of reach until then. While they keep coming, each waits twice as long as the one before, up to a limit;
//! once none has been wanted for twice the present wait, the next comes at once again.
//! A base that somebody asked for, that a run needs, or that follows an open of the server is not delayed. Pure.

use std::time::Duration;

use pitr_archive::clock::Micros;

use crate::elapsed::elapsed;

/// The present waiting time.
#[derive(Clone, Debug)]
pub struct Pace {
    shortest: Duration,
    longest: Duration,
    wait: Duration,
    last: Option<Micros>,
}

impl Pace {
    /// From `shortest` on, up to `longest`.
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest: longest.max(shortest), wait: shortest, last: None }
    }

    /// When the next one may be taken; `None`: now.
    pub fn due(&self, now: Micros) -> Option<Micros> {
        let last = self.last?;
        let wait = i64::try_from(self.wait.as_micros()).unwrap_or(i64::MAX);
        // A clock that was set back must not stop bases for longer than they would wait.
        let waits = last <= now && elapsed(last, now) < self.wait;
        waits.then(|| Micros(last.0.saturating_add(wait)))
    }

    /// One is taken.
    pub fn taken(&mut self, now: Micros) {
        let keeps_coming = self.last.is_some_and(|last| elapsed(last, now) < self.wait * 2);
        self.wait = if keeps_coming { (self.wait * 2).min(self.longest) } else { self.shortest };
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn at(minutes: i64) -> Micros {
        Micros(1_000_000 + minutes * MINUTE)
    }

    #[test]
    fn the_first_comes_at_once_and_those_that_keep_coming_wait_longer_and_longer() {
        let mut pace = Pace::new(Duration::from_secs(60), Duration::from_secs(15 * 60));
        let mut now = 0;
        let mut waits = Vec::new();
        assert_eq!(pace.due(at(0)), None);
        for _ in 0..7 {
            pace.taken(at(now));
            let due = pace.due(at(now)).unwrap();
            waits.push((due.0 - at(now).0) / MINUTE);
            assert_eq!(pace.due(Micros(due.0 - 1)), Some(due));
            assert_eq!(pace.due(due), None);
            now += waits[waits.len() - 1];
        }
        assert_eq!(waits, [1, 2, 4, 8, 15, 15, 15]);
    }

    #[test]
    fn after_a_pause_it_begins_anew() {
        let mut pace = Pace::new(Duration::from_secs(60), Duration::from_secs(15 * 60));
        pace.taken(at(0));
        pace.taken(at(1));
        assert_eq!(pace.due(at(1)), Some(at(3)));
        pace.taken(at(5));
        assert_eq!(pace.due(at(5)), Some(at(6)));
        assert_eq!(pace.due(at(0)), None, "the clock was set back");
    }
}
