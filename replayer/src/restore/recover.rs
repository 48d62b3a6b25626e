//! `--finish`: recovery here, in the staging directory.
//!
//! Owns: opening the staged copy with staged paths only, comparing its latest sequence number with the plan's, and
//! leaving a directory that a server can take over: its own OPTIONS file the newest, no lock, no info log of ours, and
//! a MANIFEST that still says the planned sequence number. (RocksDB keeps the number of the keys that survived the
//! flush; the next open would go back to that and use numbers again.)

use std::{fs, path::Path};

use pitr_archive::{
    Code, Error, Result,
    error::io,
    ids::{FileNumber, SequenceNumber},
    rocks::{
        file_name::{self, FileKind},
        manifest::TwoPhase,
    },
};

use super::{
    manifest::Manifest,
    paths::Layout,
    small_files::put,
    staging::{Staging, sync_directory},
};
use crate::finish::{FamilySpec, OpenSpec, Opened, is_leftover};

/// How to open the staged copy of a layout.
pub(crate) fn spec(
    layout: &Layout,
    staging: &Staging,
    families: Vec<FamilySpec>,
    two_phase: TwoPhase,
) -> Result<OpenSpec> {
    let staged = |paths: &[std::path::PathBuf]| paths.iter().map(|p| staging.path(p)).collect::<Result<Vec<_>>>();
    Ok(OpenSpec {
        directory: staging.path(&layout.db)?,
        wal: staging.path(&layout.wal)?,
        paths: staged(&layout.db_paths)?,
        families: families
            .into_iter()
            .map(|family| Ok(FamilySpec { paths: staged(&family.paths)?, ..family }))
            .collect::<Result<_>>()?,
        two_phase,
    })
}

/// Recovers the staged copy and compares, before and after `also`.
pub(crate) fn recover(
    spec: &OpenSpec,
    expected: SequenceNumber,
    also: impl FnOnce(&Opened) -> Result<()>,
) -> Result<()> {
    let options_before = match newest_options(&spec.directory)? {
        None => None,
        Some(number) => {
            let path = spec.directory.join(file_name::options(number));
            Some(fs::read(&path).map_err(|e| io("reading", &path, e))?)
        }
    };
    let opened = Opened::open(spec)?;
    let compare = |opened: &Opened| match opened.latest_sequence() {
        reported if reported == expected => Ok(()),
        reported => Err(Error::new(Code::SequenceMismatch, "finishing the restore of")
            .on(spec.directory.display())
            .with("planned", expected)
            .with("recovered", reported)),
    };
    compare(&opened)?;
    also(&opened)?;
    compare(&opened)?;
    drop(opened);
    for name in names(&spec.directory)?.into_iter().filter(|name| is_leftover(name)) {
        let path = spec.directory.join(name);
        fs::remove_file(&path).map_err(|e| io("removing", &path, e))?;
    }
    if let Some(source) = options_before {
        keep_options(&spec.directory, &source)?;
    }
    keep_sequence(&spec.directory, expected)?;
    sync_directory(&spec.wal)?;
    sync_directory(&spec.directory)
}

pub(crate) fn names(directory: &Path) -> Result<Vec<String>> {
    fs::read_dir(directory)
        .and_then(|entries| entries.map(|e| e.map(|e| e.file_name())).collect::<Result<Vec<_>, _>>())
        .map(|names| names.into_iter().filter_map(|n| n.into_string().ok()).collect())
        .map_err(|e| io("reading", directory, e))
}

/// The number of the OPTIONS file that counts.
pub(crate) fn newest_options(directory: &Path) -> Result<Option<FileNumber>> {
    let numbers = names(directory)?.into_iter().filter_map(|name| match file_name::parse(&name) {
        Some(FileKind::Options(number)) => Some(number),
        _ => None,
    });
    Ok(numbers.max())
}

/// The open wrote an OPTIONS file of its own, which is now the newest: the source's takes its place.
fn keep_options(directory: &Path, source: &[u8]) -> Result<()> {
    let Some(ours) = newest_options(directory)? else { return Ok(()) };
    let path = directory.join(file_name::options(ours));
    fs::remove_file(&path).map_err(|e| io("replacing", &path, e))?;
    put(&path, source)
}

fn keep_sequence(directory: &Path, expected: SequenceNumber) -> Result<()> {
    let mut manifest = current_manifest(directory)?;
    let before = manifest.bytes.len();
    manifest.settle_sequence(expected, None, SequenceNumber::new(0))?;
    if manifest.bytes.len() > before { replace_manifest(directory, &manifest) } else { Ok(()) }
}

/// The MANIFEST that CURRENT names. Nothing has the directory open.
pub(crate) fn current_manifest(directory: &Path) -> Result<Manifest> {
    let current = directory.join("CURRENT");
    let named = fs::read(&current).map_err(|e| io("reading", &current, e))?;
    let number = file_name::parse_current(&named)
        .map_err(|e| Error::new(Code::ManifestCorrupt, "reading").on(current.display()).because(e))?;
    let path = directory.join(file_name::manifest(number));
    let bytes = fs::read(&path).map_err(|e| io("reading", &path, e))?;
    Manifest::read(number, bytes)
}

/// Writes it anew: nothing has the directory open, and it is not published yet.
pub(crate) fn replace_manifest(directory: &Path, manifest: &Manifest) -> Result<()> {
    let path = directory.join(file_name::manifest(manifest.model.file()));
    fs::remove_file(&path).map_err(|e| io("replacing", &path, e))?;
    put(&path, &manifest.bytes)
}
