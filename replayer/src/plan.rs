//! From a target to a plan: what a restore would read, write and reach, as a value.
//!
//! Owns: [`RestorePlan`], whose JSON form is stable (field names below are never renamed), and the options of planning.
//! Planning changes nothing anywhere. It either gives a plan that is exact, or refuses with the precise reason:
//!
//! | code | when |
//! |---|---|
//! | `target.after-end`, `target.before-start` | outside what the archive covers, or below every floor |
//! | `target.inside-event` | in the interval in which something outside the log happened |
//! | `target.behind-barrier` | every base would have to cross a barrier |
//! | `target.ambiguous` | the sequence number was used more than once |
//! | `target.unsupported` | on the way, the commit of a transaction that was prepared before anything was archived |
//! | `part.unusable` | of what was asked for, no part can be restored by itself |
//! | `tag.unknown`, `archive.chain-broken` | no such tag; the archive is not the one that the tag was made on |

use archive_source::FromArchive;
use assemble::{Inputs, assemble};
use chrono::{DateTime, Utc};
use engine::{Engine, EngineChoice, PlannedEngine};
use flushed::PlannedFlush;
use ingestion::PlannedIngestion;
use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::Archive,
        model::{Catalog, Timeline},
        schema::{BaseDocument, Position, TagDocument},
    },
    ids::{
        ArchiveId, BaseId, Boundary, ColumnFamilyId, FileNumber, Ordinal, Ordinals, RecordNumber, RunningHash,
        SequenceNumber, TimelineId,
    },
    rocks::{manifest::TwoPhase, write_batch::WritePolicy},
    segment::entry::{CapturedSettings, ColumnFamilyChange, ManifestPoint},
};
use serde::Serialize;
use source::Source;
use stream::{Ancestor, Stream};

use crate::{
    part::{Part, PlannedPart, narrow},
    target::Target,
};

pub(crate) mod archive_source;
pub(crate) mod assemble;
pub(crate) mod choose;
pub(crate) mod edit;
pub mod engine;
pub(crate) mod facts;
pub mod flushed;
pub mod ingestion;
pub(crate) mod notes;
pub mod outlined;
pub(crate) mod resolve;
pub(crate) mod sections;
pub(crate) mod sequence;
pub(crate) mod source;
pub(crate) mod stream;

/// Makes the plan for `target`, or refuses with the precise reason. Reads a few segments at most; changes nothing.
pub async fn plan(archive: &Archive, catalog: &Catalog, target: &Target, options: &PlanOptions) -> Result<RestorePlan> {
    let whole = narrow::options(options, target)?;
    let plan = plan_with(archive.id(), catalog, &FromArchive(archive), target, &whole).await?;
    narrow::narrow(archive, plan, options.part.as_ref()).await
}

/// The same; whatever has to be read comes from `source`.
pub(crate) async fn plan_with(
    archive: ArchiveId,
    catalog: &Catalog,
    source: &dyn Source,
    target: &Target,
    options: &PlanOptions,
) -> Result<RestorePlan> {
    let tag = match target {
        Target::Tag(name) => Some(catalog.tag(name).ok_or_else(|| {
            let mut e = Error::new(Code::TagUnknown, "finding the tag").on(name);
            for tag in catalog.tags().iter().take(20) {
                e = e.with("there is", &tag.name);
            }
            e
        })?),
        _ => None,
    };
    let timeline = tag.map(|tag| tag.position.timeline).or(options.timeline);
    let lineage = lineage(catalog, timeline)?;
    // Of what a child left, only a part is on its stream.
    for (timeline, until) in &lineage {
        let cut = until.map(|until| timeline.segments_touching(until.boundary, until.boundary)).unwrap_or_default();
        cut.iter().try_for_each(|segment| source.exact(timeline.id(), segment))?;
    }
    let bases = bases_of(catalog, options.base.as_ref())?;
    let newest = lineage.last().map(|(timeline, _)| timeline.id());
    let on = Lineage { archive, timelines: &lineage, bases, source, tag };
    let planned = on.plan(target, options).await;
    match (planned, tag) {
        // What could prove its position went with what was deleted.
        (Err(e), Some(tag)) if e.code() == Code::ChainBroken && is_deleted(catalog, &tag.position) => {
            Err(Error::new(Code::TargetBeforeStart, "finding").on(target).with("boundary", tag.position.boundary))
        }
        (Ok(mut plan), None) if options.timeline.is_none() => {
            plan.notes.extend(newest.and_then(|newest| notes::watched_longer(catalog, newest)));
            Ok(plan)
        }
        (planned, _) => planned,
    }
}

/// What a plan is made on.
struct Lineage<'a> {
    archive: ArchiveId,
    /// A timeline and its ancestors, oldest first, each with the boundary at which the next left it.
    timelines: &'a [(&'a Timeline, Option<Position>)],
    bases: Vec<BaseDocument>,
    source: &'a dyn Source,
    tag: Option<&'a TagDocument>,
}

impl Lineage<'_> {
    async fn plan(self, target: &Target, options: &PlanOptions) -> Result<RestorePlan> {
        let Self { archive, timelines, bases, source, tag } = self;
        let newest = timelines.last().map_or(TimelineId::FIRST, |(timeline, _)| timeline.id());
        let sections = sections::sections(newest, timelines, &bases);
        let section = sections::holding(&sections, source, target, tag).await?;
        let bases = section.bases(bases, source).await?;
        let inputs = Inputs { archive, stream: &section.stream, bases: &bases, source, tag };
        assemble(&inputs, target, options).await
    }
}

fn is_deleted(catalog: &Catalog, position: &Position) -> bool {
    let deleted = catalog.timeline(position.timeline).and_then(Timeline::deleted);
    deleted.is_some_and(|d| d.has_deleted(position.boundary) || d.cuts_at(position.boundary))
}

/// A timeline (by default the one written last) and its ancestors, oldest first, each with the position at which the next left it.
fn lineage(catalog: &Catalog, timeline: Option<TimelineId>) -> Result<Vec<(&Timeline, Option<Position>)>> {
    let unknown = |id: &dyn std::fmt::Display| {
        let mut e =
            Error::new(Code::TargetMalformed, "finding the timeline").on(id).hint("pitr list timelines shows them");
        for timeline in catalog.timelines().take(20) {
            e = e.with("there is", timeline.id());
        }
        e
    };
    let newest = match timeline {
        Some(id) => catalog.timeline(id).ok_or_else(|| unknown(&id))?,
        None => catalog.current_timeline().ok_or_else(|| {
            Error::new(Code::TargetBeforeStart, "finding the present timeline").with("archived", "nothing yet")
        })?,
    };
    let mut lineage = vec![(newest, None)];
    let mut child = newest;
    while let Some(fork) = child.document().parent {
        // A parent's number is smaller than its child's: the walk ends.
        let parent =
            catalog.timeline(fork.timeline).filter(|p| p.id() < child.id()).ok_or_else(|| unknown(&fork.timeline))?;
        lineage.push((parent, Some(fork)));
        child = parent;
    }
    lineage.reverse();
    Ok(lineage)
}

/// The stream of a timeline (by default the one written last) with its ancestors below the places where it left them; what is
/// lost of it leaves no trace here ([`sections`]).
pub(crate) fn stream_of(catalog: &Catalog, timeline: Option<TimelineId>) -> Result<Stream> {
    let lineage = lineage(catalog, timeline)?;
    let newest = lineage.last().map_or(TimelineId::FIRST, |(timeline, _)| timeline.id());
    let parts: Vec<_> = lineage
        .iter()
        .map(|(timeline, until)| Ancestor { timeline: timeline.id(), segments: timeline.segments(), until: *until })
        .collect();
    Ok(Stream::new(newest, &parts))
}

/// The bases in the order of their floors; only `named` when one is.
fn bases_of(catalog: &Catalog, named: Option<&BaseId>) -> Result<Vec<BaseDocument>> {
    if let Some(id) = named.filter(|id| catalog.base(id).is_none()) {
        return Err(Error::new(Code::Usage, "finding the base").on(id).hint("pitr list shows all bases"));
    }
    let wanted = catalog.bases().iter().filter(|base| named.is_none_or(|id| *id == base.id));
    let mut bases: Vec<BaseDocument> = wanted.cloned().collect();
    bases.sort_by(|a, b| (a.floor.boundary, &a.id).cmp(&(b.floor.boundary, &b.id)));
    Ok(bases)
}

/// How to plan, beside the target.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// On which timeline; by default the one written last. A tag has its own.
    pub timeline: Option<TimelineId>,
    /// From this base and no other.
    pub base: Option<BaseId>,
    /// What to do with a target inside the interval of a change outside the log.
    pub inside_event: InsideEvent,
    /// What to do with ingestions between the base and the target.
    pub cross_ingest: CrossIngest,
    /// How the log is brought in.
    pub engine: EngineChoice,
    /// Only this part of the database.
    pub part: Option<Part>,
    /// Bytes of log from which on [`EngineChoice::Auto`] makes tables of it.
    pub tables_from: u64,
}

impl Default for PlanOptions {
    /// The newest timeline, whatever base and engine are best, the whole database; doubtful targets are refused.
    fn default() -> Self {
        Self {
            timeline: None,
            base: None,
            inside_event: InsideEvent::default(),
            cross_ingest: CrossIngest::default(),
            engine: EngineChoice::default(),
            part: None,
            tables_from: engine::tables::WORTH,
        }
    }
}

/// What to do with an ingestion between a base and the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrossIngest {
    /// It is a barrier.
    #[default]
    Refuse,
    /// Where its files are in the archive and it can be repeated exactly, it is; the restore then recovers the copy here.
    Repeat,
}

/// What to do with a target strictly inside the interval of a change outside the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InsideEvent {
    /// Refuse it and name both ends.
    #[default]
    Refuse,
    /// Take the last position that is certainly before the change.
    Before,
}

/// What a restore would do, and exactly where it would arrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestorePlan {
    /// The archive.
    pub archive: ArchiveId,
    /// What was asked for.
    pub target: Target,
    /// Where it arrives.
    pub position: PlannedPosition,
    /// How that differs from what was asked; `exact` when it does not.
    pub distance: Distance,
    /// When the database was in this state, as far as anybody watched.
    pub time: CertainTime,
    /// What is laid down.
    pub base: PlannedBase,
    /// The segments that are read, in order.
    pub segments: Vec<PlannedSegment>,
    /// Column family edits appended to the base's MANIFEST, in order.
    pub column_families: Vec<ColumnFamilyEdit>,
    /// How the log is brought in.
    pub engine: PlannedEngine,
    /// What of the database is restored, where that is not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<PlannedPart>,
    /// Flushes that are laid down on the base, in the order of the MANIFEST.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flushes: Vec<PlannedFlush>,
    /// Ingestions that are repeated, in order: the restore recovers the copy here, up to each of them and at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingestions: Vec<PlannedIngestion>,
    /// The WAL files that are written, in order of their numbers.
    pub wals: Vec<PlannedWal>,
    /// Places in the stream whose records the server took back; they are not replayed.
    pub withdrawn: Vec<(Boundary, Boundary)>,
    /// The source writes records of two-phase commit: what opens the copy must allow them.
    pub two_phase: bool,
    /// The write policy that such records showed: what opens the copy must have the same.
    pub write_policy: Option<WritePolicy>,
    /// Transactions that are prepared and not decided at the position.
    pub pending: Vec<PendingTransaction>,
    /// Bytes fetched from the store, at most.
    pub download_bytes: u64,
    /// Bytes needed where the database is restored to.
    pub disk_bytes: u64,
    /// The same where the log is replayed, not made into tables.
    #[serde(skip)]
    pub replayed_disk_bytes: u64,
    /// Column families that were written without the log, which the operator tolerates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unlogged: Vec<UnloggedFamily>,
    /// What a person should know before relying on it.
    pub notes: Vec<Note>,
}

impl RestorePlan {
    /// Whether it has tables made of the log that nobody asked for.
    pub(crate) fn may_be_replayed_instead(&self) -> bool {
        (self.engine.name, self.engine.wanted) == (Engine::Bulk, EngineChoice::Auto)
    }

    /// The same with the log replayed by RocksDB: both read the same.
    pub(crate) fn replayed(&self) -> Self {
        let mut plan = self.clone();
        plan.engine.name = if plan.flushes.is_empty() { Engine::Native } else { Engine::Flush };
        plan.disk_bytes = plan.replayed_disk_bytes;
        plan
    }

    /// How the restored database must be opened.
    pub const fn two_phase(&self) -> TwoPhase {
        if self.two_phase { TwoPhase::On } else { TwoPhase::Off }
    }
}

/// The position reached: `.position.{timeline,record,wal,sequence}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedPosition {
    /// The timeline: an ancestor's where the target lies below the fork.
    pub timeline: TimelineId,
    /// The last record included; absent before the first.
    pub record: Option<RecordNumber>,
    /// The WAL of that record.
    pub wal: Option<FileNumber>,
    /// The database's latest sequence number there: what `GetLatestSequenceNumber` will say.
    pub sequence: SequenceNumber,
    /// The boundary after that record.
    pub boundary: Boundary,
    /// The run of the stream.
    pub run: u64,
    /// The running hash there; restore compares it with what it computes.
    pub hash: RunningHash,
}

/// Asked against reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Distance {
    /// Whether exactly what was asked for is reached.
    pub exact: bool,
    /// Records between what was asked and what is reached (a withdrawn record, or one inside an event's interval).
    pub records: u64,
    /// Sequence numbers between: a number inside a record resolves to the end of the record before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequences: Option<u64>,
    /// Microseconds between the time asked for and the last observation at or before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micros: Option<u64>,
    /// The same in words; empty when exact.
    pub text: String,
}

/// The interval of time in which the database certainly was in the planned state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CertainTime {
    /// Every record up to the position was readable at this time.
    pub from: Option<DateTime<Utc>>,
    /// No later record was readable at this time. With `from` absent or later than this, nobody watched.
    pub to: Option<DateTime<Utc>>,
}

/// The base of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedBase {
    /// Its name.
    pub id: BaseId,
    /// When it was taken.
    pub created: DateTime<Utc>,
    /// The earliest position it serves.
    pub floor: Position,
    /// Boundary before the first record replayed on it: behind the plan's flushes, where it has some.
    pub first_record: Boundary,
    /// The running hash there.
    pub first_hash: RunningHash,
    /// RocksDB's first WAL needed, with the plan's flushes.
    pub first_wal: FileNumber,
    /// Number of its SST and blob files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Why this one: how many newer ones were passed over, and for what.
    pub reason: String,
}

/// A segment to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedSegment {
    /// The timeline.
    pub timeline: TimelineId,
    /// Its ordinal; the first of them in a merged segment.
    pub ordinal: Ordinal,
    /// The last of its ordinals, in a merged segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_ordinal: Option<Ordinal>,
    /// Boundary before its first record.
    pub first: Boundary,
    /// Boundary after its last that is on the plan's timeline: a child can have left it inside the segment.
    pub end: Boundary,
    /// Running hash before its first entry.
    pub hash_before: RunningHash,
    /// Running hash after its last entry.
    pub hash_after: RunningHash,
    /// Its size in the store.
    pub bytes: u64,
}

impl PlannedSegment {
    /// The ordinals that it stands for.
    pub fn ordinals(&self) -> Ordinals {
        self.last_ordinal.and_then(|last| Ordinals::new(self.ordinal, last)).unwrap_or_else(|| self.ordinal.into())
    }
}

/// A transaction that is prepared, and neither committed nor rolled back, at the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PendingTransaction {
    /// Its name; bytes that are no text in hexadecimal after `0x`.
    pub name: String,
    /// Data operations that it would commit.
    pub operations: u64,
    /// The WAL of its first prepare section.
    pub wal: FileNumber,
    /// The record that holds it.
    pub record: RecordNumber,
}

/// A column family that was written without the log. What the restore gives of it is what a crash would have kept at the
/// moment when the base was taken (what had been flushed by then), and every logged write since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnloggedFamily {
    /// Its name.
    pub column_family: String,
    /// Unlogged writes are there as far as they had been flushed here: the base's floor.
    pub flushed_before: Boundary,
    /// When the base was taken.
    pub as_of: DateTime<Utc>,
}

/// A column family edit to append to the MANIFEST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnFamilyEdit {
    /// Added or dropped.
    pub change: ColumnFamilyChange,
    /// Its id.
    pub id: ColumnFamilyId,
    /// Its name.
    pub name: String,
    /// Where in the source's MANIFEST it was.
    pub manifest: ManifestPoint,
    /// The VersionEdit as archived, base64.
    pub edit: String,
    /// What opening the copy needs to know of the column family, where files captured for it tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<CapturedSettings>,
}

/// A WAL file to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedWal {
    /// Its number.
    pub number: FileNumber,
    /// Boundary before its first record here.
    pub first: Boundary,
    /// Boundary after its last record here.
    pub end: Boundary,
    /// Sizes of user-defined timestamps that the source's WAL announced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timestamp_sizes: Vec<WalTimestampSizes>,
}

/// Sizes of user-defined timestamps from a place in a WAL on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WalTimestampSizes {
    /// Offset in the source's WAL: records that begin at or after it are subject to the sizes.
    pub offset: u64,
    /// Column family and size in bytes.
    pub sizes: Vec<(ColumnFamilyId, u16)>,
}

/// Something to know before relying on a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What kind.
    pub kind: NoteKind,
    /// In words.
    pub text: String,
}

/// Kinds of notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteKind {
    /// A column family whose compaction filter drops keys without a record.
    CompactionFilter,
    /// The target was inside a record, a withdrawn range or an interval.
    Moved,
    /// Sequence numbers were used more than once on this timeline.
    SequenceReuse,
    /// Times are bounds only: nobody watched.
    Unwatched,
    /// Positions and times are of what was in the files; the server may have held committed writes in memory.
    ObservedOnly,
    /// Restoring lays files elsewhere than the source had them.
    ForeignPath,
    /// The end of the interval of a change is not known yet.
    OpenInterval,
    /// Transactions are prepared and not decided.
    PendingTransactions,
    /// A column family holds what a crash would have kept: the operator tolerates writes to it without the log.
    UnloggedTolerated,
    /// Captured files of an ingestion are brought in again.
    RepeatedIngestion,
    /// Only a part of the database is restored.
    Part,
    /// Another timeline than the newest one was watched for longer.
    OtherTimeline,
}

#[cfg(test)]
mod tests;
