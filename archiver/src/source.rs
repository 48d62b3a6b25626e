//! The database's directory as this process follows it: its identity, the known files, the watch on it.
//!
//! Owns: that pins are of this directory. Pins of another one with the same file numbers would be taken for the server's
//! files: a small file in the state directory says which directory they were made of, and where that is not this one, or
//! cannot be told (no such file, a torn one, another version's), all are given up. It costs what the server deleted
//! meanwhile, which is a barrier.
//! Refuses: to look into the files.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc};

use pitr_archive::{Code, Error, Result, error, ids::Nonce};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    config::{ArchiverConfig, FileEvents},
    layout::Layout,
    lineage::Lineage,
    pin::{Pins, Places},
    registry::Registry,
    state::StateDir,
    stream::boot_id,
    watch::Watch,
    watched::{Note, Watched},
};

/// A directory being followed.
#[derive(Debug)]
pub(crate) struct Source {
    pub layout: Layout,
    pub lineage: Lineage,
    pub registry: Arc<Registry>,
    /// As it was given: a link can be made to lead elsewhere.
    path: PathBuf,
    /// By this a directory that was put in its place is noticed.
    identity: (u64, u64),
    /// What was noted last of what watches have shown.
    noted: Vec<Watched>,
    /// How much was proven by then.
    proofs: u64,
    _watch: Option<Watch>,
}

/// What is where the directory was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// The same directory, with a database in it.
    Same,
    /// Another directory.
    Replaced,
    /// Nothing yet, or no database: somebody is replacing it.
    Away,
}

/// Whether pins that are there can be this directory's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OldPins {
    /// If they were made of it.
    IfOfThisDirectory,
    /// They are not: the history forked.
    GiveUp,
}

/// The version of [`PinnedFrom`] that this program writes, and the only one that it reads.
const PINNED_FROM_VERSION: u32 = 1;

/// What the pins were made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinnedFrom {
    version: u32,
    db_id: String,
    restore_marker: Option<Nonce>,
    inode: u64,
}

impl Source {
    /// Begins to pin and to watch before anything else: what is deleted from here on stays readable.
    pub fn follow(config: &ArchiverConfig, state: &StateDir, changed: &Arc<Notify>, old: OldPins) -> Result<Self> {
        let layout = Layout::read(&config.db, &config.db_paths)?;
        let lineage = Lineage::read(&layout)?;
        let meta = fs::metadata(&layout.db).map_err(|e| error::io("examining", &layout.db, e))?;
        let (identity, inode) = ((meta.dev(), meta.ino()), meta.ino());
        let pins = Pins::open(Places {
            root: &state.root().join("pins"),
            db: &layout.db,
            wal_dir: &layout.wal_dir,
            wal_pins: config.wal_pins.as_deref(),
            archive_name: config.archive_name.as_deref(),
        })?;
        let mut watches = Vec::new();
        let (db_id, restore_marker) = (lineage.db_id.clone(), lineage.nonce());
        let from = PinnedFrom { version: PINNED_FROM_VERSION, db_id, restore_marker, inode };
        if old == OldPins::GiveUp || !made_of(state, &from)? {
            pins.release_all()?;
            // What was shown of them is of other files than those that are pinned from here on.
            state.remove(StateDir::WATCHED)?;
            // After the pins are gone: where a crash lost this, they are given up once more.
            note(state, &from)?;
        } else if let (Some(boot), Some(bytes)) = (boot_id(), state.read(StateDir::WATCHED)?) {
            watches = Note::read(&bytes, &boot);
        }
        let registry = Arc::new(Registry::new(pins, layout.db.clone(), layout.wal_dir.clone())?);
        registry.inherit(watches);
        let watch = match config.file_events {
            FileEvents::Watched => Some(Watch::start(registry.clone(), changed.clone())?),
            FileEvents::Scanned => registry.scan().map(|()| None)?,
        };
        Ok(Self {
            layout,
            lineage,
            registry,
            path: config.db.clone(),
            identity,
            noted: Vec::new(),
            proofs: 0,
            _watch: watch,
        })
    }

    /// Notes what the watch has shown, for a process that finds its pins.
    ///
    /// A file system that does not take the note ends nothing: what is not noted is not proven to a later process, which can
    /// cost it a barrier, and a full disk is emptied by going on.
    pub fn note_watches(&mut self, state: &StateDir) {
        self.proofs = self.registry.proofs();
        let watches = self.registry.watches();
        if watches == self.noted {
            return;
        }
        let Some(boot) = boot_id() else { return };
        let noted = serde_json::to_vec(&Note::new(boot, watches.clone()))
            .map_err(|e| Error::new(Code::Internal, "noting what was watched").on(state.root().display()).because(e))
            .and_then(|text| state.replace_for_this_boot(StateDir::WATCHED, &text));
        match noted {
            Ok(()) => self.noted = watches,
            Err(error) => {
                tracing::warn!(%error, "what was watched is not noted: a restart before the archive has it can cost a barrier");
            }
        }
    }

    /// Notes it if something was proven since: before anything that follows from it can be all that is left.
    pub fn note_proofs(&mut self, state: &StateDir) {
        if self.registry.proofs() != self.proofs {
            self.note_watches(state);
        }
    }

    /// What is in its place now.
    pub fn presence(&self) -> Presence {
        match fs::metadata(&self.path) {
            Err(_) => Presence::Away,
            Ok(_) if !self.path.join("CURRENT").exists() => Presence::Away,
            Ok(meta) if (meta.dev(), meta.ino()) != self.identity => Presence::Replaced,
            Ok(_) => Presence::Same,
        }
    }

    /// What is said while there is no database.
    pub fn away(&self) -> Error {
        Error::new(Code::NotADatabase, "following").on(self.path.display())
    }
}

/// Whether the pins were certainly made of this directory. The note is durable before the first pin is made, so pins
/// without one are of nobody knows what.
fn made_of(state: &StateDir, from: &PinnedFrom) -> Result<bool> {
    let Some(bytes) = state.read(StateDir::PINNED_FROM)? else { return Ok(false) };
    match serde_json::from_slice::<PinnedFrom>(&bytes) {
        Ok(noted) => Ok(noted == *from),
        Err(e) => {
            let path = state.root().join(StateDir::PINNED_FROM);
            tracing::warn!(path = %path.display(), error = %e, "what was pinned cannot be told; the pins are made anew");
            Ok(false)
        }
    }
}

fn note(state: &StateDir, from: &PinnedFrom) -> Result<()> {
    let text = serde_json::to_vec(from)
        .map_err(|e| Error::new(Code::Internal, "noting what is pinned").on(state.root().display()).because(e))?;
    state.replace(StateDir::PINNED_FROM, &text)
}
