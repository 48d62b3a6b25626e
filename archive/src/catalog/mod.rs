//! The documents of an archive, and the view of it in memory.
//!
//! - [`schema`]: what is stored. [`document`]: which document lies under which name. [`envelope`]: its bytes.
//! - [`archive`]: one archive in its store: opening, claiming, typed reading and writing. [`load`]: all of it at once.
//! - [`index`]: roll-ups of manifests. [`outline`]: as much of the catalog as a plan needs, by few reads.
//! - [`model`]: the view in memory and its questions. [`invariants`]: what must hold between its parts.
//! - [`crossing`]: which barriers concern which bases. [`windows`]: which stretches of a timeline can be restored.
//!
//! **Order of effects.** Data before what names it: files, then the base that names them; segments, then manifests,
//! tags and bases that name their boundaries; all of that before a writer gives up its local copy (pin). Deletion goes
//! the other way round: first the [`schema::BoundaryDocument`] that makes deleted ordinals unusable, then names, then
//! data. What a crash can leave behind: files that no base names. They cost space and nothing else; a later base of the
//! same files uses them.

pub mod archive;
pub mod crossing;
pub mod document;
pub mod envelope;
pub mod index;
pub mod invariants;
pub mod load;
pub mod model;
pub mod outline;
pub mod schema;
pub mod windows;

#[cfg(test)]
mod tests;
