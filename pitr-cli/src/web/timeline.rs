//! The history of an archive as a picture: windows, bases, tags, barriers, now.
//!
//! Owns: where each thing is drawn. One row for each timeline: a bar for what can be restored, a tick for a base, a flag for a
//! tag, a red line for a barrier. Names stand in lanes, so that they do not cover each other; where there is no room for one,
//! the pole stays and says its name when pointed at. Colours and fonts are the page's. Pure.

use std::fmt::{self, Write};

use pitr_archive::{clock::Micros, ids::TimelineId};

use super::{markup::Text, overview::Overview};
use crate::{
    chronicle::{Window, axis::Axis},
    output::text,
};

/// Width in the picture's own units; the page scales it.
pub const WIDTH: f64 = 960.0;
/// Marks of an axis.
pub const MARKS: u32 = 9;
const LEFT: f64 = 8.0;
const RIGHT: f64 = WIDTH - 8.0;
/// A lane of names.
const LANE: f64 = 15.0;
const BAR: f64 = 20.0;
/// Lanes of tags above a bar, and of reasons below it.
const TAG_LANES: usize = 5;
const BARRIER_LANES: usize = 3;
/// Rows; older timelines are in the table only.
const ROWS: usize = 6;
/// Things of one kind in a row; what is older is in the table only.
const MOST: usize = 1_000;
/// A name is cut behind so many characters; its title has all of it.
const NAME: usize = 28;
/// Of the page's font at 11 px, with some room.
const CHARACTER: f64 = 6.6;

/// What is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// What is known.
    pub overview: &'a Overview,
    /// The present.
    pub now: Micros,
    /// Up to where what is written now can be restored.
    pub restorable_to: Option<Micros>,
}

impl Scene<'_> {
    /// When the first thing happened that can be drawn.
    pub fn began(&self) -> Micros {
        let o = &self.overview.chronicle;
        let all = o.bases.iter().map(|b| b.created).chain(o.tags.iter().map(|t| t.created));
        let all = all.chain(o.barriers.iter().map(|b| b.noticed)).chain(o.windows.iter().map(|w| w.from));
        all.min().unwrap_or(self.now).min(self.now)
    }

    fn end_of(&self, window: &Window) -> Micros {
        let to = if window.open { self.restorable_to.or(window.to) } else { window.to };
        to.unwrap_or(window.from).max(window.from)
    }

    /// Everything from `from` to now.
    ///
    /// # Errors
    /// A string cannot be written to.
    pub fn draw(&self, out: &mut String, from: Micros, label: &str) -> fmt::Result {
        let axis = Axis::new(from, self.now, LEFT, RIGHT);
        let mut body = String::new();
        let mut y = 4.0;
        let mut drawn = Vec::new();
        for timeline in self.overview.chronicle.timelines.iter().rev() {
            if drawn.len() < ROWS && self.has_anything(*timeline, &axis) {
                drawn.push(*timeline);
            }
        }
        drawn.sort();
        for timeline in &drawn {
            y = self.row(&mut body, *timeline, &axis, y, drawn.len() > 1)?;
        }
        if drawn.is_empty() {
            y += 24.0;
            write!(body, "<text class=\"quiet\" x=\"{LEFT}\" y=\"16\">nothing yet</text>")?;
        }
        let height = y + 22.0;
        write!(
            out,
            "<svg class=\"timeline\" role=\"img\" viewBox=\"0 0 {WIDTH} {height}\" xmlns=\"http://www.w3.org/2000/svg\">\
             <title>{}</title>",
            Text(label)
        )?;
        let bottom = y + 2.0;
        for mark in axis.marks(MARKS) {
            let x = mark.x;
            write!(out, "<line class=\"grid\" x1=\"{x}\" y1=\"2\" x2=\"{x}\" y2=\"{bottom}\"/>")?;
            let anchor = anchor(x);
            let y = y + 16.0;
            write!(
                out,
                "<text class=\"mark\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>",
                Text(&mark.label)
            )?;
        }
        out.push_str(&body);
        let x = axis.x(self.now);
        write!(
            out,
            "<line class=\"now\" x1=\"{x}\" y1=\"2\" x2=\"{x}\" y2=\"{bottom}\"><title>now: {}</title></line></svg>",
            text::short_time(self.now)
        )
    }

    fn has_anything(&self, timeline: TimelineId, axis: &Axis) -> bool {
        let o = &self.overview.chronicle;
        let window = |w: &Window| w.timeline == timeline && axis.holds(self.end_of(w));
        o.windows.iter().any(window)
            || o.bases.iter().any(|b| b.timeline == timeline && axis.holds(b.created))
            || o.tags.iter().any(|t| t.timeline == timeline && axis.holds(t.created))
            || o.barriers.iter().any(|b| b.timeline == timeline && axis.holds(b.noticed))
    }

    /// Draws one timeline from `top` down and answers where it ends.
    fn row(
        &self,
        out: &mut String,
        timeline: TimelineId,
        axis: &Axis,
        top: f64,
        named: bool,
    ) -> Result<f64, fmt::Error> {
        let o = &self.overview.chronicle;
        let mut top = top;
        if named {
            top += 14.0;
            write!(out, "<text class=\"row\" x=\"{LEFT}\" y=\"{top}\">timeline {timeline}</text>")?;
            top += 2.0;
        }
        let tags = o.tags.iter().filter(|t| t.timeline == timeline && axis.holds(t.created));
        let tags: Vec<_> = newest(tags.collect());
        let mut lanes = Lanes::new(TAG_LANES);
        // From the right to the left: the pole of a name that stands higher then passes none of those below it.
        let mut placed: Vec<_> = tags.iter().rev().map(|t| lanes.place(axis.x(t.created), &t.name)).collect();
        placed.reverse();
        let mut names = String::new();
        let bar = top + lanes.used() as f64 * LANE + 6.0;
        let below = bar + BAR;

        write!(
            out,
            "<rect class=\"none\" x=\"{LEFT}\" y=\"{bar}\" width=\"{}\" height=\"{BAR}\" rx=\"3\"/>",
            RIGHT - LEFT
        )?;
        for window in o.windows.iter().filter(|w| w.timeline == timeline && axis.holds(self.end_of(w))) {
            let to = self.end_of(window);
            let (left, right) = (axis.x(window.from), axis.x(to));
            // A stretch is never invisible.
            let width = (right - left).max(2.0);
            let (from, to) = (text::short_time(window.from), text::short_time(to));
            write!(
                out,
                "<rect class=\"window\" x=\"{left}\" y=\"{bar}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"3\">\
                 <title>can be restored: {from} to {to}</title></rect>"
            )?;
        }
        let bases = o.bases.iter().filter(|b| b.timeline == timeline && axis.holds(b.created));
        for base in newest(bases.collect()) {
            let x = axis.x(base.created);
            write!(
                out,
                "<g class=\"base\"><title>base {} of {}</title><line x1=\"{x}\" y1=\"{bar}\" x2=\"{x}\" y2=\"{below}\"/>\
                 <circle cx=\"{x}\" cy=\"{}\" r=\"3\"/></g>",
                Text(&base.id),
                text::short_time(base.created),
                bar + BAR / 2.0
            )?;
        }
        for (tag, place) in tags.iter().zip(placed) {
            let x = axis.x(tag.created);
            let foot = bar + 3.0;
            let head = place.as_ref().map_or(bar - 4.0, |p| bar - 2.0 - (p.lane + 1) as f64 * LANE);
            let note = if tag.note.is_empty() { String::new() } else { format!(": {}", tag.note) };
            write!(
                out,
                "<g class=\"tag\"><title>tag {} of {}{}</title><line x1=\"{x}\" y1=\"{head}\" x2=\"{x}\" y2=\"{foot}\"/>",
                Text(&tag.name),
                text::short_time(tag.created),
                Text(note)
            )?;
            match place {
                Some(place) => place.write(&mut names, "tag", head + 11.0)?,
                None => write!(out, "<circle cx=\"{x}\" cy=\"{head}\" r=\"2\"/>")?,
            }
            out.push_str("</g>");
        }
        let barriers = o.barriers.iter().filter(|b| b.timeline == timeline && axis.holds(b.noticed));
        let barriers: Vec<_> = newest(barriers.collect());
        let mut lanes = Lanes::new(BARRIER_LANES);
        for barrier in barriers.into_iter().rev() {
            let x = axis.x(barrier.noticed);
            let reason = text::name(barrier.reason);
            let place = lanes.place(x, &reason);
            let foot = place.as_ref().map_or(below + 4.0, |p| below + 4.0 + p.lane as f64 * LANE + 12.0);
            write!(
                out,
                "<g class=\"barrier\"><title>barrier {} at {}: {}</title>\
                 <line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{foot}\"/>",
                Text(&reason),
                text::short_time(barrier.noticed),
                Text(&barrier.detail),
                bar - 2.0
            )?;
            if let Some(place) = place {
                place.write(&mut names, "barrier", foot)?;
            }
            out.push_str("</g>");
        }
        // Above all lines, so that they can be read.
        write!(out, "<g class=\"names\">{names}</g>")?;
        Ok(below + 4.0 + lanes.used() as f64 * LANE + 6.0)
    }
}

/// The last of them; they are in order.
fn newest<T>(all: Vec<T>) -> Vec<T> {
    let skipped = all.len().saturating_sub(MOST);
    all.into_iter().skip(skipped).collect()
}

const fn anchor(x: f64) -> &'static str {
    if x < LEFT + 24.0 {
        "start"
    } else if x > RIGHT - 24.0 {
        "end"
    } else {
        "middle"
    }
}

/// Lanes of names, filled from the bar outwards.
struct Lanes {
    most: usize,
    /// Up to where each is taken.
    taken: Vec<Vec<(f64, f64)>>,
}

/// Where a name stands.
struct Place {
    lane: usize,
    x: f64,
    anchor: &'static str,
    name: String,
}

impl Place {
    fn write(&self, out: &mut String, class: &str, baseline: f64) -> fmt::Result {
        let Self { x, anchor, name, .. } = self;
        let y = baseline - 2.0;
        write!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>", Text(name))
    }
}

impl Lanes {
    const fn new(most: usize) -> Self {
        Self { most, taken: Vec::new() }
    }

    fn used(&self) -> usize {
        self.taken.len()
    }

    /// The nearest lane with room for a name at `x`: to the right of it, or where the picture ends, to the left.
    fn place(&mut self, x: f64, name: &str) -> Option<Place> {
        let name = text::shortened(name, NAME);
        let width = name.chars().count() as f64 * CHARACTER + 6.0;
        let (from, to, at, anchor) =
            if x + width > RIGHT { (x - width, x, x - 4.0, "end") } else { (x, x + width, x + 4.0, "start") };
        let free = |lane: &Vec<(f64, f64)>| lane.iter().all(|(a, b)| to < *a || *b < from);
        let lane = self.taken.iter().position(free).unwrap_or(self.taken.len());
        if lane >= self.most {
            return None;
        }
        if lane == self.taken.len() {
            self.taken.push(Vec::new());
        }
        if let Some(taken) = self.taken.get_mut(lane) {
            taken.push((from, to));
        }
        Some(Place { lane, x: at, anchor, name })
    }
}
