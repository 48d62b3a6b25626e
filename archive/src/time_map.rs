//! From a moment to a boundary, and from a boundary to its moments.
//!
//! Owns: what looks at the readable end ([`TimeSample`]) and signs of life prove. A look says: at `at`, everything before
//! its boundary was readable; at `from`, nothing after the boundary of the look before was. So the database is certainly at
//! boundary b from the first look's `at` that shows b until the `from` of the first look that shows more, or until the
//! last "nothing more was readable" at b. Outside such an interval nobody knows what was committed when.
//! The stream orders looks, not the clock: where a clock was set back, the greatest boundary counts, and the step is
//! reported. Refuses: reading; the caller brings the samples of the footers that `Timeline::time_candidates` names.

use crate::{
    catalog::schema::{SegmentFooter, TimeSample},
    clock::Micros,
    ids::Boundary,
};

/// Looks and signs of life in stream order.
#[derive(Clone, Debug, Default)]
pub struct TimeMap {
    samples: Vec<TimeSample>,
    /// Nothing after the boundary was readable at the time.
    quiet: Vec<(Boundary, Micros)>,
}

/// The clock went back between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    /// The boundary of the look after the step.
    pub boundary: Boundary,
    /// The clock before the step.
    pub before: Micros,
    /// The clock after it.
    pub after: Micros,
}

/// What is known about a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The last boundary that was observed at or before the moment.
    pub boundary: Boundary,
    /// From here on the database certainly was at least there.
    pub from: Micros,
    /// Until here it certainly was not further; before `from` when that was never seen.
    pub until: Option<Micros>,
    /// How far it may have been at the moment; equal to `boundary` when the moment is certain.
    pub may_reach: Option<Boundary>,
    /// Steps of the clock among the looks that were considered: around one, a moment is ambiguous.
    pub steps: Vec<ClockStep>,
}

impl TimeMap {
    /// Adds a segment's looks; segments in order.
    pub fn add(&mut self, footer: &SegmentFooter) {
        self.samples.extend_from_slice(&footer.samples);
        self.quiet.extend(footer.summary.observed_through.map(|at| (footer.summary.end, at)));
    }

    /// Adds one look.
    pub fn sample(&mut self, sample: TimeSample) {
        self.samples.push(sample);
    }

    /// Adds one sign of life.
    pub fn quiet(&mut self, boundary: Boundary, through: Micros) {
        self.quiet.push((boundary, through));
    }

    /// Where the clock went back.
    pub fn steps(&self) -> Vec<ClockStep> {
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        pairs
            .filter(|(a, b)| b.at < a.at)
            .map(|(a, b)| ClockStep { boundary: b.boundary, before: a.at, after: b.at })
            .collect()
    }

    /// What is known about `moment`; `None` when no look lies at or before it.
    pub fn resolve(&self, moment: Micros) -> Option<Resolution> {
        let last = self.samples.iter().filter(|s| s.at <= moment).max_by_key(|s| s.boundary)?;
        let (from, until) = self.certain(last.boundary)?;
        let certain = from <= moment && until.is_some_and(|until| moment <= until);
        let next = self.samples.iter().find(|s| s.boundary > last.boundary).map(|s| s.boundary);
        let may_reach = if certain { Some(last.boundary) } else { next };
        Some(Resolution { boundary: last.boundary, from, until, may_reach, steps: self.steps() })
    }

    /// When the database certainly was at `boundary`: the first look that showed it, and the last moment at which
    /// nothing more was readable. `None` when no look showed exactly this boundary.
    pub fn certain(&self, boundary: Boundary) -> Option<(Micros, Option<Micros>)> {
        let first = self.samples.iter().find(|s| s.boundary == boundary)?;
        let more = self.samples.iter().find(|s| s.boundary > boundary).map(|s| s.from);
        let quiet = self.quiet.iter().filter(|(at, _)| *at == boundary).map(|(_, through)| *through).max();
        let until = more.max(quiet).filter(|until| *until >= first.at);
        Some((first.at, until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(from: i64, at: i64, boundary: u64) -> TimeSample {
        TimeSample { from: Micros(from), at: Micros(at), boundary: Boundary::new(boundary) }
    }

    fn map(samples: &[TimeSample]) -> TimeMap {
        TimeMap { samples: samples.to_vec(), quiet: Vec::new() }
    }

    #[test]
    fn a_moment_between_two_looks_is_certain_until_the_last_look_that_showed_nothing_more() {
        let map = map(&[look(90, 100, 5), look(190, 200, 9)]);
        let found = map.resolve(Micros(150)).unwrap();
        assert_eq!((found.boundary, found.from, found.until), (Boundary::new(5), Micros(100), Some(Micros(190))));
        assert_eq!(found.may_reach, Some(Boundary::new(5)));
        let late = map.resolve(Micros(195)).unwrap();
        assert_eq!((late.boundary, late.may_reach), (Boundary::new(5), Some(Boundary::new(9))));
        assert_eq!(map.resolve(Micros(99)), None);
        assert_eq!(map.resolve(Micros(200)).unwrap().boundary, Boundary::new(9));
    }

    #[test]
    fn a_sign_of_life_extends_certainty_and_its_absence_does_not() {
        let mut map = map(&[look(90, 100, 5)]);
        assert_eq!(map.resolve(Micros(900)).unwrap().until, None);
        map.quiet(Boundary::new(5), Micros(800));
        let found = map.resolve(Micros(700)).unwrap();
        assert_eq!((found.until, found.may_reach), (Some(Micros(800)), Some(Boundary::new(5))));
        assert_eq!(map.resolve(Micros(900)).unwrap().may_reach, None);
    }

    #[test]
    fn a_boundary_that_one_look_showed_and_the_next_overtook_is_certain_at_no_moment() {
        let map = map(&[look(90, 100, 5), look(95, 200, 9)]);
        assert_eq!(map.certain(Boundary::new(5)), Some((Micros(100), None)));
        assert_eq!(map.resolve(Micros(100)).unwrap().may_reach, Some(Boundary::new(9)));
    }

    #[test]
    fn a_clock_set_back_is_reported_and_the_stream_decides() {
        let map = map(&[look(0, 100, 1), look(150, 200, 2), look(120, 150, 3), look(250, 260, 4)]);
        let found = map.resolve(Micros(180)).unwrap();
        assert_eq!(found.boundary, Boundary::new(3));
        assert_eq!(found.steps, [ClockStep { boundary: Boundary::new(3), before: Micros(200), after: Micros(150) }]);
    }
}
