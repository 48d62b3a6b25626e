//! Every kind of damage is found, all of it at once, and a sound archive has none.

use std::{fs, path::PathBuf, sync::Arc};

use pitr_archive::{
    Code,
    catalog::archive::Archive,
    clock::{Micros, SystemClock},
    ids::{Nonce, Ordinal, TimelineId},
    object_key::ObjectKey,
    store::{Store, local::LocalStore},
};

use super::{Compared, DeepOptions, verify, verify_deep};
use crate::{
    progress::Silent,
    restore::tests::lab::{self, Lab, Write},
};

struct Case {
    lab: Lab,
    store: tempfile::TempDir,
    archive: Archive,
}

async fn case(lab: Lab) -> Case {
    let store = tempfile::tempdir().unwrap();
    let local: Arc<dyn Store> = Arc::new(LocalStore::open(store.path(), &SystemClock).unwrap());
    let archive = lab.archive(local, None, 3).await;
    Case { lab, store, archive }
}

fn filled(mut lab: Lab) -> Lab {
    lab.put("a", "1");
    lab.flush();
    lab.take_base();
    for n in 0..7 {
        lab.put(&format!("k{n}"), "v");
    }
    lab.write(&Write::DeleteRange("default", "k1".to_owned(), "k3".to_owned()));
    lab.flush();
    lab.take_base();
    lab.put("z", "1");
    lab
}

impl Case {
    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.store.path().join(key.as_str())
    }

    fn deep(&self) -> DeepOptions {
        DeepOptions { timeline: None, work: self.lab.dir.path().to_owned(), marker: Nonce([1; 16]), now: Micros(0) }
    }
}

#[tokio::test]
async fn a_sound_archive_has_no_finding_and_everything_was_read() {
    let case = case(filled(Lab::new())).await;
    let report = verify(&case.archive, &Silent).await.unwrap();
    assert_eq!(report.findings, []);
    assert_eq!((report.segments, report.records, report.bases), (4, 10, 2));
    assert!(report.files >= 2 && report.file_bytes > 0);
}

#[tokio::test]
async fn every_damaged_and_missing_object_is_listed_in_one_run() {
    let case = case(filled(Lab::new())).await;
    let catalog = case.archive.load_catalog().await.unwrap();
    let segment = |n| ObjectKey::segment(TimelineId::FIRST, Ordinal::new(n));
    let damage = |key: &ObjectKey| {
        let mut bytes = fs::read(case.path(key)).unwrap();
        // In the middle of a segment are its frames; whether they are sound only a full read shows.
        let place = bytes.len() / 2;
        bytes[place] ^= 1;
        fs::write(case.path(key), bytes).unwrap();
    };
    damage(&segment(1));
    let file = ObjectKey::file(&catalog.bases()[0].files[0].object);
    damage(&file);
    let base = ObjectKey::base(&catalog.bases()[1].id);
    damage(&base);
    let report = verify(&case.archive, &Silent).await.unwrap();
    let found =
        |code: Code, key: &ObjectKey| report.findings.iter().any(|f| f.code == code && f.text.contains(key.as_str()));
    assert!(found(Code::SegmentDamaged, &segment(1)), "{:#?}", report.findings);
    assert!(found(Code::ObjectDamaged, &file), "{:#?}", report.findings);
    assert!(found(Code::ObjectDamaged, &base), "{:#?}", report.findings);
    fs::remove_file(case.path(&file)).unwrap();
    fs::remove_file(case.path(&segment(2))).unwrap();
    let report = verify(&case.archive, &Silent).await.unwrap();
    let found = |code: Code, name: &str| report.findings.iter().any(|f| f.code == code && f.text.contains(name));
    assert!(found(Code::ObjectMissing, file.as_str()), "{:#?}", report.findings);
    assert!(report.findings.iter().any(|f| f.code == Code::SegmentMissing), "{:#?}", report.findings);
}

#[tokio::test]
async fn two_restores_of_one_position_agree() {
    let case = case(filled(Lab::new())).await;
    let catalog = case.archive.load_catalog().await.unwrap();
    let report = verify_deep(&case.archive, &catalog, &case.deep(), Arc::new(Silent)).await.unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.bases.len(), 2);
    let Compared::Contents { column_families } = &report.compared else { panic!("{:?}", report.compared) };
    let default = &column_families["default"];
    assert!(default.equal);
    assert_eq!(default.based.unwrap().pairs, case.lab.states[9].families["default"].len() as u64);
    let left: Vec<_> = fs::read_dir(case.lab.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("verify")), "{left:?}");
}

#[tokio::test]
async fn without_the_comparator_only_structure_is_compared_and_the_report_says_so() {
    let mut strange = lab::options();
    strange.set_comparator("test.Strange", Box::new(|a, b| a.cmp(b)));
    let case = case(filled(Lab::with(strange, None))).await;
    let catalog = case.archive.load_catalog().await.unwrap();
    let report = verify_deep(&case.archive, &catalog, &case.deep(), Arc::new(Silent)).await.unwrap();
    let Compared::Structure { reasons } = &report.compared else { panic!("{:?}", report.compared) };
    assert!(reasons[0].contains("test.Strange"), "{reasons:?}");
    assert_eq!(report.findings, []);
}

#[tokio::test]
async fn one_base_alone_cannot_be_compared_with_anything() {
    let mut lab = Lab::new();
    lab.take_base();
    lab.put("a", "1");
    let case = case(lab).await;
    let catalog = case.archive.load_catalog().await.unwrap();
    let report = verify_deep(&case.archive, &catalog, &case.deep(), Arc::new(Silent)).await.unwrap();
    assert!(matches!(report.compared, Compared::Nothing { .. }));
}
