//! Where everything of a restored database goes.
//!
//! Owns: turning the source's directories into the destination's. The rule: nothing restored ever names a directory
//! of the source. What lies in the source's database directory goes below the destination; `--map-path` moves the
//! rest. A directory for data or WALs that nobody mapped is refused: a server that sets it in its own configuration
//! would look elsewhere than the restore put the files, and RocksDB opens without a WAL that it does not find. A
//! log directory that nobody mapped becomes the database directory: nothing is lost with it.
//! Refuses: relative mappings, and mappings that move nothing.

use std::path::{Component, Path, PathBuf};

use pitr_archive::{
    Code, Error, Result,
    catalog::schema::{BaseFile, DatabasePaths},
    ids::ColumnFamilyId,
};

use super::PathMap;

/// The directories of a restored database, all absolute and final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The database directory.
    pub db: PathBuf,
    /// Where WALs go.
    pub wal: PathBuf,
    /// Where the info log goes, if not the database directory.
    pub log: Option<PathBuf>,
    /// `db_paths` in order; empty when only the database directory is used.
    pub db_paths: Vec<PathBuf>,
    /// `cf_paths`.
    pub cf_paths: Vec<(ColumnFamilyId, Vec<PathBuf>)>,
}

/// The mappings of a restore in place: the database's other directories stay where they are, unless they are mapped. Only for
/// the directory that the source itself had: on another machine, or for a copy, the same paths can be somebody else's.
pub(crate) fn in_place(source: &DatabasePaths, into: &Path, maps: &[PathMap]) -> Vec<PathMap> {
    let mut all = maps.to_vec();
    if clean(&source.db) == into {
        for (_, path) in foreign(source) {
            if !maps.iter().any(|map| clean(path).starts_with(clean(&map.old))) {
                all.push(PathMap { old: path.to_owned(), new: clean(path) });
            }
        }
    }
    all
}

/// Lays out `source` at `into`, which must be absolute.
pub(crate) fn layout(source: &DatabasePaths, into: &Path, maps: &[PathMap]) -> Result<Layout> {
    for map in maps {
        if !map.new.is_absolute() || !Path::new(&map.old).is_absolute() {
            return Err(Error::new(Code::Usage, "reading --map-path")
                .on(format_args!("{}={}", map.old, map.new.display()))
                .hint("both sides are absolute paths: --map-path /data/wal=/restored/wal"));
        }
    }
    refuse_idle_maps(source, maps)?;
    let mover = Mover { db: clean(&source.db), into, maps };
    let log = source.db_log_dir.as_deref().map(|p| mover.moved(p).unwrap_or_else(|| into.to_owned()));
    let mut unmapped = Vec::new();
    let mut all = |paths: &[String]| -> Vec<PathBuf> {
        paths
            .iter()
            .map(|path| {
                mover.moved(path).unwrap_or_else(|| {
                    unmapped.push(path.clone());
                    PathBuf::new()
                })
            })
            .collect()
    };
    let wal = match &source.wal_dir {
        Some(dir) => all(std::slice::from_ref(dir)).remove(0),
        None => into.to_owned(),
    };
    let db_paths = all(&source.db_paths);
    let cf_paths = source.cf_paths.iter().map(|(id, paths)| (*id, all(paths))).collect();
    if let Some(first) = unmapped.first() {
        let mut e = Error::new(Code::ForeignPath, "laying out the database").on(first);
        for path in unmapped.iter().skip(1) {
            e = e.with("also", path);
        }
        return Err(e);
    }
    Ok(Layout { db: into.to_owned(), wal, log, db_paths, cf_paths })
}

impl Layout {
    /// The directory that a file of the base belongs in.
    pub fn directory_of(&self, file: &BaseFile) -> Result<&Path> {
        self.directory(file.column_family, file.path_id).map_err(|e| e.on(&file.name))
    }

    /// The directory that a column family's files of this path belong in.
    pub fn directory(&self, family: ColumnFamilyId, path_id: u32) -> Result<&Path> {
        let own = self.cf_paths.iter().find(|(id, paths)| *id == family && !paths.is_empty());
        let paths = own.map_or(&self.db_paths, |(_, paths)| paths);
        // Blob files and files of the first path of a database without paths lie in its own directory.
        if paths.is_empty() && path_id == 0 {
            return Ok(&self.db);
        }
        usize::try_from(path_id)
            .ok()
            .and_then(|index| paths.get(index))
            .map(PathBuf::as_path)
            .ok_or_else(|| Error::new(Code::ObjectDamaged, "placing the base's file").with("path id", path_id))
    }

    /// Every directory that files are laid in, the database directory first, each once.
    pub fn directories(&self) -> Vec<&Path> {
        let mut all = vec![self.db.as_path(), self.wal.as_path()];
        all.extend(self.db_paths.iter().map(PathBuf::as_path));
        all.extend(self.cf_paths.iter().flat_map(|(_, paths)| paths.iter().map(PathBuf::as_path)));
        let mut seen: Vec<&Path> = Vec::new();
        for path in all {
            if !seen.contains(&path) {
                seen.push(path);
            }
        }
        seen
    }
}

/// The directories of the source that lie outside its database directory: what, and which.
pub(crate) fn foreign(source: &DatabasePaths) -> Vec<(&'static str, &str)> {
    let db = clean(&source.db);
    let outside = |path: &str| !clean(path).starts_with(&db);
    let mut all: Vec<(&'static str, &str)> = Vec::new();
    all.extend(source.wal_dir.iter().map(|p| ("wal_dir", p.as_str())));
    all.extend(source.db_log_dir.iter().map(|p| ("db_log_dir", p.as_str())));
    all.extend(source.db_paths.iter().map(|p| ("db_paths", p.as_str())));
    all.extend(source.cf_paths.iter().flat_map(|(_, paths)| paths.iter().map(|p| ("cf_paths", p.as_str()))));
    all.retain(|(_, path)| outside(path));
    all.sort_unstable();
    all.dedup();
    all
}

/// A mapping that concerns no directory of the source is a misspelt one.
fn refuse_idle_maps(source: &DatabasePaths, maps: &[PathMap]) -> Result<()> {
    let outside = [&source.wal_dir, &source.db_log_dir].into_iter().flatten().chain(&source.db_paths);
    let named: Vec<PathBuf> = outside.chain(source.cf_paths.iter().flat_map(|(_, paths)| paths)).map(clean).collect();
    for map in maps {
        let old = clean(&map.old);
        if named.iter().any(|path| path.starts_with(&old)) {
            continue;
        }
        let mut e = Error::new(Code::Usage, "reading --map-path")
            .on(format_args!("{}={}", map.old, map.new.display()))
            .hint("the database has no such directory, so the mapping moves nothing: `pitr plan` names the directories to map");
        for (what, path) in foreign(source) {
            e = e.with(what, path);
        }
        return Err(e);
    }
    Ok(())
}

struct Mover<'a> {
    db: PathBuf,
    into: &'a Path,
    maps: &'a [PathMap],
}

impl Mover<'_> {
    fn moved(&self, path: &str) -> Option<PathBuf> {
        let path = clean(path);
        // The most specific mapping wins, and a mapping wins over the database directory.
        let map = self
            .maps
            .iter()
            .filter_map(|map| path.strip_prefix(clean(&map.old)).ok().map(|rest| (rest.to_owned(), map)))
            .min_by_key(|(rest, _)| rest.components().count());
        if let Some((rest, map)) = map {
            return Some(join(&map.new, &rest));
        }
        path.strip_prefix(&self.db).ok().map(|rest| join(self.into, rest))
    }
}

/// `a.join("")` would add a slash at the end, and two spellings of one directory.
fn join(base: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { base.to_owned() } else { base.join(rest) }
}

/// Without `.`, doubled and trailing slashes, and with `..` taken literally: the text names a directory of another
/// machine or time, so links cannot be followed.
fn clean(path: impl AsRef<Path>) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.as_ref().components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use pitr_archive::ids::{ColumnFamilyId, ContentHash, Epoch};

    use super::*;

    fn source() -> DatabasePaths {
        DatabasePaths { db: "/var/lib/db/".to_owned(), ..DatabasePaths::default() }
    }

    fn map(old: &str, new: &str) -> PathMap {
        PathMap { old: old.to_owned(), new: new.into() }
    }

    fn file(path_id: u32) -> BaseFile {
        BaseFile {
            name: "000001.sst".to_owned(),
            column_family: ColumnFamilyId::DEFAULT,
            path_id,
            size: 0,
            hash: ContentHash([0; 32]),
            object: String::new(),
            epoch: Epoch::new(1),
        }
    }

    #[test]
    fn what_lies_below_the_database_directory_goes_below_the_destination() {
        let mut paths = source();
        paths.wal_dir = Some("/var/lib/db/wal/".to_owned());
        paths.db_paths = vec!["/var/lib/db".to_owned(), "/var/lib/db/./cold".to_owned()];
        let layout = layout(&paths, Path::new("/new"), &[]).unwrap();
        assert_eq!(layout.wal, Path::new("/new/wal"));
        assert_eq!(layout.directory_of(&file(0)).unwrap(), Path::new("/new"));
        assert_eq!(layout.directory_of(&file(1)).unwrap(), Path::new("/new/cold"));
        assert_eq!(layout.directory_of(&file(2)).unwrap_err().code(), Code::ObjectDamaged);
        assert!(foreign(&paths).is_empty());
    }

    #[test]
    fn a_wal_directory_is_mapped_or_refused_and_never_stays_the_source_s() {
        let mut paths = source();
        paths.wal_dir = Some("/fast/wal".to_owned());
        paths.db_log_dir = Some("/logs".to_owned());
        let e = layout(&paths, Path::new("/new"), &[]).unwrap_err();
        assert_eq!((e.code(), e.object()), (Code::ForeignPath, Some("/fast/wal")));
        let beside = layout(&paths, Path::new("/new"), &[map("/fast/wal", "/new")]).unwrap();
        assert_eq!((beside.wal.as_path(), beside.log.as_deref()), (Path::new("/new"), Some(Path::new("/new"))));
        let mapped = layout(&paths, Path::new("/new"), &[map("/fast", "/other"), map("/fast/wal", "/w")]).unwrap();
        assert_eq!(mapped.wal, Path::new("/w"), "the most specific mapping wins");
        assert_eq!(foreign(&paths), [("db_log_dir", "/logs"), ("wal_dir", "/fast/wal")]);
    }

    #[test]
    fn a_data_directory_that_nobody_mapped_is_refused_by_name() {
        let mut paths = source();
        paths.db_paths = vec!["/var/lib/db".to_owned(), "/cold/db".to_owned()];
        let e = layout(&paths, Path::new("/new"), &[]).unwrap_err();
        assert_eq!((e.code(), e.object()), (Code::ForeignPath, Some("/cold/db")));
        // A name that merely begins alike is another directory.
        paths.db_paths = vec!["/var/lib/db2".to_owned()];
        assert_eq!(layout(&paths, Path::new("/new"), &[]).unwrap_err().code(), Code::ForeignPath);
        let ok = layout(&paths, Path::new("/new"), &[map("/var/lib/db2", "/new2")]).unwrap();
        assert_eq!(ok.directories(), [Path::new("/new"), Path::new("/new2")]);
    }

    #[test]
    fn dots_in_the_source_s_paths_cannot_lead_out_of_the_destination() {
        let mut paths = source();
        paths.wal_dir = Some("/var/lib/db/../../../etc".to_owned());
        assert_eq!(layout(&paths, Path::new("/new"), &[]).unwrap_err().code(), Code::ForeignPath);
    }

    #[test]
    fn a_mapping_that_moves_nothing_is_refused_with_what_could_be_mapped() {
        let mut paths = source();
        paths.wal_dir = Some("/fast/wal".to_owned());
        let e = layout(&paths, Path::new("/new"), &[map("/fast/wla", "/w")]).unwrap_err();
        assert_eq!(e.code(), Code::Usage);
        assert!(e.to_string().contains("/fast/wal"), "{e}");
        assert_eq!(layout(&source(), Path::new("/new"), &[map("/fast", "/w")]).unwrap_err().code(), Code::Usage);
    }

    #[test]
    fn a_relative_mapping_is_refused() {
        let e = layout(&source(), Path::new("/new"), &[map("/a", "b")]).unwrap_err();
        assert_eq!(e.code(), Code::Usage);
    }
}
