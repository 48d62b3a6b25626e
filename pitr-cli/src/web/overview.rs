//! What can be restored, in short: bases, tags, barriers and windows of an archive.
//!
//! Owns: the cut of the catalog that metrics and page need, which stays small where the catalog itself is not kept; and when a
//! new look at the catalog is worth its requests. Pure.

use std::time::Duration;

use pitr_archive::{
    catalog::{load::Survey, model::Timeline},
    clock::Micros,
    ids::{BaseId, Boundary, TimelineId},
    segment::entry::BarrierReason,
};
use pitr_archiver::metrics::Counts;

use super::board::ago;
use crate::cmd::status::{seen, windows::windows};

/// Even when the archiver tells of nothing new: others delete tags and prune.
const AT_LEAST: Duration = Duration::from_secs(6 * 3600);
/// How many times as long as a look took nobody looks again.
const REST: u32 = 100;
/// Between two looks at a store that counts requests on a bill.
const REMOTE: Duration = Duration::from_secs(300);
/// Between two looks at a directory.
const LOCAL: Duration = Duration::from_secs(2);

/// The cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// When the catalog was read.
    pub at: Micros,
    /// How long that took.
    pub took: Duration,
    /// What the archiver had counted before.
    pub known: Known,
    /// How much is wrong with the catalog: `pitr verify` tells what.
    pub findings: usize,
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
    /// Segments of all timelines.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// What the archiver had done when the catalog was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    bases: u64,
    tags: u64,
    barriers: u64,
}

impl From<&Counts> for Known {
    fn from(counts: &Counts) -> Self {
        Self { bases: counts.bases, tags: counts.tags, barriers: counts.barriers.values().sum() }
    }
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

impl Overview {
    /// Of a catalog that was read at `at` in `took`, by somebody who had asked the archiver before.
    pub fn of(survey: &Survey, at: Micros, took: Duration, known: Known) -> Self {
        let catalog = &survey.catalog;
        let current = catalog.current_timeline().map(Timeline::id);
        let mut overview = Self {
            at,
            took,
            known,
            findings: survey.findings.len(),
            timelines: catalog.timelines().map(Timeline::id).collect(),
            current,
            bases: Vec::new(),
            tags: Vec::new(),
            barriers: Vec::new(),
            windows: Vec::new(),
            segments: 0,
            bytes: 0,
        };
        for timeline in catalog.timelines() {
            overview.add(timeline, current, catalog.bases());
        }
        let base = |b: &pitr_archive::catalog::schema::BaseDocument| Base {
            id: b.id.clone(),
            created: b.created,
            timeline: b.floor.timeline,
            floor: b.floor.boundary,
        };
        overview.bases = catalog.bases().iter().map(base).collect();
        overview.bases.sort_by_key(|b| b.created);
        let tag = |t: &pitr_archive::catalog::schema::TagDocument| Tag {
            name: t.name.clone(),
            created: t.created,
            timeline: t.position.timeline,
            boundary: t.position.boundary,
            note: t.note.clone(),
        };
        overview.tags = catalog.tags().iter().map(tag).collect();
        overview.tags.sort_by_key(|t| t.created);
        overview
    }

    fn add(
        &mut self,
        timeline: &Timeline,
        current: Option<TimelineId>,
        bases: &[pitr_archive::catalog::schema::BaseDocument],
    ) {
        let id = timeline.id();
        let bases: Vec<_> = bases.iter().filter(|base| base.floor.timeline == id).collect();
        self.windows.extend(windows(timeline, &bases).into_iter().map(|window| Window {
            timeline: id,
            from: window.since,
            to: seen(timeline, window.to),
            open: current == Some(id) && window.to == timeline.end(),
        }));
        self.barriers.extend(timeline.barriers().iter().map(|barrier| Barrier {
            noticed: barrier.noticed,
            timeline: id,
            boundary: barrier.interval.lo,
            reason: barrier.reason,
            detail: barrier.detail.clone(),
        }));
        self.segments += timeline.segments().len();
        self.bytes += timeline.segments().iter().map(|s| s.object_bytes).sum::<u64>();
    }

    /// The stretch that ends with what is written now.
    pub fn open_window(&self) -> Option<Window> {
        self.windows.iter().rev().find(|window| window.open).copied()
    }

    /// Whether the archiver has met no barrier since.
    pub fn knows_all_barriers(&self, counts: &Counts) -> bool {
        Known::from(counts).barriers == self.known.barriers
    }

    /// Whether what is written now can certainly not be restored: the catalog tells of no base behind the last barrier, and the
    /// archiver has published none since.
    pub fn ends_in_a_gap(&self, counts: &Counts) -> bool {
        self.open_window().is_none() && Known::from(counts) == self.known
    }

    /// Whether to read the catalog again: something happened that it does not show, and nobody has read it for so long that
    /// reading costs little beside everything else; or nobody has read it for hours.
    pub fn is_due(&self, now: Micros, counts: &Counts, place: StorePlace) -> bool {
        let since = ago(self.at, now);
        // A clock that went back must not hold it up.
        let rested = self.at > now || since >= self.took.saturating_mul(REST).max(place.spacing());
        let news = Known::from(counts) != self.known;
        rested && (news || self.at > now || since >= AT_LEAST)
    }
}

/// Where the objects lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// In a directory of this machine.
    Local,
    /// In a service.
    Remote,
}

impl StorePlace {
    /// The least time between two looks.
    pub const fn spacing(self) -> Duration {
        match self {
            Self::Local => LOCAL,
            Self::Remote => REMOTE,
        }
    }
}
