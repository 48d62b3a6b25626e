//! What is due by the clock: bases, verifications and pruning.
//!
//! Owns: waiting for the next time of each schedule, and doing it. A time that passed while the machine slept, or while the
//! one before was still under way, is done once, not as often as it was missed.
//! Refuses: to hold up the archiver: a base is asked for through its control socket, a verification reads the archive beside
//! it.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use pitr_archive::{Code, Error, Result};
use pitr_archiver::{
    control::{self, Request},
    retention,
};
use pitr_replayer::{progress::Silent, verify::verify};
use tokio::{runtime::Handle, sync::watch};

use super::{
    hooks::{Hooked, Verified},
    open_archive,
};
use crate::{
    context::Context,
    settings::{file::Schedule, jobs::Job, schedule::Cron},
};

/// The clock can be set while one waits for it.
const LOOK: Duration = Duration::from_secs(20);
/// Findings that a command is told.
const TOLD: usize = 20;

/// What is due, and what of it follows.
#[derive(Clone, Debug)]
pub struct Due {
    /// When.
    pub schedule: Schedule,
    /// What is kept when it is time to prune.
    pub retention: Option<retention::Policy>,
}

/// Something that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chore {
    Base,
    Prune,
    Verify,
}

impl Chore {
    const ALL: [Self; 3] = [Self::Base, Self::Prune, Self::Verify];

    fn schedule(self, schedule: &Schedule) -> Option<&Cron> {
        match self {
            Self::Base => schedule.base.as_ref(),
            Self::Prune => schedule.prune.as_ref(),
            Self::Verify => schedule.verify.as_ref(),
        }
    }
}

/// Does what is due for one archive, until nobody changes its schedule any more: then the archiver is gone.
pub async fn run(context: Context, job: Job, mut given: watch::Receiver<Due>, hooked: Arc<Hooked>) {
    let mut since = context.clock.now().to_datetime();
    loop {
        let now = context.clock.now().to_datetime();
        let due: Vec<_> =
            Chore::ALL.into_iter().filter(|chore| is_due(*chore, &given.borrow().schedule, since, now)).collect();
        // Also where the clock was set back: what is due is counted from there.
        since = now;
        let retention = given.borrow().retention;
        for chore in due {
            if let Err(e) = perform(&context, &job, chore, retention, &hooked).await {
                tracing::warn!(?chore, hint = e.hint_text(), "what was due could not be done: {e}");
            }
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
    chore.schedule(schedule).and_then(|cron| cron.after(since)).is_some_and(|at| at <= now)
}

fn next_after(schedule: &Schedule, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    Chore::ALL.into_iter().filter_map(|chore| chore.schedule(schedule)?.after(now)).min()
}

async fn perform(
    context: &Context,
    job: &Job,
    chore: Chore,
    retention: Option<retention::Policy>,
    hooked: &Hooked,
) -> Result<()> {
    match chore {
        Chore::Base => match control::ask(&job.config.state, &Request::Base).await? {
            Some(_) => tracing::info!("the base that was due is taken"),
            None => tracing::warn!("a base was due while the archiver does not run"),
        },
        Chore::Prune => {
            let Some(policy) = retention else { return Ok(()) };
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
            if ok {
                tracing::info!(segments = report.segments, bases = report.bases, "the archive is whole");
            } else {
                tracing::error!(findings = count, "the archive is not whole: pitr verify lists what is wrong");
            }
            let findings = report.findings.iter().take(TOLD).map(|finding| finding.text.clone()).collect();
            hooked.verified(Verified { event: "verified", ok, findings, count });
        }
    }
    Ok(())
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
