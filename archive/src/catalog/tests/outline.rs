//! What indexes promise: fewer reads, and the same answers, whatever becomes of the indexes.

use super::*;
use crate::catalog::{
    archive::indexes::IndexWriting,
    index::{Shape, slim},
    outline::{Outline, Wanted},
};

/// Nine manifests of two segments each, indexed by two and by four; one names a base, one a tag; two segments behind them.
async fn indexed_scene(encrypted: bool, seed: u64) -> Scene {
    let mut scene = Scene::new(encrypted, seed).await;
    let shape = Shape::new(2, 2).unwrap();
    for n in 0..9 {
        scene.ship(3).await;
        let at = scene.ship(n % 2).await;
        let (mut bases, mut tags) = (Vec::new(), Vec::new());
        if n == 1 {
            let mut base = scene.base(at);
            base.inline = vec![InlineFile { name: "IDENTITY".to_owned(), content: "aWQ=".to_owned() }];
            created(scene.archive.put_base(&base, &scene.claim, &scene.random).await);
            bases.push(base.id);
        }
        if n == 2 {
            let tag = scene.tag("named", at);
            created(scene.archive.put_tag(&tag, &scene.claim, &scene.random).await);
            tags.push((scene.archive.tag_hash(&Name::parse("named").unwrap()), at));
        }
        let number = ManifestNumber::new(scene.manifests);
        scene.manifest_naming(bases, tags).await;
        let Scene { archive, claim, clock, random, .. } = &scene;
        for group in shape.completed_by(number) {
            archive.write_index(TIMELINE, group, &IndexWriting { shape, claim, clock, random }).await.unwrap();
        }
    }
    scene.ship(1).await;
    let at = scene.ship(2).await;
    let tag = scene.tag("unnamed", at);
    created(scene.archive.put_tag(&tag, &scene.claim, &scene.random).await);
    scene
}

fn rolled_up(outline: &Outline) -> Vec<u64> {
    let segments = outline.catalog().timeline(TIMELINE).unwrap().segments();
    segments.iter().filter_map(|s| Some(s.rolled_up.as_ref()?.manifest.get())).collect()
}

/// An outline of which everything was wanted is the catalog.
async fn is_the_catalog(archive: &Archive, mut outline: Outline) {
    let catalog: Catalog = archive.load_what_is_sound().await.unwrap().catalog;
    let manifests = rolled_up(&outline).into_iter().map(|n| (TIMELINE, ManifestNumber::new(n))).collect();
    let wanted = Wanted { manifests, bases: outline.slim().clone() };
    if !wanted.is_empty() {
        outline.expand(archive, &wanted).await.unwrap();
    }
    let (whole, outlined) = (catalog.timeline(TIMELINE).unwrap(), outline.catalog().timeline(TIMELINE).unwrap());
    assert_eq!(outlined.segments(), whole.segments());
    for s in whole.segments() {
        assert_eq!(outlined.merged_since(s.ordinal), whole.merged_since(s.ordinal));
    }
    assert_eq!(outlined.manifests(), whole.manifests());
    assert_eq!(outlined.lost_end(), whole.lost_end());
    assert_eq!(outlined.runs(), whole.runs());
    assert_eq!(outline.catalog().bases(), catalog.bases());
    for tag in catalog.tags() {
        outline.learn_tag(archive, &tag.name).await.unwrap();
    }
    assert_eq!(outline.catalog().tags(), catalog.tags());
}

#[tokio::test]
async fn an_outline_reads_the_largest_indexes_and_knows_what_the_catalog_knows() {
    for encrypted in [false, true] {
        let scene = indexed_scene(encrypted, 1).await;
        let archive = scene.reopen().await.unwrap();
        let mut outline = archive.load_outline().await.unwrap();
        // The ninth has no index yet.
        assert_eq!(rolled_up(&outline), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(outline.take_findings().len(), 0);
        assert_eq!(outline.slim().len(), 1);
        let tags: Vec<_> = outline.catalog().tags().iter().map(|tag| tag.name.clone()).collect();
        assert_eq!(tags, ["unnamed"], "the other's position is in the index");
        let segments = outline.catalog().timeline(TIMELINE).unwrap().segments();
        assert!(segments.windows(2).all(|w| (w[0].end, w[0].hash_after) == (w[1].first, w[1].hash_before)));
        let base = outline.catalog().bases()[0].clone();
        assert_eq!(base, slim(base.clone()));
        is_the_catalog(&archive, outline).await;
        assert_eq!(archive.contradicting_indexes(TIMELINE).await.unwrap().len(), 0);
    }
}

#[tokio::test]
async fn the_loss_of_an_index_costs_requests_and_damage_is_said() {
    let scene = indexed_scene(false, 2).await;
    let indexes: Vec<_> = scene.archive.keys(&prefix::indexes(TIMELINE)).await.unwrap();
    assert_eq!(indexes.len(), 6, "{indexes:?}");
    for key in &indexes {
        let store = scene.store.fork();
        store.delete(key).await.unwrap();
        let archive = Archive::open(Arc::new(store.clone()), None).await.unwrap();
        let mut outline = archive.load_outline().await.unwrap();
        assert_eq!(outline.take_findings().len(), 0);
        is_the_catalog(&archive, outline).await;

        let mut bytes = scene.store.get(key, u64::MAX).await.unwrap().unwrap().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        store.overwrite(key, bytes.into());
        let mut outline = archive.load_outline().await.unwrap();
        let found: Vec<_> = outline.take_findings().iter().map(|e| e.object().unwrap_or_default().to_owned()).collect();
        // The smaller ones are not read while a larger one tells.
        let read = ["00000003", "00000007"].iter().any(|last| key.as_str().ends_with(&format!("{last}.doc")));
        let largest = read && key.index_numbers().is_some_and(|over| over.last().get() - over.first().get() == 3);
        assert_eq!(found, if largest { vec![key.to_string()] } else { Vec::new() });
        is_the_catalog(&archive, outline).await;
        assert_eq!(archive.contradicting_indexes(TIMELINE).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn an_index_that_contradicts_its_manifests_is_not_believed() {
    let scene = indexed_scene(false, 3).await;
    let whole = |n: u64| ManifestNumbers::new(ManifestNumber::new(0), ManifestNumber::new(n)).unwrap();
    let honest = scene.archive.get_index(TIMELINE, whole(3)).await.unwrap().unwrap();
    type Lie = fn(&mut IndexDocument);
    let lies: [(&str, Lie); 5] = [
        ("another hash", |index| index.manifests[1].hash = ContentHash([7; 32])),
        ("no events", |index| {
            index.manifests[0].segments.as_mut().unwrap().summary.events.clear();
        }),
        ("another end", |index| {
            index.manifests[2].segments.as_mut().unwrap().summary.end = Boundary::new(1_000);
        }),
        ("another time", |index| index.manifests[3].segments.as_mut().unwrap().earliest = Some(Micros(0))),
        ("another base", |index| index.bases[0].run = 9),
    ];
    for (what, lie) in lies {
        let store = scene.store.fork();
        let archive = Archive::open(Arc::new(store.clone()), None).await.unwrap();
        let mut index = honest.clone();
        lie(&mut index);
        store.delete(&ObjectKey::index(TIMELINE, whole(3))).await.unwrap();
        created(archive.put_index(&index, &scene.claim, &scene.random).await);
        is_the_catalog(&archive, archive.load_outline().await.unwrap()).await;
        let found = archive.contradicting_indexes(TIMELINE).await.unwrap();
        // Bases are compared where they are used.
        assert_eq!(found.is_empty(), what == "another base", "{what}: {found:?}");
    }
}

#[tokio::test]
async fn what_is_lost_under_an_index_is_said_as_without_it() {
    let scene = indexed_scene(false, 4).await;
    for number in [0, 3, 8].map(ManifestNumber::new) {
        let store = scene.store.fork();
        let key = ObjectKey::manifest(TIMELINE, number);
        store.delete(&key).await.unwrap();
        let archive = Archive::open(Arc::new(store.clone()), None).await.unwrap();
        let mut outline = archive.load_outline().await.unwrap();
        let named = |findings: Vec<crate::error::Error>| findings.iter().map(ToString::to_string).collect::<Vec<_>>();
        let survey = archive.load_what_is_sound().await.unwrap();
        assert_eq!(named(outline.take_findings()), named(survey.findings), "manifest {number}");
        is_the_catalog(&archive, outline).await;

        // It is there, and nothing but reading it tells that it is damaged.
        store.overwrite(&key, Bytes::from_static(b"no manifest"));
        is_the_catalog(&archive, archive.load_outline().await.unwrap()).await;
    }
}

#[tokio::test]
async fn of_what_deletion_left_an_outline_has_that_and_no_more() {
    let scene = indexed_scene(false, 5).await;
    let segments = scene.archive.load_catalog().await.unwrap().timeline(TIMELINE).unwrap().segments().to_vec();
    // Of the second manifest, the first segment is kept; of the third, nothing; everything from the middle of the fifth on.
    let (island, behind, rest) = (&segments[2], &segments[3], &segments[9]);
    let run = OpenRun { run: 0, start: Boundary::START, first_wal: FileNumber::new(4), db_id: "db".to_owned() };
    let document = BoundaryDocument {
        version: DOCUMENT_VERSION,
        archive: scene.archive.id(),
        timeline: TIMELINE,
        ordinal: rest.ordinal,
        first: rest.first,
        hash_before: rest.hash_before,
        revision: 0,
        run: Some(run.clone()),
        head: None,
        kept: vec![KeptSegments {
            from: island.ordinal,
            to: behind.ordinal,
            first: island.first,
            hash_before: island.hash_before,
            end: island.end,
            hash_after: island.hash_after,
            run: Some(run),
            head: None,
        }],
        manifests: Vec::new(),
        unlogged: Vec::new(),
        created: Micros(0),
        epoch: scene.claim.epoch(),
        nonce: nonce(&scene.random),
        extra: Extra::new(),
    };
    created(scene.archive.put_boundary(&document, &scene.claim, &scene.random).await);
    let archive = scene.reopen().await.unwrap();
    let outline = archive.load_outline().await.unwrap();
    assert_eq!(rolled_up(&outline), [5, 6, 7], "what is left in part is read");
    is_the_catalog(&archive, outline).await;
}

/// Twelve manifests of two segments each, indexed by two and by four. Some name merged segments: inside one manifest, over whole
/// ones, over one that is merged already, and over what no index tells of yet.
async fn merged_scene(seed: u64) -> Scene {
    let mut scene = Scene::new(false, seed).await;
    let shape = Shape::new(2, 2).unwrap();
    for n in 0..11 {
        scene.ship(3).await;
        scene.ship(n % 2).await;
        let merges: &[(u64, u64)] = match n {
            4 => &[(0, 1), (2, 5)],
            6 => &[(8, 9)],
            9 => &[(0, 7), (10, 13)],
            10 => &[(16, 17)],
            _ => &[],
        };
        let mut merged = Vec::new();
        for (first, last) in merges {
            merged.push(scene.merge(*first, *last).await);
        }
        let number = ManifestNumber::new(scene.manifests);
        scene.manifest_with_merges(merged).await;
        let Scene { archive, claim, clock, random, .. } = &scene;
        for group in shape.completed_by(number) {
            archive.write_index(TIMELINE, group, &IndexWriting { shape, claim, clock, random }).await.unwrap();
        }
        is_the_catalog(&scene.archive, scene.archive.load_outline().await.unwrap()).await;
    }
    scene
}

#[tokio::test]
async fn merged_segments_are_told_by_indexes_and_put_in_place_where_they_are_wanted() {
    let scene = merged_scene(6).await;
    for ordinal in (0..14).chain(16..18) {
        scene.store.delete(&ObjectKey::segment(TIMELINE, Ordinal::new(ordinal))).await.unwrap();
    }
    let names = |outline: &Outline| {
        let segments = outline.catalog().timeline(TIMELINE).unwrap().segments().iter();
        let name = |s: &SegmentSummary| match &s.rolled_up {
            Some(inside) => format!("m{}", inside.manifest.get()),
            None => s.ordinals().to_string(),
        };
        segments.map(name).collect::<Vec<_>>().join(" ")
    };
    let mut outline = scene.archive.load_outline().await.unwrap();
    assert_eq!(names(&outline), "m0 m1 m2 m3 m4 m5 m6 m7 m8 m9 20 21");
    let mut all = Vec::new();
    let timeline = outline.catalog().timeline(TIMELINE).unwrap();
    let visit = |s: &SegmentSummary| {
        all.push(s.clone());
        Ok(())
    };
    outline.each_segment(&scene.archive, timeline, visit).await.unwrap();
    assert_eq!(all, scene.archive.load_catalog().await.unwrap().timeline(TIMELINE).unwrap().segments());
    for (wanted, now) in [
        (2, "0-7 m4 m5 m6 m7 m8 m9 20 21"),
        (4, "0-7 8-9 m5 m6 m7 m8 m9 20 21"),
        (7, "0-7 8-9 m5 m6 14 15 m8 m9 20 21"),
        (6, "0-7 8-9 10-13 14 15 m8 m9 20 21"),
        (8, "0-7 8-9 10-13 14 15 16-17 m9 20 21"),
    ] {
        let manifests = [(TIMELINE, ManifestNumber::new(wanted))].into();
        outline.expand(&scene.archive, &Wanted { manifests, ..Wanted::default() }).await.unwrap();
        assert_eq!(names(&outline), now);
    }
    assert_eq!(outline.take_findings().len(), 0);
    is_the_catalog(&scene.archive, outline).await;
    assert_eq!(scene.archive.contradicting_indexes(TIMELINE).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_manifest_that_names_merged_segments_and_is_lost_or_contradicted_sends_readers_to_the_whole_catalog() {
    let scene = merged_scene(7).await;
    for number in [4, 6, 9, 10].map(ManifestNumber::new) {
        let store = scene.store.fork();
        store.delete(&ObjectKey::manifest(TIMELINE, number)).await.unwrap();
        let archive = Archive::open(Arc::new(store.clone()), None).await.unwrap();
        is_the_catalog(&archive, archive.load_outline().await.unwrap()).await;
        // What a merged segment is over is not read: it may as well be damaged.
        if number >= ManifestNumber::new(9) {
            store.overwrite(&ObjectKey::manifest(TIMELINE, number), Bytes::from_static(b"no manifest"));
            is_the_catalog(&archive, archive.load_outline().await.unwrap()).await;
        }
    }
    let whole = ManifestNumbers::new(ManifestNumber::new(4), ManifestNumber::new(7)).unwrap();
    let honest = scene.archive.get_index(TIMELINE, whole).await.unwrap().unwrap();
    let other = |first, last| vec![(Ordinal::new(first), Ordinal::new(last))];
    // That it leaves one out is found by whoever compares, and by plans where they then read parts that are gone.
    for lie in [other(8, 10), other(7, 9), other(3, 2), other(0, 900)] {
        let store = scene.store.fork();
        let archive = Archive::open(Arc::new(store.clone()), None).await.unwrap();
        let mut index = honest.clone();
        index.manifests[2].merged = lie;
        store.delete(&ObjectKey::index(TIMELINE, whole)).await.unwrap();
        created(archive.put_index(&index, &scene.claim, &scene.random).await);
        is_the_catalog(&archive, archive.load_outline().await.unwrap()).await;
        assert_eq!(archive.contradicting_indexes(TIMELINE).await.unwrap().len(), 1);
    }
}
