//! Random programs: what a server and an archiver beside it do, one step after the other.
//!
//! Owns: the steps, the settings of the database, and their generation from a seed. The same seed gives the same
//! program. Refuses: programs whose result RocksDB leaves undefined (a single delete of a key that was put twice).
//!
//! Keys are in three groups per column family: `k` for puts, deletes, range deletes and ingestion, `m` for merges,
//! `s` for keys that are put once and single-deleted.

use std::collections::{BTreeMap, BTreeSet};

use pitr_archive::rocks::write_batch::WritePolicy;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde::{Deserialize, Serialize};

/// How the database is opened.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// `write_buffer_size` in bytes.
    pub write_buffer: usize,
    /// `recycle_log_file_num`.
    pub recycle: usize,
    /// `wal_compression` = zstd.
    pub wal_zstd: bool,
    /// `avoid_flush_during_recovery`.
    pub avoid_flush_during_recovery: bool,
    /// `avoid_flush_during_shutdown`.
    pub avoid_flush_during_shutdown: bool,
    /// `max_manifest_file_size` in bytes.
    pub manifest_bytes: usize,
    /// `WAL_ttl_seconds`: above 0, old WALs go to `archive/`.
    pub wal_ttl: u64,
    /// WALs in a directory of their own.
    pub separate_wal_dir: bool,
    /// Data files in a directory of their own.
    pub db_paths: bool,
    /// Values from 64 bytes on in blob files.
    pub blobs: bool,
    /// `allow_2pc`, as a transaction database has it.
    pub allow_2pc: bool,
    /// `enable_pipelined_write`.
    pub pipelined: bool,
    /// `manual_wal_flush`: committed writes stay in the server's memory until it flushes them.
    pub manual_wal_flush: bool,
    /// `async_wal_precreate`: an empty next WAL is around.
    pub precreate_wal: bool,
    /// `track_and_verify_wals`: predecessor records in the WALs.
    pub verify_wals: bool,
    /// `track_and_verify_wals_in_manifest`: the MANIFEST says how long every WAL is.
    pub track_wals: bool,
    /// A second place for data files: compactions write there.
    pub second_place: bool,
    /// `two_write_queues`.
    pub two_write_queues: bool,
    /// `unordered_write`.
    pub unordered_write: bool,
    /// `atomic_flush`: every flush is one of all column families, and one atomic group in the MANIFEST.
    pub atomic_flush: bool,
    /// No merge operator: then `--finish` knows everything that the database has.
    pub without_merge_operator: bool,
    /// A transaction database with this write policy.
    pub transactions: Option<WritePolicy>,
}

/// One operation of a write batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// `key = value`.
    Put(String, Vec<u8>, Vec<u8>),
    /// The key goes.
    Delete(String, Vec<u8>),
    /// The key, put once, goes.
    SingleDelete(String, Vec<u8>),
    /// Keys from the first up to, not including, the second go.
    DeleteRange(String, Vec<u8>, Vec<u8>),
    /// The operand is appended.
    Merge(String, Vec<u8>, Vec<u8>),
    /// Wide columns, by name in order; the one without a name is the key's value.
    PutEntity(String, Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>),
    /// `key = value`, with a write time of its own (Unix, seconds).
    TimedPut(String, Vec<u8>, Vec<u8>, u64),
    /// A blob that is only in the log.
    LogData(Vec<u8>),
}

impl Op {
    /// The column family that it writes to.
    pub fn family(&self) -> Option<&str> {
        match self {
            Self::Put(family, ..)
            | Self::Delete(family, ..)
            | Self::SingleDelete(family, ..)
            | Self::DeleteRange(family, ..)
            | Self::PutEntity(family, ..)
            | Self::TimedPut(family, ..)
            | Self::Merge(family, ..) => Some(family),
            Self::LogData(_) => None,
        }
    }
}

/// How a session of the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It closes the database.
    Clean,
    /// SIGKILL while it is idle.
    Killed,
}

/// What the database does next, or the archiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A write batch.
    Write(Vec<Op>),
    /// A write batch that is not logged, followed by a flush of its column families.
    WriteUnlogged(Vec<Op>),
    /// A flush of one column family, or of all.
    Flush(Option<String>),
    /// A compaction of everything in one column family.
    Compact(String),
    /// A new column family.
    Create(String),
    /// The end of one.
    Drop(String),
    /// The server ends and starts again.
    Reopen(End),
    /// The server is killed in the middle of a write batch; then it starts again.
    KillWhileWriting(Vec<Op>),
    /// Sorted pairs enter a column family as a file.
    Ingest(String, Vec<(Vec<u8>, Vec<u8>)>),
    /// A transaction of this name is prepared.
    Prepare(String, Vec<Op>),
    /// The prepared transaction takes effect.
    Commit(String),
    /// The prepared transaction is abandoned.
    RollBack(String),
    /// Files that lie wholly in the range are dropped.
    DropFiles(String, Vec<u8>, Vec<u8>),
    /// The archiver.
    Archive(ArchiverStep),
}

/// What the archiver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiverStep {
    /// Reads what is readable.
    Poll,
    /// Cuts and ships.
    Ship,
    /// Takes a base.
    Base,
    /// Takes a base if it wants one.
    WantedBase,
    /// Names the present position.
    Tag(String),
    /// Says that it is alive.
    Heartbeat,
    /// Rolls up.
    CloseManifest,
    /// Ends in order and starts again.
    Reopen,
    /// Ends in order; nobody archives until the next step of the archiver, which starts it.
    Stop,
    /// Vanishes without a word and starts again.
    Crash,
}

impl Step {
    fn without_merges(&mut self) {
        let (Self::Write(ops) | Self::WriteUnlogged(ops) | Self::KillWhileWriting(ops)) = self else { return };
        for op in ops {
            if let Op::Merge(family, key, operand) = op {
                *op = Op::Put(std::mem::take(family), std::mem::take(key), std::mem::take(operand));
            }
        }
    }

    /// A word for the coverage table.
    pub fn kinds(&self) -> Vec<&'static str> {
        fn ops(ops: &[Op]) -> impl Iterator<Item = &'static str> + '_ {
            ops.iter().map(|op| match op {
                Op::Put(..) => "put",
                Op::Delete(..) => "delete",
                Op::SingleDelete(..) => "single delete",
                Op::DeleteRange(..) => "delete range",
                Op::Merge(..) => "merge",
                Op::PutEntity(..) => "put entity",
                Op::TimedPut(..) => "timed put",
                Op::LogData(..) => "log data",
            })
        }
        match self {
            Self::Write(batch) => std::iter::once("write").chain(ops(batch)).collect(),
            Self::WriteUnlogged(_) => vec!["unlogged write"],
            Self::Flush(None) => vec!["flush all"],
            Self::Flush(Some(_)) => vec!["flush one"],
            Self::Compact(_) => vec!["compact"],
            Self::Create(_) => vec!["create column family"],
            Self::Drop(_) => vec!["drop column family"],
            Self::Reopen(End::Clean) => vec!["clean reopen"],
            Self::Reopen(End::Killed) => vec!["killed reopen"],
            Self::KillWhileWriting(_) => vec!["killed while writing"],
            Self::Ingest(..) => vec!["ingest"],
            Self::DropFiles(..) => vec!["drop files in range"],
            Self::Prepare(..) => vec!["prepare"],
            Self::Commit(_) => vec!["commit"],
            Self::RollBack(_) => vec!["roll back"],
            Self::Archive(step) => vec![match step {
                ArchiverStep::Poll => "archiver: poll",
                ArchiverStep::Ship => "archiver: ship",
                ArchiverStep::Base => "archiver: base",
                ArchiverStep::WantedBase => "archiver: wanted base",
                ArchiverStep::Tag(_) => "archiver: tag",
                ArchiverStep::Heartbeat => "archiver: heartbeat",
                ArchiverStep::CloseManifest => "archiver: close manifest",
                ArchiverStep::Reopen => "archiver: reopen",
                ArchiverStep::Stop => "archiver: stop",
                ArchiverStep::Crash => "archiver: crash",
            }],
        }
    }
}

/// Every kind that a run of many programs must have met.
pub const KINDS: &[&str] = &[
    "write",
    "put",
    "delete",
    "single delete",
    "delete range",
    "merge",
    "put entity",
    "timed put",
    "two write queues",
    "unordered write",
    "atomic flush",
    "pipelined write",
    "blob files in several places",
    "log data",
    "unlogged write",
    "flush all",
    "flush one",
    "compact",
    "create column family",
    "create column family of a dropped one's name",
    "drop column family",
    "clean reopen",
    "clean reopen that lowers the sequence",
    "killed reopen",
    "killed while writing",
    "ingest",
    "drop files in range",
    "repeated ingestion",
    "laid down flushes",
    "replayed into tables",
    "prepare",
    "commit",
    "roll back",
    "write-committed",
    "write-prepared",
    "write-unprepared",
    "pending transaction at a target",
    "archiver: poll",
    "archiver: ship",
    "archiver: base",
    "archiver: wanted base",
    "archiver: tag",
    "archiver: heartbeat",
    "archiver: close manifest",
    "archiver: reopen",
    "archiver: stop",
    "archiver: crash",
];

/// Where the archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A directory.
    Local,
    /// Memory, with failures.
    Faulty,
}

/// A program.
#[derive(Clone, Debug)]
pub struct Program {
    /// What it was made from.
    pub seed: u64,
    /// How the database is opened.
    pub settings: Settings,
    /// What happens.
    pub steps: Vec<Step>,
    /// Where the archive is.
    pub store: StoreKind,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Whether the archiver polls after every step of the database, so that it misses nothing.
    pub attentive: bool,
}

impl Program {
    /// Whether the database is opened so that sub-batches take numbers: prepared data lies among the committed.
    pub fn counts_batches(&self) -> bool {
        self.settings.transactions.is_some_and(|policy| policy != WritePolicy::WriteCommitted)
    }
}

/// Which of the operations that the log does not tell may occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    /// None.
    Logged,
    /// Unlogged writes, ingestion, dropped files.
    Unlogged,
    /// Two-phase commit.
    Transactions(WritePolicy),
}

impl Flavour {
    const fn counts_batches(self) -> bool {
        matches!(self, Self::Transactions(WritePolicy::WritePrepared | WritePolicy::WriteUnprepared))
    }

    const fn is_transactional(self) -> bool {
        matches!(self, Self::Transactions(_))
    }
}

/// The program of `seed`.
pub fn generate(seed: u64) -> Program {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut settings = settings(&mut rng);
    let mut flavour = if rng.random_bool(0.3) { Flavour::Unlogged } else { Flavour::Logged };
    // A choice of its own, so that the other programs stay what they were.
    let mut other = StdRng::seed_from_u64(seed ^ 0x2FC0_77A5);
    if other.random_bool(0.2) {
        flavour = Flavour::Transactions(transactional(&mut settings, &mut other));
    }
    let attentive = rng.random_bool(0.6);
    further(&mut settings, flavour, &mut other);
    let extra = (!flavour.is_transactional() && other.random_bool(0.3)).then_some(other);
    let mut generator = Generator::new(rng, flavour, extra);
    let length = generator.rng.random_range(25..110);
    let start = generator.rng.random_range(0..12);
    // Every open of such a database takes a number: who was not there cannot tell it from a write without the log.
    let start = if flavour.counts_batches() { 0 } else { start };
    for _ in 0..start {
        generator.database_step();
    }
    generator.archiver(ArchiverStep::Poll);
    generator.archiver(ArchiverStep::Base);
    while generator.steps.len() < length {
        if generator.rng.random_bool(0.3) {
            generator.archiver_step();
        } else {
            generator.database_step();
        }
    }
    let store = if generator.rng.random_bool(0.4) { StoreKind::Faulty } else { StoreKind::Local };
    // A base is uploaded in one go: with many files, one request in ten that fails never lets it pass.
    settings.blobs &= store == StoreKind::Local;
    let encrypted = generator.rng.random_bool(0.25);
    // Where the database has nothing that a restore does not know, ingestions can be repeated.
    if flavour == Flavour::Unlogged && seed % 2 == 1 {
        settings.without_merge_operator = true;
        generator.steps.iter_mut().for_each(Step::without_merges);
    }
    Program { seed, settings, steps: generator.steps, store, encrypted, attentive }
}

fn settings(rng: &mut StdRng) -> Settings {
    let wal_ttl = if rng.random_bool(0.3) { 3600 } else { 0 };
    let mut settings = Settings {
        write_buffer: *[8 << 10, 64 << 10, 4 << 20].choose(rng).expect("not empty"),
        // RocksDB itself takes recycling back where old WALs are kept.
        recycle: if wal_ttl == 0 && rng.random_bool(0.25) { 3 } else { 0 },
        wal_zstd: rng.random_bool(0.3),
        avoid_flush_during_recovery: rng.random_bool(0.3),
        avoid_flush_during_shutdown: rng.random_bool(0.3),
        manifest_bytes: *[600, 4 << 10, 1 << 30].choose(rng).expect("not empty"),
        wal_ttl,
        separate_wal_dir: rng.random_bool(0.25),
        db_paths: rng.random_bool(0.15),
        blobs: rng.random_bool(0.25),
        allow_2pc: rng.random_bool(0.1),
        pipelined: rng.random_bool(0.2),
        manual_wal_flush: false,
        precreate_wal: rng.random_bool(0.2),
        verify_wals: rng.random_bool(0.2),
        track_wals: rng.random_bool(0.2),
        second_place: false,
        two_write_queues: false,
        unordered_write: false,
        atomic_flush: false,
        without_merge_operator: false,
        transactions: None,
    };
    // After a kill RocksDB itself sometimes refuses to open such a database again ("Column family inconsistency").
    settings.allow_2pc &= settings.recycle == 0;
    settings
}

/// Settings that change how a record reaches the log and the files.
fn further(settings: &mut Settings, flavour: Flavour, rng: &mut StdRng) {
    settings.second_place = settings.db_paths && rng.random_bool(0.7);
    // RocksDB refuses these together with pipelined writes.
    if settings.pipelined {
        return;
    }
    // Where sub-batches count, writes outside transactions are given numbers that the log does not show.
    settings.two_write_queues = rng.random_bool(0.15) && !flavour.counts_batches();
    settings.unordered_write = rng.random_bool(0.15) && !flavour.is_transactional();
    settings.atomic_flush = rng.random_bool(0.15);
}

fn transactional(settings: &mut Settings, rng: &mut StdRng) -> WritePolicy {
    use WritePolicy::{WriteCommitted, WritePrepared, WriteUnprepared};
    let policy = *[WriteCommitted, WriteCommitted, WritePrepared, WriteUnprepared].choose(rng).expect("not empty");
    settings.transactions = Some(policy);
    // `TransactionDB::Open` sets it.
    settings.allow_2pc = true;
    settings.recycle = 0;
    // With it RocksDB forgets which WALs hold prepared transactions, and loses them (`experiments.rs`).
    settings.pipelined = false;
    if policy != WriteCommitted {
        // Where something is pending, RocksDB compacts the same file again and again, a thousand times a second; with small
        // MANIFESTs nobody can tell which of them nobody saw.
        settings.manifest_bytes = 1 << 30;
    }
    policy
}

struct Generator {
    rng: StdRng,
    /// Decides about the operations that came later than the others; absent where there are none.
    extra: Option<StdRng>,
    flavour: Flavour,
    steps: Vec<Step>,
    /// Column families that exist, with their `s` keys that exist.
    families: BTreeMap<String, BTreeSet<Vec<u8>>>,
    /// Prepared transactions, with the column families that they write to.
    prepared: BTreeMap<String, BTreeSet<String>>,
    /// Keys that prepared transactions have locked.
    locked: BTreeMap<String, BTreeSet<(String, Vec<u8>)>>,
    /// Makes every batch different from every other.
    counter: u64,
}

impl Generator {
    fn new(rng: StdRng, flavour: Flavour, extra: Option<StdRng>) -> Self {
        let families = BTreeMap::from([("default".to_owned(), BTreeSet::new())]);
        Self {
            rng,
            extra,
            flavour,
            steps: Vec::new(),
            families,
            prepared: BTreeMap::new(),
            locked: BTreeMap::new(),
            counter: 0,
        }
    }

    fn archiver(&mut self, step: ArchiverStep) {
        self.steps.push(Step::Archive(step));
    }

    fn archiver_step(&mut self) {
        let step = match self.rng.random_range(0..100) {
            0..30 => ArchiverStep::Poll,
            30..55 => ArchiverStep::Ship,
            55..65 => ArchiverStep::Base,
            65..75 => ArchiverStep::WantedBase,
            75..82 => {
                self.counter += 1;
                ArchiverStep::Tag(format!("tag-{}", self.counter))
            }
            82..85 => ArchiverStep::Heartbeat,
            85..88 => ArchiverStep::CloseManifest,
            88..92 => ArchiverStep::Reopen,
            92..94 => ArchiverStep::Stop,
            _ => ArchiverStep::Crash,
        };
        self.archiver(step);
    }

    fn database_step(&mut self) {
        let unlogged = self.flavour == Flavour::Unlogged;
        if self.flavour.is_transactional() && self.rng.random_bool(0.35) {
            let step = self.transaction_step();
            self.steps.push(step);
            return;
        }
        let step = match self.rng.random_range(0..100) {
            0..62 => Step::Write(self.batch()),
            62..66 => Step::Flush(None),
            66..72 => Step::Flush(Some(self.family())),
            72..75 => Step::Compact(self.family()),
            75..80 => match self.new_family() {
                Some(name) => Step::Create(name),
                None => Step::Flush(None),
            },
            80..83 => {
                let name = self.family();
                // A prepared transaction could not be committed without its column families.
                // Where sub-batches count, RocksDB cannot recover records of a dropped column family: it ends its process.
                if name == "default"
                    || self.flavour.counts_batches()
                    || self.prepared.values().any(|families| families.contains(&name))
                {
                    Step::Write(self.batch())
                } else {
                    self.families.remove(&name);
                    Step::Drop(name)
                }
            }
            83..89 => {
                // What makes a clean reopen lower the sequence: the newest keys vanish in the flush.
                if self.rng.random_bool(0.5) {
                    self.vanishing_keys();
                    self.steps.push(Step::Flush(None));
                }
                Step::Reopen(End::Clean)
            }
            89..93 => Step::Reopen(End::Killed),
            93..95 => {
                // With a put, the content or the sequence number tells afterwards whether it was written.
                let put = Op::Put(self.family(), self.key('k'), self.value(60));
                Step::KillWhileWriting(self.batch().into_iter().chain([put]).collect())
            }
            95..97 if unlogged => Step::WriteUnlogged(self.plain_puts()),
            97..99 if unlogged => {
                let family = self.family();
                Step::Ingest(family, self.pairs())
            }
            99 if unlogged => {
                let (from, to) = self.range();
                Step::DropFiles(self.family(), from, to)
            }
            _ => Step::Write(self.batch()),
        };
        self.steps.push(step);
    }

    fn transaction_step(&mut self) -> Step {
        let names: Vec<_> = self.prepared.keys().cloned().collect();
        let chosen = names.choose(&mut self.rng).cloned();
        match chosen {
            Some(name) if names.len() > 3 || self.rng.random_bool(0.5) => {
                self.prepared.remove(&name);
                self.locked.remove(&name);
                // WriteUnprepared undoes keys in an order of its own, so its record could not be told beforehand.
                let unprepared = self.flavour == Flavour::Transactions(WritePolicy::WriteUnprepared);
                if unprepared || self.rng.random_bool(0.7) { Step::Commit(name) } else { Step::RollBack(name) }
            }
            _ => {
                self.counter += 1;
                let name = format!("transaction-{}", self.counter);
                let mut ops = Vec::new();
                for _ in 0..self.rng.random_range(1..8) {
                    let (family, key) = (self.family(), self.key('t'));
                    let free = |(_, locked): (&String, &BTreeSet<_>)| !locked.contains(&(family.clone(), key.clone()));
                    if !self.locked.iter().filter(|(other, _)| **other != name).all(free) {
                        continue;
                    }
                    self.locked.entry(name.clone()).or_default().insert((family.clone(), key.clone()));
                    let put = self.rng.random_bool(0.75);
                    ops.push(if put { Op::Put(family, key, self.value(40)) } else { Op::Delete(family, key) });
                }
                // With a key of its own it is never empty.
                let family = self.family();
                ops.push(Op::Put(family, name.clone().into_bytes(), self.value(10)));
                let families = ops.iter().filter_map(Op::family).map(ToOwned::to_owned).collect();
                self.prepared.insert(name.clone(), families);
                Step::Prepare(name, ops)
            }
        }
    }

    /// Puts and single deletes of the same keys, one batch each, so that a flush leaves nothing of them.
    fn vanishing_keys(&mut self) {
        let family = self.family();
        for _ in 0..self.rng.random_range(1..4) {
            self.counter += 1;
            let key = format!("s-vanishing-{}", self.counter).into_bytes();
            let put = Op::Put(family.clone(), key.clone(), self.value(20));
            self.steps.push(Step::Write(vec![put]));
            let mark = Op::LogData(format!("batch {}", self.counter).into_bytes());
            let gone = self.single_delete(family.clone(), key);
            self.steps.push(Step::Write(vec![mark, gone]));
        }
    }

    /// A transaction database refuses a single delete in a batch of its own ("SingleDeleteCF not implemented").
    fn single_delete(&self, family: String, key: Vec<u8>) -> Op {
        if self.flavour.is_transactional() { Op::Delete(family, key) } else { Op::SingleDelete(family, key) }
    }

    fn family(&mut self) -> String {
        let names: Vec<_> = self.families.keys().cloned().collect();
        names.choose(&mut self.rng).expect("default exists").clone()
    }

    fn new_family(&mut self) -> Option<String> {
        let free: Vec<_> =
            ["alpha", "beta", "gamma", "delta"].iter().filter(|n| !self.families.contains_key(**n)).collect();
        let name = (*free.choose(&mut self.rng)?).to_string();
        self.families.insert(name.clone(), BTreeSet::new());
        Some(name)
    }

    fn value(&mut self, at_most: usize) -> Vec<u8> {
        self.counter += 1;
        let mut value = format!("v{}-", self.counter).into_bytes();
        let length = self.rng.random_range(0..=at_most);
        value.extend((0..length).map(|_| self.rng.random_range(b'a'..=b'z')));
        value
    }

    fn size(&mut self) -> usize {
        // Mostly small, sometimes over several blocks of the log.
        match self.rng.random_range(0..60) {
            0 => 90_000,
            1..4 => 9_000,
            4..16 => 400,
            _ => 30,
        }
    }

    fn key(&mut self, group: char) -> Vec<u8> {
        format!("{group}{:03}", self.rng.random_range(0..60)).into_bytes()
    }

    fn range(&mut self) -> (Vec<u8>, Vec<u8>) {
        let from = self.rng.random_range(0..60);
        let to = from + self.rng.random_range(1..20);
        (format!("k{from:03}").into_bytes(), format!("k{to:03}").into_bytes())
    }

    fn pairs(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        // Some ingestions overlap what is there, some lie beyond every key.
        let group = if self.rng.random_bool(0.5) { 'k' } else { 'x' };
        let pairs: BTreeMap<_, _> =
            (0..self.rng.random_range(1..12)).map(|_| (self.key(group), self.value(40))).collect();
        pairs.into_iter().collect()
    }

    fn plain_puts(&mut self) -> Vec<Op> {
        let family = self.family();
        (0..self.rng.random_range(1..5)).map(|_| Op::Put(family.clone(), self.key('k'), self.value(40))).collect()
    }

    fn batch(&mut self) -> Vec<Op> {
        let length = match self.rng.random_range(0..20) {
            0 => self.rng.random_range(20..80),
            1..8 => self.rng.random_range(2..8),
            _ => 1,
        };
        self.counter += 1;
        let mut ops = vec![Op::LogData(format!("batch {}", self.counter).into_bytes())];
        if self.rng.random_bool(0.02) && !self.flavour.is_transactional() {
            return ops;
        }
        ops.extend((0..length).map(|_| self.op()));
        if self.flavour.is_transactional() && ops.iter().all(|op| op.family().is_none()) {
            // WritePrepared does not write a batch without an operation.
            ops.push(Op::Put(self.family(), self.key('k'), self.value(10)));
        }
        // A put has a value that no other put has, so the mark is not needed to tell such batches apart.
        if ops.iter().any(|op| matches!(op, Op::Put(..))) && self.rng.random_bool(0.7) {
            ops.remove(0);
        }
        ops
    }

    /// An entity or a timed put, on keys of a group of their own (`e`).
    fn extra_op(&mut self) -> Option<Op> {
        let rng = self.extra.as_mut()?;
        if !rng.random_bool(0.3) {
            return None;
        }
        let names: Vec<_> = self.families.keys().cloned().collect();
        let family = names.choose(rng).expect("default exists").clone();
        let key = format!("e{:03}", rng.random_range(0..30)).into_bytes();
        self.counter += 1;
        let value = format!("e{}-{}", self.counter, "x".repeat(rng.random_range(0..120))).into_bytes();
        Some(match rng.random_range(0..10) {
            0..4 => {
                let mut columns = vec![(b"a".to_vec(), value.clone()), (b"b".to_vec(), b"1".to_vec())];
                if rng.random_bool(0.7) {
                    columns.insert(0, (Vec::new(), value));
                }
                Op::PutEntity(family, key, columns)
            }
            4..8 => Op::TimedPut(family, key, value, rng.random_range(1_700_000_000..1_790_000_000)),
            8 => Op::Delete(family, key),
            _ => Op::Put(family, key, value),
        })
    }

    fn op(&mut self) -> Op {
        if let Some(op) = self.extra_op() {
            return op;
        }
        let family = self.family();
        match self.rng.random_range(0..100) {
            0..50 => {
                let size = self.size();
                Op::Put(family, self.key('k'), self.value(size))
            }
            50..62 => Op::Delete(family, self.key('k')),
            // A transaction database refuses ranges.
            62..68 if self.flavour.is_transactional() => Op::Delete(family, self.key('k')),
            62..68 => {
                let (from, to) = self.range();
                Op::DeleteRange(family, from, to)
            }
            68..80 => Op::Merge(family, self.key('m'), self.value(10)),
            80..83 => {
                let key = self.key('m');
                Op::Delete(family, key)
            }
            83..86 => Op::LogData(self.value(30)),
            _ => {
                let key = self.key('s');
                let there = self.families.get_mut(&family).expect("an existing family");
                if there.remove(&key) {
                    self.single_delete(family, key)
                } else {
                    there.insert(key.clone());
                    Op::Put(family, key, self.value(20))
                }
            }
        }
    }
}
