//! An object written to a directory piece by piece.
//!
//! Owns: getting bytes from the runtime to the disk without blocking it. One write is on its way to the disk while
//! the next is collected, so at most two buffers of [`BUFFER`] (or one larger piece) are in memory.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;

use super::{blocking, publish, taken, temporary::Temporary, tree::Tree};
use crate::{
    code::Code,
    error::{Error, Result},
    object_key::ObjectKey,
    store::{Put, Upload},
};

/// Small pieces are collected to this size: a write this large costs next to nothing beside the copying.
const BUFFER: usize = 1 << 20;

pub(super) struct LocalUpload {
    tree: Arc<Tree>,
    key: ObjectKey,
    target: Target,
    collected: BytesMut,
}

/// The file, wherever it is.
enum Target {
    Here(Temporary),
    Writing(JoinHandle<Result<Temporary>>),
    /// A write failed and the file is removed.
    Lost,
}

impl LocalUpload {
    pub(super) fn new(tree: Arc<Tree>, key: ObjectKey, temporary: Temporary) -> Self {
        Self { tree, key, target: Target::Here(temporary), collected: BytesMut::new() }
    }

    /// The file, once the write before is done.
    async fn take(&mut self) -> Result<Temporary> {
        match std::mem::replace(&mut self.target, Target::Lost) {
            Target::Here(temporary) => Ok(temporary),
            Target::Writing(writing) => {
                writing.await.map_err(|e| Error::new(Code::Internal, "waiting for a disk operation").because(e))?
            }
            Target::Lost => Err(Error::new(Code::StoreUnavailable, "writing the new object")
                .on(&self.key)
                .with("reason", "an earlier piece could not be written")),
        }
    }

    async fn start_writing(&mut self, piece: Bytes) -> Result<()> {
        let mut temporary = self.take().await?;
        self.target = Target::Writing(tokio::task::spawn_blocking(move || {
            temporary.write(&piece)?;
            Ok(temporary)
        }));
        Ok(())
    }
}

#[async_trait]
impl Upload for LocalUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        if self.collected.is_empty() && piece.len() >= BUFFER {
            return self.start_writing(piece).await;
        }
        self.collected.extend_from_slice(&piece);
        if self.collected.len() >= BUFFER {
            let full = self.collected.split().freeze();
            self.start_writing(full).await?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Put> {
        let mut temporary = self.take().await?;
        let Self { tree, key, collected, .. } = *self;
        blocking(move || {
            if taken(&tree, &key)? {
                return Ok(Put::Exists);
            }
            temporary.write(&collected)?;
            temporary.sync()?;
            publish(&tree, &key, temporary)
        })
        .await
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        match self.take().await {
            Ok(temporary) => blocking(move || temporary.remove()).await,
            // The failed write has removed the file, and was reported when it happened or is moot now.
            Err(error) => {
                tracing::debug!(%error, "gave up an upload that had failed");
                Ok(())
            }
        }
    }
}
