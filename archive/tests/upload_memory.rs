//! An upload of any size needs little memory: measured as this process's peak, with the services as other processes.
//! One test only, so that nothing else in this binary is measured with it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "cloud")]
#[path = "../../tests/harness/services.rs"]
mod services;

#[cfg(feature = "hdfs")]
#[path = "../../tests/harness/file_servers.rs"]
mod file_servers;

use std::sync::Arc;

use bytes::Bytes;
use pitr_archive::{
    clock::SystemClock,
    object_key::ObjectKey,
    store::{Put, Store, local::LocalStore},
};

const MIB: usize = 1 << 20;
const SIZE: usize = 128 * MIB;
/// The archiver may use 192 MiB while it uploads a base.
const ALLOWED: u64 = 64 << 20;

/// The largest resident set since [`reset_peak`], in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

fn reset_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

async fn upload(store: &dyn Store, name: &str) {
    let key = ObjectKey::parse(name).unwrap();
    let mut upload = store.upload(&key, SIZE as u64).await.unwrap();
    for i in 0..SIZE / MIB {
        upload.write(Bytes::from(vec![i as u8; MIB])).await.unwrap();
    }
    assert_eq!(upload.finish().await.unwrap(), Put::Created);
    assert_eq!(store.size(&key).await.unwrap(), Some(SIZE as u64));
    for i in [0, 100, SIZE / MIB - 1] {
        let start = (i * MIB) as u64;
        let piece = store.get_range(&key, start..start + 4096).await.unwrap().unwrap();
        assert!(piece.iter().all(|b| *b == i as u8), "piece {i} is where it belongs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_object() {
    if !reset_peak() {
        // Not by `eprintln!`: the test framework swallows that when a test passes.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"SKIPPED: this system does not let a process reset its peak memory\n",
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    #[cfg_attr(not(feature = "cloud"), expect(unused_mut, reason = "then there is only the directory"))]
    let mut stores: Vec<(&str, Arc<dyn Store>)> =
        vec![("directory", Arc::new(LocalStore::open(dir.path(), &SystemClock).unwrap()))];
    #[cfg(feature = "cloud")]
    let running: Vec<_> = [services::s3(), services::azure()].into_iter().flatten().collect();
    #[cfg(feature = "cloud")]
    for service in &running {
        use pitr_archive::store::url::{OpenOptions, open};
        service.create("bucket1");
        let variables = service.variables();
        let options = OpenOptions { environment: variables.into_iter().collect(), ..OpenOptions::of_process() };
        stores.push(("service", open(&service.url("bucket1", "p"), &options).await.unwrap()));
    }
    #[cfg(feature = "hdfs")]
    let hdfs = file_servers::hdfs();
    #[cfg(feature = "hdfs")]
    if let Some(hdfs) = &hdfs {
        use pitr_archive::store::url::{OpenOptions, open};
        stores.push(("service", open(&hdfs.url("p"), &OpenOptions::of_process()).await.unwrap()));
    }
    for (name, store) in stores {
        assert!(reset_peak());
        let before = peak();
        upload(&*store, "files/large.dat").await;
        let grown = peak() - before;
        eprintln!("{name} {}: {} MiB", store.describe(), grown >> 20);
        assert!(grown < ALLOWED, "{}: {grown} bytes for an upload of {SIZE}", store.describe());
    }
}
