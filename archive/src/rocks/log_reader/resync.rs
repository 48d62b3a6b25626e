//! Looking for valid records behind a damaged one.
//!
//! A damaged record at the end of a log is a torn write; the same damage with valid records behind it is corruption.
//! Only places where the writer must have put a header count: behind the damaged record as its length says, and at the
//! start of every later block. Within the damaged block any place counts too, but only if valid records fill the block
//! (or the file) from there to its end: a payload may itself contain the bytes of a log.

use super::super::log_format::{BLOCK_SIZE, valid_record};

/// Offset of the first valid record behind the damaged one at `damaged`, which claims to have `size` bytes.
///
/// `bytes` begin at file offset `base`. Reads each byte a bounded number of times.
pub(super) fn find_valid_after(bytes: &[u8], base: u64, damaged: u64, size: u64, header_number: u32) -> Option<u64> {
    let end = base.checked_add(u64::try_from(bytes.len()).ok()?)?;
    let block = |at: u64| -> Option<&[u8]> {
        let block_end = at.checked_sub(at % BLOCK_SIZE)?.checked_add(BLOCK_SIZE)?.min(end);
        bytes.get(usize::try_from(at.checked_sub(base)?).ok()?..usize::try_from(block_end.checked_sub(base)?).ok()?)
    };
    let valid_at = |at: u64| block(at).is_some_and(|b| valid_record(b, header_number).is_some());

    let claimed_end = damaged.checked_add(size)?;
    let same_block = claimed_end / BLOCK_SIZE == damaged / BLOCK_SIZE;
    if same_block && claimed_end < end && valid_at(claimed_end) {
        return Some(claimed_end);
    }
    if let Some(found) = block(damaged).and_then(|rest| chain_to_end(rest, header_number)) {
        return damaged.checked_add(found);
    }
    let mut at = damaged.checked_sub(damaged % BLOCK_SIZE)?.checked_add(BLOCK_SIZE)?;
    while at < end {
        if valid_at(at) {
            return Some(at);
        }
        at = at.checked_add(BLOCK_SIZE)?;
    }
    None
}

/// The first place after the start of `rest` from which valid records reach to its end, but for a trailer of zeros.
fn chain_to_end(rest: &[u8], header_number: u32) -> Option<u64> {
    (1..rest.len()).find_map(|start| {
        let mut tail = rest.get(start..)?;
        while let Some(size) = valid_record(tail, header_number) {
            tail = tail.get(usize::try_from(size).ok()?..)?;
            if tail.iter().all(|b| *b == 0) {
                return u64::try_from(start).ok();
            }
        }
        None
    })
}
