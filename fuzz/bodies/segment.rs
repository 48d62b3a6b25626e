//! Segments: header, frames, footer, trailer, and the entries in them.
//!
//! Asserts: what is built is read, clear and sealed; an object that was changed anywhere below its checksums (in a
//! frame's plain bytes, the footer's JSON, the header's fields) and has them all right again is refused or has the same
//! entries; whatever is accepted joins by the running hash, frame by frame too; an entry has one encoding.

use bytes::Bytes;
use pitr_archive::{
    catalog::schema::SegmentFooter,
    cipher::{Purpose, associated},
    clock::Micros,
    code::Code,
    ids::{Boundary, FileNumber, Ordinal, Ordinals, RunningHash, SequenceNumber, TimelineId},
    keyring::Keyring,
    random::SeededRandom,
    segment::{
        chain::{Chain, Leaf},
        entry::{Entry, Event, Record},
        envelope::{self, Level, Place},
        frame::{FRAME_HEADER_LEN, FrameHeader},
        header::{HEADER_LEN, MAGIC, OPENING_LEN, SegmentHeader, TRAILER_LEN, Trailer},
        reader::{SegmentIndex, SegmentReader, Wanted, tail_range},
        writer::{FinishedSegment, RecordSequences, SegmentBuilder, SegmentStart},
    },
};

use super::{
    identity::{ARCHIVE, EPOCH, keyring},
    input::{Input, damage, refused},
};

/// The input is a stored object, whose checksums are mended.
pub const STORED: u8 = 0;
/// The input is entries, from which a segment is built, and changes to it.
pub const CLEAR: u8 = 1;
/// The same, sealed.
pub const SEALED: u8 = 2;
/// The input is a frame's plain bytes.
pub const PLAIN: u8 = 3;

const CODES: &[Code] = &[
    Code::SegmentDamaged,
    Code::SegmentUnsupported,
    Code::ChainBroken,
    Code::WrongArchive,
    Code::KeyRequired,
    Code::ObjectMissing,
];

const WANTED: Wanted =
    Wanted { archive: ARCHIVE, timeline: TimelineId::FIRST, ordinals: Ordinals::one(Ordinal::new(7)) };

pub fn body(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 4 {
        STORED => stored(input.rest().to_vec()),
        CLEAR => built(input, false),
        SEALED => built(input, true),
        _ => plain(input.rest()),
    }
}

fn plain(bytes: &[u8]) {
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut again = Vec::new();
    while !rest.is_empty() {
        let len = Entry::encoded_len(&rest);
        let before = rest.len();
        match Entry::decode(&mut rest) {
            Ok(entry) => {
                assert_eq!(len.expect("it was decoded"), before - rest.len());
                entry.encode_into(&mut again).expect("it was decoded");
                assert_eq!(again, bytes[..again.len()], "an entry has one encoding");
            }
            Err(e) => {
                assert!(!e.to_string().is_empty());
                break;
            }
        }
    }
}

fn stored(mut object: Vec<u8>) {
    mend(&mut object);
    let body = Bytes::from(object);
    let Ok(header) = SegmentHeader::decode(&body) else { return };
    let wanted = Wanted { archive: header.archive, timeline: header.timeline, ordinals: header.ordinals };
    for sealed in [false, true] {
        if let Some(entries) = read(&wanted, &body, &keyring(sealed)) {
            assert!(!sealed, "no seal can be made without the key: {entries:?}");
        }
    }
}

/// All entries, if all of the object is accepted; its parts are read one by one, too.
fn read(wanted: &Wanted, body: &Bytes, keyring: &Keyring) -> Option<Vec<Entry>> {
    let reader = match SegmentReader::open(wanted, body.clone(), keyring) {
        Ok(reader) => reader,
        Err(e) => {
            refused(&e, CODES);
            return None;
        }
    };
    let header = reader.header().clone();
    let all: Result<Vec<_>, _> = reader.entries().collect();
    let placed = match all {
        Ok(placed) => placed,
        Err(e) => {
            refused(&e, CODES);
            return None;
        }
    };
    assert_eq!(placed.len() as u64, header.entries);
    let (mut chain, mut at) = (Chain::at(header.hash_before), header.first);
    for placed in &placed {
        let mut encoded = Vec::new();
        placed.entry.encode_into(&mut encoded).unwrap();
        assert_eq!(placed.at, at);
        assert_eq!(chain.push(Leaf::of(keyring.hash_key(), &[&encoded])), placed.hash_after);
        if matches!(placed.entry, Entry::Record(_)) {
            at = at.next().unwrap();
        }
    }
    assert_eq!((at, chain.value()), (header.end, header.hash_after));
    for boundary in [header.first, header.end] {
        let hashes = reader.hashes_at(boundary).unwrap();
        let named = if boundary == header.end { header.hash_after } else { header.hash_before };
        assert!(hashes.contains(&named), "{hashes:?} at {boundary}");
    }

    let tail = tail_range(&header);
    let tail = body.slice(tail.start as usize..tail.end as usize);
    let index = SegmentIndex::open(wanted, &body[..HEADER_LEN], &tail, keyring).unwrap();
    let mut by_frame = Vec::new();
    for frame in index.frames_covering(header.first..header.end.next().unwrap_or(header.end)) {
        let range = index.frame_range(frame).unwrap();
        let proven = index.frame(frame, &body.slice(range.start as usize..range.end as usize)).unwrap();
        by_frame.extend(proven.entries().map(Result::unwrap));
    }
    assert_eq!(by_frame, placed);
    Some(placed.into_iter().map(|placed| placed.entry).collect())
}

/// A change below the checksums: where, at which offset, and by what.
type Change = (u8, u16, u8);

fn built(mut input: Input<'_>, sealed: bool) {
    let keyring = keyring(sealed);
    let changes: Vec<Change> = (0..input.u8() % 4).map(|_| (input.u8(), input.u16(), input.u8())).collect();
    let first = Boundary::new(u64::from(input.u16()));
    let entries = entries(&mut input);
    let Some(finished) = build(first, &entries, &keyring) else { return };
    let expected = read(&WANTED, &finished.body, &keyring).expect("it was built");
    assert_eq!(expected, entries);

    let reader = SegmentReader::open(&WANTED, finished.body.clone(), &keyring).unwrap();
    if reader.frame_count() > 1 {
        return;
    }
    let mut parts = Parts {
        header: reader.header().clone(),
        header_changes: Vec::new(),
        footer: serde_json::to_vec(reader.footer()).unwrap(),
        plain: Vec::new(),
        entries: entries.len() as u32,
    };
    entries.iter().for_each(|entry| entry.encode_into(&mut parts.plain).unwrap());
    let unchanged = parts.assemble(&keyring);
    assert_eq!(read(&WANTED, &unchanged, &keyring).as_ref(), Some(&entries), "assembled as it was");
    for (place, at, xor) in changes {
        match place % 4 {
            0 if !parts.plain.is_empty() => damage(&mut parts.plain, usize::from(at), xor),
            1 => damage(&mut parts.footer, usize::from(at), xor),
            2 => parts.header_changes.push((usize::from(at), xor)),
            _ => parts.entries = parts.entries.wrapping_add(u32::from(xor)),
        }
    }
    if let Some(found) = read(&WANTED, &parts.assemble(&keyring), &keyring) {
        assert_eq!(found, entries, "other entries under the same running hash");
    }
}

/// Pieces of the input as entries: a JSON event, or a gap (one byte) and a record's payload.
fn entries(input: &mut Input<'_>) -> Vec<Entry> {
    let (mut entries, mut wal, mut at) = (Vec::new(), None, 0u64);
    while !input.is_empty() && entries.len() < 64 {
        let piece = input.piece();
        if let Ok(event) = serde_json::from_slice::<Event>(piece) {
            match &event {
                Event::WalStarted { wal: started } => (wal, at) = (Some(*started), 0),
                Event::RunStarted { .. } => wal = None,
                _ => {}
            }
            entries.push(Entry::Event(event));
            continue;
        }
        let (gap, payload) = piece.split_first().map_or((0, piece), |(gap, payload)| (*gap, payload));
        let number = wal.unwrap_or_else(|| {
            let first = FileNumber::new(4);
            entries.push(Entry::Event(Event::WalStarted { wal: first }));
            (wal, at) = (Some(first), 0);
            first
        });
        let start = at + u64::from(gap);
        at = start + 7 + payload.len() as u64;
        entries.push(Entry::Record(Record { wal: number, start, end: at, payload: Bytes::copy_from_slice(payload) }));
    }
    entries
}

fn build(first: Boundary, entries: &[Entry], keyring: &Keyring) -> Option<FinishedSegment> {
    let start = SegmentStart {
        archive: WANTED.archive,
        timeline: WANTED.timeline,
        ordinal: WANTED.ordinals.first(),
        epoch: EPOCH,
        first,
        hash_before: RunningHash([9; 32]),
        last_sequence: SequenceNumber::new(0),
        wal: None,
    };
    let mut builder = SegmentBuilder::new(start, keyring, &SeededRandom::new(2), Level::default()).unwrap();
    let sequences = RecordSequences { first: SequenceNumber::new(1), last: SequenceNumber::new(1) };
    for entry in entries {
        match entry {
            Entry::Record(record) => builder.push_record(record, sequences).unwrap(),
            Entry::Event(event) => builder.push_event(event).unwrap(),
        };
    }
    builder.finish(Micros(0)).ok()
}

/// A segment of at most one frame, before compression, seals and checksums.
struct Parts {
    header: SegmentHeader,
    /// Offsets in the encoded header, and by what its bytes differ.
    header_changes: Vec<(usize, u8)>,
    footer: Vec<u8>,
    plain: Vec<u8>,
    entries: u32,
}

impl Parts {
    /// The object, with right lengths and checksums and the running hashes as they were.
    fn assemble(&self, keyring: &Keyring) -> Bytes {
        let key = WANTED.key();
        let mut header = self.header.clone();
        let mut opening = header.encode();
        self.change(&mut opening);
        let opening: &[u8; OPENING_LEN] = opening.first_chunk().unwrap();
        let cipher = keyring.cipher(EPOCH, &key, &header.salt).unwrap();
        let mut object = vec![0; HEADER_LEN];
        if !self.plain.is_empty() {
            let (plain_len, entries) = (self.plain.len() as u32, self.entries);
            let aad = associated(&key, &[opening, &[0; 4], &plain_len.to_le_bytes(), &entries.to_le_bytes()]);
            let place = Place { what: "a frame", purpose: Purpose::Frame, counter: 0, aad: &aad };
            object.resize(HEADER_LEN + FRAME_HEADER_LEN, 0);
            envelope::wrap(cipher.as_ref(), place, crc32c::crc32c(&self.plain), &mut object, |out| {
                out.extend(zstd::bulk::compress(&self.plain, 3)?);
                Ok(())
            })
            .unwrap();
            let stored = &object[HEADER_LEN + FRAME_HEADER_LEN..];
            let (body_len, body_crc) = (stored.len() as u32, crc32c::crc32c(stored));
            let frame = FrameHeader { index: 0, body_len, plain_len, entries, body_crc }.encode();
            object[HEADER_LEN..HEADER_LEN + FRAME_HEADER_LEN].copy_from_slice(&frame);
        }
        // The frame's stored length is the one thing in the footer that compression decides.
        let json = match serde_json::from_slice::<SegmentFooter>(&self.footer) {
            Ok(mut footer) => {
                let stored = (object.len() - HEADER_LEN) as u32;
                footer.frames.iter_mut().for_each(|frame| frame.stored = stored);
                serde_json::to_vec(&footer).unwrap()
            }
            Err(_) => self.footer.clone(),
        };
        let packed = zstd::bulk::compress(&json, 3).unwrap();
        let plain_len = (json.len() as u32).to_le_bytes();
        header.footer_offset = object.len() as u64;
        header.footer_len = (4 + envelope::overhead(cipher.is_some()) + packed.len()) as u32;
        let mut head = header.encode();
        self.change(&mut head);
        object[..HEADER_LEN].copy_from_slice(&head);
        object.extend_from_slice(&plain_len);
        let aad = associated(&key, &[&head, &plain_len]);
        let place = Place { what: "the segment footer", purpose: Purpose::Footer, counter: 0, aad: &aad };
        envelope::wrap(cipher.as_ref(), place, crc32c::crc32c(&json), &mut object, |out| {
            out.extend_from_slice(&packed);
            Ok(())
        })
        .unwrap();
        let trailer = Trailer {
            footer_offset: header.footer_offset,
            footer_len: header.footer_len,
            footer_crc: crc32c::crc32c(&object[header.footer_offset as usize..]),
            header_crc: u32::from_le_bytes(head[HEADER_LEN - 4..].try_into().unwrap()),
        };
        object.extend_from_slice(&trailer.encode());
        object.into()
    }

    fn change(&self, head: &mut [u8; HEADER_LEN]) {
        for (at, xor) in &self.header_changes {
            damage(&mut head[..HEADER_LEN - 4], *at, *xor);
        }
        mend_header(head);
    }
}

fn mend_header(head: &mut [u8; HEADER_LEN]) {
    let crc = crc32c::crc32c(&head[..HEADER_LEN - 4]);
    head[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
}

/// Makes lengths and checksums of a stored object right, as far as its frames can be found.
fn mend(object: &mut [u8]) {
    let len = object.len();
    let Some(most) = len.checked_sub(HEADER_LEN + TRAILER_LEN) else { return };
    let number = |object: &[u8], at: usize| u32::from_le_bytes(object[at..at + 4].try_into().unwrap()) as usize;
    object[..8].copy_from_slice(&MAGIC);
    let footer_len = number(object, 232).min(most);
    let footer_offset = len - TRAILER_LEN - footer_len;
    object[224..232].copy_from_slice(&(footer_offset as u64).to_le_bytes());
    object[232..236].copy_from_slice(&(footer_len as u32).to_le_bytes());
    let head: &mut [u8; HEADER_LEN] = object.first_chunk_mut().unwrap();
    mend_header(head);
    let header_crc = u32::from_le_bytes(head[HEADER_LEN - 4..].try_into().unwrap());
    let mut at = HEADER_LEN;
    while at + FRAME_HEADER_LEN <= footer_offset {
        let body_len = number(object, at + 4).min(footer_offset - at - FRAME_HEADER_LEN);
        let (head, body) = object[at..at + FRAME_HEADER_LEN + body_len].split_at_mut(FRAME_HEADER_LEN);
        mend_plain(body);
        let header = FrameHeader {
            index: number(head, 0) as u32,
            body_len: body_len as u32,
            plain_len: number(head, 8) as u32,
            entries: number(head, 12) as u32,
            body_crc: crc32c::crc32c(body),
        };
        head.copy_from_slice(&header.encode());
        at += FRAME_HEADER_LEN + body_len;
    }
    let footer = &mut object[footer_offset..footer_offset + footer_len];
    if let Some(body) = footer.get_mut(4..) {
        mend_plain(body);
    }
    let trailer = Trailer {
        footer_offset: footer_offset as u64,
        footer_len: footer_len as u32,
        footer_crc: crc32c::crc32c(footer),
        header_crc,
    };
    object[len - TRAILER_LEN..].copy_from_slice(&trailer.encode());
}

/// The checksum of what a clear body expands to.
fn mend_plain(body: &mut [u8]) {
    if let Some((crc, compressed)) = body.split_first_chunk_mut::<4>()
        && let Ok(plain) = zstd::bulk::decompress(compressed, 1 << 20)
    {
        *crc = crc32c::crc32c(&plain).to_le_bytes();
    }
}
