//! RocksDB's OPTIONS file: what the server was opened with, and rewriting single values of it.
//!
//! Owns: the syntax (`options/options_parser.cc`), typed access to the settings that matter here, and replacing values
//! while every other byte stays as it is.
//! Refuses: to know defaults. A setting that is not in the file is `None`: versions differ in what they write.
//!
//! What was found about paths, by writing databases with RocksDB 6.29, 7.5, 8.0, 8.8, 9.8 and 11.8 and in the source of
//! 11.8 (`options/db_options.cc`, `options/cf_options.cc`):
//! - `db_paths` and `cf_paths` are **never** in an OPTIONS file: they have no entry in the tables of serialised
//!   options. Files outside the first path show in the MANIFEST only, as a path id other than 0, and where that path
//!   lies must be told by the operator. (With one `db_paths` entry other than the database's own directory every path
//!   id is 0, and the table files are simply not where CURRENT is.)
//! - `wal_dir` and `db_log_dir` are there only when they were set (an empty value is not written), exactly as the
//!   server was given them: absolute or relative to its working directory; `\`, `#`, `:` and line ends are escaped. An
//!   unset `wal_dir` means the database's directory.
//! - The value that a server was started with is in the *newest* OPTIONS file of the directory.

mod syntax;
#[cfg(test)]
mod tests;

use std::ops::Range;

use serde::Serialize;

pub use self::syntax::{OptionsError, OptionsProblem, escape, unescape};
use super::name::Name;

/// A section of the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// `[Version]`
    Version,
    /// `[DBOptions]`
    Db,
    /// `[CFOptions "name"]`
    ColumnFamily(String),
    /// `[TableOptions/<factory> "name"]`
    Table {
        /// The table factory's name, such as `BlockBasedTable`.
        factory: String,
        /// The column family.
        column_family: String,
    },
}

/// One `name=value` line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    section: usize,
    name: Range<usize>,
    /// As written, escapes included.
    value: Range<usize>,
}

/// A parsed OPTIONS file.
#[derive(Clone, Debug)]
pub struct OptionsFile {
    text: String,
    sections: Vec<Section>,
    entries: Vec<Entry>,
}

/// A version number, compared part by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RocksDbVersion {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
    /// Patch.
    pub patch: u32,
}

impl std::fmt::Display for RocksDbVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Serialize for RocksDbVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The settings of the database that decide how it can be archived and restored. `None`: not in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // RocksDB's own names
pub struct DbSettings {
    pub rocksdb_version: RocksDbVersion,
    pub wal_dir: Option<String>,
    pub db_log_dir: Option<String>,
    pub recycle_log_file_num: Option<u64>,
    pub allow_2pc: Option<bool>,
    pub manual_wal_flush: Option<bool>,
    /// As written: `kZSTD`, `kNoCompression`.
    pub wal_compression: Option<String>,
    pub wal_ttl_seconds: Option<u64>,
    pub wal_size_limit_mb: Option<u64>,
    pub two_write_queues: Option<bool>,
    pub enable_pipelined_write: Option<bool>,
    pub unordered_write: Option<bool>,
    pub atomic_flush: Option<bool>,
    /// As written: `kPointInTimeRecovery`.
    pub wal_recovery_mode: Option<String>,
    pub track_and_verify_wals_in_manifest: Option<bool>,
    pub track_and_verify_wals: Option<bool>,
    pub write_dbid_to_manifest: Option<bool>,
    pub reuse_manifest_on_open: Option<bool>,
    pub async_wal_precreate: Option<bool>,
    pub avoid_flush_during_shutdown: Option<bool>,
    pub best_efforts_recovery: Option<bool>,
    pub max_manifest_file_size: Option<u64>,
    pub max_total_wal_size: Option<u64>,
    pub allow_ingest_behind: Option<bool>,
}

/// The settings of a column family that decide how it can be archived and restored. `None`: not in the file, or written
/// as `nullptr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // RocksDB's own names
pub struct ColumnFamilySettings {
    pub name: String,
    pub comparator: Option<String>,
    pub merge_operator: Option<String>,
    pub compaction_filter: Option<String>,
    pub compaction_filter_factory: Option<String>,
    pub table_factory: Option<String>,
    pub prefix_extractor: Option<String>,
    /// As written: `kCompactionStyleLevel`, `kCompactionStyleFIFO`.
    pub compaction_style: Option<String>,
    pub compression: Option<String>,
    pub ttl: Option<u64>,
    pub periodic_compaction_seconds: Option<u64>,
    pub num_levels: Option<u64>,
    pub write_buffer_size: Option<u64>,
    pub enable_blob_files: Option<bool>,
    pub enable_blob_direct_write: Option<bool>,
    pub persist_user_defined_timestamps: Option<bool>,
    pub inplace_update_support: Option<bool>,
    pub cf_allow_ingest_behind: Option<bool>,
    /// From the table's own section.
    pub format_version: Option<u64>,
}

impl OptionsFile {
    /// Parses the file's text.
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        syntax::parse(text)
    }

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Sections in the order of the file.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// All settings in the order of the file: section, name, value without escapes.
    pub fn settings(&self) -> impl Iterator<Item = (&Section, &str, String)> {
        self.entries.iter().filter_map(|entry| {
            let section = self.sections.get(entry.section)?;
            Some((section, self.slice(&entry.name), unescape(self.slice(&entry.value))))
        })
    }

    fn slice(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }

    fn entry(&self, section: &Section, name: &str) -> Option<&Entry> {
        let index = self.sections.iter().position(|s| s == section)?;
        self.entries.iter().find(|entry| entry.section == index && self.slice(&entry.name) == name)
    }

    /// A setting's value without escapes.
    pub fn get(&self, section: &Section, name: &str) -> Option<String> {
        self.entry(section, name).map(|entry| unescape(self.slice(&entry.value)))
    }

    /// Names of the column families that the file has, in its order.
    pub fn column_families(&self) -> impl Iterator<Item = &str> {
        self.sections.iter().filter_map(|section| match section {
            Section::ColumnFamily(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// A number, or an error that names the line.
    fn number(&self, section: &Section, name: &str) -> Result<Option<u64>, OptionsError> {
        self.typed(section, name, |text| {
            // RocksDB writes some unsigned settings as -1 when they hold the largest value.
            text.parse().ok().or_else(|| text.parse::<i64>().ok().map(|n| u64::from_ne_bytes(n.to_ne_bytes())))
        })
    }

    fn flag(&self, section: &Section, name: &str) -> Result<Option<bool>, OptionsError> {
        self.typed(section, name, |text| match text {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })
    }

    fn typed<T>(
        &self,
        section: &Section,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, OptionsError> {
        let Some(entry) = self.entry(section, name) else { return Ok(None) };
        let value = self.slice(&entry.value);
        parse(value).map(Some).ok_or_else(|| OptionsError {
            line: syntax::line_of(&self.text, entry.value.start),
            problem: OptionsProblem::Value { name: name.to_owned(), value: value.to_owned() },
        })
    }

    /// An object's name; RocksDB writes `nullptr` for none, and `{id=NAME;...}` for one with settings of its own.
    fn object(&self, section: &Section, name: &str) -> Option<String> {
        let value = self.get(section, name)?;
        let plain = match value.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
            Some(inner) => inner.split(';').find_map(|part| part.trim().strip_prefix("id="))?.to_owned(),
            None => value,
        };
        Some(plain).filter(|plain| !plain.is_empty() && plain != "nullptr")
    }

    /// The database's settings.
    pub fn db(&self) -> Result<DbSettings, OptionsError> {
        let s = &Section::Db;
        let text = |name: &str| self.get(s, name).filter(|value| !value.is_empty());
        Ok(DbSettings {
            rocksdb_version: self.rocksdb_version()?,
            wal_dir: text("wal_dir"),
            db_log_dir: text("db_log_dir"),
            recycle_log_file_num: self.number(s, "recycle_log_file_num")?,
            allow_2pc: self.flag(s, "allow_2pc")?,
            manual_wal_flush: self.flag(s, "manual_wal_flush")?,
            wal_compression: text("wal_compression"),
            wal_ttl_seconds: self.number(s, "WAL_ttl_seconds")?,
            wal_size_limit_mb: self.number(s, "WAL_size_limit_MB")?,
            two_write_queues: self.flag(s, "two_write_queues")?,
            enable_pipelined_write: self.flag(s, "enable_pipelined_write")?,
            unordered_write: self.flag(s, "unordered_write")?,
            atomic_flush: self.flag(s, "atomic_flush")?,
            wal_recovery_mode: text("wal_recovery_mode"),
            track_and_verify_wals_in_manifest: self.flag(s, "track_and_verify_wals_in_manifest")?,
            track_and_verify_wals: self.flag(s, "track_and_verify_wals")?,
            write_dbid_to_manifest: self.flag(s, "write_dbid_to_manifest")?,
            reuse_manifest_on_open: self.flag(s, "reuse_manifest_on_open")?,
            async_wal_precreate: self.flag(s, "async_wal_precreate")?,
            avoid_flush_during_shutdown: self.flag(s, "avoid_flush_during_shutdown")?,
            best_efforts_recovery: self.flag(s, "best_efforts_recovery")?,
            max_manifest_file_size: self.number(s, "max_manifest_file_size")?,
            max_total_wal_size: self.number(s, "max_total_wal_size")?,
            allow_ingest_behind: self.flag(s, "allow_ingest_behind")?,
        })
    }

    /// The version that wrote the file.
    pub fn rocksdb_version(&self) -> Result<RocksDbVersion, OptionsError> {
        let parse = |text: &str| {
            let mut parts = text.split('.').map(|part| part.trim().parse().ok());
            let version = RocksDbVersion {
                major: parts.next()??,
                minor: parts.next()??,
                patch: parts.next().unwrap_or(Some(0))?,
            };
            parts.next().is_none().then_some(version)
        };
        let version = self.typed(&Section::Version, "rocksdb_version", parse)?;
        version.ok_or(OptionsError { line: 1, problem: OptionsProblem::NoVersion })
    }

    /// A column family's settings; `None` if the file does not have it.
    pub fn column_family(&self, name: &str) -> Result<Option<ColumnFamilySettings>, OptionsError> {
        let section = &Section::ColumnFamily(name.to_owned());
        if !self.sections.contains(section) {
            return Ok(None);
        }
        let table = self
            .sections
            .iter()
            .find(|section| matches!(section, Section::Table { column_family, .. } if column_family == name));
        let format_version = match table {
            Some(table) => self.number(table, "format_version")?,
            None => None,
        };
        let text = |option: &str| self.get(section, option).filter(|value| !value.is_empty());
        Ok(Some(ColumnFamilySettings {
            name: name.to_owned(),
            comparator: self.object(section, "comparator"),
            merge_operator: self.object(section, "merge_operator"),
            compaction_filter: self.object(section, "compaction_filter"),
            compaction_filter_factory: self.object(section, "compaction_filter_factory"),
            table_factory: self.object(section, "table_factory"),
            prefix_extractor: self.object(section, "prefix_extractor"),
            compaction_style: text("compaction_style"),
            compression: text("compression"),
            ttl: self.number(section, "ttl")?,
            periodic_compaction_seconds: self.number(section, "periodic_compaction_seconds")?,
            num_levels: self.number(section, "num_levels")?,
            write_buffer_size: self.number(section, "write_buffer_size")?,
            enable_blob_files: self.flag(section, "enable_blob_files")?,
            enable_blob_direct_write: self.flag(section, "enable_blob_direct_write")?,
            persist_user_defined_timestamps: self.flag(section, "persist_user_defined_timestamps")?,
            inplace_update_support: self.flag(section, "inplace_update_support")?,
            cf_allow_ingest_behind: self.flag(section, "cf_allow_ingest_behind")?,
            format_version,
        }))
    }

    /// A column family's settings by the name that the MANIFEST has.
    pub fn column_family_named(&self, name: &Name) -> Result<Option<ColumnFamilySettings>, OptionsError> {
        name.as_str().map_or(Ok(None), |name| self.column_family(name))
    }

    /// Directories outside the database's own that the file names: option and directory.
    pub fn foreign_paths(&self) -> Vec<(&'static str, String)> {
        ["wal_dir", "db_log_dir"]
            .into_iter()
            .filter_map(|name| self.get(&Section::Db, name).filter(|dir| !dir.is_empty()).map(|dir| (name, dir)))
            .collect()
    }

    /// The file's text without the sections of column families that `keep` does not want; all else byte for byte.
    pub fn with_families(&self, keep: impl Fn(&str) -> bool) -> String {
        syntax::without_sections(&self.text, |section| match section {
            Section::ColumnFamily(name) | Section::Table { column_family: name, .. } => !keep(name),
            Section::Version | Section::Db => false,
        })
    }

    /// The file's text with these `[DBOptions]` values in place of the present ones; all else byte for byte. A setting
    /// that the file does not have is not added: what is not written needs no rewriting.
    pub fn with_db_values(&self, values: &[(&str, &str)]) -> String {
        let mut changes: Vec<(Range<usize>, String)> = values
            .iter()
            .filter_map(|(name, value)| self.entry(&Section::Db, name).map(|e| (e.value.clone(), escape(value))))
            .collect();
        changes.sort_by_key(|(range, _)| range.start);
        let mut text = String::with_capacity(self.text.len());
        let mut at = 0;
        for (range, value) in changes {
            text.push_str(self.slice(&(at..range.start)));
            text.push_str(&value);
            at = range.end;
        }
        text.push_str(self.slice(&(at..self.text.len())));
        text
    }
}
