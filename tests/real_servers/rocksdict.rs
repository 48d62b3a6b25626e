//! A writer in Python (`rocksdict_database.py`) and the model of what it has written.
//!
//! Owns: the process and the reading of its protocol. A state is known by its sequence number: this writer is the only
//! one, commits one batch at a time and never reopens, so here, and only here, sequence numbers order everything.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use serde::Deserialize;

use super::{
    pitr::{kill_9, text, until},
    services,
};

/// Column family, key, value; keys and values in hexadecimal, which sorts as the bytes do.
pub type Contents = BTreeMap<String, BTreeMap<String, String>>;

/// The interpreter that has rocksdict, or `None` (said on stderr).
pub fn python() -> Option<PathBuf> {
    let python = services::tools().join("venv/bin/python");
    let has = |python: &Path| {
        Command::new(python).args(["-c", "import rocksdict"]).output().is_ok_and(|output| output.status.success())
    };
    if has(&python) {
        return Some(python);
    }
    services::say_skipped(&format!("rocksdict is not installed for {} (make tools installs it)", python.display()));
    None
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/real_servers/rocksdict_database.py")
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Intent(Vec<Vec<String>>),
    Sequence(u64),
}

/// A commit: its operations, and the database's sequence number after it. `None`: it was intended when the end came.
#[derive(Clone)]
struct Commit {
    operations: Vec<Vec<String>>,
    sequence: Option<u64>,
}

pub struct Writer {
    child: Child,
    /// Closing it ends the writer in order.
    _stdin: ChildStdin,
    commits: Arc<Mutex<Vec<Commit>>>,
    reader: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(python: &Path, database: &Path, seed: u64) -> Self {
        let mut child = Command::new(python)
            .arg(script())
            .args(["write", text(database), &seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting the writer");
        let commits = Arc::new(Mutex::new(Vec::<Commit>::new()));
        let reader = {
            let (commits, lines) = (commits.clone(), BufReader::new(child.stdout.take().expect("its output")).lines());
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    // A killed writer may leave half a line.
                    let Ok(line) = serde_json::from_str(&line) else { return };
                    let mut commits = commits.lock().expect("the list");
                    match line {
                        Line::Intent(operations) => commits.push(Commit { operations, sequence: None }),
                        Line::Sequence(after) => commits.last_mut().expect("an intent first").sequence = Some(after),
                    }
                }
            })
        };
        let stdin = child.stdin.take().expect("its input");
        Self { child, _stdin: stdin, commits, reader: Some(reader) }
    }

    /// The sequence number after the last commit known.
    pub fn sequence(&self) -> u64 {
        self.commits.lock().expect("the list").iter().rev().find_map(|commit| commit.sequence).unwrap_or(0)
    }

    pub fn commits(&self) -> usize {
        self.commits.lock().expect("the list").len()
    }

    pub fn wait_for_more(&self, commits: usize) {
        let goal = self.commits() + commits;
        until("more commits", || (self.commits() >= goal).then_some(()));
    }

    pub fn kill_9(&mut self) {
        kill_9(&mut self.child);
        self.reader.take().expect("killed once").join().expect("the reader of the writer's lines");
    }

    /// What the database held when its latest sequence number was `sequence`, which a commit must have ended with.
    pub fn model(&self, sequence: u64) -> Contents {
        let mut contents: Contents =
            ["default", "accounts", "log"].map(|family| (family.to_owned(), BTreeMap::new())).into();
        let mut reached = 0;
        for commit in self.commits.lock().expect("the list").iter() {
            match commit.sequence {
                Some(after) if after > sequence => break,
                Some(after) => reached = after,
                // Killed before it could say how this one ended: it happened exactly if the numbers say so.
                None if reached == sequence => break,
                None => reached = sequence,
            }
            for operation in &commit.operations {
                apply(&mut contents, operation);
            }
        }
        assert_eq!(reached, sequence, "no commit ended at this sequence number");
        contents
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn apply(contents: &mut Contents, operation: &[String]) {
    let fields: Vec<&str> = operation.iter().map(String::as_str).collect();
    if let ["create_family", family] = fields[..] {
        contents.insert(family.to_owned(), BTreeMap::new());
        return;
    }
    let family = contents.get_mut(fields[1]).expect("a family that exists");
    match fields[..] {
        ["put", _, key, value] => {
            family.insert(key.to_owned(), value.to_owned());
        }
        ["delete", _, key] => {
            family.remove(key);
        }
        ["delete_range", _, from, to] => family.retain(|key, _| !(from..to).contains(&key.as_str())),
        _ => panic!("an operation the model does not know: {fields:?}"),
    }
}

/// What a database on disk holds, as its owner's library sees it.
#[derive(Deserialize)]
pub struct Dump {
    pub sequence: u64,
    pub families: Contents,
}

pub fn dump(python: &Path, database: &Path) -> Dump {
    let output = Command::new(python).arg(script()).args(["dump", text(database)]).output().expect("running Python");
    assert!(output.status.success(), "rocksdict: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the dump")
}
