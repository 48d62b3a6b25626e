//! How the log is brought in between a base and a target, and why.
//!
//! Owns: the choice of the engine, and every reason for which shipped flushes must not be laid down. How far they lead where
//! nothing stands against them is said by [`super::flushed`]; whether tables can be made of the log, by `tables`.
//! Refuses: an engine that was asked for and cannot be exact.

use pitr_archive::{Code, Error, Result, catalog::schema::BaseDocument, ids::SequenceNumber, segment::entry::Blocks};
use serde::Serialize;
use tables::Tables;

use super::{
    ColumnFamilyEdit, PlanOptions,
    assemble::Inputs,
    facts::Facts,
    flushed::{self, Advanced},
    ingestion::PlannedIngestion,
    stream::{Place, Run, Stream},
};
use crate::target::Target;

pub(super) mod tables;

/// Which engine is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// The fastest that gives exactly the same contents and latest sequence number.
    #[default]
    Auto,
    /// The log and nothing else.
    Native,
    /// Shipped flushes, or a refusal that says why they cannot be used.
    Flush,
    /// Tables made of the log, or a refusal that says why they cannot be.
    Bulk,
    /// Shipped flushes, and tables made of the log behind them, or a refusal.
    FlushAndBulk,
}

/// How the log is brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// RocksDB replays all of it when the copy is opened.
    Native,
    /// The files of shipped flushes are laid down, and RocksDB replays the log behind them.
    Flush,
    /// The last operation on each key is written into table files; nothing is left to replay. Where there are shipped flushes,
    /// they can be laid down below those.
    Bulk,
}

/// The engine of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedEngine {
    /// Which.
    pub name: Engine,
    /// Why, for people.
    pub reason: String,
    /// What was asked for: where that was the best one, another may take its place.
    #[serde(skip)]
    pub wanted: EngineChoice,
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

/// The engine that brings the log in from `base`, and the base with its flushes laid down, where that is the engine's way.
pub(super) async fn decide(
    inputs: &Inputs<'_>,
    options: &PlanOptions,
    arrival: &Arrival<'_>,
    base: &BaseDocument,
    families: &[ColumnFamilyEdit],
) -> Result<(PlannedEngine, Option<Advanced>)> {
    let wanted = options.engine;
    let planned = |name, reason: String| PlannedEngine { name, reason, wanted };
    let Inputs { stream, source, .. } = *inputs;
    let tables = Tables { arrival, stream, base, families };
    let refused = |doing, what, why: &str, hint: &str| {
        Err(Error::new(Code::EngineUnusable, doing).on(arrival.target).with(what, why).hint(hint.to_owned()))
    };
    // What the base says of the database is needed for that.
    source.with_files(base)?;
    match wanted {
        EngineChoice::Native => return Ok((planned(Engine::Native, "asked for".to_owned()), None)),
        EngineChoice::Bulk => {
            return match tables.obstacle() {
                None => Ok((planned(Engine::Bulk, "asked for".to_owned()), None)),
                Some(why) => refused(
                    "planning a restore into tables to",
                    "the log cannot be made into tables",
                    why,
                    "--engine native replays it",
                ),
            };
        }
        EngineChoice::Auto | EngineChoice::Flush | EngineChoice::FlushAndBulk => {}
    }
    let Arrival { run, place, sequence, .. } = *arrival;
    let obstacle = arrival.obstacle(stream, base);
    let advanced = match obstacle {
        Some(_) => None,
        None => flushed::advance(stream, source, run, base, families, (place, sequence)).await?,
    };
    let left = advanced.as_ref().map(|advanced| advanced.first_record);
    if let (EngineChoice::FlushAndBulk, Some(why)) = (wanted, tables.obstacle_behind_flushes()) {
        let doing = "planning a restore into tables behind shipped flushes to";
        return refused(doing, "the log cannot be made into tables", why, "--engine flush leaves it a log");
    }
    // MiB behind the flushes that become tables above their files.
    let behind = left.and_then(|left| match wanted {
        EngineChoice::Auto => tables.behind_flushes(options.tables_from, left),
        EngineChoice::FlushAndBulk => Some(tables.bytes_from(left) >> 20),
        _ => None,
    });
    // Where flushes leave much, tables are made of the whole log, also of what they hold.
    let tables = tables.worth_it(options.tables_from, left);
    if let (EngineChoice::Auto, Ok(reason)) = (wanted, &tables) {
        return Ok((planned(Engine::Bulk, reason.clone()), None));
    }
    match advanced {
        Some(found) => {
            let records = found.first_record.get().saturating_sub(base.first_record.get());
            let files: usize = found.flushes.iter().map(|flush| flush.files.len()).sum();
            let reason = format!("{files} file(s) of shipped flushes hold {records} record(s) that are not replayed");
            let planned = match behind {
                None => planned(Engine::Flush, reason),
                Some(mib) => planned(
                    Engine::Bulk,
                    format!(
                        "{reason}, and the {mib} MiB of log behind them become tables of the last operation on each key; --engine flush leaves that a log, which who follows by sequence number needs"
                    ),
                ),
            };
            Ok((planned, Some(found)))
        }
        None => {
            let why = obstacle.unwrap_or("no flush behind the base and wholly before the target is in the archive");
            match (wanted, tables) {
                (EngineChoice::Flush | EngineChoice::FlushAndBulk, _) => refused(
                    "planning a restore with shipped flushes to",
                    "they cannot be used",
                    why,
                    "--engine native replays the log; run the archiver with --ship-flushes for later targets",
                ),
                (_, Err(no_tables)) => Ok((
                    planned(Engine::Native, format!("no shipped flushes ({why}) and no tables ({no_tables})")),
                    None,
                )),
                (_, Ok(_)) => Ok((planned(Engine::Native, why.to_owned()), None)),
            }
        }
    }
}
