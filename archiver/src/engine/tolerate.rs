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
    /// The column families that may have been given the numbers `first ..= last`; `None` if it is no tolerated jump.
    fn tolerated(&self, first: SequenceNumber, last: SequenceNumber) -> Option<Vec<String>> {
        let model = self.manifest.model();
        let name = |id| model.column_family(id).map(|family| family.name.to_string());
        let is_tolerated = |name: &String| self.policy.unlogged_tolerate.contains(name);
        let there: BTreeSet<String> =
            model.column_families().keys().filter_map(|id| name(*id)).filter(is_tolerated).collect();
        let mut shown = BTreeSet::new();
        for (id, _, file) in model.live_files() {
            let within = |number: SequenceNumber| first <= number && number <= last;
            if !within(file.smallest_seqno) && !within(file.largest_seqno) {
                continue;
            }
            match name(id).filter(|name| there.contains(name)) {
                Some(name) => shown.insert(name),
                None => return None,
            };
        }
        let may_have_them = if shown.is_empty() { there } else { shown };
        (!may_have_them.is_empty()).then(|| may_have_them.into_iter().collect())
    }

    /// Notes that nothing explains the numbers `first ..= last`: tolerated, or answers `false`.
    pub(super) fn tolerate(&mut self, first: SequenceNumber, last: SequenceNumber, detail: &str) -> Result<bool> {
        let Some(column_families) = self.tolerated(first, last) else { return Ok(false) };
        tracing::info!(?column_families, detail, "writes that are not in the log, tolerated");
        self.stream.event(&Event::UnloggedTolerated {
            unexplained: last,
            column_families,
            detail: detail.to_owned(),
            noticed: self.clock.now(),
        })?;
        Ok(true)
    }
}
