//! What `pitr run` costs the server beside it, and how soon it has what was written. Run by `make bench`.
//!
//! Four parts, each with the line that it is measured against; all of them, or those that are named as arguments:
//! `writer`, `durable`, `requests`, `many`. Databases, archives and state lie in one directory on a disk, below
//! `$BENCH_DIR` (default: the system's temporary directory), so the archiver takes its share of that disk, too.
//!
//!     ROUNDS          of both sides in turn, medians are told (default 10)
//!     ROUND_SECONDS   for each side of a round (default 3)
//!     WATCH_SECONDS   for what is watched instead: commits, requests, idle databases (default 30; idle: twice that)
//!     TAGS            that are made (default 100)
//!     BENCH_JSON      a file to which every table is appended as a line of JSON
//!
//! Ends with 1 where something does not hold. Figures are the machine's: others at work on it are in them.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // it prints figures, and fails by panicking

#[path = "../../../tests/harness/mod.rs"]
mod harness;

#[path = "../common/mod.rs"]
mod common;
mod durable;
mod many;
mod requests;
mod writer;

use std::time::Duration;

use common::{beside, measure, table};

/// What can be set.
struct Settings {
    rounds: usize,
    round: Duration,
    watch: Duration,
    tags: usize,
}

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("{name}: {e}")),
        Err(_) => default,
    }
}

fn main() {
    let settings = Settings {
        rounds: usize::try_from(number("ROUNDS", 10)).expect("a few").max(1),
        round: Duration::from_secs(number("ROUND_SECONDS", 3).max(1)),
        watch: Duration::from_secs(number("WATCH_SECONDS", 30).max(5)),
        tags: usize::try_from(number("TAGS", 100)).expect("a few").max(1),
    };
    type Part = fn(&Settings) -> table::Table;
    // cargo bench adds `--bench`.
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let parts: [(&str, Part); 4] =
        [("writer", writer::run), ("durable", durable::run), ("requests", requests::run), ("many", many::run)];
    assert!(named.iter().all(|n| parts.iter().any(|(part, _)| part == n)), "parts are writer, durable, requests, many");
    let wanted = parts.iter().filter(|(part, _)| named.is_empty() || named.iter().any(|n| n == part));
    // What one part left to be written is no part of the next: a tag would wait for a database of gigabytes.
    let measure = |run: Part| {
        rustix::fs::sync();
        run(&settings)
    };
    // Not `all`, which would stop at the first that does not hold.
    let missed = wanted.filter(|(_, run)| !measure(*run).print()).count();
    if missed > 0 {
        std::process::exit(1);
    }
}
