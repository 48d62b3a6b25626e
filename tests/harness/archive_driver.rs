//! Drives an archiver beside the database, one step at a time.
//!
//! Owns: the store (a directory, or memory that fails from a seed), the archiver's life (open, closed, vanished), and
//! patience: what fails because the store failed is asked again, everything else is a finding. Time stands still except
//! between steps, so that a time names exactly one step.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use pitr_archive::{
    Code, Error, Result,
    catalog::archive::Archive,
    clock::{Clock, ManualClock, Micros, SystemClock},
    keyring::MasterKey,
    random::SeededRandom,
    store::{
        Store,
        faulty::{FaultyStore, Schedule},
        local::LocalStore,
        memory::MemoryStore,
    },
};
use pitr_archiver::{Archiver, ArchiverConfig, Parts, control, engine::Flushes, observer::NoObserver, owner::NoOwner};
use tokio::runtime::Runtime;

use super::{
    driver::Driver,
    model::Moment,
    program::{ArchiverStep, Program, StoreKind},
};

/// How often a step is tried again while the store fails.
const PATIENCE: usize = 1000;
/// 2026-11-20 00:00 UTC.
const EPOCH: Micros = Micros(1_795_132_800_000_000);
/// Between two steps.
const TICK: i64 = 1_000_000;

/// A moment at which the archiver had seen everything.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The clock.
    pub at: Micros,
    /// What the program had done.
    pub moment: Moment,
    /// Whether it is in the archive for certain.
    pub shipped: bool,
}

/// An archiver, its store and what it was seen to do.
pub struct ArchiveDriver {
    runtime: Runtime,
    /// The store as readers see it: it never fails.
    pub store: Arc<dyn Store>,
    faulty: Option<FaultyStore>,
    key: Option<MasterKey>,
    config: ArchiverConfig,
    clock: ManualClock,
    random: Arc<SeededRandom>,
    archiver: Option<Archiver>,
    /// Tags and when they were asked for.
    pub tags: Vec<(String, Moment)>,
    /// When it looked.
    pub looks: Vec<Look>,
    /// Bases that it published.
    pub bases: usize,
    /// Requests for a base that it refused because a barrier was in the way.
    pub useless_bases: usize,
}

impl ArchiveDriver {
    /// An archiver that is not open yet, for the database of `driver`, with its archive below `root`.
    pub fn new(root: &Path, program: &Program, driver: &Driver) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (store, faulty): (Arc<dyn Store>, _) = match program.store {
            StoreKind::Local => (local(&root.join("archive")), None),
            StoreKind::Faulty => {
                let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
                let schedule = Schedule { seed: program.seed, before_effect_per_mille: 20, lost_reply_per_mille: 20 };
                (memory.clone(), Some(FaultyStore::new(memory, schedule)))
            }
        };
        let mut config = ArchiverConfig::new(&driver.dir);
        config.state = root.join("state");
        // RocksDB does not say them in any file.
        config.db_paths = driver.places.data.iter().chain(&driver.places.more).cloned().collect();
        // A base whenever a program asks for the wanted one.
        config.barrier_base_spacing = Duration::ZERO;
        config.barrier_base_spacing_max = Duration::ZERO;
        config.segment_bytes = if program.seed.is_multiple_of(3) { 4 << 10 } else { 8 << 20 };
        config.flushes = if program.seed.is_multiple_of(4) { Flushes::Leave } else { Flushes::Ship };
        Self {
            runtime,
            store,
            faulty,
            key: program.encrypted.then(|| MasterKey::new([7; 32])),
            config,
            clock: ManualClock::new(EPOCH),
            random: Arc::new(SeededRandom::new(program.seed)),
            archiver: None,
            tags: Vec::new(),
            looks: Vec::new(),
            bases: 0,
            useless_bases: 0,
        }
    }

    /// Runs a future of this archive.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The key of the archive.
    pub fn key(&self) -> Option<MasterKey> {
        self.key.clone()
    }

    /// Whether an archiver runs.
    pub fn is_open(&self) -> bool {
        self.archiver.is_some()
    }

    /// The present time.
    pub fn now(&self) -> Micros {
        self.clock.now()
    }

    fn open(&mut self, driver: &mut Driver) {
        if self.archiver.is_some() {
            return;
        }
        let store: Arc<dyn Store> = match &self.faulty {
            Some(faulty) => Arc::new(faulty.clone()),
            None => self.store.clone(),
        };
        for _ in 0..PATIENCE {
            let parts = Parts {
                clock: Arc::new(self.clock.clone()),
                random: self.random.clone(),
                owner: Arc::new(NoOwner),
                observer: Arc::new(NoObserver),
                metrics: Arc::default(),
                read_rate: None,
            };
            let (store, key, config, clock, random) =
                (store.clone(), self.key.clone(), self.config.clone(), self.clock.clone(), self.random.clone());
            let opened = self.wait(async move {
                let archive = Archive::open_or_create(store, key, &clock, &*random).await?;
                Archiver::open(config, archive, parts).await
            });
            match opened {
                Ok(archiver) => {
                    self.archiver = Some(archiver);
                    driver.watched();
                    return;
                }
                Err(e) if self.excused(&e) => {}
                // A process that another thread is just starting holds the lock, too, until it has become that process.
                Err(e) if e.code() == Code::StateLocked => std::thread::sleep(Duration::from_millis(5)),
                Err(e) => panic!("opening the archiver: {e}"),
            }
        }
        panic!("the archiver cannot be opened over a store that sometimes fails");
    }

    /// Whether the store's failures explain it.
    fn excused(&self, e: &Error) -> bool {
        self.faulty.is_some() && e.code() == Code::StoreUnavailable
    }

    /// Does `deed` until the store lets it.
    fn insist<T>(&mut self, what: &str, mut deed: impl AsyncFnMut(&mut Archiver) -> Result<T>) -> Result<T> {
        let mut last = None;
        for _ in 0..PATIENCE {
            let archiver = self.archiver.as_mut().expect("an open archiver");
            match self.runtime.block_on(deed(archiver)) {
                Err(e) if self.excused(&e) => last = Some(e),
                done => return done,
            }
        }
        panic!("{what} never succeeds over a store that sometimes fails: {last:?}");
    }

    fn looked(&mut self, driver: &mut Driver) {
        driver.looked();
        self.looks.push(Look { at: self.clock.now(), moment: driver.model.moment(), shipped: false });
    }

    fn shipped(&mut self, driver: &mut Driver) {
        driver.shipped();
        for look in &mut self.looks {
            look.shipped = true;
        }
    }

    /// Reads what is readable.
    pub fn poll(&mut self, driver: &mut Driver) {
        self.clock.advance(TICK);
        self.open(driver);
        let polled = self.archiver.as_mut().expect("an open archiver").poll().unwrap_or_else(|e| panic!("poll: {e}"));
        if polled.caught_up {
            self.looked(driver);
        }
    }

    /// Does a step of the archiver.
    pub fn step(&mut self, step: &ArchiverStep, driver: &mut Driver) {
        self.clock.advance(TICK);
        self.open(driver);
        match step {
            ArchiverStep::Poll => self.poll(driver),
            ArchiverStep::Ship => {
                self.insist("ship", async |a| a.ship().await).unwrap_or_else(|e| panic!("ship: {e}"));
                self.shipped(driver);
            }
            ArchiverStep::Base => match self.insist("base", async |a| a.take_base().await) {
                Ok(_) => {
                    self.bases += 1;
                    self.looked(driver);
                    self.shipped(driver);
                }
                Err(e) if e.code() == Code::BaseNotPublishable && driver.has_barriers() => self.useless_bases += 1,
                Err(e) => panic!("base: {e}"),
            },
            ArchiverStep::WantedBase => {
                let taken = self.insist("wanted base", async |a| a.take_wanted_base().await);
                self.bases += usize::from(taken.unwrap_or_else(|e| panic!("wanted base: {e}")).is_some());
            }
            ArchiverStep::Tag(name) => {
                let request = control::TagRequest {
                    name: name.clone(),
                    note: String::new(),
                    unflushed: control::Unflushed::Refuse,
                    expires: None,
                    group: None,
                };
                match self.insist("tag", async |a| a.tag(&request).await) {
                    // A lost reply: the tag is ours, and names an earlier moment of the same step.
                    Err(e) if e.code() == Code::TagExists && self.faulty.is_some() => {}
                    Err(e) => panic!("tag: {e}"),
                    Ok(_) => {}
                }
                self.tags.push((name.clone(), driver.model.moment()));
                self.looked(driver);
                self.shipped(driver);
            }
            ArchiverStep::Heartbeat => {
                self.insist("heartbeat", async |a| a.heartbeat().await).unwrap_or_else(|e| panic!("heartbeat: {e}"));
            }
            ArchiverStep::CloseManifest => {
                self.insist("manifest", async |a| a.close_manifest().await)
                    .unwrap_or_else(|e| panic!("closing the manifest: {e}"));
            }
            ArchiverStep::Reopen => {
                self.close(driver);
                self.open(driver);
            }
            ArchiverStep::Stop => self.close(driver),
            ArchiverStep::Crash => {
                drop(self.archiver.take());
                driver.unwatched();
                driver.left();
                self.looks.retain(|look| look.shipped);
                self.open(driver);
            }
        }
        self.clock.advance(TICK);
    }

    /// Ends in order.
    fn close(&mut self, driver: &mut Driver) {
        self.insist("the last shipment", async |a| a.catch_up().await.map(drop))
            .unwrap_or_else(|e| panic!("catching up: {e}"));
        self.looked(driver);
        self.shipped(driver);
        let archiver = self.archiver.take().expect("an open archiver");
        driver.left();
        match self.wait(archiver.close()) {
            Err(e) if self.excused(&e) => {}
            Err(e) => panic!("closing the archiver: {e}"),
            Ok(()) => {}
        }
    }

    /// Archives the rest and ends.
    pub fn finish(&mut self, driver: &mut Driver) {
        if let Some(faulty) = &self.faulty {
            faulty.set_schedule(Schedule::default());
        }
        self.clock.advance(TICK);
        self.open(driver);
        self.close(driver);
    }

    /// The archive for reading.
    pub fn archive(&self) -> Archive {
        self.wait(Archive::open(self.store.clone(), self.key.clone())).unwrap_or_else(|e| panic!("the archive: {e}"))
    }
}

/// A store in a directory.
pub fn local(directory: &Path) -> Arc<dyn Store> {
    Arc::new(LocalStore::open(directory, &SystemClock).unwrap_or_else(|e| panic!("the store: {e}")))
}

/// The state directory that the archiver of `db` uses when it is not told another.
pub fn state_beside(db: &Path) -> PathBuf {
    ArchiverConfig::new(db).state
}
