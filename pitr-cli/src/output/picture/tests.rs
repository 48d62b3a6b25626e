//! What holds for every picture, whatever its facts, and two pictures as they look.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use pitr_archive::ids::{BaseId, Boundary, TimelineId};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;

fn start() -> Micros {
    "2026-11-20T15:50:00Z".parse::<DateTime<Utc>>().unwrap().into()
}

fn after(seconds: f64) -> Micros {
    Micros(start().0 + (seconds * SECOND as f64) as i64)
}

fn span(from: f64, to: f64) -> Span {
    Span { from: after(from), to: after(to) }
}

fn base(at: f64) -> BaseMark {
    let id = BaseId::new(after(at).to_datetime(), 0xd017_9ea7);
    BaseMark { id, at: after(at), chosen: false }
}

fn flag(at: f64, name: &str) -> Flag {
    Flag { at: after(at), name: name.to_owned() }
}

fn empty(timeline: u32, life: Span) -> Row {
    Row {
        timeline: TimelineId::new(timeline),
        current: false,
        fork: None,
        life,
        windows: Vec::new(),
        bases: Vec::new(),
        tags: Vec::new(),
        barriers: Vec::new(),
        written: Vec::new(),
        replayed: None,
        target: None,
    }
}

fn steady(from: f64, to: f64, step: f64, bytes: impl Fn(usize) -> u64) -> Vec<Written> {
    let count = ((to - from) / step) as usize;
    let one = |n: usize| Written {
        span: span(from + n as f64 * step, from + (n + 1) as f64 * step),
        amount: Amount { records: bytes(n) / 100, bytes: bytes(n) },
    };
    (0..count).map(one).collect()
}

/// Two hours with a restore in the midst.
fn forked() -> Picture {
    let minutes = |n: f64| n * 60.0;
    let first = Row {
        windows: vec![span(minutes(3.0), minutes(46.0)), span(minutes(47.0), minutes(70.0))],
        bases: [3.0, 33.0, 47.0].map(|at| base(minutes(at))).to_vec(),
        tags: vec![
            flag(minutes(14.0), "first-import"),
            flag(minutes(29.0), "before-migration"),
            flag(minutes(32.0), "migrated"),
            flag(minutes(69.0), "nightly-2026-11-20"),
        ],
        barriers: vec![flag(minutes(46.0), "records-missing")],
        written: steady(minutes(1.0), minutes(69.0), 30.0, |n| [900, 300, 200, 1800, 4000][n / 7 % 5]),
        ..empty(1, span(0.0, minutes(70.0)))
    };
    let fork = Fork { parent: TimelineId::FIRST, boundary: Boundary::new(4718), at: Some(after(minutes(29.0))) };
    let second = Row {
        current: true,
        fork: Some(fork),
        windows: vec![span(minutes(84.0), minutes(120.0))],
        bases: vec![base(minutes(84.0))],
        written: steady(minutes(83.0), minutes(119.0), 60.0, |n| 2_000 * (1 + n as u64 % 2)),
        ..empty(2, span(minutes(83.0), minutes(120.0)))
    };
    let rows = vec![first, second];
    Picture { span: gather::span(&rows).unwrap(), rows }
}

fn text_of(picture: &Picture, width: usize, glyphs: Glyphs) -> String {
    draw(picture, Style { width, glyphs }).iter().map(|line| line.plain() + "\n").collect()
}

#[test]
fn a_history_that_forked() {
    let expected = "\
timeline 1  3 bases  4 tags  1 barrier  1856 records
         ┌first-import
         │         ┌before-migration
         │         │ ┌migrated                ┌nightly-2026-11-20
         ▾         ▾ ▾                        ▾
··◆━━━━━━━━━━━━━━━━━━━◆━━━━━━━━◆━━━━━━━━━━━━━━━
▁▂▂▁▁▁▁▂▄▄██▄▂▂▁▁▁▁▃▄▆██▂▂▁▁▁▁▁▄▄▇█▆▂▂▁▁▁▁▂▄▄█
                              ╳
                              └records-missing
└─ timeline 2 *  left 1 after record 4717  1 base  1080 records
                   └┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄·◆━━━━━━━━━━━━━━━━━━━━━━━
                                                       ▂▄▄▃▃▄▄▃▃▄▄▃▃▄▄▃▃▄▄▃▃▄▄▃▂
──────┬───────────────────┬───────────────────┬───────────────────┬─────────────
    16:00               16:30               17:00               17:30
━ can be restored  · cannot  ┄ not yet begun  ◆ base  ▾ tag  ╳ barrier
▁▄█ written, 11.7 KiB a column at most
2026-11-20T15:50:00Z to 2026-11-20T17:50:00Z
";
    let drawn = text_of(&forked(), 80, Glyphs::Unicode);
    assert_eq!(drawn, expected, "{drawn}");
}

#[test]
fn the_same_where_there_is_only_ascii() {
    let expected = "\
timeline 1  3 bases  4 tags  1 barrier  1856 records
       |first-import
       |      |before-migration
       |      | |migrated         |nightly-2026-11-20
       v      v v                 v
.o==============o======o============
.:...:~*#~:...:~%#::...-~#%::...~+~
                       X
                       |records-missing
`- timeline 2 *  left 1 after record 4717  1 base
     1080 records
              `--------------------------.o=================
                                         .-----------------:
-----+--------------+--------------+--------------+---------
   16:00          16:30          17:00          17:30
= can be restored  . cannot  - not yet begun  o base  v tag
X barrier  .~# written, 15.6 KiB a column at most
2026-11-20T15:50:00Z to 2026-11-20T17:50:00Z
";
    let drawn = text_of(&forked(), 60, Glyphs::Ascii);
    assert_eq!(drawn, expected, "{drawn}");
}

#[test]
fn a_plan_has_its_base_its_log_and_its_target() {
    let mut picture = forked();
    picture.rows.truncate(1);
    let row = &mut picture.rows[0];
    row.tags.clear();
    row.bases[1].chosen = true;
    row.replayed = Some(span(1980.0, 2400.0));
    row.target = Some(after(2400.0));
    picture.span = span(1560.0, 2820.0);
    let expected = "\
timeline 1  2 bases  1 barrier  about 534 records
                                                     ▼ target
━━━━━━━━━━━━━━━━━━━━━━━━━━◉███████████████████████████━━━━━━━━━━━━━━━━━━━━━━━··◆
▁▁▁▁▁▁▁▁▁▁▁▃▄▄▄▄▄▄▄▄▄▄▄▄▅█████████████▃▂▂▂▂▂▂▂▂▂▂▂▂▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▄▄
                                                                            ╳
                                                             records-missing┘
───────────────┬──────────────────┬──────────────────┬──────────────────┬───────
             16:20              16:25              16:30              16:35
━ can be restored  · cannot  ◆ base  ◉ the plan's base  █ replayed log  ▼ target
╳ barrier  ▁▄█ written, 2.1 KiB a column at most
2026-11-20T16:16:00Z to 2026-11-20T16:37:00Z
";
    let drawn = text_of(&picture, 80, Glyphs::Unicode);
    assert_eq!(drawn, expected, "{drawn}");
}

#[test]
fn nothing_is_said_to_be_nothing() {
    assert_eq!(text_of(&Picture::default(), 80, Glyphs::Unicode), "nothing yet\n");
}

fn random_name(rng: &mut StdRng) -> String {
    let length = rng.random_range(1..40);
    (0..length).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect()
}

fn random_span(rng: &mut StdRng, within: Span) -> Span {
    let at = |rng: &mut StdRng| Micros(rng.random_range(within.from.0..=within.to.0));
    let (one, other) = (at(rng), at(rng));
    Span { from: one.min(other), to: one.max(other) }
}

fn random_row(rng: &mut StdRng, timeline: u32, all: Span) -> Row {
    let many = |rng: &mut StdRng, most: usize| rng.random_range(0..=most);
    let flags = |rng: &mut StdRng, most: usize| -> Vec<Flag> {
        let one = |rng: &mut StdRng| Flag { at: random_span(rng, all).from, name: random_name(rng) };
        (0..many(rng, most)).map(|_| one(rng)).collect()
    };
    let fork = (timeline > 1 && rng.random_bool(0.8)).then(|| Fork {
        parent: TimelineId::new(rng.random_range(1..timeline)),
        boundary: Boundary::new(rng.random_range(0..1000)),
        at: rng.random_bool(0.7).then(|| random_span(rng, all).from),
    });
    let windows = (0..many(rng, 4)).map(|_| random_span(rng, all)).collect();
    let bases = (0..many(rng, 30)).map(|_| base((random_span(rng, all).from.0 - start().0) as f64 / 1e6)).collect();
    let amount = |rng: &mut StdRng| Amount { records: rng.random_range(1..1000), bytes: rng.random_range(1..1 << 30) };
    let written = (0..many(rng, 50)).map(|_| Written { span: random_span(rng, all), amount: amount(rng) }).collect();
    Row {
        current: rng.random_bool(0.2),
        fork,
        windows,
        bases,
        tags: flags(rng, 60),
        barriers: flags(rng, 12),
        written,
        replayed: rng.random_bool(0.3).then(|| random_span(rng, all)),
        target: rng.random_bool(0.3).then(|| random_span(rng, all).to),
        ..empty(timeline, random_span(rng, all))
    }
}

/// Anything; sometimes only a part of it is drawn.
fn random_picture(rng: &mut StdRng) -> Picture {
    let length = 10_i64.pow(rng.random_range(0..9)) * SECOND / 10;
    let all = Span { from: start(), to: Micros(start().0 + length) };
    let rows: Vec<_> = (1..=rng.random_range(1..8)).map(|timeline| random_row(rng, timeline, all)).collect();
    let span = if rng.random_bool(0.3) { random_span(rng, all) } else { all };
    Picture { span, rows }
}

fn pictures(mut check: impl FnMut(u64, &Picture, usize, Glyphs)) {
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let picture = random_picture(&mut rng);
        let glyphs = if rng.random_bool(0.5) { Glyphs::Unicode } else { Glyphs::Ascii };
        check(seed, &picture, rng.random_range(20..=200), glyphs);
    }
    let mut rng = StdRng::seed_from_u64(400);
    let picture = random_picture(&mut rng);
    for width in 20..=200 {
        check(400, &picture, width, Glyphs::Unicode);
    }
}

#[test]
fn no_line_is_wider_than_it_may_be_or_ends_in_blanks() {
    pictures(|seed, picture, width, glyphs| {
        for line in text_of(picture, width, glyphs).lines() {
            assert!(line.chars().count() <= width, "seed {seed}, {width} columns: {line:?}");
            assert_eq!(line, line.trim_end(), "seed {seed}, {width} columns");
            assert!(glyphs == Glyphs::Unicode || line.is_ascii(), "seed {seed}: {line:?}");
        }
    });
}

/// The lines of one timeline's group: all words of its title as one text, and the rows below it.
fn groups(lines: &[Line]) -> Vec<(String, Vec<&Line>)> {
    let is_title =
        |line: &Line| line.0.first().is_some_and(|(ink, text)| *ink == Ink::Strong && text.contains("timeline"));
    let mut groups: Vec<(String, Vec<&Line>)> = Vec::new();
    for line in lines {
        match groups.last_mut() {
            _ if is_title(line) => groups.push((line.plain(), Vec::new())),
            Some((_, rows)) => rows.push(line),
            None => {}
        }
    }
    groups
}

#[test]
fn everything_in_the_time_that_is_drawn_is_marked_and_counted() {
    pictures(|seed, picture, width, glyphs| {
        let sheet_width = width.max(NARROWEST);
        let to = picture.span.to.max(Micros(picture.span.from.0 + SHORTEST));
        let shown = Span { from: picture.span.from, to };
        let axis = Axis::new(shown.from, shown.to, 0.0, sheet_width as f64);
        let column = |at: Micros| (axis.x(at) as usize).min(sheet_width - 1);
        let sheet = Sheet { span: shown, axis, width: sheet_width, glyphs };
        for row in picture.rows.iter().filter(|row| row.span().meets(shown)) {
            let written = density::columns(&row.written, shown, sheet_width);
            let peak = written.iter().map(|amount| amount.bytes).max().unwrap_or(0);
            let lines = sheet.row("", row, sheet.bar(row), &written, peak);
            let columns = |all: Vec<Micros>| -> BTreeSet<usize> {
                all.into_iter().filter(|at| shown.holds(*at)).map(column).collect()
            };
            let bases = columns(row.bases.iter().map(|b| b.at).collect());
            let tags = columns(row.tags.iter().map(|t| t.at).collect());
            let barriers = columns(row.barriers.iter().map(|b| b.at).collect());
            let target = columns(row.target.into_iter().collect());
            let marks = |glyph: Glyph| -> Vec<BTreeSet<usize>> {
                let mark = glyphs.of(glyph);
                let at = |line: &Line| {
                    line.plain().chars().enumerate().filter(|(_, c)| *c == mark).map(|(i, _)| i).collect()
                };
                lines.iter().map(at).collect()
            };
            assert!(bases.is_empty() || marks(Glyph::Base).contains(&bases), "seed {seed}: bases");
            assert!(barriers.is_empty() || marks(Glyph::Barrier).contains(&barriers), "seed {seed}: barriers");
            let covered: BTreeSet<usize> = tags.difference(&target).copied().collect();
            assert!(
                covered.is_empty() || marks(Glyph::Tag).iter().any(|at| at.is_superset(&covered)),
                "seed {seed}: tags"
            );
            assert!(target.is_empty() || marks(Glyph::Target).contains(&target), "seed {seed}: target");

            // What the title says adds up.
            let words = lines.iter().map(Line::plain).collect::<Vec<_>>().join(" ");
            let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
            let inside = |flags: &[Flag]| flags.iter().filter(|flag| shown.holds(flag.at)).count();
            for (count, noun) in [(inside(&row.tags), "tag"), (inside(&row.barriers), "barrier")] {
                assert!(
                    count == 0 || words.contains(&text::count(count as u64, noun)),
                    "seed {seed}: {count} {noun}: {words}"
                );
            }
        }
    });
}

#[test]
fn names_and_poles_never_cover_one_another() {
    for seed in 0..2_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (width, most) = (rng.random_range(20..=200), rng.random_range(1..6));
        let names: Vec<_> = (0..rng.random_range(0..40))
            .map(|_| Named { column: rng.random_range(0..width), name: random_name(&mut rng), things: 1 })
            .collect();
        let lanes = Lanes::of(&names, width, most);
        let side = if rng.random_bool(0.5) { Side::Above } else { Side::Below };
        let mut drawn: Vec<String> =
            lanes.draw(Glyphs::Unicode, side, Ink::Strong).into_iter().map(|strip| strip.line().plain()).collect();
        assert!(drawn.len() <= most, "seed {seed}");
        if side == Side::Above {
            drawn.reverse();
        }
        // Every name that has a place is there in full, and a pole leads from it to the bar.
        let mut found = 0;
        for (lane, line) in drawn.iter().enumerate() {
            let line: Vec<char> = line.chars().collect();
            for (column, corner) in
                line.iter().enumerate().filter(|(_, c)| !c.is_ascii_alphabetic() && **c != ' ' && **c != '│')
            {
                let text: String = match corner {
                    '┌' | '└' | '├' => {
                        line[column + 1..].iter().take_while(|c| c.is_ascii_alphabetic()).collect()
                    }
                    _ => {
                        let before: Vec<char> =
                            line[..column].iter().rev().take_while(|c| c.is_ascii_alphabetic()).copied().collect();
                        before.into_iter().rev().collect()
                    }
                };
                assert!(
                    names.iter().any(|n| n.column == column && n.name == text),
                    "seed {seed}: {text:?} in {drawn:#?}"
                );
                for below in &drawn[..lane] {
                    let at = below.chars().nth(column).unwrap_or(' ');
                    assert!("│├┤".contains(at), "seed {seed}: no pole at {column} in {drawn:#?}");
                }
                found += 1;
            }
        }
        assert_eq!(found, lanes.things(), "seed {seed}: {drawn:#?}");
    }
}

#[test]
fn a_child_stands_below_its_parent_and_what_lies_elsewhere_in_time_is_counted() {
    let mut picture = forked();
    let lines = draw(&picture, Style { width: 80, glyphs: Glyphs::Unicode });
    let titles: Vec<_> = groups(&lines).into_iter().map(|(title, _)| title).collect();
    assert!(titles[0].starts_with("timeline 1  ") && titles[1].starts_with("└─ timeline 2 *  "), "{titles:?}");
    picture.span = Span { from: Micros(start().0 + 90 * 60 * SECOND), to: Micros(start().0 + 2 * HOUR) };
    let drawn = text_of(&picture, 80, Glyphs::Unicode);
    assert!(drawn.contains("1 timeline has nothing here: pitr list timelines"), "{drawn}");
    assert!(drawn.starts_with("timeline 2 *"), "{drawn}");
}
