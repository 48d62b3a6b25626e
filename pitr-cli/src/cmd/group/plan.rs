//! `pitr plan --group`: a plan for each database of a group.
//!
//! Owns: which targets mean one moment in all of them, which archive each is planned from, and showing it. Refuses: a plan for
//! a part; whoever stands in the way is named, all of them.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use pitr_archive::{Code, Error, Result, catalog::archive::Archive, ids::Nonce, tag};
use pitr_replayer::{
    group::{judge::Whole, moment},
    plan::{PlanOptions, RestorePlan},
    target::Target,
};
use serde::Serialize;

use super::{AT_ONCE, Fault, Opened, open_all, refused, tags};
use crate::{
    args::{
        common::GroupArgs,
        restoring::{PlanArgs, PlanningArgs, TargetArgs},
    },
    cmd::plan,
    context::Context,
    output::{
        Output, Verdict,
        table::{Align, Table},
        text,
    },
    settings::groups::Group,
};

/// What would be done for a group.
#[derive(Debug)]
pub struct Planned {
    /// The group tag, if that is the target.
    pub whole: Option<Whole>,
    /// Each database, in the configuration's order.
    pub members: Vec<PlannedMember>,
}

/// What would be done for one of its databases.
#[derive(Debug)]
pub struct PlannedMember {
    /// Its name.
    pub database: String,
    /// The archive's name, with the database's before it.
    pub name: String,
    /// From where.
    pub archive: Arc<Archive>,
    /// How.
    pub plan: RestorePlan,
}

#[derive(Serialize)]
struct Shown<'a> {
    group: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<ShownTag>,
    common: Option<Interval>,
    members: Vec<ShownMember<'a>>,
}

#[derive(Clone, Copy, Serialize)]
struct ShownTag {
    id: Nonce,
    began: DateTime<Utc>,
    closed: DateTime<Utc>,
}

#[derive(Serialize)]
struct Interval {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

#[derive(Serialize)]
struct ShownMember<'a> {
    database: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a RestorePlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Fault>,
}

/// Shows it.
pub async fn run(context: &Context, args: &PlanArgs, of: &GroupArgs) -> Result<Verdict> {
    let target = target(context, &args.target, &args.planning)?;
    let group = super::load(of)?;
    let out = &context.output;
    let (planned, faults) = attempt(context, &group, &target, &plan::options(&args.planning)?).await;
    if out.is_json() {
        out.json(&shown(&group, &planned, &faults))?;
    }
    refuse(&group, &faults)?;
    if !out.is_json() {
        show(out, &group, &planned)?;
        if args.full {
            for member in &planned.members {
                out.line(format!("\n{}", out.heading(&member.database)))?;
                plan::show(out, &member.plan, None)?;
                plan::show_parts(out, &member.plan)?;
            }
        }
    }
    Ok(Verdict::Done)
}

/// All plans, or the refusal that names everybody who stands in the way.
pub async fn plan_all(context: &Context, group: &Group, target: &Target, options: &PlanOptions) -> Result<Planned> {
    let (planned, faults) = attempt(context, group, target, options).await;
    refuse(group, &faults).map(|()| planned)
}

fn refuse(group: &Group, faults: &[Fault]) -> Result<()> {
    match faults {
        [] => Ok(()),
        faults => Err(refused(Code::GroupIncomplete, "planning the group", &group.name, faults)),
    }
}

/// The target, if it means one moment in all databases.
pub fn target(context: &Context, args: &TargetArgs, planning: &PlanningArgs) -> Result<Target> {
    let refused = |option: &str, why: &str| {
        Error::new(Code::Usage, "reading the target of a group").on(option).with("reason", why.to_owned())
    };
    let own = "each database counts by itself: the same number is another moment in each";
    if args.to_record.is_some() || args.to_seq.is_some() {
        let option = if args.to_seq.is_some() { "--to-seq" } else { "--to-record" };
        return Err(refused(option, own).hint("give --to-tag or --to-time"));
    }
    if args.to_latest {
        let why = "the ends of several archives are no common moment";
        return Err(refused("--to-latest", why)
            .hint("create a tag of the group and go to that, or give a --to-time that all archives have observed"));
    }
    if planning.timeline.is_some() || planning.base.is_some() {
        let option = if planning.base.is_some() { "--base" } else { "--timeline" };
        return Err(refused(option, "each database has its own").hint("plan and restore that database by itself"));
    }
    plan::target(context, args)
}

/// Plans everybody; what could be planned, and who stands in the way.
async fn attempt(context: &Context, group: &Group, target: &Target, options: &PlanOptions) -> (Planned, Vec<Fault>) {
    let opened = open_all(context, group).await;
    let mut faults = Vec::new();
    let mut whole = None;
    // The archives that are tried, by their positions.
    let mut candidates: Vec<Vec<usize>> = opened.iter().map(|member| (0..member.archives.len()).collect()).collect();
    if let Target::Tag(name) = target {
        let found = match tag::Name::parse(name) {
            Ok(name) => tags::find(&group.name, &name, &opened).await,
            Err(e) => Err(opened.iter().map(|member| Fault::of(&member.database, &e)).collect()),
        };
        match found {
            Ok((tag, parts)) => (whole, candidates) = (Some(tag), parts),
            Err(all) => {
                faults = all;
                candidates.clear();
            }
        }
    }
    let work = opened.iter().zip(candidates).map(|(member, candidates)| async move {
        let all = member.archives.iter().enumerate().filter(|(position, _)| candidates.contains(position));
        plan_member(context, member, all.map(|(_, archive)| archive), target, options).await
    });
    let planned: Vec<_> = stream::iter(work).buffered(AT_ONCE).collect().await;
    let mut members = Vec::new();
    for one in planned {
        match one {
            Ok(member) => members.push(member),
            Err(fault) => faults.push(fault),
        }
    }
    (Planned { whole, members }, faults)
}

/// The first archive from which it can be done.
async fn plan_member(
    context: &Context,
    member: &Opened,
    candidates: impl Iterator<Item = &super::OpenArchive>,
    target: &Target,
    options: &PlanOptions,
) -> Result<PlannedMember, Fault> {
    let mut tried = Vec::new();
    for one in candidates {
        match context.plan(&one.archive, target, options).await {
            Ok(plan) => {
                let (database, name) = (member.database.clone(), one.name.clone());
                return Ok(PlannedMember { database, name, archive: one.archive.clone(), plan });
            }
            Err(e) => tried.push((one.name.clone(), e)),
        }
    }
    Err(Fault::of_all(&member.database, tried.iter().chain(&member.failed)))
}

fn common(planned: &Planned) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    moment::common(planned.members.iter().map(|member| (member.plan.time.from, member.plan.time.to)))
}

fn shown<'a>(group: &'a Group, planned: &'a Planned, faults: &'a [Fault]) -> Shown<'a> {
    let members = planned.members.iter().map(|member| ShownMember {
        database: &member.database,
        archive: Some(&member.name),
        plan: Some(&member.plan),
        error: None,
    });
    let faults = faults.iter().map(|fault| ShownMember {
        database: &fault.database,
        archive: None,
        plan: None,
        error: Some(fault),
    });
    let mut members: Vec<_> = members.chain(faults).collect();
    members.sort_by_key(|member| member.database);
    Shown {
        group: &group.name,
        tag: planned.whole.as_ref().map(|whole| ShownTag {
            id: whole.id,
            began: whole.began.to_datetime(),
            closed: whole.closed.to_datetime(),
        }),
        common: common(planned).map(|(from, to)| Interval { from, to }),
        members,
    }
}

/// One row for each database, then what to know.
pub fn show(out: &Output, group: &Group, planned: &Planned) -> Result<()> {
    let columns = [
        ("database", Align::Left),
        ("arrives at", Align::Left),
        ("sequence", Align::Right),
        ("certainly from", Align::Left),
        ("to", Align::Left),
        ("base", Align::Left),
        ("needs on disk", Align::Right),
        ("engine", Align::Left),
    ];
    let mut table = Table::new(out, &columns);
    let time = |at: Option<DateTime<Utc>>| at.map_or_else(|| "not known".to_owned(), text::time);
    for PlannedMember { database, plan, .. } in &planned.members {
        table.row([
            database.clone(),
            text::boundary(plan.position.timeline, plan.position.boundary),
            plan.position.sequence.to_string(),
            time(plan.time.from),
            time(plan.time.to),
            plan.base.id.to_string(),
            text::bytes(plan.disk_bytes),
            text::name(plan.engine.name),
        ]);
    }
    out.line(table.to_string())?;
    out.line(moment(out, group, planned))?;
    tell(out, planned)
}

/// What the databases have in common.
fn moment(out: &Output, group: &Group, planned: &Planned) -> String {
    if let Some(whole) = &planned.whole {
        return format!(
            "One moment of the group {}: everything that was committed by {} is in all of them, and nothing that was written \
             after {} in any.",
            group.name,
            text::time(whole.began),
            text::time(whole.closed)
        );
    }
    match common(planned) {
        Some((from, to)) if from == to => {
            format!("One moment: at {}, all of them certainly were in these states.", text::time(from))
        }
        Some((from, to)) => format!(
            "One moment: from {} to {}, all of them certainly were in these states.",
            text::time(from),
            text::time(to)
        ),
        None => out.warn(
            "There is no moment at which all of them certainly were in these states: what was written about that time may \
             be in one of them and not in another. A tag of the group (pitr tag create --group) marks one.",
        ),
    }
}

/// Distances and notes of each.
fn tell(out: &Output, planned: &Planned) -> Result<()> {
    for PlannedMember { database, plan: planned, .. } in &planned.members {
        if !planned.distance.exact {
            out.line(out.warn(&format!("{database}: {}", planned.distance.text)))?;
        }
        for one in &planned.notes {
            out.line(plan::note(out, one.kind, &format!("{database}: {}", one.text)))?;
        }
    }
    Ok(())
}
