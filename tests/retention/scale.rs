//! A long archive: a segment a minute, a base for every thousand of them, ten tags for every base.
//!
//! `PITR_SEGMENTS=1000000 cargo test --release --test retention a_long -- --nocapture` says how long a dry run and plans take
//! on a local store, and how many requests; without it the archive is small, and every plan is compared with the one that
//! the whole catalog gives. `PITR_ARCHIVE=DIRECTORY` leaves the archive there, for `pitr plan` and others, and finds it there
//! the next time.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pitr_archive::{
    catalog::{
        archive::{Archive, EpochClaim, NewTimeline, indexes::IndexWriting},
        index::Shape,
        schema::{
            BaseDocument, DOCUMENT_VERSION, DatabasePaths, Extra, ManifestDocument, ManifestProgress, Position,
            SegmentSummary, TagDocument,
        },
    },
    clock::{Clock, ManualClock, Micros},
    ids::{
        BaseId, Boundary, ColumnFamilyId, ContentHash, FileNumber, ManifestNumber, Ordinal, RecordNumber, RunningHash,
        SequenceNumber, TimelineId,
    },
    object_key::ObjectKey,
    random::{OsRandom, Random},
    rocks::write_batch::{Op, WriteBatchBuilder},
    segment::{
        entry::{Event, ManifestPoint, Record},
        envelope::Level,
        writer::{RecordSequences, SegmentBuilder, SegmentStart},
    },
    store::{
        Store,
        local::LocalStore,
        measured::{MeasuredStore, Meter},
        memory::MemoryStore,
    },
    tag,
};
use pitr_archiver::retention::{Floor, Mode, Policy, Request, prune};
use pitr_replayer::{
    plan::{PlanOptions, RestorePlan, outlined, plan},
    target::Target,
};

use super::{START, micros};

const MINUTE: Duration = Duration::from_secs(60);
const SEGMENTS_OF_A_BASE: u64 = 1000;
/// What `plan` may ask of the store.
const REQUESTS: u64 = 64;

fn segments() -> u64 {
    let number = std::env::var("PITR_SEGMENTS").ok().map(|text| text.parse().expect("PITR_SEGMENTS"));
    number.unwrap_or(6_000)
}

/// As an archiver closes them; of a small archive, so few that there are indexes.
fn segments_of_a_manifest() -> usize {
    if segments() < 100_000 { 60 } else { 600 }
}

struct Writer {
    memory: MemoryStore,
    archive: Archive,
    claim: EpochClaim,
    clock: ManualClock,
    /// Files are written here as they are: to make a million durable takes hours.
    root: PathBuf,
    next: SegmentStart,
    manifest: (u64, Option<ContentHash>),
    pending: Vec<SegmentSummary>,
    bases: Vec<BaseId>,
    tags: Vec<(ContentHash, Position)>,
}

impl Writer {
    async fn new(root: &Path) -> Self {
        let clock = ManualClock::new(START);
        let memory = MemoryStore::new();
        let archive = Archive::open_or_create(Arc::new(memory.clone()), None, &clock, &OsRandom).await.unwrap();
        let claim = archive.claim_epoch("scale", &clock, &OsRandom).await.unwrap();
        let wanted = NewTimeline { db_id: "db", restore_marker: None, parent: None, detail: "" };
        let timeline = archive.open_timeline(&wanted, &claim, &clock, &OsRandom).await.unwrap().timeline;
        let next = SegmentStart {
            archive: archive.id(),
            timeline,
            ordinal: Ordinal::new(0),
            epoch: claim.epoch(),
            first: Boundary::START,
            hash_before: RunningHash::ZERO,
            last_sequence: SequenceNumber::new(0),
            wal: None,
        };
        Self {
            memory,
            archive,
            claim,
            clock,
            root: root.to_owned(),
            next,
            manifest: (0, None),
            pending: Vec::new(),
            bases: Vec::new(),
            tags: Vec::new(),
        }
    }

    fn file(&self, key: &ObjectKey, body: &[u8]) {
        let path = self.root.join(key.as_str());
        if let Err(e) = std::fs::write(&path, body) {
            assert_eq!(e.kind(), std::io::ErrorKind::NotFound, "{e}");
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, body).unwrap();
        }
    }

    fn position(&self) -> Position {
        Position {
            timeline: self.next.timeline,
            boundary: self.next.first,
            hash: self.next.hash_before,
            wal: None,
            offset: None,
            sequence: self.next.last_sequence,
        }
    }

    fn nonce() -> pitr_archive::ids::Nonce {
        let random: &dyn Random = &OsRandom;
        random.nonce().unwrap()
    }

    async fn segment(&mut self) {
        self.clock.advance(micros(MINUTE));
        let ordinal = self.next.ordinal.get();
        let mut builder =
            SegmentBuilder::new(self.next.clone(), self.archive.keyring(), &OsRandom, Level::default()).unwrap();
        let wal = FileNumber::new(4 + ordinal / SEGMENTS_OF_A_BASE);
        if ordinal == 0 {
            builder.push_event(&Event::RunStarted { run: 0, first_wal: wal, db_id: "db".to_owned() }).unwrap();
        }
        if ordinal.is_multiple_of(SEGMENTS_OF_A_BASE) {
            builder.push_event(&Event::WalStarted { wal }).unwrap();
        }
        for n in 0..2 {
            let number = builder.end().get();
            let sequence = SequenceNumber::new(number + 1);
            let start = (ordinal % SEGMENTS_OF_A_BASE * 2 + n) * 100;
            let mut batch = WriteBatchBuilder::new(sequence);
            batch.push(&Op::Put { cf: ColumnFamilyId::DEFAULT, key: b"key", value: &number.to_le_bytes() });
            let record = Record { wal, start, end: start + 90, payload: Bytes::from(batch.finish()) };
            builder.push_record(&record, RecordSequences { first: sequence, last: sequence }).unwrap();
        }
        let now = self.clock.now();
        builder.look(Micros(now.0 - 1000), now);
        builder.manifest(ManifestProgress {
            point: ManifestPoint { file: FileNumber::new(1), offset: ordinal },
            digest: ContentHash([0; 32]),
            edits: None,
            session: 0,
            db_session_id: None,
        });
        let finished = builder.finish(now).unwrap();
        self.file(&finished.key, &finished.body);
        let (archive, claim) = (self.archive.id(), self.claim.epoch());
        self.next = SegmentStart::after(&finished, archive, TimelineId::FIRST, claim).unwrap();
        self.pending.push(finished.summary.clone());
        if self.pending.len() == segments_of_a_manifest() {
            self.close().await;
        }
    }

    async fn close(&mut self) {
        let (number, previous) = self.manifest;
        let document = ManifestDocument {
            version: DOCUMENT_VERSION,
            archive: self.archive.id(),
            timeline: TimelineId::FIRST,
            number: ManifestNumber::new(number),
            previous,
            rebuilt: false,
            segments: std::mem::take(&mut self.pending),
            bases: std::mem::take(&mut self.bases),
            tags: std::mem::take(&mut self.tags),
            pruned: Vec::new(),
            merged: Vec::new(),
            created: self.clock.now(),
            epoch: self.claim.epoch(),
            nonce: Self::nonce(),
            extra: Extra::new(),
        };
        let put = self.archive.put_manifest(&document, &self.claim, &OsRandom).await.unwrap();
        let pitr_archive::catalog::archive::PutDocument::Created { hash } = put else { panic!("{put:?}") };
        self.manifest = (number + 1, Some(hash));
        let shape = Shape::default();
        let writing = IndexWriting { shape, claim: &self.claim, clock: &self.clock, random: &OsRandom };
        for group in shape.completed_by(document.number) {
            self.archive.write_index(TimelineId::FIRST, group, &writing).await.unwrap();
        }
    }

    /// A base that begins with the WAL that begins now, and its tags a little later.
    async fn base(&mut self) {
        let (first, created) = (self.position(), self.clock.now());
        let manifest = ManifestPoint { file: FileNumber::new(1), offset: self.next.ordinal.get() };
        let first_wal = FileNumber::new(4 + self.next.ordinal.get() / SEGMENTS_OF_A_BASE);
        self.segment().await;
        let document = BaseDocument {
            version: DOCUMENT_VERSION,
            archive: self.archive.id(),
            id: BaseId::new(created.to_datetime(), 7),
            run: 0,
            floor: self.position(),
            first_wal,
            first_record: first.boundary,
            first_hash: first.hash,
            last_sequence: SequenceNumber::new(0),
            max_file_sequence: SequenceNumber::new(0),
            manifest,
            db_id: "db".to_owned(),
            rocksdb_version: "11.8.1".to_owned(),
            column_families: Vec::new(),
            allow_2pc: false,
            paths: DatabasePaths::default(),
            inline: Vec::new(),
            files: Vec::new(),
            created,
            epoch: self.claim.epoch(),
            nonce: Self::nonce(),
            extra: Extra::new(),
        };
        let put = self.archive.put_base(&document, &self.claim, &OsRandom).await.unwrap();
        assert!(matches!(put, pitr_archive::catalog::archive::PutDocument::Created { .. }));
        self.bases.push(document.id.clone());
        for n in 0..10 {
            self.segment().await;
            let tag = TagDocument {
                version: DOCUMENT_VERSION,
                archive: self.archive.id(),
                name: format!("tag-{}-{n}", document.floor.boundary),
                position: self.position(),
                created: self.clock.now(),
                note: String::new(),
                observed_only: false,
                expires: None,
                group: None,
                nonce: Self::nonce(),
                extra: Extra::new(),
            };
            let name = tag::Name::parse(&tag.name).unwrap();
            self.tags.push((self.archive.tag_hash(&name), tag.position));
            let put = self.archive.put_tag(&tag, &self.claim, &OsRandom).await.unwrap();
            assert!(matches!(put, pitr_archive::catalog::archive::PutDocument::Created { .. }));
        }
    }

    /// What is not in files yet.
    fn write_out(&self) {
        for (key, body) in self.memory.contents() {
            self.file(&key, &body);
        }
    }
}

/// Generates the archive, unless it is there, and goes on at its end.
async fn generated(root: &Path) -> Arc<dyn Store> {
    let clock = ManualClock::new(START);
    let wanted = segments();
    if !root.exists() {
        let mut writer = Writer::new(root).await;
        while writer.next.ordinal.get() < wanted {
            if writer.next.ordinal.get().is_multiple_of(SEGMENTS_OF_A_BASE) {
                writer.base().await;
            } else {
                writer.segment().await;
            }
        }
        writer.close().await;
        writer.write_out();
    }
    Arc::new(LocalStore::open(root, &clock).unwrap())
}

fn root(dir: &tempfile::TempDir) -> PathBuf {
    std::env::var_os("PITR_ARCHIVE").map_or_else(|| dir.path().join("archive"), PathBuf::from)
}

/// When the archive ends.
fn end() -> ManualClock {
    ManualClock::new(Micros(START.0 + i64::try_from(segments()).unwrap() * micros(MINUTE)))
}

#[tokio::test]
async fn a_long_archive_is_decided_about_in_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let (store, wanted) = (generated(&root(&dir)).await, segments());
    let began = Instant::now();
    let archive = Archive::open(store, None).await.unwrap();
    let request = Request { policy: Policy::default(), floor: Floor::Respected, mode: Mode::DryRun };
    let report = prune(&archive, &request, &end(), &OsRandom).await.unwrap();
    let bases = wanted / SEGMENTS_OF_A_BASE;
    println!("a dry run over {wanted} segments, {bases} bases and {} tags: {:?}", report.tags.len(), began.elapsed());
    assert_eq!((report.bases.len() as u64, report.tags.len() as u64), (bases, bases * 10));
    assert!(report.tags.iter().all(|tag| tag.base.is_some()), "every tag is restored from a base");
    let kept: u64 = report.timelines[0].kept.iter().map(|kept| kept.segments).sum();
    assert_eq!(kept + report.condemned.segments.objects, wanted);
    // Between the last tag of a base and the next base nothing is needed outside the window.
    let outside = wanted.saturating_sub(8 * 24 * 60 + SEGMENTS_OF_A_BASE);
    assert!(
        report.condemned.segments.objects * 10 >= outside * 9,
        "{} of {outside}",
        report.condemned.segments.objects
    );
}

/// Targets of every kind, all over the archive.
fn targets(count: u64) -> Vec<Target> {
    let (records, bases) = (segments() * 2, segments() / SEGMENTS_OF_A_BASE);
    let mut targets = vec![Target::Latest];
    for n in 0..count {
        let part = |of: u64| of * n / count;
        let floor = part(bases) * SEGMENTS_OF_A_BASE * 2 + 2;
        let minutes = i64::try_from(part(segments()) + 1).unwrap();
        targets.push(Target::tag(&format!("tag-{floor}-{}", n % 10)));
        targets.push(Target::Record(RecordNumber::new(part(records) + 1)));
        targets.push(Target::Sequence(SequenceNumber::new(part(records) + 2)));
        targets.push(Target::Time(Micros(START.0 + minutes * micros(MINUTE) + 7).to_datetime()));
    }
    targets.push(Target::tag("unknown"));
    targets.push(Target::Record(RecordNumber::new(records)));
    targets.push(Target::Sequence(SequenceNumber::new(records + 1)));
    targets.push(Target::Time(Micros(START.0 - 1).to_datetime()));
    targets
}

fn requests(meter: &Meter) -> u64 {
    meter.read().requests.iter().map(|(_, durations)| durations.count()).sum()
}

#[tokio::test]
async fn a_long_archive_is_planned_on_with_few_requests_and_as_the_whole_catalog_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = generated(&root(&dir)).await;
    let options = PlanOptions::default();
    let small = segments() < 100_000;
    let whole = match small {
        true => Some(Archive::open(store.clone(), None).await.unwrap().load_catalog().await.unwrap()),
        false => None,
    };
    let told = |planned: pitr_archive::Result<RestorePlan>| planned.map_err(|e| e.to_string());
    for target in targets(if small { 40 } else { 3 }) {
        let meter = Arc::new(Meter::new(Arc::new(end())));
        let measured = Arc::new(MeasuredStore::new(store.clone(), meter.clone()));
        let began = Instant::now();
        let archive = Archive::open(measured, None).await.unwrap();
        let mut outline = archive.load_outline().await.unwrap();
        let (loaded, asked) = (began.elapsed(), requests(&meter));
        assert_eq!(outline.take_findings().len(), 0);
        let planned = told(outlined::plan(&archive, &mut outline, &target, &options).await);
        let position = planned.as_ref().map(|plan| plan.position.boundary);
        println!(
            "{target}: {position:?}, {} requests ({asked} to begin with), {:?} ({loaded:?})",
            requests(&meter),
            began.elapsed()
        );
        // Which tags there are is told to whoever names another.
        let all_tags = matches!(&target, Target::Tag(name) if name == "unknown");
        assert!(all_tags || requests(&meter) <= REQUESTS, "{target}");
        if let Some(catalog) = &whole {
            let expected = told(plan(&archive, catalog, &target, &options).await);
            assert_eq!(planned, expected, "{target}");
        }
    }
}

#[tokio::test]
async fn a_long_archive_is_drawn_from_its_indexes_with_all_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let root = root(&dir);
    let store = generated(&root).await;
    let outline = Archive::open(store, None).await.unwrap().load_outline().await.unwrap();
    let timelines = || outline.catalog().timelines();
    assert!(timelines().flat_map(|t| t.segments()).any(|s| s.rolled_up.is_some()), "there are indexes");
    let records: u64 = timelines().map(|t| t.end().get()).sum();
    let list = |json: &[&str]| {
        let began = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitr"));
        command.args(["list", "--timeline", "--archive", &format!("file:{}", root.display())]).args(json);
        let output = command.env("LC_ALL", "C.UTF-8").output().unwrap();
        println!("the picture of {} segments: {:?}", segments(), began.elapsed());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let listed: serde_json::Value = serde_json::from_str(&list(&["--json"])).unwrap();
    let row = &listed["picture"]["timelines"][0];
    let number = |field: &str| row[field].as_array().unwrap().len() as u64;
    let bases = segments() / SEGMENTS_OF_A_BASE;
    assert_eq!((number("windows"), number("bases"), number("tags")), (1, bases, 10 * bases));
    let written = row["written"].as_array().unwrap().iter().map(|part| part["records"].as_u64().unwrap());
    assert_eq!(written.sum::<u64>(), records);
    let drawn = list(&[]);
    let title = format!("timeline 1 *  {bases} bases  {} tags", 10 * bases);
    assert!(drawn.starts_with(&title) && drawn.contains(&format!("  {records} records")), "{drawn}");
    assert!(drawn.lines().all(|line| line.chars().count() <= 100), "{drawn}");
}
