//! The documents of an archive, and the view of it in memory.

pub mod schema;
