//! What `pitr run` may use of its machine: bandwidth, priority, threads.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::{process::Stdio, time::Instant};

use harness::{
    command::{self, pitr, text, url},
    program::Settings,
    scratch::{self, bytes_below},
    server::{self, Places},
};

const MIB: usize = 1 << 20;

/// The nice values of a process's threads.
fn nice_values(id: u32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap().flatten();
    let nice = |stat: String| stat.rsplit_once(')')?.1.split_whitespace().nth(16)?.parse().ok();
    threads.filter_map(|t| std::fs::read_to_string(t.path().join("stat")).ok().and_then(nice)).collect()
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

#[test]
fn a_slow_base_delays_no_segment_and_the_archiver_lets_others_go_first() {
    let root = scratch::on_disk();
    let dir = root.path().join("db");
    let db = server::open(&dir, &Places::default(), &Settings::default()).expect("a new database").db;
    for i in 0..12_u64 {
        db.put(format!("{i:04}"), noise(MIB, i + 1)).unwrap();
    }
    db.flush().unwrap();
    let place = root.path().join("archive");
    let archive = url(&place);
    let started = Instant::now();
    let limits = ["--upload-rate", "1MiB", "--read-rate", "64MiB", "--nice", "7", "--threads", "1"];
    let mut archiver = pitr(["run", "--db", text(&dir), "--archive", &archive])
        .args(limits)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starting pitr run");
    let files = place.join("files");
    // The log holds the same 12 MiB; they go first.
    let mut flushed_before_the_base = 0;
    while command::bases(&archive) == 0 {
        assert!(started.elapsed() < command::LIMIT, "waiting for the base");
        assert!(archiver.try_wait().unwrap().is_none(), "the archiver ended");
        db.put("small", noise(100, 99)).unwrap();
        // At first it does not listen yet.
        let flushed = command::finish(&mut pitr(["flush", "--db", text(&dir)])).status.success();
        if flushed && bytes_below(&files) == 0 && command::bases(&archive) == 0 {
            flushed_before_the_base += 1;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let took = started.elapsed();
    assert!(took.as_secs_f64() > 9.0, "12 MiB at 1 MiB a second, of which one second's are free at first: {took:?}");
    assert!(flushed_before_the_base >= 3, "segments are acknowledged while the base is on its way");
    let nice = nice_values(archiver.id());
    assert!(!nice.is_empty() && nice.iter().all(|n| *n == nice[0] && *n >= 7), "{nice:?}");
    command::terminate(&archiver);
    assert!(command::wait(&mut archiver).unwrap().success());
    let into = root.path().join("copy");
    command::succeed(&mut pitr(["restore", "--to-latest", "--archive", &archive, "--into", text(&into)]));
}
