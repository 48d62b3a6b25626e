//! The page cache: what of a file is in it, and leaving it to others.
//!
//! Owns: looking what of a file is in memory ([`residency`]); below it files are read once ([`Passing`]) and written once
//! ([`Outgoing`]). Past it (`O_DIRECT`) was measured, too, and not taken: it spares the copying, and needs many requests at
//! once to be as fast (a restore of 2 GB took 3.8 s with it, 1.9 s without).
//! Refuses: to decide for whoever is read or written what is worth keeping in memory.

use std::{fs::File, os::fd::AsRawFd as _, ptr};

#[cfg(test)]
mod lab;
mod outgoing;
mod passing;

pub use outgoing::{After, Outgoing};
pub use passing::{Hurry, Passing, no_reading_ahead, read_passing};
/// Which pages of `length` bytes from `offset` on are in memory, beginning with the page that holds `offset`; `None`
/// where the system does not say. Pages behind the end of the file count as absent.
#[allow(unsafe_code)] // neither the standard library nor rustix has these calls
pub fn residency(file: &File, offset: u64, length: usize, page: usize) -> Option<Vec<bool>> {
    let begin = offset / page as u64 * page as u64;
    let length = length.checked_add(usize::try_from(offset - begin).ok()?)?;
    let pages = length.div_ceil(page);
    if pages == 0 {
        return Some(Vec::new());
    }
    let begin = libc::off_t::try_from(begin).ok()?;
    let mut states = vec![0_u8; pages];
    // SAFETY: a new mapping at an address of the kernel's choice; its bytes are never touched, so a file that is cut
    // meanwhile does no harm. mincore writes one byte for each page of the mapping into a buffer of as many.
    let told = unsafe {
        let address = libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), begin);
        if address == libc::MAP_FAILED {
            return None;
        }
        let told = libc::mincore(address, length, states.as_mut_ptr().cast());
        libc::munmap(address, length);
        told
    };
    (told == 0).then(|| states.into_iter().map(|state| state & 1 == 1).collect())
}
