//! RocksDB's files as bytes: write-ahead log, write batches, MANIFEST, OPTIONS and file names.
//!
//! Owns: decoding (and, where a restore needs it, encoding) of what RocksDB writes. Checked against RocksDB 6.29, 8.x,
//! 9.x and 11.8. Type and tag names follow RocksDB's own source, so that both can be read side by side.
//! Refuses: I/O of any kind, trust in a single byte, and guessing: what is not understood is an error that names the
//! offset (the caller adds the file's name), never skipped.
//!
//! - [`coding`]: fixed and varint integers, length-prefixed bytes.
//! - [`file_name`]: which file is what.
//! - [`log_format`], [`log_reader`], [`log_writer`]: the record framing that WAL and MANIFEST share.
//! - [`write_batch`]: what a WAL record holds.
//! - [`log_sum`]: one number that stands for all of a log.
//! - [`transactions`]: what two-phase commit makes of it.
//! - [`version_edit`], [`manifest`]: what a MANIFEST record holds, and the state that all of them amount to.
//! - [`name`]: names that are bytes.
//! - [`options_file`]: the OPTIONS file.
//! - [`built_in`]: comparators and merge operators that every RocksDB has.
//! - [`describe`]: all of the above in words, for people and for JSON.

pub mod built_in;
pub mod coding;
pub mod describe;
pub mod file_name;
pub mod log_format;
pub mod log_reader;
pub mod log_sum;
pub mod log_writer;
pub mod manifest;
pub mod name;
pub mod options_file;
pub mod transactions;
pub mod version_edit;
pub mod write_batch;

#[cfg(test)]
mod tests;
