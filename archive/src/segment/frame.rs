//! Frames: a group of whole entries, compressed and sealed together.
//!
//! Owns: the frame header and the walk over a frame's plain bytes. Layout: FORMAT.md, "Frames".

use bytes::Bytes;

use crate::{
    cipher::{ObjectCipher, Purpose, associated},
    layout::{Fault, Fields, check_crc},
    object_key::ObjectKey,
    segment::{
        chain::{HashKey, Leaf},
        entry::{Entry, MAX_PAYLOAD},
        envelope::{Place, Unpacker},
        header::{Fill, OPENING_LEN},
    },
};

/// Plain bytes after which a frame is closed; a longer entry makes a longer frame.
pub const FRAME_PLAIN: usize = 256 * 1024;
/// Bytes of a frame's header.
pub const FRAME_HEADER_LEN: usize = 24;
/// The longest plain frame: one entry of the longest kind on top of an almost full frame.
pub const MAX_FRAME_PLAIN: u64 = MAX_PAYLOAD + 2 * FRAME_PLAIN as u64;

const WHAT: &str = "a frame";

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Number in the segment, from 0.
    pub index: u32,
    /// Bytes that follow the header.
    pub body_len: u32,
    /// Bytes of the encoded entries.
    pub plain_len: u32,
    /// Entries.
    pub entries: u32,
    /// crc32c of the body as it is stored: other bytes that expand to the same entries are damage all the same.
    pub body_crc: u32,
}

impl FrameHeader {
    /// The bytes.
    pub fn encode(&self) -> [u8; FRAME_HEADER_LEN] {
        let mut out = [0; FRAME_HEADER_LEN];
        let mut fill = Fill(&mut out);
        fill.put(&self.index.to_le_bytes());
        fill.put(&self.body_len.to_le_bytes());
        fill.put(&self.plain_len.to_le_bytes());
        fill.put(&self.entries.to_le_bytes());
        fill.put(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c(out.get(..20).unwrap_or_default());
        Fill(out.get_mut(20..).unwrap_or_default()).put(&crc.to_le_bytes());
        out
    }

    /// Reads a header; `offset` is its place in the object.
    pub fn decode(bytes: &[u8], offset: u64) -> Result<Self, Fault> {
        const WHAT: &str = "a frame header";
        let mut f = Fields::new(WHAT, offset, bytes);
        let checked = Fields::new(WHAT, offset, bytes).slice(20)?;
        let header =
            Self { index: f.u32()?, body_len: f.u32()?, plain_len: f.u32()?, entries: f.u32()?, body_crc: f.u32()? };
        check_crc(WHAT, checked, f.u32()?)?;
        Ok(header)
    }
}

/// What binds a frame to its place: the object's name, the opening header, and the frame's number, plain length and
/// number of entries.
pub(crate) fn frame_aad(key: &ObjectKey, opening: &[u8; OPENING_LEN], index: u32, plain: u32, entries: u32) -> Vec<u8> {
    associated(key, &[opening, &index.to_le_bytes(), &plain.to_le_bytes(), &entries.to_le_bytes()])
}

/// A frame whose stored bytes are those that were written; whether its entries are the right ones, the chain says.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its header.
    pub header: FrameHeader,
    plain: Bytes,
    /// Of the plain bytes, as it was written.
    crc: u32,
}

impl Frame {
    /// Opens a stored frame (header and body).
    pub(crate) fn decode(
        key: &ObjectKey,
        opening: &[u8; OPENING_LEN],
        cipher: Option<&ObjectCipher>,
        unpacker: &mut Unpacker,
        index: u32,
        stored: &Bytes,
        offset: u64,
    ) -> Result<Self, Fault> {
        let header = FrameHeader::decode(stored, offset)?;
        Fault::unless_equal("number of the frame", &index, &header.index)?;
        let body = stored.slice(FRAME_HEADER_LEN.min(stored.len())..);
        Fault::unless_equal("length of the frame", &(body.len() as u64), &u64::from(header.body_len))?;
        check_crc("a frame's body", &body, header.body_crc)?;
        let aad = frame_aad(key, opening, index, header.plain_len, header.entries);
        let place = Place { what: WHAT, purpose: Purpose::Frame, counter: u64::from(index), aad: &aad };
        let plain_len = u64::from(header.plain_len);
        // Whoever opens a frame compares the running hash behind it: that proves its bytes better than their checksum.
        let (crc, plain) = unpacker.unpack(cipher, place, &body, plain_len, MAX_FRAME_PLAIN)?;
        Ok(Self { header, plain: plain.into(), crc })
    }

    /// Compares the checksum that was written with the plain bytes.
    pub fn check(&self) -> Result<(), Fault> {
        check_crc(WHAT, &self.plain, self.crc)
    }

    /// The encoded entries.
    pub const fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// The leaves of the entries in order. Pure and independent of other frames: compute them in parallel, then join.
    pub fn leaves(&self, key: &HashKey) -> Result<Vec<Leaf>, Fault> {
        // The header's count is not believed for allocation: an entry has at least five bytes.
        let mut leaves = Vec::with_capacity((self.header.entries as usize).min(self.plain.len() / 5 + 1));
        let mut rest: &[u8] = &self.plain;
        while !rest.is_empty() {
            let fault = |source| Fault::Entry { offset: (self.plain.len() - rest.len()) as u64, source };
            let len = Entry::encoded_len(rest).map_err(fault)?;
            let (entry, after) = rest.split_at_checked(len).unwrap_or((rest, &[]));
            leaves.push(Leaf::of(key, &[entry]));
            rest = after;
        }
        Fault::unless_equal("entries in the frame", &(leaves.len() as u64), &u64::from(self.header.entries))?;
        Ok(leaves)
    }

    /// The entries in order, decoded one by one; payloads share the frame's memory.
    pub fn entries(&self) -> FrameEntries {
        FrameEntries { whole: self.plain.len(), rest: self.plain.clone() }
    }
}

/// Iterator over a frame's entries; ends after the first error.
#[derive(Debug)]
pub struct FrameEntries {
    whole: usize,
    rest: Bytes,
}

impl Iterator for FrameEntries {
    type Item = Result<Entry, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let offset = (self.whole - self.rest.len()) as u64;
        let entry = Entry::decode(&mut self.rest).map_err(|source| Fault::Entry { offset, source });
        if entry.is_err() {
            self.rest.clear();
        }
        Some(entry)
    }
}
