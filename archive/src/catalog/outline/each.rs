//! Every segment of a timeline, one after the other.
//!
//! Owns: reading what an outline left unread as it is shown, a few manifests at a time, whatever their number. Where one is
//! damaged or lost, the segments tell themselves.
//! Refuses: to keep what was shown.

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::Outline;
use crate::{
    catalog::{
        archive::Archive,
        load::{absent_manifest, is_finding},
        model::{Counted, Counting, Timeline, covers},
        schema::SegmentSummary,
    },
    code::Code,
    error::{Error, Result},
    ids::{ManifestNumber, Ordinal, TimelineId},
};

/// Manifests that are read ahead of being shown.
const AHEAD: usize = 4;

impl Outline {
    /// Shows every segment of a timeline, in order. A few manifests at a time are in memory.
    pub async fn each_segment(
        &self,
        archive: &Archive,
        timeline: &Timeline,
        mut visit: impl FnMut(&SegmentSummary) -> Result<()>,
    ) -> Result<()> {
        let (id, none) = (timeline.id(), Counting::default());
        let counting = self.counting.get(&id).unwrap_or(&none);
        let mut read = stream::iter(shown(counting, timeline.segments()))
            .map(|shown| async move {
                match shown {
                    Shown::Itself(entry) => Ok(vec![entry.clone()]),
                    Shown::Merged(counted) => Ok(archive.merged_segment(id, counted).await?.into_iter().collect()),
                    Shown::Manifest(entry, number, over) => archive.segments_of(id, number, entry, &over).await,
                }
            })
            .buffered(AHEAD);
        while let Some(segments) = read.try_next().await? {
            segments.iter().try_for_each(&mut visit)?;
        }
        Ok(())
    }
}

impl Archive {
    /// The segments of a manifest, some of which were merged; where it is damaged or lost, as they say themselves.
    async fn segments_of(
        &self,
        timeline: TimelineId,
        number: ManifestNumber,
        told: &SegmentSummary,
        merged: &[Counted],
    ) -> Result<Vec<SegmentSummary>> {
        let lost = match self.get_manifest(timeline, number).await {
            Ok(Some((document, _))) => {
                let mut segments = document.segments;
                for counted in merged {
                    // The order is restored below; what cannot be read was said.
                    segments.retain(|s| !covers(counted.ordinals, s.ordinals()));
                    segments.extend(self.merged_segment(timeline, *counted).await?);
                }
                segments.sort_by_key(|s| s.ordinal);
                return Ok(segments);
            }
            Ok(None) => absent_manifest(timeline, number),
            Err(e) if is_finding(e.code()) => e,
            Err(e) => return Err(e),
        };
        tracing::warn!(code = lost.code().name(), "damaged: {lost}");
        let (first, last) = (told.ordinals().first(), told.ordinals().last());
        let mut listed = self.list_segments(timeline, first.get().checked_sub(1).map(Ordinal::new)).await?;
        let inside = |ordinal: Ordinal| merged.iter().any(|counted| counted.ordinals.contains(ordinal));
        listed.retain(|(ordinal, _)| *ordinal <= last && !inside(*ordinal));
        let mut segments = Vec::with_capacity(listed.len());
        for (_, footer) in self.footers(timeline, listed).await {
            match footer {
                Ok(footer) => segments.push(footer.summary),
                Err(e) if is_finding(e.code()) => tracing::warn!(code = e.code().name(), "damaged: {e}"),
                Err(e) => return Err(e),
            }
        }
        for counted in merged {
            segments.extend(self.merged_segment(timeline, *counted).await?);
        }
        segments.sort_by_key(|s| s.ordinal);
        Ok(segments)
    }

    /// A merged segment as its manifest says; where that is damaged or lost, as it says itself.
    async fn merged_segment(&self, timeline: TimelineId, counted: Counted) -> Result<Option<SegmentSummary>> {
        let lost = match self.get_manifest(timeline, counted.by).await {
            Ok(Some((document, _))) => {
                let named = document.merged.into_iter().find(|s| s.ordinals() == counted.ordinals);
                if named.is_some() {
                    return Ok(named);
                }
                Error::new(Code::ChainBroken, "reading the manifest").with("does not name", counted.ordinals)
            }
            Ok(None) => absent_manifest(timeline, counted.by),
            Err(e) if is_finding(e.code()) => e,
            Err(e) => return Err(e),
        };
        tracing::warn!(code = lost.code().name(), "damaged: {lost}");
        match self.read_footer(timeline, counted.ordinals).await {
            Ok(footer) => Ok(Some(footer.summary)),
            Err(e) if is_finding(e.code()) => {
                tracing::warn!(code = e.code().name(), "damaged: {e}");
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

/// What is shown of an entry where every segment is shown.
#[derive(Clone, Debug)]
enum Shown<'a> {
    /// It.
    Itself(&'a SegmentSummary),
    /// The segments of the manifest that it stands for, with these in place.
    Manifest(&'a SegmentSummary, ManifestNumber, Vec<Counted>),
    /// The merged segment that it is the first to lie in.
    Merged(Counted),
}

/// What to show of some entries.
fn shown<'a>(counting: &Counting, segments: &'a [SegmentSummary]) -> impl Iterator<Item = Shown<'a>> {
    segments.iter().filter_map(|entry| {
        let Some(inside) = &entry.rolled_up else { return Some(Shown::Itself(entry)) };
        let over: Vec<Counted> = counting.over(entry.ordinals()).collect();
        match over.iter().find(|counted| covers(counted.ordinals, entry.ordinals())) {
            Some(counted) if counted.ordinals.first() == entry.ordinal => Some(Shown::Merged(*counted)),
            Some(_) => None,
            None => Some(Shown::Manifest(entry, inside.manifest, over)),
        }
    })
}
