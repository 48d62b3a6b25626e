//! Databases of unusual shape: several file systems, hundreds of column families, a MANIFEST that is used again.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{
    command::{pitr, succeed, text, url},
    scratch,
};
use librocksdb_sys as ffi;
use pitr_archive::{
    ids::{ColumnFamilyId, SequenceNumber},
    rocks::write_batch::{Op, WriteBatchBuilder},
};
use rocksdb::{AsRawPtr, DB, DBPath, IteratorMode, Options, WriteBatch};
use serde_json::Value;

struct Site {
    root: tempfile::TempDir,
    more: Vec<String>,
}

impl Site {
    fn new(more: &[&str]) -> Self {
        Self { root: scratch::directory(), more: more.iter().map(|&arg| arg.to_owned()).collect() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = pitr(args.iter().copied());
        command.args(["--archive", &url(&self.path("archive"))]);
        command
    }

    fn catch_up(&self) {
        let (db, state) = (self.path("db"), self.path("state"));
        let args = ["run", "--once", "--db", text(&db), "--state", text(&state)];
        succeed(self.command(&args).args(&self.more));
    }

    fn list(&self, what: &str) -> Vec<Value> {
        let output = succeed(self.command(&["list", what]).arg("--json"));
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
        listed[what].as_array().unwrap().clone()
    }

    fn restore(&self, into: &str, target: &[&str]) -> PathBuf {
        let into = self.path(into);
        succeed(self.command(&["restore", "--into", text(&into)]).args(target));
        into
    }
}

fn pairs(db: &DB, family: &str) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    // A database that was opened without naming families has no handle for the one that every database has.
    let all = match db.cf_handle(family) {
        Some(handle) => db.iterator_cf(&handle, IteratorMode::Start),
        None => db.iterator(IteratorMode::Start),
    };
    all.map(|pair| pair.unwrap()).map(|(key, value)| (text(&key), text(&value))).collect()
}

fn device(path: &Path) -> u64 {
    fs::metadata(path).unwrap().dev()
}

#[test]
fn logs_and_data_on_other_file_systems_are_archived_and_restored() {
    let elsewhere = tempfile::Builder::new().prefix("pitr-test-").tempdir_in("/var/tmp").unwrap();
    let (wals, data) = (elsewhere.path().join("wals"), elsewhere.path().join("data"));
    fs::create_dir_all(&wals).unwrap();
    fs::create_dir_all(&data).unwrap();
    let site = Site::new(&["--db-path", text(&data)]);
    if device(site.root.path()) == device(elsewhere.path()) {
        eprintln!("SKIPPED: {} and /var/tmp are one file system", site.root.path().display());
        return;
    }
    let open = |dir: &Path, wals: &Path, data: &Path| {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_wal_dir(wals);
        options.set_db_paths(&[DBPath::new(data, 1 << 40).unwrap()]);
        DB::open(&options, dir).unwrap()
    };
    let db = open(&site.path("db"), &wals, &data);
    for n in 0..60 {
        db.put(format!("{n:02}"), "value").unwrap();
        match n {
            // What a flush deletes is held by our links, on the file system of the logs.
            15 | 40 => {
                site.catch_up();
                db.flush().unwrap();
            }
            20 | 59 => site.catch_up(),
            _ => {}
        }
    }
    let pins = elsewhere.path().join("wals.pitr");
    assert!(pins.is_dir(), "beside the directory of the logs");
    assert_eq!(site.list("barriers").len(), 0);
    let (new_wals, new_data) = (site.path("new-wals"), site.path("new-data"));
    let wals_to = format!("{}={}", text(&wals), text(&new_wals));
    let data_to = format!("{}={}", text(&data), text(&new_data));
    let copy = site.restore("copy", &["--to-record", "50", "--map-path", &wals_to, "--map-path", &data_to]);
    let copy = open(&copy, &new_wals, &new_data);
    assert_eq!(pairs(&copy, "default").len(), 51);
    fs::write(site.path("db").join("server.json"), "{}").unwrap();
    let check = pitr(["check", "--db", text(&site.path("db")), "--db-path", text(&data)]).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success(), "{said}{}", String::from_utf8_lossy(&check.stderr));
    assert!(said.contains("held open while a base is uploaded") && said.contains("wals.pitr"), "{said}");
    assert!(said.contains("--include server.json"), "what a restore would lack: {said}");
}

/// Column families that come and go and come again under their names, hundreds of them, over several MANIFESTs.
#[test]
fn hundreds_of_column_families_are_there_exactly_from_their_first_record_to_their_last() {
    const FAMILIES: usize = 300;
    let site = Site::new(&[]);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_max_manifest_file_size(16 << 10);
    let db = DB::open(&options, site.path("db")).unwrap();
    db.put("first", "1").unwrap();
    site.catch_up();
    // After each record: what every family that lives holds.
    let mut after: Vec<BTreeMap<String, String>> = vec![BTreeMap::new()];
    let mut now: BTreeMap<String, String> = BTreeMap::new();
    for n in 0..FAMILIES + 200 {
        let name = format!("family{:03}", n % FAMILIES);
        if n % 5 == 4 {
            let (gone, _) = now.pop_first().unwrap();
            db.drop_cf(&gone).unwrap();
        }
        if !now.contains_key(&name) {
            db.create_cf(&name, &Options::default()).unwrap();
        }
        db.put_cf(&db.cf_handle(&name).unwrap(), "key", n.to_string()).unwrap();
        now.insert(name, n.to_string());
        after.push(now.clone());
        if n % 20 == 19 {
            site.catch_up();
        }
    }
    drop(db);
    let (mut restored, mut inside) = (0, 0);
    for record in [20, 60, 140, 199, 200, 333, 421, after.len() - 1] {
        let into = site.path(&format!("copy-{record}"));
        let target = record.to_string();
        let output = site.command(&["restore", "--to-record", &target, "--into", text(&into)]).output().unwrap();
        if !output.status.success() {
            // Many came and went between two looks: such a target lies inside an interval.
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("target.inside-event"), "record {record}: {said}");
            inside += 1;
            continue;
        }
        let names = DB::list_cf(&Options::default(), &into).unwrap();
        let copy = DB::open_cf(&Options::default(), &into, &names).unwrap();
        let of = |name: &String| Some((name.clone(), pairs(&copy, name).pop()?.1));
        let found: BTreeMap<_, _> = names.iter().filter(|name| *name != "default").filter_map(of).collect();
        assert_eq!(found, after[record], "after record {record}");
        restored += 1;
    }
    assert!(restored >= 4, "{restored} restored, {inside} inside an interval");
}

/// RocksDB's write and its recovery disagree about a range deletion whose ends are the same: the write takes a number.
#[test]
fn behind_a_range_deletion_of_nothing_a_restore_is_refused_and_behind_the_next_record_exact() {
    let site = Site::new(&[]);
    let db = DB::open_default(site.path("db")).unwrap();
    db.put("first", "1").unwrap();
    site.catch_up();
    let mut batch = WriteBatchBuilder::new(SequenceNumber::new(0));
    batch.push(&Op::DeleteRange { cf: ColumnFamilyId::new(0), begin: b"k", end: b"k" });
    db.write(WriteBatch::from_data(&batch.finish())).unwrap();
    db.put("last", "1").unwrap();
    let sequence = db.latest_sequence_number();
    drop(db);
    site.catch_up();
    let refused = site.command(&["restore", "--to-record", "1", "--into", text(&site.path("no"))]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("target.unsupported"), "{said}");
    assert!(!site.path("no").exists());
    let copy = DB::open_default(site.restore("copy", &["--to-record", "2"])).unwrap();
    assert_eq!(copy.latest_sequence_number(), sequence);
    assert_eq!(pairs(&copy, "default").len(), 2);
}

/// `reuse_manifest_on_open`: an open that writes no new MANIFEST.
#[test]
fn a_server_that_goes_on_in_its_old_manifest_is_followed_through_its_opens() {
    let (base, changed) = (Options::default(), Options::default());
    let mut error = std::ptr::null_mut();
    // SAFETY: both options live until after the call, and the text ends with a zero.
    unsafe {
        ffi::rocksdb_get_options_from_string(
            base.as_raw_ptr(),
            c"reuse_manifest_on_open=true;create_if_missing=true;max_manifest_file_size=1000000;".as_ptr(),
            changed.as_raw_ptr(),
            &mut error,
        );
    }
    if !error.is_null() {
        eprintln!("SKIPPED: this RocksDB has no reuse_manifest_on_open");
        return;
    }
    let site = Site::new(&[]);
    let dir = site.path("db");
    let mut db = DB::open(&changed, &dir).unwrap();
    db.put("0000", "value").unwrap();
    site.catch_up();
    let manifests = || {
        fs::read_dir(&dir)
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("MANIFEST"))
            .count()
    };
    let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    let mut reused = 0;
    for n in 1..120usize {
        db.put(format!("{n:04}"), "value").unwrap();
        match n % 10 {
            3 | 7 => site.catch_up(),
            5 => db.flush().unwrap(),
            9 => {
                drop(db);
                db = DB::open(&changed, &dir).unwrap();
                let now: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
                let manifest = |names: &[std::ffi::OsString]| {
                    names.iter().find(|n| n.to_string_lossy().starts_with("MANIFEST")).cloned()
                };
                reused += usize::from(manifest(&names) == manifest(&now));
                names = now;
            }
            _ => {}
        }
    }
    drop(db);
    site.catch_up();
    eprintln!("{reused} of 12 opens went on in the old MANIFEST; {} there at the end", manifests());
    let (mut exact, mut refused) = (0, 0);
    let head = site.list("timelines")[0]["head"].as_u64().unwrap();
    let log = succeed(site.command(&["log", "--limit", "100000"]).arg("--json"));
    let keys: Vec<Value> =
        String::from_utf8(log.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for record in (0..head).step_by(7).chain([head - 1]) {
        let into = site.path(&format!("copy-{record}"));
        let target = record.to_string();
        let output = site.command(&["restore", "--to-record", &target, "--into", text(&into)]).output().unwrap();
        if output.status.success() {
            let key = keys.iter().rfind(|line| line["record"] == record).unwrap()["key"].as_str().unwrap().to_owned();
            let copy = DB::open(&Options::default(), &into).unwrap();
            let found = pairs(&copy, "default");
            assert_eq!(found.len(), key.parse::<usize>().unwrap() + 1, "record {record}, the write of {key}");
            exact += 1;
        } else {
            refused += 1;
        }
    }
    eprintln!("{exact} exact, {refused} refused; barriers: {}", site.list("barriers").len());
    assert!(exact > 0);
}
