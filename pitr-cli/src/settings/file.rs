//! `pitr.toml` as it is written.
//!
//! Owns: every key's name, form and meaning; documentation comments here are the schema's descriptions. An unknown key is
//! an error, everywhere. Refuses: defaults (the archiver's own), and what values mean together ([`super::jobs`]).

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU64, path::PathBuf, time::Duration};

use pitr_archiver::retention::Policy;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer, de};

use super::{schedule::Cron, secret::SecretRef};
use crate::args::values;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// How databases are archived that do not say otherwise themselves
    #[serde(default)]
    pub tuning: Tuning,
    /// How the service is seen from outside
    #[serde(default, skip_serializing_if = "Http::is_empty")]
    pub http: Http,
    /// The log on standard error
    #[serde(default, skip_serializing_if = "Log::is_empty")]
    pub log: Log,
    /// When bases and verifications are due for databases that do not say otherwise themselves
    #[serde(default, skip_serializing_if = "Schedule::is_empty")]
    pub schedule: Schedule,
    /// Commands that are told, for databases that do not say otherwise themselves
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// What this process may use of its machine, all databases together
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// What is kept of archives whose databases do not say otherwise themselves. Without this section nothing is ever deleted
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// The databases, each under a name of your choice: letters, digits, `-` and `_`
    #[serde(default)]
    pub databases: BTreeMap<String, Database>,
}

/// The status page, `/status`, `/metrics`, `/healthz` and `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where to listen: a port of loopback, or an address and a port. There is no password. Default: nothing is served
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<Listen>,
    /// `/readyz` fails when the oldest write that an archive lacks is older than this. Default: 1m
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_max_lag: Option<Period>,
    /// `/readyz` fails when the last base of a database is older than this. Default: however old it is
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_max_base_age: Option<Period>,
}

impl Http {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The log. What the command line says goes before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Its form. Default: text
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<LogForm>,
    /// How much: error, warn, info, debug, trace, or per module (`info,pitr_archiver=debug`). Default: info
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
}

impl Log {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogForm {
    /// One line of text per event
    Text,
    /// One JSON object per event
    Json,
}

/// A database to archive.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// The database's directory: the one that holds the file CURRENT
    pub db: PathBuf,
    /// Where it is archived
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// Further archives of it, each under a name of your choice: another region, another provider, a local disk. Each goes on
    /// by itself; one that does not answer delays no other
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub archives: BTreeMap<String, Archive>,
    /// Where the archiver keeps its state and control socket; default: the database's name with .pitr, beside it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PathBuf>,
    /// Directories that the server was given as its db_paths, in their order; OPTIONS files do not tell
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub db_paths: Vec<PathBuf>,
    /// Where the server's wal_dir is on another file system: where hard links to its files are kept there
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_pins: Option<PathBuf>,
    /// Files in the database's directory, beside RocksDB's own, that every base carries
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Column families that may be written without the log (disableWAL): no barrier then, and restores give of them what a
    /// crash would have kept. You vouch that no other one is written so
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlogged_tolerate: Vec<String>,
    /// What differs from the file's own `tuning`
    #[serde(default, skip_serializing_if = "Tuning::is_empty")]
    pub tuning: Tuning,
    /// What differs from the file's own `schedule`
    #[serde(default, skip_serializing_if = "Schedule::is_empty")]
    pub schedule: Schedule,
    /// What differs from the file's own `hooks`
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// What is kept of this archive, instead of the file's own `retention`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}

/// An archive.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// file:/path, s3://bucket/prefix, azblob://container/prefix, gs://bucket/prefix, hdfs://host:port/path,
    /// webhdfs://host:port/path or sftp://user@host:port/path, with options behind a `?`
    pub url: String,
    /// The key of an encrypted archive, 64 hexadecimal digits: `file:/path` (readable by its owner only), `env:NAME` or
    /// `exec:COMMAND`, whose standard output it is
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SecretRef>,
    /// false: what this archive lacks is given up beyond its pin_budget (default 1GiB), with a barrier, however long the others
    /// hold theirs; default: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// What differs for this archive
    #[serde(default, skip_serializing_if = "Tuning::is_empty")]
    pub tuning: Tuning,
}

/// When something is done by the clock: cron expressions, in UTC, of five fields (minute, hour, day of month, month, day of
/// week), six with seconds before them, or @daily and the like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Take a base
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Cron>,
    /// Read and check the whole archive, as pitr verify does
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Cron>,
    /// Delete what `retention` does not keep; default, where there is a `retention`: @daily
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<Cron>,
}

impl Schedule {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This, and where it says nothing, `other`.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            base: self.base.clone().or_else(|| other.base.clone()),
            verify: self.verify.clone().or_else(|| other.verify.clone()),
            prune: self.prune.clone().or_else(|| other.prune.clone()),
        }
    }
}

/// Commands that are run: the program and its arguments, no shell. Each is given PITR_EVENT, PITR_DATABASE and PITR_ARCHIVE
/// in its environment and one JSON object on its standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Before a base's files are linked: brings the server to rest, where that is wanted. If it fails, no base is taken then. The
    /// server should go on by itself after some seconds: an archiver that is killed meanwhile tells it nothing
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_base: Option<Command>,
    /// As soon as they are linked, milliseconds later, and also where that failed: the server goes on
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_base: Option<Command>,
    /// When a barrier is recorded
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_barrier: Option<Command>,
    /// When the archive does not answer (and when it does again), a base failed, a limit of what is held back is met, a
    /// verification found something, or an archiver is given up
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Command>,
    /// After each verification, whatever it found
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_verify: Option<Command>,
    /// A command that takes longer is ended, with its process group; default: 30s
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
}

impl Hooks {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This, and where it says nothing, `other`.
    pub fn or(&self, other: &Self) -> Self {
        let first = |a: &Option<Command>, b: &Option<Command>| a.clone().or_else(|| b.clone());
        Self {
            before_base: first(&self.before_base, &other.before_base),
            after_base: first(&self.after_base, &other.after_base),
            on_barrier: first(&self.on_barrier, &other.on_barrier),
            on_failure: first(&self.on_failure, &other.on_failure),
            after_verify: first(&self.after_verify, &other.after_verify),
            timeout: self.timeout.or(other.timeout),
        }
    }
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Command(#[schemars(length(min = 1))] pub Vec<String>);

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        match words.first() {
            Some(program) if program.starts_with('/') => Ok(Self(words)),
            _ => Err(de::Error::custom("a program by its absolute path, then its arguments")),
        }
    }
}

/// What is done when pins hold more than their budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Keep everything and give an alarm, as long as min_free is free
    Hold,
    /// Give up what only pins hold: a barrier, and a new base afterwards
    Barrier,
}

/// How to archive. What is not named has the default that `pitr run --help` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Ship a segment when its oldest record is this old: what a power cut of this machine can cost at most
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Period>,
    /// Ship a segment earlier when it holds this many bytes: 4KiB to 256MiB
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_size: Option<SegmentSize>,
    /// How often to look at the end of the log
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<Period>,
    /// While nothing is written, say so in the archive this often
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Period>,
    /// Write a manifest (index and proof of the segments) this often
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_interval: Option<Period>,
    /// zstd level of segments, 1 (fast) to 19 (small)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression_level: Option<Level>,
    /// The least time between two bases that follow barriers; the first comes at once, and while they keep coming it doubles
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barrier_base_spacing: Option<Pause>,
    /// How far that time grows
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barrier_base_spacing_max: Option<Pause>,
    /// Files that enter the database without the log are kept in the archive up to this many bytes for one ingestion, and
    /// four times as many that wait for their upload
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_limit: Option<Size>,
    /// What the server has deleted and the archive does not have yet may take so much of the disk; default: as much as min_free
    /// allows
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_budget: Option<Size>,
    /// What follows beyond pin_budget: hold (default) or barrier
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_full: Option<WhenFull>,
    /// So much of the server's file system stays free: before it is filled, what only pins hold is given up whatever when_full
    /// says; default: 1GiB, or a twentieth of a small one
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_free: Option<Size>,
}

/// What is kept of an archive. What is not named has the default that `pitr prune --help` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Every position of this time stays restorable
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Pause>,
    /// So many of the newest bases
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// One base for each of so many hours
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hourly: Option<u32>,
    /// One base for each of so many days
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// One base for each of so many weeks
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// One base for each of so many months
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
    /// One base for each of so many years
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yearly: Option<u32>,
    /// The window is never shorter than this
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_at_least: Option<Pause>,
    /// What is no longer part of the archive is deleted so much later; 10m at least
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Period>,
}

impl Retention {
    /// The policy that it means.
    pub fn policy(&self) -> Policy {
        let default = Policy::default();
        Policy {
            window: self.window.map_or(default.window, |p| p.0),
            last: self.last.unwrap_or(default.last),
            hourly: self.hourly.unwrap_or(default.hourly),
            daily: self.daily.unwrap_or(default.daily),
            weekly: self.weekly.unwrap_or(default.weekly),
            monthly: self.monthly.unwrap_or(default.monthly),
            yearly: self.yearly.unwrap_or(default.yearly),
            keep_at_least: self.keep_at_least.map_or(default.keep_at_least, |p| p.0),
            grace: self.grace.map_or(default.grace, |p| p.0),
        }
    }
}

impl Tuning {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This, and where it says nothing, `other`.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            interval: self.interval.or(other.interval),
            segment_size: self.segment_size.or(other.segment_size),
            poll: self.poll.or(other.poll),
            heartbeat: self.heartbeat.or(other.heartbeat),
            manifest_interval: self.manifest_interval.or(other.manifest_interval),
            compression_level: self.compression_level.or(other.compression_level),
            barrier_base_spacing: self.barrier_base_spacing.or(other.barrier_base_spacing),
            barrier_base_spacing_max: self.barrier_base_spacing_max.or(other.barrier_base_spacing_max),
            capture_limit: self.capture_limit.or(other.capture_limit),
            pin_budget: self.pin_budget.or(other.pin_budget),
            when_full: self.when_full.or(other.when_full),
            min_free: self.min_free.or(other.min_free),
        }
    }
}

/// What a process may use of its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes a second that are sent to the archives: segments first, bases get what is left; default: no limit
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_rate: Option<Speed>,
    /// Bytes a second that are read for bases, and from the log while the archiver is behind; default: no limit
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_rate: Option<Speed>,
    /// Added to the process's nice value, 0 to 19: others go first; default: 0
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nice: Option<Nice>,
    /// Threads that send to stores, 1 to 64; one more than that read files. Default: 2, and as many as it takes
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<Threads>,
}

impl Limits {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A value that is written as text, as on the command line.
macro_rules! written {
    ($(#[$doc:meta])* $name:ident($inner:ty), $parse:path, $print:expr, $pattern:literal, $example:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $parse(&text).map(Self).map_err(de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&$print(self.0))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example] })
            }
        }
    };
}

written!(
    /// A time above zero.
    Period(Duration), values::positive_duration, written_duration, "^[0-9]+ *(ms|s|m|min|h|d)$", "5s"
);
written!(
    /// A time, also none.
    Pause(Duration), values::duration, written_duration, "^[0-9]+ *(ms|s|m|min|h|d)$", "1m"
);
written!(
    /// So many bytes.
    Size(u64), values::size, written_size, "^[0-9.]+ *([kKMGT]i?)?B?$", "1GiB"
);
written!(
    /// So many bytes of a segment.
    SegmentSize(u64), values::segment_size, written_size, "^[0-9.]+ *([kKMGT]i?)?B?$", "8MiB"
);

written!(
    /// Where to listen.
    Listen(SocketAddr), values::listen, |address: SocketAddr| address.to_string(), "^(([^:]*|\\[.*\\]):)?[0-9]+$", "9598"
);

written!(
    /// So many bytes a second.
    Speed(NonZeroU64), values::speed, written_speed, "^[0-9.]+ *([kKMGT]i?)?B?$", "10MiB"
);

/// As [`values::speed`] reads it.
fn written_speed(bytes: NonZeroU64) -> String {
    written_size(bytes.get())
}

/// As [`values::duration`] reads it.
fn written_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, factor) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis > 0 && millis.is_multiple_of(factor) {
            return format!("{}{unit}", millis / factor);
        }
    }
    format!("{millis}ms")
}

/// As [`values::size`] reads it.
fn written_size(bytes: u64) -> String {
    for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// A zstd level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Level(pub i32);

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i32::deserialize(deserializer)? {
            level @ 1..=19 => Ok(Self(level)),
            _ => Err(de::Error::custom("from 1 to 19")),
        }
    }
}

impl JsonSchema for Level {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Level".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 19 })
    }
}

/// A whole number within limits.
macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident($inner:ty), $low:literal, $high:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match <$inner>::deserialize(deserializer)? {
                    value @ $low..=$high => Ok(Self(value)),
                    _ => Err(de::Error::custom(concat!("from ", $low, " to ", $high))),
                }
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "integer", "minimum": $low, "maximum": $high })
            }
        }
    };
}

bounded!(
    /// Added to the nice value.
    Nice(i32), 0, 19
);
bounded!(
    /// So many threads.
    Threads(usize), 1, 64
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let text = r#"
            [tuning]
            interval = "90s"
            segment_size = "64KiB"
            capture_limit = "1000001"
            compression_level = 3
            [limits]
            upload_rate = "10MiB"
            nice = 10
            [databases.orders]
            db = "/var/lib/orders"
            archive = { url = "file:/a", key = "env:ORDERS_KEY" }
            tuning.poll = "250ms"
            retention = { window = "30d", last = 5, grace = "2d" }
            [http]
            listen = "9598"
            ready_max_lag = "30s"
            [log]
            format = "json"
        "#;
        let file: File = toml::from_str(text).unwrap();
        let printed = toml::to_string(&file).unwrap();
        assert_eq!(toml::from_str::<File>(&printed).unwrap(), file, "{printed}");
        assert!(printed.contains("127.0.0.1:9598") && printed.contains("format = \"json\""), "{printed}");
        let retention = file.databases["orders"].retention.clone().unwrap().policy();
        assert_eq!((retention.last, retention.grace.as_secs()), (5, 2 * 86_400));
        assert_eq!(retention.monthly, Policy::default().monthly);
        assert!(printed.contains("interval = \"90s\"") && printed.contains("\"64KiB\""), "{printed}");
    }

    #[test]
    fn values_out_of_range_and_unknown_keys_are_refused_with_their_place() {
        for (text, says) in [
            ("[tuning]\ninterval = \"0s\"", "above zero"),
            ("[tuning]\nintervall = \"1s\"", "unknown field `intervall`"),
            ("[tuning]\nsegment_size = \"1KiB\"", "4KiB"),
            ("[tuning]\ncompression_level = 20", "1 to 19"),
            ("[http]\nlisten = \"host\"", "127.0.0.1:9598"),
            ("[log]\nformat = \"xml\"", "unknown variant"),
            ("[limits]\nnice = -1", "0 to 19"),
            ("[limits]\nthreads = 0", "1 to 64"),
            ("[limits]\nupload_rate = \"0\"", "above zero"),
            ("[databases.a]\narchive.url = \"file:/a\"", "missing field `db`"),
        ] {
            let e = toml::from_str::<File>(text).unwrap_err().to_string();
            assert!(e.contains(says) && e.contains("line ") && e.contains('^'), "{e}");
        }
    }

    #[test]
    fn what_a_database_says_goes_before_what_the_file_says() {
        let file: File = toml::from_str("tuning = { interval = \"1s\", poll = \"1s\" }").unwrap();
        let own: Tuning = toml::from_str("interval = \"2s\"").unwrap();
        let both = own.or(&file.tuning);
        assert_eq!(
            (both.interval, both.poll),
            (Some(Period(Duration::from_secs(2))), Some(Period(Duration::from_secs(1))))
        );
    }
}
