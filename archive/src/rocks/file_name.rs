//! The names of RocksDB's files.
//!
//! Owns: the same rules as RocksDB's `file/filename.cc`. A name that those rules do not know is no file of RocksDB's.
//! Refuses: paths; every function takes or gives a bare name.

use serde::{Deserialize, Serialize};

use crate::ids::FileNumber;

/// What a file in a database's directories is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// `NNNNNN.log`: write-ahead log.
    Wal(FileNumber),
    /// `NNNNNN.sst`: table file.
    Sst(FileNumber),
    /// `NNNNNN.ldb`: table file under its LevelDB name, which RocksDB still opens.
    LevelDbTable(FileNumber),
    /// `NNNNNN.blob`: values kept apart from their keys.
    Blob(FileNumber),
    /// `MANIFEST-NNNNNN`.
    Manifest(FileNumber),
    /// `OPTIONS-NNNNNN`.
    Options(FileNumber),
    /// `CURRENT`: names the MANIFEST.
    Current,
    /// `IDENTITY`: the database's id.
    Identity,
    /// `LOCK`.
    Lock,
    /// `LOG`, `LOG.old`, `LOG.old.NNN`: the human-readable log.
    InfoLog,
    /// `NNNNNN.dbtmp`, `OPTIONS-NNNNNN.dbtmp`: a file being written under a temporary name.
    Temporary,
    /// `METADB-NNNNNN`, of repair runs.
    MetaDatabase(FileNumber),
    /// A file on its way to deletion (`*.trash`, a rate-limited delete).
    Trash,
}

/// What the bare name of a file says; `None` if RocksDB would ignore it.
pub fn parse(name: &str) -> Option<FileKind> {
    match name.strip_suffix(".trash") {
        Some(stem) => parse_untrashed(stem).map(|_| FileKind::Trash),
        None => parse_untrashed(name),
    }
}

fn parse_untrashed(name: &str) -> Option<FileKind> {
    match name {
        "CURRENT" => return Some(FileKind::Current),
        "IDENTITY" => return Some(FileKind::Identity),
        "LOCK" => return Some(FileKind::Lock),
        "LOG" | "LOG.old" => return Some(FileKind::InfoLog),
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("LOG.old.") {
        return number(rest).map(|_| FileKind::InfoLog);
    }
    if let Some(rest) = name.strip_prefix("MANIFEST-") {
        return number(rest).map(FileKind::Manifest);
    }
    if let Some(rest) = name.strip_prefix("METADB-") {
        return number(rest).map(FileKind::MetaDatabase);
    }
    if let Some(rest) = name.strip_prefix("OPTIONS-") {
        return match rest.strip_suffix(".dbtmp") {
            Some(rest) => number(rest).map(|_| FileKind::Temporary),
            None => number(rest).map(FileKind::Options),
        };
    }
    let (stem, suffix) = name.split_once('.')?;
    let stem = number(stem)?;
    match suffix {
        "log" => Some(FileKind::Wal(stem)),
        "sst" => Some(FileKind::Sst(stem)),
        "ldb" => Some(FileKind::LevelDbTable(stem)),
        "blob" => Some(FileKind::Blob(stem)),
        "dbtmp" => Some(FileKind::Temporary),
        _ => None,
    }
}

/// Decimal digits only, as RocksDB's `ConsumeDecimalNumber`: no sign, no overflow.
fn number(text: &str) -> Option<FileNumber> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The name of a write-ahead log.
pub fn wal(number: FileNumber) -> String {
    format!("{:06}.log", number.get())
}

/// The name of a table file.
pub fn sst(number: FileNumber) -> String {
    format!("{:06}.sst", number.get())
}

/// The name of a blob file.
pub fn blob(number: FileNumber) -> String {
    format!("{:06}.blob", number.get())
}

/// The name of a MANIFEST.
pub fn manifest(number: FileNumber) -> String {
    format!("MANIFEST-{:06}", number.get())
}

/// The name of an OPTIONS file.
pub fn options(number: FileNumber) -> String {
    format!("OPTIONS-{:06}", number.get())
}

/// The name of the file that names the MANIFEST.
pub const CURRENT: &str = "CURRENT";
/// The name of the file that holds the database's id.
pub const IDENTITY: &str = "IDENTITY";
/// The subdirectory of the WAL directory into which obsolete WALs are moved when a time to live is set.
pub const ARCHIVE_DIR: &str = "archive";

/// CURRENT does not name a MANIFEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CURRENT does not hold the name of a MANIFEST and a line end")]
pub struct MalformedCurrent;

/// The MANIFEST that the content of CURRENT names.
///
/// The line end is required, as RocksDB requires it: a CURRENT without one is half written.
pub fn parse_current(content: &[u8]) -> Result<FileNumber, MalformedCurrent> {
    let name = content.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok()).ok_or(MalformedCurrent)?;
    match parse(name) {
        Some(FileKind::Manifest(number)) => Ok(number),
        _ => Err(MalformedCurrent),
    }
}

/// The content of a CURRENT that names this MANIFEST.
pub fn current(number: FileNumber) -> String {
    format!("{}\n", manifest(number))
}

/// IDENTITY does not hold an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("IDENTITY does not hold a printable id of at most 256 characters")]
pub struct MalformedIdentity;

/// The database's id in the content of IDENTITY. Older versions end it with a line end.
pub fn parse_identity(content: &[u8]) -> Result<&str, MalformedIdentity> {
    let line = content.strip_suffix(b"\n").unwrap_or(content);
    let text = std::str::from_utf8(line).map_err(|_| MalformedIdentity)?;
    let printable = text.bytes().all(|b| b.is_ascii_graphic());
    if text.is_empty() || text.len() > 256 || !printable { Err(MalformedIdentity) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(n: u64) -> FileNumber {
        FileNumber::new(n)
    }

    #[test]
    fn names_are_told_apart_as_rocksdb_does() {
        for (name, kind) in [
            ("100.log", Some(FileKind::Wal(n(100)))),
            ("000007.log", Some(FileKind::Wal(n(7)))),
            ("0.sst", Some(FileKind::Sst(n(0)))),
            ("0.ldb", Some(FileKind::LevelDbTable(n(0)))),
            ("18446744073709551615.log", Some(FileKind::Wal(n(u64::MAX)))),
            ("18446744073709551616.log", None),
            ("000012.blob", Some(FileKind::Blob(n(12)))),
            ("CURRENT", Some(FileKind::Current)),
            ("IDENTITY", Some(FileKind::Identity)),
            ("LOCK", Some(FileKind::Lock)),
            ("LOG", Some(FileKind::InfoLog)),
            ("LOG.old", Some(FileKind::InfoLog)),
            ("LOG.old.6688", Some(FileKind::InfoLog)),
            ("LOGs", None),
            ("MANIFEST-2", Some(FileKind::Manifest(n(2)))),
            ("MANIFEST-", None),
            ("MANIFEST-3x", None),
            ("METADB-7", Some(FileKind::MetaDatabase(n(7)))),
            ("OPTIONS-000009", Some(FileKind::Options(n(9)))),
            ("OPTIONS-000009.dbtmp", Some(FileKind::Temporary)),
            ("000004.dbtmp", Some(FileKind::Temporary)),
            ("000004.sst.trash", Some(FileKind::Trash)),
            ("", None),
            ("foo", None),
            ("foo.log", None),
            (".log", None),
            ("100", None),
            ("100.", None),
            ("100.lop", None),
            ("+1.log", None),
            ("1.log.bak", None),
        ] {
            assert_eq!(parse(name), kind, "{name}");
        }
    }

    #[test]
    fn made_names_are_recognised() {
        assert_eq!(parse(&wal(n(12))), Some(FileKind::Wal(n(12))));
        assert_eq!(parse(&sst(n(1_234_567))), Some(FileKind::Sst(n(1_234_567))));
        assert_eq!(parse(&blob(n(3))), Some(FileKind::Blob(n(3))));
        assert_eq!(parse(&options(n(3))), Some(FileKind::Options(n(3))));
        assert_eq!(parse_current(current(n(4)).as_bytes()), Ok(n(4)));
    }

    #[test]
    fn a_half_written_current_is_refused() {
        for bad in [&b""[..], b"MANIFEST-000004", b"MANIFEST-\n", b"000004.log\n", b"MANIFEST-000004\n\n", b"\xff\n"] {
            assert_eq!(parse_current(bad), Err(MalformedCurrent));
        }
    }

    #[test]
    fn identities_of_old_and_new_versions_are_read() {
        assert_eq!(parse_identity(b"a-b"), Ok("a-b"));
        assert_eq!(parse_identity(b"a-b\n"), Ok("a-b"));
        assert_eq!(parse_identity(b"\n"), Err(MalformedIdentity));
        assert_eq!(parse_identity(b"a b"), Err(MalformedIdentity));
    }
}
