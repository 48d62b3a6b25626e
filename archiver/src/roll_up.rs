//! When the next roll-up manifest is due, and what goes into it.
//!
//! Owns: the segments, bases and tags since the last manifest. Pure: the archiver writes.

use std::time::Duration;

use pitr_archive::{
    catalog::schema::{ManifestDocument, Position, SegmentSummary},
    clock::Micros,
    ids::{BaseId, ContentHash, ManifestNumber},
};

use crate::elapsed::elapsed;

/// What has been acknowledged since the last manifest.
#[derive(Debug, Default)]
pub struct RollUp {
    /// The number of the next manifest.
    pub number: ManifestNumber,
    /// Hash of the stored bytes of the last one.
    pub previous: Option<ContentHash>,
    /// Segments in order.
    pub segments: Vec<SegmentSummary>,
    /// Bases.
    pub bases: Vec<BaseId>,
    /// Tags: hash of the name, position.
    pub tags: Vec<(ContentHash, Position)>,
    /// Merged segments.
    pub merged: Vec<SegmentSummary>,
    /// When the first of these was acknowledged.
    since: Option<Micros>,
}

impl RollUp {
    /// Goes on behind manifest `number - 1`, with the segments that no manifest has.
    pub fn new(number: ManifestNumber, previous: Option<ContentHash>, segments: Vec<SegmentSummary>) -> Self {
        Self { number, previous, segments, ..Self::default() }
    }

    /// Another process's manifest was written meanwhile: what it does not hold is left, behind it.
    pub fn go_on_behind(
        &mut self,
        number: ManifestNumber,
        previous: Option<ContentHash>,
        segments: Vec<SegmentSummary>,
    ) {
        (self.number, self.previous, self.segments) = (number, previous, segments);
        // It may name them, too. Those that it does not are found again.
        self.merged.clear();
    }

    /// A segment was acknowledged.
    pub fn segment(&mut self, summary: SegmentSummary, now: Micros) {
        self.since.get_or_insert(now);
        self.segments.push(summary);
    }

    /// Whether a manifest is due.
    pub fn due(&self, now: Micros, interval: Duration, segments: u64) -> bool {
        let old = self.since.is_some_and(|since| elapsed(since, now) >= interval);
        !self.segments.is_empty() && (old || self.segments.len() as u64 >= segments)
    }

    /// This manifest was written; its stored bytes have this hash. What came while it was under way is left for the next.
    pub fn written(&mut self, document: &ManifestDocument, hash: ContentHash, next: ManifestNumber) {
        self.segments.drain(..document.segments.len().min(self.segments.len()));
        self.bases.drain(..document.bases.len().min(self.bases.len()));
        self.tags.drain(..document.tags.len().min(self.tags.len()));
        self.merged.drain(..document.merged.len().min(self.merged.len()));
        self.number = next;
        self.previous = Some(hash);
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_due_by_age_or_by_number_and_never_when_nothing_came() {
        let mut roll_up = RollUp::default();
        let minute = Duration::from_secs(60);
        assert!(!roll_up.due(Micros(i64::MAX), minute, 1));
        roll_up.since = Some(Micros(0));
        roll_up.segments = vec![
            serde_json::from_value(serde_json::json!({
                "ordinal": 0, "epoch": 1, "first": 0, "end": 0, "last_sequence": 0, "wals": [], "plain_bytes": 0,
                "hash_before": "0".repeat(64), "hash_after": "0".repeat(64),
            }))
            .unwrap(),
        ];
        assert!(!roll_up.due(Micros(59_999_999), minute, 2));
        assert!(roll_up.due(Micros(60_000_000), minute, 2));
        assert!(roll_up.due(Micros(0), minute, 1));
    }
}
