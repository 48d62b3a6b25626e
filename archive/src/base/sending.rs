//! A file on its way into the archive.
//!
//! Owns: what follows what. A step reads a chunk, hashes it and seals it, on a thread that may wait for a disk and where the
//! chunk stays in the processor's cache from one to the next. The chunk before it is on its way to the store meanwhile. The
//! steps of one file follow one another, beside those of other files.
//! Memory: a chunk for the step and one that the store is given, beside what the store holds; buffers are used again as soon
//! as it needs them no longer.
//! Refuses: a file whose length is not the announced one.

use std::{
    fmt,
    io::{self, Read},
    sync::{Arc, mpsc},
};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::{CHUNK, Seal, WRITING, chunk_aad};
use crate::{
    cipher::{Purpose, TAG_LEN},
    code::Code,
    error::{Error, Result},
    ids::ContentHash,
    layout::Family,
    object_key::ObjectKey,
    rate::{Class, Rate},
    store::Upload,
};

/// Where a file's bytes come from, once and from front to back. Dropped as soon as the last of them is read, which is
/// before all of them are durable in the archive.
pub struct Source {
    bytes: Box<dyn Read + Send>,
    rate: Option<Arc<Rate>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("rate", &self.rate).finish_non_exhaustive()
    }
}

impl Source {
    /// These bytes, read by threads that may wait.
    pub fn new(bytes: impl Read + Send + 'static) -> Self {
        Self { bytes: Box::new(bytes), rate: None }
    }

    /// The same, read no faster than this, if there is a limit.
    #[must_use]
    pub fn no_faster_than(self, rate: Option<Arc<Rate>>) -> Self {
        Self { rate, ..self }
    }
}

/// A file that is being read.
struct Reading {
    key: ObjectKey,
    source: Source,
    seal: Option<Arc<Seal>>,
    hasher: blake3::Hasher,
    size: u64,
    left: u64,
    chunk: u64,
}

/// What follows a step.
enum Then {
    Another(Box<Reading>),
    /// Everything was read.
    Done(ContentHash),
}

impl Reading {
    /// Bytes of the next chunk.
    fn want(&self) -> usize {
        usize::try_from(self.left.min(CHUNK as u64)).unwrap_or(CHUNK)
    }

    /// Reads, hashes and seals the next chunk in `piece`, whatever that holds.
    async fn step(self: Box<Self>, piece: Vec<u8>) -> Result<(Vec<u8>, Then)> {
        if let Some(rate) = &self.source.rate {
            rate.until_paid(Class::Rest).await;
        }
        let stepped = spawn_blocking(move || self.step_here(piece)).await;
        stepped.unwrap_or_else(|e| Err(Error::new(Code::Internal, WRITING).because(e)))
    }

    fn step_here(mut self: Box<Self>, mut piece: Vec<u8>) -> Result<(Vec<u8>, Then)> {
        let want = self.want();
        piece.resize(want, 0);
        let got = self.fill(&mut piece)?;
        if got < want {
            return Err(self.of_another_length("file-ends-at", self.size - self.left + got as u64));
        }
        self.hasher.update(&piece);
        self.left -= got as u64;
        if let Some(seal) = &self.seal {
            let aad = chunk_aad(&self.key, &seal.header, self.chunk + 1 == seal.chunks);
            seal.cipher
                .seal("a chunk", Purpose::Chunk, self.chunk, &aad, &mut piece, 0)
                .map_err(|e| e.on(Family::Object, WRITING, &self.key))?;
        }
        self.chunk += 1;
        if self.left > 0 {
            return Ok((piece, Then::Another(self)));
        }
        if self.fill(&mut [0])? > 0 {
            return Err(self.of_another_length("found", "more bytes"));
        }
        Ok((piece, Then::Done(ContentHash(*self.hasher.finalize().as_bytes()))))
    }

    /// Reads until `buffer` is full or the file ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.bytes.read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::new(Code::FileIo, WRITING).on(&self.key).because(e)),
            }
        }
        if let Some(rate) = &self.source.rate {
            rate.charge(Class::Rest, filled as u64);
        }
        Ok(filled)
    }

    fn of_another_length(&self, what: &'static str, found: impl fmt::Display) -> Error {
        Error::new(Code::BaseUnobtainable, WRITING).on(&self.key).with("size", self.size).with(what, found)
    }
}

/// A buffer that comes back when nobody holds any part of it.
struct Lent {
    buffer: Vec<u8>,
    back: mpsc::Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Nobody wants it any more once the file is sent.
        let _ = self.back.send(std::mem::take(&mut self.buffer));
    }
}

/// Sends a file of `size` bytes; answers the hash of them.
pub(super) async fn send(
    key: &ObjectKey,
    size: u64,
    source: Source,
    seal: Option<Seal>,
    upload: &mut dyn Upload,
) -> Result<ContentHash> {
    let seal = seal.map(Arc::new);
    if let Some(seal) = &seal {
        upload.write(Bytes::copy_from_slice(&seal.header)).await?;
    }
    // Holds as many buffers as were lent, which is what the store held at once.
    let (back, free) = mpsc::channel::<Vec<u8>>();
    let reading = Reading { key: key.clone(), source, seal, hasher: blake3::Hasher::new(), size, left: size, chunk: 0 };
    let buffer = Vec::with_capacity(reading.want() + TAG_LEN);
    let mut stepped = Box::new(reading).step(buffer).await?;
    loop {
        let (buffer, then) = stepped;
        let piece = Bytes::from_owner(Lent { buffer, back: back.clone() });
        match then {
            Then::Another(reading) => {
                let buffer = free.try_recv().unwrap_or_else(|_| Vec::with_capacity(reading.want() + TAG_LEN));
                ((), stepped) = futures::try_join!(upload.write(piece), reading.step(buffer))?;
            }
            Then::Done(hash) => {
                if !piece.is_empty() {
                    upload.write(piece).await?;
                }
                return Ok(hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Cursor, num::NonZeroU64, time::Duration};

    use async_trait::async_trait;
    use tokio::time::Instant;

    use super::*;
    use crate::store::Put;

    /// Keeps all bytes, and the last few pieces themselves.
    #[derive(Default)]
    struct Slow {
        body: Vec<u8>,
        held: Vec<Bytes>,
        fails_at: Option<usize>,
    }

    #[async_trait]
    impl Upload for Slow {
        async fn write(&mut self, piece: Bytes) -> Result<()> {
            tokio::task::yield_now().await;
            if self.fails_at.is_some_and(|at| self.body.len() >= at) {
                return Err(Error::new(Code::StoreUnavailable, "writing"));
            }
            self.body.extend_from_slice(&piece);
            self.held.push(piece);
            if self.held.len() > 2 {
                self.held.remove(0);
            }
            // What the store still holds is not written over meanwhile.
            let behind = self.body.len() - self.held.iter().map(Bytes::len).sum::<usize>();
            assert!(self.held.concat() == self.body[behind..]);
            Ok(())
        }

        async fn finish(self: Box<Self>) -> Result<Put> {
            Ok(Put::Created)
        }

        async fn abort(self: Box<Self>) -> Result<()> {
            Ok(())
        }
    }

    /// Gives out little at a time, with interruptions.
    struct Halting(Cursor<Vec<u8>>, bool);

    impl Read for Halting {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let some = buffer.len().min(70_001);
            self.0.read(&mut buffer[..some])
        }
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8).collect()
    }

    fn halting(bytes: Vec<u8>) -> Source {
        Source::new(Halting(Cursor::new(bytes), false))
    }

    fn key() -> ObjectKey {
        ObjectKey::file("01")
    }

    #[tokio::test]
    async fn every_byte_goes_once_in_order_however_the_source_gives_it() {
        for length in [0, 1, CHUNK - 1, CHUNK, 7 * CHUNK + 17] {
            let (bytes, mut upload) = (bytes(length), Slow::default());
            let hash = send(&key(), length as u64, halting(bytes.clone()), None, &mut upload).await.unwrap();
            assert!(upload.body == bytes, "{length}");
            assert_eq!(hash.0, *blake3::hash(&bytes).as_bytes());
        }
    }

    #[tokio::test]
    async fn a_file_of_another_length_is_refused() {
        for size in [CHUNK as u64 - 1, CHUNK as u64 + 1, 0] {
            let e = send(&key(), size, halting(bytes(CHUNK)), None, &mut Slow::default()).await.unwrap_err();
            assert_eq!(e.code(), Code::BaseUnobtainable, "{size}");
        }
    }

    #[tokio::test]
    async fn what_the_store_answers_is_passed_on() {
        let mut upload = Slow { fails_at: Some(2 * CHUNK), ..Slow::default() };
        let size = 5 * CHUNK;
        let e = send(&key(), size as u64, halting(bytes(size)), None, &mut upload).await.unwrap_err();
        assert_eq!(e.code(), Code::StoreUnavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_read_no_faster_than_the_limit() {
        let rate = Arc::new(Rate::new(NonZeroU64::new(CHUNK as u64).unwrap()));
        let size = 10 * CHUNK;
        let source = Source::new(Cursor::new(bytes(size))).no_faster_than(Some(rate));
        let start = Instant::now();
        send(&key(), size as u64, source, None, &mut Slow::default()).await.unwrap();
        // Of what one second leaves the first is free, and the last piece is paid by whoever reads next.
        assert!(start.elapsed() >= Duration::from_secs(8), "{:?}", start.elapsed());
    }
}
