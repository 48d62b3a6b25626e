//! Is this archive whole, and does it restore what it says?
//!
//! Owns: reading every object once and comparing every hash ([`verify`]); restoring one position in two ways and
//! comparing what came out ([`deep::verify_deep`]). What is wrong is listed as values; the check goes on after each
//! finding and never stops at the first. Only a store that does not answer is an error: "could not read" is not
//! "damaged".

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::Archive,
        model::{Catalog, Timeline},
        schema::{BaseFile, SegmentSummary},
    },
    code::Exit,
    ids::{Boundary, ColumnFamilyId, Ordinals, RunningHash, TimelineId},
    object_key::{ObjectKey, prefix},
    rocks::file_name,
    store::Listed,
};
use serde::Serialize;

use crate::{
    plan::{self, archive_source::FromArchive, facts},
    progress::{Phase, Progress},
    restore::{files::blocking, small_files},
};

mod deep;
pub use deep::{Compared, DeepOptions, DeepReport, FamilyComparison, verify_deep};

/// Objects read at once.
const WORKERS: usize = 4;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its stable code.
    pub code: Code,
    /// The object concerned.
    pub object: Option<String>,
    /// The whole message, one line.
    pub text: String,
    /// What to do about it.
    pub hint: String,
}

impl From<&Error> for Finding {
    fn from(e: &Error) -> Self {
        Self {
            code: e.code(),
            object: e.object().map(ToOwned::to_owned),
            text: e.to_string(),
            hint: e.hint_text().to_owned(),
        }
    }
}

/// Objects that are in the store and no part of the archive. They are no damage: `pitr prune` deletes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Garbage {
    /// Objects that were condemned, segments and manifests that retention does not keep, and segments whose entries are in a
    /// merged one: they wait for the end of their grace period.
    pub condemned: u64,
    /// Their bytes.
    pub condemned_bytes: u64,
    /// Files that nothing names: left by a base that came to nothing, or of one that is being uploaded now.
    pub unreferenced: u64,
    /// Their bytes.
    pub unreferenced_bytes: u64,
}

/// What was checked, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Timelines.
    pub timelines: usize,
    /// Manifests, each joined to the one before.
    pub manifests: usize,
    /// Segments read completely.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Bases.
    pub bases: usize,
    /// Files of bases, and captured ones, read completely; each once though several bases share it.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Tags.
    pub tags: usize,
    /// Reports of drills.
    pub drills: usize,
    /// What is in the store and no part of the archive.
    pub garbage: Garbage,
    /// Everything that is wrong; empty when the archive is whole.
    pub findings: Vec<Finding>,
}

/// Reads the whole archive and compares every hash.
///
/// # Errors
/// Only what keeps the check from going on: the store, the key.
pub async fn verify(archive: &Archive, progress: &dyn Progress) -> Result<VerifyReport> {
    // Before the catalog: what is uploaded and named meanwhile is not taken for unreferenced.
    let listed = archive.store().list(prefix::FILES, None).await?;
    let survey = archive.survey().await?;
    let catalog = &survey.catalog;
    let mut report = VerifyReport {
        timelines: catalog.timelines().count(),
        manifests: catalog.timelines().map(|t| t.manifests().len()).sum(),
        bases: catalog.bases().len(),
        tags: catalog.tags().len(),
        findings: survey.findings.iter().map(Finding::from).collect(),
        ..VerifyReport::default()
    };
    let files = distinct_files(catalog);
    report.garbage = garbage(archive, catalog, &listed, &files).await?;
    let segments: usize = catalog.timelines().map(|t| t.segments().len()).sum();
    progress.begin(Phase::Objects, Some((segments + files.len()) as u64));
    for timeline in catalog.timelines() {
        for absent in archive.absent_segments(timeline).await? {
            note(&mut report, absent)?;
        }
        for contradiction in archive.contradicting_indexes(timeline.id()).await? {
            note(&mut report, contradiction)?;
        }
        check_segments(archive, timeline, &mut report, progress).await?;
    }
    check_files(archive, files, &mut report, progress).await?;
    check_bases(archive, catalog, &mut report).await?;
    check_tags(archive, catalog, &mut report).await?;
    check_drills(archive, catalog, &mut report).await?;
    progress.end(Phase::Objects);
    dedup(&mut report.findings);
    Ok(report)
}

async fn garbage(archive: &Archive, catalog: &Catalog, listed: &[Listed], files: &[BaseFile]) -> Result<Garbage> {
    let mut garbage = Garbage::default();
    let named: BTreeSet<ObjectKey> = files.iter().map(|file| ObjectKey::file(&file.object)).collect();
    let mut condemned = |bytes: u64| {
        garbage.condemned += 1;
        garbage.condemned_bytes += bytes;
    };
    for prefix in [prefix::BASES, prefix::TAGS] {
        let there = archive.store().list(prefix, None).await?;
        there.iter().filter(|l| catalog.condemned().contains_key(&l.key)).for_each(|l| condemned(l.size));
    }
    for timeline in catalog.timelines() {
        // Not kept, or in a merged segment, or one that was never named: behind the catalog's end others go on meanwhile.
        let gone = |ordinals: Ordinals| {
            let kept = timeline.deleted().is_none_or(|deleted| deleted.keeps_any(ordinals));
            let used = timeline.segment(ordinals.first()).is_some_and(|entry| entry.ordinals() == ordinals);
            !kept || (!used && ordinals.first() < timeline.next_ordinal())
        };
        let segments = archive.list_all_segments(timeline.id()).await?;
        segments.iter().filter(|(ordinals, _)| gone(*ordinals)).for_each(|(_, size)| condemned(*size));
        let Some(deleted) = timeline.deleted() else { continue };
        let manifests = archive.store().list(&prefix::manifests(timeline.id()), None).await?;
        let gone = |l: &&Listed| l.key.manifest_number().is_some_and(|number| !deleted.keeps_manifest(number));
        manifests.iter().filter(gone).for_each(|l| condemned(l.size));
        let indexes = archive.store().list(&prefix::indexes(timeline.id()), None).await?;
        let gone = |l: &&Listed| l.key.index_numbers().is_some_and(|over| !deleted.keeps_manifest_of(over));
        indexes.iter().filter(gone).for_each(|l| condemned(l.size));
    }
    for file in listed.iter().filter(|file| !named.contains(&file.key)) {
        if catalog.condemned().contains_key(&file.key) {
            garbage.condemned += 1;
            garbage.condemned_bytes += file.size;
        } else {
            garbage.unreferenced += 1;
            garbage.unreferenced_bytes += file.size;
        }
    }
    Ok(garbage)
}

/// Whether an error is about the archive's content, so that the check lists it and goes on.
fn is_finding(code: Code) -> bool {
    matches!(code.exit(), Exit::Integrity | Exit::Damage)
        || matches!(code, Code::SegmentUnsupported | Code::ObjectUnsupported | Code::OptionsMalformed)
}

fn note(report: &mut VerifyReport, e: Error) -> Result<()> {
    if !is_finding(e.code()) {
        return Err(e);
    }
    report.findings.push(Finding::from(&e));
    Ok(())
}

/// The survey and the full reading both meet an object that is missing.
fn dedup(findings: &mut Vec<Finding>) {
    let mut seen = std::collections::BTreeSet::new();
    findings.retain(|f| f.object.is_none() || seen.insert((f.code.name(), f.object.clone())));
}

async fn check_segments(
    archive: &Archive,
    timeline: &Timeline,
    report: &mut VerifyReport,
    progress: &dyn Progress,
) -> Result<()> {
    let id = timeline.id();
    let mut outcomes =
        futures::stream::iter(timeline.segments()).map(|summary| check_segment(archive, id, summary)).buffered(WORKERS);
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(records) => {
                report.segments += 1;
                report.records += records;
            }
            Err(e) => note(report, e)?,
        }
        progress.advance(Phase::Objects, 1);
    }
    Ok(())
}

/// Reads a segment completely and compares it with what the catalog says of it.
async fn check_segment(archive: &Archive, timeline: TimelineId, summary: &SegmentSummary) -> Result<u64> {
    let reader = archive.read_segment(timeline, summary.ordinals()).await?;
    let said = summary.clone();
    blocking(move || {
        reader.verify()?;
        // Sizes are not part of a footer; everything else that a manifest says must be the segment's own.
        let mut own = reader.footer().summary.clone();
        own.object_bytes = said.object_bytes;
        if !own.agrees_with(&said) {
            return Err(
                Error::new(Code::ChainBroken, "comparing the catalog with the segment").on(reader.index().key())
            );
        }
        Ok(own.end.get().saturating_sub(own.first.get()))
    })
    .await
}

/// Files of bases, and those that entered without the log and were captured.
fn distinct_files(catalog: &Catalog) -> Vec<BaseFile> {
    let captured = catalog.timelines().flat_map(Timeline::captured).map(|file| BaseFile {
        name: file_name::sst(file.number),
        column_family: ColumnFamilyId::DEFAULT,
        path_id: 0,
        size: file.size,
        hash: file.hash,
        object: file.object.clone(),
        epoch: file.epoch,
    });
    let of_bases = catalog.bases().iter().flat_map(|base| &base.files).cloned();
    let files: BTreeMap<String, BaseFile> = captured.chain(of_bases).map(|file| (file.object.clone(), file)).collect();
    files.into_values().collect()
}

async fn check_files(
    archive: &Archive,
    files: Vec<BaseFile>,
    report: &mut VerifyReport,
    progress: &dyn Progress,
) -> Result<()> {
    let mut outcomes = futures::stream::iter(files)
        .map(|file| async move {
            let mut download = archive.download_file(&file).await?;
            // The end is only reported after the hash was compared.
            while download.next().await?.is_some() {}
            Ok(file.size)
        })
        .buffer_unordered(WORKERS);
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(bytes) => {
                report.files += 1;
                report.file_bytes += bytes;
            }
            Err(e) => note(report, e)?,
        }
        progress.advance(Phase::Objects, 1);
    }
    Ok(())
}

/// Each base holds what its MANIFEST needs, and its places are places of the stream.
async fn check_bases(archive: &Archive, catalog: &Catalog, report: &mut VerifyReport) -> Result<()> {
    for base in catalog.bases() {
        // One at a time, whole: the catalog's lack their MANIFEST.
        let checked = match archive.get_base(&base.id).await {
            Ok(Some(whole)) => small_files::check_base(&whole),
            // Deleted meanwhile.
            Ok(None) => Ok(()),
            Err(e) => Err(e),
        };
        if let Err(e) = checked {
            note(report, e)?;
        }
        let object = ObjectKey::base(&base.id);
        let places = [(base.first_record, base.first_hash), (base.floor.boundary, base.floor.hash)];
        for (boundary, hash) in places {
            check_place(archive, catalog, base.floor.timeline, boundary, hash, &object, report).await?;
        }
    }
    Ok(())
}

async fn check_tags(archive: &Archive, catalog: &Catalog, report: &mut VerifyReport) -> Result<()> {
    for tag in catalog.tags() {
        let at = tag.position;
        check_place(archive, catalog, at.timeline, at.boundary, at.hash, &format!("tag {}", tag.name), report).await?;
    }
    Ok(())
}

/// Each report can be read, and what was restored then is a place of the stream: one behind its end shows that its end is lost.
async fn check_drills(archive: &Archive, catalog: &Catalog, report: &mut VerifyReport) -> Result<()> {
    for id in archive.list_drills().await? {
        match archive.get_drill(&id).await {
            Ok(Some(drill)) => {
                report.drills += 1;
                if let Some(at) = drill.plan.map(|plan| plan.position) {
                    let object = ObjectKey::drill(&id);
                    check_place(archive, catalog, at.timeline, at.boundary, at.hash, &object, report).await?;
                }
            }
            // Deleted meanwhile.
            Ok(None) => {}
            Err(e) => note(report, e)?,
        }
    }
    Ok(())
}

async fn check_place(
    archive: &Archive,
    catalog: &Catalog,
    timeline: TimelineId,
    boundary: Boundary,
    hash: RunningHash,
    object: &(dyn std::fmt::Display + Sync),
    report: &mut VerifyReport,
) -> Result<()> {
    let check = async {
        // What is wrong with the timeline's own document is found where it is read.
        let stream = plan::stream_of(catalog, Some(timeline)).map_err(|e| {
            Error::new(Code::ChainBroken, "finding the timeline of").on(object).with("timeline", timeline).because(e)
        })?;
        let broken =
            || Error::new(Code::ChainBroken, "comparing the running hash of").on(object).with("boundary", boundary);
        if boundary > stream.head().boundary {
            return Err(broken().with("the archive ends at", stream.head().boundary));
        }
        // What retention deleted cannot be compared any more.
        if boundary < stream.start() {
            return Ok(());
        }
        let deleted = catalog.timeline(timeline).and_then(Timeline::deleted);
        if deleted.is_some_and(|deleted| deleted.has_deleted(boundary)) {
            return Ok(());
        }
        let hashes = facts::hashes_at(&stream, &FromArchive(archive), boundary).await?;
        let cut = deleted.is_some_and(|deleted| deleted.cuts_at(boundary));
        if cut || hashes.iter().any(|(_, there)| *there == hash) { Ok(()) } else { Err(broken()) }
    };
    match check.await {
        Ok(()) => Ok(()),
        Err(e) => note(report, e),
    }
}

#[cfg(test)]
mod tests;
