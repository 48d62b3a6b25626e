//! A complete store in memory.
//!
//! Owns: objects in a sorted map that clones share. It is exclusive and consistent like the best of the others; what
//! lives in it is gone with the last clone. Refuses: failures ([`super::faulty`] adds them).

use std::{
    collections::BTreeMap,
    ops::{Bound, Range},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{Listed, Put, Store, Upload, answer};
use crate::{error::Result, object_key::ObjectKey};

type Objects = BTreeMap<ObjectKey, Bytes>;

/// Objects in memory; clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Objects>>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store of its own that holds what this one holds now: the archive as it was at a moment.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.objects().clone())))
    }

    /// Puts `body` in the place of whatever is there: damage for tests, which no [`Store`] can do.
    pub fn overwrite(&self, key: &ObjectKey, body: Bytes) {
        self.objects().insert(key.clone(), body);
    }

    /// Every object with its bytes, in order.
    pub fn contents(&self) -> Vec<(ObjectKey, Bytes)> {
        self.objects().iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// No operation here leaves the map half changed, so a panic elsewhere does not spoil it.
    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self, key: &ObjectKey, body: Bytes) -> Put {
        use std::collections::btree_map::Entry;
        match self.objects().entry(key.clone()) {
            Entry::Occupied(_) => Put::Exists,
            Entry::Vacant(place) => {
                place.insert(body);
                Put::Created
            }
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<Put> {
        Ok(self.create(key, body))
    }

    async fn upload(&self, key: &ObjectKey, _size_hint: u64) -> Result<Box<dyn Upload>> {
        Ok(Box::new(MemoryUpload { store: self.clone(), key: key.clone(), body: BytesMut::new() }))
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Option<Bytes>> {
        let Some(body) = self.objects().get(key).cloned() else { return Ok(None) };
        answer::check_limit(key, body.len() as u64, limit)?;
        Ok(Some(body))
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        answer::range_length(key, &range)?;
        let Some(body) = self.objects().get(key).cloned() else { return Ok(None) };
        answer::check_end(key, body.len() as u64, &range)?;
        let (start, end) = (answer::in_memory(key, range.start)?, answer::in_memory(key, range.end)?);
        Ok(Some(body.slice(start..end)))
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>> {
        Ok(self.objects().get(key).map(|body| body.len() as u64))
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>) -> Result<Vec<Listed>> {
        answer::check_prefix(prefix)?;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self
            .objects()
            .range::<ObjectKey, _>((start, Bound::Unbounded))
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, body)| Listed { key: key.clone(), size: body.len() as u64 })
            .collect())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.objects().remove(key);
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

struct MemoryUpload {
    store: MemoryStore,
    key: ObjectKey,
    body: BytesMut,
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.body.extend_from_slice(&piece);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Put> {
        let Self { store, key, body } = *self;
        Ok(store.create(&key, body.freeze()))
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
