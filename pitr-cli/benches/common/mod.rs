//! What every bench needs: a place, an archiver beside a database, an encrypted archive, what is measured of a command, and
//! tables of figures. Each uses a part of it.

#![allow(dead_code)]

pub mod beside;
pub mod cache;
pub mod content;
pub mod measure;
pub mod sealed;
pub mod table;
