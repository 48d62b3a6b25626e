//! The order of keys.
//!
//! Owns: RocksDB's two built-in orders, and a number that decides most comparisons by itself.
//! Refuses: every other comparator; what it sorts nobody else can.

use std::cmp::Ordering;

/// The order of a column family's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyOrder {
    /// `leveldb.BytewiseComparator`.
    Bytewise,
    /// `rocksdb.ReverseBytewiseComparator`.
    Reverse,
}

impl KeyOrder {
    /// The order of this name; `None` for any other.
    pub fn of(comparator: &str) -> Option<Self> {
        match comparator {
            "leveldb.BytewiseComparator" => Some(Self::Bytewise),
            "rocksdb.ReverseBytewiseComparator" => Some(Self::Reverse),
            _ => None,
        }
    }

    /// Which key comes first.
    pub fn compare(self, a: &[u8], b: &[u8]) -> Ordering {
        match self {
            Self::Bytewise => a.cmp(b),
            Self::Reverse => b.cmp(a),
        }
    }

    /// A number that orders as the keys do, or is the same.
    pub fn prefix(self, key: &[u8]) -> u64 {
        let mut first = [0; 8];
        for (to, from) in first.iter_mut().zip(key) {
            *to = *from;
        }
        match self {
            Self::Bytewise => u64::from_be_bytes(first),
            Self::Reverse => !u64::from_be_bytes(first),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_prefix_never_contradicts_the_order(a in prop::collection::vec(0..3_u8, 0..12), b in prop::collection::vec(0..3_u8, 0..12)) {
            for order in [KeyOrder::Bytewise, KeyOrder::Reverse] {
                let by_prefix = order.prefix(&a).cmp(&order.prefix(&b));
                prop_assert!(by_prefix == Ordering::Equal || by_prefix == order.compare(&a, &b));
            }
        }
    }
}
