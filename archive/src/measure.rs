//! Measuring without waiting: durations in fixed buckets, counted by atomics.
//!
//! Owns: the buckets. They are the same for everything that is measured, so that figures of two archives can be added.
//! Refuses: to know what is measured, and clocks: whoever notes a duration took it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The upper ends of the buckets in microseconds, each included: 1 ms to 1 minute, three to a power of ten. One more
/// bucket holds what is longer.
pub const BOUNDS: [u64; 15] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// Durations, counted by length. Any number of threads note them.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; BOUNDS.len()],
    longer: AtomicU64,
    micros: AtomicU64,
}

/// What was counted until some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurationCounts {
    /// How many fell into each bucket of [`BOUNDS`], those of shorter ones not included.
    pub buckets: [u64; BOUNDS.len()],
    /// How many were longer than the last bound.
    pub longer: u64,
    /// All of them together, in microseconds.
    pub micros: u64,
}

impl Durations {
    /// Counts one.
    pub fn note(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets.get(at).unwrap_or(&self.longer).fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was counted. One that is noted meanwhile may be in a bucket and not yet in the sum.
    pub fn read(&self) -> DurationCounts {
        DurationCounts {
            buckets: std::array::from_fn(|i| self.buckets.get(i).map_or(0, |n| n.load(Ordering::Relaxed))),
            longer: self.longer.load(Ordering::Relaxed),
            micros: self.micros.load(Ordering::Relaxed),
        }
    }
}

impl DurationCounts {
    /// How many.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum::<u64>() + self.longer
    }

    /// The end of the bucket that holds the shortest `share` (0 to 1) of all; `None` when there are none, or when it is
    /// longer than the last bound.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * share).ceil().max(1.0);
        let mut below = 0.0;
        self.buckets.iter().zip(BOUNDS).find_map(|(n, bound)| {
            below += *n as f64;
            (below >= wanted).then(|| Duration::from_micros(bound))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_one_bucket_and_the_bound_belongs_to_the_shorter_one() {
        let all = Durations::default();
        for micros in [0, 1_000, 1_001, 60_000_000, 60_000_001] {
            all.note(Duration::from_micros(micros));
        }
        let read = all.read();
        assert_eq!((read.buckets[0], read.buckets[1], read.buckets[14], read.longer), (2, 1, 1, 1));
        assert_eq!((read.count(), read.micros), (5, 120_002_002));
    }

    #[test]
    fn a_quantile_is_the_end_of_its_bucket_and_unknown_where_nothing_bounds_it() {
        let all = Durations::default();
        assert_eq!(all.read().quantile(0.5), None);
        for micros in [500, 600, 3_000, 70_000_000] {
            all.note(Duration::from_micros(micros));
        }
        let read = all.read();
        assert_eq!(read.quantile(0.5), Some(Duration::from_millis(1)));
        assert_eq!(read.quantile(0.75), Some(Duration::from_millis(5)));
        assert_eq!(read.quantile(0.99), None);
    }
}
