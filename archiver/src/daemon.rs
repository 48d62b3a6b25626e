//! The archiver as a daemon.
//!
//! Owns: when things happen. One task owns the engine; deliveries, the linking and the upload of a base run beside it,
//! so that the log is read and pinned whatever the store does. At most one segment is under way and one is being filled:
//! when both are full, reading stops and the pins hold what is not read yet; only a server that recycles its WALs
//! overwrites them all the same, and what it overwrote unread is a barrier.
//! Refuses: to decide what is right (the engine) or to format anything (the command line).
//!
//! - `deliver`: segments are cut, sent, and waited for.
//! - `base_job`: a base on its way.
//! - `patience`: the loop is seen to turn while it waits for the store.
//! - `serve`: requests of the control socket.
//! - `tell`: what observers and metrics are told.

mod base_job;
mod deliver;
mod patience;
mod serve;
mod tell;

use std::{future::Future, sync::Arc, time::Duration};

use pitr_archive::{Code, Error, Result, clock::Micros, ids::FileNumber};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tracing::Instrument as _;

use self::{
    base_job::{AtRest, BaseJob},
    patience::attended,
    tell::Told,
};
use crate::{
    Archiver, ArchiverConfig, Parts,
    archiver::{
        SCAN_INTERVAL,
        captures::{AGAIN, Captured},
    },
    control::{Answer, ControlServer},
    elapsed::elapsed,
    engine::Polled,
    merge::perform::Done,
    observer::Linking,
    quiet::{Ahead, Sentry},
    requests::Requests,
    ship::{self, Answered, Backoff, Reach},
};

/// Control requests waiting; more requesters wait at the socket.
const COMMANDS: usize = 16;

/// Between two attempts to upload the same files that entered without the log.
const CAPTURE_AGAIN: Duration = Duration::from_secs(5);

/// A directory may be copied into the database's place for so long.
const REPLACING: Duration = Duration::from_secs(600);

/// An archiver that is told to end while its archive does not answer goes on trying for so long.
const LAST_ATTEMPTS: Duration = Duration::from_secs(20);
/// How often that is looked after.
const LOOKED_AFTER: Duration = Duration::from_secs(1);

/// What follows a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The next step: there is more to read.
    AtOnce,
    /// A pause of a poll interval.
    Poll,
    /// As before: the look found nothing new.
    Nothing,
}

struct Daemon {
    archiver: Archiver,
    delivery: Option<JoinHandle<Result<Answered>>>,
    base: Option<BaseJob>,
    base_waiters: Vec<oneshot::Sender<Result<Answer>>>,
    requests: Requests,
    /// Since when the server has been at rest for a base whose floor is not fixed.
    at_rest: Option<AtRest>,
    /// Whether somebody was told that the archive does not answer, and since when.
    told_away: Option<Micros>,
    /// Whether somebody was told of a limit.
    told_limit: Told,
    /// Before a delivery whose acknowledgement could not be confirmed is made again.
    redelivery: Backoff,
    /// Before a manifest that could not be written is tried again.
    manifest_again: Again,
    /// Before a timeline that could not be begun is tried again.
    branch_again: Again,
    capture: Option<JoinHandle<Captured>>,
    /// An index is being written.
    index: Option<JoinHandle<()>>,
    capture_failed: Option<Micros>,
    /// A deed of merging, begun after so many joins.
    merge: Option<(u64, JoinHandle<Result<Done>>)>,
    /// Since when there has been no database that can be read.
    away: Option<Micros>,
    last_beat: Micros,
}

impl Archiver {
    /// Runs until `shutdown`: then ships the rest, closes the manifest and returns.
    ///
    /// # Errors
    /// `writer.fenced` when another archiver has taken over; errors of the local machine that do not pass by themselves.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let (_keep, settings) = watch::channel(self.config.clone());
        self.run_with(settings, shutdown).await
    }

    /// As [`Archiver::run`]; what can change while it runs ([`ArchiverConfig::adopt`]) follows `settings`.
    ///
    /// # Errors
    /// As [`Archiver::run`].
    pub async fn run_with(
        self,
        mut settings: watch::Receiver<ArchiverConfig>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<()> {
        let (sender, mut commands) = mpsc::channel(COMMANDS);
        let _server = ControlServer::start(&self.state_dir, sender)?;
        let sentry = Sentry::start(self.config.poll, self.changed.clone())?;
        let last_beat = self.parts.clock.now();
        let mut daemon = Daemon {
            archiver: self,
            delivery: None,
            base: None,
            base_waiters: Vec::new(),
            requests: Requests::default(),
            at_rest: None,
            told_away: None,
            told_limit: Told::Nothing,
            redelivery: Backoff::default(),
            manifest_again: Again::default(),
            branch_again: Again::default(),
            capture: None,
            index: None,
            capture_failed: None,
            merge: None,
            away: None,
            last_beat,
        };
        let (metrics, clock) = (daemon.archiver.parts.metrics.clone(), daemon.archiver.parts.clock.clone());
        tokio::pin!(shutdown);
        daemon.contend()?;
        loop {
            daemon.tell();
            let (waits_in, ahead) = (daemon.waits_in(), daemon.ahead());
            let next = attended(&metrics, &*clock, daemon.step()).await?;
            let idle = next != Next::AtOnce;
            let quiet = ahead.filter(|_| next == Next::Nothing && daemon.waits_in() == waits_in);
            let rests = quiet.is_some();
            sentry.wait_for(quiet);
            let pause = if rests { daemon.rest(&sentry) } else { daemon.archiver.config.poll };
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(command) = commands.recv() => {
                    daemon.command(command);
                }
                Ok(()) = settings.changed() => daemon.archiver.adopt(&settings.borrow_and_update()),
                delivered = wait(&mut daemon.delivery) => {
                    attended(&metrics, &*clock, daemon.delivered(delivered)).await?;
                }
                () = BaseJob::is_ready(&mut daemon.base), if idle => {}
                () = daemon.archiver.changed.notified(), if idle => {}
                () = tokio::time::sleep(pause), if idle => {}
                () = std::future::ready(()), if !idle => {}
            }
        }
        daemon.finish().await
    }
}

/// A pause behind what failed: a store that refuses at once is not asked at every look.
#[derive(Debug, Default)]
struct Again {
    backoff: Backoff,
    rests: Option<(Micros, Duration)>,
}

impl Again {
    fn is_due(&self, now: Micros) -> bool {
        self.rests.is_none_or(|(failed, pause)| elapsed(failed, now) >= pause)
    }

    fn failed(&mut self, parts: &Parts) {
        let now = parts.clock.now();
        if self.rests.is_some_and(|(failed, pause)| elapsed(failed, now) > pause * 4) {
            // It went well in between.
            self.backoff = Backoff::default();
        }
        self.rests = Some((now, self.backoff.next(&*parts.random)));
    }
}

/// Waits for a task, for ever if there is none.
async fn wait<T>(task: &mut Option<JoinHandle<Result<T>>>) -> Result<T> {
    match task {
        None => std::future::pending().await,
        Some(running) => {
            let done = running.await;
            *task = None;
            joined(done)
        }
    }
}

fn joined<T>(done: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    done.unwrap_or_else(|e| Err(Error::new(Code::Internal, "waiting for a task of the archiver").because(e)))
}

impl Daemon {
    /// The WAL whose next record is waited for, if nothing is under way or held back that a step would have to go on with.
    fn waits_in(&self) -> Option<FileNumber> {
        let settled = self.delivery.is_none()
            && self.base.is_none()
            && self.base_waiters.is_empty()
            && self.requests.is_empty()
            && self.capture.is_none()
            && self.archiver.pending.is_none()
            && self.archiver.engine.stream.is_empty();
        if settled { self.archiver.engine.waits_in() } else { None }
    }

    /// Where news would appear, if nothing else is waited for.
    fn ahead(&self) -> Option<Ahead> {
        self.waits_in().and_then(|_| self.archiver.engine.ahead())
    }

    /// How long to rest while the sentry stands: as long as new directory entries may wait that no event tells of, and what is
    /// due by the clock.
    fn rest(&self, sentry: &Sentry) -> Duration {
        let config = &self.archiver.config;
        let listing =
            if self.archiver.engine.registry().is_watched() { sentry.pause(SCAN_INTERVAL) } else { SCAN_INTERVAL };
        listing.min(config.heartbeat).min(config.manifest_interval).max(config.poll)
    }

    /// One look, and everything that is due.
    async fn step(&mut self) -> Result<Next> {
        // Reading and compressing takes up to a few milliseconds a megabyte: other tasks of this thread move elsewhere.
        let all = self.requests.want_a_look();
        let look = |archiver: &mut Archiver| if all { archiver.poll() } else { archiver.look() };
        let polled = match tokio::task::block_in_place(|| look(&mut self.archiver)) {
            Err(e) if matches!(e.code(), Code::NotADatabase | Code::MarkerDamaged) => {
                self.away(e)?;
                Polled::default()
            }
            polled => {
                // A fork is not read behind, so its look tells nothing.
                if self.archiver.engine.forked().is_none() {
                    self.away = None;
                }
                polled?
            }
        };
        if polled.caught_up || self.archiver.engine.waiting().is_some() {
            if all && self.archiver.engine.forked().is_none() {
                self.requests.everything_is_read(self.place());
            }
            self.fix_floor(polled)?;
        }
        // After the look: what it read is not younger than now.
        let now = self.archiver.parts.clock.now();
        if self.delivery.is_none()
            && self.archiver.reach.failing().is_none()
            && self.branch_again.is_due(now)
            && let Err(e) = self.archiver.branch_if_forked().await
        {
            match e.code() {
                Code::NotADatabase
                | Code::MarkerDamaged
                | Code::OptionsMalformed
                | Code::ManifestCorrupt
                | Code::FileNotFound => self.away(e)?,
                _ => {
                    self.branch_again.failed(&self.archiver.parts);
                    temporary(e, "the next timeline could not be begun; it is tried again")?;
                }
            }
        }
        self.serve_requests().await?;
        self.keep_within_limits(now)?;
        self.tell_observer();
        let mut next = Next::Nothing;
        if self.away.is_none() {
            next = self.base_step(now).await?;
            self.capture_step(now).await?;
        }
        if self.delivery.is_none()
            && self.archiver.reach.failing().is_none()
            && self.archiver.roll_up.due(
                now,
                self.archiver.config.manifest_interval,
                self.archiver.config.manifest_segments,
            )
            && self.manifest_again.is_due(now)
            && let Err(e) = self.close_manifest().await
        {
            self.manifest_again.failed(&self.archiver.parts);
            temporary(e, "the manifest could not be written; it is tried again")?;
        }
        self.index_step();
        self.merge_step().await;
        // Last: while a database is written to, there is always one more segment, and whoever waits for a moment at which none
        // is under way (requests, a base's publication, a manifest) would wait for ever.
        self.ship_if_due(now)?;
        Ok(match (polled.caught_up, polled.records) {
            _ if next == Next::AtOnce => next,
            (true, 0) => Next::Nothing,
            (true, _) | (false, 0) => Next::Poll,
            (false, _) => Next::AtOnce,
        })
    }

    /// There is no database, or not all of one: the directory is being replaced, and what was read before is shipped
    /// meanwhile. What is there and stays unreadable is an error in the end.
    fn away(&mut self, e: Error) -> Result<()> {
        let now = self.archiver.parts.clock.now();
        let Some(since) = self.away else {
            tracing::warn!(error = %e, "there is no database; it is waited for");
            self.away = Some(now);
            return Ok(());
        };
        match e.code() {
            Code::NotADatabase => Ok(()),
            _ if elapsed(since, now) < REPLACING => Ok(()),
            _ => Err(e),
        }
    }

    /// Once in a manifest's interval it is made sure that no other archiver writes into another timeline.
    async fn close_manifest(&mut self) -> Result<()> {
        self.archiver.refuse_second_place().await?;
        self.archiver.close_manifest().await
    }

    /// Indexes are written beside everything else, one after another.
    fn index_step(&mut self) {
        if self.index.as_ref().is_none_or(JoinHandle::is_finished) && self.archiver.reach.failing().is_none() {
            let next = self.archiver.next_index();
            self.index = next.map(|next| tokio::spawn(next.write().in_current_span()));
        }
    }

    /// Files of flushes, and those that entered without the log, are uploaded beside it.
    async fn capture_step(&mut self, now: Micros) -> Result<()> {
        match self.capture.take() {
            None => {
                let rested = self.capture_failed.is_none_or(|at| elapsed(at, now) >= CAPTURE_AGAIN);
                if rested && let Some(next) = self.archiver.next_capture() {
                    self.capture = Some(tokio::spawn(next.upload().in_current_span()));
                }
            }
            Some(task) if task.is_finished() => {
                let captured = joined(task.await.map(Ok))?;
                self.capture_failed = None;
                if let Err(e) = self.archiver.captured(captured) {
                    temporary(e, AGAIN)?;
                    self.capture_failed = Some(now);
                }
            }
            Some(task) => self.capture = Some(task),
        }
        Ok(())
    }

    /// Small segments are merged beside everything else, one deed at a time, while the archive answers.
    async fn merge_step(&mut self) {
        match self.merge.take() {
            None => {
                if self.archiver.reach.failing().is_none()
                    && let Some(deed) = self.archiver.next_merge()
                {
                    self.merge = Some((deed.joins, tokio::spawn(deed.perform().in_current_span())));
                }
            }
            Some((joins, task)) if task.is_finished() => {
                let done = joined(task.await);
                self.archiver.merge_done(joins, done);
            }
            Some(running) => self.merge = Some(running),
        }
    }

    async fn finish(mut self) -> Result<()> {
        if let Some(job) = self.base.take() {
            job.abandon();
        }
        self.server_goes_on(Linking::Failed);
        if let Some(task) = self.capture.take() {
            task.abort();
        }
        // Whoever writes the next larger one writes it.
        if let Some(task) = self.index.take() {
            task.abort();
        }
        if let Some((_, task)) = self.merge.take() {
            task.abort();
        }
        self.requests.refuse(|| Error::new(Code::ControlUnavailable, "asking the archiver").with("state", "stopping"));
        let reach = self.archiver.reach.clone();
        let ended = tokio::select! {
            drained = self.drain() => drained,
            e = stays_away(reach) => Err(e),
        };
        if ended.is_err() {
            // What is pinned is all that the next process has.
            self.archiver.note_what_is_there()?;
        }
        ended?;
        self.archiver.close().await
    }
}

/// Ends when the archive has not answered for as long as an orderly end may take.
async fn stays_away(reach: Arc<Reach>) -> Error {
    let mut patience = LAST_ATTEMPTS;
    loop {
        tokio::time::sleep(LOOKED_AFTER).await;
        match reach.failing() {
            None => patience = LAST_ATTEMPTS,
            Some(failing) if patience <= LOOKED_AFTER => {
                return Error::new(Code::StoreUnavailable, "shipping the rest")
                    .with("attempts", failing.attempts)
                    .with("the last", failing.error)
                    .hint("what is not shipped is pinned: the next run goes on where the archive ends");
            }
            Some(_) => patience -= LOOKED_AFTER,
        }
    }
}

/// Passes on errors that do not pass by themselves.
fn temporary(e: Error, what: &str) -> Result<()> {
    if ship::passes(e.code()) {
        tracing::warn!(error = %e, "{what}");
        Ok(())
    } else {
        Err(e)
    }
}
