//! Restores of a real database, compared with what it held after every record.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use pitr_archive::{
    Code, Error,
    catalog::archive::Archive,
    clock::{Micros, SystemClock},
    ids::{Boundary, Nonce, RecordNumber},
    keyring::MasterKey,
    object_key::ObjectKey,
    store::{Store, local::LocalStore, memory::MemoryStore},
};

use super::{
    Finish, PathMap, RestoreOptions, RestoreReport,
    files::{GiveUp, Job, lay_down},
    restore,
    resume::Found,
    steps,
};
use crate::{
    group::journal::Journal,
    plan::{PlanOptions, RestorePlan, archive_source::FromArchive, plan},
    progress::Silent,
    target::Target,
};

pub(crate) mod lab;
use lab::{Lab, Write, read};

fn options(into: &Path) -> RestoreOptions {
    RestoreOptions::new(into, Nonce([7; 16]), Micros(0))
}

async fn planned(archive: &Archive, boundary: u64) -> Result<RestorePlan, Error> {
    let catalog = archive.load_catalog().await?;
    let target = Target::Record(Boundary::new(boundary).last_record().unwrap_or(RecordNumber::new(0)));
    plan(archive, &catalog, &target, &PlanOptions::default()).await
}

async fn restored(archive: &Archive, boundary: u64, options: &RestoreOptions) -> Result<RestoreReport, Error> {
    let plan = planned(archive, boundary).await?;
    restore(archive, &plan, options, Arc::new(Silent)).await
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A database with everything that the native engine replays: several families, deletions, flushes, bases between.
fn busy() -> Lab {
    let mut lab = Lab::new();
    lab.take_base();
    for n in 0..6 {
        lab.put(&format!("k{n}"), "first");
    }
    lab.create_family("x");
    lab.write(&Write::Put("x", "a".to_owned(), "1".to_owned()));
    lab.write(&Write::Batch((0..5).map(|n| (format!("b{n}"), "batch".to_owned())).collect()));
    lab.write(&Write::Delete("default", "k1".to_owned()));
    lab.flush();
    lab.write(&Write::DeleteRange("default", "k2".to_owned(), "k4".to_owned()));
    lab.take_base();
    lab.write(&Write::Put("x", "b".to_owned(), "y".repeat(100_000)));
    lab.write(&Write::SingleDelete("b0".to_owned()));
    lab.create_family("y");
    lab.write(&Write::Put("y", "only".to_owned(), "here".to_owned()));
    lab.drop_family("x");
    lab.put("k9", "after the drop");
    lab.create_family("x");
    lab.write(&Write::Put("x", "a".to_owned(), "another x".to_owned()));
    lab.put("last", "one");
    lab
}

#[tokio::test]
async fn every_position_is_restored_with_its_content_and_sequence_number() {
    let lab = busy();
    let archive = lab.archive(Arc::new(MemoryStore::new()), None, 4).await;
    for n in 1..=lab.records() {
        let into = lab.dir.path().join(format!("at-{n}"));
        let report = restored(&archive, n, &options(&into)).await.unwrap();
        assert_eq!(report.position.sequence.get(), lab.states[n as usize].sequence, "record {n}");
        assert_eq!(read(&into), lab.states[n as usize], "after {n} records");
    }
}

#[tokio::test]
async fn recovery_here_gives_the_same_and_the_number_outlives_the_next_open() {
    let lab = busy();
    let store = tempfile::tempdir().unwrap();
    let local: Arc<dyn Store> = Arc::new(LocalStore::open(store.path(), &SystemClock).unwrap());
    let archive = lab.archive(local, None, 3).await;
    for n in [1, 8, 11, 13, lab.records()] {
        let into = lab.dir.path().join(format!("at-{n}"));
        let report =
            restored(&archive, n, &RestoreOptions { finish: Finish::Recover, ..options(&into) }).await.unwrap();
        assert!(report.recovered);
        assert!(!names_in(&into).iter().any(|name| name.starts_with("LOG") || name == "LOCK"), "{:?}", names_in(&into));
        assert_eq!(read(&into), lab.states[n as usize], "after {n} records");
        assert_eq!(read(&into), lab.states[n as usize], "after {n} records, opened again");
    }
}

#[tokio::test]
async fn what_was_fetched_is_kept_where_somebody_filled_the_destination_meanwhile() {
    let lab = busy();
    let archive = lab.archive(Arc::new(MemoryStore::new()), None, 4).await;
    let into = lab.dir.path().join("copy");
    let (directory, file) = (Code::DestinationNotEmpty, Code::FileIo);
    for (finish, in_the_way) in [(Finish::Leave, directory), (Finish::Recover, directory), (Finish::Leave, file)] {
        let options = RestoreOptions { finish, ..options(&into) };
        let plan = planned(&archive, lab.records()).await.unwrap();
        let checked = steps::check(&archive, &plan, &options, &Journal::default()).await.unwrap();
        let prepared = checked.prepare(Arc::new(Silent)).await.unwrap();
        match in_the_way == file {
            true => fs::write(&into, b"theirs").unwrap(),
            false => fs::create_dir_all(into.join("theirs")).unwrap(),
        }
        let e = prepared.publish().unwrap_err();
        assert!(e.code() == in_the_way && e.to_string().contains("what was fetched is kept in"), "{e}");
        let again = restored(&archive, lab.records(), &options).await.unwrap_err();
        assert_eq!(again.code(), Code::DestinationNotEmpty);
        match in_the_way == file {
            true => fs::remove_file(&into).unwrap(),
            false => fs::remove_dir_all(&into).unwrap(),
        }
        let report = restored(&archive, lab.records(), &options).await.unwrap();
        assert!(report.file_bytes > 0);
        assert_eq!(report.reused_file_bytes, report.file_bytes, "{finish:?}");
        assert_eq!(read(&into), lab.states[lab.records() as usize]);
        fs::remove_dir_all(&into).unwrap();
    }
}

/// `--to-latest` of a live archive is another position each time.
#[tokio::test]
async fn a_restore_to_another_position_takes_what_an_interrupted_one_left_of_the_base_and_of_nothing_else() {
    let lab = busy();
    let archive = lab.archive(Arc::new(MemoryStore::new()), None, 4).await;
    let into = lab.dir.path().join("copy");
    let staged = lab.dir.path().join(".copy.pitr-restoring");
    let plan = planned(&archive, lab.records() - 1).await.unwrap();
    let base = archive.get_base(&plan.base.id).await.unwrap().unwrap();
    for damaged in [false, true] {
        let options = options(&into);
        let checked = steps::check(&archive, &plan, &options, &Journal::default()).await.unwrap();
        let prepared = checked.prepare(Arc::new(Silent)).await.unwrap();
        fs::create_dir_all(into.join("theirs")).unwrap();
        assert_eq!(prepared.publish().unwrap_err().code(), Code::DestinationNotEmpty);
        fs::remove_dir_all(&into).unwrap();
        if damaged {
            let file = staged.join(&base.files[0].name);
            let mut bytes = fs::read(&file).unwrap();
            bytes[0] ^= 1;
            fs::write(file, bytes).unwrap();
        }
        let n = lab.records();
        let report = restored(&archive, n, &options).await.unwrap();
        let lost = if damaged { base.files[0].size } else { 0 };
        assert_eq!((report.reused_file_bytes, report.reused_records), (report.file_bytes - lost, 0));
        assert_eq!(read(&into), lab.states[n as usize]);
        assert!(!names_in(&into).iter().any(|name| name.starts_with("pitr-resume")), "{:?}", names_in(&into));
        fs::remove_dir_all(&into).unwrap();
    }
}

#[tokio::test]
async fn a_sealed_archive_restores_the_same_and_only_with_its_key() {
    let lab = busy();
    let store = tempfile::tempdir().unwrap();
    let open = || -> Arc<dyn Store> { Arc::new(LocalStore::open(store.path(), &SystemClock).unwrap()) };
    let key = MasterKey::new([9; 32]);
    drop(lab.archive(open(), Some(key.clone()), 5).await);
    assert_eq!(Archive::open(open(), None).await.unwrap_err().code(), Code::KeyRequired);
    assert_eq!(Archive::open(open(), Some(MasterKey::new([8; 32]))).await.unwrap_err().code(), Code::KeyWrong);
    let archive = Archive::open(open(), Some(key)).await.unwrap();
    let into = lab.dir.path().join("into");
    restored(&archive, lab.records(), &options(&into)).await.unwrap();
    assert_eq!(read(&into), *lab.states.last().unwrap());
}

/// Experiment: column_family_edit.
#[tokio::test]
async fn a_column_family_created_after_the_base_comes_back_because_its_edit_is_appended() {
    let mut lab = Lab::new();
    lab.put("before", "1");
    lab.take_base();
    lab.create_family("newcf");
    lab.write(&Write::Put("newcf", "k".to_owned(), "v".to_owned()));
    let archive = lab.archive(Arc::new(MemoryStore::new()), None, 10).await;
    let mut plan = planned(&archive, 2).await.unwrap();
    let into = lab.dir.path().join("with");
    restore(&archive, &plan, &options(&into), Arc::new(Silent)).await.unwrap();
    assert_eq!(read(&into), lab.states[2]);
    // Without the edit RocksDB skips the family's records silently: this is what the edit is for.
    plan.column_families.clear();
    let into = lab.dir.path().join("without");
    restore(&archive, &plan, &options(&into), Arc::new(Silent)).await.unwrap();
    let lost = read(&into);
    assert_eq!((lost.sequence, lost.families.len()), (lab.states[2].sequence, 1));
}

/// Experiment: last_sequence_edit.
#[tokio::test]
async fn the_latest_sequence_number_is_exact_though_the_keys_that_had_it_are_gone() {
    let mut lab = Lab::new();
    lab.put("a", "1");
    lab.put("b", "2");
    lab.write(&Write::SingleDelete("b".to_owned()));
    lab.flush();
    lab.take_base();
    let archive = lab.archive(Arc::new(MemoryStore::new()), None, 10).await;
    let plan = planned(&archive, 3).await.unwrap();
    // The MANIFEST follows the keys that survived the flush.
    assert_eq!((plan.position.sequence.get(), plan.wals.len()), (3, 0));
    let into = lab.dir.path().join("into");
    restore(&archive, &plan, &options(&into), Arc::new(Silent)).await.unwrap();
    assert_eq!(read(&into).sequence, 3);
}

#[tokio::test]
async fn a_base_replayed_across_a_reopen_that_kept_its_numbers_is_exact() {
    let mut lab = Lab::new();
    lab.take_base();
    lab.put("a", "1");
    lab.put("b", "2");
    lab.reopen();
    lab.put("c", "3");
    lab.flush();
    lab.put("d", "4");
    let archive = lab.archive(Arc::new(MemoryStore::new()), None, 2).await;
    for n in 1..=4 {
        let into = lab.dir.path().join(format!("at-{n}"));
        restored(&archive, n, &options(&into)).await.unwrap();
        assert_eq!(read(&into), lab.states[n as usize], "after {n} records");
    }
}

/// Experiment: dropped_family_and_absolute_paths.
#[tokio::test]
async fn a_restored_copy_opened_by_its_own_options_leaves_the_running_source_alone() {
    let mut lab = Lab::with(lab::options(), Some("live-wal"));
    lab.put("live", "1");
    lab.take_base();
    lab.put("live2", "2");
    let wals = lab.wal_dir.clone().unwrap();
    let archive = lab.archive(Arc::new(MemoryStore::new()), None, 10).await;
    let into = lab.dir.path().join("into");
    let mut mapped = options(&into);
    mapped.map_paths = vec![PathMap { old: wals.display().to_string(), new: into.clone() }];
    restored(&archive, 2, &mapped).await.unwrap();
    let before: BTreeMap<String, u64> =
        names_in(&wals).into_iter().map(|n| (n.clone(), fs::metadata(wals.join(n)).unwrap().len())).collect();
    {
        let (env, cache) = (rocksdb::Env::new().unwrap(), rocksdb::Cache::new_lru_cache(1 << 20));
        let (options, families) = rocksdb::Options::load_latest(&into, env, true, cache).unwrap();
        let copy = rocksdb::DB::open_cf_descriptors(&options, &into, families).unwrap();
        assert_eq!(copy.get("live2").unwrap().as_deref(), Some(b"2".as_slice()));
        copy.put("copy", "only").unwrap();
        copy.flush().unwrap();
    }
    let after: BTreeMap<String, u64> =
        names_in(&wals).into_iter().map(|n| (n.clone(), fs::metadata(wals.join(n)).unwrap().len())).collect();
    assert_eq!(before, after, "the source's WALs");
    lab.reopen();
    for key in ["live", "live2"] {
        assert!(lab.db().get(key).unwrap().is_some(), "{key}");
    }
    assert!(lab.db().get("copy").unwrap().is_none());
}

/// Runs a restore that must fail, and checks that nothing changed where it was to go.
async fn refused(archive: &Archive, plan: &RestorePlan, options: &RestoreOptions) -> Error {
    let above = options.into.parent().unwrap();
    let before = names_in(above);
    let e = restore(archive, plan, options, Arc::new(Silent)).await.unwrap_err();
    assert_eq!(names_in(above), before, "{e}");
    e
}

#[tokio::test]
async fn damage_and_loss_are_named_and_nothing_changes() {
    let lab = busy();
    let n = lab.records();
    let store = tempfile::tempdir().unwrap();
    let local: Arc<dyn Store> = Arc::new(LocalStore::open(store.path(), &SystemClock).unwrap());
    let archive = lab.archive(local, None, 4).await;
    let plan = planned(&archive, n).await.unwrap();
    let base = archive.get_base(&plan.base.id).await.unwrap().unwrap();
    let space = tempfile::tempdir().unwrap();
    let into = options(&space.path().join("into"));
    let file = store.path().join(ObjectKey::file(&base.files[0].object).as_str());
    let segment =
        store.path().join(ObjectKey::segment(plan.segments[0].timeline, plan.segments[0].ordinals()).as_str());
    for (path, damaged, missing) in
        [(&file, Code::ObjectDamaged, Code::ObjectMissing), (&segment, Code::SegmentDamaged, Code::SegmentMissing)]
    {
        let whole = fs::read(path).unwrap();
        for place in [0, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            fs::write(path, &bytes).unwrap();
            assert_eq!(refused(&archive, &plan, &into).await.code(), damaged, "{} at {place}", path.display());
        }
        fs::write(path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(refused(&archive, &plan, &into).await.code(), damaged, "{} cut", path.display());
        fs::remove_file(path).unwrap();
        assert_eq!(refused(&archive, &plan, &into).await.code(), missing, "{} gone", path.display());
        fs::write(path, &whole).unwrap();
    }
    // Two segments exchanged: each is sound, and neither is where it belongs.
    let other = store.path().join(ObjectKey::segment(plan.segments[1].timeline, plan.segments[1].ordinals()).as_str());
    let (a, b) = (fs::read(&segment).unwrap(), fs::read(&other).unwrap());
    fs::write(&segment, &b).unwrap();
    fs::write(&other, &a).unwrap();
    assert_eq!(refused(&archive, &plan, &into).await.code(), Code::SegmentDamaged);
    fs::write(&segment, &a).unwrap();
    fs::write(&other, &b).unwrap();
    restore(&archive, &plan, &into, Arc::new(Silent)).await.unwrap();
    assert_eq!(read(&into.into), lab.states[n as usize]);
}

/// What failed while it was written is not there any more when somebody goes on: its bytes could be right in memory, and never
/// have come to the disk.
#[tokio::test]
async fn nothing_of_a_file_that_could_not_be_laid_down_stays() {
    let lab = busy();
    let store = tempfile::tempdir().unwrap();
    let local: Arc<dyn Store> = Arc::new(LocalStore::open(store.path(), &SystemClock).unwrap());
    let archive = lab.archive(local, None, 4).await;
    let plan = planned(&archive, lab.records()).await.unwrap();
    let base = archive.get_base(&plan.base.id).await.unwrap().unwrap();
    let space = tempfile::tempdir().unwrap();
    let file = base.files[0].clone();
    let object = store.path().join(ObjectKey::file(&file.object).as_str());
    let jobs = || vec![Job { file: file.clone(), to: space.path().join(&file.name) }];
    let source = FromArchive(&archive);
    let lay = || async { lay_down(&source, jobs(), 1, Found::Nothing, &GiveUp::default(), &Silent).await };
    let whole = fs::read(&object).unwrap();
    let mut bytes = whole.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&object, bytes).unwrap();
    assert_eq!(lay().await.unwrap_err().code(), Code::ObjectDamaged);
    assert!(names_in(space.path()).is_empty());
    fs::write(&object, &whole).unwrap();
    lay().await.unwrap();
    assert_eq!(fs::read(space.path().join(&file.name)).unwrap(), whole);
}

#[tokio::test]
async fn what_can_be_refused_is_refused_before_anything_is_touched() {
    let lab = busy();
    let archive = lab.archive(Arc::new(MemoryStore::new()), None, 4).await;
    let space = tempfile::tempdir().unwrap();
    let into = options(&space.path().join("into"));
    let plan = planned(&archive, 5).await.unwrap();

    let full = options(&space.path().join("full"));
    fs::create_dir(&full.into).unwrap();
    fs::write(full.into.join("precious"), b"x").unwrap();
    assert_eq!(refused(&archive, &plan, &full).await.code(), Code::DestinationNotEmpty);

    let mut huge = plan.clone();
    huge.disk_bytes = 1 << 60;
    assert_eq!(refused(&archive, &huge, &into).await.code(), Code::DestinationTooSmall);

    let mut other = plan.clone();
    other.base.first_hash.0[0] ^= 1;
    assert_eq!(refused(&archive, &other, &into).await.code(), Code::ChainBroken);

    let mut elsewhere = plan.clone();
    elsewhere.position.hash.0[0] ^= 1;
    assert_eq!(refused(&archive, &elsewhere, &into).await.code(), Code::ChainBroken);

    let mut less = plan.clone();
    less.position.sequence = pitr_archive::ids::SequenceNumber::new(1);
    assert_eq!(refused(&archive, &less, &into).await.code(), Code::SequenceMismatch);
}

#[tokio::test]
async fn an_unknown_comparator_is_refused_for_recovery_here_and_left_to_the_server_otherwise() {
    let mut strange = lab::options();
    strange.set_comparator("test.Strange", Box::new(|a, b| a.cmp(b)));
    let mut lab = Lab::with(strange, None);
    lab.take_base();
    lab.put("a", "1");
    let archive = lab.archive(Arc::new(MemoryStore::new()), None, 4).await;
    let space = tempfile::tempdir().unwrap();
    let into = options(&space.path().join("into"));
    let plan = planned(&archive, 1).await.unwrap();
    let e = refused(&archive, &plan, &RestoreOptions { finish: Finish::Recover, ..into.clone() }).await;
    assert_eq!(e.code(), Code::DatabaseUnsupported);
    assert!(e.to_string().contains("test.Strange"), "{e}");
    restore(&archive, &plan, &into, Arc::new(Silent)).await.unwrap();
    assert!(into.into.join("CURRENT").exists());
}

#[tokio::test]
async fn the_marker_tells_an_archiver_where_the_copy_comes_from() {
    let lab = busy();
    let archive = lab.archive(Arc::new(MemoryStore::new()), None, 4).await;
    let into = lab.dir.path().join("into");
    let report = restored(&archive, 3, &options(&into)).await.unwrap();
    let text = fs::read(into.join(pitr_archive::restore_marker::FILE_NAME)).unwrap();
    let marker: pitr_archive::restore_marker::RestoreMarker = serde_json::from_slice(&text).unwrap();
    assert_eq!((marker.marker, marker.boundary), (Nonce([7; 16]), Boundary::new(3)));
    assert_eq!((marker.archive, marker.sequence), (archive.id(), report.position.sequence));
}
