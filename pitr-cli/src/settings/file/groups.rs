//! What is done for a group of databases as a whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{hooks::Command, values::Period};

/// A group of databases. Its databases name it as their `group`; without this section they are one all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Before its databases are tagged: makes the application hold its writes, so that the moment is exact. If it fails, there
    /// is no tag. The application should go on by itself after some seconds: a pitr that is killed meanwhile tells it nothing
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_tag: Option<Command>,
    /// As soon as they are tagged, and also where that, or before_tag, failed: the application goes on
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_tag: Option<Command>,
    /// A command that takes longer is ended, with its process group; default: 30s
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
}
