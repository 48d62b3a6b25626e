//! What an interrupt means, moment by moment.
//!
//! Owns: which signals are one, and the point behind which the exit code no longer is "interrupted". Until what was asked for
//! has happened, an interrupt ends the command, and nothing has happened. Behind it (a restored database has its name), the
//! command only cleans up and reports, and to exit with 130 would tell a script the opposite of what is on the disk.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use pitr_archive::{Code, Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output::Verdict;

/// Whether what the command was asked for has happened.
#[derive(Clone, Debug, Default)]
pub struct Accomplished(Arc<AtomicBool>);

impl Accomplished {
    /// It has. To be said by the task that did it, before it waits for anything else.
    pub fn say(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_said(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Ctrl-C, and what a service manager or `timeout` sends. A terminal that goes away is none: `nohup` could not be heard any
/// more, and what was under way goes on as after a kill.
pub struct Interrupts {
    int: Signal,
    term: Signal,
    hup: Option<Signal>,
}

impl Interrupts {
    /// Heard from here on, also while the command does not let anything else run.
    pub fn listen() -> Result<Self> {
        Ok(Self { int: heard(SignalKind::interrupt())?, term: heard(SignalKind::terminate())?, hup: None })
    }

    /// And a terminal that goes away, for a command that somebody else waits for.
    pub fn and_hangups(self) -> Result<Self> {
        Ok(Self { hup: Some(heard(SignalKind::hangup())?), ..self })
    }

    /// The next one.
    pub async fn recv(&mut self) {
        let hung_up = async {
            match &mut self.hup {
                Some(hup) => hup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
            _ = hung_up => {}
        }
    }
}

fn heard(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|e| Error::new(Code::Internal, "listening for signals").because(e))
}

/// Waits for a command's end or for an interrupt that ends it. Behind the point of no return only a second one leaves what is
/// still to be cleaned up, and the exit code stays that of what happened.
pub async fn or_interrupted(
    command: impl Future<Output = Result<Verdict>>,
    accomplished: &Accomplished,
) -> Result<Verdict> {
    let mut interrupts = Interrupts::listen()?;
    let mut command = std::pin::pin!(command);
    let mut heard = false;
    loop {
        tokio::select! {
            // An end that is there counts before an interrupt that came with it.
            biased;
            outcome = &mut command => return outcome,
            () = interrupts.recv() => match accomplished.is_said() {
                false => return Err(Error::new(Code::Interrupted, "waiting for the command")),
                true if heard => return Ok(Verdict::Done),
                true => tracing::warn!("it is done already: only cleaning up; interrupt again to leave that"),
            },
        }
        heard = true;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal as Process, getpid, kill_process};

    use super::*;

    /// One test: signals are the process's.
    #[tokio::test]
    async fn an_interrupt_ends_what_has_not_happened_and_only_the_cleaning_up_of_what_has() {
        for signal in [Process::INT, Process::TERM] {
            ends_what_has_not_happened(|| kill_process(getpid(), signal).unwrap()).await;
        }
        let mut interrupts = Interrupts::listen().unwrap().and_hangups().unwrap();
        kill_process(getpid(), Process::HUP).unwrap();
        interrupts.recv().await;
    }

    async fn ends_what_has_not_happened(interrupt: impl Fn()) {
        let accomplished = Accomplished::default();
        let endless = async {
            interrupt();
            std::future::pending().await
        };
        let ended = or_interrupted(endless, &accomplished).await.map(drop).unwrap_err();
        assert_eq!(ended.code(), Code::Interrupted);

        let cleaning_up = async {
            accomplished.say();
            interrupt();
            tokio::time::sleep(Duration::from_millis(200)).await;
            Err(Error::new(Code::Internal, "reporting"))
        };
        let reported = or_interrupted(cleaning_up, &accomplished).await.map(drop).unwrap_err();
        assert_eq!(reported.code(), Code::Internal, "it came to its end");

        let hanging = async {
            loop {
                interrupt();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        assert!(matches!(or_interrupted(hanging, &accomplished).await, Ok(Verdict::Done)));
    }
}
