//! Compress, then seal: the form of every frame, footer and document.
//!
//! Owns: `seal(crc32c(plain) || zstd(plain))` and its undoing. Without a cipher the seal is absent and the rest is the
//! same. Refuses: expanding beyond the declared plain length, and trusting it above the caller's limit.

use std::fmt;

use bytes::Bytes;
use zstd::{bulk::Decompressor, zstd_safe};

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
    stored: &[u8],
    plain_len: u64,
    limit: u64,
) -> Result<Bytes, Fault> {
    let (crc, plain) = Unpacker::default().unpack(cipher, place, stored, plain_len, limit)?;
    check_crc(place.what, &plain, crc)?;
    Ok(plain.into())
}

/// What undoing [`wrap`] takes, kept from one to the next: making a context of zstd anew takes a twelfth of the time of
/// expanding a frame.
#[derive(Default)]
pub struct Unpacker {
    zstd: Option<Decompressor<'static>>,
    opened: Vec<u8>,
}

/// A longer buffer is not kept.
const KEPT: usize = 1 << 20;

impl Unpacker {
    /// Opens the seal and expands to exactly `plain_len` bytes. Answers the checksum, too: whoever knows no better proof of
    /// the plain bytes compares it.
    pub fn unpack(
        &mut self,
        cipher: Option<&ObjectCipher>,
        place: Place<'_>,
        stored: &[u8],
        plain_len: u64,
        limit: u64,
    ) -> Result<(u32, Vec<u8>), Fault> {
        let what = place.what;
        if plain_len > limit {
            return Err(Fault::Limit { what, declared: plain_len, limit });
        }
        let Some(cipher) = cipher else { return expand(what, &mut self.zstd, stored, plain_len) };
        self.opened.clear();
        self.opened.extend_from_slice(stored);
        let opened = cipher.open_in_place(what, place.purpose, place.counter, place.aad, &mut self.opened)?;
        let expanded = expand(what, &mut self.zstd, opened, plain_len);
        if self.opened.capacity() > KEPT {
            self.opened = Vec::new();
        }
        expanded
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unpacker(…)")
    }
}

/// Expands what follows the checksum: one zstd frame that says itself that it holds `plain_len` bytes.
fn expand(
    what: &'static str,
    zstd: &mut Option<Decompressor<'static>>,
    opened: &[u8],
    plain_len: u64,
) -> Result<(u32, Vec<u8>), Fault> {
    let mut f = Fields::new(what, 0, opened);
    let (crc, compressed) = (f.u32()?, f.rest());
    // A block of zstd has at least four bytes and stands for at most 128 KiB: more than that is a lie, and not worth its
    // memory.
    let most = (compressed.len() as u64 / 4).saturating_mul(zstd_safe::BLOCKSIZE_MAX as u64);
    if plain_len > most {
        return Err(Fault::Compression { what, source: None });
    }
    let declared = zstd_safe::get_frame_content_size(compressed).ok().flatten();
    let capacity = match (declared, usize::try_from(plain_len)) {
        (Some(declared), Ok(capacity)) if declared == plain_len => capacity,
        _ => return Err(Fault::Compression { what, source: None }),
    };
    let failed = |e| Fault::Compression { what, source: Some(e) };
    let zstd = match zstd {
        Some(zstd) => zstd,
        None => zstd.insert(Decompressor::new().map_err(failed)?),
    };
    let plain = zstd.decompress(compressed, capacity).map_err(failed)?;
    if plain.len() == capacity { Ok((crc, plain)) } else { Err(Fault::Compression { what, source: None }) }
}
