//! The binary under test, run as a person would run it.
//!
//! Owns: starting, stopping and asking `pitr`. Every wait is bounded; every process is ended by its own handle.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long anything may take before the test fails instead of hanging. No assertion depends on it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `ask` has an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < give_up, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Asks for so long.
pub fn within<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let give_up = Instant::now() + patience;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() >= give_up {
            return answer;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Kills with the signal that nobody can catch, and waits for the end.
pub fn kill_9(child: &mut Child) {
    child.kill().expect("killing a process of our own");
    child.wait().expect("its end");
}

/// One archive, and how to reach it.
pub struct Pitr {
    pub url: String,
    pub variables: Vec<(&'static str, &'static str)>,
    /// Logs of the commands.
    pub directory: PathBuf,
}

impl Pitr {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitr"));
        // Commands that need no archive take no --archive.
        command.args(arguments).env("PITR_ARCHIVE", &self.url);
        command.envs(self.variables.iter().copied()).stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).arg("--json").output().expect("running pitr")
    }

    /// The answer of a command that must succeed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.output(arguments);
        assert!(output.status.success(), "pitr {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("pitr {arguments:?} printed no JSON ({error}): {}", String::from_utf8_lossy(&output.stdout))
        })
    }

    /// The answer of a command, if it succeeds.
    pub fn try_json(&self, arguments: &[&str]) -> Option<Value> {
        let output = self.output(arguments);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// Whether a command succeeds.
    pub fn does(&self, arguments: &[&str]) -> bool {
        self.output(arguments).status.success()
    }

    /// Whether a restore to the target is possible.
    pub fn accepts(&self, target: &[&str]) -> bool {
        self.does(&[&["plan"], target].concat())
    }

    /// Starts `pitr run` on a live database and waits until something can be restored.
    pub fn start(&self, database: &Path) -> Archiver {
        let mut archiver = self.begun(self.command(&["run", "--db", text(database), "--interval", "100ms"]));
        self.wait_for_a_base(&mut archiver, database);
        archiver
    }

    /// Starts `pitr run` by a configuration, and waits for nothing.
    pub fn serve(&self, configuration: &Path) -> Archiver {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitr"));
        command.args(["run", "--config", text(configuration)]).stdin(Stdio::null());
        self.begun(command)
    }

    fn begun(&self, mut command: Command) -> Archiver {
        let log = std::fs::File::create(self.directory.join("archiver.log")).expect("a log");
        let child = command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("starting pitr run");
        Archiver { child, log: self.directory.join("archiver.log") }
    }

    /// Waits until something can be restored, and the archiver answers.
    pub fn wait_for_a_base(&self, archiver: &mut Archiver, database: &Path) {
        until("the first base", || {
            if let Some(status) = archiver.child.try_wait().expect("its state") {
                panic!("pitr run ended with {status}:\n{}", archiver.log());
            }
            self.output(&["plan", "--to-latest"]).status.success().then_some(())
        });
        // Until it answers, others would do their work themselves, and lock it out.
        until("the archiver's answer", || {
            self.json(&["status", "--db", text(database)])["archiver"].is_object().then_some(())
        });
    }

    /// Restores, and returns what the restore says it reached; the plan beforehand must have said the same.
    pub fn restore(&self, target: &[&str], into: &Path) -> Value {
        let plan = self.json(&[&["plan"], target].concat());
        let done = self.json(&[&["restore"], target, &["--into", text(into)]].concat());
        assert_eq!(plan["position"], done["position"], "the plan and the restore for {target:?} disagree");
        assert!(done["position"]["record"].is_u64(), "a position has a record number: {done}");
        done
    }
}

/// `pitr run`, beside a live database.
pub struct Archiver {
    child: Child,
    log: PathBuf,
}

impl Archiver {
    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it in order: the rest is shipped, the exit code is 0.
    pub fn stop(mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("SIGTERM");
        let status = until("the end of pitr run", || self.child.try_wait().expect("its state"));
        assert!(status.success(), "pitr run ended with {status}:\n{}", self.log());
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        // Only a failing test comes here with the process alive.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            eprintln!("the archiver's log:\n{}", self.log());
        }
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}
