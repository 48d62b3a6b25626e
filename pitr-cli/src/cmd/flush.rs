//! `pitr flush`: everything written so far, durable in the archive.

use pitr_archive::{Result, catalog::schema::Position};
use pitr_archiver::control::{Answer, Request};
use serde::Serialize;

use crate::{
    args::archiving::FlushArgs,
    cmd::work::{self, By},
    context::Context,
    output::{Verdict, json::ShownPosition, text},
};

#[derive(Serialize)]
struct Flushed {
    position: ShownPosition,
    by: By,
}

/// Ships it.
pub async fn run(context: &Context, args: &FlushArgs) -> Result<Verdict> {
    let bars = context.bars();
    let waiting = bars.spinner("archiving");
    let (position, by) = flush(context, args).await?;
    drop(waiting);
    let out = &context.output;
    if out.is_json() {
        out.json(&Flushed { position: (&position).into(), by })?;
    } else {
        out.line(format!(
            "The archive holds everything up to {}, sequence {}; shipped by {}.",
            text::boundary(position.timeline, position.boundary),
            position.sequence,
            by.words()
        ))?;
    }
    Ok(Verdict::Done)
}

async fn flush(context: &Context, args: &FlushArgs) -> Result<(Position, By)> {
    match work::ask_archiver(&args.database, &Request::Flush).await? {
        Some(Answer::Flush(position)) => return Ok((position, By::Archiver)),
        Some(_) => return Err(work::unexpected(&Request::Flush)),
        None => {}
    }
    let mut archiver = work::own_archiver(context, &args.database, &args.archive, |_| {}).await?;
    let position = archiver.catch_up().await?;
    archiver.close().await?;
    Ok((position, By::ThisProcess))
}
