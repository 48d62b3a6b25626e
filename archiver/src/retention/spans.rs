//! A timeline in spans: each a part of a run whose segments follow one another, with the bases that may serve in it.
//!
//! Owns: which base belongs where. A restore never leaves a span: base, records and target lie in one. Pure.

use pitr_archive::{
    catalog::{
        invariants::stretches,
        model::{Barrier, ColumnFamilyEvent, Timeline},
        schema::BaseDocument,
    },
    ids::Boundary,
    segment::entry::Event,
};

/// Of which places it is certain that no older base than this one is needed for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certain {
    /// Of none.
    Nowhere,
    /// Of those behind its floor.
    BehindIt,
    /// Of all places at its floor, too.
    AtItsFloor,
}

/// A part of a run whose segments follow one another.
#[derive(Clone, Debug)]
pub(super) struct Span<'a> {
    /// Where it begins.
    pub start: Boundary,
    /// Where it ends.
    pub end: Boundary,
    /// Nothing follows it on its timeline.
    pub last: bool,
    /// In order of their floors, and of two at one floor the one taken first.
    pub bases: Vec<&'a BaseDocument>,
    /// What is certain of each of them.
    pub certain: Vec<Certain>,
    /// Barriers that were noted in it.
    pub barriers: Vec<&'a Barrier>,
    /// Column families that came and went in it.
    pub families: Vec<&'a ColumnFamilyEvent>,
    /// Where sessions of the server begin in it.
    pub sessions: Vec<Boundary>,
}

/// The spans of a timeline in order.
pub(super) fn spans<'a>(timeline: &'a Timeline, bases: &'a [BaseDocument]) -> Vec<Span<'a>> {
    let own: Vec<&BaseDocument> = bases.iter().filter(|base| base.floor.timeline == timeline.id()).collect();
    let mut found: Vec<Span<'a>> = Vec::new();
    for stretch in stretches(timeline) {
        let (Some(first), Some(last)) = (stretch.segments.first(), stretch.segments.last()) else { continue };
        let (starts, ends) = (first.first, last.end);
        let begun: Vec<(u64, Boundary)> = stretch
            .segments
            .iter()
            .flat_map(|s| &s.events)
            .filter_map(|placed| match placed.event {
                Event::RunStarted { run, .. } => Some((run, placed.at)),
                _ => None,
            })
            .collect();
        // The event that began the run of the first records is not there any more; bases tell the run.
        let mut pieces: Vec<(u64, Boundary)> = Vec::new();
        if stretch.broken.is_some() {
            let until = begun.first().map_or(ends, |(_, at)| *at);
            let here = own.iter().filter(|b| starts <= b.floor.boundary && b.floor.boundary <= until);
            let run = here.filter(|b| b.first_record > starts).map(|b| b.run).min();
            pieces
                .extend(run.filter(|run| begun.first().is_none_or(|(first, _)| run < first)).map(|run| (run, starts)));
        }
        // Of a run that began here nothing is missing.
        let assumed = pieces.len();
        pieces.extend(begun);
        let behind: Vec<Boundary> = pieces.iter().skip(1).map(|(_, at)| *at).chain([ends]).collect();
        for (index, ((run, start), end)) in pieces.iter().copied().zip(behind).enumerate() {
            let cut = index < assumed;
            let inside = |at: Boundary| start <= at && at <= end;
            let serves = |b: &&&BaseDocument| {
                let begins = if cut { b.first_record > start } else { b.first_record >= start };
                b.run == run && inside(b.floor.boundary) && begins
            };
            let mut bases: Vec<&BaseDocument> = own.iter().filter(serves).copied().collect();
            bases.sort_by(|a, b| (a.floor.boundary, a.manifest, &a.id).cmp(&(b.floor.boundary, b.manifest, &b.id)));
            found.push(Span {
                start,
                end,
                last: false,
                bases,
                certain: Vec::new(),
                barriers: timeline.barriers().iter().filter(|barrier| inside(barrier.at)).collect(),
                families: timeline.column_families().iter().filter(|family| inside(family.at)).collect(),
                sessions: timeline.sessions().iter().map(|session| session.at).filter(|at| inside(*at)).collect(),
            });
        }
    }
    if let Some(last) = found.last_mut().filter(|last| last.end == timeline.end()) {
        last.last = true;
    }
    found.iter_mut().for_each(Span::judge);
    found
}
