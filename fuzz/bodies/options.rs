//! OPTIONS files.
//!
//! Asserts: escaping is undone exactly; replacing values changes those and no other byte that means something, and the
//! new value is the one that is read back; every typed view answers or names a line of the file.

use pitr_archive::rocks::options_file::{OptionsError, OptionsFile, Section, escape, unescape};

use super::input::Input;

pub fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let value = String::from_utf8_lossy(input.piece()).into_owned();
    let text = String::from_utf8_lossy(input.rest()).into_owned();
    assert_eq!(unescape(&escape(&value)), value);
    let lines = text.split_inclusive('\n').count();
    let check = |e: &OptionsError| {
        assert!(e.line >= 1 && e.line <= lines.max(1), "line {} of {lines}", e.line);
        e.to_string()
    };
    let file = match OptionsFile::parse(&text) {
        Ok(file) => file,
        Err(e) => return drop(check(&e)),
    };
    assert_eq!(file.text(), text);
    let _ = file.rocksdb_version().map_err(|e| check(&e));
    match file.db() {
        Ok(settings) => drop(serde_json::to_vec(&settings).unwrap()),
        Err(e) => drop(check(&e)),
    }
    for name in file.column_families().collect::<Vec<_>>() {
        match file.column_family(name) {
            Ok(settings) => assert_eq!(settings.expect("it is named").name, name),
            Err(e) => drop(check(&e)),
        }
    }
    let before: Vec<_> = file.settings().map(|(s, name, value)| (s.clone(), name.to_owned(), value)).collect();
    for (section, name, _) in &before {
        assert!(file.get(section, name).is_some(), "{section:?} {name}");
    }
    replaced(&file, &before, value.trim_matches(is_space));
}

/// What C's `isspace` takes for space: RocksDB cuts it off at both ends of a value.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

fn replaced(file: &OptionsFile, before: &[(Section, String, String)], value: &str) {
    let names = ["wal_dir", "db_log_dir"];
    let text = file.with_db_values(&names.map(|name| (name, value)));
    let after = OptionsFile::parse(&text).expect("it was one before");
    let after: Vec<_> = after.settings().map(|(s, name, value)| (s.clone(), name.to_owned(), value)).collect();
    assert_eq!(after.len(), before.len());
    let mut first = names.to_vec();
    for ((section, name, old), (section_after, name_after, new)) in before.iter().zip(&after) {
        assert_eq!((section, name), (section_after, name_after));
        // `get` answers with the first of several.
        let place = first.iter().position(|n| n == name).filter(|_| *section == Section::Db);
        match place {
            Some(place) => {
                first.remove(place);
                assert_eq!(new, value, "{name}");
            }
            None => assert_eq!(new, old, "{name}"),
        }
    }
    assert_eq!(file.with_db_values(&[]), file.text());
}
