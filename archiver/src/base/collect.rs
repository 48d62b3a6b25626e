//! The MANIFEST prefix and links of every file that it names.
//!
//! Owns: the staging directory while it runs, and the rule which edits a base after an open of the server may contain.
//! Refuses: to copy. A file that cannot be linked (another file system) is held open instead: an open file keeps its
//! bytes unless the server truncates it before deleting it, which the size and hash at upload tell.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use pitr_archive::{
    Code, Error, Result, error,
    ids::{ColumnFamilyId, FileNumber},
    rocks::{
        file_name,
        log_reader::{Finality, LogKind, LogReader, Read as LogRead},
        manifest::ManifestModel,
        version_edit::{SstUniqueId, VersionEdit, VersionEditError},
    },
    segment::entry::ManifestPoint,
};

use crate::{
    layout::{Layout, current, read_small},
    manifest_tail::manifest_error,
    pin::{PinKind, open_if_there},
    registry::Registry,
};

/// Prefixes tried before giving up; each failure means that the server deleted a file in between.
const ATTEMPTS: usize = 2000;

/// The same file missing for the same prefix this often, milliseconds apart: RocksDB deletes a file only after the edit
/// that drops it is durable, so a moment is enough.
const STUCK: usize = 250;

/// What linking came to.
enum Linked {
    All(Vec<CollectedFile>),
    /// This file is gone.
    Missing(PathBuf),
}

/// A base after an open of the server shows nothing of the session's own writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpensOnly {
    /// The session's MANIFEST; the prefix ends in it.
    pub manifest: ManifestPoint,
    /// The session's first WAL: an edit with a higher log number is a flush of what the session wrote.
    pub first_wal: FileNumber,
    /// What the session's compactions show.
    pub compactions: Compactions,
}

/// What a compaction makes of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compactions {
    /// Nothing: it keeps the contents as they are.
    KeepContents,
    /// Commits and rollbacks that came before it: under WritePrepared and WriteUnprepared it sets the sequence numbers of
    /// what is committed to 0, and such keys are visible even to a database whose log has not reached the commit.
    ShowCommits,
}

/// Where a file's bytes are kept for the upload.
#[derive(Debug)]
pub enum Held {
    /// In a hard link of ours.
    Link(PathBuf),
    /// In an open file.
    Open(File, PathBuf),
}

/// An SST or blob file.
#[derive(Debug)]
pub struct CollectedFile {
    /// Its name in the database.
    pub name: String,
    /// Its number.
    pub number: FileNumber,
    /// Its column family.
    pub column_family: ColumnFamilyId,
    /// Index into the column family's paths.
    pub path_id: u32,
    /// Its size in bytes.
    pub size: u64,
    /// RocksDB's unique id, where the MANIFEST has one.
    pub unique_id: Option<SstUniqueId>,
    /// Its bytes.
    pub held: Held,
}

/// A consistent set of files.
#[derive(Debug)]
pub struct Collected {
    /// The database's files at the end of the prefix.
    pub model: ManifestModel,
    /// The end of the prefix.
    pub point: ManifestPoint,
    /// The prefix.
    pub manifest: Vec<u8>,
    /// SST and blob files.
    pub files: Vec<CollectedFile>,
    /// Small files by name: CURRENT, IDENTITY, OPTIONS and what the operator named.
    pub small: Vec<(String, Vec<u8>)>,
    /// Whether the prefix ends with the open's own edits, as asked.
    pub opens_only: bool,
    /// The prefix shows changes that no flush of the log explains: they may be ahead of what is readable in the log
    /// where the server holds writes in its memory.
    pub unlogged_edits: bool,
    /// The highest WAL that was known after the prefix was read.
    pub highest_wal: FileNumber,
    staging: PathBuf,
}

impl Drop for Collected {
    fn drop(&mut self) {
        // Links that stay behind cost space until the next base clears the directory.
        if let Err(e) = fs::remove_dir_all(&self.staging)
            && e.kind() != ErrorKind::NotFound
        {
            tracing::warn!(error = %e, staging = %self.staging.display(), "links of a base could not be removed");
        }
    }
}

struct Prefix {
    model: ManifestModel,
    point: ManifestPoint,
    file: File,
    path: PathBuf,
    unlogged_edits: bool,
}

/// Links a consistent set of files into `staging`, which is emptied first.
///
/// With `opens_only`, the prefix ends before the session's own writes, if those files are still there; otherwise, and
/// when that has become impossible, it is as long as the MANIFEST is now.
pub fn collect(
    registry: &Registry,
    layout: &Layout,
    staging: &Path,
    include: &[String],
    opens_only: Option<OpensOnly>,
) -> Result<Collected> {
    clear(staging)?;
    if let Some(limit) = opens_only
        && let Some(mut reading) = Reading::open(registry, layout, limit.manifest.file, Some(limit))?
        && let Some(prefix) = reading.read_on().and_then(|()| reading.prefix())?
        && let Linked::All(files) = link_all(layout, staging, &prefix.model)?
    {
        return finish(registry, layout, staging, include, prefix, files, Ends::WithTheOpen);
    }
    clear(staging)?;
    let mut stuck: Option<(ManifestPoint, PathBuf, usize)> = None;
    let mut present: Option<Reading> = None;
    for attempt in 0..ATTEMPTS {
        let number = current(&layout.db)?;
        let goes_on = match &present {
            Some(reading) if reading.number == number => reading.is_still_there()?,
            _ => false,
        };
        if !goes_on {
            present = Reading::open(registry, layout, number, None)?;
        }
        let Some(reading) = &mut present else { continue };
        reading.read_on()?;
        let Some(prefix) = reading.prefix()? else { continue };
        let missing = match link_all(layout, staging, &prefix.model)? {
            Linked::All(files) => return finish(registry, layout, staging, include, prefix, files, Ends::Now),
            Linked::Missing(path) => path,
        };
        // A compaction got ahead of us; links that are still valid are found again by the next attempt. When the
        // MANIFEST does not move on, the file was never where it was looked for.
        let times = match stuck.take() {
            Some((point, path, times)) if point == prefix.point && path == missing => times + 1,
            _ => 1,
        };
        if times >= STUCK {
            return Err(Error::new(Code::DatabaseUnsupported, "finding the table file").on(missing.display()).hint(
                "the database keeps table files in other directories: name all of db_paths in the server's order (--db-path); cf_paths cannot be archived",
            ));
        }
        stuck = Some((prefix.point, missing, times));
        if attempt > 100 || times > 2 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Err(Error::new(Code::BaseUnobtainable, "linking the files of").on(layout.db.display()).with("attempts", ATTEMPTS))
}

fn clear(staging: &Path) -> Result<()> {
    match fs::remove_dir_all(staging) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(error::io("clearing the staging directory", staging, e)),
    }
    fs::create_dir_all(staging).map_err(|e| error::io("creating the staging directory", staging, e))
}

/// A MANIFEST that is read on and on: between two attempts only what came since is read, or a server that changes its
/// files all the time would always be ahead.
struct Reading {
    number: FileNumber,
    file: File,
    path: PathBuf,
    reader: LogReader,
    model: ManifestModel,
    unlogged_edits: bool,
    limit: Option<OpensOnly>,
    /// The limit was met.
    ended: bool,
}

impl Reading {
    /// `None` if the MANIFEST vanished.
    fn open(
        registry: &Registry,
        layout: &Layout,
        number: FileNumber,
        limit: Option<OpensOnly>,
    ) -> Result<Option<Self>> {
        let path = layout.db.join(file_name::manifest(number));
        let file = match open_if_there(&path)? {
            Some(file) => file,
            None => match registry.pins().open_pin(PinKind::Manifest, number)? {
                Some(file) => file,
                None => return Ok(None),
            },
        };
        let (reader, model) = (LogReader::new(LogKind::Manifest), ManifestModel::new(number));
        Ok(Some(Self { number, file, path, reader, model, unlogged_edits: false, limit, ended: false }))
    }

    /// Whether its name still leads to this file: the directory can have been replaced by another database's, with MANIFESTs
    /// of the same numbers.
    fn is_still_there(&self) -> Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let ours = self.file.metadata().map_err(|e| error::io("examining", &self.path, e))?;
        match fs::metadata(&self.path) {
            Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(error::io("examining", &self.path, e)),
        }
    }

    /// Reads as far as the MANIFEST goes now, or as far as the limit allows.
    fn read_on(&mut self) -> Result<()> {
        let path = &self.path;
        let mut bytes = Vec::new();
        let from = self.reader.offset();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(from)).map_err(|e| error::io("reading", path, e))?;
        file.read_to_end(&mut bytes).map_err(|e| error::io("reading", path, e))?;
        while !self.ended {
            let offset = usize::try_from(self.reader.offset() - from).unwrap_or(usize::MAX);
            match self.reader.read(bytes.get(offset..).unwrap_or_default(), Finality::Growing) {
                LogRead::Record { end, payload, .. } => {
                    let malformed = |e: VersionEditError| {
                        Error::new(Code::ManifestCorrupt, "reading an edit of")
                            .on(path.display())
                            .with("offset", end)
                            .because(e)
                    };
                    if let Some(limit) = self.limit
                        && end > limit.manifest.offset
                        && beyond_the_open(&self.model, &payload, limit).map_err(malformed)?
                    {
                        self.ended = true;
                        break;
                    }
                    self.unlogged_edits |= is_unlogged(&self.model, &payload).map_err(malformed)?;
                    self.model.apply(&payload, end).map_err(|e| manifest_error(e, path))?;
                }
                LogRead::Metadata { .. } => {}
                LogRead::End { .. } | LogRead::Incomplete { .. } => break,
                LogRead::Corrupt { at, reason } => {
                    return Err(Error::new(Code::ManifestCorrupt, "reading")
                        .on(path.display())
                        .with("offset", at)
                        .because(reason));
                }
            }
        }
        Ok(())
    }

    /// What has been read, as a base's MANIFEST.
    fn prefix(&self) -> Result<Option<Prefix>> {
        if self.model.applied_to() == 0 {
            return Ok(None);
        }
        let mut model = self.model.clone();
        // A group that is not complete lies behind the prefix.
        model.abandon_atomic_group();
        let point = ManifestPoint { file: self.number, offset: model.applied_to() };
        let file = self.file.try_clone().map_err(|e| error::io("reading", &self.path, e))?;
        Ok(Some(Prefix { model, point, file, path: self.path.clone(), unlogged_edits: self.unlogged_edits }))
    }
}

/// Whether an edit shows something of the session's own: a flush of its log, a change outside the log, or a compaction
/// that depends on its log.
///
/// An atomic group is one edit: its members carry their own log numbers, so a group that is cut here is one that the
/// model has not applied, and the prefix ends before the whole of it.
fn beyond_the_open(model: &ManifestModel, payload: &[u8], limit: OpensOnly) -> Result<bool, VersionEditError> {
    let edit = VersionEdit::decode(payload)?;
    let flushed = edit.log_number.is_some_and(|log| log > limit.first_wal);
    let family = edit.column_family_add.is_some() || edit.column_family_drop;
    let compacted = limit.compactions == Compactions::ShowCommits && !edit.deleted_files.is_empty();
    Ok(flushed || family || compacted || model.would_change_outside_wal(payload)?)
}

/// Whether an edit records a change outside the log at the moment it happened. The edits of a MANIFEST's opening snapshot
/// look alike, but only an edit that was applied to a running database names the next file number.
fn is_unlogged(model: &ManifestModel, payload: &[u8]) -> Result<bool, VersionEditError> {
    let edit = VersionEdit::decode(payload)?;
    let applied = edit.next_file_number.is_some();
    let family = edit.column_family_add.is_some();
    Ok(edit.column_family_drop || (applied && (family || model.would_change_outside_wal(payload)?)))
}

/// Links every live file.
fn link_all(layout: &Layout, staging: &Path, model: &ManifestModel) -> Result<Linked> {
    let mut found = Vec::new();
    for (column_family, number, sst) in model.live_files() {
        let name = file_name::sst(number);
        let dir = layout.table_dir(sst.path_id).ok_or_else(|| {
            Error::new(Code::DatabaseUnsupported, "finding the table file").on(&name).with("path id", sst.path_id).hint(
                "the database keeps table files in several directories: name all of db_paths in the server's order (--db-path); cf_paths cannot be archived",
            )
        })?;
        let Some(held) = hold(&dir.join(&name), &staging.join(&name))? else {
            return Ok(Linked::Missing(dir.join(&name)));
        };
        let size = size_of(&held)?;
        if size != sst.size {
            return Err(Error::new(Code::DatabaseUnsupported, "linking")
                .on(dir.join(&name).display())
                .with("size", size)
                .with("size in the MANIFEST", sst.size));
        }
        let (path_id, unique_id) = (u32::from(sst.path_id), sst.unique_id);
        found.push(CollectedFile { name, number, column_family, path_id, size, unique_id, held });
    }
    for (column_family, number, _) in model.live_blob_files() {
        let name = file_name::blob(number);
        let dir = layout.table_dir(0).unwrap_or(&layout.db);
        let Some(held) = hold(&dir.join(&name), &staging.join(&name))? else {
            return Ok(Linked::Missing(dir.join(&name)));
        };
        let size = size_of(&held)?;
        found.push(CollectedFile { name, number, column_family, path_id: 0, size, unique_id: None, held });
    }
    Ok(Linked::All(found))
}

/// Links a file, or holds it open where it cannot be linked. `None` if it is gone.
fn hold(source: &Path, link: &Path) -> Result<Option<Held>> {
    match fs::hard_link(source, link) {
        Ok(()) => Ok(Some(Held::Link(link.to_owned()))),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(Some(Held::Link(link.to_owned()))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == ErrorKind::CrossesDevices => {
            Ok(open_if_there(source)?.map(|file| Held::Open(file, source.to_owned())))
        }
        Err(e) => Err(Error::new(Code::PinImpossible, "linking").on(source.display()).because(e)),
    }
}

fn size_of(held: &Held) -> Result<u64> {
    match held {
        Held::Link(path) => Ok(fs::metadata(path).map_err(|e| error::io("examining", path, e))?.len()),
        Held::Open(file, path) => Ok(file.metadata().map_err(|e| error::io("examining", path, e))?.len()),
    }
}

/// Where a prefix ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    WithTheOpen,
    Now,
}

fn finish(
    registry: &Registry,
    layout: &Layout,
    staging: &Path,
    include: &[String],
    prefix: Prefix,
    files: Vec<CollectedFile>,
    ends: Ends,
) -> Result<Collected> {
    use std::os::unix::fs::FileExt;
    let length = usize::try_from(prefix.point.offset)
        .map_err(|e| Error::new(Code::DatabaseUnsupported, "reading").on(prefix.path.display()).because(e))?;
    let mut manifest = vec![0; length];
    prefix.file.read_exact_at(&mut manifest, 0).map_err(|e| error::io("reading", &prefix.path, e))?;
    let mut small = vec![("CURRENT".to_owned(), file_name::current(prefix.point.file).into_bytes())];
    let mut names = vec!["IDENTITY".to_owned()];
    names.extend(layout.options.iter().map(|options| file_name::options(options.number)));
    names.extend(include.iter().cloned());
    for name in names {
        // OPTIONS files come and go with every change of settings; the parsed one is what the base is described by.
        if let Some(bytes) = read_small(&layout.db.join(&name))? {
            small.push((name, bytes));
        } else if include.contains(&name) {
            return Err(Error::new(Code::FileNotFound, "including").on(layout.db.join(&name).display()));
        }
    }
    // Links of attempts before the last that are no longer part of the set.
    let wanted: std::collections::BTreeSet<_> = files.iter().map(|f| f.name.as_str()).collect();
    for entry in fs::read_dir(staging).map_err(|e| error::io("listing", staging, e))? {
        let entry = entry.map_err(|e| error::io("listing", staging, e))?;
        if !entry.file_name().to_str().is_some_and(|name| wanted.contains(name)) {
            fs::remove_file(entry.path()).map_err(|e| error::io("removing", entry.path(), e))?;
        }
    }
    registry.scan()?;
    crate::crash::point("base-linked");
    Ok(Collected {
        model: prefix.model,
        point: prefix.point,
        manifest,
        files,
        small,
        opens_only: ends == Ends::WithTheOpen,
        unlogged_edits: prefix.unlogged_edits,
        highest_wal: registry.wals_from(FileNumber::default()).last().map(|(wal, _)| *wal).unwrap_or_default(),
        staging: staging.to_owned(),
    })
}
