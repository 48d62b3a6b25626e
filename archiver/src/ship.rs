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

use std::{sync::Arc, time::Duration};

use pitr_archive::{
    Code, Error, Result,
    catalog::archive::{Archive, PutSegment},
    catalog::schema::Position,
    clock::Micros,
    code::Retry,
    ids::Epoch,
    segment::{entry::ManifestPoint, writer::FinishedSegment},
};

use crate::engine::EngineState;

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

/// Tries once.
///
/// # Errors
/// `writer.fenced` when another archiver has the archive.
pub async fn deliver(archive: &Archive, epoch: Epoch, shipment: &Shipment) -> Result<Delivered> {
    crate::crash::point("before-put");
    let put = archive.put_segment(&shipment.segment).await?;
    crate::crash::point("after-put");
    match put {
        PutSegment::Created => Ok(Delivered::Acknowledged),
        PutSegment::Conflict(other)
            if other.epoch < epoch && other.hash_before == shipment.segment.summary.hash_before =>
        {
            Ok(Delivered::JoinBehind)
        }
        PutSegment::Conflict(other) => Err(Error::new(Code::Fenced, "shipping")
            .on(&shipment.segment.key)
            .with("our epoch", epoch)
            .with("its epoch", other.epoch)),
    }
}

/// Tries until it is delivered or cannot be: backoff from 100 ms, doubling, at most 10 s, with jitter.
pub async fn deliver_patiently(
    archive: Arc<Archive>,
    epoch: Epoch,
    shipment: Arc<Shipment>,
    jitter: impl Fn() -> f64,
) -> Result<Delivered> {
    let mut wait = Duration::from_millis(100);
    loop {
        match deliver(&archive, epoch, &shipment).await {
            Err(e) if e.code().retry() == Retry::Later => {
                tracing::warn!(error = %e, wait_ms = wait.as_millis(), "the archive is not reachable; trying again");
                tokio::time::sleep(wait.mul_f64(0.5 + jitter() / 2.0)).await;
                wait = (wait * 2).min(Duration::from_secs(10));
            }
            done => return done,
        }
    }
}
