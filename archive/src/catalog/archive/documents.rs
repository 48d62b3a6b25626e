//! Documents in general: exclusive creation with the nonce read back, reading with every check, listings.
//!
//! Owns: that a document is sealed with the writer's epoch key (an epoch's own document is clear), and opened with the
//! epoch that its header names.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{Archive, CONCURRENCY, EpochClaim, PutDocument, content_hash, missing};
use crate::{
    catalog::{
        document::{self, Document},
        envelope::{self, DocumentHeader, Kind, Sealing},
    },
    code::Code,
    error::{Error, Result},
    ids::{ContentHash, Epoch},
    layout::{Family, Fault},
    object_key::ObjectKey,
    random::Random,
    store::{Listed, Put},
};

/// From this many stored bytes on a document is decoded on another thread: of a thousand manifests, several at once.
const LARGE: usize = 32 * 1024;

impl Archive {
    pub(super) async fn put_clear<D: Document>(&self, document: &D) -> Result<PutDocument<D>> {
        self.put_sealed(document, None).await
    }

    pub(super) async fn put<D: Document>(
        &self,
        document: &D,
        claim: &EpochClaim,
        random: &dyn Random,
    ) -> Result<PutDocument<D>> {
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
    pub(super) async fn get<D: Document>(&self, key: &ObjectKey) -> Result<Option<(D, ContentHash)>> {
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
        let (keyring, archive, key) = (Arc::clone(&self.keyring), self.id(), key.clone());
        let large = object.len() >= LARGE;
        let decode = move || {
            let fault = |e: Fault| e.on(Family::Object, D::DOING, &key);
            let json = header.open(&key, &object, cipher.as_ref()).map_err(fault)?;
            let document = document::parse(&keyring, archive, &key, &json)?;
            Ok(Some((document, content_hash(&object))))
        };
        if !large {
            return decode();
        }
        let decoded = tokio::task::spawn_blocking(decode).await;
        decoded.unwrap_or_else(|stopped| Err(Error::new(Code::Internal, D::DOING).because(stopped)))
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
    pub(super) async fn all<D: Document>(&self, prefix: &str) -> Result<Vec<D>> {
        let found: Vec<Option<(D, ContentHash)>> = stream::iter(self.keys(prefix).await?)
            .map(|key| async move { self.get(&key).await })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().map(|(document, _)| document).collect())
    }

    /// Every document below a prefix, each with its own outcome. One that is deleted meanwhile is left out.
    pub(crate) async fn all_outcomes<D: Document>(&self, prefix: &str) -> Result<Vec<Result<D>>> {
        self.all_outcomes_as(prefix, |document| document).await
    }

    /// The same, each reduced to what is wanted of it before the next ones are read.
    pub(crate) async fn all_outcomes_as<D: Document, T>(
        &self,
        prefix: &str,
        reduced: impl Fn(D) -> T + Copy,
    ) -> Result<Vec<Result<T>>> {
        Ok(self.outcomes_of(self.keys(prefix).await?, reduced).await)
    }

    /// The same of these documents.
    pub(crate) async fn outcomes_of<D: Document, T>(
        &self,
        keys: Vec<ObjectKey>,
        reduced: impl Fn(D) -> T + Copy,
    ) -> Vec<Result<T>> {
        let found: Vec<Result<Option<T>>> = stream::iter(keys)
            .map(|key| async move {
                let found: Option<(D, ContentHash)> = self.get(&key).await?;
                Ok(found.map(|(document, _)| reduced(document)))
            })
            .buffered(CONCURRENCY)
            .collect()
            .await;
        found.into_iter().filter_map(Result::transpose).collect()
    }

    pub(crate) async fn keys(&self, prefix: &str) -> Result<Vec<ObjectKey>> {
        let listed = self.store.list(prefix, None).await?;
        Ok(listed.into_iter().map(|l: Listed| l.key).filter(|key| key.as_str().ends_with(".doc")).collect())
    }

    pub(super) async fn listed<T: Ord>(
        &self,
        prefix: &str,
        number: impl Fn(&ObjectKey) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut numbers: Vec<T> = self.keys(prefix).await?.iter().filter_map(number).collect();
        numbers.sort();
        Ok(numbers)
    }
}
