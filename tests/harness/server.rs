//! A database in a process of its own, which can be killed.
//!
//! Owns: the process's side of the conversation (one JSON line a request, one a reply, over a socket that is its
//! standard input) and how the tests open RocksDB. The process is this test binary again: every one of them has a test
//! `database_process` that calls [`serve_if_asked`].

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use pitr_archive::{
    ids::{ColumnFamilyId, SequenceNumber},
    rocks::{
        coding::{put_length_prefixed, put_varint},
        write_batch::{self, WriteBatchBuilder},
    },
};
use rocksdb::{
    AsRawPtr, BottommostLevelCompaction, BoundColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB,
    DBCompressionType, DBPath, FlushOptions, IteratorMode, MergeOperands, Options, ReadOptions, SstFileWriter,
    WriteBatch, WriteOptions,
};
use serde::{Deserialize, Serialize};

use super::{
    model::{self, Content, Family},
    program::{Op, Settings},
    transactions::TransactionDb,
};

/// Pairs by column family.
pub type Dump = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

/// Directories of a database outside its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// `wal_dir`.
    pub wals: Option<PathBuf>,
    /// `db_paths`: the first place of data files.
    pub data: Option<PathBuf>,
    /// The second one.
    pub more: Option<PathBuf>,
}

/// Set in the environment of a process that shall be a database.
pub const ASKED: &str = "PITR_TEST_DATABASE";

/// What the process is asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Open the database, all column families.
    Open { dir: PathBuf, places: Places, settings: Settings },
    /// Make the batch and answer with its bytes; do not write it yet.
    Prepare { ops: Vec<Op>, logged: bool },
    /// Write the prepared batch.
    Commit,
    /// Flush these column families, all when empty.
    Flush { families: Vec<String> },
    /// Compact everything in a column family.
    Compact { family: String },
    /// Create a column family.
    Create { name: String },
    /// Drop one.
    Drop { name: String },
    /// Ingest sorted pairs.
    Ingest { family: String, pairs: Vec<(Vec<u8>, Vec<u8>)> },
    /// Prepare a transaction and answer with its record.
    PrepareTransaction { name: String, ops: Vec<Op> },
    /// Commit it and answer with the record.
    CommitTransaction { name: String },
    /// Roll it back and answer with the record; `undo` brings back what was before it.
    RollBack { name: String, undo: Vec<Op> },
    /// Drop the files that lie in the range.
    DropFiles { family: String, from: Vec<u8>, to: Vec<u8> },
    /// Answer with the content.
    Dump,
    /// Flush the WAL's buffer.
    FlushWal,
    /// Close the database and end.
    Close,
}

/// What it answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// The latest sequence number.
    pub sequence: u64,
    /// The bytes of a prepared batch, in which the sequence number is not set; those of a transaction database's record.
    pub batch: Vec<u8>,
    /// The content.
    pub content: Option<Dump>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Is a database until the other end hangs up, if the environment says so; else returns at once.
pub fn serve_if_asked() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().expect("standard input");
    let mut socket = UnixStream::from(stdin);
    let mut lines = BufReader::new(socket.try_clone().expect("a second handle of the socket")).lines();
    let mut database: Option<Database> = None;
    while let Some(Ok(line)) = lines.next() {
        let request: Request = serde_json::from_str(&line).expect("a request");
        let closing = matches!(request, Request::Close);
        let reply = match answer(&mut database, request) {
            Ok(reply) => reply,
            Err(error) => Reply { error: Some(error), ..Reply::default() },
        };
        let mut line = serde_json::to_vec(&reply).expect("a reply");
        line.push(b'\n');
        if socket.write_all(&line).is_err() || closing {
            break;
        }
    }
    std::process::exit(0);
}

/// An open database.
pub struct Opened {
    /// The database.
    pub db: DB,
    /// Its column families.
    pub names: Vec<String>,
}

/// A database of either kind.
enum Database {
    Plain(Served),
    Transactional(TransactionDb, Vec<Op>),
}

struct Served {
    db: DB,
    names: Vec<String>,
    settings: Settings,
    dir: PathBuf,
    prepared: Option<(WriteBatch, bool)>,
    ingested: u64,
}

fn answer(database: &mut Option<Database>, request: Request) -> Result<Reply, String> {
    if let Request::Open { dir, places, settings } = request {
        if let Some(policy) = settings.transactions {
            let db = TransactionDb::open(&dir, &database_options(&places, &settings), &settings, policy)?;
            let sequence = db.latest_sequence();
            *database = Some(Database::Transactional(db, Vec::new()));
            return Ok(Reply { sequence, ..Reply::default() });
        }
        let Opened { db, names } = open(&dir, &places, &settings).map_err(|e| e.to_string())?;
        let sequence = db.latest_sequence_number();
        *database = Some(Database::Plain(Served { db, names, settings, dir, prepared: None, ingested: 0 }));
        return Ok(Reply { sequence, ..Reply::default() });
    }
    if matches!(request, Request::Close) {
        drop(database.take());
        return Ok(Reply::default());
    }
    match database.as_mut().expect("the database is open") {
        Database::Plain(served) => plain(served, request).map_err(|e| e.to_string()),
        Database::Transactional(db, prepared) => transactional(db, prepared, request),
    }
}

fn transactional(db: &mut TransactionDb, prepared: &mut Vec<Op>, request: Request) -> Result<Reply, String> {
    let mut reply = Reply::default();
    match request {
        Request::Prepare { ops, logged: true } => {
            reply.batch = db.plain_record(&ops);
            *prepared = ops;
        }
        Request::Commit => db.write(&std::mem::take(prepared))?,
        Request::PrepareTransaction { name, ops } => reply.batch = db.prepare(&name, &ops)?,
        Request::CommitTransaction { name } => reply.batch = db.commit(&name)?,
        Request::RollBack { name, undo } => reply.batch = db.roll_back(&name, &undo)?,
        Request::Flush { families } => db.flush(&families)?,
        Request::Compact { family } => db.compact(&family),
        Request::Create { name } => db.create(&name)?,
        Request::Drop { name } => db.drop_family(&name)?,
        Request::Dump => reply.content = Some(db.dump()?),
        other => return Err(format!("not with a transaction database: {other:?}")),
    }
    reply.sequence = db.latest_sequence();
    Ok(reply)
}

fn plain(served: &mut Served, request: Request) -> Result<Reply, rocksdb::Error> {
    let mut reply = Reply::default();
    match request {
        Request::Open { .. } | Request::Close => {}
        Request::PrepareTransaction { .. } | Request::CommitTransaction { .. } | Request::RollBack { .. } => {
            panic!("not with a plain database: {request:?}")
        }
        Request::Prepare { ops, logged } => {
            let batch = served.batch(&ops);
            reply.batch = batch.data().to_vec();
            served.prepared = Some((batch, logged));
        }
        Request::Commit => {
            let (batch, logged) = served.prepared.take().expect("a prepared batch");
            let mut options = WriteOptions::default();
            options.disable_wal(!logged);
            served.db.write_opt(batch, &options)?;
        }
        Request::Flush { families } => {
            let families = if families.is_empty() { served.names.clone() } else { families };
            for family in families {
                served.db.flush_cf_opt(&served.family(&family), &FlushOptions::default())?;
            }
        }
        Request::Compact { family } => {
            let mut options = CompactOptions::default();
            options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            served.db.compact_range_cf_opt(&served.family(&family), None::<&[u8]>, None::<&[u8]>, &options);
        }
        Request::Create { name } => {
            served.db.create_cf(&name, &family_options(&served.settings))?;
            served.names.push(name);
        }
        Request::Drop { name } => {
            served.db.drop_cf(&name)?;
            served.names.retain(|n| *n != name);
        }
        Request::Ingest { family, pairs } => served.ingest(&family, &pairs)?,
        Request::DropFiles { family, from, to } => {
            served.db.delete_file_in_range_cf(&served.family(&family), from, to)?;
        }
        Request::Dump => reply.content = Some(dump(&served.db, &served.names)?),
        Request::FlushWal => served.db.flush_wal(false)?,
    }
    reply.sequence = served.db.latest_sequence_number();
    Ok(reply)
}

impl Served {
    fn family(&self, name: &str) -> Arc<BoundColumnFamily<'_>> {
        self.db.cf_handle(name).unwrap_or_else(|| panic!("no column family {name}"))
    }

    /// RocksDB's C interface has no way to every operation: the bytes are made as RocksDB makes them.
    fn batch(&self, ops: &[Op]) -> WriteBatch {
        let mut builder = WriteBatchBuilder::new(SequenceNumber::new(0));
        for op in ops {
            let cf = op.family().map(|name| self.id(name)).unwrap_or_default();
            let entity = match op {
                Op::PutEntity(_, _, columns) => entity(columns),
                _ => Vec::new(),
            };
            builder.push(&match op {
                Op::Put(_, key, value) => write_batch::Op::Put { cf, key, value },
                Op::Delete(_, key) => write_batch::Op::Delete { cf, key },
                Op::SingleDelete(_, key) => write_batch::Op::SingleDelete { cf, key },
                Op::DeleteRange(_, begin, end) => write_batch::Op::DeleteRange { cf, begin, end },
                Op::Merge(_, key, operand) => write_batch::Op::Merge { cf, key, operand },
                Op::PutEntity(_, key, _) => write_batch::Op::PutEntity { cf, key, entity: &entity },
                Op::TimedPut(_, key, value, at) => write_batch::Op::TimedPut { cf, key, value, unix_time: *at },
                Op::LogData(blob) => write_batch::Op::LogData { blob },
            });
        }
        WriteBatch::from_data(&builder.finish())
    }

    /// The id that RocksDB writes for a column family.
    fn id(&self, name: &str) -> ColumnFamilyId {
        let mut probe = WriteBatch::default();
        probe.put_cf(&self.family(name), b"", b"");
        let probe = write_batch::WriteBatch::parse(probe.data()).expect("a batch");
        let op = probe.ops().next().expect("an operation").expect("a valid one");
        op.column_family().expect("a put")
    }

    fn ingest(&mut self, family: &str, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), rocksdb::Error> {
        self.ingested += 1;
        let path = self.dir.with_extension(format!("ingest-{}-{}", std::process::id(), self.ingested));
        let options = family_options(&self.settings);
        let mut writer = SstFileWriter::create(&options);
        writer.open(&path)?;
        for (key, value) in pairs {
            writer.put(key, value)?;
        }
        writer.finish()?;
        let done = self.db.ingest_external_file_cf(&self.family(family), vec![&path]);
        // RocksDB has copied or linked it.
        let _ = std::fs::remove_file(&path);
        done
    }
}

/// Wide columns as RocksDB serialises them (db/wide/wide_column_serialization.h): version, number, an index of names and
/// lengths of values, the values.
fn entity(columns: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, 1u32);
    put_varint(&mut bytes, columns.len() as u32);
    for (name, value) in columns {
        put_length_prefixed(&mut bytes, name);
        put_varint(&mut bytes, value.len() as u32);
    }
    columns.iter().for_each(|(_, value)| bytes.extend_from_slice(value));
    bytes
}

/// Opens a database with every column family it has; creates it when there is none.
pub fn open(dir: &Path, places: &Places, settings: &Settings) -> Result<Opened, rocksdb::Error> {
    open_with(dir, &database_options(places, settings), settings)
}

/// The same with options that were changed.
pub fn open_with(dir: &Path, options: &Options, settings: &Settings) -> Result<Opened, rocksdb::Error> {
    let names = if dir.join("CURRENT").exists() { DB::list_cf(options, dir)? } else { vec!["default".to_owned()] };
    let families: Vec<_> = names.iter().map(|n| ColumnFamilyDescriptor::new(n, family_options(settings))).collect();
    let db = DB::open_cf_descriptors(options, dir, families)?;
    Ok(Opened { db, names })
}

/// The options of a database, without those of its column families.
pub fn database_options(places: &Places, settings: &Settings) -> Options {
    let mut options = family_options(settings);
    options.create_if_missing(true);
    options.set_recycle_log_file_num(settings.recycle);
    if settings.wal_zstd {
        options.set_wal_compression_type(DBCompressionType::Zstd);
    }
    if settings.manifest_bytes > 0 {
        options.set_max_manifest_file_size(settings.manifest_bytes);
    }
    options.set_wal_ttl_seconds(settings.wal_ttl);
    options.set_enable_pipelined_write(settings.pipelined);
    options.set_manual_wal_flush(settings.manual_wal_flush);
    options.set_max_background_jobs(2);
    if let Some(wals) = &places.wals {
        options.set_wal_dir(wals);
    }
    if let Some(data) = &places.data {
        // What does not fit into the first place goes to the second: everything that a compaction writes.
        let size = if places.more.is_some() { 1 } else { 1 << 40 };
        let first = DBPath::new(data, size).expect("a path");
        let second = places.more.iter().map(|more| DBPath::new(more, 1 << 40).expect("a path"));
        options.set_db_paths(&std::iter::once(first).chain(second).collect::<Vec<_>>());
    }
    options.set_unordered_write(settings.unordered_write);
    options.set_atomic_flush(settings.atomic_flush);
    // SAFETY: the pointer belongs to `options`, which outlives these calls; they set plain fields.
    unsafe {
        use librocksdb_sys as ffi;
        let raw = options.as_raw_ptr();
        ffi::rocksdb_options_set_avoid_flush_during_recovery(raw, settings.avoid_flush_during_recovery.into());
        ffi::rocksdb_options_set_avoid_flush_during_shutdown(raw, settings.avoid_flush_during_shutdown.into());
        ffi::rocksdb_options_set_two_write_queues(raw, settings.two_write_queues.into());
        ffi::rocksdb_options_set_allow_2pc(raw, settings.allow_2pc.into());
        ffi::rocksdb_options_set_async_wal_precreate(raw, settings.precreate_wal.into());
        ffi::rocksdb_options_set_track_and_verify_wals(raw, settings.verify_wals.into());
        ffi::rocksdb_options_set_track_and_verify_wals_in_manifest(raw, settings.track_wals.into());
    }
    options
}

/// The options of every column family.
pub fn family_options(settings: &Settings) -> Options {
    let mut options = Options::default();
    if settings.write_buffer > 0 {
        options.set_write_buffer_size(settings.write_buffer);
    }
    options.set_level_zero_file_num_compaction_trigger(3);
    if !settings.without_merge_operator {
        options.set_merge_operator_associative("pitr.test.append", append);
    }
    if settings.blobs {
        options.set_enable_blob_files(true);
        options.set_min_blob_size(64);
    }
    options
}

// The signature is the library's.
#[allow(clippy::unnecessary_wraps)]
fn append(_key: &[u8], existing: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    Some(model::merge(existing, operands.into_iter()))
}

/// Everything in these column families, read with checksums.
pub fn dump(db: &DB, names: &[String]) -> Result<Dump, rocksdb::Error> {
    let mut content = BTreeMap::new();
    for name in names {
        let family = db.cf_handle(name).expect("a listed column family");
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        let pairs: Result<Vec<_>, _> = db
            .iterator_cf_opt(&family, options, IteratorMode::Start)
            .map(|pair| pair.map(|(key, value)| (key.into_vec(), value.into_vec())))
            .collect();
        content.insert(name.clone(), pairs?);
    }
    Ok(content)
}

/// A dump as the model holds it.
pub fn content(dump: Dump) -> Content {
    dump.into_iter().map(|(name, pairs)| (name, Arc::new(pairs.into_iter().collect::<Family>()))).collect()
}
