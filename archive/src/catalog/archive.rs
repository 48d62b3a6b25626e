//! One archive in its store.
//!
//! Owns: opening and creating, the writer's claim, and typed reading and writing of every object. Every creation is
//! exclusive; when a name is taken, the object that is there is read back: with our nonce in it, an earlier attempt's
//! reply was lost and the object is ours; otherwise the caller gets the other one and decides.
//! Everything that is read is verified (`envelope`, `document`, `segment::reader`).
//! Refuses: overwriting, and guessing the end of a timeline: [`Archive::tail`] lists.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    catalog::{
        document::{self, Document},
        envelope::{self, DocumentHeader, Kind, Sealing},
        schema::{
            ARCHIVE_FORMAT, ArchiveDocument, BaseDocument, BoundaryDocument, DOCUMENT_VERSION, EpochDocument, Extra,
            ManifestDocument, SegmentFooter, SegmentSummary, TagDocument, TimelineDocument,
        },
    },
    clock::Clock,
    code::Code,
    error::{Error, Result},
    ids::{ArchiveId, BaseId, ContentHash, Epoch, ManifestNumber, Ordinal, TimelineId},
    keyring::{Keyring, MasterKey},
    layout::{Family, Fault},
    object_key::{ObjectKey, prefix},
    random::Random,
    segment::{
        header::{HEADER_LEN, SegmentHeader},
        reader::{ProvenFrame, SegmentIndex, SegmentReader, Wanted, tail_range},
        writer::FinishedSegment,
    },
    store::{Listed, Put, Store},
    tag,
};

/// Requests under way at once while many objects are read.
pub const CONCURRENCY: usize = 16;
/// The longest segment that is read: the longest record and its surroundings.
pub const MAX_SEGMENT: u64 = 4 << 30;
/// A segment up to this size is fetched whole when only its footer is wanted: one request instead of two.
const SMALL_SEGMENT: u64 = 64 * 1024;
const MAX_ARCHIVE_JSON: u64 = 1 << 20;

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

    /// The newest timeline; creates the first one when there is none.
    pub async fn ensure_timeline(
        &self,
        db_id: &str,
        claim: &EpochClaim,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<TimelineId> {
        let parse = |key: &ObjectKey| key.stem().parse::<TimelineId>().ok();
        if let Some(newest) = self.listed(prefix::TIMELINES, parse).await?.last() {
            return Ok(*newest);
        }
        let document = TimelineDocument {
            version: DOCUMENT_VERSION,
            archive: self.id(),
            timeline: TimelineId::FIRST,
            parent: None,
            restore_marker: None,
            db_id: db_id.to_owned(),
            created: clock.now(),
            nonce: random.nonce()?,
            extra: Extra::new(),
        };
        // Whoever created it: there is one first timeline.
        match self.put_timeline(&document, claim, random).await? {
            PutDocument::Created { .. } | PutDocument::Conflict(_) => Ok(TimelineId::FIRST),
        }
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

    /// Deletes a tag; answers whether it was there.
    pub async fn delete_tag(&self, name: &tag::Name) -> Result<bool> {
        let key = ObjectKey::tag(self.tag_hash(name));
        let there = self.store.size(&key).await?.is_some();
        self.store.delete(&key).await?;
        Ok(there)
    }

    // Segments.

    /// Which segment lies at an ordinal.
    pub const fn wanted(&self, timeline: TimelineId, ordinal: Ordinal) -> Wanted {
        Wanted { archive: self.id(), timeline, ordinal }
    }

    /// Creates a segment.
    pub async fn put_segment(&self, segment: &FinishedSegment) -> Result<PutSegment> {
        match self.store.put(&segment.key, segment.body.clone()).await? {
            Put::Created => Ok(PutSegment::Created),
            Put::Exists => {
                let header = SegmentHeader::decode(&segment.body)
                    .map_err(|e| e.on(Family::Segment, "comparing the segment", &segment.key))?;
                let other = self.read_header(header.timeline, header.ordinal).await?;
                if other.nonce == header.nonce {
                    Ok(PutSegment::Created)
                } else {
                    Ok(PutSegment::Conflict(other.into()))
                }
            }
        }
    }

    /// A segment's header alone. It is clear; whether it is genuine, the footer says.
    pub async fn read_header(&self, timeline: TimelineId, ordinal: Ordinal) -> Result<SegmentHeader> {
        let wanted = self.wanted(timeline, ordinal);
        let key = wanted.key();
        let head = self.store.get_range(&key, 0..HEADER_LEN as u64).await?;
        wanted.header(&head.ok_or_else(|| segment_missing(&key))?)
    }

    /// A segment's header and footer: two ranged reads.
    pub async fn read_index(&self, timeline: TimelineId, ordinal: Ordinal) -> Result<SegmentIndex> {
        let wanted = self.wanted(timeline, ordinal);
        let key = wanted.key();
        let head = self.store.get_range(&key, 0..HEADER_LEN as u64).await?.ok_or_else(|| segment_missing(&key))?;
        let header = wanted.header(&head)?;
        self.admit_epoch(header.epoch).await?;
        let tail = self.store.get_range(&key, tail_range(&header)).await?.ok_or_else(|| segment_missing(&key))?;
        SegmentIndex::open(&wanted, &head, &tail, &self.keyring)
    }

    /// A segment's footer; the summary's `object_bytes` is set.
    pub async fn read_footer(&self, timeline: TimelineId, ordinal: Ordinal) -> Result<SegmentFooter> {
        self.read_index(timeline, ordinal).await.map(SegmentIndex::into_footer)
    }

    /// Some frames of a segment, proven, by one ranged read.
    pub async fn read_frames(&self, index: &SegmentIndex, frames: Range<usize>) -> Result<Vec<ProvenFrame>> {
        let ranges: Option<Vec<_>> = frames.clone().map(|frame| index.frame_range(frame)).collect();
        let absent =
            || Error::new(Code::Internal, "reading frames of").on(index.key()).with("frames", format!("{frames:?}"));
        let ranges = ranges.ok_or_else(absent)?;
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Ok(Vec::new()) };
        let start = first.start;
        let bytes = self.store.get_range(index.key(), start..last.end).await?;
        let bytes = bytes.ok_or_else(|| segment_missing(index.key()))?;
        frames
            .clone()
            .zip(&ranges)
            .map(|(frame, range)| {
                let inside = |at: u64| usize::try_from(at - start).ok().filter(|at| *at <= bytes.len());
                let (from, to) = inside(range.start).zip(inside(range.end)).ok_or_else(absent)?;
                index.frame(frame, &bytes.slice(from..to))
            })
            .collect()
    }

    /// A whole segment.
    pub async fn read_segment(&self, timeline: TimelineId, ordinal: Ordinal) -> Result<SegmentReader> {
        let wanted = self.wanted(timeline, ordinal);
        let key = wanted.key();
        let body = self.store.get(&key, MAX_SEGMENT).await?.ok_or_else(|| segment_missing(&key))?;
        self.open_segment(&wanted, body).await
    }

    async fn open_segment(&self, wanted: &Wanted, body: Bytes) -> Result<SegmentReader> {
        let header = wanted.header(&body)?;
        self.admit_epoch(header.epoch).await?;
        SegmentReader::open(wanted, body, &self.keyring)
    }

    /// All segments of a timeline above an ordinal, by their keys, with their sizes.
    pub async fn list_segments(&self, timeline: TimelineId, after: Option<Ordinal>) -> Result<Vec<(Ordinal, u64)>> {
        let after = after.map(|ordinal| ObjectKey::segment(timeline, ordinal));
        let listed = self.store.list(&prefix::segments(timeline), after.as_ref()).await?;
        Ok(listed.iter().filter_map(|l| l.key.segment_ordinal().map(|ordinal| (ordinal, l.size))).collect())
    }

    /// Footers of listed segments, concurrently, in order.
    pub(crate) async fn footers(
        &self,
        timeline: TimelineId,
        segments: Vec<(Ordinal, u64)>,
    ) -> Vec<(Ordinal, Result<SegmentFooter>)> {
        stream::iter(segments)
            .map(|(ordinal, size)| async move { (ordinal, self.footer_of(timeline, ordinal, size).await) })
            .buffered(CONCURRENCY)
            .collect()
            .await
    }

    async fn footer_of(&self, timeline: TimelineId, ordinal: Ordinal, size: u64) -> Result<SegmentFooter> {
        if size > SMALL_SEGMENT {
            return self.read_footer(timeline, ordinal).await;
        }
        let wanted = self.wanted(timeline, ordinal);
        let key = wanted.key();
        let body = self.store.get(&key, SMALL_SEGMENT).await?.ok_or_else(|| segment_missing(&key))?;
        let header = wanted.header(&body)?;
        self.admit_epoch(header.epoch).await?;
        let tail = tail_range(&header);
        let start = usize::try_from(tail.start).unwrap_or(usize::MAX).min(body.len());
        SegmentIndex::open(&wanted, &body, &body.slice(start..), &self.keyring).map(SegmentIndex::into_footer)
    }

    /// The end of a timeline: its last manifest and what follows it.
    ///
    /// # Errors
    /// `segment.missing` with the first absent one; `archive.chain-broken` where two neighbours do not join.
    pub async fn tail(&self, timeline: TimelineId) -> Result<Tail> {
        let deleted = self.deletion_boundary(timeline).await?;
        let last = match self.list_manifests(timeline).await?.last() {
            None => None,
            Some(number) => {
                let key = ObjectKey::manifest(timeline, *number);
                let found = self.get_manifest(timeline, *number).await?;
                Some(found.ok_or_else(|| missing(&key, "reading the manifest"))?)
            }
        };
        let rolled_up = last.as_ref().and_then(|(manifest, _)| manifest.segments.last());
        let listed = self.list_segments(timeline, rolled_up.map(|s| s.ordinal)).await?;
        let kept = |ordinal: Ordinal| deleted.as_ref().is_none_or(|d| ordinal >= d.ordinal);
        let listed: Vec<_> = listed.into_iter().filter(|(ordinal, _)| kept(*ordinal)).collect();
        let mut footers = Vec::with_capacity(listed.len());
        for (_, footer) in self.footers(timeline, listed).await {
            footers.push(footer?);
        }
        let head = match (footers.last(), rolled_up) {
            (Some(last), _) => Some(last.clone()),
            (None, Some(rolled_up)) if kept(rolled_up.ordinal) => {
                Some(self.read_footer(timeline, rolled_up.ordinal).await?)
            }
            _ => None,
        };
        let segments: Vec<_> = footers.into_iter().map(|footer| footer.summary).collect();
        super::invariants::joins(timeline, rolled_up, deleted.as_ref(), &segments)?;
        if let (Some(head), Some(rolled_up), true) = (&head, rolled_up, segments.is_empty()) {
            super::invariants::same_segment(timeline, rolled_up, &head.summary)?;
        }
        let next_manifest = match &last {
            None => ManifestNumber::new(0),
            Some((manifest, _)) => manifest
                .number
                .next()
                .ok_or_else(|| Error::new(Code::Internal, "numbering the next manifest").on(manifest.number))?,
        };
        Ok(Tail { head, segments, next_manifest, previous_manifest: last.map(|(_, hash)| hash), deleted })
    }

    // Documents in general.

    async fn put_clear<D: Document>(&self, document: &D) -> Result<PutDocument<D>> {
        self.put_sealed(document, None).await
    }

    async fn put<D: Document>(&self, document: &D, claim: &EpochClaim, random: &dyn Random) -> Result<PutDocument<D>> {
        let key = document.key(&self.keyring);
        let salt = random.bytes()?;
        let cipher = self.keyring.cipher(claim.epoch(), &key, &salt)?;
        let sealing = cipher.as_ref().map(|cipher| Sealing { epoch: claim.epoch(), salt, cipher });
        self.put_sealed(document, sealing).await
    }

    async fn put_sealed<D: Document>(&self, document: &D, sealing: Option<Sealing<'_>>) -> Result<PutDocument<D>> {
        const DOING: &str = "writing";
        let key = document.key(&self.keyring);
        let json = serde_json::to_vec(document).map_err(|e| Error::new(Code::Internal, DOING).on(&key).because(e))?;
        let body = envelope::encode(D::KIND, &key, &json, sealing.as_ref())
            .map_err(|e| Error::new(Code::Internal, DOING).on(&key).because(e))?;
        let hash = content_hash(&body);
        if self.store.put(&key, body).await? == Put::Created {
            return Ok(PutDocument::Created { hash });
        }
        match self.get::<D>(&key).await? {
            Some((other, hash)) if other.nonce() == document.nonce() => Ok(PutDocument::Created { hash }),
            Some((other, _)) => Ok(PutDocument::Conflict(other.into())),
            None => Err(Error::new(Code::StoreInconsistent, DOING)
                .on(&key)
                .with("store", "refused to create the object and does not have it")),
        }
    }

    /// A document and the hash of its stored bytes; `None` when it is not there.
    async fn get<D: Document>(&self, key: &ObjectKey) -> Result<Option<(D, ContentHash)>> {
        let Some(object) = self.store.get(key, envelope::MAX_STORED).await? else { return Ok(None) };
        let fault = |e: Fault| e.on(Family::Object, D::DOING, key);
        let header = DocumentHeader::decode(D::KIND, key, &object).map_err(fault)?;
        let cipher = match (D::KIND, header.sealed) {
            (Kind::Epoch, false) => None,
            (Kind::Epoch, true) => {
                let expected = "a clear body".to_owned();
                return Err(fault(Fault::Mismatch { what: "the epoch", expected, found: "a sealed one".to_owned() }));
            }
            (_, sealed) => {
                if sealed {
                    self.admit_epoch_boxed(header.epoch).await?;
                }
                self.keyring.cipher_to_read(Family::Object, sealed, header.epoch, key, &header.salt)?
            }
        };
        let json = header.open(key, &object, cipher.as_ref()).map_err(fault)?;
        let document = document::parse(&self.keyring, self.id(), key, &json)?;
        Ok(Some((document, content_hash(&object))))
    }

    /// `get` needs an epoch's key, which is itself behind `get`.
    fn admit_epoch_boxed(&self, epoch: Epoch) -> futures::future::BoxFuture<'_, Result<()>> {
        Box::pin(self.admit_epoch(epoch))
    }

    /// A document that was listed.
    pub(crate) async fn get_named<D: Document>(&self, key: &ObjectKey) -> Result<D> {
        self.get(key).await?.map(|(document, _)| document).ok_or_else(|| missing(key, D::DOING))
    }

    /// Every document below a prefix, in order. One that is deleted meanwhile is left out.
    async fn all<D: Document>(&self, prefix: &str) -> Result<Vec<D>> {
        let found: Vec<Option<(D, ContentHash)>> = stream::iter(self.keys(prefix).await?)
            .map(|key| async move { self.get(&key).await })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().map(|(document, _)| document).collect())
    }

    /// Every document below a prefix, each with its own outcome. One that is deleted meanwhile is left out.
    pub(crate) async fn all_outcomes<D: Document>(&self, prefix: &str) -> Result<Vec<Result<D>>> {
        let found: Vec<Result<Option<(D, ContentHash)>>> = stream::iter(self.keys(prefix).await?)
            .map(|key| async move { self.get(&key).await })
            .buffered(CONCURRENCY)
            .collect()
            .await;
        Ok(found.into_iter().filter_map(|outcome| outcome.map(|o| o.map(|(d, _)| d)).transpose()).collect())
    }

    async fn keys(&self, prefix: &str) -> Result<Vec<ObjectKey>> {
        let listed = self.store.list(prefix, None).await?;
        Ok(listed.into_iter().map(|l: Listed| l.key).filter(|key| key.as_str().ends_with(".doc")).collect())
    }

    async fn listed<T: Ord>(&self, prefix: &str, number: impl Fn(&ObjectKey) -> Option<T>) -> Result<Vec<T>> {
        let mut numbers: Vec<T> = self.keys(prefix).await?.iter().filter_map(number).collect();
        numbers.sort();
        Ok(numbers)
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
