//! Delivering a segment into the archive.
//!
//! Owns: what a conflict means, and how long to try. A segment's key is created exclusively; when it is taken, the
//! object that is there is read back:
//! - it carries our nonce: an earlier attempt's reply was lost, the segment is ours;
//! - it was written under a newer epoch: another archiver has taken over, this one stops;
//! - it was written under an older epoch: a process that is gone had it under way; the archiver joins behind it, which
//!   compares its records with the files;
//! - anything else is another writer.
//!
//! Refuses: to overwrite, to skip an ordinal, to give up on a store that is away (the caller decides how long).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pitr_archive::{
    Code, Error, Result,
    catalog::archive::{Archive, PutSegment},
    catalog::schema::Position,
    clock::{Clock, Micros},
    code::{Exit, Retry},
    ids::Epoch,
    random::Random,
    segment::{entry::ManifestPoint, writer::FinishedSegment},
};

use serde::{Deserialize, Serialize};

use crate::{config::Parts, elapsed::Moment, engine::EngineState};

/// A segment on its way, with what its acknowledgement allows.
#[derive(Clone, Debug)]
pub struct Shipment {
    /// The segment.
    pub segment: FinishedSegment,
    /// The engine's state at its end.
    pub state: EngineState,
    /// How far the MANIFEST was consumed there.
    pub manifest: ManifestPoint,
    /// The position at its end.
    pub position: Position,
    /// When its oldest entry was read.
    pub oldest: Option<Micros>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It is durable in the archive.
    Acknowledged,
    /// Another segment of a process that is gone has its place: join behind that one.
    JoinBehind,
}

/// What became of it, and when that was asked: whatever the answer tells was true at that moment or later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub delivered: Delivered,
    pub asked: Moment,
}

/// Tries once.
///
/// # Errors
/// `writer.fenced` when another archiver has the archive.
pub(crate) async fn deliver(
    archive: &Archive,
    epoch: Epoch,
    shipment: &Shipment,
    clock: &dyn Clock,
) -> Result<Answered> {
    let asked = Moment::now(clock);
    crate::crash::point("before-put");
    let put = archive.put_segment(&shipment.segment).await?;
    crate::crash::point("after-put");
    match put {
        PutSegment::Created => Ok(Answered { delivered: Delivered::Acknowledged, asked }),
        PutSegment::Conflict(other)
            if other.epoch < epoch && other.hash_before == shipment.segment.summary.hash_before =>
        {
            Ok(Answered { delivered: Delivered::JoinBehind, asked })
        }
        PutSegment::Conflict(other) => Err(Error::new(Code::Fenced, "shipping")
            .on(&shipment.segment.key)
            .with("our epoch", epoch)
            .with("its epoch", other.epoch)),
    }
}

/// Tries until it is delivered or cannot be; `reach` tells meanwhile how that goes.
pub(crate) async fn deliver_patiently(
    archive: Arc<Archive>,
    epoch: Epoch,
    shipment: Arc<Shipment>,
    parts: Parts,
    reach: Arc<Reach>,
) -> Result<Answered> {
    let mut backoff = Backoff::default();
    loop {
        match deliver(&archive, epoch, &shipment, &*parts.clock).await {
            Err(e) if passes(e.code()) => {
                let wait = backoff.next(&*parts.random);
                tracing::warn!(error = %e, wait_ms = wait.as_millis(), "the archive is not reachable; trying again");
                reach.failed(&e, parts.clock.now());
                tokio::time::sleep(wait).await;
            }
            done => {
                reach.answered();
                return done;
            }
        }
    }
}

/// Whether an error of a running archiver can pass without its being started anew: also what somebody has to set right in
/// the store (a key that expired, a bucket's policy). Ending would end the pins, too, and make a gap of a mistake.
pub fn passes(code: Code) -> bool {
    code.retry() == Retry::Later || code.exit() == Exit::Store
}

/// The pause before the next attempt: 1 s, doubling to 32 s, each shortened by up to half at random, so that many
/// archivers do not come back at the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Duration::from_secs(1))
    }
}

impl Backoff {
    const LONGEST: Duration = Duration::from_secs(32);

    /// The next pause.
    pub fn next(&mut self, random: &dyn Random) -> Duration {
        let whole = self.0;
        self.0 = (whole * 2).min(Self::LONGEST);
        // Without randomness the whole pause is as good.
        let part = random.bytes::<1>().map_or(1.0, |[byte]| f64::from(byte) / 255.0);
        whole.mul_f64(0.5 + part / 2.0)
    }
}

/// Attempts that failed in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// When the first of them did.
    pub since: Micros,
    /// How many.
    pub attempts: u64,
    /// What the last one said.
    pub error: String,
}

/// Whether the archive answers.
#[derive(Debug, Default)]
pub struct Reach(Mutex<Option<Failing>>);

impl Reach {
    // A panic while the lock is held leaves a plain value that is still true.
    fn lock(&self) -> MutexGuard<'_, Option<Failing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt failed.
    pub fn failed(&self, e: &Error, now: Micros) {
        let mut failing = self.lock();
        let known = failing.get_or_insert_with(|| Failing { since: now, attempts: 0, error: String::new() });
        known.attempts += 1;
        known.error = e.to_string();
    }

    /// It answered.
    pub fn answered(&self) {
        *self.lock() = None;
    }

    /// Since when and how it does not.
    pub fn failing(&self) -> Option<Failing> {
        self.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use pitr_archive::random::OsRandom;

    use super::*;

    #[test]
    fn the_pause_doubles_from_a_second_to_half_a_minute_and_is_never_shorter_than_half() {
        let mut backoff = Backoff::default();
        for whole in [1, 2, 4, 8, 16, 32, 32] {
            let whole = Duration::from_secs(whole);
            let pause = backoff.next(&OsRandom);
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
        }
    }
}
