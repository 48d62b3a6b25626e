//! Indexes over manifests: which there are, what they say, and which of them to read. Pure.
//!
//! Owns: the groups of manifests that have an index ([`Shape`]), how a manifest's segments become one entry
//! ([`indexed`]), and the fewest documents that tell of every manifest (`cover`).
//! Refuses: being the truth. An index follows from manifests, names their hashes, and gives way to them.
//!
//! An entry is what one merged segment would say of itself. A plan looks at edges, events and bounds in it; where what lies
//! inside decides, the manifest is read (`outline`).

use std::collections::BTreeSet;

use crate::{
    catalog::{
        invariants,
        model::Manifest,
        schema::{BaseDocument, IndexedManifest, IndexedSegments, ManifestDocument, RolledUp, SegmentSummary, WalSpan},
    },
    clock::Micros,
    ids::{ContentHash, ManifestNumber, ManifestNumbers, Ordinal, Ordinals, SequenceNumber, TimelineId},
    segment::entry::Event,
};

/// Which groups of manifests have an index: those of `fan_in`, of `fan_in * fan_in` and so on, `levels` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    fan_in: u64,
    levels: u32,
}

impl Default for Shape {
    /// 16, 256 and 4096. A year of manifests every five minutes is 25 of the largest; the smallest come about hourly, so that
    /// at most 15 documents of each kind are read.
    fn default() -> Self {
        Self { fan_in: 16, levels: 3 }
    }
}

impl Shape {
    /// At least two in a group; `None` for fewer, or where a group could not be counted.
    pub fn new(fan_in: u64, levels: u32) -> Option<Self> {
        (fan_in >= 2 && fan_in.checked_pow(levels).is_some()).then_some(Self { fan_in, levels })
    }

    fn sizes(self) -> impl Iterator<Item = u64> {
        (1..=self.levels).map_while(move |level| self.fan_in.checked_pow(level))
    }

    /// The groups whose last manifest is `number`, smallest first.
    pub fn completed_by(self, number: ManifestNumber) -> Vec<ManifestNumbers> {
        let Some(end) = number.get().checked_add(1) else { return Vec::new() };
        let complete = self.sizes().take_while(|size| end.is_multiple_of(*size));
        complete.filter_map(|size| ManifestNumbers::new(ManifestNumber::new(end - size), number)).collect()
    }

    /// The groups that a group consists of; none where it consists of manifests.
    pub fn parts(self, group: ManifestNumbers) -> Vec<ManifestNumbers> {
        let (first, last) = (group.first().get(), group.last().get());
        let size = last.saturating_sub(first).saturating_add(1) / self.fan_in;
        if size < self.fan_in {
            return Vec::new();
        }
        let part = |n: u64| {
            let from = first + n * size;
            ManifestNumbers::new(ManifestNumber::new(from), ManifestNumber::new(from + size - 1))
        };
        (0..self.fan_in).filter_map(part).collect()
    }
}

/// A document that is read to know of manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// An index, of several.
    Index(ManifestNumbers),
    /// The manifest itself.
    Manifest(ManifestNumber),
}

/// The fewest documents that tell of all `manifests` (in order), out of them and these indexes.
pub(crate) fn cover(manifests: &[ManifestNumber], indexes: &BTreeSet<ManifestNumbers>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = manifests;
    while let [next, ..] = rest {
        let over = indexes.iter().filter(|index| index.contains(*next)).max_by_key(|index| index.last());
        let told = over.map_or(1, |index| rest.partition_point(|number| *number <= index.last()));
        parts.push(match over {
            Some(index) if told > 1 => Part::Index(*index),
            _ => Part::Manifest(*next),
        });
        rest = rest.get(told..).unwrap_or_default();
    }
    parts
}

/// What an index says of a manifest; `hash` is that of its stored bytes. Everything of a manifest that is no segment is
/// carried whole: whatever else it comes to say about segments of other manifests belongs here.
pub fn indexed(document: &ManifestDocument, hash: ContentHash) -> IndexedManifest {
    IndexedManifest {
        number: document.number,
        hash,
        previous: document.previous,
        segments: as_one(document.timeline, &document.segments),
        bases: document.bases.clone(),
        tags: document.tags.clone(),
        pruned: document.pruned.clone(),
        rebuilt: document.rebuilt,
        merged: document.merged.iter().map(|s| (s.ordinal, s.ordinals().last())).collect(),
        created: document.created,
        epoch: document.epoch,
    }
}

/// A base without its files.
pub fn slim(mut base: BaseDocument) -> BaseDocument {
    (base.files, base.inline) = (Vec::new(), Vec::new());
    base
}

/// Segments as one; `None` where they do not follow one another, which nobody must overlook.
fn as_one(timeline: TimelineId, segments: &[SegmentSummary]) -> Option<IndexedSegments> {
    let (first, last) = (segments.first()?, segments.last()?);
    if segments.iter().any(|s| s.rolled_up.is_some()) || !invariants::is_unbroken(timeline, segments) {
        return None;
    }
    let mut wals: Vec<WalSpan> = Vec::new();
    for span in segments.iter().flat_map(|s| &s.wals) {
        match wals.last_mut() {
            Some(before) if before.wal == span.wal => (before.end, before.prefix) = (span.end, span.prefix),
            _ => wals.push(span.clone()),
        }
    }
    let summary = SegmentSummary {
        ordinal: first.ordinal,
        last_ordinal: Some(last.ordinals().last()).filter(|last| *last > first.ordinal),
        epoch: last.epoch,
        first: first.first,
        end: last.end,
        hash_before: first.hash_before,
        hash_after: last.hash_after,
        min_sequence: segments.iter().filter_map(|s| s.min_sequence).min(),
        max_sequence: segments.iter().filter_map(|s| s.max_sequence).max(),
        last_sequence: last.last_sequence,
        transactions: last.transactions.clone(),
        special: segments
            .iter()
            .map(|s| s.special.clone())
            .collect::<Option<Vec<_>>>()
            .map(|all| all.into_iter().flatten().collect()),
        wals,
        observed: None,
        observed_through: None,
        plain_bytes: segments.iter().map(|s| s.plain_bytes).fold(0, u64::saturating_add),
        events: segments.iter().flat_map(|s| &s.events).cloned().collect(),
        object_bytes: segments.iter().map(|s| s.object_bytes).fold(0, u64::saturating_add),
        rolled_up: None,
        merged: None,
    };
    // A clock can have been set back inside a segment, too.
    let first = segments.iter().filter_map(|s| Some(s.observed?.0.at));
    let last = || segments.iter().flat_map(|s| [s.observed.map(|(_, last)| last.at), s.observed_through]).flatten();
    let (earliest, latest): (Option<Micros>, _) = (first.chain(last()).min(), last().max());
    Some(IndexedSegments { summary, earliest, latest, ascending: is_ascending(segments) })
}

fn is_ascending(segments: &[SegmentSummary]) -> bool {
    let begins = |event: &Event| {
        matches!(event, Event::RunStarted { .. } | Event::SessionStarted { .. } | Event::Barrier { .. })
    };
    let mut latest: Option<SequenceNumber> = None;
    segments.iter().all(|s| {
        let follows = match (s.min_sequence, s.max_sequence) {
            (Some(min), Some(max)) => {
                let follows = latest.is_none_or(|latest| latest < min) && max == s.last_sequence;
                latest = Some(max);
                follows
            }
            _ => s.first == s.end && latest.is_none_or(|latest| latest == s.last_sequence),
        };
        follows && !s.events.iter().any(|placed| begins(&placed.event))
    })
}

impl IndexedManifest {
    /// As a catalog has it, where the index tells enough.
    pub(crate) fn outline(self) -> Option<(Manifest, SegmentSummary)> {
        let IndexedSegments { mut summary, earliest, latest, ascending } = self.segments?;
        let end = summary.ordinals().next()?;
        let outline = Manifest {
            number: self.number,
            hash: self.hash,
            previous: self.previous,
            segments: summary.ordinal..end,
            bases: self.bases,
            tags: self.tags,
            pruned: self.pruned,
            rebuilt: self.rebuilt,
            merged: self.merged.into_iter().map(|(first, last)| Ordinals::new(first, last)).collect::<Option<_>>()?,
            created: self.created,
            epoch: self.epoch,
        };
        summary.rolled_up = Some(Box::new(RolledUp { manifest: self.number, earliest, latest, ascending }));
        Some((outline, summary))
    }

    /// The ordinals of its segments.
    pub(crate) fn ordinals(&self) -> Option<(Ordinal, Ordinal)> {
        let ordinals = self.segments.as_ref()?.summary.ordinals();
        Some((ordinals.first(), ordinals.last()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(first: u64, last: u64) -> ManifestNumbers {
        ManifestNumbers::new(ManifestNumber::new(first), ManifestNumber::new(last)).unwrap()
    }

    #[test]
    fn a_group_is_indexed_with_its_last_manifest_and_consists_of_smaller_groups() {
        let shape = Shape::default();
        assert_eq!(shape.completed_by(ManifestNumber::new(14)), []);
        assert_eq!(shape.completed_by(ManifestNumber::new(31)), [numbers(16, 31)]);
        let all = shape.completed_by(ManifestNumber::new(4095));
        assert_eq!(all, [numbers(4080, 4095), numbers(3840, 4095), numbers(0, 4095)]);
        assert_eq!(shape.parts(numbers(16, 31)), []);
        let parts = shape.parts(numbers(0, 4095));
        assert_eq!(
            (parts.len(), parts.first(), parts.last()),
            (16, Some(&numbers(0, 255)), Some(&numbers(3840, 4095)))
        );
        assert_eq!(Shape::new(2, 2).unwrap().completed_by(ManifestNumber::new(3)), [numbers(2, 3), numbers(0, 3)]);
        assert_eq!((Shape::new(1, 1), Shape::new(u64::MAX, 2)), (None, None));
    }

    #[test]
    fn the_largest_indexes_are_read_and_manifests_where_there_is_none() {
        let wanted = |range: std::ops::Range<u64>| range.map(ManifestNumber::new).collect::<Vec<_>>();
        let indexes = BTreeSet::from([numbers(0, 1), numbers(2, 3), numbers(0, 3), numbers(4, 5), numbers(6, 7)]);
        let index = |first, last| Part::Index(numbers(first, last));
        let manifest = |number| Part::Manifest(ManifestNumber::new(number));
        assert_eq!(cover(&wanted(0..9), &indexes), [index(0, 3), index(4, 5), index(6, 7), manifest(8)]);
        // What deletion left is not enough for an index of its own.
        assert_eq!(cover(&wanted(3..6), &indexes), [manifest(3), index(4, 5)]);
        assert_eq!(cover(&wanted(0..3), &BTreeSet::new()), [manifest(0), manifest(1), manifest(2)]);
        assert_eq!(cover(&[], &indexes), []);
    }
}
