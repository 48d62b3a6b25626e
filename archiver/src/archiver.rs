//! The archiver: engine, shipping, bases, tags and manifests put together.
//!
//! Owns: the order of effects and the watermarks `read >= shipped >= acknowledged`. Data first, then what names it, then
//! the release of the local copy:
//! 1. records are read (and copied, where the server recycles) and put into a segment;
//! 2. the segment is created in the archive;
//! 3. tags, bases and manifests that name a position in it are created;
//! 4. pins of what it holds are released.
//!
//! A crash between any two leaves either something that is done again (2: the same ordinal is found taken by our own
//! dead self and joined behind) or something unneeded that the next process finds (a pin, a link, an unnamed object).
//!
//! The steps are methods, so that tests and one-shot commands drive them; [`Archiver::run`] drives them as a daemon.

use std::{path::PathBuf, sync::Arc, time::Duration};

use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::{Archive, EpochClaim, PutDocument},
        crossing::Footing,
        schema::{BaseDocument, BaseFile, Extra, ManifestDocument, Position, SegmentSummary, TagDocument},
    },
    clock::Micros,
    ids::{BaseId, SequenceNumber, TimelineId},
    segment::{envelope::Level, writer::SegmentStart},
    tag,
};
use tokio::sync::Notify;

use crate::{
    base::{
        collect::{self, Collected, OpensOnly},
        describe::{self, Author},
        upload::{self, KnownFiles},
    },
    config::{ArchiverConfig, Parts},
    control::{Status, TagRequest, Unflushed},
    engine::{BaseReason, BaseStart, Engine, EngineState, Polled, max_file_sequence, resume},
    layout::Layout,
    pin::Pins,
    registry::Registry,
    roll_up::RollUp,
    ship::{self, Delivered, Shipment},
    state::StateDir,
    stream::{Stream, boot_id},
    watch::Watch,
};

/// How many segments of a process with an older claim are taken over in a row before that process counts as alive.
const JOINS_IN_A_ROW: u32 = 3;
/// Version of tags and manifests.
const DOCUMENT_VERSION: u32 = 1;

/// Between two listings of the directories while file events tell of new files.
pub(crate) const SCAN_INTERVAL: Duration = Duration::from_millis(500);

/// What the archive has acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub position: Position,
    pub at: Option<Micros>,
}

/// A floor that was fixed for a collected base.
#[derive(Clone, Debug)]
pub(crate) struct Floor {
    pub position: Position,
    pub start: BaseStart,
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
    /// Sent, and not known to be written.
    pending_manifest: Option<ManifestDocument>,
    /// Files of published bases.
    pub(crate) known_files: KnownFiles,
    pub(crate) last_base: Option<BaseId>,
    pub(crate) last_base_attempt: Option<Micros>,
    last_scan: Micros,
    timeline: TimelineId,
    _watch: Watch,
}

impl Archiver {
    /// Locks the state directory, claims the archive, and joins its end or begins a run.
    ///
    /// # Errors
    /// `writer.state-locked`, `rocksdb.not-a-database`, `pin.impossible`, and what the store answers.
    pub async fn open(config: ArchiverConfig, archive: Archive, parts: Parts) -> Result<Self> {
        let archive = Arc::new(archive);
        let layout = Layout::read(&config.db, &config.db_paths)?;
        let state_dir = StateDir::lock(&config.state)?;
        let pins = Pins::open(state_dir.root().join("pins"), &[&layout.db, &layout.wal_dir])?;
        let registry = Arc::new(Registry::new(pins, layout.db.clone(), layout.wal_dir.clone())?);
        let changed = Arc::new(Notify::new());
        // Pinning begins before anything else: what is deleted from here on stays readable.
        let watch = Watch::start(registry.clone(), changed.clone())?;
        let claim = archive.claim_epoch(&config.writer, &*parts.clock, &*parts.random).await?;
        let timeline = archive.ensure_timeline(&layout.identity()?, &claim, &*parts.clock, &*parts.random).await?;
        let joined = join(&archive, &claim, timeline, &config, &parts, layout, registry).await?;
        let mut archiver = Self {
            acknowledged: Acknowledged { position: joined.position, at: None },
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
            pending_manifest: None,
            known_files: KnownFiles::default(),
            last_base: None,
            last_base_attempt: None,
            last_scan: Micros(0),
            timeline,
            _watch: watch,
        };
        archiver.learn_bases().await?;
        Ok(archiver)
    }

    /// Learns which files the archive has, and whether the run has a base.
    async fn learn_bases(&mut self) -> Result<()> {
        let run = self.engine.run();
        let mut has_base = false;
        // One at a time: each holds a MANIFEST, and the archiver's memory is bounded.
        for id in self.archive.list_bases().await? {
            let Some(base) = self.archive.get_base(&id).await? else { continue };
            has_base |= base.run == run && base.floor.timeline == self.timeline;
            self.known_files.learn(&base.files, base.run, run);
            self.last_base = self.last_base.take().max(Some(id));
        }
        if !has_base && self.engine.wanted_base().is_none() {
            self.engine.want_base(BaseReason::RunStarted);
        }
        Ok(())
    }

    /// Reads everything that is readable at the call, unless a segment's worth comes first.
    pub fn poll(&mut self) -> Result<Polled> {
        // File events arrive a moment after the files: a WAL that is there already must not be missed by a tag.
        self.engine.registry().scan()?;
        self.last_scan = self.parts.clock.now();
        self.look()
    }

    /// As [`Archiver::poll`], trusting file events to name new files; lists the directories twice a second all the same.
    pub(crate) fn look(&mut self) -> Result<Polled> {
        let now = self.parts.clock.now();
        if u128::from(now.0.saturating_sub(self.last_scan.0).unsigned_abs()) >= SCAN_INTERVAL.as_micros() {
            self.engine.registry().scan()?;
            self.last_scan = now;
        }
        let mut total = Polled::default();
        // A segment without room would never be filled, and whoever waits for the end would wait for ever.
        let full = self.config.segment_bytes.max(1);
        while self.engine.stream.plain_bytes() < full {
            let room = full - self.engine.stream.plain_bytes();
            let polled = self.engine.poll(room)?;
            total.records += polled.records;
            total.bytes += polled.bytes;
            total.caught_up = polled.caught_up;
            if polled.caught_up || polled.records == 0 {
                break;
            }
        }
        Ok(total)
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
        self.cut(heartbeat)?;
        let Some(shipment) = self.pending.clone() else { return Ok(None) };
        let delivered = ship::deliver(&self.archive, self.claim.epoch(), &shipment).await?;
        self.delivered(delivered).await?;
        Ok((delivered == Delivered::Acknowledged).then(|| shipment.segment.summary.clone()))
    }

    /// Notes what became of the pending shipment.
    pub(crate) async fn delivered(&mut self, delivered: Delivered) -> Result<()> {
        let Some(shipment) = self.pending.take() else { return Ok(()) };
        match delivered {
            Delivered::Acknowledged => {
                debug_assert!(shipment.position.boundary >= self.acknowledged.position.boundary);
                let now = self.parts.clock.now();
                self.acknowledged = Acknowledged { position: shipment.position, at: Some(now) };
                self.roll_up.segment(shipment.segment.summary.clone(), now);
                self.joined_behind = 0;
                self.engine.release(&shipment.state, shipment.manifest)
            }
            Delivered::JoinBehind => {
                // A dead process can have a few requests under way; one that goes on and on is alive, and was first.
                self.joined_behind += 1;
                if self.joined_behind > JOINS_IN_A_ROW {
                    return Err(Error::new(Code::Fenced, "shipping the segment")
                        .on(&shipment.segment.key)
                        .with("segments of an older claim met in a row", self.joined_behind));
                }
                tracing::warn!(key = %shipment.segment.key, "joining behind a segment of an earlier process");
                let layout = Layout::read(&self.config.db, &self.config.db_paths)?;
                let registry = self.engine.registry().clone();
                let joined =
                    join(&self.archive, &self.claim, self.timeline, &self.config, &self.parts, layout, registry)
                        .await?;
                self.engine = joined.engine;
                self.roll_up = joined.roll_up;
                self.pending_manifest = None;
                self.acknowledged.position = joined.position;
                self.learn_bases().await
            }
        }
    }

    /// Ships until everything read is acknowledged.
    pub(crate) async fn ship_all(&mut self) -> Result<()> {
        while self.pending.is_some() || !self.engine.stream.is_empty() {
            self.ship().await?;
        }
        Ok(())
    }

    /// Reads and ships until nothing is left to read.
    pub(crate) async fn drain(&mut self) -> Result<()> {
        loop {
            let polled = self.poll()?;
            self.ship_all().await?;
            if polled.caught_up || self.engine.waiting().is_some() {
                return Ok(());
            }
        }
    }

    /// Archives everything that is readable now: `run --once`. Takes a base if one is wanted and would serve.
    pub async fn catch_up(&mut self) -> Result<Position> {
        self.drain().await?;
        self.take_wanted_base().await?;
        self.drain().await?;
        self.heartbeat().await?;
        self.close_manifest().await?;
        Ok(self.acknowledged.position)
    }

    /// Ships the rest and closes the manifest.
    pub async fn close(mut self) -> Result<()> {
        self.drain().await?;
        if self.roll_up.segments.is_empty() {
            self.heartbeat().await?;
        }
        self.close_manifest().await
    }

    /// Writes a roll-up manifest over everything acknowledged since the last one.
    pub async fn close_manifest(&mut self) -> Result<()> {
        if self.roll_up.segments.is_empty() {
            return Ok(());
        }
        // A document whose reply was lost is sent again as it was: with another nonce it would look like another writer's.
        let document = match self.pending_manifest.take() {
            Some(document) => document,
            None => ManifestDocument {
                version: DOCUMENT_VERSION,
                archive: self.archive.id(),
                timeline: self.timeline,
                number: self.roll_up.number,
                previous: self.roll_up.previous,
                rebuilt: false,
                segments: self.roll_up.segments.clone(),
                bases: self.roll_up.bases.clone(),
                tags: self.roll_up.tags.clone(),
                pruned: Vec::new(),
                created: self.parts.clock.now(),
                epoch: self.claim.epoch(),
                nonce: self.parts.random.nonce()?,
                extra: Extra::new(),
            },
        };
        self.pending_manifest = Some(document.clone());
        crate::crash::point("manifest-before-put");
        let put = self.archive.put_manifest(&document, &self.claim, &*self.parts.random).await?;
        crate::crash::point("manifest-after-put");
        let next = document
            .number
            .next()
            .ok_or_else(|| Error::new(Code::Internal, "numbering the next manifest").on(document.number))?;
        match put {
            PutDocument::Created { hash } => {
                let (segments, bases, tags) = (document.segments.len(), document.bases.len(), document.tags.len());
                self.roll_up.written(hash, next, segments, bases, tags);
                self.pending_manifest = None;
            }
            PutDocument::Conflict(_) => {
                return Err(Error::new(Code::Fenced, "writing the manifest").on(document.number));
            }
        }
        Ok(())
    }

    /// Names the present position. Returns when everything committed before the call is durable in the archive.
    ///
    /// # Errors
    /// `tag.unflushed-wal` where the server may hold committed writes in its memory, `tag.exists`, `tag.malformed-name`.
    pub async fn tag(&mut self, request: &TagRequest) -> Result<TagDocument> {
        let name = tag::Name::parse(&request.name)?;
        let created = self.parts.clock.now();
        let flushed = self.engine.flush_owner()?;
        if !flushed && request.unflushed == Unflushed::Refuse {
            return Err(Error::new(Code::UnflushedWal, "creating the tag").on(&request.name));
        }
        let committed = self.parts.owner.latest_sequence()?.map(SequenceNumber::new);
        self.drain().await?;
        let read = self.acknowledged.position.sequence;
        let flushed = flushed && committed.is_none_or(|committed| committed <= read);
        if !flushed && request.unflushed == Unflushed::Refuse {
            return Err(Error::new(Code::UnflushedWal, "creating the tag")
                .on(&request.name)
                .with("read up to sequence", read)
                .hint(
                    "the database is further than its log shows: writes with disableWAL are in no log and in no tag",
                ));
        }
        if let Some(why) = self.engine.waiting() {
            return Err(Error::new(Code::WalCorrupt, "creating the tag").on(&request.name).with("waiting", why));
        }
        let document = TagDocument {
            version: DOCUMENT_VERSION,
            archive: self.archive.id(),
            name: request.name.clone(),
            position: self.acknowledged.position,
            created,
            note: request.note.clone(),
            observed_only: !flushed,
            nonce: self.parts.random.nonce()?,
            extra: Extra::new(),
        };
        crate::crash::point("tag-before-put");
        match self.archive.put_tag(&document, &self.claim, &*self.parts.random).await? {
            PutDocument::Created { .. } => {
                self.roll_up.tags.push((self.archive.tag_hash(&name), document.position));
                Ok(document)
            }
            PutDocument::Conflict(other) => {
                let boundary = other.position.boundary;
                Err(Error::new(Code::TagExists, "creating the tag").on(&request.name).with("names boundary", boundary))
            }
        }
    }

    /// Takes a base now and publishes it.
    ///
    /// # Errors
    /// `base.not-publishable` when no target could be reached from it (a barrier lies between the first record that
    /// RocksDB would replay and the present).
    pub async fn take_base(&mut self) -> Result<BaseDocument> {
        self.drain().await?;
        self.base_for(BaseReason::Asked).await
    }

    /// Takes the base that a run, a session or a barrier asks for, if it would serve. `None` when none is wanted, or
    /// none would serve yet.
    pub async fn take_wanted_base(&mut self) -> Result<Option<BaseDocument>> {
        let Some(reason) = self.wanted_and_useful() else { return Ok(None) };
        match self.base_for(reason.clone()).await {
            Ok(base) => Ok(Some(base)),
            Err(e) if e.code() == Code::BaseNotPublishable => {
                tracing::info!(error = %e, "the base would serve no target yet");
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// The base to take now: one is wanted, and targets could be reached from it.
    pub(crate) fn wanted_and_useful(&self) -> Option<BaseReason> {
        let reason = self.engine.wanted_base()?.clone();
        let session = matches!(reason, BaseReason::SessionStarted { .. });
        (self.engine.waiting().is_none() && (session || self.engine.base_would_serve())).then_some(reason)
    }

    async fn base_for(&mut self, reason: BaseReason) -> Result<BaseDocument> {
        let created = self.parts.clock.now();
        self.last_base_attempt = Some(created);
        let collected = self.collector(&reason).collect()?;
        // The floor is what is readable after the MANIFEST prefix was read.
        loop {
            let polled = self.poll()?;
            self.ship_all().await?;
            if let Some(floor) = self.fix_floor(&collected, &reason, polled)? {
                let files = self.upload(&collected, &floor).await?;
                return self.publish(created, collected, files, floor).await;
            }
            if polled.records == 0 {
                return Err(Error::new(Code::BaseNotPublishable, "fixing the base's floor")
                    .on(self.config.db.display())
                    .hint(
                        "the server holds committed writes in its memory (manual_wal_flush): make it flush its log",
                    ));
            }
        }
    }

    async fn upload(&self, collected: &Collected, floor: &Floor) -> Result<Vec<BaseFile>> {
        let random = &*self.parts.random;
        let (files, known, run) = (&collected.files, &self.known_files, floor.start.run);
        upload::upload(&self.archive, &self.claim, random, files, known, run).await
    }

    /// The effect of linking a base's files, apart from the archiver so that a thread can perform it.
    pub(crate) fn collector(&mut self, reason: &BaseReason) -> Collector {
        self.engine.hold();
        let opens_only = match reason {
            BaseReason::SessionStarted { manifest, first_wal, .. } => {
                Some(OpensOnly { manifest: *manifest, first_wal: *first_wal })
            }
            _ => None,
        };
        Collector {
            registry: self.engine.registry().clone(),
            layout: self.engine.layout().clone(),
            staging: self.state_dir.staging(),
            include: self.config.include.clone(),
            opens_only,
            owner: self.parts.owner.clone(),
        }
    }

    /// Fixes the floor of a collected base, given a look that began after it was collected. `None`: not yet.
    ///
    /// # Errors
    /// `base.not-publishable` when the base would serve no target.
    pub(crate) fn fix_floor(
        &mut self,
        collected: &Collected,
        reason: &BaseReason,
        polled: Polled,
    ) -> Result<Option<Floor>> {
        let first_wal = describe::first_wal(collected, self.engine.layout());
        let Some(start) = self.engine.base_start(first_wal) else {
            self.engine.end_hold();
            self.engine.base_was_useless();
            return Err(Error::new(Code::BaseNotPublishable, "taking a base of")
                .on(self.config.db.display())
                .with("first log needed", first_wal));
        };
        let floor = match reason {
            // Nothing in the set was written by the session, so it is the state at the end of the session before.
            BaseReason::SessionStarted { run, floor, hash, sequence, .. }
                if collected.opens_only && *run == self.engine.run() =>
            {
                let here = self.engine.position();
                let position =
                    Position { boundary: *floor, hash: *hash, sequence: *sequence, wal: None, offset: None, ..here };
                // What is replayed on it begins at the floor unless the open kept older WALs.
                let start = if start.first_record > *floor {
                    BaseStart { first_record: *floor, first_hash: *hash, ..start }
                } else {
                    start
                };
                Floor { position, start }
            }
            _ => {
                if !polled.caught_up {
                    return Ok(None);
                }
                if collected.unlogged_edits
                    && self.engine.unread_is_possible()
                    && !self.engine.flush_owner()?
                    && !self.engine.is_past(collected.highest_wal)
                {
                    return Ok(None);
                }
                Floor { position: self.engine.position(), start }
            }
        };
        if !self.engine.serves(floor.start.run, &candidate(&floor, collected)) {
            self.engine.end_hold();
            self.engine.base_was_useless();
            return Err(Error::new(Code::BaseNotPublishable, "taking a base of")
                .on(self.config.db.display())
                .with("first record", floor.start.first_record)
                .with("floor", floor.position.boundary)
                .hint("a barrier lies in the log that this base still needs; it serves once the server has flushed"));
        }
        Ok(Some(floor))
    }

    /// Publishes a base whose files are uploaded, once the archive has acknowledged its floor.
    pub(crate) async fn publish(
        &mut self,
        created: Micros,
        collected: Collected,
        files: Vec<BaseFile>,
        floor: Floor,
    ) -> Result<BaseDocument> {
        while self.acknowledged.position.boundary < floor.position.boundary || self.pending.is_some() {
            self.ship_all().await?;
        }
        let candidate = candidate(&floor, &collected);
        if !self.engine.serves(floor.start.run, &candidate) {
            self.engine.end_hold();
            return Err(Error::new(Code::BaseNotPublishable, "publishing a base of").on(self.config.db.display()));
        }
        let random: [u8; 4] = self.parts.random.bytes()?;
        let author = Author {
            archive: self.archive.id(),
            id: BaseId::new(created.to_datetime(), u32::from_le_bytes(random)),
            epoch: self.claim.epoch(),
            nonce: self.parts.random.nonce()?,
            created,
        };
        let document = describe::describe(author, self.engine.layout(), &collected, files, floor.start, floor.position);
        crate::crash::point("base-before-publish");
        match self.archive.put_base(&document, &self.claim, &*self.parts.random).await? {
            PutDocument::Created { .. } => {}
            PutDocument::Conflict(_) => {
                return Err(Error::new(Code::Internal, "publishing the base").on(&document.id));
            }
        }
        crate::crash::point("base-after-publish");
        self.engine.end_hold();
        self.engine.base_taken(candidate);
        self.roll_up.bases.push(document.id.clone());
        self.last_base = Some(document.id.clone());
        self.known_files.learn(&document.files, document.run, self.engine.run());
        tracing::info!(base = %document.id, floor = %document.floor.boundary, files = document.files.len(), "base published");
        Ok(document)
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

    /// The archive.
    pub fn archive(&self) -> &Arc<Archive> {
        &self.archive
    }

    /// How things are.
    pub fn status(&self) -> Result<Status> {
        let read = self.engine.position();
        let acknowledged = self.acknowledged.position;
        Ok(Status {
            database: self.config.db.display().to_string(),
            archive: self.archive.store().describe(),
            epoch: self.claim.epoch(),
            read,
            acknowledged,
            unacknowledged_records: read.boundary.get().saturating_sub(acknowledged.boundary.get()),
            oldest_unacknowledged: match &self.pending {
                Some(shipment) => shipment.oldest,
                None => self.engine.stream.oldest(),
            },
            caught_up: self.engine.caught_up_at(),
            last_acknowledged: self.acknowledged.at,
            last_base: self.last_base.clone(),
            base: self.engine.wanted_base().map(|reason| format!("wanted: {reason:?}")),
            pinned_bytes: self.engine.registry().pins().held_bytes()?,
            barriers: self.engine.barriers_noted(),
            waiting: self.engine.waiting().map(ToOwned::to_owned),
            now: self.parts.clock.now(),
        })
    }
}

/// What decides whether a collected base serves.
fn candidate(floor: &Floor, collected: &Collected) -> Footing {
    Footing {
        first: floor.start.first_record,
        floor: floor.position.boundary,
        manifest: collected.point,
        max_file_sequence: max_file_sequence(&collected.model),
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

/// Links a base's files when told to.
#[derive(Debug)]
pub(crate) struct Collector {
    registry: Arc<Registry>,
    layout: Layout,
    staging: PathBuf,
    include: Vec<String>,
    opens_only: Option<OpensOnly>,
    owner: Arc<dyn crate::Owner>,
}

impl Collector {
    /// Performs it. An owner that can keeps file deletions away meanwhile.
    pub(crate) fn collect(self) -> Result<Collected> {
        let held = self.owner.hold_file_deletions()?;
        let collected = collect::collect(&self.registry, &self.layout, &self.staging, &self.include, self.opens_only);
        if held == crate::owner::Done::Yes {
            self.owner.release_file_deletions()?;
        }
        collected
    }
}

/// An engine at the archive's end.
struct Joined {
    engine: Engine,
    roll_up: RollUp,
    position: Position,
}

async fn join(
    archive: &Arc<Archive>,
    claim: &EpochClaim,
    timeline: TimelineId,
    config: &ArchiverConfig,
    parts: &Parts,
    layout: Layout,
    registry: Arc<Registry>,
) -> Result<Joined> {
    let tail = archive.tail(timeline).await?;
    let roll_up = RollUp::new(tail.next_manifest, tail.previous_manifest, tail.segments);
    let level = Level::new(config.compression_level);
    let (start, head, last_record) = match tail.head {
        None => {
            let start = SegmentStart {
                archive: archive.id(),
                timeline,
                ordinal: pitr_archive::ids::Ordinal::new(0),
                epoch: claim.epoch(),
                first: pitr_archive::ids::Boundary::START,
                hash_before: pitr_archive::ids::RunningHash::ZERO,
                last_sequence: pitr_archive::ids::SequenceNumber::new(0),
                wal: None,
            };
            (start, None, None)
        }
        Some(footer) => {
            let state: EngineState = serde_json::from_value(footer.sequence_model.clone()).map_err(|e| {
                Error::new(Code::ObjectUnsupported, "reading the archiver's state in the last segment").because(e)
            })?;
            let manifest = footer.manifest.clone().ok_or_else(|| {
                Error::new(Code::SegmentDamaged, "reading the archiver's state in the last segment")
                    .on(footer.summary.ordinal)
            })?;
            let start = SegmentStart {
                archive: archive.id(),
                timeline,
                ordinal: footer
                    .summary
                    .ordinal
                    .next()
                    .ok_or_else(|| Error::new(Code::Internal, "numbering the next segment"))?,
                epoch: claim.epoch(),
                first: footer.summary.end,
                hash_before: footer.summary.hash_after,
                last_sequence: footer.summary.last_sequence,
                wal: None,
            };
            let same_boot = footer.boot_id.is_some() && footer.boot_id == boot_id();
            let last_record = state.last_record;
            (start, Some(resume::Head { state, manifest, same_boot }), last_record)
        }
    };
    // Barriers that joining finds are read, not acknowledged: the acknowledged end is the last segment's.
    let (wal, offset) = last_record.unzip();
    let position = Position {
        timeline,
        boundary: start.first,
        hash: start.hash_before,
        wal,
        offset,
        sequence: start.last_sequence,
    };
    let stream =
        Stream::new(start, last_record, archive.keyring().clone(), parts.random.clone(), parts.clock.clone(), level);
    let engine = Engine::open(resume::Opening {
        layout,
        registry,
        clock: parts.clock.clone(),
        owner: parts.owner.clone(),
        timeline,
        stream,
        head,
    })?;
    Ok(Joined { engine, roll_up, position })
}
