//! Pruning: both phases, performed.
//!
//! Owns: the order of effects. First the statements: what is condemned, bases among them, then what stays of every timeline,
//! so that no base is offered whose segments are not; only what was stated a grace period ago is deleted, behind them. Every effect can be the last: nothing is deleted that a statement
//! does not cover.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::{Archive, EpochClaim, PutDocument},
        model::{Catalog, Timeline},
        schema::{
            BaseDocument, BoundaryDocument, Condemnation, CondemnedDocument, CondemnedObject, DOCUMENT_VERSION, Extra,
        },
        windows::{Window, windows},
    },
    clock::{Clock, Micros},
    code::Retry,
    ids::{BaseId, TimelineId},
    object_key::{ObjectKey, prefix},
    random::Random,
};

use super::{
    decide::{Decided, Held, decide},
    gather::{Gathered, condemned_since, gather, referenced},
    policy::{Floor, Policy, YOUNG},
    ranges::{Author, Ranges, ranges},
    report::{KeptSegmentsReport, PruneReport, Tallies, Tally, TimelineReport},
    sweep::{self, Kept},
    turn::Turn,
};
use crate::elapsed::elapsed;

/// A merged segment waits for the next manifest for at most so long; what is younger is not unneeded.
const UNNAMED: Duration = Duration::from_secs(3600);

/// Whether anything is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only say what would be done.
    DryRun,
    /// Do it.
    Act,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What is kept.
    pub policy: Policy,
    /// What to do about the limit below which it may not go.
    pub floor: Floor,
    /// Whether anything is changed.
    pub mode: Mode,
}

const DOING: &str = "pruning";
/// How often it is tried, and the first pause.
const ATTEMPTS: u32 = 8;
const WAIT: Duration = Duration::from_millis(100);

/// What is known of a timeline once its future is decided.
struct Future {
    timeline: TimelineId,
    ranges: Ranges,
    statement: Option<BoundaryDocument>,
}

/// Prunes an archive. Any number of processes may do it at once, from any machine, beside archivers and restores.
///
/// # Errors
/// The first thing that is wrong with the archive: what is damaged is not pruned (`pitr verify` tells all). What the store
/// answers; what was done by then stays done, and the next prune goes on. `config.contradictory` for a grace period below
/// [`YOUNG`]. `prune.overtaken` where other prunes go on stating something meanwhile.
pub async fn prune(
    archive: &Archive,
    request: &Request,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<PruneReport> {
    let Request { policy, .. } = *request;
    if policy.grace < YOUNG {
        return Err(Error::new(Code::ConfigContradictory, DOING)
            .on(archive.store().describe())
            .with("grace", format_args!("{} s", policy.grace.as_secs()))
            .with("at least", format_args!("{} s", YOUNG.as_secs())));
    }
    let mut wait = WAIT;
    for _ in 0..ATTEMPTS {
        if let Some(report) = attempt(archive, request, clock, random).await? {
            return Ok(report);
        }
        // Both of two that met do not come back at the same moment.
        let [part] = random.bytes::<1>()?;
        tokio::time::sleep(wait.mul_f64(0.5 + f64::from(part) / 255.0)).await;
        wait *= 2;
    }
    Err(Error::new(Code::PruneOvertaken, DOING).on(archive.store().describe()))
}

/// Once; `None` where another prune has its turn, or this process slept: what was read is not the archive any more.
async fn attempt(
    archive: &Archive,
    request: &Request,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Option<PruneReport>> {
    let Request { policy, floor, mode } = *request;
    let grace = i64::try_from(policy.grace.as_micros()).unwrap_or(i64::MAX);
    let now = clock.now();
    let gathered = gather(archive, now).await?;
    let catalog = &gathered.catalog;
    let held: Held = gathered.holds.iter().filter(|hold| hold.expires > now).map(|hold| hold.base.clone()).collect();
    let decided = decide(catalog, &policy, floor, &held, now);
    let claim = archive.newest_claim().await?;
    // A clock that is behind would end the grace period early.
    let created = catalog.timelines().filter_map(Timeline::observed_through).fold(now, Micros::max);
    let mut futures = Vec::new();
    for timeline in catalog.timelines() {
        let author = Author {
            archive: archive.id(),
            created,
            epoch: claim.as_ref().map(EpochClaim::epoch).unwrap_or_default(),
            nonce: random.nonce()?,
        };
        futures.push(future(archive, timeline, &decided, &author).await?);
    }
    let after = after(catalog, &decided, &futures);
    let mut condemned = condemned(&gathered, &decided, &after, archive, now);
    condemned.extend(unreferenced_merges(archive, &gathered, now).await?);
    let kept = Kept { after: &after, tags: &decided.tags, condemned: &condemned };
    let due = sweep::due(archive, &gathered, &kept, now, grace).await?;
    let mut report = PruneReport {
        dry_run: mode == Mode::DryRun,
        at: now.to_datetime(),
        window_to: decided.reference.map(Micros::to_datetime),
        window_from: decided.reference.map(|_| decided.from.to_datetime()),
        window_seconds: policy.effective_window(floor).as_secs(),
        window_widened: policy.effective_window(floor) > policy.window,
        timelines: timelines(catalog, &after, &futures),
        condemned: tallies(catalog, &after, &condemned),
        deleted: due.tallies,
        waiting: due.waiting,
        due: due.next.map(Micros::to_datetime),
        holds: held.len(),
        bases: decided.bases,
        tags: decided.tags,
    };
    report.condemned.manifests = manifests(catalog, &after);
    let (Mode::Act, Some(claim)) = (mode, claim) else { return Ok(Some(report)) };
    crate::crash::point("prune-before-turn");
    let Some(turn) = Turn::take(archive, &claim, &gathered, clock, random).await? else { return Ok(None) };
    crate::crash::point("prune-after-turn");
    let stated = state(archive, &claim, &turn, (catalog, condemned, futures), (created, grace), clock, random).await;
    let slept = turn.is_over(clock);
    turn.release().await?;
    stated?;
    if slept {
        return Ok(None);
    }
    sweep::delete(archive, &due, catalog).await?;
    Ok(Some(report))
}

/// Says what is no longer part of the archive. Where the turn ends, the rest is left for the next attempt.
async fn state(
    archive: &Archive,
    claim: &EpochClaim,
    turn: &Turn<'_>,
    (known, condemned, futures): (&Catalog, Vec<CondemnedObject>, Vec<Future>),
    (observed, grace): (Micros, i64),
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<()> {
    // The grace period begins when it is stated, not when it was found.
    let created = observed.max(clock.now());
    if !condemned.is_empty() {
        let random_part: [u8; 4] = random.bytes()?;
        let document = CondemnedDocument {
            version: DOCUMENT_VERSION,
            archive: archive.id(),
            id: BaseId::new(created.to_datetime(), u32::from_le_bytes(random_part)),
            objects: condemned,
            created,
            until: Some(Micros(created.0.saturating_add(grace))),
            epoch: claim.epoch(),
            nonce: random.nonce()?,
            extra: Extra::new(),
        };
        crate::crash::point("prune-before-condemn");
        if turn.is_over(clock) {
            return Ok(());
        }
        if let PutDocument::Conflict(other) = archive.put_condemned(&document, claim, random).await? {
            return Err(Error::new(Code::Internal, DOING).on(ObjectKey::condemned(&other.id)));
        }
        crate::crash::point("prune-after-condemn");
    }
    for Future { statement, .. } in futures {
        let Some(statement) = statement else { continue };
        if merged_meanwhile(archive, known, &statement).await? {
            tracing::info!(timeline = %statement.timeline, "segments were merged meanwhile; the next prune goes on from there");
            continue;
        }
        crate::crash::point("prune-before-boundary");
        if turn.is_over(clock) {
            return Ok(());
        }
        let statement = BoundaryDocument { created: statement.created.max(created), ..statement };
        match archive.put_boundary(&statement, claim, random).await? {
            PutDocument::Created { .. } => {}
            // Another prune has decided meanwhile; what it says counts, and the next one goes on from there.
            PutDocument::Conflict(other) => {
                tracing::info!(timeline = %other.timeline, ordinal = %other.ordinal, "another prune was faster");
            }
        }
        crate::crash::point("prune-after-boundary");
    }
    Ok(())
}

/// Whether a manifest that was written since names a merged segment in which the statement cuts. Its parts would have to stay,
/// and so they do for its grace period; but this prune may be slower than that.
async fn merged_meanwhile(archive: &Archive, known: &Catalog, statement: &BoundaryDocument) -> Result<bool> {
    let timeline = statement.timeline;
    let newest = known.timeline(timeline).and_then(|timeline| timeline.manifests().last()).map(|m| m.number);
    for number in archive.list_manifests(timeline).await? {
        if newest.is_none_or(|newest| number > newest)
            && let Some((manifest, _)) = archive.get_manifest(timeline, number).await?
            && manifest.merged.iter().any(|s| statement.keeps_any(s.ordinals()) && !statement.admits(s.ordinals()))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Merged segments that no manifest names and nothing larger stands for: an archiver died before it could name them, or
/// deletion cut inside them. One that is young is about to be named.
async fn unreferenced_merges(archive: &Archive, gathered: &Gathered, now: Micros) -> Result<Vec<CondemnedObject>> {
    let known: BTreeSet<&ObjectKey> =
        gathered.condemned.iter().filter(|d| d.created <= now).flat_map(|d| d.objects.iter().map(|o| &o.key)).collect();
    let mut found = Vec::new();
    for timeline in gathered.catalog.timelines() {
        let segments = gathered.segments.get(&timeline.id()).map(Vec::as_slice).unwrap_or_default();
        for (ordinals, bytes) in segments.iter().filter(|(ordinals, _)| ordinals.is_merged()) {
            let key = ObjectKey::segment(timeline.id(), *ordinals);
            let kept = timeline.deleted().is_none_or(|deleted| deleted.keeps_any(*ordinals));
            let used = timeline.segment(ordinals.first()).is_some_and(|entry| entry.ordinals() == *ordinals);
            if used || !kept || known.contains(&key) || sweep::superseded_since(timeline, *ordinals).is_some() {
                continue;
            }
            let created = match archive.read_header(timeline.id(), *ordinals).await {
                Ok(header) => header.created,
                Err(e) if e.code() == Code::SegmentMissing => continue,
                // Whoever wrote it did not come to its end; nobody relies on it.
                Err(e) if e.code().retry() == Retry::Never => Micros(i64::MIN),
                Err(e) => return Err(e),
            };
            if elapsed(created, now) >= UNNAMED && created <= now {
                found.push(CondemnedObject { key, bytes: *bytes, why: Condemnation::Unreferenced });
            }
        }
    }
    Ok(found)
}

/// What stays of a timeline. Reads a footer for every range that begins behind segments that go.
async fn future(archive: &Archive, timeline: &Timeline, decided: &Decided, author: &Author) -> Result<Future> {
    let needs = decided.needs.get(&timeline.id()).map(Vec::as_slice).unwrap_or_default();
    let mut ranges = ranges(timeline, needs);
    let (mut looked, mut step) = (0, 1);
    while let Some((part, manifest)) = ranges.distrusted(timeline, looked) {
        let first = ranges.parts.get(part).and_then(|part| timeline.segments().get(part.segments.start));
        let Some(first) = first else { break };
        let footer = archive.read_footer(timeline.id(), first.ordinals()).await?;
        let read = footer.manifest.map(|progress| progress.point);
        if read.is_some_and(|read| read <= manifest) || !ranges.begin_earlier(part, step) {
            (looked, step) = (part + 1, 1);
        } else {
            (looked, step) = (part.saturating_sub(1).min(looked), step * 2);
        }
    }
    let statement = ranges.statement(timeline, author);
    Ok(Future { timeline: timeline.id(), ranges, statement })
}

/// The catalog without what is not kept.
fn after(catalog: &Catalog, decided: &Decided, futures: &[Future]) -> Catalog {
    let dropped = decided.dropped();
    let bases: Vec<BaseDocument> = catalog.bases().iter().filter(|base| !dropped.contains(&base.id)).cloned().collect();
    let statements: BTreeMap<TimelineId, &BoundaryDocument> =
        futures.iter().filter_map(|future| Some((future.timeline, future.statement.as_ref()?))).collect();
    let timelines = catalog.timelines().map(|timeline| match statements.get(&timeline.id()) {
        Some(statement) => timeline.without((*statement).clone()),
        None => timeline.clone(),
    });
    catalog.with(timelines.collect(), bases)
}

/// What is condemned now: bases and tags by decision, files that nothing names any more, what tests of the store left. What
/// is condemned already is not condemned again, unless by a clock that was ahead.
fn condemned(
    gathered: &Gathered,
    decided: &Decided,
    after: &Catalog,
    archive: &Archive,
    now: Micros,
) -> Vec<CondemnedObject> {
    let catalog = &gathered.catalog;
    let since = condemned_since(&gathered.condemned, now);
    let mut found: BTreeMap<ObjectKey, Condemnation> = BTreeMap::new();
    found.extend(decided.dropped().into_iter().map(|id| (ObjectKey::base(id), Condemnation::Base)));
    let expired = decided.tags.iter().filter(|tag| tag.expired);
    let expired = expired.filter_map(|tag| tag_key(archive, &tag.name));
    found.extend(expired.map(|key| (key, Condemnation::ExpiredTag)));
    let needed = referenced(after.bases().iter().chain(&gathered.held_bases), after.timelines());
    let named = referenced(catalog.bases().iter(), catalog.timelines());
    for key in gathered.objects.keys().filter(|key| !needed.contains(key)) {
        if key.as_str().starts_with(prefix::FILES) {
            let of_base = named.contains(key);
            found.insert(key.clone(), if of_base { Condemnation::FileOfBase } else { Condemnation::Unreferenced });
        } else if key.as_str().starts_with(prefix::PROBE) {
            found.insert(key.clone(), Condemnation::Leftover);
        }
    }
    // A base that was published before and is condemned by a clock ahead stays condemned.
    let again = gathered.condemned.iter().filter(|document| document.created > now).flat_map(|d| &d.objects);
    found.extend(again.filter(|o| o.why == Condemnation::Base).map(|o| (o.key.clone(), o.why)));
    let there = |key: ObjectKey, why| {
        let bytes = *gathered.objects.get(&key)?;
        Some(CondemnedObject { key, bytes, why })
    };
    // Under a name that was condemned before there can be another tag since; and a file that was needed until now all the same
    // has its whole grace period from now on.
    let created: BTreeMap<ObjectKey, Micros> =
        catalog.tags().iter().filter_map(|tag| Some((tag_key(archive, &tag.name)?, tag.created))).collect();
    let known = |key: &ObjectKey| {
        let least = created.get(key).copied().unwrap_or(Micros(i64::MIN));
        since.get(key).is_some_and(|since| *since >= least) && !named.contains(key)
    };
    found.into_iter().filter(|(key, _)| !known(key)).filter_map(|(key, why)| there(key, why)).collect()
}

/// The object of a tag.
pub(super) fn tag_key(archive: &Archive, name: &str) -> Option<ObjectKey> {
    pitr_archive::tag::Name::parse(name).ok().map(|name| ObjectKey::tag(archive.tag_hash(&name)))
}

fn tallies(before: &Catalog, after: &Catalog, condemned: &[CondemnedObject]) -> Tallies {
    let mut tallies = Tallies::default();
    for object in condemned {
        let bytes = object.bytes;
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
    }
    for timeline in before.timelines() {
        tallies.segments = tallies.segments.plus(dropped(timeline, after.timeline(timeline.id())));
    }
    tallies
}

/// Segments that are there before and not after.
fn dropped(before: &Timeline, after: Option<&Timeline>) -> Tally {
    let mut tally = Tally::default();
    let Some(deleted) = after.and_then(Timeline::deleted) else { return tally };
    for segment in before.segments().iter().filter(|segment| !deleted.keeps(segment.ordinal)) {
        tally.add(segment.object_bytes);
    }
    tally
}

/// Manifests that are there before and not after; their sizes are not known.
fn manifests(before: &Catalog, after: &Catalog) -> Tally {
    let count = |catalog: &Catalog| catalog.timelines().map(|t| t.manifests().len() as u64).sum::<u64>();
    Tally { objects: count(before).saturating_sub(count(after)), bytes: 0 }
}

fn timelines(before: &Catalog, after: &Catalog, futures: &[Future]) -> Vec<TimelineReport> {
    let reported = futures.iter().filter_map(|future| {
        let timeline = before.timeline(future.timeline)?;
        let kept = future.ranges.parts.iter().filter_map(|part| {
            let segments = timeline.segments().get(part.segments.clone())?;
            let (first, last) = (segments.first()?, segments.last()?);
            Some(KeptSegmentsReport {
                from: first.ordinal,
                to: last.ordinals().last(),
                first: first.first,
                end: last.end,
                segments: segments.len() as u64,
                bytes: segments.iter().map(|segment| segment.object_bytes).sum(),
                keep: part.why.clone(),
            })
        });
        Some(TimelineReport {
            timeline: future.timeline,
            kept: kept.collect(),
            dropped: dropped(timeline, after.timeline(future.timeline)),
            before: restorable(before, future.timeline),
            after: restorable(after, future.timeline),
        })
    });
    reported.collect()
}

fn restorable(catalog: &Catalog, timeline: TimelineId) -> Vec<Window> {
    let bases: Vec<&BaseDocument> = catalog.bases().iter().filter(|base| base.floor.timeline == timeline).collect();
    catalog.timeline(timeline).map(|timeline| windows(timeline, &bases)).unwrap_or_default()
}
