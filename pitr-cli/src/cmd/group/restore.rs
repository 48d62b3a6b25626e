//! `pitr restore --group`: all databases of a group, or none.
//!
//! Owns: where each goes, what is held in their archives meanwhile, and saying what was done and how it is taken back. The order
//! of effects is the replayer's.

use std::{path::Path, pin::Pin, sync::Arc, time::Duration};

use pitr_archive::{Code, Error, Result};
use pitr_replayer::{
    group::perform::{self, Member},
    hold::Hold,
    restore::{Destination, RestoreReport},
};
use serde::Serialize;

use super::plan::{PlannedMember, plan_all, target};
use crate::{
    args::{common::GroupArgs, restoring::RestoreArgs},
    cmd::{self, restore},
    context::Context,
    output::{
        Output, Verdict,
        table::{Align, Table},
        text,
    },
    settings::groups::Group,
};

#[derive(Serialize)]
struct Restored<'a> {
    group: &'a str,
    members: Vec<RestoredMember<'a>>,
    seconds: f64,
}

#[derive(Serialize)]
struct RestoredMember<'a> {
    database: &'a str,
    archive: &'a str,
    report: &'a RestoreReport,
}

type Work<'a> = Pin<Box<dyn Future<Output = Result<Vec<RestoreReport>>> + Send + 'a>>;

/// Restores.
pub async fn run(context: &Context, args: &RestoreArgs, of: &GroupArgs) -> Result<Verdict> {
    let began = context.clock.now();
    let target = target(context, &args.target, &args.planning)?;
    if let Some(Some(directory)) = &args.in_place {
        return Err(Error::new(Code::Usage, "reading the destination").on(directory.display()).hint(
            "with --group, --in-place has no directory: each database goes to its own, as the configuration says",
        ));
    }
    let group = super::load(of)?;
    let mut wanted = Vec::new();
    for member in &group.members {
        let mut options = match &args.into {
            Some(into) => restore::wanted(context, args, &into.join(&member.database), began)?,
            None => restore::wanted(context, args, &member.db, began)?,
        };
        options.destination = if args.into.is_some() { Destination::New } else { Destination::InPlace };
        wanted.push(options);
    }
    let planned = plan_all(context, &group, &target, &cmd::plan::options(&args.planning)?).await?;
    let members: Vec<_> = planned
        .members
        .iter()
        .zip(&wanted)
        .map(|(PlannedMember { database, archive, plan, .. }, options)| Member { database, archive, plan, options })
        .collect();
    let mut work: Work<'_> = Box::pin(async {
        let begins = |database: &str| {
            tracing::debug!(database, "preparing");
            Arc::new(context.bars()) as Arc<dyn pitr_replayer::progress::Progress>
        };
        let reports = perform::restore(&group.name, &members, begins).await;
        if reports.is_ok() {
            context.accomplished.say();
        }
        reports
    });
    let holder = restore::holder();
    for PlannedMember { name, archive, plan, .. } in &planned.members {
        match Hold::place(archive, plan, &*context.clock, &*context.random, &holder).await {
            Ok(hold) => {
                let failed =
                    move |e: &Error| tracing::warn!(archive = name, error = %e, "what is read could not be held");
                work = Box::pin(hold.during(work, failed));
            }
            Err(e) => tracing::warn!(
                archive = name,
                error = %e,
                "what is read cannot be held here: this relies on the grace period of pitr prune"
            ),
        }
    }
    let reports = work.await?;
    let seconds = (context.clock.now().0 - began.0).max(0) as f64 / 1e6;
    let out = &context.output;
    if out.is_json() {
        let members = planned.members.iter().zip(&reports).map(|(member, report)| RestoredMember {
            database: &member.database,
            archive: &member.name,
            report,
        });
        out.json(&Restored { group: &group.name, members: members.collect(), seconds })?;
        return Ok(Verdict::Done);
    }
    super::plan::show(out, &group, &planned)?;
    show(out, &group, &reports, of)?;
    out.line(format!("Took {}.", text::duration(Duration::from_secs_f64(seconds))))?;
    Ok(Verdict::Done)
}

fn show(out: &Output, group: &Group, reports: &[RestoreReport], of: &GroupArgs) -> Result<()> {
    let columns = [
        ("database", Align::Left),
        ("restored", Align::Left),
        ("files", Align::Right),
        ("records", Align::Right),
        ("set aside", Align::Left),
    ];
    let mut table = Table::new(out, &columns);
    let paths = |all: &[std::path::PathBuf]| {
        let all: Vec<_> = all.iter().map(|path| path.display().to_string()).collect();
        all.join(", ")
    };
    for (member, report) in group.members.iter().zip(reports) {
        table.row([
            member.database.clone(),
            report.into.display().to_string(),
            format!("{} ({})", report.files, text::bytes(report.file_bytes)),
            report.records.to_string(),
            paths(&report.aside),
        ]);
    }
    out.line(format!("\n{table}"))?;
    for (member, report) in group.members.iter().zip(reports).filter(|(_, report)| !report.left_behind.is_empty()) {
        let files = report.left_behind.join(", ");
        out.line(out.warn(&format!("{}: left behind, not RocksDB's: {files}", member.database)))?;
    }
    if reports.iter().any(|report| !report.aside.is_empty()) {
        let config = Path::new(&of.config).display();
        out.line(format!(
            "pitr rollback --group {0} --config {config} swaps all of them back, pitr settle --group {0} --config {config} \
             ends it; for one of them: pitr rollback DIR, pitr settle DIR.",
            group.name
        ))?;
    }
    Ok(())
}
