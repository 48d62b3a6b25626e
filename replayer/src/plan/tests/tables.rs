//! When tables are made of the log.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pitr_archive::{
    Code,
    catalog::schema::{BaseColumnFamily, BaseFile, InlineFile, Special},
    ids::{ColumnFamilyId, ContentHash, Epoch, FileNumber},
};

use super::{
    super::{
        PlanOptions,
        engine::{Engine, EngineChoice},
    },
    flushes::flush,
    record,
    scene::Scene,
};

const OPTIONS: &str = "[Version]\n  rocksdb_version=11.8.1\n  options_file_version=1.1\n[DBOptions]\n  max_open_files=-1\n[CFOptions \"default\"]\n  compaction_style=kCompactionStyleLevel\n[TableOptions/BlockBasedTable \"default\"]\n  format_version=6\n";

/// A long log of plain operations, on a base of a plain database.
fn long() -> Scene {
    let mut s = Scene::new();
    s.plain_bytes = 100 << 20;
    s.put(1).base(0, 5, 0).put(1).cut();
    with_options(&mut s, OPTIONS);
    s.bases[0].column_families = vec![BaseColumnFamily {
        id: ColumnFamilyId::DEFAULT,
        name: "default".to_owned(),
        comparator: "leveldb.BytewiseComparator".to_owned(),
        merge_operator: None,
        compaction_filter: None,
        log_number: FileNumber::new(0),
    }];
    s
}

fn with_options(s: &mut Scene, text: &str) {
    s.bases[0].inline = vec![InlineFile { name: "OPTIONS-000007".to_owned(), content: STANDARD.encode(text) }];
}

fn engine(s: &Scene, wanted: EngineChoice) -> Result<(Engine, String), Code> {
    let options = PlanOptions { engine: wanted, ..PlanOptions::default() };
    let planned = s.plan_with(&record(1), &options);
    planned.map(|plan| (plan.engine.name, plan.engine.reason)).map_err(|e| e.code())
}

fn native_because(s: &Scene, why: &str) {
    let (name, reason) = engine(s, EngineChoice::Auto).unwrap();
    assert!(name == Engine::Native && reason.contains(why), "{reason}");
}

#[test]
fn a_long_log_becomes_tables_and_a_short_one_does_not() {
    let mut s = long();
    let (name, reason) = engine(&s, EngineChoice::Auto).unwrap();
    assert!(name == Engine::Bulk && reason.starts_with("100 MiB of log"), "{reason}");
    assert_eq!(engine(&s, EngineChoice::Native).unwrap().0, Engine::Native);
    s.plain_bytes = 1 << 20;
    let mut short = Scene::new();
    short.plain_bytes = 1 << 20;
    short.put(1).base(0, 5, 0).put(1).cut();
    with_options(&mut short, OPTIONS);
    native_because(&short, "RocksDB replays 1 MiB in little time");
    assert_eq!(engine(&short, EngineChoice::Bulk).unwrap(), (Engine::Bulk, "asked for".to_owned()));
}

#[test]
fn what_tables_cannot_hold_is_replayed_by_rocksdb_and_the_plan_says_why() {
    for special in
        [Special::Merge, Special::Entity, Special::TimedPut, Special::BlobIndex, Special::TwoPhase, Special::Unknown]
    {
        let mut s = long();
        s.special(special).cut();
        let options = PlanOptions { engine: EngineChoice::Auto, ..PlanOptions::default() };
        let plan = s.plan_with(&record(2), &options).unwrap();
        assert!(plan.engine.name == Engine::Native, "{special:?}");
        assert!(plan.engine.reason.contains("the last one on a key does not tell all"), "{}", plan.engine.reason);
        let asked = PlanOptions { engine: EngineChoice::Bulk, ..PlanOptions::default() };
        assert_eq!(s.plan_with(&record(2), &asked).unwrap_err().code(), Code::EngineUnusable);
        // Before that operation nothing stands against them.
        assert_eq!(engine(&s, EngineChoice::Auto).unwrap().0, Engine::Bulk, "{special:?}");
    }
    let mut s = long();
    s.special(Special::SingleDelete).cut();
    let both = |s: &Scene| s.plan_with(&record(2), &PlanOptions::default()).unwrap().engine.name;
    assert_eq!(both(&s), Engine::Bulk, "nothing lies below");
    s.bases[0].files = vec![BaseFile {
        name: "000005.sst".to_owned(),
        column_family: ColumnFamilyId::DEFAULT,
        path_id: 0,
        size: 7,
        hash: ContentHash([1; 32]),
        object: "o".to_owned(),
        epoch: Epoch::new(1),
    }];
    assert_eq!(both(&s), Engine::Native, "it takes one write away, not all");
}

#[test]
fn a_database_that_would_not_read_tables_as_its_own_gets_its_log() {
    let mut s = long();
    with_options(&mut s, &OPTIONS.replace("kCompactionStyleLevel", "kCompactionStyleFIFO"));
    native_because(&s, "drops the oldest file");
    with_options(&mut s, &OPTIONS.replace("max_open_files=-1", "allow_ingest_behind=true"));
    native_because(&s, "ingested behind");
    with_options(&mut s, &OPTIONS.replace("BlockBasedTable", "PlainTable").replace("  format_version=6\n", ""));
    native_because(&s, "not of the block-based form");
    s.bases[0].inline.clear();
    native_because(&s, "no OPTIONS file");
    with_options(&mut s, OPTIONS);
    s.bases[0].column_families[0].comparator = "mine".to_owned();
    native_because(&s, "a comparator of the source's own");
    s.bases[0].column_families[0].comparator.clear();
    s.bases[0].allow_2pc = true;
    native_because(&s, "prepared transactions");
}

/// Two gigabytes of log that a flush holds, and so much behind it.
fn behind_a_flush(bytes: u64) -> Scene {
    let mut s = Scene::new();
    s.session(0, 0).base(0, 5, 0);
    s.bases[0].column_families = long().bases[0].column_families.clone();
    s.bases[0].column_families[0].log_number = FileNumber::new(10);
    with_options(&mut s, OPTIONS);
    s.plain_bytes = 2 << 30;
    s.wal(10).put(1).put(1).cut();
    s.plain_bytes = bytes;
    s.wal(11).put(1).put(1).event(flush(0, (6, 5), 11, 2)).cut();
    s
}

#[test]
fn behind_flushes_that_hold_most_of_it_a_log_becomes_tables_above_them_where_it_is_neither_short_nor_long() {
    let plan = |s: &Scene, wanted| {
        let options = PlanOptions { engine: wanted, ..PlanOptions::default() };
        s.plan_with(&record(3), &options).unwrap()
    };
    for (bytes, expected) in [(1 << 20, Engine::Flush), (100 << 20, Engine::Bulk), (600 << 20, Engine::Flush)] {
        let s = behind_a_flush(bytes);
        let auto = plan(&s, EngineChoice::Auto);
        assert_eq!((auto.engine.name, auto.flushes.len()), (expected, 1), "{}", auto.engine.reason);
        assert_eq!(plan(&s, EngineChoice::Flush).engine.name, Engine::Flush);
        let asked = plan(&s, EngineChoice::FlushAndBulk);
        assert_eq!((asked.engine.name, asked.flushes.len()), (Engine::Bulk, 1));
        if expected == Engine::Bulk {
            assert!(
                auto.engine.reason.contains("file(s) of shipped flushes hold 2 record(s)"),
                "{}",
                auto.engine.reason
            );
            assert_eq!(
                auto.replayed().engine.name,
                Engine::Flush,
                "what tables cannot hold is replayed on the same files"
            );
        }
    }
}
