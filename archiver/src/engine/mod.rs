//! The engine: reads the server's files in the right order and turns them into the archived stream.
//!
//! Owns: the position in the stream, the run, the session, and every decision about continuity. It is synchronous and
//! single-threaded; shipping and bases are driven from outside ([`crate::archiver`]).
//! Refuses: to guess. Whatever cannot be joined becomes a barrier; what ends a run begins a new one at offset 0 of the
//! first WAL that a base would need.
//!
//! One look ([`Engine::poll`]) is a sequence of rounds. Each round reads in this order, and the order is what makes the
//! intervals of events true:
//!
//! 1. the present WAL to its readable end (or the budget);
//! 2. the MANIFEST to its end: an edit that is new now was not there when the round before read it last, so it happened
//!    after the readable end of the *round before* (`lo`);
//! 3. if there was such an edit: the WAL once more, what is readable now includes everything before the edit (`hi`); and
//!    step 2 again, so that no record is taken that is younger than the last look at the MANIFEST;
//! 4. events go into the stream before the records of the round, so that no archive holds records beyond an event's
//!    `lo` without holding the event;
//! 5. if the WAL is final, the next one is begun, after the proof that there is none in between.
//!
//! - `emit`: judges records and puts them into the stream.
//! - `news`: what the MANIFEST said becomes events and barriers.
//! - `capture`: files that enter without the log are held until the archive has them.
//! - `tolerate`: writes without the log in column families of which the operator said so.
//! - `advance`: from one WAL to the next, from one session to the next.
//! - `fork`: noticing that the history forked.
//! - `run`: beginning a run.
//! - `bases`: which bases would serve.
//! - `wishes`: which bases are wanted.
//! - [`resume`]: going on where an earlier process stopped.

mod advance;
mod bases;
mod capture;
mod emit;
mod fork;
mod news;
pub mod resume;
mod run;
mod tolerate;
mod types;
mod wishes;

use std::{collections::VecDeque, sync::Arc};

use pitr_archive::{
    Code, Error, Result,
    catalog::{
        crossing::{Footing, Hurdle},
        schema::{ManifestProgress, Position},
    },
    clock::{Clock, Micros},
    ids::{Boundary, FileNumber, SequenceNumber, TimelineId},
    rocks::{
        log_reader::Finality,
        manifest::{Name, TwoPhase},
    },
    segment::entry::{BarrierReason, ColumnFamilyChange, Event, Interval, ManifestPoint},
};

pub use self::bases::max_file_sequence;
pub use self::capture::PendingCapture;
pub use self::fork::{Before, Evidence, Fork};
pub use self::types::{BaseReason, BaseStart, EngineState, Polled, WalFact};
use self::types::{Deferred, InfoLog, Item, OpenInterval, PendingSession, Place, Waiting};
use crate::{
    barrier_log::BarrierLog,
    layout::Layout,
    lineage::Lineage,
    manifest_tail::{Consumed, Follow, ManifestTail, News},
    owner::Owner,
    quiet::Ahead,
    registry::Registry,
    sequence_model::SequenceModel,
    stream::Stream,
    wal_tail::Step,
};

/// Looks at the MANIFEST in one round: a server that changes its files without a pause must not hold up its records.
const MANIFEST_LOOKS: u32 = 3;

/// Plain bytes that one round reads at most, so that memory stays bounded while an archiver catches up.
pub(super) const ROUND_BYTES: u64 = 1 << 20;

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
}

impl Engine {
    /// Everything readable is read, or `limit` plain bytes of it.
    pub fn poll(&mut self, limit: u64) -> Result<Polled> {
        let mut polled = Polled::default();
        if self.forked.is_some() || !self.leave_waiting()? {
            return Ok(polled);
        }
        self.learn_settings()?;
        // What an earlier look left in memory may have been the end of the file then: this one promises the present.
        if let Place::In(tail) = &mut self.place {
            tail.look_again();
        }
        let run = self.state.run;
        loop {
            let before = self.stream.plain_bytes();
            let quiet_at = self.stream.entries();
            let from = self.clock.now();
            let round = self.round(from)?;
            polled.records += round.records;
            let added = self.stream.plain_bytes().saturating_sub(before);
            polled.bytes += added;
            if round.caught_up {
                polled.caught_up = true;
                self.caught_up_at = Some(from);
                if quiet_at == self.stream.entries() {
                    self.stream.observed_through(from);
                }
                return Ok(polled);
            }
            // A run that began just now is looked at again by the next poll: whatever ended the one before must not spin.
            let new_run = self.state.run != run;
            if self.waiting.is_some()
                || self.forked.is_some()
                || new_run
                || polled.bytes >= limit
                || (round.records == 0 && !round.moved)
            {
                return Ok(polled);
            }
        }
    }

    fn round(&mut self, from: Micros) -> Result<types::Round> {
        let mut items = Vec::new();
        let start = self.stream.boundary();
        let mut read = self.read_wal(&mut items)?;
        let (mut news, mut missed, mut put_back) = (Vec::new(), None, None);
        // Every change that these had shown before the log was read for the last time.
        let mut shown = 0;
        let mut looks = 0;
        // The MANIFEST is always read after the records: what it does not say by then has not happened before them, and
        // a segment that ends here needs no later one to be true.
        loop {
            looks += 1;
            let before = news.len();
            match self.manifest.follow(&self.registry)? {
                Follow::News(more) => {
                    self.hold_entered(&more)?;
                    news.extend(more);
                }
                Follow::Missed { before, detail } => {
                    news.extend(before);
                    missed = Some(detail);
                }
                Follow::PutBack { before, detail } => {
                    news.extend(before);
                    put_back = Some(detail);
                }
            }
            let tells = |news: &News| news::has_interval(news) || news::may_be_of_unread_records(news);
            let again = read == types::Ended::SoFar && news.iter().skip(before).any(tells);
            if again || !self.open.is_empty() {
                // The end of an interval must lie behind everything readable: a WAL that no event has named yet included.
                self.registry.scan()?;
            }
            if !again || missed.is_some() || put_back.is_some() || looks == MANIFEST_LOOKS {
                break;
            }
            read = self.read_wal(&mut items)?;
            shown = news.len();
        }
        let edge = edge(start, &items);
        let mut at_end = read == types::Ended::SoFar && !self.newer_wal_has_records()?;
        let all_shown = !news.iter().skip(shown).any(news::has_interval);
        let certain = all_shown && !self.unread_is_possible() && !self.newer_wal_is_known();
        let hi = (at_end && shown > 0 && certain).then_some(edge);
        self.publish_news(news, hi, &items)?;
        if missed.is_none() && put_back.is_none() {
            self.lo = edge;
        }
        if self.begin_session_here(&items)? == emit::Run::Ended {
            return Ok(types::Round { records: 0, moved: true, caught_up: false });
        }
        let records = edge.get() - start.get();
        if self.emit(items)? == emit::Run::Ended {
            return Ok(types::Round { records: 0, moved: true, caught_up: false });
        }
        if let Some(detail) = put_back {
            self.put_back(detail)?;
            return Ok(types::Round { records, moved: true, caught_up: false });
        }
        if let Some(detail) = missed {
            self.end_run(BarrierReason::ManifestMissed, detail)?;
            return Ok(types::Round { records, moved: true, caught_up: false });
        }
        let mut moved = false;
        match read {
            types::Ended::Budget => at_end = false,
            types::Ended::SoFar => match self.advance()? {
                advance::Advance::Stays => {}
                advance::Advance::Moved => {
                    moved = true;
                    at_end = false;
                }
            },
            types::Ended::Corrupt { at, reason } => {
                let detail = format!("WAL {} at offset {at}: {reason}", self.present_wal());
                self.end_run(BarrierReason::Unreadable, detail)?;
                moved = true;
                at_end = false;
            }
        }
        if at_end {
            self.at_readable_end()?;
        }
        // Last, so that the look shows all that the round found out.
        if self.stream.entries() != self.looked_at {
            // Of what is new is only known that it was not there when the last look that saw everything began.
            self.stream.look(self.state.observed.unwrap_or(Micros(0)), self.clock.now());
            self.looked_at = self.stream.entries();
        }
        if at_end {
            self.state.observed = Some(from);
        }
        Ok(types::Round { records, moved, caught_up: at_end })
    }

    /// Settings change with a restart of the server, some at any time: each change is a new OPTIONS file.
    fn learn_settings(&mut self) -> Result<()> {
        let read = self.layout.options.as_ref().map(|options| options.number);
        if self.registry.newest_options() <= read {
            return Ok(());
        }
        let layout = Layout::read(&self.layout.db, &self.layout.db_paths)?;
        if layout.wal_dir != self.layout.wal_dir {
            return Err(Error::new(Code::DatabaseUnsupported, "following the write-ahead log of")
                .on(self.layout.db.display())
                .with("wal_dir was", self.layout.wal_dir.display())
                .with("wal_dir is", layout.wal_dir.display())
                .hint("the server keeps its log elsewhere since its restart: start the archiver again"));
        }
        self.layout = layout;
        Ok(())
    }

    /// Reads the present WAL to its end so far, or until the round's budget is used up.
    fn read_wal(&mut self, items: &mut Vec<Item>) -> Result<types::Ended> {
        let Place::In(tail) = &mut self.place else { return Ok(types::Ended::SoFar) };
        let mut bytes = 0u64;
        let mut records = 0usize;
        let ended = loop {
            if bytes >= ROUND_BYTES {
                break types::Ended::Budget;
            }
            match tail.next(Finality::Growing)? {
                Step::Record(record) => {
                    bytes += record.payload.len() as u64 + 32;
                    records += 1;
                    items.push(Item::Record(record));
                }
                Step::TimestampSizes { offset, sizes } => {
                    items.push(Item::Event(Event::TimestampSizes { wal: tail.wal(), offset, sizes }));
                }
                Step::EndSoFar | Step::FinalEnd { .. } => {
                    tail.look_again();
                    break types::Ended::SoFar;
                }
                Step::Corrupt { at, reason } => break types::Ended::Corrupt { at, reason },
            }
        };
        if records > 0 {
            tail.keep_copy(self.registry.pins())?;
            crate::crash::point("after-pin");
        }
        Ok(ended)
    }

    /// Everything that was readable has been read.
    fn at_readable_end(&mut self) -> Result<()> {
        let boundary = self.stream.boundary();
        self.state.model.settle();
        let flushed = self.manifest.model().last_sequence();
        let by_open = u64::from(self.state.transactions.counts_batches());
        // What a session flushed is said where it begins. One that no info log names begins with its first record only, and
        // until then the database can have gone on unseen.
        let judged_later = self.state.pending_session.as_ref().is_some_and(|session| session.waits);
        if self.state.model.is_beyond(flushed, by_open) && !judged_later {
            self.jump_to_flushed(boundary, flushed)?;
            self.state.model.accept(flushed);
        } else if self.state.model.last().is_some() && self.state.pending_session.is_none() {
            self.state.model.accept(flushed);
        }
        if !self.unread_is_possible() {
            self.close_intervals(boundary)?;
        }
        Ok(())
    }

    /// Flushed files reach numbers that neither the log nor anything else explains.
    fn jump_to_flushed(&mut self, here: Boundary, flushed: SequenceNumber) -> Result<()> {
        let end = self.state.model.last().map_or_else(|| "before it".to_owned(), |last| format!("at {last}"));
        let what = "writes with disableWAL, an import, or logs that came and went unseen";
        let detail = format!("flushed files reach sequence {flushed}, the log ends {end}: {what}");
        let first = self.state.model.due().unwrap_or(flushed);
        let explained = self.explained();
        if self.tolerate((first, flushed), &explained, &detail)? {
            return Ok(());
        }
        self.jump(here, flushed, detail)
    }

    /// Ends every open interval at `hi`.
    fn close_intervals(&mut self, hi: Boundary) -> Result<()> {
        for interval in std::mem::take(&mut self.open) {
            self.stream.event(&Event::IntervalClosed { manifest: interval.manifest, hi })?;
        }
        Ok(())
    }

    /// Whether committed writes can be missing from the files although the files were read to their ends.
    pub fn unread_is_possible(&self) -> bool {
        self.layout.manual_wal_flush()
    }

    /// Notes a barrier that does not end the run.
    fn barrier(&mut self, reason: BarrierReason, lo: Boundary, detail: String) -> Result<()> {
        self.barrier_within(reason, Interval { lo, hi: Some(lo) }, None, None, detail)
    }

    /// Notes that numbers up to `unexplained` were used at `lo` by writes that are not in the log.
    fn jump(&mut self, lo: Boundary, unexplained: SequenceNumber, detail: String) -> Result<()> {
        let interval = Interval { lo, hi: Some(lo) };
        self.barrier_within(BarrierReason::SequenceJump, interval, None, Some(unexplained), detail)
    }

    /// Notes a barrier in an interval; `manifest` is the edit that showed it, if one did.
    fn barrier_within(
        &mut self,
        reason: BarrierReason,
        interval: Interval,
        manifest: Option<ManifestPoint>,
        unexplained: Option<SequenceNumber>,
        detail: String,
    ) -> Result<()> {
        tracing::warn!(?reason, at = %interval.lo, detail, "barrier");
        let hurdle = Hurdle { reason, interval, manifest, unexplained };
        self.state.barriers.note(hurdle);
        self.barriers_noted += 1;
        self.untold.push((reason, interval.lo, detail.clone()));
        // A base whose replay begins behind the place reaches beyond it already: the one taken at an open, for reuse.
        let reached = self.last_base.is_some_and(|base| !hurdle.concerns(&base));
        if !reached {
            self.want_base(BaseReason::Barrier(reason));
        }
        self.stream.event(&Event::Barrier {
            reason,
            interval,
            manifest,
            unexplained,
            detail,
            noticed: self.clock.now(),
        })
    }

    /// Barriers noted since the last call: reason, place, and the words.
    pub(crate) fn take_untold(&mut self) -> Vec<(BarrierReason, Boundary, String)> {
        std::mem::take(&mut self.untold)
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

    /// `LastSequence` of the database at the end of the stream.
    pub fn last_sequence(&self) -> SequenceNumber {
        self.state.model.last().unwrap_or_else(|| self.manifest.model().last_sequence())
    }

    /// The end of the stream.
    pub fn position(&self) -> Position {
        let (wal, offset) = self.stream.last_record().unzip();
        Position {
            timeline: self.timeline,
            boundary: self.stream.boundary(),
            hash: self.stream.hash(),
            wal,
            offset,
            sequence: self.last_sequence(),
        }
    }

    /// How far the MANIFEST was consumed.
    pub fn manifest_progress(&self) -> ManifestProgress {
        let Consumed { point, digest, edits } = self.held.unwrap_or_else(|| self.manifest.consumed());
        let (session, db_session_id) = (self.state.session, self.state.session_id.clone());
        ManifestProgress { point, digest, edits: Some(edits), session, db_session_id }
    }

    /// What a later process needs to go on here; stored in every segment.
    pub fn resume_state(&self) -> EngineState {
        let mut state = self.state.clone();
        state.first_wal_needed = self.first_wal_needed();
        state.place = self.present_wal();
        // What is deferred is read again.
        let deferred = self.deferred.iter().filter(|deferred| matches!(deferred.news, News::Change { .. }));
        state.lo = deferred.map(|deferred| deferred.lo).fold(self.lo, Boundary::min);
        state.open = self.open.clone();
        state.captures = self.unnoted_captures();
        state.last_record = self.stream.last_record();
        if let Place::In(tail) = &self.place
            && let Some(fact) = state.wals.get_mut(&tail.wal())
            && let Some(prefix) = self.stream.wal_prefix(tail.wal())
        {
            fact.end = tail.end();
            fact.prefix = prefix;
            fact.recycled = tail.is_recycled();
        }
        state
    }

    /// RocksDB's first WAL needed at the last edit that was read.
    pub fn first_wal_needed(&self) -> FileNumber {
        let needed = self.manifest.model().first_wal_needed(self.two_phase());
        // Until its session has begun, the WALs before an open are what a fork is recognised by.
        self.state.pending_session.as_ref().map_or(needed, |session| session.needed_before.min(needed))
    }

    /// The archive holds everything up to `acknowledged`, the state of a segment's end: gives up what is not needed.
    ///
    /// WALs are kept from the first one that RocksDB itself would need (they are what a fork is recognised by), and from
    /// the first one whose end is not acknowledged.
    pub fn release(&mut self, acknowledged: &EngineState, manifest: ManifestPoint) -> Result<()> {
        crate::crash::point("before-release");
        let mut below = acknowledged.first_wal_needed.min(acknowledged.place);
        if let Some(hold) = self.hold_from {
            below = below.min(hold);
        }
        self.registry.release_wals_below(below)?;
        self.state.wals.retain(|wal, _| *wal >= below);
        self.state.wals_from = self.state.wals_from.max(below);
        self.release_captured()?;
        self.registry.release_manifests_below(manifest.file)?;
        crate::crash::point("after-release");
        Ok(())
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

    /// Barriers recorded by this process.
    pub fn barriers_noted(&self) -> u64 {
        self.barriers_noted
    }

    /// The clock before the last look that found the end of everything readable.
    pub fn caught_up_at(&self) -> Option<Micros> {
        self.caught_up_at
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

/// The boundary after `items`.
fn edge(start: Boundary, items: &[Item]) -> Boundary {
    let records = items.iter().filter(|i| matches!(i, Item::Record(_))).count();
    Boundary::new(start.get() + records as u64)
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
