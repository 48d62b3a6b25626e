//! The archived stream: entries, running hash, frames, segments.

pub mod entry;
