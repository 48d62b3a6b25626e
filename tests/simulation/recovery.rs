//! RocksDB's recovery, of a simulated server's directory or of a restored copy.
//!
//! Owns: which records of which logs count (`DBImpl::RecoverLogFiles`): logs from the first one needed on, and in each the
//! records of column families that do not have it flushed; every data operation consumes a number, wherever it goes.
//! In point-in-time mode replay stops at a torn tail and goes on only in a log that begins with the number that is due;
//! in absolute mode, in which copies are opened, a torn tail is an error.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use pitr_archive::{
    ids::{ColumnFamilyId, FileNumber},
    rocks::{
        file_name::{self, FileKind},
        log_reader::{Finality, LogKind, LogReader, Read},
        manifest::{ManifestModel, SstFile, TwoPhase},
        write_batch::{Op, WriteBatch},
    },
};

use crate::{
    oracle::State,
    table::{self, Memtable, Table, Version},
};

/// What a torn tail means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The end of what is recovered: how the server opens.
    PointInTime,
    /// An error: how a restored copy must open.
    Absolute,
}

/// A column family as it was found.
#[derive(Debug)]
pub struct Family {
    pub name: String,
    pub log_number: u64,
    pub files: BTreeMap<u64, (SstFile, Table)>,
    pub memtable: Memtable,
}

/// A recovered database, nothing written yet.
#[derive(Debug)]
pub struct Recovered {
    pub model: ManifestModel,
    pub families: BTreeMap<u32, Family>,
    /// `LastSequence`.
    pub sequence: u64,
    /// The logs that are there, in order.
    pub wals: Vec<u64>,
    /// Every other number that a file has.
    pub highest_number: u64,
    /// The last record that was replayed: its log and the offset after it.
    pub last_record: Option<(u64, u64)>,
    /// A torn tail was met.
    pub torn: bool,
}

impl Recovered {
    /// What a reader of the database sees.
    pub fn state(&self) -> State {
        let families = self.families.values().map(|family| {
            let tables = family.files.values().map(|(_, table)| table);
            (family.name.clone(), Arc::new(table::contents(tables, &family.memtable)))
        });
        State { families: families.collect(), sequence: self.sequence }
    }

    /// Replays one record.
    fn replay(&mut self, wal: u64, payload: &[u8]) -> Result<(), String> {
        let batch = WriteBatch::parse(payload).map_err(|e| e.to_string())?;
        let mut sequence = batch.sequence().get();
        for op in batch.ops() {
            let op = op.map_err(|e| e.to_string())?;
            if !op.is_data() {
                continue;
            }
            let id = op.column_family().unwrap_or(ColumnFamilyId::DEFAULT).get();
            if let Some(family) = self.families.get_mut(&id).filter(|family| family.log_number <= wal) {
                match op {
                    Op::Put { key, value, .. } => {
                        family.memtable.write(key, Version { sequence, value: Some(value.to_vec()) });
                    }
                    Op::Delete { key, .. } => family.memtable.write(key, Version { sequence, value: None }),
                    Op::SingleDelete { key, .. } => family.memtable.single_delete(key, sequence),
                    other => return Err(format!("an operation that no simulated server writes: {other:?}")),
                }
            }
            sequence += 1;
        }
        // A batch without data sets the number, too: it names the one that is due.
        self.sequence = self.sequence.max(sequence.saturating_sub(1));
        Ok(())
    }
}

/// Opens a directory as RocksDB would, without writing.
pub fn recover(dir: &Path, mode: Mode) -> Result<Recovered, String> {
    let current = fs::read(dir.join("CURRENT")).map_err(|e| e.to_string())?;
    let number = file_name::parse_current(&current).map_err(|e| e.to_string())?;
    let bytes = fs::read(dir.join(file_name::manifest(number))).map_err(|e| e.to_string())?;
    let mut model = ManifestModel::new(number);
    for read in LogReader::new(LogKind::Manifest).read_all(&bytes, Finality::Final) {
        match read {
            Read::Record { payload, end, .. } => drop(model.apply(&payload, end).map_err(|e| e.to_string())?),
            Read::End { void_bytes: 0, .. } => {}
            other if mode == Mode::Absolute => return Err(format!("the MANIFEST: {other:?}")),
            _ => break,
        }
    }
    model.abandon_atomic_group();
    let mut families = BTreeMap::new();
    for (id, found) in model.column_families() {
        let mut files = BTreeMap::new();
        for (number, sst) in &found.files {
            let bytes = fs::read(dir.join(file_name::sst(*number))).map_err(|e| format!("table {number}: {e}"))?;
            if bytes.len() as u64 != sst.size {
                return Err(format!("table {number} has {} bytes, not {}", bytes.len(), sst.size));
            }
            files.insert(number.get(), (sst.clone(), table::decode(&bytes)));
        }
        let (name, log_number) = (found.name.to_string(), found.log_number.get());
        families.insert(id.get(), Family { name, log_number, files, memtable: Memtable::default() });
    }
    let (mut wals, mut highest_number) = (Vec::new(), 0);
    for entry in fs::read_dir(dir).map_err(|e| e.to_string())? {
        let name = entry.map_err(|e| e.to_string())?.file_name();
        match name.to_str().and_then(file_name::parse) {
            Some(FileKind::Wal(n)) => wals.push(n.get()),
            Some(FileKind::Sst(n) | FileKind::Manifest(n) | FileKind::Options(n)) => {
                highest_number = highest_number.max(n.get());
            }
            _ => {}
        }
    }
    wals.sort_unstable();
    let needed = model.first_wal_needed(TwoPhase::Off).get();
    let sequence = model.last_sequence().get();
    let mut recovered =
        Recovered { model, families, sequence, wals: wals.clone(), highest_number, last_record: None, torn: false };
    let mut stopped = false;
    for wal in wals.into_iter().filter(|wal| *wal >= needed) {
        let bytes = fs::read(dir.join(file_name::wal(FileNumber::new(wal)))).map_err(|e| e.to_string())?;
        for read in LogReader::new(LogKind::Wal(FileNumber::new(wal))).read_all(&bytes, Finality::Final) {
            match read {
                Read::Record { payload, end, .. } => {
                    let first = WriteBatch::parse(&payload).map_err(|e| e.to_string())?.sequence().get();
                    if stopped && first != recovered.sequence + 1 {
                        break;
                    }
                    stopped = false;
                    recovered.replay(wal, &payload)?;
                    recovered.last_record = Some((wal, end));
                }
                Read::End { void_bytes: 0, .. } => {}
                other if mode == Mode::Absolute => return Err(format!("WAL {wal}: {other:?}")),
                _ => {
                    stopped = true;
                    recovered.torn = true;
                    break;
                }
            }
        }
    }
    Ok(recovered)
}
