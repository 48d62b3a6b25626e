//! What was swapped with what, in a file beside the database.
//!
//! Owns: the file's name and format (JSON with a version), its durable replacement. It says what is set aside, and, while
//! directories change their names, which ones, so that whoever comes next can go on.
//! Refuses: versions that it does not know.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pitr_archive::{Code, Error, Result, error::io};
use serde::{Deserialize, Serialize};

use super::swap::Swap;
use crate::{
    path_text,
    restore::{
        small_files::replace,
        staging::{beside, parent, sync_directory},
    },
};

const VERSION: u32 = 1;

/// What is known of a database's swaps.
#[derive(Clone, Debug)]
pub struct Record {
    path: PathBuf,
    /// A swap that is not known to have ended.
    pub under_way: Option<Swap>,
    /// What was set aside, the oldest first.
    pub asides: Vec<Aside>,
}

/// A database that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// The time of the restore, as in the directories' names.
    pub id: String,
    /// Whether it is the restored one: then the one from before was rolled back to.
    pub restored: bool,
    /// Its directories, the database's own first.
    pub places: Vec<Place>,
}

/// A directory, and where it was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its place in use.
    #[serde(with = "path_text")]
    pub place: PathBuf,
    /// Where it is.
    #[serde(with = "path_text")]
    pub aside: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    under_way: Option<Swap>,
    #[serde(default)]
    asides: Vec<Aside>,
}

impl Record {
    /// Of the database at `db`; an empty one where there is none.
    ///
    /// # Errors
    /// `restore.record-damaged`, `file.*`.
    pub fn read(db: &Path) -> Result<Self> {
        let path = beside(db, "swaps.json")?;
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self { path, under_way: None, asides: Vec::new() });
            }
            Err(e) => return Err(io("reading", &path, e)),
        };
        let damaged = || Error::new(Code::SwapRecordDamaged, "reading").on(path.display());
        let document: Document = serde_json::from_slice(&bytes).map_err(|e| damaged().because(e))?;
        if document.version != VERSION {
            return Err(damaged().with("version", document.version).with("known", VERSION));
        }
        Ok(Self { path, under_way: document.under_way, asides: document.asides })
    }

    /// Makes it durable. One that says nothing is deleted.
    ///
    /// # Errors
    /// `file.*`.
    pub fn write(&self) -> Result<()> {
        let above = parent(&self.path)?;
        if self.under_way.is_none() && self.asides.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("deleting", &self.path, e)),
                _ => sync_directory(above),
            };
        }
        let document = Document { version: VERSION, under_way: self.under_way.clone(), asides: self.asides.clone() };
        let bytes = serde_json::to_vec_pretty(&document)
            .map_err(|e| Error::new(Code::Internal, "writing").on(self.path.display()).because(e))?;
        replace(&self.path, &bytes)
    }
}
