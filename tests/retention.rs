//! Retention on a real database: what a policy promises is restored exactly, everything else is gone a grace period later,
//! and nothing that happens at the same time breaks it.

#![allow(clippy::unwrap_used, missing_docs)] // a test fails by panicking

#[path = "harness/opening.rs"]
mod opening;
#[path = "retention/races.rs"]
mod races;
#[path = "retention/scale.rs"]
mod scale;

use std::{
    cell::Cell,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use pitr_archive::{
    Code, Error, Result,
    catalog::{archive::Archive, model::Catalog},
    clock::{Clock, ManualClock, Micros},
    ids::{Boundary, Nonce},
    keyring::MasterKey,
    object_key::ObjectKey,
    random::{OsRandom, SeededRandom},
    store::{Store, memory::MemoryStore},
};
use pitr_archiver::{
    Archiver, ArchiverConfig, Parts,
    config::FileEvents,
    control::{TagRequest, Unflushed},
    crash,
    retention::{Floor, Mode, Policy, PruneReport, Request, policy::YOUNG, prune},
};
use pitr_replayer::{
    hold::Hold,
    plan::{PlanOptions, RestorePlan, plan},
    progress::Silent,
    restore::{RestoreOptions, restore},
    target::Target,
    verify::{Garbage, verify},
};
use rocksdb::{DB, IteratorMode, Options};
use tempfile::TempDir;

const START: Micros = Micros(1_795_132_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

type State = BTreeMap<String, String>;

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap()
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options
}

/// A database, its archive and what it held after every record.
struct Site {
    dir: TempDir,
    db: Option<DB>,
    store: MemoryStore,
    clock: ManualClock,
    random: Arc<SeededRandom>,
    key: Option<MasterKey>,
    /// Column families that are written without the log.
    tolerate: Vec<String>,
    archiver: Option<Archiver>,
    states: BTreeMap<u64, State>,
    state: State,
}

impl Site {
    async fn new(key: Option<MasterKey>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = DB::open(&options(), dir.path().join("db")).unwrap();
        let mut site = Self {
            dir,
            db: Some(db),
            store: MemoryStore::new(),
            clock: ManualClock::new(START),
            random: Arc::new(SeededRandom::new(1)),
            key,
            tolerate: Vec::new(),
            archiver: None,
            states: BTreeMap::new(),
            state: State::new(),
        };
        site.open().await;
        site
    }

    async fn open(&mut self) {
        let config = || ArchiverConfig {
            file_events: FileEvents::Scanned,
            unlogged_tolerate: self.tolerate.clone(),
            ..ArchiverConfig::new(self.dir.path().join("db"))
        };
        let parts = || Parts { clock: Arc::new(self.clock.clone()), random: self.random.clone(), ..Parts::system() };
        let opened = opening::when_unlocked(async || {
            let (store, key): (Arc<dyn Store>, _) = (Arc::new(self.store.clone()), self.key.clone());
            let archive = Archive::open_or_create(store, key, &self.clock, &*self.random).await?;
            Archiver::open(config(), archive, parts()).await
        });
        self.archiver = Some(opened.await);
    }

    fn archiver(&mut self) -> &mut Archiver {
        self.archiver.as_mut().unwrap()
    }

    fn db(&self) -> &DB {
        self.db.as_ref().unwrap()
    }

    async fn archive(&self) -> Archive {
        Archive::open(Arc::new(self.store.clone()), self.key.clone()).await.unwrap()
    }

    /// Writes one record and ships it.
    async fn write(&mut self, key: &str, value: &str) {
        self.db().put(key, value).unwrap();
        self.state.insert(key.to_owned(), value.to_owned());
        self.archiver().poll().unwrap();
        self.archiver().ship().await.unwrap();
        let boundary = self.archiver().acknowledged().boundary.get();
        self.states.insert(boundary, self.state.clone());
    }

    /// A day with writes, heartbeats, a flush and a base.
    async fn day(&mut self, number: u32) {
        for n in 0..3 {
            self.write(&format!("k{n}"), &format!("day {number}")).await;
            self.clock.advance(micros(HOUR * 2));
            self.archiver().heartbeat().await.unwrap();
        }
        self.db().flush().unwrap();
        self.write("flushed", &number.to_string()).await;
        self.archiver().take_base().await.unwrap();
        self.archiver().close_manifest().await.unwrap();
        self.clock.advance(micros(DAY - HOUR * 6));
        self.archiver().poll().unwrap();
        self.archiver().heartbeat().await.unwrap();
    }

    async fn tag(&mut self, name: &str, expires: Option<Duration>) {
        let expires = expires.map(|after| Micros(self.clock.now().0 + micros(after)));
        let request =
            TagRequest { name: name.into(), note: String::new(), unflushed: Unflushed::Observed, expires, group: None };
        self.archiver().tag(&request).await.unwrap();
    }

    async fn prune(&self, policy: Policy, mode: Mode) -> Result<PruneReport> {
        let request = Request { policy, floor: Floor::Respected, mode };
        prune(&self.archive().await, &request, &self.clock, &*self.random).await
    }

    /// Both phases: the second one a grace period later, after a sign of life.
    async fn prune_fully(&mut self, policy: Policy) -> PruneReport {
        self.prune(policy, Mode::Act).await.unwrap();
        self.clock.advance(micros(policy.grace));
        self.prune(policy, Mode::Act).await.unwrap()
    }

    async fn planned(&self, target: &Target) -> Result<RestorePlan> {
        let archive = self.archive().await;
        let catalog = archive.load_catalog().await?;
        plan(&archive, &catalog, target, &PlanOptions::default()).await
    }

    fn target(boundary: u64) -> Target {
        Target::Record(Boundary::new(boundary).last_record().unwrap())
    }

    /// Restores and compares with what the database held there.
    async fn restores(&self, plan: &RestorePlan) -> Result<()> {
        let into = self.dir.path().join("restored");
        let options = RestoreOptions::new(&into, Nonce([9; 16]), self.clock.now());
        let restored = restore(&self.archive().await, plan, &options, Arc::new(Silent)).await;
        let found = restored.map(|_| contents(&into));
        if into.exists() {
            std::fs::remove_dir_all(&into).unwrap();
        }
        assert_eq!(Some(&found?), self.states.get(&plan.position.boundary.get()), "at {}", plan.position.boundary);
        Ok(())
    }

    async fn exact(&self, target: &Target) {
        let plan = self.planned(target).await.unwrap_or_else(|e| panic!("{target}: {e}"));
        self.restores(&plan).await.unwrap_or_else(|e| panic!("{target}: {e}"));
    }

    async fn refused(&self, target: &Target) -> Code {
        self.planned(target).await.expect_err("nothing keeps it").code()
    }

    /// The archive is whole, and nothing else is in its store.
    async fn clean(&self) {
        let report = verify(&self.archive().await, &Silent).await.unwrap();
        assert_eq!(report.findings, []);
        assert_eq!(report.garbage, Garbage::default());
    }

    fn keys(&self, prefix: &str) -> Vec<ObjectKey> {
        let all = self.store.contents().into_iter().map(|(key, _)| key);
        all.filter(|key| key.as_str().starts_with(prefix)).collect()
    }
}

fn contents(dir: &Path) -> State {
    let db = DB::open(&options(), dir).unwrap();
    let pairs = db.iterator(IteratorMode::Start).map(|pair| pair.unwrap());
    pairs.map(|(k, v)| (String::from_utf8(k.into()).unwrap(), String::from_utf8(v.into()).unwrap())).collect()
}

/// Only the window.
fn window(days: u32) -> Policy {
    Policy { window: DAY * days, last: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0, ..Policy::default() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Everything but what the statements themselves are.
fn without_statements(store: &MemoryStore) -> Vec<ObjectKey> {
    let all = store.contents().into_iter().map(|(key, _)| key);
    all.filter(|key| !["boundaries/", "condemned/"].iter().any(|s| key.as_str().starts_with(s))).collect()
}

#[tokio::test]
async fn forty_days_are_pruned_to_what_the_policy_promises_and_all_of_that_is_exact() {
    for key in [None, Some(MasterKey::new([7; 32]))] {
        let mut site = Site::new(key).await;
        let mut begins = Vec::new();
        for day in 0..40 {
            begins.push(site.archiver().acknowledged().boundary.get());
            site.day(day).await;
            match day {
                10 => site.tag("release", None).await,
                12 => site.tag("passing", Some(DAY * 5)).await,
                38 => site.tag("lately", Some(DAY * 5)).await,
                _ => {}
            }
        }
        let claims = site.keys("epochs/").len();
        let policy = Policy { last: 2, weekly: 3, monthly: 2, ..window(3) };
        let before = site.store.contents();
        let dry = site.prune(policy, Mode::DryRun).await.unwrap();
        assert!(dry.dry_run && site.store.contents() == before, "a dry run changes nothing");
        let report = site.prune(policy, Mode::Act).await.unwrap();
        assert_eq!((&report.bases, &report.tags, report.condemned), (&dry.bases, &dry.tags, dry.condemned));
        assert_eq!(report.deleted.total().objects, 0, "nothing is deleted before its grace period");
        assert!(report.condemned.segments.objects > 100 && report.condemned.files.objects > 20, "{report:#?}");
        site.exact(&Target::tag("release")).await;
        site.clock.advance(micros(policy.grace));
        let swept = site.prune(policy, Mode::Act).await.unwrap();
        assert!(swept.deleted.segments.objects > 100, "{swept:#?}");
        assert_eq!(swept.condemned.total().objects, 0, "nothing new");
        assert_eq!(site.keys("epochs/").len(), claims, "nobody is fenced");

        let end = site.archiver().acknowledged().boundary.get();
        for boundary in begins[37]..=end {
            site.exact(&Site::target(boundary)).await;
        }
        site.exact(&Target::tag("release")).await;
        site.exact(&Target::tag("lately")).await;
        assert_eq!(site.refused(&Target::tag("passing")).await, Code::TagUnknown);
        let kept: Vec<_> = swept.bases.iter().filter(|base| base.drop.is_none()).collect();
        // Three weeks, two months, the window's, the tag's.
        assert!((6..=9).contains(&kept.len()), "{kept:#?}");
        for base in kept {
            site.exact(&Site::target(base.floor.get())).await;
        }
        assert_eq!(site.refused(&Site::target(begins[20] + 1)).await, Code::TargetBeforeStart);
        assert!(swept.timelines[0].kept.len() >= 3, "what lies between kept bases is gone: {:#?}", swept.timelines);
        site.clean().await;
        // The archiver goes on, and so does the next one.
        site.day(40).await;
        site.archiver = None;
        site.open().await;
        site.day(41).await;
        site.exact(&Target::Latest).await;
        assert_eq!(site.archive().await.load_catalog().await.unwrap().current_timeline().unwrap().runs().len(), 1);
    }
}

#[tokio::test]
async fn what_a_dead_archiver_left_and_what_a_wrong_clock_says_is_not_taken_for_old() {
    let mut site = Site::new(None).await;
    for day in 0..3 {
        site.day(day).await;
    }
    site.clock.advance(micros(DAY * 3650));
    let report = site.prune(window(2), Mode::Act).await.unwrap();
    assert_eq!(report.window_to, Some(Micros(START.0 + 3 * micros(DAY)).to_datetime()), "time is the archive's own");
    for boundary in 5..=site.archiver().acknowledged().boundary.get() {
        site.exact(&Site::target(boundary)).await;
    }
}

#[tokio::test]
async fn the_floor_holds_unless_it_is_forced_and_the_newest_position_holds_in_any_case() {
    let mut site = Site::new(None).await;
    for day in 0..4 {
        site.day(day).await;
    }
    let policy = Policy { window: Duration::ZERO, keep_at_least: DAY * 2, ..window(0) };
    let report = site.prune(policy, Mode::DryRun).await.unwrap();
    assert!(report.window_widened && report.window_seconds == 2 * DAY.as_secs());
    let request = Request { policy, floor: Floor::Ignored, mode: Mode::Act };
    let archive = site.archive().await;
    let forced = prune(&archive, &request, &site.clock, &*site.random).await.unwrap();
    assert!(forced.condemned.segments.objects > report.condemned.segments.objects);
    assert_eq!(forced.bases.iter().filter(|base| base.drop.is_none()).count(), 1);
    site.clock.advance(micros(policy.grace));
    prune(&archive, &request, &site.clock, &*site.random).await.unwrap();
    site.exact(&Target::Latest).await;
    site.clean().await;
}

#[tokio::test]
async fn a_grace_period_below_ten_minutes_is_refused() {
    let site = Site::new(None).await;
    let policy = Policy { grace: Duration::from_secs(599), ..window(1) };
    assert_eq!(site.prune(policy, Mode::DryRun).await.unwrap_err().code(), Code::ConfigContradictory);
}

#[tokio::test]
async fn an_archive_with_damage_is_not_pruned() {
    let mut site = Site::new(None).await;
    for day in 0..3 {
        site.day(day).await;
    }
    let manifest = site.keys("manifests/").remove(1);
    site.store.delete(&manifest).await.unwrap();
    let before = site.store.contents();
    let e = site.prune(window(1), Mode::Act).await.unwrap_err();
    assert_eq!(e.object(), Some(manifest.as_str()), "{e}");
    assert!(site.store.contents() == before);
}

#[tokio::test]
async fn two_prunes_at_once_come_to_what_one_comes_to() {
    let mut site = Site::new(None).await;
    for day in 0..8 {
        site.day(day).await;
    }
    let (alone, clock) = (site.store.fork(), site.clock.clone());
    let request = Request { policy: window(2), floor: Floor::Respected, mode: Mode::Act };
    let run = |store: MemoryStore, seed: u64| {
        let clock = clock.clone();
        async move {
            let archive = Archive::open(Arc::new(store), None).await.unwrap();
            prune(&archive, &request, &clock, &SeededRandom::new(seed)).await.unwrap()
        }
    };
    run(alone.clone(), 1).await;
    tokio::join!(run(site.store.clone(), 2), run(site.store.clone(), 3));
    site.clock.advance(micros(request.policy.grace));
    run(alone.clone(), 4).await;
    tokio::join!(run(site.store.clone(), 5), run(site.store.clone(), 6));
    assert_eq!(without_statements(&site.store), without_statements(&alone));
    site.exact(&Target::Latest).await;
    run(site.store.clone(), 7).await;
    site.clean().await;
}

#[test]
fn a_prune_that_dies_at_any_effect_leaves_a_whole_archive_and_the_next_one_ends_it() {
    let runtime = runtime();
    let site = runtime.block_on(async {
        let mut site = Site::new(None).await;
        for day in 0..8 {
            site.day(day).await;
            if day == 1 {
                site.tag("early", None).await;
            }
        }
        site
    });
    let request = Request { policy: window(2), floor: Floor::Respected, mode: Mode::Act };
    let grace = micros(request.policy.grace);
    let promised: Vec<Target> = (site.states.keys().rev().take(8))
        .map(|boundary| Site::target(*boundary))
        .chain([Target::tag("early"), Target::Latest])
        .collect();
    let whole = |store: &MemoryStore, when: &str| {
        runtime.block_on(async {
            let archive = Archive::open(Arc::new(store.clone()), None).await.unwrap();
            let report = verify(&archive, &Silent).await.unwrap();
            assert_eq!(report.findings, [], "{when}");
            let catalog: Catalog = archive.load_catalog().await.unwrap();
            for target in &promised {
                let planned = plan(&archive, &catalog, target, &PlanOptions::default()).await;
                planned.unwrap_or_else(|e| panic!("{when}, {target}: {e}"));
            }
        });
    };
    let attempt = |store: &MemoryStore, clock: &ManualClock, dies: Option<u64>| {
        let left = Rc::new(Cell::new(dies));
        let countdown = left.clone();
        let _telling = crash::tell(move |_| {
            if let Some(n) = countdown.get() {
                countdown.set(Some(n.wrapping_sub(1)));
                if n == 0 {
                    std::panic::resume_unwind(Box::new(()));
                }
            }
        });
        let store = store.clone();
        catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                let archive = Archive::open(Arc::new(store), None).await.unwrap();
                prune(&archive, &request, clock, &OsRandom).await.unwrap()
            })
        }))
    };
    let undisturbed = site.store.fork();
    let clock = ManualClock::new(site.clock.now());
    assert!(attempt(&undisturbed, &clock, None).is_ok());
    clock.advance(grace);
    assert!(attempt(&undisturbed, &clock, None).is_ok());
    let mut deaths = 0;
    for phase in 0..2 {
        for effect in 0.. {
            let store = site.store.fork();
            let clock = ManualClock::new(site.clock.now());
            if phase == 1 {
                assert!(attempt(&store, &clock, None).is_ok());
                clock.advance(grace);
            }
            let died = attempt(&store, &clock, Some(effect)).is_err();
            whole(&store, &format!("phase {phase}, dies at effect {effect}"));
            // Its turn is waited for.
            clock.advance(micros(YOUNG));
            assert!(attempt(&store, &clock, None).is_ok());
            clock.advance(grace);
            assert!(attempt(&store, &clock, None).is_ok());
            assert_eq!(without_statements(&store), without_statements(&undisturbed), "phase {phase}, effect {effect}");
            if !died {
                break;
            }
            deaths += 1;
        }
    }
    whole(&undisturbed, "undisturbed");
    assert!(deaths > 50, "only {deaths} effects");
}

/// Dies where a base is uploaded and not published; what it sent stays.
async fn upload_without_a_base(site: &mut Site) {
    let _telling = crash::tell(|at| {
        if at == "base-before-publish" {
            std::panic::resume_unwind(Box::new(()));
        }
    });
    let mut archiver = site.archiver.take().unwrap();
    let died = futures::FutureExt::catch_unwind(AssertUnwindSafe(archiver.take_base())).await;
    assert!(died.is_err());
}

#[tokio::test]
async fn files_of_a_base_that_came_to_nothing_are_found_and_a_later_base_does_not_count_on_them() {
    let mut site = Site::new(None).await;
    site.day(0).await;
    site.write("a", "1").await;
    site.db().flush().unwrap();
    let named = site.keys("files/");
    upload_without_a_base(&mut site).await;
    let lost: Vec<_> = site.keys("files/").into_iter().filter(|key| !named.contains(key)).collect();
    assert!(!lost.is_empty(), "the case needs a file that no base names");
    let report = verify(&site.archive().await, &Silent).await.unwrap();
    assert_eq!((report.findings.as_slice(), report.garbage.unreferenced), (&[][..], lost.len() as u64));
    let report = site.prune(window(9), Mode::Act).await.unwrap();
    assert_eq!(report.condemned.unreferenced.objects, lost.len() as u64);

    // The same files again, while they wait for the end of their grace period.
    site.open().await;
    site.write("b", "1").await;
    let base = site.archiver().take_base().await.unwrap();
    assert!(base.files.iter().all(|file| !lost.contains(&ObjectKey::file(&file.object))), "{base:#?}");
    assert!(base.files.iter().any(|file| file.object.starts_with("05")), "{base:#?}");
    site.clock.advance(micros(DAY));
    let report = site.prune(window(9), Mode::Act).await.unwrap();
    assert_eq!(report.deleted.unreferenced.objects, lost.len() as u64);
    site.exact(&Target::Latest).await;
    site.clean().await;
}

#[tokio::test]
async fn files_that_are_condemned_between_their_upload_and_the_base_are_sent_again() {
    let mut site = Site::new(None).await;
    site.day(0).await;
    site.write("a", "1").await;
    site.db().flush().unwrap();
    site.archiver().poll().unwrap();
    let (store, clock, later) = (site.store.clone(), site.clock.clone(), site.clock.clone());
    // Directly behind the first file's upload: the base has not looked again yet.
    let pruned = Rc::new(Cell::new(false));
    let once = pruned.clone();
    let telling = crash::tell(move |at| {
        if at == "base-uploaded-one" && !once.replace(true) {
            let (store, clock) = (store.clone(), clock.clone());
            std::thread::spawn(move || {
                runtime().block_on(async {
                    let archive = Archive::open(Arc::new(store), None).await.unwrap();
                    let request = Request { policy: window(9), floor: Floor::Respected, mode: Mode::Act };
                    let report = prune(&archive, &request, &clock, &OsRandom).await.unwrap();
                    assert!(report.condemned.unreferenced.objects > 0);
                });
            })
            .join()
            .unwrap();
            // So little of the grace period is left that nobody relies on it.
            later.advance(micros(DAY) * 6 / 10);
        }
    });
    let base = site.archiver().take_base().await.unwrap();
    assert!(pruned.get() && base.files.iter().any(|file| file.object.starts_with("05")), "{base:#?}");
    drop(telling);
    site.clock.advance(micros(DAY));
    let report = site.prune(window(9), Mode::Act).await.unwrap();
    assert!(report.deleted.unreferenced.objects > 0);
    site.exact(&Target::Latest).await;
    site.clean().await;
}

#[tokio::test]
async fn a_restore_that_began_before_has_the_grace_period_and_is_refused_behind_it() {
    let mut site = Site::new(None).await;
    for day in 0..6 {
        site.day(day).await;
    }
    let old = site.planned(&Site::target(6)).await.unwrap();
    site.prune(window(1), Mode::Act).await.unwrap();
    assert_eq!(site.refused(&Site::target(6)).await, Code::TargetBeforeStart, "no plan offers it any more");
    site.restores(&old).await.unwrap();
    site.clock.advance(micros(DAY));
    site.prune(window(1), Mode::Act).await.unwrap();
    let e: Error = site.restores(&old).await.unwrap_err();
    assert!(matches!(e.code(), Code::ObjectMissing | Code::SegmentMissing), "{e}");
}

#[tokio::test]
async fn what_a_restore_holds_is_not_deleted_until_the_hold_ends_or_expires() {
    let mut site = Site::new(None).await;
    for day in 0..6 {
        site.day(day).await;
    }
    let old = site.planned(&Site::target(6)).await.unwrap();
    let archive = site.archive().await;
    for end in ["released", "expired"] {
        let clock = site.clock.clone();
        let random = SeededRandom::new(site.clock.now().0.unsigned_abs());
        let mut hold = Hold::place(&archive, &old, &clock, &random, "test").await.unwrap();
        for _ in 0..2 {
            site.clock.advance(micros(DAY));
            hold.renew().await.unwrap();
            let report = site.prune(window(1), Mode::Act).await.unwrap();
            assert_eq!(report.holds, 1);
            site.restores(&old).await.unwrap();
        }
        if end == "released" {
            hold.release().await.unwrap();
            assert_eq!(site.keys("holds/"), []);
        } else {
            site.clock.advance(micros(HOUR));
            assert_eq!(site.prune(window(1), Mode::DryRun).await.unwrap().holds, 0);
        }
    }
    site.prune_fully(window(1)).await;
    assert!(site.restores(&old).await.is_err(), "nothing holds it any more");
    site.prune_fully(window(1)).await;
    assert_eq!(site.keys("holds/"), []);
    site.clean().await;
}

#[tokio::test]
async fn an_archiver_that_slept_through_a_prune_is_fenced_before_it_releases_anything() {
    let mut site = Site::new(None).await;
    site.day(0).await;
    // It has cut a segment, and is paused before it is sent.
    site.db().put("late", "1").unwrap();
    site.state.insert("late".into(), "1".into());
    site.archiver().poll().unwrap();
    let mut slept = site.archiver.take().unwrap();
    let acknowledged = slept.acknowledged();
    let state = ArchiverConfig::new(site.dir.path().join("db")).state;
    std::fs::rename(&state, site.dir.path().join("aside")).unwrap();
    site.open().await;
    for day in 1..6 {
        site.day(day).await;
    }
    site.prune_fully(window(1)).await;
    let e = slept.ship().await.unwrap_err();
    assert_eq!(e.code(), Code::Fenced, "{e}");
    assert_eq!(slept.acknowledged(), acknowledged, "nothing is acknowledged, so no pin is released");
    drop(slept);
    site.exact(&Target::Latest).await;
    // Its segment is where nothing is any more: the next prune finds it.
    site.prune_fully(window(1)).await;
    site.clean().await;
}
