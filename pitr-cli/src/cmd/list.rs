//! `pitr list`: what an archive holds.

mod picture;

use chrono::{DateTime, Utc};
use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::Archive,
        model::{Barrier, Catalog, Timeline},
        outline::Outline,
        schema::{BaseDocument, DrillDocument, SegmentSummary},
    },
    clock::Micros,
    code::Retry,
    ids::{BaseId, Boundary, FileNumber, Ordinal, SequenceNumber, TimelineId},
    segment::entry::BarrierReason,
};
use serde::Serialize;

use self::picture::{ShownPicture, Zoom};
use crate::{
    args::looking::{ListArgs, Listing},
    cmd::{
        drill::shown::{self, ShownDrill},
        tag::{self, ShownTag},
    },
    context::Context,
    output::{
        LongList, Output, Verdict,
        json::ShownPosition,
        table::{Align, Table},
        text, tree,
    },
};

/// So many reports of drills are shown, the newest.
const DRILLS: usize = 100;
/// Rows of one table: of more, each has its own widths, and is printed before the next one is filled.
const ROWS: usize = 4096;

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    timelines: Option<Vec<ShownTimeline<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bases: Option<Vec<ShownBase<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<ShownTag<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    barriers: Option<Vec<ShownBarrier<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<Vec<Summed>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<ShownPicture>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drills: Option<Vec<ShownDrill>>,
}

#[derive(Serialize)]
struct ShownTimeline<'a> {
    timeline: TimelineId,
    parent: Option<ShownPosition>,
    created: DateTime<Utc>,
    db_id: &'a str,
    detail: &'a str,
    current: bool,
    head: Boundary,
}

#[derive(Serialize)]
struct ShownBase<'a> {
    id: &'a BaseId,
    created: DateTime<Utc>,
    timeline: TimelineId,
    floor: ShownPosition,
    first_wal: FileNumber,
    last_sequence: SequenceNumber,
    files: usize,
    bytes: u64,
    column_families: Vec<&'a str>,
    rocksdb_version: &'a str,
}

#[derive(Serialize)]
struct ShownBarrier<'a> {
    timeline: TimelineId,
    reason: BarrierReason,
    lo: Boundary,
    hi: Option<Boundary>,
    noticed: DateTime<Utc>,
    detail: &'a str,
}

#[derive(Serialize)]
struct ShownSegment {
    timeline: TimelineId,
    ordinal: Ordinal,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_ordinal: Option<Ordinal>,
    first: Boundary,
    end: Boundary,
    records: u64,
    last_sequence: SequenceNumber,
    bytes: u64,
    plain_bytes: u64,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    observed_through: Option<DateTime<Utc>>,
    events: usize,
}

#[derive(Serialize)]
struct Summed {
    timeline: TimelineId,
    segments: usize,
    heartbeats: usize,
    records: u64,
    bytes: u64,
    plain_bytes: u64,
}

/// What is listed, and of which timelines.
struct Selection<'a> {
    catalog: &'a Catalog,
    timeline: Option<TimelineId>,
}

impl<'a> Selection<'a> {
    /// Whether it is the one that was written last: what is restored where none is named.
    fn is_current(&self, timeline: &Timeline) -> bool {
        self.catalog.current_timeline().is_some_and(|current| current.id() == timeline.id())
    }

    fn timelines(&self) -> impl Iterator<Item = &'a Timeline> {
        let wanted = self.timeline;
        self.catalog.timelines().filter(move |t| wanted.is_none_or(|id| id == t.id()))
    }

    fn bases(&self) -> Vec<&'a BaseDocument> {
        let wanted = self.timeline;
        self.catalog.bases().iter().filter(|b| wanted.is_none_or(|id| id == b.floor.timeline)).collect()
    }
}

/// Lists. Of the segments, which can be millions, only a few are in memory at a time.
pub async fn run(context: &Context, args: &ListArgs) -> Result<Verdict> {
    let all =
        [Listing::Timelines, Listing::Bases, Listing::Tags, Listing::Barriers, Listing::Segments, Listing::Drills];
    let draws = args.draws();
    let nothing_named = args.what.is_empty() && !args.segments && !draws;
    let mut wanted = if nothing_named { all.to_vec() } else { args.what.clone() };
    for (asked, what) in [(args.segments, Listing::Segments), (draws, Listing::Picture)] {
        if asked && !wanted.contains(&what) {
            wanted.push(what);
        }
    }
    if !draws && (args.from.is_some() || args.to.is_some()) {
        return Err(Error::new(Code::Usage, "choosing the time to draw")
            .hint("--from and --to are of the picture: pitr list --timeline, or pitr list picture --timeline N"));
    }
    let (zoom, timeline) = (Zoom::of(context, args)?, args.timeline.flatten());
    let archive = context.archive(&args.archive).await?;
    let mut outline = context.outline(&archive).await?;
    if wanted.contains(&Listing::Timelines) {
        outline.learn_ends(&archive).await?;
    }
    if wanted.contains(&Listing::Bases) {
        outline.learn_bases(&archive).await?;
    }
    if wanted.contains(&Listing::Tags) || draws {
        outline.learn_tags(&archive).await?;
    }
    let catalog = outline.catalog();
    if let Some(unknown) = timeline.filter(|id| catalog.timeline(*id).is_none()) {
        return Err(Error::new(Code::Usage, "finding the timeline").on(unknown).hint("pitr list timelines shows them"));
    }
    let selection = Selection { catalog, timeline };
    let picture = if draws { Some(picture::picture(catalog, timeline, zoom)?) } else { None };
    let out = &context.output;
    let drills = match wanted.contains(&Listing::Drills) {
        true => drills(&archive, &selection).await?,
        false => Vec::new(),
    };
    let summed = match wanted.contains(&Listing::Segments) && !args.segments {
        true => Some(summed(&archive, &outline, &selection).await?),
        false => None,
    };
    if out.is_json() {
        let mut listed = as_json(&selection, &wanted, summed, &drills);
        listed.picture = picture.as_ref().map(Into::into);
        if !args.segments {
            out.json(&listed)?;
            return Ok(Verdict::Done);
        }
        let mut list = LongList::begin(&listed, "segments")?;
        for timeline in selection.timelines() {
            let show = |s: &SegmentSummary| list.item(&shown_segment(timeline.id(), s));
            outline.each_segment(&archive, timeline, show).await?;
        }
        list.finish()?;
        return Ok(Verdict::Done);
    }
    let single = wanted.len() == 1;
    for (index, what) in [Listing::Picture].into_iter().chain(all).filter(|what| wanted.contains(what)).enumerate() {
        if !single {
            let gap = if index > 0 { "\n" } else { "" };
            out.line(format!("{gap}{}", out.heading(title(what))))?;
        }
        let table = match what {
            Listing::Picture => {
                picture.iter().try_for_each(|picture| out.picture(picture))?;
                continue;
            }
            Listing::Timelines => timelines(out, &selection),
            Listing::Bases => bases(out, &selection),
            Listing::Tags => tags(out, &selection),
            Listing::Barriers => barriers(out, &selection),
            Listing::Segments => match &summed {
                Some(summed) => summary(out, summed),
                None => segments(out, &archive, &outline, &selection).await?,
            },
            Listing::Drills => shown::table(out, &drills),
        };
        out.line(if table.is_empty() { out.faint("none") } else { table.to_string() })?;
    }
    Ok(Verdict::Done)
}

const fn title(what: Listing) -> &'static str {
    match what {
        Listing::Timelines => "Timelines",
        Listing::Bases => "Bases",
        Listing::Tags => "Tags",
        Listing::Barriers => "Barriers",
        Listing::Segments => "Segments",
        Listing::Picture => "History",
        Listing::Drills => "Drills",
    }
}

/// The newest reports, in order of time. One that cannot be read is said.
async fn drills(archive: &Archive, selection: &Selection<'_>) -> Result<Vec<DrillDocument>> {
    let mut drills = Vec::new();
    for read in archive.newest_drills(DRILLS).await? {
        match read {
            Ok(drill) => drills.push(drill),
            Err(e) if e.code().retry() == Retry::Later => return Err(e),
            Err(e) => tracing::warn!(code = e.code().name(), "damaged: {e}"),
        }
    }
    let of_timeline = |drill: &DrillDocument| {
        let timeline = drill.plan.as_ref().map(|plan| plan.position.timeline);
        selection.timeline.is_none_or(|id| timeline == Some(id))
    };
    drills.retain(of_timeline);
    drills.reverse();
    Ok(drills)
}

fn as_json<'a>(
    selection: &Selection<'a>,
    wanted: &[Listing],
    summed: Option<Vec<Summed>>,
    drills: &[DrillDocument],
) -> Listed<'a> {
    let is = |what| wanted.contains(&what);
    Listed {
        timelines: is(Listing::Timelines)
            .then(|| selection.timelines().map(|t| shown_timeline(selection, t)).collect()),
        bases: is(Listing::Bases).then(|| selection.bases().into_iter().map(shown_base).collect()),
        tags: is(Listing::Tags).then(|| {
            let tags = selection.catalog.tags().iter();
            tags.filter(|t| selection.timeline.is_none_or(|id| id == t.position.timeline)).map(Into::into).collect()
        }),
        barriers: is(Listing::Barriers).then(|| {
            selection.timelines().flat_map(|t| t.barriers().iter().map(|b| shown_barrier(t.id(), b))).collect()
        }),
        segments: summed,
        picture: None,
        drills: is(Listing::Drills).then(|| drills.iter().map(Into::into).collect()),
    }
}

fn shown_timeline<'a>(selection: &Selection<'a>, timeline: &'a Timeline) -> ShownTimeline<'a> {
    let document = timeline.document();
    ShownTimeline {
        timeline: timeline.id(),
        parent: document.parent.as_ref().map(Into::into),
        created: document.created.to_datetime(),
        db_id: &document.db_id,
        detail: &document.detail,
        current: selection.is_current(timeline),
        head: timeline.end(),
    }
}

fn shown_base(base: &BaseDocument) -> ShownBase<'_> {
    ShownBase {
        id: &base.id,
        created: base.created.to_datetime(),
        timeline: base.floor.timeline,
        floor: (&base.floor).into(),
        first_wal: base.first_wal,
        last_sequence: base.last_sequence,
        files: base.files.len(),
        bytes: base.files.iter().map(|f| f.size).sum(),
        column_families: base.column_families.iter().map(|f| f.name.as_str()).collect(),
        rocksdb_version: &base.rocksdb_version,
    }
}

fn shown_barrier(timeline: TimelineId, barrier: &Barrier) -> ShownBarrier<'_> {
    ShownBarrier {
        timeline,
        reason: barrier.reason,
        lo: barrier.interval.lo,
        hi: barrier.interval.hi,
        noticed: barrier.noticed.to_datetime(),
        detail: &barrier.detail,
    }
}

fn shown_segment(timeline: TimelineId, s: &SegmentSummary) -> ShownSegment {
    ShownSegment {
        timeline,
        ordinal: s.ordinal,
        last_ordinal: s.last_ordinal,
        first: s.first,
        end: s.end,
        records: s.end.get().saturating_sub(s.first.get()),
        last_sequence: s.last_sequence,
        bytes: s.object_bytes,
        plain_bytes: s.plain_bytes,
        from: s.observed.map(|(first, _)| first.at.to_datetime()),
        to: s.observed.map(|(_, last)| last.at.to_datetime()),
        observed_through: s.observed_through.map(Micros::to_datetime),
        events: s.events.len(),
    }
}

async fn summed(archive: &Archive, outline: &Outline, selection: &Selection<'_>) -> Result<Vec<Summed>> {
    let mut all = Vec::new();
    for timeline in selection.timelines() {
        let timeline_id = timeline.id();
        let mut sum =
            Summed { timeline: timeline_id, segments: 0, heartbeats: 0, records: 0, bytes: 0, plain_bytes: 0 };
        let add = |s: &SegmentSummary| {
            sum.segments += 1;
            sum.heartbeats += usize::from(s.first == s.end);
            sum.records += s.end.get().saturating_sub(s.first.get());
            sum.bytes += s.object_bytes;
            sum.plain_bytes += s.plain_bytes;
            Ok(())
        };
        outline.each_segment(archive, timeline, add).await?;
        all.push(sum);
    }
    Ok(all)
}

fn tags(out: &Output, selection: &Selection<'_>) -> Table {
    let tags = selection.catalog.tags().iter();
    let tags = tags.filter(|t| selection.timeline.is_none_or(|id| id == t.position.timeline));
    tag::table(out, &tags.cloned().collect::<Vec<_>>())
}

fn timelines(out: &Output, selection: &Selection<'_>) -> Table {
    let columns = [
        ("timeline", Align::Left),
        ("began", Align::Left),
        ("left its parent after", Align::Right),
        ("last", Align::Right),
        ("observed through", Align::Left),
        ("why", Align::Left),
    ];
    let mut table = Table::new(out, &columns);
    let listed: Vec<_> = selection.timelines().collect();
    for (branch, t) in tree::branches(&listed) {
        let document = t.document();
        let current = if selection.is_current(t) { " *" } else { "" };
        table.row([
            format!("{branch}{}{current}", t.id()),
            text::short_time(document.created),
            document.parent.map_or_else(|| "-".to_owned(), |p| text::record(p.boundary)),
            text::record(t.end()),
            t.observed_through().map_or_else(|| "-".to_owned(), text::time),
            if document.detail.is_empty() { "the first".to_owned() } else { document.detail.clone() },
        ]);
    }
    table
}

fn bases(out: &Output, selection: &Selection<'_>) -> Table {
    let columns = [
        ("base", Align::Left),
        ("timeline", Align::Right),
        ("serves from", Align::Right),
        ("sequence", Align::Right),
        ("files", Align::Right),
        ("size", Align::Right),
        ("families", Align::Right),
        ("rocksdb", Align::Left),
    ];
    let mut table = Table::new(out, &columns);
    for base in selection.bases() {
        table.row([
            base.id.to_string(),
            base.floor.timeline.to_string(),
            text::record(base.floor.boundary),
            base.floor.sequence.to_string(),
            base.files.len().to_string(),
            text::bytes(base.files.iter().map(|f| f.size).sum()),
            base.column_families.len().to_string(),
            base.rocksdb_version.clone(),
        ]);
    }
    table
}

fn barriers(out: &Output, selection: &Selection<'_>) -> Table {
    let columns = [
        ("timeline", Align::Right),
        ("after record", Align::Right),
        ("reason", Align::Left),
        ("noticed", Align::Left),
        ("detail", Align::Left),
    ];
    let mut table = Table::new(out, &columns);
    for t in selection.timelines() {
        for b in t.barriers() {
            let hi = match b.interval.hi {
                Some(hi) if hi == b.interval.lo => String::new(),
                Some(hi) => format!("..{}", text::record(hi)),
                None => "..?".to_owned(),
            };
            table.row([
                t.id().to_string(),
                format!("{}{hi}", text::record(b.interval.lo)),
                text::name(b.reason),
                text::short_time(b.noticed),
                b.detail.clone(),
            ]);
        }
    }
    table
}

/// Every segment. What fills a table is printed; the rest is the answer.
async fn segments(out: &Output, archive: &Archive, outline: &Outline, selection: &Selection<'_>) -> Result<Table> {
    let columns = [
        ("timeline", Align::Right),
        ("segment", Align::Right),
        ("records", Align::Right),
        ("sequence", Align::Right),
        ("size", Align::Right),
        ("seen from", Align::Left),
        ("to", Align::Left),
        ("events", Align::Right),
    ];
    let mut table = Table::new(out, &columns);
    let time = |at: Option<DateTime<Utc>>| at.map_or_else(|| "-".to_owned(), text::time);
    for t in selection.timelines() {
        let show = |s: &SegmentSummary| {
            if table.rows() >= ROWS {
                out.line(std::mem::replace(&mut table, Table::new(out, &columns)).to_string())?;
            }
            let s = shown_segment(t.id(), s);
            let records = match s.records {
                0 => "heartbeat".to_owned(),
                _ => format!("{}..{}", s.first, text::record(s.end)),
            };
            table.row([
                s.timeline.to_string(),
                s.last_ordinal.map_or_else(|| s.ordinal.to_string(), |last| format!("{}-{last}", s.ordinal)),
                records,
                s.last_sequence.to_string(),
                text::bytes(s.bytes),
                time(s.from),
                time(s.to.max(s.observed_through)),
                s.events.to_string(),
            ]);
            Ok(())
        };
        outline.each_segment(archive, t, show).await?;
    }
    Ok(table)
}

fn summary(out: &Output, summed: &[Summed]) -> Table {
    let columns = [
        ("timeline", Align::Right),
        ("segments", Align::Right),
        ("heartbeats", Align::Right),
        ("records", Align::Right),
        ("stored", Align::Right),
        ("uncompressed", Align::Right),
    ];
    let mut table = Table::new(out, &columns);
    for s in summed {
        table.row([
            s.timeline.to_string(),
            s.segments.to_string(),
            s.heartbeats.to_string(),
            s.records.to_string(),
            text::bytes(s.bytes),
            text::bytes(s.plain_bytes),
        ]);
    }
    table
}
