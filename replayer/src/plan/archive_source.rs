//! Reading for plans, restores and scans from a real archive.
//!
//! Owns: nothing but the joint between this crate's small reading interfaces and [`Archive`].

use std::{ops::Range, path::PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use pitr_archive::{
    Result,
    base::FileBody,
    catalog::{
        archive::Archive,
        schema::{BaseFile, SegmentSummary, TimeSample},
    },
    ids::{Ordinals, TimelineId},
    object_key::ObjectKey,
    segment::{
        entry::{CapturedFile, ManifestPoint},
        reader::{SegmentIndex, SegmentReader},
    },
};

use super::source::{ReadEntry, Source};
use crate::{
    part::records::Wanted,
    restore::{
        files::{FileSource, blocking},
        replay::SegmentSource,
    },
};

/// An archive as a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FromArchive<'a>(pub &'a Archive);

#[async_trait]
impl Source for FromArchive<'_> {
    async fn entries(&self, timeline: TimelineId, segment: &SegmentSummary) -> Result<Vec<ReadEntry>> {
        self.exact(timeline, segment)?;
        let reader = self.0.read_segment(timeline, segment.ordinals()).await?;
        blocking(move || {
            reader
                .entries()
                .map(|placed| placed.map(|p| ReadEntry { at: p.at, entry: p.entry, hash: p.hash_after }))
                .collect()
        })
        .await
    }

    async fn samples(&self, timeline: TimelineId, segment: &SegmentSummary) -> Result<Vec<TimeSample>> {
        self.exact(timeline, segment)?;
        Ok(self.0.read_footer(timeline, segment.ordinals()).await?.samples)
    }

    async fn manifest(&self, timeline: TimelineId, segment: &SegmentSummary) -> Result<Option<ManifestPoint>> {
        self.exact(timeline, segment)?;
        Ok(self.0.read_footer(timeline, segment.ordinals()).await?.manifest.map(|progress| progress.point))
    }

    async fn has(&self, file: &CapturedFile) -> Result<bool> {
        Ok(self.0.store().size(&ObjectKey::file(&file.object)).await?.is_some())
    }
}

#[async_trait]
impl SegmentSource for FromArchive<'_> {
    async fn segment(&self, timeline: TimelineId, ordinals: Ordinals) -> Result<SegmentReader> {
        self.0.read_segment(timeline, ordinals).await
    }

    async fn frames(
        &self,
        timeline: TimelineId,
        ordinals: Ordinals,
        wanted: &Wanted,
    ) -> Result<Option<(SegmentIndex, Vec<(usize, Bytes)>)>> {
        let index = self.0.read_index(timeline, ordinals).await?;
        let Some(wanted) = wanted.frames(&index) else { return Ok(None) };
        let mut frames = Vec::new();
        for neighbours in wanted {
            frames.extend(self.0.read_stored_frames(&index, neighbours).await?);
        }
        Ok(Some((index, frames)))
    }
}

#[async_trait]
impl FileSource for FromArchive<'_> {
    async fn body(&self, file: &BaseFile) -> Result<FileBody> {
        self.0.file_body(file).await
    }

    fn local(&self, body: &FileBody) -> Option<PathBuf> {
        self.0.store().local_path().map(|root| root.join(body.key().as_str()))
    }

    async fn fetch(&self, body: &FileBody, chunks: Range<u64>) -> Result<Bytes> {
        self.0.fetch_chunks(body, chunks).await
    }
}
