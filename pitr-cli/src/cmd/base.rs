//! `pitr base`: a base, now.

use pitr_archive::{Result, catalog::schema::Position, ids::BaseId};
use pitr_archiver::control::{Answer, Request};
use serde::Serialize;

use crate::{
    args::archiving::BaseArgs,
    cmd::work::{self, Answered, By},
    context::Context,
    output::{Output, Verdict, json::ShownPosition, text},
};

#[derive(Serialize)]
struct Taken {
    id: BaseId,
    floor: ShownPosition,
    by: By,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<String>,
    /// The same of the further archives, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    archives: Vec<Taken>,
    /// The archives that have none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
}

impl Taken {
    fn new(archive: Option<String>, id: BaseId, floor: &Position, by: By) -> Self {
        Self { id, floor: floor.into(), by, archive, archives: Vec::new(), missing: Vec::new() }
    }
}

/// Takes it.
pub async fn run(context: &Context, args: &BaseArgs) -> Result<Verdict> {
    let bars = context.bars();
    let waiting = bars.spinner("taking a base");
    let out = &context.output;
    let (mut taken, mut missing) = (Vec::new(), Vec::new());
    for Answered { archive, answer } in work::ask_archivers(&args.database, &args.archive, &Request::Base).await? {
        match answer {
            Ok(Answer::Base { id, floor }) => {
                if !out.is_json() {
                    show(out, archive.as_deref(), &id, &floor, By::Archiver)?;
                }
                taken.push(Taken::new(archive, id, &floor, By::Archiver));
            }
            Ok(_) => return Err(work::unexpected(&Request::Base)),
            Err(e) => missing.push((work::shown(archive.as_deref()), e)),
        }
    }
    if taken.is_empty() {
        let (id, floor) = take_here(context, args).await?;
        if !out.is_json() {
            show(out, None, &id, &floor, By::ThisProcess)?;
        }
        taken.push(Taken::new(None, id, &floor, By::ThisProcess));
    }
    drop(waiting);
    let missing = work::say_missing(out, &missing)?;
    let mut taken = taken.into_iter();
    if let (true, Some(first)) = (out.is_json(), taken.next()) {
        out.json(&Taken { archives: taken.collect(), missing, ..first })?;
    }
    Ok(Verdict::Done)
}

fn show(out: &Output, archive: Option<&str>, id: &BaseId, floor: &Position, by: By) -> Result<()> {
    let place = archive.map_or_else(|| "the archive".to_owned(), |name| format!("archive {name}"));
    out.line(format!(
        "Base {id} is in {place}, taken by {}. It serves {} and everything after.",
        by.words(),
        text::boundary(floor.timeline, floor.boundary)
    ))
}

async fn take_here(context: &Context, args: &BaseArgs) -> Result<(BaseId, Position)> {
    let include = args.include.clone();
    let (_alone, mut archiver) =
        work::own_archiver(context, &args.database, &args.archive, |config| config.include = include).await?;
    let base = archiver.take_base().await?;
    archiver.close().await?;
    Ok((base.id, base.floor))
}
