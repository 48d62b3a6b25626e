//! RocksDB's MANIFEST, followed edit by edit and from file to file.
//!
//! Owns: the model of the database's files at the last edit that was read, and the proof that nothing was missed between
//! two MANIFESTs: a new one opens with a snapshot, which must equal the model at the end of the one before.
//! Refuses: to skip. Where the proof fails the answer is [`Follow::Missed`], and the engine begins a new run.
//!
//! Only the file that CURRENT names is authoritative: RocksDB may abandon a MANIFEST after a failed write, with an edit
//! in it that never took effect.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::File,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
};

use pitr_archive::{
    Code, Error, Result,
    catalog::schema::ManifestProgress,
    ids::{ContentHash, FileNumber, SequenceNumber},
    rocks::{
        file_name,
        log_reader::{Finality, LogKind, LogReader, Read},
        manifest::{Change, ManifestError, ManifestModel, TwoPhase},
        version_edit::VersionEdit,
    },
    segment::entry::ManifestPoint,
};

use crate::{
    layout::current,
    pin::{PinKind, open_if_there},
    registry::Registry,
    window::{Passing, Window},
};

/// One thing that the MANIFEST said.
#[derive(Debug)]
pub enum News {
    /// An edit (of an atomic group: all its edits, when the group was complete) changed the database's files.
    Change {
        /// The end of its record.
        point: ManifestPoint,
        /// What it changed.
        change: Change,
    },
    /// A new MANIFEST took over: the server was opened anew, or the old one had grown too large.
    Rolled {
        /// Where its snapshot ends.
        consumed: Consumed,
        /// RocksDB's first WAL needed by that snapshot.
        first_wal_needed: FileNumber,
        /// `LastSequence` of that snapshot.
        last_sequence: SequenceNumber,
    },
}

/// How far a MANIFEST was read, and what shows later that it still is the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// The place.
    pub point: ManifestPoint,
    /// Digest of the model there.
    pub digest: ContentHash,
    /// Hash of every edit up to there.
    pub edits: ContentHash,
}

/// What became of the attempt to go on where an earlier archiver stopped.
#[derive(Debug)]
pub enum Resumed {
    /// At that place.
    Joins(Box<ManifestTail>),
    /// The file is gone.
    Gone,
    /// The file ends before.
    Shorter,
    /// A file of this number holds something else: RocksDB only ever appends, so it is another history's.
    Other,
}

/// The result of a look.
#[derive(Debug)]
pub enum Follow {
    /// Everything that is there now, in order.
    News(Vec<News>),
    /// The directory was put back: CURRENT names an earlier MANIFEST, or another file of the same number.
    PutBack {
        /// What could be read.
        before: Vec<News>,
        /// The same for people.
        detail: String,
    },
    /// Edits cannot be followed any more; what was read before that.
    Missed {
        /// What could be read.
        before: Vec<News>,
        /// Why, for people.
        detail: String,
    },
}

/// A MANIFEST being followed.
#[derive(Debug)]
pub struct ManifestTail {
    number: FileNumber,
    window: Window,
    reader: LogReader,
    model: ManifestModel,
    /// Every edit in the model.
    edits: blake3::Hasher,
    /// Which file CURRENT named by this number when it was opened; `None` if only our pin was left.
    identity: Option<(u64, u64)>,
    /// How the server decides which WALs it needs.
    two_phase: TwoPhase,
    /// First and last sequence number of the newest ingested files, as their edits named them, until taken.
    ingested: VecDeque<(SequenceNumber, SequenceNumber)>,
    /// Numbers of files that are no WALs, from [`ManifestTail::forget_numbers_below`] on.
    taken: BTreeSet<FileNumber>,
}

/// So many ingested files are remembered until somebody asks: a jump in the log that needs older ones is a barrier.
const MAX_INGESTED: usize = 4096;

/// A reader of one MANIFEST file.
fn open(registry: &Registry, number: FileNumber) -> Result<Option<(Window, LogReader)>> {
    let path = registry.db().join(file_name::manifest(number));
    let file: Option<File> = match registry.pins().open_pin(PinKind::Manifest, number)? {
        Some(file) => Some(file),
        None => open_if_there(&path)?,
    };
    Ok(file.map(|file| (Window::new(file, path, Passing::Stays), LogReader::new(LogKind::Manifest))))
}

/// By this a file that was put in the place of another is noticed.
fn identity(registry: &Registry, number: FileNumber) -> Option<(u64, u64)> {
    let meta = std::fs::metadata(registry.db().join(file_name::manifest(number))).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// The next edit of a MANIFEST, with the end of its record.
fn next_edit(window: &mut Window, reader: &mut LogReader) -> Result<Option<(u64, Vec<u8>)>> {
    let mut read_afresh = false;
    loop {
        let offset = reader.offset();
        match reader.read(window.from(offset), Finality::Growing) {
            Read::Record { end, payload, .. } => return Ok(Some((end, payload.into_owned()))),
            Read::Metadata { .. } => {}
            Read::End { .. } | Read::Incomplete { .. } => {
                if window.at_end() {
                    window.rewind();
                    return Ok(None);
                }
                window.extend(offset)?;
            }
            Read::Corrupt { at, reason } => {
                if read_afresh {
                    return Err(Error::new(Code::ManifestCorrupt, "reading")
                        .on(window.path().display())
                        .with("offset", at)
                        .because(reason));
                }
                read_afresh = true;
                window.rewind();
                window.extend(offset)?;
            }
        }
    }
}

/// An edit that cannot be applied, as an error about its file.
pub(crate) fn manifest_error(e: ManifestError, path: &Path) -> Error {
    let code = if e.is_unsupported() { Code::ManifestUnsupported } else { Code::ManifestCorrupt };
    Error::new(code, "reading an edit of").on(path.display()).with("offset", e.end).because(e)
}

impl ManifestTail {
    /// Reads the MANIFEST that CURRENT names, from its snapshot to its present end.
    pub fn start(registry: &Registry, two_phase: TwoPhase) -> Result<Self> {
        // CURRENT can move on between reading it and opening the file, never twice in a row for long.
        for _ in 0..1000 {
            let number = current(registry.db())?;
            let Some((window, reader)) = open(registry, number)? else { continue };
            let mut tail = Self::at_beginning(registry, number, window, reader, two_phase);
            tail.read_file(&mut Vec::new())?;
            if current(registry.db())? == number {
                return Ok(tail);
            }
        }
        Err(Error::new(Code::ManifestCorrupt, "following CURRENT").on(registry.db().display()).with("attempts", 1000))
    }

    /// Goes on where an earlier archiver stopped.
    pub fn resume(registry: &Registry, two_phase: TwoPhase, progress: &ManifestProgress) -> Result<Resumed> {
        let point = progress.point;
        let Some((window, reader)) = open(registry, point.file)? else { return Ok(Resumed::Gone) };
        let mut tail = Self::at_beginning(registry, point.file, window, reader, two_phase);
        while tail.model.applied_to() < point.offset {
            let Some((end, payload)) = next_edit(&mut tail.window, &mut tail.reader)? else {
                return Ok(Resumed::Shorter);
            };
            if end > point.offset {
                return Ok(Resumed::Other);
            }
            tail.apply(end, &payload)?;
        }
        let consumed = tail.consumed();
        let same = consumed.digest == progress.digest && progress.edits.is_none_or(|edits| edits == consumed.edits);
        Ok(if same { Resumed::Joins(Box::new(tail)) } else { Resumed::Other })
    }

    /// The model at [`ManifestTail::point`].
    pub fn model(&self) -> &ManifestModel {
        &self.model
    }

    /// The end of the last edit in the model.
    pub fn point(&self) -> ManifestPoint {
        ManifestPoint { file: self.number, offset: self.model.applied_to() }
    }

    /// The same place with what shows later that the file still is this one.
    pub fn consumed(&self) -> Consumed {
        let edits = ContentHash(*self.edits.finalize().as_bytes());
        Consumed { point: self.point(), digest: self.model.digest(), edits }
    }

    /// The file and where in it the next edit begins.
    pub fn ahead(&self) -> (Arc<File>, u64) {
        (self.window.file().clone(), self.reader.offset())
    }

    /// The sequence numbers of files ingested since this was last asked (at first: in this whole MANIFEST).
    ///
    /// Noted edit by edit: a later compaction rewrites such a file, and with it goes what it said about the number that
    /// the log skips.
    pub fn take_ingested(&mut self) -> impl Iterator<Item = (SequenceNumber, SequenceNumber)> + use<> {
        std::mem::take(&mut self.ingested).into_iter()
    }

    fn at_beginning(
        registry: &Registry,
        number: FileNumber,
        window: Window,
        reader: LogReader,
        two_phase: TwoPhase,
    ) -> Self {
        Self {
            number,
            window,
            reader,
            model: ManifestModel::new(number),
            edits: blake3::Hasher::new(),
            identity: identity(registry, number),
            two_phase,
            ingested: VecDeque::new(),
            taken: BTreeSet::from([number]),
        }
    }

    /// Whether every number between the two is a table, blob or MANIFEST file's, or one of `others`: RocksDB gives each
    /// number once, so no WAL can have had it.
    pub fn none_is_free_between(&self, after: FileNumber, before: FileNumber, others: &BTreeSet<FileNumber>) -> bool {
        let Some(first) = after.next().filter(|first| *first <= before) else { return false };
        let taken = self.taken.range(first..before);
        let taken: BTreeSet<_> = taken.chain(others.range(first..before)).collect();
        taken.len() as u64 == before.get() - first.get()
    }

    /// Numbers below this are no longer asked for.
    pub fn forget_numbers_below(&mut self, number: FileNumber) {
        self.taken = self.taken.split_off(&number);
    }

    fn apply(&mut self, end: u64, payload: &[u8]) -> Result<Vec<Change>> {
        let changes = self.model.apply(payload, end).map_err(|e| manifest_error(e, self.window.path()))?;
        self.edits.update(&end.to_le_bytes()).update(payload);
        // What cannot be decoded was reported just now.
        if let Ok(edit) = VersionEdit::decode(payload) {
            self.taken.extend(edit.new_files.iter().map(|file| file.number));
            self.taken.extend(edit.blob_file_additions.iter().map(|file| file.number));
        }
        for change in &changes {
            if let Change::FilesIngested { cf, files, .. } = change
                && let Some(family) = self.model.column_family(*cf)
            {
                for file in files.iter().filter_map(|number| family.files.get(number)) {
                    if self.ingested.len() == MAX_INGESTED {
                        self.ingested.pop_front();
                    }
                    self.ingested.push_back((file.smallest_seqno, file.largest_seqno));
                }
            }
        }
        Ok(changes)
    }

    fn read_file(&mut self, news: &mut Vec<News>) -> Result<()> {
        // What is in memory may have been the end of the file at an earlier look.
        self.window.rewind();
        while let Some((end, payload)) = next_edit(&mut self.window, &mut self.reader)? {
            let point = ManifestPoint { file: self.number, offset: end };
            for change in self.apply(end, &payload)? {
                news.push(News::Change { point, change });
            }
        }
        Ok(())
    }

    /// Reads the snapshot that a new MANIFEST opens with, and nothing behind it.
    ///
    /// Its edits describe; only an edit that was applied to a running database names the next file number.
    fn read_snapshot(&mut self) -> Result<()> {
        loop {
            let before = self.reader.state().clone();
            let Some((end, payload)) = next_edit(&mut self.window, &mut self.reader)? else { return Ok(()) };
            // What cannot be decoded is reported by `apply`.
            if VersionEdit::decode(&payload).is_ok_and(|edit| edit.next_file_number.is_some()) {
                self.reader = LogReader::resume(LogKind::Manifest, before);
                self.window.rewind();
                return Ok(());
            }
            self.apply(end, &payload)?;
        }
    }

    /// Reads everything that is there now, through as many MANIFESTs as there are.
    pub fn follow(&mut self, registry: &Registry) -> Result<Follow> {
        let mut news = Vec::new();
        loop {
            self.read_file(&mut news)?;
            let named = current(registry.db())?;
            if named == self.number {
                if self.identity.is_some_and(|ours| identity(registry, named).is_some_and(|there| there != ours)) {
                    let detail = format!("MANIFEST {named} is another file than the one that was read");
                    return Ok(Follow::PutBack { before: news, detail });
                }
                return Ok(Follow::News(news));
            }
            // CURRENT has moved on, so nothing will be added to this one: now its end is its end.
            self.read_file(&mut news)?;
            if named < self.number {
                let detail = format!("CURRENT went back from MANIFEST {} to {named}", self.number);
                return Ok(Follow::PutBack { before: news, detail });
            }
            match self.successor(registry, named)? {
                Some(next) => {
                    let (ingested, mut taken) = (std::mem::take(&mut self.ingested), std::mem::take(&mut self.taken));
                    taken.extend(&next.taken);
                    let before = self.model.last_sequence();
                    *self = Self { ingested, taken, ..next };
                    self.model.inherit_last_sequence(before);
                    news.push(News::Rolled {
                        consumed: self.consumed(),
                        first_wal_needed: self.model.first_wal_needed(self.two_phase),
                        last_sequence: self.model.last_sequence(),
                    });
                }
                None if current(registry.db())? != named => {}
                None => {
                    let detail = format!(
                        "no MANIFEST up to {named} begins with the state that MANIFEST {} ends with at offset {}",
                        self.number,
                        self.model.applied_to()
                    );
                    return Ok(Follow::Missed { before: news, detail });
                }
            }
        }
    }

    /// The MANIFEST that begins where this one ends: the first one before that which CURRENT names, else that one.
    ///
    /// Several can begin alike, each a session of the server, so the order counts. One that was abandoned after a failed
    /// write holds an edit that never took effect: none begins where it ends.
    fn successor(&self, registry: &Registry, named: FileNumber) -> Result<Option<Self>> {
        let Some(after) = self.number.next() else { return Ok(None) };
        let mut later: Vec<_> = registry.manifests_from(after).into_iter().filter(|n| *n < named).collect();
        later.push(named);
        for (index, number) in later.iter().enumerate() {
            let Some(next) = self.if_joins(registry, *number)? else { continue };
            if *number == named {
                return Ok(Some(next));
            }
            let mut whole = next;
            whole.read_file(&mut Vec::new())?;
            for behind in later.iter().skip(index + 1) {
                if whole.if_joins(registry, *behind)?.is_some() {
                    return self.if_joins(registry, *number);
                }
            }
        }
        Ok(None)
    }

    /// A MANIFEST, read through its snapshot, if that is the state at the end of this one.
    fn if_joins(&self, registry: &Registry, number: FileNumber) -> Result<Option<Self>> {
        let Some((window, reader)) = open(registry, number)? else { return Ok(None) };
        let mut next = Self::at_beginning(registry, number, window, reader, self.two_phase);
        next.read_snapshot()?;
        // Two empty databases look alike: the identity tells them apart.
        let same_database = match (next.model.db_id(), self.model.db_id()) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        Ok((same_database && next.model.digest() == self.model.digest()).then_some(next))
    }
}
