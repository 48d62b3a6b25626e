//! Deliveries: one segment under way at most.
//!
//! Owns: when a segment is cut and sent, and waiting until everything read is acknowledged.

use std::time::Duration;

use pitr_archive::{Result, clock::Micros};
use tracing::Instrument as _;

use super::{Daemon, wait};
use crate::{
    archiver::{Heartbeat, Place},
    config::Rival,
    elapsed::elapsed,
    ship::{self, Answered, Backoff},
};

/// How often it is said how things are while the loop waits for the store.
const TELL: Duration = Duration::from_secs(1);

impl Daemon {
    pub(super) fn ship_if_due(&mut self, now: Micros) -> Result<()> {
        if self.delivery.is_some() {
            return Ok(());
        }
        let waited_for = !self.requests.is_empty() || self.base_wants_a_segment();
        let archiver = &mut self.archiver;
        if archiver.pending.is_none() {
            let full = archiver.engine.stream.plain_bytes() >= archiver.config.segment_bytes;
            let old = archiver.engine.stream.oldest().is_some_and(|t| elapsed(t, now) >= archiver.config.interval);
            let quiet = archiver.engine.stream.is_empty() && elapsed(self.last_beat, now) >= archiver.config.heartbeat;
            if full || old || quiet {
                archiver.cut(Heartbeat::Yes)?;
            } else if waited_for {
                archiver.cut(Heartbeat::No)?;
            }
        }
        self.send_pending(Duration::ZERO);
        Ok(())
    }

    /// Begins to deliver what is cut, after a pause.
    pub(super) fn send_pending(&mut self, pause: Duration) {
        if let Some(shipment) = self.archiver.pending.clone()
            && self.delivery.is_none()
        {
            self.last_beat = self.archiver.parts.clock.now();
            let (archive, epoch) = (self.archiver.archive.clone(), self.archiver.claim.epoch());
            let (parts, reach) = (self.archiver.parts.clone(), self.archiver.reach.clone());
            let deliver = async move {
                tokio::time::sleep(pause).await;
                ship::deliver_patiently(archive, epoch, shipment, parts, reach).await
            };
            self.delivery = Some(tokio::spawn(deliver.in_current_span()));
        }
    }

    /// Who is to take over sends a segment at once, whatever it holds: the first who creates the next one has the archive, and an
    /// archiver that is alive creates one in every interval.
    pub(super) fn contend(&mut self) -> Result<()> {
        if self.archiver.config.rival == Rival::TakeOver && self.archiver.pending.is_none() && self.delivery.is_none() {
            self.archiver.cut(Heartbeat::Yes)?;
            self.send_pending(Duration::ZERO);
        }
        Ok(())
    }

    pub(super) async fn delivered(&mut self, answer: Result<Answered>) -> Result<()> {
        let place = self.archiver.delivered(answer?).await;
        if matches!(place, Ok(Place::Past)) {
            self.contend()?;
        }
        match place.map(drop) {
            // What it takes to be sure could not be read: the shipment stays pending, and meets itself in the archive.
            Err(e) if ship::passes(e.code()) => {
                self.archiver.reach.failed(&e, self.archiver.parts.clock.now());
                let pause = self.redelivery.next(&*self.archiver.parts.random);
                tracing::warn!(error = %e, "what was shipped could not be confirmed; it is tried again");
                self.send_pending(pause);
                Ok(())
            }
            done => {
                self.redelivery = Backoff::default();
                done
            }
        }
    }

    /// Waits for the delivery under way, for as long as the store may be away: the loop turns meanwhile.
    pub(super) async fn wait_for_delivery(&mut self) -> Result<Answered> {
        loop {
            tokio::select! {
                delivered = wait(&mut self.delivery) => return delivered,
                () = tokio::time::sleep(TELL) => self.tell(),
            }
        }
    }

    /// Waits until everything read at this moment is acknowledged, or has to be read anew behind another process's segment.
    pub(super) async fn ship_now(&mut self) -> Result<()> {
        let joins = self.archiver.joins;
        let target = self.archiver.engine.position().boundary;
        while joins == self.archiver.joins
            && (self.archiver.acknowledged().boundary < target
                || !self.archiver.engine.stream.is_empty()
                || self.archiver.pending.is_some())
        {
            if self.delivery.is_none() {
                self.archiver.cut(Heartbeat::No)?;
                self.send_pending(Duration::ZERO);
            }
            let delivered = self.wait_for_delivery().await;
            self.delivered(delivered).await?;
        }
        Ok(())
    }

    /// Reads everything, and waits until it is acknowledged.
    pub(super) async fn drain(&mut self) -> Result<()> {
        loop {
            let archiver = &mut self.archiver;
            let joins = archiver.joins;
            let polled = tokio::task::block_in_place(|| archiver.poll())?;
            self.ship_now().await?;
            self.archiver.branch_if_forked().await?;
            if joins == self.archiver.joins && (polled.caught_up || self.archiver.engine.waiting().is_some()) {
                return Ok(());
            }
        }
    }
}
