//! Answers that every backend gives in the same words.
//!
//! Owns: the checks of sizes and ranges, and the errors they end in, so that an object too large or too short reads
//! alike from memory, a directory and a bucket. Refuses: I/O.

use std::ops::Range;

use crate::{
    code::Code,
    error::{Error, Result},
    object_key::ObjectKey,
};

/// An object is larger than what its reader allows.
pub(super) fn check_limit(key: &ObjectKey, size: u64, limit: u64) -> Result<()> {
    if size <= limit {
        return Ok(());
    }
    Err(Error::new(Code::ObjectTooLarge, "reading the object").on(key).with("size", size).with("limit", limit))
}

/// The number of bytes in `range`; a range that runs backwards is a fault of the caller.
pub(super) fn range_length(key: &ObjectKey, range: &Range<u64>) -> Result<u64> {
    range.end.checked_sub(range.start).ok_or_else(|| {
        Error::new(Code::Internal, "reading a range that ends before it begins").on(key).with("range", show(range))
    })
}

/// An object ends before the range that was asked for.
pub(super) fn check_end(key: &ObjectKey, size: u64, range: &Range<u64>) -> Result<()> {
    if range.end <= size { Ok(()) } else { Err(too_short(key, size, range)) }
}

/// The error for an object of `size` bytes of which `range` was wanted.
pub(super) fn too_short(key: &ObjectKey, size: u64, range: &Range<u64>) -> Error {
    Error::new(Code::ObjectDamaged, "reading a part of the object")
        .on(key)
        .with("size", size)
        .with("wanted", show(range))
        .hint("the object is shorter than what names it says: restore it from another copy of the archive")
}

/// A length from outside as one of memory.
pub(super) fn in_memory(key: &ObjectKey, length: u64) -> Result<usize> {
    usize::try_from(length)
        .map_err(|e| Error::new(Code::ObjectTooLarge, "reading the object").on(key).with("size", length).because(e))
}

/// Whether `prefix` can begin keys: empty, or ending with `/`.
pub(super) fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.is_empty() || prefix.strip_suffix('/').is_some_and(|p| ObjectKey::parse(p).is_some()) {
        return Ok(());
    }
    Err(Error::new(Code::Internal, "listing below a prefix that no key can have").on(prefix))
}

fn show(range: &Range<u64>) -> String {
    format!("{}..{}", range.start, range.end)
}
