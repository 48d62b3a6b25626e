//! The restored database's OPTIONS file: the source's, with every directory in it moved.
//!
//! Owns: which keys name directories of a database. Everything else stays byte for byte.
//! Why: an OPTIONS file holds absolute paths. Whoever loads the copy's and opens the copy with them works on the
//! running server's files.

use std::path::Path;

use pitr_archive::{
    Code, Error, Result,
    rocks::options_file::{OptionsFile, Section},
};

use super::paths::Layout;
use crate::part::PlannedPart;

/// Reads an OPTIONS file and gives its text with the directories moved; of a part without the column families that it lacks.
pub(crate) fn rewrite(name: &str, text: &str, layout: &Layout, part: Option<&PlannedPart>) -> Result<OptionsFile> {
    let parse = |text: &str| {
        OptionsFile::parse(text).map_err(|e| Error::new(Code::OptionsMalformed, "reading").on(name).because(e))
    };
    let mut file = parse(text)?;
    if let Some(part) = part {
        // RocksDB has the default one always.
        file = parse(&file.with_families(|name| name == "default" || part.families.iter().any(|f| f.name == name)))?;
    }
    let set = |key: &str| file.get(&Section::Db, key).filter(|value| !value.is_empty());
    // No RocksDB writes these; one that did would name directories that nothing here moves.
    for key in ["db_paths", "cf_paths"] {
        if let Some(value) = set(key) {
            return Err(Error::new(Code::ForeignPath, "rewriting").on(name).with(key, value));
        }
    }
    let shown = |path: &Path| {
        path.to_str().map(ToOwned::to_owned).ok_or_else(|| {
            Error::new(Code::Usage, "writing the path into OPTIONS")
                .on(path.display())
                .hint("name a directory whose path is UTF-8")
        })
    };
    let mut values = Vec::new();
    // Empty means the database directory, wherever it is.
    if set("wal_dir").is_some() {
        values.push(("wal_dir", shown(&layout.wal)?));
    }
    if set("db_log_dir").is_some() {
        values.push(("db_log_dir", shown(layout.log.as_ref().unwrap_or(&layout.db))?));
    }
    let values: Vec<(&str, &str)> = values.iter().map(|(key, value)| (*key, value.as_str())).collect();
    parse(&file.with_db_values(&values))
}

/// The version of the table files of a column family, as its OPTIONS say.
pub(crate) fn format_version(file: &OptionsFile, family: &str) -> Option<i32> {
    let settings = file.column_family(family).ok().flatten()?;
    settings.format_version.and_then(|version| i32::try_from(version).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::PlannedFamily;

    const TEXT: &str = "[Version]\n  rocksdb_version=11.8.1\n  options_file_version=1.1\n[DBOptions]\n  wal_dir=/live/wal\n  db_log_dir=/logs\n  max_open_files=-1\n[CFOptions \"default\"]\n  num_levels=7\n[TableOptions/BlockBasedTable \"default\"]\n  format_version=6\n[CFOptions \"x\"]\n  num_levels=7\n[TableOptions/BlockBasedTable \"x\"]\n  format_version=5";

    fn layout() -> Layout {
        Layout { db: "/new".into(), wal: "/new/w".into(), log: None, db_paths: Vec::new(), cf_paths: Vec::new() }
    }

    #[test]
    fn directories_are_moved_and_everything_else_stays_byte_for_byte() {
        let expected = TEXT.replace("/live/wal", "/new/w").replace("/logs", "/new");
        assert_eq!(rewrite("OPTIONS-000007", TEXT, &layout(), None).unwrap().text(), expected);
    }

    #[test]
    fn a_part_names_no_column_family_that_it_lacks() {
        let part = |name: &str| {
            let id = pitr_archive::ids::ColumnFamilyId::new(1);
            let families = vec![PlannedFamily { id, name: name.to_owned() }];
            PlannedPart {
                families,
                keys: None,
                files_left_out: 0,
                bytes_left_out: 0,
                latest_sequence: Default::default(),
            }
        };
        let without = TEXT.split_inclusive("[CFOptions \"x\"]").next().unwrap().replace("[CFOptions \"x\"]", "");
        let names = |name: &str| {
            let file = rewrite("OPTIONS-000007", TEXT, &layout(), Some(&part(name))).unwrap();
            (file.column_families().map(ToOwned::to_owned).collect::<Vec<_>>(), file.text().to_owned())
        };
        let (families, text) = names("y");
        assert_eq!(families, ["default"]);
        assert_eq!(text, without.replace("/live/wal", "/new/w").replace("/logs", "/new"));
        assert_eq!(names("x").0, ["default", "x"]);
    }

    #[test]
    fn an_option_that_lists_paths_is_refused() {
        let e = rewrite("OPTIONS-000007", &TEXT.replace("db_log_dir", "db_paths"), &layout(), None).unwrap_err();
        assert_eq!(e.code(), Code::ForeignPath);
    }

    #[test]
    fn each_column_family_has_its_own_format_version() {
        let file = OptionsFile::parse(TEXT).unwrap();
        assert_eq!((format_version(&file, "default"), format_version(&file, "x")), (Some(6), Some(5)));
        assert_eq!(format_version(&file, "y"), None);
    }
}
