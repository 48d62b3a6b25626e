//! Which table files a part needs, and what its MANIFEST says of the others.
//!
//! Owns: the edits that make the base's MANIFEST the part's. Column families that are not wanted are dropped; the default one,
//! which cannot be, loses its files. Table files without a wanted key leave their levels; of those that have one, the rest is
//! hidden by range deletions above everything. The part is another database, with an identity of its own: no archiver takes
//! it for the one that it came from.
//! Pure: a MANIFEST in, a MANIFEST out.

use std::collections::{BTreeMap, BTreeSet};

use pitr_archive::{
    Code, Error, Result,
    catalog::schema::{BaseDocument, BaseFile},
    ids::{ColumnFamilyId, FileNumber, SequenceNumber},
    rocks::{
        file_name::{self, FileKind},
        log_reader::{Finality, LogKind, LogReader, Read},
        version_edit::{BlobFileGarbage, DeletedFile, VersionEdit, new_files},
        write_batch::{Op, WriteBatchBuilder},
    },
};

use super::{KeyRange, PlannedPart};
use crate::restore::manifest::Manifest;

/// The first and the last key of a file.
type Bounds = (Vec<u8>, Vec<u8>);

/// What was made of a MANIFEST.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    /// Table and blob files that it still names.
    live: BTreeSet<FileNumber>,
    /// What is hidden of the files that stay, by column family: from a key on, below another.
    hidden: Vec<(ColumnFamilyId, Vec<u8>, Vec<u8>)>,
}

impl Taken {
    /// Makes a MANIFEST the part's. `identity` is the part's own.
    pub fn of(manifest: &mut Manifest, part: &PlannedPart, identity: &str) -> Result<Self> {
        let mut taken = Self::default();
        let bounds = if part.keys.is_some() { bounds(manifest) } else { BTreeMap::new() };
        let families: Vec<ColumnFamilyId> = manifest.model.column_families().keys().copied().collect();
        for family in families {
            let (keys, whole) = (part.keys.as_ref(), part.has(family));
            let gone = |number: &FileNumber| !whole || keys.is_some_and(|keys| !meets(keys, bounds.get(number)));
            let own = manifest.model.live_files().filter(|(id, ..)| *id == family);
            let (leave, stay): (Vec<_>, Vec<_>) =
                own.map(|(_, number, file)| (number, file.level)).partition(|(number, _)| gone(number));
            let blobs: Vec<_> = manifest
                .model
                .live_blob_files()
                .filter(|(id, ..)| *id == family && !whole)
                .map(|(_, number, blob)| BlobFileGarbage {
                    number,
                    garbage_blob_count: blob.total_count.saturating_sub(blob.garbage_count),
                    garbage_blob_bytes: blob.total_bytes.saturating_sub(blob.garbage_bytes),
                    unknown: Vec::new(),
                })
                .collect();
            let last_sequence = Some(manifest.model.last_sequence());
            let edit = VersionEdit { column_family: family, last_sequence, ..VersionEdit::default() };
            if !whole && family != ColumnFamilyId::DEFAULT {
                manifest.append(&VersionEdit { column_family_drop: true, ..edit })?;
                continue;
            }
            if !leave.is_empty() || !blobs.is_empty() {
                let deleted_files = leave.into_iter().map(|(number, level)| DeletedFile { level, number }).collect();
                manifest.append(&VersionEdit { deleted_files, blob_file_garbages: blobs, ..edit })?;
            }
            if let Some(keys) = keys {
                let stay = stay.iter().filter_map(|(number, _)| bounds.get(number));
                taken.hidden.extend(outside(keys, stay).map(|(from, to)| (family, from, to)));
            }
        }
        if manifest.model.db_id().is_some() {
            let db_id = Some(identity.as_bytes());
            let last_sequence = Some(manifest.model.last_sequence());
            manifest.append(&VersionEdit { db_id, last_sequence, ..VersionEdit::default() })?;
        }
        let blobs = manifest.model.live_blob_files().map(|(_, number, _)| number);
        taken.live = manifest.model.live_files().map(|(_, number, _)| number).chain(blobs).collect();
        Ok(taken)
    }

    /// Whether files of the column family hold anything beside the part.
    pub fn hides_in(&self, family: ColumnFamilyId) -> bool {
        self.hidden.iter().any(|(id, ..)| *id == family)
    }

    /// Whether a file of the base is fetched.
    pub fn needs(&self, file: &BaseFile) -> bool {
        match file_name::parse(&file.name) {
            Some(FileKind::Sst(number) | FileKind::Blob(number)) => self.live.contains(&number),
            _ => true,
        }
    }

    /// The base without what is left out.
    pub fn without(&self, base: BaseDocument) -> BaseDocument {
        let mut base = base;
        base.files.retain(|file| self.needs(file));
        base
    }

    /// The batch that hides what files hold beside the part; its number is the one after the source's latest.
    pub fn hiding(&self, after: SequenceNumber) -> Result<Option<(SequenceNumber, Vec<u8>)>> {
        if self.hidden.is_empty() {
            return Ok(None);
        }
        let number = after.next().ok_or_else(|| {
            Error::new(Code::PartUnusable, "hiding what lies beside the part").with("sequence numbers", "all are used")
        })?;
        let mut batch = WriteBatchBuilder::new(number);
        for (cf, begin, end) in &self.hidden {
            batch.push(&Op::DeleteRange { cf: *cf, begin, end });
        }
        // Every operation takes a number.
        let last = SequenceNumber::new(number.get().saturating_add(self.hidden.len() as u64 - 1));
        Ok(Some((last, batch.finish())))
    }
}

/// A file whose keys nothing tells can hold every key.
fn meets(keys: &KeyRange, bounds: Option<&Bounds>) -> bool {
    bounds.is_none_or(|(first, last)| keys.meets(first, last))
}

/// What of the keys of some files lies below and above the wanted ones.
fn outside<'a>(keys: &KeyRange, files: impl Iterator<Item = &'a Bounds>) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let (mut first, mut last): (Option<&[u8]>, Option<&[u8]>) = (None, None);
    for (smallest, largest) in files {
        first = Some(first.map_or(smallest.as_slice(), |known| known.min(smallest)));
        last = last.max(Some(largest.as_slice()));
    }
    let below = first.filter(|first| *first < keys.from()).map(|first| (first.to_vec(), keys.from().to_vec()));
    let above = keys.to().zip(last).filter(|(to, last)| to <= last).map(|(to, last)| {
        let mut end = last.to_vec();
        end.push(0);
        (to.to_vec(), end)
    });
    below.into_iter().chain(above)
}

/// The keys of every file that a MANIFEST has named.
fn bounds(manifest: &Manifest) -> BTreeMap<FileNumber, Bounds> {
    let mut bounds = BTreeMap::new();
    let mut reader = LogReader::new(LogKind::Manifest);
    for answer in reader.read_all(&manifest.bytes, Finality::Final) {
        let Read::Record { payload, .. } = answer else { continue };
        for file in new_files(&payload) {
            bounds.insert(file.number, (file.smallest.user_key().to_vec(), file.largest.user_key().to_vec()));
        }
    }
    bounds
}
