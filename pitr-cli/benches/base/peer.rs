//! What bases are measured against: RocksDB's backups, and a copy.
//!
//! `BackupEngine` is as RocksDB has it by default: `sync`, table files shared between backups by session and number
//! (`share_files_with_checksum`), and a checksum of every byte that is copied. [`ByChecksum`] is as it was by default before
//! version 6.12, and still is for blob files and tables without a session: the names of shared files are their checksums.

use std::{
    ffi::{CStr, CString, c_char},
    path::{Path, PathBuf},
    process::Command,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use librocksdb_sys as ffi;
use rocksdb::{
    AsRawPtr as _, DB, Env,
    backup::{BackupEngine, BackupEngineOptions, RestoreOptions},
};

/// Files that `pitr base` sends at a time; the others copy as many.
pub const AT_ONCE: u16 = 2;

/// Backups in this directory.
pub fn engine(backups: &Path) -> BackupEngine {
    let mut options = BackupEngineOptions::new(backups).expect("options");
    options.set_max_background_operations(i32::from(AT_ONCE));
    options.set_sync(true);
    BackupEngine::open(&options, &Env::new().expect("an environment")).expect("a backup engine")
}

/// One more backup, without a flush before: what is in the log comes along as a log.
pub fn back_up(engine: &mut BackupEngine, db: &DB, backups: &Path) {
    engine.create_new_backup(db).expect("a backup");
    assert!(backups.join("shared_checksum").is_dir(), "table files are shared with checksums");
}

/// Backups whose files are named by their checksums: each one reads every file to know its name.
pub struct ByChecksum(*mut ffi::rocksdb_backup_engine_t);

/// `BackupEngineOptions::kLegacyCrc32cAndFileSize`.
const BY_CHECKSUM: std::ffi::c_int = 1;

impl ByChecksum {
    /// In this directory.
    pub fn engine(backups: &Path) -> Self {
        let directory = CString::new(backups.to_str().expect("UTF-8")).expect("no zero");
        let mut error = ptr::null_mut();
        // SAFETY: every pointer comes from the library a line before, and none is used behind its end. The environment is the
        // default one, which is never taken down.
        let engine = unsafe {
            let options = ffi::rocksdb_backup_engine_options_create(directory.as_ptr());
            ffi::rocksdb_backup_engine_options_set_max_background_operations(options, i32::from(AT_ONCE));
            ffi::rocksdb_backup_engine_options_set_sync(options, 1);
            ffi::rocksdb_backup_engine_options_set_share_files_with_checksum_naming(options, BY_CHECKSUM);
            let environment = ffi::rocksdb_create_default_env();
            let engine = ffi::rocksdb_backup_engine_open_opts(options, environment, &raw mut error);
            ffi::rocksdb_backup_engine_options_destroy(options);
            engine
        };
        refuse(error);
        Self(engine)
    }

    /// One more backup, as [`back_up`].
    pub fn back_up(&mut self, db: &DB) {
        let mut error = ptr::null_mut();
        // SAFETY: both live.
        unsafe { ffi::rocksdb_backup_engine_create_new_backup(self.0, db.as_raw_ptr(), &raw mut error) };
        refuse(error);
    }
}

impl Drop for ByChecksum {
    fn drop(&mut self) {
        // SAFETY: it was opened, and is closed once.
        unsafe { ffi::rocksdb_backup_engine_close(self.0) }
    }
}

fn refuse(error: *mut c_char) {
    // SAFETY: the library's text, if there is one.
    assert!(error.is_null(), "a backup by checksums: {:?}", unsafe { CStr::from_ptr(error) });
}

/// The latest backup.
pub fn restore(backups: &Path, into: &Path) {
    engine(backups).restore_from_latest_backup(into, into, &RestoreOptions::default()).expect("a restored database");
}

/// These files and nothing else, as many at a time as the others: nobody who writes them somewhere can be faster by much.
pub fn copy_files(files: &[PathBuf], to: &Path) {
    let next = AtomicUsize::new(0);
    let copy = || {
        while let Some(from) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            std::fs::copy(from, to.join(from.file_name().expect("a file"))).expect("a copy");
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(copy))));
}

/// `cp -r --reflink=never`.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-r", "--reflink=never"]).args([from, to]).status().expect("cp");
    assert!(copied.success(), "{copied}");
}
