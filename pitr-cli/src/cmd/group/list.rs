//! `pitr tag list --group` and `pitr tag delete --group`.
//!
//! Owns: which tags of a group all of its databases have, which are incomplete and why; deleting one everywhere.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use pitr_archive::{Code, Error, Result, catalog::schema::TagDocument, clock::Micros, ids::Nonce, tag};
use pitr_replayer::group::judge::{Configured, Tagged, judge, reference};
use serde::Serialize;

use super::{AT_ONCE, Fault, Opened, load, open_all, refused, tags};
use crate::{
    args::common::GroupArgs,
    context::Context,
    output::{
        Verdict,
        json::ShownPosition,
        table::{Align, Table},
        text,
    },
};

#[derive(Serialize)]
struct Listed<'a> {
    group: &'a str,
    tags: Vec<GroupTag>,
    /// Databases with archives that could not be read: what is said of them is what the others have.
    unread: Vec<Unread>,
}

#[derive(Serialize)]
struct Unread {
    database: String,
    error: Fault,
}

#[derive(Serialize)]
struct GroupTag {
    name: String,
    note: String,
    id: Nonce,
    began: DateTime<Utc>,
    closed: Option<DateTime<Utc>>,
    complete: bool,
    expires: Option<DateTime<Utc>>,
    members: Vec<MemberTag>,
    faults: Vec<ShownFault>,
}

#[derive(Serialize)]
struct MemberTag {
    database: String,
    position: ShownPosition,
}

#[derive(Serialize)]
struct ShownFault {
    database: String,
    reason: String,
}

#[derive(Serialize)]
struct Deleted<'a> {
    group: &'a str,
    name: &'a str,
    deleted: Vec<String>,
}

/// Lists them.
pub async fn run(context: &Context, of: &GroupArgs) -> Result<Verdict> {
    let group = load(of)?;
    let opened = open_all(context, &group).await;
    let mut unread = Vec::new();
    // Of each member, each archive's tags.
    let mut all: Vec<Vec<Vec<TagDocument>>> = Vec::new();
    for member in &opened {
        let read = member.archives.iter().map(|one| async move { (&one.name, one.archive.tags().await) });
        let read: Vec<_> = stream::iter(read).buffered(AT_ONCE).collect().await;
        let mut failed: Vec<(&String, &Error)> = member.failed.iter().map(|(name, e)| (name, e)).collect();
        let tags = read.iter().map(|(name, tags)| match tags {
            Ok(tags) => tags.clone(),
            Err(e) => {
                failed.push((name, e));
                Vec::new()
            }
        });
        all.push(tags.collect());
        for (name, e) in failed {
            tracing::warn!(archive = name, hint = e.hint_text(), "its tags could not be read: {e}");
            unread.push(Unread { database: member.database.clone(), error: Fault::of(&member.database, e) });
        }
    }
    let tags = group_tags(&group.name, &opened, &all);
    let out = &context.output;
    if out.is_json() {
        out.json(&Listed { group: &group.name, tags, unread })?;
        return Ok(Verdict::Done);
    }
    if tags.is_empty() {
        out.line(format!(
            "The group {0} has no tags. pitr tag create NAME --group {0} --config FILE makes one.",
            of.name
        ))?;
        return Ok(Verdict::Done);
    }
    let columns = [
        ("tag", Align::Left),
        ("began", Align::Left),
        ("closed", Align::Left),
        ("databases", Align::Right),
        ("expires", Align::Left),
        ("state", Align::Left),
        ("note", Align::Left),
    ];
    let mut table = Table::new(out, &columns);
    for tag in &tags {
        let faults: Vec<_> = tag.faults.iter().map(|fault| format!("{}: {}", fault.database, fault.reason)).collect();
        table.row([
            tag.name.clone(),
            text::time(tag.began),
            tag.closed.map(text::time).unwrap_or_default(),
            tag.members.len().to_string(),
            tag.expires.map_or_else(|| "never".to_owned(), text::short_time),
            if tag.complete { "complete".to_owned() } else { format!("incomplete: {}", faults.join("; ")) },
            tag.note.clone(),
        ]);
    }
    out.line(table.to_string())?;
    Ok(Verdict::Done)
}

/// Every name under which some database has a part of a tag of this group.
fn group_tags(group: &str, opened: &[Opened], all: &[Vec<Vec<TagDocument>>]) -> Vec<GroupTag> {
    let is_part = |tag: &&TagDocument| tag.group.as_ref().is_some_and(|part| part.name == group);
    let names: BTreeSet<_> = all.iter().flatten().flatten().filter(is_part).map(|tag| tag.name.clone()).collect();
    let under = |tags: &[TagDocument], name: &str| tags.iter().find(|tag| tag.name == *name).cloned();
    names
        .into_iter()
        .filter_map(|name| {
            let configured: Vec<_> = opened
                .iter()
                .zip(all)
                .map(|(member, archives)| Configured {
                    database: member.database.clone(),
                    found: member
                        .archives
                        .iter()
                        .zip(archives)
                        .map(|(archive, own)| (archive.archive.id(), tags::tagged(under(own, &name))))
                        .collect(),
                })
                .collect();
            let part = reference(group, &configured)?.clone();
            let mut members: BTreeMap<String, TagDocument> = BTreeMap::new();
            for (member, archives) in opened.iter().zip(all) {
                let own = archives.iter().filter_map(|own| under(own, &name));
                let own = own.into_iter().find(|tag| tag.group.as_ref().is_some_and(|own| own.id == part.id));
                members.extend(own.map(|tag| (member.database.clone(), tag)));
            }
            let first = members.values().next()?.clone();
            let judged = judge(group, &configured);
            Some(GroupTag {
                name,
                note: first.note.clone(),
                id: part.id,
                began: part.began.to_datetime(),
                closed: judged.as_ref().ok().map(|whole| whole.closed.to_datetime()),
                complete: judged.is_ok(),
                expires: first.expires.map(Micros::to_datetime),
                members: members
                    .into_iter()
                    .map(|(database, tag)| MemberTag { database, position: (&tag.position).into() })
                    .collect(),
                faults: judged
                    .err()
                    .into_iter()
                    .flatten()
                    .map(|fault| ShownFault { database: fault.database, reason: fault.why.to_string() })
                    .collect(),
            })
        })
        .collect()
}

/// Deletes the parts of a tag of this group, complete or not, wherever they are.
pub async fn delete(context: &Context, name: &str, of: &GroupArgs) -> Result<Verdict> {
    let parsed = tag::Name::parse(name)?;
    let group = load(of)?;
    let opened = open_all(context, &group).await;
    let (mut deleted, mut faults) = (Vec::new(), Vec::new());
    for member in &opened {
        faults.extend(member.failed.iter().map(|(_, e)| Fault::of(&member.database, e)));
        for one in &member.archives {
            let ended = async {
                match tags::tagged(one.archive.get_tag(&parsed).await?) {
                    Tagged::Part(part) if part.name == group.name => one.archive.delete_tag(&parsed).await,
                    _ => Ok(false),
                }
            };
            match ended.await {
                Ok(true) => deleted.push(one.name.clone()),
                Ok(false) => {}
                Err(e) => faults.push(Fault::of(&member.database, &e)),
            }
        }
    }
    if !faults.is_empty() {
        let e = refused(Code::GroupIncomplete, "deleting the group's tag", &group.name, &faults);
        let e = if deleted.is_empty() { e } else { e.with("it is deleted in", deleted.join(", ")) };
        return Err(e.hint("what is left of it is no tag of the group any more; the same command deletes the rest"));
    }
    if deleted.is_empty() {
        let hint = format!("pitr tag list --group {} shows the group's tags", group.name);
        return Err(Error::new(Code::TagUnknown, "deleting the group's tag").on(name).hint(hint));
    }
    let out = &context.output;
    if out.is_json() {
        out.json(&Deleted { group: &group.name, name, deleted })?;
    } else {
        out.line(format!("Tag {name} is deleted in: {}.", deleted.join(", ")))?;
    }
    Ok(Verdict::Done)
}
