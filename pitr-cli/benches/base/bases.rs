//! Bases, against RocksDB's backups and a copy: the tables of all rounds.

use crate::{
    MEMORY, Settings,
    beside::place,
    cache,
    peer::AT_ONCE,
    round::{self, Met, Round},
    source,
    table::{Line, Table},
};

/// Of the size of the database, what the source, a round's archive, its backups of two kinds and a copy take together.
const ROOM: u64 = 6;

const MIB: f64 = 1024.0 * 1024.0;

/// One figure of every round.
fn of(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> Vec<f64> {
    rounds.iter().map(figure).collect()
}

/// How many times as fast we were, round by round: what moves all sides of one does not count.
fn times(rounds: &[Round], met: fn(&Round) -> &Met, other: fn(&Met) -> f64) -> Vec<f64> {
    of(rounds, |round| other(met(round)) / met(round).ours)
}

fn first(rounds: &[Round], settings: &Settings) -> Table {
    let mut table = Table::new(format!(
        "the first base of {:.0} MiB, {AT_ONCE} files at a time, synced; {}; ours is encrypted, {} rounds",
        rounds[0].database as f64 / MIB,
        settings.cache.words(),
        rounds.len()
    ));
    let met: fn(&Round) -> &Met = |round| &round.first;
    table.spread("pitr base", &of(rounds, |r| met(r).ours), "s", Line::None);
    table.spread("BackupEngine", &of(rounds, |r| met(r).backup), "s", Line::None);
    table.spread("cp -r --reflink=never, and sync", &of(rounds, |r| met(r).copy), "s", Line::None);
    table.spread("times as fast as BackupEngine", &times(rounds, met, |m| m.backup), "", Line::AtLeast(1.2));
    table.spread("times as fast as cp", &times(rounds, met, |m| m.copy), "", Line::AtLeast(0.8));
    table.spread("pitr base", &of(rounds, |r| r.database as f64 / MIB / met(r).ours), "MiB/s", Line::None);
    table.spread("processor time of it", &of(rounds, |r| met(r).processor), "s", Line::None);
    table.spread("peak memory of pitr base", &of(rounds, |r| met(r).peak), "MiB", Line::AtMost(MEMORY));
    table
}

fn next(rounds: &[Round], settings: &Settings) -> Table {
    let mut table = Table::new(format!(
        "the next base after 5 % of the keys changed, all over the database, by the running archiver; {}",
        settings.cache.words()
    ));
    let met: fn(&Round) -> &Met = |round| &round.next;
    table.spread("pitr base", &of(rounds, |r| met(r).ours), "s", Line::None);
    table.spread("BackupEngine, share_files_with_checksum", &of(rounds, |r| met(r).backup), "s", Line::None);
    table.spread("times as fast as BackupEngine", &times(rounds, met, |m| m.backup), "", Line::AtLeast(3.0));
    let names = "BackupEngine, files named by checksum (before RocksDB 6.12; reads all)";
    table.spread(names, &of(rounds, |r| met(r).by_checksum), "s", Line::None);
    table.spread("times as fast as that", &times(rounds, met, |m| m.by_checksum), "", Line::None);
    let copy = format!("a copy of the new files and nothing else, {AT_ONCE} at a time, and sync");
    table.spread(&copy, &of(rounds, |r| met(r).copy), "s", Line::None);
    let least = of(rounds, |r| met(r).backup / met(r).copy);
    table.spread("that is, times as fast as BackupEngine: the most that can be", &least, "", Line::None);
    table.spread("added to the archive", &of(rounds, |r| r.added as f64 / MIB), "MiB", Line::None);
    table.spread("added to the backups", &of(rounds, |r| r.added_backup as f64 / MIB), "MiB", Line::None);
    table.spread("processor time of it", &of(rounds, |r| met(r).processor), "s", Line::None);
    table.spread("peak memory of pitr base", &of(rounds, |r| met(r).peak), "MiB", Line::AtMost(MEMORY));
    table.spread(
        "peak memory of pitr run, from before the changes on",
        &of(rounds, |r| r.archiver_peak),
        "MiB",
        Line::AtMost(MEMORY),
    );
    table
}

fn restore(rounds: &[Round], settings: &Settings) -> Table {
    let mut table = Table::new(format!(
        "a restore of that base, {:.0} MiB, {AT_ONCE} files at a time, synced; {}",
        rounds[0].restored as f64 / MIB,
        settings.cache.words()
    ));
    let met: fn(&Round) -> &Met = |round| &round.restore;
    table.spread("pitr restore --to-latest", &of(rounds, |r| met(r).ours), "s", Line::None);
    table.spread("BackupEngine", &of(rounds, |r| met(r).backup), "s", Line::None);
    table.spread("times as fast as BackupEngine", &times(rounds, met, |m| m.backup), "", Line::AtLeast(1.2));
    table.spread("pitr restore", &of(rounds, |r| r.restored as f64 / MIB / met(r).ours), "MiB/s", Line::None);
    table.spread("processor time of it", &of(rounds, |r| met(r).processor), "s", Line::None);
    table.spread("peak memory of pitr restore", &of(rounds, |r| met(r).peak), "MiB", Line::AtMost(MEMORY));
    table
}

pub fn run(settings: &Settings) -> Vec<Table> {
    let root = place();
    cache::refuse_unfit(root.path(), settings.base * ROOM);
    let source = root.path().join("source");
    source::write(&source, settings.base);
    let rounds: Vec<_> = (0..settings.rounds).map(|n| round::run(root.path(), &source, settings, n)).collect();
    [first, next, restore].map(|table| table(&rounds, settings)).into()
}
