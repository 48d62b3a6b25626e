//! How long new WALs waited for their pins.
//!
//! Owns: the last delays, and what is said of them. A WAL that is deleted before it is pinned is a barrier: the highest of
//! these figures against the shortest life of a WAL says how near that is.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

/// So many delays are remembered: enough for one in a thousand to be more than a single case.
const REMEMBERED: usize = 16_384;

/// The last delays.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    micros: VecDeque<u64>,
    pinned: u64,
}

/// From a WAL's appearance in its directory to our pin, in microseconds. The kernel notes a file's birth to a few
/// milliseconds only; nothing here is less than the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinDelay {
    /// WALs pinned since the start.
    pub pinned: u64,
    /// Half of the last ones waited no longer.
    pub p50: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1000.
    pub p999: u64,
    /// None waited longer.
    pub max: u64,
}

impl Delays {
    pub fn note(&mut self, delay: Duration) {
        if self.micros.len() == REMEMBERED {
            self.micros.pop_front();
        }
        self.micros.push_back(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
        self.pinned += 1;
    }

    /// `None` as long as nothing was pinned.
    pub fn summary(&self) -> Option<PinDelay> {
        let mut sorted: Vec<u64> = self.micros.iter().copied().collect();
        sorted.sort_unstable();
        let max = *sorted.last()?;
        // The smallest value that so many of a thousand do not exceed.
        let at = |thousandths: usize| sorted.get((sorted.len() * thousandths).div_ceil(1000).saturating_sub(1));
        let at = |thousandths| at(thousandths).copied().unwrap_or(max);
        Some(PinDelay { pinned: self.pinned, p50: at(500), p99: at(990), p999: at(999), max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentiles_are_of_the_last_ones() {
        let mut delays = Delays::default();
        assert_eq!(delays.summary(), None);
        delays.note(Duration::from_micros(7));
        assert_eq!(delays.summary(), Some(PinDelay { pinned: 1, p50: 7, p99: 7, p999: 7, max: 7 }));
        for micros in 1..=20_000 {
            delays.note(Duration::from_micros(micros));
        }
        let PinDelay { pinned, p50, p99, p999, max } = delays.summary().unwrap();
        let oldest = 20_000 - REMEMBERED as u64;
        let share = |thousandths: u64| oldest + (REMEMBERED as u64 * thousandths).div_ceil(1000);
        assert_eq!((pinned, max), (20_001, 20_000));
        assert_eq!((p50, p99, p999), (share(500), share(990), share(999)));
    }
}
