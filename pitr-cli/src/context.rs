//! Everything that a command takes from the machine, resolved once from what was typed.
//!
//! Owns: the clock, randomness, the local time zone, the output mode, and opening stores, keys and archives from their
//! options. After this, commands see values, not options of the process.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use indicatif::MultiProgress;
use pitr_archive::{
    Code, Error, Result,
    catalog::{archive::Archive, load::Survey, model::Catalog, outline::Outline},
    clock::{Clock, SystemClock},
    keyring::MasterKey,
    random::{OsRandom, Random},
    store::{
        Store,
        limited::LimitedStore,
        url::{self, OpenOptions},
    },
    time_text::LocalZone,
};
use pitr_archiver::{known_archive, state::StateDir};
use pitr_replayer::{
    plan::{PlanOptions, RestorePlan, outlined},
    target::Target,
};

use crate::{
    args::{
        Cli,
        common::{ArchiveArgs, DatabaseArgs, OptionalArchiveArgs},
    },
    interrupt::Accomplished,
    logging,
    output::{
        Mode, Output,
        progress::{Bars, drawable},
    },
    settings::{file::LogForm, limits::Rates, sources},
};

/// How many of a damaged archive's faults are told before something else is done with it.
const SHOWN_FINDINGS: usize = 5;

/// What commands are given.
#[derive(Clone, Debug)]
pub struct Context {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// In which zone local times are meant.
    pub zone: LocalZone,
    /// Standard output.
    pub output: Output,
    /// How fast it may be.
    pub rates: Rates,
    /// Behind which point an interrupt no longer ends the command.
    pub accomplished: Accomplished,
    multi: MultiProgress,
    drawable: bool,
}

impl Context {
    /// Resolves the options of every command and starts the log.
    pub fn resolve(cli: &Cli) -> Result<Self> {
        let multi = MultiProgress::new();
        logging::start(&cli.global, cli.command.is_service(), &configured_log(cli), &multi)?;
        let mode = if cli.global.json { Mode::Json } else { Mode::Text };
        Ok(Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
            zone: LocalZone::system(),
            output: Output::resolve(mode),
            rates: Rates::default(),
            accomplished: Accomplished::default(),
            multi,
            drawable: drawable(cli.global.json) && !cli.command.is_service(),
        })
    }

    /// Progress bars for this command.
    pub fn bars(&self) -> Bars {
        Bars::new(self.multi.clone(), self.drawable)
    }

    /// Opens the store that a URL names.
    pub async fn store(&self, url: &str) -> Result<Arc<dyn Store>> {
        let options = OpenOptions { clock: Arc::clone(&self.clock), ..OpenOptions::of_process() };
        url::open(url, &options).await
    }

    /// The same store, no faster than this process may send.
    pub fn limited(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        match &self.rates.upload {
            Some(rate) => Arc::new(LimitedStore::new(store, Arc::clone(rate))),
            None => store,
        }
    }

    /// Opens an archive that exists.
    pub async fn archive(&self, args: &ArchiveArgs) -> Result<Archive> {
        let key = self.key(args)?;
        Archive::open(self.store(&args.archive).await?, key).await
    }

    /// What is sound of an archive's catalog. What is not is said, and hides nothing else: whoever looks or restores on
    /// a bad day needs what is left.
    pub async fn catalog(&self, archive: &Archive) -> Result<Catalog> {
        let Survey { catalog, findings } = archive.load_what_is_sound().await?;
        tell(&findings);
        Ok(catalog)
    }

    /// As much of an archive's catalog as its indexes tell, and what of that is damaged.
    pub async fn outline(&self, archive: &Archive) -> Result<Outline> {
        let mut outline = archive.load_outline().await?;
        tell(&outline.take_findings());
        Ok(outline)
    }

    /// A plan, and what of the archive was found damaged on the way to it: by as few reads as that takes.
    pub async fn plan(&self, archive: &Archive, target: &Target, options: &PlanOptions) -> Result<RestorePlan> {
        Ok(self.plan_on_outline(archive, target, options).await?.0)
    }

    /// The same, with what was read of the catalog for it.
    pub async fn plan_on_outline(
        &self,
        archive: &Archive,
        target: &Target,
        options: &PlanOptions,
    ) -> Result<(RestorePlan, Outline)> {
        let mut outline = self.outline(archive).await?;
        let planned = outlined::plan(archive, &mut outline, target, options).await;
        tell(&outline.take_findings());
        Ok((planned?, outline))
    }

    /// Opens the archive of a state directory, or creates it; encrypted exactly when a key is given.
    pub async fn archive_or_new(&self, state: &Path, store: Arc<dyn Store>, key: Option<MasterKey>) -> Result<Archive> {
        known_archive::open_or_create(state, store, key, &*self.clock, &*self.random).await
    }

    /// The key, if a key file was named.
    pub fn key(&self, args: &ArchiveArgs) -> Result<Option<MasterKey>> {
        args.key_file.as_deref().map(MasterKey::from_file).transpose()
    }
}

fn tell(findings: &[Error]) {
    for finding in findings.iter().take(SHOWN_FINDINGS) {
        tracing::warn!(code = finding.code().name(), "damaged: {finding}");
    }
    if findings.len() > SHOWN_FINDINGS {
        tracing::warn!("{} more; `pitr verify` lists them all", findings.len() - SHOWN_FINDINGS);
    }
}

/// What the configuration of a service says about the log. One that cannot be read says nothing: that is told by the command,
/// in the log that the command line asks for.
fn configured_log(cli: &Cli) -> logging::Configured {
    let log = cli.command.configuration().and_then(|path| sources::load(path, sources::environment()).ok());
    let Some(log) = log.map(|loaded| loaded.file.log) else { return logging::Configured::default() };
    logging::Configured { json: log.format.map(|form| form == LogForm::Json), level: log.level }
}

/// Where the archiver of a database keeps its state: as given, or beside the database.
pub fn state_dir(database: &DatabaseArgs) -> PathBuf {
    database.state.clone().unwrap_or_else(|| StateDir::default_for(&absolute(&database.db)))
}

/// The archive, where no running archiver answered and the work has to be done here.
pub fn needed(archive: &OptionalArchiveArgs, database: &DatabaseArgs) -> Result<ArchiveArgs> {
    archive.given().ok_or_else(|| {
        Error::new(Code::ControlUnavailable, "looking for a running archiver")
            .on(state_dir(database).display())
            .hint("no archiver runs for this database (or it has another --state): give --archive to do it without one")
    })
}

/// The default state directory lies beside the database itself, also when it is named through a link or as `.`.
fn absolute(db: &std::path::Path) -> PathBuf {
    std::fs::canonicalize(db).unwrap_or_else(|_| db.to_owned())
}
