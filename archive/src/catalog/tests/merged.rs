//! Merged segments in an archive: they count once a manifest names them, and then nobody needs the parts.

use super::*;
use crate::{
    catalog::model::Named,
    segment::writer::{MergeStart, SegmentMerger},
};

impl Scene {
    pub(super) async fn merge(&self, first: u64, last: u64) -> SegmentSummary {
        let catalog = self.archive.load_catalog().await.unwrap();
        let timeline = catalog.current_timeline().unwrap();
        let (first, last) = (Ordinal::new(first), Ordinal::new(last));
        let begins = timeline.segment(first).unwrap();
        let start = MergeStart {
            archive: self.archive.id(),
            timeline: TIMELINE,
            ordinals: Ordinals::new(first, last).unwrap(),
            epoch: self.claim.epoch(),
            first: begins.first,
            hash_before: begins.hash_before,
        };
        let mut merger = SegmentMerger::new(start, self.archive.keyring(), &self.random, Level::default()).unwrap();
        for part in timeline.segments().iter().filter(|s| first <= s.ordinal && s.ordinal <= last) {
            merger.push(&self.archive.read_segment(TIMELINE, part.ordinals()).await.unwrap()).unwrap();
        }
        let merged = merger.finish(Micros(77)).unwrap();
        assert_eq!(self.archive.put_segment(&merged).await.unwrap(), PutSegment::Created);
        merged.summary
    }

    async fn names(&self) -> String {
        let catalog = self.archive.load_catalog().await.unwrap();
        let names = catalog.current_timeline().unwrap().segments().iter().map(|s| s.ordinals().to_string());
        names.collect::<Vec<_>>().join(" ")
    }

    pub(super) async fn manifest_with_merges(&mut self, merged: Vec<SegmentSummary>) {
        self.merged = merged;
        self.manifest().await;
    }
}

#[tokio::test]
async fn what_was_merged_counts_once_a_manifest_names_it_and_then_the_parts_are_not_missed() {
    for encrypted in [false, true] {
        let mut scene = Scene::full(encrypted, 40).await;
        let before = scene.archive.load_catalog().await.unwrap();
        let before = before.current_timeline().unwrap();
        let merged = scene.merge(0, 2).await;
        assert_eq!(scene.names().await, "0 1 2 3 4 5 6");
        scene.manifest_with_merges(vec![merged]).await;
        assert_eq!(scene.names().await, "0-2 3 4 5 6");
        for ordinal in 0..3 {
            scene.store.delete(&ObjectKey::segment(TIMELINE, Ordinal::new(ordinal))).await.unwrap();
        }
        assert!(scene.findings(&scene.store).await.is_empty());
        let catalog = scene.archive.load_catalog().await.unwrap();
        let timeline = catalog.current_timeline().unwrap();
        assert_eq!((timeline.start(), timeline.end()), (before.start(), before.end()));
        assert_eq!(timeline.merged_since(Ordinal::new(0)), Some(Micros(0)));
        assert!(timeline.runs() == before.runs());
        // Every hash that named a place names it still.
        for segment in before.segments() {
            let named = Position { boundary: segment.end, hash: segment.hash_after, ..scene.position() };
            scene.archive.confirm_position(timeline, &named).await.unwrap();
            let other = Position { hash: RunningHash([9; 32]), ..named };
            let e = scene.archive.confirm_position(timeline, &other).await.unwrap_err();
            assert_eq!(e.code(), Code::ChainBroken);
        }
        assert_eq!(timeline.compare(Boundary::new(4), RunningHash::ZERO), Named::InsideSegment);
        // A catalog that was read before says what happened.
        let e = scene.archive.read_segment(TIMELINE, Ordinal::new(1)).await.unwrap_err();
        assert_eq!(e.code(), Code::SegmentMissing);
        assert!(e.to_string().contains("-00000000000000000002.seg"), "{e}");
        // The next writer finds the end as ever.
        let tail = scene.archive.tail(TIMELINE).await.unwrap();
        assert_eq!(tail.head.unwrap().summary.ordinal, Ordinal::new(6));
        // A larger one takes the place of this one.
        scene.ship(1).await;
        let merged = scene.merge(0, 3).await;
        scene.manifest_with_merges(vec![merged]).await;
        assert_eq!(scene.names().await, "0-3 4 5 6 7");
        let lost = ObjectKey::segment(TIMELINE, Ordinals::new(Ordinal::new(0), Ordinal::new(3)).unwrap());
        scene.store.delete(&lost).await.unwrap();
        let findings = scene.findings(&scene.store).await;
        assert!(findings.iter().any(|e| e.object() == Some(lost.as_str())), "{findings:?}");
    }
}

#[tokio::test]
async fn a_lost_manifest_that_names_a_merged_segment_hides_nothing() {
    let mut scene = Scene::full(false, 41).await;
    let merged = scene.merge(1, 2).await;
    scene.manifest_with_merges(vec![merged]).await;
    scene.ship(1).await;
    scene.manifest().await;
    for ordinal in 1..3 {
        scene.store.delete(&ObjectKey::segment(TIMELINE, Ordinal::new(ordinal))).await.unwrap();
    }
    // The parts are in these manifests, and in no object any more.
    scene.store.delete(&ObjectKey::manifest(TIMELINE, ManifestNumber::new(0))).await.unwrap();
    scene.store.delete(&ObjectKey::manifest(TIMELINE, ManifestNumber::new(2))).await.unwrap();
    let survey = scene.archive.survey().await.unwrap();
    let timeline = survey.catalog.current_timeline().unwrap();
    let names: Vec<_> = timeline.segments().iter().map(|s| s.ordinals().to_string()).collect();
    assert_eq!(names.join(" "), "0 1-2 3 4 5 6 7");
    assert!(!survey.findings.is_empty(), "that the manifests are lost is said");
}

#[tokio::test]
async fn a_cut_of_deletion_inside_a_merged_segment_leaves_its_parts_in_use() {
    for (cut, head, names) in
        [(1, None, "1 2 3 4 5 6"), (0, None, "0 1 2 3 4 5 6"), (0, Some(2), "0-2 3 4 5 6"), (3, None, "3 4 5 6")]
    {
        let mut scene = Scene::full(false, 42).await;
        let catalog = scene.archive.load_catalog().await.unwrap();
        let first = catalog.current_timeline().unwrap().segment(Ordinal::new(cut)).unwrap().clone();
        let merged = scene.merge(0, 2).await;
        scene.manifest_with_merges(vec![merged]).await;
        let boundary = BoundaryDocument {
            version: DOCUMENT_VERSION,
            archive: scene.archive.id(),
            timeline: TIMELINE,
            ordinal: first.ordinal,
            first: first.first,
            hash_before: first.hash_before,
            revision: 0,
            run: None,
            head: head.map(Ordinal::new),
            kept: Vec::new(),
            manifests: Vec::new(),
            unlogged: Vec::new(),
            created: Micros(0),
            epoch: scene.claim.epoch(),
            nonce: nonce(&scene.random),
            extra: Extra::new(),
        };
        created(scene.archive.put_boundary(&boundary, &scene.claim, &scene.random).await);
        assert_eq!(scene.names().await, names, "cut at {cut}, head {head:?}");
    }
}
