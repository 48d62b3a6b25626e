//! The native engine, against a copy of what it lays down.
//!
//! A base and a long log behind it: fetched, decrypted, unpacked, checked, and written as the files that the server opens. The copy
//! is of exactly these files.

use std::fs;

use crate::{
    MEMORY, Settings,
    beside::{Archiver, archive, database, place, state},
    cache,
    content::content,
    harness::command::{self, pitr, text},
    log::Busy,
    measure::{self, durable},
    peer,
    sealed::Sealed,
    source,
    table::{Line, Table},
};

/// Source, archive and two copies.
const ROOM: u64 = 5;

const MIB: f64 = 1024.0 * 1024.0;

/// Writes and archives it.
fn write(place: &Sealed, settings: &Settings) -> (blake3::Hash, u64) {
    let (dir, state) = (place.root.join("db"), state(&place.root));
    let db = database(&dir);
    source::put(&db, 0..source::keys(settings.native_base), 1);
    source::settle(&db);
    let archiver = Archiver::start(place.pitr(["run", "--db", text(&dir), "--state", text(&state)]), 1);
    let (mut busy, mut written) = (Busy::new(3), 0);
    while written < settings.native_log {
        let (batch, bytes) = busy.batch();
        db.write(batch).expect("a write");
        written += bytes;
    }
    command::succeed(&mut pitr(["flush", "--db", text(&dir), "--state", text(&state)]));
    archiver.stop();
    content(&db, &[])
}

pub fn run(settings: &Settings) -> Vec<Table> {
    let root = place();
    cache::refuse_unfit(root.path(), (settings.native_base + settings.native_log) * ROOM);
    let place = Sealed::new(root.path());
    let expected = write(&place, settings);
    fs::remove_dir_all(root.path().join("db")).expect("removing the source");
    let [restored, ours, copy] = ["restored", "ours", "copy"].map(|name| root.path().join(name));
    let restore = |into| {
        let args = ["restore", "--to-latest", "--engine", "native", "--into", text(into)];
        measure::run(&mut place.pitr(args))
    };
    restore(&restored);
    let bytes = cache::bytes(&restored) as f64 / MIB;

    let (mut took, mut copied, mut peaks, mut processor) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..settings.rounds {
        for side in 0..2 {
            if (round + side) % 2 == 0 {
                settings.cache.before(&archive(root.path()));
                let (seconds, ran) = durable(root.path(), || restore(&ours));
                took.push(seconds);
                peaks.push(ran.peak_mib());
                processor.push(ran.processor.as_secs_f64());
                if round == 0 {
                    assert_eq!(cache::bytes(&ours), cache::bytes(&restored), "they are not the same bytes");
                    let opened = content(&source::open(&ours), &[]);
                    assert_eq!(opened, expected, "what was restored is not the database");
                }
                fs::remove_dir_all(&ours).expect("removing a copy");
            } else {
                settings.cache.before(&restored);
                copied.push(durable(root.path(), || peer::copy(&restored, &copy)).0);
                fs::remove_dir_all(&copy).expect("removing a copy");
            }
        }
    }
    let speed: Vec<_> = copied.iter().zip(&took).map(|(copied, took)| copied / took).collect();
    let rate: Vec<_> = took.iter().map(|seconds| bytes / seconds).collect();
    let mut table = Table::new(format!(
        "the native engine: {:.0} MB of base and {:.0} MB of log, {bytes:.0} MiB in files, synced; {}; ours is encrypted, {} rounds",
        settings.native_base as f64 / crate::MB as f64,
        settings.native_log as f64 / crate::MB as f64,
        settings.cache.words(),
        settings.rounds
    ));
    table.spread("pitr restore --engine native", &took, "s", Line::None);
    table.spread("cp -r --reflink=never of what it made, and sync", &copied, "s", Line::None);
    table.spread("of cp's speed", &speed, "", Line::AtLeast(0.7));
    table.spread("pitr restore --engine native", &rate, "MiB/s", Line::None);
    table.spread("processor time of it", &processor, "s", Line::None);
    table.spread("peak memory of pitr restore", &peaks, "MiB", Line::AtMost(MEMORY));
    vec![table]
}
