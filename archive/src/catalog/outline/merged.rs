//! Merged segments in an outline: which of them a plan must know, and putting them into their place.
//!
//! Owns: how an entry that stands for a manifest and a merged segment can lie to one another. Archivers merge inside one
//! manifest, or whole manifests, so that one of the two holds the other: where the manifest is wanted, the merged segment
//! that holds it takes the place of all its entries, and the manifests that it is over are not read at all.
//! Refuses: any other case. Then the whole catalog is read.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    catalog::{
        model::{Counted, Counting, covers},
        schema::SegmentSummary,
    },
    ids::ManifestNumber,
};

/// What is read to know some entries exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Opening {
    /// Manifests whose own segments take the place of their entry.
    pub manifests: BTreeSet<ManifestNumber>,
    /// Merged segments that take the place of what lies there, in the order in which they were named.
    pub merged: BTreeSet<Counted>,
}

impl Opening {
    /// What an outline begins with: merged segments that lie over segments which are known exactly. `None` where one of them
    /// begins or ends in the midst of a manifest that it does not lie in.
    pub fn first(counting: &Counting, segments: &[SegmentSummary]) -> Option<Self> {
        let mut opening = Self::default();
        for counted in counting.iter() {
            let there = there(segments, counted)?;
            if there.iter().any(|s| s.rolled_up.is_none()) {
                opening.merged.insert(counted);
            }
        }
        Some(opening)
    }

    /// What makes the entries of these manifests exact; `None` where one has no entry.
    pub fn of(counting: &Counting, segments: &[SegmentSummary], wanted: &BTreeSet<ManifestNumber>) -> Option<Self> {
        let entries: BTreeMap<ManifestNumber, &SegmentSummary> =
            segments.iter().filter_map(|s| Some((s.rolled_up.as_ref()?.manifest, s))).collect();
        let mut opening = Self::default();
        for number in wanted {
            let entry = entries.get(number)?;
            let over: Vec<Counted> = counting.over(entry.ordinals()).collect();
            if !over.iter().any(|counted| covers(counted.ordinals, entry.ordinals())) {
                opening.manifests.insert(*number);
            }
            opening.merged.extend(over);
        }
        Some(opening)
    }

    /// The manifests that must be read for it.
    pub fn reads(&self) -> BTreeSet<ManifestNumber> {
        self.merged.iter().map(|counted| counted.by).chain(self.manifests.iter().copied()).collect()
    }
}

/// The entries that share an ordinal with a merged segment; `None` where it holds a part of one, and more than that.
fn there(segments: &[SegmentSummary], counted: Counted) -> Option<&[SegmentSummary]> {
    let (first, last) = (counted.ordinals.first(), counted.ordinals.last());
    let from = segments.partition_point(|s| s.ordinals().last() < first);
    let to = segments.partition_point(|s| s.ordinal <= last);
    let there = segments.get(from..to).filter(|there| !there.is_empty())?;
    let inside = |s: &SegmentSummary| covers(counted.ordinals, s.ordinals());
    let around = |s: &SegmentSummary| s.rolled_up.is_some() && covers(s.ordinals(), counted.ordinals);
    (there.iter().all(inside) || matches!(there, [one] if around(one))).then_some(there)
}
