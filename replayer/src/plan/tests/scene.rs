//! Hand-made streams: a script of records, events and looks at the clock, cut into segments, with bases and a tag.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use bytes::Bytes;
use pitr_archive::{
    Result,
    catalog::schema::{
        BaseDocument, DatabasePaths, Extra, PlacedEvent, Position, SegmentSummary, Special, TagDocument, TimeSample,
        WalSpan,
    },
    clock::Micros,
    ids::{
        ArchiveId, BaseId, Boundary, ColumnFamilyId, ContentHash, Epoch, FileNumber, Nonce, Ordinal, RunningHash,
        SequenceNumber, TimelineId,
    },
    rocks::{
        transactions::Transactions,
        write_batch::{Op, WriteBatch, WriteBatchBuilder, WritePolicy},
    },
    segment::entry::{BarrierReason, CapturedFile, ColumnFamilyChange, Entry, Event, Interval, ManifestPoint, Record},
};

use crate::{
    plan::{
        PlanOptions, RestorePlan,
        assemble::{Inputs, assemble},
        source::{ReadEntry, Source},
        stream::{Ancestor, Stream},
    },
    target::Target,
};

mod lineage;
use lineage::Ended;

pub(super) fn b(n: u64) -> Boundary {
    Boundary::new(n)
}

pub(super) fn seq(n: u64) -> SequenceNumber {
    SequenceNumber::new(n)
}

/// An archive in memory: the timeline that is being written, and those that it left.
pub(super) struct Scene {
    timeline: TimelineId,
    left: Vec<Ended>,
    segments: Vec<SegmentSummary>,
    contents: BTreeMap<(TimelineId, Ordinal), Content>,
    pub bases: Vec<BaseDocument>,
    pub tag: Option<TagDocument>,
    open: Open,
    hash: RunningHash,
    at: u64,
    pub latest: u64,
    wal: u64,
    offset: u64,
    run: u64,
    transactions: Transactions,
    /// How far the MANIFEST was read.
    manifest: ManifestPoint,
    /// Of every segment.
    pub plain_bytes: u64,
    /// Files that events name and the archive has not any more.
    pub lost_files: Vec<FileNumber>,
}

/// What is in a segment.
struct Content {
    entries: Vec<ReadEntry>,
    samples: Vec<TimeSample>,
    manifest: ManifestPoint,
}

#[derive(Default)]
struct Open {
    entries: Vec<ReadEntry>,
    events: Vec<PlacedEvent>,
    spans: Vec<WalSpan>,
    samples: Vec<TimeSample>,
    through: Option<Micros>,
    sequences: Vec<(u64, u64)>,
    first: u64,
    before: Option<RunningHash>,
    special: BTreeSet<Special>,
}

impl Scene {
    /// A stream whose first run begins at WAL 10.
    pub fn new() -> Self {
        let mut scene = Self::empty();
        scene.run_started(0, 10);
        scene
    }

    /// No segment at all.
    pub fn empty() -> Self {
        Self {
            timeline: TimelineId::FIRST,
            left: Vec::new(),
            segments: Vec::new(),
            contents: BTreeMap::new(),
            bases: Vec::new(),
            tag: None,
            open: Open::default(),
            hash: RunningHash::ZERO,
            at: 0,
            latest: 0,
            wal: 10,
            offset: 0,
            run: 0,
            transactions: Transactions::default(),
            manifest: point(0),
            lost_files: Vec::new(),
            plain_bytes: 100,
        }
    }

    fn entry(&mut self, entry: Entry) {
        self.open.before.get_or_insert(self.hash);
        let at = b(self.at);
        self.hash = RunningHash(*blake3::hash(format!("{} {at} {entry:?}", self.hash).as_bytes()).as_bytes());
        self.open.entries.push(ReadEntry { at, entry, hash: self.hash });
    }

    pub fn event(&mut self, event: Event) -> &mut Self {
        if let Event::SessionStarted { manifest, .. } | Event::ColumnFamily { manifest, .. } = &event {
            self.manifest = self.manifest.max(*manifest);
        }
        self.open.events.push(PlacedEvent { at: b(self.at), event: event.clone() });
        self.entry(Entry::Event(event));
        self
    }

    pub fn run_started(&mut self, run: u64, wal: u64) -> &mut Self {
        (self.run, self.wal, self.offset) = (run, wal, 0);
        self.transactions = Transactions::default();
        self.event(Event::RunStarted { run, first_wal: FileNumber::new(wal), db_id: "id".to_owned() })
    }

    pub fn session(&mut self, session: u64, last: u64) -> &mut Self {
        self.latest = last;
        self.event(Event::SessionStarted {
            session,
            db_session_id: None,
            manifest: point(session),
            last_sequence: seq(last),
        })
    }

    /// A session whose MANIFEST is another file than that of all before.
    pub fn next_session(&mut self, file: u64, last: u64) -> &mut Self {
        self.latest = last;
        self.event(Event::SessionStarted {
            session: 1,
            db_session_id: None,
            manifest: ManifestPoint { file: FileNumber::new(file), offset: 1 },
            last_sequence: seq(last),
        })
    }

    pub fn wal(&mut self, wal: u64) -> &mut Self {
        (self.wal, self.offset) = (wal, 0);
        self
    }

    fn payload(&mut self, payload: Vec<u8>, first: u64, end: u64) -> &mut Self {
        let (wal, start) = (FileNumber::new(self.wal), self.offset);
        let batch = WriteBatch::parse(&payload).unwrap();
        let scanned = self.transactions.scan(&batch).unwrap();
        self.transactions.apply(&batch, &scanned, wal, b(self.at).next_record()).unwrap();
        self.offset += payload.len() as u64 + 7;
        let end_offset = self.offset;
        match self.open.spans.last_mut() {
            Some(span) if span.wal == wal => span.end = end_offset,
            _ => self.open.spans.push(WalSpan {
                wal,
                first: b(self.at),
                start,
                end: end_offset,
                prefix: ContentHash([0; 32]),
            }),
        }
        self.open.sequences.push((first, end));
        self.entry(Entry::Record(Record { wal, start, end: end_offset, payload: Bytes::from(payload) }));
        self.at += 1;
        self.latest = end;
        self
    }

    /// A record of `n` puts, numbered on from the one before.
    pub fn put(&mut self, n: u64) -> &mut Self {
        let first = self.latest + 1;
        self.put_at(first, n)
    }

    /// A record of one operation that is not plain.
    pub fn special(&mut self, special: Special) -> &mut Self {
        self.open.special.insert(special);
        self.put(1)
    }

    /// A record of `n` puts that starts at `first`.
    pub fn put_at(&mut self, first: u64, n: u64) -> &mut Self {
        let mut batch = WriteBatchBuilder::new(seq(first));
        for _ in 0..n {
            batch.push(&Op::Put { cf: ColumnFamilyId::DEFAULT, key: b"k", value: b"v" });
        }
        if n == 0 {
            batch.push(&Op::LogData { blob: b"remark" });
        }
        self.payload(batch.finish(), first, first + n - 1)
    }

    pub fn prepare(&mut self) -> &mut Self {
        let first = self.latest + 1;
        let mut batch = WriteBatchBuilder::new(seq(first));
        batch.push(&Op::BeginPrepare { policy: WritePolicy::WriteCommitted });
        batch.push(&Op::EndPrepare { xid: b"x" });
        self.payload(batch.finish(), first, first - 1)
    }

    /// A commit whose prepared part is not in the stream.
    pub fn commit_of_unknown(&mut self) -> &mut Self {
        let first = self.latest + 1;
        let mut batch = WriteBatchBuilder::new(seq(first));
        batch.push(&Op::Commit { xid: b"unknown" });
        self.payload(batch.finish(), first, first)
    }

    pub fn barrier(&mut self, reason: BarrierReason, lo: u64, hi: Option<u64>) -> &mut Self {
        self.event(Event::Barrier {
            unexplained: None,
            reason,
            interval: Interval { lo: b(lo), hi: hi.map(b) },
            manifest: None,
            detail: "seen".to_owned(),
            noticed: Micros(0),
        })
    }

    /// Numbers up to `unexplained` were used here by writes that are not in the log.
    pub fn jump(&mut self, unexplained: u64) -> &mut Self {
        self.event(Event::Barrier {
            unexplained: Some(seq(unexplained)),
            reason: BarrierReason::SequenceJump,
            interval: Interval { lo: b(self.at), hi: Some(b(self.at)) },
            manifest: None,
            detail: "seen".to_owned(),
            noticed: Micros(0),
        })
    }

    /// Files ingested, seen in the MANIFEST at `offset`.
    pub fn ingested(&mut self, offset: u64, lo: u64, hi: Option<u64>) -> &mut Self {
        self.event(Event::Barrier {
            unexplained: None,
            reason: BarrierReason::ChangeOutsideWal,
            interval: Interval { lo: b(lo), hi: hi.map(b) },
            manifest: Some(point(offset)),
            detail: "seen".to_owned(),
            noticed: Micros(0),
        })
    }

    /// A column family edit at MANIFEST offset `offset`.
    pub fn family(&mut self, change: ColumnFamilyChange, offset: u64, lo: u64, hi: Option<u64>) -> &mut Self {
        self.event(Event::ColumnFamily {
            change,
            id: ColumnFamilyId::new(1),
            name: "x".to_owned(),
            interval: Interval { lo: b(lo), hi: hi.map(b) },
            manifest: point(offset),
            edit: String::new(),
        })
    }

    pub fn withdraw(&mut self, from: u64, to: u64) -> &mut Self {
        self.event(Event::Withdrawn { from: b(from), to: b(to), evidence: "seen".to_owned() })
    }

    /// A look at the readable end: from `from` to `at`, in microseconds.
    pub fn look(&mut self, from: i64, at: i64) -> &mut Self {
        let events = self.open.events.len() as u64;
        self.open.samples.push(TimeSample { from: Micros(from), at: Micros(at), boundary: b(self.at), events });
        self
    }

    pub fn through(&mut self, at: i64) -> &mut Self {
        self.open.through = Some(Micros(at));
        self
    }

    /// Ends the segment.
    pub fn cut(&mut self) -> &mut Self {
        let open = std::mem::take(&mut self.open);
        let ordinal = Ordinal::new(self.segments.len() as u64);
        self.segments.push(SegmentSummary {
            last_ordinal: None,
            rolled_up: None,
            ordinal,
            epoch: Epoch::new(1),
            first: b(open.first),
            end: b(self.at),
            hash_before: open.before.unwrap_or(self.hash),
            hash_after: self.hash,
            min_sequence: open.sequences.iter().map(|s| s.0).min().map(seq),
            max_sequence: open.sequences.iter().map(|s| s.1).max().map(seq),
            last_sequence: seq(self.latest),
            transactions: self.transactions.clone(),
            special: Some(open.special),
            wals: open.spans,
            observed: open.samples.first().copied().zip(open.samples.last().copied()),
            observed_through: open.through,
            plain_bytes: self.plain_bytes,
            events: open.events,
            object_bytes: 50,
            merged: None,
        });
        let content = Content { entries: open.entries, samples: open.samples, manifest: self.manifest };
        self.contents.insert((self.timeline, ordinal), content);
        self.open.first = self.at;
        self
    }

    pub fn position(&self) -> Position {
        Position {
            timeline: self.timeline,
            boundary: b(self.at),
            hash: self.hash,
            wal: None,
            offset: None,
            sequence: seq(self.latest),
        }
    }

    /// A base whose floor is here and whose records begin at `first`; its MANIFEST prefix ends at `manifest`.
    pub fn base(&mut self, first: u64, manifest: u64, last_sequence: u64) -> &mut Self {
        let hash_at = |at: u64| {
            let before = |entries: &[ReadEntry]| entries.iter().rev().find(|e| e.at < b(at)).map(|e| e.hash);
            before(&self.open.entries)
                .or_else(|| self.contents.values().rev().find_map(|content| before(&content.entries)))
                .unwrap_or(RunningHash::ZERO)
        };
        let number = self.bases.len() as u32;
        let base = BaseDocument {
            version: 1,
            archive: ArchiveId([1; 16]),
            id: BaseId::new(chrono::DateTime::UNIX_EPOCH, number),
            run: self.run,
            floor: self.position(),
            first_wal: FileNumber::new(self.wal),
            first_record: b(first),
            first_hash: if first == self.at { self.hash } else { hash_at(first) },
            last_sequence: seq(last_sequence),
            max_file_sequence: seq(last_sequence),
            manifest: point(manifest),
            db_id: "id".to_owned(),
            rocksdb_version: "11.8.1".to_owned(),
            column_families: Vec::new(),
            allow_2pc: false,
            paths: DatabasePaths { db: "/db".to_owned(), ..DatabasePaths::default() },
            inline: Vec::new(),
            files: Vec::new(),
            created: Micros(0),
            epoch: Epoch::new(1),
            nonce: Nonce([0; 16]),
            extra: Extra::new(),
        };
        self.bases.push(base);
        self
    }

    /// A tag here.
    pub fn tag(&mut self, name: &str) -> &mut Self {
        self.tag = Some(TagDocument {
            version: 1,
            archive: ArchiveId([1; 16]),
            name: name.to_owned(),
            position: self.position(),
            created: Micros(0),
            note: String::new(),
            observed_only: false,
            expires: None,
            group: None,
            nonce: Nonce([0; 16]),
            extra: Extra::new(),
        });
        self
    }

    pub fn stream(&self) -> Stream {
        Stream::new(
            TimelineId::FIRST,
            &[Ancestor { timeline: TimelineId::FIRST, segments: &self.segments, until: None }],
        )
    }

    /// The stream of a timeline that left this one at `until`, as far as it is this one's.
    pub fn stream_until(&self, until: u64) -> Stream {
        let until = Position { boundary: b(until), hash: RunningHash([0xff; 32]), ..self.position() };
        let ancestor = Ancestor { timeline: TimelineId::FIRST, segments: &self.segments, until: Some(until) };
        Stream::new(TimelineId::FIRST, &[ancestor])
    }

    /// Plans with these options.
    pub fn plan_with(&self, target: &Target, options: &PlanOptions) -> Result<RestorePlan> {
        let stream = self.stream();
        let inputs = Inputs {
            archive: ArchiveId([1; 16]),
            stream: &stream,
            bases: &self.bases,
            source: self,
            tag: self.tag.as_ref(),
        };
        futures::executor::block_on(assemble(&inputs, target, options))
    }

    pub fn plan(&self, target: &Target) -> Result<RestorePlan> {
        self.plan_with(target, &PlanOptions::default())
    }
}

pub(super) fn point(offset: u64) -> ManifestPoint {
    ManifestPoint { file: FileNumber::new(1), offset }
}

#[async_trait]
impl Source for Scene {
    async fn entries(&self, timeline: TimelineId, segment: &SegmentSummary) -> Result<Vec<ReadEntry>> {
        Ok(self.contents[&(timeline, segment.ordinal)].entries.clone())
    }

    async fn samples(&self, timeline: TimelineId, segment: &SegmentSummary) -> Result<Vec<TimeSample>> {
        Ok(self.contents[&(timeline, segment.ordinal)].samples.clone())
    }

    async fn has(&self, file: &CapturedFile) -> Result<bool> {
        Ok(!self.lost_files.contains(&file.number))
    }

    async fn manifest(&self, timeline: TimelineId, segment: &SegmentSummary) -> Result<Option<ManifestPoint>> {
        Ok(Some(self.contents[&(timeline, segment.ordinal)].manifest))
    }
}
