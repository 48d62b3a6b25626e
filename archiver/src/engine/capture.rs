//! Files that enter the database without the log are held before a compaction removes them.
//!
//! Owns: which of them are worth holding, their pins, and the list of those that wait to be uploaded. Linking comes at
//! once, when the MANIFEST has named them and before anything else is done; uploading is the archiver's
//! ([`crate::archiver`]), and only when it is done does [`Event::Captured`] name them: data first, then what names it.
//! A pin is given up when the segment that holds this event is acknowledged, so a crash at any moment finds either the
//! event in the archive or the pin in its place.
//!
//! What cannot be held (gone already, too large, on another file system), what no replay could ever bring in again, and
//! what comes while too much waits already is said in the barrier, which then stays one.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use pitr_archive::{
    Result,
    catalog::schema::BaseFile,
    error,
    ids::{ColumnFamilyId, FileNumber, Ordinal},
    rocks::{
        built_in, file_name,
        manifest::Change,
        version_edit::{NewFile, SstUniqueId, VersionEdit},
    },
    segment::entry::{CapturedFile, CapturedSettings, Event, ManifestPoint},
};
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::{
    base::collect::{CollectedFile, Held},
    manifest_tail::News,
    pin::{PinKind, Pinned},
    session,
};

/// More files than this in one column family's part of an ingestion are not captured: the event that names them is in the
/// footer of its segment, which every reader of the archive reads.
const MAX_FILES: usize = 1024;

/// More ingestions than this do not wait for their upload: they are in every segment's state.
const MAX_WAITING: usize = 64;

/// Together they wait with so many times the bytes that one may have.
const WAITING_FACTOR: u64 = 4;

/// RocksDB 7.10 and later give this epoch to files that are ingested below what is there; the first file of a column
/// family can have it, too.
const BEHIND: u64 = 1;

/// A table's properties lie before its last few hundred bytes; user-defined ones can make them larger.
const TAIL: u64 = 256 << 10;

/// What the names of the properties have in common that `SstFileWriter` sets and nothing else does. Their block stores of
/// a name only what it does not share with the one before.
const EXTERNAL: &[u8] = b"external_sst_file.";

/// A table file in our pins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedTable {
    number: FileNumber,
    size: u64,
    path_id: u8,
    unique_id: Option<SstUniqueId>,
    external: bool,
}

/// Files of one column family that are pinned and not yet noted as captured in an acknowledged segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingCapture {
    manifest: ManifestPoint,
    column_family: ColumnFamilyId,
    edit: String,
    /// Always false where the files were judged when they were seen.
    #[serde(default)]
    behind: bool,
    #[serde(default)]
    settings: Option<CapturedSettings>,
    files: Vec<PinnedTable>,
    /// Of a flush: the MANIFEST record of the one before it ([`Event::Flushed`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<ManifestPoint>,
    /// Of a flush: the first log needed behind it, where the MANIFEST has said so with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_wal_needed: Option<FileNumber>,
    /// The segment with the event that says so, once there is one.
    #[serde(skip)]
    noted_in: Option<Ordinal>,
}

/// Whose settings are known when files are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settings {
    /// Those of the session that brought the files in.
    Theirs,
    /// Another session can have begun in between.
    PerhapsOfAnotherSession,
}

/// What was made of the files of one edit when it was seen.
#[derive(Debug)]
pub(super) struct Sight {
    manifest: ManifestPoint,
    column_family: ColumnFamilyId,
    settings: Option<CapturedSettings>,
    pub(super) pinned: std::result::Result<Vec<PinnedTable>, String>,
    kind: Kind,
}

/// How files came into the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Without the log: without them no replay crosses the place.
    Ingested,
    /// By a flush: without them a restore replays more of the log.
    Flushed,
}

/// Files that are to be uploaded next.
#[derive(Debug)]
pub struct NextCapture {
    /// The MANIFEST record that named them.
    pub manifest: ManifestPoint,
    /// Whose they are.
    pub column_family: ColumnFamilyId,
    /// How they came.
    pub kind: Kind,
    /// The pins.
    pub files: Vec<CollectedFile>,
}

impl Sight {
    pub(super) fn of_flush(manifest: ManifestPoint, column_family: ColumnFamilyId, files: Vec<PinnedTable>) -> Self {
        Self { manifest, column_family, settings: None, pinned: Ok(files), kind: Kind::Flushed }
    }

    pub(super) fn is_flush(&self) -> bool {
        self.kind == Kind::Flushed
    }

    pub(super) fn bytes(&self) -> u64 {
        self.pinned.iter().flatten().fold(0, |sum, file| sum.saturating_add(file.size))
    }
}

impl PendingCapture {
    /// `place` is the flush's own MANIFEST record and that of the one before it.
    pub(super) fn of_flush(
        (manifest, previous): (ManifestPoint, ManifestPoint),
        column_family: ColumnFamilyId,
        edit: String,
        files: Vec<PinnedTable>,
    ) -> Self {
        Self {
            manifest,
            column_family,
            edit,
            behind: false,
            settings: None,
            files,
            previous: Some(previous),
            first_wal_needed: None,
            noted_in: None,
        }
    }

    /// The flush at `manifest` was said to need no log below this one.
    pub(super) fn learn_first_wal_needed(&mut self, manifest: ManifestPoint, wal: FileNumber) {
        if self.is_flush() && self.manifest == manifest && self.waits() {
            self.first_wal_needed = Some(wal);
        }
    }

    pub(super) fn is_flush(&self) -> bool {
        self.previous.is_some()
    }

    /// Its files are not in the archive yet.
    pub(super) fn waits(&self) -> bool {
        self.noted_in.is_none()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }
}

impl Engine {
    /// Links the files that the news says have entered. Called before anything else is done with the news.
    pub(super) fn hold_entered(&mut self, news: &[News]) -> Result<()> {
        // From the first look on: what an earlier process had pinned is known to be wanted or not.
        self.seen_news = true;
        let mut settings = None;
        for one in news {
            let News::Change { point, change } = one else { continue };
            if Some(*point) <= self.state.said {
                continue;
            }
            if let Change::Flush { cf, edit, .. } = change {
                self.hold_flushed(*point, *cf, edit)?;
                continue;
            }
            let Change::FilesIngested { cf, edit, .. } = change else { continue };
            let settings = match settings {
                Some(known) => known,
                None => *settings.insert(self.settings_then(news)?),
            };
            let pinned = self.hold_files(edit, settings)?;
            let settings = self.settings_of(*cf, settings);
            self.sights.push(Sight { manifest: *point, column_family: *cf, settings, pinned, kind: Kind::Ingested });
        }
        Ok(())
    }

    /// Whether the settings that are read now were those at the time of the news.
    fn settings_then(&mut self, news: &[News]) -> Result<Settings> {
        // A column family that came with the news has its settings in a newer file.
        self.registry.scan()?;
        self.learn_settings()?;
        let session = session::session_id(&self.layout.info_log())?;
        let opened = |one: &News| matches!(one, News::Rolled { .. }) && !self.is_mere_rollover(one);
        let same = session.is_some()
            && session == self.state.session_id
            && self.state.pending_session.is_none()
            && !news.iter().any(opened);
        Ok(if same { Settings::Theirs } else { Settings::PerhapsOfAnotherSession })
    }

    /// A column family's settings, if they were its own when it got the files.
    fn settings_of(&self, cf: ColumnFamilyId, settings: Settings) -> Option<CapturedSettings> {
        let family = self.manifest.model().column_family(cf).filter(|_| settings == Settings::Theirs)?;
        let settings = self.layout.family(family.name.as_str()?)?;
        Some(CapturedSettings {
            merge_operator: settings.merge_operator.clone(),
            compaction_filter: settings.compaction_filter.clone().or(settings.compaction_filter_factory.clone()),
            levels: settings.num_levels,
        })
    }

    /// Why no replay could bring the files of an edit in again, for people.
    fn never_crossed(&self, edit: &VersionEdit<'_>, settings: Settings) -> Option<String> {
        if self.layout.allow_2pc() || self.state.transactions.policy().is_some() {
            return Some("the database's log can hold prepared transactions".to_owned());
        }
        for family in self.manifest.model().column_families().values() {
            let (name, comparator) = (&family.name, family.comparator.as_ref().map(ToString::to_string));
            if let Some(comparator) = comparator.filter(|comparator| !built_in::has_comparator(comparator)) {
                return Some(format!("column family {name} has the comparator {comparator}, which is not built in"));
            }
        }
        let family = self.manifest.model().column_family(edit.column_family);
        let excluded = settings == Settings::Theirs
            && family.and_then(|family| family.name.as_str()).is_some_and(|name| !self.layout.may_ingest_behind(name));
        let behind = |file: &&NewFile<'_>| {
            file.largest_seqno.get() == 0 && file.epoch_number.is_none_or(|epoch| epoch == BEHIND) && !excluded
        };
        let file = edit.new_files.iter().find(behind)?;
        Some(format!(
            "file {} has no number of its own, and the server may have put it below what was there",
            file.number
        ))
    }

    /// Why these files are not held beside those that wait for their upload, for people.
    fn too_much_waits(&self, bytes: u64) -> Option<String> {
        let seen = self.sights.iter().filter(|sight| !sight.is_flush()).filter_map(|sight| sight.pinned.as_ref().ok());
        let pending = self.state.captures.iter().filter(|pending| !pending.is_flush());
        let waiting: Vec<_> = pending.map(|pending| &pending.files).chain(seen).collect();
        if waiting.len() >= MAX_WAITING {
            return Some(format!("{} others wait for their upload", waiting.len()));
        }
        let held = waiting.into_iter().flatten().fold(bytes, |sum, file| sum.saturating_add(file.size));
        let limit = self.policy.capture_bytes.saturating_mul(WAITING_FACTOR);
        (held > limit).then(|| format!("with those that wait for their upload it is {held} bytes, more than {limit}"))
    }

    /// `Err` inside says for people why the files are not held.
    fn hold_files(&self, edit: &[u8], settings: Settings) -> Result<std::result::Result<Vec<PinnedTable>, String>> {
        let Ok(edit) = VersionEdit::decode(edit) else { return Ok(Err("the edit is malformed".to_owned())) };
        if let Some(why) = self.never_crossed(&edit, settings) {
            return Ok(Err(why));
        }
        let bytes: u64 = edit.new_files.iter().fold(0, |sum, file| sum.saturating_add(file.file_size));
        if bytes > self.policy.capture_bytes {
            return Ok(Err(format!("{bytes} bytes, more than the limit of {}", self.policy.capture_bytes)));
        }
        if edit.new_files.len() > MAX_FILES {
            return Ok(Err(format!("{} files, more than {MAX_FILES}", edit.new_files.len())));
        }
        if let Some(why) = self.too_much_waits(bytes) {
            return Ok(Err(why));
        }
        let mut held = Vec::new();
        for file in &edit.new_files {
            let pinned = match self.pin_table(file)? {
                Ok(pinned) => pinned,
                Err(why) => return Ok(Err(why)),
            };
            if !pinned.external || file.smallest_seqno != file.largest_seqno {
                let what = "was not made to be ingested: an import, or a file of another database";
                return Ok(Err(format!("file {} {what}", file_name::sst(file.number))));
            }
            held.push(pinned);
        }
        Ok(Ok(held))
    }

    /// `Err` inside says for people why the file is not held.
    pub(super) fn pin_table(&self, file: &NewFile<'_>) -> Result<std::result::Result<PinnedTable, String>> {
        let name = file_name::sst(file.number);
        let pins = self.registry.pins();
        let Some(dir) = self.layout.table_dir(file.path_id) else {
            return Ok(Err(format!("file {name} is in a directory that is not known")));
        };
        match pins.pin(PinKind::Table, file.number, &dir.join(&name)) {
            Ok(Pinned::New | Pinned::Already | Pinned::Replaced) => {}
            // An earlier process can have held it, and ended before the archive knew.
            Ok(Pinned::Vanished) if pins.open_pin(PinKind::Table, file.number)?.is_some() => {}
            Ok(Pinned::Vanished) => return Ok(Err(format!("file {name} was gone before it could be linked"))),
            Err(e) => return Ok(Err(format!("file {name} cannot be linked: {e}"))),
        }
        let (size, external) = match examine(&pins.path(PinKind::Table, file.number)) {
            Ok(found) => found,
            Err(e) => return Ok(Err(format!("file {name} cannot be read: {e}"))),
        };
        if size != file.file_size {
            return Ok(Err(format!("file {name} has {size} bytes, the MANIFEST says {}", file.file_size)));
        }
        let (number, path_id, unique_id) = (file.number, file.path_id, file.unique_id);
        Ok(Ok(PinnedTable { number, size, path_id, unique_id, external }))
    }

    pub(super) fn take_sight(&mut self, manifest: ManifestPoint, cf: ColumnFamilyId) -> Option<Sight> {
        let index = self.sights.iter().position(|sight| sight.manifest == manifest && sight.column_family == cf)?;
        Some(self.sights.remove(index))
    }

    /// The change is put into the stream now: its files wait for their upload. Answers what the barrier says of it.
    pub(super) fn capture(&mut self, manifest: ManifestPoint, cf: ColumnFamilyId, edit: &[u8]) -> String {
        use base64::Engine as _;
        let sight = self.take_sight(manifest, cf);
        match sight.map(|sight| (sight.pinned, sight.settings)) {
            None => "; not captured: it was not seen when it happened".to_owned(),
            Some((Err(why), _)) => format!("; not captured: {why}"),
            Some((Ok(files), settings)) => {
                self.state.captures.push(PendingCapture {
                    manifest,
                    column_family: cf,
                    edit: base64::engine::general_purpose::STANDARD.encode(edit),
                    behind: false,
                    settings,
                    files,
                    previous: None,
                    first_wal_needed: None,
                    noted_in: None,
                });
                String::new()
            }
        }
    }

    /// Whether files wait for their upload.
    pub fn files_wait(&self) -> bool {
        self.state.captures.iter().any(PendingCapture::waits)
    }

    /// The files to upload next, and what they belong to.
    pub fn next_capture(&self) -> Option<NextCapture> {
        let waiting = || self.state.captures.iter().filter(|pending| pending.waits());
        // Without the files of an ingestion no replay crosses it; without those of a flush it only takes longer.
        let pending = waiting().find(|pending| !pending.is_flush()).or_else(|| waiting().next())?;
        let pins = self.registry.pins();
        let collected = |file: &PinnedTable| CollectedFile {
            name: file_name::sst(file.number),
            number: file.number,
            column_family: pending.column_family,
            path_id: file.path_id.into(),
            size: file.size,
            unique_id: file.unique_id,
            held: Held::Link(pins.path(PinKind::Table, file.number)),
        };
        Some(NextCapture {
            manifest: pending.manifest,
            column_family: pending.column_family,
            kind: if pending.is_flush() { Kind::Flushed } else { Kind::Ingested },
            files: pending.files.iter().map(collected).collect(),
        })
    }

    /// They are in the archive: the stream says so. Nothing happens if the run that they belonged to has ended.
    pub fn captured(&mut self, manifest: ManifestPoint, cf: ColumnFamilyId, stored: Vec<BaseFile>) -> Result<()> {
        let Some(pending) = self.pending_capture(manifest, cf) else { return Ok(()) };
        let files = pending.files.iter().zip(stored).map(|(file, stored)| CapturedFile {
            number: file.number,
            size: stored.size,
            hash: stored.hash,
            object: stored.object,
            epoch: stored.epoch,
            external: file.external,
        });
        let (edit, files) = (pending.edit.clone(), files.collect());
        let event = match pending.previous {
            Some(previous) => Event::Flushed {
                manifest,
                previous,
                column_family: cf,
                edit,
                files,
                first_wal_needed: pending.first_wal_needed,
            },
            None => Event::Captured {
                manifest,
                column_family: cf,
                edit,
                files,
                behind: pending.behind,
                settings: pending.settings.clone(),
            },
        };
        self.stream.event(&event)?;
        let segment = self.stream.next_ordinal();
        if let Some(pending) = self.pending_capture(manifest, cf) {
            pending.noted_in = Some(segment);
        }
        Ok(())
    }

    /// They cannot be uploaded: the barrier stays one, the log is replayed.
    pub fn not_captured(&mut self, manifest: ManifestPoint, cf: ColumnFamilyId) {
        self.state.captures.retain(|pending| (pending.manifest, pending.column_family) != (manifest, cf));
    }

    fn pending_capture(&mut self, manifest: ManifestPoint, cf: ColumnFamilyId) -> Option<&mut PendingCapture> {
        self.state.captures.iter_mut().find(|p| p.noted_in.is_none() && (p.manifest, p.column_family) == (manifest, cf))
    }

    /// Captures that the archive need not be told of again by whoever goes on from here.
    pub(super) fn unnoted_captures(&self) -> Vec<PendingCapture> {
        self.state.captures.iter().filter(|pending| pending.noted_in.is_none()).cloned().collect()
    }

    /// Gives up pins of files whose capture the archive has acknowledged: every segment before the one being filled is,
    /// because one is under way at most.
    pub(super) fn release_captured(&mut self) -> Result<()> {
        let filling = self.stream.next_ordinal();
        self.state.captures.retain(|pending| pending.noted_in.is_none_or(|segment| segment >= filling));
        self.release_unwanted_tables()
    }

    /// A new run: what entered in the one before is no concern of its plans.
    pub(super) fn forget_captures(&mut self) -> Result<()> {
        self.state.captures.clear();
        self.sights.clear();
        self.release_unwanted_tables()
    }

    pub(super) fn release_unwanted_tables(&self) -> Result<()> {
        let pending = self.state.captures.iter().flat_map(|pending| &pending.files);
        let seen = self.sights.iter().filter_map(|sight| sight.pinned.as_ref().ok()).flatten();
        if !self.seen_news {
            return Ok(());
        }
        let wanted: BTreeSet<_> = pending.chain(seen).map(|file| file.number).collect();
        let pins = self.registry.pins();
        for number in pins.list(PinKind::Table)?.into_keys().filter(|number| !wanted.contains(number)) {
            pins.release(PinKind::Table, number)?;
        }
        Ok(())
    }
}

/// A table file's size, and whether its properties say that it was made to be ingested.
fn examine(path: &Path) -> Result<(u64, bool)> {
    let fault = |e| error::io("reading", path, e);
    let mut file = File::open(path).map_err(fault)?;
    let size = file.metadata().map_err(fault)?.len();
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL))).map_err(fault)?;
    file.take(TAIL).read_to_end(&mut tail).map_err(fault)?;
    Ok((size, tail.windows(EXTERNAL.len()).any(|window| window == EXTERNAL)))
}
