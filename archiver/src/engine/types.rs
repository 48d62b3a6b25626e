//! The engine's values: what it stores in every segment, and what its steps answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use pitr_archive::{
    clock::Micros,
    ids::{Boundary, ColumnFamilyId, ContentHash, FileNumber, RunningHash, SequenceNumber},
    rocks::transactions::Transactions,
    segment::entry::{BarrierReason, Event, ManifestPoint, Record},
};
use serde::{Deserialize, Serialize};

use super::{PendingCapture, wishes::Wishes};
use crate::{
    barrier_log::BarrierLog, manifest_tail::News, recent::Recent, sequence_model::SequenceModel, wal_tail::WalTail,
};

/// What is known of a WAL whose records are in the present run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalFact {
    /// Boundary before its first record.
    pub first: Boundary,
    /// The running hash there.
    pub hash: RunningHash,
    /// Offset after its last archived record.
    pub end: u64,
    /// Hash over its archived records.
    pub prefix: ContentHash,
    /// Whether `end` is its final end.
    pub ended: bool,
    /// Whether the server overwrites it in place once it is no longer needed.
    #[serde(default)]
    pub recycled: bool,
}

/// An interval whose end is not known yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenInterval {
    /// The MANIFEST record.
    pub manifest: ManifestPoint,
    /// The column family that came into being: its first record is after the change.
    pub added: Option<ColumnFamilyId>,
    /// The WAL whose final end closes it, where the server holds writes in its memory.
    pub until_end_of: Option<FileNumber>,
}

/// What a later process needs to go on where a segment ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineState {
    /// Version of this structure.
    pub version: u32,
    /// The present run.
    pub run: u64,
    /// Whether a run has begun on this timeline.
    pub run_begun: bool,
    /// The session of the server.
    pub session: u64,
    /// RocksDB's name of it.
    #[serde(default)]
    pub session_id: Option<String>,
    /// The newest OPTIONS file when the session was noticed.
    #[serde(default)]
    pub options: Option<FileNumber>,
    /// The database's identity.
    pub db_id: String,
    /// The sequence model.
    pub model: SequenceModel,
    /// What is prepared and pending; stored in the segment's summary, where readers find it.
    #[serde(skip)]
    pub transactions: Transactions,
    /// WALs of the run that may still matter.
    pub wals: BTreeMap<FileNumber, WalFact>,
    /// Every WAL of the run from this number on that was begun is in `wals`; older ones were given up.
    #[serde(default)]
    pub wals_from: FileNumber,
    /// Barriers of the run.
    pub barriers: BarrierLog,
    /// The WAL being read, or the last one.
    pub place: FileNumber,
    /// RocksDB's first WAL needed at the consumed end of the MANIFEST.
    pub first_wal_needed: FileNumber,
    /// Readable end before the last look at the MANIFEST.
    pub lo: Boundary,
    /// Intervals without a known end.
    #[serde(default)]
    pub open: Vec<OpenInterval>,
    /// The clock before the last read that found the end of everything readable: what was not there then came later.
    #[serde(default)]
    pub observed: Option<Micros>,
    /// Where the session's records begin; with the sessions before it that it only repeats.
    #[serde(default)]
    pub session_start: Boundary,
    /// The WAL for which a two-phase-commit barrier was noted.
    #[serde(default)]
    pub two_phase_wal: Option<FileNumber>,
    /// The last records by sequence number.
    #[serde(default)]
    pub recent: Recent,
    /// The last record: its WAL and the offset after it.
    #[serde(default)]
    pub last_record: Option<(FileNumber, u64)>,
    /// Bases that are wanted.
    #[serde(default)]
    pub wanted: Wishes,
    /// A session of the server whose MANIFEST has been seen and whose first WAL has not been reached.
    #[serde(default)]
    pub pending_session: Option<PendingSession>,
    /// Nothing is archived until RocksDB no longer needs this WAL.
    #[serde(default)]
    pub waiting_beyond: Option<FileNumber>,
    /// Or until it is known that none is missing behind it.
    #[serde(default)]
    pub waiting_for_proof: bool,
    /// Files that entered without the log and are not in the archive yet.
    #[serde(default)]
    pub captures: Vec<PendingCapture>,
    /// The last flush of which the MANIFEST was read; where the run began, if there was none since.
    #[serde(default)]
    pub flushed: Option<ManifestPoint>,
    /// The last change outside the log, or of column families, that the run's stream tells of.
    #[serde(default)]
    pub said: Option<ManifestPoint>,
    /// Column families of which the run's stream says that writes without the log were tolerated.
    #[serde(default)]
    pub tolerated: BTreeSet<String>,
}

/// Version of [`EngineState`].
pub const STATE_VERSION: u32 = 1;

/// Why a base is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BaseReason {
    /// The run has none.
    RunStarted,
    /// The server was opened anew: its session must be reachable even if it reused sequence numbers.
    SessionStarted {
        /// The run.
        run: u64,
        /// The base's MANIFEST prefix lies in this file and shows nothing of the session's own writes.
        manifest: ManifestPoint,
        /// The first WAL of the session: edits with a higher log number are flushes of its own writes.
        first_wal: FileNumber,
        /// The end of the session before: the floor.
        floor: Boundary,
        /// The running hash there.
        hash: RunningHash,
        /// `LastSequence` after the open.
        sequence: SequenceNumber,
    },
    /// Targets behind a barrier need one.
    Barrier(BarrierReason),
    /// Somebody asked.
    Asked,
}

impl fmt::Display for BaseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RunStarted => f.write_str("nothing behind the newest barrier can be restored without one"),
            Self::SessionStarted { .. } => f.write_str("the server was opened anew"),
            Self::Barrier(_) => f.write_str("targets behind the newest barrier need one"),
            Self::Asked => f.write_str("somebody asked for one"),
        }
    }
}

/// Where replay on a base begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseStart {
    /// The run.
    pub run: u64,
    /// Boundary before the first record.
    pub first_record: Boundary,
    /// The running hash there.
    pub first_hash: RunningHash,
}

/// What a look brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// Records read.
    pub records: u64,
    /// Plain bytes added to the stream.
    pub bytes: u64,
    /// Everything that was readable has been read.
    pub caught_up: bool,
}

/// Where the engine reads.
#[derive(Debug)]
pub(super) enum Place {
    /// In this WAL.
    In(Box<WalTail>),
    /// Behind the final end of this WAL; the next one is not there yet.
    After(FileNumber),
}

/// One thing read from a WAL, not yet in the stream.
#[derive(Debug)]
pub(super) enum Item {
    /// A record.
    Record(Record),
    /// Metadata.
    Event(Event),
}

/// How reading a WAL stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// At the end so far.
    SoFar,
    /// At the budget; there may be more.
    Budget,
    /// At a damaged record.
    Corrupt {
        /// Its offset.
        at: u64,
        /// What is wrong.
        reason: String,
    },
}

/// What a round brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub records: u64,
    pub moved: bool,
    pub caught_up: bool,
}

/// A session whose MANIFEST has been seen and whose first WAL has not been reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingSession {
    /// Where its edits begin.
    pub manifest: ManifestPoint,
    /// RocksDB's name of it, if the info log still tells.
    pub id: Option<String>,
    /// Whether this version of RocksDB names sessions: then a new MANIFEST with the same name is no new session, and what
    /// another one says waits until the session's records are reached.
    pub waits: bool,
    /// WALs from this number on are its own.
    pub first_wal: FileNumber,
    /// RocksDB's first WAL needed before the open.
    pub needed_before: FileNumber,
    /// The MANIFEST's last sequence at the open.
    pub flushed: SequenceNumber,
}

/// Something that the MANIFEST said.
#[derive(Debug)]
pub(super) struct Deferred {
    pub news: News,
    pub log: InfoLog,
    /// The readable end before the last look that did not show it.
    pub lo: Boundary,
    /// For a new MANIFEST: the session that the info log named when it was seen.
    pub id: Option<String>,
}

/// Whose name the info log tells, for a new MANIFEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InfoLog {
    /// The session of this MANIFEST.
    This,
    /// That of the newest of several that came in one look, and this is it.
    NewestOfSeveral,
    /// That of a later one.
    Later,
}

/// What ends waiting, beside that the server no longer needs the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Nothing.
    NotNeeded,
    /// That the MANIFEST shows that none was deleted behind it.
    NoneIsMissing,
}

/// Nothing can be archived until the server no longer needs a WAL.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// Until RocksDB no longer needs this WAL.
    pub beyond: FileNumber,
    /// What else ends it.
    pub until: Until,
    /// Why, for people.
    pub detail: String,
    /// What the MANIFEST was called and how long it was when it did not end this.
    pub manifest: Option<(String, u64)>,
}
