//! The archivers of a run: up to two processes on one archive of one database, each with its own state directory.
//!
//! Owns: opening, driving and losing them, and which of their errors a run excuses. Everything else that an archiver
//! answers is a failure of the run.
//! Asserts after every deed: nothing is acknowledged that was not read, and what is acknowledged is in the archive.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use pitr_archive::{
    Code, Error, Result,
    catalog::{archive::Archive, index::Shape, schema::Position},
    clock::ManualClock,
    ids::Boundary,
    keyring::MasterKey,
    random::SeededRandom,
    store::Store,
};
use pitr_archiver::{
    Archiver, ArchiverConfig, Parts, config::FileEvents, engine::Flushes, merge, observer::NoObserver, owner::NoOwner,
};
use tokio::runtime::Runtime;

use crate::{network::Network, process};

/// What every archiver of a run is given.
pub struct Place<'r> {
    pub runtime: &'r Runtime,
    pub db: PathBuf,
    pub network: Network,
    pub clock: ManualClock,
    pub random: Arc<SeededRandom>,
    pub key: Option<MasterKey>,
    pub segment_bytes: u64,
    pub merge: merge::Policy,
    pub flushes: Flushes,
}

/// A host on which an archiver can run.
pub struct Host {
    state: PathBuf,
    archiver: Option<Archiver>,
    /// The end of what it said was acknowledged.
    acknowledged: Option<Position>,
}

/// What a deed came to.
#[derive(Debug)]
pub enum Outcome<T> {
    /// It is done.
    Done(T),
    /// It failed.
    Failed(Error),
    /// The process died at this effect.
    Died(&'static str),
    /// No archiver runs there.
    Absent,
}

impl Host {
    pub fn new(root: &Path, name: &str) -> Self {
        Self { state: root.join(name), archiver: None, acknowledged: None }
    }

    pub fn is_open(&self) -> bool {
        self.archiver.is_some()
    }

    /// The running archiver.
    pub fn archiver(&self) -> Option<&Archiver> {
        self.archiver.as_ref()
    }

    /// Starts an archiver.
    pub fn open(&mut self, place: &Place<'_>) -> Outcome<()> {
        if self.archiver.is_some() {
            return Outcome::Absent;
        }
        let config = ArchiverConfig {
            state: self.state.clone(),
            segment_bytes: place.segment_bytes,
            file_events: FileEvents::Scanned,
            // Which of two files is sent first would depend on threads.
            uploads: 1,
            merge: place.merge.clone(),
            flushes: place.flushes,
            writer: self.state.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            // So small that a story has some.
            index: Shape::new(2, 3).expect("a shape"),
            ..ArchiverConfig::new(&place.db)
        };
        let parts = Parts {
            clock: Arc::new(place.clock.clone()),
            random: place.random.clone(),
            owner: Arc::new(NoOwner),
            observer: Arc::new(NoObserver),
            metrics: Arc::default(),
            read_rate: None,
        };
        let store: Arc<dyn Store> = Arc::new(place.network.clone());
        let opened = self.process(|| {
            place.runtime.block_on(async {
                let archive = Archive::open_or_create(store, place.key.clone(), &*parts.clock, &*parts.random).await?;
                Archiver::open(config, archive, parts).await
            })
        });
        match opened {
            Outcome::Done(archiver) => {
                self.acknowledged = None;
                self.archiver = Some(archiver);
                Outcome::Done(())
            }
            Outcome::Failed(e) => Outcome::Failed(e),
            Outcome::Died(at) => Outcome::Died(at),
            Outcome::Absent => Outcome::Absent,
        }
    }

    fn process<T>(&mut self, deed: impl FnOnce() -> Result<T>) -> Outcome<T> {
        // Renaming it aside needs it to be there.
        std::fs::create_dir_all(&self.state).expect("a state directory");
        match process::run(&self.state, deed) {
            Ok(Ok(done)) => Outcome::Done(done),
            Ok(Err(e)) => Outcome::Failed(e),
            Err(death) => Outcome::Died(death.0),
        }
    }

    /// Does something with the archiver.
    pub fn work<T>(&mut self, place: &Place<'_>, deed: impl AsyncFnOnce(&mut Archiver) -> Result<T>) -> Outcome<T> {
        let Some(mut archiver) = self.archiver.take() else { return Outcome::Absent };
        let done = self.process(|| place.runtime.block_on(deed(&mut archiver)));
        match &done {
            Outcome::Died(_) => {
                drop(archiver);
                process::bury(&self.state);
            }
            // The process ends with this answer.
            Outcome::Failed(e) if e.code() == Code::Fenced => drop(archiver),
            _ => {
                self.check(&archiver);
                self.archiver = Some(archiver);
            }
        }
        done
    }

    /// Ends it in order.
    pub fn close(&mut self, place: &Place<'_>) -> Outcome<()> {
        let Some(archiver) = self.archiver.take() else { return Outcome::Absent };
        let done = self.process(|| place.runtime.block_on(archiver.close()));
        if let Outcome::Died(_) = done {
            process::bury(&self.state);
        }
        done
    }

    /// The machine stops, or the process is killed between two effects.
    pub fn kill(&mut self) -> bool {
        self.archiver.take().is_some()
    }

    /// After an open that died half way.
    pub fn bury(&self) {
        process::bury(&self.state);
    }

    fn check(&mut self, archiver: &Archiver) {
        let (read, acknowledged) = (archiver.position(), archiver.acknowledged());
        assert!(acknowledged.boundary <= read.boundary, "more is acknowledged than was read");
        // Where the history forked it goes on from the fork, on another timeline.
        let here = self.acknowledged.filter(|position| position.timeline == acknowledged.timeline);
        let before = here.map_or(Boundary::START, |position| position.boundary);
        assert!(acknowledged.boundary >= before, "the acknowledged end went back from {before}");
        self.acknowledged = Some(acknowledged);
    }
}
