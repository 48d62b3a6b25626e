//! Running a command of the configuration.
//!
//! Owns: how: the program itself, no shell, in a process group of its own, with what happened as JSON on its standard input and
//! in its environment, ended with its whole group when it takes too long. Refuses: to decide what is told, and when.

use std::{process::Stdio, time::Duration};

use pitr_archive::{Code, Error, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;

use crate::settings::file::Command;

/// Runs one command to its end.
///
/// # Errors
/// `hook.failed`.
pub async fn run(
    command: &Command,
    event: &str,
    variables: &[(&str, &str)],
    told: &impl Serialize,
    patience: Duration,
) -> Result<()> {
    let Some((program, arguments)) = command.0.split_first() else { return Ok(()) };
    let failed = |found: String| {
        Error::new(Code::HookFailed, "running a hook").on(program).with("event", event).with("found", found)
    };
    let input = serde_json::to_vec(told).map_err(|e| failed(e.to_string()))?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env("PITR_EVENT", event)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw), event);
    let ended = tokio::time::timeout(patience, async {
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read is no failure.
            if let Err(e) = stdin.write_all(&input).await {
                tracing::debug!(event, error = %e, "the hook did not read what it was told");
            }
        }
        child.wait().await
    })
    .await;
    if ended.is_ok() {
        // What it has left running is its own affair.
        group.0 = None;
    }
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(status.to_string())),
        Ok(Err(e)) => Err(failed(e.to_string())),
        Err(_) => {
            drop(group);
            let reaped = child.wait().await;
            tracing::debug!(event, ?reaped, "ended a hook");
            Err(failed(format!("no end within {} s: ended", patience.as_secs_f64())))
        }
    }
}

/// A command's process group, ended with this: a shell's children outlive the shell.
struct Group<'a>(Option<Pid>, &'a str);

impl Drop for Group<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.0.take()
            && let Err(e) = kill_process_group(group, Signal::KILL)
        {
            tracing::warn!(event = self.1, error = %e, "a hook that was not waited for any more could not be ended");
        }
    }
}
