//! Lays down the SST and blob files of a base.
//!
//! Owns: reading several at once with bounded memory, hashing every byte on its way, writing, and making durable.
//! Files of an unencrypted archive in a local directory are read directly; everything else comes in pieces from the
//! archive. A file whose size or hash is not the base's own is an error naming the archive's object.
//! Memory: a few pieces for each worker.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use pitr_archive::{
    Code, Error, Result, catalog::schema::BaseFile, error::io, ids::ContentHash, object_key::ObjectKey,
};
use tokio::sync::mpsc;

use super::resume::{self, Found};
use crate::{
    crash,
    progress::{Phase, Progress},
};

/// Large enough that a system call does not count, small enough that what several workers read stays in the second-level
/// cache of their core until it is hashed and written: with 512 KiB a restore took a fifth longer.
const PIECE: usize = 128 * 1024;

/// Writing back begins when this much is dirty, so that the disk works while the next file is read.
const WRITE_BACK: u64 = 16 << 20;

/// The contents of one file, piece by piece.
#[async_trait]
pub(crate) trait Pieces: Send {
    /// The next piece, or `None` at the end. Authenticity is checked; the file's own hash is the caller's.
    async fn next(&mut self) -> Result<Option<Bytes>>;
}

/// Where files of bases come from.
#[async_trait]
pub(crate) trait FileSource: Send + Sync {
    /// The object as a plain file of this machine, if it is one and its bytes are the file's own.
    fn local(&self, file: &BaseFile) -> Option<PathBuf>;

    /// The file's contents from the archive.
    async fn open<'a>(&'a self, file: &'a BaseFile) -> Result<Box<dyn Pieces + 'a>>;
}

/// Tells the parts of a restore that another one has failed. All of them are waited for before anything is removed:
/// a thread that still writes would otherwise bring back what was just deleted.
#[derive(Clone, Debug, Default)]
pub(crate) struct GiveUp(Arc<AtomicBool>);

impl GiveUp {
    /// Gives up; `e` is passed on.
    pub fn because(&self, e: Error) -> Error {
        self.0.store(true, Ordering::Relaxed);
        e
    }

    /// An error that only says that another one is to be reported.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::new(Code::Interrupted, "restoring")) } else { Ok(()) }
    }
}

/// A file and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub file: BaseFile,
    pub to: PathBuf,
}

/// Lays down every file, `workers` at a time, verified and durable; answers how many bytes were there already. Directory
/// entries are made durable by the caller.
pub(crate) async fn lay_down(
    source: &dyn FileSource,
    mut jobs: Vec<Job>,
    workers: usize,
    found: Found,
    give_up: &GiveUp,
    progress: &dyn Progress,
) -> Result<u64> {
    // The largest first: the last one alone would otherwise keep one worker busy while the others wait.
    jobs.sort_by(|a, b| b.file.size.cmp(&a.file.size).then_with(|| a.file.name.cmp(&b.file.name)));
    let workers = workers.max(1);
    progress.begin(Phase::Base, Some(jobs.iter().map(|j| j.file.size).sum()));
    let mut laid: Vec<(File, PathBuf)> = Vec::new();
    let mut running =
        futures::stream::iter(jobs.into_iter().map(|job| one(source, job, found, give_up))).buffer_unordered(workers);
    let (mut failed, mut reused) = (None, 0);
    while let Some(outcome) = running.next().await {
        match outcome {
            Ok(Laid { file, path, size, reused: already }) => {
                reused += if already { size } else { 0 };
                crash::point("restore-file-laid");
                progress.advance(Phase::Base, size);
                laid.push((file, path));
            }
            Err(e) => {
                failed.get_or_insert(give_up.because(e));
            }
        }
        // Descriptors are a limited resource; syncing in groups lets the file system combine its commits.
        if laid.len() >= 256 && failed.is_none() {
            sync_all(std::mem::take(&mut laid), workers).await.map_err(|e| give_up.because(e))?;
        }
    }
    if let Some(e) = failed {
        return Err(e);
    }
    sync_all(laid, workers).await?;
    progress.end(Phase::Base);
    Ok(reused)
}

/// A file in its place, not yet durable.
struct Laid {
    file: File,
    path: PathBuf,
    size: u64,
    /// It was there already.
    reused: bool,
}

async fn one(source: &dyn FileSource, job: Job, found: Found, give_up: &GiveUp) -> Result<Laid> {
    give_up.check()?;
    let size = job.file.size;
    if found == Found::Files {
        let job = job.clone();
        if let Some((file, path)) = blocking(move || already_there(&job)).await? {
            return Ok(Laid { file, path, size, reused: true });
        }
    }
    let (file, path) = match source.local(&job.file) {
        Some(from) => {
            let give_up = give_up.clone();
            blocking(move || copy_local(&from, &job, &give_up)).await?
        }
        None => {
            let file = job.file.clone();
            let mut pieces = source.open(&file).await?;
            let (sender, receiver) = mpsc::channel::<Bytes>(2);
            let writing = blocking(move || write_pieces(receiver, &job));
            let reading = async move {
                while let Some(piece) = pieces.next().await? {
                    give_up.check()?;
                    // The writer has given up; its own error says why.
                    if sender.send(piece).await.is_err() {
                        break;
                    }
                }
                Ok(())
            };
            // A read error drops the sender early: the writer then sees a short file, but the cause is reported.
            let (read, written) = futures::join!(reading, writing);
            read?;
            written?
        }
    };
    Ok(Laid { file, path, size, reused: false })
}

/// A file that an interrupted restore has laid down, if every byte of it is right. Another one is removed.
fn already_there(job: &Job) -> Result<Option<(File, PathBuf)>> {
    if resume::is(&job.to, job.file.size, job.file.hash)? {
        let file = File::open(&job.to).map_err(|e| io("opening", &job.to, e))?;
        return Ok(Some((file, job.to.clone())));
    }
    match std::fs::remove_file(&job.to) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(io("removing", &job.to, e)),
        _ => Ok(None),
    }
}

/// Runs what blocks on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::new(Code::Internal, "running a worker").because(e))?
}

fn copy_local(from: &Path, job: &Job, give_up: &GiveUp) -> Result<(File, PathBuf)> {
    let mut source = File::open(from).map_err(|e| match e.kind() {
        ErrorKind::NotFound => missing(&job.file).because(e),
        _ => io("reading the archive's file", from, e),
    })?;
    let mut writer = Writer::create(job)?;
    let mut buffer = vec![0; PIECE];
    loop {
        give_up.check()?;
        match source.read(&mut buffer) {
            Ok(0) => return writer.finish(),
            Ok(n) => writer.write(buffer.get(..n).unwrap_or_default())?,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(io("reading the archive's file", from, e)),
        }
    }
}

fn write_pieces(mut pieces: mpsc::Receiver<Bytes>, job: &Job) -> Result<(File, PathBuf)> {
    let mut writer = Writer::create(job)?;
    while let Some(piece) = pieces.blocking_recv() {
        writer.write(&piece)?;
    }
    writer.finish()
}

struct Writer<'a> {
    job: &'a Job,
    file: File,
    hasher: blake3::Hasher,
    written: u64,
    kicked: u64,
}

impl<'a> Writer<'a> {
    fn create(job: &'a Job) -> Result<Self> {
        let file =
            OpenOptions::new().write(true).create_new(true).open(&job.to).map_err(|e| io("creating", &job.to, e))?;
        Ok(Self { job, file, hasher: blake3::Hasher::new(), written: 0, kicked: 0 })
    }

    fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.hasher.update(piece);
        self.file.write_all(piece).map_err(|e| io("writing", &self.job.to, e))?;
        self.written += piece.len() as u64;
        if self.written > self.job.file.size {
            return Err(self.damaged("size", self.job.file.size, format!("at least {}", self.written)));
        }
        if self.written - self.kicked >= WRITE_BACK {
            start_write_back(&self.file, self.kicked, self.written - self.kicked);
            self.kicked = self.written;
        }
        Ok(())
    }

    fn finish(self) -> Result<(File, PathBuf)> {
        if self.written != self.job.file.size {
            return Err(self.damaged("size", self.job.file.size, self.written));
        }
        let hash = ContentHash(*self.hasher.finalize().as_bytes());
        if hash != self.job.file.hash {
            return Err(self.damaged("hash", self.job.file.hash, hash));
        }
        start_write_back(&self.file, self.kicked, self.written - self.kicked);
        Ok((self.file, self.job.to.clone()))
    }

    fn damaged(&self, what: &'static str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
        Error::new(Code::ObjectDamaged, "laying down the base's file")
            .on(ObjectKey::file(&self.job.file.object))
            .with("file", &self.job.file.name)
            .with("checked", what)
            .with("expected", expected)
            .with("found", found)
    }
}

/// The error for an object of a base that is not there.
pub(crate) fn missing(file: &BaseFile) -> Error {
    Error::new(Code::ObjectMissing, "laying down the base's file")
        .on(ObjectKey::file(&file.object))
        .with("file", &file.name)
}

/// A hint: whether or not the kernel takes it, `sync_all` comes later.
fn start_write_back(file: &File, from: u64, length: u64) {
    use std::os::fd::AsRawFd;
    if let (Ok(from), Ok(length)) = (i64::try_from(from), i64::try_from(length)) {
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches no memory of ours.
        unsafe {
            libc::sync_file_range(file.as_raw_fd(), from, length, libc::SYNC_FILE_RANGE_WRITE);
        }
    }
}

async fn sync_all(files: Vec<(File, PathBuf)>, workers: usize) -> Result<()> {
    let sync =
        |(file, path): (File, PathBuf)| blocking(move || file.sync_all().map_err(|e| io("making durable", &path, e)));
    futures::stream::iter(files.into_iter().map(sync)).buffer_unordered(workers).try_collect::<Vec<()>>().await?;
    Ok(())
}
