//! Names of tags.
//!
//! Owns: which names are allowed, and the hash under which a tag is stored: names are secret in an encrypted archive.

use std::{fmt, str::FromStr};

use crate::{
    code::Code,
    error::{Error, Result},
    ids::ContentHash,
    keyring::Keyring,
};

/// The longest name, in bytes.
pub const MAX_NAME: usize = 128;

/// A tag's name: 1 to 128 ASCII letters, digits, `.`, `_` and `-`, not beginning with `.` or `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Checks a name that somebody gave.
    pub fn parse(text: &str) -> Result<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let good = (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['.', '-']);
        if good { Ok(Self(text.to_owned())) } else { Err(Error::new(Code::TagMalformed, "naming a tag").on(text)) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// What stands for the name in object names and manifests; keyed in an encrypted archive.
pub fn name_hash(keyring: &Keyring, name: &str) -> ContentHash {
    keyring.name_hash("tag", &[name.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_paths_options_or_empty_are_refused() {
        for good in ["a", "before-migration", "v1.2_3", "0", &"x".repeat(128)] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "-x", ".x", "a/b", "a b", "ü", "a\0", &"x".repeat(129)] {
            assert_eq!(Name::parse(bad).unwrap_err().code(), Code::TagMalformed, "{bad:?}");
        }
    }
}
