//! The restored database's small files: MANIFEST, CURRENT, IDENTITY, OPTIONS, what the operator included, our marker.
//!
//! Owns: what each of them holds. Everything that can be wrong with them is found by `prepare`, before anything is
//! touched; `write` only writes.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Component, Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use pitr_archive::{
    Code, Error, Result,
    catalog::schema::{BaseColumnFamily, BaseDocument, InlineFile},
    error::io,
    ids::{ColumnFamilyId, FileNumber, SequenceNumber},
    restore_marker::{self, RestoreMarker},
    rocks::{
        file_name::{self, FileKind},
        manifest::ManifestModel,
        options_file::OptionsFile,
        version_edit::VersionEdit,
    },
    segment::entry::CapturedSettings,
};

use super::{
    RestoreOptions,
    manifest::Manifest,
    options,
    paths::Layout,
    staging::{Staging, parent, sync_directory},
    tabled::Written,
};
use crate::{
    finish::FamilySpec,
    part::files::Taken,
    plan::{ColumnFamilyEdit, RestorePlan},
};

const NO_OPTIONS: &str = "the base has no OPTIONS file, which would tell how they are made";

/// The small files, ready to be written.
pub(crate) struct SmallFiles {
    files: BTreeMap<String, Vec<u8>>,
    manifest: Manifest,
    /// The column families that the restored database has when it is opened for the first time.
    pub families: Vec<FamilySpec>,
    /// How those that come later are described.
    pub describing: Describing,
    /// Of a part: what of the base it needs.
    pub taken: Option<Taken>,
}

/// What describes column families beside the MANIFEST.
#[derive(Clone, Debug)]
pub(crate) struct Describing {
    base: Vec<BaseColumnFamily>,
    cf_paths: Vec<(ColumnFamilyId, Vec<PathBuf>)>,
    format_versions: BTreeMap<String, i32>,
    levels: BTreeMap<String, i32>,
    /// Those of the base into which no tables can be put, and why; `None` where no OPTIONS file tells.
    unfit: Option<BTreeMap<String, &'static str>>,
    /// Settings of column families that are younger than the base, as captured files came with them.
    younger: BTreeMap<ColumnFamilyId, CapturedSettings>,
}

impl SmallFiles {
    /// Checks and changes what must be changed, but for the last sequence number, which the records decide.
    pub fn prepare(base: &BaseDocument, plan: &RestorePlan, layout: &Layout, restore: &RestoreOptions) -> Result<Self> {
        let damaged =
            |name: &str| Error::new(Code::ObjectDamaged, "reading the base's file").on(name).with("base", &base.id);
        let manifest_name = file_name::manifest(base.manifest.file);
        let mut manifest = None;
        let mut option_files = BTreeMap::new();
        let mut files = BTreeMap::new();
        for inline in &base.inline {
            let name = &inline.name;
            let plain = !name.is_empty() && Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
            let content = STANDARD.decode(&inline.content).map_err(|e| damaged(name).because(e))?;
            if !plain || *name == restore_marker::FILE_NAME {
                return Err(damaged(name).with("it has", "a name that no such file can have"));
            }
            if *name == manifest_name {
                manifest = Some(content);
                continue;
            }
            let content = match file_name::parse(name) {
                Some(FileKind::Options(number)) => {
                    let text = String::from_utf8(content).map_err(|e| damaged(name).because(e))?;
                    let moved = options::rewrite(name, &text, layout, plan.part.as_ref())?;
                    let bytes = moved.text().as_bytes().to_vec();
                    option_files.insert(number, moved);
                    bytes
                }
                Some(FileKind::Lock | FileKind::Manifest(_) | FileKind::Wal(_)) => {
                    return Err(damaged(name).with("it is", "no small file of a base"));
                }
                _ => content,
            };
            files.insert(name.clone(), content);
        }
        let mut manifest = Manifest::read(base.manifest.file, manifest.ok_or_else(|| damaged(&manifest_name))?)?;
        if manifest.model.applied_to() != base.manifest.offset {
            return Err(damaged(&manifest_name)
                .with("ends at", manifest.model.applied_to())
                .with("the base says", base.manifest.offset));
        }
        check_files(base, &manifest)?;
        manifest.forget_tracked_wals()?;
        let settings = option_files.last_key_value().and_then(|(_, file)| file.db().ok());
        let two_phase = settings.is_some_and(|settings| settings.allow_2pc == Some(true));
        if let Some(first) = plan.wals.first().filter(|_| two_phase) {
            manifest.name_first_wal(first.number)?;
        }
        // What came behind an ingestion that is repeated is appended behind it.
        let first = plan.ingestions.first().map(|ingestion| ingestion.manifest);
        let before: Vec<_> = plan
            .column_families
            .iter()
            .filter(|edit| first.is_none_or(|first| edit.manifest < first))
            .cloned()
            .collect();
        // As the source wrote them, each where it was: a flush can be of a column family that is younger than the base.
        let mut before = before.as_slice();
        for flush in &plan.flushes {
            let (older, younger) = before.split_at(before.partition_point(|edit| edit.manifest < flush.manifest));
            manifest.append_families(older, 0)?;
            manifest.append_flush(flush)?;
            before = younger;
        }
        manifest.append_families(before, 0)?;
        let taken = match &plan.part {
            None => None,
            Some(part) => {
                let identity = uuid::Uuid::from_bytes(restore.marker.0).to_string();
                let taken = Taken::of(&mut manifest, part, &identity)?;
                files.insert(file_name::IDENTITY.to_owned(), identity.into_bytes());
                Some(taken)
            }
        };
        let newest_options = option_files.last_key_value().map(|(_, file)| file);
        let describing = Describing::new(base, plan, layout, newest_options);
        let families = describing.families(&manifest.model);
        files.insert("CURRENT".to_owned(), file_name::current(base.manifest.file).into_bytes());
        // A part is no copy of the database: no archiver shall go on with it on the database's timeline.
        if taken.is_none() {
            files.insert(restore_marker::FILE_NAME.to_owned(), marker(plan, restore)?);
        }
        Ok(Self { files, manifest, families, describing, taken })
    }

    /// The MANIFEST so far.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// A number for one more log, behind every other.
    pub fn one_more_log(&mut self, logs: impl Iterator<Item = FileNumber>) -> Result<FileNumber> {
        let model = &self.manifest.model;
        let needed = model.column_families().values().map(|family| family.log_number);
        let files = model.live_files().map(|(_, number, _)| number);
        let blobs = model.live_blob_files().map(|(_, number, _)| number);
        let highest = logs.chain(needed).chain(files).chain(blobs).max().unwrap_or_default().max(model.file());
        let highest = highest.max(model.min_log_number_to_keep());
        let out_of_numbers = || Error::new(Code::ManifestCorrupt, "numbering the copy's files").on(model.file());
        let log = highest.next().ok_or_else(out_of_numbers)?.max(model.next_file_number().unwrap_or_default());
        let next = Some(log.next().ok_or_else(out_of_numbers)?);
        let last_sequence = Some(model.last_sequence());
        self.manifest.append(&VersionEdit { next_file_number: next, last_sequence, ..VersionEdit::default() })?;
        Ok(log)
    }

    /// Makes tables that were replayed the database's.
    pub fn place(&mut self, written: &Written, expected: SequenceNumber) -> Result<()> {
        written.place(&mut self.manifest, expected)
    }

    /// Writes everything durably below `directory`; CURRENT comes last, because it makes the directory a database.
    pub fn write(
        mut self,
        directory: &Path,
        expected: SequenceNumber,
        replayed: Option<SequenceNumber>,
        newest_file: SequenceNumber,
    ) -> Result<()> {
        self.manifest.settle_sequence(expected, replayed, newest_file)?;
        let manifest_name = file_name::manifest(self.manifest.model.file());
        let current = self.files.remove("CURRENT").unwrap_or_default();
        let others = self.files.iter().map(|(name, content)| (name.as_str(), content.as_slice()));
        let all = others.chain([(manifest_name.as_str(), self.manifest.bytes.as_slice()), ("CURRENT", &current)]);
        // Written first and made durable then: the file system needs one commit for all of them, not one for each. In which
        // order does not matter: nothing has its name before everything is durable.
        let mut written = Vec::new();
        for (name, content) in all {
            let path = directory.join(name);
            if let Some(above) = path.parent() {
                fs::create_dir_all(above).map_err(|e| io("creating", above, e))?;
            }
            written.push((create(&path, content)?, path));
        }
        written.into_iter().try_for_each(|(file, path)| file.sync_all().map_err(|e| io("making durable", &path, e)))
    }
}

fn create(path: &Path, content: &[u8]) -> Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|e| io("creating", path, e))?;
    file.write_all(content).map_err(|e| io("writing", path, e))?;
    Ok(file)
}

/// A new file with this content, durable.
pub(crate) fn put(path: &Path, content: &[u8]) -> Result<()> {
    create(path, content)?.sync_all().map_err(|e| io("making durable", path, e))
}

/// A file with this content in place of the one that may be there, durable: at every moment the old or the new one.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("deleting", &temporary, e)),
        _ => {}
    }
    put(&temporary, content)?;
    fs::rename(&temporary, path).map_err(|e| io("replacing", path, e))?;
    sync_directory(parent(path)?)
}

/// Whether the server that a base was taken from keeps committed writes in its own memory. What cannot be read says no:
/// the restore itself refuses a malformed OPTIONS file.
pub(crate) fn source_buffers_its_log(base: &BaseDocument) -> bool {
    let options = base.inline.iter().filter(|f| matches!(file_name::parse(&f.name), Some(FileKind::Options(_))));
    let mut settings = options.filter_map(|file| {
        let text = String::from_utf8(STANDARD.decode(&file.content).ok()?).ok()?;
        OptionsFile::parse(&text).ok()?.db().ok()
    });
    settings.next_back().is_some_and(|settings| settings.manual_wal_flush == Some(true))
}

/// Whether a base's own document is sound: its MANIFEST is whole, ends where the base says, and names the base's files.
pub(crate) fn check_base(base: &BaseDocument) -> Result<()> {
    let name = file_name::manifest(base.manifest.file);
    let damaged = || Error::new(Code::ObjectDamaged, "reading the base's file").on(&name).with("base", &base.id);
    let inline = base.inline.iter().find(|inline| inline.name == name).ok_or_else(damaged)?;
    let content = STANDARD.decode(&inline.content).map_err(|e| damaged().because(e))?;
    let manifest = Manifest::read(base.manifest.file, content)?;
    if manifest.model.applied_to() != base.manifest.offset {
        return Err(damaged().with("ends at", manifest.model.applied_to()).with("the base says", base.manifest.offset));
    }
    check_files(base, &manifest)
}

/// The base holds exactly the files that its MANIFEST needs, with their sizes.
fn check_files(base: &BaseDocument, manifest: &Manifest) -> Result<()> {
    let sizes: BTreeMap<&str, u64> = base.files.iter().map(|f| (f.name.as_str(), f.size)).collect();
    for (_, number, sst) in manifest.model.live_files() {
        let name = file_name::sst(number);
        if sizes.get(name.as_str()) != Some(&sst.size) {
            return Err(Error::new(Code::ObjectDamaged, "comparing the base's files with its MANIFEST")
                .on(&base.id)
                .with("file", name)
                .with("size in the MANIFEST", sst.size));
        }
    }
    Ok(())
}

impl Describing {
    fn new(base: &BaseDocument, plan: &RestorePlan, layout: &Layout, newest: Option<&OptionsFile>) -> Self {
        let version = |file: &OptionsFile, cf: &str| Some((cf.to_owned(), options::format_version(file, cf)?));
        let format_versions =
            newest.map(|file| file.column_families().filter_map(|cf| version(file, cf)).collect()).unwrap_or_default();
        let levels = |file: &OptionsFile, cf: &str| {
            let levels = file.column_family(cf).ok().flatten()?.num_levels?;
            Some((cf.to_owned(), i32::try_from(levels).ok()?))
        };
        let levels =
            newest.map(|file| file.column_families().filter_map(|cf| levels(file, cf)).collect()).unwrap_or_default();
        let unfit = match newest {
            None => None,
            Some(file) => {
                let behind = file.db().is_ok_and(|db| db.allow_ingest_behind == Some(true));
                let why = |cf: &str| Some((cf.to_owned(), unfit(file, cf, behind)?));
                Some(file.column_families().filter_map(why).collect())
            }
        };
        let younger = plan.column_families.iter().filter_map(|edit| Some((edit.id, edit.settings.clone()?))).collect();
        Self {
            base: base.column_families.clone(),
            cf_paths: layout.cf_paths.clone(),
            format_versions,
            levels,
            unfit,
            younger,
        }
    }

    /// Why no tables can be put into a column family that the server would read as its own, as far as the base tells.
    pub fn unfit_for_tables(&self, spec: &FamilySpec) -> Option<&'static str> {
        let Some(unfit) = &self.unfit else {
            return Some(NO_OPTIONS);
        };
        if !self.base.iter().any(|family| family.id == spec.id) {
            // What is not told by the base's OPTIONS: level 0 and the form of the others can be read at least.
            let elsewhere = || self.cf_paths.iter().any(|(_, paths)| !paths.is_empty());
            return elsewhere().then_some("it is younger than the base, and others have directories of their own");
        }
        unfit.get(&spec.name).copied()
    }

    /// The same with paths in the staging directories.
    pub fn staged(mut self, staging: &Staging) -> Result<Self> {
        for (_, paths) in &mut self.cf_paths {
            *paths = paths.iter().map(|path| staging.path(path)).collect::<Result<_>>()?;
        }
        Ok(self)
    }

    /// The column families of a MANIFEST.
    pub fn families(&self, model: &ManifestModel) -> Vec<FamilySpec> {
        let lowest = self.format_versions.values().min().copied();
        let described = |id: ColumnFamilyId| self.base.iter().find(|f| f.id == id);
        model
            .column_families()
            .iter()
            .map(|(id, family)| {
                let name = family.name.to_string();
                FamilySpec {
                    id: *id,
                    comparator: family
                        .comparator
                        .as_ref()
                        .map(ToString::to_string)
                        .or_else(|| described(*id).map(|d| d.comparator.clone()).filter(|name| !name.is_empty()))
                        .unwrap_or_else(|| "leveldb.BytewiseComparator".to_owned()),
                    merge_operator: match described(*id) {
                        Some(described) => described.merge_operator.clone(),
                        None => self.younger.get(id).and_then(|settings| settings.merge_operator.clone()),
                    },
                    // A family that is younger than the OPTIONS: what its database writes elsewhere, it can read.
                    format_version: self.format_versions.get(&name).copied().or(lowest),
                    levels: match described(*id) {
                        Some(_) => self.levels.get(&name).copied(),
                        None => self.younger.get(id).and_then(|settings| i32::try_from(settings.levels?).ok()),
                    },
                    paths: self
                        .cf_paths
                        .iter()
                        .find(|(cf, _)| cf == id)
                        .map(|(_, paths)| paths.clone())
                        .unwrap_or_default(),
                    name,
                }
            })
            .collect()
    }
}

/// Why no tables can be put into a database that its server would read as its own, as far as a base and what came behind it
/// tell; the restore itself judges each column family.
pub(crate) fn why_no_tables(base: &BaseDocument, younger: &[ColumnFamilyEdit]) -> Option<&'static str> {
    let options = base.inline.iter().filter_map(|file| match file_name::parse(&file.name) {
        Some(FileKind::Options(number)) => Some((number, file)),
        _ => None,
    });
    let read =
        |file: &InlineFile| OptionsFile::parse(&String::from_utf8(STANDARD.decode(&file.content).ok()?).ok()?).ok();
    let Some(file) = options.max_by_key(|(number, _)| *number).and_then(|(_, file)| read(file)) else {
        return Some(NO_OPTIONS);
    };
    let behind = file.db().is_ok_and(|db| db.allow_ingest_behind == Some(true));
    let elsewhere = base.paths.cf_paths.iter().any(|(_, paths)| !paths.is_empty());
    if elsewhere && !younger.is_empty() {
        return Some("a column family is younger than the base, and others have directories of their own");
    }
    base.column_families.iter().find_map(|family| unfit(&file, &family.name, behind))
}

fn unfit(file: &OptionsFile, cf: &str, ingest_behind: bool) -> Option<&'static str> {
    let settings = file.column_family(cf).ok().flatten()?;
    if settings.compaction_style.as_deref() == Some("kCompactionStyleFIFO") {
        Some("its compaction drops the oldest file, and files by key have no age")
    } else if ingest_behind || settings.cf_allow_ingest_behind == Some(true) {
        Some("files may be ingested behind what is there, and tables lie there")
    } else if options::format_version(file, cf).is_none() {
        Some("its tables are not of the block-based form, or of which version is not known")
    } else {
        None
    }
}

fn marker(plan: &RestorePlan, restore: &RestoreOptions) -> Result<Vec<u8>> {
    let marker = RestoreMarker {
        version: restore_marker::VERSION,
        marker: restore.marker,
        archive: plan.archive,
        timeline: plan.position.timeline,
        boundary: plan.position.boundary,
        hash: plan.position.hash,
        sequence: plan.position.sequence,
        created: restore.now,
    };
    serde_json::to_vec_pretty(&marker)
        .map_err(|e| Error::new(Code::Internal, "writing the restore's marker").because(e))
}
