//! Golden files of seven RocksDB versions, and what happens when they are damaged.
//!
//! `testdata/rocksdb/*/expected.txt` was written by an independent decoder (`testdata/make/list.py`).

use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf};

use super::{
    describe::{ManifestDescriber, Operations, WalDescriber},
    file_name::{self, FileKind},
    log_reader::{Finality, LogKind, LogReader, LogState, Metadata, Read},
    log_writer::LogWriter,
    manifest::{Change, ManifestModel},
    options_file::OptionsFile,
    version_edit::VersionEdit,
    write_batch::{Op, WriteBatch, WriteBatchBuilder},
};
use crate::ids::FileNumber;

/// A database's files, by name.
type Files = BTreeMap<String, Vec<u8>>;

fn golden() -> Vec<(String, Files)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata/rocksdb");
    let mut databases: Vec<_> = fs::read_dir(&root)
        .unwrap_or_else(|e| panic!("{}: {e}", root.display()))
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| {
            let files = fs::read_dir(entry.path()).unwrap().map(|file| {
                let file = file.unwrap();
                (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())
            });
            (entry.file_name().into_string().unwrap(), files.collect())
        })
        .collect();
    databases.sort();
    assert!(databases.len() >= 12, "only {} golden databases", databases.len());
    databases
}

fn database(name: &str) -> Files {
    golden().into_iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no golden database {name}")).1
}

fn log_kind(name: &str) -> Option<LogKind> {
    match file_name::parse(name)? {
        FileKind::Wal(number) => Some(LogKind::Wal(number)),
        FileKind::Manifest(_) => Some(LogKind::Manifest),
        _ => None,
    }
}

/// Whole records of a log: start, end, payload.
fn records(kind: LogKind, bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    LogReader::new(kind)
        .read_all(bytes, Finality::Final)
        .filter_map(|answer| match answer {
            Read::Record { start, end, payload } => Some((start, end, payload.into_owned())),
            _ => None,
        })
        .collect()
}

/// The same text that `list.py` writes.
fn listing(files: &Files) -> String {
    let mut out = String::new();
    for (name, bytes) in files {
        let Some(kind) = log_kind(name) else { continue };
        writeln!(out, "== {name}").unwrap();
        let mut reader = LogReader::new(kind);
        let mut at = 0;
        for answer in reader.read_all(bytes, Finality::Final) {
            match answer {
                Read::Record { start, end, payload } => {
                    let text = match kind {
                        LogKind::Wal(_) => batch(&payload),
                        LogKind::Manifest => edit(&payload),
                    };
                    let word = if kind == LogKind::Manifest { "edit" } else { "batch" };
                    writeln!(out, "{word} {start} {end} {text}").unwrap();
                    at = end;
                }
                Read::Metadata { start, end, metadata } => {
                    writeln!(out, "metadata {start} {end} {}", metadata_bytes(&metadata, &bytes[start as usize..]))
                        .unwrap();
                    at = end;
                }
                Read::End { at: end, void_bytes, .. } => {
                    assert_eq!(end, at);
                    writeln!(out, "end {end} void={void_bytes}").unwrap();
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
    out
}

fn metadata_bytes(metadata: &Metadata, record: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let payload = match metadata {
        Metadata::Compression(_) => 7u32.to_le_bytes().to_vec(),
        Metadata::TimestampSizes(sizes) => {
            sizes.iter().flat_map(|(cf, n)| [&cf.get().to_le_bytes()[..], &n.to_le_bytes()].concat()).collect()
        }
        Metadata::Predecessor(p) => [p.log_number.get(), p.size_bytes, p.last_seqno_recorded.get()]
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect(),
        Metadata::Ignorable { .. } => panic!("no golden file has one"),
    };
    format!("type={} {}", record[6], hex(&payload))
}

fn batch(payload: &[u8]) -> String {
    let batch = WriteBatch::parse(payload).unwrap();
    batch.scan().unwrap();
    let mut text = format!("seq={} count={} bytes={}", batch.sequence(), batch.count(), payload.len());
    for op in batch.ops() {
        let op = op.unwrap();
        let cf = op.column_family().map_or(0, |cf| cf.get());
        let tag = |short: u8, long: u8| if cf == 0 { short } else { long };
        let (tag, sizes) = match op {
            Op::Put { key, value, .. } => (tag(1, 5), vec![key.len(), value.len()]),
            Op::Delete { key, .. } => (tag(0, 4), vec![key.len()]),
            Op::SingleDelete { key, .. } => (tag(7, 8), vec![key.len()]),
            Op::Merge { key, operand, .. } => (tag(2, 6), vec![key.len(), operand.len()]),
            Op::DeleteRange { begin, end, .. } => (tag(0x0f, 0x0e), vec![begin.len(), end.len()]),
            Op::PutEntity { key, entity, .. } => (tag(0x16, 0x17), vec![key.len(), entity.len()]),
            Op::TimedPut { key, value, .. } => (tag(0x18, 0x19), vec![key.len(), value.len() + 8]),
            Op::BlobIndex { key, index, .. } => (tag(0x11, 0x10), vec![key.len(), index.len()]),
            Op::LogData { blob } => (3, vec![blob.len()]),
            Op::Noop => (0x0d, vec![]),
            Op::BeginPrepare { policy } => ([0x09, 0x12, 0x13][policy as usize], vec![]),
            Op::EndPrepare { xid } => (0x0a, vec![xid.len()]),
            Op::Commit { xid } => (0x0b, vec![xid.len()]),
            Op::CommitWithTimestamp { xid, timestamp } => (0x15, vec![timestamp.len(), xid.len()]),
            Op::Rollback { xid } => (0x0c, vec![xid.len()]),
        };
        let sizes: Vec<_> = sizes.iter().map(usize::to_string).collect();
        write!(text, " {tag:02x}:{cf}:{}", sizes.join("+")).unwrap();
    }
    text
}

fn edit(payload: &[u8]) -> String {
    fn number(words: &mut Vec<String>, name: &str, value: Option<u64>) {
        words.extend(value.map(|value| format!("{name}={value}")));
    }
    fn or_dash<T: ToString>(value: Option<T>) -> String {
        value.map_or("-".into(), |v| v.to_string())
    }
    let edit = VersionEdit::decode(payload).unwrap();
    let mut words = Vec::new();
    let text = |name: &str, value: Option<&[u8]>| value.map(|v| format!("{name}={}", String::from_utf8_lossy(v)));
    words.extend(text("comparator", edit.comparator));
    words.extend(text("add", edit.column_family_add));
    words.extend(text("db-id", edit.db_id));
    number(&mut words, "log", edit.log_number.map(|n| n.get()));
    number(&mut words, "next", edit.next_file_number.map(|n| n.get()));
    number(&mut words, "seq", edit.last_sequence.map(|n| n.get()));
    number(&mut words, "prev", edit.prev_log_number.map(|n| n.get()));
    number(&mut words, "min-log", edit.min_log_number_to_keep.map(|n| n.get()));
    number(&mut words, "max-cf", edit.max_column_family.map(|n| u64::from(n.get())));
    number(&mut words, "group", edit.in_atomic_group.map(u64::from));
    words.extend(edit.deleted_files.iter().map(|d| format!("delete={}:{}", d.level, d.number)));
    for file in &edit.new_files {
        words.push(format!(
            "new={}:{}:{}:{}:{}:{}:{}:{}",
            file.level,
            file.number,
            file.file_size,
            file.smallest_seqno,
            file.largest_seqno,
            or_dash(file.unique_id),
            or_dash(file.epoch_number),
            or_dash(file.oldest_blob_file_number),
        ));
        number(&mut words, "min-log-hack", file.min_log_number_to_keep.map(|n| n.get()));
    }
    words.extend(edit.column_family_drop.then(|| "drop".into()));
    let blobs = edit.blob_file_additions.iter();
    words.extend(blobs.map(|b| format!("blob={}:{}:{}", b.number, b.total_blob_count, b.total_blob_bytes)));
    let garbage = edit.blob_file_garbages.iter();
    words.extend(garbage.map(|b| format!("garbage={}:{}:{}", b.number, b.garbage_blob_count, b.garbage_blob_bytes)));
    words.extend(edit.wal_additions.iter().map(|w| format!("wal={}:{}", w.number, or_dash(w.synced_size))));
    number(&mut words, "wals-below", edit.wal_deletion.map(|n| n.get()));
    words.sort();
    format!("cf={} {}", edit.column_family, words.join(" "))
}

#[test]
fn every_record_of_every_version_is_what_an_independent_decoder_found() {
    for (name, files) in golden() {
        let expected = String::from_utf8(files["expected.txt"].clone()).unwrap();
        assert!(expected.contains("batch ") && expected.contains("edit "), "{name}: an empty listing proves nothing");
        for (ours, theirs) in listing(&files).lines().zip(expected.lines()) {
            assert_eq!(ours, theirs, "{name}");
        }
        assert_eq!(listing(&files).lines().count(), expected.lines().count(), "{name}");
    }
}

#[test]
fn records_written_again_are_the_same_bytes() {
    for (name, files) in golden() {
        for (file, bytes) in &files {
            let Some(kind) = log_kind(file) else { continue };
            let mut reader = LogReader::new(kind);
            let mut writer = match kind {
                LogKind::Wal(number) if bytes.get(6).is_some_and(|t| (5..=8).contains(t)) => {
                    LogWriter::recyclable(number)
                }
                _ => LogWriter::new(0),
            };
            let (mut out, mut compressed) = (Vec::new(), false);
            for answer in reader.read_all(bytes, Finality::Final) {
                match answer {
                    Read::Record { payload, .. } => writer.append(&payload, &mut out),
                    Read::Metadata { .. } => compressed = true,
                    _ => {}
                }
            }
            if !compressed {
                assert_eq!(out, bytes[..out.len()], "{name}/{file}");
                assert_eq!(out.len() as u64, reader.offset(), "{name}/{file}");
            }
        }
    }
}

#[test]
fn batches_and_edits_encode_to_the_bytes_that_they_were_decoded_from() {
    for (name, files) in golden() {
        for (file, bytes) in &files {
            let Some(kind) = log_kind(file) else { continue };
            for (start, _, payload) in records(kind, bytes) {
                if kind == LogKind::Manifest {
                    let edit = VersionEdit::decode(&payload).unwrap();
                    let again = edit.encode();
                    assert_eq!(VersionEdit::decode(&again).unwrap(), edit, "{name}/{file} at {start}");
                    // Later versions write the parts of a file's description in another order than earlier ones.
                    if name.starts_with("11.8") || edit.new_files.is_empty() {
                        assert_eq!(again, payload, "{name}/{file} at {start}");
                    }
                } else {
                    let batch = WriteBatch::parse(&payload).unwrap();
                    let mut builder = WriteBatchBuilder::new(batch.sequence());
                    for op in batch.ops() {
                        builder.push(&op.unwrap());
                    }
                    assert_eq!(builder.finish(), payload, "{name}/{file} at {start}");
                }
            }
        }
    }
}

/// The state that a MANIFEST amounts to names files that were really there, with their real sizes.
#[test]
fn live_files_are_those_in_the_directory() {
    for (name, files) in golden() {
        let manifest = file_name::parse_current(&files["CURRENT"]).unwrap();
        let bytes = &files[&file_name::manifest(manifest)];
        let mut model = ManifestModel::new(manifest);
        for (_, end, payload) in records(LogKind::Manifest, bytes) {
            model.apply(&payload, end).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        assert_eq!(model.applied_to(), bytes.len() as u64, "{name}");
        let listed = String::from_utf8(files["files.txt"].clone()).unwrap();
        let listed: BTreeMap<_, u64> = listed
            .lines()
            .filter_map(|l| l.split_once(' '))
            .map(|(n, size)| (n.to_owned(), size.parse().unwrap()))
            .collect();
        for (_, number, file) in model.live_files() {
            assert_eq!(listed.get(&file_name::sst(number)), Some(&file.size), "{name}: table file {number}");
        }
        for (_, number, _) in model.live_blob_files() {
            assert!(listed.contains_key(&file_name::blob(number)), "{name}: blob file {number}");
        }
        let w0 = model.first_wal_needed(super::manifest::TwoPhase::Off);
        let newest = files.keys().filter_map(|n| log_kind(n)).max_by_key(|k| k.header_number());
        assert!(newest.is_some_and(|k| u64::from(k.header_number()) >= w0.get()), "{name}: WAL {w0} is needed");
        // `write_dbid_to_manifest` is the default in later versions only.
        assert_eq!(model.db_id().is_some(), !["6.", "7.", "8."].iter().any(|v| name.starts_with(v)), "{name}");
        if let Some(id) = model.db_id() {
            assert_eq!(file_name::parse_identity(&files["IDENTITY"]), Ok(id), "{name}");
        }
    }
}

#[test]
fn options_of_every_version_are_read_and_agree_with_the_manifest() {
    for (name, files) in golden() {
        let (file, text) = files.iter().find(|(n, _)| n.starts_with("OPTIONS-")).unwrap();
        let text = std::str::from_utf8(text).unwrap();
        let options = OptionsFile::parse(text).unwrap_or_else(|e| panic!("{name}/{file}: {e}"));
        let db = options.db().unwrap_or_else(|e| panic!("{name}/{file}: {e}"));
        assert_eq!(db.rocksdb_version.to_string(), name.split('-').next().unwrap());
        assert_eq!(options.with_db_values(&[]), text);
        assert_eq!((db.wal_dir, db.db_log_dir), (None, None), "{name}: what was not set is not written");
        assert!(!text.contains("db_paths") && !text.contains("cf_paths"), "{name}: these are never written");
        let recycles = name.contains("recycled") || name.contains("oxigraph");
        assert_eq!(db.recycle_log_file_num.unwrap() > 0, recycles, "{name}");
        assert_eq!(db.wal_compression.is_some_and(|c| c == "kZSTD"), name.contains("zstd"), "{name}");
        for family in options.column_families() {
            let settings = options.column_family(family).unwrap().unwrap();
            assert!(settings.comparator.is_some() && settings.format_version.is_some(), "{name}: {family}");
        }
    }
}

/// What `shapes.c` did, told apart by the MANIFEST alone.
#[test]
fn the_changes_of_a_real_manifest_are_told_apart() {
    let files = database("11.8.1-manifest");
    let mut model = ManifestModel::new(FileNumber::new(5));
    let mut changes = Vec::new();
    let mut pending = 0;
    for (_, end, payload) in records(LogKind::Manifest, &files["MANIFEST-000005"]) {
        let before = (model.digest(), model.applied_to());
        changes.extend(model.apply(&payload, end).unwrap());
        if model.in_atomic_group() {
            pending += 1;
            assert_eq!((model.digest(), model.applied_to()), before, "a group takes effect at its end");
        }
    }
    assert!(pending > 0, "flushes were atomic groups");
    let count = |matches: fn(&Change) -> bool| changes.iter().filter(|c| matches(c)).count();
    assert_eq!(count(|c| matches!(c, Change::ColumnFamilyAdded { .. })), 2);
    assert_eq!(count(|c| matches!(c, Change::ColumnFamilyDropped { .. })), 1);
    assert_eq!(count(|c| matches!(c, Change::Flush { files, .. } if !files.is_empty())), 9);
    assert_eq!(count(|c| matches!(c, Change::FilesIngested { .. })), 1);
    assert_eq!(count(|c| matches!(c, Change::FilesDropped { level_zero: false, .. })), 1);
    assert_eq!(count(|c| matches!(c, Change::Compaction { .. })), 1);
    assert_eq!(count(|c| matches!(c, Change::FilesMoved { moves, .. } if moves.len() == 3)), 1);
    assert_eq!(count(Change::is_outside_wal), 2);
}

/// What the archiver relies on when a server has been opened again: no edit was missed.
#[test]
fn a_new_manifest_begins_with_what_the_old_one_ended_with() {
    for name in ["7.5.3-reopened", "9.8.4-reopened", "11.8.1-reopened"] {
        let files = database(name);
        let mut manifests: Vec<_> = files
            .keys()
            .filter_map(|n| match file_name::parse(n) {
                Some(FileKind::Manifest(number)) => Some(number),
                _ => None,
            })
            .collect();
        manifests.sort();
        let [before, after] = manifests[..] else { panic!("{name}: {manifests:?}") };
        let edits = |number| records(LogKind::Manifest, &files[&file_name::manifest(number)]);
        let mut old = ManifestModel::new(before);
        for (_, end, payload) in edits(before) {
            old.apply(&payload, end).unwrap();
        }
        let mut new = ManifestModel::new(after);
        let mut equal_at = None;
        let mut events = Vec::new();
        for (_, end, payload) in edits(after) {
            let changes = new.apply(&payload, end).unwrap();
            if equal_at.is_some() {
                events.extend(changes);
            } else if new.digest() == old.digest() {
                equal_at = Some(end);
            }
        }
        assert!(equal_at.is_some_and(|at| at < new.applied_to()), "{name}: the snapshot is found, and edits follow it");
        assert!(
            events.iter().any(|c| matches!(c, Change::Flush { files, .. } if !files.is_empty())),
            "{name}: {events:?}"
        );
        assert!(!events.iter().any(Change::is_outside_wal), "{name}: {events:?}");
        let blobs = |model: &ManifestModel| model.live_blob_files().map(|(cf, n, _)| (cf, n)).collect::<Vec<_>>();
        assert!(blobs(&old).iter().all(|blob| blobs(&new).contains(blob)), "{name}: the same blob files are live");
    }
}

/// A small deterministic generator: the same mutations in every run.
struct Mutations(u64);

impl Mutations {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n.max(1)
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let len = bytes.len();
            let at = self.below(len);
            let span = self.below(40).min(len - at.min(len));
            match self.below(6) {
                0 if len > 0 => bytes[at] ^= 1 << self.below(8),
                1 if len > 0 => bytes[at] = [0, 0x7f, 0x80, 0xff][self.below(4)],
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..at + span)),
                4 => {
                    let copy = bytes[at..at + span].to_vec();
                    let to = self.below(len + 1);
                    bytes.splice(to..to, copy);
                }
                _ => bytes[at..at + span].fill(0xff),
            }
        }
    }
}

/// Every decoder over mutated golden files, also with repaired framing so that the damage reaches the inner decoders.
#[test]
fn no_damage_makes_a_decoder_panic() {
    let mut random = Mutations(0x9e37_79b9_7f4a_7c15);
    let logs: Vec<_> = golden()
        .into_iter()
        .flat_map(|(_, files)| files)
        .filter_map(|(name, bytes)| log_kind(&name).map(|kind| (kind, bytes)))
        .collect();
    let payloads: Vec<_> = logs
        .iter()
        .flat_map(|(kind, bytes)| records(*kind, bytes).into_iter().map(|(_, _, payload)| (*kind, payload)))
        .filter(|(_, payload)| payload.len() < 10_000)
        .collect();
    for round in 0..1500 {
        let (kind, bytes) = &logs[random.below(logs.len())];
        let mut bytes = bytes.clone();
        random.mutate(&mut bytes);
        let finality = if round % 2 == 0 { Finality::Growing } else { Finality::Final };
        let mut reader = LogReader::new(*kind);
        let answers = reader.read_all(&bytes, finality).count();
        assert!(answers <= bytes.len() / 7 + 2);
        let state: LogState = reader.state().clone();
        let rest = &bytes[usize::try_from(state.offset).unwrap()..];
        assert_eq!(
            LogReader::resume(*kind, state).read_all(rest, finality).count(),
            1,
            "reading on gives the same end"
        );
        match kind {
            LogKind::Wal(number) => {
                let mut describer = WalDescriber::new(*number, Operations::Shown);
                while describer.next(&bytes[usize::try_from(describer.offset()).unwrap()..], finality).is_some() {}
            }
            LogKind::Manifest => {
                let mut describer = ManifestDescriber::new(FileNumber::new(1));
                while describer.next(&bytes[usize::try_from(describer.offset()).unwrap()..], finality).is_some() {}
                let _ = serde_json::to_string(&describer.state()).unwrap();
            }
        }
    }
    for _ in 0..20_000 {
        let (kind, payload) = &payloads[random.below(payloads.len())];
        let mut payload = payload.clone();
        random.mutate(&mut payload);
        if *kind == LogKind::Manifest {
            if let Ok(edit) = VersionEdit::decode(&payload) {
                assert_eq!(VersionEdit::decode(&edit.encode()).as_ref(), Ok(&edit), "what is understood survives");
            }
            let _ = ManifestModel::new(FileNumber::new(1)).apply(&payload, 1);
        } else if let Ok(batch) = WriteBatch::parse(&payload) {
            let _ = batch.scan();
        }
    }
    for (_, files) in golden() {
        let (_, text) = files.iter().find(|(n, _)| n.starts_with("OPTIONS-")).unwrap();
        for _ in 0..20 {
            let mut bytes = text.clone();
            random.mutate(&mut bytes);
            if let Ok(options) = OptionsFile::parse(&String::from_utf8_lossy(&bytes)) {
                let _ = (options.db(), options.column_family("default"), options.with_db_values(&[("wal_dir", "x")]));
            }
            let _ = file_name::parse_current(&bytes);
            let _ = file_name::parse_identity(&bytes);
        }
    }
}
