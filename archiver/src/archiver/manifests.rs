//! Roll-up manifests: what was acknowledged since the last one.

use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::PutDocument,
        schema::{DOCUMENT_VERSION, Extra, ManifestDocument},
    },
};

use super::{Archiver, JOINS_IN_A_ROW};

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
                Some(document) => document,
                None => self.manifest_document()?,
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
                    let (segments, bases, tags) = (document.segments.len(), document.bases.len(), document.tags.len());
                    self.roll_up.written(hash, next, segments, bases, tags);
                    self.manifest_is_written(document.timeline, document.number);
                    return Ok(());
                }
                PutDocument::Conflict(other) if other.epoch < self.claim.epoch() => {
                    tracing::warn!(number = %document.number, "an earlier process wrote this manifest; going on behind it");
                    let tail = self.archive.tail(self.timeline).await?;
                    self.roll_up.go_on_behind(tail.next_manifest, tail.previous_manifest, tail.segments);
                }
                PutDocument::Conflict(_) => break,
            }
        }
        Err(Error::new(Code::Fenced, "writing the manifest").on(self.roll_up.number))
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
            created: self.parts.clock.now(),
            epoch: self.claim.epoch(),
            nonce: self.parts.random.nonce()?,
            extra: Extra::new(),
        })
    }
}
