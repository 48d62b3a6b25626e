//! So many bytes a second.
//!
//! Owns: a token bucket with two classes. What is urgent waits only for what is urgent; the rest gets what is left, also
//! of the time that the urgent took. A bucket holds one second's bytes, so that what comes now and then does not wait;
//! a piece larger than that passes and is paid off afterwards. Waiting can be given up: nothing is taken then.
//! Refuses: knowing what the bytes are. One bucket is shared by everything that a limit counts together.

use std::{
    num::NonZeroU64,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// What may be used at once after a pause.
const BURST: Duration = Duration::from_secs(1);

/// Longer than any process lives.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Who waits for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Waits for its like only.
    Urgent,
    /// Waits for everything.
    Rest,
}

/// A limit in bytes a second.
#[derive(Debug)]
pub struct Rate {
    bytes_per_second: NonZeroU64,
    paid: Mutex<Paid>,
}

/// Until when what was taken is paid for. In the past: there is something to take.
#[derive(Clone, Copy, Debug)]
struct Paid {
    urgent: Instant,
    all: Instant,
}

impl Paid {
    fn of(self, class: Class) -> Instant {
        match class {
            Class::Urgent => self.urgent,
            Class::Rest => self.all,
        }
    }

    fn charge(&mut self, class: Class, cost: Duration, now: Instant) {
        self.all = later(self.all.max(now), cost);
        if class == Class::Urgent {
            self.urgent = later(self.urgent.max(now), cost);
        }
    }
}

/// A time beyond what can be told is never.
fn later(time: Instant, by: Duration) -> Instant {
    time.checked_add(by).unwrap_or(time + NEVER)
}

impl Rate {
    /// A full bucket.
    pub fn new(bytes_per_second: NonZeroU64) -> Self {
        let now = Instant::now();
        Self { bytes_per_second, paid: Mutex::new(Paid { urgent: now, all: now }) }
    }

    /// The limit.
    pub fn bytes_per_second(&self) -> NonZeroU64 {
        self.bytes_per_second
    }

    /// Waits until `bytes` may be used, and takes them.
    pub async fn take(&self, class: Class, bytes: u64) {
        while let Err(until) = self.try_take(class, bytes) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Waits until what was taken is paid for, and takes nothing.
    pub async fn until_paid(&self, class: Class) {
        self.take(class, 0).await;
    }

    /// Whether [`Rate::take`] would not wait now.
    pub fn is_paid(&self, class: Class) -> bool {
        let paid = *self.paid();
        paid.of(class) <= Instant::now() + BURST
    }

    /// Takes `bytes` that were used already, whatever is left.
    pub fn charge(&self, class: Class, bytes: u64) {
        let cost = self.cost(bytes);
        self.paid().charge(class, cost, Instant::now());
    }

    // A panic while the lock is held leaves two times that are still true.
    fn paid(&self) -> MutexGuard<'_, Paid> {
        self.paid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `bytes`, or says when to try again.
    fn try_take(&self, class: Class, bytes: u64) -> Result<(), Instant> {
        let cost = self.cost(bytes);
        let mut paid = self.paid();
        let now = Instant::now();
        match paid.of(class).checked_duration_since(now + BURST) {
            Some(wait) if !wait.is_zero() => Err(now + wait),
            _ => {
                paid.charge(class, cost, now);
                Ok(())
            }
        }
    }

    fn cost(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        u64::try_from(nanos).map_or(NEVER, Duration::from_nanos).min(NEVER)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn rate(bytes: u64) -> Rate {
        Rate::new(NonZeroU64::new(bytes).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn over_time_no_more_than_the_rate_is_taken_and_after_a_pause_a_second_s_bytes_at_once() {
        let rate = rate(1000);
        let start = Instant::now();
        for _ in 0..100 {
            rate.take(Class::Rest, 100).await;
        }
        let took = start.elapsed();
        assert!(took > Duration::from_millis(8800) && took <= Duration::from_secs(9), "{took:?}");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let start = Instant::now();
        for _ in 0..10 {
            rate.take(Class::Rest, 100).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_urgent_never_waits_for_the_rest_and_the_rest_gets_what_it_leaves() {
        let rate = Arc::new(rate(1000));
        let rest = tokio::spawn({
            let rate = Arc::clone(&rate);
            async move {
                let start = Instant::now();
                for _ in 0..20 {
                    rate.take(Class::Rest, 1000).await;
                }
                start.elapsed()
            }
        });
        let start = Instant::now();
        // Half of the rate, for twenty seconds.
        for _ in 0..20 {
            let before = Instant::now();
            rate.take(Class::Urgent, 500).await;
            assert_eq!(before.elapsed(), Duration::ZERO, "at {:?}", start.elapsed());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let took = rest.await.unwrap();
        assert!(took >= Duration::from_secs(27), "20 s of its own and 10 s of what is urgent: {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_larger_than_the_bucket_passes_and_is_paid_off() {
        let rate = rate(1000);
        let start = Instant::now();
        rate.take(Class::Urgent, 10_000).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        rate.take(Class::Urgent, 1).await;
        assert!(start.elapsed() >= Duration::from_secs(9));
        rate.take(Class::Rest, u64::MAX).await;
        rate.charge(Class::Rest, u64::MAX);
        assert!(!rate.is_paid(Class::Rest) && rate.is_paid(Class::Urgent));
    }
}
