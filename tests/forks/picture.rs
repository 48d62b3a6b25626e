//! The picture of a history that forked, as `pitr list --timeline` and `pitr plan` draw it.

use std::{process::Command, thread, time::Duration};

use rocksdb::WriteOptions;
use serde_json::Value;

use crate::{
    harness::command::{finish, succeed, text},
    site::{Site, open, write},
};

/// Two timelines, a tag and a barrier on the first.
fn forked() -> Site {
    let site = Site::new();
    let db = open(&site.db());
    write(&db, 'a', 0..20);
    site.catch_up();
    let (place, state) = (site.db(), site.path("state"));
    succeed(&mut site.command(&["tag", "create", "before", "--db", text(&place), "--state", text(&state)]));
    // So that it can be seen.
    thread::sleep(Duration::from_millis(200));
    write(&db, 'a', 20..40);
    // What is not in the log cannot be brought back: a barrier, and a base behind it.
    let mut unlogged = WriteOptions::default();
    unlogged.disable_wal(true);
    db.put_opt(b"unlogged", b"", &unlogged).unwrap();
    write(&db, 'a', 40..50);
    site.catch_up();
    drop(db);
    site.restore_into_place(&["--to-tag", "before"], "original");
    let db = open(&site.db());
    write(&db, 'b', 20..60);
    site.catch_up();
    drop(db);
    site
}

fn drawn(command: &mut Command, locale: &str) -> String {
    let output = succeed(command.env_remove("LC_ALL").env_remove("LC_CTYPE").env("LANG", locale).env("NO_COLOR", "1"));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_history_is_drawn_with_its_branches_tags_and_barriers() {
    let site = forked();
    let unicode = drawn(&mut site.command(&["list", "--timeline"]), "C.UTF-8");
    for part in
        ["timeline 1  ", "└─ timeline 2 *  ", "before", "sequence-jump", "╳", "◆", "▾", "━", "left 1 after record 19"]
    {
        assert!(unicode.contains(part), "no {part:?} in\n{unicode}");
    }
    assert!(unicode.lines().all(|line| line.chars().count() <= 100), "{unicode}");
    assert!(unicode.contains("1 tag  1 barrier  50 records") && unicode.contains("40 records"), "{unicode}");
    let ascii = drawn(&mut site.command(&["list", "picture"]), "C");
    assert!(ascii.is_ascii() && ascii.contains("`- timeline 2 *"), "{ascii}");
    let second = drawn(&mut site.command(&["list", "picture", "--timeline", "2"]), "C.UTF-8");
    assert!(second.starts_with("timeline 2 *  ") && !second.contains("timeline 1"), "{second}");
    let tables = drawn(&mut site.command(&["list", "--timeline", "2"]), "C.UTF-8");
    assert!(tables.contains("BASE") && !tables.contains('━'), "a number selects: {tables}");

    let listed = site.json(&["list", "--timeline"]);
    assert_eq!(listed.as_object().unwrap().keys().collect::<Vec<_>>(), ["picture"], "{listed}");
    let (first, second) = (&listed["picture"]["timelines"][0], &listed["picture"]["timelines"][1]);
    assert_eq!(
        (&first["tags"][0]["name"], &first["barriers"][0]["reason"]),
        (&"before".into(), &"sequence-jump".into())
    );
    assert_eq!((&second["left"]["timeline"], &second["left"]["boundary"]), (&1.into(), &20.into()), "{second}");
    assert_eq!((&first["current"], &second["current"]), (&false.into(), &true.into()));
    let of =
        |row: &Value| row["written"].as_array().unwrap().iter().map(|w| w["records"].as_u64().unwrap()).sum::<u64>();
    assert_eq!([of(first), of(second)], [site.head(1), site.head(2) - 20]);
    let bases = site.json(&["list", "bases"])["bases"].as_array().unwrap().len();
    let shown = [first, second].map(|row| row["bases"].as_array().unwrap().len());
    assert_eq!(shown.iter().sum::<usize>(), bases);
    assert!([first, second].iter().all(|row| !row["windows"].as_array().unwrap().is_empty()), "{listed}");
}

#[test]
fn a_part_of_the_time_shows_what_lies_in_it() {
    let site = forked();
    let all = site.json(&["list", "--timeline"]);
    let began = all["picture"]["timelines"][1]["from"].as_str().unwrap();
    let part = site.json(&["list", "picture", "bases", "--from", began]);
    assert!(part["bases"].as_array().is_some_and(|bases| bases.len() > 1), "tables are not cut: {part}");
    let (first, second) = (&part["picture"]["timelines"][0], &part["picture"]["timelines"][1]);
    assert_eq!((&first["tags"], &first["written"]), (&Value::Array(vec![]), &Value::Array(vec![])), "{first}");
    assert_eq!(second["bases"], all["picture"]["timelines"][1]["bases"]);
    let text = drawn(&mut site.command(&["list", "--timeline", "--from", began]), "C.UTF-8");
    assert!(text.contains("1 timeline has nothing here"), "{text}");
    for (args, hint) in [
        (&["list", "--from", began][..], "are of the picture"),
        (&["list", "--timeline", "--from", began, "--to", "2001-01-01T00:00:00Z"], "--from is before --to"),
        (&["list", "--timeline", "--to", "2001-01-01T00:00:00Z"], "nothing was archived"),
    ] {
        let refused = finish(&mut site.command(args));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains(hint), "{args:?}: {said}");
    }
}

/// A target some time behind its base.
const REPLAYED: &[&str] = &["--to-record", "39", "--timeline", "1"];

#[test]
fn a_plan_is_drawn_with_its_base_and_its_target_for_people_only() {
    let site = forked();
    for target in [&["--to-tag", "before"][..], &["--to-latest"], REPLAYED] {
        let planned = drawn(site.command(&["plan"]).args(target), "C.UTF-8");
        for part in ["▼ target", "◉ the plan's base", "needs on disk"] {
            assert!(planned.contains(part), "{target:?}: no {part:?} in\n{planned}");
        }
        assert_eq!(planned.lines().filter(|line| line.starts_with("timeline ")).count(), 1, "{planned}");
        assert!(target != REPLAYED || planned.contains("█ replayed log"), "{planned}");
        let plan = site.json(&[&["plan"][..], target].concat());
        assert_eq!(plan.get("picture"), None, "{plan}");
    }
}
