//! `--to-seq N`: the last place whose latest sequence number is at most N.
//!
//! Owns: finding every place that answers to it. Sequence numbers go back: after a reopen that lowered them, after a
//! failed write, and where a new run archives records again. The stream is therefore walked in stretches in which they
//! only grow, and N is looked for in each. Segments whose summaries show that N is not in them are not read.
//! Refuses: a number that was given out where a barrier says that nobody knows what was written.

use pitr_archive::{
    Code, Error, Result,
    ids::{Boundary, SequenceNumber},
    rocks::transactions::Transactions,
    segment::entry::{Blocks, Entry, Event, Record},
};

use super::{Distance, Resolved, after_end, before_start, candidate};
use crate::{
    plan::{
        facts, sequence,
        source::{Source, all_exact},
        stream::{Piece, Place, Stream},
    },
    target::Target,
};

pub(super) async fn resolve(stream: &Stream, source: &dyn Source, wanted: SequenceNumber) -> Result<Resolved> {
    let mut walk = Walk {
        wanted,
        latest: None,
        now: Place::before_events(stream.start()),
        fresh: None,
        found: Vec::new(),
        lowest: None,
        unknown_from: None,
        why: None,
        gap: None,
        transactions: Transactions::default(),
    };
    // All that will have to be read, at once.
    let read = stream.pieces.iter().filter(|piece| may_hold(stream, piece, wanted));
    all_exact(source, read)?;
    for piece in &stream.pieces {
        if walk.can_skip(stream, piece) {
            walk.skip(piece);
        } else {
            let entries = source.entries(piece.timeline, &piece.summary).await?;
            for read in entries.into_iter().filter(|read| piece.keeps(read.at, &read.entry)) {
                walk.entry(stream, read.at, &read.entry)?;
            }
        }
    }
    walk.end_of_stretch();
    let target = Target::Sequence(wanted);
    match walk.found.as_slice() {
        [Found { place, reached, of }] => {
            let mut resolved = Resolved::exactly(*place);
            let beyond = wanted.get().saturating_sub(reached.get());
            resolved.distance = Distance { exact: beyond == 0, sequences: Some(beyond), ..Distance::default() };
            if beyond > 0 {
                resolved.moved(0, match of {
                    Owner::Record => format!(
                        "sequence number {wanted} lies inside a record, which is never split; the record before ends at {reached}"
                    ),
                    Owner::NoRecord => format!(
                        "sequence number {wanted} was given to no record (files that were ingested have numbers, too); the record before ends at {reached}"
                    ),
                });
            }
            Ok(resolved)
        }
        [] if walk.gap.is_some() => {
            let Gap { known, next, why } = walk.gap.unwrap_or_default();
            let e = Error::new(Code::TargetBehindBarrier, "finding").on(target).with("known before", known);
            Err(e.with("known again from", next).with("barrier", why))
        }
        [] if walk.lowest.is_some_and(|lowest| wanted < lowest) => {
            let e = before_start(stream, source, &target)?;
            Err(match walk.lowest {
                Some(lowest) => e.with("lowest sequence", lowest),
                None => e,
            })
        }
        [] => Err(after_end(stream, source, &target)?),
        several => {
            let mut e = Error::new(Code::TargetAmbiguous, "finding").on(target);
            for Found { place, reached, .. } in several {
                e = e.with("candidate", candidate(stream, *place, *reached));
            }
            Err(e)
        }
    }
}

/// Whether an entry that stands for several segments is certainly not skipped, whatever came before it.
fn may_hold(stream: &Stream, piece: &Piece, wanted: SequenceNumber) -> bool {
    let s = &piece.summary;
    let Some(inside) = &s.rolled_up else { return false };
    let among = s.min_sequence.is_some_and(|min| min <= wanted) && s.max_sequence > Some(wanted);
    !inside.ascending || !piece.is_whole() || stream.touches_withdrawn(s.first, s.end) || among
}

/// A place that answers to the number.
struct Found {
    place: Place,
    /// The latest sequence number there.
    reached: SequenceNumber,
    of: Owner,
}

/// To what the number was given, where it is not the last one at the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Record,
    NoRecord,
}

/// Numbers of which a barrier says that nobody knows what they were given to, the wanted one among them.
#[derive(Clone, Debug, Default)]
struct Gap {
    known: SequenceNumber,
    next: SequenceNumber,
    why: String,
}

struct Walk {
    wanted: SequenceNumber,
    /// Latest sequence number so far in this stretch; unknown at the start of a run.
    latest: Option<SequenceNumber>,
    /// Behind the last entry.
    now: Place,
    /// Where the stretch began, if no record has followed: it may be behind other places at its boundary.
    fresh: Option<Place>,
    found: Vec<Found>,
    lowest: Option<SequenceNumber>,
    /// Behind a barrier: the last number before it.
    unknown_from: Option<SequenceNumber>,
    /// What that barrier says.
    why: Option<String>,
    gap: Option<Gap>,
    transactions: Transactions,
}

impl Walk {
    /// Nothing in the segment can be N's place, and its effect on the walk is in its summary.
    fn can_skip(&self, stream: &Stream, piece: &Piece) -> bool {
        let s = &piece.summary;
        let Some(latest) = self.latest else { return false };
        // Of one of several segments, none may be left to be looked at.
        if s.rolled_up.as_ref().is_some_and(|inside| !inside.ascending) {
            return false;
        }
        let quiet = s.events.iter().all(|e| {
            !matches!(e.event, Event::RunStarted { .. } | Event::SessionStarted { .. } | Event::Barrier { .. })
        });
        let repeat = s.merged.is_some_and(|merged| merged.numbers_repeat);
        if !quiet || repeat || !piece.is_whole() || stream.touches_withdrawn(s.first, s.end) {
            return false;
        }
        // A segment without records changes nothing.
        let (Some(min), Some(max)) = (s.min_sequence, s.max_sequence) else { return s.first == s.end };
        min > latest && max == s.last_sequence && (max <= self.wanted || latest > self.wanted)
    }

    fn skip(&mut self, piece: &Piece) {
        if piece.summary.first < piece.summary.end {
            self.latest = Some(piece.summary.last_sequence);
            self.fresh = None;
        }
        self.transactions.clone_from(&piece.summary.transactions);
        self.now = piece.end;
    }

    fn entry(&mut self, stream: &Stream, at: Boundary, entry: &Entry) -> Result<()> {
        if let Entry::Event(event) = entry {
            facts::pass(&mut self.transactions, event);
        }
        let Entry::Record(record) = entry else {
            let events = if self.now.boundary == at { self.now.events + 1 } else { 1 };
            let behind = Place { boundary: at, events };
            match entry {
                Entry::Event(Event::RunStarted { .. }) => {
                    self.unknown_from = self.latest.or(self.unknown_from);
                    self.next_stretch(behind, None);
                }
                // What the run's base has at its beginning, unless the log has more.
                Entry::Event(Event::SessionStarted { last_sequence, .. }) if self.latest.is_none() => {
                    self.note_gap(*last_sequence);
                    self.unknown_from = Some(*last_sequence);
                }
                Entry::Event(Event::Barrier { reason, detail, .. }) if reason.blocks() == Blocks::Jump => {
                    // Directly before it the number is known, behind it what was given out is not.
                    let known = self.latest.or(self.unknown_from);
                    self.latest = known;
                    self.next_stretch(behind, None);
                    (self.unknown_from, self.why) = (known, Some(detail.clone()));
                }
                Entry::Event(Event::Barrier { reason, detail, .. }) if reason.ends_run() => {
                    self.why = Some(detail.clone());
                }
                Entry::Event(Event::SessionStarted { last_sequence, .. })
                    if self.latest.is_some_and(|latest| *last_sequence < latest) =>
                {
                    self.next_stretch(behind, Some(*last_sequence));
                }
                _ => {}
            }
            self.now = behind;
            return Ok(());
        };
        let next = Boundary::new(at.get().saturating_add(1));
        if !stream.touches_withdrawn(at, next) {
            if self.now.boundary != at {
                self.now = Place::before_events(at);
            }
            self.record(at, record)?;
        }
        self.now = Place::before_events(next);
        Ok(())
    }

    fn next_stretch(&mut self, from: Place, latest: Option<SequenceNumber>) {
        self.end_of_stretch();
        self.fresh = Some(from);
        self.latest = latest;
    }

    /// The earliest place of this stretch at the present boundary.
    fn place(&self) -> Place {
        let fresh = self.fresh.filter(|fresh| fresh.boundary == self.now.boundary);
        fresh.unwrap_or(Place::before_events(self.now.boundary))
    }

    fn record(&mut self, at: Boundary, record: &Record) -> Result<()> {
        let step = sequence::step(&mut self.transactions, at.next_record(), record)?;
        let before = step.first.get().checked_sub(1).map(SequenceNumber::new).unwrap_or_default();
        if self.latest.is_none() {
            self.note_gap(before);
        }
        (self.unknown_from, self.why) = (None, None);
        let latest = self.latest.unwrap_or(before);
        self.lowest = Some(self.lowest.map_or(latest, |lowest| lowest.min(latest)));
        // A record that consumes nothing shows how far numbers went without a record.
        let before_it = self.found.len();
        if step.consumed || step.end > latest {
            let went_back = step.consumed && step.first <= latest;
            if went_back {
                self.end_of_stretch();
                self.fresh = Some(self.now);
            }
            let from = if went_back { before } else { latest };
            self.lowest = self.lowest.min(Some(from));
            if from <= self.wanted && self.wanted < step.end {
                // A barrier in between had nothing to do with the numbers.
                let again = |found: &Found| found.reached == self.wanted && found.place.boundary == self.now.boundary;
                if from == self.wanted && self.found.last().is_some_and(again) {
                    self.found.pop();
                }
                let of = if self.wanted < step.first { Owner::NoRecord } else { Owner::Record };
                self.found.push(Found { place: self.place(), reached: from, of });
            }
        }
        if !step.certain && self.found.len() == before_it {
            // What comes behind is not compared with what was before.
            self.end_of_stretch();
        }
        // Where a commit's effect is not known, a barrier stands.
        self.latest = step.certain.then_some(step.end);
        self.fresh = None;
        Ok(())
    }

    /// N is the last number of a stretch: its place is the stretch's end.
    fn end_of_stretch(&mut self) {
        if self.latest == Some(self.wanted) {
            self.found.push(Found { place: self.place(), reached: self.wanted, of: Owner::Record });
        }
    }

    /// The number is known to be `next` now; what came in between, a barrier has taken.
    fn note_gap(&mut self, next: SequenceNumber) {
        if let (Some(known), Some(why)) = (self.unknown_from, &self.why)
            && known < self.wanted
            && self.wanted < next
        {
            self.gap.get_or_insert(Gap { known, next, why: why.clone() });
        }
    }
}
