//! An hour of everything at once: a database under load that is closed, killed and opened again; beside it two archivers,
//! one that is killed and restarted again and again, and one that is left alone for the whole time. The archive of each
//! goes away at random, for seconds to two minutes. Bases come on request and by the clock, tags are made and expire, the
//! archives are verified and pruned by the clock.
//!
//! What must hold: no barrier, one run, whatever happened; a sample of tags, positions and times, during the run and at the
//! end, restores to exactly what was written; the memory of the archiver that is left alone stays flat. Nothing is asserted
//! about time.
//!
//! Runs for `PITR_SOAK_MINUTES` (`make soak`: 60), and not without; `PITR_SEED` changes what happens. Needs root, for file
//! systems that are taken away. When it fails, everything that was there is kept.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

use harness::{
    history::{self, Histories, Writer},
    mount::Mount,
    program::Settings,
    sample::{Drawn, Expected, Sample},
    scratch,
    services::say_skipped,
    station::{Station, resident},
};
use pitr_archive::code::Exit;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Not a test of its own: the process that has the database.
#[test]
fn database_process() {
    history::write_if_asked();
}

const MIB: u64 = 1 << 20;
/// How far the memory of an archiver may grow: the median of the last quarter of the time above that of the second.
const GROWTH: u64 = 8 * MIB;
const PAUSE_BETWEEN_BATCHES: Duration = Duration::from_millis(2);
const ARCHIVE_ROOM: u64 = 4 << 30;
/// Requests and restores that take longer hang. (A tag waits for as long as an outage lasts.)
const PATIENCE: Duration = Duration::from_secs(400);
/// Between the end of an archiver and the next start: shorter than a log lives.
const AWAY: Duration = Duration::from_secs(2);
/// Restores at the same time.
const RESTORES: usize = 2;
/// Targets of each archive that are compared at the end.
const AT_THE_END: usize = 20;
/// Tags that expire, do after so long.
const EXPIRY: Duration = Duration::from_secs(240);
/// Which of the stations is killed and restarted; the other is left alone.
const DISTURBED: usize = 0;
const ALONE: usize = 1;

/// What happens now and then, and how many seconds lie between two of a kind, on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Kill,
    Restart,
    Outage(usize),
    ReopenDatabase,
    Tag,
    Base,
    Restore,
}

const EVENTS: [(Event, f64); 8] = [
    (Event::Kill, 50.0),
    (Event::Restart, 70.0),
    (Event::Outage(DISTURBED), 110.0),
    (Event::Outage(ALONE), 110.0),
    (Event::ReopenDatabase, 60.0),
    (Event::Tag, 6.0),
    (Event::Base, 90.0),
    (Event::Restore, 15.0),
];

/// A request under way.
struct Asked {
    child: Child,
    since: Instant,
    station: usize,
    /// A tag's name, its expiry, and the batches that were written before.
    tag: Option<(String, Option<Instant>, u64)>,
}

/// A restore under way.
struct Restoring {
    child: Child,
    since: Instant,
    station: usize,
    into: PathBuf,
    drawn: Drawn,
}

struct Soak {
    rng: StdRng,
    began: Instant,
    length: Duration,
    sample: Sample,
    histories: Histories,
    writer: Writer,
    stations: [Station; 2],
    /// When what was taken away comes back.
    outages: [Option<Instant>; 2],
    /// When the archiver that was ended begins again, and since when it runs.
    returns: Option<Instant>,
    up_since: Instant,
    /// When the database was opened last. Only an archiver that is there and looks knows that no log was between: another
    /// one finds numbers of files that RocksDB has left out, and makes a barrier.
    opened: Instant,
    named: usize,
    asked: Vec<Asked>,
    restoring: Vec<Restoring>,
    next: BTreeMap<Event, Instant>,
    counts: BTreeMap<&'static str, u64>,
}

fn settings() -> Settings {
    // The MANIFEST changes now and then, and a log lives for half a minute.
    Settings { write_buffer: 4 << 20, manifest_bytes: 32 << 10, ..Settings::default() }
}

impl Soak {
    fn begin(root: &Path, disks: [Mount; 2], seed: u64, length: Duration) -> Self {
        let db = root.join("db");
        let window = (length / 4).clamp(Duration::from_secs(60), Duration::from_secs(900));
        let more = format!(
            "[tuning]\ninterval = \"250ms\"\nsegment_size = \"256KiB\"\nmanifest_interval = \"20s\"\nheartbeat = \"5s\"\n\
             [schedule]\nbase = \"*/3 * * * *\"\nverify = \"*/7 * * * *\"\nprune = \"*/2 * * * *\"\n\
             [retention]\nwindow = \"{}s\"\nlast = 2\nhourly = 0\ndaily = 0\nweekly = 0\nmonthly = 0\nyearly = 0\n\
             keep_at_least = \"0s\"\ngrace = \"10m\"\n",
            window.as_secs()
        );
        let mut histories = Histories::varied(&db, settings(), PAUSE_BETWEEN_BATCHES);
        let (mut writer, _) = histories.open("database_process");
        let mut disks = disks.into_iter();
        let mut stations = ["disturbed", "alone"].map(|name| {
            let disk = disks.next().expect("two disks");
            Station::new(name, root, &db, disk, &more)
        });
        stations.iter_mut().for_each(Station::start);
        writer.go();
        let now = Instant::now();
        let mut soak = Self {
            rng: StdRng::seed_from_u64(seed),
            began: now,
            length,
            sample: Sample::new(window),
            histories,
            writer,
            stations,
            outages: [None; 2],
            returns: None,
            up_since: now,
            opened: now,
            named: 0,
            asked: Vec::new(),
            restoring: Vec::new(),
            next: BTreeMap::new(),
            counts: BTreeMap::new(),
        };
        for (event, _) in EVENTS {
            soak.plan(event);
        }
        soak
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// When the event comes again.
    fn plan(&mut self, event: Event) {
        let mean = EVENTS.iter().find(|(e, _)| *e == event).expect("a known event").1;
        let seconds = -mean * (1.0 - self.rng.random::<f64>()).ln();
        self.next.insert(event, Instant::now() + Duration::from_secs_f64(seconds.clamp(0.05, mean * 4.0)));
    }

    fn run(&mut self) {
        let mut told = Instant::now();
        while self.began.elapsed() < self.length {
            self.turn();
            let due: Vec<_> = self.next.iter().filter(|(_, at)| **at <= Instant::now()).map(|(e, _)| *e).collect();
            for event in due {
                self.happen(event);
                self.plan(event);
            }
            if told.elapsed() > Duration::from_secs(60) {
                told = Instant::now();
                self.tell();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.end();
    }

    /// What goes on all the time.
    fn turn(&mut self) {
        assert!(self.writer.is_running() && !self.writer.failed(), "the database is harmed");
        if self.returns.is_some_and(|at| at <= Instant::now()) {
            self.returns = None;
            self.stations[DISTURBED].start();
            self.up_since = Instant::now();
        }
        for station in 0..2 {
            if self.outages[station].is_some_and(|end| end <= Instant::now()) {
                self.outages[station] = None;
                self.stations[station].give_back();
            }
            let running = self.stations[station].is_running();
            assert!(running || station == DISTURBED);
            if self.stations[station].seen().counted()[4] > 0 {
                self.sample.base(station);
            }
        }
        let acknowledged = self.stations.each_ref().map(|station| station.seen().acknowledged);
        self.sample.look(self.writer.written(), acknowledged);
        self.reap();
    }

    /// Whether the archiver that is disturbed is there, and had time to look at the last opening of the database. How much
    /// it is behind does not matter: it may be killed, and the database opened again, in the middle of a backlog.
    fn is_looking(&self) -> bool {
        self.returns.is_none() && self.up_since.elapsed() > AWAY * 2 && self.opened.elapsed() > AWAY
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Kill | Event::Restart if !self.is_looking() => {}
            Event::Kill => {
                self.stations[DISTURBED].kill();
                self.count("kills");
                self.returns = Some(Instant::now() + AWAY.mul_f64(self.rng.random()));
            }
            // Before it says more than where its page is it may not listen for signals yet.
            Event::Restart if self.stations[DISTURBED].log().lines().count() < 2 => {}
            Event::Restart => {
                let calm = self.stations[DISTURBED].is_well();
                let status = self.stations[DISTURBED].stop();
                let store = status.code() == Some(i32::from(Exit::Store.status()));
                assert!(
                    status.success() || !calm && store,
                    "told to end, it ends so: {status}\n{}",
                    self.stations[DISTURBED].log()
                );
                self.count("restarts");
                self.returns = Some(Instant::now() + AWAY.mul_f64(self.rng.random()));
            }
            Event::Outage(station) if self.outages[station].is_none() && self.sample.has_base(station) => {
                // Most are short.
                let seconds = 2.0 * 60.0_f64.powf(self.rng.random());
                self.stations[station].take_away();
                self.count("outages");
                self.outages[station] = Some(Instant::now() + Duration::from_secs_f64(seconds));
            }
            Event::Outage(_) => {}
            Event::ReopenDatabase if self.is_looking() => {
                if self.rng.random() {
                    self.writer.close();
                    self.count("closed and opened");
                } else {
                    self.writer.kill();
                    self.count("killed and opened");
                }
                let (writer, _) = self.histories.open("database_process");
                self.opened = Instant::now();
                self.writer = writer;
                self.writer.go();
            }
            Event::ReopenDatabase => {}
            Event::Tag => {
                self.named += 1;
                let (name, expiry) = (format!("tag-{}", self.named), format!("{}s", EXPIRY.as_secs()));
                let expires = self.rng.random_bool(0.8);
                let mut args = vec!["tag", "create", &name];
                args.extend(if expires { vec!["--expires", &expiry] } else { Vec::new() });
                let station = self.rng.random_range(0..2);
                let tag = (name.clone(), expires.then(|| Instant::now() + EXPIRY), self.writer.written());
                let child = self.stations[station].ask(&args);
                self.asked.push(Asked { child, since: Instant::now(), station, tag: Some(tag) });
            }
            Event::Base => {
                let station = self.rng.random_range(0..2);
                let child = self.stations[station].ask(&["base"]);
                self.asked.push(Asked { child, since: Instant::now(), station, tag: None });
            }
            Event::Restore => {
                let station = self.rng.random_range(0..2);
                if self.restoring.len() < RESTORES {
                    self.restore(station);
                }
            }
        }
    }

    /// Begins to restore to something random.
    fn restore(&mut self, station: usize) {
        let acknowledged = self.stations[station].seen().acknowledged;
        if let Some(drawn) = self.sample.draw(station, acknowledged, self.histories.lives(), &mut self.rng) {
            self.restore_to(station, drawn);
        }
    }

    fn restore_to(&mut self, station: usize, drawn: Drawn) {
        let (child, into) = self.stations[station].restore(&drawn.target);
        self.restoring.push(Restoring { child, since: Instant::now(), station, into, drawn });
    }

    /// What has ended.
    fn reap(&mut self) {
        for mut asked in std::mem::take(&mut self.asked) {
            let Some(status) = asked.child.try_wait().expect("waiting") else {
                assert!(asked.since.elapsed() < PATIENCE, "a request to {} hangs", self.stations[asked.station].name);
                self.asked.push(asked);
                continue;
            };
            // Where the archiver was killed meanwhile there is no answer, and no promise. A base is refused while the archive
            // is away; a tag waits.
            match asked.tag {
                None if !status.success() => self.count("bases refused"),
                Some((name, ..)) if !status.success() => {
                    assert!(asked.station == DISTURBED, "{name} of the archiver that is left alone: {status}");
                    self.count("tags refused");
                }
                None => self.count("bases on request"),
                Some((name, expires, least)) => {
                    self.count("tags");
                    self.sample.tag(name, asked.station, least, expires);
                }
            }
        }
        for mut restoring in std::mem::take(&mut self.restoring) {
            match restoring.child.try_wait().expect("waiting") {
                Some(status) => self.judge(&restoring, status),
                None => {
                    assert!(restoring.since.elapsed() < PATIENCE, "a restore hangs: {:?}", restoring.drawn.target);
                    self.restoring.push(restoring);
                }
            }
        }
    }

    /// A copy is what was written then, or was refused because nothing promised it.
    fn judge(&mut self, restored: &Restoring, status: std::process::ExitStatus) {
        let Restoring { station, into, drawn: Drawn { target, expected }, .. } = restored;
        let log = into.with_extension("log");
        let what = format!("{}, {}", self.stations[*station].name, target.join(" "));
        if !status.success() {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let refused = status.code() == Some(i32::from(Exit::Target.status()));
            assert!(refused && expected.refusable, "{what}: {status}\n{log}");
            return self.count("refused behind the window");
        }
        let (batches, _) = self.histories.check(into);
        let most = expected.most.unwrap_or_else(|| self.writer.written() + 1);
        assert!((expected.least..=most).contains(&batches), "{what}: {batches}, not {} to {most}", expected.least);
        std::fs::remove_dir_all(into).expect("removing the copy");
        std::fs::remove_file(log).expect("removing its log");
        self.count("restores compared");
    }

    /// Everything is there again and catches up; then both end, and a sample of both is compared.
    fn end(&mut self) {
        for station in 0..2 {
            if self.outages[station].take().is_some() {
                self.stations[station].give_back();
            }
        }
        if self.returns.take().is_some() {
            self.stations[DISTURBED].start();
        }
        let start = Instant::now();
        let busy = |soak: &Self| !soak.asked.is_empty() || !soak.restoring.is_empty();
        while busy(self) || !self.stations.iter().all(Station::is_well) {
            assert!(start.elapsed() < PATIENCE, "what is under way does not end");
            self.turn();
            std::thread::sleep(Duration::from_millis(50));
        }
        self.writer.close();
        for station in &mut self.stations {
            let status = station.stop();
            assert!(status.success(), "{}: {status}\n{}", station.name, station.log());
        }
        let (mut writer, found) = self.histories.open("database_process");
        writer.kill();
        self.tell();
        for station in 0..2 {
            let expected = Expected { least: found, most: Some(found), refusable: false };
            self.restore_to(station, Drawn { target: vec!["--to-latest".to_owned()], expected });
            for _ in 0..AT_THE_END {
                self.restore(station);
                while !self.restoring.is_empty() {
                    self.reap();
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            let verified = self.stations[station].look_at_archive("verify");
            let said = String::from_utf8_lossy(&verified.stdout).into_owned();
            assert!(verified.status.success(), "{}: {said}", self.stations[station].name);
            self.stations[station].assert_unbroken();
            self.stations[station].assert_logs_are_clean();
        }
        self.report(found);
    }

    fn tell(&self) {
        let minutes = self.began.elapsed().as_secs_f64() / 60.0;
        let resident = self.stations.each_ref().map(|s| s.seen().resident.last().map_or(0, |(_, bytes)| bytes / MIB));
        let lag = self.stations.each_ref().map(|s| s.seen().lag.round());
        println!(
            "{minutes:.1} min: {} batches, resident {resident:?} MiB, greatest lag {lag:?} s; {:?}",
            self.writer.written(),
            self.counts
        );
    }

    fn report(&self, found: u64) {
        let row = |what: &str, value: String| println!("| {what} | {value} |");
        let counted = self.stations.each_ref().map(|station| station.seen().counted());
        let both = |i: usize| format!("{} and {}", counted[0][i], counted[1][i]);
        let mib = |bytes: u64| format!("{} MiB", bytes / MIB);
        println!("\n| soak | one archiver disturbed, one left alone |\n|---|---|");
        row("duration", format!("{:.1} min", self.began.elapsed().as_secs_f64() / 60.0));
        row("records written", found.to_string());
        row("of the log archived", format!("{} and {}", mib(counted[0][1]), mib(counted[1][1])));
        row("segments", both(3));
        let size = |station: &Station| mib(station.archive_bytes());
        row("archives at the end, pruned", format!("{} and {}", size(&self.stations[0]), size(&self.stations[1])));
        row("bases", both(4));
        row("tags", self.counted("tags").to_string());
        row("archiver restarted, killed", format!("{}, {}", self.counted("restarts"), self.counted("kills")));
        let opened = (self.counted("closed and opened"), self.counted("killed and opened"));
        row("database closed, killed", format!("{}, {}", opened.0, opened.1));
        row("outages", self.counted("outages").to_string());
        row("restores compared", self.counted("restores compared").to_string());
        row("refused behind the window", self.counted("refused behind the window").to_string());
        let alone = self.stations[ALONE].seen();
        row("greatest lag in an outage, else", format!("{:.0} s, {:.1} s", alone.lag, alone.lag_when_well));
        let bytes: Vec<u64> = alone.resident.iter().map(|(_, bytes)| *bytes).collect();
        let quarter = |n: usize| median(&bytes[bytes.len() * n / 4..bytes.len() * (n + 1) / 4]);
        let (first, last) = (bytes[bytes.len() / 100], bytes[bytes.len() - 1]);
        let most = bytes.iter().copied().max().unwrap_or_default();
        row("resident, first, last, greatest", format!("{}, {}, {}", mib(first), mib(last), mib(most)));
        let quarters = [quarter(1), quarter(3)];
        row(
            "resident, median of the second and the last quarter",
            format!("{}, {}", mib(quarters[0]), mib(quarters[1])),
        );
        assert!(quarters[1] <= quarters[0] + GROWTH, "the archiver grows: {quarters:?}");
    }
}

fn median(of: &[u64]) -> u64 {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[test]
fn whatever_happens_for_an_hour_nothing_is_lost_and_memory_stays_flat() {
    let number =
        |name: &str| std::env::var(name).ok().map(|s| s.parse::<u64>().unwrap_or_else(|e| panic!("{name}: {e}")));
    let Some(minutes) = number("PITR_SOAK_MINUTES") else {
        return say_skipped("the soak takes an hour: PITR_SOAK_MINUTES=60, or make soak");
    };
    let seed = number("PITR_SEED").unwrap_or(1);
    println!("PITR_SEED={seed}");
    assert!(resident(std::process::id()).is_some(), "memory is measured in /proc");
    let (Some(one), Some(other)) = (Mount::memory(ARCHIVE_ROOM), Mount::memory(ARCHIVE_ROOM)) else { return };
    let mut root = scratch::on_disk();
    root.disable_cleanup(true);
    let mut soak = Soak::begin(root.path(), [one, other], seed, Duration::from_secs(60 * minutes));
    if let Err(why) = catch_unwind(AssertUnwindSafe(|| soak.run())) {
        eprintln!("PITR_SEED={seed}; everything is kept in {}", root.path().display());
        soak.stations.iter().for_each(Station::keep_archive);
        resume_unwind(why);
    }
    root.disable_cleanup(false);
}
