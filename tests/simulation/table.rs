//! What a simulated server keeps in memory and in its table files.
//!
//! Owns: the newest version of every key, with the number that wrote it; what a flush leaves of a memtable; the bytes of a
//! table file, which are these versions in the order of their keys. The archiver never reads a table file: it only has
//! to be the same afterwards.

use std::collections::BTreeMap;

/// Keys and values of one column family, as a reader of the database sees them.
pub type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// A key's newest version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The number that wrote it.
    pub sequence: u64,
    /// The value; `None` is a deletion.
    pub value: Option<Vec<u8>>,
}

/// The versions in a table file.
pub type Table = BTreeMap<Vec<u8>, Version>;

/// What became of a key in a memtable.
#[derive(Clone, Debug)]
struct Cell {
    version: Version,
    /// A put and its single deletion met: a flush leaves neither.
    annihilated: bool,
    /// How often it was written since the last flush.
    writes: u32,
}

/// Records that are not flushed.
#[derive(Clone, Debug, Default)]
pub struct Memtable {
    cells: BTreeMap<Vec<u8>, Cell>,
    /// Something in it is in no log.
    pub unlogged: bool,
}

impl Memtable {
    /// Whether nothing was written since the last flush.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Whether the key was written since the last flush.
    pub fn holds(&self, key: &[u8]) -> bool {
        self.cells.contains_key(key)
    }

    fn writes(&self, key: &[u8]) -> u32 {
        self.cells.get(key).map_or(0, |cell| cell.writes)
    }

    /// Whether all that is known of the key here is one put.
    pub fn put_once(&self, key: &[u8]) -> bool {
        self.cells.get(key).is_some_and(|cell| cell.writes == 1 && cell.version.value.is_some())
    }

    /// A put or a deletion.
    pub fn write(&mut self, key: &[u8], version: Version) {
        let writes = self.writes(key) + 1;
        self.cells.insert(key.to_vec(), Cell { version, annihilated: false, writes });
    }

    /// A single deletion: it vanishes together with a put that it meets here.
    pub fn single_delete(&mut self, key: &[u8], sequence: u64) {
        let met = self.cells.get(key).is_some_and(|cell| cell.version.value.is_some());
        let version = Version { sequence, value: None };
        let writes = self.writes(key) + 1;
        self.cells.insert(key.to_vec(), Cell { version, annihilated: met, writes });
    }

    /// What a flush writes; nothing if nothing is left.
    pub fn flushed(&self) -> Table {
        let left = self.cells.iter().filter(|(_, cell)| !cell.annihilated);
        left.map(|(key, cell)| (key.clone(), cell.version.clone())).collect()
    }

    fn versions(&self) -> impl Iterator<Item = (&Vec<u8>, &Version)> {
        self.cells.iter().map(|(key, cell)| (key, &cell.version))
    }
}

/// What a reader sees of these tables with this memtable over them.
pub fn contents<'a>(tables: impl Iterator<Item = &'a Table>, memtable: &Memtable) -> Contents {
    let mut newest: BTreeMap<&Vec<u8>, &Version> = BTreeMap::new();
    for (key, version) in tables.flat_map(|table| table.iter()).chain(memtable.versions()) {
        let best = newest.entry(key).or_insert(version);
        if version.sequence >= best.sequence {
            *best = version;
        }
    }
    newest.into_iter().filter_map(|(key, version)| Some((key.clone(), version.value.clone()?))).collect()
}

/// A table file's bytes.
pub fn encode(table: &Table) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, version) in table {
        out.push(u8::try_from(key.len()).expect("keys are short"));
        out.extend_from_slice(key);
        out.extend_from_slice(&version.sequence.to_le_bytes());
        let value = version.value.as_deref().unwrap_or_default();
        let length = u32::try_from(value.len()).expect("values are short") * 2 + u32::from(version.value.is_some());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(value);
    }
    out
}

/// A table file's versions.
pub fn decode(bytes: &[u8]) -> Table {
    let mut rest = bytes;
    let mut take = |length: usize| {
        let (taken, left) = rest.split_at_checked(length).expect("a table file is whole");
        rest = left;
        (taken.to_vec(), left.is_empty())
    };
    let mut table = Table::new();
    let mut done = bytes.is_empty();
    while !done {
        let length = usize::from(take(1).0[0]);
        let key = take(length).0;
        let sequence = u64::from_le_bytes(take(8).0.try_into().expect("eight bytes"));
        let (length, end) = take(4);
        let length = u32::from_le_bytes(length.try_into().expect("four bytes"));
        let (value, end) = if length > 1 { take(length as usize / 2) } else { (Vec::new(), end) };
        done = end;
        table.insert(key, Version { sequence, value: (length % 2 == 1).then_some(value) });
    }
    table
}
