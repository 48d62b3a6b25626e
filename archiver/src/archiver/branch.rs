//! From one timeline to another: the directory's own, or a new one where the history forked.
//!
//! Owns: the order. What was read is acknowledged on the timeline it was read for, and that timeline's manifest is closed;
//! the place of the fork is found while the pins still tell it (where a directory was put back, they tell of the state
//! before, and are given up first); the timeline is created; only then are the pins given up and the directory is
//! followed anew. A process that comes after a crash in between finds either the fork once more, or the timeline without
//! a segment, and goes on.
//! Refuses: to write anything more into the timeline that was left.

use pitr_archive::{
    Result,
    catalog::{
        archive::{Archive, EpochClaim, NewTimeline},
        schema::{Position, TimelineDocument},
    },
    code::Retry,
    ids::TimelineId,
};

use super::{Archiver, Heartbeat, delivery::Place};
use crate::{
    config::Parts,
    engine::{Evidence, Fork},
    fork,
    lineage::Lineage,
    ship,
    source::{OldPins, Source},
};

/// The timeline that goes on with a directory; opened if there is none.
pub(super) async fn timeline_for(
    archive: &Archive,
    claim: &EpochClaim,
    source: &Source,
    parts: &Parts,
) -> Result<TimelineDocument> {
    let lineage = &source.lineage;
    let known = archive.timelines().await?;
    let Some(newest) = lineage.timeline(&known) else {
        let first = known.is_empty() && lineage.marker.is_none();
        let detail = if first { String::new() } else { lineage.story(archive.id()) };
        let parent = restored_from(archive, lineage, &known).await?;
        return open(archive, claim, lineage, parent, &detail, parts).await;
    };
    match still_leaves_there(archive, &known, newest, source).await? {
        Leaves::There => Ok(newest.clone()),
        Leaves::Elsewhere(parent) => open(archive, claim, lineage, parent, &newest.detail, parts).await,
    }
}

/// Whether a timeline leaves its parent where its document says.
enum Leaves {
    There,
    Elsewhere(Option<Position>),
}

/// A process that opened a timeline and died before it wrote into it can have been followed by another loss of records:
/// until a segment is in it, the place of its fork is found anew.
async fn still_leaves_there(
    archive: &Archive,
    known: &[TimelineDocument],
    timeline: &TimelineDocument,
    source: &Source,
) -> Result<Leaves> {
    let restored = source.lineage.parent(archive.id(), known);
    let Some(parent) = timeline.parent.filter(|parent| Some(*parent) != restored) else { return Ok(Leaves::There) };
    if !archive.list_segments(timeline.timeline, None).await?.is_empty() {
        return Ok(Leaves::There);
    }
    // What showed the fork then, and the pins that told its place, may be gone: only that more was lost since counts.
    let found = place_of_fork(archive, parent.timeline, source, Evidence::PutBack).await?;
    match found.filter(|found| found.boundary < parent.boundary) {
        None => Ok(Leaves::There),
        earlier => Ok(Leaves::Elsewhere(earlier)),
    }
}

/// Where a restored database left the archived history, if the archive still has what the restore read: it can have been
/// put back itself, or be another copy of it that lags behind.
async fn restored_from(archive: &Archive, lineage: &Lineage, known: &[TimelineDocument]) -> Result<Option<Position>> {
    let Some(parent) = lineage.parent(archive.id(), known) else { return Ok(None) };
    let survey = archive.load_what_is_sound().await?;
    let Some(timeline) = survey.catalog.timeline(parent.timeline) else { return Ok(None) };
    match archive.confirm_position(timeline, &parent).await {
        Ok(()) => Ok(Some(parent)),
        Err(e) if e.code().retry() == Retry::Never => {
            tracing::warn!(error = %e, "the archive does not hold the position that the database was restored to");
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Where the server left `timeline`. An archive that is damaged in another place still tells; where it does not, the new
/// timeline has no parent, and goes on being archived.
async fn place_of_fork(
    archive: &Archive,
    timeline: TimelineId,
    source: &Source,
    evidence: Evidence,
) -> Result<Option<Position>> {
    let survey = archive.load_what_is_sound().await?;
    for finding in &survey.findings {
        tracing::warn!(error = %finding, "the archive is damaged; pitr verify tells more");
    }
    let Some(left) = survey.catalog.timeline(timeline) else { return Ok(None) };
    match fork::position(archive, left, &source.registry, evidence).await {
        Err(e) if e.code().retry() == Retry::Never => {
            tracing::warn!(error = %e, "where the history forked cannot be told");
            Ok(None)
        }
        found => found,
    }
}

async fn open(
    archive: &Archive,
    claim: &EpochClaim,
    lineage: &Lineage,
    parent: Option<Position>,
    detail: &str,
    parts: &Parts,
) -> Result<TimelineDocument> {
    let wanted = NewTimeline { db_id: &lineage.db_id, restore_marker: lineage.nonce(), parent, detail };
    crate::crash::point("timeline-before-put");
    let opened = archive.open_timeline(&wanted, claim, &*parts.clock, &*parts.random).await?;
    crate::crash::point("timeline-after-put");
    // The first one is no news.
    if !detail.is_empty() {
        let place = |p: Position| format!("timeline {}, boundary {}", p.timeline, p.boundary);
        let at = parent.map_or_else(|| "unknown".to_owned(), place);
        tracing::warn!(timeline = %opened.timeline, parent = at, detail, "a timeline begins");
    }
    Ok(opened)
}

impl Archiver {
    /// Goes over to another timeline if the engine noticed a fork, once everything that it read is acknowledged.
    pub(crate) async fn branch_if_forked(&mut self) -> Result<()> {
        while self.pending.is_none() && self.engine.stream.is_empty() {
            let Some(fork) = self.engine.forked().cloned() else { return Ok(()) };
            if !self.left {
                // Whoever still writes into this timeline under an older claim meets this segment, and stops.
                self.cut(Heartbeat::Yes)?;
                let Some(shipment) = self.pending.clone() else { continue };
                let answer = ship::deliver(&self.archive, self.claim.epoch(), &shipment, &*self.parts.clock).await?;
                self.left = self.delivered(answer).await? == Place::End;
                continue;
            }
            self.close_manifest().await?;
            if matches!(fork.evidence, Evidence::Lineage | Evidence::PutBack) && self.opened.is_none() {
                // The pins are of what was there before.
                self.source = Source::follow(&self.config, &self.state_dir, &self.changed, OldPins::GiveUp)?;
            }
            // An attempt that failed behind this is not made again from the start: by then the pins may be gone.
            let timeline = match (self.opened.take(), fork.evidence) {
                (Some(opened), _) => opened,
                (None, Evidence::Lineage) => {
                    timeline_for(&self.archive, &self.claim, &self.source, &self.parts).await?
                }
                (None, _) => self.fork_off(&fork).await?,
            };
            self.opened = Some(timeline.clone());
            self.refuse_second_place().await?;
            self.follow_anew(&timeline).await?;
            self.opened = None;
        }
        Ok(())
    }

    /// Opens a timeline that leaves the present one where the server's history did.
    async fn fork_off(&self, fork: &Fork) -> Result<TimelineDocument> {
        let lineage = &self.source.lineage;
        let known = self.archive.timelines().await?;
        // An attempt that did not come to its end.
        if let Some(opened) = lineage.timeline(&known).filter(|opened| opened.timeline > self.timeline)
            && let Leaves::There = still_leaves_there(&self.archive, &known, opened, &self.source).await?
        {
            return Ok(opened.clone());
        }
        let parent = place_of_fork(&self.archive, self.timeline, &self.source, fork.evidence).await?;
        open(&self.archive, &self.claim, lineage, parent, &fork.detail, &self.parts).await
    }

    /// Begins to follow the directory for `timeline`.
    async fn follow_anew(&mut self, timeline: &TimelineDocument) -> Result<()> {
        self.source = Source::follow(&self.config, &self.state_dir, &self.changed, OldPins::GiveUp)?;
        self.join_anew(timeline).await?;
        self.branches += 1;
        self.learn_bases().await
    }
}
