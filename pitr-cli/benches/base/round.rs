//! One round: the first base of a database, the next one after a twentieth of it has changed, and a restore of that.
//!
//! Every round begins with the same database and nothing else. Owns: what is in whose time. Of ours, all of each command:
//! its start, the archive's creation or opening, reading, hashing, encrypting, writing, fsync. Of `BackupEngine`, its own calls; the
//! database that it needs is open already, and before the second backup so is the engine, as in a server.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rocksdb::{DB, backup::BackupEngine};

use crate::{
    Settings,
    beside::{Archiver, archive, state},
    cache::{self, Cache},
    content::content,
    harness::command::{pitr, text},
    measure::{self, Ran, durable},
    peer::{self, ByChecksum},
    sealed::Sealed,
    source,
};

/// Who does it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Backup,
    ByChecksum,
    Copy,
}

/// Seconds, and what our process took of memory, in MiB, and of the processor, in seconds.
#[derive(Default)]
pub struct Met {
    pub ours: f64,
    pub backup: f64,
    pub by_checksum: f64,
    pub copy: f64,
    pub peak: f64,
    pub processor: f64,
}

impl Met {
    fn ours(&mut self, (seconds, ran): (f64, Ran)) {
        (self.ours, self.peak, self.processor) = (seconds, ran.peak_mib(), ran.processor.as_secs_f64());
    }
}

/// What a round met.
pub struct Round {
    pub first: Met,
    pub next: Met,
    /// Of `pitr run`, from its start over the changes to the end of the next base.
    pub archiver_peak: f64,
    pub restore: Met,
    /// Bytes of the database, of what it was when it was restored, and what the next base added on either side.
    pub database: u64,
    pub restored: u64,
    pub added: u64,
    pub added_backup: u64,
}

/// Seconds until now.
fn processor(archiver: &Archiver) -> f64 {
    measure::processor_time(archiver.id()).expect("a running archiver").as_secs_f64()
}

/// Where a round happens.
struct Place {
    sealed: Sealed,
    db: PathBuf,
    archive: PathBuf,
    backups: PathBuf,
    cache: Cache,
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.sealed.root.join(name)
    }

    /// Measures each of the sides, each in turn the first to be.
    fn sides(&self, sides: &[Side], round: usize, mut met: impl FnMut(Side)) {
        for n in 0..sides.len() {
            met(sides[(round + n) % sides.len()]);
        }
    }

    fn first(&self, db: &DB, engine: &mut Option<BackupEngine>, round: usize) -> Met {
        let (mut met, root) = (Met::default(), &self.sealed.root);
        self.sides(&[Side::Ours, Side::Backup, Side::Copy], round, |side| {
            self.cache.before(&self.db);
            match side {
                Side::Ours => {
                    let state = state(root);
                    let mut command = self.sealed.pitr(["base", "--db", text(&self.db), "--state", text(&state)]);
                    met.ours(durable(root, || measure::run(&mut command)));
                }
                Side::Backup => {
                    let made = durable(root, || {
                        let engine = engine.insert(peer::engine(&self.backups));
                        peer::back_up(engine, db, &self.backups);
                    });
                    met.backup = made.0;
                }
                Side::Copy => {
                    let copy = self.path("copy");
                    met.copy = durable(root, || peer::copy(&self.db, &copy)).0;
                    fs::remove_dir_all(copy).expect("removing a copy");
                }
                Side::ByChecksum => unreachable!("its first backup is not timed"),
            }
        });
        met
    }

    /// Asks the running archiver.
    fn ask(&self, verb: &str) -> Ran {
        let state = state(&self.sealed.root);
        let ran = measure::run(&mut pitr([verb, "--json", "--db", text(&self.db), "--state", text(&state)]));
        let answer: serde_json::Value = serde_json::from_str(&ran.answer).expect("JSON");
        assert_eq!(answer["by"], "archiver", "{answer}");
        ran
    }

    fn next(
        &self,
        archiver: &Archiver,
        (db, new): (&DB, &[PathBuf]),
        (engine, by_checksum): (&mut BackupEngine, &mut ByChecksum),
        round: usize,
    ) -> Met {
        let (mut met, root) = (Met::default(), &self.sealed.root);
        self.sides(&[Side::Ours, Side::Backup, Side::ByChecksum, Side::Copy], round, |side| {
            self.cache.before(&self.db);
            match side {
                Side::Ours => {
                    let before = processor(archiver);
                    met.ours(durable(root, || self.ask("base")));
                    met.processor += processor(archiver) - before;
                }
                Side::ByChecksum => met.by_checksum = durable(root, || by_checksum.back_up(db)).0,
                Side::Copy => {
                    let copy = self.path("copy");
                    fs::create_dir(&copy).expect("a directory");
                    met.copy = durable(root, || peer::copy_files(new, &copy)).0;
                    fs::remove_dir_all(copy).expect("removing a copy");
                }
                Side::Backup => met.backup = durable(root, || peer::back_up(engine, db, &self.backups)).0,
            }
        });
        met
    }

    /// In the first round with a look at what came of it.
    fn restore(&self, round: usize, expected: Option<(blake3::Hash, u64)>) -> Met {
        let (mut met, root, into) = (Met::default(), &self.sealed.root, self.path("restored"));
        let jobs = peer::AT_ONCE.to_string();
        self.sides(&[Side::Ours, Side::Backup], round, |side| {
            if side == Side::Ours {
                self.cache.before(&self.archive);
                let args = ["restore", "--to-latest", "--jobs", &jobs, "--into", text(&into)];
                met.ours(durable(root, || measure::run(&mut self.sealed.pitr(args))));
            } else {
                self.cache.before(&self.backups);
                met.backup = durable(root, || peer::restore(&self.backups, &into)).0;
            }
            if let Some(expected) = expected {
                assert_eq!(content(&source::open(&into), &[]), expected, "what was restored is not the database");
            }
            fs::remove_dir_all(&into).expect("removing a copy");
        });
        met
    }
}

/// What a database has that it had not when it was `before`.
fn new_tables(db: &Path, before: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(db).expect("the database").map(|entry| entry.expect("a file").path());
    let tables = files.filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
    tables.filter(|path| !before.join(path.file_name().expect("a name")).exists()).collect()
}

/// A round with the database `source`, below `root`.
pub fn run(root: &Path, source: &Path, settings: &Settings, number: usize) -> Round {
    let root = root.join("round");
    fs::create_dir(&root).expect("a directory");
    let place = Place {
        sealed: Sealed::new(&root),
        db: root.join("db"),
        archive: archive(&root),
        backups: root.join("backups"),
        cache: settings.cache,
    };
    source::again(source, &place.db);
    let db = source::open(&place.db);
    let database = cache::bytes(&place.db);
    let mut engine = None;
    let first = place.first(&db, &mut engine, number);
    let engine = engine.as_mut().expect("an engine");
    let mut by_checksum = ByChecksum::engine(&root.join("by-checksum"));
    by_checksum.back_up(&db);

    let state = state(&root);
    let run = place.sealed.pitr(["run", "--db", text(&place.db), "--state", text(&state)]);
    let archiver = Archiver::answering(run, &place.db, &state);
    source::change(&db, settings.base);
    // Both sides find all of the log shipped, and nothing at work.
    place.ask("flush");
    let before = [&place.archive, &place.backups].map(|dir| cache::bytes(dir));
    let new = new_tables(&place.db, source);
    let next = place.next(&archiver, (&db, &new), (engine, &mut by_checksum), number);
    let [archived, backed_up] = [&place.archive, &place.backups].map(|dir| cache::bytes(dir));
    let archiver_peak = measure::peak(archiver.id()).expect("a running archiver") as f64 / f64::from(1 << 20);
    archiver.stop();

    let expected = (number == 0).then(|| content(&db, &[]));
    let restored = cache::bytes(&place.db);
    drop((by_checksum, db));
    let restore = place.restore(number, expected);
    fs::remove_dir_all(&root).expect("removing a round");
    let (added, added_backup) = (archived - before[0], backed_up - before[1]);
    Round { first, next, archiver_peak, restore, database, restored, added, added_backup }
}
