//! What a replay begins with: nothing, or what an interrupted restore left of it.
//!
//! Owns: which files in the staging directories are gone on with; all others are removed.
//! Refuses: nothing. What is not as it was written is made anew.

use std::path::{Path, PathBuf};

use pitr_archive::Result;

use super::{
    files::{Job, blocking},
    paths::Layout,
    replay::Into,
    resume::{Checkpoint, Found, Reached},
    small_files::SmallFiles,
    staging::Staging,
    tabled::Tabled,
};
use crate::plan::{RestorePlan, engine::Engine};

/// A restore, and where it is built.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub plan: &'a RestorePlan,
    pub layout: &'a Layout,
    pub staging: &'a Staging,
    pub found: Found,
}

/// What a replay begins with.
pub(crate) enum Begun {
    /// WALs, behind those that are complete.
    Wals(Option<Checkpoint>),
    /// Tables, which are written instead, and where the log goes on behind what is sorted.
    Tables(Box<Tabled>, Option<Reached>),
}

impl Begun {
    /// How far the log was read before.
    pub const fn reached(&self) -> Option<&Reached> {
        match self {
            Self::Wals(Some(checkpoint)) => Some(&checkpoint.reached),
            Self::Wals(None) => None,
            Self::Tables(_, reached) => reached.as_ref(),
        }
    }

    fn files(&self, wals: &Path) -> Vec<PathBuf> {
        match self {
            Self::Wals(checkpoint) => checkpoint.iter().flat_map(|checkpoint| checkpoint.files(wals)).collect(),
            Self::Tables(tables, _) => tables.files(),
        }
    }
}

/// What is there of the records, beside the files of `jobs`.
pub(crate) async fn find(place: &Place<'_>, small: &SmallFiles, jobs: &[Job]) -> Result<Into> {
    let Place { plan, layout, staging, found } = *place;
    let (notes, wals) = (staging.path(&layout.db)?, staging.path(&layout.wal)?);
    let begun = match plan.engine.name {
        Engine::Bulk => tables(Tabled::new(plan, small, layout, staging)?, found).await?,
        Engine::Native | Engine::Flush if found == Found::Files && plan.ingestions.is_empty() => {
            let (notes, wals) = (notes.clone(), wals.clone());
            Begun::Wals(blocking(move || Checkpoint::read(&notes, &wals)).await?)
        }
        Engine::Native | Engine::Flush => Begun::Wals(None),
    };
    if found == Found::Files {
        let keep = jobs.iter().map(|job| job.to.clone()).chain(begun.files(&wals)).collect();
        staging.keep_only(&keep, &layout.directories())?;
        tracing::info!(staging = %notes.display(), "going on with a restore that was interrupted");
    }
    if let Begun::Tables(tables, _) = &begun {
        tables.begin()?;
    }
    Ok(Into { wals, notes, begun })
}

async fn tables(mut tables: Tabled, found: Found) -> Result<Begun> {
    if found == Found::Nothing {
        return Ok(Begun::Tables(Box::new(tables), None));
    }
    blocking(move || {
        let reached = tables.go_on()?;
        Ok(Begun::Tables(Box::new(tables), reached))
    })
    .await
}
