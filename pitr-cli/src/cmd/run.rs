//! `pitr run`: the archiver, until a signal comes.
//!
//! Owns: refusing a store that would let two archivers overwrite each other, before anything is written, and turning
//! SIGTERM and SIGINT into an orderly end.

use pitr_archive::{
    Code, Error, Result,
    store::{
        Store,
        probe::{Step, probe},
    },
};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::archiving::RunArgs,
    cmd::work,
    context::Context,
    output::{Verdict, json::ShownPosition, text},
};

#[derive(Serialize)]
struct CaughtUp {
    database: String,
    archive: String,
    position: ShownPosition,
}

/// Archives.
pub async fn run(context: &Context, args: &RunArgs) -> Result<Verdict> {
    let mut config = work::config(&args.database);
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
    config.include.clone_from(&args.include);
    let database = config.db.display().to_string();

    work::refuse_no_database(&config)?;
    let store = context.store(&args.archive.archive).await?;
    refuse_unfit(&*store).await?;
    let place = store.describe();
    // Both are listened for before there is anything to end.
    let shutdown = shutdown()?;
    let archive = context.archive_or_new(store, &args.archive).await?;
    let mut archiver = pitr_archiver::Archiver::open(config, archive, pitr_archiver::Parts::system()).await?;
    if !args.once {
        tracing::info!(database, archive = place, interval = %text::duration(args.interval), "archiving until stopped");
        archiver.run(shutdown).await?;
        return Ok(Verdict::Done);
    }
    let position = tokio::select! {
        position = archiver.catch_up() => position?,
        () = shutdown => return Err(Error::new(Code::Interrupted, "catching up")),
    };
    archiver.close().await?;
    if context.output.is_json() {
        let position = ShownPosition::from(&position);
        context.output.json(&CaughtUp { database, archive: place, position })?;
    } else {
        context.output.line(format!(
            "Caught up: {place} holds {database} up to {}, sequence {}.",
            text::boundary(position.timeline, position.boundary),
            position.sequence
        ))?;
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

/// Completes at the first SIGTERM or SIGINT. A second one ends the process at once: whoever sends it does not want to
/// wait for a store that does not answer, and what is not shipped is pinned for the next run.
fn shutdown() -> Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).map_err(|e| Error::new(Code::Internal, "listening for signals").because(e));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => tracing::info!("SIGTERM: shipping the rest"),
            _ = int.recv() => tracing::info!("interrupted: shipping the rest"),
        }
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
