//! What a drill finds out about a restored copy.
//!
//! Owns: the comparison of its files with its MANIFEST; whether this library can open it, and why not; recovery, RocksDB's own
//! checksums of every block, and everything that a reader can see. The copy is left as `--finish` leaves a restore.
//! Refuses: to claim what was not looked at: where the copy cannot be opened here, that is said.

use std::{collections::BTreeSet, fs, sync::Arc, time::Duration};

use pitr_archive::{
    Code, Error, Result,
    catalog::schema::{BaseDocument, DrillFamily, DrillStructure},
    clock::Clock,
    error::io,
    ids::SequenceNumber,
    rocks::{file_name, options_file::OptionsFile},
};

use crate::{
    digest::{self, DatabaseDigest},
    finish::{self, OpenSpec, Unknown},
    plan::RestorePlan,
    progress::Progress,
    restore::{paths::Layout, recover},
};

const DOING: &str = "checking the restored database";

/// Whether the directory holds the files that its MANIFEST names, with their sizes. What is in them was compared while it was
/// fetched.
pub(super) fn structure(layout: &Layout) -> Result<DrillStructure> {
    let manifest = recover::current_manifest(&layout.db)?;
    let mut found = DrillStructure { files: 0, bytes: 0, checksums: false };
    let mut look = |path: std::path::PathBuf, size: Option<u64>| {
        let wrong = |what: String| Error::new(Code::DrillFailed, DOING).on(path.display()).with("found", what);
        let there = fs::symlink_metadata(&path).map_err(|e| wrong(e.to_string()))?.len();
        match size.filter(|size| *size != there) {
            Some(size) => Err(wrong(format!("{there} bytes")).with("the MANIFEST says", size)),
            None => {
                found.files += 1;
                found.bytes += there;
                Ok(())
            }
        }
    };
    for (family, number, sst) in manifest.model.live_files() {
        let directory = layout.directory(family, u32::from(sst.path_id))?;
        look(directory.join(file_name::sst(number)), Some(sst.size))?;
    }
    for (family, number, _) in manifest.model.live_blob_files() {
        look(layout.directory(family, 0)?.join(file_name::blob(number)), None)?;
    }
    Ok(found)
}

/// Column families whose files expire (FIFO): what was gone when a base was taken depends on when that was.
pub(super) fn fifo(layout: &Layout) -> Result<BTreeSet<String>> {
    let Some(number) = recover::newest_options(&layout.db)? else { return Ok(BTreeSet::new()) };
    let path = layout.db.join(file_name::options(number));
    let text = fs::read_to_string(&path).map_err(|e| io("reading", &path, e))?;
    let malformed = |e| Error::new(Code::OptionsMalformed, "reading").on(path.display()).because(e);
    let options = OptionsFile::parse(&text).map_err(malformed)?;
    let is_fifo = |name: &str| {
        let settings = options.column_family(name).ok().flatten();
        settings.is_some_and(|settings| settings.compaction_style.as_deref() == Some("kCompactionStyleFIFO"))
    };
    Ok(options.column_families().filter(|name| is_fifo(name)).map(str::to_owned).collect())
}

/// Why this library does not open the copy.
pub(super) fn obstacles(spec: &OpenSpec, plan: &RestorePlan) -> Vec<String> {
    let policy = plan.write_policy.filter(|policy| !finish::recovers(Some(*policy)));
    let policy =
        policy.map(|policy| format!("its write policy is {policy:?}, and only a server of that policy recovers it"));
    let unknown = finish::unknown(&spec.families);
    let unknown = unknown
        .into_iter()
        .map(|Unknown { family, what, name }| format!("{what} {name} of column family {family:?} is not known here"));
    unknown.chain(policy).collect()
}

/// Column families in which two restores of one position may differ.
pub(super) fn varying(base: &BaseDocument, plan: &RestorePlan) -> BTreeSet<String> {
    let filtered = base.column_families.iter().filter(|family| family.compaction_filter.is_some());
    let younger = plan
        .column_families
        .iter()
        .filter(|edit| edit.settings.as_ref().is_some_and(|settings| settings.compaction_filter.is_some()));
    let unlogged = plan.unlogged.iter().map(|family| family.column_family.clone());
    let named = filtered.map(|family| family.name.clone()).chain(younger.map(|edit| edit.name.clone()));
    named.chain(unlogged).collect()
}

/// What was read of an opened copy.
pub(super) struct Contents {
    pub digest: DatabaseDigest,
    /// Until it could be read.
    pub opening: Duration,
    /// From then on.
    pub checking: Duration,
}

/// What became of opening a copy.
pub(super) enum Opened {
    Read(Contents),
    /// RocksDB here lacks something that no name told.
    NotHere(String),
}

/// Recovers the copy, compares its sequence number with `expected` and reads all of it.
///
/// # Errors
/// `restore.sequence-mismatch`, `rocksdb.open-failed`, `drill.failed`.
pub(super) fn read(
    spec: &OpenSpec,
    expected: SequenceNumber,
    clock: &dyn Clock,
    progress: &Arc<dyn Progress>,
) -> Result<Opened> {
    let began = clock.steady();
    let mut found = None;
    let recovered = recover::recover(spec, expected, |opened| {
        let open = clock.steady();
        opened.verify_checksums().map_err(|e| {
            Error::new(Code::DrillFailed, "comparing the checksums of").on(spec.directory.display()).because(e)
        })?;
        let digest = digest::of_opened(opened, spec, &**progress)?;
        let (opening, checking) = (open.since(began), clock.steady().since(open));
        found = Some(Contents { digest, opening, checking });
        Ok(())
    });
    match (recovered, found) {
        (Ok(()), Some(contents)) => Ok(Opened::Read(contents)),
        (Ok(()), None) => Err(Error::new(Code::Internal, DOING)),
        (Err(e), _) if finish::is_unsupported(&e) => Ok(Opened::NotHere(e.to_string())),
        (Err(e), _) => Err(e),
    }
}

/// As a report stores it.
pub(super) fn families(digest: &DatabaseDigest, varying: &BTreeSet<String>) -> Vec<DrillFamily> {
    let families = digest.column_families.iter().map(|(name, family)| DrillFamily {
        name: name.clone(),
        pairs: family.pairs,
        bytes: family.bytes,
        hash: family.hash,
        varies: varying.contains(name),
    });
    families.collect()
}
