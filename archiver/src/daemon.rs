//! The archiver as a daemon.
//!
//! Owns: when things happen. One task owns the engine; deliveries, the linking and the upload of a base run beside it,
//! so that the log is read and pinned whatever the store does. At most one segment is under way and one is being filled:
//! when both are full, reading stops and the pins hold what is not read yet; only a server that recycles its WALs
//! overwrites them all the same, and what it overwrote unread is a barrier.
//! Refuses: to decide what is right (the engine) or to format anything (the command line).

use std::{future::Future, time::Duration};

use pitr_archive::{Code, Error, Result, catalog::schema::BaseFile, clock::Micros, ids::FileNumber};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    Archiver,
    archiver::{Floor, Heartbeat, SCAN_INTERVAL, captures::Captured, of_another_history},
    base::{collect::Collected, upload},
    control::{Answer, Command, ControlServer, Request},
    elapsed::elapsed,
    engine::{BaseReason, Polled},
    quiet::{Ahead, Sentry},
    ship::{self, Delivered},
};

/// Control requests waiting; more requesters wait at the socket.
const COMMANDS: usize = 16;

/// Between two attempts to upload the same files that entered without the log.
const CAPTURE_AGAIN: Duration = Duration::from_secs(5);

/// A directory may be copied into the database's place for so long.
const REPLACING: Duration = Duration::from_secs(600);

/// A base on its way.
enum BaseJob {
    /// Files are being linked.
    Linking { reason: BaseReason, created: Micros, branches: u64, task: JoinHandle<Result<Collected>> },
    /// Linked; the floor is fixed by the next look that reads everything.
    Linked { reason: BaseReason, created: Micros, branches: u64, collected: Collected },
    /// Files are being uploaded.
    Uploading { created: Micros, floor: Floor, task: JoinHandle<Result<(Collected, Vec<BaseFile>)>> },
    /// Uploaded; waits until the archive has acknowledged the floor.
    Uploaded { created: Micros, floor: Floor, collected: Collected, files: Vec<BaseFile> },
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
        let (sender, mut commands) = mpsc::channel(COMMANDS);
        let _server = ControlServer::start(&self.state_dir, sender)?;
        let sentry = Sentry::start(self.config.poll, self.changed.clone())?;
        let last_beat = self.parts.clock.now();
        let mut daemon = Daemon {
            archiver: self,
            delivery: None,
            base: None,
            base_waiters: Vec::new(),
            capture: None,
            capture_failed: None,
            away: None,
            last_beat,
        };
        tokio::pin!(shutdown);
        loop {
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
                    tokio::select! {
                        done = daemon.command(command) => done?,
                        () = &mut shutdown => break,
                    }
                }
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
    /// The WAL whose next record is waited for, if nothing is under way or held back that a step would have to go on with.
    fn waits_in(&self) -> Option<FileNumber> {
        let settled = self.delivery.is_none()
            && self.base.is_none()
            && self.base_waiters.is_empty()
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
        let polled = match tokio::task::block_in_place(|| self.archiver.look()) {
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
            self.fix_floor(polled)?;
        }
        // After the look: what it read is not younger than now.
        let now = self.archiver.parts.clock.now();
        if self.delivery.is_none()
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
        self.ship_if_due(now)?;
        if self.away.is_none() {
            self.base_step(now).await?;
            self.capture_step(now).await?;
        }
        if self.delivery.is_none()
            && self.archiver.roll_up.due(
                now,
                self.archiver.config.manifest_interval,
                self.archiver.config.manifest_segments,
            )
            && let Err(e) = self.close_manifest().await
        {
            temporary(e, "the manifest could not be written; it is tried again")?;
        }
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
            }
        }
        self.send_pending();
        Ok(())
    }

    fn send_pending(&mut self) {
        if let Some(shipment) = self.archiver.pending.clone()
            && self.delivery.is_none()
        {
            self.last_beat = self.archiver.parts.clock.now();
            let (archive, epoch) = (self.archiver.archive.clone(), self.archiver.claim.epoch());
            let random = self.archiver.parts.random.clone();
            let jitter = move || random.bytes::<1>().map_or(1.0, |[byte]| f64::from(byte) / 255.0);
            self.delivery =
                Some(tokio::spawn(async move { ship::deliver_patiently(archive, epoch, shipment, jitter).await }));
        }
    }

    async fn delivered(&mut self, delivered: Result<Delivered>) -> Result<()> {
        self.archiver.delivered(delivered?).await
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
                self.send_pending();
            }
            let delivered = wait(&mut self.delivery).await;
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

    async fn command(&mut self, command: Command) -> Result<()> {
        let answer = match command.request {
            Request::Status => self.archiver.status().map(|status| Answer::Status(Box::new(status))),
            Request::Flush => match self.archiver.engine.flush_owner() {
                Ok(_) => self.drain().await.map(|()| Answer::Flush(self.archiver.acknowledged())),
                Err(e) => Err(e),
            },
            Request::Tag(request) => match self.drain().await {
                // The delivery is done, so the archiver's own steps do not meet one that is under way.
                Ok(()) => self.archiver.tag(&request).await.map(|tag| Answer::Tag(Box::new(tag))),
                Err(e) => Err(e),
            },
            Request::Base => {
                self.base_waiters.push(command.reply);
                if self.base.is_none() {
                    self.archiver.engine.want_base(BaseReason::Asked);
                    self.archiver.last_base_attempt = None;
                }
                return Ok(());
            }
        };
        let fatal = answer.as_ref().err().is_some_and(|e| e.code() == Code::Fenced);
        let error = answer.as_ref().err().map(ToString::to_string);
        if command.reply.send(answer).is_err() {
            tracing::debug!(error, "the requester did not wait for the answer");
        }
        if fatal {
            return Err(Error::new(Code::Fenced, "serving a request"));
        }
        Ok(())
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
                let (run, at_once) = ((floor.position.timeline, floor.start.run), archiver.config.uploads);
                let task = tokio::spawn(async move {
                    let files =
                        upload::upload(&archive, &claim, &*random, &collected.files, &known, run, at_once).await?;
                    Ok((collected, files))
                });
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
                if spaced
                    && due
                    && let Some(reason) = useful
                {
                    self.archiver.last_base_attempt = Some(now);
                    let collector = self.archiver.collector(&reason);
                    let task = tokio::task::spawn_blocking(move || collector.collect());
                    let branches = self.archiver.branches;
                    self.base = Some(BaseJob::Linking { reason, created: now, branches, task });
                }
            }
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
            Some(other) => self.base = Some(other),
        }
        Ok(())
    }

    /// Files that entered without the log are uploaded beside it.
    async fn capture_step(&mut self, now: Micros) -> Result<()> {
        match self.capture.take() {
            None => {
                let rested = self.capture_failed.is_none_or(|at| elapsed(at, now) >= CAPTURE_AGAIN);
                if rested && let Some(next) = self.archiver.next_capture() {
                    self.capture = Some(tokio::spawn(next.upload()));
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

    /// A base that could not be taken is tried again later; whoever asked for it is told.
    fn base_failed(&mut self, e: Error) -> Result<()> {
        self.archiver.engine.end_hold();
        for waiter in self.base_waiters.drain(..) {
            let told = Error::new(e.code(), "taking the base").hint(e.hint_text()).because(e.to_string());
            if waiter.send(Err(told)).is_err() {
                tracing::debug!("the requester of the base did not wait for it");
            }
        }
        if e.code() == Code::Fenced {
            return Err(e);
        }
        if e.code() == Code::BaseNotPublishable {
            tracing::info!(error = %e, "the base would serve no target yet");
        } else {
            tracing::warn!(error = %e, "the base could not be taken; it is tried again");
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<()> {
        if let Some(BaseJob::Linking { task, .. }) = &self.base {
            task.abort();
        }
        if let Some(BaseJob::Uploading { task, .. }) = &self.base {
            task.abort();
        }
        self.base = None;
        if let Some(task) = self.capture.take() {
            task.abort();
        }
        self.drain().await?;
        self.archiver.close().await
    }
}

/// Passes on errors that do not pass by themselves.
fn temporary(e: Error, what: &str) -> Result<()> {
    if e.code().retry() == pitr_archive::code::Retry::Later {
        tracing::warn!(error = %e, "{what}");
        Ok(())
    } else {
        Err(e)
    }
}
