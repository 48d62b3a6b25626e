//! Reports of drills.
//!
//! Owns: writing them, and reading the newest by one listing and a request each. Nothing names a report and no restore needs
//! one: one that is gone, or cannot be read, makes nothing else worse.

use futures::{StreamExt as _, stream};

use super::{Archive, CONCURRENCY, EpochClaim, PutDocument};
use crate::{
    catalog::{invariants, schema::DrillDocument},
    error::Result,
    ids::BaseId,
    object_key::{ObjectKey, prefix},
    random::Random,
};

impl Archive {
    /// Writes the report of a drill.
    pub async fn put_drill(
        &self,
        document: &DrillDocument,
        claim: &EpochClaim,
        random: &dyn Random,
    ) -> Result<PutDocument<DrillDocument>> {
        self.put(document, claim, random).await
    }

    /// The names of all reports, in order of time.
    pub async fn list_drills(&self) -> Result<Vec<BaseId>> {
        self.listed(prefix::DRILLS, |key| key.stem().parse().ok()).await
    }

    /// The report of a drill, which does not contradict itself.
    pub async fn get_drill(&self, id: &BaseId) -> Result<Option<DrillDocument>> {
        let Some((report, _)) = self.get::<DrillDocument>(&ObjectKey::drill(id)).await? else { return Ok(None) };
        invariants::drill(&report)?;
        Ok(Some(report))
    }

    /// The newest `most` reports, the newest first, each with its own outcome. One that is deleted meanwhile is left out.
    pub async fn newest_drills(&self, most: usize) -> Result<Vec<Result<DrillDocument>>> {
        let newest: Vec<BaseId> = self.list_drills().await?.into_iter().rev().take(most).collect();
        let read: Vec<Result<Option<DrillDocument>>> =
            stream::iter(&newest).map(|id| self.get_drill(id)).buffered(CONCURRENCY).collect().await;
        Ok(read.into_iter().filter_map(Result::transpose).collect())
    }
}
