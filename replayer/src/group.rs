//! Several databases that are restored together, all or none.
//!
//! - [`judge`]: whether the tags of several databases are one group tag, and which database is at fault (pure);
//! - [`moment`]: whether states of several databases were there at one moment (pure);
//! - [`perform`]: the order of effects: all are checked, then all are prepared, then all get their names;
//! - [`journal`]: by which a restore that was interrupted between two names is gone on with.
//!
//! Refuses: to restore a part of a group.

pub mod journal;
pub mod judge;
pub mod moment;
pub mod perform;
