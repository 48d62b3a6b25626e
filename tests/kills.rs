//! The archiver is killed a hundred times under load, at random instants and at every named effect, and raced by another
//! one; after each kill it is started again, and what is restored is exact.
//!
//! The database is not harmed by any of it, so the archive must not have a single barrier, and one run. `PITR_KILLS`
//! changes the number (`make soak`: 1,000), `PITR_SEED` the run. A new name in `crash::POINTS` fails the test until
//! something here reaches it: see [`Way`].

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
use pitr_archive::{Code, catalog::archive::Archive};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Not a test of its own: the process that other tests kill.
#[test]
fn database_process() {
    harness::server::serve_if_asked();
}

/// Between two batches.
const PACE: Duration = Duration::from_micros(400);
/// While nothing is archived.
const REST: Duration = Duration::from_millis(10);

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
        let load = Load::start(&root.path().join("db"), settings, seed, PACE);
        Self { root, load, restores: 0, starts: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn archive(&self) -> String {
        url(&self.path("archive"))
    }

    /// `pitr run` as on another machine, which knows nothing of what runs on this one: all that they share is the archive.
    fn run_elsewhere(&mut self, state: &str) -> Child {
        let mut command = command::elsewhere(self.command(state));
        let log = File::create(self.path(&format!("log-{}", self.starts))).expect("a log");
        command.stdout(Stdio::null()).stderr(log).spawn().expect("starting pitr run elsewhere")
    }

    fn command(&mut self, state: &str) -> std::process::Command {
        self.starts += 1;
        let (db, state, archive) = (self.load.dir.clone(), self.path(state), self.archive());
        let mut command = pitr(["run", "--db", text(&db), "--archive", &archive, "--state", text(&state)]);
        command.args(["--interval", "20ms", "--poll", "2ms", "--segment-size", "64KiB"]);
        command
    }

    /// `pitr run`, with its log kept beside.
    fn run(&mut self, state: &str, more: &[&str], crash: Option<&str>) -> Child {
        let mut command = self.command(state);
        let log = File::create(self.path(&format!("log-{}", self.starts))).expect("a log");
        command.args(more);
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

    /// Brings the archive up to date with a process of its own.
    fn catch_up(&mut self) {
        let (db, state, archive) = (self.load.dir.clone(), self.path("state"), self.archive());
        let before = self.load.batches();
        let (db, state) = (text(&db), text(&state));
        command::succeed(&mut pitr(["run", "--once", "--db", db, "--archive", &archive, "--state", state]));
        let end = self.extent().map_or(0, |(end, _)| end);
        assert!(end >= before, "{before} batches were written, the archive ends after {end}");
    }

    /// Restores to `targets` records, the last that the archive has among them, and compares. Answers whether it could:
    /// before the first base there is nothing to restore.
    fn check(&mut self, targets: usize, rng: &mut StdRng) -> bool {
        // No archiver runs meanwhile. On a machine with much to do this takes seconds, in which a log must not come and go.
        self.load.pace(REST);
        let could = self.restores_are_exact(targets, rng);
        self.load.pace(PACE);
        could
    }

    fn restores_are_exact(&mut self, targets: usize, rng: &mut StdRng) -> bool {
        let Some((end, Some(floor))) = self.extent() else { return false };
        if floor.max(1) > end {
            return false;
        }
        let archive = self.archive();
        let random = (1..targets).map(|_| rng.random_range(floor.max(1)..=end));
        for target in random.chain([end]).collect::<Vec<_>>() {
            self.restores += 1;
            let into = self.path(&format!("restored-{}", self.restores));
            let (record, copy) = ((target - 1).to_string(), text(&into));
            command::succeed(&mut pitr(["restore", "--to-record", &record, "--archive", &archive, "--into", copy]));
            // One writer writes one batch a record, and the archive has every record since the first.
            self.load.check_copy(&into, target);
            std::fs::remove_dir_all(&into).expect("removing the copy");
        }
        true
    }

    /// Records archived, and the earliest floor, if there is a base; there may be no barrier and only one run. `None` before
    /// there is an archive with a timeline.
    fn extent(&self) -> Option<(usize, Option<usize>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let store = local(&self.path("archive"));
        runtime.block_on(async {
            let archive = match Archive::open(store, None).await {
                Err(e) if e.code() == Code::NotAnArchive => return None,
                opened => opened.unwrap_or_else(|e| panic!("{e}")),
            };
            let catalog = archive.load_catalog().await.unwrap_or_else(|e| panic!("{e}"));
            assert!(catalog.timelines().count() <= 1, "one timeline");
            let timeline = catalog.current_timeline()?;
            assert!(timeline.barriers().is_empty(), "a kill made a barrier: {:#?}", timeline.barriers());
            assert!(timeline.runs().len() <= 1, "a kill began another run");
            let floor = catalog.bases().iter().map(|b| b.floor.boundary).min();
            Some((as_index(timeline.end().get()), floor.map(|floor| as_index(floor.get()))))
        })
    }
}

/// So often in a row a named place may not be passed.
const ATTEMPTS: u32 = 8;

/// How a named place is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Every archiver that runs for a while comes there by itself.
    Run,
    /// The one that begins the archive.
    First,
    /// One without a state directory.
    NewState,
    /// One that is asked for a base.
    Base,
    /// One that is asked for a tag.
    Tag,
}

impl Way {
    fn to(point: &str) -> Self {
        match point.split('-').next() {
            Some("timeline") => Self::First,
            Some("state") => Self::NewState,
            Some("base") => Self::Base,
            Some("tag") => Self::Tag,
            _ => Self::Run,
        }
    }
}

fn as_index(n: u64) -> usize {
    usize::try_from(n).expect("a small archive")
}

fn exists(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

/// Starts an archiver that dies when it reaches `point` for the `times`-th time; whether it did.
fn kill_at(site: &mut Site, point: &'static str, times: u32) -> bool {
    let way = Way::to(point);
    let state = if way == Way::NewState { format!("state-{}", site.starts) } else { "state".to_owned() };
    let mut archiver = site.run(&state, &[], Some(&format!("{point}:{times}")));
    let mut asked = Vec::new();
    if way != Way::NewState {
        site.wait_until_up(&mut archiver);
        std::thread::sleep(Duration::from_millis(100));
        match way {
            Way::Base => asked.extend((0..2).map(|_| site.ask(&["base"]))),
            Way::Tag => asked.extend((0..2).map(|i| site.ask(&["tag", "create", &format!("tag-{}-{i}", site.starts)]))),
            Way::Run | Way::First | Way::NewState => {}
        }
        for mut asked in asked {
            assert!(command::wait(&mut asked).is_some(), "a request to a killed archiver hangs");
        }
        // A place that was not passed often enough: the orderly end passes the rest of them.
        command::terminate(&archiver);
    }
    let status = command::wait(&mut archiver).expect("the archiver ends");
    let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    assert!(killed || status.success(), "{point}: {status}\n{}", site.log());
    killed
}

#[test]
fn a_hundred_kills_of_the_archiver_lose_nothing_and_make_no_barrier() {
    let number =
        |name: &str| std::env::var(name).ok().map(|s| s.parse::<u64>().unwrap_or_else(|e| panic!("{name}: {e}")));
    let seed = number("PITR_SEED").unwrap_or(1);
    let wanted = number("PITR_KILLS").unwrap_or(100);
    println!("PITR_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut site = Site::new(seed);
    let all = pitr_archiver::crash::POINTS;
    // Those that the first archiver of an archive passes come first, then each of the others, then any.
    let (first, others): (Vec<_>, Vec<_>) = all.iter().copied().partition(|point| Way::to(point) == Way::First);
    let mut points = first.into_iter().chain(others.clone()).chain(others.iter().copied().cycle());
    let mut point = points.next().expect("an endless list");
    let mut tried = 0;
    let (mut kills, mut reached) = (0, std::collections::BTreeMap::<&str, u32>::new());
    let (mut at_names, mut compared) = (0, 0_u64);
    while kills < wanted {
        // Every third end is at a named place, the others anywhere. The archive begins with those at its beginning.
        if kills < 2 || kills % 3 == 0 {
            at_names += 1;
            tried += 1;
            assert!(at_names < 20 * all.len() as u64 + wanted, "no kill happens any more: {reached:?}");
            let once = Way::to(point) == Way::NewState || point.starts_with("epoch");
            let often = reached.contains_key(point) && !once;
            let times = if often { rng.random_range(1..3) } else { 1 };
            if kill_at(&mut site, point, times) {
                *reached.entry(point).or_default() += 1;
                kills += 1;
                tried = 0;
            }
            // A base that has no new file sends none: later one will.
            if tried == 0 || tried == ATTEMPTS {
                point = points.next().expect("an endless list");
                tried = 0;
            }
        } else {
            let mut archiver = site.run("state", &[], None);
            std::thread::sleep(Duration::from_millis(rng.random_range(5..250)));
            if let Some(status) = archiver.try_wait().expect("waiting") {
                panic!("the archiver ended by itself: {status}\n{}", site.log());
            }
            archiver.kill().expect("killing the archiver");
            archiver.wait().expect("waiting for the archiver");
            kills += 1;
        }
        // What the kill left is exact, and so is what the next process makes of it: that one is killed, too, or catches up.
        compared += u64::from(site.check(1, &mut rng));
        // What the first archiver of an archive passes, nobody passes after it.
        if kills >= 2 && rng.random_ratio(1, 3) {
            site.catch_up();
            assert!(site.check(2, &mut rng), "an archive that has caught up can be restored");
        }
    }
    println!(
        "{kills} kills, {compared} compared at once, {} restores, {} batches; named places: {reached:?}",
        site.restores,
        site.load.batches()
    );
    let never: Vec<_> = all.iter().filter(|point| !reached.contains_key(**point)).collect();
    assert!(never.is_empty(), "no kill happened at {never:?}");
    site.load.stop();
    site.catch_up();
    site.check(4, &mut rng);
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
        let mut second = site.run_elsewhere(&b);
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
