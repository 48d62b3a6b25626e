//! Pins: our own hard links to the server's WAL and MANIFEST files, and to table files that entered without the log.
//!
//! Owns: the pin directory and every link in it. A pin keeps the *bytes* of a file that the server deletes, renames
//! into its own archive or truncates after unlinking (its delete scheduler leaves files with a second link alone), so
//! pins are the durable buffer between the server and the archive: there is no other spool.
//!
//! A recycled WAL is overwritten in place, so its link would hold other bytes later; its records are kept in a *copy*
//! beside the link ([`Pins::copy_of`]), written as they are read.
//!
//! A hard link lies on the file system of its file. The state directory is on the database's; where the server keeps its
//! WALs on another one, their pins lie there, beside the server's directory or where the operator says.
//!
//! Refuses: to write anything inside the database's directories, to open a source file for writing, and to keep a second
//! copy of anything but recycled WALs. Links are not fsynced: after a power loss the files themselves tell the truth,
//! and what is missing then becomes a barrier.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use pitr_archive::{Code, Error, Result, error, ids::FileNumber, rocks::file_name};

/// Which kind of file a pin holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PinKind {
    /// A write-ahead log.
    Wal,
    /// A MANIFEST.
    Manifest,
    /// A table file that entered the database without the log.
    Table,
}

impl PinKind {
    const ALL: [Self; 3] = [Self::Wal, Self::Manifest, Self::Table];
}

impl PinKind {
    fn directory(self) -> &'static str {
        match self {
            Self::Wal => "wal",
            Self::Manifest => "manifest",
            Self::Table => "table",
        }
    }

    fn name(self, number: FileNumber) -> String {
        match self {
            Self::Wal => file_name::wal(number),
            Self::Manifest => file_name::manifest(number),
            Self::Table => file_name::sst(number),
        }
    }
}

/// What became of an attempt to pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pinned {
    /// The file is now pinned.
    New,
    /// It was pinned before.
    Already,
    /// A file of this number was pinned before, but it is another file now. The old pin is gone.
    Replaced,
    /// The source is no longer there.
    Vanished,
}

/// Where pins are to lie.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// Below the state directory: one of its own.
    pub root: &'a Path,
    /// The database directory.
    pub db: &'a Path,
    /// Where the server keeps its WALs.
    pub wal_dir: &'a Path,
    /// Where the operator wants the pins of WALs, if they cannot lie below `root`.
    pub wal_pins: Option<&'a Path>,
    /// The archive's name, where several archivers pin the same WALs.
    pub archive_name: Option<&'a str>,
}

/// The pin directories.
#[derive(Debug)]
pub struct Pins {
    wals: PathBuf,
    manifests: PathBuf,
    tables: PathBuf,
    /// The state directory.
    state: PathBuf,
    /// The archive's name, where several archivers pin the same files.
    archive_name: Option<String>,
}

impl Pins {
    /// Opens or creates the pin directories and proves that the database's files can be linked there.
    ///
    /// # Errors
    /// `pin.impossible` where hard links cannot be made: another file system, another owner.
    pub fn open(places: Places<'_>) -> Result<Self> {
        let wals = wal_pins(places)?.join(PinKind::Wal.directory());
        let manifests = places.root.join(PinKind::Manifest.directory());
        let tables = places.root.join(PinKind::Table.directory());
        for (dir, source) in [(&wals, places.wal_dir), (&manifests, places.db), (&tables, places.db)] {
            fs::create_dir_all(dir).map_err(|e| error::io("creating the pin directory", dir, e))?;
            if device(source)? != device(dir)? {
                return Err(Error::new(Code::PinImpossible, "linking the database's files")
                    .on(source.display())
                    .with("pins", dir.display())
                    .because(std::io::Error::from(ErrorKind::CrossesDevices)));
            }
        }
        let state = places.root.parent().unwrap_or(places.root).to_owned();
        Ok(Self { wals, manifests, tables, state, archive_name: places.archive_name.map(ToOwned::to_owned) })
    }

    fn directory(&self, kind: PinKind) -> &Path {
        match kind {
            PinKind::Wal => &self.wals,
            PinKind::Manifest => &self.manifests,
            PinKind::Table => &self.tables,
        }
    }

    /// Where a file's pin is, if there is one.
    pub fn path(&self, kind: PinKind, number: FileNumber) -> PathBuf {
        self.directory(kind).join(kind.name(number))
    }

    /// Pins `source`.
    pub fn pin(&self, kind: PinKind, number: FileNumber, source: &Path) -> Result<Pinned> {
        let link = self.path(kind, number);
        match fs::hard_link(source, &link) {
            Ok(()) => Ok(Pinned::New),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Pinned::Vanished),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let (Some(pinned), Some(there)) = (inode(&link)?, inode(source)?) else { return Ok(Pinned::Already) };
                if pinned == there {
                    return Ok(Pinned::Already);
                }
                fs::remove_file(&link).map_err(|e| error::io("removing the stale pin", &link, e))?;
                match fs::hard_link(source, &link) {
                    Ok(()) => Ok(Pinned::Replaced),
                    Err(e) if e.kind() == ErrorKind::NotFound => Ok(Pinned::Vanished),
                    Err(e) => Err(error::io("pinning", source, e)),
                }
            }
            Err(e) => {
                let code = match e.kind() {
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Code::DiskFull,
                    ErrorKind::CrossesDevices
                    | ErrorKind::PermissionDenied
                    | ErrorKind::Unsupported
                    | ErrorKind::TooManyLinks => Code::PinImpossible,
                    // A disk that fails or is read-only now: that is not where the pins are, and can pass.
                    _ => Code::FileIo,
                };
                Err(Error::new(code, "pinning").on(source.display()).with("pin", link.display()).because(e))
            }
        }
    }

    /// How long ago a pinned file came into being, where the file system keeps that.
    pub fn age_of(&self, kind: PinKind, number: FileNumber) -> Option<Duration> {
        fs::metadata(self.path(kind, number)).ok()?.created().ok()?.elapsed().ok()
    }

    /// Opens a pinned file; `None` if it is not pinned.
    pub fn open_pin(&self, kind: PinKind, number: FileNumber) -> Result<Option<File>> {
        open_if_there(&self.path(kind, number))
    }

    /// Every pin of a kind, by number.
    pub fn list(&self, kind: PinKind) -> Result<BTreeMap<FileNumber, PathBuf>> {
        let dir = self.directory(kind);
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(|e| error::io("listing the pins", dir, e))? {
            let entry = entry.map_err(|e| error::io("listing the pins", dir, e))?;
            let name = entry.file_name();
            let Some(parsed) = name.to_str().and_then(file_name::parse) else { continue };
            let number = match (kind, parsed) {
                (PinKind::Wal, file_name::FileKind::Wal(n))
                | (PinKind::Manifest, file_name::FileKind::Manifest(n))
                | (PinKind::Table, file_name::FileKind::Sst(n)) => n,
                _ => continue,
            };
            found.insert(number, entry.path());
        }
        Ok(found)
    }

    /// Removes a pin and its copy; removing what is not there is success.
    pub fn release(&self, kind: PinKind, number: FileNumber) -> Result<()> {
        let link = self.path(kind, number);
        remove_if_there(&link)?;
        if kind == PinKind::Wal {
            remove_if_there(&self.copy_path(number))?;
        }
        Ok(())
    }

    /// Removes every pin: the database they belonged to is not the one that is there now.
    pub fn release_all(&self) -> Result<()> {
        for kind in PinKind::ALL {
            for number in self.list(kind)?.into_keys() {
                self.release(kind, number)?;
            }
        }
        for number in self.copies()? {
            remove_if_there(&self.copy_path(number))?;
        }
        Ok(())
    }

    fn copy_path(&self, number: FileNumber) -> PathBuf {
        self.wals.join(format!("copy-{:06}", number.get()))
    }

    /// Numbers of the recycled WALs of which there are copies.
    pub fn copies(&self) -> Result<Vec<FileNumber>> {
        let dir = &self.wals;
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(|e| error::io("listing the pins", dir, e))? {
            let entry = entry.map_err(|e| error::io("listing the pins", dir, e))?;
            let name = entry.file_name();
            let number: Option<FileNumber> = name.to_str().and_then(|n| n.strip_prefix("copy-")?.parse().ok());
            found.extend(number);
        }
        found.sort();
        Ok(found)
    }

    /// The copy of a recycled WAL for reading, if there is one.
    pub fn copy_of(&self, number: FileNumber) -> Result<Option<File>> {
        open_if_there(&self.copy_path(number))
    }

    /// The copy of a recycled WAL for writing, created when missing.
    pub fn copy_for(&self, number: FileNumber) -> Result<File> {
        let path = self.copy_path(number);
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| error::io("opening the copy of a recycled WAL", &path, e))
    }

    /// Every directory that pins lie in.
    pub fn directories(&self) -> [&Path; 3] {
        [&self.wals, &self.manifests, &self.tables]
    }

    /// The size of what is pinned of a WAL: of the copy, where there is one. `None` if it is not pinned.
    pub fn wal_bytes(&self, number: FileNumber) -> Result<Option<u64>> {
        for path in [self.copy_path(number), self.path(PinKind::Wal, number)] {
            match fs::metadata(&path) {
                Ok(meta) => return Ok(Some(meta.len())),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(error::io("measuring the pin", &path, e)),
            }
        }
        Ok(None)
    }

    /// Bytes on disk that only pins hold (files that the server no longer has, and our copies). What the archivers of
    /// several archives hold together, each of them holds.
    pub fn held_bytes(&self) -> Result<u64> {
        let mut total = 0;
        for kind in PinKind::ALL {
            let dir = self.directory(kind);
            let own = if dir.starts_with(&self.state) { Some(self.state.as_path()) } else { dir.parent() };
            let ours = OurLinks::of(own.unwrap_or(dir), dir, self.archive_name.as_deref())?;
            for path in self.list(kind)?.into_values() {
                match fs::metadata(&path) {
                    Ok(meta) if ours.are_all_of(&path, &meta) => total += meta.len(),
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    Err(e) => return Err(error::io("measuring the pin", &path, e)),
                }
            }
        }
        for number in self.copies()? {
            let path = self.copy_path(number);
            match fs::metadata(&path) {
                Ok(meta) => total += meta.len(),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(error::io("measuring the pin", &path, e)),
            }
        }
        Ok(total)
    }
}

/// Where a database's further archives have what is theirs, below what is the database's.
pub const ARCHIVES: &str = "archives";

/// Directories of the archivers of one database that hold links to the same files under the same names: a file whose names
/// are all in them is on the disk only because of them.
#[derive(Debug)]
pub(crate) struct OurLinks {
    others: Vec<PathBuf>,
}

impl OurLinks {
    /// `directory` is one archiver's, somewhere below what is its `own`.
    pub(crate) fn of(own: &Path, directory: &Path, archive_name: Option<&str>) -> Result<Self> {
        let whole = if archive_name.is_some() { own.parent().and_then(Path::parent) } else { Some(own) };
        let (Some(whole), Ok(below)) = (whole, directory.strip_prefix(own)) else {
            return Ok(Self { others: Vec::new() });
        };
        let archives = whole.join(ARCHIVES);
        let mut others = vec![whole.join(below)];
        match fs::read_dir(&archives) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.map_err(|e| error::io("listing the archivers in", &archives, e))?;
                    others.push(entry.path().join(below));
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(error::io("listing the archivers in", &archives, e)),
        }
        others.retain(|other| other != directory);
        Ok(Self { others })
    }

    /// Whether nobody else has a name of the file at `path`, one of ours.
    pub(crate) fn are_all_of(&self, path: &Path, meta: &fs::Metadata) -> bool {
        let Some(name) = path.file_name() else { return false };
        let is_link = |other: &&PathBuf| {
            fs::metadata(other.join(name)).is_ok_and(|there| (there.dev(), there.ino()) == (meta.dev(), meta.ino()))
        };
        meta.nlink() == 1 || self.others.iter().filter(is_link).count() as u64 + 1 == meta.nlink()
    }
}

/// Where the pins of WALs go: below the state directory; where the server keeps its WALs on another file system, beside
/// their directory, under its name with `.pitr` behind it; or where the operator says.
pub fn wal_pins(places: Places<'_>) -> Result<PathBuf> {
    let Places { root, wal_dir, archive_name, .. } = places;
    let own = |place: PathBuf| archive_name.map_or(place.clone(), |name| place.join(ARCHIVES).join(name));
    if let Some(named) = places.wal_pins {
        return Ok(own(named.to_owned()));
    }
    let near = root.ancestors().find(|above| above.exists()).unwrap_or(root);
    let there = device(wal_dir)?;
    if device(near)? == there {
        return Ok(root.to_owned());
    }
    let above = wal_dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match wal_dir.file_name() {
        Some(name) if device(above)? == there => {
            let mut name = name.to_os_string();
            name.push(".pitr");
            Ok(own(above.join(name)))
        }
        // The file system is mounted there: the only place on it is the server's own directory, or below.
        _ => {
            Err(Error::new(Code::PinImpossible, "finding a place for pins of the logs in").on(wal_dir.display()).hint(
                "the logs lie at the root of a file system of their own: name a directory on it for pins (--wal-pins)",
            ))
        }
    }
}

/// The device a path is on.
pub fn device(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).map_err(|e| error::io("examining", path, e))?.dev())
}

/// Device and inode of a path; `None` if it is not there.
pub fn inode(path: &Path) -> Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(error::io("examining", path, e)),
    }
}

/// Opens a file for reading; `None` if it is not there.
pub fn open_if_there(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(error::io("opening", path, e)),
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(error::io("removing", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_keeps_the_bytes_of_a_deleted_file() {
        let dir = tempfile::tempdir().unwrap();
        let (db, state) = (dir.path().join("db"), dir.path().join("state"));
        fs::create_dir_all(&db).unwrap();
        fs::create_dir_all(&state).unwrap();
        let wal = db.join("000007.log");
        fs::write(&wal, b"records").unwrap();
        let pins =
            Pins::open(Places { root: &state, db: &db, wal_dir: &db, wal_pins: None, archive_name: None }).unwrap();
        let seven = FileNumber::new(7);
        assert_eq!(pins.pin(PinKind::Wal, seven, &wal).unwrap(), Pinned::New);
        assert_eq!(pins.pin(PinKind::Wal, seven, &wal).unwrap(), Pinned::Already);
        fs::remove_file(&wal).unwrap();
        assert_eq!(pins.held_bytes().unwrap(), 7);
        assert_eq!(pins.pin(PinKind::Wal, FileNumber::new(8), &db.join("000008.log")).unwrap(), Pinned::Vanished);
        fs::write(&wal, b"another").unwrap();
        assert_eq!(pins.pin(PinKind::Wal, seven, &wal).unwrap(), Pinned::Replaced);
        pins.release(PinKind::Wal, seven).unwrap();
        assert!(pins.open_pin(PinKind::Wal, seven).unwrap().is_none());
    }

    #[test]
    fn what_the_server_has_deleted_is_held_by_each_of_several_archivers_that_pinned_it() {
        let dir = tempfile::tempdir().unwrap();
        let (db, state) = (dir.path().join("db"), dir.path().join("db.pitr"));
        fs::create_dir_all(&db).unwrap();
        let wal = db.join("000007.log");
        fs::write(&wal, b"records").unwrap();
        let seven = FileNumber::new(7);
        let archivers = [None, Some("far"), Some("near")].map(|name| {
            let root = name.map_or(state.clone(), |name| state.join(ARCHIVES).join(name));
            let root = root.join("pins");
            fs::create_dir_all(&root).unwrap();
            let places = Places { root: &root, db: &db, wal_dir: &db, wal_pins: None, archive_name: name };
            let pins = Pins::open(places).unwrap();
            assert_eq!(pins.pin(PinKind::Wal, seven, &wal).unwrap(), Pinned::New);
            pins
        });
        let held = || archivers.each_ref().map(|pins| pins.held_bytes().unwrap());
        assert_eq!(held(), [0, 0, 0], "the server still has it");
        fs::remove_file(&wal).unwrap();
        assert_eq!(held(), [7, 7, 7]);
        archivers[1].release(PinKind::Wal, seven).unwrap();
        assert_eq!(held(), [7, 0, 7]);
        fs::write(&wal, b"another").unwrap();
        assert_eq!(archivers[1].pin(PinKind::Wal, seven, &wal).unwrap(), Pinned::New);
        assert_eq!(held(), [7, 0, 7], "another file of this name is the server's");
    }
}
