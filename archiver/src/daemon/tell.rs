//! What observers and metrics are told.
//!
//! Owns: that each thing is told once.

use pitr_archive::Code;

use super::Daemon;
use crate::{
    metrics::Figures,
    observer::{Failure, Notice},
};

/// What was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    TheLimit,
}

impl Daemon {
    /// Says that the loop turns, and once a second how things are.
    pub(super) fn tell(&self) {
        let (metrics, now) = (&self.archiver.parts.metrics, self.archiver.parts.clock.now());
        metrics.turned(now);
        if metrics.wants_figures(now) {
            match Figures::of(&self.archiver) {
                Ok(figures) => metrics.show(figures),
                // What it means for archiving is for the step that meets it.
                Err(e) => tracing::debug!(error = %e, "how things are could not be measured"),
            }
        }
    }

    /// Tells what is new.
    pub(super) fn tell_observer(&mut self) {
        let archiver = &mut self.archiver;
        let observer = archiver.parts.observer.clone();
        let timeline = archiver.timeline();
        for (reason, at, detail) in archiver.engine.take_untold() {
            observer.notice(Notice::Barrier { reason, timeline, at, detail });
        }
        match (archiver.reach.failing(), self.told_away) {
            (Some(failing), None) => {
                self.told_away = Some(failing.since);
                let code = Code::StoreUnavailable;
                let (message, hint) = (failing.error, code.hint().to_owned());
                observer.notice(Notice::ArchiveAway(Failure { code: code.name(), message, hint }));
            }
            (None, Some(since)) => {
                self.told_away = None;
                observer.notice(Notice::ArchiveBack { since });
            }
            _ => {}
        }
        match (archiver.held_back.alarm(), self.told_limit) {
            (Some(limit), Told::Nothing) => {
                self.told_limit = Told::TheLimit;
                observer.notice(Notice::Limit { limit: limit.to_string() });
            }
            (None, Told::TheLimit) => self.told_limit = Told::Nothing,
            _ => {}
        }
    }
}
