//! `pitr list picture`: the archive's history as it is drawn, and the same facts as JSON.

use chrono::{DateTime, Utc};
use pitr_archive::{
    Code, Error, Result,
    catalog::model::Catalog,
    clock::Micros,
    ids::{BaseId, Boundary, TimelineId},
};
use pitr_replayer::target::Target;
use serde::Serialize;

use crate::{
    args::looking::ListArgs,
    context::Context,
    output::picture::{Amount, Flag, Picture, Row, Span, columns, gather},
};

/// Into how many parts the time is divided in which something was written.
const PARTS: usize = 100;

/// A picture as JSON.
#[derive(Serialize)]
pub(super) struct ShownPicture {
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    timelines: Vec<ShownRow>,
}

#[derive(Serialize)]
struct ShownRow {
    timeline: TimelineId,
    current: bool,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    left: Option<ShownFork>,
    windows: Vec<ShownSpan>,
    bases: Vec<ShownBase>,
    tags: Vec<ShownTag>,
    barriers: Vec<ShownBarrier>,
    written: Vec<ShownAmount>,
}

#[derive(Serialize)]
struct ShownFork {
    timeline: TimelineId,
    boundary: Boundary,
    at: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
struct ShownSpan {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

#[derive(Serialize)]
struct ShownBase {
    id: BaseId,
    at: DateTime<Utc>,
}

#[derive(Serialize)]
struct ShownTag {
    name: String,
    at: DateTime<Utc>,
}

#[derive(Serialize)]
struct ShownBarrier {
    reason: String,
    at: DateTime<Utc>,
}

#[derive(Serialize)]
struct ShownAmount {
    #[serde(flatten)]
    span: ShownSpan,
    #[serde(flatten)]
    amount: Amount,
}

/// What of the time was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zoom {
    from: Option<Micros>,
    to: Option<Micros>,
}

impl Zoom {
    /// As it was typed.
    pub(super) fn of(context: &Context, args: &ListArgs) -> Result<Self> {
        let time = |text: &Option<String>| text.as_deref().map(|text| time(context, text)).transpose();
        let zoom = Self { from: time(&args.from)?, to: time(&args.to)? };
        match (zoom.from, zoom.to) {
            (Some(from), Some(to)) if from >= to => Err(Error::new(Code::Usage, "choosing the time to draw")
                .with("from", from)
                .with("to", to)
                .hint("--from is before --to")),
            _ => Ok(zoom),
        }
    }
}

fn time(context: &Context, text: &str) -> Result<Micros> {
    match Target::time(text, context.clock.now().to_datetime(), &context.zone)? {
        Target::Time(at) => Ok(at.into()),
        other => Err(Error::new(Code::Internal, "reading a time").on(other)),
    }
}

/// The picture of an archive, or of one timeline.
pub(super) fn picture(catalog: &Catalog, timeline: Option<TimelineId>, zoom: Zoom) -> Result<Picture> {
    let rows = gather::rows(catalog, |id| timeline.is_none_or(|only| only == id));
    let all = gather::span(&rows).unwrap_or_default();
    let span = Span { from: zoom.from.unwrap_or(all.from), to: zoom.to.unwrap_or(all.to) };
    if span.from > span.to {
        return Err(Error::new(Code::Usage, "choosing the time to draw")
            .with("archive-from", all.from)
            .with("archive-to", all.to)
            .hint("nothing was archived at that time; pitr list --timeline without --from and --to shows all"));
    }
    Ok(Picture { span, rows })
}

impl From<&Picture> for ShownPicture {
    fn from(picture: &Picture) -> Self {
        let Picture { span, rows } = picture;
        let shown = (!rows.is_empty()).then(|| ShownSpan::from(*span));
        let (from, to) = (shown.as_ref().map(|span| span.from), shown.as_ref().map(|span| span.to));
        Self { from, to, timelines: rows.iter().map(|row| shown_row(row, *span)).collect() }
    }
}

impl From<Span> for ShownSpan {
    fn from(span: Span) -> Self {
        Self { from: span.from.to_datetime(), to: span.to.to_datetime() }
    }
}

/// What of a timeline lies in the time that is drawn.
fn shown_row(row: &Row, span: Span) -> ShownRow {
    let flags = |flags: &[Flag]| flags.iter().filter(|flag| span.holds(flag.at)).cloned().collect::<Vec<_>>();
    let ShownSpan { from, to } = row.life.into();
    ShownRow {
        timeline: row.timeline,
        current: row.current,
        from,
        to,
        left: row.fork.map(|fork| ShownFork {
            timeline: fork.parent,
            boundary: fork.boundary,
            at: fork.at.map(Micros::to_datetime),
        }),
        windows: row.windows.iter().filter(|w| w.meets(span)).map(|w| (*w).into()).collect(),
        bases: row
            .bases
            .iter()
            .filter(|base| span.holds(base.at))
            .map(|base| ShownBase { id: base.id.clone(), at: base.at.to_datetime() })
            .collect(),
        tags: flags(&row.tags).into_iter().map(|f| ShownTag { name: f.name, at: f.at.to_datetime() }).collect(),
        barriers: flags(&row.barriers)
            .into_iter()
            .map(|f| ShownBarrier { reason: f.name, at: f.at.to_datetime() })
            .collect(),
        written: written(row, span),
    }
}

/// Parts in which nothing was written are left out.
fn written(row: &Row, span: Span) -> Vec<ShownAmount> {
    let edge = |part: usize| {
        let offset = u128::from(span.length()) * part as u128 / PARTS as u128;
        Micros(span.from.0.saturating_add(i64::try_from(offset).unwrap_or(i64::MAX)))
    };
    let amounts = columns(&row.written, span, PARTS).into_iter().enumerate();
    let amounts = amounts.filter(|(_, amount)| *amount != Amount::default());
    amounts
        .map(|(part, amount)| ShownAmount { span: Span { from: edge(part), to: edge(part + 1) }.into(), amount })
        .collect()
}
