//! What every fuzz target asserts of its decoder, in one place: the libFuzzer programs of this directory and the stable
//! test that replays the corpora (`archive/tests/corpora.rs`) both run these bodies.
//!
//! Owns: the list of targets. A body is given any bytes. The first few steer it (which key, where the input is cut, what
//! is mended), the rest is what is decoded; so a file of a corpus is not a file of RocksDB or of an archive by itself.
//! A body asserts more than that nothing panics: what decodes survives encoding, a reader says the same however its
//! bytes are cut, what is accepted after damage is what was written, a refusal has a stable code, and memory stays in
//! proportion to the input ([`memory`]).
//! Checksums would keep a fuzzer out. Bodies therefore mend them before they decode: what is behind a checksum must hold
//! without it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod batch;
mod documents;
mod file;
mod identity;
mod input;
mod memory;
mod options;
pub mod seeds;
mod segment;
mod text;
mod version_edits;
mod wal;

use pitr_archive::catalog::schema::{BaseDocument, ManifestDocument, TagDocument};

/// A target's name, which is also that of its program and of its directories, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("wal", wal::body),
    ("batch", batch::body),
    ("version_edits", version_edits::body),
    ("options", options::body),
    ("segment", segment::body),
    ("manifest", documents::body::<ManifestDocument>),
    ("tag", documents::body::<TagDocument>),
    ("base", documents::body::<BaseDocument>),
    ("document", documents::any),
    ("identity", identity::body),
    ("file", file::body),
    ("text", text::body),
];

/// Runs a target's body on one input.
///
/// # Panics
/// Where a property does not hold; and for a name that is no target's.
pub fn run(target: &str, data: &[u8]) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target's name");
    memory::in_proportion(data.len(), || body(data));
}
