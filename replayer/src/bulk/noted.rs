//! What of a log is sorted already, for a restore that goes on behind an interruption.
//!
//! Owns: the small file in a staging directory that names sorted runs in their order, and how far the log was read behind each.
//! Written when a run is complete, and before runs that became one are removed. Runs are read again, every byte, and the log
//! goes on behind the last of those that are as they were written, one after the other from the first.
//! Refuses: what was noted of another plan.

use std::path::{Path, PathBuf};

use pitr_archive::Result;
use serde::{Deserialize, Serialize};

use super::{
    order::KeyOrder,
    run::{RunFile, Written},
    tombstones::FamilyTombstone,
};
use crate::restore::{checked_json, resume::Reached};

const VERSION: u32 = 1;
const NAME: &str = "pitr-resume-sorted.json";

/// Of what a run was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Made {
    /// Of a chunk.
    Sorted,
    /// Of several runs.
    Merged,
}

/// A run on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NotedRun {
    /// Of its file.
    pub number: u64,
    pub written: Written,
    pub made: Made,
    /// Operations of the log before its end.
    pub age: u64,
    /// Where the log goes on behind it; `None` where it ends in the midst of a record.
    pub reached: Option<Reached>,
}

/// The runs of a staging directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Noted {
    version: u32,
    /// What is sorted, and how: [`Notes::of`].
    of: String,
    runs: Vec<NotedRun>,
}

/// Where notes go, and of what they are.
#[derive(Clone, Debug)]
pub(crate) struct Notes {
    /// The staging directory that has the notes.
    pub staging: PathBuf,
    /// Where the runs lie.
    pub sorted: PathBuf,
    /// The same for the same column families, and the same records of them.
    pub of: String,
}

/// A run that is there as it was written.
pub(crate) struct FoundRun {
    pub noted: NotedRun,
    pub file: RunFile,
    pub tombstones: Vec<FamilyTombstone>,
}

/// The file of a staging directory.
pub(crate) fn file(staging: &Path) -> PathBuf {
    staging.join(NAME)
}

impl Notes {
    /// The file of a run.
    pub fn run(&self, number: u64) -> PathBuf {
        self.sorted.join(format!("pitr-sorted-{number}"))
    }

    /// In place of what was noted before.
    pub fn put(&self, runs: Vec<NotedRun>) -> Result<()> {
        checked_json::put(&file(&self.staging), &Noted { version: VERSION, of: self.of.clone(), runs })
    }

    /// The runs that can be gone on with, the last of them one behind which the log goes on; often none.
    pub fn find(&self, orders: &[KeyOrder]) -> Vec<FoundRun> {
        let noted = checked_json::read(&file(&self.staging));
        let noted = noted.filter(|noted: &Noted| noted.version == VERSION && noted.of == self.of);
        let mut found = Vec::new();
        for noted in noted.into_iter().flat_map(|noted| noted.runs) {
            let path = self.run(noted.number);
            match RunFile::open(&path, noted.written, orders) {
                Ok(Some((file, tombstones))) => found.push(FoundRun { noted, file, tombstones }),
                Ok(None) => {
                    tracing::warn!(run = %path.display(), "it is not as it was written: the log is read from there");
                    break;
                }
                // To end with it would end every further attempt.
                Err(e) => {
                    tracing::warn!("the log is read from there: {e}");
                    break;
                }
            }
        }
        let whole = found.iter().rposition(|run| run.noted.reached.is_some()).map_or(0, |last| last + 1);
        found.truncate(whole);
        found
    }
}
