//! A base's file on its way into the store.
//!
//! Owns: reading on a thread that may wait for a disk, a piece at a time, no faster than the limit, and without leaving
//! pages in memory that were not there ([`crate::page_cache`]). Memory: one piece.

use std::{
    fs::File,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt as _, future::BoxFuture};
use pitr_archive::rate::{Class, Rate};
use tokio::io::{AsyncRead, ReadBuf};

use crate::page_cache::Passing;

/// Read at once: sequential speed without reading ahead.
const PIECE: usize = 1 << 20;

/// The file, a buffer, and how much of it is filled.
type Piece = (Passing, Vec<u8>, usize);

/// A file that is read once.
pub(super) struct PassingBy {
    state: State,
    read_rate: Option<Arc<Rate>>,
}

enum State {
    Idle(Option<Passing>),
    /// What was read, and how much of it was given out.
    Filled(Piece, usize),
    Reading(BoxFuture<'static, io::Result<Piece>>),
}

impl PassingBy {
    /// From the beginning of `file`.
    pub(super) fn new(file: File, read_rate: Option<Arc<Rate>>) -> Self {
        Self { state: State::Idle(Some(Passing::new(file))), read_rate }
    }

    fn start(&self, mut passing: Passing, mut buffer: Vec<u8>) -> State {
        let rate = self.read_rate.clone();
        State::Reading(
            async move {
                buffer.resize(PIECE, 0);
                if let Some(rate) = &rate {
                    rate.until_paid(Class::Rest).await;
                }
                let read = tokio::task::spawn_blocking(move || {
                    let read = passing.read(&mut buffer)?;
                    if let Some(rate) = rate {
                        rate.charge(Class::Rest, read as u64);
                    }
                    Ok((passing, buffer, read))
                });
                read.await.unwrap_or_else(|e| Err(io::Error::other(e)))
            }
            .boxed(),
        )
    }
}

impl AsyncRead for PassingBy {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let state = std::mem::replace(&mut self.state, State::Idle(None));
            self.state = match state {
                State::Idle(Some(passing)) => self.start(passing, Vec::new()),
                // Only after an error, which was told.
                State::Idle(None) => return Poll::Ready(Err(io::Error::other("reading on after an error"))),
                State::Filled((passing, buffer, filled), given) if given < filled => {
                    let piece = buffer.get(given..filled).unwrap_or_default();
                    let now = piece.len().min(out.remaining());
                    out.put_slice(piece.get(..now).unwrap_or_default());
                    self.state = State::Filled((passing, buffer, filled), given + now);
                    return Poll::Ready(Ok(()));
                }
                State::Filled((passing, buffer, _), _) => self.start(passing, buffer),
                State::Reading(mut reading) => match reading.poll_unpin(context) {
                    Poll::Pending => {
                        self.state = State::Reading(reading);
                        return Poll::Pending;
                    }
                    Poll::Ready(piece) => {
                        let (passing, buffer, filled) = piece?;
                        if filled == 0 {
                            self.state = State::Filled((passing, buffer, 0), 0);
                            return Poll::Ready(Ok(()));
                        }
                        State::Filled((passing, buffer, filled), 0)
                    }
                },
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use tokio::{io::AsyncReadExt as _, time::Instant};

    use super::*;

    fn file(bytes: &[u8]) -> File {
        use std::io::Write as _;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[tokio::test]
    async fn every_byte_comes_once_in_order_whatever_the_reader_s_buffer() {
        for length in [0, 1, PIECE - 1, PIECE, 3 * PIECE + 17] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut source = PassingBy::new(file(&bytes), None);
            let mut read = Vec::new();
            let mut buffer = vec![0; 70_001];
            loop {
                let n = source.read(&mut buffer).await.unwrap();
                if n == 0 {
                    break;
                }
                read.extend_from_slice(&buffer[..n]);
            }
            assert!(read == bytes, "{length}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_read_no_faster_than_the_limit() {
        let rate = Arc::new(Rate::new(NonZeroU64::new(PIECE as u64).unwrap()));
        let mut source = PassingBy::new(file(&vec![1; 10 * PIECE]), Some(rate));
        let start = Instant::now();
        assert_eq!(source.read_to_end(&mut Vec::new()).await.unwrap(), 10 * PIECE);
        assert!(start.elapsed().as_secs() >= 9, "{:?}", start.elapsed());
    }
}
