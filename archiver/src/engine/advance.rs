//! From one WAL to the next, and from one session of the server to the next.
//!
//! Owns: when a WAL is final, the proof that no WAL lies between it and the next one, and the check that tells a session
//! that continues the history from one that forked it.
//!
//! A WAL is final when a higher-numbered one holds a record, when it lies in RocksDB's `archive/`, or when its number is
//! below the MANIFEST's minimum log number to keep. That a higher number merely exists proves nothing: RocksDB creates
//! the next WAL early, and writes to it before the old one's buffer is flushed.

use pitr_archive::{
    Result,
    ids::{FileNumber, SequenceNumber},
    rocks::{log_reader::Finality, write_batch::WriteBatch},
    segment::{
        chain::WalPrefix,
        entry::{BarrierReason, Event},
    },
};

use super::{BaseReason, Before, Engine, Evidence, Item, PendingSession, Place, WalFact, emit, look::ROUND_BYTES, run};
use crate::{
    manifest_tail::Follow,
    registry::Seen,
    session,
    wal_tail::{Origin, Step, WalTail},
};

/// Whether the engine is in another WAL now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// No.
    Stays,
    /// Yes, or a new run has begun.
    Moved,
}

/// What a comparison of the archive with the files says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// Every record is there.
    Same,
    /// In this WAL, the first of them, some are not.
    Other { wal: FileNumber, detail: String },
    /// It cannot be told: a WAL is gone.
    Gone(String),
}

/// Where a recovery stopped that took records back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    /// Behind everything that is archived.
    Behind,
    /// In this WAL; later ones hold archived records.
    In(FileNumber),
    /// Nothing tells.
    Unknown,
}

/// The first record of a WAL, as far as continuity asks.
struct First {
    sequence: pitr_archive::ids::SequenceNumber,
    consumes: bool,
    marker: bool,
}

impl First {
    /// There is something, and it cannot be read: the engine meets it when it gets there.
    const UNREADABLE: Self = Self { sequence: pitr_archive::ids::SequenceNumber::MAX, consumes: false, marker: false };
}

impl Engine {
    /// Moves on if the present WAL is final and the next one is known.
    pub(super) fn advance(&mut self) -> Result<Advance> {
        let present = self.present_wal();
        let Some(next) = self.following(present) else { return Ok(Advance::Stays) };
        if matches!(self.place, Place::In(_)) && !self.is_final(present)? {
            return Ok(Advance::Stays);
        }
        self.registry.scan_settled()?;
        if self.finish_wal()? == emit::Run::Ended {
            return Ok(Advance::Moved);
        }
        // The MANIFEST is read after the directory was listed and before anything of the next WAL is believed: a
        // session's MANIFEST is written before the session's first record.
        self.registry.scan_settled()?;
        let news = match self.manifest.follow(&self.registry)? {
            Follow::News(news) => {
                self.hold_entered(&news)?;
                news
            }
            Follow::Missed { before, detail } => {
                self.publish_news(before, None, &[])?;
                self.end_run(BarrierReason::ManifestMissed, detail)?;
                return Ok(Advance::Moved);
            }
            Follow::PutBack { before, detail } => {
                self.publish_news(before, None, &[])?;
                self.put_back(detail)?;
                return Ok(Advance::Moved);
            }
        };
        self.publish_news(news, None, &[])?;
        // The scan may have found one that the events had not shown yet.
        let next = self.following(present).unwrap_or(next);
        self.notice_session_without_manifest(next)?;
        let session = self.state.pending_session.as_ref().map(|session| session.first_wal);
        let entering = session.is_some_and(|first| next >= first);
        // WALs without a record can come before the one that holds the next record.
        let first = self.first_record_from(next)?;
        if !self.none_between(present, next, first.as_ref()) {
            let detail =
                format!("WALs between {present} and {next} cannot be excluded: some may have been deleted unseen");
            self.end_run_at_gap(present, detail)?;
            return Ok(Advance::Moved);
        }
        self.registry.proven_between(present, next);
        while let Some(session) = self.state.pending_session.take_if(|_| entering) {
            if next < session.first_wal {
                self.state.pending_session = Some(session);
                break;
            }
            if self.begin_session(&session, next, first.as_ref())? == emit::Run::Ended {
                return Ok(Advance::Moved);
            }
        }
        self.begin_wal(next)?;
        Ok(Advance::Moved)
    }

    /// A session whose first WAL is being read already: RocksDB creates it before the session's MANIFEST. `items` are
    /// what was read of it and is not in the stream yet.
    pub(super) fn begin_session_here(&mut self, items: &[Item]) -> Result<emit::Run> {
        let (wal, here) = (self.present_wal(), self.stream.boundary());
        while matches!(self.place, Place::In(_))
            && let Some(session) = self.state.pending_session.take_if(|session| session.waits)
        {
            if wal < session.first_wal {
                self.state.pending_session = Some(session);
                break;
            }
            if self.state.wals.get(&wal).is_some_and(|fact| fact.first < here) {
                // Records of this WAL came before that MANIFEST: it belongs to the session that wrote them.
                self.publish_deferred(None, items)?;
                continue;
            }
            let first = self.first_record(wal)?;
            if self.begin_session(&session, wal, first.as_ref())? == emit::Run::Ended {
                return Ok(emit::Run::Ended);
            }
        }
        Ok(emit::Run::GoesOn)
    }

    /// The next WAL that is known.
    pub(super) fn following(&self, present: FileNumber) -> Option<FileNumber> {
        Some(self.registry.wals_from(present.next()?).first()?.0)
    }

    /// Whether any WAL behind the present one holds a record that is not read yet.
    pub(super) fn newer_wal_has_records(&self) -> Result<bool> {
        let Some(from) = self.present_wal().next() else { return Ok(false) };
        Ok(self.first_record_from(from)?.is_some())
    }

    /// Whether a WAL behind the present one is known. Until it is proven that there was none between the two, records of
    /// one that was deleted unseen may lie behind what is read, whether the newer one holds any or not.
    pub(super) fn newer_wal_is_known(&self) -> bool {
        self.present_wal().next().is_some_and(|from| !self.registry.wals_from(from).is_empty())
    }

    /// The first record in any WAL from `from` on.
    fn first_record_from(&self, from: FileNumber) -> Result<Option<First>> {
        for (wal, _) in self.registry.wals_from(from) {
            if let Some(first) = self.first_record(wal)? {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    fn is_final(&self, wal: FileNumber) -> Result<bool> {
        if self.registry.seen(wal) == Some(Seen::Archived) || wal < self.manifest.model().min_log_number_to_keep() {
            return Ok(true);
        }
        // A new session's MANIFEST: the process that wrote the WALs before it is gone.
        let pending = self.state.pending_session.as_ref().filter(|session| session.waits);
        if pending.is_some_and(|session| wal < session.first_wal) {
            return Ok(true);
        }
        self.newer_wal_has_records()
    }

    fn first_record(&self, wal: FileNumber) -> Result<Option<First>> {
        let Some(mut tail) = WalTail::open(&self.registry, wal)? else { return Ok(None) };
        loop {
            match tail.next(Finality::Growing)? {
                Step::Record(record) => {
                    let Ok(batch) = WriteBatch::parse(&record.payload) else { return Ok(Some(First::UNREADABLE)) };
                    // What only a commit consumes is not in the record.
                    let consumes = batch.scan().is_ok_and(|s| s.unprepared_ops() > 0);
                    let marker =
                        batch.count() == 0 && batch.bytes().len() == pitr_archive::rocks::write_batch::HEADER_SIZE;
                    return Ok(Some(First { sequence: batch.sequence(), consumes, marker }));
                }
                Step::TimestampSizes { .. } => {}
                Step::EndSoFar | Step::FinalEnd { .. } => return Ok(None),
                Step::Corrupt { .. } => return Ok(Some(First::UNREADABLE)),
            }
        }
    }

    /// Reads the present WAL to its final end and puts the end into the stream.
    fn finish_wal(&mut self) -> Result<emit::Run> {
        loop {
            let Place::In(tail) = &mut self.place else { return Ok(emit::Run::GoesOn) };
            let mut items = Vec::new();
            let mut bytes = 0usize;
            tail.look_again();
            let ended = loop {
                match tail.next(Finality::Final)? {
                    Step::Record(record) => {
                        bytes += record.payload.len();
                        items.push(Item::Record(record));
                        if bytes as u64 >= ROUND_BYTES {
                            break None;
                        }
                    }
                    Step::TimestampSizes { offset, sizes } => {
                        items.push(Item::Event(Event::TimestampSizes { wal: tail.wal(), offset, sizes }));
                    }
                    Step::FinalEnd { void_bytes } => break Some(Ok(void_bytes)),
                    Step::EndSoFar => break Some(Ok(0)),
                    Step::Corrupt { at, reason } => break Some(Err((at, reason))),
                }
            };
            if !items.is_empty() {
                tail.keep_copy(self.registry.pins())?;
            }
            let (wal, end, cut) = (tail.wal(), tail.end(), tail.cut_to()?);
            let certain = tail.is_certain(&self.registry, self.layout.recycling())?;
            let recycled = tail.is_recycled();
            // A file that the server has taken for another WAL since has that one's length.
            let cut = cut.filter(|_| certain || !recycled);
            tracing::debug!(%wal, end, certain, origin = ?tail.origin(), seen = ?self.registry.seen(wal), "end of a WAL");
            if self.emit(items)? == emit::Run::Ended {
                return Ok(emit::Run::Ended);
            }
            let void_bytes = match ended {
                None => continue,
                Some(Ok(void_bytes)) => void_bytes,
                Some(Err((at, reason))) => {
                    self.end_run(BarrierReason::Unreadable, format!("WAL {wal} at offset {at}: {reason}"))?;
                    return Ok(emit::Run::Ended);
                }
            };
            if let Some(length) = cut {
                let detail = format!("WAL {wal} was cut below offset {end}, which is archived");
                if let Some(from) = self.state.recent.cut_off(wal, length) {
                    let to = self.stream.boundary();
                    self.state.transactions.withdraw(from.next_record(), to.next_record());
                    self.stream.event(&Event::Withdrawn { from, to, evidence: detail.clone() })?;
                }
                self.end_run(BarrierReason::Fork, detail)?;
                return Ok(emit::Run::Ended);
            }
            let prefix = self.stream.wal_prefix(wal);
            if let Some(fact) = self.state.wals.get_mut(&wal) {
                fact.end = end;
                fact.prefix = prefix.unwrap_or(fact.prefix);
                fact.ended = certain;
                fact.recycled = recycled;
            }
            let void_bytes = if certain { void_bytes } else { 0 };
            self.stream.event(&Event::WalEnded { wal, end, void_bytes })?;
            let boundary = self.stream.boundary();
            let (closed, open): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.open).into_iter().partition(|o| o.until_end_of.is_some_and(|w| w <= wal));
            self.open = open;
            for interval in closed {
                self.stream.event(&Event::IntervalClosed { manifest: interval.manifest, hi: boundary })?;
            }
            self.place = Place::After(wal);
            return Ok(emit::Run::GoesOn);
        }
    }

    /// The proof that there is no WAL between two that are known.
    ///
    /// Any of: every WAL that RocksDB had deleted when the directory was listed has a number below the minimum log number
    /// that the MANIFEST names *afterwards*, and no number between the two is; the watch has been complete and lost
    /// nothing; every number between the two is known to be another file's; inside one session, the next record's
    /// sequence number is the one that is due, or nothing that was flushed has a higher number than what is archived
    /// (RocksDB deletes a WAL only after its records were flushed, and a flush's edit names the highest number in its file;
    /// records of which a flush left nothing can hide from this, and show as a jump at the next record).
    ///
    /// Sessions are never joined by sequence numbers; and where one is known to have begun, there may have been others,
    /// so not even the WALs before its first are.
    fn none_between(&self, present: FileNumber, next: FileNumber, first: Option<&First>) -> bool {
        let end_is_certain = self.state.wals.get(&present).is_none_or(|fact| fact.ended);
        let deleted_below = run::deleted_below(&self.manifest, &self.layout);
        tracing::debug!(%present, %next, ?deleted_below, "is there a WAL between?");
        let none_deleted = present.next().is_some_and(|after| deleted_below.is_some_and(|below| below <= after));
        let watched = || self.registry.watched_between(present, next);
        let others = || self.manifest.none_is_free_between(present, next, &self.registry.options());
        if end_is_certain && (none_deleted || watched() || others()) {
            return true;
        }
        // A WAL can hold prepare sections and decisions that consume no number at all.
        let two_phase = self.layout.allow_2pc() || self.state.transactions.policy().is_some();
        if self.state.pending_session.is_some() || two_phase {
            return false;
        }
        // Numbers of ingested files are no record's.
        let (last, with_files) = (self.state.model.last(), self.state.model.last_with_files());
        // A MANIFEST that names none yet says nothing about the files that it has.
        let named = self.manifest.model().last_sequence();
        let flushed =
            (named > SequenceNumber::default() || self.manifest.model().live_files().next().is_none()).then_some(named);
        let is_due = |number| [last, with_files].iter().flatten().any(|last| last.checked_add(1) == Some(number));
        last.is_some()
            && (flushed.is_some_and(|flushed| Some(flushed) <= with_files)
                || first.is_some_and(|f| f.consumes && is_due(f.sequence)))
    }

    /// Begins reading a WAL at offset 0.
    pub(super) fn begin_wal(&mut self, wal: FileNumber) -> Result<()> {
        let Some(tail) = WalTail::open(&self.registry, wal)? else {
            let detail = format!("WAL {wal} vanished before it could be read");
            return self.end_run(BarrierReason::RecordsMissing, detail);
        };
        self.stream.event(&Event::WalStarted { wal })?;
        let fact = WalFact {
            first: self.stream.boundary(),
            hash: self.stream.hash(),
            end: 0,
            prefix: WalPrefix::new(self.stream.keyring().hash_key()).value(),
            ended: false,
            recycled: false,
        };
        self.state.wals.insert(wal, fact);
        self.place = Place::In(Box::new(tail));
        self.manifest.forget_numbers_below(wal);
        Ok(())
    }

    /// An open that reuses the MANIFEST (`reuse_manifest_on_open`) shows in the info log and by a new OPTIONS file. Both
    /// are asked for: a read-only open begins an info log too, `SetOptions` writes an OPTIONS file too.
    fn notice_session_without_manifest(&mut self, next: FileNumber) -> Result<()> {
        if self.state.pending_session.is_some() || self.registry.newest_options() <= self.state.options {
            return Ok(());
        }
        let id = session::session_id(&self.layout.info_log())?;
        if let (Some(old), Some(new)) = (&self.state.session_id, &id)
            && old != new
        {
            let needed = self.first_wal_needed();
            self.state.pending_session = Some(PendingSession {
                manifest: self.manifest.point(),
                waits: true,
                id,
                first_wal: next,
                needed_before: needed,
                flushed: self.manifest.model().last_sequence(),
            });
        }
        Ok(())
    }

    /// A session of the server begins at the end of the stream, if it continues what is archived.
    fn begin_session(
        &mut self,
        session: &PendingSession,
        first_wal: FileNumber,
        first: Option<&First>,
    ) -> Result<emit::Run> {
        self.state.model.settle();
        if !self.lineage_holds()? {
            self.state.pending_session = Some(session.clone());
            return Ok(emit::Run::Ended);
        }
        let last = self.last_sequence();
        match self.compare_with_files(session.needed_before)? {
            Compared::Same => {}
            Compared::Other { wal, detail } => {
                // Its MANIFEST was followed up to this session.
                let evidence = Evidence::Bytes { from: wal, before: Before::Shared };
                return Ok(self.session_forked(session, evidence, detail));
            }
            Compared::Gone(detail) => {
                self.end_run(BarrierReason::RecordsMissing, detail)?;
                return Ok(emit::Run::Ended);
            }
        }
        if let Some(first) = first
            && first.marker
            && first.sequence <= self.state.model.last_of_records()
        {
            let detail = format!(
                "the session begins by taking back everything from sequence {}; records up to {last} are archived",
                first.sequence
            );
            match self.recovery_stopped(session)? {
                Stopped::Behind => {}
                Stopped::In(wal) => return Ok(self.session_forked(session, Evidence::StoppedIn(wal), detail)),
                Stopped::Unknown => {
                    let evidence = Evidence::TakenBack { sequence: first.sequence, from: session.needed_before };
                    return Ok(self.session_forked(session, evidence, detail));
                }
            }
        }
        let begins_behind = self.begins_behind(session.first_wal, session.manifest);
        let by_open = u64::from(self.state.transactions.counts_batches());
        if self.state.model.is_beyond(session.flushed, by_open) {
            self.jump_to_flushed(self.stream.boundary(), session.flushed)?;
        }
        // Records that RocksDB replayed at the open count, also where their keys vanished in the flush; records in WALs
        // that it no longer needed count only as far as flushed files show them.
        let replayed = self.stream.last_record().is_some_and(|(wal, _)| wal >= session.needed_before);
        let recovered = if replayed { last.max(session.flushed) } else { session.flushed };
        // What a session took back it had written itself.
        self.state.recent.forget();
        self.state.session += 1;
        self.state.session_id = session.id.clone();
        self.state.options = self.registry.newest_options();
        if !self.state.model.only_reopened(recovered) {
            self.state.session_start = self.stream.boundary();
        }
        self.state.model.start_session(recovered);
        self.stream.event(&Event::SessionStarted {
            session: self.state.session,
            db_session_id: session.id.clone(),
            // For those who read this, nothing that is said behind this point came before the session. Where that is not
            // certain, everything said so far counts as said before it, and its own interval tells.
            manifest: if begins_behind { session.manifest } else { self.manifest.point() },
            last_sequence: recovered,
        })?;
        // An open's MANIFEST has the number after its first WAL's. Where that WAL was never there, or the session was noticed
        // without a MANIFEST of its own, the one of the open was not seen: this one begins with what the session has done
        // since, and no base ends with the open.
        let known = self.registry.seen(session.first_wal).is_some() || self.state.wals.contains_key(&session.first_wal);
        let reuses = self.layout.settings().is_some_and(|s| s.reuse_manifest_on_open == Some(true));
        let own = session.first_wal.next() == Some(session.manifest.file);
        let unseen = self.wal_comes_first() && if own { !known } else { !reuses };
        self.want_base(if unseen {
            BaseReason::RunStarted
        } else {
            BaseReason::SessionStarted {
                run: self.state.run,
                manifest: session.manifest,
                first_wal: first_wal.max(session.first_wal),
                floor: self.stream.boundary(),
                hash: self.stream.hash(),
                sequence: recovered,
            }
        });
        if begins_behind {
            self.deferred_came_after(self.stream.boundary());
        }
        // Everything read so far was read before the last look at the MANIFEST.
        self.lo = self.lo.max(self.stream.boundary());
        self.publish_deferred(None, &[])?;
        Ok(emit::Run::GoesOn)
    }

    /// Where the recovery stopped that a session begins with, which says so by its first record. Every archived record is
    /// in the files, so the first log that is torn or damaged tells what was left out: whatever lies in later ones.
    fn recovery_stopped(&self, session: &PendingSession) -> Result<Stopped> {
        let wals = self.registry.wals_from(session.needed_before);
        for (wal, _) in wals.into_iter().take_while(|(wal, _)| *wal < session.first_wal) {
            let Some(mut tail) = WalTail::open(&self.registry, wal)? else { return Ok(Stopped::Unknown) };
            let torn = loop {
                match tail.next(Finality::Final)? {
                    Step::Record(_) | Step::TimestampSizes { .. } => {}
                    Step::FinalEnd { void_bytes } => break void_bytes > 0,
                    Step::EndSoFar => break false,
                    Step::Corrupt { .. } => break true,
                }
            };
            // What a recycled log held before looks like a torn end.
            if tail.is_recycled() {
                return Ok(Stopped::Unknown);
            }
            if torn {
                let later = |(number, fact): (&FileNumber, &WalFact)| *number > wal && fact.end > 0;
                let left_out = self.state.wals.range(..session.first_wal).any(later);
                return Ok(if left_out { Stopped::In(wal) } else { Stopped::Behind });
            }
        }
        Ok(Stopped::Unknown)
    }

    /// The session is another history's; a process that comes after a crash must meet it again.
    fn session_forked(&mut self, session: &PendingSession, evidence: Evidence, detail: String) -> emit::Run {
        self.state.pending_session = Some(session.clone());
        self.fork(evidence, detail);
        emit::Run::Ended
    }

    /// Whether every archived record of every WAL from `from` on is still in the files, byte for byte.
    pub(super) fn compare_with_files(&self, from: FileNumber) -> Result<Compared> {
        for (wal, fact) in self.state.wals.range(from..) {
            if fact.end == 0 {
                continue;
            }
            let Some(mut tail) = WalTail::open(&self.registry, *wal)? else {
                let detail = format!("WAL {wal} is gone and was not pinned: it cannot be compared with the archive");
                return Ok(Compared::Gone(detail));
            };
            match tail.skip_to(self.stream.keyring().hash_key(), fact.end)?.map(|prefix| prefix.value()) {
                Some(prefix) if prefix == fact.prefix => {}
                // The file of a recycled WAL is overwritten once the server no longer needs it. Within one boot of the
                // machine, what was read from it cannot have been lost.
                None if fact.recycled && self.same_boot() => {}
                found => {
                    let what = match (found, tail.origin()) {
                        (Some(_), Origin::File) => "holds other records than the archive",
                        (None, Origin::File) => "is shorter than what is archived",
                        (_, Origin::Copy) => "has only a copy that differs from the archive",
                    };
                    let detail = format!("WAL {wal} {what} (up to offset {})", fact.end);
                    return Ok(Compared::Other { wal: *wal, detail });
                }
            }
        }
        Ok(Compared::Same)
    }
}
