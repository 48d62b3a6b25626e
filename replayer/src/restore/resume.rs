//! What an interrupted restore left is gone on with.
//!
//! Owns: the small files in a staging directory that tell what it is. The [`Key`] names the restore: only the same one goes
//! on with the log, another one with files of the base that both have. The [`Checkpoint`] says which WALs are complete, and all
//! that must be known to write the next one; of tables, [`noted`] says the same of what is sorted. None is believed of bytes:
//! every file that is kept is read again and compared. Before the directory becomes a database, those of the log are gone, and
//! all of them before it is made durable: what did not become so must not be found by anybody who goes on.
//! Refuses: to go on with the log where RocksDB has opened the copy, or with ingestions to repeat.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use pitr_archive::{
    Result,
    error::io,
    ids::{ArchiveId, BaseId, Boundary, ContentHash, FileNumber, RunningHash, TimelineId},
    rocks::{file_name, log_sum::LogSum, transactions::Transactions},
};
use serde::{Deserialize, Serialize};

use super::{checked_json, staging::sync_directory, wal::WalTotals};
use crate::{bulk::noted, path_text, plan::RestorePlan};

const VERSION: u32 = 3;
/// Of the checkpoint: another one is not gone on with, and the files of the base are.
const CHECKPOINT_VERSION: u32 = 4;
const KEY: &str = "pitr-resume.json";
const CHECKPOINT: &str = "pitr-resume-wal.json";

/// Which restore a staging directory is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    version: u32,
    archive: ArchiveId,
    base: BaseId,
    timeline: TimelineId,
    boundary: Boundary,
    hash: RunningHash,
    ingestions: usize,
    #[serde(default)]
    flushes: usize,
    /// What of the database is restored, in its JSON form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<String>,
    places: Vec<String>,
    #[serde(default)]
    tells: Tells,
}

/// What a staging directory can be gone on with for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Tells {
    /// Files of the base and the log, as far as it has come.
    #[default]
    Everything,
    /// Files of the base: it was becoming a database.
    Files,
}

/// What was found where a staging directory shall be; the less, the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Found {
    /// Nothing, or what has no key that can be read.
    Nothing,
    /// What a restore to another position left, or one whose log was at its end: files of a base are the same for both where
    /// their bytes are.
    Files,
    /// What the same restore left: how far it has come with the log is known, too.
    Same,
}

impl Key {
    pub fn of(plan: &RestorePlan, places: &[&Path]) -> Self {
        Self {
            version: VERSION,
            archive: plan.archive,
            base: plan.base.id.clone(),
            timeline: plan.position.timeline,
            boundary: plan.position.boundary,
            hash: plan.position.hash,
            ingestions: plan.ingestions.len(),
            flushes: plan.flushes.len(),
            part: plan.part.as_ref().map(|part| serde_json::to_string(part).unwrap_or_default()),
            places: places.iter().map(|place| path_text::text(place)).collect(),
            tells: Tells::Everything,
        }
    }

    /// One of some restore.
    #[cfg(test)]
    pub fn named(base: &str) -> Self {
        let (timeline, boundary, hash) = (TimelineId::FIRST, Boundary::START, RunningHash::ZERO);
        let id = BaseId::new(chrono::DateTime::UNIX_EPOCH, base.bytes().map(u32::from).sum());
        let archive = ArchiveId(*b"0123456789abcdef");
        Self {
            version: VERSION,
            archive,
            base: id,
            timeline,
            boundary,
            hash,
            ingestions: 0,
            flushes: 0,
            part: None,
            places: Vec::new(),
            tells: Tells::Everything,
        }
    }

    /// What a staging directory has for this restore. One whose key cannot be read has nothing.
    pub fn found_in(&self, staging: &Path) -> Found {
        match checked_json::read::<Self>(&staging.join(KEY)) {
            Some(key) if key == *self => Found::Same,
            Some(key) if key.version == VERSION => Found::Files,
            _ => Found::Nothing,
        }
    }

    /// The same of a directory that becomes a database: from there on only files of the base are gone on with.
    #[must_use]
    pub fn of_files(&self) -> Self {
        Self { tells: Tells::Files, ..self.clone() }
    }

    pub fn put(&self, staging: &Path) -> Result<()> {
        checked_json::put(&staging.join(KEY), self)
    }
}

/// From here on a staging directory is not gone on with.
pub(crate) fn end(staging: &Path) -> Result<()> {
    remove(&own_files(staging), staging)
}

/// What is known of the log counts no more. Where it is of another restore, it is gone before the key says that the directory
/// is of this one.
pub(crate) fn forget_log(staging: &Path) -> Result<()> {
    let [_key, of_log @ ..] = own_files(staging);
    remove(&of_log, staging)
}

fn remove(files: &[PathBuf], staging: &Path) -> Result<()> {
    for path in files {
        match fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("deleting", path, e)),
            _ => {}
        }
    }
    sync_directory(staging)
}

/// A WAL that is complete and durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WrittenWal {
    pub number: FileNumber,
    pub size: u64,
    /// Stands for all its bytes. Nobody who could forge it could not write a checkpoint as well: a hash took an eighth of a
    /// restore's time.
    #[serde(default)]
    pub sum: LogSum,
}

/// How far the log was read, and all that must be known to go on there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reached {
    /// Of the next record.
    pub timeline: TimelineId,
    pub boundary: Boundary,
    pub hash: RunningHash,
    pub transactions: Transactions,
    /// Of the records before it.
    pub totals: WalTotals,
    /// The places that were passed with the hash that they must have.
    pub seen: Vec<String>,
}

/// What is known where a WAL ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    version: u32,
    pub reached: Reached,
    pub wals: Vec<WrittenWal>,
}

impl Checkpoint {
    /// Without the WALs.
    pub fn new(reached: Reached) -> Self {
        Self { version: CHECKPOINT_VERSION, reached, wals: Vec::new() }
    }

    /// When all WALs before it are durable.
    #[must_use]
    pub fn telling_of(self, wals: Vec<WrittenWal>) -> Self {
        Self { wals, ..self }
    }

    /// Makes it durable in place of the one before.
    pub fn put(&self, staging: &Path) -> Result<()> {
        checked_json::put(&staging.join(CHECKPOINT), self)
    }

    /// The one of a staging directory whose WALs are in `wals`, if all of them are there as they were written.
    pub fn read(staging: &Path, wals: &Path) -> Option<Self> {
        let read: Self = checked_json::read(&staging.join(CHECKPOINT))?;
        let is_there = |wal: &WrittenWal| is_wal(&wals.join(file_name::wal(wal.number)), wal);
        (read.version == CHECKPOINT_VERSION && read.wals.iter().all(is_there)).then_some(read)
    }

    /// What of a staging directory it stands for.
    pub fn files(&self, wals: &Path) -> Vec<PathBuf> {
        self.wals.iter().map(|wal| wals.join(file_name::wal(wal.number))).collect()
    }
}

/// The files of this kind in a staging directory, the key first.
pub(crate) fn own_files(staging: &Path) -> [PathBuf; 3] {
    [staging.join(KEY), staging.join(CHECKPOINT), noted::file(staging)]
}

/// Bytes that are read at once: whole blocks of a log.
const AT_ONCE: usize = 128 << 10;

/// Whether a file is there with this size and hash.
pub(crate) fn is(path: &Path, size: u64, hash: ContentHash) -> bool {
    let mut hasher = blake3::Hasher::new();
    let whole = is_whole(path, size, |bytes| {
        hasher.update(bytes);
    });
    whole && ContentHash(*hasher.finalize().as_bytes()) == hash
}

/// Whether a WAL is there as it was written.
fn is_wal(path: &Path, wal: &WrittenWal) -> bool {
    let (mut sum, mut sound) = (LogSum::default(), true);
    let whole = is_whole(path, wal.size, |bytes| sound = sound && sum.add_blocks(bytes));
    whole && sound && sum == wal.sum
}

/// Shows every byte of a file, [`AT_ONCE`] of them until its end; answers whether it is there with this size. One that cannot be
/// read is as good as none: to end with it would end every further attempt.
fn is_whole(path: &Path, size: u64, shown: impl FnMut(&[u8])) -> bool {
    read_whole(path, size, shown).unwrap_or_else(|e| {
        tracing::warn!("it is made anew: {e}");
        false
    })
}

fn read_whole(path: &Path, size: u64, mut shown: impl FnMut(&[u8])) -> Result<bool> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(io("opening", path, e)),
    };
    if file.metadata().map_err(|e| io("looking at", path, e))?.len() != size {
        return Ok(false);
    }
    let mut left = size;
    let mut buffer = Vec::with_capacity(AT_ONCE);
    while left > 0 {
        buffer.clear();
        let read = (&mut file).take(AT_ONCE as u64).read_to_end(&mut buffer).map_err(|e| io("reading", path, e))?;
        // Somebody cuts it meanwhile, or goes on writing it.
        let Some(less) = left.checked_sub(read as u64).filter(|_| read > 0) else { return Ok(false) };
        left = less;
        shown(&buffer);
    }
    Ok(true)
}
