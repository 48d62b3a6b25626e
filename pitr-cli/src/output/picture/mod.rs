//! The history of an archive as lines of text: bases, segments, tags, barriers, windows, and where a plan arrives.
//!
//! - [`Picture`]: the facts, each with its time. [`gather`] takes them from a catalog.
//! - [`draw`]: the facts in so many columns. One group of lines for each timeline, a child below its parent: the tags with
//!   their names, a bar for what can be restored with the bases on it, how much was written, the barriers with their
//!   reasons; and one axis of time for all.
//! - [`lanes`] finds room for names, [`density`] spreads what was written over columns, [`glyphs`] are the characters,
//!   [`canvas`] the cells.
//!
//! Whatever lies inside the time that is drawn is there: as a mark, which can stand for several in one column, and in the
//! numbers beside the timeline's name, which are exact. A name that finds no room is counted.
//! Pure. Refuses: reading the archive, and the colours of inks (`Output`).

mod canvas;
mod density;
mod facts;
pub mod gather;
mod glyphs;
mod lanes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use pitr_archive::clock::Micros;

pub use self::{
    canvas::{Ink, Line},
    density::{Amount, Written, columns},
    facts::{BaseMark, Flag, Fork, Picture, Row, Span},
    glyphs::Glyphs,
};
use self::{
    canvas::{Strip, wrapped},
    glyphs::{Glyph, SHADES},
    lanes::{Lanes, Named, Side},
};
use crate::{
    chronicle::axis::Axis,
    output::{text, tree},
};

/// How it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// In how many columns.
    pub width: usize,
    /// With which characters.
    pub glyphs: Glyphs,
}

/// With fewer columns nothing can be told; lines are then wider than what shows them.
const NARROWEST: usize = 20;
/// Lanes of tags above a bar, and of reasons below it.
const TAG_LANES: usize = 5;
const BARRIER_LANES: usize = 3;
/// A name is cut behind so many characters.
const NAME: usize = 28;
/// Columns for a label of the axis.
const LABEL: usize = 12;
/// What stands at the target.
const TARGET: &str = "target";
/// A stretch of time is as long at least.
const SHORTEST: i64 = 1_000_000;

/// The picture, line by line.
pub fn draw(picture: &Picture, style: Style) -> Vec<Line> {
    let width = style.width.max(NARROWEST);
    let from = picture.span.from;
    let span = Span { from, to: picture.span.to.max(Micros(from.0.saturating_add(SHORTEST))) };
    let sheet = Sheet { span, axis: Axis::new(span.from, span.to, 0.0, width as f64), width, glyphs: style.glyphs };
    let shown: Vec<&Row> = picture.rows.iter().filter(|row| row.span().meets(span)).collect();
    let amounts: Vec<_> = shown.iter().map(|row| (row.timeline, density::columns(&row.written, span, width))).collect();
    let peak = amounts.iter().flat_map(|(_, amounts)| amounts).map(|amount| amount.bytes).max().unwrap_or(0);
    let (mut lines, mut bars) = (Vec::new(), Vec::new());
    for (branch, row) in tree::branches(&shown) {
        let bar = sheet.bar(row);
        bars.push(bar.clone());
        let written = amounts.iter().find(|(timeline, _)| *timeline == row.timeline).map(|(_, amounts)| amounts);
        lines.extend(sheet.row(&branch, row, bar, written.map_or(&[][..], Vec::as_slice), peak));
    }
    match picture.rows.len() - shown.len() {
        _ if picture.rows.is_empty() => lines.extend(sheet.words(Ink::Faint, "nothing yet")),
        0 => {}
        others => {
            let (others, have) = (text::count(others, "timeline"), if others == 1 { "has" } else { "have" });
            lines.extend(sheet.words(Ink::Faint, &format!("{others} {have} nothing here: pitr list timelines")));
        }
    }
    if !picture.rows.is_empty() {
        lines.extend(sheet.axis().map(Strip::line));
        lines.extend(sheet.legend(&shown, &bars, peak));
    }
    lines
}

/// What all lines share.
struct Sheet {
    span: Span,
    axis: Axis,
    width: usize,
    glyphs: Glyphs,
}

impl Sheet {
    /// The column of a moment; of one that is not shown, the nearer end.
    fn column(&self, at: Micros) -> usize {
        (self.axis.x(at) as usize).min(self.width - 1)
    }

    fn words(&self, ink: Ink, words: &str) -> Vec<Line> {
        wrapped([(ink, words.to_owned())], self.width, 2)
    }

    fn row(&self, branch: &str, row: &Row, bar: Strip, written: &[Amount], peak: u64) -> Vec<Line> {
        let (tags, barriers) = (self.named(&row.tags), self.named(&row.barriers));
        let tag_lanes = Lanes::of(&tags, self.width, TAG_LANES);
        let barrier_lanes = Lanes::of(&barriers, self.width, BARRIER_LANES);
        let facts = [
            row.fork.map(|fork| format!("left {} after record {}", fork.parent, text::record(fork.boundary))),
            counted(row.bases.iter().filter(|base| self.span.holds(base.at)).count(), "base"),
            flags(&tags, &tag_lanes, "tag"),
            flags(&barriers, &barrier_lanes, "barrier"),
            self.records(row, written),
        ];
        let branch = self.glyphs.branch(branch);
        let skipped = branch.chars().count().saturating_sub(self.width / 2);
        let branch: String = branch.chars().skip(skipped).collect();
        let current = if row.current { " *" } else { "" };
        let title = (Ink::Strong, format!("{branch}timeline {}{current}", row.timeline));
        let facts = facts.into_iter().flatten().map(|fact| (Ink::Plain, fact));
        let mut lines = wrapped([title].into_iter().chain(facts), self.width, branch.chars().count() + 2);

        let mut strips = tag_lanes.draw(self.glyphs, Side::Above, Ink::Strong);
        strips.extend(self.feet(row));
        strips.push(bar);
        if peak > 0 && written.iter().any(|amount| amount.bytes > 0) {
            strips.push(self.density(written, peak));
        }
        if !barriers.is_empty() {
            let mut marks = Strip::new(self.width);
            for barrier in &barriers {
                marks.put(barrier.column, self.glyphs.of(Glyph::Barrier), Ink::Bad);
            }
            strips.push(marks);
            strips.extend(barrier_lanes.draw(self.glyphs, Side::Below, Ink::Bad));
        }
        lines.extend(strips.into_iter().map(Strip::line));
        lines
    }

    /// The flags that are shown, as names at their columns. A name that is there twice in one column stands once.
    fn named(&self, flags: &[Flag]) -> Vec<Named> {
        let mut shown: BTreeMap<(usize, String), usize> = BTreeMap::new();
        for flag in flags.iter().filter(|flag| self.span.holds(flag.at)) {
            let name = self.glyphs.shortened(&flag.name, NAME.min(self.width / 2));
            *shown.entry((self.column(flag.at), name)).or_default() += 1;
        }
        shown.into_iter().map(|((column, name), things)| Named { column, name, things }).collect()
    }

    /// How many records came. Of what is only partly shown, nobody knows it exactly.
    fn records(&self, row: &Row, written: &[Amount]) -> Option<String> {
        let all = written.iter().fold(Amount::default(), |sum, amount| sum.plus(*amount));
        let whole = |w: &Written| self.span.holds(w.span.from) && self.span.holds(w.span.to);
        let about = if row.written.iter().all(|w| whole(w) || !w.span.meets(self.span)) { "" } else { "about " };
        (all.records > 0).then(|| format!("{about}{}", text::count(all.records, "record")))
    }

    /// Above the bar: where tags are, and the target.
    fn feet(&self, row: &Row) -> Option<Strip> {
        let tags: Vec<_> = row.tags.iter().filter(|tag| self.span.holds(tag.at)).collect();
        let target = row.target.filter(|at| self.span.holds(*at));
        if tags.is_empty() && target.is_none() {
            return None;
        }
        let mut feet = Strip::new(self.width);
        for tag in tags {
            feet.put(self.column(tag.at), self.glyphs.of(Glyph::Tag), Ink::Strong);
        }
        if let Some(column) = target.map(|at| self.column(at)) {
            feet.put(column, self.glyphs.of(Glyph::Target), Ink::Look);
            let (right, left) = (column + 2, column.checked_sub(TARGET.len() + 1));
            // With a cell between it and the next mark.
            if feet.is_free(column + 1..right + TARGET.len()) {
                feet.write(right, TARGET, Ink::Look);
            } else if let Some(left) = left.filter(|left| feet.is_free(*left..column)) {
                feet.write(left, TARGET, Ink::Look);
            }
        }
        Some(feet)
    }

    fn bar(&self, row: &Row) -> Strip {
        let mut bar = Strip::new(self.width);
        if let Some(at) = row.fork.and_then(|fork| fork.at).filter(|at| *at < row.life.from) {
            let apart = Span { from: at, to: row.life.from };
            self.stretch(&mut bar, apart, Glyph::Apart, Ink::Faint);
            if self.span.holds(at) {
                bar.put(self.column(at), self.glyphs.of(Glyph::Fork), Ink::Faint);
            }
        }
        self.stretch(&mut bar, row.life, Glyph::Lost, Ink::Faint);
        for window in &row.windows {
            self.stretch(&mut bar, *window, Glyph::Restorable, Ink::Good);
        }
        if let Some(replayed) = row.replayed {
            self.stretch(&mut bar, replayed, Glyph::Replayed, Ink::Look);
        }
        // The one of the plan above the others.
        for chosen in [false, true] {
            let (glyph, ink) = if chosen { (Glyph::Chosen, Ink::Look) } else { (Glyph::Base, Ink::Strong) };
            for base in row.bases.iter().filter(|base| base.chosen == chosen && self.span.holds(base.at)) {
                bar.put(self.column(base.at), self.glyphs.of(glyph), ink);
            }
        }
        bar
    }

    fn stretch(&self, bar: &mut Strip, stretch: Span, glyph: Glyph, ink: Ink) {
        if stretch.meets(self.span) {
            for column in self.column(stretch.from)..=self.column(stretch.to) {
                bar.put(column, self.glyphs.of(glyph), ink);
            }
        }
    }

    /// Whatever was written is seen: the lowest shade is not nothing.
    fn density(&self, written: &[Amount], peak: u64) -> Strip {
        let mut strip = Strip::new(self.width);
        let shades = self.glyphs.shades();
        for (column, amount) in written.iter().enumerate().filter(|(_, amount)| amount.bytes > 0) {
            let shade = (u128::from(amount.bytes) * (SHADES as u128 - 1)).div_ceil(u128::from(peak.max(1)));
            let shade = usize::try_from(shade).ok().and_then(|shade| shades.get(shade));
            strip.put(column, shade.copied().unwrap_or(' '), Ink::Plain);
        }
        strip
    }

    /// The axis, and the names of its round moments as far as there is room.
    fn axis(&self) -> [Strip; 2] {
        let (mut line, mut labels) = (Strip::new(self.width), Strip::new(self.width));
        line.write(0, &self.glyphs.of(Glyph::Axis).to_string().repeat(self.width), Ink::Faint);
        let most = u32::try_from(self.width / LABEL).unwrap_or(u32::MAX);
        for mark in self.axis.marks(most.max(2)) {
            let column = (mark.x as usize).min(self.width - 1);
            line.put(column, self.glyphs.of(Glyph::Mark), Ink::Faint);
            let length = mark.label.chars().count();
            let from = column.saturating_sub(length / 2).min(self.width.saturating_sub(length));
            if labels.is_free(from.saturating_sub(1)..(from + length + 1).min(self.width)) {
                labels.write(from, &mark.label, Ink::Faint);
            }
        }
        [line, labels]
    }

    /// What the characters mean that were drawn, and from when to when.
    fn legend(&self, rows: &[&Row], bars: &[Strip], peak: u64) -> Vec<Line> {
        let is =
            |drawn: bool, glyph, ink, words: &str| drawn.then(|| (ink, format!("{} {words}", self.glyphs.of(glyph))));
        let on_bar = |glyph, ink, words| is(bars.iter().any(|bar| bar.has(self.glyphs.of(glyph))), glyph, ink, words);
        let flags = |of: fn(&Row) -> &[Flag]| rows.iter().flat_map(|row| of(row)).any(|flag| self.span.holds(flag.at));
        let target = rows.iter().filter_map(|row| row.target).any(|at| self.span.holds(at));
        let shades = self.glyphs.shades();
        let some: String = [1, 4, 8].iter().filter_map(|shade| shades.get(*shade)).collect();
        let written = (Ink::Plain, format!("{some} written, {} a column at most", text::bytes(peak)));
        let (from, to) = (text::short_time(self.span.from), text::short_time(self.span.to));
        let phrases = [
            on_bar(Glyph::Restorable, Ink::Good, "can be restored"),
            on_bar(Glyph::Lost, Ink::Faint, "cannot"),
            on_bar(Glyph::Apart, Ink::Faint, "not yet begun"),
            on_bar(Glyph::Base, Ink::Strong, "base"),
            on_bar(Glyph::Chosen, Ink::Look, "the plan's base"),
            on_bar(Glyph::Replayed, Ink::Look, "replayed log"),
            is(target, Glyph::Target, Ink::Look, TARGET),
            is(flags(|row| &row.tags), Glyph::Tag, Ink::Strong, "tag"),
            is(flags(|row| &row.barriers), Glyph::Barrier, Ink::Bad, "barrier"),
            (peak > 0).then_some(written),
            Some((Ink::Faint, format!("{from} to {to}"))),
        ];
        wrapped(phrases.into_iter().flatten(), self.width, 0)
    }
}

fn counted(things: usize, noun: &str) -> Option<String> {
    (things > 0).then(|| text::count(things as u64, noun))
}

/// How many there are, and where those are found of which no name is drawn.
fn flags(names: &[Named], lanes: &Lanes, noun: &str) -> Option<String> {
    let things: usize = names.iter().map(|named| named.things).sum();
    let unnamed = things.saturating_sub(lanes.things());
    let all = counted(things, noun)?;
    Some(if unnamed == 0 { all } else { format!("{all} ({unnamed} without room: pitr list {noun}s)") })
}
