//! How much memory the program takes, and how little an idle archiver does.
//!
//! The limits are promises: `pitr run` below 64 MiB while it follows, below 192 MiB while it uploads a base, `restore`
//! below 512 MiB; and half a percent of a core while nothing happens. Figures come from the kernel (`VmHWM`, processor
//! time of every thread), so this runs on Linux.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::{
    collections::BTreeMap,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use harness::{
    command::{self, pitr, text, url},
    program::Settings,
    scratch,
    server::{self, Places},
};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use rocksdb::{DB, WriteBatch};

const MIB: u64 = 1 << 20;

/// The largest resident size of a process since it was last forgotten, in bytes; `None` when it is gone.
fn peak(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Forgets the largest resident size.
fn forget(id: u32) {
    std::fs::write(format!("/proc/{id}/clear_refs"), "5").expect("the kernel forgets the peak");
}

/// Processor time of every thread, in nanoseconds. The scheduler's own account: ticks are as coarse as what is measured.
/// A thread that ends takes its account along, so it can only be compared while none does.
fn processor_time(id: u32) -> BTreeMap<String, u64> {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).expect("a running process");
    let time = |thread: std::fs::DirEntry| {
        let account = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        let time = account.split_whitespace().next()?.parse().ok()?;
        Some((thread.file_name().to_string_lossy().into_owned(), time))
    };
    threads.filter_map(|thread| time(thread.ok()?)).collect()
}

/// The share of a core that a process takes in `duration`.
fn share_of_a_core(id: u32, duration: Duration) -> f64 {
    let (before, start) = (processor_time(id), Instant::now());
    std::thread::sleep(duration);
    let after = processor_time(id);
    let used: u64 = after.iter().map(|(thread, time)| time - before.get(thread).unwrap_or(&0)).sum();
    used as f64 / start.elapsed().as_nanos() as f64
}

fn write(db: &DB, rng: &mut StdRng, bytes: u64) {
    let mut value = vec![0; 1000];
    for _ in 0..bytes / 100_000 {
        let mut batch = WriteBatch::default();
        for _ in 0..100 {
            rng.fill_bytes(&mut value);
            batch.put(format!("{:012}", rng.random_range(0..1_000_000_000_u64)), &value);
        }
        db.write(batch).expect("a write");
    }
}

fn wait_for(what: &str, archiver: &mut Child, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < command::LIMIT, "waiting for {what}");
        assert!(archiver.try_wait().expect("waiting").is_none(), "the archiver ended while waiting for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn memory_stays_within_its_limits_while_following_uploading_and_restoring() {
    let root = scratch::on_disk();
    let dir = root.path().join("db");
    let settings = Settings { write_buffer: 16 << 20, ..Settings::default() };
    let db = server::open(&dir, &Places::default(), &settings).expect("a new database").db;
    let mut rng = StdRng::seed_from_u64(1);
    write(&db, &mut rng, 400 * MIB);
    let archive = url(&root.path().join("archive"));
    let mut archiver = pitr(["run", "--db", text(&dir), "--archive", &archive])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starting pitr run");
    let id = archiver.id();
    wait_for("the first base", &mut archiver, || command::bases(&archive) > 0);
    let uploading = peak(id).expect("a running archiver");
    forget(id);
    write(&db, &mut rng, 300 * MIB);
    command::succeed(&mut pitr(["flush", "--db", text(&dir)]));
    let following = peak(id).expect("a running archiver");

    // What was written last is shipped, and is not part of being idle.
    std::thread::sleep(Duration::from_secs(3));
    // What else the machine does only adds: colder caches, and waiting for the hypervisor. The best of several is nearest.
    let shares = (0..4).map(|_| share_of_a_core(id, Duration::from_secs(5)) * 100.0);
    let idle = shares.fold(f64::INFINITY, f64::min);
    command::terminate(&archiver);
    let status = command::wait(&mut archiver).expect("the archiver ends");
    assert!(status.success(), "SIGTERM is an orderly end: {status}");

    let into = root.path().join("copy");
    let mut restore = pitr(["restore", "--to-latest", "--archive", &archive, "--into", text(&into)])
        .stdout(Stdio::null())
        .spawn()
        .expect("starting pitr restore");
    let mut restoring = 0;
    let status = loop {
        restoring = restoring.max(peak(restore.id()).unwrap_or(0));
        if let Some(status) = restore.try_wait().expect("waiting") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "the restore: {status}");
    println!(
        "resident: uploading a base of 400 MiB {} MiB, following 300 MiB {} MiB, restoring {} MiB; idle {idle:.2} % of a core",
        uploading / MIB,
        following / MIB,
        restoring / MIB
    );
    assert!(uploading < 192 * MIB, "{} MiB while uploading a base", uploading / MIB);
    assert!(following < 64 * MIB, "{} MiB while following", following / MIB);
    assert!(restoring < 512 * MIB, "{} MiB while restoring", restoring / MIB);
    assert!(idle < 0.5, "{idle:.2} % of a core while idle");
    let copy = server::open(&into, &Places::default(), &settings).expect("the copy opens");
    assert_eq!(copy.db.latest_sequence_number(), db.latest_sequence_number());
}
