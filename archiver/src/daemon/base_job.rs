//! A base on its way, beside the log.
//!
//! Owns: its steps (server at rest, files linked, floor fixed, files uploaded, published), that a server brought to rest
//! goes on, and who is told how it ended.
//! Refuses: to take a base's steps itself (the archiver and its collector do).

use std::{future, sync::Arc, time::Duration};

use futures::FutureExt as _;
use pitr_archive::{Code, Error, Result, catalog::schema::BaseFile, clock::Micros};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::{Daemon, Next, joined};
use crate::{
    Parts,
    archiver::{BaseInProgress, Floor, of_another_history},
    base::{collect::Collected, upload},
    control::Answer,
    elapsed::elapsed,
    engine::{BaseReason, Polled},
    observer::{Failure, Linking, Notice, Observer},
};

/// A server is kept at rest for a base at most so long; linking takes milliseconds.
const AT_REST: Duration = Duration::from_secs(10);

/// A task of a base, and what came of it.
pub(super) enum Task<T> {
    Running(JoinHandle<Result<T>>),
    Ended(Result<T>),
}

impl<T> Task<T> {
    /// Waits for its end; for ever where that is known.
    async fn ends(&mut self) {
        match self {
            Self::Running(task) => {
                let ended = joined(task.await);
                *self = Self::Ended(ended);
            }
            Self::Ended(_) => future::pending().await,
        }
    }

    fn abort(self) {
        if let Self::Running(task) = self {
            task.abort();
        }
    }
}

impl<T> From<JoinHandle<Result<T>>> for Task<T> {
    fn from(task: JoinHandle<Result<T>>) -> Self {
        Self::Running(task)
    }
}

/// A base on its way.
pub(super) enum BaseJob {
    /// The server is brought to rest. Where nobody waits for that any more, it is told to go on as soon as it is there.
    Quiescing { reason: BaseReason, created: Micros, task: Task<AtRest> },
    /// Files are being linked.
    Linking { reason: BaseReason, created: Micros, branches: u64, task: Task<Collected> },
    /// Linked; the floor is fixed by the next look that reads everything.
    Linked { reason: BaseReason, created: Micros, branches: u64, collected: Collected },
    /// Files are being uploaded.
    Uploading { created: Micros, floor: Floor, task: Task<(Collected, Vec<BaseFile>)> },
    /// Uploaded; waits until the archive has acknowledged the floor.
    Uploaded { created: Micros, floor: Floor, collected: Collected, files: Vec<BaseFile> },
}

impl BaseJob {
    /// Waits for the end of its task, if one is running: somebody has to go on with the next step then.
    pub(super) async fn is_ready(job: &mut Option<Self>) {
        match job {
            Some(Self::Quiescing { task, .. }) => task.ends().await,
            Some(Self::Linking { task, .. }) => task.ends().await,
            Some(Self::Uploading { task, .. }) => task.ends().await,
            Some(Self::Linked { .. } | Self::Uploaded { .. }) | None => future::pending().await,
        }
    }

    /// Ends it. Its links go with what holds them; a linking thread that is under way ends with its own.
    pub(super) fn abandon(self) {
        match self {
            Self::Linking { task, .. } => task.abort(),
            Self::Uploading { task, .. } => task.abort(),
            // A server that is half brought to rest would stay so: it gets there, and is told to go on.
            Self::Quiescing { .. } | Self::Linked { .. } | Self::Uploaded { .. } => {}
        }
    }
}

/// A server that was brought to rest for a base. However this ends, it is told to go on, once.
#[derive(Debug)]
pub(super) struct AtRest {
    since: Micros,
    observer: Option<Arc<dyn Observer>>,
}

impl AtRest {
    /// Brings it there.
    async fn bring(parts: Parts) -> Result<Self> {
        parts.observer.before_base().await?;
        Ok(Self { since: parts.clock.now(), observer: Some(parts.observer) })
    }

    fn ends(mut self, linking: Linking) {
        if let Some(observer) = self.observer.take() {
            observer.after_linking(linking);
        }
    }
}

impl Drop for AtRest {
    fn drop(&mut self) {
        // An error ended the archiver meanwhile.
        if let Some(observer) = self.observer.take() {
            observer.after_linking(Linking::Failed);
        }
    }
}

impl Daemon {
    /// A base that would hold too much is taken later: what the pins hold cannot be had again, a base can.
    pub(super) fn keep_within_limits(&mut self, now: Micros) -> Result<()> {
        let base = if self.base.is_some() { BaseInProgress::Yes } else { BaseInProgress::No };
        if self.archiver.keep_within_limits(now, base)? == BaseInProgress::No
            && let Some(job) = self.base.take()
        {
            job.abandon();
            self.archiver.last_base_attempt = Some(now);
            let limit = Error::new(Code::BaseUnobtainable, "taking a base");
            let limit = limit.hint("its files held more than the limits allow; it is tried again");
            self.base_failed(limit)?;
        }
        Ok(())
    }

    /// A look that began after a base's files were linked has read everything: its end is the floor.
    pub(super) fn fix_floor(&mut self, polled: Polled) -> Result<()> {
        let Some(BaseJob::Linked { reason, created, branches, collected }) =
            self.base.take_if(|job| matches!(job, BaseJob::Linked { .. }))
        else {
            return Ok(());
        };
        if branches != self.archiver.branches {
            return self.base_failed(of_another_history(&self.archiver.config));
        }
        let fixed = self.archiver.fix_floor(&collected, &reason, polled);
        if !matches!(fixed, Ok(None)) {
            self.archiver.base_without_floor = None;
        }
        match fixed {
            Ok(Some(floor)) => {
                let archiver = &self.archiver;
                let (archive, claim) = (archiver.archive.clone(), archiver.claim.clone());
                let (random, known) = (archiver.parts.random.clone(), archiver.known_files.clone());
                let (run, reading) = ((floor.position.timeline, floor.start.run), archiver.reading());
                self.server_goes_on(Linking::Done);
                let upload = async move {
                    let files =
                        upload::upload(&archive, &claim, &*random, &collected.files, &known, run, &reading).await?;
                    Ok((collected, files))
                };
                let task = tokio::spawn(upload.in_current_span()).into();
                self.base = Some(BaseJob::Uploading { created, floor, task });
            }
            Ok(None) => {
                self.archiver.base_has_no_floor_yet();
                self.base = Some(BaseJob::Linked { reason, created, branches, collected });
            }
            Err(e) => self.base_failed(e)?,
        }
        Ok(())
    }

    /// Whether the archive lacks what lies before a base's floor. It is not published before, however long the interval is.
    pub(super) fn base_wants_a_segment(&self) -> bool {
        match &self.base {
            Some(BaseJob::Uploading { floor, .. } | BaseJob::Uploaded { floor, .. }) => {
                floor.joins == self.archiver.joins && !self.archiver.holds(floor)
            }
            _ => false,
        }
    }

    /// Takes the steps for which nothing has to be waited for any more, and tells what comes next.
    pub(super) async fn base_step(&mut self, now: Micros) -> Result<Next> {
        let was_linked = matches!(self.base, Some(BaseJob::Linked { .. }));
        // What ended while nobody waited for it.
        let _ = BaseJob::is_ready(&mut self.base).now_or_never();
        self.upload_ended()?;
        self.one_base_step(now).await?;
        if matches!(self.base, Some(BaseJob::Linked { .. })) && !was_linked {
            // A look that begins now fixes the floor; directories were listed when linking ended.
            return Ok(Next::AtOnce);
        }
        Ok(Next::Poll)
    }

    fn upload_ended(&mut self) -> Result<()> {
        match self.base.take() {
            Some(BaseJob::Uploading { created, floor, task: Task::Ended(uploaded) }) => match uploaded {
                Ok((collected, files)) => self.base = Some(BaseJob::Uploaded { created, floor, collected, files }),
                Err(e) => self.base_failed(e)?,
            },
            other => self.base = other,
        }
        Ok(())
    }

    async fn one_base_step(&mut self, now: Micros) -> Result<()> {
        match self.base.take() {
            None => {
                let spaced = self
                    .archiver
                    .last_base_attempt
                    .is_none_or(|last| elapsed(last, now) >= self.archiver.config.base_spacing);
                let useful = self.archiver.wanted_and_useful();
                if useful.is_none() && !self.base_waiters.is_empty() {
                    let why = self.archiver.engine.waiting().map(ToOwned::to_owned);
                    let e = Error::new(Code::BaseNotPublishable, "taking a base").hint(why.unwrap_or_else(|| {
                        "a barrier lies in the log that a base would still need; it serves once the server has flushed".into()
                    }));
                    self.base_failed(e)?;
                }
                if let Some(limit) = self.archiver.held_back.alarm()
                    && !self.base_waiters.is_empty()
                {
                    let e = Error::new(Code::BaseUnobtainable, "taking a base").with("limit", limit);
                    self.base_failed(
                        e.hint("a base would hold even more of the disk; it is taken when there is room"),
                    )?;
                }
                let due = self.archiver.base_due(now).is_none() || !self.base_waiters.is_empty();
                // An archive that does not answer would only make its links hold what the server deletes meanwhile.
                let fits = self.archiver.reach.failing().is_none() && self.archiver.held_back.alarm().is_none();
                if spaced
                    && due
                    && fits
                    && let Some(reason) = useful
                {
                    self.archiver.last_base_attempt = Some(now);
                    let task = tokio::spawn(AtRest::bring(self.archiver.parts.clone())).into();
                    self.base = Some(BaseJob::Quiescing { reason, created: now, task });
                }
            }
            Some(BaseJob::Quiescing { reason, created, task: Task::Ended(brought) }) => match brought {
                Ok(rest) => {
                    self.at_rest = Some(rest);
                    let collector = self.archiver.collector(&reason);
                    let task = tokio::task::spawn_blocking(move || collector.collect()).into();
                    let branches = self.archiver.branches;
                    self.base = Some(BaseJob::Linking { reason, created, branches, task });
                }
                Err(e) => self.base_failed(e)?,
            },
            Some(BaseJob::Linking { reason, created, branches, task: Task::Ended(linked) }) => match linked {
                Ok(collected) => self.base = Some(BaseJob::Linked { reason, created, branches, collected }),
                Err(e) => self.base_failed(e)?,
            },
            Some(BaseJob::Uploaded { created, floor, collected, files })
                if (self.archiver.holds(&floor) || floor.joins != self.archiver.joins)
                    && self.delivery.is_none()
                    && self.archiver.pending.is_none() =>
            {
                match self.archiver.publish(created, collected, files, floor).await {
                    Ok(base) => {
                        self.archiver.parts.observer.notice(Notice::BasePublished {
                            base: base.id.clone(),
                            timeline: base.floor.timeline,
                            floor: base.floor.boundary,
                        });
                        for waiter in self.base_waiters.drain(..) {
                            let answer = Answer::Base { id: base.id.clone(), floor: base.floor };
                            if waiter.send(Ok(answer)).is_err() {
                                tracing::debug!("the requester of the base did not wait for it");
                            }
                        }
                    }
                    Err(e) => self.base_failed(e)?,
                }
            }
            Some(other) => {
                self.base = Some(other);
                // Nobody waits for long: the floor then lies behind what the server wrote meanwhile.
                if self.at_rest.as_ref().is_some_and(|rest| elapsed(rest.since, now) >= AT_REST) {
                    self.server_goes_on(Linking::Done);
                }
            }
        }
        Ok(())
    }

    /// A server that was brought to rest for a base goes on, told once.
    pub(super) fn server_goes_on(&mut self, linking: Linking) {
        if let Some(rest) = self.at_rest.take() {
            rest.ends(linking);
        }
    }

    /// A base that could not be taken is tried again later; whoever asked for it is told.
    pub(super) fn base_failed(&mut self, e: Error) -> Result<()> {
        self.archiver.engine.end_hold();
        self.server_goes_on(Linking::Failed);
        for waiter in self.base_waiters.drain(..) {
            let told = Error::new(e.code(), "taking the base").hint(e.hint_text()).because(e.to_string());
            if waiter.send(Err(told)).is_err() {
                tracing::debug!("the requester of the base did not wait for it");
            }
        }
        if e.code() == Code::Fenced {
            return Err(e);
        }
        self.archiver.parts.metrics.base_failed(e.code());
        if e.code() == Code::BaseNotPublishable {
            tracing::info!(error = %e, "the base would serve no target yet");
        } else {
            tracing::warn!(error = %e, "the base could not be taken; it is tried again");
            self.archiver.parts.observer.notice(Notice::BaseFailed(Failure::from(&e)));
        }
        Ok(())
    }
}
