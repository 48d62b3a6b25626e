//! Which segments become one next.
//!
//! Owns: the borders that no merged segment crosses, and the account of write amplification. Pure.
//!
//! A group is neighbours whose last looks lie in one calendar period, when that period is over and something behind it shows
//! that nothing more comes into it. It never crosses: the beginning of a run, a look that is earlier than one before it, what
//! deletion cut, and what an archiver or a prune relies on (`Ledger::may_be_merged`).
//! It lies inside one manifest or is over whole ones: an index tells of manifests as of one entry each, and neither entry
//! nor merged segment then ends in the midst of the other.

use std::time::Duration;

use pitr_archive::{
    catalog::schema::SegmentSummary,
    clock::Micros,
    ids::{Ordinal, Ordinals},
    segment::entry::Event,
};

use super::{ledger::Ledger, policy::Policy};

/// All bytes that are ever written for some entries stay below so many times what they were at first.
pub const AMPLIFICATION: u64 = 3;

/// Whoever looks for a place inside a segment reads all of it: expanded it has at most so many times the limit.
const EXPANDED: u64 = 4;

/// A merge reads its parts one after another; one that takes hours could be interrupted for ever.
const MOST_PARTS: usize = 4000;

/// Neighbours that become one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// At least two, in order; of the ledger's kind.
    pub parts: Vec<SegmentSummary>,
    /// The period that they share.
    pub level: Duration,
}

impl Group {
    /// The ordinals of all of them.
    pub fn ordinals(&self) -> Option<Ordinals> {
        Ordinals::new(self.parts.first()?.ordinal, self.parts.last()?.ordinals().last())
    }

    /// Whether a merged segment of `bytes` keeps the account.
    pub fn affords(&self, bytes: u64) -> bool {
        let written = self.parts.iter().map(SegmentSummary::written_bytes).fold(bytes, u64::saturating_add);
        let original = self.parts.iter().map(SegmentSummary::original_bytes).fold(0, u64::saturating_add);
        written < original.saturating_mul(AMPLIFICATION)
    }

    fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.object_bytes).fold(0, u64::saturating_add)
    }
}

/// The groups that are merged next, first the one that makes most objects one. No two share a segment, and none has one of
/// `busy`: what was merged and no manifest names yet.
pub fn groups(ledger: &Ledger, policy: &Policy, busy: &[Ordinals], now: Micros) -> Vec<Group> {
    let mut found: Vec<Group> =
        policy.levels.iter().flat_map(|level| level_groups(ledger, policy, *level, now)).collect();
    found.retain(|group| {
        let free = |ordinals: Ordinals| {
            busy.iter().all(|busy| busy.last() < ordinals.first() || ordinals.last() < busy.first())
        };
        group.ordinals().is_some_and(free) && group.affords(group.bytes())
    });
    // Stable: of equals the older, at the shorter level, comes first.
    found.sort_by_key(|group| std::cmp::Reverse(group.parts.len()));
    let mut chosen: Vec<Group> = Vec::new();
    for group in found {
        let Some(ordinals) = group.ordinals() else { continue };
        let apart = |other: &Group| {
            other.ordinals().is_none_or(|other| other.last() < ordinals.first() || ordinals.last() < other.first())
        };
        if chosen.iter().all(apart) {
            chosen.push(group);
        }
    }
    chosen
}

/// An entry and the time at which it is filed.
#[derive(Clone, Copy)]
struct Filed<'a> {
    entry: &'a SegmentSummary,
    /// The earliest and latest look known of it; `None` where it has none.
    looks: Option<(Micros, Micros)>,
    period: Option<i64>,
}

fn level_groups(ledger: &Ledger, policy: &Policy, level: Duration, now: Micros) -> Vec<Group> {
    let Some(length) = i64::try_from(level.as_micros()).ok().filter(|length| *length > 0) else { return Vec::new() };
    let mut groups = Vec::new();
    let mut open: Vec<Filed<'_>> = Vec::new();
    let (mut size, mut seen) = (Size::default(), None);
    for entry in ledger.entries() {
        let own = looks(entry);
        seen = own.map(|(_, last)| last).or(seen);
        // One without a look does not hide what was seen before it.
        let before = open.last().and_then(|last| last.looks).map(|(_, last)| (last, last));
        let looks = own.or(before);
        let filed = Filed { entry, looks, period: seen.map(|at: Micros| at.0.div_euclid(length)) };
        let goes_on = open.last().is_some_and(|last| {
            size.has_room(entry, policy) && joins(ledger, last, &filed) && ledger.may_be_merged(entry)
        });
        if !goes_on {
            let last = open.last();
            // Something of the same period that may be merged later comes behind it: the group is not whole yet.
            let more = last.is_some_and(|last| {
                size.has_room(entry, policy) && joins(ledger, last, &filed) && !ledger.is_settled(entry)
            });
            let over = last.and_then(|last| last.period).is_some_and(|period| {
                period.checked_add(1).and_then(|next| next.checked_mul(length)).is_some_and(|end| end <= now.0)
            });
            if over && !more {
                let next = last.and_then(|last| last.entry.ordinals().next());
                let pieces = along_manifests(ledger, &open, next);
                let several = pieces.into_iter().filter(|piece| piece.len() > 1);
                groups.extend(several.map(|piece| {
                    let parts = piece.iter().map(|filed| filed.entry.clone()).collect();
                    Group { parts, level }
                }));
            }
            open.clear();
            size = Size::default();
            if !ledger.may_be_merged(entry) || entry.object_bytes > policy.max_size || goes_back(filed.looks) {
                continue;
            }
        }
        size.add(entry);
        open.push(filed);
    }
    // What is open here ends with the newest entry, which may not be merged.
    groups
}

/// A run of entries that ends before `next`, cut where it would otherwise be over a part of a manifest and more: what lies in
/// the manifest that it begins in, the whole manifests, what lies in the one that it ends in.
fn along_manifests<'a, 'b>(ledger: &Ledger, run: &'b [Filed<'a>], next: Option<Ordinal>) -> Vec<&'b [Filed<'a>]> {
    let is_border = |filed: &Filed<'_>| ledger.is_border(filed.entry.ordinal);
    let first = run.iter().position(is_border).unwrap_or(run.len());
    let (before, rest) = run.split_at(first);
    if next.is_some_and(|next| ledger.is_border(next)) {
        return vec![before, rest];
    }
    let last = rest.iter().rposition(is_border).unwrap_or(0);
    let (whole, behind) = rest.split_at(last);
    vec![before, whole, behind]
}

/// What a group has so far.
#[derive(Clone, Copy, Default)]
struct Size {
    parts: usize,
    stored: u64,
    plain: u64,
}

impl Size {
    fn has_room(self, entry: &SegmentSummary, policy: &Policy) -> bool {
        self.parts < MOST_PARTS
            && self.stored.saturating_add(entry.object_bytes) <= policy.max_size
            && self.plain.saturating_add(entry.plain_bytes) <= policy.max_size.saturating_mul(EXPANDED)
    }

    fn add(&mut self, entry: &SegmentSummary) {
        self.parts += 1;
        self.stored = self.stored.saturating_add(entry.object_bytes);
        self.plain = self.plain.saturating_add(entry.plain_bytes);
    }
}

/// Whether two neighbours can lie in one segment.
fn joins(ledger: &Ledger, before: &Filed<'_>, after: &Filed<'_>) -> bool {
    let begins_run = after.entry.events.iter().any(|placed| matches!(placed.event, Event::RunStarted { .. }));
    let forward = match (before.looks, after.looks) {
        (Some((_, last)), Some((first, _))) => last <= first,
        _ => true,
    };
    ledger.adjoin(before.entry, after.entry)
        && !begins_run
        && forward
        && !goes_back(after.looks)
        && before.period.is_some()
        && before.period == after.period
}

/// Its first look and its last, as its summary tells them.
fn looks(entry: &SegmentSummary) -> Option<(Micros, Micros)> {
    let (first, last) = entry.observed.map(|(first, last)| (first.at, last.at)).unzip();
    let through = entry.observed_through;
    Some((first.or(through)?, through.or(last)?))
}

fn goes_back(looks: Option<(Micros, Micros)>) -> bool {
    looks.is_some_and(|(first, last)| last < first)
}

#[cfg(test)]
mod tests;
