//! The database's directories and settings, read from its own files.
//!
//! Owns: reading CURRENT, IDENTITY and the newest OPTIONS file, and what follows from them for an archiver.
//! Refuses: to open the database, and to use any of the absolute paths in OPTIONS for anything but reading and linking.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use pitr_archive::{
    Code, Error, Result,
    catalog::schema::DatabasePaths,
    error,
    ids::FileNumber,
    rocks::{
        file_name::{self, FileKind},
        options_file::OptionsFile,
    },
};

use crate::registry::list;

/// OPTIONS and CURRENT are small; anything beyond is not one of RocksDB's.
const MAX_SMALL_FILE: u64 = 64 << 20;

/// A database as its files describe it.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The database directory, absolute.
    pub db: PathBuf,
    /// Where its WALs are.
    pub wal_dir: PathBuf,
    /// The newest OPTIONS file: its number and text. A database always has one, unless writing it failed.
    pub options: Option<(FileNumber, OptionsFile)>,
}

impl Layout {
    /// Reads the database in `db`.
    ///
    /// # Errors
    /// `rocksdb.not-a-database` where there is no CURRENT.
    pub fn read(db: &Path) -> Result<Self> {
        let db = fs::canonicalize(db).map_err(|e| error::io("finding the database", db, e))?;
        if !db.join("CURRENT").exists() {
            return Err(Error::new(Code::NotADatabase, "opening the database").on(db.display()));
        }
        let mut newest = None;
        // The newest OPTIONS file can be deleted between the listing and the reading: list again then.
        for _ in 0..100 {
            newest = list(&db)?
                .into_iter()
                .filter_map(|(kind, path)| match kind {
                    FileKind::Options(number) => Some((number, path)),
                    _ => None,
                })
                .max();
            let Some((number, path)) = &newest else { break };
            match read_small(path)? {
                Some(bytes) => {
                    let text = String::from_utf8_lossy(&bytes);
                    let options = OptionsFile::parse(&text).map_err(|e| {
                        Error::new(Code::OptionsMalformed, "reading").on(path.display()).because(e)
                    })?;
                    let wal_dir = options.wal_dir().filter(|dir| !dir.is_empty()).map_or_else(|| db.clone(), PathBuf::from);
                    return Ok(Self { db, wal_dir, options: Some((*number, options)) });
                }
                None => continue,
            }
        }
        match newest {
            None => Ok(Self { wal_dir: db.clone(), db, options: None }),
            Some((_, path)) => Err(Error::new(Code::FileIo, "reading").on(path.display()).with("attempts", 100)),
        }
    }

    /// The parsed OPTIONS file.
    pub fn options_file(&self) -> Option<&OptionsFile> {
        self.options.as_ref().map(|(_, options)| options)
    }

    /// Whether committed writes can stay in the server's memory until it flushes its log.
    pub fn manual_wal_flush(&self) -> bool {
        self.options_file().is_some_and(OptionsFile::manual_wal_flush)
    }

    /// Whether the server keeps WALs of prepared transactions.
    pub fn allow_2pc(&self) -> bool {
        self.options_file().is_some_and(OptionsFile::allow_2pc)
    }

    /// Where the info log is when it is not in the database directory.
    pub fn db_log_dir(&self) -> Option<PathBuf> {
        self.options_file().and_then(OptionsFile::db_log_dir).filter(|dir| !dir.is_empty()).map(PathBuf::from)
    }

    /// The info log.
    pub fn info_log(&self) -> PathBuf {
        crate::session::info_log(&self.db, self.db_log_dir().as_deref())
    }

    /// The directories outside the database's own.
    pub fn paths(&self) -> DatabasePaths {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut paths = DatabasePaths { db: text(&self.db), ..DatabasePaths::default() };
        if self.wal_dir != self.db {
            paths.wal_dir = Some(text(&self.wal_dir));
        }
        paths.db_log_dir = self.db_log_dir().as_deref().map(text);
        if let Some(options) = self.options_file() {
            paths.db_paths = options.db_paths();
            paths.cf_paths = Vec::new();
        }
        paths
    }

    /// The number of the MANIFEST that CURRENT names.
    pub fn current(&self) -> Result<FileNumber> {
        current(&self.db)
    }

    /// The database's own identity; empty where there is no IDENTITY file.
    pub fn identity(&self) -> Result<String> {
        let path = self.db.join("IDENTITY");
        match read_small(&path)? {
            None => Ok(String::new()),
            Some(bytes) => file_name::parse_identity(&bytes)
                .map(ToOwned::to_owned)
                .map_err(|e| Error::new(Code::NotADatabase, "reading").on(path.display()).because(e)),
        }
    }
}

/// The number of the MANIFEST that the database's CURRENT names.
pub fn current(db: &Path) -> Result<FileNumber> {
    let path = db.join("CURRENT");
    let bytes =
        read_small(&path)?.ok_or_else(|| Error::new(Code::NotADatabase, "opening the database").on(db.display()))?;
    file_name::parse_current(&bytes)
        .map_err(|e| Error::new(Code::NotADatabase, "reading").on(path.display()).because(e))
}

/// A small file's bytes; `None` if it is not there.
pub fn read_small(path: &Path) -> Result<Option<Vec<u8>>> {
    let size = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(error::io("examining", path, e)),
    };
    if size > MAX_SMALL_FILE {
        return Err(Error::new(Code::DatabaseUnsupported, "reading").on(path.display()).with("bytes", size));
    }
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(error::io("reading", path, e)),
    }
}
