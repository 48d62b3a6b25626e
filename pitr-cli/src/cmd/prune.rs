//! `pitr prune`: what of an archive is kept.
//!
//! Owns: showing the decisions. They are the archiver crate's.

use std::{path::Path, time::Duration};

use pitr_archive::{
    Code, Error, Result,
    catalog::{archive::Archive, windows::Window},
    ids::TimelineId,
    store::url,
};
use pitr_archiver::retention::{
    Floor, Mode, Policy, PruneReport, Request,
    decide::{BaseDecision, Drop, Keep, TagDecision},
    prune,
    report::{Tallies, TimelineReport},
};

use crate::{
    args::keeping::PruneArgs,
    context::Context,
    output::{
        Output, Verdict,
        table::{self, Align, Table},
        text,
    },
    settings::{jobs, secret::SecretRef, sources},
};

/// So many tags are shown; `--json` has all.
const SHOWN_TAGS: usize = 50;

/// Prunes, or says what would be pruned.
pub async fn run(context: &Context, args: &PruneArgs) -> Result<Verdict> {
    let configured = args.config.as_ref().map(|file| configured(file, &args.archive.archive)).transpose()?;
    let (policy, key) = configured.unwrap_or_else(|| (policy(args), None));
    let request = Request {
        policy,
        floor: if args.force { Floor::Ignored } else { Floor::Respected },
        mode: if args.dry_run { Mode::DryRun } else { Mode::Act },
    };
    let archive = match key.filter(|_| args.archive.key_file.is_none()) {
        None => context.archive(&args.archive).await?,
        Some(key) => {
            let key = key.read_key().await?;
            Archive::open(context.store(&args.archive.archive).await?, Some(key)).await?
        }
    };
    let bars = context.bars();
    let waiting = bars.spinner("reading the archive");
    let report = prune(&archive, &request, &*context.clock, &*context.random).await?;
    drop(waiting);
    let out = &context.output;
    if out.is_json() {
        out.json(&report)?;
    } else {
        show(out, &report, &request.policy)?;
    }
    Ok(Verdict::Done)
}

/// What a configuration keeps of this archive, and where the archive's key is.
fn configured(file: &Path, wanted: &str) -> Result<(Policy, Option<SecretRef>)> {
    let refused = || Error::new(Code::ConfigContradictory, "reading what is kept").on(file.display());
    let jobs = jobs::of(&sources::load(file, sources::environment())?.file)?;
    let place = jobs::place_of(wanted);
    let wanted = url::redacted(wanted);
    let Some(job) = jobs.iter().find(|job| jobs::place_of(&job.url) == place) else {
        let known: Vec<_> = jobs.iter().map(|job| url::redacted(&job.url)).collect();
        let e = refused().with("archive", wanted).with("archives there", known.join(", "));
        return Err(e.hint("name the archive as the configuration does"));
    };
    let e =
        || refused().with("archive", wanted).with("[retention]", "none").hint("without one nothing is ever deleted");
    Ok((job.retention.ok_or_else(e)?, job.key.clone()))
}

fn policy(args: &PruneArgs) -> Policy {
    let PruneArgs {
        keep_window: window,
        keep_last: last,
        keep_hourly: hourly,
        keep_daily: daily,
        keep_weekly: weekly,
        keep_monthly: monthly,
        keep_yearly: yearly,
        keep_at_least,
        grace,
        ..
    } = *args;
    Policy { window, last, hourly, daily, weekly, monthly, yearly, keep_at_least, grace }
}

fn show(out: &Output, report: &PruneReport, policy: &Policy) -> Result<()> {
    out.line(table::facts(out, &[("window", window(report)), ("grace", text::duration(policy.grace))]))?;
    if !report.bases.is_empty() {
        out.line(format!("\n{}", bases(out, &report.bases)))?;
    }
    if !report.tags.is_empty() {
        out.line(format!("\n{}", tags(out, &report.tags)))?;
        if report.tags.len() > SHOWN_TAGS {
            out.line(format!("{} more; --json has all", text::count(report.tags.len() - SHOWN_TAGS, "tag")))?;
        }
    }
    if !report.timelines.is_empty() {
        out.line(format!("\n{}", segments(out, &report.timelines)))?;
    }
    for timeline in &report.timelines {
        let name = |when: &str| format!("timeline {} restorable {when}", timeline.timeline);
        let (before, after) = (name("before"), name("after"));
        let facts = [
            (before.as_str(), restorable(timeline.timeline, &timeline.before)),
            (after.as_str(), restorable(timeline.timeline, &timeline.after)),
        ];
        out.line(format!("\n{}", table::facts(out, &facts)))?;
    }
    let (go, deleted) = match report.dry_run {
        true => ("would no longer be part of the archive", "would be deleted now"),
        false => ("no longer part of the archive from now on", "deleted"),
    };
    let mut waiting =
        format!("{} ({})", text::count(report.waiting.objects, "object"), text::bytes(report.waiting.bytes));
    if let Some(due) = report.due {
        waiting = format!("{waiting}, the first from {} on", text::short_time(due));
    }
    let mut facts = vec![
        (go, tallies(&report.condemned)),
        (deleted, tallies(&report.deleted)),
        ("waiting for the grace period", waiting),
    ];
    if report.holds > 0 {
        facts.push(("held by restores under way", text::count(report.holds, "base")));
    }
    out.line(format!("\n{}", table::facts(out, &facts)))?;
    if report.dry_run { out.line("Nothing was changed.") } else { Ok(()) }
}

fn window(report: &PruneReport) -> String {
    let length = text::duration(Duration::from_secs(report.window_seconds));
    let widened = if report.window_widened { " (not less without --force)" } else { "" };
    match (report.window_from, report.window_to) {
        (Some(from), Some(to)) => {
            format!("{length}{widened}: {} to {}", text::short_time(from), text::short_time(to))
        }
        _ => format!("{length}{widened}: nothing was observed yet, so everything is kept"),
    }
}

fn bases(out: &Output, bases: &[BaseDecision]) -> Table {
    let columns = [
        ("base", Align::Left),
        ("timeline", Align::Right),
        ("record", Align::Right),
        ("taken", Align::Left),
        ("bytes", Align::Right),
        ("decision", Align::Left),
        ("reason", Align::Left),
    ];
    let mut table = Table::new(out, &columns);
    for base in bases {
        let (decision, reason) = match base.drop {
            None => ("keep", base.keep.iter().map(keep).collect::<Vec<_>>().join(", ")),
            Some(why) => ("delete", drop_reason(why).to_owned()),
        };
        table.row([
            base.id.to_string(),
            base.timeline.to_string(),
            text::record(base.floor),
            text::short_time(base.created),
            text::bytes(base.bytes),
            decision.to_owned(),
            reason,
        ]);
    }
    table
}

fn keep(why: &Keep) -> String {
    match why {
        Keep::Window => "window".to_owned(),
        Keep::Newest => "newest position".to_owned(),
        Keep::Last => "last".to_owned(),
        Keep::Hourly => "hourly".to_owned(),
        Keep::Daily => "daily".to_owned(),
        Keep::Weekly => "weekly".to_owned(),
        Keep::Monthly => "monthly".to_owned(),
        Keep::Yearly => "yearly".to_owned(),
        Keep::Tag { name, tags: 1 } => format!("tag {name}"),
        Keep::Tag { name, tags } => format!("tag {name} and {} more", tags - 1),
        Keep::Hold => "a restore reads it".to_owned(),
        Keep::Head => "the archive's end".to_owned(),
    }
}

const fn drop_reason(why: Drop) -> &'static str {
    match why {
        Drop::NoRule => "no rule keeps it",
        Drop::ServesNothing => "nothing can be restored from it",
        Drop::LeftBranch => "its branch was left before the window began",
    }
}

fn tags(out: &Output, tags: &[TagDecision]) -> Table {
    let columns = [
        ("tag", Align::Left),
        ("timeline", Align::Right),
        ("record", Align::Right),
        ("decision", Align::Left),
        ("reason", Align::Left),
    ];
    let mut table = Table::new(out, &columns);
    for tag in tags.iter().take(SHOWN_TAGS) {
        let (decision, reason) = match (tag.expired, tag.expires, &tag.base) {
            (true, Some(expires), _) => ("delete", format!("expired {}", text::short_time(expires))),
            (true, None, _) => ("delete", "expired".to_owned()),
            (false, _, None) => ("keep", "no base reaches it".to_owned()),
            (false, Some(expires), Some(base)) => ("keep", format!("until {}, from {base}", text::short_time(expires))),
            (false, None, Some(base)) => ("keep", format!("until it is deleted, from {base}")),
        };
        table.row([
            tag.name.clone(),
            tag.timeline.to_string(),
            text::record(tag.boundary),
            decision.to_owned(),
            reason,
        ]);
    }
    table
}

fn segments(out: &Output, timelines: &[TimelineReport]) -> Table {
    let columns = [
        ("timeline", Align::Right),
        ("records", Align::Left),
        ("segments", Align::Right),
        ("bytes", Align::Right),
        ("decision", Align::Left),
        ("reason", Align::Left),
    ];
    let mut table = Table::new(out, &columns);
    for timeline in timelines {
        for kept in &timeline.kept {
            table.row([
                timeline.timeline.to_string(),
                format!("{} to {}", kept.first, text::record(kept.end)),
                kept.segments.to_string(),
                text::bytes(kept.bytes),
                "keep".to_owned(),
                kept.keep.iter().map(keep).collect::<Vec<_>>().join(", "),
            ]);
        }
        if timeline.dropped.objects > 0 {
            table.row([
                timeline.timeline.to_string(),
                "all others".to_owned(),
                timeline.dropped.objects.to_string(),
                text::bytes(timeline.dropped.bytes),
                "delete".to_owned(),
                "nothing that is kept needs them".to_owned(),
            ]);
        }
    }
    table
}

fn restorable(timeline: TimelineId, windows: &[Window]) -> String {
    let shown = windows.iter().map(|window| {
        let at = |boundary| text::boundary(timeline, boundary);
        format!("{} to {} (first base {})", at(window.from), at(window.to), text::short_time(window.since))
    });
    let lines: Vec<_> = shown.collect();
    if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") }
}

fn tallies(tallies: &Tallies) -> String {
    let parts = [
        ("base", tallies.bases.objects),
        ("file", tallies.files.objects),
        ("segment", tallies.segments.objects),
        ("manifest", tallies.manifests.objects),
        ("tag", tallies.tags.objects),
        ("drill report", tallies.drills.objects),
        ("leftover", tallies.leftovers.objects),
    ];
    let parts: Vec<_> = parts.iter().filter(|(_, n)| *n > 0).map(|(noun, n)| text::count(*n, noun)).collect();
    if parts.is_empty() {
        return "nothing".to_owned();
    }
    let unreferenced = match tallies.unreferenced.objects {
        0 => String::new(),
        n => format!("; {} named by nothing", text::count(n, "file")),
    };
    format!("{} ({}){unreferenced}", parts.join(", "), text::bytes(tallies.total().bytes))
}
