//! The records of a restore as table files, instead of WALs.
//!
//! Owns: which column families that concerns, where their files go, and the numbers they get. How tables are made is
//! [`crate::bulk`]'s.

use pitr_archive::{
    Code, Error, Result,
    error::io,
    ids::{FileNumber, RecordNumber, SequenceNumber},
    segment::entry::Record,
};

use super::{
    manifest::Manifest,
    paths::Layout,
    sequences::Sequences,
    small_files::SmallFiles,
    staging::{Staging, sync_directory},
    wal::{WalFiles, WalTotals},
};
use crate::{
    bulk::{
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
    wals: std::path::PathBuf,
    sorted: std::path::PathBuf,
    directories: Vec<std::path::PathBuf>,
}

/// Tables that are not in the MANIFEST yet.
pub(crate) struct Written {
    families: Vec<Family>,
    files: Vec<TableFile>,
    log: FileNumber,
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
        std::fs::create_dir(&sorted).map_err(|e| io("creating", &sorted, e))?;
        let logs = plan.wals.iter().map(|wal| wal.number).max().unwrap_or_default();
        let tables = model.live_files().map(|(_, number, _)| number).max().unwrap_or_default();
        let needed = model.column_families().values().map(|family| family.log_number).max().unwrap_or_default();
        let blobs = model.live_blob_files().map(|(_, number, _)| number).max().unwrap_or_default();
        let highest = logs.max(tables).max(needed).max(blobs).max(model.file()).next().unwrap_or_default();
        let directories = families.iter().map(|(family, _)| family.directory.clone()).collect();
        Ok(Self {
            sink: Sink::new(Limits::default(), families, sorted.clone())?,
            sequences: Sequences::new(plan.write_policy),
            records: 0,
            free: highest.max(model.next_file_number().unwrap_or_default()),
            wals: staging.path(&layout.wal)?,
            sorted,
            directories,
        })
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
        let (families, files, log) = self.sink.finish(self.free, threads)?;
        std::fs::remove_dir(&self.sorted).map_err(|e| io("removing", &self.sorted, e))?;
        for directory in &self.directories {
            sync_directory(directory)?;
        }
        WalFiles::new(&self.wals, &[], None).finish(log)?;
        let totals = WalTotals { records: self.records, last_sequence: self.sequences.latest, ..WalTotals::default() };
        Ok(Written { families, files, log, totals })
    }
}

impl Written {
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
