//! What a writer notices of the archiver: at the most that it can write, and at half of that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngCore, SeedableRng, rngs::StdRng};
use rocksdb::DB;

use crate::{
    Settings,
    beside::{Archiver, database, place},
    table::{Line, Table, median, quantile},
};

const KEYS: u64 = 1_000_000;
const VALUE: usize = 400;
/// A paced writer writes what is due so often.
const TICK: Duration = Duration::from_millis(1);

/// How fast is written.
#[derive(Clone, Copy)]
enum Pace {
    /// As fast as it goes.
    Full,
    /// So many a second.
    PerSecond(f64),
}

/// Who is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Alone,
    Beside,
}

/// What a writer met.
struct Met {
    /// Writes a second.
    rate: f64,
    /// 99th percentile of the time that a write took, in microseconds.
    p99: f64,
    /// The greatest lag, in seconds and bytes, and for how long the archiver had to catch up in the end.
    lag: f64,
    lag_bytes: f64,
    behind: f64,
}

/// Values of which half can be compressed, as most can.
fn values() -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(1);
    let value = |rng: &mut StdRng| {
        let mut value = vec![b'v'; VALUE];
        rng.fill_bytes(&mut value[..VALUE / 2]);
        value
    };
    std::iter::repeat_with(|| value(&mut rng)).take(4096).collect()
}

/// Writes for so long; how many, and how long each took, in microseconds.
fn write(db: &DB, values: &[Vec<u8>], pace: Pace, time: Duration) -> (u64, Vec<f64>) {
    let (start, mut written, mut took) = (Instant::now(), 0_u64, Vec::new());
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    loop {
        let passed = start.elapsed();
        if passed >= time {
            return (written, took);
        }
        let due = match pace {
            Pace::Full => written + 1000,
            Pace::PerSecond(rate) => (rate * passed.as_secs_f64()) as u64,
        };
        while written < due {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = format!("{:016}", (random >> 20) % KEYS);
            let begun = Instant::now();
            db.put(key, &values[written as usize % values.len()]).expect("a write");
            took.push(begun.elapsed().as_nanos() as f64 / 1000.0);
            written += 1;
        }
        if let Pace::PerSecond(_) = pace {
            std::thread::sleep(TICK);
        }
    }
}

/// One side of a round: a new database, so that all find the same.
fn side(side: Side, values: &[Vec<u8>], pace: Pace, time: Duration) -> Met {
    let root = place();
    let dir = root.path().join("db");
    let db = database(&dir);
    db.put("first", "1").expect("a write");
    let archiver = (side == Side::Beside).then(|| Archiver::beside(root.path(), &dir));
    let stop = Arc::new(AtomicBool::new(false));
    let (mut lag, mut lag_bytes, mut behind) = (0.0_f64, 0.0_f64, 0.0);
    let (written, mut took) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let done = write(&db, values, pace, time);
            stop.store(true, Ordering::SeqCst);
            done
        });
        while let Some(archiver) = &archiver
            && !stop.load(Ordering::SeqCst)
        {
            std::thread::sleep(Duration::from_millis(500));
            let Some(metrics) = archiver.metrics() else { continue };
            lag = lag.max(metrics.sum("pitr_lag_seconds", "").unwrap_or(0.0));
            lag_bytes = lag_bytes.max(metrics.sum("pitr_lag_bytes", "").unwrap_or(0.0));
        }
        writer.join().expect("the writer")
    });
    if let Some(archiver) = archiver {
        behind = archiver.caught_up(written + 1).as_secs_f64();
        archiver.stop();
    }
    Met { rate: written as f64 / time.as_secs_f64(), p99: quantile(&mut took, 0.99), lag, lag_bytes, behind }
}

/// Both sides in turn; which of them is first changes.
fn rounds(settings: &Settings, values: &[Vec<u8>], pace: Pace) -> [Vec<Met>; 2] {
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 0..settings.rounds {
        let order = if round % 2 == 0 { [Side::Alone, Side::Beside] } else { [Side::Beside, Side::Alone] };
        for one in order {
            let met = side(one, values, pace, settings.round);
            if one == Side::Alone { alone.push(met) } else { beside.push(met) }
        }
    }
    [alone, beside]
}

fn middle(of: &[Met], what: impl Fn(&Met) -> f64) -> f64 {
    median(&of.iter().map(what).collect::<Vec<_>>())
}

fn greatest(of: &[Met], what: impl Fn(&Met) -> f64) -> f64 {
    of.iter().map(what).fold(0.0, f64::max)
}

/// The median of what each round says by itself: what moves both of its sides does not count.
fn ratio(beside: &[Met], alone: &[Met], what: impl Fn(&Met) -> f64) -> f64 {
    median(&beside.iter().zip(alone).map(|(b, a)| what(b) / what(a)).collect::<Vec<_>>())
}

pub fn run(settings: &Settings) -> Table {
    let values = values();
    let title = format!(
        "a writer with and without pitr run beside it: one thread, puts of 16 + {VALUE} bytes, no sync, {} cores; medians of {} rounds of {} s",
        std::thread::available_parallelism().map_or(0, usize::from),
        settings.rounds,
        settings.round.as_secs()
    );
    let mut table = Table::new(title);
    let [alone, beside] = rounds(settings, &values, Pace::Full);
    let most = middle(&alone, |m| m.rate);
    table.row("as fast as it goes, alone", most, "/s", Line::None);
    table.row("as fast as it goes, beside", middle(&beside, |m| m.rate), "/s", Line::None);
    table.row("  ratio", ratio(&beside, &alone, |m| m.rate), "", Line::AtLeast(0.85));
    table.row("  greatest lag", greatest(&beside, |m| m.lag), "s", Line::None);
    table.row("  greatest lag", greatest(&beside, |m| m.lag_bytes) / f64::from(1 << 20), "MiB", Line::None);
    table.row("  caught up after the last write, greatest", greatest(&beside, |m| m.behind), "s", Line::None);
    let [alone, beside] = rounds(settings, &values, Pace::PerSecond(most / 2.0));
    table.row("at half of that, alone", middle(&alone, |m| m.rate), "/s", Line::None);
    table.row("at half of that, beside", middle(&beside, |m| m.rate), "/s", Line::None);
    table.row("  ratio", ratio(&beside, &alone, |m| m.rate), "", Line::AtLeast(0.99));
    table.row("99th percentile of a write, alone", middle(&alone, |m| m.p99), "us", Line::None);
    table.row("99th percentile of a write, beside", middle(&beside, |m| m.p99), "us", Line::None);
    table.row("  ratio", ratio(&beside, &alone, |m| m.p99), "", Line::AtMost(1.10));
    table.row("  greatest lag", greatest(&beside, |m| m.lag), "s", Line::None);
    table
}
