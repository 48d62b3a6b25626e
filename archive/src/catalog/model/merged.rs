//! Merged segments in the place of those that they stand for.
//!
//! Owns: when one counts. Manifests name merged segments behind the parts; each replaces exactly the entries whose edges it
//! shares, in the order in which they were named, so that a larger one can replace smaller ones. Pure.
//! Where deletion cut inside one, or a range that is kept begins with a segment that a prune looked at before, the parts stay
//! in use ([`BoundaryDocument::admits`]): nothing but the statement about deletion decides, whoever was faster.
//! Refuses: one that does not fit, which is a finding; its parts stay in use.

use std::collections::BTreeMap;

use crate::{
    catalog::schema::{BoundaryDocument, SegmentSummary},
    clock::Micros,
    code::Code,
    error::Error,
    ids::{Ordinal, Ordinals, TimelineId},
    object_key::ObjectKey,
};

/// A merged segment, and since when it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedMerge {
    /// What it holds.
    pub summary: SegmentSummary,
    /// When the manifest that names it was written.
    pub since: Micros,
}

/// Whether every manifest could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manifests {
    /// All.
    All,
    /// Not those that are lost: what they held may be known from a merged segment alone.
    SomeLost,
}

/// The segments of a timeline, those that were merged in the place of their parts.
#[derive(Debug, Default)]
pub struct Entries {
    entries: BTreeMap<Ordinal, SegmentSummary>,
    /// Since when each merged one counts, by its first ordinal.
    since: BTreeMap<Ordinal, Micros>,
}

impl Entries {
    /// The entries of manifests and what follows them.
    pub fn new(segments: Vec<SegmentSummary>) -> Self {
        Self { entries: segments.into_iter().map(|s| (s.ordinal, s)).collect(), since: BTreeMap::new() }
    }

    /// A segment behind all others.
    pub fn push(&mut self, summary: SegmentSummary) {
        self.entries.insert(summary.ordinal, summary);
    }

    /// A merged segment of which it is known that it counts, and nothing of its parts is here.
    pub fn insert(&mut self, merge: NamedMerge) {
        let ordinal = merge.summary.ordinal;
        self.since.insert(ordinal, merge.since);
        self.entries.insert(ordinal, merge.summary);
    }

    /// Puts a merged segment into its place; answers what it replaced. `None`: deletion does not admit it.
    ///
    /// # Errors
    /// `segment.merged` when it is not what lies there.
    pub fn apply(
        &mut self,
        timeline: TimelineId,
        merge: NamedMerge,
        deleted: Option<&BoundaryDocument>,
        manifests: Manifests,
    ) -> Result<Option<Vec<SegmentSummary>>, Error> {
        let NamedMerge { summary, since } = merge;
        let ordinals = summary.ordinals();
        if deleted.is_some_and(|deleted| !deleted.admits(ordinals)) {
            return Ok(None);
        }
        if !self.fits(&summary, manifests) {
            return Err(Error::new(Code::SegmentMerged, "checking the archive at")
                .on(ObjectKey::segment(timeline, ordinals))
                .with("first", summary.first)
                .with("end", summary.end));
        }
        // Named twice: the manifest of a dead process came late. An entry that stands for a whole manifest is not it.
        let same = |known: &SegmentSummary| known.ordinals() == ordinals && known.rolled_up.is_none();
        if self.entries.get(&ordinals.first()).is_some_and(same) {
            return Ok(Some(Vec::new()));
        }
        let inside: Vec<Ordinal> =
            self.entries.range(ordinals.first()..=ordinals.last()).map(|(ordinal, _)| *ordinal).collect();
        let replaced = inside
            .iter()
            .filter_map(|ordinal| {
                self.since.remove(ordinal);
                self.entries.remove(ordinal)
            })
            .collect();
        self.since.insert(ordinals.first(), since);
        self.entries.insert(ordinals.first(), summary);
        Ok(Some(replaced))
    }

    fn fits(&self, merged: &SegmentSummary, manifests: Manifests) -> bool {
        let ordinals = merged.ordinals();
        let mut next = ordinals.first();
        let mut edges: Option<(&SegmentSummary, &SegmentSummary)> = None;
        // One that begins before it must not reach into it.
        let before = self.entries.range(..ordinals.first()).next_back();
        if before.is_some_and(|(_, before)| before.ordinals().last() >= ordinals.first()) || !ordinals.is_merged() {
            return false;
        }
        for part in self.entries.range(ordinals.first()..=ordinals.last()).map(|(_, part)| part) {
            if (manifests == Manifests::All && part.ordinal != next) || part.ordinals().last() > ordinals.last() {
                return false;
            }
            next = part.ordinals().next().unwrap_or(next);
            edges = Some((edges.map_or(part, |(first, _)| first), part));
        }
        let Some((first, last)) = edges else { return manifests == Manifests::SomeLost };
        let begins =
            first.ordinal != ordinals.first() || (first.first, first.hash_before) == (merged.first, merged.hash_before);
        let ends =
            last.ordinals().last() != ordinals.last() || (last.end, last.hash_after) == (merged.end, merged.hash_after);
        let whole = manifests == Manifests::SomeLost || Some(next) == ordinals.next();
        begins && ends && whole
    }

    /// The entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &SegmentSummary> {
        self.entries.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry that stands for an ordinal.
    pub fn at(&self, ordinal: Ordinal) -> Option<&SegmentSummary> {
        self.entries.range(..=ordinal).next_back().map(|(_, s)| s).filter(|s| s.ordinals().contains(ordinal))
    }

    /// Since when the merged segment that begins at an ordinal counts.
    pub fn since(&self, ordinal: Ordinal) -> Option<Micros> {
        self.since.get(&ordinal).copied()
    }

    /// Leaves out the first `count`.
    pub fn forget_first(&mut self, count: usize) {
        for _ in 0..count {
            if let Some((ordinal, _)) = self.entries.pop_first() {
                self.since.remove(&ordinal);
            }
        }
    }

    /// The entries in order, and since when those count that were merged.
    pub fn into_parts(self) -> (Vec<SegmentSummary>, BTreeMap<Ordinal, Micros>) {
        (self.entries.into_values().collect(), self.since)
    }
}

/// The segments of a timeline with all that was merged in its place.
pub(crate) fn in_place(
    timeline: TimelineId,
    segments: Vec<SegmentSummary>,
    merged: Vec<NamedMerge>,
    deleted: Option<&BoundaryDocument>,
    manifests: Manifests,
    findings: &mut Vec<Error>,
) -> (Vec<SegmentSummary>, BTreeMap<Ordinal, Micros>) {
    if merged.is_empty() {
        return (segments, BTreeMap::new());
    }
    let mut entries = Entries::new(segments);
    for merge in merged {
        if let Err(e) = entries.apply(timeline, merge, deleted, manifests) {
            findings.push(e);
        }
    }
    entries.into_parts()
}

/// Ordinals of which no entry tells, between the first entry and the last.
pub(crate) fn holes(segments: &[SegmentSummary]) -> impl Iterator<Item = Ordinals> {
    segments.windows(2).filter_map(|pair| {
        let [before, after] = pair else { return None };
        let from = before.ordinals().next()?;
        let to = Ordinal::new(after.ordinal.get().checked_sub(1)?);
        Ordinals::new(from, to)
    })
}

#[cfg(test)]
mod tests;
