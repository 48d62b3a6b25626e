//! `pitr reload`: a running service reads its configuration again.
//!
//! Owns: finding the service (any archiver of the configuration that answers is part of it) and showing what became of each
//! difference. Refuses: a configuration that cannot be read, before the service is asked.

use pitr_archive::{Code, Error, Result};
use pitr_archiver::control::{Answer, Effect, Request, ask};

use crate::{
    args::archiving::ReloadArgs,
    cmd::work,
    context::Context,
    output::{
        Verdict,
        table::{Align, Table},
    },
    settings::{jobs, sources},
};

/// Asks for it.
pub async fn run(context: &Context, args: &ReloadArgs) -> Result<Verdict> {
    let jobs = jobs::of(&sources::load(&args.config, sources::environment())?.file)?;
    let mut answer = None;
    for job in &jobs {
        answer = ask(&job.config.state, &Request::Reload).await?;
        if answer.is_some() {
            break;
        }
    }
    let told = match answer {
        Some(Answer::Reload(told)) => told,
        Some(_) => return Err(work::unexpected(&Request::Reload)),
        None => {
            return Err(Error::new(Code::ControlUnavailable, "looking for a running service")
                .on(args.config.display())
                .hint("no archiver of this configuration answers: start it with pitr run --config"));
        }
    };
    let out = &context.output;
    if out.is_json() {
        out.json(&told)?;
        return Ok(Verdict::Done);
    }
    if told.changes.is_empty() {
        out.line("The configuration was read again; nothing differs.")?;
        return Ok(Verdict::Done);
    }
    let mut table = Table::new(out, &[("database", Align::Left), ("what", Align::Left), ("effect", Align::Left)]);
    for change in &told.changes {
        let effect = match change.effect {
            Effect::Applied => out.good("in force"),
            Effect::NeedsRestart => out.warn("needs a restart"),
        };
        table.row([change.database.clone(), change.what.clone(), effect]);
    }
    out.line(table.to_string())?;
    Ok(Verdict::Done)
}
