//! Drives a database through a program and keeps the model.
//!
//! Owns: the process of the database, what each step does to the model, and the notes that decide later which refusals
//! of a restore are legitimate: changes outside the log, sequence numbers that fell, WALs that nobody could have read.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use pitr_archive::{clock::Micros, ids::Nonce, rocks::write_batch::WritePolicy};
use pitr_replayer::restore::{PathMap, RestoreOptions};

use super::{
    model::Model,
    program::{End, Op, Settings, Step},
    server::{self, Places, Reply, Request},
};

/// RocksDB 11.8.1 itself, without an archiver, shows what is only prepared after some clean reopens of WritePrepared and
/// WriteUnprepared databases. Such a program has no truth to compare with.
pub const BROKEN: &str = "given up: RocksDB shows what is only prepared";

/// A reply that takes longer than this means that the database process hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The process of a database.
pub struct Process {
    child: Child,
    socket: BufReader<UnixStream>,
}

impl Process {
    /// Starts it; the database is not open yet.
    pub fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        ours.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "database_process", "--test-threads=1"])
            .env(server::ASKED, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .expect("starting the database's process");
        Self { child, socket: BufReader::new(ours) }
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Reply {
        self.send(request);
        let mut line = String::new();
        self.socket.read_line(&mut line).expect("a reply of the database's process");
        let reply: Reply = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{request:?}: {line:?}: {e}"));
        if let Some(error) = &reply.error {
            panic!("the database refused {request:?}: {error}");
        }
        reply
    }

    fn send(&mut self, request: &Request) {
        let mut line = serde_json::to_vec(request).expect("a request");
        line.push(b'\n');
        self.socket.get_mut().write_all(&line).expect("asking the database's process");
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("killing the database's process");
        self.child.wait().expect("waiting for the database's process");
    }

    fn close(mut self) {
        self.ask(&Request::Close);
        self.child.wait().expect("waiting for the database's process");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why a restore may be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A column family came or went: only targets strictly inside the interval may be refused.
    ColumnFamily,
    /// Something changed without the log.
    OutsideWal,
    /// A write without the log: a jump of the sequence number.
    Unlogged,
    /// A session began with a lower sequence number than the one before ended with.
    Reuse,
    /// A WAL came and went, or was overwritten, while nobody looked.
    Unseen,
    /// The edits of a MANIFEST came and went while nobody looked.
    ManifestUnseen,
}

/// Something that happened outside the records, and between which records.
#[derive(Clone, Debug)]
pub struct Incident {
    /// What.
    pub cause: Cause,
    /// Records at the last look before it.
    pub lo: usize,
    /// Records at the first look after it; `None` as long as there was none.
    pub hi: Option<usize>,
    /// Whether what the archiver saw of it is in the archive.
    pub shipped: bool,
}

/// The database of a program.
pub struct Driver {
    /// Its directory.
    pub dir: PathBuf,
    /// Where its WALs and data files are, if not there.
    pub places: Places,
    /// How it is opened.
    pub settings: Settings,
    /// What it must hold.
    pub model: Model,
    /// What restores may be refused for.
    pub incidents: Vec<Incident>,
    /// What happened beside the steps' own kinds, for the coverage table.
    pub noted: BTreeSet<&'static str>,
    process: Option<Process>,
    /// Records at the archiver's last look, and those that were shipped at its last crash-proof point.
    looked: usize,
    shipped: usize,
    /// Names of the WALs that the last look saw.
    seen: BTreeSet<String>,
    /// Names of the WALs that were there after some step since the last look.
    since: BTreeSet<String>,
    /// The newest WAL at the last look, at the last look that was shipped, and then when the archiver went away.
    looked_with: Option<PathBuf>,
    shipped_with: Option<PathBuf>,
    left_with: Option<PathBuf>,
    /// Opens of the database, and their number at the last look that was shipped.
    opens: usize,
    shipped_opens: usize,
    manifests_since: BTreeSet<PathBuf>,
    manifests_seen: BTreeSet<PathBuf>,
    dropped: BTreeSet<String>,
}

impl Driver {
    /// A new, empty database below `root`.
    pub fn create(root: &Path, settings: &Settings) -> Self {
        let dir = root.join("db");
        let places = Places {
            wals: settings.separate_wal_dir.then(|| root.join("wals")),
            data: settings.db_paths.then(|| root.join("data")),
            more: settings.second_place.then(|| root.join("more")),
        };
        let mut driver = Self {
            dir,
            places,
            settings: settings.clone(),
            model: Model::new(),
            incidents: Vec::new(),
            noted: BTreeSet::new(),
            process: None,
            looked: 0,
            shipped: 0,
            seen: BTreeSet::new(),
            since: BTreeSet::new(),
            looked_with: None,
            shipped_with: None,
            left_with: None,
            opens: 0,
            shipped_opens: 0,
            manifests_since: BTreeSet::new(),
            manifests_seen: BTreeSet::new(),
            dropped: BTreeSet::new(),
        };
        let sequence = driver.open();
        driver.model.observed(sequence);
        driver.notice_files();
        let several = settings.blobs && settings.second_place;
        let noted = [
            (settings.two_write_queues, "two write queues"),
            (settings.unordered_write, "unordered write"),
            (settings.atomic_flush, "atomic flush"),
            (settings.pipelined, "pipelined write"),
            (several, "blob files in several places"),
        ];
        driver.noted.extend(noted.into_iter().filter(|(set, _)| *set).map(|(_, word)| word));
        driver.noted.extend(settings.transactions.map(|policy| match policy {
            WritePolicy::WriteCommitted => "write-committed",
            WritePolicy::WritePrepared => "write-prepared",
            WritePolicy::WriteUnprepared => "write-unprepared",
        }));
        driver
    }

    fn open(&mut self) -> u64 {
        self.opens += 1;
        let mut process = Process::start();
        let reply = process.ask(&Request::Open {
            dir: self.dir.clone(),
            places: self.places.clone(),
            settings: self.settings.clone(),
        });
        self.process = Some(process);
        reply.sequence
    }

    fn ask(&mut self, request: &Request) -> Reply {
        self.process.as_mut().expect("the database is open").ask(request)
    }

    /// Does a step of the database.
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Write(ops) => {
                let batch = self.ask(&Request::Prepare { ops: ops.clone(), logged: true }).batch;
                let sequence = self.ask(&Request::Commit).sequence;
                let batch = self.numbered(batch, sequence);
                self.model.logged(ops, batch, sequence);
            }
            Step::WriteUnlogged(ops) => {
                // RocksDB refuses it where WALs are recycled.
                if self.settings.recycle > 0 {
                    return self.step(&Step::Write(ops.clone()));
                }
                self.ask(&Request::Prepare { ops: ops.clone(), logged: false });
                let sequence = self.ask(&Request::Commit).sequence;
                self.model.unlogged(ops, sequence);
                self.ask(&Request::Flush { families: Vec::new() });
                self.incident(Cause::Unlogged);
            }
            Step::Flush(family) => {
                self.ask(&Request::Flush { families: family.iter().cloned().collect() });
            }
            Step::Compact(family) => {
                self.ask(&Request::Compact { family: family.clone() });
            }
            Step::Create(name) => {
                let sequence = self.ask(&Request::Create { name: name.clone() }).sequence;
                self.model.created(name, sequence);
                self.incident(Cause::ColumnFamily);
                if self.dropped.contains(name) {
                    self.noted.insert("create column family of a dropped one's name");
                }
            }
            Step::Drop(name) => {
                let sequence = self.ask(&Request::Drop { name: name.clone() }).sequence;
                self.model.dropped(name, sequence);
                self.incident(Cause::ColumnFamily);
                self.dropped.insert(name.clone());
            }
            Step::Reopen(end) => {
                let process = self.process.take().expect("the database is open");
                if self.settings.precreate_wal {
                    // One that was created ahead is deleted at the close, before anybody can link it or tell that it was empty.
                    self.incident(Cause::Unseen);
                }
                match end {
                    End::Clean => process.close(),
                    End::Killed => process.kill(),
                }
                let before = self.model.present().sequence;
                let sequence = self.reopened();
                if sequence < before && *end == End::Clean {
                    self.noted.insert("clean reopen that lowers the sequence");
                }
            }
            Step::KillWhileWriting(ops) => self.kill_while_writing(ops),
            Step::Ingest(family, pairs) => {
                let sequence = self.ask(&Request::Ingest { family: family.clone(), pairs: pairs.clone() }).sequence;
                self.model.ingested(family, pairs, sequence);
                self.incident(Cause::OutsideWal);
            }
            Step::Prepare(name, ops) => {
                let request = Request::PrepareTransaction { name: name.clone(), ops: ops.clone() };
                let Reply { batch, sequence, .. } = self.ask(&request);
                self.model.prepared(name, ops, batch, sequence);
            }
            Step::Commit(name) => {
                let Reply { batch, sequence, .. } = self.ask(&Request::CommitTransaction { name: name.clone() });
                self.model.committed(name, batch, sequence);
            }
            Step::RollBack(name) => {
                let undo = self.model.undo(name);
                let Reply { batch, sequence, .. } = self.ask(&Request::RollBack { name: name.clone(), undo });
                self.model.rolled_back(name, batch, sequence);
            }
            Step::DropFiles(family, from, to) => {
                let request = Request::DropFiles { family: family.clone(), from: from.clone(), to: to.clone() };
                let sequence = self.ask(&request).sequence;
                let content = self.content();
                self.model.found(content, sequence);
                self.incident(Cause::OutsideWal);
            }
            Step::Archive(_) => unreachable!("a step of the archiver"),
        }
        self.notice_files();
    }

    /// After a reopen: nothing that was acknowledged may be gone; the sequence number may be lower.
    fn reopened(&mut self) -> u64 {
        let before = self.model.present().sequence;
        let sequence = self.open();
        self.model.observed(sequence);
        if sequence < before {
            self.incident(Cause::Reuse);
        }
        self.check();
        sequence
    }

    fn kill_while_writing(&mut self, ops: &[Op]) {
        let batch = self.ask(&Request::Prepare { ops: ops.to_vec(), logged: true }).batch;
        let mut process = self.process.take().expect("the database is open");
        process.send(&Request::Commit);
        process.kill();
        let (before, count) = (self.model.present().sequence, count(&batch));
        let sequence = self.open();
        let logged_at = match self.settings.transactions {
            // Its open consumed the last one.
            Some(policy) if policy != WritePolicy::WriteCommitted => sequence.saturating_sub(1),
            _ => before + count,
        };
        let written = self.content() == self.model.preview(ops) && sequence >= logged_at;
        if written {
            let batch = self.numbered(batch, logged_at);
            self.model.logged(ops, batch, logged_at);
        }
        self.model.observed(sequence);
        if sequence < before {
            self.incident(Cause::Reuse);
        }
        self.check();
    }

    /// Kills the database, opens it again and reads it. The model is not asked.
    pub fn content_after_a_kill(&mut self) -> super::model::Content {
        self.process.take().expect("the database is open").kill();
        self.open();
        self.content()
    }

    /// A batch as it is in the log: a transaction database answers with the record itself.
    fn numbered(&self, batch: Vec<u8>, last: u64) -> Vec<u8> {
        if self.settings.transactions.is_some() { batch } else { numbered(batch, last) }
    }

    /// The content as the database tells it.
    pub fn content(&mut self) -> super::model::Content {
        server::content(self.ask(&Request::Dump).content.expect("the content"))
    }

    /// The database must hold what the model says.
    pub fn check(&mut self) {
        let content = self.content();
        if content != *self.model.content() && self.shows_what_is_pending(&content) {
            self.noted.insert(BROKEN);
            return;
        }
        assert!(
            content == *self.model.content(),
            "the database differs from the model: {:?}",
            self.model.present().differences(&super::model::State { content, ..self.model.present().clone() })
        );
    }

    /// Whether the database differs from the model only in that it shows what prepared transactions would write.
    fn shows_what_is_pending(&self, content: &super::model::Content) -> bool {
        let policy = self.settings.transactions;
        let pending = &self.model.present().pending;
        let written: BTreeSet<(&str, &[u8])> = pending
            .values()
            .flat_map(|ops| ops.iter())
            .filter_map(|op| match op {
                Op::Put(family, key, _) | Op::Delete(family, key) => Some((family.as_str(), key.as_slice())),
                _ => None,
            })
            .collect();
        let model = self.model.content();
        let only = model.iter().all(|(name, family)| {
            let found = &content[name];
            let mut keys = family.keys().chain(found.keys());
            keys.all(|key| family.get(key) == found.get(key) || written.contains(&(name.as_str(), key.as_slice())))
        });
        policy.is_some_and(|policy| policy != WritePolicy::WriteCommitted) && content.keys().eq(model.keys()) && only
    }

    fn incident(&mut self, cause: Cause) {
        let incident = Incident { cause, lo: self.looked, hi: None, shipped: false };
        self.incidents.push(incident);
    }

    fn wal_files(&self) -> Vec<PathBuf> {
        let live = self.places.wals.as_ref().unwrap_or(&self.dir);
        let archived = entries(&live.join("archive"));
        entries(live).into_iter().chain(archived).filter(|p| p.extension().is_some_and(|x| x == "log")).collect()
    }

    fn notice_files(&mut self) {
        // Which of two directories holds a WAL does not matter to a reader.
        self.since.extend(self.wal_files().iter().map(|path| name(path)));
        self.manifests_since.extend(manifests(&self.dir));
    }

    /// The archiver has looked at the files.
    ///
    /// Called after its look: a WAL that went away in the background while it looked counts as unseen.
    pub fn looked(&mut self) {
        let now = self.model.records.len();
        let wals: BTreeSet<_> = self.wal_files().iter().map(|path| name(path)).collect();
        // A WAL that the archiver saw before is pinned, except where it is overwritten in place.
        let pinned = |wal: &String| self.settings.recycle == 0 && self.seen.contains(wal);
        // Of a recycled WAL nobody can tell whether more was written before it was overwritten.
        let may_hold_more = now > self.looked || self.settings.recycle > 0;
        if may_hold_more && self.since.iter().any(|wal| !wals.contains(wal) && !pinned(wal)) {
            self.incident(Cause::Unseen);
        }
        let manifests = manifests(&self.dir);
        if self.manifests_since.iter().any(|m| !manifests.contains(m) && !self.manifests_seen.contains(m)) {
            self.incident(Cause::ManifestUnseen);
        }
        for incident in &mut self.incidents {
            incident.hi.get_or_insert(now);
        }
        self.looked = now;
        self.looked_with = self.live_wal();
        self.seen = wals.clone();
        self.since = wals;
        self.manifests_seen = manifests.clone();
        self.manifests_since = manifests;
    }

    /// Everything that was seen at the last look is in the archive.
    pub fn shipped(&mut self) {
        self.shipped = self.looked;
        self.shipped_with = self.looked_with.clone();
        self.shipped_opens = self.opens;
        for incident in self.incidents.iter_mut().filter(|i| i.hi.is_some()) {
            incident.shipped = true;
        }
    }

    /// The archiver is gone: what it had seen and not shipped, it sees again, or not.
    pub fn unwatched(&mut self) {
        self.looked = self.shipped;
        for incident in self.incidents.iter_mut().filter(|i| !i.shipped) {
            incident.lo = incident.lo.min(self.shipped);
            incident.hi = None;
        }
    }

    /// No archiver watches from here on; what it saw and did not ship is forgotten.
    pub fn left(&mut self) {
        self.left_with = self.shipped_with.clone();
    }

    /// An archiver watches again. If RocksDB needs the last WAL no longer, or was opened anew, others may have come and
    /// gone unseen. It may still be there: RocksDB deletes in the background.
    pub fn watched(&mut self) {
        if let Some(wal) = self.left_with.take() {
            // Where logs can hold decisions that consume no number, nothing but file numbers tells that none was in between.
            let needed = !self.settings.allow_2pc && wal.exists();
            if !needed || self.opens > self.shipped_opens {
                self.incident(Cause::Unseen);
            }
        }
    }

    /// The WAL with the highest number that RocksDB has not archived or deleted.
    fn live_wal(&self) -> Option<PathBuf> {
        let live = entries(self.places.wals.as_ref().unwrap_or(&self.dir));
        live.into_iter().filter(|p| p.extension().is_some_and(|x| x == "log")).max()
    }

    /// Where a copy of it goes: into the directory, and its other directories beside that one.
    pub fn restore_to(&self, into: &Path) -> (RestoreOptions, Places) {
        let mut options = RestoreOptions::new(into, Nonce([1; 16]), Micros(0));
        let mut map = |old: &Option<PathBuf>, extension: &str| {
            let new = into.with_extension(extension);
            let old = old.as_ref()?.display().to_string();
            options.map_paths.push(PathMap { old, new: new.clone() });
            Some(new)
        };
        let places = Places {
            wals: map(&self.places.wals, "wals"),
            data: map(&self.places.data, "data"),
            more: map(&self.places.more, "more"),
        };
        (options, places)
    }

    /// Whether something happened that no replay can cross. Numbers of records that only a dropped column family needed
    /// look like those of writes without the log, where the archiver came later.
    pub fn has_barriers(&self) -> bool {
        !self.dropped.is_empty() || self.incidents.iter().any(|i| i.cause != Cause::ColumnFamily)
    }

    /// Closes the database.
    pub fn close(&mut self) {
        if let Some(process) = self.process.take() {
            process.close();
        }
        self.notice_files();
    }
}

/// A batch's bytes as they are in the log: with the sequence number of its first operation.
pub fn numbered(mut batch: Vec<u8>, last: u64) -> Vec<u8> {
    let first = last + 1 - count(&batch);
    batch.get_mut(..8).expect("a batch has a header").copy_from_slice(&first.to_le_bytes());
    batch
}

fn count(batch: &[u8]) -> u64 {
    let field: [u8; 4] = batch.get(8..12).expect("a batch has a header").try_into().expect("4 bytes");
    u32::from_le_bytes(field).into()
}

fn name(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}

fn manifests(dir: &Path) -> BTreeSet<PathBuf> {
    entries(dir).into_iter().filter(|path| name(path).starts_with("MANIFEST-")).collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    // A directory that is not there (`archive/`) holds nothing.
    std::fs::read_dir(dir).map(|found| found.flatten().map(|e| e.path()).collect()).unwrap_or_default()
}
