//! Which stretches of a timeline can be restored, as the archive tells it.

pub use pitr_archive::catalog::windows::{Window, windows};
