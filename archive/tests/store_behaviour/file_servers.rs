//! HDFS and SFTP, which have no conditional creation of their own: the promises on real servers.

use std::{
    fs::{self, File},
    process::Command,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use pitr_archive::{
    code::Code,
    store::{
        Put, Store,
        url::{OpenOptions, open},
    },
};

use crate::{
    file_servers::{self, Ssh},
    services::say_skipped,
    suite::{self, key, pattern},
};

async fn store(url: &str) -> Arc<dyn Store> {
    open(url, &OpenOptions::of_process()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn hdfs_keeps_every_promise() {
    let Some(mut hdfs) = file_servers::hdfs() else { return };
    suite::all(store(&hdfs.url("archives/one")).await).await;
    let other = store(&hdfs.url("archives/two")).await;
    assert!(other.list("", None).await.unwrap().is_empty(), "a directory beside it is another archive");
    assert!(store(&hdfs.url("archives")).await.list("one/.pitr-unfinished/", None).await.unwrap().is_empty());
    hdfs.stop();
    let error = other.get(&key("archive.json"), 10).await.unwrap_err();
    assert_eq!(error.code(), Code::StoreUnavailable, "{error}");
}

/// Blocks are of 4 MiB in this HDFS, offsets beyond 4 GiB are what 32 bits cannot hold.
#[tokio::test(flavor = "multi_thread")]
async fn hdfs_holds_a_file_larger_than_32_bits_count() {
    if std::env::var_os("PITR_TEST_LARGE").is_none() {
        return say_skipped(
            "a file of 4.5 GiB in HDFS takes that much disk and some minutes: PITR_TEST_LARGE=1 tries it",
        );
    }
    let Some(hdfs) = file_servers::hdfs() else { return };
    let store = store(&hdfs.url("large")).await;
    let (piece, pieces) = (pattern(16 << 20), 288_u64);
    let large = key("files/large.dat");
    let mut upload = store.upload(&large, pieces << 24).await.unwrap();
    for i in 0..pieces {
        let mut bytes = piece.to_vec();
        bytes[..8].copy_from_slice(&i.to_le_bytes());
        upload.write(bytes.into()).await.unwrap();
    }
    assert_eq!(upload.finish().await.unwrap(), Put::Created);
    assert_eq!(store.size(&large).await.unwrap(), Some(pieces << 24));
    for i in [0, 127, 128, 255, 256, 257, pieces - 1] {
        let start = i << 24;
        let found = store.get_range(&large, start..start + 100).await.unwrap().unwrap();
        assert_eq!(found[..8], i.to_le_bytes(), "piece {i}");
        assert_eq!(found[8..], piece[8..100], "piece {i}");
    }
}

const CHILD_URL: &str = "PITR_TEST_SFTP_URL";

/// Run by the tests below as a process of its own, because the program `ssh` is looked up in the process's `PATH`.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_keeps_every_promise_over_sftp() {
    let Ok(url) = std::env::var(CHILD_URL) else { return };
    suite::all(store(&url).await).await;
}

/// As above: one object.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_creates_one_object_over_sftp() {
    let Ok(url) = std::env::var(CHILD_URL) else { return };
    let store = match open(&url, &OpenOptions::of_process()).await {
        Ok(store) => store,
        Err(error) => panic!("{} {error} hint: {}", error.code().name(), error.hint_text()),
    };
    match store.put(&key("segments/1/a.seg"), Bytes::from_static(b"x")).await {
        Ok(put) => assert_eq!(put, Put::Created),
        Err(error) => panic!("{} {error} hint: {}", error.code().name(), error.hint_text()),
    }
}

/// Whether the child did it, and what it said.
fn run(child: &str, url: &str, path: &std::path::Path) -> (bool, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("file_servers_tests::{child}"), "--nocapture"])
        .env(CHILD_URL, url)
        .env("PATH", path)
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn with_ssh(ssh: &Ssh) -> std::path::PathBuf {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = [ssh.programs()].into_iter().chain(std::env::split_paths(&rest));
    std::env::join_paths(all).unwrap().into()
}

#[test]
fn sftp_keeps_every_promise_and_leaves_nothing_unfinished() {
    let Some(ssh) = file_servers::ssh() else { return };
    let (ok, said) = run("child_that_keeps_every_promise_over_sftp", &ssh.url("archives/one"), &with_ssh(&ssh));
    assert!(ok, "{said}");
    let archive = ssh.files().join("archives/one");
    assert!(archive.join("segments/1/a.seg").is_file(), "objects are plain files there");
    assert_eq!(fs::read_dir(archive.join(".pitr-unfinished")).unwrap().count(), 0);
}

#[test]
fn what_a_crashed_writer_left_on_sftp_is_removed_a_day_later() {
    let Some(ssh) = file_servers::ssh() else { return };
    let unfinished = ssh.files().join("a/.pitr-unfinished");
    fs::create_dir_all(&unfinished).unwrap();
    for (name, hours) in [("old", 25), ("young", 23)] {
        let file = File::create(unfinished.join(name)).unwrap();
        let now = file.metadata().unwrap().modified().unwrap();
        file.set_modified(now - Duration::from_secs(hours * 3600)).unwrap();
    }
    for directory in [ssh.files().join("a"), unfinished.clone()] {
        fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let (ok, said) = run("child_that_creates_one_object_over_sftp", &ssh.url("a"), &with_ssh(&ssh));
    assert!(ok, "{said}");
    assert!(!unfinished.join("old").exists(), "older than a day");
    assert!(unfinished.join("young").exists(), "somebody may still be writing it");
}

#[test]
fn over_sftp_each_way_of_not_getting_in_says_what_to_do() {
    let Some(ssh) = file_servers::ssh() else { return };
    let child = "child_that_creates_one_object_over_sftp";
    let (ok, said) = run(child, &ssh.url("a"), std::path::Path::new("/nowhere"));
    assert!(!ok && said.contains("store.") && said.contains("program ssh"), "{said}");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o555);
    fs::create_dir(ssh.files().join("closed")).unwrap();
    fs::set_permissions(ssh.files().join("closed"), mode).unwrap();
    let (ok, said) = run(child, &ssh.url("closed"), &with_ssh(&ssh));
    assert!(!ok && said.contains("store.denied"), "{said}");
    // A key that the server does not know.
    fs::remove_file(ssh.key()).unwrap();
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(ssh.key()).status();
    assert!(made.unwrap().success());
    let (ok, said) = run(child, &ssh.url("a"), &with_ssh(&ssh));
    assert!(!ok && said.contains("store.denied") && said.contains("ssh "), "{said}");
    ssh.forget_host();
    let (ok, said) = run(child, &ssh.url("a"), &with_ssh(&ssh));
    assert!(!ok && said.contains("store.denied") && said.contains("known"), "{said}");
}
