//! The log on standard error.
//!
//! Owns: its form and level. Standard output is for results alone. Log lines go around progress bars, not through them.

use std::io::{self, IsTerminal, Write};

use indicatif::MultiProgress;
use pitr_archive::{Code, Error, Result};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::args::common::{GlobalArgs, LogFormat};

/// Writes to standard error with the progress bars taken away for the moment.
#[derive(Clone)]
struct AroundBars(MultiProgress);

impl Write for AroundBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for AroundBars {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Starts the log. `service` commands tell what they do; the others speak up only when something is wrong.
pub fn start(global: &GlobalArgs, service: bool, bars: &MultiProgress) -> Result<()> {
    let level = match &global.log_level {
        Some(level) if !level.is_empty() => level.as_str(),
        _ if service => "info",
        _ => "warn",
    };
    let filter = EnvFilter::try_new(level).map_err(|e| {
        Error::new(Code::Usage, "reading --log-level")
            .on(level)
            .because(e)
            .hint("use error, warn, info, debug or trace")
    })?;
    let json = match global.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => global.json,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(AroundBars(bars.clone()));
    let started = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(colour(io::stderr().is_terminal())).with_target(false).try_init()
    };
    started.map_err(|e| Error::new(Code::Internal, "starting the log").because(e))
}

/// Whether to colour what goes to a stream: on terminals, unless `NO_COLOR` is set to anything.
pub fn colour(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
