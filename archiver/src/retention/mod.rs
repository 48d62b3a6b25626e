//! Retention: what of an archive is kept, and the deletion of everything else.
//!
//! - `policy`: what an operator asks for. `decide`: from a catalog, a policy and a time to decisions, each with its reason;
//!   `spans`, `cover`, `calendar` and `ranges` are its parts. All of that is pure.
//! - `prune`: the effects, in two phases. `gather` lists, `sweep` deletes; `report` is what came of it.
//!
//! **Two phases.** What a policy does not keep is first stated to be no longer part of the archive: segments and manifests
//! by a `boundaries/` document, everything else by one under `condemned/`. From then on no plan offers it. A grace period
//! later, what is still not needed is deleted, names before what they name. A crash at any effect leaves an archive that
//! is whole, and a next prune that goes on.
//!
//! Reports of drills are the exception: nothing names them, and they go in one step (`drills`).
//!
//! **Beside others.** No epoch is claimed, so nobody is fenced. Restores that began before have the grace period, and
//! longer where they hold what they read (`holds/`). An archiver that publishes a base looks at `condemned/` when it starts
//! to upload and right before it publishes: it names nothing that is condemned. What is condemned later than that look
//! is deleted a grace period after it at the earliest, and is spared then, because the base that names it is found. An
//! archiver that was stalled finds its ordinal below a boundary before it releases a pin. Of two prunes only one at a time states
//! something, and the other reads the archive anew (`turn`); both may delete.
//! Beside merging, what is kept is what was stated: a merge that a prune did not know of does not count where the prune cut,
//! and its parts stay (`BoundaryDocument::admits`). Segments that were merged are deleted a grace period after the manifest
//! that says so, merged ones that no manifest ever named are condemned.

mod calendar;
mod cover;
pub mod decide;
mod drills;
mod gather;
pub mod policy;
pub mod prune;
pub mod ranges;
pub mod report;
mod spans;
mod sweep;
mod turn;

pub use policy::{Floor, Policy};
pub use prune::{Mode, Request, prune};
pub use report::PruneReport;
