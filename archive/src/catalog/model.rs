//! The archive as it is in memory, and its questions.
//!
//! Owns: [`Catalog`] and [`Timeline`]: segments by boundary, the history that their events tell, and pure queries over
//! both. Queries over boundaries are binary searches; what is derived is derived once.
//! Refuses: reading, and deciding what a restore does (`replayer::plan`).

use std::{collections::BTreeMap, ops::Range};

use crate::{
    catalog::schema::{
        ArchiveDocument, BaseDocument, CondemnedDocument, EpochDocument, ManifestDocument, Position, SegmentSummary,
        TagDocument,
    },
    clock::Micros,
    ids::{BaseId, Boundary, ContentHash, Epoch, ManifestNumber, Ordinal, Ordinals, TimelineId},
    object_key::ObjectKey,
};

mod counting;
mod history;
mod kept;
mod merged;
mod timeline;

pub use kept::{KeptRange, ManifestPath};

pub use history::{Barrier, ColumnFamilyEvent, History, Run, Session, Wal};
pub use merged::{Entries, Manifests, NamedMerge};
pub use timeline::{Named, Timeline};

pub(crate) use counting::{Counted, Counting, covers};
pub(crate) use merged::{holes, in_place};

/// All that an archive says about itself.
#[derive(Clone, Debug)]
pub struct Catalog {
    archive: ArchiveDocument,
    epochs: BTreeMap<Epoch, EpochDocument>,
    timelines: BTreeMap<TimelineId, Timeline>,
    bases: Vec<BaseDocument>,
    tags: Vec<TagDocument>,
    condemned: BTreeMap<ObjectKey, Micros>,
}

impl Catalog {
    /// From its parts; `bases` in order of their names, `tags` of theirs.
    pub fn new(
        archive: ArchiveDocument,
        epochs: Vec<EpochDocument>,
        timelines: Vec<Timeline>,
        bases: Vec<BaseDocument>,
        tags: Vec<TagDocument>,
    ) -> Self {
        Self {
            archive,
            epochs: epochs.into_iter().map(|e| (e.epoch, e)).collect(),
            timelines: timelines.into_iter().map(|t| (t.id(), t)).collect(),
            bases,
            tags,
            condemned: BTreeMap::new(),
        }
    }

    /// Leaves out the bases that are no longer part of the archive.
    #[must_use]
    pub fn with_condemned(mut self, documents: &[CondemnedDocument]) -> Self {
        for document in documents {
            for object in &document.objects {
                let since = self.condemned.entry(object.key.clone()).or_insert(document.created);
                *since = document.created.min(*since);
            }
        }
        let condemned = &self.condemned;
        self.bases.retain(|base| !condemned.contains_key(&ObjectKey::base(&base.id)));
        self
    }

    /// What is no longer part of the archive, deleted already or not, and since when.
    pub const fn condemned(&self) -> &BTreeMap<ObjectKey, Micros> {
        &self.condemned
    }

    /// The same archive with other timelines and bases.
    #[must_use]
    pub fn with(&self, timelines: Vec<Timeline>, bases: Vec<BaseDocument>) -> Self {
        let epochs = self.epochs.values().cloned().collect();
        let mut catalog = Self::new(self.archive.clone(), epochs, timelines, bases, self.tags.clone());
        catalog.condemned.clone_from(&self.condemned);
        catalog
    }

    /// Keeps these bases only.
    pub(crate) fn retain_bases(&mut self, wanted: impl Fn(&BaseDocument) -> bool) {
        self.bases.retain(wanted);
    }

    /// Puts a timeline or a base into the place of the same one, which told less.
    pub(crate) fn replace(&mut self, timelines: Vec<Timeline>, bases: Vec<BaseDocument>) {
        self.timelines.extend(timelines.into_iter().map(|timeline| (timeline.id(), timeline)));
        for base in bases {
            if let Some(known) = self.bases.iter_mut().find(|known| known.id == base.id) {
                *known = base;
            }
        }
    }

    /// With these tags.
    pub(crate) fn set_tags(&mut self, mut tags: Vec<TagDocument>) {
        tags.sort_by(|a, b| a.name.cmp(&b.name));
        self.tags = tags;
    }

    pub(crate) fn timeline_mut(&mut self, id: TimelineId) -> Option<&mut Timeline> {
        self.timelines.get_mut(&id)
    }

    /// `archive.json`.
    pub const fn archive(&self) -> &ArchiveDocument {
        &self.archive
    }

    /// A writer's claim.
    pub fn epoch(&self, epoch: Epoch) -> Option<&EpochDocument> {
        self.epochs.get(&epoch)
    }

    /// All claims in order.
    pub fn epochs(&self) -> impl Iterator<Item = &EpochDocument> {
        self.epochs.values()
    }

    /// A timeline.
    pub fn timeline(&self, id: TimelineId) -> Option<&Timeline> {
        self.timelines.get(&id)
    }

    /// All timelines in order of their numbers.
    pub fn timelines(&self) -> impl DoubleEndedIterator<Item = &Timeline> {
        self.timelines.values()
    }

    /// The timeline that was written last: that of the newest claim, and of several the one opened last.
    pub fn current_timeline(&self) -> Option<&Timeline> {
        let written = |t: &&Timeline| (t.head().map(|head| head.epoch).max(Some(t.document().epoch)), t.id());
        self.timelines.values().max_by_key(written)
    }

    /// A base.
    pub fn base(&self, id: &BaseId) -> Option<&BaseDocument> {
        self.bases.binary_search_by(|base| base.id.cmp(id)).ok().and_then(|i| self.bases.get(i))
    }

    /// All bases in order of their names, which is that of time.
    pub fn bases(&self) -> &[BaseDocument] {
        &self.bases
    }

    /// The bases of a run, in order of their floors.
    pub fn bases_of_run(&self, timeline: TimelineId, run: u64) -> Vec<&BaseDocument> {
        let mut found: Vec<_> = self.bases.iter().filter(|b| b.floor.timeline == timeline && b.run == run).collect();
        found.sort_by_key(|base| base.floor.boundary);
        found
    }

    /// A tag by its name.
    pub fn tag(&self, name: &str) -> Option<&TagDocument> {
        self.tags.binary_search_by(|tag| tag.name.as_str().cmp(name)).ok().and_then(|i| self.tags.get(i))
    }

    /// All tags in order of their names.
    pub fn tags(&self) -> &[TagDocument] {
        &self.tags
    }
}

/// A manifest without its segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its number.
    pub number: ManifestNumber,
    /// Hash of its stored bytes.
    pub hash: ContentHash,
    /// Hash of the manifest before, as it says.
    pub previous: Option<ContentHash>,
    /// The ordinals of its segments.
    pub segments: Range<Ordinal>,
    /// Bases that it names.
    pub bases: Vec<BaseId>,
    /// Tags that it names: hash of the name, position.
    pub tags: Vec<(ContentHash, Position)>,
    /// Ranges of boundaries whose segments were deleted.
    pub pruned: Vec<(Boundary, Boundary)>,
    /// The ordinals of merged segments that it names.
    pub merged: Vec<Ordinals>,
    /// Rebuilt by reading segments.
    pub rebuilt: bool,
    /// When it was written.
    pub created: Micros,
    /// The writer.
    pub epoch: Epoch,
}

impl Manifest {
    /// Takes a document apart.
    pub fn outline(document: ManifestDocument, hash: ContentHash) -> Outlined {
        let first = document.segments.first().map_or(Ordinal::new(0), |s| s.ordinal);
        let end = document.segments.last().and_then(|s| s.ordinals().next()).unwrap_or(first);
        let outline = Self {
            number: document.number,
            hash,
            previous: document.previous,
            segments: first..end,
            bases: document.bases,
            tags: document.tags,
            pruned: document.pruned,
            merged: document.merged.iter().map(SegmentSummary::ordinals).collect(),
            rebuilt: document.rebuilt,
            created: document.created,
            epoch: document.epoch,
        };
        let since = document.created;
        let merged = document.merged.into_iter().map(|summary| NamedMerge { summary, since }).collect();
        Outlined { manifest: outline, segments: document.segments, merged }
    }
}

/// A manifest, taken apart.
#[derive(Clone, Debug)]
pub struct Outlined {
    /// What it says beside its segments.
    pub manifest: Manifest,
    /// Its segments.
    pub segments: Vec<SegmentSummary>,
    /// The merged segments that it names.
    pub merged: Vec<NamedMerge>,
}
