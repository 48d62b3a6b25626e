//! Reports of drills.
//!
//! Owns: writing them, and reading the newest by one listing and a request each. Nothing names a report and no restore needs
//! one: one that is gone, or cannot be read, makes nothing else worse.

use std::cmp::Reverse;

use futures::{StreamExt as _, stream};

use super::{Archive, CONCURRENCY, EpochClaim, PutDocument};
use crate::{
    catalog::{invariants, schema::DrillDocument},
    clock::Micros,
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
        let mut names = self.list_drills().await?;
        names.reverse();
        // Names tell the second; of those of the last one that counts, all are read.
        let last = most.checked_sub(1).and_then(|last| names.get(last)).map(BaseId::time);
        names = names
            .into_iter()
            .enumerate()
            .filter(|(n, id)| *n < most || Some(id.time()) == last)
            .map(|(_, id)| id)
            .collect();
        let mut read: Vec<(Micros, Result<DrillDocument>)> = stream::iter(&names)
            .map(|id| async move {
                let began = id.time().map_or(Micros(0), Micros::from);
                let read = self.get_drill(id).await.transpose()?;
                Some((read.as_ref().map_or(began, |report| report.created), read))
            })
            .buffered(CONCURRENCY)
            .filter_map(|read| async { read })
            .collect()
            .await;
        read.sort_by_key(|(began, _)| Reverse(*began));
        Ok(read.into_iter().take(most).map(|(_, read)| read).collect())
    }
}
