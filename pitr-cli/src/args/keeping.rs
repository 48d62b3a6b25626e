//! Options of the commands that keep an archive small: prune.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};

use super::{common::ArchiveArgs, values};

/// `pitr prune`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Delete what the retention policy does not keep.\n\n\
        Kept are: every position of the guaranteed window (--keep-window); the newest bases (--keep-last) and the newest \
        base of each hour, day, week, month and year that has one (--keep-hourly to --keep-yearly, calendar periods in \
        UTC), each restorable at the position where it was taken; and every position that a tag names, until the tag is \
        deleted or expires. The newest position that can be restored is always kept.\n\n\
        It works in two phases. What is not kept is first stated to be no longer part of the archive: no plan offers it \
        any more. What was stated longer than --grace ago, and is still not needed, is deleted. Files that nothing names \
        go the same way. So run it regularly, from any machine, also while the archiver runs and restores are under way; \
        several at once do no harm. An archive with damage is not pruned.\n\n\
        The window ends with the last look at the database that is archived, not with this machine's clock, if that is \
        later. It is never shorter than --keep-at-least, unless --force is given.\n\n\
        Nothing is deleted by defaults alone: either at least one --keep option is given, and the defaults stand for the \
        others, or the policy is that of a configuration's [retention] (--config).",
    group = ArgGroup::new("policy").required(true).multiple(true).args([
        "dry_run", "config", "keep_window", "keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly",
        "keep_yearly",
    ]),
    after_help = "Examples:\n  \
        pitr prune --archive s3://bucket/app --dry-run                 what would go, what would stay, and why\n  \
        pitr prune --archive s3://bucket/app --keep-window 30d --keep-monthly 24\n  \
        pitr prune --archive s3://bucket/app --config /etc/pitr/pitr.toml        what its [retention] keeps\n  \
        pitr prune --archive file:/var/backups/app --key-file /etc/pitr.key --keep-last 5 --json | jq .deleted"
)]
pub struct PruneArgs {
    /// The archive.
    #[command(flatten)]
    pub archive: ArchiveArgs,
    /// Change nothing: show every decision with its reason, and what can be restored before and after
    #[arg(long)]
    pub dry_run: bool,
    /// Keep what this configuration says of the archive
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "keep_window", "keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly",
        "keep_at_least", "grace",
    ])]
    pub config: Option<PathBuf>,
    /// Let the window be shorter than --keep-at-least
    #[arg(long)]
    pub force: bool,
    /// Every position of this time stays restorable
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = values::duration, help_heading = "What is kept")]
    pub keep_window: Duration,
    /// So many of the newest bases
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "What is kept")]
    pub keep_last: u32,
    /// One base for each of so many hours
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "What is kept")]
    pub keep_hourly: u32,
    /// One base for each of so many days
    #[arg(long, value_name = "N", default_value_t = 7, help_heading = "What is kept")]
    pub keep_daily: u32,
    /// One base for each of so many weeks
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "What is kept")]
    pub keep_weekly: u32,
    /// One base for each of so many months
    #[arg(long, value_name = "N", default_value_t = 12, help_heading = "What is kept")]
    pub keep_monthly: u32,
    /// One base for each of so many years
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "What is kept")]
    pub keep_yearly: u32,
    /// The window is not shorter than this without --force
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = values::duration, help_heading = "What is kept")]
    pub keep_at_least: Duration,
    /// What is no longer part of the archive is deleted so much later: at least 10m, and longer than any restore and the
    /// upload of any base takes
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = values::duration)]
    pub grace: Duration,
}
