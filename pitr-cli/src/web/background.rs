//! What is kept up to date behind the pages: samples of the lag, and the overviews.
//!
//! Owns: when. Every second the lags are noted; one catalog at a time is read, on a thread that may wait, when its overview is
//! due. A catalog that cannot be read is tried again; the page shows the last one and how old it is.

use std::{sync::Arc, time::Duration};

use pitr_archive::{Code, Error, Result, catalog::archive::Archive};
use tokio::{runtime::Handle, task::JoinHandle, time::Instant};

use super::{
    board::{Board, Panel, ago},
    overview::{Overview, StorePlace},
};

const EVERY: Duration = Duration::from_secs(1);
/// Before a catalog that could not be read is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// Keeps them up to date until the service ends.
pub async fn keep(board: Arc<Board>) {
    let mut reading: Option<JoinHandle<bool>> = None;
    let mut not_before: Vec<Option<Instant>> = vec![None; board.panels.len()];
    let mut at = 0;
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = board.clock.now();
        for panel in &board.panels {
            panel.note_lag(now);
        }
        if let Some(task) = reading.take_if(|task| task.is_finished())
            && !task.await.unwrap_or(false)
            && let Some(when) = not_before.get_mut(at)
        {
            *when = Some(Instant::now() + AGAIN);
        }
        if reading.is_some() {
            continue;
        }
        let wants = |(i, panel): (usize, &Arc<Panel>)| {
            let rested = not_before.get(i).copied().flatten().is_none_or(|when| when <= Instant::now());
            let archive = panel.archive_if_opened().filter(|_| rested)?;
            let place = if archive.store().local_path().is_some() { StorePlace::Local } else { StorePlace::Remote };
            let due = panel.overview().is_none_or(|o| o.is_due(now, &panel.metrics.counts(), place));
            due.then(|| (i, Arc::clone(panel), archive))
        };
        if let Some((i, panel, archive)) = board.panels.iter().enumerate().find_map(wants) {
            at = i;
            let board = Arc::clone(&board);
            reading = Some(tokio::spawn(async move { read(&board, &panel, archive).await }));
        }
    }
}

/// Reads one catalog; whether that went well.
async fn read(board: &Board, panel: &Panel, archive: Arc<Archive>) -> bool {
    let (began, known) = (board.clock.now(), (&panel.metrics.counts()).into());
    // A catalog of a million segments takes seconds of a core.
    let runtime = Handle::current();
    let survey = tokio::task::spawn_blocking(move || runtime.block_on(archive.load_what_is_sound()));
    let survey: Result<_> = match survey.await {
        Ok(survey) => survey,
        Err(e) => Err(Error::new(Code::Internal, "reading the catalog for the status page").because(e)),
    };
    match survey {
        Ok(survey) => {
            let now = board.clock.now();
            panel.show(Overview::of(&survey, now, ago(began, now), known));
            true
        }
        Err(e) => {
            tracing::debug!(error = %e, "the catalog could not be read for the status page; it is tried again");
            false
        }
    }
}
