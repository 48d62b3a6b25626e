//! The directories that a restore fills before anything gets its final name.
//!
//! Owns: one staging directory beside each final directory, in the same file system, so that a rename publishes it;
//! the lock that keeps two restores apart; the order of fsync and rename. Files are made durable by whoever writes
//! them; here directories are, from the deepest up, before the rename, and the directory above after it.
//! Refuses: a final directory that holds anything.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, TryLockError},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use pitr_archive::{Code, Error, Result, error::io};

use super::resume::{self, Found, Key};
use crate::owner::{self, Owner};

/// One directory being filled.
#[derive(Debug)]
struct Pair {
    staging: PathBuf,
    place: PathBuf,
    /// Held until the rename; other restores into the same place see it.
    _lock: File,
}

/// All directories of a restore that is under way.
#[derive(Debug)]
pub(crate) struct Staging {
    pairs: Vec<Pair>,
}

/// Refuses `place` unless it does not exist or is an empty directory that a rename can replace, outside of every
/// database and archive: the server of the one would see strange files, the other would hold objects that are none.
pub(crate) fn check_free(place: &Path) -> Result<()> {
    // By its real name, as far as that exists: a link can lead into one.
    let existing = place.ancestors().skip(1).find_map(|above| above.canonicalize().ok());
    for above in place.ancestors().skip(1).chain(existing.iter().flat_map(|real| real.ancestors())) {
        let within = match above {
            _ if above.join("CURRENT").is_file() && above.join("IDENTITY").is_file() => "inside a RocksDB database",
            _ if above.join("archive.json").is_file() && above.join("epochs").is_dir() => "inside an archive",
            _ if above.join("known-archive.json").is_file() && above.join("lock").is_file() => {
                "inside an archiver's state directory"
            }
            _ => continue,
        };
        return Err(Error::new(Code::Usage, "checking the destination")
            .on(place.display())
            .with("it is", within)
            .with("namely", above.display())
            .hint("restore beside it, not into it"));
    }
    let metadata = match fs::symlink_metadata(place) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io("looking at the destination", place, e)),
    };
    let taken =
        |what: &'static str| Error::new(Code::DestinationNotEmpty, "checking").on(place.display()).with("it is", what);
    if !metadata.is_dir() {
        return Err(taken("not a directory"));
    }
    let mut entries = fs::read_dir(place).map_err(|e| io("reading the destination", place, e))?;
    if entries.next().is_some() {
        return Err(taken("not empty"));
    }
    let above = fs::metadata(parent(place)?).map_err(|e| io("looking at the directory above", place, e))?;
    if above.dev() != metadata.dev() {
        return Err(Error::new(Code::Usage, "checking")
            .on(place.display())
            .with("it is", "a mount point")
            .hint("a restore is built beside its destination and renamed: name a directory below the mount point"));
    }
    Ok(())
}

/// The directory that holds `place`.
pub(crate) fn parent(place: &Path) -> Result<&Path> {
    place.parent().filter(|p| !p.as_os_str().is_empty()).ok_or_else(|| below_root(place))
}

/// What a restore is built in, [`beside`] its destination.
const BUILT: &str = "restoring";

/// `/a/.b.pitr-WHAT`: what is ours beside `/a/b`, hidden.
pub(crate) fn beside(place: &Path, what: &str) -> Result<PathBuf> {
    let name = place.file_name().ok_or_else(|| below_root(place))?;
    let mut ours = OsString::from(".");
    ours.push(name);
    ours.push(".pitr-");
    ours.push(what);
    Ok(parent(place)?.join(ours))
}

fn below_root(place: &Path) -> Error {
    Error::new(Code::Usage, "reading the destination").on(place.display()).hint("name a directory below /")
}

/// Where `place` is built.
pub(crate) fn built(place: &Path) -> Result<PathBuf> {
    beside(place, BUILT)
}

/// What interrupted restores to there hold of the disk, file by file: the file system, and bytes. The next one keeps it or
/// removes it. What goes while it is looked at belongs to one that is under way: the lock tells, later.
pub(crate) fn held(outermost: &[&Path]) -> Result<Vec<(u64, u64)>> {
    let mut held = Vec::new();
    for place in outermost {
        match below(&beside(place, BUILT)?) {
            Err(e) if e.code() == Code::FileNotFound => {}
            paths => {
                let there = paths?.into_iter().filter_map(|path| fs::symlink_metadata(path).ok());
                held.extend(there.map(|metadata| (metadata.dev(), metadata.blocks() * 512)));
            }
        }
    }
    Ok(held)
}

/// Those that lie in none of the others, in their order.
pub(crate) fn outermost<'a>(places: &[&'a Path]) -> Vec<&'a Path> {
    let inside = |place: &Path| places.iter().any(|other| *other != place && place.starts_with(other));
    places.iter().copied().filter(|place| !inside(place)).collect()
}

impl Staging {
    /// Staging directories for these final ones. A directory below another is staged inside it. What a restore left there is
    /// found, or removed first.
    pub fn create(places: &[&Path], key: &Key) -> Result<(Self, Found)> {
        let mut pairs: Vec<Pair> = Vec::new();
        let outermost = outermost(places);
        let mut found = Found::Same;
        for place in &outermost {
            let staging = beside(place, BUILT)?;
            let above = parent(place)?;
            create_durable(above)?;
            let lock = claim(&staging, key, &mut found)?;
            pairs.push(Pair { staging, place: place.to_path_buf(), _lock: lock });
        }
        let staging = Self { pairs };
        if found == Found::Nothing {
            // One that was begun anew means all of them.
            staging.keep_only(&BTreeSet::new(), places)?;
        }
        staging.make_inner(places)?;
        for pair in &staging.pairs {
            if found != Found::Same {
                resume::forget_log(&pair.staging)?;
            }
            key.put(&pair.staging)?;
        }
        Ok((staging, found))
    }

    /// The staging directories of a restore that was prepared and not published, or not all of it: those that are there.
    pub fn prepared(places: &[&Path]) -> Result<Self> {
        let mut pairs = Vec::new();
        for place in outermost(places) {
            let staging = beside(place, BUILT)?;
            if staging.exists() {
                pairs.push(Pair { place: place.to_path_buf(), _lock: lock(&staging)?, staging });
            }
        }
        Ok(Self { pairs })
    }

    fn make_inner(&self, places: &[&Path]) -> Result<()> {
        for place in places {
            let path = self.path(place)?;
            fs::create_dir_all(&path).map_err(|e| io("creating", &path, e))?;
        }
        Ok(())
    }

    /// Removes everything but these files, and makes the staged `places` anew.
    pub fn keep_only(&self, keep: &BTreeSet<PathBuf>, places: &[&Path]) -> Result<()> {
        for pair in &self.pairs {
            let own = resume::own_files(&pair.staging);
            for path in below(&pair.staging)?.iter().skip(1).rev() {
                let kind = fs::symlink_metadata(path).map_err(|e| io("looking at", path, e))?;
                if kind.is_dir() {
                    match fs::remove_dir(path) {
                        Err(e) if e.kind() != std::io::ErrorKind::DirectoryNotEmpty => {
                            return Err(io("removing", path, e));
                        }
                        _ => {}
                    }
                } else if !keep.contains(path) && !own.contains(path) {
                    fs::remove_file(path).map_err(|e| io("removing", path, e))?;
                }
            }
        }
        self.make_inner(places)
    }

    /// Its files of the base may be gone on with after all: every one is durable, and is compared again.
    pub fn begin_resuming(&self, key: &Key) -> Result<()> {
        let of_files = key.of_files();
        self.pairs.iter().filter(|pair| pair.staging.exists()).try_for_each(|pair| {
            owner::take_back(&pair.staging)?;
            of_files.put(&pair.staging)
        })
    }

    /// From here on it becomes a database: an interruption keeps the files of the base, if they stay as they are.
    pub fn end_log(&self, key: &Key) -> Result<()> {
        let of_files = key.of_files();
        self.pairs.iter().try_for_each(|pair| {
            of_files.put(&pair.staging)?;
            resume::forget_log(&pair.staging)
        })
    }

    /// From here on an interruption means to begin anew.
    pub fn end_resuming(&self) -> Result<()> {
        self.pairs.iter().try_for_each(|pair| resume::end(&pair.staging))
    }

    /// Where a final path is while it is staged.
    pub fn path(&self, place: &Path) -> Result<PathBuf> {
        self.pairs
            .iter()
            .find_map(|pair| {
                let rest = place.strip_prefix(&pair.place).ok()?;
                Some(if rest.as_os_str().is_empty() { pair.staging.clone() } else { pair.staging.join(rest) })
            })
            .ok_or_else(|| Error::new(Code::Internal, "staging").on(place.display()))
    }

    /// The staging directory that has the notes of how far the restore has come.
    pub fn notes(&self) -> Result<&Path> {
        let first = self.pairs.first().ok_or_else(|| Error::new(Code::Internal, "staging nothing"))?;
        Ok(&first.staging)
    }

    /// What is staged, and its place: the database's own first.
    pub fn pairs(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.pairs.iter().map(|pair| (pair.staging.as_path(), pair.place.as_path()))
    }

    /// Makes every directory durable: then what is staged is complete, whatever happens.
    pub fn make_durable(&self) -> Result<()> {
        for pair in &self.pairs {
            for path in below(&pair.staging)?.iter().rev().filter(|p| p.is_dir()) {
                sync_directory(path)?;
            }
            sync_directory(parent(&pair.staging)?)?;
        }
        Ok(())
    }

    /// Gives every staged directory the mode of what is in its place.
    pub fn look_like_places(&self) -> Result<()> {
        for pair in &self.pairs {
            match fs::metadata(&pair.place) {
                Ok(there) => fs::set_permissions(&pair.staging, there.permissions())
                    .map_err(|e| io("setting the mode of", &pair.staging, e))?,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(io("looking at", &pair.place, e)),
            }
        }
        Ok(())
    }

    /// Gives every staged file and directory to `owner`.
    pub fn give_to(&self, owner: Owner) -> Result<()> {
        for pair in &self.pairs {
            for path in below(&pair.staging)? {
                owner.apply(&path)?;
            }
        }
        Ok(())
    }

    /// Gives all directories, which [`Staging::make_durable`] made durable, their final names, the database directory (the
    /// first) last: without it nothing looks like a database.
    pub fn publish(&self) -> Result<()> {
        // The database's own directory last: with it, the restored database is there. Where it cannot be put in its place,
        // the others leave theirs again.
        for (published, pair) in self.pairs.iter().rev().enumerate() {
            fs::rename(&pair.staging, &pair.place).map_err(|e| self.withdraw(published, e)).map_err(|e| {
                match e.kind() {
                    // Somebody filled it meanwhile; rename(2) refuses to replace a directory that is not empty.
                    std::io::ErrorKind::DirectoryNotEmpty => Error::new(Code::DestinationNotEmpty, "publishing")
                        .on(pair.place.display())
                        .because(e)
                        .hint("it appeared while the restore ran: move it away and run the same command again"),
                    _ => io("renaming the restored directory to", &pair.place, e),
                }
            })?;
            if let Err(e) = parent(&pair.place).and_then(sync_directory) {
                let why = std::io::Error::other(e.to_string());
                self.withdraw(published + 1, why);
                return Err(e);
            }
        }
        Ok(())
    }

    /// Undoes the last `published` renames, after one failed for the reason `e`.
    fn withdraw(&self, published: usize, e: std::io::Error) -> std::io::Error {
        for pair in self.pairs.iter().rev().take(published) {
            if let Err(also) = fs::rename(&pair.place, &pair.staging) {
                let text = format!("{e}; and {} stays where it is: {also}", pair.place.display());
                return std::io::Error::new(e.kind(), text);
            }
        }
        e
    }

    /// Removes everything staged.
    pub fn discard(self) -> Result<()> {
        for pair in &self.pairs {
            fs::remove_dir_all(&pair.staging).map_err(|e| io("removing", &pair.staging, e))?;
        }
        Ok(())
    }
}

/// A directory of this name, locked: a fresh one, or what was left there that may be of use.
fn claim(staging: &Path, key: &Key, found: &mut Found) -> Result<File> {
    loop {
        match fs::create_dir(staging) {
            Ok(()) => {
                *found = Found::Nothing;
                return lock(staging);
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                // Whoever left it is gone, or its lock would be held.
                let stale = lock(staging)?;
                // A name that anybody can take: what somebody else made, they can change.
                let there = if owner::is_own_directory(staging) { key.found_in(staging) } else { Found::Nothing };
                if there != Found::Nothing {
                    *found = there.min(*found);
                    return Ok(stale);
                }
                fs::remove_dir_all(staging).map_err(|e| io("removing what an interrupted restore left", staging, e))?;
            }
            Err(e) => return Err(io("creating the staging directory", staging, e)),
        }
    }
}

fn lock(directory: &Path) -> Result<File> {
    let file = File::open(directory).map_err(|e| io("opening the staging directory", directory, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(Code::Usage, "locking")
            .on(directory.display())
            .hint("another pitr restore fills the same destination: wait for it, or choose another directory")),
        Err(TryLockError::Error(e)) => Err(io("locking", directory, e)),
    }
}

/// The directory and everything below it, each directory before what it holds.
fn below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut all = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(path) = all.get(next).cloned() {
        next += 1;
        let kind = fs::symlink_metadata(&path).map_err(|e| io("looking at", &path, e))?;
        if kind.is_dir() {
            for entry in fs::read_dir(&path).map_err(|e| io("reading", &path, e))? {
                all.push(entry.map_err(|e| io("reading", &path, e))?.path());
            }
        }
    }
    Ok(all)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|d| d.sync_all()).map_err(|e| io("making durable", directory, e))
}

/// Creates what is missing of a directory's path, and makes each name durable where it stands: a database below a name that a
/// power loss takes back is gone with it.
fn create_durable(directory: &Path) -> Result<()> {
    let missing: Vec<_> = directory.ancestors().take_while(|path| !path.exists()).collect();
    fs::create_dir_all(directory).map_err(|e| io("creating", directory, e))?;
    missing.into_iter().rev().try_for_each(|created| sync_directory(parent(created)?))
}

/// Bytes that can still be written in the file system of `place`, which need not exist yet.
pub(crate) fn free_bytes(place: &Path) -> Result<u64> {
    let mut existing = place;
    while !existing.exists() {
        existing = parent(existing)?;
    }
    let stat = rustix::fs::statvfs(existing).map_err(|e| io("reading the free space of", existing, e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(of: &str) -> Key {
        Key::named(of)
    }

    fn created(places: &[&Path], of: &str) -> Staging {
        Staging::create(places, &key(of)).unwrap().0
    }

    #[test]
    fn nothing_has_its_final_name_before_publish_and_everything_after() {
        let dir = tempfile::tempdir().unwrap();
        let (db, wal) = (dir.path().join("db"), dir.path().join("wals/fast"));
        let inner = db.join("cold");
        let staging = created(&[&db, &wal, &inner], "a");
        fs::write(staging.path(&db).unwrap().join("CURRENT"), b"x").unwrap();
        fs::write(staging.path(&inner).unwrap().join("1"), b"y").unwrap();
        fs::write(staging.path(&wal).unwrap().join("2"), b"z").unwrap();
        assert!(!db.exists() && !wal.exists());
        staging.publish().unwrap();
        for path in [db.join("CURRENT"), db.join("cold/1"), wal.join("2")] {
            assert!(path.exists(), "{}", path.display());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no staging directory stays");
    }

    #[test]
    fn a_destination_inside_a_database_or_an_archive_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (db, archive) = (dir.path().join("db"), dir.path().join("archive"));
        fs::create_dir_all(archive.join("epochs")).unwrap();
        fs::create_dir_all(&db).unwrap();
        for file in [db.join("CURRENT"), db.join("IDENTITY"), archive.join("archive.json")] {
            fs::write(file, b"x").unwrap();
        }
        for inside in [db.join("copy"), db.join("a/b"), archive.join("copy")] {
            assert_eq!(check_free(&inside).unwrap_err().code(), Code::Usage, "{}", inside.display());
        }
        check_free(&dir.path().join("copy")).unwrap();
    }

    #[test]
    fn when_one_directory_cannot_be_put_in_its_place_none_is() {
        let dir = tempfile::tempdir().unwrap();
        let (db, wal) = (dir.path().join("db"), dir.path().join("wal"));
        let staging = created(&[&db, &wal], "a");
        fs::create_dir_all(db.join("somebody came first")).unwrap();
        assert_eq!(staging.publish().unwrap_err().code(), Code::DestinationNotEmpty);
        assert!(!wal.exists());
    }

    #[test]
    fn what_an_interrupted_restore_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        let first = created(&[&db], "a");
        fs::write(first.path(&db).unwrap().join("half"), b"x").unwrap();
        first.end_resuming().unwrap();
        drop(first);
        let second = created(&[&db], "a");
        assert_eq!(names(&second.path(&db).unwrap()), ["pitr-resume.json"]);
    }

    fn names(directory: &Path) -> Vec<std::ffi::OsString> {
        let mut names: Vec<_> = fs::read_dir(directory).unwrap().flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_restore_to_another_position_finds_the_files_and_nothing_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        let first = created(&[&db], "a");
        let staged = first.path(&db).unwrap();
        fs::write(staged.join("000001.sst"), b"x").unwrap();
        fs::write(staged.join("pitr-resume-wal.json"), b"x").unwrap();
        drop(first);
        assert!(
            held(&[&db]).unwrap().iter().map(|(_, bytes)| bytes).sum::<u64>() >= 512,
            "what takes room on the disk"
        );
        assert_eq!(Staging::create(&[&db], &key("b")).unwrap().1, Found::Files);
        assert_eq!(names(&staged), ["000001.sst", "pitr-resume.json"]);
        // Then it is of that other one.
        assert_eq!(Staging::create(&[&db], &key("b")).unwrap().1, Found::Same);
        let (staging, found) = Staging::create(&[&db], &key("a")).unwrap();
        assert_eq!(found, Found::Files);
        staging.end_log(&key("a")).unwrap();
        drop(staging);
        assert_eq!(Staging::create(&[&db], &key("a")).unwrap().1, Found::Files, "it was becoming a database");
    }

    #[test]
    fn what_somebody_else_made_is_not_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        let staged = created(&[&db], "a").path(&db).unwrap();
        let theirs = dir.path().join("theirs");
        fs::rename(&staged, &theirs).unwrap();
        std::os::unix::fs::symlink(&theirs, &staged).unwrap();
        assert!(Staging::create(&[&db], &key("a")).is_err() || !staged.is_symlink(), "a link is not followed");
        assert!(theirs.join("pitr-resume.json").exists(), "nor is what it leads to removed");
        if !rustix::process::geteuid().is_root() {
            return;
        }
        fs::remove_file(&staged).or_else(|_| fs::remove_dir_all(&staged)).unwrap();
        fs::rename(&theirs, &staged).unwrap();
        std::os::unix::fs::chown(&staged, Some(65_534), Some(65_534)).unwrap();
        assert_eq!(Staging::create(&[&db], &key("a")).unwrap().1, Found::Nothing);
        assert!(owner::is_own_directory(&staged));
    }

    #[test]
    fn the_same_restore_goes_on_with_what_it_wants_to_keep() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        let first = created(&[&db], "a");
        let staged = first.path(&db).unwrap();
        for name in ["kept", "half"] {
            fs::write(staged.join(name), b"x").unwrap();
        }
        fs::create_dir(staged.join("pitr-stage-1")).unwrap();
        fs::write(staged.join("pitr-stage-1/000009.log"), b"x").unwrap();
        drop(first);
        let (second, found) = Staging::create(&[&db], &key("a")).unwrap();
        assert_eq!(found, Found::Same);
        second.keep_only(&BTreeSet::from([staged.join("kept")]), &[&db]).unwrap();
        assert_eq!(names(&staged), ["kept", "pitr-resume.json"]);
        second.end_resuming().unwrap();
        drop(second);
        assert_eq!(Staging::create(&[&db], &key("a")).unwrap().1, Found::Nothing, "its end had begun");
    }

    #[test]
    fn two_restores_into_one_place_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        let first = created(&[&db], "a");
        fs::write(first.path(&db).unwrap().join("file"), b"x").unwrap();
        assert_eq!(Staging::create(&[&db], &key("a")).unwrap_err().code(), Code::Usage);
        assert!(first.path(&db).unwrap().join("file").exists());
    }

    #[test]
    fn a_place_that_holds_anything_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        check_free(&dir.path().join("new")).unwrap();
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        check_free(&empty).unwrap();
        fs::write(empty.join(".hidden"), b"").unwrap();
        assert_eq!(check_free(&empty).unwrap_err().code(), Code::DestinationNotEmpty);
        assert_eq!(check_free(&empty.join(".hidden")).unwrap_err().code(), Code::DestinationNotEmpty);
        assert_eq!(check_free(Path::new("/proc")).unwrap_err().code(), Code::DestinationNotEmpty);
    }

    #[test]
    fn a_destination_filled_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        let staging = created(&[&db], "a");
        fs::create_dir(&db).unwrap();
        fs::write(db.join("precious"), b"x").unwrap();
        assert_eq!(staging.publish().unwrap_err().code(), Code::DestinationNotEmpty);
        assert!(db.join("precious").exists());
    }
}
