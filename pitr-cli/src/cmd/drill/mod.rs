//! `pitr drill`: restores something into a scratch directory, to see that it works and how long it takes.
//!
//! Owns: what is asked for, and that a failed drill ends with what it failed for. The service does the same by the clock.

pub mod check;
pub mod shown;

use std::{path::PathBuf, sync::Arc};

use pitr_archive::{Code, Error, Result, catalog::archive::Archive};
use pitr_replayer::{
    drill::{After, Check, DrillOptions, Drilled, Tools, Wanted, drill},
    plan::PlanOptions,
    progress::Progress,
};
use serde::Serialize;

use self::{check::OperatorCheck, shown::ShownDrill};
use crate::{
    args::drilling::DrillArgs,
    cmd::{
        plan::{options, target},
        restore::holder,
        takes,
    },
    context::Context,
    output::{Verdict, table},
};

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    drill: ShownDrill,
    written: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
}

/// What a drill is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What to restore.
    pub wanted: Wanted,
    /// How to plan.
    pub planning: PlanOptions,
    /// Where; by default the system's directory for such things.
    pub scratch: Option<PathBuf>,
    /// What becomes of it.
    pub after: After,
    /// The operator's own check.
    pub check: Option<OperatorCheck>,
}

/// Drills.
pub async fn perform(
    context: &Context,
    archive: &Archive,
    asked: Asked,
    progress: Arc<dyn Progress>,
) -> Result<Drilled> {
    let Asked { wanted, planning, scratch, after, check } = asked;
    let scratch = scratch.unwrap_or_else(std::env::temp_dir);
    let place = takes::place(archive);
    let options = DrillOptions { wanted, planning, scratch, after, place, holder: holder() };
    let check = check.map(|check| Arc::new(check) as Arc<dyn Check>);
    let (clock, random) = (Arc::clone(&context.clock), Arc::clone(&context.random));
    let drilled = drill(archive, &options, &Tools { clock, random, progress, check }).await?;
    if let Some(e) = &drilled.unwritten {
        tracing::warn!(hint = e.hint_text(), "the report of the drill is not in the archive: {e}");
    }
    Ok(drilled)
}

/// Drills and shows the report; what it failed for is the command's error.
pub async fn run(context: &Context, args: &DrillArgs) -> Result<Verdict> {
    let wanted = match &args.target {
        Some(args) => Wanted::Given(target(context, args)?),
        None => Wanted::Random,
    };
    let asked = Asked {
        wanted,
        planning: options(&args.planning)?,
        scratch: args.scratch.clone(),
        after: if args.keep { After::Keep } else { After::Remove },
        check: (!args.check.is_empty())
            .then(|| OperatorCheck { command: args.check.clone(), patience: args.check_timeout }),
    };
    if asked.planning.part.is_some() {
        return Err(Error::new(Code::Usage, "drilling").with("a part", "proves nothing of the rest: drill the whole"));
    }
    asked.check.as_ref().map_or(Ok(()), OperatorCheck::refuse_missing)?;
    let archive = context.archive(&args.archive).await?;
    let Drilled { report, failure, unwritten, kept } =
        perform(context, &archive, asked, Arc::new(context.bars())).await?;
    context.accomplished.say();
    let out = &context.output;
    let kept = kept.map(|path| path.display().to_string());
    if out.is_json() {
        out.json(&Shown { drill: (&report).into(), written: unwritten.is_none(), kept })?;
    } else {
        let mut facts = shown::facts(out, &report);
        facts.extend(kept.map(|kept| ("kept in", kept)));
        out.line(table::facts(out, &facts))?;
    }
    match failure {
        None => Ok(Verdict::Done),
        Some(e) => Err(e),
    }
}
