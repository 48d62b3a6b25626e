//! What `pitr check` finds out about a database, from its files alone.
//!
//! Owns: which settings matter, and the estimate of how long a restore of the log takes. Reads the OPTIONS, MANIFEST and
//! WAL files; makes one hard link out of the database's directories and removes it again.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use pitr_archive::{
    Code, Error, Result, error,
    ids::FileNumber,
    restore_marker,
    rocks::{
        built_in,
        describe::{Ending, ManifestDescriber, ManifestLine, Operations, WalDescriber, WalLine},
        file_name::{self, FileKind},
        log_reader::Finality,
        options_file::{ColumnFamilySettings, DbSettings},
    },
};
use pitr_archiver::{
    layout::Layout,
    pin::{self, Places},
};

use super::{Finding, flushes::Flushes};
use crate::{args::common::DatabaseArgs, context::state_dir, output::text};

/// RocksDB's recovery, measured on two cores: bytes of WAL and operations in a second.
const BYTES_PER_SECOND: f64 = 75e6;
const OPS_PER_SECOND: f64 = 1e6;
/// A WAL longer than this is estimated by its size instead of being read.
const MAX_READ: u64 = 512 << 20;

/// Looks at everything; gives the estimated seconds of a restore of the log.
pub fn check(args: &DatabaseArgs, findings: &mut Vec<Finding>) -> Result<Option<f64>> {
    let layout = match Layout::read(&args.db, &args.db_path) {
        Ok(layout) => layout,
        // A directory that is not there, or is no database, is a mistake in the command.
        Err(e) if matches!(e.code(), Code::FileNotFound | Code::NotADatabase) => return Err(e),
        Err(e) => {
            findings.push(Finding::failed("database.files", &e));
            return Ok(None);
        }
    };
    match layout.settings() {
        Some(settings) => {
            findings.push(Finding::ok(
                "database.version",
                format!("{} was written by RocksDB {}", layout.db.display(), settings.rocksdb_version),
            ));
            database_settings(settings, findings);
        }
        None => findings.push(Finding::warning(
            "database.options",
            "the database has no OPTIONS file: its settings cannot be seen",
            "open it once with a RocksDB that can write one",
        )),
    }
    if let Some(options) = &layout.options {
        for (name, family) in &options.families {
            family_settings(name, family, findings);
        }
    }
    always(findings);
    hard_links(&layout, args, findings);
    beside(&layout, findings);
    Ok(log(&layout, findings))
}

fn database_settings(s: &DbSettings, findings: &mut Vec<Finding>) {
    let on = |flag: Option<bool>| flag == Some(true);
    findings.push(match s.recycle_log_file_num {
        Some(n) if n > 0 => Finding::warning(
            "database.recycled-wals",
            format!("recycle_log_file_num is {n}: the server overwrites its old logs in place, so a hard link does not hold their bytes; pitr copies them while they are written, and a log that is overwritten before pitr has read it is lost"),
            "keep pitr running while the server runs; or set recycle_log_file_num to 0",
        ),
        _ => Finding::ok("database.recycled-wals", "logs are not recycled: a hard link holds them"),
    });
    findings.push(match on(s.manual_wal_flush) {
        true => Finding::warning(
            "database.manual-wal-flush",
            "manual_wal_flush is on: the server keeps committed writes in its own memory until it flushes its log, where nobody else can read them",
            "make the server call FlushWAL often (MyRocks: rocksdb_flush_log_at_trx_commit=1); a tag is refused unless --observed is given",
        ),
        false => Finding::ok("database.manual-wal-flush", "every committed write is in the log file at once"),
    });
    if on(s.allow_2pc) && on(s.enable_pipelined_write) {
        findings.push(Finding::warning(
            "database.two-phase-commit",
            "enable_pipelined_write is on: RocksDB itself then forgets which logs hold prepared transactions, deletes them at the next flush, and loses such transactions at its next open, committed or not; pitr refuses to replay prepared transactions of such a database",
            "turn enable_pipelined_write off: the database is at risk without pitr, too",
        ));
    } else if on(s.allow_2pc) {
        findings.push(Finding::ok(
            "database.two-phase-commit",
            "the server can prepare transactions: those that are pending at a restore's target are pending in the restored database, and whoever opens it decides them",
        ));
    }
    if on(s.two_write_queues) {
        findings.push(Finding::warning(
            "database.two-write-queues",
            "two_write_queues is on: with the write policies WritePrepared and WriteUnprepared, every write outside a prepared transaction is given a number that is not in the log, which looks like a write without the log; restores across one need a newer base (WriteCommitted is not concerned)",
            "use the policy WriteCommitted (MyRocks does), or turn two_write_queues off",
        ));
    }
    if s.wal_compression.as_deref().is_some_and(|c| c != "kNoCompression") {
        findings.push(Finding::ok("database.wal-compression", "the log is compressed; pitr reads it"));
    }
    if on(s.best_efforts_recovery) {
        findings.push(Finding::warning(
            "database.best-efforts-recovery",
            "best_efforts_recovery is on: at an open the server may go back to an older state without its logs",
            "turn it off; pitr would notice the loss and begin again with a new base",
        ));
    }
}

fn family_settings(name: &str, f: &ColumnFamilySettings, findings: &mut Vec<Finding>) {
    if let Some(filter) = f.compaction_filter.as_ref().or(f.compaction_filter_factory.as_ref()) {
        findings.push(Finding::warning(
            format!("database.compaction-filter/{name}"),
            format!("column family {name} has the compaction filter {filter}, which drops keys without writing that to the log: a restored copy can hold keys that the source has already dropped"),
            "nothing, if your server drops them again; take bases often to keep the difference small",
        ));
    }
    if f.compaction_style.as_deref() == Some("kCompactionStyleFIFO") {
        findings.push(Finding::warning(
            format!("database.fifo/{name}"),
            format!("column family {name} drops its oldest files by itself (FIFO), without writing that to the log: a restored copy can hold more"),
            "nothing, if your server drops them again",
        ));
    } else if f.ttl.is_some_and(|ttl| ttl > 0 && ttl < u64::from(u32::MAX)) && f.compaction_filter.is_some() {
        findings.push(Finding::info(
            format!("database.ttl/{name}"),
            format!("column family {name} has a time to live: expired keys leave without a record"),
        ));
    }
    if let Some(comparator) = f.comparator.as_deref().filter(|name| !built_in::has_comparator(name)) {
        findings.push(Finding::info(
            format!("database.comparator/{name}"),
            format!("column family {name} is ordered by the server's own comparator {comparator}: restored files are opened by the server, not by pitr (--finish is refused), and verify --deep compares structure only"),
        ));
    }
}

/// What no file tells.
fn always(findings: &mut Vec<Finding>) {
    findings.push(Finding::info(
        "database.disable-wal",
        "writes with disableWAL never reach the log and cannot be archived or seen; where sequence numbers show that there were some, pitr records a barrier and takes a new base",
    ));
    findings.push(Finding::info(
        "database.unsynced-writes",
        "whether writes are synced is decided write by write and cannot be seen: after a power cut the archive can hold acknowledged writes that the server lost; pitr notices, and nothing is overwritten",
    ));
}

/// Files that are not RocksDB's: a base carries them only when it is told to.
fn beside(layout: &Layout, findings: &mut Vec<Finding>) {
    let entries = match fs::read_dir(&layout.db) {
        Ok(entries) => entries,
        Err(e) => return findings.push(Finding::failed("database.other-files", &error::io("listing", &layout.db, e))),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| file_name::parse(name).is_none() && name != restore_marker::FILE_NAME)
        .collect();
    names.sort();
    let shown: Vec<_> = names.iter().take(5).map(String::as_str).collect();
    if let [first, ..] = shown.as_slice() {
        findings.push(Finding::warning(
            "database.other-files",
            format!(
                "{} in the database's directory not RocksDB's own: {}",
                text::count(names.len() as u64, "file"),
                shown.join(", ")
            ),
            format!("what a restored database needs of them, name to run and base: --include {first}"),
        ));
    }
}

/// Pins are hard links: each on the file system of its file.
fn hard_links(layout: &Layout, args: &DatabaseArgs, findings: &mut Vec<Finding>) {
    let state = state_dir(args);
    tried("database", &layout.db, &state, findings);
    if layout.wal_dir != layout.db {
        let (root, wal_pins) = (state.join("pins"), args.wal_pins.as_deref());
        match pin::wal_pins(Places {
            root: &root,
            db: &layout.db,
            wal_dir: &layout.wal_dir,
            wal_pins,
            archive_name: None,
        }) {
            Ok(place) => tried("wal_dir", &layout.wal_dir, &place, findings),
            Err(e) => findings.push(Finding::failed("database.hard-links/wal_dir", &e)),
        }
        findings.push(Finding::info(
            "database.wal-elsewhere",
            format!(
                "the log lies in {}: restore needs --map-path {}=NEW",
                layout.wal_dir.display(),
                layout.wal_dir.display()
            ),
        ));
    }
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    for dir in &layout.db_paths {
        if device(dir) == device(&layout.db) {
            tried("db_path", dir, &state, findings);
        } else {
            findings.push(Finding::info(
                "database.hard-links/db_path",
                format!(
                    "{} is on another file system: its files are held open while a base is uploaded",
                    dir.display()
                ),
            ));
        }
    }
}

fn tried(what: &str, dir: &Path, place: &Path, findings: &mut Vec<Finding>) {
    let id = format!("database.hard-links/{what}");
    findings.push(match link(dir, place) {
        Ok(None) => Finding::info(id, format!("{} has no file to try a hard link with yet", dir.display())),
        Ok(Some(())) => {
            Finding::ok(id, format!("files of {} can be hard-linked to {}", dir.display(), place.display()))
        }
        Err(e) => Finding::error(
            id,
            format!("files of {} cannot be hard-linked to {}: {e}", dir.display(), place.display()),
            "run pitr as the user that owns the database, and choose a --state directory on the same file system (and mount)",
        ),
    });
}

/// Links one file of `dir` beside (or into) the state directory, and removes the link.
fn link(dir: &Path, state: &Path) -> Result<Option<()>> {
    let entries = fs::read_dir(dir).map_err(|e| error::io("listing", dir, e))?;
    let ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(file_name::parse);
        matches!(name, Some(FileKind::Sst(_) | FileKind::Wal(_) | FileKind::Manifest(_) | FileKind::Identity))
    };
    let Some(file) = entries.filter_map(|entry| Some(entry.ok()?.path())).find(ours) else { return Ok(None) };
    // What is not there yet is made where it is to be.
    let near = state.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("."));
    let target = near.join(format!(".pitr-check-{}", std::process::id()));
    fs::hard_link(&file, &target).map_err(|e| error::io("hard-linking", &file, e))?;
    fs::remove_file(&target).map_err(|e| error::io("removing the link", &target, e))?;
    Ok(Some(()))
}

/// The logs that a restore would replay now, whether they can be read, and how long replaying them takes.
fn log(layout: &Layout, findings: &mut Vec<Finding>) -> Option<f64> {
    let (first, flushes) = match manifest(layout) {
        Ok(told) => told,
        Err(e) => {
            findings.push(Finding::failed("database.manifest", &e));
            return None;
        }
    };
    findings.push(flushes.finding(flushes_are_of_no_use(layout).as_deref()));
    let mut bytes = 0;
    let mut ops = 0;
    let wals = match wals_from(&layout.wal_dir, first) {
        Ok(wals) => wals,
        Err(e) => {
            findings.push(Finding::failed("database.log-readable", &e));
            return None;
        }
    };
    let count = wals.len();
    for (number, path) in wals {
        match read(number, &path) {
            // Deleted since the listing: it is not needed any more.
            Ok(None) => {}
            Ok(Some(Found::Log { bytes: b, ops: o })) => {
                bytes += b;
                ops += o;
            }
            Ok(Some(Found::Damaged(why))) => findings.push(Finding::error(
                format!("database.log-readable/{}", file_name::wal(number)),
                format!("{} cannot be read: {why}", path.display()),
                "if the server encrypts its files, it can only be archived from inside; pitr inspect wal shows the place",
            )),
            Err(e) => findings.push(Finding::failed("database.log-readable", &e)),
        }
    }
    let seconds = (bytes as f64 / BYTES_PER_SECOND).max(ops as f64 / OPS_PER_SECOND);
    findings.push(Finding::ok(
        "database.log-readable",
        format!(
            "{} that recovery needs: {}, {}",
            text::count(count as u64, "log"),
            text::bytes(bytes),
            text::count(ops, "operation")
        ),
    ));
    let took = match seconds < 0.001 {
        true => "under 1 ms".to_owned(),
        false => format!("about {}", text::duration(Duration::from_secs_f64(seconds))),
    };
    let said = format!(
        "with a base of now, replaying the log would take RocksDB {took}, beside fetching the base; it grows until the server flushes or a newer base is taken"
    );
    findings.push(match seconds > 60.0 {
        true => Finding::warning(
            "database.restore-time",
            said,
            "take bases more often (pitr base), or let the server flush earlier (max_total_wal_size)",
        ),
        false => Finding::info("database.restore-time", said),
    });
    Some(seconds)
}

/// Why a restore would replay the log all the same. What shows only in the log is not known here.
fn flushes_are_of_no_use(layout: &Layout) -> Option<String> {
    if layout.allow_2pc() {
        return Some("the log can hold prepared transactions, so restores replay it".to_owned());
    }
    let families = layout.options.as_ref().map(|options| &options.families);
    let mut filters = families.into_iter().flatten().filter_map(|(name, family)| {
        let filter = family.compaction_filter.as_ref().or(family.compaction_filter_factory.as_ref())?;
        Some(format!("column family {name} has the compaction filter {filter}, so restores replay the log"))
    });
    filters.next()
}

/// The first log that recovery needs, and what flushes have written.
fn manifest(layout: &Layout) -> Result<(FileNumber, Flushes)> {
    let number = layout.current()?;
    let path = layout.db.join(file_name::manifest(number));
    let bytes = fs::read(&path).map_err(|e| error::io("reading", &path, e))?;
    let mut describer = ManifestDescriber::new(number);
    let rest = |describer: &ManifestDescriber| {
        usize::try_from(describer.offset()).ok().and_then(|at| bytes.get(at..)).unwrap_or_default()
    };
    let mut flushes = Flushes::default();
    while let Some(line) = describer.next(rest(&describer), Finality::Growing) {
        if let ManifestLine::Edit(edit) = line {
            flushes.learn(&edit);
        }
    }
    let state = describer.state();
    Ok((if layout.allow_2pc() { state.first_wal_needed_2pc } else { state.first_wal_needed }, flushes))
}

fn wals_from(dir: &Path, first: FileNumber) -> Result<Vec<(FileNumber, PathBuf)>> {
    let mut wals = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| error::io("listing", dir, e))? {
        let path = entry.map_err(|e| error::io("listing", dir, e))?.path();
        if let Some(FileKind::Wal(number)) = path.file_name().and_then(|n| n.to_str()).and_then(file_name::parse)
            && number >= first
        {
            wals.push((number, path));
        }
    }
    wals.sort();
    Ok(wals)
}

enum Found {
    Log { bytes: u64, ops: u64 },
    Damaged(String),
}

fn read(number: FileNumber, path: &Path) -> Result<Option<Found>, Error> {
    let size = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(error::io("examining", path, e)),
    };
    if size > MAX_READ {
        return Ok(Some(Found::Log { bytes: size, ops: 0 }));
    }
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(error::io("reading", path, e)),
    };
    let mut describer = WalDescriber::new(number, Operations::Summarised);
    let mut ops = 0;
    loop {
        let rest = usize::try_from(describer.offset()).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        // Growing: the server may be in the middle of a record.
        match describer.next(rest, Finality::Growing) {
            Some(WalLine::Batch(batch)) => match batch.error {
                None => ops += batch.summary.map_or(0, |s| s.data_ops),
                Some(why) => return Ok(Some(Found::Damaged(why))),
            },
            Some(WalLine::Ending(Ending::Corrupt { offset, reason })) => {
                return Ok(Some(Found::Damaged(format!("at {offset}: {reason}"))));
            }
            Some(WalLine::Metadata { .. }) => {}
            Some(WalLine::Ending(_)) | None => return Ok(Some(Found::Log { bytes: describer.offset(), ops })),
        }
    }
}
