//! How the log is brought in between a base and a target, and why.
//!
//! Owns: the choice of the engine, and every reason for which shipped flushes must not be laid down. How far they lead where
//! nothing stands against them is said by [`super::flushed`].
//! Refuses: an engine that was asked for and cannot be exact.

use pitr_archive::{
    Code, Error, Result, catalog::schema::BaseDocument, ids::SequenceNumber, rocks::built_in, segment::entry::Blocks,
};
use serde::Serialize;

use super::{
    ColumnFamilyEdit,
    assemble::Inputs,
    facts::Facts,
    flushed::{self, Advanced},
    ingestion::PlannedIngestion,
    stream::{Place, Run, Stream},
};
use crate::target::Target;

/// Which engine is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// The fastest that gives exactly the same database.
    #[default]
    Auto,
    /// The log and nothing else.
    Native,
    /// Shipped flushes, or a refusal that says why they cannot be used.
    Flush,
    /// Tables made of the log, or a refusal that says why they cannot be.
    Bulk,
}

/// How the log is brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// RocksDB replays all of it when the copy is opened.
    Native,
    /// The files of shipped flushes are laid down, and RocksDB replays the log behind them.
    Flush,
    /// The last operation on each key is written into table files; nothing is left to replay.
    Bulk,
}

/// The engine of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedEngine {
    /// Which.
    pub name: Engine,
    /// Why, for people.
    pub reason: String,
}

/// Where a plan arrives.
pub(super) struct Arrival<'a> {
    pub target: &'a Target,
    pub run: Run,
    pub place: Place,
    pub facts: Facts,
    pub sequence: SequenceNumber,
    pub ingestions: Vec<PlannedIngestion>,
}

impl Arrival<'_> {
    /// Why no shipped flush may be laid down on the way from `base`.
    fn obstacle(&self, stream: &Stream, base: &BaseDocument) -> Option<&'static str> {
        let unlogged_numbers = || {
            stream.barriers.iter().any(|barrier| {
                let here = barrier.reason.blocks() == Blocks::Jump && stream.in_run(self.run, barrier.when.noted);
                here && barrier.when.interval.lo >= base.first_record
            })
        };
        let filters = || base.column_families.iter().any(|family| family.compaction_filter.is_some());
        let timestamps = || stream.timestamp_sizes.iter().any(|sizes| stream.in_run(self.run, sizes.place));
        if !self.ingestions.is_empty() {
            Some("ingestions are repeated on the way")
        } else if base.allow_2pc || self.facts.transactions.policy().is_some() {
            Some("the log can hold prepared transactions")
        } else if !stream.unlogged_in(self.run).is_empty() {
            Some("column families were written without the log, and files hold more of that than a replay gives")
        } else if unlogged_numbers() {
            Some(
                "numbers were used by writes that are not in the log, and a flush can have merged one of them with a record",
            )
        } else if filters() {
            Some("a compaction filter can drop keys while they are flushed, also after the target")
        } else if timestamps() {
            Some("a flush can trim the history of user-defined timestamps, also after the target")
        } else if stream.touches_withdrawn(base.first_record, self.place.boundary) {
            Some("records on the way were taken back by the server")
        } else {
            None
        }
    }
}

impl Arrival<'_> {
    /// Why no tables can be made of the log behind `base`, as far as that can be told without reading it.
    fn obstacle_to_tables(&self, stream: &Stream, base: &BaseDocument) -> Option<&'static str> {
        if !self.ingestions.is_empty() {
            Some("ingestions are repeated on the way")
        } else if base.allow_2pc || self.facts.transactions.policy().is_some() {
            Some("it can hold prepared transactions")
        } else if stream.timestamp_sizes.iter().any(|sizes| stream.in_run(self.run, sizes.place)) {
            Some("it has user-defined timestamps, of which every version counts")
        } else if base
            .column_families
            .iter()
            .any(|family| !family.comparator.is_empty() && !built_in::has_comparator(&family.comparator))
        {
            Some("a column family has a comparator of the source's own")
        } else {
            None
        }
    }
}

/// The engine that brings the log in from `base`, and the base with its flushes laid down, where that is the engine's way.
pub(super) async fn decide(
    inputs: &Inputs<'_>,
    wanted: EngineChoice,
    arrival: &Arrival<'_>,
    base: &BaseDocument,
    families: &[ColumnFamilyEdit],
) -> Result<(PlannedEngine, Option<Advanced>)> {
    let native = |reason: &str| (PlannedEngine { name: Engine::Native, reason: reason.to_owned() }, None);
    if wanted == EngineChoice::Native {
        return Ok(native("asked for"));
    }
    let Inputs { stream, source, .. } = *inputs;
    if wanted == EngineChoice::Bulk {
        return match arrival.obstacle_to_tables(stream, base) {
            None => Ok((PlannedEngine { name: Engine::Bulk, reason: "asked for".to_owned() }, None)),
            Some(why) => Err(Error::new(Code::EngineUnusable, "planning a restore into tables to")
                .on(arrival.target)
                .with("the log cannot be made into tables", why)
                .hint("--engine native replays it")),
        };
    }
    let Arrival { run, place, sequence, .. } = *arrival;
    let obstacle = arrival.obstacle(stream, base);
    let advanced = match obstacle {
        Some(_) => None,
        None => flushed::advance(stream, source, run, base, families, (place, sequence)).await?,
    };
    match (&advanced, obstacle) {
        (Some(found), _) => {
            let records = found.first_record.get().saturating_sub(base.first_record.get());
            let files: usize = found.flushes.iter().map(|flush| flush.files.len()).sum();
            let reason = format!("{files} file(s) of shipped flushes hold {records} record(s) that are not replayed");
            Ok((PlannedEngine { name: Engine::Flush, reason }, advanced))
        }
        (None, obstacle) => {
            let why = obstacle.unwrap_or("no flush behind the base and wholly before the target is in the archive");
            match wanted {
                EngineChoice::Flush => {
                    Err(Error::new(Code::EngineUnusable, "planning a restore with shipped flushes to")
                        .on(arrival.target)
                        .with("they cannot be used", why)
                        .hint(
                            "--engine native replays the log; run the archiver with --ship-flushes for later targets",
                        ))
                }
                _ => Ok(native(why)),
            }
        }
    }
}
