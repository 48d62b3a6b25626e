//! Which merged segments count, by their ordinals alone.
//!
//! Owns: the same answer that applying every summary gives ([`Entries::apply`](super::Entries::apply)), from what an index
//! says: which ordinals each manifest's merged segments stand for. Pure.
//! Refuses: merged segments of which one reaches into another: that is damage, and the summaries tell.

use std::collections::BTreeMap;

use super::Manifest;
use crate::{
    catalog::schema::BoundaryDocument,
    ids::{ManifestNumber, Ordinal, Ordinals},
};

/// The merged segments that count; no two have an ordinal in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counting(BTreeMap<Ordinal, Counted>);

/// A merged segment that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Counted {
    /// The manifest that names it.
    pub by: ManifestNumber,
    /// The ordinals that it stands for.
    pub ordinals: Ordinals,
}

impl Counting {
    /// As these manifests, in order, name them; `None` where they contradict one another.
    pub fn of<'a>(
        manifests: impl IntoIterator<Item = &'a Manifest>,
        deleted: Option<&BoundaryDocument>,
    ) -> Option<Self> {
        let mut counting = Self::default();
        for manifest in manifests {
            for ordinals in manifest.merged.iter().filter(|o| deleted.is_none_or(|deleted| deleted.admits(**o))) {
                counting.name(Counted { by: manifest.number, ordinals: *ordinals })?;
            }
        }
        Some(counting)
    }

    fn name(&mut self, named: Counted) -> Option<()> {
        let over: Vec<Counted> = self.over(named.ordinals).collect();
        // Named twice: the first time counts.
        if over.iter().any(|known| known.ordinals == named.ordinals) {
            return Some(());
        }
        if !over.iter().all(|known| covers(named.ordinals, known.ordinals)) {
            return None;
        }
        for known in over {
            self.0.remove(&known.ordinals.first());
        }
        self.0.insert(named.ordinals.first(), named);
        Some(())
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = Counted> {
        self.0.values().copied()
    }

    /// Those that share an ordinal with these, in order.
    pub fn over(&self, ordinals: Ordinals) -> impl Iterator<Item = Counted> {
        let before = self.0.range(..ordinals.first()).next_back().map(|(_, counted)| *counted);
        let before = before.filter(|counted| counted.ordinals.last() >= ordinals.first());
        before.into_iter().chain(self.0.range(ordinals.first()..=ordinals.last()).map(|(_, counted)| *counted))
    }
}

/// Whether every one of `inner` is one of `outer`.
pub(crate) fn covers(outer: Ordinals, inner: Ordinals) -> bool {
    outer.first() <= inner.first() && inner.last() <= outer.last()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Micros,
        ids::{ContentHash, Epoch},
    };

    fn ordinals(first: u64, last: u64) -> Ordinals {
        Ordinals::new(Ordinal::new(first), Ordinal::new(last)).unwrap()
    }

    fn counted(named: &[&[(u64, u64)]]) -> Option<Vec<(u64, u64, u64)>> {
        let manifests: Vec<Manifest> = named
            .iter()
            .zip(0..)
            .map(|(merged, number)| Manifest {
                number: ManifestNumber::new(number),
                hash: ContentHash([0; 32]),
                previous: None,
                segments: Ordinal::new(0)..Ordinal::new(0),
                bases: Vec::new(),
                tags: Vec::new(),
                pruned: Vec::new(),
                merged: merged.iter().map(|(first, last)| ordinals(*first, *last)).collect(),
                rebuilt: false,
                created: Micros(0),
                epoch: Epoch::new(1),
            })
            .collect();
        let counting = Counting::of(&manifests, None)?;
        let all = counting.iter().map(|c| (c.ordinals.first().get(), c.ordinals.last().get(), c.by.get()));
        Some(all.collect())
    }

    #[test]
    fn a_larger_one_replaces_those_inside_it_and_one_named_twice_counts_once() {
        assert_eq!(counted(&[]), Some(vec![]));
        assert_eq!(counted(&[&[(4, 6), (0, 3)], &[(7, 8)]]), Some(vec![(0, 3, 0), (4, 6, 0), (7, 8, 1)]));
        assert_eq!(counted(&[&[(0, 3), (4, 6)], &[(7, 8)], &[(0, 6)]]), Some(vec![(0, 6, 2), (7, 8, 1)]));
        assert_eq!(counted(&[&[(0, 3)], &[(0, 3)]]), Some(vec![(0, 3, 0)]));
    }

    #[test]
    fn one_that_reaches_into_another_or_lies_inside_it_is_not_decided_here() {
        assert_eq!(counted(&[&[(0, 3)], &[(3, 5)]]), None);
        assert_eq!(counted(&[&[(3, 5)], &[(0, 3)]]), None);
        assert_eq!(counted(&[&[(0, 9)], &[(3, 5)]]), None);
        assert_eq!(counted(&[&[(3, 5)], &[(0, 4)]]), None);
    }

    #[test]
    fn what_shares_an_ordinal_is_found() {
        let mut counting = Counting::default();
        for (first, last) in [(0, 3), (6, 8), (9, 12)] {
            counting.name(Counted { by: ManifestNumber::new(0), ordinals: ordinals(first, last) }).unwrap();
        }
        let over = |first, last| -> Vec<u64> {
            counting.over(ordinals(first, last)).map(|c| c.ordinals.first().get()).collect()
        };
        assert_eq!((over(4, 5), over(3, 6), over(7, 7), over(13, 20)), (vec![], vec![0, 6], vec![6], vec![]));
        assert_eq!(over(0, 20), [0, 6, 9]);
    }
}
