//! From records that must stay to segments that stay, and to the statement about them.
//!
//! Owns: which segment a range begins and ends with. A restore behind deleted segments relies on two things (`pitr-replayer`,
//! plan): its base (or its run) begins behind the first boundary of the range, and that segment had been written before the base's
//! copy of RocksDB's MANIFEST was read to its end. [`Ranges::distrusted`] says which footer would tell. Pure.

use std::{collections::BTreeMap, ops::Range};

use pitr_archive::{
    catalog::{
        model::Timeline,
        schema::{BoundaryDocument, Extra, KeptManifests, KeptSegments, OpenRun, SegmentSummary, UnloggedRun},
    },
    clock::Micros,
    ids::{ArchiveId, Boundary, Epoch, ManifestNumber, Nonce, Ordinal, Ordinals},
    segment::entry::{Event, ManifestPoint},
};

use super::decide::{Keep, Need, Until};

/// So many of the newest segments of every timeline stay: its next writer reads where it goes on, and one that was stalled
/// meets them.
const NEWEST: usize = 2;

/// Segments of a timeline that stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPart {
    /// Their indexes in the timeline's segments.
    pub segments: Range<usize>,
    /// Why, each reason once.
    pub why: Vec<Keep>,
    /// The bases that begin in them: run, and how far each one's copy of the MANIFEST reaches at least.
    pub bases: BTreeMap<u64, ManifestPoint>,
}

/// All of them. Between two that are next to each other, something was deleted before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// In order.
    pub parts: Vec<KeptPart>,
    /// The indexes of segments before which something was deleted before.
    cuts: Vec<usize>,
    /// Where runs begin.
    starts: Vec<RunStart>,
}

/// Where a run begins: the segment, whether it is inside it (or was deleted before it), and which run.
type RunStart = (usize, bool, OpenRun);

/// The segments that needs ask for.
pub fn ranges(timeline: &Timeline, needs: &[Need]) -> Ranges {
    let segments = timeline.segments();
    let closings = closings(segments);
    let cuts = cuts(timeline);
    let mut parts: Vec<KeptPart> = Vec::with_capacity(needs.len() + 1);
    for need in needs {
        let from = begins(segments, need.first, &cuts);
        let to = match need.until {
            Until::End => segments.len(),
            Until::At(boundary) => {
                let next = cuts.iter().find(|cut| **cut > from).copied();
                ends(segments, boundary, &closings).min(next.unwrap_or(segments.len()))
            }
        };
        if from < to {
            let bases = need.base.into_iter().collect();
            parts.push(KeptPart { segments: from..to, why: vec![need.why.clone()], bases });
        }
    }
    // Those that no manifest names, too: the next one begins with the first of them.
    let named = timeline.manifests().last().map_or(Ordinal::new(0), |manifest| manifest.segments.end);
    let unnamed = segments.partition_point(|s| s.ordinal < named);
    let newest = not_first_alone(segments, segments.len().saturating_sub(NEWEST).min(unnamed))..segments.len();
    parts.push(KeptPart { segments: newest, why: vec![Keep::Head], bases: BTreeMap::new() });
    Ranges { parts: Ranges::joined(parts, &cuts), cuts, starts: run_starts(timeline) }
}

/// The index of the segment with which a range must begin so that all that lies at `first` is in it, and something before.
fn begins(segments: &[SegmentSummary], first: Boundary, cuts: &[usize]) -> usize {
    // Not across what was deleted before.
    let before = |cut: &&usize| segments.get(**cut).is_some_and(|s| s.first < first);
    let least = cuts.iter().rev().find(before).copied().unwrap_or(0);
    let ended = segments.partition_point(|s| s.end <= first);
    let begins = segments.iter().take(ended).rposition(|s| s.first < first).unwrap_or(0);
    not_first_alone(segments, begins).max(least)
}

/// Of the very first record nothing lies before it that could show that it is not the first of its run: the events that
/// come before it stay with it.
fn not_first_alone(segments: &[SegmentSummary], begins: usize) -> usize {
    if segments.get(begins).is_some_and(|s| s.first == Boundary::START) { 0 } else { begins }
}

/// Where the segments begin that deletion left.
fn cuts(timeline: &Timeline) -> Vec<usize> {
    let ranges = timeline.deleted().into_iter().flat_map(BoundaryDocument::ranges);
    ranges.map(|kept| timeline.segments().partition_point(|s| s.ordinal < kept.from)).collect()
}

/// The index behind the segment with which a range must end so that all that was noted at `last` is in it.
fn ends(segments: &[SegmentSummary], last: Boundary, closings: &[Closing]) -> usize {
    let behind = |at: Boundary| (segments.partition_point(|s| s.end <= at) + 1).min(segments.len());
    let end = behind(last);
    let noted = closings.iter().filter(|c| c.segment < end && c.lo <= last).map(|c| behind(c.at)).max();
    end.max(noted.unwrap_or(0))
}

/// An interval that was left open where it was noted, and is closed later: without that, targets behind its beginning are
/// refused. Or records that were taken back later.
struct Closing {
    /// The segment that noted it, at the earliest.
    segment: usize,
    lo: Boundary,
    /// Where it was closed.
    at: Boundary,
}

fn closings(segments: &[SegmentSummary]) -> Vec<Closing> {
    let mut open: BTreeMap<ManifestPoint, Vec<(usize, Boundary)>> = BTreeMap::new();
    let mut closings = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        for placed in &segment.events {
            match &placed.event {
                Event::ColumnFamily { interval, manifest, .. } if interval.hi.is_none() => {
                    open.entry(*manifest).or_default().push((index, interval.lo));
                }
                Event::Barrier { interval, manifest: Some(manifest), .. } if interval.hi.is_none() => {
                    open.entry(*manifest).or_default().push((index, interval.lo));
                }
                Event::IntervalClosed { manifest, .. } => {
                    let closed = open.remove(manifest).unwrap_or_default();
                    closings.extend(closed.into_iter().map(|(segment, lo)| Closing { segment, lo, at: placed.at }));
                }
                // Without this, records that the server took back would be replayed.
                Event::Withdrawn { from, .. } => closings.push(Closing { segment: 0, lo: *from, at: placed.at }),
                _ => {}
            }
        }
    }
    closings
}

impl Ranges {
    fn joined(parts: Vec<KeptPart>, cuts: &[usize]) -> Vec<KeptPart> {
        let mut pieces: Vec<KeptPart> = Vec::with_capacity(parts.len());
        for part in parts {
            let inside = cuts.iter().copied().filter(|cut| part.segments.contains(cut) && *cut > part.segments.start);
            let starts: Vec<usize> = [part.segments.start].into_iter().chain(inside).collect();
            let ends = starts.iter().skip(1).copied().chain([part.segments.end]);
            pieces
                .extend(starts.iter().zip(ends).map(|(start, end)| KeptPart { segments: *start..end, ..part.clone() }));
        }
        pieces.retain(|piece| !piece.segments.is_empty());
        pieces.sort_by_key(|part| (part.segments.start, part.segments.end));
        let mut joined: Vec<KeptPart> = Vec::new();
        for part in pieces {
            let cut = cuts.binary_search(&part.segments.start).is_ok();
            match joined.last_mut() {
                Some(last)
                    if part.segments.start < last.segments.end || part.segments.start == last.segments.end && !cut =>
                {
                    last.segments.end = last.segments.end.max(part.segments.end);
                    for why in part.why {
                        // Names of tags are many.
                        let same = |known: &Keep| std::mem::discriminant(known) == std::mem::discriminant(&why);
                        match last.why.iter_mut().find(|known| same(known)) {
                            Some(Keep::Tag { tags, .. }) => *tags += 1,
                            Some(_) => {}
                            None => last.why.push(why),
                        }
                    }
                    for (run, manifest) in part.bases {
                        let least = last.bases.entry(run).or_insert(manifest);
                        *least = manifest.min(*least);
                    }
                }
                _ => joined.push(part),
            }
        }
        joined
    }

    /// The first part from `from` on of which only the footer of its first segment tells whether its bases may serve: the
    /// part, and how far the MANIFEST may have been read when that segment was written.
    pub fn distrusted(&self, timeline: &Timeline, from: usize) -> Option<(usize, ManifestPoint)> {
        self.parts.iter().enumerate().skip(from).find_map(|(index, part)| {
            // What was cut there before was looked at then.
            let first = timeline.segments().get(part.segments.start)?.ordinal;
            let known = self.cuts.binary_search(&part.segments.start).is_ok();
            let run = open_run(&self.starts, part.segments.start)?.run;
            part.bases.get(&run).filter(|_| first > Ordinal::new(0) && !known).map(|manifest| (index, *manifest))
        })
    }

    /// Begins a part earlier by so many segments; answers whether anything changed.
    pub fn begin_earlier(&mut self, part: usize, by: usize) -> bool {
        let Some(present) = self.parts.get_mut(part) else { return false };
        let start = present.segments.start;
        // What was deleted before does not come back.
        let least = self.cuts.iter().rev().find(|cut| **cut <= start).copied().unwrap_or(0);
        let from = start.saturating_sub(by).max(least);
        present.segments.start = from;
        self.parts = Self::joined(std::mem::take(&mut self.parts), &self.cuts);
        from < start
    }

    /// The statement about what stays of a timeline; `None` where that is all that there is.
    pub fn statement(&self, timeline: &Timeline, author: &Author) -> Option<BoundaryDocument> {
        let segments = timeline.segments();
        let mut kept: Vec<KeptSegments> = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let piece = &part.segments;
            let (from, last) = (segments.get(piece.start)?, segments.get(piece.end.checked_sub(1)?)?);
            kept.push(KeptSegments {
                from: from.ordinal,
                to: last.ordinals().next()?,
                first: from.first,
                hash_before: from.hash_before,
                end: last.end,
                hash_after: last.hash_after,
                run: open_run(&self.starts, piece.start).cloned(),
                head: from.last_ordinal,
            });
        }
        let open = kept.pop()?;
        let manifests = self.manifests(timeline, &kept, open.from);
        let before = timeline.deleted();
        let same = match before {
            None => kept.is_empty() && open.from == Ordinal::new(0),
            Some(before) => before.ordinal == open.from && before.kept == kept && before.manifests == manifests,
        };
        if same {
            return None;
        }
        let revision = before.filter(|before| before.ordinal == open.from).map_or(0, |before| before.revision + 1);
        Some(BoundaryDocument {
            version: pitr_archive::catalog::schema::DOCUMENT_VERSION,
            archive: author.archive,
            timeline: timeline.id(),
            ordinal: open.from,
            first: open.first,
            hash_before: open.hash_before,
            revision,
            run: open.run,
            head: open.head,
            kept,
            manifests,
            unlogged: unlogged(timeline),
            created: author.created,
            epoch: author.epoch,
            nonce: author.nonce,
            extra: Extra::new(),
        })
    }

    /// The manifests that hold a segment that stays, or name a merged one in its place, and the last one.
    fn manifests(&self, timeline: &Timeline, islands: &[KeptSegments], suffix: Ordinal) -> Vec<KeptManifests> {
        let manifests = timeline.manifests();
        let holds = |range: &Range<Ordinal>| {
            range.end > suffix || islands.iter().any(|kept| range.start < kept.to && kept.from < range.end)
        };
        let mut kept: Vec<KeptManifests> = Vec::new();
        let mut next: Option<ManifestNumber> = None;
        for (index, manifest) in manifests.iter().enumerate() {
            let names = |merged: &Ordinals| merged.next().is_none_or(|end| holds(&(merged.first()..end)));
            if index + 1 < manifests.len() && !holds(&manifest.segments) && !manifest.merged.iter().any(names) {
                continue;
            }
            let after = manifest.number.next();
            match kept.last_mut() {
                Some(last) if next == Some(manifest.number) => last.to = after,
                _ => kept.push(KeptManifests { from: manifest.number, to: after, previous: manifest.previous }),
            }
            next = after;
        }
        if let Some(last) = kept.last_mut() {
            last.to = None;
        }
        kept
    }
}

/// What is said of a run once must not be deleted with the place where it was said.
fn unlogged(timeline: &Timeline) -> Vec<UnloggedRun> {
    let runs = timeline.unlogged().iter();
    runs.map(|(run, families)| UnloggedRun { run: *run, column_families: families.iter().cloned().collect() }).collect()
}

/// Who states something.
#[derive(Clone, Copy, Debug)]
pub struct Author {
    /// The archive.
    pub archive: ArchiveId,
    /// When.
    pub created: Micros,
    /// Under which claim.
    pub epoch: Epoch,
    /// The writer's nonce.
    pub nonce: Nonce,
}

fn run_starts(timeline: &Timeline) -> Vec<RunStart> {
    let segments = timeline.segments();
    let mut starts: Vec<RunStart> = Vec::new();
    for range in timeline.deleted().into_iter().flat_map(BoundaryDocument::ranges) {
        let index = segments.partition_point(|s| s.ordinal < range.from);
        starts.extend(range.run.map(|run| (index, false, run.clone())));
    }
    for (index, segment) in segments.iter().enumerate() {
        for placed in &segment.events {
            if let Event::RunStarted { run, first_wal, db_id } = &placed.event {
                let (run, start, first_wal, db_id) = (*run, placed.at, *first_wal, db_id.clone());
                starts.push((index, true, OpenRun { run, start, first_wal, db_id }));
            }
        }
    }
    starts.sort_by_key(|(index, inside, _)| (*index, *inside));
    starts
}

/// The run that goes on where a segment begins.
fn open_run(starts: &[RunStart], segment: usize) -> Option<&OpenRun> {
    let before = starts.partition_point(|(index, inside, _)| *index < segment || *index == segment && !inside);
    before.checked_sub(1).and_then(|last| starts.get(last)).map(|(.., run)| run)
}
