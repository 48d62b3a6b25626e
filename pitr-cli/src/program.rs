//! Somebody else's program, run to its end.
//!
//! Owns: that it is run itself, without a shell, in a process group of its own, and ended with its whole group when it takes too
//! long, or when whoever waits for it does not wait any more. What it prints on standard error is seen, the rest is not: standard
//! output belongs to the command's own result.
//! Refuses: to judge how it ended.

use std::{
    ffi::OsString,
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt as _;

/// A program and what it is given.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    /// Its path.
    pub path: &'a str,
    /// Its arguments.
    pub arguments: &'a [String],
    /// What its environment has beside ours.
    pub environment: Vec<(&'static str, OsString)>,
    /// What it can read on its standard input.
    pub input: Vec<u8>,
}

/// How it ended.
#[derive(Clone, Copy, Debug)]
pub enum Ended {
    /// By itself, so.
    Itself(ExitStatus),
    /// It took too long.
    Late,
}

/// A process group, ended when this is dropped before the program has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        // The group: a shell's children outlive the shell.
        if let Some(group) = self.0.take()
            && let Err(e) = kill_process_group(group, Signal::KILL)
        {
            tracing::warn!(error = %e, "a program could not be ended");
        }
    }
}

impl Program<'_> {
    /// Runs it, for at most `patience`.
    ///
    /// # Errors
    /// It cannot be started, or waited for.
    pub async fn run(&self, patience: Duration) -> io::Result<Ended> {
        let mut child = tokio::process::Command::new(self.path)
            .args(self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
        let ended = tokio::time::timeout(patience, async {
            if let Some(mut stdin) = child.stdin.take() {
                // A program that does not read is no failure.
                if let Err(e) = stdin.write_all(&self.input).await {
                    tracing::debug!(program = self.path, error = %e, "it did not read what it was told");
                }
            }
            child.wait().await
        })
        .await;
        match ended {
            Ok(Ok(status)) => {
                group.0 = None;
                Ok(Ended::Itself(status))
            }
            // It may still run.
            Ok(Err(e)) => Err(e),
            Err(_) => {
                drop(group);
                let reaped = child.wait().await;
                tracing::debug!(program = self.path, ?reaped, "ended a program that took too long");
                Ok(Ended::Late)
            }
        }
    }
}
