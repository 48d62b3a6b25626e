//! A whole segment in memory, and the walk over all its entries.
//!
//! Owns: the comparison of the stream with what the footer says of it (events, WAL spans): the catalog is built from
//! the footer.

use bytes::Bytes;

use super::{DOING, Placed, ProvenEntries, ProvenFrame, SegmentIndex, Wanted, tail_range};
use crate::{
    catalog::schema::SegmentFooter,
    code::Code,
    error::{Error, Result},
    ids::{Boundary, FileNumber, RunningHash},
    keyring::Keyring,
    layout::{Family, Fault},
    segment::{
        entry::{Entry, Event},
        header::SegmentHeader,
        touched::Touches,
    },
};

/// A whole segment in memory.
#[derive(Debug)]
pub struct SegmentReader {
    index: SegmentIndex,
    body: Bytes,
}

fn unlike(what: &'static str, found: &impl std::fmt::Debug, said: &impl std::fmt::Debug) -> Fault {
    Fault::Mismatch { what, expected: format!("{found:?}"), found: format!("{said:?}") }
}

impl SegmentReader {
    /// Opens a whole object. The keyring must know the header's epoch.
    pub fn open(wanted: &Wanted, body: Bytes, keyring: &Keyring) -> Result<Self> {
        let header = wanted.header(&body)?;
        let fault = |e: Fault| e.on(Family::Segment, DOING, &wanted.key());
        let length = header.object_len().unwrap_or(u64::MAX);
        let have = body.len() as u64;
        let tail = tail_range(&header);
        let tail = match (have == length, usize::try_from(tail.start)) {
            (true, Ok(start)) => body.slice(start..),
            _ if have > length => return Err(fault(Fault::Excess { what: "the segment", count: have - length })),
            _ => return Err(fault(Fault::Short { what: "the segment", offset: 0, needed: length, have })),
        };
        let index = SegmentIndex::open(wanted, &body, &tail, keyring)?;
        Ok(Self { index, body })
    }

    /// Header and footer.
    pub const fn index(&self) -> &SegmentIndex {
        &self.index
    }

    /// The header.
    pub const fn header(&self) -> &SegmentHeader {
        &self.index.header
    }

    /// The footer.
    pub const fn footer(&self) -> &SegmentFooter {
        &self.index.footer
    }

    /// Number of frames.
    pub fn frame_count(&self) -> usize {
        self.index.footer.frames.len()
    }

    /// One frame, proven. Frames are independent: open them in parallel.
    pub fn frame(&self, frame: usize) -> Result<ProvenFrame> {
        let stored = self
            .index
            .frame_range(frame)
            .and_then(|r| Some(usize::try_from(r.start).ok()?..usize::try_from(r.end).ok()?))
            .filter(|r| r.end <= self.body.len())
            .map(|r| self.body.slice(r))
            .ok_or_else(|| Error::new(Code::SegmentDamaged, DOING).on(self.index.key()).with("frame", frame))?;
        self.index.frame(frame, &stored)
    }

    /// All entries in order; also compares events and WAL spans with the footer, and the end with the header.
    pub fn entries(&self) -> Entries<'_> {
        self.entries_from(|frame| self.frame(frame))
    }

    /// [`SegmentReader::entries`] of frames that are opened elsewhere, by [`SegmentReader::frame`]: they are asked for by
    /// their numbers, each once and in order.
    pub fn entries_from<'a>(&'a self, frames: impl FnMut(usize) -> Result<ProvenFrame> + Send + 'a) -> Entries<'a> {
        Entries {
            reader: self,
            frames: Box::new(frames),
            next_frame: 0,
            inside: None,
            events: 0,
            spans: Vec::new(),
            done: false,
            open: false,
        }
    }

    /// Reads everything once for its checks alone. Also compares what the footer says of the operations in each frame: readers
    /// of a part leave frames out by that.
    pub fn verify(&self) -> Result<()> {
        self.entries().try_for_each(|entry| entry.map(drop))?;
        let mut touches = Touches::default();
        let said = self.footer();
        for (number, index) in said.frames.iter().enumerate() {
            let frame = self.frame(number)?;
            frame.check().map_err(|e| self.damaged(number, e))?;
            for placed in frame.into_entries() {
                if let Entry::Record(record) = placed.map_err(|e| self.damaged(number, e))?.entry {
                    touches.pass(&record.payload);
                }
            }
            let found = touches.take();
            if index.touches.is_some() && index.touches != found {
                return Err(self.damaged(number, unlike("what a frame's records write", &found, &index.touches)));
            }
        }
        let (found, special) = (touches.special(), &said.summary.special);
        match special.is_some() && *special != found {
            true => Err(self.damaged(0, unlike("operations that are not plain", &found, special))),
            false => Ok(()),
        }
    }

    /// Every value that the running hash takes at `boundary` inside this segment: any of them names it.
    pub fn hashes_at(&self, boundary: Boundary) -> Result<Vec<RunningHash>> {
        let header = self.header();
        if boundary < header.first || boundary > header.end {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        if boundary == header.first {
            found.push(header.hash_before);
        }
        let next = boundary.next().unwrap_or(boundary);
        for frame in self.index.frames_covering(boundary..next) {
            for placed in self.frame(frame)?.entries() {
                let placed = placed.map_err(|e| self.damaged(frame, e))?;
                let after = match placed.entry {
                    Entry::Record(_) => placed.at.next(),
                    Entry::Event(_) => Some(placed.at),
                };
                if after == Some(boundary) {
                    found.push(placed.hash_after);
                }
            }
        }
        found.dedup();
        Ok(found)
    }

    fn damaged(&self, frame: usize, fault: Fault) -> Error {
        let at = self.index.footer.frames.get(frame).map_or(0, |f| f.offset);
        fault.on(Family::Segment, DOING, self.index.key()).with("frame", frame).with("offset", at)
    }
}

/// Iterator over all entries of a segment; ends after the first error.
pub struct Entries<'a> {
    reader: &'a SegmentReader,
    frames: Box<dyn FnMut(usize) -> Result<ProvenFrame> + Send + 'a>,
    next_frame: usize,
    inside: Option<ProvenEntries>,
    events: usize,
    /// WAL, first boundary, start and end offset of each span, as the records show them.
    spans: Vec<(FileNumber, Boundary, u64, u64)>,
    /// The next record of the same WAL belongs to the last span.
    open: bool,
    done: bool,
}

impl std::fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = (self.reader.index.key(), self.next_frame);
        f.debug_struct("Entries").field("at", &at).finish_non_exhaustive()
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Placed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.advance().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

impl Entries<'_> {
    fn advance(&mut self) -> Result<Option<Placed>> {
        loop {
            if let Some(inside) = &mut self.inside {
                let frame = self.next_frame.saturating_sub(1);
                if let Some(placed) = inside.next() {
                    let placed = placed.map_err(|e| self.reader.damaged(frame, e))?;
                    self.compare(&placed).map_err(|e| self.reader.damaged(frame, e))?;
                    return Ok(Some(placed));
                }
                self.inside = None;
            }
            if self.next_frame == self.reader.frame_count() {
                return self.finish().map_err(|e| self.reader.damaged(self.next_frame, e)).map(|()| None);
            }
            let frame = (self.frames)(self.next_frame)?;
            // Whoever opens them elsewhere could give another: the running hash proves a frame only in its place.
            if self.reader.footer().frames.get(self.next_frame) != Some(&frame.index) {
                let why = Error::new(Code::Internal, DOING).on(self.reader.index.key());
                return Err(why.with("frame", self.next_frame).with("found", format!("{:?}", frame.index)));
            }
            self.inside = Some(frame.into_entries());
            self.next_frame += 1;
        }
    }

    /// The footer's copy of events is what the catalog is built from: it must be what the stream says.
    fn compare(&mut self, placed: &Placed) -> Result<(), Fault> {
        let summary = &self.reader.footer().summary;
        match &placed.entry {
            Entry::Event(event) => {
                let said = summary.events.get(self.events);
                self.events += 1;
                if said.is_none_or(|said| said.at != placed.at || said.event != *event) {
                    return Err(Fault::Mismatch {
                        what: "an event in the footer",
                        expected: format!("{event:?} at {}", placed.at),
                        found: format!("{said:?}"),
                    });
                }
                if matches!(event, Event::WalStarted { .. } | Event::RunStarted { .. }) {
                    self.open = false;
                }
            }
            Entry::Record(record) => match self.spans.last_mut() {
                Some((wal, _, _, end)) if self.open && *wal == record.wal && *end <= record.start => *end = record.end,
                _ => {
                    self.spans.push((record.wal, placed.at, record.start, record.end));
                    self.open = true;
                }
            },
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), Fault> {
        let said = self.reader.footer().summary.wals.iter().map(|s| (s.wal, s.first, s.start, s.end));
        let seen = self.spans.iter().copied();
        if said.clone().eq(seen.clone()) {
            return Ok(());
        }
        Err(Fault::Mismatch {
            what: "the WAL spans in the footer",
            expected: format!("{:?}", seen.collect::<Vec<_>>()),
            found: format!("{:?}", said.collect::<Vec<_>>()),
        })
    }
}
