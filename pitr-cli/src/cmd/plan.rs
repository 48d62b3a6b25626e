//! `pitr plan`: what a restore would do, and exactly where it would arrive.

mod picture;

use pitr_archive::{Code, Error, Result};
use pitr_replayer::{
    estimate::Estimate,
    log::Raw,
    part::{KeyRange, Part, PlannedPart},
    plan::{CrossIngest, InsideEvent, NoteKind, PlanOptions, PlannedPosition, RestorePlan, engine::EngineChoice},
    target::Target,
};
use serde::Serialize;

use crate::{
    args::{
        common::Source,
        restoring::{EngineArg, InsideEventArg, PartArgs, PlanArgs, PlanningArgs, TargetArgs},
    },
    cmd::{group, takes},
    context::Context,
    output::{
        Output, Verdict,
        table::{self, Align, Table},
        text,
    },
};

#[derive(Serialize)]
struct Planned<'a> {
    #[serde(flatten)]
    plan: &'a RestorePlan,
    estimate: Estimate,
}

/// Shows it.
pub async fn run(context: &Context, args: &PlanArgs) -> Result<Verdict> {
    let archive = match args.source.source() {
        Source::Group(of) => return group::plan::run(context, args, &of).await,
        Source::Archive(archive) => archive,
    };
    let target = target(context, &args.target)?;
    let archive = context.archive(&archive).await?;
    let (plan, outline) = context.plan_on_outline(&archive, &target, &options(&args.planning)?).await?;
    let estimate = takes::takes(&archive, &plan).await;
    let out = &context.output;
    if out.is_json() {
        out.json(&Planned { plan: &plan, estimate })?;
        return Ok(Verdict::Done);
    }
    show(out, &plan, Some(&estimate))?;
    out.line("")?;
    out.picture(&picture::picture(&plan, outline.catalog()))?;
    if args.full {
        show_parts(out, &plan)?;
    }
    Ok(Verdict::Done)
}

/// The one target that was typed; clap has made sure that there is one.
pub fn target(context: &Context, args: &TargetArgs) -> Result<Target> {
    if let Some(text) = &args.to_record {
        return Target::record(text);
    }
    if let Some(text) = &args.to_seq {
        return Target::sequence(text);
    }
    if let Some(text) = &args.to_time {
        return Target::time(text, context.clock.now().to_datetime(), &context.zone);
    }
    Ok(args.to_tag.as_ref().map_or(Target::Latest, |name| Target::tag(name)))
}

/// How to plan.
pub fn options(args: &PlanningArgs) -> Result<PlanOptions> {
    Ok(PlanOptions {
        timeline: args.timeline,
        base: args.base.clone(),
        inside_event: match args.inside_event {
            InsideEventArg::Refuse => InsideEvent::Refuse,
            InsideEventArg::Before => InsideEvent::Before,
        },
        cross_ingest: if args.cross_ingest { CrossIngest::Repeat } else { CrossIngest::Refuse },
        engine: match args.engine {
            EngineArg::Auto => EngineChoice::Auto,
            EngineArg::Native => EngineChoice::Native,
            EngineArg::Flush => EngineChoice::Flush,
            EngineArg::Bulk => EngineChoice::Bulk,
            EngineArg::FlushAndBulk => EngineChoice::FlushAndBulk,
        },
        part: part(&args.part)?,
        ..PlanOptions::default()
    })
}

/// What of the database.
fn part(args: &PartArgs) -> Result<Option<Part>> {
    let keys = match (&args.prefix, args.range.as_slice()) {
        (Some(prefix), _) => KeyRange::prefix(&prefix.0),
        (None, [from, to]) => KeyRange::between(&from.0, &to.0).ok_or_else(|| {
            Error::new(Code::Usage, "reading --range")
                .with("it ends", "where it begins, or before; keys are compared byte by byte")
        })?,
        (None, _) => KeyRange::default(),
    };
    // An empty variable must not give one tenant everything.
    if keys.is_all() && (args.prefix.is_some() || !args.range.is_empty()) {
        return Err(Error::new(Code::Usage, "reading --prefix and --range").with("they leave out", "nothing"));
    }
    let part = Part { families: args.cf.clone(), keys };
    Ok((part != Part::default()).then_some(part))
}

/// Where a plan or restore arrives, in words.
pub fn arrives(position: &PlannedPosition) -> String {
    let wal = position.wal.map(|wal| format!(", WAL {:06}", wal.get())).unwrap_or_default();
    format!("{}, sequence {}{wal}", text::boundary(position.timeline, position.boundary), position.sequence)
}

/// The plan for people.
pub fn show(out: &Output, plan: &RestorePlan, estimate: Option<&Estimate>) -> Result<()> {
    let distance = match plan.distance.exact {
        true => out.good("exactly what was asked for"),
        false => out.warn(&plan.distance.text),
    };
    let mut facts = vec![
        ("target", plan.target.to_string()),
        ("arrives at", arrives(&plan.position)),
        ("distance", distance),
        ("in that state", certain(plan)),
        (
            "base",
            format!(
                "{} of {}: {}, {}",
                plan.base.id,
                text::short_time(plan.base.created),
                text::count(plan.base.files as u64, "file"),
                text::bytes(plan.base.bytes)
            ),
        ),
        ("why this base", plan.base.reason.clone()),
        (
            "log",
            format!(
                "{} from {}, {}",
                text::count(plan.position.boundary.get().saturating_sub(plan.base.first_record.get()), "record"),
                text::count(plan.segments.len() as u64, "segment"),
                text::bytes(plan.segments.iter().map(|s| s.bytes).sum())
            ),
        ),
        ("engine", format!("{}: {}", text::name(plan.engine.name), plan.engine.reason)),
        ("reads", format!("{} at most", text::bytes(plan.download_bytes))),
        ("needs on disk", text::bytes(plan.disk_bytes)),
    ];
    if let Some(estimate) = estimate {
        facts.push(("takes", takes::shown(estimate)));
    }
    if let Some(part) = &plan.part {
        facts.insert(3, ("part", shown(part)));
    }
    if !plan.column_families.is_empty() {
        let edits = plan.column_families.iter().map(|e| format!("{} {}", e.name, text::name(e.change)));
        facts.push(("column families", edits.collect::<Vec<_>>().join("\n")));
    }
    if !plan.ingestions.is_empty() {
        let lines = plan.ingestions.iter().map(|one| {
            let files: u64 = one.parts.iter().map(|part| part.files.len() as u64).sum();
            format!("{}, {} at boundary {}", text::count(files, "file"), text::bytes(one.bytes()), one.at)
        });
        facts.push(("ingestions", lines.collect::<Vec<_>>().join("\n")));
    }
    if !plan.pending.is_empty() {
        let lines = plan.pending.iter().map(|t| {
            format!("{} ({}, prepared in record {})", t.name, text::count(t.operations, "operation"), t.record)
        });
        facts.push(("pending", lines.collect::<Vec<_>>().join("\n")));
    }
    let notes: Vec<_> = plan.notes.iter().map(|n| note(out, n.kind, &n.text)).collect();
    if !notes.is_empty() {
        facts.push(("note", notes.join("\n")));
    }
    out.line(table::facts(out, &facts))
}

fn shown(part: &PlannedPart) -> String {
    let names: Vec<_> = part.families.iter().map(|family| family.name.as_str()).collect();
    let keys = part.keys.as_ref().map(|keys| {
        let to = keys.to().map_or_else(|| "the last".to_owned(), |to| format!("below {}", Raw(to.to_vec().into())));
        format!("; keys from {}, {to}", Raw(keys.from().to_vec().into()))
    });
    format!(
        "{}{}; {} of {} not fetched",
        names.join(", "),
        keys.unwrap_or_default(),
        text::count(part.files_left_out as u64, "file"),
        text::bytes(part.bytes_left_out)
    )
}

/// A note, louder when it is about what the restored database lacks.
pub fn note(out: &Output, kind: NoteKind, words: &str) -> String {
    match kind {
        NoteKind::ForeignPath | NoteKind::SequenceReuse => words.to_owned(),
        _ => out.warn(words),
    }
}

fn certain(plan: &RestorePlan) -> String {
    match (plan.time.from, plan.time.to) {
        (Some(from), Some(to)) if from == to => format!("certainly at {}, when somebody last looked", text::time(from)),
        (Some(from), Some(to)) if from <= to => format!("certainly from {} to {}", text::time(from), text::time(to)),
        (Some(from), _) => format!("reached by {}; nobody saw until when it stayed so", text::time(from)),
        (None, Some(to)) => format!("at some time until {}", text::time(to)),
        (None, None) => "at a time that nobody watched".to_owned(),
    }
}

/// Segments, WALs and column family edits, one by one.
pub fn show_parts(out: &Output, plan: &RestorePlan) -> Result<()> {
    let mut segments = Table::new(
        out,
        &[("segment", Align::Right), ("timeline", Align::Right), ("boundaries", Align::Left), ("size", Align::Right)],
    );
    for s in &plan.segments {
        segments.row([
            s.ordinals().to_string(),
            s.timeline.to_string(),
            format!("{}..{}", s.first, s.end),
            text::bytes(s.bytes),
        ]);
    }
    let mut wals = Table::new(out, &[("wal", Align::Right), ("boundaries", Align::Left)]);
    for wal in &plan.wals {
        wals.row([format!("{:06}", wal.number.get()), format!("{}..{}", wal.first, wal.end)]);
    }
    for (title, table) in [("Segments read", segments), ("WAL files written", wals)] {
        out.line(format!("\n{}", out.heading(title)))?;
        out.line(if table.is_empty() { out.faint("none") } else { table.to_string() })?;
    }
    Ok(())
}
