//! Restores all databases of a group, or none.
//!
//! Owns: the order of effects. (1) Everything that can be refused is refused of all of them, before anything is touched; the
//! present databases are locked from here on. (2) One after the other is prepared: complete, durable, not visible (each takes
//! what the machine has, and the memory of one restore is the memory of all). (3) Only then they get their names, one directly
//! after the other. What is prepared is noted durably ([`super::journal`]): a process that dies on the way leaves databases
//! that are in their places and databases that stand ready, and the same restore goes on from there.
//! Refuses: directories that two of the databases would share.

use std::{cmp::Ordering, path::Path, sync::Arc};

use pitr_archive::{
    Code, Error, Result,
    catalog::archive::Archive,
    code::Retry,
    error::io,
    machine_lock::{MachineLock, Name},
};

use super::journal::Journal;
use crate::{
    crash,
    plan::RestorePlan,
    progress::Progress,
    restore::{
        RestoreOptions, RestoreReport, may_be_replayed, say_replayed,
        space::Needs,
        steps::{Checked, Prepared, check},
    },
};

/// A database of the group.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its name.
    pub database: &'a str,
    /// From where it comes.
    pub archive: &'a Archive,
    /// How.
    pub plan: &'a RestorePlan,
    /// Where to.
    pub options: &'a RestoreOptions,
}

/// Restores them: what was done for each, in their order. `begins` is told before each, and answers who is told of it.
///
/// # Errors
/// `group.incomplete` with everybody who stands in the way, before anything is touched; `group.unfinished` where some have
/// their names and others could not get them: the same call goes on. Else what hinders one of them, as
/// [`crate::restore::restore`] says it; nothing has its name then.
pub async fn restore(
    group: &str,
    members: &[Member<'_>],
    mut begins: impl FnMut(&str) -> Arc<dyn Progress>,
) -> Result<Vec<RestoreReport>> {
    let Some(first) = members.first() else { return Ok(Vec::new()) };
    let into =
        std::path::absolute(&first.options.into).map_err(|e| io("naming the destination", &first.options.into, e))?;
    let _lock = lock(group, &into)?;
    let mut journal = Journal::read(&into)?;
    // The same with the log replayed where tables are made that nobody asked for.
    let replayed: Vec<_> = members.iter().map(|member| member.plan.replayed()).collect();
    let may = |member: &Member<'_>| member.plan.may_be_replayed_instead();
    let as_logs: Vec<_> = members
        .iter()
        .zip(&replayed)
        .map(|(member, replayed)| if may(member) { Member { plan: replayed, ..*member } } else { *member })
        .collect();
    let (members, checked) = match check_all(group, members, &journal).await {
        Err(e) if members.iter().any(|member| may_be_replayed(member.plan, &e)) => {
            let checked = check_all(group, &as_logs, &journal).await?;
            say_replayed(&e);
            (as_logs.as_slice(), checked)
        }
        checked => (members, checked?),
    };
    // Then what is prepared of the others is kept: the group is half in its places, and must come to its end.
    let arrived: Vec<_> = checked.iter().map(Checked::is_in_place).collect();
    let begun = arrived.contains(&true);
    let mut prepared: Vec<Prepared<'_>> = Vec::new();
    for ((member, checked), as_log) in members.iter().zip(checked).zip(&as_logs) {
        let ready = match checked.prepare(begins(member.database)).await {
            Err(e) if may_be_replayed(member.plan, &e) => {
                say_replayed(&e);
                match check(as_log.archive, as_log.plan, as_log.options, &journal).await {
                    Ok(checked) => checked.prepare(begins(member.database)).await,
                    Err(e) => Err(e),
                }
            }
            ready => ready,
        };
        match ready {
            Ok(ready) => {
                if let Some(entry) = ready.entry()? {
                    journal.add(entry)?;
                }
                crash::point("group-prepared-one");
                prepared.push(ready);
            }
            Err(e) => {
                let at = prepared.len();
                if e.code().retry() == Retry::Never && !begun {
                    give_up(prepared, journal);
                }
                return Err(match begun {
                    false => e.with("database", member.database),
                    true => unfinished(group, members, |position| match arrived.get(position) {
                        Some(true) => Some(IN_PLACE.to_owned()),
                        _ if position == at => Some(e.to_string()),
                        _ => None,
                    }),
                });
            }
        }
    }
    crash::point("group-prepared");
    publish(group, members, prepared, journal)
}

/// Nobody else on this machine restores the group to there meanwhile: the journal is one for both.
fn lock(group: &str, into: &Path) -> Result<MachineLock> {
    let failed = |e| io("locking the group's restore to", into, e);
    let name = Name::new("group", into).map_err(failed)?;
    name.take().map_err(failed)?.ok_or_else(|| {
        let mut e = Error::new(Code::DatabaseInUse, "restoring the group").on(group);
        if let Some(process) = name.holder() {
            e = e.with("process", process);
        }
        e.hint("another pitr restores it: wait for that one")
    })
}

/// Everybody who stands in the way is named.
async fn check_all<'a>(group: &str, members: &[Member<'a>], journal: &Journal) -> Result<Vec<Checked<'a>>> {
    let mut outcomes = Vec::new();
    for member in members {
        outcomes.push(check(member.archive, member.plan, member.options, journal).await);
    }
    let in_place = |outcome: &Result<Checked<'_>>| outcome.as_ref().is_ok_and(Checked::is_in_place);
    if outcomes.iter().any(Result::is_err) && outcomes.iter().any(in_place) {
        return Err(unfinished(group, members, |position| match outcomes.get(position)? {
            Err(e) => Some(e.to_string()),
            checked if in_place(checked) => Some(IN_PLACE.to_owned()),
            Ok(_) => None,
        }));
    }
    let mut checked = Vec::new();
    let mut faults = Vec::new();
    for (member, outcome) in members.iter().zip(outcomes) {
        match outcome {
            Ok(one) => checked.push(one),
            Err(e) => faults.push((member.database, e)),
        }
    }
    if !faults.is_empty() {
        let hint = match faults.as_slice() {
            [(_, only)] => only.hint_text().to_owned(),
            _ => Code::GroupIncomplete.hint().to_owned(),
        };
        let refused = Error::new(Code::GroupIncomplete, "restoring the group").on(group).hint(hint);
        return Err(faults.into_iter().fold(refused, |refused, (database, e)| refused.with(database.to_owned(), e)));
    }
    let directories: Vec<_> = checked.iter().map(Checked::directories).collect();
    refuse_shared(group, members, &directories)?;
    let needs = checked.iter().try_fold(Needs::default(), |all, one| Ok::<_, Error>(all.and(one.needs()?)))?;
    needs.refuse_too_large()?;
    Ok(checked)
}

/// Databases that would lie in one another: with mapped paths they can.
fn refuse_shared(group: &str, members: &[Member<'_>], directories: &[Vec<&Path>]) -> Result<()> {
    let all: Vec<_> = members.iter().zip(directories).map(|(member, own)| (member.database, own)).collect();
    for (position, (database, own)) in all.iter().enumerate() {
        for (other, theirs) in all.iter().skip(position + 1) {
            let met = own.iter().find(|one| theirs.iter().any(|two| one.starts_with(two) || two.starts_with(one)));
            if let Some(shared) = met {
                return Err(Error::new(Code::GroupIncomplete, "restoring the group")
                    .on(group)
                    .with((*database).to_owned(), format_args!("it would share {} with {other}", shared.display()))
                    .hint("give each database a directory of its own; --map-path OLD=NEW maps what is below OLD"));
            }
        }
    }
    Ok(())
}

/// Nothing but names is left to be given: nothing waits in between, so that only a death of the process can come between two.
fn publish(
    group: &str,
    members: &[Member<'_>],
    mut prepared: Vec<Prepared<'_>>,
    journal: Journal,
) -> Result<Vec<RestoreReport>> {
    for position in 0..prepared.len() {
        let Some(one) = prepared.get_mut(position) else { break };
        if let Err(e) = one.publish_or_stay() {
            if position == 0 && e.code().retry() == Retry::Never {
                give_up(prepared, journal);
                return Err(e.with("database", members.first().map_or("", |member| member.database)));
            }
            return Err(unfinished(group, members, |at| match at.cmp(&position) {
                Ordering::Less => Some(IN_PLACE.to_owned()),
                Ordering::Equal => Some(e.to_string()),
                Ordering::Greater => Some("stands ready".to_owned()),
            }));
        }
        crash::point("group-between");
    }
    crash::point("group-published");
    if let Err(e) = journal.end() {
        // All of them are in their places: what is left says so, and is believed only of the same restore.
        tracing::warn!(error = %e, "the journal of the group's restore stays");
    }
    Ok(prepared.into_iter().map(Prepared::report).collect())
}

const IN_PLACE: &str = "is in its place";

/// Some are in their places, and others are not; what is to be said of each.
fn unfinished(group: &str, members: &[Member<'_>], of: impl Fn(usize) -> Option<String>) -> Error {
    let e = Error::new(Code::GroupUnfinished, "putting the databases in their places").on(group);
    members.iter().enumerate().fold(e, |e, (position, member)| match of(position) {
        Some(said) => e.with(member.database.to_owned(), said),
        None => e,
    })
}

/// What stays in the way of one leaves nothing of the others.
fn give_up(prepared: Vec<Prepared<'_>>, journal: Journal) {
    let ended = prepared.into_iter().map(Prepared::discard).collect::<Result<Vec<()>>>().and_then(|_| journal.end());
    if let Err(e) = ended {
        tracing::warn!(error = %e, "what was prepared could not be removed; the next restore removes it");
    }
}

#[cfg(test)]
mod tests;
