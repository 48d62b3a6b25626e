//! A story told step by step, where a random program would not do: named cases with their expectations.
//!
//! Owns: a database, an archiver beside it that looks after every step, and restores from a base of choice.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use pitr_archive::{
    Error,
    catalog::{archive::Archive, model::Catalog, schema::BaseDocument},
    ids::{BaseId, RecordNumber},
};
use pitr_replayer::{
    plan::{PlanOptions, RestorePlan, plan},
    progress::Silent,
    restore::{Finish, restore},
    target::Target,
};
use rocksdb::DBRecoveryMode;

use super::{
    archive_driver::ArchiveDriver,
    compare::Comparison,
    driver::Driver,
    model::Content,
    program::{ArchiverStep, Op, Program, Settings, Step, StoreKind},
    scratch,
    server::{self, Places},
};

/// The story.
pub struct Scenario {
    /// Where everything is.
    pub root: tempfile::TempDir,
    /// The database.
    pub driver: Driver,
    /// The archiver.
    pub archiver: ArchiveDriver,
    restored: usize,
}

/// A restored copy, opened and read.
pub struct Copy {
    /// What it holds.
    pub content: Content,
    /// Its latest sequence number.
    pub sequence: u64,
}

impl Copy {
    /// Keys and values of a column family as text: `a=1 b=2`.
    pub fn text(&self, family: &str) -> String {
        self.content.get(family).map_or_else(
            || "no such column family".to_owned(),
            |family| {
                let pair = |(k, v): (&Vec<u8>, &Vec<u8>)| {
                    format!("{}={}", String::from_utf8_lossy(k), String::from_utf8_lossy(v))
                };
                family.iter().map(pair).collect::<Vec<_>>().join(" ")
            },
        )
    }
}

impl Scenario {
    /// An empty database; the archiver is not open yet.
    pub fn new(settings: &Settings) -> Self {
        Self::begin(settings, false)
    }

    /// The same with an encrypted archive.
    pub fn encrypted(settings: &Settings) -> Self {
        Self::begin(settings, true)
    }

    fn begin(settings: &Settings, encrypted: bool) -> Self {
        let root = scratch::directory();
        let program = Program {
            seed: 1,
            settings: settings.clone(),
            steps: Vec::new(),
            store: StoreKind::Local,
            encrypted,
            attentive: true,
        };
        let driver = Driver::create(root.path(), settings);
        let archiver = ArchiveDriver::new(root.path(), &program, &driver);
        Self { root, driver, archiver, restored: 0 }
    }

    /// A step of the database; a running archiver looks afterwards.
    pub fn step(&mut self, step: Step) {
        self.driver.step(&step);
        if self.archiver.is_open() {
            self.archiver.poll(&mut self.driver);
        }
    }

    /// `key = value` in the default column family, a batch of its own.
    pub fn put(&mut self, key: &str, value: &str) {
        self.put_in("default", key, value);
    }

    /// The same in another column family.
    pub fn put_in(&mut self, family: &str, key: &str, value: &str) {
        self.step(Step::Write(vec![Op::Put(family.to_owned(), key.into(), value.into())]));
    }

    /// A delete, a batch of its own.
    pub fn delete(&mut self, key: &str) {
        self.step(Step::Write(vec![Op::Delete("default".to_owned(), key.into())]));
    }

    /// A single delete, a batch of its own.
    pub fn single_delete(&mut self, key: &str) {
        self.step(Step::Write(vec![Op::SingleDelete("default".to_owned(), key.into())]));
    }

    /// A step of the archiver.
    pub fn archive(&mut self, step: ArchiverStep) {
        self.archiver.step(&step, &mut self.driver);
    }

    /// Takes a base and answers it.
    pub fn base(&mut self) -> BaseDocument {
        self.archive(ArchiverStep::Base);
        self.newest_base()
    }

    /// The base that was published last.
    pub fn newest_base(&self) -> BaseDocument {
        let catalog = self.catalog().1;
        let newest = catalog.bases().iter().max_by_key(|b| (b.floor.boundary, b.created, b.id.clone()));
        newest.expect("a base").clone()
    }

    /// The archive and its catalog.
    pub fn catalog(&self) -> (Archive, Catalog) {
        let archive = self.archiver.archive();
        let catalog = self.archiver.wait(archive.load_catalog()).unwrap_or_else(|e| panic!("the catalog: {e}"));
        (archive, catalog)
    }

    /// Plans for the position after `records` records, from any base or from this one.
    pub fn plan(&self, records: u64, base: Option<&BaseId>) -> Result<RestorePlan, Error> {
        let (archive, catalog) = self.catalog();
        let target = Target::Record(RecordNumber::new(records.checked_sub(1).expect("a record")));
        let options = PlanOptions { base: base.cloned(), ..PlanOptions::default() };
        self.archiver.wait(plan(&archive, &catalog, &target, &options))
    }

    /// Lays a plan down and answers where.
    pub fn lay_down(&mut self, plan: &RestorePlan) -> Result<(PathBuf, Places), Error> {
        self.lay_down_and(plan, Finish::Leave)
    }

    /// The same, recovered by the server that opens it or here.
    pub fn lay_down_and(&mut self, plan: &RestorePlan, finish: Finish) -> Result<(PathBuf, Places), Error> {
        self.restored += 1;
        let into = self.root.path().join(format!("copy-{}", self.restored));
        let (mut options, places) = self.driver.restore_to(&into);
        options.finish = finish;
        let archive = self.archiver.archive();
        self.archiver.wait(restore(&archive, plan, &options, Arc::new(Silent)))?;
        Ok((into, places))
    }

    /// Opens a copy in the strictest mode and reads it.
    pub fn open(&self, dir: &Path, places: &Places) -> Copy {
        let settings = &self.driver.settings;
        let mut options = server::database_options(places, settings);
        options.set_wal_recovery_mode(DBRecoveryMode::AbsoluteConsistency);
        let opened = server::open_with(dir, &options, settings).unwrap_or_else(|e| panic!("the copy: {e}"));
        let dump = server::dump(&opened.db, &opened.names).unwrap_or_else(|e| panic!("the copy: {e}"));
        Copy { content: server::content(dump), sequence: opened.db.latest_sequence_number() }
    }

    /// Restores to the position after `records` records.
    pub fn restore(&mut self, records: u64, base: Option<&BaseId>) -> Result<Copy, Error> {
        let plan = self.plan(records, base)?;
        assert!(plan.distance.exact, "{:?}", plan.distance);
        let (dir, places) = self.lay_down(&plan)?;
        let copy = self.open(&dir, &places);
        assert_eq!(copy.sequence, plan.position.sequence.get(), "the planned sequence number");
        Ok(copy)
    }

    /// Every target of the archive against the model, as the random programs are checked.
    pub fn check_everything(&mut self) {
        self.archiver.finish(&mut self.driver);
        self.driver.check();
        let mut comparison = Comparison::new(&self.driver, &self.archiver, self.root.path());
        for boundary in 0..comparison.boundaries() {
            comparison.check_boundary(boundary);
        }
        comparison.check_latest();
    }
}
