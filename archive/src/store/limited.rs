//! A store behind a limit of bytes a second.
//!
//! Owns: what is urgent: objects of one buffer, which are segments, tags and manifests, before objects in pieces, which
//! are the files of bases. So a base never delays a segment; segments delay a base. Only what is sent is counted.
//! How far ahead the pieces of a file are collected is the store's business: on the line they leave in its own parts.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Listed, Put, Store, Upload, said_by_inner};
use crate::{
    error::Result,
    object_key::ObjectKey,
    rate::{Class, Rate},
};

/// Pieces are counted in slices of this size, so that one does not take the whole of a small limit at once.
const SLICE: usize = 256 << 10;

/// A store, slower.
#[derive(Clone, Debug)]
pub struct LimitedStore {
    inner: Arc<dyn Store>,
    upload: Arc<Rate>,
}

impl LimitedStore {
    /// `inner`, into which no more is sent than `upload` allows; several stores can share one limit.
    pub fn new(inner: Arc<dyn Store>, upload: Arc<Rate>) -> Self {
        Self { inner, upload }
    }
}

#[async_trait]
impl Store for LimitedStore {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<Put> {
        self.upload.take(Class::Urgent, body.len() as u64).await;
        self.inner.put(key, body).await
    }

    async fn upload(&self, key: &ObjectKey, size_hint: u64) -> Result<Box<dyn Upload>> {
        let inner = self.inner.upload(key, size_hint).await?;
        Ok(Box::new(LimitedUpload { inner, upload: Arc::clone(&self.upload) }))
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Option<Bytes>> {
        self.inner.get(key, limit).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        self.inner.get_range(key, range).await
    }

    async fn size(&self, key: &ObjectKey) -> Result<Option<u64>> {
        self.inner.size(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>) -> Result<Vec<Listed>> {
        self.inner.list(prefix, after).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<()> {
        self.inner.delete(key).await
    }

    said_by_inner!();
}

struct LimitedUpload {
    inner: Box<dyn Upload>,
    upload: Arc<Rate>,
}

#[async_trait]
impl Upload for LimitedUpload {
    async fn write(&mut self, mut piece: Bytes) -> Result<()> {
        while piece.len() > SLICE {
            self.upload.take(Class::Rest, SLICE as u64).await;
            self.inner.write(piece.split_to(SLICE)).await?;
        }
        self.upload.take(Class::Rest, piece.len() as u64).await;
        self.inner.write(piece).await
    }

    async fn finish(self: Box<Self>) -> Result<Put> {
        self.inner.finish().await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU64, time::Duration};

    use tokio::time::Instant;

    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test(start_paused = true)]
    async fn a_base_takes_its_time_and_segments_do_not_wait_for_it() {
        let rate = Arc::new(Rate::new(NonZeroU64::new(1 << 20).unwrap()));
        let store = Arc::new(LimitedStore::new(Arc::new(MemoryStore::new()), rate));
        let base = tokio::spawn({
            let store = Arc::clone(&store);
            async move {
                let start = Instant::now();
                let key = ObjectKey::parse("files/a.dat").unwrap();
                let mut upload = store.upload(&key, 20 << 20).await.unwrap();
                for _ in 0..5 {
                    upload.write(Bytes::from(vec![7; 4 << 20])).await.unwrap();
                }
                assert_eq!(upload.finish().await.unwrap(), Put::Created);
                start.elapsed()
            }
        });
        for i in 0..10 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let before = Instant::now();
            let key = ObjectKey::parse(&format!("segments/1/{i}.seg")).unwrap();
            assert_eq!(store.put(&key, Bytes::from(vec![1; 512 << 10])).await.unwrap(), Put::Created);
            assert_eq!(before.elapsed(), Duration::ZERO);
        }
        let took = base.await.unwrap();
        assert!(took > Duration::from_secs(22) && took < Duration::from_secs(27), "{took:?}");
        assert_eq!(store.size(&ObjectKey::parse("files/a.dat").unwrap()).await.unwrap(), Some(20 << 20));
    }
}
