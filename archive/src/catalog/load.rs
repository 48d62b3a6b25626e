//! All of an archive's catalog at once.
//!
//! Owns: the order of reading. What names is read before what is named: a writer that goes on meanwhile can only add
//! segments that nobody has named yet. Requests run concurrently, bounded.
//! Cost: one request a document, a listing a kind, one or two requests for every segment that no manifest holds.

use futures::{StreamExt as _, stream};

use crate::{
    catalog::{
        archive::{Archive, CONCURRENCY, missing},
        invariants,
        model::{Catalog, Manifest, Timeline},
        schema::{BaseDocument, EpochDocument, TagDocument, TimelineDocument},
    },
    code::Code,
    error::{Error, Result},
    ids::{ManifestNumber, TimelineId},
    object_key::{ObjectKey, prefix},
};

/// A catalog and everything that is wrong with it.
#[derive(Debug)]
pub struct Survey {
    /// What could be read.
    pub catalog: Catalog,
    /// What could not, and what does not hold. Empty: the catalog is sound.
    pub findings: Vec<Error>,
}

impl Archive {
    /// Reads the catalog and checks it. The first thing that is wrong is the error.
    pub async fn load_catalog(&self) -> Result<Catalog> {
        let Survey { catalog, findings } = self.survey().await?;
        match findings.into_iter().next() {
            None => Ok(catalog),
            Some(first) => Err(first),
        }
    }

    /// Reads the catalog and lists everything that is wrong with it. Only a store that does not answer is an error.
    pub async fn survey(&self) -> Result<Survey> {
        let mut findings = Vec::new();
        let epochs: Vec<EpochDocument> = keep(self.all_outcomes(prefix::EPOCHS).await?, &mut findings)?;
        let timelines: Vec<TimelineDocument> = keep(self.all_outcomes(prefix::TIMELINES).await?, &mut findings)?;
        let bases: Vec<BaseDocument> = keep(self.all_outcomes(prefix::BASES).await?, &mut findings)?;
        let mut tags: Vec<TagDocument> = keep(self.all_outcomes(prefix::TAGS).await?, &mut findings)?;
        tags.sort_by(|a, b| a.name.cmp(&b.name));
        let mut loaded = Vec::with_capacity(timelines.len());
        for document in timelines {
            loaded.push(self.load_timeline(document, &mut findings).await?);
        }
        let catalog = Catalog::new(self.document().clone(), epochs, loaded, bases, tags);
        findings.extend(invariants::check(&catalog));
        Ok(Survey { catalog, findings })
    }

    /// Segments that the catalog names and the store does not have: lists every segment.
    pub async fn absent_segments(&self, timeline: &Timeline) -> Result<Vec<Error>> {
        Ok(invariants::absent_segments(timeline, &self.list_segments(timeline.id(), None).await?))
    }

    async fn load_timeline(&self, document: TimelineDocument, findings: &mut Vec<Error>) -> Result<Timeline> {
        let id = document.timeline;
        let mut manifests = Vec::new();
        let mut segments = Vec::new();
        for outcome in self.load_manifests(id).await? {
            if let Some((manifest, mut its)) = keep_one(outcome, findings)? {
                manifests.push(manifest);
                segments.append(&mut its);
            }
        }
        let deleted = keep_one(self.deletion_boundary(id).await, findings)?.flatten();
        // A manifest that cannot be read takes its segments with it; density then says which.
        let rolled_up = segments.last().map(|s: &crate::catalog::schema::SegmentSummary| s.ordinal);
        let mut listed = self.list_segments(id, rolled_up).await?;
        listed.retain(|(ordinal, _)| deleted.as_ref().is_none_or(|d| *ordinal >= d.ordinal));
        for (_, footer) in self.footers(id, listed).await {
            if let Some(footer) = keep_one(footer, findings)? {
                segments.push(footer.summary);
            }
        }
        Ok(Timeline::new(document, manifests, deleted, segments))
    }

    async fn load_manifests(
        &self,
        timeline: TimelineId,
    ) -> Result<Vec<Result<(Manifest, Vec<crate::catalog::schema::SegmentSummary>)>>> {
        let numbers = self.list_manifests(timeline).await?;
        Ok(stream::iter(numbers)
            .map(|number| async move {
                let found = self.get_manifest(timeline, number).await?;
                let (document, hash) = found.ok_or_else(|| absent_manifest(timeline, number))?;
                Ok(Manifest::outline(document, hash))
            })
            .buffered(CONCURRENCY)
            .collect()
            .await)
    }
}

fn absent_manifest(timeline: TimelineId, number: ManifestNumber) -> Error {
    missing(&ObjectKey::manifest(timeline, number), "reading the manifest")
}

/// Damage is a finding; a store that does not answer ends the survey: "could not read" is not "not there".
fn keep_one<T>(outcome: Result<T>, findings: &mut Vec<Error>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(e) if is_finding(e.code()) => {
            findings.push(e);
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

fn keep<T>(outcomes: Vec<Result<T>>, findings: &mut Vec<Error>) -> Result<Vec<T>> {
    let mut kept = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        kept.extend(keep_one(outcome, findings)?);
    }
    Ok(kept)
}

const fn is_finding(code: Code) -> bool {
    matches!(
        code,
        Code::SegmentDamaged
            | Code::SegmentMissing
            | Code::SegmentUnsupported
            | Code::ChainBroken
            | Code::ObjectDamaged
            | Code::ObjectMissing
            | Code::ObjectUnsupported
            | Code::WrongArchive
            | Code::KeyWrong
            | Code::KeyRequired
    )
}
