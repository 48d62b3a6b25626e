//! A writer that is killed at any moment leaves whole objects and nothing else that anybody sees.
//!
//! The writer is this test binary started again as a process of its own, so that it can be killed with all that a
//! process loses then.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use bytes::Bytes;
use pitr_archive::{
    clock::SystemClock,
    object_key::ObjectKey,
    store::{Put, Store, local::LocalStore},
};

const DIRECTORY: &str = "PITR_TEST_CRASHING_WRITER";
const KILLS: u64 = 25;

fn segment(number: u64) -> ObjectKey {
    ObjectKey::parse(&format!("segments/0000000001/{number:020}.seg")).unwrap()
}

/// What the object must hold: its own number, over and over, in a length that follows from it.
fn body(number: u64) -> Bytes {
    let length = 8 * (1 + usize::try_from(number * 7919 % 40_000).unwrap());
    Bytes::from(number.to_le_bytes().repeat(length / 8))
}

/// The process that is killed: writes objects in order, every other one in pieces, until it is.
#[tokio::test]
async fn writer_process() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let store = LocalStore::open(directory, &SystemClock).unwrap();
    let first = store.list("segments/", None).await.unwrap().len() as u64;
    for number in first.. {
        let (name, bytes) = (segment(number), body(number));
        let put = if number % 2 == 0 {
            store.put(&name, bytes).await.unwrap()
        } else {
            let mut upload = store.upload(&name, bytes.len() as u64).await.unwrap();
            for piece in bytes.chunks(50_000) {
                upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            upload.finish().await.unwrap()
        };
        assert_eq!(put, Put::Created, "{name}");
    }
}

#[tokio::test]
async fn a_killed_writer_leaves_whole_objects_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path(), &SystemClock).unwrap();
    for kill in 0..KILLS {
        let before = store.list("", None).await.unwrap().len() as u64;
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer_process", "--quiet"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // At least one object more, however slow the disk is, and then at any moment.
        for _ in 0..6000 {
            if store.list("", None).await.unwrap().len() as u64 > before {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(kill * 37 % 61));
        assert_eq!(writer.try_wait().unwrap(), None, "the writer runs until it is killed");
        writer.kill().unwrap();
        writer.wait().unwrap();
        let listed = store.list("", None).await.unwrap();
        for (number, entry) in listed.iter().enumerate() {
            let number = number as u64;
            assert_eq!(entry.key, segment(number), "dense, and nothing but objects");
            assert_eq!(entry.size, body(number).len() as u64);
        }
        // The last ones are those that a kill could have cut.
        for number in (listed.len() as u64).saturating_sub(5)..listed.len() as u64 {
            assert!(store.get(&segment(number), 1 << 20).await.unwrap().unwrap() == body(number), "object {number}");
        }
    }
    assert!(
        store.list("", None).await.unwrap().len() as u64 >= KILLS,
        "every writer got somewhere before it was killed"
    );
}
