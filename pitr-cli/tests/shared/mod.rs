//! What the tests of a service share: the built program, its answers, and databases for it.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use rocksdb::{DB, Options};
use serde_json::Value;

/// What the program reads of its environment.
const READ: [&str; 8] = [
    "PITR_DB",
    "PITR_ARCHIVE",
    "PITR_STATE",
    "PITR_KEY_FILE",
    "PITR_LOG",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];

/// The program with nothing of the caller's environment that it reads.
pub fn pitr(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pitr"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("NO_COLOR", "1");
    for name in READ {
        command.env_remove(name);
    }
    command
}

/// Runs it to its end.
pub fn run(args: &[&str]) -> Output {
    pitr(args).output().expect("the program starts")
}

/// What it printed, if it ended well.
pub fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Asks until there is an answer, for longer than the program itself ever waits between two attempts.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2400 {
        if let Some(answer) = ask() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited in vain: {what}");
}

/// A path below `dir`, as text.
pub fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

/// A new database with one record.
pub fn database(dir: &Path, name: &str) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, dir.join(name)).expect("the database opens");
    db.put("first", name).expect("a write");
    db
}
