//! Ranges that were deleted, of one column family.
//!
//! Owns: which of a key's versions a later deletion of a range covers, and the ranges as they are written down, cut at the
//! edges of files. All that is written of them has one sequence number, so overlapping ranges become one; a version that is
//! younger than the range is told from an older one here, and nowhere else.

use std::collections::BTreeMap;

use super::order::KeyOrder;

/// A deletion of keys from `begin` up to, not including, `end`, as the `age`-th operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    pub begin: Vec<u8>,
    pub end: Vec<u8>,
    pub age: u64,
}

/// With the index of its column family.
pub(crate) type FamilyTombstone = (u16, Tombstone);

impl Tombstone {
    /// What it takes of memory.
    pub fn bytes(&self) -> usize {
        self.begin.len() + self.end.len() + size_of::<Self>()
    }
}

/// A piece of the keys with the youngest deletion of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fragment {
    begin: Vec<u8>,
    end: Vec<u8>,
    youngest: u64,
}

/// What was deleted by ranges.
#[derive(Clone, Debug)]
pub(crate) struct Tombstones {
    order: KeyOrder,
    /// In order, none empty, none overlapping.
    fragments: Vec<Fragment>,
}

impl Tombstones {
    pub fn new(order: KeyOrder, tombstones: impl IntoIterator<Item = Tombstone>) -> Self {
        let not_empty = |t: &Tombstone| order.compare(&t.begin, &t.end).is_lt();
        let mut edges: Vec<(Vec<u8>, Edge, u64)> = Vec::new();
        for Tombstone { begin, end, age } in tombstones.into_iter().filter(not_empty) {
            edges.push((begin, Edge::Begin, age));
            edges.push((end, Edge::End, age));
        }
        edges.sort_by(|a, b| order.compare(&a.0, &b.0));
        let mut fragments: Vec<Fragment> = Vec::new();
        // Ages of the ranges that are open, each with how often: two of one batch can have the same.
        let mut open: BTreeMap<u64, usize> = BTreeMap::new();
        let mut from: Vec<u8> = Vec::new();
        for (key, edge, age) in edges {
            if let Some((youngest, _)) = open.last_key_value()
                && order.compare(&from, &key).is_lt()
            {
                match fragments.last_mut().filter(|last| last.end == from && last.youngest == *youngest) {
                    Some(last) => last.end.clone_from(&key),
                    None => fragments.push(Fragment { begin: from, end: key.clone(), youngest: *youngest }),
                }
            }
            match edge {
                Edge::Begin => *open.entry(age).or_default() += 1,
                Edge::End => {
                    let count = open.entry(age).or_default();
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        open.remove(&age);
                    }
                }
            }
            from = key;
        }
        Self { order, fragments }
    }

    /// Whether a version of `age` was deleted with a range behind it.
    pub fn cover(&self, key: &[u8], age: u64) -> bool {
        let behind = self.fragments.partition_point(|fragment| self.order.compare(&fragment.end, key).is_le());
        let fragment = self.fragments.get(behind).filter(|fragment| self.order.compare(&fragment.begin, key).is_le());
        fragment.is_some_and(|fragment| age < fragment.youngest)
    }

    /// The deleted ranges between two keys; `None` is the end on that side.
    pub fn between(&self, from: Option<&[u8]>, to: Option<&[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let first = from.map_or(0, |from| self.fragments.partition_point(|f| self.order.compare(&f.end, from).is_le()));
        for fragment in self.fragments.iter().skip(first) {
            let begin =
                from.filter(|from| self.order.compare(&fragment.begin, from).is_lt()).unwrap_or(&fragment.begin);
            let end = to.filter(|to| self.order.compare(to, &fragment.end).is_lt()).unwrap_or(&fragment.end);
            if self.order.compare(begin, end).is_ge() {
                break;
            }
            match found.last_mut().filter(|(_, last)| last == begin) {
                Some((_, last)) => *last = end.to_vec(),
                None => found.push((begin.to_vec(), end.to_vec())),
            }
        }
        found
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    Begin,
    End,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<Tombstone>> {
        let one = (0..20_u8, 0..20_u8, 0..6_u64);
        prop::collection::vec(one, 0..8).prop_map(|all| {
            all.into_iter().map(|(begin, end, age)| Tombstone { begin: vec![begin], end: vec![end], age }).collect()
        })
    }

    proptest! {
        #[test]
        fn a_version_is_covered_by_what_came_behind_it_and_every_deleted_key_is_written_down(
            ranges in ranges(), from in 0..20_u8, to in 0..20_u8, reverse: bool,
        ) {
            let order = if reverse { KeyOrder::Reverse } else { KeyOrder::Bytewise };
            let tombstones = Tombstones::new(order, ranges.clone());
            let inside = |begin: &[u8], end: &[u8], key: &[u8]| {
                order.compare(begin, key).is_le() && order.compare(key, end).is_lt()
            };
            for key in 0..20_u8 {
                let key = [key];
                for age in 0..6 {
                    let expected = ranges.iter().any(|t| age < t.age && inside(&t.begin, &t.end, &key));
                    prop_assert_eq!(tombstones.cover(&key, age), expected, "{:?} {}", key, age);
                }
                for (from, to) in [(None, None), (Some([from]), Some([to])), (None, Some([to])), (Some([from]), None)] {
                    let (from, to) = (from.as_ref().map(<[u8; 1]>::as_slice), to.as_ref().map(<[u8; 1]>::as_slice));
                    let found = tombstones.between(from, to);
                    prop_assert!(found.iter().all(|(begin, end)| order.compare(begin, end).is_lt()));
                    prop_assert!(found.windows(2).all(|two| order.compare(&two[0].1, &two[1].0).is_lt()));
                    let deleted = ranges.iter().any(|t| inside(&t.begin, &t.end, &key))
                        && from.is_none_or(|from| order.compare(from, &key).is_le())
                        && to.is_none_or(|to| order.compare(&key, to).is_lt());
                    prop_assert_eq!(found.iter().any(|(begin, end)| inside(begin, end, &key)), deleted);
                }
            }
        }
    }
}
