//! The cases of RocksDB's own `db/log_test.cc` under their names, and what a tailing reader needs beyond them.

use proptest::prelude::*;

use super::*;
use crate::{
    ids::{FileNumber, SequenceNumber},
    rocks::log_writer::LogWriter,
};

const NUMBER: FileNumber = FileNumber::new(123);
const BLOCK: usize = 32_768;

/// A log being written, in one of the two header forms, with or without compression.
struct Log {
    recyclable: bool,
    compressed: bool,
    writer: LogWriter,
    bytes: Vec<u8>,
}

impl Log {
    fn new(recyclable: bool) -> Self {
        let writer = if recyclable { LogWriter::recyclable(NUMBER) } else { LogWriter::new(0) };
        Self { recyclable, compressed: false, writer, bytes: Vec::new() }
    }

    fn compressed(recyclable: bool) -> Self {
        let mut log = Self::new(recyclable);
        log.writer.append_compression(7, &mut log.bytes);
        log.compressed = true;
        log
    }

    fn write(&mut self, payload: &[u8]) {
        if self.compressed && !payload.is_empty() {
            let frame = zstd::bulk::compress(payload, 3).unwrap();
            self.writer.append(&frame, &mut self.bytes);
        } else {
            self.writer.append(payload, &mut self.bytes);
        }
    }

    fn timestamp_sizes(&mut self, sizes: &[(u32, u16)]) {
        let sizes: Vec<_> = sizes.iter().map(|(cf, n)| (ColumnFamilyId::new(*cf), *n)).collect();
        self.writer.append_timestamp_sizes(&sizes, &mut self.bytes);
    }

    fn header_size(&self) -> usize {
        if self.recyclable { 11 } else { 7 }
    }

    fn set_type(&mut self, at: usize, legacy: RecordType, recyclable: RecordType) {
        self.bytes[at + 6] = if self.recyclable { recyclable } else { legacy }.to_byte();
    }

    fn fix_checksum(&mut self, at: usize, len: usize, recyclable: bool) {
        let size = if recyclable { 11 } else { 7 } + len;
        let crc = super::super::log_format::mask(crc32c::crc32c(&self.bytes[at + 6..at + size]));
        self.bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }

    fn shrink(&mut self, n: usize) {
        self.bytes.truncate(self.bytes.len() - n);
    }

    fn read(&self, finality: Finality) -> (Vec<Vec<u8>>, Read<'_>) {
        read(LogKind::Wal(NUMBER), &self.bytes, finality)
    }
}

/// All payloads and the answer that ended the reading.
fn read(kind: LogKind, bytes: &[u8], finality: Finality) -> (Vec<Vec<u8>>, Read<'_>) {
    let mut reader = LogReader::new(kind);
    let mut payloads = Vec::new();
    let mut last = None;
    for answer in reader.read_all(bytes, finality) {
        match answer {
            Read::Record { payload, .. } => payloads.push(payload.into_owned()),
            Read::Metadata { .. } => {}
            other => last = Some(other),
        }
    }
    (payloads, last.expect("reading ends with an answer that is no record"))
}

fn big(unit: &str, n: usize) -> Vec<u8> {
    unit.bytes().cycle().take(n).collect()
}

fn both(test: impl Fn(Log)) {
    test(Log::new(false));
    test(Log::new(true));
}

fn clean_end(log: &Log) -> Read<'static> {
    Read::End { at: log.bytes.len() as u64, void_bytes: 0, why: Stop::NothingMore }
}

fn assert_reads(log: &Log, expected: &[&[u8]]) {
    for finality in [Finality::Growing, Finality::Final] {
        let (payloads, last) = log.read(finality);
        assert_eq!(payloads, expected);
        assert_eq!(last, clean_end(log));
    }
}

mod log_test {
    use super::*;

    #[test]
    fn empty() {
        both(|log| assert_reads(&log, &[]));
    }

    #[test]
    fn read_write() {
        both(|mut log| {
            let payloads: [&[u8]; 4] = [b"foo", b"bar", b"", b"xxxx"];
            payloads.iter().for_each(|p| log.write(p));
            assert_reads(&log, &payloads);
        });
    }

    #[test]
    fn read_write_with_timestamp_size() {
        both(|mut log| {
            log.timestamp_sizes(&[(1, 8)]);
            log.write(b"foo");
            log.timestamp_sizes(&[(2, 1)]);
            log.write(b"");
            assert_reads(&log, &[b"foo", b""]);
            let mut reader = LogReader::new(LogKind::Wal(NUMBER));
            assert_eq!(reader.read_all(&log.bytes, Finality::Growing).count(), 5);
            assert_eq!(reader.timestamp_sizes(), [(ColumnFamilyId::new(1), 8), (ColumnFamilyId::new(2), 1)]);
        });
    }

    #[test]
    fn read_write_with_timestamp_size_zero_timestamp_ignored() {
        both(|mut log| {
            log.timestamp_sizes(&[(1, 8)]);
            log.write(b"foo");
            let before = log.bytes.len();
            log.timestamp_sizes(&[(2, 0)]);
            assert_eq!(log.bytes.len(), before);
            log.write(b"bar");
            assert_reads(&log, &[b"foo", b"bar"]);
        });
    }

    #[test]
    fn many_blocks() {
        both(|mut log| {
            let numbers: Vec<_> = (0..100_000).map(|i| format!("{i}.")).collect();
            numbers.iter().for_each(|n| log.write(n.as_bytes()));
            assert_reads(&log, &numbers.iter().map(|n| n.as_bytes()).collect::<Vec<_>>());
        });
    }

    #[test]
    fn fragmentation() {
        both(|mut log| {
            let payloads = [big("small", 5), big("medium", 50_000), big("large", 100_000)];
            payloads.iter().for_each(|p| log.write(p));
            assert_reads(&log, &payloads.iter().map(Vec::as_slice).collect::<Vec<_>>());
        });
    }

    /// A trailer exactly as long as an empty record.
    #[test]
    fn marginal_trailer() {
        both(|mut log| {
            let first = big("foo", BLOCK - 2 * log.header_size());
            log.write(&first);
            assert_eq!(log.bytes.len(), BLOCK - log.header_size());
            log.write(b"");
            log.write(b"bar");
            assert_reads(&log, &[&first, b"", b"bar"]);
        });
    }

    #[test]
    fn marginal_trailer_2() {
        both(|mut log| {
            let first = big("foo", BLOCK - 2 * log.header_size());
            log.write(&first);
            log.write(b"bar");
            assert_reads(&log, &[&first, b"bar"]);
        });
    }

    #[test]
    fn short_trailer() {
        both(|mut log| {
            let first = big("foo", BLOCK - 2 * log.header_size() + 4);
            log.write(&first);
            assert_eq!(log.bytes.len(), BLOCK - log.header_size() + 4);
            log.write(b"");
            log.write(b"bar");
            assert_reads(&log, &[&first, b"", b"bar"]);
        });
    }

    #[test]
    fn aligned_eof() {
        both(|mut log| {
            let first = big("foo", BLOCK - 2 * log.header_size() + 4);
            log.write(&first);
            assert_reads(&log, &[&first]);
        });
    }

    #[test]
    fn random_read() {
        both(|mut log| {
            let payloads: Vec<_> =
                (0..500usize).map(|i| big(&format!("{i}."), i * i * 7919 % (1 << (i % 17)))).collect();
            payloads.iter().for_each(|p| log.write(p));
            assert_reads(&log, &payloads.iter().map(Vec::as_slice).collect::<Vec<_>>());
        });
    }

    /// RocksDB's case injects a read error; here reading is the caller's, and bytes that could not be read are bytes
    /// that are not there: nothing is dropped, the same offset is read again.
    #[test]
    fn read_error() {
        both(|mut log| {
            log.write(b"foo");
            let mut reader = LogReader::new(LogKind::Wal(NUMBER));
            assert!(matches!(reader.read(&[], Finality::Growing), Read::End { at: 0, void_bytes: 0, .. }));
            assert!(matches!(reader.read(&log.bytes, Finality::Growing), Read::Record { .. }));
        });
    }

    #[test]
    fn bad_record_type() {
        both(|mut log| {
            log.write(b"foo");
            log.bytes[6] += 100;
            log.fix_checksum(0, 3, false);
            let record_type = log.bytes[6];
            let reason = Corruption::UnknownType { record_type };
            assert_eq!(log.read(Finality::Growing), (vec![], Read::Corrupt { at: 0, reason }));
            assert!(reason.is_unsupported());
        });
    }

    #[test]
    fn ignorable_record_type() {
        let mut log = Log::new(false);
        log.write(b"foo");
        log.bytes[6] = 0x80 + 100;
        log.fix_checksum(0, 3, false);
        log.write(b"bar");
        let mut reader = LogReader::new(LogKind::Wal(NUMBER));
        let metadata = Metadata::Ignorable { record_type: 228, len: 3 };
        assert_eq!(reader.read(&log.bytes, Finality::Growing), Read::Metadata { start: 0, end: 10, metadata });
        assert_reads(&log, &[b"bar"]);
    }

    #[test]
    fn truncated_trailing_record_is_ignored() {
        both(|mut log| {
            log.write(b"foo");
            log.shrink(4);
            let needed = log.header_size() as u64;
            let incomplete = Read::Incomplete { at: 0, needed, why: Stop::ShortHeader };
            assert_eq!(log.read(Finality::Growing), (vec![], incomplete));
        });
    }

    #[test]
    fn truncated_trailing_record_is_not_ignored() {
        both(|mut log| {
            log.write(b"foo");
            log.shrink(4);
            let end = Read::End { at: 0, void_bytes: log.bytes.len() as u64, why: Stop::ShortHeader };
            assert_eq!(log.read(Finality::Final), (vec![], end));
        });
    }

    #[test]
    fn bad_length() {
        both(|mut log| {
            log.write(&big("bar", BLOCK - log.header_size()));
            log.write(b"foo");
            log.bytes[4] += 1;
            let corrupt = Read::Corrupt { at: 0, reason: Corruption::BadLength { valid_at: BLOCK as u64 } };
            assert_eq!(log.read(Finality::Final), (vec![], corrupt.clone()));
            // While a recycled file is being overwritten, what follows proves nothing.
            let void_bytes = log.bytes.len() as u64;
            let stale = Read::End { at: 0, void_bytes, why: Stop::StaleBytes };
            assert_eq!(log.read(Finality::Growing).1, if log.recyclable { stale } else { corrupt });
        });
    }

    #[test]
    fn bad_length_at_end_is_ignored() {
        both(|mut log| {
            log.write(b"foo");
            let needed = log.bytes.len() as u64;
            log.shrink(1);
            let incomplete = Read::Incomplete { at: 0, needed, why: Stop::ShortBody };
            assert_eq!(log.read(Finality::Growing), (vec![], incomplete));
        });
    }

    #[test]
    fn bad_length_at_end_is_not_ignored() {
        both(|mut log| {
            log.write(b"foo");
            log.shrink(1);
            let void_bytes = log.bytes.len() as u64;
            assert_eq!(log.read(Finality::Final).1, Read::End { at: 0, void_bytes, why: Stop::ShortBody });
        });
    }

    #[test]
    fn checksum_mismatch() {
        both(|mut log| {
            log.write(b"foooooo");
            log.bytes[0] = log.bytes[0].wrapping_add(14);
            let len = log.bytes.len() as u64;
            let (growing, ended) = if log.recyclable {
                let end = Read::End { at: 0, void_bytes: len, why: Stop::StaleBytes };
                (end.clone(), end)
            } else {
                let why = Stop::ChecksumMismatch;
                (Read::Incomplete { at: 0, needed: len, why }, Read::End { at: 0, void_bytes: len, why })
            };
            assert_eq!(log.read(Finality::Growing).1, growing);
            assert_eq!(log.read(Finality::Final).1, ended);
        });
    }

    #[test]
    fn unexpected_middle_type() {
        both(|mut log| {
            log.write(b"foo");
            log.set_type(0, RecordType::Middle, RecordType::RecyclableMiddle);
            log.fix_checksum(0, 3, log.recyclable);
            assert_eq!(log.read(Finality::Growing).1, Read::Corrupt { at: 0, reason: Corruption::MissingStart });
        });
    }

    #[test]
    fn unexpected_last_type() {
        both(|mut log| {
            log.write(b"foo");
            log.set_type(0, RecordType::Last, RecordType::RecyclableLast);
            log.fix_checksum(0, 3, log.recyclable);
            assert_eq!(log.read(Finality::Growing).1, Read::Corrupt { at: 0, reason: Corruption::MissingStart });
        });
    }

    #[test]
    fn unexpected_full_type() {
        both(|mut log| {
            log.write(b"foo");
            let at = log.bytes.len() as u64;
            log.write(b"bar");
            log.set_type(0, RecordType::First, RecordType::RecyclableFirst);
            log.fix_checksum(0, 3, log.recyclable);
            let reason = Corruption::PartialRecordWithoutEnd { started_at: 0 };
            assert_eq!(log.read(Finality::Growing).1, Read::Corrupt { at, reason });
        });
    }

    #[test]
    fn unexpected_first_type() {
        both(|mut log| {
            log.write(b"foo");
            let at = log.bytes.len() as u64;
            log.write(&big("bar", 100_000));
            log.set_type(0, RecordType::First, RecordType::RecyclableFirst);
            log.fix_checksum(0, 3, log.recyclable);
            let reason = Corruption::PartialRecordWithoutEnd { started_at: 0 };
            assert_eq!(log.read(Finality::Growing).1, Read::Corrupt { at, reason });
        });
    }

    #[test]
    fn missing_last_is_ignored() {
        both(|mut log| {
            log.write(&big("bar", BLOCK));
            let last = BLOCK - (BLOCK - log.header_size()) + log.header_size();
            log.shrink(last);
            assert_eq!(log.bytes.len(), BLOCK);
            let incomplete = Read::Incomplete { at: 0, needed: BLOCK as u64 + 1, why: Stop::ShortRecord };
            assert_eq!(log.read(Finality::Growing), (vec![], incomplete));
        });
    }

    #[test]
    fn missing_last_is_not_ignored() {
        both(|mut log| {
            log.write(&big("bar", BLOCK));
            log.bytes.truncate(BLOCK);
            let end = Read::End { at: 0, void_bytes: BLOCK as u64, why: Stop::ShortRecord };
            assert_eq!(log.read(Finality::Final), (vec![], end));
        });
    }

    #[test]
    fn partial_last_is_ignored() {
        both(|mut log| {
            log.write(&big("bar", BLOCK));
            let needed = log.bytes.len() as u64;
            log.shrink(1);
            let incomplete = Read::Incomplete { at: 0, needed, why: Stop::ShortBody };
            assert_eq!(log.read(Finality::Growing), (vec![], incomplete));
        });
    }

    #[test]
    fn partial_last_is_not_ignored() {
        both(|mut log| {
            log.write(&big("bar", BLOCK));
            log.shrink(1);
            assert!(matches!(log.read(Finality::Final).1, Read::End { at: 0, why: Stop::ShortBody, .. }));
        });
    }

    /// First(R1) Last(R1) First(R2) Last(R2) of which the middle two disappear must not become one record.
    #[test]
    fn error_joins_records() {
        both(|mut log| {
            log.write(&big("foo", BLOCK));
            log.write(&big("bar", BLOCK));
            log.write(b"correct");
            log.bytes[BLOCK..2 * BLOCK].fill(b'x');
            // RocksDB goes on with "correct"; what lies between is lost to an archive, so this is corruption.
            let at = BLOCK as u64;
            let reason = Corruption::ChecksumMismatch { valid_at: 2 * BLOCK as u64 };
            assert_eq!(log.read(Finality::Final), (vec![], Read::Corrupt { at, reason }));
        });
    }

    #[test]
    fn clear_eof_single_block() {
        both(|mut log| {
            log.write(b"foo");
            log.write(b"bar");
            let first = 3 + log.header_size();
            let mut reader = LogReader::new(LogKind::Wal(NUMBER));
            assert!(matches!(reader.read(&log.bytes[..first + 2], Finality::Growing), Read::Record { .. }));
            assert!(matches!(
                reader.read(&log.bytes[first..first + 2], Finality::Growing),
                Read::Incomplete { why: Stop::ShortHeader, .. }
            ));
            let answers: Vec<_> = reader.read_all(&log.bytes[first..], Finality::Growing).collect();
            assert!(matches!(&answers[..], [Read::Record { payload, .. }, Read::End { .. }] if **payload == *b"bar"));
            log.write(b"xxx");
            let at = reader.offset() as usize;
            assert!(matches!(
                reader.read(&log.bytes[at..], Finality::Growing),
                Read::Record { payload, .. } if *payload == *b"xxx"
            ));
        });
    }

    #[test]
    fn clear_eof_multi_block() {
        both(|mut log| {
            let n = (BLOCK - log.header_size()) * 5 + 25;
            let payloads = [big("foo", n), big("bar", n), big("xxx", n)];
            let mut reader = LogReader::new(LogKind::Wal(NUMBER));
            log.write(&payloads[0]);
            log.write(&payloads[1]);
            let cut = n + 5 * log.header_size() + log.header_size() + 3;
            assert!(matches!(reader.read(&log.bytes[..cut], Finality::Growing), Read::Record { .. }));
            let at = reader.offset() as usize;
            assert!(matches!(reader.read(&log.bytes[at..cut], Finality::Growing), Read::Incomplete { .. }));
            log.write(&payloads[2]);
            let read: Vec<_> = reader.read_all(&log.bytes[at..], Finality::Growing).collect();
            assert!(
                matches!(&read[..], [Read::Record { payload: bar, .. }, Read::Record { payload: xxx, .. }, Read::End { .. }]
                if **bar == *payloads[1] && **xxx == *payloads[2])
            );
        });
    }

    /// A failed read in between: what was readable before it stays readable, nothing is delivered twice.
    #[test]
    fn clear_eof_error() {
        both(|mut log| {
            log.write(b"foo");
            log.write(b"bar");
            let mut reader = LogReader::new(LogKind::Wal(NUMBER));
            assert_eq!(reader.read_all(&log.bytes, Finality::Growing).count(), 3);
            let at = reader.offset() as usize;
            log.write(b"xxx");
            assert!(matches!(reader.read(&[], Finality::Growing), Read::End { void_bytes: 0, .. }));
            assert!(matches!(reader.read(&log.bytes[at..], Finality::Growing), Read::Record { .. }));
        });
    }

    #[test]
    fn clear_eof_error_2() {
        both(|mut log| {
            log.write(b"foo");
            let at = log.bytes.len();
            log.write(b"xxx");
            let mut reader = LogReader::new(LogKind::Wal(NUMBER));
            assert!(matches!(reader.read(&log.bytes[..at], Finality::Growing), Read::Record { .. }));
            let torn = &log.bytes[at..at + 3];
            assert!(matches!(reader.read(torn, Finality::Growing), Read::Incomplete { why: Stop::ShortHeader, .. }));
            assert!(matches!(reader.read(&log.bytes[at..], Finality::Growing), Read::Record { .. }));
        });
    }

    #[test]
    fn recycle() {
        let mut file = Log::new(true);
        ["foo", "bar", "baz", "bif", "blitz"].iter().for_each(|p| file.write(p.as_bytes()));
        while file.bytes.len() < BLOCK * 2 {
            file.write(b"xxxxxxxxxxxxxxxx");
        }
        // RocksDB's test keeps the number; then only the checksum tells.
        for (number, aligned) in [(NUMBER, false), (FileNumber::new(124), true), (FileNumber::new(124), false)] {
            let (mut writer, mut new) = (LogWriter::recyclable(number), Vec::new());
            let first: &[u8] = if aligned { b"oof" } else { b"foooo" };
            writer.append(first, &mut new);
            writer.append(b"bar", &mut new);
            let mut bytes = file.bytes.clone();
            bytes[..new.len()].copy_from_slice(&new);
            let (payloads, last) = read(LogKind::Wal(number), &bytes, Finality::Growing);
            assert_eq!(payloads, [first, b"bar"]);
            let at = new.len() as u64;
            let void_bytes = (bytes.len() - new.len()) as u64;
            let why = if aligned { Stop::OlderRecord { low32: 123 } } else { Stop::StaleBytes };
            assert_eq!(last, Read::End { at, void_bytes, why });
            if number != NUMBER {
                let (payloads, last) = read(LogKind::Wal(number), &bytes, Finality::Final);
                assert_eq!((payloads.len(), last), (2, Read::End { at, void_bytes, why }));
            }
        }
    }

    #[test]
    fn recycle_with_timestamp_size() {
        let mut file = Log::new(true);
        file.timestamp_sizes(&[(1, 4)]);
        while file.bytes.len() < BLOCK * 2 {
            file.write(b"xxxxxxxxxxxxxxxx");
        }
        let number = FileNumber::new(124);
        let (mut writer, mut new) = (LogWriter::recyclable(number), Vec::new());
        writer.append_timestamp_sizes(&[(ColumnFamilyId::new(2), 8)], &mut new);
        writer.append(b"foooo", &mut new);
        writer.append(b"bar", &mut new);
        file.bytes[..new.len()].copy_from_slice(&new);
        let mut reader = LogReader::new(LogKind::Wal(number));
        let answers: Vec<_> = reader.read_all(&file.bytes, Finality::Growing).collect();
        assert!(matches!(
            answers[..],
            [Read::Metadata { .. }, Read::Record { .. }, Read::Record { .. }, Read::End { .. }]
        ));
        assert_eq!(reader.timestamp_sizes(), [(ColumnFamilyId::new(2), 8)]);
    }

    #[test]
    fn timestamp_size_record_padding() {
        both(|mut log| {
            let first = big("foo", BLOCK - 2 * log.header_size());
            log.write(&first);
            log.timestamp_sizes(&[(2, 8)]);
            assert!(log.bytes.len() > BLOCK, "the metadata record begins a new block");
            let second = big("bar", 1000);
            log.write(&second);
            assert_reads(&log, &[&first, &second]);
        });
    }
}

mod retriable_log_test {
    use super::*;

    fn in_two_parts(delta: impl Fn(usize) -> usize) {
        both(|mut log| {
            log.write(b"foo");
            let mut reader = LogReader::new(LogKind::Wal(NUMBER));
            let part = delta(log.header_size());
            assert!(matches!(reader.read(&log.bytes[..part], Finality::Growing), Read::Incomplete { at: 0, .. }));
            assert_eq!(reader.offset(), 0);
            assert!(matches!(
                reader.read(&log.bytes, Finality::Growing),
                Read::Record { payload, .. } if *payload == *b"foo"
            ));
        });
    }

    #[test]
    fn tail_log_partial_header() {
        in_two_parts(|header| header - 1);
    }

    #[test]
    fn tail_log_full_header() {
        in_two_parts(|header| header + 1);
    }

    #[test]
    fn non_blocking_read_full_record() {
        both(|mut log| {
            log.write(b"foo-bar");
            let mut reader = LogReader::new(LogKind::Wal(NUMBER));
            let part = &log.bytes[..log.header_size() - 1];
            for _ in 0..3 {
                assert!(matches!(reader.read(part, Finality::Growing), Read::Incomplete { .. }));
            }
            assert!(matches!(reader.read(&log.bytes, Finality::Growing), Read::Record { .. }));
        });
    }
}

mod compression_log_test {
    use super::*;

    fn both(test: impl Fn(Log)) {
        test(Log::compressed(false));
        test(Log::compressed(true));
    }

    /// Bytes that do not compress.
    fn noise(n: usize) -> Vec<u8> {
        let mut state = 301u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn empty() {
        both(|log| {
            assert_eq!(log.bytes.len(), 11, "the compression record has a short header in both forms");
            assert_reads(&log, &[]);
        });
    }

    #[test]
    fn read_write() {
        both(|mut log| {
            let payloads: [&[u8]; 4] = [b"foo", b"bar", b"", b"xxxx"];
            payloads.iter().for_each(|p| log.write(p));
            assert_reads(&log, &payloads);
        });
    }

    #[test]
    fn read_write_with_timestamp_size() {
        both(|mut log| {
            log.timestamp_sizes(&[(1, 8)]);
            log.write(b"foo");
            log.write(b"bar");
            log.timestamp_sizes(&[(2, 1)]);
            log.write(b"");
            log.write(b"xxxx");
            assert_reads(&log, &[b"foo", b"bar", b"", b"xxxx"]);
        });
    }

    #[test]
    fn many_blocks() {
        both(|mut log| {
            let numbers: Vec<_> = (0..20_000).map(|i| format!("{i}.")).collect();
            numbers.iter().for_each(|n| log.write(n.as_bytes()));
            assert_reads(&log, &numbers.iter().map(|n| n.as_bytes()).collect::<Vec<_>>());
        });
    }

    #[test]
    fn fragmentation() {
        both(|mut log| {
            let payloads = [big("small", 5), noise(3 * BLOCK / 2), noise(3 * BLOCK), big("a", 3_000_000)];
            payloads.iter().for_each(|p| log.write(p));
            assert_reads(&log, &payloads.iter().map(Vec::as_slice).collect::<Vec<_>>());
        });
    }

    #[test]
    fn aligned_fragmentation() {
        both(|mut log| {
            let mut expected = Vec::new();
            // RocksDB's test fills a block until the next record begins the next one; here any gap that takes no
            // more than an empty fragment will do, because our frames have another size.
            while BLOCK - log.bytes.len() % BLOCK > 2 * log.header_size() {
                log.write(b"a");
                expected.push(b"a".to_vec());
            }
            expected.push(noise(3 * BLOCK));
            log.write(&expected[expected.len() - 1]);
            assert_reads(&log, &expected.iter().map(Vec::as_slice).collect::<Vec<_>>());
        });
    }

    #[test]
    fn checksum_mismatch() {
        both(|mut log| {
            log.write(b"foooooo");
            let at = 11 + log.header_size();
            log.bytes[at] = log.bytes[at].wrapping_add(14);
            let (payloads, last) = log.read(Finality::Final);
            assert!(payloads.is_empty());
            let why = if log.recyclable { Stop::StaleBytes } else { Stop::ChecksumMismatch };
            assert_eq!(last, Read::End { at: 11, void_bytes: (log.bytes.len() - 11) as u64, why });
        });
    }

    /// RocksDB's `StreamingCompressionTest.Basic`.
    #[test]
    fn basic() {
        for n in [10, 100, 1000, BLOCK, 2 * BLOCK] {
            let input = big("abc", n);
            let frame = zstd::bulk::compress(&input, 3).unwrap();
            assert_eq!(Decompressor::default().decompress(&frame, 1 << 20), Ok(input));
        }
    }

    #[test]
    fn a_frame_that_is_cut_off_doubled_or_too_large_is_refused() {
        let input = big("abc", 1000);
        let frame = zstd::bulk::compress(&input, 3).unwrap();
        let mut decompressor = Decompressor::default();
        for cut in 1..frame.len() {
            assert_eq!(decompressor.decompress(&frame[..cut], 1 << 20), Err(Failure::Damaged), "{cut}");
        }
        let twice = [&frame[..], &frame[..]].concat();
        assert_eq!(decompressor.decompress(&twice, 1 << 20), Err(Failure::Damaged));
        assert_eq!(decompressor.decompress(&frame, 999), Err(Failure::TooLarge));
        assert_eq!(decompressor.decompress(&frame, 1000), Ok(input));
    }

    #[test]
    fn other_compressions_second_records_and_late_ones_are_refused() {
        let mut log = Log::new(false);
        log.writer.append_compression(1, &mut log.bytes);
        let reason = Corruption::UnsupportedCompression { compression_type: 1 };
        assert_eq!(log.read(Finality::Growing).1, Read::Corrupt { at: 0, reason });
        let mut log = Log::compressed(false);
        log.writer.append_compression(7, &mut log.bytes);
        let reason = Corruption::CompressionNotFirst;
        assert_eq!(log.read(Finality::Growing).1, Read::Corrupt { at: 11, reason });
    }
}

/// What the table in the facts about RocksDB asks for beyond its own tests.
mod tail {
    use super::*;

    #[test]
    fn zeros_to_the_end_are_a_clean_end_and_data_later_written_there_is_read() {
        both(|mut log| {
            log.write(b"foo");
            let at = log.bytes.len();
            let mut preallocated = log.bytes.clone();
            preallocated.resize(5 * BLOCK, 0);
            let void_bytes = (preallocated.len() - at) as u64;
            let mut reader = LogReader::new(LogKind::Wal(NUMBER));
            let last = reader.read_all(&preallocated, Finality::Growing).last();
            assert_eq!(last, Some(Read::End { at: at as u64, void_bytes, why: Stop::Zeros }));
            log.write(&big("bar", 2 * BLOCK));
            preallocated[..log.bytes.len()].copy_from_slice(&log.bytes);
            assert!(matches!(reader.read(&preallocated[at..], Finality::Growing), Read::Record { .. }));
        });
    }

    #[test]
    fn a_block_of_zeros_before_more_records_is_a_hole() {
        let mut log = Log::new(false);
        (0..10_000).for_each(|i| log.write(format!("record {i}").as_bytes()));
        log.bytes[BLOCK..2 * BLOCK].fill(0);
        let (_, last) = log.read(Finality::Growing);
        // A record crosses the block's start, so the hole shows inside a record or at the block's start.
        assert!(
            matches!(last, Read::Corrupt { at, reason: Corruption::Hole { valid_at } }
                if at == BLOCK as u64 && valid_at == 2 * BLOCK as u64),
            "{last:?}"
        );
    }

    #[test]
    fn zeros_inside_a_block_before_more_records_are_a_hole() {
        let mut log = Log::new(false);
        (0..100).for_each(|i| log.write(format!("record {i}").as_bytes()));
        log.bytes[30..500].fill(0);
        assert!(matches!(log.read(Finality::Growing).1, Read::Corrupt { reason: Corruption::Hole { .. }, .. }));
    }

    #[test]
    fn damage_inside_the_last_block_is_corruption_when_valid_records_follow() {
        let mut log = Log::new(false);
        (0..100).for_each(|i| log.write(format!("record {i}").as_bytes()));
        for byte in [0, 4, 5, 6, 9] {
            let mut damaged = log.bytes.clone();
            damaged[byte] ^= 0x40;
            let (payloads, last) = read(LogKind::Wal(NUMBER), &damaged, Finality::Final);
            assert!(payloads.is_empty());
            assert!(matches!(last, Read::Corrupt { at: 0, .. }), "byte {byte}: {last:?}");
            // A length that reaches beyond the file may still be a record that is being written.
            if byte != 5 {
                assert_eq!(read(LogKind::Wal(NUMBER), &damaged, Finality::Growing).1, last);
            }
        }
    }

    /// A value may itself be a piece of a log, and a torn write of it is still a torn write.
    #[test]
    fn a_torn_record_that_contains_a_log_is_torn() {
        let mut inner = Log::new(false);
        (0..100).for_each(|i| inner.write(format!("record {i}").as_bytes()));
        let mut log = Log::new(false);
        log.write(b"before");
        let at = log.bytes.len() as u64;
        log.write(&inner.bytes);
        let len = log.bytes.len();
        log.bytes[len - 200..].fill(0);
        let last = log.read(Finality::Final).1;
        assert_eq!(last, Read::End { at, void_bytes: len as u64 - at, why: Stop::ChecksumMismatch });
    }

    #[test]
    fn an_older_logs_first_record_is_the_end_before_anything_is_written() {
        let mut file = Log::new(true);
        (0..5000).for_each(|_| file.write(b"xxxxxxxxxxxxxxxx"));
        for finality in [Finality::Growing, Finality::Final] {
            let (payloads, last) = read(LogKind::Wal(FileNumber::new(124)), &file.bytes, finality);
            let void_bytes = file.bytes.len() as u64;
            let why = Stop::OlderRecord { low32: 123 };
            assert_eq!((payloads.len(), last), (0, Read::End { at: 0, void_bytes, why }));
        }
    }

    #[test]
    fn log_numbers_beyond_32_bits_are_compared_by_their_low_half() {
        let number = FileNumber::new((7 << 32) + 5);
        let (mut writer, mut bytes) = (LogWriter::recyclable(number), Vec::new());
        writer.append(b"foo", &mut bytes);
        assert_eq!(read(LogKind::Wal(number), &bytes, Finality::Growing).0, [b"foo"]);
        assert_eq!(bytes[7..11], [5, 0, 0, 0]);
    }

    #[test]
    fn a_legacy_log_that_turns_recyclable_is_corrupt_and_the_reverse_is_stale() {
        let (mut legacy, mut recyclable) = (Log::new(false), Log::new(true));
        legacy.write(b"foo");
        recyclable.write(b"foo");
        let mixed = [&legacy.bytes[..], &recyclable.bytes].concat();
        let (payloads, last) = read(LogKind::Wal(NUMBER), &mixed, Finality::Growing);
        assert_eq!((payloads.len(), last), (1, Read::Corrupt { at: 10, reason: Corruption::MixedFraming }));
        let mixed = [&recyclable.bytes[..], &legacy.bytes].concat();
        let (payloads, last) = read(LogKind::Wal(NUMBER), &mixed, Finality::Growing);
        assert_eq!((payloads.len(), last), (1, Read::End { at: 14, void_bytes: 10, why: Stop::StaleBytes }));
    }

    #[test]
    fn an_empty_first_fragment_at_a_blocks_end_may_be_followed_by_a_whole_record() {
        let mut log = Log::new(false);
        log.write(&big("x", BLOCK - 14));
        let mut end = Log::new(false);
        end.write(b"");
        end.set_type(0, RecordType::First, RecordType::RecyclableFirst);
        end.fix_checksum(0, 0, false);
        let mut next = Log::new(false);
        next.write(b"whole");
        let bytes = [log.bytes, end.bytes, next.bytes].concat();
        let (payloads, last) = read(LogKind::Wal(NUMBER), &bytes, Finality::Final);
        assert_eq!(payloads[1], b"whole");
        assert!(matches!(last, Read::End { void_bytes: 0, .. }));
    }

    #[test]
    fn metadata_records_are_decoded_and_refused_inside_a_record() {
        both(|mut log| {
            let mut payload = Vec::new();
            for n in [9u64, 4096, 77] {
                payload.extend_from_slice(&n.to_le_bytes());
            }
            let kind =
                if log.recyclable { RecordType::RecyclePredecessorWalInfo } else { RecordType::PredecessorWalInfo };
            log.writer.append_raw_metadata(kind, &payload, &mut log.bytes);
            let end = log.bytes.len() as u64;
            let info = PredecessorWal {
                log_number: FileNumber::new(9),
                size_bytes: 4096,
                last_seqno_recorded: SequenceNumber::new(77),
            };
            let mut reader = LogReader::new(LogKind::Wal(NUMBER));
            let metadata = Metadata::Predecessor(info);
            assert_eq!(reader.read(&log.bytes, Finality::Growing), Read::Metadata { start: 0, end, metadata });

            log.writer.append_raw_metadata(kind, b"short", &mut log.bytes);
            let reason = Corruption::MalformedMetadata { record_type: kind.to_byte(), len: 5 };
            assert_eq!(log.read(Finality::Growing).1, Read::Corrupt { at: end, reason });
        });
        both(|mut log| {
            log.write(b"foo");
            let at = log.bytes.len() as u64;
            log.timestamp_sizes(&[(1, 8)]);
            log.set_type(0, RecordType::First, RecordType::RecyclableFirst);
            log.fix_checksum(0, 3, log.recyclable);
            let reason = Corruption::MetadataInsideRecord { started_at: 0 };
            assert_eq!(log.read(Finality::Growing).1, Read::Corrupt { at, reason });
        });
    }

    #[test]
    fn a_repeated_timestamp_size_is_refused() {
        both(|mut log| {
            log.timestamp_sizes(&[(1, 8)]);
            let at = log.bytes.len() as u64;
            log.timestamp_sizes(&[(1, 8)]);
            let reason = Corruption::TimestampSizes { column_family: ColumnFamilyId::new(1) };
            assert_eq!(log.read(Finality::Growing).1, Read::Corrupt { at, reason });
        });
    }

    #[test]
    fn a_record_over_the_limit_is_refused_before_it_is_complete() {
        let mut log = Log::new(false);
        log.write(&big("x", 300_000));
        let mut reader = LogReader::new(LogKind::Wal(NUMBER)).with_record_limit(100_000);
        let answer = reader.read(&log.bytes[..200_000], Finality::Growing);
        assert_eq!(answer, Read::Corrupt { at: 0, reason: Corruption::TooLarge { limit: 100_000 } });
    }

    #[test]
    fn single_fragments_are_borrowed() {
        let mut log = Log::new(false);
        log.write(b"foo");
        let mut reader = LogReader::new(LogKind::Wal(NUMBER));
        assert!(matches!(
            reader.read(&log.bytes, Finality::Growing),
            Read::Record { payload: Cow::Borrowed(_), start: 0, end: 10 }
        ));
    }

    /// Fragments that were checked while the record was incomplete are checked again when it is complete.
    #[test]
    fn bytes_that_change_between_two_calls_are_not_believed() {
        let mut log = Log::new(false);
        log.write(&big("foo", 100_000));
        let mut reader = LogReader::new(LogKind::Wal(NUMBER));
        assert!(matches!(reader.read(&log.bytes[..80_000], Finality::Growing), Read::Incomplete { .. }));
        let mut changed = log.bytes.clone();
        changed[1000] ^= 1;
        let answer = reader.read(&changed, Finality::Growing);
        assert!(matches!(answer, Read::Corrupt { at: 0, reason: Corruption::ChecksumMismatch { .. } }), "{answer:?}");
        assert!(matches!(reader.read(&log.bytes, Finality::Growing), Read::Record { .. }));
    }
}

mod properties {
    use super::*;

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let size = prop_oneof![4 => 0usize..300, 1 => 0usize..100_000, 1 => 32_700usize..32_800];
        prop::collection::vec((any::<u8>(), size).prop_map(|(b, n)| vec![b; n]), 0..30)
    }

    fn written(recyclable: bool, compressed: bool, payloads: &[Vec<u8>]) -> Log {
        let mut log = if compressed { Log::compressed(recyclable) } else { Log::new(recyclable) };
        payloads.iter().for_each(|p| log.write(p));
        log
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However the file grows and however often the reader is restarted: every record, once, in order.
        #[test]
        fn any_growth_gives_the_same_records(
            recyclable: bool, compressed: bool, payloads in payloads(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12), restart: bool,
        ) {
            let log = written(recyclable, compressed, &payloads);
            let mut ends: Vec<usize> = cuts.iter().map(|c| c.index(log.bytes.len() + 1)).collect();
            ends.push(log.bytes.len());
            ends.sort_unstable();
            let mut reader = LogReader::new(LogKind::Wal(NUMBER));
            let mut read = Vec::new();
            let mut position = 0;
            for end in ends {
                if restart {
                    let state = serde_json::to_string(reader.state()).unwrap();
                    reader = LogReader::resume(LogKind::Wal(NUMBER), serde_json::from_str(&state).unwrap());
                }
                let at = usize::try_from(reader.offset()).unwrap();
                for answer in reader.read_all(&log.bytes[at..end], Finality::Growing) {
                    match answer {
                        Read::Record { start, end, payload } => {
                            prop_assert!(start >= position && end > start);
                            position = end;
                            read.push(payload.into_owned());
                        }
                        Read::Metadata { end, .. } => position = end,
                        Read::End { at, .. } | Read::Incomplete { at, .. } => prop_assert_eq!(at, position),
                        Read::Corrupt { at, reason } => prop_assert!(false, "{} at {}", reason, at),
                    }
                }
            }
            prop_assert_eq!(read, payloads);
        }

        /// A file cut anywhere: exactly the records that are whole, and never corruption.
        #[test]
        fn a_cut_leaves_the_whole_records(
            recyclable: bool, compressed: bool, payloads in payloads(), cut in any::<prop::sample::Index>(),
        ) {
            let log = written(recyclable, compressed, &payloads);
            let cut = cut.index(log.bytes.len() + 1);
            for finality in [Finality::Growing, Finality::Final] {
                let (read, last) = read(LogKind::Wal(NUMBER), &log.bytes[..cut], finality);
                prop_assert_eq!(&read[..], &payloads[..read.len()]);
                prop_assert!(!matches!(last, Read::Corrupt { .. }), "{:?}", last);
                if let Read::End { at, void_bytes, .. } = last {
                    prop_assert_eq!(at + void_bytes, cut as u64);
                }
            }
        }

        /// A recycled file that is being overwritten: the new log's whole records, whatever is left of the old one.
        #[test]
        fn a_recycled_file_gives_only_the_new_logs_records(
            old in payloads(), new in payloads(), cut in any::<prop::sample::Index>(), compressed: bool,
        ) {
            let number = FileNumber::new(200);
            let old = written(true, compressed, &old);
            let (mut writer, mut bytes, mut ends) = (LogWriter::recyclable(number), Vec::new(), Vec::new());
            for payload in &new {
                writer.append(payload, &mut bytes);
                ends.push(bytes.len());
            }
            let cut = cut.index(bytes.len() + 1);
            let full = bytes.clone();
            bytes.truncate(cut);
            if let Some(rest) = old.bytes.get(cut..) {
                bytes.extend_from_slice(rest);
            }
            // What is left of the old log can happen to be the rest of a record.
            let whole = ends.iter().filter(|end| bytes.get(..**end) == full.get(..**end)).count();
            // A compression record of the old log is read as the new log's first record only where nothing is
            // written yet; the old log's number then stops the reader.
            for finality in [Finality::Growing, Finality::Final] {
                let (read, last) = read(LogKind::Wal(number), &bytes, finality);
                prop_assert_eq!(&read[..], &new[..whole]);
                prop_assert!(!matches!(last, Read::Corrupt { .. }), "{:?}", last);
            }
        }

        /// A damaged byte: what is returned is what was written, and records before the damage all are.
        #[test]
        fn damage_never_gives_other_records(
            recyclable: bool, compressed: bool, payloads in payloads(),
            at in any::<prop::sample::Index>(), xor in 1u8..,
        ) {
            let mut log = written(recyclable, compressed, &payloads);
            prop_assume!(!log.bytes.is_empty());
            let at = at.index(log.bytes.len());
            log.bytes[at] ^= xor;
            for finality in [Finality::Growing, Finality::Final] {
                let (read, last) = log.read(finality);
                prop_assert_eq!(&read[..], &payloads[..read.len()]);
                if let (Finality::Final, false, Read::End { void_bytes: 0, .. }) = (finality, recyclable, &last) {
                    // Only a byte without meaning (a block's trailer) leaves everything as it was.
                    prop_assert_eq!(read.len(), payloads.len());
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), manifest: bool) {
            let kind = if manifest { LogKind::Manifest } else { LogKind::Wal(NUMBER) };
            let _ = read(kind, &bytes, Finality::Growing);
            let _ = read(kind, &bytes, Finality::Final);
        }
    }
}
