//! The archiver is killed a hundred times under load and raced by another one; every restore stays exact.
//!
//! The database is not harmed by any of it, so the archive must not have a single barrier, and one run.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::{
    fs::File,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use harness::{
    archive_driver::local,
    command::{self, pitr, text, url},
    load::Load,
    program::Settings,
    scratch,
};
use pitr_archive::catalog::archive::Archive;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Not a test of its own: the process that other tests kill.
#[test]
fn database_process() {
    harness::server::serve_if_asked();
}

struct Site {
    root: tempfile::TempDir,
    load: Load,
    restores: usize,
    starts: usize,
}

impl Site {
    fn new(seed: u64) -> Self {
        let root = scratch::directory();
        // A log lives longer than the archiver is away between a kill and the next start: one that came and went in
        // that time would rightly be a barrier.
        let settings = Settings { write_buffer: 2 << 20, manifest_bytes: 8 << 10, ..Settings::default() };
        let load = Load::start(&root.path().join("db"), settings, seed, Duration::from_micros(400));
        Self { root, load, restores: 0, starts: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn archive(&self) -> String {
        url(&self.path("archive"))
    }

    /// `pitr run`, with its log kept beside.
    fn run(&mut self, state: &str, more: &[&str], crash: Option<&str>) -> Child {
        self.starts += 1;
        let log = File::create(self.path(&format!("log-{}", self.starts))).expect("a log");
        let (db, state, archive) = (self.load.dir.clone(), self.path(state), self.archive());
        let mut command = pitr(["run", "--db", text(&db), "--archive", &archive, "--state", text(&state)]);
        command.args(["--interval", "20ms", "--poll", "2ms", "--segment-size", "64KiB"]).args(more);
        if let Some(crash) = crash {
            command.env("PITR_CRASH_AT", crash);
        }
        command.stdout(Stdio::null()).stderr(log).spawn().expect("starting pitr run")
    }

    /// Waits until the archiver answers on its control socket, or is gone.
    fn wait_until_up(&self, archiver: &mut Child) {
        let socket = self.path("state").join("control.sock");
        let start = std::time::Instant::now();
        while archiver.try_wait().expect("waiting").is_none() && UnixStream::connect(&socket).is_err() {
            assert!(start.elapsed() < command::LIMIT, "the archiver does not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path(&format!("log-{}", self.starts))).unwrap_or_default()
    }

    /// Asks the running archiver for something; how that ends is not this test's business.
    fn ask(&self, args: &[&str]) -> Child {
        let (db, state) = (self.load.dir.clone(), self.path("state"));
        pitr(args.iter().copied())
            .args(["--db", text(&db), "--state", text(&state)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starting pitr")
    }

    /// Catches up and restores to a few records and to the latest.
    fn check(&mut self, rng: &mut StdRng) {
        let (db, state, archive) = (self.load.dir.clone(), self.path("state"), self.archive());
        let before = self.load.batches();
        command::succeed(&mut pitr([
            "run",
            "--once",
            "--db",
            text(&db),
            "--archive",
            &archive,
            "--state",
            text(&state),
        ]));
        let (end, floor) = self.extent();
        assert!(end >= before, "{before} batches were written, the archive ends after {end}");
        let targets: Vec<_> = (0..3).map(|_| rng.random_range(floor.max(1)..=end)).chain([end]).collect();
        for target in targets {
            self.restores += 1;
            let into = self.path(&format!("restored-{}", self.restores));
            let record = (target - 1).to_string();
            command::succeed(&mut pitr([
                "restore",
                "--to-record",
                &record,
                "--archive",
                &archive,
                "--into",
                text(&into),
            ]));
            // One writer writes one batch a record, and the archive has every record since the first.
            self.load.check_copy(&into, target);
            std::fs::remove_dir_all(&into).expect("removing the copy");
        }
    }

    /// Records archived, and the earliest floor; there may be no barrier and only one run.
    fn extent(&self) -> (usize, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let store = local(&self.path("archive"));
        runtime.block_on(async {
            let archive = Archive::open(store, None).await.unwrap_or_else(|e| panic!("{e}"));
            let catalog = archive.load_catalog().await.unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(catalog.timelines().count(), 1, "one timeline");
            let timeline = catalog.current_timeline().expect("a timeline");
            assert!(timeline.barriers().is_empty(), "a kill made a barrier: {:#?}", timeline.barriers());
            assert_eq!(timeline.runs().len(), 1, "a kill began another run");
            let floor = catalog.bases().iter().map(|b| b.floor.boundary).min().expect("a base");
            (as_index(timeline.end().get()), as_index(floor.get()))
        })
    }
}

fn as_index(n: u64) -> usize {
    usize::try_from(n).expect("a small archive")
}

fn exists(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

#[test]
fn a_hundred_kills_of_the_archiver_lose_nothing_and_make_no_barrier() {
    let seed = std::env::var("PITR_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    println!("PITR_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut site = Site::new(seed);
    // Timelines are opened once: `forks` and the simulation stop there.
    let all: Vec<_> = pitr_archiver::crash::POINTS.iter().filter(|point| !point.starts_with("timeline")).collect();
    let mut points = all.iter().copied().cycle();
    let (mut kills, mut reached) = (0, std::collections::BTreeMap::<&str, u32>::new());
    while kills < 100 {
        kills += 1;
        // Every fourth end is at a named place, the others anywhere.
        if kills % 4 == 0 {
            // Each of them once, then any.
            let point = all.iter().copied().find(|point| !reached.contains_key(*point));
            let (point, times) = match point {
                Some(point) => (point, 1),
                None => (points.next().expect("an endless list"), rng.random_range(1..3)),
            };
            let mut archiver = site.run("state", &[], Some(&format!("{point}:{times}")));
            let mut asked = Vec::new();
            site.wait_until_up(&mut archiver);
            std::thread::sleep(Duration::from_millis(100));
            // What a running archiver does only when asked.
            if point.starts_with("base") {
                asked.extend((0..2).map(|_| site.ask(&["base"])));
            } else if point.starts_with("tag") {
                asked.extend((0..2).map(|i| site.ask(&["tag", "create", &format!("tag-{kills}-{i}")])));
            }
            for mut asked in asked {
                assert!(command::wait(&mut asked).is_some(), "a request to a killed archiver hangs");
            }
            // A place that was not passed often enough: the orderly end passes the rest of them.
            command::terminate(&archiver);
            let status = command::wait(&mut archiver).expect("the archiver ends");
            if std::os::unix::process::ExitStatusExt::signal(&status) == Some(9) {
                *reached.entry(point).or_default() += 1;
            } else {
                assert!(status.success(), "{point}: {status}\n{}", site.log());
            }
        } else {
            let mut archiver = site.run("state", &[], None);
            std::thread::sleep(Duration::from_millis(rng.random_range(5..250)));
            if let Some(status) = archiver.try_wait().expect("waiting") {
                panic!("the archiver ended by itself: {status}\n{}", site.log());
            }
            archiver.kill().expect("killing the archiver");
            archiver.wait().expect("waiting for the archiver");
        }
        if kills % 10 == 0 {
            site.check(&mut rng);
        }
    }
    println!("{kills} kills, {} restores, {} batches; named places: {reached:?}", site.restores, site.load.batches());
    let never: Vec<_> = all.iter().filter(|point| !reached.contains_key(**point)).collect();
    assert!(never.is_empty(), "no kill happened at {never:?}");
    site.load.stop();
    site.check(&mut rng);
    // The archive is whole, by its own account too.
    let archive = site.archive();
    command::succeed(&mut pitr(["verify", "--archive", &archive]));
}

#[test]
fn of_two_archivers_racing_on_one_archive_exactly_one_survives() {
    let mut rng = StdRng::seed_from_u64(2);
    let mut site = Site::new(2);
    for round in 0..5 {
        let (a, b) = (format!("state-a-{round}"), format!("state-b-{round}"));
        let mut first = site.run(&a, &[], None);
        std::thread::sleep(Duration::from_millis(rng.random_range(0..300)));
        let mut second = site.run(&b, &[], None);
        // One of them meets the other's segment or claim as soon as both ship.
        let start = std::time::Instant::now();
        let (loser, survivor, name) = loop {
            if let Some(status) = first.try_wait().expect("waiting") {
                break (status, second, b);
            }
            if let Some(status) = second.try_wait().expect("waiting") {
                break (status, first, a);
            }
            assert!(start.elapsed() < command::LIMIT, "two archivers share one archive");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(loser.code(), Some(6), "the one that lost says so: {loser}\n{}", site.log());
        let mut survivor = survivor;
        std::thread::sleep(Duration::from_millis(500));
        assert!(survivor.try_wait().expect("waiting").is_none(), "the other one goes on");
        command::terminate(&survivor);
        let status = command::wait(&mut survivor).expect("the survivor ends");
        assert!(status.success(), "the survivor {name} ends in order: {status}\n{}", site.log());
        assert!(exists(&site.path("archive")), "an archive");
    }
    site.load.stop();
    // Whoever comes last with a state directory of its own finds everything or what is on disk; exactness is the claim.
    let (db, state, archive) = (site.load.dir.clone(), site.path("state"), site.archive());
    command::succeed(&mut pitr(["run", "--once", "--db", text(&db), "--archive", &archive, "--state", text(&state)]));
    let into = site.path("restored-latest");
    command::succeed(&mut pitr(["restore", "--to-latest", "--archive", &archive, "--into", text(&into)]));
    let batches = site.load.batches();
    site.load.check_copy(&into, batches);
}
