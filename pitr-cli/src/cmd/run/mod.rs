//! `pitr run`: the archiver of one database, or of all that a configuration names, until a signal comes.
//!
//! Owns: what to archive (options or a configuration), refusing a store that would let two archivers overwrite each other, before anything is written, and turning
//! SIGTERM and SIGINT into an orderly end.

mod clockwork;
mod hooks;
mod reload;
mod service;

use std::{net::SocketAddr, sync::Arc};

use pitr_archive::{
    Code, Error, Result,
    catalog::archive::Archive,
    keyring::MasterKey,
    store::{
        Store,
        measured::MeasuredStore,
        probe::{Step, probe},
        url,
    },
};
use pitr_archiver::{
    Archiver, Parts, Standby,
    budget::{self, Budget, Floor},
    config::Rival,
    engine::Flushes,
};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use self::reload::OfProcess;
use crate::{
    alone::Alone,
    args::archiving::{LimitArgs, RunArgs, WhenFull},
    cmd::work,
    context::Context,
    output::{Verdict, json::ShownPosition, text},
    settings::{
        file::{Drill, Hooks, Http, Schedule},
        jobs::{self, Job},
        limits::ResourceLimits,
        secret::SecretRef,
        sources,
    },
    systemd,
    web::{
        self, Listening,
        board::{Board, Limits, Panel, State},
    },
};

#[derive(Serialize)]
struct CaughtUp {
    database: String,
    archive: String,
    position: ShownPosition,
}

#[derive(Serialize)]
struct AllCaughtUp {
    databases: Vec<CaughtUp>,
}

/// Archives.
pub async fn run(context: &Context, args: &RunArgs) -> Result<Verdict> {
    let (jobs, process) = match &args.config {
        Some(path) => {
            let file = sources::load(path, sources::environment())?.file;
            (jobs::of(&file)?, OfProcess::of(&file))
        }
        None => (vec![named(args)?], OfProcess::default()),
    };
    let mut jobs = jobs;
    for job in &mut jobs {
        job.config.rival = if args.take_over { Rival::TakeOver } else { Rival::Leave };
    }
    let http = &process.http;
    refuse_unfit_databases(&jobs, args)?;
    large_files_are_errors()?;
    // Listened for before there is anything to end.
    let shutdown = shutdown(if args.config.is_some() && !args.once { Hangup::ReadsAgain } else { Hangup::Ends })?;
    if args.once {
        let named_by = if args.config.is_some() { NamedBy::File } else { NamedBy::Options };
        return catch_up(context, &jobs, named_by, shutdown).await;
    }
    let board = Arc::new(Board::new(Arc::clone(&context.clock), &jobs, limits(args, http)));
    seen(&board, args.http.or(http.listen.as_ref().map(|listen| listen.0))).await?;
    match (&args.config, jobs.as_slice(), board.panels.as_slice()) {
        (None, [job], [panel]) => {
            let _died = panel.guard();
            let ended = service::Keeper::single(context, job, panel).attended(shutdown).await;
            panel.set(ended.as_ref().err().map_or(State::Ended, |e| State::GivenUp(e.into())));
            ended?;
        }
        (path, ..) => {
            let path = path.clone().unwrap_or_default();
            service::run(context, (&path, &process), jobs, &board.panels, shutdown).await?;
        }
    }
    Ok(Verdict::Done)
}

/// A misspelt path must not leave an archive behind. Of a service with several databases, one that is not there (its file
/// system is not mounted yet, it is being replaced) keeps the others from nothing: it is waited for.
fn refuse_unfit_databases(jobs: &[Job], args: &RunArgs) -> Result<()> {
    let waits = args.config.is_some() && !args.once;
    let mut absent = Vec::new();
    for job in jobs {
        match work::refuse_unfit(&job.config, &job.url) {
            Err(e) if waits && e.code() != Code::ConfigContradictory => absent.push((job, e)),
            there => there?,
        }
    }
    if absent.len() == jobs.len() {
        return absent.into_iter().next().map_or(Ok(()), |(_, e)| Err(e));
    }
    for (job, e) in absent {
        tracing::warn!(database = job.name, hint = e.hint_text(), "{e}");
    }
    Ok(())
}

/// What the command line says goes before what the file says.
fn limits(args: &RunArgs, http: &Http) -> Limits {
    let usual = Limits::default();
    Limits {
        max_lag: args.ready_max_lag.or(http.ready_max_lag.map(|v| v.0)).unwrap_or(usual.max_lag),
        max_base_age: args.ready_max_base_age.or(http.ready_max_base_age.map(|v| v.0)).or(usual.max_base_age),
    }
}

/// Lets it be seen from outside: by the service manager where there is one, and over HTTP where that is asked for.
async fn seen(board: &Arc<Board>, listen: Option<SocketAddr>) -> Result<()> {
    systemd::check()?;
    if let Some(address) = listen {
        let listening = Listening::on(address).await?;
        tokio::spawn(listening.serve(Arc::clone(board)));
        tokio::spawn(web::keep(Arc::clone(board)));
    }
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        tokio::spawn(systemd::tell(Arc::clone(board)));
    }
    Ok(())
}

/// What the process may use: options, and where they say nothing, the configuration.
pub fn resources(args: &RunArgs) -> Result<ResourceLimits> {
    let LimitArgs { upload_rate, read_rate, nice, threads } = args.limits;
    let typed = ResourceLimits { upload_rate, read_rate, nice, threads };
    match &args.config {
        Some(path) => Ok(typed.or(&sources::load(path, sources::environment())?.file.limits)),
        None => Ok(typed),
    }
}

/// The one database that options name.
fn named(args: &RunArgs) -> Result<Job> {
    let (Some(database), Some(archive)) = (args.database.given(), args.archive.given()) else {
        return Err(Error::new(Code::Usage, "reading the command line")
            .with("missing", "--db and --archive, or --config")
            .hint("pitr run --db DIR --archive URL, or pitr run --config pitr.toml; see pitr run --help"));
    };
    let mut config = work::config(&database);
    config.interval = args.interval;
    config.segment_bytes = args.segment_size;
    config.poll = args.poll;
    config.heartbeat = args.heartbeat;
    config.manifest_interval = args.manifest_interval;
    config.compression_level = args.compression_level;
    config.barrier_base_spacing = args.barrier_base_spacing;
    config.barrier_base_spacing_max = args.barrier_base_spacing_max;
    config.unlogged_tolerate.clone_from(&args.unlogged_tolerate);
    config.capture_bytes = args.capture_limit;
    config.flushes = if args.ship_flushes { Flushes::Ship } else { Flushes::Leave };
    config.include.clone_from(&args.include);
    let name = config.db.display().to_string();
    config.budget = Budget {
        bytes: args.pin_budget,
        when_full: match args.when_full {
            WhenFull::Hold => budget::WhenFull::Hold,
            WhenFull::Barrier => budget::WhenFull::Barrier,
        },
        floor: args.min_free.map_or(Floor::Usual, Floor::Bytes),
    };
    let key = archive.key_file.map(SecretRef::File);
    Ok(Job {
        name,
        config,
        url: archive.archive,
        key,
        schedule: Schedule::default(),
        retention: None,
        drill: Drill::default(),
        hooks: Hooks::default(),
    })
}

/// Opens a job's archive, creating it when there is none; its store is measured.
async fn open_measured(context: &Context, job: &Job, panel: &Panel) -> Result<Archive> {
    let store = MeasuredStore::new(context.store(&job.url).await?, Arc::clone(&panel.meter));
    let store: Arc<dyn Store> = Arc::new(store);
    refuse_unfit(&*store).await?;
    let key = key(job).await?;
    context.archive_or_new(&job.config.state, context.limited(store), key).await
}

/// Opens a job's archive to read it.
async fn open_archive(context: &Context, job: &Job) -> Result<Archive> {
    let key = key(job).await?;
    Archive::open(context.store(&job.url).await?, key).await
}

async fn key(job: &Job) -> Result<Option<MasterKey>> {
    match job.key.clone() {
        Some(key) => key.read_key().await.map(Some),
        None => Ok(None),
    }
}

/// Opens a job's archive and the archiver on it.
async fn open(context: &Context, job: &Job, panel: &Panel) -> Result<(Alone, Archiver)> {
    let archive = open_measured(context, job, panel).await?;
    let read_rate = context.rates.read.clone();
    let parts = Parts { metrics: Arc::clone(&panel.metrics), read_rate, ..Parts::system() };
    Alone::join(Standby::begin(job.config.clone(), parts)?, archive).await.map_err(|(_, e)| e)
}

fn told(job: &Job) {
    let interval = text::duration(job.config.interval);
    tracing::info!(database = job.name, archive = url::redacted(&job.url), %interval, "archiving until stopped");
}

/// What names the databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NamedBy {
    /// Options: one database.
    Options,
    /// A file: any number of them, and its answer has the same form also where it is one.
    File,
}

/// Brings every archive up to date, one after the other, and ends.
async fn catch_up(
    context: &Context,
    jobs: &[Job],
    named_by: NamedBy,
    shutdown: impl Future<Output = ()>,
) -> Result<Verdict> {
    tokio::pin!(shutdown);
    let mut all = Vec::new();
    for job in jobs {
        let panel = Panel::new(job, Arc::clone(&context.clock));
        let (_alone, mut archiver) = open(context, job, &panel).await?;
        let position = tokio::select! {
            position = archiver.catch_up() => position?,
            () = &mut shutdown => return Err(Error::new(Code::Interrupted, "catching up")),
        };
        archiver.close().await?;
        let archive = url::redacted(&job.url);
        if !context.output.is_json() {
            context.output.line(format!(
                "Caught up: {archive} holds {} up to {}, sequence {}.",
                job.name,
                text::boundary(position.timeline, position.boundary),
                position.sequence
            ))?;
        }
        all.push(CaughtUp { database: job.name.clone(), archive, position: ShownPosition::from(&position) });
    }
    match (context.output.is_json(), named_by, all.pop()) {
        (true, NamedBy::Options, Some(only)) => context.output.json(&only)?,
        (true, _, last) => context.output.json(&AllCaughtUp { databases: all.into_iter().chain(last).collect() })?,
        _ => {}
    }
    Ok(Verdict::Done)
}

/// What a service says it supports and what it does are two things: two archivers are only kept apart where creating an
/// object really is exclusive.
async fn refuse_unfit(store: &dyn Store) -> Result<()> {
    let report = probe(store).await;
    for step in &report.steps {
        tracing::debug!(step = step.step.title(), micros = step.micros, ok = step.error.is_none(), "probed the store");
    }
    if let Some(left) = report.left_behind.first() {
        tracing::warn!(object = %left, "the store's probe could not be deleted");
    }
    // A failed deletion does not endanger anything that is archived; everything else does.
    let failed = report.steps.into_iter().filter(|s| !matches!(s.step, Step::Delete | Step::DeleteMissing));
    failed.filter_map(|s| s.error).next().map_or(Ok(()), Err)
}

/// A file that may not grow (`ulimit -f`, a unit's `LimitFSIZE`) would end the process by a signal; with somebody who
/// listens for it, it is an error like others.
fn large_files_are_errors() -> Result<()> {
    let kind = SignalKind::from_raw(libc::SIGXFSZ);
    // The handler stays for the life of the process.
    signal(kind).map(drop).map_err(|e| Error::new(Code::Internal, "listening for signals").because(e))
}

/// What SIGHUP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hangup {
    /// The terminal is gone: end in order.
    Ends,
    /// Somebody else listens for it.
    ReadsAgain,
}

/// Completes at the first SIGTERM or SIGINT. A second one ends the process at once: whoever sends it does not want to
/// wait for a store that does not answer, and what is not shipped is pinned for the next run.
fn shutdown(hangup: Hangup) -> Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).map_err(|e| Error::new(Code::Internal, "listening for signals").because(e));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hup = match hangup {
        Hangup::Ends => Some(listen(SignalKind::hangup())?),
        Hangup::ReadsAgain => None,
    };
    Ok(async move {
        let hung_up = async {
            match &mut hup {
                Some(hup) => hup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hung_up => tracing::info!("SIGHUP: shipping the rest"),
            _ = term.recv() => tracing::info!("SIGTERM: shipping the rest"),
            _ = int.recv() => tracing::info!("interrupted: shipping the rest"),
        }
        systemd::stopping();
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            tracing::warn!("told to end again: the rest is not shipped; the next run goes on where the archive ends");
            std::process::exit(i32::from(Code::Interrupted.exit().status()));
        });
    })
}
