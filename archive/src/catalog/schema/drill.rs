//! What is stored about a drill: a restore for no other reason than to see that it works, and how long it takes.

use serde::{Deserialize, Serialize};

use super::{Extra, Position};
use crate::{
    clock::Micros,
    ids::{ArchiveId, BaseId, ContentHash, Nonce, SequenceNumber},
};

/// The report of a drill. Nothing depends on it; times are in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillDocument {
    /// Version of this document.
    pub version: u32,
    /// The archive.
    pub archive: ArchiveId,
    /// Its name: time and random.
    pub id: BaseId,
    /// What was to be restored.
    pub target: DrillTarget,
    /// Where it was done: rates measured elsewhere say little here.
    pub place: DrillPlace,
    /// What was planned; absent where no plan could be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<DrillPlan>,
    /// How old the newest position was that could be restored then: what a loss of the database would have cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_risk_micros: Option<u64>,
    /// How long it was expected to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<DrillEstimate>,
    /// How long its parts took, as far as it came.
    #[serde(default)]
    pub took: DrillTimes,
    /// What was checked, as far as it came.
    #[serde(default)]
    pub checked: DrillChecks,
    /// What came of it.
    pub verdict: DrillVerdict,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<DrillFailure>,
    /// When it began.
    pub created: Micros,
    /// When it ended.
    pub ended: Micros,
    /// The writer's nonce.
    pub nonce: Nonce,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

impl DrillDocument {
    /// From the beginning of planning to a database that can be read. Where it could not be opened, what its server needs for
    /// recovering the log is missing in it. Absent where the drill did not come so far.
    pub fn restore_micros(&self) -> Option<u64> {
        let DrillTimes { planning, laying_down, opening, .. } = self.took;
        Some(planning?.saturating_add(laying_down?).saturating_add(opening.unwrap_or(0)))
    }

    /// The restored database is what was archived, as far as that could be told.
    pub fn went_well(&self) -> bool {
        self.verdict != DrillVerdict::Failed
    }
}

/// What a drill was to restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillTarget {
    /// Who chose it.
    pub chosen: DrillChoice,
    /// The target as it is typed: `record 99`, `latest`.
    pub asked: String,
    /// Why it is not the one that was drawn first, which could not be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

/// Who chose a drill's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillChoice {
    /// Nobody: every record that can be restored was as likely.
    Random,
    /// The end of the archive.
    Latest,
    /// A person.
    Given,
}

/// Where a drill was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillPlace {
    /// The kind of the store: `file`, `s3`.
    pub store: String,
    /// Stands for the machine's name.
    pub machine: ContentHash,
}

/// What a drill was going to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillPlan {
    /// Where it arrives.
    pub position: Position,
    /// The base.
    pub base: BaseId,
    /// How the log is brought in: `native`, `flush`, `bulk`.
    pub engine: String,
    /// Bytes to fetch, at most.
    pub download_bytes: u64,
    /// Bytes of SST and blob files.
    pub file_bytes: u64,
    /// Bytes of the segments to read, as they are stored.
    pub log_bytes: u64,
    /// Records to replay.
    pub records: u64,
}

/// How long a restore was expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillEstimate {
    /// All of it, until the database can be read.
    pub micros: u64,
    /// By what earlier drills had measured; otherwise it was a guess.
    pub measured: bool,
}

/// How long the parts of a drill took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillTimes {
    /// Reading the catalog and planning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planning: Option<u64>,
    /// Fetching, laying down and making durable, until the directory had its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub laying_down: Option<u64>,
    /// RocksDB's recovery, until the database could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<u64>,
    /// This program's own checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checking: Option<u64>,
    /// The operator's command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<u64>,
}

/// What a drill checked of the restored database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillChecks {
    /// Its files are those that its MANIFEST names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structure: Option<DrillStructure>,
    /// The latest sequence number that RocksDB reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<SequenceNumber>,
    /// What every column family holds; empty where it was not opened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub column_families: Vec<DrillFamily>,
    /// Why it could not be opened and read here; empty where it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unopened: Vec<String>,
    /// An earlier drill of the same position, which found the same contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<BaseId>,
    /// The operator's program that accepted it, without its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// Files that are there as the MANIFEST says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillStructure {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// RocksDB has compared the checksum of every block.
    pub checksums: bool,
}

/// What a column family holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillFamily {
    /// Its name.
    pub name: String,
    /// Pairs of key and value.
    pub pairs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// blake3 over all pairs in order, each key and value preceded by its length as a u64.
    pub hash: ContentHash,
    /// Two restores of one position may differ in it: keys are dropped, or were written, without a record.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub varies: bool,
}

/// What came of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillVerdict {
    /// Restored, opened, and every key and value read.
    Passed,
    /// Restored and whole by its files, but not opened here.
    StructureOnly,
    /// Not restored, or not what it should be.
    Failed,
}

/// Why a drill failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillFailure {
    /// The error's stable code.
    pub code: String,
    /// The error in one line.
    pub text: String,
}
