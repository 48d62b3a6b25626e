//! Waiting for a store is not hanging.
//!
//! Owns: that the loop is seen to turn while it waits for a request that it cannot go on without (a manifest, a tag, a base's
//! publication): behind a firewall that swallows packets one takes minutes with its repetitions, and a watchdog that ends
//! the process then would take away the only thing that holds what the archive lacks.
//! Refuses: patience without an end, and with a thread that is held up: then nothing here runs either.

use std::{future::Future, time::Duration};

use pitr_archive::clock::Clock;

use crate::Metrics;

/// Between two signs. Watchdogs are looked after at least that often.
const SIGN: Duration = Duration::from_secs(1);

/// What waits for longer hangs: one step makes a handful of requests, each with its repetitions of at most nine minutes.
const LONGEST: Duration = Duration::from_secs(3600);

/// Waits for a step's end, and says that the loop turns all the while.
pub(super) async fn attended<T>(metrics: &Metrics, clock: &dyn Clock, step: impl Future<Output = T>) -> T {
    tokio::pin!(step);
    let began = tokio::time::Instant::now();
    loop {
        tokio::select! {
            biased;
            done = &mut step => return done,
            () = tokio::time::sleep(SIGN), if began.elapsed() < LONGEST => metrics.turned(clock.now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use pitr_archive::clock::SystemClock;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_that_waits_for_a_store_turns_and_one_that_waits_for_hours_hangs() {
        let metrics = Metrics::default();
        let waits = |secs| tokio::time::sleep(Duration::from_secs(secs));
        attended(&metrics, &SystemClock, waits(600)).await;
        let (turned, _) = metrics.alive();
        assert!((598..=600).contains(&turned), "{turned}");
        attended(&metrics, &SystemClock, waits(20 * 3600)).await;
        let more = metrics.alive().0 - turned;
        assert!((3598..=3601).contains(&more), "{more}");
    }
}
