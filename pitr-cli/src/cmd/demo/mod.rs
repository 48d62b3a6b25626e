//! `pitr demo`: the whole story on a small real database.
//!
//! Owns: the story's order and what is told of it. Every step is the real thing: the writer is a process of its own that
//! is killed with -9, the archiver is `pitr run`, and every command shown is run as shown. Refuses: the network, and
//! anything outside its own temporary directory.

mod journal;
mod proof;
mod writer;

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use pitr_archive::{Code, Error, Result, clock::Micros, error};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use self::{
    journal::Journal,
    proof::{Proof, prove},
};
use crate::{
    args::tools::DemoArgs,
    context::Context,
    output::{Output, Verdict, text},
};

/// How long the demo waits for anything before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const TAG: &str = "before-cleanup";

/// Plays the writer's part or the whole story.
pub async fn run(context: &Context, args: &DemoArgs) -> Result<Verdict> {
    if let Some(dir) = args.writer.clone() {
        let clock = context.clock.clone();
        return tokio::task::spawn_blocking(move || writer::run(&dir, &*clock))
            .await
            .map_err(|e| Error::new(Code::Internal, "writing").because(e))?
            .map(|()| Verdict::Done);
    }
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let stage = Stage::set(&parent, args.keep)?;
    let mut story = Story::new(context, stage.path.clone())?;
    let told = story.tell().await?;
    if context.output.is_json() {
        context.output.json(&told)?;
    }
    Ok(Verdict::Done)
}

/// The temporary directory; removed at the end unless it shall be kept.
struct Stage {
    path: PathBuf,
    keep: bool,
}

impl Stage {
    fn set(parent: &Path, keep: bool) -> Result<Self> {
        let path = parent.join(format!("pitr-demo-{}", std::process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            // What a demo of an earlier life with our process id left behind is not ours to touch.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                return Err(Error::new(Code::DestinationNotEmpty, "making the demo's directory").on(path.display()));
            }
            Err(e) => return Err(error::io("making the demo's directory", &path, e)),
        }
        Ok(Self { path, keep })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.keep
            && let Err(e) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(directory = %self.path.display(), error = %e, "the demo's directory could not be removed");
        }
    }
}

/// A process that ends with its value.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::new(Code::Internal, "naming a process"))?;
        kill_process(pid, signal).map_err(|e| Error::new(Code::Internal, "signalling a process").because(e))
    }

    /// Waits for its end, bounded; gives the exit code, or `None` if a signal ended it.
    async fn ended(&mut self) -> Result<Option<i32>> {
        for _ in 0..PATIENCE.as_millis() / 10 {
            if let Some(status) =
                self.0.try_wait().map_err(|e| Error::new(Code::Internal, "waiting for a process").because(e))?
            {
                return Ok(status.code());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Error::new(Code::Internal, "waiting for a process").with("patience", text::duration(PATIENCE)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended is fine: there is nothing to kill then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Told {
    directory: PathBuf,
    steps: Vec<Step>,
    proofs: Vec<Proof>,
    milliseconds: u64,
}

/// A command that was run.
#[derive(Debug, Serialize)]
struct Step {
    command: String,
    exit: Option<i32>,
    milliseconds: u64,
}

struct Story<'a> {
    context: &'a Context,
    out: Output,
    dir: PathBuf,
    exe: PathBuf,
    began: Micros,
    steps: Vec<Step>,
}

impl<'a> Story<'a> {
    fn new(context: &'a Context, dir: PathBuf) -> Result<Self> {
        let exe = std::env::current_exe().map_err(|e| Error::new(Code::Internal, "finding this program").because(e))?;
        Ok(Self { context, out: context.output, dir, exe, began: context.clock.now(), steps: Vec::new() })
    }

    async fn tell(&mut self) -> Result<Told> {
        self.say(&format!(
            "Everything below happens in {}; nothing else is touched, and no network is used.",
            self.dir.display()
        ))?;

        self.scene("1. A program writes into a RocksDB database: accounts and orders of a small shop.")?;
        let mut shop = self.start(&["demo", "--writer", "."], Stdio::piped(), "writer.log", false)?;
        self.notes_reach(50).await?;

        self.scene("2. The archiver goes beside it. The program is not touched, not restarted, and does not know.")?;
        let mut archiver = self.start(
            &["run", "--db", "db", "--archive", "file:archive", "--interval", "200ms"],
            Stdio::null(),
            "archiver.log",
            true,
        )?;
        self.archiver_answers().await?;
        self.notes_reach(900).await?;

        self.scene("3. Before something risky, the moment gets a name. The command returns when that moment is safe.")?;
        let tagged_after = self.journal()?.writes().iter().filter(|w| w.after.is_some()).count() as u64;
        self.pitr(&["tag", "create", TAG, "--db", "db", "--note", "just in case"]).await?;
        tokio::time::sleep(Duration::from_millis(400)).await;
        let moment = self.context.clock.now();
        tokio::time::sleep(Duration::from_millis(400)).await;

        self.scene("4. The risky thing goes wrong: every account is deleted, in the middle of the daily business.")?;
        let before = self.journal()?.writes().len() as u64;
        let orders = shop.0.stdin.as_mut().ok_or_else(|| Error::new(Code::Internal, "giving an order"))?;
        orders.write_all(b"cleanup\n").map_err(|e| Error::new(Code::Internal, "giving an order").because(e))?;
        self.notes_reach(before + 300).await?;
        self.pitr(&[
            "log",
            "--archive",
            "file:archive",
            "--from",
            &format!("@{}", seconds(moment)),
            "--cf",
            "accounts",
            "--limit",
            "3",
        ])
        .await?;

        self.scene("5. It gets worse: the program is killed with -9, and its directory is deleted.")?;
        shop.signal(Signal::KILL)?;
        shop.ended().await?;
        archiver.signal(Signal::TERM)?;
        let exit = archiver.ended().await?;
        self.say(&self.out.faint(&format!(
            "  archiver: told to end by SIGTERM, shipped the rest, exit code {}",
            exit.unwrap_or(-1)
        )))?;
        if exit != Some(0) {
            return Err(self.child_failed("pitr run", "archiver.log"));
        }
        let db = self.dir.join("db");
        fs::remove_dir_all(&db).map_err(|e| error::io("removing", &db, e))?;
        self.say("  $ rm -rf db")?;
        let journal = self.journal()?;
        self.pitr(&["status", "--archive", "file:archive"]).await?;

        self.scene("6. Back to the tag.")?;
        let mut proofs = Vec::new();
        let (proof, _) = self.restore_and_prove(&["--to-tag", TAG], "at-the-tag", &journal).await?;
        self.claim(proof.write >= tagged_after, "the tag holds everything written before it was asked for")?;
        proofs.push(proof);

        self.scene("7. Back to a time: between the tag and the mistake.")?;
        let (proof, (began, _)) =
            self.restore_and_prove(&["--to-time", &format!("@{}", seconds(moment))], "at-the-time", &journal).await?;
        self.claim(began <= moment, "nothing begun after that time is in it")?;
        self.claim(
            proof.families.iter().any(|(name, keys)| name == "accounts" && *keys > 0),
            "the accounts are there",
        )?;
        proofs.push(proof);

        self.scene("8. And the latest state: the very last write before the kill, mistake included.")?;
        let (proof, _) = self.restore_and_prove(&["--to-latest"], "at-the-end", &journal).await?;
        let last_noted = journal.writes().iter().filter(|w| w.after.is_some()).map(|w| w.number).max().unwrap_or(0);
        self.claim(proof.write >= last_noted, "not one write that had returned is missing")?;
        proofs.push(proof);

        let milliseconds = self.elapsed(self.began);
        self.say("")?;
        self.say(&self.out.good(&format!(
            "Proved: {} restored copies, {} keys compared, all equal. It took {}.",
            proofs.len(),
            proofs.iter().map(|p| p.keys).sum::<u64>(),
            text::duration(Duration::from_millis(milliseconds))
        )))?;
        Ok(Told { directory: self.dir.clone(), steps: std::mem::take(&mut self.steps), proofs, milliseconds })
    }

    /// Restores and compares; gives the proof and when the last write in it began and ended.
    async fn restore_and_prove(
        &mut self,
        target: &[&str],
        into: &str,
        journal: &Journal,
    ) -> Result<(Proof, (Micros, Option<Micros>))> {
        let mut args = vec!["restore"];
        args.extend(target);
        args.extend(["--archive", "file:archive", "--into", into]);
        self.pitr(&args).await?;
        let dir = self.dir.join(into);
        let (proof, write) = prove(&target.join(" "), &dir, journal)?;
        let families: Vec<_> = proof.families.iter().map(|(name, n)| format!("{name} {n}")).collect();
        self.say(&format!(
            "  {} opened with RocksDB: its contents equal the writer's own notes after write {} of {}: {} keys compared ({})",
            self.out.good("proved:"),
            proof.write,
            proof.writes,
            proof.keys,
            families.join(", ")
        ))?;
        Ok((proof, (write.before, write.after)))
    }

    fn claim(&self, holds: bool, what: &str) -> Result<()> {
        if holds {
            return self.say(&format!("  {} {what}", self.out.good("proved:")));
        }
        Err(Error::new(Code::VerifyFailed, "proving the demo's restore").with("does not hold", what))
    }

    /// Runs a command as shown, shows what it prints, and fails if it fails.
    async fn pitr(&mut self, args: &[&str]) -> Result<()> {
        let command = shown(args);
        self.say(&format!("  $ {command}"))?;
        let began = self.context.clock.now();
        let mut child = self.command(args);
        child.stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || child.output())
            .await
            .map_err(|e| Error::new(Code::Internal, "waiting for a command").because(e))?
            .map_err(|e| Error::new(Code::Internal, "running a command").on(&command).because(e))?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            self.say(&self.out.faint(&format!("    {line}")))?;
        }
        let milliseconds = self.elapsed(began);
        self.steps.push(Step { command: command.clone(), exit: output.status.code(), milliseconds });
        if output.status.success() {
            return Ok(());
        }
        Err(Error::new(Code::Internal, "running a command of the demo")
            .on(command)
            .with("exit", output.status)
            .because(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    /// Starts a process that goes on; its standard error goes to a file in the demo's directory.
    fn start(&mut self, args: &[&str], stdin: Stdio, log: &str, show: bool) -> Result<Running> {
        let path = self.dir.join(log);
        let file = fs::File::create_new(&path).map_err(|e| error::io("creating", &path, e))?;
        if show {
            self.say(&format!("  $ {} &", shown(args)))?;
            self.steps.push(Step { command: shown(args), exit: None, milliseconds: 0 });
        }
        let child = self.command(args).stdin(stdin).stdout(Stdio::null()).stderr(file).spawn();
        child.map(Running).map_err(|e| Error::new(Code::Internal, "starting a process").on(shown(args)).because(e))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command.args(args).current_dir(&self.dir);
        // Nothing from outside may reach another database or archive.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PITR_")) {
            command.env_remove(name);
        }
        command
    }

    async fn notes_reach(&self, writes: u64) -> Result<()> {
        for _ in 0..PATIENCE.as_millis() / 20 {
            match self.journal() {
                Ok(journal) if journal.writes().len() as u64 >= writes => return Ok(()),
                Err(e) if e.code() != Code::FileNotFound => return Err(e),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        Err(self.child_failed("the writer", "writer.log"))
    }

    async fn archiver_answers(&self) -> Result<()> {
        let state = self.dir.join("db.pitr");
        for _ in 0..PATIENCE.as_millis() / 20 {
            use pitr_archiver::control::{Answer, Request, ask};
            if let Some(Answer::Status(status)) = ask(&state, &Request::Status).await?
                && status.last_base.is_some()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(self.child_failed("pitr run", "archiver.log"))
    }

    fn journal(&self) -> Result<Journal> {
        Journal::read(&self.dir.join(journal::FILE))
    }

    fn child_failed(&self, who: &str, log: &str) -> Error {
        let words = fs::read_to_string(self.dir.join(log)).unwrap_or_else(|e| e.to_string());
        Error::new(Code::Internal, "playing the demo").on(who).because(words.trim().to_owned())
    }

    fn scene(&self, text: &str) -> Result<()> {
        self.say("")?;
        self.say(&self.out.heading(text))
    }

    fn say(&self, text: &str) -> Result<()> {
        if self.out.is_json() { Ok(()) } else { self.out.line(text) }
    }

    fn elapsed(&self, since: Micros) -> u64 {
        u64::try_from((self.context.clock.now().0 - since.0) / 1000).unwrap_or(0)
    }
}

/// Seconds since 1970 with all digits, as `@unix` times are typed.
fn seconds(at: Micros) -> String {
    format!("{}.{:06}", at.0.div_euclid(1_000_000), at.0.rem_euclid(1_000_000))
}

/// A command as a person would type it.
fn shown(args: &[&str]) -> String {
    let quoted = args.iter().map(|arg| if arg.contains(' ') { format!("'{arg}'") } else { (*arg).to_owned() });
    format!("pitr {}", quoted.collect::<Vec<_>>().join(" "))
}
