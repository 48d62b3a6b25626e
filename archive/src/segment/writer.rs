//! Builds a segment while its entries arrive.
//!
//! Owns: framing, the running hash of what it is given, and the summary. Memory: the compressed body, one frame of at
//! most 256 KiB plain, one zstd context; a longer record is compressed straight from where it lies.
//! Refuses: records of a WAL that no `WalStarted` announced, boundaries that do not follow, I/O.

use std::io::Write as _;

use bytes::Bytes;
use serde_json::Value;

use crate::{
    catalog::schema::{FrameIndex, ManifestProgress, PlacedEvent, SegmentFooter, SegmentSummary, TimeSample, WalSpan},
    cipher::{ObjectCipher, Purpose},
    clock::Micros,
    code::Code,
    error::{Error, Result},
    ids::{ArchiveId, Boundary, Epoch, FileNumber, Nonce, Ordinal, Ordinals, RunningHash, SequenceNumber, TimelineId},
    keyring::Keyring,
    layout::{Family, Fault},
    object_key::ObjectKey,
    random::Random,
    rocks::transactions::Transactions,
    segment::{
        chain::{Chain, HashKey, Leaf, WalPrefix},
        entry::{EntryError, Event, RECORD_HEAD, Record},
        envelope::{self, Level, Place},
        footer,
        frame::{FRAME_HEADER_LEN, FRAME_PLAIN, FrameHeader, frame_aad},
        header::{HEADER_LEN, OPENING_LEN, SegmentHeader, TRAILER_LEN, Trailer, required},
        touched::Touches,
    },
};

mod merge;

pub use merge::{MergeStart, SegmentMerger, Unmerged};

const DOING: &str = "building the segment";

/// Where a segment begins.
#[derive(Clone, Debug)]
pub struct SegmentStart {
    /// The archive.
    pub archive: ArchiveId,
    /// The timeline.
    pub timeline: TimelineId,
    /// The segment's ordinal.
    pub ordinal: Ordinal,
    /// The writer's epoch.
    pub epoch: Epoch,
    /// Boundary before its first record: the end of the segment before.
    pub first: Boundary,
    /// Running hash there: `hash_after` of the segment before.
    pub hash_before: RunningHash,
    /// `LastSequence` there.
    pub last_sequence: SequenceNumber,
    /// The WAL whose records may follow without a `WalStarted`, with the hash over its records so far.
    pub wal: Option<(FileNumber, WalPrefix)>,
}

impl SegmentStart {
    /// Behind a finished segment.
    pub fn after(finished: &FinishedSegment, archive: ArchiveId, timeline: TimelineId, epoch: Epoch) -> Option<Self> {
        Some(Self {
            archive,
            timeline,
            ordinal: finished.summary.ordinals().next()?,
            epoch,
            first: finished.summary.end,
            hash_before: finished.summary.hash_after,
            last_sequence: finished.summary.last_sequence,
            wal: finished.wal.clone(),
        })
    }
}

/// The sequence numbers of a record, by the caller's sequence model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSequences {
    /// In the batch's header.
    pub first: SequenceNumber,
    /// `LastSequence` of the database after the record.
    pub last: SequenceNumber,
}

/// A segment that can be stored.
#[derive(Clone, Debug)]
pub struct FinishedSegment {
    /// Its name.
    pub key: ObjectKey,
    /// Its bytes.
    pub body: Bytes,
    /// The writer's nonce in it.
    pub nonce: Nonce,
    /// What it holds; `object_bytes` is set.
    pub summary: SegmentSummary,
    /// The WAL at its end, for the next segment's [`SegmentStart::wal`].
    pub wal: Option<(FileNumber, WalPrefix)>,
}

/// A segment under construction.
pub struct SegmentBuilder {
    key: ObjectKey,
    header: SegmentHeader,
    opening: [u8; OPENING_LEN],
    cipher: Option<ObjectCipher>,
    hash_key: HashKey,
    level: Level,
    compressor: zstd::bulk::Compressor<'static>,
    /// Header (filled in at the end) and finished frames.
    body: Vec<u8>,
    /// Encoded entries of the frame being filled.
    pending: Vec<u8>,
    pending_entries: u32,
    pending_first: (Boundary, RunningHash),
    /// What the records of the frame being filled write.
    touches: Touches,
    chain: Chain,
    wal: Option<(FileNumber, WalPrefix)>,
    /// The last record's WAL belongs to the last span.
    span_open: bool,
    summary: SegmentSummary,
    frames: Vec<FrameIndex>,
    samples: Vec<TimeSample>,
    manifest: Option<ManifestProgress>,
    sequence_model: Value,
    boot_id: Option<String>,
}

impl std::fmt::Debug for SegmentBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentBuilder")
            .field("key", &self.key)
            .field("end", &self.summary.end)
            .field("entries", &self.header.entries)
            .field("stored_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl SegmentBuilder {
    /// An empty segment. The keyring must know the epoch (`Keyring::admit`).
    pub fn new(start: SegmentStart, keyring: &Keyring, random: &dyn Random, level: Level) -> Result<Self> {
        let ordinals = start.ordinal.into();
        Self::begin(start, ordinals, keyring, random, level)
    }

    fn begin(
        start: SegmentStart,
        ordinals: Ordinals,
        keyring: &Keyring,
        random: &dyn Random,
        level: Level,
    ) -> Result<Self> {
        let key = ObjectKey::segment(start.timeline, ordinals);
        let sealed = if keyring.is_encrypted() { required::SEALED } else { 0 };
        let merged = if ordinals.is_merged() { required::MERGED } else { 0 };
        let salt = random.bytes()?;
        let header = SegmentHeader {
            required_flags: sealed | merged,
            optional_flags: 0,
            timeline: start.timeline,
            ordinals,
            epoch: start.epoch,
            archive: start.archive,
            nonce: random.nonce()?,
            salt,
            first: start.first,
            hash_before: start.hash_before,
            end: start.first,
            hash_after: start.hash_before,
            created: Micros(0),
            entries: 0,
            plain_bytes: 0,
            footer_offset: 0,
            footer_len: 0,
            frames: 0,
        };
        let compressor = zstd::bulk::Compressor::new(level.get())
            .map_err(|e| Error::new(Code::Internal, DOING).on(&key).because(e))?;
        Ok(Self {
            cipher: keyring.cipher(start.epoch, &key, &salt)?,
            opening: header.opening(),
            hash_key: keyring.hash_key().clone(),
            level,
            compressor,
            body: vec![0; HEADER_LEN],
            pending: Vec::new(),
            pending_entries: 0,
            pending_first: (start.first, start.hash_before),
            touches: Touches::default(),
            chain: Chain::at(start.hash_before),
            wal: start.wal,
            span_open: false,
            summary: SegmentSummary {
                ordinal: start.ordinal,
                last_ordinal: ordinals.is_merged().then(|| ordinals.last()),
                rolled_up: None,
                epoch: start.epoch,
                first: start.first,
                end: start.first,
                hash_before: start.hash_before,
                hash_after: start.hash_before,
                min_sequence: None,
                max_sequence: None,
                last_sequence: start.last_sequence,
                transactions: Transactions::default(),
                special: None,
                wals: Vec::new(),
                observed: None,
                observed_through: None,
                plain_bytes: 0,
                events: Vec::new(),
                object_bytes: 0,
                merged: None,
            },
            frames: Vec::new(),
            samples: Vec::new(),
            manifest: None,
            sequence_model: Value::Null,
            boot_id: None,
            key,
            header,
        })
    }

    /// Appends the next record of the WAL that was started last. Returns the running hash after it.
    pub fn push_record(&mut self, record: &Record, sequences: RecordSequences) -> Result<RunningHash> {
        let Some((wal, prefix)) = self.wal.as_mut().filter(|(wal, _)| *wal == record.wal) else {
            return Err(Error::new(Code::Internal, DOING)
                .on(&self.key)
                .with("record-of-wal", record.wal)
                .with("expected", "a WAL that was started"));
        };
        let head = record.head().map_err(|e| unarchivable(e, record))?;
        let end = self.summary.end.next().ok_or_else(|| Error::new(Code::Internal, DOING).on(&self.key))?;
        prefix.push(record);
        let (wal, at) = (*wal, self.summary.end);
        match self.summary.wals.last_mut().filter(|_| self.span_open) {
            Some(span) => span.end = record.end,
            None => {
                let prefix = prefix.value();
                self.summary.wals.push(WalSpan { wal, first: at, start: record.start, end: record.end, prefix });
                self.span_open = true;
            }
        }
        let hash = self.append(&head, &record.payload)?;
        self.summary.end = end;
        let summary = &mut self.summary;
        summary.min_sequence = Some(summary.min_sequence.map_or(sequences.first, |s| s.min(sequences.first)));
        summary.max_sequence = Some(summary.max_sequence.map_or(sequences.last, |s| s.max(sequences.last)));
        summary.last_sequence = sequences.last;
        Ok(hash)
    }

    /// Appends an event at the present boundary. Returns the running hash after it.
    pub fn push_event(&mut self, event: &Event) -> Result<RunningHash> {
        let encoded = event.encode().map_err(|e| Error::new(Code::Internal, DOING).on(&self.key).because(e))?;
        let hash = self.append(&encoded, &[])?;
        match event {
            Event::WalStarted { wal } => {
                self.close_span();
                self.wal = Some((*wal, WalPrefix::new(&self.hash_key)));
            }
            Event::RunStarted { .. } => {
                self.close_span();
                self.wal = None;
            }
            _ => {}
        }
        self.summary.events.push(PlacedEvent { at: self.summary.end, event: event.clone() });
        Ok(hash)
    }

    /// Notes a look at the readable end, which shows everything that is in the segment so far. `from` and `at` are the
    /// clock before and after it.
    pub fn look(&mut self, from: Micros, at: Micros) {
        let events = self.summary.events.len() as u64;
        let sample = TimeSample { from, at, boundary: self.summary.end, events };
        self.summary.observed = Some((self.summary.observed.map_or(sample, |(first, _)| first), sample));
        self.samples.push(sample);
    }

    /// Notes that at this time nothing more than this segment's records was readable.
    pub fn observed_through(&mut self, at: Micros) {
        self.summary.observed_through = Some(at);
    }

    /// Sets how far the MANIFEST was consumed.
    pub fn manifest(&mut self, progress: ManifestProgress) {
        self.manifest = Some(progress);
    }

    /// Sets the state of the sequence model after the last entry.
    pub fn sequence_model(&mut self, state: Value) {
        self.sequence_model = state;
    }

    /// Sets `LastSequence` after the last entry, where an event (a session's start) changed it.
    pub fn last_sequence(&mut self, last: SequenceNumber) {
        self.summary.last_sequence = last;
    }

    /// Sets what is pending after the last entry.
    pub fn transactions(&mut self, pending: Transactions) {
        self.summary.transactions = pending;
    }

    /// Sets the machine's boot id.
    pub fn boot_id(&mut self, id: String) {
        self.boot_id = Some(id);
    }

    /// The WAL that was started last, with the hash over its records so far.
    pub const fn wal(&self) -> Option<&(FileNumber, WalPrefix)> {
        self.wal.as_ref()
    }

    /// The segment's name.
    pub const fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// Bytes of the encoded entries so far.
    pub const fn plain_bytes(&self) -> u64 {
        self.header.plain_bytes
    }

    /// Entries so far.
    pub const fn entries(&self) -> u64 {
        self.header.entries
    }

    /// The boundary after the last record so far.
    pub const fn end(&self) -> Boundary {
        self.summary.end
    }

    /// The running hash after the last entry so far.
    pub const fn running_hash(&self) -> RunningHash {
        self.chain.value()
    }

    /// Bytes of memory that the builder holds for entries.
    pub fn memory(&self) -> usize {
        self.body.capacity() + self.pending.capacity()
    }

    /// Closes the segment; `now` is its creation time.
    pub fn finish(mut self, now: Micros) -> Result<FinishedSegment> {
        self.flush()?;
        self.close_span();
        let internal = |e: Fault| e.on(Family::Segment, DOING, &self.key);
        self.summary.hash_after = self.chain.value();
        self.summary.plain_bytes = self.header.plain_bytes;
        self.summary.special = self.touches.special();
        let footer = SegmentFooter {
            summary: self.summary,
            frames: self.frames,
            samples: self.samples,
            manifest: self.manifest,
            sequence_model: self.sequence_model,
            boot_id: self.boot_id,
            extra: Default::default(),
        };
        let packed = footer::Packed::new(&footer, self.level).map_err(internal)?;
        let (key, bytes) = (&self.key, self.body.len());
        let too_long = || Error::new(Code::Internal, DOING).on(key).with("bytes", bytes);
        let footer_len = packed.stored_len(self.cipher.is_some());
        self.header.end = footer.summary.end;
        self.header.hash_after = footer.summary.hash_after;
        self.header.created = now;
        self.header.footer_offset = self.body.len() as u64;
        self.header.footer_len = u32::try_from(footer_len).map_err(|_| too_long())?;
        self.header.frames = u32::try_from(footer.frames.len()).map_err(|_| too_long())?;
        let header = self.header.encode();
        self.body.get_mut(..HEADER_LEN).ok_or_else(too_long)?.copy_from_slice(&header);
        self.body.reserve_exact(footer_len + TRAILER_LEN);
        let from = self.body.len();
        packed.append(&self.key, &header, self.cipher.as_ref(), &mut self.body).map_err(internal)?;
        let trailer = Trailer {
            footer_offset: self.header.footer_offset,
            footer_len: self.header.footer_len,
            footer_crc: crc32c::crc32c(self.body.get(from..).unwrap_or_default()),
            header_crc: header_crc(&header),
        };
        self.body.extend_from_slice(&trailer.encode());
        let mut summary = footer.summary;
        summary.object_bytes = self.body.len() as u64;
        Ok(FinishedSegment { key: self.key, body: self.body.into(), nonce: self.header.nonce, summary, wal: self.wal })
    }

    /// The last span ends here: later records of its WAL would need a new one.
    fn close_span(&mut self) {
        if let (true, Some(span), Some((_, prefix))) = (self.span_open, self.summary.wals.last_mut(), &self.wal) {
            span.prefix = prefix.value();
        }
        self.span_open = false;
    }

    /// `tail` is a record's batch; an event has none.
    fn append(&mut self, head: &[u8], tail: &[u8]) -> Result<RunningHash> {
        let len = head.len() + tail.len();
        if self.pending.is_empty() {
            self.pending_first = (self.summary.end, self.chain.value());
        }
        if len > FRAME_PLAIN {
            // Too long to copy: a frame of its own.
            self.flush()?;
            self.pending_first = (self.summary.end, self.chain.value());
            self.touches.pass(tail);
            self.frame(Source::Pieces(head, tail), 1)?;
        } else {
            self.touches.pass(tail);
            self.pending.extend_from_slice(head);
            self.pending.extend_from_slice(tail);
            self.pending_entries += 1;
        }
        let leaf =
            if tail.is_empty() { Leaf::of(&self.hash_key, &[head]) } else { Leaf::of(&self.hash_key, &[head, tail]) };
        let hash = self.chain.push(leaf);
        self.header.entries += 1;
        self.header.plain_bytes += len as u64;
        if self.pending.len() >= FRAME_PLAIN {
            self.flush()?;
        }
        Ok(hash)
    }

    /// Closes the frame being filled, if there is one.
    fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        let entries = std::mem::take(&mut self.pending_entries);
        self.frame(Source::Whole(&pending), entries)?;
        pending.clear();
        self.pending = pending;
        Ok(())
    }

    fn frame(&mut self, source: Source<'_>, entries: u32) -> Result<()> {
        let internal = |e: Fault| e.on(Family::Segment, DOING, &self.key);
        let too_long = || Error::new(Code::Internal, DOING).on(&self.key).with("bytes", source.len());
        let offset = self.body.len();
        let index = u32::try_from(self.frames.len()).map_err(|_| too_long())?;
        let plain = u32::try_from(source.len()).map_err(|_| too_long())?;
        self.body.extend_from_slice(&[0; FRAME_HEADER_LEN]);
        let aad = match self.cipher {
            Some(_) => frame_aad(&self.key, &self.opening, index, plain, entries),
            None => Vec::new(),
        };
        let place = Place { what: "a frame", purpose: Purpose::Frame, counter: u64::from(index), aad: &aad };
        let (compressor, level) = (&mut self.compressor, self.level);
        envelope::wrap(self.cipher.as_ref(), place, source.crc(), &mut self.body, |out| {
            source.compress(compressor, level, out)
        })
        .map_err(internal)?;
        let body_len = u32::try_from(self.body.len() - offset - FRAME_HEADER_LEN).map_err(|_| too_long())?;
        let stored = u32::try_from(self.body.len() - offset).map_err(|_| too_long())?;
        let body_crc = crc32c::crc32c(self.body.get(offset + FRAME_HEADER_LEN..).unwrap_or_default());
        let header = FrameHeader { index, body_len, plain_len: plain, entries, body_crc };
        let slot = self.body.get_mut(offset..offset + FRAME_HEADER_LEN).ok_or_else(too_long)?;
        slot.copy_from_slice(&header.encode());
        let (first, hash_before) = self.pending_first;
        let touches = self.touches.take();
        self.frames.push(FrameIndex { offset: offset as u64, stored, plain, first, hash_before, touches });
        Ok(())
    }
}

/// The header's checksum field.
fn header_crc(header: &[u8; HEADER_LEN]) -> u32 {
    let mut crc = [0; 4];
    crc.copy_from_slice(header.get(HEADER_LEN - 4..).unwrap_or(&[0; 4]));
    u32::from_le_bytes(crc)
}

fn unarchivable(e: EntryError, record: &Record) -> Error {
    Error::new(Code::WalUnsupported, "archiving a record of the write-ahead log")
        .with("wal", record.wal)
        .with("offset", record.start)
        .because(e)
}

/// Plain bytes of a frame.
#[derive(Clone, Copy)]
enum Source<'a> {
    Whole(&'a [u8]),
    /// Head and payload of one long record, not copied together.
    Pieces(&'a [u8], &'a [u8]),
}

impl Source<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Pieces(head, tail) => head.len() + tail.len(),
        }
    }

    fn crc(&self) -> u32 {
        match self {
            Self::Whole(bytes) => crc32c::crc32c(bytes),
            Self::Pieces(head, tail) => crc32c::crc32c_append(crc32c::crc32c(head), tail),
        }
    }

    fn compress(
        &self,
        compressor: &mut zstd::bulk::Compressor<'_>,
        level: Level,
        out: &mut Vec<u8>,
    ) -> std::io::Result<()> {
        match self {
            Self::Whole(bytes) => {
                let at = out.len();
                out.resize(at + zstd::zstd_safe::compress_bound(bytes.len()), 0);
                let space = out.get_mut(at..).unwrap_or_default();
                let len = compressor.compress_to_buffer(bytes, space)?;
                out.truncate(at + len);
                Ok(())
            }
            Self::Pieces(head, tail) => {
                let mut encoder = zstd::stream::Encoder::new(out, level.get())?;
                encoder.set_pledged_src_size(Some((head.len() + tail.len()) as u64))?;
                encoder.include_contentsize(true)?;
                encoder.write_all(head)?;
                encoder.write_all(tail)?;
                encoder.finish()?;
                Ok(())
            }
        }
    }
}

const _: () = assert!(RECORD_HEAD < FRAME_PLAIN);
