//! What a replay begins with: nothing, or what an interrupted restore left of it.
//!
//! Owns: which files in the staging directories are gone on with; all others are removed. What is not as it was written, or not
//! of the log that is planned now, is made anew.

use std::path::PathBuf;

use pitr_archive::Result;

use super::{
    Work,
    files::{Job, blocking},
    resume::{Checkpoint, Found, Reached},
    small_files::SmallFiles,
    tabled::Tabled,
};
use crate::plan::{RestorePlan, engine::Engine};

/// What a replay begins with.
pub(crate) enum Begun {
    /// WALs, behind those that are complete.
    Wals {
        /// Where they lie.
        directory: PathBuf,
        /// Where it is noted how far they have come.
        notes: PathBuf,
        checkpoint: Option<Checkpoint>,
    },
    /// Tables, which are written instead, and where the log goes on behind what is sorted.
    Tables(Box<Tabled>, Option<Reached>),
}

impl Begun {
    /// How far the log was read before.
    pub fn reached(&self) -> Option<&Reached> {
        match self {
            Self::Wals { checkpoint, .. } => checkpoint.as_ref().map(|checkpoint| &checkpoint.reached),
            Self::Tables(_, reached) => reached.as_ref(),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Wals { directory, checkpoint, .. } => {
                checkpoint.iter().flat_map(|checkpoint| checkpoint.files(directory)).collect()
            }
            Self::Tables(tables, _) => tables.files(),
        }
    }
}

/// With which segment of the plan the log goes on.
pub(crate) fn segment(plan: &RestorePlan, reached: &Reached) -> Option<usize> {
    let at = reached.boundary;
    plan.segments.iter().position(|s| s.timeline == reached.timeline && s.first <= at && at < s.end)
}

/// What is there of the records, beside the files of `jobs`.
pub(super) async fn find(work: &Work<'_>, small: &SmallFiles, jobs: &[Job]) -> Result<Begun> {
    let staging = work.staging;
    let begun = match work.plan.engine.name {
        Engine::Bulk => tables(work, small).await?,
        Engine::Native | Engine::Flush => wals(work).await?,
    };
    if work.found != Found::Nothing {
        let keep = jobs.iter().map(|job| job.to.clone()).chain(begun.files()).collect();
        staging.keep_only(&keep, &work.layout.directories())?;
        let records = begun.reached().map_or(0, |reached| reached.totals.records);
        tracing::info!(staging = %staging.notes()?.display(), records, "going on with a restore that was interrupted");
    }
    if let Begun::Tables(tables, _) = &begun {
        tables.make_directory()?;
    }
    Ok(begun)
}

async fn wals(work: &Work<'_>) -> Result<Begun> {
    let (directory, notes) = (work.staging.path(&work.layout.wal)?, work.staging.notes()?.to_owned());
    let checkpoint = if work.found == Found::Same && work.plan.ingestions.is_empty() {
        let (directory, notes) = (directory.clone(), notes.clone());
        let read = blocking(move || Ok(Checkpoint::read(&notes, &directory))).await?;
        read.filter(|checkpoint| segment(work.plan, &checkpoint.reached).is_some())
    } else {
        None
    };
    Ok(Begun::Wals { directory, notes, checkpoint })
}

async fn tables(work: &Work<'_>, small: &SmallFiles) -> Result<Begun> {
    let new = || Tabled::new(work.plan, small, work.layout, work.staging).map(Box::new);
    let mut tables = new()?;
    if work.found != Found::Same {
        return Ok(Begun::Tables(tables, None));
    }
    let (tables, reached) = blocking(move || {
        let reached = tables.go_on();
        Ok((tables, reached))
    })
    .await?;
    match reached {
        Some(reached) if segment(work.plan, &reached).is_none() => Ok(Begun::Tables(new()?, None)),
        reached => Ok(Begun::Tables(tables, reached)),
    }
}
