//! Options of the commands that go back: plan, restore, rollback, settle, verify.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use pitr_archive::ids::{BaseId, TimelineId};

use super::{
    common::{ArchiveArgs, OptionalGroupArgs, SourceArgs},
    values,
};

/// Where to go back to: exactly one of the `--to-...` options.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct TargetArgs {
    /// After exactly this record (`pitr log` shows record numbers)
    #[arg(long, value_name = "N", help_heading = "Target (exactly one)")]
    pub to_record: Option<String>,
    /// After the last record that ends at or below this sequence number of RocksDB
    #[arg(long, value_name = "N", help_heading = "Target (exactly one)")]
    pub to_seq: Option<String>,
    /// After the last record seen at or before this time: RFC 3339, local time, '2 hours ago', @unix
    #[arg(long, value_name = "TIME", help_heading = "Target (exactly one)")]
    pub to_time: Option<String>,
    /// To this tag
    #[arg(long, value_name = "NAME", help_heading = "Target (exactly one)")]
    pub to_tag: Option<String>,
    /// To the end of the archive
    #[arg(long, help_heading = "Target (exactly one)")]
    pub to_latest: bool,
}

/// How to plan, beside the target.
#[derive(Args, Clone, Debug)]
pub struct PlanningArgs {
    /// On this timeline [default: the one written last; a tag has its own]
    #[arg(long, value_name = "N")]
    pub timeline: Option<TimelineId>,
    /// From this base [default: the one that is restored fastest]
    #[arg(long, value_name = "ID")]
    pub base: Option<BaseId>,
    /// What to do with a target inside the interval of a change outside the log
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = InsideEventArg::Refuse)]
    pub inside_event: InsideEventArg,
    /// Repeat ingestions between the base and the target from their captured files, where that is exact; the restore
    /// then recovers the database here, as --finish does
    #[arg(long)]
    pub cross_ingest: bool,
    /// How the log is brought in; pitr plan says which one auto takes, and why
    #[arg(long, value_enum, value_name = "ENGINE", default_value_t = EngineArg::Auto)]
    pub engine: EngineArg,
    /// What of the database.
    #[command(flatten)]
    pub part: PartArgs,
}

/// What of the database is restored.
#[derive(Args, Clone, Debug)]
pub struct PartArgs {
    /// Only these column families, as a database of its own
    #[arg(long, value_name = "NAME", num_args = 1.., help_heading = "Part")]
    pub cf: Vec<String>,
    /// Only the keys that begin so; \xNN stands for a byte that cannot be typed
    #[arg(long, value_name = "KEY", value_parser = values::key, conflicts_with = "range", help_heading = "Part")]
    pub prefix: Option<values::KeyBytes>,
    /// Only the keys from the first on and below the second, byte by byte
    #[arg(long, value_names = ["FROM", "TO"], num_args = 2, value_parser = values::key, help_heading = "Part")]
    pub range: Vec<values::KeyBytes>,
}

/// How the log is brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineArg {
    /// The fastest that gives exactly the same contents and latest sequence number
    Auto,
    /// RocksDB replays all of it
    Native,
    /// Files of shipped flushes are laid down, and RocksDB replays what is behind them
    Flush,
    /// Tables made of the log, the last operation on each key; refused where that is not all. What auto takes for 64 MiB of
    /// log and more, where nothing stands against it
    Bulk,
    /// Files of shipped flushes, and tables made of what is behind them. What auto takes where that is 64 to 512 MiB, and less
    /// than half of the log
    FlushAndBulk,
}

/// What to do with a target inside the interval of a change outside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InsideEventArg {
    /// Refuse it and name both ends
    Refuse,
    /// Go to the last position that is certainly before the change
    Before,
}

/// `pitr plan`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Show what a restore would do and exactly where it would arrive; changes nothing.\n\n\
        Prints the base, the segments and bytes that are read, the exact position reached, how far that is from what \
        was asked for, the interval of time in which the database certainly was in that state, and what to know \
        before relying on it. What cannot be restored exactly is refused here with the precise reason, as `pitr \
        restore` would.\n\n\
        With --group, all databases of a group are planned: to a tag that all of them have, or each to the last position \
        at or before one time.",
    after_help = "Examples:\n  \
        pitr plan --to-latest --archive file:/var/backups/app\n  \
        pitr plan --to-time '2026-11-20 14:33 Europe/Berlin' --archive s3://bucket/app\n  \
        pitr plan --to-tag before-migration --archive file:/var/backups/app --json | jq .position\n  \
        pitr plan --to-record 4711 --cross-ingest --archive file:/var/backups/app\n  \
        pitr plan --to-tag before-migration --group shop --config /etc/pitr/pitr.toml"
)]
pub struct PlanArgs {
    /// The target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// The archive, or the group.
    #[command(flatten)]
    pub source: SourceArgs,
    /// The rest.
    #[command(flatten)]
    pub planning: PlanningArgs,
    /// Show every segment, WAL and column family edit
    #[arg(long)]
    pub full: bool,
}

/// `pitr restore`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Rebuild the database as it was at a record, a sequence number, a time or a tag.\n\n\
        The database is built in a staging directory beside --into, every byte is checked, and it gets its final name \
        at the very end; nothing that exists is overwritten. Opening it is left to your server (which recovers the \
        log as after a crash), unless --finish lets RocksDB do it here. `pitr plan` with the same target shows \
        beforehand what will happen.\n\n\
        With --in-place the restored database takes the place of the present one, by one exchange of their names at the \
        very end: up to then the present one is there, unchanged, and afterwards it is kept beside it. It is locked as a \
        server would lock it, so that none can be running or be started meanwhile. The files get the owner and the \
        directory the mode of what was there. `pitr rollback DIR` exchanges them back, `pitr settle DIR` ends it. Room for \
        both is needed.\n\n\
        Files that entered the database without the log (ingestion) are barriers: targets behind one are reached from \
        the base that followed it. With --cross-ingest a target between the two is reached, too: the copy is \
        recovered up to the ingestion, the captured files are brought in with the sequence numbers that they had, and \
        recovery goes on. It is refused where that would not give the source's content and numbers, and for \
        comparators and merge operators that are not built in.\n\n\
        With --cf, --prefix or --range a part of the database is restored, as a database of its own: only the table files \
        and the parts of the log are fetched that can hold any of it. Keys are compared byte by byte.\n\n\
        With --group, all databases of a group are restored, or none: to DIR/NAME for each with --into DIR, or each in the \
        place that the configuration says with --in-place. All are planned and checked before anything is touched, and all \
        are complete and durable before the first gets its name. The same command goes on after an interruption.",
    after_help = "Examples:\n  \
        pitr restore --to-tag before-migration --archive file:/var/backups/app --into /var/lib/app/db-restored\n  \
        pitr restore --to-time '10 minutes ago' --archive s3://bucket/app --in-place /var/lib/app/db\n  \
        pitr restore --to-latest --archive file:/var/backups/app --into /srv/db --owner app --map-path /fast/wal=/srv/wal\n  \
        pitr restore --to-latest --archive s3://bucket/app --into ./alice --cf accounts --prefix alice:\n  \
        pitr restore --to-tag before-migration --group shop --config /etc/pitr/pitr.toml --in-place",
    group = ArgGroup::new("destination").required(true).args(["into", "in_place"])
)]
pub struct RestoreArgs {
    /// The target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// The archive, or the group.
    #[command(flatten)]
    pub source: SourceArgs,
    /// The directory for the restored database: not existing yet, or empty. With --group: for DIR/NAME of each of them
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// The directory of the present database, which is set aside as DIR.before-TIME; its server must be stopped. With
    /// --group without DIR: each one's own
    #[arg(long, value_name = "DIR", num_args = 0..=1, conflicts_with_all = ["cf", "prefix", "range"])]
    pub in_place: Option<Option<PathBuf>>,
    /// To whom the files shall belong, by names or numbers
    #[arg(long, value_name = "USER[:GROUP]")]
    pub owner: Option<String>,
    /// Where a directory of the source outside its database directory goes (repeatable)
    #[arg(long, value_name = "OLD=NEW", value_parser = values::mapping)]
    pub map_path: Vec<values::Mapping>,
    /// Let RocksDB recover the restored database here, and compare its sequence number with the plan's
    #[arg(long)]
    pub finish: bool,
    /// Files fetched at the same time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// The rest of planning.
    #[command(flatten)]
    pub planning: PlanningArgs,
}

/// `pitr rollback`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Put the database back that a restore in place set aside.\n\n\
        What is in the directory now is set aside in turn, as DIR.restored-TIME, so a second rollback is as none. The server \
        must be stopped. A swap that was interrupted is ended first.\n\n\
        With --group, what was there before comes back in every database of a group where the restored one is now; where that \
        is so in none of them, the restored ones come back in all. So all are on the same side, also when it is run again \
        after an interruption.",
    after_help = "Examples:\n  \
        pitr rollback /var/lib/app/db\n  \
        pitr rollback /var/lib/app/db --json | jq -r '.aside[]'\n  \
        pitr rollback --group shop --config /etc/pitr/pitr.toml"
)]
pub struct RollbackArgs {
    /// The database's directory
    #[arg(value_name = "DIR", required_unless_present = "group", conflicts_with = "group")]
    pub db: Option<PathBuf>,
    /// The group.
    #[command(flatten)]
    pub group: OptionalGroupArgs,
}

/// `pitr settle`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "End restores in place: what they set aside is deleted, or kept for good.\n\n\
        After either there is nothing to roll back to. The database in the directory is not touched, and its server may run.",
    after_help = "Examples:\n  \
        pitr settle /var/lib/app/db --discard     delete what was set aside\n  \
        pitr settle /var/lib/app/db --keep        leave it where it is, as a plain directory\n  \
        pitr settle --group shop --config /etc/pitr/pitr.toml --discard",
    group = ArgGroup::new("how").required(true).args(["keep", "discard"])
)]
pub struct SettleArgs {
    /// The database's directory
    #[arg(value_name = "DIR", required_unless_present = "group", conflicts_with = "group")]
    pub db: Option<PathBuf>,
    /// The group.
    #[command(flatten)]
    pub group: OptionalGroupArgs,
    /// Leave the directories that were set aside where they are
    #[arg(long)]
    pub keep: bool,
    /// Delete them
    #[arg(long)]
    pub discard: bool,
}

/// `pitr verify`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Prove that an archive is whole.\n\n\
        Reads every object, checks every hash and that the archived stream has no gap that is not recorded as a \
        barrier. With --deep, a position is restored twice, from the newest base and from the one before it plus \
        the log, and their contents are compared. Exit code 1 when damage was found; each finding is listed.",
    after_help = "Examples:\n  \
        pitr verify --archive file:/var/backups/app\n  \
        pitr verify --deep --archive s3://bucket/app --scratch /var/tmp\n  \
        pitr verify --archive file:/var/backups/app --json | jq '.findings'"
)]
pub struct VerifyArgs {
    /// The archive.
    #[command(flatten)]
    pub archive: ArchiveArgs,
    /// Restore one position in two ways and compare the contents
    #[arg(long)]
    pub deep: bool,
    /// Where --deep restores to; a directory of its own is made there and removed again
    #[arg(long, value_name = "DIR", requires = "deep")]
    pub scratch: Option<PathBuf>,
}
