//! Beginning a run: a part of the stream in which every WAL follows the one before it without a gap.
//!
//! Owns: where a run begins (offset 0 of the first WAL that RocksDB itself would need now) and the proof that every WAL
//! from there on is held. A run ends where continuity ends; the next one archives again what the server still has.

use std::fs;

use pitr_archive::{
    Code, Error, Result,
    ids::FileNumber,
    rocks::transactions::Transactions,
    segment::entry::{BarrierReason, Event, Interval},
};

use super::{BaseReason, Engine, Place, Waiting, fresh_barriers, fresh_model, two_phase, types::Until};
use crate::{layout::Layout, manifest_tail::ManifestTail, registry::Registry, session};

/// Looks at the MANIFEST this often before giving up finding a moment at which nothing it needs was deleted.
const ATTEMPTS: usize = 1000;

/// Below this are the numbers of all WALs that RocksDB had deleted before it wrote what the MANIFEST says now. `None`
/// where that is not known: before 7.5 only two-phase commit goes by the number that the MANIFEST names. Without it such a
/// number stays what it once was (of a time with two-phase commit, or of a restore), and logs are deleted above it.
pub(super) fn deleted_below(manifest: &ManifestTail, layout: &Layout) -> Option<FileNumber> {
    let named = manifest.model().min_log_number_to_keep();
    let goes_by_it = named > FileNumber::default() && layout.allow_2pc();
    (goes_by_it || layout.notes_deleted_wals()).then_some(named)
}

/// The MANIFEST at a moment at which every WAL that it needs is known and pinned.
pub(super) fn starting_point(registry: &Registry, layout: &Layout) -> Result<(ManifestTail, FileNumber)> {
    let mode = two_phase(layout);
    for _ in 0..ATTEMPTS {
        let mut manifest = ManifestTail::start(registry, mode)?;
        let needed = manifest.model().first_wal_needed(mode);
        registry.scan_settled()?;
        // WALs that were deleted before this listing had numbers below what the MANIFEST needs *after* it. If that is
        // not above what the first look needs, nothing from there on is missing.
        if !matches!(manifest.follow(registry)?, crate::manifest_tail::Follow::News(_)) {
            continue;
        }
        let still = manifest.model().first_wal_needed(mode);
        if still == needed
            || registry.watched_between(FileNumber::new(needed.get().saturating_sub(1)), FileNumber::new(u64::MAX))
        {
            if let Some(below) = deleted_below(&manifest, layout) {
                registry.all_known_above(FileNumber::new(below.get().saturating_sub(1)));
            }
            return Ok((manifest, needed));
        }
    }
    Err(Error::new(Code::BaseUnobtainable, "finding a moment to begin at")
        .on(registry.db().display())
        .with("attempts", ATTEMPTS))
}

/// Proves what the MANIFEST tells at this moment of WALs that cannot have been deleted unseen: it tells less with every
/// flush, and nothing of the time between two processes once the archive has been away for a while.
pub(crate) fn prove_what_is_known(registry: &Registry, layout: &Layout) -> Result<()> {
    starting_point(registry, layout)?;
    // With what was proven, the watch shows more.
    registry.scan_settled()
}

/// What CURRENT names, and how long that is; `None` where it cannot be told.
fn manifest_length(layout: &Layout) -> Option<(String, u64)> {
    let name = fs::read_to_string(layout.db.join("CURRENT")).ok()?;
    let length = fs::metadata(layout.db.join(name.trim_end())).ok()?.len();
    Some((name, length))
}

/// Why nothing is archived: nothing shows which logs there were behind one.
pub(super) fn gap_behind(wal: FileNumber) -> String {
    format!(
        "whether the server has deleted a log behind WAL {wal} is not known before it has flushed what that one holds (all column \
         families), or opens the database anew"
    )
}

impl Engine {
    /// Ends the run with a barrier at the end of the stream and begins the next one, or waits until that is possible.
    pub(super) fn end_run(&mut self, reason: BarrierReason, detail: String) -> Result<()> {
        self.publish_unreached()?;
        let here = self.stream.boundary();
        let blocked = self.present_wal();
        // What the MANIFEST said since the last look at it is unknown, of the records that were read since, too.
        let lo = if reason == BarrierReason::ManifestMissed { self.lo.min(here) } else { here };
        self.barrier_within(reason, Interval { lo, hi: Some(here) }, None, None, detail.clone())?;
        self.open.clear();
        // Beginning again would meet the same record.
        if reason == BarrierReason::Unreadable && self.waits_beyond(blocked, Until::NotNeeded, detail)? {
            return Ok(());
        }
        self.start_run()
    }

    /// Ends the run behind the WAL `present`, because nothing shows that none is missing there. As long as the server needs
    /// that one, the next run would begin with it and come to the same place, and no base could cross it.
    pub(super) fn end_run_at_gap(&mut self, present: FileNumber, detail: String) -> Result<()> {
        self.publish_unreached()?;
        let here = self.stream.boundary();
        self.barrier(BarrierReason::RecordsMissing, here, detail)?;
        self.open.clear();
        let until = match self.none_deleted_behind(present) {
            // Then it is the WAL's end that is uncertain, and stays so.
            true => Until::NotNeeded,
            false => Until::NoneIsMissing,
        };
        if self.waits_beyond(present, until, gap_behind(present))? {
            return Ok(());
        }
        self.start_run()
    }

    /// Waits until the server no longer needs a WAL; false if it needs it no longer now.
    fn waits_beyond(&mut self, wal: FileNumber, until: Until, detail: String) -> Result<bool> {
        let (manifest, needed) = starting_point(&self.registry, &self.layout)?;
        self.manifest = manifest;
        if needed > wal {
            return Ok(false);
        }
        tracing::warn!(%wal, detail, "nothing is archived until the server no longer needs this WAL");
        self.place = Place::After(wal);
        self.state.waiting_beyond = Some(wal);
        self.state.waiting_for_proof = until == Until::NoneIsMissing;
        self.waiting = Some(Waiting { beyond: wal, until, detail, manifest: None });
        Ok(true)
    }

    fn none_deleted_behind(&self, wal: FileNumber) -> bool {
        let below = deleted_below(&self.manifest, &self.layout);
        wal.next().is_some_and(|after| below.is_some_and(|below| below <= after))
    }

    /// Gives up what is held of the server's deleted files: a barrier, and a run that begins with what the server still has.
    /// Of what was not read, no base could ever have reached what lies before the WAL that the next base needs.
    pub(crate) fn give_up(&mut self, detail: String) -> Result<()> {
        self.hold_from = None;
        match (&self.waiting, &self.forked) {
            (None, None) => self.end_run(BarrierReason::RecordsMissing, detail)?,
            // What comes after waiting begins with what the server still has then, behind a barrier that is there already.
            (Some(_), _) => self.registry.give_up_held()?,
            _ => {}
        }
        // Only now is no file among them open.
        self.registry.release_wals_below(self.state.wals_from)?;
        self.registry.release_manifests_below(self.manifest.point().file)
    }

    /// Whether archiving can go on: true unless it waits for the server to leave a WAL behind.
    pub(super) fn leave_waiting(&mut self) -> Result<bool> {
        let Some(waiting) = &self.waiting else { return Ok(true) };
        let (beyond, until) = (waiting.beyond, waiting.until);
        // It is read as a whole below, and this may last for hours.
        let length = manifest_length(&self.layout);
        if length.is_some() && length == waiting.manifest {
            return Ok(false);
        }
        self.registry.scan()?;
        let (manifest, needed) = starting_point(&self.registry, &self.layout)?;
        self.manifest = manifest;
        let proven = until == Until::NoneIsMissing && self.none_deleted_behind(beyond);
        if needed <= beyond && !proven {
            if let Some(waiting) = &mut self.waiting {
                waiting.manifest = length;
            }
            return Ok(false);
        }
        self.waiting = None;
        self.state.waiting_beyond = None;
        self.state.waiting_for_proof = false;
        self.start_run()?;
        Ok(self.forked.is_none())
    }

    /// Begins a run at the first WAL that RocksDB needs now.
    pub(super) fn start_run(&mut self) -> Result<()> {
        self.flushed_just_now = None;
        // Settings can have changed with a restart of the server, and the database itself can be another one.
        self.layout = Layout::read(&self.layout.db, &self.layout.db_paths)?;
        if !self.lineage_holds()? {
            return Ok(());
        }
        let (manifest, needed) = starting_point(&self.registry, &self.layout)?;
        self.manifest = manifest;
        let first = self.registry.wals_from(needed).first().map_or(needed, |(wal, _)| *wal);
        if self.state.run_begun {
            self.state.run += 1;
            self.state.session += 1;
        }
        self.state.run_begun = true;
        self.state.db_id = self.lineage.db_id.clone();
        // RocksDB creates an open's first WAL directly before its MANIFEST.
        let opens = needed.next() == Some(self.manifest.point().file);
        self.state.model = fresh_model(self.manifest.model().last_sequence(), opens);
        self.state.transactions = Transactions::default();
        self.state.session_start = self.stream.boundary();
        // What was ingested before we came, as long as the server has kept its MANIFEST.
        self.explain_ingested();
        for (_, _, file) in self.manifest.model().live_files() {
            // A file whose keys all have one number may have been ingested: the log skips that number.
            if file.smallest_seqno == file.largest_seqno {
                self.state.model.explain(file.smallest_seqno, file.largest_seqno);
            }
        }
        self.state.barriers = fresh_barriers();
        self.forget_captures()?;
        self.state.wals.clear();
        self.state.wals_from = needed;
        self.last_base = None;
        self.state.two_phase_wal = None;
        self.state.tolerated.clear();
        self.state.said = None;
        self.state.flushed = Some(self.manifest.point());
        self.state.recent.forget();
        self.state.session_id = session::session_id(&self.layout.info_log())?;
        self.state.options = self.registry.newest_options();
        self.state.pending_session = None;
        self.open.clear();
        self.deferred.clear();
        self.held = None;
        self.lo = self.stream.boundary();
        self.same_boot = true;
        self.stream.event(&Event::RunStarted {
            run: self.state.run,
            first_wal: needed,
            db_id: self.state.db_id.clone(),
        })?;
        self.stream.event(&Event::SessionStarted {
            session: self.state.session,
            db_session_id: self.state.session_id.clone(),
            manifest: self.manifest.point(),
            last_sequence: self.manifest.model().last_sequence(),
        })?;
        self.state.wanted.clear();
        self.want_base(BaseReason::RunStarted);
        self.place = Place::After(FileNumber::new(first.get().saturating_sub(1)));
        if self.registry.seen(first).is_some() {
            self.begin_wal(first)?;
        }
        Ok(())
    }
}
