//! What is done by the clock.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::schedule::Cron;

/// When something is done by the clock: cron expressions, in UTC, of five fields (minute, hour, day of month, month, day of
/// week), six with seconds before them, or @daily and the like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Take a base
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Cron>,
    /// Read and check the whole archive, as pitr verify does
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Cron>,
    /// Restore something into a scratch directory, as pitr drill does; `drill` says what, and how it is checked
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<Cron>,
    /// Delete what `retention` does not keep; default, where there is a `retention`: @daily
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<Cron>,
}

impl Schedule {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This, and where it says nothing, `other`.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            base: self.base.clone().or_else(|| other.base.clone()),
            verify: self.verify.clone().or_else(|| other.verify.clone()),
            drill: self.drill.clone().or_else(|| other.drill.clone()),
            prune: self.prune.clone().or_else(|| other.prune.clone()),
        }
    }
}
