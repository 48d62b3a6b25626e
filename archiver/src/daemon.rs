//! The archiver as a daemon.
//!
//! Owns: when things happen. One task owns the engine; deliveries, the linking and the upload of a base run beside it,
//! so that the log is read and pinned whatever the store does. At most one segment is under way and one is being filled:
//! when both are full, reading stops and the pins hold what is not read yet; only a server that recycles its WALs
//! overwrites them all the same, and what it overwrote unread is a barrier.
//! Refuses: to decide what is right (the engine) or to format anything (the command line).

use std::{future::Future, sync::Arc, time::Duration};

use pitr_archive::{Code, Error, Result, catalog::schema::BaseFile, clock::Micros, ids::FileNumber};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tracing::Instrument as _;

use crate::{
    Archiver, ArchiverConfig, Parts,
    archiver::{BaseInProgress, Floor, Heartbeat, SCAN_INTERVAL, captures::Captured, of_another_history},
    base::{collect::Collected, upload},
    control::{Answer, Command, ControlServer, Request},
    elapsed::elapsed,
    engine::{BaseReason, Polled},
    metrics::Figures,
    observer::{Failure, Linking, Notice, Observer},
    quiet::{Ahead, Sentry},
    requests::{Archived, Place, Requests, Wanted, answer},
    ship::{self, Backoff, Delivered, Reach},
};

/// Control requests waiting; more requesters wait at the socket.
const COMMANDS: usize = 16;

/// Between two attempts to upload the same files that entered without the log.
const CAPTURE_AGAIN: Duration = Duration::from_secs(5);

/// A server is kept at rest for a base at most so long; linking takes milliseconds.
const AT_REST: Duration = Duration::from_secs(10);

/// A directory may be copied into the database's place for so long.
const REPLACING: Duration = Duration::from_secs(600);

/// An archiver that is told to end while its archive does not answer goes on trying for so long.
const LAST_ATTEMPTS: Duration = Duration::from_secs(20);
/// How often that is looked after.
const LOOKED_AFTER: Duration = Duration::from_secs(1);
/// How often it is said how things are while the loop waits for the store.
const TELL: Duration = Duration::from_secs(1);

/// A base on its way.
enum BaseJob {
    /// The server is brought to rest.
    Quiescing { reason: BaseReason, created: Micros, task: JoinHandle<Result<()>> },
    /// Files are being linked.
    Linking { reason: BaseReason, created: Micros, branches: u64, task: JoinHandle<Result<Collected>> },
    /// Linked; the floor is fixed by the next look that reads everything.
    Linked { reason: BaseReason, created: Micros, branches: u64, collected: Collected },
    /// Files are being uploaded.
    Uploading { created: Micros, floor: Floor, task: JoinHandle<Result<(Collected, Vec<BaseFile>)>> },
    /// Uploaded; waits until the archive has acknowledged the floor.
    Uploaded { created: Micros, floor: Floor, collected: Collected, files: Vec<BaseFile> },
}

impl BaseJob {
    /// Ends it. Its links go with what holds them; a linking thread that is under way ends with its own.
    fn abandon(self) {
        match self {
            Self::Quiescing { task, .. } => task.abort(),
            Self::Linking { task, .. } => task.abort(),
            Self::Uploading { task, .. } => task.abort(),
            Self::Linked { .. } | Self::Uploaded { .. } => {}
        }
    }
}

/// A server that was brought to rest for a base. However this ends, it is told to go on, once.
#[derive(Debug)]
struct AtRest {
    since: Micros,
    observer: Option<Arc<dyn Observer>>,
}

impl AtRest {
    fn since(now: Micros, parts: &Parts) -> Self {
        Self { since: now, observer: Some(parts.observer.clone()) }
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

/// What was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    TheLimit,
}

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
    delivery: Option<JoinHandle<Result<Delivered>>>,
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
    capture: Option<JoinHandle<Captured>>,
    capture_failed: Option<Micros>,
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
            capture: None,
            capture_failed: None,
            away: None,
            last_beat,
        };
        tokio::pin!(shutdown);
        loop {
            daemon.tell();
            let (waits_in, ahead) = (daemon.waits_in(), daemon.ahead());
            let next = daemon.step().await?;
            let idle = next != Next::AtOnce;
            let quiet = ahead.filter(|_| next == Next::Nothing && daemon.waits_in() == waits_in);
            let pause = if quiet.is_some() { daemon.rest() } else { daemon.archiver.config.poll };
            sentry.wait_for(quiet);
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(command) = commands.recv() => {
                    daemon.command(command);
                }
                Ok(()) = settings.changed() => daemon.archiver.adopt(&settings.borrow_and_update()),
                delivered = wait(&mut daemon.delivery) => daemon.delivered(delivered).await?,
                () = daemon.archiver.changed.notified(), if idle => {}
                () = tokio::time::sleep(pause), if idle => {}
                () = std::future::ready(()), if !idle => {}
            }
        }
        daemon.finish().await
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
    /// Says that the loop turns, and once a second how things are.
    fn tell(&self) {
        let (metrics, now) = (&self.archiver.parts.metrics, self.archiver.parts.clock.now());
        metrics.turned(now);
        if metrics.wants_figures(now) {
            match Figures::of(&self.archiver) {
                Ok(figures) => metrics.show(figures),
                // What it means for archiving is for the step that meets it.
                Err(e) => tracing::debug!(error = %e, "how things are could not be measured"),
            }
        }
    }

    /// Waits for the delivery under way, for as long as the store may be away: the loop turns meanwhile.
    async fn wait_for_delivery(&mut self) -> Result<Delivered> {
        loop {
            tokio::select! {
                delivered = wait(&mut self.delivery) => return delivered,
                () = tokio::time::sleep(TELL) => self.tell(),
            }
        }
    }

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

    /// How long to rest while the sentry stands: as long as new directory entries may wait, and what is due by the clock.
    fn rest(&self) -> Duration {
        let config = &self.archiver.config;
        SCAN_INTERVAL.min(config.heartbeat).min(config.manifest_interval).max(config.poll)
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
            && let Err(e) = self.archiver.branch_if_forked().await
        {
            match e.code() {
                Code::NotADatabase
                | Code::MarkerDamaged
                | Code::OptionsMalformed
                | Code::ManifestCorrupt
                | Code::FileNotFound => self.away(e)?,
                _ => temporary(e, "the next timeline could not be begun; it is tried again")?,
            }
        }
        self.serve_requests().await?;
        self.keep_within_limits(now)?;
        self.tell_observer();
        if self.away.is_none() {
            self.base_step(now).await?;
            self.capture_step(now).await?;
        }
        if self.delivery.is_none()
            && self.archiver.reach.failing().is_none()
            && self.archiver.roll_up.due(
                now,
                self.archiver.config.manifest_interval,
                self.archiver.config.manifest_segments,
            )
            && let Err(e) = self.close_manifest().await
        {
            temporary(e, "the manifest could not be written; it is tried again")?;
        }
        // Last: while a database is written to, there is always one more segment, and whoever waits for a moment at which none
        // is under way (requests, a base's publication, a manifest) would wait for ever.
        self.ship_if_due(now)?;
        Ok(match (polled.caught_up, polled.records) {
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

    /// A base that would hold too much is taken later: what the pins hold cannot be had again, a base can.
    fn keep_within_limits(&mut self, now: Micros) -> Result<()> {
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

    /// Once in a manifest's interval it is made sure that no other archiver writes into another timeline.
    async fn close_manifest(&mut self) -> Result<()> {
        self.archiver.refuse_second_place().await?;
        self.archiver.close_manifest().await
    }

    fn ship_if_due(&mut self, now: Micros) -> Result<()> {
        if self.delivery.is_some() {
            return Ok(());
        }
        let archiver = &mut self.archiver;
        if archiver.pending.is_none() {
            let full = archiver.engine.stream.plain_bytes() >= archiver.config.segment_bytes;
            let old = archiver.engine.stream.oldest().is_some_and(|t| elapsed(t, now) >= archiver.config.interval);
            let quiet = archiver.engine.stream.is_empty() && elapsed(self.last_beat, now) >= archiver.config.heartbeat;
            if full || old || quiet {
                archiver.cut(Heartbeat::Yes)?;
            } else if !self.requests.is_empty() {
                archiver.cut(Heartbeat::No)?;
            }
        }
        self.send_pending(Duration::ZERO);
        Ok(())
    }

    /// Begins to deliver what is cut, after a pause.
    fn send_pending(&mut self, pause: Duration) {
        if let Some(shipment) = self.archiver.pending.clone()
            && self.delivery.is_none()
        {
            self.last_beat = self.archiver.parts.clock.now();
            let (archive, epoch) = (self.archiver.archive.clone(), self.archiver.claim.epoch());
            let (parts, reach) = (self.archiver.parts.clone(), self.archiver.reach.clone());
            let deliver = async move {
                tokio::time::sleep(pause).await;
                ship::deliver_patiently(archive, epoch, shipment, parts, reach).await
            };
            self.delivery = Some(tokio::spawn(deliver.in_current_span()));
        }
    }

    async fn delivered(&mut self, delivered: Result<Delivered>) -> Result<()> {
        match self.archiver.delivered(delivered?).await {
            // What it takes to be sure could not be read: the shipment stays pending, and meets itself in the archive.
            Err(e) if ship::passes(e.code()) => {
                self.archiver.reach.failed(&e, self.archiver.parts.clock.now());
                let pause = self.redelivery.next(&*self.archiver.parts.random);
                tracing::warn!(error = %e, "what was shipped could not be confirmed; it is tried again");
                self.send_pending(pause);
                Ok(())
            }
            done => {
                self.redelivery = Backoff::default();
                done
            }
        }
    }

    fn place(&self) -> Place {
        Place { boundary: self.archiver.engine.position().boundary, joins: self.archiver.joins }
    }

    /// Answers those whose place the archive has.
    async fn serve_requests(&mut self) -> Result<()> {
        if self.requests.is_empty() || self.delivery.is_some() || self.archiver.pending.is_some() {
            return Ok(());
        }
        let place = Place { boundary: self.archiver.acknowledged().boundary, joins: self.archiver.joins };
        let archived = Archived { place, all: self.archiver.engine.stream.is_empty() };
        for (wanted, reply) in self.requests.served(archived) {
            let answered = match wanted {
                Wanted::Flush => Ok(Answer::Flush(self.archiver.acknowledged())),
                Wanted::Tag(begun) => self.archiver.finish_tag(begun).await.map(|tag| Answer::Tag(Box::new(tag))),
            };
            let fenced = answered.as_ref().err().is_some_and(|e| e.code() == Code::Fenced);
            answer(reply, answered);
            if fenced {
                return Err(Error::new(Code::Fenced, "serving a request"));
            }
        }
        Ok(())
    }

    /// Waits until everything read at this moment is acknowledged, or has to be read anew behind another process's segment.
    async fn ship_now(&mut self) -> Result<()> {
        let joins = self.archiver.joins;
        let target = self.archiver.engine.position().boundary;
        while joins == self.archiver.joins
            && (self.archiver.acknowledged().boundary < target
                || !self.archiver.engine.stream.is_empty()
                || self.archiver.pending.is_some())
        {
            if self.delivery.is_none() {
                self.archiver.cut(Heartbeat::No)?;
                self.send_pending(Duration::ZERO);
            }
            let delivered = self.wait_for_delivery().await;
            self.delivered(delivered).await?;
        }
        Ok(())
    }

    /// Reads everything, and waits until it is acknowledged.
    async fn drain(&mut self) -> Result<()> {
        loop {
            let archiver = &mut self.archiver;
            let joins = archiver.joins;
            let polled = tokio::task::block_in_place(|| archiver.poll())?;
            self.ship_now().await?;
            self.archiver.branch_if_forked().await?;
            if joins == self.archiver.joins && (polled.caught_up || self.archiver.engine.waiting().is_some()) {
                return Ok(());
            }
        }
    }

    /// Answers at once, or begins what is answered later.
    fn command(&mut self, command: Command) {
        let Command { request, reply } = command;
        match request {
            Request::Status => answer(reply, self.archiver.status().map(|status| Answer::Status(Box::new(status)))),
            Request::Flush => match self.archiver.engine.flush_owner() {
                Ok(_) => self.requests.add(Wanted::Flush, reply),
                Err(e) => answer(reply, Err(e)),
            },
            Request::Tag(request) => match self.archiver.begin_tag(&request) {
                Ok(begun) => self.requests.add(Wanted::Tag(begun), reply),
                Err(e) => answer(reply, Err(e)),
            },
            Request::Reload => self.archiver.parts.observer.reload(reply),
            Request::Base => {
                self.base_waiters.push(reply);
                if self.base.is_none() {
                    self.archiver.engine.want_base(BaseReason::Asked);
                    self.archiver.last_base_attempt = None;
                }
            }
        }
    }

    /// A look that began after a base's files were linked has read everything: its end is the floor.
    fn fix_floor(&mut self, polled: crate::engine::Polled) -> Result<()> {
        let Some(BaseJob::Linked { reason, created, branches, collected }) =
            self.base.take_if(|job| matches!(job, BaseJob::Linked { .. }))
        else {
            return Ok(());
        };
        if branches != self.archiver.branches {
            return self.base_failed(of_another_history(&self.archiver.config));
        }
        match self.archiver.fix_floor(&collected, &reason, polled) {
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
                let task = tokio::spawn(upload.in_current_span());
                self.base = Some(BaseJob::Uploading { created, floor, task });
            }
            Ok(None) => self.base = Some(BaseJob::Linked { reason, created, branches, collected }),
            Err(e) => self.base_failed(e)?,
        }
        Ok(())
    }

    async fn base_step(&mut self, now: Micros) -> Result<()> {
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
                let due = self.archiver.base_due(now).is_none() || !self.base_waiters.is_empty();
                // An archive that does not answer would only make its links hold what the server deletes meanwhile.
                let fits = self.archiver.reach.failing().is_none() && self.archiver.held_back.alarm().is_none();
                if spaced
                    && due
                    && fits
                    && let Some(reason) = useful
                {
                    self.archiver.last_base_attempt = Some(now);
                    let observer = self.archiver.parts.observer.clone();
                    let task = tokio::spawn(async move { observer.before_base().await });
                    self.base = Some(BaseJob::Quiescing { reason, created: now, task });
                }
            }
            Some(BaseJob::Quiescing { reason, created, task }) if task.is_finished() => match joined(task.await) {
                Ok(()) => {
                    self.at_rest = Some(AtRest::since(now, &self.archiver.parts));
                    let collector = self.archiver.collector(&reason);
                    let task = tokio::task::spawn_blocking(move || collector.collect());
                    let branches = self.archiver.branches;
                    self.base = Some(BaseJob::Linking { reason, created, branches, task });
                }
                Err(e) => self.base_failed(e)?,
            },
            Some(BaseJob::Linking { reason, created, branches, task }) if task.is_finished() => {
                match joined(task.await) {
                    Ok(collected) => self.base = Some(BaseJob::Linked { reason, created, branches, collected }),
                    Err(e) => self.base_failed(e)?,
                }
            }
            Some(BaseJob::Uploading { created, floor, task }) if task.is_finished() => match joined(task.await) {
                Ok((collected, files)) => {
                    self.base = Some(BaseJob::Uploaded { created, floor, collected, files });
                }
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

    /// Files that entered without the log are uploaded beside it.
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
                    temporary(e, "files that entered without the log could not be uploaded; it is tried again")?;
                    self.capture_failed = Some(now);
                }
            }
            Some(task) => self.capture = Some(task),
        }
        Ok(())
    }

    /// A server that was brought to rest for a base goes on, told once.
    fn server_goes_on(&mut self, linking: Linking) {
        if let Some(rest) = self.at_rest.take() {
            rest.ends(linking);
        }
    }

    /// Tells what is new.
    fn tell_observer(&mut self) {
        let archiver = &mut self.archiver;
        let observer = archiver.parts.observer.clone();
        let timeline = archiver.timeline();
        for (reason, at, detail) in archiver.engine.take_untold() {
            observer.notice(Notice::Barrier { reason, timeline, at, detail });
        }
        match (archiver.reach.failing(), self.told_away) {
            (Some(failing), None) => {
                self.told_away = Some(failing.since);
                let code = Code::StoreUnavailable;
                let (message, hint) = (failing.error, code.hint().to_owned());
                observer.notice(Notice::ArchiveAway(Failure { code: code.name(), message, hint }));
            }
            (None, Some(since)) => {
                self.told_away = None;
                observer.notice(Notice::ArchiveBack { since });
            }
            _ => {}
        }
        match (archiver.held_back.alarm(), self.told_limit) {
            (Some(limit), Told::Nothing) => {
                self.told_limit = Told::TheLimit;
                observer.notice(Notice::Limit { limit: limit.to_string() });
            }
            (None, Told::TheLimit) => self.told_limit = Told::Nothing,
            _ => {}
        }
    }

    /// A base that could not be taken is tried again later; whoever asked for it is told.
    fn base_failed(&mut self, e: Error) -> Result<()> {
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

    async fn finish(mut self) -> Result<()> {
        if let Some(job) = self.base.take() {
            job.abandon();
        }
        self.server_goes_on(Linking::Failed);
        if let Some(task) = self.capture.take() {
            task.abort();
        }
        self.requests.refuse(|| Error::new(Code::ControlUnavailable, "asking the archiver").with("state", "stopping"));
        let reach = self.archiver.reach.clone();
        tokio::select! {
            drained = self.drain() => drained?,
            e = stays_away(reach) => return Err(e),
        }
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
