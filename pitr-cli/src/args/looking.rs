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
        archived writes), and reports of drills (`pitr drill`).\n\n\
        `pitr list --timeline` (without a number), or `pitr list picture`, draws all that over time instead: for each \
        timeline what can be restored, its bases, how much was written, its tags and barriers. It is as wide as the \
        terminal, and drawn in ASCII where the locale (LC_ALL, LC_CTYPE, LANG) is not UTF-8. With --json the same \
        facts are fields.",
    after_help = "Examples:\n  \
        pitr list --archive file:/var/backups/app\n  \
        pitr list bases tags --archive file:/var/backups/app\n  \
        pitr list --segments --archive s3://bucket/app --timeline 1\n  \
        pitr list --timeline --archive file:/var/backups/app          the history of all timelines, drawn\n  \
        pitr list picture --timeline 2 --from '2 hours ago' --archive file:/var/backups/app    of one, a part of it"
)]
pub struct ListArgs {
    /// What to list [default: everything, segments summarised]
    #[arg(value_enum, value_name = "WHAT")]
    pub what: Vec<Listing>,
    /// List every segment instead of a summary
    #[arg(long)]
    pub segments: bool,
    /// Only this timeline; without a number: draw the history of all
    #[arg(long, value_name = "N", num_args = 0..=1)]
    #[allow(clippy::option_option, reason = "not given, given without a number, given with one")]
    pub timeline: Option<Option<TimelineId>>,
    /// The picture begins at this time: RFC 3339, local time, '2 hours ago', @unix [default: the first thing there is]
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// The picture ends at this time [default: the last thing there is]
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// The archive.
    #[command(flatten)]
    pub archive: ArchiveArgs,
}

impl ListArgs {
    /// Whether the history is drawn.
    pub fn draws(&self) -> bool {
        self.what.contains(&Listing::Picture) || self.timeline == Some(None)
    }
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
    /// All of it over time, drawn
    Picture,
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
