//! The log on standard error.
//!
//! Owns: its form and level. Standard output is for results alone. Log lines go around progress bars, not through them.

use std::io::{self, IsTerminal, Write};

use indicatif::MultiProgress;
use pitr_archive::{Code, Error, Result};
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt::MakeWriter};

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

/// What a configuration says about the log; the command line goes before it.
#[derive(Clone, Debug, Default)]
pub struct Configured {
    /// One JSON object per event, or a line of text.
    pub json: Option<bool>,
    /// How much.
    pub level: Option<String>,
}

/// Starts the log. `service` commands tell what they do; the others speak up only when something is wrong.
pub fn start(global: &GlobalArgs, service: bool, configured: &Configured, bars: &MultiProgress) -> Result<()> {
    let given = |level: &Option<String>| level.clone().filter(|level| !level.is_empty());
    let chosen = given(&global.log_level).or_else(|| given(&configured.level));
    let level = match &chosen {
        Some(level) => level.as_str(),
        None if service => "info",
        None => "warn",
    };
    let filter = filter(level)?;
    let json = match global.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => configured.json.unwrap_or(global.json),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(AroundBars(bars.clone()));
    let started = if json {
        builder.json().flatten_event(true).with_span_list(false).try_init()
    } else {
        builder.with_ansi(colour(io::stderr().is_terminal())).with_target(false).try_init()
    };
    started.map_err(|e| Error::new(Code::Internal, "starting the log").because(e))
}

/// A level, or levels of parts. A word that is neither would be taken for the name of a part, and everything else be silent.
fn filter(level: &str) -> Result<EnvFilter> {
    let refused = || {
        Error::new(Code::Usage, "reading the log's level").on(level).hint("use error, warn, info, debug, trace or off")
    };
    let directives = level.split(',').map(str::trim);
    if !directives.clone().all(|one| one.contains('=') || one.parse::<LevelFilter>().is_ok()) {
        return Err(refused());
    }
    EnvFilter::try_new(level).map_err(|e| refused().because(e))
}

/// Whether to colour what goes to a stream: on terminals, unless `NO_COLOR` is set to anything.
pub fn colour(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_level_silences_nothing() {
        for good in ["warn", "INFO", "off", "pitr_archiver=debug", "warn,pitr=trace"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["loud", "warn,loud", "x=loud"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
