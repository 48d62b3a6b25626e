//! What a directory of the archive holds.
//!
//! Owns: reading one directory, which can hold a million objects: its names are read here, and several threads ask for their
//! sizes, each by the name alone in the directory that is open. The whole path, a million times, takes twice as long.
//! Refuses: to go into directories below, which it only names, and to write.

use std::{
    ffi::CString,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, sync_channel},
    },
    thread,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, statat},
    io::Errno,
};

use super::{failed, temporary};
use crate::{error::Result, object_key::ObjectKey, store::Listed};

/// So many names are handed to a thread at once, and fewer are not worth one.
const MANY: usize = 4096;
/// Beyond these the kernel's lock on the directory decides.
const MAX_THREADS: usize = 4;

/// A directory of the archive, and what is wanted of it.
#[derive(Debug)]
pub(super) struct Directory<'a> {
    pub path: PathBuf,
    /// The keys of its objects begin so.
    pub prefix: String,
    /// Objects up to here are not wanted.
    pub after: Option<&'a ObjectKey>,
}

/// What is in it.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order of their keys within each of a few runs.
    pub objects: Vec<Listed>,
    pub directories: Vec<(PathBuf, String)>,
}

impl Found {
    fn with(mut self, other: Self) -> Self {
        self.objects.extend(other.objects);
        self.directories.extend(other.directories);
        self
    }

    fn sorted(mut self) -> Self {
        self.objects.sort_unstable();
        self
    }
}

impl Directory<'_> {
    /// Nothing where there is no such directory.
    pub fn read(&self) -> Result<Found> {
        let broken = |e: Errno| failed("listing the archive", &self.path, e.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = match rustix::fs::open(&self.path, flags, Mode::empty()) {
            Ok(open) => open,
            Err(Errno::NOENT) => return Ok(Found::default()),
            Err(e) => return Err(broken(e)),
        };
        // Of the same open directory: to open it again by "." would need a name that can be gone by now.
        let again = open.try_clone().map_err(|e| failed("listing the archive", &self.path, e))?;
        let mut entries = Dir::new(again).map_err(broken)?;
        // Files with names up to here are not wanted, and of a million of them none is asked for its size.
        let unwanted = self.after.and_then(|after| after.as_str().strip_prefix(&self.prefix));
        let unwanted = unwanted.filter(|name| !name.contains('/'));
        let mut more = || -> Result<Vec<CString>> {
            let mut names = Vec::new();
            for entry in entries.by_ref() {
                let entry = entry.map_err(broken)?;
                // What is not text is not ours.
                let Ok(name) = entry.file_name().to_str() else { continue };
                // The directory itself tells the kind, without looking at the file.
                let old = unwanted.is_some_and(|unwanted| name <= unwanted);
                if [temporary::DIRECTORY, ".", ".."].contains(&name)
                    || (old && entry.file_type() == FileType::RegularFile)
                {
                    continue;
                }
                names.push(entry.file_name().to_owned());
                if names.len() == MANY {
                    break;
                }
            }
            Ok(names)
        };
        let first = more()?;
        if first.len() < MANY {
            return self.look(&open, first).map(Found::sorted);
        }
        let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let (send, names) = sync_channel(2 * threads);
        // The threads' alone: where none of them is left, sending fails.
        let names = Arc::new(Mutex::new(names));
        thread::scope(|scope| {
            let looking: Vec<_> = (0..threads)
                .filter_map(|_| {
                    let (open, names) = (&open, names.clone());
                    // Where no more threads may be made, the others do it, or this one.
                    thread::Builder::new().spawn_scoped(scope, move || self.look_at_all(open, &names)).ok()
                })
                .collect();
            drop(names);
            let mut found = Found::default();
            let mut read = Ok(first);
            while let Ok(batch) = &mut read
                && !batch.is_empty()
            {
                let batch = std::mem::take(batch);
                if looking.is_empty() {
                    found = found.with(self.look(&open, batch)?);
                } else if send.send(batch).is_err() {
                    break;
                }
                read = more();
            }
            drop(send);
            for thread in looking {
                found = found.with(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            read.map(|_| found)
        })
    }

    fn look_at_all(&self, open: &OwnedFd, names: &Mutex<Receiver<Vec<CString>>>) -> Result<Found> {
        let mut found = Found::default();
        // The lock is let go before the names are looked at.
        let next = || names.lock().unwrap_or_else(PoisonError::into_inner).recv();
        while let Ok(batch) = next() {
            found = found.with(self.look(open, batch)?);
        }
        Ok(found.sorted())
    }

    fn look(&self, open: &OwnedFd, names: Vec<CString>) -> Result<Found> {
        let mut found = Found::default();
        for name in names {
            // What is not shaped like a key is not ours either.
            let Ok(text) = name.to_str() else { continue };
            let Some(key) = ObjectKey::parse(&format!("{}{text}", self.prefix)) else { continue };
            let stat = match statat(open, &name, AtFlags::empty()) {
                Ok(stat) => stat,
                // Deleted meanwhile, or a link to nothing.
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(failed("listing the archive", &self.path.join(text), e.into())),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => found.directories.push((self.path.join(text), format!("{key}/"))),
                FileType::RegularFile if self.after.is_none_or(|after| key > *after) => {
                    let size = u64::try_from(stat.st_size).unwrap_or_default();
                    found.objects.push(Listed { key, size });
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_many_names_is_listed_whole_whoever_looks() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path();
        for n in 0..3 * MANY {
            std::fs::write(below.join(format!("{n:06}.seg")), vec![0; n % 5]).unwrap();
        }
        std::fs::create_dir(below.join("000001.dir")).unwrap();
        std::fs::create_dir(below.join(temporary::DIRECTORY)).unwrap();
        std::fs::write(below.join("not a key"), b"").unwrap();
        for unwanted in [None, Some(0), Some(2 * MANY), Some(3 * MANY)] {
            let after = unwanted.map(|n| ObjectKey::parse(&format!("s/{n:06}.seg")).unwrap());
            let directory = Directory { path: below.to_owned(), prefix: "s/".to_owned(), after: after.as_ref() };
            let mut found = directory.read().unwrap();
            assert_eq!(found.directories, [(below.join("000001.dir"), "s/000001.dir/".to_owned())]);
            found.objects.sort();
            let wanted = unwanted.map_or(0, |n| n + 1)..3 * MANY;
            let expected = wanted
                .map(|n| Listed { key: ObjectKey::parse(&format!("s/{n:06}.seg")).unwrap(), size: (n % 5) as u64 });
            assert!(found.objects.into_iter().eq(expected));
        }
    }
}
