//! A picture as JSON.
//!
//! Owns: the field names of `/status`, `/healthz` and `/readyz`. They are stable: fields are added, never renamed or removed.
//! `archiver` is what `pitr status --json` shows of a running archiver. Pure.

use chrono::{DateTime, Utc};
use pitr_archive::{
    clock::Micros,
    ids::{BaseId, TimelineId},
    measure::DurationCounts,
    segment::entry::BarrierReason,
};
use serde::Serialize;

use super::{
    board::{Look, PanelLook, Trouble, ago},
    chores::{Chore, Outcomes},
    health::{self, Reason},
    overview::Overview,
};
use crate::cmd::status::{Place, ShownArchiver};

#[derive(Serialize)]
struct Shown<'a> {
    version: &'static str,
    now: DateTime<Utc>,
    started: DateTime<Utc>,
    ready: bool,
    reasons: Vec<Reason>,
    archivers: Vec<ShownPanel<'a>>,
}

#[derive(Serialize)]
struct ShownPanel<'a> {
    database: &'a str,
    archive: &'a str,
    state: &'static str,
    error: Option<ShownTrouble<'a>>,
    lag_seconds: Option<f64>,
    lag_bytes: Option<u64>,
    time_to_full_seconds: Option<f64>,
    free_bytes: Option<u64>,
    base_age_seconds: Option<f64>,
    restorable_from: Option<DateTime<Utc>>,
    restorable_to: Option<DateTime<Utc>>,
    archiver: Option<ShownArchiver>,
    counted: ShownCounts,
    store: ShownStore<'a>,
    catalog: Option<ShownCatalog<'a>>,
    scheduled: Vec<ShownChore<'a>>,
}

#[derive(Serialize)]
struct ShownChore<'a> {
    chore: &'static str,
    succeeded: u64,
    failed: u64,
    last_success: Option<DateTime<Utc>>,
    last_failure: Option<DateTime<Utc>>,
    /// Absent where it went well since.
    error: Option<ShownTrouble<'a>>,
}

#[derive(Serialize)]
struct ShownTrouble<'a> {
    code: &'static str,
    message: &'a str,
    hint: &'a str,
}

impl<'a> From<&'a Trouble> for ShownTrouble<'a> {
    fn from(t: &'a Trouble) -> Self {
        Self { code: t.code.name(), message: &t.message, hint: &t.hint }
    }
}

#[derive(Serialize)]
struct ShownCounts {
    read_records: u64,
    read_bytes: u64,
    archived_records: u64,
    archived_bytes: u64,
    archived_object_bytes: u64,
    segments: u64,
    heartbeats: u64,
    bases: u64,
    tags: u64,
    barriers: u64,
    delivery: ShownDurations,
}

/// Ends of buckets: what so many of a hundred took at most; `null` where that is more than a minute, or unknown.
#[derive(Serialize)]
struct ShownDurations {
    count: u64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

impl From<&DurationCounts> for ShownDurations {
    fn from(d: &DurationCounts) -> Self {
        let ms = |share| d.quantile(share).map(|d| d.as_secs_f64() * 1e3);
        Self { count: d.count(), p50_ms: ms(0.5), p99_ms: ms(0.99) }
    }
}

#[derive(Serialize)]
struct ShownStore<'a> {
    requests: Vec<ShownRequest>,
    errors: Vec<ShownError>,
    retries: u64,
    sent_bytes: u64,
    received_bytes: u64,
    failing: Option<ShownFailing<'a>>,
}

#[derive(Serialize)]
struct ShownRequest {
    request: &'static str,
    #[serde(flatten)]
    durations: ShownDurations,
}

#[derive(Serialize)]
struct ShownError {
    request: &'static str,
    code: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct ShownFailing<'a> {
    since: DateTime<Utc>,
    code: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct ShownCatalog<'a> {
    read: DateTime<Utc>,
    findings: usize,
    segments: usize,
    bytes: u64,
    timelines: &'a [TimelineId],
    bases: Vec<ShownBase<'a>>,
    tags: Vec<ShownTag<'a>>,
    barriers: Vec<ShownBarrier<'a>>,
    windows: Vec<ShownWindow>,
}

#[derive(Serialize)]
struct ShownBase<'a> {
    id: &'a BaseId,
    created: DateTime<Utc>,
    #[serde(flatten)]
    floor: Place,
}

#[derive(Serialize)]
struct ShownTag<'a> {
    name: &'a str,
    created: DateTime<Utc>,
    note: &'a str,
    #[serde(flatten)]
    at: Place,
}

#[derive(Serialize)]
struct ShownBarrier<'a> {
    reason: BarrierReason,
    noticed: DateTime<Utc>,
    detail: &'a str,
    #[serde(flatten)]
    at: Place,
}

#[derive(Serialize)]
struct ShownWindow {
    timeline: TimelineId,
    from: DateTime<Utc>,
    to: Option<DateTime<Utc>>,
    open: bool,
}

/// All of it.
pub fn render(look: &Look) -> serde_json::Result<String> {
    let reasons = health::not_ready(look);
    serde_json::to_string(&Shown {
        version: env!("CARGO_PKG_VERSION"),
        now: look.now.to_datetime(),
        started: look.began.to_datetime(),
        ready: reasons.is_empty(),
        reasons,
        archivers: look.panels.iter().map(|panel| shown(panel, look.now)).collect(),
    })
}

fn shown(panel: &PanelLook, now: Micros) -> ShownPanel<'_> {
    let figures = panel.figures.as_ref();
    let restorable = panel.restorable(now);
    let (counts, store) = (&panel.counts, &panel.store);
    ShownPanel {
        database: &panel.database,
        archive: &panel.archive,
        state: panel.state.name(),
        error: panel.state.trouble().map(Into::into),
        lag_seconds: panel.lag(now).map(|lag| lag.as_secs_f64()),
        lag_bytes: figures.map(|f| f.status.backlog_bytes),
        time_to_full_seconds: figures.and_then(|f| f.time_to_full(now)).map(|d| d.as_secs_f64()),
        free_bytes: figures.map(|f| f.free_bytes),
        base_age_seconds: panel.last_base().map(|at| ago(at, now).as_secs_f64()),
        restorable_from: restorable.map(|(from, _)| from.to_datetime()),
        restorable_to: restorable.map(|(_, to)| to.to_datetime()),
        archiver: figures.map(|f| f.status.clone().into()),
        counted: ShownCounts {
            read_records: counts.records_read,
            read_bytes: counts.bytes_read,
            archived_records: counts.records,
            archived_bytes: counts.plain_bytes,
            archived_object_bytes: counts.object_bytes,
            segments: counts.segments,
            heartbeats: counts.heartbeats,
            bases: counts.bases,
            tags: counts.tags,
            barriers: counts.barriers.values().sum(),
            delivery: (&counts.delivery).into(),
        },
        store: ShownStore {
            requests: store
                .requests
                .iter()
                .map(|(request, d)| ShownRequest { request: request.name(), durations: d.into() })
                .collect(),
            errors: store
                .errors
                .iter()
                .map(|(request, code, count)| ShownError { request: request.name(), code: code.name(), count: *count })
                .collect(),
            retries: store.repeated,
            sent_bytes: store.sent,
            received_bytes: store.received,
            failing: store.failing.as_ref().map(|f| ShownFailing {
                since: f.since.to_datetime(),
                code: f.code.name(),
                message: &f.message,
            }),
        },
        catalog: panel.overview.as_deref().map(catalog),
        scheduled: panel.chores.known().map(chore).collect(),
    }
}

fn chore((chore, outcomes): (Chore, &Outcomes)) -> ShownChore<'_> {
    let trouble = outcomes.trouble.as_ref();
    ShownChore {
        chore: chore.name(),
        succeeded: outcomes.succeeded,
        failed: outcomes.failed,
        last_success: outcomes.success.map(Micros::to_datetime),
        last_failure: trouble.map(|(at, _)| at.to_datetime()),
        error: trouble.map(|(_, trouble)| trouble.into()),
    }
}

fn catalog(o: &Overview) -> ShownCatalog<'_> {
    let c = &o.chronicle;
    ShownCatalog {
        read: o.at.to_datetime(),
        findings: o.findings,
        segments: o.segments,
        bytes: o.bytes,
        timelines: &c.timelines,
        bases: c
            .bases
            .iter()
            .map(|b| ShownBase { id: &b.id, created: b.created.to_datetime(), floor: Place::new(b.timeline, b.floor) })
            .collect(),
        tags: c
            .tags
            .iter()
            .map(|t| ShownTag {
                name: &t.name,
                created: t.created.to_datetime(),
                note: &t.note,
                at: Place::new(t.timeline, t.boundary),
            })
            .collect(),
        barriers: c
            .barriers
            .iter()
            .map(|b| ShownBarrier {
                reason: b.reason,
                noticed: b.noticed.to_datetime(),
                detail: &b.detail,
                at: Place::new(b.timeline, b.boundary),
            })
            .collect(),
        windows: c
            .windows
            .iter()
            .map(|w| ShownWindow {
                timeline: w.timeline,
                from: w.from.to_datetime(),
                to: w.to.map(Micros::to_datetime),
                open: w.open,
            })
            .collect(),
    }
}

#[derive(Serialize)]
struct Verdict<'a> {
    ok: bool,
    reasons: &'a [Reason],
}

/// The answer of `/healthz` and `/readyz`.
pub fn verdict(reasons: &[Reason]) -> serde_json::Result<String> {
    serde_json::to_string(&Verdict { ok: reasons.is_empty(), reasons })
}
