//! A database in a process of its own whose content at any moment follows from numbers alone.
//!
//! Owns: the process, which can be killed and can lose power, and the histories that it wrote. Batch `n` of life `l` is
//! made from these two numbers; its key `counter` names them. A life begins where the one before was found to end, so a
//! copy says by its counter which history it claims to be, and everything else must follow from that.
//!
//! Some batches are synced: what the process says to be synced must never be missing after a crash.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use rocksdb::{DB, DBRecoveryMode, FlushOptions, WriteBatch, WriteOptions};
use serde::{Deserialize, Serialize};

use super::{
    command, model,
    program::Settings,
    server::{self, Opened, Places},
};

const ASKED: &str = "PITR_TEST_HISTORY";
const COUNTER: &[u8] = b"counter";
/// One batch in so many is synced, life by life: with few of them, much of what was archived can be taken back.
const SYNC_EVERY: [u64; 3] = [60, 7, 1000];
/// So often a varied history flushes one of its column families, and compacts one.
const FLUSH_EVERY: u64 = 3_000;
const COMPACT_EVERY: u64 = 20_000;
/// So often what a history comes to is remembered, so that not every comparison begins at its beginning.
const REMEMBER_EVERY: u64 = 50_000;

type Family = BTreeMap<Vec<u8>, Vec<u8>>;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Style {
    /// Puts and deletes in two column families.
    Plain,
    /// Merges and deleted ranges as well, in four; flushes and compactions between them.
    Varied,
}

impl Style {
    fn families(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &["default", "alpha"],
            Self::Varied => &["default", "alpha", "beta", "gamma"],
        }
    }

    fn batch(self, life: u64, number: u64) -> Vec<(usize, Change)> {
        match self {
            Self::Plain => plain(life, number),
            Self::Varied => varied(life, number),
        }
    }
}

/// One operation.
enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Merge(Vec<u8>, Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// What the process is told.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    dir: PathBuf,
    settings: Settings,
    style: Style,
    life: u64,
    pause: Duration,
}

fn random(life: u64, number: u64) -> StdRng {
    StdRng::seed_from_u64(life.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number)
}

fn counted(life: u64, number: u64) -> (usize, Change) {
    (0, Change::Put(COUNTER.to_vec(), format!("{life}-{number}").into_bytes()))
}

/// Batch `number` of a life.
fn plain(life: u64, number: u64) -> Vec<(usize, Change)> {
    let mut rng = random(life, number);
    let mut batch = vec![counted(life, number)];
    for _ in 0..rng.random_range(1..5) {
        let key = format!("k{:04}", rng.random_range(0..2000)).into_bytes();
        let value = rng.random_bool(0.8).then(|| {
            let length = rng.random_range(10..300);
            format!("{life}-{number}-{}", "x".repeat(length)).into_bytes()
        });
        let change = match value {
            Some(value) => Change::Put(key, value),
            None => Change::Delete(key),
        };
        batch.push((rng.random_range(0..Style::Plain.families().len()), change));
    }
    batch
}

/// The same, varied. Values do not compress. The counter is last: it survives every flush, so that no reopen lowers the
/// sequence number.
fn varied(life: u64, number: u64) -> Vec<(usize, Change)> {
    let mut rng = random(life, number);
    let mut batch = Vec::new();
    for _ in 0..rng.random_range(1..6) {
        let n = rng.random_range(0..2000);
        let (key, merged) = (format!("k{n:04}").into_bytes(), format!("m{:03}", n % 500).into_bytes());
        let change = match rng.random_range(0..100) {
            0..65 => {
                let mut value = vec![0; rng.random_range(10..500)];
                rng.fill_bytes(&mut value);
                Change::Put(key, value)
            }
            65..75 => Change::Delete(key),
            75..94 => Change::Merge(merged, format!("{life}-{number}").into_bytes()),
            94..98 => Change::Delete(merged),
            _ => Change::DeleteRange(key, format!("k{:04}", n + rng.random_range(1..30)).into_bytes()),
        };
        batch.push((rng.random_range(0..Style::Varied.families().len()), change));
    }
    batch.push(counted(life, number));
    batch
}

fn write_batch(db: &DB, style: Style, changes: Vec<(usize, Change)>) -> WriteBatch {
    let mut write = WriteBatch::default();
    for (family, change) in changes {
        let family = db.cf_handle(style.families()[family]).expect("a column family");
        match change {
            Change::Put(key, value) => write.put_cf(&family, key, value),
            Change::Delete(key) => write.delete_cf(&family, key),
            Change::Merge(key, operand) => write.merge_cf(&family, key, operand),
            Change::DeleteRange(from, to) => write.delete_range_cf(&family, from, to),
        }
    }
    write
}

/// What a server does beside writing.
fn maintain(opened: &Opened, style: Style, number: u64) {
    if style == Style::Plain {
        return;
    }
    let family = |n: u64| {
        let families = style.families();
        opened.db.cf_handle(families[(n % families.len() as u64) as usize]).expect("a column family")
    };
    if number % FLUSH_EVERY == FLUSH_EVERY - 1 {
        opened.db.flush_cf_opt(&family(number / FLUSH_EVERY), &FlushOptions::default()).expect("a flush");
    }
    if number % COMPACT_EVERY == COMPACT_EVERY - 1 {
        opened.db.compact_range_cf(&family(number / COMPACT_EVERY), None::<&[u8]>, None::<&[u8]>);
    }
}

/// What some batches come to.
#[derive(Clone)]
struct Content {
    families: Vec<Family>,
    sequence: u64,
}

impl Content {
    fn apply(&mut self, changes: Vec<(usize, Change)>) {
        self.sequence += changes.len() as u64;
        for (family, change) in changes {
            let family = &mut self.families[family];
            match change {
                Change::Put(key, value) => drop(family.insert(key, value)),
                Change::Delete(key) => drop(family.remove(&key)),
                Change::Merge(key, operand) => {
                    let merged = model::merge(family.get(&key).map(Vec::as_slice), std::iter::once(operand.as_slice()));
                    family.insert(key, merged);
                }
                Change::DeleteRange(from, to) => {
                    let gone: Vec<_> = family.range(from..to).map(|(key, _)| key.clone()).collect();
                    gone.iter().for_each(|key| drop(family.remove(key)));
                }
            }
        }
    }
}

/// Is the writing process until it is killed, if the environment says so; else returns at once.
pub fn write_if_asked() {
    let Ok(order) = std::env::var(ASKED) else { return };
    let order: Order = serde_json::from_str(&order).expect("an order");
    let mut lines = BufReader::new(std::io::stdin()).lines();
    let opened = server::open(&order.dir, &Places::default(), &order.settings).expect("the database opens");
    let style = order.style;
    for name in style.families() {
        if !opened.names.iter().any(|n| n == name) {
            opened.db.create_cf(name, &server::family_options(&order.settings)).expect("a column family");
        }
    }
    let (life, found) = counter(&opened.db).unzip();
    let mut number = found.map_or(0, |last| last + 1);
    say(format_args!("opened {number} {}", life.unwrap_or_default()));
    let sync_every = SYNC_EVERY[usize::try_from(order.life).expect("a few lives") % SYNC_EVERY.len()];
    // Nothing is written until somebody says so.
    if lines.next().is_none() {
        std::process::exit(0);
    }
    // The next line is to close.
    let closing = Arc::new(AtomicBool::new(false));
    let told = closing.clone();
    std::thread::spawn(move || {
        if lines.next().is_some() {
            told.store(true, Ordering::SeqCst);
        }
    });
    while !closing.load(Ordering::SeqCst) {
        let write = write_batch(&opened.db, style, style.batch(order.life, number));
        let mut options = WriteOptions::default();
        let synced = number % sync_every == sync_every - 1;
        options.set_sync(synced);
        if let Err(e) = opened.db.write_opt(write, &options) {
            say(format_args!("failed {number} {e}"));
            std::process::exit(1);
        }
        say(format_args!("{} {number}", if synced { "synced" } else { "written" }));
        maintain(&opened, style, number);
        number += 1;
        std::thread::sleep(order.pause);
    }
    drop(opened);
    std::process::exit(0);
}

fn say(what: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    // Whoever listened is gone.
    if writeln!(out, "HISTORY {what}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

fn counter(db: &DB) -> Option<(u64, u64)> {
    let value = db.get(COUNTER).expect("the counter can be read")?;
    let text = String::from_utf8(value).expect("a counter is text");
    let (life, number) = text.split_once('-').expect("a life and a number");
    Some((life.parse().expect("a life"), number.parse().expect("a number")))
}

/// The running process.
pub struct Writer {
    child: Child,
    stdin: Option<ChildStdin>,
    written: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Writer {
    /// Batches that it said to have written, all lives of its line together.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// Whether a write failed.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst) > 0
    }

    /// Lets it write.
    pub fn go(&mut self) {
        let stdin = self.stdin.as_mut().expect("a process that waits");
        stdin.write_all(b"go\n").expect("a process that listens");
    }

    /// Lets it close the database and end.
    pub fn close(&mut self) {
        let stdin = self.stdin.as_mut().expect("a process that listens");
        stdin.write_all(b"close\n").expect("a process that listens");
        let status = command::wait(&mut self.child).expect("the database's process ends");
        assert!(status.success(), "closing the database: {status}");
    }

    /// Its process stands still.
    pub fn pause(&self) {
        command::signal(&self.child, rustix::process::Signal::STOP);
    }

    /// And goes on.
    pub fn go_on(&self) {
        command::signal(&self.child, rustix::process::Signal::CONT);
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("the database's process ends");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("waiting").is_none()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that was written to one database.
pub struct Histories {
    /// Its directory.
    pub dir: PathBuf,
    settings: Settings,
    style: Style,
    pause: Duration,
    /// Where each life began: its first number.
    lives: Vec<u64>,
    /// One more than the last number that was synced.
    synced: Arc<AtomicU64>,
    /// What of it was said before the power was cut.
    before_cut: Option<u64>,
    /// What so many batches come to that these lives wrote.
    remembered: Mutex<BTreeMap<(u64, Vec<Part>), Content>>,
}

/// A life's part of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    first: u64,
    life: u64,
}

impl Histories {
    /// Of a database that is not there yet.
    pub fn new(dir: &Path, settings: Settings, pause: Duration) -> Self {
        Self::of(Style::Plain, dir, settings, pause)
    }

    /// The same, with more kinds of operations, more column families, flushes and compactions.
    pub fn varied(dir: &Path, settings: Settings, pause: Duration) -> Self {
        Self::of(Style::Varied, dir, settings, pause)
    }

    fn of(style: Style, dir: &Path, settings: Settings, pause: Duration) -> Self {
        Self {
            dir: dir.to_owned(),
            settings,
            style,
            pause,
            lives: Vec::new(),
            synced: Arc::default(),
            before_cut: None,
            remembered: Mutex::default(),
        }
    }

    /// The power is about to be cut: what is said to be synced from here on, nobody can have heard. (An fsync that is
    /// under way while a file system is shut down can still answer that it succeeded.)
    pub fn power_goes(&mut self) {
        self.before_cut = Some(self.synced.load(Ordering::SeqCst));
    }

    /// It was not this database's power.
    pub fn power_came(&mut self) {
        self.before_cut = None;
    }

    /// Opens the database in a process of its own, which waits; asserts that nothing synced is missing. Answers how many
    /// batches the database holds.
    ///
    /// `name` is the test that calls [`write_if_asked`].
    pub fn open(&mut self, name: &str) -> (Writer, u64) {
        let life = self.lives.len() as u64;
        let (dir, settings) = (self.dir.clone(), self.settings.clone());
        let order = Order { dir, settings, style: self.style, life, pause: self.pause };
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", name, "--nocapture", "--quiet"])
            .env(ASKED, serde_json::to_string(&order).expect("an order"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting the database");
        let stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let told = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("HISTORY opened ")?.1.to_owned()));
        let told = told.expect("the database opens");
        let (found, last_life) = told.split_once(' ').expect("two numbers");
        let (found, last_life): (u64, u64) = (found.parse().expect("a number"), last_life.parse().expect("a life"));
        let synced = self.before_cut.take().unwrap_or_else(|| self.synced.load(Ordering::SeqCst));
        assert!(
            found >= synced,
            "the database lost what it had synced: it holds {found} batches, {synced} were synced"
        );
        if found > 0 {
            let wrote = self.parts(life.saturating_sub(1), found).last().map(|part| part.life);
            assert_eq!(wrote, Some(last_life), "the database holds a history of its own");
        }
        self.lives.push(found);
        let (written, failed) = (Arc::new(AtomicU64::new(found)), Arc::new(AtomicU64::default()));
        // A new one: whoever listened to the process before may still have something to note.
        self.synced = Arc::new(AtomicU64::new(found));
        let listener = (written.clone(), self.synced.clone(), failed.clone());
        std::thread::spawn(move || {
            let (written, synced, failed) = listener;
            for line in lines.map_while(Result::ok) {
                let mut words = line.split_whitespace().skip_while(|word| *word != "HISTORY").skip(1);
                let (Some(what), Some(Ok(number))) = (words.next(), words.next().map(str::parse::<u64>)) else {
                    continue;
                };
                match what {
                    "failed" => failed.store(1, Ordering::SeqCst),
                    _ => written.store(number + 1, Ordering::SeqCst),
                }
                if what == "synced" {
                    synced.store(number + 1, Ordering::SeqCst);
                }
            }
        });
        (Writer { child, stdin, written, failed }, found)
    }

    /// How often the database was opened.
    pub fn lives(&self) -> u64 {
        self.lives.len() as u64
    }

    /// Whose batches the first `count` of the history are that `life` ended.
    fn parts(&self, life: u64, count: u64) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for (life, first) in (0..=life).zip(self.lives.iter().copied()) {
            // What a life found to be gone, another has written in its place.
            parts.retain(|part| part.first < first);
            parts.push(Part { first, life });
        }
        parts.retain(|part| part.first < count);
        parts
    }

    /// What the first `count` batches of that history come to.
    fn content(&self, life: u64, count: u64) -> Content {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let known = (0..=count / REMEMBER_EVERY).rev().map(|n| n * REMEMBER_EVERY).find_map(|number| {
            let content = remembered.get(&(number, self.parts(life, number)))?;
            Some((number, content.clone()))
        });
        let empty = || Content { families: vec![Family::new(); self.style.families().len()], sequence: 0 };
        let (from, mut content) = known.unwrap_or_else(|| (0, empty()));
        let parts = self.parts(life, count);
        let ends = parts.iter().skip(1).map(|part| part.first).chain([count]);
        for (part, end) in parts.iter().zip(ends) {
            for number in part.first.max(from)..end {
                content.apply(self.style.batch(part.life, number));
                if (number + 1) % REMEMBER_EVERY == 0 {
                    remembered.insert((number + 1, self.parts(life, number + 1)), content.clone());
                }
            }
        }
        content
    }

    /// Opens a copy in the strictest mode: whichever history it says to be, it must be that, exactly. Answers how many
    /// batches it holds, and the life of the last.
    pub fn check(&self, copy: &Path) -> (u64, u64) {
        let mut options = server::database_options(&Places::default(), &self.settings);
        options.create_if_missing(false);
        options.set_wal_recovery_mode(DBRecoveryMode::AbsoluteConsistency);
        let opened = server::open_with(copy, &options, &self.settings)
            .unwrap_or_else(|e| panic!("{} does not open: {e}", copy.display()));
        let (life, count) = counter(&opened.db).map_or((0, 0), |(life, number)| (life, number + 1));
        assert!(life < self.lives.len() as u64, "a life that never was: {life}");
        let Content { families, sequence } = self.content(life, count);
        let dump = server::dump(&opened.db, &opened.names).unwrap_or_else(|e| panic!("{}: {e}", copy.display()));
        for (family, expected) in self.style.families().iter().zip(families) {
            let got: Family = dump.get(*family).into_iter().flatten().cloned().collect();
            assert!(got == expected, "at batch {count} of life {life}, {family} is not what was written");
        }
        assert_eq!(
            opened.db.latest_sequence_number(),
            sequence,
            "the latest sequence number at {count} of life {life}"
        );
        (count, life)
    }
}
