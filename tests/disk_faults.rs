//! Disks that are full, that turn read-only, whose fsync fails, and files that may not grow: under the archive and under
//! the database, while `pitr run` works beside it.
//!
//! The promise: the archiver says what it meets, harms nobody, waits or ends with the right code, goes on when the fault
//! is over, and what it had said to be acknowledged is there; afterwards the archive is continuous, or holds a barrier.
//!
//! Needs root for the file systems, and strace for the fsync that fails.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use harness::{
    command,
    history::{self, Histories},
    mount::{Access, Kind, Mount, is_there},
    program::Settings,
    scene::{Barriers, PROCESS, Scene, settings, wait},
    scratch,
    services::say_skipped,
    site::Site,
};
use rand::{SeedableRng, rngs::StdRng};

/// Not a test of its own: the process that has the database.
#[test]
fn database_process() {
    history::write_if_asked();
}

#[test]
fn an_archive_on_a_full_disk_is_said_and_waited_for_and_loses_nothing() {
    let Some(disk) = Mount::memory(32 << 20) else { return };
    let mut scene = Scene::begin(None, Some(&disk.path()), settings());
    disk.fill();
    scene.site.says("[file.disk-full]");
    // A base that is asked for meanwhile is no burden, whatever is answered in the end.
    let (db, state) = (scene.site.db.clone(), scene.site.state.clone());
    let mut base = command::pitr(["base", "--db", command::text(&db), "--state", command::text(&state)]);
    let mut base = base.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    scene.database_is_well();
    assert!(scene.archiver.is_running(), "{}", scene.site.log());
    disk.make_room();
    assert!(command::wait(&mut base).is_some(), "the base is never answered");
    scene.end(Barriers::None);
}

#[test]
fn a_full_disk_under_the_database_and_the_state_is_survived() {
    let Some(disk) = Mount::memory(48 << 20) else { return };
    let mut scene = Scene::begin(Some(&disk.path()), None, settings());
    disk.fill();
    // The database cannot go on, whoever is beside it.
    wait("the database fails", || scene.writer.failed());
    assert!(scene.archiver.is_running(), "{}", scene.site.log());
    disk.make_room();
    scene.database_starts_again();
    scene.end(Barriers::None);
}

#[test]
fn copies_of_recycled_logs_that_find_no_room_are_said_and_go_on_when_there_is_some() {
    let Some(disk) = Mount::memory(48 << 20) else { return };
    let settings = Settings { recycle: 3, ..settings() };
    let mut scene = Scene::begin(Some(&disk.path()), None, settings);
    // Until logs are overwritten in place: the database needs no room then, and the copies do.
    let enough = scene.writer.written() + 6000;
    wait("logs are recycled", || scene.writer.written() > enough);
    disk.fill();
    scene.site.says("[file.disk-full]");
    assert!(scene.archiver.is_running(), "{}", scene.site.log());
    disk.make_room();
    scene.database_starts_again();
    // What was overwritten meanwhile is lost, and said.
    scene.end(Barriers::Allowed);
}

#[test]
fn an_archive_that_turns_read_only_is_said_and_waited_for() {
    let Some(disk) = Mount::memory(32 << 20) else { return };
    let mut scene = Scene::begin(None, Some(&disk.path()), settings());
    disk.remount(Access::ReadOnly);
    scene.site.says("Read-only file system");
    scene.database_is_well();
    assert!(scene.archiver.is_running(), "{}", scene.site.log());
    disk.remount(Access::ReadWrite);
    scene.end(Barriers::None);
}

#[test]
fn a_database_whose_disk_turns_read_only_is_archived_on_after_the_repair() {
    let Some(mut disk) = Mount::disk(Kind::Ext4) else { return };
    let mut scene = Scene::begin(Some(&disk.path()), None, settings());
    disk.fails_read_only();
    wait("the database fails", || scene.writer.failed());
    std::thread::sleep(Duration::from_millis(300));
    assert!(!scene.site.log().contains("panicked"), "{}", scene.site.log());
    if !scene.archiver.is_running() {
        let status = scene.archiver.child.wait().unwrap();
        assert_eq!(status.code(), Some(2), "{status}\n{}", scene.site.log());
    }
    let Scene { archiver, mut writer, mut histories, mut site, _root } = scene;
    archiver.kill();
    writer.kill();
    disk.start_again();
    let (mut writer, _) = histories.open(PROCESS);
    let mut archiver = site.start();
    writer.go();
    site.progress(&mut archiver);
    Scene { archiver, writer, histories, site, _root }.end(Barriers::Allowed);
}

#[test]
fn files_that_may_not_grow_are_errors_and_not_the_end() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let mut scene = Scene::begin(None, None, settings());
    let id = Pid::from_child(&scene.archiver.child);
    let limit = |bytes| Rlimit { current: bytes, maximum: None };
    prlimit(Some(id), Resource::Fsize, limit(Some(512))).unwrap();
    scene.site.says("File too large");
    scene.database_is_well();
    assert!(scene.archiver.is_running(), "{}", scene.site.log());
    prlimit(Some(id), Resource::Fsize, limit(None)).unwrap();
    scene.end(Barriers::None);
}

/// What the kernel said to be failed is never believed later: another fsync of the same file can succeed without having
/// written anything.
#[test]
fn what_an_fsync_failed_for_is_written_anew_and_never_acknowledged() {
    if !is_there("strace") {
        say_skipped("strace is not installed (Debian: apt-get install strace): no fsync was made to fail");
        return;
    }
    let root = scratch::directory();
    let db = root.path().join("db");
    let mut histories = Histories::new(&db, settings(), Duration::from_micros(400));
    let mut site = Site::new(root.path(), &db, &root.path().join("archive"));
    let (mut writer, _) = histories.open(PROCESS);
    let mut archiver = site.start();
    writer.go();
    site.progress(&mut archiver);
    // Of each thread's fsyncs every third fails.
    let trace = root.path().join("trace");
    let mut strace = Command::new("strace")
        .args(["-f", "-y", "-e", "trace=fsync,link,linkat", "-e", "inject=fsync:error=EIO:when=2+3", "-o"])
        .arg(&trace)
        .args(["-p", &archiver.child.id().to_string()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = std::time::Instant::now();
    while fs::metadata(&trace).map_or(0, |meta| meta.len()) == 0 {
        if strace.try_wait().unwrap().is_some() || start.elapsed() > Duration::from_secs(20) {
            let _ = strace.kill();
            let _ = strace.wait();
            say_skipped("strace cannot attach to another process here: no fsync was made to fail");
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    for _ in 0..4 {
        site.progress(&mut archiver);
    }
    site.says("Input/output error");
    // Directories are made durable, too: that of an object is met sooner or later.
    let start = std::time::Instant::now();
    while no_failed_file_is_named(&fs::read_to_string(&trace).unwrap()) == 0 {
        assert!(start.elapsed() < command::LIMIT, "no fsync of an object failed");
        site.progress(&mut archiver);
    }
    // strace lets go of it.
    command::terminate(&strace);
    command::wait(&mut strace).expect("strace ends");
    site.progress(&mut archiver);
    writer.kill();
    assert!(archiver.stop().success(), "{}", site.log());
    let failed = no_failed_file_is_named(&fs::read_to_string(&trace).unwrap());
    let (mut writer, found) = histories.open(PROCESS);
    site.catch_up();
    site.check(&histories, found, 4, &mut StdRng::seed_from_u64(7));
    assert!(site.extents().iter().all(|(.., whole)| *whole), "nothing was lost, and there is a barrier");
    writer.kill();
    println!("{failed} files whose fsync failed; {found} batches; {:?}", site.counts);
}

/// Reads a trace: no file whose fsync failed is fsynced once more, or given an object's name. Answers how many there were.
fn no_failed_file_is_named(trace: &str) -> usize {
    let mut failed = BTreeSet::new();
    let mut named = 0;
    for line in trace.lines() {
        let unfinished = line.split(['<', '>', '"']).find(|word| word.contains("/.pitr-unfinished/"));
        let Some(file) = unfinished else { continue };
        if line.contains("link") {
            named += 1;
        }
        assert!(!failed.contains(file), "its fsync had failed before: {line}");
        if line.contains("EIO") {
            failed.insert(file.to_owned());
        }
    }
    assert!(named > 0, "objects are made by naming finished files");
    failed.len()
}
