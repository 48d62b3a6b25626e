//! What an interrupt means, moment by moment.
//!
//! Owns: the point behind which the exit code no longer is "interrupted". Until what was asked for has happened, an interrupt
//! ends the command, and nothing has happened. Behind it (a restored database has its name), the command only cleans up and
//! reports, and to exit with 130 would tell a script the opposite of what is on the disk.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use pitr_archive::{Code, Error, Result};
use tokio::signal::unix::{SignalKind, signal};

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

/// Waits for a command's end or for an interrupt that ends it. Behind the point of no return only a second one leaves what is
/// still to be cleaned up, and the exit code stays that of what happened.
pub async fn or_interrupted(
    command: impl Future<Output = Result<Verdict>>,
    accomplished: &Accomplished,
) -> Result<Verdict> {
    // Heard from here on, also while the command does not let anything else run.
    let mut interrupts =
        signal(SignalKind::interrupt()).map_err(|e| Error::new(Code::Internal, "listening for signals").because(e))?;
    let mut command = std::pin::pin!(command);
    let mut heard = false;
    loop {
        tokio::select! {
            // An end that is there counts before an interrupt that came with it.
            biased;
            outcome = &mut command => return outcome,
            _ = interrupts.recv() => match accomplished.is_said() {
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

    use super::*;

    fn interrupt() {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT).unwrap();
    }

    /// One test: signals are the process's.
    #[tokio::test]
    async fn an_interrupt_ends_what_has_not_happened_and_only_the_cleaning_up_of_what_has() {
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
            interrupt();
            tokio::time::sleep(Duration::from_millis(200)).await;
            interrupt();
            std::future::pending().await
        };
        assert!(matches!(or_interrupted(hanging, &accomplished).await, Ok(Verdict::Done)));
    }
}
