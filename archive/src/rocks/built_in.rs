//! Comparators and merge operators that every RocksDB library has, by name.
//!
//! Owns: what a copy can be opened with by a program that has none of the source's own code.

/// Comparators.
const COMPARATORS: [&str; 2] = ["leveldb.BytewiseComparator", "rocksdb.ReverseBytewiseComparator"];

/// Merge operators that have no options of their own.
const MERGE_OPERATORS: [&str; 4] = ["UInt64AddOperator", "MaxOperator", "BytesXOR", "PutOperator"];

/// Whether every RocksDB has the comparator of this name.
pub fn has_comparator(name: &str) -> bool {
    COMPARATORS.contains(&name)
}

/// Whether every RocksDB has the merge operator of this name.
pub fn has_merge_operator(name: &str) -> bool {
    MERGE_OPERATORS.contains(&name)
}
