//! The way between an archiver and its store.
//!
//! Owns: the requests that are late. A creation that was answered with an error, or whose sender died, may still be under
//! way and reach the store at any later time, also when everybody has forgotten it. Each request that changes something
//! is an effect at which the archiver can die, before it is sent and after it was answered.
//! Failures and lost replies are [`FaultyStore`](pitr_archive::store::faulty::FaultyStore)'s, underneath.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use pitr_archive::{
    Result,
    object_key::ObjectKey,
    store::{Listed, Put, Store, Upload, memory::MemoryStore},
};

use crate::process;

/// A creation that has not reached the store.
type Late = (ObjectKey, Bytes);

/// A store as an archiver reaches it; clones share everything.
#[derive(Clone, Debug)]
pub struct Network {
    store: Arc<dyn Store>,
    memory: MemoryStore,
    late: Arc<Mutex<Vec<Late>>>,
}

impl Network {
    /// `store` fails over `memory`.
    pub fn new(store: Arc<dyn Store>, memory: MemoryStore) -> Self {
        Self { store, memory, late: Arc::default() }
    }

    fn late(&self) -> MutexGuard<'_, Vec<Late>> {
        self.late.lock().expect("nothing dies while it holds this")
    }

    /// How many creations are under way.
    pub fn under_way(&self) -> usize {
        self.late().len()
    }

    /// One of them reaches the store, or is lost.
    pub async fn arrive(&self, which: usize, fate: Arrival) -> Option<Put> {
        let (key, body) = self.late().remove(which);
        match fate {
            Arrival::Lost => None,
            Arrival::AtLast => Some(self.memory.put(&key, body).await.expect("a store in memory")),
        }
    }

    async fn create(&self, key: &ObjectKey, body: Bytes) -> Result<Put> {
        // Whoever dies in here has sent the request.
        self.late().push((key.clone(), body.clone()));
        process::effect("before-request");
        let put = self.store.put(key, body).await;
        if put.is_ok() {
            self.late().pop();
        }
        process::effect("after-request");
        put
    }
}

/// What becomes of a request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It reaches the store.
    AtLast,
    /// It never does.
    Lost,
}

#[async_trait]
impl Store for Network {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<Put> {
        self.create(key, body).await
    }

    async fn upload(&self, key: &ObjectKey, _size_hint: u64) -> Result<Box<dyn Upload>> {
        Ok(Box::new(Sending { network: self.clone(), key: key.clone(), body: BytesMut::new() }))
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Option<Bytes>> {
        self.store.get(key, limit).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        self.store.get_range(key, range).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>> {
        self.store.size(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>) -> Result<Vec<Listed>> {
        self.store.list(prefix, after).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        process::effect("before-request");
        self.store.delete(key).await
    }

    fn describe(&self) -> String {
        "a simulated network".to_owned()
    }
}

/// An upload: nothing is visible before it is finished, so that only its end is an effect.
struct Sending {
    network: Network,
    key: ObjectKey,
    body: BytesMut,
}

#[async_trait]
impl Upload for Sending {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.body.extend_from_slice(&piece);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Put> {
        let Self { network, key, body } = *self;
        network.create(&key, body.freeze()).await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
