//! Planning on an outline: what a plan comes to depend on is read, and the plan made again, until nothing is missing.
//!
//! Owns: that a plan never rests on an entry of the catalog that stands for several segments, where one of them could make a
//! difference. The rules of planning ask for what they must know exactly (`Source::exact`); here it is noted. Whatever
//! came of a plan that asked for anything, refusals too, is thrown away.
//! The plan is the one that the whole catalog gives. Refuses: deciding anything.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use pitr_archive::{
    Result,
    catalog::{
        archive::Archive,
        outline::{Outline, Wanted},
        schema::{BaseDocument, SegmentSummary, TimeSample},
    },
    ids::{BaseId, TimelineId},
    segment::entry::{CapturedFile, ManifestPoint},
};

use super::{
    PlanOptions, RestorePlan,
    archive_source::FromArchive,
    plan_with,
    source::{ReadEntry, Source, unread},
};
use crate::{part::narrow, target::Target};

/// As [`plan`](super::plan), on an outline, which knows more afterwards.
pub async fn plan(
    archive: &Archive,
    outline: &mut Outline,
    target: &Target,
    options: &PlanOptions,
) -> Result<RestorePlan> {
    if let Target::Tag(name) = target {
        outline.learn_tag(archive, name).await?;
    }
    let whole = narrow::options(options, target)?;
    loop {
        let source = FromOutline { archive: FromArchive(archive), slim: outline.slim(), wanted: Mutex::default() };
        let planned = plan_with(archive.id(), outline.catalog(), &source, target, &whole).await;
        let wanted = source.wanted.into_inner().unwrap_or_else(PoisonError::into_inner);
        if wanted.is_empty() {
            return narrow::narrow(archive, planned?, options.part.as_ref()).await;
        }
        // Nothing is wanted twice: an entry that was read is not there any more.
        outline.expand(archive, &wanted).await?;
    }
}

/// An archive of which an outline is known.
struct FromOutline<'a> {
    archive: FromArchive<'a>,
    slim: &'a BTreeSet<BaseId>,
    wanted: Mutex<Wanted>,
}

impl FromOutline<'_> {
    // A panic while the lock is held leaves a set that only lacks something.
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Source for FromOutline<'_> {
    async fn entries(&self, timeline: TimelineId, segment: &SegmentSummary) -> Result<Vec<ReadEntry>> {
        self.exact(timeline, segment)?;
        self.archive.entries(timeline, segment).await
    }

    async fn samples(&self, timeline: TimelineId, segment: &SegmentSummary) -> Result<Vec<TimeSample>> {
        self.exact(timeline, segment)?;
        self.archive.samples(timeline, segment).await
    }

    async fn has(&self, file: &CapturedFile) -> Result<bool> {
        self.archive.has(file).await
    }

    async fn manifest(&self, timeline: TimelineId, segment: &SegmentSummary) -> Result<Option<ManifestPoint>> {
        self.exact(timeline, segment)?;
        self.archive.manifest(timeline, segment).await
    }

    fn exact(&self, timeline: TimelineId, segment: &SegmentSummary) -> Result<()> {
        let Some(rolled_up) = &segment.rolled_up else { return Ok(()) };
        self.wanted().manifests.insert((timeline, rolled_up.manifest));
        Err(unread())
    }

    fn with_files(&self, base: &BaseDocument) -> Result<()> {
        if !self.slim.contains(&base.id) {
            return Ok(());
        }
        self.wanted().bases.insert(base.id.clone());
        Err(unread())
    }
}
