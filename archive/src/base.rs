//! The database's own files in the archive: their names and their bytes.
//!
//! Owns: [`FileIdentity`] (one object for a file that several bases share), and streaming both ways. In a clear archive
//! the object is the file's bytes; in an encrypted one a header and 1 MiB chunks, each sealed with its place and with
//! whether it is the last. blake3 of the plain bytes is in the base's document and compared at the end of every read.
//! Layout: FORMAT.md, "Files". Refuses: a file whose length is not the announced one.

use bytes::{Bytes, BytesMut};

use crate::{
    catalog::{
        archive::{Archive, EpochClaim},
        schema::BaseFile,
    },
    cipher::{ObjectCipher, Purpose, TAG_LEN, associated},
    code::Code,
    error::{Error, Result},
    ids::{ArchiveId, ContentHash, Epoch, FileNumber},
    keyring::Keyring,
    layout::{Family, Fault, Fields, check_crc},
    object_key::ObjectKey,
    random::Random,
    segment::header::Fill,
    store::Put,
};

mod sending;

pub use sending::Source;

/// Plain bytes of a sealed chunk, and of the pieces in which a file is sent.
pub const CHUNK: usize = 1 << 20;
/// Bytes of a sealed file's header.
pub const HEADER_LEN: usize = 112;
/// Plain bytes that one request fetches.
pub const FETCH: u64 = 4 << 20;

const MAGIC: [u8; 8] = *b"pitr.fil";
const VERSION: u16 = 1;
const SEALED: u32 = 1;
const WHAT: &str = "the file's header";
const READING: &str = "reading the file";
const WRITING: &str = "uploading the file";

/// The name of a file's object: the same for the same file, whichever base it is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity(String);

impl FileIdentity {
    /// Of a file with RocksDB's unique id, its size and its number. In an encrypted archive a keyed hash of them.
    pub fn unique(keyring: &Keyring, id: [u64; 2], size: u64, number: FileNumber) -> Self {
        let [high, low] = id;
        if keyring.is_encrypted() {
            let parts = [high, low, size, number.get()].map(u64::to_le_bytes);
            let parts: Vec<&[u8]> = parts.iter().map(<[u8; 8]>::as_slice).collect();
            return Self(format!("03{}", keyring.name_hash("file-unique", &parts)));
        }
        Self(format!("01{high:016x}{low:016x}{size:016x}{:016x}", number.get()))
    }

    /// Of a file that RocksDB gave no unique id (blob files, old versions): by its content.
    pub fn content(keyring: &Keyring, hash: ContentHash, size: u64) -> Self {
        if keyring.is_encrypted() {
            return Self(format!("04{}", keyring.name_hash("file-content", &[&hash.0, &size.to_le_bytes()])));
        }
        Self(format!("02{hash}{size:016x}"))
    }

    /// Another name for the same file, where this one and the first `n - 1` others are condemned: what is condemned can be
    /// deleted at any time, and a name that is free again would be given to the same bytes.
    #[must_use]
    pub fn again(&self, keyring: &Keyring, n: u64) -> Self {
        Self(format!("05{}", keyring.name_hash("file-again", &[self.0.as_bytes(), &n.to_le_bytes()])))
    }

    /// As a base's document has it ([`BaseFile::object`]).
    pub fn from_object(object: &str) -> Option<Self> {
        let hexadecimal = object.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (hexadecimal && matches!(object.len(), 66 | 82)).then(|| Self(object.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The object's name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::file(&self.0)
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

/// A sealed file's header.
#[derive(Clone, Debug)]
struct FileHeader {
    epoch: Epoch,
    archive: ArchiveId,
    salt: [u8; 32],
    size: u64,
}

impl FileHeader {
    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let mut fill = Fill(&mut out);
        fill.put(&MAGIC);
        fill.put(&VERSION.to_le_bytes());
        fill.put(&HEADER_LEN_U16.to_le_bytes());
        fill.put(&SEALED.to_le_bytes());
        fill.put(&0u32.to_le_bytes());
        fill.put(&CHUNK_U32.to_le_bytes());
        fill.put(&self.epoch.get().to_le_bytes());
        fill.put(&self.archive.0);
        fill.put(&self.salt);
        fill.put(&self.size.to_le_bytes());
        let crc = crc32c::crc32c(out.get(..HEADER_LEN - 4).unwrap_or_default());
        Fill(out.get_mut(HEADER_LEN - 4..).unwrap_or_default()).put(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8], archive: ArchiveId) -> Result<Self, Fault> {
        let mut f = Fields::new(WHAT, 0, bytes);
        if f.array::<8>()? != MAGIC {
            return Err(Fault::Magic { what: WHAT });
        }
        let version = f.u16()?;
        if version != VERSION {
            return Err(Fault::Version { what: "the file", found: version, known: VERSION });
        }
        let mut whole = Fields::new(WHAT, 0, bytes);
        let checked = whole.slice(HEADER_LEN - 4)?;
        check_crc(WHAT, checked, whole.u32()?)?;
        Fault::unless_equal("length of the file's header", &HEADER_LEN_U16, &f.u16()?)?;
        let flags = f.u32()?;
        if flags != SEALED {
            return Err(Fault::Flags { what: "the file", flags });
        }
        let _optional = f.u32()?;
        Fault::unless_equal("length of the file's chunks", &CHUNK_U32, &f.u32()?)?;
        let header =
            Self { epoch: Epoch::new(f.u64()?), archive: ArchiveId(f.array()?), salt: f.array()?, size: f.u64()? };
        if header.archive != archive {
            return Err(Fault::Foreign { expected: archive.to_string(), found: header.archive.to_string() });
        }
        Ok(header)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "112 fits")]
const HEADER_LEN_U16: u16 = HEADER_LEN as u16;
#[expect(clippy::cast_possible_truncation, reason = "1 MiB fits")]
const CHUNK_U32: u32 = CHUNK as u32;

/// Chunks of a sealed file of `size` plain bytes: at least one, so that an empty file is sealed, too.
const fn chunks(size: u64) -> u64 {
    let full = size.div_ceil(CHUNK as u64);
    if full == 0 { 1 } else { full }
}

/// Length of a sealed file's object.
const fn sealed_len(size: u64) -> Option<u64> {
    match size.checked_add(HEADER_LEN as u64) {
        Some(len) => len.checked_add(chunks(size) * TAG_LEN as u64),
        None => None,
    }
}

/// What binds a chunk to its place: name, header, and whether it is the last.
fn chunk_aad(key: &ObjectKey, header: &[u8; HEADER_LEN], last: bool) -> Vec<u8> {
    associated(key, &[header, &[u8::from(last)]])
}

/// How an object is sealed while it is read or written.
struct Seal {
    cipher: ObjectCipher,
    header: [u8; HEADER_LEN],
    chunks: u64,
}

impl Archive {
    /// Uploads a file of `size` bytes, unless it is there. Reads `source` once, on threads of the runtime.
    ///
    /// # Errors
    /// `archive.object-damaged` when an object of that name is there and holds other bytes; what the store answers;
    /// `base.unobtainable` when `source` does not have `size` bytes.
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
        let hash = match sending::send(&key, size, source, seal, upload.as_mut()).await {
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
        let identity = FileIdentity::from_object(object).ok_or_else(|| {
            Error::new(Code::ObjectDamaged, READING).on(object).with("found", "a name that no file can have")
        })?;
        let key = identity.key();
        let fault = |e: Fault| e.on(Family::Object, READING, &key);
        let stored = self.store().size(&key).await?;
        let stored = stored.ok_or_else(|| Error::new(Code::ObjectMissing, READING).on(&key))?;
        let expected = if self.keyring().is_encrypted() { sealed_len(size) } else { Some(size) };
        Fault::unless_equal("length of the file's object", &expected.unwrap_or(u64::MAX), &stored).map_err(fault)?;
        let seal = if self.keyring().is_encrypted() {
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
            Some(Seal { cipher, header, chunks: chunks(size) })
        } else {
            None
        };
        Ok(FileDownload {
            archive: self,
            key,
            size,
            expected: hash,
            seal,
            hasher: blake3::Hasher::new(),
            plain: 0,
            chunk: 0,
            done: false,
        })
    }
}

/// A file on its way out of the archive.
pub struct FileDownload<'a> {
    archive: &'a Archive,
    key: ObjectKey,
    size: u64,
    expected: ContentHash,
    seal: Option<Seal>,
    hasher: blake3::Hasher,
    plain: u64,
    chunk: u64,
    done: bool,
}

impl std::fmt::Debug for FileDownload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileDownload").field("key", &self.key).field("at", &self.plain).finish_non_exhaustive()
    }
}

impl FileDownload<'_> {
    /// The object's name.
    pub const fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// The next plain bytes, at most [`FETCH`]. `None` once: everything was delivered and its hash is the right one.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let fault = |e: Fault, key: &ObjectKey| e.on(Family::Object, READING, key);
        if self.plain == self.size && (self.seal.is_none() || self.chunk > 0) {
            if !self.done {
                self.done = true;
                let computed = ContentHash(*self.hasher.finalize().as_bytes());
                if computed != self.expected {
                    let (stored, computed) = (self.expected.to_string(), computed.to_string());
                    return Err(fault(Fault::Checksum { what: "the file", stored, computed }, &self.key));
                }
            }
            return Ok(None);
        }
        let want = (self.size - self.plain).min(FETCH);
        let plain = match &self.seal {
            None => self.fetch(self.plain..self.plain + want).await?,
            Some(seal) => {
                let count = chunks(want);
                let from = HEADER_LEN as u64 + self.chunk * (CHUNK + TAG_LEN) as u64;
                let sealed = self.fetch(from..from + want + count * TAG_LEN as u64).await?;
                let plain = open_chunks(&self.key, seal, self.chunk, sealed).map_err(|e| fault(e, &self.key))?;
                self.chunk += count;
                plain
            }
        };
        Fault::unless_equal("bytes of the file", &want, &(plain.len() as u64)).map_err(|e| fault(e, &self.key))?;
        self.hasher.update(&plain);
        self.plain += want;
        if plain.is_empty() {
            // An empty file that was sealed: its one chunk is proven, and nothing is left to deliver.
            return Box::pin(self.next()).await;
        }
        Ok(Some(plain))
    }

    async fn fetch(&self, range: std::ops::Range<u64>) -> Result<Bytes> {
        let bytes = self.archive.store().get_range(&self.key, range).await?;
        bytes.ok_or_else(|| Error::new(Code::ObjectMissing, READING).on(&self.key))
    }
}

fn open_chunks(key: &ObjectKey, seal: &Seal, first: u64, mut sealed: Bytes) -> Result<Bytes, Fault> {
    let mut plain = BytesMut::with_capacity(sealed.len());
    let mut chunk = first;
    while !sealed.is_empty() {
        let mut piece = Vec::from(sealed.split_to(sealed.len().min(CHUNK + TAG_LEN)));
        let aad = chunk_aad(key, &seal.header, chunk + 1 == seal.chunks);
        seal.cipher.open("a chunk", Purpose::Chunk, chunk, &aad, &mut piece)?;
        plain.extend_from_slice(&piece);
        chunk += 1;
    }
    Ok(plain.freeze())
}
