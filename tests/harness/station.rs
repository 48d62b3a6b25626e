//! One archiver of a soak: `pitr run --config` with an archive on a file system of its own, which is taken away and given back.
//!
//! Owns: its process, its log, what it tells of itself once a second (memory, lag, counters), and requests and restores that
//! run beside everything else. Refuses: to decide when something happens, and what a restored copy must hold.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use pitr_archive::catalog::archive::Archive;

use super::{
    archive_driver::local,
    command::{self, pitr, text, url},
    metrics::{Metrics, free_address},
    mount::{Access, Mount},
    scratch::bytes_below,
};

/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);
/// So long after an outage the archive may still be behind: attempts are spaced, up to half a minute.
pub const RECOVERY: Duration = Duration::from_secs(90);
/// What the counters are called that grow in every process.
const COUNTED: [&str; 5] = [
    "pitr_archived_records_total",
    "pitr_archived_bytes_total",
    "pitr_archived_object_bytes_total",
    "pitr_archived_segments_total",
    "pitr_bases_published_total",
];

/// What was seen of an archiver.
#[derive(Default)]
pub struct Seen {
    /// Resident bytes, and when.
    pub resident: Vec<(Instant, u64)>,
    /// The sums of [`COUNTED`] over all processes that ended.
    before: [f64; COUNTED.len()],
    /// Those of the present one.
    now: [f64; COUNTED.len()],
    /// Records that the archive has.
    pub acknowledged: u64,
    /// The greatest lag, and the greatest while the archive had not been away for a while.
    pub lag: f64,
    pub lag_when_well: f64,
}

impl Seen {
    /// Records, bytes, bytes of objects, segments, bases: what the processes together said to have archived.
    pub fn counted(&self) -> [u64; COUNTED.len()] {
        std::array::from_fn(|i| (self.before[i] + self.now[i]) as u64)
    }
}

/// Whether the archive can be written, and since when.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    There(Instant),
    Away,
}

/// A running archiver.
struct Running {
    child: Child,
    stop: Arc<AtomicBool>,
    looking: JoinHandle<()>,
}

/// An archiver and its archive.
pub struct Station {
    pub name: &'static str,
    root: PathBuf,
    db: PathBuf,
    disk: Mount,
    address: SocketAddr,
    running: Option<Running>,
    runs: usize,
    restores: usize,
    store: Arc<Mutex<Store>>,
    seen: Arc<Mutex<Seen>>,
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resident bytes of a process; `None` when it is gone.
pub fn resident(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

impl Station {
    /// Of the database `db`; `more` goes into its configuration. Its archive is on `disk`, all else below `root`.
    pub fn new(name: &'static str, root: &Path, db: &Path, disk: Mount, more: &str) -> Self {
        let (root, address) = (root.join(name), free_address());
        fs::create_dir(&root).expect("a directory");
        let station = Self {
            name,
            root,
            db: db.to_owned(),
            disk,
            address,
            running: None,
            runs: 0,
            restores: 0,
            store: Arc::new(Mutex::new(Store::There(Instant::now()))),
            seen: Arc::default(),
        };
        let (db, state, archive) = (text(&station.db), station.state(), station.archive());
        let configuration = format!(
            "http.listen = \"{address}\"\n{more}\n[databases.soak]\ndb = \"{db}\"\nstate = \"{}\"\narchive.url = \"{archive}\"\n",
            text(&state)
        );
        fs::write(station.config(), configuration).expect("a configuration");
        station
    }

    fn config(&self) -> PathBuf {
        self.root.join("pitr.toml")
    }

    /// Beside the database: on its file system.
    fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    fn place(&self) -> PathBuf {
        self.disk.path().join("archive")
    }

    /// The archive's URL.
    pub fn archive(&self) -> String {
        url(&self.place())
    }

    /// What was seen until now.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        locked(&self.seen)
    }

    /// Starts the archiver.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        self.runs += 1;
        let log = File::create(self.log_path(self.runs)).expect("a log");
        let child = pitr(["run", "--config", text(&self.config())])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starting pitr run");
        let stop = Arc::new(AtomicBool::new(false));
        let looking = std::thread::spawn({
            let (stop, seen, store) = (stop.clone(), self.seen.clone(), self.store.clone());
            let (id, address) = (child.id(), self.address);
            move || {
                while !stop.load(Ordering::SeqCst) {
                    look(id, address, &seen, &store);
                    std::thread::sleep(LOOK);
                }
                let mut seen = locked(&seen);
                let now = std::mem::take(&mut seen.now);
                seen.before.iter_mut().zip(now).for_each(|(before, now)| *before += now);
            }
        });
        self.running = Some(Running { child, stop, looking });
    }

    /// Whether an archiver is there. One that ended by itself is a failure.
    pub fn is_running(&mut self) -> bool {
        let Some(running) = &mut self.running else { return false };
        if let Some(status) = running.child.try_wait().expect("waiting") {
            panic!("{}: the archiver ended by itself: {status}\n{}", self.name, self.log());
        }
        true
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut running = self.running.take().expect("an archiver");
        running.child.kill().expect("killing the archiver");
        running.child.wait().expect("waiting for the archiver");
        running.stop.store(true, Ordering::SeqCst);
        running.looking.join().expect("whoever looks");
    }

    /// SIGTERM, and how it ends.
    pub fn stop(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("an archiver");
        command::terminate(&running.child);
        let status = command::wait(&mut running.child)
            .unwrap_or_else(|| panic!("{}: the archiver does not end:\n{}", self.name, self.log()));
        running.stop.store(true, Ordering::SeqCst);
        running.looking.join().expect("whoever looks");
        status
    }

    /// The archive cannot be written from now on.
    pub fn take_away(&mut self) {
        *locked(&self.store) = Store::Away;
        self.disk.remount(Access::ReadOnly);
    }

    /// It can be again.
    pub fn give_back(&mut self) {
        self.disk.remount(Access::ReadWrite);
        *locked(&self.store) = Store::There(Instant::now());
    }

    /// Whether the archive is there, and has been for a while.
    pub fn is_well(&self) -> bool {
        well(*locked(&self.store))
    }

    /// Asks the running archiver for something, beside everything else.
    pub fn ask(&self, args: &[&str]) -> Child {
        pitr(args.iter().copied())
            .args(["--db", text(&self.db), "--state", text(&self.state())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starting pitr")
    }

    /// Restores, beside everything else; into where, and what it says is in a file beside it.
    pub fn restore(&mut self, target: &[String]) -> (Child, PathBuf) {
        self.restores += 1;
        let into = self.root.join(format!("restored-{}", self.restores));
        let log = File::create(into.with_extension("log")).expect("a log");
        let child = pitr(["restore", "--archive", &self.archive(), "--into", text(&into)])
            .args(target)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starting pitr restore");
        (child, into)
    }

    /// `pitr VERB` on the archive alone, to its end.
    pub fn look_at_archive(&self, verb: &str) -> std::process::Output {
        command::finish(&mut pitr([verb, "--archive", &self.archive()]))
    }

    /// One timeline, one run, no barrier: whatever happened, nothing was lost, and nothing forked.
    pub fn assert_unbroken(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let archive = Archive::open(local(&self.place()), None).await.unwrap_or_else(|e| panic!("{e}"));
            let catalog = archive.load_catalog().await.unwrap_or_else(|e| panic!("{e}"));
            assert!(catalog.timelines().count() <= 1, "{}: the archive forked", self.name);
            for timeline in catalog.timelines() {
                assert!(timeline.barriers().is_empty(), "{}: barriers: {:#?}", self.name, timeline.barriers());
                assert!(timeline.withdrawn().is_empty(), "{}: withdrawn: {:#?}", self.name, timeline.withdrawn());
                assert!(timeline.runs().len() <= 1, "{}: another run began", self.name);
            }
        });
    }

    /// Every log: none may tell of a panic or of an archive that is not whole.
    pub fn assert_logs_are_clean(&self) {
        for run in 1..=self.runs {
            let log = fs::read_to_string(self.log_path(run)).unwrap_or_default();
            for bad in ["panicked", "is not whole"] {
                assert!(!log.contains(bad), "{}, run {run}: {bad}\n{log}", self.name);
            }
        }
    }

    fn log_path(&self, run: usize) -> PathBuf {
        self.root.join(format!("log-{run}"))
    }

    /// What the archiver that was started last said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path(self.runs)).unwrap_or_default()
    }

    /// Bytes below the archive.
    pub fn archive_bytes(&self) -> u64 {
        bytes_below(&self.place())
    }

    /// For somebody who looks for a cause: the archive is put beside the logs. Its file system goes with this value.
    pub fn keep_archive(&self) {
        let copied = std::process::Command::new("cp")
            .args(["-a", text(&self.place()), text(&self.root.join("archive"))])
            .status();
        eprintln!("{}: the archive is kept: {copied:?}", self.name);
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.stop.store(true, Ordering::SeqCst);
            let _ = running.child.kill();
            let _ = running.child.wait();
            let _ = running.looking.join();
        }
    }
}

fn well(store: Store) -> bool {
    matches!(store, Store::There(since) if since.elapsed() > RECOVERY)
}

fn look(id: u32, address: SocketAddr, seen: &Mutex<Seen>, store: &Mutex<Store>) {
    let well_before = well(*locked(store));
    let (resident, metrics) = (resident(id), Metrics::scrape(address));
    let mut seen = locked(seen);
    if let Some(bytes) = resident {
        seen.resident.push((Instant::now(), bytes));
    }
    let Some(metrics) = metrics else { return };
    seen.now = std::array::from_fn(|i| metrics.sum(COUNTED[i], "").unwrap_or(seen.now[i]));
    if let Some(record) = metrics.sum("pitr_acknowledged_record", "") {
        seen.acknowledged = seen.acknowledged.max(record as u64);
    }
    if let Some(lag) = metrics.sum("pitr_lag_seconds", "") {
        seen.lag = seen.lag.max(lag);
        if well_before {
            seen.lag_when_well = seen.lag_when_well.max(lag);
        }
    }
}
