//! A restore takes the place of a database, and gives it back: whatever ends it on the way, the old database or the new one is
//! there, whole, or none that a server would open, and one command goes on from there.

#![allow(clippy::expect_used)] // a test fails by panicking

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Instant,
};

use pitr_replayer::crash::{POINTS, SORTED_POINTS};
use rand::{Rng as _, SeedableRng as _};
use rocksdb::{DB, FlushOptions, Options};
use serde_json::Value;

fn pitr(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pitr"));
    command.args(args).env_remove("PITR_ARCHIVE").env_remove("PITR_KEY_FILE");
    command
}

fn json(args: &[&str]) -> Value {
    let output = pitr(args).arg("--json").output().expect("the program starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn refused(args: &[&str]) -> Value {
    let output = pitr(args).arg("--json").output().expect("the program starts");
    assert!(!output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stderr).expect("JSON")
}

/// A database that was archived with key `state` being `old` (tag `before`) and is `new` now. `WALs` lie elsewhere, or not.
struct Scene {
    dir: tempfile::TempDir,
    wal_dir: Option<PathBuf>,
    /// With which restores are made.
    engine: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wals {
    Inside,
    Elsewhere,
}

impl Scene {
    fn new(wals: Wals) -> Self {
        Self::archived_with(wals, &[])
    }

    /// The flush directly behind the tag is shipped: a restore lays its file down and replays nothing.
    fn with_shipped_flushes(wals: Wals) -> Self {
        let scene = Self::archived_with(wals, &["--ship-flushes"]);
        let plan = json(&["plan", "--to-tag", "before", "--archive", &scene.archive()]);
        assert_eq!(plan["engine"]["name"], "flush", "{plan}");
        scene
    }

    fn archived_with(wals: Wals, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let wal_dir = (wals == Wals::Elsewhere).then(|| dir.path().join("fast/wals"));
        fs::create_dir(dir.path().join("fast")).expect("a directory");
        let scene = Self { dir, wal_dir, engine: "auto" };
        let db = scene.open();
        // Two files, two logs and what is only in a log.
        for round in 0..2 {
            for key in 0..50 {
                db.put(format!("{round}-{key}"), [b'x'; 100]).expect("a write");
            }
            let mut at_once = FlushOptions::default();
            at_once.set_wait(true);
            db.flush_opt(&at_once).expect("a flush");
        }
        db.put("state", "old").expect("a write");
        scene.archive_and(&["tag", "create", "before", "--db", &scene.db()]);
        db.flush().expect("a flush");
        db.put("state", "new").expect("a write");
        scene.archive_and(&[&["run", "--once", "--db", &scene.db()], options].concat());
        drop(db);
        scene
    }

    fn options(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        if let Some(dir) = &self.wal_dir {
            options.set_wal_dir(dir);
        }
        options
    }

    fn open(&self) -> DB {
        DB::open(&self.options(), self.db()).expect("the database opens")
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn db(&self) -> String {
        self.path("db")
    }

    fn archive(&self) -> String {
        format!("file:{}", self.path("archive"))
    }

    fn archive_and(&self, args: &[&str]) -> Value {
        let archive = self.archive();
        json(&[args, &["--archive", &archive]].concat())
    }

    fn in_place(&self) -> Vec<String> {
        let (db, archive) = (self.db(), self.archive());
        ["restore", "--to-tag", "before", "--in-place", &db, "--archive", &archive, "--engine", self.engine]
            .map(str::to_owned)
            .to_vec()
    }

    fn restore(&self) -> Value {
        json(&self.in_place().iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What a server would find that opens the database now; it is changed by nothing. `None` if it does not open.
    fn state(&self) -> Option<String> {
        state_of(&self.options(), Path::new(&self.db()))
    }

    /// What lies beside the database and is none of its own directories.
    fn beside(&self) -> Vec<String> {
        let mut all = Vec::new();
        for directory in [Some(self.dir.path()), self.wal_dir.as_deref().and_then(Path::parent)].into_iter().flatten() {
            let names = fs::read_dir(directory).expect("the directory").flatten();
            all.extend(names.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        }
        all.retain(|name| !["db", "db.pitr", "archive", "fast", "wals"].contains(&name.as_str()));
        all.sort();
        all
    }
}

/// An archive that gives neither a base's files nor the records of these segments, as long as this lives.
struct Withheld(Vec<(PathBuf, Vec<u8>)>);

impl Withheld {
    fn take(archive: &Path, segments: &[u64]) -> Self {
        let files = fs::read_dir(archive.join("files")).expect("objects").flatten().map(|entry| entry.path());
        let segment = |ordinal| archive.join(format!("segments/0000000001/{ordinal:020}.seg"));
        let all = files.chain(segments.iter().map(segment));
        let kept: Vec<_> = all.map(|path| (path.clone(), fs::read(path).expect("an object"))).collect();
        for (path, bytes) in &kept {
            let mut damaged = bytes.clone();
            damaged[bytes.len() / 5] ^= 1;
            fs::write(path, damaged).expect("damage");
        }
        assert!(kept.len() > segments.len(), "there are files");
        Self(kept)
    }
}

impl Drop for Withheld {
    fn drop(&mut self) {
        for (path, bytes) in &self.0 {
            fs::write(path, bytes).expect("what was there");
        }
    }
}

fn state_of(options: &Options, db: &Path) -> Option<String> {
    let mut options = options.clone();
    options.create_if_missing(false);
    options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::AbsoluteConsistency);
    let db = DB::open_for_read_only(&options, db, false).ok()?;
    for key in 0..50 {
        for round in 0..2 {
            assert!(db.get(format!("{round}-{key}")).expect("a read").is_some(), "{round}-{key}");
        }
    }
    let state = db.get("state").expect("a read").expect("its state");
    Some(String::from_utf8(state).expect("text"))
}

#[test]
fn the_database_that_was_there_is_kept_and_comes_back_until_that_is_settled() {
    for wals in [Wals::Inside, Wals::Elsewhere] {
        let scene = Scene::new(wals);
        fs::write(scene.dir.path().join("db/server.conf"), b"own").expect("a file");
        let restored = scene.restore();
        assert_eq!(scene.state().as_deref(), Some("old"), "{wals:?}");
        assert_eq!(restored["left_behind"][0], "server.conf");
        let aside = PathBuf::from(restored["aside"][0].as_str().expect("a path"));
        assert!(aside.display().to_string().contains("/db.before-20"), "{restored}");
        assert!(aside.join("server.conf").exists());
        assert_eq!(restored["aside"].as_array().map(Vec::len), Some(if wals == Wals::Inside { 1 } else { 2 }));

        let back = json(&["rollback", &scene.db()]);
        assert_eq!(scene.state().as_deref(), Some("new"), "{wals:?}");
        assert!(back["aside"][0].as_str().is_some_and(|path| path.contains("/db.restored-20")), "{back}");
        json(&["rollback", &scene.db()]);
        assert_eq!(scene.state().as_deref(), Some("old"));
        assert!(aside.exists(), "the same name as at first");

        let settled = json(&["settle", &scene.db(), "--discard"]);
        assert_eq!(settled["directories"].as_array().map(Vec::len), restored["aside"].as_array().map(Vec::len));
        assert_eq!(scene.state().as_deref(), Some("old"));
        assert_eq!(scene.beside(), [""; 0]);
        for args in [&["rollback", &scene.db()][..], &["settle", &scene.db(), "--keep"]] {
            assert_eq!(refused(args)["code"], "restore.nothing-aside");
        }
    }
}

#[test]
fn what_was_set_aside_can_be_kept_for_good() {
    let scene = Scene::new(Wals::Inside);
    let first = scene.restore();
    let second = scene.restore();
    let aside = [&first, &second].map(|r| PathBuf::from(r["aside"][0].as_str().expect("a path")));
    assert_eq!(state_of(&scene.options(), &aside[0]).as_deref(), Some("new"));
    assert_eq!(state_of(&scene.options(), &aside[1]).as_deref(), Some("old"));
    json(&["settle", &scene.db(), "--keep"]);
    assert!(aside.iter().all(|path| path.exists()));
    assert_eq!(refused(&["rollback", &scene.db()])["code"], "restore.nothing-aside");
}

#[test]
fn a_database_that_a_server_has_open_is_neither_replaced_nor_given_back() {
    let scene = Scene::new(Wals::Inside);
    let args = scene.in_place();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let server = scene.open();
    let e = refused(&args);
    assert_eq!(e["code"], "restore.in-use");
    assert!(e["message"].as_str().is_some_and(|m| m.contains(&std::process::id().to_string())), "{e}");
    drop(server);
    scene.restore();
    let server = scene.open();
    assert_eq!(refused(&["rollback", &scene.db()])["code"], "restore.in-use");
    json(&["settle", &scene.db(), "--keep"]);
    drop(server);
}

#[test]
fn what_cannot_be_replaced_is_refused_before_anything_is_fetched() {
    let scene = Scene::new(Wals::Elsewhere);
    let args = scene.in_place();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let wals = scene.wal_dir.clone().expect("a directory");
    fs::write(wals.join("notes.txt"), b"precious").expect("a file");
    let e = refused(&args);
    assert_eq!(e["code"], "restore.cannot-swap");
    assert!(e["message"].as_str().is_some_and(|m| m.contains("notes.txt")), "{e}");
    assert_eq!(scene.beside(), [""; 0]);
    let empty = scene.path("empty");
    fs::create_dir(&empty).expect("a directory");
    let archive = scene.archive();
    for (place, code) in [(empty.as_str(), "restore.cannot-swap"), ("/proc/nothing", "file.not-found")] {
        // Where the source's other directories are not known to be this database's, they are mapped or refused.
        let map = format!("{}={}", wals.display(), scene.path("other-wals"));
        let e =
            refused(&["restore", "--to-tag", "before", "--in-place", place, "--archive", &archive, "--map-path", &map]);
        assert_eq!(e["code"], code, "{e}");
    }
    let e = refused(&["restore", "--to-tag", "before", "--in-place", &empty, "--archive", &archive]);
    assert_eq!(e["code"], "restore.foreign-path", "{e}");
}

/// The server reads its log where its own settings say: with the old one there, or without the restored one, it would open.
#[test]
fn a_server_whose_log_lies_elsewhere_by_now_is_not_given_a_database_without_it() {
    let mut scene = Scene::new(Wals::Inside);
    scene.wal_dir = Some(scene.dir.path().join("fast/wals"));
    drop(scene.open());
    let before = scene.state();
    let args = scene.in_place();
    let e = refused(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(e["code"], "restore.cannot-swap", "{e}");
    assert!(e["message"].as_str().is_some_and(|m| m.contains("fast/wals")), "{e}");
    assert_eq!(scene.state(), before);
}

/// Whatever was moved or copied by hand meanwhile, nothing is deleted or put anywhere by what the record says of another place.
#[test]
fn a_record_that_was_copied_with_its_directory_is_not_believed() {
    let scene = Scene::new(Wals::Inside);
    scene.restore();
    let copy = scene.path("copied");
    fs::create_dir(&copy).expect("a directory");
    let copied = Command::new("cp").args(["-r", &scene.db(), &copy]).status().expect("cp starts");
    assert!(copied.success());
    let record = ".db.pitr-swaps.json";
    fs::copy(scene.path(record), Path::new(&copy).join(record)).expect("the record");
    let db = format!("{copy}/db");
    for args in [&["rollback", &db][..], &["settle", &db, "--discard"]] {
        assert_eq!(refused(args)["code"], "restore.record-damaged");
    }
    json(&["rollback", &scene.db()]);
    assert_eq!(scene.state().as_deref(), Some("new"));
}

#[test]
fn killed_at_any_effect_the_old_or_the_new_database_is_there_and_the_same_command_goes_on() {
    let mut met = BTreeSet::new();
    for (wals, scene) in [
        (Wals::Inside, Scene::new(Wals::Inside)),
        (Wals::Inside, Scene::with_shipped_flushes(Wals::Inside)),
        (Wals::Inside, Scene { engine: "bulk", ..Scene::new(Wals::Inside) }),
        (Wals::Elsewhere, Scene::new(Wals::Elsewhere)),
    ] {
        for (point, finish) in POINTS.iter().flat_map(|point| [(point, false), (point, true)]) {
            for count in 1..=3 {
                let mut args = scene.in_place();
                args.extend(finish.then(|| "--finish".to_owned()));
                let args: Vec<_> = args.iter().map(String::as_str).collect();
                let crash = format!("{point}:{count}");
                let killed: Output = pitr(&args).env("PITR_CRASH_AT", &crash).output().expect("the program starts");
                let died = std::os::unix::process::ExitStatusExt::signal(&killed.status) == Some(9);
                assert!(died || killed.status.success(), "{crash}: {}", String::from_utf8_lossy(&killed.stderr));
                if !died {
                    assert_eq!(scene.state().as_deref(), Some("old"));
                } else {
                    met.insert(*point);
                    let swapping = point.starts_with("swap-") && wals == Wals::Elsewhere;
                    match scene.state().as_deref() {
                        Some("old" | "new") => {}
                        // Several directories cannot be exchanged at once: meanwhile nothing opens.
                        None if swapping => {}
                        other => panic!("{wals:?} {crash} {finish}: {other:?}"),
                    }
                    // Either way on.
                    if count == 2 && swapping {
                        let settled = pitr(&["rollback", &scene.db()]).output().expect("the program starts");
                        let said = String::from_utf8_lossy(&settled.stderr).into_owned();
                        assert!(settled.status.success() || said.contains("restore.nothing-aside"), "{crash}: {said}");
                        assert_eq!(scene.state().as_deref(), Some("new"), "{crash}");
                    }
                    json(&args);
                    assert_eq!(scene.state().as_deref(), Some("old"), "{wals:?} {crash} {finish}");
                }
                // Back to the beginning: the first that was set aside is the one from before.
                json(&["rollback", &scene.db()]);
                assert_eq!(scene.state().as_deref(), Some("new"), "{wals:?} {crash} {finish}");
                json(&["settle", &scene.db(), "--discard"]);
                assert_eq!(scene.beside(), [""; 0], "{wals:?} {crash} {finish}");
                if !died {
                    break;
                }
            }
        }
    }
    let missed: Vec<_> = POINTS.iter().filter(|point| !met.contains(*point)).collect();
    assert!(missed.is_empty(), "nothing was killed at {missed:?}");
}

/// Ctrl-C, at twelve moments of a restore: it says so by its exit code, and the present database is untouched until the
/// restored one is there.
#[test]
fn interrupted_at_any_moment_the_old_or_the_new_database_is_there_and_the_exit_code_says_which() {
    const MOMENTS: u32 = 12;
    let scene = Scene::new(Wals::Inside);
    let db = scene.open();
    // Enough to be interrupted in.
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    for key in 0..6000 {
        let mut value = vec![0; 10_000];
        rng.fill(&mut value[..]);
        db.put(format!("large-{key}"), value).expect("a write");
    }
    db.flush().expect("a flush");
    db.put("state", "old").expect("a write");
    scene.archive_and(&["base", "--db", &scene.db()]);
    scene.archive_and(&["tag", "create", "large", "--db", &scene.db()]);
    db.put("state", "new").expect("a write");
    drop(db);
    let (to, archive) = (scene.db(), scene.archive());
    let args = ["restore", "--to-tag", "large", "--in-place", &to, "--archive", &archive];
    let begun = Instant::now();
    json(&args);
    let mut whole = begun.elapsed();
    let mut interrupted = 0;
    for moment in 0..MOMENTS {
        json(&["rollback", &to]);
        json(&["settle", &to, "--discard"]);
        let begun = Instant::now();
        let mut restore = pitr(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
        std::thread::sleep(whole * moment / MOMENTS);
        let id = rustix::process::Pid::from_child(&restore);
        rustix::process::kill_process(id, rustix::process::Signal::INT).expect("SIGINT");
        let status = restore.wait().expect("its end");
        // Before it listens for signals there is nothing of it either.
        let ended = status.code().is_none() || status.code() == Some(130);
        assert!(ended || status.success(), "{status}");
        assert_eq!(scene.state().as_deref(), Some(if ended { "new" } else { "old" }), "{status}");
        if ended {
            interrupted += 1;
            json(&args);
            assert_eq!(scene.state().as_deref(), Some("old"));
        } else {
            // The disk is not as busy any more as it was then.
            whole = whole.min(begun.elapsed());
        }
    }
    assert!(interrupted > 1, "twelve signals, and {interrupted} came before the end");
    json(&["settle", &to, "--discard"]);
    assert_eq!(scene.beside(), [""; 0]);
}

/// The archiver runs all the while, and the directories change their names under it.
#[test]
fn an_archiver_beside_the_database_goes_on_by_itself() {
    for wals in [Wals::Inside, Wals::Elsewhere] {
        let scene = Scene::new(wals);
        let archive = scene.archive();
        let log = fs::File::create(scene.path("log")).expect("a log");
        let mut archiver = pitr(&["run", "--db", &scene.db(), "--archive", &archive, "--interval", "50ms"])
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let until_done = |args: &[&str]| {
            let began = std::time::Instant::now();
            loop {
                let asked = pitr(args).arg("--json").output().expect("the program starts");
                if asked.status.success() {
                    break;
                }
                let log = || fs::read_to_string(scene.path("log")).unwrap_or_default();
                assert!(began.elapsed().as_secs() < 60, "{args:?}: {asked:?}\n{}", log());
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        };
        until_done(&["tag", "create", "running", "--db", &scene.db()]);
        scene.restore();
        let db = scene.open();
        // It takes one by itself: the server may have written and deleted a log before it looked.
        until_done(&["base", "--db", &scene.db()]);
        db.put("state", "restored and changed").expect("a write");
        until_done(&["tag", "create", "branch", "--db", &scene.db()]);
        drop(db);
        json(&["rollback", &scene.db()]);
        // A server that is started before the archiver has looked deletes the MANIFEST with which it could go on: then it takes a
        // barrier and a base.
        let began = std::time::Instant::now();
        while json(&["status", "--db", &scene.db()])["archiver"]["acknowledged"]["timeline"] != 1 {
            assert!(began.elapsed().as_secs() < 60, "{}", fs::read_to_string(scene.path("log")).unwrap_or_default());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let db = scene.open();
        db.put("state", "back and changed").expect("a write");
        until_done(&["tag", "create", "back", "--db", &scene.db()]);
        assert!(archiver.try_wait().expect("waiting").is_none(), "it has not ended");
        rustix::process::kill_process(rustix::process::Pid::from_child(&archiver), rustix::process::Signal::TERM)
            .expect("a signal");
        assert!(archiver.wait().expect("waiting").success());
        drop(db);
        let map = scene.wal_dir.as_ref().map(|dir| format!("{}={}", dir.display(), scene.path("copied-wals")));
        for (tag, state) in [("before", "old"), ("branch", "restored and changed"), ("back", "back and changed")] {
            let into = scene.path(&format!("copy-{tag}"));
            let mut args = vec!["restore", "--finish", "--to-tag", tag, "--into", &into, "--archive", &archive];
            args.extend(map.iter().flat_map(|map| ["--map-path", map.as_str()]));
            json(&args);
            let copy = DB::open_for_read_only(&Options::default(), &into, false).expect("the copy opens");
            assert_eq!(copy.get("state").expect("a read").as_deref(), Some(state.as_bytes()), "{wals:?} {tag}");
            drop(copy);
            for directory in [into, scene.path("copied-wals")] {
                // The second is there only where WALs lie elsewhere.
                let _ = fs::remove_dir_all(directory);
            }
        }
    }
}

/// What is there already must not be needed again: it is taken out of the archive before the restore goes on.
#[test]
fn an_interrupted_restore_goes_on_and_fetches_nothing_twice() {
    let scene = Scene::new(Wals::Inside);
    let db = scene.open();
    for log in 0..4 {
        for key in 0..30 {
            db.put(format!("later-{log}-{key}"), [b'y'; 200]).expect("a write");
        }
        db.flush().expect("a flush");
        scene.archive_and(&["run", "--once", "--db", &scene.db()]);
    }
    drop(db);
    let (archive, into) = (scene.archive(), scene.path("copy"));
    let args = ["restore", "--to-latest", "--into", &into, "--archive", &archive];
    let all = json(&args);
    assert_eq!((&all["reused_file_bytes"], &all["reused_records"]), (&0.into(), &0.into()));
    fs::remove_dir_all(&into).expect("the first copy");

    // So one that needs them is refused.
    let plan = json(&["plan", "--to-latest", "--archive", &archive]);
    let planned = plan["segments"].as_array().expect("segments").iter().filter_map(|one| one["ordinal"].as_u64());
    let planned: Vec<_> = planned.collect();
    assert!(planned.len() > 3, "{plan}");
    // Planning looks at the first one itself.
    let older = &planned[1..planned.len() - 1];
    let withheld = Withheld::take(&scene.dir.path().join("archive"), older);
    refused(&args);
    drop(withheld);
    let mut reused = Vec::new();
    for crash in
        ["restore-file-laid:2", "restore-wal-closed:2", "restore-records-written", "restore-small-files-written"]
    {
        let killed = pitr(&args).env("PITR_CRASH_AT", crash).output().expect("the program starts");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9), "{crash}");
        assert!(!Path::new(&into).exists(), "{crash}");
        let withheld =
            (crash == "restore-records-written").then(|| Withheld::take(&scene.dir.path().join("archive"), older));
        let restored = json(&args);
        drop(withheld);
        assert_eq!(state_of(&scene.options(), Path::new(&into)).as_deref(), Some("new"), "{crash}");
        let copy = DB::open_for_read_only(&Options::default(), &into, false).expect("the copy opens");
        for (log, key) in (0..4).flat_map(|log| (0..30).map(move |key| (log, key))) {
            assert!(copy.get(format!("later-{log}-{key}")).expect("a read").is_some(), "{crash} {log} {key}");
        }
        drop(copy);
        assert_eq!((&restored["records"], &restored["wal_bytes"]), (&all["records"], &all["wal_bytes"]), "{crash}");
        reused.push((restored["reused_file_bytes"].as_u64(), restored["reused_records"].as_u64()));
        fs::remove_dir_all(&into).expect("the copy");
    }
    assert!(reused[0].0 > Some(0), "{reused:?}");
    assert!(reused[1].1 > Some(0) && reused[2].1 > reused[1].1, "{reused:?}");
    assert_eq!(reused[2].0, all["file_bytes"].as_u64());
    // Its directory was becoming a database: nothing of the log is gone on with.
    assert_eq!(reused[3], (all["file_bytes"].as_u64(), Some(0)));

    // A byte of what was there is wrong: it is fetched again.
    let killed = pitr(&args).env("PITR_CRASH_AT", "restore-records-written").output().expect("the program starts");
    assert!(!killed.status.success());
    let staged = scene.dir.path().join(".copy.pitr-restoring");
    for entry in fs::read_dir(&staged).expect("what was staged").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".sst") || name.ends_with(".log") {
            let mut bytes = fs::read(entry.path()).expect("a file");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(entry.path(), bytes).expect("damage");
        }
    }
    let restored = json(&args);
    assert_eq!((&restored["reused_file_bytes"], &restored["reused_records"]), (&0.into(), &0.into()));
    assert_eq!(state_of(&scene.options(), Path::new(&into)).as_deref(), Some("new"));
}

/// A log that is too long for memory. What is sorted on disk must not be needed again either.
#[test]
fn an_interrupted_restore_into_tables_goes_on_behind_what_is_sorted() {
    let scene = Scene::new(Wals::Inside);
    let mut options = scene.options();
    // All of it stays in the log.
    options.set_write_buffer_size(2 << 30);
    let db = DB::open(&options, scene.db()).expect("the database opens");
    let value = |key: u32, round: u32| (0..1 << 18).flat_map(|n: u32| (n ^ key << 8 ^ round).to_le_bytes()).collect();
    let mut model = std::collections::BTreeMap::<String, Vec<u8>>::new();
    for round in 0..3 {
        for key in 0..100_u32 {
            let (name, value): (_, Vec<u8>) = (format!("long-{}", key * (round + 1) % 120), value(key, round));
            db.put(&name, &value).expect("a write");
            model.insert(name, value);
        }
        let (from, to) = (format!("long-{}", 3 + round), format!("long-{}", 5 + round));
        let mut batch = rocksdb::WriteBatch::default();
        batch.delete_range(&from, &to);
        db.write(batch).expect("a deletion");
        model.retain(|key, _| *key < from || *key >= to);
    }
    let latest = db.latest_sequence_number();
    drop(db);
    scene.archive_and(&["run", "--once", "--db", &scene.db()]);
    let (archive, into) = (scene.archive(), scene.path("copy"));
    let args = ["restore", "--engine", "bulk", "--to-latest", "--into", &into, "--archive", &archive];
    let whole = |args: &[&str]| {
        let restored = json(args);
        let staged = fs::read_dir(&into).expect("the copy").flatten().map(|entry| entry.file_name());
        let left = |name: &std::ffi::OsString| {
            ["pitr-resume", "pitr-sorted"].iter().any(|ours| name.to_string_lossy().contains(ours))
        };
        let ours: Vec<_> = staged.filter(left).collect();
        assert!(ours.is_empty(), "{ours:?}");
        let copy = DB::open_for_read_only(&Options::default(), &into, false).expect("the copy opens");
        for (key, value) in &model {
            assert!(copy.get(key).expect("a read").as_ref() == Some(value), "{key}");
        }
        let long = copy.iterator(rocksdb::IteratorMode::Start).flatten().filter(|(key, _)| key.starts_with(b"long-"));
        assert_eq!(long.count(), model.len());
        assert_eq!(copy.get("state").expect("a read").as_deref(), Some(&b"new"[..]));
        assert_eq!(copy.latest_sequence_number(), latest);
        drop(copy);
        fs::remove_dir_all(&into).expect("the copy");
        (restored["reused_records"].as_u64().expect("a number"), restored["records"].as_u64().expect("a number"))
    };
    let (reused, records) = whole(&args);
    assert_eq!(reused, 0);
    let restored = || {
        let (reused, all) = whole(&args);
        assert_eq!(all, records);
        reused
    };
    let killed = |crash: &str| {
        let killed = pitr(&args).env("PITR_CRASH_AT", crash).output().expect("the program starts");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9), "{crash}");
        assert!(!Path::new(&into).exists(), "{crash}");
    };
    let [noted] = SORTED_POINTS else { panic!("{SORTED_POINTS:?}") };
    killed(&format!("{noted}:1"));
    let first = restored();
    assert!(first > 0);
    // Twice, and so often that all but the end is there.
    killed(&format!("{noted}:1"));
    killed(&format!("{noted}:2"));
    killed("restore-records-written");
    let plan = json(&["plan", "--to-latest", "--archive", &archive]);
    let planned = plan["segments"].as_array().expect("segments").iter().filter_map(|one| one["ordinal"].as_u64());
    let planned: Vec<_> = planned.collect();
    let withheld = Withheld::take(&scene.dir.path().join("archive"), &planned[1..planned.len() / 2]);
    let last = restored();
    assert!(last > first && last > 200, "{first} and {last} of {records}");
    drop(withheld);
    // A byte of what was there is wrong: it is made anew.
    killed("restore-records-written");
    let sorted = scene.dir.path().join(".copy.pitr-restoring/pitr-sorted");
    let mut runs: Vec<_> = fs::read_dir(sorted).expect("runs").flatten().map(|entry| entry.path()).collect();
    runs.sort();
    let mut bytes = fs::read(&runs[1]).expect("a run");
    bytes[1000] ^= 1;
    fs::write(&runs[1], bytes).expect("damage");
    let fewer = restored();
    assert!(fewer > 0 && fewer < last, "{fewer} of {last}");
    // Whoever wants another engine begins with none of it, and what is left does not disturb.
    killed("restore-records-written");
    let mut native = args;
    native[2] = "native";
    assert_eq!(whole(&native), (0, records));
    // What is noted is not believed where it was changed, also where it still reads well.
    killed("restore-records-written");
    let notes = scene.dir.path().join(".copy.pitr-restoring/pitr-resume-sorted.json");
    let text = fs::read_to_string(&notes).expect("notes");
    let digit = text.find("\"age\":").expect("an age") + 6;
    let mut changed = text.into_bytes();
    changed[digit] = if changed[digit] == b'1' { b'2' } else { b'1' };
    fs::write(&notes, changed).expect("damage");
    assert_eq!(restored(), 0);
}

#[test]
fn the_archive_goes_on_with_the_restored_database_and_with_the_one_that_came_back() {
    let scene = Scene::new(Wals::Inside);
    let restored = |target: &[&str], name: &str| {
        let into = scene.path(name);
        scene.archive_and(&[&["restore", "--into", &into], target].concat());
        state_of(&scene.options(), Path::new(&into))
    };
    scene.restore();
    let db = scene.open();
    db.put("state", "restored and changed").expect("a write");
    scene.archive_and(&["tag", "create", "branch", "--db", &scene.db()]);
    drop(db);
    assert_eq!(restored(&["--to-tag", "branch"], "copy-1").as_deref(), Some("restored and changed"));

    json(&["rollback", &scene.db()]);
    let db = scene.open();
    db.put("state", "back and changed").expect("a write");
    scene.archive_and(&["tag", "create", "back", "--db", &scene.db()]);
    drop(db);
    for (tag, state) in [("before", "old"), ("branch", "restored and changed"), ("back", "back and changed")] {
        assert_eq!(restored(&["--to-tag", tag], &format!("copy-{tag}")).as_deref(), Some(state));
    }
    assert_eq!(scene.archive_and(&["verify"])["ok"], true);
}
