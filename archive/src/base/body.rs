//! A file's object: its header, and where in it which of the file's bytes lie.
//!
//! Owns: the layout (FORMAT.md, "Files"), and opening one chunk in place, alone: whoever writes or hashes them does it chunk
//! by chunk, on a thread of his own. Refuses: I/O, and a chunk of another length than its place demands.

use std::ops::Range;

use super::{CHUNK, FETCH, HEADER_LEN, READING, WHAT};
use crate::{
    cipher::{ObjectCipher, Purpose, TAG_LEN, associated},
    error::Result,
    ids::{ArchiveId, Epoch},
    layout::{Family, Fault, Fields, check_crc},
    object_key::ObjectKey,
    segment::header::Fill,
};

const MAGIC: [u8; 8] = *b"pitr.fil";
const VERSION: u16 = 1;
const SEALED: u32 = 1;
/// Bytes of a chunk of a clear file, where they are nothing but pieces: small enough that what several readers hold stays in
/// the second-level cache of their core until it is hashed and written. With 512 KiB a restore took a fifth longer.
const CLEAR: usize = 128 * 1024;

/// A sealed file's header.
#[derive(Clone, Debug)]
pub(super) struct FileHeader {
    pub epoch: Epoch,
    pub archive: ArchiveId,
    pub salt: [u8; 32],
    pub size: u64,
}

impl FileHeader {
    pub fn encode(&self) -> [u8; HEADER_LEN] {
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

    pub fn decode(bytes: &[u8], archive: ArchiveId) -> Result<Self, Fault> {
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
pub(super) const fn chunks(size: u64) -> u64 {
    let full = size.div_ceil(CHUNK as u64);
    if full == 0 { 1 } else { full }
}

/// Length of a sealed file's object.
pub(super) const fn sealed_len(size: u64) -> Option<u64> {
    match size.checked_add(HEADER_LEN as u64) {
        Some(len) => len.checked_add(chunks(size) * TAG_LEN as u64),
        None => None,
    }
}

/// What binds a chunk to its place: name, header, and whether it is the last.
pub(super) fn chunk_aad(key: &ObjectKey, header: &[u8; HEADER_LEN], last: bool) -> Vec<u8> {
    associated(key, &[header, &[u8::from(last)]])
}

/// How an object is sealed while it is read or written.
pub(super) struct Seal {
    pub cipher: ObjectCipher,
    pub header: [u8; HEADER_LEN],
    pub chunks: u64,
}

/// A file's object whose length and header are the right ones. Nothing of its content is proven yet: a sealed chunk by
/// [`FileBody::open`], the whole by the file's hash.
pub struct FileBody {
    key: ObjectKey,
    size: u64,
    seal: Option<Seal>,
}

impl std::fmt::Debug for FileBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileBody").field("key", &self.key).field("size", &self.size).finish_non_exhaustive()
    }
}

impl FileBody {
    pub(super) const fn clear(key: ObjectKey, size: u64) -> Self {
        Self { key, size, seal: None }
    }

    pub(super) const fn sealed(key: ObjectKey, size: u64, seal: Seal) -> Self {
        Self { key, size, seal: Some(seal) }
    }

    /// The object's name.
    pub const fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// How many chunks it has. Those of a clear file are pieces of it.
    pub fn chunks(&self) -> u64 {
        self.seal.as_ref().map_or_else(|| self.size.div_ceil(CLEAR as u64), |seal| seal.chunks)
    }

    /// Bytes of a stored chunk; the last one can have less.
    pub const fn stored_chunk(&self) -> usize {
        if self.seal.is_some() { CHUNK + TAG_LEN } else { CLEAR }
    }

    /// Plain bytes of a chunk other than the last.
    const fn plain_chunk(&self) -> u64 {
        if self.seal.is_some() { CHUNK as u64 } else { CLEAR as u64 }
    }

    /// The chunks from `first` on that one request fetches.
    pub fn fetched_from(&self, first: u64) -> Range<u64> {
        first..first.saturating_add(FETCH / self.plain_chunk()).min(self.chunks())
    }

    /// Where chunks lie in the object.
    pub fn range(&self, chunks: Range<u64>) -> Range<u64> {
        let (head, tag) = if self.seal.is_some() { (HEADER_LEN as u64, TAG_LEN as u64) } else { (0, 0) };
        let before = |chunk: u64| {
            let plain = chunk.saturating_mul(self.plain_chunk()).min(self.size);
            head + plain + chunk.min(self.chunks()) * tag
        };
        before(chunks.start)..before(chunks.end)
    }

    /// Opens a chunk in place: its plain bytes. Of a clear file those are the stored ones.
    pub fn open<'b>(&self, chunk: u64, stored: &'b mut [u8]) -> Result<&'b [u8]> {
        self.open_inner(chunk, stored).map_err(|e| e.on(Family::Object, READING, &self.key).with("chunk", chunk))
    }

    fn open_inner<'b>(&self, chunk: u64, stored: &'b mut [u8]) -> Result<&'b [u8], Fault> {
        let range = self.range(chunk..chunk.saturating_add(1));
        Fault::unless_equal("bytes of a chunk", &(range.end - range.start), &(stored.len() as u64))?;
        let Some(seal) = &self.seal else { return Ok(stored) };
        let aad = chunk_aad(&self.key, &seal.header, chunk + 1 == seal.chunks);
        seal.cipher.open_in_place("a chunk", Purpose::Chunk, chunk, &aad, stored)
    }
}
