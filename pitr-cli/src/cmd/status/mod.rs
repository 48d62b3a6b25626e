//! `pitr status`: what can be restored, and how far behind the archive is.

pub mod windows;

use chrono::{DateTime, Utc};
use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::Archive,
        model::{Barrier, Catalog, Timeline},
        schema::{DrillDocument, Position},
    },
    clock::Micros,
    code::Retry,
    ids::{ArchiveId, BaseId, Boundary, Epoch, SequenceNumber, TimelineId},
    segment::entry::BarrierReason,
};
use pitr_archiver::{
    PinDelay,
    control::{Answer, Request, Status},
};
use serde::Serialize;

use self::windows::{Window, windows};
use crate::{
    args::archiving::StatusArgs,
    chronicle::seen,
    cmd::{
        drill::shown::{self, ShownDrill},
        work::{self, Answered},
    },
    context::Context,
    output::{Output, Verdict, json::ShownPosition, table, text},
};

#[derive(Serialize)]
struct Shown {
    now: DateTime<Utc>,
    archiver: Option<ShownArchiver>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    further_archivers: Vec<ShownArchiver>,
    lag_seconds: Option<f64>,
    archive: Option<ShownArchive>,
}

/// What a running archiver says of itself.
#[derive(Serialize)]
pub struct ShownArchiver {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    database: String,
    archive: String,
    epoch: Epoch,
    read: ShownPosition,
    acknowledged: ShownPosition,
    unacknowledged_records: u64,
    oldest_unacknowledged: Option<DateTime<Utc>>,
    caught_up: Option<DateTime<Utc>>,
    last_acknowledged: Option<DateTime<Utc>>,
    last_base: Option<BaseId>,
    base: Option<String>,
    base_due: Option<DateTime<Utc>>,
    pinned_bytes: u64,
    backlog_bytes: u64,
    time_to_full_seconds: Option<u64>,
    alarm: Option<String>,
    away: Option<ShownFailing>,
    pin_delay: Option<PinDelay>,
    base_waits: Option<String>,
    barriers: u64,
    waiting: Option<String>,
}

#[derive(Serialize)]
struct ShownFailing {
    since: DateTime<Utc>,
    attempts: u64,
    error: String,
}

impl From<Status> for ShownArchiver {
    fn from(s: Status) -> Self {
        Self {
            name: None,
            database: s.database,
            archive: s.archive,
            epoch: s.epoch,
            read: (&s.read).into(),
            acknowledged: (&s.acknowledged).into(),
            unacknowledged_records: s.unacknowledged_records,
            oldest_unacknowledged: s.oldest_unacknowledged.map(Micros::to_datetime),
            caught_up: s.caught_up.map(Micros::to_datetime),
            last_acknowledged: s.last_acknowledged.map(Micros::to_datetime),
            last_base: s.last_base,
            base: s.base,
            base_due: s.base_due.map(Micros::to_datetime),
            pinned_bytes: s.pinned_bytes,
            backlog_bytes: s.backlog_bytes,
            time_to_full_seconds: s.time_to_full,
            alarm: s.alarm,
            away: s.away.map(|away| ShownFailing {
                since: away.since.to_datetime(),
                attempts: away.attempts,
                error: away.error,
            }),
            pin_delay: s.pin_delay,
            base_waits: s.base_waits,
            barriers: s.barriers,
            waiting: s.waiting,
        }
    }
}

#[derive(Serialize)]
struct ShownArchive {
    url: String,
    id: ArchiveId,
    encrypted: bool,
    timelines: Vec<ShownTimeline>,
    last_drill: Option<ShownDrill>,
}

#[derive(Serialize)]
struct ShownTimeline {
    timeline: TimelineId,
    head: ShownHead,
    observed_through: Option<DateTime<Utc>>,
    last_base: Option<ShownBase>,
    segments: usize,
    bytes: u64,
    windows: Vec<ShownWindow>,
    gaps: Vec<ShownGap>,
}

#[derive(Serialize)]
struct ShownHead {
    #[serde(flatten)]
    place: Place,
    sequence: Option<SequenceNumber>,
}

#[derive(Serialize)]
struct ShownBase {
    id: BaseId,
    created: DateTime<Utc>,
    floor: ShownPosition,
}

/// A boundary without its hash and WAL, which a summary does not tell.
#[derive(Clone, Copy, Serialize)]
pub struct Place {
    timeline: TimelineId,
    record: Option<pitr_archive::ids::RecordNumber>,
    boundary: Boundary,
}

impl Place {
    /// On a timeline.
    pub fn new(timeline: TimelineId, boundary: Boundary) -> Self {
        Self { timeline, record: boundary.last_record(), boundary }
    }
}

#[derive(Serialize)]
struct ShownWindow {
    from: Place,
    to: Place,
    from_time: DateTime<Utc>,
    to_time: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
struct ShownGap {
    at: Place,
    reason: BarrierReason,
    noticed: DateTime<Utc>,
    detail: String,
}

/// Shows both halves, or the one that was asked for.
pub async fn run(context: &Context, args: &StatusArgs) -> Result<Verdict> {
    let database = args.database.given();
    let archive = args.archive.given();
    let mut archivers = Vec::new();
    if let Some(database) = &database {
        for Answered { archive, answer } in work::ask_archivers(database, &args.archive, &Request::Status).await? {
            match answer {
                Ok(Answer::Status(status)) => archivers.push((archive, *status)),
                Ok(_) => return Err(work::unexpected(&Request::Status)),
                Err(e) => tracing::warn!(archive = work::shown(archive.as_deref()), "{e}"),
            }
        }
    }
    let described = match &archive {
        None => None,
        Some(archive) => {
            let opened = context.archive(archive).await?;
            let catalog = context.catalog(&opened).await?;
            let drill = last_drill(&opened).await?;
            Some((opened.store().describe(), catalog, drill))
        }
    };
    if described.is_none() && archivers.is_empty() {
        return Err(match &database {
            Some(database) => match crate::context::needed(&args.archive, database) {
                Err(e) => e,
                Ok(_) => Error::new(Code::Internal, "looking for an archive"),
            },
            None => Error::new(Code::Usage, "looking for something to show").hint("give --db, --archive or both"),
        });
    }
    let now = context.clock.now();
    // That of the archive that is furthest behind.
    let lag_seconds = archivers.iter().map(|(_, s)| lag(s)).max().map(|lag| lag as f64 / 1e6);
    let archive = described.as_ref().map(|(url, catalog, drill)| describe(url, catalog, drill.as_ref()));
    let out = &context.output;
    if out.is_json() {
        let mut archivers = archivers.into_iter().map(|(name, status)| ShownArchiver { name, ..status.into() });
        let (archiver, further) = (archivers.next(), archivers.collect());
        out.json(&Shown { now: now.to_datetime(), archiver, further_archivers: further, lag_seconds, archive })?;
        return Ok(Verdict::Done);
    }
    for (name, status) in &archivers {
        show_archiver(out, name.as_deref(), status)?;
    }
    match &database {
        Some(database) if archivers.is_empty() => out.line(format!(
            "{} No archiver runs for {}: {}.",
            out.warn("archiver"),
            database.db.display(),
            match work::refuse_no_database(&work::config(database)) {
                Ok(()) => "nothing written now is archived".to_owned(),
                Err(e) => format!("there is no database that it could archive ({e})"),
            }
        ))?,
        _ => {}
    }
    if let Some(archive) = &archive {
        let drill = described.as_ref().and_then(|(_, _, drill)| drill.as_ref());
        show_archive(out, archive, drill, now)?;
    }
    Ok(Verdict::Done)
}

/// How old the oldest write is that the archive lacks, in microseconds; 0 when it lacks none.
fn lag(status: &Status) -> i64 {
    status.oldest_unacknowledged.map_or(0, |oldest| (status.now.0 - oldest.0).max(0))
}

/// The newest report of a drill. One that cannot be read is said, and the one before it is not the newest.
async fn last_drill(archive: &Archive) -> Result<Option<DrillDocument>> {
    match archive.newest_drills(1).await?.into_iter().next() {
        Some(Err(e)) if e.code().retry() == Retry::Never => {
            tracing::warn!(code = e.code().name(), "damaged: {e}");
            Ok(None)
        }
        newest => newest.transpose(),
    }
}

fn describe(url: &str, catalog: &Catalog, drill: Option<&DrillDocument>) -> ShownArchive {
    ShownArchive {
        url: url.to_owned(),
        id: catalog.archive().id,
        encrypted: catalog.archive().encryption.is_some(),
        timelines: catalog.timelines().map(|timeline| describe_timeline(catalog, timeline)).collect(),
        last_drill: drill.map(Into::into),
    }
}

fn describe_timeline(catalog: &Catalog, timeline: &Timeline) -> ShownTimeline {
    let id = timeline.id();
    let place = |boundary| Place::new(id, boundary);
    let bases: Vec<_> = catalog.bases().iter().filter(|base| base.floor.timeline == id).collect();
    let windows = windows(timeline, &bases)
        .into_iter()
        .map(|Window { from, to, since }| ShownWindow {
            from: place(from),
            to: place(to),
            from_time: since.to_datetime(),
            to_time: seen(timeline, to).map(Micros::to_datetime),
        })
        .collect();
    let gap = |barrier: &Barrier| ShownGap {
        at: place(barrier.interval.lo),
        reason: barrier.reason,
        noticed: barrier.noticed.to_datetime(),
        detail: barrier.detail.clone(),
    };
    let last_base = bases.iter().max_by_key(|base| base.created);
    ShownTimeline {
        timeline: id,
        head: ShownHead { place: place(timeline.end()), sequence: timeline.head().map(|head| head.last_sequence) },
        observed_through: timeline.observed_through().map(Micros::to_datetime),
        last_base: last_base.map(|base| ShownBase {
            id: base.id.clone(),
            created: base.created.to_datetime(),
            floor: (&base.floor).into(),
        }),
        segments: timeline.segments().len(),
        bytes: timeline.segments().iter().map(|s| s.object_bytes).sum(),
        windows,
        gaps: timeline.barriers().iter().map(gap).collect(),
    }
}

fn show_archiver(out: &Output, name: Option<&str>, status: &Status) -> Result<()> {
    let behind = match status.unacknowledged_records {
        0 => out.good("none: everything read is in the archive"),
        n => format!("{}, the oldest read {} ago", text::count(n, "record"), text::duration(micros(lag(status)))),
    };
    let ago = |at: Option<Micros>| at.map_or_else(|| "not yet".to_owned(), |at| text::ago(at, status.now));
    let mut facts = vec![
        ("archiver", out.good("running")),
        ("database", status.database.clone()),
        ("archive", name.map_or_else(|| status.archive.clone(), |name| format!("{name}: {}", status.archive))),
        ("lag", behind),
        ("archived up to", position(&status.acknowledged)),
        ("log read to its end", ago(status.caught_up)),
        ("last shipped", ago(status.last_acknowledged)),
    ];
    if let Some(base) = &status.base {
        let due = |at: Micros| format!("; due at {}: bases for barriers are spaced", text::time(at.to_datetime()));
        facts.push(("base", format!("{base}{}", status.base_due.map(due).unwrap_or_default())));
    }
    if status.pinned_bytes > 0 {
        facts.push(("held on disk", format!("{} until the archive has it", text::bytes(status.pinned_bytes))));
    }
    if let Some(away) = &status.away {
        let since = text::ago(away.since, status.now);
        let attempts = text::count(away.attempts, "attempt");
        facts.push(("archive away", out.bad(&format!("since {since}, {attempts}; the last: {}", away.error))));
    }
    if let Some(left) = status.time_to_full.filter(|_| status.away.is_some()) {
        facts.push(("room lasts for", text::duration(std::time::Duration::from_secs(left))));
    }
    if let Some(alarm) = &status.alarm {
        facts.push(("limit met", out.bad(alarm)));
    }
    if let Some(waits) = &status.base_waits {
        facts.push(("base waits", out.warn(waits)));
    }
    if let Some(waiting) = &status.waiting {
        facts.push(("waiting", out.bad(waiting)));
    }
    out.line(table::facts(out, &facts))?;
    out.line("")
}

fn show_archive(out: &Output, archive: &ShownArchive, drill: Option<&DrillDocument>, now: Micros) -> Result<()> {
    let encrypted = if archive.encrypted { "encrypted" } else { "not encrypted" };
    let last = drill.map_or_else(
        || "never: whether a restore works is not tried (pitr drill)".to_owned(),
        |drill| shown::in_short(out, drill, now),
    );
    out.line(table::facts(out, &[("archive", format!("{} ({encrypted})", archive.url)), ("last drill", last)]))?;
    if archive.timelines.is_empty() {
        return out.line("It is empty: nothing has been archived yet.");
    }
    for timeline in &archive.timelines {
        out.line("")?;
        let sequence = timeline.head.sequence.map(|s| format!(", sequence {s}")).unwrap_or_default();
        let mut facts = vec![
            ("timeline", timeline.timeline.to_string()),
            ("archived up to", format!("{}{sequence}", said(timeline.head.place))),
            (
                "observed through",
                timeline.observed_through.map_or_else(
                    || "never".to_owned(),
                    |at| format!("{} ({})", text::time(at), text::ago(at.into(), now)),
                ),
            ),
            (
                "last base",
                timeline.last_base.as_ref().map_or_else(
                    || out.bad("none: nothing can be restored yet"),
                    |base| format!("{} ({})", base.id, text::ago(base.created.into(), now)),
                ),
            ),
            (
                "size",
                format!("{} in {}", text::bytes(timeline.bytes), text::count(timeline.segments as u64, "segment")),
            ),
        ];
        let windows: Vec<_> = timeline.windows.iter().map(window).collect();
        if !windows.is_empty() {
            facts.push(("can be restored", windows.join("\n")));
        }
        let gaps: Vec<_> = timeline.gaps.iter().map(gap).collect();
        facts.push(("gaps", if gaps.is_empty() { "none".to_owned() } else { out.warn(&gaps.join("\n")) }));
        out.line(table::facts(out, &facts))?;
    }
    Ok(())
}

fn window(window: &ShownWindow) -> String {
    format!(
        "records {} to {}, that is {} to {}",
        text::record(window.from.boundary),
        text::record(window.to.boundary),
        text::time(window.from_time),
        window.to_time.map_or_else(|| "?".to_owned(), text::time)
    )
}

fn gap(gap: &ShownGap) -> String {
    let reason = text::name(gap.reason);
    format!("after {}: {reason}, noticed {} ({})", said(gap.at), text::short_time(gap.noticed), gap.detail)
}

fn said(place: Place) -> String {
    text::boundary(place.timeline, place.boundary)
}

fn position(position: &Position) -> String {
    format!("{}, sequence {}", text::boundary(position.timeline, position.boundary), position.sequence)
}

fn micros(n: i64) -> std::time::Duration {
    std::time::Duration::from_micros(u64::try_from(n).unwrap_or(0))
}
