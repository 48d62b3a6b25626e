//! A database, its archive, and the program between them, as the fork tests use it.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rocksdb::{DB, IteratorMode, Options};
use serde_json::Value;

use crate::harness::{
    command::{pitr, signal, succeed, terminate, text, url, wait},
    scratch,
};

pub fn open(dir: &Path) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    DB::open(&options, dir).unwrap()
}

/// A database, its archive, and what was written to each branch.
pub struct Site {
    root: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Self {
        Self { root: scratch::directory() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn db(&self) -> PathBuf {
        self.path("db")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = pitr(args.iter().copied());
        command.args(["--archive", &url(&self.path("archive"))]);
        command
    }

    pub fn catch_up_as(&self, state: &str, crash: Option<&str>) -> Command {
        let mut command =
            self.command(&["run", "--once", "--db", text(&self.db()), "--state", text(&self.path(state))]);
        if let Some(crash) = crash {
            command.env("PITR_CRASH_AT", crash);
        }
        command
    }

    pub fn catch_up(&self) {
        succeed(&mut self.catch_up_as("state", None));
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let output = succeed(self.command(args).arg("--json"));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Each timeline's number, and its parent's with the number of records before the fork.
    pub fn timelines(&self) -> Vec<(u64, Option<(u64, u64)>)> {
        let listed = self.json(&["list", "timelines"]);
        let parent = |t: &Value| Some((t["parent"]["timeline"].as_u64()?, t["parent"]["boundary"].as_u64()?));
        listed["timelines"].as_array().unwrap().iter().map(|t| (t["timeline"].as_u64().unwrap(), parent(t))).collect()
    }

    pub fn barriers(&self) -> Vec<String> {
        let listed = self.json(&["list", "barriers"]);
        listed["barriers"].as_array().unwrap().iter().map(|b| b["reason"].as_str().unwrap().to_owned()).collect()
    }

    /// The number of archived records on a timeline, its parents' included.
    pub fn head(&self, timeline: u64) -> u64 {
        let listed = self.json(&["list", "timelines"]);
        let all = listed["timelines"].as_array().unwrap();
        all.iter().find(|t| t["timeline"] == timeline).unwrap()["head"].as_u64().unwrap()
    }

    /// Restores and answers the keys, which name the records.
    pub fn restore(&self, target: &[&str]) -> Vec<String> {
        let copy = self.path("copy");
        let _ = fs::remove_dir_all(&copy);
        succeed(self.command(&["restore", "--into", text(&copy)]).args(target));
        keys(&open(&copy))
    }

    /// Restores and answers everything.
    pub fn restore_all(&self, target: &[&str]) -> Vec<(String, String)> {
        let copy = self.path("copy");
        let _ = fs::remove_dir_all(&copy);
        succeed(self.command(&["restore", "--into", text(&copy)]).args(target));
        content(&open(&copy))
    }

    /// The same, if it can be restored by now.
    pub fn restore_quietly(&self, target: &[&str]) -> Option<Vec<String>> {
        let copy = self.path("copy");
        let _ = fs::remove_dir_all(&copy);
        let done = self.command(&["restore", "--into", text(&copy)]).args(target).output().unwrap();
        done.status.success().then(|| keys(&open(&copy)))
    }

    /// The archive's objects below a prefix.
    pub fn objects(&self, below: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![self.path("archive").join(below)];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { directories.push(path) } else { found.push(path) }
            }
        }
        found
    }

    pub fn restore_into_place(&self, target: &[&str], keep: &str) {
        let copy = self.path("restored");
        succeed(self.command(&["restore", "--into", text(&copy)]).args(target));
        self.swap(&copy, keep);
    }

    /// Puts a directory in the database's place; what was there is kept.
    pub fn swap(&self, with: &Path, keep: &str) {
        fs::rename(self.db(), self.path(keep)).unwrap();
        fs::rename(with, self.db()).unwrap();
    }

    pub fn verify(&self) {
        succeed(&mut self.command(&["verify"]));
    }
}

pub fn keys(db: &DB) -> Vec<String> {
    db.iterator(IteratorMode::Start).map(|pair| String::from_utf8(pair.unwrap().0.to_vec()).unwrap()).collect()
}

pub fn content(db: &DB) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let pairs = db.iterator(IteratorMode::Start).map(|pair| pair.unwrap());
    pairs.map(|(key, value)| (text(&key), text(&value))).collect()
}

/// Writes records named by the branch and their number.
pub fn write(db: &DB, branch: char, numbers: std::ops::Range<usize>) -> Vec<String> {
    let names: Vec<_> = numbers.map(|n| format!("{n:04}{branch}")).collect();
    for name in &names {
        db.put(name, "value").unwrap();
    }
    names
}

pub fn newest_wal(dir: &Path) -> PathBuf {
    let logs =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|x| x == "log"));
    logs.max().unwrap()
}

pub fn cut(file: &Path, to: u64) {
    OpenOptions::new().write(true).open(file).unwrap().set_len(to).unwrap();
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Of a test that failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An archiver that runs beside the database.
pub struct Running<'a> {
    site: &'a Site,
    process: Child,
}

impl Site {
    /// Starts one; `db` is how the database is named to it.
    pub fn start(&self, db: &Path) -> Running<'_> {
        let mut command = self.command(&["run", "--db", text(db), "--state", text(&self.path("state"))]);
        command.args(["--interval", "20ms", "--poll", "5ms"]).stdout(Stdio::null());
        let log = fs::File::create(self.path("log")).unwrap();
        Running { site: self, process: command.stderr(log).spawn().unwrap() }
    }
}

impl Running<'_> {
    pub fn log(&self) -> String {
        fs::read_to_string(self.site.path("log")).unwrap()
    }

    /// It stands still until it is told to go on.
    pub fn pause(&self) {
        signal(&self.process, rustix::process::Signal::STOP);
    }

    pub fn go_on(&self) {
        signal(&self.process, rustix::process::Signal::CONT);
    }

    /// Waits for something to become true.
    pub fn until(&self, what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(60), "{what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the newest timeline has `records` records and a base that serves its end.
    pub fn until_archived(&self, timeline: u64, records: u64) {
        self.until("its records", || self.site.head(timeline) >= records);
        let latest = || self.site.command(&["plan", "--to-latest"]).output().unwrap().status.success();
        self.until("its base", latest);
    }

    /// Ends it; it must not have ended before.
    pub fn stop(mut self) {
        std::thread::sleep(Duration::from_millis(300));
        assert!(self.process.try_wait().unwrap().is_none(), "it goes on: {}", self.log());
        terminate(&self.process);
        assert!(wait(&mut self.process).unwrap().success(), "{}", self.log());
    }
}
