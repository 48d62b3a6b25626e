//! `pitr tag create|list|delete`.

use chrono::{DateTime, Utc};
use pitr_archive::{Code, Error, Result, catalog::schema::TagDocument, tag};
use pitr_archiver::control::{Answer, Request, TagRequest, Unflushed};
use serde::Serialize;

use crate::{
    args::archiving::{TagAction, TagArgs, TagCreateArgs, TagDeleteArgs, TagListArgs},
    cmd::work::{self, By},
    context::Context,
    output::{
        Output, Verdict,
        json::ShownPosition,
        table::{Align, Table},
        text,
    },
};

/// A tag as it is shown.
#[derive(Serialize)]
pub struct ShownTag<'a> {
    name: &'a str,
    note: &'a str,
    position: ShownPosition,
    created: DateTime<Utc>,
    observed_only: bool,
}

impl<'a> From<&'a TagDocument> for ShownTag<'a> {
    fn from(tag: &'a TagDocument) -> Self {
        Self {
            name: &tag.name,
            note: &tag.note,
            position: (&tag.position).into(),
            created: tag.created.to_datetime(),
            observed_only: tag.observed_only,
        }
    }
}

#[derive(Serialize)]
struct Created<'a> {
    #[serde(flatten)]
    tag: ShownTag<'a>,
    by: By,
}

#[derive(Serialize)]
struct Tags<'a> {
    tags: Vec<ShownTag<'a>>,
}

#[derive(Serialize)]
struct Deleted<'a> {
    name: &'a str,
    deleted: bool,
}

/// Does what was asked.
pub async fn run(context: &Context, args: &TagArgs) -> Result<Verdict> {
    match &args.action {
        TagAction::Create(args) => create(context, args).await,
        TagAction::List(args) => list(context, args).await,
        TagAction::Delete(args) => delete(context, args).await,
    }
}

async fn create(context: &Context, args: &TagCreateArgs) -> Result<Verdict> {
    // A name that cannot be used is refused before anybody is asked.
    tag::Name::parse(&args.name)?;
    let bars = context.bars();
    let waiting = bars.spinner("archiving everything up to now");
    let (document, by) = make(context, args).await?;
    drop(waiting);
    let out = &context.output;
    if out.is_json() {
        out.json(&Created { tag: (&document).into(), by })?;
        return Ok(Verdict::Done);
    }
    out.line(format!(
        "Tag {} names {}, sequence {}. Everything committed before is in the archive.",
        document.name,
        text::boundary(document.position.timeline, document.position.boundary),
        document.position.sequence
    ))?;
    if document.observed_only {
        out.line(out.warn(
            "The server keeps committed writes in its own memory (manual_wal_flush): the tag holds what was in the files.",
        ))?;
    }
    Ok(Verdict::Done)
}

async fn make(context: &Context, args: &TagCreateArgs) -> Result<(TagDocument, By)> {
    let unflushed = if args.observed { Unflushed::Observed } else { Unflushed::Refuse };
    let wanted = TagRequest { name: args.name.clone(), note: args.note.clone(), unflushed };
    let request = Request::Tag(wanted.clone());
    match work::ask_archiver(&args.database, &request).await? {
        Some(Answer::Tag(document)) => return Ok((*document, By::Archiver)),
        Some(_) => return Err(work::unexpected(&request)),
        None => {}
    }
    let mut archiver = work::own_archiver(context, &args.database, &args.archive, |_| {}).await?;
    // The first run on an archive has no base yet, and a tag without one could not be restored.
    archiver.catch_up().await?;
    let document = archiver.tag(&wanted).await?;
    archiver.close().await?;
    Ok((document, By::ThisProcess))
}

async fn list(context: &Context, args: &TagListArgs) -> Result<Verdict> {
    let tags = context.archive(&args.archive).await?.tags().await?;
    let out = &context.output;
    if out.is_json() {
        out.json(&Tags { tags: tags.iter().map(Into::into).collect() })?;
    } else if tags.is_empty() {
        out.line("There are no tags. pitr tag create NAME --db DIR makes one.")?;
    } else {
        out.line(table(out, &tags).to_string())?;
    }
    Ok(Verdict::Done)
}

/// The table of tags, which `pitr list` shows too.
pub fn table(out: &Output, tags: &[TagDocument]) -> Table {
    let mut table = Table::new(
        out,
        &[
            ("tag", Align::Left),
            ("timeline", Align::Right),
            ("record", Align::Right),
            ("sequence", Align::Right),
            ("created", Align::Left),
            ("note", Align::Left),
        ],
    );
    for tag in tags {
        let note = match (tag.observed_only, tag.note.is_empty()) {
            (false, _) => tag.note.clone(),
            (true, true) => "(what was in the files)".to_owned(),
            (true, false) => format!("{} (what was in the files)", tag.note),
        };
        table.row([
            tag.name.clone(),
            tag.position.timeline.to_string(),
            text::record(tag.position.boundary),
            tag.position.sequence.to_string(),
            text::short_time(tag.created),
            note,
        ]);
    }
    table
}

async fn delete(context: &Context, args: &TagDeleteArgs) -> Result<Verdict> {
    let name = tag::Name::parse(&args.name)?;
    if !context.archive(&args.archive).await?.delete_tag(&name).await? {
        return Err(Error::new(Code::TagUnknown, "deleting the tag").on(&args.name));
    }
    let out = &context.output;
    if out.is_json() {
        out.json(&Deleted { name: &args.name, deleted: true })?;
    } else {
        out.line(format!("Tag {} is deleted. Its position stays restorable by record number or time.", args.name))?;
    }
    Ok(Verdict::Done)
}
