//! Merging, as far as the archiver is concerned.
//!
//! Owns: when a deed of merging is begun, one at a time, and what its outcome means: a merged segment goes into the next
//! manifest. Nothing here fails the archiver: what cannot be merged stays as it is, and is tried again later.

use std::time::Duration;

use pitr_archive::{
    Error, Result,
    catalog::schema::ManifestDocument,
    clock::Micros,
    code::Retry,
    ids::{ManifestNumber, Ordinals},
    object_key::ObjectKey,
    segment::envelope::Level,
};

use super::Archiver;
use crate::{
    elapsed::elapsed,
    merge::{
        Merging,
        ledger::Ledger,
        perform::{Deed, Done, Task},
        plan,
    },
    metrics::Metrics,
};

/// How often it is looked what is due, while nothing was done or written.
const LOOK: Duration = Duration::from_secs(10);
/// After a failure that passes by itself.
const AGAIN: Duration = Duration::from_secs(60);
/// After one that somebody has to look at.
const LATER: Duration = Duration::from_secs(900);
/// Deleted in one go, so that what is newer is not kept waiting for long.
const AT_ONCE: usize = 1000;

/// What is known about merging.
#[derive(Debug, Default)]
pub(crate) struct Merges {
    ledger: Option<Ledger>,
    /// Nothing is due before: as long as no manifest with this number has been written.
    rest: Option<(ManifestNumber, Micros, Duration)>,
}

impl Merges {
    /// A manifest of ours was written.
    pub fn written(&mut self, document: &ManifestDocument, now: Micros, metrics: &Metrics) {
        for summary in &document.merged {
            metrics.merged(summary.object_bytes);
        }
        let Some(ledger) = &mut self.ledger else { return };
        if ledger.timeline() != document.timeline || ledger.next() != document.number {
            self.ledger = None;
            return;
        }
        // From now on at the earliest: it may have been made long ago, by a process that slept since.
        let since = document.created.max(now);
        for wrong in ledger.manifest(document, since) {
            tracing::warn!(error = %wrong, "a merged segment does not fit; its parts stay in use");
        }
    }
}

impl Archiver {
    /// What merging does next, if anything is due.
    pub(crate) fn next_merge(&mut self) -> Option<Deed> {
        let policy = &self.config.merge;
        let (now, number) = (self.parts.clock.now(), self.roll_up.number);
        let resting = self.merging.rest.is_some_and(|(at, since, pause)| at == number && elapsed(since, now) < pause);
        if policy.merging == Merging::Off || number == ManifestNumber::new(0) || resting {
            return None;
        }
        let known = self.merging.ledger.as_ref().filter(|l| l.timeline() == self.timeline && l.next() == number);
        let task = match known {
            None => Some(Task::Learn { next: number }),
            Some(ledger) => {
                let mut due = ledger.due(now, policy.effective_grace());
                due.truncate(AT_ONCE);
                let busy: Vec<Ordinals> = self.roll_up.merged.iter().map(|merged| merged.ordinals()).collect();
                let group = || plan::groups(ledger, policy, &busy, now).into_iter().next();
                if due.is_empty() { group().map(Task::Merge) } else { Some(Task::Delete(due)) }
            }
        };
        let deleted = known.and_then(Ledger::boundary).cloned();
        let Some(task) = task else {
            self.merging.rest = Some((number, now, LOOK));
            return None;
        };
        Some(Deed {
            archive: self.archive.clone(),
            claim: self.claim.clone(),
            parts: self.parts.clone(),
            timeline: self.timeline,
            policy: policy.clone(),
            level: Level::new(self.config.compression_level),
            deleted,
            task,
            joins: self.joins,
        })
    }

    /// Takes in what came of a deed that was begun after so many joins.
    pub(crate) fn merge_done(&mut self, joins: u64, done: Result<Done>) {
        let (now, number) = (self.parts.clock.now(), self.roll_up.number);
        self.merging.rest = None;
        if joins != self.joins {
            // Of another place; what it made is found again.
            self.merging.ledger = None;
            return;
        }
        match (done, &mut self.merging.ledger) {
            (Ok(Done::Learned(ledger)), _) => self.merging.ledger = Some(*ledger),
            // Another process's manifest may have come between, which names other ones: it is as if it had not been made.
            (Ok(Done::Merged(summary)), Some(ledger)) if ledger.next() == number && ledger.has_room_for(&summary) => {
                self.roll_up.merged.push(*summary);
            }
            (Ok(Done::Merged(_)), _) => self.merging.ledger = None,
            (Ok(Done::LeftAlone(ordinals)), Some(ledger)) => ledger.leave_alone(ordinals),
            (Ok(Done::Deleted { gone, left }), Some(ledger)) => {
                self.parts.metrics.superseded_deleted(gone.len() as u64);
                ledger.deleted(&gone);
                // Nothing else waits for what could not be deleted.
                ledger.postpone(&left, now, self.config.merge.effective_grace().saturating_sub(LATER));
            }
            (Ok(Done::Outdated), _) => self.merging.ledger = None,
            (Ok(Done::LeftAlone(_) | Done::Deleted { .. }), None) => {}
            (Err(e), _) => self.merge_failed(&e, now),
        }
    }

    fn merge_failed(&mut self, e: &Error, now: Micros) {
        let pause = if e.code().retry() == Retry::Later { AGAIN } else { LATER };
        tracing::warn!(error = %e, "segments could not be merged; it is tried again");
        self.merging.ledger = None;
        self.merging.rest = Some((self.roll_up.number, now, pause));
    }

    /// Does everything that is due; answers how many deeds that were.
    ///
    /// # Errors
    /// What the store answers. It is tried again.
    pub async fn merge(&mut self) -> Result<usize> {
        let mut deeds = 0;
        while let Some(deed) = self.next_merge() {
            let joins = deed.joins;
            let done = deed.perform().await;
            deeds += 1;
            let failed = done.as_ref().err().map(|e| Error::new(e.code(), "merging segments").because(e.to_string()));
            self.merge_done(joins, done);
            if let Some(e) = failed {
                return Err(e);
            }
        }
        Ok(deeds)
    }

    /// What a prune has condemned is about to be deleted: an object that was found there, or waited for too long, is not named.
    pub(super) async fn leave_out_condemned(&mut self) -> Result<()> {
        if self.roll_up.merged.is_empty() {
            return Ok(());
        }
        let condemned = self.archive.condemned_keys().await?;
        let timeline = self.timeline;
        self.roll_up.merged.retain(|merged| !condemned.contains(&ObjectKey::segment(timeline, merged.ordinals())));
        Ok(())
    }
}
