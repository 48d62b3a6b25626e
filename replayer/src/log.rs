//! The archived records, decoded, so that a person can find the moment before the mistake.
//!
//! Owns: one entry for each operation, with position, time, column family, key and value; filters. Memory is bounded by
//! one segment: entries come as a stream.
//! Refuses: nothing that is readable. Records that the server took back are shown and marked; an operation that a
//! filter does not ask for is not.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{Stream as Entries, TryStreamExt};
use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::Archive,
        model::Catalog,
        schema::{BaseDocument, TagDocument, TimeSample},
    },
    ids::{Boundary, ColumnFamilyId, FileNumber, RecordNumber, SequenceNumber, TimelineId},
    rocks::write_batch::{Op, WriteBatch},
    segment::entry::{ColumnFamilyChange, Entry, Record},
};
use serde::{Serialize, Serializer};

use crate::{
    plan::{
        self,
        archive_source::FromArchive,
        resolve,
        source::{ReadEntry, Source},
        stream::{Piece, Stream},
    },
    target::Target,
};

/// What to show.
#[derive(Clone, Debug, Default)]
pub struct LogFilter {
    /// On which timeline; by default the newest.
    pub timeline: Option<TimelineId>,
    /// From this place on: a record itself, else what follows the place that the target means.
    pub from: Option<Target>,
    /// Up to and including this place.
    pub to: Option<Target>,
    /// Only this column family, by name, or by id where it has none any more.
    pub column_family: Option<String>,
    /// Only operations on exactly this key, and ranges that hold it.
    pub key: Option<Vec<u8>>,
    /// Only operations on keys that begin so, and ranges that can hold such.
    pub prefix: Option<Vec<u8>>,
    /// At most so many entries.
    pub limit: Option<u64>,
}

/// One operation of an archived record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// The timeline.
    pub timeline: TimelineId,
    /// The record.
    pub record: RecordNumber,
    /// The operation's place in its record, from 0.
    pub index: u64,
    /// When the record was first seen; it was written before this. Absent where nobody looked yet.
    pub seen: Option<DateTime<Utc>>,
    /// The look before, which did not show the record: it was written after this. Absent where nobody looked before.
    pub unseen: Option<DateTime<Utc>>,
    /// The WAL it was read from.
    pub wal: FileNumber,
    /// Offset of the record in that WAL.
    pub offset: u64,
    /// The operation's sequence number; absent where it has none or two-phase commit decides.
    pub sequence: Option<SequenceNumber>,
    /// The column family; absent for operations that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column_family: Option<FamilyName>,
    /// What it does.
    pub operation: Operation,
    /// The key, or the beginning of the range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Raw>,
    /// The value, operand or entity; the end of the range (not included); a remark's text; a transaction's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Raw>,
    /// The server took the record back.
    pub withdrawn: bool,
}

/// A column family as it was known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FamilyName {
    /// Its id.
    pub id: ColumnFamilyId,
    /// Its name, where the archive knows it.
    pub name: Option<String>,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // named as RocksDB's calls are
pub enum Operation {
    Put,
    Delete,
    SingleDelete,
    Merge,
    DeleteRange,
    PutEntity,
    TimedPut,
    BlobIndex,
    LogData,
    Noop,
    BeginPrepare,
    EndPrepare,
    Commit,
    Rollback,
}

/// Bytes that are mostly text: printable ASCII as it is, a backslash doubled, everything else as `\xNN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(pub Bytes);

impl std::fmt::Display for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in &self.0 {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                b' '..=b'~' => write!(f, "{}", char::from(*byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The archived operations that `filter` asks for, in order.
///
/// # Errors
/// Those of resolving `from` and `to`; in the stream, those of reading a segment.
pub async fn scan<'a>(
    archive: &'a Archive,
    catalog: &Catalog,
    filter: LogFilter,
) -> Result<impl Entries<Item = Result<LogEntry>> + Send + use<'a>> {
    let tagged = [&filter.from, &filter.to].into_iter().flatten().find_map(|target| match target {
        Target::Tag(name) => catalog.tag(name).map(|tag| tag.position.timeline),
        _ => None,
    });
    let stream = plan::stream_of(catalog, tagged.or(filter.timeline))?;
    let names = names(&stream, catalog.bases());
    let tags = catalog.tags().to_vec();
    Scan { stream, source: FromArchive(archive), names, tags, filter }.run().await
}

/// What a scan looks at.
pub(crate) struct Scan<S> {
    pub stream: Stream,
    pub source: S,
    pub names: BTreeMap<ColumnFamilyId, String>,
    pub tags: Vec<TagDocument>,
    pub filter: LogFilter,
}

/// Names of column families by id: from the bases, and from events since.
pub(crate) fn names(stream: &Stream, bases: &[BaseDocument]) -> BTreeMap<ColumnFamilyId, String> {
    let mut names = BTreeMap::from([(ColumnFamilyId::DEFAULT, "default".to_owned())]);
    names.extend(bases.iter().flat_map(|b| b.column_families.iter().map(|f| (f.id, f.name.clone()))));
    let added = stream.families.iter().filter(|f| f.change == ColumnFamilyChange::Added);
    names.extend(added.map(|f| (f.id, f.name.clone())));
    names
}

impl<S: Source + Send> Scan<S> {
    /// The entries in order.
    pub async fn run(self) -> Result<impl Entries<Item = Result<LogEntry>> + Send> {
        self.refuse_unknown_family()?;
        let range = self.range().await?;
        let state =
            State { left: self.filter.limit.unwrap_or(u64::MAX), next: 0, range, queue: VecDeque::new(), scan: self };
        Ok(futures::stream::try_unfold(state, |mut state| async move {
            let entry = state.next().await?;
            Ok(entry.map(|entry| (entry, state)))
        })
        .into_stream())
    }

    /// The boundaries around the records asked for.
    async fn range(&self) -> Result<(Boundary, Boundary)> {
        let head = self.stream.head().boundary;
        let from = match &self.filter.from {
            None => Boundary::START,
            Some(Target::Record(record)) => record.before(),
            Some(target) => match self.place(target).await {
                // Asking from before the beginning is asking for everything.
                Err(e) if e.code() == Code::TargetBeforeStart => Boundary::START,
                other => other?,
            },
        };
        let to = match &self.filter.to {
            None => head,
            Some(Target::Record(record)) => record.after().map_or(head, |after| after.min(head)),
            Some(target) => match self.place(target).await {
                Err(e) if e.code() == Code::TargetAfterEnd => head,
                Err(e) if e.code() == Code::TargetBeforeStart => Boundary::START,
                other => other?,
            },
        };
        if from > to && self.filter.from.is_some() && self.filter.to.is_some() {
            return Err(Error::new(Code::Usage, "reading the range")
                .with("from", from.next_record())
                .with("to", to)
                .hint("--from lies behind --to: nothing can match"));
        }
        Ok((from, to))
    }

    /// A family that was never there has no records, but a misspelt name looks the same.
    fn refuse_unknown_family(&self) -> Result<()> {
        let Some(name) = &self.filter.column_family else { return Ok(()) };
        let by_id = name.parse::<u32>().is_ok();
        if by_id || self.names.values().any(|known| known == name) {
            return Ok(());
        }
        let mut e = Error::new(Code::Usage, "finding the column family").on(name).hint("--cf takes a name, or an id");
        for known in self.names.values().take(20) {
            e = e.with("there is", known);
        }
        Err(e)
    }

    async fn place(&self, target: &Target) -> Result<Boundary> {
        let tag = match target {
            Target::Tag(name) => self.tags.iter().find(|tag| tag.name == *name),
            _ => None,
        };
        let resolved = resolve::resolve(&self.stream, &self.source, target, tag).await?;
        Ok(resolved.place.boundary)
    }
}

struct State<S> {
    scan: Scan<S>,
    range: (Boundary, Boundary),
    /// Index of the piece to read next.
    next: usize,
    queue: VecDeque<LogEntry>,
    left: u64,
}

impl<S: Source> State<S> {
    async fn next(&mut self) -> Result<Option<LogEntry>> {
        loop {
            if self.left == 0 {
                return Ok(None);
            }
            if let Some(entry) = self.queue.pop_front() {
                self.left -= 1;
                return Ok(Some(entry));
            }
            let Some(piece) = self.scan.stream.pieces.get(self.next).cloned() else { return Ok(None) };
            self.next += 1;
            let (from, to) = self.range;
            if piece.start.boundary >= to {
                return Ok(None);
            }
            if piece.end.boundary > from && piece.start.boundary < piece.end.boundary {
                self.read(&piece).await?;
            }
        }
    }

    async fn read(&mut self, piece: &Piece) -> Result<()> {
        let samples = self.scan.source.samples(piece.timeline, &piece.summary).await?;
        let later = self.first_look_after(piece);
        for ReadEntry { at, entry, .. } in self.scan.source.entries(piece.timeline, &piece.summary).await? {
            let Entry::Record(record) = entry else { continue };
            if at < self.range.0 || at >= self.range.1.min(piece.end.boundary) {
                continue;
            }
            let look = samples.iter().find(|s| s.boundary > at).or(later.as_ref());
            self.record(piece.timeline, at.next_record(), &record, look)?;
            if self.queue.len() as u64 >= self.left {
                break;
            }
        }
        Ok(())
    }

    /// A look that a later segment noted also showed this one's records.
    fn first_look_after(&self, piece: &Piece) -> Option<TimeSample> {
        let later = self.scan.stream.pieces.iter().skip(self.next).find_map(|p| p.summary.observed);
        later.map(|(first, _)| first).filter(|first| first.boundary >= piece.end.boundary)
    }

    fn record(
        &mut self,
        timeline: TimelineId,
        number: RecordNumber,
        record: &Record,
        look: Option<&TimeSample>,
    ) -> Result<()> {
        let malformed = |e| Error::new(Code::BatchMalformed, "decoding record").on(number).because(e);
        let batch = WriteBatch::parse(&record.payload).map_err(malformed)?;
        let withdrawn = number.after().is_some_and(|end| self.scan.stream.touches_withdrawn(number.before(), end));
        // Inside a prepare section nothing has a number yet, and what a commit is given is not in the record.
        let plain = batch.scan().map_err(malformed)?.two_phase.is_none();
        let mut sequence = batch.sequence();
        for (index, op) in (0u64..).zip(batch.ops()) {
            let op = op.map_err(malformed)?;
            let own = (plain && op.is_data()).then_some(sequence);
            if op.is_data() {
                sequence = sequence.checked_add(1).unwrap_or(SequenceNumber::MAX);
            }
            if !self.wanted(&op) {
                continue;
            }
            let (operation, value) = describe(&op);
            let raw = |bytes: &[u8]| Raw(record.payload.slice_ref(bytes));
            self.queue.push_back(LogEntry {
                timeline,
                record: number,
                index,
                seen: look.map(|look| look.at.to_datetime()),
                unseen: look.map(|look| look.from).filter(|from| from.0 > 0).map(|from| from.to_datetime()),
                wal: record.wal,
                offset: record.start,
                sequence: own,
                column_family: op.column_family().map(|id| FamilyName { id, name: self.scan.names.get(&id).cloned() }),
                operation,
                key: op.key().map(raw),
                value: value.map(raw),
                withdrawn,
            });
        }
        Ok(())
    }

    fn wanted(&self, op: &Op<'_>) -> bool {
        let filter = &self.scan.filter;
        if let Some(name) = &filter.column_family {
            let Some(id) = op.column_family() else { return false };
            let named = self.scan.names.get(&id).is_some_and(|known| known == name);
            if !named && id.to_string() != *name {
                return false;
            }
        }
        let key = |key: &[u8]| holds(op, key);
        let prefix = |prefix: &[u8]| reaches(op, prefix);
        filter.key.as_deref().is_none_or(key) && filter.prefix.as_deref().is_none_or(prefix)
    }
}

/// Whether an operation touches `key`. The order of keys is the column family's own affair, so a range counts in both
/// directions.
fn holds(op: &Op<'_>, key: &[u8]) -> bool {
    match op {
        Op::DeleteRange { begin, end, .. } => {
            *begin == key || (*begin < key && key < *end) || (*end < key && key < *begin)
        }
        op => op.key() == Some(key),
    }
}

fn reaches(op: &Op<'_>, prefix: &[u8]) -> bool {
    match op {
        Op::DeleteRange { begin, end, .. } => {
            let (low, high) = if begin <= end { (*begin, *end) } else { (*end, *begin) };
            low.starts_with(prefix) || high.starts_with(prefix) || (low < prefix && prefix < high)
        }
        op => op.key().is_some_and(|key| key.starts_with(prefix)),
    }
}

fn describe<'a>(op: &Op<'a>) -> (Operation, Option<&'a [u8]>) {
    match *op {
        Op::Put { value, .. } => (Operation::Put, Some(value)),
        Op::Delete { .. } => (Operation::Delete, None),
        Op::SingleDelete { .. } => (Operation::SingleDelete, None),
        Op::Merge { operand, .. } => (Operation::Merge, Some(operand)),
        Op::DeleteRange { end, .. } => (Operation::DeleteRange, Some(end)),
        Op::PutEntity { entity, .. } => (Operation::PutEntity, Some(entity)),
        Op::TimedPut { value, .. } => (Operation::TimedPut, Some(value)),
        Op::BlobIndex { index, .. } => (Operation::BlobIndex, Some(index)),
        Op::LogData { blob } => (Operation::LogData, Some(blob)),
        Op::Noop => (Operation::Noop, None),
        Op::BeginPrepare { .. } => (Operation::BeginPrepare, None),
        Op::EndPrepare { xid } => (Operation::EndPrepare, Some(xid)),
        Op::Commit { xid } | Op::CommitWithTimestamp { xid, .. } => (Operation::Commit, Some(xid)),
        Op::Rollback { xid } => (Operation::Rollback, Some(xid)),
    }
}

#[cfg(test)]
mod tests;
