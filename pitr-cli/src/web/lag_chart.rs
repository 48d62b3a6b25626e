//! The lag of the last day as a picture.
//!
//! Owns: a line through the worst of every minute, broken where nothing was known, with the operator's limit. Colours and fonts
//! are the page's. Pure.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use pitr_archive::clock::Micros;

use super::{
    lags::Sample,
    markup::Text,
    timeline::{MARKS, WIDTH},
};
use crate::{chronicle::axis::Axis, output::text};

const LEFT: f64 = 56.0;
const RIGHT: f64 = WIDTH - 8.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 116.0;
const HEIGHT: f64 = 138.0;
const DAY: i64 = 86_400_000_000;
/// Round heights, in seconds.
const HEIGHTS: [u64; 18] =
    [1, 2, 5, 10, 20, 30, 60, 120, 240, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200, 86_400];

/// Draws the day before `now`.
///
/// # Errors
/// A string cannot be written to.
pub fn draw(out: &mut String, samples: &[Sample], now: Micros, limit: Duration) -> fmt::Result {
    let axis = Axis::new(Micros(now.0.saturating_sub(DAY)), now, LEFT, RIGHT);
    let worst = samples.iter().map(|s| s.lag).max().unwrap_or_default();
    let round = |seconds: &u64| Duration::from_secs(*seconds) >= worst;
    let days = |worst: Duration| (worst.as_secs() / 86_400 + 1) * 86_400;
    let height = Duration::from_secs(HEIGHTS.into_iter().find(round).unwrap_or_else(|| days(worst)));
    let y = |lag: Duration| {
        let y = BOTTOM - lag.as_secs_f64() / height.as_secs_f64() * (BOTTOM - TOP);
        (y * 10.0).round() / 10.0
    };
    let said = match worst {
        _ if samples.is_empty() => "lag of the last day: not known yet".to_owned(),
        worst => format!("lag of the last day: {} at most", text::duration(worst)),
    };
    write!(
        out,
        "<svg class=\"lag\" role=\"img\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" xmlns=\"http://www.w3.org/2000/svg\">\
         <title>{}</title>",
        Text(said)
    )?;
    for lag in [Duration::ZERO, height / 2, height] {
        let (y, label) = (y(lag), text::duration(lag));
        write!(out, "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y}\" x2=\"{RIGHT}\" y2=\"{y}\"/>")?;
        write!(out, "<text class=\"mark\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0, y + 4.0)?;
    }
    for mark in axis.marks(MARKS) {
        let x = mark.x;
        let anchor = if x > RIGHT - 24.0 { "end" } else { "middle" };
        write!(out, "<line class=\"grid\" x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{BOTTOM}\"/>")?;
        write!(
            out,
            "<text class=\"mark\" x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            BOTTOM + 16.0,
            Text(&mark.label)
        )?;
    }
    if limit <= height {
        let (y, said) = (y(limit), text::duration(limit));
        write!(
            out,
            "<line class=\"limit\" x1=\"{LEFT}\" y1=\"{y}\" x2=\"{RIGHT}\" y2=\"{y}\">\
             <title>not ready above {said}</title></line>\
             <text class=\"mark\" x=\"{}\" y=\"{}\" text-anchor=\"end\">limit {said}</text>",
            RIGHT - 4.0,
            if y > TOP + 14.0 { y - 4.0 } else { y + 12.0 }
        )?;
    }
    for piece in samples.chunk_by(|a, b| b.follows(a)) {
        let points: Vec<_> = piece.iter().map(|s| (axis.x(s.at()), y(s.lag))).collect();
        let (Some(first), Some(last)) = (points.first(), points.last()) else { continue };
        let line: String = points.iter().map(|(x, y)| format!("{x},{y} ")).collect();
        // A single minute is a point, and drawn as one.
        let right = last.0.max(first.0 + 1.0);
        write!(
            out,
            "<polygon class=\"area\" points=\"{},{BOTTOM} {line}{right},{} {right},{BOTTOM}\"/>\
             <polyline class=\"line\" points=\"{line}{right},{}\"/>",
            first.0, last.1, last.1
        )?;
    }
    out.push_str("</svg>");
    Ok(())
}
