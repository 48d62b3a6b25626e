//! `pitr tag create --group`: one tag for all databases of a group, or none.
//!
//! Owns: the order. (1) Every archiver is asked how it is: one that cannot be asked ends it before there is any tag. (2) The
//! application's writes are held, if the configuration says how. (3) All archivers are asked at once, with one random id, and
//! until when their positions count: one that has everything in its archive only later makes no tag. (4) The application goes
//! on, whatever happened. (5) Where a database could not be tagged, the tags of the others are taken back. One that cannot be
//! taken back names an id that not every database has: it is recognised as incomplete, and no group is restored to it.
//! Refuses: to tag without the running archivers: what they have read and not shipped, nobody else knows.

use std::{path::PathBuf, time::Duration};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use pitr_archive::{
    Code, Error, Result,
    catalog::schema::{Extra, TagDocument, TagMember},
    clock::Micros,
    ids::{ArchiveId, Nonce},
    tag,
};
use pitr_archiver::{
    control::{Answer, GroupRequest, Request, Status, TagRequest, Unflushed, UntagRequest, ask},
    state::StateDir,
};
use serde::Serialize;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Fault, load, open, refused,
    tally::{Next, Tally},
};
use crate::{
    args::{archiving::TagCreateArgs, common::GroupArgs},
    cmd::work,
    context::Context,
    hook,
    interrupt::Interrupts,
    output::{
        Output, Verdict,
        json::ShownPosition,
        table::{Align, Table},
        text,
    },
    settings::{file::Command, groups::Group, jobs, jobs::Job},
};

/// An archiver that is well answers at once how it is.
const STATUS: Duration = Duration::from_secs(10);
/// An archiver that refuses because it is too late is heard, too.
const GRACE: Duration = Duration::from_secs(5);
/// Where all databases have the tag, further archives are waited for so long.
const OTHERS: Duration = Duration::from_secs(10);
/// Taking back, for each archive and way.
const TAKING_BACK: Duration = Duration::from_secs(10);
/// A command that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// An archiver that is asked.
#[derive(Debug)]
struct Asked<'a> {
    /// Which database, by its position in the group.
    member: usize,
    job: &'a Job,
    archive: ArchiveId,
}

impl Asked<'_> {
    fn state(&self) -> &PathBuf {
        &self.job.config.state
    }
}

/// The tags, and the archives that lack theirs.
#[derive(Debug, Default)]
struct Made {
    tags: Vec<(usize, String, TagDocument)>,
    missing: Vec<(String, Error)>,
}

#[derive(Serialize)]
struct Created<'a> {
    name: &'a str,
    note: &'a str,
    group: &'a str,
    id: Nonce,
    began: DateTime<Utc>,
    closed: DateTime<Utc>,
    held: bool,
    expires: Option<DateTime<Utc>>,
    members: Vec<CreatedMember<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
}

#[derive(Serialize)]
struct CreatedMember<'a> {
    database: &'a str,
    archive: &'a str,
    position: ShownPosition,
    observed_only: bool,
}

/// What a command is told.
#[derive(Serialize)]
struct Told<'a> {
    event: &'a str,
    group: &'a str,
    tag: &'a str,
    databases: Vec<&'a str>,
    at: DateTime<Utc>,
}

/// Creates it.
pub async fn run(context: &Context, args: &TagCreateArgs, of: &GroupArgs) -> Result<Verdict> {
    // What cannot be used is refused before anybody is asked.
    tag::Name::parse(&args.name)?;
    let group = load(of)?;
    // The application waits for what comes behind.
    let mut interrupts = Interrupts::listen()?.and_hangups()?;
    let bars = context.bars();
    let waiting = bars.spinner("archiving everything up to now");
    let asked = or_interrupted(survey(&group, &args.name), &mut interrupts).await?;
    let id = context.random.nonce()?;
    let made = or_interrupted(held_and_tagged(context, args, &group, &asked, id), &mut interrupts).await;
    if let Some(command) = &group.section.after_tag
        && let Err(e) = told(context, &group, args, command, "after-group-tag").await
    {
        tracing::error!(hint = e.hint_text(), "the application may still hold its writes: {e}");
    }
    let made = match made {
        Ok(made) => made,
        Err(e) => {
            return Err(taken_back(context, args, &asked, id)
                .await
                .into_iter()
                .fold(e, |e, (name, why)| e.with(format!("a part of the tag may remain in {name}"), why)));
        }
    };
    drop(waiting);
    show(context, args, &group, made, id)?;
    Ok(Verdict::Done)
}

/// An interrupt ends the work, not what has to follow it.
async fn or_interrupted<T>(work: impl Future<Output = Result<T>>, interrupts: &mut Interrupts) -> Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        () = interrupts.recv() => Err(Error::new(Code::Interrupted, "waiting for the archivers")),
    }
}

/// The archivers that run, each with its archive; every database has one.
async fn survey<'a>(group: &'a Group, tag: &str) -> Result<Vec<Asked<'a>>> {
    let mut asked = Vec::new();
    let mut faults = Vec::new();
    for (position, member) in group.members.iter().enumerate() {
        let statuses = join_all(member.jobs.iter().map(|job| async move { (job, status(job).await) })).await;
        let mut failed = Vec::new();
        let before = asked.len();
        for (job, status) in statuses {
            match status {
                Ok(archive) => asked.push(Asked { member: position, job, archive }),
                Err(e) => failed.push((job.name.clone(), e)),
            }
        }
        if asked.len() == before {
            faults.push(Fault::of_all(&member.database, &failed));
        } else {
            for (archive, e) in failed {
                tracing::warn!(archive, hint = e.hint_text(), "not tagged in this archive: {e}");
            }
        }
    }
    match faults.as_slice() {
        [] => Ok(asked),
        faults => Err(refused(Code::GroupNotTagged, "tagging the group", &group.name, faults).with("tag", tag)),
    }
}

/// The archive of a running archiver.
async fn status(job: &Job) -> Result<ArchiveId> {
    let state = &job.config.state;
    let unavailable = || Error::new(Code::ControlUnavailable, "asking the running archiver").on(state.display());
    let answer = timeout(STATUS, ask(state, &Request::Status)).await;
    let answer = answer.map_err(|_| unavailable().with("no answer within seconds", STATUS.as_secs()))??;
    let status: Box<Status> = match answer {
        Some(Answer::Status(status)) => status,
        Some(_) => return Err(work::unexpected(&Request::Status)),
        None if StateDir::is_taken(state)? => {
            return Err(unavailable().hint("it has not reached its archive yet, or is ending: pitr's log tells"));
        }
        None => return Err(unavailable().with("archiver", "none runs").hint("start pitr run --config")),
    };
    let (wanted, known) = (jobs::place_of(&job.url), jobs::place_of(&status.archive));
    if wanted != known {
        return Err(unavailable()
            .with("it archives into", known)
            .with("the configuration says", wanted)
            .hint("restart pitr run with this configuration"));
    }
    let old = "the running archiver is of another version: restart it with this one";
    status.archive_id.ok_or_else(|| unavailable().hint(old))
}

async fn held_and_tagged(
    context: &Context,
    args: &TagCreateArgs,
    group: &Group,
    asked: &[Asked<'_>],
    id: Nonce,
) -> Result<Made> {
    if let Some(command) = &group.section.before_tag {
        told(context, group, args, command, "before-group-tag").await?;
    }
    let began = context.clock.now();
    let until = later(began, args.within);
    let members = group.members.iter().enumerate().map(|(position, member)| TagMember {
        database: member.database.clone(),
        archives: asked.iter().filter(|one| one.member == position).map(|one| one.archive).collect(),
        extra: Extra::new(),
    });
    let request = TagRequest {
        name: args.name.clone(),
        note: args.note.clone(),
        unflushed: if args.observed { Unflushed::Observed } else { Unflushed::Refuse },
        expires: args.expires.map(|after| later(began, after)),
        group: Some(GroupRequest { name: group.name.clone(), id, members: members.collect(), began, until }),
    };
    ask_all(group, asked, &Request::Tag(request), id, args.within).await
}

fn later(time: Micros, by: Duration) -> Micros {
    Micros(time.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
}

/// Asks all of them at once.
async fn ask_all(group: &Group, asked: &[Asked<'_>], request: &Request, id: Nonce, within: Duration) -> Result<Made> {
    let of = |position: usize| asked.iter().filter(|one| one.member == position).count();
    let mut tally = Tally::new((0..group.members.len()).map(of));
    let mut answers: FuturesUnordered<_> =
        asked.iter().enumerate().map(|(at, one)| async move { (at, tagged(one, request, id).await) }).collect();
    let mut until = Instant::now().checked_add(within + GRACE).unwrap_or_else(|| Instant::now() + STATUS);
    let mut made = Made::default();
    let mut failed: Vec<(usize, String, Error)> = Vec::new();
    let mut silent: Vec<bool> = asked.iter().map(|_| true).collect();
    let mut patience = false;
    loop {
        match tally.next() {
            Next::Wait => {}
            Next::WaitForOthers if !patience => {
                patience = true;
                until = until.min(Instant::now() + OTHERS);
            }
            Next::WaitForOthers => {}
            Next::Done | Next::Hopeless => break,
        }
        let Ok(Some((at, answer))) = timeout_at(until, answers.next()).await else { break };
        let Some(one) = asked.get(at) else { continue };
        if let Some(silent) = silent.get_mut(at) {
            *silent = false;
        }
        tally.answered(one.member, answer.is_ok());
        match answer {
            Ok(tag) => made.tags.push((one.member, one.job.name.clone(), tag)),
            Err(e) => failed.push((one.member, one.job.name.clone(), e)),
        }
    }
    for (one, _) in asked.iter().zip(silent).filter(|(_, silent)| *silent) {
        let e = Error::new(Code::ControlUnavailable, "asking the running archiver").on(one.state().display());
        let e = e.with("no answer within", text::duration(within)).hint("its archive may not be reachable");
        failed.push((one.member, one.job.name.clone(), e));
    }
    let mut faults = Vec::new();
    for (position, member) in group.members.iter().enumerate() {
        let (own, others): (Vec<_>, Vec<_>) = failed.into_iter().partition(|(of, ..)| *of == position);
        failed = others;
        let own: Vec<_> = own.into_iter().map(|(_, name, e)| (name, e)).collect();
        match made.tags.iter().any(|(of, ..)| *of == position) {
            true => made.missing.extend(own),
            // Of those that were not waited for any more nobody is at fault but whoever made it hopeless.
            false if matches!(tally.next(), Next::Hopeless) && !tally.is_hopeless(position) => {}
            false => faults.push(Fault::of_all(&member.database, &own)),
        }
    }
    made.tags.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    match faults.as_slice() {
        [] => Ok(made),
        faults => Err(refused(Code::GroupNotTagged, "tagging the group", &group.name, faults)),
    }
}

/// The tag that an archiver made.
async fn tagged(one: &Asked<'_>, request: &Request, id: Nonce) -> Result<TagDocument> {
    match ask(one.state(), request).await? {
        Some(Answer::Tag(tag)) if tag.group.as_ref().is_some_and(|part| part.id == id) => Ok(*tag),
        Some(_) => Err(work::unexpected(request)),
        None => Err(Error::new(Code::ControlUnavailable, "asking the running archiver")
            .on(one.state().display())
            .with("archiver", "it has ended")),
    }
}

/// Takes back the parts of a tag that is not whole; where that could not be made sure of, and why.
async fn taken_back(context: &Context, args: &TagCreateArgs, asked: &[Asked<'_>], id: Nonce) -> Vec<(String, Error)> {
    let each = asked.iter().map(|one| async move {
        let request = UntagRequest { name: args.name.clone(), group: id };
        let by_archiver = timeout(TAKING_BACK, ask(one.state(), &Request::Untag(request))).await;
        if matches!(by_archiver, Ok(Ok(Some(Answer::Untag { .. })))) {
            return None;
        }
        // It may be what could not be reached; its archive can be.
        let late = || Error::new(Code::StoreUnavailable, "taking back the tag").on(&args.name);
        let here = timeout(TAKING_BACK, take_back_here(context, one.job, &args.name, id)).await;
        here.unwrap_or_else(|_| Err(late())).err().map(|e| (one.job.name.clone(), e))
    });
    join_all(each).await.into_iter().flatten().collect()
}

async fn take_back_here(context: &Context, job: &Job, name: &str, id: Nonce) -> Result<()> {
    let name = tag::Name::parse(name)?;
    let archive = open(context, job).await?;
    match archive.get_tag(&name).await?.and_then(|tag| tag.group) {
        Some(part) if part.id == id => archive.delete_tag(&name).await.map(drop),
        _ => Ok(()),
    }
}

/// Runs a command of the group's section.
async fn told(context: &Context, group: &Group, args: &TagCreateArgs, command: &Command, event: &str) -> Result<()> {
    let told = Told {
        event,
        group: &group.name,
        tag: &args.name,
        databases: group.members.iter().map(|member| member.database.as_str()).collect(),
        at: context.clock.now().to_datetime(),
    };
    let patience = group.section.timeout.map_or(PATIENCE, |v| v.0);
    let ran =
        hook::run(command, event, &[("PITR_GROUP", &group.name), ("PITR_TAG", &args.name)], &told, patience).await;
    ran.map_err(|e| {
        e.hint("its own words are above: with before_tag failed there is no tag, and after_tag runs all the same")
    })
}

fn show(context: &Context, args: &TagCreateArgs, group: &Group, made: Made, id: Nonce) -> Result<()> {
    let out = &context.output;
    let Made { tags, missing } = made;
    let parts = || tags.iter().filter_map(|(.., tag)| tag.group.as_ref());
    let began = parts().map(|part| part.began).min().unwrap_or_default();
    let closed = parts().map(|part| part.closed).max().unwrap_or_default();
    let held = group.section.before_tag.is_some();
    if !out.is_json() {
        show_moment(out, args, group, (began, closed), held)?;
        show_tags(out, group, &tags)?;
    }
    let missing = work::say_missing(out, &missing)?;
    if out.is_json() {
        let name = |position: usize| group.members.get(position).map_or("", |member| member.database.as_str());
        let members = tags.iter().map(|(position, archive, tag)| CreatedMember {
            database: name(*position),
            archive,
            position: (&tag.position).into(),
            observed_only: tag.observed_only,
        });
        let expires = tags.first().and_then(|(.., tag)| tag.expires).map(Micros::to_datetime);
        let (began, closed) = (began.to_datetime(), closed.to_datetime());
        let (name, note, group) = (args.name.as_str(), args.note.as_str(), group.name.as_str());
        let members = members.collect();
        out.json(&Created { name, note, group, id, began, closed, held, expires, members, missing })?;
    }
    Ok(())
}

fn show_moment(
    out: &Output,
    args: &TagCreateArgs,
    group: &Group,
    (began, closed): (Micros, Micros),
    held: bool,
) -> Result<()> {
    out.line(format!(
        "Tag {} marks one moment in {} of the group {}: everything that was committed by {} is in all of them, and nothing \
         that was written after {} in any.",
        args.name,
        text::count(group.members.len() as u64, "database"),
        group.name,
        text::time(began),
        text::time(closed)
    ))?;
    out.line(match held {
        true => "The application was made to hold its writes in between (before_tag): the moment is exact.",
        false => {
            "Of what was written in between, each database may have its own or not, unless the application held its writes."
        }
    })
}

fn show_tags(out: &Output, group: &Group, tags: &[(usize, String, TagDocument)]) -> Result<()> {
    let columns =
        [("database", Align::Left), ("archive", Align::Left), ("position", Align::Left), ("sequence", Align::Right)];
    let mut table = Table::new(out, &columns);
    for (position, archive, tag) in tags {
        table.row([
            group.members.get(*position).map(|member| member.database.clone()).unwrap_or_default(),
            archive.clone(),
            text::boundary(tag.position.timeline, tag.position.boundary),
            tag.position.sequence.to_string(),
        ]);
    }
    out.line(table.to_string())?;
    if tags.iter().any(|(.., tag)| tag.observed_only) {
        out.line(out.warn(
            "A server keeps committed writes in its own memory (manual_wal_flush): its tag holds what was in the files.",
        ))?;
    }
    Ok(())
}
