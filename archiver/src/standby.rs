//! A database that is followed while its archive cannot be reached yet.
//!
//! Owns: that what the server deletes from the first moment on stays readable, also when the machine comes up during an
//! outage of the store: the state directory is locked, files are pinned, the directory is watched. What is held stays
//! within the operator's limits ([`crate::budget`]).
//! Refuses: to read the log. That begins with [`Standby::join`].

use std::sync::Arc;

use pitr_archive::{Code, Error, Result, catalog::archive::Archive};
use tokio::sync::Notify;

use crate::{
    Archiver,
    archiver::{Act, Backlog, Held, held_by_pins, rooms},
    budget::Floor,
    config::{ArchiverConfig, Parts},
    engine::prove_what_is_known,
    layout::Layout,
    source::{OldPins, Source},
    state::StateDir,
};

/// A locked state directory and a database whose files are pinned.
#[derive(Debug)]
pub struct Standby {
    pub(crate) config: ArchiverConfig,
    pub(crate) parts: Parts,
    pub(crate) state_dir: StateDir,
    pub(crate) changed: Arc<Notify>,
    pub(crate) source: Source,
    pub(crate) held_back: Held,
}

impl Standby {
    /// Locks the state directory and begins to pin.
    ///
    /// # Errors
    /// `writer.state-locked`, `rocksdb.not-a-database`, `pin.impossible`.
    pub fn begin(config: ArchiverConfig, parts: Parts) -> Result<Self> {
        Self::check(&config)?;
        // What is not a database is said before anything is created.
        Layout::read(&config.db, &config.db_paths)?;
        let state_dir = StateDir::lock(&config.state)?;
        // Links of a base that was under way when a process died hold what the server has deleted since, for nothing.
        state_dir.clear_staging()?;
        let changed = Arc::new(Notify::new());
        let mut source = Source::follow(&config, &state_dir, &changed, OldPins::IfOfThisDirectory)?;
        // Whoever joins proves it again, and says what is wrong with the database: the archive may not be reached for long.
        if let Err(error) = prove_what_is_known(&source.registry, &source.layout) {
            tracing::warn!(%error, "whether a log was missed before this start is not known yet");
        }
        source.note_watches(&state_dir);
        Ok(Self { config, parts, state_dir, changed, source, held_back: Held::default() })
    }

    /// Refuses settings that nobody can mean, also those that only this machine shows to be such.
    ///
    /// # Errors
    /// `config.contradictory`.
    pub fn check(config: &ArchiverConfig) -> Result<()> {
        config.check_times()?;
        let Floor::Bytes(floor) = config.budget.floor else { return Ok(()) };
        // Where it is not there, its file system is perhaps not mounted: another one would be measured.
        if !config.db.join("CURRENT").exists() {
            return Ok(());
        }
        let rooms = rooms(&[&config.db])?;
        match rooms.iter().find(|room| room.total <= floor) {
            None => Ok(()),
            Some(room) => Err(Error::new(Code::ConfigContradictory, "reading the settings of")
                .on(config.db.display())
                .with("min_free", floor)
                .with("bytes of the whole file system", room.total)
                .hint("below it nothing is held back for the archive: choose a part of what is there")),
        }
    }

    /// Its settings.
    pub const fn config(&self) -> &ArchiverConfig {
        &self.config
    }

    /// Claims the archive and joins its end, or begins a run there. With an error the database goes on being followed.
    ///
    /// # Errors
    /// What the store answers, and what [`Archiver::open`] refuses.
    pub async fn join(self, archive: Archive) -> std::result::Result<Archiver, (Box<Self>, Error)> {
        Archiver::join(self, archive).await
    }

    /// Takes over settings that can change before the archive is reached.
    pub fn adopt(&mut self, new: &ArchiverConfig) {
        let changed = self.config.adopt(new);
        if !changed.is_empty() {
            tracing::info!(?changed, "new settings are in force");
        }
    }

    /// Pins what is new, and gives up what is held beyond the limits: the archive gets a barrier when it is reached.
    /// Call it about once a second.
    ///
    /// # Errors
    /// Those of the local file system.
    pub fn keep_within_limits(&mut self) -> Result<()> {
        let registry = &self.source.registry;
        registry.scan_settled()?;
        self.source.note_watches(&self.state_dir);
        let registry = &self.source.registry;
        let holding = held_by_pins(registry)?;
        let now = self.parts.clock.now();
        if let Act::GiveUp(limit) = self.held_back.decide(&self.config.budget, &holding, Backlog::Stuck, now) {
            tracing::warn!(%limit, "what the server has deleted meanwhile is given up");
            registry.give_up_held()?;
            self.held_back.gave_up(registry.pins().held_bytes()?);
        }
        Ok(())
    }
}
