//! How long ago something was, by a clock that can be set.

use std::time::Duration;

use pitr_archive::clock::{Clock, Micros, Steady};

/// A clock that went back tells nothing about how long it has been: whatever waits is due, and waits anew from there.
/// To wait until the clock comes back could mean an hour without a segment.
pub fn elapsed(since: Micros, now: Micros) -> Duration {
    u64::try_from(now.0.saturating_sub(since.0)).map_or(Duration::MAX, Duration::from_micros)
}

/// A moment on both clocks, for what must not be taken for shorter than it was.
///
/// A wall clock that is set back while a process does not run hides that it did not; the steady clock of a virtual machine
/// that is stopped and goes on knows nothing of it. The longer answer counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    wall: Micros,
    steady: Steady,
}

impl Moment {
    pub fn now(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), steady: clock.steady() }
    }

    /// How long ago that was, at least.
    pub fn ago(self, clock: &dyn Clock) -> Duration {
        elapsed(self.wall, clock.now()).max(clock.steady().since(self.steady))
    }
}

#[cfg(test)]
mod tests {
    use pitr_archive::clock::ManualClock;

    use super::*;

    #[test]
    fn neither_clock_alone_can_hide_how_long_it_was() {
        let hour = Duration::from_secs(3600);
        let clock = ManualClock::new(Micros(1_000_000_000_000));
        let moment = Moment::now(&clock);
        assert_eq!(moment.ago(&clock), Duration::ZERO);
        clock.advance(3_600_000_000);
        clock.jump(-3_599_000_000);
        assert_eq!(moment.ago(&clock), hour, "the wall clock was set back");
        let moment = Moment::now(&clock);
        clock.jump(3_600_000_000);
        assert_eq!(moment.ago(&clock), hour, "the machine was stopped");
    }

    #[test]
    fn what_waits_is_due_when_the_clock_goes_back() {
        assert_eq!(elapsed(Micros(5), Micros(7)), Duration::from_micros(2));
        assert_eq!(elapsed(Micros(5), Micros(5)), Duration::ZERO);
        assert_eq!(elapsed(Micros(5), Micros(4)), Duration::MAX);
    }
}
