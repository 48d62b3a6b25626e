//! What `pitr check` finds out about a store.

use std::time::Duration;

use pitr_archive::{
    Code, Result,
    catalog::archive::Archive,
    store::probe::{MonthlyRequests, Pace, ProbeReport, probe, requests_per_month},
};
use pitr_archiver::ArchiverConfig;

use super::Finding;
use crate::{args::common::ArchiveArgs, context::Context, output::text};

/// Requests that create an object cost about this much in dollars in the standard classes of S3, Azure and GCS.
const DOLLARS_PER_MILLION: f64 = 5.0;

/// Probes the store and looks whether an archive is there. `None` when it could not even be opened.
pub async fn check(
    context: &Context,
    args: &ArchiveArgs,
    interval: Duration,
    findings: &mut Vec<Finding>,
) -> Result<Option<(ProbeReport, MonthlyRequests)>> {
    let store = match context.store(&args.archive).await {
        Ok(store) => store,
        // A URL that cannot be understood is a mistake in the command, not a finding about a store.
        Err(e) if matches!(e.code(), Code::StoreUrl | Code::StoreOption) => return Err(e),
        Err(e) => {
            findings.push(Finding::failed("store.open", &e));
            return Ok(None);
        }
    };
    let report = probe(&*store).await;
    for step in &report.steps {
        let id = format!("store.{}", text::name(step.step));
        findings.push(match &step.error {
            None => Finding::ok(
                id,
                format!("{}: {}", step.step.title(), text::duration(Duration::from_micros(step.micros))),
            ),
            Some(e) => Finding::failed(id, e),
        });
    }
    if !report.left_behind.is_empty() {
        let named = report.left_behind.join(", ");
        findings.push(Finding::warning(
            "store.left-behind",
            format!("objects of this test could not be deleted: {named}"),
            "allow deleting, and delete them; retention will need it, too",
        ));
    }
    if report.steps.iter().all(|s| s.error.is_none()) {
        findings.push(match Archive::open(store.clone(), context.key(args)?).await {
            Ok(archive) => {
                let sealed =
                    if archive.keyring().is_encrypted() { "encrypted; the key opens it" } else { "not encrypted" };
                Finding::ok("store.archive", format!("there is an archive ({sealed})"))
            }
            Err(e) if e.code() == Code::NotAnArchive => Finding::info(
                "store.archive",
                match args.key_file {
                    Some(_) => "there is no archive yet; pitr run will create one, encrypted",
                    None => "there is no archive yet; pitr run will create one, not encrypted (--key-file encrypts it)",
                },
            ),
            Err(e) => Finding::failed("store.archive", &e),
        });
    }
    let defaults = ArchiverConfig::new("");
    let requests = requests_per_month(Pace {
        segment_interval: interval,
        heartbeat_interval: defaults.heartbeat,
        manifest_interval: defaults.manifest_interval,
    });
    let price = match store.local_path() {
        Some(_) => String::new(),
        None => format!(
            " (at {DOLLARS_PER_MILLION} dollars a million: about {:.2} and {:.2} dollars)",
            dollars(requests.busy),
            dollars(requests.idle)
        ),
    };
    findings.push(Finding::info(
        "store.requests",
        format!(
            "an interval of {} means at most {} writing requests in a month of constant writes, {} in a month without{price}",
            text::duration(interval),
            requests.busy,
            requests.idle
        ),
    ));
    Ok(Some((report, requests)))
}

fn dollars(requests: u64) -> f64 {
    requests as f64 / 1e6 * DOLLARS_PER_MILLION
}
