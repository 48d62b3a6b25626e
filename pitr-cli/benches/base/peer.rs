//! What bases are measured against: RocksDB's backups, and a copy.
//!
//! `BackupEngine` is as RocksDB has it by default: `sync`, table files shared between backups by session and number
//! (`share_files_with_checksum`), and a checksum of every byte that is copied.

use std::{path::Path, process::Command};

use rocksdb::{
    DB, Env,
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

/// The latest backup.
pub fn restore(backups: &Path, into: &Path) {
    engine(backups).restore_from_latest_backup(into, into, &RestoreOptions::default()).expect("a restored database");
}

/// `cp -r --reflink=never`.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-r", "--reflink=never"]).args([from, to]).status().expect("cp");
    assert!(copied.success(), "{copied}");
}
