//! What a picture is drawn of: things and their times.
//!
//! Owns: the types. Refuses: where a thing is drawn.

use pitr_archive::{
    clock::Micros,
    ids::{BaseId, Boundary, TimelineId},
};

use super::density::Written;
use crate::output::tree::Node;

/// What is drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// From when to when.
    pub span: Span,
    /// One for each timeline, in order of their numbers.
    pub rows: Vec<Row>,
}

/// A stretch of time, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// When it begins.
    pub from: Micros,
    /// When it ends; not before.
    pub to: Micros,
}

impl Span {
    /// Whether a moment lies in it.
    pub const fn holds(self, at: Micros) -> bool {
        self.from.0 <= at.0 && at.0 <= self.to.0
    }

    /// Whether they share a moment.
    pub const fn meets(self, other: Self) -> bool {
        self.from.0 <= other.to.0 && other.from.0 <= self.to.0
    }

    /// In microseconds.
    pub fn length(self) -> u64 {
        u64::try_from(self.to.0.saturating_sub(self.from.0)).unwrap_or(0)
    }

    /// The least that holds both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.max(other.to) }
    }
}

impl From<Micros> for Span {
    fn from(at: Micros) -> Self {
        Self { from: at, to: at }
    }
}

/// A timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub timeline: TimelineId,
    /// It was written last.
    pub current: bool,
    /// Where it left another one.
    pub fork: Option<Fork>,
    /// From when to when it was archived.
    pub life: Span,
    /// What of that can be restored.
    pub windows: Vec<Span>,
    /// Its bases.
    pub bases: Vec<BaseMark>,
    /// Its tags.
    pub tags: Vec<Flag>,
    /// Its barriers, with their reasons.
    pub barriers: Vec<Flag>,
    /// What was written, as the catalog's entries tell it.
    pub written: Vec<Written>,
    /// What of its log a plan replays.
    pub replayed: Option<Span>,
    /// Where a plan arrives.
    pub target: Option<Micros>,
}

/// Where a timeline left its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The parent.
    pub parent: TimelineId,
    /// The boundary after the last record that both share.
    pub boundary: Boundary,
    /// When the parent had reached that, as nearly as can be told.
    pub at: Option<Micros>,
}

/// A base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseMark {
    /// Its name.
    pub id: BaseId,
    /// When it was begun.
    pub at: Micros,
    /// A plan begins with it.
    pub chosen: bool,
}

/// A place with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// When.
    pub at: Micros,
    /// What it is called.
    pub name: String,
}

impl Row {
    /// The time of everything on it.
    pub fn span(&self) -> Span {
        let windows = self.windows.iter().copied();
        let marks = self.bases.iter().map(|base| base.at).chain(self.target);
        let flags = self.tags.iter().chain(&self.barriers).map(|flag| flag.at);
        let written = self.written.iter().map(|w| w.span);
        let all = windows.chain(marks.chain(flags).map(Span::from)).chain(written).chain(self.replayed);
        all.fold(self.life, Span::with)
    }
}

impl Node for &Row {
    fn id(&self) -> TimelineId {
        self.timeline
    }

    fn left(&self) -> Option<(TimelineId, Boundary)> {
        self.fork.map(|fork| (fork.parent, fork.boundary))
    }
}
