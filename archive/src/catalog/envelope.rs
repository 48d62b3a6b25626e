//! The bytes of a document: a clear header, then JSON, compressed and (mostly) sealed.
//!
//! Owns: the header, and its binding to the object's name: the hash in it covers the name, so that a document under
//! another document's name is refused even in a clear archive. Layout: FORMAT.md, "Documents".

use bytes::Bytes;

use crate::{
    cipher::{ObjectCipher, Purpose, associated},
    ids::{ContentHash, Epoch},
    layout::{Fault, Fields, check_crc},
    object_key::ObjectKey,
    segment::{
        envelope::{self, Level, Place},
        header::Fill,
    },
};

/// The first bytes of a document.
pub const MAGIC: [u8; 8] = *b"pitr.doc";
/// The version written.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = 128;
/// Bytes of the header that are bound into the seal and the hash.
const BOUND_LEN: usize = 80;
/// The longest JSON of a document.
pub const MAX_PLAIN: u64 = 1 << 30;
/// The longest stored document.
pub const MAX_STORED: u64 = (1 << 30) + 4096;

const WHAT: &str = "the document";
const SEALED: u32 = 1;
#[expect(clippy::cast_possible_truncation, reason = "128 fits")]
const HEADER_LEN_U16: u16 = HEADER_LEN as u16;

/// What a document is about. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A timeline.
    Timeline,
    /// A writer's claim; never sealed, for it holds the wrapped key that seals the others.
    Epoch,
    /// A roll-up manifest.
    Manifest,
    /// A deletion boundary.
    Boundary,
    /// A base.
    Base,
    /// A tag.
    Tag,
    /// What is no longer part of the archive.
    Condemned,
    /// A restore under way.
    Hold,
    /// An index over manifests.
    Index,
    /// The report of a drill.
    Drill,
}

impl Kind {
    const fn number(self) -> u32 {
        match self {
            Self::Timeline => 1,
            Self::Epoch => 2,
            Self::Manifest => 3,
            Self::Boundary => 4,
            Self::Base => 5,
            Self::Tag => 6,
            Self::Condemned => 7,
            Self::Hold => 8,
            Self::Index => 9,
            Self::Drill => 10,
        }
    }
}

/// A document's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentHeader {
    /// Whether the body is sealed.
    pub sealed: bool,
    /// The writer's epoch, whose data key seals the body; 0 when it is not sealed.
    pub epoch: Epoch,
    /// Random; makes the key of this body unique. Zero when it is not sealed.
    pub salt: [u8; 32],
    stored_len: u64,
    plain_len: u64,
    bound: [u8; BOUND_LEN],
}

impl DocumentHeader {
    /// Reads the header of a whole document and verifies everything that needs no key.
    pub fn decode(kind: Kind, key: &ObjectKey, object: &[u8]) -> Result<Self, Fault> {
        let mut f = Fields::new("the document header", 0, object);
        if f.array::<8>()? != MAGIC {
            return Err(Fault::Magic { what: WHAT });
        }
        let version = f.u16()?;
        if version != VERSION {
            return Err(Fault::Version { what: WHAT, found: version, known: VERSION });
        }
        let mut whole = Fields::new("the document header", 0, object);
        let checked = whole.slice(HEADER_LEN - 4)?;
        check_crc("the document header", checked, whole.u32()?)?;
        let body = whole.rest();
        Fault::unless_equal("length of the document header", &HEADER_LEN_U16, &f.u16()?)?;
        let required = f.u32()?;
        if required & !SEALED != 0 {
            return Err(Fault::Flags { what: WHAT, flags: required & !SEALED });
        }
        let _optional = f.u32()?;
        Fault::unless_equal("kind of the document", &kind.number(), &f.u32()?)?;
        let epoch = Epoch::new(f.u64()?);
        let salt = f.array()?;
        let stored_len = f.u64()?;
        let plain_len = f.u64()?;
        let hash = ContentHash(f.array()?);
        Fault::unless_equal("length of the document's body", &stored_len, &(body.len() as u64))?;
        let bound: [u8; BOUND_LEN] = Fields::new(WHAT, 0, object).array()?;
        let computed = integrity(key, &bound, body);
        if computed != hash {
            return Err(Fault::Checksum { what: WHAT, stored: hash.to_string(), computed: computed.to_string() });
        }
        Ok(Self { sealed: required & SEALED != 0, epoch, salt, stored_len, plain_len, bound })
    }

    /// Opens the body. `cipher` is present exactly when the document is sealed.
    pub fn open(&self, key: &ObjectKey, object: &Bytes, cipher: Option<&ObjectCipher>) -> Result<Bytes, Fault> {
        let aad = associated(key, &[&self.bound]);
        let place = Place { what: WHAT, purpose: Purpose::Document, counter: 0, aad: &aad };
        let body = object.slice(HEADER_LEN.min(object.len())..);
        Fault::unless_equal("length of the document's body", &self.stored_len, &(body.len() as u64))?;
        envelope::unwrap(cipher, place, &body, self.plain_len, MAX_PLAIN)
    }
}

/// How a document is sealed.
#[derive(Debug)]
pub struct Sealing<'a> {
    /// The writer's epoch.
    pub epoch: Epoch,
    /// Random.
    pub salt: [u8; 32],
    /// The cipher for this epoch, name and salt.
    pub cipher: &'a ObjectCipher,
}

/// A document's stored bytes.
pub fn encode(kind: Kind, key: &ObjectKey, json: &[u8], sealing: Option<&Sealing<'_>>) -> Result<Bytes, Fault> {
    let plain_len = json.len() as u64;
    if plain_len > MAX_PLAIN {
        return Err(Fault::Limit { what: WHAT, declared: plain_len, limit: MAX_PLAIN });
    }
    let compressed = zstd::bulk::compress(json, Level::default().get())
        .map_err(|e| Fault::Compression { what: WHAT, source: Some(e) })?;
    let stored_len = compressed.len() + envelope::overhead(sealing.is_some());
    let mut bound = [0; BOUND_LEN];
    let mut fill = Fill(&mut bound);
    fill.put(&MAGIC);
    fill.put(&VERSION.to_le_bytes());
    fill.put(&HEADER_LEN_U16.to_le_bytes());
    fill.put(&(if sealing.is_some() { SEALED } else { 0 }).to_le_bytes());
    fill.put(&0u32.to_le_bytes());
    fill.put(&kind.number().to_le_bytes());
    fill.put(&sealing.map_or(0, |s| s.epoch.get()).to_le_bytes());
    fill.put(&sealing.map_or([0; 32], |s| s.salt));
    fill.put(&(stored_len as u64).to_le_bytes());
    fill.put(&plain_len.to_le_bytes());

    let mut out = Vec::with_capacity(HEADER_LEN + stored_len);
    out.resize(HEADER_LEN, 0);
    let aad = associated(key, &[&bound]);
    let place = Place { what: WHAT, purpose: Purpose::Document, counter: 0, aad: &aad };
    envelope::wrap(sealing.map(|s| s.cipher), place, crc32c::crc32c(json), &mut out, |out| {
        out.extend_from_slice(&compressed);
        Ok(())
    })?;
    let (header, body) = out.split_at_mut(HEADER_LEN);
    let hash = integrity(key, &bound, body);
    let mut fill = Fill(header);
    fill.put(&bound);
    fill.put(&hash.0);
    let crc = crc32c::crc32c(header.get(..HEADER_LEN - 4).unwrap_or_default());
    Fill(header.get_mut(HEADER_LEN - 4..).unwrap_or_default()).put(&crc.to_le_bytes());
    Ok(out.into())
}

/// blake3 over the name with its length, the bound part of the header, and the body as it is stored.
fn integrity(key: &ObjectKey, bound: &[u8; BOUND_LEN], body: &[u8]) -> ContentHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&associated(key, &[bound])).update(body);
    ContentHash(*hasher.finalize().as_bytes())
}
