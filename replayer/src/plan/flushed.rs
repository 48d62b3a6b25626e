//! Flushes whose files are in the archive spare replay what they hold.
//!
//! Owns: how far they can be followed from a base on, for one target. RocksDB names with each flush the log that the column
//! family needs from then on: everything older is in files. So a flush may be laid down where every record of the older logs
//! lies before the target, and the flush before it (of whatever column family) is in the base or laid down as well. The first
//! one for which that does not hold ends the chain, and from there on the log is replayed.
//! Refuses: nothing. Where no flush can be used the plan is the one without them, and says why.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use pitr_archive::{
    Error, Result,
    catalog::schema::{BaseDocument, BaseFile},
    ids::{Boundary, ColumnFamilyId, FileNumber, Ordinals, RunningHash, SequenceNumber, TimelineId},
    object_key::ObjectKey,
    rocks::file_name,
    segment::entry::{CapturedFile, ColumnFamilyChange, ManifestPoint},
};
use serde::Serialize;

use super::{
    ColumnFamilyEdit, RestorePlan, edit, facts,
    source::Source,
    stream::{Flush, Place, Run, Stream},
};
use crate::restore::manifest::log_number;

/// A flush that is laid down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedFlush {
    /// The column family.
    pub column_family: ColumnFamilyId,
    /// Where in the source's MANIFEST it was.
    pub manifest: ManifestPoint,
    /// The VersionEdit as archived, base64.
    pub edit: String,
    /// Its files, in the edit's order.
    pub files: Vec<CapturedFile>,
    /// The largest sequence number in them.
    pub largest_sequence: SequenceNumber,
    /// The segment that names them.
    #[serde(skip)]
    pub told_in: (TimelineId, Ordinals),
    /// Index into the paths of the column family, of each file.
    #[serde(skip)]
    path_ids: Vec<u32>,
}

impl PlannedFlush {
    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Its files as those of a base.
    pub(crate) fn base_files(&self) -> impl Iterator<Item = BaseFile> {
        self.files.iter().zip(&self.path_ids).map(|(file, path_id)| BaseFile {
            name: file_name::sst(file.number),
            column_family: self.column_family,
            path_id: *path_id,
            size: file.size,
            hash: file.hash,
            object: file.object.clone(),
            epoch: file.epoch,
        })
    }
}

/// A base with the flushes behind it.
#[derive(Debug)]
pub(crate) struct Advanced {
    pub flushes: Vec<PlannedFlush>,
    /// The first log that is still replayed, and where its records begin.
    pub first_wal: FileNumber,
    pub first_record: Boundary,
    pub first_hash: RunningHash,
}

impl Advanced {
    /// The flushes, and the base as replay sees it behind them.
    pub fn on(self, base: &BaseDocument) -> (Vec<PlannedFlush>, Cow<'static, BaseDocument>) {
        let Self { flushes, first_wal, first_record, first_hash } = self;
        (flushes, Cow::Owned(BaseDocument { first_wal, first_record, first_hash, ..base.clone() }))
    }
}

/// A base with a plan's flushes: what is laid down, and where replay begins.
pub(crate) fn laid_on(base: BaseDocument, plan: &RestorePlan) -> BaseDocument {
    let mut files = base.files;
    files.extend(plan.flushes.iter().flat_map(PlannedFlush::base_files));
    let largest = plan.flushes.iter().map(|flush| flush.largest_sequence).max().unwrap_or_default();
    BaseDocument {
        files,
        max_file_sequence: base.max_file_sequence.max(largest),
        first_wal: plan.base.first_wal,
        first_record: plan.base.first_record,
        first_hash: plan.base.first_hash,
        ..base
    }
}

/// What a lost or damaged file of a flush held is in the log, too: says so.
pub(crate) fn advise(flushes: &[PlannedFlush], e: Error) -> Error {
    let mut files = flushes.iter().flat_map(|flush| &flush.files);
    match e.object().is_some_and(|object| files.any(|file| ObjectKey::file(&file.object).as_str() == object)) {
        true => e.hint("it is a flush's, and the log holds the same: restore with --engine native"),
        false => e,
    }
}

/// So many are asked for at a time whether their files are there.
const ASKED_AT_ONCE: usize = 16;

/// What a flush's edit says.
struct Said {
    log_number: FileNumber,
    largest: SequenceNumber,
    path_ids: Vec<u32>,
}

fn read(flush: &Flush) -> Option<Said> {
    edit::look(&flush.edit, |edit| {
        let named = edit.new_files.iter().map(|file| (file.number, file.file_size));
        let shipped = flush.files.iter().map(|file| (file.number, file.size));
        let this = edit.column_family == flush.column_family && named.eq(shipped);
        Some(Said {
            log_number: edit.lone_flush().ok().filter(|_| this)?,
            largest: edit.new_files.iter().map(|file| file.largest_seqno).max().unwrap_or_default(),
            path_ids: edit.new_files.iter().map(|file| file.path_id.into()).collect(),
        })
    })
}

/// Where the records of logs from `wal` on begin; `None` where none is known.
fn begins(stream: &Stream, run: Run, from: Boundary, wal: FileNumber) -> Option<Boundary> {
    let spans = stream.pieces.iter().filter(|piece| piece.end.boundary > from).flat_map(|piece| &piece.summary.wals);
    let behind = |first: &Boundary| {
        *first >= from && stream.in_run(run, Place::before_events(Boundary::new(first.get().saturating_add(1))))
    };
    spans.filter(|span| span.wal >= wal).map(|span| span.first).find(behind)
}

/// How far the flushes behind `base` lead towards `place`. `families` are the column family edits on the way there.
pub(crate) async fn advance(
    stream: &Stream,
    source: &dyn Source,
    run: Run,
    base: &BaseDocument,
    families: &[ColumnFamilyEdit],
    place: (Place, SequenceNumber),
) -> Result<Option<Advanced>> {
    let mut before = None;
    loop {
        let Some(found) = follow(stream, source, run, base, families, place, before).await? else { return Ok(None) };
        // A file can be lost, or have been deleted before its event came at the end of a long outage: the log holds the same.
        match first_missing(source, &found.flushes).await? {
            None => return Ok(Some(found)),
            Some(missing) => before = Some(missing),
        }
    }
}

/// The first flush of which the archive has not every file.
async fn first_missing(source: &dyn Source, flushes: &[PlannedFlush]) -> Result<Option<ManifestPoint>> {
    let has = |flush: &PlannedFlush| {
        let (manifest, files) = (flush.manifest, flush.files.clone());
        async move {
            for file in &files {
                if !source.has(file).await? {
                    return Ok::<_, Error>(Some(manifest));
                }
            }
            Ok(None)
        }
    };
    let asked: Vec<_> = flushes.iter().map(|flush| has(flush).boxed()).collect();
    let mut answers = futures::stream::iter(asked).buffered(ASKED_AT_ONCE);
    while let Some(answer) = answers.try_next().await? {
        if answer.is_some() {
            return Ok(answer);
        }
    }
    Ok(None)
}

/// The same with flushes before a MANIFEST record only.
async fn follow(
    stream: &Stream,
    source: &dyn Source,
    run: Run,
    base: &BaseDocument,
    families: &[ColumnFamilyEdit],
    (place, sequence): (Place, SequenceNumber),
    before: Option<ManifestPoint>,
) -> Result<Option<Advanced>> {
    let mut logs: BTreeMap<ColumnFamilyId, FileNumber> =
        base.column_families.iter().map(|family| (family.id, family.log_number)).collect();
    let mut families = families.iter().peekable();
    let mut end = base.manifest;
    let mut flushes = Vec::new();
    let usable = |flush: &&Flush| flush.manifest > base.manifest && before.is_none_or(|before| flush.manifest < before);
    for flush in stream.flushes_of(run).into_iter().filter(usable) {
        while let Some(edit) = families.next_if(|edit| edit.manifest < flush.manifest) {
            apply(&mut logs, edit);
        }
        let Some(said) = read(flush) else { break };
        let reaches = begins(stream, run, base.first_record, said.log_number).is_some_and(|at| at <= place.boundary);
        // The same one can have been told twice, by an archiver that went on from an older state.
        if flush.manifest == end {
            continue;
        }
        // Of a younger one nobody knows whether a filter drops keys while it is flushed.
        let known = base.column_families.iter().any(|family| family.id == flush.column_family);
        let joins = reaches && known && flush.previous <= end && said.largest <= sequence;
        let Some(log) = logs.get_mut(&flush.column_family).filter(|_| joins) else { break };
        *log = said.log_number.max(*log);
        // At an open RocksDB says it behind the first of several flushes of what it recovered, for all of them; those name the
        // number behind the last log, which no log ever has.
        let of_a_log = |wal| stream.pieces.iter().flat_map(|piece| &piece.summary.wals).any(|span| span.wal == wal);
        if let Some(needed) = flush.first_wal_needed.filter(|_| of_a_log(said.log_number)) {
            // Of a column family that was dropped before the flush, however long after the target, it does not speak.
            let dropped = dropped_before(stream, run, flush.manifest);
            let others = logs.iter_mut().filter(|(id, _)| !dropped.contains(id));
            others.for_each(|(_, log)| *log = needed.max(*log));
        }
        end = flush.manifest;
        flushes.push(PlannedFlush {
            column_family: flush.column_family,
            manifest: flush.manifest,
            edit: flush.edit.clone(),
            files: flush.files.clone(),
            largest_sequence: said.largest,
            told_in: flush.told_in,
            path_ids: said.path_ids,
        });
    }
    families.for_each(|edit| apply(&mut logs, edit));
    let first_wal = logs.into_values().min().unwrap_or_default();
    if flushes.is_empty() || first_wal <= base.first_wal {
        return Ok(None);
    }
    let Some(first_record) = begins(stream, run, base.first_record, first_wal).filter(|at| *at <= place.boundary)
    else {
        return Ok(None);
    };
    let hashes = facts::hashes_at(stream, source, first_record).await?;
    let Some((_, first_hash)) = hashes.first().copied() else { return Ok(None) };
    Ok(Some(Advanced { flushes, first_wal, first_record, first_hash }))
}

fn dropped_before(stream: &Stream, run: Run, manifest: ManifestPoint) -> BTreeSet<ColumnFamilyId> {
    let drops = stream.families_of(run).filter(|event| event.change == ColumnFamilyChange::Dropped);
    drops.filter(|event| event.manifest < manifest).map(|event| event.id).collect()
}

fn apply(logs: &mut BTreeMap<ColumnFamilyId, FileNumber>, edit: &ColumnFamilyEdit) {
    match edit.change {
        ColumnFamilyChange::Added => logs.insert(edit.id, log_number(edit).unwrap_or_default()),
        ColumnFamilyChange::Dropped => logs.remove(&edit.id),
    };
}
