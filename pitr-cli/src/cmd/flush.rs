//! `pitr flush`: everything written so far, durable in the archive.

use pitr_archive::{Result, catalog::schema::Position};
use pitr_archiver::control::{Answer, Request};
use serde::Serialize;

use crate::{
    args::archiving::FlushArgs,
    cmd::work::{self, Answered, By},
    context::Context,
    output::{Output, Verdict, json::ShownPosition, text},
};

#[derive(Serialize)]
struct Flushed {
    position: ShownPosition,
    by: By,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<String>,
    /// The same of the further archives, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    archives: Vec<Flushed>,
    /// The archives that lack it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
}

impl Flushed {
    fn new(archive: Option<String>, position: &Position, by: By) -> Self {
        Self { position: position.into(), by, archive, archives: Vec::new(), missing: Vec::new() }
    }
}

/// Ships it.
pub async fn run(context: &Context, args: &FlushArgs) -> Result<Verdict> {
    let bars = context.bars();
    let waiting = bars.spinner("archiving");
    let out = &context.output;
    let (mut flushed, mut missing) = (Vec::new(), Vec::new());
    for Answered { archive, answer } in work::ask_archivers(&args.database, &args.archive, &Request::Flush).await? {
        match answer {
            Ok(Answer::Flush(position)) => {
                if !out.is_json() {
                    show(out, archive.as_deref(), &position, By::Archiver)?;
                }
                flushed.push(Flushed::new(archive, &position, By::Archiver));
            }
            Ok(_) => return Err(work::unexpected(&Request::Flush)),
            Err(e) => missing.push((work::shown(archive.as_deref()), e)),
        }
    }
    if flushed.is_empty() {
        let (_alone, mut archiver) = work::own_archiver(context, &args.database, &args.archive, |_| {}).await?;
        let position = archiver.catch_up().await?;
        let all = archiver.refuse_while_waiting("shipping");
        archiver.close().await?;
        all?;
        if !out.is_json() {
            show(out, None, &position, By::ThisProcess)?;
        }
        flushed.push(Flushed::new(None, &position, By::ThisProcess));
    }
    drop(waiting);
    let missing = work::say_missing(out, &missing)?;
    let mut flushed = flushed.into_iter();
    if let (true, Some(first)) = (out.is_json(), flushed.next()) {
        out.json(&Flushed { archives: flushed.collect(), missing, ..first })?;
    }
    Ok(Verdict::Done)
}

fn show(out: &Output, archive: Option<&str>, position: &Position, by: By) -> Result<()> {
    let place = archive.map_or_else(|| "The archive".to_owned(), |name| format!("Archive {name}"));
    out.line(format!(
        "{place} holds everything up to {}, sequence {}; shipped by {}.",
        text::boundary(position.timeline, position.boundary),
        position.sequence,
        by.words()
    ))
}
