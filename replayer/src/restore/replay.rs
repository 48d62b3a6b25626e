//! Turns the plan's segments into WAL files.
//!
//! Owns: reading segments in order with a few ahead, the proof that they are the plan's (each running hash joins the
//! next; the base's places and the target have the hashes that they were given when they were made), and choosing the
//! records. Memory: a few segments.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use pitr_archive::{
    Code, Error, Result,
    ids::{Boundary, Ordinals, RunningHash, TimelineId},
    rocks::write_batch::{Op, WriteBatch},
    segment::{
        entry::{Entry, Record},
        reader::SegmentReader,
    },
};
use tokio::sync::mpsc;

use super::{
    files::{GiveUp, blocking},
    stages::StagedWals,
    wal::WalTotals,
};
use crate::{
    plan::{PlannedSegment, RestorePlan},
    progress::{Phase, Progress},
};

/// Segments fetched before they are needed.
const AHEAD: usize = 3;

/// Where whole segments come from.
#[async_trait]
pub(crate) trait SegmentSource: Send + Sync {
    /// A segment that the archive names.
    async fn segment(&self, timeline: TimelineId, ordinals: Ordinals) -> Result<SegmentReader>;
}

/// Writes the plan's WALs into `directory`; answers what each stage of them holds.
pub(crate) async fn replay(
    source: &dyn SegmentSource,
    plan: &RestorePlan,
    directory: PathBuf,
    give_up: &GiveUp,
    progress: Arc<dyn Progress>,
) -> Result<Vec<WalTotals>> {
    let range = (plan.base.first_record, plan.position.boundary);
    let total = range.1.get().saturating_sub(range.0.get());
    progress.begin(Phase::Records, Some(total));
    let (sender, receiver) = mpsc::channel::<(PlannedSegment, SegmentReader)>(1);
    let worker = Worker {
        files: StagedWals::new(&directory, &plan.wals, plan.write_policy, &plan.ingestions),
        proof: Proof::of(plan),
        range,
        withdrawn: plan.withdrawn.clone(),
        progress: progress.clone(),
    };
    let first_wal = plan.base.first_wal;
    let writing = blocking(move || worker.run(receiver)?.finish(first_wal));
    let reading = async move {
        let mut segments = futures::stream::iter(plan.segments.iter().copied())
            .map(|planned| async move {
                Ok::<_, Error>((planned, source.segment(planned.timeline, planned.ordinals()).await?))
            })
            .buffered(AHEAD);
        while let Some(segment) = segments.try_next().await? {
            give_up.check()?;
            // The writer has given up; its own error says why.
            if sender.send(segment).await.is_err() {
                break;
            }
        }
        Ok::<(), Error>(())
    };
    let (read, written) = futures::join!(reading, writing);
    // A read that failed makes the writer miss its end; the cause is the read.
    read.map_err(|e| give_up.because(e))?;
    let totals = written.map_err(|e| give_up.because(e))?;
    progress.end(Phase::Records);
    Ok(totals)
}

struct Worker {
    files: StagedWals,
    proof: Proof,
    range: (Boundary, Boundary),
    withdrawn: Vec<(Boundary, Boundary)>,
    progress: Arc<dyn Progress>,
}

impl Worker {
    fn run(mut self, mut segments: mpsc::Receiver<(PlannedSegment, SegmentReader)>) -> Result<StagedWals> {
        while let Some((planned, reader)) = segments.blocking_recv() {
            self.proof.begin(&planned, &reader)?;
            let mut done = 0;
            for placed in reader.entries() {
                let placed = placed?;
                let after = match &placed.entry {
                    Entry::Event(_) => placed.at,
                    Entry::Record(record) => {
                        // Behind the place where a child left its parent the parent's own life goes on.
                        if placed.at < planned.end {
                            done += u64::from(self.record(placed.at, record)?);
                        }
                        placed.at.next().ok_or_else(|| Error::new(Code::SegmentDamaged, "replaying").on(placed.at))?
                    }
                };
                self.proof.passed(after, placed.hash_after);
            }
            self.progress.advance(Phase::Records, done);
        }
        self.proof.complete()?;
        Ok(self.files)
    }

    /// Writes a record if it lies in the range; answers whether it does.
    fn record(&mut self, at: Boundary, record: &Record) -> Result<bool> {
        if at < self.range.0 || at >= self.range.1 {
            return Ok(false);
        }
        // What the server took back never was.
        if !self.withdrawn.iter().any(|(from, to)| *from <= at && at < *to) {
            if at.next() == Some(self.range.1) {
                refuse_uncounted(at, record)?;
            }
            self.files.record(at, record)?;
        }
        Ok(true)
    }
}

/// A write gives a range deletion of nothing a sequence number, recovery gives it none (measured with RocksDB 11.8): behind
/// such a record the copy would report a lower latest number than the database had. Behind the next record it is right.
fn refuse_uncounted(at: Boundary, record: &Record) -> Result<()> {
    // What cannot be read here is refused where it is written.
    let Ok(batch) = WriteBatch::parse(&record.payload) else { return Ok(()) };
    let of_nothing = |op: Op<'_>| matches!(op, Op::DeleteRange { begin, end, .. } if begin == end);
    if !batch.ops().flatten().any(of_nothing) {
        return Ok(());
    }
    Err(Error::new(Code::TargetUnsupported, "replaying")
        .on(format_args!("record {}", at.next_record()))
        .with("its last operation", "a range deletion of nothing, which RocksDB's recovery does not count")
        .hint("go to the record before or after it (--to-record)"))
}

/// That what is read is what was planned.
struct Proof {
    /// Places whose running hash must appear: what, where, which hash, and whether it has.
    expected: Vec<(&'static str, Boundary, RunningHash, bool)>,
    /// With nothing to replay, no segment needs to reach the places; the plan has compared them.
    strict: bool,
    last: Option<(TimelineId, RunningHash)>,
    /// Every running hash at the boundary that was passed last, for a child timeline to join.
    here: (Boundary, Vec<RunningHash>),
    /// Where the segment being read is cut.
    until: Boundary,
}

impl Proof {
    fn of(plan: &RestorePlan) -> Self {
        let base = &plan.base;
        let mut expected = vec![
            ("first record of the base", base.first_record, base.first_hash, false),
            ("target", plan.position.boundary, plan.position.hash, false),
        ];
        // A floor at the target's own boundary can lie behind events that the target does not; the plan compared it.
        if base.floor.boundary < plan.position.boundary {
            expected.push(("floor of the base", base.floor.boundary, base.floor.hash, false));
        }
        Self {
            expected,
            strict: base.first_record < plan.position.boundary,
            last: None,
            here: (Boundary::START, Vec::new()),
            until: Boundary::START,
        }
    }

    fn begin(&mut self, planned: &PlannedSegment, reader: &SegmentReader) -> Result<()> {
        let header = reader.header();
        let joins = match self.last {
            None => true,
            Some((timeline, hash)) if timeline == planned.timeline => hash == planned.hash_before,
            // A child joins its parent at any of the hashes that the boundary has there.
            Some(_) => self.here.0 == planned.first && self.here.1.contains(&planned.hash_before),
        };
        if !joins || header.hash_before != planned.hash_before || header.hash_after != planned.hash_after {
            return Err(Error::new(Code::ChainBroken, "joining segment")
                .on(reader.index().key())
                .with("planned", planned.hash_before)
                .with("found", header.hash_before));
        }
        self.until = planned.end;
        self.passed(header.first, header.hash_before);
        self.last = Some((planned.timeline, header.hash_after));
        Ok(())
    }

    fn passed(&mut self, boundary: Boundary, hash: RunningHash) {
        if boundary > self.until {
            return;
        }
        if self.here.0 != boundary {
            self.here = (boundary, Vec::new());
        }
        self.here.1.push(hash);
        for (_, at, expected, seen) in &mut self.expected {
            *seen |= *at == boundary && *expected == hash;
        }
    }

    fn complete(&self) -> Result<()> {
        match self.expected.iter().find(|(.., seen)| self.strict && !seen) {
            None => Ok(()),
            Some((what, at, expected, _)) => Err(Error::new(Code::ChainBroken, "comparing the running hash at the")
                .on(what)
                .with("boundary", at)
                .with("expected", expected)),
        }
    }
}
