//! Directories change their names.
//!
//! Owns: the order of effects. Where the database is one directory, one exchange of two names (`RENAME_EXCHANGE`) is all: at
//! every moment the old or the new one is there, whole. Where it has several (WALs or data elsewhere), no system call exchanges
//! all of them; between the first and the last of them a directory stands in the database's place that no server opens (its
//! CURRENT names a MANIFEST that is not there). What is going to happen is durable before it begins, and told by the
//! directories' inode numbers afterwards: whoever comes next undoes what nobody can have seen, and ends everything else.
//! Refuses: to replace a name that somebody else took.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use pitr_archive::{Code, Error, Result, error::io};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use super::{
    Swapped,
    record::{Aside, Place, Record},
    refused,
};
use crate::{
    crash, path_text,
    restore::staging::{beside, parent, sync_directory},
};

/// Which directory, whatever its name. Names are exchanged within one file system, and a device's number is another one after a
/// restart of the machine: the inode's alone tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode(u64);

impl Inode {
    pub(crate) fn of(path: &Path) -> Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(m) => Ok(Some(Self(m.ino()))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io("looking at", path, e)),
        }
    }
}

/// One directory of the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Its place.
    #[serde(with = "path_text")]
    pub place: PathBuf,
    /// What comes there.
    #[serde(with = "path_text")]
    incoming: PathBuf,
    /// Where what is there goes.
    #[serde(with = "path_text")]
    aside: PathBuf,
    /// What is there, if anything.
    old: Option<Inode>,
    /// What comes.
    new: Inode,
}

impl Move {
    /// `incoming` comes to `place`, and what is there goes to `aside`.
    ///
    /// # Errors
    /// `restore.cannot-swap` where that name is taken, `file.*`.
    pub fn new(place: &Path, incoming: &Path, aside: PathBuf) -> Result<Self> {
        let new = Inode::of(incoming)?.ok_or_else(|| {
            Error::new(Code::FileNotFound, "putting in its place").on(incoming.display()).with("place", place.display())
        })?;
        if fs::symlink_metadata(&aside).is_ok() {
            return Err(refused(place).with("there is already", aside.display()));
        }
        Ok(Self { place: place.to_owned(), incoming: incoming.to_owned(), aside, old: Inode::of(place)?, new })
    }
}

/// What stands in the database's place meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Barred {
    #[serde(with = "path_text")]
    path: PathBuf,
    inode: Inode,
}

/// A swap as it was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    id: String,
    /// Whether what goes aside is what a restore had brought.
    restored_goes: bool,
    /// Whether a restore began it, and not a rollback.
    by_restore: bool,
    /// CURRENT of what comes: a server that opens it writes another one.
    current: String,
    /// The database's own directory first.
    moves: Vec<Move>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    barred: Option<Barred>,
}

impl Swap {
    /// States durably what is going to happen. Nothing that anybody sees has happened then.
    ///
    /// # Errors
    /// `file.*`.
    pub fn begin(record: &mut Record, id: String, moves: Vec<Move>) -> Result<Self> {
        let barred = match moves.as_slice() {
            [first, _, ..] => Some(bar(&first.place, &id)?),
            _ => None,
        };
        let restored_goes = record.asides.last().is_some_and(|last| last.id == id && !last.restored);
        let by_restore = record.asides.iter().all(|aside| aside.id != id);
        let current = moves.first().map(|m| current_of(&m.incoming)).unwrap_or_default();
        let swap = Self { id, restored_goes, by_restore, current, moves, barred };
        record.under_way = Some(swap.clone());
        record.write()?;
        crash::point("swap-recorded");
        Ok(swap)
    }

    /// Does what is left of it.
    ///
    /// # Errors
    /// `restore.swap-interrupted`.
    pub fn perform(self, record: &mut Record) -> Result<Swapped> {
        self.exchange_all().map_err(|e| {
            Error::new(Code::SwapInterrupted, "putting the database in its place")
                .on(self.moves.first().map_or(Path::new(""), |m| &m.place).display())
                .because(e)
        })?;
        let places: Vec<_> = self
            .moves
            .iter()
            .filter(|m| m.old.is_some())
            .map(|m| Place { place: m.place.clone(), aside: m.aside.clone() })
            .collect();
        let swapped = Swapped {
            db: self.moves.first().map(|m| m.place.clone()).unwrap_or_default(),
            aside: places.iter().map(|place| place.aside.clone()).collect(),
        };
        crash::point("swap-before-record");
        record.asides.retain(|aside| aside.id != self.id);
        record.asides.push(Aside { id: self.id, restored: self.restored_goes, places });
        record.under_way = None;
        record.write()?;
        Ok(swapped)
    }

    /// Whether anybody can have seen something of it.
    fn has_begun(&self) -> Result<bool> {
        for m in &self.moves {
            if Inode::of(&m.place)? != m.old {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn exchange_all(&self) -> Result<()> {
        let Some((first, others)) = self.moves.split_first() else { return Ok(()) };
        if let Some(barred) = &self.barred
            && Inode::of(&first.place)? == first.old
        {
            exchange(&first.place, &barred.path)?;
        }
        crash::point("swap-barred");
        for m in others {
            come(m)?;
            crash::point("swap-between");
        }
        let there = Inode::of(&first.place)?;
        let may_go = [first.old, self.barred.as_ref().map(|barred| barred.inode)];
        if there != Some(first.new) {
            if there.is_none() || !may_go.contains(&there) || Inode::of(&first.incoming)? != Some(first.new) {
                return Err(moved_since(&first.place));
            }
            exchange(&first.place, &first.incoming)?;
        }
        crash::point("swap-exchanged");
        for m in &self.moves {
            let from = match &self.barred {
                Some(barred) if m.place == first.place => &barred.path,
                _ => &m.incoming,
            };
            if m.old.is_some() && Inode::of(from)? == m.old {
                rename_new(from, &m.aside)?;
            }
            if m.old.is_some() && Inode::of(&m.aside)? != m.old {
                return Err(moved_since(&m.aside));
            }
            crash::point("swap-aside");
        }
        if let Some(barred) = &self.barred
            && Inode::of(&first.incoming)? == Some(barred.inode)
        {
            fs::remove_dir_all(&first.incoming).map_err(|e| io("removing", &first.incoming, e))?;
        }
        Ok(())
    }

    /// Removes what stands ready and was never used.
    fn forget(&self) -> Result<()> {
        match &self.barred {
            Some(barred) if Inode::of(&barred.path)? == Some(barred.inode) => {
                fs::remove_dir_all(&barred.path).map_err(|e| io("removing", &barred.path, e))
            }
            _ => Ok(()),
        }
    }
}

/// Ends a swap that a process began and did not end: forwards, or, where nobody can have seen anything of it, backwards. The
/// database must be locked, or not be there.
///
/// # Errors
/// `restore.swap-interrupted`, `file.*`.
pub fn end_interrupted(db: &Path) -> Result<Ended> {
    let mut record = Record::read(db)?;
    let Some(swap) = record.under_way.clone() else { return Ok(Ended::Nothing) };
    if swap.has_begun()? {
        tracing::warn!(db = %db.display(), "ending a swap that was interrupted");
        let (by_restore, current) = (swap.by_restore, swap.current.clone());
        swap.perform(&mut record)?;
        let untouched = by_restore && current_of(db) == current;
        return Ok(if untouched { Ended::TheRestore } else { Ended::AnotherSwap });
    }
    swap.forget()?;
    record.under_way = None;
    record.write()?;
    Ok(Ended::Nothing)
}

/// CURRENT of a database: a server that opens it writes another one. Empty where there is none.
pub(crate) fn current_of(database: &Path) -> String {
    fs::read_to_string(database.join("CURRENT")).unwrap_or_default()
}

/// What had to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing that anybody saw: the database's directory is the one that it was.
    Nothing,
    /// The restored database is in the place now, and no server has opened it.
    TheRestore,
    /// Another database is, or one that a server has opened.
    AnotherSwap,
}

/// Whether names can be exchanged in a directory: known before hours of work, not after them.
///
/// # Errors
/// `restore.cannot-swap`, `file.*`.
pub fn probe(directory: &Path) -> Result<()> {
    let [one, two] = ["a", "b"].map(|name| directory.join(format!(".pitr-probe-{}-{name}", std::process::id())));
    let make = |path: &Path| fs::create_dir(path).map_err(|e| io("creating", path, e));
    let tried = make(&one).and_then(|()| make(&two)).and_then(|()| exchange(&one, &two));
    for path in [&one, &two] {
        match fs::remove_dir(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("removing", path, e)),
            _ => {}
        }
    }
    tried
}

/// Comes to its place, and what was there to where it came from.
fn come(m: &Move) -> Result<()> {
    match Inode::of(&m.place)? {
        Some(there) if there == m.new => Ok(()),
        there if there == m.old => match there {
            Some(_) => exchange(&m.place, &m.incoming),
            None => rename_new(&m.incoming, &m.place),
        },
        _ => Err(moved_since(&m.place)),
    }
}

/// Somebody else has moved or copied directories since: what is where must be found out by a person.
fn moved_since(place: &Path) -> Error {
    refused(place).with("found there", "not what was there when this began").hint(
        "nothing was deleted: look for the database in the directories beside it, put it in its place by hand with the server \
         stopped, and delete the file .NAME.pitr-swaps.json",
    )
}

fn exchange(one: &Path, other: &Path) -> Result<()> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(|e| {
        refused(one)
            .with("exchanged with", other.display())
            .hint("this file system cannot exchange two directories: restore with --into, and swap them by hand")
            .because(std::io::Error::from(e))
    })?;
    sync_directory(parent(one)?)?;
    if parent(one)? != parent(other)? { sync_directory(parent(other)?) } else { Ok(()) }
}

fn rename_new(from: &Path, to: &Path) -> Result<()> {
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(|e| io("renaming to", to, e.into()))?;
    sync_directory(parent(to)?)?;
    if parent(from)? != parent(to)? { sync_directory(parent(from)?) } else { Ok(()) }
}

/// A directory that looks like a database and opens with no RocksDB.
fn bar(db: &Path, id: &str) -> Result<Barred> {
    let path = beside(db, &format!("barred-{id}"))?;
    // One that is there is perhaps a database, of a swap that was not ended: it is not touched.
    fs::create_dir(&path).map_err(|e| io("creating", &path, e))?;
    crate::restore::small_files::put(
        &path.join("CURRENT"),
        b"MANIFEST-000000-pitr-rollback-or-settle-ends-the-swap\n",
    )?;
    sync_directory(&path)?;
    sync_directory(parent(db)?)?;
    let inode = Inode::of(&path)?.ok_or_else(|| Error::new(Code::Internal, "looking at").on(path.display()))?;
    Ok(Barred { path, inode })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{check, locked},
        *,
    };

    #[test]
    fn what_is_there_after_an_ended_swap_is_locked() {
        let dir = tempfile::tempdir().unwrap();
        let [db, incoming] = ["db", "incoming"].map(|name| dir.path().join(name));
        for place in [&db, &incoming] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("CURRENT"), place.to_str().unwrap()).unwrap();
        }
        check::is_database(&db).unwrap();
        let (new, old) = (Inode::of(&incoming).unwrap(), Inode::of(&db).unwrap());
        let moves = vec![Move::new(&db, &incoming, dir.path().join("aside")).unwrap()];
        let mut record = Record::read(&db).unwrap();
        Swap::begin(&mut record, "today".to_owned(), moves).unwrap();
        // The process dies here: directly behind the exchange.
        exchange(&db, &incoming).unwrap();

        let (lock, ended) = locked(&db).unwrap();
        assert_eq!(ended, Ended::TheRestore);
        assert_eq!((Inode::of(&db).unwrap(), Inode::of(&dir.path().join("aside")).unwrap()), (new, old));
        // The kernel's list: a process does not see its own locks otherwise.
        let is_held = || {
            let inode = fs::metadata(db.join("LOCK")).unwrap().ino();
            fs::read_to_string("/proc/locks").unwrap().contains(&format!(":{inode} 0 EOF"))
        };
        assert!(is_held(), "no server can open it");
        drop(lock);
        assert!(!is_held());
    }
}
