//! A segment's footer: what a reader of the catalog needs without the frames.
//!
//! Owns: its stored form, `plain length || envelope(JSON)`, bound to the whole header. The fields are
//! `catalog::schema::SegmentFooter`. Layout: FORMAT.md, "Footer".

use bytes::Bytes;

use crate::{
    catalog::schema::SegmentFooter,
    cipher::{ObjectCipher, Purpose, associated},
    layout::{Fault, Fields},
    object_key::ObjectKey,
    segment::{
        envelope::{self, Level, Place},
        header::HEADER_LEN,
    },
};

/// The longest footer's JSON.
pub const MAX_FOOTER_PLAIN: u64 = 256 << 20;
/// The longest stored footer.
pub const MAX_FOOTER_STORED: u64 = 128 << 20;

const WHAT: &str = "the segment footer";

/// A footer compressed but not yet sealed: its stored length is known, which the header needs, whose bytes the seal needs.
pub(crate) struct Packed {
    plain_len: u32,
    crc: u32,
    compressed: Vec<u8>,
}

impl Packed {
    pub(crate) fn new(footer: &SegmentFooter, level: Level) -> Result<Self, Fault> {
        let json = serde_json::to_vec(footer).map_err(|source| Fault::Json { what: WHAT, source })?;
        let declared = json.len() as u64;
        let plain_len = match u32::try_from(declared) {
            Ok(len) if declared <= MAX_FOOTER_PLAIN => len,
            _ => return Err(Fault::Limit { what: WHAT, declared, limit: MAX_FOOTER_PLAIN }),
        };
        let compressed =
            zstd::bulk::compress(&json, level.get()).map_err(|e| Fault::Compression { what: WHAT, source: Some(e) })?;
        Ok(Self { plain_len, crc: crc32c::crc32c(&json), compressed })
    }

    pub(crate) fn stored_len(&self, sealed: bool) -> usize {
        4 + envelope::overhead(sealed) + self.compressed.len()
    }

    /// Appends the stored form.
    pub(crate) fn append(
        &self,
        key: &ObjectKey,
        header: &[u8; HEADER_LEN],
        cipher: Option<&ObjectCipher>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        out.extend_from_slice(&self.plain_len.to_le_bytes());
        let aad = associated(key, &[header, &self.plain_len.to_le_bytes()]);
        let place = Place { what: WHAT, purpose: Purpose::Footer, counter: 0, aad: &aad };
        envelope::wrap(cipher, place, self.crc, out, |out| {
            out.extend_from_slice(&self.compressed);
            Ok(())
        })
    }
}

/// Opens a stored footer.
pub(crate) fn decode(
    key: &ObjectKey,
    header: &[u8],
    cipher: Option<&ObjectCipher>,
    stored: &Bytes,
) -> Result<SegmentFooter, Fault> {
    let plain_len = Fields::new(WHAT, 0, stored).u32()?;
    let aad = associated(key, &[header, &plain_len.to_le_bytes()]);
    let place = Place { what: WHAT, purpose: Purpose::Footer, counter: 0, aad: &aad };
    let json = envelope::unwrap(cipher, place, &stored.slice(4..), u64::from(plain_len), MAX_FOOTER_PLAIN)?;
    serde_json::from_slice(&json).map_err(|source| Fault::Json { what: WHAT, source })
}
