//! How far the engine is, and what may be given up because the archive has it.
//!
//! Owns: the state from which a later process goes on; [`super::resume`] reads it.

use pitr_archive::{
    Result,
    catalog::schema::{ManifestProgress, Position},
    ids::{Boundary, FileNumber, SequenceNumber},
    segment::entry::ManifestPoint,
};

use super::{
    Engine,
    types::{EngineState, Place},
};
use crate::manifest_tail::{Consumed, News};

impl Engine {
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
}
