//! A simulated RocksDB server: real bytes in the real order, without RocksDB.
//!
//! Owns: the server's memory and the order of its effects (checked against RocksDB 11.8.1): a switch of memtables creates
//! the new log first; a flush writes the table, then the edits, and deletes logs last; an open creates its first log,
//! then the MANIFEST with the next number, then moves CURRENT. Sequence numbers, log numbers and file numbers follow
//! RocksDB's rules, because the archiver draws conclusions from them.
//! Refuses: to be a database. Values are small, there is one thread, and a compaction takes whatever it is told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use pitr_archive::{
    ids::{ColumnFamilyId, FileNumber, SequenceNumber},
    rocks::{
        file_name,
        log_writer::LogWriter,
        version_edit::{DeletedFile, InternalKey, NewFile, SstUniqueId, VersionEdit},
        write_batch::{Op, WriteBatchBuilder},
    },
};

use crate::{
    disk::{Disk, Effect},
    oracle::{Mark, Oracle, State},
    recovery::{self, Mode, Recovered},
    table::{self, Contents, Memtable, Table, Version},
};

const COMPARATOR: &[u8] = b"leveldb.BytewiseComparator";

/// When written records reach the log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogBuffer {
    /// With every write.
    WrittenAtOnce,
    /// When the server flushes its log: `manual_wal_flush`.
    Held,
}

/// Whether table files have RocksDB's unique id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableIds {
    /// They have, as since 7.3.
    InManifest,
    /// They have not.
    Absent,
}

/// How several column families are flushed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushEdits {
    /// One edit after the other.
    Separate,
    /// As one atomic group.
    Atomic,
}

/// What a server is started with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub log_buffer: LogBuffer,
    pub table_ids: TableIds,
    pub flush_edits: FlushEdits,
}

/// One operation of a write batch.
#[derive(Clone, Debug)]
pub enum Write {
    Put { family: u32, key: Vec<u8>, value: Vec<u8> },
    Delete { family: u32, key: Vec<u8> },
    SingleDelete { family: u32, key: Vec<u8> },
}

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logging {
    /// Into the log and the memtable.
    Logged,
    /// `disableWAL`.
    Unlogged,
}

/// What an open found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The number goes on.
    GoesOn,
    /// The number is lower than before: numbers are used again.
    Lower,
}

struct TableFile {
    level: u32,
    epoch: u64,
    table: Table,
}

struct Family {
    name: String,
    /// Logs below it hold nothing that is not flushed; for an idle family ahead of what the MANIFEST says.
    log_number: u64,
    memtable: Memtable,
    /// As much of the memtable as is in the log.
    logged: Memtable,
    files: BTreeMap<u64, TableFile>,
    next_epoch: u64,
    contents: Arc<Contents>,
    /// What a crash would leave of it.
    durable: Arc<Contents>,
}

impl Family {
    fn refresh(&mut self) {
        let tables = || self.files.values().map(|file| &file.table);
        self.contents = Arc::new(table::contents(tables(), &self.memtable));
        self.durable = if self.memtable.unlogged {
            Arc::new(table::contents(tables(), &self.logged))
        } else {
            self.contents.clone()
        };
    }
}

/// A write's effect on a memtable.
fn apply(memtable: &mut Memtable, write: &Write, sequence: u64) {
    match write {
        Write::Put { key, value, .. } => memtable.write(key, Version { sequence, value: Some(value.clone()) }),
        Write::Delete { key, .. } => memtable.write(key, Version { sequence, value: None }),
        Write::SingleDelete { key, .. } => memtable.single_delete(key, sequence),
    }
}

/// The log that is being written.
struct Log {
    number: u64,
    writer: LogWriter,
    /// Records that are not on their way to the file.
    held: Vec<(Vec<u8>, Mark)>,
}

/// A server that has its database open.
pub struct Server {
    pub settings: Settings,
    families: BTreeMap<u32, Family>,
    largest_family: u32,
    next_number: u64,
    sequence: u64,
    /// What the MANIFEST says of it: only what was flushed.
    flushed_sequence: u64,
    min_log: u64,
    log: Log,
    logs: BTreeSet<u64>,
    manifest: u64,
    manifest_writer: LogWriter,
    options: Vec<u64>,
    /// How many databases and sessions of the run came before: names are made of it.
    sessions: u64,
}

fn append(file: String, bytes: Vec<u8>, mark: Option<Mark>) -> Effect {
    Effect::Append { file, bytes, mark }
}

fn wal_name(number: u64) -> String {
    file_name::wal(FileNumber::new(number))
}

fn delete(file: String) -> Effect {
    Effect::Delete { file }
}

/// The state of a database that has just been created.
pub fn empty_state() -> State {
    State { families: BTreeMap::from([("default".to_owned(), Arc::default())]), sequence: 0 }
}

/// What creating a database leaves before it is opened for the first time.
pub fn create(root: &Path) {
    let edit = VersionEdit {
        db_id: Some(b"simulated-database"),
        log_number: Some(FileNumber::new(0)),
        next_file_number: Some(FileNumber::new(2)),
        last_sequence: Some(SequenceNumber::new(0)),
        ..VersionEdit::default()
    };
    let mut bytes = Vec::new();
    LogWriter::new(0).append(&edit.encode(), &mut bytes);
    let first = FileNumber::new(1);
    for (name, content) in [
        (file_name::manifest(first), bytes),
        ("CURRENT".to_owned(), file_name::current(first).into_bytes()),
        ("IDENTITY".to_owned(), b"simulated-database".to_vec()),
    ] {
        std::fs::write(root.join(name), content).expect("a new database");
    }
}

impl Server {
    /// Opens the database in the disk's directory. Its effects are queued; what is already there counts as the present.
    pub fn open(disk: &mut Disk, oracle: &mut Oracle, settings: Settings, sessions: u64) -> (Self, Opened) {
        let before = oracle.readable();
        let found = recovery::recover(&disk.root, Mode::PointInTime).expect("what a server left can be opened");
        let lower = found.sequence < oracle.state(before).sequence;
        let moment = oracle.readable().moment;
        if let Some((wal, end)) = found.last_record {
            assert_eq!(oracle.at(wal, end), Some(moment), "recovery and the oracle disagree on the last record");
        }
        oracle.recover(moment, found.state());
        let mut server = Self::recovered(&found, settings, sessions);
        server.finish_open(&found, disk, oracle);
        (server, if lower { Opened::Lower } else { Opened::GoesOn })
    }

    fn recovered(found: &Recovered, settings: Settings, sessions: u64) -> Self {
        let mut families = BTreeMap::new();
        for (id, family) in &found.families {
            let mut files = BTreeMap::new();
            for (number, (sst, table)) in &family.files {
                let epoch = sst.epoch_number.unwrap_or_default();
                files.insert(*number, TableFile { level: sst.level, epoch, table: table.clone() });
            }
            let next_epoch = files.values().map(|file| file.epoch + 1).max().unwrap_or(1);
            let (name, log_number) = (family.name.clone(), family.log_number);
            let (memtable, logged) = (family.memtable.clone(), family.memtable.clone());
            let (contents, durable) = (Arc::default(), Arc::default());
            let mut family = Family { name, log_number, memtable, logged, files, next_epoch, contents, durable };
            family.refresh();
            families.insert(*id, family);
        }
        let highest_log = found.wals.last().copied().unwrap_or_default();
        let named = found.model.next_file_number().map_or(2, FileNumber::get);
        Self {
            settings,
            families,
            largest_family: found.model.max_column_family().get(),
            // RocksDB marks what it finds as used, and the number after the last log.
            next_number: named.max(found.highest_number + 1).max(highest_log + 1),
            sequence: found.sequence,
            flushed_sequence: found.model.last_sequence().get(),
            min_log: found.model.min_log_number_to_keep().get(),
            log: Log { number: highest_log, writer: LogWriter::new(0), held: Vec::new() },
            logs: found.wals.iter().copied().collect(),
            manifest: found.model.file().get(),
            manifest_writer: LogWriter::new(0),
            options: Vec::new(),
            sessions,
        }
    }

    /// Everything that an open does after recovery.
    fn finish_open(&mut self, found: &Recovered, disk: &mut Disk, oracle: &mut Oracle) {
        let session = format!("2026/11/21-00:00:00 1 DB Session ID:  SIMULATED{:011}\n", self.sessions);
        disk.push(Effect::Place { file: "LOG".to_owned(), bytes: session.into_bytes() });
        let snapshot = self.snapshot();
        let mut edits = Vec::new();
        if let Some(highest) = found.wals.last().copied() {
            let mut flushed = false;
            let ids: Vec<u32> = self.families.keys().copied().collect();
            for id in ids {
                if self.families[&id].log_number > highest {
                    continue;
                }
                flushed |= !self.families[&id].memtable.is_empty();
                edits.push(self.flush_family(id, highest + 1, disk));
            }
            let first_flush = edits.len().min(1);
            self.next_number = self.next_number.max(highest + 2);
            if flushed {
                self.min_log = highest + 1;
                let min_log =
                    VersionEdit { min_log_number_to_keep: Some(FileNumber::new(self.min_log)), ..self.numbers() };
                // As RocksDB: behind that of the default column family, whose own edits come first.
                edits.insert(first_flush, min_log.encode());
            }
        }
        let log = self.take_number();
        self.log = Log { number: log, writer: LogWriter::new(0), held: Vec::new() };
        self.logs.insert(log);
        disk.push(append(wal_name(log), Vec::new(), None));
        if found.torn {
            // An empty batch that names the number that is due: replay of the next open goes on here.
            let due = SequenceNumber::new(self.sequence + 1);
            self.log_record(WriteBatchBuilder::new(due).finish(), disk, oracle);
            self.flush_log(disk);
        }
        self.new_manifest(snapshot, edits, None, disk);
        self.delete_old_logs(disk);
        self.write_options(disk);
    }

    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// The present state.
    pub fn state(&self) -> State {
        let families = self.families.values().map(|family| (family.name.clone(), family.contents.clone()));
        State { families: families.collect(), sequence: self.sequence }
    }

    /// What a crash would leave: without what is in no log and not flushed.
    pub fn durable_state(&self) -> State {
        let families = self.families.values().map(|family| (family.name.clone(), family.durable.clone()));
        State { families: families.collect(), sequence: self.sequence }
    }

    /// Ids and names of the column families.
    pub fn families(&self) -> Vec<(u32, String)> {
        self.families.iter().map(|(id, family)| (*id, family.name.clone())).collect()
    }

    /// Whether a key could be deleted by a single deletion: it was put exactly once, and that put is not flushed.
    pub fn put_once_in_memory(&self, family: u32, key: &[u8]) -> bool {
        let Some(family) = self.families.get(&family) else { return false };
        let flushed = family.files.values().any(|file| file.table.contains_key(key));
        !flushed && family.memtable.put_once(key)
    }

    /// Whether nothing of the database knows the key.
    pub fn is_fresh(&self, family: u32, key: &[u8]) -> bool {
        let Some(family) = self.families.get(&family) else { return false };
        !family.memtable.holds(key) && !family.files.values().any(|file| file.table.contains_key(key))
    }

    /// Table files of a column family with their levels.
    pub fn files(&self, family: u32) -> Vec<(u64, u32)> {
        let Some(family) = self.families.get(&family) else { return Vec::new() };
        family.files.iter().map(|(number, file)| (*number, file.level)).collect()
    }

    /// Whether something is neither in the log nor flushed.
    pub fn has_unlogged(&self) -> bool {
        self.families.values().any(|family| family.memtable.unlogged)
    }

    /// Writes a batch.
    pub fn write(&mut self, writes: &[Write], logging: Logging, disk: &mut Disk, oracle: &mut Oracle) {
        let mut batch = WriteBatchBuilder::new(SequenceNumber::new(self.sequence + 1));
        let mut touched = BTreeSet::new();
        for write in writes {
            self.sequence += 1;
            let sequence = self.sequence;
            let id = match write {
                Write::Put { family, .. } | Write::Delete { family, .. } | Write::SingleDelete { family, .. } => {
                    *family
                }
            };
            let cf = ColumnFamilyId::new(id);
            match write {
                Write::Put { key, value, .. } => drop(batch.push(&Op::Put { cf, key, value })),
                Write::Delete { key, .. } => drop(batch.push(&Op::Delete { cf, key })),
                Write::SingleDelete { key, .. } => drop(batch.push(&Op::SingleDelete { cf, key })),
            }
            let family = self.families.get_mut(&id).expect("a live column family");
            apply(&mut family.memtable, write, sequence);
            match logging {
                Logging::Logged => apply(&mut family.logged, write, sequence),
                Logging::Unlogged => family.memtable.unlogged = true,
            }
            touched.insert(id);
        }
        for id in touched {
            self.families.get_mut(&id).expect("a live column family").refresh();
        }
        match logging {
            Logging::Logged => self.log_record(batch.finish(), disk, oracle),
            Logging::Unlogged => drop(oracle.change(self.state())),
        }
    }

    fn log_record(&mut self, payload: Vec<u8>, disk: &mut Disk, oracle: &mut Oracle) {
        let mut bytes = Vec::new();
        self.log.writer.append(&payload, &mut bytes);
        let mark = oracle.record(self.log.number, self.log.writer.offset(), payload, self.state());
        self.log.held.push((bytes, mark));
        if self.has_unlogged() {
            oracle.change(self.durable_state());
        }
        if self.settings.log_buffer == LogBuffer::WrittenAtOnce {
            self.flush_log(disk);
        }
    }

    /// Writes the log's buffer to its file.
    pub fn flush_log(&mut self, disk: &mut Disk) {
        for (bytes, mark) in self.log.held.drain(..) {
            disk.push(append(wal_name(self.log.number), bytes, Some(mark)));
        }
    }

    /// Flushes the memtables of these column families.
    pub fn flush(&mut self, ids: &[u32], disk: &mut Disk) {
        let ids: Vec<u32> = ids.iter().copied().filter(|id| !self.families[id].memtable.is_empty()).collect();
        if ids.is_empty() {
            return;
        }
        self.switch_memtables(&ids, disk);
        let log = self.log.number;
        let mut edits: Vec<Vec<u8>> = ids.iter().map(|id| self.flush_family(*id, log, disk)).collect();
        if self.settings.flush_edits == FlushEdits::Atomic && edits.len() > 1 {
            let count = u32::try_from(edits.len()).expect("a few families");
            edits = edits
                .iter()
                .zip((0..count).rev())
                .map(|(edit, left)| {
                    let edit = VersionEdit::decode(edit).expect("our own edit");
                    VersionEdit { in_atomic_group: Some(left), ..edit }.encode()
                })
                .collect();
        }
        let needed = self.families.values().map(|family| family.log_number).min().unwrap_or(log);
        if needed > self.min_log {
            self.min_log = needed;
            let min_log = FileNumber::new(needed);
            edits.push(VersionEdit { min_log_number_to_keep: Some(min_log), ..self.numbers() }.encode());
        }
        self.log_edits(&edits, None, disk);
        self.delete_old_logs(disk);
    }

    /// Begins a new log unless the present one is empty.
    fn switch_memtables(&mut self, flushed: &[u32], disk: &mut Disk) {
        if self.log.writer.offset() > 0 {
            let number = self.take_number();
            disk.push(append(wal_name(number), Vec::new(), None));
            self.flush_log(disk);
            self.log = Log { number, writer: LogWriter::new(0), held: Vec::new() };
            self.logs.insert(number);
            for (id, family) in &mut self.families {
                if family.memtable.is_empty() || flushed.contains(id) {
                    family.log_number = number;
                }
            }
        }
    }

    /// Writes a memtable as a table file and makes the edit that names it.
    fn flush_family(&mut self, id: u32, log: u64, disk: &mut Disk) -> Vec<u8> {
        let family = self.families.get_mut(&id).expect("a live column family");
        let table = std::mem::take(&mut family.memtable).flushed();
        family.logged = Memtable::default();
        family.log_number = family.log_number.max(log);
        let epoch = family.next_epoch;
        let cf = ColumnFamilyId::new(id);
        let number = (!table.is_empty()).then(|| self.add_table(id, 0, epoch, table, disk));
        let files = number.map(|number| self.described(id, number)).into_iter().collect::<Vec<_>>();
        let edit = VersionEdit {
            column_family: cf,
            log_number: Some(FileNumber::new(log)),
            prev_log_number: Some(FileNumber::new(0)),
            new_files: files.iter().map(Described::as_edit).collect(),
            ..self.numbers()
        };
        let bytes = edit.encode();
        self.families.get_mut(&id).expect("a live column family").refresh();
        bytes
    }

    /// Writes a table file and takes it into memory.
    fn add_table(&mut self, id: u32, level: u32, epoch: u64, table: Table, disk: &mut Disk) -> u64 {
        let number = self.take_number();
        let bytes = table::encode(&table);
        let largest = table.values().map(|version| version.sequence).max().unwrap_or_default();
        self.flushed_sequence = self.flushed_sequence.max(largest);
        disk.push(append(file_name::sst(FileNumber::new(number)), bytes, None));
        let family = self.families.get_mut(&id).expect("a live column family");
        family.next_epoch = family.next_epoch.max(epoch + 1);
        family.files.insert(number, TableFile { level, epoch, table });
        number
    }

    /// What every edit of a running database names.
    fn numbers(&self) -> VersionEdit<'static> {
        VersionEdit {
            next_file_number: Some(FileNumber::new(self.next_number)),
            last_sequence: Some(SequenceNumber::new(self.flushed_sequence)),
            ..VersionEdit::default()
        }
    }

    fn described(&self, id: u32, number: u64) -> Described {
        let file = &self.families[&id].files[&number];
        Described::new(number, file, self.settings.table_ids)
    }

    /// The edits that describe the present files: what a new MANIFEST opens with.
    fn snapshot(&self) -> Vec<Vec<u8>> {
        let db_id = VersionEdit { db_id: Some(b"simulated-database"), ..VersionEdit::default() };
        let mut edits = vec![db_id.encode()];
        for (id, family) in &self.families {
            let column_family = ColumnFamilyId::new(*id);
            let add = (*id != 0).then_some(family.name.as_bytes());
            let comparator = Some(COMPARATOR);
            edits.push(
                VersionEdit { column_family, column_family_add: add, comparator, ..VersionEdit::default() }.encode(),
            );
            let files: Vec<_> = family.files.keys().map(|number| self.described(*id, *number)).collect();
            let facts = VersionEdit {
                column_family,
                new_files: files.iter().map(Described::as_edit).collect(),
                log_number: Some(FileNumber::new(family.log_number)),
                min_log_number_to_keep: (*id == 0).then(|| FileNumber::new(self.min_log)),
                last_sequence: Some(SequenceNumber::new(self.flushed_sequence)),
                max_column_family: (*id == 0).then(|| ColumnFamilyId::new(self.largest_family)),
                ..VersionEdit::default()
            };
            edits.push(facts.encode());
        }
        edits
    }

    /// Appends edits to the MANIFEST.
    fn log_edits(&mut self, edits: &[Vec<u8>], mark: Option<Mark>, disk: &mut Disk) {
        let mut bytes = Vec::new();
        for edit in edits {
            self.manifest_writer.append(edit, &mut bytes);
        }
        disk.push(append(file_name::manifest(FileNumber::new(self.manifest)), bytes, mark));
    }

    /// Begins a new MANIFEST: a snapshot, then these edits; CURRENT moves when it is whole.
    fn new_manifest(&mut self, snapshot: Vec<Vec<u8>>, edits: Vec<Vec<u8>>, mark: Option<Mark>, disk: &mut Disk) {
        let old = std::mem::replace(&mut self.manifest, self.next_number);
        self.next_number += 1;
        self.manifest_writer = LogWriter::new(0);
        let all: Vec<Vec<u8>> = snapshot.into_iter().chain(edits).collect();
        self.log_edits(&all, mark, disk);
        let current = file_name::current(FileNumber::new(self.manifest)).into_bytes();
        disk.push(Effect::Place { file: "CURRENT".to_owned(), bytes: current });
        disk.push(delete(file_name::manifest(FileNumber::new(old))));
    }

    /// The MANIFEST has grown too large.
    pub fn roll_manifest(&mut self, disk: &mut Disk) {
        let snapshot = self.snapshot();
        self.new_manifest(snapshot, Vec::new(), None, disk);
    }

    fn delete_old_logs(&mut self, disk: &mut Disk) {
        let kept = self.logs.split_off(&self.min_log);
        for log in std::mem::replace(&mut self.logs, kept) {
            disk.push(delete(wal_name(log)));
        }
    }

    /// Every change of settings and column families is a new OPTIONS file; RocksDB keeps two.
    fn write_options(&mut self, disk: &mut Disk) {
        let held = self.settings.log_buffer == LogBuffer::Held;
        let mut text = format!(
            "[Version]\n  rocksdb_version=11.8.1\n  options_file_version=1.1\n[DBOptions]\n  manual_wal_flush={held}\n  recycle_log_file_num=0\n  allow_2pc=false\n"
        );
        for family in self.families.values() {
            text.push_str(&format!(
                "[CFOptions \"{}\"]\n  comparator=leveldb.BytewiseComparator\n  compaction_style=kCompactionStyleLevel\n",
                family.name
            ));
        }
        let number = self.take_number();
        disk.push(Effect::Place { file: file_name::options(FileNumber::new(number)), bytes: text.into_bytes() });
        self.options.push(number);
        if self.options.len() > 2 {
            let old = self.options.remove(0);
            disk.push(delete(file_name::options(FileNumber::new(old))));
        }
    }

    /// Creates a column family.
    pub fn create_family(&mut self, name: &str, disk: &mut Disk, oracle: &mut Oracle) {
        self.largest_family += 1;
        let id = self.largest_family;
        let family = Family {
            name: name.to_owned(),
            log_number: self.log.number,
            memtable: Memtable::default(),
            logged: Memtable::default(),
            files: BTreeMap::new(),
            next_epoch: 1,
            contents: Arc::default(),
            durable: Arc::default(),
        };
        self.families.insert(id, family);
        let edit = VersionEdit {
            column_family: ColumnFamilyId::new(id),
            column_family_add: Some(name.as_bytes()),
            comparator: Some(COMPARATOR),
            log_number: Some(FileNumber::new(self.log.number)),
            max_column_family: Some(ColumnFamilyId::new(id)),
            ..self.numbers()
        };
        let mark = oracle.change(self.state());
        self.log_edits(&[edit.encode()], Some(mark), disk);
        self.write_options(disk);
    }

    /// Whether a column family has anything that only the log has.
    pub fn has_unflushed(&self, id: u32) -> bool {
        self.families.get(&id).is_some_and(|family| !family.memtable.is_empty())
    }

    /// Drops a column family with everything in it.
    pub fn drop_family(&mut self, id: u32, disk: &mut Disk, oracle: &mut Oracle) {
        let family = self.families.remove(&id).expect("a live column family");
        let edit = VersionEdit {
            column_family: ColumnFamilyId::new(id),
            column_family_drop: true,
            max_column_family: Some(ColumnFamilyId::new(self.largest_family)),
            ..self.numbers()
        };
        let mark = oracle.change(self.state());
        self.log_edits(&[edit.encode()], Some(mark), disk);
        for number in family.files.keys() {
            disk.push(delete(file_name::sst(FileNumber::new(*number))));
        }
        self.write_options(disk);
    }

    /// Compacts these files into one of level 1. Taking all files of the family, it forgets deletions.
    pub fn compact(&mut self, id: u32, inputs: &[u64], disk: &mut Disk) {
        let family = self.families.get_mut(&id).expect("a live column family");
        let whole = inputs.len() == family.files.len();
        let mut merged = Table::new();
        let mut deleted = Vec::new();
        let mut epoch = u64::MAX;
        for number in inputs {
            let file = family.files.remove(number).expect("a live file");
            deleted.push(DeletedFile { level: file.level, number: FileNumber::new(*number) });
            epoch = epoch.min(file.epoch);
            for (key, version) in file.table {
                let best = merged.entry(key).or_insert_with(|| version.clone());
                if version.sequence > best.sequence {
                    *best = version;
                }
            }
        }
        if whole {
            merged.retain(|_, version| version.value.is_some());
        }
        let flushed = self.flushed_sequence;
        let number = (!merged.is_empty()).then(|| self.add_table(id, 1, epoch, merged, disk));
        assert_eq!(flushed, self.flushed_sequence, "a compaction writes nothing new");
        let files: Vec<_> = number.map(|number| self.described(id, number)).into_iter().collect();
        let edit = VersionEdit {
            column_family: ColumnFamilyId::new(id),
            deleted_files: deleted,
            new_files: files.iter().map(Described::as_edit).collect(),
            ..self.numbers()
        };
        let edit = edit.encode();
        self.log_edits(&[edit], None, disk);
        for number in inputs {
            disk.push(delete(file_name::sst(FileNumber::new(*number))));
        }
        self.families.get_mut(&id).expect("a live column family").refresh();
    }

    /// Ingests a file with one key. One that overlaps nothing keeps the number 0; else it gets the next one.
    pub fn ingest(&mut self, id: u32, key: &[u8], value: &[u8], disk: &mut Disk, oracle: &mut Oracle) {
        if self.families[&id].memtable.holds(key) {
            self.flush(&[id], disk);
        }
        let fresh = self.is_fresh(id, key);
        if !fresh {
            self.sequence += 1;
        }
        let sequence = if fresh { 0 } else { self.sequence };
        let version = Version { sequence, value: Some(value.to_vec()) };
        let epoch = self.families[&id].next_epoch;
        let number = self.add_table(id, 0, epoch, Table::from([(key.to_vec(), version)]), disk);
        let file = self.described(id, number);
        let edit =
            VersionEdit { column_family: ColumnFamilyId::new(id), new_files: vec![file.as_edit()], ..self.numbers() };
        let edit = edit.encode();
        self.families.get_mut(&id).expect("a live column family").refresh();
        let mark = oracle.change(self.state());
        self.log_edits(&[edit], Some(mark), disk);
    }
}

/// A table file as an edit describes it.
struct Described {
    number: u64,
    level: u32,
    size: u64,
    epoch: u64,
    smallest: Vec<u8>,
    largest: Vec<u8>,
    sequences: (u64, u64),
    unique_id: Option<SstUniqueId>,
}

impl Described {
    fn new(number: u64, file: &TableFile, ids: TableIds) -> Self {
        let key = |found: Option<(&Vec<u8>, &Version)>| {
            let (key, version) = found.expect("a table file has keys");
            let kind = u64::from(version.value.is_some());
            [key.as_slice(), &((version.sequence << 8) | kind).to_le_bytes()].concat()
        };
        let sequences = || file.table.values().map(|version| version.sequence);
        Self {
            number,
            level: file.level,
            size: table::encode(&file.table).len() as u64,
            epoch: file.epoch,
            smallest: key(file.table.first_key_value()),
            largest: key(file.table.last_key_value()),
            sequences: (sequences().min().unwrap_or_default(), sequences().max().unwrap_or_default()),
            unique_id: (ids == TableIds::InManifest).then_some(SstUniqueId(0x5349_4D00 + number, !number)),
        }
    }

    fn as_edit(&self) -> NewFile<'_> {
        let key = |bytes| InternalKey::new(bytes).expect("an internal key");
        let (smallest, largest) = self.sequences;
        let mut file = NewFile::new(
            self.level,
            FileNumber::new(self.number),
            self.size,
            key(&self.smallest),
            key(&self.largest),
            SequenceNumber::new(smallest),
            SequenceNumber::new(largest),
        );
        file.epoch_number = Some(self.epoch);
        file.unique_id = self.unique_id;
        file
    }
}
