//! Directories that are put back or replaced in ways that leave few traces.

use std::{fs, path::Path, process::Command};

use crate::{
    harness::command::{succeed, text},
    site::{Site, cut, keys, newest_wal, open, write},
};

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").args(["-a", text(from), text(to)]).status().unwrap().success());
}

/// Empties a directory and fills it from another: it stays the same directory.
fn put_back_in_place(db: &Path, backup: &Path) {
    for entry in fs::read_dir(db).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    copy(&backup.join("."), db);
}

#[test]
fn two_histories_of_the_same_shape_are_told_apart() {
    let site = Site::new();
    let db = open(&site.db());
    let first = write(&db, 'a', 0..10);
    site.catch_up();
    drop(db);
    copy(&site.db(), &site.path("backup"));
    let db = open(&site.db());
    let dead = [&first[..], &write(&db, 'a', 10..40)].concat();
    db.flush().unwrap();
    site.catch_up();
    drop(db);
    // The same numbers of files, the same sizes of keys, the same sequence numbers.
    site.swap(&site.path("backup"), "later");
    let db = open(&site.db());
    let second = [&first[..], &write(&db, 'b', 10..40)].concat();
    db.flush().unwrap();
    site.catch_up();
    drop(db);
    assert_eq!(site.timelines().len(), 2);
    assert_eq!(site.restore(&["--to-latest"]), second);
    assert_eq!(site.restore(&["--to-latest", "--timeline", "1"]), dead);
    site.verify();
}

#[test]
fn a_backup_put_back_into_the_same_directory_is_a_fork() {
    for (running, flushed) in [(false, false), (false, true), (true, false), (true, true)] {
        let site = Site::new();
        let db = open(&site.db());
        let first = write(&db, 'a', 0..30);
        site.catch_up();
        drop(db);
        copy(&site.db(), &site.path("backup"));
        let db = open(&site.db());
        let mut dead = [&first[..], &write(&db, 'a', 30..60)].concat();
        site.catch_up();
        if flushed {
            db.flush().unwrap();
            dead.extend(write(&db, 'a', 60..61));
            site.catch_up();
        }
        let archiver = running.then(|| site.start(&site.db()));
        if let Some(archiver) = &archiver {
            archiver.until("its first look", || archiver.log().contains("archiving"));
        }
        drop(db);
        put_back_in_place(&site.db(), &site.path("backup"));
        let db = open(&site.db());
        // As many numbers as the other history had given out.
        let second = [&first[..], &write(&db, 'b', 30..60)].concat();
        match archiver {
            None => site.catch_up(),
            Some(archiver) => {
                archiver.until("the second timeline", || site.timelines().len() == 2);
                archiver.until("its end", || site.restore_quietly(&["--to-latest"]).is_some_and(|keys| keys == second));
                archiver.stop();
            }
        }
        drop(db);
        let case = format!("running {running}, flushed {flushed}: {:?} {:?}", site.timelines(), site.barriers());
        assert_eq!(site.timelines().len(), 2, "{case}");
        assert_eq!(site.restore(&["--to-latest"]), second, "{case}");
        assert_eq!(site.restore(&["--to-latest", "--timeline", "1"]), dead, "{case}");
        site.verify();
    }
}

#[test]
fn a_link_that_leads_elsewhere_is_followed_and_a_directory_that_is_away_is_waited_for() {
    let site = Site::new();
    let db = open(&site.path("db-1"));
    let first = write(&db, 'a', 0..20);
    std::os::unix::fs::symlink(site.path("db-1"), site.db()).unwrap();
    site.catch_up();
    let archiver = site.start(&site.db());
    archiver.until("its first look", || archiver.log().contains("archiving"));
    drop(db);
    succeed(&mut site.command(&["restore", "--to-record", "19", "--into", text(&site.path("db-2"))]));
    fs::remove_file(site.db()).unwrap();
    archiver.until("it is away", || archiver.log().contains("it is waited for"));
    std::os::unix::fs::symlink(site.path("db-2"), site.db()).unwrap();
    archiver.until("the second timeline", || site.timelines().len() == 2);
    let db = open(&site.path("db-2"));
    let second = [&first[..], &write(&db, 'b', 20..30)].concat();
    archiver.until_archived(2, 30);
    archiver.stop();
    assert_eq!(site.timelines(), [(1, None), (2, Some((1, 20)))]);
    assert_eq!(site.restore(&["--to-latest"]), second);
    site.verify();
}

#[test]
fn what_was_not_read_of_a_directory_before_it_was_replaced_is_a_barrier_at_its_end() {
    let site = Site::new();
    let db = open(&site.db());
    let first = write(&db, 'a', 0..20);
    site.catch_up();
    let archiver = site.start(&site.db());
    archiver.until("its first look", || archiver.log().contains("archiving"));
    archiver.pause();
    write(&db, 'a', 20..25);
    drop(db);
    drop(open(&site.path("other")));
    site.swap(&site.path("other"), "first");
    archiver.go_on();
    archiver.until("the second timeline", || site.timelines().len() == 2);
    archiver.stop();
    assert_eq!(site.barriers(), ["records-missing"]);
    assert_eq!(site.restore(&["--to-latest", "--timeline", "1"]), first);
}

#[test]
fn a_damaged_object_elsewhere_does_not_keep_a_fork_from_being_archived() {
    let site = Site::new();
    let db = open(&site.db());
    let first = write(&db, 'a', 0..40);
    site.catch_up();
    drop(db);
    for base in site.objects("bases") {
        fs::write(base, b"damaged").unwrap();
    }
    cut(&newest_wal(&site.db()), 32 * 15);
    let db = open(&site.db());
    let second = write(&db, 'b', 15..20);
    site.catch_up();
    drop(db);
    assert_eq!(site.timelines(), [(1, None), (2, Some((1, 15)))]);
    assert_eq!(site.restore(&["--to-latest"]), [&first[..15], &second].concat());
}

#[test]
fn a_crash_behind_a_fork_that_only_the_pins_could_tell_leaves_one_timeline() {
    // Everything that was not flushed is lost; recovery stops before logs that are whole; both leave nothing to compare.
    for (left, crash) in [(0, "timeline-after-put"), (0, "before-put"), (15, "timeline-after-put")] {
        let site = Site::new();
        let db = open(&site.db());
        let mut first = write(&db, 'a', 0..10);
        site.catch_up();
        db.flush().unwrap();
        first.extend(write(&db, 'a', 10..40));
        site.catch_up();
        drop(db);
        cut(&newest_wal(&site.db()), 32 * left);
        let db = open(&site.db());
        let kept = keys(&db).len();
        let second = write(&db, 'b', kept..kept + 5);
        let crashed = site.catch_up_as("state", Some(crash)).output().unwrap();
        assert!(!crashed.status.success(), "{crash} is not reached");
        site.catch_up();
        drop(db);
        let case = format!("{left} left, {crash}: {:?} {:?}", site.timelines(), site.barriers());
        assert_eq!(site.timelines().len(), 2, "{case}");
        assert_eq!(site.restore(&["--to-latest"]), [&first[..kept], &second].concat(), "{case}");
        assert_eq!(site.restore(&["--to-latest", "--timeline", "1"]), first, "{case}");
        site.verify();
    }
}
