//! The bytes of WALs on their way to the disk, beside whoever makes them.
//!
//! Owns: two threads, and the order of what becomes durable: a WAL's bytes, then its name, then the checkpoint that tells of
//! it. One thread writes what comes, and lets the disk begin; the other waits for the disk, so that the next WAL
//! is written meanwhile. Memory: the pieces at hand, one on either side.
//! Refuses: to go on behind a failure. Nothing of it works any more when it is gone.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::JoinHandle,
};

use pitr_archive::{
    Code, Error, Result,
    error::io,
    ids::FileNumber,
    page_cache::{After, Outgoing},
    rocks::{file_name, log_sum::LogSum},
};

use super::{
    resume::{Checkpoint, WrittenWal},
    staging::sync_directory,
};
use crate::crash;

/// WALs that are written and not yet durable: each is an open file.
const COMPLETE: usize = 16;

/// A WAL file that is being written.
struct Wal {
    number: FileNumber,
    path: PathBuf,
    out: Outgoing,
}

enum Step {
    Begin(Box<Wal>),
    Bytes(Vec<u8>),
    /// With the sum of all its bytes.
    End(LogSum),
    /// All before is complete: the checkpoint, of which only the WALs are missing, and where it goes.
    Note(Box<(Checkpoint, PathBuf)>),
}

enum Complete {
    Wal(Box<Wal>, LogSum),
    Note(Box<(Checkpoint, PathBuf)>),
}

/// Writes WALs into a directory.
pub(crate) struct WalDisk {
    directory: PathBuf,
    /// `None` when no more is to come.
    steps: Option<SyncSender<Step>>,
    /// Pieces that were written, to be filled again.
    spare: Receiver<Vec<u8>>,
    writing: Option<JoinHandle<Result<()>>>,
    syncing: Option<JoinHandle<Result<Vec<WrittenWal>>>>,
}

impl WalDisk {
    /// Behind WALs of the directory that are there and durable. `piece`: about so many bytes come at once.
    pub fn begin(directory: &Path, before: Vec<WrittenWal>, piece: usize) -> Self {
        // Nothing waits between them: a piece can be as long as a record.
        let (steps, coming) = sync_channel(0);
        let (complete, completed) = sync_channel(COMPLETE);
        let (written, spare) = channel();
        let names = directory.to_owned();
        Self {
            directory: directory.to_owned(),
            steps: Some(steps),
            spare,
            writing: Some(std::thread::spawn(move || write(&coming, &complete, &written, piece))),
            syncing: Some(std::thread::spawn(move || sync(&completed, &names, before))),
        }
    }

    /// The next WAL; the one before has ended.
    pub fn begin_wal(&mut self, number: FileNumber) -> Result<()> {
        let path = self.directory.join(file_name::wal(number));
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(|e| io("creating the WAL", &path, e))?;
        // The server reads it next.
        let out = Outgoing::new(file, After::Kept);
        self.send(Step::Begin(Box::new(Wal { number, path, out })))
    }

    /// Its next bytes; answers with an empty buffer for those that follow.
    pub fn write(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.send(Step::Bytes(bytes))?;
        Ok(self.spare.try_recv().unwrap_or_default())
    }

    /// It is complete. `sum`: of its bytes, for whoever goes on behind it.
    pub fn end_wal(&mut self, sum: LogSum) -> Result<()> {
        self.send(Step::End(sum))
    }

    /// Puts a checkpoint at `notes`, when all WALs until now are durable: it gets their sizes and sums.
    pub fn note(&mut self, checkpoint: Checkpoint, notes: &Path) -> Result<()> {
        self.send(Step::Note(Box::new((checkpoint, notes.to_owned()))))
    }

    /// Waits until everything is durable, with the names.
    pub fn finish(mut self) -> Result<()> {
        self.join()?;
        sync_directory(&self.directory)
    }

    fn send(&mut self, step: Step) -> Result<()> {
        let sent = self.steps.as_ref().is_some_and(|steps| steps.send(step).is_ok());
        if sent {
            return Ok(());
        }
        // Whoever took the steps has failed.
        self.join()?;
        Err(Error::new(Code::Internal, "writing a WAL behind the last"))
    }

    fn join(&mut self) -> Result<()> {
        self.steps = None;
        let ended = |what: &'static str| move |_| Error::new(Code::Internal, what);
        let written = self.writing.take().map(|thread| thread.join().map_err(ended("writing WALs")).flatten());
        let synced = self.syncing.take().map(|thread| thread.join().map_err(ended("making WALs durable")).flatten());
        // Where the second fails, the first can do nothing but stop.
        synced.transpose()?;
        written.transpose()?;
        Ok(())
    }
}

impl Drop for WalDisk {
    fn drop(&mut self) {
        // Nothing is written any more when the directory goes. Whoever drops it has an error to tell, or has joined.
        let _ = self.join();
    }
}

fn write(
    steps: &Receiver<Step>,
    complete: &SyncSender<Complete>,
    written: &Sender<Vec<u8>>,
    piece: usize,
) -> Result<()> {
    let out_of_order = || Error::new(Code::Internal, "writing a WAL that has not begun");
    let mut open: Option<Box<Wal>> = None;
    for step in steps {
        let done = match step {
            Step::Begin(wal) => {
                open = Some(wal);
                continue;
            }
            Step::Bytes(mut bytes) => {
                let wal = open.as_mut().ok_or_else(out_of_order)?;
                wal.out.write(&bytes).map_err(|e| io("writing the WAL", &wal.path, e))?;
                bytes.clear();
                // One that a long record made is not kept.
                if bytes.capacity() <= 2 * piece {
                    let _ = written.send(bytes);
                }
                continue;
            }
            Step::End(sum) => {
                let mut wal = open.take().ok_or_else(out_of_order)?;
                wal.out.end();
                Complete::Wal(wal, sum)
            }
            Step::Note(note) => Complete::Note(note),
        };
        if complete.send(done).is_err() {
            // Its own error says why.
            return Ok(());
        }
    }
    Ok(())
}

fn sync(complete: &Receiver<Complete>, directory: &Path, before: Vec<WrittenWal>) -> Result<Vec<WrittenWal>> {
    let mut durable = before;
    for complete in complete {
        match complete {
            Complete::Wal(mut wal, sum) => {
                wal.out.sync().map_err(|e| io("making durable", &wal.path, e))?;
                durable.push(WrittenWal { number: wal.number, size: wal.out.written(), sum });
                crash::point("restore-wal-closed");
            }
            Complete::Note(note) => {
                // Its name, too: a checkpoint tells of it.
                sync_directory(directory)?;
                let (checkpoint, notes) = *note;
                checkpoint.telling_of(durable.clone()).put(&notes)?;
            }
        }
    }
    Ok(durable)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pitr_archive::{
        ids::{Boundary, RunningHash, TimelineId},
        rocks::{log_writer::LogWriter, transactions::Transactions},
    };

    use super::*;
    use crate::restore::{resume::Reached, wal::WalTotals};

    fn checkpoint() -> Checkpoint {
        Checkpoint::new(Reached {
            timeline: TimelineId::FIRST,
            boundary: Boundary::new(1),
            hash: RunningHash::ZERO,
            transactions: Transactions::recovering(None),
            totals: WalTotals::default(),
            seen: Vec::new(),
        })
    }

    /// A log of these records; answers its bytes.
    fn write_some(disk: &mut WalDisk, number: u64, records: &[&[u8]]) -> Vec<u8> {
        let (mut writer, mut all) = (LogWriter::new(0), Vec::new());
        disk.begin_wal(FileNumber::new(number)).unwrap();
        for record in records {
            let mut piece = Vec::new();
            writer.append(record, &mut piece);
            all.extend_from_slice(&piece);
            assert!(disk.write(piece).unwrap().is_empty());
        }
        disk.end_wal(writer.sum()).unwrap();
        all
    }

    #[test]
    fn a_checkpoint_tells_of_the_logs_before_it_as_they_are() {
        let place = tempfile::tempdir().unwrap();
        let (wals, notes) = (place.path().join("wals"), place.path().join("notes"));
        for dir in [&wals, &notes] {
            fs::create_dir(dir).unwrap();
        }
        let mut disk = WalDisk::begin(&wals, Vec::new(), 10);
        let first = write_some(&mut disk, 4, &[b"one", b"two", &[3; 300_000]]);
        write_some(&mut disk, 7, &[]);
        disk.note(checkpoint(), &notes).unwrap();
        let last = write_some(&mut disk, 9, &[&[1; 100]]);
        disk.finish().unwrap();
        assert!(fs::read(wals.join("000004.log")).unwrap() == first);
        assert!(fs::read(wals.join("000009.log")).unwrap() == last);
        // Which is only read where every log is as it says.
        let read = Checkpoint::read(&notes, &wals).unwrap();
        assert_eq!(read.files(&wals), [wals.join("000004.log"), wals.join("000007.log")]);
        let mut disk = WalDisk::begin(&wals, read.wals, 10);
        let more = write_some(&mut disk, 11, &[b"more"]);
        disk.note(checkpoint(), &notes).unwrap();
        disk.finish().unwrap();
        assert_eq!(Checkpoint::read(&notes, &wals).unwrap().wals.len(), 3);
        for at in [0, 6, 7, 10] {
            let mut changed = more.clone();
            changed[at] ^= 1;
            fs::write(wals.join("000011.log"), changed).unwrap();
            assert_eq!(Checkpoint::read(&notes, &wals), None, "byte {at}");
        }
        fs::write(wals.join("000011.log"), &more[..7]).unwrap();
        assert_eq!(Checkpoint::read(&notes, &wals), None);
    }

    #[test]
    fn whoever_goes_on_behind_a_failure_is_told_of_it() {
        let place = tempfile::tempdir().unwrap();
        let mut disk = WalDisk::begin(place.path(), Vec::new(), 10);
        write_some(&mut disk, 4, &[b"one"]);
        disk.note(checkpoint(), &place.path().join("nowhere")).unwrap();
        let failed = (5..100_000).find_map(|number| {
            disk.begin_wal(FileNumber::new(number)).and_then(|()| disk.end_wal(LogSum::default())).err()
        });
        assert!(failed.unwrap().to_string().contains("nowhere"));
        let mut disk = WalDisk::begin(place.path(), Vec::new(), 10);
        assert_eq!(disk.begin_wal(FileNumber::new(4)).unwrap_err().code(), Code::FileIo);
        write_some(&mut disk, 1_000_000, &[b"one"]);
        disk.note(checkpoint(), &place.path().join("nowhere")).unwrap();
        assert!(disk.finish().is_err());
    }
}
