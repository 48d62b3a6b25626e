//! The engine: reads the server's files in the right order and turns them into the archived stream.
//!
//! Owns: the position in the stream, the run, the session, and every decision about continuity. It is synchronous and
//! single-threaded; shipping and bases are driven from outside ([`crate::archiver`]).
//! Refuses: to guess. Whatever cannot be joined becomes a barrier; what ends a run begins a new one at offset 0 of the
//! first WAL that a base would need.
//!
//! - `look`: one look at everything readable, and the order that makes it true.
//! - `emit`: judges records and puts them into the stream.
//! - `flushes`: which flushes are shipped, and how their chain is told.
//! - `news`: what the MANIFEST said becomes events and barriers.
//! - `barriers`: noting them.
//! - `capture`: files that enter without the log are held until the archive has them.
//! - `tolerate`: writes without the log in column families of which the operator said so.
//! - `advance`: from one WAL to the next, from one session to the next.
//! - `fork`: noticing that the history forked.
//! - `run`: beginning a run.
//! - `bases`: which bases would serve.
//! - `wishes`: which bases are wanted.
//! - `progress`: how far the engine is, and giving up what the archive has.
//! - [`resume`]: going on where an earlier process stopped.

mod advance;
mod barriers;
mod bases;
pub(crate) mod capture;
mod emit;
mod flushes;
mod fork;
mod look;
mod news;
mod progress;
pub mod resume;
mod run;
mod tolerate;
mod types;
mod wishes;

use std::{collections::VecDeque, sync::Arc};

use pitr_archive::{
    Result,
    catalog::crossing::Footing,
    clock::{Clock, Micros},
    ids::{Boundary, FileNumber, SequenceNumber, TimelineId},
    rocks::manifest::{Name, TwoPhase},
    segment::entry::{BarrierReason, ColumnFamilyChange, Event, Interval, ManifestPoint},
};

pub use self::bases::max_file_sequence;
pub use self::capture::PendingCapture;
pub use self::flushes::Flushes;
pub use self::fork::{Before, Evidence, Fork};
pub(crate) use self::run::prove_what_is_known;
pub use self::types::{BaseReason, BaseStart, EngineState, Polled, WalFact};
use self::types::{Deferred, InfoLog, Item, OpenInterval, PendingSession, Place, Waiting};
use crate::{
    barrier_log::BarrierLog,
    layout::Layout,
    lineage::Lineage,
    manifest_tail::{Consumed, ManifestTail},
    owner::Owner,
    quiet::Ahead,
    registry::Registry,
    sequence_model::SequenceModel,
    stream::Stream,
};

/// The engine of one archive of one database.
#[derive(Debug)]
pub struct Engine {
    layout: Layout,
    /// What identifies the database that the timeline was opened for.
    lineage: Lineage,
    /// From the moment a fork is noticed: nothing more is read.
    forked: Option<Fork>,
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    owner: Arc<dyn Owner>,
    timeline: TimelineId,
    /// The stream and the segment being filled.
    pub stream: Stream,
    manifest: ManifestTail,
    place: Place,
    state: EngineState,
    /// Readable end before the last look at the MANIFEST.
    lo: Boundary,
    /// Intervals whose end is not known yet.
    open: Vec<OpenInterval>,
    /// What the MANIFEST said certainly behind the start of a session whose records have not been reached.
    deferred: VecDeque<Deferred>,
    /// While news is deferred: how far the MANIFEST was consumed before it.
    held: Option<Consumed>,
    waiting: Option<Waiting>,
    /// The last base that was published in this run.
    last_base: Option<Footing>,
    barriers_noted: u64,
    /// Barriers that nobody was told of yet.
    untold: Vec<(BarrierReason, Boundary, String)>,
    caught_up_at: Option<Micros>,
    /// What was in the stream at the last look that is noted there.
    looked_at: (u64, u64),
    /// WALs from here on must stay pinned and known: a base is being taken.
    hold_from: Option<FileNumber>,
    /// Whether every archived record was read since the machine was booted.
    same_boot: bool,
    /// Files that were held when the MANIFEST named them; the change is not in the stream yet.
    sights: Vec<capture::Sight>,
    /// The flush that the MANIFEST named last, until it says anything of column families or files.
    flushed_just_now: Option<ManifestPoint>,
    /// The MANIFEST has been read to its end once.
    seen_news: bool,
    policy: Policy,
}

/// What the operator decides about changes outside the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Files that enter without the log are captured up to this many bytes for one ingestion.
    pub capture_bytes: u64,
    /// Column families that may be written without the log, and no others are.
    pub unlogged_tolerate: Vec<String>,
    /// Whether the files of flushes are shipped, too.
    pub flushes: Flushes,
}

impl Engine {
    /// Whether committed writes can be missing from the files although the files were read to their ends.
    pub fn unread_is_possible(&self) -> bool {
        self.layout.manual_wal_flush()
    }

    /// From here on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Directories and settings.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The known files.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The WAL being read, or the last one that was.
    /// Whether there is a WAL behind the one that is being read.
    pub(crate) fn is_behind(&self) -> bool {
        self.registry.wals_from(self.present_wal()).len() > 1
    }

    fn present_wal(&self) -> FileNumber {
        match &self.place {
            Place::In(tail) => tail.wal(),
            Place::After(wal) => *wal,
        }
    }

    fn same_boot(&self) -> bool {
        self.same_boot
    }

    fn two_phase(&self) -> TwoPhase {
        two_phase(&self.layout)
    }

    /// Where the next byte will appear that this engine waits for. `None` while it waits for anything else.
    pub(crate) fn ahead(&self) -> Option<Ahead> {
        self.waits_in()?;
        let Place::In(tail) = &self.place else { return None };
        Ahead::of(&self.layout.db, [tail.ahead()?, self.manifest.ahead()])
    }

    /// The WAL whose next record is all that this engine waits for, besides news in the MANIFEST.
    pub(crate) fn waits_in(&self) -> Option<FileNumber> {
        let Place::In(tail) = &self.place else { return None };
        let state = &self.state;
        let waits = self.waiting.is_some()
            || self.forked.is_some()
            || state.pending_session.is_some()
            || !state.wanted.is_empty()
            || !self.open.is_empty()
            || self.next_capture().is_some()
            || !self.deferred.is_empty();
        (!waits && self.following(tail.wal()).is_none()).then(|| tail.wal())
    }

    /// Why nothing is archived at the moment.
    pub fn waiting(&self) -> Option<&str> {
        self.waiting.as_ref().map(|w| w.detail.as_str())
    }

    /// The clock before the last look that found the end of everything readable.
    pub fn caught_up_at(&self) -> Option<Micros> {
        self.caught_up_at
    }

    /// As [`Engine::caught_up_at`], of processes before this one, too.
    pub fn observed(&self) -> Option<Micros> {
        self.state.observed
    }

    /// The present run.
    pub fn run(&self) -> u64 {
        self.state.run
    }

    /// Asks the owner to write its WAL buffer; whether everything committed is in the files afterwards.
    pub fn flush_owner(&self) -> Result<bool> {
        Ok(self.owner.flush_wal()? == crate::owner::Done::Yes || !self.unread_is_possible())
    }
}

/// How the server decides which WALs it needs.
fn two_phase(layout: &Layout) -> TwoPhase {
    if layout.allow_2pc() { TwoPhase::On } else { TwoPhase::Off }
}

/// An event for a column family's change.
fn column_family_event(
    change: ColumnFamilyChange,
    id: pitr_archive::ids::ColumnFamilyId,
    name: &Name,
    interval: Interval,
    manifest: ManifestPoint,
    edit: &[u8],
) -> Event {
    use base64::Engine as _;
    let edit = base64::engine::general_purpose::STANDARD.encode(edit);
    Event::ColumnFamily { change, id, name: name.to_string(), interval, manifest, edit }
}

/// A log of barriers that begins empty with each run.
fn fresh_barriers() -> BarrierLog {
    BarrierLog::default()
}

/// A sequence model that begins unknown with each run, at which flushed files reach `flushed`; whether the run begins
/// with an open of the server.
fn fresh_model(flushed: SequenceNumber, opens: bool) -> SequenceModel {
    let mut model = SequenceModel::default();
    model.start_run(flushed, opens);
    model
}
