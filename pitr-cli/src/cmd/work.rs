//! Work that the running archiver does when there is one, and this process when there is none.
//!
//! Owns: who does it. The control socket is asked first; its silence, and nothing else, means that no archiver runs.

use pitr_archive::{Code, Error, Result};
use pitr_archiver::{
    Archiver, ArchiverConfig, Parts,
    control::{Answer, Request, ask},
    layout::Layout,
};
use serde::Serialize;

use crate::{
    args::common::{ArchiveArgs, DatabaseArgs, OptionalArchiveArgs},
    context::{Context, needed, state_dir},
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

/// Asks the running archiver of a database.
pub async fn ask_archiver(database: &DatabaseArgs, request: &Request) -> Result<Option<Answer>> {
    ask(&state_dir(database), request).await
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
) -> Result<Archiver> {
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

/// An archive is created only for a database that is there: a misspelt path must not leave one behind.
pub fn refuse_no_database(config: &ArchiverConfig) -> Result<()> {
    Layout::read(&config.db, &config.db_paths).map(drop)
}

/// Opens the archive (creating it when there is none) and the archiver on it.
pub async fn open(context: &Context, config: ArchiverConfig, archive: &ArchiveArgs) -> Result<Archiver> {
    refuse_no_database(&config)?;
    let store = context.store(&archive.archive).await?;
    let archive = context.archive_or_new(store, context.key(archive)?).await?;
    Archiver::open(config, archive, Parts::system()).await
}
