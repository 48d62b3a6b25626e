//! The archiver's steps against a real database in this process: what is written is what is archived, bases serve from
//! their floor, sessions and changes outside the log are noticed.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use pitr_archive::{
    catalog::archive::Archive,
    clock::{Clock as _, ManualClock, Micros, SystemClock},
    ids::FileNumber,
    random::OsRandom,
    rocks::{
        log_reader::{Finality, LogKind, LogReader, Read},
        log_writer::LogWriter,
        version_edit::{DeletedFile, VersionEdit},
        write_batch::WriteBatch,
    },
    segment::entry::{BarrierReason, Entry, Event},
    store::{local::LocalStore, memory::MemoryStore},
};
use pitr_archiver::{
    Archiver, ArchiverConfig, Parts, Standby,
    control::{self, Answer, Request, TagRequest, Unflushed},
    owner::Done,
};
use rocksdb::{DB, Options};

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options
}

fn database(dir: &Path) -> DB {
    DB::open(&options(), dir.join("db")).unwrap()
}

fn with_families() -> Options {
    let mut options = options();
    options.create_missing_column_families(true);
    options
}

/// The server ends in order and opens its database again.
fn reopened(db: DB, dir: &Path) -> DB {
    drop(db);
    database(dir)
}

async fn archive(store: &MemoryStore) -> Archive {
    Archive::open_or_create(Arc::new(store.clone()), None, &SystemClock, &OsRandom).await.unwrap()
}

async fn archiver(dir: &Path, store: &MemoryStore) -> Archiver {
    let config = ArchiverConfig::new(dir.join("db"));
    Archiver::open(config, archive(store).await, Parts::system()).await.unwrap()
}

/// Every entry of the archive in order.
async fn entries(store: &MemoryStore) -> Vec<Entry> {
    let archive = archive(store).await;
    let timeline = archive.timelines().await.unwrap()[0].timeline;
    let mut all = Vec::new();
    for (ordinal, _) in archive.list_segments(timeline, None).await.unwrap() {
        let segment = archive.read_segment(timeline, ordinal).await.unwrap();
        for entry in segment.entries() {
            all.push(entry.unwrap().entry);
        }
    }
    all
}

fn sequences(entries: &[Entry]) -> Vec<u64> {
    entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Record(record) => Some(WriteBatch::parse(&record.payload).unwrap().sequence().get()),
            Entry::Event(_) => None,
        })
        .collect()
}

fn barriers(entries: &[Entry]) -> Vec<BarrierReason> {
    entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Event(Event::Barrier { reason, .. }) => Some(*reason),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn every_write_is_archived_in_order_through_flushes_and_restarts_of_the_archiver() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let db = database(dir.path());
    db.put("a", "1").unwrap();
    let mut one = archiver(dir.path(), &store).await;
    one.catch_up().await.unwrap();
    for i in 0..50 {
        db.put(format!("k{i}"), "v").unwrap();
        if i % 10 == 9 {
            db.flush().unwrap();
        }
        if i % 7 == 0 {
            one.poll().unwrap();
            one.ship().await.unwrap();
        }
        if i == 25 {
            // As if it had been killed: nothing is shipped, nothing closed.
            drop(one);
            one = archiver(dir.path(), &store).await;
        }
    }
    let tag = one
        .tag(&TagRequest {
            name: "end".into(),
            note: String::new(),
            unflushed: Unflushed::Refuse,
            expires: None,
            group: None,
        })
        .await
        .unwrap();
    assert_eq!(tag.position.sequence.get(), 51);
    one.close().await.unwrap();
    let all = entries(&store).await;
    assert_eq!(sequences(&all), (1..=51).collect::<Vec<_>>());
    assert_eq!(barriers(&all), []);
    let archive = archive(&store).await;
    let bases = archive.bases().await.unwrap();
    assert_eq!(bases.len(), 1);
    assert_eq!(bases[0].floor.boundary.get(), 1);
}

/// The server begins a new log while no archiver runs, and deletes it and the one before while the next archiver waits for
/// its archive: by then RocksDB's MANIFEST does not tell any more that there was none between.
#[tokio::test]
async fn a_log_that_began_while_nobody_looked_is_joined_however_long_the_archive_is_away_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let mut db = DB::open_cf(&with_families(), dir.path().join("db"), ["default", "other"]).unwrap();
    let put = |db: &DB, family: &str, key: &str| db.put_cf(&db.cf_handle(family).unwrap(), key, "1").unwrap();
    put(&db, "other", "a");
    let mut first = archiver(dir.path(), &store).await;
    first.catch_up().await.unwrap();
    drop(first);
    // The other family needs the old log still.
    put(&db, "default", "b");
    db.flush_cf(&db.cf_handle("default").unwrap()).unwrap();
    put(&db, "default", "c");
    let waiting = Standby::begin(ArchiverConfig::new(dir.path().join("db")), Parts::system()).unwrap();
    drop(db);
    db = DB::open_cf(&with_families(), dir.path().join("db"), ["default", "other"]).unwrap();
    put(&db, "other", "d");
    let mut second = waiting.join(archive(&store).await).await.map_err(|(_, e)| e).unwrap();
    second.catch_up().await.unwrap();
    let entries = entries(&store).await;
    assert_eq!(barriers(&entries), []);
    assert_eq!(sequences(&entries), [1, 2, 3, 4]);
}

#[tokio::test]
async fn writes_that_are_not_read_yet_are_lacking_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let db = database(dir.path());
    let config = ArchiverConfig { segment_bytes: 1 << 10, ..ArchiverConfig::new(dir.path().join("db")) };
    let mut one = Archiver::open(config, archive(&store).await, Parts::system()).await.unwrap();
    one.catch_up().await.unwrap();
    assert_eq!(one.status().unwrap().oldest_unacknowledged, None);
    let before = SystemClock.now();
    for i in 0..30 {
        db.put(format!("k{i}"), [7; 100_000]).unwrap();
    }
    // One segment of several: the archive has all that was read.
    one.poll().unwrap();
    one.ship().await.unwrap();
    let status = one.status().unwrap();
    assert_eq!(status.unacknowledged_records, 0);
    assert!(status.backlog_bytes > 1_000_000, "{status:?}");
    let oldest = status.oldest_unacknowledged.expect("most of it is lacking");
    assert!(oldest <= before, "nothing was written before {oldest:?} that is lacking");
    one.catch_up().await.unwrap();
    let status = one.status().unwrap();
    assert_eq!((status.oldest_unacknowledged, status.backlog_bytes), (None, 0));
}

#[tokio::test]
async fn writes_behind_a_sign_of_life_that_does_not_arrive_are_lacking() {
    let dir = tempfile::tempdir().unwrap();
    let (place, aside) = (dir.path().join("archive"), dir.path().join("aside"));
    let db = database(dir.path());
    db.put("a", "1").unwrap();
    let store = Arc::new(LocalStore::open(&place, &SystemClock).unwrap());
    let archive = Archive::open_or_create(store, None, &SystemClock, &OsRandom).await.unwrap();
    let mut one = Archiver::open(ArchiverConfig::new(dir.path().join("db")), archive, Parts::system()).await.unwrap();
    one.catch_up().await.unwrap();
    std::fs::rename(&place, &aside).unwrap();
    std::fs::write(&place, "in the way").unwrap();
    one.heartbeat().await.unwrap_err();
    db.put("b", "2").unwrap();
    one.poll().unwrap();
    let status = one.status().unwrap();
    assert!(status.unacknowledged_records == 1 && status.backlog_bytes > 0, "{status:?}");
    assert!(status.oldest_unacknowledged.is_some(), "{status:?}");
}

/// A database that was opened again, with the archiver going on: nothing is left of `keys`, which were written and deleted
/// behind the first record, and their numbers come again.
async fn reopened_lower(dir: &Path, store: &MemoryStore, keys: &[&str]) -> (DB, Archiver) {
    let db = database(dir);
    db.put("a", "1").unwrap();
    let mut one = archiver(dir, store).await;
    one.catch_up().await.unwrap();
    for key in keys {
        db.put(key, "1").unwrap();
        let mut batch = rocksdb::WriteBatch::default();
        batch.single_delete(key);
        db.write(batch).unwrap();
    }
    one.poll().unwrap();
    db.flush().unwrap();
    let db = reopened(db, dir);
    assert_eq!(db.latest_sequence_number(), 1, "the case needs an open that lowers LastSequence");
    one.poll().unwrap();
    (db, one)
}

#[tokio::test]
async fn a_reopen_that_reuses_numbers_is_a_session_with_a_base_and_a_barrier() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let (db, mut one) = reopened_lower(dir.path(), &store, &["b"]).await;
    let base = one.take_wanted_base().await.unwrap().unwrap();
    assert_eq!((base.floor.boundary.get(), base.floor.sequence.get(), base.first_record.get()), (3, 1, 3));
    db.put("z", "1").unwrap();
    one.catch_up().await.unwrap();
    let all = entries(&store).await;
    assert_eq!(sequences(&all), [1, 2, 3, 2]);
    assert_eq!(barriers(&all), [BarrierReason::Reuse]);
    assert_eq!(archive(&store).await.bases().await.unwrap().len(), 2);
}

/// Numbers of the session before, of which the new one's first writes outside the log took some: both are told.
#[tokio::test]
async fn writes_outside_the_log_behind_a_reopen_that_reuses_numbers_are_a_barrier_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let (db, mut one) = reopened_lower(dir.path(), &store, &["b", "c"]).await;
    let base = one.take_wanted_base().await.unwrap().unwrap();
    assert_eq!((base.floor.boundary.get(), base.floor.sequence.get()), (5, 1));
    let mut unlogged = rocksdb::WriteOptions::default();
    unlogged.disable_wal(true);
    db.put_opt("u", "1", &unlogged).unwrap();
    db.put("z", "1").unwrap();
    one.catch_up().await.unwrap();
    let all = entries(&store).await;
    assert_eq!(sequences(&all), [1, 2, 3, 4, 5, 3]);
    assert_eq!(barriers(&all), [BarrierReason::Reuse, BarrierReason::SequenceJump]);
}

/// The older of two archivers ships once more after the younger one has come: what the younger had read by then lies
/// behind that segment, and nothing that it promises may end before it.
#[tokio::test]
async fn behind_a_late_segment_of_an_older_archiver_everything_is_read_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let db = database(dir.path());
    db.put("a", "1").unwrap();
    let mut older = archiver(dir.path(), &store).await;
    older.catch_up().await.unwrap();
    for what in ["a tag", "a base"] {
        let mut config = ArchiverConfig::new(dir.path().join("db"));
        config.state = dir.path().join(what);
        let mut younger = Archiver::open(config, archive(&store).await, Parts::system()).await.unwrap();
        db.put("late", what).unwrap();
        older.poll().unwrap();
        older.ship().await.unwrap();
        db.put("b", what).unwrap();
        let reached = if what == "a tag" {
            let tag = TagRequest {
                name: "t".into(),
                note: String::new(),
                unflushed: Unflushed::Refuse,
                expires: None,
                group: None,
            };
            younger.tag(&tag).await.unwrap().position.sequence.get()
        } else {
            younger.take_base().await.unwrap().floor.sequence.get()
        };
        assert_eq!(reached, db.latest_sequence_number(), "{what}");
        younger.close().await.unwrap();
        // The next younger one meets an older one again: this one joins the end.
        drop(older);
        older = archiver(dir.path(), &store).await;
        older.catch_up().await.unwrap();
    }
    assert_eq!(barriers(&entries(&store).await), []);
}

/// A dead process's manifest can arrive after its successor has come: the successor's begins behind it.
#[tokio::test]
async fn a_manifest_that_an_older_archiver_wrote_late_is_gone_on_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let db = database(dir.path());
    db.put("a", "1").unwrap();
    let mut older = archiver(dir.path(), &store).await;
    older.poll().unwrap();
    older.ship().await.unwrap();
    let mut config = ArchiverConfig::new(dir.path().join("db"));
    config.state = dir.path().join("state");
    let mut younger = Archiver::open(config, archive(&store).await, Parts::system()).await.unwrap();
    older.close_manifest().await.unwrap();
    db.put("b", "2").unwrap();
    younger.catch_up().await.unwrap();
    younger.close().await.unwrap();
    let catalog = archive(&store).await.load_catalog().await.unwrap();
    assert!(catalog.current_timeline().unwrap().manifests().len() > 1, "the older one's, and what follows it");
}

/// A record as RocksDB logs a put, to be appended at `offset` of a WAL.
fn put_at(offset: u64, sequence: u64, key: &str, value: &str) -> Vec<u8> {
    let mut batch = rocksdb::WriteBatch::default();
    batch.put(key, value);
    let mut payload = batch.data().to_vec();
    payload[..8].copy_from_slice(&sequence.to_le_bytes());
    let mut bytes = Vec::new();
    LogWriter::new(offset).append(&payload, &mut bytes);
    bytes
}

fn withdrawn(entries: &[Entry]) -> Vec<(u64, u64)> {
    entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Event(Event::Withdrawn { from, to, .. }) => Some((from.get(), to.get())),
            _ => None,
        })
        .collect()
}

/// Two records, and a third whose bytes are complete in the log although RocksDB does not know of it.
async fn a_failed_write(dir: &Path, store: &MemoryStore) -> (DB, Archiver, PathBuf) {
    use std::io::Write;
    let db = database(dir);
    db.put("a", "1").unwrap();
    db.put("b", "2").unwrap();
    let mut one = archiver(dir, store).await;
    one.catch_up().await.unwrap();
    let wal = |entry: std::fs::DirEntry| Some(entry.path()).filter(|p| p.extension().is_some_and(|x| x == "log"));
    let wal = std::fs::read_dir(dir.join("db")).unwrap().find_map(|entry| wal(entry.unwrap())).unwrap();
    let length = std::fs::metadata(&wal).unwrap().len();
    let mut file = std::fs::OpenOptions::new().append(true).open(&wal).unwrap();
    file.write_all(&put_at(length, 3, "c", "failed")).unwrap();
    one.poll().unwrap();
    one.ship().await.unwrap();
    (db, one, wal)
}

#[tokio::test]
async fn a_record_of_a_failed_write_is_withdrawn_when_its_number_comes_again_in_the_next_wal() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let (_db, mut one, wal) = a_failed_write(dir.path(), &store).await;
    std::fs::write(wal.with_file_name("000050.log"), put_at(0, 3, "d", "4")).unwrap();
    one.catch_up().await.unwrap();
    let all = entries(&store).await;
    assert_eq!(sequences(&all), [1, 2, 3, 3]);
    assert_eq!((withdrawn(&all), barriers(&all)), (vec![(2, 3)], vec![BarrierReason::SequenceWentBack]));
}

#[tokio::test]
async fn a_record_of_a_failed_write_is_withdrawn_when_the_server_cuts_it_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let (db, mut one, _) = a_failed_write(dir.path(), &store).await;
    // RocksDB closes a WAL at the length that it knows.
    db.flush().unwrap();
    db.put("d", "4").unwrap();
    one.catch_up().await.unwrap();
    let all = entries(&store).await;
    assert_eq!(sequences(&all), [1, 2, 3, 3]);
    assert_eq!((withdrawn(&all), barriers(&all)), (vec![(2, 3)], vec![BarrierReason::Fork]));
}

#[tokio::test]
async fn writes_outside_the_log_are_barriers_and_a_base_follows() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let db = database(dir.path());
    db.put("a", "1").unwrap();
    let mut one = archiver(dir.path(), &store).await;
    one.catch_up().await.unwrap();
    let mut unlogged = rocksdb::WriteOptions::default();
    unlogged.disable_wal(true);
    db.put_opt("u", "1", &unlogged).unwrap();
    db.put("b", "1").unwrap();
    one.poll().unwrap();
    assert!(one.take_wanted_base().await.unwrap().is_none(), "the unlogged write is only in memory");
    db.flush().unwrap();
    one.poll().unwrap();
    let base = one.take_wanted_base().await.unwrap().unwrap();
    assert_eq!(base.floor.boundary.get(), 2);
    ingest(&db, dir.path(), "m");
    db.put("c", "1").unwrap();
    one.catch_up().await.unwrap();
    assert_eq!(barriers(&entries(&store).await), [BarrierReason::SequenceJump, BarrierReason::ChangeOutsideWal]);
    assert_eq!(archive(&store).await.bases().await.unwrap().len(), 3);
}

/// The ingestion flushes what its keys overlap, so that the WAL which the archiver knew is needed no longer.
#[tokio::test]
async fn an_ingestion_in_a_pause_does_not_make_records_missing() {
    for behind in [None, Some("z")] {
        let dir = tempfile::tempdir().unwrap();
        let store = MemoryStore::new();
        let db = database(dir.path());
        db.put("a", "1").unwrap();
        db.put("m", "1").unwrap();
        let mut one = archiver(dir.path(), &store).await;
        one.catch_up().await.unwrap();
        drop(one);
        ingest(&db, dir.path(), "m");
        if let Some(key) = behind {
            db.put(key, "1").unwrap();
        }
        let mut two = archiver(dir.path(), &store).await;
        two.catch_up().await.unwrap();
        assert_eq!(barriers(&entries(&store).await), [BarrierReason::ChangeOutsideWal]);
    }
}

#[tokio::test]
async fn tolerated_writes_are_told_of_once_in_a_run_however_often_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let db = database(dir.path());
    db.put("a", "1").unwrap();
    let mut config = ArchiverConfig::new(dir.path().join("db"));
    config.unlogged_tolerate = vec!["default".to_owned()];
    let mut unlogged = rocksdb::WriteOptions::default();
    unlogged.disable_wal(true);
    for _ in 0..3 {
        let mut one = Archiver::open(config.clone(), archive(&store).await, Parts::system()).await.unwrap();
        for _ in 0..5 {
            one.catch_up().await.unwrap();
            db.put_opt("u", "1", &unlogged).unwrap();
            db.put("b", "1").unwrap();
        }
        one.catch_up().await.unwrap();
    }
    let all = entries(&store).await;
    let told = all.iter().filter(|entry| matches!(entry, Entry::Event(Event::UnloggedTolerated { .. })));
    assert_eq!((told.count(), barriers(&all)), (1, Vec::new()));
}

/// From now on another RocksDB wrote the database, by its own word.
fn claim_version(dir: &Path, version: &str) {
    in_options(dir, "rocksdb_version=11.8.1", &format!("rocksdb_version={version}"));
}

fn in_options(dir: &Path, old: &str, new: &str) {
    for entry in std::fs::read_dir(dir.join("db")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("OPTIONS-") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(old));
            std::fs::write(&path, text.replace(old, new)).unwrap();
        }
    }
}

/// RocksDB before 7.5 does not say in its MANIFEST which logs it has deleted, before its first flush with two-phase commit, or
/// ever. Two logs that it still needs, with numbers between them that nothing accounts for: no base can cross that, and
/// every run would begin with the first of them again.
#[tokio::test]
async fn a_gap_that_nothing_excludes_is_one_barrier_and_over_when_the_server_has_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let db = DB::open_cf(&with_families(), dir.path().join("db"), ["default", "other"]).unwrap();
    let put = |db: &DB, family: &str, key: &str| db.put_cf(&db.cf_handle(family).unwrap(), key, "1").unwrap();
    put(&db, "other", "a");
    put(&db, "default", "b");
    db.flush_cf(&db.cf_handle("default").unwrap()).unwrap();
    put(&db, "other", "c");
    // As kill -9 leaves it.
    let killed = dir.path().join("killed");
    std::fs::create_dir(&killed).unwrap();
    for entry in std::fs::read_dir(dir.path().join("db")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, killed.join(path.file_name().unwrap())).unwrap();
    }
    drop(db);
    std::fs::remove_dir_all(dir.path().join("db")).unwrap();
    std::fs::rename(&killed, dir.path().join("db")).unwrap();
    claim_version(dir.path(), "6.29.5");
    // Where transactions can be prepared, a sequence number that is due proves nothing.
    in_options(dir.path(), "allow_2pc=false", "allow_2pc=true");
    let current = std::fs::read_to_string(dir.path().join("db/CURRENT")).unwrap();
    let manifest = dir.path().join("db").join(current.trim());
    let bytes = std::fs::read(&manifest).unwrap();
    let (mut written, mut writer) = (Vec::new(), LogWriter::new(0));
    for answer in LogReader::new(LogKind::Manifest).read_all(&bytes, Finality::Final) {
        let Read::Record { payload, .. } = answer else { break };
        let edit = VersionEdit { min_log_number_to_keep: None, ..VersionEdit::decode(&payload).unwrap() };
        writer.append(&edit.encode(), &mut written);
    }
    std::fs::write(&manifest, written).unwrap();
    let files = std::fs::read_dir(dir.path().join("db")).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> = files.filter(|path| path.extension().is_some_and(|x| x == "log")).collect();
    logs.sort();
    assert_eq!(logs.len(), 2, "{logs:?}");
    std::fs::rename(&logs[1], dir.path().join("db/000100.log")).unwrap();

    let mut one = archiver(dir.path(), &store).await;
    for _ in 0..20 {
        one.poll().unwrap();
        one.ship().await.unwrap();
    }
    let waits = one.status().unwrap().waiting.expect("nothing is archived");
    assert!(waits.contains("WAL 4") || waits.contains("WAL 000004"), "{waits}");
    assert_eq!(barriers(&entries(&store).await), [BarrierReason::RecordsMissing]);
    // Another process waits for the same.
    drop(one);
    let mut one = archiver(dir.path(), &store).await;
    one.poll().unwrap();
    assert!(one.status().unwrap().waiting.is_some());

    let db = DB::open_cf(&with_families(), dir.path().join("db"), ["default", "other"]).unwrap();
    put(&db, "other", "d");
    one.poll().unwrap();
    one.take_wanted_base().await.unwrap().expect("a base that serves from here on");
    assert_eq!(one.status().unwrap().waiting, None);
    put(&db, "other", "e");
    one.catch_up().await.unwrap();
    let all = entries(&store).await;
    assert_eq!(barriers(&all), [BarrierReason::RecordsMissing]);
    assert_eq!(sequences(&all)[..2], [1, 2], "what came before the gap");
    assert_eq!(sequences(&all)[sequences(&all).len() - 2..], [4, 5], "and behind it");
}

/// `DB::DeleteFile`, as RocksDB had it until version 9, in a MANIFEST of this library.
#[tokio::test]
async fn a_file_that_an_older_rocksdb_deleted_from_level_zero_is_a_barrier() {
    for (version, expected) in [("9.1.1", vec![BarrierReason::ChangeOutsideWal]), ("11.8.1", Vec::new())] {
        let dir = tempfile::tempdir().unwrap();
        let store = MemoryStore::new();
        let db = database(dir.path());
        db.put("a", "1").unwrap();
        db.flush().unwrap();
        db.put("b", "1").unwrap();
        let files = || std::fs::read_dir(dir.path().join("db")).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        claim_version(dir.path(), version);
        let mut one = archiver(dir.path(), &store).await;
        one.catch_up().await.unwrap();
        let table = files().find(|path| path.extension().is_some_and(|x| x == "sst")).unwrap();
        let number = FileNumber::new(name(&table).trim_end_matches(".sst").parse().unwrap());
        let edit = VersionEdit {
            deleted_files: vec![DeletedFile { level: 0, number }],
            next_file_number: Some(FileNumber::new(1000)),
            ..VersionEdit::default()
        };
        let current = std::fs::read_to_string(dir.path().join("db/CURRENT")).unwrap();
        let manifest = dir.path().join("db").join(current.trim());
        let mut bytes = std::fs::read(&manifest).unwrap();
        LogWriter::new(bytes.len() as u64).append(&edit.encode(), &mut bytes);
        std::fs::write(&manifest, bytes).unwrap();
        one.poll().unwrap();
        one.ship().await.unwrap();
        assert_eq!(barriers(&entries(&store).await), expected, "{version}");
        drop(db);
    }
}

/// Whoever owns the database writes and ingests between the linking of a base's files and the look that fixes its floor.
#[derive(Debug)]
struct Busy {
    db: Arc<DB>,
    dir: PathBuf,
}

impl pitr_archiver::Owner for Busy {
    fn flush_wal(&self) -> pitr_archive::Result<Done> {
        Ok(Done::Cannot)
    }

    fn hold_file_deletions(&self) -> pitr_archive::Result<Done> {
        Ok(Done::Yes)
    }

    fn release_file_deletions(&self) -> pitr_archive::Result<()> {
        self.db.put("busy", "1").unwrap();
        ingest(&self.db, &self.dir, "k");
        self.db.put("busy", "2").unwrap();
        Ok(())
    }
}

#[tokio::test]
async fn a_base_that_turns_out_useless_leaves_the_next_one_for_barriers_paced() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let db = Arc::new(database(dir.path()));
    db.put("a", "1").unwrap();
    archiver(dir.path(), &store).await.catch_up().await.unwrap();
    let owner = Arc::new(Busy { db: db.clone(), dir: dir.path().to_owned() });
    let parts = Parts { owner, ..Parts::system() };
    let config = ArchiverConfig::new(dir.path().join("db"));
    let mut one = Archiver::open(config, archive(&store).await, parts).await.unwrap();
    ingest(&db, dir.path(), "k");
    one.poll().unwrap();
    assert!(
        one.take_wanted_base().await.unwrap().is_none(),
        "what came after its files were linked lies before its floor"
    );
    let status = one.status().unwrap();
    assert!(status.base_due.is_some_and(|due| due > status.now), "{status:?}");
}

fn ingest(db: &DB, dir: &Path, key: &str) {
    let sst = dir.join("in.sst");
    let options = options();
    let mut writer = rocksdb::SstFileWriter::create(&options);
    writer.open(&sst).unwrap();
    writer.put(key, "ingested").unwrap();
    writer.finish().unwrap();
    db.ingest_external_file(vec![&sst]).unwrap();
}

#[tokio::test]
async fn bases_that_barriers_ask_for_follow_each_other_at_a_bounded_rate_and_others_are_not_delayed() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let db = database(dir.path());
    db.put("a", "1").unwrap();
    let clock = ManualClock::new(Micros(1_795_132_800_000_000));
    let parts = Parts { clock: Arc::new(clock.clone()), ..Parts::system() };
    let config = ArchiverConfig::new(dir.path().join("db"));
    let mut one = Archiver::open(config, archive(&store).await, parts).await.unwrap();
    one.poll().unwrap();
    one.take_wanted_base().await.unwrap().expect("the first base of a run");
    // An ingestion every ten seconds, for an hour.
    let mut taken = Vec::new();
    for tick in 0..360 {
        ingest(&db, dir.path(), "k");
        one.poll().unwrap();
        if one.take_wanted_base().await.unwrap().is_some() {
            taken.push(tick * 10 / 60);
            assert_eq!(one.status().unwrap().base, None);
        } else {
            let status = one.status().unwrap();
            assert!(status.base_due.unwrap() > status.now, "status says when");
        }
        clock.advance(10_000_000);
    }
    assert_eq!(taken, [0, 1, 3, 7, 15, 30, 45], "in minutes");
    // Asked for: at once.
    one.take_base().await.unwrap();
    // A new session: at once.
    ingest(&db, dir.path(), "k");
    one.poll().unwrap();
    let db = reopened(db, dir.path());
    one.poll().unwrap();
    one.take_wanted_base().await.unwrap().expect("the session's, which barriers must not hold up");
    // After a pause the first comes at once again.
    clock.advance(60 * 60 * 1_000_000);
    ingest(&db, dir.path(), "k");
    one.poll().unwrap();
    one.take_wanted_base().await.unwrap().expect("a barrier's");
}

/// Far longer than a base takes, and far shorter than the interval.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_base_waits_for_no_interval_whether_it_comes_by_itself_or_somebody_asks_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let db = database(dir.path());
    db.put("a", "1").unwrap();
    let mut config = ArchiverConfig::new(dir.path().join("db"));
    config.interval = Duration::from_secs(3600);
    let state = config.state.clone();
    let archiver = Archiver::open(config, archive(&store).await, Parts::system()).await.unwrap();
    let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
    // On a thread of its own, as a server would have it.
    let runtime = tokio::runtime::Handle::current();
    let running = std::thread::spawn(move || runtime.block_on(archiver.run(async move { drop(stopping.await) })));
    let archive = archive(&store).await;
    let bases = async || archive.list_bases().await.unwrap().len();
    let first = tokio::time::timeout(SOON, async {
        while bases().await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    first.await.expect("the first base comes by itself");
    db.put("b", "2").unwrap();
    let asked = tokio::time::timeout(SOON, control::ask(&state, &Request::Base)).await;
    let Ok(Ok(Some(Answer::Base { floor, .. }))) = asked else { panic!("no base for who asks: {asked:?}") };
    assert_eq!((floor.sequence.get(), bases().await), (2, 2));
    // What is written behind a base's floor waits for the interval again.
    let before = entries(&store).await.len();
    db.put("c", "3").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(entries(&store).await.len(), before);
    stop.send(()).unwrap();
    tokio::task::spawn_blocking(move || running.join().unwrap()).await.unwrap().unwrap();
    assert_eq!(sequences(&entries(&store).await), [1, 2, 3]);
}
