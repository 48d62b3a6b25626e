//! What a process may use of its machine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Nice, Speed, Threads};

/// What a process may use of its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes a second that are sent to the archives: segments first, bases get what is left; default: no limit
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_rate: Option<Speed>,
    /// Bytes a second that are read for bases, and from the log while the archiver is behind; default: no limit
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_rate: Option<Speed>,
    /// Added to the process's nice value, 0 to 19: others go first; default: 10
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nice: Option<Nice>,
    /// Threads that send to stores, 1 to 64; one more than that read files. Default: 2, and as many as it takes
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<Threads>,
}

impl Limits {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
