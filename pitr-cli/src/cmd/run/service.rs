//! Several archivers in one process.
//!
//! Owns: that one database's trouble is not another's. An archiver that ends with an error which can pass is opened again
//! after a pause; one whose error cannot pass is given up, said, and told again by the exit code when the process ends.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use pitr_archive::{Code, Error, Result, code::Retry, store::url};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};
use tracing::Instrument as _;

use super::{open, told};
use crate::{
    context::Context,
    settings::jobs::Job,
    web::board::{Panel, State},
};

/// Before an archiver is opened again; doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// How far it grows.
const LONGEST: Duration = Duration::from_secs(60);
/// An archiver that ran for so long has not failed at once.
const SETTLED: Duration = Duration::from_secs(300);

/// Archives all of them until `shutdown`, or until each is given up.
///
/// # Errors
/// The first that an archiver was given up for.
pub async fn run(
    context: &Context,
    jobs: Vec<Job>,
    panels: &[Arc<Panel>],
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let (stop, stopping) = watch::channel(false);
    let mut running = jobs
        .into_iter()
        .zip(panels)
        .map(|(job, panel)| on_a_thread(context.clone(), job, Arc::clone(panel), stopping.clone()))
        .collect::<Result<FuturesUnordered<_>>>()?;
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
        };
        match ended {
            None => return first.map_or(Ok(()), Err),
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(e))) => first = first.or(Some(e)),
            Some(Err(_)) => first = first.or(Some(Error::new(Code::Internal, "waiting for an archiver"))),
        }
    }
}

/// A thread for each: reading a log waits for disks, and one that is slow must not hold up the others. What is sent to a
/// store is sent by the runtime's own threads.
fn on_a_thread(
    context: Context,
    job: Job,
    panel: Arc<Panel>,
    stopping: watch::Receiver<bool>,
) -> Result<oneshot::Receiver<Result<()>>> {
    let (done, ended) = oneshot::channel();
    let runtime = Handle::current();
    let name = format!("pitr {}", job.name);
    let spawned = thread::Builder::new().name(name).spawn(move || {
        let _died = panel.guard();
        let ended = runtime.block_on(keep(context, job, &panel, stopping));
        panel.set(ended.as_ref().err().map_or(State::Ended, |e| State::GivenUp(e.into())));
        // Nobody listens any more when the process ends.
        let _ = done.send(ended);
    });
    spawned.map_err(|e| Error::new(Code::Internal, "starting a thread").because(e))?;
    Ok(ended)
}

/// Archives one until it is told to stop.
async fn keep(context: Context, job: Job, panel: &Panel, mut stopping: watch::Receiver<bool>) -> Result<()> {
    let mut pause = PAUSE;
    loop {
        let began = Instant::now();
        // The sender lives as long as anybody waits.
        let mut told = stopping.clone();
        let stop = async move { drop(told.wait_for(|stop| *stop).await) };
        let Err(e) = once(&context, &job, panel, stop).await else { return Ok(()) };
        if began.elapsed() >= SETTLED {
            pause = PAUSE;
        }
        if e.code().retry() == Retry::Never {
            tracing::error!(database = job.name, hint = e.hint_text(), "given up until the next start: {e}");
            return Err(e);
        }
        panel.set(State::Failed((&e).into()));
        tracing::warn!(database = job.name, again_in = ?pause, "{e}");
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return Err(e),
            () = tokio::time::sleep(pause) => {}
        }
        pause = pause.saturating_mul(2).min(LONGEST);
    }
}

/// Opens one and archives it until it is told to stop. Everything that is logged meanwhile says whose it is.
pub(super) async fn once(
    context: &Context,
    job: &Job,
    panel: &Panel,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let span = tracing::info_span!("archiver", database = job.name, archive = url::redacted(&job.url));
    let run = async {
        tokio::pin!(shutdown);
        let archiver = tokio::select! {
            archiver = open(context, job, panel) => archiver?,
            () = &mut shutdown => return Ok(()),
        };
        panel.opened(Arc::clone(archiver.archive()));
        told(job);
        archiver.run(shutdown).await
    };
    run.instrument(span).await
}
