//! Retention beside itself and beside archivers: between what is read and what is stated, anything can happen.

use std::{cell::Cell, rc::Rc, sync::Arc};

use pitr_archive::{
    Code, catalog::archive::Archive, clock::Clock as _, object_key::ObjectKey, random::OsRandom, store::Store,
};
use pitr_archiver::{
    crash,
    retention::{Floor, Mode, Policy, Request, prune},
};
use pitr_replayer::target::Target;
use rocksdb::WriteOptions;

use super::{DAY, Site, micros, runtime, window};

/// Prunes in another process, when this one passes `at` for the first time.
fn another_prunes_at(site: &Site, at: &'static str, policy: Policy) -> (crash::Telling, Rc<Cell<bool>>) {
    let (store, clock) = (site.store.clone(), site.clock.clone());
    let pruned = Rc::new(Cell::new(false));
    let once = pruned.clone();
    let telling = crash::tell(move |here| {
        if here == at && !once.replace(true) {
            let (store, clock) = (store.clone(), clock.clone());
            let other = std::thread::spawn(move || {
                runtime().block_on(async {
                    let archive = Archive::open(Arc::new(store), None).await.unwrap();
                    let request = Request { policy, floor: Floor::Respected, mode: Mode::Act };
                    prune(&archive, &request, &clock, &OsRandom).await.unwrap();
                });
            });
            other.join().unwrap();
        }
    });
    (telling, pruned)
}

#[tokio::test]
async fn what_two_prunes_with_different_views_keep_together_is_what_one_of_them_promises() {
    for (mine, other) in [(2, 5), (5, 2)] {
        let mut site = Site::new(None).await;
        let mut begins = Vec::new();
        for day in 0..8 {
            begins.push(site.archiver().acknowledged().boundary.get());
            site.day(day).await;
        }
        let (telling, pruned) = another_prunes_at(&site, "prune-before-turn", window(other));
        site.prune(window(mine), Mode::Act).await.unwrap();
        assert!(pruned.get());
        drop(telling);
        site.clock.advance(micros(DAY));
        site.prune(window(mine.min(other)), Mode::Act).await.unwrap();
        for boundary in begins[6]..=site.archiver().acknowledged().boundary.get() {
            site.exact(&Site::target(boundary)).await;
        }
        site.prune_fully(window(2)).await;
        site.clean().await;
    }
}

#[tokio::test]
async fn a_prune_that_slept_states_nothing_that_it_saw_before() {
    let mut site = Site::new(None).await;
    for day in 0..8 {
        site.day(day).await;
    }
    // Its clock goes on while it sleeps.
    let clock = site.clock.clone();
    let slept = Rc::new(Cell::new(false));
    let once = slept.clone();
    let telling = crash::tell(move |here| {
        if here == "prune-before-condemn" && !once.replace(true) {
            clock.advance(micros(DAY * 3));
        }
    });
    let before = site.clock.now();
    site.prune(window(2), Mode::Act).await.unwrap();
    drop(telling);
    assert!(slept.get());
    let archive = site.archive().await;
    for document in archive.condemned().await.unwrap() {
        assert!(document.created.0 >= before.0 + micros(DAY * 3), "its grace period begins when it is stated");
    }
    let report = site.prune(window(2), Mode::Act).await.unwrap();
    assert_eq!(report.deleted.total().objects, 0, "nothing before its grace period");
}

#[tokio::test]
async fn a_base_that_lacks_a_file_is_damage_and_nothing_is_given_up_for_it() {
    let mut site = Site::new(None).await;
    for day in 0..8 {
        site.day(day).await;
    }
    let archive = site.archive().await;
    let bases = archive.bases().await.unwrap();
    let (last, others) = bases.split_last().unwrap();
    let of_others = |object: &str| others.iter().flat_map(|base| &base.files).any(|file| file.object == object);
    let only = last.files.iter().find(|file| !of_others(&file.object)).unwrap();
    site.store.delete(&ObjectKey::file(&only.object)).await.unwrap();
    let before = site.store.contents();
    let pruned = site.prune(window(0), Mode::Act).await;
    let e = pruned.expect_err("it keeps nothing but the base that lacks a file");
    assert_eq!((e.code(), e.object()), (Code::ObjectMissing, Some(ObjectKey::file(&only.object).as_str())));
    assert!(site.store.contents() == before);
}

#[tokio::test]
async fn a_tag_that_is_created_again_under_an_old_name_lives_as_long_as_it_says() {
    let mut site = Site::new(None).await;
    site.day(0).await;
    site.tag("nightly", Some(DAY)).await;
    site.day(1).await;
    site.prune_fully(window(9)).await;
    assert_eq!(site.refused(&Target::tag("nightly")).await, Code::TagUnknown);
    site.day(2).await;
    site.tag("nightly", Some(DAY)).await;
    // The archiver is away, and with it the archive's time.
    site.clock.advance(micros(DAY * 2));
    let report = site.prune(window(9), Mode::Act).await.unwrap();
    assert!(!report.tags[0].expired, "{report:#?}");
    site.exact(&Target::tag("nightly")).await;
}

#[tokio::test]
async fn a_file_that_was_condemned_and_named_all_the_same_has_its_grace_period_when_its_base_goes() {
    let mut site = Site::new(None).await;
    site.day(0).await;
    site.write("a", "1").await;
    site.db().flush().unwrap();
    site.archiver().poll().unwrap();
    let (telling, pruned) = another_prunes_at(&site, "base-before-publish", window(9));
    site.archiver().take_base().await.unwrap();
    drop(telling);
    assert!(pruned.get());
    site.archiver().close_manifest().await.unwrap();
    let here = site.archiver().acknowledged().boundary.get();
    // Everything is written anew, so that no later base has the file.
    site.db().compact_range::<&[u8], &[u8]>(None, None);
    for day in 1..5 {
        site.day(day).await;
        site.db().compact_range::<&[u8], &[u8]>(None, None);
    }
    let old = site.planned(&Site::target(here)).await.unwrap();
    let report = site.prune(window(1), Mode::Act).await.unwrap();
    assert!(report.bases.iter().any(|base| base.id == old.base.id && base.drop.is_some()), "{report:#?}");
    site.restores(&old).await.unwrap();
    site.clock.advance(micros(DAY));
    site.prune(window(1), Mode::Act).await.unwrap();
    assert!(site.restores(&old).await.is_err(), "its grace period is over");
    site.prune_fully(window(1)).await;
    site.clean().await;
}

#[tokio::test]
async fn that_a_column_family_lacks_unlogged_writes_is_said_also_where_the_place_that_showed_it_was_deleted() {
    let mut site = Site::new(None).await;
    site.archiver = None;
    site.tolerate = vec!["default".to_owned()];
    site.open().await;
    site.day(0).await;
    let mut unlogged = WriteOptions::default();
    unlogged.disable_wal(true);
    site.db().put_opt("x", "1", &unlogged).unwrap();
    for day in 1..8 {
        site.day(day).await;
    }
    let families = |plan: pitr_replayer::plan::RestorePlan| {
        plan.unlogged.into_iter().map(|family| family.column_family).collect::<Vec<_>>()
    };
    let plan = site.planned(&Target::Latest).await.unwrap();
    assert_eq!(families(plan), ["default"]);
    for _ in 0..2 {
        site.prune_fully(window(2)).await;
        let plan = site.planned(&Target::Latest).await.unwrap();
        assert_eq!(families(plan), ["default"], "pruning does not make a copy exact");
        site.day(8).await;
    }
}

#[tokio::test]
async fn a_base_whose_upload_takes_longer_than_the_time_between_two_prunes_is_published_and_stays() {
    let mut site = Site::new(None).await;
    site.day(0).await;
    for (n, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
        site.db().put(key, n.to_string()).unwrap();
        site.db().flush().unwrap();
        site.state.insert(key.into(), n.to_string());
    }
    // Every file takes an hour, and every hour somebody prunes: what no base names yet is condemned.
    let (store, clock) = (site.store.clone(), site.clock.clone());
    let prunes = Rc::new(Cell::new(0));
    let counted = prunes.clone();
    let telling = crash::tell(move |here| {
        if here == "base-uploaded-one" {
            counted.set(counted.get() + 1);
            clock.advance(micros(DAY / 24));
            let (store, clock) = (store.clone(), clock.clone());
            let other = std::thread::spawn(move || {
                runtime().block_on(async {
                    let archive = Archive::open(Arc::new(store), None).await.unwrap();
                    let request = Request { policy: window(9), floor: Floor::Respected, mode: Mode::Act };
                    prune(&archive, &request, &clock, &OsRandom).await.unwrap();
                });
            });
            other.join().unwrap();
        }
    });
    site.day(1).await;
    drop(telling);
    assert!(prunes.get() > 1, "{} files", prunes.get());
    // The next one counts on what this one names.
    site.day(2).await;
    assert!(!site.keys("files/").iter().any(|key| key.stem().starts_with("05")), "something was sent again");
    let bases = site.archive().await.bases().await.unwrap();
    let named = |key: &ObjectKey| bases.iter().flat_map(|base| &base.files).any(|f| ObjectKey::file(&f.object) == *key);
    let again = site.keys("files/").iter().filter(|key| !named(key)).count();
    assert_eq!(again, 0, "nothing was sent twice");
    // What was condemned and is needed stays.
    for _ in 0..3 {
        site.prune_fully(window(9)).await;
    }
    site.exact(&Target::Latest).await;
    site.clean().await;
}
