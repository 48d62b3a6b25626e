//! A stretch of time as a stretch of pixels, or of columns.
//!
//! Owns: where a moment lies, and at which round moments (UTC) an axis is marked. Pure.

use chrono::{DateTime, Datelike as _, Timelike as _, Utc};
use pitr_archive::clock::Micros;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Round distances between two marks.
const STEPS: [i64; 20] = [
    SECOND,
    5 * SECOND,
    15 * SECOND,
    30 * SECOND,
    60 * SECOND,
    2 * 60 * SECOND,
    5 * 60 * SECOND,
    15 * 60 * SECOND,
    30 * 60 * SECOND,
    3_600 * SECOND,
    3 * 3_600 * SECOND,
    6 * 3_600 * SECOND,
    12 * 3_600 * SECOND,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
    30 * DAY,
    91 * DAY,
    365 * DAY,
];

/// From a time to a time, on pixels from `left` to `right`.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    from: i64,
    to: i64,
    left: f64,
    right: f64,
}

/// A round moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Where.
    pub x: f64,
    /// What it is called.
    pub label: String,
}

impl Axis {
    /// At least a second long.
    pub fn new(from: Micros, to: Micros, left: f64, right: f64) -> Self {
        Self { from: from.0, to: to.0.max(from.0.saturating_add(SECOND)), left, right }
    }

    /// Where a moment lies; what is outside lies at the nearer end.
    pub fn x(&self, at: Micros) -> f64 {
        let share = at.0.saturating_sub(self.from) as f64 / self.length() as f64;
        // A tenth of a pixel is enough, and keeps a page small.
        let x = self.left + share.clamp(0.0, 1.0) * (self.right - self.left);
        (x * 10.0).round() / 10.0
    }

    /// Whether a moment lies on it.
    pub const fn holds(&self, at: Micros) -> bool {
        self.from <= at.0 && at.0 <= self.to
    }

    fn length(&self) -> i64 {
        self.to.saturating_sub(self.from)
    }

    /// The round moments on it, about `most` of them at most. Where the day changes, its date is the label.
    pub fn marks(&self, most: u32) -> Vec<Mark> {
        let (length, most) = (self.length(), i64::from(most.max(1)));
        let fits = |step: &i64| length / step <= most;
        // Centuries: so many years that they fit.
        let years = |length: i64| (length / (365 * DAY) / most + 1) * 365 * DAY;
        let step = STEPS.into_iter().find(fits).unwrap_or_else(|| years(length));
        let mut marks = Vec::new();
        let mut day_before = None;
        let mut at = self.from.div_euclid(step).saturating_add(1).saturating_mul(step);
        while at <= self.to && marks.len() <= usize::try_from(most).unwrap_or(0) {
            let time = Micros(at).to_datetime();
            let day = Some(time.date_naive());
            marks.push(Mark { x: self.x(Micros(at)), label: label(time, step, day_before != day) });
            day_before = day;
            at = at.saturating_add(step);
        }
        marks
    }
}

fn label(time: DateTime<Utc>, step: i64, new_day: bool) -> String {
    let midnight = time.hour() == 0 && time.minute() == 0 && time.second() == 0;
    let form = match step {
        _ if step >= 91 * DAY => "%b %Y",
        _ if step >= DAY && time.ordinal() <= 14 => "%b %e %Y",
        _ if step >= DAY || (new_day && midnight) => "%b %e",
        _ if step < 60 * SECOND => "%H:%M:%S",
        _ => "%H:%M",
    };
    time.format(form).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(from: &str, to: &str) -> Vec<String> {
        let time = |text: &str| Micros::from(text.parse::<DateTime<Utc>>().unwrap());
        Axis::new(time(from), time(to), 0.0, 100.0).marks(9).into_iter().map(|mark| mark.label).collect()
    }

    #[test]
    fn marks_are_round_and_few_whatever_the_length() {
        assert_eq!(
            marks("2026-11-20T21:10:00Z", "2026-11-21T21:10:00Z"),
            ["Nov 21", "03:00", "06:00", "09:00", "12:00", "15:00", "18:00", "21:00"]
        );
        assert_eq!(
            marks("2026-11-20T21:10:00Z", "2026-11-20T21:10:04Z"),
            ["21:10:01", "21:10:02", "21:10:03", "21:10:04"]
        );
        for (from, to) in [
            ("2026-11-20T21:10:00Z", "2026-11-20T21:10:00Z"),
            ("2020-01-01T00:00:00Z", "2026-11-21T00:00:00Z"),
            ("1700-01-01T00:00:00Z", "2600-11-21T00:00:00Z"),
            ("2026-11-01T00:00:00Z", "2026-11-21T00:00:00Z"),
        ] {
            assert!((1..=10).contains(&marks(from, to).len()), "{from} {to} {:?}", marks(from, to));
        }
    }

    #[test]
    fn what_is_outside_lies_at_the_nearer_end() {
        let axis = Axis::new(Micros(0), Micros(10_000_000), 10.0, 110.0);
        assert_eq!([-5, 0, 5, 10, 15].map(|s| axis.x(Micros(s * 1_000_000))), [10.0, 10.0, 60.0, 110.0, 110.0]);
        assert!(axis.x(Micros(i64::MIN)) >= 10.0 && axis.x(Micros(i64::MAX)) <= 110.0);
    }
}
