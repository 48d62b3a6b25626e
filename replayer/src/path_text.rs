//! Paths in JSON.
//!
//! Owns: a form for every path that comes back as it was, also for one that is no UTF-8 (its odd bytes, and `%`, are written
//! `%FF`; for `serde(with)`), and one that is only shown.

use std::{
    ffi::OsString,
    fmt::Write as _,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _, ser::SerializeSeq as _};

/// Writes it.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(path))
}

/// Reads it.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    path(&text).ok_or_else(|| D::Error::custom("no path"))
}

/// Writes it for people and scripts: as it is, and one that is no UTF-8 as well as it can be shown.
pub fn shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Several.
pub fn all_shown<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    let mut all = serializer.serialize_seq(Some(paths.len()))?;
    for path in paths {
        all.serialize_element(&path.display().to_string())?;
    }
    all.end()
}

pub(crate) fn text(path: &Path) -> String {
    let mut out = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        out.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            // Writing into a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn path(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = behind;
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_comes_back() {
        for bytes in [&b"/a/b"[..], b"/50%/\xff\xfe/x", "/ä/%41".as_bytes(), b"", b"/\xe2\x82"] {
            let given = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            assert_eq!(path(&text(&given)), Some(given));
        }
        assert_eq!(text(Path::new("/var/lib/db")), "/var/lib/db");
        assert_eq!(path("/a%"), None);
        assert_eq!(path("/a%zz"), None);
    }
}
