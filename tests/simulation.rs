//! The whole archiver in one thread: a server, its disk, a network and a store that are all simulated, a clock that moves
//! when told, and an oracle in memory. One seed is one run, byte for byte the same in every repetition.
//!
//! The promise: whatever fails, dies, stalls or arrives late, and wherever it does, the archive stays valid, what it
//! accepts as a target is restored exactly, and nothing is refused that nothing explains.
//!
//! `PITR_PROGRAMS=N` runs N seeds, `PITR_FIRST=S` from seed S on; `PITR_SEED=S` runs only that one and tells what happens.

#![allow(clippy::unwrap_used, missing_docs)] // a test fails by panicking

#[path = "simulation/archivers.rs"]
mod archivers;
#[path = "simulation/coverage.rs"]
mod coverage;
#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/judge.rs"]
mod judge;
#[path = "simulation/merging.rs"]
mod merging;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "simulation/process.rs"]
mod process;
#[path = "simulation/profile.rs"]
mod profile;
#[path = "simulation/recovery.rs"]
mod recovery;
#[path = "simulation/retention.rs"]
mod retention;
#[path = "simulation/run.rs"]
mod run;
#[path = "harness/scratch.rs"]
mod scratch;
#[path = "simulation/server.rs"]
mod server;
#[path = "simulation/stall.rs"]
mod stall;
#[path = "simulation/table.rs"]
mod table;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use coverage::{Coverage, KINDS};
use pitr_archiver::crash;
use run::Telling;

/// Runs in continuous integration.
const PROGRAMS: u64 = 10_000;
/// Runs at once, each on a thread of its own.
const WORKERS: usize = 2;
/// Fewer runs than this need not meet everything.
const ENOUGH: u64 = 5_000;

#[test]
fn whatever_fails_every_archive_is_valid_and_every_restore_exact_or_refused() {
    let number =
        |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap_or_else(|e| panic!("{name}: {e}")));
    let (first, count, telling) = match number("PITR_SEED") {
        Some(seed) => (seed, 1, Telling::Aloud),
        None => (number("PITR_FIRST").unwrap_or(0), number("PITR_PROGRAMS").unwrap_or(PROGRAMS), Telling::Silent),
    };
    let keep_going = std::env::var_os("PITR_KEEP_GOING").is_some();
    if telling == Telling::Aloud {
        // What the archivers say, between the steps.
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(std::io::stdout)
            .without_time()
            .try_init();
    }
    let next = AtomicU64::new(first);
    let failed = AtomicBool::new(false);
    let coverage = Mutex::new(Coverage::default());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                while !failed.load(Ordering::SeqCst) || keep_going {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + count {
                        break;
                    }
                    match catch_unwind(AssertUnwindSafe(|| run::run(seed, &runtime, telling))) {
                        Ok(done) => coverage.lock().expect("no worker panics while it holds this").merge(done.coverage),
                        Err(why) => {
                            failed.store(true, Ordering::SeqCst);
                            let text = why.downcast_ref::<String>().map(String::as_str);
                            let text = text.or_else(|| why.downcast_ref::<&str>().copied()).unwrap_or_default();
                            println!("PITR_SEED={seed} fails: {}", text.lines().next().unwrap_or_default());
                        }
                    }
                }
            });
        }
    });
    let coverage = coverage.into_inner().expect("no worker holds it");
    println!("{count} runs from seed {first}");
    for (kind, times) in coverage.all() {
        println!("{times:9} {kind}");
    }
    assert!(!failed.load(Ordering::SeqCst), "a run failed: its seed is above");
    if count >= ENOUGH {
        let never: Vec<_> = KINDS
            .iter()
            .chain(crash::POINTS)
            .chain(crash::PRUNE_POINTS)
            .chain(crash::INDEX_POINTS)
            .chain(crash::MERGE_POINTS)
            .filter(|kind| coverage.count(kind) == 0)
            .collect();
        assert!(never.is_empty(), "no run met {never:?}");
    }
}

#[test]
fn a_seed_repeats_itself() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for seed in 0..20 {
        let story = || run::run(seed, &runtime, Telling::Silent).story;
        assert_eq!(story(), story(), "seed {seed}");
    }
}
