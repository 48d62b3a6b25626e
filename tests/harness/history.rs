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
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use rocksdb::{DB, DBRecoveryMode, WriteBatch, WriteOptions};
use serde::{Deserialize, Serialize};

use super::{
    program::Settings,
    server::{self, Places},
};

const ASKED: &str = "PITR_TEST_HISTORY";
const COUNTER: &[u8] = b"counter";
/// One batch in so many is synced, life by life: with few of them, much of what was archived can be taken back.
const SYNC_EVERY: [u64; 3] = [60, 7, 1000];
const FAMILIES: [&str; 2] = ["default", "alpha"];

type Family = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the process is told.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    dir: PathBuf,
    settings: Settings,
    life: u64,
    pause: Duration,
}

/// Batch `number` of a life.
fn batch(life: u64, number: u64) -> Vec<(usize, Vec<u8>, Option<Vec<u8>>)> {
    let mut rng = StdRng::seed_from_u64(life.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number);
    let mut batch = vec![(0, COUNTER.to_vec(), Some(format!("{life}-{number}").into_bytes()))];
    for _ in 0..rng.random_range(1..5) {
        let key = format!("k{:04}", rng.random_range(0..2000)).into_bytes();
        let value = rng.random_bool(0.8).then(|| {
            let length = rng.random_range(10..300);
            format!("{life}-{number}-{}", "x".repeat(length)).into_bytes()
        });
        batch.push((rng.random_range(0..FAMILIES.len()), key, value));
    }
    batch
}

/// Is the writing process until it is killed, if the environment says so; else returns at once.
pub fn write_if_asked() {
    let Ok(order) = std::env::var(ASKED) else { return };
    let order: Order = serde_json::from_str(&order).expect("an order");
    let mut lines = std::io::stdin().lines();
    let opened = server::open(&order.dir, &Places::default(), &order.settings).expect("the database opens");
    for name in FAMILIES {
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
    loop {
        let mut write = WriteBatch::default();
        for (family, key, value) in batch(order.life, number) {
            let family = opened.db.cf_handle(FAMILIES[family]).expect("a column family");
            match value {
                Some(value) => write.put_cf(&family, key, value),
                None => write.delete_cf(&family, key),
            }
        }
        let mut options = WriteOptions::default();
        let synced = number % sync_every == sync_every - 1;
        options.set_sync(synced);
        if let Err(e) = opened.db.write_opt(write, &options) {
            say(format_args!("failed {number} {e}"));
            std::process::exit(1);
        }
        say(format_args!("{} {number}", if synced { "synced" } else { "written" }));
        number += 1;
        std::thread::sleep(order.pause);
    }
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
    pause: Duration,
    /// Where each life began: its first number.
    lives: Vec<u64>,
    /// One more than the last number that was synced.
    synced: Arc<AtomicU64>,
    /// What of it was said before the power was cut.
    before_cut: Option<u64>,
}

impl Histories {
    /// Of a database that is not there yet.
    pub fn new(dir: &Path, settings: Settings, pause: Duration) -> Self {
        Self { dir: dir.to_owned(), settings, pause, lives: Vec::new(), synced: Arc::default(), before_cut: None }
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
        let order = Order { dir: self.dir.clone(), settings: self.settings.clone(), life, pause: self.pause };
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
        if let Some(last) = found.checked_sub(1) {
            assert_eq!(
                self.life_of(life.saturating_sub(1), last),
                last_life,
                "the database holds a history of its own"
            );
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

    /// Which life wrote batch `number` of the history that `life` ended.
    fn life_of(&self, life: u64, number: u64) -> u64 {
        let lives = self.lives.iter().enumerate().take(usize::try_from(life).expect("a few") + 1);
        lives.filter(|(_, first)| **first <= number).map(|(life, _)| life as u64).max().unwrap_or_default()
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
        let mut content = vec![Family::new(); FAMILIES.len()];
        let mut sequence = 0;
        for number in 0..count {
            let written = batch(self.life_of(life, number), number);
            sequence += written.len() as u64;
            for (family, key, value) in written {
                match value {
                    Some(value) => content[family].insert(key, value),
                    None => content[family].remove(&key),
                };
            }
        }
        let dump = server::dump(&opened.db, &opened.names).unwrap_or_else(|e| panic!("{}: {e}", copy.display()));
        for (family, expected) in FAMILIES.iter().zip(content) {
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
