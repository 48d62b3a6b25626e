//! Turns the plan's segments into WAL files, or tables.
//!
//! Owns: reading segments in order with a few ahead, the proof that they are the plan's (each running hash joins the
//! next; the base's places and the target have the hashes that they were given when they were made), and choosing the
//! records. Memory: a few segments, and what is open of their frames ([`super::frames`]).

use std::{borrow::Cow, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use pitr_archive::{
    Code, Error, Result,
    ids::{Boundary, FileNumber, Ordinals, RunningHash, TimelineId},
    layout::Family,
    rocks::{
        transactions::Transactions,
        write_batch::{Op, WriteBatch},
    },
    segment::{
        entry::{Entry, Record},
        reader::{Placed, SegmentIndex, SegmentReader},
    },
};
use tokio::sync::mpsc;

use super::{
    begun::{self, Begun},
    files::{GiveUp, blocking},
    frames::{self, Fetched, Frames},
    resume::{Checkpoint, Reached},
    stages::StagedWals,
    tabled::{Tabled, Written},
    wal::WalTotals,
};
use crate::{
    part::records::{SMALL, Wanted},
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

    /// The frames of a segment that can hold anything that is wanted, as they are stored, with their numbers; `None` where
    /// that is most of it.
    async fn frames(
        &self,
        timeline: TimelineId,
        ordinals: Ordinals,
        wanted: &Wanted,
    ) -> Result<Option<(SegmentIndex, Vec<(usize, Bytes)>)>>;
}

/// What was made of the records.
pub(crate) enum Replayed {
    /// What each stage of WALs holds.
    Wals(Vec<WalTotals>),
    /// Tables.
    Tables(Written),
}

enum Destination {
    /// With where notes of them go.
    Wals(Box<StagedWals>, PathBuf),
    Tables(Box<Tabled>),
}

impl Destination {
    fn new(begun: Begun, plan: &RestorePlan) -> Self {
        match begun {
            Begun::Tables(tables, _) => Self::Tables(tables),
            Begun::Wals { directory, notes, checkpoint } => {
                let mut staged = StagedWals::new(&directory, &plan.wals, plan.write_policy, &plan.ingestions);
                if let (Some(checkpoint), Some(wals)) = (checkpoint, staged.single()) {
                    wals.go_on(&checkpoint);
                }
                Self::Wals(Box::new(staged), notes)
            }
        }
    }

    /// Whether it may be noted before the next record how far it has come.
    fn is_notable_before(&mut self, record: &Record) -> bool {
        match self {
            Self::Wals(wals, _) => wals.single().is_some_and(|wals| wals.ends_before(record)),
            Self::Tables(tables) => tables.is_full(),
        }
    }

    /// What is known behind the records until now.
    fn state(&mut self) -> Option<(Transactions, WalTotals)> {
        match self {
            Self::Wals(wals, _) => wals.single().map(|wals| wals.state()),
            Self::Tables(tables) => Some(tables.state()),
        }
    }

    /// Notes how far it has come, when that is on disk.
    fn note(&mut self, reached: Reached) -> Result<()> {
        match self {
            Self::Wals(wals, notes) => wals.single().map_or(Ok(()), |wals| wals.note(Checkpoint::new(reached), notes)),
            Self::Tables(tables) => tables.end_run(reached),
        }
    }

    fn record(&mut self, at: Boundary, record: &Record) -> Result<()> {
        match self {
            Self::Wals(wals, _) => wals.record(at, record),
            Self::Tables(tables) => tables.record(at.next_record(), record),
        }
    }

    fn finish(self, first_wal: FileNumber) -> Result<Replayed> {
        match self {
            Self::Wals(wals, _) => wals.finish(first_wal).map(Replayed::Wals),
            Self::Tables(tables) => tables.finish().map(Replayed::Tables),
        }
    }
}

/// Writes what the plan's records become.
pub(crate) async fn replay(
    source: &dyn SegmentSource,
    plan: &RestorePlan,
    begun: Begun,
    give_up: &GiveUp,
    progress: Arc<dyn Progress>,
) -> Result<Replayed> {
    let range = (plan.base.first_record, plan.position.boundary);
    let total = range.1.get().saturating_sub(range.0.get());
    progress.begin(Phase::Records, Some(total));
    let (sender, receiver) = mpsc::channel::<(PlannedSegment, Fetched)>(1);
    let (opening, frames) = frames::ahead();
    let proof = Proof::of(plan);
    // Where a child left its parent, the hash of both is compared.
    let forks = plan.segments.windows(2).filter(|pair| matches!(pair, [a, b] if a.timeline != b.timeline));
    let forks = forks.filter_map(|pair| pair.first()).map(|last| last.end);
    let places: Vec<_> = proof.places().into_iter().chain(forks).collect();
    let wanted = plan.part.as_ref().map(|part| Wanted::new(part, places, range));
    let reached = begun.reached().cloned();
    let mut worker = Worker {
        files: Destination::new(begun, plan),
        proof,
        wanted: wanted.clone(),
        range,
        withdrawn: plan.withdrawn.clone(),
        goes_on_at: None,
        progress: progress.clone(),
    };
    let from = reached.map_or(0, |reached| worker.go_on(plan, &reached));
    let first_wal = plan.base.first_wal;
    let writing = blocking(move || worker.run(frames)?.finish(first_wal));
    let reading = async move {
        let mut segments = futures::stream::iter(plan.segments.iter().skip(from).copied())
            .map(|planned| fetch(source, planned, wanted.as_ref()))
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
    let (read, opened, written) = futures::join!(reading, opening.run(receiver, give_up), writing);
    // A read that failed makes the writer miss its end; the cause is the read.
    read.and(opened).map_err(|e| give_up.because(e))?;
    let replayed = written.map_err(|e| give_up.because(e))?;
    progress.end(Phase::Records);
    Ok(replayed)
}

async fn fetch(
    source: &dyn SegmentSource,
    planned: PlannedSegment,
    wanted: Option<&Wanted>,
) -> Result<(PlannedSegment, Fetched)> {
    let (timeline, ordinals) = (planned.timeline, planned.ordinals());
    let fetched = match wanted.filter(|_| planned.bytes > SMALL) {
        None => Fetched::Whole(source.segment(timeline, ordinals).await?),
        Some(wanted) => match source.frames(timeline, ordinals, wanted).await? {
            Some((index, frames)) => Fetched::Frames(index, frames),
            None => Fetched::Whole(source.segment(timeline, ordinals).await?),
        },
    };
    Ok((planned, fetched))
}

struct Worker {
    files: Destination,
    proof: Proof,
    /// Of a part: what of the records.
    wanted: Option<Wanted>,
    range: (Boundary, Boundary),
    withdrawn: Vec<(Boundary, Boundary)>,
    /// The hash that the stream must have where this goes on.
    goes_on_at: Option<(Boundary, RunningHash)>,
    progress: Arc<dyn Progress>,
}

impl Worker {
    /// Begins behind what is complete; answers with which segment.
    fn go_on(&mut self, plan: &RestorePlan, reached: &Reached) -> usize {
        self.proof.go_on(&reached.seen);
        self.progress.advance(Phase::Records, reached.boundary.get().saturating_sub(self.range.0.get()));
        self.range.0 = reached.boundary;
        self.goes_on_at = Some((reached.boundary, reached.hash));
        begun::segment(plan, reached).unwrap_or_default()
    }

    /// Notes that a WAL is complete, or a run of tables full, before the next record.
    fn note(&mut self, at: Boundary, record: &Record) -> Result<()> {
        if !self.files.is_notable_before(record) {
            return Ok(());
        }
        let (Some((timeline, hash)), Some((transactions, totals))) = (self.proof.at(), self.files.state()) else {
            return Ok(());
        };
        let reached = Reached { timeline, boundary: at, hash, transactions, totals, seen: self.proof.seen() };
        self.files.note(reached)
    }

    fn run(mut self, mut frames: Frames) -> Result<Destination> {
        while let Some((planned, fetched)) = frames.segment()? {
            match &*fetched {
                Fetched::Whole(reader) => {
                    self.proof.begin(&planned, reader.index())?;
                    let mut done = 0;
                    for placed in reader.entries_from(|_| frames.frame()) {
                        done += self.entry(&planned, &placed?)?;
                    }
                    self.progress.advance(Phase::Records, done);
                }
                Fetched::Frames(index, wanted) => self.frames(&planned, index, wanted.len(), &mut frames)?,
            }
        }
        if let Some((at, _)) = self.goes_on_at {
            return Err(elsewhere(at));
        }
        self.proof.complete()?;
        Ok(self.files)
    }

    /// What is wanted of a segment. Each frame proves itself; that nothing wanted lies between them, the footer says.
    fn frames(
        &mut self,
        planned: &PlannedSegment,
        index: &SegmentIndex,
        count: usize,
        frames: &mut Frames,
    ) -> Result<()> {
        self.proof.begin(planned, index)?;
        for _ in 0..count {
            let frame = frames.frame()?;
            self.proof.passed(frame.first(), frame.hash_before());
            for placed in frame.into_entries() {
                let placed = placed.map_err(|e| e.on(Family::Segment, "replaying the segment", index.key()))?;
                self.entry(planned, &placed)?;
            }
        }
        if planned.end == index.header().end {
            self.proof.passed(planned.end, index.header().hash_after);
        }
        let (first, end) = (planned.first.max(self.range.0), planned.end.min(self.range.1));
        self.progress.advance(Phase::Records, end.get().saturating_sub(first.get()));
        Ok(())
    }

    /// The next entry; answers how many records of the range it is.
    fn entry(&mut self, planned: &PlannedSegment, placed: &Placed) -> Result<u64> {
        let mut done = 0;
        let after = match &placed.entry {
            Entry::Event(_) => placed.at,
            Entry::Record(record) => {
                // Behind the place where a child left its parent the parent's own life goes on.
                if placed.at < planned.end {
                    done = u64::from(self.record(placed.at, record)?);
                }
                placed.at.next().ok_or_else(|| Error::new(Code::SegmentDamaged, "replaying").on(placed.at))?
            }
        };
        self.proof.passed(after, placed.hash_after);
        Ok(done)
    }

    /// Writes a record if it lies in the range; answers whether it does.
    fn record(&mut self, at: Boundary, record: &Record) -> Result<bool> {
        if at < self.range.0 || at >= self.range.1 {
            return Ok(false);
        }
        if let Some((boundary, hash)) = self.goes_on_at.take()
            && (boundary != at || self.proof.at().is_none_or(|(_, here)| here != hash))
        {
            return Err(elsewhere(boundary));
        }
        // What the server took back never was.
        if !self.withdrawn.iter().any(|(from, to)| *from <= at && at < *to) {
            if at.next() == Some(self.range.1) {
                refuse_uncounted(at, record)?;
            }
            let Some(record) = self.wanted_of(at, record)? else { return Ok(true) };
            self.note(at, &record)?;
            self.files.record(at, &record)?;
        }
        Ok(true)
    }
}

impl Worker {
    fn wanted_of<'a>(&self, at: Boundary, record: &'a Record) -> Result<Option<Cow<'a, Record>>> {
        match &self.wanted {
            None => Ok(Some(Cow::Borrowed(record))),
            Some(wanted) => wanted.of(at.next_record(), record),
        }
    }
}

/// The log is not what it was when it was noted how far it was read.
fn elsewhere(at: Boundary) -> Error {
    Error::new(Code::ChainBroken, "going on with an interrupted restore")
        .with("boundary", at)
        .hint("run the same command again: it begins anew")
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
        // With flushes replay can begin behind it; the plan compared it then, too.
        if base.floor.boundary < plan.position.boundary && base.first_record <= base.floor.boundary {
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

    /// The places.
    fn places(&self) -> Vec<Boundary> {
        self.expected.iter().map(|(_, at, ..)| *at).collect()
    }

    fn begin(&mut self, planned: &PlannedSegment, index: &SegmentIndex) -> Result<()> {
        let header = index.header();
        let joins = match self.last {
            None => true,
            Some((timeline, hash)) if timeline == planned.timeline => hash == planned.hash_before,
            // A child joins its parent at any of the hashes that the boundary has there.
            Some(_) => self.here.0 == planned.first && self.here.1.contains(&planned.hash_before),
        };
        if !joins || header.hash_before != planned.hash_before || header.hash_after != planned.hash_after {
            return Err(Error::new(Code::ChainBroken, "joining segment")
                .on(index.key())
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
            self.here.0 = boundary;
            self.here.1.clear();
        }
        self.here.1.push(hash);
        for (_, at, expected, seen) in &mut self.expected {
            *seen |= *at == boundary && *expected == hash;
        }
    }

    /// The timeline that is read, and the running hash here.
    fn at(&self) -> Option<(TimelineId, RunningHash)> {
        Some((self.last?.0, *self.here.1.last()?))
    }

    /// The places that were passed as they must be.
    fn seen(&self) -> Vec<String> {
        self.expected.iter().filter(|(.., seen)| *seen).map(|(what, ..)| (*what).to_owned()).collect()
    }

    /// Those were, before an interruption.
    fn go_on(&mut self, before: &[String]) {
        for (what, .., seen) in &mut self.expected {
            *seen |= before.iter().any(|passed| passed == *what);
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
