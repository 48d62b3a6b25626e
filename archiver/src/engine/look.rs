//! One look at everything readable.
//!
//! One look ([`Engine::poll`]) is a sequence of rounds. Each round reads in this order, and the order is what makes the
//! intervals of events true:
//!
//! 1. the present WAL to its readable end (or the budget);
//! 2. the MANIFEST to its end: an edit that is new now was not there when the round before read it last, so it happened
//!    after the readable end of the *round before* (`lo`);
//! 3. if there was such an edit: the WAL once more, what is readable now includes everything before the edit (`hi`); and
//!    step 2 again, so that no record is taken that is younger than the last look at the MANIFEST;
//! 4. events go into the stream before the records of the round, so that no archive holds records beyond an event's
//!    `lo` without holding the event;
//! 5. if the WAL is final, the next one is begun, after the proof that there is none in between.

use pitr_archive::{
    Code, Error, Result,
    clock::Micros,
    ids::Boundary,
    rocks::log_reader::Finality,
    segment::entry::{BarrierReason, Event},
};

use super::{
    Engine, advance, emit, news,
    types::{self, Item, Place, Polled},
};
use crate::{
    layout::Layout,
    manifest_tail::{Follow, News},
    wal_tail::Step,
};

/// Looks at the MANIFEST in one round: a server that changes its files without a pause must not hold up its records.
const MANIFEST_LOOKS: u32 = 3;

/// Plain bytes that one round reads at most, so that memory stays bounded while an archiver catches up.
pub(super) const ROUND_BYTES: u64 = 1 << 20;

impl Engine {
    /// Everything readable is read, or `limit` plain bytes of it.
    pub fn poll(&mut self, limit: u64) -> Result<Polled> {
        let mut polled = Polled::default();
        if self.forked.is_some() || !self.leave_waiting()? {
            return Ok(polled);
        }
        self.learn_settings()?;
        // What an earlier look left in memory may have been the end of the file then: this one promises the present.
        if let Place::In(tail) = &mut self.place {
            tail.look_again();
        }
        let run = self.state.run;
        loop {
            let before = self.stream.plain_bytes();
            let quiet_at = self.stream.entries();
            let from = self.clock.now();
            let round = self.round(from)?;
            polled.records += round.records;
            let added = self.stream.plain_bytes().saturating_sub(before);
            polled.bytes += added;
            if round.caught_up {
                polled.caught_up = true;
                self.caught_up_at = Some(from);
                if quiet_at == self.stream.entries() {
                    self.stream.observed_through(from);
                }
                return Ok(polled);
            }
            // A run that began just now is looked at again by the next poll: whatever ended the one before must not spin.
            let new_run = self.state.run != run;
            if self.waiting.is_some()
                || self.forked.is_some()
                || new_run
                || polled.bytes >= limit
                || (round.records == 0 && !round.moved)
            {
                return Ok(polled);
            }
        }
    }

    fn round(&mut self, from: Micros) -> Result<types::Round> {
        let mut items = Vec::new();
        let start = self.stream.boundary();
        let mut read = self.read_wal(&mut items)?;
        let (mut news, mut missed, mut put_back) = (Vec::new(), None, None);
        // Every change that these had shown before the log was read for the last time.
        let mut shown = 0;
        let mut looks = 0;
        // The MANIFEST is always read after the records: what it does not say by then has not happened before them, and
        // a segment that ends here needs no later one to be true.
        loop {
            looks += 1;
            let before = news.len();
            match self.manifest.follow(&self.registry)? {
                Follow::News(more) => {
                    self.hold_entered(&more)?;
                    news.extend(more);
                }
                Follow::Missed { before, detail } => {
                    news.extend(before);
                    missed = Some(detail);
                }
                Follow::PutBack { before, detail } => {
                    news.extend(before);
                    put_back = Some(detail);
                }
            }
            let tells = |news: &News| news::has_interval(news) || news::may_be_of_unread_records(news);
            let again = read == types::Ended::SoFar && news.iter().skip(before).any(tells);
            if again || !self.open.is_empty() {
                // The end of an interval must lie behind everything readable: a WAL that no event has named yet included.
                self.registry.scan()?;
            }
            if !again || missed.is_some() || put_back.is_some() || looks == MANIFEST_LOOKS {
                break;
            }
            read = self.read_wal(&mut items)?;
            shown = news.len();
        }
        let edge = edge(start, &items);
        let mut at_end = read == types::Ended::SoFar && !self.newer_wal_has_records()?;
        let all_shown = !news.iter().skip(shown).any(news::has_interval);
        let certain = all_shown && !self.unread_is_possible() && !self.newer_wal_is_known();
        let hi = (at_end && shown > 0 && certain).then_some(edge);
        self.publish_news(news, hi, &items)?;
        if missed.is_none() && put_back.is_none() {
            self.lo = edge;
        }
        if self.begin_session_here(&items)? == emit::Run::Ended {
            return Ok(types::Round { records: 0, moved: true, caught_up: false });
        }
        let records = edge.get() - start.get();
        if self.emit(items)? == emit::Run::Ended {
            return Ok(types::Round { records: 0, moved: true, caught_up: false });
        }
        if let Some(detail) = put_back {
            self.put_back(detail)?;
            return Ok(types::Round { records, moved: true, caught_up: false });
        }
        if let Some(detail) = missed {
            self.end_run(BarrierReason::ManifestMissed, detail)?;
            return Ok(types::Round { records, moved: true, caught_up: false });
        }
        let mut moved = false;
        match read {
            types::Ended::Budget => at_end = false,
            types::Ended::SoFar => match self.advance()? {
                advance::Advance::Stays => {}
                advance::Advance::Moved => {
                    moved = true;
                    at_end = false;
                }
            },
            types::Ended::Corrupt { at, reason } => {
                let detail = format!("WAL {} at offset {at}: {reason}", self.present_wal());
                self.end_run(BarrierReason::Unreadable, detail)?;
                moved = true;
                at_end = false;
            }
        }
        if at_end {
            self.at_readable_end()?;
        }
        // Last, so that the look shows all that the round found out.
        if self.stream.entries() != self.looked_at {
            // Of what is new is only known that it was not there when the last look that saw everything began.
            self.stream.look(self.state.observed.unwrap_or(Micros(0)), self.clock.now());
            self.looked_at = self.stream.entries();
        }
        if at_end {
            self.state.observed = Some(from);
        }
        Ok(types::Round { records, moved, caught_up: at_end })
    }

    /// Settings change with a restart of the server, some at any time: each change is a new OPTIONS file.
    pub(super) fn learn_settings(&mut self) -> Result<()> {
        let read = self.layout.options.as_ref().map(|options| options.number);
        if self.registry.newest_options() <= read {
            return Ok(());
        }
        let layout = Layout::read(&self.layout.db, &self.layout.db_paths)?;
        if layout.wal_dir != self.layout.wal_dir {
            return Err(Error::new(Code::DatabaseUnsupported, "following the write-ahead log of")
                .on(self.layout.db.display())
                .with("wal_dir was", self.layout.wal_dir.display())
                .with("wal_dir is", layout.wal_dir.display())
                .hint("the server keeps its log elsewhere since its restart: start the archiver again"));
        }
        self.layout = layout;
        Ok(())
    }

    /// Reads the present WAL to its end so far, or until the round's budget is used up.
    fn read_wal(&mut self, items: &mut Vec<Item>) -> Result<types::Ended> {
        let Place::In(tail) = &mut self.place else { return Ok(types::Ended::SoFar) };
        let mut bytes = 0u64;
        let mut records = 0usize;
        let ended = loop {
            if bytes >= ROUND_BYTES {
                break types::Ended::Budget;
            }
            match tail.next(Finality::Growing)? {
                Step::Record(record) => {
                    bytes += record.payload.len() as u64 + 32;
                    records += 1;
                    items.push(Item::Record(record));
                }
                Step::TimestampSizes { offset, sizes } => {
                    items.push(Item::Event(Event::TimestampSizes { wal: tail.wal(), offset, sizes }));
                }
                Step::EndSoFar | Step::FinalEnd { .. } => {
                    tail.look_again();
                    break types::Ended::SoFar;
                }
                Step::Corrupt { at, reason } => break types::Ended::Corrupt { at, reason },
            }
        };
        if records > 0 {
            tail.keep_copy(self.registry.pins())?;
            crate::crash::point("after-pin");
        }
        Ok(ended)
    }

    /// Everything that was readable has been read.
    fn at_readable_end(&mut self) -> Result<()> {
        let boundary = self.stream.boundary();
        self.state.model.settle();
        let flushed = self.manifest.model().last_sequence();
        let by_open = u64::from(self.state.transactions.counts_batches());
        // What a session flushed is said where it begins. One that no info log names begins with its first record only, and
        // until then the database can have gone on unseen.
        let judged_later = self.state.pending_session.as_ref().is_some_and(|session| session.waits);
        if self.state.model.is_beyond(flushed, by_open) && !judged_later {
            self.jump_to_flushed(boundary, flushed)?;
            self.state.model.accept(flushed);
        } else if self.state.model.last().is_some() && self.state.pending_session.is_none() {
            self.state.model.accept(flushed);
        }
        if !self.unread_is_possible() {
            self.close_intervals(boundary)?;
        }
        Ok(())
    }

    /// Ends every open interval at `hi`.
    pub(super) fn close_intervals(&mut self, hi: Boundary) -> Result<()> {
        for interval in std::mem::take(&mut self.open) {
            self.stream.event(&Event::IntervalClosed { manifest: interval.manifest, hi })?;
        }
        Ok(())
    }
}

/// The boundary after `items`.
fn edge(start: Boundary, items: &[Item]) -> Boundary {
    let records = items.iter().filter(|i| matches!(i, Item::Record(_))).count();
    Boundary::new(start.get() + records as u64)
}
