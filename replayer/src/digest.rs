//! A digest of everything that a reader of a database can see, column family by column family.
//!
//! Owns: what counts: every key and value in the column family's own order, nothing of how they are stored. Two
//! databases with the same digests answer every read alike.
//! Invariant: a length precedes each key and value, so that no two different contents give the same bytes.

use std::collections::BTreeMap;

use pitr_archive::{
    Code, Error, Result,
    ids::{ContentHash, SequenceNumber},
};
use rocksdb::{IteratorMode, ReadOptions};
use serde::Serialize;

use crate::{
    finish::{OpenSpec, Opened},
    progress::{Phase, Progress},
};

/// The digest of a column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FamilyDigest {
    /// blake3 over all pairs in order.
    pub hash: ContentHash,
    /// Pairs.
    pub pairs: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// The digest of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DatabaseDigest {
    /// By the column family's name.
    pub column_families: BTreeMap<String, FamilyDigest>,
    /// RocksDB's latest sequence number.
    pub sequence: SequenceNumber,
}

/// Opens a copy that may be thrown away, and reads all of it. The open changes the directory.
pub fn digest(copy: &OpenSpec, progress: &dyn Progress) -> Result<DatabaseDigest> {
    of_opened(&Opened::open(copy)?, copy, progress)
}

/// Reads all of a copy that is open.
pub(crate) fn of_opened(opened: &Opened, copy: &OpenSpec, progress: &dyn Progress) -> Result<DatabaseDigest> {
    progress.begin(Phase::Digest, None);
    let column_families = copy
        .families
        .iter()
        .map(|family| Ok((family.name.clone(), of_family(opened, copy, &family.name, progress)?)))
        .collect::<Result<_>>()?;
    progress.end(Phase::Digest);
    Ok(DatabaseDigest { column_families, sequence: opened.latest_sequence() })
}

fn of_family(opened: &Opened, copy: &OpenSpec, name: &str, progress: &dyn Progress) -> Result<FamilyDigest> {
    let fault =
        || Error::new(Code::DatabaseOpen, "reading column family").on(name).with("database", copy.directory.display());
    let db = opened.db();
    let handle = db.cf_handle(name).ok_or_else(fault)?;
    let mut options = ReadOptions::default();
    options.set_total_order_seek(true);
    options.set_verify_checksums(true);
    options.fill_cache(false);
    options.set_readahead_size(4 << 20);
    let mut hasher = blake3::Hasher::new();
    let (mut pairs, mut bytes) = (0u64, 0u64);
    for pair in db.iterator_cf_opt(&handle, options, IteratorMode::Start) {
        let (key, value) = pair.map_err(|e| fault().because(e))?;
        for part in [&key, &value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
            bytes += part.len() as u64;
        }
        pairs += 1;
        if pairs.is_multiple_of(65_536) {
            progress.advance(Phase::Digest, 65_536);
        }
    }
    progress.advance(Phase::Digest, pairs % 65_536);
    Ok(FamilyDigest { hash: ContentHash(*hasher.finalize().as_bytes()), pairs, bytes })
}
