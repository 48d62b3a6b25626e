//! Named places at which tests stop a restore as a power cut would ([`pitr_archive::crash`]).
//!
//! Owns: the names. Only files that perform effects call it.

/// Every name, in the order in which a restore in place passes them. Every one of them is met by `tests/in_place.rs`, which
/// fails on a new one until something reaches it.
pub const POINTS: &[&str] = &[
    "restore-staged",
    "restore-file-laid",
    "restore-wal-closed",
    "restore-records-written",
    "restore-small-files-written",
    "restore-before-recovery",
    "restore-after-recovery",
    "restore-durable",
    "swap-recorded",
    "swap-barred",
    "swap-between",
    "swap-exchanged",
    "swap-aside",
    "swap-before-record",
];

/// Those of a log that is sorted on disk. `tests/in_place.rs` meets them with one that is long enough.
pub const SORTED_POINTS: &[&str] = &["restore-sorted-noted"];

/// Those of a group that is restored together, in their order. `tests/groups.rs` meets every one of them.
pub const GROUP_POINTS: &[&str] = &["group-prepared-one", "group-prepared", "group-between", "group-published"];

/// Ends the process here if the environment asks for it.
pub(crate) fn point(name: &'static str) {
    debug_assert!(
        [POINTS, SORTED_POINTS, GROUP_POINTS].iter().any(|points| points.contains(&name)),
        "{name} is not in the list"
    );
    pitr_archive::crash::die_if_asked(name);
}
