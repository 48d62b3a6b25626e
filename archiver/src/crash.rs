//! Named places at which tests stop the process as a power cut would.
//!
//! Owns: the names. The environment can ask that the process end at one ([`pitr_archive::crash`]). Only files that perform
//! effects call [`point`], never codecs.
//! A simulation that runs many archivers in one process is told instead ([`tell`]) and ends one of them by unwinding.

use std::{cell::RefCell, fmt, rc::Rc};

use pitr_archive::crash::die_if_asked;

/// Every name, in the order in which a start, a segment and a base pass them. Every one of them is met by the simulation
/// and by `tests/kills.rs`, which fail on a new one until something reaches it.
pub const POINTS: &[&str] = &[
    "state-before-rename",
    "state-replaced",
    "epoch-before-put",
    "epoch-after-put",
    "after-pin",
    "before-put",
    "after-put",
    "before-release",
    "after-release",
    "base-linked",
    "base-uploaded-one",
    "base-before-publish",
    "base-after-publish",
    "manifest-before-put",
    "manifest-after-put",
    "tag-before-put",
    "tag-after-put",
    "timeline-before-put",
    "timeline-after-put",
];

/// Those of pruning, in the order in which it passes them. No archiver does.
pub const PRUNE_POINTS: &[&str] = &[
    "prune-before-turn",
    "prune-after-turn",
    "prune-before-condemn",
    "prune-after-condemn",
    "prune-before-boundary",
    "prune-after-boundary",
    "sweep-before-delete",
    "sweep-deleted-one",
    "sweep-names-deleted",
    "sweep-data-deleted",
    "sweep-after-delete",
];

/// Those of writing indexes, which a group of manifests comes before.
pub const INDEX_POINTS: &[&str] = &["index-before-put", "index-after-put"];

/// Those of merging, in the order in which it passes them.
pub const MERGE_POINTS: &[&str] =
    &["merge-before-put", "merge-after-put", "merge-before-delete", "merge-deleted-one", "merge-after-delete"];

type Listener = Rc<dyn Fn(&'static str)>;

thread_local! {
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
}

/// While this lives, its thread's passages are told to a listener.
pub struct Telling {
    before: Option<Listener>,
}

/// Calls `listener` at every place that this thread reaches, until the answer is dropped. It may unwind.
#[must_use]
pub fn tell(listener: impl Fn(&'static str) + 'static) -> Telling {
    Telling { before: LISTENER.replace(Some(Rc::new(listener))) }
}

impl Drop for Telling {
    fn drop(&mut self) {
        LISTENER.set(self.before.take());
    }
}

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telling").finish_non_exhaustive()
    }
}

/// Ends the process here if the environment asks for it.
pub fn point(name: &'static str) {
    let known = [POINTS, PRUNE_POINTS, INDEX_POINTS, MERGE_POINTS].iter().any(|points| points.contains(&name));
    debug_assert!(known, "{name} is not in the list");
    // The listener may unwind: it must not be borrowed meanwhile.
    if let Some(listener) = LISTENER.with_borrow(Clone::clone) {
        listener(name);
    }
    die_if_asked(name);
}
