//! The syntax of OPTIONS files.

use std::ops::Range;

use super::{Entry, OptionsFile, Section};

/// Why an OPTIONS file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct OptionsError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: OptionsProblem,
}

/// What can be wrong with an OPTIONS file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsProblem {
    /// Neither a section, nor a setting, nor a comment.
    #[error("neither a section nor name=value")]
    Statement,
    /// A section that RocksDB does not know.
    #[error("unknown section {0}")]
    Section(String),
    /// A section that was there before: RocksDB opens no such file, and only one of the two would be asked.
    #[error("the section {0} is there twice")]
    SectionTwice(String),
    /// A setting before the first section.
    #[error("a setting outside every section")]
    NoSection,
    /// The version is missing.
    #[error("the file does not say which RocksDB version wrote it")]
    NoVersion,
    /// A value that is not of its setting's type.
    #[error("{name} has the value {value:?}")]
    Value {
        /// The setting.
        name: String,
        /// Its value as written.
        value: String,
    },
}

/// Parses a file: comments from `#` on (unless escaped), sections in brackets, one setting a line.
pub(super) fn parse(text: &str) -> Result<OptionsFile, OptionsError> {
    let mut sections = Vec::new();
    let mut entries = Vec::new();
    let mut start = 0usize;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let fail = |problem| OptionsError { line: index.saturating_add(1), problem };
        let range = statement(text, start, start.saturating_add(line.len()));
        start = start.saturating_add(line.len());
        let body = text.get(range.clone()).unwrap_or_default();
        if body.is_empty() {
            continue;
        }
        if let Some(inner) = body.strip_prefix('[').and_then(|b| b.strip_suffix(']')) {
            let section = section(inner).ok_or_else(|| fail(OptionsProblem::Section(body.to_owned())))?;
            if sections.contains(&section) {
                return Err(fail(OptionsProblem::SectionTwice(body.to_owned())));
            }
            sections.push(section);
            continue;
        }
        let Some(equals) = body.find('=') else { return Err(fail(OptionsProblem::Statement)) };
        let name = trim(text, range.start, range.start.saturating_add(equals));
        let value = trim(text, range.start.saturating_add(equals).saturating_add(1), range.end);
        if name.is_empty() {
            return Err(fail(OptionsProblem::Statement));
        }
        let section = sections.len().checked_sub(1).ok_or_else(|| fail(OptionsProblem::NoSection))?;
        entries.push(Entry { section, name, value });
    }
    Ok(OptionsFile { text: text.to_owned(), sections, entries })
}

/// The text without the sections that `gone` names: their heads and every line up to the next one.
pub(super) fn without_sections(text: &str, gone: impl Fn(&Section) -> bool) -> String {
    let (mut kept, mut inside_gone, mut start) = (String::with_capacity(text.len()), false, 0usize);
    for line in text.split_inclusive('\n') {
        let body = text.get(statement(text, start, start.saturating_add(line.len()))).unwrap_or_default();
        start = start.saturating_add(line.len());
        if let Some(head) = body.strip_prefix('[').and_then(|b| b.strip_suffix(']')) {
            inside_gone = section(head).is_some_and(|section| gone(&section));
        }
        if !inside_gone {
            kept.push_str(line);
        }
    }
    kept
}

/// A line without its comment and without space around it.
fn statement(text: &str, start: usize, end: usize) -> Range<usize> {
    let line = text.get(start..end).unwrap_or_default();
    let mut escaped = false;
    let comment = line.char_indices().find_map(|(i, c)| {
        let is_comment = c == '#' && !escaped;
        escaped = c == '\\' && !escaped;
        is_comment.then_some(i)
    });
    trim(text, start, comment.map_or(end, |i| start.saturating_add(i)))
}

/// The range without white space at its ends: C's `isspace`, as RocksDB has it. Other white space belongs to a path.
fn trim(text: &str, start: usize, end: usize) -> Range<usize> {
    let is_space = |c: char| c.is_ascii_whitespace() || c == '\x0b';
    let part = text.get(start..end).unwrap_or_default();
    let left = part.len().saturating_sub(part.trim_start_matches(is_space).len());
    let start = start.saturating_add(left);
    start..start.saturating_add(part.trim_matches(is_space).len())
}

fn section(inner: &str) -> Option<Section> {
    // The argument reaches from the first quotation mark to the last.
    let (title, argument) = match (inner.find('"'), inner.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            (inner.get(..first)?.trim(), Some(unescape(inner.get(first.saturating_add(1)..last)?)))
        }
        _ => (inner.trim(), None),
    };
    match (title, argument) {
        ("Version", None) => Some(Section::Version),
        ("DBOptions", None) => Some(Section::Db),
        ("CFOptions", Some(name)) => Some(Section::ColumnFamily(name)),
        (title, Some(column_family)) => {
            let factory = title.strip_prefix("TableOptions/").filter(|factory| !factory.is_empty())?.to_owned();
            Some(Section::Table { factory, column_family })
        }
        _ => None,
    }
}

/// The line, from 1, in which this byte lies.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().matches('\n').count().saturating_add(1)
}

/// RocksDB's `EscapeOptionString`.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' | '#' | ':' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            _ => out.push(c),
        }
    }
    out
}

/// RocksDB's `UnescapeOptionString`.
pub fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, false) => out.push(c),
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => {}
            },
        }
    }
    out
}
