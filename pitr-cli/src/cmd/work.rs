//! Work that the running archiver does when there is one, and this process when there is none.
//!
//! Owns: who does it. The control socket is asked first; its silence, and nothing else, means that no archiver runs.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use pitr_archive::{Code, Error, Result, error};
use pitr_archiver::{
    Archiver, ArchiverConfig, Parts, Standby,
    control::{Answer, Request, ask},
    layout::Layout,
    pin::ARCHIVES,
    state::StateDir,
};
use serde::Serialize;

use crate::{
    alone::Alone,
    args::common::{ArchiveArgs, DatabaseArgs, OptionalArchiveArgs},
    context::{Context, needed, state_dir},
    output::Output,
    settings::jobs,
};

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum By {
    /// The running archiver.
    #[serde(rename = "archiver")]
    Archiver,
    /// This process, because no archiver runs.
    #[serde(rename = "this process")]
    ThisProcess,
}

impl By {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Archiver => "the running archiver",
            Self::ThisProcess => "this process (no archiver runs)",
        }
    }
}

/// One of the archivers of a database that has several archives.
#[derive(Debug)]
pub struct Answered {
    /// The archive's name; the one that is the only one, or has none, has none.
    pub archive: Option<String>,
    /// What it said.
    pub answer: Result<Answer>,
}

/// Where one of several archivers has answered, the others are waited for so long: one whose archive does not answer must
/// not hold up a script.
const OTHERS: Duration = Duration::from_secs(10);

/// Whoever waits longer is told what for.
const SOON: Duration = Duration::from_secs(5);

/// Asks the running archivers of a database, all at once; nobody where none runs. What they answer, in the order of the
/// archives' names.
///
/// # Errors
/// The first one's, where none could do it.
pub async fn ask_archivers(
    database: &DatabaseArgs,
    archive: &OptionalArchiveArgs,
    request: &Request,
) -> Result<Vec<Answered>> {
    let root = state_dir(database);
    let mut states = vec![(None, root.clone())];
    for name in archives_below(&root)? {
        let state = jobs::state_of(&root, &name);
        states.push((Some(name), state));
    }
    if let Some(archive) = archive.archive.as_deref().filter(|_| *request != Request::Status) {
        refuse_another_archive(&states, archive).await?;
    }
    let mut asked: FuturesUnordered<_> = states
        .iter()
        .map(|(archive, state)| async move { (archive.clone(), asked(state, request).await.transpose()) })
        .collect();
    let mut answered = Vec::new();
    let mut open: BTreeSet<_> = states.iter().map(|(archive, _)| archive.clone()).collect();
    let mut patience = None;
    loop {
        let next = match patience {
            None => asked.next().await,
            Some(until) => match tokio::time::timeout_at(until, asked.next()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        let Some((archive, answer)) = next else { break };
        open.remove(&archive);
        let Some(answer) = answer else { continue };
        if answer.is_ok() {
            patience.get_or_insert_with(|| tokio::time::Instant::now() + OTHERS);
        }
        answered.push(Answered { archive, answer });
    }
    for archive in open {
        let late = Error::new(Code::ControlUnavailable, "asking the running archiver");
        let late = late.with("no answer within seconds", OTHERS.as_secs()).hint("its archive may not be reachable");
        answered.push(Answered { archive, answer: Err(late) });
    }
    answered.sort_by(|a, b| a.archive.cmp(&b.archive));
    let none_could = !answered.is_empty() && answered.iter().all(|one| one.answer.is_err());
    match answered.iter().position(|one| one.answer.is_err()) {
        Some(first) if none_could => match answered.swap_remove(first).answer {
            Err(e) => Err(e),
            Ok(_) => Ok(answered),
        },
        _ => Ok(answered),
    }
}

/// Who names an archive means that one: where archivers run, one of them must have it.
async fn refuse_another_archive(states: &[(Option<String>, PathBuf)], archive: &str) -> Result<()> {
    let mut known = Vec::new();
    for (_, state) in states {
        if let Some(Answer::Status(status)) = ask(state, &Request::Status).await? {
            known.push(status.archive);
        }
    }
    let wanted = jobs::place_of(archive);
    if known.is_empty() || known.iter().any(|known| jobs::place_of(known) == wanted) {
        return Ok(());
    }
    Err(Error::new(Code::Usage, "asking the running archiver")
        .with("archive that was named", wanted)
        .with("it archives into", known.join(", "))
        .hint("leave --archive out (PITR_ARCHIVE, too), or end that archiver first"))
}

/// What the archiver says whose state is there. One that runs and does not listen has not reached its archive yet: what was
/// asked for is not done there, which is something else than that nobody writes that archive.
async fn asked(state: &Path, request: &Request) -> Result<Option<Answer>> {
    let answer = patiently(state, request).await?;
    if answer.is_none() && *request != Request::Status && StateDir::is_taken(state)? {
        return Err(Error::new(Code::ControlUnavailable, "asking the running archiver")
            .on(state.display())
            .hint("it has not reached its archive yet, or is ending: pitr's log tells"));
    }
    Ok(answer)
}

/// Waits for the answer, and says why where that takes long: in an outage what was asked for is done when the archive is back.
async fn patiently(state: &Path, request: &Request) -> Result<Option<Answer>> {
    let asked = ask(state, request);
    tokio::pin!(asked);
    tokio::select! {
        answer = &mut asked => return answer,
        () = tokio::time::sleep(SOON) => {}
    }
    if let Ok(Some(Answer::Status(status))) = ask(state, &Request::Status).await
        && let Some(away) = status.away
    {
        let since = away.since.to_datetime();
        tracing::warn!(%since, "the archive does not answer; it is done when it does, also if this command is ended: {}", away.error);
    }
    asked.await
}

/// Names of the further archives that have had an archiver here.
fn archives_below(state: &Path) -> Result<Vec<String>> {
    let dir = state.join(ARCHIVES);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(error::io("listing the archivers in", &dir, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| error::io("listing the archivers in", &dir, e))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Says of which archives something was not done, and returns the names.
pub fn say_missing(out: &Output, missing: &[(String, Error)]) -> Result<Vec<String>> {
    for (archive, e) in missing {
        tracing::warn!(archive, hint = e.hint_text(), "not done in this archive: {e}");
    }
    if !missing.is_empty() && !out.is_json() {
        let names: Vec<_> = missing.iter().map(|(name, _)| name.as_str()).collect();
        out.line(out.warn(&format!("Not done in: {}.", names.join(", "))))?;
    }
    Ok(missing.iter().map(|(name, _)| name.clone()).collect())
}

/// The name of an archive as it is shown: the one that has none is the first.
pub fn shown(archive: Option<&str>) -> String {
    archive.unwrap_or("archive").to_owned()
}

/// An answer that does not belong to the question.
pub fn unexpected(request: &Request) -> Error {
    Error::new(Code::ControlUnavailable, "reading the archiver's answer")
        .with("question", format_args!("{request:?}"))
        .hint("the running archiver is of another version: restart it with this one")
}

/// An archiver of this process's own, for one piece of work.
pub async fn own_archiver(
    context: &Context,
    database: &DatabaseArgs,
    archive: &OptionalArchiveArgs,
    adjust: impl FnOnce(&mut ArchiverConfig),
) -> Result<(Alone, Archiver)> {
    let archive = needed(archive, database)?;
    let mut config = config(database);
    adjust(&mut config);
    open(context, config, &archive).await
}

/// The defaults for a database.
pub fn config(database: &DatabaseArgs) -> ArchiverConfig {
    let mut config = ArchiverConfig::new(&database.db);
    config.state = state_dir(database);
    config.db_paths.clone_from(&database.db_path);
    config.wal_pins.clone_from(&database.wal_pins);
    config
}

/// Whether there is a database.
pub fn refuse_no_database(config: &ArchiverConfig) -> Result<()> {
    Layout::read(&config.db, &config.db_paths).map(drop)
}

/// An archive is created only for a database that is there, which a misspelt path is not, and in no directory of it.
pub fn refuse_unfit(config: &ArchiverConfig, archive: &str) -> Result<()> {
    let layout = Layout::read(&config.db, &config.db_paths)?;
    jobs::refuse_inside(config, Some(&layout.wal_dir), archive)
}

/// Opens the archive (creating it when there is none) and the archiver on it.
pub async fn open(context: &Context, config: ArchiverConfig, archive: &ArchiveArgs) -> Result<(Alone, Archiver)> {
    refuse_unfit(&config, &archive.archive)?;
    let store = context.store(&archive.archive).await?;
    let archive = context.archive_or_new(&config.state, store, context.key(archive)?).await?;
    Alone::join(Standby::begin(config, Parts::system())?, archive).await.map_err(|(_, e)| e)
}
