//! A database under load in this process, one batch a record, for tests that kill and race archivers.
//!
//! Owns: the writer and the list of what it wrote. Every batch puts its own number under `counter`, so that a restored
//! copy says by itself how many batches it holds; everything else follows from the list.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use rocksdb::{DB, DBRecoveryMode, WriteBatch};

use super::{
    program::Settings,
    server::{self, Places},
};

/// A value, in the list and in what follows from it.
type Value = Arc<[u8]>;

/// A column family's keys and values.
type Family = BTreeMap<Vec<u8>, Value>;

/// So many batches lie between two contents that are kept: a long run would spend its time in replaying the list.
const KEPT_EVERY: usize = 10_000;

/// The key that every batch writes.
pub const COUNTER: &[u8] = b"counter";

type Batch = Vec<(usize, Vec<u8>, Option<Value>)>;

/// What was written: batches, and the latest sequence number after each.
#[derive(Default)]
struct Written {
    batches: Vec<Batch>,
    sequences: Vec<u64>,
    content: Vec<Family>,
    /// The content after every [`KEPT_EVERY`] batches.
    kept: Vec<Vec<Family>>,
}

impl Written {
    fn push(&mut self, batch: Batch, sequence: u64) {
        apply(&mut self.content, &batch);
        self.batches.push(batch);
        self.sequences.push(sequence);
        if self.batches.len().is_multiple_of(KEPT_EVERY) {
            self.kept.push(self.content.clone());
        }
    }

    /// The content after `batches` batches.
    fn content(&self, batches: usize) -> Vec<Family> {
        let kept = batches / KEPT_EVERY;
        let before = kept.checked_sub(1).map(|last| self.kept[last].clone());
        let mut content = before.unwrap_or_else(|| vec![Family::new(); self.content.len()]);
        for batch in &self.batches[kept * KEPT_EVERY..batches] {
            apply(&mut content, batch);
        }
        content
    }
}

fn apply(content: &mut [Family], batch: &Batch) {
    for (family, key, value) in batch {
        match value {
            Some(value) => content[*family].insert(key.clone(), value.clone()),
            None => content[*family].remove(key),
        };
    }
}

/// A database that is being written.
pub struct Load {
    /// Its directory.
    pub dir: PathBuf,
    db: Arc<DB>,
    names: Vec<String>,
    settings: Settings,
    written: Arc<Mutex<Written>>,
    stop: Arc<AtomicBool>,
    pause_micros: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl Load {
    /// Creates a database with three column families and begins to write, with `pause` between batches.
    pub fn start(dir: &Path, settings: Settings, seed: u64, pause: Duration) -> Self {
        let opened = server::open(dir, &Places::default(), &settings).expect("a new database");
        for name in ["alpha", "beta"] {
            opened.db.create_cf(name, &server::family_options(&settings)).expect("a column family");
        }
        let names: Vec<String> = ["default", "alpha", "beta"].map(str::to_owned).into();
        let written = Written { content: vec![Family::new(); names.len()], ..Written::default() };
        let mut load = Self {
            dir: dir.to_owned(),
            db: Arc::new(opened.db),
            names,
            settings,
            written: Arc::new(Mutex::new(written)),
            stop: Arc::default(),
            pause_micros: Arc::new(AtomicU64::new(u64::try_from(pause.as_micros()).expect("a short pause"))),
            writer: None,
        };
        load.writer = Some(load.spawn(seed));
        load
    }

    fn spawn(&self, seed: u64) -> JoinHandle<()> {
        let (db, names, written) = (self.db.clone(), self.names.clone(), self.written.clone());
        let (stop, pause) = (self.stop.clone(), self.pause_micros.clone());
        std::thread::spawn(move || {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut number = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                let batch = batch(&mut rng, number, names.len());
                let mut write = WriteBatch::default();
                for (family, key, value) in &batch {
                    let family = db.cf_handle(&names[*family]).expect("a column family");
                    match value {
                        Some(value) => write.put_cf(&family, key, value),
                        None => write.delete_cf(&family, key),
                    }
                }
                db.write(write).expect("a write");
                let sequence = db.latest_sequence_number();
                written.lock().expect("no panic while it is held").push(batch, sequence);
                number += 1;
                std::thread::sleep(Duration::from_micros(pause.load(Ordering::SeqCst)));
            }
        })
    }

    /// Batches written until now.
    pub fn batches(&self) -> usize {
        self.written.lock().expect("no panic while it is held").batches.len()
    }

    /// Changes the pause between batches.
    pub fn pace(&self, pause: Duration) {
        self.pause_micros.store(u64::try_from(pause.as_micros()).expect("a short pause"), Ordering::SeqCst);
    }

    /// Ends the writing; the database stays open.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(writer) = self.writer.take() {
            writer.join().expect("the writer");
        }
    }

    /// What the database holds after `batches` batches.
    fn content(&self, batches: usize) -> (Vec<Family>, u64) {
        let written = self.written.lock().expect("no panic while it is held");
        let sequence = batches.checked_sub(1).map_or(0, |last| written.sequences[last]);
        (written.content(batches), sequence)
    }

    /// Opens a restored copy in the strictest mode: it must hold exactly what was there after `batches` batches.
    pub fn check_copy(&self, copy: &Path, batches: usize) {
        let mut options = server::database_options(&Places::default(), &self.settings);
        options.create_if_missing(false);
        options.set_wal_recovery_mode(DBRecoveryMode::AbsoluteConsistency);
        let opened = server::open_with(copy, &options, &self.settings)
            .unwrap_or_else(|e| panic!("the copy at {batches} batches does not open: {e}"));
        let dump = server::dump(&opened.db, &opened.names).unwrap_or_else(|e| panic!("at {batches} batches: {e}"));
        let (content, sequence) = self.content(batches);
        let got: HashMap<_, BTreeMap<_, _>> = dump.into_iter().map(|(n, p)| (n, p.into_iter().collect())).collect();
        assert_eq!(got.len(), self.names.len(), "at {batches} batches: {:?}", opened.names);
        for (name, expected) in self.names.iter().zip(&content) {
            let got = &got[name];
            let differing = expected.iter().filter(|(k, v)| got.get(*k).map(Vec::as_slice) != Some(&***v)).count()
                + got.keys().filter(|k| !expected.contains_key(*k)).count();
            assert_eq!(
                differing,
                0,
                "at {batches} batches {name} differs in {differing} keys; its counter is {:?}",
                got.get(COUNTER).map(|c| String::from_utf8_lossy(c).into_owned())
            );
        }
        assert_eq!(opened.db.latest_sequence_number(), sequence, "the latest sequence number at {batches} batches");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn batch(rng: &mut StdRng, number: u64, families: usize) -> Batch {
    let mut batch = vec![(0, COUNTER.to_vec(), Some(Value::from(number.to_string().into_bytes())))];
    for _ in 0..rng.random_range(1..5) {
        let key = format!("k{:04}", rng.random_range(0..1000)).into_bytes();
        let value = rng.random_bool(0.8).then(|| {
            let length = rng.random_range(10..200);
            Value::from(format!("{number}-{}", "x".repeat(length)).into_bytes())
        });
        batch.push((rng.random_range(0..families), key, value));
    }
    batch
}
