//! How soon what was committed is durable in the archive, and how long a tag takes.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use pitr_archive::{
    ids::{Ordinal, TimelineId},
    object_key::ObjectKey,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    Settings,
    beside::{Archiver, archive, database, place, state},
    harness::command::{self, pitr, text, url},
    table::{Line, Table, quantile},
};

/// How often is looked whether the next segment is there.
const LOOK: Duration = Duration::from_millis(1);
/// Between two commits, on average.
const BETWEEN: Duration = Duration::from_millis(10);
/// What is promised beyond the interval, which is the default: a second.
const BEYOND: Duration = Duration::from_millis(250);
const INTERVAL: Duration = Duration::from_secs(1);

pub fn run(settings: &Settings) -> Table {
    let root = place();
    let dir = root.path().join("db");
    let db = database(&dir);
    let archiver = Archiver::beside(root.path(), &dir);
    let (stop, segments) = (AtomicBool::new(false), archive(root.path()));
    let key = |ordinal| segments.join(ObjectKey::segment(TimelineId::FIRST, Ordinal::new(ordinal)).as_str());
    let (commits, appeared) = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            // When each segment was durable: seen, and the directory that names it on the disk.
            let mut appeared = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let path = key(appeared.len() as u64);
                if path.exists() {
                    let directory = File::open(path.parent().expect("a directory")).expect("a directory");
                    directory.sync_all().expect("a sync");
                    appeared.push(Instant::now());
                } else {
                    std::thread::sleep(LOOK);
                }
            }
            appeared
        });
        let (start, mut rng, mut commits) = (Instant::now(), StdRng::seed_from_u64(1), Vec::new());
        while start.elapsed() < settings.watch {
            db.put(format!("{:08}", commits.len()), [b'v'; 400]).expect("a write");
            commits.push(Instant::now());
            std::thread::sleep(BETWEEN.mul_f64(rng.random_range(0.0..2.0)));
        }
        archiver.caught_up(commits.len() as u64);
        stop.store(true, Ordering::SeqCst);
        (commits, looking.join().expect("whoever looks"))
    });
    // One commit is one record: those of a segment are told by the archive.
    let listed = command::succeed(&mut pitr(["list", "--segments", "--json", "--archive", &url(&segments)]));
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let mut delays = Vec::new();
    for segment in listed["segments"].as_array().expect("segments") {
        let number = |name: &str| segment[name].as_u64().expect("a number") as usize;
        let at = appeared[number("ordinal")];
        let of_segment = &commits[number("first")..number("end")];
        delays.extend(of_segment.iter().map(|commit| (at - *commit).as_secs_f64() * 1000.0));
    }
    assert_eq!(delays.len(), commits.len(), "one commit is one record");

    let (mut tags, mut disk) = (Vec::new(), Vec::new());
    for n in 0..settings.tags {
        db.put("between", n.to_string()).expect("a write");
        let (name, state) = (format!("tag-{n}"), state(root.path()));
        let begun = Instant::now();
        command::succeed(&mut pitr(["tag", "create", &name, "--db", text(&dir), "--state", text(&state)]));
        tags.push(begun.elapsed().as_secs_f64() * 1000.0);
        std::thread::sleep(BETWEEN);
        disk.push(two_durable_files(root.path(), n).as_secs_f64() * 1000.0);
        std::thread::sleep(BETWEEN);
    }
    archiver.stop();

    let title = format!(
        "from a commit to its being durable in a local archive (interval 1 s, {} commits), and pitr tag create ({} tags)",
        commits.len(),
        tags.len()
    );
    let mut table = Table::new(title);
    let most = (INTERVAL + BEYOND).as_secs_f64() * 1000.0;
    table.row("commit to durable, half of them", quantile(&mut delays, 0.5), "ms", Line::None);
    table.row("commit to durable, 99th percentile", quantile(&mut delays, 0.99), "ms", Line::AtMost(most));
    table.row("commit to durable, the last", quantile(&mut delays, 1.0), "ms", Line::None);
    table.row("a tag, the whole command, half of them", quantile(&mut tags, 0.5), "ms", Line::None);
    table.row("a tag, the whole command, 99th percentile", quantile(&mut tags, 0.99), "ms", Line::AtMost(100.0));
    table.row("a tag, the whole command, the last", quantile(&mut tags, 1.0), "ms", Line::None);
    table.row("the disk alone for its two objects, 99th percentile", quantile(&mut disk, 0.99), "ms", Line::None);
    table.row("the disk alone for its two objects, the last", quantile(&mut disk, 1.0), "ms", Line::None);
    table
}

/// What a tag cannot do without: a segment and the tag's own object, each durable together with its name.
fn two_durable_files(place: &Path, n: usize) -> Duration {
    let directory = File::open(place).expect("a directory");
    let begun = Instant::now();
    for object in ["segment", "tag"] {
        let mut file = File::create(place.join(format!("{object}-{n}"))).expect("a file");
        file.write_all(&[b'o'; 2000]).expect("a write");
        file.sync_all().expect("a sync");
        directory.sync_all().expect("a sync");
    }
    begun.elapsed()
}
