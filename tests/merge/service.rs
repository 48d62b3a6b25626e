//! The built program with a configuration: it merges by itself, and what it made restores.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rocksdb::{DB, Options};
use serde_json::Value;

fn pitr(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pitr"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("NO_COLOR", "1");
    for name in ["PITR_DB", "PITR_ARCHIVE", "PITR_STATE", "PITR_KEY_FILE", "PITR_LOG"] {
        command.env_remove(name);
    }
    command
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn asked(args: &[&str]) -> Value {
    json(&pitr(args).output().expect("the program starts"))
}

/// A process of ours, killed with its test.
struct Service(Option<Child>);

impl Service {
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

#[test]
fn the_service_merges_by_itself_and_every_tag_restores() {
    let dir = tempfile::tempdir().expect("a directory");
    let (db_path, to) = (path(dir.path(), "db"), format!("file:{}", path(dir.path(), "archive")));
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, &db_path).expect("the database opens");
    db.put("n", "0").expect("a write");
    let file = path(dir.path(), "pitr.toml");
    let text = format!(
        "[tuning]\ninterval = \"100ms\"\nmanifest_interval = \"1s\"\n[merge]\nlevels = [\"1s\", \"4s\"]\n\
         [databases.one]\ndb = \"{db_path}\"\narchive.url = \"{to}\"\n"
    );
    fs::write(&file, text).expect("a file");
    let service = Service(Some(pitr(&["run", "--config", &file]).spawn().expect("the program starts")));
    let begun = Instant::now();
    let (mut number, mut tags) = (0, Vec::new());
    let merged = loop {
        assert!(begun.elapsed() < Duration::from_secs(120), "nothing is merged");
        for _ in 0..20 {
            number += 1;
            db.put("n", number.to_string()).expect("a write");
            std::thread::sleep(Duration::from_millis(60));
        }
        let name = format!("at-{number}");
        if pitr(&["tag", "create", &name, "--db", &db_path]).output().expect("the program starts").status.success() {
            tags.push((name, number));
        }
        let listed = pitr(&["list", "--segments", "--json", "--archive", &to]).output().expect("the program starts");
        if !listed.status.success() {
            continue;
        }
        let listed = json(&listed);
        let segments = listed["segments"].as_array().expect("segments");
        let merged = segments.iter().filter(|s| !s["last_ordinal"].is_null()).count();
        if merged > 4 && tags.len() > 4 {
            break merged;
        }
    };
    let ended = service.stop();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(!told.lines().any(|line| line.contains("WARN") && line.contains("merged")), "{told}");
    assert!(merged > 0);
    let verified = asked(&["verify", "--json", "--archive", &to]);
    assert_eq!(verified["ok"], true, "{verified}");
    for (name, expected) in tags {
        let into = path(dir.path(), &name);
        asked(&["restore", "--json", "--archive", &to, "--to-tag", &name, "--into", &into]);
        let copy = DB::open(&Options::default(), &into).expect("the copy opens");
        let found = copy.get("n").expect("a read").expect("a value");
        assert_eq!(String::from_utf8_lossy(&found), expected.to_string(), "{name}");
    }
}
