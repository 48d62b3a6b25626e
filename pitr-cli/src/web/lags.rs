//! The lag of the last day.
//!
//! Owns: one sample for every minute, the worst that was seen in it, in memory only: 1,440 of them. A minute in which nothing
//! was known has none. Pure.

use std::{collections::VecDeque, time::Duration};

use pitr_archive::clock::Micros;

const MINUTE: i64 = 60_000_000;
/// Minutes of a day.
const KEPT: i64 = 24 * 60;

/// The worst lag of one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    minute: i64,
    /// The worst that was seen.
    pub lag: Duration,
}

impl Sample {
    /// When the minute began.
    pub const fn at(&self) -> Micros {
        Micros(self.minute * MINUTE)
    }

    /// Whether this one's minute is the next behind another's.
    pub const fn follows(&self, other: &Self) -> bool {
        self.minute == other.minute + 1
    }
}

/// The samples, in order.
#[derive(Clone, Debug, Default)]
pub struct Lags(VecDeque<Sample>);

impl Lags {
    /// Notes one look. A clock that went back writes its minutes anew.
    pub fn note(&mut self, now: Micros, lag: Duration) {
        let minute = now.0.div_euclid(MINUTE);
        while self.0.back().is_some_and(|last| last.minute > minute) {
            self.0.pop_back();
        }
        match self.0.back_mut() {
            Some(last) if last.minute == minute => last.lag = last.lag.max(lag),
            _ => self.0.push_back(Sample { minute, lag }),
        }
        while self.0.front().is_some_and(|first| first.minute <= minute - KEPT) {
            self.0.pop_front();
        }
    }

    /// Those of the day before `now`.
    pub fn since_a_day(&self, now: Micros) -> Vec<Sample> {
        let minute = now.0.div_euclid(MINUTE);
        self.0.iter().filter(|s| s.minute > minute - KEPT && s.minute <= minute).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lags(noted: &[(i64, u64)]) -> Lags {
        let mut lags = Lags::default();
        for (second, lag) in noted {
            lags.note(Micros(second * 1_000_000), Duration::from_secs(*lag));
        }
        lags
    }

    fn read(lags: &Lags, now: i64) -> Vec<(i64, u64)> {
        lags.since_a_day(Micros(now * 1_000_000)).iter().map(|s| (s.at().0 / 1_000_000, s.lag.as_secs())).collect()
    }

    #[test]
    fn a_minute_keeps_its_worst_and_minutes_without_a_look_are_left_out() {
        let lags = lags(&[(0, 1), (59, 3), (30, 2), (60, 1), (240, 9)]);
        assert_eq!(read(&lags, 250), [(0, 3), (60, 1), (240, 9)]);
        let samples = lags.since_a_day(Micros(250_000_000));
        assert!(samples[1].follows(&samples[0]) && !samples[2].follows(&samples[1]));
    }

    #[test]
    fn a_day_is_kept_and_nothing_else_however_long_it_runs() {
        let all: Vec<_> = (0..5_000).map(|minute| (minute * 60, 1)).collect();
        let lags = lags(&all);
        assert_eq!(lags.0.len(), 1_440);
        assert_eq!(read(&lags, 5_000 * 60).len(), 1_439, "the oldest is more than a day old by now");
    }

    #[test]
    fn a_clock_that_goes_back_writes_its_minutes_anew() {
        assert_eq!(read(&lags(&[(0, 1), (600, 5), (60, 2)]), 61), [(0, 1), (60, 2)]);
    }
}
