//! One archive in its store.
//!
//! Owns: opening and creating, the writer's claim, and typed reading and writing of every object. Every creation is
//! exclusive; when a name is taken, the object that is there is read back: with our nonce in it, an earlier attempt's
//! reply was lost and the object is ours; otherwise the caller gets the other one and decides.
//! Everything that is read is verified (`envelope`, `document`, `segment::reader`).
//! Refuses: overwriting, and guessing the end of a timeline: [`Archive::tail`] lists.

use std::sync::Arc;

use crate::{
    catalog::{
        document,
        schema::{
            ARCHIVE_FORMAT, ArchiveDocument, BaseDocument, BoundaryDocument, CondemnedDocument, DOCUMENT_VERSION,
            EpochDocument, Extra, HoldDocument, ManifestDocument, Position, SegmentFooter, SegmentSummary, TagDocument,
            TimelineDocument,
        },
    },
    clock::Clock,
    code::Code,
    error::{Error, Result},
    ids::{ArchiveId, BaseId, ContentHash, Epoch, ManifestNumber, Nonce, TimelineId},
    keyring::{Keyring, MasterKey},
    object_key::{ObjectKey, prefix},
    random::Random,
    segment::header::SegmentHeader,
    store::{Put, Store},
    tag,
};

mod documents;
mod drills;
pub mod indexes;
mod segments;

/// Requests under way at once while many objects are read.
pub const CONCURRENCY: usize = 16;
/// The longest segment that is read: the longest record and its surroundings.
pub const MAX_SEGMENT: u64 = 4 << 30;
const MAX_ARCHIVE_JSON: u64 = 1 << 20;

/// What a timeline is opened with.
#[derive(Clone, Copy, Debug)]
pub struct NewTimeline<'a> {
    /// The database's own identity.
    pub db_id: &'a str,
    /// The marker of the restore that the database comes from.
    pub restore_marker: Option<Nonce>,
    /// Where it left its parent.
    pub parent: Option<Position>,
    /// What showed that a history begins here, for people.
    pub detail: &'a str,
}

impl NewTimeline<'_> {
    /// Whether `other` was opened for the same history.
    pub fn is_opened_by(&self, other: &TimelineDocument) -> bool {
        other.db_id == self.db_id && other.restore_marker == self.restore_marker && other.parent == self.parent
    }
}

/// What became of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum PutDocument<D> {
    /// It is there and ours.
    Created {
        /// blake3 of its stored bytes.
        hash: ContentHash,
    },
    /// Another one has its name.
    Conflict(Box<D>),
}

/// What became of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum PutSegment {
    /// It is there and ours.
    Created,
    /// Another one has its ordinal; [`Archive::read_footer`] tells more about it.
    Conflict(Box<SegmentHeader>),
}

/// A writer's claim on the archive: the right to try to write. The highest claim counts.
#[derive(Clone, Debug)]
pub struct EpochClaim {
    document: EpochDocument,
}

impl EpochClaim {
    /// Its number.
    pub const fn epoch(&self) -> Epoch {
        self.document.epoch
    }

    /// What is stored about it.
    pub const fn document(&self) -> &EpochDocument {
        &self.document
    }
}

/// The end of a timeline, for its next writer.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The last segment's footer; `None` when there is no segment.
    pub head: Option<SegmentFooter>,
    /// Segments that no manifest holds, in order.
    pub segments: Vec<SegmentSummary>,
    /// The number of the next manifest.
    pub next_manifest: ManifestNumber,
    /// Hash of the last manifest's stored bytes.
    pub previous_manifest: Option<ContentHash>,
    /// Where deletion stopped, if it ever ran.
    pub deleted: Option<BoundaryDocument>,
}

/// An archive.
#[derive(Debug)]
pub struct Archive {
    store: Arc<dyn Store>,
    document: ArchiveDocument,
    keyring: Arc<Keyring>,
}

impl Archive {
    /// Opens an existing archive.
    ///
    /// # Errors
    /// `archive.not-found`; `key.required`, `key.wrong`, `key.unexpected`; what the store answers.
    pub async fn open(store: Arc<dyn Store>, master: Option<MasterKey>) -> Result<Self> {
        match Self::open_if_there(store.clone(), master).await? {
            Some(archive) => Ok(archive),
            None => Err(Error::new(Code::NotAnArchive, "opening the archive").on(store.describe())),
        }
    }

    async fn open_if_there(store: Arc<dyn Store>, master: Option<MasterKey>) -> Result<Option<Self>> {
        let Some(bytes) = store.get(&ObjectKey::archive(), MAX_ARCHIVE_JSON).await? else { return Ok(None) };
        let document = document::parse_archive(&bytes)?;
        let keyring = Arc::new(Keyring::open(master, &document)?);
        Ok(Some(Self { store, document, keyring }))
    }

    /// Opens the archive, or creates it when there is none; encrypted exactly when a key is given. Two creators at
    /// once: one wins, the other opens.
    pub async fn open_or_create(
        store: Arc<dyn Store>,
        master: Option<MasterKey>,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Self> {
        if let Some(archive) = Self::open_if_there(store.clone(), master.clone()).await? {
            return Ok(archive);
        }
        // What a writer leaves first after this document. With those there, it was lost: a new one, under another identity
        // and with other keys, would make everything else unreadable.
        if let Some(claim) = store.list(prefix::EPOCHS, None).await?.first() {
            return match Self::open_if_there(store.clone(), master).await? {
                Some(archive) => Ok(archive),
                None => Err(Error::new(Code::ObjectMissing, "opening the archive")
                    .on(ObjectKey::archive())
                    .with("although there is", &claim.key)),
            };
        }
        let id = ArchiveId(random.bytes()?);
        let (_, encryption) = Keyring::create(master.as_ref(), id, random)?;
        let (_, text) = document::archive_text(&ArchiveDocument {
            format: ARCHIVE_FORMAT.to_owned(),
            version: DOCUMENT_VERSION,
            id,
            created: clock.now(),
            encryption,
            nonce: random.nonce()?,
            check: ContentHash([0; 32]),
            extra: Extra::new(),
        })?;
        // Whoever won, the archive that is there now is the one to use.
        let (Put::Created | Put::Exists) = store.put(&ObjectKey::archive(), text.into()).await?;
        Self::open(store, master).await
    }

    /// Its identity.
    pub const fn id(&self) -> ArchiveId {
        self.document.id
    }

    /// `archive.json`.
    pub const fn document(&self) -> &ArchiveDocument {
        &self.document
    }

    /// Where it is.
    pub const fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Its keys. Sealed objects open once their epoch was admitted ([`Archive::admit_epoch`]).
    pub const fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// The hash under which a tag is stored and named in manifests.
    pub fn tag_hash(&self, name: &tag::Name) -> ContentHash {
        tag::name_hash(&self.keyring, name.as_str())
    }

    // Epochs.

    /// Claims the archive: creates the next epoch. Whoever claims later is the writer.
    ///
    /// # Errors
    /// `writer.fenced` when others keep claiming at the same time.
    pub async fn claim_epoch(&self, writer: &str, clock: &dyn Clock, random: &dyn Random) -> Result<EpochClaim> {
        const ATTEMPTS: usize = 1000;
        let mut epoch = self.newest_epoch().await?.unwrap_or_default();
        for _ in 0..ATTEMPTS {
            epoch = epoch.next().ok_or_else(|| Error::new(Code::Internal, "claiming an epoch").on(epoch))?;
            let document = EpochDocument {
                version: DOCUMENT_VERSION,
                archive: self.id(),
                epoch,
                created: clock.now(),
                writer: writer.to_owned(),
                data_key: self.keyring.new_data_key(epoch, random)?,
                nonce: random.nonce()?,
                extra: Extra::new(),
            };
            match self.put_clear(&document).await? {
                PutDocument::Created { .. } => {
                    self.keyring.admit(&document)?;
                    return Ok(EpochClaim { document });
                }
                PutDocument::Conflict(_) => {}
            }
        }
        Err(Error::new(Code::Fenced, "claiming an epoch").on(epoch))
    }

    /// The newest claim, whoever made it.
    pub async fn newest_epoch(&self) -> Result<Option<Epoch>> {
        Ok(self.list_epochs().await?.last().copied())
    }

    /// The newest claim, to write under without making one: who maintains an archive must not fence its archiver. `None`
    /// while nobody has claimed the archive.
    ///
    /// # Errors
    /// `key.wrong` where the claim's key was not wrapped for ours.
    pub async fn newest_claim(&self) -> Result<Option<EpochClaim>> {
        let Some(epoch) = self.newest_epoch().await? else { return Ok(None) };
        let document = self.get_epoch(epoch).await?;
        let document = document.ok_or_else(|| missing(&ObjectKey::epoch(epoch), "reading the epoch"))?;
        self.keyring.admit(&document)?;
        Ok(Some(EpochClaim { document }))
    }

    /// All claims in order.
    pub async fn list_epochs(&self) -> Result<Vec<Epoch>> {
        self.listed(prefix::EPOCHS, ObjectKey::epoch_number).await
    }

    /// A claim.
    pub async fn get_epoch(&self, epoch: Epoch) -> Result<Option<EpochDocument>> {
        self.get(&ObjectKey::epoch(epoch)).await.map(|found| found.map(|(document, _)| document))
    }

    /// Makes an epoch's sealed objects readable. Nothing to do in a clear archive.
    pub async fn admit_epoch(&self, epoch: Epoch) -> Result<()> {
        if self.keyring.knows(epoch) {
            return Ok(());
        }
        let document = self.get_epoch(epoch).await?;
        self.keyring.admit(&document.ok_or_else(|| missing(&ObjectKey::epoch(epoch), "reading the epoch"))?)
    }

    // Timelines.

    /// All timelines in order of their numbers.
    pub async fn timelines(&self) -> Result<Vec<TimelineDocument>> {
        self.all(prefix::TIMELINES).await
    }

    /// Opens a timeline, numbered behind all that are there.
    ///
    /// # Errors
    /// `writer.fenced` where others go on opening timelines at the same time.
    pub async fn open_timeline(
        &self,
        wanted: &NewTimeline<'_>,
        claim: &EpochClaim,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<TimelineDocument> {
        let parse = |key: &ObjectKey| key.stem().parse::<TimelineId>().ok();
        let newest = self.listed(prefix::TIMELINES, parse).await?.last().copied();
        let number = newest.map_or(Some(TimelineId::FIRST), TimelineId::next);
        let number = number.ok_or_else(|| Error::new(Code::Internal, "numbering the next timeline"))?;
        let document = TimelineDocument {
            version: DOCUMENT_VERSION,
            archive: self.id(),
            timeline: number,
            parent: wanted.parent,
            restore_marker: wanted.restore_marker,
            db_id: wanted.db_id.to_owned(),
            detail: wanted.detail.to_owned(),
            created: clock.now(),
            epoch: claim.epoch(),
            nonce: random.nonce()?,
            extra: Extra::new(),
        };
        match self.put_timeline(&document, claim, random).await? {
            PutDocument::Created { .. } => Ok(document),
            // Another process of the same history opened it at the same moment; whose records it gets, its segments tell.
            PutDocument::Conflict(other) if wanted.is_opened_by(&other) => Ok(*other),
            PutDocument::Conflict(other) => Err(Error::new(Code::Fenced, "opening a timeline")
                .on(ObjectKey::timeline(number))
                .with("our epoch", claim.epoch())
                .with("its epoch", other.epoch)),
        }
    }

    /// A timeline.
    pub async fn get_timeline(&self, timeline: TimelineId) -> Result<Option<TimelineDocument>> {
        self.get(&ObjectKey::timeline(timeline)).await.map(|found| found.map(|(document, _)| document))
    }

    /// Creates a timeline.
    pub async fn put_timeline(
        &self,
        document: &TimelineDocument,
        claim: &EpochClaim,
        random: &dyn Random,
    ) -> Result<PutDocument<TimelineDocument>> {
        self.put(document, claim, random).await
    }

    // Manifests and deletion boundaries.

    /// Creates a manifest.
    pub async fn put_manifest(
        &self,
        document: &ManifestDocument,
        claim: &EpochClaim,
        random: &dyn Random,
    ) -> Result<PutDocument<ManifestDocument>> {
        self.put(document, claim, random).await
    }

    /// A manifest and the hash of its stored bytes.
    pub async fn get_manifest(
        &self,
        timeline: TimelineId,
        number: ManifestNumber,
    ) -> Result<Option<(ManifestDocument, ContentHash)>> {
        self.get(&ObjectKey::manifest(timeline, number)).await
    }

    /// All manifests of a timeline in order.
    pub async fn list_manifests(&self, timeline: TimelineId) -> Result<Vec<ManifestNumber>> {
        self.listed(&prefix::manifests(timeline), ObjectKey::manifest_number).await
    }

    /// States that segments below an ordinal are about to be deleted.
    pub async fn put_boundary(
        &self,
        document: &BoundaryDocument,
        claim: &EpochClaim,
        random: &dyn Random,
    ) -> Result<PutDocument<BoundaryDocument>> {
        self.put(document, claim, random).await
    }

    /// Where deletion stopped, if it ever ran.
    pub async fn deletion_boundary(&self, timeline: TimelineId) -> Result<Option<BoundaryDocument>> {
        let keys = self.keys(&prefix::boundaries(timeline)).await?;
        let Some(key) = keys.last() else { return Ok(None) };
        self.get_named(key).await.map(Some)
    }

    /// Everything that was ever stated about what deletion keeps, in order; the last counts.
    pub async fn deletion_boundaries(&self, timeline: TimelineId) -> Result<Vec<BoundaryDocument>> {
        self.all(&prefix::boundaries(timeline)).await
    }

    // What is no longer part of the archive, and what must stay for a while.

    /// States that objects are no longer part of the archive.
    pub async fn put_condemned(
        &self,
        document: &CondemnedDocument,
        claim: &EpochClaim,
        random: &dyn Random,
    ) -> Result<PutDocument<CondemnedDocument>> {
        self.put(document, claim, random).await
    }

    /// What is no longer part of the archive, in order of its condemnation.
    pub async fn condemned(&self) -> Result<Vec<CondemnedDocument>> {
        self.all(prefix::CONDEMNED).await
    }

    /// The names of everything that is no longer part of the archive: what begins now does not count on any of it.
    pub async fn condemned_keys(&self) -> Result<std::collections::HashSet<ObjectKey>> {
        let objects = self.condemned().await?.into_iter().flat_map(|document| document.objects);
        Ok(objects.map(|object| object.key).collect())
    }

    /// States that a restore reads a base and what follows it.
    pub async fn put_hold(
        &self,
        document: &HoldDocument,
        claim: &EpochClaim,
        random: &dyn Random,
    ) -> Result<PutDocument<HoldDocument>> {
        self.put(document, claim, random).await
    }

    /// Restores that are under way, expired ones too.
    pub async fn holds(&self) -> Result<Vec<HoldDocument>> {
        self.all(prefix::HOLDS).await
    }

    // Bases and tags.

    /// Publishes a base. Its files and every record up to its floor must be in the archive.
    pub async fn put_base(
        &self,
        document: &BaseDocument,
        claim: &EpochClaim,
        random: &dyn Random,
    ) -> Result<PutDocument<BaseDocument>> {
        self.put(document, claim, random).await
    }

    /// A base.
    pub async fn get_base(&self, id: &BaseId) -> Result<Option<BaseDocument>> {
        self.get(&ObjectKey::base(id)).await.map(|found| found.map(|(document, _)| document))
    }

    /// The names of all bases in order. Their documents can be large (each holds a MANIFEST): whoever must stay small
    /// reads them one by one.
    pub async fn list_bases(&self) -> Result<Vec<BaseId>> {
        self.listed(prefix::BASES, |key| key.stem().parse().ok()).await
    }

    /// All bases in order of their names, which is that of time.
    pub async fn bases(&self) -> Result<Vec<BaseDocument>> {
        self.all(prefix::BASES).await
    }

    /// Creates a tag.
    pub async fn put_tag(
        &self,
        document: &TagDocument,
        claim: &EpochClaim,
        random: &dyn Random,
    ) -> Result<PutDocument<TagDocument>> {
        self.put(document, claim, random).await
    }

    /// A tag.
    pub async fn get_tag(&self, name: &tag::Name) -> Result<Option<TagDocument>> {
        self.get(&ObjectKey::tag(self.tag_hash(name))).await.map(|found| found.map(|(document, _)| document))
    }

    /// All tags in order of their names.
    pub async fn tags(&self) -> Result<Vec<TagDocument>> {
        let mut tags: Vec<TagDocument> = self.all(prefix::TAGS).await?;
        tags.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tags)
    }

    /// Takes back a base that was published a moment ago and cannot stay.
    pub async fn withdraw_base(&self, id: &BaseId) -> Result<()> {
        self.store.delete(&ObjectKey::base(id)).await
    }

    /// Deletes a tag; answers whether it was there.
    pub async fn delete_tag(&self, name: &tag::Name) -> Result<bool> {
        let key = ObjectKey::tag(self.tag_hash(name));
        let there = self.store.size(&key).await?.is_some();
        self.store.delete(&key).await?;
        Ok(there)
    }
}

/// blake3 of stored bytes.
pub fn content_hash(bytes: &[u8]) -> ContentHash {
    ContentHash(*blake3::hash(bytes).as_bytes())
}

pub(crate) fn missing(key: &ObjectKey, doing: &'static str) -> Error {
    Error::new(Code::ObjectMissing, doing).on(key)
}

pub(crate) fn segment_missing(key: &ObjectKey) -> Error {
    Error::new(Code::SegmentMissing, "reading the segment").on(key)
}
