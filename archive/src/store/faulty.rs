//! A store that fails, for tests of everything that stands on one.
//!
//! Owns: failures from a seed, outages and scripted failures around any [`Store`], and the count of requests by kind.
//! Two failures exist: an error *before* the effect, and a reply lost *after* it, which is what makes a writer meet
//! its own object. Visibility is never delayed: every store we support shows a write at once.
//! The decision depends on the seed, the request's kind, its key and how often that was asked before, not on the
//! order in which concurrent requests arrive: the same test fails the same way every time.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;

pub use super::request::Request;
use super::{Listed, Put, Store, Upload};
use crate::{
    code::Code,
    error::{Error, Result},
    object_key::ObjectKey,
};

/// One way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error, and nothing was done.
    BeforeEffect,
    /// An error, although it was done.
    LostReply,
}

/// How often requests fail. The default is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Chooses which requests fail.
    pub seed: u64,
    /// Requests in a thousand that fail before their effect.
    pub before_effect_per_mille: u16,
    /// Requests in a thousand whose reply is lost after their effect.
    pub lost_reply_per_mille: u16,
}

impl Schedule {
    /// The fate of the `nth` request (from 0) of this kind for this key.
    pub fn decide(&self, request: Request, key: &str, nth: u64) -> Option<Fault> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&[u8::try_from(request.index()).unwrap_or(u8::MAX)]);
        hasher.update(&nth.to_le_bytes());
        hasher.update(key.as_bytes());
        let mut draw = [0; 8];
        hasher.finalize_xof().fill(&mut draw);
        let draw = u64::from_le_bytes(draw) % 1000;
        let before = u64::from(self.before_effect_per_mille);
        if draw < before {
            Some(Fault::BeforeEffect)
        } else if draw < before + u64::from(self.lost_reply_per_mille) {
            Some(Fault::LostReply)
        } else {
            None
        }
    }
}

#[derive(Debug, Default)]
struct State {
    schedule: Schedule,
    outage: bool,
    scripted: HashMap<Request, VecDeque<Fault>>,
    counts: BTreeMap<Request, u64>,
    asked: HashMap<(Request, String), u64>,
    failed: u64,
}

/// A store around another that fails as its [`Schedule`] says; clones share everything.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    state: Arc<Mutex<State>>,
}

impl FaultyStore {
    /// `inner` with failures from `schedule`.
    pub fn new(inner: Arc<dyn Store>, schedule: Schedule) -> Self {
        Self { inner, state: Arc::new(Mutex::new(State { schedule, ..State::default() })) }
    }

    /// The store underneath, which never fails by itself.
    pub fn inner(&self) -> &Arc<dyn Store> {
        &self.inner
    }

    /// Fails according to `schedule` from now on.
    pub fn set_schedule(&self, schedule: Schedule) {
        self.state().schedule = schedule;
    }

    /// Begins or ends an outage: during one every request fails before its effect.
    pub fn set_outage(&self, outage: bool) {
        self.state().outage = outage;
    }

    /// The next request of this kind that no earlier call has claimed fails like this, whatever the schedule says.
    pub fn fail_next(&self, request: Request, fault: Fault) {
        self.state().scripted.entry(request).or_default().push_back(fault);
    }

    /// Requests of one kind until now, those that failed included.
    pub fn count(&self, request: Request) -> u64 {
        self.state().counts.get(&request).copied().unwrap_or(0)
    }

    /// Requests by kind until now.
    pub fn counts(&self) -> BTreeMap<Request, u64> {
        self.state().counts.clone()
    }

    /// Requests that failed by our doing.
    pub fn failed(&self) -> u64 {
        self.state().failed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, request: Request, key: &str) -> Option<Fault> {
        let mut state = self.state();
        *state.counts.entry(request).or_default() += 1;
        let asked = state.asked.entry((request, key.to_owned())).or_default();
        let nth = *asked;
        *asked += 1;
        let fault = if state.outage {
            Some(Fault::BeforeEffect)
        } else if let Some(fault) = state.scripted.get_mut(&request).and_then(VecDeque::pop_front) {
            Some(fault)
        } else {
            state.schedule.decide(request, key, nth)
        };
        state.failed += u64::from(fault.is_some());
        fault
    }

    async fn ask<T>(&self, request: Request, key: &str, deed: impl Future<Output = Result<T>>) -> Result<T> {
        match self.decide(request, key) {
            None => deed.await,
            Some(Fault::BeforeEffect) => Err(failure(request, key, "nothing was done")),
            Some(Fault::LostReply) => {
                let _lost = deed.await?;
                Err(failure(request, key, "the reply was lost"))
            }
        }
    }
}

fn failure(request: Request, key: &str, how: &'static str) -> Error {
    Error::new(Code::StoreUnavailable, "asking the failing store")
        .on(key)
        .with("request", format_args!("{request:?}"))
        .with("how", how)
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<Put> {
        self.ask(Request::Put, key.as_str(), self.inner.put(key, body)).await
    }

    async fn upload(&self, key: &ObjectKey, size_hint: u64) -> Result<Box<dyn Upload>> {
        let inner = self.ask(Request::Upload, key.as_str(), self.inner.upload(key, size_hint)).await?;
        Ok(Box::new(FaultyUpload { store: self.clone(), key: key.clone(), inner }))
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Option<Bytes>> {
        self.ask(Request::Get, key.as_str(), self.inner.get(key, limit)).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        self.ask(Request::GetRange, key.as_str(), self.inner.get_range(key, range)).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>> {
        self.ask(Request::Size, key.as_str(), self.inner.size(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>) -> Result<Vec<Listed>> {
        self.ask(Request::List, prefix, self.inner.list(prefix, after)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.ask(Request::Delete, key.as_str(), self.inner.delete(key)).await
    }

    fn describe(&self) -> String {
        format!("{} (failing)", self.inner.describe())
    }

    fn local_path(&self) -> Option<&Path> {
        self.inner.local_path()
    }

    fn repeated(&self) -> u64 {
        self.inner.repeated()
    }
}

struct FaultyUpload {
    store: FaultyStore,
    key: ObjectKey,
    inner: Box<dyn Upload>,
}

#[async_trait]
impl Upload for FaultyUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.store.ask(Request::Write, self.key.as_str(), self.inner.write(piece)).await
    }

    async fn finish(self: Box<Self>) -> Result<Put> {
        let Self { store, key, inner } = *self;
        store.ask(Request::Finish, key.as_str(), inner.finish()).await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        let Self { store, key, inner } = *self;
        store.ask(Request::Abort, key.as_str(), inner.abort()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    fn faulty(schedule: Schedule) -> FaultyStore {
        FaultyStore::new(Arc::new(MemoryStore::new()), schedule)
    }

    #[tokio::test]
    async fn an_error_before_the_effect_changes_nothing_and_a_lost_reply_makes_the_writer_meet_its_own_object() {
        let store = faulty(Schedule::default());
        let key = ObjectKey::archive();
        store.fail_next(Request::Put, Fault::BeforeEffect);
        store.fail_next(Request::Put, Fault::LostReply);
        let put =
            |store: FaultyStore| async move { store.put(&ObjectKey::archive(), Bytes::from_static(b"mine")).await };
        assert_eq!(put(store.clone()).await.map_err(|e| e.code()), Err(Code::StoreUnavailable));
        assert_eq!(store.inner().size(&key).await.unwrap(), None);
        assert_eq!(put(store.clone()).await.map_err(|e| e.code()), Err(Code::StoreUnavailable));
        assert_eq!(put(store.clone()).await.unwrap(), Put::Exists);
        assert_eq!(store.get(&key, 10).await.unwrap(), Some(Bytes::from_static(b"mine")));
        assert_eq!((store.count(Request::Put), store.count(Request::Get), store.failed()), (3, 1, 2));
    }

    #[test]
    fn the_seed_alone_decides_and_the_rates_are_kept() {
        let schedule = Schedule { seed: 7, before_effect_per_mille: 100, lost_reply_per_mille: 50 };
        let fates: Vec<_> = (0..4000).map(|n| schedule.decide(Request::Put, "k", n)).collect();
        assert_eq!(fates, (0..4000).map(|n| schedule.decide(Request::Put, "k", n)).collect::<Vec<_>>());
        let share = |fault| fates.iter().filter(|f| **f == Some(fault)).count();
        assert!((300..500).contains(&share(Fault::BeforeEffect)), "{}", share(Fault::BeforeEffect));
        assert!((130..270).contains(&share(Fault::LostReply)), "{}", share(Fault::LostReply));
        let other = Schedule { seed: 8, ..schedule };
        assert_ne!(fates, (0..4000).map(|n| other.decide(Request::Put, "k", n)).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn an_outage_fails_everything_until_it_ends() {
        let store = faulty(Schedule::default());
        store.set_outage(true);
        assert!(store.list("", None).await.is_err());
        assert!(store.upload(&ObjectKey::archive(), 1).await.is_err());
        store.set_outage(false);
        assert_eq!(store.list("", None).await.unwrap(), vec![]);
    }
}
