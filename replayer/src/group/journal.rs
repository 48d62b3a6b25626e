//! What of a group is prepared, in a file beside the first database's place.
//!
//! Owns: the file's name and format (JSON with a version), and what an entry of it means later: a database that was prepared
//! is in its place, or stands ready, or neither. It is told by the directories' inode numbers, by the marker that every restore
//! leaves with a random id of its own (another one from the same base looks the same otherwise, and an inode number can be given
//! again), and by CURRENT, which a server that opens the database writes anew.
//! Refuses: to be believed of another restore than the one that wrote it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pitr_archive::{Code, Error, Result, error::io, ids::ContentHash, restore_marker};
use serde::{Deserialize, Serialize};

use crate::{
    in_place::swap::{Inode, current_of},
    path_text,
    restore::{
        resume::Key,
        small_files::replace,
        staging::{Staging, beside, built, parent, sync_directory},
    },
};

const VERSION: u32 = 1;

/// What is known of the group's restore; one that names no file is of none.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    path: Option<PathBuf>,
    entries: Vec<Entry>,
}

/// A database that is prepared: complete and durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    key: Key,
    /// What else it was prepared with: to whom it belongs, who recovers it.
    how: String,
    current: String,
    /// blake3 of the restore's marker in the database's own directory.
    marker: ContentHash,
    /// The database's own first.
    directories: Vec<Directory>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Directory {
    #[serde(with = "path_text")]
    place: PathBuf,
    inode: Inode,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    entries: Vec<Entry>,
}

/// How far a database came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landed {
    /// It is to be restored.
    Nothing,
    /// It lacks its names, or some of them.
    Prepared,
    /// It is in its place, as it was restored.
    Arrived,
}

impl Entry {
    /// Of what stands ready.
    pub fn of(key: &Key, how: String, staging: &Staging) -> Result<Self> {
        let mut directories = Vec::new();
        let (mut current, mut marker) = (None, None);
        for (staged, place) in staging.pairs() {
            let inode = Inode::of(staged)?
                .ok_or_else(|| Error::new(Code::Internal, "looking at what was prepared").on(staged.display()))?;
            current.get_or_insert_with(|| current_of(staged));
            marker = marker.or(marker_of(staged)?);
            directories.push(Directory { place: place.to_owned(), inode });
        }
        let marker = marker.ok_or_else(|| Error::new(Code::Internal, "looking for the marker of what was prepared"))?;
        Ok(Self { key: key.clone(), how, current: current.unwrap_or_default(), marker, directories })
    }

    fn landed(&self) -> Result<Landed> {
        let mut arrived = true;
        for (position, directory) in self.directories.iter().enumerate() {
            let (place, staged) = (&directory.place, built(&directory.place)?);
            let at = if Inode::of(place)? == Some(directory.inode) {
                place
            } else if Inode::of(&staged)? == Some(directory.inode) {
                arrived = false;
                &staged
            } else {
                return Ok(Landed::Nothing);
            };
            if position == 0 && (current_of(at) != self.current || marker_of(at)? != Some(self.marker)) {
                return Ok(Landed::Nothing);
            }
        }
        match (self.directories.is_empty(), arrived) {
            (true, _) => Ok(Landed::Nothing),
            (false, true) => Ok(Landed::Arrived),
            (false, false) => Ok(Landed::Prepared),
        }
    }
}

/// Of the restore that left what is in a directory, if one did.
fn marker_of(directory: &Path) -> Result<Option<ContentHash>> {
    let path = directory.join(restore_marker::FILE_NAME);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(ContentHash(*blake3::hash(&bytes).as_bytes()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io("reading", &path, e)),
    }
}

impl Journal {
    /// Of the group whose first database goes to `first`. One that cannot be read says nothing: then all is fetched again.
    ///
    /// # Errors
    /// `file.*`.
    pub fn read(first: &Path) -> Result<Self> {
        let path = beside(first, "group.json")?;
        let entries = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Document>(&bytes)
                .ok()
                .filter(|document| document.version == VERSION)
                .map(|document| document.entries)
                .unwrap_or_default(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(io("reading", &path, e)),
        };
        Ok(Self { path: Some(path), entries })
    }

    /// How far this very restore of a database came.
    pub fn landed(&self, key: &Key, how: &str) -> Result<Landed> {
        let is_this = |entry: &&Entry| entry.key == *key && entry.how == how;
        self.entries.iter().find(is_this).map_or(Ok(Landed::Nothing), Entry::landed)
    }

    /// Adds what was prepared, durably.
    ///
    /// # Errors
    /// `file.*`.
    pub fn add(&mut self, entry: Entry) -> Result<()> {
        let place = |entry: &Entry| entry.directories.first().map(|directory| directory.place.clone());
        self.entries.retain(|other| place(other) != place(&entry) && other.key != entry.key);
        self.entries.push(entry);
        let Some(path) = &self.path else { return Ok(()) };
        let document = Document { version: VERSION, entries: self.entries.clone() };
        let bytes = serde_json::to_vec_pretty(&document)
            .map_err(|e| Error::new(Code::Internal, "writing").on(path.display()).because(e))?;
        replace(path, &bytes)
    }

    /// Nothing is to be gone on with any more.
    ///
    /// # Errors
    /// `file.*`.
    pub fn end(self) -> Result<()> {
        let Some(path) = self.path else { return Ok(()) };
        match fs::remove_file(&path) {
            Ok(()) => sync_directory(parent(&path)?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(io("deleting", &path, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_prepared_is_told_from_what_has_arrived_and_from_what_a_server_has_opened_since() {
        let dir = tempfile::tempdir().unwrap();
        let [db, wals] = ["db", "wals"].map(|name| dir.path().join(name));
        let key = Key::named("a");
        let (staging, _) = Staging::create(&[&db, &wals], &key).unwrap();
        fs::write(staging.path(&db).unwrap().join("CURRENT"), "MANIFEST-1\n").unwrap();
        fs::write(staging.path(&db).unwrap().join(restore_marker::FILE_NAME), "one").unwrap();
        let mut journal = Journal::read(&db).unwrap();
        assert_eq!(journal.landed(&key, "so").unwrap(), Landed::Nothing);
        journal.add(Entry::of(&key, "so".to_owned(), &staging).unwrap()).unwrap();

        let again = || Journal::read(&db).unwrap();
        assert_eq!(again().landed(&key, "so").unwrap(), Landed::Prepared);
        assert_eq!(again().landed(&Key::named("another"), "so").unwrap(), Landed::Nothing);
        assert_eq!(again().landed(&key, "otherwise").unwrap(), Landed::Nothing);
        fs::rename(staging.path(&wals).unwrap(), &wals).unwrap();
        assert_eq!(again().landed(&key, "so").unwrap(), Landed::Prepared);
        fs::rename(staging.path(&db).unwrap(), &db).unwrap();
        assert_eq!(again().landed(&key, "so").unwrap(), Landed::Arrived);
        fs::write(db.join(restore_marker::FILE_NAME), "another").unwrap();
        assert_eq!(again().landed(&key, "so").unwrap(), Landed::Nothing, "of another restore from the same base");
        fs::write(db.join(restore_marker::FILE_NAME), "one").unwrap();
        assert_eq!(again().landed(&key, "so").unwrap(), Landed::Arrived);
        fs::write(db.join("CURRENT"), "MANIFEST-2\n").unwrap();
        assert_eq!(again().landed(&key, "so").unwrap(), Landed::Nothing);
        fs::rename(&db, dir.path().join("elsewhere")).unwrap();
        assert_eq!(again().landed(&key, "so").unwrap(), Landed::Nothing);

        again().end().unwrap();
        assert_eq!(again().landed(&key, "so").unwrap(), Landed::Nothing);
        again().end().unwrap();
    }
}
