//! What the database must hold: the model that every restore is compared with.
//!
//! Owns: the meaning of each operation, and for every logged record the states in which the database was between
//! that record and the next. There may be several: column families come and go, files are ingested and sequence
//! numbers fall at a reopen without any record. A restore to that record must equal one of them.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::program::Op;

/// Keys and values of one column family.
pub type Family = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys and values of all column families.
pub type Content = BTreeMap<String, Arc<Family>>;

/// Prepared transactions by name.
pub type Pending = BTreeMap<String, Arc<Vec<Op>>>;

/// A state of the database.
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    /// Keys and values.
    pub content: Content,
    /// The latest sequence number.
    pub sequence: u64,
    /// What prepared transactions would write.
    pub pending: Pending,
}

/// Only what helps to find a difference: names and counts.
impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sequence {}", self.sequence)?;
        self.content.iter().try_for_each(|(name, family)| write!(f, ", {name}: {} keys", family.len()))
    }
}

impl State {
    /// The first differences to `other`, for people.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.sequence != other.sequence {
            found.push(format!("sequence {} instead of {}", other.sequence, self.sequence));
        }
        if self.pending != other.pending {
            let names = |pending: &Pending| pending.keys().cloned().collect::<Vec<_>>().join(", ");
            found.push(format!("pending are {:?} instead of {:?}", names(&other.pending), names(&self.pending)));
        }
        for name in self.content.keys().chain(other.content.keys().filter(|n| !self.content.contains_key(*n))) {
            match (self.content.get(name), other.content.get(name)) {
                (Some(_), None) => found.push(format!("column family {name} is missing")),
                (None, _) => found.push(format!("column family {name} should not exist")),
                (Some(expected), Some(got)) => {
                    for key in expected.keys().chain(got.keys().filter(|k| !expected.contains_key(*k))) {
                        let (e, g) = (expected.get(key), got.get(key));
                        if e != g && found.len() < 8 {
                            found.push(format!("{name}/{}: {} instead of {}", text(Some(key)), text(g), text(e)));
                        }
                    }
                }
            }
        }
        found
    }
}

fn text(bytes: Option<&Vec<u8>>) -> String {
    match bytes {
        None => "nothing".to_owned(),
        Some(bytes) => {
            let shown = String::from_utf8_lossy(bytes);
            if shown.len() > 60 { format!("{:.60}... ({} bytes)", shown, bytes.len()) } else { shown.into_owned() }
        }
    }
}

/// A moment of the program: after so many records, in which of the states between that record and the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Records before it.
    pub records: usize,
    /// Index into the states there.
    pub state: usize,
}

/// The model.
pub struct Model {
    content: Content,
    pending: Pending,
    /// The write batch of every record as the log must hold it, with its sequence number.
    pub records: Vec<Vec<u8>>,
    /// `states[n]`: in which the database was after `n` records and before the next.
    pub states: Vec<Vec<State>>,
}

impl Model {
    /// An empty database.
    pub fn new() -> Self {
        let content: Content = BTreeMap::from([("default".to_owned(), Arc::default())]);
        let states = vec![vec![State { content: content.clone(), sequence: 0, pending: Pending::new() }]];
        Self { content, pending: Pending::new(), records: Vec::new(), states }
    }

    /// Now.
    pub fn moment(&self) -> Moment {
        let records = self.records.len();
        Moment { records, state: self.states[records].len() - 1 }
    }

    /// The present content.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The present state.
    pub fn present(&self) -> &State {
        self.states.last().and_then(|s| s.last()).expect("there is always a state")
    }

    /// A batch was written and logged as `payload`; the latest sequence number is now `sequence`.
    pub fn logged(&mut self, ops: &[Op], payload: Vec<u8>, sequence: u64) {
        self.apply(ops);
        self.records.push(payload);
        self.states.push(Vec::new());
        self.observed(sequence);
    }

    /// A transaction was prepared.
    pub fn prepared(&mut self, name: &str, ops: &[Op], payload: Vec<u8>, sequence: u64) {
        self.pending.insert(name.to_owned(), Arc::new(ops.to_vec()));
        self.logged(&[], payload, sequence);
    }

    /// It was committed.
    pub fn committed(&mut self, name: &str, payload: Vec<u8>, sequence: u64) {
        let ops = self.pending.remove(name).expect("a prepared transaction");
        self.logged(&ops, payload, sequence);
    }

    /// It was rolled back.
    pub fn rolled_back(&mut self, name: &str, payload: Vec<u8>, sequence: u64) {
        self.pending.remove(name).expect("a prepared transaction");
        self.logged(&[], payload, sequence);
    }

    /// What brings back the state before a prepared transaction, key by key in the order of its operations.
    pub fn undo(&self, name: &str) -> Vec<Op> {
        let mut undo: Vec<Op> = Vec::new();
        for op in &*self.pending[name] {
            let (Op::Put(family, key, _) | Op::Delete(family, key)) = op else {
                panic!("not in a transaction of these tests: {op:?}")
            };
            let step = match self.content[family].get(key) {
                Some(value) => Op::Put(family.clone(), key.clone(), value.clone()),
                None => Op::Delete(family.clone(), key.clone()),
            };
            if !undo.contains(&step) {
                undo.push(step);
            }
        }
        undo
    }

    /// A batch was written without the log.
    pub fn unlogged(&mut self, ops: &[Op], sequence: u64) {
        self.apply(ops);
        self.observed(sequence);
    }

    /// Pairs entered without the log.
    pub fn ingested(&mut self, family: &str, pairs: &[(Vec<u8>, Vec<u8>)], sequence: u64) {
        let family = self.family(family);
        family.extend(pairs.iter().cloned());
        self.observed(sequence);
    }

    /// A column family came into being.
    pub fn created(&mut self, name: &str, sequence: u64) {
        self.content.insert(name.to_owned(), Arc::default());
        self.observed(sequence);
    }

    /// A column family was dropped.
    pub fn dropped(&mut self, name: &str, sequence: u64) {
        self.content.remove(name);
        self.observed(sequence);
    }

    /// The database was found to hold this: where no model can know (files dropped in a range).
    pub fn found(&mut self, content: Content, sequence: u64) {
        self.content = content;
        self.observed(sequence);
    }

    /// The latest sequence number was read.
    pub fn observed(&mut self, sequence: u64) {
        let state = State { content: self.content.clone(), sequence, pending: self.pending.clone() };
        let states = self.states.last_mut().expect("there is always a state");
        if states.last() != Some(&state) {
            states.push(state);
        }
    }

    /// The content after `ops`, without doing them.
    pub fn preview(&self, ops: &[Op]) -> Content {
        preview(&self.content, ops)
    }

    fn apply(&mut self, ops: &[Op]) {
        self.content = preview(&self.content, ops);
    }

    fn family(&mut self, name: &str) -> &mut Family {
        Arc::make_mut(self.content.get_mut(name).unwrap_or_else(|| panic!("no column family {name}")))
    }
}

/// The content after `ops`.
pub fn preview(content: &Content, ops: &[Op]) -> Content {
    let mut content = content.clone();
    let mut family = |name: &str, change: &mut dyn FnMut(&mut Family)| {
        change(Arc::make_mut(content.get_mut(name).unwrap_or_else(|| panic!("no column family {name}"))));
    };
    for op in ops {
        match op {
            Op::PutEntity(name, key, columns) => family(name, &mut |f| {
                // What readers of plain values see.
                let value = columns.iter().find(|(column, _)| column.is_empty());
                f.insert(key.clone(), value.map(|(_, value)| value.clone()).unwrap_or_default());
            }),
            Op::Put(name, key, value) | Op::TimedPut(name, key, value, _) => {
                family(name, &mut |f| drop(f.insert(key.clone(), value.clone())))
            }
            Op::Delete(name, key) | Op::SingleDelete(name, key) => family(name, &mut |f| drop(f.remove(key))),
            Op::DeleteRange(name, from, to) => family(name, &mut |f| f.retain(|key, _| !(key >= from && key < to))),
            Op::Merge(name, key, operand) => family(name, &mut |f| {
                let merged = merge(f.get(key).map(Vec::as_slice), std::iter::once(operand.as_slice()));
                f.insert(key.clone(), merged);
            }),
            Op::LogData(_) => {}
        }
    }
    content
}

/// The merge operator of the tests: operands are appended, with commas between.
pub fn merge<'a>(existing: Option<&[u8]>, operands: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut merged = existing.map(<[u8]>::to_vec);
    for operand in operands {
        match &mut merged {
            Some(bytes) => {
                bytes.push(b',');
                bytes.extend_from_slice(operand);
            }
            None => merged = Some(operand.to_vec()),
        }
    }
    merged.unwrap_or_default()
}
