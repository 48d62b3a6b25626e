//! Objects sent piece by piece.
//!
//! Owns: an upload in parts to a service that creates conditionally, and a growing temporary file for the others.
//! Memory: at most four parts of 8 MiB, whatever the object's size.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use opendal::ErrorKind;

use super::{Shared, naming, short};
use crate::{
    code::Code,
    error::{Error, Result},
    object_key::ObjectKey,
    store::{Put, Upload, answer},
};

/// Uploads are sent in parts of this size: above the 5 MiB that S3 asks for, and small enough to hold several.
const PART: usize = 8 << 20;
/// Parts of one upload on their way at the same time; one more is collected meanwhile, and the piece at hand is the
/// caller's.
const PARTS_AT_ONCE: usize = 2;
/// S3 takes 10,000 parts; some room for a size hint that was too small.
const PARTS: u64 = 9_000;

/// Starts an object of about `size_hint` bytes.
pub(super) async fn start(store: &Arc<Shared>, key: &ObjectKey, size_hint: u64) -> Result<Box<dyn Upload>> {
    let failed = |e| store.failed("starting an upload", e).on(key);
    let (store_of, key_of) = (Arc::clone(store), key.clone());
    if store.naming.is_none() {
        let part = answer::in_memory(key, size_hint.div_ceil(PARTS).max(PART as u64))?;
        let writer = store.operator.writer_with(key.as_str()).if_not_exists(true).chunk(part).concurrent(PARTS_AT_ONCE);
        let writer = Some(writer.await.map_err(failed)?);
        return Ok(Box::new(CloudUpload { store: store_of, key: key_of, writer, taken: false }));
    }
    let temporary = naming::temporary()?;
    let appends = store.operator.info().capability().write_can_append;
    let writer = store.operator.writer_with(&temporary).append(appends).chunk(PART).await.map_err(failed)?;
    Ok(Box::new(NamedUpload { store: store_of, key: key_of, temporary, writer: Some(writer), sent: 0 }))
}

struct CloudUpload {
    store: Arc<Shared>,
    key: ObjectKey,
    /// Gone once the upload is finished or given up.
    writer: Option<opendal::Writer>,
    /// The service has said already that the name is taken; some do when an upload begins.
    taken: bool,
}

/// No caller can reach this: the operations that end an upload consume it.
fn ended(key: &ObjectKey) -> Error {
    Error::new(Code::Internal, "using an upload that has ended").on(key)
}

/// Takes back parts that were sent. What cannot be taken back costs money until the bucket's own rule for incomplete
/// uploads removes it, and is never visible.
async fn give_up(mut writer: opendal::Writer) -> opendal::Result<()> {
    match writer.abort().await {
        // There were no parts yet, or the service keeps none.
        Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::NotFound) => Ok(()),
        other => other,
    }
}

async fn give_up_or_say(key: ObjectKey, writer: opendal::Writer) {
    if let Err(e) = give_up(writer).await {
        tracing::warn!(
            %key, cause = %short(&e),
            "parts of an upload that was given up stay in the bucket; a lifecycle rule for incomplete uploads removes them"
        );
    }
}

#[async_trait]
impl Upload for CloudUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        if self.taken {
            return Ok(());
        }
        match self.writer.as_mut().ok_or_else(|| ended(&self.key))?.write(piece).await {
            Err(e) if e.kind() == ErrorKind::ConditionNotMatch => {
                self.taken = true;
                Ok(())
            }
            // It may only have been collected: success proves nothing.
            other => other.map_err(|e| self.store.failed("sending a part of the object", e).on(&self.key)),
        }
    }

    async fn finish(mut self: Box<Self>) -> Result<Put> {
        const DOING: &str = "completing the object";
        let mut writer = self.writer.take().ok_or_else(|| ended(&self.key))?;
        if self.taken {
            give_up_or_say(self.key.clone(), writer).await;
            return Ok(Put::Exists);
        }
        let result = match writer.close().await {
            Ok(_) => return Ok(Put::Created),
            Err(e) if e.kind() == ErrorKind::ConditionNotMatch => Ok(Put::Exists),
            // The service does not know the upload any more: a first completion, whose reply was lost, ended it.
            Err(e) if e.kind() == ErrorKind::NotFound => match self.store.stat(&self.key).await {
                Ok(Some(_)) => return Ok(Put::Exists),
                Ok(None) => Err(Error::new(Code::StoreUnavailable, DOING)
                    .on(&self.key)
                    .because(short(&e))
                    .hint("the service has dropped the upload's parts: it has to be started again")),
                Err(error) => Err(error),
            },
            other => self.store.judge(DOING, &self.key, other).map(|_| Put::Created),
        };
        give_up_or_say(self.key.clone(), writer).await;
        result
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        give_up(writer).await.map_err(|e| self.store.failed("giving up an upload", e).on(&self.key))
    }
}

impl Drop for CloudUpload {
    fn drop(&mut self) {
        if let (Some(writer), Ok(runtime)) = (self.writer.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(give_up_or_say(self.key.clone(), writer));
        }
    }
}

/// An object that grows under a temporary name.
struct NamedUpload {
    store: Arc<Shared>,
    key: ObjectKey,
    temporary: String,
    /// Gone once the upload is finished or given up.
    writer: Option<opendal::Writer>,
    sent: u64,
}

#[async_trait]
impl Upload for NamedUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        let length = piece.len() as u64;
        let writer = self.writer.as_mut().ok_or_else(|| ended(&self.key))?;
        let written = writer.write(piece).await;
        self.store.written("sending a part of the object", &self.key, written)?;
        self.sent = self.sent.saturating_add(length);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Put> {
        let mut writer = self.writer.take().ok_or_else(|| ended(&self.key))?;
        let naming = self.store.naming.as_deref().ok_or_else(|| ended(&self.key))?;
        let closed = writer.close().await;
        if let Err(error) = self.store.written("completing the object", &self.key, closed) {
            naming::remove(&self.store.operator, &self.temporary).await;
            return Err(error);
        }
        self.store.name(naming, &self.temporary, &self.key, self.sent).await
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.writer = None;
        naming::remove(&self.store.operator, &self.temporary).await;
        Ok(())
    }
}

impl Drop for NamedUpload {
    fn drop(&mut self) {
        if let (Some(_), Ok(runtime)) = (self.writer.take(), tokio::runtime::Handle::try_current()) {
            let (store, temporary) = (Arc::clone(&self.store), std::mem::take(&mut self.temporary));
            runtime.spawn(async move { naming::remove(&store.operator, &temporary).await });
        }
    }
}
