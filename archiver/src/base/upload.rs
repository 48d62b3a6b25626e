//! A base's files into the store, each once for all bases.
//!
//! Owns: which files need no upload. A file is recognised by RocksDB's unique id; one without (blob files, and files of
//! versions before 7.3) by its content, or, when a base of the same run has it already, by name and size: file numbers
//! are never used twice in one history.
//! Refuses: to trust a name alone. Every file that is read is hashed as it is sent.

use std::{
    collections::HashMap,
    io::{Read, Seek, SeekFrom},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use pitr_archive::{
    Code, Error, Result,
    base::FileIdentity,
    catalog::{
        archive::{Archive, EpochClaim},
        schema::BaseFile,
    },
    error,
    ids::{ContentHash, TimelineId},
    random::Random,
};

use super::collect::{CollectedFile, Held};

/// Files of published bases, and files that were sent since the last one was: where a base comes to nothing, the next one
/// need not send them again.
#[derive(Clone, Debug, Default)]
pub struct KnownFiles {
    sent: Arc<Mutex<HashMap<String, BaseFile>>>,
    by_object: HashMap<String, BaseFile>,
    /// Of the present run only.
    by_name: HashMap<(String, u64), BaseFile>,
    run: Option<RunName>,
}

/// A run of a timeline.
pub type RunName = (TimelineId, u64);

impl KnownFiles {
    /// Learns the files of a base that was published just now. What was sent for others before it no base names: it is
    /// not counted on for longer.
    pub fn published(&mut self, files: &[BaseFile], run: RunName, present: RunName) {
        self.learn(files, run, present);
        self.sent().clear();
    }

    // A panic while the lock is held leaves a plain map that is still true: what it holds was sent.
    fn sent(&self) -> MutexGuard<'_, HashMap<String, BaseFile>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns the files of a published base of `run`. `present` is the run that is being archived.
    pub fn learn(&mut self, files: &[BaseFile], run: RunName, present: RunName) {
        if self.run != Some(present) {
            self.by_name.clear();
            self.run = Some(present);
        }
        for file in files {
            self.by_object.insert(file.object.clone(), file.clone());
            if run == present {
                self.by_name.insert((file.name.clone(), file.size), file.clone());
            }
        }
    }
}

/// Uploads what the archive does not have, `at_once` files at a time; answers the base's files in the order given.
pub async fn upload(
    archive: &Archive,
    claim: &EpochClaim,
    random: &dyn Random,
    files: &[CollectedFile],
    known: &KnownFiles,
    run: RunName,
    at_once: usize,
) -> Result<Vec<BaseFile>> {
    let uploads: Vec<_> = files.iter().map(|file| one(archive, claim, random, file, known, run).boxed()).collect();
    stream::iter(uploads).buffered(at_once.max(1)).try_collect().await
}

async fn one(
    archive: &Archive,
    claim: &EpochClaim,
    random: &dyn Random,
    file: &CollectedFile,
    known: &KnownFiles,
    run: RunName,
) -> Result<BaseFile> {
    let described = |stored: &BaseFile| BaseFile {
        name: file.name.clone(),
        column_family: file.column_family,
        path_id: file.path_id,
        ..stored.clone()
    };
    let identity = match file.unique_id {
        Some(id) => FileIdentity::unique(archive.keyring(), [id.0, id.1], file.size, file.number),
        None => {
            let same_run = known.run == Some(run);
            if same_run && let Some(stored) = known.by_name.get(&(file.name.clone(), file.size)) {
                return Ok(described(stored));
            }
            FileIdentity::content(archive.keyring(), content_hash(file).await?, file.size)
        }
    };
    if let Some(stored) = known.by_object.get(identity.as_str()) {
        return Ok(described(stored));
    }
    if let Some(stored) = known.sent().get(identity.as_str()).cloned() {
        return Ok(described(&stored));
    }
    let mut source = tokio::fs::File::from_std(open(&file.held)?);
    source.set_max_buf_size(1 << 20);
    let stored = archive.upload_file(&identity, file.size, &mut source, claim, random).await?;
    crate::crash::point("base-uploaded-one");
    let stored = BaseFile {
        name: file.name.clone(),
        column_family: file.column_family,
        path_id: file.path_id,
        size: stored.size,
        hash: stored.hash,
        object: stored.object,
        epoch: stored.epoch,
    };
    known.sent().insert(stored.object.clone(), stored.clone());
    Ok(stored)
}

fn open(held: &Held) -> Result<std::fs::File> {
    match held {
        Held::Link(path) => std::fs::File::open(path).map_err(|e| error::io("opening", path, e)),
        Held::Open(file, path) => {
            let mut file = file.try_clone().map_err(|e| error::io("opening", path, e))?;
            file.seek(SeekFrom::Start(0)).map_err(|e| error::io("opening", path, e))?;
            Ok(file)
        }
    }
}

async fn content_hash(file: &CollectedFile) -> Result<ContentHash> {
    let (mut source, name) = (open(&file.held)?, file.name.clone());
    let hash = tokio::task::spawn_blocking(move || {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return Ok(ContentHash(*hasher.finalize().as_bytes())),
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(error::io("reading", &name, e)),
            }
        }
    });
    hash.await.unwrap_or_else(|e| Err(Error::new(Code::Internal, "hashing a file of a base").because(e)))
}

#[cfg(test)]
mod tests {
    use pitr_archive::{
        clock::SystemClock,
        ids::{ColumnFamilyId, FileNumber},
        random::OsRandom,
        rocks::version_edit::SstUniqueId,
        store::memory::MemoryStore,
    };

    use super::*;

    #[tokio::test]
    async fn what_was_sent_for_a_base_that_came_to_nothing_is_sent_again_only_after_another_was_published() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000007.sst");
        std::fs::write(&path, "content").unwrap();
        let archive =
            Archive::open_or_create(Arc::new(MemoryStore::new()), None, &SystemClock, &OsRandom).await.unwrap();
        let claim = archive.claim_epoch("test", &SystemClock, &OsRandom).await.unwrap();
        let files = [CollectedFile {
            name: "000007.sst".to_owned(),
            number: FileNumber::new(7),
            column_family: ColumnFamilyId::DEFAULT,
            path_id: 0,
            size: 7,
            unique_id: Some(SstUniqueId(1, 2)),
            held: Held::Link(path.clone()),
        }];
        let mut known = KnownFiles::default();
        let run = (TimelineId::FIRST, 0);
        let first = upload(&archive, &claim, &OsRandom, &files, &known.clone(), run, 1).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(upload(&archive, &claim, &OsRandom, &files, &known, run, 1).await.unwrap(), first);
        known.published(&[], run, run);
        assert!(upload(&archive, &claim, &OsRandom, &files, &known, run, 1).await.is_err(), "it must be read");
    }
}
