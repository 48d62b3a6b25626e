//! As much of a catalog as a plan needs, by few reads.
//!
//! Owns: [`Outline`], a catalog in which most manifests were not read: an index says what they say, and one entry stands for
//! all segments of each ([`RolledUp`](crate::catalog::schema::RolledUp)). What a plan finds that it must know exactly is
//! read then, and compared with what the index said ([`Outline::expand`]).
//!
//! Where anything is not in order (an object of the catalog is damaged or lost, two of them contradict one another, an index
//! is wrong), the whole catalog is read instead: what is said of a damaged archive, and what can still be restored of it,
//! does not depend on indexes. Only a damaged index itself is passed over, and said.
//!
//! What the outline does not tell, and `load` does: whether the documents of claims, and of those bases and tags that
//! manifests name, can be read. What of them is used is read in the end. A tag that was deleted and made again since counts
//! as the one that a manifest names; it is a target by its own document.

mod each;
mod merged;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use self::merged::Opening;
use crate::{
    catalog::{
        archive::{Archive, CONCURRENCY},
        index::{Part, cover, indexed, slim},
        invariants,
        load::{Survey, absent_manifest, is_finding, keep, without_manifest},
        model::{Catalog, Counting, Entries, Manifest, Manifests, NamedMerge, Outlined, Timeline},
        schema::{
            BaseDocument, BoundaryDocument, CondemnedDocument, IndexDocument, SegmentSummary, TagDocument,
            TimelineDocument,
        },
    },
    clock::Micros,
    error::{Error, Result},
    ids::{BaseId, ContentHash, Epoch, ManifestNumber, ManifestNumbers, Ordinal, TimelineId},
    object_key::{ObjectKey, prefix},
    tag,
};

/// A catalog of which most was not read.
#[derive(Debug)]
pub struct Outline {
    catalog: Catalog,
    /// The claims that there are; their documents were not read.
    epochs: HashSet<Epoch>,
    /// Bases that are known without their files.
    slim: BTreeSet<BaseId>,
    /// The merged segments of each timeline. Over entries that stand for manifests they are not in place.
    counting: BTreeMap<TimelineId, Counting>,
    /// What is not as it should be.
    findings: Vec<Error>,
}

/// What of an outline must be known exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Manifests.
    pub manifests: BTreeSet<(TimelineId, ManifestNumber)>,
    /// Bases.
    pub bases: BTreeSet<BaseId>,
}

impl Wanted {
    /// Whether that is nothing.
    pub fn is_empty(&self) -> bool {
        self.manifests.is_empty() && self.bases.is_empty()
    }
}

/// Something is not in order: the whole catalog tells.
struct Irregular;

/// `Ok(Err(Irregular))` where something is not in order; the outer error where the store does not answer.
type Regular<T> = Result<std::result::Result<T, Irregular>>;

/// Takes what is in order out of a [`Regular`], or passes on that it is not.
macro_rules! regular {
    ($value:expr) => {
        match $value {
            Ok(value) => value,
            Err(Irregular) => return Ok(Err(Irregular)),
        }
    };
}

impl Archive {
    /// Reads as much of the catalog as a plan begins with. What is damaged is in its findings.
    pub async fn load_outline(&self) -> Result<Outline> {
        match self.outline().await? {
            Ok(outline) => Ok(outline),
            Err(Irregular) => Outline::whole(self).await,
        }
    }

    async fn outline(&self) -> Regular<Outline> {
        let mut findings = Vec::new();
        let mut damage = Vec::new();
        // The order is that of `survey`: what names is read before what is named.
        let condemned: Vec<CondemnedDocument> = keep(self.all_outcomes(prefix::CONDEMNED).await?, &mut damage)?;
        let documents: Vec<TimelineDocument> = keep(self.all_outcomes(prefix::TIMELINES).await?, &mut damage)?;
        let mut rolled_up = Vec::with_capacity(documents.len());
        let mut bases: BTreeMap<BaseId, BaseDocument> = BTreeMap::new();
        for document in documents {
            let (timeline, told) = regular!(self.rolled_up(document, &mut findings).await?);
            rolled_up.push(timeline);
            bases.extend(told.into_iter().map(|base| (base.id.clone(), base)));
        }
        let condemned_keys: HashSet<&ObjectKey> = condemned.iter().flat_map(|c| &c.objects).map(|o| &o.key).collect();
        let listed = self.list_bases().await?;
        let there: BTreeSet<&BaseId> = listed.iter().collect();
        bases.retain(|id, _| there.contains(id));
        let mut slim: BTreeSet<BaseId> = bases.keys().cloned().collect();
        let unknown: Vec<_> = listed
            .iter()
            .filter(|id| !bases.contains_key(*id) && !condemned_keys.contains(&ObjectKey::base(id)))
            .map(ObjectKey::base)
            .collect();
        let read = self.outcomes_of(unknown, without_manifest).await;
        bases.extend(keep(read, &mut damage)?.into_iter().map(|base: BaseDocument| (base.id.clone(), base)));
        let tags = keep(self.tags_that_no_manifest_names(&rolled_up).await?, &mut damage)?;
        let mut timelines = Vec::with_capacity(rolled_up.len());
        let mut counting = BTreeMap::new();
        for mut timeline in rolled_up {
            counting.insert(timeline.document.timeline, std::mem::take(&mut timeline.counting));
            timelines.push(regular!(self.with_tail(timeline).await?));
        }
        let epochs: HashSet<Epoch> = self.list_epochs().await?.into_iter().collect();
        let mut catalog =
            Catalog::new(self.document().clone(), Vec::new(), timelines, bases.into_values().collect(), Vec::new())
                .with_condemned(&condemned);
        catalog.set_tags(tags);
        slim.retain(|id| catalog.base(id).is_some());
        let outline = Outline { catalog, epochs, slim, counting, findings };
        Ok(if damage.is_empty() && outline.holds() { Ok(outline) } else { Err(Irregular) })
    }

    /// Tags that were made since the last manifest, or whose archiver died before it wrote one.
    async fn tags_that_no_manifest_names(&self, timelines: &[RolledUpTimeline]) -> Result<Vec<Result<TagDocument>>> {
        let manifests = timelines.iter().flat_map(|timeline| &timeline.manifests);
        let named: HashSet<ContentHash> = manifests.flat_map(|m| &m.tags).map(|(hash, _)| *hash).collect();
        let unnamed = |key: &ObjectKey| key.stem().parse().is_ok_and(|hash: ContentHash| !named.contains(&hash));
        let keys = self.keys(prefix::TAGS).await?.into_iter().filter(unnamed).collect();
        Ok(self.outcomes_of(keys, |tag| tag).await)
    }

    /// What manifests tell of a timeline, and the bases that indexes tell of.
    async fn rolled_up(
        &self,
        document: TimelineDocument,
        findings: &mut Vec<Error>,
    ) -> Regular<(RolledUpTimeline, Vec<BaseDocument>)> {
        let id = document.timeline;
        let deleted = match self.deletion_boundary(id).await {
            Err(e) if is_finding(e.code()) => return Ok(Err(Irregular)),
            deleted => deleted?,
        };
        // Before the manifests: those that an index names were there before it.
        let mut indexes: BTreeSet<ManifestNumbers> = self.list_indexes(id).await?.into_iter().collect();
        let mut numbers = self.list_manifests(id).await?;
        numbers.retain(|number| deleted.as_ref().is_none_or(|deleted| deleted.keeps_manifest(*number)));
        let Covered { told, bases } = self.covered(id, &numbers, &mut indexes, findings).await?;
        let mut entries: BTreeMap<ManifestNumber, (Manifest, Vec<SegmentSummary>)> = BTreeMap::new();
        for (number, manifest) in told {
            let kept = manifest.ordinals().map(|(first, last)| Kept::of(deleted.as_ref(), first, last));
            let Some((outline, segments)) = manifest.outline() else { continue };
            match kept {
                Some(Kept::All) => drop(entries.insert(number, (outline, vec![segments]))),
                Some(Kept::Nothing) => drop(entries.insert(number, (outline, Vec::new()))),
                // Which of its events are left, the manifest tells.
                Some(Kept::Some) | None => {}
            }
        }
        let rest: BTreeSet<_> = numbers.iter().copied().filter(|number| !entries.contains_key(number)).collect();
        let mut named = Named::new();
        for read in self.read_manifests(id, rest).await {
            match read {
                Ok(ReadManifest { manifest, segments, merged, .. }) => {
                    named.insert(manifest.number, merged);
                    entries.insert(manifest.number, (manifest, segments));
                }
                Err(e) if is_finding(e.code()) => return Ok(Err(Irregular)),
                Err(e) => return Err(e),
            }
        }
        let (mut manifests, mut segments) = (Vec::with_capacity(entries.len()), Vec::new());
        for (manifest, of_manifest) in entries.into_values() {
            manifests.push(manifest);
            segments.extend(of_manifest);
        }
        let Some(counting) = Counting::of(&manifests, deleted.as_ref()) else { return Ok(Err(Irregular)) };
        let Some(opening) = Opening::first(&counting, &segments) else { return Ok(Err(Irregular)) };
        let known = Known { timeline: id, deleted: deleted.as_ref(), manifests: &manifests, segments: &segments };
        let (segments, since) = regular!(self.opened(known, &opening, named).await?);
        Ok(Ok((RolledUpTimeline { document, deleted, manifests, segments, since, counting }, bases)))
    }

    /// Reads what must be known exactly, as far as it is not in `named`, compares it with what was known, and puts it into
    /// its place.
    async fn opened(
        &self,
        known: Known<'_>,
        opening: &Opening,
        mut named: Named,
    ) -> Regular<(Vec<SegmentSummary>, BTreeMap<Ordinal, Micros>)> {
        let missing = opening.reads().into_iter().filter(|number| !named.contains_key(number)).collect();
        let mut inside: BTreeMap<ManifestNumber, Vec<SegmentSummary>> = BTreeMap::new();
        for read in self.read_manifests(known.timeline, missing).await {
            let ReadManifest { manifest, segments, merged, told } = match read {
                Err(e) if is_finding(e.code()) => return Ok(Err(Irregular)),
                read => read?,
            };
            if !known.tells(&manifest) {
                return Ok(Err(Irregular));
            }
            named.insert(manifest.number, merged);
            if opening.manifests.contains(&manifest.number) {
                if !told.is_some_and(|(_, summary)| known.segments.contains(&summary)) {
                    return Ok(Err(Irregular));
                }
                inside.insert(manifest.number, segments);
            }
        }
        let mut segments = Vec::with_capacity(known.segments.len());
        for entry in known.segments {
            match entry.rolled_up.as_ref().and_then(|rolled_up| inside.remove(&rolled_up.manifest)) {
                Some(inside) => segments.extend(inside),
                None => segments.push(entry.clone()),
            }
        }
        if opening.merged.is_empty() {
            return Ok(Ok((segments, BTreeMap::new())));
        }
        let mut entries = Entries::new(segments);
        for counted in &opening.merged {
            let by = named.get(&counted.by).into_iter().flatten();
            let Some(merge) = by.clone().find(|merge| merge.summary.ordinals() == counted.ordinals) else {
                return Ok(Err(Irregular));
            };
            let applied = entries.apply(known.timeline, merge.clone(), known.deleted, Manifests::All);
            let Ok(Some(_)) = applied else { return Ok(Err(Irregular)) };
        }
        Ok(Ok(entries.into_parts()))
    }

    /// With the segments that no manifest has. All manifests are there, or the check finds that they are not.
    async fn with_tail(&self, timeline: RolledUpTimeline) -> Regular<Timeline> {
        let RolledUpTimeline { document, deleted, manifests, mut segments, since, .. } = timeline;
        let id = document.timeline;
        let last = manifests.iter().rev().find(|manifest| manifest.segments.end > manifest.segments.start);
        let rolled_up = last.and_then(|last| last.segments.end.get().checked_sub(1)).map(Ordinal::new);
        let mut listed = self.list_segments(id, rolled_up).await?;
        listed.retain(|(ordinal, _)| deleted.as_ref().is_none_or(|deleted| deleted.keeps(*ordinal)));
        for (_, footer) in self.footers(id, listed).await {
            match footer {
                Ok(footer) => segments.push(footer.summary),
                Err(e) if is_finding(e.code()) => return Ok(Err(Irregular)),
                Err(e) => return Err(e),
            }
        }
        Ok(Ok(Timeline::new(document, manifests, deleted, segments).merged(since)))
    }

    /// What the fewest indexes say of these manifests. One that cannot be read is passed over.
    async fn covered(
        &self,
        timeline: TimelineId,
        numbers: &[ManifestNumber],
        indexes: &mut BTreeSet<ManifestNumbers>,
        findings: &mut Vec<Error>,
    ) -> Result<Covered> {
        let mut read: BTreeMap<ManifestNumbers, IndexDocument> = BTreeMap::new();
        loop {
            let of_index = |part| match part {
                Part::Index(index) => Some(index),
                Part::Manifest(_) => None,
            };
            let wanted: BTreeSet<_> = cover(numbers, indexes).into_iter().filter_map(of_index).collect();
            read.retain(|index, _| wanted.contains(index));
            let missing: Vec<_> = wanted.into_iter().filter(|index| !read.contains_key(index)).collect();
            if missing.is_empty() {
                break;
            }
            let outcomes: Vec<_> = stream::iter(missing)
                .map(|index| async move { (index, self.get_index(timeline, index).await) })
                .buffered(CONCURRENCY)
                .collect()
                .await;
            for (index, outcome) in outcomes {
                match outcome {
                    Ok(Some(document)) => drop(read.insert(index, document)),
                    // Deleted meanwhile.
                    Ok(None) => drop(indexes.remove(&index)),
                    Err(e) if is_finding(e.code()) => {
                        findings.push(e);
                        indexes.remove(&index);
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        let wanted: HashSet<ManifestNumber> = numbers.iter().copied().collect();
        let mut covered = Covered { told: BTreeMap::new(), bases: Vec::new() };
        for (index, document) in read {
            let told = document.manifests.into_iter();
            let told = told.filter(|told| index.contains(told.number) && wanted.contains(&told.number));
            covered.told.extend(told.map(|told| (told.number, told)));
            covered.bases.extend(document.bases);
        }
        Ok(covered)
    }

    /// Manifests, each with its segments and what an index must say of it, in order.
    async fn read_manifests(
        &self,
        timeline: TimelineId,
        numbers: BTreeSet<ManifestNumber>,
    ) -> Vec<Result<ReadManifest>> {
        stream::iter(numbers)
            .map(|number| async move {
                let found = self.get_manifest(timeline, number).await?;
                let (document, hash) = found.ok_or_else(|| absent_manifest(timeline, number))?;
                let told = indexed(&document, hash).outline();
                let Outlined { manifest, segments, merged } = Manifest::outline(document, hash);
                Ok(ReadManifest { manifest, segments, merged, told })
            })
            .buffered(CONCURRENCY)
            .collect()
            .await
    }
}

/// A timeline as far as its manifests go.
struct RolledUpTimeline {
    document: TimelineDocument,
    deleted: Option<BoundaryDocument>,
    manifests: Vec<Manifest>,
    segments: Vec<SegmentSummary>,
    /// Since when merged segments among them count.
    since: BTreeMap<Ordinal, Micros>,
    counting: Counting,
}

/// The merged segments that manifests name.
type Named = BTreeMap<ManifestNumber, Vec<NamedMerge>>;

/// What is known of a timeline.
#[derive(Clone, Copy)]
struct Known<'a> {
    timeline: TimelineId,
    deleted: Option<&'a BoundaryDocument>,
    manifests: &'a [Manifest],
    segments: &'a [SegmentSummary],
}

impl Known<'_> {
    /// Whether a manifest is what is known of it.
    fn tells(&self, manifest: &Manifest) -> bool {
        let found = self.manifests.binary_search_by_key(&manifest.number, |known| known.number);
        found.ok().and_then(|index| self.manifests.get(index)) == Some(manifest)
    }
}

/// A manifest that was read.
struct ReadManifest {
    manifest: Manifest,
    segments: Vec<SegmentSummary>,
    merged: Vec<NamedMerge>,
    /// What an index must say of it, and of its segments as one.
    told: Option<(Manifest, SegmentSummary)>,
}

/// What indexes say.
struct Covered {
    told: BTreeMap<ManifestNumber, crate::catalog::schema::IndexedManifest>,
    bases: Vec<BaseDocument>,
}

/// What deletion left of the segments of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    All,
    Some,
    Nothing,
}

impl Kept {
    fn of(deleted: Option<&BoundaryDocument>, first: Ordinal, last: Ordinal) -> Self {
        let Some(deleted) = deleted else { return Self::All };
        let mut kept = Self::Nothing;
        for range in deleted.ranges() {
            let end = range.end.map(|(end, ..)| end);
            if range.from <= first && end.is_none_or(|end| last < end) {
                return Self::All;
            }
            if range.from <= last && end.is_none_or(|end| first < end) {
                kept = Self::Some;
            }
        }
        kept
    }
}

impl Outline {
    /// The whole catalog, as far as it is sound.
    async fn whole(archive: &Archive) -> Result<Self> {
        let Survey { catalog, findings } = archive.load_what_is_sound().await?;
        let epochs = catalog.epochs().map(|epoch| epoch.epoch).collect();
        Ok(Self { catalog, epochs, slim: BTreeSet::new(), counting: BTreeMap::new(), findings })
    }

    /// What is known. Entries that stand for a manifest's segments are among its segments: nobody but a plan that says what
    /// it must know exactly should look at it.
    pub const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What was found wrong since this was last asked.
    pub fn take_findings(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.findings)
    }

    /// Bases of which the files are not known.
    pub const fn slim(&self) -> &BTreeSet<BaseId> {
        &self.slim
    }

    fn holds(&self) -> bool {
        invariants::check_with(&self.catalog, |epoch| self.epochs.contains(&epoch)).is_empty()
    }

    /// Makes a tag known, or, where there is no such tag, all that there are.
    pub async fn learn_tag(&mut self, archive: &Archive, name: &str) -> Result<()> {
        if self.catalog.tag(name).is_some() {
            return Ok(());
        }
        let found = match tag::Name::parse(name) {
            Ok(name) => archive.get_tag(&name).await,
            Err(_) => Ok(None),
        };
        let tags = match found {
            Ok(Some(tag)) => self.catalog.tags().iter().cloned().chain([tag]).collect(),
            Ok(None) => archive.tags().await?,
            Err(e) if is_finding(e.code()) => {
                *self = Self::whole(archive).await?;
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        self.catalog.set_tags(tags);
        if !self.holds() {
            *self = Self::whole(archive).await?;
        }
        Ok(())
    }

    /// Makes all bases known with their files.
    pub async fn learn_bases(&mut self, archive: &Archive) -> Result<()> {
        let wanted = Wanted { bases: self.slim.clone(), ..Wanted::default() };
        if wanted.is_empty() { Ok(()) } else { self.expand(archive, &wanted).await }
    }

    /// Makes all tags known.
    pub async fn learn_tags(&mut self, archive: &Archive) -> Result<()> {
        match archive.tags().await {
            Ok(tags) => self.catalog.set_tags(tags),
            Err(e) if is_finding(e.code()) => *self = Self::whole(archive).await?,
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Makes the last segments of every timeline known.
    pub async fn learn_ends(&mut self, archive: &Archive) -> Result<()> {
        let last = |timeline: &Timeline| Some((timeline.id(), timeline.head()?.rolled_up.as_ref()?.manifest));
        let manifests = self.catalog.timelines().filter_map(last).collect();
        let wanted = Wanted { manifests, ..Wanted::default() };
        if wanted.is_empty() { Ok(()) } else { self.expand(archive, &wanted).await }
    }

    /// Reads what is wanted, and compares it with what was known. Where they contradict one another, the whole catalog is
    /// read.
    pub async fn expand(&mut self, archive: &Archive, wanted: &Wanted) -> Result<()> {
        let expanded = match self.expanded(archive, wanted).await? {
            Ok((timelines, bases)) => {
                for base in &bases {
                    self.slim.remove(&base.id);
                }
                self.catalog.replace(timelines, bases);
                self.holds()
            }
            Err(Irregular) => false,
        };
        if !expanded {
            tracing::warn!("an index does not tell what the archive holds; reading the whole catalog");
            *self = Self::whole(archive).await?;
        }
        Ok(())
    }

    async fn expanded(&self, archive: &Archive, wanted: &Wanted) -> Regular<(Vec<Timeline>, Vec<BaseDocument>)> {
        let mut by_timeline: BTreeMap<TimelineId, BTreeSet<ManifestNumber>> = BTreeMap::new();
        for (timeline, number) in &wanted.manifests {
            by_timeline.entry(*timeline).or_default().insert(*number);
        }
        let (mut timelines, none) = (Vec::new(), Counting::default());
        for (id, numbers) in by_timeline {
            let Some(timeline) = self.catalog.timeline(id) else { return Ok(Err(Irregular)) };
            let counting = self.counting.get(&id).unwrap_or(&none);
            let Some(opening) = Opening::of(counting, timeline.segments(), &numbers) else {
                return Ok(Err(Irregular));
            };
            let known = Known {
                timeline: id,
                deleted: timeline.deleted(),
                manifests: timeline.manifests(),
                segments: timeline.segments(),
            };
            let (segments, since) = regular!(archive.opened(known, &opening, Named::new()).await?);
            timelines.push(timeline.with_segments(segments, since));
        }
        let bases: Vec<_> = stream::iter(&wanted.bases)
            .map(|id| async move { archive.get_base(id).await })
            .buffered(CONCURRENCY)
            .map(|read| match read {
                Err(e) if is_finding(e.code()) => Ok(None),
                read => read,
            })
            .try_collect()
            .await?;
        let mut exact = Vec::with_capacity(bases.len());
        for base in bases {
            // Pruned meanwhile, or not what the index said.
            let Some(base) = base.map(without_manifest) else { return Ok(Err(Irregular)) };
            if self.catalog.base(&base.id) != Some(&slim(base.clone())) {
                return Ok(Err(Irregular));
            }
            exact.push(base);
        }
        Ok(Ok((timelines, exact)))
    }
}
