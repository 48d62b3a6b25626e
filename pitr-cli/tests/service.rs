//! A configuration, and one process that archives all it names, as an operator meets them.
//!
//! Every test runs the built program; every process is ended by its own handle, and every wait is bounded.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use rocksdb::{DB, Options};
use serde_json::Value;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// The program with nothing of the caller's environment that it reads.
fn pitr(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pitr"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("NO_COLOR", "1");
    for name in ["PITR_DB", "PITR_ARCHIVE", "PITR_STATE", "PITR_KEY_FILE", "PITR_LOG"] {
        command.env_remove(name);
    }
    command
}

fn run(args: &[&str]) -> Output {
    pitr(args).output().expect("the program starts")
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn refused(args: &[&str], code: &str) -> String {
    let output = pitr(args).arg("--json").output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    let error: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(error["code"], code, "{error}");
    error["message"].as_str().expect("a message").to_owned()
}

/// Asks until there is an answer.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(answer) = ask() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited in vain: {what}");
}

/// A process of ours that is told to end, or killed with its test.
struct Service(Option<Child>);

impl Service {
    fn start(args: &[&str]) -> Self {
        Self(Some(pitr(args).spawn().expect("the program starts")))
    }

    fn stop(mut self) -> Output {
        let child = self.0.take().expect("stopped once");
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
            .expect("a signal");
        child.wait_with_output().expect("its end")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

fn database(dir: &Path, name: &str) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, dir.join(name)).expect("the database opens");
    db.put("first", name).expect("a write");
    db
}

/// `pitr.toml` for databases of these names, archived beside them.
fn configuration(dir: &Path, names: &[&str], more: &str) -> String {
    let entry = |name: &&str| {
        let (db, archive) = (path(dir, name), path(dir, &format!("{name}-archive")));
        format!("[databases.{name}]\ndb = \"{db}\"\narchive.url = \"file:{archive}\"\n")
    };
    let file = path(dir, "pitr.toml");
    fs::write(&file, names.iter().map(entry).collect::<String>() + more).expect("a file");
    file
}

#[test]
fn a_configuration_is_checked_shown_and_described() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(["one", "two"].map(|name| database(dir.path(), name)));
    let file =
        configuration(dir.path(), &["one", "two"], "archive.key = \"env:SECRET\"\n[tuning]\ninterval = \"5s\"\n");
    fs::create_dir(dir.path().join("conf.d")).expect("a directory");
    fs::write(dir.path().join("conf.d/10-poll.toml"), "tuning.poll = \"100ms\"\n").expect("a file");

    let checked = json(
        &pitr(&["config", "check", &file, "--json"])
            .env("SECRET", KEY)
            .env("PITR__DATABASES__ONE__TUNING__INTERVAL", "3s")
            .output()
            .expect("the program starts"),
    );
    assert_eq!(
        (&checked["databases"][0]["name"], &checked["databases"][0]["interval_ms"]),
        (&"one".into(), &3000.into())
    );
    assert_eq!(checked["databases"][1]["interval_ms"], 5000);
    assert_eq!(checked["databases"][1]["key"].as_str().map(str::len), Some(16), "the key's id");
    assert_eq!(checked["sources"].as_array().map(Vec::len), Some(3), "{checked}");

    let shown = run(&["config", "show", &file]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("poll = \"100ms\"") && text.contains("env:SECRET") && !text.contains(KEY), "{text}");
    let schema: Value = serde_json::from_slice(&run(&["config", "schema"]).stdout).expect("JSON");
    assert!(schema.pointer("/$defs/Tuning/properties/interval").is_some(), "{schema}");

    assert!(refused(&["config", "check", &file], "key.malformed").contains("no such variable"));
    fs::write(dir.path().join("conf.d/20.toml"), "[tuning]\n\nintervall = \"1s\"\n").expect("a file");
    let message = refused(&["run", "--config", &file], "config.malformed");
    assert!(message.contains("20.toml") && message.contains("line 3, column 1") && message.contains('^'), "{message}");
    refused(&["run"], "usage");
    refused(&["run", "--config", &file, "--db", "/x"], "usage");
}

#[test]
fn one_process_archives_several_databases_and_the_trouble_of_one_is_not_the_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let [one, two] = ["one", "two"].map(|name| database(dir.path(), name));
    let file = configuration(dir.path(), &["one", "two"], "[tuning]\ninterval = \"100ms\"\n");
    let (db_one, db_two) = (path(dir.path(), "one"), path(dir.path(), "two"));
    // Somebody else archives the second one.
    let archive_two = format!("file:{}", path(dir.path(), "two-archive"));
    let other = Service::start(&["run", "--db", &db_two, "--archive", &archive_two]);
    let epoch = |db: &str| {
        let status = run(&["status", "--json", "--db", db]);
        serde_json::from_slice::<Value>(&status.stdout).ok()?.pointer("/archiver/epoch")?.as_u64()
    };
    assert_eq!(until("the other archiver", || epoch(&db_two)), 1);

    let service = Service::start(&["run", "--config", &file]);
    assert_eq!(until("the first database's archiver", || epoch(&db_one)), 1);
    one.put("second", "1").expect("a write");
    let flushed = json(&run(&["flush", "--json", "--db", &db_one]));
    assert_eq!(flushed["position"]["sequence"], one.latest_sequence_number());

    // When that one is gone, it is this one's turn.
    assert!(other.stop().status.success());
    assert_eq!(until("the second database's archiver", || epoch(&db_two).filter(|epoch| *epoch > 1)), 2);
    two.put("second", "2").expect("a write");
    let ended = service.stop();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    for (name, db) in [("one", &one), ("two", &two)] {
        let archive = format!("file:{}", path(dir.path(), &format!("{name}-archive")));
        let status = json(&run(&["status", "--json", "--archive", &archive]));
        assert_eq!(status["archive"]["timelines"][0]["head"]["sequence"], db.latest_sequence_number(), "{name}");
    }

    let once = json(&run(&["run", "--config", &file, "--once", "--json"]));
    assert_eq!(once["databases"].as_array().map(Vec::len), Some(2), "{once}");
}

#[test]
fn a_database_that_is_given_up_is_told_by_the_exit_code_and_the_others_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let [one, two] = ["one", "two"].map(|name| database(dir.path(), name));
    // What lies in the second archive's place is encrypted, and no key is given.
    let archive_two = format!("file:{}", path(dir.path(), "two-archive"));
    let key = path(dir.path(), "key");
    fs::write(&key, KEY).expect("a file");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
    let db_two = path(dir.path(), "two");
    json(&run(&["run", "--once", "--json", "--db", &db_two, "--archive", &archive_two, "--key-file", &key]));

    let file = configuration(dir.path(), &["one", "two"], "[tuning]\ninterval = \"100ms\"\n");
    let service = Service::start(&["run", "--config", &file]);
    let db_one = path(dir.path(), "one");
    until("the first database's archiver", || run(&["flush", "--db", &db_one]).status.success().then_some(()));
    one.put("second", "1").expect("a write");
    let flushed = json(&run(&["flush", "--json", "--db", &db_one]));
    assert_eq!(flushed["position"]["sequence"], one.latest_sequence_number());
    let ended = service.stop();
    let log = String::from_utf8_lossy(&ended.stderr);
    assert!(log.contains("key.required") && log.contains("given up"), "{log}");
    assert_eq!(ended.status.code(), Some(5), "{log}");
    drop(two);
}
