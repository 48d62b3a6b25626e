//! Which WALs and MANIFESTs exist or existed, as far as this process knows.
//!
//! Owns: the set of known files, the set of files known to be lost, and whether the watch on the directories ever
//! lapsed. The directory scan is the truth, file events are the hint that makes it early; both only add.
//! Refuses: to read files. [`Registry::scan`] links and lists, nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use pitr_archive::{
    Result, error,
    ids::FileNumber,
    rocks::file_name::{self, FileKind},
};

use crate::{
    delay::{Delays, PinDelay},
    pin::{PinKind, Pinned, Pins},
    watch::Events,
    watched::Watched,
};

/// Where a WAL was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// In the WAL directory, under its own name.
    Live,
    /// In RocksDB's `archive/`: it gets no more records.
    Archived,
    /// Only in our pins.
    PinnedOnly,
}

/// So many OPTIONS files are remembered, also when they are gone.
const MAX_OPTIONS: usize = 256;

#[derive(Debug, Default)]
struct Inner {
    wals: BTreeMap<FileNumber, Seen>,
    lost: BTreeSet<FileNumber>,
    manifests: BTreeSet<FileNumber>,
    options: BTreeSet<FileNumber>,
    watching_from: Option<FileNumber>,
    /// How often the watch lapsed.
    lapses: u64,
    /// What this watch has shown when its events were last waited for.
    shown: Option<Watched>,
    /// What watches of earlier processes have shown.
    inherited: Vec<Watched>,
    /// What was proven in another way, of WALs that follow one another: a later process could not prove it again, once
    /// RocksDB's MANIFEST has gone on.
    proven: Option<Watched>,
    /// How often something was proven.
    proofs: u64,
    /// How long WALs that appeared since the watch began waited for their pins.
    delays: Delays,
    events: Option<Arc<Events>>,
    /// Files below these numbers are archived and given up; a scan that still sees them leaves them alone.
    wals_below: FileNumber,
    manifests_below: FileNumber,
}

/// The shared knowledge of the watcher and the engine.
#[derive(Debug)]
pub struct Registry {
    pins: Pins,
    db: PathBuf,
    wal_dir: PathBuf,
    inner: Mutex<Inner>,
}

impl Registry {
    /// Knows what is pinned already; call [`Registry::scan`] next.
    pub fn new(pins: Pins, db: PathBuf, wal_dir: PathBuf) -> Result<Self> {
        let mut inner = Inner::default();
        inner.wals.extend(pins.list(PinKind::Wal)?.into_keys().map(|n| (n, Seen::PinnedOnly)));
        inner.wals.extend(pins.copies()?.into_iter().map(|n| (n, Seen::PinnedOnly)));
        inner.manifests.extend(pins.list(PinKind::Manifest)?.into_keys());
        Ok(Self { pins, db, wal_dir, inner: Mutex::new(inner) })
    }

    /// The pins.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The database directory.
    pub fn db(&self) -> &Path {
        &self.db
    }

    /// The WAL directory.
    pub fn wal_dir(&self) -> &Path {
        &self.wal_dir
    }

    // A panic while the lock is held leaves plain sets that are still true: what they hold was seen.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Pins a file that an event named. Called by the watcher, as early as it can.
    pub fn appeared(&self, dir: Directory, name: &str) -> Result<()> {
        match (dir, file_name::parse(name)) {
            (Directory::Wal, Some(FileKind::Wal(n))) => self.pin_wal(n, &self.wal_dir.join(name), Seen::Live),
            (Directory::Db, Some(FileKind::Manifest(n))) => self.pin_manifest(n, &self.db.join(name)),
            (Directory::Db, Some(FileKind::Options(n))) => {
                let mut inner = self.lock();
                inner.options.insert(n);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether file events tell of everything that is new.
    pub fn is_watched(&self) -> bool {
        self.lock().watching_from.is_some()
    }

    /// The watch missed events: what was created and deleted meanwhile is unknown.
    pub fn watch_lapsed(&self) {
        let mut inner = self.lock();
        if inner.watching_from.take().is_some() {
            tracing::warn!(
                "file events were missed; the directories are listed instead until the watch is complete again"
            );
        }
        // What it had shown until then stays true.
        let shown = inner.shown.take();
        inner.inherited.extend(shown);
        inner.lapses += 1;
    }

    /// There will be no more events.
    pub fn watch_ended(&self) {
        self.watch_lapsed();
        self.lock().events = None;
    }

    /// Every creation since before the last [`Registry::scan`] has been and will be reported; call after that scan.
    pub fn watch_began(&self, events: Arc<Events>) {
        let mut inner = self.lock();
        inner.events = Some(events);
        let newest = inner.wals.keys().next_back().copied().unwrap_or_default();
        inner.watching_from = Some(newest);
    }

    fn pin_wal(&self, number: FileNumber, path: &Path, seen: Seen) -> Result<()> {
        if number < self.lock().wals_below {
            return Ok(());
        }
        let pinned = self.pins.pin(PinKind::Wal, number, path)?;
        let age = if pinned == Pinned::New { self.pins.age_of(PinKind::Wal, number) } else { None };
        let mut inner = self.lock();
        match pinned {
            Pinned::Vanished if !inner.wals.contains_key(&number) => {
                inner.lost.insert(number);
            }
            Pinned::Vanished => {}
            Pinned::New | Pinned::Already | Pinned::Replaced => {
                if let (Pinned::New, true, Some(age)) = (pinned, inner.events.is_some(), age) {
                    inner.delays.note(age);
                }
                if pinned == Pinned::Replaced {
                    // What was seen of this number was another file.
                    inner.inherited.retain(|watched| !watched.wals.contains(&number));
                    inner.proven.take_if(|watched| watched.wals.contains(&number));
                }
                inner.lost.remove(&number);
                inner.wals.insert(number, seen);
            }
        }
        Ok(())
    }

    fn pin_manifest(&self, number: FileNumber, path: &Path) -> Result<()> {
        if number < self.lock().manifests_below {
            return Ok(());
        }
        if self.pins.pin(PinKind::Manifest, number, path)? != Pinned::Vanished {
            self.lock().manifests.insert(number);
        }
        Ok(())
    }

    /// Lists the directories and pins everything that is there.
    ///
    /// The order matters: `archive/` is listed after the WAL directory, so that a WAL that moves between the two
    /// listings is seen in at least one.
    pub fn scan(&self) -> Result<()> {
        let mut live = BTreeSet::new();
        for (number, path) in list(&self.wal_dir)?.into_iter().filter_map(|(kind, path)| match kind {
            FileKind::Wal(n) => Some((n, path)),
            _ => None,
        }) {
            live.insert(number);
            self.pin_wal(number, &path, Seen::Live)?;
        }
        for (kind, path) in list(&self.wal_dir.join("archive"))? {
            if let FileKind::Wal(number) = kind {
                live.insert(number);
                self.pin_wal(number, &path, Seen::Archived)?;
            }
        }
        let mut options = Vec::new();
        for (kind, path) in list(&self.db)? {
            match kind {
                FileKind::Manifest(number) => self.pin_manifest(number, &path)?,
                FileKind::Options(number) => options.push(number),
                _ => {}
            }
        }
        let mut inner = self.lock();
        inner.options.extend(options);
        // RocksDB keeps two of them.
        while inner.options.len() > MAX_OPTIONS {
            inner.options.pop_first();
        }
        for (number, seen) in &mut inner.wals {
            if !live.contains(number) {
                *seen = Seen::PinnedOnly;
            }
        }
        Ok(())
    }

    /// As [`Registry::scan`], and every file event until then has been acted on. Events are late under load: without
    /// this, a WAL that came and went could be one whose event nobody has read yet.
    pub fn scan_settled(&self) -> Result<()> {
        let (events, complete, lapses) = {
            let inner = self.lock();
            (inner.events.clone(), inner.watching_from.is_some(), inner.lapses)
        };
        let Some(events) = events else { return self.scan() };
        if complete {
            self.scan()?;
            let newest = self.lock().wals.keys().next_back().copied();
            if events.settle() {
                self.note_shown(newest, lapses);
            } else {
                self.watch_lapsed();
            }
            return Ok(());
        }
        // After a lapse: once every event until now has been acted on, a listing is a new beginning.
        let settled = events.settle();
        self.scan()?;
        let mut inner = self.lock();
        if settled && inner.lapses == lapses {
            inner.watching_from = Some(inner.wals.keys().next_back().copied().unwrap_or_default());
        }
        Ok(())
    }

    /// Every event before a listing in which `newest` was the newest WAL has been acted on.
    fn note_shown(&self, newest: Option<FileNumber>, lapses: u64) {
        let mut inner = self.lock();
        let (Some(newest), Some(from)) = (newest, inner.watching_from) else { return };
        if inner.lapses != lapses {
            return;
        }
        // WALs that were given up are in no list any more.
        let below = FileNumber::new(inner.wals_below.get().saturating_sub(1));
        let lost = inner.lost.range(..=newest).next_back().copied().unwrap_or_default();
        let from = from.max(below).max(lost);
        let wals = inner.wals.range(..=newest).map(|(wal, _)| *wal).filter(|wal| *wal > from).collect();
        inner.shown = Some(Watched { from, wals }.bounded());
    }

    /// What watches have shown, those of earlier processes first, as far as it concerns WALs that are still needed.
    pub fn watches(&self) -> Vec<Watched> {
        let inner = self.lock();
        let below = inner.wals_below;
        let needed = |watched: &&Watched| watched.wals.last().is_some_and(|last| *last >= below);
        inner.inherited.iter().chain(&inner.proven).chain(&inner.shown).filter(needed).cloned().collect()
    }

    /// What watches of earlier processes have shown of the same directory, whose pins are still there.
    pub fn inherit(&self, watches: Vec<Watched>) {
        self.lock().inherited = watches;
    }

    /// It was proven that no record lies in a WAL between two.
    pub fn proven_between(&self, after: FileNumber, before: FileNumber) {
        let mut inner = self.lock();
        let proven = inner.proven.take().filter(|watched| watched.wals.last() == Some(&after));
        let mut proven = proven.unwrap_or(Watched { from: after, wals: BTreeSet::new() });
        proven.wals.insert(before);
        inner.proven = Some(proven.bounded());
        inner.proofs += 1;
    }

    /// How often something was proven.
    pub fn proofs(&self) -> u64 {
        self.lock().proofs
    }

    /// WALs that can be read, from `from` on, in order.
    pub fn wals_from(&self, from: FileNumber) -> Vec<(FileNumber, Seen)> {
        self.lock().wals.range(from..).map(|(n, s)| (*n, s.clone())).collect()
    }

    /// Where a WAL was last seen.
    pub fn seen(&self, wal: FileNumber) -> Option<Seen> {
        self.lock().wals.get(&wal).cloned()
    }

    /// Whether every WAL that was created after `after` and has a number below `before` is known: the watch has been
    /// complete since before `after` was the newest, or that of an earlier process was, and no file that it named was lost.
    pub fn watched_between(&self, after: FileNumber, before: FileNumber) -> bool {
        let inner = self.lock();
        let lost = after < before && inner.lost.range(after..before).any(|n| *n > after);
        let here = || inner.watching_from.is_some_and(|from| from <= after);
        let earlier = |watched: &Watched| watched.shows_all_between(after, before, |wal| inner.wals.contains_key(&wal));
        !lost && (here() || inner.inherited.iter().chain(&inner.proven).any(earlier))
    }

    /// Whether every WAL that was created after `after` is known.
    pub fn missed_none_after(&self, after: FileNumber) -> bool {
        let inner = self.lock();
        inner.watching_from.is_some_and(|from| from <= after) && !inner.lost.iter().any(|n| *n > after)
    }

    /// It is proven in another way that every WAL that existed when the watch began and has a number above `after` is
    /// known.
    pub fn all_known_above(&self, after: FileNumber) {
        let mut inner = self.lock();
        inner.watching_from = inner.watching_from.map(|from| from.min(after));
    }

    /// How long WALs waited for their pins.
    pub fn pin_delay(&self) -> Option<PinDelay> {
        self.lock().delays.summary()
    }

    /// MANIFESTs that can be read, from `from` on, in order.
    pub fn manifests_from(&self, from: FileNumber) -> Vec<FileNumber> {
        self.lock().manifests.range(from..).copied().collect()
    }

    /// Number of the newest OPTIONS file that was seen.
    pub fn newest_options(&self) -> Option<FileNumber> {
        self.lock().options.last().copied()
    }

    /// Numbers of the OPTIONS files that were seen, as far as they are remembered.
    pub fn options(&self) -> BTreeSet<FileNumber> {
        self.lock().options.clone()
    }

    /// Gives up WALs below `number`: they are archived and no longer needed for comparing.
    pub fn release_wals_below(&self, number: FileNumber) -> Result<()> {
        let gone: Vec<_> = {
            let mut inner = self.lock();
            inner.wals_below = inner.wals_below.max(number);
            let kept = inner.wals.split_off(&number);
            inner.lost.retain(|n| *n >= number);
            std::mem::replace(&mut inner.wals, kept).into_keys().collect()
        };
        gone.into_iter().try_for_each(|wal| self.pins.release(PinKind::Wal, wal))
    }

    /// Gives up MANIFESTs below `number`.
    pub fn release_manifests_below(&self, number: FileNumber) -> Result<()> {
        let gone: Vec<_> = {
            let mut inner = self.lock();
            inner.manifests_below = inner.manifests_below.max(number);
            let kept = inner.manifests.split_off(&number);
            std::mem::replace(&mut inner.manifests, kept).into_iter().collect()
        };
        gone.into_iter().try_for_each(|manifest| self.pins.release(PinKind::Manifest, manifest))
    }

    /// Removes every pin whose file the server no longer has, and every copy. What they held counts as lost from here on:
    /// nothing is proven by its absence.
    ///
    /// For as long as nobody reads them: whoever has one open goes on holding its bytes.
    pub fn give_up_held(&self) -> Result<()> {
        self.scan()?;
        let held: Vec<_> = {
            let mut inner = self.lock();
            let gone = inner.wals.iter().filter(|(_, seen)| **seen == Seen::PinnedOnly).map(|(n, _)| *n);
            let gone: Vec<_> = gone.collect();
            for wal in &gone {
                inner.wals.remove(wal);
                inner.lost.insert(*wal);
            }
            gone
        };
        held.into_iter().try_for_each(|wal| self.pins.release(PinKind::Wal, wal))?;
        let newest = self.lock().manifests.last().copied();
        newest.map_or(Ok(()), |newest| self.release_manifests_below(newest))
    }

    /// Forgets everything and removes every pin: another database is in the directory now.
    pub fn forget(&self) -> Result<()> {
        self.pins.release_all()?;
        let watching = self.lock().watching_from.is_some();
        let events = self.lock().events.clone();
        *self.lock() = Inner { watching_from: watching.then(FileNumber::default), events, ..Inner::default() };
        Ok(())
    }
}

/// Which directory an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directory {
    /// The database directory.
    Db,
    /// The WAL directory.
    Wal,
}

/// RocksDB's files in a directory; one that does not exist has none.
pub fn list(dir: &Path) -> Result<Vec<(FileKind, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(error::io("listing", dir, e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| error::io("listing", dir, e))?;
        if let Some(kind) = entry.file_name().to_str().and_then(file_name::parse) {
            found.push((kind, entry.path()));
        }
    }
    Ok(found)
}
