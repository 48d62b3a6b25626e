//! A long archive: a segment a minute, a base for every thousand of them, ten tags for every base.
//!
//! `PITR_SEGMENTS=1000000 cargo test --release --test retention a_long -- --nocapture` says how long a dry run takes on a
//! local store; without it the archive is small.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pitr_archive::{
    catalog::{
        archive::{Archive, EpochClaim, NewTimeline},
        schema::{
            BaseDocument, DOCUMENT_VERSION, DatabasePaths, Extra, ManifestDocument, ManifestProgress, Position,
            SegmentSummary, TagDocument,
        },
    },
    clock::{Clock, ManualClock, Micros},
    ids::{
        BaseId, Boundary, ContentHash, FileNumber, ManifestNumber, Ordinal, RunningHash, SequenceNumber, TimelineId,
    },
    object_key::ObjectKey,
    random::{OsRandom, Random},
    segment::{
        entry::{Event, ManifestPoint, Record},
        envelope::Level,
        writer::{RecordSequences, SegmentBuilder, SegmentStart},
    },
    store::{Store, local::LocalStore, memory::MemoryStore},
};
use pitr_archiver::retention::{Floor, Mode, Policy, Request, prune};

use super::{START, micros};

const MINUTE: Duration = Duration::from_secs(60);
const SEGMENTS_OF_A_BASE: u64 = 1000;
const SEGMENTS_OF_A_MANIFEST: usize = 600;

fn segments() -> u64 {
    let number = std::env::var("PITR_SEGMENTS").ok().map(|text| text.parse().expect("PITR_SEGMENTS"));
    number.unwrap_or(6_000)
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
        Self { memory, archive, claim, clock, root: root.to_owned(), next, manifest: (0, None), pending: Vec::new() }
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
            let record = Record { wal, start, end: start + 90, payload: Bytes::from(format!("record {number}")) };
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
        if self.pending.len() == SEGMENTS_OF_A_MANIFEST {
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
            bases: Vec::new(),
            tags: Vec::new(),
            pruned: Vec::new(),
            created: self.clock.now(),
            epoch: self.claim.epoch(),
            nonce: Self::nonce(),
            extra: Extra::new(),
        };
        let put = self.archive.put_manifest(&document, &self.claim, &OsRandom).await.unwrap();
        let pitr_archive::catalog::archive::PutDocument::Created { hash } = put else { panic!("{put:?}") };
        self.manifest = (number + 1, Some(hash));
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
                nonce: Self::nonce(),
                extra: Extra::new(),
            };
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

#[tokio::test]
async fn a_long_archive_is_decided_about_in_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("archive");
    let mut writer = Writer::new(&root).await;
    let wanted = segments();
    while writer.next.ordinal.get() < wanted {
        if writer.next.ordinal.get().is_multiple_of(SEGMENTS_OF_A_BASE) {
            writer.base().await;
        } else {
            writer.segment().await;
        }
    }
    writer.close().await;
    writer.write_out();
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(&root, &writer.clock).unwrap());
    let began = Instant::now();
    let archive = Archive::open(store, None).await.unwrap();
    let request = Request { policy: Policy::default(), floor: Floor::Respected, mode: Mode::DryRun };
    let report = prune(&archive, &request, &writer.clock, &OsRandom).await.unwrap();
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
