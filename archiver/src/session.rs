//! Which session of the server (one open of the database) is writing.
//!
//! Owns: reading RocksDB's own session id from its info log. Each open begins a log of its own whose head holds the
//! line `DB Session ID:  XXXXXXXXXXXXXXXXXXXX`; a log that rolled over by size repeats that line (RocksDB keeps its
//! headers), so the head of the present `LOG` always tells. RocksDB 6.14 and later write it.
//! Refuses: to guess. Without the line the answer is `None`, and the caller treats every new MANIFEST as a new session.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use pitr_archive::{Result, error};

use crate::pin::open_if_there;

/// The id stands within the first lines; a whole header of options is some 20 KiB, behind it.
const HEAD: u64 = 64 * 1024;
const MARK: &str = "DB Session ID:";

/// The info log's path: inside the database, or in `db_log_dir` under the database's path with `/` made `_`.
pub fn info_log(db: &Path, db_log_dir: Option<&Path>) -> PathBuf {
    match db_log_dir {
        None => db.join("LOG"),
        Some(dir) => {
            let mangled: String = db
                .to_string_lossy()
                .trim_start_matches('/')
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') { c } else { '_' })
                .collect();
            dir.join(format!("{mangled}_LOG"))
        }
    }
}

/// RocksDB's name of the session that writes the info log `path`.
pub fn session_id(path: &Path) -> Result<Option<String>> {
    let Some(file) = open_if_there(path)? else { return Ok(None) };
    let mut head = Vec::new();
    File::take(file, HEAD).read_to_end(&mut head).map_err(|e| error::io("reading the info log", path, e))?;
    Ok(find(&String::from_utf8_lossy(&head)))
}

fn find(head: &str) -> Option<String> {
    let rest = head.split_once(MARK)?.1.trim_start();
    let id: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
    // A line that is being written may be cut: the newline proves that the id is whole.
    (id.len() == 20 && rest.get(20..)?.starts_with(['\n', '\r'])).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_found_only_when_its_line_is_complete() {
        let line = "2026/11/20-13:33:13.1 7f DB Session ID:  ABCDEFGHIJ0123456789\n2026 Options:";
        assert_eq!(find(line).as_deref(), Some("ABCDEFGHIJ0123456789"));
        assert_eq!(find(&line[..line.find("6789").unwrap()]), None);
        assert_eq!(find("no such line\n"), None);
    }

    #[test]
    fn a_log_directory_of_its_own_holds_the_log_under_a_mangled_name() {
        let path = info_log(Path::new("/var/lib/my db"), Some(Path::new("/logs")));
        assert_eq!(path, Path::new("/logs/var_lib_my_db_LOG"));
    }
}
