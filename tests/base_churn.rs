//! Bases taken from outside while the database changes its files as fast as it can: eighty of them, none inconsistent.
//!
//! Three column families are written together by four writers, with tiny memtables and a MANIFEST that rolls over all
//! the time. Every batch puts the same value under the same key of all three, so a copy that mixes moments shows it.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use harness::{
    archive_driver::local,
    program::Settings,
    scratch,
    server::{self, Places},
};
use pitr_archive::{
    Code,
    catalog::archive::Archive,
    clock::{Micros, SystemClock},
    ids::Nonce,
    random::OsRandom,
    segment::entry::BarrierReason,
};
use pitr_archiver::{Archiver, ArchiverConfig, Parts};
use pitr_replayer::{
    plan::{PlanOptions, plan},
    progress::Silent,
    restore::{RestoreOptions, restore},
    target::Target,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rocksdb::{DB, DBRecoveryMode, WriteBatch};

const BASES: usize = 80;
const WRITERS: u64 = 4;
const FAMILIES: [&str; 3] = ["default", "alpha", "beta"];
/// Keys that all column families share.
const SHARED: u64 = 20_000;
/// Keys of each writer alone.
const OWN: u64 = 5_000;

/// Not a test of its own: the process that other tests kill.
#[test]
fn database_process() {
    harness::server::serve_if_asked();
}

fn settings() -> Settings {
    Settings { write_buffer: 64 << 10, manifest_bytes: 4 << 10, ..Settings::default() }
}

fn writer(db: &DB, id: u64, stop: &AtomicBool, written: &AtomicU64) {
    let mut rng = StdRng::seed_from_u64(id);
    let mut number = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        let mut batch = WriteBatch::default();
        let key = format!("k{:06}", rng.random_range(0..SHARED));
        let value = format!("{id}-{number}_{}", "x".repeat(80));
        for name in FAMILIES {
            batch.put_cf(&db.cf_handle(name).expect("a column family"), &key, &value);
        }
        for j in 0..rng.random_range(1..6) {
            let family = db.cf_handle(FAMILIES[j % FAMILIES.len()]).expect("a column family");
            batch.put_cf(&family, format!("t{id}-{:06}-{j}", number % OWN), &value);
        }
        db.write(batch).expect("a write");
        written.fetch_add(1, Ordering::SeqCst);
        number += 1;
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Opens a copy in the strictest mode and compares the column families with each other; answers the number of shared keys.
fn check(copy: &Path, sequence: u64) -> usize {
    let mut options = server::database_options(&Places::default(), &settings());
    options.create_if_missing(false);
    options.set_wal_recovery_mode(DBRecoveryMode::AbsoluteConsistency);
    let opened = server::open_with(copy, &options, &settings()).unwrap_or_else(|e| panic!("{}: {e}", copy.display()));
    assert_eq!(opened.db.latest_sequence_number(), sequence, "the latest sequence number is the planned one");
    let dump = server::dump(&opened.db, &opened.names).unwrap_or_else(|e| panic!("{}: {e}", copy.display()));
    let shared = |name: &str| dump[name].iter().filter(|(k, _)| k.starts_with(b"k")).cloned().collect::<Vec<_>>();
    let first = shared(FAMILIES[0]);
    for name in &FAMILIES[1..] {
        let other = shared(name);
        let wrong = first.iter().zip(&other).filter(|(a, b)| a != b).count() + first.len().abs_diff(other.len());
        assert_eq!(wrong, 0, "{}: {name} differs from {} in {wrong} keys", copy.display(), FAMILIES[0]);
    }
    first.len()
}

#[test]
fn eighty_bases_under_heavy_churn_are_all_consistent() {
    let root = scratch::directory();
    let dir = root.path().join("db");
    let opened = server::open(&dir, &Places::default(), &settings()).expect("a new database");
    for name in &FAMILIES[1..] {
        opened.db.create_cf(name, &server::family_options(&settings())).expect("a column family");
    }
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let newest = |dir: &Path| -> u64 {
        let names = std::fs::read_dir(dir).expect("the database").flatten().map(|e| e.file_name());
        names.filter_map(|n| n.to_str()?.split('.').next()?.parse().ok()).max().unwrap_or(0)
    };
    let manifest = |dir: &Path| -> u64 {
        let current = std::fs::read_to_string(dir.join("CURRENT")).expect("CURRENT");
        current.trim().trim_start_matches("MANIFEST-").parse().expect("a number")
    };
    let (files, manifests) = (newest(&dir), manifest(&dir));
    std::thread::scope(|scope| {
        for id in 0..WRITERS {
            let (db, stop, written) = (&opened.db, &stop, &written);
            scope.spawn(move || writer(db, id, stop, written));
        }
        let outcome = std::panic::catch_unwind(|| take_bases(root.path(), &dir));
        stop.store(true, Ordering::SeqCst);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    let (files, manifests) = (newest(&dir) - files, manifest(&dir) - manifests);
    println!("{} batches, {files} file numbers, MANIFEST number grew by {manifests}", written.load(Ordering::SeqCst));
    assert!(files > 2_000, "only {files} new files: that was no churn");
    assert!(manifests > 1_000, "the MANIFEST did not roll over");
}

fn take_bases(root: &Path, dir: &PathBuf) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let store = local(&root.join("archive"));
    let mut config = ArchiverConfig::new(dir);
    config.state = root.join("state");
    runtime.block_on(async {
        let archive = Archive::open_or_create(store.clone(), None, &SystemClock, &OsRandom).await.expect("an archive");
        let mut archiver = Archiver::open(config, archive, Parts::system()).await.unwrap_or_else(|e| panic!("{e}"));
        let archive = Arc::new(Archive::open(store, None).await.expect("the archive"));
        let (mut shared, mut retried, mut barriers, mut behind_barriers) = (0, 0, 0, 0);
        for n in 0..BASES {
            let base = loop {
                match archiver.take_base().await {
                    Ok(base) => break base,
                    // Files come and go faster than they can be linked: the archiver says so, and a person asks again.
                    // So it does where a log came and went while the base was linked.
                    Err(e)
                        if matches!(e.code(), Code::BaseUnobtainable | Code::BaseNotPublishable) && retried < BASES =>
                    {
                        retried += 1;
                    }
                    Err(e) => panic!("base {n}: {e}"),
                }
            };
            // Some more, so that the latest position lies behind the floor.
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                archiver.poll().unwrap_or_else(|e| panic!("{e}"));
                archiver.ship().await.unwrap_or_else(|e| panic!("{e}"));
            }
            if n % 10 == 9 {
                archiver.close_manifest().await.unwrap_or_else(|e| panic!("{e}"));
            }
            let catalog = archive.load_catalog().await.unwrap_or_else(|e| panic!("{e}"));
            let timeline = catalog.current_timeline().expect("a timeline");
            let seen = timeline.barriers();
            barriers = seen.len();
            let floor = base.floor.boundary.last_record().expect("records before the floor");
            // A log here lives for some twenty milliseconds; where the watch was not scheduled for so long, it is lost.
            let ended = timeline.runs().last().is_some_and(|run| run.number > base.run);
            let outrun = ended
                && seen.iter().any(|b| b.reason == BarrierReason::RecordsMissing && b.at >= base.floor.boundary);
            for target in [Target::Record(floor), Target::Latest] {
                let options = PlanOptions { base: Some(base.id.clone()), ..PlanOptions::default() };
                let plan = match plan(&archive, &catalog, &target, &options).await {
                    Err(e) if e.code() == Code::TargetBehindBarrier && target == Target::Latest && outrun => {
                        behind_barriers += 1;
                        continue;
                    }
                    planned => planned.unwrap_or_else(|e| panic!("{target}: {e}")),
                };
                let into = root.join("restored");
                let options = RestoreOptions::new(&into, Nonce([1; 16]), Micros(0));
                restore(&archive, &plan, &options, Arc::new(Silent)).await.unwrap_or_else(|e| panic!("{target}: {e}"));
                shared += check(&into, plan.position.sequence.get());
                std::fs::remove_dir_all(&into).expect("removing the copy");
            }
        }
        println!(
            "{BASES} bases, each restored to its floor and to the latest position that it reaches; {retried} asked for again, {barriers} \
             barriers because a log came and went unseen, which kept the latest position out of reach {behind_barriers} times"
        );
        assert!(behind_barriers < BASES / 4, "hardly any latest position could be reached");
        assert!(shared > BASES * 1_000, "the copies hold next to nothing: {shared} keys");
        archiver.close().await.unwrap_or_else(|e| panic!("{e}"));
    });
}
