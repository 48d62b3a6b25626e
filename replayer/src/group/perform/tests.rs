//! Two databases that are restored together, and what comes in between.

use std::{fs, path::PathBuf};

use pitr_archive::{
    clock::Micros,
    ids::{Nonce, RecordNumber},
    store::memory::MemoryStore,
};

use super::*;
use crate::{
    plan::{
        PlanOptions,
        engine::{Engine, EngineChoice},
        plan,
    },
    progress::Silent,
    restore::{
        PathMap,
        tests::lab::{Lab, read},
    },
    target::Target,
};

/// A database in an archive of its own, and where its copies go.
struct Shard {
    lab: Lab,
    store: MemoryStore,
    archive: Archive,
    plan: RestorePlan,
    options: RestoreOptions,
}

impl Shard {
    async fn new(into: PathBuf) -> Self {
        let mut lab = Lab::new();
        lab.take_base();
        for number in 0..5 {
            lab.put(&format!("k{number}"), "v");
        }
        let store = MemoryStore::new();
        let archive = lab.archive(Arc::new(store.clone()), None, 4).await;
        let catalog = archive.load_catalog().await.unwrap();
        let target = Target::Record(RecordNumber::new(lab.records() - 1));
        let plan = plan(&archive, &catalog, &target, &PlanOptions::default()).await.unwrap();
        Self { lab, store, archive, plan, options: RestoreOptions::new(into, Nonce([7; 16]), Micros(0)) }
    }

    fn member<'a>(&'a self, database: &'a str) -> Member<'a> {
        Member { database, archive: &self.archive, plan: &self.plan, options: &self.options }
    }

    fn is_there(&self) -> bool {
        self.options.into.join("CURRENT").exists()
    }

    /// Opens it, as a server does.
    fn assert_whole(&self) {
        assert_eq!(read(&self.options.into), self.lab.states[self.lab.records() as usize]);
    }
}

struct Two {
    dir: tempfile::TempDir,
    a: Shard,
    b: Shard,
}

impl Two {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        Self { a: Shard::new(a).await, b: Shard::new(b).await, dir }
    }

    async fn restore(&self, mut begins: impl FnMut(&str)) -> Result<Vec<RestoreReport>> {
        let members = [self.a.member("a"), self.b.member("b")];
        restore("shop", &members, |database| {
            begins(database);
            Arc::new(Silent)
        })
        .await
    }

    /// Somebody is in the way of the second meanwhile.
    async fn restore_the_first(&self) {
        let b = &self.b.options.into;
        let begins = |database: &str| {
            if database == "b" {
                fill(b)
            }
        };
        assert_eq!(self.restore(begins).await.unwrap_err().code(), Code::GroupUnfinished);
        fs::remove_dir_all(b).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Somebody puts something there.
fn fill(place: &std::path::Path) {
    fs::create_dir(place).unwrap();
    fs::write(place.join("strange"), b"x").unwrap();
}

#[tokio::test]
async fn where_the_second_cannot_have_its_name_the_first_stays_and_the_same_call_finishes() {
    let two = Two::new().await;
    let (b, mut seen) = (two.b.options.into.clone(), Vec::new());
    let e = two
        .restore(|database| {
            seen.push(database.to_owned());
            if database == "b" {
                fill(&b);
            }
        })
        .await
        .unwrap_err();
    assert_eq!((e.code(), seen.as_slice()), (Code::GroupUnfinished, ["a".to_owned(), "b".to_owned()].as_slice()));
    let details: Vec<_> = e.details().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(details, ["a", "b"], "{e}");
    assert!(two.a.is_there() && !two.b.is_there());
    fs::remove_dir_all(&b).unwrap();

    let reports = two.restore(|_| {}).await.unwrap();
    two.a.assert_whole();
    two.b.assert_whole();
    assert!(reports.iter().all(|report| report.records == 0), "nothing was written again: {reports:?}");
    assert_eq!(two.names(), ["a", "b"]);
}

#[tokio::test]
async fn what_hinders_the_second_when_the_first_is_in_its_place_says_that_it_is() {
    let mut two = Two::new().await;
    two.restore_the_first().await;
    two.b.options.map_paths.push(PathMap { old: "/nothing".to_owned(), new: PathBuf::from("relative") });
    let e = two.restore(|database| panic!("{database} was begun")).await.unwrap_err();
    assert_eq!(e.code(), Code::GroupUnfinished, "{e}");
    let details: Vec<_> = e.details().collect();
    assert!(matches!(details.as_slice(), [("a", "is in its place"), ("b", _)]), "{e}");
    two.b.options.map_paths.clear();
    two.restore(|_| {}).await.unwrap();
    two.a.assert_whole();
    two.b.assert_whole();
}

#[tokio::test]
async fn what_a_server_has_opened_meanwhile_has_not_arrived() {
    let two = Two::new().await;
    two.restore_the_first().await;
    two.a.assert_whole();
    let e = two.restore(|_| {}).await.unwrap_err();
    assert_eq!(e.details().map(|(name, _)| name.to_owned()).collect::<Vec<_>>(), ["a"], "{e}");
    fs::remove_dir_all(&two.a.options.into).unwrap();
    two.restore(|_| {}).await.unwrap();
    two.a.assert_whole();
    two.b.assert_whole();
}

#[tokio::test]
async fn where_the_first_cannot_have_its_name_nothing_is_left() {
    let two = Two::new().await;
    let a = two.a.options.into.clone();
    let e = two
        .restore(|database| {
            if database == "b" {
                fill(&a);
            }
        })
        .await
        .unwrap_err();
    assert_eq!((e.code(), two.names()), (Code::DestinationNotEmpty, vec!["a".to_owned()]), "{e}");
}

#[tokio::test]
async fn where_there_is_no_room_for_tables_the_logs_are_replayed() {
    let mut two = Two::new().await;
    let engine = &mut two.b.plan.engine;
    (engine.name, engine.wanted) = (Engine::Bulk, EngineChoice::Bulk);
    two.b.plan.disk_bytes = 1 << 60;
    assert_eq!(two.restore(|_| {}).await.unwrap_err().code(), Code::DestinationTooSmall);
    assert_eq!(two.names(), [""; 0]);
    // Nobody asked for them.
    two.b.plan.engine.wanted = EngineChoice::Auto;
    let reports = two.restore(|_| {}).await.unwrap();
    assert!(reports.iter().all(|report| report.tables == 0 && report.wal_bytes > 0), "{reports:?}");
    two.a.assert_whole();
    two.b.assert_whole();
}

#[tokio::test]
async fn where_one_cannot_be_prepared_nothing_is_left_of_the_others() {
    let two = Two::new().await;
    for (key, body) in two.b.store.contents().into_iter().filter(|(key, _)| key.as_str().starts_with("segments/")) {
        let mut damaged = body.to_vec();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        two.b.store.overwrite(&key, damaged.into());
    }
    let e = two.restore(|_| {}).await.unwrap_err();
    assert!(e.details().any(|detail| detail == ("database", "b")), "{e}");
    assert_eq!((e.code(), two.names()), (Code::SegmentDamaged, Vec::new()), "{e}");
}

#[tokio::test]
async fn everybody_in_the_way_is_named_before_anything_is_touched_and_no_directory_is_shared() {
    let mut two = Two::new().await;
    fill(&two.a.options.into);
    fill(&two.b.options.into);
    let e = two.restore(|database| panic!("{database} was begun")).await.unwrap_err();
    assert_eq!((e.code(), e.details().count()), (Code::GroupIncomplete, 2), "{e}");
    fs::remove_dir_all(&two.a.options.into).unwrap();
    fs::remove_dir_all(&two.b.options.into).unwrap();

    two.b.options.into = two.a.options.into.join("inner");
    let e = two.restore(|database| panic!("{database} was begun")).await.unwrap_err();
    assert!(e.code() == Code::GroupIncomplete && e.to_string().contains("share"), "{e}");
    two.b.options.into = two.dir.path().join("b");
    let map = PathMap { old: "/nothing".to_owned(), new: PathBuf::from("relative") };
    two.b.options.map_paths.push(map);
    let e = two.restore(|database| panic!("{database} was begun")).await.unwrap_err();
    assert_eq!(e.details().map(|(name, _)| name.to_owned()).collect::<Vec<_>>(), ["b"], "{e}");
    assert_eq!(two.names(), [""; 0]);
}
