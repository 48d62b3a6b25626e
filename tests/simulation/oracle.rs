//! What the database held at every place: the one truth that a restore is compared with.
//!
//! Owns: a moment for every record that was ever complete in a log, with the states in which the database was between it
//! and the next one. There may be several: column families come and go, files are ingested, writes stay out of the log
//! and sequence numbers fall at a reopen without a record. Records that a power loss took back stay known: the archive
//! may hold them, and tags may name them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::table::Contents;

/// A state of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Column families by name.
    pub families: BTreeMap<String, Arc<Contents>>,
    /// `GetLatestSequenceNumber`.
    pub sequence: u64,
}

/// The state number `state` of a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which moment.
    pub moment: usize,
    /// Which of its states.
    pub state: usize,
}

/// The database directly behind a record.
#[derive(Debug)]
pub struct Moment {
    /// The moment of the record before.
    pub before: usize,
    /// The record's WAL and the offset after it; none before the first record.
    pub place: Option<(u64, u64)>,
    /// The record's bytes.
    pub payload: Vec<u8>,
    /// What the database was until the next record.
    pub states: Vec<State>,
}

/// Every moment of a run.
#[derive(Debug)]
pub struct Oracle {
    moments: Vec<Moment>,
    /// By the WAL and the offset after the record.
    by_place: HashMap<(u64, u64), usize>,
    /// Of the server's memory.
    latest: usize,
    /// Of its files.
    readable: Mark,
}

impl Oracle {
    /// An empty database.
    pub fn new(state: State) -> Self {
        let first = Moment { before: 0, place: None, payload: Vec::new(), states: vec![state] };
        Self { moments: vec![first], by_place: HashMap::new(), latest: 0, readable: Mark { moment: 0, state: 0 } }
    }

    /// The server wrote a record that will end at this place.
    pub fn record(&mut self, wal: u64, end: u64, payload: Vec<u8>, state: State) -> Mark {
        let moment = self.moments.len();
        let place = Some((wal, end));
        self.moments.push(Moment { before: self.latest, place, payload, states: vec![state] });
        self.by_place.insert((wal, end), moment);
        self.latest = moment;
        Mark { moment, state: 0 }
    }

    /// The database changed without a record.
    pub fn change(&mut self, state: State) -> Mark {
        let states = &mut self.moments[self.latest].states;
        if states.last() != Some(&state) {
            states.push(state);
        }
        Mark { moment: self.latest, state: states.len() - 1 }
    }

    /// The files show this now. A change without a record that is shown while records before it are still in the server's
    /// memory leaves no state that anybody had.
    pub fn reach(&mut self, mark: Mark) {
        if mark.state == 0 || mark.moment == self.readable.moment {
            self.readable = mark;
        }
    }

    /// The server was opened and found this, `moment` being that of the last record in its log.
    pub fn recover(&mut self, moment: usize, state: State) {
        self.latest = moment;
        self.readable = self.change(state);
    }

    /// A power loss took this log's bytes from `length` on.
    pub fn lose(&mut self, log: u64, length: u64) {
        let mut moment = self.readable.moment;
        while self.moments[moment].place.is_some_and(|(wal, end)| wal == log && end > length) {
            moment = self.moments[moment].before;
        }
        self.readable = Mark { moment, state: self.moments[moment].states.len() - 1 };
    }

    /// What the files show.
    pub fn readable(&self) -> Mark {
        self.readable
    }

    /// The moment of a record.
    pub fn at(&self, wal: u64, end: u64) -> Option<usize> {
        self.by_place.get(&(wal, end)).copied()
    }

    /// A moment.
    pub fn moment(&self, moment: usize) -> &Moment {
        &self.moments[moment]
    }

    /// A state.
    pub fn state(&self, mark: Mark) -> &State {
        &self.moments[mark.moment].states[mark.state]
    }

    /// Records ever written.
    pub fn records(&self) -> usize {
        self.moments.len() - 1
    }
}
