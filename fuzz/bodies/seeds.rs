//! The hand-made part of the corpora.
//!
//! Owns: inputs from `testdata` and edge cases, with the bytes that steer a body in front of them. What fuzzing found is
//! beside them in the corpora; these are told by their names. `PITR_SEEDS=1 cargo test -p pitr-archive --test corpora`
//! writes them anew.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use pitr_archive::{
    ids::{ColumnFamilyId, FileNumber, SequenceNumber},
    keyring::Keyring,
    object_key::ObjectKey,
    rocks::{
        file_name::{self, FileKind},
        log_reader::{Finality, LogKind, LogReader, Read},
        log_writer::LogWriter,
        write_batch::{Op, WriteBatchBuilder, WritePolicy},
    },
    segment::entry::Event,
};

use super::{batch, documents, file, input::put_piece, segment, wal};

/// A seed: its target, its name, its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// Files are cut here: a fuzzer that carries long inputs is slow, and what crosses a block is made by hand below.
const LONGEST: usize = 5 << 10;

/// Every seed, made from the files below `testdata`.
pub fn all(testdata: &Path) -> Vec<Seed> {
    let mut seeds = Vec::new();
    for path in files(&testdata.join("rocksdb")) {
        rocksdb(&path, &mut seeds);
    }
    for kind in ["clear", "sealed"] {
        let root = testdata.join("archive-v1").join(kind);
        for path in files(&root) {
            archive(kind, &root, &path, &mut seeds);
        }
    }
    logs(&mut seeds);
    batches(&mut seeds);
    segments(&mut seeds);
    texts(&mut seeds);
    // Versions of RocksDB that write the same bytes give the same seed.
    let mut seen = HashSet::new();
    seeds.retain(|(target, _, bytes)| seen.insert((*target, bytes.clone())));
    seeds
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found.into_iter().flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap().to_str().unwrap();
    let parent = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
    format!("{parent}-{name}")
}

fn rocksdb(path: &Path, seeds: &mut Vec<Seed>) {
    let Some(kind) = file_name::parse(path.file_name().unwrap().to_str().unwrap()) else { return };
    let bytes = fs::read(path).unwrap();
    let name = name_of(path);
    match kind {
        FileKind::Wal(number) => {
            seeds.push(("wal", name.clone(), log(0, number.get() as u32, 0, 60, &bytes[..bytes.len().min(LONGEST)])));
            batch_pieces(LogKind::Wal(number), &bytes, "batch", &name, seeds);
        }
        FileKind::Manifest(_) => {
            seeds.push(("wal", name.clone(), log(1, 0, 0, 60, &bytes[..bytes.len().min(LONGEST)])));
            batch_pieces(LogKind::Manifest, &bytes, "version_edits", &name, seeds);
        }
        FileKind::Options(_) => {
            let mut seed = Vec::new();
            put_piece(&mut seed, b"/var/lib/db");
            seed.extend_from_slice(&bytes[..bytes.len().min(LONGEST)]);
            seeds.push(("options", name, seed));
        }
        _ => {}
    }
}

/// The payloads of a log's records.
fn batch_pieces(kind: LogKind, bytes: &[u8], target: &'static str, name: &str, seeds: &mut Vec<Seed>) {
    let mut seed = if target == "batch" { vec![batch::COUNTED] } else { Vec::new() };
    for answer in LogReader::new(kind).read_all(bytes, Finality::Final) {
        if let Read::Record { payload, .. } = answer
            && payload.len() < 4096
            && seed.len() < 8192
        {
            put_piece(&mut seed, &payload);
        }
    }
    if seed.len() > 1 {
        seeds.push((target, name.to_owned(), seed));
    }
}

fn log(flags: u8, number: u32, before_block_end: u16, step: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![flags];
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&before_block_end.to_le_bytes());
    out.push(step);
    if flags & wal::RECYCLED != 0 {
        out.extend_from_slice(&((bytes.len() / 2) as u16).to_le_bytes());
    }
    out.extend_from_slice(bytes);
    out
}

/// Every record type, every header form, inside a block and at its end.
fn logs(seeds: &mut Vec<Seed>) {
    let physical = |kind: u8, header: usize, payload: &[u8]| {
        let mut record = vec![0; 4];
        record.extend_from_slice(&(payload.len() as u16).to_le_bytes());
        record.push(kind);
        record.resize(header, 0);
        record.extend_from_slice(payload);
        record
    };
    for kind in [0u8, 1, 2, 3, 4, 9, 10, 12, 130, 132, 200] {
        let payload: &[u8] = match kind {
            9 => &[7, 0, 0, 0],
            10 => &[1, 0, 0, 0, 8, 0],
            130 => &[3; 24],
            _ => b"payload",
        };
        let mut bytes = physical(kind, 7, payload);
        bytes.extend(physical(1, 7, b"after"));
        seeds.push(("wal", format!("type-{kind}"), log(wal::MENDED, 7, 0, 20, &bytes)));
    }
    let fragments: [(&str, &[u8]); 4] = [
        ("fragments", &[5, 6, 7, 8, 5]),
        ("missing-start", &[8, 5]),
        ("missing-end", &[6, 7, 6, 8]),
        ("metadata-inside", &[6, 11, 8]),
    ];
    for (name, kinds) in fragments {
        let long: Vec<u8> = kinds.iter().flat_map(|kind| physical(*kind, 11, b"piece")).collect();
        let short: Vec<u8> = kinds.iter().flat_map(|kind| physical(kind.saturating_sub(4), 7, b"piece")).collect();
        let flags = wal::MENDED | wal::NUMBERED;
        seeds.push(("wal", format!("recyclable-{name}"), log(flags, 7, 0, 20, &long)));
        seeds.push(("wal", format!("legacy-{name}"), log(flags, 7, 0, 20, &short)));
        // What the file held before: the same records of another log, and then others.
        let old: Vec<u8> = [physical(6, 11, b"piece"), vec![5; long.len()]].concat();
        let both = [long.clone(), old[..long.len()].to_vec()].concat();
        seeds.push(("wal", format!("overwritten-{name}"), log(flags | wal::RECYCLED, 7, 0, 20, &both)));
        for before in [6, 10, 30] {
            let name = format!("{name}-{before}-before-a-block");
            seeds.push(("wal", name, log(flags | wal::INSIDE, 7, before, 20, &long)));
        }
    }
    let mut whole = Vec::new();
    let mut writer = LogWriter::recyclable(FileNumber::new(7));
    writer.append_timestamp_sizes(&[(ColumnFamilyId::new(1), 8)], &mut whole);
    writer.append(&[1; 33_000], &mut whole);
    writer.append(b"", &mut whole);
    seeds.push(("wal", "two-blocks".to_owned(), log(0, 7, 0, 200, &whole)));
    let mut zstd = physical(9, 7, &[7, 0, 0, 0]);
    zstd.extend(physical(1, 7, &zstd::bulk::compress(&[5; 5000], 1).unwrap()));
    zstd.extend(physical(1, 7, &zstd::bulk::compress(&vec![0; 2 << 20], 1).unwrap()));
    seeds.push(("wal", "zstd".to_owned(), log(wal::MENDED, 7, 0, 90, &zstd)));
}

/// Every operation, in the default column family and in another, and the life of transactions under every policy.
fn batches(seeds: &mut Vec<Seed>) {
    let (key, value) = (b"key".as_slice(), b"value".as_slice());
    let mut all = vec![batch::COUNTED];
    for cf in [ColumnFamilyId::DEFAULT, ColumnFamilyId::new(300)] {
        let mut builder = WriteBatchBuilder::new(SequenceNumber::new(5));
        for op in [
            Op::Put { cf, key, value },
            Op::Delete { cf, key },
            Op::SingleDelete { cf, key },
            Op::Merge { cf, key, operand: value },
            Op::DeleteRange { cf, begin: key, end: value },
            Op::PutEntity { cf, key, entity: value },
            Op::TimedPut { cf, key, value, unix_time: 9 },
            Op::BlobIndex { cf, key, index: value },
            Op::LogData { blob: value },
            Op::Noop,
        ] {
            builder.push(&op);
        }
        put_piece(&mut all, &builder.finish());
    }
    seeds.push(("batch", "every-operation".to_owned(), all));
    let cf = ColumnFamilyId::DEFAULT;
    let put = Op::Put { cf, key, value };
    for policy in [WritePolicy::WriteCommitted, WritePolicy::WritePrepared, WritePolicy::WriteUnprepared] {
        let mut seed = vec![batch::COUNTED];
        let begin = Op::BeginPrepare { policy };
        let mut add = |ops: &[Op<'_>]| {
            let mut builder = WriteBatchBuilder::new(SequenceNumber::new(5));
            for op in ops {
                builder.push(op);
            }
            put_piece(&mut seed, &builder.finish());
        };
        add(&[begin, put, put, Op::Noop, put, Op::EndPrepare { xid: b"a" }]);
        add(&[begin, put, Op::EndPrepare { xid: b"b" }, Op::Noop]);
        add(&[put, put, Op::Noop]);
        add(&[Op::Commit { xid: b"a" }]);
        add(&[put, Op::CommitWithTimestamp { xid: b"unseen", timestamp: b"12345678" }]);
        add(&[Op::Rollback { xid: b"b" }]);
        seeds.push(("batch", format!("{policy:?}").to_lowercase(), seed));
    }
}

/// Objects of an archive of format version 1, as stored and (where they are clear) as the JSON in them.
fn archive(kind: &str, root: &Path, path: &Path, seeds: &mut Vec<Seed>) {
    let key = path.strip_prefix(root).unwrap().to_str().unwrap();
    let name = format!("{kind}-{}", key.replace('/', "-"));
    let bytes = fs::read(path).unwrap();
    let folder = key.split('/').next().unwrap_or_default();
    let target = match folder {
        "archive.json" => {
            seeds.push(("identity", name, [&[0, 9, 0, 1], bytes.as_slice()].concat()));
            return;
        }
        "segments" => {
            seeds.push(("segment", name, [&[segment::STORED], bytes.as_slice()].concat()));
            return;
        }
        "files" => {
            let flags = file::STORED | if kind == "sealed" { file::SEALED } else { 0 };
            seeds.push(("file", name, [&[flags, 0, 0, 0, 0, 1], bytes.as_slice()].concat()));
            return;
        }
        "manifests" => "manifest",
        "tags" => "tag",
        "bases" => "base",
        _ => "document",
    };
    let which: &[u8] = match folder {
        "timelines" => &[0],
        "epochs" => &[1],
        "boundaries" => &[2],
        _ => &[],
    };
    let sealed = if kind == "sealed" { documents::SEALED } else { 0 };
    let stored = [which, &[documents::STORED | sealed, 0, 0, 1], &bytes].concat();
    seeds.push((target, format!("stored-{name}"), stored));
    if let Some(json) = json(key, &bytes) {
        for sealed in [0, documents::SEALED] {
            let seed = [which, &[sealed, 90, 0, 1], &json].concat();
            seeds.push((target, format!("json-{sealed}-{name}"), seed));
        }
        if folder == "epochs" {
            seeds.push(("identity", name, [&[2, 0, 0, 1], json.as_slice()].concat()));
        }
    }
}

fn json(key: &str, object: &[u8]) -> Option<Vec<u8>> {
    use pitr_archive::{
        catalog::envelope::{DocumentHeader, Kind},
        layout::Family,
    };
    let kinds = [Kind::Timeline, Kind::Epoch, Kind::Manifest, Kind::Boundary, Kind::Base, Kind::Tag];
    let key = ObjectKey::parse(key)?;
    let header = kinds.into_iter().find_map(|kind| DocumentHeader::decode(kind, &key, object).ok())?;
    let none = Keyring::none();
    let cipher = none.cipher_to_read(Family::Object, header.sealed, header.epoch, &key, &header.salt).ok()?;
    Some(header.open(&key, &object.to_vec().into(), cipher.as_ref()).ok()?.to_vec())
}

/// One event of every kind, and records among them.
fn segments(seeds: &mut Vec<Seed>) {
    let point = serde_json::json!({ "file": 5, "offset": 99 });
    let interval = serde_json::json!({ "lo": 1, "hi": 2 });
    let events = [
        serde_json::json!({ "kind": "run-started", "run": 0, "first_wal": 4, "db_id": "id" }),
        serde_json::json!({ "kind": "session-started", "session": 1, "manifest": point, "last_sequence": 3 }),
        serde_json::json!({ "kind": "wal-started", "wal": 4 }),
        serde_json::json!({ "kind": "wal-ended", "wal": 4, "end": 100, "void_bytes": 2 }),
        serde_json::json!({ "kind": "timestamp-sizes", "wal": 4, "offset": 0, "sizes": [[1, 8]] }),
        serde_json::json!({ "kind": "column-family", "change": "added", "id": 1, "name": "cf", "interval": interval,
            "manifest": point, "edit": "AAAA" }),
        serde_json::json!({ "kind": "interval-closed", "manifest": point, "hi": 3 }),
        serde_json::json!({ "kind": "withdrawn", "from": 1, "to": 2, "evidence": "gone" }),
        serde_json::json!({ "kind": "barrier", "reason": "reuse", "interval": interval, "detail": "why", "noticed": 7 }),
    ];
    let mut pieces = Vec::new();
    let mut plain = vec![segment::PLAIN];
    for event in events {
        let event: Event = serde_json::from_value(event).unwrap();
        plain.extend(event.encode().unwrap());
        put_piece(&mut pieces, &serde_json::to_vec(&event).unwrap());
        put_piece(&mut pieces, b"\0a record");
    }
    seeds.push(("segment", "every-event".to_owned(), plain));
    for mode in [segment::CLEAR, segment::SEALED] {
        for (name, changes) in [("unchanged", &[0][..]), ("plain", &[1, 0, 9, 0, 1]), ("footer", &[1, 1, 60, 0, 3])] {
            let seed = [&[mode], changes, &[3, 0], &pieces].concat();
            seeds.push(("segment", format!("built-{mode}-{name}"), seed));
        }
        let header = [&[mode, 2, 2, 17, 0, 4, 2, 160, 0, 1, 3, 0], pieces.as_slice()].concat();
        seeds.push(("segment", format!("built-{mode}-header"), header));
    }
    for (name, flags) in [("long", file::LONG), ("cut", file::CUT), ("short", 0)] {
        for sealed in [0, file::SEALED] {
            let seed = [&[flags | sealed, 70, 0, 0, 0, 1], b"the bytes of a table file".as_slice()].concat();
            seeds.push(("file", format!("{name}-{sealed}"), seed));
        }
    }
    let marker = serde_json::json!({ "version": 1, "marker": "07".repeat(16), "archive": "08".repeat(16), "timeline": 1,
        "boundary": 3, "sequence": 4, "created": 5 });
    seeds.push(("identity", "marker".to_owned(), [&[1, 0, 0, 1], marker.to_string().as_bytes()].concat()));
    let boundary = serde_json::json!({ "version": 1, "archive": "08".repeat(16), "timeline": 1, "ordinal": 3, "first": 9,
        "hash_before": "09".repeat(32), "created": 5, "epoch": 1, "nonce": "07".repeat(16), "later": { "x": [1.5, null] } });
    let boundary = [&[2, 0, 9, 0, 1], boundary.to_string().as_bytes()].concat();
    seeds.push(("document", "boundary".to_owned(), boundary));
}

fn texts(seeds: &mut Vec<Seed>) {
    let kinds: [(&str, &[&str]); 6] = [
        (
            "url",
            &[
                "s3://bucket/prefix?region=eu-west-1&endpoint=http%3A%2F%2F127.0.0.1:9000",
                "file:///var/backups/db",
                "./db",
                "azblob://container/p?account_name=x",
                "gs://bucket/prefix",
            ],
        ),
        ("secret", &["s3://~bucket/p", "s3://bucket~", "azblob://~c?sig=x", "s4://~b"]),
        ("key", &["segments/0000000001/00000000000000000007.seg", "epochs/00000000000000000001.doc", "a//b"]),
        (
            "time",
            &[
                "2026-11-20T13:33:00Z",
                "2026-11-20 14:33 Europe/Berlin",
                "2026-10-25 02:30",
                "1h 30m ago",
                "@1795527180.25",
                "2026-07-01T14:33:00+02:00[Europe/Berlin]",
            ],
        ),
        ("file", &["000012.log", "MANIFEST-000004", "OPTIONS-000009.dbtmp", "000004.sst.trash"]),
        ("id", &["20261120T133313Z-1f2e3d4c", "before-migration", "18446744073709551615"]),
    ];
    for (which, (name, texts)) in kinds.iter().enumerate() {
        for (number, text) in texts.iter().enumerate() {
            seeds.push(("text", format!("{name}-{number}"), [&[which as u8], text.as_bytes()].concat()));
        }
    }
}
