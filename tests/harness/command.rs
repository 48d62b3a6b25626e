//! The real program, started as a person starts it.
//!
//! Owns: finding it, its arguments, waiting for it with a limit, and what is read of its answers.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// A command that takes longer than this hangs.
pub const LIMIT: Duration = Duration::from_secs(120);

/// `pitr ARGS`, with nothing in its environment that is not given here.
pub fn pitr<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pitr"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PITR_") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// The same command in a network namespace of its own, which is another machine to what locks this one. Loudly itself where
/// none can be made.
pub fn elsewhere(here: Command) -> Command {
    let ways: [&[&str]; 2] = [&["--net"], &["--map-root-user", "--net"]];
    let works = |way: &&&[&str]| {
        let tried = Command::new("unshare").args(**way).arg("true").stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let Some(way) = ways.iter().find(works) else {
        println!("SKIPPED: no network namespace can be made here (unshare --net): both run on one machine");
        return here;
    };
    let mut command = Command::new("unshare");
    command.args(*way).arg("--").arg(here.get_program()).args(here.get_args()).stdin(Stdio::null());
    for (name, value) in here.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// `file:` and the path.
pub fn url(path: &Path) -> String {
    format!("file:{}", text(path))
}

/// Runs it to its end, with its output.
pub fn finish(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starting pitr");
    let id = child.id();
    let (done, waiting) = std::sync::mpsc::channel();
    // A command that hangs must not hang the tests: after the limit it is killed, and its output shown.
    let watchdog = std::thread::spawn(move || {
        if waiting.recv_timeout(LIMIT).is_err() {
            kill(id);
        }
    });
    let output = child.wait_with_output().expect("waiting for pitr");
    let _ = done.send(());
    watchdog.join().expect("the watchdog");
    output
}

/// Runs it to its end, which must be a good one.
pub fn succeed(command: &mut Command) -> Output {
    let output = finish(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// How many bases an archive has; none while there is no archive.
pub fn bases(archive: &str) -> usize {
    let output = finish(&mut pitr(["list", "--json", "--archive", archive]));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    json["bases"].as_array().map_or(0, Vec::len)
}

/// Waits for a child, at most the limit.
pub fn wait(child: &mut Child) -> Option<std::process::ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        if let Some(status) = child.try_wait().expect("waiting for pitr") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

/// SIGTERM.
pub fn terminate(child: &Child) {
    signal(child, rustix::process::Signal::TERM);
}

fn kill(id: u32) {
    send(id, rustix::process::Signal::KILL);
}

/// Any signal.
pub fn signal(child: &Child, signal: rustix::process::Signal) {
    send(child.id(), signal);
}

fn send(id: u32, signal: rustix::process::Signal) {
    let id = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    // It may have ended by itself.
    let _ = rustix::process::kill_process(id, signal);
}
