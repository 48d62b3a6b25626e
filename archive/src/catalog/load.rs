//! All of an archive's catalog at once.
//!
//! Owns: the order of reading. What names is read before what is named (manifests, bases and tags, segments, epochs): a
//! writer that goes on meanwhile can only add what nobody has named yet. Requests run concurrently, bounded.
//! Manifests are the bulk of it and never change, so somebody who has to list first can read them meanwhile ([`Ahead`]).
//! Cost: one request a document, a listing a kind, one or two requests for every segment that no manifest holds.

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};

use crate::{
    catalog::{
        archive::{Archive, CONCURRENCY, missing},
        invariants,
        model::{Catalog, Manifest, ManifestPath, Manifests, Named, NamedMerge, Outlined, Timeline, in_place},
        schema::{
            BaseDocument, BoundaryDocument, CondemnedDocument, EpochDocument, Position, SegmentSummary, TagDocument,
            TimelineDocument,
        },
    },
    code::Code,
    error::{Error, Result},
    ids::{ManifestNumber, Ordinal, TimelineId},
    object_key::{ObjectKey, prefix},
    rocks::file_name,
};

/// A timeline whose segments after the last manifest are not read yet.
struct Loading {
    document: TimelineDocument,
    manifests: Vec<Manifest>,
    segments: Vec<SegmentSummary>,
    merged: Vec<NamedMerge>,
    /// None before the last is lost.
    all_manifests: bool,
    /// Where deletion stopped.
    deleted: Option<BoundaryDocument>,
}

/// A catalog and everything that is wrong with it.
#[derive(Debug)]
pub struct Survey {
    /// What could be read.
    pub catalog: Catalog,
    /// What could not, and what does not hold. Empty: the catalog is sound.
    pub findings: Vec<Error>,
}

/// Manifests that were read before the catalog. Each is created exclusively and never changes; which of them belong to the
/// catalog, the catalog's own listing tells later.
#[derive(Debug, Default)]
pub struct Ahead(BTreeMap<(TimelineId, ManifestNumber), Outlined>);

impl Archive {
    /// Reads the manifests that are there now. What cannot be read is left to whoever reads the catalog.
    pub async fn read_ahead(&self) -> Result<Ahead> {
        let mut ahead = Ahead::default();
        for timeline in self.timelines().await? {
            let id = timeline.timeline;
            let deleted = self.deletion_boundary(id).await?;
            for outcome in self.load_manifests(id, deleted.as_ref(), &mut Ahead::default()).await? {
                // Damage is found again where it counts.
                if let Some(outlined) = keep_one(outcome, &mut Vec::new())? {
                    ahead.0.insert((id, outlined.manifest.number), outlined);
                }
            }
        }
        Ok(ahead)
    }

    /// Reads the catalog and checks it. The first thing that is wrong is the error. Its bases lack their MANIFEST's
    /// bytes: [`Archive::get_base`] has them.
    pub async fn load_catalog(&self) -> Result<Catalog> {
        self.load_catalog_behind(Ahead::default()).await
    }

    /// The same, without reading again what was read ahead.
    pub async fn load_catalog_behind(&self, ahead: Ahead) -> Result<Catalog> {
        let Survey { catalog, findings } = self.survey_behind(ahead).await?;
        match findings.into_iter().next() {
            None => Ok(catalog),
            Some(first) => Err(first),
        }
    }

    /// Reads what is sound of the catalog, and lists what is not: one damaged object must not hide everything else from
    /// somebody who has to restore. Bases that do not fit the archive are left out; where segments are missing,
    /// [`invariants::stretches`] tells what still joins.
    pub async fn load_what_is_sound(&self) -> Result<Survey> {
        let mut survey = self.survey().await?;
        if !survey.findings.is_empty() {
            invariants::leave_out_unsound(&mut survey.catalog);
        }
        Ok(survey)
    }

    /// Reads the catalog and lists everything that is wrong with it. Only a store that does not answer is an error.
    pub async fn survey(&self) -> Result<Survey> {
        self.survey_behind(Ahead::default()).await
    }

    async fn survey_behind(&self, mut ahead: Ahead) -> Result<Survey> {
        let mut findings = Vec::new();
        // Before the bases: one that is gone by then is in here.
        let condemned: Vec<CondemnedDocument> = keep(self.all_outcomes(prefix::CONDEMNED).await?, &mut findings)?;
        let mut timelines: BTreeMap<TimelineId, Loading> = BTreeMap::new();
        self.load_timelines(&mut timelines, &mut ahead, &mut findings).await?;
        let bases: Vec<BaseDocument> =
            keep(self.all_outcomes_as(prefix::BASES, without_manifest).await?, &mut findings)?;
        let mut tags: Vec<TagDocument> = keep(self.all_outcomes(prefix::TAGS).await?, &mut findings)?;
        tags.sort_by(|a, b| a.name.cmp(&b.name));
        let positions = bases.iter().map(|base| &base.floor).chain(tags.iter().map(|tag| &tag.position));
        if positions.into_iter().any(|position| !timelines.contains_key(&position.timeline)) {
            // Opened since the first look, or lost: the second look tells. What it finds again is already known.
            self.load_timelines(&mut timelines, &mut ahead, &mut Vec::new()).await?;
        }
        let mut loaded = Vec::with_capacity(timelines.len());
        for loading in timelines.into_values() {
            loaded.push(self.load_segments(loading, &mut findings).await?);
        }
        let epochs: Vec<EpochDocument> = keep(self.all_outcomes(prefix::EPOCHS).await?, &mut findings)?;
        let catalog = Catalog::new(self.document().clone(), epochs, loaded, bases, tags).with_condemned(&condemned);
        findings.extend(invariants::check(&catalog));
        Ok(Survey { catalog, findings })
    }

    /// Whether the archive has the hash that a position names: from the summaries where they tell, else by reading the
    /// segments that touch it.
    ///
    /// # Errors
    /// `archive.chain-broken` when it has another one, `segment.missing` when the archive ends before it.
    pub async fn confirm_position(&self, timeline: &Timeline, named: &Position) -> Result<()> {
        const DOING: &str = "comparing a position with the archive";
        let different = || {
            Error::new(Code::ChainBroken, DOING)
                .on(ObjectKey::timeline(named.timeline))
                .with("boundary", named.boundary)
                .with("hash", named.hash)
        };
        let absent = || {
            Error::new(Code::SegmentMissing, DOING)
                .on(ObjectKey::timeline(named.timeline))
                .with("boundary", named.boundary)
                .with("archive-begins-at", timeline.start())
                .with("archive-ends-at", timeline.end())
        };
        match timeline.compare(named.boundary, named.hash) {
            Named::Same => Ok(()),
            Named::Different => Err(different()),
            Named::BeyondHead | Named::Deleted => Err(absent()),
            Named::InsideSegment => {
                for segment in timeline.segments_touching(named.boundary, named.boundary) {
                    if segment.rolled_up.is_some() {
                        return Err(Error::new(Code::Internal, "reading a segment of which only an index is known"));
                    }
                    let reader = self.read_segment(timeline.id(), segment.ordinals()).await?;
                    if reader.hashes_at(named.boundary)?.contains(&named.hash) {
                        return Ok(());
                    }
                }
                let cut = timeline.deleted().is_some_and(|deleted| deleted.cuts_at(named.boundary));
                Err(if cut { absent() } else { different() })
            }
        }
    }

    /// Segments that the catalog names and the store does not have: lists every segment.
    pub async fn absent_segments(&self, timeline: &Timeline) -> Result<Vec<Error>> {
        Ok(invariants::absent_segments(timeline, &self.list_all_segments(timeline.id()).await?))
    }

    /// Timelines that are not there yet, with their manifests.
    async fn load_timelines(
        &self,
        timelines: &mut BTreeMap<TimelineId, Loading>,
        ahead: &mut Ahead,
        findings: &mut Vec<Error>,
    ) -> Result<()> {
        let documents: Vec<TimelineDocument> = keep(self.all_outcomes(prefix::TIMELINES).await?, findings)?;
        for document in documents {
            let id = document.timeline;
            if timelines.contains_key(&id) {
                continue;
            }
            // Before the manifests: what it keeps was there when it was written, and what it does not is not missed.
            let deleted = keep_one(self.deletion_boundary(id).await, findings)?.flatten();
            let (manifests, segments, merged) = (Vec::new(), Vec::new(), Vec::new());
            let mut loading = Loading { document, manifests, segments, merged, all_manifests: true, deleted };
            let mut path = ManifestPath::new(loading.deleted.as_ref());
            let outcomes = self.load_manifests(id, loading.deleted.as_ref(), ahead).await?;
            // Room for all at once: they can be a million, and growing moves them again and again.
            let outlined = outcomes.iter().flatten();
            loading.segments.reserve(outlined.map(|outlined| outlined.segments.len()).sum());
            for outcome in outcomes {
                if let Some(Outlined { manifest, mut segments, mut merged }) = keep_one(outcome, findings)? {
                    loading.all_manifests &= manifest.number == path.expected().0;
                    path.pass(manifest.number, manifest.hash);
                    loading.manifests.push(manifest);
                    loading.segments.append(&mut segments);
                    loading.merged.append(&mut merged);
                } else {
                    loading.all_manifests = false;
                }
            }
            timelines.insert(id, loading);
        }
        Ok(())
    }

    async fn load_segments(&self, loading: Loading, findings: &mut Vec<Error>) -> Result<Timeline> {
        let Loading { document, manifests, mut segments, mut merged, all_manifests, deleted } = loading;
        let id = document.timeline;
        // What a lost manifest held is still in the segments themselves.
        segments.sort_by_key(|s| s.ordinal);
        let known = |ordinal: &Ordinal| segments.binary_search_by_key(ordinal, |s| s.ordinal).is_ok();
        let rolled_up = segments.last().filter(|_| all_manifests).map(|last| last.ordinal);
        let mut listed = self.list_segments(id, rolled_up).await?;
        listed.retain(|(ordinal, _)| !known(ordinal) && deleted.as_ref().is_none_or(|d| d.keeps(*ordinal)));
        let mut unreadable = None;
        for (ordinal, footer) in self.footers(id, listed).await {
            match keep_one(footer, findings)? {
                Some(footer) => segments.push(footer.summary),
                None => unreadable = Some(ordinal),
            }
        }
        segments.sort_by_key(|s| s.ordinal);
        let unreadable = unreadable.filter(|ordinal| segments.last().is_none_or(|last| last.ordinal < *ordinal));
        if !all_manifests {
            merged.extend(self.unnamed_merges(id, &segments, &merged, findings).await?);
        }
        let known = if all_manifests { Manifests::All } else { Manifests::SomeLost };
        let (segments, since) = in_place(id, segments, merged, deleted.as_ref(), known, findings);
        let mut timeline = Timeline::new(document, manifests, deleted, segments).merged(since);
        if let Some(ordinal) = unreadable {
            timeline.note_lost_end(ObjectKey::segment(id, ordinal).to_string());
        }
        Ok(timeline)
    }

    async fn load_manifests(
        &self,
        timeline: TimelineId,
        deleted: Option<&BoundaryDocument>,
        ahead: &mut Ahead,
    ) -> Result<Vec<Result<Outlined>>> {
        let mut numbers = self.list_manifests(timeline).await?;
        numbers.retain(|number| deleted.is_none_or(|deleted| deleted.keeps_manifest(*number)));
        Ok(stream::iter(numbers)
            .map(|number| (number, ahead.0.remove(&(timeline, number))))
            .map(|(number, known)| async move {
                if let Some(known) = known {
                    return Ok(known);
                }
                let found = self.get_manifest(timeline, number).await?;
                let (document, hash) = found.ok_or_else(|| absent_manifest(timeline, number))?;
                Ok(Manifest::outline(document, hash))
            })
            .buffered(CONCURRENCY)
            .collect()
            .await)
    }
}

/// A MANIFEST can have hundreds of megabytes, and a year's bases hold one each.
pub(super) fn without_manifest(mut base: BaseDocument) -> BaseDocument {
    let name = file_name::manifest(base.manifest.file);
    for file in base.inline.iter_mut().filter(|file| file.name == name) {
        file.content = String::new();
    }
    base
}

pub(super) fn absent_manifest(timeline: TimelineId, number: ManifestNumber) -> Error {
    missing(&ObjectKey::manifest(timeline, number), "reading the manifest")
}

/// Damage is a finding; a store that does not answer ends the survey: "could not read" is not "not there".
pub(super) fn keep_one<T>(outcome: Result<T>, findings: &mut Vec<Error>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(e) if is_finding(e.code()) => {
            findings.push(e);
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

pub(super) fn keep<T>(outcomes: Vec<Result<T>>, findings: &mut Vec<Error>) -> Result<Vec<T>> {
    let mut kept = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        kept.extend(keep_one(outcome, findings)?);
    }
    Ok(kept)
}

pub(super) const fn is_finding(code: Code) -> bool {
    matches!(
        code,
        Code::SegmentDamaged
            | Code::SegmentMissing
            | Code::SegmentUnsupported
            | Code::SegmentMerged
            | Code::ChainBroken
            | Code::ObjectDamaged
            | Code::ObjectMissing
            | Code::ObjectUnsupported
            | Code::WrongArchive
            | Code::KeyWrong
            | Code::KeyRequired
    )
}
