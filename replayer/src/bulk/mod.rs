//! A long log into table files, without RocksDB's recovery.
//!
//! Recovery puts one record after the other into a memtable, on one thread. Here only the last operation on each key
//! is kept: records are read into chunks ([`chunk`]), those are sorted beside the reading and kept in memory or on disk
//! ([`run`]), and then merged ([`merge`]) into table files, several at a time ([`tables`]), which edits of the MANIFEST make the
//! database's ([`place`]). What was deleted by ranges is told apart by age ([`tombstones`]).
//!
//! Runs on disk are noted ([`noted`]), so that an interrupted restore goes on behind them.
//!
//! Owns: the same content as recovery gives, and the target's latest sequence number.
//! Refuses: comparators that are not RocksDB's own, and operations of which the last one is not all ([`sink`]).
//! Not kept: the sequence numbers of single keys. Who follows the database by sequence number wants another engine.

pub(crate) mod chunk;
pub(crate) mod merge;
pub(crate) mod noted;
pub(crate) mod order;
pub(crate) mod place;
pub(crate) mod run;
mod runs;
pub(crate) mod sink;
pub(crate) mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod tombstones;
