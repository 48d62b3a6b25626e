//! The end of a file of sorted operations: where its blocks lie, and the ranges that were deleted meanwhile.
//!
//! Owns: the bytes. Lengths are believed only as far as there are bytes.

use super::super::tombstones::{FamilyTombstone, Tombstone};

/// Where a block lies and begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub family: u16,
    pub key: Vec<u8>,
    pub offset: u64,
    pub length: usize,
    pub checksum: u64,
}

/// Number of blocks, the blocks, then deleted ranges up to the end.
pub(super) fn encode(blocks: &[Block], tombstones: &[FamilyTombstone]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(blocks.len() as u64).to_le_bytes());
    for block in blocks {
        bytes.extend_from_slice(&block.family.to_le_bytes());
        put(&mut bytes, &block.key);
        bytes.extend_from_slice(&(block.length as u64).to_le_bytes());
        bytes.extend_from_slice(&block.checksum.to_le_bytes());
    }
    for (family, Tombstone { begin, end, age }) in tombstones {
        bytes.extend_from_slice(&family.to_le_bytes());
        put(&mut bytes, begin);
        put(&mut bytes, end);
        bytes.extend_from_slice(&age.to_le_bytes());
    }
    bytes
}

/// What was encoded; `None` where the blocks do not take `length` bytes together, or anything else does not fit.
pub(super) fn decode(mut bytes: &[u8], length: u64) -> Option<(Vec<Block>, Vec<FamilyTombstone>)> {
    let mut blocks = Vec::new();
    let mut offset = 0_u64;
    for _ in 0..number(&mut bytes)? {
        let family = family(&mut bytes)?;
        let key = take(&mut bytes)?;
        let own = number(&mut bytes)?;
        let checksum = number(&mut bytes)?;
        blocks.push(Block { family, key, offset, length: usize::try_from(own).ok()?, checksum });
        offset = offset.checked_add(own).filter(|end| *end <= length)?;
    }
    let mut tombstones = Vec::new();
    while !bytes.is_empty() {
        let family = family(&mut bytes)?;
        let (begin, end) = (take(&mut bytes)?, take(&mut bytes)?);
        tombstones.push((family, Tombstone { begin, end, age: number(&mut bytes)? }));
    }
    (offset == length).then_some((blocks, tombstones))
}

fn put(bytes: &mut Vec<u8>, key: &[u8]) {
    bytes.extend_from_slice(&(key.len() as u64).to_le_bytes());
    bytes.extend_from_slice(key);
}

fn take(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(number(bytes)?).ok()?;
    let (key, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(key.to_vec())
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

fn family(bytes: &mut &[u8]) -> Option<u16> {
    let (family, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u16::from_le_bytes(*family))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_and_nothing_that_was_cut_or_changed_panics(
            blocks in prop::collection::vec((0..3_u16, prop::collection::vec(any::<u8>(), 0..9), 1..99_usize, any::<u64>()), 0..5),
            ranges in prop::collection::vec((0..3_u16, any::<[u8; 2]>(), any::<[u8; 3]>(), any::<u64>()), 0..5),
            cut in any::<prop::sample::Index>(), noise: u8,
        ) {
            let mut offset = 0;
            let blocks: Vec<_> = blocks.into_iter().map(|(family, key, length, checksum)| {
                offset += length as u64;
                Block { family, key, offset: offset - length as u64, length, checksum }
            }).collect();
            let ranges: Vec<_> = ranges.into_iter()
                .map(|(family, begin, end, age)| (family, Tombstone { begin: begin.to_vec(), end: end.to_vec(), age }))
                .collect();
            let mut bytes = encode(&blocks, &ranges);
            prop_assert_eq!(decode(&bytes, offset), Some((blocks, ranges)));
            prop_assert_eq!(decode(&bytes, offset + 1), None);
            let at = cut.index(bytes.len());
            let _ = decode(&bytes[..at], offset);
            bytes[at] ^= noise;
            let _ = decode(&bytes, offset);
        }
    }
}
