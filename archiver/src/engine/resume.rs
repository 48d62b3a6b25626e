//! Opening the engine: at the end of an archive that an earlier process wrote, or on an archive without records.
//!
//! Owns: the joining after a pause, in this order: (a) fork: every archived record that RocksDB would still replay is
//! there byte for byte; (b) lineage: the MANIFEST followed from the archived place to CURRENT without a gap; (c) no WAL
//! in between, which `advance` proves when the next one begins. What differs is a fork; what cannot be joined ends the
//! run with the reason. That the directory is this timeline's is decided before ([`crate::lineage`]).

use std::sync::Arc;

use pitr_archive::{
    Result,
    catalog::schema::ManifestProgress,
    clock::Clock,
    ids::TimelineId,
    rocks::transactions::Transactions,
    segment::entry::{BarrierReason, ManifestPoint},
};

use super::{
    Before, Engine, EngineState, Evidence, Place, Waiting,
    advance::Compared,
    run::{self, starting_point},
    types::{STATE_VERSION, Until},
};
use crate::{
    layout::{Layout, current},
    lineage::Lineage,
    manifest_tail::{Follow, ManifestTail, Resumed},
    owner::Owner,
    recent::Recent,
    registry::Registry,
    stream::Stream,
    wal_tail::WalTail,
};

/// What an engine is opened with.
#[derive(Debug)]
pub struct Opening {
    /// Directories and settings of the database.
    pub layout: Layout,
    /// What identifies the database, as it was when the timeline was chosen.
    pub lineage: Lineage,
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
        let Opening { layout, lineage, registry, clock, owner, timeline, stream, head } = opening;
        let (manifest, _) = starting_point(&registry, &layout)?;
        let joined = head.is_some();
        let (state, progress, same_boot) = match head {
            Some(head) => (head.state, Some(head.manifest), head.same_boot),
            None => (EngineState::empty(), None, true),
        };
        let waiting = state.waiting_beyond.map(|beyond| match state.waiting_for_proof {
            true => Waiting { beyond, until: Until::NoneIsMissing, detail: run::gap_behind(beyond), manifest: None },
            false => {
                let detail = format!("WAL {beyond} is unreadable, or its end is uncertain");
                Waiting { beyond, until: Until::NotNeeded, detail, manifest: None }
            }
        });
        let mut engine = Self {
            layout,
            lineage,
            forked: None,
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
            untold: Vec::new(),
            caught_up_at: None,
            looked_at: (0, 0),
            hold_from: None,
            same_boot,
            sights: Vec::new(),
            flushed_just_now: None,
            seen_news: false,
            policy: super::Policy::default(),
        };
        match progress {
            Some(progress) if engine.waiting.is_none() => engine.join(&progress)?,
            _ if engine.waiting.is_some() => {}
            _ => engine.start_run()?,
        }
        debug_assert!(joined || engine.state.run_begun || engine.forked.is_some());
        Ok(engine)
    }

    fn join(&mut self, progress: &ManifestProgress) -> Result<()> {
        match self.cannot_join(progress)? {
            Joint::Holds => Ok(()),
            Joint::Missing(reason, detail) => {
                if self.waits_for_session() && reason != BarrierReason::ManifestMissed {
                    // Told by the MANIFEST, and deferred by the process before.
                    match self.manifest.follow(&self.registry)? {
                        Follow::News(news)
                        | Follow::Missed { before: news, .. }
                        | Follow::PutBack { before: news, .. } => {
                            self.publish_news(news, None, &[])?;
                        }
                    }
                }
                self.end_run(reason, detail)
            }
            Joint::Forked(Evidence::PutBack, detail) => self.fork_at_put_back(detail),
            Joint::Forked(evidence, detail) => {
                self.fork(evidence, detail);
                Ok(())
            }
        }
    }

    fn cannot_join(&mut self, progress: &ManifestProgress) -> Result<Joint> {
        // Not only after an open of the server: the machine may have lost what was read while nobody watched.
        let compared = self.compare_with_files(self.state.first_wal_needed)?;
        let resumed = ManifestTail::resume(&self.registry, self.two_phase(), progress)?;
        if let Compared::Other { wal, detail } = compared {
            let before = if matches!(resumed, Resumed::Joins(_)) { Before::Shared } else { Before::Unknown };
            return Ok(Joint::Forked(Evidence::Bytes { from: wal, before }, detail));
        }
        let named = current(self.registry.db())?;
        if named < progress.point.file {
            let detail =
                format!("CURRENT names MANIFEST {named}; the archive has read {} already", progress.point.file);
            return Ok(Joint::Forked(Evidence::PutBack, detail));
        }
        let ManifestPoint { file, offset } = progress.point;
        self.manifest = match resumed {
            Resumed::Joins(manifest) => *manifest,
            Resumed::Other => {
                let detail = format!("MANIFEST {file} is not the one that the archive has read up to offset {offset}");
                return Ok(Joint::Forked(Evidence::PutBack, detail));
            }
            // What was read of it is taken back: a server that was merely opened anew would have begun another.
            Resumed::Shorter if named == file => {
                let detail =
                    format!("MANIFEST {file} ends before offset {offset}, up to which the archive has read it");
                return Ok(Joint::Forked(Evidence::PutBack, detail));
            }
            Resumed::Gone | Resumed::Shorter => {
                let detail = format!("MANIFEST {file} is gone or ends before offset {offset}, up to which it was read");
                return Ok(Joint::Missing(BarrierReason::ManifestMissed, detail));
            }
        };
        if self.waits_for_session() {
            self.held = Some(self.manifest.consumed());
        }
        if let Compared::Gone(detail) = compared {
            return Ok(Joint::Missing(BarrierReason::RecordsMissing, detail));
        }
        let wal = self.state.place;
        let Some(fact) = self.state.wals.get(&wal).cloned() else { return Ok(Joint::Holds) };
        if fact.ended {
            return Ok(Joint::Holds);
        }
        let Some(mut tail) = WalTail::open(&self.registry, wal)? else {
            let detail = format!("WAL {wal} vanished while it was read only up to offset {}", fact.end);
            return Ok(Joint::Missing(BarrierReason::RecordsMissing, detail));
        };
        match tail.skip_to(self.stream.keyring().hash_key(), fact.end)? {
            Some(prefix) if prefix.value() == fact.prefix => {
                self.stream.continue_wal(wal, prefix);
                self.place = Place::In(Box::new(tail));
                Ok(Joint::Holds)
            }
            Some(_) => Ok(Joint::Forked(
                Evidence::Bytes { from: wal, before: Before::Shared },
                format!("WAL {wal} holds other records than the archive up to {}", fact.end),
            )),
            None if fact.recycled && self.same_boot => {
                // Overwritten. The next WAL's first record can still prove that nothing followed.
                self.place = Place::After(wal);
                Ok(Joint::Holds)
            }
            None => Ok(Joint::Forked(
                Evidence::Bytes { from: wal, before: Before::Shared },
                format!("WAL {wal} is shorter than what is archived ({})", fact.end),
            )),
        }
    }
}

/// How the files join the archive's end.
enum Joint {
    /// Without a gap, as far as it can be told before the next WAL begins.
    Holds,
    /// Something in between cannot be known.
    Missing(BarrierReason, String),
    /// They do not: they are another history's.
    Forked(Evidence, String),
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
            wanted: super::wishes::Wishes::default(),
            pending_session: None,
            waiting_beyond: None,
            waiting_for_proof: false,
            captures: Vec::new(),
            flushed: None,
            said: None,
            tolerated: std::collections::BTreeSet::new(),
        }
    }
}
