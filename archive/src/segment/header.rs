//! A segment's header and trailer: fixed, clear, checksummed.
//!
//! Owns: their bytes. The header has an opening part, known before the first frame and bound into every frame's seal,
//! and a closing part, known at the end and bound into the footer's seal. Layout: FORMAT.md, "Segment header".

use crate::{
    clock::Micros,
    ids::{ArchiveId, Boundary, Epoch, Nonce, Ordinal, Ordinals, RunningHash, TimelineId},
    layout::{Fault, Fields, check_crc},
};

/// The first bytes of a segment.
pub const MAGIC: [u8; 8] = *b"pitr.seg";
/// The last bytes of a segment.
pub const END_MAGIC: [u8; 8] = *b"pitr.end";
/// The version written.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = 256;
/// Bytes of the header that are known when the first frame is sealed.
pub const OPENING_LEN: usize = 160;
/// Bytes of the trailer.
pub const TRAILER_LEN: usize = 32;

const WHAT: &str = "the segment header";

/// Features that a reader must know.
pub mod required {
    /// Frames and footer are sealed with AES-256-GCM.
    pub const SEALED: u32 = 1;
    /// Merged from several segments: the last of their ordinals is in the header.
    pub const MERGED: u32 = 2;
    /// All that this version knows.
    pub const KNOWN: u32 = SEALED | MERGED;
}

/// A segment's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Features that a reader must know ([`required`]).
    pub required_flags: u32,
    /// Features that a reader may ignore; none is defined.
    pub optional_flags: u32,
    /// The timeline.
    pub timeline: TimelineId,
    /// The ordinals on it that the segment stands for.
    pub ordinals: Ordinals,
    /// The writer's epoch; its data key seals the segment.
    pub epoch: Epoch,
    /// The archive.
    pub archive: ArchiveId,
    /// The writer's nonce.
    pub nonce: Nonce,
    /// Random; makes the key of this body unique.
    pub salt: [u8; 32],
    /// Boundary before the first record.
    pub first: Boundary,
    /// Running hash before the first entry.
    pub hash_before: RunningHash,
    /// Boundary after the last record.
    pub end: Boundary,
    /// Running hash after the last entry.
    pub hash_after: RunningHash,
    /// When the segment was finished, by the writer's clock.
    pub created: Micros,
    /// Entries: records and events.
    pub entries: u64,
    /// Bytes of all encoded entries.
    pub plain_bytes: u64,
    /// Offset of the footer: the end of the last frame.
    pub footer_offset: u64,
    /// Stored bytes of the footer.
    pub footer_len: u32,
    /// Number of frames.
    pub frames: u32,
}

impl SegmentHeader {
    /// Whether frames and footer are sealed.
    pub const fn is_sealed(&self) -> bool {
        self.required_flags & required::SEALED != 0
    }

    /// Length of the whole object.
    pub fn object_len(&self) -> Option<u64> {
        self.footer_offset.checked_add(u64::from(self.footer_len))?.checked_add(TRAILER_LEN as u64)
    }

    /// The first [`OPENING_LEN`] bytes.
    pub fn opening(&self) -> [u8; OPENING_LEN] {
        let mut out = [0; OPENING_LEN];
        let mut fill = Fill(&mut out);
        fill.put(&MAGIC);
        fill.put(&VERSION.to_le_bytes());
        fill.put(&HEADER_LEN_U16.to_le_bytes());
        fill.put(&self.required_flags.to_le_bytes());
        fill.put(&self.optional_flags.to_le_bytes());
        fill.put(&self.timeline.get().to_le_bytes());
        fill.put(&self.ordinals.first().get().to_le_bytes());
        fill.put(&self.epoch.get().to_le_bytes());
        fill.put(&self.archive.0);
        fill.put(&self.nonce.0);
        fill.put(&self.salt);
        fill.put(&self.first.get().to_le_bytes());
        fill.put(&self.hash_before.0);
        if self.required_flags & required::MERGED != 0 {
            fill.put(&self.ordinals.last().get().to_le_bytes());
        }
        out
    }

    /// The whole header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let mut fill = Fill(&mut out);
        fill.put(&self.opening());
        fill.put(&self.end.get().to_le_bytes());
        fill.put(&self.hash_after.0);
        fill.put(&self.created.0.to_le_bytes());
        fill.put(&self.entries.to_le_bytes());
        fill.put(&self.plain_bytes.to_le_bytes());
        fill.put(&self.footer_offset.to_le_bytes());
        fill.put(&self.footer_len.to_le_bytes());
        fill.put(&self.frames.to_le_bytes());
        let crc = crc32c::crc32c(out.get(..HEADER_LEN - 4).unwrap_or_default());
        if let Some(slot) = out.get_mut(HEADER_LEN - 4..) {
            slot.copy_from_slice(&crc.to_le_bytes());
        }
        out
    }

    /// Reads a header from the first bytes of an object, of which there may be more than [`HEADER_LEN`].
    pub fn decode(object: &[u8]) -> Result<Self, Fault> {
        let mut f = Fields::new(WHAT, 0, object);
        if f.array::<8>()? != MAGIC {
            return Err(Fault::Magic { what: WHAT });
        }
        let version = f.u16()?;
        if version != VERSION {
            return Err(Fault::Version { what: "the segment", found: version, known: VERSION });
        }
        let whole = Fields::new(WHAT, 0, object).slice(HEADER_LEN)?;
        let (checked, crc) = whole.split_at_checked(HEADER_LEN - 4).unwrap_or_default();
        check_crc(WHAT, checked, Fields::new(WHAT, 0, crc).u32()?)?;
        Fault::unless_equal("length of the segment header", &HEADER_LEN_U16, &f.u16()?)?;
        let required_flags = f.u32()?;
        if required_flags & !required::KNOWN != 0 {
            return Err(Fault::Flags { what: "the segment", flags: required_flags & !required::KNOWN });
        }
        let optional_flags = f.u32()?;
        let timeline = TimelineId::new(f.u32()?);
        let ordinal = Ordinal::new(f.u64()?);
        let epoch = Epoch::new(f.u64()?);
        let archive = ArchiveId(f.array()?);
        let nonce = Nonce(f.array()?);
        let salt = f.array()?;
        let first = Boundary::new(f.u64()?);
        let hash_before = RunningHash(f.array()?);
        let last = Ordinal::new(f.u64()?);
        f.slice(OPENING_LEN - 152)?;
        let merged = required_flags & required::MERGED != 0;
        let ordinals = match (merged, Ordinals::new(ordinal, last)) {
            (false, _) => Ordinals::from(ordinal),
            (true, Some(ordinals)) if ordinals.is_merged() => ordinals,
            (true, _) => {
                return Err(Fault::Mismatch {
                    what: "the last ordinal of a merged segment",
                    expected: format!("one above {ordinal}"),
                    found: last.to_string(),
                });
            }
        };
        let header = Self {
            required_flags,
            optional_flags,
            timeline,
            ordinals,
            epoch,
            archive,
            nonce,
            salt,
            first,
            hash_before,
            end: Boundary::new(f.u64()?),
            hash_after: RunningHash(f.array()?),
            created: Micros(f.i64()?),
            entries: f.u64()?,
            plain_bytes: f.u64()?,
            footer_offset: f.u64()?,
            footer_len: f.u32()?,
            frames: f.u32()?,
        };
        let records = header.end.get().checked_sub(header.first.get());
        let consistent = header.footer_offset >= HEADER_LEN as u64
            && header.object_len().is_some()
            && records.is_some_and(|records| records <= header.entries)
            && (header.frames == 0) == (header.entries == 0)
            && u64::from(header.frames) <= header.entries
            && (header.entries > 0 || header.hash_after == header.hash_before);
        if consistent {
            Ok(header)
        } else {
            Err(Fault::Mismatch {
                what: "the numbers in the segment header",
                expected: "numbers that agree with each other".to_owned(),
                found: format!("{header:?}"),
            })
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "256 fits")]
const HEADER_LEN_U16: u16 = HEADER_LEN as u16;

/// Writes fields one after the other; what does not fit is a programming error that the golden test shows.
pub(crate) struct Fill<'a>(pub(crate) &'a mut [u8]);

impl Fill<'_> {
    pub(crate) fn put(&mut self, field: &[u8]) {
        let rest = std::mem::take(&mut self.0);
        let (here, after) = rest.split_at_mut(field.len().min(rest.len()));
        here.copy_from_slice(field.get(..here.len()).unwrap_or_default());
        self.0 = after;
    }
}

/// A segment's last bytes: where the footer is, for whoever reads from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Offset of the footer.
    pub footer_offset: u64,
    /// Stored bytes of the footer.
    pub footer_len: u32,
    /// crc32c of the footer's stored bytes.
    pub footer_crc: u32,
    /// The header's own crc32c: header and trailer belong together.
    pub header_crc: u32,
}

impl Trailer {
    /// The bytes.
    pub fn encode(&self) -> [u8; TRAILER_LEN] {
        let mut out = [0; TRAILER_LEN];
        let mut fill = Fill(&mut out);
        fill.put(&self.footer_offset.to_le_bytes());
        fill.put(&self.footer_len.to_le_bytes());
        fill.put(&self.footer_crc.to_le_bytes());
        fill.put(&self.header_crc.to_le_bytes());
        let crc = crc32c::crc32c(out.get(..20).unwrap_or_default());
        let mut fill = Fill(out.get_mut(20..).unwrap_or_default());
        fill.put(&crc.to_le_bytes());
        fill.put(&END_MAGIC);
        out
    }

    /// Reads exactly the trailer's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        const WHAT: &str = "the segment trailer";
        let mut f = Fields::new(WHAT, 0, bytes);
        let checked = Fields::new(WHAT, 0, bytes).slice(20)?;
        let trailer =
            Self { footer_offset: f.u64()?, footer_len: f.u32()?, footer_crc: f.u32()?, header_crc: f.u32()? };
        let crc = f.u32()?;
        if f.array::<8>()? != END_MAGIC {
            return Err(Fault::Magic { what: WHAT });
        }
        f.end()?;
        check_crc(WHAT, checked, crc)?;
        Ok(trailer)
    }
}
