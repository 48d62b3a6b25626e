//! Histories that fork: every branch stays whole, each is restored exactly, and what is no fork opens no timeline.
//!
//! The databases are real. A power loss is what is left of it on disk: a log that ends earlier than what had been read.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;
#[path = "forks/picture.rs"]
mod picture;
#[path = "forks/put_back.rs"]
mod put_back;
#[path = "forks/site.rs"]
mod site;

use std::{fs, process::Command};

use harness::command::{succeed, text};
use pitr_archive::{
    ids::{ColumnFamilyId, SequenceNumber},
    rocks::write_batch::{Op, WriteBatchBuilder},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rocksdb::{DB, WriteBatch};
use serde_json::Value;
use site::{Site, content, cut, keys, newest_wal, open, write};

#[test]
fn a_power_loss_that_took_back_records_opens_a_timeline_at_the_last_record_that_is_left() {
    // Each record has 7 + 12 + 1 + 1 + 5 + 1 + 5 bytes.
    const RECORD: u64 = 32;
    for (archived_in, left, torn) in [(1, 30, 0), (4, 10, 7), (4, 11, 31), (4, 0, 3), (3, 20, 0)] {
        let site = Site::new();
        let db = open(&site.db());
        let mut first = Vec::new();
        for part in 0..archived_in {
            first.extend(write(&db, 'a', part * 40 / archived_in..(part + 1) * 40 / archived_in));
            site.catch_up();
        }
        succeed(&mut site.command(&[
            "tag",
            "create",
            "dead",
            "--db",
            text(&site.db()),
            "--state",
            text(&site.path("state")),
        ]));
        drop(db);
        let wal = newest_wal(&site.db());
        assert_eq!(fs::metadata(&wal).unwrap().len(), 40 * RECORD);
        cut(&wal, left as u64 * RECORD + torn);
        let db = open(&site.db());
        let second = write(&db, 'b', left..left + 25);
        site.catch_up();
        assert_eq!(site.timelines(), [(1, None), (2, Some((1, left as u64)))], "{left} left, {torn} bytes torn");
        let merged: Vec<_> = first[..left].iter().chain(&second).cloned().collect();
        assert_eq!(site.restore(&["--to-latest"]), merged);
        assert_eq!(site.restore(&["--to-latest", "--timeline", "1"]), first);
        assert_eq!(site.restore(&["--to-tag", "dead"]), first, "a tag means its own branch");
        // The first base has its floor behind what the first catch-up archived.
        for record in [40 / archived_in - 1, 33, 39].into_iter().filter(|record| *record >= 40 / archived_in - 1) {
            let target = record.to_string();
            let restored = site.restore(&["--to-record", &target, "--timeline", "1"]);
            assert_eq!(restored, first[..=record.min(39)], "record {record} of the dead branch");
        }
        drop(db);
        site.verify();
    }
}

#[test]
fn a_middle_of_the_log_that_went_bad_forks_at_the_record_before_it() {
    let site = Site::new();
    let db = open(&site.db());
    let first = write(&db, 'a', 0..50);
    site.catch_up();
    drop(db);
    let wal = newest_wal(&site.db());
    let mut bytes = fs::read(&wal).unwrap();
    bytes[20 * 32 + 30] ^= 1;
    fs::write(&wal, bytes).unwrap();
    // By default RocksDB recovers up to the first damage and goes on from there.
    let db = open(&site.db());
    assert_eq!(keys(&db).len(), 20);
    let second = write(&db, 'b', 20..30);
    site.catch_up();
    assert_eq!(site.timelines(), [(1, None), (2, Some((1, 20)))]);
    assert_eq!(site.restore(&["--to-latest"]), [&first[..20], &second].concat());
    assert_eq!(site.restore(&["--to-latest", "--timeline", "1"]), first);
}

#[test]
fn a_restored_database_that_goes_on_is_a_branch_and_the_original_goes_on_where_it_was() {
    let site = Site::new();
    let db = open(&site.db());
    let mut first = write(&db, 'a', 0..20);
    site.catch_up();
    first.extend(write(&db, 'a', 20..60));
    site.catch_up();
    drop(db);
    site.restore_into_place(&["--to-record", "39"], "original");
    let db = open(&site.db());
    let mut second = write(&db, 'b', 40..50);
    // The base that it needs to be restored on its own.
    site.catch_up();
    second.extend(write(&db, 'b', 50..70));
    site.catch_up();
    drop(db);
    assert_eq!(site.timelines(), [(1, None), (2, Some((1, 40)))]);
    assert_eq!(site.restore(&["--to-latest"]), [&first[..40], &second].concat());
    // A branch of the branch.
    let record = (site.head(2) - 11).to_string();
    site.restore_into_place(&["--to-record", &record], "second");
    let db = open(&site.db());
    let third = write(&db, 'c', 60..65);
    site.catch_up();
    drop(db);
    let fork = site.head(2) - 10;
    assert_eq!(site.timelines(), [(1, None), (2, Some((1, 40))), (3, Some((2, fork)))]);
    assert_eq!(site.restore(&["--to-latest"]), [&first[..40], &second[..20], &third].concat());
    assert_eq!(site.restore(&["--to-latest", "--timeline", "2"]), [&first[..40], &second].concat());
    // Below the fork a child's targets are its parent's.
    for record in [25, 39] {
        let of_child = site.restore(&["--to-record", &record.to_string(), "--timeline", "3"]);
        assert_eq!(of_child, first[..=record]);
    }
    // The original comes back.
    site.swap(&site.path("original"), "third");
    site.catch_up();
    let db = open(&site.db());
    first.extend(write(&db, 'a', 60..75));
    site.catch_up();
    drop(db);
    assert_eq!(site.timelines().len(), 3, "it has its timeline");
    assert_eq!(site.restore(&["--to-latest"]), first, "and was written last");
    assert_eq!(site.restore(&["--to-latest", "--timeline", "3"]).len(), 65);
    assert_eq!(site.barriers(), [""; 0], "nothing is missing anywhere");
    let tree = String::from_utf8(succeed(&mut site.command(&["list", "timelines"])).stdout).unwrap();
    assert!(tree.contains("1 *") && tree.contains("└─ 2") && tree.contains("   └─ 3"), "{tree}");
    site.verify();
}

#[test]
fn another_database_in_the_directory_has_a_timeline_of_its_own() {
    let site = Site::new();
    let db = open(&site.db());
    let first = write(&db, 'a', 0..30);
    site.catch_up();
    drop(db);
    let other = open(&site.path("other"));
    drop(other);
    site.swap(&site.path("other"), "first");
    let db = open(&site.db());
    let second = write(&db, 'b', 0..10);
    site.catch_up();
    drop(db);
    assert_eq!(site.timelines(), [(1, None), (2, None)]);
    assert_eq!(site.restore(&["--to-latest"]), second);
    assert_eq!(site.restore(&["--to-latest", "--timeline", "1"]), first);
    site.swap(&site.path("first"), "second");
    site.catch_up();
    assert_eq!(site.timelines().len(), 2);
    assert_eq!(site.restore(&["--to-latest"]), first);
    site.verify();
}

#[test]
fn a_database_that_moved_goes_on_where_it_was() {
    let site = Site::new();
    let db = open(&site.db());
    let mut written = write(&db, 'a', 0..30);
    site.catch_up();
    drop(db);
    fs::rename(site.db(), site.path("elsewhere")).unwrap();
    assert!(
        Command::new("cp").args(["-a", text(&site.path("elsewhere")), text(&site.db())]).status().unwrap().success()
    );
    fs::remove_dir_all(site.path("elsewhere")).unwrap();
    succeed(&mut site.catch_up_as("another-state", None));
    let db = open(&site.db());
    written.extend(write(&db, 'a', 30..40));
    succeed(&mut site.catch_up_as("another-state", None));
    assert_eq!(site.timelines(), [(1, None)]);
    assert_eq!(site.barriers(), [""; 0]);
    assert_eq!(site.restore(&["--to-latest"]), written);
}

#[test]
fn numbers_that_a_clean_reopen_gives_out_again_are_no_fork() {
    let site = Site::new();
    let db = open(&site.db());
    db.put("a", "1").unwrap();
    db.put("b", "2").unwrap();
    // The C interface has no way to it: the batch is made as RocksDB makes it.
    let mut batch = WriteBatchBuilder::new(SequenceNumber::new(0));
    batch.push(&Op::SingleDelete { cf: ColumnFamilyId::new(0), key: b"b" });
    db.write(WriteBatch::from_data(&batch.finish())).unwrap();
    site.catch_up();
    db.flush().unwrap();
    drop(db);
    let db = open(&site.db());
    assert_eq!(db.latest_sequence_number(), 1, "RocksDB goes on from the highest number that is left");
    db.put("c", "3").unwrap();
    site.catch_up();
    assert_eq!(site.timelines(), [(1, None)]);
    assert_eq!(site.restore(&["--to-latest"]), ["a", "c"]);
}

#[test]
fn a_directory_put_back_from_a_copy_forks_where_the_copy_was_made() {
    for (reopened, flushed) in [(false, false), (true, false), (false, true), (true, true)] {
        let site = Site::new();
        let db = open(&site.db());
        let mut first = write(&db, 'a', 0..30);
        site.catch_up();
        drop(db);
        assert!(
            Command::new("cp").args(["-a", text(&site.db()), text(&site.path("backup"))]).status().unwrap().success()
        );
        let db = open(&site.db());
        first.extend(write(&db, 'a', 30..60));
        if flushed {
            site.catch_up();
            db.flush().unwrap();
            first.extend(write(&db, 'a', 60..61));
        }
        site.catch_up();
        drop(db);
        site.swap(&site.path("backup"), "later");
        if reopened {
            drop(open(&site.db()));
        }
        let db = open(&site.db());
        let second = write(&db, 'b', 30..40);
        site.catch_up();
        drop(db);
        let case = format!("reopened {reopened}, flushed {flushed}: {:?} {:?}", site.timelines(), site.barriers());
        assert_eq!(site.restore(&["--to-latest"]), [&first[..30], &second].concat(), "{case}");
        let archived = first.len() - 1;
        let dead = site.restore(&["--to-record", &archived.to_string(), "--timeline", "1"]);
        assert_eq!(dead, first, "{case}");
        site.verify();
        let timelines = site.timelines();
        assert!(timelines.len() == 2 || !site.barriers().is_empty(), "a fork, or a gap that is named: {case}");
        if let Some((_, Some((_, fork)))) = timelines.get(1) {
            assert_eq!(*fork, 30, "{case}");
        }
    }
}

#[test]
fn a_crash_while_a_timeline_is_opened_leaves_one_timeline() {
    for crash in ["timeline-before-put", "timeline-after-put", "before-put", "after-put"] {
        let site = Site::new();
        let db = open(&site.db());
        let first = write(&db, 'a', 0..40);
        site.catch_up();
        drop(db);
        cut(&newest_wal(&site.db()), 32 * 15);
        let db = open(&site.db());
        let second = write(&db, 'b', 15..20);
        let crashed = site.catch_up_as("state", Some(crash)).output().unwrap();
        assert!(!crashed.status.success(), "{crash} is not reached");
        site.catch_up();
        assert_eq!(site.timelines(), [(1, None), (2, Some((1, 15)))], "{crash}");
        assert_eq!(site.restore(&["--to-latest"]), [&first[..15], &second].concat(), "{crash}");
        site.verify();
    }
}

#[test]
fn an_archiver_that_runs_goes_over_to_the_database_that_was_put_in_its_place() {
    let site = Site::new();
    let db = open(&site.db());
    let mut first = write(&db, 'a', 0..10);
    site.catch_up();
    first.extend(write(&db, 'a', 10..30));
    site.catch_up();
    let archiver = site.start(&site.db());
    drop(db);
    site.restore_into_place(&["--to-record", "19"], "original");
    archiver.until("the second timeline", || site.timelines().len() == 2);
    let db = open(&site.db());
    let second = write(&db, 'b', 20..25);
    archiver.until_archived(2, 25);
    archiver.stop();
    assert_eq!(site.timelines(), [(1, None), (2, Some((1, 20)))]);
    assert_eq!(site.restore(&["--to-latest"]), [&first[..20], &second].concat());
    assert_eq!(site.restore(&["--to-latest", "--timeline", "1"]), first);
    site.verify();
}

/// One archive has one archiver, also where the second would archive a copy. Where it was told to, what the first one wrote after
/// that is not what is newest by name, and the plan says so.
#[test]
fn a_copy_is_not_archived_beside_the_database_and_where_it_took_over_a_plan_tells_of_the_longer_history() {
    let site = Site::new();
    let db = open(&site.db());
    write(&db, 'a', 0..10);
    site.catch_up();
    let archiver = site.start(&site.db());
    write(&db, 'a', 10..12);
    archiver.until_archived(1, 12);
    let copy = site.path("beside");
    succeed(&mut site.command(&["restore", "--to-latest", "--into", text(&copy)]));
    let args = ["run", "--once", "--db", text(&copy), "--state", text(&site.path("beside-state"))].map(str::to_owned);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    assert_eq!(site.command(&args).output().unwrap().status.code(), Some(6));
    assert_eq!(site.timelines().len(), 1);
    succeed(site.command(&args).arg("--take-over"));
    write(&db, 'a', 12..15);
    archiver.until_archived(1, 15);
    let told = |plan: &serde_json::Value| {
        let notes = plan["notes"].as_array().unwrap().iter();
        notes.filter(|note| note["kind"] == "other-timeline").map(|note| note["text"].to_string()).collect::<String>()
    };
    let newest = site.json(&["plan", "--to-latest"]);
    assert_eq!((&newest["position"]["timeline"], &newest["position"]["sequence"]), (&2.into(), &12.into()));
    assert!(told(&newest).contains("--timeline 1 restores it"), "{newest}");
    let asked = site.json(&["plan", "--to-latest", "--timeline", "1"]);
    assert_eq!((&asked["position"]["sequence"], told(&asked)), (&15.into(), String::new()));
}

/// A write: the key that no other has, and the write before it in the history it belongs to.
struct Node {
    key: String,
    before: Option<usize>,
}

/// Histories as a tree of writes.
#[derive(Default)]
struct Forest(Vec<Node>);

impl Forest {
    fn grow(&mut self, before: Option<usize>) -> usize {
        self.0.push(Node { key: format!("{:05}", self.0.len()), before });
        self.0.len() - 1
    }

    /// What a database holds whose last write is `node`.
    fn content(&self, node: Option<usize>) -> Vec<(String, String)> {
        let mut content = Vec::new();
        let mut at = node;
        while let Some(index) = at {
            content.push((self.0[index].key.clone(), "value".to_owned()));
            at = self.0[index].before;
        }
        content.extend(node.map(|last| ("last".to_owned(), self.0[last].key.clone())));
        content.sort();
        content
    }
}

fn last(db: &DB) -> Option<usize> {
    db.get("last").unwrap().map(|key| String::from_utf8(key).unwrap().parse().unwrap())
}

/// A random history: writes, flushes, reopens, power losses, restores that go on, directories that are put back.
fn random_forest(seed: u64) -> Counts {
    let mut random = StdRng::seed_from_u64(seed);
    let site = Site::new();
    let mut forest = Forest::default();
    let mut db = Some(open(&site.db()));
    let mut at: Option<usize> = None;
    let mut aside = Vec::new();
    let mut counts = Counts::default();
    for step in 0..24 {
        let kind = if step < 2 { step } else { random.random_range(0..14) };
        match kind {
            0 | 2..=4 => {
                let db = db.as_ref().unwrap();
                for _ in 0..random.random_range(1..12) {
                    let node = forest.grow(at);
                    let mut batch = WriteBatch::default();
                    batch.put(&forest.0[node].key, "value");
                    batch.put("last", &forest.0[node].key);
                    db.write(batch).unwrap();
                    at = Some(node);
                }
            }
            1 | 5..=7 => site.catch_up(),
            8 => db.as_ref().unwrap().flush().unwrap(),
            9 => {
                drop(db.take());
                db = Some(open(&site.db()));
            }
            10 => {
                drop(db.take());
                let wal = newest_wal(&site.db());
                let length = fs::metadata(&wal).unwrap().len();
                cut(&wal, random.random_range(0..=length));
                let opened = open(&site.db());
                at = last(&opened);
                assert_eq!(content(&opened), forest.content(at), "RocksDB recovers a prefix");
                db = Some(opened);
                counts.losses += 1;
            }
            11 => {
                // A restore to anywhere, which goes on in the database's place.
                let timelines = site.timelines();
                let (timeline, _) = timelines[random.random_range(0..timelines.len())];
                let head = site.head(timeline);
                let record = random.random_range(0..head.max(1)).to_string();
                let (copy, timeline) = (site.path(&format!("copy-{step}")), timeline.to_string());
                let args = ["restore", "--timeline", &timeline, "--to-record", &record, "--into", text(&copy)];
                if site.command(&args).output().unwrap().status.success() {
                    drop(db.take());
                    let keep = format!("aside-{step}");
                    site.swap(&copy, &keep);
                    aside.push((keep, at));
                    let opened = open(&site.db());
                    at = last(&opened);
                    assert_eq!(content(&opened), forest.content(at), "record {record} of timeline {timeline}");
                    db = Some(opened);
                    counts.restores += 1;
                }
            }
            12 => {
                drop(db.take());
                let keep = format!("backup-{step}");
                let from_to = [text(&site.db()).to_owned(), text(&site.path(&keep)).to_owned()];
                assert!(Command::new("cp").arg("-a").args(from_to).status().unwrap().success());
                aside.push((keep, at));
                db = Some(open(&site.db()));
            }
            _ if !aside.is_empty() => {
                drop(db.take());
                let (back, was) = aside.swap_remove(random.random_range(0..aside.len()));
                let keep = format!("swapped-{step}");
                site.swap(&site.path(&back), &keep);
                aside.push((keep, at));
                at = was;
                db = Some(open(&site.db()));
                counts.swaps += 1;
            }
            _ => {}
        }
    }
    site.catch_up();
    drop(db.take());
    site.verify();
    assert_eq!(site.restore_all(&["--to-latest"]), forest.content(at), "the end");
    let timelines = site.timelines();
    counts.timelines += timelines.len();
    for (timeline, parent) in timelines {
        let number = timeline.to_string();
        let log = succeed(site.command(&["log", "--timeline", &number]).arg("--json"));
        let mut records: Vec<(u64, usize)> = Vec::new();
        for line in String::from_utf8(log.stdout).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if let (Some(record), Some(node)) =
                (line["record"].as_u64(), line["key"].as_str().and_then(|k| k.parse().ok()))
            {
                records.push((record, node));
            }
        }
        // A parent is named only where its history is the child's up to there.
        if let Some((parent, fork)) = parent.filter(|(_, fork)| *fork > 0) {
            let of_parent = succeed(site.command(&["log", "--timeline", &parent.to_string()]).arg("--json"));
            let shared = |text: &[u8]| {
                let text = String::from_utf8(text.to_vec()).unwrap();
                let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
                lines
                    .iter()
                    .rfind(|l| l["record"].as_u64() < Some(fork))
                    .and_then(|l| l["value"].as_str().map(str::to_owned))
            };
            let of_child = succeed(site.command(&["log", "--timeline", &number]).arg("--json"));
            assert_eq!(shared(&of_parent.stdout), shared(&of_child.stdout), "below the fork of timeline {number}");
            counts.forks += 1;
        }
        for _ in 0..4.min(records.len()) {
            let (record, node) = records[random.random_range(0..records.len())];
            let copy = site.path("copy");
            let _ = fs::remove_dir_all(&copy);
            let target = record.to_string();
            let args = ["restore", "--timeline", &number, "--to-record", &target, "--into", text(&copy)];
            let output = site.command(&args).output().unwrap();
            if output.status.success() {
                assert_eq!(content(&open(&copy)), forest.content(Some(node)), "record {record} of timeline {number}");
                counts.exact += 1;
            } else {
                let text = String::from_utf8(output.stderr).unwrap();
                assert!(text.contains("[target."), "record {record} of timeline {number}: {text}");
                counts.refused += 1;
            }
        }
    }
    counts
}

/// What random histories met.
#[derive(Debug, Default)]
struct Counts {
    timelines: usize,
    forks: usize,
    losses: usize,
    restores: usize,
    swaps: usize,
    exact: usize,
    refused: usize,
}

/// `PITR_SEED=N` replays one; `PITR_FIRST` and `PITR_PROGRAMS` choose others.
#[test]
fn random_histories_are_restored_exactly_on_every_branch() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("PITR_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("PITR_FIRST").unwrap_or(0);
            first..first + number("PITR_PROGRAMS").unwrap_or(24)
        }
    };
    let whole = seeds.end - seeds.start >= 24;
    let mut total = Counts::default();
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| random_forest(seed));
        let counts = outcome.unwrap_or_else(|_| panic!("seed {seed}: PITR_SEED={seed} replays it"));
        total.timelines += counts.timelines;
        total.forks += counts.forks;
        total.losses += counts.losses;
        total.restores += counts.restores;
        total.swaps += counts.swaps;
        total.exact += counts.exact;
        total.refused += counts.refused;
    }
    eprintln!("{total:?}");
    let Counts { timelines, forks, losses, restores, swaps, exact, refused: _ } = total;
    let met = [timelines, forks, losses, restores, swaps, exact];
    assert!(!whole || met.iter().all(|count| *count > 0), "a kind of history never occurred: {total:?}");
}
