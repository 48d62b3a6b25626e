//! Merging: second-sized segments become minute, hour and day sized ones.
//!
//! - [`policy`]: what an operator asks for. [`ledger`]: what is known of the timeline; [`plan`]: which of its segments are
//!   merged next. All of that is pure. `perform` has the effects; the archiver starts them, one at a time.
//!
//! **Order of effects.** The merged object is created, exclusively; the next manifest names it, and only then does it count;
//! a grace period later its parts are deleted. A crash before the manifest leaves an object that nobody needs: the next merge
//! of the same parts finds it and takes it over, or a prune sweeps it away. A crash behind it leaves parts that the next
//! process, or a prune, deletes.
//!
//! **Beside others.** Merging writes under the archiver's claim, and its manifests are created exclusively: whoever was
//! overtaken cannot make a merge count. What an archiver finds already there it takes over only where no prune has condemned
//! it, and it looks once more right before the manifest. A prune that did not know of a merge may cut inside it: then the parts stay in
//! use (`BoundaryDocument::admits`), and parts are deleted only where the newest statement about deletion admits the merge.
//! Restores hold what they read (`holds/`). An archiver that was stalled looks, after any pause, whether another one has
//! written manifests since: only what is in a manifest is ever merged, so that its ordinal cannot have become free before.
//!
//! **Write amplification** is an account, not a hope: every merged segment says how many bytes its entries were at first and
//! how many were written for them until now, and nothing is merged that would make it three times as many.

pub mod ledger;
pub(crate) mod perform;
pub mod plan;
pub mod policy;

pub use policy::{Merging, Policy};
