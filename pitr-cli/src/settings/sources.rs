//! Where the configuration comes from, and in which order: the file, then `conf.d/*.toml` beside it by name, then variables
//! of the environment, each over those before it.
//!
//! Owns: checking each source alone, so that a mistake is shown in the line in which it was made, and laying one over the
//! other, key by key. A variable `PITR__TUNING__INTERVAL=5s` means the key `tuning.interval`; names of databases are found
//! whatever the case of their letters.
//! Refuses: a variable that begins so and names no key.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pitr_archive::{Code, Error, Result, error};
use toml::{Table, Value};

use super::{file::File, secret::NO_PLACE};

/// What variables of the environment begin with.
pub const PREFIX: &str = "PITR__";

const DOING: &str = "reading the configuration";
/// More than any hand writes.
const MAX_BYTES: u64 = 16 << 20;

/// The configuration, and what it was read from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// All of it.
    pub file: File,
    /// Files and variables, in the order in which they were laid over each other.
    pub sources: Vec<String>,
}

/// This process's variables. Of those that are no text, the ones that are not ours are nobody's business here.
pub fn environment() -> Vec<(String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

/// Reads it.
///
/// # Errors
/// `config.malformed`, with line and column where a file is at fault.
pub fn load(path: &Path, variables: impl IntoIterator<Item = (String, String)>) -> Result<Loaded> {
    let mut all = Table::new();
    let mut sources = Vec::new();
    for path in std::iter::once(path.to_owned()).chain(fragments(path)?) {
        let text = read(&path)?;
        let malformed =
            |e: toml::de::Error| Error::new(Code::ConfigMalformed, DOING).on(path.display()).because(shown(&e, &text));
        // A fragment may add to a database that another one names.
        let table: Table = toml::from_str(&text).map_err(malformed)?;
        if let Err(e) = toml::from_str::<File>(&text)
            && !is_only_a_part(&e)
        {
            return Err(malformed(e));
        }
        overlay(&mut all, table);
        sources.push(path.display().to_string());
    }
    let mut variables: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    for (name, value) in variables {
        set(&mut all, &name, &value)?;
        sources.push(name);
    }
    let file = all.try_into().map_err(|e: toml::de::Error| {
        let e = Error::new(Code::ConfigMalformed, DOING).on(path.display()).because(e.message().to_owned());
        // It can be any of them, and only together they are wrong.
        let others: Vec<_> = sources.iter().skip(1).map(String::as_str).collect();
        if others.is_empty() { e } else { e.with("together with", others.join(", ")) }
    })?;
    Ok(Loaded { file, sources })
}

/// The fault with its line and a caret; of a secret in the wrong place only where it stands.
fn shown(e: &toml::de::Error, text: &str) -> String {
    if e.message().contains(NO_PLACE) {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        return format!("line {}: {}", before.matches('\n').count() + 1, e.message());
    }
    e.to_string()
}

/// Whether the only fault is something that another source may say.
fn is_only_a_part(e: &toml::de::Error) -> bool {
    e.message().starts_with("missing field")
}

fn read(path: &Path) -> Result<String> {
    let io = |e| error::io(DOING, path, e);
    let length = fs::metadata(path).map_err(io)?.len();
    if length > MAX_BYTES {
        return Err(Error::new(Code::ConfigMalformed, DOING).on(path.display()).with("bytes", length));
    }
    fs::read_to_string(path).map_err(io)
}

/// `conf.d/*.toml` beside the file, by name.
fn fragments(path: &Path) -> Result<Vec<PathBuf>> {
    let dir = path.parent().unwrap_or(Path::new("")).join("conf.d");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(error::io(DOING, &dir, e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| error::io(DOING, &dir, e))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Tables are joined, everything else is replaced.
fn overlay(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// Lays a variable over the rest.
fn set(all: &mut Table, name: &str, value: &str) -> Result<()> {
    let path: Vec<_> = name.trim_start_matches(PREFIX).split("__").collect();
    let (Some((last, tables)), false) = (path.split_last(), path.iter().any(|part| part.is_empty())) else {
        return Err(Error::new(Code::ConfigMalformed, DOING).on(name).because("between two underscores stands a key"));
    };
    // As a number or a list where it is one and the key wants one, else as text.
    let typed = toml::from_str::<Table>(&format!("v = {value}")).ok().and_then(|mut t| t.remove("v"));
    let mut why = None;
    for value in typed.into_iter().chain([Value::String(value.to_owned())]) {
        let table = nested(Some(all), tables, last, value);
        match toml::from_str::<File>(&table.to_string()) {
            Err(e) if !is_only_a_part(&e) => why = Some(e.message().to_owned()),
            _ => {
                overlay(all, table);
                return Ok(());
            }
        }
    }
    Err(Error::new(Code::ConfigMalformed, DOING).on(name).because(why.unwrap_or_default()))
}

/// A table with nothing but this value, under the names that `there` has for the parts of its path.
fn nested(there: Option<&Table>, tables: &[&str], last: &str, value: Value) -> Table {
    let Some((first, rest)) = tables.split_first() else { return Table::from_iter([(known(there, last), value)]) };
    let key = known(there, first);
    let below = there.and_then(|table| table.get(&key)).and_then(Value::as_table);
    Table::from_iter([(key, Value::Table(nested(below, rest, last, value)))])
}

/// The key that is there already under this name, else the name in small letters.
fn known(table: Option<&Table>, name: &str) -> String {
    let same = table.and_then(|table| table.keys().find(|key| key.eq_ignore_ascii_case(name)));
    same.cloned().unwrap_or_else(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Loaded> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load(&dir.path().join("pitr.toml"), variables)
    }

    const ORDERS: &str = "[databases.Orders]\ndb = \"/db\"\narchive.url = \"file:/a\"\n";

    #[test]
    fn later_sources_are_laid_over_earlier_ones_key_by_key() {
        let text = format!("tuning = {{ interval = \"1s\", poll = \"1s\" }}\n{ORDERS}");
        let fragment = "[databases.Orders]\ntuning.interval = \"2s\"\n";
        let files = [("pitr.toml", text.as_str()), ("conf.d/10.toml", fragment), ("conf.d/readme.txt", "?")];
        let variables = [
            ("PITR__DATABASES__ORDERS__ARCHIVE__URL", "file:/b"),
            ("PITR__TUNING__COMPRESSION_LEVEL", "3"),
            ("PITR__DATABASES__ORDERS__INCLUDE", "[\"a\", \"b\"]"),
            ("PITR_LOG", "info"),
        ];
        let Loaded { file, sources } = loaded(&files, &variables).unwrap();
        let orders = &file.databases["Orders"];
        let printed = toml::to_string(&file).unwrap();
        let url = orders.archive.as_ref().map(|archive| archive.url.as_str());
        assert_eq!((url, orders.include.len()), (Some("file:/b"), 2), "{printed}");
        assert!(printed.contains("interval = \"2s\"") && printed.contains("compression_level = 3"), "{printed}");
        assert_eq!(sources.len(), 5, "{sources:?}");
    }

    #[test]
    fn a_mistake_is_shown_where_it_was_made() {
        for (files, variables, says) in [
            (vec![("pitr.toml", "[tuning]\nintervall = \"1s\"\n")], vec![], "line 2, column 1"),
            (vec![("pitr.toml", ORDERS), ("conf.d/a.toml", "[databases.Orders]\nstat = 1\n")], vec![], "conf.d/a.toml"),
            (vec![("pitr.toml", "[databases.a]\narchive.url = \"file:/a\"\n")], vec![], "missing field `db`"),
            (vec![("pitr.toml", ORDERS)], vec![("PITR__TUNING__INTERVALL", "1s")], "PITR__TUNING__INTERVALL"),
            (vec![("pitr.toml", ORDERS)], vec![("PITR__TUNING____POLL", "1s")], "underscores"),
            (vec![("pitr.toml", ORDERS)], vec![("PITR__TUNING__POLL", "fast")], "number and a unit"),
        ] {
            let e = loaded(&files, &variables).unwrap_err();
            assert_eq!(e.code(), Code::ConfigMalformed);
            assert!(e.to_string().contains(says), "{e}");
        }
        assert_eq!(loaded(&[], &[]).unwrap_err().code(), Code::FileNotFound);
        let e = loaded(&[("pitr.toml", &format!("{ORDERS}archive.key = \"hunter2\"\n"))], &[]).unwrap_err();
        assert!(!e.to_string().contains("hunter2") && e.to_string().contains("line 4"), "{e}");
    }
}
