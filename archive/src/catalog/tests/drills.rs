//! Reports of drills: what version 1 wrote is readable for ever (`testdata/archive-v1-drills`), and none claims more than was
//! checked.
//!
//! To write them anew (only for a new version, into a new directory): `PITR_GOLDEN_INTO=DIR cargo test golden_reports`.

use std::{fs, path::Path};

use super::{golden::load, *};
use crate::{catalog::document, error::Error};

impl Scene {
    fn drill(&self, n: u32, position: Position) -> DrillDocument {
        let family = |name: &str, varies| DrillFamily {
            name: name.to_owned(),
            pairs: 15,
            bytes: 300,
            hash: ContentHash([7; 32]),
            varies,
        };
        DrillDocument {
            version: DOCUMENT_VERSION,
            archive: self.archive.id(),
            id: BaseId::new(Micros(0).to_datetime(), n),
            target: DrillTarget {
                chosen: DrillChoice::Random,
                asked: "record 14".to_owned(),
                instead: Some("record 13 cannot be restored".to_owned()),
            },
            place: DrillPlace { store: "s3".to_owned(), machine: ContentHash([3; 32]) },
            plan: Some(DrillPlan {
                position,
                base: BaseId::new(Micros(0).to_datetime(), 7),
                engine: "native".to_owned(),
                download_bytes: 4096,
                file_bytes: 1024,
                log_bytes: 3072,
                records: 15,
            }),
            at_risk_micros: Some(2_000_000),
            estimate: Some(DrillEstimate { micros: 12_000_000, measured: true }),
            took: DrillTimes {
                planning: Some(100_000),
                laying_down: Some(8_000_000),
                opening: Some(1_900_000),
                checking: Some(3_000_000),
                command: Some(500_000),
            },
            checked: DrillChecks {
                structure: Some(DrillStructure { files: 2, bytes: 1024, checksums: true }),
                sequence: Some(position.sequence),
                column_families: vec![family("default", false), family("sessions", true)],
                unopened: Vec::new(),
                same_as: Some(BaseId::new(Micros(0).to_datetime(), 1)),
                command: Some("check-db".to_owned()),
            },
            verdict: DrillVerdict::Passed,
            failure: None,
            created: Micros(0),
            ended: Micros(14_000_000),
            nonce: nonce(&self.random),
            extra: Extra::new(),
        }
    }

    /// As a database that cannot be opened here, and as one that could not be restored.
    fn other_drills(&self, position: Position) -> [DrillDocument; 2] {
        let mut structure = self.drill(3, position);
        structure.verdict = DrillVerdict::StructureOnly;
        structure.took = DrillTimes { opening: None, checking: None, ..structure.took };
        structure.checked = DrillChecks {
            structure: Some(DrillStructure { files: 2, bytes: 1024, checksums: false }),
            unopened: vec!["comparator of its own".to_owned()],
            ..DrillChecks::default()
        };
        let mut failed = self.drill(4, position);
        failed.verdict = DrillVerdict::Failed;
        failed.failure = Some(DrillFailure { code: "archive.object-damaged".to_owned(), text: "it is".to_owned() });
        failed.took = DrillTimes { planning: Some(1), ..DrillTimes::default() };
        failed.checked = DrillChecks::default();
        [structure, failed]
    }

    async fn with_drills(encrypted: bool) -> (Self, Vec<DrillDocument>) {
        let scene = Self::full(encrypted, 200).await;
        let at = scene.position();
        let mut drills = vec![scene.drill(2, at)];
        drills.extend(scene.other_drills(at));
        for drill in &drills {
            created(scene.archive.put_drill(drill, &scene.claim, &scene.random).await);
        }
        (scene, drills)
    }
}

#[tokio::test]
async fn golden_reports_of_version_1_are_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/archive-v1-drills");
    for (name, encrypted) in [("clear", false), ("sealed", true)] {
        let (scene, drills) = Scene::with_drills(encrypted).await;
        if let Some(into) = std::env::var_os("PITR_GOLDEN_INTO") {
            for (key, body) in scene.store.contents() {
                let path = Path::new(&into).join(name).join(key.as_str());
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, body).unwrap();
            }
        }
        let store = MemoryStore::new();
        load(&golden.join(name), "", &store);
        let archive = Archive::open(Arc::new(store.clone()), encrypted.then(master)).await.unwrap();
        assert!(scene.findings(&store).await.is_empty());
        let read: Vec<_> = archive.newest_drills(10).await.unwrap().into_iter().map(Result::unwrap).collect();
        // The same as this program writes now, the newest first.
        assert_eq!(read, drills.iter().rev().cloned().collect::<Vec<_>>());
        let sealed = store.contents().iter().any(|(key, body)| {
            key.as_str().starts_with(prefix::DRILLS) && body.windows(8).any(|bytes| bytes == b"sessions")
        });
        assert!(!(encrypted && sealed), "a name of a column family can be read without the key");
    }
}

#[tokio::test]
async fn the_newest_are_read_by_as_many_requests_and_damage_hides_no_other() {
    let (scene, drills) = Scene::with_drills(false).await;
    let newest: Vec<_> = scene.archive.newest_drills(1).await.unwrap();
    assert_eq!(newest.into_iter().map(Result::unwrap).collect::<Vec<_>>(), drills[2..]);
    let key = ObjectKey::drill(&drills[1].id);
    scene.store.overwrite(&key, Bytes::from_static(b"no document"));
    let outcomes = scene.archive.newest_drills(10).await.unwrap();
    let codes: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().err().map(Error::code)).collect();
    assert_eq!(codes, [None, Some(Code::ObjectDamaged), None]);
    // It is no part of what a restore needs.
    assert!(scene.findings(&scene.store).await.is_empty());
}

#[tokio::test]
async fn a_report_that_claims_more_than_was_checked_is_refused() {
    let scene = Scene::full(false, 5).await;
    let at = scene.position();
    let wrong: [fn(&mut DrillDocument); 9] = [
        |d| d.verdict = DrillVerdict::Failed,
        |d| d.failure = Some(DrillFailure { code: "internal".to_owned(), text: String::new() }),
        |d| d.plan = None,
        |d| d.took.laying_down = None,
        |d| d.checked.structure = None,
        |d| d.checked.column_families.clear(),
        |d| d.checked.column_families[0].name = "sessions".to_owned(),
        |d| d.checked.sequence = Some(SequenceNumber::new(1)),
        |d| d.verdict = DrillVerdict::StructureOnly,
    ];
    for (n, wrong) in (10u32..).zip(wrong) {
        let mut drill = scene.drill(n, at);
        wrong(&mut drill);
        created(scene.archive.put_drill(&drill, &scene.claim, &scene.random).await);
        assert_eq!(scene.archive.get_drill(&drill.id).await.unwrap_err().code(), Code::ObjectDamaged, "{n}");
    }
    assert_eq!(scene.drill(1, at).restore_micros(), Some(10_000_000));
}

#[tokio::test]
async fn what_a_later_version_adds_is_kept() {
    let scene = Scene::full(false, 5).await;
    let drill = scene.drill(1, scene.position());
    let mut json = serde_json::to_value(&drill).unwrap();
    json["weather"] = "fair".into();
    let key = ObjectKey::drill(&drill.id);
    let text = serde_json::to_vec(&json).unwrap();
    let read: DrillDocument = document::parse(scene.archive.keyring(), scene.archive.id(), &key, &text).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), json);
    let elsewhere = ObjectKey::drill(&BaseId::new(Micros(0).to_datetime(), 2));
    let e = document::parse::<DrillDocument>(scene.archive.keyring(), scene.archive.id(), &elsewhere, &text);
    assert_eq!(e.unwrap_err().code(), Code::ObjectDamaged);
}
