//! A restore of a base and a long log, against RocksDB's recovery of the same.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rocksdb::{DB, Options};

use crate::{
    Settings,
    beside::{Archiver, place, state},
    content::content,
    harness::command::{self, text},
    measure,
    sealed::Sealed,
    table::{Line, Table, median},
    writes::Shape,
};

/// What is shipped last may take so long.
const SHIPPED: Duration = Duration::from_secs(5);

/// A database with RocksDB's defaults.
fn open(dir: &Path, shape: &Shape) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    DB::open_cf(&options, dir, ["default"].iter().chain(shape.families)).expect("an open database")
}

/// What it is promised to need of memory, at most.
const MEMORY: f64 = 512.0;

/// Answers for the memory that it took, in MiB.
fn restore(place: &Sealed, engine: &str, into: &Path) -> f64 {
    measure::run(&mut place.pitr(["restore", "--to-latest", "--engine", engine, "--into", text(into)])).peak_mib()
}

/// Writes it, and archives what the base does not have; how many writes.
fn write(place: &Sealed, shape: &Shape, writes: u64) -> u64 {
    let dir = place.root.join("db");
    let db = open(&dir, shape);
    let (in_base, behind) = shape.writes(writes);
    shape.write(&db, in_base);
    for name in ["default"].iter().chain(shape.families) {
        db.flush_cf(&db.cf_handle(name).expect("a column family")).expect("a flush");
    }
    let state = state(&place.root);
    let run = place.pitr(["run", "--ship-flushes", "--db", text(&dir), "--state", text(&state)]);
    let archiver = Archiver::start(run, 1);
    let records = || archiver.metrics().and_then(|m| m.sum("pitr_acknowledged_record", "")).unwrap_or(0.0) as u64;
    let before = records();
    shape.write(&db, behind);
    archiver.caught_up(before + behind);
    std::thread::sleep(SHIPPED);
    archiver.stop();
    behind
}

/// A restore with one engine, and the open of what it made.
struct Side {
    engine: &'static str,
    restored: Vec<f64>,
    opened: Vec<f64>,
    peak: Vec<f64>,
}

impl Side {
    const fn new(engine: &'static str) -> Self {
        Self { engine, restored: Vec::new(), opened: Vec::new(), peak: Vec::new() }
    }

    fn whole(&self) -> Vec<f64> {
        self.restored.iter().zip(&self.opened).map(|(restored, opened)| restored + opened).collect()
    }
}

pub fn run(shape: &Shape, settings: &Settings) -> Table {
    let root = place();
    let place = Sealed::new(root.path());
    let written = write(&place, shape, settings.writes);
    std::fs::remove_dir_all(root.path().join("db")).expect("removing the source");
    let plan = command::succeed(&mut place.pitr(["plan", "--to-latest", "--json"]));
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).expect("JSON");

    // The base and the whole log behind it: what the server would open.
    let unopened = root.path().join("unopened");
    restore(&place, "native", &unopened);
    let (ours, theirs) = (root.path().join("ours"), root.path().join("theirs"));
    let mut sides = [Side::new("auto"), Side::new("bulk")];
    let mut recovered = Vec::new();
    for round in 0..settings.rounds {
        let mut contents = Vec::new();
        for side in &mut sides {
            rustix::fs::sync();
            let begun = Instant::now();
            side.peak.push(restore(&place, side.engine, &ours));
            side.restored.push(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            let db = open(&ours, shape);
            side.opened.push(begun.elapsed().as_secs_f64());
            contents.extend((round == 0).then(|| content(&db, shape.families)));
            drop(db);
            std::fs::remove_dir_all(&ours).expect("removing a copy");
        }
        let copied = Command::new("cp").arg("-r").args([&unopened, &theirs]).status().expect("cp");
        assert!(copied.success(), "{copied}");
        rustix::fs::sync();
        let begun = Instant::now();
        let db = open(&theirs, shape);
        recovered.push(begun.elapsed().as_secs_f64());
        if round == 0 {
            let theirs = content(&db, shape.families);
            assert!(contents.iter().all(|ours| *ours == theirs), "they are not the same: {contents:?}, {theirs:?}");
        }
        drop(db);
        std::fs::remove_dir_all(&theirs).expect("removing a copy");
    }
    let mut table = Table::new(format!("a log of {written} writes, {}", shape.title));
    table.spread("RocksDB's recovery of the log", &recovered, "s", Line::None);
    let mut best = f64::INFINITY;
    for side in &sides {
        let title = |what: &str| format!("pitr restore --engine {}: {what}", side.engine);
        table.spread(title("fetch, decrypt, lay down, fsync"), &side.restored, "s", Line::None);
        table.spread("opening what it made", &side.opened, "s", Line::None);
        table.row("times as fast", median(&recovered) / median(&side.whole()), "", Line::None);
        table.spread("peak memory of pitr restore", &side.peak, "MiB", Line::AtMost(MEMORY));
        best = best.min(median(&side.whole()));
    }
    table.row("the best engine: times as fast", median(&recovered) / best, "", Line::AtLeast(shape.least));
    table.note(format!("auto is {}", plan["engine"]));
    for side in &sides {
        table.note(format!("{}: {:.2?} s", side.engine, side.whole()));
    }
    table.note(format!("recovery: {recovered:.2?} s"));
    table
}
