//! Merging on a real database: seconds become minutes, every target stays where it was, the parts go a grace period later,
//! and all of it costs the store less than three times what was written at first.

#![allow(clippy::unwrap_used, missing_docs)] // a test fails by panicking

#[path = "harness/opening.rs"]
mod opening;
#[path = "merge/service.rs"]
mod service;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use pitr_archive::{
    Code,
    catalog::{archive::Archive, schema::SegmentSummary},
    clock::{ManualClock, Micros, SystemClock},
    ids::{Boundary, Nonce, Ordinals},
    keyring::MasterKey,
    random::SeededRandom,
    store::{Store, local::LocalStore},
};
use pitr_archiver::{
    Archiver, ArchiverConfig, Parts,
    config::FileEvents,
    control::{TagRequest, Unflushed},
    crash, merge,
    retention::{Floor, Mode, Policy, PruneReport, Request, prune},
};
use pitr_replayer::{
    plan::{PlanOptions, RestorePlan, plan},
    progress::Silent,
    restore::{RestoreOptions, restore},
    target::Target,
    verify::verify,
};
use rocksdb::{DB, IteratorMode, Options};
use tempfile::TempDir;

/// The beginning of a minute.
const START: Micros = Micros(1_795_132_800_000_000);
const GRACE: Duration = merge::policy::LEAST_GRACE;

type State = BTreeMap<String, String>;

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap()
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options
}

fn contents(dir: &Path) -> State {
    let db = DB::open(&options(), dir).unwrap();
    let pairs = db.iterator(IteratorMode::Start).map(Result::unwrap);
    pairs.map(|(k, v)| (String::from_utf8(k.into()).unwrap(), String::from_utf8(v.into()).unwrap())).collect()
}

/// A database, its archive in a directory, and what it held after every record and at every tag.
struct Site {
    dir: TempDir,
    db: DB,
    store: Arc<dyn Store>,
    key: Option<MasterKey>,
    clock: ManualClock,
    random: Arc<SeededRandom>,
    archiver: Option<Archiver>,
    state: State,
    states: BTreeMap<u64, State>,
    tags: BTreeMap<String, State>,
}

impl Site {
    async fn new(key: Option<MasterKey>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = DB::open(&options(), dir.path().join("db")).unwrap();
        let store = Arc::new(LocalStore::open(dir.path().join("archive"), &SystemClock).unwrap());
        let (clock, random) = (ManualClock::new(START), Arc::new(SeededRandom::new(1)));
        let (state, states, tags) = (State::new(), BTreeMap::new(), BTreeMap::new());
        let mut site = Self { dir, db, store, key, clock, random, archiver: None, state, states, tags };
        site.open().await;
        site
    }

    async fn open(&mut self) {
        let levels = [10, 60, 600].map(Duration::from_secs).to_vec();
        let config = || ArchiverConfig {
            file_events: FileEvents::Scanned,
            merge: merge::Policy { levels: levels.clone(), grace: GRACE, ..merge::Policy::default() },
            ..ArchiverConfig::new(self.dir.path().join("db"))
        };
        let parts = || Parts { clock: Arc::new(self.clock.clone()), random: self.random.clone(), ..Parts::system() };
        let opened = opening::when_unlocked(async || {
            let (store, key) = (self.store.clone(), self.key.clone());
            let archive = Archive::open_or_create(store, key, &self.clock, &*self.random).await?;
            Archiver::open(config(), archive, parts()).await
        });
        self.archiver = Some(opened.await);
    }

    fn archiver(&mut self) -> &mut Archiver {
        self.archiver.as_mut().unwrap()
    }

    async fn archive(&self) -> Archive {
        Archive::open(self.store.clone(), self.key.clone()).await.unwrap()
    }

    async fn segments(&self) -> Vec<SegmentSummary> {
        self.archive().await.load_catalog().await.unwrap().current_timeline().unwrap().segments().to_vec()
    }

    async fn objects(&self) -> BTreeSet<Ordinals> {
        let archive = self.archive().await;
        let timeline = archive.timelines().await.unwrap()[0].timeline;
        archive.list_all_segments(timeline).await.unwrap().into_iter().map(|(ordinals, _)| ordinals).collect()
    }

    /// So many seconds with a write in each, of random bytes as often as of text.
    async fn seconds(&mut self, count: usize) {
        for n in 0..count {
            let number = self.states.len();
            let value = if n % 2 == 0 {
                format!("value {number}").repeat(20)
            } else {
                (0..20).map(|part| blake3::hash(format!("{number} {part}").as_bytes()).to_hex().to_string()).collect()
            };
            self.write(&format!("k{}", number % 50), &value).await;
            self.clock.advance(micros(Duration::from_secs(1)));
        }
    }

    async fn write(&mut self, key: &str, value: &str) {
        self.db.put(key, value).unwrap();
        self.state.insert(key.to_owned(), value.to_owned());
        self.archiver().poll().unwrap();
        self.archiver().ship().await.unwrap();
        let boundary = self.archiver().acknowledged().boundary.get();
        self.states.insert(boundary, self.state.clone());
    }

    async fn tag(&mut self, name: &str) {
        let request = TagRequest {
            name: name.into(),
            note: String::new(),
            unflushed: Unflushed::Observed,
            expires: None,
            group: None,
        };
        self.archiver().tag(&request).await.unwrap();
        self.tags.insert(name.to_owned(), self.state.clone());
    }

    async fn manifest(&mut self) {
        self.archiver().poll().unwrap();
        self.archiver().heartbeat().await.unwrap();
        self.archiver().close_manifest().await.unwrap();
    }

    /// Merges until nothing is left to merge: what a level makes is a part of the next.
    async fn merge_all(&mut self) {
        for _ in 0..10 {
            if self.archiver().merge().await.unwrap() == 0 {
                return;
            }
            self.manifest().await;
        }
        panic!("merging does not end");
    }

    async fn planned(&self, target: &Target) -> RestorePlan {
        let archive = self.archive().await;
        let catalog = archive.load_catalog().await.unwrap();
        plan(&archive, &catalog, target, &PlanOptions::default()).await.unwrap_or_else(|e| panic!("{target}: {e}"))
    }

    async fn restored(&self, plan: &RestorePlan) -> pitr_archive::Result<State> {
        let into = self.dir.path().join("restored");
        let options = RestoreOptions::new(&into, Nonce([9; 16]), START);
        let restored = restore(&self.archive().await, plan, &options, Arc::new(Silent)).await;
        let found = restored.map(|_| contents(&into));
        if into.exists() {
            std::fs::remove_dir_all(&into).unwrap();
        }
        found
    }

    /// Every tag and a sample of records restore exactly.
    async fn exact(&self) {
        for (name, state) in &self.tags {
            let plan = self.planned(&Target::tag(name)).await;
            assert!(self.restored(&plan).await.unwrap() == *state, "tag {name}");
        }
        for (boundary, state) in self.states.iter().step_by(13) {
            let plan = self.planned(&Target::Record(Boundary::new(*boundary).last_record().unwrap())).await;
            assert!(self.restored(&plan).await.unwrap() == *state, "at {boundary}");
        }
    }

    async fn sound(&self) {
        let report = verify(&self.archive().await, &Silent).await.unwrap();
        assert_eq!(report.findings, []);
    }

    async fn prune(&self, policy: Policy) -> PruneReport {
        let request = Request { policy, floor: Floor::Respected, mode: Mode::Act };
        prune(&self.archive().await, &request, &self.clock, &*self.random).await.unwrap()
    }
}

/// Some minutes of seconds with tags, in several manifests.
async fn some_minutes(site: &mut Site) {
    site.write("first", "0").await;
    site.archiver().take_base().await.unwrap();
    for _ in 0..8 {
        site.seconds(25).await;
        let name = format!("tag-{}", site.tags.len());
        site.tag(&name).await;
        site.manifest().await;
    }
    site.clock.advance(micros(Duration::from_secs(1200)));
    site.manifest().await;
}

#[tokio::test]
async fn seconds_become_minutes_without_losing_a_target_and_the_parts_go_after_the_grace_period() {
    for key in [None, Some(MasterKey::new([3; 32]))] {
        let mut site = Site::new(key).await;
        some_minutes(&mut site).await;
        let before = site.segments().await;
        let original: u64 = before.iter().map(|s| s.object_bytes).sum();
        site.merge_all().await;
        let after = site.segments().await;
        assert!(after.len() * 4 < before.len(), "{} of {}", after.len(), before.len());
        let parts = site.objects().await;
        assert!(before.iter().all(|s| parts.contains(&s.ordinals())), "nothing is deleted yet");
        site.sound().await;
        site.exact().await;

        site.clock.advance(micros(GRACE));
        site.merge_all().await;
        let used: BTreeSet<Ordinals> = after.iter().map(SegmentSummary::ordinals).collect();
        let objects = site.objects().await;
        assert!(
            before.iter().all(|s| used.contains(&s.ordinals()) || !objects.contains(&s.ordinals())),
            "parts are left"
        );
        site.sound().await;
        site.exact().await;

        // The account holds, for every segment and for all of them.
        for segment in &after {
            assert!(segment.written_bytes() < 3 * segment.original_bytes(), "{segment:?}");
        }
        let written: u64 = after.iter().map(SegmentSummary::written_bytes).sum();
        assert!(after.iter().map(SegmentSummary::original_bytes).sum::<u64>() >= original);
        println!("written {written} bytes for {original}: {:.2} times", written as f64 / original as f64);

        // Whoever comes next goes on, and merges on.
        site.archiver = None;
        site.open().await;
        site.seconds(30).await;
        site.manifest().await;
        site.clock.advance(micros(Duration::from_secs(1200)));
        site.manifest().await;
        site.merge_all().await;
        site.sound().await;
        site.exact().await;
    }
}

#[tokio::test]
async fn a_plan_that_is_older_than_the_grace_period_says_why_it_cannot_be_performed() {
    let mut site = Site::new(None).await;
    some_minutes(&mut site).await;
    let old = site.planned(&Target::Latest).await;
    site.merge_all().await;
    site.restored(&old).await.unwrap();
    site.clock.advance(micros(GRACE));
    site.merge_all().await;
    let e = site.restored(&old).await.unwrap_err();
    assert_eq!(e.code(), Code::SegmentMissing, "{e}");
    assert!(e.to_string().contains("merged into"), "{e}");
}

#[tokio::test]
async fn an_archiver_that_slept_through_a_merge_is_fenced_before_it_releases_anything() {
    let mut site = Site::new(None).await;
    some_minutes(&mut site).await;
    // It has cut a segment, and is paused before it is sent.
    site.db.put("late", "1").unwrap();
    site.state.insert("late".into(), "1".into());
    site.archiver().poll().unwrap();
    let mut slept = site.archiver.take().unwrap();
    let (acknowledged, next) = (slept.acknowledged(), site.segments().await.last().unwrap().ordinal.next().unwrap());
    let state = ArchiverConfig::new(site.dir.path().join("db")).state;
    std::fs::rename(&state, site.dir.path().join("aside")).unwrap();
    site.open().await;
    some_minutes(&mut site).await;
    site.merge_all().await;
    site.clock.advance(micros(GRACE));
    site.merge_all().await;
    assert!(!site.objects().await.contains(&next.into()), "its ordinal is free again");
    let e = slept.ship().await.unwrap_err();
    assert_eq!(e.code(), Code::Fenced, "{e}");
    assert_eq!(slept.acknowledged(), acknowledged, "nothing is acknowledged, so no pin is released");
    drop(slept);
    site.sound().await;
    // What it left is where a merged segment stands: a prune finds it.
    assert!(site.objects().await.contains(&next.into()));
    site.prune(Policy { grace: GRACE, ..Policy::default() }).await;
    assert!(!site.objects().await.contains(&next.into()));
    site.sound().await;
    site.exact().await;
}

#[tokio::test]
async fn a_prune_deletes_parts_and_what_was_never_named() {
    let mut site = Site::new(None).await;
    some_minutes(&mut site).await;
    site.merge_all().await;
    // The archiver is gone, and with it what it merged last and no manifest names.
    site.seconds(30).await;
    site.manifest().await;
    site.clock.advance(micros(Duration::from_secs(1200)));
    site.manifest().await;
    assert!(site.archiver().merge().await.unwrap() > 0);
    site.archiver = None;
    let used = |segments: Vec<SegmentSummary>| segments.iter().map(SegmentSummary::ordinals).collect::<BTreeSet<_>>();
    let policy = Policy { grace: GRACE, ..Policy::default() };
    site.clock.advance(micros(Duration::from_secs(7200)));
    site.prune(policy).await;
    let left: Vec<Ordinals> = site.objects().await.difference(&used(site.segments().await)).copied().collect();
    assert!(
        !left.is_empty() && left.iter().all(|ordinals| ordinals.is_merged()),
        "condemned, and not deleted: {left:?}"
    );
    site.clock.advance(micros(GRACE));
    site.prune(policy).await;
    assert_eq!(site.objects().await, used(site.segments().await));
    site.sound().await;
    site.exact().await;
}

/// A prune is between its decision and its statement while the archiver merges, and a manifest says so: what the prune keeps
/// begins inside a merged segment of which it did not know.
#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_did_not_know_of_a_merge_keeps_what_it_said() {
    let mut site = Site::new(None).await;
    some_minutes(&mut site).await;
    site.db.flush().unwrap();
    site.seconds(5).await;
    site.archiver().take_base().await.unwrap();
    site.seconds(65).await;
    site.manifest().await;
    site.clock.advance(micros(Duration::from_secs(1200)));
    site.manifest().await;
    for name in std::mem::take(&mut site.tags).into_keys() {
        let name = pitr_archive::tag::Name::parse(&name).unwrap();
        assert!(site.archive().await.delete_tag(&name).await.unwrap());
    }
    site.clock.advance(micros(Duration::from_secs(3 * 24 * 3600)));
    site.manifest().await;
    let archiver = Arc::new(Mutex::new(site.archiver.take()));
    let merged = Rc::new(Cell::new(false));
    let telling = crash::tell({
        let (archiver, merged) = (archiver.clone(), merged.clone());
        move |point| {
            if point == "prune-before-boundary" && !merged.replace(true) {
                let archiver = archiver.clone();
                let work = move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    let mut archiver = archiver.lock().unwrap();
                    let archiver = archiver.as_mut().unwrap();
                    runtime.block_on(async {
                        assert!(archiver.merge().await.unwrap() > 0);
                        archiver.heartbeat().await.unwrap();
                        archiver.close_manifest().await.unwrap();
                    });
                };
                std::thread::spawn(work).join().unwrap();
            }
        }
    });
    let policy = Policy {
        window: Duration::from_secs(24 * 3600),
        last: 1,
        daily: 0,
        weekly: 0,
        monthly: 0,
        yearly: 0,
        grace: GRACE,
        ..Policy::default()
    };
    site.prune(policy).await;
    drop(telling);
    assert!(merged.get(), "the prune stated something");
    site.archiver = archiver.lock().unwrap().take();
    let deleted = site.archive().await.load_catalog().await.unwrap();
    let deleted = deleted.current_timeline().unwrap().deleted().unwrap().clone();
    let crossing = |o: &Ordinals| o.is_merged() && deleted.keeps_any(*o) && !deleted.admits(*o);
    assert!(site.objects().await.iter().any(crossing), "the story did not come about");
    site.states.retain(|boundary, _| *boundary > deleted.first.get() + 2);
    let kept: Vec<u64> = site.states.keys().copied().collect();
    assert!(kept.len() > 20);
    let last_base = site.archive().await.bases().await.unwrap().last().unwrap().floor.boundary.get();
    site.states.retain(|boundary, _| *boundary >= last_base);
    site.sound().await;
    site.exact().await;
    for _ in 0..3 {
        site.clock.advance(micros(Duration::from_secs(7200)));
        site.manifest().await;
        site.merge_all().await;
        site.prune(policy).await;
        site.sound().await;
        site.exact().await;
    }
    assert!(!site.objects().await.iter().any(crossing), "what nobody can use is gone");
}
