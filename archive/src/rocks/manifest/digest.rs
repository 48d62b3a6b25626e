//! An incremental hash of a set: the sum of its members' hashes.
//!
//! Members can be added and removed in any order. It finds missed edits; it is no defence against somebody who
//! constructs a MANIFEST to have a given sum.

use super::{ColumnFamily, SstFile};
use crate::ids::{ColumnFamilyId, ContentHash, FileNumber};

/// The sum, lane by lane modulo 2^64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DigestSum([u64; 4]);

impl DigestSum {
    fn change(&mut self, member: &blake3::Hasher, step: impl Fn(u64, u64) -> u64) {
        let hash = member.finalize();
        for (lane, bytes) in self.0.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
            let value = bytes.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
            *lane = step(*lane, value);
        }
    }

    pub(super) fn add_family(&mut self, id: ColumnFamilyId, family: &ColumnFamily) {
        self.change(&family_member(id, family), u64::wrapping_add);
    }

    pub(super) fn remove_family(&mut self, id: ColumnFamilyId, family: &ColumnFamily) {
        self.change(&family_member(id, family), u64::wrapping_sub);
    }

    pub(super) fn add_file(&mut self, id: ColumnFamilyId, number: FileNumber, file: &SstFile) {
        self.change(&file_member(id, number, file), u64::wrapping_add);
    }

    pub(super) fn remove_file(&mut self, id: ColumnFamilyId, number: FileNumber, file: &SstFile) {
        self.change(&file_member(id, number, file), u64::wrapping_sub);
    }

    pub(super) fn finish(&self) -> ContentHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"pitr manifest model v1");
        for lane in self.0 {
            hasher.update(&lane.to_le_bytes());
        }
        ContentHash(*hasher.finalize().as_bytes())
    }
}

fn family_member(id: ColumnFamilyId, family: &ColumnFamily) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"column family");
    hasher.update(&id.get().to_le_bytes());
    for name in [Some(&family.name), family.comparator.as_ref()] {
        let bytes = name.map_or(&[][..], |name| name.as_bytes());
        hasher.update(&[u8::from(name.is_some())]);
        hasher.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(bytes);
    }
    hasher
}

fn file_member(id: ColumnFamilyId, number: FileNumber, file: &SstFile) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"table file");
    hasher.update(&id.get().to_le_bytes());
    hasher.update(&file.level.to_le_bytes());
    hasher.update(&[file.path_id]);
    for number in [number.get(), file.size, file.smallest_seqno.get(), file.largest_seqno.get()] {
        hasher.update(&number.to_le_bytes());
    }
    hasher
}
