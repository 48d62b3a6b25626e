//! Indexes of an archive: reading, building and comparing them.
//!
//! Owns: which requests that costs. An index of indexes is built from those, and from manifests only where one is missing.
//! Refuses: haste. What is built is bounded by one group, read one document after another.

use std::collections::BTreeMap;

use futures::future::BoxFuture;

use super::{Archive, EpochClaim, PutDocument, missing};
use crate::{
    catalog::{
        index::{Shape, indexed, slim},
        load::is_finding,
        schema::{BaseDocument, DOCUMENT_VERSION, Extra, IndexDocument, IndexedManifest},
    },
    clock::Clock,
    code::Code,
    error::{Error, Result},
    ids::{BaseId, ManifestNumber, ManifestNumbers, TimelineId},
    object_key::{ObjectKey, prefix},
    random::Random,
};

/// What an index holds.
type Content = (Vec<IndexedManifest>, Vec<BaseDocument>);

impl Archive {
    /// The indexes of a timeline, by the manifests that they are over.
    pub async fn list_indexes(&self, timeline: TimelineId) -> Result<Vec<ManifestNumbers>> {
        self.listed(&prefix::indexes(timeline), ObjectKey::index_numbers).await
    }

    /// An index.
    pub async fn get_index(&self, timeline: TimelineId, manifests: ManifestNumbers) -> Result<Option<IndexDocument>> {
        self.get(&ObjectKey::index(timeline, manifests)).await.map(|found| found.map(|(document, _)| document))
    }

    /// Creates an index.
    pub async fn put_index(
        &self,
        document: &IndexDocument,
        claim: &EpochClaim,
        random: &dyn Random,
    ) -> Result<PutDocument<IndexDocument>> {
        self.put(document, claim, random).await
    }

    /// Writes the index over a group of manifests, and those of its parts that are missing: of an archive that had none, and
    /// where a process ended before it had written one. One that is there stays; whoever wrote it had the same manifests.
    pub async fn write_index(
        &self,
        timeline: TimelineId,
        group: ManifestNumbers,
        writing: &IndexWriting<'_>,
    ) -> Result<()> {
        let (manifests, bases) = self.index_content(timeline, group, writing).await?;
        let document = IndexDocument {
            version: DOCUMENT_VERSION,
            archive: self.id(),
            timeline,
            first: group.first(),
            last: group.last(),
            manifests,
            bases,
            created: writing.clock.now(),
            epoch: writing.claim.epoch(),
            nonce: writing.random.nonce()?,
            extra: Extra::new(),
        };
        let (PutDocument::Created { .. } | PutDocument::Conflict(_)) =
            self.put_index(&document, writing.claim, writing.random).await?;
        Ok(())
    }

    fn index_content<'a>(
        &'a self,
        timeline: TimelineId,
        group: ManifestNumbers,
        writing: &'a IndexWriting<'a>,
    ) -> BoxFuture<'a, Result<Content>> {
        Box::pin(async move {
            let parts = writing.shape.parts(group);
            if parts.is_empty() {
                return self.manifests_of(timeline, group).await;
            }
            let mut content = Content::default();
            for part in parts {
                let (manifests, bases) = match self.get_index(timeline, part).await? {
                    Some(index) => (index.manifests, index.bases),
                    None => {
                        self.write_index(timeline, part, writing).await?;
                        let written = self.get_index(timeline, part).await?;
                        let written =
                            written.ok_or_else(|| missing(&ObjectKey::index(timeline, part), "reading the index"))?;
                        (written.manifests, written.bases)
                    }
                };
                content.0.extend(manifests);
                content.1.extend(bases);
            }
            content.1.sort_by(|a, b| a.id.cmp(&b.id));
            content.1.dedup_by(|a, b| a.id == b.id);
            Ok(content)
        })
    }

    async fn manifests_of(&self, timeline: TimelineId, group: ManifestNumbers) -> Result<Content> {
        let mut manifests = Vec::new();
        let mut bases: BTreeMap<BaseId, BaseDocument> = BTreeMap::new();
        for number in (group.first().get()..=group.last().get()).map(ManifestNumber::new) {
            // Deletion may have been here.
            let Some((document, hash)) = self.get_manifest(timeline, number).await? else { continue };
            for id in document.bases.iter().filter(|id| !bases.contains_key(id)).cloned().collect::<Vec<_>>() {
                // A base's document holds RocksDB's MANIFEST: one at a time.
                if let Some(base) = self.get_base(&id).await? {
                    bases.insert(id, slim(base));
                }
            }
            manifests.push(indexed(&document, hash));
        }
        Ok((manifests, bases.into_values().collect()))
    }

    /// Indexes that do not say what the manifests say that are there. Reads all of both.
    pub async fn contradicting_indexes(&self, timeline: TimelineId) -> Result<Vec<Error>> {
        const DOING: &str = "comparing the index with its manifests";
        let mut findings = Vec::new();
        let mut said: BTreeMap<ManifestNumber, Vec<(ObjectKey, IndexedManifest)>> = BTreeMap::new();
        for group in self.list_indexes(timeline).await? {
            let key = ObjectKey::index(timeline, group);
            match self.get_index(timeline, group).await {
                Ok(None) => {}
                Ok(Some(index)) => {
                    for manifest in index.manifests {
                        let outside = !group.contains(manifest.number);
                        if outside {
                            findings.push(Error::new(Code::ChainBroken, DOING).on(&key).with("names", manifest.number));
                        }
                        said.entry(manifest.number).or_default().push((key.clone(), manifest));
                    }
                }
                Err(e) if is_finding(e.code()) => findings.push(e),
                Err(e) => return Err(e),
            }
        }
        for (number, said) in said {
            let (document, hash) = match self.get_manifest(timeline, number).await {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                // The survey tells of it.
                Err(e) if is_finding(e.code()) => continue,
                Err(e) => return Err(e),
            };
            let expected = indexed(&document, hash);
            let wrong = said.into_iter().filter(|(_, said)| *said != expected);
            findings.extend(wrong.map(|(key, said)| {
                Error::new(Code::ChainBroken, DOING)
                    .on(key)
                    .with("manifest", number)
                    .with("hash", expected.hash)
                    .with("hash in the index", said.hash)
                    .hint("delete the index: it follows from the manifests, and plans read those instead")
            }));
        }
        Ok(findings)
    }
}

/// What writing an index needs.
#[derive(Clone, Copy, Debug)]
pub struct IndexWriting<'a> {
    /// Which groups there are.
    pub shape: Shape,
    /// Under which claim.
    pub claim: &'a EpochClaim,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Randomness.
    pub random: &'a dyn Random,
}
