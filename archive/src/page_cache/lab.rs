//! Files of which tests know what is in memory.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use rustix::fs::{Advice, fadvise};

use super::residency;

pub const MIB: usize = 1 << 20;

/// A directory on a file system with a page cache that can be given back, or `None`, said on stderr.
pub fn directory() -> Option<tempfile::TempDir> {
    let candidates = [std::env::temp_dir(), PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    for place in candidates {
        let Ok(directory) = tempfile::tempdir_in(place) else { continue };
        let (_, path) = file_of(directory.path(), MIB);
        if in_memory(&path) == 0 {
            return Some(directory);
        }
    }
    let skipped = "SKIPPED: neither the temporary directory nor the checkout is on a file system that gives pages back";
    writeln!(io::stderr(), "{skipped} (tmpfs?)").unwrap();
    None
}

/// A durable file of which nothing is in memory, if the file system can do that.
pub fn file_of(directory: &Path, size: usize) -> (File, PathBuf) {
    let path = directory.join("000007.sst");
    let mut file = File::create(&path).unwrap();
    file.write_all(&vec![7; size]).unwrap();
    file.sync_all().unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    (File::open(&path).unwrap(), path)
}

pub fn in_memory(path: &Path) -> usize {
    let file = File::open(path).unwrap();
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    residency(&file, 0, length, rustix::param::page_size()).unwrap().into_iter().filter(|r| *r).count()
}
