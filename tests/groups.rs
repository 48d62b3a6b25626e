//! Several databases as one: a tag marks one moment in all of them, a restore brings all to it or none, and whoever is missing is
//! named.
//!
//! Real databases, written in lockstep while the built program archives, tags and restores them.

mod harness;

#[path = "groups/shop.rs"]
mod shop;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use harness::command::{finish, pitr, text, url};
use pitr_replayer::crash::GROUP_POINTS;
use rocksdb::DB;
use rustix::process::Signal;
use serde_json::Value;
use shop::{SHARDS, Shop, Writer, group_of, held, json, named, now, put, refused, was_killed};

/// Within this time every archiver has looked, however busy the machine is.
const LOOKED: Duration = Duration::from_secs(2);

#[test]
fn a_tag_holds_in_every_shard_what_was_acknowledged_before_and_nothing_that_was_begun_after() {
    let shop = Shop::new(100);
    let service = shop.run();
    let writer = Writer::start(shop.open(), 100);
    let mut tags = Vec::new();
    for round in 0..4 {
        std::thread::sleep(Duration::from_millis(300));
        let name = format!("t{round}");
        let before = writer.acknowledged();
        let tag = shop.tag(&name);
        tags.push((name, before, writer.begun(), tag));
    }
    // A moment at which nobody writes.
    let resting = writer.rest();
    std::thread::sleep(LOOKED);
    let quiet = now();
    std::thread::sleep(LOOKED);
    writer.go_on();
    std::thread::sleep(Duration::from_millis(500));
    shop.tag("end");
    let (dbs, all) = writer.stop();
    service.stop();
    drop(dbs);

    for (name, before, after, tag) in &tags {
        assert_eq!(tag["members"].as_array().map(Vec::len), Some(3), "{tag}");
        let into = shop.path(&format!("restored-{name}"));
        let plan = json(&mut shop.group(&["plan", "--to-tag", name]));
        assert_eq!(plan["tag"]["id"], tag["id"], "{plan}");
        let restored = json(&mut shop.group(&["restore", "--to-tag", name, "--into", text(&into)]));
        let held = shop.held(&into);
        for (shard, held) in held.iter().enumerate() {
            assert!((*before..=*after).contains(held), "{name}: shard {shard} has {held} of {before}..={after}");
            let at = &restored["members"][shard]["report"]["position"];
            assert_eq!(at["sequence"], plan["members"][shard]["plan"]["position"]["sequence"]);
        }
        assert!(*after < all, "the writer went on");
        assert_eq!(fs::read_dir(&into).expect("the copies").count(), 3, "nothing else is left there");
    }

    let into = shop.path("quiet");
    let plan = json(&mut shop.group(&["plan", "--to-time", &quiet]));
    assert!(plan["common"].is_object(), "nobody wrote then: {plan}");
    json(&mut shop.group(&["restore", "--to-time", &quiet, "--into", text(&into)]));
    assert_eq!(shop.held(&into), [resting; 3]);

    let listed = json(&mut shop.group(&["tag", "list"]));
    let complete = |tag: &Value| tag["complete"] == true && tag["members"].as_array().map(Vec::len) == Some(3);
    assert_eq!(listed["tags"].as_array().map(|tags| (tags.len(), tags.iter().all(complete))), Some((5, true)));
    json(&mut shop.group(&["tag", "delete", "t0"]));
    assert!(SHARDS.iter().all(|shard| !shop.tags(shard).contains(&"t0".to_owned())));
}

#[test]
fn a_restore_of_a_part_is_refused_names_every_shard_at_fault_and_touches_nothing() {
    let shop = Shop::new(40);
    let service = shop.run();
    let dbs = shop.open();
    std::thread::sleep(LOOKED);
    let observed = now();
    std::thread::sleep(LOOKED);
    dbs.iter().for_each(|db| (40..50).for_each(|number| put(db, number)));
    drop(dbs);
    for name in ["whole", "two", "again"] {
        shop.tag(name);
    }
    // Of one shard the tag is another group tag's.
    let alone = shop.configure("alone.toml", &["shop-1"], "");
    let delete = |name: &str, shard: &str| {
        json(&mut pitr(["tag", "delete", name, "--json", "--archive", &url(&shop.archive(shard))]));
    };
    delete("again", "shop-1");
    json(&mut group_of(&alone, &["tag", "create", "again"]));
    delete("two", "shop-0");
    delete("two", "shop-2");
    service.stop();

    let into = shop.path("into");
    let check = |config: &Path, target: &[&str], faults: &[&str], says: &str| {
        for verb in [&["plan"][..], &["restore", "--into", text(&into)], &["restore", "--in-place"]] {
            let e = refused(&mut group_of(config, &[verb, target].concat()));
            assert_eq!((e["code"].as_str(), e["exit"].as_u64()), (Some("group.incomplete"), Some(3)), "{e}");
            assert_eq!(named(&e), faults, "{e}");
            assert!(e["message"].as_str().is_some_and(|message| message.contains(says)), "{says}: {e}");
        }
        let beside = fs::read_dir(shop.dir.path()).expect("the directory").flatten();
        let left: Vec<_> = beside.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let touched = |name: &&String| name.contains(".before-") || name.contains("restoring") || *name == "into";
        assert_eq!(left.iter().find(touched), None);
        assert_eq!(shop.held(shop.dir.path()), [50; 3]);
    };
    let whole = ["--to-tag", "whole"];
    check(&shop.config, &["--to-tag", "nothing"], &SHARDS, "no such tag");
    check(&shop.config, &["--to-tag", "two"], &["shop-0", "shop-2"], "no such tag");
    check(&shop.config, &["--to-tag", "again"], &["shop-1"], "another moment");

    let less = shop.configure("less.toml", &SHARDS[..2], "");
    check(&less, &whole, &["shop-2"], "the configuration lacks it");
    let other = shop.path("shop-3");
    put(&rocksdb::DB::open_default(&other).expect("a database"), 0);
    json(&mut pitr(["run", "--once", "--json", "--db", text(&other), "--archive", &url(&shop.archive("shop-3"))]));
    let more = shop.configure("more.toml", &["shop-0", "shop-1", "shop-2", "shop-3"], "");
    check(&more, &whole, &["shop-3"], "not in the group");
    let sections = [("shop-0", "shop-0"), ("shop-1", "shop-1"), ("shard-2", "shop-2")];
    let renamed: String = sections.iter().map(|(name, shard)| shop.section(name, shard)).collect();
    check(&shop.write("renamed.toml", &renamed), &whole, &["shard-2"], "called shop-2");
    let swapped = [("shop-0", "shop-1"), ("shop-1", "shop-0"), ("shop-2", "shop-2")];
    let swapped: String = swapped.iter().map(|(name, shard)| shop.section(name, shard)).collect();
    check(&shop.write("swapped.toml", &swapped), &whole, &["shop-0", "shop-1"], "another one");

    let gone = shop.path("gone");
    fs::rename(shop.archive("shop-1"), &gone).expect("an archive");
    check(&shop.config, &whole, &["shop-1"], "");
    check(&shop.config, &["--to-time", &observed], &["shop-1"], "");
    check(&shop.config, &["--to-time", "2001-01-01T00:00:00Z"], &SHARDS, "");
    fs::rename(&gone, shop.archive("shop-1")).expect("an archive");

    // Not in the archives, but in the places.
    fs::create_dir_all(into.join("shop-2/data")).expect("a directory");
    let e = refused(&mut shop.group(&["restore", "--into", text(&into), "--to-tag", "whole"]));
    assert_eq!((e["code"].as_str(), named(&e)), (Some("group.incomplete"), vec!["shop-2".to_owned()]), "{e}");
    assert_eq!(fs::read_dir(&into).expect("the directory").count(), 1);
    fs::remove_dir_all(&into).expect("a directory");
    let server = shop.open().remove(1);
    let e = refused(&mut shop.group(&["restore", "--in-place", "--to-tag", "whole"]));
    assert_eq!((e["code"].as_str(), named(&e)), (Some("group.incomplete"), vec!["shop-1".to_owned()]), "{e}");
    drop(server);

    for (target, says) in [
        (&["--to-latest"][..], "no common moment"),
        (&["--to-seq", "5"], "another moment in each"),
        (&["--to-record", "5"], "another moment in each"),
        (&["--to-tag", "whole", "--timeline", "1"], "its own"),
    ] {
        let e = refused(&mut shop.group(&[&["plan"], target].concat()));
        assert!(e["code"] == "usage" && e["message"].as_str().is_some_and(|m| m.contains(says)), "{e}");
    }
    json(&mut shop.group(&["restore", "--into", text(&into), "--to-tag", "whole"]));
    assert_eq!(shop.held(&into), [50; 3]);
}

/// Shards with the tags `before`, of 40 numbers, and `after`, of the 60 that they hold now; no server and no archiver runs.
fn of_sixty() -> Shop {
    let shop = Shop::new(20);
    let service = shop.run();
    let dbs = shop.open();
    let add = |from, to| dbs.iter().for_each(|db| (from..to).for_each(|number| put(db, number)));
    add(20, 40);
    shop.tag("before");
    add(40, 60);
    shop.tag("after");
    service.stop();
    drop(dbs);
    shop
}

/// What the reports of a restore say that was laid down.
fn laid_down(restored: &Value) -> u64 {
    let members = restored["members"].as_array().expect("members");
    members.iter().map(|member| member["report"]["file_bytes"].as_u64().expect("bytes")).sum()
}

#[test]
fn wherever_a_restore_in_place_is_killed_every_shard_is_whole_and_the_same_command_finishes_all_of_them() {
    let shop = of_sixty();
    let restore = ["restore", "--to-tag", "before", "--in-place"];
    let mut met = BTreeSet::new();
    let points = GROUP_POINTS.iter().flat_map(|point| (1..=3).map(move |count| (*point, count)));
    let swaps = [("swap-recorded", 2), ("swap-exchanged", 2), ("swap-aside", 3), ("restore-records-written", 2)];
    for (point, count) in points.chain(swaps) {
        let killed = finish(shop.group(&restore).env("PITR_CRASH_AT", format!("{point}:{count}")));
        if !was_killed(&killed) {
            assert!(killed.status.success(), "{point}:{count}: {}", String::from_utf8_lossy(&killed.stderr));
            assert_eq!(shop.held(shop.dir.path()), [40; 3]);
        } else {
            met.insert(point);
            let held = shop.held(shop.dir.path());
            assert!(held.iter().all(|held| [40, 60].contains(held)), "{point}:{count}: {held:?}");
            let exchanged = held.iter().filter(|held| **held == 40).count();
            let expected = match point {
                "group-between" => count,
                "group-published" => 3,
                "swap-exchanged" | "swap-aside" => count,
                "swap-recorded" => 1,
                _ => 0,
            };
            assert_eq!(exchanged, expected, "{point}:{count}");
            let restored = json(&mut shop.group(&restore));
            assert_eq!(shop.held(shop.dir.path()), [40; 3], "{point}:{count}");
            let aside = |member: &Value| member["report"]["aside"].as_array().map(Vec::len);
            assert!(restored["members"].as_array().expect("members").iter().all(|m| aside(m) == Some(1)), "{restored}");
            if point.starts_with("group-") && point != "group-prepared-one" || point.starts_with("swap-") {
                assert_eq!(laid_down(&restored), 0, "{point}:{count}: all were complete: {restored}");
            }
        }
        json(&mut shop.group(&["rollback"]));
        assert_eq!(shop.held(shop.dir.path()), [60; 3], "{point}:{count}");
        json(&mut shop.group(&["settle", "--discard"]));
        let hidden = fs::read_dir(shop.dir.path()).expect("the directory").flatten();
        let hidden: Vec<_> =
            hidden.map(|entry| entry.file_name()).filter(|name| text(Path::new(name)).starts_with('.')).collect();
        assert!(hidden.is_empty(), "{point}:{count}: {hidden:?}");
    }
    assert!(GROUP_POINTS.iter().all(|point| met.contains(point)), "{met:?}");
}

#[test]
fn a_restore_aside_that_was_killed_between_two_names_goes_on_and_one_to_another_moment_does_not() {
    let shop = of_sixty();
    for (point, count) in [("group-prepared-one", 2), ("group-prepared", 1), ("group-between", 1), ("group-between", 2)]
    {
        let into = shop.path(&format!("{point}-{count}"));
        let restore = ["restore", "--to-tag", "before", "--into", text(&into)];
        let killed = finish(shop.group(&restore).env("PITR_CRASH_AT", format!("{point}:{count}")));
        assert!(was_killed(&killed), "{point}:{count}: {}", String::from_utf8_lossy(&killed.stderr));
        let there = SHARDS.iter().filter(|shard| into.join(shard).exists()).count();
        assert_eq!(there, if point == "group-between" { count } else { 0 });
        if there > 0 {
            let e = refused(&mut shop.group(&["restore", "--to-tag", "after", "--into", text(&into)]));
            assert_eq!(named(&e), &SHARDS[..there], "{e}");
        }
        json(&mut shop.group(&restore));
        assert_eq!(shop.held(&into), [40; 3], "{point}:{count}");
        assert_eq!(fs::read_dir(&into).expect("the copies").count(), 3);
        let e = refused(&mut shop.group(&restore));
        assert_eq!(named(&e), SHARDS, "it has ended: {e}");
    }
}

#[test]
fn rolling_back_brings_all_shards_to_the_same_side_also_when_one_is_there_already() {
    let shop = of_sixty();
    json(&mut shop.group(&["restore", "--to-tag", "before", "--in-place"]));
    json(&mut pitr(["rollback", text(&shop.path("shop-1")), "--json"]));
    assert_eq!(shop.held(shop.dir.path()), [40, 60, 40]);
    let back = json(&mut shop.group(&["rollback"]));
    assert_eq!((&back["restored"], back["members"][1]["aside"].as_array().map(Vec::len)), (&false.into(), Some(0)));
    assert_eq!(shop.held(shop.dir.path()), [60; 3]);
    assert_eq!(json(&mut shop.group(&["rollback"]))["restored"], true);
    assert_eq!(shop.held(shop.dir.path()), [40; 3]);
    json(&mut pitr(["settle", text(&shop.path("shop-2")), "--keep", "--json"]));
    let e = refused(&mut shop.group(&["rollback"]));
    assert_eq!(named(&e), ["shop-2"], "{e}");
    json(&mut shop.group(&["settle", "--keep"]));
    assert_eq!(shop.held(shop.dir.path()), [40; 3]);
    for verb in [&["settle", "--keep"][..], &["rollback"]] {
        assert_eq!(refused(&mut shop.group(verb))["code"], "restore.nothing-aside");
    }
}

#[test]
fn a_rollback_that_would_bring_shards_to_different_moments_is_refused_and_names_each() {
    let shop = of_sixty();
    let restore = ["restore", "--to-tag", "before", "--in-place"];
    let killed = finish(shop.group(&restore).env("PITR_CRASH_AT", "group-between:1"));
    assert!(was_killed(&killed), "{}", String::from_utf8_lossy(&killed.stderr));
    // Somebody starts the one server whose database is in its place already.
    put(&DB::open_default(shop.path("shop-0")).expect("a restored database"), 40);
    assert_eq!(shop.held(shop.dir.path()), [41, 60, 60]);
    json(&mut shop.group(&restore));
    // It had gone on, so it was restored once more than the others: what was there before that never was in them.
    assert_eq!(shop.held(shop.dir.path()), [40; 3]);
    let e = refused(&mut shop.group(&["rollback"]));
    assert_eq!((e["code"].as_str(), named(&e)), (Some("group.incomplete"), SHARDS.map(str::to_owned).to_vec()), "{e}");
    assert!(e["hint"].as_str().is_some_and(|hint| hint.contains("pitr rollback DIR")), "{e}");
    assert_eq!(shop.held(shop.dir.path()), [40; 3], "nothing was touched");
}

/// No shard has a part of the tag, and nobody restores to it.
/// A shard whose log becomes tables, as far as its segments tell, and shows only when it is read that it cannot: too many deleted
/// ranges for memory. Nobody asked for tables.
#[test]
fn where_no_tables_can_be_made_of_one_shard_its_log_is_replayed() {
    let shop = Shop::new(20);
    let service = shop.run();
    let dbs = shop.open();
    let key = |number: usize, end: u8| [format!("zz{number:03}").into_bytes(), vec![end; 400_000]].concat();
    for number in 0..100 {
        let mut batch = rocksdb::WriteBatch::default();
        batch.delete_range(key(number, b'a'), key(number, b'b'));
        dbs[1].write(batch).expect("a write");
    }
    dbs.iter().for_each(|db| put(db, 20));
    drop(dbs);
    shop.tag("ranges");
    service.stop();
    let into = shop.path("into");
    let plan = json(&mut shop.group(&["plan", "--to-tag", "ranges"]));
    let engines: Vec<_> = (0..3).map(|shard| plan["members"][shard]["plan"]["engine"]["name"].clone()).collect();
    assert_eq!(engines, ["native", "bulk", "native"], "{}", plan["members"][1]);
    json(&mut shop.group(&["restore", "--to-tag", "ranges", "--into", text(&into)]));
    assert_eq!(shop.held(&into), [21; 3]);
    // The same of one alone.
    let alone = shop.path("alone");
    let archive = url(&shop.archive("shop-1"));
    let restore = |engine: &str| {
        let args = ["restore", "--json", "--to-tag", "ranges", "--into", text(&alone), "--archive", &archive];
        let mut command = pitr(args);
        command.args(["--engine", engine]);
        command
    };
    assert_eq!(refused(&mut restore("bulk"))["code"], "engine.unusable");
    json(&mut restore("auto"));
    assert_eq!(held(&alone), 21);
}

fn assert_no_tag(shop: &Shop, name: &str, context: &str) {
    for shard in SHARDS {
        assert!(!shop.tags(shard).contains(&name.to_owned()), "{context}: {shard} has a part of {name}");
    }
    assert_eq!(refused(&mut shop.group(&["plan", "--to-tag", name]))["code"], "group.incomplete");
}

#[test]
fn where_one_shard_cannot_be_tagged_no_shard_keeps_the_tag() {
    let shop = Shop::new(30);
    let dbs = shop.open();
    let services: Vec<_> = ["shop-0", "shop-2"].iter().map(|shard| shop.run_one(shard, None)).collect();

    let e = refused(&mut shop.group(&["tag", "create", "none"]));
    assert_eq!((e["code"].as_str(), named(&e)), (Some("group.not-tagged"), vec!["shop-1".to_owned()]), "{e}");

    // Its archiver dies while it makes the tag: before it is there, and behind.
    for point in ["tag-before-put", "tag-after-put"] {
        let dying = shop.run_one("shop-1", Some(point));
        let e = refused(&mut shop.group(&["tag", "create", point]));
        assert_eq!((e["code"].as_str(), named(&e)), (Some("group.not-tagged"), vec!["shop-1".to_owned()]), "{e}");
        drop(dying);
        assert_no_tag(&shop, point, point);
    }

    // There is another tag of this name: that one stays.
    let service = shop.run_one("shop-1", None);
    json(&mut pitr(["tag", "create", "taken", "--db", text(&shop.path("shop-1")), "--json"]));
    let e = refused(&mut shop.group(&["tag", "create", "taken"]));
    assert!(e["message"].as_str().is_some_and(|m| m.contains("tag.exists")) && named(&e) == ["shop-1"], "{e}");
    assert_eq!(shop.tags("shop-1"), ["taken"]);
    assert!(shop.tags("shop-0").is_empty() && shop.tags("shop-2").is_empty());

    // It answers how it is, and then no more.
    let stops = format!(
        "[groups.shop]\nbefore_tag = [\"/bin/sh\", \"-c\", \"kill -STOP {}\"]\nafter_tag = [\"/bin/sh\", \"-c\", \
         \"cat > {}\"]\n",
        service.id(),
        text(&shop.path("went-on"))
    );
    let config = shop.configure("stops.toml", &SHARDS, &stops);
    let began = Instant::now();
    let e = refused(&mut group_of(&config, &["tag", "create", "late", "--within", "10s"]));
    assert_eq!((e["code"].as_str(), named(&e)), (Some("group.not-tagged"), vec!["shop-1".to_owned()]), "{e}");
    assert!(began.elapsed() < Duration::from_secs(120));
    let told: Value = serde_json::from_slice(&fs::read(shop.path("went-on")).expect("it was told")).expect("JSON");
    assert_eq!((&told["event"], &told["tag"]), (&"after-group-tag".into(), &"late".into()));
    service.signal(Signal::CONT);
    std::thread::sleep(Duration::from_secs(1));
    assert_no_tag(&shop, "late", "its archiver goes on");

    // What shall hold the writes fails.
    let failing = format!(
        "[groups.shop]\nbefore_tag = [\"/bin/false\"]\nafter_tag = [\"/bin/sh\", \"-c\", \"echo $PITR_GROUP > {}\"]\n",
        text(&shop.path("after"))
    );
    let config = shop.configure("failing.toml", &SHARDS, &failing);
    assert_eq!(refused(&mut group_of(&config, &["tag", "create", "held"]))["code"], "hook.failed");
    assert_eq!(fs::read_to_string(shop.path("after")).expect("it ran"), "shop\n");
    assert_no_tag(&shop, "held", "the hook failed");

    let holds = "[groups.shop]\nbefore_tag = [\"/bin/true\"]\nafter_tag = [\"/bin/true\"]\n";
    let config = shop.configure("holds.toml", &SHARDS, holds);
    assert_eq!(json(&mut group_of(&config, &["tag", "create", "held"]))["held"], true);
    drop(dbs);
    service.stop();
    services.into_iter().for_each(shop::Service::stop);
}

#[test]
fn an_interrupted_tag_lets_the_application_go_on_and_leaves_nothing() {
    let shop = Shop::new(30);
    let dbs = shop.open();
    let service = shop.run();
    let (held, released) = (shop.path("held"), shop.path("released"));
    let hooks = format!(
        "[groups.shop]\nbefore_tag = [\"/bin/sh\", \"-c\", \"touch {}; sleep 30\"]\nafter_tag = [\"/bin/sh\", \"-c\", \"touch {}\"]\n",
        text(&held),
        text(&released)
    );
    let config = shop.configure("holds.toml", &SHARDS, &hooks);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut child = group_of(&config, &["tag", "create", "t"]).spawn().expect("the program starts");
        while !held.exists() {
            assert!(child.try_wait().expect("its state").is_none(), "it ended before it held the writes");
            std::thread::sleep(Duration::from_millis(10));
        }
        harness::command::signal(&child, signal);
        let status = harness::command::wait(&mut child).expect("its end");
        assert_eq!(status.code(), Some(130), "{signal:?}");
        assert_no_tag(&shop, "t", "interrupted");
        fs::remove_file(&held).expect("the application held its writes");
        fs::remove_file(&released).expect("the application was told to go on");
    }
    drop(dbs);
    service.stop();
}

/// One shard has two archives, another has an encrypted one.
#[test]
fn one_of_several_archives_of_a_shard_is_enough_and_keys_are_where_the_configuration_says() {
    let shop = Shop::new(30);
    let (far, key) = (shop.path("far"), shop.path("key"));
    fs::write(&key, "00112233445566778899aabbccddeeff".repeat(2)).expect("a key");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    let key = text(&key);
    let more =
        format!("archive.key = \"file:{key}\"\n[databases.shop-0.archives.far]\nurl = \"file:{}\"\n", text(&far));
    fs::write(&shop.config, fs::read_to_string(&shop.config).expect("the file") + &more).expect("the file");
    let dbs = shop.open();
    let service = shop.run();
    let start = Instant::now();
    while harness::command::bases(&url(&far)) == 0 {
        assert!(start.elapsed() < harness::command::LIMIT, "no base far away");
        std::thread::sleep(Duration::from_millis(50));
    }
    let tag = shop.tag("t");
    assert_eq!(tag["members"].as_array().map(Vec::len), Some(4), "{tag}");
    service.stop();
    drop(dbs);
    fs::remove_dir_all(shop.archive("shop-0")).expect("the near archive");
    let into = shop.path("into");
    let restored = json(&mut shop.group(&["restore", "--to-tag", "t", "--into", text(&into)]));
    assert_eq!(restored["members"][0]["archive"], "shop-0/far");
    assert_eq!(shop.held(&into), [30; 3]);
    assert_eq!(held(&into.join("shop-2")), 30);
}
