//! Bases: which one is wanted, and its way from links to a published document.
//!
//! Owns: the floor, and the order: files linked, floor fixed by a look that began afterwards, files uploaded, floor
//! acknowledged, base published, naming nothing that retention has condemned. The daemon drives the same steps beside the log; [`Archiver::take_base`] drives them in
//! one go.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::PutDocument,
        crossing::Footing,
        schema::{BaseDocument, BaseFile, Position},
    },
    clock::Micros,
    code::Exit,
    ids::BaseId,
    object_key::ObjectKey,
};

use super::{Archiver, PAUSE};
use crate::{
    base::{
        collect::{self, Collected, OpensOnly},
        describe::{self, Author},
        upload,
    },
    config::ArchiverConfig,
    elapsed::{Moment, elapsed},
    engine::{BaseReason, BaseStart, Polled, max_file_sequence},
    layout::Layout,
    registry::Registry,
};

/// A floor that was fixed for a collected base.
#[derive(Clone, Debug)]
pub(crate) struct Floor {
    pub position: Position,
    pub start: BaseStart,
    /// [`Archiver::joins`] at that time: behind another process's segment the place has another running hash.
    pub joins: u64,
}

/// A base's files are linked, and its floor cannot be fixed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WithoutFloor {
    since: Micros,
    told: bool,
}

/// A base without a floor is told of when it has waited for so long: usually the next look fixes it.
const LONG: Duration = Duration::from_secs(10);

const NEXT_LOG: &str = "the server holds writes in its memory (manual_wal_flush), and files have changed outside the log: the base \
     is taken as soon as the server begins its next log (MyRocks: SET GLOBAL rocksdb_force_flush_memtable_now = ON)";

impl Archiver {
    /// Learns which files the archive has, and whether the run has a base.
    pub(super) async fn learn_bases(&mut self) -> Result<()> {
        let run = self.engine.run();
        let mut has_base = false;
        // One at a time: each holds a MANIFEST, and the archiver's memory is bounded.
        for id in self.archive.list_bases().await? {
            let base = match self.archive.get_base(&id).await {
                Ok(Some(base)) => base,
                Ok(None) => continue,
                // What it would have told is which files need no upload. Archiving goes on; `pitr verify` lists it.
                Err(e) if e.code().exit() == Exit::Integrity => {
                    tracing::warn!(error = %e, base = %id, "a base in the archive is damaged");
                    continue;
                }
                Err(e) => return Err(e),
            };
            has_base |= base.run == run && base.floor.timeline == self.timeline;
            self.known_files.learn(&base.files, (base.floor.timeline, base.run), (self.timeline, run));
            self.known_files.lives(&id, &base.files);
            self.last_base = self.last_base.take().max(Some(id));
        }
        if !has_base && self.engine.wanted_base().is_none() {
            self.engine.want_base(BaseReason::RunStarted);
        }
        Ok(())
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

    /// Takes the base that a run, a session or a barrier asks for, if it would serve. `None` when none is wanted, none
    /// would serve yet, or the last one for a barrier was taken too short a time ago ([`crate::base::pace`]).
    pub async fn take_wanted_base(&mut self) -> Result<Option<BaseDocument>> {
        match self.wanted_useful_and_due(self.parts.clock.now()) {
            Some(reason) => self.take_base_for(reason).await,
            None => Ok(None),
        }
    }

    pub(super) async fn take_base_for(&mut self, reason: BaseReason) -> Result<Option<BaseDocument>> {
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

    /// As [`Archiver::wanted_and_useful`], and its time has come.
    pub(crate) fn wanted_useful_and_due(&self, now: Micros) -> Option<BaseReason> {
        self.wanted_and_useful().filter(|_| self.base_due(now).is_none())
    }

    /// When the wanted base may be taken, if it is only for a barrier and must wait.
    pub(crate) fn base_due(&self, now: Micros) -> Option<Micros> {
        self.engine.only_barriers_want_a_base().then(|| self.pace.due(now)).flatten()
    }

    async fn base_for(&mut self, reason: BaseReason) -> Result<BaseDocument> {
        let created = self.parts.clock.now();
        let branches = self.branches;
        self.last_base_attempt = Some(created);
        let collected = self.collector(&reason).collect()?;
        // The floor is what is readable after the MANIFEST prefix was read.
        loop {
            let joins = self.joins;
            let polled = self.poll()?;
            self.ship_all().await?;
            if branches != self.branches {
                return Err(of_another_history(&self.config));
            }
            if joins != self.joins {
                // What that look read is not what the archive holds.
                continue;
            }
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

    /// What a base that was begun waits for, if it has for long.
    pub(crate) fn base_waits(&self, now: Micros) -> Option<&'static str> {
        let long = self.base_without_floor.is_some_and(|without| elapsed(without.since, now) >= LONG);
        long.then_some(NEXT_LOG)
    }

    /// A base waits for its floor; in the log it is told once.
    pub(crate) fn base_has_no_floor_yet(&mut self) {
        let now = self.parts.clock.now();
        let without = *self.base_without_floor.get_or_insert(WithoutFloor { since: now, told: false });
        if let Some(waits) = self.base_waits(now).filter(|_| !without.told) {
            tracing::warn!("{waits}");
            self.base_without_floor = Some(WithoutFloor { told: true, ..without });
        }
    }

    async fn condemned_before_long(&self) -> Result<HashSet<ObjectKey>> {
        self.known_files.condemned_before_long(&self.archive, self.parts.clock.now()).await
    }

    async fn upload(&self, collected: &Collected, floor: &Floor) -> Result<Vec<BaseFile>> {
        let random = &*self.parts.random;
        let (files, known, run) = (&collected.files, &self.known_files, (self.timeline, floor.start.run));
        upload::upload(&self.archive, &self.claim, random, files, known, run, &self.reading()).await
    }

    /// The effect of linking a base's files, apart from the archiver so that a thread can perform it.
    pub(crate) fn collector(&mut self, reason: &BaseReason) -> Collector {
        self.engine.hold();
        if let BaseReason::Barrier(_) = reason {
            self.pace.taken(self.parts.clock.now());
        }
        let opens_only = match reason {
            BaseReason::SessionStarted { manifest, first_wal, .. } => {
                let compactions = self.engine.compactions();
                Some(OpensOnly { manifest: *manifest, first_wal: *first_wal, compactions })
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
                Floor { position, start, joins: self.joins }
            }
            _ => {
                if !polled.caught_up {
                    return Ok(None);
                }
                // In a MANIFEST that was begun anew meanwhile, such changes look like old ones.
                if (collected.unlogged_edits || self.engine.has_open_intervals())
                    && self.engine.unread_is_possible()
                    && !self.engine.flush_owner()?
                    && !self.engine.is_past(collected.highest_wal)
                {
                    return Ok(None);
                }
                Floor { position: self.engine.position(), start, joins: self.joins }
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

    /// Whether the archive has acknowledged everything up to the floor, with what happened there behind the last record: its
    /// hash covers that, and a process that came after a crash could say it differently.
    pub(crate) fn holds(&self, floor: &Floor) -> bool {
        let (there, floor) = (self.acknowledged.position.boundary, floor.position.boundary);
        there > floor || there == floor && self.engine.stream.is_empty()
    }

    /// Publishes a base whose files are uploaded, once the archive has acknowledged its floor.
    pub(crate) async fn publish(
        &mut self,
        created: Micros,
        collected: Collected,
        mut files: Vec<BaseFile>,
        floor: Floor,
    ) -> Result<BaseDocument> {
        while floor.joins == self.joins && (!self.holds(&floor) || self.pending.is_some()) {
            self.ship_all().await?;
        }
        let candidate = candidate(&floor, &collected);
        if floor.joins != self.joins || !self.engine.still_serves(floor.start.run, &candidate) {
            self.engine.end_hold();
            return Err(Error::new(Code::BaseNotPublishable, "publishing a base of").on(self.config.db.display()));
        }
        // What is condemned later than this look is deleted a grace period after it at the earliest. By then the base is
        // published, and found.
        let mut looked = Moment::now(&*self.parts.clock);
        while upload::any_condemned(&files, &self.condemned_before_long().await?) {
            files = self.upload(&collected, &floor).await?;
            looked = Moment::now(&*self.parts.clock);
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
        if looked.ago(&*self.parts.clock) >= PAUSE
            && upload::any_condemned(&document.files, &self.condemned_before_long().await?)
        {
            // The process was stalled in between.
            self.archive.withdraw_base(&document.id).await?;
            self.engine.end_hold();
            return Err(Error::new(Code::BaseUnobtainable, "publishing the base")
                .on(&document.id)
                .hint("files of it were condemned while this process did not run; another one is taken"));
        }
        self.engine.end_hold();
        self.engine.base_taken(candidate);
        self.roll_up.bases.push(document.id.clone());
        self.last_base = Some(document.id.clone());
        self.parts.metrics.base();
        let run = (self.timeline, document.run);
        self.known_files.published(&document.files, run, (self.timeline, self.engine.run()));
        self.known_files.lives(&document.id, &document.files);
        tracing::info!(base = %document.id, floor = %document.floor.boundary, files = document.files.len(), "base published");
        Ok(document)
    }
}

/// What was collected before the history forked is no base of what followed.
pub(crate) fn of_another_history(config: &ArchiverConfig) -> Error {
    Error::new(Code::BaseNotPublishable, "taking a base of")
        .on(config.db.display())
        .hint("the history forked meanwhile: the next one is taken on its new timeline")
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
