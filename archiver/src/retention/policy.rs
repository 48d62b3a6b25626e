//! What an operator wants to be kept.
//!
//! Owns: the rules, their defaults and their limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is younger is never deleted, whatever the policy says: an archiver that has not heard of the archive for a minute
/// makes sure that it does not write into the past, a tag that took longer to be written is withdrawn, and both rely on this.
pub const YOUNG: Duration = Duration::from_secs(10 * 60);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is kept. Periods are calendar periods in UTC; of each that has a base the newest one is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Every position of this time stays restorable. Default: 7 days.
    pub window: Duration,
    /// So many of the newest bases. Default: 3.
    pub last: u32,
    /// One base for each of so many hours. Default: 0.
    pub hourly: u32,
    /// One base for each of so many days. Default: 7.
    pub daily: u32,
    /// One base for each of so many weeks (ISO 8601). Default: 5.
    pub weekly: u32,
    /// One base for each of so many months. Default: 12.
    pub monthly: u32,
    /// One base for each of so many years. Default: 3.
    pub yearly: u32,
    /// The window is never shorter than this, unless that is forced. Default: 24 hours.
    pub keep_at_least: Duration,
    /// Between the statement that something is no longer part of the archive and its deletion; 10 minutes at least.
    /// Default: 24 hours.
    pub grace: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            window: DAY * 7,
            last: 3,
            hourly: 0,
            daily: 7,
            weekly: 5,
            monthly: 12,
            yearly: 3,
            keep_at_least: DAY,
            grace: DAY,
        }
    }
}

/// What to do about the limit below which a policy may not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// Keep at least [`Policy::keep_at_least`].
    Respected,
    /// The policy alone counts: somebody insists. What can be restored last is kept all the same.
    Ignored,
}

impl Policy {
    /// The window that counts.
    pub fn effective_window(&self, floor: Floor) -> Duration {
        let least = match floor {
            Floor::Respected => self.keep_at_least,
            Floor::Ignored => Duration::ZERO,
        };
        self.window.max(least).max(YOUNG)
    }
}
