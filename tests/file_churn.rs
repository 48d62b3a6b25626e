//! A server that makes hundreds of files a second: nothing is lost without a barrier that says so.
//!
//! A WAL of such a server lives for a few milliseconds, less than a poll interval: it is there at all because it is pinned
//! when it appears. How long that took is printed. Whether this machine can make so many files is not what is tested.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use harness::{
    command::{pitr, succeed, terminate, text, url, wait},
    scratch,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rocksdb::{DB, FlushOptions, IteratorMode, Options, WriteBatch};
use serde_json::Value;

const TIME: Duration = Duration::from_secs(8);

/// Beside the default one; each makes a table file at every flush.
const FAMILIES: [&str; 23] =
    ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t", "u", "v", "w"];

fn keys(db: &DB) -> Vec<usize> {
    let pairs = db.iterator(IteratorMode::Start).map(|pair| pair.unwrap());
    pairs.map(|(key, _)| String::from_utf8(key.to_vec()).unwrap().parse().unwrap()).collect()
}

#[test]
fn what_short_lived_logs_held_is_in_the_archive_or_behind_a_barrier() {
    let root = scratch::directory();
    let (dir, archive) = (root.path().join("db"), url(&root.path().join("archive")));
    let mut options = Options::default();
    options.create_if_missing(true);
    // Many small files, and never a pause because of their number.
    options.set_level_zero_file_num_compaction_trigger(50);
    options.set_level_zero_slowdown_writes_trigger(100_000);
    options.set_level_zero_stop_writes_trigger(100_000);
    options.set_max_manifest_file_size(64 << 10);
    // A log is laid out for a memtable: with a large one that takes longer than everything else.
    options.set_write_buffer_size(128 << 10);
    options.set_max_background_jobs(8);
    options.create_missing_column_families(true);
    let families = || ["default"].into_iter().chain(FAMILIES);
    let db = DB::open_cf(&options, &dir, families()).unwrap();
    db.put("000000", "value").unwrap();
    let mut archiver = pitr(["run", "--db", text(&dir), "--archive", &archive])
        .stdout(Stdio::null())
        .stderr(fs::File::create(root.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let log = || fs::read_to_string(root.path().join("log")).unwrap();
    let json = |args: &[&str]| -> Value {
        serde_json::from_slice(&succeed(pitr(args.iter().copied()).arg("--json")).stdout).unwrap()
    };
    let start = Instant::now();
    while !pitr(["plan", "--archive", &archive, "--to-latest"]).output().unwrap().status.success() {
        assert!(start.elapsed() < Duration::from_secs(60), "no base: {}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut flush = FlushOptions::default();
    flush.set_wait(true);
    let (start, mut written, mut flushes) = (Instant::now(), 1, 0);
    while start.elapsed() < TIME {
        for _ in 0..3 {
            let mut batch = WriteBatch::default();
            for family in families() {
                batch.put_cf(&db.cf_handle(family).unwrap(), format!("{written:06}"), "value");
            }
            db.write(batch).unwrap();
            written += 1;
        }
        let flushed: Vec<_> = families().map(|family| db.cf_handle(family).unwrap()).collect();
        db.flush_cfs_opt(&flushed.iter().collect::<Vec<_>>(), &flush).unwrap();
        flushes += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    succeed(&mut pitr(["flush", "--db", text(&dir)]));
    let status = json(&["status", "--db", text(&dir)]);
    let delay = &status["archiver"]["pin_delay"];
    // Each flush makes a log, and a table file for each column family.
    println!(
        "{:.0} new files a second, {written} records, {flushes} flushes; from a log's appearance to its pin, microseconds: \
         half {}, 99 % {}, 99.9 % {}, all {}",
        (2 + FAMILIES.len()) as f64 * f64::from(flushes) / seconds,
        delay["p50"],
        delay["p99"],
        delay["p999"],
        delay["max"]
    );
    assert!(delay["pinned"].as_u64().unwrap() > flushes as u64 / 10, "{delay}");
    terminate(&archiver);
    assert!(wait(&mut archiver).unwrap().success(), "{}", log());
    drop(db);
    let barriers = json(&["list", "barriers", "--archive", &archive])["barriers"].as_array().unwrap().len();
    let head = json(&["list", "timelines", "--archive", &archive])["timelines"][0]["head"].as_u64().unwrap();
    println!("{head} records archived, {barriers} barriers");
    assert!(barriers > 0 || head == written as u64, "{head} of {written} records, and no barrier");
    let mut random = StdRng::seed_from_u64(1);
    let mut exact = 0;
    for n in 0..8 {
        let record = if n == 0 { head - 1 } else { random.random_range(1..head) };
        let copy = root.path().join(format!("copy-{n}"));
        let target = record.to_string();
        let args = ["restore", "--archive", &archive, "--to-record", &target, "--into", text(&copy)];
        let output = pitr(args).output().unwrap();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(barriers > 0 && said.contains("[target."), "record {record}: {said}");
            continue;
        }
        let found = keys(&DB::open_cf(&options, &copy, families()).unwrap());
        assert!(found.iter().enumerate().all(|(index, key)| index == *key), "record {record}: a hole");
        // Without a barrier, records of the archive are the server's.
        assert!(barriers > 0 || found.len() as u64 == record + 1, "record {record}: {} keys", found.len());
        exact += 1;
        fs::remove_dir_all(&copy).unwrap();
    }
    assert!(exact > 0, "nothing could be restored");
}
