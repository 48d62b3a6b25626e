//! What a segment promises: it comes back as it was written, or not at all.

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    chain::{Chain, HashKey, Leaf},
    entry::{BarrierReason, ColumnFamilyChange, Entry, Event, Interval, ManifestPoint, Record},
    envelope::Level,
    frame::FRAME_PLAIN,
    header::{HEADER_LEN, SegmentHeader, TRAILER_LEN},
    reader::{Placed, SegmentIndex, SegmentReader, Wanted, tail_range},
    writer::{FinishedSegment, RecordSequences, SegmentBuilder, SegmentStart},
};
use crate::{
    catalog::schema::{EpochDocument, Extra, TimeSample},
    clock::Micros,
    code::Code,
    error::Result,
    ids::{
        ArchiveId, Boundary, ColumnFamilyId, Epoch, FileNumber, Nonce, Ordinal, Ordinals, RunningHash, SequenceNumber,
        TimelineId,
    },
    keyring::{Keyring, MasterKey},
    random::SeededRandom,
};

mod merge;

const ARCHIVE: ArchiveId = ArchiveId([0xA5; 16]);
const WANTED: Wanted =
    Wanted { archive: ARCHIVE, timeline: TimelineId::FIRST, ordinals: Ordinals::one(Ordinal::new(7)) };

/// An encrypted archive's keys, knowing epochs 1 to 3.
fn sealed() -> Keyring {
    sealed_with([9; 32])
}

fn sealed_with(master: [u8; 32]) -> Keyring {
    let random = SeededRandom::new(u64::from(master[0]));
    let (keyring, _) = Keyring::create(Some(&MasterKey::new(master)), ARCHIVE, &random).unwrap();
    for epoch in (1..=3).map(Epoch::new) {
        keyring
            .admit(&EpochDocument {
                version: 1,
                archive: ARCHIVE,
                epoch,
                created: Micros(0),
                writer: String::new(),
                data_key: keyring.new_data_key(epoch, &random).unwrap(),
                nonce: Nonce([0; 16]),
                extra: Extra::new(),
            })
            .unwrap();
    }
    keyring
}

fn start(ordinal: u64) -> SegmentStart {
    SegmentStart {
        archive: ARCHIVE,
        timeline: TimelineId::FIRST,
        ordinal: Ordinal::new(ordinal),
        epoch: Epoch::new(3),
        first: Boundary::new(100),
        hash_before: RunningHash([0x11; 32]),
        last_sequence: SequenceNumber::new(40),
        wal: None,
    }
}

fn push(builder: &mut SegmentBuilder, entry: &Entry) -> RunningHash {
    match entry {
        Entry::Record(record) => {
            let sequence = SequenceNumber::new(record.start);
            builder.push_record(record, RecordSequences { first: sequence, last: sequence }).unwrap()
        }
        Entry::Event(event) => builder.push_event(event).unwrap(),
    }
}

fn build(start: SegmentStart, entries: &[Entry], keyring: &Keyring, seed: u64) -> FinishedSegment {
    let mut builder = SegmentBuilder::new(start, keyring, &SeededRandom::new(seed), Level::default()).unwrap();
    for entry in entries {
        push(&mut builder, entry);
    }
    builder.finish(Micros(1_700_000_000_000_000)).unwrap()
}

fn record(wal: u64, start: u64, payload: impl Into<Bytes>) -> Entry {
    let payload = payload.into();
    let end = start + payload.len() as u64 + 7;
    Entry::Record(Record { wal: FileNumber::new(wal), start, end, payload })
}

fn wal(number: u64) -> Entry {
    Entry::Event(Event::WalStarted { wal: FileNumber::new(number) })
}

/// A little of everything.
fn sample() -> Vec<Entry> {
    let point = ManifestPoint { file: FileNumber::new(5), offset: 77 };
    let interval = Interval { lo: Boundary::new(101), hi: None };
    vec![
        Entry::Event(Event::RunStarted { run: 0, first_wal: FileNumber::new(4), db_id: "db".to_owned() }),
        wal(4),
        record(4, 0, "first"),
        record(4, 12, "second second second second"),
        Entry::Event(Event::ColumnFamily {
            change: ColumnFamilyChange::Added,
            id: ColumnFamilyId::new(2),
            name: "names".to_owned(),
            interval,
            manifest: point,
            edit: "AAAA".to_owned(),
        }),
        Entry::Event(Event::WalEnded { wal: FileNumber::new(4), end: 46, void_bytes: 3 }),
        wal(9),
        record(9, 0, ""),
        Entry::Event(Event::IntervalClosed { manifest: point, hi: Boundary::new(103) }),
        Entry::Event(Event::Barrier {
            unexplained: None,
            reason: BarrierReason::Reuse,
            interval: Interval { lo: Boundary::new(103), hi: Some(Boundary::new(103)) },
            manifest: None,
            detail: "seen".to_owned(),
            noticed: Micros(5),
        }),
    ]
}

fn read(body: &Bytes, keyring: &Keyring) -> Result<Vec<Placed>> {
    SegmentReader::open(&WANTED, body.clone(), keyring)?.entries().collect()
}

fn entries(body: &Bytes, keyring: &Keyring) -> Vec<Entry> {
    read(body, keyring).unwrap().into_iter().map(|placed| placed.entry).collect()
}

#[test]
fn golden_bytes_of_the_header() {
    let header = SegmentHeader {
        required_flags: 1,
        optional_flags: 0x0200,
        timeline: TimelineId::new(3),
        ordinals: Ordinals::one(Ordinal::new(4)),
        epoch: Epoch::new(5),
        archive: ArchiveId([0xA0; 16]),
        nonce: Nonce([0xB0; 16]),
        salt: [0xC0; 32],
        first: Boundary::new(6),
        hash_before: RunningHash([0xD0; 32]),
        end: Boundary::new(8),
        hash_after: RunningHash([0xE0; 32]),
        created: Micros(9),
        entries: 2,
        plain_bytes: 10,
        footer_offset: 300,
        footer_len: 11,
        frames: 1,
    };
    let mut expected = Vec::new();
    expected.extend(b"pitr.seg"); // 0 magic
    expected.extend([1, 0]); // 8 version
    expected.extend([0, 1]); // 10 header length: 256
    expected.extend([1, 0, 0, 0]); // 12 required flags: sealed
    expected.extend([0, 2, 0, 0]); // 16 optional flags
    expected.extend([3, 0, 0, 0]); // 20 timeline
    expected.extend([4, 0, 0, 0, 0, 0, 0, 0]); // 24 ordinal
    expected.extend([5, 0, 0, 0, 0, 0, 0, 0]); // 32 epoch
    expected.extend([0xA0; 16]); // 40 archive
    expected.extend([0xB0; 16]); // 56 writer's nonce
    expected.extend([0xC0; 32]); // 72 salt
    expected.extend([6, 0, 0, 0, 0, 0, 0, 0]); // 104 first boundary
    expected.extend([0xD0; 32]); // 112 running hash before
    expected.extend([0; 16]); // 144 reserved
    expected.extend([8, 0, 0, 0, 0, 0, 0, 0]); // 160 end boundary
    expected.extend([0xE0; 32]); // 168 running hash after
    expected.extend([9, 0, 0, 0, 0, 0, 0, 0]); // 200 created
    expected.extend([2, 0, 0, 0, 0, 0, 0, 0]); // 208 entries
    expected.extend([10, 0, 0, 0, 0, 0, 0, 0]); // 216 plain bytes
    expected.extend([0x2C, 1, 0, 0, 0, 0, 0, 0]); // 224 footer offset
    expected.extend([11, 0, 0, 0]); // 232 footer length
    expected.extend([1, 0, 0, 0]); // 236 frames
    expected.extend([0; 12]); // 240 reserved
    let crc = crc32c::crc32c(&expected);
    expected.extend(crc.to_le_bytes()); // 252 crc32c of the bytes before
    assert_eq!(expected.len(), HEADER_LEN);
    assert_eq!(header.encode().as_slice(), expected);
    assert_eq!(SegmentHeader::decode(&expected).unwrap(), header);
}

#[test]
fn golden_bytes_of_frame_header_and_trailer() {
    let frame = super::frame::FrameHeader { index: 1, body_len: 2, plain_len: 3, entries: 4, body_crc: 5 };
    let mut expected = Vec::new();
    expected.extend([1, 0, 0, 0]); // 0 index
    expected.extend([2, 0, 0, 0]); // 4 body length
    expected.extend([3, 0, 0, 0]); // 8 plain length
    expected.extend([4, 0, 0, 0]); // 12 entries
    expected.extend([5, 0, 0, 0]); // 16 body crc32c
    expected.extend(crc32c::crc32c(&expected).to_le_bytes()); // 20 crc32c of the bytes before
    assert_eq!(frame.encode().as_slice(), expected);
    let trailer = super::header::Trailer { footer_offset: 1, footer_len: 2, footer_crc: 3, header_crc: 4 };
    let mut expected = Vec::new();
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0]); // 0 footer offset
    expected.extend([2, 0, 0, 0]); // 8 footer length
    expected.extend([3, 0, 0, 0]); // 12 footer crc32c
    expected.extend([4, 0, 0, 0]); // 16 header crc32c
    expected.extend(crc32c::crc32c(&expected).to_le_bytes()); // 20 crc32c of the bytes before
    expected.extend(b"pitr.end"); // 24 magic
    assert_eq!(trailer.encode().as_slice(), expected);
}

#[test]
fn a_segment_comes_back_with_places_hashes_spans_and_events() {
    for keyring in [Keyring::none(), sealed()] {
        let entries = sample();
        let mut builder = SegmentBuilder::new(start(7), &keyring, &SeededRandom::new(2), Level::default()).unwrap();
        let hashes: Vec<_> = entries.iter().map(|entry| push(&mut builder, entry)).collect();
        let look = TimeSample { from: Micros(1), at: Micros(2), boundary: Boundary::new(103), events: 7 };
        builder.look(Micros(1), Micros(2));
        builder.observed_through(Micros(3));
        let finished = builder.finish(Micros(4)).unwrap();
        let placed = read(&finished.body, &keyring).unwrap();
        assert_eq!(placed.iter().map(|p| p.entry.clone()).collect::<Vec<_>>(), entries);
        assert_eq!(placed.iter().map(|p| p.hash_after).collect::<Vec<_>>(), hashes);
        let at: Vec<_> = placed.iter().map(|p| p.at.get()).collect();
        assert_eq!(at, [100, 100, 100, 101, 102, 102, 102, 102, 103, 103]);

        let reader = SegmentReader::open(&WANTED, finished.body.clone(), &keyring).unwrap();
        let summary = &finished.summary;
        assert_eq!(summary.end, Boundary::new(103));
        assert_eq!(summary.hash_after, *hashes.last().unwrap());
        assert_eq!(summary.object_bytes, finished.body.len() as u64);
        assert_eq!(summary.events.len(), 7);
        let spans: Vec<_> = summary.wals.iter().map(|s| (s.wal.get(), s.first.get(), s.start, s.end)).collect();
        assert_eq!(spans, [(4, 100, 0, 46), (9, 102, 0, 7)]);
        assert_eq!(
            (summary.min_sequence, summary.max_sequence),
            (Some(SequenceNumber::new(0)), Some(SequenceNumber::new(12)))
        );
        assert_eq!((summary.observed, summary.observed_through), (Some((look, look)), Some(Micros(3))));
        assert_eq!(reader.footer().summary.events, summary.events);
        assert_eq!(reader.hashes_at(Boundary::new(101)).unwrap(), [hashes[2]]);
        assert_eq!(reader.hashes_at(Boundary::new(103)).unwrap(), hashes[7..10]);
        assert_eq!(reader.hashes_at(Boundary::new(100)).unwrap(), [RunningHash([0x11; 32]), hashes[0], hashes[1]]);
    }
}

#[test]
fn a_heartbeat_is_a_segment_of_nothing() {
    for keyring in [Keyring::none(), sealed()] {
        let finished = build(start(7), &[], &keyring, 3);
        assert_eq!(finished.summary.first, finished.summary.end);
        assert_eq!(finished.summary.hash_before, finished.summary.hash_after);
        assert!(read(&finished.body, &keyring).unwrap().is_empty());
        assert!(finished.body.len() < 1500, "{}", finished.body.len());
    }
}

#[test]
fn long_records_make_long_frames_and_short_ones_share_them() {
    for keyring in [Keyring::none(), sealed()] {
        let long: Vec<u8> = (0..3 * FRAME_PLAIN).map(|i| (i % 251) as u8).collect();
        let mut all = vec![wal(1), record(1, 0, "a"), record(1, 10, long.clone())];
        let mut at = 10 + long.len() as u64 + 7;
        for i in 0..4000u64 {
            all.push(record(1, at, vec![i as u8; 150]));
            at += 157;
        }
        let finished = build(start(7), &all, &keyring, 4);
        let reader = SegmentReader::open(&WANTED, finished.body.clone(), &keyring).unwrap();
        assert_eq!(reader.frame_count(), 5);
        assert!(reader.entries().map(|p| p.unwrap().entry).eq(all.iter().cloned()));
        // Frames are proven alone, in any order, from two ranged reads and one more each.
        let tail = tail_range(reader.header());
        let index = SegmentIndex::open(
            &WANTED,
            &finished.body[..HEADER_LEN],
            &finished.body.slice(tail.start as usize..tail.end as usize),
            &keyring,
        )
        .unwrap();
        let frames = index.frames_covering(Boundary::new(2000)..Boundary::new(2010));
        assert_eq!(frames.len(), 1);
        let range = index.frame_range(frames.start).unwrap();
        let frame = index.frame(frames.start, &finished.body.slice(range.start as usize..range.end as usize)).unwrap();
        assert!(frame.first() <= Boundary::new(2000) && frame.end() >= Boundary::new(2010));
        assert!(frame.entries().any(|p| p.unwrap().entry == all[2000 - 100 + 1]));
    }
}

#[test]
fn frames_opened_elsewhere_are_taken_in_their_places_only() {
    let all: Vec<Entry> =
        std::iter::once(wal(4)).chain((0..8).map(|n| record(4, n * 300_000, vec![n as u8; 200_000]))).collect();
    for keyring in [Keyring::none(), sealed()] {
        let finished = build(start(7), &all, &keyring, 1);
        let reader = SegmentReader::open(&WANTED, finished.body.clone(), &keyring).unwrap();
        assert!(reader.frame_count() > 2);
        let mut opened: Vec<_> = (0..reader.frame_count()).rev().map(|frame| reader.frame(frame)).collect();
        assert!(
            reader.entries_from(|_| opened.pop().unwrap()).map(|placed| placed.unwrap().entry).eq(all.iter().cloned())
        );
        let swapped = |frame: usize| reader.frame(frame ^ 1);
        let found: Result<Vec<_>, _> = reader.entries_from(swapped).collect();
        assert_eq!(found.unwrap_err().code(), Code::Internal);
    }
}

#[test]
fn the_running_hash_does_not_depend_on_segments_frames_levels_or_data_keys() {
    let keyring = sealed();
    let entries = sample();
    let whole = build(start(7), &entries, &keyring, 5);
    for cut in 0..=entries.len() {
        let first = build(start(7), &entries[..cut], &keyring, 6);
        let mut next = SegmentStart::after(&first, ARCHIVE, TimelineId::FIRST, Epoch::new(3)).unwrap();
        next.epoch = Epoch::new(2);
        let mut builder = SegmentBuilder::new(next, &keyring, &SeededRandom::new(7), Level::new(19)).unwrap();
        for entry in &entries[cut..] {
            push(&mut builder, entry);
        }
        let second = builder.finish(Micros(0)).unwrap();
        assert_eq!(second.summary.hash_after, whole.summary.hash_after, "cut at {cut}");
        assert_eq!(second.summary.end, whole.summary.end);
        // The hash over a WAL's records goes on across segments, too.
        assert_eq!(
            second.wal.map(|(wal, prefix)| (wal, prefix.value())),
            whole.wal.clone().map(|(wal, prefix)| (wal, prefix.value()))
        );
    }
    let mut chain = Chain::at(RunningHash([0x11; 32]));
    for entry in &entries {
        let mut bytes = Vec::new();
        entry.encode_into(&mut bytes).unwrap();
        chain.push(Leaf::of(keyring.hash_key(), &[&bytes]));
    }
    assert_eq!(chain.value(), whole.summary.hash_after);
    let clear = build(start(7), &entries, &Keyring::none(), 5);
    assert_ne!(clear.summary.hash_after, whole.summary.hash_after, "keyed in an encrypted archive");
    assert_eq!(Keyring::none().hash_key().secret().map(|_| ()), HashKey::CLEAR.secret().map(|_| ()));
}

#[test]
fn every_flipped_byte_is_a_typed_error() {
    for keyring in [Keyring::none(), sealed()] {
        let finished = build(start(7), &sample(), &keyring, 8);
        for at in 0..finished.body.len() {
            for mask in [0x01, 0x20, 0x80, 0xFF] {
                let mut body = finished.body.to_vec();
                body[at] ^= mask;
                let e = read(&body.into(), &keyring).expect_err(&format!("byte {at} ^ {mask:#x}"));
                assert!(
                    matches!(e.code(), Code::SegmentDamaged | Code::SegmentUnsupported | Code::ChainBroken),
                    "byte {at} ^ {mask:#x}: {e}"
                );
                assert_eq!(e.object(), Some(WANTED.key().as_str()));
            }
        }
    }
}

#[test]
fn every_truncation_and_any_excess_is_a_typed_error() {
    for keyring in [Keyring::none(), sealed()] {
        let finished = build(start(7), &sample(), &keyring, 9);
        for len in 0..finished.body.len() {
            let e = read(&finished.body.slice(..len), &keyring).expect_err(&format!("cut at {len}"));
            assert_eq!(e.code(), Code::SegmentDamaged, "cut at {len}: {e}");
        }
        let mut longer = finished.body.to_vec();
        longer.push(0);
        assert_eq!(read(&longer.into(), &keyring).unwrap_err().code(), Code::SegmentDamaged);
        // From the middle: header and trailer stay, a byte between them is gone.
        for at in HEADER_LEN..finished.body.len() - TRAILER_LEN {
            let mut body = finished.body.to_vec();
            body.remove(at);
            assert!(read(&body.into(), &keyring).is_err(), "byte {at} removed");
        }
    }
}

#[test]
fn frames_of_another_segment_are_refused() {
    let two_frames = |fill: u8, seed, keyring: &Keyring| {
        let all = [wal(1), record(1, 0, vec![fill; FRAME_PLAIN]), record(1, FRAME_PLAIN as u64 + 7, vec![fill; 100])];
        build(start(7), &all, keyring, seed)
    };
    for keyring in [Keyring::none(), sealed()] {
        let (a, b) = (two_frames(1, 10, &keyring), two_frames(2, 11, &keyring));
        let index = |s: &FinishedSegment| {
            let reader = SegmentReader::open(&WANTED, s.body.clone(), &keyring).unwrap();
            (0..reader.frame_count()).map(|f| reader.index().frame_range(f).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(index(&a), index(&b));
        for range in index(&a) {
            let range = range.start as usize..range.end as usize;
            if a.body[range.clone()] == b.body[range.clone()] {
                // The frame of the same first event, in a clear archive.
                assert!(!keyring.is_encrypted());
                continue;
            }
            let mut body = a.body.to_vec();
            body[range.clone()].copy_from_slice(&b.body[range]);
            let e = read(&body.into(), &keyring).unwrap_err();
            let expected = if keyring.is_encrypted() { Code::SegmentDamaged } else { Code::ChainBroken };
            assert_eq!(e.code(), expected, "{e}");
            assert!(e.to_string().contains("frame=") && e.to_string().contains("offset="), "{e}");
        }
    }
}

#[test]
fn the_body_of_another_segment_is_refused() {
    for keyring in [Keyring::none(), sealed()] {
        let finished = build(start(7), &sample(), &keyring, 12);
        let open = |wanted: Wanted| SegmentReader::open(&wanted, finished.body.clone(), &keyring).unwrap_err().code();
        assert_eq!(open(Wanted { ordinals: Ordinal::new(8).into(), ..WANTED }), Code::SegmentDamaged);
        assert_eq!(open(Wanted { timeline: TimelineId::new(2), ..WANTED }), Code::SegmentDamaged);
        assert_eq!(open(Wanted { archive: ArchiveId([0; 16]), ..WANTED }), Code::WrongArchive);
        // Even with a header that claims to be the wanted one: the seal and the trailer know better.
        let mut header = SegmentHeader::decode(&finished.body).unwrap();
        header.ordinals = Ordinals::one(Ordinal::new(8));
        let mut body = finished.body.to_vec();
        body[..HEADER_LEN].copy_from_slice(&header.encode());
        let wanted = Wanted { ordinals: Ordinal::new(8).into(), ..WANTED };
        assert_eq!(SegmentReader::open(&wanted, body.into(), &keyring).unwrap_err().code(), Code::SegmentDamaged);
    }
}

#[test]
fn another_key_opens_nothing_and_no_key_says_so() {
    let finished = build(start(7), &sample(), &sealed(), 13);
    assert_eq!(read(&finished.body, &sealed_with([8; 32])).unwrap_err().code(), Code::SegmentDamaged);
    assert_eq!(read(&finished.body, &Keyring::none()).unwrap_err().code(), Code::KeyRequired);
    let clear = build(start(7), &sample(), &Keyring::none(), 13);
    let e = read(&clear.body, &sealed()).unwrap_err();
    assert_eq!(e.code(), Code::SegmentDamaged, "a clear segment in an encrypted archive: {e}");
}

#[test]
fn two_builds_of_the_same_entries_share_no_salt_nonce_or_ciphertext() {
    let keyring = sealed();
    let random = SeededRandom::new(14);
    let make = || {
        let mut builder = SegmentBuilder::new(start(7), &keyring, &random, Level::default()).unwrap();
        for entry in sample() {
            push(&mut builder, &entry);
        }
        builder.finish(Micros(0)).unwrap()
    };
    let (a, b) = (make(), make());
    let (ha, hb) = (SegmentHeader::decode(&a.body).unwrap(), SegmentHeader::decode(&b.body).unwrap());
    assert_ne!(ha.salt, hb.salt);
    assert_ne!(ha.nonce, hb.nonce);
    assert_eq!(a.body.len(), b.body.len());
    let same = a.body[HEADER_LEN + 24..].iter().zip(&b.body[HEADER_LEN + 24..]).filter(|(a, b)| a == b).count();
    assert!(same < a.body.len() / 20, "{same} bytes of {} are equal", a.body.len());
    assert_eq!(a.summary.hash_after, b.summary.hash_after);
}

#[test]
fn newer_versions_and_features_are_named() {
    let finished = build(start(7), &sample(), &Keyring::none(), 15);
    let mut body = finished.body.to_vec();
    body[8] = 2;
    let e = read(&body.into(), &Keyring::none()).unwrap_err();
    assert_eq!(e.code(), Code::SegmentUnsupported);
    assert!(e.to_string().contains("version 2") && e.to_string().contains("version 1"), "{e}");

    let flags = |required, optional| {
        let mut header = SegmentHeader::decode(&finished.body).unwrap();
        header.required_flags = required;
        header.optional_flags = optional;
        let header = header.encode();
        let mut body = finished.body.to_vec();
        body[..HEADER_LEN].copy_from_slice(&header);
        let trailer = body.len() - TRAILER_LEN;
        let mut end = super::header::Trailer::decode(&body[trailer..]).unwrap();
        end.header_crc = u32::from_le_bytes(header[HEADER_LEN - 4..].try_into().unwrap());
        body[trailer..].copy_from_slice(&end.encode());
        read(&body.into(), &Keyring::none())
    };
    assert_eq!(flags(0x8000, 0).unwrap_err().code(), Code::SegmentUnsupported);
    assert_eq!(flags(0, 0x8000).unwrap().len(), sample().len());
}

#[test]
fn records_of_a_wal_that_was_not_started_are_refused() {
    let mut builder =
        SegmentBuilder::new(start(7), &Keyring::none(), &SeededRandom::new(16), Level::default()).unwrap();
    let Entry::Record(record) = record(4, 0, "x") else { unreachable!() };
    let sequences = RecordSequences { first: SequenceNumber::new(1), last: SequenceNumber::new(1) };
    assert_eq!(builder.push_record(&record, sequences).unwrap_err().code(), Code::Internal);
    builder.push_event(&Event::WalStarted { wal: record.wal }).unwrap();
    builder.push_record(&record, sequences).unwrap();
    builder.push_event(&Event::RunStarted { run: 1, first_wal: record.wal, db_id: String::new() }).unwrap();
    assert_eq!(builder.push_record(&record, sequences).unwrap_err().code(), Code::Internal);
}

#[test]
fn a_declared_length_is_not_believed() {
    // A frame whose header is consistent and declares 4 GiB, in a clear archive where nothing is sealed.
    let finished = build(start(7), &sample(), &Keyring::none(), 17);
    let mut frame = super::frame::FrameHeader::decode(&finished.body[HEADER_LEN..], 0).unwrap();
    frame.plain_len = u32::MAX;
    let mut body = finished.body.to_vec();
    body[HEADER_LEN..HEADER_LEN + super::frame::FRAME_HEADER_LEN].copy_from_slice(&frame.encode());
    let e = read(&body.into(), &Keyring::none()).unwrap_err();
    assert_eq!(e.code(), Code::SegmentDamaged);
    assert!(e.to_string().contains("limit"), "{e}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_records_round_trip(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..60),
        encrypted: bool,
        seed: u64,
    ) {
        let keyring = if encrypted { sealed() } else { Keyring::none() };
        let mut all = vec![wal(1)];
        let mut at = 0;
        for payload in payloads {
            let len = payload.len() as u64;
            all.push(record(1, at, payload));
            at += len + 7;
        }
        let finished = build(start(7), &all, &keyring, seed);
        prop_assert_eq!(entries(&finished.body, &keyring), all);
    }

    #[test]
    fn any_bytes_are_refused_and_never_a_panic(
        at in 0usize..2000, garbage in proptest::collection::vec(any::<u8>(), 1..64), encrypted: bool,
    ) {
        let keyring = if encrypted { sealed() } else { Keyring::none() };
        let finished = build(start(7), &sample(), &keyring, 18);
        let mut body = finished.body.to_vec();
        let at = at % body.len();
        let end = (at + garbage.len()).min(body.len());
        let changed = body[at..end] != garbage[..end - at];
        body[at..end].copy_from_slice(&garbage[..end - at]);
        prop_assert_eq!(read(&body.into(), &keyring).is_err(), changed);
    }

    #[test]
    fn a_header_of_any_numbers_with_a_right_checksum_is_refused_and_never_a_panic(
        numbers in proptest::array::uniform32(any::<u64>()), small: bool, after in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let number = |i: usize| if small { numbers[i] % 300 } else { numbers[i] };
        let header = SegmentHeader {
            required_flags: 0,
            optional_flags: numbers[0] as u32,
            timeline: WANTED.timeline,
            ordinals: WANTED.ordinals,
            epoch: Epoch::new(number(1)),
            archive: ARCHIVE,
            nonce: Nonce([0; 16]),
            salt: [0; 32],
            first: Boundary::new(number(2)),
            hash_before: RunningHash([1; 32]),
            end: Boundary::new(number(3)),
            hash_after: RunningHash([2; 32]),
            created: Micros(numbers[4] as i64),
            entries: number(5),
            plain_bytes: number(6),
            footer_offset: number(7),
            footer_len: number(8) as u32,
            frames: number(9) as u32,
        };
        let mut body = header.encode().to_vec();
        body.extend(after);
        prop_assert!(read(&body.into(), &Keyring::none()).is_err());
    }

    #[test]
    fn a_footer_that_lies_consistently_about_places_is_refused(field in 0usize..14, by in prop_oneof![Just(1u64), any::<u64>()]) {
        let entries = [wal(1), record(1, 0, vec![1; FRAME_PLAIN]), record(1, FRAME_PLAIN as u64 + 7, "x"), wal(2)];
        let finished = build(start(7), &entries, &Keyring::none(), 19);
        let reader = SegmentReader::open(&WANTED, finished.body.clone(), &Keyring::none()).unwrap();
        let (mut header, mut footer) = (reader.header().clone(), reader.footer().clone());
        let change = |n: u64| n.wrapping_add(by.max(1));
        match field {
            0 => { footer.frames[1].first = Boundary::new(change(footer.frames[1].first.get())); }
            1 => { footer.frames[1].offset = change(footer.frames[1].offset); }
            2 => { footer.frames[1].plain = footer.frames[1].plain.wrapping_add((by as u32).max(1)); }
            3 => { footer.frames[1].stored = footer.frames[1].stored.wrapping_add((by as u32).max(1)); }
            4 => { footer.frames[1].hash_before.0[3] ^= 1; }
            5 => { footer.frames.swap(0, 1); }
            6 => { header.end = Boundary::new(change(header.end.get())); footer.summary.end = header.end; }
            7 => { header.entries = change(header.entries); }
            8 => { header.hash_after.0[0] ^= 1; footer.summary.hash_after = header.hash_after; }
            9 => { footer.summary.events[1].at = Boundary::new(change(footer.summary.events[1].at.get())); }
            10 => { footer.summary.wals[0].start = change(footer.summary.wals[0].start); }
            11 => { footer.summary.wals[0].end = change(footer.summary.wals[0].end); }
            12 => { footer.summary.wals.pop(); }
            _ => { footer.summary.events[1].event = Event::WalStarted { wal: FileNumber::new(change(2)) }; }
        }
        let packed = super::footer::Packed::new(&footer, Level::default()).unwrap();
        header.footer_len = packed.stored_len(false) as u32;
        let head = header.encode();
        let mut body = finished.body[..header.footer_offset as usize].to_vec();
        body[..HEADER_LEN].copy_from_slice(&head);
        let from = body.len();
        packed.append(&WANTED.key(), &head, None, &mut body).unwrap();
        let trailer = super::header::Trailer {
            footer_offset: header.footer_offset,
            footer_len: header.footer_len,
            footer_crc: crc32c::crc32c(&body[from..]),
            header_crc: u32::from_le_bytes(head[HEADER_LEN - 4..].try_into().unwrap()),
        };
        body.extend(trailer.encode());
        prop_assert!(read(&body.into(), &Keyring::none()).is_err());
    }
}
