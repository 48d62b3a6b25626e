//! A real database, archived by hand: its WALs read with the log reader, its files taken as bases, its MANIFEST edits
//! as events; and a model of what it held after every record.

use std::{
    collections::BTreeMap,
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use pitr_archive::{
    base::{FileIdentity, Source},
    catalog::{
        archive::{Archive, EpochClaim, NewTimeline},
        schema::{BaseColumnFamily, BaseDocument, BaseFile, DatabasePaths, Extra, InlineFile, Position},
    },
    clock::{ManualClock, Micros},
    ids::{BaseId, Boundary, ColumnFamilyId, FileNumber, Nonce, Ordinal, RunningHash, SequenceNumber, TimelineId},
    keyring::MasterKey,
    random::SeededRandom,
    rocks::{
        file_name::{self, FileKind},
        log_reader::{Finality, LogKind, LogReader, Metadata, Read},
        manifest::{ManifestModel, TwoPhase},
        transactions::Transactions,
        version_edit::VersionEdit,
    },
    segment::{
        entry::{ColumnFamilyChange, Event, Interval, ManifestPoint, Record},
        envelope::Level,
        writer::{RecordSequences, SegmentBuilder, SegmentStart},
    },
    store::Store,
};
use rocksdb::{DB, IteratorMode, Options, WriteBatch};

use crate::plan::sequence;

/// What a column family holds.
pub(crate) type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the database holds, and its latest sequence number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub families: BTreeMap<String, Content>,
    pub sequence: u64,
}

/// One write; each becomes one record.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Put(&'static str, String, String),
    Delete(&'static str, String),
    SingleDelete(String),
    DeleteRange(&'static str, String, String),
    /// Several puts in one batch.
    Batch(Vec<(String, String)>),
}

struct Taken {
    floor: u64,
    model: ManifestModel,
    prefix: Vec<u8>,
    files: Vec<(ColumnFamilyId, String, PathBuf)>,
    small: Vec<(String, Vec<u8>)>,
    number: u32,
}

pub(crate) struct Lab {
    pub dir: tempfile::TempDir,
    options: Options,
    db: Option<DB>,
    /// `states[n]`: directly after n records.
    pub states: Vec<State>,
    /// With what happened without a record since the last one.
    now: State,
    events: Vec<(u64, Event)>,
    bases: Vec<Taken>,
    seen_edits: ManifestPoint,
    pub wal_dir: Option<PathBuf>,
    sessions: u64,
}

pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_disable_auto_compactions(true);
    options.set_max_open_files(64);
    options
}

impl Lab {
    pub fn new() -> Self {
        Self::with(options(), None)
    }

    pub fn with(mut options: Options, wal_dir: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pins")).unwrap();
        let wal_dir = wal_dir.map(|name| dir.path().join(name));
        if let Some(wal_dir) = &wal_dir {
            options.set_wal_dir(wal_dir);
        }
        let db = DB::open_cf_with_opts(&options, dir.path().join("source"), [("default", options.clone())]).unwrap();
        let first = State { families: BTreeMap::from([("default".to_owned(), Content::new())]), sequence: 0 };
        let mut lab = Self {
            dir,
            options,
            db: Some(db),
            now: first.clone(),
            states: vec![first],
            events: Vec::new(),
            bases: Vec::new(),
            seen_edits: ManifestPoint { file: FileNumber::new(0), offset: 0 },
            wal_dir,
            sessions: 0,
        };
        lab.session();
        lab
    }

    pub fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub fn db(&self) -> &DB {
        self.db.as_ref().unwrap()
    }

    fn session(&mut self) {
        let (number, bytes) = self.manifest();
        let point = ManifestPoint { file: number, offset: bytes.len() as u64 };
        let last_sequence = SequenceNumber::new(self.db().latest_sequence_number());
        let session = self.sessions;
        self.sessions += 1;
        let at = self.records();
        self.events.push((at, Event::SessionStarted { session, db_session_id: None, manifest: point, last_sequence }));
        self.seen_edits = point;
        self.pin();
    }

    /// Closes the database and opens it again.
    pub fn reopen(&mut self) {
        self.pin();
        let names: Vec<String> = self.now.families.keys().cloned().collect();
        drop(self.db.take());
        let families = names.into_iter().map(|name| (name, self.options.clone()));
        self.db = Some(DB::open_cf_with_opts(&self.options, self.source(), families).unwrap());
        self.session();
    }

    pub fn records(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    /// Keeps every WAL that there is.
    fn pin(&self) {
        let from = self.wal_dir.clone().unwrap_or_else(|| self.source());
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let to = self.dir.path().join("pins").join(&name);
            if matches!(file_name::parse(&name), Some(FileKind::Wal(_))) && !to.exists() {
                fs::hard_link(entry.path(), to).unwrap();
            }
        }
    }

    pub fn write(&mut self, write: &Write) {
        let db = self.db.as_ref().unwrap();
        let mut state = self.now.clone();
        let cf = |name: &str| db.cf_handle(name).unwrap();
        match write {
            Write::Put(name, key, value) => {
                db.put_cf(&cf(name), key, value).unwrap();
                state.families.get_mut(*name).unwrap().insert(key.clone().into(), value.clone().into());
            }
            Write::Delete(name, key) => {
                db.delete_cf(&cf(name), key).unwrap();
                state.families.get_mut(*name).unwrap().remove(key.as_bytes());
            }
            Write::SingleDelete(key) => {
                single_delete(db, key.as_bytes());
                state.families.get_mut("default").unwrap().remove(key.as_bytes());
            }
            Write::DeleteRange(name, from, to) => {
                db.delete_range_cf(&cf(name), from, to).unwrap();
                let content = state.families.get_mut(*name).unwrap();
                content.retain(|key, _| key.as_slice() < from.as_bytes() || key.as_slice() >= to.as_bytes());
            }
            Write::Batch(pairs) => {
                let mut batch = WriteBatch::default();
                for (key, value) in pairs {
                    batch.put(key, value);
                    let content = state.families.get_mut("default").unwrap();
                    content.insert(key.clone().into(), value.clone().into());
                }
                db.write(batch).unwrap();
            }
        }
        state.sequence = db.latest_sequence_number();
        self.now = state.clone();
        self.states.push(state);
        self.pin();
    }

    pub fn put(&mut self, key: &str, value: &str) {
        self.write(&Write::Put("default", key.to_owned(), value.to_owned()));
    }

    pub fn flush(&mut self) {
        self.db().flush().unwrap();
        self.pin();
    }

    fn without_record(&mut self, change: impl FnOnce(&mut State)) {
        change(&mut self.now);
        self.note_edits();
    }

    pub fn create_family(&mut self, name: &str) {
        self.db().create_cf(name, &self.options).unwrap();
        self.without_record(|state| {
            state.families.insert(name.to_owned(), Content::new());
        });
    }

    pub fn drop_family(&mut self, name: &str) {
        self.db().drop_cf(name).unwrap();
        self.without_record(|state| {
            state.families.remove(name);
        });
    }

    fn manifest(&self) -> (FileNumber, Vec<u8>) {
        let current = fs::read(self.source().join("CURRENT")).unwrap();
        let number = file_name::parse_current(&current).unwrap();
        (number, fs::read(self.source().join(file_name::manifest(number))).unwrap())
    }

    /// Column family edits since the last look, all at the present position.
    fn note_edits(&mut self) {
        let (file, bytes) = self.manifest();
        let at = self.records();
        for (payload, end) in manifest_records(&bytes) {
            let point = ManifestPoint { file, offset: end };
            if point <= self.seen_edits {
                continue;
            }
            let edit = VersionEdit::decode(&payload).unwrap();
            let change = match (edit.column_family_add, edit.column_family_drop) {
                (Some(_), _) => ColumnFamilyChange::Added,
                (None, true) => ColumnFamilyChange::Dropped,
                _ => continue,
            };
            let boundary = Boundary::new(at);
            self.events.push((
                at,
                Event::ColumnFamily {
                    change,
                    id: edit.column_family,
                    name: edit.column_family_add.map_or_else(String::new, |n| String::from_utf8(n.to_vec()).unwrap()),
                    interval: Interval { lo: boundary, hi: Some(boundary) },
                    manifest: point,
                    edit: STANDARD.encode(&payload),
                },
            ));
        }
        self.seen_edits = ManifestPoint { file, offset: bytes.len() as u64 };
    }

    /// Takes what a base needs, now.
    pub fn take_base(&mut self) {
        let (number, prefix) = self.manifest();
        let mut model = ManifestModel::new(number);
        for (payload, end) in manifest_records(&prefix) {
            model.apply(&payload, end).unwrap();
        }
        let kept = self.dir.path().join(format!("base-{}", self.bases.len()));
        fs::create_dir(&kept).unwrap();
        let mut files = Vec::new();
        for (cf, number, _) in model.live_files() {
            let name = file_name::sst(number);
            fs::hard_link(self.source().join(&name), kept.join(&name)).unwrap();
            files.push((cf, name.clone(), kept.join(&name)));
        }
        let mut small = Vec::new();
        for entry in fs::read_dir(self.source()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if matches!(file_name::parse(&name), Some(FileKind::Options(_) | FileKind::Identity | FileKind::Current)) {
                small.push((name, fs::read(entry.path()).unwrap()));
            }
        }
        let floor = self.records();
        let number = self.bases.len() as u32;
        self.bases.push(Taken { floor, model, prefix, files, small, number });
    }

    /// Everything so far as an archive, in segments of `per_segment` records.
    pub async fn archive(&self, store: Arc<dyn Store>, key: Option<MasterKey>, per_segment: usize) -> Archive {
        let clock = ManualClock::new(Micros(1_000_000));
        let random = SeededRandom::new(7);
        let archive = Archive::open_or_create(store, key, &clock, &random).await.unwrap();
        let claim = archive.claim_epoch("test", &clock, &random).await.unwrap();
        let timeline = NewTimeline { db_id: "id", restore_marker: None, parent: None, detail: "" };
        archive.open_timeline(&timeline, &claim, &clock, &random).await.unwrap();
        let stream = self.ship(&archive, &claim, &random, per_segment).await;
        for base in &self.bases {
            let document = self.base_document(&archive, &claim, &random, base, &stream).await;
            let pitr_archive::catalog::archive::PutDocument::Created { .. } =
                archive.put_base(&document, &claim, &random).await.unwrap()
            else {
                panic!("base exists");
            };
        }
        archive
    }

    async fn ship(&self, archive: &Archive, claim: &EpochClaim, random: &SeededRandom, per_segment: usize) -> Shipped {
        let mut shipped = Shipped { hashes: vec![RunningHash::ZERO], wal_starts: BTreeMap::new() };
        let wals = self.pinned();
        let mut start = SegmentStart {
            archive: archive.id(),
            timeline: TimelineId::FIRST,
            ordinal: Ordinal::new(0),
            epoch: claim.epoch(),
            first: Boundary::START,
            hash_before: RunningHash::ZERO,
            last_sequence: SequenceNumber::new(0),
            wal: None,
        };
        let new = |start: &SegmentStart| {
            SegmentBuilder::new(start.clone(), archive.keyring(), random, Level::default()).unwrap()
        };
        let mut builder = new(&start);
        let first_wal = *wals.keys().next().unwrap();
        builder.push_event(&Event::RunStarted { run: 0, first_wal, db_id: "id".to_owned() }).unwrap();
        let mut events = self.events.iter().peekable();
        let mut at = 0u64;
        let mut in_segment = 0;
        let mut transactions = Transactions::default();
        for (wal, bytes) in &wals {
            shipped.wal_starts.insert(*wal, at);
            builder.push_event(&Event::WalStarted { wal: *wal }).unwrap();
            for (record, sizes) in wal_records(*wal, bytes) {
                while let Some((_, event)) = events.next_if(|(place, _)| *place <= at) {
                    builder.push_event(event).unwrap();
                }
                if let Some((offset, sizes)) = sizes {
                    builder.push_event(&Event::TimestampSizes { wal: *wal, offset, sizes }).unwrap();
                }
                let step = sequence::step(&mut transactions, Boundary::new(at).next_record(), &record).unwrap();
                let hash = builder.push_record(&record, RecordSequences { first: step.first, last: step.end }).unwrap();
                shipped.hashes.push(hash);
                at += 1;
                in_segment += 1;
                if in_segment == per_segment {
                    in_segment = 0;
                    builder.transactions(transactions.clone());
                    let finished = builder.finish(Micros(0)).unwrap();
                    put(archive, &finished).await;
                    start = SegmentStart::after(&finished, archive.id(), TimelineId::FIRST, claim.epoch()).unwrap();
                    builder = new(&start);
                }
            }
        }
        for (_, event) in events {
            builder.push_event(event).unwrap();
        }
        put(archive, &builder.finish(Micros(0)).unwrap()).await;
        assert_eq!(at, self.records(), "every write is one record");
        shipped
    }

    fn pinned(&self) -> BTreeMap<FileNumber, Vec<u8>> {
        fs::read_dir(self.dir.path().join("pins"))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let Some(FileKind::Wal(number)) = file_name::parse(entry.file_name().to_str().unwrap()) else {
                    panic!()
                };
                (number, fs::read(entry.path()).unwrap())
            })
            .collect()
    }

    async fn base_document(
        &self,
        archive: &Archive,
        claim: &EpochClaim,
        random: &SeededRandom,
        base: &Taken,
        shipped: &Shipped,
    ) -> BaseDocument {
        let model = &base.model;
        let first_wal = model.first_wal_needed(TwoPhase::Off);
        let first = shipped.wal_starts.range(first_wal..).next().map_or(self.records(), |(_, at)| *at).min(base.floor);
        let mut files = Vec::new();
        for (cf, name, path) in &base.files {
            let content = fs::read(path).unwrap();
            let hash = pitr_archive::catalog::archive::content_hash(&content);
            let identity = FileIdentity::content(archive.keyring(), hash, content.len() as u64);
            let size = content.len() as u64;
            let stored =
                archive.upload_file(&identity, size, Source::new(Cursor::new(content)), claim, random).await.unwrap();
            files.push(BaseFile {
                name: name.clone(),
                column_family: *cf,
                path_id: 0,
                size,
                hash,
                object: stored.object,
                epoch: stored.epoch,
            });
        }
        let inline =
            |name: &str, content: &[u8]| InlineFile { name: name.to_owned(), content: STANDARD.encode(content) };
        let mut small: Vec<InlineFile> = base.small.iter().map(|(name, content)| inline(name, content)).collect();
        small.push(inline(&file_name::manifest(model.file()), &base.prefix));
        BaseDocument {
            version: 1,
            archive: archive.id(),
            id: BaseId::new(chrono::DateTime::UNIX_EPOCH, base.number),
            run: 0,
            floor: Position {
                timeline: TimelineId::FIRST,
                boundary: Boundary::new(base.floor),
                hash: shipped.hashes[base.floor as usize],
                wal: None,
                offset: None,
                sequence: SequenceNumber::new(self.states[base.floor as usize].sequence),
            },
            first_wal,
            first_record: Boundary::new(first),
            first_hash: shipped.hashes[first as usize],
            last_sequence: model.last_sequence(),
            max_file_sequence: model.live_files().map(|(.., f)| f.largest_seqno).max().unwrap_or_default(),
            manifest: ManifestPoint { file: model.file(), offset: model.applied_to() },
            db_id: "id".to_owned(),
            rocksdb_version: "11.8.1".to_owned(),
            column_families: model
                .column_families()
                .iter()
                .map(|(id, family)| BaseColumnFamily {
                    id: *id,
                    name: family.name.to_string(),
                    comparator: family.comparator.as_ref().map(ToString::to_string).unwrap_or_default(),
                    merge_operator: None,
                    compaction_filter: None,
                    log_number: family.log_number,
                })
                .collect(),
            allow_2pc: false,
            paths: DatabasePaths {
                db: self.source().to_str().unwrap().to_owned(),
                wal_dir: self.wal_dir.as_ref().map(|d| d.to_str().unwrap().to_owned()),
                ..DatabasePaths::default()
            },
            inline: small,
            files,
            created: Micros(0),
            epoch: claim.epoch(),
            nonce: Nonce([0; 16]),
            extra: Extra::new(),
        }
    }
}

async fn put(archive: &Archive, segment: &pitr_archive::segment::writer::FinishedSegment) {
    assert_eq!(archive.put_segment(segment).await.unwrap(), pitr_archive::catalog::archive::PutSegment::Created);
}

/// The `rocksdb` crate does not offer it.
fn single_delete(db: &DB, key: &[u8]) {
    use librocksdb_sys as ffi;
    use rocksdb::AsRawPtr;
    let mut error = std::ptr::null_mut();
    // SAFETY: the database is open, the options are freed after the call, key and error are valid for it.
    unsafe {
        let options = ffi::rocksdb_writeoptions_create();
        ffi::rocksdb_singledelete(db.as_raw_ptr(), options, key.as_ptr().cast(), key.len(), &mut error);
        ffi::rocksdb_writeoptions_destroy(options);
    }
    assert!(error.is_null());
}

struct Shipped {
    /// After n records, before the events there.
    hashes: Vec<RunningHash>,
    wal_starts: BTreeMap<FileNumber, u64>,
}

fn manifest_records(bytes: &[u8]) -> Vec<(Vec<u8>, u64)> {
    LogReader::new(LogKind::Manifest)
        .read_all(bytes, Finality::Growing)
        .filter_map(|answer| match answer {
            Read::Record { payload, end, .. } => Some((payload.into_owned(), end)),
            _ => None,
        })
        .collect()
}

type Sizes = Option<(u64, Vec<(ColumnFamilyId, u16)>)>;

fn wal_records(wal: FileNumber, bytes: &[u8]) -> Vec<(Record, Sizes)> {
    let mut sizes = None;
    let mut records = Vec::new();
    for answer in LogReader::new(LogKind::Wal(wal)).read_all(bytes, Finality::Final) {
        match answer {
            Read::Record { start, end, payload } => {
                records.push((Record { wal, start, end, payload: payload.into_owned().into() }, sizes.take()));
            }
            Read::Metadata { start, metadata: Metadata::TimestampSizes(found), .. } => sizes = Some((start, found)),
            Read::Metadata { .. } => {}
            Read::End { void_bytes, .. } => assert_eq!(void_bytes, 0),
            other => panic!("{other:?}"),
        }
    }
    records
}

/// What a directory holds when RocksDB opens it, in its strictest mode.
pub(crate) fn read(directory: &Path) -> State {
    let mut options = options();
    options.create_if_missing(false);
    options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::AbsoluteConsistency);
    let names = DB::list_cf(&options, directory).unwrap();
    let db = DB::open_cf(&options, directory, &names).unwrap();
    let sequence = db.latest_sequence_number();
    let families = names
        .into_iter()
        .map(|name| {
            let content = db
                .iterator_cf(&db.cf_handle(&name).unwrap(), IteratorMode::Start)
                .map(|pair| pair.map(|(k, v)| (k.into_vec(), v.into_vec())).unwrap())
                .collect();
            (name, content)
        })
        .collect();
    State { families, sequence }
}
