//! `pitr restore`: plans and performs.

use std::{path::Path, sync::Arc, time::Duration};

use pitr_archive::{Code, Error, Result, clock::Micros};
use pitr_replayer::{
    estimate::Estimate,
    hold::holding,
    owner::Owner,
    restore::{Destination, Finish, PathMap, RestoreOptions, RestoreReport, restore},
};
use serde::Serialize;

use crate::{
    args::{common::Source, restoring::RestoreArgs},
    cmd::{
        group,
        plan::{arrives, note, options, target},
        takes,
    },
    context::Context,
    output::{Verdict, table, text},
};

#[derive(Serialize)]
struct Restored {
    #[serde(flatten)]
    report: RestoreReport,
    seconds: f64,
    estimate: Estimate,
}

/// Who restores, for people.
pub fn holder() -> String {
    let uname = rustix::system::uname();
    format!("{}:{}", uname.nodename().to_string_lossy(), std::process::id())
}

/// How a database shall be restored to a directory.
pub fn wanted(context: &Context, args: &RestoreArgs, into: &Path, began: Micros) -> Result<RestoreOptions> {
    let mut wanted = RestoreOptions::new(into, context.random.nonce()?, began);
    wanted.owner = args.owner.as_deref().map(Owner::parse).transpose()?;
    wanted.map_paths = args.map_path.iter().map(|m| PathMap { old: m.old.clone(), new: m.new.clone() }).collect();
    wanted.finish = if args.finish { Finish::Recover } else { Finish::Leave };
    if let Some(jobs) = args.jobs {
        wanted.workers = usize::from(jobs);
    }
    Ok(wanted)
}

/// Restores.
pub async fn run(context: &Context, args: &RestoreArgs) -> Result<Verdict> {
    let archive = match args.source.source() {
        Source::Group(group) => return group::restore::run(context, args, &group).await,
        Source::Archive(archive) => archive,
    };
    let began = context.clock.now();
    let target = target(context, &args.target)?;
    // What can be refused without reading the archive is refused first.
    let (into, destination) = match (&args.into, &args.in_place) {
        (Some(into), _) => (into, Destination::New),
        (None, Some(Some(present))) => (present, Destination::InPlace),
        (None, Some(None)) => {
            let e = Error::new(Code::Usage, "reading the destination").on("--in-place");
            return Err(e.hint("name the database's directory: only with --group the configuration tells it"));
        }
        (None, None) => return Err(Error::new(Code::Usage, "reading the destination")),
    };
    let mut wanted = wanted(context, args, into, began)?;
    wanted.destination = destination;
    let planning = options(&args.planning)?;
    let archive = context.archive(&archive).await?;
    let plan = context.plan(&archive, &target, &planning).await?;
    let estimate = takes::takes(&archive, &plan).await;
    if context.output.is_terminal() && !context.output.is_json() {
        context.output.line(format!("Restoring to {}: takes {}", arrives(&plan.position), takes::shown(&estimate)))?;
    }
    let work = async {
        let report = restore(&archive, &plan, &wanted, Arc::new(context.bars())).await;
        if report.is_ok() {
            context.accomplished.say();
        }
        report
    };
    let by = (&*context.clock, &*context.random);
    let report = holding(&archive, &plan, by, &holder(), work).await?;
    let seconds = (context.clock.now().0 - began.0).max(0) as f64 / 1e6;
    let out = &context.output;
    if out.is_json() {
        out.json(&Restored { report, seconds, estimate })?;
        return Ok(Verdict::Done);
    }
    let state = match report.recovered {
        true => "recovered by RocksDB here; its sequence number is the planned one".to_owned(),
        false => "complete; your server recovers its log when it opens it, as after a crash".to_owned(),
    };
    let mut facts = vec![
        ("restored", report.into.display().to_string()),
        ("is at", arrives(&report.position)),
        ("state", state),
        (
            "laid down",
            format!(
                "{}, {}; {}, {}",
                text::count(report.files as u64, "file"),
                text::bytes(report.file_bytes),
                text::count(report.records, "record"),
                match report.tables {
                    0 => format!("{} of log", text::bytes(report.wal_bytes)),
                    n => format!("in {} of {}", text::count(n as u64, "table"), text::bytes(report.table_bytes)),
                }
            ),
        ),
        (
            "took",
            format!("{}; estimated: {}", text::duration(Duration::from_secs_f64(seconds)), takes::shown(&estimate)),
        ),
    ];
    if report.reused_file_bytes + report.reused_records > 0 {
        let (bytes, records) = (text::bytes(report.reused_file_bytes), text::count(report.reused_records, "record"));
        facts.push(("of that", format!("{bytes} and {records} were there from an interrupted restore")));
    }
    if !report.aside.is_empty() {
        let aside: Vec<_> = report.aside.iter().map(|path| path.display().to_string()).collect();
        let into = report.into.display();
        let more = format!("{}\npitr rollback {into} swaps back, pitr settle {into} ends it", aside.join("\n"));
        facts.push(("set aside", more));
    }
    if !report.left_behind.is_empty() {
        facts.push(("left behind", out.warn(&format!("{}: not RocksDB's", report.left_behind.join(", ")))));
    }
    if !plan.distance.exact {
        facts.push(("distance", out.warn(&plan.distance.text)));
    }
    if plan.part.is_some() && report.files == 0 && report.records == 0 {
        facts.push((
            "empty",
            out.warn("the archive has nothing of this part at the target: look for a slip in its name or keys"),
        ));
    }
    let notes: Vec<_> = report.notes.iter().map(|n| note(out, n.kind, &n.text)).collect();
    if !notes.is_empty() {
        facts.push(("note", notes.join("\n")));
    }
    out.line(table::facts(out, &facts))?;
    Ok(Verdict::Done)
}
