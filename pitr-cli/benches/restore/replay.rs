//! A restore of a base and a long log, against RocksDB's recovery of the same.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rocksdb::{DB, IteratorMode, Options};

use crate::{
    Settings,
    beside::{Archiver, archive, place, state},
    harness::command::{self, pitr, text, url},
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

/// Everything in it, as a hash, and its latest sequence number.
fn content(db: &DB, shape: &Shape) -> (blake3::Hash, u64) {
    let mut hasher = blake3::Hasher::new();
    for name in ["default"].iter().chain(shape.families) {
        let cf = db.cf_handle(name).expect("a column family");
        for pair in db.iterator_cf(&cf, IteratorMode::Start) {
            let (key, value) = pair.expect("a pair");
            hasher.update(&(key.len() as u64).to_le_bytes()).update(&key).update(&value);
        }
    }
    (hasher.finalize(), db.latest_sequence_number())
}

struct Place<'a> {
    root: &'a Path,
    url: String,
    key: String,
}

impl Place<'_> {
    fn pitr<'a>(&'a self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = pitr(args);
        command.args(["--archive", &self.url, "--key-file", &self.key]);
        command
    }

    fn restore(&self, engine: &str, into: &Path) {
        command::succeed(&mut self.pitr(["restore", "--to-latest", "--engine", engine, "--into", text(into)]));
    }
}

/// Writes it, and archives all of it but for what the first base has.
fn write(place: &Place<'_>, shape: &Shape, writes: u64) -> u64 {
    let dir = place.root.join("db");
    let db = open(&dir, shape);
    let state = state(place.root);
    let run = place.pitr(["run", "--ship-flushes", "--db", text(&dir), "--state", text(&state)]);
    let archiver = Archiver::start(run, 1);
    let written = shape.write(&db, writes);
    archiver.caught_up(written);
    std::thread::sleep(SHIPPED);
    archiver.stop();
    written
}

pub fn run(shape: &Shape, settings: &Settings) -> Table {
    let root = place();
    let key = root.path().join("key");
    std::fs::write(&key, "2b".repeat(32)).expect("a key");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("permissions");
    let place = Place { root: root.path(), url: url(&archive(root.path())), key: text(&key).to_owned() };
    let written = write(&place, shape, settings.writes);
    std::fs::remove_dir_all(root.path().join("db")).expect("removing the source");
    let plan = command::succeed(&mut place.pitr(["plan", "--to-latest", "--json"]));
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).expect("JSON");

    // The base and the whole log behind it: what the server would open.
    let unopened = root.path().join("unopened");
    place.restore("native", &unopened);
    let (ours, theirs) = (root.path().join("ours"), root.path().join("theirs"));
    let (mut restored, mut opened, mut recovered) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..settings.rounds {
        rustix::fs::sync();
        let begun = Instant::now();
        place.restore("auto", &ours);
        restored.push(begun.elapsed().as_secs_f64());
        let open_begun = Instant::now();
        let db = open(&ours, shape);
        opened.push(open_begun.elapsed().as_secs_f64());
        let mine = (round == 0).then(|| content(&db, shape));
        drop(db);

        let copied = Command::new("cp").arg("-r").args([&unopened, &theirs]).status().expect("cp");
        assert!(copied.success(), "{copied}");
        rustix::fs::sync();
        let begun = Instant::now();
        let db = open(&theirs, shape);
        recovered.push(begun.elapsed().as_secs_f64());
        assert!(mine.is_none_or(|mine| mine == content(&db, shape)), "the two are not the same");
        drop(db);
        for dir in [&ours, &theirs] {
            std::fs::remove_dir_all(dir).expect("removing a copy");
        }
    }
    let both: Vec<f64> = restored.iter().zip(&opened).map(|(restored, opened)| restored + opened).collect();
    let mut table = Table::new(format!("a log of {written} writes, {}", shape.title));
    table.row("pitr restore: fetch, decrypt, lay down, fsync", median(&restored), "s", Line::None);
    table.row("opening what it made", median(&opened), "s", Line::None);
    table.row("RocksDB's recovery of the same log", median(&recovered), "s", Line::None);
    table.row("times as fast", median(&recovered) / median(&both), "", Line::AtLeast(shape.least));
    table.note(format!("engine: {}", plan["engine"]));
    table.note(format!("rounds: {both:.2?} s against {recovered:.2?} s"));
    table
}
