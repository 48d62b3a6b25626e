//! Two drills of one position.
//!
//! Owns: which earlier report is of the same position, and what must be the same in both. Pure.

use pitr_archive::{
    Code, Error, Result,
    catalog::schema::{DrillDocument, DrillFamily, Position},
    ids::BaseId,
};

/// The newest earlier drill that read what the database holds at this very position; `earlier` is the newest first. A number
/// alone names no position: the running hash does.
pub fn same_position<'a>(earlier: &'a [DrillDocument], position: &Position) -> Option<&'a DrillDocument> {
    let at = |p: &Position| (p.timeline, p.boundary, p.hash);
    let mut read = earlier.iter().filter(|drill| drill.went_well() && !drill.checked.column_families.is_empty());
    read.find(|drill| drill.plan.as_ref().is_some_and(|plan| at(&plan.position) == at(position)))
}

/// Whether both hold the same, but for what may vary.
///
/// `None` where every column family may differ from drill to drill: then nothing was compared.
///
/// # Errors
/// `drill.failed`, with every column family that differs.
pub fn compare(earlier: &DrillDocument, now: &[DrillFamily]) -> Result<Option<BaseId>> {
    let before = &earlier.checked.column_families;
    let of = |families: &[DrillFamily], name: &str| families.iter().find(|family| family.name == name).cloned();
    let mut names: Vec<&str> = before.iter().chain(now).map(|family| family.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut e = Error::new(Code::DrillFailed, "comparing the restored database with that of the drill").on(&earlier.id);
    let (mut differs, mut compared) = (false, false);
    for name in names {
        let (before, now) = (of(before, name), of(now, name));
        let varies = [&before, &now].into_iter().flatten().any(|family| family.varies);
        let held = |family: &DrillFamily| (family.hash, family.pairs, family.bytes);
        if varies && before.is_some() && now.is_some() {
            continue;
        }
        compared = true;
        if before.as_ref().map(held) == now.as_ref().map(held) {
            continue;
        }
        differs = true;
        let text = |family: Option<DrillFamily>| match family {
            Some(family) => format!("{} pairs, {} bytes, {}", family.pairs, family.bytes, family.hash),
            None => "no such column family".to_owned(),
        };
        e = e.with(format!("column family {name:?} then"), text(before)).with("now", text(now));
    }
    if differs { Err(e) } else { Ok(compared.then(|| earlier.id.clone())) }
}
