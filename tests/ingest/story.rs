//! A database, an archiver and a model that remembers every moment by a tag.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use pitr_archive::{
    Code, Error, Result,
    catalog::{archive::Archive, schema::BaseDocument},
    clock::{Micros, SystemClock},
    ids::{BaseId, Nonce, RecordNumber},
    random::OsRandom,
    segment::entry::BarrierReason,
    store::{Store, memory::MemoryStore},
};
use pitr_archiver::{
    Archiver, ArchiverConfig, Parts,
    control::{TagRequest, Unflushed},
};
use pitr_replayer::{
    plan::{CrossIngest, PlanOptions, RestorePlan, plan},
    progress::Silent,
    restore::{RestoreOptions, restore},
    target::Target,
};
use rocksdb::{
    BottommostLevelCompaction, ColumnFamilyDescriptor, CompactOptions, DB, DBRecoveryMode, IngestExternalFileOptions,
    IteratorMode, Options, SstFileWriter, WriteOptions,
};

use crate::harness::scratch;

type Family = BTreeMap<String, String>;

/// Column families by name.
pub type Content = BTreeMap<String, Family>;

struct Moment {
    tag: String,
    content: Content,
    sequence: u64,
}

/// The story.
pub struct Story {
    root: tempfile::TempDir,
    options: Options,
    db: Option<DB>,
    families: BTreeSet<String>,
    keys: BTreeSet<String>,
    runtime: tokio::runtime::Runtime,
    store: Arc<dyn Store>,
    config: ArchiverConfig,
    archiver: Option<Archiver>,
    moments: Vec<Moment>,
    base: Option<BaseDocument>,
    quiet: bool,
    files: usize,
    copies: std::cell::Cell<usize>,
}

/// In a file to ingest: the key goes.
pub const DELETED: &str = "deleted";

/// Keys and values as text.
pub fn pairs(family: &Family) -> String {
    family.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
}

impl Story {
    /// An empty database with a base of it.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same with another configuration.
    pub fn with(change: impl FnOnce(&mut ArchiverConfig)) -> Self {
        let mut options = Options::default();
        options.create_if_missing(true);
        Self::opened(&options, change)
    }

    /// With these column families, which are there before the first base.
    pub fn with_families(families: &[&str], change: impl FnOnce(&mut ArchiverConfig)) -> Self {
        let mut options = Options::default();
        options.create_if_missing(true);
        Self::begin(&options, families, change)
    }

    /// The same with a database of these options.
    pub fn opened(options: &Options, change: impl FnOnce(&mut ArchiverConfig)) -> Self {
        Self::begin(options, &[], change)
    }

    fn begin(options: &Options, families: &[&str], change: impl FnOnce(&mut ArchiverConfig)) -> Self {
        let root = scratch::directory();
        let mut options = options.clone();
        options.set_level_zero_file_num_compaction_trigger(100);
        let default = ColumnFamilyDescriptor::new("default", options.clone());
        let db = DB::open_cf_descriptors(&options, root.path().join("db"), vec![default]).unwrap();
        for family in families {
            db.create_cf(family, &options).unwrap();
        }
        let mut config = ArchiverConfig::new(root.path().join("db"));
        change(&mut config);
        let mut story = Self {
            root,
            options,
            db: Some(db),
            families: families.iter().copied().chain(["default"]).map(ToOwned::to_owned).collect(),
            keys: BTreeSet::new(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            store: Arc::new(MemoryStore::new()),
            config,
            archiver: None,
            moments: Vec::new(),
            base: None,
            quiet: false,
            files: 0,
            copies: std::cell::Cell::new(0),
        };
        story.open_archiver();
        story.base = Some(story.base());
        story.moment();
        story
    }

    fn open_archiver(&mut self) {
        let (store, config) = (self.store.clone(), self.config.clone());
        self.archiver = Some(self.runtime.block_on(async {
            let archive = Archive::open_or_create(store, None, &SystemClock, &OsRandom).await.unwrap();
            Archiver::open(config, archive, Parts::system()).await.unwrap()
        }));
    }

    fn archiver(&mut self) -> &mut Archiver {
        self.archiver.as_mut().unwrap()
    }

    pub fn db(&self) -> &DB {
        self.db.as_ref().unwrap()
    }

    /// A directory beside the database.
    pub fn scratch(&self) -> &Path {
        self.root.path()
    }

    /// Takes a base.
    pub fn base(&mut self) -> BaseDocument {
        let Self { runtime, archiver, .. } = self;
        runtime.block_on(archiver.as_mut().unwrap().take_base()).unwrap()
    }

    /// Takes a base if one is wanted.
    pub fn wanted_base(&mut self) -> Option<BaseDocument> {
        let Self { runtime, archiver, .. } = self;
        runtime.block_on(archiver.as_mut().unwrap().take_wanted_base()).unwrap()
    }

    /// The present moment can be asked for from here on.
    pub fn moment(&mut self) {
        if self.quiet {
            return;
        }
        let tag = format!("t{}", self.moments.len());
        let request = TagRequest {
            name: tag.clone(),
            note: String::new(),
            unflushed: Unflushed::Refuse,
            expires: None,
            group: None,
        };
        let Self { runtime, archiver, .. } = self;
        runtime.block_on(archiver.as_mut().unwrap().tag(&request)).unwrap();
        let content = read_all(self.db(), &self.families);
        let sequence = self.db().latest_sequence_number();
        self.moments.push(Moment { tag, content, sequence });
    }

    /// Nobody looks while this happens.
    pub fn quietly(&mut self, deed: impl FnOnce(&mut Self)) {
        self.quiet = true;
        deed(self);
        self.quiet = false;
    }

    /// The archiver reads and pins, and ships nothing.
    pub fn look_without_shipping(&mut self) {
        self.archiver().poll().unwrap();
    }

    /// The archiver vanishes and another one begins.
    pub fn restart_archiver(&mut self) {
        drop(self.archiver.take());
        self.open_archiver();
    }

    pub fn moments(&self) -> usize {
        self.moments.len()
    }

    /// The number of the first record behind the first base.
    pub fn first_record(&self) -> u64 {
        self.base.as_ref().unwrap().floor.boundary.get()
    }

    pub fn put(&mut self, key: &str, value: &str) {
        self.put_in("default", key, value);
    }

    pub fn put_in(&mut self, family: &str, key: &str, value: &str) {
        self.keys.insert(key.to_owned());
        self.db().put_cf(&self.db().cf_handle(family).unwrap(), key, value).unwrap();
        self.moment();
    }

    /// Without the log.
    pub fn put_unlogged(&mut self, family: &str, key: &str, value: &str) {
        self.keys.insert(key.to_owned());
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db().put_cf_opt(&self.db().cf_handle(family).unwrap(), key, value, &options).unwrap();
    }

    pub fn flush_family(&self, family: &str) {
        self.db().flush_cf(&self.db().cf_handle(family).unwrap()).unwrap();
    }

    pub fn delete(&mut self, key: &str) {
        self.db().delete(key).unwrap();
        self.moment();
    }

    pub fn delete_in(&mut self, family: &str, key: &str) {
        self.db().delete_cf(&self.db().cf_handle(family).unwrap(), key).unwrap();
        self.moment();
    }

    pub fn delete_range(&mut self, family: &str, from: &str, to: &str) {
        self.db().delete_range_cf(&self.db().cf_handle(family).unwrap(), from, to).unwrap();
        self.moment();
    }

    pub fn add(&mut self, family: &str, key: &str, number: u64) {
        self.db().merge_cf(&self.db().cf_handle(family).unwrap(), key, number.to_le_bytes()).unwrap();
        self.moment();
    }

    pub fn compact_family(&mut self, family: &str) {
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        let handle = self.db().cf_handle(family).unwrap();
        self.db().compact_range_cf_opt(&handle, None::<&[u8]>, None::<&[u8]>, &options);
        drop(handle);
        self.moment();
    }

    pub fn create(&mut self, family: &str) {
        let options = self.options.clone();
        self.create_with(family, &options);
    }

    pub fn create_with(&mut self, family: &str, options: &Options) {
        self.db.as_mut().unwrap().create_cf(family, options).unwrap();
        self.families.insert(family.to_owned());
        self.moment();
    }

    pub fn drop_family(&mut self, family: &str) {
        self.db.as_mut().unwrap().drop_cf(family).unwrap();
        self.families.remove(family);
        self.moment();
    }

    /// The server begins a MANIFEST because the one before has grown too large, and the number before its own is no file's.
    /// Needs `max_manifest_file_size` of 1.
    pub fn roll_manifest(&self) {
        let current = || std::fs::read_to_string(self.root.path().join("db/CURRENT")).unwrap();
        let before = current();
        let nothing = self.root.path().join("there-is-no-such-file.sst");
        // An ingestion that fails has been given a number, and the MANIFEST an edit that says so.
        while current() == before {
            self.db().ingest_external_file(vec![&nothing]).unwrap_err();
        }
    }

    /// The server is restarted with these changes of its options.
    pub fn reopen(&mut self, change: impl FnOnce(&mut Options)) {
        drop(self.db.take());
        change(&mut self.options);
        let families = self.families.iter().map(|name| ColumnFamilyDescriptor::new(name, self.options.clone()));
        self.db = Some(DB::open_cf_descriptors(&self.options, self.root.path().join("db"), families).unwrap());
        self.moment();
    }

    /// Everything, to the bottom.
    pub fn compact(&mut self) {
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        self.db().compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
        self.moment();
    }

    pub fn ingest(&mut self, family: &str, content: &[(&str, &str)]) {
        self.ingest_files(family, &[content]);
    }

    /// Several files at once.
    pub fn ingest_files(&mut self, family: &str, files: &[&[(&str, &str)]]) {
        let options = Options::default();
        let paths: Vec<_> = files.iter().map(|content| self.file(&options, content)).collect();
        self.db().ingest_external_file_cf(&self.db().cf_handle(family).unwrap(), paths).unwrap();
        self.moment();
    }

    pub fn ingest_with(&mut self, family: &str, content: &[(&str, &str)], how: &IngestExternalFileOptions) {
        let path = self.file(&Options::default(), content);
        self.db().ingest_external_file_cf_opts(&self.db().cf_handle(family).unwrap(), how, vec![path]).unwrap();
        self.moment();
    }

    /// With the comparator of these options.
    pub fn ingest_keeping_order(&mut self, family: &str, options: &Options, content: &[(&str, &str)]) {
        let path = self.file(options, content);
        self.db().ingest_external_file_cf(&self.db().cf_handle(family).unwrap(), vec![path]).unwrap();
        self.moment();
    }

    fn file(&mut self, options: &Options, content: &[(&str, &str)]) -> PathBuf {
        self.files += 1;
        let path = self.root.path().join(format!("in-{}.sst", self.files));
        let mut writer = SstFileWriter::create(options);
        writer.open(&path).unwrap();
        for (key, value) in content {
            self.keys.insert((*key).to_owned());
            match *value {
                DELETED => writer.delete(key).unwrap(),
                value => writer.put(key, value).unwrap(),
            }
        }
        writer.finish().unwrap();
        path
    }

    pub fn read(&self, key: &str) -> Option<String> {
        self.db().get(key).unwrap().map(|value| String::from_utf8(value).unwrap())
    }

    /// The reasons of every barrier so far.
    pub fn barriers(&self) -> Vec<BarrierReason> {
        let catalog = self.runtime.block_on(async { self.archive().await.load_catalog().await.unwrap() });
        catalog.current_timeline().unwrap().barriers().iter().map(|barrier| barrier.reason).collect()
    }

    /// What the barriers say.
    pub fn details(&self) -> Vec<String> {
        let catalog = self.runtime.block_on(async { self.archive().await.load_catalog().await.unwrap() });
        catalog.current_timeline().unwrap().barriers().iter().map(|barrier| barrier.detail.clone()).collect()
    }

    /// Table files in the archiver's pins.
    pub fn table_pins(&self) -> usize {
        std::fs::read_dir(self.config.state.join("pins/table")).unwrap().count()
    }

    async fn archive(&self) -> Archive {
        Archive::open(self.store.clone(), None).await.unwrap()
    }

    fn plan_for(&self, target: &Target, base: Option<&BaseId>, cross: CrossIngest) -> Result<RestorePlan> {
        self.runtime.block_on(async {
            let archive = self.archive().await;
            let catalog = archive.load_catalog().await?;
            let options = PlanOptions { base: base.cloned(), cross_ingest: cross, ..PlanOptions::default() };
            plan(&archive, &catalog, target, &options).await
        })
    }

    /// For a moment, from the first base.
    pub fn plan(&self, moment: usize, cross: CrossIngest) -> Result<RestorePlan> {
        self.plan_for(&Target::tag(&self.moments[moment].tag), self.base.as_ref().map(|base| &base.id), cross)
    }

    /// Why the place behind this many records is refused, from the first base.
    pub fn refusal_of_record(&self, records: u64, cross: CrossIngest) -> Code {
        let target = Target::Record(RecordNumber::new(records - 1));
        self.plan_for(&target, self.base.as_ref().map(|base| &base.id), cross).unwrap_err().code()
    }

    fn lay_down(&self, plan: &RestorePlan) -> Result<PathBuf> {
        self.copies.set(self.copies.get() + 1);
        let into = self.root.path().join(format!("copy-{}", self.copies.get()));
        let options = RestoreOptions::new(&into, Nonce([1; 16]), Micros(0));
        self.runtime.block_on(async {
            let archive = self.archive().await;
            restore(&archive, plan, &options, Arc::new(Silent)).await
        })?;
        Ok(into)
    }

    fn open_copy(&self, into: &Path) -> (DB, BTreeSet<String>) {
        let mut options = self.options.clone();
        options.create_if_missing(false);
        options.set_wal_recovery_mode(DBRecoveryMode::AbsoluteConsistency);
        let names: BTreeSet<_> = DB::list_cf(&options, into).unwrap().into_iter().collect();
        let families = names.iter().map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        (DB::open_cf_descriptors(&options, into, families).unwrap(), names)
    }

    /// The content behind this many records and one.
    pub fn copy_of_record(&self, record: u64) -> Content {
        let plan = self.plan_for(&Target::Record(RecordNumber::new(record)), None, CrossIngest::Refuse).unwrap();
        let into = self.lay_down(&plan).unwrap();
        let (db, names) = self.open_copy(&into);
        read_all(&db, &names)
    }

    /// A moment's copy from a base, by default the first, and its latest sequence number. The model is not asked.
    pub fn copy_of(&self, moment: usize, base: Option<&BaseId>) -> (Content, u64) {
        let base = base.or(self.base.as_ref().map(|base| &base.id));
        let plan = self.plan_for(&Target::tag(&self.moments[moment].tag), base, CrossIngest::Refuse).unwrap();
        let into = self.lay_down(&plan).unwrap();
        let (db, names) = self.open_copy(&into);
        (read_all(&db, &names), db.latest_sequence_number())
    }

    /// Restores a moment and compares the copy in every way.
    pub fn reach(&self, moment: usize, base: Option<&BaseId>, cross: CrossIngest) -> std::result::Result<usize, Error> {
        let Moment { tag, content, sequence } = &self.moments[moment];
        let plan = self.plan_for(&Target::tag(tag), base, cross)?;
        let into = self.lay_down(&plan)?;
        // Twice: the first open may only have been lucky.
        for round in ["as it was laid down", "opened again"] {
            let (db, names) = self.open_copy(&into);
            let what = format!("moment {tag}, {round}, ingestions {:?}", plan.ingestions.len());
            if round == "as it was laid down" {
                assert_eq!(db.latest_sequence_number(), *sequence, "{what}");
            }
            let compare = |how: &str| {
                assert_eq!(&read_all(&db, &names), content, "{what}: {how}, by iterators");
                for (name, family) in content {
                    let handle = db.cf_handle(name).unwrap();
                    for key in &self.keys {
                        let found = db.get_cf(&handle, key).unwrap().map(|v| String::from_utf8(v).unwrap());
                        assert_eq!(found.as_ref(), family.get(key), "{what}: {how}, reading {key}");
                    }
                }
            };
            compare("as it is");
            for name in &names {
                db.flush_cf(&db.cf_handle(name).unwrap()).unwrap();
            }
            compare("flushed");
            if round != "as it was laid down" {
                let mut options = CompactOptions::default();
                options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
                for name in &names {
                    let handle = db.cf_handle(name).unwrap();
                    db.compact_range_cf_opt(&handle, None::<&[u8]>, None::<&[u8]>, &options);
                }
                compare("compacted");
            }
        }
        drop(std::fs::remove_dir_all(&into));
        Ok(plan.ingestions.len())
    }

    /// Reaches a moment from the first base; answers how many ingestions were repeated.
    pub fn reach_from_the_first_base(&self, moment: usize) -> std::result::Result<usize, Error> {
        self.reach(moment, self.base.as_ref().map(|base| &base.id), CrossIngest::Repeat)
    }

    /// Nothing comes after it.
    pub fn end(&mut self) {
        drop(self.archiver.take());
        drop(self.db.take());
    }

    /// Reaches every moment from the first base, crossing whatever lies between; answers how many there were.
    pub fn crossed_from_the_first_base(&self) -> usize {
        let base = self.base.as_ref().map(|base| &base.id);
        for moment in 0..self.moments.len() {
            self.reach(moment, base, CrossIngest::Repeat).unwrap_or_else(|e| panic!("moment {moment}: {e}"));
        }
        self.moments.len()
    }

    /// Without crossing, exactly these moments are reached from the first base.
    pub fn refused_without_crossing(&self, reached: &[usize]) {
        for moment in 0..self.moments.len() {
            let plan = self.plan(moment, CrossIngest::Refuse);
            assert_eq!(plan.is_ok(), reached.contains(&moment), "moment {moment}: {plan:?}");
        }
    }
}

fn read_all(db: &DB, families: &BTreeSet<String>) -> Content {
    let text = |bytes: Box<[u8]>| String::from_utf8(bytes.into_vec()).unwrap();
    families
        .iter()
        .map(|name| {
            let pairs = db.iterator_cf(&db.cf_handle(name).unwrap(), IteratorMode::Start);
            (name.clone(), pairs.map(|pair| pair.map(|(k, v)| (text(k), text(v))).unwrap()).collect())
        })
        .collect()
}
