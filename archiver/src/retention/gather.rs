//! What there is: listings first, then the catalog.
//!
//! Owns: the order. An object that is in a listing and is named by nothing in a catalog that was read afterwards was not
//! named when the catalog was read; one that came after the listing is not looked at. Manifests may be read meanwhile: which
//! ones there are is still told by the catalog's own listing, and what they say never changes.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::{Archive, CONCURRENCY},
        model::{Catalog, Timeline},
        schema::{BaseDocument, BoundaryDocument, CondemnedDocument, HoldDocument},
    },
    clock::Micros,
    ids::{Ordinals, TimelineId},
    object_key::{ObjectKey, prefix},
};

/// What an archive consists of, as far as retention is concerned.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Files, bases, tags and leftovers by name, with their bytes.
    pub objects: BTreeMap<ObjectKey, u64>,
    /// Segment objects of every timeline, with their bytes.
    pub segments: BTreeMap<TimelineId, Vec<(Ordinals, u64)>>,
    pub condemned: Vec<CondemnedDocument>,
    pub holds: Vec<HoldDocument>,
    /// Bases that are condemned and held.
    pub held_bases: Vec<BaseDocument>,
    /// What was ever stated about deletion, in order.
    pub boundaries: BTreeMap<TimelineId, Vec<BoundaryDocument>>,
    pub catalog: Catalog,
}

/// Reads all of it.
///
/// # Errors
/// The first thing that is wrong with the archive: what is damaged is not pruned. What the store answers.
pub(super) async fn gather(archive: &Archive, now: Micros) -> Result<Gathered> {
    // Listing a long archive takes as long as reading its manifests.
    let (Listings { objects, segments, holds, condemned }, ahead) =
        futures::try_join!(listings(archive), archive.read_ahead())?;
    let catalog = archive.load_catalog_behind(ahead).await?;
    refuse_lost_files(archive, &objects, &catalog).await?;
    let mut boundaries = BTreeMap::new();
    for timeline in catalog.timelines() {
        boundaries.insert(timeline.id(), archive.deletion_boundaries(timeline.id()).await?);
    }
    let mut held_bases = Vec::new();
    for hold in holds.iter().filter(|hold| hold.expires > now && catalog.base(&hold.base).is_none()) {
        held_bases.extend(archive.get_base(&hold.base).await?);
    }
    Ok(Gathered { objects, segments, condemned, holds, held_bases, boundaries, catalog })
}

/// What is looked at before the catalog.
struct Listings {
    objects: BTreeMap<ObjectKey, u64>,
    segments: BTreeMap<TimelineId, Vec<(Ordinals, u64)>>,
    holds: Vec<HoldDocument>,
    condemned: Vec<CondemnedDocument>,
}

async fn listings(archive: &Archive) -> Result<Listings> {
    let mut objects = BTreeMap::new();
    for prefix in [prefix::FILES, prefix::PROBE, prefix::BASES, prefix::TAGS] {
        objects.extend(archive.store().list(prefix, None).await?.into_iter().map(|l| (l.key, l.size)));
    }
    let mut segments = BTreeMap::new();
    for timeline in archive.timelines().await? {
        segments.insert(timeline.timeline, archive.list_all_segments(timeline.timeline).await?);
    }
    let holds = archive.holds().await?;
    let condemned = archive.condemned().await?;
    Ok(Listings { objects, segments, holds, condemned })
}

/// A base that lacks a file restores nothing, so nothing may be given up for it: that is damage.
async fn refuse_lost_files(archive: &Archive, objects: &BTreeMap<ObjectKey, u64>, catalog: &Catalog) -> Result<()> {
    let named = catalog
        .bases()
        .iter()
        .flat_map(|base| base.files.iter().map(move |file| (&base.id, ObjectKey::file(&file.object))));
    let unlisted: BTreeMap<ObjectKey, _> =
        named.filter(|(_, key)| !objects.contains_key(key)).map(|(base, key)| (key, base)).collect();
    // Those of a base that was published since the listing are there.
    let looks = unlisted.into_iter().map(|(key, base)| async move {
        match archive.store().size(&key).await? {
            Some(_) => Ok(()),
            None => Err(Error::new(Code::ObjectMissing, "pruning").on(key).with("named by", ObjectKey::base(base))),
        }
    });
    stream::iter(looks.collect::<Vec<_>>()).buffered(CONCURRENCY).try_collect().await
}

/// Since when something is condemned, by the last statement that says so. Those of a clock that was ahead say nothing yet.
pub(super) fn condemned_since(documents: &[CondemnedDocument], now: Micros) -> BTreeMap<&ObjectKey, Micros> {
    let mut since: BTreeMap<&ObjectKey, Micros> = BTreeMap::new();
    for document in documents.iter().filter(|document| document.created <= now) {
        for object in &document.objects {
            let last = since.entry(&object.key).or_insert(document.created);
            *last = document.created.max(*last);
        }
    }
    since
}

/// Before when nothing condemned is deleted. What a clock said that was ahead does not count.
pub(super) fn condemned_until(documents: &[CondemnedDocument], now: Micros) -> BTreeMap<&ObjectKey, Micros> {
    let mut until: BTreeMap<&ObjectKey, Micros> = BTreeMap::new();
    for document in documents.iter().filter(|document| document.created <= now) {
        let Some(at) = document.until else { continue };
        for object in &document.objects {
            let last = until.entry(&object.key).or_insert(at);
            *last = at.max(*last);
        }
    }
    until
}

/// The files that are needed: of these bases, and captured ones.
pub(super) fn referenced<'a>(
    bases: impl Iterator<Item = &'a BaseDocument>,
    timelines: impl Iterator<Item = &'a Timeline>,
) -> BTreeSet<ObjectKey> {
    let of_bases = bases.flat_map(|base| &base.files).map(|file| file.object.as_str());
    let captured = timelines.flat_map(Timeline::captured).map(|file| file.object.as_str());
    of_bases.chain(captured).map(ObjectKey::file).collect()
}
