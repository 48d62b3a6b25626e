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
    Code, Error, Result,
    catalog::{
        archive::{Archive, EpochClaim},
        schema::{ManifestDocument, Position, SegmentSummary, TimelineDocument},
    },
    clock::Micros,
    ids::{BaseId, FileNumber, ManifestNumbers, Nonce, Ordinal, TimelineId},
    object_key::ObjectKey,
    rate::Class,
    segment::envelope::Level,
};
use tokio::sync::Notify;

use self::{branch::timeline_for, holding::HeldBack, join::join, merging::Merges};
use crate::{
    base::{
        pace::Pace,
        upload::{KnownFiles, Reading},
    },
    config::{ArchiverConfig, Parts, Rival},
    control::Status,
    elapsed::{Moment, elapsed},
    engine::{BaseReason, Engine, Polled},
    known_archive,
    layout::Layout,
    metrics::Metrics,
    retention::policy::YOUNG,
    roll_up::RollUp,
    ship::{self, Answered, Delivered, Reach, Shipment},
    source::{Presence, Source},
    standby::Standby,
    state::StateDir,
    unread::Unread,
};

mod bases;
mod branch;
pub(crate) mod captures;
mod holding;
pub(crate) mod indexes;
mod join;
mod manifests;
pub(crate) mod merging;
mod tags;

pub(crate) use bases::{Floor, of_another_history};
pub(crate) use tags::TagBegun;

pub(crate) use holding::{Act, Backlog, BaseInProgress, HeldBack as Held, held_by_pins};

/// How many segments of a process with an older claim are taken over in a row before that process counts as alive.
const JOINS_IN_A_ROW: u32 = 3;

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

/// Where a segment lies that was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is the archive's last.
    End,
    /// An earlier process has gone on beyond it: what it holds must follow that one's segments.
    Past,
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
        Reading { at_once: self.config.uploads, rate, clock }
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

    /// Cuts and ships what was read; `None` if there was nothing. After an error the same segment is tried again.
    pub async fn ship(&mut self) -> Result<Option<SegmentSummary>> {
        self.ship_or_beat(Heartbeat::No).await
    }

    /// Ships a segment even if nothing was read: a sign of life.
    pub async fn heartbeat(&mut self) -> Result<()> {
        self.ship_or_beat(Heartbeat::Yes).await.map(drop)
    }

    async fn ship_or_beat(&mut self, heartbeat: Heartbeat) -> Result<Option<SegmentSummary>> {
        if self.pending.is_none() {
            self.capture().await?;
        }
        self.cut(heartbeat)?;
        let Some(shipment) = self.pending.clone() else { return Ok(None) };
        let answer = ship::deliver(&self.archive, self.claim.epoch(), &shipment, &*self.parts.clock).await?;
        let place = self.delivered(answer).await?;
        self.branch_if_forked().await?;
        Ok((place == Place::End).then(|| shipment.segment.summary.clone()))
    }

    /// Notes what became of the pending shipment; answers where it lies.
    pub(crate) async fn delivered(&mut self, answer: Answered) -> Result<Place> {
        let Some(shipment) = self.pending.clone() else { return Ok(Place::End) };
        let place = match answer.delivered {
            Delivered::Acknowledged => self.place_of(&shipment).await?,
            Delivered::JoinBehind => Place::Past,
        };
        match place {
            Place::End => {
                debug_assert!(shipment.position.boundary >= self.acknowledged.position.boundary);
                if shipment.segment.summary.ordinal == Ordinal::new(0) {
                    // Whoever claimed the archive before this one was there took the timeline for left, and opened another.
                    self.refuse_second_place().await?;
                }
                let now = self.parts.clock.now();
                // Not now: since that was asked this process may have slept.
                self.head_known = answer.asked;
                self.pending = None;
                self.acknowledged = Acknowledged { position: shipment.position, at: Some(now) };
                self.parts.metrics.acknowledged(&shipment, now);
                self.roll_up.segment(shipment.segment.summary.clone(), now);
                self.joined_behind = 0;
                self.engine.release(&shipment.state, shipment.manifest)?;
            }
            Place::Past => {
                // A dead process can have a few requests under way; one that goes on and on is alive, and was first.
                if self.joined_behind >= JOINS_IN_A_ROW && self.config.rival == Rival::Leave {
                    return Err(Error::new(Code::Fenced, "shipping the segment")
                        .on(&shipment.segment.key)
                        .with("segments of an older claim met in a row", self.joined_behind + 1));
                }
                tracing::warn!(key = %shipment.segment.key, "joining behind a segment of an earlier process");
                if self.source.presence() == Presence::Same {
                    self.source.layout = Layout::read(&self.config.db, &self.config.db_paths)?;
                }
                let key = ObjectKey::timeline(self.timeline);
                // Until joining has succeeded the shipment stays pending: it meets the same segment again, where what is
                // read next would be shipped behind a segment that it does not follow.
                let head_known = Moment::now(&*self.parts.clock);
                let timeline = self.archive.get_timeline(self.timeline).await?;
                let timeline = timeline.ok_or_else(|| Error::new(Code::ObjectMissing, "joining behind").on(key))?;
                let joined =
                    join(&self.archive, &self.claim, &timeline, &self.config, &self.parts, &self.source).await?;
                self.head_known = head_known;
                self.next_place = Place::End;
                self.pending = None;
                self.joined_behind += 1;
                self.joins += 1;
                self.engine = joined.engine;
                self.roll_up = joined.roll_up;
                self.pending_manifest = None;
                self.acknowledged.position = joined.position;
                self.left = false;
                self.learn_bases().await?;
            }
        }
        Ok(place)
    }

    /// Where a segment lies that was just created. One in the place of another writer's that had been deleted, by retention
    /// or because it was merged, is not in the archive. An earlier writer that did not notice our claim may have gone on all
    /// the while.
    ///
    /// Only what a manifest names is ever merged or pruned, and no manifest is pruned while it is young. Where the next one is
    /// not there, nobody has named anything since ours: of a pause between two signs of life one small request tells that.
    async fn place_of(&self, shipment: &Shipment) -> Result<Place> {
        if self.next_place == Place::Past {
            return Ok(Place::Past);
        }
        let pause = self.head_known.ago(&*self.parts.clock);
        if pause < PAUSE
            || pause < YOUNG && self.archive.get_manifest(self.timeline, self.roll_up.number).await?.is_none()
        {
            return Ok(Place::End);
        }
        const DOING: &str = "shipping the segment after a pause";
        let ordinal = shipment.segment.summary.ordinal;
        let newest = self.archive.list_manifests(self.timeline).await?.last().copied();
        if let Some(newest) = newest
            && let Some((other, _)) = self.archive.get_manifest(self.timeline, newest).await?
        {
            if other.epoch > self.claim.epoch() {
                return Err(Error::new(Code::Fenced, DOING)
                    .on(&shipment.segment.key)
                    .with("our epoch", self.claim.epoch())
                    .with("epoch of the newest manifest", other.epoch));
            }
            // A dead process's manifest that came late names nothing from here on.
            if other.segments.last().is_some_and(|last| last.ordinals().last() >= ordinal) {
                return Ok(Place::Past);
            }
        }
        match self.archive.deletion_boundary(self.timeline).await? {
            Some(deleted) if ordinal < deleted.ordinal => Err(Error::new(Code::Fenced, DOING)
                .on(&shipment.segment.key)
                .with("the archive now begins with ordinal", deleted.ordinal)),
            _ => Ok(Place::End),
        }
    }

    /// Another archiver may have claimed the archive and write into another timeline, where its segments meet none of ours.
    pub(crate) async fn refuse_second_place(&self) -> Result<()> {
        match self.archive.newest_epoch().await? {
            Some(newest) if newest > self.claim.epoch() => Err(Error::new(Code::Fenced, "going on with")
                .on(self.archive.store().describe())
                .with("our epoch", self.claim.epoch())
                .with("newest epoch", newest)),
            _ => Ok(()),
        }
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
            epoch: self.claim.epoch(),
            read,
            acknowledged,
            unacknowledged_records: read.boundary.get().saturating_sub(acknowledged.boundary.get()),
            oldest_unacknowledged: holding.oldest,
            caught_up: self.engine.caught_up_at(),
            last_acknowledged: self.acknowledged.at,
            last_base: self.last_base.clone(),
            base: self.engine.wanted_base().map(|reason| format!("wanted: {reason:?}")),
            base_due: self.base_due(now),
            pinned_bytes: holding.pins,
            backlog_bytes: holding.backlog,
            time_to_full: self.config.budget.time_to_full(&holding, now).map(|left| left.as_secs()),
            alarm: self.held_back.alarm().map(|limit| limit.to_string()),
            away: self.reach.failing(),
            pin_delay: self.engine.registry().pin_delay(),
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
