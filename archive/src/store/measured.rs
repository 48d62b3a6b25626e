//! A store that counts what it is asked.
//!
//! Owns: for one store, by kind of request: how many there were, which failed with which code and how long they took; the
//! bytes that went there and came back; since when it has answered nothing but errors.
//! Counting costs a few atomic additions; a lock is taken for failures and for the first answer behind them only.
//! Refuses: to repeat or to change anything. What the driver repeats by itself is asked of it ([`Store::repeated`]).

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;
use bytes::Bytes;

pub use super::request::Request;
use super::{Listed, Put, Store, Upload, said_by_inner};
use crate::{
    clock::{Clock, Micros},
    code::Code,
    error::{Error, Result},
    measure::{DurationCounts, Durations},
    object_key::ObjectKey,
};

/// What was counted of one store; it outlives the connections to it.
#[derive(Debug)]
pub struct Meter {
    clock: Arc<dyn Clock>,
    requests: [Durations; Request::ALL.len()],
    sent: AtomicU64,
    received: AtomicU64,
    repeated: AtomicU64,
    /// [`Trouble::failing`] is there: spares the lock where all is well.
    in_trouble: AtomicBool,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    errors: BTreeMap<(Request, Code), u64>,
    failing: Option<Failing>,
}

/// A store that has answered nothing but errors for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Since then.
    pub since: Micros,
    /// What it said last.
    pub code: Code,
    /// In words.
    pub message: String,
}

/// What was counted until some moment.
#[derive(Clone, Debug)]
pub struct MeterRead {
    /// By kind, those that failed included; kinds that were never asked are left out.
    pub requests: Vec<(Request, DurationCounts)>,
    /// Those that failed, by kind and code.
    pub errors: Vec<(Request, Code, u64)>,
    /// Requests that the driver repeated by itself before it answered.
    pub repeated: u64,
    /// Bytes of objects that were sent.
    pub sent: u64,
    /// Bytes of objects that were received.
    pub received: u64,
    /// Since when there were only errors, if there are.
    pub failing: Option<Failing>,
}

impl Meter {
    /// Nothing counted yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            requests: Default::default(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            in_trouble: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    // A panic while the lock is held leaves plain counts that are still true.
    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted.
    pub fn read(&self) -> MeterRead {
        let counts = |request: Request| self.requests.get(request.index()).map(|d| (request, d.read()));
        let trouble = self.trouble();
        MeterRead {
            requests: Request::ALL.into_iter().filter_map(counts).filter(|(_, d)| d.count() > 0).collect(),
            errors: trouble.errors.iter().map(|((request, code), n)| (*request, *code, *n)).collect(),
            repeated: self.repeated.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            failing: trouble.failing.clone(),
        }
    }

    fn answered<T>(&self, request: Request, began: Instant, answer: &Result<T>) {
        if let Some(durations) = self.requests.get(request.index()) {
            durations.note(began.elapsed());
        }
        match answer {
            Ok(_) if self.in_trouble.load(Ordering::Relaxed) => {
                self.trouble().failing = None;
                self.in_trouble.store(false, Ordering::Relaxed);
            }
            Ok(_) => {}
            Err(e) => self.failed(request, e),
        }
    }

    fn failed(&self, request: Request, e: &Error) {
        let mut trouble = self.trouble();
        *trouble.errors.entry((request, e.code())).or_default() += 1;
        // Of an object that is not what it should be, the store has answered.
        if matches!(e.code(), Code::ObjectDamaged | Code::ObjectTooLarge | Code::ObjectMissing) {
            return;
        }
        let since = trouble.failing.as_ref().map_or_else(|| self.clock.now(), |failing| failing.since);
        trouble.failing = Some(Failing { since, code: e.code(), message: e.to_string() });
        self.in_trouble.store(true, Ordering::Relaxed);
    }
}

/// A store around another that counts into a [`Meter`].
#[derive(Debug)]
pub struct MeasuredStore {
    inner: Arc<dyn Store>,
    meter: Arc<Meter>,
    /// How many of the repetitions inside are in the meter.
    repeated: AtomicU64,
}

impl MeasuredStore {
    /// `inner`, counted.
    pub fn new(inner: Arc<dyn Store>, meter: Arc<Meter>) -> Self {
        let repeated = AtomicU64::new(inner.repeated());
        Self { inner, meter, repeated }
    }

    async fn ask<T>(&self, request: Request, deed: impl Future<Output = Result<T>>) -> Result<T> {
        let began = Instant::now();
        let answer = deed.await;
        self.meter.answered(request, began, &answer);
        let repeated = self.inner.repeated();
        let counted = self.repeated.fetch_max(repeated, Ordering::Relaxed);
        self.meter.repeated.fetch_add(repeated.saturating_sub(counted), Ordering::Relaxed);
        answer
    }

    fn received(&self, body: Option<&Bytes>) {
        self.meter.received.fetch_add(body.map_or(0, |b| b.len() as u64), Ordering::Relaxed);
    }
}

#[async_trait]
impl Store for MeasuredStore {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<Put> {
        self.meter.sent.fetch_add(body.len() as u64, Ordering::Relaxed);
        self.ask(Request::Put, self.inner.put(key, body)).await
    }

    async fn upload(&self, key: &ObjectKey, size_hint: u64) -> Result<Box<dyn Upload>> {
        let inner = self.ask(Request::Upload, self.inner.upload(key, size_hint)).await?;
        Ok(Box::new(MeasuredUpload { inner, meter: Arc::clone(&self.meter) }))
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Option<Bytes>> {
        let body = self.ask(Request::Get, self.inner.get(key, limit)).await?;
        self.received(body.as_ref());
        Ok(body)
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        let body = self.ask(Request::GetRange, self.inner.get_range(key, range)).await?;
        self.received(body.as_ref());
        Ok(body)
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>> {
        self.ask(Request::Size, self.inner.size(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>) -> Result<Vec<Listed>> {
        self.ask(Request::List, self.inner.list(prefix, after)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.ask(Request::Delete, self.inner.delete(key)).await
    }

    said_by_inner!();
}

struct MeasuredUpload {
    inner: Box<dyn Upload>,
    meter: Arc<Meter>,
}

#[async_trait]
impl Upload for MeasuredUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        let (began, size) = (Instant::now(), piece.len() as u64);
        let answer = self.inner.write(piece).await;
        self.meter.sent.fetch_add(size, Ordering::Relaxed);
        self.meter.answered(Request::Write, began, &answer);
        answer
    }

    async fn finish(self: Box<Self>) -> Result<Put> {
        let Self { inner, meter } = *self;
        let began = Instant::now();
        let answer = inner.finish().await;
        meter.answered(Request::Finish, began, &answer);
        answer
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        let Self { inner, meter } = *self;
        let began = Instant::now();
        let answer = inner.abort().await;
        meter.answered(Request::Abort, began, &answer);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::ManualClock,
        store::{
            faulty::{Fault, FaultyStore, Schedule},
            memory::MemoryStore,
        },
    };

    #[tokio::test]
    async fn requests_bytes_and_failures_are_counted_and_an_answer_ends_the_trouble() {
        let clock = ManualClock::new(Micros(1_000));
        let faulty = FaultyStore::new(Arc::new(MemoryStore::new()), Schedule::default());
        let meter = Arc::new(Meter::new(Arc::new(clock.clone())));
        let store = MeasuredStore::new(Arc::new(faulty.clone()), Arc::clone(&meter));
        let key = ObjectKey::archive();
        assert_eq!(store.put(&key, Bytes::from_static(b"four")).await.unwrap(), Put::Created);
        assert_eq!(store.get(&key, 10).await.unwrap().unwrap().len(), 4);
        let mut upload = store.upload(&key, 3).await.unwrap();
        upload.write(Bytes::from_static(b"six")).await.unwrap();
        assert_eq!(upload.finish().await.unwrap(), Put::Exists);
        assert!(store.get(&key, 1).await.is_err(), "larger than allowed");
        assert_eq!(meter.read().failing, None, "of an object the store has answered");

        faulty.fail_next(Request::List, Fault::BeforeEffect);
        faulty.fail_next(Request::Put, Fault::LostReply);
        assert!(store.list("", None).await.is_err());
        clock.advance(500);
        assert!(store.put(&key, Bytes::new()).await.is_err());
        let read = meter.read();
        let failing = read.failing.unwrap();
        assert_eq!((failing.since, failing.code), (Micros(1_000), Code::StoreUnavailable));
        let counts: Vec<_> = read.requests.iter().map(|(request, d)| (*request, d.count())).collect();
        let (put, upload, write) = ((Request::Put, 2), (Request::Upload, 1), (Request::Write, 1));
        assert_eq!(counts, [put, upload, write, (Request::Finish, 1), (Request::Get, 2), (Request::List, 1)]);
        assert_eq!(
            read.errors,
            [
                (Request::Put, Code::StoreUnavailable, 1),
                (Request::Get, Code::ObjectTooLarge, 1),
                (Request::List, Code::StoreUnavailable, 1)
            ]
        );
        assert_eq!((read.sent, read.received), (7, 4));

        assert_eq!(store.size(&key).await.unwrap(), Some(4));
        assert_eq!(meter.read().failing, None);
    }
}
