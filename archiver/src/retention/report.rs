//! What a prune did, or would do.
//!
//! Owns: the values that people and programs are shown; field names are stable.

use chrono::{DateTime, Utc};
use pitr_archive::{
    catalog::windows::Window,
    ids::{Boundary, Ordinal, TimelineId},
};
use serde::Serialize;

use super::decide::{BaseDecision, Keep, TagDecision};

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Tally {
    /// Counts one object more.
    pub const fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { objects: self.objects + other.objects, bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// Objects by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tallies {
    /// Bases' documents.
    pub bases: Tally,
    /// Files of bases, and captured ones.
    pub files: Tally,
    /// Files among them that nothing names.
    pub unreferenced: Tally,
    /// Tags.
    pub tags: Tally,
    /// Segments.
    pub segments: Tally,
    /// Manifests.
    pub manifests: Tally,
    /// Old reports of drills.
    pub drills: Tally,
    /// Statements about deletion that later ones replace, expired holds, what tests of the store left.
    pub leftovers: Tally,
}

impl Tallies {
    /// All of them; the unreferenced files are among the files.
    pub fn total(&self) -> Tally {
        let others = [self.files, self.tags, self.segments, self.manifests, self.drills, self.leftovers];
        others.into_iter().fold(self.bases, Tally::plus)
    }
}

/// Segments that stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptSegmentsReport {
    /// The first.
    pub from: Ordinal,
    /// The last.
    pub to: Ordinal,
    /// Where they begin.
    pub first: Boundary,
    /// Where they end.
    pub end: Boundary,
    /// How many.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why.
    pub keep: Vec<Keep>,
}

/// A timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimelineReport {
    /// Its number.
    pub timeline: TimelineId,
    /// Segments that stay.
    pub kept: Vec<KeptSegmentsReport>,
    /// Segments that are no longer part of the archive from now on.
    pub dropped: Tally,
    /// What can be restored before.
    pub before: Vec<Window>,
    /// What can be restored after.
    pub after: Vec<Window>,
}

/// What a prune did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PruneReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// When it ran.
    pub at: DateTime<Utc>,
    /// The end of the guaranteed window; null while nothing was observed.
    pub window_to: Option<DateTime<Utc>>,
    /// Its beginning; null where it has none.
    pub window_from: Option<DateTime<Utc>>,
    /// The window in seconds, as it counts.
    pub window_seconds: u64,
    /// The policy asks for less than its own least: that was kept.
    pub window_widened: bool,
    /// Every base.
    pub bases: Vec<BaseDecision>,
    /// Every tag.
    pub tags: Vec<TagDecision>,
    /// Every timeline.
    pub timelines: Vec<TimelineReport>,
    /// What is no longer part of the archive from now on.
    pub condemned: Tallies,
    /// What was so for longer than the grace period and is deleted.
    pub deleted: Tallies,
    /// What is no longer part of the archive, and waits for the end of its grace period.
    pub waiting: Tally,
    /// When the next of that is due.
    pub due: Option<DateTime<Utc>>,
    /// Restores that hold what they read.
    pub holds: usize,
}
