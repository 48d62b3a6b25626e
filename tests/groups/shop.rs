//! The shards of one application, written in lockstep, and their archivers.
//!
//! Owns: the databases, the configuration, the writer that writes number n to every shard before n + 1 to any, and reading back
//! how many numbers a shard holds.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rocksdb::{DB, DBRecoveryMode, FlushOptions, IteratorMode, Options};
use serde_json::Value;

use crate::harness::command::{self, LIMIT, finish, pitr, text};

pub const SHARDS: [&str; 3] = ["shop-0", "shop-1", "shop-2"];

pub struct Shop {
    pub dir: tempfile::TempDir,
    /// `pitr.toml` with all shards.
    pub config: PathBuf,
}

impl Shop {
    /// Shards of `first` numbers each, flushed, that nobody has open.
    pub fn new(first: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let shop = Self { config: dir.path().join("pitr.toml"), dir };
        shop.configure("pitr.toml", &SHARDS, "");
        for db in shop.open() {
            for number in 0..first {
                put(&db, number);
            }
            flush(&db);
        }
        shop
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn archive(&self, shard: &str) -> PathBuf {
        self.path(&format!("{shard}-archive"))
    }

    /// A configuration of these shards, all in the group `shop`; `more` goes behind the last.
    pub fn configure(&self, file: &str, shards: &[&str], more: &str) -> PathBuf {
        let section = |shard: &&str| self.section(shard, shard);
        let sections: String = shards.iter().map(section).collect();
        self.write(file, &format!("tuning = {{ interval = \"50ms\", poll = \"5ms\" }}\n{sections}{more}"))
    }

    pub fn section(&self, name: &str, shard: &str) -> String {
        let (db, archive) = (self.path(shard), self.archive(shard));
        let (db, archive) = (text(&db), text(&archive));
        format!("[databases.{name}]\ngroup = \"shop\"\ndb = \"{db}\"\narchive.url = \"file:{archive}\"\n")
    }

    pub fn write(&self, file: &str, content: &str) -> PathBuf {
        let path = self.path(file);
        fs::write(&path, content).expect("a configuration");
        path
    }

    pub fn open(&self) -> Vec<DB> {
        let mut options = Options::default();
        options.create_if_missing(true);
        SHARDS.iter().map(|shard| DB::open(&options, self.path(shard)).expect("a shard opens")).collect()
    }

    /// Every shard's archiver, in one process.
    pub fn run(&self) -> Service {
        let service = Service::start(&["run", "--config", text(&self.config)], None);
        for shard in SHARDS {
            self.wait_for(shard);
        }
        service
    }

    /// One shard's archiver, in a process of its own.
    pub fn run_one(&self, shard: &str, crash_at: Option<&str>) -> Service {
        let (db, archive) = (self.path(shard), format!("file:{}", text(&self.archive(shard))));
        let service = Service::start(
            &["run", "--db", text(&db), "--archive", &archive, "--interval", "50ms", "--poll", "5ms"],
            crash_at,
        );
        self.wait_for(shard);
        service
    }

    /// Until its archiver has a base and answers.
    fn wait_for(&self, shard: &str) {
        let start = Instant::now();
        let db = self.path(shard);
        loop {
            let status = finish(&mut pitr(["status", "--json", "--db", text(&db)]));
            let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
            if !status["archiver"]["last_base"].is_null()
                || command::bases(&format!("file:{}", text(&self.archive(shard)))) > 0 && status["archiver"].is_object()
            {
                return;
            }
            assert!(start.elapsed() < LIMIT, "{shard} has no archiver: {status}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `pitr ARGS --group shop --config FILE --json`.
    pub fn group(&self, args: &[&str]) -> std::process::Command {
        group_of(&self.config, args)
    }

    pub fn tag(&self, name: &str) -> Value {
        json(&mut self.group(&["tag", "create", name]))
    }

    /// The names of the tags of one shard.
    pub fn tags(&self, shard: &str) -> Vec<String> {
        let archive = format!("file:{}", text(&self.archive(shard)));
        let tags = json(&mut pitr(["tag", "list", "--json", "--archive", &archive]));
        let tags = tags["tags"].as_array().expect("tags").clone();
        tags.iter().filter_map(|tag| tag["name"].as_str().map(str::to_owned)).collect()
    }

    /// How many numbers each shard below `directory` holds.
    pub fn held(&self, directory: &Path) -> Vec<u64> {
        SHARDS.iter().map(|shard| held(&directory.join(shard))).collect()
    }
}

pub fn group_of(config: &Path, args: &[&str]) -> std::process::Command {
    let mut command = pitr(args.iter().copied());
    command.args(["--group", "shop", "--config", text(config), "--json"]);
    command
}

pub fn json(command: &mut std::process::Command) -> Value {
    serde_json::from_slice(&command::succeed(command).stdout).expect("JSON")
}

/// How it is refused.
pub fn refused(command: &mut std::process::Command) -> Value {
    let output = finish(command);
    assert!(!output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stdout));
    error(&output)
}

pub fn error(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().rfind(|line| line.contains("\"exit\"")).expect("an error");
    serde_json::from_str(last).expect("JSON")
}

/// Who is named with a reason, in their order.
pub fn named(error: &Value) -> Vec<String> {
    let details = error["details"].as_array().expect("details");
    let name = |detail: &Value| detail["name"].as_str().expect("a name").to_owned();
    details.iter().map(name).filter(|name| name.starts_with("shop-") || name.starts_with("shard")).collect()
}

/// The present time, as a target.
#[allow(clippy::disallowed_methods)] // the programs take the same
pub fn now() -> String {
    chrono::Utc::now().to_rfc3339()
}

pub fn was_killed(output: &Output) -> bool {
    output.status.signal() == Some(9)
}

fn key(number: u64) -> String {
    format!("{number:012}")
}

pub fn put(db: &DB, number: u64) {
    db.put(key(number), number.to_string()).expect("a write");
}

pub fn flush(db: &DB) {
    let mut at_once = FlushOptions::default();
    at_once.set_wait(true);
    db.flush_opt(&at_once).expect("a flush");
}

/// How many numbers a database holds; it must be the first ones, and nothing else.
pub fn held(db: &Path) -> u64 {
    let mut options = Options::default();
    options.set_wal_recovery_mode(DBRecoveryMode::AbsoluteConsistency);
    let db = DB::open_for_read_only(&options, db, false).unwrap_or_else(|e| panic!("{}: {e}", db.display()));
    let mut count = 0;
    for entry in db.iterator(IteratorMode::Start) {
        let (found, value) = entry.expect("a read");
        assert_eq!((&*found, &*value), (key(count).as_bytes(), count.to_string().as_bytes()), "number {count}");
        count += 1;
    }
    count
}

/// A process of ours, killed with its test.
pub struct Service(Option<Child>);

impl Service {
    fn start(args: &[&str], crash_at: Option<&str>) -> Self {
        let mut command = pitr(args.iter().copied());
        if let Some(point) = crash_at {
            command.env("PITR_CRASH_AT", point);
        }
        Self(Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")))
    }

    pub fn id(&self) -> u32 {
        self.0.as_ref().expect("it runs").id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        command::signal(self.0.as_ref().expect("it runs"), signal);
    }

    pub fn stop(mut self) {
        let mut child = self.0.take().expect("stopped once");
        command::terminate(&child);
        assert!(command::wait(&mut child).expect("its end").success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Writes number n to every shard before n + 1 to any.
pub struct Writer {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<Vec<DB>>>,
}

#[derive(Default)]
struct Counts {
    /// Numbers of which a write has begun.
    begun: AtomicU64,
    /// Numbers that all shards have acknowledged.
    acknowledged: AtomicU64,
    rest: AtomicBool,
    resting: AtomicBool,
    stop: AtomicBool,
}

impl Writer {
    pub fn start(dbs: Vec<DB>, first: u64) -> Self {
        let counts = Arc::new(Counts::default());
        counts.begun.store(first, Ordering::SeqCst);
        counts.acknowledged.store(first, Ordering::SeqCst);
        let thread = std::thread::spawn({
            let counts = counts.clone();
            move || {
                let mut number = first;
                while !counts.stop.load(Ordering::SeqCst) {
                    if counts.rest.load(Ordering::SeqCst) {
                        counts.resting.store(true, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                    counts.resting.store(false, Ordering::SeqCst);
                    counts.begun.store(number + 1, Ordering::SeqCst);
                    for db in &dbs {
                        put(db, number);
                    }
                    counts.acknowledged.store(number + 1, Ordering::SeqCst);
                    number += 1;
                    // Every shard gets a new log and a new file now and then.
                    if number.is_multiple_of(5_000) {
                        dbs.iter().for_each(flush);
                    }
                    std::thread::sleep(Duration::from_micros(100));
                }
                dbs
            }
        });
        Self { counts, thread: Some(thread) }
    }

    pub fn begun(&self) -> u64 {
        self.counts.begun.load(Ordering::SeqCst)
    }

    pub fn acknowledged(&self) -> u64 {
        self.counts.acknowledged.load(Ordering::SeqCst)
    }

    /// Stands still; how many numbers there are.
    pub fn rest(&self) -> u64 {
        self.counts.rest.store(true, Ordering::SeqCst);
        while !self.counts.resting.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.acknowledged()
    }

    pub fn go_on(&self) {
        self.counts.resting.store(false, Ordering::SeqCst);
        self.counts.rest.store(false, Ordering::SeqCst);
    }

    /// Ends; the databases, still open, and how many numbers they hold.
    pub fn stop(mut self) -> (Vec<DB>, u64) {
        self.counts.stop.store(true, Ordering::SeqCst);
        let dbs = self.thread.take().expect("stopped once").join().expect("the writer");
        (dbs, self.counts.acknowledged.load(Ordering::SeqCst))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
