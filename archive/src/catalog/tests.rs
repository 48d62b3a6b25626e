//! What an archive promises about its own objects: whatever is lost, damaged, swapped, doubled or of another archive is
//! named, and a lost reply is never taken for another writer.

use std::{io::Cursor, sync::Arc};

use bytes::Bytes;

use super::{
    archive::{Archive, EpochClaim, NewTimeline, PutDocument, PutSegment},
    load::Survey,
    model::{Catalog, Named},
    schema::*,
};
use crate::{
    base::{CHUNK, FileIdentity, Sent, Source},
    clock::{ManualClock, Micros},
    code::Code,
    error::Result,
    ids::*,
    keyring::MasterKey,
    object_key::{ObjectKey, prefix},
    random::{Random, SeededRandom},
    segment::{
        entry::{BarrierReason, ColumnFamilyChange, Event, Interval, ManifestPoint, Record},
        envelope::Level,
        writer::{FinishedSegment, RecordSequences, SegmentBuilder, SegmentStart},
    },
    store::{Store, faulty::FaultyStore, memory::MemoryStore},
    tag::Name,
};

mod drills;
mod golden;
mod merged;
mod outline;

const TIMELINE: TimelineId = TimelineId::FIRST;

fn master() -> MasterKey {
    MasterKey::new([0x42; 32])
}

/// An archive with one writer.
struct Scene {
    store: MemoryStore,
    archive: Archive,
    claim: EpochClaim,
    clock: ManualClock,
    random: SeededRandom,
    next: SegmentStart,
    segments: Vec<SegmentSummary>,
    /// Merged segments that the next manifest names.
    merged: Vec<SegmentSummary>,
    previous: Option<ContentHash>,
    manifests: u64,
}

impl Scene {
    async fn new(encrypted: bool, seed: u64) -> Self {
        let store = MemoryStore::new();
        let clock = ManualClock::new(Micros(1_000_000));
        let random = SeededRandom::new(seed);
        let key = encrypted.then(master);
        let archive = Archive::open_or_create(Arc::new(store.clone()), key, &clock, &random).await.unwrap();
        let claim = archive.claim_epoch("test", &clock, &random).await.unwrap();
        let wanted = NewTimeline { db_id: "db", restore_marker: None, parent: None, detail: "" };
        let timeline = archive.open_timeline(&wanted, &claim, &clock, &random).await.unwrap().timeline;
        assert_eq!(timeline, TIMELINE);
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
        let (segments, merged, previous, manifests) = (Vec::new(), Vec::new(), None, 0);
        Self { store, archive, claim, clock, random, next, segments, merged, previous, manifests }
    }

    fn build(&self, records: u64) -> FinishedSegment {
        let mut builder =
            SegmentBuilder::new(self.next.clone(), self.archive.keyring(), &self.random, Level::default()).unwrap();
        let wal = FileNumber::new(4);
        if self.next.wal.is_none() {
            let started = Event::RunStarted { run: 0, first_wal: wal, db_id: "db".to_owned() };
            builder.push_event(&started).unwrap();
            builder.push_event(&Event::WalStarted { wal }).unwrap();
        }
        for _ in 0..records {
            let number = builder.end().get();
            let payload = Bytes::from(format!("record {number}"));
            let sequence = SequenceNumber::new(number + 1);
            let record = Record { wal, start: number * 100, end: number * 100 + 90, payload };
            builder.push_record(&record, RecordSequences { first: sequence, last: sequence }).unwrap();
        }
        builder.look(Micros(10), Micros(20));
        builder.finish(Micros(30)).unwrap()
    }

    fn shipped(&mut self, finished: &FinishedSegment) {
        self.next = SegmentStart::after(finished, self.archive.id(), TIMELINE, self.claim.epoch()).unwrap();
        self.segments.push(finished.summary.clone());
    }

    async fn ship(&mut self, records: u64) -> Position {
        let finished = self.build(records);
        assert_eq!(self.archive.put_segment(&finished).await.unwrap(), PutSegment::Created);
        self.shipped(&finished);
        self.position()
    }

    fn position(&self) -> Position {
        Position {
            timeline: TIMELINE,
            boundary: self.next.first,
            hash: self.next.hash_before,
            wal: None,
            offset: None,
            sequence: SequenceNumber::new(0),
        }
    }

    async fn manifest(&mut self) {
        self.manifest_naming(Vec::new(), Vec::new()).await;
    }

    async fn manifest_naming(&mut self, bases: Vec<BaseId>, tags: Vec<(ContentHash, Position)>) {
        let document = ManifestDocument {
            version: DOCUMENT_VERSION,
            archive: self.archive.id(),
            timeline: TIMELINE,
            number: ManifestNumber::new(self.manifests),
            previous: self.previous,
            rebuilt: false,
            segments: std::mem::take(&mut self.segments),
            bases,
            tags,
            pruned: Vec::new(),
            merged: std::mem::take(&mut self.merged),
            created: Micros(0),
            epoch: self.claim.epoch(),
            nonce: nonce(&self.random),
            extra: Extra::new(),
        };
        let put = self.archive.put_manifest(&document, &self.claim, &self.random).await.unwrap();
        let PutDocument::Created { hash } = put else { panic!("{put:?}") };
        self.previous = Some(hash);
        self.manifests += 1;
    }

    fn tag(&self, name: &str, position: Position) -> TagDocument {
        TagDocument {
            version: DOCUMENT_VERSION,
            archive: self.archive.id(),
            name: name.to_owned(),
            position,
            created: Micros(0),
            note: "why".to_owned(),
            observed_only: false,
            expires: None,
            group: None,
            nonce: nonce(&self.random),
            extra: Extra::new(),
        }
    }

    fn base(&self, floor: Position) -> BaseDocument {
        BaseDocument {
            version: DOCUMENT_VERSION,
            archive: self.archive.id(),
            id: BaseId::new(Micros(0).to_datetime(), 7),
            run: 0,
            floor,
            first_wal: FileNumber::new(4),
            first_record: Boundary::START,
            first_hash: RunningHash::ZERO,
            last_sequence: SequenceNumber::new(0),
            max_file_sequence: SequenceNumber::new(0),
            manifest: ManifestPoint { file: FileNumber::new(1), offset: 0 },
            db_id: "db".to_owned(),
            rocksdb_version: "11.8.1".to_owned(),
            column_families: Vec::new(),
            allow_2pc: false,
            paths: DatabasePaths::default(),
            inline: Vec::new(),
            files: Vec::new(),
            created: Micros(0),
            epoch: self.claim.epoch(),
            nonce: nonce(&self.random),
            extra: Extra::new(),
        }
    }

    /// Two manifests of two segments each, three segments after them (one is a heartbeat), a tag and a base.
    async fn full(encrypted: bool, seed: u64) -> Self {
        let mut scene = Self::new(encrypted, seed).await;
        for _ in 0..2 {
            scene.ship(3).await;
            scene.ship(2).await;
            scene.manifest().await;
        }
        scene.ship(4).await;
        scene.ship(0).await;
        let at = scene.ship(1).await;
        let tag = scene.tag("before", at);
        created(scene.archive.put_tag(&tag, &scene.claim, &scene.random).await);
        let base = scene.base(at);
        created(scene.archive.put_base(&base, &scene.claim, &scene.random).await);
        scene
    }

    async fn reopen(&self) -> Result<Archive> {
        let key = self.archive.keyring().is_encrypted().then(master);
        Archive::open(Arc::new(self.store.clone()), key).await
    }

    /// The findings about the archive in `store` as a new reader sees it.
    async fn findings(&self, store: &MemoryStore) -> Vec<crate::error::Error> {
        let key = self.archive.keyring().is_encrypted().then(master);
        let archive = match Archive::open(Arc::new(store.clone()), key).await {
            Ok(archive) => archive,
            Err(e) => return vec![e],
        };
        let Survey { catalog, mut findings } = match archive.survey().await {
            Ok(survey) => survey,
            Err(e) => return vec![e],
        };
        for timeline in catalog.timelines() {
            findings.extend(archive.absent_segments(timeline).await.unwrap());
        }
        findings
    }
}

fn nonce(random: &dyn Random) -> Nonce {
    random.nonce().unwrap()
}

fn created<D: std::fmt::Debug>(put: Result<PutDocument<D>>) -> ContentHash {
    match put.unwrap() {
        PutDocument::Created { hash } => hash,
        other => panic!("{other:?}"),
    }
}

#[test]
fn golden_bytes_of_a_document() {
    let key = ObjectKey::timeline(TIMELINE);
    let bytes = super::envelope::encode(super::envelope::Kind::Timeline, &key, b"{}", None).unwrap();
    let body = &bytes[128..];
    let mut expected = Vec::new();
    expected.extend(b"pitr.doc"); // 0 magic
    expected.extend([1, 0]); // 8 version
    expected.extend([128, 0]); // 10 header length
    expected.extend([0; 4]); // 12 required flags: clear
    expected.extend([0; 4]); // 16 optional flags
    expected.extend([1, 0, 0, 0]); // 20 kind: timeline
    expected.extend([0; 8]); // 24 epoch
    expected.extend([0; 32]); // 32 salt
    expected.extend((body.len() as u64).to_le_bytes()); // 64 body length
    expected.extend([2, 0, 0, 0, 0, 0, 0, 0]); // 72 plain length
    let mut hashed = Vec::new();
    hashed.extend([28, 0]);
    hashed.extend(b"timelines/0000000001.doc");
    hashed[0] = (hashed.len() - 2) as u8;
    hashed.extend(&expected);
    hashed.extend(body);
    expected.extend(blake3::hash(&hashed).as_bytes()); // 80 hash
    expected.extend([0; 12]); // 112 reserved
    expected.extend(crc32c::crc32c(&expected).to_le_bytes()); // 124 crc32c of the bytes before
    assert_eq!(bytes[..128], expected);
    assert_eq!(body[..4], crc32c::crc32c(b"{}").to_le_bytes()); // crc32c of the JSON, then zstd
    assert_eq!(zstd::decode_all(&body[4..]).unwrap(), b"{}");
}

#[tokio::test]
async fn a_position_inside_a_segment_is_confirmed_by_reading_it() {
    for encrypted in [false, true] {
        let mut scene = Scene::new(encrypted, 19).await;
        let end = scene.ship(3).await;
        let reader = scene.archive.read_segment(TIMELINE, Ordinal::new(0)).await.unwrap();
        let inside = reader.hashes_at(Boundary::new(2)).unwrap();
        assert_eq!(inside.len(), 1);
        scene.ship(1).await;
        let catalog = scene.archive.load_catalog().await.unwrap();
        let timeline = catalog.current_timeline().unwrap();
        let confirm = async |boundary, hash| {
            let position = Position { boundary: Boundary::new(boundary), hash, ..end };
            scene.archive.confirm_position(timeline, &position).await.map_err(|e| e.code())
        };
        assert_eq!(confirm(2, inside[0]).await, Ok(()));
        assert_eq!(confirm(3, end.hash).await, Ok(()));
        assert_eq!(confirm(0, RunningHash::ZERO).await, Ok(()));
        assert_eq!(confirm(2, end.hash).await, Err(Code::ChainBroken));
        assert_eq!(confirm(3, inside[0]).await, Err(Code::ChainBroken));
        assert_eq!(confirm(5, end.hash).await, Err(Code::SegmentMissing));
    }
}

#[tokio::test]
async fn an_archive_comes_back_with_everything_in_it() {
    for encrypted in [false, true] {
        let scene = Scene::full(encrypted, 1).await;
        let archive = scene.reopen().await.unwrap();
        assert_eq!(archive.id(), scene.archive.id());
        let catalog = archive.load_catalog().await.unwrap();
        let timeline = catalog.current_timeline().unwrap();
        assert_eq!(timeline.segments().len(), 7);
        assert_eq!(timeline.manifests().len(), 2);
        assert_eq!(timeline.end(), Boundary::new(15));
        assert_eq!(timeline.next_ordinal(), Ordinal::new(7));
        assert_eq!(catalog.tag("before").unwrap().position, scene.position());
        assert_eq!(archive.get_tag(&Name::parse("before").unwrap()).await.unwrap(), catalog.tag("before").cloned());
        assert_eq!(catalog.bases().len(), 1);
        let base = &catalog.bases()[0];
        assert_eq!(catalog.base(&base.id), Some(base));
        assert_eq!(catalog.bases_of_run(TIMELINE, 0), [base]);

        let tail = archive.tail(TIMELINE).await.unwrap();
        assert_eq!(tail.segments.len(), 3);
        assert_eq!(tail.next_manifest, ManifestNumber::new(2));
        assert_eq!(tail.previous_manifest, scene.previous);
        assert_eq!(tail.head.unwrap().summary.hash_after, scene.next.hash_before);

        let mut records = 0;
        for summary in timeline.segments() {
            let reader = archive.read_segment(TIMELINE, summary.ordinal).await.unwrap();
            reader.verify().unwrap();
            records += summary.end.get() - summary.first.get();
            let index = archive.read_index(TIMELINE, summary.ordinal).await.unwrap();
            let frames = archive.read_frames(&index, 0..index.footer().frames.len()).await.unwrap();
            assert_eq!(frames.len(), usize::from(summary.end > summary.first));
        }
        assert_eq!(records, 15);
        assert!(scene.findings(&scene.store).await.is_empty());
    }
}

#[tokio::test]
async fn manifests_that_were_read_ahead_change_nothing_about_a_catalog() {
    let same = async |archive: &Archive, ahead| {
        let text = |loaded: Result<Catalog>| loaded.map_or_else(|e| e.to_string(), |catalog| format!("{catalog:?}"));
        assert_eq!(text(archive.load_catalog_behind(ahead).await), text(archive.load_catalog().await));
    };
    for encrypted in [false, true] {
        let mut scene = Scene::full(encrypted, 17).await;
        let ahead = scene.archive.read_ahead().await.unwrap();
        scene.ship(2).await;
        scene.manifest().await;
        scene.ship(1).await;
        same(&scene.archive, ahead).await;
        let first = ObjectKey::manifest(TIMELINE, ManifestNumber::new(0));
        let ahead = scene.archive.read_ahead().await.unwrap();
        scene.store.delete(&first).await.unwrap();
        assert_eq!(scene.archive.load_catalog().await.unwrap_err().code(), Code::ObjectMissing);
        same(&scene.archive, ahead).await;
        let ahead = scene.archive.read_ahead().await.unwrap();
        same(&scene.archive, ahead).await;
    }
}

#[tokio::test]
async fn the_lost_object_is_the_one_that_is_named() {
    for encrypted in [false, true] {
        let scene = Scene::full(encrypted, 2).await;
        for (key, _) in scene.store.contents() {
            let store = scene.store.fork();
            store.delete(&key).await.unwrap();
            let findings = scene.findings(&store).await;
            let expected = match key.as_str().split('/').next().unwrap() {
                "archive.json" => Code::NotAnArchive,
                "segments" => Code::SegmentMissing,
                "epochs" | "timelines" => Code::ObjectMissing,
                "manifests" if key == ObjectKey::manifest(TIMELINE, ManifestNumber::new(0)) => Code::ObjectMissing,
                // The newest manifest: its segments are read instead. A tag, a base that no manifest names: as if
                // deleted by its owner.
                "manifests" | "tags" | "bases" => {
                    assert!(findings.is_empty(), "{key}: {findings:?}");
                    continue;
                }
                other => panic!("{other}"),
            };
            let found = findings.iter().find(|e| e.code() == expected).unwrap_or_else(|| panic!("{key}: {findings:?}"));
            if expected != Code::NotAnArchive {
                assert!(findings.iter().any(|e| e.object() == Some(key.as_str())), "{key}: {found}");
            }
        }
    }
}

#[tokio::test]
async fn every_flipped_byte_of_every_object_is_found() {
    for encrypted in [false, true] {
        let scene = Scene::full(encrypted, 3).await;
        for (key, body) in scene.store.contents() {
            // Segments have their own exhaustive test; here they show that the catalog sees header and footer.
            let segment = key.segment_ordinal().is_some();
            for at in (0..body.len()).filter(|at| !segment || at % 7 == 0 || *at < 256) {
                let mut damaged = body.to_vec();
                damaged[at] ^= if at % 2 == 0 { 0x20 } else { 0x01 };
                let store = scene.store.fork();
                store.overwrite(&key, damaged.into());
                let archive = Archive::open(Arc::new(store.clone()), encrypted.then(master)).await;
                let e = match (archive, key.segment_ordinal()) {
                    (Err(e), _) => e,
                    (Ok(archive), Some(ordinal)) => {
                        let read = async { archive.read_segment(TIMELINE, ordinal).await?.verify() };
                        read.await.expect_err(&format!("{key} byte {at}"))
                    }
                    (Ok(archive), None) => archive.load_catalog().await.expect_err(&format!("{key} byte {at}")),
                };
                assert!(
                    matches!(
                        e.code(),
                        Code::ObjectDamaged
                            | Code::ObjectUnsupported
                            | Code::SegmentDamaged
                            | Code::SegmentUnsupported
                            | Code::ChainBroken
                    ),
                    "{key} byte {at}: {e}"
                );
                assert_eq!(e.object(), Some(key.as_str()), "byte {at}: {e}");
            }
        }
    }
}

#[tokio::test]
async fn every_truncated_document_is_found() {
    for encrypted in [false, true] {
        let scene = Scene::full(encrypted, 4).await;
        for (key, body) in scene.store.contents().into_iter().filter(|(k, _)| k.segment_ordinal().is_none()) {
            for len in 0..body.len() {
                let store = scene.store.fork();
                store.overwrite(&key, body.slice(..len));
                let findings = scene.findings(&store).await;
                let last_newline = key == ObjectKey::archive() && len + 1 == body.len();
                assert!(
                    findings.iter().any(|e| e.object() == Some(key.as_str())),
                    "{key} cut at {len}: {last_newline}"
                );
            }
        }
    }
}

#[tokio::test]
async fn swapped_and_doubled_objects_are_found() {
    for encrypted in [false, true] {
        let mut scene = Scene::full(encrypted, 5).await;
        let other = scene.tag("other", scene.position());
        created(scene.archive.put_tag(&other, &scene.claim, &scene.random).await);
        scene.ship(3).await;
        let contents = scene.store.contents();
        let kind = |key: &ObjectKey| key.as_str().split('/').next().unwrap_or_default().to_owned();
        for (a, body_a) in &contents {
            for (b, body_b) in contents.iter().filter(|(b, _)| b > a && kind(b) == kind(a)) {
                let store = scene.store.fork();
                store.overwrite(a, body_b.clone());
                store.overwrite(b, body_a.clone());
                let findings = scene.findings(&store).await;
                if a.segment_ordinal().is_none() {
                    assert!(findings.iter().any(|e| e.object() == Some(a.as_str())), "{a} <> {b}: {findings:?}");
                } else {
                    let archive = Archive::open(Arc::new(store), encrypted.then(master)).await.unwrap();
                    let ordinal = a.segment_ordinal().unwrap();
                    let e = archive.read_segment(TIMELINE, ordinal).await.unwrap_err();
                    assert_eq!(e.code(), Code::SegmentDamaged, "{a} <> {b}: {e}");
                }
            }
        }
        // A doubled segment after the end.
        let store = scene.store.fork();
        let last = ObjectKey::segment(TIMELINE, Ordinal::new(7));
        let body = store.get(&last, u64::MAX).await.unwrap().unwrap();
        let doubled = ObjectKey::segment(TIMELINE, Ordinal::new(8));
        store.overwrite(&doubled, body);
        let findings = scene.findings(&store).await;
        assert!(findings.iter().any(|e| e.object() == Some(doubled.as_str())), "{findings:?}");
    }
}

#[tokio::test]
async fn objects_of_another_archive_are_refused() {
    for encrypted in [false, true] {
        let scene = Scene::full(encrypted, 6).await;
        let foreign = Scene::full(encrypted, 7).await;
        for (key, body) in foreign.store.contents() {
            if key == ObjectKey::archive() || scene.store.size(&key).await.unwrap().is_none() {
                continue;
            }
            let store = scene.store.fork();
            store.overwrite(&key, body);
            let archive = Archive::open(Arc::new(store), encrypted.then(master)).await.unwrap();
            let e = match key.segment_ordinal() {
                Some(ordinal) => archive.read_segment(TIMELINE, ordinal).await.unwrap_err(),
                None => archive.load_catalog().await.unwrap_err(),
            };
            assert!(matches!(e.code(), Code::WrongArchive | Code::ObjectDamaged | Code::KeyWrong), "{key}: {e}");
        }
    }
}

#[tokio::test]
async fn another_tail_under_the_same_names_does_not_join() {
    // The archive as it was, then two histories: one keeps its manifest and tag, the other one's segments replace its own.
    let mut scene = Scene::new(false, 8).await;
    scene.ship(3).await;
    let fork = scene.store.fork();
    let at = scene.ship(2).await;
    scene.ship(2).await;
    let tag = scene.tag("here", at);
    created(scene.archive.put_tag(&tag, &scene.claim, &scene.random).await);
    let mut twin = Scene { store: fork.clone(), ..Scene::new(false, 9).await };
    twin.archive = Archive::open(Arc::new(fork.clone()), None).await.unwrap();
    twin.next = SegmentStart { wal: None, ..scene.next.clone() };
    twin.next.ordinal = Ordinal::new(1);
    twin.next.first = Boundary::new(3);
    twin.next.hash_before = twin.archive.read_footer(TIMELINE, Ordinal::new(0)).await.unwrap().summary.hash_after;
    twin.ship(2).await;
    twin.ship(2).await;
    let store = scene.store.fork();
    let replace = async |ordinal| {
        let key = ObjectKey::segment(TIMELINE, Ordinal::new(ordinal));
        store.overwrite(&key, fork.get(&key, u64::MAX).await.unwrap().unwrap());
    };
    replace(1).await;
    let findings = scene.findings(&store).await;
    let next = ObjectKey::segment(TIMELINE, Ordinal::new(2));
    assert!(
        findings.iter().any(|e| e.code() == Code::ChainBroken && e.object() == Some(next.as_str())),
        "{findings:?}"
    );
    // Both replaced: the segments join, and the tag knows that they are not the ones it was made on.
    replace(2).await;
    let findings = scene.findings(&store).await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((findings[0].code(), findings[0].object()), (Code::ChainBroken, Some("tag here")));
}

#[tokio::test]
async fn keys_are_asked_for_checked_and_refused_where_they_do_not_belong() {
    let sealed = Scene::full(true, 10).await;
    let open = |store: &MemoryStore, key: Option<MasterKey>| {
        let store: Arc<dyn Store> = Arc::new(store.clone());
        async move { Archive::open(store, key).await.map(|_| ()).unwrap_err().code() }
    };
    assert_eq!(open(&sealed.store, None).await, Code::KeyRequired);
    assert_eq!(open(&sealed.store, Some(MasterKey::new([1; 32]))).await, Code::KeyWrong);
    let clear = Scene::full(false, 11).await;
    assert_eq!(open(&clear.store, Some(master())).await, Code::KeyUnexpected);
    assert_eq!(open(&MemoryStore::new(), None).await, Code::NotAnArchive);
    let shown = format!("{:?} {:?}", sealed.archive, master());
    assert!(!shown.contains("42424242") && !shown.contains("66, 66"), "{shown}");
}

#[tokio::test]
async fn names_are_not_in_the_clear_in_an_encrypted_archive() {
    let scene = Scene::full(true, 12).await;
    let word = |needle: &[u8]| {
        scene.store.contents().iter().any(|(key, body)| {
            key.as_str().as_bytes().windows(needle.len()).any(|w| w == needle)
                || body.windows(needle.len()).any(|w| w == needle)
        })
    };
    assert!(!word(b"before") && !word(b"record 1") && !word(b"11.8.1"));
    let plain = blake3::hash(b"before").to_string();
    assert!(!word(plain.as_bytes()));
}

#[tokio::test]
async fn claims_are_numbered_and_each_has_its_own_key() {
    let scene = Scene::new(true, 13).await;
    let second = scene.archive.claim_epoch("other", &scene.clock, &scene.random).await.unwrap();
    assert_eq!(second.epoch(), Epoch::new(2));
    assert_eq!(scene.archive.newest_epoch().await.unwrap(), Some(Epoch::new(2)));
    assert_ne!(second.document().data_key, scene.claim.document().data_key);
    let reader = scene.reopen().await.unwrap();
    assert!(!reader.keyring().knows(Epoch::new(2)));
    reader.admit_epoch(Epoch::new(2)).await.unwrap();
    assert!(reader.keyring().knows(Epoch::new(2)));
    assert_eq!(reader.admit_epoch(Epoch::new(9)).await.unwrap_err().code(), Code::ObjectMissing);
}

#[tokio::test]
async fn two_creators_and_many_claimants_each_get_their_own() {
    let store = MemoryStore::new();
    let clock = ManualClock::new(Micros(0));
    let archives = futures::future::join_all((0..8u64).map(|seed| {
        let (store, clock) = (store.clone(), clock.clone());
        async move {
            let random = SeededRandom::new(seed);
            let archive = Archive::open_or_create(Arc::new(store), Some(master()), &clock, &random).await.unwrap();
            let claim = archive.claim_epoch("racer", &clock, &random).await.unwrap();
            (archive.id(), claim.epoch())
        }
    }))
    .await;
    let ids: std::collections::BTreeSet<_> = archives.iter().map(|(id, _)| *id).collect();
    let epochs: std::collections::BTreeSet<_> = archives.iter().map(|(_, epoch)| *epoch).collect();
    assert_eq!((ids.len(), epochs.len()), (1, 8));
}

#[tokio::test]
async fn a_lost_reply_is_not_another_writer_and_another_writer_is_not_a_lost_reply() {
    for encrypted in [false, true] {
        let mut scene = Scene::new(encrypted, 14).await;
        let finished = scene.build(3);
        assert_eq!(scene.archive.put_segment(&finished).await.unwrap(), PutSegment::Created);
        assert_eq!(scene.archive.put_segment(&finished).await.unwrap(), PutSegment::Created, "our own object");
        let rival = scene.build(3);
        let PutSegment::Conflict(other) = scene.archive.put_segment(&rival).await.unwrap() else { panic!() };
        assert_eq!((other.nonce, other.epoch), (finished.nonce, scene.claim.epoch()));
        scene.shipped(&finished);

        let tag = scene.tag("name", scene.position());
        let first = created(scene.archive.put_tag(&tag, &scene.claim, &scene.random).await);
        // The same document, sealed anew: what is stored is the first one, and so is its hash.
        assert_eq!(created(scene.archive.put_tag(&tag, &scene.claim, &scene.random).await), first);
        let rival = scene.tag("name", scene.position());
        let PutDocument::Conflict(other) = scene.archive.put_tag(&rival, &scene.claim, &scene.random).await.unwrap()
        else {
            panic!()
        };
        assert_eq!(*other, tag);
        let name = Name::parse("name").unwrap();
        assert!(scene.archive.delete_tag(&name).await.unwrap());
        assert!(!scene.archive.delete_tag(&name).await.unwrap());
        assert_eq!(scene.archive.get_tag(&name).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_not_a_finding() {
    let scene = Scene::full(false, 15).await;
    let store = FaultyStore::new(Arc::new(scene.store.clone()), Default::default());
    let archive = Archive::open(Arc::new(store.clone()), None).await.unwrap();
    archive.load_catalog().await.unwrap();
    store.set_outage(true);
    assert_eq!(archive.survey().await.unwrap_err().code(), Code::StoreUnavailable);
    assert_eq!(archive.tail(TIMELINE).await.unwrap_err().code(), Code::StoreUnavailable);
}

#[tokio::test]
async fn deleted_segments_are_no_loss_below_the_boundary_and_a_loss_above_it() {
    let scene = Scene::full(false, 16).await;
    let catalog = scene.archive.load_catalog().await.unwrap();
    let first = catalog.current_timeline().unwrap().segment(Ordinal::new(3)).unwrap().clone();
    let boundary = BoundaryDocument {
        version: DOCUMENT_VERSION,
        archive: scene.archive.id(),
        timeline: TIMELINE,
        ordinal: first.ordinal,
        first: first.first,
        hash_before: first.hash_before,
        revision: 0,
        run: None,
        head: None,
        kept: Vec::new(),
        manifests: Vec::new(),
        unlogged: Vec::new(),
        created: Micros(0),
        epoch: scene.claim.epoch(),
        nonce: nonce(&scene.random),
        extra: Extra::new(),
    };
    created(scene.archive.put_boundary(&boundary, &scene.claim, &scene.random).await);
    for ordinal in 0..3 {
        scene.store.delete(&ObjectKey::segment(TIMELINE, Ordinal::new(ordinal))).await.unwrap();
    }
    let catalog = scene.archive.load_catalog().await.unwrap();
    let timeline = catalog.current_timeline().unwrap();
    assert_eq!(timeline.segments().len(), 4);
    assert_eq!(timeline.start(), first.first);
    assert_eq!(timeline.compare(Boundary::START, RunningHash::ZERO), Named::Deleted);
    assert!(scene.findings(&scene.store).await.is_empty());
    let lost = ObjectKey::segment(TIMELINE, Ordinal::new(3));
    scene.store.delete(&lost).await.unwrap();
    assert!(scene.findings(&scene.store).await.iter().any(|e| e.object() == Some(lost.as_str())));
}

#[tokio::test]
async fn what_is_named_beyond_the_end_shows_that_the_end_is_lost() {
    let scene = Scene::full(false, 17).await;
    // All segments after the last manifest: the whole suffix, but for a tag that names its end.
    for ordinal in 4..7 {
        scene.store.delete(&ObjectKey::segment(TIMELINE, Ordinal::new(ordinal))).await.unwrap();
    }
    let e = scene.archive.load_catalog().await.unwrap_err();
    assert_eq!(e.code(), Code::SegmentMissing);
    assert_eq!(e.object(), Some(ObjectKey::segment(TIMELINE, Ordinal::new(4)).as_str()));
}

#[tokio::test]
async fn under_a_name_made_of_its_content_no_file_is_stored_that_has_other_bytes() {
    for encrypted in [false, true] {
        let scene = Scene::new(encrypted, 18).await;
        let (before, now) = (vec![1; CHUNK + 5], vec![2; CHUNK + 5]);
        let hash = ContentHash(*blake3::hash(&before).as_bytes());
        let named = FileIdentity::content(scene.archive.keyring(), hash, before.len() as u64);
        for identity in [named.clone(), named.again(scene.archive.keyring(), 1)] {
            let put = |content: &[u8]| {
                let (source, size) = (Source::new(Cursor::new(content.to_vec())), content.len() as u64);
                scene.archive.upload_file(&identity, size, source, &scene.claim, &scene.random)
            };
            assert_eq!(put(&now).await.unwrap_err().code(), Code::BaseUnobtainable);
            assert_eq!(scene.store.size(&identity.key()).await.unwrap(), None);
            assert_eq!(put(&before).await.unwrap().hash, hash);
        }
    }
}

#[tokio::test]
async fn files_are_stored_once_and_come_back_or_are_refused() {
    for encrypted in [false, true] {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 77] {
            let scene = Scene::new(encrypted, 18).await;
            let content: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
            let identity = FileIdentity::unique(scene.archive.keyring(), [1, 2], size as u64, FileNumber::new(9));
            let put = |content: Vec<u8>| {
                let (archive, claim, random, identity) = (&scene.archive, &scene.claim, &scene.random, &identity);
                async move {
                    archive.upload_file(identity, size as u64, Source::new(Cursor::new(content)), claim, random).await
                }
            };
            let stored = put(content.clone()).await.unwrap();
            assert_eq!(stored.sent, Sent::Uploaded);
            assert_eq!(stored.hash.0, *blake3::hash(&content).as_bytes());
            assert_eq!(put(content.clone()).await.unwrap().sent, Sent::WasThere);
            let file = BaseFile {
                name: "000009.sst".to_owned(),
                column_family: ColumnFamilyId::DEFAULT,
                path_id: 0,
                size: size as u64,
                hash: stored.hash,
                object: stored.object.clone(),
                epoch: stored.epoch,
            };
            let read = |archive: Archive, file: BaseFile| async move {
                let mut download = archive.download_file(&file).await?;
                let mut out = Vec::new();
                while let Some(piece) = download.next().await? {
                    out.extend_from_slice(&piece);
                }
                assert_eq!(download.next().await?, None);
                Ok::<_, crate::error::Error>(out)
            };
            assert!(read(scene.reopen().await.unwrap(), file.clone()).await.unwrap() == content);

            let key = identity.key();
            let body = scene.store.get(&key, u64::MAX).await.unwrap().unwrap();
            assert_eq!(body.starts_with(b"pitr.fil"), encrypted);
            for at in (0..body.len()).step_by((body.len() / 40).max(1)) {
                let mut damaged = body.to_vec();
                damaged[at] ^= 0x10;
                scene.store.overwrite(&key, damaged.into());
                let e = read(scene.reopen().await.unwrap(), file.clone()).await.unwrap_err();
                assert!(matches!(e.code(), Code::ObjectDamaged | Code::ObjectUnsupported), "byte {at}: {e}");
                scene.store.overwrite(&key, body.slice(..at));
                let e = read(scene.reopen().await.unwrap(), file.clone()).await.unwrap_err();
                assert_eq!(e.code(), Code::ObjectDamaged, "cut at {at}: {e}");
            }
            scene.store.delete(&key).await.unwrap();
            assert_eq!(read(scene.reopen().await.unwrap(), file).await.unwrap_err().code(), Code::ObjectMissing);
            if size > 0 {
                let e = put(content[1..].to_vec()).await.unwrap_err();
                assert_eq!(e.code(), Code::BaseUnobtainable);
            }
            let e = put([content.as_slice(), b"x"].concat()).await.unwrap_err();
            assert_eq!(e.code(), Code::BaseUnobtainable);
            assert!(scene.store.list(prefix::FILES, None).await.unwrap().is_empty(), "nothing half-written is visible");
        }
    }
}

#[test]
fn history_is_told_by_events() {
    let at = |boundary: u64, event: Event| PlacedEvent { at: Boundary::new(boundary), event };
    let point = |offset| ManifestPoint { file: FileNumber::new(5), offset };
    let open = Interval { lo: Boundary::new(4), hi: None };
    let wal = |n| Event::WalStarted { wal: FileNumber::new(n) };
    let run = |run, n| Event::RunStarted { run, first_wal: FileNumber::new(n), db_id: "db".to_owned() };
    let barrier = |reason, interval, manifest| Event::Barrier {
        unexplained: None,
        reason,
        interval,
        manifest,
        detail: String::new(),
        noticed: Micros(0),
    };
    let events = vec![
        at(0, run(0, 4)),
        at(0, wal(4)),
        at(3, Event::WalEnded { wal: FileNumber::new(4), end: 99, void_bytes: 0 }),
        at(3, wal(7)),
        at(
            5,
            Event::ColumnFamily {
                change: ColumnFamilyChange::Added,
                id: ColumnFamilyId::new(1),
                name: "one".to_owned(),
                interval: open,
                manifest: point(1),
                edit: String::new(),
            },
        ),
        at(5, barrier(BarrierReason::ChangeOutsideWal, open, Some(point(2)))),
        at(6, Event::IntervalClosed { manifest: point(1), hi: Boundary::new(6) }),
        at(7, Event::IntervalClosed { manifest: point(2), hi: Boundary::new(7) }),
        at(8, Event::Withdrawn { from: Boundary::new(7), to: Boundary::new(8), evidence: String::new() }),
        at(
            8,
            barrier(BarrierReason::RecordsMissing, Interval { lo: Boundary::new(8), hi: Some(Boundary::new(8)) }, None),
        ),
        at(8, run(1, 9)),
        at(8, wal(9)),
    ];
    let summary = |ordinal, first, end, events| SegmentSummary {
        ordinal: Ordinal::new(ordinal),
        last_ordinal: None,
        rolled_up: None,
        epoch: Epoch::new(1),
        first: Boundary::new(first),
        end: Boundary::new(end),
        hash_before: RunningHash::ZERO,
        hash_after: RunningHash::ZERO,
        min_sequence: Some(SequenceNumber::new(first + 1)),
        max_sequence: Some(SequenceNumber::new(end)),
        last_sequence: SequenceNumber::new(end),
        transactions: crate::rocks::transactions::Transactions::default(),
        special: None,
        wals: Vec::new(),
        observed: None,
        observed_through: None,
        plain_bytes: 0,
        events,
        object_bytes: 0,
        merged: None,
    };
    let document = TimelineDocument {
        version: 1,
        archive: ArchiveId([0; 16]),
        timeline: TIMELINE,
        parent: None,
        restore_marker: None,
        db_id: "db".to_owned(),
        detail: String::new(),
        created: Micros(0),
        epoch: Epoch::new(1),
        nonce: Nonce([0; 16]),
        extra: Extra::new(),
    };
    let segments = vec![summary(0, 0, 5, events[..6].to_vec()), summary(1, 5, 10, events[6..].to_vec())];
    let timeline = super::model::Timeline::new(document, Vec::new(), None, segments);
    let b = Boundary::new;
    let runs: Vec<_> = timeline.runs().iter().map(|r| (r.number, r.start, r.end)).collect();
    assert_eq!(runs, [(0, b(0), b(8)), (1, b(8), b(10))]);
    assert_eq!(timeline.run_of(b(8)).unwrap().number, 0, "a target there ends in the run before");
    assert_eq!(timeline.run_of(b(9)).unwrap().number, 1);
    assert_eq!(timeline.run_of(b(0)).unwrap().number, 0);
    assert!(timeline.run_of(b(11)).is_none());
    let run = timeline.run(0).unwrap();
    assert_eq!(run.wals[0].ended, Some(99));
    for (wal, first) in [(1, 0), (4, 0), (5, 3), (7, 3), (8, 8)] {
        assert_eq!(run.first_record_of_wal(FileNumber::new(wal)), b(first), "WAL {wal}");
    }
    assert_eq!(timeline.column_families()[0].interval, Interval { lo: b(4), hi: Some(b(6)) });
    assert_eq!(timeline.barriers()[0].interval, Interval { lo: b(4), hi: Some(b(7)) });
    assert_eq!(timeline.barriers_between(b(7), b(7)).count(), 1);
    assert_eq!(timeline.barriers_between(b(7), b(8)).count(), 2);
    assert_eq!(timeline.barriers_between(b(0), b(3)).count(), 0);
    assert_eq!(timeline.withdrawn(), [(b(7), b(8))]);
    assert_eq!(timeline.events(b(5), b(6)).count(), 3);
    assert_eq!(timeline.segments_covering(b(4), b(5)).len(), 1);
    assert_eq!(timeline.segments_covering(b(4), b(6)).len(), 2);
    assert_eq!(timeline.segments_touching(b(5), b(5)).len(), 2);
    assert_eq!(timeline.segments_with_sequence(SequenceNumber::new(6)).count(), 1);
}
