//! Pictures of services that do not run: each renderer shows all that its picture holds, whatever that is.
//!
//! `PITR_PAGES=DIR` writes the pages there, to be looked at in a browser.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use pitr_archive::{
    Code,
    catalog::schema::Position,
    clock::{Clock, ManualClock, Micros},
    ids::{BaseId, Boundary, Epoch, RunningHash, SequenceNumber, TimelineId},
    segment::entry::BarrierReason,
    store::measured::{Failing, Meter},
};
use pitr_archiver::{Metrics, control::Status, metrics::Figures};
use quick_xml::{Reader, events::Event};

use super::{
    board::{Board, Limits, Look, PanelLook, State, Trouble},
    chores::{Chore, Chores, Measured},
    health,
    lags::{Lags, Sample},
    metrics,
    overview::{Known, Overview},
    page, server, status,
};
use crate::chronicle::{Barrier, Base, Chronicle, Tag, Window};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn now() -> Micros {
    "2026-11-21T14:32:10Z".parse::<DateTime<Utc>>().unwrap().into()
}

fn before(micros: i64) -> Micros {
    Micros(now().0 - micros)
}

fn position(records: u64) -> Position {
    Position {
        timeline: TimelineId::FIRST,
        boundary: Boundary::new(records),
        hash: RunningHash::ZERO,
        wal: None,
        offset: None,
        sequence: SequenceNumber::new(records * 3),
    }
}

fn base_id(at: Micros) -> BaseId {
    BaseId::new(at.to_datetime(), 0xabcd)
}

fn figures(last_base: Option<Micros>, oldest: Option<Micros>) -> Figures {
    Figures {
        status: Status {
            database: "/var/lib/orders/db".to_owned(),
            archive: "s3://backups/orders".to_owned(),
            archive_id: None,
            epoch: Epoch::default(),
            read: position(81_204),
            acknowledged: position(81_200),
            unacknowledged_records: 4,
            oldest_unacknowledged: oldest,
            caught_up: Some(before(20_000)),
            last_acknowledged: Some(before(oldest.map_or(SECOND, |at| now().0 - at.0))),
            last_base: last_base.map(base_id),
            base: None,
            base_due: None,
            pinned_bytes: 3 << 20,
            backlog_bytes: 5 << 30,
            time_to_full: Some(20_160),
            alarm: None,
            away: None,
            pin_delay: None,
            base_waits: None,
            barriers: 0,
            waiting: None,
            now: before(SECOND / 2),
        },
        free_bytes: 40 << 30,
    }
}

fn panel(database: &str, figures: Option<Figures>, overview: Option<Overview>, lags: Vec<Sample>) -> PanelLook {
    let meter = Meter::new(Arc::new(ManualClock::new(now())));
    PanelLook {
        database: database.to_owned(),
        archive: format!("s3://backups/{database}"),
        state: State::Running,
        figures: figures.map(Arc::new),
        counts: Metrics::default().counts(),
        store: meter.read(),
        overview: overview.map(Arc::new),
        lags,
        chores: Chores::default(),
        drilled: None,
    }
}

fn look(panels: Vec<PanelLook>) -> Look {
    Look { now: now(), began: before(3 * DAY), limits: Limits::default(), panels }
}

fn empty() -> Overview {
    Overview {
        at: before(40 * SECOND),
        took: Duration::from_millis(20),
        known: Known::default(),
        findings: 0,
        chronicle: Chronicle {
            timelines: vec![TimelineId::FIRST],
            current: Some(TimelineId::FIRST),
            ..Chronicle::default()
        },
        segments: 12_345,
        bytes: 7 << 30,
    }
}

fn with(chronicle: Chronicle) -> Overview {
    Overview { chronicle, ..empty() }
}

fn base(at: Micros) -> Base {
    Base { id: base_id(at), created: at, timeline: TimelineId::FIRST, floor: Boundary::new(7) }
}

fn tag(name: &str, at: Micros, note: &str) -> Tag {
    let (timeline, boundary) = (TimelineId::FIRST, Boundary::new(99));
    Tag { name: name.to_owned(), created: at, timeline, boundary, note: note.to_owned() }
}

fn barrier(reason: BarrierReason, at: Micros, detail: &str) -> Barrier {
    let (timeline, boundary) = (TimelineId::FIRST, Boundary::new(50));
    Barrier { noticed: at, timeline, boundary, reason, detail: detail.to_owned() }
}

fn window(from: Micros, to: Option<Micros>) -> Window {
    Window { timeline: TimelineId::FIRST, from, to: to.or(Some(before(5 * MINUTE))), open: to.is_none() }
}

/// Right after the first start.
fn fresh() -> Look {
    let began = before(95 * SECOND);
    let overview = with(Chronicle {
        bases: vec![base(before(90 * SECOND))],
        windows: vec![window(before(90 * SECOND), None)],
        ..empty().chronicle
    });
    let mut lags = Lags::default();
    lags.note(before(60 * SECOND), Duration::from_millis(400));
    lags.note(now(), Duration::from_millis(700));
    let panel =
        panel("orders", Some(figures(Some(before(90 * SECOND)), None)), Some(overview), lags.since_a_day(now()));
    Look { began, ..look(vec![panel]) }
}

/// Four days with two barriers, some tags close to each other, and names that try to get out.
fn eventful() -> Look {
    let days = |n: f64| before((n * DAY as f64) as i64);
    let overview = with(Chronicle {
        bases: [3.9, 3.0, 2.05, 1.2, 1.0, 0.42, 0.41, 0.1].map(|d| base(days(d))).to_vec(),
        tags: vec![
            tag("first-import", days(3.7), ""),
            tag("nightly-2026-11-19", days(2.6), "end of day"),
            tag("release-4.1", days(1.6), ""),
            tag("nightly-2026-11-20", days(1.58), "end of day"),
            tag("before-migration", days(0.55), "release 4.2 <script>alert(1)</script>"),
            tag("migration-step-1", days(0.545), ""),
            tag("migration-step-2-with-quite-a-long-name-nobody-shortened", days(0.54), ""),
            tag("migration-done", days(0.53), "a \"quoted\" & 'odd' note"),
            tag("demo", days(0.02), ""),
        ],
        barriers: vec![
            barrier(BarrierReason::SequenceJump, days(2.1), "writes with disableWAL: 4711 to 4999"),
            barrier(BarrierReason::RecordsMissing, days(0.46), "000123.log is gone & nobody saw <it>"),
            barrier(BarrierReason::ChangeOutsideWal, days(0.425), "one file ingested"),
        ],
        windows: vec![
            window(days(3.9), Some(days(2.1))),
            window(days(2.05), Some(days(0.46))),
            window(days(0.42), None),
        ],
        ..empty().chronicle
    });
    let mut lags = Lags::default();
    for minute in (0..1_440).rev() {
        // Nobody looked for a while.
        if !(600..=640).contains(&minute) {
            let wave = (minute as f64 / 50.0).sin().abs() * 3.0;
            let hill = if (200..230).contains(&minute) { (230 - minute) as f64 * 6.0 } else { 0.0 };
            lags.note(before(minute * MINUTE), Duration::from_secs_f64(wave + hill + 0.4));
        }
    }
    look(vec![panel("orders", Some(figures(Some(days(0.1)), None)), Some(overview), lags.since_a_day(now()))])
}

/// A store that is away, a database that is given up, and one that is only opened.
fn troubled() -> Look {
    let hours = |n: f64| before((n * HOUR as f64) as i64);
    let overview = with(Chronicle {
        bases: vec![base(hours(30.0)), base(hours(6.0))],
        windows: vec![window(hours(30.0), None)],
        ..empty().chronicle
    });
    let mut lags = Lags::default();
    for minute in (0..1_440).rev() {
        let lag = if minute < 42 { (42 - minute) as f64 * 60.0 } else { 0.8 };
        lags.note(before(minute * MINUTE), Duration::from_secs_f64(lag));
    }
    let away = figures(Some(hours(6.0)), Some(before(42 * MINUTE)));
    let mut lagging = panel("orders", Some(away), Some(overview), lags.since_a_day(now()));
    let message = "creating the object segments/1/12: the object store did not answer as it should: connection refused";
    let failing = Failing { since: before(41 * MINUTE), code: Code::StoreUnavailable, message: message.to_owned() };
    lagging.store.failing = Some(failing);
    let unreachable = pitr_archive::Error::new(Code::StoreUnavailable, "listing manifests");
    lagging.chores.note(Chore::Prune, before(30 * MINUTE), Err(&unreachable));
    lagging.chores.note(Chore::Verify, before(DAY), Ok(()));
    lagging.drilled = Some(Measured {
        at: before(2 * DAY),
        restore: Duration::from_millis(12_500),
        estimated: None,
        at_risk: Some(Duration::from_secs(3)),
    });
    let mut given_up = panel("sessions", None, None, Vec::new());
    let trouble = pitr_archive::Error::new(Code::KeyRequired, "opening the archive");
    given_up.state = State::GivenUp(Trouble::from(&trouble));
    let mut opening = panel("mail", None, None, Vec::new());
    opening.state = State::Opening;
    look(vec![lagging, given_up, opening])
}

fn all() -> [(&'static str, Look); 3] {
    [("fresh", fresh()), ("eventful", eventful()), ("troubled", troubled())]
}

/// Reads a document to its end: every element is closed by its own name, every attribute quoted and given once, every entity
/// known. Answers its text and its attributes.
fn well_formed(document: &str) -> String {
    let mut reader = Reader::from_str(document);
    reader.config_mut().expand_empty_elements = true;
    let (mut depth, mut words) = (0, String::new());
    loop {
        match reader.read_event().unwrap_or_else(|e| panic!("at {}: {e}", reader.buffer_position())) {
            Event::Start(element) => {
                depth += 1;
                for attribute in element.attributes() {
                    let attribute = attribute.unwrap_or_else(|e| panic!("{element:?}: {e}"));
                    assert!(!attribute.value.contains('<'), "{element:?}");
                }
            }
            Event::End(_) => depth -= 1,
            Event::Text(text) => words.push_str(&text),
            Event::GeneralRef(entity) => {
                let name = entity.to_string();
                let c = match name.as_str() {
                    "amp" => '&',
                    "lt" => '<',
                    "gt" => '>',
                    "quot" => '"',
                    _ => entity.resolve_char_ref().expect("a number").unwrap_or_else(|| panic!("&{name};")),
                };
                words.push(c);
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(depth, 0, "something is left open");
    words
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn the_page_is_well_formed_and_shows_every_base_tag_barrier_and_window() {
    for (name, look) in all() {
        let page = page::render(&look).unwrap();
        if let Some(dir) = std::env::var_os("PITR_PAGES") {
            std::fs::write(std::path::Path::new(&dir).join(format!("{name}.html")), &page).unwrap();
        }
        let words = well_formed(&page);
        let mut overviews = look.panels.iter().filter_map(|p| p.overview.as_deref());
        let pictures = |days: i64| move |at: Micros| 1 + usize::from(days >= 2 && at.0 >= before(DAY).0);
        let Some(o) = overviews.next().map(|o| &o.chronicle) else { continue };
        let days = (now().0 - o.bases[0].created.0) / DAY;
        let times = pictures(days);
        let drawn = |class: &str| count(&page, &format!("<g class=\"{class}\"><title>"));
        assert_eq!(drawn("base"), o.bases.iter().map(|b| times(b.created)).sum::<usize>(), "{name}");
        assert_eq!(drawn("tag"), o.tags.iter().map(|t| times(t.created)).sum::<usize>(), "{name}");
        assert_eq!(drawn("barrier"), o.barriers.iter().map(|b| times(b.noticed)).sum::<usize>(), "{name}");
        assert!(count(&page, "<rect class=\"window\"") >= o.windows.len(), "{name}");
        for part in o.bases.iter().map(|b| b.id.as_str()).chain(o.tags.iter().map(|t| t.name.as_str())) {
            assert!(words.contains(part), "{name}: {part}");
        }
        for part in o.barriers.iter().map(|b| &b.detail).chain(o.tags.iter().map(|t| &t.note)) {
            assert!(words.contains(part.as_str()), "{name}: {part}");
        }
        assert!(!page.contains("<script") && !page.contains("http://1") && !page.contains(" src="), "{name}");
    }
}

#[test]
fn the_page_says_first_what_is_wrong() {
    let words = well_formed(&page::render(&troubled()).unwrap());
    for part in [
        "4 problems in 3 archives",
        "connection refused",
        "key.required",
        "given up",
        "Disk full in",
        "opening",
        "scheduled prune failed 30 min ago",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let words = well_formed(&page::render(&fresh()).unwrap());
    assert!(words.contains("All protected: 1 archive up to date"), "{words}");
}

#[test]
fn readiness_has_a_reason_for_everything_that_is_not_protected() {
    let reasons = |look: &Look| -> Vec<_> {
        let all = health::not_ready(look);
        all.iter().map(|r| format!("{} {}", r.database, r.reason)).collect()
    };
    assert_eq!(reasons(&fresh()), [""; 0]);
    assert_eq!(reasons(&troubled()), ["orders store", "orders lag", "sessions state", "mail state"]);

    let mut late = fresh();
    late.limits.max_base_age = Some(Duration::from_secs(60));
    assert_eq!(reasons(&late), ["orders base-age"]);
    let mut cut_off = fresh();
    let windows = vec![window(before(90 * SECOND), Some(before(60 * SECOND)))];
    let closed = with(Chronicle { windows, ..empty().chronicle });
    cut_off.panels[0].overview = Some(Arc::new(closed));
    assert_eq!(reasons(&cut_off), ["orders gap"]);
    cut_off.panels[0].counts.bases = 1;
    assert_eq!(reasons(&cut_off), [""; 0], "the base that was published since may end it");
    let mut bare = fresh();
    let mut told = figures(None, None);
    told.status.waiting = Some("the log is damaged".to_owned());
    told.status.alarm = Some("the budget of 1 GiB".to_owned());
    bare.panels[0].figures = Some(Arc::new(told));
    assert_eq!(reasons(&bare), ["orders limit", "orders waiting", "orders no-base"]);
    bare.panels[0].figures = None;
    assert_eq!(reasons(&bare), ["orders state"]);

    // One that could not be made is no damage.
    let mut damaged = fresh();
    for (code, expected) in [(Code::StoreUnavailable, &[][..]), (Code::VerifyFailed, &["orders damage"])] {
        let e = pitr_archive::Error::new(code, "verifying the archive");
        damaged.panels[0].chores.note(Chore::Verify, now(), Err(&e));
        assert_eq!(reasons(&damaged), expected);
    }
    let mut drilled = fresh();
    for (code, expected) in [
        (Code::DestinationTooSmall, &[][..]),
        (Code::DrillFailed, &["orders drill"]),
        (Code::ObjectDamaged, &["orders drill"]),
    ] {
        drilled.panels[0].chores.note(Chore::Drill, now(), Err(&pitr_archive::Error::new(code, "drilling")));
        assert_eq!(reasons(&drilled), expected);
    }
}

#[test]
fn health_fails_only_where_a_new_process_would_do_better() {
    assert_eq!(
        health::not_healthy(&troubled()),
        [],
        "neither a store that is away nor a missing key passes by a restart"
    );
    let mut look = fresh();
    look.panels[0].counts.alive_at = Some(before(9 * MINUTE));
    assert_eq!(health::not_healthy(&look), []);
    look.panels[0].counts.alive_at = Some(before(11 * MINUTE));
    assert_eq!(health::not_healthy(&look)[0].reason, "hangs");
    look.panels[0].state = State::Died;
    assert_eq!(health::not_healthy(&look)[0].reason, "died");
}

#[test]
fn what_is_restorable_ends_where_a_barrier_that_is_not_in_the_overview_may_stand() {
    let mut look = fresh();
    let (from, to) = look.panels[0].restorable(now()).unwrap();
    assert_eq!((from, to), (before(90 * SECOND), now()));
    look.panels[0].counts.barriers.insert(BarrierReason::Reuse, 1);
    let (_, to) = look.panels[0].restorable(now()).unwrap();
    assert!(to <= before(90 * SECOND), "only what the catalog itself told: {to}");
}

#[test]
fn the_catalog_is_read_again_for_news_and_not_in_steady_state() {
    use super::overview::StorePlace::{Local, Remote};
    let (mut overview, quiet) = (empty(), Metrics::default().counts());
    let mut news = quiet.clone();
    news.tags = 1;
    overview.at = before(10 * SECOND);
    assert!(!overview.is_due(now(), &quiet, Local) && overview.is_due(now(), &news, Local));
    assert!(!overview.is_due(now(), &news, Remote), "requests cost money");
    overview.at = before(5 * MINUTE);
    assert!(overview.is_due(now(), &news, Remote));
    overview.took = Duration::from_secs(10);
    assert!(!overview.is_due(now(), &news, Remote), "reading it must stay a small part of all work");
    overview.at = before(5 * HOUR);
    assert!(!overview.is_due(now(), &quiet, Remote));
    overview.at = before(6 * HOUR);
    assert!(overview.is_due(now(), &quiet, Remote), "others delete tags, and prune");
    overview.at = Micros(now().0 + HOUR);
    assert!(overview.is_due(now(), &quiet, Remote), "the clock went back");
}

/// Reads Prometheus' text as far as we write it: names, escaped labels, numbers. Answers what has a value.
pub fn parse_metrics(text: &str) -> Vec<(String, f64)> {
    let mut types = std::collections::BTreeMap::new();
    let mut values = Vec::new();
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (kind, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{line}");
            match kind {
                "TYPE" => assert!(types.insert(name.to_owned(), rest.to_owned()).is_none(), "twice: {line}"),
                "HELP" => assert!(!rest.is_empty(), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let name = series.split('{').next().unwrap();
        let suffixes =
            [("counter", "_total"), ("histogram", "_sum"), ("histogram", "_count"), ("histogram", "_bucket")];
        let declared = types.get(name).is_some_and(|kind| kind == "gauge")
            || suffixes.iter().any(|(kind, suffix)| {
                name.strip_suffix(suffix).is_some_and(|name| types.get(name).is_some_and(|k| k == kind))
            });
        assert!(declared, "of no declared kind: {line}");
        if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            assert!(labels.starts_with('{') && labels.ends_with("\"}") && !labels.contains('\n'), "{line}");
        }
        values.push((series.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}"))));
    }
    let mut names: Vec<_> = values.iter().map(|(series, _)| series).collect();
    names.sort();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a series twice");
    values
}

#[test]
fn metrics_are_what_prometheus_reads_and_have_both_labels() {
    let mut look = eventful();
    look.panels[0].database = "a \"b\" \\ c\nd".to_owned();
    let values = parse_metrics(&metrics::render(look).unwrap());
    let value = |series: &str| values.iter().find(|(s, _)| s == series).map(|(_, v)| *v);
    let labels = r#"database="a \"b\" \\ c\nd",archive="s3://backups/orders""#;
    assert_eq!(value("pitr_ready"), Some(1.0));
    assert_eq!(value(&format!("pitr_lag_seconds{{{labels}}}")), Some(0.0));
    assert_eq!(value(&format!("pitr_base_age_seconds{{{labels}}}")), Some(8_640.0));
    assert_eq!(value(&format!("pitr_archiver_state{{{labels},state=\"running\"}}")), Some(1.0));
    assert_eq!(value(&format!("pitr_archive_barriers{{{labels},reason=\"records-missing\"}}")), Some(1.0));
    assert_eq!(value(&format!("pitr_restorable_window_seconds{{{labels}}}")), Some(36_288.0));
    assert_eq!(value(&format!("pitr_time_to_full_seconds{{{labels}}}")), None, "not behind");
    assert_eq!(value(&format!("pitr_delivery_duration_seconds_bucket{{le=\"+Inf\",{labels}}}")), Some(0.0));

    let values = parse_metrics(&metrics::render(troubled()).unwrap());
    let labels = r#"database="orders",archive="s3://backups/orders""#;
    let value = |series: String| values.iter().find(|(s, _)| *s == series).map(|(_, v)| *v);
    assert_eq!(value(format!("pitr_lag_seconds{{{labels}}}")), Some(2_520.0));
    assert_eq!(value(format!("pitr_store_failing_seconds{{{labels}}}")), Some(2_460.0));
    assert_eq!(value(format!("pitr_time_to_full_seconds{{{labels}}}")), Some(20_159.5));
    let scheduled =
        |chore, outcome| value(format!("pitr_scheduled_total{{{labels},chore=\"{chore}\",outcome=\"{outcome}\"}}"));
    assert_eq!((scheduled("prune", "failed"), scheduled("verify", "succeeded")), (Some(1.0), Some(1.0)));
    assert_eq!(scheduled("base", "failed"), None, "it was never due");
    let at = value(format!("pitr_scheduled_success_timestamp_seconds{{{labels},chore=\"verify\"}}"));
    assert_eq!(at, Some(before(DAY).0 as f64 / 1e6));
    let drilled = |what: &str| value(format!("pitr_drill_{what}_seconds{{{labels}}}"));
    assert_eq!((drilled("restore"), drilled("data_at_risk"), drilled("estimated")), (Some(12.5), Some(3.0), None));
}

#[test]
fn the_json_holds_the_same() {
    let json: serde_json::Value = serde_json::from_str(&status::render(&eventful()).unwrap()).unwrap();
    let one = &json["archivers"][0];
    assert_eq!((&json["ready"], &one["database"], &one["state"]), (&true.into(), &"orders".into(), &"running".into()));
    assert_eq!(one["catalog"]["tags"].as_array().map(Vec::len), Some(9));
    assert_eq!(one["catalog"]["barriers"][1]["reason"], "records-missing");
    assert_eq!(one["archiver"]["acknowledged"]["sequence"], 243_600);
    let json: serde_json::Value = serde_json::from_str(&status::render(&troubled()).unwrap()).unwrap();
    assert_eq!(json["archivers"][1]["error"]["code"], "key.required");
    assert_eq!(json["archivers"][0]["store"]["failing"]["code"], "store.unavailable");
    assert_eq!(json["reasons"].as_array().map(Vec::len), Some(4));
    let scheduled = &json["archivers"][0]["scheduled"];
    assert_eq!((&scheduled[0]["chore"], &scheduled[0]["failed"]), (&"prune".into(), &1.into()));
    assert_eq!(scheduled[0]["error"]["code"], "store.unavailable");
    assert_eq!(scheduled[1]["error"], serde_json::Value::Null);
}

#[tokio::test]
async fn only_reading_is_answered_and_every_answer_forbids_scripts() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(now()));
    let board = Board::new(clock, &[], Limits::default());
    for (method, path, code) in [
        ("GET", "/", 200),
        ("HEAD", "/metrics", 200),
        ("GET", "/status", 200),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/etc/passwd", 404),
        ("POST", "/status", 405),
        ("DELETE", "/", 405),
    ] {
        let answer = server::respond(&board, &method.parse().unwrap(), path);
        assert_eq!(answer.status().as_u16(), code, "{method} {path}");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
    }
}
