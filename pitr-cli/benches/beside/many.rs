//! Twenty idle databases in one process.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use crate::{
    Settings,
    beside::{Archiver, database, place},
    harness::{
        command::{pitr, text},
        station::resident,
    },
    measure::processor_time,
    table::{Line, Table},
};

const DATABASES: usize = 20;
/// Until what belongs to the beginning is over.
const SETTLES: Duration = Duration::from_secs(10);

pub fn run(settings: &Settings) -> Table {
    let root = place();
    let mut configuration = String::new();
    let databases: Vec<_> = (0..DATABASES)
        .map(|n| {
            let (dir, archive) = (root.path().join(format!("db-{n}")), root.path().join(format!("archive-{n}")));
            let db = database(&dir);
            for i in 0..1000 {
                db.put(format!("{i:08}"), [b'v'; 400]).expect("a write");
            }
            let (db_text, archive) = (text(&dir), text(&archive));
            writeln!(configuration, "[databases.db{n}]\ndb = \"{db_text}\"\narchive.url = \"file:{archive}\"")
                .expect("text");
            db
        })
        .collect();
    let file = root.path().join("pitr.toml");
    std::fs::write(&file, configuration).expect("a configuration");
    let archiver = Archiver::start(pitr(["run", "--config", text(&file)]), DATABASES);
    std::thread::sleep(SETTLES);
    let (before, start) = (processor_time(archiver.id()).expect("a running archiver"), Instant::now());
    let mut most = 0;
    while start.elapsed() < settings.watch * 2 {
        most = most.max(resident(archiver.id()).expect("a running archiver"));
        std::thread::sleep(Duration::from_secs(1));
    }
    let used = (processor_time(archiver.id()).expect("a running archiver") - before).as_secs_f64()
        / start.elapsed().as_secs_f64()
        * 100.0;
    archiver.stop();
    drop(databases);
    let title = format!("{DATABASES} idle databases in one process, {} s", settings.watch.as_secs() * 2);
    let mut table = Table::new(title);
    table.row("resident, the most", most as f64 / f64::from(1 << 20), "MiB", Line::AtMost(200.0));
    table.row("of a core", used, "%", Line::AtMost(2.0));
    table
}
