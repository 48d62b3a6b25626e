//! Options that several commands share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct GlobalArgs {
    /// Print JSON on standard output; errors are one JSON object on standard error
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Form of the log on standard error
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Auto, help_heading = "Output")]
    pub log_format: LogFormat,
    /// How much to log: error, warn, info, debug, trace, or per module (info,pitr_archiver=debug)
    #[arg(long, global = true, env = "PITR_LOG", value_name = "LEVEL", help_heading = "Output")]
    pub log_level: Option<String>,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// JSON with --json, else text
    Auto,
    /// One line of text per event
    Text,
    /// One JSON object per event
    Json,
}

/// Which archive.
#[derive(Args, Clone, Debug)]
pub struct ArchiveArgs {
    /// Where the archive is: file:/path  s3://bucket/prefix  azblob://container/prefix  gs://bucket/prefix
    /// hdfs://host:port/path  webhdfs://host:port/path  sftp://user@host:port/path
    #[arg(long, env = "PITR_ARCHIVE", value_name = "URL", hide_env_values = true)]
    pub archive: String,
    /// File with the archive's key: 64 hexadecimal digits, readable by its owner only
    #[arg(long, env = "PITR_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// Which archive, where a running archiver can answer without it.
#[derive(Args, Clone, Debug)]
pub struct OptionalArchiveArgs {
    /// Where the archive is: file:/path  s3://bucket/prefix  azblob://container/prefix  gs://bucket/prefix
    /// hdfs://host:port/path  webhdfs://host:port/path  sftp://user@host:port/path
    #[arg(long, env = "PITR_ARCHIVE", value_name = "URL", hide_env_values = true)]
    pub archive: Option<String>,
    /// File with the archive's key: 64 hexadecimal digits, readable by its owner only
    #[arg(long, env = "PITR_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

impl OptionalArchiveArgs {
    /// The archive, if one was named.
    pub fn given(&self) -> Option<ArchiveArgs> {
        self.archive.clone().map(|archive| ArchiveArgs { archive, key_file: self.key_file.clone() })
    }
}

/// A group of databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupArgs {
    /// Its name.
    pub name: String,
    /// The configuration that names its databases.
    pub config: PathBuf,
}

/// Which archive, or which group of databases with theirs.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// Where the archive is: file:/path  s3://bucket/prefix  azblob://container/prefix  gs://bucket/prefix
    /// hdfs://host:port/path  webhdfs://host:port/path  sftp://user@host:port/path
    #[arg(
        long,
        env = "PITR_ARCHIVE",
        value_name = "URL",
        hide_env_values = true,
        required_unless_present = "group",
        conflicts_with = "group"
    )]
    pub archive: Option<String>,
    /// File with the archive's key: 64 hexadecimal digits, readable by its owner only
    #[arg(long, env = "PITR_KEY_FILE", value_name = "FILE", conflicts_with = "group")]
    pub key_file: Option<PathBuf>,
    /// Instead of one archive: all databases of this group, with the archives and keys that --config says
    #[arg(long, value_name = "NAME", requires = "config", help_heading = "Group")]
    pub group: Option<String>,
    /// The configuration of pitr run that has the group: group = "NAME" in the section of each of its databases
    #[arg(long, value_name = "FILE", requires = "group", help_heading = "Group")]
    pub config: Option<PathBuf>,
}

/// A group of databases, instead of one.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Group")]
pub struct OptionalGroupArgs {
    /// Instead of one database: all of this group
    #[arg(long, value_name = "NAME", requires = "config")]
    pub group: Option<String>,
    /// The configuration of pitr run that has the group: group = "NAME" in the section of each of its databases
    #[arg(long, value_name = "FILE", requires = "group")]
    pub config: Option<PathBuf>,
}

impl OptionalGroupArgs {
    /// The group, if one was named.
    pub fn given(&self) -> Option<GroupArgs> {
        let (name, config) = self.group.clone().zip(self.config.clone())?;
        Some(GroupArgs { name, config })
    }
}

/// What was named.
#[derive(Clone, Debug)]
pub enum Source {
    /// An archive.
    Archive(ArchiveArgs),
    /// A group.
    Group(GroupArgs),
}

impl SourceArgs {
    /// Which; clap has made sure that there is one.
    pub fn source(&self) -> Source {
        let Self { archive, key_file, group, config } = self.clone();
        match (group, config) {
            (Some(name), Some(config)) => Source::Group(GroupArgs { name, config }),
            _ => Source::Archive(ArchiveArgs { archive: archive.unwrap_or_default(), key_file }),
        }
    }
}

/// Which database.
#[derive(Args, Clone, Debug)]
pub struct DatabaseArgs {
    /// The database's directory (the one that holds the file CURRENT)
    #[arg(long, env = "PITR_DB", value_name = "DIR")]
    pub db: PathBuf,
    /// Where the archiver keeps its state and control socket [default: the database's name with .pitr, beside it]
    #[arg(long, env = "PITR_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// A directory that the server was given as one of its db_paths, in their order (repeatable); OPTIONS files do not
    /// tell
    #[arg(long, value_name = "DIR", help_heading = "Tuning")]
    pub db_path: Vec<PathBuf>,
    /// Where the server's wal_dir is on another file system: where hard links to its files are kept there [default: the
    /// wal_dir's name with .pitr, beside it]
    #[arg(long, value_name = "DIR", help_heading = "Tuning")]
    pub wal_pins: Option<PathBuf>,
}

/// Which database, where the archive alone is enough.
#[derive(Args, Clone, Debug)]
pub struct OptionalDatabaseArgs {
    /// The database's directory (the one that holds the file CURRENT)
    #[arg(long, env = "PITR_DB", value_name = "DIR")]
    pub db: Option<PathBuf>,
    /// Where the archiver keeps its state and control socket [default: the database's name with .pitr, beside it]
    #[arg(long, env = "PITR_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// A directory that the server was given as one of its db_paths, in their order (repeatable); OPTIONS files do not
    /// tell
    #[arg(long, value_name = "DIR", help_heading = "Tuning")]
    pub db_path: Vec<PathBuf>,
    /// Where the server's wal_dir is on another file system: where hard links to its files are kept there [default: the
    /// wal_dir's name with .pitr, beside it]
    #[arg(long, value_name = "DIR", help_heading = "Tuning")]
    pub wal_pins: Option<PathBuf>,
}

impl OptionalDatabaseArgs {
    /// The database, if one was named.
    pub fn given(&self) -> Option<DatabaseArgs> {
        let Self { db, state, db_path, wal_pins } = self.clone();
        db.map(|db| DatabaseArgs { db, state, db_path, wal_pins })
    }
}
