//! What a plan tells people beside its figures.
//!
//! Owns: the texts of a plan's notes.

use pitr_archive::{
    catalog::{model::Catalog, schema::BaseDocument},
    clock::Micros,
    ids::{Boundary, TimelineId},
    rocks::transactions::Transactions,
    segment::entry::{BarrierReason, ColumnFamilyChange},
};

use super::{CertainTime, Note, NoteKind, UnloggedFamily, ingestion::PlannedIngestion, stream::Stream};
use crate::restore::{paths, small_files};

/// What is pending at the target.
pub(super) fn transactions(transactions: &Transactions) -> Option<Note> {
    let count = transactions.pending().len();
    (count > 0).then(|| Note {
        kind: NoteKind::PendingTransactions,
        text: format!(
            "{count} transaction(s) are prepared and neither committed nor rolled back at the target: they are pending in the restored database, and what opens it must decide them (TransactionDB with the source's write policy)"
        ),
    })
}

/// What of a column family that was written without the log is there.
pub(super) fn unlogged(family: &UnloggedFamily) -> Note {
    Note {
        kind: NoteKind::UnloggedTolerated,
        text: format!(
            "column family {:?} holds what a crash would have kept: it was written without the log, which the archive's operator tolerates. Of those writes the ones are there that had been flushed when the base was taken ({}, boundary {}); logged writes are there exactly, also those of every other column family",
            family.column_family,
            family.as_of.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            family.flushed_before
        ),
    }
}

/// Whether another timeline was watched for longer than the one that is taken because it was begun last: then somebody archived a
/// copy beside the database, or two servers were mistaken for one.
pub(super) fn watched_longer(catalog: &Catalog, taken: TimelineId) -> Option<Note> {
    let ours = catalog.timeline(taken)?.observed_through()?;
    let until = catalog.timelines().filter_map(|timeline| Some((timeline.id(), timeline.observed_through()?)));
    let (other, theirs) = until.max_by_key(|(_, at)| *at)?;
    let shown = |at: Micros| at.to_datetime().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    (theirs > ours).then(|| Note {
        kind: NoteKind::OtherTimeline,
        text: format!(
            "of timeline {taken}, which was begun last and archived until {}; timeline {other} was archived until {}, and --timeline {other} restores it",
            shown(ours),
            shown(theirs),
        ),
    })
}

/// Ingestions that are repeated.
pub(super) fn ingestions(ingestions: &[PlannedIngestion]) -> Option<Note> {
    let last = ingestions.last()?;
    let bytes: u64 = ingestions.iter().map(PlannedIngestion::bytes).sum();
    Some(Note {
        kind: NoteKind::RepeatedIngestion,
        text: format!(
            "{} ingestion(s) of {bytes} bytes in all are repeated from captured files, the last at boundary {}: RocksDB recovers the copy here, and the restore is refused where it does not give the source's sequence numbers",
            ingestions.len(),
            last.at
        ),
    })
}

/// What a person should know of the source and of the time.
pub(super) fn cautions(stream: &Stream, base: &BaseDocument, target: Boundary, time: &CertainTime) -> Vec<Note> {
    let mut notes = Vec::new();
    for family in &base.column_families {
        if let Some(filter) = &family.compaction_filter {
            notes.push(Note {
                kind: NoteKind::CompactionFilter,
                text: format!(
                    "column family {:?} has the compaction filter {filter}, which drops keys without a record: keys it has dropped may be there again",
                    family.name
                ),
            });
        }
    }
    let reuse = stream.barriers.iter().filter(|b| b.reason == BarrierReason::Reuse).count();
    if reuse > 0 {
        notes.push(Note {
            kind: NoteKind::SequenceReuse,
            text: format!("sequence numbers were used again {reuse} time(s) on this timeline, after clean reopens: a sequence number alone does not name a position"),
        });
    }
    for family in stream.families.iter().filter(|f| f.when.interval.hi.is_none() && target >= f.when.interval.lo) {
        notes.push(Note {
            kind: NoteKind::OpenInterval,
            text: format!(
                "when exactly column family {:?} was {} is not known yet",
                family.name,
                match family.change {
                    ColumnFamilyChange::Added => "added",
                    ColumnFamilyChange::Dropped => "dropped",
                }
            ),
        });
    }
    if !matches!((time.from, time.to), (Some(from), Some(to)) if from <= to) {
        notes.push(Note {
            kind: NoteKind::Unwatched,
            text: "when the database was in this state is only known as a bound: records before and after it became readable between two looks".to_owned(),
        });
    }
    if small_files::source_buffers_its_log(base) {
        notes.push(Note {
            kind: NoteKind::ObservedOnly,
            text: "the server keeps committed writes in its own memory until it flushes its log (manual_wal_flush): every time here is when a write reached the log's file, which can be later than its commit".to_owned(),
        });
    }
    for (what, path) in paths::foreign(&base.paths) {
        notes.push(Note {
            kind: NoteKind::ForeignPath,
            text: format!("the source's {what} is {path}, outside its database directory"),
        });
    }
    notes
}
