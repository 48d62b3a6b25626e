//! Several archivers in one process.
//!
//! Owns: that one database's trouble is not another's. An archiver that ends with an error which can pass is opened again
//! after a pause; one whose error cannot pass is given up, said, and told again by the exit code when the process ends.

use std::{
    thread,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use pitr_archive::{Code, Error, Result, code::Retry};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use super::{open, told};
use crate::{context::Context, settings::jobs::Job};

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
pub async fn run(context: &Context, jobs: Vec<Job>, shutdown: impl Future<Output = ()>) -> Result<()> {
    let (stop, stopping) = watch::channel(false);
    let mut running = jobs
        .into_iter()
        .map(|job| on_a_thread(context.clone(), job, stopping.clone()))
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
fn on_a_thread(context: Context, job: Job, stopping: watch::Receiver<bool>) -> Result<oneshot::Receiver<Result<()>>> {
    let (done, ended) = oneshot::channel();
    let runtime = Handle::current();
    let name = format!("pitr {}", job.name);
    let spawned = thread::Builder::new().name(name).spawn(move || {
        // Nobody listens any more when the process ends.
        let _ = done.send(runtime.block_on(keep(context, job, stopping)));
    });
    spawned.map_err(|e| Error::new(Code::Internal, "starting a thread").because(e))?;
    Ok(ended)
}

/// Archives one until it is told to stop.
async fn keep(context: Context, job: Job, mut stopping: watch::Receiver<bool>) -> Result<()> {
    let mut pause = PAUSE;
    loop {
        let began = Instant::now();
        let Err(e) = once(&context, &job, stopping.clone()).await else { return Ok(()) };
        if began.elapsed() >= SETTLED {
            pause = PAUSE;
        }
        if e.code().retry() == Retry::Never {
            tracing::error!(database = job.name, hint = e.hint_text(), "given up until the next start: {e}");
            return Err(e);
        }
        tracing::warn!(database = job.name, again_in = ?pause, "{e}");
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return Err(e),
            () = tokio::time::sleep(pause) => {}
        }
        pause = pause.saturating_mul(2).min(LONGEST);
    }
}

async fn once(context: &Context, job: &Job, mut stopping: watch::Receiver<bool>) -> Result<()> {
    let archiver = tokio::select! {
        archiver = open(context, job) => archiver?,
        _ = stopping.wait_for(|stop| *stop) => return Ok(()),
    };
    told(job);
    // The sender lives as long as anybody waits.
    archiver.run(async move { drop(stopping.wait_for(|stop| *stop).await) }).await
}
