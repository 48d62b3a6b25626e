//! What the README states about the program is compared with the program.
//!
//! Owns: the tables of error codes, of exit codes and of JSON fields.
//! `UPDATE_README=1 cargo test --release --test readme -- --test-threads=1` writes them anew.

use std::{fmt::Write, fs, path::PathBuf};

use pitr_archive::code::{Code, Exit, Retry, Severity};

fn readme() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

/// Compares the part between `<!-- NAME -->` and `<!-- end of NAME -->` with what the code says.
fn compare(name: &str, expected: &str) {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let text = fs::read_to_string(readme()).expect("README.md");
    let start = text.find(&begin).unwrap_or_else(|| panic!("README.md lacks {begin:?}")) + begin.len();
    let stop = start + text[start..].find(&end).unwrap_or_else(|| panic!("README.md lacks {end:?}"));
    if std::env::var_os("UPDATE_README").is_some() {
        // By renaming: the other tests here read it at the same time.
        let anew = readme().with_extension("md.new");
        fs::write(&anew, format!("{}{expected}{}", &text[..start], &text[stop..])).expect("writing README.md");
        fs::rename(&anew, readme()).expect("replacing README.md");
        return;
    }
    assert_eq!(
        &text[start..stop],
        expected,
        "README.md differs from the code: UPDATE_README=1 with --test-threads=1 writes the table anew"
    );
}

#[test]
fn error_codes_and_exit_codes_are_those_of_the_program() {
    let mut codes = String::from("| code | exit | severity | meaning | what to do |\n|---|---|---|---|---|\n");
    for code in Code::ALL {
        let severity = match code.severity() {
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Critical => "critical",
        };
        let again = match code.retry() {
            Retry::Later => " *(may pass by itself)*",
            Retry::Never => "",
        };
        writeln!(
            codes,
            "| `{}` | {} | {severity}{again} | {} | {} |",
            code.name(),
            code.exit().status(),
            code.meaning().replace('|', "\\|"),
            code.hint().replace('|', "\\|"),
        )
        .expect("a string");
    }
    compare("error codes", &codes);

    let mut exits = String::from("| exit | meaning |\n|---|---|\n| 0 | done |\n");
    for (exit, meaning) in [
        (Exit::Damage, "a check found damage or a gap"),
        (Exit::Usage, "usage, configuration, or the local machine"),
        (Exit::Target, "the target cannot be reached"),
        (Exit::Store, "the store is unavailable or refuses"),
        (Exit::Integrity, "integrity or key"),
        (Exit::Fenced, "another writer has the archive"),
        (Exit::Internal, "a fault of pitr itself"),
        (Exit::Interrupted, "interrupted (Ctrl-C, SIGTERM)"),
    ] {
        writeln!(exits, "| {} | {meaning} |", exit.status()).expect("a string");
    }
    compare("exit codes", &exits);
}

/// The table of JSON fields stands beside the types that are printed; the README shows the same.
#[test]
fn json_fields_are_those_documented_beside_the_code() {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/output/json.rs");
    let source = fs::read_to_string(source).expect("json.rs");
    let table: String = source
        .lines()
        .skip_while(|line| !line.starts_with("//! | command |"))
        .map_while(|line| line.strip_prefix("//! "))
        .take_while(|line| line.starts_with('|'))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(table.lines().count() > 10, "the table in json.rs was not found");
    compare("json fields", &table);
}

/// Every file and directory that the map of the repository names is there.
#[test]
fn the_map_names_what_exists() {
    let text = fs::read_to_string(readme()).expect("README.md");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let map = text.split("## Map").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a section `## Map`");
    let mut seen = 0;
    for line in map.lines().filter(|line| line.starts_with("| `")) {
        let path = line.split('`').nth(1).expect("a path");
        assert!(root.join(path).exists(), "README.md names {path}, which does not exist");
        seen += 1;
    }
    assert!(seen >= 6, "the map lost its table");
}
