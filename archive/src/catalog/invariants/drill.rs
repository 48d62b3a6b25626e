//! What must hold within the report of a drill.
//!
//! Owns: that a verdict claims no more than was checked. Refuses: what its position has to do with the archive: that is
//! compared where the stream is read.

use std::collections::BTreeSet;

use crate::{
    catalog::schema::{DrillDocument, DrillVerdict},
    code::Code,
    error::{Error, Result},
    object_key::ObjectKey,
};

/// Whether a report contradicts itself.
///
/// # Errors
/// `archive.object-damaged`.
pub fn drill(report: &DrillDocument) -> Result<()> {
    match contradiction(report) {
        None => Ok(()),
        Some(what) => Err(Error::new(Code::ObjectDamaged, "reading the report of a drill")
            .on(ObjectKey::drill(&report.id))
            .with("it contradicts itself", what)),
    }
}

fn contradiction(report: &DrillDocument) -> Option<&'static str> {
    let checked = &report.checked;
    let names: BTreeSet<&str> = checked.column_families.iter().map(|family| family.name.as_str()).collect();
    if names.len() != checked.column_families.len() {
        return Some("a column family is named twice");
    }
    if report.failure.is_some() != (report.verdict == DrillVerdict::Failed) {
        return Some("a failure is told exactly where the verdict is one");
    }
    if report.verdict == DrillVerdict::Failed {
        return None;
    }
    let Some(plan) = &report.plan else { return Some("it went well without a plan") };
    if checked.structure.is_none() || report.restore_micros().is_none() {
        return Some("it went well and was not restored");
    }
    let opened = checked.sequence.is_some() && !checked.column_families.is_empty() && checked.unopened.is_empty();
    match report.verdict {
        DrillVerdict::Passed if !opened => Some("it passed and was not opened"),
        DrillVerdict::Passed if checked.sequence != Some(plan.position.sequence) => {
            Some("it passed with another sequence number than planned")
        }
        DrillVerdict::StructureOnly if checked.unopened.is_empty() || !checked.column_families.is_empty() => {
            Some("only its structure was checked, and it was opened")
        }
        _ => None,
    }
}
