//! Writers in other languages, each with a RocksDB of its own (`rocksdict_database.py`, `node_database.js`), and the
//! model of what they have written.
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

/// RocksDB as the library of a program in another language, in one release: how to start a writer with it.
pub struct Library {
    program: PathBuf,
    script: &'static str,
    variables: Vec<(&'static str, PathBuf)>,
    /// Column families that the writer opens the database with.
    families: &'static [&'static str],
}

impl Library {
    /// rocksdict, the release that the other tests use; `None` (said on stderr) where it is missing.
    pub fn rocksdict() -> Option<Self> {
        Self::python(Vec::new(), "rocksdict")
    }

    /// A release of rocksdict in a directory of its own.
    pub fn rocksdict_release(release: &str) -> Option<Self> {
        let directory = services::tools().join(format!("rocksdict-{release}"));
        if !directory.join("rocksdict").is_dir() {
            services::say_skipped(&format!("rocksdict {release} is not installed (make tools installs it)"));
            return None;
        }
        Self::python(vec![("PYTHONPATH", directory)], release)
    }

    fn python(variables: Vec<(&'static str, PathBuf)>, what: &str) -> Option<Self> {
        let program = services::tools().join("venv/bin/python");
        let families = &["default", "accounts", "log"];
        let library = Self { program, script: "rocksdict_database.py", variables, families };
        library.works(&["-c", "import rocksdict"], what)
    }

    /// The package `rocksdb` for Node, with RocksDB 6.17.3; `None` where it is missing.
    pub fn node() -> Option<Self> {
        let modules = services::tools().join("node_modules");
        let library = Self {
            program: PathBuf::from("node"),
            script: "node_database.js",
            variables: vec![("NODE_PATH", modules)],
            families: &["default"],
        };
        library.works(&["-e", "require('rocksdb')"], "the rocksdb package for Node")
    }

    fn works(self, arguments: &[&str], what: &str) -> Option<Self> {
        if self.command().args(arguments).output().is_ok_and(|output| output.status.success()) {
            return Some(self);
        }
        services::say_skipped(&format!("{what} is not installed (make tools installs it)"));
        None
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.envs(self.variables.iter().map(|(name, value)| (*name, value)));
        command
    }

    fn script(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/real_servers").join(self.script)
    }

    /// What a database on disk holds, as its owner's library sees it.
    pub fn dump(&self, database: &Path) -> Dump {
        let output = self.command().arg(self.script()).args(["dump", text(database)]).output().expect("starting it");
        assert!(output.status.success(), "{}: {}", self.script, String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("the dump")
    }
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
    families: &'static [&'static str],
}

impl Writer {
    pub fn start(library: &Library, database: &Path, seed: u64) -> Self {
        let mut child = library
            .command()
            .arg(library.script())
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
        Self { child, _stdin: stdin, commits, reader: Some(reader), families: library.families }
    }

    /// The sequence number after the last commit known.
    pub fn sequence(&self) -> u64 {
        self.commits.lock().expect("the list").iter().rev().find_map(|commit| commit.sequence).unwrap_or(0)
    }

    /// The sequence numbers after the commits that it confirmed.
    pub fn sequences(&self) -> Vec<u64> {
        self.commits.lock().expect("the list").iter().filter_map(|commit| commit.sequence).collect()
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
            self.families.iter().map(|family| ((*family).to_owned(), BTreeMap::new())).collect();
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

/// What a database holds.
#[derive(Deserialize)]
pub struct Dump {
    /// `None` where the library does not tell.
    pub sequence: Option<u64>,
    pub families: Contents,
}
