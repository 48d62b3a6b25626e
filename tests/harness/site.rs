//! `pitr run` beside a database that dies, and what must be true of the archive whenever both are gone.
//!
//! Owns: the archiver's process and its log, what it said to be acknowledged (asked over its control socket while it
//! runs), and the comparison: what was acknowledged is in the archive under the same hash, the end of the archive is the
//! database as it is now, every other target is exact or refused, and the archive is sound by its own account.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use pitr_archive::{
    catalog::{archive::Archive, schema::Position},
    code::Exit,
};
use pitr_archiver::control::{self, Answer, Request};
use rand::{Rng, rngs::StdRng};

use super::{
    archive_driver::local,
    command::{self, pitr, text, url},
    history::Histories,
};

/// The archiver of one database.
pub struct Site {
    /// Logs and restored copies.
    root: PathBuf,
    pub db: PathBuf,
    pub state: PathBuf,
    pub archive: PathBuf,
    /// For every `pitr run`.
    pub options: Vec<String>,
    runs: usize,
    restores: usize,
    acknowledged: Arc<Mutex<Vec<Position>>>,
    tags: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
}

/// A running archiver, and the thread that asks it what is acknowledged.
pub struct Running {
    pub child: Child,
    stop: Arc<AtomicBool>,
    asking: Option<JoinHandle<()>>,
}

impl Running {
    /// SIGKILL.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("the archiver ends");
    }

    /// SIGTERM, and how it ends.
    pub fn stop(mut self) -> ExitStatus {
        command::terminate(&self.child);
        command::wait(&mut self.child).expect("the archiver ends")
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("waiting").is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(asking) = self.asking.take() {
            let _ = asking.join();
        }
    }
}

impl Site {
    /// `root` is for what must survive; the others can be anywhere.
    pub fn new(root: &Path, db: &Path, archive: &Path) -> Self {
        let mut state = db.as_os_str().to_owned();
        state.push(".pitr");
        Self {
            root: root.to_owned(),
            db: db.to_owned(),
            state: state.into(),
            archive: archive.to_owned(),
            options: ["--interval", "20ms", "--poll", "2ms", "--segment-size", "64KiB"].map(str::to_owned).into(),
            runs: 0,
            restores: 0,
            acknowledged: Arc::default(),
            tags: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// `pitr VERB` for this site.
    pub fn pitr(&self, verb: &str, args: &[&str]) -> std::process::Command {
        let mut command = pitr(std::iter::once(verb).chain(args.iter().copied()));
        command.args(["--db", text(&self.db), "--archive", &url(&self.archive), "--state", text(&self.state)]);
        command
    }

    /// Starts `pitr run`.
    pub fn start(&mut self) -> Running {
        let command = self.run();
        self.start_with(command)
    }

    /// The `pitr run` that [`Site::start`] starts.
    pub fn run(&self) -> std::process::Command {
        let mut command = self.pitr("run", &[]);
        command.args(&self.options);
        command
    }

    /// Starts what [`Site::run`] made, or something that runs it.
    pub fn start_with(&mut self, mut command: std::process::Command) -> Running {
        self.runs += 1;
        // Through a pipe: the archiver's own limits on files are none of its log's.
        let mut log = File::create(self.log_path()).expect("a log");
        let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starting pitr run");
        let mut said = child.stderr.take().expect("a pipe");
        std::thread::spawn(move || std::io::copy(&mut said, &mut log));
        let stop = Arc::new(AtomicBool::new(false));
        let asking = std::thread::spawn({
            let (stop, state, acknowledged) = (stop.clone(), self.state.clone(), self.acknowledged.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                while !stop.load(Ordering::SeqCst) {
                    let asked = control::ask(&state, &Request::Status);
                    let asked = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1), asked).await });
                    if let Ok(Ok(Some(Answer::Status(status)))) = asked
                        && status.last_acknowledged.is_some()
                    {
                        let mut acknowledged = acknowledged.lock().expect("no panic while it is held");
                        if acknowledged.last() != Some(&status.acknowledged) {
                            acknowledged.push(status.acknowledged);
                        }
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Running { child, stop, asking: Some(asking) }
    }

    fn log_path(&self) -> PathBuf {
        self.root.join(format!("log-{}", self.runs))
    }

    /// What the archiver that was started last said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The end of what an archiver said to be acknowledged.
    pub fn last_acknowledged(&self) -> Option<Position> {
        self.acknowledged.lock().expect("no panic while it is held").last().copied()
    }

    /// The power is about to be cut under the archive: what is said to be acknowledged from here on, nobody can have heard.
    pub fn power_goes(&self) -> usize {
        self.acknowledged.lock().expect("no panic while it is held").len()
    }

    /// Forgets what was said after the first `heard`. The archiver must be gone.
    pub fn heard(&self, heard: usize) {
        self.acknowledged.lock().expect("no panic while it is held").truncate(heard);
    }

    /// Waits until more is acknowledged than was at the call. The archiver must not end meanwhile.
    pub fn progress(&self, running: &mut Running) {
        let before = self.acknowledged.lock().expect("no panic while it is held").len();
        let start = Instant::now();
        while self.acknowledged.lock().expect("no panic while it is held").len() < before + 2 {
            assert!(running.is_running(), "the archiver ended:\n{}", self.log());
            assert!(start.elapsed() < command::LIMIT, "nothing is acknowledged:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets it run for a while; it may not end by itself.
    pub fn wait_a_while(&self, running: &mut Running, time: Duration) {
        std::thread::sleep(time);
        assert!(running.is_running(), "the archiver ended:\n{}", self.log());
    }

    /// Waits until the archiver's log has this.
    pub fn says(&self, what: &str) {
        let start = Instant::now();
        while !self.log().contains(what) {
            assert!(start.elapsed() < command::LIMIT, "the archiver never says {what:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks the running archiver for a tag. What it says to be done is.
    pub fn tag(&mut self, name: &str) {
        let mut command = pitr(["tag", "create", name]);
        command.args(["--db", text(&self.db), "--state", text(&self.state)]);
        if command::finish(&mut command).status.success() {
            self.tags.push(name.to_owned());
        }
    }

    /// Catches up with a database that stands still.
    pub fn catch_up(&mut self) {
        let mut command = self.pitr("run", &["--once"]);
        command::succeed(&mut command);
    }

    /// What was said to be acknowledged is in the archive, under the same hash.
    pub fn confirm(&mut self) {
        let positions = self.acknowledged.lock().expect("no panic while it is held").clone();
        // One that began and acknowledged nothing has no archive to be asked.
        if positions.is_empty() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let archive = Archive::open(local(&self.archive), None).await.unwrap_or_else(|e| panic!("{e}"));
            let catalog = archive.load_catalog().await.unwrap_or_else(|e| panic!("{e}"));
            for position in positions.iter().rev().take(20) {
                let timeline = catalog.timeline(position.timeline).expect("the timeline of what was acknowledged");
                archive
                    .confirm_position(timeline, position)
                    .await
                    .unwrap_or_else(|e| panic!("{position:?} was said to be acknowledged: {e}"));
            }
        });
        *self.counts.entry("positions confirmed").or_default() += positions.len().min(20) as u64;
    }

    /// Restores, if that is not refused, and compares; answers the batches that the copy holds.
    fn restore(&mut self, histories: &Histories, target: &[&str]) -> Option<u64> {
        self.restores += 1;
        let into = self.root.join(format!("restored-{}", self.restores));
        let archive = url(&self.archive);
        let args = ["restore", "--archive", &archive, "--into", text(&into)];
        let output = command::finish(&mut pitr(args.into_iter().chain(target.iter().copied())));
        let status = output.status.code();
        if status == Some(i32::from(Exit::Target.status())) {
            self.count("refused");
            return None;
        }
        assert_eq!(status, Some(0), "{target:?}: {}", String::from_utf8_lossy(&output.stderr));
        let (batches, _) = histories.check(&into);
        fs::remove_dir_all(&into).expect("removing the copy");
        self.count("exact");
        Some(batches)
    }

    /// The database holds `batches` and stands still, and the archiver has caught up with it.
    pub fn check(&mut self, histories: &Histories, batches: u64, targets: usize, rng: &mut StdRng) {
        self.confirm();
        let latest = self.restore(histories, &["--to-latest"]);
        assert_eq!(latest, Some(batches), "the end of the archive is the database as it is");
        for tag in self.tags.clone() {
            if rng.random_bool(0.3) {
                self.restore(histories, &["--to-tag", &tag]);
            }
        }
        let extents = self.extents();
        for _ in 0..targets {
            let (timeline, start, end, unbroken) = extents[rng.random_range(0..extents.len())].clone();
            if start == end {
                continue;
            }
            let record = rng.random_range(start..end);
            let target = ["--to-record", &record.to_string(), "--timeline", &timeline.to_string()];
            let restored = self.restore(histories, &target);
            // One batch is one record, and where nothing is missing they are numbered alike, but for the empty batch that
            // RocksDB writes when it opens a log with a torn end. (A timeline that forked off begins with the whole of the
            // first log that it needs: records that it shares with its parent have other numbers there.)
            if let Some(restored) = restored
                && unbroken
                && extents.len() == 1
            {
                let expected = (record + 1).saturating_sub(histories.lives())..=record + 1;
                assert!(expected.contains(&restored), "record {record} of {extents:?} has {restored} batches");
            }
        }
        let archive = url(&self.archive);
        let verified = command::finish(&mut pitr(["verify", "--archive", &archive]));
        let damaged = !verified.status.success() && extents.iter().all(|(.., unbroken)| *unbroken);
        assert!(!damaged, "{}{}", String::from_utf8_lossy(&verified.stdout), String::from_utf8_lossy(&verified.stderr));
    }

    /// Every timeline with its first and one more than its last record, and whether nothing is missing or was taken back.
    pub fn extents(&mut self) -> Vec<(String, u64, u64, bool)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let extents: Vec<_> = runtime.block_on(async {
            let archive = Archive::open(local(&self.archive), None).await.unwrap_or_else(|e| panic!("{e}"));
            let catalog = archive.load_catalog().await.unwrap_or_else(|e| panic!("{e}"));
            let whole = catalog.timelines().all(|t| t.barriers().is_empty() && t.withdrawn().is_empty());
            let extent = |t: &pitr_archive::catalog::model::Timeline| {
                (t.id().to_string(), t.start().get(), t.end().get(), whole)
            };
            catalog.timelines().map(extent).collect()
        });
        self.counts.insert("timelines", extents.len() as u64);
        extents
    }
}
