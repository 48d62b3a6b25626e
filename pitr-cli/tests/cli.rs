//! The command line as people and scripts meet it: help, exit codes, JSON fields, errors, and one whole story.
//!
//! Every test runs the built program; nothing here reaches another machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use pitr_archive::Code;
use rocksdb::{ColumnFamilyDescriptor, DB, Options, WriteBatch};
use serde_json::Value;

const COMMANDS: [&[&str]; 22] = [
    &["run"],
    &["config"],
    &["config", "check"],
    &["config", "show"],
    &["config", "schema"],
    &["base"],
    &["tag"],
    &["tag", "create"],
    &["tag", "list"],
    &["tag", "delete"],
    &["flush"],
    &["status"],
    &["list"],
    &["log"],
    &["plan"],
    &["restore"],
    &["verify"],
    &["prune"],
    &["check"],
    &["inspect"],
    &["demo"],
    &["errors"],
];

/// The program with nothing of the caller's environment that it reads.
fn pitr(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pitr"));
    command.args(args).stdin(Stdio::null()).env("NO_COLOR", "1");
    for name in ["PITR_DB", "PITR_ARCHIVE", "PITR_STATE", "PITR_KEY_FILE", "PITR_LOG"] {
        command.env_remove(name);
    }
    command
}

fn run(args: &[&str]) -> Output {
    pitr(args).output().expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must succeed and gives its one JSON object.
fn json(args: &[&str]) -> Value {
    let output = run(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    assert_eq!(stderr(&output), "", "{args:?} warns");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", stdout(&output)))
}

/// Runs a command that must fail so, and gives the error object.
fn refused(args: &[&str], code: &str, exit: i32) -> Value {
    let mut args = args.to_vec();
    args.push("--json");
    let output = run(&args);
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {}", stderr(&output));
    assert_eq!(stdout(&output), "", "{args:?} prints a result although it fails");
    let error: Value =
        serde_json::from_slice(&output.stderr).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", stderr(&output)));
    assert_eq!(error["code"], code, "{args:?}: {error}");
    assert_eq!(error["exit"], exit, "{args:?}: {error}");
    for field in ["severity", "message", "hint", "details"] {
        assert!(error.get(field).is_some(), "{args:?} lacks {field}: {error}");
    }
    error
}

fn has(value: &Value, pointers: &[&str]) {
    for pointer in pointers {
        assert!(value.pointer(pointer).is_some(), "no {pointer} in {value}");
    }
}

/// A database that this test writes, archives and restores.
struct Scene {
    dir: tempfile::TempDir,
    db: String,
    archive: String,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        Self { db: path("db"), archive: format!("file:{}", path("archive")), dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn open(&self) -> DB {
        open(Path::new(&self.db))
    }

    fn write(&self, db: &DB, pairs: &[(&str, &str)]) {
        let accounts = db.cf_handle("accounts").expect("the column family");
        let mut batch = WriteBatch::default();
        for (key, value) in pairs {
            batch.put_cf(&accounts, key, value);
        }
        db.write(batch).expect("a write");
    }

    fn with<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        let mut args = args.to_vec();
        args.extend(["--archive", self.archive.as_str()]);
        args
    }

    fn catch_up(&self) -> Value {
        json(&self.with(&["run", "--once", "--json", "--db", &self.db]))
    }
}

fn open(path: &Path) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let family = ColumnFamilyDescriptor::new("accounts", Options::default());
    DB::open_cf_descriptors(&options, path, [family]).expect("the database opens")
}

fn read(path: &Path, key: &str) -> Option<String> {
    let db = open(path);
    let accounts = db.cf_handle("accounts").expect("the column family");
    db.get_cf(&accounts, key).expect("a read").map(|value| String::from_utf8(value).expect("text"))
}

fn find(dir: &Path, ending: &str) -> PathBuf {
    let mut found: Vec<_> = fs::read_dir(dir).expect("a listing").map(|e| e.expect("an entry").path()).collect();
    found.retain(|path| path.to_string_lossy().contains(ending));
    found.sort();
    found.pop().unwrap_or_else(|| panic!("no {ending} in {}", dir.display()))
}

#[test]
fn every_command_explains_itself_with_examples() {
    let top = run(&["--help"]);
    assert_eq!(top.status.code(), Some(0));
    assert!(stdout(&top).contains("Start here"));
    for path in COMMANDS {
        let mut args = path.to_vec();
        args.push("--help");
        let output = run(&args);
        assert_eq!(output.status.code(), Some(0), "{path:?}");
        let text = stdout(&output);
        let examples = text.split("Examples:").nth(1).unwrap_or_else(|| panic!("{path:?} has no examples"));
        let begins = |line: &&str| line.trim_start().contains("pitr ");
        assert!(examples.lines().filter(begins).count() >= 2, "{path:?}: {examples}");
        assert!(stdout(&top).contains(path[0]), "{path:?} is missing in pitr --help");
    }
}

#[test]
fn the_examples_of_every_help_are_commands_that_exist() {
    for path in COMMANDS {
        let mut args = path.to_vec();
        args.push("--help");
        let text = stdout(&run(&args));
        for line in text.split("Examples:").nth(1).unwrap_or_default().lines() {
            // What is typed ends where the explanation beside it begins, or a pipe does.
            let command = line.trim().split("   ").next().unwrap_or_default().split(" | ").next().unwrap_or_default();
            let Some(rest) = command.split_once("pitr ").map(|(_, rest)| rest) else { continue };
            for option in rest.split_whitespace().filter(|word| word.starts_with("--")) {
                let name = option.split('=').next().unwrap_or_default();
                assert!(
                    text.split("Examples:").next().is_some_and(|t| t.contains(name)) || path == ["tag"],
                    "{path:?}: {name} in {line:?}"
                );
            }
        }
    }
}

#[test]
fn usage_errors_are_code_usage_and_exit_2() {
    for args in
        [&["no-such-command"][..], &["plan", "--to-latest"], &["plan", "--nonsense"], &["run", "--interval", "1"]]
    {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
        refused(args, "usage", 2);
    }
    // Exactly one target.
    refused(&["plan", "--archive", "file:/nowhere/archive"], "usage", 2);
    refused(&["plan", "--archive", "file:/nowhere/archive", "--to-latest", "--to-seq", "1"], "usage", 2);
}

#[test]
fn every_error_code_is_listed_with_meaning_and_hint() {
    let listed = json(&["errors", "--json"]);
    let listed = listed["errors"].as_array().expect("a list");
    assert_eq!(listed.len(), Code::ALL.len());
    for (shown, code) in listed.iter().zip(Code::ALL) {
        assert_eq!(shown["code"], code.name());
        assert_eq!(shown["exit"], code.exit().status());
        assert!(shown["meaning"].as_str().is_some_and(|s| !s.is_empty()));
        assert!(shown["hint"].as_str().is_some_and(|s| !s.is_empty()));
    }
    assert_eq!(Code::Interrupted.exit().status(), 130);
    assert!(stdout(&run(&["errors", "target."])).contains("target.behind-barrier"));
    refused(&["errors", "no.such"], "usage", 2);
}

#[test]
fn completions_exist_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(stdout(&output).contains("restore"), "{shell}");
    }
}

#[test]
fn mistakes_in_names_and_places_have_their_own_codes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let nowhere = format!("file:{}", dir.path().join("nowhere").display());
    refused(&["list", "--archive", &nowhere], "archive.not-found", 2);
    refused(&["list", "--archive", "s4://bucket/x"], "store.url", 2);
    refused(&["list", "--archive", "s3://bucket/x?regoin=eu-west-1"], "store.unknown-option", 2);
    refused(&["plan", "--to-time", "yesterday", "--archive", &nowhere], "target.malformed", 2);
    refused(&["plan", "--to-seq", "-1", "--archive", &nowhere], "usage", 2);
    refused(&["plan", "--to-record", "1.5", "--archive", &nowhere], "target.malformed", 2);
    refused(&["check", "--db", dir.path().to_str().expect("text")], "rocksdb.not-a-database", 2);
    refused(
        &["run", "--once", "--db", dir.path().to_str().expect("text"), "--archive", &nowhere],
        "rocksdb.not-a-database",
        2,
    );
    refused(&["tag", "create", "../x", "--db", "/nowhere", "--archive", &nowhere], "tag.malformed-name", 2);
    refused(&["flush", "--db", dir.path().to_str().expect("text")], "control.unavailable", 2);
    refused(&["inspect", "wal", "/nowhere/000001.log"], "file.not-found", 2);

    let key = dir.path().join("key");
    fs::write(&key, "00").expect("a file");
    let key = key.to_str().expect("text");
    let mut exposed = fs::metadata(key).expect("metadata").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut exposed, 0o644);
    fs::set_permissions(key, exposed.clone()).expect("permissions");
    refused(&["list", "--archive", &nowhere, "--key-file", key], "key.exposed", 2);
    std::os::unix::fs::PermissionsExt::set_mode(&mut exposed, 0o600);
    fs::set_permissions(key, exposed).expect("permissions");
    refused(&["list", "--archive", &nowhere, "--key-file", key], "key.malformed", 2);
}

/// One database from the first write to the last restore: what every command prints as JSON, and that it is true.
#[test]
fn a_whole_story_in_json() {
    let scene = Scene::new();
    let db = scene.open();
    scene.write(&db, &[("alice", "100"), ("bob", "50")]);
    let checked = json(&scene.with(&["check", "--json", "--db", &scene.db]));
    has(
        &checked,
        &[
            "/ok",
            "/findings/0/id",
            "/findings/0/severity",
            "/findings/0/finding",
            "/store/steps",
            "/requests_per_month/busy",
            "/restore_seconds",
        ],
    );
    assert_eq!(checked["ok"], true, "{checked}");

    let caught_up = scene.catch_up();
    has(
        &caught_up,
        &["/database", "/archive", "/position/timeline", "/position/record", "/position/wal", "/position/sequence"],
    );
    let first = caught_up["position"]["sequence"].as_u64().expect("a number");
    assert_eq!(first, db.latest_sequence_number());

    let tag =
        scene.with(&["tag", "create", "before", "--note", "a note", "--expires", "30d", "--json", "--db", &scene.db]);
    let tag = json(&tag);
    assert!(tag["expires"].as_str() > tag["created"].as_str(), "{tag}");
    assert_eq!(tag["name"], "before");
    assert_eq!(tag["note"], "a note");
    assert_eq!(tag["by"], "this process");
    assert_eq!(tag["position"]["sequence"], first);
    refused(&scene.with(&["tag", "create", "before", "--db", &scene.db]), "tag.exists", 2);

    scene.write(&db, &[("alice", "0"), ("\u{1}binary\\", "x")]);
    scene.write(&db, &[("carol", "7")]);
    let flushed = json(&scene.with(&["flush", "--json", "--db", &scene.db]));
    assert_eq!(flushed["position"]["sequence"], db.latest_sequence_number());
    let base = json(&scene.with(&["base", "--json", "--db", &scene.db]));
    has(&base, &["/id", "/floor/timeline", "/floor/record", "/by"]);

    let tags = json(&scene.with(&["tag", "list", "--json"]));
    assert_eq!(tags["tags"][0]["name"], "before");
    has(&tags, &["/tags/0/position/record", "/tags/0/created", "/tags/0/observed_only"]);

    let status = json(&scene.with(&["status", "--json", "--db", &scene.db]));
    assert_eq!(status["archiver"], Value::Null);
    assert_eq!(status["archive"]["timelines"][0]["head"]["sequence"], db.latest_sequence_number());
    has(
        &status,
        &[
            "/now",
            "/archive/id",
            "/archive/encrypted",
            "/archive/timelines/0/observed_through",
            "/archive/timelines/0/last_base/id",
            "/archive/timelines/0/windows/0/from/record",
            "/archive/timelines/0/gaps",
        ],
    );
    let through = status["archive"]["timelines"][0]["observed_through"].as_str().expect("a time");
    assert!(chrono::DateTime::parse_from_rfc3339(through).is_ok(), "{through}");

    let list = json(&scene.with(&["list", "--segments", "--json"]));
    has(&list, &["/segments/0/ordinal", "/segments/0/records", "/segments/0/bytes"]);
    let list = json(&scene.with(&["list", "--json"]));
    has(
        &list,
        &[
            "/timelines/0/timeline",
            "/bases/0/id",
            "/bases/0/floor/record",
            "/tags/0/name",
            "/barriers",
            "/segments/0/segments",
        ],
    );

    let log = run(&scene.with(&["log", "--cf", "accounts", "--key", "alice", "--json"]));
    let entries: Vec<Value> = stdout(&log).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(entries.iter().map(|e| e["value"].as_str().expect("a value")).collect::<Vec<_>>(), ["100", "0"]);
    has(
        &entries[0],
        &["/timeline", "/record", "/seen", "/wal", "/sequence", "/column_family/name", "/operation", "/key"],
    );
    let escaped = run(&scene.with(&["log", "--prefix", "\\x01bin", "--json"]));
    assert_eq!(serde_json::from_slice::<Value>(&escaped.stdout).expect("one entry")["key"], "\\x01binary\\\\");

    let plan = json(&scene.with(&["plan", "--to-tag", "before", "--json"]));
    for field in ["timeline", "record", "wal", "sequence"] {
        assert_eq!(plan["position"][field], tag["position"][field], "{field}");
    }
    has(
        &plan,
        &["/target", "/distance/exact", "/time", "/base/id", "/segments", "/download_bytes", "/disk_bytes", "/notes"],
    );
    let refusal = refused(&scene.with(&["plan", "--to-record", "999"]), "target.after-end", 3);
    assert_eq!(refusal["retry"], "later");
    refused(&scene.with(&["plan", "--to-tag", "other"]), "tag.unknown", 3);

    let into = scene.path("restored");
    let restored = json(&scene.with(&["restore", "--to-tag", "before", "--into", &into, "--json"]));
    assert_eq!(restored["position"], plan["position"]);
    has(&restored, &["/into", "/base", "/files", "/file_bytes", "/records", "/wal_bytes", "/recovered", "/seconds"]);
    refused(&scene.with(&["restore", "--to-tag", "before", "--into", &into]), "restore.destination-not-empty", 2);
    assert_eq!(read(Path::new(&into), "alice").as_deref(), Some("100"));
    assert_eq!(read(Path::new(&into), "carol"), None);
    let latest = scene.path("latest");
    let restored = json(&scene.with(&["restore", "--to-latest", "--into", &latest, "--finish", "--json"]));
    assert_eq!(restored["recovered"], true);
    assert_eq!(read(Path::new(&latest), "carol").as_deref(), Some("7"));

    let verified = json(&scene.with(&["verify", "--json"]));
    assert_eq!(verified["ok"], true, "{verified}");
    has(&verified, &["/findings", "/checked/segments", "/checked/records", "/checked/files"]);
    let deep =
        json(&scene.with(&["verify", "--deep", "--scratch", scene.dir.path().to_str().expect("text"), "--json"]));
    has(&deep, &["/deep/compared/kind", "/deep/bases"]);

    let pruned = json(&scene.with(&["prune", "--dry-run", "--keep-last", "1", "--json"]));
    has(
        &pruned,
        &[
            "/at",
            "/window_from",
            "/window_to",
            "/bases/0/keep/0/rule",
            "/tags/0/base",
            "/timelines/0/kept/0/segments",
            "/timelines/0/before/0/from",
            "/timelines/0/after/0/since",
            "/condemned/segments/objects",
            "/deleted/bases/bytes",
            "/waiting/objects",
        ],
    );
    assert_eq!((&pruned["dry_run"], &pruned["bases"][0]["drop"]), (&Value::Bool(true), &Value::Null), "{pruned}");
    let shown = run(&scene.with(&["prune", "--dry-run"]));
    assert!(stdout(&shown).contains("Nothing was changed.") && stdout(&shown).contains("tag before"), "{shown:?}");
    refused(&scene.with(&["prune", "--keep-last", "1", "--grace", "1m"]), "config.contradictory", 2);
    // What a configuration keeps.
    let config = scene.path("pitr.toml");
    let named = format!("[databases.app]\ndb = {:?}\narchive.url = {:?}\n", scene.db, scene.archive);
    std::fs::write(&config, &named).expect("a file");
    refused(&scene.with(&["prune", "--config", &config]), "config.contradictory", 2);
    std::fs::write(&config, named + "[retention]\nwindow = \"90d\"\n").expect("a file");
    let pruned = json(&scene.with(&["prune", "--config", &config, "--json"]));
    assert_eq!(pruned["window_seconds"], 90 * 86_400, "{pruned}");
    let other = format!("file:{}", scene.path("other"));
    refused(&["prune", "--archive", &other, "--config", &config], "config.contradictory", 2);
    // Not where an archiver keeps what may be deleted, and also where a path is no text.
    let state = format!("{}.pitr/copy", scene.db);
    refused(&scene.with(&["restore", "--to-latest", "--into", &state]), "usage", 2);
    let odd = scene.dir.path().join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"copy-\xff"));
    let mut restore = pitr(&scene.with(&["restore", "--to-latest", "--json"]));
    let restored = restore.arg("--into").arg(&odd).output().expect("the program starts");
    assert!(restored.status.success() && odd.join("CURRENT").exists(), "{restored:?}");
    serde_json::from_slice::<Value>(&restored.stdout).expect("JSON");
    // What is deleted is never a default's doing.
    let said = run(&scene.with(&["prune"]));
    assert_eq!(said.status.code(), Some(2), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stderr).contains("--keep-window"), "{said:?}");

    let deleted = json(&scene.with(&["tag", "delete", "before", "--json"]));
    assert_eq!(deleted["deleted"], true);
    refused(&scene.with(&["tag", "delete", "before"]), "tag.unknown", 3);
}

#[test]
fn an_encrypted_archive_needs_its_own_key() {
    let scene = Scene::new();
    let db = scene.open();
    scene.write(&db, &[("a", "1")]);
    let key = |name: &str, digit: &str| {
        let path = scene.path(name);
        fs::write(&path, digit.repeat(64)).expect("a file");
        let mut mode = fs::metadata(&path).expect("metadata").permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o600);
        fs::set_permissions(&path, mode).expect("permissions");
        path
    };
    let (right, wrong) = (key("right", "a"), key("wrong", "b"));
    json(&scene.with(&["run", "--once", "--json", "--db", &scene.db, "--key-file", &right]));
    let status = json(&scene.with(&["status", "--json", "--key-file", &right]));
    assert_eq!(status["archive"]["encrypted"], true);
    refused(&scene.with(&["status"]), "key.required", 5);
    refused(&scene.with(&["status", "--key-file", &wrong]), "key.wrong", 5);
    let clear = Scene::new();
    drop(clear.open());
    clear.catch_up();
    refused(&clear.with(&["status", "--key-file", &right]), "key.unexpected", 2);
    // A sealed segment is opened where it lies.
    let segments = scene.dir.path().join("archive/segments/0000000001");
    let segment = find(&segments, "00000000.seg");
    let segment = segment.to_str().expect("text");
    let shown = run(&["inspect", "segment", segment, "--key-file", &right, "--json"]);
    assert_eq!(shown.status.code(), Some(0), "{}", stderr(&shown));
    assert!(stdout(&shown).contains("\"kind\":\"record\""));
    refused_after_output(&["inspect", "segment", segment], 5);
}

/// Prints something, then fails so.
fn refused_after_output(args: &[&str], exit: i32) {
    let output = run(args);
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {}", stderr(&output));
    assert!(stderr(&output).contains("hint:"), "{}", stderr(&output));
}

#[test]
fn inspect_prints_what_is_readable_then_the_damage_and_exits_1() {
    let scene = Scene::new();
    let db = scene.open();
    for n in 0..20 {
        scene.write(&db, &[("key", &format!("value {n}"))]);
    }
    let wal = find(Path::new(&scene.db), ".log");
    let whole = run(&["inspect", "wal", wal.to_str().expect("text")]);
    assert_eq!(whole.status.code(), Some(0), "{}", stderr(&whole));
    assert!(stdout(&whole).contains("PUT cf 1  key = value 19"), "{}", stdout(&whole));
    let lines: Vec<Value> = stdout(&run(&["inspect", "wal", wal.to_str().expect("text"), "--json"]))
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.iter().filter(|l| l["kind"] == "batch").count(), 20);
    assert_eq!(lines.last().expect("lines")["kind"], "ending");

    let mut bytes = fs::read(&wal).expect("the log");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    let damaged = scene.path("000099.log");
    fs::write(&damaged, bytes).expect("a file");
    let output = run(&["inspect", "wal", &damaged]);
    assert_eq!(output.status.code(), Some(1), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("value 5"), "{}", stdout(&output));
    assert!(stdout(&output).contains("DAMAGED"), "{}", stdout(&output));

    let manifest = find(Path::new(&scene.db), "MANIFEST-");
    let output = run(&["inspect", "manifest", manifest.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("ColumnFamilyAdd accounts"), "{}", stdout(&output));
    let options = find(Path::new(&scene.db), "OPTIONS-");
    let options = json(&["inspect", "options", options.to_str().expect("text"), "--json"]);
    has(&options, &["/db/rocksdb_version", "/column_families/0/name", "/sections/0/section"]);
}

#[test]
fn damage_in_an_archive_is_exit_1_in_verify_and_a_table_of_findings() {
    let scene = Scene::new();
    let db = scene.open();
    scene.write(&db, &[("a", "1")]);
    scene.catch_up();
    let segment = find(&scene.dir.path().join("archive/segments/0000000001"), "00000000.seg");
    let mut bytes = fs::read(&segment).expect("the segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, bytes).expect("the segment");
    let output = run(&scene.with(&["verify", "--json"]));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let verified: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(verified["ok"], false);
    has(
        &verified,
        &["/findings/0/code", "/findings/0/severity", "/findings/0/object", "/findings/0/text", "/findings/0/hint"],
    );
    let table = run(&scene.with(&["verify"]));
    assert_eq!(table.status.code(), Some(1));
    assert!(stdout(&table).contains("segment.damaged"), "{}", stdout(&table));
    let inspected = run(&["inspect", "segment", segment.to_str().expect("text")]);
    assert_eq!(inspected.status.code(), Some(1), "{}", stderr(&inspected));
}

#[test]
fn a_reader_that_goes_away_is_success() {
    let scene = Scene::new();
    let db = scene.open();
    for n in 0..2000 {
        scene.write(&db, &[(&format!("key {n:08}"), &"v".repeat(200))]);
    }
    scene.catch_up();
    let mut args = scene.with(&["log", "--full", "--limit", "100000"]);
    args.push("--json");
    let mut child = pitr(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn an_orderly_end_ships_everything() {
    let scene = Scene::new();
    let db = scene.open();
    scene.write(&db, &[("a", "1")]);
    let args = scene.with(&["run", "--db", &scene.db, "--interval", "1h", "--log-level", "warn"]);
    let archiver = pitr(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    // The archiver answers once it follows the log.
    let deadline = 600;
    let answered = (0..deadline).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let status = run(&["status", "--json", "--db", &scene.db]);
        status.status.success() && stdout(&status).contains("\"epoch\"")
    });
    assert!(answered, "the archiver never answered");
    scene.write(&db, &[("b", "2")]);
    let flushed = json(&["flush", "--json", "--db", &scene.db]);
    assert_eq!(flushed["by"], "archiver");
    assert_eq!(flushed["position"]["sequence"], db.latest_sequence_number());
    refused(&scene.with(&["run", "--once", "--db", &scene.db]), "writer.state-locked", 6);
    scene.write(&db, &[("c", "3")]);
    let pid = i32::try_from(archiver.id()).expect("a process id");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).expect("a process id"),
        rustix::process::Signal::TERM,
    )
    .expect("a signal");
    let output = archiver.wait_with_output().expect("the archiver ends");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "", "the archiver warned");
    let status = json(&scene.with(&["status", "--json"]));
    assert_eq!(status["archive"]["timelines"][0]["head"]["sequence"], db.latest_sequence_number());
}

#[test]
fn the_demo_proves_all_three_restores() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let told = json(&["demo", "--json", "--dir", dir.path().to_str().expect("text")]);
    let proofs = told["proofs"].as_array().expect("proofs");
    assert_eq!(proofs.len(), 3);
    for proof in proofs {
        assert!(proof["keys"].as_u64().is_some_and(|keys| keys > 100), "{proof}");
    }
    has(&told, &["/directory", "/steps/0/command", "/milliseconds"]);
    assert_eq!(fs::read_dir(dir.path()).expect("a listing").count(), 0, "the demo leaves something behind");
}
