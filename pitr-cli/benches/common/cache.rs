//! What is in the page cache when something is measured: the same for every side.
//!
//! Owns: making it so, without any rights: pages of files that are clean can be given back by who may read them.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use rustix::fs::{Advice, fadvise};

/// `statfs` of file systems that are memory.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58F6];

/// What a side finds in memory of what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Nothing: as of a database that is larger than memory, and of an archive that nobody looked at.
    Cold,
    /// Everything.
    Warm,
}

impl Cache {
    /// As `$CACHE` says: `cold` (the default) or `warm`.
    pub fn chosen() -> Self {
        match std::env::var("CACHE").as_deref() {
            Err(_) | Ok("cold") => Self::Cold,
            Ok("warm") => Self::Warm,
            Ok(other) => panic!("CACHE is cold or warm, not {other}"),
        }
    }

    /// In a title.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Cold => "nothing of what is read is in the page cache",
            Self::Warm => "all of what is read is in the page cache",
        }
    }

    /// Before a side is measured that reads what lies below `directory`. Everything that was written before is on the disk
    /// then, or it would be written in that side's time.
    pub fn before(self, directory: &Path) {
        rustix::fs::sync();
        for path in files(directory) {
            let mut file = File::open(&path).expect("a file");
            match self {
                Self::Cold => fadvise(&file, 0, None, Advice::DontNeed).expect("pages are given back"),
                Self::Warm => drop(std::io::copy(&mut file, &mut std::io::sink()).expect("a file that can be read")),
            }
        }
    }
}

/// Plain files below a directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a kind of file");
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// Bytes of the plain files below a directory.
pub fn bytes(directory: &Path) -> u64 {
    files(directory).iter().map(|path| path.metadata().expect("a file").len()).sum()
}

/// Ends where a place is no disk, or has less than this left: nothing could be said of it.
pub fn refuse_unfit(place: &Path, needed: u64) {
    let kind = rustix::fs::statfs(place).expect("a file system").f_type;
    let is_memory = u64::try_from(kind).is_ok_and(|kind| IN_MEMORY.contains(&kind));
    assert!(!is_memory, "{} lies in memory: name a directory on a disk in BENCH_DIR", place.display());
    let space = rustix::fs::statvfs(place).expect("a file system");
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    assert!(free >= needed, "{} has {} MiB left, {} are needed", place.display(), free >> 20, needed >> 20);
}
