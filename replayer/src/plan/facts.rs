//! What is true at a place: running hash, latest sequence number, the WAL of the record before it.
//!
//! Owns: finding it with as little reading as possible. Where a segment ends, its summary says everything; inside one,
//! its entries are read up to the place.

use std::ops::ControlFlow;

use pitr_archive::{
    Code, Error, Result,
    ids::{Boundary, FileNumber, RunningHash, SequenceNumber},
    rocks::transactions::Transactions,
    segment::entry::{Entry, Event},
};

use super::{
    sequence,
    source::Source,
    stream::{Piece, Place, Stream},
};

/// What is true at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub hash: RunningHash,
    /// Unknown from the start of a run to its first record or session.
    pub sequence: Option<SequenceNumber>,
    /// What is prepared and pending.
    pub transactions: Transactions,
}

/// The facts at `place`.
pub(crate) async fn at(stream: &Stream, source: &dyn Source, place: Place) -> Result<Facts> {
    let index = stream.pieces.partition_point(|p| p.end < place);
    let Some(piece) = stream.pieces.get(index) else {
        return Err(Error::new(Code::Internal, "finding a place beyond the archive").on(place.boundary));
    };
    source.exact(piece.timeline, &piece.summary)?;
    if piece.end == place && piece.is_whole() {
        return Ok(at_end(stream, piece));
    }
    let mut found = at_start(stream, piece);
    walk(stream, source, piece, |now, facts, _| {
        if now <= place {
            found.clone_from(facts);
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })
    .await?;
    Ok(found)
}

/// Whether the running hash is this one somewhere at `boundary`.
pub(crate) async fn passes(
    stream: &Stream,
    source: &dyn Source,
    boundary: Boundary,
    hash: RunningHash,
) -> Result<bool> {
    Ok(hashes_at(stream, source, boundary).await?.iter().any(|(_, there)| *there == hash))
}

/// Every running hash at `boundary`, with its place: before and after each event that lies there.
pub(crate) async fn hashes_at(
    stream: &Stream,
    source: &dyn Source,
    boundary: Boundary,
) -> Result<Vec<(Place, RunningHash)>> {
    let mut hashes: Vec<(Place, RunningHash)> = Vec::new();
    let from = stream.pieces.partition_point(|p| p.end.boundary < boundary);
    for piece in stream.pieces.iter().skip(from).take_while(|p| p.start.boundary <= boundary) {
        let whole = piece.is_whole();
        if piece.start.boundary == boundary {
            hashes.push((piece.start, piece.summary.hash_before));
        }
        let inside = piece.start.boundary < boundary && boundary < piece.end.boundary;
        let events = piece.summary.events.iter().any(|e| e.at == boundary);
        if inside || events || (!whole && piece.end.boundary == boundary) {
            walk(stream, source, piece, |now, facts, life| {
                if now.boundary == boundary && life == Life::Common {
                    hashes.push((now, facts.hash));
                }
                if now.boundary > boundary { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .await?;
        } else if piece.end.boundary == boundary {
            hashes.push((piece.end, piece.summary.hash_after));
        }
    }
    hashes.sort_by_key(|(place, _)| *place);
    hashes.dedup();
    Ok(hashes)
}

/// The highest end of a record that is replayed from `first` to `end`: what recovery reports, at least.
///
/// Inside one session the last record has it. A session that began below it leaves no barrier before its first record
/// that consumes a number, and records that consume none may lie between.
pub(crate) async fn replayed_end(
    stream: &Stream,
    source: &dyn Source,
    first: Boundary,
    end: Boundary,
) -> Result<Option<SequenceNumber>> {
    if !stream.sessions.iter().any(|s| first < s.place.boundary && s.place.boundary <= end) {
        return Ok(None);
    }
    let mut highest: Option<SequenceNumber> = None;
    for piece in stream.covering(first, end) {
        let s = &piece.summary;
        let mut transactions = at_start(stream, piece).transactions;
        let whole = first <= s.first && piece.end.boundary <= end && piece.is_whole();
        if whole && !stream.touches_withdrawn(s.first, s.end) {
            highest = highest.max(s.max_sequence);
            continue;
        }
        for read in
            source.entries(piece.timeline, s).await?.into_iter().filter(|read| piece.keeps(read.at, &read.entry))
        {
            let record = match &read.entry {
                Entry::Record(record) => record,
                Entry::Event(event) => {
                    pass(&mut transactions, event);
                    continue;
                }
            };
            let next = Boundary::new(read.at.get().saturating_add(1));
            let step = sequence::step(&mut transactions, read.at.next_record(), record)?;
            if read.at >= first && read.at < end && !stream.touches_withdrawn(read.at, next) {
                highest = highest.max(Some(step.end));
            }
        }
    }
    Ok(highest)
}

/// The WAL of the last record before `boundary`.
pub(crate) fn wal_before(stream: &Stream, boundary: Boundary) -> Option<FileNumber> {
    let record = boundary.last_record()?.before();
    let index = stream.pieces.partition_point(|p| p.end.boundary <= record);
    let piece = stream.pieces.get(index)?;
    piece.summary.wals.iter().rev().find(|span| span.first <= record).map(|span| span.wal)
}

fn at_end(stream: &Stream, piece: &Piece) -> Facts {
    let s = &piece.summary;
    let known = stream.run_at(piece.end).is_none_or(|run| {
        piece.end.boundary > run.start.boundary
            || stream.sessions.iter().any(|s| run.start < s.place && s.place < piece.end)
    });
    Facts { hash: s.hash_after, sequence: known.then_some(s.last_sequence), transactions: s.transactions.clone() }
}

/// What is true before the first entry of a segment.
pub(crate) fn at_start(stream: &Stream, piece: &Piece) -> Facts {
    let index = stream.pieces.partition_point(|p| p.end < piece.end);
    let before = index.checked_sub(1).and_then(|i| stream.pieces.get(i)).map(|before| at_end(stream, before));
    let (sequence, transactions) = before.map(|facts| (facts.sequence, facts.transactions)).unwrap_or_default();
    Facts { hash: piece.summary.hash_before, sequence, transactions }
}

/// What an event does to pending transactions.
pub(crate) fn pass(transactions: &mut Transactions, event: &Event) {
    match event {
        Event::RunStarted { .. } => *transactions = Transactions::default(),
        Event::Withdrawn { from, to, .. } => transactions.withdraw(from.next_record(), to.next_record()),
        Event::SessionStarted { .. }
        | Event::WalStarted { .. }
        | Event::WalEnded { .. }
        | Event::TimestampSizes { .. }
        | Event::ColumnFamily { .. }
        | Event::IntervalClosed { .. }
        | Event::Captured { .. }
        | Event::Flushed { .. }
        | Event::UnloggedTolerated { .. }
        | Event::Barrier { .. } => {}
    }
}

/// Whose running hash is that behind an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// The stream's own.
    Common,
    /// That of a timeline which a child has left: what is kept of its entries here only tells of changes before.
    Further,
}

/// Calls `visit` with the place after each entry of a segment and what is true there.
async fn walk(
    stream: &Stream,
    source: &dyn Source,
    piece: &Piece,
    mut visit: impl FnMut(Place, &Facts, Life) -> ControlFlow<()>,
) -> Result<()> {
    let mut facts = at_start(stream, piece);
    let mut now = piece.start;
    let left = |now: Place, hash| if piece.is_left_at(now.boundary, hash) { Life::Further } else { Life::Common };
    let mut life = left(now, facts.hash);
    for read in source.entries(piece.timeline, &piece.summary).await? {
        if !piece.keeps(read.at, &read.entry) {
            life = Life::Further;
            continue;
        }
        match &read.entry {
            Entry::Event(event) => {
                pass(&mut facts.transactions, event);
                match event {
                    Event::RunStarted { .. } => facts.sequence = None,
                    Event::SessionStarted { last_sequence, .. } => facts.sequence = Some(*last_sequence),
                    _ => {}
                }
                now = if now.boundary == read.at {
                    Place { events: now.events + 1, ..now }
                } else {
                    Place { boundary: read.at, events: 1 }
                };
            }
            Entry::Record(record) => {
                let number = read.at.next_record();
                let step = sequence::step(&mut facts.transactions, number, record)?;
                facts.sequence = step.certain.then_some(step.end);
                now = Place::before_events(
                    number
                        .after()
                        .ok_or_else(|| Error::new(Code::SegmentDamaged, "reading a segment").with("record", number))?,
                );
            }
        }
        facts.hash = read.hash;
        if visit(now, &facts, life).is_break() {
            break;
        }
        if life == Life::Common {
            life = left(now, facts.hash);
        }
    }
    Ok(())
}
