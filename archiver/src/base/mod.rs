//! Taking a base from outside: a consistent set of the database's files while the server goes on writing.
//!
//! - [`collect`]: the MANIFEST prefix and links of every file that it names. Fast, because compaction deletes them.
//! - [`upload`]: the linked files into the store, each once for all bases.
//! - [`pace`]: how often barriers may have one.
//! - [`describe`]: the document that makes it a base.
//!
//! Order of effects: link, fix the floor, upload, wait until the archive has acknowledged every record up to the floor,
//! publish the document, remove the links. A crash in between leaves links in the staging directory (removed by the next
//! process) and objects in the store that no document names yet; the next base finds those and uses them.
//!
//! Why the set is consistent: a file is complete and durable before the MANIFEST names it; files are removed only after
//! an edit that makes them obsolete is durable; so all files of a MANIFEST prefix can be linked as long as no such edit
//! follows, and when one is missing the MANIFEST has moved on and the prefix is taken anew. Write-ahead logs are not
//! part of a base: the archive has them, from the first one that the prefix needs.

pub mod collect;
pub mod describe;
pub mod pace;
pub mod upload;
