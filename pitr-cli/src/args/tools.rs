//! Options of the remaining commands: check, inspect, demo, errors, completions.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, ValueEnum};

use super::{
    common::{OptionalArchiveArgs, OptionalDatabaseArgs},
    values,
};

/// `pitr check`.
#[derive(Args, Clone, Debug)]
#[command(
    group(ArgGroup::new("checked").required(true).multiple(true).args(["db", "archive"])),
    long_about = "Say whether archiving will work here.\n\n\
        For a store: writes, reads back, lists and deletes probe objects, and races two exclusive creations of one \
        name against each other. For a database: reads its settings from its files and says in plain words what \
        works, what is at risk and how to fix it, how long a restore of the log would take now, and what the \
        requests to the store will amount to. Either may be left out. Exit code 1 when something would not work.",
    after_help = "Examples:\n  \
        pitr check --db /var/lib/app/db --archive s3://bucket/app\n  \
        pitr check --archive 'azblob://container/app?account_name=NAME'\n  \
        pitr check --db /var/lib/app/db --interval 10s --json | jq '.findings[] | select(.severity != \"ok\")'"
)]
pub struct CheckArgs {
    /// The database.
    #[command(flatten)]
    pub database: OptionalDatabaseArgs,
    /// The archive.
    #[command(flatten)]
    pub archive: OptionalArchiveArgs,
    /// The interval that `pitr run` will use, for the number of requests
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::positive_duration)]
    pub interval: Duration,
}

/// `pitr inspect`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Print RocksDB's files and the archive's segments, decoded.\n\n\
        Reads one file, no database and no library needed: a WAL (like `ldb dump_wal`), a MANIFEST (like `ldb \
        manifest_dump`), an OPTIONS file, or a segment of an archive. Bytes of keys and values that are not plain \
        text are shown as \\xNN. A damaged file is printed as far as it can be read, then the \
        error with its place, and the exit code is 1.",
    after_help = "Examples:\n  \
        pitr inspect wal /var/lib/app/db/000042.log\n  \
        pitr inspect manifest /var/lib/app/db/MANIFEST-000005 --json | jq -c 'select(.adds)'\n  \
        pitr inspect options /var/lib/app/db/OPTIONS-000007\n  \
        pitr inspect segment /var/backups/app/segments/0000000001/00000000000000000000.seg"
)]
pub struct InspectArgs {
    /// What the file is
    #[arg(value_enum)]
    pub kind: InspectKind,
    /// The file
    pub file: PathBuf,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Show values in full instead of their beginnings
    #[arg(long)]
    pub full: bool,
    /// For a segment: file with the archive's key
    #[arg(long, env = "PITR_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// What can be inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InspectKind {
    /// RocksDB's write-ahead log (000042.log)
    Wal,
    /// RocksDB's MANIFEST
    Manifest,
    /// RocksDB's OPTIONS file
    Options,
    /// A segment of an archive
    Segment,
}

/// `pitr demo`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Play the whole story on a small real database in a temporary directory.\n\n\
        A process writes into RocksDB while `pitr run` archives it; a tag is set; then everything is deleted by \
        mistake, the process is killed with -9 and its directory removed. The database is restored to the tag, to a \
        time and to the end, and each copy is compared, key by key, with what the writer noted. Needs no network, \
        takes a few seconds and shows every command that it runs.",
    after_help = "Examples:\n  \
        pitr demo\n  \
        pitr demo --keep          leave the directory for a look around\n  \
        pitr demo --json | jq .proofs"
)]
pub struct DemoArgs {
    /// Keep the temporary directory
    #[arg(long)]
    pub keep: bool,
    /// Make the temporary directory in this one
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The writing process of the demo
    #[arg(long, hide = true, value_name = "DIR", conflicts_with_all = ["keep", "dir"])]
    pub writer: Option<PathBuf>,
}

/// `pitr errors`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "List every error code, what it means and what to do.\n\n\
        Every error that pitr reports carries one of these codes; they are stable, so that scripts and alerts can \
        act on them.",
    after_help = "Examples:\n  \
        pitr errors\n  \
        pitr errors target.behind-barrier\n  \
        pitr errors --json | jq -r '.errors[] | [.code, .exit] | @tsv'"
)]
pub struct ErrorsArgs {
    /// Only this code, or those that begin so
    pub code: Option<String>,
}

/// `pitr completions`.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Shells with completion scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash
    Bash,
    /// Elvish
    Elvish,
    /// fish
    Fish,
    /// PowerShell
    Powershell,
    /// Z shell
    Zsh,
}
