//! Options of the commands that look into an archive: list, log.

use clap::{Args, ValueEnum};
use pitr_archive::ids::TimelineId;

use super::{common::ArchiveArgs, values};

/// `pitr list`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "List what an archive holds.\n\n\
        Timelines (histories; a restored database that goes on begins a new one), bases (copies that restores start \
        from), tags, barriers (places that no restore can cross, each with its reason), summarised the segments (the \
        archived writes), and reports of drills (`pitr drill`).",
    after_help = "Examples:\n  \
        pitr list --archive file:/var/backups/app\n  \
        pitr list bases tags --archive file:/var/backups/app\n  \
        pitr list --segments --archive s3://bucket/app --timeline 1"
)]
pub struct ListArgs {
    /// What to list [default: everything, segments summarised]
    #[arg(value_enum, value_name = "WHAT")]
    pub what: Vec<Listing>,
    /// List every segment instead of a summary
    #[arg(long)]
    pub segments: bool,
    /// Only this timeline
    #[arg(long, value_name = "N")]
    pub timeline: Option<TimelineId>,
    /// The archive.
    #[command(flatten)]
    pub archive: ArchiveArgs,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// Histories
    Timelines,
    /// Copies that restores start from
    Bases,
    /// Named positions
    Tags,
    /// Places that no restore can cross
    Barriers,
    /// The archived writes
    Segments,
    /// Reports of drills, the newest hundred
    Drills,
}

/// `pitr log`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Show the archived writes, decoded, to find the moment before a mistake.\n\n\
        One line per operation: record number (give it to --to-record, minus one, to restore to just before it), \
        time, sequence number, column family, operation, key and value. The time is when the archiver first saw the \
        record; with < before it, it had not looked for a while, and the record can be much older. --from and --to take a record number, a time \
        ('2026-11-20T13:33:00Z', '10 minutes ago', @1795527180) or tag:NAME. Bytes that are not plain text are \
        shown as \\xNN (and a backslash as \\\\), which --key and --prefix take, too, \
        as they take 0x and hexadecimal digits.",
    after_help = "Examples:\n  \
        pitr log --archive file:/var/backups/app --from '10 minutes ago'\n  \
        pitr log --archive file:/var/backups/app --cf accounts --key alice        the history of one key\n  \
        pitr log --archive file:/var/backups/app --prefix user: --from tag:before-migration --limit 20\n  \
        pitr log --archive file:/var/backups/app --from 4000 --to 4711 --json"
)]
pub struct LogArgs {
    /// The archive.
    #[command(flatten)]
    pub archive: ArchiveArgs,
    /// Begin here: a record number, a time or tag:NAME [default: the start of the timeline]
    #[arg(long, value_name = "WHERE", allow_hyphen_values = false)]
    pub from: Option<String>,
    /// End here, included: a record number, a time or tag:NAME [default: the end]
    #[arg(long, value_name = "WHERE")]
    pub to: Option<String>,
    /// Only this column family
    #[arg(long, value_name = "NAME")]
    pub cf: Option<String>,
    /// Only this key
    #[arg(long, value_name = "KEY", value_parser = values::key, conflicts_with = "prefix")]
    pub key: Option<values::KeyBytes>,
    /// Only keys that begin so
    #[arg(long, value_name = "PREFIX", value_parser = values::key)]
    pub prefix: Option<values::KeyBytes>,
    /// At most this many operations
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// On this timeline [default: the one written last]
    #[arg(long, value_name = "N")]
    pub timeline: Option<TimelineId>,
    /// Show values in full instead of their beginnings
    #[arg(long)]
    pub full: bool,
}
