//! Where a history forked: the last archived record that the server still has.
//!
//! Owns: comparing the archive's records with the files, first by the running prefix that every segment names for each of
//! its WALs, then record by record inside the one segment that differs. Reads the archive and our pins; writes nothing.
//! Refuses: to guess. Where a WAL is gone that would have to be compared, there is no answer.

use pitr_archive::{
    Code, Error, Result,
    catalog::{
        archive::Archive,
        model::Timeline,
        schema::{Position, SegmentSummary, WalSpan},
    },
    ids::{Boundary, FileNumber, SequenceNumber},
    rocks::{
        log_reader::Finality,
        transactions::{Advance, Transactions},
        write_batch::WriteBatch,
    },
    segment::{
        chain::WalPrefix,
        entry::{Entry, Event, Record},
        reader::Placed,
    },
};

use crate::{
    engine::{Before, Evidence},
    registry::Registry,
    wal_tail::{Step, WalTail},
};

/// Where the server left the last run of `timeline`; `None` if that cannot be told.
pub async fn position(
    archive: &Archive,
    timeline: &Timeline,
    registry: &Registry,
    evidence: Evidence,
) -> Result<Option<Position>> {
    let by_bytes = match evidence {
        Evidence::Lineage => return Ok(None),
        Evidence::PutBack => {
            // Older ones had been flushed by the state that is back. That nothing differs would only say that what could
            // be compared is gone.
            let oldest = registry.wals_from(FileNumber::default()).first().map(|(wal, _)| *wal);
            let Some(oldest) = oldest else { return Ok(None) };
            let found = by_bytes(archive, timeline, registry, (oldest, Before::Unknown)).await?;
            found.filter(|found| found.boundary < timeline.end())
        }
        Evidence::Bytes { from, before } => by_bytes(archive, timeline, registry, (from, before)).await?,
        Evidence::StoppedIn(wal) => return behind(archive, timeline, wal).await,
        Evidence::TakenBack { from, .. } => by_bytes(archive, timeline, registry, (from, Before::Shared)).await?,
    };
    let Evidence::TakenBack { sequence, .. } = evidence else { return Ok(by_bytes) };
    let by_number = by_number(archive, timeline, sequence).await?;
    Ok([by_bytes, by_number].into_iter().flatten().min_by_key(|position| position.boundary))
}

/// The end of the records that the files still have, byte for byte.
///
/// Where the very first record that is compared differs, and nothing shows that what came before is the server's, too,
/// the fork can lie anywhere before.
async fn by_bytes(
    archive: &Archive,
    timeline: &Timeline,
    registry: &Registry,
    (from, before): (FileNumber, Before),
) -> Result<Option<Position>> {
    let mut compared = None;
    let Some(run) = timeline.runs().last() else { return Ok(None) };
    let mut present: Option<(WalTail, WalPrefix)> = None;
    for segment in timeline.segments_covering(run.start, timeline.end()) {
        for span in segment.wals.iter().filter(|span| span.wal >= from && span.first >= run.start) {
            if present.as_ref().is_none_or(|(tail, _)| tail.wal() != span.wal) {
                let Some(tail) = WalTail::open(registry, span.wal)? else { return Ok(None) };
                present = Some((tail, WalPrefix::new(archive.keyring().hash_key())));
            }
            let Some((tail, prefix)) = &mut present else { continue };
            let mut records = Vec::new();
            while tail.end() < span.end {
                match tail.next(Finality::Growing)? {
                    Step::Record(record) => {
                        prefix.push(&record);
                        records.push(record);
                    }
                    Step::TimestampSizes { .. } => {}
                    Step::EndSoFar | Step::FinalEnd { .. } | Step::Corrupt { .. } => break,
                }
            }
            if tail.end() != span.end || prefix.value() != span.prefix {
                let found = first_difference(archive, timeline, segment, span, &records).await?;
                let certain = before == Before::Shared || compared.is_some() || found.boundary > span.first;
                return Ok(Some(found).filter(|_| certain));
            }
            compared = Some(span.wal);
        }
    }
    // Nothing is lost: the files go on from the end of what is archived.
    let last = timeline.segments_covering(run.start, timeline.end()).last();
    match last.filter(|_| timeline.end() > run.start) {
        None => Ok(None),
        Some(segment) => within(archive, timeline, segment, timeline.end()).await.map(Some),
    }
}

/// The end of the last run's last record in a WAL up to `last`.
async fn behind(archive: &Archive, timeline: &Timeline, last: FileNumber) -> Result<Option<Position>> {
    let Some(run) = timeline.runs().last() else { return Ok(None) };
    let segments = timeline.segments_covering(run.start, timeline.end());
    let spans = segments.iter().flat_map(|segment| segment.wals.iter().map(move |span| (segment, span)));
    match spans.clone().find(|(_, span)| span.first >= run.start && span.wal > last) {
        None => Ok(None),
        Some((segment, span)) => within(archive, timeline, segment, span.first).await.map(Some),
    }
}

/// The end of the last record of `span` that is among `records`, which are the server's.
async fn first_difference(
    archive: &Archive,
    timeline: &Timeline,
    segment: &SegmentSummary,
    span: &WalSpan,
    records: &[Record],
) -> Result<Position> {
    let reader = archive.read_segment(timeline.id(), segment.ordinals()).await?;
    let mut fork = span.first;
    for placed in reader.entries() {
        let Placed { at, entry: Entry::Record(archived), .. } = placed? else { continue };
        if at < span.first || archived.wal != span.wal {
            continue;
        }
        if !records.iter().any(|ours| ours.start == archived.start && ours.payload == archived.payload) {
            break;
        }
        fork = at.next().ok_or_else(|| Error::new(Code::Internal, "numbering records of").on(segment.ordinal))?;
    }
    within(archive, timeline, segment, fork).await
}

/// The end of the last record of the last run below the number `sequence`, from which on all were taken back.
async fn by_number(archive: &Archive, timeline: &Timeline, sequence: SequenceNumber) -> Result<Option<Position>> {
    let Some(run) = timeline.runs().last() else { return Ok(None) };
    for segment in timeline.segments_covering(run.start, timeline.end()).iter().rev() {
        let mut kept = None;
        for placed in archive.read_segment(timeline.id(), segment.ordinals()).await?.entries() {
            let Placed { at, entry: Entry::Record(record), .. } = placed? else { continue };
            if at >= run.start && WriteBatch::parse(&record.payload).is_ok_and(|batch| batch.sequence() < sequence) {
                kept = at.next();
            }
        }
        if let Some(kept) = kept {
            return within(archive, timeline, segment, kept).await.map(Some);
        }
    }
    Ok(None)
}

/// The position directly after the record before `boundary`, which lies in `segment`.
async fn within(
    archive: &Archive,
    timeline: &Timeline,
    segment: &SegmentSummary,
    boundary: Boundary,
) -> Result<Position> {
    let before = timeline.segments().iter().rev().find(|s| s.ordinal < segment.ordinal);
    let mut here = Position {
        timeline: timeline.id(),
        boundary: segment.first,
        hash: segment.hash_before,
        wal: None,
        offset: None,
        sequence: before.map_or_else(SequenceNumber::default, |before| before.last_sequence),
    };
    let mut transactions = before.map_or_else(Transactions::default, |before| before.transactions.clone());
    for placed in archive.read_segment(timeline.id(), segment.ordinals()).await?.entries() {
        let Placed { at, entry, hash_after } = placed?;
        if at >= boundary {
            break;
        }
        match entry {
            Entry::Record(record) => {
                here = Position {
                    boundary: at.next().unwrap_or(at),
                    hash: hash_after,
                    wal: Some(record.wal),
                    offset: Some(record.end),
                    sequence: last_sequence(&mut transactions, &record, at, here.sequence),
                    ..here
                };
            }
            Entry::Event(event) => {
                here = Position { boundary: at, hash: hash_after, ..here };
                match event {
                    Event::RunStarted { .. } => transactions = Transactions::default(),
                    Event::SessionStarted { last_sequence, .. } => here.sequence = last_sequence,
                    _ => {}
                }
            }
        }
    }
    if here.boundary != boundary {
        return Err(Error::new(Code::SegmentDamaged, "finding the place of a fork in")
            .on(segment.ordinal)
            .with("boundary", boundary)
            .with("reached", here.boundary));
    }
    Ok(here)
}

/// `LastSequence` after a record; `before` where it consumes nothing or cannot be read.
fn last_sequence(
    transactions: &mut Transactions,
    record: &Record,
    at: Boundary,
    before: SequenceNumber,
) -> SequenceNumber {
    let mut read = || {
        let batch = WriteBatch::parse(&record.payload).ok()?;
        let scanned = transactions.scan(&batch).ok()?;
        let advance = transactions.apply(&batch, &scanned, record.wal, at.next_record()).ok()?;
        let (Advance::Exactly(numbers) | Advance::AtLeast(numbers)) = advance;
        batch.sequence().get().checked_add(numbers)?.checked_sub(1).filter(|_| numbers > 0)
    };
    read().map_or(before, SequenceNumber::new)
}
