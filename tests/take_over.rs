//! Two archivers of one database and one archive: the second leaves the first alone unless it is told to take over, and
//! the first, awake, paused or long gone, never writes into what is no longer its own.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod harness;

use std::process::ExitStatus;

use harness::{
    command, history,
    scene::{Barriers, Scene, settings},
    scratch,
    site::{Running, Site},
};
use rustix::process::{Pid, Signal, kill_process};

/// Not a test of its own: the process that has the database.
#[test]
fn database_process() {
    history::write_if_asked();
}

/// Exit code of an archiver that another one fenced.
const FENCED: Option<i32> = Some(6);

/// Another archiver of the same database and archive, with a state directory of its own.
fn rival(scene: &Scene, root: &tempfile::TempDir, options: &[&str]) -> Site {
    let mut rival = Site::new(root.path(), &scene.site.db, &scene.site.archive);
    rival.state = scene.site.db.with_extension("rival");
    rival.options.extend(options.iter().map(|option| (*option).to_owned()));
    rival
}

fn end_of(running: &mut Running) -> ExitStatus {
    command::wait(&mut running.child).expect("it ends by itself")
}

/// The rival has the archive now.
fn go_on_with(mut scene: Scene, rival: Site, running: Running) -> Scene {
    drop(std::mem::replace(&mut scene.archiver, running));
    // What the first one had acknowledged is in the archive, too.
    scene.site.confirm();
    scene.site = rival;
    scene
}

#[test]
fn who_comes_second_ends_and_takes_over_when_it_is_told_to() {
    let root = scratch::directory();
    let mut scene = Scene::begin(None, None, settings());
    let mut second = rival(&scene, &root, &[]);
    let mut running = second.start();
    assert_eq!(end_of(&mut running).code(), FENCED, "{}", second.log());
    assert!(second.log().contains("[writer.fenced]"), "{}", second.log());
    // Known before the archive was touched, and from whom.
    let first = format!("{}", scene.archiver.child.id());
    assert!(second.log().contains("archived already by process") && second.log().contains(&first), "{}", second.log());
    let mut archiver = std::mem::replace(&mut scene.archiver, running);
    scene.site.progress(&mut archiver);

    let mut third = rival(&scene, &root, &["--take-over"]);
    let mut running = third.start();
    assert_eq!(end_of(&mut archiver).code(), FENCED, "the first finds out:\n{}", scene.site.log());
    third.progress(&mut running);
    // It contends at once: an archiver that is alive writes in every interval, and would win for ever.
    assert!(third.log().matches("joining behind").count() < 20, "{}", third.log());
    scene.database_is_well();
    go_on_with(scene, third, running).end(Barriers::Allowed);
}

#[test]
fn a_command_that_does_not_find_the_archiver_does_not_end_it() {
    let root = scratch::directory();
    let mut scene = Scene::begin(None, None, settings());
    let other = rival(&scene, &root, &[]);
    for (verb, args) in [("tag", &["create", "x"][..]), ("flush", &[]), ("base", &[])] {
        let asked = other.pitr(verb, args).output().unwrap();
        assert_eq!(asked.status.code(), FENCED, "{verb}: {asked:?}");
    }
    scene.site.progress(&mut scene.archiver);
    scene.end(Barriers::None);
}

#[test]
fn an_archiver_that_was_paused_while_another_took_over_is_fenced_when_it_wakes_up() {
    let root = scratch::directory();
    let mut scene = Scene::begin(None, None, settings());
    let paused = Pid::from_child(&scene.archiver.child);
    kill_process(paused, Signal::STOP).unwrap();
    let mut other = rival(&scene, &root, &["--take-over"]);
    let mut running = other.start();
    other.progress(&mut running);
    let before = other.last_acknowledged().unwrap();
    kill_process(paused, Signal::CONT).unwrap();
    assert_eq!(end_of(&mut scene.archiver).code(), FENCED, "{}", scene.site.log());
    other.progress(&mut running);
    assert!(other.last_acknowledged().unwrap().boundary >= before.boundary);
    go_on_with(scene, other, running).end(Barriers::Allowed);
}
