//! What deletion left of a timeline.
//!
//! Owns: which segments and manifests a [`BoundaryDocument`] keeps, and where the ranges that it keeps begin and end. Pure.

use crate::{
    catalog::schema::{BoundaryDocument, KeptManifests, OpenRun},
    ids::{Boundary, ContentHash, ManifestNumber, ManifestNumbers, Ordinal, Ordinals, RunningHash},
};

/// Segments that follow one another; what lies before them was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptRange<'a> {
    /// The first of them.
    pub from: Ordinal,
    /// Where they begin.
    pub first: Boundary,
    /// The running hash there.
    pub hash_before: RunningHash,
    /// The first behind them, and where they end; `None` where everything that follows is kept.
    pub end: Option<(Ordinal, Boundary, RunningHash)>,
    /// The run that goes on where they begin.
    pub run: Option<&'a OpenRun>,
    /// The last ordinal of the first segment, where it is a merged one.
    pub head: Option<Ordinal>,
}

impl BoundaryDocument {
    /// The ranges of segments that are kept, in order; the last one has no end.
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = KeptRange<'_>> {
        let kept = self.kept.iter().map(|kept| KeptRange {
            from: kept.from,
            first: kept.first,
            hash_before: kept.hash_before,
            end: Some((kept.to, kept.end, kept.hash_after)),
            run: kept.run.as_ref(),
            head: kept.head,
        });
        kept.chain([KeptRange {
            from: self.ordinal,
            first: self.first,
            hash_before: self.hash_before,
            end: None,
            run: self.run.as_ref(),
            head: self.head,
        }])
    }

    /// Whether the segment at an ordinal is still part of the archive.
    pub fn keeps(&self, ordinal: Ordinal) -> bool {
        ordinal >= self.ordinal || {
            let after = self.kept.partition_point(|kept| kept.from <= ordinal);
            after.checked_sub(1).and_then(|index| self.kept.get(index)).is_some_and(|kept| ordinal < kept.to)
        }
    }

    /// Whether any of a segment's ordinals is still part of the archive.
    pub fn keeps_any(&self, ordinals: Ordinals) -> bool {
        ordinals.last() >= self.ordinal || {
            let after = self.kept.partition_point(|kept| kept.from <= ordinals.last());
            after.checked_sub(1).and_then(|index| self.kept.get(index)).is_some_and(|kept| ordinals.first() < kept.to)
        }
    }

    /// Whether a merged segment can stand for its ordinals: deletion cut nowhere inside it, and where it begins a range that is
    /// kept, the statement says that the range begins with it. A prune that did not know of it looked at the segment that lay
    /// there before, and its parts stay in use: what is kept is then exactly what was stated, whoever was faster.
    pub fn admits(&self, ordinals: Ordinals) -> bool {
        let (from, to, head) = if ordinals.first() >= self.ordinal {
            (self.ordinal, None, self.head)
        } else {
            let after = self.kept.partition_point(|kept| kept.from <= ordinals.first());
            match after.checked_sub(1).and_then(|index| self.kept.get(index)) {
                Some(kept) => (kept.from, Some(kept.to), kept.head),
                None => return false,
            }
        };
        let inside = to.is_none_or(|to| ordinals.last() < to);
        inside && (from != ordinals.first() || head == Some(ordinals.last()))
    }

    /// Whether a manifest is still part of the archive.
    pub fn keeps_manifest(&self, number: ManifestNumber) -> bool {
        let holds = |kept: &KeptManifests| kept.from <= number && kept.to.is_none_or(|to| number < to);
        self.manifests.is_empty() || self.manifests.iter().any(holds)
    }

    /// Whether any of these manifests is still part of the archive.
    pub fn keeps_manifest_of(&self, numbers: ManifestNumbers) -> bool {
        let holds = |kept: &KeptManifests| kept.from <= numbers.last() && kept.to.is_none_or(|to| numbers.first() < to);
        self.manifests.is_empty() || self.manifests.iter().any(holds)
    }

    /// Whether a boundary is not part of the archive any more: no segment that is kept touches it.
    pub fn has_deleted(&self, boundary: Boundary) -> bool {
        boundary < self.first && {
            let next = self.kept.partition_point(|kept| kept.end < boundary);
            self.kept.get(next).is_none_or(|kept| boundary < kept.first)
        }
    }

    /// Whether a range that is kept begins or ends at a boundary: of its events, some may have been deleted.
    pub fn cuts_at(&self, boundary: Boundary) -> bool {
        let begins = self.kept.partition_point(|kept| kept.first < boundary);
        let ends = self.kept.partition_point(|kept| kept.end < boundary);
        self.first == boundary
            || self.kept.get(begins).is_some_and(|kept| kept.first == boundary)
            || self.kept.get(ends).is_some_and(|kept| kept.end == boundary)
    }
}

/// The manifests of a timeline in order, as they must follow one another.
#[derive(Clone, Debug)]
pub struct ManifestPath<'a> {
    expected: ManifestNumber,
    previous: Option<ContentHash>,
    until: Option<ManifestNumber>,
    rest: std::slice::Iter<'a, KeptManifests>,
}

impl<'a> ManifestPath<'a> {
    /// From the first one on that deletion left.
    pub fn new(deleted: Option<&'a BoundaryDocument>) -> Self {
        let kept = deleted.map(|deleted| deleted.manifests.as_slice()).unwrap_or_default();
        let mut path = Self { expected: ManifestNumber::new(0), previous: None, until: None, rest: kept.iter() };
        path.enter();
        path
    }

    fn enter(&mut self) -> bool {
        let Some(kept) = self.rest.next() else { return false };
        (self.expected, self.previous, self.until) = (kept.from, kept.previous, kept.to);
        true
    }

    /// The number that must come, and the hash of the manifest before it.
    pub const fn expected(&self) -> (ManifestNumber, Option<ContentHash>) {
        (self.expected, self.previous)
    }

    /// Goes on behind a manifest.
    pub fn pass(&mut self, number: ManifestNumber, hash: ContentHash) {
        self.expected = number.next().unwrap_or(number);
        self.previous = Some(hash);
        while self.until.is_some_and(|until| until <= self.expected) {
            let reached = self.expected;
            if !self.enter() || reached <= self.expected {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::schema::{DOCUMENT_VERSION, Extra, KeptSegments},
        clock::Micros,
        ids::{ArchiveId, Epoch, Nonce, TimelineId},
    };

    /// Of ordinals 0.., with ten records each: 2 and 3 are kept, 7 is kept, and everything from 20 on.
    fn boundary(manifests: Vec<KeptManifests>) -> BoundaryDocument {
        let at = |n| (Boundary::new(n * 10), RunningHash([u8::try_from(n).unwrap(); 32]));
        let kept = |from, to| KeptSegments {
            from: Ordinal::new(from),
            to: Ordinal::new(to),
            first: at(from).0,
            hash_before: at(from).1,
            end: at(to).0,
            hash_after: at(to).1,
            run: None,
            head: None,
        };
        BoundaryDocument {
            version: DOCUMENT_VERSION,
            archive: ArchiveId([0; 16]),
            timeline: TimelineId::FIRST,
            ordinal: Ordinal::new(20),
            first: at(20).0,
            hash_before: at(20).1,
            revision: 0,
            run: None,
            head: Some(Ordinal::new(22)),
            kept: vec![kept(2, 4), kept(7, 8)],
            manifests,
            unlogged: Vec::new(),
            created: Micros(0),
            epoch: Epoch::new(1),
            nonce: Nonce([0; 16]),
            extra: Extra::new(),
        }
    }

    #[test]
    fn what_is_between_the_kept_ranges_is_deleted() {
        let boundary = boundary(Vec::new());
        let kept: Vec<u64> = (0..25).filter(|n| boundary.keeps(Ordinal::new(*n))).collect();
        assert_eq!(kept, [2, 3, 7, 20, 21, 22, 23, 24]);
        let deleted = |n| boundary.has_deleted(Boundary::new(n));
        for (boundary, expected) in [
            (0, true),
            (19, true),
            (20, false),
            (40, false),
            (41, true),
            (70, false),
            (80, false),
            (81, true),
            (200, false),
        ] {
            assert_eq!(deleted(boundary), expected, "boundary {boundary}");
        }
        let cuts: Vec<u64> = (0..300).filter(|n| boundary.cuts_at(Boundary::new(*n))).collect();
        assert_eq!(cuts, [20, 40, 70, 80, 200]);
    }

    #[test]
    fn a_merged_segment_counts_where_nothing_was_cut_inside_it_and_no_range_begins_with_another() {
        let boundary = boundary(Vec::new());
        let merged = |first, last| Ordinals::new(Ordinal::new(first), Ordinal::new(last)).unwrap();
        // Inside what is kept; with the first segment of a range; out of a range; before all.
        for (first, last, admitted, any) in [
            (3, 3, true, true),
            (2, 3, false, true),
            (3, 4, false, true),
            (1, 2, false, true),
            (4, 6, false, false),
            (0, 1, false, false),
            (0, 30, false, true),
            (18, 19, false, false),
            (19, 20, false, true),
            (20, 21, false, true),
            (20, 22, true, true),
            (21, 25, true, true),
        ] {
            assert_eq!(boundary.admits(merged(first, last)), admitted, "{first}-{last}");
            assert_eq!(boundary.keeps_any(merged(first, last)), any, "{first}-{last}");
        }
    }

    #[test]
    fn manifests_follow_one_another_across_those_that_were_deleted() {
        let hash = |n: u8| ContentHash([n; 32]);
        let kept = |from, to: Option<u64>, previous| KeptManifests {
            from: ManifestNumber::new(from),
            to: to.map(ManifestNumber::new),
            previous,
        };
        let boundary = boundary(vec![kept(2, Some(4), Some(hash(1))), kept(9, None, Some(hash(8)))]);
        let numbers: Vec<u64> = (0..12).filter(|n| boundary.keeps_manifest(ManifestNumber::new(*n))).collect();
        assert_eq!(numbers, [2, 3, 9, 10, 11]);
        let mut path = ManifestPath::new(Some(&boundary));
        let mut seen = Vec::new();
        for n in [2u8, 3, 9, 10] {
            seen.push(path.expected());
            path.pass(ManifestNumber::new(n.into()), hash(n));
        }
        let expected = [(2, 1), (3, 2), (9, 8), (10, 9)].map(|(n, h)| (ManifestNumber::new(n), Some(hash(h))));
        assert_eq!(seen, expected);
        assert_eq!(ManifestPath::new(None).expected(), (ManifestNumber::new(0), None));
    }
}
