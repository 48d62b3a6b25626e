//! The state directory, or any file of it, deleted, emptied, overwritten, or of another version while no archiver runs:
//! it is rebuilt from the archive and the database, or refused with the file's name. What that costs is a barrier.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use pitr_archive::{
    Code,
    catalog::archive::Archive,
    clock::SystemClock,
    random::OsRandom,
    rocks::write_batch::WriteBatch,
    segment::entry::{BarrierReason, Entry, Event},
    store::memory::MemoryStore,
};
use pitr_archiver::{Archiver, ArchiverConfig, Parts, known_archive};
use rocksdb::{DB, Options};

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
enum Spoilt {
    Deleted,
    Emptied,
    Garbage,
    /// As a version would write it that does not exist yet.
    Newer,
    /// As it was before files had versions.
    Older,
    Halved,
}

const ALL: [Spoilt; 6] =
    [Spoilt::Deleted, Spoilt::Emptied, Spoilt::Garbage, Spoilt::Newer, Spoilt::Older, Spoilt::Halved];

impl Spoilt {
    /// A pin is a link: whoever writes into it writes into the server's file. It is replaced.
    fn apply(self, path: &Path) {
        let bytes = fs::read(path).unwrap_or_default();
        fs::remove_file(path).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match self {
            Self::Deleted => {}
            Self::Emptied => fs::write(path, b"").unwrap(),
            Self::Garbage => fs::write(path, [0xA5; 300]).unwrap(),
            Self::Newer => fs::write(path, text.replace("\"version\":1", "\"version\":99")).unwrap(),
            Self::Older => fs::write(path, text.replace("\"version\":1,", "")).unwrap(),
            Self::Halved => fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
        }
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options
}

async fn archiver(dir: &Path, store: &MemoryStore) -> pitr_archive::Result<Archiver> {
    let archive = Archive::open_or_create(Arc::new(store.clone()), None, &SystemClock, &OsRandom).await?;
    Archiver::open(ArchiverConfig::new(dir.join("db")), archive, Parts::system()).await
}

/// How many timelines there are; the sequence numbers of the last one's records, and its barriers.
async fn story(store: &MemoryStore) -> (usize, Vec<u64>, Vec<BarrierReason>) {
    let archive = Archive::open(Arc::new(store.clone()), None).await.unwrap();
    let timelines = archive.timelines().await.unwrap();
    let timeline = timelines.last().unwrap().timeline;
    let (mut sequences, mut barriers) = (Vec::new(), Vec::new());
    for (ordinal, _) in archive.list_segments(timeline, None).await.unwrap() {
        for entry in archive.read_segment(timeline, ordinal).await.unwrap().entries() {
            match entry.unwrap().entry {
                Entry::Record(record) => sequences.push(WriteBatch::parse(&record.payload).unwrap().sequence().get()),
                Entry::Event(Event::Barrier { reason, .. }) => barriers.push(reason),
                Entry::Event(_) => {}
            }
        }
    }
    (timelines.len(), sequences, barriers)
}

/// Forty writes, a few of them acknowledged; logs that only pins hold; an archiver that is gone.
async fn abandoned(dir: &Path, store: &MemoryStore) -> DB {
    let db = DB::open(&options(), dir.join("db")).unwrap();
    let mut one = archiver(dir, store).await.unwrap();
    for i in 0..40 {
        db.put(format!("k{i}"), "v").unwrap();
        one.poll().unwrap();
        if i == 5 {
            one.ship().await.unwrap();
            one.take_wanted_base().await.unwrap().expect("the first base");
        }
        if i % 10 == 9 {
            db.flush().unwrap();
        }
    }
    one.poll().unwrap();
    db
}

/// Every file below the state directory.
fn files(state: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(state).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// The archive goes on to the end of the database, and where it is not continuous, it says so.
async fn goes_on(dir: &Path, store: &MemoryStore, db: &DB, what: &str) -> Vec<BarrierReason> {
    for i in 0..5 {
        db.put(format!("after{i}"), "v").unwrap();
    }
    let mut two = archiver(dir, store).await.unwrap_or_else(|e| panic!("{what}: {e}"));
    two.catch_up().await.unwrap_or_else(|e| panic!("{what}: {e}"));
    two.close().await.unwrap_or_else(|e| panic!("{what}: {e}"));
    let (timelines, sequences, barriers) = story(store).await;
    assert_eq!(sequences.last(), Some(&45), "{what}: the archive does not reach the end");
    if barriers.is_empty() {
        // Pins that do not hold what was archived look like a server that lost it: then another timeline goes on.
        let first = if timelines == 1 { 1 } else { sequences[0] };
        assert_eq!(sequences, (first..=45).collect::<Vec<_>>(), "{what}: silently short");
    }
    barriers
}

#[tokio::test]
async fn a_state_directory_that_is_as_it_was_left_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let db = abandoned(dir.path(), &store).await;
    assert_eq!(goes_on(dir.path(), &store, &db, "nothing").await, []);
}

#[tokio::test]
async fn a_deleted_state_directory_costs_at_most_a_barrier() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let db = abandoned(dir.path(), &store).await;
    fs::remove_dir_all(dir.path().join("db.pitr")).unwrap();
    // The logs that only the pins held are gone, and that is said.
    assert_eq!(goes_on(dir.path(), &store, &db, "all").await, [BarrierReason::RecordsMissing]);
}

#[tokio::test]
async fn any_file_of_it_can_be_deleted_emptied_damaged_or_of_another_version() {
    let names: Vec<PathBuf> = {
        let dir = tempfile::tempdir().unwrap();
        let _db = abandoned(dir.path(), &MemoryStore::new()).await;
        let state = dir.path().join("db.pitr");
        files(&state).iter().map(|path| path.strip_prefix(&state).unwrap().to_owned()).collect()
    };
    assert!(names.iter().any(|name| name.ends_with("pinned-from.json")), "{names:?}");
    assert!(names.len() > 4, "pins, the lock and what they were made of: {names:?}");
    for name in &names {
        for spoilt in ALL {
            let dir = tempfile::tempdir().unwrap();
            let store = MemoryStore::new();
            let db = abandoned(dir.path(), &store).await;
            spoilt.apply(&dir.path().join("db.pitr").join(name));
            goes_on(dir.path(), &store, &db, &format!("{} {spoilt:?}", name.display())).await;
        }
    }
}

#[tokio::test]
async fn what_a_crash_left_of_a_replaced_file_is_no_burden() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let db = abandoned(dir.path(), &store).await;
    fs::write(dir.path().join("db.pitr/pinned-from.json.new"), b"{\"versi").unwrap();
    assert_eq!(goes_on(dir.path(), &store, &db, "a file aside").await, []);
}

#[tokio::test]
async fn what_a_base_that_was_under_way_left_holds_nothing_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let db = abandoned(dir.path(), &store).await;
    let left = dir.path().join("db.pitr/staging/000999.sst");
    fs::create_dir_all(left.parent().unwrap()).unwrap();
    fs::write(&left, [0; 1000]).unwrap();
    let one = archiver(dir.path(), &store).await.unwrap();
    assert!(!left.exists(), "the server has deleted it long ago");
    drop(one);
    assert_eq!(goes_on(dir.path(), &store, &db, "links of a base").await, []);
}

#[tokio::test]
async fn what_cannot_be_rebuilt_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let _db = abandoned(dir.path(), &store).await;
    let note = dir.path().join("db.pitr/pinned-from.json");
    fs::remove_file(&note).unwrap();
    fs::create_dir(&note).unwrap();
    let refused = archiver(dir.path(), &store).await.unwrap_err();
    assert!(refused.to_string().contains("pinned-from.json"), "{refused}");
}

#[tokio::test]
async fn pins_of_nobody_knows_what_are_never_taken_for_the_database_s() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    drop(abandoned(dir.path(), &store).await);
    // Another database takes the place of the first; its logs have the numbers of those that are pinned.
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    fs::remove_file(dir.path().join("db.pitr/pinned-from.json")).unwrap();
    let db = DB::open(&options(), dir.path().join("db")).unwrap();
    for i in 0..7 {
        db.put(format!("other{i}"), "v").unwrap();
    }
    let mut two = archiver(dir.path(), &store).await.unwrap();
    two.catch_up().await.unwrap();
    assert_eq!(story(&store).await, (2, (1..=7).collect(), vec![]));
}

/// A database in use, archived by an archiver that ended in order: the store, and the state directory that was left.
async fn archived_in_order(dir: &Path) -> (DB, MemoryStore, PathBuf) {
    let db = DB::open(&options(), dir.join("db")).unwrap();
    db.put("a", "1").unwrap();
    let store = MemoryStore::new();
    archiver(dir, &store).await.unwrap().close().await.unwrap();
    (db, store, ArchiverConfig::new(dir.join("db")).state)
}

#[tokio::test]
async fn where_an_archive_was_no_new_one_is_begun() {
    let dir = tempfile::tempdir().unwrap();
    let (_db, store, state) = archived_in_order(dir.path()).await;
    let open = async |store: &MemoryStore| {
        let store = Arc::new(store.clone());
        known_archive::open_or_create(&state, store, None, &SystemClock, &OsRandom).await.map(|archive| archive.id())
    };
    let own = open(&store).await.unwrap();
    // A disk that is not mounted: a place as before, with nothing in it. Then one that is another archive's.
    let other = MemoryStore::new();
    let e = open(&other).await.unwrap_err();
    assert_eq!(e.code(), Code::ArchiveGone, "{e}");
    assert!(other.contents().is_empty(), "nothing was written there");
    Archive::open_or_create(Arc::new(other.clone()), None, &SystemClock, &OsRandom).await.unwrap();
    assert_eq!(open(&other).await.unwrap_err().code(), Code::ArchiveGone);
    // However it was opened.
    assert_eq!(archiver(dir.path(), &other).await.unwrap_err().code(), Code::ArchiveGone);
    assert_eq!(open(&store).await.unwrap(), own);
    // Whoever wants to begin anew says so.
    fs::write(state.join("known-archive.json"), b"{").unwrap();
    assert_ne!(open(&other).await.unwrap(), own);
    fs::remove_file(state.join("known-archive.json")).unwrap();
    assert_ne!(open(&MemoryStore::new()).await.unwrap(), own);
}

#[tokio::test]
async fn what_was_shown_of_pins_that_are_given_up_is_not_believed_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let (_db, store, state) = archived_in_order(dir.path()).await;
    fs::write(state.join("watched.json"), b"{}").unwrap();
    // Nobody knows what the pins were made of.
    fs::remove_file(state.join("pinned-from.json")).unwrap();
    let archiver = archiver(dir.path(), &store).await.unwrap();
    assert!(
        fs::read(state.join("watched.json")).is_ok_and(|bytes| bytes != b"{}") || !state.join("watched.json").exists()
    );
    drop(archiver);
}
