//! What was typed, as types.
//!
//! Owns: every option's name, environment variable, default and help text. Parsing has no effects and touches nothing:
//! what the values mean on this machine is resolved in `context` and in the commands.

pub mod archiving;
pub mod common;
pub mod drilling;
pub mod keeping;
pub mod looking;
pub mod restoring;
pub mod tools;
pub mod values;

use std::path::Path;

use clap::{Parser, Subcommand};

use self::{
    archiving::{BaseArgs, ConfigArgs, FlushArgs, ReloadArgs, RunArgs, StatusArgs, TagAction, TagArgs},
    common::GlobalArgs,
    drilling::DrillArgs,
    keeping::PruneArgs,
    looking::{ListArgs, LogArgs},
    restoring::{PlanArgs, RestoreArgs, RollbackArgs, SettleArgs, VerifyArgs},
    tools::{CheckArgs, CompletionsArgs, DemoArgs, ErrorsArgs, InspectArgs},
};

/// Point-in-time recovery for RocksDB: archives a live database's write-ahead log and rebuilds the database as it was.
#[derive(Debug, Parser)]
#[command(
    name = "pitr",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    long_about = "Point-in-time recovery for RocksDB.\n\n\
        `pitr run` stays beside a running server, reads its files (it never opens or changes the database) and \
        archives every write into a directory or an object store. From that archive, `pitr restore` rebuilds the \
        database as it was at any record, sequence number, time or named tag.",
    after_help = "Start here:\n  \
        pitr demo                                              see the whole story in a few seconds, in a temporary directory\n  \
        pitr check --db /var/lib/app/db --archive s3://bucket/db   will it work here, and what will it cost?\n  \
        pitr run   --db /var/lib/app/db --archive s3://bucket/db   archive, until stopped\n  \
        pitr restore --to-time '10 minutes ago' --archive s3://bucket/db --into /var/lib/app/db-restored\n\n\
        Exit codes: 0 done, 1 a check found damage, 2 usage or configuration, 3 target cannot be reached,\n  \
        4 store unavailable, 5 integrity or key, 6 another writer, 70 internal, 130 interrupted.\n\
        `pitr errors` lists every error code with what to do about it."
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    // `about` instead of documentation comments: those would also replace the long texts of the arguments' types.
    #[command(about = "Archive a live database until stopped")]
    Run(RunArgs),
    #[command(about = "Check or print the configuration of pitr run --config, or describe its keys")]
    Config(ConfigArgs),
    #[command(about = "Make a running pitr run --config read its configuration again")]
    Reload(ReloadArgs),
    #[command(about = "Take a base (a full copy to restore from) now")]
    Base(BaseArgs),
    #[command(about = "Name the present moment, list the names, or delete one")]
    Tag(TagArgs),
    #[command(about = "Make everything written so far durable in the archive, now")]
    Flush(FlushArgs),
    #[command(about = "Show what can be restored, and how far behind the archive is")]
    Status(StatusArgs),
    #[command(about = "List what an archive holds: bases, segments, tags, barriers, timelines, drills")]
    List(ListArgs),
    #[command(about = "Show the archived writes, decoded, to find the moment before a mistake")]
    Log(LogArgs),
    #[command(about = "Show what a restore would do and exactly where it would arrive; changes nothing")]
    Plan(PlanArgs),
    #[command(about = "Rebuild the database as it was at a record, a sequence number, a time or a tag")]
    Restore(RestoreArgs),
    #[command(about = "Put back the database that a restore in place set aside")]
    Rollback(RollbackArgs),
    #[command(about = "End restores in place: delete what they set aside, or keep it for good")]
    Settle(SettleArgs),
    #[command(about = "Restore something into a scratch directory, to see that it works and how long it takes")]
    Drill(DrillArgs),
    #[command(about = "Prove that an archive is whole: every hash, no gap")]
    Verify(VerifyArgs),
    #[command(about = "Delete what the retention policy does not keep")]
    Prune(PruneArgs),
    #[command(about = "Say whether archiving will work here: the store, the database's settings, the cost")]
    Check(CheckArgs),
    #[command(about = "Print RocksDB's files and the archive's segments, decoded")]
    Inspect(InspectArgs),
    #[command(about = "Play the whole story on a small real database in a temporary directory")]
    Demo(DemoArgs),
    #[command(about = "List every error code, what it means and what to do")]
    Errors(ErrorsArgs),
    #[command(about = "Print a completion script for a shell")]
    #[command(hide = true)]
    Completions(CompletionsArgs),
}

impl Command {
    /// Threads that drive network and timers. The archiver stays small; restores take what the machine has.
    pub fn workers(&self) -> usize {
        match self {
            Self::Run(_) | Self::Base(_) | Self::Tag(_) | Self::Flush(_) | Self::Demo(_) => 2,
            _ => std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 16)),
        }
    }

    /// Whether the command handles interrupts itself, because it ends in an orderly way.
    pub fn ends_itself(&self) -> bool {
        match self {
            Self::Run(_) => true,
            // What holds an application's writes is told that they go on, whatever happens.
            Self::Tag(TagArgs { action: TagAction::Create(args) }) => args.group.is_some(),
            _ => false,
        }
    }

    /// The configuration of a service, if one was named.
    pub fn configuration(&self) -> Option<&Path> {
        match self {
            Self::Run(args) => args.config.as_deref(),
            _ => None,
        }
    }

    /// Whether the command's own log is worth showing by default.
    pub fn is_service(&self) -> bool {
        matches!(self, Self::Run(args) if !args.once)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_by_examples() {
        fn walk(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
                let path = format!("{path} {}", sub.get_name());
                assert!(sub.get_about().is_some(), "{path} has no description");
                assert!(
                    path.starts_with("pitr tag ")
                        || sub.get_long_about().is_some_and(|text| text.to_string().contains("\n\n")),
                    "{path} explains nothing"
                );
                let examples = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                let count = examples.lines().filter(|line| line.trim_start().starts_with("pitr ")).count();
                assert!(sub.has_subcommands() || (2..=5).contains(&count), "{path} shows {count} examples");
                walk(sub, &path);
            }
        }
        walk(&Cli::command(), "pitr");
    }
}
