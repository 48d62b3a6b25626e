//! One prune after the other states what is kept.
//!
//! Owns: the turn, and finding out that another prune stated something since the archive was read. Two prunes that read the
//! same archive and decide differently (another policy, or one a moment later, when the window has left a base behind) would
//! each give up what the other one's promise rests on: of both only one may state what it found, and the other reads anew.
//!
//! The turn is a condemned document without objects, created before anything is stated. Who sees another's lets go of its
//! own: of two that take it at the same time at least one sees the other's. Its owner states nothing any more
//! behind `LASTS`; from twice that age on it does not count.

use std::{collections::BTreeSet, time::Duration};

use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::{Archive, EpochClaim, PutDocument},
        model::Timeline,
        schema::{CondemnedDocument, DOCUMENT_VERSION, Extra},
    },
    clock::{Clock, Micros},
    ids::BaseId,
    object_key::{ObjectKey, prefix},
    random::Random,
};

use super::{gather::Gathered, policy::YOUNG};
use crate::elapsed::Moment;

/// So long a turn lasts at most.
const LASTS: Duration = Duration::from_secs(YOUNG.as_secs() / 2);

/// The right to state something.
pub(super) struct Turn<'a> {
    archive: &'a Archive,
    key: ObjectKey,
    since: Moment,
}

impl<'a> Turn<'a> {
    /// Takes it, unless another prune has it, or stated something since `gathered` was read.
    pub async fn take(
        archive: &'a Archive,
        claim: &EpochClaim,
        gathered: &Gathered,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Option<Self>> {
        let since = Moment::now(clock);
        let now = clock.now();
        let part: [u8; 4] = random.bytes()?;
        let document = CondemnedDocument {
            version: DOCUMENT_VERSION,
            archive: archive.id(),
            id: BaseId::new(now.to_datetime(), u32::from_le_bytes(part)),
            objects: Vec::new(),
            created: now,
            until: None,
            epoch: claim.epoch(),
            nonce: random.nonce()?,
            extra: Extra::new(),
        };
        let turn = Self { archive, key: ObjectKey::condemned(&document.id), since };
        if let PutDocument::Conflict(other) = archive.put_condemned(&document, claim, random).await? {
            return Err(Error::new(Code::Internal, "pruning").on(ObjectKey::condemned(&other.id)));
        }
        if turn.is_alone(gathered, now).await? {
            return Ok(Some(turn));
        }
        turn.release().await?;
        Ok(None)
    }

    /// Whether nobody else has a turn, and nobody stated anything that was not read.
    async fn is_alone(&self, gathered: &Gathered, now: Micros) -> Result<bool> {
        let lasts = i64::try_from(YOUNG.as_micros()).unwrap_or(i64::MAX);
        // One that is from the future was written by a clock that is wrong.
        let counts = |turn: Micros| now.0.saturating_sub(turn.0).saturating_abs() < lasts;
        let read = |document: &&CondemnedDocument| !document.objects.is_empty() || !counts(document.created);
        let condemned = gathered.condemned.iter().filter(read).map(|document| ObjectKey::condemned(&document.id));
        let boundaries = gathered.boundaries.iter().flat_map(|(timeline, documents)| {
            documents.iter().map(move |d| ObjectKey::boundary_revision(*timeline, d.ordinal, d.revision))
        });
        let known: BTreeSet<ObjectKey> = condemned.chain(boundaries).chain([self.key.clone()]).collect();
        // What was stated while the catalog was read is in one and not in the other.
        let one_view = gathered.boundaries.iter().all(|(timeline, documents)| {
            let counts = gathered.catalog.timeline(*timeline).and_then(Timeline::deleted);
            counts.map(|d| (d.ordinal, d.revision)) == documents.last().map(|d| (d.ordinal, d.revision))
        });
        for prefix in [prefix::CONDEMNED, prefix::BOUNDARIES] {
            let listed = self.archive.store().list(prefix, None).await?;
            let is_document = |key: &ObjectKey| key.as_str().ends_with(".doc");
            if listed.iter().any(|listed| is_document(&listed.key) && !known.contains(&listed.key)) {
                return Ok(false);
            }
        }
        Ok(one_view)
    }

    /// Whether it has lasted too long: the process can have slept.
    pub fn is_over(&self, clock: &dyn Clock) -> bool {
        self.since.ago(clock) >= LASTS
    }

    /// Ends it.
    pub async fn release(self) -> Result<()> {
        self.archive.store().delete(&self.key).await
    }
}
