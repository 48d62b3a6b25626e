//! What only a directory can get wrong; the behaviour that all stores share is tested in `tests/store_behaviour.rs`.

use std::{collections::HashSet, fs, time::Duration};

use super::*;
use crate::clock::{ManualClock, Micros, SystemClock};

fn key(text: &str) -> ObjectKey {
    ObjectKey::parse(text).unwrap()
}

fn open_in(path: &Path) -> LocalStore {
    LocalStore::open(path, &SystemClock).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_creators_exactly_one_wins_and_its_bytes_are_the_objects() {
    let dir = tempfile::tempdir().unwrap();
    // Separate stores, as separate processes would have: nothing is shared but the directory.
    let stores: Vec<_> = (0..8).map(|_| open_in(dir.path())).collect();
    for race in 0..200 {
        let name = key(&format!("segments/0000000001/{race:020}.seg"));
        let creators: Vec<_> = stores
            .iter()
            .enumerate()
            .map(|(i, store)| {
                let (store, name, body) = (store.clone(), name.clone(), Bytes::from(format!("creator {i}")));
                tokio::spawn(async move {
                    // Both ways to create an object meet in the race.
                    if i % 2 == 0 {
                        return store.put(&name, body).await.unwrap();
                    }
                    let mut upload = store.upload(&name, 9).await.unwrap();
                    upload.write(body).await.unwrap();
                    upload.finish().await.unwrap()
                })
            })
            .collect();
        let mut winners = Vec::new();
        for (i, creator) in creators.into_iter().enumerate() {
            if creator.await.unwrap() == Put::Created {
                winners.push(i);
            }
        }
        assert_eq!(winners.len(), 1, "race {race}: {winners:?}");
        let body = stores[0].get(&name, 100).await.unwrap().unwrap();
        assert_eq!(body, format!("creator {}", winners[0]), "race {race}");
    }
    assert_eq!(stores[0].list("", None).await.unwrap().len(), 200);
    assert_eq!(fs::read_dir(dir.path().join(temporary::DIRECTORY)).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn leftovers_of_crashed_writers_are_never_listed_and_go_after_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_in(dir.path());
    assert_eq!(store.put(&key("archive.json"), Bytes::from_static(b"{}")).await.unwrap(), Put::Created);
    let leftover = dir.path().join(temporary::DIRECTORY).join("0123456789abcdef");
    fs::write(&leftover, b"half").unwrap();
    let names = |list: Vec<Listed>| list.into_iter().map(|l| l.key.to_string()).collect::<Vec<_>>();
    assert_eq!(names(store.list("", None).await.unwrap()), ["archive.json"]);

    let written = fs::metadata(&leftover).unwrap().modified().unwrap();
    let written = Micros::from(chrono::DateTime::<chrono::Utc>::from(written));
    let clock = ManualClock::new(written);
    clock.advance(23 * 3600 * 1_000_000);
    LocalStore::open(dir.path(), &clock).unwrap();
    assert!(leftover.exists(), "a writer of yesterday may still be at work");
    clock.advance(2 * 3600 * 1_000_000);
    LocalStore::open(dir.path(), &clock).unwrap();
    assert!(!leftover.exists());
    assert_eq!(names(store.list("", None).await.unwrap()), ["archive.json"]);
}

#[tokio::test]
async fn an_upload_that_is_dropped_or_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_in(dir.path());
    let unfinished = || fs::read_dir(dir.path().join(temporary::DIRECTORY)).unwrap().count();
    let mut aborted = store.upload(&key("files/a.dat"), 8 << 20).await.unwrap();
    aborted.write(Bytes::from(vec![1; 3 << 20])).await.unwrap();
    aborted.abort().await.unwrap();
    assert_eq!(unfinished(), 0);
    let mut dropped = store.upload(&key("files/a.dat"), 0).await.unwrap();
    dropped.write(Bytes::from(vec![1; 3 << 20])).await.unwrap();
    drop(dropped);
    // Its last write may still be on the way to the disk.
    for _ in 0..1000 {
        if unfinished() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(unfinished(), 0);
    assert_eq!(store.list("", None).await.unwrap(), vec![]);
}

#[tokio::test]
async fn a_directory_that_disappears_is_an_error_and_not_an_empty_archive() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("mnt");
    let store = open_in(&root);
    assert_eq!(store.get(&key("archive.json"), 10).await.unwrap(), None, "never created is simply not there");
    assert!(!root.exists(), "reading creates nothing");
    assert_eq!(store.put(&key("a/b"), Bytes::from_static(b"1")).await.unwrap(), Put::Created);
    fs::rename(&root, dir.path().join("elsewhere")).unwrap();
    let unavailable = |r: Result<()>| assert_eq!(r.unwrap_err().code(), Code::StoreUnavailable);
    let check = async || {
        unavailable(store.get(&key("a/b"), 10).await.map(drop));
        unavailable(store.size(&key("a/b")).await.map(drop));
        unavailable(store.list("", None).await.map(drop));
        unavailable(store.delete(&key("a/b")).await);
        unavailable(store.put(&key("a/c"), Bytes::from_static(b"2")).await.map(drop));
    };
    check().await;
    // The mount point that is left when a disk goes away: another, empty directory.
    fs::create_dir(&root).unwrap();
    check().await;
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "nothing was written to the wrong place");
}

#[tokio::test]
async fn strange_files_in_the_directory_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_in(dir.path());
    assert_eq!(store.put(&key("tags/a.doc"), Bytes::from_static(b"1")).await.unwrap(), Put::Created);
    fs::write(dir.path().join("tags/a.doc~"), b"x").unwrap();
    fs::write(dir.path().join("lost found"), b"x").unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
    let names: HashSet<_> = store.list("", None).await.unwrap().into_iter().map(|l| l.key.to_string()).collect();
    assert_eq!(names, HashSet::from(["tags/a.doc".to_owned()]));
    // A directory with an object's name is damage, not absence.
    fs::create_dir(dir.path().join("tags/b.doc")).unwrap();
    assert_eq!(store.get(&key("tags/b.doc"), 10).await.unwrap_err().code(), Code::ObjectDamaged);
}

/// A file system of 4 MiB, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(dir.path())
            .output();
        mount.is_ok_and(|o| o.status.success()).then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing_behind() {
    let Some(disk) = SmallDisk::mount() else {
        let _ =
            std::io::Write::write_all(&mut std::io::stderr(), b"SKIPPED: only the superuser can mount a small disk\n");
        return;
    };
    let root = disk.0.path().join("archive");
    let store = open_in(&root);
    assert_eq!(store.put(&key("a/small"), Bytes::from(vec![1; 1 << 20])).await.unwrap(), Put::Created);
    let full = store.put(&key("a/large"), Bytes::from(vec![1; 8 << 20])).await;
    assert_eq!(full.unwrap_err().code(), Code::DiskFull);
    // A hint tells it before anything is sent; without one the writes do.
    assert_eq!(store.upload(&key("a/large"), 8 << 20).await.map(drop).unwrap_err().code(), Code::DiskFull);
    let mut upload = store.upload(&key("a/large"), 0).await.unwrap();
    let mut full = Ok(());
    for _ in 0..8 {
        full = full.and(upload.write(Bytes::from(vec![1; 1 << 20])).await);
    }
    let full = full.and(upload.finish().await.map(drop));
    assert_eq!(full.unwrap_err().code(), Code::DiskFull);
    assert_eq!(fs::read_dir(root.join(temporary::DIRECTORY)).unwrap().count(), 0);
    assert_eq!(store.list("", None).await.unwrap().len(), 1);
    assert_eq!(store.put(&key("a/next"), Bytes::from(vec![1; 1 << 20])).await.unwrap(), Put::Created, "room again");
}

#[test]
fn a_file_in_the_place_of_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert_eq!(LocalStore::open(&file, &SystemClock).unwrap_err().code(), Code::StoreUrl);
}

#[tokio::test]
async fn no_right_to_write_is_denied_and_reading_still_works() {
    use std::os::unix::fs::PermissionsExt as _;
    if rustix::process::geteuid().is_root() {
        // Not by `eprintln!`: the test framework swallows that when a test passes.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"SKIPPED: permissions do not bind the superuser, who runs this test\n",
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open_in(dir.path());
    assert_eq!(store.put(&key("a/b"), Bytes::from_static(b"1")).await.unwrap(), Put::Created);
    fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o555)).unwrap();
    let denied = store.put(&key("a/c"), Bytes::from_static(b"2")).await;
    fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(denied.unwrap_err().code(), Code::StoreDenied);
    assert_eq!(store.get(&key("a/b"), 10).await.unwrap(), Some(Bytes::from_static(b"1")));
}
