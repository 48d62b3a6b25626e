//! How fast a restore is, against what RocksDB and the system do with the same bytes. Run by `make bench`.
//!
//! Parts, all of them or those that are named as arguments: `random`, `hot`, `mixed`. Each writes a database with
//! `pitr run --ship-flushes` beside it, encrypted; then, alternating, a restore with the engine that `plan` chooses and the open
//! of what it made, against RocksDB's recovery of the same log from the same base. Everything lies in one directory on a
//! disk, below `$BENCH_DIR` (default: the system's temporary directory).
//!
//!     ROUNDS       of both sides in turn, medians are told (default 5)
//!     WRITES       of a database (default 5,000,000)
//!     BENCH_JSON   a file to which every table is appended as a line of JSON
//!
//! Ends with 1 where something does not hold. Figures are the machine's: others at work on it are in them.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // it prints figures, and fails by panicking

#[path = "../../../tests/harness/mod.rs"]
mod harness;

#[path = "../common/mod.rs"]
mod common;
mod replay;
mod writes;

use common::{beside, content, measure, sealed, table};

/// What can be set.
struct Settings {
    rounds: usize,
    writes: u64,
}

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("{name}: {e}")),
        Err(_) => default,
    }
}

fn main() {
    let settings = Settings {
        rounds: usize::try_from(number("ROUNDS", 5)).expect("a few").max(1),
        writes: number("WRITES", 5_000_000).max(1000),
    };
    // cargo bench adds `--bench`.
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let known = writes::SHAPES.iter().map(|shape| shape.name);
    assert!(named.iter().all(|n| known.clone().any(|name| name == n)), "parts are {:?}", known.collect::<Vec<_>>());
    let wanted = writes::SHAPES.iter().filter(|shape| named.is_empty() || named.iter().any(|n| n == shape.name));
    // Not `all`, which would stop at the first that does not hold.
    let missed = wanted.filter(|shape| !replay::run(shape, &settings).print()).count();
    if missed > 0 {
        std::process::exit(1);
    }
}
