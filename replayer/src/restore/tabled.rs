//! The records of a restore as table files, instead of WALs.
//!
//! Owns: which column families that concerns, where their files go, and the numbers they get. How tables are made is
//! [`crate::bulk`]'s.

use std::path::PathBuf;

use pitr_archive::{
    Code, Error, Result,
    error::io,
    ids::{FileNumber, RecordNumber, SequenceNumber},
    rocks::transactions::Transactions,
    segment::entry::Record,
};

use super::{
    manifest::Manifest,
    paths::Layout,
    resume::Reached,
    sequences::Sequences,
    small_files::SmallFiles,
    staging::{Staging, sync_directory},
    wal::{WalFiles, WalTotals},
};
use crate::{
    bulk::{
        noted::Notes,
        order::KeyOrder,
        place::{self, Behind},
        sink::{Limits, Sink},
        tables::{Below, Family, TableFile},
    },
    finish::FamilySpec,
    plan::RestorePlan,
};

/// Where what is sorted waits, below the staged database.
const SORTED: &str = "pitr-sorted";

/// Records on their way into tables.
pub(crate) struct Tabled {
    sink: Sink,
    sequences: Sequences,
    records: u64,
    /// The first number that no file has.
    free: FileNumber,
    /// Where the log goes that the database begins with.
    wals: PathBuf,
    sorted: PathBuf,
    directories: Vec<PathBuf>,
}

/// Tables that are not in the MANIFEST yet.
pub(crate) struct Written {
    families: Vec<Family>,
    files: Vec<TableFile>,
    log: FileNumber,
    sorted: PathBuf,
    /// What was replayed.
    pub totals: WalTotals,
}

impl Tabled {
    /// For the database that `small` describes.
    pub fn new(plan: &RestorePlan, small: &SmallFiles, layout: &Layout, staging: &Staging) -> Result<Self> {
        let model = &small.manifest().model;
        let mut families = Vec::new();
        for spec in &small.families {
            let own = model.live_files().filter(|(id, ..)| *id == spec.id);
            let top = own.map(|(_, _, file)| file.level).min();
            if let Some(why) = small.describing.unfit_for_tables(spec) {
                return Err(Error::new(Code::EngineUnusable, "replaying into tables")
                    .with("column family", &spec.name)
                    .with("why not", why)
                    .hint("--engine native replays the log"));
            }
            let family = family(spec, top, layout, staging)?;
            let log = model.column_family(spec.id).map(|family| family.log_number).unwrap_or_default();
            families.push((family, log));
        }
        let sorted = staging.path(&layout.db)?.join(SORTED);
        let notes = Notes { sorted, of: sorted_of(plan, &families), staging: staging.notes()?.to_owned() };
        let logs = plan.wals.iter().map(|wal| wal.number).max().unwrap_or_default();
        let tables = model.live_files().map(|(_, number, _)| number).max().unwrap_or_default();
        let needed = model.column_families().values().map(|family| family.log_number).max().unwrap_or_default();
        let blobs = model.live_blob_files().map(|(_, number, _)| number).max().unwrap_or_default();
        let highest = logs.max(tables).max(needed).max(blobs).max(model.file()).next().unwrap_or_default();
        let directories = families.iter().map(|(family, _)| family.directory.clone()).collect();
        Ok(Self {
            sorted: notes.sorted.clone(),
            sink: Sink::new(Limits::default(), families, notes)?,
            sequences: Sequences::new(plan.write_policy),
            records: 0,
            free: highest.max(model.next_file_number().unwrap_or_default()),
            wals: staging.path(&layout.wal)?,
            directories,
        })
    }

    /// Begins behind what an interrupted restore has sorted; answers where the log goes on, if that is not at its beginning.
    pub fn go_on(&mut self) -> Option<Reached> {
        let reached = self.sink.go_on()?;
        self.sequences.go_on(&reached);
        self.records = reached.totals.records;
        Some(reached)
    }

    /// The files that it goes on with.
    pub fn files(&self) -> Vec<PathBuf> {
        self.sink.files()
    }

    /// Makes the directory for what is sorted.
    pub fn make_directory(&self) -> Result<()> {
        std::fs::create_dir_all(&self.sorted).map_err(|e| io("creating", &self.sorted, e))
    }

    /// Whether a run should end before the next record.
    pub fn is_full(&self) -> bool {
        self.sink.is_full()
    }

    /// What is known behind the records until now.
    pub fn state(&self) -> (Transactions, WalTotals) {
        (self.sequences.transactions.clone(), self.totals())
    }

    /// Ends a run; it is noted when it is on disk.
    pub fn end_run(&mut self, reached: Reached) -> Result<()> {
        self.sink.end_run(reached)
    }

    fn totals(&self) -> WalTotals {
        WalTotals { records: self.records, last_sequence: self.sequences.latest, ..WalTotals::default() }
    }

    /// The next record.
    pub fn record(&mut self, number: RecordNumber, record: &Record) -> Result<()> {
        self.sequences.pass(number, record)?;
        self.records += 1;
        self.sink.record(number, record)
    }

    /// Writes the tables, durable with their names, and the empty log that the database begins with.
    pub fn finish(self) -> Result<Written> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let totals = self.totals();
        let (families, files, log) = self.sink.finish(self.free, threads)?;
        for directory in &self.directories {
            sync_directory(directory)?;
        }
        WalFiles::new(&self.wals, &[], None).finish(log)?;
        Ok(Written { families, files, log, sorted: self.sorted, totals })
    }
}

impl Written {
    /// How many tables, and their bytes.
    pub fn tables(&self) -> (usize, u64) {
        (self.files.len(), self.files.iter().map(|file| file.bytes).sum())
    }

    /// Removes what was sorted. Only when the notes of it are gone: they would tell of what is not there.
    pub fn remove_sorted(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.sorted).map_err(|e| io("removing", &self.sorted, e))
    }

    /// Makes the tables the database's.
    pub fn place(&self, manifest: &mut Manifest, sequence: SequenceNumber) -> Result<()> {
        let out_of_numbers = || Error::new(Code::ManifestCorrupt, "numbering the copy's files").on(self.log);
        let next_file = self.log.next().ok_or_else(out_of_numbers)?;
        let behind = Behind { sequence, log: self.log, next_file };
        place::place(manifest, &self.families, &self.files, behind)
    }
}

fn family(spec: &FamilySpec, top: Option<u32>, layout: &Layout, staging: &Staging) -> Result<Family> {
    let order = KeyOrder::of(&spec.comparator).ok_or_else(|| {
        Error::new(Code::EngineUnusable, "replaying into tables")
            .with("column family", &spec.name)
            .with("comparator", &spec.comparator)
            .hint("--engine native leaves recovery to the server, which has it")
    })?;
    let directory = staging.path(layout.directory(spec.id, 0)?)?;
    let below = if top.is_some() { Below::Files } else { Below::Nothing };
    let levels = spec.levels.and_then(|levels| u32::try_from(levels).ok());
    Ok(Family { spec: spec.clone(), order, directory, below, level: place::level(levels, top) })
}

/// All that decides what is sorted, and how: what was sorted by other rules is not gone on with.
fn sorted_of(plan: &RestorePlan, families: &[(Family, FileNumber)]) -> String {
    let families: Vec<_> =
        families.iter().map(|(family, log)| (family.spec.id, family.order, family.below, *log)).collect();
    let base = &plan.base;
    let records = (base.first_record, base.first_hash, &plan.withdrawn, plan.write_policy);
    blake3::hash(format!("{families:?} {records:?}").as_bytes()).to_hex().to_string()
}
