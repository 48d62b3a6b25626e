//! `pitr.toml` as it is written.
//!
//! Owns: every key's name, form and meaning; documentation comments here are the schema's descriptions. An unknown key is
//! an error, everywhere. Refuses: defaults (the archiver's own), and what values mean together ([`super::jobs`]).

mod drill;
mod groups;
mod hooks;
mod limits;
mod retention;
mod schedule;
mod tuning;
mod values;

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    drill::{Drill, DrillTarget},
    groups::Group,
    hooks::{Command, Hooks},
    limits::Limits,
    retention::Retention,
    schedule::Schedule,
    tuning::{Tuning, WhenFull},
    values::{Listen, Period, Size},
};
use super::{merge::Merge, secret::SecretRef};

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
    /// When bases, verifications and drills are due for databases that do not say otherwise themselves
    #[serde(default, skip_serializing_if = "Schedule::is_empty")]
    pub schedule: Schedule,
    /// What scheduled drills restore and how that is checked, for databases that do not say otherwise themselves
    #[serde(default, skip_serializing_if = "Drill::is_empty")]
    pub drill: Drill,
    /// Commands that are told, for databases that do not say otherwise themselves
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// What this process may use of its machine, all databases together
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// What is kept of archives whose databases do not say otherwise themselves. Without this section nothing is ever deleted
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// How small segments become large ones, for databases that do not say otherwise themselves
    #[serde(default, skip_serializing_if = "Merge::is_empty")]
    pub merge: Merge,
    /// What is done for groups of databases as a whole, by the names that databases give as their `group`
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Group>,
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
    /// The group that it belongs to, under a name of your choice: databases of one application, which are tagged and restored
    /// together
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
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
    /// What differs from the file's own `drill`
    #[serde(default, skip_serializing_if = "Drill::is_empty")]
    pub drill: Drill,
    /// What differs from the file's own `hooks`
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// What is kept of this archive, instead of the file's own `retention`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// What differs from the file's own `merge`
    #[serde(default, skip_serializing_if = "Merge::is_empty")]
    pub merge: Merge,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pitr_archiver::retention::Policy;

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
            group = "shop"
            archive = { url = "file:/a", key = "env:ORDERS_KEY" }
            tuning.poll = "250ms"
            retention = { window = "30d", last = 5, grace = "2d" }
            [groups.shop]
            before_tag = ["/usr/bin/hold", "shop"]
            [http]
            listen = "9598"
            ready_max_lag = "30s"
            [log]
            format = "json"
            [merge]
            levels = ["10s", "1h"]
            max_size = "8MiB"
            [drill]
            scratch = "/var/tmp"
            check = ["/usr/local/bin/check-db", "--quick"]
            timeout = "20m"
            target = "latest"
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
            ("[drill]\ncheck = [\"check-db\"]", "absolute path"),
            ("[drill]\ntarget = \"first\"", "unknown variant"),
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
