//! Table files of a part of a column family's keys.
//!
//! Owns: what of the last operations is written down, where a file ends, and the first and last key of each. Two files of
//! one column family share no key, and no deletion of a range reaches over the edge of its file.
//! Refuses: nothing. Levels and sequence numbers are decided when all files are there ([`super::place`]).

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use pitr_archive::{Code, Error, Result, error::io, ids::FileNumber, rocks::file_name};
use rocksdb::{ErrorKind, Options, SstFileWriter};

use super::{
    chunk::{Kind, Version},
    merge::{Merge, Part, Run},
    order::KeyOrder,
    tombstones::Tombstones,
};
use crate::finish::{self, FamilySpec};

/// A file ends at the first key behind so many bytes of keys and values.
const FILE_BYTES: usize = 64 << 20;

/// What lies below the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    /// Nothing: a deletion deletes nothing, and need not be written down.
    Nothing,
    /// Files of the base.
    Files,
}

/// A column family that is replayed.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    pub spec: FamilySpec,
    pub order: KeyOrder,
    /// Where its files go.
    pub directory: PathBuf,
    pub below: Below,
    /// The level in which they are to lie.
    pub level: u32,
}

/// The first or last key of a file, without its sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    /// Of an operation on one key.
    Key(Vec<u8>, Kind),
    /// The first key of a deleted range.
    RangeBegins(Vec<u8>),
    /// The first key behind one.
    RangeEnds(Vec<u8>),
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableFile {
    /// Index of its column family.
    pub family: u16,
    pub number: FileNumber,
    pub bytes: u64,
    pub smallest: Edge,
    pub largest: Edge,
}

/// Writes the files of a part; in order.
pub(crate) fn write(
    part: &Part,
    runs: &[Run],
    family: &Family,
    tombstones: &Tombstones,
    numbers: &AtomicU64,
) -> Result<Vec<TableFile>> {
    let options = finish::family_options(&family.spec)?;
    let mut tables =
        Tables { part, family, tombstones, numbers, options: &options, from: part.from.clone(), done: Vec::new() };
    let mut open: Option<Open<'_>> = None;
    let mut merge = Merge::new(runs, part.clone(), family.order)?;
    while let Some(version) = merge.next()? {
        let of_nothing = version.kind == Kind::Delete && family.below == Below::Nothing;
        if of_nothing || tombstones.cover(version.key, version.age) {
            continue;
        }
        if let Some(full) = open.take_if(|open| open.bytes >= FILE_BYTES) {
            tables.close(full, Some(version.key))?;
        }
        let into = match &mut open {
            Some(open) => open,
            None => open.insert(tables.open()?),
        };
        into.add(&version)?;
    }
    if open.is_none() && !tables.deleted(part.to.as_deref()).is_empty() {
        open = Some(tables.open()?);
    }
    if let Some(last) = open {
        tables.close(last, part.to.as_deref())?;
    }
    Ok(tables.done)
}

struct Tables<'t> {
    part: &'t Part,
    family: &'t Family,
    tombstones: &'t Tombstones,
    numbers: &'t AtomicU64,
    options: &'t Options,
    /// Where the present file's keys begin.
    from: Option<Vec<u8>>,
    done: Vec<TableFile>,
}

impl<'t> Tables<'t> {
    fn open(&self) -> Result<Open<'t>> {
        let number = FileNumber::new(self.numbers.fetch_add(1, Ordering::Relaxed));
        let path = self.family.directory.join(file_name::sst(number));
        let writer = SstFileWriter::create(self.options);
        writer.open(&path).map_err(|e| fault(&path, e))?;
        Ok(Open { writer, number, path, bytes: 0, first: None, last: None })
    }

    /// What was deleted by ranges between the present file's beginning and `to`.
    fn deleted(&self, to: Option<&[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
        match self.family.below {
            Below::Nothing => Vec::new(),
            Below::Files => self.tombstones.between(self.from.as_deref(), to),
        }
    }

    /// Ends a file; the next one begins at `to`.
    fn close(&mut self, mut open: Open<'_>, to: Option<&[u8]>) -> Result<()> {
        let deleted = self.deleted(to);
        for (begin, end) in &deleted {
            open.writer.delete_range(begin, end).map_err(|e| fault(&open.path, e))?;
        }
        let order = self.family.order;
        // A deleted range sorts before the operations on its first key.
        let smallest = match (open.first, deleted.first()) {
            (Some(first), Some((begin, _))) if order.compare(&first.0, begin).is_lt() => {
                Some(Edge::Key(first.0, first.1))
            }
            (_, Some((begin, _))) => Some(Edge::RangeBegins(begin.clone())),
            (first, None) => first.map(|(key, kind)| Edge::Key(key, kind)),
        };
        // And its end before those on the key behind it.
        let largest = match (open.last, deleted.last()) {
            (Some(last), Some((_, end))) if order.compare(end, &last.0).is_le() => Some(Edge::Key(last.0, last.1)),
            (_, Some((_, end))) => Some(Edge::RangeEnds(end.clone())),
            (last, None) => last.map(|(key, kind)| Edge::Key(key, kind)),
        };
        let (Some(smallest), Some(largest)) = (smallest, largest) else {
            return Err(Error::new(Code::Internal, "ending a table file without a key").on(open.path.display()));
        };
        open.writer.finish().map_err(|e| fault(&open.path, e))?;
        let bytes = std::fs::metadata(&open.path).map_err(|e| io("looking at", &open.path, e))?.len();
        self.done.push(TableFile { family: self.part.family, number: open.number, bytes, smallest, largest });
        self.from = to.map(<[u8]>::to_vec);
        Ok(())
    }
}

struct Open<'t> {
    writer: SstFileWriter<'t>,
    number: FileNumber,
    path: PathBuf,
    bytes: usize,
    first: Option<(Vec<u8>, Kind)>,
    last: Option<(Vec<u8>, Kind)>,
}

impl Open<'_> {
    fn add(&mut self, version: &Version<'_>) -> Result<()> {
        match version.kind {
            Kind::Put => self.writer.put(version.key, version.value),
            Kind::Delete => self.writer.delete(version.key),
        }
        .map_err(|e| fault(&self.path, e))?;
        self.bytes += version.key.len() + version.value.len();
        self.first.get_or_insert_with(|| (version.key.to_vec(), version.kind));
        let (key, kind) = self.last.get_or_insert_with(|| (Vec::new(), version.kind));
        version.key.clone_into(key);
        *kind = version.kind;
        Ok(())
    }
}

fn fault(path: &Path, e: rocksdb::Error) -> Error {
    let code = match e.kind() {
        ErrorKind::IOError => Code::FileIo,
        _ => Code::EngineUnusable,
    };
    Error::new(code, "writing the table file").on(path.display()).because(e)
}
