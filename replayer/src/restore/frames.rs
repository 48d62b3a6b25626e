//! Frames of segments on their way to whoever replays them: opened beside one another, handed over in their order.
//!
//! Owns: the threads, and how many plain bytes there are of frames that are being opened or wait; a frame that is longer
//! than all of that is alone. A frame proves itself; what is proven of a whole segment, whoever reads its entries compares.
//! Refuses: to hand over anything behind a frame that could not be opened.

use std::sync::Arc;

use bytes::Bytes;
use pitr_archive::{
    Code, Error, Result,
    segment::reader::{ProvenFrame, SegmentIndex, SegmentReader},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::files::GiveUp;
use crate::plan::PlannedSegment;

/// Plain bytes of frames that are ahead of whoever replays them: for each thread, and in all. With many more, memory that one
/// frame leaves goes back to the system before the next one needs it.
const FOR_EACH: u32 = 2 << 20;
const AT_MOST: u32 = 16 << 20;
/// Segments and frames that wait; what frames take is bounded by their bytes.
const WAITING: usize = 128;

/// A segment, or what is wanted of it.
#[derive(Debug)]
pub(crate) enum Fetched {
    Whole(SegmentReader),
    /// Frames as they are stored, with their numbers.
    Frames(SegmentIndex, Vec<(usize, Bytes)>),
}

impl Fetched {
    /// How many frames it has.
    fn count(&self) -> usize {
        match self {
            Self::Whole(reader) => reader.frame_count(),
            Self::Frames(_, frames) => frames.len(),
        }
    }

    /// Plain bytes of its `nth` frame.
    fn plain(&self, nth: usize) -> u32 {
        let (footer, number) = match self {
            Self::Whole(reader) => (reader.footer(), Some(nth)),
            Self::Frames(index, frames) => (index.footer(), frames.get(nth).map(|(number, _)| *number)),
        };
        let frame = number.and_then(|number| footer.frames.get(number));
        frame.map_or(u32::MAX, |frame| frame.plain)
    }

    fn open(&self, nth: usize) -> Result<ProvenFrame> {
        match self {
            Self::Whole(reader) => reader.frame(nth),
            Self::Frames(index, frames) => match frames.get(nth) {
                Some((number, stored)) => index.frame(*number, stored),
                None => Err(Error::new(Code::Internal, "opening frames of").on(index.key()).with("frame", nth)),
            },
        }
    }
}

enum Item {
    Segment(PlannedSegment, Arc<Fetched>),
    Frame(oneshot::Receiver<Result<ProvenFrame>>, OwnedSemaphorePermit),
}

/// A way for the frames of segments that are given to [`Opening::run`] in their order.
pub(crate) fn ahead() -> (Opening, Frames) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let bytes = u32::try_from(threads).unwrap_or(u32::MAX).saturating_mul(FOR_EACH).min(AT_MOST);
    limited(threads, bytes)
}

/// On so many threads, with so many plain bytes at most.
fn limited(threads: usize, bytes: u32) -> (Opening, Frames) {
    let (sender, items) = mpsc::channel(WAITING);
    (Opening { items: sender, threads, bytes }, Frames { items, held: None })
}

/// Opens frames.
pub(crate) struct Opening {
    items: mpsc::Sender<Item>,
    threads: usize,
    bytes: u32,
}

impl Opening {
    /// Opens the frames of every segment that comes, until nobody takes them any more.
    pub async fn run(self, mut segments: mpsc::Receiver<(PlannedSegment, Fetched)>, give_up: &GiveUp) -> Result<()> {
        let room = Arc::new(Semaphore::new(self.bytes as usize));
        let threads = Arc::new(Semaphore::new(self.threads));
        let ended = |e| Error::new(Code::Internal, "opening frames").because(e);
        while let Some((planned, fetched)) = segments.recv().await {
            give_up.check()?;
            let fetched = Arc::new(fetched);
            if self.items.send(Item::Segment(planned, fetched.clone())).await.is_err() {
                return Ok(());
            }
            for nth in 0..fetched.count() {
                // In the order of the frames: the next one to be replayed never waits for room behind a later one.
                let plain = fetched.plain(nth).clamp(1, self.bytes);
                let taken = room.clone().acquire_many_owned(plain).await.map_err(ended)?;
                let thread = threads.clone().acquire_owned().await.map_err(ended)?;
                let (opened, frame) = oneshot::channel();
                if self.items.send(Item::Frame(frame, taken)).await.is_err() {
                    return Ok(());
                }
                let fetched = fetched.clone();
                tokio::task::spawn_blocking(move || {
                    // Where nobody waits for it, the replay has failed, and says why.
                    let _ = opened.send(fetched.open(nth));
                    drop((thread, fetched));
                });
            }
        }
        Ok(())
    }
}

/// Takes what was opened, in order.
pub(crate) struct Frames {
    items: mpsc::Receiver<Item>,
    /// Room that the frame takes which was handed over last.
    held: Option<OwnedSemaphorePermit>,
}

impl Frames {
    /// The next segment, when all frames of the one before were taken; `None` behind the last.
    pub fn segment(&mut self) -> Result<Option<(PlannedSegment, Arc<Fetched>)>> {
        match self.take() {
            None => Ok(None),
            Some(Item::Segment(planned, fetched)) => Ok(Some((planned, fetched))),
            Some(Item::Frame(..)) => Err(Error::new(Code::Internal, "replaying").with("found", "a frame too many")),
        }
    }

    /// The segment's next frame. The one before is not there any more.
    pub fn frame(&mut self) -> Result<ProvenFrame> {
        match self.take() {
            Some(Item::Frame(opening, held)) => {
                self.held = Some(held);
                let opened = opening.blocking_recv();
                opened.map_err(|e| Error::new(Code::Internal, "opening a frame").because(e))?
            }
            // Reading has failed, and says why.
            _ => Err(Error::new(Code::Interrupted, "replaying")),
        }
    }

    fn take(&mut self) -> Option<Item> {
        self.held = None;
        self.items.blocking_recv()
    }
}

#[cfg(test)]
mod tests {
    use pitr_archive::{
        clock::Micros,
        ids::{ArchiveId, Boundary, Epoch, FileNumber, Ordinal, Ordinals, RunningHash, SequenceNumber, TimelineId},
        keyring::Keyring,
        random::{Random as _, SeededRandom},
        segment::{
            entry::{Entry, Event, Record},
            envelope::Level,
            reader::{Wanted, tail_range},
            writer::{RecordSequences, SegmentBuilder, SegmentStart},
        },
    };

    use super::*;

    const LIMIT: u32 = 700_000;

    const WANTED: Wanted =
        Wanted { archive: ArchiveId([1; 16]), timeline: TimelineId::FIRST, ordinals: Ordinals::one(Ordinal::new(1)) };

    fn opened(body: Bytes) -> SegmentReader {
        SegmentReader::open(&WANTED, body, &Keyring::none()).unwrap()
    }

    fn segment(lengths: &[usize]) -> (PlannedSegment, SegmentReader) {
        let (planned, body) = stored(lengths);
        (planned, opened(body))
    }

    /// A segment whose records have so many bytes.
    fn stored(lengths: &[usize]) -> (PlannedSegment, Bytes) {
        let start = SegmentStart {
            archive: WANTED.archive,
            timeline: WANTED.timeline,
            ordinal: WANTED.ordinals.first(),
            epoch: Epoch::new(1),
            first: Boundary::START,
            hash_before: RunningHash::ZERO,
            last_sequence: SequenceNumber::default(),
            wal: None,
        };
        let random = SeededRandom::new(3);
        let mut builder = SegmentBuilder::new(start, &Keyring::none(), &random, Level::default()).unwrap();
        builder.push_event(&Event::WalStarted { wal: FileNumber::new(4) }).unwrap();
        let mut at = 0;
        for length in lengths {
            let mut payload = vec![0; *length];
            random.fill(&mut payload).unwrap();
            let end = at + 7 + *length as u64;
            let record = Record { wal: FileNumber::new(4), start: at, end, payload: payload.into() };
            let sequence = SequenceNumber::new(end);
            builder.push_record(&record, RecordSequences { first: sequence, last: sequence }).unwrap();
            at = end;
        }
        let body = builder.finish(Micros(0)).unwrap().body;
        let reader = opened(body.clone());
        let header = reader.header();
        let planned = PlannedSegment {
            timeline: TimelineId::FIRST,
            ordinal: WANTED.ordinals.first(),
            last_ordinal: None,
            first: header.first,
            end: header.end,
            hash_before: header.hash_before,
            hash_after: header.hash_after,
            bytes: body.len() as u64,
        };
        (planned, body)
    }

    /// Everything that comes.
    async fn passed(segments: Vec<(PlannedSegment, Fetched)>) -> Vec<Entry> {
        let (sender, receiver) = mpsc::channel(1);
        let (opening, mut frames) = limited(3, LIMIT);
        let reading = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            while let Some((_, fetched)) = frames.segment().unwrap() {
                match &*fetched {
                    Fetched::Whole(reader) => {
                        all.extend(reader.entries_from(|_| frames.frame()).map(|placed| placed.unwrap().entry));
                    }
                    Fetched::Frames(_, wanted) => {
                        for _ in wanted {
                            all.extend(frames.frame().unwrap().into_entries().map(|placed| placed.unwrap().entry));
                        }
                    }
                }
            }
            all
        });
        let feeding = async move {
            for segment in segments {
                sender.send(segment).await.unwrap();
            }
        };
        let give_up = GiveUp::default();
        let (_, opened, read) = futures::join!(feeding, opening.run(receiver, &give_up), reading);
        opened.unwrap();
        read.unwrap()
    }

    #[tokio::test]
    async fn frames_come_in_their_order_and_one_that_is_longer_than_the_limit_comes_too() {
        let lengths = [10, 300_000, 20, 300_000, 2_000_000, 5, 300_000, 300_000, 1_500_000, 1_500_000, 7];
        let (planned, whole) = segment(&lengths);
        assert!(whole.frame_count() > 6);
        let expected: Vec<_> = whole.entries().map(|placed| placed.unwrap().entry).collect();
        let (_, other) = segment(&lengths);
        let (_, empty) = segment(&[]);
        let segments =
            vec![(planned, Fetched::Whole(whole)), (planned, Fetched::Whole(empty)), (planned, Fetched::Whole(other))];
        let found = passed(segments).await;
        let event = &expected[..1];
        assert!(found == [expected.as_slice(), event, &expected].concat());
    }

    #[tokio::test]
    async fn behind_a_frame_that_is_damaged_nothing_comes() {
        let (planned, body) = stored(&[300_000; 6]);
        let whole = opened(body.clone());
        let ranges: Vec<_> = (0..whole.frame_count()).map(|frame| whole.index().frame_range(frame).unwrap()).collect();
        let tail = tail_range(whole.header());
        let index = SegmentIndex::open(&WANTED, &body, &body.slice(tail.start as usize..), &Keyring::none()).unwrap();
        let mut body = body.to_vec();
        body[ranges[1].end as usize - 1] ^= 1;
        let body = Bytes::from(body);
        let stored = (0..).zip(ranges).map(|(n, r)| (n, body.slice(r.start as usize..r.end as usize))).collect();
        let (sender, receiver) = mpsc::channel(1);
        let (opening, mut frames) = limited(3, LIMIT);
        sender.send((planned, Fetched::Frames(index, stored))).await.unwrap();
        drop(sender);
        let reading = tokio::task::spawn_blocking(move || {
            frames.segment().unwrap().unwrap();
            frames.frame().unwrap();
            frames.frame().unwrap_err().code()
        });
        let give_up = GiveUp::default();
        let (opened, read) = futures::join!(opening.run(receiver, &give_up), reading);
        opened.unwrap();
        assert_eq!(read.unwrap(), Code::SegmentDamaged);
    }
}
