//! `pitr tag create|list|delete`.

use chrono::{DateTime, Utc};
use pitr_archive::{
    Code, Error, Result,
    catalog::schema::{TagDocument, TagGroup},
    clock::Micros,
    ids::Nonce,
    tag,
};
use pitr_archiver::control::{Answer, Request, TagRequest, Unflushed};
use serde::Serialize;

use crate::{
    args::{
        archiving::{TagAction, TagArgs, TagCreateArgs, TagDeleteArgs, TagListArgs},
        common::{DatabaseArgs, Source},
    },
    cmd::{
        group,
        work::{self, Answered, By},
    },
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
    /// Of which group tag it is a part.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<ShownGroup<'a>>,
}

#[derive(Serialize)]
struct ShownGroup<'a> {
    name: &'a str,
    id: Nonce,
    databases: Vec<&'a str>,
    began: DateTime<Utc>,
    closed: DateTime<Utc>,
}

impl<'a> From<&'a TagGroup> for ShownGroup<'a> {
    fn from(group: &'a TagGroup) -> Self {
        Self {
            name: &group.name,
            id: group.id,
            databases: group.members.iter().map(|member| member.database.as_str()).collect(),
            began: group.began.to_datetime(),
            closed: group.closed.to_datetime(),
        }
    }
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
            group: tag.group.as_ref().map(Into::into),
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
    if let Some(of) = args.group() {
        return group::create::run(context, args, &of).await;
    }
    // clap has made sure that there is one.
    let database = args.database.given().ok_or_else(|| Error::new(Code::Usage, "reading the database"))?;
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
    let wanted = TagRequest { name: args.name.clone(), note: args.note.clone(), unflushed, expires, group: None };
    let request = Request::Tag(wanted.clone());
    let (mut made, mut missing) = (Vec::new(), Vec::new());
    for Answered { archive, answer } in work::ask_archivers(&database, &args.archive, &request).await? {
        match answer {
            Ok(Answer::Tag(document)) => made.push((archive, *document, By::Archiver)),
            Ok(_) => return Err(work::unexpected(&request)),
            Err(e) => missing.push((work::shown(archive.as_deref()), e)),
        }
    }
    if made.is_empty() {
        made.push((None, make_here(context, &database, args, &wanted).await?, By::ThisProcess));
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

async fn make_here(
    context: &Context,
    database: &DatabaseArgs,
    args: &TagCreateArgs,
    wanted: &TagRequest,
) -> Result<TagDocument> {
    let (_alone, mut archiver) = work::own_archiver(context, database, &args.archive, |_| {}).await?;
    // The first run on an archive has no base yet, and a tag without one could not be restored.
    archiver.catch_up().await?;
    let document = archiver.tag(wanted).await?;
    archiver.close().await?;
    Ok(document)
}

async fn list(context: &Context, args: &TagListArgs) -> Result<Verdict> {
    let archive = match args.source.source() {
        Source::Group(of) => return group::list::run(context, &of).await,
        Source::Archive(archive) => archive,
    };
    let tags = context.archive(&archive).await?.tags().await?;
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
        let of = tag.group.as_ref().map(|of| format!("(of the group {})", of.name));
        let observed = tag.observed_only.then(|| "(what was in the files)".to_owned());
        let note = (!tag.note.is_empty()).then(|| tag.note.clone());
        let note: Vec<_> = [note, observed, of].into_iter().flatten().collect();
        table.row([
            tag.name.clone(),
            tag.position.timeline.to_string(),
            text::record(tag.position.boundary),
            tag.position.sequence.to_string(),
            text::short_time(tag.created),
            tag.expires.map_or_else(|| "never".to_owned(), text::short_time),
            note.join(" "),
        ]);
    }
    table
}

async fn delete(context: &Context, args: &TagDeleteArgs) -> Result<Verdict> {
    let archive = match args.source.source() {
        Source::Group(of) => return group::list::delete(context, &args.name, &of).await,
        Source::Archive(archive) => archive,
    };
    let name = tag::Name::parse(&args.name)?;
    if !context.archive(&archive).await?.delete_tag(&name).await? {
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
