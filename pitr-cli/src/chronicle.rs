//! What of an archive has a place in time: bases, tags, barriers, and the windows that can be restored.
//!
//! Owns: the cut of a catalog that is drawn, on the page of a service and in the terminal, and when a place in the log was
//! reached, as far as the catalog tells; [`axis`]: where on a line a moment lies. Takes catalogs of which most was not read
//! (`Outline`), too: an entry that stands for a manifest tells when its segments were seen, not what lies inside.
//! Pure. Refuses: reading, and drawing.

pub mod axis;

use pitr_archive::{
    catalog::{
        model::{Catalog, Timeline},
        schema::{BaseDocument, SegmentSummary, TagDocument},
        windows::windows,
    },
    clock::Micros,
    ids::{BaseId, Boundary, TimelineId},
    segment::entry::BarrierReason,
};

/// The cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chronicle {
    /// Every timeline, in order.
    pub timelines: Vec<TimelineId>,
    /// The one that was written last.
    pub current: Option<TimelineId>,
    /// In order of time.
    pub bases: Vec<Base>,
    /// In order of time.
    pub tags: Vec<Tag>,
    /// By timeline, in order of their places.
    pub barriers: Vec<Barrier>,
    /// By timeline, in order.
    pub windows: Vec<Window>,
}

/// A base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its name.
    pub id: BaseId,
    /// When it was begun.
    pub created: Micros,
    /// Where.
    pub timeline: TimelineId,
    /// From where on it serves.
    pub floor: Boundary,
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: Micros,
    /// Where.
    pub timeline: TimelineId,
    /// What it names.
    pub boundary: Boundary,
    /// A person's words.
    pub note: String,
}

/// A barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// When it was noticed.
    pub noticed: Micros,
    /// Where.
    pub timeline: TimelineId,
    /// Its place.
    pub boundary: Boundary,
    /// Why.
    pub reason: BarrierReason,
    /// What was seen.
    pub detail: String,
}

/// A stretch that can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Where.
    pub timeline: TimelineId,
    /// When its first base was begun.
    pub from: Micros,
    /// When its end had certainly been reached; `None` if nobody looked.
    pub to: Option<Micros>,
    /// It reaches to the end of the timeline that is written.
    pub open: bool,
}

impl Chronicle {
    /// Of a catalog.
    pub fn of(catalog: &Catalog) -> Self {
        let current = catalog.current_timeline().map(Timeline::id);
        let mut chronicle = Self {
            timelines: catalog.timelines().map(Timeline::id).collect(),
            current,
            bases: catalog.bases().iter().map(Base::from).collect(),
            tags: catalog.tags().iter().map(Tag::from).collect(),
            ..Self::default()
        };
        chronicle.bases.sort_by_key(|b| b.created);
        chronicle.tags.sort_by_key(|t| t.created);
        for timeline in catalog.timelines() {
            chronicle.add(timeline, catalog.bases());
        }
        chronicle
    }

    fn add(&mut self, timeline: &Timeline, bases: &[BaseDocument]) {
        let id = timeline.id();
        let bases: Vec<_> = bases.iter().filter(|base| base.floor.timeline == id).collect();
        let current = self.current == Some(id);
        self.windows.extend(windows(timeline, &bases).into_iter().map(|window| Window {
            timeline: id,
            from: window.since,
            to: seen(timeline, window.to),
            open: current && window.to == timeline.end(),
        }));
        self.barriers.extend(timeline.barriers().iter().map(|barrier| Barrier {
            noticed: barrier.noticed,
            timeline: id,
            boundary: barrier.interval.lo,
            reason: barrier.reason,
            detail: barrier.detail.clone(),
        }));
    }
}

impl From<&BaseDocument> for Base {
    fn from(base: &BaseDocument) -> Self {
        let (timeline, floor) = (base.floor.timeline, base.floor.boundary);
        Self { id: base.id.clone(), created: base.created, timeline, floor }
    }
}

impl From<&TagDocument> for Tag {
    fn from(tag: &TagDocument) -> Self {
        Self {
            name: tag.name.clone(),
            created: tag.created,
            timeline: tag.position.timeline,
            boundary: tag.position.boundary,
            note: tag.note.clone(),
        }
    }
}

/// When a boundary had certainly been reached; the end of the archive stays true as long as nothing more was readable.
pub fn seen(timeline: &Timeline, boundary: Boundary) -> Option<Micros> {
    if boundary == timeline.end() {
        return timeline.segments().iter().rev().find_map(last_look);
    }
    timeline.segments_touching(boundary, boundary).iter().find_map(|s| match &s.rolled_up {
        Some(rolled_up) => rolled_up.latest,
        None => s.observed.map(|(_, last)| last.at),
    })
}

/// When a boundary was reached, as nearly as can be told: inside an entry its records are taken to have come evenly.
pub fn reached(timeline: &Timeline, boundary: Boundary) -> Option<Micros> {
    timeline.segments_touching(boundary, boundary).iter().find_map(|entry| {
        let (from, to) = looks(entry)?;
        let records = entry.end.get().saturating_sub(entry.first.get());
        let before = boundary.get().saturating_sub(entry.first.get());
        let share = if records == 0 { 1.0 } else { before as f64 / records as f64 };
        Some(Micros(from.0.saturating_add((to.0.saturating_sub(from.0) as f64 * share) as i64)))
    })
}

/// Between which looks at the log an entry's records came. A clock that was set back between them is passed over.
pub fn looks(entry: &SegmentSummary) -> Option<(Micros, Micros)> {
    let (first, last) = match &entry.rolled_up {
        Some(rolled_up) => (rolled_up.earliest?, rolled_up.latest?),
        None => entry.observed.map(|(first, last)| (first.at, last.at))?,
    };
    Some((first.min(last), first.max(last)))
}

/// Until when an entry tells of the log.
pub fn last_look(entry: &SegmentSummary) -> Option<Micros> {
    match &entry.rolled_up {
        Some(rolled_up) => rolled_up.latest,
        None => entry.observed_through.max(entry.observed.map(|(_, last)| last.at)),
    }
}
