//! Options of the commands that write an archive: run, base, tag, flush, status.

use std::{net::SocketAddr, num::NonZeroU64, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::{
    common::{DatabaseArgs, GroupArgs, OptionalArchiveArgs, OptionalDatabaseArgs, SourceArgs},
    values,
};

/// `pitr run`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Archive a live database until stopped.\n\n\
        Follows the database's write-ahead log and MANIFEST from outside: the server needs no plug-in, no restart and \
        notices nothing. A first base (full copy) is taken when there is none; afterwards a segment with everything \
        written is shipped every --interval. The archive is created if it is not there, encrypted when a key file is \
        given. SIGTERM and Ctrl-C ship the rest and end with exit code 0; kill -9 and power cuts are safe at any \
        moment: the next run goes on where the archive ends.\n\n\
        Run it as the user that owns the database: it pins files by hard links in the state directory, which must lie \
        on the same file system.\n\n\
        With --config, one process archives every database that the file names (pitr config --help). One whose \
        archiver fails is tried again after a pause, as long as that can help; the others go on.",
    after_help = "Examples:\n  \
        pitr run --db /var/lib/app/db --archive file:/var/backups/app\n  \
        pitr run --db /var/lib/app/db --archive 's3://bucket/app?region=eu-west-1' --key-file /etc/pitr.key\n  \
        pitr run --db /var/lib/app/db --archive file:/var/backups/app --once      catch up and end\n  \
        pitr run --db /var/lib/app/db --archive sftp://me@host/app --upload-rate 10MiB --unlogged-tolerate cache\n  \
        pitr run --config /etc/pitr/pitr.toml --http 9598                         and a status page on loopback"
)]
pub struct RunArgs {
    /// The database.
    #[command(flatten)]
    pub database: OptionalDatabaseArgs,
    /// The archive.
    #[command(flatten)]
    pub archive: OptionalArchiveArgs,
    /// Archive every database that this file names, instead of --db; conf.d/*.toml beside it and PITR__ variables are read, too
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "db", "state", "db_path", "wal_pins", "archive", "key_file", "interval", "segment_size", "poll", "heartbeat",
        "manifest_interval", "compression_level", "unlogged_tolerate", "barrier_base_spacing",
        "barrier_base_spacing_max", "capture_limit", "ship_flushes", "include", "pin_budget", "when_full", "min_free",
    ])]
    pub config: Option<PathBuf>,
    /// Serve a status page, /status (JSON), /metrics (Prometheus), /healthz and /readyz here: a port of loopback, or
    /// an address and a port. Without a password: keep it on loopback [default: nothing is served]
    #[arg(long, value_name = "ADDRESS", value_parser = values::listen, help_heading = "Seen from outside")]
    pub http: Option<SocketAddr>,
    /// /readyz fails when the oldest write that the archive lacks is older than this [default: 1m]
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration, help_heading = "Seen from outside")]
    pub ready_max_lag: Option<Duration>,
    /// /readyz fails when the last base is older than this [default: however old it is]
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration, help_heading = "Seen from outside")]
    pub ready_max_base_age: Option<Duration>,
    /// Ship a segment when its oldest record is this old: what a power cut of this machine can cost at most
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::positive_duration)]
    pub interval: Duration,
    /// Catch up with what the files hold now, take a base if one is due, and end
    #[arg(long)]
    pub once: bool,
    /// Ship a segment earlier when it holds this many bytes (4KiB to 256MiB)
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = values::segment_size, help_heading = "Tuning")]
    pub segment_size: u64,
    /// How often to look at the end of the log
    #[arg(long, value_name = "TIME", default_value = "25ms", value_parser = values::positive_duration, help_heading = "Tuning")]
    pub poll: Duration,
    /// While nothing is written, say so in the archive this often
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = values::positive_duration, help_heading = "Tuning")]
    pub heartbeat: Duration,
    /// Write a manifest (index and proof of the segments) this often
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = values::positive_duration, help_heading = "Tuning")]
    pub manifest_interval: Duration,
    /// zstd level of segments, 1 (fast) to 19 (small)
    #[arg(long, value_name = "LEVEL", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=19), help_heading = "Tuning")]
    pub compression_level: i32,
    /// A column family that may be written without the log (disableWAL): that is no barrier then, and restores give of it
    /// what a crash would have kept. You vouch that no other one is written so (repeatable)
    #[arg(long, value_name = "CF")]
    pub unlogged_tolerate: Vec<String>,
    /// Let bases that follow barriers (writes outside the log) wait at least this long after each other; the first comes at
    /// once, and while they keep coming the time doubles
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = values::duration, help_heading = "Tuning")]
    pub barrier_base_spacing: Duration,
    /// How far that time grows
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = values::duration, help_heading = "Tuning")]
    pub barrier_base_spacing_max: Duration,
    /// Files that enter the database without the log (ingestion) are kept in the archive up to this many bytes for one
    /// ingestion, and four times as many that wait for their upload, so that --cross-ingest can repeat it
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = values::size, help_heading = "Tuning")]
    pub capture_limit: u64,
    /// Ship the files that flushes write, too: a restore lays them down and replays only the log behind the last one. Each
    /// costs its bytes in the store once more; pitr check says how many that are
    #[arg(long, help_heading = "Tuning")]
    pub ship_flushes: bool,
    /// A file in the database's directory, beside RocksDB's own, that every base carries (repeatable)
    #[arg(long, value_name = "NAME", help_heading = "Tuning")]
    pub include: Vec<String>,
    /// What the server has deleted and the archive does not have yet may take so much of the disk [default: as much as
    /// --min-free allows]
    #[arg(long, value_name = "SIZE", value_parser = values::size, help_heading = "Outages")]
    pub pin_budget: Option<u64>,
    /// What follows beyond --pin-budget: keep everything and give an alarm, or give it up, with a barrier and a new base
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = WhenFull::Hold, help_heading = "Outages")]
    pub when_full: WhenFull,
    /// So much of the server's file system stays free: before it is filled, what only pins hold is given up whatever
    /// --when-full says [default: 1GiB, or a twentieth of a small one]
    #[arg(long, value_name = "SIZE", value_parser = values::size, help_heading = "Outages")]
    pub min_free: Option<u64>,
    /// Take the archive from another archiver that still writes into it: that one ends
    #[arg(long)]
    pub take_over: bool,
    /// Limits.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// What the process may use; with --config, these go before the file's limits.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Send at most so many bytes a second to archives, 10MiB for example: segments first, bases get what is left
    #[arg(long, value_name = "SIZE", value_parser = values::speed)]
    pub upload_rate: Option<NonZeroU64>,
    /// Read at most so many bytes a second for bases, and from the log while the archiver is behind (not with --once)
    #[arg(long, value_name = "SIZE", value_parser = values::speed)]
    pub read_rate: Option<NonZeroU64>,
    /// Let other processes go first: added to the nice value, 0 to 19; the disk's priority follows [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=19))]
    pub nice: Option<i32>,
    /// Threads that send to stores, 1 to 64; one more than that read, seal and write files. Each database's log has one of its own
    #[arg(long, value_name = "N", value_parser = values::threads)]
    pub threads: Option<usize>,
}

/// What is done when pins hold more than their budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhenFull {
    /// Keep everything, give an alarm
    Hold,
    /// Give it up: a barrier, and a new base afterwards
    Barrier,
}

/// `pitr reload`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Make a running pitr run --config read its configuration again.\n\n\
        The file is checked first; where anything is wrong with it, nothing changes. Tuning, limits, schedules and hooks \
        take effect at once, and nothing of the log is missed meanwhile. Databases that come, go or move, other archives and \
        keys need a restart, which is said. SIGHUP does the same, and tells it in the log.",
    after_help = "Examples:\n  \
        pitr reload --config /etc/pitr/pitr.toml\n  \
        pitr reload --config /etc/pitr/pitr.toml --json | jq -e 'all(.changes[]; .effect == \"applied\")'"
)]
pub struct ReloadArgs {
    /// The configuration that the service was started with
    #[arg(long, value_name = "FILE", required = true)]
    pub config: PathBuf,
}

/// `pitr config`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Check or print the configuration of pitr run --config, or describe its keys.\n\n\
        A configuration is a TOML file: one [databases.NAME] for every database, with its directory (db) and its archive \
        (archive.url, archive.key), and [tuning] for all of them. Files conf.d/*.toml beside it are laid over it, by \
        name, then variables of the environment: PITR__TUNING__INTERVAL=5s means tuning.interval. An unknown key is an \
        error. Keys are never in the file: archive.key says where one is (file:/path, env:NAME, exec:COMMAND).",
    after_help = "Examples:\n  \
        pitr config check /etc/pitr/pitr.toml        is it right, are the databases there, can the keys be read?\n  \
        pitr config show /etc/pitr/pitr.toml         all of it, with what conf.d and the environment say\n  \
        pitr config schema > pitr.schema.json        for an editor"
)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What to do with a configuration.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigAction {
    #[command(about = "Say whether pitr run could start with it")]
    Check(ConfigFileArgs),
    #[command(about = "Print all of it, as one file")]
    Show(ConfigFileArgs),
    #[command(about = "Print the JSON schema of the file")]
    Schema(ConfigSchemaArgs),
}

/// `pitr config check`, `pitr config show`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Check or print a configuration.\n\n\
        Both read the file, conf.d/*.toml beside it and the PITR__ variables of this environment, as pitr run would. \
        check also looks at the databases and reads the keys; it opens no archive. show prints places of keys, never \
        keys, and of URLs what is no secret.",
    after_help = "Examples:\n  \
        pitr config check /etc/pitr/pitr.toml\n  \
        pitr config show /etc/pitr/pitr.toml --json | jq '.config.databases | keys'"
)]
pub struct ConfigFileArgs {
    /// The file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// `pitr config schema`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Print the JSON schema of the configuration.\n\n\
        Every key with its meaning and form; editors complete and check with it.",
    after_help = "Examples:\n  \
        pitr config schema > pitr.schema.json\n  \
        pitr config schema | jq '.\"$defs\".Tuning.properties | keys'"
)]
pub struct ConfigSchemaArgs {}

/// `pitr base`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Take a base now.\n\n\
        A base is a consistent copy of the database's files from which restores start: the fresher the base, the \
        fewer records a restore has to replay. Only files that the archive lacks are uploaded. The running archiver \
        is asked to do it; if none runs, it is done here.",
    after_help = "Examples:\n  \
        pitr base --db /var/lib/app/db                                    ask the running archiver\n  \
        pitr base --db /var/lib/app/db --archive file:/var/backups/app    works without one, too"
)]
pub struct BaseArgs {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The archive; not needed while an archiver runs.
    #[command(flatten)]
    pub archive: OptionalArchiveArgs,
    /// A file in the database's directory, beside RocksDB's own, that the base carries (repeatable)
    #[arg(long, value_name = "NAME")]
    pub include: Vec<String>,
}

/// `pitr flush`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Make everything written so far durable in the archive, now.\n\n\
        Returns when everything that could be read from the database's files at the time of the call is in the \
        archive, and prints the position. The running archiver is asked to do it; if none runs, it is done here.",
    after_help = "Examples:\n  \
        pitr flush --db /var/lib/app/db\n  \
        pitr flush --db /var/lib/app/db --archive file:/var/backups/app --json | jq .position.record"
)]
pub struct FlushArgs {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The archive; not needed while an archiver runs.
    #[command(flatten)]
    pub archive: OptionalArchiveArgs,
}

/// `pitr status`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Show what can be restored, and how far behind the archive is.\n\n\
        With --db, the running archiver tells its lag; with --archive, the archive tells which positions and times \
        can be restored, where the gaps are, when the last base was taken, and up to when it is known that nothing \
        else was written. Give both to see both.",
    after_help = "Examples:\n  \
        pitr status --db /var/lib/app/db --archive file:/var/backups/app\n  \
        pitr status --archive s3://bucket/app                     from any machine\n  \
        pitr status --db /var/lib/app/db --json | jq .archiver.unacknowledged_records"
)]
pub struct StatusArgs {
    /// The database.
    #[command(flatten)]
    pub database: OptionalDatabaseArgs,
    /// The archive.
    #[command(flatten)]
    pub archive: OptionalArchiveArgs,
}

/// `pitr tag`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Name the present moment, list the names, or delete one.\n\n\
        A tag is a name for a position: `pitr restore --to-tag NAME` goes back to it. Tags never move. With --group, \
        one name marks one moment in all databases of a group (the shards of one application).",
    after_help = "Examples:\n  \
        pitr tag create before-migration --db /var/lib/app/db --note 'release 4.2'\n  \
        pitr tag create before-migration --group shop --config /etc/pitr/pitr.toml\n  \
        pitr tag list --archive file:/var/backups/app\n  \
        pitr tag delete before-migration --archive file:/var/backups/app"
)]
pub struct TagArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: TagAction,
}

/// What to do with tags.
#[derive(Clone, Debug, Subcommand)]
pub enum TagAction {
    #[command(about = "Name the present moment")]
    Create(TagCreateArgs),
    #[command(about = "List all tags")]
    List(TagListArgs),
    #[command(about = "Delete a tag; the position stays restorable by its record number or time")]
    Delete(TagDeleteArgs),
}

/// `pitr tag create`.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Name the present moment.\n\n\
        Returns only when everything committed before the call is durable in the archive. A server with \
        manual_wal_flush keeps committed writes in its own memory, where no tool can read them: the tag is refused \
        then, unless --observed says that what is in the files is enough.\n\n\
        With --group, the running archivers of all its databases are asked at once, and all of them get the tag or none. \
        Each one's lies between the moment before they were asked and the moment at which the last position was fixed, \
        both of which are shown: a write that was acknowledged before the first is in all that it belongs to, one that was \
        begun after the second is in none. Of writes in between each database may have its own or not, unless the \
        application holds its writes meanwhile: before_tag and after_tag of [groups.NAME] can make it.",
    after_help = "Examples:\n  \
        pitr tag create before-migration --db /var/lib/app/db --expires 30d\n  \
        pitr tag create nightly-2026-11-20 --db /var/lib/app/db --archive file:/var/backups/app --note 'end of day'\n  \
        pitr tag create before-migration --group shop --config /etc/pitr/pitr.toml",
    group = ArgGroup::new("tagged").required(true).args(["db", "group"])
)]
pub struct TagCreateArgs {
    /// The tag's name: letters, digits, '.', '_' and '-'
    pub name: String,
    /// A note for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// Keep it only so long: then pitr prune may delete it with what only it keeps
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration)]
    pub expires: Option<Duration>,
    /// Tag what is in the files, although the server may hold committed writes in its memory
    #[arg(long)]
    pub observed: bool,
    /// Instead of one database: all of this group
    #[arg(long, value_name = "NAME", requires = "config", conflicts_with_all = ["archive", "key_file", "state"], help_heading = "Group")]
    pub group: Option<String>,
    /// The configuration of pitr run that has the group: group = "NAME" in the section of each of its databases
    #[arg(long, value_name = "FILE", requires = "group", help_heading = "Group")]
    pub config: Option<PathBuf>,
    /// There is no tag if not every database of the group has everything in an archive within so long
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration, default_value = "1m", help_heading = "Group")]
    pub within: Duration,
    /// The database.
    #[command(flatten)]
    pub database: OptionalDatabaseArgs,
    /// The archive; not needed while an archiver runs.
    #[command(flatten)]
    pub archive: OptionalArchiveArgs,
}

impl TagCreateArgs {
    /// The group, if one was named.
    pub fn group(&self) -> Option<GroupArgs> {
        let (name, config) = self.group.clone().zip(self.config.clone())?;
        Some(GroupArgs { name, config })
    }
}

/// `pitr tag list`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    pitr tag list --archive file:/var/backups/app\n  \
    pitr tag list --archive file:/var/backups/app --json | jq -r '.tags[].name'\n  \
    pitr tag list --group shop --config /etc/pitr/pitr.toml     which of them all databases have")]
pub struct TagListArgs {
    /// The archive, or the group.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `pitr tag delete`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    pitr tag delete before-migration --archive file:/var/backups/app\n  \
    pitr tag delete before-migration --archive s3://bucket/app --key-file /etc/pitr.key\n  \
    pitr tag delete before-migration --group shop --config /etc/pitr/pitr.toml     in all of its databases")]
pub struct TagDeleteArgs {
    /// The tag's name
    pub name: String,
    /// The archive, or the group.
    #[command(flatten)]
    pub source: SourceArgs,
}
