//! What the allocator keeps.
//!
//! Owns: the settings that make the promised limits hold, and a restore fast. glibc raises the size from which it asks the kernel for
//! pages of their own to that of any buffer that was freed, up to 32 MiB, and keeps twice as much free memory at the end
//! of its heap: after the first segment, pieces of files and segments are cut from the heap and their space stays with
//! the process. Following 100 MiB took 60 MiB with that, and 40 MiB without.
//! And it gives threads arenas of their own, eight for each core, which return little: a catalog that is read every few
//! minutes by whichever thread is free comes to be paid for in each. After a quarter of an hour those of an archiver with
//! two cores had grown to 16 of 4 MiB, after three quarters to 16 of 7 MiB.
//! A program that embeds the archiver decides for itself.

/// Above every small object and frame, below the buffers that come and go: pieces of files, segments, long records.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_PAGES: std::ffi::c_int = 256 * 1024;

/// Large buffers get pages of their own, which the kernel has back as soon as they are freed. Before any thread starts.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)] // the allocator has no other interface
pub fn give_back_large_buffers() {
    // SAFETY: it only sets the allocator's parameter; a refusal leaves the default, which is no error.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
    }
}

/// What a restore frees it needs again a moment later: frames, segments, pieces of files. With pages of their own for each, an
/// eighth of its time went into having them cleared. It ends soon, and what it holds at once stays bounded as before.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)] // the allocator has no other interface
pub fn keep_large_buffers() {
    // SAFETY: as above.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Above stored segments and plain frames; the bulk engine's buffers are larger, and go when they are done with: with 32 MiB its
/// peak rose from 300 to 460 MiB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: std::ffi::c_int = 4 << 20;

/// Other allocators have their own ways.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn keep_large_buffers() {}

/// As many arenas as threads allocate much at the same time: one reads a log, one does what is due.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: std::ffi::c_int = 2;

/// For a process that goes on for months. Before any thread starts.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)] // the allocator has no other interface
pub fn keep_few_arenas() {
    // SAFETY: as above.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Other allocators have their own ways.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn keep_few_arenas() {}

/// Other allocators do not learn a size from what is freed.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn give_back_large_buffers() {}
