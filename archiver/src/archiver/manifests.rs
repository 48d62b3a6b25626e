//! Roll-up manifests: what was acknowledged since the last one.

use std::time::Duration;

use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::PutDocument,
        schema::{DOCUMENT_VERSION, Extra, ManifestDocument, SegmentSummary},
    },
    clock::Micros,
};

use super::{
    Archiver,
    delivery::{JOINS_IN_A_ROW, Place},
};
use crate::elapsed::elapsed;

/// So long a manifest that names merged segments is sent again as it was. Prunes leave alone for longer what nobody names.
const TRUE_FOR: Duration = Duration::from_secs(600);

impl Archiver {
    /// Writes a roll-up manifest over everything acknowledged since the last one.
    ///
    /// A dead process's request can have been under way and arrive late: its manifest has the number, and ours begins
    /// behind it. One that goes on and on is alive.
    ///
    /// # Errors
    /// `writer.fenced` when a newer claim wrote it.
    pub async fn close_manifest(&mut self) -> Result<()> {
        for _ in 0..JOINS_IN_A_ROW {
            if self.roll_up.segments.is_empty() {
                return Ok(());
            }
            // A document whose reply was lost is sent again as it was: with another nonce it would look like another
            // writer's.
            let document = match self.pending_manifest.take() {
                Some(document) if self.may_be_sent(&document).await? => document,
                _ => {
                    self.leave_out_condemned().await?;
                    self.manifest_document()?
                }
            };
            self.pending_manifest = Some(document.clone());
            crate::crash::point("manifest-before-put");
            let put = self.archive.put_manifest(&document, &self.claim, &*self.parts.random).await?;
            crate::crash::point("manifest-after-put");
            self.pending_manifest = None;
            match put {
                PutDocument::Created { hash } => {
                    let next = document
                        .number
                        .next()
                        .ok_or_else(|| Error::new(Code::Internal, "numbering the next manifest").on(document.number))?;
                    self.roll_up.written(&document, hash, next);
                    self.merging.written(&document, self.parts.clock.now(), &self.parts.metrics);
                    self.manifest_is_written(document.timeline, document.number);
                    return Ok(());
                }
                PutDocument::Conflict(other) if Some(other.nonce) == self.given_up_manifest => {
                    tracing::info!(number = %document.number, "a manifest that was given up arrived; going on behind it");
                    self.go_on_behind().await?;
                }
                PutDocument::Conflict(other) if other.epoch < self.claim.epoch() => {
                    tracing::warn!(number = %document.number, "an earlier process wrote this manifest; going on behind it");
                    self.go_on_behind().await?;
                }
                PutDocument::Conflict(_) => break,
            }
        }
        Err(Error::new(Code::Fenced, "writing the manifest").on(self.roll_up.number))
    }

    /// Goes on behind the newest manifest. An earlier writer that has not noticed our claim, and has gone on, may have merged and
    /// deleted what our next segment would otherwise meet: it is not left to chance.
    async fn go_on_behind(&mut self) -> Result<()> {
        let tail = self.archive.tail(self.timeline).await?;
        let next = self.engine.stream.next_ordinal();
        let next = self.pending.as_ref().map_or(next, |pending| pending.segment.summary.ordinal);
        if tail.head.as_ref().is_some_and(|head| head.summary.ordinals().last() >= next) {
            self.next_place = Place::Past;
        }
        self.roll_up.go_on_behind(tail.next_manifest, tail.previous_manifest, tail.segments);
        Ok(())
    }

    /// Whether a document whose reply was lost may be sent again as it was. What it says of merged segments is true for a
    /// while: then they may be swept away as unneeded, and their parts would seem to have waited for long.
    async fn may_be_sent(&mut self, document: &ManifestDocument) -> Result<bool> {
        if document.merged.is_empty() || elapsed(document.created, self.parts.clock.now()) < TRUE_FOR {
            return Ok(true);
        }
        self.pending_manifest = Some(document.clone());
        let there = self.archive.get_manifest(self.timeline, document.number).await?;
        if there.is_some_and(|(there, _)| there.nonce == document.nonce) {
            return Ok(true);
        }
        self.given_up_manifest = Some(document.nonce);
        self.pending_manifest = None;
        Ok(false)
    }

    fn manifest_document(&self) -> Result<ManifestDocument> {
        Ok(ManifestDocument {
            version: DOCUMENT_VERSION,
            archive: self.archive.id(),
            timeline: self.timeline,
            number: self.roll_up.number,
            previous: self.roll_up.previous,
            rebuilt: false,
            segments: self.roll_up.segments.clone(),
            bases: self.roll_up.bases.clone(),
            tags: self.roll_up.tags.clone(),
            pruned: Vec::new(),
            merged: self.roll_up.merged.clone(),
            created: self.newest_time(),
            epoch: self.claim.epoch(),
            nonce: self.parts.random.nonce()?,
            extra: Extra::new(),
        })
    }
    /// Now, and not before what the segments were seen at: by a clock that went back, merged parts would seem to have waited
    /// since long ago.
    fn newest_time(&self) -> Micros {
        let seen = |s: &SegmentSummary| s.observed_through.max(s.observed.map(|(_, last)| last.at));
        let seen = self.roll_up.segments.iter().filter_map(seen).max();
        seen.into_iter().fold(self.parts.clock.now(), Micros::max)
    }
}
