//! `pitr`: the command line.
//!
//! - [`args`]: what was typed, as types; no effects.
//! - [`context`]: everything resolved from it, once: clock, time zone, output mode, store, archive, keys.
//! - [`cmd`]: one file per verb.
//! - [`chronicle`]: what of an archive has a place in time.
//! - [`output`]: tables, pictures, JSON (its module documentation lists every command's fields), progress, errors.
//! - [`settings`]: the configuration file of `pitr run --config`.
//! - [`hook`]: running a command of the configuration.
//! - [`interrupt`]: what Ctrl-C and SIGTERM mean at which moment.
//! - [`logging`]: the log on standard error.
//! - [`web`]: a service seen from outside: metrics, health, a page for people.
//! - [`systemd`]: what the service manager is told.
//! - [`memory`]: what the allocator keeps. [`program`]: somebody else's program, run to its end.
//!
//! This file is one match over the commands, and how the process exits.

#![deny(unsafe_code)]
#![warn(clippy::expect_used)]

mod alone;
mod args;
mod chronicle;
mod cmd;
mod context;
mod hook;
mod interrupt;
mod logging;
mod memory;
mod output;
mod program;
mod settings;
mod systemd;
mod web;

use std::{process::ExitCode, time::Duration};

use args::{Cli, Command};
use clap::Parser;
use context::Context;
use output::Verdict;
use pitr_archive::{Code, Error, Result};
use settings::limits::{Rates, ResourceLimits};

/// How long the end waits for threads that are in a system call.
const LAST_THREADS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    memory::give_back_large_buffers();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return output::error::usage(&e),
    };
    let json = cli.global.json;
    let outcome = start(cli);
    match outcome {
        Ok(Verdict::Done) => ExitCode::SUCCESS,
        Ok(Verdict::Damage) => ExitCode::from(pitr_archive::code::Exit::Damage.status()),
        Err(e) if output::is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => output::error::report(&e, json),
    }
}

/// Resolves, runs and waits; an interrupt ends every command but those that end themselves in order.
fn start(cli: Cli) -> Result<Verdict> {
    let mut context = Context::resolve(&cli)?;
    let limits = match &cli.command {
        Command::Run(args) => {
            let limits = cmd::run::resources(args)?;
            // Before there are threads: they inherit it. Whoever restores is in a hurry.
            limits.be_nice()?;
            memory::keep_few_arenas();
            limits
        }
        Command::Restore(_) | Command::Drill(_) => {
            memory::keep_large_buffers();
            ResourceLimits::default()
        }
        _ => ResourceLimits::default(),
    };
    context.rates = Rates::new(limits);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().worker_threads(limits.threads.unwrap_or(cli.command.workers()));
    if let Some(threads) = limits.threads {
        // One more, so that what takes long does not hold up everything else.
        runtime.max_blocking_threads(threads + 1);
    }
    let runtime = runtime.build().map_err(|e| Error::new(Code::Internal, "starting the runtime").because(e))?;
    let outcome = runtime.block_on(async {
        if cli.command.ends_itself() {
            return run(&context, &cli.command).await;
        }
        interrupt::or_interrupted(run(&context, &cli.command), &context.accomplished).await
    });
    // Connections that belong to tasks are closed (of SSH, those are processes of their own), but threads that are still in
    // a system call must not hold up the exit after an interrupt for long.
    runtime.shutdown_timeout(LAST_THREADS);
    outcome
}

async fn run(context: &Context, command: &Command) -> Result<Verdict> {
    match command {
        Command::Run(args) => cmd::run::run(context, args).await,
        Command::Config(args) => cmd::config::run(context, args),
        Command::Reload(args) => cmd::reload::run(context, args).await,
        Command::Base(args) => cmd::base::run(context, args).await,
        Command::Flush(args) => cmd::flush::run(context, args).await,
        Command::Tag(args) => cmd::tag::run(context, args).await,
        Command::Status(args) => cmd::status::run(context, args).await,
        Command::List(args) => cmd::list::run(context, args).await,
        Command::Log(args) => cmd::log::run(context, args).await,
        Command::Plan(args) => cmd::plan::run(context, args).await,
        Command::Restore(args) => cmd::restore::run(context, args).await,
        Command::Rollback(args) => cmd::swap::rollback(context, args),
        Command::Settle(args) => cmd::swap::settle(context, args),
        Command::Drill(args) => cmd::drill::run(context, args).await,
        Command::Verify(args) => cmd::verify::run(context, args).await,
        Command::Prune(args) => cmd::prune::run(context, args).await,
        Command::Check(args) => cmd::check::run(context, args).await,
        Command::Inspect(args) => cmd::inspect::run(context, args).await,
        Command::Demo(args) => cmd::demo::run(context, args).await,
        Command::Errors(args) => cmd::errors::run(context, args),
        Command::Completions(args) => cmd::completions::run(context, args),
    }
}
