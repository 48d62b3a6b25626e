//! The commands, one file per verb: from arguments and context to an output and a verdict.

pub mod base;
pub mod check;
pub mod completions;
pub mod config;
pub mod demo;
pub mod drill;
pub mod errors;
pub mod flush;
pub mod group;
pub mod inspect;
pub mod list;
pub mod log;
pub mod plan;
pub mod prune;
pub mod reload;
pub mod restore;
pub mod run;
pub mod status;
pub mod swap;
pub mod tag;
pub mod takes;
pub mod verify;
pub mod work;
