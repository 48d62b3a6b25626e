//! The bodies of the fuzz targets, for the programs in `targets/`.

#[path = "../bodies/mod.rs"]
pub mod bodies;
