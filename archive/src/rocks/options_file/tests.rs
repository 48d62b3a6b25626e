use proptest::prelude::*;

use super::*;

const FILE: &str = r#"# This is a RocksDB option file.
#
[Version]
  rocksdb_version=9.8.4
  options_file_version=1.1

[DBOptions]
  wal_dir=/srv/w a\:l\#x  # a comment
  db_log_dir=
  WAL_ttl_seconds=3600
  recycle_log_file_num=0
  allow_2pc=false
  max_total_wal_size=-1
  wal_compression=kZSTD

[CFOptions "default"]
  comparator=leveldb.BytewiseComparator
  merge_operator=nullptr
  compaction_filter_factory={id=Expire;days=3;}
  ttl=2592000
[TableOptions/BlockBasedTable "default"]
  format_version=6

[CFOptions "we"ird \#\:\n]name"]
  comparator=rev
"#;

#[test]
fn settings_are_read_by_type() {
    let file = OptionsFile::parse(FILE).unwrap();
    let db = file.db().unwrap();
    assert_eq!(db.rocksdb_version.to_string(), "9.8.4");
    assert!(db.rocksdb_version > RocksDbVersion { major: 9, minor: 1, patch: 0 });
    assert_eq!(db.wal_dir.as_deref(), Some("/srv/w a:l#x"));
    assert_eq!(db.db_log_dir, None, "empty is the same as not there");
    assert_eq!((db.wal_ttl_seconds, db.recycle_log_file_num, db.allow_2pc), (Some(3600), Some(0), Some(false)));
    assert_eq!(db.max_total_wal_size, Some(u64::MAX));
    assert_eq!((db.manual_wal_flush, db.wal_compression.as_deref()), (None, Some("kZSTD")));
    assert_eq!(file.column_families().collect::<Vec<_>>(), ["default", "we\"ird #:\n]name"]);
    let default = file.column_family("default").unwrap().unwrap();
    assert_eq!(default.comparator.as_deref(), Some("leveldb.BytewiseComparator"));
    assert_eq!(default.merge_operator, None);
    assert_eq!(default.compaction_filter_factory.as_deref(), Some("Expire"));
    assert_eq!((default.ttl, default.format_version), (Some(2_592_000), Some(6)));
    let weird = file.column_family_named(&"we\"ird #:\n]name".into()).unwrap().unwrap();
    assert_eq!((weird.comparator.as_deref(), weird.format_version), (Some("rev"), None));
    assert_eq!(file.column_family("none").unwrap(), None);
    assert_eq!(file.foreign_paths(), [("wal_dir", "/srv/w a:l#x".to_owned())]);
}

#[test]
fn rewriting_changes_the_value_and_nothing_else() {
    let file = OptionsFile::parse(FILE).unwrap();
    assert_eq!(file.with_db_values(&[]), FILE);
    let rewritten = file.with_db_values(&[("db_log_dir", "/n:ew"), ("wal_dir", ""), ("not_there", "x")]);
    let expected =
        FILE.replace(r"wal_dir=/srv/w a\:l\#x  #", "wal_dir=  #").replace("db_log_dir=", r"db_log_dir=/n\:ew");
    assert_eq!(rewritten, expected);
    let again = OptionsFile::parse(&rewritten).unwrap().db().unwrap();
    assert_eq!((again.wal_dir, again.db_log_dir.as_deref()), (None, Some("/n:ew")));
}

#[test]
fn errors_name_the_line() {
    for (text, line) in [
        ("[Version]\nx\n", 2),
        ("[Nonsense]\n", 1),
        ("a=b\n", 1),
        ("[DBOptions]\n\n=b\n", 3),
        ("[TableOptions/ \"default\"]", 1),
    ] {
        assert_eq!(OptionsFile::parse(text).unwrap_err().line, line, "{text}");
    }
    let file = OptionsFile::parse(&FILE.replace("=3600", "=soon")).unwrap();
    let error = file.db().unwrap_err();
    assert_eq!(error.to_string(), "line 10: WAL_ttl_seconds has the value \"soon\"");
    let file = OptionsFile::parse("[DBOptions]\n").unwrap();
    assert_eq!(file.db().unwrap_err().problem, OptionsProblem::NoVersion);
}

proptest! {
    #[test]
    fn escaping_is_reversible(value: String) {
        prop_assert_eq!(unescape(&escape(&value)), value);
    }

    #[test]
    fn any_value_can_be_written_and_read_back(value in "[^ \t\r\n\u{b}\u{c}\u{85}].{0,40}[^ \t\r\n\u{b}\u{c}\u{85}\u{2028}\u{2029}]") {
        prop_assume!(value.trim() == value);
        let file = OptionsFile::parse(FILE).unwrap();
        let rewritten = OptionsFile::parse(&file.with_db_values(&[("wal_dir", &value)])).unwrap();
        prop_assert_eq!(rewritten.get(&Section::Db, "wal_dir"), Some(value));
        prop_assert_eq!(rewritten.settings().count(), file.settings().count());
    }

    #[test]
    fn arbitrary_text_never_panics(text in "(\\[|\\]|=|#|\\\\|\"|\n|DBOptions|CFOptions|Version|a|é| ){0,60}") {
        if let Ok(file) = OptionsFile::parse(&text) {
            prop_assert_eq!(file.with_db_values(&[]), text);
            let _ = file.db();
        }
    }
}
