//! `[merge]`: how small segments become large ones.
//!
//! Owns: its keys, and the policy that they mean. Refuses: levels that are not ascending, a grace period below the least.

use pitr_archive::{Code, Error, Result};
use pitr_archiver::merge::{Merging, Policy, policy::LEAST_GRACE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file::{Period, Size};

/// Segments of seconds become segments of minutes, hours and days in the background, without losing one target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// false: they stay as they are. Default: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Calendar periods, in UTC, of which each becomes one segment, shortest first. Default: ["1m", "1h", "1d"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<Vec<Period>>,
    /// No segment is made of more stored bytes, 64KiB at least; as much memory is used while it is made. Default: 64MiB
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Size>,
    /// What was merged is deleted so much later, unless a restore holds it; 10m at least. Default: 1d
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Period>,
}

/// A segment that is larger than this is not small.
const LEAST_SIZE: u64 = 64 << 10;

impl Merge {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This, and where it says nothing, `other`.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            enabled: self.enabled.or(other.enabled),
            levels: self.levels.clone().or_else(|| other.levels.clone()),
            max_size: self.max_size.or(other.max_size),
            grace: self.grace.or(other.grace),
        }
    }

    /// The policy that it means, of the database of this name.
    ///
    /// # Errors
    /// `config.contradictory`.
    pub fn policy(&self, database: &str) -> Result<Policy> {
        let default = Policy::default();
        let policy = Policy {
            merging: match self.enabled {
                Some(false) => Merging::Off,
                Some(true) | None => default.merging,
            },
            levels: self.levels.as_ref().map_or(default.levels, |levels| levels.iter().map(|level| level.0).collect()),
            max_size: self.max_size.map_or(default.max_size, |v| v.0),
            grace: self.grace.map_or(default.grace, |v| v.0),
        };
        let refused = |key: &'static str, why: &str| {
            Err(Error::new(Code::ConfigContradictory, "reading")
                .on(format_args!("databases.{database}.merge"))
                .with(key, why))
        };
        if policy.levels.is_empty() || !policy.levels.is_sorted_by(|a, b| a < b) {
            return refused("levels", "must be given, the shortest first");
        }
        if policy.max_size < LEAST_SIZE {
            return refused("max_size", "is below 64KiB");
        }
        if policy.grace < LEAST_GRACE {
            return refused("grace", "is below 10m");
        }
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_its_default_and_what_cannot_be_is_refused() {
        let read = |text: &str| toml::from_str::<Merge>(text).unwrap();
        assert_eq!(read("").policy("a").unwrap(), Policy::default());
        let own = read("levels = [\"10s\", \"5m\"]").or(&read("enabled = false\nlevels = [\"1h\"]\ngrace = \"2h\""));
        let policy = own.policy("a").unwrap();
        assert_eq!(policy.merging, Merging::Off);
        assert_eq!(policy.levels.iter().map(|level| level.as_secs()).collect::<Vec<_>>(), [10, 300]);
        assert_eq!((policy.grace.as_secs(), policy.max_size), (7200, 64 << 20));
        for text in [
            "levels = []",
            "levels = [\"1h\", \"1m\"]",
            "levels = [\"1m\", \"1m\"]",
            "max_size = \"1KiB\"",
            "grace = \"9m\"",
        ] {
            let e = read(text).policy("a").unwrap_err();
            assert!(e.code() == Code::ConfigContradictory && e.to_string().contains("databases.a.merge"), "{e}");
        }
    }
}
