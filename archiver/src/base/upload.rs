//! A base's files into the store, each once for all bases.
//!
//! Owns: which files need no upload. A file is recognised by RocksDB's unique id; one without (blob files, and files of
//! versions before 7.3) by its content, or, when a base of the same run has it already, by name and size: file numbers
//! are never used twice in one history.
//! Refuses: to trust a name alone. Every file that is read is hashed as it is sent. And to count on an object that is
//! condemned (`crate::retention`): such a file is sent under another name.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    io::{self, Read, Seek, SeekFrom},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _, stream};
use pitr_archive::{
    Code, Error, Result,
    base::{CHUNK, FileIdentity, Source},
    catalog::{
        archive::{Archive, EpochClaim},
        schema::{BaseFile, CondemnedDocument},
    },
    clock::{Clock, Micros},
    error,
    ids::{BaseId, ContentHash, TimelineId},
    object_key::{ObjectKey, prefix},
    page_cache::{Hurry, Passing},
    random::Random,
    rate::{Class, Rate},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
    /// Objects of the base that was published last.
    newest: Option<HashSet<String>>,
    /// A base of the archive, the newest that is known, and the objects that it names.
    living: Option<(BaseId, HashSet<ObjectKey>)>,
}

/// A run of a timeline.
pub type RunName = (TimelineId, u64);

impl KnownFiles {
    /// Learns the files of a base that was published just now. What was sent for others before it no base names: it is
    /// not counted on for longer. What neither it nor the one before it has, the database has not any more: it is forgotten.
    pub fn published(&mut self, files: &[BaseFile], run: RunName, present: RunName) {
        self.learn(files, run, present);
        self.sent().clear();
        let newest: HashSet<String> = files.iter().map(|file| file.object.clone()).collect();
        if let Some(before) = self.newest.replace(newest.clone()) {
            let is_recent = |file: &BaseFile| newest.contains(&file.object) || before.contains(&file.object);
            self.by_object.retain(|_, file| is_recent(file));
            self.by_name.retain(|_, file| is_recent(file));
        }
    }

    /// The newest base of the archive: what it names is needed for as long as it is not condemned itself, and from then on
    /// has a grace period of its own.
    pub fn lives(&mut self, id: &BaseId, files: &[BaseFile]) {
        if self.living.as_ref().is_none_or(|(known, _)| known <= id) {
            self.living = Some((id.clone(), files.iter().map(|file| ObjectKey::file(&file.object)).collect()));
        }
    }

    /// What of these condemned objects cannot be counted on.
    fn lost(&self, condemned: HashSet<ObjectKey>, all: &HashSet<ObjectKey>) -> HashSet<ObjectKey> {
        let living = self.living.as_ref().filter(|(id, _)| !all.contains(&ObjectKey::base(id)));
        let Some((_, named)) = living else { return condemned };
        condemned.into_iter().filter(|key| !named.contains(key)).collect()
    }

    /// What was condemned, however long ago, and no base needs.
    async fn condemned(&self, archive: &Archive) -> Result<HashSet<ObjectKey>> {
        let all = archive.condemned_keys().await?;
        Ok(self.lost(all.clone(), &all))
    }

    /// What a base that is published at `now` must not name.
    pub async fn condemned_before_long(&self, archive: &Archive, now: Micros) -> Result<HashSet<ObjectKey>> {
        let documents = archive.condemned().await?;
        let keys = |document: &CondemnedDocument| document.objects.iter().map(|o| o.key.clone()).collect::<Vec<_>>();
        let all = documents.iter().flat_map(keys).collect();
        Ok(self.lost(documents.iter().filter(|d| !d.leaves_time(now)).flat_map(keys).collect(), &all))
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

/// How a base's files are read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// So many files at a time. Of as many others, but for one, the last bytes are being made durable meanwhile.
    pub at_once: usize,
    /// No faster than this, all together.
    pub rate: Option<Arc<Rate>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How it is found out what the store has.
    pub lookup: Lookup,
}

/// How it is found out which of the files that were there once are there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// By one listing: for the many files of a base.
    Listing,
    /// By a request for each that is remembered: for a few files, which are new.
    Each,
}

/// What the store has.
enum There {
    Listed(HashSet<ObjectKey>),
    Asked,
}

impl There {
    async fn has(&self, archive: &Archive, key: &ObjectKey) -> Result<bool> {
        match self {
            Self::Listed(there) => Ok(there.contains(key)),
            Self::Asked => Ok(archive.store().size(key).await?.is_some()),
        }
    }
}

/// How often files are sent again because they were condemned meanwhile.
const ATTEMPTS: usize = 10;
/// How many names a file can have had that are all condemned.
const NAMES: u64 = 1000;

/// Whether any of these files is an object that may be deleted at any time.
pub fn any_condemned(files: &[BaseFile], condemned: &HashSet<ObjectKey>) -> bool {
    files.iter().any(|file| condemned.contains(&ObjectKey::file(&file.object)))
}

/// Uploads what the archive does not have; answers the base's files in the order given. None of
/// them was about to be deleted when the last of them was there.
///
/// # Errors
/// `base.unobtainable` where files go on being condemned as fast as they are sent.
pub async fn upload(
    archive: &Archive,
    claim: &EpochClaim,
    random: &dyn Random,
    files: &[CollectedFile],
    known: &KnownFiles,
    run: RunName,
    reading: &Reading,
) -> Result<Vec<BaseFile>> {
    // In this order: what was deleted since is in one or missing in the other.
    let mut condemned = known.condemned(archive).await?;
    let there = match reading.lookup {
        Lookup::Listing => {
            let there = archive.store().list(prefix::FILES, None).await?;
            There::Listed(there.into_iter().map(|listed| listed.key).collect())
        }
        Lookup::Each => There::Asked,
    };
    // The largest first: one that came last would be sent alone.
    let mut by_size: Vec<(usize, &CollectedFile)> = files.iter().enumerate().collect();
    by_size.sort_by_key(|(_, file)| Reverse(file.size));
    let at_once = reading.at_once.max(1);
    for _ in 0..ATTEMPTS {
        let context = Context {
            archive,
            claim,
            random,
            known,
            condemned: &condemned,
            there: &there,
            run,
            rate: reading.rate.as_ref(),
            places: Arc::new(Semaphore::new(at_once)),
        };
        let uploads = by_size.iter().map(|(n, file)| one(&context, file).map_ok(move |stored| (*n, stored)).boxed());
        let uploads = stream::iter(uploads.collect::<Vec<_>>()).buffer_unordered(2 * at_once - 1);
        let mut sent: Vec<(usize, BaseFile)> = uploads.try_collect().await?;
        sent.sort_unstable_by_key(|(n, _)| *n);
        let sent: Vec<BaseFile> = sent.into_iter().map(|(_, file)| file).collect();
        // What was condemned meanwhile, by a prune that saw files which no base names yet, is needed as soon as one does.
        if !any_condemned(&sent, &known.condemned_before_long(archive, reading.clock.now()).await?) {
            return Ok(sent);
        }
        condemned = known.condemned(archive).await?;
    }
    Err(Error::new(Code::BaseUnobtainable, "uploading files that are condemned meanwhile").with("attempts", ATTEMPTS))
}

/// What every file's upload is given.
struct Context<'a> {
    archive: &'a Archive,
    claim: &'a EpochClaim,
    random: &'a dyn Random,
    known: &'a KnownFiles,
    condemned: &'a HashSet<ObjectKey>,
    /// What the store has.
    there: &'a There,
    run: RunName,
    rate: Option<&'a Arc<Rate>>,
    /// One for each file that is being read.
    places: Arc<Semaphore>,
}

/// A file that takes a place until it is read: what it waits for then, its fsync or the store's answer, keeps no disk and no
/// processor from the next one.
struct InPlace {
    passing: Passing,
    _place: OwnedSemaphorePermit,
}

impl Read for InPlace {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.passing.read(buffer)
    }
}

impl Context<'_> {
    fn is_condemned(&self, object: &str) -> bool {
        self.condemned.contains(&ObjectKey::file(object))
    }

    /// Whether a file that was there once can be counted on: what a base no longer needs is deleted, while this process
    /// remembers it.
    async fn there(&self, stored: Option<&BaseFile>) -> Result<Option<BaseFile>> {
        let Some(stored) = stored.filter(|stored| !self.is_condemned(&stored.object)) else { return Ok(None) };
        let there = self.there.has(self.archive, &ObjectKey::file(&stored.object)).await?;
        Ok(there.then(|| stored.clone()))
    }

    /// The name under which a file is sent.
    fn name(&self, first: FileIdentity) -> Result<FileIdentity> {
        if !self.is_condemned(first.as_str()) {
            return Ok(first);
        }
        let again = (1..NAMES).map(|n| first.again(self.archive.keyring(), n));
        let free = again.into_iter().find(|name| !self.is_condemned(name.as_str()));
        free.ok_or_else(|| {
            Error::new(Code::BaseUnobtainable, "naming a file").on(first.key()).with("condemned names", NAMES)
        })
    }
}

async fn one(context: &Context<'_>, file: &CollectedFile) -> Result<BaseFile> {
    let Context { archive, claim, random, known, run, rate, .. } = *context;
    let place = Arc::clone(&context.places).acquire_owned().await;
    let place = place.map_err(|e| Error::new(Code::Internal, "waiting for other files of a base").because(e))?;
    let described = |stored: &BaseFile| BaseFile {
        name: file.name.clone(),
        column_family: file.column_family,
        path_id: file.path_id,
        ..stored.clone()
    };
    let identity = match file.unique_id {
        Some(id) => FileIdentity::unique(archive.keyring(), [id.0, id.1], file.size, file.number),
        None => {
            let of_run = known.by_name.get(&(file.name.clone(), file.size)).filter(|_| known.run == Some(run));
            if let Some(stored) = context.there(of_run).await? {
                return Ok(described(&stored));
            }
            FileIdentity::content(archive.keyring(), content_hash(file, rate).await?, file.size)
        }
    };
    let identity = context.name(identity)?;
    if let Some(stored) = context.there(known.by_object.get(identity.as_str())).await? {
        return Ok(described(&stored));
    }
    let sent = known.sent().get(identity.as_str()).cloned();
    // What was sent since the listing is not in it; a second attempt meets it.
    if let Some(stored) = context.there(sent.as_ref()).await? {
        return Ok(described(&stored));
    }
    let source = Source::new(InPlace { passing: passing(file, rate)?, _place: place });
    let source = source.no_faster_than(rate.cloned());
    let stored = archive.upload_file(&identity, file.size, source, claim, random).await?;
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

fn passing(file: &CollectedFile, rate: Option<&Arc<Rate>>) -> Result<Passing> {
    let hurry = if rate.is_some() { Hurry::None } else { Hurry::Ahead };
    Ok(Passing::new(open(&file.held)?, hurry))
}

async fn content_hash(file: &CollectedFile, rate: Option<&Arc<Rate>>) -> Result<ContentHash> {
    let mut hasher = blake3::Hasher::new();
    let mut passing = passing(file, rate)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        if let Some(rate) = rate {
            rate.until_paid(Class::Rest).await;
        }
        let name = file.name.clone();
        let step = tokio::task::spawn_blocking(move || {
            let read = passing.read(&mut buffer).map_err(|e| error::io("reading", &name, e))?;
            hasher.update(buffer.get(..read).unwrap_or_default());
            Ok((hasher, passing, buffer, read))
        });
        let step = step.await.map_err(|e| Error::new(Code::Internal, "hashing a file of a base").because(e))?;
        let read;
        (hasher, passing, buffer, read) = step?;
        if let Some(rate) = rate {
            rate.charge(Class::Rest, read as u64);
        }
        if read == 0 {
            return Ok(ContentHash(*hasher.finalize().as_bytes()));
        }
    }
}

#[cfg(test)]
use pitr_archive::page_cache::residency;

#[cfg(test)]
#[path = "../../../archive/src/page_cache/lab.rs"]
mod lab;

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
    async fn a_cold_file_is_not_in_memory_after_it_was_uploaded_and_a_warm_one_still_is() {
        let Some(directory) = lab::directory() else { return };
        // With an id it is read once, without one it is hashed before.
        for (id, warm) in
            [(Some(SstUniqueId(1, 2)), false), (None, false), (Some(SstUniqueId(3, 4)), true), (None, true)]
        {
            // The kernel takes single pages of its own accord, though seldom; what we take of them we would take each time.
            let mut attempts = Vec::new();
            while attempts.len() < 3 && attempts.last().is_none_or(|(before, after)| before != after) {
                attempts.push(in_memory_before_and_after(directory.path(), id, warm).await);
            }
            let (before, after) = attempts.last().unwrap();
            assert_eq!(after, before, "id {id:?}, warm {warm}: {attempts:?}");
        }
    }

    /// How many pages of a file are in memory when it is uploaded into a new archive.
    async fn in_memory_before_and_after(
        directory: &std::path::Path,
        id: Option<SstUniqueId>,
        warm: bool,
    ) -> (usize, usize) {
        let store = Arc::new(MemoryStore::new());
        let archive = Archive::open_or_create(store, None, &SystemClock, &OsRandom).await.unwrap();
        let claim = archive.claim_epoch("test", &SystemClock, &OsRandom).await.unwrap();
        let reading = Reading { at_once: 1, rate: None, clock: Arc::new(SystemClock), lookup: Lookup::Listing };
        let (file, path) = lab::file_of(directory, 64 * lab::MIB);
        if warm {
            std::fs::read(&path).unwrap();
        }
        let before = lab::in_memory(&path);
        assert_eq!(before > 0, warm);
        let files = [CollectedFile {
            name: "000007.sst".to_owned(),
            number: FileNumber::new(7),
            column_family: ColumnFamilyId::DEFAULT,
            path_id: 0,
            size: 64 << 20,
            unique_id: id,
            held: Held::Open(file, path.clone()),
        }];
        let run = (TimelineId::FIRST, 0);
        upload(&archive, &claim, &OsRandom, &files, &KnownFiles::default(), run, &reading).await.unwrap();
        (before, lab::in_memory(&path))
    }

    #[tokio::test]
    async fn a_file_that_is_known_is_sent_again_only_where_its_object_is_gone_however_that_is_found_out() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("held.sst");
        for (lookup, id) in [Lookup::Listing, Lookup::Each].into_iter().zip([Some(SstUniqueId(1, 2)), None]) {
            let archive =
                Archive::open_or_create(Arc::new(MemoryStore::new()), None, &SystemClock, &OsRandom).await.unwrap();
            let claim = archive.claim_epoch("test", &SystemClock, &OsRandom).await.unwrap();
            let reading = Reading { at_once: 1, rate: None, clock: Arc::new(SystemClock), lookup };
            let run = (TimelineId::FIRST, 0);
            let mut known = KnownFiles::default();
            let files = [CollectedFile {
                name: "000007.sst".to_owned(),
                number: FileNumber::new(7),
                column_family: ColumnFamilyId::DEFAULT,
                path_id: 0,
                size: 4,
                unique_id: id,
                held: Held::Link(path.clone()),
            }];
            std::fs::write(&path, "data").unwrap();
            let sent = upload(&archive, &claim, &OsRandom, &files, &known, run, &reading).await.unwrap();
            known.published(&sent, run, run);
            // Whoever reads it now fails.
            std::fs::remove_file(&path).unwrap();
            let again = upload(&archive, &claim, &OsRandom, &files, &known, run, &reading).await.unwrap();
            assert_eq!(again, sent, "{lookup:?}");
            let object = ObjectKey::file(&sent.first().unwrap().object);
            archive.store().delete(&object).await.unwrap();
            let failed = upload(&archive, &claim, &OsRandom, &files, &known, run, &reading).await.unwrap_err();
            assert_eq!(failed.code(), Code::FileNotFound, "{lookup:?}");
            std::fs::write(&path, "data").unwrap();
            upload(&archive, &claim, &OsRandom, &files, &known, run, &reading).await.unwrap();
            assert!(archive.store().size(&object).await.unwrap().is_some(), "{lookup:?}");
        }
    }

    #[test]
    fn files_that_the_database_has_not_any_more_are_forgotten_after_two_bases() {
        let file = |n: u64| BaseFile {
            name: format!("{n:06}.sst"),
            column_family: ColumnFamilyId::DEFAULT,
            path_id: 0,
            size: n,
            hash: ContentHash([0; 32]),
            object: format!("object-{n}"),
            epoch: pitr_archive::ids::Epoch::default(),
        };
        let run = (TimelineId::FIRST, 0);
        let mut known = KnownFiles::default();
        known.learn(&[file(1)], run, run);
        for n in 2..1000 {
            known.published(&[file(n), file(n + 1)], run, run);
        }
        assert!(known.by_object.len() <= 4 && known.by_name.len() <= 4, "{}", known.by_object.len());
        assert!(known.by_object.contains_key("object-1000") && known.by_object.contains_key("object-998"));
    }

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
        let (run, reading) = (
            (TimelineId::FIRST, 0),
            Reading { at_once: 1, rate: None, clock: Arc::new(SystemClock), lookup: Lookup::Listing },
        );
        let first = upload(&archive, &claim, &OsRandom, &files, &known.clone(), run, &reading).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(upload(&archive, &claim, &OsRandom, &files, &known, run, &reading).await.unwrap(), first);
        known.published(&[], run, run);
        assert!(upload(&archive, &claim, &OsRandom, &files, &known, run, &reading).await.is_err(), "it must be read");
    }
}
