//! Reads an archive: finds what a target means, plans a restore, performs it, checks the archive, shows its records.
//!
//! - [`target`]: what was asked for; [`plan`]: what will be done, as a value, with every refusal exact;
//! - [`in_place`]: a restored database takes the place of the present one, and gives it back;
//! - [`group`]: several databases that are restored together, all or none;
//! - [`part`]: some column families, or some keys of them, as a database of its own;
//! - [`restore`]: performs a plan; [`finish`]: the only file that opens a restored database;
//! - [`verify`]: every hash of an archive, and digests of two restores of one position; [`digest`]: those digests;
//! - [`drill`]: a restore that is only tried, checked and reported; [`estimate`]: how long one takes, by what drills measured;
//! - [`log`]: the archived records, decoded;
//! - [`progress`]: how long work tells what it does.
//!
//! Order of effects: everything is read and checked before a destination is touched; a restore is built in a staging
//! directory beside the destination, made durable, and renamed at the very end.

mod bulk;
pub mod crash;
pub mod digest;
pub mod drill;
pub mod estimate;
pub mod finish;
pub mod group;
pub mod hold;
pub mod in_place;
pub mod log;
pub mod owner;
pub mod part;
pub mod path_text;
pub mod plan;
pub mod progress;
pub mod restore;
pub mod target;
pub mod verify;
