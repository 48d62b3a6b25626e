//! What the events of a timeline tell: runs, sessions, barriers, column families, withdrawn ranges.
//!
//! Owns: the fold over events, in which an interval that was left open is closed by the later event. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    catalog::{crossing::Hurdle, schema::PlacedEvent},
    clock::Micros,
    ids::{Boundary, ColumnFamilyId, FileNumber, SequenceNumber},
    segment::entry::{BarrierReason, CapturedFile, ColumnFamilyChange, Event, Interval, ManifestPoint},
};

/// A contiguous part of the stream: every WAL from its first one on, completely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its number.
    pub number: u64,
    /// Boundary before its first record.
    pub start: Boundary,
    /// Boundary after its last record: where the next run starts, or the end of the archive.
    pub end: Boundary,
    /// The first WAL.
    pub first_wal: FileNumber,
    /// The database's own identity.
    pub db_id: String,
    /// Its WALs in order.
    pub wals: Vec<Wal>,
}

impl Run {
    /// Boundary before the first record in a WAL numbered `wal` or higher; the run's end when there is none yet.
    pub fn first_record_of_wal(&self, wal: FileNumber) -> Boundary {
        let index = self.wals.partition_point(|w| w.number < wal);
        self.wals.get(index).map_or(self.end, |w| w.first)
    }
}

/// A WAL in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wal {
    /// Its number.
    pub number: FileNumber,
    /// Boundary before its first record.
    pub first: Boundary,
    /// Its final end, once that was seen: offset after the last complete record.
    pub ended: Option<u64>,
}

/// A session of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Where it begins.
    pub at: Boundary,
    /// Its number on the timeline.
    pub number: u64,
    /// RocksDB's own name of it.
    pub db_session_id: Option<String>,
    /// Where its MANIFEST edits begin.
    pub manifest: ManifestPoint,
    /// `LastSequence` after the open.
    pub last_sequence: SequenceNumber,
}

/// A barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// Where it lies in the stream.
    pub at: Boundary,
    /// Why.
    pub reason: BarrierReason,
    /// Where it stands; closed by a later event where it was open.
    pub interval: Interval,
    /// The MANIFEST record that showed it.
    pub manifest: Option<ManifestPoint>,
    /// For a jump: the last number that nothing explains.
    pub unexplained: Option<SequenceNumber>,
    /// What was seen.
    pub detail: String,
    /// When.
    pub noticed: Micros,
}

impl Barrier {
    /// What decides which bases it concerns.
    pub fn hurdle(&self) -> Hurdle {
        let Self { reason, interval, manifest, unexplained, .. } = *self;
        Hurdle { reason, interval, manifest, unexplained }
    }
}

/// A column family that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnFamilyEvent {
    /// Where it lies in the stream.
    pub at: Boundary,
    /// Which of the two.
    pub change: ColumnFamilyChange,
    /// Its id.
    pub id: ColumnFamilyId,
    /// Its name.
    pub name: String,
    /// When; closed by a later event where it was open.
    pub interval: Interval,
    /// The end of the MANIFEST record.
    pub manifest: ManifestPoint,
    /// Its payload, base64.
    pub edit: String,
}

/// All of it, in stream order.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Runs.
    pub runs: Vec<Run>,
    /// Sessions of the server.
    pub sessions: Vec<Session>,
    /// Barriers.
    pub barriers: Vec<Barrier>,
    /// Column families that came and went.
    pub column_families: Vec<ColumnFamilyEvent>,
    /// Ranges of records that were taken back.
    pub withdrawn: Vec<(Boundary, Boundary)>,
    /// Files that entered without the log, or that flushes made, and are in the archive.
    pub captured: Vec<CapturedFile>,
    /// Column families of a run that were written without the log, which was tolerated.
    pub unlogged: BTreeMap<u64, BTreeSet<String>>,
}

impl History {
    /// From the events of all segments, in order; `end` is the boundary after the last record.
    pub fn tell<'a>(events: impl Iterator<Item = &'a PlacedEvent>, end: Boundary) -> Self {
        let mut told = Self::default();
        // Which open intervals a MANIFEST record left: indexes into barriers and column families.
        let mut open: HashMap<ManifestPoint, Vec<(bool, usize)>> = HashMap::new();
        for PlacedEvent { at, event } in events.cloned() {
            match event {
                // It goes on behind what was deleted of it.
                Event::RunStarted { run, .. } if told.runs.last().is_some_and(|l| (l.number, l.start) == (run, at)) => {
                }
                Event::RunStarted { run, first_wal, db_id } => {
                    if let Some(last) = told.runs.last_mut() {
                        last.end = at;
                    }
                    told.runs.push(Run { number: run, start: at, end: at, first_wal, db_id, wals: Vec::new() });
                }
                Event::SessionStarted { session, db_session_id, manifest, last_sequence } => {
                    told.sessions.push(Session { at, number: session, db_session_id, manifest, last_sequence });
                }
                Event::WalStarted { wal } => {
                    if let Some(run) = told.runs.last_mut() {
                        run.wals.push(Wal { number: wal, first: at, ended: None });
                    }
                }
                Event::WalEnded { wal, end, void_bytes: _ } => {
                    let wals = told.runs.last_mut().map(|run| run.wals.iter_mut().rev());
                    if let Some(wal) = wals.into_iter().flatten().find(|w| w.number == wal) {
                        wal.ended = Some(end);
                    }
                }
                // Replay reads these where they lie.
                Event::TimestampSizes { .. } => {}
                Event::ColumnFamily { change, id, name, interval, manifest, edit } => {
                    if interval.hi.is_none() {
                        open.entry(manifest).or_default().push((false, told.column_families.len()));
                    }
                    told.column_families.push(ColumnFamilyEvent { at, change, id, name, interval, manifest, edit });
                }
                Event::Barrier { reason, interval, manifest, unexplained, detail, noticed } => {
                    if let (None, Some(manifest)) = (interval.hi, manifest) {
                        open.entry(manifest).or_default().push((true, told.barriers.len()));
                    }
                    told.barriers.push(Barrier { at, reason, interval, manifest, unexplained, detail, noticed });
                }
                Event::IntervalClosed { manifest, hi } => {
                    for (barrier, index) in open.remove(&manifest).unwrap_or_default() {
                        let interval = if barrier {
                            told.barriers.get_mut(index).map(|b| &mut b.interval)
                        } else {
                            told.column_families.get_mut(index).map(|f| &mut f.interval)
                        };
                        if let Some(interval) = interval {
                            interval.hi = Some(hi);
                        }
                    }
                }
                Event::UnloggedTolerated { column_families, .. } => {
                    if let Some(run) = told.runs.last() {
                        told.unlogged.entry(run.number).or_default().extend(column_families);
                    }
                }
                Event::Captured { files, .. } | Event::Flushed { files, .. } => told.captured.extend(files),
                Event::Withdrawn { from, to, evidence: _ } => told.withdrawn.push((from, to)),
            }
        }
        if let Some(last) = told.runs.last_mut() {
            last.end = end;
        }
        told
    }
}
