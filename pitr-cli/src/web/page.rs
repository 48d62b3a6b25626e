//! A picture as a page for people.
//!
//! Owns: one self-contained document, well-formed as XML, without a script, that loads itself anew every few seconds; in the
//! reader's own light or dark. What is wrong stands first. Pure.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use pitr_archive::clock::Micros;

use super::{
    board::{Look, PanelLook, State, ago},
    health::{self, Reason},
    lag_chart,
    markup::Text,
    overview::Overview,
    timeline::Scene,
};
use crate::output::text;

/// Between two loads.
const REFRESH_SECONDS: u32 = 10;
/// Rows of a table; what is older `pitr list` shows.
const ROWS: usize = 100;
const DAY: i64 = 86_400_000_000;

const STYLE: &str = include_str!("page.css");

/// The page.
///
/// # Errors
/// A string cannot be written to.
pub fn render(look: &Look) -> Result<String, fmt::Error> {
    let reasons = health::not_ready(look);
    let mut out = String::with_capacity(32 * 1024);
    let title = match reasons.len() {
        0 => "pitr: all protected".to_owned(),
        n => format!("pitr: {}", text::count(n, "problem")),
    };
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/>\
         <meta http-equiv=\"refresh\" content=\"{REFRESH_SECONDS}\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <meta name=\"color-scheme\" content=\"light dark\"/>\
         <title>{}</title><style>{STYLE}</style></head><body><header><h1>pitr</h1>",
        Text(title)
    )?;
    verdict(&mut out, &reasons, look)?;
    write!(
        out,
        "<p class=\"quiet\">{} UTC, running for {}, version {}</p></header><main>",
        look.now.to_datetime().format("%A, %e %B %Y, %H:%M:%S"),
        text::duration(ago(look.began, look.now)),
        env!("CARGO_PKG_VERSION")
    )?;
    for panel in &look.panels {
        section(&mut out, panel, look, &reasons)?;
    }
    out.push_str(
        "</main><footer><p class=\"quiet\">Also here: <a href=\"/status\">/status</a>, <a href=\"/metrics\">/metrics</a>, \
         <a href=\"/healthz\">/healthz</a>, <a href=\"/readyz\">/readyz</a>. All times are UTC.</p></footer></body></html>\n",
    );
    Ok(out)
}

fn verdict(out: &mut String, reasons: &[Reason], look: &Look) -> fmt::Result {
    let databases = text::count(look.panels.len(), "archive");
    match reasons.len() {
        0 => write!(out, "<p class=\"verdict good\">All protected: {databases} up to date</p>"),
        n => write!(out, "<p class=\"verdict bad\">{} in {databases}</p>", text::count(n, "problem")),
    }
}

fn section(out: &mut String, panel: &PanelLook, look: &Look, reasons: &[Reason]) -> fmt::Result {
    let now = look.now;
    let own: Vec<_> = reasons.iter().filter(|r| r.database == panel.database && r.archive == panel.archive).collect();
    let (class, badge) = match (&panel.state, own.is_empty()) {
        (State::Running, true) => ("good", "archiving"),
        (State::Running, false) => ("bad", "archiving, with problems"),
        (State::Opening, _) => ("quiet", "opening"),
        (State::Failed(_), _) => ("bad", "failed, is opened again"),
        (State::GivenUp(_), _) => ("bad", "given up"),
        (State::Died, _) => ("bad", "died"),
        (State::Ended, _) => ("quiet", "ended"),
    };
    write!(
        out,
        "<section><h2>{}<span class=\"badge {class}\">{badge}</span></h2><p class=\"quiet\">into {}</p>",
        Text(&panel.database),
        Text(&panel.archive)
    )?;
    if !own.is_empty() {
        out.push_str("<ul class=\"reasons\">");
        for reason in own {
            write!(out, "<li><b>{}</b> {}</li>", reason.reason, Text(&reason.text))?;
        }
        out.push_str("</ul>");
    }
    for (chore, at, trouble) in panel.chores.troubles() {
        let (name, ago) = (chore.name(), text::ago(at, now));
        write!(out, "<p class=\"bad\">The scheduled {name} failed {ago}: {}</p>", Text(&trouble.message))?;
    }
    facts(out, panel, now)?;
    if let Some(overview) = &panel.overview {
        let restorable_to = panel.restorable(now).map(|(_, to)| to);
        let scene = Scene { overview, now, restorable_to };
        let began = scene.began();
        let days = now.0.saturating_sub(began.0) / DAY;
        // The picture begins a little before the first thing, so that it can be told from the edge.
        let margin = now.0.saturating_sub(began.0) / 50;
        out.push_str("<h3>What can be restored</h3><div class=\"wide\">");
        scene.draw(out, Micros(began.0.saturating_sub(margin)), "Bases, tags, barriers and restorable windows")?;
        out.push_str("</div>");
        if days >= 2 {
            out.push_str("<h3>The last day of it</h3><div class=\"wide\">");
            scene.draw(out, Micros(now.0.saturating_sub(DAY)), "The same, the last day")?;
            out.push_str("</div>");
        }
        legend(out);
    }
    if !panel.lags.is_empty() {
        out.push_str("<h3>Lag of the last day</h3><div class=\"wide\">");
        lag_chart::draw(out, &panel.lags, now, look.limits.max_lag)?;
        out.push_str("</div>");
    }
    if let Some(overview) = &panel.overview {
        tables(out, overview, now)?;
    }
    out.push_str("</section>");
    Ok(())
}

fn legend(out: &mut String) {
    out.push_str(
        "<p class=\"legend\"><span class=\"key window\"></span>can be restored <span class=\"key base\"></span>base \
         <span class=\"key tag\"></span>tag <span class=\"key barrier\"></span>barrier: no restore crosses it \
         <span class=\"key now\"></span>now</p>",
    );
}

/// One fact: its name, its value, and whether that is bad.
type Fact = (&'static str, String, bool);

fn facts(out: &mut String, panel: &PanelLook, now: Micros) -> fmt::Result {
    out.push_str("<dl>");
    for (name, value, bad) in facts_of(panel, now) {
        let class = if bad { " class=\"bad\"" } else { "" };
        write!(out, "<div><dt>{name}</dt><dd{class}>{}</dd></div>", Text(value))?;
    }
    out.push_str("</dl>");
    Ok(())
}

fn facts_of(panel: &PanelLook, now: Micros) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut say = |name, value| facts.push((name, value, false));
    if let Some(figures) = &panel.figures {
        let (status, lag) = (&figures.status, figures.lag(now));
        let behind = match status.backlog_bytes {
            _ if lag.is_zero() => "none".to_owned(),
            bytes => format!("{} ({})", text::duration(lag), text::bytes(bytes)),
        };
        say("Lag", behind);
        say("Archived up to", {
            let (at, sequence) = (&status.acknowledged, status.acknowledged.sequence);
            format!("{}, sequence {sequence}", text::boundary(at.timeline, at.boundary))
        });
        say("Last shipped", status.last_acknowledged.map_or_else(|| "not yet".to_owned(), |at| text::ago(at, now)));
    }
    if let Some((from, to)) = panel.restorable(now) {
        say("Restorable without a gap", format!("the last {}", text::duration(ago(from, to))));
    }
    let gap = panel.overview.as_ref().is_some_and(|overview| overview.ends_in_a_gap(&panel.counts));
    if gap {
        facts.push(("Restorable without a gap", "nothing: no base follows the last barrier yet".to_owned(), true));
    }
    let mut say = |name, value| facts.push((name, value, false));
    say("Last base", panel.last_base().map_or_else(|| "none".to_owned(), |at| text::ago(at, now)));
    if let Some(figures) = &panel.figures {
        let held = figures.status.pinned_bytes;
        let (held, free) = (text::bytes(held), text::bytes(figures.free_bytes));
        say("Held for the archive", format!("{held} ({free} free)"));
        if let Some(left) = figures.time_to_full(now) {
            facts.push(("Disk full in", text::duration(left), left < Duration::from_secs(86_400)));
        }
    }
    let store = &panel.store;
    let requests: u64 = store.requests.iter().map(|(_, d)| d.count()).sum();
    let errors: u64 = store.errors.iter().map(|(_, _, n)| n).sum();
    let failed = if errors == 0 { "none failed".to_owned() } else { format!("{errors} failed") };
    facts.push(("Requests to the store", format!("{requests}, {failed}"), store.failing.is_some()));
    if let Some(p99) = panel.counts.delivery.quantile(0.99) {
        facts.push(("Durable within (99 %)", format!("at most {}", text::duration(p99)), false));
    }
    facts
}

fn tables(out: &mut String, o: &Overview, now: Micros) -> fmt::Result {
    if o.findings > 0 {
        let findings = text::count(o.findings, "finding");
        write!(out, "<p class=\"bad\">The catalog has {findings}: pitr verify tells what is damaged.</p>")?;
    }
    let c = &o.chronicle;
    let place = |timeline, boundary| text::boundary(timeline, boundary);
    let barriers = c.barriers.iter().rev().map(|b| {
        [
            text::short_time(b.noticed),
            text::name(b.reason),
            format!("after {}", place(b.timeline, b.boundary)),
            b.detail.clone(),
        ]
    });
    table(out, "Barriers", c.barriers.len(), ["noticed", "reason", "place", "what was seen"], barriers)?;
    let tags = c
        .tags
        .iter()
        .rev()
        .map(|t| [text::short_time(t.created), t.name.clone(), place(t.timeline, t.boundary), t.note.clone()]);
    table(out, "Tags", c.tags.len(), ["created", "name", "names", "note"], tags)?;
    let bases = c.bases.iter().rev().map(|b| {
        [
            text::short_time(b.created),
            b.id.to_string(),
            format!("from {}", place(b.timeline, b.floor)),
            text::ago(b.created, now),
        ]
    });
    table(out, "Bases", c.bases.len(), ["begun", "name", "serves", "age"], bases)?;
    let (size, segments, read) = (text::bytes(o.bytes), text::count(o.segments, "segment"), text::ago(o.at, now));
    write!(out, "<p class=\"quiet\">{size} in {segments}; the catalog was read {read}.</p>")
}

fn table(
    out: &mut String,
    name: &str,
    count: usize,
    heads: [&str; 4],
    rows: impl Iterator<Item = [String; 4]>,
) -> fmt::Result {
    if count == 0 {
        return Ok(());
    }
    write!(out, "<details><summary>{name} ({count})</summary><div class=\"wide\"><table><tr>")?;
    for head in heads {
        write!(out, "<th>{head}</th>")?;
    }
    out.push_str("</tr>");
    for row in rows.take(ROWS) {
        out.push_str("<tr>");
        for cell in row {
            write!(out, "<td>{}</td>", Text(cell))?;
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
    if count > ROWS {
        write!(out, "<p class=\"quiet\">and {} older: pitr list shows all of them</p>", count - ROWS)?;
    }
    out.push_str("</details>");
    Ok(())
}
