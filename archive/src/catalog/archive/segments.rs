//! Segments of an archive: creating, reading whole or in parts, and finding the end of a timeline.
//!
//! Owns: how many requests each of these costs. Refuses: believing a listing about what a segment holds.

use std::{collections::BTreeSet, ops::Range};

use bytes::Bytes;
use futures::{StreamExt as _, stream};

use super::{Archive, CONCURRENCY, MAX_SEGMENT, PutSegment, Tail, missing, segment_missing};
use crate::{
    catalog::{
        invariants,
        model::{NamedMerge, holes},
        schema::{SegmentFooter, SegmentSummary},
    },
    code::{Code, Retry},
    error::{Error, Result},
    ids::{ManifestNumber, Ordinal, Ordinals, TimelineId},
    layout::Family,
    object_key::{ObjectKey, prefix},
    segment::{
        header::{HEADER_LEN, SegmentHeader},
        reader::{ProvenFrame, SegmentIndex, SegmentReader, Wanted, tail_range},
        writer::FinishedSegment,
    },
    store::Put,
};

/// A segment up to this size is fetched whole when only its footer is wanted: one request instead of two.
const SMALL_SEGMENT: u64 = 64 * 1024;
/// What is not urgent and larger is sent in pieces of this size.
const PIECE: usize = 1 << 20;

impl Archive {
    /// Which segment stands for these ordinals.
    pub fn wanted(&self, timeline: TimelineId, ordinals: impl Into<Ordinals>) -> Wanted {
        Wanted { archive: self.id(), timeline, ordinals: ordinals.into() }
    }

    /// Creates a segment.
    pub async fn put_segment(&self, segment: &FinishedSegment) -> Result<PutSegment> {
        let put = self.store.put(&segment.key, segment.body.clone()).await?;
        self.whose(segment, put).await
    }

    /// Creates a merged segment: nobody waits for it, so that a large one is sent in pieces, behind whatever is urgent.
    pub async fn put_merged(&self, segment: &FinishedSegment) -> Result<PutSegment> {
        if segment.body.len() <= PIECE {
            return self.put_segment(segment).await;
        }
        let mut upload = self.store.upload(&segment.key, segment.body.len() as u64).await?;
        let mut rest = segment.body.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(PIECE));
            if let Err(e) = upload.write(piece).await {
                if let Err(error) = upload.abort().await {
                    tracing::debug!(%error, "what was sent of a merged segment stays in the store's own parts");
                }
                return Err(e);
            }
        }
        let put = upload.finish().await?;
        self.whose(segment, put).await
    }

    async fn whose(&self, segment: &FinishedSegment, put: Put) -> Result<PutSegment> {
        match put {
            Put::Created => Ok(PutSegment::Created),
            Put::Exists => {
                let header = SegmentHeader::decode(&segment.body)
                    .map_err(|e| e.on(Family::Segment, "comparing the segment", &segment.key))?;
                let other = self.read_header(header.timeline, header.ordinals).await?;
                if other.nonce == header.nonce {
                    Ok(PutSegment::Created)
                } else {
                    Ok(PutSegment::Conflict(other.into()))
                }
            }
        }
    }

    /// A segment's header alone. It is clear; whether it is genuine, the footer says.
    pub async fn read_header(&self, timeline: TimelineId, ordinals: impl Into<Ordinals>) -> Result<SegmentHeader> {
        let wanted = self.wanted(timeline, ordinals);
        let key = wanted.key();
        let head = self.store.get_range(&key, 0..HEADER_LEN as u64).await?;
        wanted.header(&head.ok_or_else(|| segment_missing(&key))?)
    }

    /// A segment's header and footer: two ranged reads.
    pub async fn read_index(&self, timeline: TimelineId, ordinals: impl Into<Ordinals>) -> Result<SegmentIndex> {
        let wanted = self.wanted(timeline, ordinals);
        let key = wanted.key();
        let head = self.store.get_range(&key, 0..HEADER_LEN as u64).await?.ok_or_else(|| segment_missing(&key))?;
        let header = wanted.header(&head)?;
        self.admit_epoch(header.epoch).await?;
        let tail = self.store.get_range(&key, tail_range(&header)).await?.ok_or_else(|| segment_missing(&key))?;
        SegmentIndex::open(&wanted, &head, &tail, &self.keyring)
    }

    /// A segment's footer; the summary's `object_bytes` is set.
    pub async fn read_footer(&self, timeline: TimelineId, ordinals: impl Into<Ordinals>) -> Result<SegmentFooter> {
        self.read_index(timeline, ordinals).await.map(SegmentIndex::into_footer)
    }

    /// Some frames of a segment, proven, by one ranged read.
    pub async fn read_frames(&self, index: &SegmentIndex, frames: Range<usize>) -> Result<Vec<ProvenFrame>> {
        let stored = self.read_stored_frames(index, frames).await?;
        stored.iter().map(|(frame, stored)| index.frame(*frame, stored)).collect()
    }

    /// The same as they are stored, each with its number: [`SegmentIndex::frame`] proves it.
    pub async fn read_stored_frames(&self, index: &SegmentIndex, frames: Range<usize>) -> Result<Vec<(usize, Bytes)>> {
        let ranges: Option<Vec<_>> = frames.clone().map(|frame| index.frame_range(frame)).collect();
        let absent =
            || Error::new(Code::Internal, "reading frames of").on(index.key()).with("frames", format!("{frames:?}"));
        let ranges = ranges.ok_or_else(absent)?;
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Ok(Vec::new()) };
        let start = first.start;
        let bytes = self.store.get_range(index.key(), start..last.end).await?;
        let bytes = bytes.ok_or_else(|| segment_missing(index.key()))?;
        frames
            .clone()
            .zip(&ranges)
            .map(|(frame, range)| {
                let inside = |at: u64| usize::try_from(at - start).ok().filter(|at| *at <= bytes.len());
                let (from, to) = inside(range.start).zip(inside(range.end)).ok_or_else(absent)?;
                Ok((frame, bytes.slice(from..to)))
            })
            .collect()
    }

    /// A whole segment.
    pub async fn read_segment(&self, timeline: TimelineId, ordinals: impl Into<Ordinals>) -> Result<SegmentReader> {
        let wanted = self.wanted(timeline, ordinals);
        let key = wanted.key();
        match self.store.get(&key, MAX_SEGMENT).await? {
            Some(body) => self.open_segment(&wanted, body).await,
            None => Err(self.why_missing(&wanted).await?),
        }
    }

    /// Why a segment is not there that a catalog named: it can have been merged since that was read.
    async fn why_missing(&self, wanted: &Wanted) -> Result<Error> {
        let (key, ordinals) = (wanted.key(), wanted.ordinals);
        let all = self.list_all_segments(wanted.timeline).await?;
        let around = |other: &Ordinals| other.first() <= ordinals.first() && ordinals.last() <= other.last();
        let merged = all.into_iter().map(|(other, _)| other).find(|other| *other != ordinals && around(other));
        Ok(match merged {
            None => segment_missing(&key),
            Some(merged) => segment_missing(&key).with("merged into", ObjectKey::segment(wanted.timeline, merged)).hint(
                "its entries were merged into a larger segment and it was deleted a grace period later, by when nobody held it: plan again, from the archive as it is now",
            ),
        })
    }

    async fn open_segment(&self, wanted: &Wanted, body: Bytes) -> Result<SegmentReader> {
        let header = wanted.header(&body)?;
        self.admit_epoch(header.epoch).await?;
        SegmentReader::open(wanted, body, &self.keyring)
    }

    /// All segments of a timeline above an ordinal as archivers wrote them, by their keys, with their sizes. Merged ones are
    /// found through the manifests that name them.
    pub async fn list_segments(&self, timeline: TimelineId, after: Option<Ordinal>) -> Result<Vec<(Ordinal, u64)>> {
        let after = after.map(|ordinal| ObjectKey::segment(timeline, ordinal));
        let listed = self.store.list(&prefix::segments(timeline), after.as_ref()).await?;
        Ok(listed.iter().filter_map(|l| l.key.segment_ordinal().map(|ordinal| (ordinal, l.size))).collect())
    }

    /// All segment objects of a timeline, merged ones too, with their sizes.
    pub async fn list_all_segments(&self, timeline: TimelineId) -> Result<Vec<(Ordinals, u64)>> {
        let listed = self.store.list(&prefix::segments(timeline), None).await?;
        Ok(listed.iter().filter_map(|l| l.key.segment_ordinals().map(|ordinals| (ordinals, l.size))).collect())
    }

    /// Merged segments that no manifest which could be read names, where something is missing without them: what a lost
    /// manifest named is still in the segments themselves. In the order of their sizes; which of them fit, the catalog tells.
    pub(crate) async fn unnamed_merges(
        &self,
        timeline: TimelineId,
        segments: &[SegmentSummary],
        named: &[NamedMerge],
        findings: &mut Vec<Error>,
    ) -> Result<Vec<NamedMerge>> {
        let known: BTreeSet<Ordinals> = named.iter().map(|merge| merge.summary.ordinals()).collect();
        let holes: Vec<Ordinals> = holes(segments).collect();
        let missing =
            |wanted: &Ordinals| holes.iter().any(|hole| hole.first() <= wanted.last() && wanted.first() <= hole.last());
        let mut wanted: Vec<Ordinals> = self.list_all_segments(timeline).await?.into_iter().map(|(o, _)| o).collect();
        wanted.retain(|ordinals| ordinals.is_merged() && !known.contains(ordinals) && missing(ordinals));
        wanted.sort_by_key(|ordinals| (ordinals.last().get() - ordinals.first().get(), *ordinals));
        let mut found = Vec::with_capacity(wanted.len());
        for ordinals in wanted {
            match self.read_index(timeline, ordinals).await {
                Ok(index) => {
                    let since = index.header().created;
                    found.push(NamedMerge { summary: index.into_footer().summary, since });
                }
                Err(e) if e.code().retry() == Retry::Never => findings.push(e),
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// Footers of listed segments, concurrently, in order.
    pub(crate) async fn footers(
        &self,
        timeline: TimelineId,
        segments: Vec<(Ordinal, u64)>,
    ) -> Vec<(Ordinal, Result<SegmentFooter>)> {
        stream::iter(segments)
            .map(|(ordinal, size)| async move { (ordinal, self.footer_of(timeline, ordinal, size).await) })
            .buffered(CONCURRENCY)
            .collect()
            .await
    }

    async fn footer_of(&self, timeline: TimelineId, ordinal: Ordinal, size: u64) -> Result<SegmentFooter> {
        if size > SMALL_SEGMENT {
            return self.read_footer(timeline, ordinal).await;
        }
        let wanted = self.wanted(timeline, ordinal);
        let key = wanted.key();
        let body = self.store.get(&key, SMALL_SEGMENT).await?.ok_or_else(|| segment_missing(&key))?;
        let header = wanted.header(&body)?;
        self.admit_epoch(header.epoch).await?;
        let tail = tail_range(&header);
        let start = usize::try_from(tail.start).unwrap_or(usize::MAX).min(body.len());
        SegmentIndex::open(&wanted, &body, &body.slice(start..), &self.keyring).map(SegmentIndex::into_footer)
    }

    /// The end of a timeline: its last manifest and what follows it.
    ///
    /// # Errors
    /// `segment.missing` with the first absent one; `archive.chain-broken` where two neighbours do not join.
    pub async fn tail(&self, timeline: TimelineId) -> Result<Tail> {
        let deleted = self.deletion_boundary(timeline).await?;
        let last = match self.list_manifests(timeline).await?.last() {
            None => None,
            Some(number) => {
                let key = ObjectKey::manifest(timeline, *number);
                let found = self.get_manifest(timeline, *number).await?;
                Some(found.ok_or_else(|| missing(&key, "reading the manifest"))?)
            }
        };
        let rolled_up = last.as_ref().and_then(|(manifest, _)| manifest.segments.last());
        let listed = self.list_segments(timeline, rolled_up.map(|s| s.ordinal)).await?;
        let kept = |ordinal: Ordinal| deleted.as_ref().is_none_or(|d| ordinal >= d.ordinal);
        let listed: Vec<_> = listed.into_iter().filter(|(ordinal, _)| kept(*ordinal)).collect();
        let mut footers = Vec::with_capacity(listed.len());
        for (_, footer) in self.footers(timeline, listed).await {
            footers.push(footer?);
        }
        let head = match (footers.last(), rolled_up) {
            (Some(last), _) => Some(last.clone()),
            (None, Some(rolled_up)) if kept(rolled_up.ordinal) => {
                Some(self.read_footer(timeline, rolled_up.ordinals()).await?)
            }
            _ => None,
        };
        let segments: Vec<_> = footers.into_iter().map(|footer| footer.summary).collect();
        invariants::joins(timeline, rolled_up, deleted.as_ref(), &segments)?;
        if let (Some(head), Some(rolled_up), true) = (&head, rolled_up, segments.is_empty()) {
            invariants::same_segment(timeline, rolled_up, &head.summary)?;
        }
        let next_manifest = match &last {
            None => ManifestNumber::new(0),
            Some((manifest, _)) => manifest
                .number
                .next()
                .ok_or_else(|| Error::new(Code::Internal, "numbering the next manifest").on(manifest.number))?,
        };
        Ok(Tail { head, segments, next_manifest, previous_manifest: last.map(|(_, hash)| hash), deleted })
    }
}
