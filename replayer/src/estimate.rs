//! How long a restore takes, by what drills have measured.
//!
//! Owns: the arithmetic. A restore is planning, fetching (with laying down, which goes on meanwhile) and opening. What each of
//! the last two takes grows with bytes; at what rate, earlier drills tell: those of the same engine, on the same kind of store
//! and, where there are any, on the same machine. A phase that was over in no time tells what it costs at least, and no rate.
//! Where nothing is measured, stated rates count, and the answer says that it is a guess.
//! Pure. Refuses: reading reports, and to be more than a hint: nothing is decided by an estimate.

use pitr_archive::{
    catalog::schema::{DrillDocument, DrillEstimate, DrillPlace, DrillPlan, DrillTimes},
    ids::BaseId,
};
use serde::Serialize;

use crate::plan::{RestorePlan, engine::Engine};

/// So many drills count, the newest: machines and stores change.
pub const DRILLS: usize = 5;

/// What took less tells no rate: it is the cost of a few files and requests.
const LEAST: f64 = 0.2;

// Where nothing is measured: what a plain disk or a store in the same region does at least.
/// Planning, in seconds.
const PLANNING: f64 = 1.0;
/// Bytes fetched and laid down in a second.
const FETCHED: f64 = 40e6;
/// The same where tables are made of the log on the way.
const TABLED: f64 = 15e6;
/// Seconds until RocksDB has opened a database without a log.
const OPENED: f64 = 0.5;
/// Bytes of the log, as the archive stores it, that RocksDB replays in a second.
const REPLAYED: f64 = 10e6;

/// How large a restore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// How the log is brought in.
    pub engine: Engine,
    /// Bytes fetched, at most.
    pub download_bytes: u64,
    /// Bytes of the log as it is stored.
    pub log_bytes: u64,
}

impl From<&RestorePlan> for Size {
    fn from(plan: &RestorePlan) -> Self {
        let log_bytes = plan.segments.iter().map(|segment| segment.bytes).sum();
        Self { engine: plan.engine.name, download_bytes: plan.download_bytes, log_bytes }
    }
}

/// How long a restore takes until its database can be read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// All of it.
    pub seconds: f64,
    /// Reading the catalog and planning.
    pub planning_seconds: f64,
    /// Fetching and laying down.
    pub fetching_seconds: f64,
    /// RocksDB's recovery; left to the server, unless it is done here.
    pub opening_seconds: f64,
    /// By what.
    #[serde(flatten)]
    pub basis: Basis,
}

/// What an estimate rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "basis", rename_all = "kebab-case")]
pub enum Basis {
    /// Drills.
    Measured {
        /// The newest of them.
        drill: BaseId,
        /// How many.
        drills: usize,
        /// They were done on other machines.
        elsewhere: bool,
    },
    /// Stated rates.
    Guess {
        /// Why.
        reason: &'static str,
    },
}

impl Estimate {
    /// As a drill's report stores it.
    pub fn stored(&self) -> DrillEstimate {
        // An estimate of more than an age of the world is not told apart from one.
        DrillEstimate { micros: (self.seconds * 1e6) as u64, measured: matches!(self.basis, Basis::Measured { .. }) }
    }
}

/// What a drill measured.
struct Sample<'a> {
    plan: &'a DrillPlan,
    took: &'a DrillTimes,
    drill: &'a DrillDocument,
}

/// How long a restore of this size takes at `place`; `drills` are reports, the newest first.
pub fn estimate(size: &Size, place: &DrillPlace, drills: &[DrillDocument]) -> Estimate {
    let at_store = || drills.iter().filter(|drill| drill.went_well() && drill.place.store == place.store);
    let of_engine = |here: bool| -> Vec<Sample<'_>> {
        let wanted = at_store().filter(|drill| !here || drill.place.machine == place.machine);
        let samples = wanted.filter_map(|drill| Some(Sample { plan: drill.plan.as_ref()?, took: &drill.took, drill }));
        samples.filter(|sample| sample.plan.engine == engine_name(size.engine)).take(DRILLS).collect()
    };
    let here = of_engine(true);
    let elsewhere = here.is_empty();
    let samples = if elsewhere { of_engine(false) } else { here };
    let of_phase = |bytes: fn(&DrillPlan) -> u64, took: fn(&DrillTimes) -> Option<u64>| -> Vec<(u64, f64)> {
        let timed = samples.iter().filter_map(|sample| Some((bytes(sample.plan), seconds(took(sample.took)?))));
        timed.collect()
    };
    let planning = of_phase(|_| 0, |took| took.planning);
    let fetching = of_phase(|plan| plan.download_bytes, |took| took.laying_down);
    let opening = of_phase(|plan| plan.log_bytes, |took| took.opening);
    let fetched = if size.engine == Engine::Bulk { TABLED } else { FETCHED };
    // Its tables are there: nothing is replayed.
    let replayed = if size.engine == Engine::Bulk { f64::INFINITY } else { REPLAYED };
    let planning_seconds = mean(planning.iter().map(|(_, seconds)| *seconds)).unwrap_or(PLANNING);
    let fetching_seconds = phase(&fetching, size.download_bytes, 0.0, fetched);
    let opening_seconds = phase(&opening, size.log_bytes, OPENED, replayed);
    let basis = match samples.first() {
        None if at_store().next().is_none() => Basis::Guess { reason: "no drill has measured this store" },
        None => Basis::Guess { reason: "no drill has measured this engine on this store" },
        Some(_) if opening.is_empty() => Basis::Guess { reason: "no drill could open the database where it was done" },
        Some(newest) => Basis::Measured { drill: newest.drill.id.clone(), drills: samples.len(), elsewhere },
    };
    Estimate {
        seconds: planning_seconds + fetching_seconds + opening_seconds,
        planning_seconds,
        fetching_seconds,
        opening_seconds,
        basis,
    }
}

/// As reports name it.
pub const fn engine_name(engine: Engine) -> &'static str {
    match engine {
        Engine::Native => "native",
        Engine::Flush => "flush",
        Engine::Bulk => "bulk",
    }
}

/// What a phase takes for so many bytes, by samples of bytes and seconds. Without any it begins with `fixed` seconds and
/// goes on at `rate` bytes a second.
fn phase(samples: &[(u64, f64)], bytes: u64, fixed: f64, rate: f64) -> f64 {
    let (long, short): (Vec<_>, Vec<_>) = samples.iter().partition(|(bytes, seconds)| *seconds >= LEAST && *bytes > 0);
    let least = mean(short.iter().map(|(_, seconds)| *seconds));
    if !long.is_empty() {
        let (all_bytes, all_seconds) = long.iter().fold((0.0, 0.0), |(b, s), (bytes, t)| (b + *bytes as f64, s + t));
        return (bytes as f64 * all_seconds / all_bytes).max(least.unwrap_or(0.0));
    }
    match least {
        // What they brought is paid with it.
        Some(least) => {
            let paid = short.iter().map(|(bytes, _)| *bytes).max().unwrap_or(0);
            least + bytes.saturating_sub(paid) as f64 / rate
        }
        None => fixed + bytes as f64 / rate,
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use pitr_archive::{
        catalog::schema::{DrillChecks, DrillChoice, DrillTarget, DrillVerdict, Extra, Position},
        clock::Micros,
        ids::{ArchiveId, Boundary, ContentHash, Nonce, RunningHash, SequenceNumber, TimelineId},
    };

    use super::*;

    const MIB: u64 = 1 << 20;

    fn place(store: &str, machine: u8) -> DrillPlace {
        DrillPlace { store: store.to_owned(), machine: ContentHash([machine; 32]) }
    }

    /// A drill number `n` that fetched and opened in so many seconds.
    fn drill(
        n: u32,
        place: DrillPlace,
        engine: &str,
        (download, fetch): (u64, f64),
        (log, open): (u64, f64),
    ) -> DrillDocument {
        let micros = |seconds: f64| Some((seconds * 1e6) as u64);
        let position = Position {
            timeline: TimelineId::FIRST,
            boundary: Boundary::new(9),
            hash: RunningHash::ZERO,
            wal: None,
            offset: None,
            sequence: SequenceNumber::new(9),
        };
        DrillDocument {
            version: 1,
            archive: ArchiveId([1; 16]),
            id: BaseId::new(Micros(0).to_datetime(), n),
            target: DrillTarget { chosen: DrillChoice::Latest, asked: "latest".to_owned(), instead: None },
            place,
            plan: Some(DrillPlan {
                position,
                base: BaseId::new(Micros(0).to_datetime(), 0),
                engine: engine.to_owned(),
                download_bytes: download,
                file_bytes: download,
                log_bytes: log,
                records: 1,
            }),
            at_risk_micros: None,
            estimate: None,
            took: DrillTimes {
                planning: micros(0.5),
                laying_down: micros(fetch),
                opening: micros(open),
                ..DrillTimes::default()
            },
            checked: DrillChecks::default(),
            verdict: DrillVerdict::Passed,
            failure: None,
            created: Micros(0),
            ended: Micros(0),
            nonce: Nonce([0; 16]),
            extra: Extra::new(),
        }
    }

    fn size(download_bytes: u64, log_bytes: u64) -> Size {
        Size { engine: Engine::Native, download_bytes, log_bytes }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn rates_are_those_of_drills_of_the_same_engine_store_and_machine() {
        let here = place("s3", 1);
        let drills = [
            drill(9, here.clone(), "bulk", (100 * MIB, 100.0), (MIB, 100.0)),
            drill(8, place("file", 1), "native", (100 * MIB, 100.0), (MIB, 100.0)),
            drill(7, place("s3", 2), "native", (100 * MIB, 50.0), (MIB, 50.0)),
            drill(6, here.clone(), "native", (100 * MIB, 10.0), (10 * MIB, 4.0)),
            drill(5, here.clone(), "native", (300 * MIB, 10.0), (10 * MIB, 6.0)),
        ];
        let found = estimate(&size(200 * MIB, 20 * MIB), &here, &drills);
        assert!(close(found.fetching_seconds, 10.0) && close(found.opening_seconds, 10.0), "{found:?}");
        assert!(close(found.seconds, 20.5), "{found:?}");
        assert_eq!(found.basis, Basis::Measured { drill: drills[3].id.clone(), drills: 2, elsewhere: false });
        assert_eq!(found.stored(), DrillEstimate { micros: 20_500_000, measured: true });

        // A machine that has never drilled takes what others have measured, and says so.
        let elsewhere = estimate(&size(100 * MIB, 0), &place("s3", 3), &drills[..3]);
        assert!(close(elsewhere.fetching_seconds, 50.0));
        assert_eq!(elsewhere.basis, Basis::Measured { drill: drills[2].id.clone(), drills: 1, elsewhere: true });
    }

    #[test]
    fn only_the_newest_few_that_went_well_count() {
        let here = place("file", 1);
        let mut drills: Vec<_> =
            (0..9).rev().map(|n| drill(n, here.clone(), "native", (MIB, f64::from(n)), (0, 0.1))).collect();
        drills[0].verdict = DrillVerdict::Failed;
        let found = estimate(&size(MIB, 0), &here, &drills);
        assert!(close(found.fetching_seconds, (7.0 + 6.0 + 5.0 + 4.0 + 3.0) / 5.0), "{found:?}");
        assert_eq!(found.basis, Basis::Measured { drill: drills[1].id.clone(), drills: 5, elsewhere: false });
    }

    #[test]
    fn what_was_over_in_no_time_tells_what_it_costs_and_no_rate() {
        let here = place("file", 1);
        let small = [drill(1, here.clone(), "native", (1000, 0.05), (1000, 0.03))];
        let same = estimate(&size(1000, 1000), &here, &small);
        assert!(close(same.fetching_seconds, 0.05) && close(same.opening_seconds, 0.03), "{same:?}");
        let large = estimate(&size(1000 + 400_000_000, 1000), &here, &small);
        assert!(close(large.fetching_seconds, 10.05), "not 20,000 seconds: {large:?}");
    }

    #[test]
    fn without_a_measurement_it_is_a_guess_and_says_why() {
        let here = place("file", 1);
        let guess = estimate(&size(80_000_000, 10_000_000), &here, &[]);
        assert!(close(guess.seconds, 1.0 + 2.0 + 1.5), "{guess:?}");
        assert_eq!(guess.basis, Basis::Guess { reason: "no drill has measured this store" });
        assert!(!guess.stored().measured);
        let other = [drill(1, here.clone(), "bulk", (MIB, 1.0), (MIB, 1.0))];
        let Basis::Guess { reason } = estimate(&size(MIB, MIB), &here, &other).basis else { panic!("it is measured") };
        assert!(reason.contains("engine"), "{reason}");
        let mut unopened = drill(1, here.clone(), "native", (MIB, 1.0), (MIB, 1.0));
        unopened.took.opening = None;
        let partly = estimate(&size(2 * MIB, 0), &here, &[unopened]);
        assert!(close(partly.fetching_seconds, 2.0) && matches!(partly.basis, Basis::Guess { .. }), "{partly:?}");
        let bulk = Size { engine: Engine::Bulk, download_bytes: 15_000_000, log_bytes: 15_000_000 };
        assert!(close(estimate(&bulk, &here, &[]).seconds, 1.0 + 1.0 + 0.5));
    }
}
