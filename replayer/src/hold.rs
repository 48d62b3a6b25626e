//! A restore says what it reads, so that retention leaves it alone.
//!
//! Owns: the hold's document, its renewal and its end. A hold expires by itself: of a restore that was killed nothing stays
//! that holds. Refuses: to stand in the way of a restore. Where none can be written (a read-only store), the restore relies
//! on the grace period alone, and its caller says so.

use std::{collections::BTreeMap, time::Duration};

use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::{Archive, EpochClaim, PutDocument},
        schema::{DOCUMENT_VERSION, Extra, HeldSegments, HoldDocument},
    },
    clock::{Clock, Micros},
    ids::{BaseId, TimelineId},
    object_key::ObjectKey,
    random::Random,
};

use crate::plan::RestorePlan;

/// How long a hold lasts without being renewed.
pub const LASTS: Duration = Duration::from_secs(3600);
/// How often it is renewed.
pub const RENEWAL: Duration = Duration::from_secs(1200);

const DOING: &str = "holding what the restore reads";

/// A hold that is in force.
#[derive(Debug)]
pub struct Hold<'a> {
    archive: &'a Archive,
    clock: &'a dyn Clock,
    random: &'a dyn Random,
    claim: EpochClaim,
    document: HoldDocument,
    /// The one before it: who lists the holds while one takes the other's place sees either.
    before: Option<BaseId>,
}

impl<'a> Hold<'a> {
    /// Holds what a plan reads. `holder` is for people.
    ///
    /// # Errors
    /// What the store answers: `store.denied` where it is read-only.
    pub async fn place(
        archive: &'a Archive,
        plan: &RestorePlan,
        clock: &'a dyn Clock,
        random: &'a dyn Random,
        holder: &str,
    ) -> Result<Self> {
        let claim = archive.newest_claim().await?;
        let claim = claim.ok_or_else(|| Error::new(Code::ObjectMissing, DOING).on("epochs"))?;
        let document = HoldDocument {
            version: DOCUMENT_VERSION,
            archive: archive.id(),
            id: name(clock.now(), random)?,
            base: plan.base.id.clone(),
            segments: held(plan),
            created: clock.now(),
            expires: expiry(clock.now()),
            holder: holder.to_owned(),
            nonce: random.nonce()?,
            extra: Extra::new(),
        };
        let hold = Self { archive, clock, random, claim, document, before: None };
        hold.put().await?;
        Ok(hold)
    }

    async fn put(&self) -> Result<()> {
        match self.archive.put_hold(&self.document, &self.claim, self.random).await? {
            PutDocument::Created { .. } => Ok(()),
            PutDocument::Conflict(other) => Err(Error::new(Code::Internal, DOING).on(ObjectKey::hold(&other.id))),
        }
    }

    /// Lasts for as long again from now on.
    ///
    /// # Errors
    /// What the store answers; what was held is held until it expires.
    pub async fn renew(&mut self) -> Result<()> {
        let before = self.document.clone();
        let now = self.clock.now();
        self.document.id = name(now, self.random)?;
        self.document.nonce = self.random.nonce()?;
        (self.document.created, self.document.expires) = (now, expiry(now));
        if let Err(e) = self.put().await {
            self.document = before;
            return Err(e);
        }
        match self.before.replace(before.id) {
            Some(before) => self.archive.store().delete(&ObjectKey::hold(&before)).await,
            None => Ok(()),
        }
    }

    /// Renews it until `work` is done, and ends it. A renewal that fails is told to `failed`, and tried again.
    pub async fn during<T>(mut self, work: impl Future<Output = T>, failed: impl Fn(&Error)) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    if let Err(e) = self.release().await {
                        failed(&e);
                    }
                    return done;
                }
                () = tokio::time::sleep(RENEWAL) => {
                    if let Err(e) = self.renew().await {
                        failed(&e);
                    }
                }
            }
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// What the store answers; it then ends when it expires.
    pub async fn release(self) -> Result<()> {
        for id in [Some(&self.document.id), self.before.as_ref()].into_iter().flatten() {
            self.archive.store().delete(&ObjectKey::hold(id)).await?;
        }
        Ok(())
    }
}

/// Does `work` while what `plan` reads is held. Where it cannot be, that is said, and the work relies on the grace period.
pub async fn holding<T>(
    archive: &Archive,
    plan: &RestorePlan,
    (clock, random): (&dyn Clock, &dyn Random),
    holder: &str,
    work: impl Future<Output = T>,
) -> T {
    match Hold::place(archive, plan, clock, random, holder).await {
        Ok(hold) => hold.during(work, |e| tracing::warn!(error = %e, "what is read could not be held")).await,
        Err(e) => {
            tracing::warn!(error = %e, "what is read cannot be held here: this relies on the grace period of pitr prune");
            work.await
        }
    }
}

/// What is read of every timeline on the way: a plan that crosses a fork reads the parent's segments, and the child's. With
/// them what names the files that are laid down or ingested: it can lie behind the target, and files are kept for as long as
/// they are named.
pub(crate) fn held(plan: &RestorePlan) -> Vec<HeldSegments> {
    let mut held: BTreeMap<TimelineId, HeldSegments> = BTreeMap::new();
    let replayed = plan.segments.iter().map(|segment| (segment.timeline, segment.ordinals()));
    let flushed = plan.flushes.iter().map(|flush| flush.told_in);
    let ingested = plan.ingestions.iter().flat_map(|ingestion| &ingestion.parts).map(|part| part.told_in);
    for (timeline, ordinals) in replayed.chain(flushed).chain(ingested) {
        let (from, to) = (ordinals.first(), ordinals.next().unwrap_or(ordinals.first()));
        let all = held.entry(timeline).or_insert(HeldSegments { timeline, from, to });
        (all.from, all.to) = (all.from.min(from), all.to.max(to));
    }
    held.into_values().collect()
}

fn name(now: Micros, random: &dyn Random) -> Result<BaseId> {
    let bytes: [u8; 4] = random.bytes()?;
    Ok(BaseId::new(now.to_datetime(), u32::from_le_bytes(bytes)))
}

fn expiry(now: Micros) -> Micros {
    Micros(now.0.saturating_add(i64::try_from(LASTS.as_micros()).unwrap_or(i64::MAX)))
}
