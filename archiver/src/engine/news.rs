//! What RocksDB's MANIFEST said becomes events and barriers.
//!
//! Owns: which changes of the database's files matter to replay. Flushes and compactions do not: they rearrange what
//! records wrote (and the files of flushes spare replay, where they are shipped: [`super::flushes`]). Column families coming and going must be replayed; files that enter or leave without the log are
//! barriers.

use pitr_archive::{
    Result,
    ids::{Boundary, ColumnFamilyId, FileNumber},
    rocks::{manifest::Change, options_file::DbSettings, write_batch::WriteBatch},
    segment::entry::{BarrierReason, ColumnFamilyChange, Interval, ManifestPoint},
};

use super::{Deferred, Engine, InfoLog, Item, OpenInterval, PendingSession, column_family_event};
use crate::{
    manifest_tail::{Consumed, News},
    session,
};

/// Whether the news says that files hold what a record wrote which may have been readable only since the last look at
/// the log: without another look, that record would seem to be missing from it.
pub(super) fn may_be_of_unread_records(news: &News) -> bool {
    matches!(news, News::Change { change: Change::Flush { .. } | Change::LastSequence { .. }, .. })
}

/// Whether the news needs to know where in the log it happened.
pub(super) fn has_interval(news: &News) -> bool {
    match news {
        News::Rolled { .. } => false,
        News::Change { change, .. } => matches!(
            change,
            Change::ColumnFamilyAdded { .. }
                | Change::ColumnFamilyDropped { .. }
                | Change::FilesIngested { .. }
                | Change::FilesReplaced { .. }
                | Change::FilesDropped { .. }
        ),
    }
}

impl Engine {
    /// Puts the events of one look at the MANIFEST into the stream. `hi` is the readable end after that look, where
    /// everything readable is in `items`; they are not in the stream yet.
    pub(super) fn publish_news(&mut self, news: Vec<News>, hi: Option<Boundary>, items: &[Item]) -> Result<()> {
        self.explain_ingested();
        let said = self.state.said;
        // An earlier process can have said what is read again.
        let new = |one: &News| !matches!(one, News::Change { point, .. } if Some(*point) <= said);
        let news: Vec<News> = news.into_iter().filter(|one| new(one) && !self.is_mere_rollover(one)).collect();
        let several = news.iter().filter(|one| matches!(one, News::Rolled { .. })).count();
        let mut left = several;
        for news in news {
            left -= usize::from(matches!(news, News::Rolled { .. }));
            let log = match (several, left) {
                (0 | 1, _) => InfoLog::This,
                (_, 0) => InfoLog::NewestOfSeveral,
                _ => InfoLog::Later,
            };
            // Now, not when its turn comes: by then the info log can be a later session's.
            let id = match &news {
                News::Rolled { .. } => session::session_id(&self.layout.info_log())?,
                News::Change { .. } => None,
            };
            self.deferred.push_back(Deferred { news, log, lo: self.lo, id });
        }
        self.publish_deferred(hi, items)
    }

    /// Whether what the MANIFEST says waits: it is a session's whose records have not been reached, and in the stream it
    /// must not come before the end of the session before. Only for a session that RocksDB names: a MANIFEST that grew
    /// too large must not hold up anything.
    pub(super) fn waits_for_session(&self) -> bool {
        self.state.pending_session.as_ref().is_some_and(|session| session.waits)
    }

    /// As [`Engine::publish_news`], up to the next session; what need not wait for it, too.
    pub(super) fn publish_deferred(&mut self, hi: Option<Boundary>, items: &[Item]) -> Result<()> {
        while !self.waits_for_session() {
            self.held = None;
            let Some(Deferred { news, log, lo, id }) = self.deferred.pop_front() else { break };
            match news {
                News::Rolled { consumed, first_wal_needed, last_sequence } => {
                    self.flushed_just_now = None;
                    let point = consumed.point;
                    let same = matches!((&self.state.session_id, &id), (Some(a), Some(b)) if a == b);
                    if !same || log != InfoLog::This {
                        self.held = Some(consumed);
                        self.state.pending_session = Some(PendingSession {
                            manifest: point,
                            waits: id.is_some(),
                            id: id.filter(|_| log != InfoLog::Later),
                            first_wal: self.first_wal_with(point.file),
                            needed_before: first_wal_needed,
                            flushed: last_sequence,
                        });
                    }
                }
                News::Change { point, change } => self.change(point, change, Interval { lo, hi }, items)?,
            }
        }
        self.publish_uncertain(hi, items)
    }

    /// Only what certainly comes behind all records of the session before waits for the next one. What may lie among them
    /// is said at once: no archive may hold records beyond a change without it.
    fn publish_uncertain(&mut self, hi: Option<Boundary>, items: &[Item]) -> Result<()> {
        let pending = self.state.pending_session.as_ref();
        let mut waits = pending.is_some_and(|session| self.begins_behind(session.first_wal, session.manifest));
        for Deferred { news, log, lo, id } in std::mem::take(&mut self.deferred) {
            match news {
                News::Change { point, change } if !waits => {
                    self.change(point, change, Interval { lo, hi }, items)?;
                }
                news => {
                    if let News::Rolled { consumed: Consumed { point, .. }, .. } = &news {
                        waits |= self.begins_behind(self.first_wal_with(point.file), *point);
                    }
                    self.deferred.push_back(Deferred { news, log, lo, id });
                }
            }
        }
        Ok(())
    }

    /// Whether an open creates its first WAL and gives the number after it to its MANIFEST: RocksDB 7 and later.
    pub(super) fn wal_comes_first(&self) -> bool {
        self.layout.settings().is_none_or(|settings| settings.rocksdb_version.major >= 7)
    }

    /// Whether a new MANIFEST certainly belongs to the session of the one before: the number before its own is no WAL's.
    ///
    /// The info log cannot tell where several MANIFESTs came between two looks, or where the next session has begun its
    /// log and not its MANIFEST. What this one says would then seem to have happened behind records that followed it.
    pub(super) fn is_mere_rollover(&self, news: &News) -> bool {
        let News::Rolled { consumed: Consumed { point, .. }, .. } = news else { return false };
        let two_before = FileNumber::new(point.file.get().saturating_sub(2));
        self.wal_comes_first() && self.manifest.none_is_free_between(two_before, point.file, &self.registry.options())
    }

    /// The first WAL of the session that began with this MANIFEST.
    ///
    /// Before RocksDB 7 the WAL came second, or kept its MANIFEST's predecessor for a while: the newest one that is known
    /// then.
    fn first_wal_with(&self, manifest: FileNumber) -> FileNumber {
        let before = FileNumber::new(manifest.get().saturating_sub(1));
        let newest = || self.registry.wals_from(FileNumber::default()).last().map(|(wal, _)| *wal);
        if self.wal_comes_first() { before } else { newest().unwrap_or(before) }
    }

    /// The run ends before the session is reached that what is deferred waits for: it is said of this run all the same,
    /// whose last records can lie behind it. Until where it may have happened is never known then.
    pub(super) fn publish_unreached(&mut self) -> Result<()> {
        if let Some(session) = self.state.pending_session.take()
            && self.begins_behind(session.first_wal, session.manifest)
        {
            self.deferred_came_after(self.stream.boundary());
        }
        self.held = None;
        while let Some(Deferred { news, lo, .. }) = self.deferred.pop_front() {
            if let News::Change { point, change } = news {
                self.change(point, change, Interval { lo, hi: None }, &[])?;
            }
        }
        Ok(())
    }

    /// What is deferred happened behind `boundary`.
    pub(super) fn deferred_came_after(&mut self, boundary: Boundary) {
        for deferred in &mut self.deferred {
            deferred.lo = deferred.lo.max(boundary);
        }
    }

    /// Whether what a session's MANIFEST says happened behind everything that is in the stream.
    ///
    /// A MANIFEST that took over because the one before had grown too large can look like a session's. What either says
    /// came after the file before it, by number, was created: if that is a WAL of which nothing has been read, it came
    /// after all that was. `async_wal_precreate` creates WALs while the one before is written to.
    pub(super) fn begins_behind(&self, first_wal: FileNumber, manifest: ManifestPoint) -> bool {
        let own = first_wal.next() == Some(manifest.file);
        let unread = match self.state.wals.get(&first_wal) {
            Some(fact) => fact.first == self.stream.boundary(),
            None => self.registry.seen(first_wal).is_some(),
        };
        let in_order =
            |settings: &DbSettings| settings.rocksdb_version.major >= 7 && settings.async_wal_precreate != Some(true);
        own && unread && self.layout.settings().is_some_and(in_order)
    }

    fn change(&mut self, point: ManifestPoint, change: Change, interval: Interval, items: &[Item]) -> Result<()> {
        let hi = interval.hi;
        self.state.said = Some(point);
        if !matches!(change, Change::MinLogNumberToKeep { .. } | Change::LastSequence { .. }) {
            self.flushed_just_now = None;
        }
        match change {
            Change::ColumnFamilyAdded { id, name, edit, .. } => {
                let hi = self.first_use(id, items).or(hi);
                let interval = Interval { hi, ..interval };
                let added = ColumnFamilyChange::Added;
                self.stream.event(&column_family_event(added, id, &name, interval, point, &edit))?;
                self.leave_open(point, Some(id), hi)?;
            }
            Change::ColumnFamilyDropped { id, name, edit } => {
                let dropped = ColumnFamilyChange::Dropped;
                self.stream.event(&column_family_event(dropped, id, &name, interval, point, &edit))?;
                if self.state.transactions.counts_batches() {
                    let what = format!(
                        "column family {name} was dropped: under this write policy RocksDB cannot recover records of a dropped column family"
                    );
                    self.barrier_within(BarrierReason::ChangeOutsideWal, interval, Some(point), None, what)?;
                }
                self.leave_open(point, None, hi)?;
            }
            Change::FilesIngested { cf, ref files, .. } | Change::FilesReplaced { cf, added: ref files, .. } => {
                self.explain(cf, files);
                let captured = match &change {
                    Change::FilesIngested { edit, .. } => self.capture(point, cf, edit),
                    _ => "; not captured: it took a range of files away".to_owned(),
                };
                let what = format!(
                    "files {} entered {} without the log (ingestion or import){captured}",
                    list(files),
                    self.name_of(cf)
                );
                self.barrier_within(BarrierReason::ChangeOutsideWal, interval, Some(point), None, what)?;
                self.leave_open(point, None, hi)?;
            }
            // A compaction can leave nothing, and looks like this when it does. `DeleteFilesInRange` never takes files of
            // level 0; FIFO expiry is the database's own forgetting, which `check` and `plan` name.
            Change::FilesDropped { cf, ref files, level_zero }
                if (!level_zero || self.may_be_deleted(&change)) && !self.forgets_by_itself(cf) =>
            {
                let numbers: Vec<_> = files.iter().map(|file| file.number).collect();
                let how = if level_zero { "deleted, or a compaction left nothing of it" } else { "dropped range" };
                let what = format!("files {} left {} without the log ({how})", list(&numbers), self.name_of(cf));
                self.barrier_within(BarrierReason::ChangeOutsideWal, interval, Some(point), None, what)?;
                self.leave_open(point, None, hi)?;
            }
            Change::Flush { cf, edit, .. } => self.flushed(point, cf, &edit),
            Change::MinLogNumberToKeep { number } => self.note_first_wal_needed(number),
            _ => {}
        }
        Ok(())
    }

    /// The log skips the numbers that ingested files were given.
    pub(super) fn explain_ingested(&mut self) {
        for (first, last) in self.manifest.take_ingested() {
            self.state.model.explain(first, last);
        }
    }

    /// The same for files that are still as their edit described them.
    fn explain(&mut self, cf: ColumnFamilyId, files: &[FileNumber]) {
        let Some(family) = self.manifest.model().column_family(cf) else { return };
        for file in files.iter().filter_map(|number| family.files.get(number)) {
            self.state.model.explain(file.smallest_seqno, file.largest_seqno);
        }
    }

    fn name_of(&self, cf: ColumnFamilyId) -> String {
        let name = self.manifest.model().column_family(cf).map(|family| family.name.to_string());
        format!("column family {}", name.unwrap_or_else(|| cf.to_string()))
    }

    /// Whether this can be `DB::DeleteFile`, as far as the server's version tells.
    fn may_be_deleted(&self, change: &Change) -> bool {
        let has_it = self.layout.settings().is_none_or(|settings| settings.rocksdb_version.major < 10);
        has_it && change.may_be_delete_file()
    }

    /// Whether a column family drops its oldest files by its own settings.
    fn forgets_by_itself(&self, cf: ColumnFamilyId) -> bool {
        let Some(family) = self.manifest.model().column_family(cf) else { return false };
        family.name.as_str().is_some_and(|name| self.layout.is_fifo(name))
    }

    fn leave_open(
        &mut self,
        manifest: ManifestPoint,
        added: Option<ColumnFamilyId>,
        hi: Option<Boundary>,
    ) -> Result<()> {
        if hi.is_none() {
            let mut until_end_of = None;
            if self.unread_is_possible() {
                // What the server holds in its memory belongs to the newest log, and this one may be read long before that.
                self.registry.scan()?;
                let present = self.present_wal();
                until_end_of = self.registry.wals_from(present).last().map(|(wal, _)| *wal).or(Some(present));
            }
            self.open.push(OpenInterval { manifest, added, until_end_of });
        }
        Ok(())
    }

    /// The boundary before the first of `items` that names column family `id`.
    fn first_use(&self, id: ColumnFamilyId, items: &[Item]) -> Option<Boundary> {
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

fn list(files: &[FileNumber]) -> String {
    files.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
