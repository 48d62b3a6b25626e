//! What every bench needs: a place, an archiver beside a database, and tables of figures. Each uses a part of it.

#![allow(dead_code)]

pub mod beside;
pub mod table;
