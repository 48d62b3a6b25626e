//! How fast bases are taken and restored, how fast the native engine lays a log down, and how small a log is in the archive,
//! each against what else does it. Run by `make bench`.
//!
//! Parts, all of them or those that are named as arguments: `bases` against RocksDB's `BackupEngine` and `cp`, `native` against
//! `cp`, `archived` against `zstd`. Archives are encrypted, the others' copies are not. Both sides run in turn, on the same
//! disk, from the same state of the page cache, and each is timed until all of it is durable. Everything lies in one
//! directory below `$BENCH_DIR` (default: the system's temporary directory).
//!
//!     ROUNDS           of all sides in turn, medians are told (default 5)
//!     BASE_MB          of the database of which bases are taken (default 5000); six times that is needed on the disk
//!     NATIVE_BASE_MB   of the base below the log that the native engine lays down (default 300)
//!     NATIVE_LOG_MB    of that log (default 500)
//!     ARCHIVED_MB      of the log that is archived beside `zstd` (default 256)
//!     LEVEL            of both, for that (default 1, as of pitr run)
//!     CACHE            cold: nothing of what a side reads is in the page cache (default); warm: all of it
//!     BENCH_JSON       a file to which every table is appended as a line of JSON
//!
//! Ends with 1 where something does not hold. Figures are the machine's: others at work on it are in them.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // it prints figures, and fails by panicking

#[path = "../../../tests/harness/mod.rs"]
mod harness;

mod archived;
mod bases;
#[path = "../common/mod.rs"]
mod common;
mod log;
mod native;
mod peer;
mod round;
mod source;

use common::{beside, cache, content, measure, sealed, table};

/// What can be set.
struct Settings {
    rounds: usize,
    base: u64,
    native_base: u64,
    native_log: u64,
    archived: u64,
    level: i32,
    cache: cache::Cache,
}

/// What a process is promised to need of memory, at most, in MiB.
const MEMORY: f64 = 512.0;
const MB: u64 = 1_000_000;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("{name}: {e}")),
        Err(_) => default,
    }
}

/// So many million bytes.
fn megabytes(name: &str, default: u64) -> u64 {
    number(name, default).max(1) * MB
}

fn main() {
    let settings = Settings {
        rounds: usize::try_from(number("ROUNDS", 5)).expect("a few").max(1),
        base: megabytes("BASE_MB", 5000),
        native_base: megabytes("NATIVE_BASE_MB", 300),
        native_log: megabytes("NATIVE_LOG_MB", 500),
        archived: megabytes("ARCHIVED_MB", 256),
        level: i32::try_from(number("LEVEL", 1)).expect("1 to 19"),
        cache: cache::Cache::chosen(),
    };
    type Part = fn(&Settings) -> Vec<table::Table>;
    // cargo bench adds `--bench`.
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let parts: [(&str, Part); 3] = [("bases", bases::run), ("native", native::run), ("archived", archived::run)];
    assert!(named.iter().all(|n| parts.iter().any(|(part, _)| part == n)), "parts are bases, native, archived");
    let wanted = parts.iter().filter(|(part, _)| named.is_empty() || named.iter().any(|n| n == part));
    // Not `all`, which would stop at the first that does not hold.
    let missed = wanted.flat_map(|(_, run)| run(&settings)).filter(|table| !table.print()).count();
    if missed > 0 {
        std::process::exit(1);
    }
}
