//! Several databases as one: what commands with `--group` do.
//!
//! - [`create`]: one tag for all, by the running archivers; [`tally`]: when enough of them have answered;
//! - [`list`]: which tags all databases have, and deleting them everywhere;
//! - [`tags`]: what is found under one tag's name in every archive, and what it means;
//! - [`plan`]: a plan for each database, or everybody who stands in the way;
//! - [`restore`]: performs them, all or none;
//! - [`swap`]: rolling back and settling all of them.
//!
//! This file owns opening the archives of a group, and how those who stand in the way are told. Refuses: to go on with a part.

pub mod create;
pub mod list;
pub mod plan;
pub mod restore;
pub mod swap;
mod tags;
mod tally;

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use pitr_archive::{Code, Error, Result, catalog::archive::Archive};
use serde::Serialize;

use crate::{
    args::common::GroupArgs,
    context::Context,
    settings::{
        groups::{self, Group},
        jobs::Job,
        sources,
    },
};

/// Archives that are read at the same time.
const AT_ONCE: usize = 4;

/// The group that was named.
pub fn load(args: &GroupArgs) -> Result<Group> {
    groups::of(&sources::load(&args.config, sources::environment())?.file, &args.name)
}

/// A database of the group with its archives, as far as they can be opened.
#[derive(Debug)]
struct Opened {
    database: String,
    archives: Vec<OpenArchive>,
    failed: Vec<(String, Error)>,
}

/// One of its archives.
#[derive(Debug)]
struct OpenArchive {
    /// The database's name, and the archive's behind a `/`, where it has one.
    name: String,
    archive: Arc<Archive>,
}

/// Opens every archive of every member, some at a time.
async fn open_all(context: &Context, group: &Group) -> Vec<Opened> {
    let one = |job: Job| async move {
        let archive = open(context, &job).await;
        (job.name, archive)
    };
    let members = group.members.iter().map(|member| async move {
        let opened: Vec<_> = stream::iter(member.jobs.clone()).map(one).buffered(AT_ONCE).collect().await;
        let mut found = Opened { database: member.database.clone(), archives: Vec::new(), failed: Vec::new() };
        for (name, archive) in opened {
            match archive {
                Ok(archive) => found.archives.push(OpenArchive { name, archive: Arc::new(archive) }),
                Err(e) => found.failed.push((name, e)),
            }
        }
        found
    });
    stream::iter(members).buffered(AT_ONCE).collect().await
}

async fn open(context: &Context, job: &Job) -> Result<Archive> {
    let key = match job.key.clone() {
        Some(key) => Some(key.read_key().await?),
        None => None,
    };
    Archive::open(context.store(&job.url).await?, key).await
}

/// A database that stands in the way, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    #[serde(skip)]
    database: String,
    code: Code,
    message: String,
    hint: String,
}

impl Fault {
    fn of(database: &str, e: &Error) -> Self {
        let hint = e.hint_text().to_owned();
        Self { database: database.to_owned(), code: e.code(), message: e.to_string(), hint }
    }

    fn saying(database: &str, message: String) -> Self {
        let hint = Code::GroupIncomplete.hint().to_owned();
        Self { database: database.to_owned(), code: Code::GroupIncomplete, message, hint }
    }

    /// What was tried in each of a database's archives.
    fn of_all<'a>(database: &str, tried: impl IntoIterator<Item = &'a (String, Error)>) -> Self {
        let tried: Vec<_> = tried.into_iter().collect();
        match tried.as_slice() {
            [(_, only)] => Self::of(database, only),
            [(_, first), ..] => {
                let all: Vec<_> = tried.iter().map(|(archive, e)| format!("{archive}: {e}")).collect();
                Self { message: all.join("; "), ..Self::of(database, first) }
            }
            [] => Self::saying(database, "none of its archives can be used".to_owned()),
        }
    }
}

/// Names everybody who stands in the way.
fn refused(code: Code, doing: &'static str, group: &str, faults: &[Fault]) -> Error {
    let refused = Error::new(code, doing).on(group);
    let refused = match faults {
        [only] => refused.hint(only.hint.clone()),
        _ => refused,
    };
    faults.iter().fold(refused, |refused, fault| refused.with(fault.database.clone(), &fault.message))
}
