//! The one error type that crosses crate boundaries.
//!
//! Owns: its shape. An error has a stable [`Code`] (what a program acts on), what was being done to which object
//! (what a person needs at three in the morning), details, a hint and its cause.
//! Decoders have small typed errors of their own and become an `Error` where the object's name is known.
//! Refuses: errors that are only text, and a second way to say "temporary" beside [`Code::retry`].

use std::{borrow::Cow, error::Error as StdError, fmt};

use crate::code::Code;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Something that could not be done: its stable code, the deed, the object, details, a hint and the cause.
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    doing: Cow<'static, str>,
    object: Option<String>,
    details: Vec<(Cow<'static, str>, String)>,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// `doing` is a present participle with its object's kind: "reading the segment".
    pub fn new(code: Code, doing: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { code, doing: doing.into(), object: None, details: Vec::new(), hint: None, source: None }))
    }

    /// The file, key or name concerned.
    #[must_use]
    pub fn on(mut self, object: impl fmt::Display) -> Self {
        self.0.object = Some(object.to_string());
        self
    }

    /// A fact that helps: offsets, numbers, what was expected and what was found.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl fmt::Display) -> Self {
        self.0.details.push((name.into(), value.to_string()));
        self
    }

    /// Replaces the code's general hint by one for this very case.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The error underneath.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What was being done, without the object.
    pub fn doing(&self) -> &str {
        &self.0.doing
    }

    /// The object concerned, if one is known.
    pub fn object(&self) -> Option<&str> {
        self.0.object.as_deref()
    }

    /// Facts in the order in which they were added.
    pub fn details(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.details.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    /// What a person can do about it: the hint of this case, else the code's.
    pub fn hint_text(&self) -> &str {
        self.0.hint.as_deref().unwrap_or_else(|| self.0.code.hint())
    }

    /// The causes, outermost first, as text.
    pub fn causes(&self) -> Vec<String> {
        std::iter::successors(self.source(), |&cause| cause.source()).map(ToString::to_string).collect()
    }
}

/// One line, for logs: `reading the segment segments/…: meaning (detail=value): cause`.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.doing)?;
        if let Some(object) = &self.0.object {
            write!(f, " {object}")?;
        }
        write!(f, ": {}", self.0.code.meaning())?;
        if !self.0.details.is_empty() {
            let facts: Vec<_> = self.0.details.iter().map(|(k, v)| format!("{k}={v}")).collect();
            write!(f, " ({})", facts.join(", "))?;
        }
        for cause in self.causes() {
            write!(f, ": {cause}")?;
        }
        write!(f, " [{}]", self.0.code)
    }
}

/// The same as `Display`: an error in a test's output should read like one in a log.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

/// Turns an I/O error on a local path into an [`Error`]; the code follows from the error's kind.
pub fn io(doing: impl Into<Cow<'static, str>>, path: impl AsRef<std::path::Path>, source: std::io::Error) -> Error {
    use std::io::ErrorKind;
    let code = match source.kind() {
        ErrorKind::NotFound => Code::FileNotFound,
        ErrorKind::PermissionDenied => Code::FileNotPermitted,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Code::DiskFull,
        _ => Code::FileIo,
    };
    Error::new(code, doing).on(path.as_ref().display()).because(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_deed_object_meaning_facts_and_cause() {
        let e = Error::new(Code::SegmentDamaged, "reading the segment")
            .on("segments/1/2")
            .with("offset", 7)
            .because(std::io::Error::other("boom"));
        let text = e.to_string();
        for part in ["reading the segment segments/1/2: ", "offset=7", "boom", "[segment.damaged]"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
