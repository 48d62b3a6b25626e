//! RocksDB files.
