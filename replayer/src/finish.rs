//! Opens a restored database with RocksDB. The only file here that does.
//!
//! Owns: with what options. Every path is given explicitly and lies in the restored copy: what the source's OPTIONS
//! file says is never used for an open, because its paths are the running server's. Recovery is `AbsoluteConsistency`,
//! so that a record that cannot be replayed is an error and not silent loss. Automatic compactions are off: no
//! compaction filter of the source exists here, and none is needed.
//! Refuses: comparators and merge operators that this library does not have. Under a wrong order keys vanish.

use std::{
    ffi::{CStr, CString},
    path::{Path, PathBuf},
};

use librocksdb_sys as ffi;
use pitr_archive::{
    Code, Error, Result,
    ids::{ColumnFamilyId, SequenceNumber},
    rocks::{built_in, manifest::TwoPhase, write_batch::WritePolicy},
};
use rocksdb::{
    AsRawPtr, BlockBasedOptions, BottommostLevelCompaction, ChecksumType, ColumnFamilyDescriptor, CompactOptions, DB,
    DBCompressionType, DBPath, DBRecoveryMode, IngestExternalFileOptions, Options,
};

/// A column family, as far as opening it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilySpec {
    /// Its id, to find it again.
    pub id: ColumnFamilyId,
    /// Its name.
    pub name: String,
    /// Its comparator's name.
    pub comparator: String,
    /// Its merge operator's name.
    pub merge_operator: Option<String>,
    /// The version of its table files, so that the source's RocksDB can read what recovery writes.
    pub format_version: Option<i32>,
    /// The number of its levels: what recovery writes must not lie below the source's last one, which the server would refuse.
    pub levels: Option<i32>,
    /// Its own paths, in the copy.
    pub paths: Vec<PathBuf>,
}

/// A database directory to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSpec {
    /// The directory.
    pub directory: PathBuf,
    /// Its WAL directory.
    pub wal: PathBuf,
    /// Its `db_paths`; empty when it has none.
    pub paths: Vec<PathBuf>,
    /// Every column family that it has.
    pub families: Vec<FamilySpec>,
    /// Whether its log may hold records of two-phase commit. What is pending stays pending: its WALs are kept.
    pub two_phase: TwoPhase,
}

/// Why a column family cannot be opened here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The column family.
    pub family: String,
    /// `comparator` or `merge operator`.
    pub what: &'static str,
    /// Its name.
    pub name: String,
}

/// What this library lacks for these column families.
pub fn unknown(families: &[FamilySpec]) -> Vec<Unknown> {
    let mut lacking = Vec::new();
    for family in families {
        if !built_in::has_comparator(&family.comparator) {
            lacking.push(Unknown { family: family.name.clone(), what: "comparator", name: family.comparator.clone() });
        }
        if let Some(operator) = family.merge_operator.as_ref().filter(|o| !built_in::has_merge_operator(o)) {
            lacking.push(Unknown { family: family.name.clone(), what: "merge operator", name: operator.clone() });
        }
    }
    lacking
}

/// Refuses what [`unknown`] finds, before anything is touched.
pub fn check_known(families: &[FamilySpec]) -> Result<()> {
    let lacking = unknown(families);
    if lacking.is_empty() {
        return Ok(());
    }
    let mut e = Error::new(Code::DatabaseUnsupported, "finishing the restore here")
        .hint("restore without --finish: the server itself recovers the directory when it opens it, with its own comparators and merge operators");
    for item in lacking {
        e = e.with(item.what, format!("{} of column family {:?}", item.name, item.family));
    }
    Err(e)
}

/// Whether this library's recovery understands the log of a database with this write policy.
///
/// WritePrepared and WriteUnprepared count sequence numbers in another way, and only their own kind of TransactionDB
/// opens their logs; its open then decides things (it rolls back what was not prepared) that are the server's business.
pub const fn recovers(policy: Option<WritePolicy>) -> bool {
    matches!(policy, None | Some(WritePolicy::WriteCommitted))
}

/// Refuses what [`recovers`] denies, before anything is touched.
pub fn check_policy(policy: Option<WritePolicy>) -> Result<()> {
    if recovers(policy) {
        return Ok(());
    }
    Err(Error::new(Code::DatabaseUnsupported, "finishing the restore here")
        .with("write policy", format!("{policy:?}"))
        .hint("restore without --finish: the server itself recovers the directory when it opens it with its own write policy"))
}

/// An open database.
pub struct Opened {
    db: DB,
    families: Vec<FamilySpec>,
}

impl Opened {
    /// Opens and recovers the directory.
    pub fn open(spec: &OpenSpec) -> Result<Self> {
        check_known(&spec.families)?;
        let mut options = Options::default();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        options.set_wal_recovery_mode(DBRecoveryMode::AbsoluteConsistency);
        options.set_wal_dir(&spec.wal);
        options.set_db_log_dir(&spec.directory);
        options.set_track_and_verify_wals_in_manifest(false);
        options.set_skip_stats_update_on_db_open(true);
        // The table cache would otherwise hold every file's index.
        options.set_max_open_files(256);
        options.set_keep_log_file_num(1);
        // SAFETY: the pointer belongs to `options`, which outlives the call; it sets a plain field.
        unsafe { ffi::rocksdb_options_set_allow_2pc(options.as_raw_ptr(), (spec.two_phase == TwoPhase::On).into()) };
        if !spec.paths.is_empty() {
            options.set_db_paths(&db_paths(&spec.paths)?);
        }
        let families = spec
            .families
            .iter()
            .map(|family| Ok(ColumnFamilyDescriptor::new(&family.name, family_options(family)?)))
            .collect::<Result<Vec<_>>>()?;
        let db = DB::open_cf_descriptors(&options, &spec.directory, families).map_err(|e| {
            Error::new(Code::DatabaseOpen, "opening the restored database").on(spec.directory.display()).because(e)
        })?;
        Ok(Self { db, families: spec.families.clone() })
    }

    /// Ingests a file that had no sequence number of its own in the source, at none here. Where it overlaps what the source's
    /// compactions had dropped, the range is compacted, too; it is the source's content then.
    ///
    /// # Errors
    /// `restore.ingestion-differs` where RocksDB would have to give it a number.
    pub(crate) fn ingest_without_number(
        &self,
        family: ColumnFamilyId,
        path: &Path,
        (first, last): (&[u8], &[u8]),
    ) -> Result<()> {
        let name = self.families.iter().find(|spec| spec.id == family).map(|spec| spec.name.as_str());
        let handle = name.and_then(|name| self.db.cf_handle(name)).ok_or_else(|| {
            Error::new(Code::IngestionDiffers, "finding the column family of an ingested file").on(family)
        })?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        options.set_allow_global_seqno(false);
        let ingest = || self.db.ingest_external_file_cf_opts(&handle, &options, vec![path]);
        let Err(overlaps) = ingest() else { return Ok(()) };
        tracing::debug!(error = %overlaps, "compacting what the ingested file overlaps");
        let mut compact = CompactOptions::default();
        compact.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        self.db.compact_range_cf_opt(&handle, Some(first), Some(last), &compact);
        ingest().map_err(|e| Error::new(Code::IngestionDiffers, "ingesting").on(path.display()).because(e))
    }

    /// Reads every block of every live file and compares its checksum.
    ///
    /// # Errors
    /// RocksDB's own words.
    pub(crate) fn verify_checksums(&self) -> std::result::Result<(), String> {
        let mut error = std::ptr::null_mut();
        // SAFETY: the database is open for as long as the call lasts, and `error` is a valid place for a message that we own
        // afterwards.
        unsafe { ffi::rocksdb_verify_checksum(self.db.as_raw_ptr(), &mut error) };
        if error.is_null() { Ok(()) } else { Err(taken(error)) }
    }

    /// RocksDB's latest sequence number.
    pub fn latest_sequence(&self) -> SequenceNumber {
        SequenceNumber::new(self.db.latest_sequence_number())
    }

    /// The database.
    pub(crate) const fn db(&self) -> &DB {
        &self.db
    }
}

fn db_paths(paths: &[PathBuf]) -> Result<Vec<DBPath>> {
    paths
        .iter()
        .map(|path| {
            // Nothing is moved between paths: without compactions their size limits decide nothing.
            DBPath::new(path, u64::MAX >> 1)
                .map_err(|e| Error::new(Code::DatabaseOpen, "naming the data directory").on(path.display()).because(e))
        })
        .collect()
}

pub(crate) fn family_options(family: &FamilySpec) -> Result<Options> {
    let mut options = Options::default();
    options.set_disable_auto_compactions(true);
    // No limit on files at level 0: nothing here compacts them away.
    options.set_level_zero_slowdown_writes_trigger(i32::MAX);
    options.set_level_zero_stop_writes_trigger(i32::MAX);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(64 << 20);
    if let Some(levels) = family.levels {
        options.set_num_levels(levels);
    }
    let mut table = BlockBasedOptions::default();
    // Before 6.27 no RocksDB reads the newer ones.
    table.set_checksum_type(ChecksumType::CRC32c);
    if let Some(version) = family.format_version {
        table.set_format_version(version);
    }
    options.set_block_based_table_factory(&table);
    if !family.paths.is_empty() {
        options.set_cf_paths(&db_paths(&family.paths)?);
    }
    let mut text = format!("comparator={};", family.comparator);
    if let Some(operator) = &family.merge_operator {
        text.push_str(&format!("merge_operator={operator};"));
    }
    with_text(&options, &text).map_err(|e| e.with("column family", &family.name))
}

/// `base` changed by options in RocksDB's own text form: the only way to its native comparators and merge operators.
fn with_text(base: &Options, text: &str) -> Result<Options> {
    let changed = Options::default();
    let fault = |why: String| Error::new(Code::DatabaseOpen, "setting RocksDB's options").on(text).with("error", why);
    let c_text = CString::new(text).map_err(|e| fault(e.to_string()))?;
    let mut error = std::ptr::null_mut();
    // SAFETY: both options live until after the call, the text ends with a zero, and `error` is a valid place for a
    // message that we own afterwards.
    unsafe {
        ffi::rocksdb_get_options_from_string(base.as_raw_ptr(), c_text.as_ptr(), changed.as_raw_ptr(), &mut error);
    }
    if error.is_null() {
        return Ok(changed);
    }
    Err(fault(taken(error)))
}

/// A message of RocksDB's, which is ours from now on.
fn taken(error: *mut std::ffi::c_char) -> String {
    // SAFETY: RocksDB gave a string that ends with a zero and that we free with its own function.
    unsafe {
        let message = CStr::from_ptr(error).to_string_lossy().into_owned();
        ffi::rocksdb_free(error.cast());
        message
    }
}

/// Whether RocksDB says that this build of it lacks something, a compression for example: that is no fault of the database.
pub(crate) fn is_unsupported(e: &Error) -> bool {
    use std::error::Error as _;
    let rocksdb = e.source().and_then(|source| source.downcast_ref::<rocksdb::Error>());
    rocksdb.is_some_and(|e| e.kind() == rocksdb::ErrorKind::NotSupported)
}

/// Names of files that an open leaves and that say nothing about the data.
pub(crate) fn is_leftover(name: &str) -> bool {
    // With a log directory of its own, RocksDB puts the database's path before the name: `srv_db_LOG.old.17...`.
    let own = name.rsplit_once("LOG").is_some_and(|(before, after)| {
        (before.is_empty() || before.ends_with('_')) && (after.is_empty() || after.starts_with(".old."))
    });
    name == "LOCK" || own
}
