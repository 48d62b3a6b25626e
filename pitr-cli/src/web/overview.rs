//! What can be restored, in short, as a service keeps it.
//!
//! Owns: the cut of the catalog that metrics and page need, which stays small where the catalog itself is not kept; and when a
//! new look at the catalog is worth its requests. Pure.

use std::time::Duration;

use pitr_archive::{
    catalog::{load::Survey, model::Timeline},
    clock::Micros,
};
use pitr_archiver::metrics::Counts;

use super::board::ago;
use crate::chronicle::{Chronicle, Window};

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
    /// Bases, tags, barriers and windows.
    pub chronicle: Chronicle,
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

impl Overview {
    /// Of a catalog that was read at `at` in `took`, by somebody who had asked the archiver before.
    pub fn of(survey: &Survey, at: Micros, took: Duration, known: Known) -> Self {
        let catalog = &survey.catalog;
        let segments = || catalog.timelines().flat_map(Timeline::segments);
        Self {
            at,
            took,
            known,
            findings: survey.findings.len(),
            chronicle: Chronicle::of(catalog),
            segments: segments().count(),
            bytes: segments().map(|s| s.object_bytes).sum(),
        }
    }

    /// The stretch that ends with what is written now.
    pub fn open_window(&self) -> Option<Window> {
        self.chronicle.windows.iter().rev().find(|window| window.open).copied()
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
