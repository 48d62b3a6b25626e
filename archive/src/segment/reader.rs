//! Takes a segment apart and believes nothing.
//!
//! Owns: [`SegmentIndex`] (header and footer, two ranged reads) and [`SegmentReader`] (the whole object). Both compare
//! what is said twice; the checksum of a frame's plain bytes, which its running hash outdoes, only [`SegmentReader::verify`].
//! A frame's entries are proven by the running hash: it is recorded before every frame, so that frames can be read alone, out
//! of order and in parallel ([`SegmentReader::entries_from`]).
//! Refuses: an object that is not the one its name and place demand; I/O.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use crate::{
    catalog::schema::{FrameIndex, SegmentFooter},
    cipher::ObjectCipher,
    error::Result,
    ids::{ArchiveId, Boundary, Ordinals, RunningHash, TimelineId},
    keyring::Keyring,
    layout::{Family, Fault},
    object_key::ObjectKey,
    segment::{
        chain::{Chain, HashKey},
        entry::Entry,
        envelope::Unpacker,
        footer,
        frame::{FRAME_HEADER_LEN, Frame, FrameEntries},
        header::{HEADER_LEN, OPENING_LEN, SegmentHeader, TRAILER_LEN, Trailer},
    },
};

mod whole;

pub use whole::{Entries, SegmentReader};

const DOING: &str = "reading the segment";

/// Which segment is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The archive.
    pub archive: ArchiveId,
    /// The timeline.
    pub timeline: TimelineId,
    /// The ordinals that it stands for.
    pub ordinals: Ordinals,
}

impl Wanted {
    /// Its name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::segment(self.timeline, self.ordinals)
    }

    /// Reads the header (from the object's first [`HEADER_LEN`] bytes or more) and checks that it is the wanted one.
    /// The header is clear: no key is needed, and in an encrypted archive the footer vouches for it.
    pub fn header(&self, bytes: &[u8]) -> Result<SegmentHeader> {
        let check = || {
            let header = SegmentHeader::decode(bytes)?;
            if header.archive != self.archive {
                return Err(Fault::Foreign { expected: self.archive.to_string(), found: header.archive.to_string() });
            }
            Fault::unless_equal("timeline of the segment", &self.timeline, &header.timeline)?;
            Fault::unless_equal("ordinal of the segment", &self.ordinals, &header.ordinals)?;
            Ok(header)
        };
        check().map_err(|e: Fault| e.on(Family::Segment, DOING, &self.key()))
    }
}

/// The range that holds footer and trailer: the second and last ranged read.
pub fn tail_range(header: &SegmentHeader) -> Range<u64> {
    header.footer_offset..header.object_len().unwrap_or(header.footer_offset)
}

/// Header and footer of a segment, verified against each other.
#[derive(Debug)]
pub struct SegmentIndex {
    key: ObjectKey,
    header: SegmentHeader,
    opening: [u8; OPENING_LEN],
    footer: SegmentFooter,
    cipher: Option<ObjectCipher>,
    hash_key: HashKey,
    /// Those that nobody uses: frames are opened beside one another.
    unpackers: Mutex<Vec<Unpacker>>,
}

impl SegmentIndex {
    /// From the header's bytes and those of [`tail_range`]. The keyring must know the header's epoch.
    pub fn open(wanted: &Wanted, head: &[u8], tail: &Bytes, keyring: &Keyring) -> Result<Self> {
        let header = wanted.header(head)?;
        let key = wanted.key();
        let cipher = keyring.cipher_to_read(Family::Segment, header.is_sealed(), header.epoch, &key, &header.salt)?;
        let fault = |e: Fault| e.on(Family::Segment, DOING, &key);
        let head = head.get(..HEADER_LEN).unwrap_or_default();
        let footer = read_tail(&key, &header, head, tail, cipher.as_ref()).map_err(fault)?;
        agree(&header, &footer).map_err(fault)?;
        let opening = header.opening();
        Ok(Self {
            key,
            header,
            opening,
            footer,
            cipher,
            hash_key: keyring.hash_key().clone(),
            unpackers: Mutex::default(),
        })
    }

    /// The segment's name.
    pub const fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// The header.
    pub const fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The footer.
    pub const fn footer(&self) -> &SegmentFooter {
        &self.footer
    }

    /// The footer, taken out; its summary's `object_bytes` is set.
    pub fn into_footer(self) -> SegmentFooter {
        let mut footer = self.footer;
        footer.summary.object_bytes = self.header.object_len().unwrap_or(0);
        footer
    }

    /// The frames that hold the records from `range.start` to before `range.end`, and the events between them.
    pub fn frames_covering(&self, range: Range<Boundary>) -> Range<usize> {
        let frames = &self.footer.frames;
        // The last frame that begins at or before the range; one before it, too, when events of that boundary end it.
        let start = frames.partition_point(|f| f.first < range.start).saturating_sub(1);
        let end = frames.partition_point(|f| f.first < range.end);
        start.min(end)..end
    }

    /// The bytes of a frame in the object.
    pub fn frame_range(&self, frame: usize) -> Option<Range<u64>> {
        let index = self.footer.frames.get(frame)?;
        Some(index.offset..index.offset + u64::from(index.stored))
    }

    /// Opens one frame from its stored bytes and proves it by the running hashes around it.
    pub fn frame(&self, frame: usize, stored: &Bytes) -> Result<ProvenFrame> {
        self.frame_inner(frame, stored).map_err(|e| {
            let at = self.footer.frames.get(frame).map_or(0, |f| f.offset);
            e.on(Family::Segment, DOING, &self.key).with("frame", frame).with("offset", at)
        })
    }

    fn frame_inner(&self, frame: usize, stored: &Bytes) -> Result<ProvenFrame, Fault> {
        let absent = || Fault::Mismatch {
            what: "frame number",
            expected: format!("below {}", self.footer.frames.len()),
            found: frame.to_string(),
        };
        let index = self.footer.frames.get(frame).ok_or_else(absent)?;
        let number = u32::try_from(frame).map_err(|_| absent())?;
        Fault::unless_equal("stored length of the frame", &u64::from(index.stored), &(stored.len() as u64))?;
        let cipher = self.cipher.as_ref();
        let opened = self.unpacking(|unpacker| {
            Frame::decode(&self.key, &self.opening, cipher, unpacker, number, stored, index.offset)
        })?;
        Fault::unless_equal("plain length of the frame", &index.plain, &opened.header.plain_len)?;
        let mut chain = Chain::at(index.hash_before);
        let hashes: Vec<_> = opened.leaves(&self.hash_key)?.into_iter().map(|leaf| chain.push(leaf)).collect();
        let (end, hash_after) = match self.footer.frames.get(frame + 1) {
            Some(next) => (next.first, next.hash_before),
            None => (self.header.end, self.header.hash_after),
        };
        if chain.value() != hash_after {
            return Err(Fault::Chain {
                what: format!("frame {frame}"),
                computed: chain.value().to_string(),
                recorded: hash_after.to_string(),
            });
        }
        Ok(ProvenFrame { index: index.clone(), end, frame: opened, hashes })
    }

    /// With an unpacker that nobody else uses meanwhile.
    fn unpacking<T>(&self, work: impl FnOnce(&mut Unpacker) -> T) -> T {
        let spare = || self.unpackers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unpacker = spare().pop().unwrap_or_default();
        let done = work(&mut unpacker);
        spare().push(unpacker);
        done
    }
}

fn read_tail(
    key: &ObjectKey,
    header: &SegmentHeader,
    head: &[u8],
    tail: &Bytes,
    cipher: Option<&ObjectCipher>,
) -> Result<SegmentFooter, Fault> {
    if u64::from(header.footer_len) > footer::MAX_FOOTER_STORED {
        return Err(Fault::Limit {
            what: "the segment footer",
            declared: u64::from(header.footer_len),
            limit: footer::MAX_FOOTER_STORED,
        });
    }
    let expected = u64::from(header.footer_len) + TRAILER_LEN as u64;
    if tail.len() as u64 != expected {
        let (what, have) = ("the segment's footer and trailer", tail.len() as u64);
        return Err(match have.checked_sub(expected) {
            Some(count) => Fault::Excess { what, count },
            None => Fault::Short { what, offset: header.footer_offset, needed: expected, have },
        });
    }
    let cut = tail.len() - TRAILER_LEN;
    let stored = tail.slice(..cut);
    let trailer = Trailer::decode(&tail.slice(cut..))?;
    Fault::unless_equal("footer offset in the trailer", &header.footer_offset, &trailer.footer_offset)?;
    Fault::unless_equal("footer length in the trailer", &header.footer_len, &trailer.footer_len)?;
    let header_crc =
        crate::layout::Fields::new("the segment header", 0, head.get(HEADER_LEN - 4..).unwrap_or_default());
    Fault::unless_equal("header checksum in the trailer", &{ header_crc }.u32()?, &trailer.header_crc)?;
    crate::layout::check_crc("the segment footer", &stored, trailer.footer_crc)?;
    footer::decode(key, head, cipher, &stored)
}

/// What header and footer both say must be the same, and the frames must fill the space between them.
fn agree(header: &SegmentHeader, footer: &SegmentFooter) -> Result<(), Fault> {
    let summary = &footer.summary;
    Fault::unless_equal("ordinal in the footer", &header.ordinals, &summary.ordinals())?;
    Fault::unless_equal("epoch in the footer", &header.epoch, &summary.epoch)?;
    Fault::unless_equal("first boundary in the footer", &header.first, &summary.first)?;
    Fault::unless_equal("end boundary in the footer", &header.end, &summary.end)?;
    Fault::unless_equal("running hash before, in the footer", &header.hash_before, &summary.hash_before)?;
    Fault::unless_equal("running hash after, in the footer", &header.hash_after, &summary.hash_after)?;
    Fault::unless_equal("plain bytes in the footer", &header.plain_bytes, &summary.plain_bytes)?;
    Fault::unless_equal("number of frames in the footer", &u64::from(header.frames), &(footer.frames.len() as u64))?;
    let records = header.end.get().saturating_sub(header.first.get());
    let events = summary.events.len() as u64;
    Fault::unless_equal("number of entries", &header.entries, &records.saturating_add(events))?;
    let (mut offset, mut plain, mut at) = (HEADER_LEN as u64, 0u64, header.first);
    for frame in &footer.frames {
        Fault::unless_equal("offset of a frame", &offset, &frame.offset)?;
        if frame.first < at || frame.first > header.end || (frame.stored as usize) < FRAME_HEADER_LEN {
            return Err(Fault::Mismatch {
                what: "a frame in the index",
                expected: format!("a frame between boundaries {at} and {}", header.end),
                found: format!("{frame:?}"),
            });
        }
        at = frame.first;
        offset = offset.saturating_add(u64::from(frame.stored));
        plain = plain.saturating_add(u64::from(frame.plain));
    }
    Fault::unless_equal("end of the last frame", &header.footer_offset, &offset)?;
    Fault::unless_equal("plain bytes of all frames", &header.plain_bytes, &plain)?;
    if let Some(frame) = footer.frames.first() {
        Fault::unless_equal("first boundary of the first frame", &header.first, &frame.first)?;
        Fault::unless_equal("running hash before the first frame", &header.hash_before, &frame.hash_before)?;
    }
    Ok(())
}

/// A frame whose entries are proven by the running hash.
#[derive(Clone, Debug)]
pub struct ProvenFrame {
    index: FrameIndex,
    end: Boundary,
    frame: Frame,
    /// The running hash after each entry.
    hashes: Vec<RunningHash>,
}

impl ProvenFrame {
    /// Boundary before the first record.
    pub const fn first(&self) -> Boundary {
        self.index.first
    }

    /// Boundary after the last record.
    pub const fn end(&self) -> Boundary {
        self.end
    }

    /// The running hash before the first entry.
    pub const fn hash_before(&self) -> RunningHash {
        self.index.hash_before
    }

    /// Compares the checksum of its plain bytes, too.
    pub fn check(&self) -> Result<(), Fault> {
        self.frame.check()
    }

    /// Plain bytes.
    pub const fn plain_bytes(&self) -> u32 {
        self.index.plain
    }

    /// The entries, each with the boundary before it. Ends with an error if the number of records is not as recorded.
    pub fn entries(&self) -> ProvenEntries {
        self.clone().into_entries()
    }

    /// [`ProvenFrame::entries`] of a frame that nobody else needs.
    pub fn into_entries(self) -> ProvenEntries {
        ProvenEntries {
            entries: self.frame.entries(),
            at: self.index.first,
            end: Some(self.end),
            hashes: self.hashes.into_iter(),
        }
    }
}

/// An entry and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The boundary before the entry: a record's own number, an event's place.
    pub at: Boundary,
    /// The entry.
    pub entry: Entry,
    /// The running hash after it.
    pub hash_after: RunningHash,
}

/// Iterator over the entries of a proven frame.
#[derive(Debug)]
pub struct ProvenEntries {
    entries: FrameEntries,
    at: Boundary,
    /// `None` once the end was compared.
    end: Option<Boundary>,
    hashes: std::vec::IntoIter<RunningHash>,
}

impl Iterator for ProvenEntries {
    type Item = Result<Placed, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(entry) = self.entries.next() else {
            let end = self.end.take()?;
            return Fault::unless_equal("boundary after the frame", &end, &self.at).err().map(Err);
        };
        Some(entry.and_then(|entry| self.place(entry)))
    }
}

impl ProvenEntries {
    fn place(&mut self, entry: Entry) -> Result<Placed, Fault> {
        // One hash an entry: `Frame::leaves` walked the same bytes.
        let hash_after = self.hashes.next().ok_or(Fault::Excess { what: "the frame's last entry", count: 1 })?;
        let at = self.at;
        if matches!(entry, Entry::Record(_)) {
            self.at = at.next().ok_or(Fault::Mismatch {
                what: "boundary",
                expected: "a number that can grow".to_owned(),
                found: at.to_string(),
            })?;
        }
        Ok(Placed { at, entry, hash_after })
    }
}
