//! Drills of real archives by the real program: what passes, what fails and how that is told, and that nothing is left behind.

#![allow(clippy::unwrap_used, missing_docs)] // a test fails by panicking

#[path = "harness/mod.rs"]
mod harness;

use std::{
    cmp::Ordering,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use harness::{
    archive_driver::local,
    command::{self, finish, pitr, succeed, text, url},
    scratch,
};
use pitr_archive::{
    catalog::{
        archive::{Archive, PutDocument},
        schema::DrillDocument,
    },
    clock::SystemClock,
    ids::{BaseId, ContentHash, Nonce},
    random::OsRandom,
};
use pitr_archiver::retention::{Floor, Mode, Policy, Request, prune};
use rocksdb::{ColumnFamilyDescriptor, DB, Options, WriteOptions};
use serde_json::Value;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A database, its archive, and a directory for drills.
struct Site {
    root: tempfile::TempDir,
    db: DB,
    keyed: bool,
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options
}

impl Site {
    fn new() -> Self {
        Self::with(false, |_| {})
    }

    fn with(keyed: bool, adjust: impl Fn(&mut Options)) -> Self {
        let root = scratch::directory();
        fs::create_dir(root.path().join("scratch")).unwrap();
        fs::write(root.path().join("key"), KEY).unwrap();
        fs::set_permissions(root.path().join("key"), fs::Permissions::from_mode(0o600)).unwrap();
        let families = ["default", "accounts"].map(|name| {
            let mut options = options();
            adjust(&mut options);
            ColumnFamilyDescriptor::new(name, options)
        });
        let db = DB::open_cf_descriptors(&options(), root.path().join("db"), families).unwrap();
        Self { root, db, keyed }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// So many records, some of them in files; everything is archived.
    fn write(&self, from: u32, to: u32) {
        let accounts = self.db.cf_handle("accounts").unwrap();
        for n in from..to {
            self.db.put(format!("key {}", n % 97), format!("value {n}")).unwrap();
            self.db.put_cf(&accounts, format!("account {n}"), vec![7; 300]).unwrap();
            if n % 150 == 149 {
                self.db.flush().unwrap();
                self.db.flush_cf(&accounts).unwrap();
            }
        }
        let mut sync = WriteOptions::default();
        sync.set_sync(true);
        self.db.put_opt("last", to.to_string(), &sync).unwrap();
        succeed(&mut self.pitr("run", &["--once", "--db", text(&self.path("db"))]));
    }

    fn base(&self) {
        succeed(&mut self.pitr("base", &["--db", text(&self.path("db"))]));
    }

    fn pitr(&self, verb: &str, args: &[&str]) -> std::process::Command {
        let mut command = pitr([verb]);
        command.args(["--archive", &url(&self.path("archive"))]);
        if self.keyed {
            command.args(["--key-file", text(&self.path("key"))]);
        }
        command.args(args);
        command
    }

    /// A drill, and what it printed.
    fn drill(&self, args: &[&str]) -> (Output, Value) {
        let scratch = self.path("scratch");
        let all = [&["--json", "--scratch", text(&scratch)][..], args].concat();
        let output = finish(&mut self.pitr("drill", &all));
        let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output, report)
    }

    fn passes(&self, args: &[&str]) -> Value {
        let (output, report) = self.drill(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!((&report["verdict"], &report["failure"]), (&"passed".into(), &Value::Null), "{report}");
        assert_eq!(report["written"], true);
        self.nothing_is_left();
        report
    }

    fn fails(&self, args: &[&str], code: &str, exit: i32) -> Value {
        let (output, report) = self.drill(args);
        assert_eq!(output.status.code(), Some(exit), "{}", String::from_utf8_lossy(&output.stderr));
        let error: Value = serde_json::from_slice(last_line(&output.stderr)).unwrap();
        assert_eq!((&error["code"], &error["exit"]), (&code.into(), &exit.into()), "{error}");
        self.nothing_is_left();
        report
    }

    fn nothing_is_left(&self) {
        let left: Vec<_> = fs::read_dir(self.path("scratch")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    fn json(&self, verb: &str, args: &[&str]) -> Value {
        let output = succeed(&mut self.pitr(verb, &[&["--json"], args].concat()));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn drills(&self) -> Vec<Value> {
        self.json("list", &["drills"])["drills"].as_array().unwrap().clone()
    }

    /// A script that is run with the rest of the arguments.
    fn script(&self, body: &str) -> String {
        let path = self.path("check.sh");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        text(&path).to_owned()
    }

    async fn archive(&self) -> Archive {
        Archive::open(local(&self.path("archive")), None).await.unwrap()
    }
}

/// The log may come before the error.
fn last_line(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap()
}

fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < command::LIMIT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn drills_of_random_records_pass_are_listed_and_make_estimates_measured() {
    let site = Site::new();
    site.write(0, 400);
    site.base();
    site.write(400, 700);

    let plan = site.json("plan", &["--to-latest"]);
    assert_eq!(plan["estimate"]["basis"], "guess");
    assert!(plan["estimate"]["reason"].as_str().unwrap().contains("no drill has measured this store"), "{plan}");
    let head = plan["position"]["record"].as_u64().unwrap();

    let mut ids = Vec::new();
    for round in 0..5 {
        let report = site.passes(&[]);
        assert_eq!(report["target"]["chosen"], "random");
        let record = report["position"]["record"].as_u64().unwrap();
        assert!(record <= head, "{report}");
        let checked = &report["checked"];
        assert_eq!(checked["sequence"], report["position"]["sequence"]);
        assert_eq!(checked["structure"]["checksums"], true);
        let names: Vec<_> = checked["column_families"].as_array().unwrap().iter().map(|f| f["name"].clone()).collect();
        assert_eq!(names, ["accounts", "default"]);
        let parts = ["planning_seconds", "laying_down_seconds", "opening_seconds"];
        let sum: f64 = parts.iter().map(|part| report[part].as_f64().unwrap()).sum();
        assert!((sum - report["restore_seconds"].as_f64().unwrap()).abs() < 1e-5, "{report}");
        assert!(report["data_at_risk_seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(report["estimate_measured"], round > 0);
        ids.push(report["id"].clone());

        // The same record again holds the same, whatever the engine.
        let (record, timeline) = (record.to_string(), report["position"]["timeline"].to_string());
        let engine = ["native", "bulk"][round % 2];
        let again = site.passes(&["--to-record", &record, "--timeline", &timeline, "--engine", engine]);
        assert_eq!((&again["checked"]["same_as"], &again["target"]["chosen"]), (&report["id"], &"given".into()));
        assert_eq!(again["checked"]["column_families"], checked["column_families"]);
        ids.push(again["id"].clone());
    }

    let listed = site.drills();
    assert_eq!(listed.iter().map(|drill| drill["id"].clone()).collect::<Vec<_>>(), ids, "in order of time");
    let table = String::from_utf8(succeed(&mut site.pitr("list", &["drills"])).stdout).unwrap();
    assert!(table.lines().count() == 11 && table.contains("passed"), "{table}");
    let status = site.json("status", &[]);
    assert_eq!(status["archive"]["last_drill"]["id"], *ids.last().unwrap());
    let status = String::from_utf8(succeed(&mut site.pitr("status", &[])).stdout).unwrap();
    assert!(status.contains("last drill") && status.contains("passed, restored in"), "{status}");
    assert_eq!(site.json("verify", &[])["checked"]["drills"], ids.len());

    // By the newest that used the same engine, and said by restore, too.
    let plan = site.json("plan", &["--to-latest", "--engine", "native"]);
    assert_eq!((&plan["estimate"]["basis"], &plan["estimate"]["elsewhere"]), (&"measured".into(), &false.into()));
    assert!(plan["estimate"]["drills"].as_u64().unwrap() >= 3, "{plan}");
    let shown = String::from_utf8(succeed(&mut site.pitr("plan", &["--to-latest"])).stdout).unwrap();
    assert!(shown.contains("measured by the drill of 20"), "{shown}");
    let restored = site.path("restored");
    let restored = site.json("restore", &["--to-latest", "--into", text(&restored)]);
    assert_eq!(restored["estimate"]["basis"], "measured");
    let shown = String::from_utf8(succeed(&mut site.pitr("drill", &["--to-latest"])).stdout).unwrap();
    assert!(shown.contains("estimated ") && shown.contains(", took ") && shown.contains("--to-record"), "{shown}");
}

#[test]
fn a_target_that_cannot_be_reached_is_an_answer_and_no_failed_drill() {
    let site = Site::new();
    site.write(0, 20);
    let (output, report) = site.drill(&["--to-record", "100000"]);
    assert_eq!((output.status.code(), report), (Some(3), Value::Null));
    let (output, _) = site.drill(&["--to-tag", "no-such-tag"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(site.drills().is_empty());
    site.nothing_is_left();
    // That nothing at all can be restored is none: somebody must hear of it.
    fs::remove_dir_all(site.path("archive/bases")).unwrap();
    for wanted in [&["--to-latest"][..], &[]] {
        let report = site.fails(wanted, "target.before-start", 3);
        assert_eq!((&report["verdict"], &report["position"]), (&"failed".into(), &Value::Null));
    }
    assert_eq!(site.drills().len(), 2);
    let output = finish(&mut site.pitr("drill", &["--scratch", text(&site.path("nowhere"))]));
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_damaged_file_in_the_archive_fails_the_drill_and_the_archive_is_told() {
    let site = Site::new();
    site.write(0, 400);
    site.base();
    let files = fs::read_dir(site.path("archive/files")).unwrap().map(|entry| entry.unwrap().path());
    let sst = files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&sst).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&sst).unwrap();
    fs::write(&sst, bytes).unwrap();

    let report = site.fails(&["--to-latest"], "archive.object-damaged", 5);
    assert_eq!((&report["verdict"], &report["failure"]["code"]), (&"failed".into(), &"archive.object-damaged".into()));
    assert!(report["failure"]["text"].as_str().unwrap().contains("files/"), "{report}");
    assert!(report["planning_seconds"].is_f64() && report["restore_seconds"].is_null(), "{report}");
    let listed = site.drills();
    assert_eq!((listed.len(), &listed[0]["verdict"], &listed[0]["id"]), (1, &"failed".into(), &report["id"]));
    let status = String::from_utf8(succeed(&mut site.pitr("status", &[])).stdout).unwrap();
    assert!(status.contains("failed [archive.object-damaged]"), "{status}");
    // It measured nothing.
    assert_eq!(site.json("plan", &["--to-latest"])["estimate"]["basis"], "guess");
}

#[test]
fn the_operators_check_sees_the_database_and_has_the_last_word() {
    let site = Site::new();
    site.write(0, 50);
    let told = site.path("told");
    let script = site.script(&format!(
        "test -f \"$PITR_DRILL_DB/CURRENT\" || exit 9\n\
         echo \"$1 $2 $PITR_DRILL_RECORD $PITR_DRILL_SEQUENCE $PITR_DRILL_TIME\" > {}\ntouch \"$PITR_DRILL_DB/mine\"",
        text(&told)
    ));
    let report = site.passes(&["--to-latest", "--check", &script, "--quick", "x"]);
    assert_eq!(report["checked"]["command"], "check.sh");
    assert!(report["command_seconds"].as_f64().unwrap() > 0.0);
    let told = fs::read_to_string(&told).unwrap();
    let words: Vec<_> = told.split_whitespace().collect();
    let position = &report["position"];
    assert_eq!(words[..4], ["--quick", "x", &position["record"].to_string(), &position["sequence"].to_string()]);
    assert!(words[4].ends_with('Z'), "{told}");

    let script = site.script("exit 3");
    let report = site.fails(&["--to-latest", "--check", &script], "drill.check-failed", 1);
    assert_eq!(report["failure"]["code"], "drill.check-failed");
    assert!(report["checked"]["sequence"].is_u64(), "our own checks were good: {report}");
    let script = site.script("sleep 1000 & sleep 1000");
    site.fails(&["--to-latest", "--check-timeout", "100ms", "--check", &script], "drill.check-failed", 1);

    // What is kept is a database that opens.
    let (output, report) = site.drill(&["--to-latest", "--keep"]);
    assert!(output.status.success());
    let kept = Path::new(report["kept"].as_str().unwrap()).to_owned();
    let families = ["default", "accounts"].map(|name| ColumnFamilyDescriptor::new(name, options()));
    let copy = DB::open_cf_descriptors(&options(), &kept, families).unwrap();
    assert_eq!(copy.latest_sequence_number(), site.db.latest_sequence_number());
    assert_eq!(copy.get("last").unwrap().unwrap(), b"50");
    drop(copy);
    fs::remove_dir_all(kept.parent().unwrap()).unwrap();
    site.passes(&["--to-latest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_holds_something_else_than_in_an_earlier_drill_fails() {
    let site = Site::new();
    site.write(0, 20);
    site.write(20, 50);
    let first = site.passes(&["--to-record", "60"]);
    let archive = site.archive().await;
    let id: BaseId = first["id"].as_str().unwrap().parse().unwrap();
    let good = archive.get_drill(&id).await.unwrap().unwrap();
    // A report that somebody wrote after it, of the same position.
    let mut other = good.clone();
    other.id = BaseId::new(good.created.to_datetime() + chrono::TimeDelta::seconds(1), 0);
    other.nonce = Nonce([9; 16]);
    other.checked.column_families[0].hash = ContentHash([1; 32]);
    write(&archive, &other).await;
    let report = site.fails(&["--to-record", "60"], "drill.failed", 1);
    let text = report["failure"]["text"].as_str().unwrap();
    assert!(text.contains("accounts") && text.contains(&other.id.to_string()), "{text}");
    // Another position has nothing to do with it.
    assert_eq!(site.passes(&["--to-record", "61"])["checked"]["same_as"], Value::Null);
}

async fn write(archive: &Archive, report: &DrillDocument) {
    let claim = archive.newest_claim().await.unwrap().unwrap();
    let put = archive.put_drill(report, &claim, &OsRandom).await.unwrap();
    assert!(matches!(put, PutDocument::Created { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_reports_are_pruned_and_the_newest_hundred_stay() {
    let site = Site::new();
    site.write(0, 20);
    let first = site.passes(&["--to-latest"]);
    let archive = site.archive().await;
    let id: BaseId = first["id"].as_str().unwrap().parse().unwrap();
    let good = archive.get_drill(&id).await.unwrap().unwrap();
    for n in 0..103u32 {
        let old = good.created.to_datetime() - chrono::TimeDelta::days(400 + i64::from(n));
        let report = DrillDocument { id: BaseId::new(old, n), nonce: Nonce([7; 16]), ..good.clone() };
        write(&archive, &report).await;
    }
    let request = Request { policy: Policy::default(), floor: Floor::Respected, mode: Mode::Act };
    let dry = Request { mode: Mode::DryRun, ..request };
    let foretold = prune(&archive, &dry, &SystemClock, &OsRandom).await.unwrap();
    assert_eq!((foretold.deleted.drills.objects, archive.list_drills().await.unwrap().len()), (4, 104));
    let pruned = prune(&archive, &request, &SystemClock, &OsRandom).await.unwrap();
    assert_eq!((pruned.deleted.drills.objects, pruned.condemned.total().objects), (4, 0));
    let left = archive.list_drills().await.unwrap();
    assert_eq!((left.len(), left.last()), (100, Some(&id)));
    assert_eq!(site.drills().len(), 100);
    let again = prune(&archive, &request, &SystemClock, &OsRandom).await.unwrap();
    assert_eq!(again.deleted.drills.objects, 0);
}

#[test]
fn what_this_library_cannot_open_is_checked_by_its_structure_and_no_more_is_claimed() {
    let backwards = |a: &[u8], b: &[u8]| -> Ordering { b.cmp(a) };
    let site = Site::with(false, |options| {
        options.set_comparator("test.Backwards", Box::new(backwards));
    });
    site.write(0, 200);
    site.base();
    let (output, report) = site.drill(&["--to-latest"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(report["verdict"], "structure-only");
    let checked = &report["checked"];
    assert!(checked["unopened"][0].as_str().unwrap().contains("test.Backwards"), "{report}");
    assert_eq!((&checked["column_families"], &checked["sequence"]), (&Value::Array(Vec::new()), &Value::Null));
    assert_eq!(checked["structure"]["checksums"], false);
    assert!(checked["structure"]["files"].as_u64().unwrap() > 0 && report["opening_seconds"].is_null(), "{report}");
    site.nothing_is_left();
    let plan = site.json("plan", &["--to-latest"]);
    assert_eq!(plan["estimate"]["basis"], "guess", "how long it takes to open is not known: {plan}");
}

#[test]
fn a_drill_of_an_encrypted_archive_tells_nobody_what_is_in_it() {
    let site = Site::with(true, |_| {});
    site.write(0, 50);
    let first = site.passes(&["--to-latest"]);
    assert_eq!(site.passes(&["--to-latest"])["checked"]["same_as"], first["id"]);
    for entry in fs::read_dir(site.path("archive/drills")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"accounts" || window == b"position"));
    }
}

#[test]
fn an_interrupted_drill_leaves_nothing_and_a_killed_one_is_cleaned_up_by_the_next() {
    let site = Site::new();
    site.write(0, 50);
    let began = site.path("began");
    let script = site.script(&format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 1000", text(&began)));
    let start = || {
        let scratch = site.path("scratch");
        let args = ["--to-latest", "--scratch", text(&scratch), "--check", &script];
        let child = site.pitr("drill", &args).stderr(std::process::Stdio::null()).spawn().unwrap();
        let id = until("the check to begin", || fs::read_to_string(&began).ok());
        fs::remove_file(&began).unwrap();
        assert_eq!(fs::read_dir(site.path("scratch")).unwrap().count(), 1);
        (child, id.trim().parse::<i32>().unwrap())
    };
    let ended = |id: i32| {
        until("the check to end", || {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
    };
    let (mut child, check) = start();
    command::signal(&child, rustix::process::Signal::INT);
    assert_eq!(command::wait(&mut child).unwrap().code(), Some(130));
    site.nothing_is_left();
    ended(check);
    assert!(site.drills().is_empty(), "nothing was found out");

    let (mut child, check) = start();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read_dir(site.path("scratch")).unwrap().count(), 1);
    // Nobody could end it with its drill.
    let group = rustix::process::Pid::from_raw(check).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    site.passes(&["--to-latest"]);
}
