//! Which bases the stream wants, and which would serve.
//!
//! Owns: when one satisfies a wish ([`super::wishes`]), and the judgement of a candidate against the run's barriers. Taking,
//! uploading and publishing are the archiver's.

use pitr_archive::{
    catalog::crossing::Footing,
    ids::{FileNumber, SequenceNumber},
    rocks::manifest::ManifestModel,
};

use super::{BaseReason, BaseStart, Engine, Place};
use crate::base::collect::Compactions;

impl Engine {
    /// What a compaction of this database makes of its log.
    pub(crate) fn compactions(&self) -> Compactions {
        match self.state.transactions.counts_batches() {
            true => Compactions::ShowCommits,
            false => Compactions::KeepContents,
        }
    }

    /// Where replay on a base whose first WAL is `first_wal` begins, seen from the end of the stream. `None` when WALs
    /// that it needs were given up already: where their records begin is no longer known, and a base without that place
    /// would silently lack them.
    pub fn base_start(&self, first_wal: FileNumber) -> Option<BaseStart> {
        if first_wal < self.state.wals_from {
            return None;
        }
        let here = (self.stream.boundary(), self.stream.hash());
        let (first_record, first_hash) =
            self.state.wals.range(first_wal..).next().map_or(here, |(_, fact)| (fact.first, fact.hash));
        Some(BaseStart { run: self.state.run, first_record, first_hash })
    }

    /// Whether targets from its floor on can be reached from a base of run `run`.
    pub fn serves(&self, run: u64, base: &Footing) -> bool {
        run == self.state.run && self.state.barriers.serves(base)
    }

    /// Whether a base whose floor was fixed is worth publishing: what has happened behind its floor since, it need not have.
    pub fn still_serves(&self, run: u64, base: &Footing) -> bool {
        run == self.state.run && self.state.barriers.still_serves(base)
    }

    /// Why a base is wanted, if one is.
    pub fn wanted_base(&self) -> Option<&BaseReason> {
        self.state.wanted.first()
    }

    /// Whether a base is wanted, and only because of barriers.
    pub fn only_barriers_want_a_base(&self) -> bool {
        self.state.wanted.only_barriers()
    }

    /// A base was published.
    pub fn base_taken(&mut self, base: Footing) {
        self.last_base = Some(base);
        self.state.wanted.satisfy(base.floor, self.state.barriers.concern(&base));
    }

    /// The base that the oldest wish asked for serves no target.
    pub fn base_was_useless(&mut self) {
        self.state.wanted.not_as_asked();
    }

    /// Whether a base taken now would reach targets from the present on.
    pub fn base_would_serve(&self) -> bool {
        self.base_start(self.first_wal_needed()).is_some_and(|start| {
            let candidate = Footing {
                first: start.first_record,
                floor: self.stream.boundary(),
                manifest: self.manifest.point(),
                max_file_sequence: max_file_sequence(self.manifest.model()),
            };
            self.serves(start.run, &candidate)
        })
    }

    /// Wants a base.
    pub fn want_base(&mut self, reason: BaseReason) {
        self.state.wanted.add(reason, self.stream.boundary());
    }

    /// Whether something happened outside the log whose place in it is not certain yet.
    pub fn has_open_intervals(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether everything in `wal` has been read, to its final end.
    pub fn is_past(&self, wal: FileNumber) -> bool {
        match &self.place {
            Place::In(tail) => tail.wal() > wal,
            Place::After(last) => *last >= wal,
        }
    }

    /// Keeps WALs from the first one needed now, until [`Engine::end_hold`].
    pub fn hold(&mut self) {
        self.hold_from = Some(self.first_wal_needed());
    }

    /// Ends [`Engine::hold`].
    pub fn end_hold(&mut self) {
        self.hold_from = None;
    }
}

/// The largest sequence number in a database's files.
pub fn max_file_sequence(model: &ManifestModel) -> SequenceNumber {
    model.live_files().map(|(_, _, file)| file.largest_seqno).max().unwrap_or_default()
}
