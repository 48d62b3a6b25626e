//! Wall-clock time as a parameter.
//!
//! Owns: the only call of the system clock in this workspace. Everything else takes a [`Clock`], so that time can be
//! set in tests. Times are UTC with microseconds. A wall clock can be set, by people and by time services: how long a
//! writer has been away, on which safety depends, is asked of [`Clock::steady`] as well.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};

/// Microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// As chrono's type; out-of-range values are clamped to its limits.
    pub fn to_datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or(if self.0 < 0 {
            DateTime::<Utc>::MIN_UTC
        } else {
            DateTime::<Utc>::MAX_UTC
        })
    }
}

impl From<DateTime<Utc>> for Micros {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros())
    }
}

/// RFC 3339 with microseconds.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_datetime().to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
    }
}

/// A moment on a clock that nobody sets and that runs on while the machine sleeps. It means nothing to another boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Steady(Duration);

impl Steady {
    /// How long ago `earlier` was; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present time. It may go back: nothing orders positions by it.
    fn now(&self) -> Micros;

    /// The present moment for measuring how long something took. It never goes back.
    fn steady(&self) -> Steady;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        #[allow(clippy::disallowed_methods)] // the one place
        Utc::now().into()
    }

    fn steady(&self) -> Steady {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default());
        Steady(seconds.saturating_add(Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())))
    }
}

/// A clock that moves only when told; clones share it.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<Hands>);

#[derive(Debug, Default)]
struct Hands {
    wall: AtomicI64,
    /// Microseconds.
    steady: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: Micros) -> Self {
        let clock = Self::default();
        clock.set(start);
        clock
    }

    /// So much time passes. With a negative number it is as [`ManualClock::jump`].
    pub fn advance(&self, micros: i64) {
        self.0.steady.fetch_add(u64::try_from(micros).unwrap_or_default(), Ordering::SeqCst);
        self.jump(micros);
    }

    /// Somebody moves the wall clock, back when negative: no time passes.
    pub fn jump(&self, micros: i64) {
        self.0.wall.fetch_add(micros, Ordering::SeqCst);
    }

    /// Somebody sets the wall clock.
    pub fn set(&self, now: Micros) {
        self.0.wall.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        Micros(self.0.wall.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Steady {
        Steady(Duration::from_micros(self.0.steady.load(Ordering::SeqCst)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_is_set_leaves_the_steady_one_alone() {
        let clock = ManualClock::new(Micros(1_000_000));
        let before = clock.steady();
        clock.jump(-3_600_000_000);
        clock.set(Micros(7));
        assert_eq!((clock.now(), clock.steady()), (Micros(7), before));
        clock.advance(5);
        assert_eq!((clock.now(), clock.steady().since(before)), (Micros(12), Duration::from_micros(5)));
        assert_eq!(before.since(clock.steady()), Duration::ZERO);
    }

    #[test]
    fn the_system_s_steady_clock_runs() {
        let before = SystemClock.steady();
        std::thread::sleep(Duration::from_millis(2));
        assert!(SystemClock.steady().since(before) >= Duration::from_millis(1));
    }
}
