//! Archives written by version 1 of the format are readable for ever: `testdata/archive-v1`.
//!
//! To write them anew (only for a new version, into a new directory): `PITR_GOLDEN_INTO=DIR cargo test golden_archives`.

use std::{fs, path::Path};

use super::*;

/// Puts a directory's files into a store.
pub(super) fn load(dir: &Path, prefix: &str, store: &MemoryStore) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap()).collect();
    entries.sort_by_key(|e| e.file_name());
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            load(&entry.path(), &format!("{name}/"), store);
        } else {
            store.overwrite(&ObjectKey::parse(&name).unwrap(), fs::read(entry.path()).unwrap().into());
        }
    }
}

async fn upload(archive: &Archive, scene: &Scene) -> Sent {
    let content = b"not a real table, but stored like one".as_slice();
    let size = content.len() as u64;
    let identity = FileIdentity::unique(archive.keyring(), [1, 2], size, FileNumber::new(9));
    archive.upload_file(&identity, size, Source::new(content), &scene.claim, &scene.random).await.unwrap().sent
}

async fn with_file(encrypted: bool) -> Scene {
    let scene = Scene::full(encrypted, 100).await;
    assert_eq!(upload(&scene.archive, &scene).await, Sent::Uploaded);
    scene
}

#[tokio::test]
async fn golden_archives_of_version_1_are_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/archive-v1");
    for (name, encrypted) in [("clear", false), ("sealed", true)] {
        if let Some(into) = std::env::var_os("PITR_GOLDEN_INTO") {
            for (key, body) in with_file(encrypted).await.store.contents() {
                let path = Path::new(&into).join(name).join(key.as_str());
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, body).unwrap();
            }
        }
        let store = MemoryStore::new();
        load(&golden.join(name), "", &store);
        // The same history as this program writes it now.
        let scene = with_file(encrypted).await;
        let archive = Archive::open(Arc::new(store.clone()), encrypted.then(master)).await.unwrap();
        assert_eq!(archive.id(), scene.archive.id());
        assert!(scene.findings(&store).await.is_empty());
        let catalog = archive.load_catalog().await.unwrap();
        let timeline = catalog.current_timeline().unwrap();
        let now = scene.archive.load_catalog().await.unwrap();
        let stored = |s: &SegmentSummary| SegmentSummary { object_bytes: 0, special: None, ..s.clone() };
        assert!(
            timeline.segments().iter().map(stored).eq(now.current_timeline().unwrap().segments().iter().map(stored)),
            "the same entries have the same running hash"
        );
        assert_eq!(catalog.tag("before"), now.tag("before"));
        assert_eq!(catalog.bases(), now.bases());
        for segment in timeline.segments() {
            archive.read_segment(TIMELINE, segment.ordinal).await.unwrap().verify().unwrap();
        }
        // Finding the file there means that its bytes were read back and compared.
        archive.admit_epoch(scene.claim.epoch()).await.unwrap();
        assert_eq!(upload(&archive, &scene).await, Sent::WasThere);
        let keys = |store: &MemoryStore| store.contents().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(&store), keys(&scene.store));
    }
}
