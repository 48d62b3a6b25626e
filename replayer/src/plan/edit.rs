//! A VersionEdit as the archive's events hold it: a MANIFEST record's payload in base64.
//!
//! Owns: reading it back. What cannot be read is refused by whoever needs it, with the place that it knows.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pitr_archive::rocks::version_edit::VersionEdit;

/// The record's payload.
pub(crate) fn payload(edit: &str) -> Option<Vec<u8>> {
    STANDARD.decode(edit).ok()
}

/// What `found` finds in it; `None` where it cannot be read, too.
pub(crate) fn look<T>(edit: &str, found: impl FnOnce(&VersionEdit<'_>) -> Option<T>) -> Option<T> {
    found(&VersionEdit::decode(&payload(edit)?).ok()?)
}
