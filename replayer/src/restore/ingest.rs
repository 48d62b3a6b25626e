//! Repeating ingestions in the staging directory, each at its place.
//!
//! Owns: the order of effects. RocksDB recovers the copy up to the place, which puts every record before it into files.
//! Files that had no number in the source are then ingested through RocksDB with numbers forbidden: it refuses where they
//! overlap anything, a tombstone included. The copy is closed, and files that had a number are named in its MANIFEST with
//! that number, at level 0 above everything that is there: what is there has smaller numbers, what the next stage brings
//! has larger ones and comes above them. Then the next stage's records get WAL numbers that the copy has not used.
//! Refuses: every difference from the source's sequence numbers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pitr_archive::{
    Code, Error, Result,
    catalog::schema::BaseFile,
    error::io,
    ids::{FileNumber, SequenceNumber},
    rocks::{
        file_name::{self, FileKind},
        version_edit::{NewFile, VersionEdit},
    },
};

use super::{
    files::Job,
    manifest::Manifest,
    paths::Layout,
    recover::{current_manifest, names, recover, replace_manifest, spec},
    small_files::Describing,
    stages,
    staging::{Staging, sync_directory},
    wal::WalTotals,
};
use crate::{
    finish::{OpenSpec, Opened},
    plan::{
        RestorePlan,
        ingestion::{IngestedPart, PlannedIngestion},
    },
};

/// What repeating needs to know of the copy.
pub(crate) struct Repeating {
    plan: RestorePlan,
    describing: Describing,
    /// How to open it, but for its column families.
    spec: OpenSpec,
    /// For every ingestion and part: where its files wait, in the edit's order.
    waiting: Vec<Vec<Vec<PathBuf>>>,
    totals: Vec<WalTotals>,
}

/// A captured file as one of a base.
fn as_base_file(part: &IngestedPart, index: usize, new: &NewFile<'_>) -> Option<BaseFile> {
    let file = part.files.get(index)?;
    Some(BaseFile {
        name: file_name::sst(file.number),
        column_family: part.column_family,
        path_id: new.path_id.into(),
        size: file.size,
        hash: file.hash,
        object: file.object.clone(),
        epoch: file.epoch,
    })
}

fn malformed(ingestion: &PlannedIngestion) -> Error {
    Error::new(Code::SegmentDamaged, "reading the edit of an ingestion")
        .with("MANIFEST", ingestion.manifest.file)
        .with("offset", ingestion.manifest.offset)
}

/// Where captured files are laid down until their turn: in the directory that they belong in, under names that RocksDB
/// ignores.
pub(crate) fn jobs(plan: &RestorePlan, layout: &Layout, staging: &Staging) -> Result<Vec<Vec<Vec<Job>>>> {
    let mut all = Vec::new();
    for (number, ingestion) in plan.ingestions.iter().enumerate() {
        let mut parts = Vec::new();
        for part in &ingestion.parts {
            let payload = part.payload().ok_or_else(|| malformed(ingestion))?;
            let edit = VersionEdit::decode(&payload).map_err(|e| malformed(ingestion).because(e))?;
            let mut jobs = Vec::new();
            for (index, new) in edit.new_files.iter().enumerate() {
                let file = as_base_file(part, index, new).ok_or_else(|| malformed(ingestion))?;
                let directory = staging.path(layout.directory_of(&file)?)?;
                let name = format!("pitr-ingest-{number}-{}-{}", part.column_family, file.name);
                jobs.push(Job { file, to: directory.join(name) });
            }
            parts.push(jobs);
        }
        all.push(parts);
    }
    Ok(all)
}

impl Repeating {
    /// Everything is laid down; nothing has been opened.
    pub fn new(
        plan: &RestorePlan,
        layout: &Layout,
        staging: &Staging,
        describing: Describing,
        jobs: &[Vec<Vec<Job>>],
        totals: Vec<WalTotals>,
    ) -> Result<Self> {
        let paths = |jobs: &Vec<Job>| jobs.iter().map(|job| job.to.clone()).collect();
        let waiting = jobs.iter().map(|parts| parts.iter().map(paths).collect()).collect();
        let spec = spec(layout, staging, Vec::new(), plan.two_phase())?;
        let describing = describing.staged(staging)?;
        Ok(Self { plan: plan.clone(), describing, spec, waiting, totals })
    }

    /// Recovers the copy stage by stage.
    pub fn perform(&self) -> Result<()> {
        for (index, (ingestion, waiting)) in self.plan.ingestions.iter().zip(&self.waiting).enumerate() {
            self.recover(ingestion.sequence, |opened| ingest_unnumbered(opened, ingestion, waiting))?;
            self.begin_stage(index + 1, ingestion, waiting)?;
        }
        self.recover(self.plan.position.sequence, |_| Ok(()))
    }

    fn recover(&self, expected: SequenceNumber, also: impl FnOnce(&Opened) -> Result<()>) -> Result<()> {
        let manifest = current_manifest(&self.spec.directory)?;
        let spec = OpenSpec { families: self.describing.families(&manifest.model), ..self.spec.clone() };
        recover(&spec, expected, also)
    }

    /// The copy is closed, and holds everything before `ingestion` and its files without a number.
    fn begin_stage(&self, stage: usize, ingestion: &PlannedIngestion, waiting: &[Vec<PathBuf>]) -> Result<()> {
        let mut manifest = current_manifest(&self.spec.directory)?;
        for (part, waiting) in ingestion.parts.iter().zip(waiting) {
            name_numbered(&mut manifest, ingestion, part, waiting)?;
        }
        let until = self.plan.ingestions.get(stage).map(|next| next.manifest);
        let edits: Vec<_> = self
            .plan
            .column_families
            .iter()
            .filter(|edit| ingestion.manifest < edit.manifest && until.is_none_or(|until| edit.manifest < until))
            .cloned()
            .collect();
        let unused = manifest.model.next_file_number().unwrap_or_default().get();
        let from = stages::directory(&self.spec.wal, stage);
        let wals = wals(&from)?;
        // Numbers keep their distances, so that a column family's first WAL can be moved as they are.
        let first = wals.iter().copied().chain(edits.iter().filter_map(super::manifest::log_number)).min();
        let shift = first.map_or(0, |first| unused.saturating_sub(first.get()));
        manifest.append_families(&edits, shift)?;
        let totals = self.totals.get(stage).copied().unwrap_or_default();
        let expected = self.plan.ingestions.get(stage).map_or(self.plan.position.sequence, |next| next.sequence);
        let newest = manifest.model.live_files().map(|(_, _, file)| file.largest_seqno).max().unwrap_or_default();
        manifest.settle_sequence(expected, totals.last_sequence, newest)?;
        replace_manifest(&self.spec.directory, &manifest)?;
        for number in wals {
            let moved = FileNumber::new(number.get().saturating_add(shift));
            let (old, new) = (from.join(file_name::wal(number)), self.spec.wal.join(file_name::wal(moved)));
            if new.exists() {
                return Err(Error::new(Code::Internal, "moving a stage's WAL to").on(new.display()));
            }
            fs::rename(&old, &new).map_err(|e| io("renaming", &old, e))?;
        }
        fs::remove_dir(&from).map_err(|e| io("removing", &from, e))?;
        sync_directory(&self.spec.wal)
    }
}

/// The WALs in a stage's directory.
fn wals(directory: &Path) -> Result<Vec<FileNumber>> {
    let numbers = names(directory)?.into_iter().filter_map(|name| match file_name::parse(&name) {
        Some(FileKind::Wal(number)) => Some(number),
        _ => None,
    });
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Files that had no number in the source: RocksDB itself tells that they overlap nothing.
fn ingest_unnumbered(opened: &Opened, ingestion: &PlannedIngestion, waiting: &[Vec<PathBuf>]) -> Result<()> {
    for (part, waiting) in ingestion.parts.iter().zip(waiting) {
        let payload = part.payload().ok_or_else(|| malformed(ingestion))?;
        let edit = VersionEdit::decode(&payload).map_err(|e| malformed(ingestion).because(e))?;
        for (new, path) in edit.new_files.iter().zip(waiting).filter(|(new, _)| new.largest_seqno.get() == 0) {
            let keys = (new.smallest.user_key(), new.largest.user_key());
            opened
                .ingest_without_number(part.column_family, path, keys)
                .map_err(|e| e.with("MANIFEST", ingestion.manifest.file).with("offset", ingestion.manifest.offset))?;
        }
    }
    Ok(())
}

/// Files that had a number keep it: named at level 0, above everything that is there.
fn name_numbered(
    manifest: &mut Manifest,
    ingestion: &PlannedIngestion,
    part: &IngestedPart,
    waiting: &[PathBuf],
) -> Result<()> {
    let payload = part.payload().ok_or_else(|| malformed(ingestion))?;
    let edit = VersionEdit::decode(&payload).map_err(|e| malformed(ingestion).because(e))?;
    let family = manifest.model.column_family(part.column_family).ok_or_else(|| malformed(ingestion))?;
    // Epochs order files of level 0. The smallest one means "below everything" where that is allowed.
    let mut epoch = family.files.values().filter_map(|file| file.epoch_number).max().unwrap_or_default().max(1);
    let newest = family.files.values().map(|file| file.largest_seqno).max().unwrap_or_default();
    let mut next = manifest.model.next_file_number().unwrap_or_default();
    let mut numbered: Vec<_> =
        edit.new_files.iter().zip(waiting).filter(|(new, _)| new.largest_seqno.get() > 0).collect();
    numbered.sort_by_key(|(new, _)| new.largest_seqno);
    let mut named = VersionEdit { column_family: part.column_family, ..VersionEdit::default() };
    for (new, path) in numbered {
        if new.largest_seqno <= newest {
            return Err(Error::new(Code::IngestionDiffers, "naming the ingested file")
                .on(new.number)
                .with("its sequence number", new.largest_seqno)
                .with("the copy's files reach", newest));
        }
        epoch += 1;
        let number = next;
        next = number.next().ok_or_else(|| malformed(ingestion))?;
        let place = path.with_file_name(file_name::sst(number));
        fs::rename(path, &place).map_err(|e| io("renaming", path, e))?;
        sync_directory(place.parent().unwrap_or(&place))?;
        let last = named.last_sequence.unwrap_or_else(|| manifest.model.last_sequence());
        named.last_sequence = Some(last.max(new.largest_seqno));
        named.next_file_number = Some(next);
        named.new_files.push(NewFile {
            level: 0,
            number,
            epoch_number: Some(epoch),
            min_log_number_to_keep: None,
            ..new.clone()
        });
    }
    if named.new_files.is_empty() {
        return Ok(());
    }
    manifest.append(&named)
}
