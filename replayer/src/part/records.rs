//! Which records and frames a part needs, and what is left of a record.
//!
//! Owns: the choice of operations. A record keeps its sequence number and loses operations: those that stay move together
//! within the numbers that were its own, so that their order among all others is what it was.
//! Pure.

use std::{borrow::Cow, ops::Range};

use pitr_archive::{
    Code, Error, Result,
    catalog::schema::FrameIndex,
    ids::{Boundary, RecordNumber},
    rocks::write_batch::{Op, WriteBatch, WriteBatchBuilder},
    segment::{entry::Record, reader::SegmentIndex},
};

use super::{KeyRange, PlannedPart};

/// A segment of this size or less is fetched whole, and so is this much between two frames: what could be left out is less
/// than one more request costs.
pub(crate) const SMALL: u64 = 128 * 1024;

/// What is replayed of the log.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    part: PlannedPart,
    keys: KeyRange,
    /// Places whose running hash must be seen.
    places: Vec<Boundary>,
    /// What is replayed.
    range: (Boundary, Boundary),
}

impl Wanted {
    /// For a part of the records in `range`; the running hashes at `places` are compared.
    pub fn new(part: &PlannedPart, places: Vec<Boundary>, range: (Boundary, Boundary)) -> Self {
        Self { part: part.clone(), keys: part.keys.clone().unwrap_or_default(), places, range }
    }

    fn keeps(&self, op: &Op<'_>) -> bool {
        let Some(family) = op.column_family() else { return false };
        if !self.part.has(family) {
            return false;
        }
        match op {
            // What it deletes besides was not restored, or is hidden.
            Op::DeleteRange { begin, end, .. } => {
                self.keys.is_all() || (*end > self.keys.from() && self.keys.to().is_none_or(|to| *begin < to))
            }
            op => op.key().is_none_or(|key| self.keys.holds(key)),
        }
    }

    /// What is left of a record, where anything is.
    pub fn of<'a>(&self, number: RecordNumber, record: &'a Record) -> Result<Option<Cow<'a, Record>>> {
        let malformed = |e| Error::new(Code::BatchMalformed, "decoding record").on(number).because(e);
        let batch = WriteBatch::parse(&record.payload).map_err(malformed)?;
        let (mut kept, mut dropped) = (WriteBatchBuilder::new(batch.sequence()), 0_usize);
        let mut count = 0_usize;
        for op in batch.ops() {
            let op = op.map_err(malformed)?;
            match op {
                Op::BeginPrepare { .. }
                | Op::EndPrepare { .. }
                | Op::Commit { .. }
                | Op::CommitWithTimestamp { .. }
                | Op::Rollback { .. } => {
                    return Err(Error::new(Code::PartUnusable, "replaying record")
                        .on(number)
                        .with("it has", "a prepared transaction, of which no part can be taken"));
                }
                op if self.keeps(&op) => {
                    kept.push(&op);
                    count += 1;
                }
                _ => dropped += 1,
            }
        }
        Ok(match (count, dropped) {
            (0, _) => None,
            (_, 0) => Some(Cow::Borrowed(record)),
            _ => Some(Cow::Owned(Record { payload: kept.finish().into(), ..record.clone() })),
        })
    }

    /// The frames of a segment that can hold anything of it, or a place that is compared; neighbours together, and those with
    /// little between them. `None` where that is most of the segment.
    pub fn frames(&self, index: &SegmentIndex) -> Option<Vec<Range<usize>>> {
        let frames = &index.footer().frames;
        let mut wanted: Vec<Range<usize>> = Vec::new();
        for number in (0..frames.len()).filter(|number| self.wants(index, *number)) {
            match wanted.last_mut() {
                Some(last) if stored(frames.get(last.end..number)?) < SMALL => last.end = number + 1,
                _ => wanted.push(number..number + 1),
            }
        }
        let fetched: u64 = wanted.iter().filter_map(|range| frames.get(range.clone())).map(stored).sum();
        (fetched <= stored(frames) / 2).then_some(wanted)
    }

    fn wants(&self, index: &SegmentIndex, number: usize) -> bool {
        let frames = &index.footer().frames;
        let Some(frame) = frames.get(number) else { return false };
        let end = frames.get(number + 1).map_or(index.header().end, |next| next.first);
        if self.places.iter().any(|place| frame.first <= *place && *place <= end) {
            return true;
        }
        let inside = frame.first < self.range.1 && end > self.range.0;
        let mut families = self.part.families.iter();
        inside && families.any(|family| frame.may_touch(family.id, self.keys.from(), self.keys.to()))
    }
}

fn stored(frames: &[FrameIndex]) -> u64 {
    frames.iter().map(|frame| u64::from(frame.stored)).sum()
}

#[cfg(test)]
mod tests {
    use pitr_archive::ids::{ColumnFamilyId, FileNumber, SequenceNumber};

    use super::*;
    use crate::part::PlannedFamily;

    fn wanted(families: &[u32], keys: KeyRange) -> Wanted {
        let families =
            families.iter().map(|id| PlannedFamily { id: ColumnFamilyId::new(*id), name: id.to_string() }).collect();
        let keys = (!keys.is_all()).then_some(keys);
        Wanted::new(
            &PlannedPart {
                families,
                keys,
                files_left_out: 0,
                bytes_left_out: 0,
                latest_sequence: SequenceNumber::default(),
            },
            Vec::new(),
            (Boundary::START, Boundary::START),
        )
    }

    fn record(ops: &[Op<'_>]) -> Record {
        let mut batch = WriteBatchBuilder::new(SequenceNumber::new(40));
        for op in ops {
            batch.push(op);
        }
        Record { wal: FileNumber::new(9), start: 0, end: 99, payload: batch.finish().into() }
    }

    #[test]
    fn a_record_keeps_its_number_and_what_is_wanted_of_it_in_order() {
        let (zero, one) = (ColumnFamilyId::new(0), ColumnFamilyId::new(1));
        let whole = record(&[
            Op::Put { cf: zero, key: b"a", value: b"1" },
            Op::LogData { blob: b"remark" },
            Op::Put { cf: one, key: b"b", value: b"2" },
            Op::DeleteRange { cf: one, begin: b"a", end: b"c" },
            Op::Delete { cf: one, key: b"x" },
        ]);
        let number = RecordNumber::new(3);
        let left = wanted(&[1], KeyRange::prefix(b"b")).of(number, &whole).unwrap().unwrap();
        let batch = WriteBatch::parse(&left.payload).unwrap();
        let ops: Vec<_> = batch.ops().map(Result::unwrap).collect();
        assert_eq!(
            ops,
            [Op::Put { cf: one, key: b"b", value: b"2" }, Op::DeleteRange { cf: one, begin: b"a", end: b"c" }]
        );
        assert_eq!((batch.sequence().get(), batch.count(), left.end), (40, 2, 99));
        assert!(wanted(&[2], KeyRange::default()).of(number, &whole).unwrap().is_none());
        let only = record(&[Op::Put { cf: one, key: b"b", value: b"2" }]);
        assert!(matches!(wanted(&[0, 1], KeyRange::default()).of(number, &only), Ok(Some(Cow::Borrowed(_)))));
        let prepared = record(&[Op::Commit { xid: b"t" }]);
        let e = wanted(&[1], KeyRange::default()).of(number, &prepared).unwrap_err();
        assert_eq!(e.code(), Code::PartUnusable);
    }
}
