//! The archive is away for longer than its logs may be held: the budget, both policies, the floor of free space, and an
//! archiver that begins during the outage.
//!
//! The promise: the server is never harmed; what is held stays within what the operator allows; with `hold` nothing is
//! lost, with `barrier` (and below the floor) what was given up is said; and afterwards every target is exact or refused.
//!
//! Needs root: the archive lies on a file system of its own that is made read-only.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use harness::{
    command, history,
    mount::{Access, Mount},
    scene::{Barriers, Scene, settings, wait},
};
use pitr_archiver::control::{self, Answer, Request, Status};

/// Not a test of its own: the process that has the database.
#[test]
fn database_process() {
    history::write_if_asked();
}

const BUDGET: u64 = 2 << 20;
/// Between two measurements the database writes on, and a log that is being written counts only when it is deleted.
const SLACK: u64 = 8 << 20;

fn status(scene: &Scene) -> Status {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asked = async { tokio::time::timeout(command::LIMIT, control::ask(&scene.site.state, &Request::Status)).await };
    match runtime.block_on(asked) {
        Ok(Ok(Some(Answer::Status(status)))) => *status,
        other => panic!("{other:?}\n{}", scene.site.log()),
    }
}

fn held_past_the_budget(scene: &Scene) -> bool {
    let status = status(scene);
    status.alarm.is_some() && status.away.is_some() && status.pinned_bytes > BUDGET
}

#[test]
fn an_outage_that_crosses_the_budget_loses_nothing_where_everything_is_held() {
    let Some(disk) = Mount::memory(64 << 20) else { return };
    let options = ["--pin-budget", "2MiB", "--when-full", "hold"];
    let mut scene = Scene::with_options(None, Some(&disk.path()), settings(), &options);
    disk.remount(Access::ReadOnly);
    wait("the budget is crossed", || held_past_the_budget(&scene));
    let seen = status(&scene);
    assert!(seen.backlog_bytes > 0 && seen.time_to_full == Some(0), "{seen:?}");
    // A request waits beside everything else: the archiver still says how things are, and goes on pinning.
    let (db, state) = (scene.site.db.clone(), scene.site.state.clone());
    let mut tag =
        command::pitr(["tag", "create", "in-the-outage", "--db", command::text(&db), "--state", command::text(&state)]);
    let mut tag = tag.spawn().unwrap();
    let before = status(&scene).pinned_bytes;
    wait("more is pinned", || status(&scene).pinned_bytes > before + (1 << 20));
    assert!(tag.try_wait().unwrap().is_none(), "a tag is answered when the archive has it");
    scene.database_is_well();
    disk.remount(Access::ReadWrite);
    assert!(command::wait(&mut tag).unwrap().success(), "the tag is answered");
    wait("the archive is caught up with", || status(&scene).alarm.is_none());
    scene.end(Barriers::None);
}

#[test]
fn an_outage_that_crosses_the_budget_is_a_barrier_and_a_new_base_where_that_is_asked_for() {
    let Some(disk) = Mount::memory(64 << 20) else { return };
    let options = ["--pin-budget", "2MiB", "--when-full", "barrier"];
    let mut scene = Scene::with_options(None, Some(&disk.path()), settings(), &options);
    disk.remount(Access::ReadOnly);
    let mut most = 0;
    wait("what is held is given up, and again", || {
        most = most.max(status(&scene).pinned_bytes);
        scene.site.log().matches("was given up").count() >= 2
    });
    assert!(most < BUDGET + SLACK, "{most} bytes were held");
    scene.site.says("was given up");
    scene.database_is_well();
    disk.remount(Access::ReadWrite);
    let bases = status(&scene).last_base;
    wait("a base follows", || status(&scene).last_base != bases);
    let extents = scene.site.extents();
    assert!(extents.iter().any(|(.., whole)| !whole), "what was given up is not said: {extents:?}");
    scene.end(Barriers::Allowed);
}

#[test]
fn files_of_flushes_that_the_archive_does_not_take_are_given_up_before_anything_of_the_log_is() {
    let Some(disk) = Mount::memory(64 << 20) else { return };
    let files = disk.path().join("archive/files");
    std::fs::create_dir_all(&files).unwrap();
    let Some(files) = Mount::memory_over(&files, 64 << 20) else { return };
    files.remount(Access::ReadOnly);
    // No more than sixteen wait, of some ten kilobytes each.
    let options = ["--pin-budget", "256KiB", "--when-full", "barrier", "--ship-flushes"];
    let mut scene = Scene::with_options(None, Some(&disk.path()), settings(), &options);
    let mut most = 0;
    wait("they are given up again and again", || {
        most = most.max(status(&scene).pinned_bytes);
        scene.site.log().matches("files of flushes that waited for their upload were given up").count() >= 3
    });
    assert!(most < BUDGET + SLACK, "{most} bytes were held");
    scene.database_is_well();
    // From now on the archive takes them.
    drop(files);
    scene.end(Barriers::None);
}

#[test]
fn the_server_s_disk_is_never_filled_below_the_floor_whatever_the_policy_says() {
    let (Some(database), Some(disk)) = (Mount::memory(88 << 20), Mount::memory(64 << 20)) else { return };
    let floor = 64 << 20;
    let options = ["--min-free", "64MiB", "--when-full", "hold"];
    let mut scene = Scene::with_options(Some(&database.path()), Some(&disk.path()), settings(), &options);
    disk.remount(Access::ReadOnly);
    let free = || {
        let room = rustix::fs::statvfs(database.path()).unwrap();
        room.f_bavail * room.f_frsize
    };
    let mut least = u64::MAX;
    wait("what is held is given up", || {
        least = least.min(free());
        scene.site.log().contains("was given up")
    });
    wait("there is room again", || free() > floor);
    assert!(least > floor - SLACK, "{least} bytes were free");
    scene.database_is_well();
    disk.remount(Access::ReadWrite);
    scene.end(Barriers::Allowed);
}

#[test]
fn an_archiver_that_begins_during_an_outage_pins_what_is_deleted_meanwhile() {
    let Some(disk) = Mount::memory(64 << 20) else { return };
    let scene = Scene::begin(None, Some(&disk.path()), settings());
    disk.remount(Access::ReadOnly);
    wait("the archive is missed", || status(&scene).away.is_some());
    let Scene { archiver, writer, histories, mut site, _root } = scene;
    // A log lives for less time here than the program may need to start.
    writer.pause();
    archiver.kill();
    let archiver = site.start();
    let scene = Scene { archiver, writer, histories, site, _root };
    scene.site.says("pinned meanwhile");
    scene.writer.go_on();
    // Far more than the database keeps of its log.
    let enough = scene.writer.written() + 8000;
    wait("logs come and go", || scene.writer.written() > enough);
    disk.remount(Access::ReadWrite);
    scene.end(Barriers::None);
}
