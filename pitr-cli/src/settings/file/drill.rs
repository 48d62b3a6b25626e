//! Drills that are done by the clock.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{hooks::Command, values::Period};

/// What a scheduled drill restores, and how that is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drill {
    /// Where a directory for the restored database is made and removed again; default: the system's temporary directory
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<PathBuf>,
    /// Your own check: a program and its arguments, no shell. In its environment: PITR_DRILL_DB (the directory of the restored
    /// database, which it may change), PITR_DRILL_RECORD, PITR_DRILL_SEQUENCE, PITR_DRILL_TIME. Exit code 0 accepts it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Command>,
    /// A check that takes longer is ended, with its process group; default: 1h
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// What is restored; default: random
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<DrillTarget>,
}

/// What a scheduled drill restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DrillTarget {
    /// Any record that can be restored
    Random,
    /// The end of the archive
    Latest,
}

impl Drill {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This, and where it says nothing, `other`.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            scratch: self.scratch.clone().or_else(|| other.scratch.clone()),
            check: self.check.clone().or_else(|| other.check.clone()),
            timeout: self.timeout.or(other.timeout),
            target: self.target.or(other.target),
        }
    }
}
