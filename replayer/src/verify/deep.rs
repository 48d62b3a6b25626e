//! One position, restored from two bases: the older one with records, and the newer one. Both must hold the same.
//!
//! Owns: choosing the pair and the position, restoring into throw-away directories, comparing column family by column
//! family. Where this library lacks a comparator or merge operator the copies are not opened, and the report says that
//! only their structure was compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use pitr_archive::{
    Code, Error, Result,
    catalog::{archive::Archive, model::Catalog, schema::BaseDocument},
    clock::Micros,
    error::io,
    ids::{BaseId, Nonce, TimelineId},
};
use serde::Serialize;

use super::Finding;
use crate::{
    digest::{self, DatabaseDigest, FamilyDigest},
    finish::{self, FamilySpec, Unknown},
    plan::{PlanOptions, PlannedPosition, RestorePlan, plan},
    progress::Progress,
    restore::{files::blocking, throwaway::lay_down},
    target::Target,
};

/// How to check deeply.
#[derive(Clone, Debug)]
pub struct DeepOptions {
    /// On which timeline; by default the newest.
    pub timeline: Option<TimelineId>,
    /// Where copies may be laid down; two directories are made in it and removed at the end.
    pub work: PathBuf,
    /// Random, for the markers of the copies.
    pub marker: Nonce,
    /// The present time.
    pub now: Micros,
}

/// What the two restores showed.
#[derive(Clone, Debug, Serialize)]
pub struct DeepReport {
    /// The position restored twice; absent when there is no pair of bases to compare.
    pub position: Option<PlannedPosition>,
    /// The bases used, the older one first.
    pub bases: Vec<BaseId>,
    /// What was compared.
    pub compared: Compared,
    /// What differs.
    pub findings: Vec<Finding>,
}

/// What was compared.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Compared {
    /// Every key and value.
    Contents {
        /// By column family.
        column_families: BTreeMap<String, FamilyComparison>,
    },
    /// Only column families and sequence numbers.
    Structure {
        /// Why: what this library does not have.
        reasons: Vec<String>,
    },
    /// Nothing.
    Nothing {
        /// Why.
        reason: String,
    },
}

/// One column family in both restores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FamilyComparison {
    /// From the older base and its records.
    pub replayed: Option<FamilyDigest>,
    /// From the newer base.
    pub based: Option<FamilyDigest>,
    /// They are the same.
    pub equal: bool,
    /// They may differ: its compaction filter drops keys without a record.
    pub filtered: bool,
}

/// Restores the floor of the newest base that an older one also reaches, from both, and compares.
///
/// # Errors
/// What planning and restoring answer; differences are findings.
pub async fn verify_deep(
    archive: &Archive,
    catalog: &Catalog,
    options: &DeepOptions,
    progress: Arc<dyn Progress>,
) -> Result<DeepReport> {
    let Some((older, newer)) = pair(archive, catalog, options).await? else {
        let reason = "no position is reached by two bases of one run".to_owned();
        let compared = Compared::Nothing { reason };
        return Ok(DeepReport { position: None, bases: Vec::new(), compared, findings: Vec::new() });
    };
    let (a, b) = (options.work.join("pitr-verify-replayed"), options.work.join("pitr-verify-based"));
    let outcome = compare(archive, catalog, options, &older, &newer, (&a, &b), progress).await;
    for directory in [&a, &b] {
        if directory.exists() {
            fs::remove_dir_all(directory).map_err(|e| io("removing the copy", directory, e))?;
        }
    }
    outcome
}

/// Plans for one position: from an older base, and from the base whose floor it is.
async fn pair(
    archive: &Archive,
    catalog: &Catalog,
    options: &DeepOptions,
) -> Result<Option<(RestorePlan, RestorePlan)>> {
    let timeline =
        options.timeline.or_else(|| catalog.current_timeline().map(pitr_archive::catalog::model::Timeline::id));
    let of_timeline = |base: &&BaseDocument| timeline.is_none_or(|t| base.floor.timeline == t);
    let mut bases: Vec<&BaseDocument> = catalog.bases().iter().filter(of_timeline).collect();
    bases.sort_by(|a, b| (a.floor.boundary, &a.id).cmp(&(b.floor.boundary, &b.id)));
    for (index, newer) in bases.iter().enumerate().rev() {
        let Some(record) = newer.floor.boundary.last_record() else { continue };
        let from = |base: &BaseDocument| PlanOptions {
            timeline: Some(newer.floor.timeline),
            base: Some(base.id.clone()),
            ..PlanOptions::default()
        };
        let target = Target::Record(record);
        let Some(based) = possible(plan(archive, catalog, &target, &from(newer)).await)? else { continue };
        for older in bases.iter().take(index).rev() {
            if let Some(replayed) = possible(plan(archive, catalog, &target, &from(older)).await)? {
                return Ok(Some((replayed, based)));
            }
        }
    }
    Ok(None)
}

/// A refusal only means that this pair will not do.
fn possible(planned: Result<RestorePlan>) -> Result<Option<RestorePlan>> {
    match planned {
        Ok(plan) => Ok(Some(plan)),
        Err(e) if e.code().exit() == pitr_archive::code::Exit::Target => Ok(None),
        Err(e) => Err(e),
    }
}

async fn compare(
    archive: &Archive,
    catalog: &Catalog,
    options: &DeepOptions,
    replayed: &RestorePlan,
    based: &RestorePlan,
    places: (&Path, &Path),
    progress: Arc<dyn Progress>,
) -> Result<DeepReport> {
    let given = (options.marker, options.now);
    let a = lay_down(archive, replayed, places.0, given, progress.clone()).await?;
    let b = lay_down(archive, based, places.1, given, progress.clone()).await?;
    let mut findings = Vec::new();
    differ(&mut findings, "column families", &shape(&a.spec.families), &shape(&b.spec.families));
    differ(&mut findings, "latest sequence numbers", &replayed.position.sequence, &based.position.sequence);
    differ(&mut findings, "pending transactions", &replayed.pending, &based.pending);
    let policy = replayed.write_policy.filter(|policy| !finish::recovers(Some(*policy)));
    let policy =
        policy.map(|policy| format!("its write policy is {policy:?}, and only a server of that policy recovers it"));
    let unknown: BTreeSet<String> = finish::unknown(&a.spec.families)
        .into_iter()
        .chain(finish::unknown(&b.spec.families))
        .map(|Unknown { family, what, name }| format!("{what} {name} of column family {family:?} is not known here"))
        .chain(policy)
        .collect();
    let compared = if unknown.is_empty() {
        let filtered = filtered(catalog, based);
        let digests =
            blocking(move || Ok((digest::digest(&a.spec, &*progress)?, digest::digest(&b.spec, &*progress)?))).await?;
        let column_families = families(&digests.0, &digests.1, &filtered);
        differ(&mut findings, "recovered sequence numbers", &digests.0.sequence, &digests.1.sequence);
        for (name, family) in column_families.iter().filter(|(_, f)| !f.equal && !f.filtered) {
            let what = format!("contents of column family {name:?}");
            findings.push(difference(&what, &family.replayed, &family.based));
        }
        Compared::Contents { column_families }
    } else {
        Compared::Structure { reasons: unknown.into_iter().collect() }
    };
    Ok(DeepReport {
        position: Some(based.position),
        bases: vec![replayed.base.id.clone(), based.base.id.clone()],
        compared,
        findings,
    })
}

/// What of column families shows without opening anything.
fn shape(families: &[FamilySpec]) -> Vec<(u32, &str, &str)> {
    families.iter().map(|f| (f.id.get(), f.name.as_str(), f.comparator.as_str())).collect()
}

/// Column families whose compaction filter drops keys without a record.
fn filtered(catalog: &Catalog, plan: &RestorePlan) -> BTreeSet<String> {
    let families = catalog.base(&plan.base.id).map(|base| base.column_families.as_slice()).unwrap_or_default();
    let filtered = families.iter().filter(|f| f.compaction_filter.is_some()).map(|f| f.name.clone());
    // What was written without the log depends on when the base was taken.
    filtered.chain(plan.unlogged.iter().map(|f| f.column_family.clone())).collect()
}

fn families(a: &DatabaseDigest, b: &DatabaseDigest, filtered: &BTreeSet<String>) -> BTreeMap<String, FamilyComparison> {
    let names: BTreeSet<&String> = a.column_families.keys().chain(b.column_families.keys()).collect();
    names
        .into_iter()
        .map(|name| {
            let (replayed, based) = (a.column_families.get(name).copied(), b.column_families.get(name).copied());
            let comparison =
                FamilyComparison { replayed, based, equal: replayed == based, filtered: filtered.contains(name) };
            (name.clone(), comparison)
        })
        .collect()
}

fn differ<T: PartialEq + std::fmt::Debug>(findings: &mut Vec<Finding>, what: &str, replayed: &T, based: &T) {
    if replayed != based {
        findings.push(difference(what, replayed, based));
    }
}

fn difference(what: &str, replayed: &impl std::fmt::Debug, based: &impl std::fmt::Debug) -> Finding {
    let e = Error::new(Code::VerifyFailed, "comparing two restores of one position")
        .on(what)
        .with("from the older base and its records", format!("{replayed:?}"))
        .with("from the newer base", format!("{based:?}"));
    Finding::from(&e)
}
