//! Errors on standard error, and how the process exits.
//!
//! Owns: the two forms of an error. With `--json` it is one object on one line:
//!
//! | field | |
//! |---|---|
//! | `code` | the stable dotted name (`pitr errors` lists all) |
//! | `severity` | `warning`, `error`, `critical` |
//! | `message` | one line: what was being done to what, and what happened |
//! | `hint` | what a person can do |
//! | `object` | the file, object or name concerned, or null |
//! | `details` | facts by name, in order: `[{"name","value"}]` |
//! | `causes` | the errors underneath, outermost first |
//! | `retry` | `later` when the same command can succeed by itself, else `never` |
//! | `exit` | the exit code |

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use owo_colors::{OwoColorize, Style};
use pitr_archive::{Code, Error};
use serde::Serialize;

use crate::logging::colour;

#[derive(Serialize)]
struct Shown<'a> {
    code: Code,
    severity: pitr_archive::code::Severity,
    message: String,
    hint: &'a str,
    object: Option<&'a str>,
    details: Vec<Detail<'a>>,
    causes: Vec<String>,
    retry: pitr_archive::code::Retry,
    exit: u8,
}

#[derive(Serialize)]
struct Detail<'a> {
    name: &'a str,
    value: &'a str,
}

/// Shows an error and gives the exit code.
pub fn report(e: &Error, json: bool) -> ExitCode {
    show(e, json);
    ExitCode::from(e.code().exit().status())
}

/// Shows an error.
pub fn show(e: &Error, json: bool) {
    let text = if json { as_json(e) } else { as_text(e, colour(io::stderr().is_terminal())) };
    // Nothing is left to do about an error that cannot be shown; the exit code still tells.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Shows what clap has to say: help and version are success, the rest is a usage error.
pub fn usage(e: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    let wanted = matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // The arguments could not be parsed, so the flag is looked for in the raw ones.
    let json = std::env::args_os().take_while(|a| a != "--").any(|a| a == "--json");
    if wanted || !json {
        let _ = e.print();
        return ExitCode::from(if wanted { 0 } else { Code::Usage.exit().status() });
    }
    let plain = e.render().to_string();
    let first = plain.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
    let message = first.split_whitespace().collect::<Vec<_>>().join(" ");
    report(&Error::new(Code::Usage, "reading the command line").because(message), true)
}

fn as_json(e: &Error) -> String {
    let shown = Shown {
        code: e.code(),
        severity: e.code().severity(),
        message: e.to_string(),
        hint: e.hint_text(),
        object: e.object(),
        details: e.details().map(|(name, value)| Detail { name, value }).collect(),
        causes: e.causes(),
        retry: e.code().retry(),
        exit: e.code().exit().status(),
    };
    serde_json::to_string(&shown).unwrap_or_else(|_| format!("{{\"code\":\"{}\",\"exit\":70}}", Code::Internal))
}

/// Message, facts, causes, hint, each on lines of its own.
fn as_text(e: &Error, colour: bool) -> String {
    let paint = |text: &str, style: Style| if colour { text.style(style).to_string() } else { text.to_owned() };
    let object = e.object().map(|o| format!(" {o}")).unwrap_or_default();
    let mut lines = vec![format!(
        "{} {}{object}: {} {}",
        paint("error:", Style::new().red().bold()),
        e.doing(),
        e.code().meaning(),
        paint(&format!("[{}]", e.code()), Style::new().dimmed())
    )];
    let width = e.details().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in e.details() {
        let value = value.replace('\n', &format!("\n  {}  ", " ".repeat(width)));
        lines.push(format!("  {name:<width$}  {value}"));
    }
    for cause in e.causes() {
        lines.push(format!("  because: {}", cause.replace('\n', "\n           ")));
    }
    lines.push(format!("{} {}", paint("hint:", Style::new().cyan().bold()), e.hint_text()));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_has_every_documented_field() {
        let e = Error::new(Code::SegmentDamaged, "reading").on("x").with("offset", 7).because(io::Error::other("boom"));
        let value: serde_json::Value = serde_json::from_str(&as_json(&e)).unwrap();
        assert_eq!(value["code"], "segment.damaged");
        assert_eq!(value["severity"], "critical");
        assert_eq!(value["exit"], 5);
        assert_eq!(value["details"][0]["value"], "7");
        assert_eq!(value["causes"][0], "boom");
        assert!(value["message"].as_str().unwrap().contains("boom"));
        assert!(!value["hint"].as_str().unwrap().is_empty());
    }

    #[test]
    fn the_text_form_ends_with_the_hint() {
        let e = Error::new(Code::KeyRequired, "opening the archive").on("file:/x").with("cipher", "aes-256-gcm");
        let text = as_text(&e, false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "error: opening the archive file:/x: the archive is encrypted and no key was given [key.required]"
        );
        assert_eq!(lines[1], "  cipher  aes-256-gcm");
        assert_eq!(lines[2], "hint: give --key-file, or key in the configuration");
    }
}
