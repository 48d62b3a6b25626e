//! Counts what a body allocates.
//!
//! Owns: the process's allocator, which only adds and subtracts, and the rule that memory is in proportion to the input:
//! a length that the input merely claims must not be believed. Counts this thread's Rust allocations; zstd's own are
//! left to the fuzzer's limit on the whole process.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// Contexts of zstd, JSON values, runtimes: what a body needs whatever its input.
const FIXED: usize = 24 << 20;
/// Bodies hold several copies of their input, some of them as text or as decoded fields. One byte of zstd can stand for
/// 32 KiB, but bodies never get far beyond this with less than [`FIXED`].
const PER_BYTE: usize = 1024;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Meter;

#[global_allocator]
static METER: Meter = Meter;

fn count(change: isize) {
    // A thread that is ending has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get().wrapping_add(change));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Runs `body` and asserts that it held no more at once than an input of `len` bytes can be worth.
pub fn in_proportion(len: usize, body: impl FnOnce()) {
    let before = HELD.get();
    PEAK.set(before);
    body();
    let peak = usize::try_from(PEAK.get() - before).unwrap_or(0);
    let allowed = FIXED + len * PER_BYTE;
    assert!(peak <= allowed, "{peak} bytes were held for an input of {len} bytes; {allowed} are in proportion");
}
