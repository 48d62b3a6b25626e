//! Directories for tests.
//!
//! Owns: their place: memory where the machine has such a directory with room (the tests make many small databases and
//! wait for the disk otherwise), else the system's temporary directory; `PITR_TEST_DIR` overrides both. With `PITR_KEEP`
//! they stay, for somebody who looks for a cause.

use std::path::Path;

/// A directory that is removed at the end of the test.
pub fn directory() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("pitr-test-");
    let made = match std::env::var_os("PITR_TEST_DIR") {
        Some(place) => builder.tempdir_in(place),
        None if roomy(Path::new("/dev/shm")) => builder.tempdir_in("/dev/shm"),
        None => builder.tempdir(),
    };
    let mut made = made.expect("a temporary directory");
    made.disable_cleanup(std::env::var_os("PITR_KEEP").is_some());
    made
}

/// A directory on a real disk: for figures.
#[allow(dead_code)] // not every test program measures
pub fn on_disk() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("pitr-test-").tempdir().expect("a temporary directory")
}

/// Bytes of all files below a directory.
#[allow(dead_code)] // not every test program asks
pub fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

fn roomy(place: &Path) -> bool {
    const ROOM: u64 = 4 << 30;
    rustix::fs::statvfs(place).is_ok_and(|s| s.f_bavail.saturating_mul(s.f_frsize) >= ROOM)
}
