//! Running a command of the configuration.
//!
//! Owns: what it is told, as JSON on its standard input and in its environment, and what is made of how it ended. Refuses: to
//! decide what is told, and when.

use std::time::Duration;

use pitr_archive::{Code, Error, Result};
use serde::Serialize;

use crate::{
    program::{Ended, Program},
    settings::file::Command,
};

/// Runs one command to its end.
///
/// # Errors
/// `hook.failed`.
pub async fn run(
    command: &Command,
    event: &str,
    variables: &[(&'static str, &str)],
    told: &impl Serialize,
    patience: Duration,
) -> Result<()> {
    let Some((path, arguments)) = command.0.split_first() else { return Ok(()) };
    let failed = |found: String| {
        Error::new(Code::HookFailed, "running a hook").on(path).with("event", event).with("found", found)
    };
    let input = serde_json::to_vec(told).map_err(|e| failed(e.to_string()))?;
    let variables = variables.iter().map(|(name, value)| (*name, (*value).into()));
    let environment = std::iter::once(("PITR_EVENT", event.into())).chain(variables).collect();
    match (Program { path, arguments, environment, input }).run(patience).await {
        Ok(Ended::Itself(status)) if status.success() => Ok(()),
        Ok(Ended::Itself(status)) => Err(failed(status.to_string())),
        Ok(Ended::Late) => Err(failed(format!("no end within {} s: ended", patience.as_secs_f64()))),
        Err(e) => Err(failed(e.to_string())),
    }
}
