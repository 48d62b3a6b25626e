//! Segments on their way into the archive, and what becomes of them.
//!
//! Owns: what an answer of the store means for this process. A segment that was created at the archive's end is
//! acknowledged, and only then are pins given up; where another process has gone on, this one joins behind it, or stops.
//! Refuses: to take a segment for archived because its key was free: what had it may have been deleted.

use pitr_archive::{
    Code, Error, Result,
    catalog::schema::{SegmentSummary, TimelineDocument},
    ids::Ordinal,
    object_key::ObjectKey,
};

use super::{Acknowledged, Archiver, Heartbeat, PAUSE, join::join};
use crate::{
    config::Rival,
    elapsed::Moment,
    layout::Layout,
    retention::policy::YOUNG,
    ship::{self, Answered, Delivered, Shipment},
    source::Presence,
};

/// How many segments of a process with an older claim are taken over in a row before that process counts as alive.
pub(super) const JOINS_IN_A_ROW: u32 = 3;

/// Where a segment lies that was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is the archive's last.
    End,
    /// An earlier process has gone on beyond it: what it holds must follow that one's segments.
    Past,
}

impl Archiver {
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
        // This process has joined elsewhere since.
        let Some(shipment) = self.pending.clone() else { return Ok(Place::Past) };
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
                let timeline = self.archive.get_timeline(self.timeline).await?;
                let timeline = timeline.ok_or_else(|| Error::new(Code::ObjectMissing, "joining behind").on(key))?;
                // Until joining has succeeded the shipment stays pending: it meets the same segment again, where what is
                // read next would be shipped behind a segment that it does not follow.
                self.join_anew(&timeline).await?;
                self.pending = None;
                self.joined_behind += 1;
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

    /// Goes on at the end of a timeline, as it is now. What was read and is not archived is read again.
    pub(super) async fn join_anew(&mut self, timeline: &TimelineDocument) -> Result<()> {
        let head_known = Moment::now(&*self.parts.clock);
        let joined = join(&self.archive, &self.claim, timeline, &self.config, &self.parts, &self.source).await?;
        self.head_known = head_known;
        self.next_place = Place::End;
        self.joins += 1;
        self.left = false;
        self.timeline = timeline.timeline;
        self.engine = joined.engine;
        self.roll_up = joined.roll_up;
        self.pending_manifest = None;
        self.acknowledged.position = joined.position;
        Ok(())
    }
}
