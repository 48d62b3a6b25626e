//! Servers that nobody here wrote, archived from outside while they write, killed, destroyed and restored.
//!
//! Owns: the promises about them. Oxigraph writes to S3 (moto); rocksdict, RocksDB from Python, to a directory and to
//! Azure (Azurite); older releases of it and of a package for Node stand for RocksDB 6 to 9. The contents of what is restored are read by the servers' own programs and compared with a model.
//! A program that is not installed skips its test, said on stderr; `make tools` installs them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

#[path = "real_servers/counted.rs"]
mod counted;
#[path = "real_servers/library.rs"]
mod library;
#[path = "real_servers/myrocks.rs"]
mod myrocks;
#[path = "real_servers/oxigraph.rs"]
mod oxigraph;
#[path = "real_servers/pitr.rs"]
mod pitr;
#[path = "harness/services.rs"]
mod services;

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path, process::Command, time::Duration};

use library::Library;
use pitr::{Pitr, text, until};

/// Every write-ahead log ever seen in a directory, by inode.
fn note_logs(directory: &Path, seen: &mut BTreeMap<u64, Vec<String>>) {
    for entry in fs::read_dir(directory).expect("the database").flatten() {
        let name = entry.file_name().into_string().expect("RocksDB's names are plain");
        if let (true, Ok(metadata)) = (name.ends_with(".log"), entry.metadata()) {
            let names = seen.entry(metadata.ino()).or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
}

#[test]
fn oxigraph_writing_without_pause_comes_back_at_a_tag_a_time_and_the_end() {
    let (Some(program), Some(s3)) = (oxigraph::program(), services::s3()) else { return };
    s3.create("backups");
    let scratch = tempfile::tempdir().unwrap();
    let database = scratch.path().join("db");
    let pitr =
        Pitr { url: s3.url("backups", "oxigraph"), variables: s3.variables(), directory: scratch.path().to_owned() };

    // A server with a past: it has flushed, and goes on in a log that reuses the file of an older one.
    let mut server = oxigraph::Oxigraph::start(&program, &database);
    let mut logs = BTreeMap::new();
    note_logs(&database, &mut logs);
    server.update("INSERT DATA { <http://example.com/old> <http://example.com/was> \"old\" }");
    server.bulk_load("<http://example.com/bulk> <http://example.com/was> \"loaded\" .\n");
    note_logs(&database, &mut logs);
    assert!(
        logs.values().any(|names| names.len() > 1),
        "this server was chosen because it recycles its logs, and it did not: {logs:?}"
    );

    let mut writer = server.write_on();
    writer.wait_for_more(50);
    let archiver = pitr.start(&database);
    writer.wait_for_more(100);

    // A tag, created while the client writes on.
    let before_tag = writer.acknowledged();
    let tag = pitr.json(&["tag", "create", "before-migration", "--db", text(&database), "--note", "from the test"]);
    let after_tag = writer.issued();
    assert!(tag["position"]["record"].is_u64(), "the tag's position: {tag}");
    writer.wait_for_more(100);

    // A time. What was in the archive before it must be in what is restored to it.
    let before_time = writer.acknowledged();
    pitr.json(&["flush", "--db", text(&database)]);
    let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let after_time = writer.issued();
    writer.wait_for_more(100);

    // The server dies without a word, then the archiver ends in order, then the database is gone.
    server.kill_9();
    writer.join();
    archiver.stop();
    fs::remove_dir_all(&database).unwrap();

    let at_tag = scratch.path().join("at-tag");
    let reached = pitr.restore(&["--to-tag", "before-migration"], &at_tag);
    assert_eq!(reached["position"]["record"], tag["position"]["record"]);
    let updates = oxigraph::updates_in(&program, &at_tag);
    assert!((before_tag..=after_tag).contains(&updates), "{updates} not in {before_tag}..={after_tag}");

    let at_time = scratch.path().join("at-time");
    pitr.restore(&["--to-time", &time], &at_time);
    let updates = oxigraph::updates_in(&program, &at_time);
    assert!((before_time..=after_time).contains(&updates), "{updates} not in {before_time}..={after_time}");

    // Everything that was confirmed is there; the update under way when the kill came may be.
    let latest = scratch.path().join("latest");
    pitr.restore(&["--to-latest"], &latest);
    let updates = oxigraph::updates_in(&program, &latest);
    assert!((writer.acknowledged()..=writer.issued()).contains(&updates), "{updates} of {}", writer.acknowledged());
    let old = oxigraph::query(&program, &latest, "SELECT ?o { ?s <http://example.com/was> ?o } ORDER BY ?o");
    assert_eq!(old, ["loaded", "old"]);

    // And it is a database like any other: the server opens it and goes on.
    let again = oxigraph::Oxigraph::start(&program, &latest);
    let held = again.count();
    again.update("INSERT DATA { <http://example.com/new> <http://example.com/was> \"new\" }");
    assert_eq!(again.count(), held + 1);
}

/// The README's runbook of Oxigraph, which keeps nothing beside RocksDB.
#[test]
fn an_oxigraph_server_comes_back_in_place_and_so_does_what_was_there() {
    let Some(program) = oxigraph::program() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let database = scratch.path().join("db");
    let url = format!("file:{}", scratch.path().join("archive").display());
    let pitr = Pitr { url, variables: Vec::new(), directory: scratch.path().to_owned() };
    let mut server = oxigraph::Oxigraph::start(&program, &database);
    let mut writer = server.write_on();
    writer.wait_for_more(50);
    let archiver = pitr.start(&database);
    writer.wait_for_more(50);
    let before = writer.acknowledged();
    pitr.json(&["tag", "create", "noon", "--db", text(&database)]);
    let after = writer.issued();
    writer.wait_for_more(50);

    let in_place = ["restore", "--to-tag", "noon", "--in-place", text(&database)];
    assert!(!pitr.does(&in_place), "the server runs");
    server.kill_9();
    writer.join();
    pitr.json(&in_place);
    let again = oxigraph::Oxigraph::start(&program, &database);
    again.update("INSERT DATA { <http://example.com/new> <http://example.com/was> \"new\" }");
    drop(again);
    let updates = oxigraph::updates_in(&program, &database);
    assert!((before..=after).contains(&updates), "{updates} not in {before}..={after}");
    pitr.json(&["flush", "--db", text(&database)]);

    pitr.json(&["rollback", text(&database)]);
    let updates = oxigraph::updates_in(&program, &database);
    assert!((writer.acknowledged()..=writer.issued()).contains(&updates), "{updates} of {}", writer.acknowledged());
    pitr.json(&["settle", text(&database), "--discard"]);
    archiver.stop();
}

/// The README's runbook of MariaDB. Which tables there are, MyRocks keeps in RocksDB, what they look like it keeps in files
/// beside it (`.frm`), and it does not start where the two disagree: a hook puts those files into every base.
#[test]
fn a_mariadb_server_comes_back_in_place_with_the_table_that_was_dropped() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(mut server) = myrocks::MyRocks::install(scratch.path()) else { return };
    let database = server.database();
    let url = format!("file:{}", scratch.path().join("archive").display());
    let pitr = Pitr { url: url.clone(), variables: Vec::new(), directory: scratch.path().to_owned() };
    let configuration = scratch.path().join("pitr.toml");
    let settings = format!(
        "[databases.shop]\ndb = \"{0}/#rocksdb\"\narchive.url = \"{url}\"\ninclude = [\"tables.tar.gz\"]\n\
         tuning.interval = \"100ms\"\n[databases.shop.hooks]\n\
         before_base = [\"/bin/sh\", \"-c\", \"{1} -e 'DO 1' && cd '{0}' && find . -name '*.frm' -o -name '*.par' | tar -T - -czf '#rocksdb/tables.tar.gz'\"]\n",
        server.data.display(),
        server.client_line()
    );
    fs::write(&configuration, settings).unwrap();
    server.start(&[]);
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.orders (n INT PRIMARY KEY, v VARCHAR(200), KEY (v))");
    server.sql("CREATE TABLE shop.prices (item INT PRIMARY KEY, price INT)");
    // Creating RocksDB's own column families is in no log, and this log is still in the server's memory in part: where the
    // next one begins, that is over. The archiver says so.
    let mut archiver = pitr.serve(&configuration);
    until("the reason why there is no base", || {
        let status = pitr.try_json(&["status", "--db", text(&database)])?;
        status["archiver"]["base_waits"].as_str()?.contains("rocksdb_force_flush_memtable_now").then_some(())
    });
    server.sql("SET GLOBAL rocksdb_force_flush_memtable_now = ON");
    pitr.wait_for_a_base(&mut archiver, &database);
    let mut writer = server.write_on("shop.orders");
    server.sql("INSERT INTO shop.prices VALUES (1, 100), (2, 200)");
    writer.wait_for_more(200);

    let before = writer.acknowledged();
    pitr.json(&["tag", "create", "before-the-drop", "--observed", "--db", text(&database)]);
    let after = writer.issued();
    writer.wait_for_more(50);
    server.sql("DROP TABLE shop.prices; CREATE TABLE shop.mistake (n INT PRIMARY KEY)");
    writer.wait_for_more(50);

    // While the server runs nothing is replaced.
    let in_place = ["restore", "--to-tag", "before-the-drop", "--in-place", text(&database)];
    assert!(!pitr.does(&in_place));
    server.stop();
    writer.join();
    let swapped = pitr.json(&in_place);
    assert!(swapped["left_behind"].as_array().is_none_or(Vec::is_empty), "{swapped}");
    // A server that starts before the archiver has looked costs a barrier where its first log is deleted meanwhile.
    until("the archiver to have seen the exchange", || archiver.log().contains("a timeline begins").then_some(()));
    // Before the server runs: then there is a base again, with what is beside it now.
    let tables = scratch.path().join("tables");
    fs::create_dir(&tables).unwrap();
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(database.join("tables.tar.gz")).arg("-C").arg(&tables);
    assert!(unpack.status().unwrap().success());

    // A transaction was under way, prepared and not committed: its commit was acknowledged perhaps, and still in the server's
    // memory. The binary log knows nothing of a crash, so the server wants to be told what becomes of it.
    server.start_to_end(&["--tc-heuristic-recover=COMMIT", "--rocksdb-validate-tables=2"]);

    // The server says for which tables the two disagree, and for no other.
    server.start(&["--rocksdb-validate-tables=2"]);
    server.stop();
    let said = server.said();
    let mismatches: Vec<_> = said.lines().filter(|line| line.contains("Schema mismatch")).collect();
    let told = |table: &str, what: &str| mismatches.iter().any(|line| line.contains(table) && line.contains(what));
    assert!(mismatches.len() == 2, "{said}");
    assert!(told("shop.prices", "does not have a .frm") && told("shop.mistake", "not registered"), "{said}");
    fs::copy(tables.join("shop/prices.frm"), server.data.join("shop/prices.frm")).unwrap();
    let (mistake, away) = (server.data.join("shop/mistake.frm"), scratch.path().join("mistake.frm"));
    fs::rename(&mistake, &away).unwrap();
    server.start(&[]);
    assert_eq!(server.sql("SELECT * FROM shop.prices ORDER BY item"), ["1\t100", "2\t200"]);
    let rows: u64 = server.sql("SELECT COUNT(*) FROM shop.orders")[0].parse().unwrap();
    assert!((before..=after).contains(&rows), "{rows} not in {before}..={after}");
    assert_eq!(server.sql("SELECT MAX(n) FROM shop.orders"), [(rows - 1).to_string()]);
    assert_eq!(
        server.sql("CHECK TABLE shop.orders, shop.prices EXTENDED").iter().filter(|l| l.ends_with("OK")).count(),
        2
    );
    server.sql("INSERT INTO shop.prices VALUES (3, 300)");
    server.stop();

    // The archiver has followed all of it, and a gap is no part of it.
    pitr.json(&["flush", "--db", text(&database)]);
    let status = pitr.json(&["status", "--db", text(&database)]);
    assert_eq!(
        (&status["archiver"]["barriers"], &status["archiver"]["waiting"]),
        (&0.into(), &serde_json::Value::Null)
    );

    // And back: what was set aside is as it was, and the archive has both histories.
    pitr.json(&["flush", "--db", text(&database)]);
    pitr.json(&["rollback", text(&database)]);
    fs::rename(&away, &mistake).unwrap();
    fs::remove_file(server.data.join("shop/prices.frm")).unwrap();
    server.start(&[]);
    let rows: u64 = server.sql("SELECT COUNT(*) FROM shop.orders")[0].parse().unwrap();
    assert!((writer.acknowledged()..=writer.issued()).contains(&rows), "{rows} of {}", writer.acknowledged());
    assert!(server.try_sql("SELECT * FROM shop.prices").is_err(), "it was dropped in that history");
    server.stop();
    archiver.stop();
}

fn a_program_comes_back(pitr: &Pitr, library: &Library, scratch: &Path, seed: u64) {
    let database = scratch.join("db");
    let mut writer = library::Writer::start(library, &database, seed);
    writer.wait_for_more(60);
    let archiver = pitr.start(&database);
    writer.wait_for_more(200);

    let committed = writer.sequence();
    let tag = pitr.json(&["tag", "create", "noon", "--db", text(&database)]);
    assert!(tag["position"]["sequence"].as_u64().unwrap() >= committed, "a committed write is missing from the tag");
    writer.wait_for_more(200);
    let between = writer.sequence();
    writer.wait_for_more(200);

    writer.kill_9();
    archiver.stop();
    fs::remove_dir_all(&database).unwrap();

    let between_text = between.to_string();
    for (target, name) in [
        (["--to-tag", "noon"].as_slice(), "at-tag"),
        (["--to-seq", between_text.as_str()].as_slice(), "at-sequence"),
        (["--to-latest"].as_slice(), "latest"),
    ] {
        let into = scratch.join(name);
        let reached = pitr.restore(target, &into)["position"]["sequence"].as_u64().unwrap();
        let found = library.dump(&into);
        assert!(found.sequence.is_none_or(|sequence| sequence == reached), "{name}, seed {seed}");
        assert_eq!(found.families, writer.model(reached), "{name}, seed {seed}");
        match name {
            "at-tag" => assert_eq!(reached, tag["position"]["sequence"].as_u64().unwrap()),
            "at-sequence" => assert_eq!(reached, between),
            _ => assert!(reached >= writer.sequence(), "a confirmed commit is missing"),
        }
    }
    let found = pitr.json(&["verify"]);
    assert_eq!(found["findings"].as_array().map_or(0, Vec::len), 0, "{found}");
}

#[test]
fn a_python_program_comes_back_from_a_directory() {
    let Some(python) = Library::rocksdict() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let url = format!("file:{}", scratch.path().join("archive").display());
    let pitr = Pitr { url, variables: Vec::new(), directory: scratch.path().to_owned() };
    a_program_comes_back(&pitr, &python, scratch.path(), 20);
}

#[test]
fn a_python_program_comes_back_from_azure() {
    let (Some(python), Some(azure)) = (Library::rocksdict(), services::azure()) else { return };
    azure.create("backups");
    let scratch = tempfile::tempdir().unwrap();
    let pitr = Pitr {
        url: azure.url("backups", "python"),
        variables: azure.variables(),
        directory: scratch.path().to_owned(),
    };
    a_program_comes_back(&pitr, &python, scratch.path(), 21);
}

/// The version that wrote a database, by its newest OPTIONS file.
fn rocksdb_version(database: &Path) -> String {
    let options = fs::read_dir(database).unwrap().flatten().map(|entry| entry.path());
    let newest = options.filter(|path| path.to_str().is_some_and(|path| path.contains("OPTIONS-"))).max();
    let text = fs::read_to_string(newest.expect("an OPTIONS file")).unwrap();
    let version = text.lines().find_map(|line| line.trim().strip_prefix("rocksdb_version="));
    version.expect("the version").to_owned()
}

/// Archived while it writes, killed, restored at three targets, and opened by the release that wrote it; then another one,
/// which the archiver leaves alone for a while.
fn a_version_comes_back(library: Option<Library>, version: &str, seed: u64) {
    let Some(library) = library else { return };
    let scratch = tempfile::tempdir().unwrap();
    let url = format!("file:{}", scratch.path().join("archive").display());
    let pitr = Pitr { url, variables: Vec::new(), directory: scratch.path().to_owned() };
    a_program_comes_back(&pitr, &library, scratch.path(), seed);
    assert_eq!(rocksdb_version(&scratch.path().join("latest")), version, "else this test is about another version");

    for opened_anew in [false, true] {
        let scratch = tempfile::tempdir().unwrap();
        let url = format!("file:{}", scratch.path().join("archive").display());
        let pitr = Pitr { url, variables: Vec::new(), directory: scratch.path().to_owned() };
        logs_come_and_go_unseen(&pitr, &library, version, scratch.path(), (seed, opened_anew));
    }
}

/// The archiver is away while logs come and go, and the database is opened anew, or not: what it archived before and what
/// is there at the end come back, and every moment in between does or is refused.
fn logs_come_and_go_unseen(
    pitr: &Pitr,
    library: &Library,
    version: &str,
    scratch: &Path,
    (seed, opened_anew): (u64, bool),
) {
    let database = scratch.join("db");
    let mut writer = library::Writer::start(library, &database, seed);
    writer.wait_for_more(60);
    let archiver = pitr.start(&database);
    writer.wait_for_more(60);
    archiver.stop();
    let mut logs = BTreeMap::new();
    for _ in 0..1000 {
        note_logs(&database, &mut logs);
        if logs.values().map(Vec::len).sum::<usize>() > 5 {
            break;
        }
        writer.wait_for_more(20);
    }
    assert!(logs.values().map(Vec::len).sum::<usize>() > 5, "logs come and go: {logs:?}");
    if opened_anew {
        writer.kill_9();
    }
    let held = opened_anew.then(|| library.dump(&database));
    let archiver = pitr.start(&database);
    if !opened_anew {
        writer.wait_for_more(60);
        writer.kill_9();
    }
    // A barrier, where one is due, and the base that follows it.
    pitr.json(&["flush", "--db", text(&database)]);
    // Before 7.5 a compaction of everything can leave files that do not show how far they reach: then the end is refused
    // until the server has flushed once more, which this one, being dead, does not.
    let may_stay_refused = version.starts_with("6.");
    let accepted = || pitr.accepts(&["--to-latest"]).then_some(());
    let reached_end = if may_stay_refused {
        pitr::within(Duration::from_secs(30), accepted).is_some()
    } else {
        pitr::until("a base of the end", accepted);
        true
    };
    archiver.stop();
    if !reached_end {
        println!("NOT COMPARED: the end is refused here (seed {seed}); what was archived before is compared");
    }
    // Nothing of it is read any more.
    fs::remove_dir_all(&database).unwrap();

    if reached_end {
        let latest = scratch.join("latest");
        let reached = pitr.restore(&["--to-latest"], &latest)["position"]["sequence"].as_u64().unwrap();
        let found = library.dump(&latest);
        match held {
            Some(held) => assert_eq!(found.families, held.families, "seed {seed}"),
            None => assert_eq!(found.families, writer.model(reached), "seed {seed}"),
        }
    }
    let sequences = writer.sequences();
    let mut restored = 0;
    for sequence in sequences.iter().step_by(sequences.len() / 20) {
        let wanted = sequence.to_string();
        let target = ["--to-seq", wanted.as_str()];
        if !pitr.accepts(&target) {
            continue;
        }
        let into = scratch.join(format!("at-{sequence}"));
        let reached = pitr.restore(&target, &into)["position"]["sequence"].as_u64().unwrap();
        assert_eq!(reached, *sequence, "a commit's end, seed {seed}");
        assert_eq!(library.dump(&into).families, writer.model(reached), "sequence {sequence}, seed {seed}");
        restored += 1;
    }
    assert!(restored > 0, "what was archived before can be restored");
}

#[test]
fn rocksdb_6_17_comes_back() {
    a_version_comes_back(Library::node(), "6.17.3", 30);
}

#[test]
fn rocksdb_7_5_comes_back() {
    a_version_comes_back(Library::rocksdict_release("0.3.3"), "7.5.3", 31);
}

#[test]
fn rocksdb_7_7_comes_back() {
    a_version_comes_back(Library::rocksdict_release("0.3.5"), "7.7.3", 32);
}

#[test]
fn rocksdb_8_1_comes_back() {
    a_version_comes_back(Library::rocksdict_release("0.3.12"), "8.1.1", 33);
}

#[test]
fn rocksdb_8_6_comes_back() {
    a_version_comes_back(Library::rocksdict_release("0.3.15"), "8.6.7", 34);
}

#[test]
fn rocksdb_8_10_comes_back() {
    a_version_comes_back(Library::rocksdict_release("0.3.22"), "8.10.0", 35);
}

#[test]
fn rocksdb_9_7_comes_back() {
    a_version_comes_back(Library::rocksdict_release("0.3.24"), "9.7.3", 36);
}
