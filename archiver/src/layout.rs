//! The database's directories and settings, read from its own files.
//!
//! Owns: reading CURRENT, IDENTITY and the newest OPTIONS file, and what follows from them for an archiver.
//! Refuses: to open the database, and to use any of the absolute paths in OPTIONS for anything but reading and linking.

use std::{
    collections::BTreeMap,
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
        options_file::{ColumnFamilySettings, DbSettings, OptionsError, OptionsFile},
    },
};

use crate::{registry::list, wal_tail::Recycling};

/// OPTIONS and CURRENT are small; anything beyond is not one of RocksDB's.
const MAX_SMALL_FILE: u64 = 64 << 20;

/// A database as its files describe it.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The database directory, absolute.
    pub db: PathBuf,
    /// Where its WALs are.
    pub wal_dir: PathBuf,
    /// Directories of its table files by path id, where the operator named them: OPTIONS files never do.
    pub db_paths: Vec<PathBuf>,
    /// The newest OPTIONS file. A database always has one, unless writing it failed.
    pub options: Option<Options>,
}

/// The newest OPTIONS file.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its number.
    pub number: FileNumber,
    /// The database's settings.
    pub settings: DbSettings,
    /// The column families' settings.
    pub families: BTreeMap<String, ColumnFamilySettings>,
}

impl Options {
    fn parse(number: FileNumber, text: &str) -> Result<Self, OptionsError> {
        let file = OptionsFile::parse(text)?;
        let mut families = BTreeMap::new();
        for name in file.column_families() {
            families.extend(file.column_family(name)?.map(|settings| (name.to_owned(), settings)));
        }
        Ok(Self { number, settings: file.db()?, families })
    }
}

impl Layout {
    /// Reads the database in `db`. `db_paths` are what the server was given under that name, if it was.
    ///
    /// # Errors
    /// `rocksdb.not-a-database` where there is no CURRENT; `rocksdb.unsupported` for what cannot be archived faithfully.
    pub fn read(db: &Path, db_paths: &[PathBuf]) -> Result<Self> {
        let db = fs::canonicalize(db).map_err(|e| error::io("finding the database", db, e))?;
        if !db.join("CURRENT").exists() {
            return Err(Error::new(Code::NotADatabase, "opening the database").on(db.display()));
        }
        let options = newest_options(&db)?;
        if let Some(options) = &options {
            for (name, family) in &options.families {
                if family.enable_blob_direct_write == Some(true) {
                    return Err(Error::new(Code::DatabaseUnsupported, "opening the database")
                        .on(db.display())
                        .with("column family", name)
                        .with("option", "enable_blob_direct_write")
                        .hint("the log holds only references into blob files, which RocksDB itself cannot replay"));
                }
            }
        }
        // A relative directory is relative to the server's working directory, which we do not know; versions before 7
        // write the database's own directory as it was given to them.
        let configured = options.as_ref().and_then(|o| o.settings.wal_dir.as_deref()).map(PathBuf::from);
        let wal_dir = match configured {
            Some(dir) if dir.is_absolute() => {
                fs::canonicalize(&dir).map_err(|e| error::io("finding wal_dir", &dir, e))?
            }
            Some(dir) if db.ends_with(dir.strip_prefix(".").unwrap_or(&dir)) => db.clone(),
            Some(dir) => {
                return Err(Error::new(Code::DatabaseUnsupported, "finding the write-ahead log of")
                    .on(db.display())
                    .with("wal_dir", dir.display())
                    .hint("wal_dir is relative to the server's working directory; give the server an absolute one"));
            }
            None => db.clone(),
        };
        Ok(Self { db, wal_dir, db_paths: db_paths.to_vec(), options })
    }

    /// The database's settings.
    pub fn settings(&self) -> Option<&DbSettings> {
        self.options.as_ref().map(|options| &options.settings)
    }

    /// A column family's settings.
    pub fn family(&self, name: &str) -> Option<&ColumnFamilySettings> {
        self.options.as_ref()?.families.get(name)
    }

    /// Whether committed writes can stay in the server's memory until it flushes its log.
    pub fn manual_wal_flush(&self) -> bool {
        self.settings().is_some_and(|s| s.manual_wal_flush == Some(true))
    }

    /// Whether RocksDB forgets which WALs hold prepared transactions: its pipelined write (`PipelinedWriteImpl` in
    /// db_impl_write.cc, 11.8.1) does not call the callback that notes them, so such a WAL is deleted at the next flush,
    /// and the transaction is lost at the next open, also when it was committed.
    pub fn forgets_prepared(&self) -> bool {
        let pipelined = self.settings().is_some_and(|s| s.enable_pipelined_write == Some(true));
        self.allow_2pc() && pipelined
    }

    /// Whether the server keeps WALs of prepared transactions.
    pub fn allow_2pc(&self) -> bool {
        self.settings().is_some_and(|s| s.allow_2pc == Some(true))
    }

    /// Whether the MANIFEST says below which number WALs are deleted whenever any is. 7.5.3 does (measured). Without `allow_2pc`,
    /// 6.17.3 and 6.29.5 delete what their memory tells, and their MANIFESTs never name a MinLogNumberToKeep (measured).
    pub fn notes_deleted_wals(&self) -> bool {
        self.settings().is_some_and(|s| (s.rocksdb_version.major, s.rocksdb_version.minor) >= (7, 5))
    }

    /// Whether the server may overwrite WALs in place.
    pub fn recycling(&self) -> Recycling {
        match self.settings().and_then(|s| s.recycle_log_file_num) {
            Some(0) => Recycling::Off,
            _ => Recycling::Possible,
        }
    }

    /// Whether a column family drops its oldest files by its own settings.
    pub fn is_fifo(&self, family: &str) -> bool {
        self.family(family).is_some_and(|f| f.compaction_style.as_deref() == Some("kCompactionStyleFIFO"))
    }

    /// Whether files can be ingested into a column family below what is there; where no setting says that they cannot, too.
    pub fn may_ingest_behind(&self, family: &str) -> bool {
        let of_database = self.settings().is_none_or(|s| s.allow_ingest_behind != Some(false));
        // The column family's own came later: without it, the database's alone decides.
        of_database || self.family(family).is_none_or(|f| f.cf_allow_ingest_behind == Some(true))
    }

    /// Where the info log is when it is not in the database directory.
    pub fn db_log_dir(&self) -> Option<PathBuf> {
        self.settings().and_then(|s| s.db_log_dir.clone()).map(PathBuf::from)
    }

    /// The directory of table files with a path id.
    pub fn table_dir(&self, path_id: u8) -> Option<&Path> {
        match self.db_paths.get(usize::from(path_id)) {
            Some(dir) => Some(dir),
            None if path_id == 0 => Some(&self.db),
            None => None,
        }
    }

    /// The info log.
    pub fn info_log(&self) -> PathBuf {
        crate::session::info_log(&self.db, self.db_log_dir().as_deref())
    }

    /// The directories outside the database's own.
    pub fn paths(&self) -> DatabasePaths {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        DatabasePaths {
            db: text(&self.db),
            wal_dir: (self.wal_dir != self.db).then(|| text(&self.wal_dir)),
            db_log_dir: self.db_log_dir().as_deref().map(text),
            db_paths: self.db_paths.iter().map(|path| text(path)).collect(),
            cf_paths: Vec::new(),
        }
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

/// The newest OPTIONS file of a database.
fn newest_options(db: &Path) -> Result<Option<Options>> {
    // It can be deleted between the listing and the reading, when a newer one has come: list again then.
    for _ in 0..100 {
        let newest = list(db)?.into_iter().filter_map(|(kind, path)| match kind {
            FileKind::Options(number) => Some((number, path)),
            _ => None,
        });
        let Some((number, path)) = newest.max() else { return Ok(None) };
        if let Some(bytes) = read_small(&path)? {
            let parsed = Options::parse(number, &String::from_utf8_lossy(&bytes));
            return parsed.map(Some).map_err(|e| {
                Error::new(Code::OptionsMalformed, "reading").on(path.display()).with("line", e.line).because(e)
            });
        }
    }
    Err(Error::new(Code::FileIo, "reading the OPTIONS of").on(db.display()).with("attempts", 100))
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
