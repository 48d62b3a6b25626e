//! What RocksDB's MANIFEST said becomes events and barriers.
//!
//! Owns: which changes of the database's files matter to replay. Flushes and compactions do not: they rearrange what
//! records wrote. Column families coming and going must be replayed; files that enter or leave without the log are
//! barriers.

use pitr_archive::{
    Result,
    ids::Boundary,
    rocks::{manifest::Change, write_batch::WriteBatch},
    segment::entry::{BarrierReason, ColumnFamilyChange, Interval, ManifestPoint},
};

use super::{Engine, Item, OpenInterval, PendingSession, column_family_event};
use crate::{manifest_tail::News, session};

/// Whether the news needs to know where in the log it happened.
pub(super) fn has_interval(news: &News) -> bool {
    match news {
        News::Rolled { .. } => false,
        News::Change { change, .. } => matches!(
            change,
            Change::ColumnFamilyAdded { .. }
                | Change::ColumnFamilyDropped { .. }
                | Change::FilesIngested { .. }
                | Change::FilesDropped { .. }
        ),
    }
}

impl Engine {
    /// Puts the events of one look at the MANIFEST into the stream. `hi` is the readable end after that look, where
    /// everything readable is in `items`; they are not in the stream yet.
    pub(super) fn publish_news(&mut self, news: Vec<News>, hi: Option<Boundary>, items: &[Item]) -> Result<()> {
        for one in news {
            match one {
                News::Rolled { point, first_wal_needed, last_sequence } => {
                    let id = session::session_id(&self.layout.info_log())?;
                    let same = matches!((&self.state.session_id, &id), (Some(a), Some(b)) if a == b);
                    if !same {
                        self.pending_session = Some(PendingSession {
                            manifest: point,
                            id,
                            first_wal: first_wal_needed,
                            needed_before: first_wal_needed,
                            flushed: last_sequence,
                            logs_known: false,
                        });
                    }
                }
                News::Change { point, change, payload } => self.change(point, change, &payload, hi, items)?,
            }
        }
        Ok(())
    }

    fn change(
        &mut self,
        point: ManifestPoint,
        change: Change,
        payload: &[u8],
        hi: Option<Boundary>,
        items: &[Item],
    ) -> Result<()> {
        let interval = Interval { lo: self.lo, hi };
        match change {
            Change::ColumnFamilyAdded { id, name } => {
                let hi = self.first_use(id, items).or(hi);
                self.stream.event(&column_family_event(
                    ColumnFamilyChange::Added,
                    id,
                    &name,
                    Interval { lo: self.lo, hi },
                    point,
                    payload,
                ))?;
                self.leave_open(point, Some(id), hi);
            }
            Change::ColumnFamilyDropped { id, name } => {
                let dropped = ColumnFamilyChange::Dropped;
                self.stream.event(&column_family_event(dropped, id, &name, interval, point, payload))?;
                self.leave_open(point, None, hi);
            }
            Change::FilesIngested { column_family, files } => {
                for file in &files {
                    self.state.model.explain(file.smallest_sequence, file.largest_sequence);
                }
                let numbers: Vec<_> = files.iter().map(|f| f.number.to_string()).collect();
                let detail = format!(
                    "files {} entered column family {column_family} without the log (ingestion or import)",
                    numbers.join(", ")
                );
                self.barrier_within(BarrierReason::ChangeOutsideWal, interval, detail)?;
                self.leave_open(point, None, hi);
            }
            Change::FilesDropped { column_family, files } => {
                let numbers: Vec<_> = files.iter().map(ToString::to_string).collect();
                let detail = format!(
                    "files {} left column family {column_family} without the log (dropped range, FIFO or TTL)",
                    numbers.join(", ")
                );
                self.barrier_within(BarrierReason::ChangeOutsideWal, interval, detail)?;
                self.leave_open(point, None, hi);
            }
            Change::LogNumber { log_number, .. } | Change::Flush { log_number, .. } => {
                // The open's own edits name the first log number of the session, for every column family the same.
                if let Some(session) = &mut self.pending_session
                    && !session.logs_known
                {
                    session.logs_known = true;
                    session.first_wal = log_number;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn leave_open(&mut self, manifest: ManifestPoint, added: Option<pitr_archive::ids::ColumnFamilyId>, hi: Option<Boundary>) {
        if hi.is_none() {
            let until_end_of = self.unread_is_possible().then(|| self.present_wal());
            self.open.push(OpenInterval { manifest, added, until_end_of });
        }
    }

    /// The boundary before the first of `items` that names column family `id`.
    fn first_use(&self, id: pitr_archive::ids::ColumnFamilyId, items: &[Item]) -> Option<Boundary> {
        let records = items.iter().filter_map(|item| match item {
            Item::Record(record) => Some(record),
            Item::Event(_) => None,
        });
        for (index, record) in records.enumerate() {
            let names = WriteBatch::parse(&record.payload).and_then(|b| b.scan());
            if names.is_ok_and(|summary| summary.column_families.contains(&id)) {
                return Some(Boundary::new(self.stream.boundary().get() + index as u64));
            }
        }
        None
    }
}
