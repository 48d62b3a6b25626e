//! Noting barriers.
//!
//! Owns: that a barrier is in the stream, in the log of barriers and told of, and that a base is wanted behind it.

use pitr_archive::{
    Result,
    catalog::crossing::Hurdle,
    ids::{Boundary, SequenceNumber},
    segment::entry::{BarrierReason, Event, Interval, ManifestPoint},
};

use super::{BaseReason, Engine};

impl Engine {
    /// Flushed files reach numbers that neither the log nor anything else explains.
    pub(super) fn jump_to_flushed(&mut self, here: Boundary, flushed: SequenceNumber) -> Result<()> {
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

    /// Notes a barrier that does not end the run.
    pub(super) fn barrier(&mut self, reason: BarrierReason, lo: Boundary, detail: String) -> Result<()> {
        self.barrier_within(reason, Interval { lo, hi: Some(lo) }, None, None, detail)
    }

    /// Notes that numbers up to `unexplained` were used at `lo` by writes that are not in the log.
    pub(super) fn jump(&mut self, lo: Boundary, unexplained: SequenceNumber, detail: String) -> Result<()> {
        let interval = Interval { lo, hi: Some(lo) };
        self.barrier_within(BarrierReason::SequenceJump, interval, None, Some(unexplained), detail)
    }

    /// Notes a barrier in an interval; `manifest` is the edit that showed it, if one did.
    pub(super) fn barrier_within(
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

    /// Barriers recorded by this process.
    pub fn barriers_noted(&self) -> u64 {
        self.barriers_noted
    }
}
