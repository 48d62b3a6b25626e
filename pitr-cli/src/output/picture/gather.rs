//! The facts of a picture, from a catalog.
//!
//! Owns: which time each thing has. Takes an outline's catalog: where an entry stands for a manifest, what its segments hold
//! came between the first and the last look of all of them. Refuses: reading.

use pitr_archive::{
    catalog::model::{Catalog, Timeline},
    clock::Micros,
    ids::TimelineId,
};

use super::{Amount, BaseMark, Flag, Fork, Row, Span, Written};
use crate::{
    chronicle::{Chronicle, last_look, looks, reached},
    output::text,
};

/// The timelines that are wanted, in order of their numbers.
pub fn rows(catalog: &Catalog, wanted: impl Fn(TimelineId) -> bool) -> Vec<Row> {
    let chronicle = Chronicle::of(catalog);
    catalog.timelines().filter(|timeline| wanted(timeline.id())).map(|t| row(catalog, &chronicle, t)).collect()
}

/// The time of everything on some rows; `None` of none.
pub fn span(rows: &[Row]) -> Option<Span> {
    rows.iter().map(Row::span).reduce(Span::with)
}

fn row(catalog: &Catalog, chronicle: &Chronicle, timeline: &Timeline) -> Row {
    let (id, document) = (timeline.id(), timeline.document());
    let here = |of: &TimelineId| *of == id;
    let windows = chronicle.windows.iter().filter(|window| here(&window.timeline));
    let windows: Vec<_> = windows
        .map(|window| Span { from: window.from, to: window.to.map_or(window.from, |to| to.max(window.from)) })
        .collect();
    let bases = chronicle.bases.iter().filter(|base| here(&base.timeline));
    let tags = chronicle.tags.iter().filter(|tag| here(&tag.timeline));
    let barriers = chronicle.barriers.iter().filter(|barrier| here(&barrier.timeline));
    let written = written(timeline);
    let fork = document.parent.map(|parent| Fork {
        parent: parent.timeline,
        boundary: parent.boundary,
        at: catalog.timeline(parent.timeline).and_then(|of| reached(of, parent.boundary)),
    });
    // What was deleted is not archived any more.
    let began = if timeline.deleted().is_some() { written.first().map(|w| w.span.from) } else { None };
    let began = began.unwrap_or(document.created);
    let last = timeline.segments().iter().rev().find_map(last_look);
    Row {
        timeline: id,
        current: chronicle.current == Some(id),
        fork,
        life: Span { from: began, to: last.map_or(began, |last| last.max(began)) },
        windows,
        bases: bases.map(|base| BaseMark { id: base.id.clone(), at: base.created, chosen: false }).collect(),
        tags: tags.map(|tag| Flag { at: tag.created, name: tag.name.clone() }).collect(),
        barriers: barriers.map(|b| Flag { at: b.noticed, name: text::name(b.reason) }).collect(),
        written,
        replayed: None,
        target: None,
    }
}

fn written(timeline: &Timeline) -> Vec<Written> {
    // Of an entry that nobody looked at: it came behind the one before.
    let mut before = timeline.document().created;
    let mut written = Vec::new();
    for entry in timeline.segments() {
        let span = looks(entry).map_or(Span::from(before), |(from, to)| Span { from, to });
        before = last_look(entry).map_or(before, |last: Micros| last.max(before));
        let records = entry.end.get().saturating_sub(entry.first.get());
        if records > 0 {
            written.push(Written { span, amount: Amount { records, bytes: entry.plain_bytes } });
        }
    }
    written
}
