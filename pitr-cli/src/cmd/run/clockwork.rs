//! What is due by the clock: bases, verifications and pruning.
//!
//! Owns: waiting for the next time of each schedule, and doing it. A time that passed while the machine slept, or while the
//! one before was still under way, is done once, not as often as it was missed.
//! Refuses: to hold up the archiver: a base is asked for through its control socket, a verification and a drill read the
//! archive beside it.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use pitr_archive::{Code, Error, Result};
use pitr_archiver::{
    control::{self, Request},
    retention,
};
use pitr_replayer::{
    drill::{After, Drilled, Wanted},
    plan::PlanOptions,
    progress::Silent,
    target::Target,
    verify::verify,
};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use super::{
    hooks::{Hooked, Verified},
    open_archive,
};
use crate::{
    cmd::drill::{self, Asked, check::OperatorCheck},
    context::Context,
    settings::{
        file::{Drill, DrillTarget, Schedule},
        jobs::Job,
        schedule::Cron,
    },
    web::{board::Panel, chores::Chore},
};

/// The clock can be set while one waits for it.
const LOOK: Duration = Duration::from_secs(20);
/// A check of a drilled database may take so long where nobody says otherwise.
const CHECK_PATIENCE: Duration = Duration::from_secs(3600);
/// Findings that a command is told.
const TOLD: usize = 20;

/// What is due, and what of it follows.
#[derive(Clone, Debug)]
pub struct Due {
    /// When.
    pub schedule: Schedule,
    /// What is kept when it is time to prune.
    pub retention: Option<retention::Policy>,
    /// What is restored when it is time to drill.
    pub drill: Drill,
}

fn cron(chore: Chore, schedule: &Schedule) -> Option<&Cron> {
    match chore {
        Chore::Base => schedule.base.as_ref(),
        Chore::Prune => schedule.prune.as_ref(),
        Chore::Verify => schedule.verify.as_ref(),
        Chore::Drill => schedule.drill.as_ref(),
    }
}

/// For whom it is done, and who sees how it went.
#[derive(Clone, Debug)]
pub struct Clockwork {
    pub context: Context,
    pub job: Job,
    pub panel: Arc<Panel>,
    pub hooked: Arc<Hooked>,
}

/// Does what is due for one archive, until nobody changes its schedule any more: then the archiver is gone.
pub async fn run(clockwork: Clockwork, mut given: watch::Receiver<Due>) {
    let Clockwork { context, panel, hooked, .. } = &clockwork;
    let mut since = context.clock.now().to_datetime();
    loop {
        let now = context.clock.now().to_datetime();
        let due: Vec<_> =
            Chore::ALL.into_iter().filter(|chore| is_due(*chore, &given.borrow().schedule, since, now)).collect();
        // Also where the clock was set back: what is due is counted from there.
        since = now;
        let at_hand = given.borrow().clone();
        for chore in due {
            let done = perform(&clockwork, chore, &at_hand).await;
            if let Err(e) = &done {
                tracing::error!(chore = chore.name(), hint = e.hint_text(), "what was due failed: {e}");
                hooked.failed(chore, e);
            }
            panel.done(chore, context.clock.now(), done.as_ref().copied());
        }
        let next = next_after(&given.borrow().schedule, context.clock.now().to_datetime());
        let wait =
            next.map_or(LOOK, |next| (next - context.clock.now().to_datetime()).to_std().unwrap_or_default().min(LOOK));
        tokio::select! {
            changed = given.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Whether a time of its schedule lies behind `since` and not behind `now`.
fn is_due(chore: Chore, schedule: &Schedule, since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    cron(chore, schedule).and_then(|cron| cron.after(since)).is_some_and(|at| at <= now)
}

fn next_after(schedule: &Schedule, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    Chore::ALL.into_iter().filter_map(|chore| cron(chore, schedule)?.after(now)).min()
}

async fn perform(clockwork: &Clockwork, chore: Chore, due: &Due) -> Result<()> {
    let Clockwork { context, job, hooked, panel } = clockwork;
    match chore {
        Chore::Base => match control::ask(&job.config.state, &Request::Base).await? {
            Some(_) => tracing::info!("the base that was due is taken"),
            None => {
                return Err(Error::new(Code::ControlUnavailable, "taking the base that was due")
                    .on(job.config.state.display())
                    .hint("the archiver is being opened, or was given up: pitr status tells which"));
            }
        },
        Chore::Prune => {
            let Some(policy) = due.retention else { return Ok(()) };
            let request = retention::Request { policy, floor: retention::Floor::Respected, mode: retention::Mode::Act };
            let (context, job, runtime) = (context.clone(), job.clone(), Handle::current());
            let pruned = tokio::task::spawn_blocking(move || {
                runtime.block_on(async {
                    let archive = open_archive(&context, &job).await?;
                    retention::prune(&archive, &request, &*context.clock, &*context.random).await
                })
            });
            let report = pruned.await.map_err(|e| Error::new(Code::Internal, "pruning the archive").because(e))??;
            let (condemned, deleted) = (report.condemned.total(), report.deleted.total());
            tracing::info!(
                condemned = condemned.objects,
                deleted = deleted.objects,
                deleted_bytes = deleted.bytes,
                waiting = report.waiting.objects,
                "pruned"
            );
        }
        Chore::Verify => {
            // Hashing an archive is work for a thread of its own.
            let (context, job, runtime) = (context.clone(), job.clone(), Handle::current());
            let checked = tokio::task::spawn_blocking(move || {
                runtime.block_on(async { verify(&open_archive(&context, &job).await?, &Silent).await })
            });
            let report =
                checked.await.map_err(|e| Error::new(Code::Internal, "verifying the archive").because(e))??;
            let (ok, count) = (report.findings.is_empty(), report.findings.len());
            let findings = report.findings.iter().take(TOLD).map(|finding| finding.text.clone()).collect();
            hooked.verified(Verified { event: "verified", ok, findings, count });
            if !ok {
                return Err(Error::new(Code::VerifyFailed, "verifying the archive")
                    .with("findings", count)
                    .hint("pitr verify lists what is wrong"));
            }
            tracing::info!(segments = report.segments, bases = report.bases, "the archive is whole");
        }
        Chore::Drill => {
            let (context, job, asked, runtime) = (context.clone(), job.clone(), asked(&due.drill), Handle::current());
            // When the service ends, this is dropped, and the drill with its scratch directory.
            let (alive, ended) = oneshot::channel::<()>();
            let drilled = tokio::task::spawn_blocking(move || {
                runtime.block_on(async {
                    let drilling = async {
                        let archive = open_archive(&context, &job).await?;
                        drill::perform(&context, &archive, asked, Arc::new(Silent)).await
                    };
                    tokio::select! {
                        // What fails because the service ends is no failure of the drill.
                        biased;
                        _ = ended => Err(Error::new(Code::Interrupted, "drilling a restore")),
                        drilled = drilling => drilled,
                    }
                })
            });
            let drilled = drilled.await.map_err(|e| Error::new(Code::Internal, "drilling a restore").because(e))?;
            drop(alive);
            let Drilled { report, failure, .. } = drilled?;
            hooked.drilled((&report).into());
            panel.drilled(&report);
            if let Some(e) = failure {
                return Err(e);
            }
            let position = report.plan.as_ref().map(|plan| plan.position.boundary);
            tracing::info!(verdict = ?report.verdict, ?position, micros = report.restore_micros(), "drilled a restore");
        }
    }
    Ok(())
}

/// What a scheduled drill is asked for.
fn asked(drill: &Drill) -> Asked {
    let patience = drill.timeout.map_or(CHECK_PATIENCE, |timeout| timeout.0);
    Asked {
        wanted: match drill.target {
            None | Some(DrillTarget::Random) => Wanted::Random,
            Some(DrillTarget::Latest) => Wanted::Given(Target::Latest),
        },
        planning: PlanOptions::default(),
        scratch: drill.scratch.clone(),
        after: After::Remove,
        check: drill.check.as_ref().map(|check| OperatorCheck { command: check.0.clone(), patience }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_several_times_is_due_once_and_not_before_its_time() {
        let schedule = Schedule { base: Some(Cron::parse("0 * * * *").unwrap()), ..Schedule::default() };
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        let (start, before) = (at("2026-11-20T10:00:00Z"), at("2026-11-20T10:59:59Z"));
        assert!(!is_due(Chore::Base, &schedule, start, before));
        let late = at("2026-11-20T15:30:00Z");
        assert!(is_due(Chore::Base, &schedule, before, late));
        assert!(!is_due(Chore::Base, &schedule, late, late) && !is_due(Chore::Verify, &schedule, before, late));
        assert_eq!(next_after(&schedule, late), Some(at("2026-11-20T16:00:00Z")));
    }
}
