//! Performs a plan: fetch, lay down, check, rename.
//!
//! Owns: the order of effects. (1) Everything that can be refused is refused before anything is touched. (2) A staging
//! directory beside the destination is filled, every byte verified. (3) Files, then directories are made durable.
//! (4) The staging directory is renamed to the destination, or exchanged with it ([`crate::in_place`]), and the directory
//! above it made durable. An interruption, or an error that passes, leaves the staging directory and nothing else; the same
//! restore goes on with it (`resume`), another one with files that both need. An error that stays removes it, but for one: when
//! the recovered database has another sequence number than planned, the copy is kept there for whoever looks into it.
//! Refuses: destinations that hold anything; paths of the source that nobody mapped.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use pitr_archive::{
    Code, Error, Result,
    catalog::{archive::Archive, schema::BaseDocument},
    clock::Micros,
    ids::{BaseId, Nonce, SequenceNumber},
    object_key::ObjectKey,
};
use serde::Serialize;

use crate::{
    crash,
    group::journal::Journal,
    in_place::Present,
    owner::Owner,
    path_text,
    plan::{Note, PlannedPosition, RestorePlan, archive_source::FromArchive, flushed::laid_on},
    progress::{Phase, Progress},
};

pub(crate) mod begun;
pub(crate) mod checked_json;
pub(crate) mod files;
pub(crate) mod frames;
pub(crate) mod ingest;
pub(crate) mod manifest;
pub(crate) mod options;
pub(crate) mod paths;
pub(crate) mod recover;
pub(crate) mod replay;
pub(crate) mod resume;
pub(crate) mod sequences;
pub(crate) mod small_files;
pub(crate) mod space;
pub(crate) mod stages;
pub(crate) mod staging;
pub(crate) mod steps;
pub(crate) mod tabled;
pub(crate) mod throwaway;
pub(crate) mod wal;
pub(crate) mod wal_disk;

use files::{GiveUp, Job, blocking};
use ingest::Repeating;
use paths::Layout;
use replay::Replayed;
use resume::{Found, Key};
use small_files::SmallFiles;
use staging::Staging;
use wal::WalTotals;

/// How to restore.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The directory that the database shall be in.
    pub into: PathBuf,
    /// What may be there.
    pub destination: Destination,
    /// To whom the files shall belong.
    pub owner: Option<Owner>,
    /// Where directories of the source outside its database directory go.
    pub map_paths: Vec<PathMap>,
    /// Who recovers the restored database.
    pub finish: Finish,
    /// A random id for the marker file that tells an archiver where this copy comes from.
    pub marker: Nonce,
    /// The present time, for the marker file.
    pub now: Micros,
    /// Files laid down at once.
    pub workers: usize,
}

impl RestoreOptions {
    /// Into `into`, owner unchanged, no paths mapped, recovery left to the server. `marker` must be random.
    pub fn new(into: impl Into<PathBuf>, marker: Nonce, now: Micros) -> Self {
        Self {
            into: into.into(),
            destination: Destination::New,
            owner: None,
            map_paths: Vec::new(),
            finish: Finish::Leave,
            marker,
            now,
            workers: 4,
        }
    }
}

/// What may be where a database is restored to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// Nothing, or an empty directory.
    #[default]
    New,
    /// The present database. It is set aside ([`crate::in_place`]).
    InPlace,
}

/// `--map-path OLD=NEW`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMap {
    /// A directory of the source, as its OPTIONS name it, or one above it.
    pub old: String,
    /// Where it goes; absolute.
    pub new: PathBuf,
}

/// Who runs RocksDB's recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finish {
    /// The server, when it opens the restored directory. Nothing is opened here.
    #[default]
    Leave,
    /// This process, in AbsoluteConsistency mode, before the directory gets its final name.
    Recover,
}

/// What a restore did. `.position.{timeline,record,wal,sequence}` is where it arrived.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreReport {
    /// The restored directory.
    #[serde(serialize_with = "path_text::shown")]
    pub into: PathBuf,
    /// Where it arrived.
    pub position: PlannedPosition,
    /// The base.
    pub base: BaseId,
    /// The random id in the marker file.
    pub marker: Nonce,
    /// SST and blob files laid down.
    pub files: usize,
    /// Their bytes.
    pub file_bytes: u64,
    /// How many of them an interrupted restore had laid down already.
    pub reused_file_bytes: u64,
    /// Records that it had replayed already: in logs that are complete, or sorted on disk.
    pub reused_records: u64,
    /// Records written.
    pub records: u64,
    /// Bytes of the WAL files written.
    pub wal_bytes: u64,
    /// Table files made of the records, instead.
    pub tables: usize,
    /// Their bytes.
    pub table_bytes: u64,
    /// RocksDB recovered it here and reported the planned sequence number.
    pub recovered: bool,
    /// Where the database is that was there before, its own directory first; in place only.
    #[serde(serialize_with = "path_text::all_shown", skip_serializing_if = "Vec::is_empty")]
    pub aside: Vec<PathBuf>,
    /// What lay in its directory, is not RocksDB's and did not come along.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<String>,
    /// The plan's notes.
    pub notes: Vec<Note>,
}

/// Performs a plan.
///
/// # Errors
/// Before anything is touched: `restore.destination-not-empty`, `restore.foreign-path`, `restore.no-space`,
/// `rocksdb.unsupported` (finishing here with a comparator or merge operator that this library lacks, or with another
/// write policy than WriteCommitted). On the way: whatever is missing or damaged, by its own code; what passes leaves the staging
/// directory, and nothing else is left behind.
pub async fn restore(
    archive: &Archive,
    plan: &RestorePlan,
    options: &RestoreOptions,
    progress: Arc<dyn Progress>,
) -> Result<RestoreReport> {
    let restored = restore_with(archive, plan, options, progress.clone()).await;
    match restored {
        Err(e) if may_be_replayed(plan, &e) => {
            say_replayed(&e);
            restore_with(archive, &plan.replayed(), options, progress).await
        }
        restored => restored,
    }
}

/// Whether tables that nobody asked for cannot be made, and the log might do: it needs less of the disk, too. What stands
/// against them is known before, as far as summaries of segments tell.
pub(crate) fn may_be_replayed(plan: &RestorePlan, e: &Error) -> bool {
    let of_tables = matches!(e.code(), Code::EngineUnusable | Code::DestinationTooSmall | Code::DiskFull);
    of_tables && plan.may_be_replayed_instead()
}

/// Tells the operator why the plan's tables are not made.
pub(crate) fn say_replayed(e: &Error) {
    tracing::warn!("no tables can be made of the log, which is replayed instead: {e}");
}

async fn restore_with(
    archive: &Archive,
    plan: &RestorePlan,
    options: &RestoreOptions,
    progress: Arc<dyn Progress>,
) -> Result<RestoreReport> {
    let checked = steps::check(archive, plan, options, &Journal::default()).await?;
    checked.needs()?.refuse_too_large()?;
    checked.prepare(progress).await?.publish()
}

/// Directories that must not change their names, before anything is locked.
fn refuse_unfit_places(archive: &Archive, layout: &Layout, outermost: &[&Path], into: &Path) -> Result<()> {
    let refused = |place: &Path| Error::new(Code::CannotSwap, "replacing").on(place.display());
    if outermost.first().is_none_or(|first| *first != into) {
        return Err(refused(into).with("it lies in", "another directory of the database"));
    }
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    for place in outermost {
        if archive.store().local_path().is_some_and(|root| real(root).starts_with(real(place))) {
            return Err(refused(place).with("it holds", "the archive"));
        }
    }
    for inner in layout.directories() {
        let Some(outer) = outermost.iter().find(|outer| inner != **outer && inner.starts_with(outer)) else { continue };
        let device = |path: &Path| std::fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.is_dir()));
        if let (Some((own, is_dir)), Some((above, _))) = (device(inner), device(outer))
            && (own != above || !is_dir)
        {
            return Err(refused(inner).with("it is", "a link or a mount point inside the database's directory"));
        }
    }
    Ok(())
}

/// What an interrupted restore had done already.
#[derive(Clone, Copy, Debug, Default)]
struct Reused {
    file_bytes: u64,
    records: u64,
}

/// What was made of the records, and what was there already. Tables: how many, and their bytes.
struct Filled {
    totals: WalTotals,
    tables: (usize, u64),
    reused: Reused,
}

/// What a restore did.
#[derive(Debug, Default)]
struct Outcome {
    files: (usize, u64),
    reused: Reused,
    totals: WalTotals,
    tables: (usize, u64),
    aside: Vec<PathBuf>,
    left_behind: Vec<String>,
}

fn report(
    base: &BaseDocument,
    plan: &RestorePlan,
    options: &RestoreOptions,
    (into, finish): (PathBuf, Finish),
    outcome: Outcome,
) -> RestoreReport {
    RestoreReport {
        into,
        position: plan.position,
        base: base.id.clone(),
        marker: options.marker,
        files: outcome.files.0,
        file_bytes: outcome.files.1,
        reused_file_bytes: outcome.reused.file_bytes,
        reused_records: outcome.reused.records,
        records: outcome.totals.records,
        wal_bytes: outcome.totals.bytes,
        tables: outcome.tables.0,
        table_bytes: outcome.tables.1,
        recovered: finish == Finish::Recover,
        aside: outcome.aside,
        left_behind: outcome.left_behind,
        notes: plan.notes.clone(),
    }
}

/// Repeating an ingestion is recovering the copy up to it, and behind it.
fn finish_of(plan: &RestorePlan, options: &RestoreOptions) -> Finish {
    if plan.ingestions.is_empty() { options.finish } else { Finish::Recover }
}

/// The base that the plan was made with, with its flushes: the same name must still hold the same places.
pub(crate) async fn base_of(archive: &Archive, plan: &RestorePlan) -> Result<BaseDocument> {
    let planned = &plan.base;
    let base = archive
        .get_base(&planned.id)
        .await?
        .ok_or_else(|| Error::new(Code::ObjectMissing, "reading the base").on(ObjectKey::base(&planned.id)))?;
    // With flushes replay begins elsewhere, and the plan has compared both places with the archive.
    let begins = (base.first_record, base.first_hash) == (planned.first_record, planned.first_hash);
    if base.floor != planned.floor || (!begins && plan.flushes.is_empty()) {
        return Err(Error::new(Code::ChainBroken, "comparing the base with the plan").on(&planned.id));
    }
    Ok(laid_on(base, plan))
}

struct Work<'a> {
    archive: &'a Archive,
    plan: &'a RestorePlan,
    base: &'a BaseDocument,
    layout: &'a Layout,
    staging: &'a Staging,
    key: &'a Key,
    found: Found,
    options: &'a RestoreOptions,
    present: Option<&'a Present>,
    progress: Arc<dyn Progress>,
}

impl Work<'_> {
    /// Everything between the first and the last effect that anybody else could see.
    async fn fill(&self, mut small: SmallFiles) -> Result<Filled> {
        crash::point("restore-staged");
        let source = FromArchive(self.archive);
        let mut jobs = self.jobs()?;
        let captured = ingest::jobs(self.plan, self.layout, self.staging)?;
        jobs.extend(captured.iter().flatten().flatten().cloned());
        let give_up = GiveUp::default();
        let begun = begun::find(self, &small, &jobs).await?;
        let records = begun.reached().map_or(0, |reached| reached.totals.records);
        let files = files::lay_down(&source, jobs, self.options.workers, self.found, &give_up, &*self.progress);
        let replayed = replay::replay(&source, self.plan, begun, &give_up, self.progress.clone());
        let (file_bytes, replayed) = match futures::join!(files, replayed) {
            (Ok(reused), Ok(replayed)) => (reused, replayed),
            // The one that failed first says why; the other only gave up.
            (Err(e), Err(other)) if e.code() == Code::Interrupted => return Err(other),
            (Err(e), _) | (_, Err(e)) => return Err(e),
        };
        crash::point("restore-records-written");
        self.staging.end_log(self.key)?;
        let (families, describing) = (small.families.clone(), small.describing.clone());
        let newest = self.base.max_file_sequence;
        let mut tables = (0, 0);
        let stages = match replayed {
            Replayed::Wals(stages) => stages,
            Replayed::Tables(written) => {
                written.remove_sorted()?;
                small.place(&written, self.plan.position.sequence)?;
                tables = written.tables();
                vec![written.totals]
            }
        };
        let latest = self.hide(&mut small).await?;
        let totals = WalTotals::sum(&stages);
        let last_sequence = stages.first().and_then(|first| first.last_sequence);
        let expected = self.plan.ingestions.first().map_or(self.plan.position.sequence, |first| first.sequence);
        let staged = self.staging.path(&self.layout.db)?;
        blocking({
            let staged = staged.clone();
            move || small.write(&staged, expected, last_sequence, newest)
        })
        .await?;
        crash::point("restore-small-files-written");
        if finish_of(self.plan, self.options) == Finish::Recover {
            crash::point("restore-before-recovery");
            self.progress.begin(Phase::Recovery, None);
            if self.plan.ingestions.is_empty() {
                let spec = recover::spec(self.layout, self.staging, families, self.plan.two_phase())?;
                blocking(move || recover::recover(&spec, latest.unwrap_or(expected), |_| Ok(()))).await?;
            } else {
                let repeating = Repeating::new(self.plan, self.layout, self.staging, describing, &captured, stages)?;
                blocking(move || repeating.perform()).await?;
            }
            self.progress.end(Phase::Recovery);
            crash::point("restore-after-recovery");
        }
        // From here on nothing is: what is not durable yet must not be found, and nothing that belongs to somebody else.
        self.staging.end_resuming()?;
        let owner = self.options.owner.or_else(|| self.present.and_then(Present::owner));
        if let Some(owner) = owner {
            self.staging.give_to(owner)?;
        }
        Ok(Filled { totals, tables, reused: Reused { file_bytes, records } })
    }

    /// What the files of a part hold beside it is deleted by one more record, behind every other; answers the number that
    /// is the latest one then.
    async fn hide(&self, small: &mut SmallFiles) -> Result<Option<SequenceNumber>> {
        let hiding = small.taken.as_ref().map(|taken| taken.hiding(self.plan.position.sequence)).transpose()?;
        let Some((latest, batch)) = hiding.flatten() else { return Ok(None) };
        let log = small.one_more_log(self.plan.wals.iter().map(|wal| wal.number))?;
        let directory = self.staging.path(&self.layout.wal)?;
        blocking(move || wal::write_one(&directory, log, &batch)).await?;
        Ok(Some(latest))
    }

    fn jobs(&self) -> Result<Vec<Job>> {
        self.base
            .files
            .iter()
            .map(|file| {
                let plain = Path::new(&file.name).components().count() == 1 && !file.name.starts_with('.');
                if !plain {
                    return Err(Error::new(Code::ObjectDamaged, "reading the base's files").on(&file.name));
                }
                let directory = self.staging.path(self.layout.directory_of(file)?)?;
                Ok(Job { file: file.clone(), to: directory.join(&file.name) })
            })
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
