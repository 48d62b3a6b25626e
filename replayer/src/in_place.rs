//! A database takes the place of another one, which is kept beside it.
//!
//! - `check`: whether it can be replaced;
//! - [`lock`]: that no server has the present database open;
//! - [`record`]: what was swapped with what, beside the database, durable: by it a swap is ended, taken back or settled;
//! - [`swap`]: the only place where directories change their names.
//!
//! Owns: what is checked before a restore begins, so that it cannot fail for that at its end ([`Present::claim`]), and the
//! three things that a person asks for afterwards: [`rollback`], [`keep`] and [`discard`].
//! Refuses: a database that a server holds open; directories that are mount points or hold what is not RocksDB's; file
//! systems that cannot exchange two names at once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pitr_archive::{
    Code, Error, Result,
    clock::Micros,
    error::io,
    restore_marker::{self, RestoreMarker},
};
use serde::Serialize;

use crate::{owner::Owner, path_text, plan::PlannedPosition, restore::staging::Staging};

mod check;
pub mod lock;
pub mod record;
pub mod swap;

use lock::{ServerLock, SwapLock};
use record::{Aside, Place, Record};
use swap::{Ended, Move, Swap};

/// A present database that is going to be replaced. No server can open it as long as this lives.
#[derive(Debug)]
pub struct Present {
    db: PathBuf,
    _lock: ServerLock,
    _exclusive: SwapLock,
    owner: Owner,
    ended: Ended,
    left_behind: Vec<String>,
}

/// What a swap did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Swapped {
    /// The directory whose database changed.
    #[serde(serialize_with = "path_text::shown")]
    pub db: PathBuf,
    /// Where what was there is now: each directory of the database, its own first.
    #[serde(serialize_with = "path_text::all_shown")]
    pub aside: Vec<PathBuf>,
}

impl Present {
    /// Checks that the databases' directories (its own first) can be replaced, and locks it. `wals` is where the restored one
    /// has its WALs.
    ///
    /// # Errors
    /// `restore.in-use`, `restore.cannot-swap`, `file.*`.
    pub fn claim(directories: &[&Path], wals: &Path) -> Result<Self> {
        let db = directories.first().ok_or_else(|| Error::new(Code::Internal, "replacing a database"))?;
        check::is_database(db)?;
        let exclusive = SwapLock::take(db)?;
        let (lock, ended) = locked(db)?;
        // Only now it is known which directory is there.
        let what = fs::symlink_metadata(db).map_err(|e| io("looking at the database", db, e))?;
        let left_behind = check::foreign_entries(db)?;
        check::wal_directory(db, wals)?;
        for place in directories {
            check::place(place, db)?;
        }
        Ok(Self {
            db: (*db).to_owned(),
            _lock: lock,
            _exclusive: exclusive,
            owner: Owner::of(&what),
            ended,
            left_behind,
        })
    }

    /// Where what was replaced is, if the database that is here now is what this restore would bring: an earlier one had come
    /// so far that it could only be ended, and [`Present::claim`] has done that.
    ///
    /// # Errors
    /// `restore.record-damaged`, `file.*`.
    pub fn has_arrived(&self, position: &PlannedPosition) -> Result<Option<Vec<PathBuf>>> {
        if self.ended != Ended::TheRestore {
            return Ok(None);
        }
        let path = self.db.join(restore_marker::FILE_NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io("reading", &path, e)),
        };
        let Ok(marker) = serde_json::from_slice::<RestoreMarker>(&bytes) else { return Ok(None) };
        let same =
            (marker.timeline, marker.boundary, marker.hash) == (position.timeline, position.boundary, position.hash);
        let last = Record::read(&self.db)?.asides.pop().filter(|_| same);
        Ok(last.map(|aside| aside.places.into_iter().map(|place| place.aside).collect()))
    }

    /// Where what it replaced is, if it came by a swap.
    ///
    /// # Errors
    /// `restore.record-damaged`, `file.*`.
    pub(crate) fn last_aside(&self) -> Result<Vec<PathBuf>> {
        let last = Record::read(&self.db)?.asides.pop();
        Ok(last.into_iter().flat_map(|aside| aside.places).map(|place| place.aside).collect())
    }

    /// To whom the present database belongs; only root can give files away.
    pub fn owner(&self) -> Option<Owner> {
        rustix::process::geteuid().is_root().then_some(self.owner)
    }

    /// What lies in the database's directory and is not RocksDB's: it does not come along.
    pub fn left_behind(&self) -> &[String] {
        &self.left_behind
    }

    /// Puts what was staged, which must be durable, in the place of what is there.
    ///
    /// # Errors
    /// Then the present database is there as before, or, behind the point of no return, `restore.swap-interrupted`: the same
    /// command, `pitr rollback` or `pitr settle` go on from there.
    pub(crate) fn replace(&self, staging: &Staging, now: Micros) -> Result<Swapped> {
        let stamp = stamp(now);
        let moves = staging.pairs().map(|(staged, place)| Move::new(place, staged, aside(place, "before", &stamp)));
        let moves = moves.collect::<Result<Vec<_>>>()?;
        let mut record = Record::read(&self.db)?;
        Swap::begin(&mut record, stamp, moves)?.perform(&mut record)
    }
}

/// Puts the database that was set aside last back in its place, and sets aside what is there now. Twice is as not at all.
///
/// # Errors
/// `restore.nothing-aside`, `restore.in-use`, `restore.cannot-swap`.
pub fn rollback(db: &Path) -> Result<Swapped> {
    let db = absolute(db)?;
    let _exclusive = SwapLock::take(&db)?;
    let (_lock, _) = locked(&db)?;
    let mut record = Record::read(&db)?;
    let last = record.asides.last().cloned().ok_or_else(|| nothing_aside(&db))?;
    refuse_moved(&db, &last)?;
    let _aside = lock_aside(&last)?;
    let name = if last.restored { "before" } else { "restored" };
    let moves = last.places.iter().map(|p| Move::new(&p.place, &p.aside, aside(&p.place, name, &last.id)));
    let moves = moves.collect::<Result<Vec<_>>>()?;
    for place in moves.iter().map(|m| m.place.as_path()) {
        check::place(place, &db)?;
    }
    Swap::begin(&mut record, last.id, moves)?.perform(&mut record)
}

/// What [`rollback`] would swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether what is in the place now is what a restore brought, and what was there before is aside; `false` after a rollback.
    pub holds_restored: bool,
    /// Restores that are not settled, of which it takes back the last.
    pub unsettled: usize,
}

/// What [`rollback`] would swap. A swap that was interrupted is ended first.
///
/// # Errors
/// `restore.nothing-aside`, `restore.in-use`, `restore.cannot-swap`.
pub fn standing(db: &Path) -> Result<Standing> {
    let db = absolute(db)?;
    let _exclusive = SwapLock::take(&db)?;
    let (_lock, _) = locked(&db)?;
    let record = Record::read(&db)?;
    let last = record.asides.last().ok_or_else(|| nothing_aside(&db))?;
    refuse_moved(&db, last)?;
    Ok(Standing { holds_restored: !last.restored, unsettled: record.asides.len() })
}

/// Forgets every database that was set aside, and leaves it where it is: it can no longer be rolled back to.
///
/// # Errors
/// `restore.nothing-aside`, `file.*`.
pub fn keep(db: &Path) -> Result<Vec<PathBuf>> {
    settle(db, |_| Ok(()))
}

/// Deletes every database that was set aside.
///
/// # Errors
/// `restore.nothing-aside`, `file.*`: what is deleted already stays deleted, and the rest can still be settled.
pub fn discard(db: &Path) -> Result<Vec<PathBuf>> {
    settle(db, |aside| {
        let _lock = lock_aside(aside)?;
        for place in aside.places.iter().rev() {
            match fs::remove_dir_all(&place.aside) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("deleting", &place.aside, e)),
                _ => {}
            }
        }
        Ok(())
    })
}

/// Refuses a place in which a swap has not ended: databases lie beside it under names that a restore would clear away.
///
/// # Errors
/// `restore.swap-interrupted`.
pub fn refuse_under_way(db: &Path) -> Result<()> {
    match Record::read(db)?.under_way {
        None => Ok(()),
        Some(_) => Err(Error::new(Code::SwapInterrupted, "restoring to").on(db.display())),
    }
}

fn settle(db: &Path, each: impl Fn(&Aside) -> Result<()>) -> Result<Vec<PathBuf>> {
    let db = absolute(db)?;
    let _exclusive = SwapLock::take(&db)?;
    if Record::read(&db)?.under_way.is_some() {
        drop(locked(&db)?);
    }
    let mut record = Record::read(&db)?;
    if record.asides.is_empty() {
        return Err(nothing_aside(&db));
    }
    let mut settled = Vec::new();
    while let Some(oldest) = record.asides.first().cloned() {
        refuse_moved(&db, &oldest)?;
        each(&oldest)?;
        settled.extend(oldest.places.into_iter().map(|place: Place| place.aside));
        record.asides.remove(0);
        // One after another: what was not settled can still be.
        record.write()?;
    }
    Ok(settled)
}

/// Locks the database, and ends a swap that was interrupted: then another directory is in its place, with a lock of its own.
fn locked(db: &Path) -> Result<(ServerLock, Ended)> {
    let lock = ServerLock::take(db)?;
    let ended = swap::end_interrupted(db)?;
    if ended == Ended::Nothing {
        return Ok((lock, ended));
    }
    // First this one: if it is of the directory that is there now, closing its file later would release the other, too.
    drop(lock);
    Ok((ServerLock::take(db)?, ended))
}

/// What was set aside can have been opened there, to look into it. Deleted by hand, it is nobody's.
fn lock_aside(aside: &Aside) -> Result<Option<ServerLock>> {
    let own = aside.places.first().map(|own| own.aside.as_path()).filter(|own| own.exists());
    own.map(ServerLock::take).transpose()
}

/// A record that was copied or moved with its directory names other places than it lies beside.
fn refuse_moved(db: &Path, aside: &Aside) -> Result<()> {
    match aside.places.first() {
        Some(own) if own.place == db => Ok(()),
        own => Err(Error::new(Code::SwapRecordDamaged, "reading what was set aside of")
            .on(db.display())
            .with("it is of", own.map_or(Path::new("nothing"), |own| &own.place).display())),
    }
}

fn absolute(db: &Path) -> Result<PathBuf> {
    std::path::absolute(db).map_err(|e| io("naming the database", db, e))
}

fn nothing_aside(db: &Path) -> Error {
    Error::new(Code::NothingAside, "looking for what was set aside of").on(db.display())
}

fn refused(place: &Path) -> Error {
    Error::new(Code::CannotSwap, "replacing").on(place.display())
}

/// `20261121T235959.123456Z`.
fn stamp(now: Micros) -> String {
    now.to_datetime().format("%Y%m%dT%H%M%S%.6fZ").to_string()
}

/// `/a/db` is set aside as `/a/db.before-TIME`.
fn aside(place: &Path, what: &str, stamp: &str) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(format!(".{what}-{stamp}"));
    PathBuf::from(name)
}
