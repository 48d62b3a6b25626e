//! Where a measurement happens, a database as servers have it, and `pitr run` beside it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rocksdb::{DB, Options};

use crate::harness::{
    command::{self, pitr, text, url},
    metrics::{Metrics, free_address},
};

/// Waiting for anything.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A directory of its own, on a disk.
pub fn place() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("pitr-bench-");
    let made = match std::env::var_os("BENCH_DIR") {
        Some(place) => builder.tempdir_in(place),
        None => builder.tempdir(),
    };
    made.expect("a directory")
}

/// A new database with RocksDB's defaults.
pub fn database(dir: &Path) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    DB::open(&options, dir).expect("a new database")
}

/// `pitr run` with its defaults, and what it tells of itself.
pub struct Archiver {
    child: Child,
    address: SocketAddr,
}

impl Archiver {
    /// Beside the database `db` of this place; waits for the first base of each of `databases`.
    pub fn beside(root: &Path, db: &Path) -> Self {
        let (archive, state) = (url(&archive(root)), state(root));
        Self::start(pitr(["run", "--db", text(db), "--archive", &archive, "--state", text(&state)]), 1)
    }

    /// What `command` starts; waits until it has taken so many bases.
    pub fn start(mut command: Command, bases: usize) -> Self {
        let address = free_address();
        let child = command.args(["--http", &address.to_string()]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut archiver = Self { child: child.expect("starting pitr run"), address };
        let start = Instant::now();
        while archiver.metrics().and_then(|m| m.sum("pitr_bases_published_total", "")).unwrap_or(0.0) < bases as f64 {
            assert!(start.elapsed() < PATIENCE, "no base comes");
            assert!(archiver.child.try_wait().expect("waiting").is_none(), "the archiver ended");
            std::thread::sleep(Duration::from_millis(100));
        }
        archiver
    }

    /// `pitr run ARGS` of this database; waits until it answers, whatever it has archived by then.
    pub fn answering(run: Command, db: &Path, state: &Path) -> Self {
        let archiver = Self::start(run, 0);
        let start = Instant::now();
        let asked = || command::finish(&mut pitr(["status", "--db", text(db), "--state", text(state)]));
        while !asked().status.success() {
            assert!(start.elapsed() < PATIENCE, "the archiver does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        archiver
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn metrics(&self) -> Option<Metrics> {
        Metrics::scrape(self.address)
    }

    /// Waits until the archive has so many records, and answers for how long.
    pub fn caught_up(&self, records: u64) -> Duration {
        let start = Instant::now();
        let has = || self.metrics().and_then(|m| m.sum("pitr_acknowledged_record", "")).unwrap_or(0.0) as u64;
        while has() < records {
            assert!(start.elapsed() < PATIENCE, "the archiver does not catch up");
            std::thread::sleep(Duration::from_millis(50));
        }
        start.elapsed()
    }

    /// SIGTERM.
    pub fn stop(mut self) {
        command::terminate(&self.child);
        let status = command::wait(&mut self.child).expect("the archiver ends");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn archive(root: &Path) -> PathBuf {
    root.join("archive")
}

pub fn state(root: &Path) -> PathBuf {
    root.join("state")
}
