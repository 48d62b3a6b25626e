//! What an archiver is told, and the parts that are given to it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use pitr_archive::{
    Code, Error, Result,
    catalog::index::Shape,
    clock::{Clock, SystemClock},
    random::{OsRandom, Random},
    rate::Rate,
};

use crate::{
    budget::Budget,
    engine::{Flushes, Policy},
    merge,
    metrics::Metrics,
    observer::{NoObserver, Observer},
    owner::{NoOwner, Owner},
    state::StateDir,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);

/// Settings of one archiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiverConfig {
    /// The database directory.
    pub db: PathBuf,
    /// The state directory. Default: `<db>.pitr`, beside the database.
    pub state: PathBuf,
    /// A segment is shipped when its oldest record is this old. Default: 1 s.
    pub interval: Duration,
    /// A segment is shipped when it holds this many plain bytes. Default: 8 MiB.
    pub segment_bytes: u64,
    /// How often the end of the log is looked at. Default: 25 ms.
    pub poll: Duration,
    /// How often a quiet archiver says that it is alive. Default: 5 minutes.
    pub heartbeat: Duration,
    /// A roll-up manifest is written after this time. Default: 5 minutes.
    pub manifest_interval: Duration,
    /// A roll-up manifest is written after this many segments. Default: 600.
    pub manifest_segments: u64,
    /// Which groups of manifests have an index. Default: 16, 256 and 4096.
    pub index: Shape,
    /// The least time between two bases that follow sessions and barriers by themselves. Default: 10 s.
    pub base_spacing: Duration,
    /// The least time between two bases that only barriers ask for; while they keep coming it doubles. The first comes at
    /// once. Default: 1 minute.
    pub barrier_base_spacing: Duration,
    /// How far it grows. Default: 15 minutes.
    pub barrier_base_spacing_max: Duration,
    /// Files that enter the database without the log (ingestion) are captured up to this many bytes for one ingestion,
    /// and four times as many that wait for their upload; others cannot be crossed by a replay. Default: 1 GiB.
    pub capture_bytes: u64,
    /// Whether the files of flushes are shipped beside the log, for restores that replay next to nothing. At most half
    /// of `capture_bytes` waits for its upload. Default: they are not; each costs its bytes in the store once more.
    pub flushes: Flushes,
    /// Column families that may be written without the log (`disableWAL`): that is no barrier then, and what a restore gives
    /// of them is what a crash would have kept. The operator vouches that no others are written so. Default: none.
    pub unlogged_tolerate: Vec<String>,
    /// zstd level of segments. Default: 1.
    pub compression_level: i32,
    /// What the server was given as `db_paths`, in its order; OPTIONS files do not tell. Default: none.
    pub db_paths: Vec<PathBuf>,
    /// Where pins of WALs lie that are on another file system than the state directory. Default: beside their directory,
    /// under its name with `.pitr` behind it.
    pub wal_pins: Option<PathBuf>,
    /// The archive's name, where a database has several: what is not below the state directory is kept apart by it.
    /// Default: none.
    pub archive_name: Option<String>,
    /// Names of files beside RocksDB's own, in the database directory, that every base carries.
    pub include: Vec<String>,
    /// Who writes, for people. Default: host and process id.
    pub writer: String,
    /// How new files are noticed. Default: by events.
    pub file_events: FileEvents,
    /// Files of a base that are read and sent at once. Each holds a few chunks in memory, and a thread that hashes and seals
    /// them. Default: 2, which hides a store's latency well enough, and leaves the rest of the machine to the server.
    pub uploads: usize,
    /// What may be held back while the archive is away. Default: no budget, hold, the usual floor of free space.
    pub budget: Budget,
    /// What happens where another archiver still writes into the archive. Default: it is left to it.
    pub rival: Rival,
    /// How segments are merged in the background. Default: to minutes, hours and days.
    pub merge: merge::Policy,
}

/// What a claim on an archive means for the archiver that had it before and is still writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// Whoever goes on writing was first and keeps the archive: this one ends.
    Leave,
    /// This one takes the archive over: the other meets its segments, or its claim, and ends.
    TakeOver,
}

/// How new files in the database's directories are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileEvents {
    /// A thread is told by the operating system, and the directories are listed, too.
    Watched,
    /// The directories are listed: no thread, the same answers in every repetition.
    Scanned,
}

impl ArchiverConfig {
    /// The defaults for a database.
    pub fn new(db: impl Into<PathBuf>) -> Self {
        let db = db.into();
        let uname = rustix::system::uname();
        Self {
            state: StateDir::default_for(&db),
            db,
            interval: Duration::from_secs(1),
            segment_bytes: 8 << 20,
            poll: Duration::from_millis(25),
            heartbeat: Duration::from_secs(300),
            manifest_interval: Duration::from_secs(300),
            manifest_segments: 600,
            index: Shape::default(),
            base_spacing: Duration::from_secs(10),
            barrier_base_spacing: Duration::from_secs(60),
            barrier_base_spacing_max: Duration::from_secs(15 * 60),
            capture_bytes: 1 << 30,
            flushes: Flushes::default(),
            unlogged_tolerate: Vec::new(),
            compression_level: 1,
            db_paths: Vec::new(),
            wal_pins: None,
            archive_name: None,
            include: Vec::new(),
            writer: format!("{}:{}", uname.nodename().to_string_lossy(), std::process::id()),
            file_events: FileEvents::Watched,
            uploads: 2,
            budget: Budget::default(),
            rival: Rival::Leave,
            merge: merge::Policy::default(),
        }
    }

    /// Refuses times that nobody can mean: a slip of the hand in a file would be noticed on the day of a restore.
    ///
    /// # Errors
    /// `config.contradictory`.
    pub(crate) fn check_times(&self) -> Result<()> {
        let refused = |name: &str| {
            Error::new(Code::ConfigContradictory, "reading the settings of").on(self.db.display()).with("setting", name)
        };
        for (name, value, most) in [
            ("interval", self.interval, DAY),
            ("heartbeat", self.heartbeat, YEAR),
            ("manifest_interval", self.manifest_interval, YEAR),
            ("poll", self.poll, MINUTE),
        ] {
            if value.is_zero() || value > most {
                return Err(refused(name).with("seconds", value.as_secs_f64()).with("at most", most.as_secs()));
            }
        }
        Ok(())
    }

    /// Takes over what can change while the archiver runs, and names it.
    pub fn adopt(&mut self, new: &Self) -> Vec<&'static str> {
        let mut changed = Vec::new();
        macro_rules! adopt {
            ($($field:ident),* $(,)?) => {$(
                if self.$field != new.$field {
                    self.$field.clone_from(&new.$field);
                    changed.push(stringify!($field));
                }
            )*};
        }
        adopt!(
            interval,
            segment_bytes,
            heartbeat,
            manifest_interval,
            manifest_segments,
            base_spacing,
            barrier_base_spacing,
            barrier_base_spacing_max,
            capture_bytes,
            flushes,
            unlogged_tolerate,
            compression_level,
            include,
            uploads,
            budget,
            merge,
        );
        changed
    }

    /// What the engine does about changes outside the log.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            capture_bytes: self.capture_bytes,
            unlogged_tolerate: self.unlogged_tolerate.clone(),
            flushes: self.flushes,
        }
    }
}

/// What differs between a real run and a test.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// The owner of the open database, if it is this program.
    pub owner: Arc<dyn Owner>,
    /// Who is told what happens.
    pub observer: Arc<dyn Observer>,
    /// Where the archiver tells how it is doing. Whoever keeps a clone can look at any time.
    pub metrics: Arc<Metrics>,
    /// How fast the database's files are read for bases, and its log when the archiver is behind, if there is a limit;
    /// several archivers can share one.
    pub read_rate: Option<Arc<Rate>>,
}

impl Parts {
    /// The system's clock and randomness, no owner, nobody who is told, metrics that nobody looks at yet, and no limit.
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
            owner: Arc::new(NoOwner),
            observer: Arc::new(NoObserver),
            metrics: Arc::default(),
            read_rate: None,
        }
    }
}
