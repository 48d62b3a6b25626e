//! A configuration, and one process that archives all it names, as an operator meets them.
//!
//! Every test runs the built program; every process is ended by its own handle, and every wait is bounded.

mod shared;

use std::{
    fs,
    path::Path,
    process::{Child, Output},
    time::Duration,
};

use rocksdb::{DB, Options};
use serde_json::Value;
use shared::{database, json, path, pitr, run, until};

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn refused(args: &[&str], code: &str) -> String {
    let output = pitr(args).arg("--json").output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    let error: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(error["code"], code, "{error}");
    error["message"].as_str().expect("a message").to_owned()
}

/// A process of ours that is told to end, or killed with its test.
struct Service(Option<Child>);

impl Service {
    fn start(args: &[&str]) -> Self {
        Self(Some(pitr(args).spawn().expect("the program starts")))
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let child = self.0.as_ref().expect("it runs");
        rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).expect("a signal");
    }

    fn stop(mut self) -> Output {
        self.signal(rustix::process::Signal::TERM);
        let child = self.0.take().expect("stopped once");
        child.wait_with_output().expect("its end")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `pitr.toml` for databases of these names, archived beside them.
fn configuration(dir: &Path, names: &[&str], more: &str) -> String {
    let entry = |name: &&str| {
        let (db, archive) = (path(dir, name), path(dir, &format!("{name}-archive")));
        format!("[databases.{name}]\ndb = \"{db}\"\narchive.url = \"file:{archive}\"\n")
    };
    let file = path(dir, "pitr.toml");
    fs::write(&file, names.iter().map(entry).collect::<String>() + more).expect("a file");
    file
}

#[test]
fn a_configuration_is_checked_shown_and_described() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(["one", "two"].map(|name| database(dir.path(), name)));
    let file =
        configuration(dir.path(), &["one", "two"], "archive.key = \"env:SECRET\"\n[tuning]\ninterval = \"5s\"\n");
    fs::create_dir(dir.path().join("conf.d")).expect("a directory");
    fs::write(dir.path().join("conf.d/10-poll.toml"), "tuning.poll = \"100ms\"\n").expect("a file");

    let checked = json(
        &pitr(&["config", "check", &file, "--json"])
            .env("SECRET", KEY)
            .env("PITR__DATABASES__ONE__TUNING__INTERVAL", "3s")
            .output()
            .expect("the program starts"),
    );
    assert_eq!(
        (&checked["databases"][0]["name"], &checked["databases"][0]["interval_ms"]),
        (&"one".into(), &3000.into())
    );
    assert_eq!(checked["databases"][1]["interval_ms"], 5000);
    assert_eq!(checked["databases"][1]["key"].as_str().map(str::len), Some(16), "the key's id");
    assert_eq!(checked["sources"].as_array().map(Vec::len), Some(3), "{checked}");

    let shown = run(&["config", "show", &file]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("poll = \"100ms\"") && text.contains("env:SECRET") && !text.contains(KEY), "{text}");
    let schema: Value = serde_json::from_slice(&run(&["config", "schema"]).stdout).expect("JSON");
    assert!(schema.pointer("/$defs/Tuning/properties/interval").is_some(), "{schema}");

    assert!(refused(&["config", "check", &file], "key.malformed").contains("no such variable"));
    fs::write(dir.path().join("conf.d/20.toml"), "[tuning]\n\nintervall = \"1s\"\n").expect("a file");
    let message = refused(&["run", "--config", &file], "config.malformed");
    assert!(message.contains("20.toml") && message.contains("line 3, column 1") && message.contains('^'), "{message}");
    fs::remove_file(dir.path().join("conf.d/20.toml")).expect("it was there");
    // A variable that is no text and nobody's business.
    let mut foreign = pitr(&["config", "check", &file, "--json"]);
    foreign.env("SECRET", KEY).env("FOO", std::os::unix::ffi::OsStrExt::from_bytes(b"\xff") as &std::ffi::OsStr);
    json(&foreign.output().expect("the program starts"));
    refused(&["run"], "usage");
    refused(&["run", "--config", &file, "--db", "/x"], "usage");
}

#[test]
fn what_would_lose_an_archive_or_end_an_archiver_is_refused_before_anything_begins() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(["one", "two"].map(|name| database(dir.path(), name)));
    let file = path(dir.path(), "pitr.toml");
    let db = |name: &str| path(dir.path(), name);
    let entry = |name: &str, url: &str| format!("[databases.{name}]\ndb = \"{}\"\narchive.url = \"{url}\"\n", db(name));
    let place = path(dir.path(), "archive");
    let spelled = |other: &str| entry("one", &format!("file:{place}")) + &entry("two", other);
    let mut wrong = vec![
        // One archive under two names.
        spelled(&format!("file:{place}/")),
        spelled(&format!("{}/x/../archive", dir.path().display())),
        entry("one", "s3://bucket/p") + &entry("two", "s3://bucket/p/"),
        // One that goes with the database, or with what may be deleted.
        entry("one", &format!("file:{}/archive", db("one"))),
        entry("one", &format!("file:{}.pitr/archive", db("one"))),
        // One that depends on where the service was started.
        entry("one", "file:archive"),
        entry("one", "./archive"),
        entry("one", &format!("file:{place}")) + "schedule.prune = \"@daily\"\n",
    ];
    for text in wrong.drain(..) {
        fs::write(&file, &text).expect("a file");
        refused(&["config", "check", &file], "config.contradictory");
    }
    let tuned = entry("one", &format!("file:{place}")) + "tuning.min_free = \"900PiB\"\n";
    fs::write(&file, tuned).expect("a file");
    refused(&["run", "--config", &file], "config.contradictory");
    fs::write(&file, entry("one", &format!("file:{place}")) + "[log]\nlevel = \"loud\"\n").expect("a file");
    refused(&["run", "--config", &file], "usage");
    let inside = format!("file:{}/archive", db("one"));
    for command in ["run", "flush"] {
        refused(&[command, "--db", &db("one"), "--archive", &inside], "config.contradictory");
    }
    assert!(!dir.path().join("one/archive").exists());
    let (mut options, wals) = (Options::default(), dir.path().join("wals"));
    options.create_if_missing(true);
    options.set_wal_dir(&wals);
    drop(DB::open(&options, db("three")).expect("a database"));
    let inside = format!("file:{}/archive", wals.display());
    refused(&["run", "--once", "--db", &db("three"), "--archive", &inside], "config.contradictory");
    assert!(!wals.join("archive").exists());
}

#[test]
fn one_process_archives_several_databases_and_the_trouble_of_one_is_not_the_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let [one, two] = ["one", "two"].map(|name| database(dir.path(), name));
    let file = configuration(dir.path(), &["one", "two"], "[tuning]\ninterval = \"100ms\"\n");
    let (db_one, db_two) = (path(dir.path(), "one"), path(dir.path(), "two"));
    // Somebody else archives the second one.
    let archive_two = format!("file:{}", path(dir.path(), "two-archive"));
    let other = Service::start(&["run", "--db", &db_two, "--archive", &archive_two]);
    let epoch = |db: &str| {
        let status = run(&["status", "--json", "--db", db]);
        serde_json::from_slice::<Value>(&status.stdout).ok()?.pointer("/archiver/epoch")?.as_u64()
    };
    assert_eq!(until("the other archiver", || epoch(&db_two)), 1);

    let service = Service::start(&["run", "--config", &file]);
    assert_eq!(until("the first database's archiver", || epoch(&db_one)), 1);
    one.put("second", "1").expect("a write");
    let flushed = json(&run(&["flush", "--json", "--db", &db_one]));
    assert_eq!(flushed["position"]["sequence"], one.latest_sequence_number());

    // When that one is gone, it is this one's turn.
    assert!(other.stop().status.success());
    assert_eq!(until("the second database's archiver", || epoch(&db_two).filter(|epoch| *epoch > 1)), 2);
    two.put("second", "2").expect("a write");
    let ended = service.stop();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    for (name, db) in [("one", &one), ("two", &two)] {
        let archive = format!("file:{}", path(dir.path(), &format!("{name}-archive")));
        let status = json(&run(&["status", "--json", "--archive", &archive]));
        assert_eq!(status["archive"]["timelines"][0]["head"]["sequence"], db.latest_sequence_number(), "{name}");
    }

    let once = json(&run(&["run", "--config", &file, "--once", "--json"]));
    assert_eq!(once["databases"].as_array().map(Vec::len), Some(2), "{once}");
}

#[test]
fn a_database_that_is_given_up_is_told_by_the_exit_code_and_the_others_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let [one, two] = ["one", "two"].map(|name| database(dir.path(), name));
    // What lies in the second archive's place is encrypted, and no key is given.
    let archive_two = format!("file:{}", path(dir.path(), "two-archive"));
    let key = path(dir.path(), "key");
    fs::write(&key, KEY).expect("a file");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
    let db_two = path(dir.path(), "two");
    json(&run(&["run", "--once", "--json", "--db", &db_two, "--archive", &archive_two, "--key-file", &key]));

    let file = configuration(dir.path(), &["one", "two"], "[tuning]\ninterval = \"100ms\"\n");
    let service = Service::start(&["run", "--config", &file]);
    let db_one = path(dir.path(), "one");
    until("the first database's archiver", || run(&["flush", "--db", &db_one]).status.success().then_some(()));
    one.put("second", "1").expect("a write");
    let flushed = json(&run(&["flush", "--json", "--db", &db_one]));
    assert_eq!(flushed["position"]["sequence"], one.latest_sequence_number());
    let ended = service.stop();
    let log = String::from_utf8_lossy(&ended.stderr);
    assert!(log.contains("key.required") && log.contains("given up"), "{log}");
    assert_eq!(ended.status.code(), Some(5), "{log}");
    drop(two);
}

#[test]
fn a_database_goes_into_several_archives_each_by_itself_and_a_tag_into_all_of_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = database(dir.path(), "one");
    let (near, far) = (path(dir.path(), "one-archive"), path(dir.path(), "far-archive"));
    let more = format!(
        "[databases.one.archives.far]\nurl = \"file:{far}\"\nrequired = false\n[tuning]\ninterval = \"50ms\"\n"
    );
    let file = configuration(dir.path(), &["one"], &more);
    // What lies in the way of the second archive is a file: a directory cannot be made there.
    fs::write(&far, "in the way").expect("a file");
    let service = Service::start(&["run", "--config", &file]);
    let database = path(dir.path(), "one");
    until("the first archive", || run(&["flush", "--db", &database]).status.success().then_some(()));
    db.put("second", "1").expect("a write");
    let flushed = json(&run(&["flush", "--json", "--db", &database]));
    assert_eq!(flushed["position"]["sequence"], db.latest_sequence_number(), "one that is away delays no other");
    drop(service.stop());

    fs::remove_file(&far).expect("the way is free");
    let service = Service::start(&["run", "--config", &file]);
    let both = until("both archives", || {
        let status = json(&run(&["status", "--json", "--db", &database, "--archive", &format!("file:{near}")]));
        let further = status["further_archivers"].as_array()?.first()?.clone();
        (further["acknowledged"]["sequence"] == db.latest_sequence_number()).then_some(further)
    });
    assert_eq!(both["name"], "far");
    let tag = json(&run(&["tag", "create", "everywhere", "--json", "--db", &database]));
    assert_eq!((&tag["archives"][0]["archive"], &tag["archives"][0]["name"]), (&"far".into(), &"everywhere".into()));
    assert!(service.stop().status.success());
    for archive in [&near, &far] {
        let tags = json(&run(&["tag", "list", "--json", "--archive", &format!("file:{archive}")]));
        assert_eq!(tags["tags"][0]["name"], "everywhere", "{archive}");
        let into = format!("{archive}-restored");
        let to = format!("file:{archive}");
        json(&run(&["restore", "--json", "--archive", &to, "--to-tag", "everywhere", "--into", &into]));
        let restored = DB::open_for_read_only(&Options::default(), &into, false).expect("the copy opens");
        assert_eq!(restored.get("second").expect("a read").as_deref(), Some(&b"1"[..]), "{archive}");
    }
}

/// A hook that appends what it is told to a file, and does `more`.
fn hook(dir: &Path, name: &str, more: &str) -> String {
    let (script, log) = (path(dir, name), path(dir, "told"));
    // In one write: whoever reads meanwhile sees a line or none.
    let text = format!(
        "#!/bin/sh\ntold=$(cat)\nprintf '%s %s %s\\n' \"$PITR_EVENT\" \"$PITR_DATABASE\" \"$told\" >> {log}\n{more}\n"
    );
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    script
}

#[test]
fn commands_are_told_before_and_after_a_base_of_barriers_and_of_verifications_and_a_reload_changes_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = database(dir.path(), "one");
    let told = || fs::read_to_string(dir.path().join("told")).unwrap_or_default();
    let [ok, hangs] =
        [("ok", ""), ("hangs", "sleep 1000 & sleep 1000")].map(|(name, more)| hook(dir.path(), name, more));
    let hooks = |before: &str| {
        format!(
            "[tuning]\ninterval = \"50ms\"\n[hooks]\nbefore_base = [\"{before}\"]\nafter_base = [\"{ok}\"]\n\
             on_barrier = [\"{ok}\"]\non_failure = [\"{ok}\"]\nafter_verify = [\"{ok}\"]\ntimeout = \"3s\"\n"
        )
    };
    let file = configuration(dir.path(), &["one"], &hooks(&hangs));
    let service = Service::start(&["run", "--config", &file]);
    // A server that is not brought to rest in time has no base, and the command is ended with all it began.
    until("the failure is told", || told().contains("hook.failed").then_some(()));
    let said = told();
    assert!(said.contains("base-failed one") && said.contains("before-base one {\"database\":\"one\""), "{said}");
    assert!(!told().contains("after-base"), "it was never at rest: {}", told());

    // Only what can be read is applied.
    fs::write(&file, "[databases.one]\ndb = 7\n").expect("a file");
    refused(&["reload", "--config", &file], "config.malformed");
    configuration(dir.path(), &["one"], &format!("{}[schedule]\nverify = \"* * * * * *\"\n", hooks(&ok)));
    let reloaded = json(&run(&["reload", "--config", &file, "--json"]));
    let what: Vec<_> =
        reloaded["changes"].as_array().expect("changes").iter().map(|c| (&c["what"], &c["effect"])).collect();
    assert_eq!(what, [(&"schedule".into(), &"applied".into()), (&"hooks".into(), &"applied".into())]);
    until("a base", || told().contains("after-base one").then_some(()));
    assert!(told().contains("\"linking\":\"done\""), "{}", told());
    until("a verification by the clock", || told().contains("verified one").then_some(()));
    assert!(told().contains("\"ok\":true"), "{}", told());

    // A write without the log is a barrier.
    let mut unlogged = rocksdb::WriteOptions::default();
    unlogged.disable_wal(true);
    db.put_opt("unseen", "1", &unlogged).expect("a write");
    db.flush().expect("a flush");
    db.put("seen", "1").expect("a write");
    until("the barrier is told", || told().contains("barrier one").then_some(()));

    // A key that cannot change while it runs is said to need a restart; SIGHUP does the same as pitr reload.
    configuration(
        dir.path(),
        &["one"],
        "tuning.interval = \"3s\"\n[databases.two]\ndb = \"/x\"\narchive.url = \"file:/y\"\n",
    );
    let reloaded = json(&run(&["reload", "--config", &file, "--json"]));
    let effects: Vec<_> =
        reloaded["changes"].as_array().expect("changes").iter().map(|c| c["effect"].as_str()).collect();
    assert!(effects.contains(&Some("needs-restart")) && effects.contains(&Some("applied")), "{reloaded}");
    service.signal(rustix::process::Signal::HUP);
    std::thread::sleep(Duration::from_millis(500));
    let ended = service.stop();
    let log = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && log.matches("the configuration was read again").count() == 3, "{log}");
}

#[test]
fn whoever_is_told_of_failures_is_told_of_scheduled_ones_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let _db = database(dir.path(), "one");
    let told = || fs::read_to_string(dir.path().join("told")).unwrap_or_default();
    let ok = hook(dir.path(), "ok", "");
    let more = format!(
        "[tuning]\ninterval = \"50ms\"\n[hooks]\non_failure = [\"{ok}\"]\n[retention]\nwindow = \"2d\"\n\
         [schedule]\nverify = \"* * * * * *\"\nprune = \"* * * * * *\"\n"
    );
    let file = configuration(dir.path(), &["one"], &more);
    // With an archive and a base from the first second on.
    let archive = format!("file:{}", path(dir.path(), "one-archive"));
    let first = run(&["run", "--once", "--db", &path(dir.path(), "one"), "--archive", &archive]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let service = Service::start(&["run", "--config", &file]);
    let bases = path(dir.path(), "one-archive/bases");
    let base = until("a base", || fs::read_dir(&bases).ok()?.flatten().next().map(|entry| entry.path()));
    assert_eq!(told(), "");
    fs::write(&base, b"{").expect("damage");
    until("the verification", || told().contains("verification-failed one").then_some(()));
    until("the pruning", || told().contains("schedule-failed one").then_some(()));
    assert!(told().contains("\"chore\":\"prune\"") && told().contains("\"hint\":"), "{}", told());
    let ended = service.stop();
    let log = String::from_utf8_lossy(&ended.stderr);
    assert!(log.contains("what was due failed"), "{log}");
}

#[test]
fn restores_are_drilled_by_the_clock_and_what_came_of_them_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = database(dir.path(), "one");
    let told = || fs::read_to_string(dir.path().join("told")).unwrap_or_default();
    let scratch = path(dir.path(), "scratch");
    fs::create_dir(&scratch).expect("a directory");
    let ok = hook(dir.path(), "ok", "");
    let check = |name: &str, body: &str| {
        hook(dir.path(), name, &format!("test -f \"$PITR_DRILL_DB/CURRENT\" || exit 9\n{body}"))
    };
    let [accepts, refuses, hangs] =
        [("accepts", "exit 0"), ("refuses", "exit 3"), ("hangs", "touch \"$0.began\"; sleep 1000")]
            .map(|(name, body)| check(name, body));
    let more = |check: &str| {
        format!(
            "[tuning]\ninterval = \"50ms\"\n[hooks]\non_failure = [\"{ok}\"]\nafter_drill = [\"{ok}\"]\n\
             [schedule]\ndrill = \"* * * * * *\"\n[drill]\nscratch = \"{scratch}\"\ntarget = \"latest\"\ncheck = [\"{check}\"]\n"
        )
    };
    let file = configuration(dir.path(), &["one"], &more(&accepts));
    let service = Service::start(&["run", "--config", &file]);
    // Before the first base there is nothing to restore: that is told, and the next one goes well.
    until("a drill that passed", || told().contains("\"verdict\":\"passed\"").then_some(()));
    let said = told();
    assert!(said.contains("drilled one {\"database\":\"one\"") && said.contains("\"restore_seconds\":"), "{said}");
    let archive = format!("file:{}", path(dir.path(), "one-archive"));
    let drills = || -> Vec<Value> {
        let listed = json(&run(&["list", "drills", "--json", "--archive", &archive]));
        listed["drills"].as_array().expect("a list").clone()
    };
    let passed = until("its report", || drills().into_iter().find(|drill| drill["verdict"] == "passed"));
    assert_eq!((&passed["target"]["chosen"], &passed["checked"]["command"]), (&"latest".into(), &"accepts".into()));
    db.put("second", "1").expect("a write");

    configuration(dir.path(), &["one"], &more(&refuses));
    let reloaded = json(&run(&["reload", "--config", &file, "--json"]));
    let what: Vec<_> = reloaded["changes"].as_array().expect("changes").iter().map(|c| &c["what"]).collect();
    assert_eq!(what, ["drill"]);
    until("a refusal", || told().contains("\"code\":\"drill.check-failed\"").then_some(()));
    until("the failure is told", || {
        let said = told();
        let failed =
            said.lines().find(|line| line.starts_with("schedule-failed one") && line.contains("drill.check-failed"))?;
        failed.contains("\"chore\":\"drill\"").then_some(())
    });

    // A drill that is under way when the service ends holds it up for no time, and leaves nothing.
    configuration(dir.path(), &["one"], &more(&hangs));
    json(&run(&["reload", "--config", &file, "--json"]));
    until("the check hangs", || dir.path().join("hangs.began").exists().then_some(()));
    let began = std::time::Instant::now();
    let ended = service.stop();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(fs::read_dir(&scratch).expect("a directory").count(), 0);
}

#[test]
fn a_server_that_is_being_brought_to_rest_when_the_service_ends_is_told_to_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let _db = database(dir.path(), "one");
    let told = || fs::read_to_string(dir.path().join("told")).unwrap_or_default();
    let [rest, goes_on] = [("rest", "sleep 5"), ("goes-on", "sleep 1; echo gone-on >> \"$0.done\"")]
        .map(|(name, more)| hook(dir.path(), name, more));
    let hooks = format!("[hooks]\nbefore_base = [\"{rest}\"]\nafter_base = [\"{goes_on}\"]\n");
    let service = Service::start(&["run", "--config", &configuration(dir.path(), &["one"], &hooks)]);
    until("the first base begins", || told().contains("before-base one").then_some(()));
    let ended = service.stop();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(told().contains("after-base one") && told().contains("\"linking\":\"failed\""), "{}", told());
    assert!(dir.path().join("goes-on.done").exists(), "the command was ended with the service");
}

#[test]
fn who_is_to_be_told_of_a_failure_is_told_before_the_service_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let _db = database(dir.path(), "one");
    let archive = format!("file:{}", path(dir.path(), "one-archive"));
    let key = path(dir.path(), "key");
    fs::write(&key, KEY).expect("a file");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
    let db = path(dir.path(), "one");
    json(&run(&["run", "--once", "--json", "--db", &db, "--archive", &archive, "--key-file", &key]));
    let alert = hook(dir.path(), "alert", "sleep 1; echo alerted >> \"$0.done\"");
    let file = configuration(dir.path(), &["one"], &format!("[hooks]\non_failure = [\"{alert}\"]\n"));
    // Without the key it cannot go on, and there is no other database.
    assert_eq!(run(&["run", "--config", &file]).status.code(), Some(5));
    let told = fs::read_to_string(dir.path().join("told")).unwrap_or_default();
    assert!(told.contains("given-up one"), "{told}");
    assert!(dir.path().join("alert.done").exists(), "the command was ended with the service");
}

#[test]
fn a_database_that_is_not_there_yet_is_waited_for_and_the_others_are_archived_meanwhile() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = configuration(dir.path(), &["one", "two"], "[tuning]\ninterval = \"50ms\"\n");
    refused(&["run", "--config", &file], "file.not-found");
    let one = database(dir.path(), "one");
    let service = Service::start(&["run", "--config", &file]);
    let [db_one, db_two] = ["one", "two"].map(|name| path(dir.path(), name));
    let flushed = |db: &str| run(&["flush", "--db", db]).status.success().then_some(());
    until("the database that is there", || flushed(&db_one));
    let two = database(dir.path(), "two");
    until("the one that came later", || flushed(&db_two));
    let ended = service.stop();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    drop((one, two));
}

#[test]
fn nobody_is_told_that_everything_is_archived_where_an_archive_is_not_reached_or_the_log_cannot_be_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = database(dir.path(), "one");
    // Nobody listens there.
    let far = "url = \"s3://bucket/far?endpoint=http://127.0.0.1:1&region=us-east-1\"";
    let more = format!("[databases.one.archives.far]\n{far}\n[tuning]\ninterval = \"50ms\"\n");
    let file = configuration(dir.path(), &["one"], &more);
    let service = Service::start(&["run", "--config", &file]);
    let database = path(dir.path(), "one");
    until("the first archive", || run(&["flush", "--db", &database]).status.success().then_some(()));
    let tag = json(&run(&["tag", "create", "here-only", "--json", "--db", &database]));
    assert_eq!(tag["missing"], serde_json::json!(["far"]), "{tag}");
    drop(service.stop());

    // A record in the middle of the log is damaged, and the server still needs that log.
    for i in 0..50 {
        db.put(format!("k{i}"), [7; 100]).expect("a write");
    }
    let log = fs::read_dir(&database).expect("the directory").filter_map(|entry| Some(entry.ok()?.path()));
    let log = log.filter(|path| path.extension().is_some_and(|e| e == "log")).max().expect("a log");
    let mut bytes = fs::read(&log).expect("the log");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&log, bytes).expect("damage");
    let near = configuration(dir.path(), &["one"], "[tuning]\ninterval = \"50ms\"\n");
    let service = Service::start(&["run", "--config", &near]);
    let flushed = until("an answer", || {
        let flushed = pitr(&["flush", "--json", "--db", &database]).output().expect("the program starts");
        let unavailable = String::from_utf8_lossy(&flushed.stderr).contains("control.unavailable");
        (!unavailable).then_some(flushed)
    });
    let said = String::from_utf8_lossy(&flushed.stderr);
    assert!(
        !flushed.status.success() && said.contains("wal.corrupt"),
        "{said}{}",
        String::from_utf8_lossy(&flushed.stdout)
    );
    drop(service.stop());
}

#[test]
fn a_manifest_that_cannot_be_written_is_not_tried_at_every_look() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = database(dir.path(), "one");
    let file = configuration(
        dir.path(),
        &["one"],
        "[tuning]\ninterval = \"50ms\"\nmanifest_interval = \"1s\"\npoll = \"5ms\"\n",
    );
    let manifests = dir.path().join("one-archive/manifests");
    let service = Service::start(&["run", "--config", &file]);
    until("the first manifest", || manifests.exists().then_some(()));
    fs::rename(&manifests, dir.path().join("aside")).expect("out of the way");
    fs::write(&manifests, "in the way").expect("a file");
    db.put("second", "1").expect("a write");
    std::thread::sleep(Duration::from_secs(4));
    fs::remove_file(&manifests).expect("the way is free");
    fs::rename(dir.path().join("aside"), &manifests).expect("back");
    let ended = service.stop();
    let log = String::from_utf8_lossy(&ended.stderr);
    let tried = log.matches("the manifest could not be written").count();
    assert!(ended.status.success() && (1..=4).contains(&tried), "{tried} times\n{log}");
}
