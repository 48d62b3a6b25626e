//! Whether a database can be replaced: known before hours of work, not after them.
//!
//! Owns: what is asked of its directories. Changes nothing but names of its own, which it takes back.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use pitr_archive::{
    Result,
    error::io,
    restore_marker,
    rocks::{
        file_name::{self, FileKind},
        options_file::OptionsFile,
    },
};

use super::{refused, swap};
use crate::restore::staging::parent;

/// A directory, not a link to one, with a database in it.
pub(super) fn is_database(db: &Path) -> Result<()> {
    let what = fs::symlink_metadata(db).map_err(|e| io("looking at the database", db, e))?;
    if !what.is_dir() {
        return Err(refused(db).with("it is", "not a directory").hint("name the directory itself, not a link to it"));
    }
    for entry in fs::read_dir(db).map_err(|e| io("reading", db, e))? {
        let entry = entry.map_err(|e| io("reading", db, e))?;
        let kind = file_name::parse(&entry.file_name().to_string_lossy());
        if matches!(kind, Some(FileKind::Current | FileKind::Manifest(_) | FileKind::Sst(_))) {
            return Ok(());
        }
    }
    Err(refused(db).with("it holds", "no database").hint("restore with --into where there is none yet"))
}

/// The server reads its WALs where its own settings say, whatever a restore brings: they must agree.
pub(super) fn wal_directory(db: &Path, wals: &Path) -> Result<()> {
    let mut newest = None;
    for entry in fs::read_dir(db).map_err(|e| io("reading", db, e))? {
        let entry = entry.map_err(|e| io("reading", db, e))?;
        if let Some(FileKind::Options(number)) = file_name::parse(&entry.file_name().to_string_lossy())
            && newest.as_ref().is_none_or(|(other, _)| *other < number)
        {
            newest = Some((number, entry.path()));
        }
    }
    let Some((_, path)) = newest else { return Ok(()) };
    let text = fs::read_to_string(&path).map_err(|e| io("reading", &path, e))?;
    // What cannot be read says nothing: the database may be damaged, which is why it is replaced.
    let Ok(settings) = OptionsFile::parse(&text).and_then(|options| options.db()) else { return Ok(()) };
    let present = settings.wal_dir.as_deref().map_or(db, Path::new);
    if present.components().eq(wals.components()) {
        return Ok(());
    }
    Err(refused(db)
        .with("its server has its WALs in", present.display())
        .with("the restored one would have them in", wals.display())
        .hint("the base was taken with another wal_dir: give --map-path OLD=NEW, or restore with --into"))
}

/// Whether a directory can be exchanged with another one beside it, and may be.
pub(super) fn place(place: &Path, db: &Path) -> Result<()> {
    let above = parent(place)?;
    let outer = fs::metadata(above).map_err(|e| io("looking at the directory above", above, e))?;
    match fs::symlink_metadata(place) {
        Ok(own) if !own.is_dir() => return Err(refused(place).with("it is", "not a directory")),
        Ok(own) if own.dev() != outer.dev() => {
            return Err(refused(place)
                .with("it is", "a mount point")
                .hint("a mount point cannot change its name: restore with --into into a directory below it"));
        }
        Ok(_) if place != db && ["CURRENT", "LOCK"].iter().any(|name| place.join(name).exists()) => {
            return Err(refused(place).with("it is", "a database of its own"));
        }
        // Nothing could be rolled back to.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(refused(place).with("it is", "not there").hint("create it, empty, if the server has lost it"));
        }
        Err(e) => return Err(io("looking at", place, e)),
        Ok(_) => {}
    }
    if place != db {
        let strangers = foreign_entries(place)?;
        if let Some(first) = strangers.first() {
            return Err(refused(place)
                .with("it also holds", first)
                .with("of such", strangers.len())
                .hint("a directory beside the database is only replaced if nothing but RocksDB's files is in it"));
        }
    }
    swap::probe(above)
}

/// RocksDB moves WALs that it keeps for a while into a directory of this name; others use it, too.
fn holds_only_wals(directory: &Path) -> bool {
    let is_wal = |entry: fs::DirEntry| {
        matches!(file_name::parse(&entry.file_name().to_string_lossy()), Some(FileKind::Wal(_) | FileKind::Trash))
    };
    fs::read_dir(directory).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(is_wal)))
}

/// What in a directory is not RocksDB's.
pub(super) fn foreign_entries(directory: &Path) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).map_err(|e| io("reading", directory, e))? {
        let name = entry.map_err(|e| io("reading", directory, e))?.file_name().to_string_lossy().into_owned();
        let ours = name == restore_marker::FILE_NAME || name == "archive" && holds_only_wals(&directory.join(&name));
        if file_name::parse(&name).is_none() && !ours {
            all.push(name);
        }
    }
    all.sort_unstable();
    Ok(all)
}
