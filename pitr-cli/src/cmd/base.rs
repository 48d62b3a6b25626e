//! `pitr base`: a base, now.

use pitr_archive::{Result, catalog::schema::Position, ids::BaseId};
use pitr_archiver::control::{Answer, Request};
use serde::Serialize;

use crate::{
    args::archiving::BaseArgs,
    cmd::work::{self, By},
    context::Context,
    output::{Verdict, json::ShownPosition, text},
};

#[derive(Serialize)]
struct Taken {
    id: BaseId,
    floor: ShownPosition,
    by: By,
}

/// Takes it.
pub async fn run(context: &Context, args: &BaseArgs) -> Result<Verdict> {
    let bars = context.bars();
    let waiting = bars.spinner("taking a base");
    let (id, floor, by) = take(context, args).await?;
    drop(waiting);
    let out = &context.output;
    if out.is_json() {
        out.json(&Taken { id, floor: (&floor).into(), by })?;
    } else {
        out.line(format!(
            "Base {id} is in the archive, taken by {}. It serves {} and everything after.",
            by.words(),
            text::boundary(floor.timeline, floor.boundary)
        ))?;
    }
    Ok(Verdict::Done)
}

async fn take(context: &Context, args: &BaseArgs) -> Result<(BaseId, Position, By)> {
    match work::ask_archiver(&args.database, &Request::Base).await? {
        Some(Answer::Base { id, floor }) => return Ok((id, floor, By::Archiver)),
        Some(_) => return Err(work::unexpected(&Request::Base)),
        None => {}
    }
    let include = args.include.clone();
    let mut archiver =
        work::own_archiver(context, &args.database, &args.archive, |config| config.include = include).await?;
    let base = archiver.take_base().await?;
    archiver.close().await?;
    Ok((base.id, base.floor, By::ThisProcess))
}
