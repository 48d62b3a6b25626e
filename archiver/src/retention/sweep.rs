//! The second phase: what is due, and deleting it.
//!
//! Owns: what may be deleted: what has been no part of the archive for a whole grace period, by every statement in force
//! during it, and is needed by nothing now. Names go before what they name, statements last: a crash in between leaves
//! objects that the next sweep finds by the same statements.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use pitr_archive::{
    Result,
    catalog::{
        archive::{Archive, CONCURRENCY},
        model::{Catalog, Timeline},
        schema::{BoundaryDocument, Condemnation, CondemnedObject, HoldDocument, SegmentSummary},
    },
    clock::Micros,
    ids::{BaseId, Ordinals, TimelineId},
    object_key::{ObjectKey, prefix},
};

use super::{
    decide::TagDecision,
    drills,
    gather::{Gathered, condemned_since, condemned_until, referenced},
    prune::tag_key,
    report::{Tallies, Tally},
};

/// So long it stays known, behind its grace period, that something was condemned: an archiver that uploads a base for days
/// must see at its end what was condemned meanwhile, and the manifest that names a base is written minutes after it, but by
/// an archiver that may be away.
const REMEMBERED: i64 = 30 * 24 * 60 * 60 * 1_000_000;

/// What is deleted, in this order.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Bases, tags, manifests, old reports of drills.
    pub names: Vec<ObjectKey>,
    /// Files and segments.
    pub data: Vec<ObjectKey>,
    /// Statements that nobody needs any more.
    pub statements: Vec<ObjectKey>,
    pub tallies: Tallies,
    /// What is not due yet, and when the first of it is.
    pub waiting: Tally,
    pub next: Option<Micros>,
}

/// What is decided.
pub(super) struct Kept<'a> {
    /// The catalog without what is not kept.
    pub after: &'a Catalog,
    pub tags: &'a [TagDecision],
    /// What is condemned only now.
    pub condemned: &'a [CondemnedObject],
}

/// By when something must have been stated to be due now.
fn before(now: Micros, grace: i64) -> Micros {
    Micros(now.0.saturating_sub(grace))
}

impl Due {
    fn wait(&mut self, bytes: u64, since: Micros, grace: i64) {
        self.waiting.add(bytes);
        let due = Micros(since.0.saturating_add(grace));
        self.next = Some(self.next.map_or(due, |next| next.min(due)));
    }
}

/// What the archive's statements make due at `now`.
pub(super) async fn due(
    archive: &Archive,
    gathered: &Gathered,
    kept: &Kept<'_>,
    now: Micros,
    grace: i64,
) -> Result<Due> {
    let mut due = Due::default();
    let holds: Vec<&HoldDocument> = gathered.holds.iter().filter(|hold| hold.expires > now).collect();
    condemned(archive, gathered, kept, &holds, (now, grace), &mut due);
    for (timeline, boundaries) in &gathered.boundaries {
        let segments = gathered.segments.get(timeline).map(Vec::as_slice).unwrap_or_default();
        deleted(archive, *timeline, (boundaries, segments), &holds, (now, grace), &mut due).await?;
        if let Some(timeline) = gathered.catalog.timeline(*timeline) {
            superseded(timeline, segments, &holds, (now, grace), &mut due);
        }
    }
    for report in drills::old(archive.store().list(prefix::DRILLS, None).await?, now.to_datetime()) {
        due.tallies.drills.add(report.size);
        due.names.push(report.key);
    }
    for hold in gathered.holds.iter().filter(|hold| hold.expires <= before(now, grace)) {
        due.tallies.leftovers.add(0);
        due.statements.push(ObjectKey::hold(&hold.id));
    }
    Ok(due)
}

fn condemned(
    archive: &Archive,
    gathered: &Gathered,
    kept: &Kept<'_>,
    holds: &[&HoldDocument],
    (now, grace): (Micros, i64),
    due: &mut Due,
) {
    let after = kept.after;
    let mut needed = referenced(after.bases().iter().chain(&gathered.held_bases), after.timelines());
    needed.extend(merged(after));
    needed.extend(merged(&gathered.catalog));
    needed.extend(holds.iter().map(|hold| ObjectKey::base(&hold.base)));
    // A tag of the same name can have been created since.
    let tags = kept.tags.iter().filter(|tag| !tag.expired);
    needed.extend(tags.filter_map(|tag| tag_key(archive, &tag.name)));
    let since = condemned_since(&gathered.condemned, now);
    let until = condemned_until(&gathered.condemned, now);
    let fresh: BTreeSet<&ObjectKey> = kept.condemned.iter().map(|object| &object.key).collect();
    let named: BTreeSet<ObjectKey> =
        after.timelines().flat_map(|t| t.manifests()).flat_map(|m| &m.bases).map(ObjectKey::base).collect();
    let mut seen = BTreeSet::new();
    let mut documents: Vec<_> = gathered.condemned.iter().collect();
    documents.sort_by_key(|document| document.created);
    for document in documents {
        let forgotten = document.created <= before(now, grace.saturating_add(REMEMBERED));
        // One without objects was a prune's turn.
        let mut finished = forgotten || document.objects.is_empty() && document.created <= before(now, grace);
        for object in &document.objects {
            // What a manifest names and is not there was condemned: that must stay known.
            finished &= !named.contains(&object.key);
            let bytes = match object.key.segment_ordinals() {
                Some(ordinals) => segment_bytes(gathered, &object.key, ordinals),
                None => gathered.objects.get(&object.key).copied(),
            };
            let Some(bytes) = bytes else { continue };
            if needed.contains(&object.key) {
                let held = holds.iter().any(|hold| ObjectKey::base(&hold.base) == object.key);
                finished &= !held;
                continue;
            }
            if !seen.insert(object.key.clone()) {
                continue;
            }
            // Its grace period begins with this prune.
            if fresh.contains(&object.key) {
                continue;
            }
            let since = since.get(&object.key).copied().unwrap_or(document.created);
            // Whoever was about to name it counts on that, whatever this prune was told.
            let until = until.get(&object.key).copied().unwrap_or(document.created);
            if since > before(now, grace) || until > now {
                due.wait(bytes, since.max(before(until, grace)), grace);
                continue;
            }
            let tallies = &mut due.tallies;
            match object.why {
                Condemnation::Base => tallies.bases.add(bytes),
                Condemnation::ExpiredTag => tallies.tags.add(bytes),
                Condemnation::FileOfBase => tallies.files.add(bytes),
                Condemnation::Unreferenced if object.key.segment_ordinals().is_some() => tallies.segments.add(bytes),
                Condemnation::Unreferenced => {
                    tallies.files.add(bytes);
                    tallies.unreferenced.add(bytes);
                }
                Condemnation::Superseded => tallies.segments.add(bytes),
                Condemnation::Leftover => tallies.leftovers.add(bytes),
            }
            match object.why {
                Condemnation::Base | Condemnation::ExpiredTag => due.names.push(object.key.clone()),
                _ => due.data.push(object.key.clone()),
            }
        }
        if finished {
            due.statements.push(ObjectKey::condemned(&document.id));
        }
    }
}

/// The merged segments that count.
fn merged(catalog: &Catalog) -> impl Iterator<Item = ObjectKey> {
    catalog.timelines().flat_map(|timeline| {
        let merged = timeline.segments().iter().filter(|s| s.merged.is_some());
        merged.map(|s| ObjectKey::segment(timeline.id(), s.ordinals()))
    })
}

/// The statements that were in force at some time of the grace period: all others came before them.
fn in_force(boundaries: &[BoundaryDocument], since: Micros) -> Option<&[BoundaryDocument]> {
    // They were written in this order, whatever the clock said.
    let mut latest = Micros(i64::MIN);
    let old = boundaries.iter().take_while(|boundary| {
        latest = latest.max(boundary.created);
        latest <= since
    });
    old.count().checked_sub(1).and_then(|last| boundaries.get(last..))
}

/// Segments whose entries are in a merged one that counts: as long as a reader of an older catalog may want them, they wait.
fn superseded(
    timeline: &Timeline,
    segments: &[(Ordinals, u64)],
    holds: &[&HoldDocument],
    (now, grace): (Micros, i64),
    due: &mut Due,
) {
    let listed: BTreeMap<Ordinals, u64> = segments.iter().copied().collect();
    for (ordinals, bytes) in segments {
        let Some(since) = superseded_since(timeline, *ordinals) else { continue };
        if since > before(now, grace) || holds_any(holds, timeline.id(), *ordinals) {
            due.wait(*bytes, since, grace);
            continue;
        }
        // Nothing is deleted for the sake of what is lost.
        let larger = timeline.segment(ordinals.first()).filter(|s| listed.get(&s.ordinals()) == Some(&s.object_bytes));
        if larger.is_none() {
            tracing::warn!(%ordinals, "the segment that it was merged into is lost or damaged; it is kept");
        } else {
            due.tallies.segments.add(*bytes);
            due.data.push(ObjectKey::segment(timeline.id(), *ordinals));
        }
    }
}

/// Since when a segment's entries are in a merged one that counts, if they are.
pub(super) fn superseded_since(timeline: &Timeline, ordinals: Ordinals) -> Option<Micros> {
    let entry = timeline.segment(ordinals.first()).map(SegmentSummary::ordinals);
    let entry = entry.filter(|entry| *entry != ordinals && entry.contains(ordinals.last()))?;
    timeline.merged_since(entry.first())
}

fn holds_any(holds: &[&HoldDocument], timeline: TimelineId, ordinals: Ordinals) -> bool {
    holds.iter().any(|hold| hold.holds(timeline, ordinals))
}

async fn deleted(
    archive: &Archive,
    timeline: TimelineId,
    (boundaries, segments): (&[BoundaryDocument], &[(Ordinals, u64)]),
    holds: &[&HoldDocument],
    (now, grace): (Micros, i64),
    due: &mut Due,
) -> Result<()> {
    let Some(newest) = boundaries.last() else { return Ok(()) };
    let in_force = in_force(boundaries, before(now, grace));
    for (ordinals, bytes) in segments {
        let kept = |boundary: &BoundaryDocument| boundary.keeps_any(*ordinals);
        if kept(newest) || holds_any(holds, timeline, *ordinals) {
            continue;
        }
        if in_force.is_some_and(|all| !all.iter().any(kept)) {
            due.tallies.segments.add(*bytes);
            due.data.push(ObjectKey::segment(timeline, *ordinals));
        } else {
            due.wait(*bytes, stated(boundaries, kept), grace);
        }
    }
    for listed in archive.store().list(&prefix::manifests(timeline), None).await? {
        let Some(number) = listed.key.manifest_number().filter(|number| !newest.keeps_manifest(*number)) else {
            continue;
        };
        if in_force.is_some_and(|all| !all.iter().any(|boundary| boundary.keeps_manifest(number))) {
            due.tallies.manifests.add(listed.size);
            due.names.push(listed.key);
        } else {
            due.wait(listed.size, stated(boundaries, |boundary| boundary.keeps_manifest(number)), grace);
        }
    }
    // An index goes with the last of its manifests.
    for listed in archive.store().list(&prefix::indexes(timeline), None).await? {
        let Some(over) = listed.key.index_numbers() else { continue };
        let keeps = |boundary: &BoundaryDocument| boundary.keeps_manifest_of(over);
        if keeps(newest) {
            continue;
        }
        if in_force.is_some_and(|all| !all.iter().any(keeps)) {
            due.tallies.manifests.add(listed.size);
            due.names.push(listed.key);
        } else {
            due.wait(listed.size, stated(boundaries, keeps), grace);
        }
    }
    let replaced = boundaries.len() - in_force.map_or(boundaries.len(), <[_]>::len);
    for boundary in boundaries.iter().take(replaced) {
        due.tallies.leftovers.add(0);
        due.statements.push(ObjectKey::boundary_revision(timeline, boundary.ordinal, boundary.revision));
    }
    Ok(())
}

/// Since when no statement keeps something.
fn stated(boundaries: &[BoundaryDocument], keeps: impl Fn(&BoundaryDocument) -> bool) -> Micros {
    let kept = boundaries.iter().rposition(keeps).map_or(0, |last| last + 1);
    boundaries.get(kept).map_or(Micros(0), |boundary| boundary.created)
}

fn segment_bytes(gathered: &Gathered, key: &ObjectKey, ordinals: Ordinals) -> Option<u64> {
    let here = |(timeline, _): &(&TimelineId, _)| ObjectKey::segment(**timeline, ordinals) == *key;
    let (_, segments) = gathered.segments.iter().find(here)?;
    segments.iter().find(|(other, _)| *other == ordinals).map(|(_, bytes)| *bytes)
}

/// Merged segments that manifests name which were written since the catalog was read.
async fn late_merges(archive: &Archive, known: &Catalog) -> Result<BTreeSet<ObjectKey>> {
    let mut late = BTreeSet::new();
    for timeline in known.timelines() {
        let newest = timeline.manifests().last().map(|manifest| manifest.number);
        for number in archive.list_manifests(timeline.id()).await? {
            if newest.is_none_or(|newest| number > newest)
                && let Some((manifest, _)) = archive.get_manifest(timeline.id(), number).await?
            {
                late.extend(manifest.merged.iter().map(|s| ObjectKey::segment(timeline.id(), s.ordinals())));
            }
        }
    }
    Ok(late)
}

/// Deletes it. A base that was published since the catalog was read can name a file of which its archiver knew before it was
/// condemned: right before, the bases are listed again.
pub(super) async fn delete(archive: &Archive, due: &Due, known: &Catalog) -> Result<()> {
    crate::crash::point("sweep-before-delete");
    all(archive, due.names.iter()).await?;
    let mut late: BTreeMap<BaseId, BTreeSet<ObjectKey>> = BTreeMap::new();
    let merged = |key: &ObjectKey| key.segment_ordinals().is_some_and(Ordinals::is_merged);
    // A merged segment that an archiver took over after it was condemned.
    let late_merges = if due.data.iter().any(merged) { late_merges(archive, known).await? } else { BTreeSet::new() };
    if !due.data.is_empty() {
        for id in archive.list_bases().await? {
            if known.base(&id).is_none() && !known.condemned().contains_key(&ObjectKey::base(&id)) {
                let base = archive.get_base(&id).await?;
                late.insert(id, referenced(base.iter(), std::iter::empty()));
            }
        }
    }
    crate::crash::point("sweep-names-deleted");
    let spared = |key: &ObjectKey| late_merges.contains(key) || late.values().any(|files| files.contains(key));
    all(archive, due.data.iter().filter(|key| !spared(key))).await?;
    crate::crash::point("sweep-data-deleted");
    if late.is_empty() && late_merges.is_empty() {
        all(archive, due.statements.iter()).await?;
    }
    crate::crash::point("sweep-after-delete");
    Ok(())
}

async fn all(archive: &Archive, keys: impl Iterator<Item = &ObjectKey>) -> Result<()> {
    let deletions: Vec<_> = keys
        .map(|key| async move {
            archive.store().delete(key).await?;
            crate::crash::point("sweep-deleted-one");
            Ok(())
        })
        .collect();
    stream::iter(deletions).buffer_unordered(CONCURRENCY).try_collect().await
}
