//! `pitr verify`: is the archive whole?
//!
//! Owns: showing what was checked and found, and the exit code: 1 when anything is wrong. The checks are the replayer's.

use std::sync::Arc;

use pitr_archive::{Result, code::Severity};
use pitr_replayer::verify::{Compared, DeepOptions, DeepReport, Finding, Garbage, VerifyReport, verify, verify_deep};
use serde::Serialize;

use crate::{
    args::restoring::VerifyArgs,
    context::Context,
    output::{
        Output, Verdict,
        table::{self, Align, Table},
        text,
    },
};

#[derive(Serialize)]
struct Verified {
    ok: bool,
    findings: Vec<ShownFinding>,
    checked: Checked,
    #[serde(skip_serializing_if = "Option::is_none")]
    deep: Option<Deep>,
}

#[derive(Serialize)]
struct ShownFinding {
    severity: Severity,
    #[serde(flatten)]
    finding: Finding,
}

#[derive(Serialize)]
struct Checked {
    timelines: usize,
    manifests: usize,
    segments: u64,
    records: u64,
    bases: usize,
    files: u64,
    file_bytes: u64,
    tags: usize,
    drills: usize,
    garbage: Garbage,
}

#[derive(Serialize)]
struct Deep {
    position: Option<pitr_replayer::plan::PlannedPosition>,
    bases: Vec<pitr_archive::ids::BaseId>,
    compared: Compared,
}

/// Checks.
pub async fn run(context: &Context, args: &VerifyArgs) -> Result<Verdict> {
    let archive = context.archive(&args.archive).await?;
    let bars = Arc::new(context.bars());
    let VerifyReport {
        timelines,
        manifests,
        segments,
        records,
        bases,
        files,
        file_bytes,
        tags,
        drills,
        garbage,
        mut findings,
    } = verify(&archive, &*bars).await?;
    let checked = Checked { timelines, manifests, segments, records, bases, files, file_bytes, tags, drills, garbage };
    let mut deep = None;
    // Two restores from an archive that is known to be damaged would only repeat what was found.
    if args.deep && findings.is_empty() {
        let catalog = archive.load_catalog().await?;
        let options = DeepOptions {
            timeline: None,
            work: args.scratch.clone().unwrap_or_else(std::env::temp_dir),
            marker: context.random.nonce()?,
            now: context.clock.now(),
        };
        let DeepReport { position, bases, compared, findings: more } =
            verify_deep(&archive, &catalog, &options, bars.clone()).await?;
        findings.extend(more);
        deep = Some(Deep { position, bases, compared });
    }
    let findings: Vec<_> =
        findings.into_iter().map(|finding| ShownFinding { severity: finding.code.severity(), finding }).collect();
    let verified = Verified { ok: findings.is_empty(), findings, checked, deep };
    let verdict = if verified.ok { Verdict::Done } else { Verdict::Damage };
    let out = &context.output;
    if out.is_json() {
        out.json(&verified)?;
    } else {
        show(out, &verified, args.deep)?;
    }
    Ok(verdict)
}

fn show(out: &Output, verified: &Verified, wanted_deep: bool) -> Result<()> {
    let c = &verified.checked;
    let read = format!(
        "{} ({}), {}, {} of {} ({}), {}, {}",
        text::count(c.segments, "segment"),
        text::count(c.records, "record"),
        text::count(c.manifests as u64, "manifest"),
        text::count(c.files, "file"),
        text::count(c.bases as u64, "base"),
        text::bytes(c.file_bytes),
        text::count(c.tags as u64, "tag"),
        text::count(c.timelines as u64, "timeline"),
    );
    let mut facts = vec![("read", read)];
    let Garbage { condemned, condemned_bytes, unreferenced, unreferenced_bytes } = c.garbage;
    if condemned > 0 {
        let waiting = format!("{} ({})", text::count(condemned, "object"), text::bytes(condemned_bytes));
        facts.push(("no longer part of it", format!("{waiting}: pitr prune deletes them after their grace period")));
    }
    if unreferenced > 0 {
        let files = format!("{} ({})", text::count(unreferenced, "file"), text::bytes(unreferenced_bytes));
        facts.push(("named by nothing", format!("{files}: of a base under way, or pitr prune finds them")));
    }
    match &verified.deep {
        Some(deep) => facts.push(("restored twice", compared(deep))),
        None if wanted_deep => facts.push(("restored twice", "no: the archive is damaged".to_owned())),
        None => {}
    }
    out.line(table::facts(out, &facts))?;
    if verified.ok {
        return out.line(out.good("The archive is whole: every hash is right and nothing is missing."));
    }
    let columns = [("severity", Align::Left), ("code", Align::Left), ("object", Align::Left), ("finding", Align::Left)];
    let mut table = Table::new(out, &columns);
    for ShownFinding { severity, finding } in &verified.findings {
        table.row([
            text::name(*severity),
            finding.code.name().to_owned(),
            finding.object.clone().unwrap_or_else(|| "-".to_owned()),
            finding.text.clone(),
        ]);
    }
    out.line(format!("\n{table}"))?;
    let mut hints: Vec<_> = verified.findings.iter().map(|f| f.finding.hint.as_str()).collect();
    hints.sort_unstable();
    hints.dedup();
    for hint in hints {
        out.line(format!("hint: {hint}"))?;
    }
    out.line(out.bad(&format!("{} found.", text::count(verified.findings.len() as u64, "problem"))))
}

fn compared(deep: &Deep) -> String {
    let bases: Vec<_> = deep.bases.iter().map(ToString::to_string).collect();
    let at = deep.position.as_ref().map(|p| text::boundary(p.timeline, p.boundary));
    let place = format!("{} from {}", at.unwrap_or_else(|| "nothing".to_owned()), bases.join(" and "));
    match &deep.compared {
        Compared::Contents { column_families } => {
            let pairs: u64 = column_families.values().filter_map(|f| f.replayed.map(|d| d.pairs)).sum();
            let families = match column_families.len() {
                1 => "1 column family".to_owned(),
                n => format!("{n} column families"),
            };
            format!("{place}: {} in {families} compared", text::count(pairs, "key"))
        }
        Compared::Structure { reasons } => format!("{place}: only structure compared ({})", reasons.join("; ")),
        Compared::Nothing { reason } => format!("nothing: {reason}"),
    }
}
