//! `pitr rollback --group` and `pitr settle --group`: what follows a restore of a group in place.
//!
//! Owns: on which side each database is, and bringing all to the same one. Refuses: to begin where one cannot be swapped, or
//! where it would be another restore's of each.

use std::path::PathBuf;

use pitr_archive::{Code, Error, Result};
use pitr_replayer::{
    in_place::{self, Standing},
    path_text,
};
use serde::Serialize;

use super::{Fault, load, refused};
use crate::{
    args::common::GroupArgs,
    context::Context,
    output::{
        Verdict,
        table::{Align, Table},
    },
    settings::groups::Member,
};

#[derive(Serialize)]
struct RolledBack<'a> {
    group: &'a str,
    /// Whether the restored databases are in their places now, and not those from before.
    restored: bool,
    members: Vec<SwappedMember<'a>>,
}

#[derive(Serialize)]
struct SwappedMember<'a> {
    database: &'a str,
    #[serde(serialize_with = "path_text::shown")]
    db: PathBuf,
    /// Where what it held is now; nothing where it was on the right side already.
    #[serde(serialize_with = "path_text::all_shown")]
    aside: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Settled<'a> {
    group: &'a str,
    discarded: bool,
    members: Vec<SettledMember<'a>>,
}

#[derive(Serialize)]
struct SettledMember<'a> {
    database: &'a str,
    #[serde(serialize_with = "path_text::all_shown")]
    directories: Vec<PathBuf>,
}

/// Brings all databases of a group to the same side.
pub fn rollback(context: &Context, of: &GroupArgs) -> Result<Verdict> {
    let group = load(of)?;
    let mut sides = Vec::new();
    let mut faults = Vec::new();
    for member in &group.members {
        match in_place::standing(&member.db) {
            Ok(standing) => sides.push((member, standing)),
            Err(e) => faults.push((&member.database, e)),
        }
    }
    if !faults.is_empty() {
        refuse_nothing(&group.name, sides.len(), &faults)?;
        let faults: Vec<_> = faults.iter().map(|(database, e)| Fault::of(database, e)).collect();
        return Err(refused(Code::GroupIncomplete, "rolling back the group", &group.name, &faults));
    }
    refuse_uneven(&group.name, &sides)?;
    let back = sides.iter().any(|(_, standing)| standing.holds_restored);
    let mut members = Vec::new();
    for (member, standing) in sides {
        let Member { database, db, .. } = member;
        let aside = match standing.holds_restored == back {
            false => Vec::new(),
            true => match in_place::rollback(db) {
                Ok(swapped) => swapped.aside,
                Err(e) => {
                    let done: Vec<_> = members.iter().map(|done: &SwappedMember<'_>| done.database).collect();
                    return Err(Error::new(Code::GroupUnfinished, "rolling back the group")
                        .on(&group.name)
                        .with("swapped", done.join(", "))
                        .with(database.clone(), e));
                }
            },
        };
        members.push(SwappedMember { database, db: db.clone(), aside });
    }
    let out = &context.output;
    if out.is_json() {
        out.json(&RolledBack { group: &group.name, restored: !back, members })?;
        return Ok(Verdict::Done);
    }
    let columns = [("database", Align::Left), ("directory", Align::Left), ("what it held is in", Align::Left)];
    let mut table = Table::new(out, &columns);
    for member in &members {
        let aside: Vec<_> = member.aside.iter().map(|path| path.display().to_string()).collect();
        let aside = if aside.is_empty() { "it was there already".to_owned() } else { aside.join(", ") };
        table.row([member.database.to_owned(), member.db.display().to_string(), aside]);
    }
    out.line(match back {
        true => "All databases of the group hold again what was there before the restore.",
        false => "All databases of the group hold again what was restored.",
    })?;
    out.line(table.to_string())?;
    Ok(Verdict::Done)
}

/// Where no database of the group has anything aside, that is what there is to say.
fn refuse_nothing(group: &str, others: usize, faults: &[(&String, Error)]) -> Result<()> {
    if others > 0 || faults.iter().any(|(_, e)| e.code() != Code::NothingAside) {
        return Ok(());
    }
    Err(Error::new(Code::NothingAside, "looking for what was set aside of the group").on(group))
}

/// Where a database was restored once more than the others, the last restore of each is not the same moment's: to take it back
/// everywhere would mix moments.
fn refuse_uneven(group: &str, sides: &[(&Member, Standing)]) -> Result<()> {
    let Some(fewest) = sides.iter().map(|(_, standing)| standing.unsettled).min() else { return Ok(()) };
    if sides.iter().all(|(_, standing)| standing.unsettled == fewest) {
        return Ok(());
    }
    let refused = Error::new(Code::GroupIncomplete, "rolling back the group").on(group);
    let refused = sides.iter().fold(refused, |refused, (member, standing)| {
        refused.with(member.database.clone(), format_args!("restores not settled: {}", standing.unsettled))
    });
    Err(refused.hint(
        "the last restore of one is not the last of the others: bring each database to the side it should be on by itself \
         (pitr rollback DIR)",
    ))
}

/// Ends the restores in place of all databases of a group; one that has nothing aside any more has ended.
pub fn settle(context: &Context, discard: bool, of: &GroupArgs) -> Result<Verdict> {
    let group = load(of)?;
    let mut members = Vec::new();
    let mut faults = Vec::new();
    for Member { database, db, .. } in &group.members {
        match if discard { in_place::discard(db) } else { in_place::keep(db) } {
            Ok(directories) => members.push(SettledMember { database, directories }),
            Err(e) => faults.push((database, e)),
        }
    }
    let nothing = |(_, e): &(&String, Error)| e.code() == Code::NothingAside;
    refuse_nothing(&group.name, members.len(), &faults)?;
    if !faults.iter().all(nothing) {
        let faults: Vec<_> = faults.iter().map(|(database, e)| Fault::of(database, e)).collect();
        let settled: Vec<_> = members.iter().map(|member| member.database).collect();
        let e = refused(Code::GroupIncomplete, "settling the group", &group.name, &faults);
        let e = if settled.is_empty() { e } else { e.with("settled", settled.join(", ")) };
        return Err(e.hint("each one at fault is named above with its reason; the same command settles what is left"));
    }
    let out = &context.output;
    if out.is_json() {
        out.json(&Settled { group: &group.name, discarded: discard, members })?;
        return Ok(Verdict::Done);
    }
    out.line(if discard { "Deleted what was set aside:" } else { "Left what was set aside where it is:" })?;
    for directory in members.iter().flat_map(|member| &member.directories) {
        out.line(format!("  {}", directory.display()))?;
    }
    Ok(Verdict::Done)
}
