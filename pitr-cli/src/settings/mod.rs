//! The configuration file of a service: what `pitr run --config` archives.
//!
//! - [`mod@file`]: the keys as they are written; the schema is made of these types.
//! - [`sources`]: the file, `conf.d/*.toml` beside it and `PITR__…` variables, each checked alone, then laid over each other.
//! - [`secret`]: where a key comes from (`env:`, `file:`, `exec:`), and reading it.
//! - [`schedule`]: cron expressions.
//! - [`merge`]: how segments are merged.
//! - [`limits`]: what the process may use of its machine.
//! - [`groups`]: which databases are tagged and restored together.
//! - [`jobs`]: what follows: one archiver's settings for every archive of every database.
//!
//! Refuses: to open a database, a store or an archive.

pub mod file;
pub mod groups;
pub mod jobs;
pub mod limits;
pub mod merge;
pub mod schedule;
pub mod secret;
pub mod sources;
