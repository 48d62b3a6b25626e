//! An encrypted archive on this machine, and commands on it.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::beside::archive;
use crate::harness::command::{pitr, text, url};

/// The archive of a place, and the key that lies beside it.
pub struct Sealed {
    /// Of everything.
    pub root: PathBuf,
    url: String,
    key: String,
}

impl Sealed {
    /// Makes the key; the archive is made by who writes into it first.
    pub fn new(root: &Path) -> Self {
        let key = root.join("key");
        std::fs::write(&key, "2b".repeat(32)).expect("a key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("permissions");
        Self { root: root.to_owned(), url: url(&archive(root)), key: text(&key).to_owned() }
    }

    /// `pitr ARGS` on it.
    pub fn pitr<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = pitr(args);
        command.args(["--archive", &self.url, "--key-file", &self.key]);
        command
    }
}
