//! A copy that nobody keeps: to compare, to try whether it opens.
//!
//! Owns: laying one down, with every directory of the source below it, and how it is opened. It is restored as any other: by
//! the same code, and left to recover. Refuses: removing it.

use std::{path::Path, sync::Arc};

use pitr_archive::{Result, catalog::archive::Archive, clock::Micros, ids::Nonce};

use super::{PathMap, RestoreOptions, RestoreReport, base_of, paths, paths::Layout, restore, small_files::SmallFiles};
use crate::{finish::OpenSpec, plan::RestorePlan, progress::Progress};

/// A restored copy, not opened yet.
pub(crate) struct Throwaway {
    pub spec: OpenSpec,
    pub layout: Layout,
    pub report: RestoreReport,
}

/// Lays one down at `into`. `marker` must be random.
pub(crate) async fn lay_down(
    archive: &Archive,
    plan: &RestorePlan,
    into: &Path,
    (marker, now): (Nonce, Micros),
    progress: Arc<dyn Progress>,
) -> Result<Throwaway> {
    // Whole: the catalog's lack their MANIFEST.
    let base = base_of(archive, plan).await?;
    // The copy is thrown away: every directory of the source goes below it.
    let map_paths: Vec<PathMap> = paths::foreign(&base.paths)
        .into_iter()
        .enumerate()
        .map(|(n, (_, old))| PathMap { old: old.to_owned(), new: into.join(format!("path-{n}")) })
        .collect();
    let options = RestoreOptions { map_paths, ..RestoreOptions::new(into, marker, now) };
    let report = restore(archive, plan, &options, progress).await?;
    let layout = paths::layout(&base.paths, into, &options.map_paths)?;
    let families = SmallFiles::prepare(&base, plan, &layout, &options)?.families;
    let spec = OpenSpec {
        directory: layout.db.clone(),
        wal: layout.wal.clone(),
        paths: layout.db_paths.clone(),
        families,
        two_phase: plan.two_phase(),
    };
    Ok(Throwaway { spec, layout, report })
}
