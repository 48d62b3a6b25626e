//! Compress, then seal: the form of every frame, footer and document.
//!
//! Owns: `seal(crc32c(plain) || zstd(plain))` and its undoing. Without a cipher the seal is absent and the rest is the
//! same. Refuses: expanding beyond the declared plain length, and trusting it above the caller's limit.

use bytes::Bytes;

use crate::{
    cipher::{ObjectCipher, Purpose},
    layout::{Fault, Fields, check_crc},
};

/// How hard zstd tries: 1 (fast) to 19 (small).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(i32);

impl Level {
    /// Clamps to what zstd offers without extra memory.
    pub fn new(level: i32) -> Self {
        Self(level.clamp(1, 19))
    }

    /// zstd's number.
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl Default for Level {
    /// Level 3, zstd's own.
    fn default() -> Self {
        Self(3)
    }
}

/// What is sealed, and where: everything that binds a seal to its place.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The structure, for errors.
    pub what: &'static str,
    /// Kind of seal.
    pub purpose: Purpose,
    /// Number within the object.
    pub counter: u64,
    /// Associated data.
    pub aad: &'a [u8],
}

/// Appends `crc32c(plain) || compressed`, sealed, to `out`. `compress` appends the zstd frame.
pub fn wrap(
    cipher: Option<&ObjectCipher>,
    place: Place<'_>,
    crc: u32,
    out: &mut Vec<u8>,
    compress: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>,
) -> Result<(), Fault> {
    let from = out.len();
    out.extend_from_slice(&crc.to_le_bytes());
    compress(out).map_err(|e| Fault::Compression { what: place.what, source: Some(e) })?;
    match cipher {
        Some(cipher) => cipher.seal(place.what, place.purpose, place.counter, place.aad, out, from),
        None => Ok(()),
    }
}

/// Bytes that [`wrap`] adds to the compressed ones.
pub const fn overhead(sealed: bool) -> usize {
    if sealed { 4 + crate::cipher::TAG_LEN } else { 4 }
}

/// Undoes [`wrap`]: opens the seal, expands to exactly `plain_len` bytes and compares the checksum.
pub fn unwrap(
    cipher: Option<&ObjectCipher>,
    place: Place<'_>,
    stored: Bytes,
    plain_len: u64,
    limit: u64,
) -> Result<Bytes, Fault> {
    let what = place.what;
    if plain_len > limit {
        return Err(Fault::Limit { what, declared: plain_len, limit });
    }
    let opened = match cipher {
        Some(cipher) => {
            let mut copy = Vec::from(stored);
            cipher.open(what, place.purpose, place.counter, place.aad, &mut copy)?;
            Bytes::from(copy)
        }
        None => stored,
    };
    let mut f = Fields::new(what, 0, &opened);
    let crc = f.u32()?;
    let plain = expand(what, f.rest(), plain_len)?;
    check_crc(what, &plain, crc)?;
    Ok(plain.into())
}

/// Expands one zstd frame that says itself that it holds `plain_len` bytes.
fn expand(what: &'static str, compressed: &[u8], plain_len: u64) -> Result<Vec<u8>, Fault> {
    // A block of zstd has at least four bytes and stands for at most 128 KiB: more than that is a lie, and not worth its
    // memory.
    let most = (compressed.len() as u64 / 4).saturating_mul(zstd::zstd_safe::BLOCKSIZE_MAX as u64);
    if plain_len > most {
        return Err(Fault::Compression { what, source: None });
    }
    let declared = zstd::zstd_safe::get_frame_content_size(compressed).ok().flatten();
    let capacity = match (declared, usize::try_from(plain_len)) {
        (Some(declared), Ok(capacity)) if declared == plain_len => capacity,
        _ => return Err(Fault::Compression { what, source: None }),
    };
    let plain =
        zstd::bulk::decompress(compressed, capacity).map_err(|e| Fault::Compression { what, source: Some(e) })?;
    if plain.len() == capacity { Ok(plain) } else { Err(Fault::Compression { what, source: None }) }
}
