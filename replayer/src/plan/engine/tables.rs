//! Whether tables can be made of the log, and whether that is worth it.
//!
//! Owns: every reason against it that can be told without reading the log: what summaries of segments say of its operations,
//! and what the base says of the database. A summary that says nothing is believed where somebody asks for tables, and
//! what is found on the way refuses them; by itself a plan takes them only where nothing can be found.

use pitr_archive::{
    catalog::schema::{BaseDocument, Special},
    ids::Boundary,
    rocks::built_in,
};

use super::Arrival;
use crate::{
    plan::{ColumnFamilyEdit, stream::Stream},
    restore::small_files,
};

/// Plain bytes of log from which on tables are worth making. RocksDB recovers less than this in about the time that opening
/// a database takes, and keeps the log's own operations.
pub(crate) const WORTH: u64 = 64 << 20;

/// And up to which they are made of what lies behind shipped flushes: the files of flushes are in level 0, so the tables above
/// them are, too, and a server that finds many there holds up its writers.
const BEHIND_FLUSHES: u64 = 512 << 20;

/// What is judged.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    pub arrival: &'a Arrival<'a>,
    pub stream: &'a Stream,
    pub base: &'a BaseDocument,
    pub families: &'a [ColumnFamilyEdit],
}

impl Tables<'_> {
    /// Why no tables can be made of the log behind the base.
    pub fn obstacle(&self) -> Option<&'static str> {
        let Self { arrival, stream, base, .. } = *self;
        let own_order = |name: &str| !name.is_empty() && !built_in::has_comparator(name);
        if !arrival.ingestions.is_empty() {
            Some("ingestions are repeated on the way")
        } else if base.allow_2pc || arrival.facts.transactions.policy().is_some() {
            Some("it can hold prepared transactions")
        } else if stream.timestamp_sizes.iter().any(|sizes| stream.in_run(arrival.run, sizes.place)) {
            Some("it has user-defined timestamps, of which every version counts")
        } else if base.column_families.iter().any(|family| own_order(&family.comparator)) {
            Some("a column family has a comparator of the source's own")
        } else if !base.files.is_empty() && self.deletes_singly() {
            Some("the database uses single deletions, and a table hides less of older files from them than the log did")
        } else if self.special().is_some_and(|all| all.into_iter().any(|special| !self.can_hold(special))) {
            Some("its records have operations of which the last one on a key does not tell all")
        } else {
            small_files::why_no_tables(base, self.families)
        }
    }

    /// Why tables are made of the log, or why not: of less than `least` bytes they are not worth it, nor where shipped flushes
    /// leave less than half of it to be replayed, from `left` on.
    pub fn worth_it(&self, least: u64, left: Option<Boundary>) -> Result<String, String> {
        if let Some(why) = self.obstacle() {
            return Err(why.to_owned());
        }
        if self.special().is_none() {
            return Err("it is not known of all segments which operations they have".to_owned());
        }
        let bytes = self.bytes_from(self.base.first_record);
        let mib = bytes >> 20;
        if bytes < least {
            return Err(format!("RocksDB replays {mib} MiB in little time"));
        }
        if left.is_some_and(|left| self.bytes_from(left) < least.max(bytes / 2)) {
            return Err("shipped flushes hold most of the log".to_owned());
        }
        Ok(format!(
            "{mib} MiB of log become tables of the last operation on each key; --engine native keeps it as a log, which who follows by sequence number needs"
        ))
    }

    /// The MiB behind shipped flushes, from `left` on, of which tables are worth making above the files of these.
    pub fn behind_flushes(&self, least: u64, left: Boundary) -> Option<u64> {
        let fit = self.obstacle_behind_flushes().is_none() && self.special().is_some();
        let bytes = self.bytes_from(left);
        (fit && bytes > 0 && (least..=BEHIND_FLUSHES).contains(&bytes)).then_some(bytes >> 20)
    }

    /// Why no tables can be made of what lies behind shipped flushes.
    pub fn obstacle_behind_flushes(&self) -> Option<&'static str> {
        match self.obstacle() {
            None if self.deletes_singly() => Some(
                "the database uses single deletions, and a table hides less of a flush's files from them than the log did",
            ),
            why => why,
        }
    }

    pub fn bytes_from(&self, from: Boundary) -> u64 {
        self.stream.covering(from, self.arrival.place.boundary).map(|piece| piece.summary.plain_bytes).sum()
    }

    /// The operations beside plain ones that the log has, where all of that is known.
    fn special(&self) -> Option<Vec<Special>> {
        let pieces = self.stream.covering(self.base.first_record, self.arrival.place.boundary);
        let all: Option<Vec<_>> = pieces.map(|piece| piece.summary.special.clone()).collect();
        all.map(|all| all.into_iter().flatten().collect())
    }

    /// Whether the archive has a single deletion anywhere. One takes away the newest write of a key and lets the one below it
    /// come forth; where the log had a deletion between the two, its tables have not.
    fn deletes_singly(&self) -> bool {
        let mut all = self.stream.pieces.iter().filter_map(|piece| piece.summary.special.as_ref());
        all.any(|special| special.contains(&Special::SingleDelete))
    }

    fn can_hold(&self, special: Special) -> bool {
        special == Special::SingleDelete && self.base.files.is_empty()
    }
}
