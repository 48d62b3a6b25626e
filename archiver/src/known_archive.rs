//! Which archive a state directory belongs to.
//!
//! Owns: the note about it, and that no new archive is begun where one was: a disk that is not mounted, or a bucket that was
//! made anew, looks like a place without an archive. What is written there would be hidden, and the true archive would stand
//! still, by an archiver that says all is well.
//! Refuses: to keep anybody from using another place, or from deleting the note.

use std::{fmt::Display, fs::File, io::ErrorKind, io::Read as _, path::Path, sync::Arc};

use pitr_archive::{
    Code, Error, Result, catalog::archive::Archive, clock::Clock, ids::ArchiveId, keyring::MasterKey,
    object_key::prefix, random::Random, store::Store,
};
use serde::{Deserialize, Serialize};

use crate::state::StateDir;

/// The version of the note that this program writes, and the only one that it reads.
const VERSION: u32 = 1;
/// Where it is, in the state directory.
const NAME: &str = "known-archive.json";
/// It names one place.
const MAX_BYTES: u64 = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    version: u32,
    /// As the store calls itself.
    place: String,
    archive: ArchiveId,
}

impl Note {
    /// One that cannot be read says nothing: the state directory can be deleted, and so can this.
    fn read(state: &Path) -> Result<Option<Self>> {
        let path = state.join(NAME);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)) {
            Ok(_) => Ok(serde_json::from_slice(&bytes).ok().filter(|note: &Self| note.version == VERSION)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(pitr_archive::error::io("reading", &path, e)),
        }
    }

    fn gone(&self, state: &Path, found: impl Display) -> Error {
        Error::new(Code::ArchiveGone, "opening the archive")
            .on(&self.place)
            .with("expected", self.archive)
            .with("found", found)
            .with("noted in", state.join(NAME).display())
    }
}

/// Opens the archive of a state directory, or creates it where there was none at this place.
///
/// # Errors
/// `archive.gone` where there was one; those of [`Archive::open_or_create`].
pub async fn open_or_create(
    state: &Path,
    store: Arc<dyn Store>,
    key: Option<MasterKey>,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Archive> {
    let place = store.describe();
    let Some(known) = Note::read(state)?.filter(|note| note.place == place) else {
        return Archive::open_or_create(store, key, clock, random).await;
    };
    match Archive::open(store.clone(), key.clone()).await {
        Ok(archive) if archive.id() == known.archive => Ok(archive),
        Ok(archive) => Err(known.gone(state, archive.id())),
        Err(e) if e.code() == Code::NotAnArchive => match store.list(prefix::EPOCHS, None).await?.is_empty() {
            true => Err(known.gone(state, "nothing")),
            // Only its first document is lost.
            false => Archive::open_or_create(store, key, clock, random).await,
        },
        Err(e) => Err(e),
    }
}

/// Refuses an archive that was begun where the one of this state directory was, however it was opened.
///
/// # Errors
/// `archive.gone`.
pub(crate) fn refuse_another(state: &StateDir, archive: &Archive) -> Result<()> {
    let known = Note::read(state.root())?.filter(|note| note.place == archive.store().describe());
    match known.filter(|known| known.archive != archive.id()) {
        Some(known) => Err(known.gone(state.root(), archive.id())),
        None => Ok(()),
    }
}

/// Notes the archive that a state directory belongs to from now on.
pub(crate) fn note(state: &StateDir, archive: &Archive) -> Result<()> {
    let note = Note { version: VERSION, place: archive.store().describe(), archive: archive.id() };
    if Note::read(state.root())?.as_ref() == Some(&note) {
        return Ok(());
    }
    let bytes = serde_json::to_vec(&note).map_err(|e| Error::new(Code::Internal, "noting the archive").because(e))?;
    state.replace(NAME, &bytes)
}
