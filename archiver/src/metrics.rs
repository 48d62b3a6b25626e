//! What an archiver tells of itself while it runs, for whoever looks from outside.
//!
//! Owns: counters that only grow, and the last [`Figures`]: one consistent picture, renewed once a second by the daemon's own
//! loop. Looking takes a lock for the time of a pointer's copy and asks nothing of the archiver, so that nobody who looks can
//! hold it up. The same value serves one archiver after the other where a service opens it again.
//! [`Metrics::alive`] is said by the loop and by nothing else: who feeds a watchdog from it feeds it only while the loop turns.
//! Refuses: to decide what is late or bad, and names and formats (the command line's).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use pitr_archive::{
    Code, Result,
    clock::Micros,
    error,
    measure::{DurationCounts, Durations},
    segment::entry::{BarrierReason, Event},
};

use crate::{Archiver, control::Status, elapsed::elapsed, engine::Polled, ship::Shipment};

/// How often the picture is renewed.
const EVERY: Duration = Duration::from_secs(1);
/// A picture that is older was not renewed: the loop waits for something.
const STALE: Duration = Duration::from_secs(5);
/// What is under way for less is on its way, and tells nothing about the room that an outage needs.
const BEHIND: Duration = Duration::from_secs(5);

/// Counters and the last picture of one archiver.
#[derive(Debug, Default)]
pub struct Metrics {
    alive: AtomicU64,
    alive_at: AtomicI64,
    records_read: AtomicU64,
    bytes_read: AtomicU64,
    records: AtomicU64,
    segments: AtomicU64,
    heartbeats: AtomicU64,
    plain_bytes: AtomicU64,
    object_bytes: AtomicU64,
    bases: AtomicU64,
    tags: AtomicU64,
    merged: AtomicU64,
    merged_bytes: AtomicU64,
    superseded_deleted: AtomicU64,
    delivery: Durations,
    seldom: Mutex<Seldom>,
}

/// What changes seldom enough for a lock.
#[derive(Debug, Default)]
struct Seldom {
    barriers: BTreeMap<BarrierReason, u64>,
    base_failures: BTreeMap<Code, u64>,
    figures: Option<Arc<Figures>>,
}

/// What was counted until some moment. Everything counts from when the process began.
#[derive(Clone, Debug)]
pub struct Counts {
    /// How often the loop has turned.
    pub alive: u64,
    /// When it did last; `None` before the first time.
    pub alive_at: Option<Micros>,
    /// Records read.
    pub records_read: u64,
    /// Their plain bytes.
    pub bytes_read: u64,
    /// Records that the archive has acknowledged.
    pub records: u64,
    /// Segments with records or events that it has acknowledged.
    pub segments: u64,
    /// Segments without any.
    pub heartbeats: u64,
    /// Plain bytes of acknowledged segments.
    pub plain_bytes: u64,
    /// Bytes of their objects.
    pub object_bytes: u64,
    /// Bases published.
    pub bases: u64,
    /// Tags created.
    pub tags: u64,
    /// Merged segments that manifests name.
    pub merged: u64,
    /// Bytes of their objects.
    pub merged_bytes: u64,
    /// Segments deleted whose entries are in larger ones.
    pub superseded_deleted: u64,
    /// From when the oldest entry of a segment was read to when the archive had it; heartbeats are left out.
    pub delivery: DurationCounts,
    /// Barriers that the archive has acknowledged, by reason.
    pub barriers: BTreeMap<BarrierReason, u64>,
    /// Bases that came to nothing, by what was in the way.
    pub base_failures: BTreeMap<Code, u64>,
}

/// How an archiver was doing at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// As the control socket tells it.
    pub status: Status,
    /// Bytes that are free for pins on their file system.
    pub free_bytes: u64,
}

impl Figures {
    pub(crate) fn of(archiver: &Archiver) -> Result<Self> {
        let root = archiver.state_dir.root();
        let disk = rustix::fs::statvfs(root).map_err(|e| error::io("measuring the file system of", root, e.into()))?;
        Ok(Self { status: archiver.status()?, free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize) })
    }

    /// How old the oldest byte is that the archive lacks; zero when it lacks none. A picture that was not renewed for more
    /// than five seconds says nothing about what was written since: all of that may be lacking.
    pub fn lag(&self, now: Micros) -> Duration {
        let seen = self.status.now;
        let since = self.status.oldest_unacknowledged.or((ago(seen, now) > STALE).then_some(seen));
        since.map_or(Duration::ZERO, |since| ago(since, now))
    }

    /// In what time what is held back meets a limit (the budget, or the floor of free space), if writing goes on as it did
    /// since the oldest byte that the archive lacks. `None` while the archive is not behind.
    pub fn time_to_full(&self, now: Micros) -> Option<Duration> {
        let told = Duration::from_secs(self.status.time_to_full?);
        (self.lag(now) >= BEHIND).then(|| told.saturating_sub(ago(self.status.now, now)))
    }
}

/// How long ago; nothing where the clock went back.
fn ago(then: Micros, now: Micros) -> Duration {
    u64::try_from(now.0.saturating_sub(then.0)).map_or(Duration::ZERO, Duration::from_micros)
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Metrics {
    // A panic while the lock is held leaves plain values that are still true.
    fn seldom(&self) -> MutexGuard<'_, Seldom> {
        self.seldom.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let alive = read(&self.alive);
        let seldom = self.seldom();
        Counts {
            alive,
            alive_at: (alive > 0).then(|| Micros(self.alive_at.load(Ordering::Relaxed))),
            records_read: read(&self.records_read),
            bytes_read: read(&self.bytes_read),
            records: read(&self.records),
            segments: read(&self.segments),
            heartbeats: read(&self.heartbeats),
            plain_bytes: read(&self.plain_bytes),
            object_bytes: read(&self.object_bytes),
            bases: read(&self.bases),
            tags: read(&self.tags),
            merged: read(&self.merged),
            merged_bytes: read(&self.merged_bytes),
            superseded_deleted: read(&self.superseded_deleted),
            delivery: self.delivery.read(),
            barriers: seldom.barriers.clone(),
            base_failures: seldom.base_failures.clone(),
        }
    }

    /// The last picture; `None` before the first.
    pub fn figures(&self) -> Option<Arc<Figures>> {
        self.seldom().figures.clone()
    }

    /// How often the loop has turned, and when it did last.
    pub fn alive(&self) -> (u64, Micros) {
        (self.alive.load(Ordering::Relaxed), Micros(self.alive_at.load(Ordering::Relaxed)))
    }

    /// The loop turns.
    pub(crate) fn turned(&self, now: Micros) {
        self.alive_at.store(now.0, Ordering::Relaxed);
        add(&self.alive, 1);
    }

    pub(crate) fn wants_figures(&self, now: Micros) -> bool {
        self.seldom().figures.as_ref().is_none_or(|figures| elapsed(figures.status.now, now) >= EVERY)
    }

    pub(crate) fn show(&self, figures: Figures) {
        self.seldom().figures = Some(Arc::new(figures));
    }

    pub(crate) fn read(&self, polled: Polled) {
        add(&self.records_read, polled.records);
        add(&self.bytes_read, polled.bytes);
    }

    pub(crate) fn acknowledged(&self, shipment: &Shipment, now: Micros) {
        let summary = &shipment.segment.summary;
        let records = summary.end.get().saturating_sub(summary.first.get());
        let empty = records == 0 && summary.events.is_empty();
        add(if empty { &self.heartbeats } else { &self.segments }, 1);
        add(&self.records, records);
        add(&self.plain_bytes, summary.plain_bytes);
        add(&self.object_bytes, summary.object_bytes);
        if let Some(oldest) = shipment.oldest.filter(|_| !empty) {
            self.delivery.note(ago(oldest, now));
        }
        for placed in &summary.events {
            if let Event::Barrier { reason, .. } = &placed.event {
                *self.seldom().barriers.entry(*reason).or_default() += 1;
            }
        }
    }

    pub(crate) fn base(&self) {
        add(&self.bases, 1);
    }

    pub(crate) fn base_failed(&self, code: Code) {
        *self.seldom().base_failures.entry(code).or_default() += 1;
    }

    pub(crate) fn tag(&self) {
        add(&self.tags, 1);
    }

    pub(crate) fn merged(&self, bytes: u64) {
        add(&self.merged, 1);
        add(&self.merged_bytes, bytes);
    }

    pub(crate) fn superseded_deleted(&self, segments: u64) {
        add(&self.superseded_deleted, segments);
    }
}

#[cfg(test)]
mod tests {
    use pitr_archive::{
        catalog::schema::Position,
        ids::{Boundary, Epoch, RunningHash, SequenceNumber, TimelineId},
    };

    use super::*;

    fn figures(oldest: Option<i64>, now: i64) -> Figures {
        let position = Position {
            timeline: TimelineId::FIRST,
            boundary: Boundary::START,
            hash: RunningHash::ZERO,
            wal: None,
            offset: None,
            sequence: SequenceNumber::new(0),
        };
        let status = Status {
            database: String::new(),
            archive: String::new(),
            archive_id: None,
            epoch: Epoch::default(),
            read: position,
            acknowledged: position,
            unacknowledged_records: 0,
            oldest_unacknowledged: oldest.map(|s| Micros(s * 1_000_000)),
            caught_up: None,
            last_acknowledged: None,
            last_base: None,
            base: None,
            base_due: None,
            pinned_bytes: 0,
            backlog_bytes: 1000,
            time_to_full: Some(50),
            alarm: None,
            away: None,
            pin_delay: None,
            base_waits: None,
            barriers: 0,
            waiting: None,
            now: Micros(now * 1_000_000),
        };
        Figures { status, free_bytes: 5_000 }
    }

    fn at(seconds: i64) -> Micros {
        Micros(seconds * 1_000_000)
    }

    #[test]
    fn the_lag_is_the_age_of_the_oldest_byte_that_the_archive_lacks() {
        assert_eq!(figures(None, 100).lag(at(101)), Duration::ZERO);
        assert_eq!(figures(Some(90), 100).lag(at(101)), Duration::from_secs(11));
        assert_eq!(figures(Some(90), 100).lag(at(80)), Duration::ZERO, "a clock that went back");
    }

    #[test]
    fn a_picture_that_is_not_renewed_says_that_everything_since_may_be_lacking() {
        assert_eq!(figures(None, 100).lag(at(105)), Duration::ZERO);
        assert_eq!(figures(None, 100).lag(at(160)), Duration::from_secs(60));
    }

    #[test]
    fn the_time_to_full_passes_and_is_told_only_of_an_archive_that_is_behind() {
        assert_eq!(figures(Some(90), 100).time_to_full(at(100)), Some(Duration::from_secs(50)));
        assert_eq!(figures(Some(90), 100).time_to_full(at(103)), Some(Duration::from_secs(47)));
        assert_eq!(figures(Some(99), 100).time_to_full(at(100)), None, "on its way, not behind");
        assert_eq!(figures(None, 100).time_to_full(at(100)), None);
    }

    #[test]
    fn the_picture_is_due_once_a_second_and_when_the_clock_went_back() {
        let metrics = Metrics::default();
        assert!(metrics.wants_figures(at(0)));
        metrics.show(figures(None, 100));
        assert!(!metrics.wants_figures(Micros(100_999_999)));
        assert!(metrics.wants_figures(at(101)) && metrics.wants_figures(at(99)));
    }
}
