//! Archivers that are kept running, one or several in one process.
//!
//! Owns: that one archive's trouble is not another's. The database's files are pinned before its archive is reached, and stay
//! pinned while it cannot be ([`Standby`]). An archiver that ends with an error which can pass is opened again after a pause;
//! one whose error cannot pass is given up, said, and told again by the exit code when the process ends. And reading the
//! configuration again, at SIGHUP or `pitr reload`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, future, stream::FuturesUnordered};
use pitr_archive::{Code, Error, Result, code::Retry, store::url};
use pitr_archiver::{
    Archiver, ArchiverConfig, Parts, Standby,
    control::Reloaded,
    observer::{Failure, NoObserver, Notice, Observer},
    ship::{self, Backoff},
};
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
};
use tracing::Instrument as _;

use super::{
    clockwork::{self, Clockwork, Due},
    hooks::{Hooked, ReloadRequest, reloaded},
    open_measured,
    reload::{self, OfProcess},
    told,
};
use crate::{
    alone::Alone,
    context::Context,
    settings::{
        file::{File, Hooks},
        jobs::{self, Job},
        sources,
    },
    web::board::{Panel, State},
};

/// Before an archiver is opened again; doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// How far it grows.
const LONGEST: Duration = Duration::from_secs(60);
/// An archiver that ran for so long has not failed at once.
const SETTLED: Duration = Duration::from_secs(300);
/// While an archive cannot be reached, what is held for it is looked at this often.
const HELD_LOOK: Duration = Duration::from_secs(1);
/// People who ask for the configuration to be read again.
const RELOADS: usize = 4;

/// What of a job can change while it runs.
#[derive(Clone, Debug)]
pub struct Live {
    /// Of its archiver, as far as it is adopted ([`ArchiverConfig::adopt`]).
    pub config: ArchiverConfig,
    /// What is due by the clock.
    pub due: Due,
    /// Who is told.
    pub hooks: Hooks,
}

/// Where changes of a job go.
struct Levers {
    settings: watch::Sender<ArchiverConfig>,
    due: watch::Sender<Due>,
    hooked: Arc<Hooked>,
}

/// Archives all of them until `shutdown`, or until each is given up. `path` is the configuration, read again when asked.
///
/// # Errors
/// The first that an archiver was given up for.
pub async fn run(
    context: &Context,
    (path, process): (&Path, &OfProcess),
    mut jobs: Vec<Job>,
    panels: &[Arc<Panel>],
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let (stop, stopping) = watch::channel(false);
    let (wants_reload, mut reloads) = mpsc::channel(RELOADS);
    let mut hangup =
        signal(SignalKind::hangup()).map_err(|e| Error::new(Code::Internal, "listening for signals").because(e))?;
    let mut levers = BTreeMap::new();
    let mut running = FuturesUnordered::new();
    for (job, panel) in jobs.iter().zip(panels) {
        let (ended, own) = begin(context, job, Arc::clone(panel), &wants_reload, stopping.clone())?;
        levers.insert(job.name.clone(), own);
        running.push(ended);
    }
    tokio::pin!(shutdown);
    let mut told_to_stop = false;
    let mut first = None;
    loop {
        let ended = tokio::select! {
            ended = running.next() => ended,
            () = &mut shutdown, if !told_to_stop => {
                told_to_stop = true;
                stop.send_replace(true);
                continue;
            }
            Some(()) = hangup.recv() => {
                read_again(path, &mut jobs, process, &levers, None).await;
                continue;
            }
            Some(reply) = reloads.recv() => {
                read_again(path, &mut jobs, process, &levers, Some(reply)).await;
                continue;
            }
        };
        match ended {
            None => {
                future::join_all(levers.values().map(|lever| lever.hooked.settle())).await;
                return first.map_or(Ok(()), Err);
            }
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(e))) => first = first.or(Some(e)),
            Some(Err(_)) => first = first.or(Some(Error::new(Code::Internal, "waiting for an archiver"))),
        }
    }
}

/// Begins an archiver, its commands and its clockwork.
fn begin(
    context: &Context,
    job: &Job,
    panel: Arc<Panel>,
    wants_reload: &mpsc::Sender<ReloadRequest>,
    stopping: watch::Receiver<bool>,
) -> Result<(oneshot::Receiver<Result<()>>, Levers)> {
    let (database, archive) = (job.name.as_str(), url::redacted(&job.url));
    let reload = Some(wants_reload.clone());
    let hooked = Hooked::start(database, archive, job.hooks.clone(), Arc::clone(&context.clock), reload);
    let (settings, follows) = watch::channel(job.config.clone());
    let (due, given) =
        watch::channel(Due { schedule: job.schedule.clone(), retention: job.retention, drill: job.drill.clone() });
    let span = tracing::info_span!("clockwork", database = job.name);
    let (context, job) = (context.clone(), job.clone());
    let clockwork = Clockwork {
        context: context.clone(),
        job: job.clone(),
        panel: Arc::clone(&panel),
        hooked: Arc::clone(&hooked),
    };
    tokio::spawn(clockwork::run(clockwork, given).instrument(span));
    let keeper = Keeper { context, job, panel, observer: hooked.clone(), settings: follows };
    Ok((on_a_thread(keeper, stopping)?, Levers { settings, due, hooked }))
}

/// Reads the configuration again, and applies what can be applied.
async fn read_again(
    path: &Path,
    jobs: &mut [Job],
    process: &OfProcess,
    levers: &BTreeMap<String, Levers>,
    reply: Option<ReloadRequest>,
) {
    let answer = written(path.to_owned()).await.map(|written| {
        let reload::Changes { apply, told } = reload::compare((process, &written.0), jobs, &written.1);
        for (name, live) in apply {
            let (Some(lever), Some(job)) = (levers.get(&name), jobs.iter_mut().find(|job| job.name == name)) else {
                continue;
            };
            job.config = live.config.clone();
            job.schedule = live.due.schedule.clone();
            job.retention = live.due.retention;
            job.drill = live.due.drill.clone();
            job.hooks = live.hooks.clone();
            // An archiver that is gone needs no settings.
            lever.settings.send_replace(live.config);
            lever.due.send_replace(live.due);
            lever.hooked.change(live.hooks);
        }
        told
    });
    match &answer {
        Ok(Reloaded { changes }) => {
            for change in changes {
                tracing::info!(database = change.database, what = change.what, effect = ?change.effect, "reloaded");
            }
            tracing::info!(differences = changes.len(), "the configuration was read again");
        }
        Err(e) => tracing::error!(hint = e.hint_text(), "the configuration stays as it was: {e}"),
    }
    if let Some(reply) = reply {
        // Whoever asked and has gone away needs no answer.
        drop(reply.send(answer.map(reloaded)));
    }
}

async fn written(path: PathBuf) -> Result<(OfProcess, Vec<Job>)> {
    let read = tokio::task::spawn_blocking(move || {
        let file: File = sources::load(&path, sources::environment())?.file;
        Ok((OfProcess::of(&file), jobs::of(&file)?))
    });
    read.await.map_err(|e| Error::new(Code::Internal, "reading the configuration").because(e))?
}

/// What it means that an archiver cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// The end: whoever starts it is there, and sees what stands in the way.
    Attended,
    /// That it is tried again, where that can help.
    Unattended,
}

/// Whether an archiver that ended so is opened again: what passes by itself, what somebody sets right in the store, and a
/// directory that is being replaced, or whose file system is not mounted yet.
fn can_pass(code: Code) -> bool {
    ship::passes(code) || matches!(code, Code::NotADatabase | Code::FileNotFound)
}

/// Where an archiver failed.
enum Failed {
    Opening(Error),
    Running(Error),
}

/// One archiver and what keeps it running.
pub(super) struct Keeper {
    pub context: Context,
    pub job: Job,
    pub panel: Arc<Panel>,
    pub observer: Arc<dyn Observer>,
    pub settings: watch::Receiver<ArchiverConfig>,
}

impl Keeper {
    /// Of a database that options name: nobody is told, nothing changes.
    pub fn single(context: &Context, job: &Job, panel: &Arc<Panel>) -> Self {
        let (context, job, panel) = (context.clone(), job.clone(), Arc::clone(panel));
        let (_, settings) = watch::channel(job.config.clone());
        Self { context, job, panel, observer: Arc::new(NoObserver), settings }
    }
}

/// A thread for each: reading a log waits for disks, and one that is slow must not hold up the others. What is sent to a
/// store is sent by the runtime's own threads.
fn on_a_thread(keeper: Keeper, stopping: watch::Receiver<bool>) -> Result<oneshot::Receiver<Result<()>>> {
    let (done, ended) = oneshot::channel();
    let runtime = Handle::current();
    let name = format!("pitr {}", keeper.job.name);
    let spawned = thread::Builder::new().name(name).spawn(move || {
        let _died = keeper.panel.guard();
        let ended = runtime.block_on(keeper.keep(Opening::Unattended, stopping));
        keeper.panel.set(ended.as_ref().err().map_or(State::Ended, |e| State::GivenUp(e.into())));
        // Nobody listens any more when the process ends.
        let _ = done.send(ended);
    });
    spawned.map_err(|e| Error::new(Code::Internal, "starting a thread").because(e))?;
    Ok(ended)
}

impl Keeper {
    /// Archives until `shutdown`, or until it is given up. What stands in the way of opening it now is told at once: whoever
    /// starts it is there.
    pub(super) async fn attended(&self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let (stop, stopping) = watch::channel(false);
        let kept = self.keep(Opening::Attended, stopping);
        tokio::pin!(kept, shutdown);
        tokio::select! {
            done = &mut kept => return done,
            () = &mut shutdown => stop.send_replace(true),
        };
        kept.await
    }

    /// Archives until it is told to stop.
    async fn keep(&self, mut opening: Opening, mut stopping: watch::Receiver<bool>) -> Result<()> {
        let mut pause = PAUSE;
        loop {
            let began = Instant::now();
            // The sender lives as long as anybody waits.
            let mut told = stopping.clone();
            let stop = async move { drop(told.wait_for(|stop| *stop).await) };
            let e = match self.once(stop, opening).await {
                Ok(()) => return Ok(()),
                Err(Failed::Opening(e)) if opening == Opening::Attended => return Err(e),
                Err(Failed::Opening(e) | Failed::Running(e)) => e,
            };
            opening = Opening::Unattended;
            if began.elapsed() >= SETTLED {
                pause = PAUSE;
            }
            let database = self.job.name.as_str();
            if !can_pass(e.code()) {
                tracing::error!(database, hint = e.hint_text(), "given up until the next start: {e}");
                self.observer.notice(Notice::GivenUp(Failure::from(&e)));
                return Err(e);
            }
            self.panel.set(State::Failed((&e).into()));
            tracing::warn!(database, again_in = ?pause, "{e}");
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Err(e),
                () = tokio::time::sleep(pause) => {}
            }
            pause = pause.saturating_mul(2).min(LONGEST);
        }
    }

    /// Opens one and archives it until it is told to stop. Everything that is logged meanwhile says whose it is.
    async fn once(&self, shutdown: impl Future<Output = ()>, opening: Opening) -> std::result::Result<(), Failed> {
        let Self { job, panel, settings, .. } = self;
        let span = tracing::info_span!("archiver", database = job.name, archive = url::redacted(&job.url));
        let run = async {
            tokio::pin!(shutdown);
            let (_alone, archiver) = tokio::select! {
                reached = self.reach(opening) => reached.map_err(Failed::Opening)?,
                () = &mut shutdown => return Ok(()),
            };
            panel.opened(Arc::clone(archiver.archive()));
            told(job);
            archiver.run_with(settings.clone(), shutdown).await.map_err(Failed::Running)
        };
        run.instrument(span).await
    }

    /// Pins the database's files, and goes on trying to reach its archive for as long as that can help.
    async fn reach(&self, opening: Opening) -> Result<(Alone, Archiver)> {
        let Self { context, job, panel, observer, settings } = self;
        let (metrics, read_rate) = (Arc::clone(&panel.metrics), context.rates.read.clone());
        let parts = Parts { metrics, observer: observer.clone(), read_rate, ..Parts::system() };
        let config = settings.borrow().clone();
        let mut standby = Standby::begin(config, parts)?;
        let mut backoff = Backoff::default();
        let mut away = None;
        loop {
            // A store that does not answer takes its time to say so.
            let opened = {
                let opening = open_measured(context, job, panel);
                tokio::pin!(opening);
                loop {
                    tokio::select! {
                        opened = &mut opening => break opened,
                        () = tokio::time::sleep(HELD_LOOK) => self.hold(&mut standby)?,
                    }
                }
            };
            let failed = match opened {
                Ok(archive) => match Alone::join(standby, archive).await {
                    Ok(joined) => {
                        if let Some(since) = away {
                            observer.notice(Notice::ArchiveBack { since });
                        }
                        return Ok(joined);
                    }
                    Err((back, e)) => {
                        standby = *back;
                        e
                    }
                },
                Err(e) => e,
            };
            let goes_on = match opening {
                Opening::Attended => failed.code().retry() == Retry::Later,
                // As a running archiver does: to end would end the pins, too.
                Opening::Unattended => ship::passes(failed.code()),
            };
            if !goes_on {
                return Err(failed);
            }
            if away.is_none() {
                away = Some(context.clock.now());
                observer.notice(Notice::ArchiveAway(Failure::from(&failed)));
            }
            panel.set(State::Failed((&failed).into()));
            let pause = backoff.next(&*context.random);
            tracing::warn!(again_in = ?pause, "the archive is not reached; the database's files are pinned meanwhile: {failed}");
            let again = Instant::now() + pause;
            while Instant::now() < again {
                tokio::time::sleep(HELD_LOOK.min(again - Instant::now())).await;
                self.hold(&mut standby)?;
            }
        }
    }

    /// Keeps what is held for an archive that is not reached within the limits that hold now.
    fn hold(&self, standby: &mut Standby) -> Result<()> {
        standby.adopt(&self.settings.borrow());
        tokio::task::block_in_place(|| standby.keep_within_limits())
    }
}
