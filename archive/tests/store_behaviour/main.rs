//! What every store promises, tried on every store: memory, a directory, and where they are installed S3 (moto),
//! Azure Blob Storage (Azurite), HDFS and SFTP (OpenSSH). The services are started here, on loopback; what is missing is skipped loudly.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "cloud")]
#[path = "../../../tests/harness/services.rs"]
mod services;

#[cfg(feature = "cloud")]
#[path = "../../../tests/harness/lossy_proxy.rs"]
mod lossy_proxy;

#[cfg(all(feature = "hdfs", feature = "sftp"))]
#[path = "../../../tests/harness/file_servers.rs"]
mod file_servers;

#[cfg(feature = "cloud")]
mod cloud;
#[cfg(all(feature = "hdfs", feature = "sftp"))]
#[path = "file_servers.rs"]
mod file_servers_tests;
#[cfg(feature = "cloud")]
mod gcs;
mod suite;
#[cfg(feature = "webhdfs")]
mod webhdfs;

use std::sync::Arc;

use pitr_archive::{
    clock::SystemClock,
    store::{Store, faulty::FaultyStore, faulty::Schedule, local::LocalStore, memory::MemoryStore},
};

#[tokio::test]
async fn memory_keeps_every_promise() {
    suite::all(Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_keeps_every_promise() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path().join("not/there/yet"), &SystemClock).unwrap();
    assert_eq!(store.local_path(), Some(dir.path().join("not/there/yet").as_path()));
    suite::all(Arc::new(store)).await;
}

#[tokio::test]
async fn the_failing_store_that_does_not_fail_keeps_every_promise() {
    suite::all(Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), Schedule::default()))).await;
}
