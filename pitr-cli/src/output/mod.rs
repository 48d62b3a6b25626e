//! What a command says.
//!
//! Owns: standard output (results: text for people, or JSON with `--json`) and the forms in which numbers, times, keys and
//! histories are shown. Refuses: to print anything else there; logs, progress and errors go to standard error.

pub mod error;
pub mod json;
pub mod picture;
pub mod progress;
pub mod table;
pub mod text;
pub mod tree;

use std::io::{self, IsTerminal, Write};

use owo_colors::{OwoColorize, Style};
use pitr_archive::{Code, Error, Result};
use serde::Serialize;

use self::picture::{Glyphs, Ink, Picture};
use crate::logging::colour;

/// How a command that ran to its end exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 0.
    Done,
    /// 1: a check found damage.
    Damage,
}

/// Text or JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Standard output of one command.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    mode: Mode,
    colour: bool,
    terminal: bool,
    glyphs: Glyphs,
}

const STDOUT: &str = "standard output";
/// Columns of a picture that no terminal shows.
const COLUMNS: u16 = 100;

impl Output {
    /// Resolves the mode, whether there is a terminal, and what its locale can show.
    pub fn resolve(mode: Mode) -> Self {
        let terminal = io::stdout().is_terminal();
        let glyphs = Glyphs::of_locale(["LC_ALL", "LC_CTYPE", "LANG"].map(|name| std::env::var(name).ok()));
        Self { mode, colour: mode == Mode::Text && colour(terminal), terminal, glyphs }
    }

    /// Whether programs read this.
    pub fn is_json(&self) -> bool {
        self.mode == Mode::Json
    }

    /// Whether a person sees this directly.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether to colour.
    pub fn has_colour(&self) -> bool {
        self.colour
    }

    /// One line of text, or several.
    pub fn line(&self, text: impl AsRef<str>) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_ref().as_bytes())
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush())
            .map_err(failed)
    }

    /// One JSON value on a line of its own.
    pub fn json(&self, value: &impl Serialize) -> Result<()> {
        let text =
            serde_json::to_string(value).map_err(|e| Error::new(Code::Internal, "encoding the result").because(e))?;
        self.line(text)
    }

    /// A picture, as wide as the terminal, with what its locale can show.
    pub fn picture(&self, picture: &Picture) -> Result<()> {
        let width = table::width(self).unwrap_or(COLUMNS).into();
        for line in picture::draw(picture, picture::Style { width, glyphs: self.glyphs }) {
            self.line(line.0.iter().map(|(ink, text)| self.inked(*ink, text)).collect::<String>())?;
        }
        Ok(())
    }

    fn inked(&self, ink: Ink, text: &str) -> String {
        match ink {
            Ink::Plain => text.to_owned(),
            Ink::Strong => self.heading(text),
            Ink::Good => self.good(text),
            Ink::Look => self.warn(text),
            Ink::Bad => self.bad(text),
            Ink::Faint => self.faint(text),
        }
    }

    /// A heading.
    pub fn heading(&self, text: &str) -> String {
        self.styled(text, Style::new().bold())
    }

    /// Something good.
    pub fn good(&self, text: &str) -> String {
        self.styled(text, Style::new().green())
    }

    /// Something to look at.
    pub fn warn(&self, text: &str) -> String {
        self.styled(text, Style::new().yellow())
    }

    /// Something wrong.
    pub fn bad(&self, text: &str) -> String {
        self.styled(text, Style::new().red().bold())
    }

    /// Something of less weight.
    pub fn faint(&self, text: &str) -> String {
        self.styled(text, Style::new().dimmed())
    }

    fn styled(&self, text: &str, style: Style) -> String {
        if self.colour { text.style(style).to_string() } else { text.to_owned() }
    }
}

/// Many lines, written through a buffer.
#[derive(Debug)]
pub struct Lines(io::BufWriter<io::Stdout>);

impl Lines {
    /// Begins.
    pub fn new() -> Self {
        Self(io::BufWriter::with_capacity(1 << 16, io::stdout()))
    }

    /// One line.
    pub fn text(&mut self, line: &str) -> Result<()> {
        self.0.write_all(line.as_bytes()).and_then(|()| self.0.write_all(b"\n")).map_err(failed)
    }

    /// One JSON value on a line of its own.
    pub fn json(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.0, value).map_err(|e| failed(e.into()))?;
        self.0.write_all(b"\n").map_err(failed)
    }

    /// The last line is out.
    pub fn finish(mut self) -> Result<()> {
        self.0.flush().map_err(failed)
    }
}

/// A JSON object whose last field is a long list, written as it comes.
#[derive(Debug)]
pub struct LongList {
    out: io::BufWriter<io::Stdout>,
    first: bool,
}

impl LongList {
    /// With the other fields of the object.
    pub fn begin(head: &impl Serialize, field: &str) -> Result<Self> {
        let text =
            serde_json::to_string(head).map_err(|e| Error::new(Code::Internal, "encoding the result").because(e))?;
        let fields = text.strip_suffix('}').unwrap_or(&text);
        let comma = if fields == "{" { "" } else { "," };
        let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout());
        write!(out, "{fields}{comma}\"{field}\":[").map_err(failed)?;
        Ok(Self { out, first: true })
    }

    /// The next item.
    pub fn item(&mut self, item: &impl Serialize) -> Result<()> {
        if !std::mem::take(&mut self.first) {
            self.out.write_all(b",").map_err(failed)?;
        }
        serde_json::to_writer(&mut self.out, item).map_err(|e| failed(e.into()))
    }

    /// That was all.
    pub fn finish(mut self) -> Result<()> {
        self.out.write_all(b"]}\n").and_then(|()| self.out.flush()).map_err(failed)
    }
}

fn failed(e: io::Error) -> Error {
    pitr_archive::error::io("writing to", STDOUT, e)
}

/// Whether an error only says that nobody reads standard output any more (`pitr log | head`): that is success.
pub fn is_broken_pipe(e: &Error) -> bool {
    use std::error::Error as _;
    e.object() == Some(STDOUT)
        && e.source().and_then(|s| s.downcast_ref::<io::Error>()).is_some_and(|s| s.kind() == io::ErrorKind::BrokenPipe)
}
