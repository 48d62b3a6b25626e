//! How long ago something was, by a clock that can be set.

use std::time::Duration;

use pitr_archive::clock::Micros;

/// A clock that went back tells nothing about how long it has been: whatever waits is due, and waits anew from there.
/// To wait until the clock comes back could mean an hour without a segment.
pub fn elapsed(since: Micros, now: Micros) -> Duration {
    u64::try_from(now.0.saturating_sub(since.0)).map_or(Duration::MAX, Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_due_when_the_clock_goes_back() {
        assert_eq!(elapsed(Micros(5), Micros(7)), Duration::from_micros(2));
        assert_eq!(elapsed(Micros(5), Micros(5)), Duration::ZERO);
        assert_eq!(elapsed(Micros(5), Micros(4)), Duration::MAX);
    }
}
