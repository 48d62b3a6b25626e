//! The end of the archived stream: the segment that is being filled.
//!
//! Owns: the segment builder, and where the stream stands: boundary, running hash, last record. Entries go in one way
//! only. Refuses: to decide when to cut; that is the archiver's.

use std::sync::Arc;

use pitr_archive::{
    Result,
    catalog::schema::ManifestProgress,
    clock::{Clock, Micros},
    ids::{Boundary, ContentHash, FileNumber, Ordinal, RunningHash, SequenceNumber},
    keyring::Keyring,
    random::Random,
    rocks::write_batch::WriteBatch,
    segment::{
        chain::WalPrefix,
        entry::{Event, Record},
        envelope::Level,
        writer::{FinishedSegment, RecordSequences, SegmentBuilder, SegmentStart},
    },
};

use crate::engine::EngineState;

/// The stream's end.
#[derive(Debug)]
pub struct Stream {
    keyring: Arc<Keyring>,
    random: Arc<dyn Random>,
    clock: Arc<dyn Clock>,
    level: Level,
    boot_id: Option<String>,
    /// Where the next segment begins, while none is being filled.
    next: SegmentStart,
    builder: Option<SegmentBuilder>,
    last_record: Option<(FileNumber, u64)>,
    oldest: Option<Micros>,
    observed_through: Option<Micros>,
}

impl Stream {
    /// The zstd level from the next segment on.
    pub fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// A stream whose next segment begins at `next`. `last_record` is the record before it: WAL and end offset.
    pub fn new(
        next: SegmentStart,
        last_record: Option<(FileNumber, u64)>,
        keyring: Arc<Keyring>,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
        level: Level,
    ) -> Self {
        Self {
            keyring,
            random,
            clock,
            level,
            boot_id: boot_id(),
            next,
            builder: None,
            last_record,
            oldest: None,
            observed_through: None,
        }
    }

    fn builder(&mut self) -> Result<&mut SegmentBuilder> {
        if self.builder.is_none() {
            let builder = SegmentBuilder::new(self.next.clone(), &self.keyring, &*self.random, self.level)?;
            self.oldest = Some(self.clock.now());
            self.builder = Some(builder);
        }
        self.builder.as_mut().ok_or_else(|| {
            pitr_archive::Error::new(pitr_archive::Code::Internal, "beginning a segment").on(self.next.ordinal)
        })
    }

    /// Appends an event.
    pub fn event(&mut self, event: &Event) -> Result<()> {
        self.observed_through = None;
        self.builder()?.push_event(event).map(drop)
    }

    /// Appends a record; `last` is `LastSequence` after it.
    pub fn record(&mut self, record: &Record, batch: &WriteBatch<'_>, last: Option<SequenceNumber>) -> Result<()> {
        let first = batch.sequence();
        let sequences = RecordSequences { first, last: last.unwrap_or(first) };
        self.observed_through = None;
        self.builder()?.push_record(record, sequences)?;
        self.last_record = Some((record.wal, record.end));
        Ok(())
    }

    /// Notes a look that brought something. Without a segment it did not.
    pub fn look(&mut self, from: Micros, at: Micros) {
        if let Some(builder) = &mut self.builder {
            builder.look(from, at);
        }
        self.observed_through = None;
    }

    /// Notes that at this time nothing more was readable.
    pub fn observed_through(&mut self, at: Micros) {
        self.observed_through = Some(at);
    }

    /// The boundary after the last record.
    pub fn boundary(&self) -> Boundary {
        self.builder.as_ref().map_or(self.next.first, SegmentBuilder::end)
    }

    /// The running hash after the last entry.
    pub fn hash(&self) -> RunningHash {
        self.builder.as_ref().map_or(self.next.hash_before, SegmentBuilder::running_hash)
    }

    /// The last record: its WAL and the offset after it.
    pub fn last_record(&self) -> Option<(FileNumber, u64)> {
        self.last_record
    }

    /// Hash over the records of `wal` so far, if it is the one that was started last.
    pub fn wal_prefix(&self, wal: FileNumber) -> Option<ContentHash> {
        let present = match &self.builder {
            Some(builder) => builder.wal(),
            None => self.next.wal.as_ref(),
        };
        present.filter(|(number, _)| *number == wal).map(|(_, prefix)| prefix.value())
    }

    /// Goes on in a WAL whose records so far have this hash: after a restart.
    pub fn continue_wal(&mut self, wal: FileNumber, prefix: WalPrefix) {
        self.next.wal = Some((wal, prefix));
    }

    /// Counts what has been put in: it differs after every entry.
    pub fn entries(&self) -> (u64, u64) {
        self.builder.as_ref().map_or((self.next.ordinal.get(), 0), |b| (self.next.ordinal.get(), b.entries()))
    }

    /// The ordinal of the segment being filled.
    pub fn next_ordinal(&self) -> Ordinal {
        self.next.ordinal
    }

    /// Whether nothing has been put in since the last cut.
    pub fn is_empty(&self) -> bool {
        self.builder.is_none()
    }

    /// Plain bytes in the segment being filled.
    pub fn plain_bytes(&self) -> u64 {
        self.builder.as_ref().map_or(0, SegmentBuilder::plain_bytes)
    }

    /// When the first entry of the segment being filled was put in.
    pub fn oldest(&self) -> Option<Micros> {
        self.oldest
    }

    /// The running key of this stream's hashes.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Closes the segment being filled and begins the next; an empty one (a heartbeat) if nothing came.
    pub fn cut(
        &mut self,
        state: &EngineState,
        manifest: ManifestProgress,
        last_sequence: SequenceNumber,
    ) -> Result<FinishedSegment> {
        let transactions = state.transactions.clone();
        let state = serde_json::to_value(state).map_err(|e| {
            pitr_archive::Error::new(pitr_archive::Code::Internal, "encoding the archiver's state").because(e)
        })?;
        let (boot_id, observed) = (self.boot_id.clone(), self.observed_through);
        let builder = self.builder()?;
        builder.sequence_model(state);
        builder.manifest(manifest);
        builder.last_sequence(last_sequence);
        builder.transactions(transactions);
        boot_id.into_iter().for_each(|id| builder.boot_id(id));
        observed.into_iter().for_each(|at| builder.observed_through(at));
        let Some(builder) = self.builder.take() else {
            return Err(pitr_archive::Error::new(pitr_archive::Code::Internal, "closing a segment"));
        };
        let finished = builder.finish(self.clock.now())?;
        let (archive, timeline, epoch) = (self.next.archive, self.next.timeline, self.next.epoch);
        self.next = SegmentStart::after(&finished, archive, timeline, epoch)
            .ok_or_else(|| pitr_archive::Error::new(pitr_archive::Code::Internal, "numbering the next segment"))?;
        self.oldest = None;
        Ok(finished)
    }
}

/// The machine's boot id: what was read from page cache is only trusted within one boot.
pub fn boot_id() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}
