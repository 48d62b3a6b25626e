//! Writes without the log that the operator tolerates in named column families.
//!
//! Owns: whether numbers that nothing explains may be theirs. The log does not tell whose they are, so the operator
//! vouches that no other column family is written in this way; what can be seen is checked all the same: a table file of
//! another column family that begins or ends with one of the numbers proves that it was, and the jump is a barrier.
//! A flush can also hide such a number between logged ones, which nobody can see: hence the vouching.

use std::collections::BTreeSet;

use pitr_archive::{Result, ids::SequenceNumber, segment::entry::Event};

use super::Engine;

impl Engine {
    /// The column families that may have been given the numbers `first ..= last` but for the `explained` ones; `None` if it
    /// is no tolerated jump.
    fn tolerated(
        &self,
        (first, last): (SequenceNumber, SequenceNumber),
        explained: &BTreeSet<u64>,
    ) -> Option<BTreeSet<String>> {
        let model = self.manifest.model();
        let name = |id| model.column_family(id).map(|family| family.name.to_string());
        let is_tolerated = |name: &String| self.policy.unlogged_tolerate.contains(name);
        let there: BTreeSet<String> =
            model.column_families().keys().filter_map(|id| name(*id)).filter(is_tolerated).collect();
        let mut shown = BTreeSet::new();
        for (id, _, file) in model.live_files() {
            // An ingested file's own number is no write's.
            let within =
                |number: SequenceNumber| first <= number && number <= last && !explained.contains(&number.get());
            if !within(file.smallest_seqno) && !within(file.largest_seqno) {
                continue;
            }
            match name(id).filter(|name| there.contains(name)) {
                Some(name) => shown.insert(name),
                None => return None,
            };
        }
        let may_have_them = if shown.is_empty() { there } else { shown };
        (!may_have_them.is_empty()).then_some(may_have_them)
    }

    /// Numbers that ingested files were given; only tolerance asks for them.
    pub(super) fn explained(&self) -> BTreeSet<u64> {
        match self.policy.unlogged_tolerate.is_empty() {
            true => BTreeSet::new(),
            false => self.state.model.explained().clone(),
        }
    }

    /// Notes that nothing explains the numbers of a range: tolerated, or answers `false`.
    ///
    /// The stream says so once in a run for every column family: readers ask which ones, not how often.
    pub(super) fn tolerate(
        &mut self,
        range: (SequenceNumber, SequenceNumber),
        explained: &BTreeSet<u64>,
        detail: &str,
    ) -> Result<bool> {
        let Some(column_families) = self.tolerated(range, explained) else { return Ok(false) };
        if column_families.is_subset(&self.state.tolerated) {
            return Ok(true);
        }
        tracing::info!(?column_families, detail, "writes that are not in the log, tolerated");
        self.state.tolerated.extend(column_families.iter().cloned());
        self.stream.event(&Event::UnloggedTolerated {
            unexplained: range.1,
            column_families: column_families.into_iter().collect(),
            detail: detail.to_owned(),
            noticed: self.clock.now(),
        })?;
        Ok(true)
    }
}
