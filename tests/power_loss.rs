//! The power fails, again and again, under load: on the database's disk, on the archive's, on the one that holds both.
//!
//! The file system goes down as it does then: nothing is flushed any more, not even its journal. What a process had
//! fsynced is there afterwards, and of the rest anything or nothing. The promise: after a restart the archive is
//! continuous, or says where it is not by a barrier or another timeline; what the archiver had said to be acknowledged is
//! there, whole; and every target is exact or refused.
//!
//! Needs root, to mount. `PITR_SEED` and `PITR_POWER_CUTS` (for each of the six cases) change the run.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::time::Duration;

use harness::{
    history::{self, Histories},
    mount::{Kind, Mount},
    program::Settings,
    scratch,
    site::Site,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

const PROCESS: &str = "database_process";

/// Not a test of its own: the process whose power fails.
#[test]
fn database_process() {
    history::write_if_asked();
}

/// Which disk loses power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The one with the database and the archiver's state.
    Database,
    /// The one with the archive.
    Archive,
    /// There is only one, with all of it.
    Both,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
}

#[test]
fn after_a_power_cut_under_the_database_the_archive_is_whole_and_every_target_exact_or_refused() {
    for kind in [Kind::Ext4, Kind::Xfs] {
        run(kind, Cut::Database);
    }
}

#[test]
fn after_a_power_cut_under_the_archive_what_was_acknowledged_is_there() {
    for kind in [Kind::Ext4, Kind::Xfs] {
        run(kind, Cut::Archive);
    }
}

#[test]
fn after_a_power_cut_under_both_the_archive_is_whole_and_every_target_exact_or_refused() {
    for kind in [Kind::Ext4, Kind::Xfs] {
        run(kind, Cut::Both);
    }
}

fn run(kind: Kind, cut: Cut) {
    let seed = number("PITR_SEED", 1);
    println!("{kind:?}, {cut:?}: PITR_SEED={seed}");
    let Some(mut disk) = Mount::disk(kind) else { return };
    let root = scratch::directory();
    let mut rng = StdRng::seed_from_u64(seed);
    let on_disk = disk.path();
    let db = if cut == Cut::Archive { root.path().join("db") } else { on_disk.join("db") };
    let archive = if cut == Cut::Database { root.path().join("archive") } else { on_disk.join("archive") };
    // Logs and MANIFESTs are short, so that they come and go.
    let settings = Settings { write_buffer: 192 << 10, manifest_bytes: 8 << 10, ..Settings::default() };
    let mut histories = Histories::new(&db, settings, Duration::from_micros(300));
    let mut site = Site::new(root.path(), &db, &archive);
    let cuts = number("PITR_POWER_CUTS", 4);
    for round in 0..cuts {
        let (mut writer, found) = histories.open(PROCESS);
        if round > 0 {
            // The database has recovered, and stands still.
            site.catch_up();
            site.check(&histories, found, 2, &mut rng);
        }
        let mut archiver = site.start();
        writer.go();
        site.progress(&mut archiver);
        if rng.random_bool(0.5) {
            site.tag(&format!("tag-{round}"));
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(0..400)));
        let heard = site.power_goes();
        histories.power_goes();
        disk.cut_power();
        if cut == Cut::Archive {
            // The archiver waits for its store, and goes on by itself when that is back.
            std::thread::sleep(Duration::from_millis(rng.random_range(0..300)));
            disk.start_again();
            site.progress(&mut archiver);
            assert!(writer.is_running() && !writer.failed(), "the database does not notice");
            if rng.random_bool(0.5) {
                assert!(archiver.stop().success(), "{}", site.log());
            }
            writer.kill();
            histories.power_came();
            continue;
        }
        if rng.random_bool(0.5) {
            // It meets the errors of a disk that is gone.
            std::thread::sleep(Duration::from_millis(rng.random_range(0..200)));
            assert!(!site.log().contains("panicked"), "{}", site.log());
        }
        archiver.kill();
        writer.kill();
        if cut == Cut::Both {
            site.heard(heard);
        }
        disk.start_again();
        if rng.random_bool(0.3) {
            // The archiver is back before the database: it sees the files as the power cut left them.
            let mut early = site.start();
            site.wait_a_while(&mut early, Duration::from_millis(rng.random_range(20..300)));
            early.kill();
        }
    }
    let (mut writer, found) = histories.open(PROCESS);
    site.catch_up();
    site.check(&histories, found, 6, &mut rng);
    writer.kill();
    println!("{kind:?}, {cut:?}: {cuts} cuts, {found} batches at the end; {:?}", site.counts);
    assert!(site.counts.get("exact").copied().unwrap_or_default() > cuts, "most targets are restored");
}
