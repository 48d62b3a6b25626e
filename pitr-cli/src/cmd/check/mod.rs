//! `pitr check`: will archiving work here?
//!
//! Owns: the findings and their stable ids. What is asked of the store and read from the database is in `store` and
//! `database`; each finding says what is so, how bad that is, and what to do.

mod database;
mod flushes;
mod store;

use pitr_archive::{
    Result,
    store::probe::{MonthlyRequests, ProbeReport},
};
use serde::Serialize;

use crate::{
    args::tools::CheckArgs,
    context::Context,
    output::{
        Output, Verdict,
        table::{Align, Table},
        text,
    },
};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Works.
    Ok,
    /// To know.
    Info,
    /// A risk that somebody should decide about.
    Warning,
    /// Archiving will not work, or not safely.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Stable.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is so.
    pub finding: String,
    /// What to do; absent when there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// Something that works.
    pub fn ok(id: impl Into<String>, finding: impl Into<String>) -> Self {
        Self { id: id.into(), severity: Severity::Ok, finding: finding.into(), fix: None }
    }

    /// Something to know.
    pub fn info(id: impl Into<String>, finding: impl Into<String>) -> Self {
        Self { severity: Severity::Info, ..Self::ok(id, finding) }
    }

    /// A risk.
    pub fn warning(id: impl Into<String>, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, fix: Some(fix.into()), ..Self::ok(id, finding) }
    }

    /// Something that must be changed first.
    pub fn error(id: impl Into<String>, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Error, fix: Some(fix.into()), ..Self::ok(id, finding) }
    }

    /// An error as a finding.
    pub fn failed(id: impl Into<String>, e: &pitr_archive::Error) -> Self {
        Self::error(id, e.to_string(), e.hint_text())
    }
}

#[derive(Serialize)]
struct Checked {
    ok: bool,
    findings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<ProbeReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_month: Option<MonthlyRequests>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restore_seconds: Option<f64>,
}

/// Looks at what was named.
pub async fn run(context: &Context, args: &CheckArgs) -> Result<Verdict> {
    let mut findings = Vec::new();
    let mut restore_seconds = None;
    if let Some(database) = args.database.given() {
        restore_seconds = database::check(&database, &mut findings)?;
    }
    let mut probed = None;
    if let Some(archive) = args.archive.given() {
        probed = store::check(context, &archive, args.interval, &mut findings).await?;
    }
    let ok = findings.iter().all(|f| f.severity < Severity::Error);
    let (store, requests_per_month) = probed.unzip();
    let out = &context.output;
    if out.is_json() {
        out.json(&Checked { ok, findings, store, requests_per_month, restore_seconds })?;
    } else {
        show(out, &findings)?;
    }
    Ok(if ok { Verdict::Done } else { Verdict::Damage })
}

/// The worst last, where the eye is when the command ends.
fn show(out: &Output, findings: &[Finding]) -> Result<()> {
    let mut sorted: Vec<_> = findings.iter().collect();
    sorted.sort_by_key(|f| f.severity);
    let mut table = Table::new(out, &[("", Align::Left), ("check", Align::Left), ("finding", Align::Left)]);
    for finding in &sorted {
        table.row([text::name(finding.severity), finding.id.clone(), finding.finding.clone()]);
    }
    out.line(table.to_string())?;
    let todo: Vec<_> = sorted.iter().filter_map(|f| f.fix.as_ref().map(|fix| (f, fix))).collect();
    if !todo.is_empty() {
        out.line(format!("\n{}", out.heading("What to do")))?;
        for (finding, fix) in &todo {
            let line = format!("{}: {fix}", finding.id);
            out.line(if finding.severity == Severity::Error { out.bad(&line) } else { line })?;
        }
    }
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count() as u64;
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let verdict = match (errors, warnings) {
        (0, 0) => out.good("Archiving will work here."),
        (0, n) => format!("Archiving will work here; {} to decide about.", text::count(n, "risk")),
        (n, _) => out.bad(&format!("{} must be solved before archiving here.", text::count(n, "problem"))),
    };
    out.line(format!("\n{verdict}"))
}
