//! What is known of a timeline, as far as merging is concerned.
//!
//! Owns: the entries of the timeline's newest stretch, merged ones in place, what they replaced and since when, and which of
//! them may be merged at all. Manifests go in, in order; the archiver's own are noted without being read again. Pure.
//! Refuses: to know more than it needs: of a summary's events only those that are borders stay, and entries beyond [`MOST`]
//! are forgotten, oldest first: they stay as they are.

use std::{collections::BTreeSet, time::Duration};

use pitr_archive::{
    Error,
    catalog::{
        model::{Entries, Manifests, NamedMerge},
        schema::{BoundaryDocument, ManifestDocument, SegmentSummary},
    },
    clock::Micros,
    ids::{ManifestNumber, Ordinal, Ordinals, TimelineId},
    segment::entry::Event,
};

use crate::elapsed::elapsed;

/// Entries that are kept in mind, below half a kilobyte each. Where merging goes on, there are some thousand.
pub const MOST: usize = 50_000;

/// So many of the newest segments stay as they are, as retention keeps them: whoever was stalled meets them.
const NEWEST: u64 = 2;

/// A segment whose entries are in a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Superseded {
    /// It.
    pub ordinals: Ordinals,
    /// The larger one.
    pub by: Ordinals,
    /// The length of its object.
    pub by_bytes: u64,
    /// Since when.
    pub since: Micros,
}

/// A timeline's newest stretch.
#[derive(Debug)]
pub struct Ledger {
    timeline: TimelineId,
    entries: Entries,
    /// The first ordinal of every manifest's segments, as far back as manifests are known.
    borders: BTreeSet<Ordinal>,
    /// Where that begins: of a merged segment before it, it is not known which manifests it is over.
    known_from: Option<Ordinal>,
    /// The ordinals of the last manifest's segments: the next writer reads them.
    last: Option<Ordinals>,
    next: ManifestNumber,
    deleted: Option<BoundaryDocument>,
    superseded: Vec<Superseded>,
    left_alone: BTreeSet<Ordinal>,
}

impl Ledger {
    /// Before manifest `next`. `deleted` is the newest statement about deletion.
    pub fn new(timeline: TimelineId, deleted: Option<BoundaryDocument>, next: ManifestNumber) -> Self {
        Self {
            timeline,
            entries: Entries::default(),
            borders: BTreeSet::new(),
            known_from: None,
            last: None,
            next,
            deleted,
            superseded: Vec::new(),
            left_alone: BTreeSet::new(),
        }
    }

    /// Takes in the manifest before all that are known, and before the first of them, `next`. Manifests that name merged segments
    /// come behind those of the parts, so that only what is not merged is kept in mind.
    pub fn manifest_before(&mut self, document: &ManifestDocument) {
        if self.last.is_none() {
            self.note_last(document);
        }
        self.note_border(document);
        for summary in document.merged.iter().rev() {
            let ordinals = summary.ordinals();
            if self.deleted.as_ref().is_some_and(|deleted| !deleted.admits(ordinals)) || self.note_superseded(ordinals)
            {
                continue;
            }
            self.entries.insert(NamedMerge { summary: lean(summary), since: document.created });
        }
        for summary in &document.segments {
            let kept = self.deleted.as_ref().is_none_or(|deleted| deleted.keeps_any(summary.ordinals()));
            if kept && !self.note_superseded(summary.ordinals()) {
                self.entries.push(lean(summary));
            }
        }
    }

    /// Whether a segment is in a larger one, or known already.
    fn note_superseded(&mut self, ordinals: Ordinals) -> bool {
        let Some((by, by_bytes)) = self.entries.at(ordinals.first()).map(|s| (s.ordinals(), s.object_bytes)) else {
            return false;
        };
        // One that reaches beyond what lies here is damage: whoever reads all manifests in order finds it, and needs it all.
        if by != ordinals && by.contains(ordinals.last()) {
            let since = self.entries.since(by.first()).unwrap_or(Micros(i64::MAX));
            self.superseded.push(Superseded { ordinals, by, by_bytes, since });
        }
        true
    }

    fn note_border(&mut self, document: &ManifestDocument) {
        let first = document.segments.first().map(|s| s.ordinal);
        self.borders.extend(first);
        self.known_from = self.known_from.into_iter().chain(first).min();
    }

    fn note_last(&mut self, document: &ManifestDocument) {
        let first = document.segments.first().map(|s| s.ordinal);
        let last = document.segments.last().map(|s| s.ordinals().last());
        if let Some(ordinals) = first.zip(last).and_then(|(first, last)| Ordinals::new(first, last)) {
            self.last = Some(ordinals);
        }
    }

    /// Takes in the next manifest, which counts since `since`; answers what does not fit in it.
    pub fn manifest(&mut self, document: &ManifestDocument, since: Micros) -> Vec<Error> {
        for summary in &document.segments {
            if self.deleted.as_ref().is_none_or(|deleted| deleted.keeps_any(summary.ordinals())) {
                self.entries.push(lean(summary));
            }
        }
        self.note_last(document);
        self.note_border(document);
        self.next = document.number.next().unwrap_or(document.number);
        let mut wrong = Vec::new();
        for summary in &document.merged {
            let by = summary.ordinals();
            // What lies before everything that is kept in mind.
            if self.entries.iter().next().is_none_or(|first| by.first() < first.ordinal) {
                continue;
            }
            let merge = NamedMerge { summary: lean(summary), since };
            match self.entries.apply(self.timeline, merge, self.deleted.as_ref(), Manifests::All) {
                Ok(None) => {}
                Ok(Some(replaced)) => {
                    // What waited below stays due when it was.
                    let below = self.superseded.iter_mut().filter(|s| by.contains(s.ordinals.first()));
                    let by_bytes = summary.object_bytes;
                    below.for_each(|superseded| (superseded.by, superseded.by_bytes) = (by, by_bytes));
                    let replaced = replaced.iter().map(|s| Superseded { ordinals: s.ordinals(), by, by_bytes, since });
                    self.superseded.extend(replaced);
                }
                Err(e) => wrong.push(e),
            }
        }
        let beyond = self.entries.len().saturating_sub(MOST);
        self.entries.forget_first(beyond);
        if let Some(first) = self.entries.iter().next().map(|s| s.ordinal) {
            self.borders = self.borders.split_off(&first);
        }
        wrong
    }

    /// Of what was superseded only this is there.
    pub fn retain_superseded(&mut self, there: &BTreeSet<Ordinals>) {
        self.superseded.retain(|superseded| there.contains(&superseded.ordinals));
    }

    /// These were deleted.
    pub fn deleted(&mut self, gone: &[Superseded]) {
        self.superseded.retain(|superseded| !gone.contains(superseded));
    }

    /// These could not be deleted: they count as superseded for `age` only.
    pub fn postpone(&mut self, left: &[Superseded], now: Micros, age: Duration) {
        let since = Micros(now.0.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)));
        let left = |superseded: &&mut Superseded| left.contains(superseded);
        self.superseded.iter_mut().filter(left).for_each(|superseded| superseded.since = since);
    }

    /// These parts are never tried again.
    pub fn leave_alone(&mut self, ordinals: Ordinals) {
        let inside = self.entries.iter().filter(|s| ordinals.contains(s.ordinal));
        let inside: Vec<Ordinal> = inside.map(|s| s.ordinal).collect();
        self.left_alone.extend(inside);
    }

    /// What was superseded a grace period ago.
    pub fn due(&self, now: Micros, grace: Duration) -> Vec<Superseded> {
        // A clock that went back has waited for nothing.
        let old = |s: &&Superseded| now >= s.since && elapsed(s.since, now) >= grace;
        self.superseded.iter().filter(old).copied().collect()
    }

    /// The timeline.
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The manifest that must come.
    pub const fn next(&self) -> ManifestNumber {
        self.next
    }

    /// The statement about deletion under which this was gathered.
    pub const fn boundary(&self) -> Option<&BoundaryDocument> {
        self.deleted.as_ref()
    }

    /// The entries in order.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &SegmentSummary> {
        self.entries.iter()
    }

    /// What was superseded and may still be there.
    pub fn superseded(&self) -> &[Superseded] {
        &self.superseded
    }

    /// How many entries are kept in mind.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether an entry is old enough: the segments of the last manifest are the tail that its next writer reads, and the
    /// newest may be met by whoever was stalled.
    pub fn is_settled(&self, entry: &SegmentSummary) -> bool {
        let last = entry.ordinals().last();
        self.last.is_some_and(|tail| last < tail.first() && last.get().saturating_add(NEWEST) <= tail.last().get())
    }

    /// Whether an entry may be merged with others, as far as it alone tells.
    pub fn may_be_merged(&self, entry: &SegmentSummary) -> bool {
        let first = entry.ordinal;
        // A restore from a base behind it relies on what the first segment of a range itself says (`retention::ranges`).
        let begins = self.deleted.iter().flat_map(BoundaryDocument::ranges).any(|range| range.from == first);
        let known = self.known_from.is_some_and(|from| from <= first);
        self.is_settled(entry) && known && !begins && !self.left_alone.contains(&first)
    }

    /// Whether a merged segment begins and ends where entries do, and stands for several of them.
    pub fn has_room_for(&self, merged: &SegmentSummary) -> bool {
        let ends =
            |ordinal| self.entries.at(ordinal).map(|s| (s.ordinals(), s.first, s.hash_before, s.end, s.hash_after));
        let ordinals = merged.ordinals();
        let (Some(first), Some(last)) = (ends(ordinals.first()), ends(ordinals.last())) else { return false };
        (first.0.first(), first.1, first.2) == (ordinals.first(), merged.first, merged.hash_before)
            && (last.0.last(), last.3, last.4) == (ordinals.last(), merged.end, merged.hash_after)
            && first.0 != last.0
    }

    /// Whether a manifest's segments begin with this ordinal.
    pub fn is_border(&self, ordinal: Ordinal) -> bool {
        self.borders.contains(&ordinal)
    }

    /// Whether two entries are neighbours of which neither was cut from the other by deletion.
    pub fn adjoin(&self, before: &SegmentSummary, after: &SegmentSummary) -> bool {
        before.ordinals().next() == Some(after.ordinal)
            && (before.end, before.hash_after) == (after.first, after.hash_before)
    }
}

/// A summary without what merging does not look at.
fn lean(summary: &SegmentSummary) -> SegmentSummary {
    let events = summary.events.iter().filter(|placed| matches!(placed.event, Event::RunStarted { .. }));
    SegmentSummary {
        rolled_up: None,
        ordinal: summary.ordinal,
        last_ordinal: summary.last_ordinal,
        epoch: summary.epoch,
        first: summary.first,
        end: summary.end,
        hash_before: summary.hash_before,
        hash_after: summary.hash_after,
        min_sequence: summary.min_sequence,
        max_sequence: summary.max_sequence,
        last_sequence: summary.last_sequence,
        transactions: pitr_archive::rocks::transactions::Transactions::default(),
        special: None,
        wals: Vec::new(),
        observed: summary.observed,
        observed_through: summary.observed_through,
        plain_bytes: summary.plain_bytes,
        events: events.cloned().collect(),
        object_bytes: summary.object_bytes,
        merged: summary.merged,
    }
}
