//! What an operator wants to be merged.
//!
//! Owns: the settings, their defaults and their limits.

use std::time::Duration;

use crate::retention::policy::YOUNG;

/// Parts are never deleted earlier after their merge: archivers that were stalled, and readers, rely on it.
pub const LEAST_GRACE: Duration = YOUNG;

/// Whether segments are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merging {
    /// In the background.
    On,
    /// Not. What was merged before stays merged, and its parts are deleted by `prune`.
    Off,
}

/// How segments are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether. Default: on.
    pub merging: Merging,
    /// What becomes one segment: calendar periods in UTC, shortest first. Default: a minute, an hour, a day.
    pub levels: Vec<Duration>,
    /// A merged segment is made of at most so many stored bytes. Default: 64 MiB.
    pub max_size: u64,
    /// Between the manifest that names a merged segment and the deletion of its parts; at least [`LEAST_GRACE`].
    /// Default: 24 hours.
    pub grace: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            merging: Merging::On,
            levels: vec![Duration::from_secs(60), Duration::from_secs(3600), Duration::from_secs(24 * 3600)],
            max_size: 64 << 20,
            grace: Duration::from_secs(24 * 3600),
        }
    }
}

impl Policy {
    /// The grace period that counts.
    pub fn effective_grace(&self) -> Duration {
        self.grace.max(LEAST_GRACE)
    }
}
