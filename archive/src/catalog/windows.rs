//! Which stretches of a timeline can be restored.
//!
//! Owns: an overview for people, from bases and barriers alone. Inside a stretch a single target can still be refused
//! (inside the interval of an event, or among two-phase-commit records); the plan has the last word.

use serde::{Serialize, Serializer};

use crate::{
    catalog::{
        crossing::Footing,
        invariants::{Stretch, stretches},
        model::{Barrier, Timeline},
        schema::BaseDocument,
    },
    clock::Micros,
    ids::Boundary,
};

/// A stretch of boundaries, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The floor of the earliest base that serves it.
    pub from: Boundary,
    /// The last boundary that can be reached.
    pub to: Boundary,
    /// When the base was taken.
    #[serde(serialize_with = "as_time")]
    pub since: Micros,
}

fn as_time<S: Serializer>(at: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    at.to_datetime().serialize(serializer)
}

/// The stretches, in order, neighbours joined.
pub fn windows(timeline: &Timeline, bases: &[&BaseDocument]) -> Vec<Window> {
    let stretches = stretches(timeline);
    let reached: Vec<_> = bases.iter().filter_map(|base| reach(timeline, &stretches, base)).collect();
    join(reached)
}

/// From a base's floor to the first barrier that stops it, or the end of its run, or lost segments.
fn reach(timeline: &Timeline, stretches: &[Stretch<'_>], base: &BaseDocument) -> Option<Window> {
    let floor = base.floor.boundary;
    let (first, last) = stretches.iter().find_map(|stretch| {
        let (first, last) = (stretch.segments.first()?, stretch.segments.last()?);
        (stretch.serves(base) && floor <= last.end).then_some((first.first, last.end))
    })?;
    // The event that began its run can be lost with the segments before.
    let (start, end) = match timeline.run(base.run) {
        Some(run) => (run.start, run.end),
        None => (first, timeline.runs().iter().map(|run| run.start).find(|start| floor <= *start).unwrap_or(last)),
    };
    let end = end.min(last);
    let stops = timeline.barriers().iter().filter(|b| start <= b.at && b.at <= end).filter_map(|b| stop(b, base));
    let to = stops.min().map_or(end, |stop| stop.min(end));
    (base.floor.boundary <= to).then_some(Window { from: base.floor.boundary, to, since: base.created })
}

/// The last boundary that a base reaches before a barrier; `None` if the barrier does not concern it.
fn stop(barrier: &Barrier, base: &BaseDocument) -> Option<Boundary> {
    let lo = barrier.interval.lo;
    let concerned = barrier.hurdle().concerns(&Footing::from(base));
    concerned.then_some(lo)
}

fn join(mut windows: Vec<Window>) -> Vec<Window> {
    windows.sort_by_key(|w| (w.from, w.to));
    let mut joined: Vec<Window> = Vec::new();
    for window in windows {
        match joined.last_mut() {
            Some(last) if window.from <= last.to => last.to = last.to.max(window.to),
            _ => joined.push(window),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: u64, to: u64) -> Window {
        Window { from: Boundary::new(from), to: Boundary::new(to), since: Micros(0) }
    }

    #[test]
    fn overlapping_stretches_are_one_and_holes_stay() {
        assert_eq!(
            join(vec![window(5, 9), window(0, 5), window(12, 20), window(13, 14)]),
            [window(0, 9), window(12, 20)]
        );
        assert_eq!(join(vec![]), []);
    }
}
