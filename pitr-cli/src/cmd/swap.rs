//! `pitr rollback` and `pitr settle`: what follows a restore in place.

use std::path::{Path, PathBuf};

use pitr_archive::{Code, Error, Result};
use pitr_replayer::{in_place, path_text};
use serde::Serialize;

use crate::{
    args::restoring::{RollbackArgs, SettleArgs},
    cmd::group,
    context::Context,
    output::{Verdict, text},
};

#[derive(Serialize)]
struct Settled {
    discarded: bool,
    #[serde(serialize_with = "path_text::all_shown")]
    directories: Vec<PathBuf>,
}

/// clap has made sure that there is one.
fn one(db: Option<&Path>) -> Result<&Path> {
    db.ok_or_else(|| Error::new(Code::Usage, "reading the database's directory"))
}

/// Swaps back.
pub fn rollback(context: &Context, args: &RollbackArgs) -> Result<Verdict> {
    if let Some(of) = args.group.given() {
        return group::swap::rollback(context, &of);
    }
    let swapped = in_place::rollback(one(args.db.as_deref())?)?;
    let out = &context.output;
    if out.is_json() {
        out.json(&swapped)?;
        return Ok(Verdict::Done);
    }
    out.line(format!("{} holds again what was set aside. What it held until now is in:", swapped.db.display()))?;
    for aside in &swapped.aside {
        out.line(format!("  {}", aside.display()))?;
    }
    out.line("Your server can be started. pitr rollback swaps once more, pitr settle ends it.")?;
    Ok(Verdict::Done)
}

/// Ends it.
pub fn settle(context: &Context, args: &SettleArgs) -> Result<Verdict> {
    if let Some(of) = args.group.given() {
        return group::swap::settle(context, args.discard, &of);
    }
    let db = one(args.db.as_deref())?;
    let directories = if args.discard { in_place::discard(db)? } else { in_place::keep(db)? };
    let out = &context.output;
    if out.is_json() {
        out.json(&Settled { discarded: args.discard, directories })?;
        return Ok(Verdict::Done);
    }
    let what = text::count(directories.len() as u64, "directory");
    out.line(if args.discard { format!("Deleted {what}:") } else { format!("Left {what} where they are:") })?;
    for directory in &directories {
        out.line(format!("  {}", directory.display()))?;
    }
    Ok(Verdict::Done)
}
