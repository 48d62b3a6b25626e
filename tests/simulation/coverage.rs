//! What the runs met.
//!
//! Owns: the names of everything that must occur, and the count of each.

use std::collections::BTreeMap;

/// How often each kind of thing happened.
#[derive(Debug, Default)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    /// It happened once more.
    pub fn note(&mut self, kind: &'static str) {
        self.add(kind, 1);
    }

    /// It happened so many times more.
    pub fn add(&mut self, kind: &'static str, times: u64) {
        *self.0.entry(kind).or_default() += times;
    }

    /// Adds another count.
    pub fn merge(&mut self, other: Self) {
        for (kind, times) in other.0 {
            self.add(kind, times);
        }
    }

    /// How often it happened.
    pub fn count(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or_default()
    }

    /// Every kind with its count, in order.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(kind, times)| (*kind, *times))
    }
}

/// What must happen, beside every one of `crash::POINTS`, `crash::PRUNE_POINTS` and `crash::MERGE_POINTS`.
pub const KINDS: &[&str] = &[
    "archiver: catch up",
    "archiver: close",
    "archiver: close manifest",
    "archiver: heartbeat",
    "archiver: killed",
    "archiver: merge",
    "archiver: open",
    "archiver: poll",
    "archiver: ship",
    "archiver: tag",
    "archiver: take base",
    "archiver: take wanted base",
    "archiver: two at once",
    "archiver: writer.fenced",
    "before-request",
    "after-request",
    "check: boundary",
    "check: catalog on the way",
    "check: flushes laid down",
    "check: fork",
    "check: latest",
    "check: planned on an outline",
    "check: planned on an outline with merged segments",
    "check: refused target.behind-barrier",
    "check: refused target.before-start",
    "check: refused target.inside-event",
    "check: strict",
    "check: tag",
    "clock: set ahead",
    "clock: set back",
    "disk: torn append seen",
    "merge: a held restore goes on",
    "merge: an old plan comes too late",
    "merge: an old plan restores",
    "merge: parts deleted",
    "merge: something was due",
    "network: late creation arrives",
    "network: late creation finds another",
    "network: late creation is lost",
    "retention: pruned",
    "retention: swept",
    "server: compaction",
    "server: create column family",
    "server: disableWAL",
    "server: drop column family",
    "server: flush",
    "server: flush WAL",
    "server: ingestion",
    "server: killed",
    "server: killed while it opens",
    "server: log deleted unseen",
    "server: MANIFEST rollover",
    "server: power loss",
    "server: power loss takes records back",
    "server: reopen",
    "server: reopen lowers the sequence",
    "server: single delete",
    "server: write",
    "stall: awake after merging",
    "stall: awake after pruning",
    "stall: fenced",
    "stall: the clock hides it",
    "store: faults",
    "store: outage",
];
