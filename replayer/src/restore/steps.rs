//! A restore in its three steps, so that several can be taken together.
//!
//! Owns: what is decided before anything is touched ([`check`]), what is durable before anything is visible
//! ([`Checked::prepare`]), and the change of names ([`Prepared::publish`]). One restore is one after the other; of a group,
//! every database takes a step before any takes the next ([`crate::group`]).
//! Refuses: to leave what cannot be gone on with, but for what the same restore tries again at once, with the log.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use pitr_archive::{
    Code, Error, Result,
    catalog::{archive::Archive, schema::BaseDocument},
    code::Retry,
    error::io,
};

use super::{
    Destination, Filled, Finish, Outcome, RestoreOptions, RestoreReport, Work, base_of, finish_of,
    paths::{self, Layout},
    refuse_unfit_places, report,
    resume::Key,
    small_files::SmallFiles,
    space::Needs,
    staging::{self, Staging},
};
use crate::{
    crash, finish,
    group::journal::{Entry, Journal, Landed},
    in_place::{self, Present},
    plan::{RestorePlan, flushed},
    progress::Progress,
};

/// A restore that nothing stands in the way of; nothing was touched yet. A present database is locked as long as this lives.
pub(crate) struct Checked<'a> {
    archive: &'a Archive,
    plan: &'a RestorePlan,
    options: &'a RestoreOptions,
    into: PathBuf,
    base: BaseDocument,
    layout: Layout,
    present: Option<Present>,
    finish: Finish,
    key: Key,
    left: Left,
}

/// What is left to do.
enum Left {
    /// All of it.
    Everything(Box<SmallFiles>),
    /// It was prepared before.
    Names,
    /// It is in its place; there, what was replaced was set aside.
    Nothing(Vec<PathBuf>),
}

/// Refuses what can be refused. `journal` is of the group that it is restored with, if that was begun before.
///
/// # Errors
/// As [`super::restore`], but for the free space.
pub(crate) async fn check<'a>(
    archive: &'a Archive,
    plan: &'a RestorePlan,
    options: &'a RestoreOptions,
    journal: &Journal,
) -> Result<Checked<'a>> {
    let into = std::path::absolute(&options.into).map_err(|e| io("naming the destination", &options.into, e))?;
    if plan.part.is_some() && options.destination == Destination::InPlace {
        return Err(Error::new(Code::PartUnusable, "restoring in the place of")
            .on(into.display())
            .with("a part", "never takes the place of the whole: restore it --into a directory of its own"));
    }
    let mut base = base_of(archive, plan).await?;
    let maps = match options.destination {
        Destination::New => options.map_paths.clone(),
        Destination::InPlace => paths::in_place(&base.paths, &into, &options.map_paths),
    };
    let layout = paths::layout(&base.paths, &into, &maps)?;
    let directories = staging::outermost(&layout.directories());
    let key = Key::of(plan, &layout.directories());
    let present = match options.destination {
        Destination::InPlace => {
            refuse_unfit_places(archive, &layout, &directories, &into)?;
            Some(Present::claim(&directories, &layout.wal)?)
        }
        Destination::New => {
            in_place::refuse_under_way(&into)?;
            None
        }
    };
    let arrived = present.as_ref().map(|present| present.has_arrived(&plan.position)).transpose()?.flatten();
    // Behind the claim: that has ended a swap which was interrupted.
    let landed = journal.landed(&key, &how(options))?;
    let left = match (arrived, landed) {
        (Some(aside), _) => Left::Nothing(aside),
        (None, Landed::Arrived) => {
            Left::Nothing(present.as_ref().map(Present::last_aside).transpose()?.unwrap_or_default())
        }
        (None, Landed::Prepared) => Left::Names,
        (None, Landed::Nothing) => {
            if present.is_none() {
                for directory in layout.directories() {
                    staging::check_free(directory)?;
                }
            }
            let small = SmallFiles::prepare(&base, plan, &layout, options)?;
            if let Some(taken) = &small.taken {
                base = taken.without(base);
            }
            Left::Everything(Box::new(small))
        }
    };
    let finish = finish_of(plan, options);
    if let (Left::Everything(small), Finish::Recover) = (&left, finish) {
        finish::check_known(&small.families)?;
        finish::check_policy(plan.write_policy)?;
    }
    Ok(Checked { archive, plan, options, into, base, layout, present, finish, key, left })
}

impl<'a> Checked<'a> {
    /// Every directory of the restored database, its own first.
    pub fn directories(&self) -> Vec<&Path> {
        self.layout.directories()
    }

    /// Whether it is in its place already, as it was restored.
    pub const fn is_in_place(&self) -> bool {
        matches!(self.left, Left::Nothing(_))
    }

    /// What it takes of the file systems that it goes to.
    pub fn needs(&self) -> Result<Needs> {
        let directories = staging::outermost(&self.layout.directories());
        match self.left {
            Left::Everything(_) => {
                Ok(Needs::of(&self.base, self.plan, &self.layout)?.but_for(&staging::held(&directories)?))
            }
            Left::Names | Left::Nothing(_) => Ok(Needs::default()),
        }
    }

    /// Everything but the names: complete and durable, and nobody sees it.
    ///
    /// # Errors
    /// As [`super::restore`].
    pub async fn prepare(mut self, progress: Arc<dyn Progress>) -> Result<Prepared<'a>> {
        let (staging, finish, outcome) = match std::mem::replace(&mut self.left, Left::Names) {
            Left::Nothing(aside) => (None, Finish::Leave, Outcome { aside, ..Outcome::default() }),
            Left::Names => (Some(Staging::prepared(&self.layout.directories())?), self.finish, Outcome::default()),
            Left::Everything(small) => {
                let (staging, outcome) = self.fill(*small, progress).await?;
                (Some(staging), self.finish, outcome)
            }
        };
        let Self { plan, options, into, base, layout, present, key, .. } = self;
        Ok(Prepared { plan, options, into, base, layout, present, finish, key, staging, outcome })
    }

    async fn fill(&self, small: SmallFiles, progress: Arc<dyn Progress>) -> Result<(Staging, Outcome)> {
        let (staging, found) = Staging::create(&self.layout.directories(), &self.key)?;
        let work = Work {
            archive: self.archive,
            plan: self.plan,
            base: &self.base,
            layout: &self.layout,
            staging: &staging,
            key: &self.key,
            found,
            options: self.options,
            present: self.present.as_ref(),
            progress,
        };
        let filled = work.fill(small).await.map_err(|e| flushed::advise(&self.plan.flushes, e));
        let Filled { totals, tables, reused } = match filled {
            Ok(filled) => match settle(&staging, self.present.is_some()) {
                Ok(()) => filled,
                // What did not become durable must not be found by anybody who goes on.
                Err(e) => return Err(discarded(e, staging)),
            },
            Err(e) if e.code() == Code::SequenceMismatch && self.finish == Finish::Recover => {
                return Err(e.with("kept in", staging.path(&self.layout.db)?.display()));
            }
            // The files of the base are laid down all the same, and found again.
            Err(e) if super::may_be_replayed(self.plan, &e) => return Err(e),
            Err(e) => return Err(given_up(e, staging, &self.layout)),
        };
        let brought = |name: &String| self.base.inline.iter().any(|file| file.name == *name);
        let left_behind = self.present.iter().flat_map(Present::left_behind).filter(|name| !brought(name));
        let left_behind = left_behind.cloned().collect();
        let files = (self.base.files.len(), self.base.files.iter().map(|f| f.size).sum());
        Ok((staging, Outcome { files, reused, totals, tables, aside: Vec::new(), left_behind }))
    }
}

/// What a restore is prepared with beside its plan and its places.
fn how(options: &RestoreOptions) -> String {
    format!("owner {:?}, {:?}", options.owner, options.finish)
}

/// Makes what was staged durable.
fn settle(staging: &Staging, in_place: bool) -> Result<()> {
    if in_place {
        staging.look_like_places()?;
    }
    staging.make_durable()?;
    crash::point("restore-durable");
    Ok(())
}

/// What passes leaves what was fetched: the same command goes on from there. What stays leaves nothing.
fn given_up(e: Error, staging: Staging, layout: &Layout) -> Error {
    if e.code().retry() == Retry::Later {
        return kept(e, &staging, layout);
    }
    discarded(e, staging)
}

/// The error at hand says why; that the staging directory could not be removed would only hide it, and the next restore
/// removes it.
fn discarded(e: Error, staging: Staging) -> Error {
    let _ = staging.discard();
    e
}

/// Says where what was fetched waits for the next attempt.
fn kept(e: Error, staging: &Staging, layout: &Layout) -> Error {
    match staging.path(&layout.db) {
        Ok(kept) if kept.exists() => e.with("what was fetched is kept in", kept.display()),
        _ => e,
    }
}

/// A restored database that lacks nothing but its name.
pub(crate) struct Prepared<'a> {
    plan: &'a RestorePlan,
    options: &'a RestoreOptions,
    into: PathBuf,
    base: BaseDocument,
    layout: Layout,
    present: Option<Present>,
    finish: Finish,
    key: Key,
    /// None where it is in its place already.
    staging: Option<Staging>,
    outcome: Outcome,
}

impl Prepared<'_> {
    /// What a journal says of it.
    pub fn entry(&self) -> Result<Option<Entry>> {
        self.staging.as_ref().map(|staging| Entry::of(&self.key, how(self.options), staging)).transpose()
    }

    /// Gives it its names, the database's own directory last, or exchanges them. What fails leaves what is prepared.
    ///
    /// # Errors
    /// `restore.swap-interrupted`, `restore.destination-not-empty`, `file.*`.
    pub fn publish_or_stay(&mut self) -> Result<()> {
        match (&self.staging, &self.present) {
            (None, _) => return Ok(()),
            (Some(staging), None) => staging.publish()?,
            (Some(staging), Some(present)) => self.outcome.aside = present.replace(staging, self.options.now)?.aside,
        }
        self.staging = None;
        Ok(())
    }

    /// The same of one that is restored alone: what passes, and somebody who came first, leaves the files of the base for the
    /// next attempt; what stays leaves nothing.
    ///
    /// # Errors
    /// As [`Prepared::publish_or_stay`].
    pub fn publish(mut self) -> Result<RestoreReport> {
        let Err(e) = self.publish_or_stay() else { return Ok(self.report()) };
        Err(match (e.code(), self.staging.take()) {
            // Both databases are there, under names that the record tells.
            (Code::SwapInterrupted, _) | (_, None) => e,
            (code, Some(staging)) if code == Code::DestinationNotEmpty || code.retry() == Retry::Later => {
                match staging.begin_resuming(&self.key) {
                    Ok(()) => kept(e, &staging, &self.layout),
                    Err(also) => e.with("what was fetched cannot be kept", also),
                }
            }
            (_, Some(staging)) => discarded(e, staging),
        })
    }

    /// Removes it.
    ///
    /// # Errors
    /// `file.*`.
    pub fn discard(self) -> Result<()> {
        self.staging.map_or(Ok(()), Staging::discard)
    }

    /// What was done.
    pub fn report(self) -> RestoreReport {
        report(&self.base, self.plan, self.options, (self.into, self.finish), self.outcome)
    }
}
