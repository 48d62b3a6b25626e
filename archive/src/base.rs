//! The database's own files in the archive: their names and their bytes.
//!
//! Owns: [`FileIdentity`] (one object for a file that several bases share), and streaming both ways. In a clear archive
//! the object is the file's bytes; in an encrypted one a header and 1 MiB chunks, each sealed with its place and with
//! whether it is the last. blake3 of the plain bytes is in the base's document and compared at the end of every read.
//! Layout: FORMAT.md, "Files". Refuses: a file whose length is not the announced one.

use std::{collections::VecDeque, ops::Range};

use bytes::{Bytes, BytesMut};

use crate::{
    catalog::{
        archive::{Archive, EpochClaim},
        schema::BaseFile,
    },
    code::Code,
    error::{Error, Result},
    ids::{ContentHash, Epoch, FileNumber},
    keyring::Keyring,
    layout::{Family, Fault, Fields},
    object_key::ObjectKey,
    random::Random,
    store::Put,
};

mod body;
mod sending;

pub use body::FileBody;
use body::{FileHeader, Seal, chunk_aad, chunks, sealed_len};
pub use sending::Source;

/// Plain bytes of a sealed chunk, and of the pieces in which a file is sent.
pub const CHUNK: usize = 1 << 20;
/// Bytes of a sealed file's header.
pub const HEADER_LEN: usize = 112;
/// Plain bytes that one request fetches.
pub const FETCH: u64 = 4 << 20;

const WHAT: &str = "the file's header";
const READING: &str = "reading the file";
const WRITING: &str = "uploading the file";

/// The name of a file's object: the same for the same file, whichever base it is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    name: String,
    /// Which the name stands for, where it does: nothing else may be stored under it.
    content: Option<ContentHash>,
}

impl FileIdentity {
    /// Of a file with RocksDB's unique id, its size and its number. In an encrypted archive a keyed hash of them.
    pub fn unique(keyring: &Keyring, id: [u64; 2], size: u64, number: FileNumber) -> Self {
        let [high, low] = id;
        if keyring.is_encrypted() {
            let parts = [high, low, size, number.get()].map(u64::to_le_bytes);
            let parts: Vec<&[u8]> = parts.iter().map(<[u8; 8]>::as_slice).collect();
            return Self::named(format!("03{}", keyring.name_hash("file-unique", &parts)));
        }
        Self::named(format!("01{high:016x}{low:016x}{size:016x}{:016x}", number.get()))
    }

    /// Of a file that RocksDB gave no unique id (blob files, old versions): by its content.
    pub fn content(keyring: &Keyring, hash: ContentHash, size: u64) -> Self {
        let name = match keyring.is_encrypted() {
            true => format!("04{}", keyring.name_hash("file-content", &[&hash.0, &size.to_le_bytes()])),
            false => format!("02{hash}{size:016x}"),
        };
        Self { name, content: Some(hash) }
    }

    const fn named(name: String) -> Self {
        Self { name, content: None }
    }

    /// A file that is named by its content was read before, for its name.
    fn holds(&self, hash: ContentHash) -> Result<ContentHash> {
        match self.content {
            Some(named) if named != hash => Err(Error::new(Code::BaseUnobtainable, WRITING)
                .on(self.key())
                .with("hash when it was named", named)
                .with("hash when it was sent", hash)
                .hint("a file that RocksDB never changes had other bytes when it was read again: look at its disk, then take the base again")),
            _ => Ok(hash),
        }
    }

    /// Another name for the same file, where this one and the first `n - 1` others are condemned: what is condemned can be
    /// deleted at any time, and a name that is free again would be given to the same bytes.
    #[must_use]
    pub fn again(&self, keyring: &Keyring, n: u64) -> Self {
        let name = format!("05{}", keyring.name_hash("file-again", &[self.name.as_bytes(), &n.to_le_bytes()]));
        Self { name, content: self.content }
    }

    /// As a base's document has it ([`BaseFile::object`]).
    pub fn from_object(object: &str) -> Option<Self> {
        let hexadecimal = object.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (hexadecimal && matches!(object.len(), 66 | 82)).then(|| Self::named(object.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The object's name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::file(&self.name)
    }
}

/// A file that is in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// For [`BaseFile::object`].
    pub object: String,
    /// blake3 of the plain bytes.
    pub hash: ContentHash,
    /// Plain bytes.
    pub size: u64,
    /// The epoch whose key seals it.
    pub epoch: Epoch,
    /// Whether bytes were sent.
    pub sent: Sent,
}

/// Whether an object was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was uploaded now.
    Uploaded,
    /// It was there, and its bytes were read back and compared.
    WasThere,
}

impl Archive {
    /// Uploads a file of `size` bytes, unless it is there. Reads `source` once, on threads of the runtime.
    ///
    /// # Errors
    /// `archive.object-damaged` when an object of that name is there and holds other bytes; what the store answers;
    /// `base.unobtainable` when `source` does not have `size` bytes, or others than those it is named by.
    pub async fn upload_file(
        &self,
        identity: &FileIdentity,
        size: u64,
        source: Source,
        claim: &EpochClaim,
        random: &dyn Random,
    ) -> Result<StoredFile> {
        let key = identity.key();
        let seal = self.new_seal(&key, size, claim, random)?;
        let length = if seal.is_some() { sealed_len(size) } else { Some(size) };
        let length = length.ok_or_else(|| Error::new(Code::Internal, WRITING).on(&key).with("size", size))?;
        let mut upload = self.store().upload(&key, length).await?;
        let sent = sending::send(&key, size, source, seal, upload.as_mut()).await;
        let hash = match sent.and_then(|hash| identity.holds(hash)) {
            Ok(hash) => hash,
            Err(e) => {
                // The first error is the one that matters; what abort leaves behind the store's own cleaning removes.
                let _ = upload.abort().await;
                return Err(e);
            }
        };
        let object = identity.as_str().to_owned();
        match upload.finish().await? {
            Put::Created => Ok(StoredFile { object, hash, size, epoch: claim.epoch(), sent: Sent::Uploaded }),
            Put::Exists => {
                let epoch = self.stored_epoch(&key, claim.epoch()).await?;
                let stored = StoredFile { object, hash, size, epoch, sent: Sent::WasThere };
                self.compare(&stored).await?;
                Ok(stored)
            }
        }
    }

    fn new_seal(&self, key: &ObjectKey, size: u64, claim: &EpochClaim, random: &dyn Random) -> Result<Option<Seal>> {
        let salt = random.bytes()?;
        let Some(cipher) = self.keyring().cipher(claim.epoch(), key, &salt)? else { return Ok(None) };
        let header = FileHeader { epoch: claim.epoch(), archive: self.id(), salt, size }.encode();
        Ok(Some(Seal { cipher, header, chunks: chunks(size) }))
    }

    /// The epoch that a stored file's header names; `otherwise` in a clear archive, where there is no header.
    async fn stored_epoch(&self, key: &ObjectKey, otherwise: Epoch) -> Result<Epoch> {
        if !self.keyring().is_encrypted() {
            return Ok(otherwise);
        }
        let header = self.store().get_range(key, 0..HEADER_LEN as u64).await?;
        let header = header.ok_or_else(|| Error::new(Code::ObjectMissing, READING).on(key))?;
        Ok(FileHeader::decode(&header, self.id()).map_err(|e| e.on(Family::Object, READING, key))?.epoch)
    }

    async fn compare(&self, stored: &StoredFile) -> Result<()> {
        let mut download = self.open_file(&stored.object, stored.size, stored.hash, stored.epoch).await?;
        while download.next().await?.is_some() {}
        Ok(())
    }

    /// Begins to read a base's file. Nothing of it is proven before [`FileDownload::next`] has answered `None`.
    pub async fn download_file(&self, file: &BaseFile) -> Result<FileDownload<'_>> {
        self.open_file(&file.object, file.size, file.hash, file.epoch).await
    }

    async fn open_file(&self, object: &str, size: u64, hash: ContentHash, epoch: Epoch) -> Result<FileDownload<'_>> {
        let body = self.body(object, size, epoch).await?;
        let (hasher, opened) = (blake3::Hasher::new(), VecDeque::new());
        Ok(FileDownload { archive: self, body, expected: hash, hasher, chunk: 0, opened, done: false })
    }

    /// Looks at a base's file: its object's length and header. Whether what it holds is the file, its hash tells.
    pub async fn file_body(&self, file: &BaseFile) -> Result<FileBody> {
        self.body(&file.object, file.size, file.epoch).await
    }

    /// Chunks of a file, as they are stored: [`FileBody::open`] is for each of them.
    pub async fn fetch_chunks(&self, body: &FileBody, chunks: Range<u64>) -> Result<Bytes> {
        let range = body.range(chunks);
        let bytes = self.store().get_range(body.key(), range.clone()).await?;
        let bytes = bytes.ok_or_else(|| Error::new(Code::ObjectMissing, READING).on(body.key()))?;
        Fault::unless_equal("bytes of the file", &(range.end - range.start), &(bytes.len() as u64))
            .map_err(|e| e.on(Family::Object, READING, body.key()))?;
        Ok(bytes)
    }

    async fn body(&self, object: &str, size: u64, epoch: Epoch) -> Result<FileBody> {
        let identity = FileIdentity::from_object(object).ok_or_else(|| {
            Error::new(Code::ObjectDamaged, READING).on(object).with("found", "a name that no file can have")
        })?;
        let key = identity.key();
        let fault = |e: Fault| e.on(Family::Object, READING, &key);
        let stored = self.store().size(&key).await?;
        let stored = stored.ok_or_else(|| Error::new(Code::ObjectMissing, READING).on(&key))?;
        let expected = if self.keyring().is_encrypted() { sealed_len(size) } else { Some(size) };
        Fault::unless_equal("length of the file's object", &expected.unwrap_or(u64::MAX), &stored).map_err(fault)?;
        if !self.keyring().is_encrypted() {
            return Ok(FileBody::clear(key, size));
        }
        let head = self.store().get_range(&key, 0..HEADER_LEN as u64).await?;
        let head = head.ok_or_else(|| Error::new(Code::ObjectMissing, READING).on(&key))?;
        let header = FileHeader::decode(&head, self.id()).map_err(fault)?;
        Fault::unless_equal("length of the file", &size, &header.size).map_err(fault)?;
        Fault::unless_equal("epoch of the file", &epoch, &header.epoch).map_err(fault)?;
        self.admit_epoch(header.epoch).await?;
        let cipher = self.keyring().cipher_to_read(Family::Object, true, header.epoch, &key, &header.salt)?;
        let cipher = cipher.ok_or_else(|| Error::new(Code::KeyRequired, READING).on(&key))?;
        // As it is stored: flags that may be ignored are bound into the seals all the same.
        let header = Fields::new(WHAT, 0, &head).array().map_err(fault)?;
        Ok(FileBody::sealed(key, size, Seal { cipher, header, chunks: chunks(size) }))
    }
}

/// A file on its way out of the archive.
pub struct FileDownload<'a> {
    archive: &'a Archive,
    body: FileBody,
    expected: ContentHash,
    hasher: blake3::Hasher,
    /// The first that was not fetched.
    chunk: u64,
    /// Fetched, opened and hashed.
    opened: VecDeque<Bytes>,
    done: bool,
}

impl std::fmt::Debug for FileDownload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileDownload").field("body", &self.body).field("chunk", &self.chunk).finish_non_exhaustive()
    }
}

impl FileDownload<'_> {
    /// The object's name.
    pub const fn key(&self) -> &ObjectKey {
        self.body.key()
    }

    /// The next plain bytes, at most [`CHUNK`]. `None` once: everything was delivered and its hash is the right one.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.opened.pop_front() {
                // An empty file that was sealed has one chunk.
                Some(plain) if plain.is_empty() => {}
                Some(plain) => return Ok(Some(plain)),
                None if self.chunk == self.body.chunks() => return self.compare().map(|()| None),
                None => self.fetch().await?,
            }
        }
    }

    fn compare(&mut self) -> Result<()> {
        if !self.done {
            self.done = true;
            let computed = ContentHash(*self.hasher.finalize().as_bytes());
            if computed != self.expected {
                let (stored, computed) = (self.expected.to_string(), computed.to_string());
                let fault = Fault::Checksum { what: "the file", stored, computed };
                return Err(fault.on(Family::Object, READING, self.key()));
            }
        }
        Ok(())
    }

    async fn fetch(&mut self) -> Result<()> {
        let next = self.body.fetched_from(self.chunk);
        let mut stored = BytesMut::from(self.archive.fetch_chunks(&self.body, next.clone()).await?);
        for number in next.clone() {
            let mut chunk = stored.split_to(stored.len().min(self.body.stored_chunk()));
            let plain = self.body.open(number, &mut chunk)?;
            self.hasher.update(plain);
            let plain = plain.len();
            chunk.truncate(plain);
            self.opened.push_back(chunk.freeze());
        }
        self.chunk = next.end;
        Ok(())
    }
}
