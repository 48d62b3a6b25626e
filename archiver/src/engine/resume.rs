//! Opening the engine: at the end of an archive that an earlier process wrote, or on an archive without records.
//!
//! Owns: the joining after a pause, in this order: (a) lineage: the same database, no restore in between, the MANIFEST
//! followed from the archived place to CURRENT without a gap; (b) fork: every archived record that RocksDB would still
//! replay is there byte for byte; (c) no WAL in between, which `advance` proves when the next one begins.
//! What cannot be joined ends the run with the reason.

use std::sync::Arc;

use pitr_archive::{
    Result, catalog::schema::ManifestProgress, clock::Clock, ids::TimelineId, rocks::transactions::Transactions,
    segment::entry::BarrierReason,
};

use super::{Engine, EngineState, Place, Waiting, run::starting_point, types::STATE_VERSION};
use crate::{
    layout::Layout, manifest_tail::ManifestTail, owner::Owner, recent::Recent, registry::Registry, restore_marker,
    stream::Stream, wal_tail::WalTail,
};

/// What an engine is opened with.
#[derive(Debug)]
pub struct Opening {
    /// Directories and settings of the database.
    pub layout: Layout,
    /// Known files; scanned.
    pub registry: Arc<Registry>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The owner of the open database, if it is this program.
    pub owner: Arc<dyn Owner>,
    /// The timeline.
    pub timeline: TimelineId,
    /// The stream, at the archive's end.
    pub stream: Stream,
    /// What the archive's last segment says; `None` when it has none.
    pub head: Option<Head>,
}

/// The archive's end as its last segment tells it.
#[derive(Debug)]
pub struct Head {
    /// The engine's state there.
    pub state: EngineState,
    /// How far the MANIFEST was consumed.
    pub manifest: ManifestProgress,
    /// Whether the machine has been running since those records were read.
    pub same_boot: bool,
}

impl Engine {
    /// Joins the archive's end, or begins a run.
    pub fn open(opening: Opening) -> Result<Self> {
        let Opening { layout, registry, clock, owner, timeline, stream, head } = opening;
        let (manifest, _) = starting_point(&registry, &layout)?;
        // WALs that were gone when the directory was listed had numbers below this.
        let deleted_below = manifest.model().min_log_number_to_keep();
        let joined = head.is_some();
        let (state, progress, same_boot) = match head {
            Some(head) => (head.state, Some(head.manifest), head.same_boot),
            None => (EngineState::empty(), None, true),
        };
        let waiting =
            state.waiting_beyond.map(|beyond| Waiting { beyond, detail: format!("WAL {beyond} is unreadable") });
        let mut engine = Self {
            layout,
            registry,
            clock,
            owner,
            timeline,
            stream,
            manifest,
            place: Place::After(state.place),
            lo: state.lo,
            deferred: std::collections::VecDeque::new(),
            held: None,
            open: state.open.clone(),
            state,
            waiting,
            last_base: None,
            barriers_noted: 0,
            caught_up_at: None,
            looked_at: (0, 0),
            hold_from: None,
            same_boot,
            sights: Vec::new(),
            seen_news: false,
            policy: super::Policy::default(),
        };
        match progress {
            Some(progress) if engine.waiting.is_none() => engine.join(&progress)?,
            _ if engine.waiting.is_some() => {}
            _ => engine.start_run()?,
        }
        debug_assert!(joined || engine.state.run_begun);
        let place = engine.present_wal();
        if place.next().is_some_and(|after| deleted_below <= after) {
            engine.registry.all_known_above(place);
        }
        Ok(engine)
    }

    fn join(&mut self, progress: &ManifestProgress) -> Result<()> {
        if let Some((reason, detail)) = self.cannot_join(progress)? {
            return self.end_run(reason, detail);
        }
        Ok(())
    }

    fn cannot_join(&mut self, progress: &ManifestProgress) -> Result<Option<(BarrierReason, String)>> {
        let db_id = self.layout.identity()?;
        if db_id != self.state.db_id {
            let detail = format!("the directory holds another database: {db_id}, not {}", self.state.db_id);
            return Ok(Some((BarrierReason::Fork, detail)));
        }
        let marker = restore_marker::read(&self.layout.db)?;
        if marker != self.state.restore_marker {
            let detail = "the database was restored since its records were archived".to_owned();
            return Ok(Some((BarrierReason::Fork, detail)));
        }
        let Some(manifest) = ManifestTail::resume(&self.registry, self.two_phase(), progress.point, progress.digest)?
        else {
            let detail = format!(
                "MANIFEST {} is gone or no longer holds what was archived up to offset {}",
                progress.point.file, progress.point.offset
            );
            return Ok(Some((BarrierReason::ManifestMissed, detail)));
        };
        self.manifest = manifest;
        if self.waits_for_session() {
            self.held = Some((progress.point, progress.digest));
        }
        // Not only after an open of the server: the machine may have lost what was read while nobody watched.
        if let Some(found) = self.compare_with_files(self.state.first_wal_needed)? {
            return Ok(Some(found));
        }
        let wal = self.state.place;
        let Some(fact) = self.state.wals.get(&wal).cloned() else { return Ok(None) };
        if fact.ended {
            return Ok(None);
        }
        let Some(mut tail) = WalTail::open(&self.registry, wal)? else {
            let detail = format!("WAL {wal} vanished while it was read only up to offset {}", fact.end);
            return Ok(Some((BarrierReason::RecordsMissing, detail)));
        };
        match tail.skip_to(self.stream.keyring().hash_key(), fact.end)? {
            Some(prefix) if prefix.value() == fact.prefix => {
                self.stream.continue_wal(wal, prefix);
                self.place = Place::In(Box::new(tail));
                Ok(None)
            }
            Some(_) => Ok(Some((
                BarrierReason::Fork,
                format!("WAL {wal} holds other records than the archive up to {}", fact.end),
            ))),
            None if fact.recycled && self.same_boot => {
                // Overwritten. The next WAL's first record can still prove that nothing followed.
                self.place = Place::After(wal);
                Ok(None)
            }
            None => {
                Ok(Some((BarrierReason::Fork, format!("WAL {wal} is shorter than what is archived ({})", fact.end))))
            }
        }
    }
}

impl EngineState {
    /// Before the first run.
    fn empty() -> Self {
        Self {
            version: STATE_VERSION,
            run: 0,
            run_begun: false,
            session: 0,
            session_id: None,
            options: None,
            db_id: String::new(),
            restore_marker: None,
            model: super::fresh_model(pitr_archive::ids::SequenceNumber::default(), false),
            transactions: Transactions::default(),
            wals: std::collections::BTreeMap::new(),
            wals_from: pitr_archive::ids::FileNumber::default(),
            barriers: super::fresh_barriers(),
            place: pitr_archive::ids::FileNumber::default(),
            first_wal_needed: pitr_archive::ids::FileNumber::default(),
            lo: pitr_archive::ids::Boundary::START,
            open: Vec::new(),
            observed: None,
            session_start: pitr_archive::ids::Boundary::START,
            two_phase_wal: None,
            recent: Recent::default(),
            last_record: None,
            wanted: std::collections::VecDeque::new(),
            pending_session: None,
            waiting_beyond: None,
            captures: Vec::new(),
        }
    }
}
