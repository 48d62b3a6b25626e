//! `pitr tag create|list|delete`.

use chrono::{DateTime, Utc};
use pitr_archive::{Code, Error, Result, catalog::schema::TagDocument, clock::Micros, tag};
use pitr_archiver::control::{Answer, Request, TagRequest, Unflushed};
use serde::Serialize;

use crate::{
    args::archiving::{TagAction, TagArgs, TagCreateArgs, TagDeleteArgs, TagListArgs},
    cmd::work::{self, Answered, By},
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
    expires: Option<DateTime<Utc>>,
}

impl<'a> From<&'a TagDocument> for ShownTag<'a> {
    fn from(tag: &'a TagDocument) -> Self {
        Self {
            name: &tag.name,
            note: &tag.note,
            position: (&tag.position).into(),
            created: tag.created.to_datetime(),
            observed_only: tag.observed_only,
            expires: tag.expires.map(Micros::to_datetime),
        }
    }
}

#[derive(Serialize)]
struct Created<'a> {
    #[serde(flatten)]
    tag: ShownTag<'a>,
    by: By,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<String>,
    /// The same of the further archives, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    archives: Vec<Created<'a>>,
    /// The archives that lack the tag.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
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
    let out = &context.output;
    let unflushed = if args.observed { Unflushed::Observed } else { Unflushed::Refuse };
    let expires = args.expires.map(|after| {
        let micros = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
        Micros(context.clock.now().0.saturating_add(micros))
    });
    let wanted = TagRequest { name: args.name.clone(), note: args.note.clone(), unflushed, expires };
    let request = Request::Tag(wanted.clone());
    let (mut made, mut missing) = (Vec::new(), Vec::new());
    for Answered { archive, answer } in work::ask_archivers(&args.database, &args.archive, &request).await? {
        match answer {
            Ok(Answer::Tag(document)) => made.push((archive, *document, By::Archiver)),
            Ok(_) => return Err(work::unexpected(&request)),
            Err(e) => missing.push((work::shown(archive.as_deref()), e)),
        }
    }
    if made.is_empty() {
        made.push((None, make_here(context, args, &wanted).await?, By::ThisProcess));
    }
    drop(waiting);
    if !out.is_json() {
        for (archive, document, _) in &made {
            show(out, archive.as_deref(), document)?;
        }
    }
    let missing = work::say_missing(out, &missing)?;
    let mut shown = made.iter().map(|(archive, document, by)| Created {
        tag: document.into(),
        by: *by,
        archive: archive.clone(),
        archives: Vec::new(),
        missing: Vec::new(),
    });
    if let (true, Some(first)) = (out.is_json(), shown.next()) {
        out.json(&Created { archives: shown.collect(), missing, ..first })?;
    }
    Ok(Verdict::Done)
}

fn show(out: &Output, archive: Option<&str>, document: &TagDocument) -> Result<()> {
    let place = archive.map_or_else(|| "the archive".to_owned(), |name| format!("archive {name}"));
    out.line(format!(
        "Tag {} names {}, sequence {}. Everything committed before is in {place}.",
        document.name,
        text::boundary(document.position.timeline, document.position.boundary),
        document.position.sequence
    ))?;
    if document.observed_only {
        out.line(out.warn(
            "The server keeps committed writes in its own memory (manual_wal_flush): the tag holds what was in the files.",
        ))?;
    }
    Ok(())
}

async fn make_here(context: &Context, args: &TagCreateArgs, wanted: &TagRequest) -> Result<TagDocument> {
    let (_alone, mut archiver) = work::own_archiver(context, &args.database, &args.archive, |_| {}).await?;
    // The first run on an archive has no base yet, and a tag without one could not be restored.
    archiver.catch_up().await?;
    let document = archiver.tag(wanted).await?;
    archiver.close().await?;
    Ok(document)
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
            ("expires", Align::Left),
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
            tag.expires.map_or_else(|| "never".to_owned(), text::short_time),
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
