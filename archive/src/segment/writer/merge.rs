//! Several neighbouring segments as one.
//!
//! Owns: what a merged segment says. Its entries are those of its parts, byte for byte and in order: the running hash comes
//! out as the last part's, or nothing comes out. Everything that tells what a target means stays as exact as it was: every
//! look at the readable end is kept, one that found nothing new as a look at that time. Of the archiver's own state the last
//! part's counts. Memory: the body so far, one frame, and the part that is being read.
//! Refuses: parts that do not join, parts between or inside which the clock went back (the order of looks in one footer is
//! that of time), I/O.

use super::{DOING, SegmentBuilder, SegmentStart, unarchivable};
use crate::{
    catalog::schema::{Merged, TimeSample, WalSpan},
    clock::Micros,
    code::Code,
    error::{Error, Result},
    ids::{ArchiveId, Boundary, Epoch, Ordinals, RunningHash, SequenceNumber, TimelineId},
    keyring::Keyring,
    random::Random,
    segment::{
        entry::{Entry, Event, Record},
        envelope::Level,
        reader::SegmentReader,
        writer::FinishedSegment,
    },
};

/// What is known of a merged segment before its parts are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeStart {
    /// The archive.
    pub archive: ArchiveId,
    /// The timeline.
    pub timeline: TimelineId,
    /// The ordinals of all parts.
    pub ordinals: Ordinals,
    /// The epoch of whoever merges.
    pub epoch: Epoch,
    /// Boundary before the first part.
    pub first: Boundary,
    /// Running hash there.
    pub hash_before: RunningHash,
}

/// Why parts were not merged.
#[derive(Debug, thiserror::Error)]
pub enum Unmerged {
    /// A look at the readable end has an earlier time than one before it.
    #[error("the clock went back from {from} to {to}")]
    ClockWentBack {
        /// What an earlier look says.
        from: Micros,
        /// What a later one says.
        to: Micros,
    },
    /// They are damaged, or do not join.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// A merged segment under construction.
#[derive(Debug)]
pub struct SegmentMerger {
    builder: SegmentBuilder,
    ordinals: Ordinals,
    /// The part that must come.
    next: Option<crate::ids::Ordinal>,
    account: Merged,
    /// `LastSequence` after the records so far.
    latest: Option<SequenceNumber>,
    /// The time of the last look, whatever it showed.
    looked: Option<Micros>,
    /// Nothing behind what is there so far was readable then.
    through: Option<Micros>,
}

impl SegmentMerger {
    /// Before the first part. The keyring must know the epoch.
    pub fn new(start: MergeStart, keyring: &Keyring, random: &dyn Random, level: Level) -> Result<Self> {
        let MergeStart { archive, timeline, ordinals, epoch, first, hash_before } = start;
        let ordinal = ordinals.first();
        let last_sequence = SequenceNumber::default();
        let start = SegmentStart { archive, timeline, ordinal, epoch, first, hash_before, last_sequence, wal: None };
        Ok(Self {
            builder: SegmentBuilder::begin(start, ordinals, keyring, random, level)?,
            ordinals,
            next: Some(ordinal),
            account: Merged { original_bytes: 0, written_bytes: 0, numbers_repeat: false },
            latest: None,
            looked: None,
            through: None,
        })
    }

    /// Appends the next part, which is read completely and proven by that.
    ///
    /// # Errors
    /// Behind one, nothing can come of this merger.
    pub fn push(&mut self, part: &SegmentReader) -> Result<(), Unmerged> {
        let (header, footer) = (part.header(), part.footer());
        let summary = &footer.summary;
        let key = part.index().key();
        let here = (self.next, self.builder.summary.end, self.builder.chain.value());
        let there = (Some(header.ordinals.first()), header.first, header.hash_before);
        let foreign = header.archive != self.builder.header.archive || header.timeline != self.builder.header.timeline;
        if foreign || here != there || header.ordinals.last() > self.ordinals.last() {
            return Err(Unmerged::Failed(
                Error::new(Code::ChainBroken, "merging the segment")
                    .on(key)
                    .with("expected", format_args!("{here:?}"))
                    .with("found", format_args!("{there:?}")),
            ));
        }
        let (spans, events) = (self.builder.summary.wals.len(), self.builder.summary.events.len() as u64);
        for placed in part.entries() {
            let placed = placed?;
            let hash = match &placed.entry {
                Entry::Record(record) => self.builder.merge_record(record)?,
                Entry::Event(event) => self.builder.merge_event(event)?,
            };
            if hash != placed.hash_after {
                return Err(Unmerged::Failed(
                    Error::new(Code::Internal, DOING).on(&self.builder.key).with("part", key),
                ));
            }
        }
        self.builder.take_prefixes(spans, &summary.wals)?;
        self.join_looks(&footer.samples, summary.observed_through, events, header.entries)?;
        self.join_numbers(summary.min_sequence, summary.max_sequence, summary.last_sequence, summary.merged);
        let own = header.object_len().unwrap_or(0);
        self.account.original_bytes += summary.merged.map_or(own, |merged| merged.original_bytes);
        self.account.written_bytes += own + summary.merged.map_or(0, |merged| merged.written_bytes);
        self.builder.manifest.clone_from(&footer.manifest);
        self.builder.sequence_model = footer.sequence_model.clone();
        self.builder.boot_id.clone_from(&footer.boot_id);
        self.builder.summary.transactions = summary.transactions.clone();
        self.builder.summary.last_sequence = summary.last_sequence;
        self.next = header.ordinals.next();
        Ok(())
    }

    /// Closes the segment; `now` is its creation time.
    pub fn finish(mut self, now: Micros) -> Result<FinishedSegment> {
        if self.next != self.ordinals.next() || !self.ordinals.is_merged() {
            return Err(Error::new(Code::Internal, DOING).on(&self.builder.key).with("parts", "not all of them"));
        }
        self.builder.summary.observed_through = self.through;
        self.builder.summary.observed = self.builder.samples.first().copied().zip(self.builder.samples.last().copied());
        self.builder.summary.merged = Some(self.account);
        self.builder.finish(now)
    }

    /// The looks of a part behind those of the parts before. `events` came before it.
    fn join_looks(
        &mut self,
        samples: &[TimeSample],
        through: Option<Micros>,
        events: u64,
        entries: u64,
    ) -> Result<(), Unmerged> {
        let mut looked = self.looked;
        for at in samples.iter().map(|sample| sample.at).chain(through) {
            if let Some(from) = looked.filter(|from| at < *from) {
                return Err(Unmerged::ClockWentBack { from, to: at });
            }
            looked = Some(at);
        }
        self.looked = looked;
        let mut quiet = if entries > 0 { self.through.take() } else { None };
        for sample in samples {
            // What found nothing before says more about when this was not there yet.
            let from = quiet.take().map_or(sample.from, |quiet| quiet.max(sample.from));
            self.builder.samples.push(TimeSample { from, events: sample.events.saturating_add(events), ..*sample });
        }
        if let Some(at) = through {
            let (boundary, events) = (self.builder.summary.end, self.builder.summary.events.len() as u64);
            // A place that no look has shown yet was shown by the one that found nothing behind it.
            if self.builder.samples.last().is_none_or(|last| (last.boundary, last.events) != (boundary, events)) {
                self.builder.samples.push(TimeSample { from: at, at, boundary, events });
            }
            self.through = Some(at);
        }
        Ok(())
    }

    fn join_numbers(
        &mut self,
        min: Option<SequenceNumber>,
        max: Option<SequenceNumber>,
        last: SequenceNumber,
        merged: Option<Merged>,
    ) {
        let (Some(lowest), Some(highest)) = (min, max) else { return };
        let repeats = self.latest.is_some_and(|latest| lowest <= latest) || highest != last;
        self.account.numbers_repeat |= repeats || merged.is_some_and(|merged| merged.numbers_repeat);
        self.latest = Some(last);
        let summary = &mut self.builder.summary;
        summary.min_sequence = Some(summary.min_sequence.map_or(lowest, |known| known.min(lowest)));
        summary.max_sequence = Some(summary.max_sequence.map_or(highest, |known| known.max(highest)));
    }
}

impl SegmentBuilder {
    /// Appends a record of a part. The hash over its WAL so far is not known here.
    fn merge_record(&mut self, record: &Record) -> Result<RunningHash> {
        let head = record.head().map_err(|e| unarchivable(e, record))?;
        let end = self.summary.end.next().ok_or_else(|| Error::new(Code::Internal, DOING).on(&self.key))?;
        let at = self.summary.end;
        // As a reader tells spans from the records (`reader::Entries`).
        let goes_on = |span: &&mut WalSpan| span.wal == record.wal && span.end <= record.start;
        match self.summary.wals.last_mut().filter(|_| self.span_open).filter(goes_on) {
            Some(span) => span.end = record.end,
            None => {
                let prefix = crate::ids::ContentHash([0; 32]);
                let span = WalSpan { wal: record.wal, first: at, start: record.start, end: record.end, prefix };
                self.summary.wals.push(span);
                self.span_open = true;
            }
        }
        let hash = self.append(&head, &record.payload)?;
        self.summary.end = end;
        Ok(hash)
    }

    fn merge_event(&mut self, event: &Event) -> Result<RunningHash> {
        let encoded = event.encode().map_err(|e| Error::new(Code::Internal, DOING).on(&self.key).because(e))?;
        let hash = self.append(&encoded, &[])?;
        if matches!(event, Event::WalStarted { .. } | Event::RunStarted { .. }) {
            self.span_open = false;
        }
        let at = self.summary.end;
        self.summary.events.push(crate::catalog::schema::PlacedEvent { at, event: event.clone() });
        Ok(hash)
    }

    /// Takes over what a part says of its WALs: of `before` spans that were there, the last may go on in its first.
    fn take_prefixes(&mut self, before: usize, spans: &[WalSpan]) -> Result<()> {
        let from = self.summary.wals.len().checked_sub(spans.len());
        let from = from.filter(|from| *from == before || from.checked_add(1) == Some(before));
        let known = from.and_then(|from| self.summary.wals.get_mut(from..)).unwrap_or_default();
        let same = known.iter().zip(spans).all(|(known, own)| known.wal == own.wal && known.end == own.end);
        if known.len() != spans.len() || !same {
            return Err(Error::new(Code::Internal, DOING).on(&self.key).with("spans", format_args!("{spans:?}")));
        }
        for (known, own) in known.iter_mut().zip(spans) {
            known.prefix = own.prefix;
        }
        Ok(())
    }
}
