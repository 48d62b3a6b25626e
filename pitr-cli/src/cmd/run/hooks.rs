//! Commands that are told what an archiver does.
//!
//! Owns: when they run ([`hook`] runs one). What only tells goes through a queue, one at a time and in order, so that a slow command holds up no archiver; what does not fit into the queue is said in the log.
//! Refuses: to decide what is told, and to try again: a command that failed is a line in the log. Only before a base its
//! failure counts: then the server is not at rest, and no base is taken.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pitr_archive::{Code, Error, Result, clock::Clock};
use pitr_archiver::{
    control::{Answer, Reloaded},
    observer::{Failure, Linking, Notice, Observer},
};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    cmd::drill::shown::ShownDrill,
    hook,
    settings::file::{Command, Hooks},
    web::chores::Chore,
};

/// Notices that wait for the command of the one before.
const QUEUE: usize = 256;
/// A command that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody who wants the configuration read again.
pub type ReloadRequest = oneshot::Sender<Result<Answer>>;

/// The commands of one archiver.
#[derive(Debug)]
pub struct Hooked {
    who: Who,
    hooks: Mutex<Hooks>,
    /// Commands that run or wait, and a server that is at rest for a base.
    open: watch::Sender<usize>,
    /// Until the server has been told to go on.
    at_rest: Mutex<Vec<Open>>,
    queue: mpsc::Sender<(&'static str, Told, Open)>,
    reload: Option<mpsc::Sender<ReloadRequest>>,
}

/// Whose.
#[derive(Clone, Debug)]
struct Who {
    database: String,
    archive: String,
    clock: Arc<dyn Clock>,
}

/// Something that the end of the process waits for.
#[derive(Debug)]
struct Open(watch::Sender<usize>);

impl Open {
    fn of(open: &watch::Sender<usize>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// What a command reads.
#[derive(Clone, Debug, Serialize)]
struct Told {
    database: String,
    archive: String,
    at: chrono::DateTime<chrono::Utc>,
    #[serde(flatten)]
    what: What,
}

#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum What {
    Notice(Notice),
    Base {
        event: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        linking: Option<Linking>,
    },
    Verified(Verified),
    Drilled {
        event: &'static str,
        drill: Box<ShownDrill>,
    },
    Failed {
        event: &'static str,
        chore: &'static str,
        #[serde(flatten)]
        failure: Failure,
    },
}

/// How a verification ended.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// `verified`.
    pub event: &'static str,
    /// Whether nothing is wrong.
    pub ok: bool,
    /// What is wrong, as `pitr verify` tells it; at most the first few.
    pub findings: Vec<String>,
    /// How many there are.
    pub count: usize,
}

impl Hooked {
    /// The commands of an archiver, run as long as this lives. `reload` is where its control socket passes on a wish.
    pub fn start(
        database: &str,
        archive: String,
        hooks: Hooks,
        clock: Arc<dyn Clock>,
        reload: Option<mpsc::Sender<ReloadRequest>>,
    ) -> Arc<Self> {
        let (queue, mut waiting) = mpsc::channel::<(&'static str, Told, Open)>(QUEUE);
        let who = Who { database: database.to_owned(), archive, clock };
        let hooked = Arc::new(Self {
            who,
            hooks: Mutex::new(hooks),
            open: watch::Sender::new(0),
            at_rest: Mutex::default(),
            queue,
            reload,
        });
        let weak = Arc::downgrade(&hooked);
        tokio::spawn(async move {
            while let Some((event, told, _open)) = waiting.recv().await {
                let Some(hooked) = weak.upgrade() else { return };
                let (command, patience) = hooked.command_for(event);
                drop(hooked);
                if let Some(command) = command
                    && let Err(e) = run(&command, event, &told, patience).await
                {
                    tracing::warn!(event, "{e}");
                }
            }
        });
        hooked
    }

    /// From here on.
    pub fn change(&self, hooks: Hooks) {
        *self.hooks() = hooks;
    }

    // A panic while the lock is held leaves plain values that are still true.
    fn hooks(&self) -> MutexGuard<'_, Hooks> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at_rest(&self) -> MutexGuard<'_, Vec<Open>> {
        self.at_rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn command_for(&self, event: &str) -> (Option<Command>, Duration) {
        let hooks = self.hooks();
        let command = match event {
            "before-base" => &hooks.before_base,
            "after-base" => &hooks.after_base,
            "barrier" => &hooks.on_barrier,
            "verified" => &hooks.after_verify,
            "drilled" => &hooks.after_drill,
            _ => &hooks.on_failure,
        };
        (command.clone(), hooks.timeout.map_or(PATIENCE, |v| v.0))
    }

    fn told(&self, what: What) -> Told {
        let Who { database, archive, clock } = &self.who;
        Told { database: database.clone(), archive: archive.clone(), at: clock.now().to_datetime(), what }
    }

    fn tell(&self, event: &'static str, what: What) {
        if self.command_for(event).0.is_some()
            && self.queue.try_send((event, self.told(what), Open::of(&self.open))).is_err()
        {
            tracing::warn!(event, "too many commands wait: none is told of this");
        }
    }

    /// Waits until every command that is told something has ended, and a server that is at rest has been told to go on: what
    /// still runs when the process ends is ended with it. At most for as long as two commands may take.
    pub async fn settle(&self) {
        let patience = self.command_for("after-base").1.saturating_mul(2);
        let mut open = self.open.subscribe();
        // The sender lives as long as this.
        if tokio::time::timeout(patience, open.wait_for(|open| *open == 0)).await.is_err() {
            tracing::warn!(database = self.who.database, "commands that still run or wait are ended");
        }
    }

    /// Something that was due by the clock could not be done. Damage that a verification found is told by itself.
    pub fn failed(&self, chore: Chore, e: &Error) {
        if e.code() != Code::VerifyFailed {
            let event = "schedule-failed";
            self.tell(event, What::Failed { event, chore: chore.name(), failure: e.into() });
        }
    }

    /// A drill ended.
    pub fn drilled(&self, drill: ShownDrill) {
        let event = "drilled";
        self.tell(event, What::Drilled { event, drill: Box::new(drill) });
    }

    /// A verification ended.
    pub fn verified(&self, verified: Verified) {
        if !verified.ok {
            self.tell("verification-failed", What::Verified(verified.clone()));
        }
        self.tell("verified", What::Verified(verified));
    }
}

#[async_trait]
impl Observer for Hooked {
    async fn before_base(&self) -> Result<()> {
        let event = "before-base";
        let (Some(command), patience) = self.command_for(event) else { return Ok(()) };
        let open = Open::of(&self.open);
        run(&command, event, &self.told(What::Base { event, linking: None }), patience).await?;
        self.at_rest().push(open);
        Ok(())
    }

    fn after_linking(&self, linking: Linking) {
        let event = "after-base";
        let open = self.at_rest().pop().unwrap_or_else(|| Open::of(&self.open));
        let (Some(command), patience) = self.command_for(event) else { return };
        let told = self.told(What::Base { event, linking: Some(linking) });
        // Not behind others: a server waits for it.
        tokio::spawn(async move {
            if let Err(e) = run(&command, event, &told, patience).await {
                tracing::error!(event, "the server may still be at rest: {e}");
            }
            drop(open);
        });
    }

    fn notice(&self, notice: Notice) {
        let event = match &notice {
            // What went well needs nobody.
            Notice::BasePublished { .. } => return,
            Notice::BaseFailed(_) => "base-failed",
            Notice::Barrier { .. } => "barrier",
            Notice::ArchiveAway(_) => "archive-away",
            Notice::ArchiveBack { .. } => "archive-back",
            Notice::Limit { .. } => "limit",
            Notice::GivenUp(_) => "given-up",
        };
        self.tell(event, What::Notice(notice));
    }

    fn reload(&self, reply: ReloadRequest) {
        let refused = |reply: ReloadRequest, e: Error| drop(reply.send(Err(e)));
        match &self.reload {
            None => {
                let e = Error::new(Code::Usage, "reading the configuration again");
                refused(reply, e.hint("this archiver was started with options, not with --config"));
            }
            Some(service) => {
                if let Err(back) = service.try_send(reply) {
                    let e = Error::new(Code::ControlUnavailable, "reading the configuration again");
                    refused(back.into_inner(), e.with("state", "stopping, or busy with it"));
                }
            }
        }
    }
}

/// What a reload answers.
pub fn reloaded(changes: Reloaded) -> Answer {
    Answer::Reload(changes)
}

/// Runs one command to its end.
async fn run(command: &Command, event: &str, told: &Told, patience: Duration) -> Result<()> {
    let variables = [("PITR_DATABASE", told.database.as_str()), ("PITR_ARCHIVE", told.archive.as_str())];
    hook::run(command, event, &variables, told, patience).await
}
