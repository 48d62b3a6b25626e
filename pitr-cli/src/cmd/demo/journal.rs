//! What the demo's writer notes about each of its writes, and the database that follows from it.
//!
//! Owns: the notes' form (a line of JSON before each write with what it will do, a line after it) and the model: every
//! column family's contents after each write. The notes never go through RocksDB, so they are evidence of their own.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
};

use pitr_archive::{Code, Error, Result, clock::Micros, error};
use serde::{Deserialize, Serialize};

/// The file in the demo's directory.
pub const FILE: &str = "writer-notes.jsonl";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "kebab-case")]
pub enum Note {
    /// A write is about to be made; writes are numbered from 1.
    Write {
        /// Its number.
        number: u64,
        /// The clock before it.
        before: Micros,
        /// What it does, in order; each takes one sequence number.
        ops: Vec<Op>,
    },
    /// The write returned.
    Written {
        /// Its number.
        number: u64,
        /// The clock after it.
        after: Micros,
        /// The database's own latest sequence number then.
        sequence: u64,
    },
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// The column family.
    pub family: String,
    /// The key.
    pub key: String,
    /// The new value; a deletion when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// The end of the notes being written.
pub struct Writer(File);

impl Writer {
    /// Begins a file.
    pub fn create(path: &Path) -> Result<Self> {
        File::create_new(path).map(Self).map_err(|e| error::io("creating", path, e))
    }

    /// One line in one system call, so that kill -9 leaves whole lines.
    pub fn note(&mut self, note: &Note) -> Result<()> {
        let mut line =
            serde_json::to_vec(note).map_err(|e| Error::new(Code::Internal, "encoding a note").because(e))?;
        line.push(b'\n');
        self.0.write_all(&line).map_err(|e| error::io("writing", FILE, e))
    }
}

/// All notes, read back.
#[derive(Debug, Default)]
pub struct Journal {
    writes: Vec<Noted>,
}

/// A write as noted.
#[derive(Debug)]
pub struct Noted {
    /// Its number, from 1.
    pub number: u64,
    /// The clock before it.
    pub before: Micros,
    /// The clock after it; absent when the writer was killed before it could note it.
    pub after: Option<Micros>,
    /// The sequence number after it, counted from the operations.
    pub sequence: u64,
    ops: Vec<Op>,
}

/// A database's contents: column family, key, value.
pub type Contents = BTreeMap<String, BTreeMap<String, String>>;

impl Journal {
    /// Reads the notes. A torn last line (the writer was killed) ends them.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| error::io("opening", path, e))?;
        let mut journal = Self::default();
        let mut sequence = 0;
        for line in BufReader::new(file).lines() {
            let line = line.map_err(|e| error::io("reading", path, e))?;
            let Ok(note) = serde_json::from_str::<Note>(&line) else { break };
            match note {
                Note::Write { number, before, ops } => {
                    sequence += ops.len() as u64;
                    journal.writes.push(Noted { number, before, after: None, sequence, ops });
                }
                Note::Written { number, after, sequence: reported } => {
                    let last = journal.writes.last_mut().filter(|w| w.number == number && w.sequence == reported);
                    let last = last.ok_or_else(|| {
                        Error::new(Code::Internal, "reading the writer's notes")
                            .on(path.display())
                            .with("write", number)
                    })?;
                    last.after = Some(after);
                }
            }
        }
        Ok(journal)
    }

    /// The writes in order.
    pub fn writes(&self) -> &[Noted] {
        &self.writes
    }

    /// The write after which the database's latest sequence number was this.
    pub fn at_sequence(&self, sequence: u64) -> Option<&Noted> {
        self.writes.iter().find(|w| w.sequence == sequence)
    }

    /// The contents after a write. Column families without keys are left out.
    pub fn contents_after(&self, number: u64) -> Contents {
        let mut contents = Contents::new();
        for op in self.writes.iter().take_while(|w| w.number <= number).flat_map(|w| &w.ops) {
            let family = contents.entry(op.family.clone()).or_default();
            match &op.value {
                Some(value) => family.insert(op.key.clone(), value.clone()),
                None => family.remove(&op.key),
            };
        }
        contents.retain(|_, keys| !keys.is_empty());
        contents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_follows_the_notes_and_a_torn_line_ends_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut writer = Writer::create(&path).unwrap();
        let op =
            |key: &str, value: Option<&str>| Op { family: "f".into(), key: key.into(), value: value.map(Into::into) };
        writer
            .note(&Note::Write { number: 1, before: Micros(1), ops: vec![op("a", Some("1")), op("b", Some("2"))] })
            .unwrap();
        writer.note(&Note::Written { number: 1, after: Micros(2), sequence: 2 }).unwrap();
        writer.note(&Note::Write { number: 2, before: Micros(3), ops: vec![op("a", None)] }).unwrap();
        writer.0.write_all(b"{\"note\":\"writ").unwrap();
        let journal = Journal::read(&path).unwrap();
        assert_eq!(journal.writes().len(), 2);
        assert_eq!(journal.at_sequence(3).unwrap().number, 2);
        assert_eq!(journal.at_sequence(1).map(|w| w.number), None, "a write is never split");
        assert_eq!(journal.contents_after(1)["f"].len(), 2);
        assert_eq!(journal.contents_after(2)["f"].keys().collect::<Vec<_>>(), ["b"]);
    }
}
