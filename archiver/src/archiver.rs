//! The archiver: engine, shipping, bases, tags and manifests put together.
//!
//! Owns: the order of effects and the watermarks `read >= shipped >= acknowledged`. Data first, then what names it, then
//! the release of the local copy:
//! 1. records are read (and copied, where the server recycles) and put into a segment;
//! 2. the segment is created in the archive;
//! 3. tags, bases and manifests that name a position in it are created;
//! 4. pins of what it holds are released.
//!
//! Where the history forked, `branch` goes over to another timeline between 2 and 1.
//!
//! A crash between any two leaves either something that is done again (2: the same ordinal is found taken by our own
//! dead self and joined behind) or something unneeded that the next process finds (a pin, a link, an unnamed object).
//!
//! The steps are methods, so that tests and one-shot commands drive them; [`Archiver::run`] drives them as a daemon.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use pitr_archive::{
    Error, Result,
    catalog::{
        archive::{Archive, EpochClaim},
        schema::{ManifestDocument, Position, TimelineDocument},
    },
    clock::Micros,
    ids::{BaseId, FileNumber, ManifestNumbers, Nonce, TimelineId},
    rate::Class,
    segment::envelope::Level,
};
use tokio::sync::Notify;

use self::{branch::timeline_for, holding::HeldBack, join::join, merging::Merges};
use crate::{
    base::{
        pace::Pace,
        upload::{KnownFiles, Lookup, Reading},
    },
    config::{ArchiverConfig, Parts},
    control::Status,
    elapsed::{Moment, elapsed},
    engine::{BaseReason, Engine, Polled},
    known_archive,
    metrics::Metrics,
    roll_up::RollUp,
    ship::{Reach, Shipment},
    source::{Presence, Source},
    standby::Standby,
    state::StateDir,
    unread::Unread,
};

mod bases;
mod branch;
pub(crate) mod captures;
mod delivery;
mod holding;
pub(crate) mod indexes;
mod join;
mod manifests;
pub(crate) mod merging;
mod tags;

pub(crate) use bases::{Floor, WithoutFloor, of_another_history};
pub(crate) use delivery::Place;
pub(crate) use tags::{TagBegun, untag};

pub(crate) use holding::{Act, Backlog, BaseInProgress, HeldBack as Held, held_by_pins, rooms};

/// A writer that has not heard of the archive for so long makes sure that what it writes next is not written into the past.
/// Whoever deletes leaves alone what is younger, by far.
const PAUSE: Duration = Duration::from_secs(60);

/// Between two listings of the directories while file events tell of new files.
pub(crate) const SCAN_INTERVAL: Duration = Duration::from_millis(500);

/// Read at once where reading is slowed down.
const SLICE: u64 = 1 << 20;

/// Who wants the log read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Haste {
    /// Somebody, who waits for it: the limit of reading does not hold.
    Asked,
    /// The archiver, which is behind.
    ByItself,
}

/// What the archive has acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub position: Position,
    pub at: Option<Micros>,
}

/// What an archive was claimed with.
struct Claimed {
    claim: EpochClaim,
    head_known: Moment,
    timeline: TimelineId,
    joined: join::Joined,
}

/// An archiver of one database into one archive.
#[derive(Debug)]
pub struct Archiver {
    pub(crate) config: ArchiverConfig,
    pub(crate) parts: Parts,
    pub(crate) archive: Arc<Archive>,
    pub(crate) claim: EpochClaim,
    pub(crate) engine: Engine,
    pub(crate) state_dir: StateDir,
    pub(crate) changed: Arc<Notify>,
    pub(crate) acknowledged: Acknowledged,
    /// Cut, and not acknowledged.
    pub(crate) pending: Option<Arc<Shipment>>,
    pub(crate) roll_up: RollUp,
    /// Segments of an older claim met in a row, without one of our own between.
    joined_behind: u32,
    /// How often the archive's end turned out to be another one than this process believed.
    pub(crate) joins: u64,
    /// A fork was noticed, and the timeline's last segment is our own.
    left: bool,
    /// The timeline that was opened for a fork, until it is joined.
    opened: Option<TimelineDocument>,
    /// How often it went over to another timeline: what was collected of the directory before is another history's.
    pub(crate) branches: u64,
    /// Sent, and not known to be written.
    pending_manifest: Option<ManifestDocument>,
    /// Groups of manifests that are complete and have no index yet.
    unindexed: VecDeque<(TimelineId, ManifestNumbers)>,
    /// Sent, not known to be written, and not sent again: it may arrive all the same.
    given_up_manifest: Option<Nonce>,
    /// Files of published bases.
    pub(crate) known_files: KnownFiles,
    pub(crate) last_base: Option<BaseId>,
    pub(crate) last_base_attempt: Option<Micros>,
    pub(crate) base_without_floor: Option<WithoutFloor>,
    /// How often barriers may have a base.
    pub(crate) pace: Pace,
    last_scan: Micros,
    /// When the archive's end was last known to be ours.
    pub(crate) head_known: Moment,
    /// Where what is delivered next lies, as far as it is known before.
    next_place: Place,
    timeline: TimelineId,
    pub(crate) source: Source,
    /// What is held back, as it was last measured, and what was done about it.
    pub(crate) held_back: HeldBack,
    /// What is written and not read.
    unread: Unread,
    /// Whether the archive answers.
    pub(crate) reach: Arc<Reach>,
    /// What is known about merging.
    pub(crate) merging: Merges,
}

impl Archiver {
    /// Locks the state directory, claims the archive, and joins its end or begins a run.
    ///
    /// # Errors
    /// `writer.state-locked`, `rocksdb.not-a-database`, `pin.impossible`, and what the store answers.
    pub async fn open(config: ArchiverConfig, archive: Archive, parts: Parts) -> Result<Self> {
        Standby::begin(config, parts)?.join(archive).await.map_err(|(_, e)| e)
    }

    /// Claims the archive for a database that is followed already.
    pub(crate) async fn join(standby: Standby, archive: Archive) -> std::result::Result<Self, (Box<Standby>, Error)> {
        let archive = Arc::new(archive);
        let joined = match Self::claim_and_join(&standby, &archive).await {
            Ok(joined) => joined,
            Err(e) => return Err((Box::new(standby), e)),
        };
        let mut archiver = Self::put_together(standby, archive, joined);
        match archiver.learn_and_branch().await {
            Ok(()) => Ok(archiver),
            Err(e) => Err((Box::new(archiver.stand_by()), e)),
        }
    }

    async fn claim_and_join(standby: &Standby, archive: &Arc<Archive>) -> Result<Claimed> {
        let Standby { config, parts, source, state_dir, .. } = standby;
        known_archive::refuse_another(state_dir, archive)?;
        crate::crash::point("epoch-before-put");
        let claim = archive.claim_epoch(&config.writer, &*parts.clock, &*parts.random).await?;
        crate::crash::point("epoch-after-put");
        let head_known = Moment::now(&*parts.clock);
        let timeline = timeline_for(archive, &claim, source, parts).await?;
        let joined = join(archive, &claim, &timeline, config, parts, source).await?;
        known_archive::note(state_dir, archive)?;
        Ok(Claimed { claim, head_known, timeline: timeline.timeline, joined })
    }

    fn put_together(standby: Standby, archive: Arc<Archive>, claimed: Claimed) -> Self {
        let Standby { config, parts, state_dir, changed, source, held_back } = standby;
        let Claimed { claim, head_known, timeline, joined } = claimed;
        Self {
            acknowledged: Acknowledged { position: joined.position, at: None },
            pace: Pace::new(config.barrier_base_spacing, config.barrier_base_spacing_max),
            config,
            parts,
            archive,
            claim,
            engine: joined.engine,
            state_dir,
            changed,
            pending: None,
            roll_up: joined.roll_up,
            joined_behind: 0,
            joins: 0,
            left: false,
            opened: None,
            branches: 0,
            pending_manifest: None,
            unindexed: VecDeque::new(),
            given_up_manifest: None,
            known_files: KnownFiles::default(),
            last_base: None,
            last_base_attempt: None,
            base_without_floor: None,
            last_scan: Micros(0),
            head_known,
            next_place: Place::End,
            timeline,
            source,
            held_back,
            unread: Unread::default(),
            reach: Arc::default(),
            merging: Merges::default(),
        }
    }

    async fn learn_and_branch(&mut self) -> Result<()> {
        self.learn_bases().await?;
        self.branch_if_forked().await
    }

    /// Gives up the claim; the database goes on being followed.
    fn stand_by(self) -> Standby {
        let Self { config, parts, state_dir, changed, source, held_back, .. } = self;
        Standby { config, parts, state_dir, changed, source, held_back }
    }

    /// Reads everything that is readable at the call, unless a segment's worth comes first.
    pub fn poll(&mut self) -> Result<Polled> {
        self.presence()?;
        // File events arrive a moment after the files: a WAL that is there already must not be missed by a tag.
        if self.lists_again() {
            self.note_what_is_there()?
        } else {
            self.engine.registry().scan()?
        }
        self.presence()?;
        self.read(Haste::Asked)
    }

    /// As [`Archiver::poll`], trusting file events to name new files; lists the directories twice a second all the same.
    pub(crate) fn look(&mut self) -> Result<Polled> {
        // Before the directories are listed: what is found there now may be another database's.
        self.presence()?;
        if self.lists_again() {
            self.note_what_is_there()?;
        }
        self.read(Haste::ByItself)
    }

    fn lists_again(&self) -> bool {
        elapsed(self.last_scan, self.parts.clock.now()) >= SCAN_INTERVAL
    }

    /// Lists the directories, and notes for a later process what the watch has shown: in a backlog, of WALs that nothing
    /// here will read for a while, too. That process could not tell that there was none between two that are only pinned.
    pub(crate) fn note_what_is_there(&mut self) -> Result<()> {
        if self.engine.is_behind() {
            self.engine.registry().scan_settled()?;
        } else {
            self.engine.registry().scan()?;
        }
        self.source.note_watches(&self.state_dir);
        self.last_scan = self.parts.clock.now();
        Ok(())
    }

    /// How the files of a base are read.
    pub(crate) fn reading(&self) -> Reading {
        let (rate, clock) = (self.parts.read_rate.clone(), self.parts.clock.clone());
        Reading { at_once: self.config.uploads, rate, clock, lookup: Lookup::Listing }
    }

    fn read(&mut self, haste: Haste) -> Result<Polled> {
        let rate = self.parts.read_rate.clone().filter(|_| haste == Haste::ByItself);
        let mut total = Polled::default();
        // A segment without room would never be filled, and whoever waits for the end would wait for ever.
        let full = self.config.segment_bytes.max(1);
        while self.engine.stream.plain_bytes() < full && rate.as_ref().is_none_or(|rate| rate.is_paid(Class::Rest)) {
            let room = full - self.engine.stream.plain_bytes();
            let room = if rate.is_some() { room.min(SLICE) } else { room };
            let polled = self.engine.poll(room);
            self.source.note_proofs(&self.state_dir);
            let polled = polled?;
            total.records += polled.records;
            total.bytes += polled.bytes;
            total.caught_up = polled.caught_up;
            if polled.caught_up || polled.records == 0 {
                break;
            }
            // The end of the log is read as it grows; only what is read to get there is slowed down.
            if let Some(rate) = &rate {
                rate.charge(Class::Rest, polled.bytes);
            }
        }
        self.parts.metrics.read(total);
        self.note_unread(total)?;
        Ok(total)
    }

    /// Notes whether a look left something unread.
    fn note_unread(&mut self, polled: Polled) -> Result<()> {
        if polled.caught_up {
            self.unread = Unread::default();
            return Ok(());
        }
        let at = self.engine.position();
        let read = at.wal.zip(at.offset);
        if !self.unread.is_due(read) {
            return Ok(());
        }
        let registry = self.engine.registry();
        let Some((newest, _)) = registry.wals_from(FileNumber::default()).pop() else { return Ok(()) };
        let end = registry.pins().wal_bytes(newest)?.unwrap_or_default();
        let now = self.parts.clock.now();
        self.unread.ends(self.engine.observed().unwrap_or(now), now, (newest, end));
        Ok(())
    }

    /// Notices that another directory is in the database's place.
    ///
    /// # Errors
    /// `rocksdb.not-a-database` while there is none.
    fn presence(&mut self) -> Result<()> {
        match self.source.presence() {
            Presence::Same => Ok(()),
            Presence::Replaced => self.engine.directory_replaced(),
            Presence::Away => Err(self.source.away()),
        }
    }

    /// Cuts a segment of what was read; with nothing read, only when a heartbeat is asked for.
    pub(crate) fn cut(&mut self, heartbeat: Heartbeat) -> Result<()> {
        if self.pending.is_some() || (self.engine.stream.is_empty() && heartbeat == Heartbeat::No) {
            return Ok(());
        }
        let position = self.engine.position();
        let state = self.engine.resume_state();
        let progress = self.engine.manifest_progress();
        let manifest = progress.point;
        let oldest = self.engine.stream.oldest();
        let segment = self.engine.stream.cut(&state, progress, position.sequence)?;
        self.pending = Some(Arc::new(Shipment { segment, state, manifest, position, oldest }));
        Ok(())
    }

    /// Ships until everything read is acknowledged.
    pub(crate) async fn ship_all(&mut self) -> Result<()> {
        while self.pending.is_some() || !self.engine.stream.is_empty() {
            self.ship().await?;
        }
        // A fork that was noticed with nothing left to ship.
        self.branch_if_forked().await
    }

    /// Reads and ships until nothing is left to read.
    pub(crate) async fn drain(&mut self) -> Result<()> {
        loop {
            let joins = self.joins;
            let polled = self.poll()?;
            self.capture().await?;
            self.ship_all().await?;
            // Behind another process's segment everything is read anew.
            if joins == self.joins && (polled.caught_up || self.engine.waiting().is_some()) {
                return Ok(());
            }
        }
    }

    /// Archives everything that is readable now: `run --once`. Takes a base if one is wanted and would serve.
    pub async fn catch_up(&mut self) -> Result<Position> {
        self.drain().await?;
        // There may be no later.
        if let Some(reason) = self.wanted_and_useful() {
            self.take_base_for(reason).await?;
        }
        self.drain().await?;
        self.heartbeat().await?;
        self.close_manifest().await?;
        self.write_indexes().await;
        Ok(self.acknowledged.position)
    }

    /// Takes over what can change while it runs.
    pub(crate) fn adopt(&mut self, new: &ArchiverConfig) {
        let changed = self.config.adopt(new);
        if changed.is_empty() {
            return;
        }
        tracing::info!(?changed, "new settings are in force");
        if changed.iter().any(|field| field.starts_with("barrier_base_spacing")) {
            self.pace = Pace::new(self.config.barrier_base_spacing, self.config.barrier_base_spacing_max);
        }
        self.engine.set_policy(self.config.policy());
        self.engine.stream.set_level(Level::new(self.config.compression_level));
    }

    /// Ships the rest and closes the manifest.
    pub async fn close(mut self) -> Result<()> {
        self.drain().await?;
        if self.roll_up.segments.is_empty() {
            self.heartbeat().await?;
        }
        self.close_manifest().await
    }

    /// The end of what was read.
    pub fn position(&self) -> Position {
        self.engine.position()
    }

    /// The end of what the archive has acknowledged.
    pub fn acknowledged(&self) -> Position {
        self.acknowledged.position
    }

    /// Why a base is wanted, if one is.
    pub fn wanted_base(&self) -> Option<&BaseReason> {
        self.engine.wanted_base()
    }

    /// The timeline that is written.
    pub(crate) const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The archive.
    pub fn archive(&self) -> &Arc<Archive> {
        &self.archive
    }

    /// What it counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.parts.metrics
    }

    /// How things are.
    pub fn status(&self) -> Result<Status> {
        let read = self.engine.position();
        let acknowledged = self.acknowledged.position;
        let now = self.parts.clock.now();
        let holding = self.holding()?;
        Ok(Status {
            database: self.config.db.display().to_string(),
            archive: self.archive.store().describe(),
            archive_id: Some(self.archive.id()),
            epoch: self.claim.epoch(),
            read,
            acknowledged,
            unacknowledged_records: read.boundary.get().saturating_sub(acknowledged.boundary.get()),
            oldest_unacknowledged: holding.oldest,
            caught_up: self.engine.caught_up_at(),
            last_acknowledged: self.acknowledged.at,
            last_base: self.last_base.clone(),
            base: self.engine.wanted_base().map(|reason| format!("wanted: {reason}")),
            base_due: self.base_due(now),
            pinned_bytes: holding.pins,
            backlog_bytes: holding.backlog,
            time_to_full: self.config.budget.time_to_full(&holding, now).map(|left| left.as_secs()),
            alarm: self.held_back.alarm().map(|limit| limit.to_string()),
            away: self.reach.failing(),
            pin_delay: self.engine.registry().pin_delay(),
            base_waits: self.base_waits(now).map(ToOwned::to_owned),
            barriers: self.engine.barriers_noted(),
            waiting: self.engine.waiting().map(ToOwned::to_owned),
            now,
        })
    }
}

/// Whether an empty segment is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// As a sign of life.
    Yes,
    /// Not.
    No,
}
