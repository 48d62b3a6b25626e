//! The log reader, over WAL and MANIFEST framing.
//!
//! Asserts: records and the final answer are the same whether the file is given whole or while it grows; whatever a
//! reader has seen before (also other bytes in the same place, in a recycled file), a record, damage and the answer for
//! a final file are those of a reader that begins there anew; offsets never go back; what a writer writes reads back.

use pitr_archive::{
    ids::FileNumber,
    rocks::{
        describe::{Operations, WalDescriber, WalLine},
        log_format::{BLOCK_SIZE, HEADER_SIZE, Header, RECYCLABLE_HEADER_SIZE, RecordType, mask},
        log_reader::{Finality, LogKind, LogReader, LogState, Metadata, Read},
        log_writer::LogWriter,
    },
};

use super::input::Input;

const MANIFEST: u8 = 1;
/// The bytes begin inside the file, near the end of a block.
pub const INSIDE: u8 = 2;
/// Checksums are mended.
pub const MENDED: u8 = 4;
/// The file is recycled: the last bytes of the input are what it held before.
pub const RECYCLED: u8 = 8;
/// Mending also puts this log's number into recyclable headers.
pub const NUMBERED: u8 = 16;

const LIMIT: u64 = 1 << 20;

#[derive(Debug, PartialEq, Eq)]
enum Item {
    Record(u64, u64, Vec<u8>),
    Metadata(u64, u64, Metadata),
}

pub fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let number = input.u32();
    let before_block_end = u64::from(input.u16());
    let step = usize::from(input.u8());
    let old_len = if flags & RECYCLED != 0 { usize::from(input.u16()) } else { 0 };
    let bytes = input.rest();
    let (new, old) = bytes.split_at(bytes.len() - old_len.min(bytes.len()));
    let kind = if flags & MANIFEST != 0 { LogKind::Manifest } else { LogKind::Wal(FileNumber::new(u64::from(number))) };
    let from = if flags & INSIDE != 0 { BLOCK_SIZE - 1 - before_block_end % BLOCK_SIZE } else { 0 };
    let mut file = new.to_vec();
    if flags & MENDED != 0 {
        let number = if flags & MANIFEST != 0 { 0 } else { number };
        mend(&mut file, from, (flags & NUMBERED != 0).then_some(number));
    }
    let begin = || LogReader::resume(kind, LogState { offset: from, ..LogState::default() }).with_record_limit(LIMIT);

    let mut whole = begin();
    let (items, last) = read_all(&mut whole, &file, Finality::Final);
    assert!(!matches!(last, Read::Incomplete { .. }), "a final file has an end: {last:?}");
    in_order(&items, from, from + file.len() as u64);
    growing(&mut begin(), from, &file, step, &items, &last);
    if !old.is_empty() {
        recycled(&mut begin(), from, &file, old, step);
    }
    rewritten(&items);
    if from == 0 && kind != LogKind::Manifest {
        described(&file, number, &items);
    }
}

fn read_all<'b>(reader: &mut LogReader, bytes: &'b [u8], finality: Finality) -> (Vec<Item>, Read<'b>) {
    let mut items = Vec::new();
    for answer in reader.read_all(bytes, finality) {
        match answer {
            Read::Record { start, end, payload } => items.push(Item::Record(start, end, payload.into_owned())),
            Read::Metadata { start, end, metadata } => items.push(Item::Metadata(start, end, metadata)),
            last => return (items, last),
        }
    }
    panic!("reading ended without an answer");
}

fn in_order(items: &[Item], from: u64, to: u64) {
    let mut at = from;
    for item in items {
        let (start, end) = match item {
            Item::Record(start, end, payload) => {
                assert!(payload.len() as u64 <= LIMIT);
                (*start, *end)
            }
            Item::Metadata(start, end, _) => (*start, *end),
        };
        assert!(at <= start && start < end && end <= to, "{start}..{end} after {at}, in a file of {to}");
        at = end;
    }
}

/// Lengths at which a growing file is looked at: at most about twenty, the last is all of it.
fn cuts(len: usize, step: usize) -> impl Iterator<Item = usize> {
    let step = (len * step / 256 / 4).max(len / 20).max(1);
    (0..len).step_by(step).chain([len])
}

fn growing(reader: &mut LogReader, from: u64, file: &[u8], step: usize, items: &[Item], last: &Read<'_>) {
    let mut seen = Vec::new();
    for cut in cuts(file.len(), step) {
        let at = (reader.offset() - from) as usize;
        let state = reader.state().clone();
        let anew = &mut LogReader::resume(reader.kind(), state).with_record_limit(LIMIT);
        let (fresh, fresh_end) = read_all(anew, &file[at..cut], Finality::Growing);
        let (found, end) = read_all(reader, &file[at..cut], Finality::Growing);
        assert_eq!((&found, &end), (&fresh, &fresh_end), "a reader that goes on, and one that begins there");
        assert_eq!(reader.state(), anew.state());
        if let Read::Incomplete { at, needed, .. } = end {
            assert!(at == reader.offset() && needed >= at);
        }
        seen.extend(found);
    }
    let at = (reader.offset() - from) as usize;
    let (rest, end) = read_all(reader, &file[at..], Finality::Final);
    seen.extend(rest);
    assert_eq!((seen.as_slice(), &end), (items, last), "given in pieces, and whole");
}

/// The file held `old` and is overwritten with `new` from its beginning; in the end nobody writes any more.
fn recycled(reader: &mut LogReader, from: u64, new: &[u8], old: &[u8], step: usize) {
    let growing = cuts(new.len(), step).map(|cut| (cut, Finality::Growing));
    for (cut, finality) in growing.chain([(new.len(), Finality::Final)]) {
        let mut file = old.to_vec();
        file.resize(file.len().max(cut), 0);
        file[..cut].copy_from_slice(&new[..cut]);
        let Some(bytes) = file.get((reader.offset() - from) as usize..) else { return };
        let mut fresh = LogReader::resume(reader.kind(), reader.state().clone()).with_record_limit(LIMIT);
        let fresh = fresh.read(bytes, finality);
        let answer = reader.read(bytes, finality);
        let decided = matches!(answer, Read::Record { .. } | Read::Metadata { .. } | Read::Corrupt { .. });
        if decided || finality == Finality::Final {
            assert_eq!(answer, fresh, "what was seen before in its place decides");
        }
    }
}

/// Our own writer's log of the same records.
fn rewritten(items: &[Item]) {
    let payloads: Vec<&[u8]> = items
        .iter()
        .filter_map(|item| match item {
            Item::Record(_, _, payload) => Some(payload.as_slice()),
            Item::Metadata(..) => None,
        })
        .collect();
    let number = FileNumber::new(77);
    for mut writer in [LogWriter::new(0), LogWriter::recyclable(number)] {
        let mut log = Vec::new();
        payloads.iter().for_each(|payload| writer.append(payload, &mut log));
        assert_eq!(writer.offset(), log.len() as u64);
        let mut reader = LogReader::new(LogKind::Wal(number));
        let (items, last) = read_all(&mut reader, &log, Finality::Final);
        let read = items.iter().map(|item| match item {
            Item::Record(_, _, payload) => payload.as_slice(),
            Item::Metadata(..) => panic!("nobody wrote metadata"),
        });
        assert!(read.eq(payloads.iter().copied()));
        assert!(matches!(last, Read::End { void_bytes: 0, .. }), "{last:?}");
    }
}

fn described(file: &[u8], number: u32, items: &[Item]) {
    let mut describer = WalDescriber::new(FileNumber::new(u64::from(number)), Operations::Summarised);
    // The describer has no limit of its own: records that the limit refused come after those compared here.
    for item in items {
        let line = describer.next(&file[describer.offset() as usize..], Finality::Final);
        match (item, line) {
            (Item::Record(start, end, _), Some(WalLine::Batch(line))) => {
                assert_eq!((*start, *end), (line.offset, line.end));
            }
            (Item::Metadata(start, end, _), Some(WalLine::Metadata { offset, end: after, .. })) => {
                assert_eq!((*start, *end), (offset, after));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Makes every header of the file one of a record with a right checksum, as far as that changes no type.
pub fn mend(file: &mut [u8], from: u64, number: Option<u32>) {
    let mut at = 0usize;
    while let Some(rest) = file.get_mut(at..) {
        let block_left = (BLOCK_SIZE - (from + at as u64) % BLOCK_SIZE) as usize;
        let Some(header) = Header::decode(rest) else { return };
        let mut header_len = header.kind.header_size() as usize;
        if let RecordType::Unknown(byte) = header.kind
            && byte >= 10
            && byte & 1 == 1
        {
            header_len = RECYCLABLE_HEADER_SIZE as usize;
        }
        if block_left < header_len || header.kind == RecordType::Zero && header.len == 0 {
            at += block_left.max(1);
            continue;
        }
        let room = block_left.min(rest.len());
        let Some(most) = room.checked_sub(header_len) else { return };
        let len = usize::from(header.len).min(most);
        rest[4..6].copy_from_slice(&(len as u16).to_le_bytes());
        if let Some(number) = number.filter(|_| header_len > HEADER_SIZE as usize) {
            rest[7..11].copy_from_slice(&number.to_le_bytes());
        }
        let crc = mask(crc32c::crc32c(&rest[6..header_len + len]));
        rest[..4].copy_from_slice(&crc.to_le_bytes());
        at += header_len + len;
    }
}
