//! `pitr log`: the archived writes, decoded.

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use pitr_archive::{Result, ids::RecordNumber};
use pitr_replayer::{
    log::{LogEntry, LogFilter, scan},
    target::Target,
};

use crate::{
    args::looking::LogArgs,
    context::Context,
    output::{Lines, Output, Verdict, text},
};

const KEY_WIDTH: usize = 80;
const VALUE_WIDTH: usize = 60;
/// Two looks this close together tell the time of what lies between them to within what `text::time` is read for.
const CLOSE: TimeDelta = TimeDelta::seconds(2);

/// Shows them as they are read.
pub async fn run(context: &Context, args: &LogArgs) -> Result<Verdict> {
    let place = |text: &Option<String>| text.as_deref().map(|text| place(context, text)).transpose();
    let filter = LogFilter {
        timeline: args.timeline,
        from: place(&args.from)?,
        to: place(&args.to)?,
        column_family: args.cf.clone(),
        key: args.key.clone().map(|key| key.0),
        prefix: args.prefix.clone().map(|prefix| prefix.0),
        // One more tells whether there is more.
        limit: Some(args.limit.saturating_add(1)),
    };
    let archive = context.archive(&args.archive).await?;
    let catalog = context.catalog(&archive).await?;
    let entries = scan(&archive, &catalog, filter).await?;
    let mut entries = std::pin::pin!(entries);
    let out = &context.output;
    let mut lines = Lines::new();
    if !out.is_json() {
        let head =
            format!("{:>10}  {:<28}  {:>10}  {}", "RECORD", "SEEN", "SEQUENCE", "FAMILY  OPERATION  KEY = VALUE");
        lines.text(&out.heading(&head))?;
    }
    let mut shown = 0;
    while let Some(entry) = entries.try_next().await? {
        if shown == args.limit {
            if !out.is_json() {
                lines.text(&out.faint(&format!(
                    "... more: --limit {} was reached, go on with --from {}",
                    args.limit, entry.record
                )))?;
            }
            break;
        }
        match out.is_json() {
            true => lines.json(&entry)?,
            false => lines.text(&line(out, &entry, args.full))?,
        }
        shown += 1;
    }
    if shown == 0 && !out.is_json() {
        lines.text(&out.faint(match args.key {
            Some(_) => "nothing matches: --key is a whole key, and --prefix shows all keys that begin so",
            None => "nothing matches",
        }))?;
    }
    lines.finish()?;
    Ok(Verdict::Done)
}

/// A record number, `tag:NAME`, or a time.
fn place(context: &Context, text: &str) -> Result<Target> {
    if let Ok(record) = text.parse::<RecordNumber>() {
        return Ok(Target::Record(record));
    }
    match text.strip_prefix("tag:") {
        Some(name) => Ok(Target::tag(name)),
        None => Target::time(text, context.clock.now().to_datetime(), &context.zone),
    }
}

/// The time for people. Marked where the look before was long ago, or there was none: then it only bounds the time.
fn seen_text(seen: DateTime<Utc>, unseen: Option<DateTime<Utc>>) -> String {
    let close = unseen.is_some_and(|unseen| seen - unseen <= CLOSE);
    let mark = if close { "" } else { "<" };
    format!("{mark}{}", text::time(seen))
}

fn line(out: &Output, entry: &LogEntry, full: bool) -> String {
    let short = |text: String, width| if full { text } else { text::shortened(&text, width) };
    let dash = || "-".to_owned();
    let family = entry.column_family.as_ref().map_or_else(dash, |f| f.name.clone().unwrap_or_else(|| f.id.to_string()));
    let mut line = format!(
        "{:>10}  {:<28}  {:>10}  {family}  {}",
        entry.record.to_string(),
        entry.seen.map_or_else(dash, |seen| seen_text(seen, entry.unseen)),
        entry.sequence.map_or_else(dash, |s| s.to_string()),
        text::name(entry.operation),
    );
    if let Some(key) = &entry.key {
        line += &format!("  {}", short(key.to_string(), KEY_WIDTH));
    }
    if let Some(value) = &entry.value {
        line += &format!(" = {}", short(value.to_string(), VALUE_WIDTH));
    }
    if entry.withdrawn { out.warn(&format!("{line}  (taken back by the server)")) } else { line }
}
