//! Random programs against the one oracle: a restore equals the model at its target, or is refused for a reason that
//! the program gave. There is no third outcome, and a program that gave no reason is never refused.
//!
//! `PITR_PROGRAMS=N` runs N programs, `PITR_FIRST=S` from seed S on, `PITR_SEED=S` only that of seed S.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use harness::{
    archive_driver::ArchiveDriver,
    compare::Comparison,
    driver::{self, Driver},
    program::{self, ArchiverStep, Program, Step},
    scratch,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

/// Programs in continuous integration: about two minutes on two cores.
const PROGRAMS: u64 = 500;
/// Programs at once.
const WORKERS: usize = 2;
/// Fewer programs than this need not meet every kind of step.
const ENOUGH: u64 = 200;

/// Not a test of its own: the process that the others kill.
#[test]
fn database_process() {
    harness::server::serve_if_asked();
}

#[test]
fn the_model_agrees_with_rocksdb() {
    for seed in 1_000_000..1_000_010 {
        let program = program::generate(seed);
        let root = scratch::directory();
        let mut driver = Driver::create(root.path(), &program.settings);
        for step in program.steps.iter().filter(|s| !matches!(s, Step::Archive(_))) {
            driver.step(step);
        }
        driver.check();
        driver.close();
    }
}

/// What a run of many programs met.
#[derive(Default)]
struct Coverage {
    kinds: BTreeMap<&'static str, u64>,
    restored: u64,
    refused: BTreeMap<&'static str, u64>,
    bases: u64,
    records: u64,
    without_refusal: u64,
}

#[test]
fn every_restore_is_exact_or_refused_with_a_reason() {
    let number =
        |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap_or_else(|e| panic!("{name}: {e}")));
    let (first, count) = match number("PITR_SEED") {
        Some(seed) => (seed, 1),
        None => (number("PITR_FIRST").unwrap_or(0), number("PITR_PROGRAMS").unwrap_or(PROGRAMS)),
    };
    let next = AtomicU64::new(first);
    let failed = AtomicBool::new(false);
    let coverage = Mutex::new(Coverage::default());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + count
                        || failed.load(Ordering::SeqCst) && std::env::var_os("PITR_KEEP_GOING").is_none()
                    {
                        break;
                    }
                    let program = program::generate(seed);
                    let done = catch_unwind(AssertUnwindSafe(|| run(&program, &coverage)));
                    if done.is_err() {
                        failed.store(true, Ordering::SeqCst);
                        tell(&program);
                    }
                }
            });
        }
    });
    let coverage = coverage.into_inner().expect("no worker holds it");
    println!("{count} programs from seed {first}, {} records, {} bases", coverage.records, coverage.bases);
    println!("{} restores compared, refused: {:?}", coverage.restored, coverage.refused);
    println!("{} programs without any refusal", coverage.without_refusal);
    for (kind, times) in &coverage.kinds {
        println!("{times:8} {kind}");
    }
    assert!(!failed.load(Ordering::SeqCst), "a program failed: its seed and steps are above");
    if count >= ENOUGH {
        let never: Vec<_> = program::KINDS.iter().filter(|kind| !coverage.kinds.contains_key(*kind)).collect();
        assert!(never.is_empty(), "no program met {never:?}");
        let given_up = coverage.kinds.get(driver::BROKEN).copied().unwrap_or_default();
        assert!(given_up <= count / 50, "{given_up} programs were given up");
        assert!(coverage.restored > count, "fewer restores than programs: {}", coverage.restored);
        assert!(coverage.without_refusal > count / 6, "nearly every program was refused something");
        for code in ["target.behind-barrier", "target.before-start"] {
            assert!(coverage.refused.contains_key(code), "nothing was ever refused with {code}");
        }
    }
}

/// What somebody needs to find the cause.
fn tell(program: &Program) {
    println!("\nPITR_SEED={} fails", program.seed);
    println!(
        "{:?}, store {:?}, encrypted {}, attentive {}",
        program.settings, program.store, program.encrypted, program.attentive
    );
    for (i, step) in program.steps.iter().enumerate() {
        let text = format!("{step:?}");
        println!("{i:4} {}", text.chars().take(300).collect::<String>());
    }
}

fn run(program: &Program, coverage: &Mutex<Coverage>) {
    let root = scratch::directory();
    let mut driver = Driver::create(root.path(), &program.settings);
    if std::env::var_os("PITR_SEED").is_some() {
        // What the archiver warns of, between the steps.
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(std::io::stdout)
            .without_time()
            .try_init();
    }
    let mut archiver = ArchiveDriver::new(root.path(), program, &driver);
    let verbose = std::env::var_os("PITR_SEED").is_some();
    for (i, step) in program.steps.iter().enumerate() {
        if verbose {
            println!("{i:4} {:.200}", format!("{step:?}"));
        }
        match step {
            Step::Archive(step) => {
                archiver.step(step, &mut driver);
                // A base has what RocksDB's compactions made of prepared data: whether that was right, only the server tells.
                if matches!(step, ArchiverStep::Base | ArchiverStep::WantedBase) && program.counts_batches() {
                    driver.check();
                }
            }
            step => driver.step(step),
        }
        if driver.noted.contains(driver::BROKEN) {
            let mut coverage = coverage.lock().expect("no worker panics while it holds this");
            *coverage.kinds.entry(driver::BROKEN).or_default() += 1;
            return;
        }
        if program.attentive && !matches!(step, Step::Archive(_)) && archiver.is_open() {
            archiver.poll(&mut driver);
        }
    }
    archiver.finish(&mut driver);
    driver.check();
    if verbose {
        harness::compare::tell_stream(&archiver);
    }
    let mut rng = StdRng::seed_from_u64(program.seed ^ 0x7A26_E700);
    let mut comparison = Comparison::new(&driver, &archiver, root.path());
    let mut targets: BTreeSet<usize> = (0..3).map(|_| rng.random_range(0..comparison.boundaries())).collect();
    let interesting = comparison.interesting();
    targets.extend(interesting.choose_multiple(&mut rng, 4));
    for target in targets {
        comparison.check_boundary(target);
    }
    comparison.check_latest();
    if let Some((name, moment)) = archiver.tags.choose(&mut rng) {
        comparison.check_tag(name, *moment);
    }
    comparison.check_time(rng.random_range(0..archiver.looks.len()));
    comparison.check_sequence(rng.random_range(0..comparison.boundaries()));
    let mut coverage = coverage.lock().expect("no worker panics while it holds this");
    for kind in program.steps.iter().flat_map(Step::kinds).chain(driver.noted.iter().chain(&comparison.noted).copied())
    {
        *coverage.kinds.entry(kind).or_default() += 1;
    }
    coverage.restored += comparison.restored as u64;
    coverage.without_refusal += u64::from(comparison.refused.is_empty());
    for (code, times) in comparison.refused {
        *coverage.refused.entry(code).or_default() += times as u64;
    }
    coverage.bases += archiver.bases as u64;
    coverage.records += driver.model.records.len() as u64;
}
