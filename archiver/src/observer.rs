//! Who is told what an archiver does, and asked before a base.
//!
//! Owns: what there is to tell. The runner tells and goes on: whoever listens has a queue of its own. Only before a base it
//! waits, because a server is brought to rest then ([`Observer::before_base`]).
//! Refuses: to run commands (the program's own part).

use std::fmt;

use async_trait::async_trait;
use pitr_archive::{
    Code, Error, Result,
    clock::Micros,
    ids::{BaseId, Boundary, TimelineId},
    segment::entry::BarrierReason,
};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::control::Answer;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Notice {
    /// A base is in the archive.
    BasePublished {
        /// Its name.
        base: BaseId,
        /// The timeline.
        timeline: TimelineId,
        /// The earliest boundary that it serves.
        floor: Boundary,
    },
    /// A base could not be taken; it is tried again.
    BaseFailed(Failure),
    /// What lies behind this place can only be reached from a base that was taken behind it.
    Barrier {
        /// Why it stands.
        reason: BarrierReason,
        /// The timeline.
        timeline: TimelineId,
        /// Where.
        at: Boundary,
        /// In words.
        detail: String,
    },
    /// The archive does not answer; archiving goes on by itself when it does.
    ArchiveAway(Failure),
    /// It answers again.
    ArchiveBack {
        /// Since when it had not.
        since: Micros,
    },
    /// What is held back has met a limit.
    Limit {
        /// In words.
        limit: String,
    },
    /// The archiver has ended and is not started again by itself.
    GivenUp(Failure),
}

/// An error as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its stable code.
    pub code: &'static str,
    /// The whole line.
    pub message: String,
    /// What helps.
    pub hint: String,
}

impl From<&Error> for Failure {
    fn from(e: &Error) -> Self {
        Self { code: e.code().name(), message: e.to_string(), hint: e.hint_text().to_owned() }
    }
}

/// How the linking of a base's files ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Linking {
    /// Its files are linked and its floor is fixed.
    Done,
    /// There will be no base.
    Failed,
}

/// Somebody who is told.
#[async_trait]
pub trait Observer: fmt::Debug + Send + Sync {
    /// Before a base's files are linked.
    ///
    /// # Errors
    /// Then no base is taken; it is tried again.
    async fn before_base(&self) -> Result<()>;

    /// After [`Observer::before_base`] succeeded, exactly once, also where the base failed: the server may go on.
    fn after_linking(&self, linking: Linking);

    /// Something happened. Must not wait.
    fn notice(&self, notice: Notice);

    /// Somebody asked through the control socket that the configuration be read again. Must not wait; answers in its time.
    fn reload(&self, reply: oneshot::Sender<Result<Answer>>);
}

/// Nobody.
#[derive(Clone, Copy, Debug)]
pub struct NoObserver;

#[async_trait]
impl Observer for NoObserver {
    async fn before_base(&self) -> Result<()> {
        Ok(())
    }

    fn after_linking(&self, _: Linking) {}

    fn notice(&self, _: Notice) {}

    fn reload(&self, reply: oneshot::Sender<Result<Answer>>) {
        let e = Error::new(Code::Usage, "reading the configuration again");
        // Whoever asked and has gone away needs no answer.
        drop(reply.send(Err(e.hint("this archiver was started without a configuration"))));
    }
}
