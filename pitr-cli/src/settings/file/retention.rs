//! What is kept of an archive.

use pitr_archiver::retention::Policy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Pause, Period};

/// What is kept of an archive. What is not named has the default that `pitr prune --help` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Every position of this time stays restorable
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Pause>,
    /// So many of the newest bases
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// One base for each of so many hours
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hourly: Option<u32>,
    /// One base for each of so many days
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// One base for each of so many weeks
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// One base for each of so many months
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
    /// One base for each of so many years
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yearly: Option<u32>,
    /// The window is never shorter than this
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_at_least: Option<Pause>,
    /// What is no longer part of the archive is deleted so much later; 10m at least
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Period>,
}

impl Retention {
    /// The policy that it means.
    pub fn policy(&self) -> Policy {
        let default = Policy::default();
        Policy {
            window: self.window.map_or(default.window, |p| p.0),
            last: self.last.unwrap_or(default.last),
            hourly: self.hourly.unwrap_or(default.hourly),
            daily: self.daily.unwrap_or(default.daily),
            weekly: self.weekly.unwrap_or(default.weekly),
            monthly: self.monthly.unwrap_or(default.monthly),
            yearly: self.yearly.unwrap_or(default.yearly),
            keep_at_least: self.keep_at_least.map_or(default.keep_at_least, |p| p.0),
            grace: self.grace.map_or(default.grace, |p| p.0),
        }
    }
}
