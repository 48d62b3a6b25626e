//! Puts a plan together: resolve, choose, then list what will be read and written.
//!
//! Owns: the order of those steps. Everything it needs comes as values, but for the few reads
//! through `source`.

use std::{borrow::Cow, collections::BTreeMap};

use pitr_archive::{
    Code, Error, Result,
    catalog::schema::{BaseDocument, TagDocument},
    ids::{ArchiveId, Boundary, FileNumber, RunningHash, SequenceNumber},
    rocks::{
        transactions::{Prepared, Transactions, Xid, recovery_miscounts},
        write_batch::{Op, WriteBatch},
    },
    segment::entry::Entry,
};

use super::{
    ColumnFamilyEdit, CrossIngest, InsideEvent, PendingTransaction, PlanOptions, PlannedBase, PlannedPosition,
    PlannedSegment, PlannedWal, RestorePlan, UnloggedFamily, WalTimestampSizes,
    choose::{Choice, Chooser, Expected, Obstacle},
    edit,
    engine::{self, Arrival, Engine},
    facts,
    flushed::PlannedFlush,
    ingestion::{Judge, PlannedIngestion},
    notes,
    resolve::{self, Resolved, by_time},
    source::{Source, all_exact},
    stream::{Piece, Place, Run, Side, Stream},
};
use crate::target::Target;

/// What planning looks at.
pub(crate) struct Inputs<'a> {
    pub archive: ArchiveId,
    pub stream: &'a Stream,
    /// Bases of this lineage, oldest first.
    pub bases: &'a [BaseDocument],
    pub source: &'a dyn Source,
    /// The tag's document, when the target is a tag that exists.
    pub tag: Option<&'a TagDocument>,
}

/// Makes the plan, or says exactly why there is none.
pub(crate) async fn assemble(inputs: &Inputs<'_>, target: &Target, options: &PlanOptions) -> Result<RestorePlan> {
    let Inputs { stream, bases, source, .. } = *inputs;
    if stream.pieces.is_empty() {
        return Err(Error::new(Code::TargetBeforeStart, "finding").on(target).with("archived", "nothing yet"));
    }
    let mut resolved = resolve::resolve(stream, source, target, inputs.tag).await?;
    if let Some(hash) = resolved.hash.take() {
        let boundary = resolved.place.boundary;
        let hashes = facts::hashes_at(stream, source, boundary).await?;
        resolved.place =
            hashes.into_iter().find(|(_, there)| *there == hash).map(|(place, _)| place).ok_or_else(|| {
                Error::new(Code::ChainBroken, "comparing the running hash at").on(target).with("boundary", boundary)
            })?;
    }
    resolve::leave_withdrawn(stream, &mut resolved);
    let chooser = Chooser { stream, bases, cross: options.cross_ingest };
    let (place, choice, sequence, ingestions) = loop {
        let refused = match pick(inputs, &chooser, target, &resolved).await? {
            Ok(found) => break found,
            Err(refused) => refused,
        };
        match (options.inside_event, refused.inside) {
            (InsideEvent::Before, Some(lo)) => step_back(&mut resolved, lo),
            _ => return Err(refused.error),
        }
    };
    if let Target::Sequence(wanted) = target
        && sequence > *wanted
    {
        // Files that entered without the log before the first base: it has them and their numbers, no record shows them.
        return Err(Error::new(Code::TargetBeforeStart, "planning a restore to")
            .on(target)
            .with("boundary", place.boundary)
            .with("the earliest state there has sequence", sequence));
    }
    let facts = facts::at(stream, source, place).await?;
    joins(stream, source, choice.base).await?;
    holds_what_is_pending(target, choice.base, &facts.transactions)?;
    keeps_what_is_pending_hidden(inputs, target, place, &facts.transactions).await?;
    let run =
        stream.run_at(place).ok_or_else(|| Error::new(Code::Internal, "planning outside every run").on(target))?;
    let arrival = Arrival { target, run, place, facts, sequence, ingestions };
    describe(inputs, options, resolved, arrival, choice).await
}

/// A refusal, and the end of the interval that holds the target, if that is the reason.
struct Refused {
    error: Error,
    inside: Option<Boundary>,
}

type Found<'a> = (Place, Choice<'a>, SequenceNumber, Vec<PlannedIngestion>);

/// The resolved place, and the base that reaches it.
async fn pick<'a>(
    inputs: &Inputs<'a>,
    chooser: &Chooser<'a>,
    target: &Target,
    resolved: &Resolved,
) -> Result<Result<Found<'a>, Refused>> {
    let Inputs { stream, source, .. } = *inputs;
    let boundary = resolved.place.boundary;
    let floors_here = chooser.bases.iter().any(|base| base.floor.boundary == boundary);
    let hashes = if floors_here { facts::hashes_at(stream, source, boundary).await? } else { Vec::new() };
    let place_of = |hash: RunningHash| hashes.iter().find(|(_, there)| *there == hash).map(|(place, _)| *place);
    let place = resolved.place;
    let floors = chooser.bases.iter().filter(|base| base.floor.boundary == boundary);
    let floors = floors.filter_map(|base| Some((base.id.clone(), stream.first_alike(place_of(base.floor.hash)?))));
    let floors = floors.collect();
    let ingested = stream.run_at(place).and_then(|run| stream.ingested_by(run, place));
    let there = facts::at(stream, source, place).await?.sequence.map(|there| there.max(ingested.unwrap_or_default()));
    let mut expected = Expected { there, floors, ..Expected::default() };
    let obstacle = loop {
        let choice = match chooser.choose(place, &expected) {
            Ok(choice) => choice,
            Err(obstacle) => break obstacle,
        };
        let base = choice.base;
        let mut sequence = chooser.sequence(base, place, &expected).unwrap_or(base.last_sequence);
        let replayed = facts::replayed_end(stream, source, base.first_record, boundary).await?;
        // A column family that came after writes without the log: with it and without them the database never was.
        let run = stream.run_at(place);
        let edits = run.map(|run| column_families(stream, run, base, place)).unwrap_or_default();
        let edited = edits.iter().filter_map(last_sequence).max();
        let ingestions = match run {
            Some(run) if chooser.cross == CrossIngest::Repeat => {
                let two_phase =
                    base.allow_2pc || facts::at(stream, source, place).await?.transactions.policy().is_some();
                let judge = Judge { stream, source, target, run, base, families: &edits, two_phase };
                judge.crossed(place).await.map_err(|e| name_nearest(chooser, place, e))?
            }
            _ => Vec::new(),
        };
        let ingested = ingestions.last().map(|last| last.sequence_after);
        if ingestions
            .last()
            .is_some_and(|last| stream.session_at(Place::before_events(last.at)) == stream.session_at(place))
        {
            sequence = sequence.max(ingested.unwrap_or_default());
        }
        match replayed.max(edited).max(ingested).filter(|recovered| *recovered > sequence) {
            None => return Ok(Ok((place, choice, sequence, ingestions))),
            Some(replayed) => expected.recovered.insert(base.id.clone(), replayed),
        };
    };
    let error = chooser.refuse(target, place, obstacle.as_ref());
    Ok(Err(Refused { error, inside: inside(place, obstacle.as_ref()) }))
}

/// The nearest places that are reached without crossing anything.
fn name_nearest(chooser: &Chooser<'_>, place: Place, e: Error) -> Error {
    if e.code() != Code::TargetBehindBarrier {
        return e;
    }
    Chooser { cross: CrossIngest::Refuse, ..*chooser }.with_nearest(place, e)
}

fn inside(place: Place, obstacle: Option<&Obstacle<'_>>) -> Option<Boundary> {
    let when = match obstacle? {
        Obstacle::Inside(event) => event.when,
        Obstacle::Barrier(barrier) => barrier.when,
        _ => return None,
    };
    (when.side(place) == Side::Inside).then_some(when.interval.lo)
}

fn step_back(resolved: &mut Resolved, lo: Boundary) {
    let from = resolved.place.boundary;
    resolved.place = Place::before_events(lo);
    let records = from.get().saturating_sub(lo.get());
    resolved.moved(records, format!(
        "the target lies inside the interval of a change outside the log; the last position certainly before it is {records} record(s) earlier"
    ));
}

/// The base's own words about its places are the archive's.
async fn joins(stream: &Stream, source: &dyn Source, base: &BaseDocument) -> Result<()> {
    for (boundary, hash, what) in
        [(base.first_record, base.first_hash, "first record"), (base.floor.boundary, base.floor.hash, "floor")]
    {
        if !facts::passes(stream, source, boundary, hash).await? {
            return Err(Error::new(Code::ChainBroken, "comparing the running hash of base")
                .on(&base.id)
                .with("place", what)
                .with("boundary", boundary));
        }
    }
    Ok(())
}

async fn describe(
    inputs: &Inputs<'_>,
    options: &PlanOptions,
    resolved: Resolved,
    arrival: Arrival<'_>,
    choice: Choice<'_>,
) -> Result<RestorePlan> {
    let Inputs { stream, source, .. } = *inputs;
    let column_families = column_families(stream, arrival.run, choice.base, arrival.place);
    let (engine, advanced) = engine::decide(inputs, options, &arrival, choice.base, &column_families).await?;
    let Arrival { target, run, place, facts, sequence, ingestions } = arrival;
    let boundary = place.boundary;
    let (flushes, base) = match advanced {
        Some(advanced) => advanced.on(choice.base),
        None => (Vec::new(), Cow::Borrowed(choice.base)),
    };
    let base = &*base;
    let flushed_bytes: u64 = flushes.iter().map(PlannedFlush::bytes).sum();
    let read = read(stream, base.first_record, place);
    all_exact(source, read).and(source.with_files(base))?;
    let segments = segments(read, base.first_record, place);
    let wals = wals(stream, run, base, boundary)?;
    let time = by_time::certain(stream, source, place).await?;
    let file_bytes: u64 = base.files.iter().map(|f| f.size).sum();
    // The catalog leaves the MANIFEST's bytes out.
    let inline_bytes: u64 = base.inline.iter().map(|f| f.content.len() as u64).sum::<u64>() + base.manifest.offset;
    let plain: u64 = stream.covering(base.first_record, boundary).map(|p| p.summary.plain_bytes).sum();
    // Framing costs at most one header for a record and one for each block; a record has at least twelve bytes.
    let wal_bytes = plain + plain / 2 + 32_768 * (wals.len() as u64 + 1);
    let withdrawn = stream
        .withdrawn
        .iter()
        .filter(|w| w.from < boundary && base.first_record < w.to)
        .map(|w| (w.from, w.to))
        .collect();
    let ingested_bytes: u64 = ingestions.iter().map(PlannedIngestion::bytes).sum();
    let mut distance = resolved.distance;
    distance.exact &= distance.text.is_empty();
    let mut notes = resolved.notes;
    notes.extend(notes::cautions(stream, base, boundary, &time));
    let pending = pending(&facts.transactions);
    notes.extend(notes::transactions(&facts.transactions));
    notes.extend(notes::ingestions(&ingestions));
    let unlogged = unlogged(stream, run, base);
    notes.extend(unlogged.iter().map(notes::unlogged));
    Ok(RestorePlan {
        archive: inputs.archive,
        target: target.clone(),
        position: PlannedPosition {
            timeline: stream.timeline_at(place),
            record: boundary.last_record(),
            wal: facts::wal_before(stream, boundary),
            sequence,
            boundary,
            run: run.number,
            hash: facts.hash,
        },
        distance,
        time,
        base: PlannedBase {
            id: base.id.clone(),
            created: base.created.to_datetime(),
            floor: base.floor,
            first_record: base.first_record,
            first_hash: base.first_hash,
            first_wal: base.first_wal,
            files: base.files.len(),
            bytes: file_bytes,
            reason: reason(choice),
        },
        download_bytes: file_bytes
            + flushed_bytes
            + ingested_bytes
            + inline_bytes
            + segments.iter().map(|s| s.bytes).sum::<u64>(),
        // Sorted operations wait on the disk while tables are made of them.
        disk_bytes: file_bytes
            + flushed_bytes
            + ingested_bytes
            + inline_bytes
            + if engine.name == Engine::Bulk { 2 * wal_bytes } else { wal_bytes },
        replayed_disk_bytes: file_bytes + flushed_bytes + ingested_bytes + inline_bytes + wal_bytes,
        segments,
        column_families,
        engine,
        part: None,
        flushes,
        ingestions,
        wals,
        withdrawn,
        two_phase: base.allow_2pc || facts.transactions.policy().is_some(),
        write_policy: facts.transactions.policy(),
        pending,
        unlogged,
        notes,
    })
}

/// RocksDB keeps every log from the first one on that holds something pending, so a base needs it. Where that is not so,
/// the copy would lack the transaction.
fn holds_what_is_pending(target: &Target, base: &BaseDocument, transactions: &Transactions) -> Result<()> {
    let before = |prepared: &Prepared| prepared.record.before() < base.first_record;
    match transactions.pending().find(|(_, prepared)| before(prepared)) {
        None => Ok(()),
        Some((xid, prepared)) => Err(Error::new(Code::TargetUnsupported, "planning a restore to")
            .on(target)
            .with("pending transaction", xid)
            .with("prepared in record", prepared.record)
            .with("the base's first record", base.first_record)
            .hint("the server gave up a log that held a prepared transaction; pitr check says whether its settings are the reason")),
    }
}

/// RocksDB itself would show a part of what is pending.
async fn keeps_what_is_pending_hidden(
    inputs: &Inputs<'_>,
    target: &Target,
    place: Place,
    transactions: &Transactions,
) -> Result<()> {
    let first = transactions.pending().map(|(_, prepared)| prepared.record.before()).min();
    let Some(first) = first.filter(|_| transactions.counts_batches()) else { return Ok(()) };
    for piece in inputs.stream.covering(first, place.boundary) {
        let read = inputs.source.entries(piece.timeline, &piece.summary).await?;
        for read in read.into_iter().filter(|read| piece.keeps(read.at, &read.entry) && read.at < place.boundary) {
            let Entry::Record(record) = &read.entry else { continue };
            let number = read.at.next_record();
            let malformed = |e| Error::new(Code::BatchMalformed, "decoding record").on(number).because(e);
            let batch = WriteBatch::parse(&record.payload).map_err(malformed)?;
            let prepares = batch.ops().filter_map(|op| match op {
                Ok(Op::EndPrepare { xid }) => Some(Xid::from(xid)),
                _ => None,
            });
            let pending = prepares.into_iter().find(|xid| transactions.pending().any(|(pending, _)| pending == xid));
            if let Some(xid) = pending
                && recovery_miscounts(&batch).map_err(malformed)?
            {
                return Err(Error::new(Code::TargetUnsupported, "planning a restore to")
                    .on(target)
                    .with("pending transaction", xid)
                    .with("prepared in record", number)
                    .hint("it writes a key three times: RocksDB's recovery takes a part of it for committed; behind its commit or rollback a restore is exact"));
            }
        }
    }
    Ok(())
}

fn pending(transactions: &Transactions) -> Vec<PendingTransaction> {
    let described = |(xid, prepared): (&Xid, &Prepared)| PendingTransaction {
        name: xid.to_string(),
        operations: prepared.operations,
        wal: prepared.wal,
        record: prepared.record,
    };
    transactions.pending().map(described).collect()
}

fn unlogged(stream: &Stream, run: Run, base: &BaseDocument) -> Vec<UnloggedFamily> {
    let described = |name: &str| UnloggedFamily {
        column_family: name.to_owned(),
        flushed_before: base.floor.boundary,
        as_of: base.created.to_datetime(),
    };
    stream.unlogged_in(run).into_iter().map(described).collect()
}

fn reason(choice: Choice<'_>) -> String {
    match choice.last_reason {
        None => "the newest base at or before the target".to_owned(),
        Some(why) => format!("the newest base that reaches the target; {} newer passed over ({why})", choice.passed),
    }
}

/// What a restore reads: from where the base's records begin to the target, with the events at both ends, because
/// running hashes may have been taken between them.
fn read(stream: &Stream, first: Boundary, place: Place) -> &[Piece] {
    // Nothing that came before the run is replayed in it: a child's records may begin where its parent's end.
    let begins = stream.run_at(place).map_or(Place::before_events(Boundary::START), |run| run.start);
    let from = stream.pieces.partition_point(|p| p.end.boundary < first || p.end <= begins);
    let until = stream.pieces.partition_point(|p| p.end < place);
    let end = until.saturating_add(1).min(stream.pieces.len());
    stream.pieces.get(from.min(end)..end).unwrap_or_default()
}

fn segments(read: &[Piece], first: Boundary, place: Place) -> Vec<PlannedSegment> {
    read.iter()
        .filter(|p| {
            // Events without records move the running hash, too: what follows joins only behind them.
            let moves = p.summary.hash_before != p.summary.hash_after && p.end.boundary > first;
            let events_at_an_end = p.summary.events.iter().any(|e| e.at == first || e.at == place.boundary);
            moves || events_at_an_end
        })
        .map(|p| PlannedSegment {
            timeline: p.timeline,
            ordinal: p.summary.ordinal,
            last_ordinal: p.summary.last_ordinal,
            first: p.summary.first,
            end: p.end.boundary,
            hash_before: p.summary.hash_before,
            hash_after: p.summary.hash_after,
            bytes: p.summary.object_bytes,
        })
        .collect()
}

fn wals(stream: &Stream, run: Run, base: &BaseDocument, target: Boundary) -> Result<Vec<PlannedWal>> {
    let mut wals: BTreeMap<FileNumber, PlannedWal> = BTreeMap::new();
    for piece in stream.covering(base.first_record, target) {
        let spans = &piece.summary.wals;
        let ends = spans.iter().skip(1).map(|s| s.first).chain([piece.end.boundary]);
        for (span, end) in spans.iter().zip(ends) {
            let (first, end) = (span.first.max(base.first_record), end.min(target));
            if first >= end {
                continue;
            }
            if span.wal < base.first_wal {
                return Err(Error::new(Code::ObjectDamaged, "reading base")
                    .on(&base.id)
                    .with("first WAL needed", base.first_wal)
                    .with("WAL of a record after its first", span.wal));
            }
            let wal = wals.entry(span.wal).or_insert_with(|| PlannedWal {
                number: span.wal,
                first,
                end,
                timestamp_sizes: Vec::new(),
            });
            wal.end = wal.end.max(end);
        }
    }
    for noted in stream.timestamp_sizes.iter().filter(|t| stream.in_run(run, t.place)) {
        if let Some(wal) = wals.get_mut(&noted.wal) {
            wal.timestamp_sizes.push(WalTimestampSizes { offset: noted.offset, sizes: noted.sizes.clone() });
        }
    }
    Ok(wals.into_values().collect())
}

fn column_families(stream: &Stream, run: Run, base: &BaseDocument, target: Place) -> Vec<ColumnFamilyEdit> {
    let mut edits: Vec<ColumnFamilyEdit> = stream
        .families_of(run)
        .filter(|f| f.manifest > base.manifest && f.when.side(target) == Side::After)
        .map(|f| ColumnFamilyEdit {
            change: f.change,
            id: f.id,
            name: f.name.clone(),
            manifest: f.manifest,
            edit: f.edit.clone(),
            settings: stream.settings_of(run, f.id).cloned(),
        })
        .collect();
    edits.sort_by_key(|e| e.manifest);
    edits.dedup_by_key(|e| e.manifest);
    edits
}

/// `LastSequence` as an edit says it. One that cannot be read is refused when it is laid down.
fn last_sequence(edit: &ColumnFamilyEdit) -> Option<SequenceNumber> {
    edit::look(&edit.edit, |edit| edit.last_sequence)
}
