//! Lays down the SST and blob files of a base.
//!
//! Owns: reading several at once with bounded memory, hashing every byte as it is written, and making durable. Each file is
//! opened, hashed and written by one thread, chunk by chunk. Objects in a local directory are read there; all others come
//! in requests from the archive. A file whose size or hash is not the base's own is an error naming the archive's object.
//! Memory: a chunk for each worker, and where it is requests, a few of them.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use pitr_archive::{
    Code, Error, Result,
    base::FileBody,
    catalog::schema::BaseFile,
    error::io,
    ids::ContentHash,
    object_key::ObjectKey,
    page_cache::{After, Hurry, Outgoing, Passing},
};
use tokio::sync::mpsc;

use super::resume::{self, Found};
use crate::{
    crash, owner,
    progress::{Phase, Progress},
};

/// Where files of bases come from.
#[async_trait]
pub(crate) trait FileSource: Send + Sync {
    /// The file's object, as far as it can be judged without reading it.
    async fn body(&self, file: &BaseFile) -> Result<FileBody>;

    /// The object as a file of this machine, if it is one.
    fn local(&self, body: &FileBody) -> Option<PathBuf>;

    /// Some of its chunks, as they are stored.
    async fn fetch(&self, body: &FileBody, chunks: Range<u64>) -> Result<Bytes>;
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
    let mut laid: Vec<(Outgoing, PathBuf)> = Vec::new();
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
            // Those that are on their way are waited for, whatever comes of it.
            if let Err(e) = sync_all(std::mem::take(&mut laid), workers).await {
                failed.get_or_insert(give_up.because(e));
            }
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
    file: Outgoing,
    path: PathBuf,
    size: u64,
    /// It was there already.
    reused: bool,
}

async fn one(source: &dyn FileSource, job: Job, found: Found, give_up: &GiveUp) -> Result<Laid> {
    give_up.check()?;
    let size = job.file.size;
    if found != Found::Nothing {
        let job = job.clone();
        if let Some((file, path)) = blocking(move || already_there(&job)).await? {
            return Ok(Laid { file, path, size, reused: true });
        }
    }
    let to = job.to.clone();
    let (file, path) = lay(source, job, give_up).await.map_err(|e| not_believed(&to, e))?;
    Ok(Laid { file, path, size, reused: false })
}

async fn lay(source: &dyn FileSource, job: Job, give_up: &GiveUp) -> Result<(Outgoing, PathBuf)> {
    let body = Arc::new(source.body(&job.file).await?);
    match source.local(&body) {
        Some(from) => {
            let give_up = give_up.clone();
            blocking(move || lay_local(&from, &body, &job, &give_up)).await
        }
        None => {
            let (sender, receiver) = mpsc::channel(2);
            let writing = blocking({
                let body = body.clone();
                move || lay_fetched(receiver, &body, &job)
            });
            let reading = async move {
                let mut next = body.fetched_from(0);
                while !next.is_empty() {
                    let stored = source.fetch(&body, next.clone()).await?;
                    give_up.check()?;
                    // The writer has given up; its own error says why.
                    if sender.send((next.start, stored)).await.is_err() {
                        break;
                    }
                    next = body.fetched_from(next.end);
                }
                Ok(())
            };
            // A read error drops the sender early: the writer then sees a short file, but the cause is reported.
            let (read, written) = futures::join!(reading, writing);
            read.and(written)
        }
    }
}

/// A file that an interrupted restore has laid down, if every byte of it is right. Another one is removed.
fn already_there(job: &Job) -> Result<Option<(Outgoing, PathBuf)>> {
    let is_file = std::fs::symlink_metadata(&job.to).is_ok_and(|what| what.is_file());
    if is_file && resume::is(&job.to, job.file.size, job.file.hash) {
        // That attempt may have been for another owner.
        owner::take_back(&job.to)?;
        let file = File::open(&job.to).map_err(|e| io("opening", &job.to, e))?;
        return Ok(Some((Outgoing::new(file, After::Kept), job.to.clone())));
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

fn lay_local(from: &Path, body: &FileBody, job: &Job, give_up: &GiveUp) -> Result<(Outgoing, PathBuf)> {
    let failed = |e| io("reading the archive's file", from, e);
    let source = File::open(from).map_err(|e| match e.kind() {
        ErrorKind::NotFound => missing(&job.file).because(e),
        _ => failed(e),
    })?;
    let mut source = Passing::new(source, Hurry::Ahead).beginning_at(body.range(0..0).start);
    let mut writer = Writer::create(job)?;
    let mut buffer = vec![0; body.stored_chunk()];
    for chunk in 0..body.chunks() {
        give_up.check()?;
        let range = body.range(chunk..chunk + 1);
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let stored = buffer.get_mut(..length).ok_or_else(|| writer.damaged("chunk", body.stored_chunk(), length))?;
        source.read_exact(stored).map_err(failed)?;
        writer.write(body.open(chunk, stored)?)?;
    }
    writer.finish()
}

/// Each of what comes begins with the chunk of the number with it.
fn lay_fetched(mut fetched: mpsc::Receiver<(u64, Bytes)>, body: &FileBody, job: &Job) -> Result<(Outgoing, PathBuf)> {
    let mut writer = Writer::create(job)?;
    while let Some((first, stored)) = fetched.blocking_recv() {
        let mut stored = BytesMut::from(stored);
        for (chunk, stored) in (first..).zip(stored.chunks_mut(body.stored_chunk())) {
            writer.write(body.open(chunk, stored)?)?;
        }
    }
    writer.finish()
}

struct Writer<'a> {
    job: &'a Job,
    out: Outgoing,
    hasher: blake3::Hasher,
}

impl<'a> Writer<'a> {
    fn create(job: &'a Job) -> Result<Self> {
        let file =
            OpenOptions::new().write(true).create_new(true).open(&job.to).map_err(|e| io("creating", &job.to, e))?;
        Ok(Self { job, out: Outgoing::new(file, After::GivenBack), hasher: blake3::Hasher::new() })
    }

    fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.hasher.update(piece);
        self.out.write(piece).map_err(|e| io("writing", &self.job.to, e))?;
        if self.out.written() > self.job.file.size {
            return Err(self.damaged("size", self.job.file.size, format!("at least {}", self.out.written())));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(Outgoing, PathBuf)> {
        if self.out.written() != self.job.file.size {
            return Err(self.damaged("size", self.job.file.size, self.out.written()));
        }
        let hash = ContentHash(*self.hasher.finalize().as_bytes());
        if hash != self.job.file.hash {
            return Err(self.damaged("hash", self.job.file.hash, hash));
        }
        self.out.end();
        Ok((self.out, self.job.to.clone()))
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

async fn sync_all(files: Vec<(Outgoing, PathBuf)>, workers: usize) -> Result<()> {
    let sync = |(file, path): (Outgoing, PathBuf)| blocking(move || durable(file, &path));
    let synced: Vec<Result<()>> =
        futures::stream::iter(files.into_iter().map(sync)).buffer_unordered(workers).collect().await;
    synced.into_iter().collect()
}

/// A file of which the system said once that it could not be written is not believed any more: its bytes are still read as they
/// should be, from memory, and the next request to make it durable finds nothing left to write. It is laid down anew.
fn durable(mut file: Outgoing, path: &Path) -> Result<()> {
    file.sync().map_err(|e| not_believed(path, io("making durable", path, e)))
}

/// Removes what could not be laid down: writing tells of failed writing back, too, and tells it once.
fn not_believed(path: &Path, e: Error) -> Error {
    match std::fs::remove_file(path) {
        Err(stays) if stays.kind() != ErrorKind::NotFound => e.with("it cannot be removed and must not be used", stays),
        _ => e,
    }
}
