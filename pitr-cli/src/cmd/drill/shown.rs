//! The report of a drill, as programs and people see it.
//!
//! Owns: its fields in JSON (`output::json` lists them), which are those of `drill`, `list drills`, `status` and the hook, and
//! its lines for people. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pitr_archive::{
    catalog::schema::{
        DrillChecks, DrillDocument, DrillFailure, DrillFamily, DrillPlan, DrillStructure, DrillTarget, DrillVerdict,
    },
    clock::Micros,
    ids::{BaseId, SequenceNumber},
};
use serde::Serialize;

use crate::output::{
    Output,
    json::ShownPosition,
    table::{Align, Table},
    text,
};

/// A report.
#[derive(Clone, Debug, Serialize)]
pub struct ShownDrill {
    id: BaseId,
    began: DateTime<Utc>,
    ended: DateTime<Utc>,
    verdict: DrillVerdict,
    target: DrillTarget,
    position: Option<ShownPosition>,
    base: Option<BaseId>,
    engine: Option<String>,
    restore_seconds: Option<f64>,
    estimated_seconds: Option<f64>,
    estimate_measured: Option<bool>,
    planning_seconds: Option<f64>,
    laying_down_seconds: Option<f64>,
    opening_seconds: Option<f64>,
    checking_seconds: Option<f64>,
    command_seconds: Option<f64>,
    data_at_risk_seconds: Option<f64>,
    download_bytes: Option<u64>,
    file_bytes: Option<u64>,
    log_bytes: Option<u64>,
    records: Option<u64>,
    checked: ShownChecks,
    failure: Option<DrillFailure>,
}

#[derive(Clone, Debug, Serialize)]
struct ShownChecks {
    structure: Option<DrillStructure>,
    sequence: Option<SequenceNumber>,
    column_families: Vec<DrillFamily>,
    unopened: Vec<String>,
    same_as: Option<BaseId>,
    command: Option<String>,
}

impl From<&DrillDocument> for ShownDrill {
    fn from(d: &DrillDocument) -> Self {
        let plan = d.plan.as_ref();
        let of_plan = |bytes: fn(&DrillPlan) -> u64| plan.map(bytes);
        let DrillChecks { structure, sequence, column_families, unopened, same_as, command } = d.checked.clone();
        Self {
            id: d.id.clone(),
            began: d.created.to_datetime(),
            ended: d.ended.to_datetime(),
            verdict: d.verdict,
            target: d.target.clone(),
            position: plan.map(|plan| (&plan.position).into()),
            base: plan.map(|plan| plan.base.clone()),
            engine: plan.map(|plan| plan.engine.clone()),
            restore_seconds: d.restore_micros().map(seconds),
            estimated_seconds: d.estimate.map(|estimate| seconds(estimate.micros)),
            estimate_measured: d.estimate.map(|estimate| estimate.measured),
            planning_seconds: d.took.planning.map(seconds),
            laying_down_seconds: d.took.laying_down.map(seconds),
            opening_seconds: d.took.opening.map(seconds),
            checking_seconds: d.took.checking.map(seconds),
            command_seconds: d.took.command.map(seconds),
            data_at_risk_seconds: d.at_risk_micros.map(seconds),
            download_bytes: of_plan(|plan| plan.download_bytes),
            file_bytes: of_plan(|plan| plan.file_bytes),
            log_bytes: of_plan(|plan| plan.log_bytes),
            records: of_plan(|plan| plan.records),
            checked: ShownChecks { structure, sequence, column_families, unopened, same_as, command },
            failure: d.failure.clone(),
        }
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn duration(micros: u64) -> String {
    text::duration(Duration::from_micros(micros))
}

/// `estimated 12 s, took 10 s (0.83)`.
fn against_estimate(report: &DrillDocument) -> Option<String> {
    let (estimate, took) = (report.estimate?, report.restore_micros()?);
    let ratio = took as f64 / estimate.micros.max(1) as f64;
    let how = if estimate.measured { "" } else { "; the estimate was a guess" };
    Some(format!("estimated {}, took {} ({ratio:.2}){how}", duration(estimate.micros), duration(took)))
}

fn verdict(out: &Output, report: &DrillDocument) -> String {
    match (report.verdict, &report.failure) {
        (DrillVerdict::Passed, _) => out.good("passed: restored, opened by RocksDB, every key and value read"),
        (DrillVerdict::StructureOnly, _) => {
            let why = report.checked.unopened.join("; ");
            out.warn(&format!("structure only: restored, its files are whole, but not opened here ({why})"))
        }
        (DrillVerdict::Failed, Some(failure)) => out.bad(&format!("failed: {}", failure.text)),
        (DrillVerdict::Failed, None) => out.bad("failed"),
    }
}

fn checked(report: &DrillDocument) -> Option<String> {
    let checked = &report.checked;
    let DrillStructure { files, bytes, checksums } = checked.structure?;
    let blocks = if checksums { ", checksums of all blocks" } else { "" };
    let mut lines =
        vec![format!("{} as the MANIFEST names them, {}{blocks}", text::count(files, "file"), text::bytes(bytes))];
    if let Some(sequence) = checked.sequence {
        let pairs: u64 = checked.column_families.iter().map(|family| family.pairs).sum();
        let families = match checked.column_families.len() {
            1 => "1 column family".to_owned(),
            n => format!("{n} column families"),
        };
        lines.push(format!("{} in {families}, latest sequence number {sequence}", text::count(pairs, "key")));
    }
    if let Some(same) = &checked.same_as {
        lines.push(format!("the same contents as the drill of {}", id_time(same)));
    }
    if let (Some(command), Some(took)) = (&checked.command, report.took.command) {
        lines.push(format!("accepted by {command} in {}", duration(took)));
    }
    Some(lines.join("\n"))
}

/// When a drill began, by its name.
pub fn id_time(id: &BaseId) -> String {
    id.time().map_or_else(|| id.to_string(), text::short_time)
}

/// A report for people.
pub fn facts(out: &Output, report: &DrillDocument) -> Vec<(&'static str, String)> {
    let mut facts = vec![("drill", report.id.to_string()), ("verdict", verdict(out, report))];
    let target = &report.target;
    facts.push(("target", format!("{} ({})", target.asked, text::name(target.chosen))));
    if let Some(instead) = &target.instead {
        facts.push(("instead", out.warn(instead)));
    }
    if let Some(DrillPlan { position: p, base, engine, file_bytes, records, .. }) = &report.plan {
        facts.push(("is at", format!("{}, sequence {}", text::boundary(p.timeline, p.boundary), p.sequence)));
        if let Some(record) = p.boundary.last_record() {
            facts.push(("again with", format!("--to-record {record} --timeline {}", p.timeline)));
        }
        let size = format!("{}, {}", text::bytes(*file_bytes), text::count(*records, "record"));
        facts.push(("restored from", format!("{base}: {size}, engine {engine}")));
    }
    let parts = [
        ("planning", report.took.planning),
        ("fetching and laying down", report.took.laying_down),
        ("opening", report.took.opening),
    ];
    let parts: Vec<_> =
        parts.iter().filter_map(|(name, took)| Some(format!("{name} {}", duration((*took)?)))).collect();
    if let Some(restore) = report.restore_micros() {
        facts.push(("time to restore", format!("{} ({})", duration(restore), parts.join(", "))));
    }
    facts.extend(against_estimate(report).map(|text| ("estimate", text)));
    if let Some(at_risk) = report.at_risk_micros {
        facts.push(("data at risk", format!("{}: the age of what could be restored last", duration(at_risk))));
    }
    facts.extend(checked(report).map(|text| ("checked", text)));
    facts
}

/// One line, for `status`.
pub fn in_short(out: &Output, report: &DrillDocument, now: Micros) -> String {
    let verdict = match report.verdict {
        DrillVerdict::Passed => out.good("passed"),
        DrillVerdict::StructureOnly => out.warn("structure only"),
        DrillVerdict::Failed => out.bad(&format!("failed [{}]", code(report))),
    };
    let restored = report.restore_micros().map(|took| format!(", restored in {}", duration(took))).unwrap_or_default();
    format!("{} ({}): {verdict}{restored}", text::short_time(report.created), text::ago(report.created, now))
}

fn code(report: &DrillDocument) -> &str {
    report.failure.as_ref().map_or("-", |failure| &failure.code)
}

/// Reports, a row each.
pub fn table(out: &Output, reports: &[DrillDocument]) -> Table {
    let columns = [
        ("drill", Align::Left),
        ("verdict", Align::Left),
        ("target", Align::Left),
        ("after record", Align::Right),
        ("timeline", Align::Right),
        ("restored in", Align::Right),
        ("estimated", Align::Right),
        ("data at risk", Align::Right),
        ("keys", Align::Right),
        ("error", Align::Left),
    ];
    let mut table = Table::new(out, &columns);
    let known = |micros: Option<u64>| micros.map_or_else(|| "-".to_owned(), duration);
    for report in reports {
        let position = report.plan.as_ref().map(|plan| plan.position);
        let pairs: u64 = report.checked.column_families.iter().map(|family| family.pairs).sum();
        table.row([
            report.id.to_string(),
            text::name(report.verdict),
            format!("{} ({})", report.target.asked, text::name(report.target.chosen)),
            position.map_or_else(|| "-".to_owned(), |p| text::record(p.boundary)),
            position.map_or_else(|| "-".to_owned(), |p| p.timeline.to_string()),
            known(report.restore_micros()),
            known(report.estimate.map(|estimate| estimate.micros)),
            known(report.at_risk_micros),
            if report.checked.sequence.is_some() { pairs.to_string() } else { "-".to_owned() },
            code(report).to_owned(),
        ]);
    }
    table
}
