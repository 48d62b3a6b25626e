//! What the store is asked, while something is written and while nothing is.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rocksdb::DB;

use crate::{
    Settings,
    beside::{Archiver, database, place},
    table::{Line, Table},
};

/// Until what belongs to the beginning is over: the base, the first look at the catalog.
const SETTLES: Duration = Duration::from_secs(10);

/// Requests by kind until now.
fn requests(archiver: &Archiver) -> BTreeMap<String, f64> {
    archiver.metrics().expect("metrics").by_label("pitr_store_requests_total", "request")
}

/// Requests by kind in this time, and how many there were of segments with records.
fn watch(archiver: &Archiver, db: &DB, writes: Option<Duration>, time: Duration) -> (BTreeMap<String, f64>, f64, f64) {
    let segments = || archiver.metrics().and_then(|m| m.sum("pitr_archived_segments_total", "")).unwrap_or(0.0);
    let (before, segments_before, start) = (requests(archiver), segments(), Instant::now());
    while start.elapsed() < time {
        match writes {
            Some(pause) => {
                db.put("key", start.elapsed().as_nanos().to_string()).expect("a write");
                std::thread::sleep(pause);
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let made = requests(archiver).into_iter().map(|(kind, n)| {
        let n = n - before.get(&kind).copied().unwrap_or_default();
        (kind, n)
    });
    (made.filter(|(_, n)| *n > 0.0).collect(), segments() - segments_before, seconds)
}

pub fn run(settings: &Settings) -> Table {
    let root = place();
    let dir = root.path().join("db");
    let db = database(&dir);
    db.put("first", "1").expect("a write");
    let archiver = Archiver::beside(root.path(), &dir);
    std::thread::sleep(SETTLES);
    let mut table = Table::new(format!(
        "requests to the store in {} s, interval 1 s, heartbeat and manifest 5 min (one of each may fall into this time)",
        settings.watch.as_secs()
    ));
    for (what, writes) in [("a hundred writes a second", Some(Duration::from_millis(10))), ("nothing written", None)] {
        if writes.is_none() {
            // The last segment.
            std::thread::sleep(Duration::from_secs(3));
        }
        let (made, segments, seconds) = watch(&archiver, &db, writes, settings.watch);
        let of = |kind: &str| made.get(kind).copied().unwrap_or_default();
        // One an interval; a heartbeat and a manifest come every five minutes.
        let most = if writes.is_some() { (seconds + 1.0).floor() + 2.0 } else { 2.0 };
        table.row(format!("{what}: PUT"), of("put"), "", Line::AtMost(most));
        table.row(format!("{what}: LIST"), of("list"), "", Line::AtMost(0.0));
        table.row(format!("{what}: segments with records"), segments, "", Line::None);
        table.note(format!("{what}, all requests: {made:?}"));
    }
    archiver.stop();
    table
}
