//! Options of `pitr drill`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    common::ArchiveArgs,
    restoring::{PlanningArgs, TargetArgs},
    values,
};

/// `pitr drill`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Restore something into a scratch directory, to see that it works and how long it takes.\n\n\
        Without a target, a record is drawn among all that can be restored (now and then the end); the record is shown, so \
        that it can be drilled again. The database is restored by the same code as with `pitr restore`, opened by RocksDB, the \
        checksums of every block compared, every key and value read; a drill of a position that was drilled before must find \
        the same contents. Where a comparator, a merge operator or a write policy is not known here it is not opened, and the \
        verdict is \"structure only\".\n\n\
        Then --check runs your own program on it (no shell; in its environment PITR_DRILL_DB, the directory, \
        PITR_DRILL_RECORD, PITR_DRILL_SEQUENCE and PITR_DRILL_TIME); it gets the scratch directory itself and may change it. \
        Exit code 0 accepts it.\n\n\
        The report (verdict, time to restore, how good the estimate was, data at risk) goes into the archive: `pitr list \
        drills` shows them, and `pitr plan` estimates by them. The scratch directory is removed. A failed drill ends with \
        the exit code of what it failed for, 1 where the database was restored and is not as it should be.",
    after_help = "Examples:\n  \
        pitr drill --archive file:/var/backups/app\n  \
        pitr drill --to-latest --archive s3://bucket/app --scratch /var/tmp --check /usr/local/bin/check-db --quick\n  \
        pitr drill --to-record 4711 --archive file:/var/backups/app --keep\n  \
        pitr drill --archive s3://bucket/app --json | jq '.verdict, .restore_seconds'",
    mut_group("TargetArgs", |target| target.required(false))
)]
pub struct DrillArgs {
    /// The target; drawn at random without one.
    #[command(flatten)]
    pub target: Option<TargetArgs>,
    /// The archive.
    #[command(flatten)]
    pub archive: ArchiveArgs,
    /// Where a directory for the restored database is made and removed again [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Your own check: a program and its arguments, to the end of the line
    #[arg(long, value_name = "COMMAND", num_args = 1.., allow_hyphen_values = true)]
    pub check: Vec<String>,
    /// The check is ended, with its process group, when it takes longer; before --check on the line
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration, default_value = "1h")]
    pub check_timeout: Duration,
    /// Leave the restored database in the scratch directory
    #[arg(long)]
    pub keep: bool,
    /// How to plan.
    #[command(flatten)]
    pub planning: PlanningArgs,
}
