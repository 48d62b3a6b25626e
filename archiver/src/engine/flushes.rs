//! What flushes wrote is held and shipped, where the operator wants restores that replay next to nothing.
//!
//! Owns: which flushes are shipped, and how the chain of them is told. Their files wait for their upload with those that
//! entered without the log ([`super::capture`]). Each event names the flush before it, of whatever column family: whoever
//! restores goes from one to the next, and where one is missing (gone before it could be linked, too many waiting, an outage)
//! the next one does not join, and the log is replayed from there on. So nothing here has to succeed.
//! Refuses: flushes whose log numbers do not tell everything. With two-phase commit a flush can be of prepared data; members
//! of an atomic group are one change that cannot be told by one place each; values in blob files lie beside the table.

use pitr_archive::{
    Result,
    ids::{ColumnFamilyId, FileNumber},
    rocks::version_edit::VersionEdit,
    segment::entry::ManifestPoint,
};

use super::{
    Engine,
    capture::{PendingCapture, PinnedTable, Sight},
};

/// Whether files of flushes are shipped beside the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flushes {
    /// Bases and the log are all.
    #[default]
    Leave,
    /// They are: a restore lays them down and replays only the log behind them.
    Ship,
}

/// More flushes than this do not wait for their upload.
const MAX_WAITING: usize = 16;

/// They may take one part in so many of the bytes that one ingestion may.
const SHARE: u64 = 2;

impl Engine {
    /// Links the files of a flush that the MANIFEST has just named.
    pub(super) fn hold_flushed(&mut self, point: ManifestPoint, cf: ColumnFamilyId, edit: &[u8]) -> Result<()> {
        if self.policy.flushes == Flushes::Leave {
            return Ok(());
        }
        match self.pin_flushed(edit)? {
            Ok(files) => self.sights.push(Sight::of_flush(point, cf, files)),
            Err(why) => tracing::debug!(manifest = %point.offset, why, "a flush is not shipped"),
        }
        Ok(())
    }

    /// `Err` inside says for people why not.
    fn pin_flushed(&self, edit: &[u8]) -> Result<std::result::Result<Vec<PinnedTable>, String>> {
        let Ok(edit) = VersionEdit::decode(edit) else { return Ok(Err("the edit is malformed".to_owned())) };
        if self.layout.allow_2pc() || self.state.transactions.policy().is_some() {
            return Ok(Err("the database's log can hold prepared transactions".to_owned()));
        }
        if let Err(why) = edit.lone_flush() {
            return Ok(Err(why.to_owned()));
        }
        let bytes: u64 = edit.new_files.iter().fold(0, |sum, file| sum.saturating_add(file.file_size));
        if let Some(why) = self.too_many_flushes_wait(bytes) {
            return Ok(Err(why));
        }
        let mut held = Vec::new();
        for file in &edit.new_files {
            match self.pin_table(file)? {
                Ok(pinned) => held.push(pinned),
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(Ok(held))
    }

    /// Links of flushes are a convenience: they may not take the room of what nobody else holds (logs, and files that entered
    /// without the log).
    fn too_many_flushes_wait(&self, bytes: u64) -> Option<String> {
        let pending = self.state.captures.iter().filter(|pending| pending.is_flush()).map(PendingCapture::bytes);
        let seen = self.sights.iter().filter(|sight| sight.is_flush()).map(Sight::bytes);
        let waiting: Vec<u64> = pending.chain(seen).collect();
        let held = waiting.iter().fold(bytes, |sum, bytes| sum.saturating_add(*bytes));
        let limit = self.policy.capture_bytes / SHARE;
        (waiting.len() >= MAX_WAITING || held > limit)
            .then(|| format!("{} others wait for their upload, {held} bytes with this one", waiting.len()))
    }

    /// Gives up what waits for its upload; whether there was anything. The next flush joins nothing that was given up.
    pub fn leave_waiting_flushes(&mut self) -> Result<bool> {
        let before = (self.sights.len(), self.state.captures.len());
        self.sights.retain(|sight| !sight.is_flush());
        self.state.captures.retain(|pending| !(pending.is_flush() && pending.waits()));
        let given_up = before != (self.sights.len(), self.state.captures.len());
        if given_up {
            self.release_unwanted_tables()?;
        }
        Ok(given_up)
    }

    /// The MANIFEST says which logs no column family needs any more: the column families that were there at the flush
    /// directly before, because its files and theirs have everything older. Behind anything else that changes what is
    /// needed it would speak of that, too.
    pub(super) fn note_first_wal_needed(&mut self, wal: FileNumber) {
        if let Some(flush) = self.flushed_just_now.take() {
            self.state.captures.iter_mut().for_each(|pending| pending.learn_first_wal_needed(flush, wal));
        }
    }

    /// The flush is told of in its turn: its files wait for their upload.
    pub(super) fn flushed(&mut self, point: ManifestPoint, cf: ColumnFamilyId, edit: &[u8]) {
        use base64::Engine as _;
        self.flushed_just_now = Some(point);
        let previous = match self.state.flushed.replace(point) {
            Some(previous) if previous.file == point.file => previous,
            // Of a MANIFEST that began under our eyes every flush is seen, from its beginning on.
            Some(previous) if previous.file < point.file => ManifestPoint { file: point.file, offset: 0 },
            // Whoever archived before this did not say which ones it saw: this one joins nothing.
            _ => point,
        };
        let Some(Ok(files)) = self.take_sight(point, cf).map(|sight| sight.pinned) else { return };
        self.state.captures.push(PendingCapture::of_flush(
            (point, previous),
            cf,
            base64::engine::general_purpose::STANDARD.encode(edit),
            files,
        ));
    }
}
