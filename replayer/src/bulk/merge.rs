//! Sorted runs as one: every key once, with its last operation.
//!
//! Owns: the choice between runs. A later run has later operations: of one key in several, the last run's counts.

use std::cmp::Ordering;

use pitr_archive::{Code, Error, Result};

use super::{
    chunk::{Sorted, Version},
    order::KeyOrder,
    run::{self, RunFile},
};

/// Sorted operations, in memory or on disk.
#[derive(Debug)]
pub(crate) enum Run {
    Memory(Sorted),
    File(RunFile),
}

impl Run {
    /// Bytes that whoever reads it holds.
    pub fn largest_block(&self) -> usize {
        match self {
            Self::Memory(_) => 0,
            Self::File(file) => file.largest_block(),
        }
    }

    /// About one key of a column family for each `every` bytes.
    pub fn samples(&self, family: u16, every: usize) -> Vec<Vec<u8>> {
        match self {
            Self::Memory(sorted) => {
                let (mut samples, mut bytes) = (Vec::new(), 0);
                let own =
                    (sorted.seek(family, None)..).map_while(|at| sorted.get(at)).take_while(|v| v.family == family);
                for version in own {
                    bytes += version.key.len() + version.value.len();
                    if bytes >= every {
                        samples.push(version.key.to_vec());
                        bytes = 0;
                    }
                }
                samples
            }
            Self::File(file) => {
                let keys = (0..file.blocks()).filter_map(|block| file.key(block));
                keys.filter(|(of, _)| *of == family).map(|(_, key)| key.to_vec()).collect()
            }
        }
    }
}

/// A part of one column family's keys; `None` is the end on that side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub family: u16,
    pub from: Option<Vec<u8>>,
    pub to: Option<Vec<u8>>,
}

/// A place in a run.
struct Cursor<'r> {
    run: &'r Run,
    /// In memory the operation; on disk the block.
    index: usize,
    /// On disk: the block, and where in it the operation and the one behind it begin.
    block: Vec<u8>,
    at: usize,
    next: usize,
    /// Of its key; `None` behind the end.
    prefix: Option<u64>,
}

impl<'r> Cursor<'r> {
    fn new(run: &'r Run, part: &Part, order: KeyOrder) -> Result<Self> {
        let from = part.from.as_deref();
        let index = match run {
            Run::Memory(sorted) => sorted.seek(part.family, from),
            Run::File(file) => file.seek(part.family, from),
        };
        let mut cursor = Self { run, index, block: Vec::new(), at: 0, next: 0, prefix: None };
        if let Run::File(file) = run {
            file.read(index, &mut cursor.block)?;
            cursor.parse()?;
        }
        let before = |version: &Version<'_>| match version.family.cmp(&part.family) {
            Ordering::Equal => from.is_some_and(|from| order.compare(version.key, from).is_lt()),
            other => other.is_lt(),
        };
        while cursor.version().is_some_and(|version| before(&version)) {
            cursor.step()?;
        }
        cursor.look(part, order);
        Ok(cursor)
    }

    fn version(&self) -> Option<Version<'_>> {
        match self.run {
            Run::Memory(sorted) => sorted.get(self.index),
            Run::File(_) => run::get(&self.block, self.at).map(|(version, _)| version),
        }
    }

    fn advance(&mut self, part: &Part, order: KeyOrder) -> Result<()> {
        self.step()?;
        self.look(part, order);
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let Run::File(file) = self.run else {
            self.index += 1;
            return Ok(());
        };
        self.at = self.next;
        if self.at >= self.block.len() {
            self.index += 1;
            file.read(self.index, &mut self.block)?;
            self.at = 0;
        }
        self.parse()
    }

    fn parse(&mut self) -> Result<()> {
        if self.at >= self.block.len() {
            return Ok(());
        }
        let parsed = run::get(&self.block, self.at);
        (_, self.next) = parsed.ok_or_else(|| Error::new(Code::Internal, "reading sorted operations"))?;
        Ok(())
    }

    fn look(&mut self, part: &Part, order: KeyOrder) {
        let inside = |version: &Version<'_>| {
            let before_end = part.to.as_ref().is_none_or(|to| order.compare(version.key, to).is_lt());
            version.family == part.family && before_end
        };
        self.prefix = self.version().filter(inside).map(|version| order.prefix(version.key));
    }
}

/// The operations of a part, in order.
pub(crate) struct Merge<'r> {
    part: Part,
    order: KeyOrder,
    cursors: Vec<Cursor<'r>>,
    /// Indexes of cursors that are not at their end: a heap, the smallest key's first.
    heap: Vec<usize>,
    key: Vec<u8>,
    begun: bool,
}

impl<'r> Merge<'r> {
    pub fn new(runs: impl IntoIterator<Item = &'r Run>, part: Part, order: KeyOrder) -> Result<Self> {
        let cursors: Vec<_> = runs.into_iter().map(|run| Cursor::new(run, &part, order)).collect::<Result<_>>()?;
        let heap = cursors.iter().enumerate().filter(|(_, c)| c.prefix.is_some()).map(|(index, _)| index).collect();
        let mut merge = Self { part, order, cursors, heap, key: Vec::new(), begun: false };
        (0..merge.heap.len() / 2).rev().for_each(|at| merge.sink(at));
        Ok(merge)
    }

    /// The next key's last operation.
    pub fn next(&mut self) -> Result<Option<Version<'_>>> {
        if self.begun {
            while let Some(first) = self.heap.first().copied()
                && self.cursors.get(first).and_then(Cursor::version).is_some_and(|v| v.key == self.key)
            {
                self.pass(first)?;
            }
        }
        self.begun = true;
        let version = self.heap.first().and_then(|first| self.cursors.get(*first)).and_then(Cursor::version);
        if let Some(version) = &version {
            self.key.clear();
            self.key.extend_from_slice(version.key);
        }
        Ok(version)
    }

    fn pass(&mut self, first: usize) -> Result<()> {
        let Some(cursor) = self.cursors.get_mut(first) else { return Ok(()) };
        cursor.advance(&self.part, self.order)?;
        if cursor.prefix.is_none() {
            self.heap.swap_remove(0);
        }
        self.sink(0);
        Ok(())
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.is_before(child, least) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }

    fn is_before(&self, a: usize, b: usize) -> bool {
        let of = |at: usize| self.heap.get(at).and_then(|index| Some((*index, self.cursors.get(*index)?)));
        let (Some((a, first)), Some((b, second))) = (of(a), of(b)) else { return false };
        let by_key = || match (first.version(), second.version()) {
            (Some(first), Some(second)) => self.order.compare(first.key, second.key),
            _ => Ordering::Equal,
        };
        first.prefix.cmp(&second.prefix).then_with(by_key).then(b.cmp(&a)).is_lt()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::bulk::chunk::{Chunk, Kind};

    type Written = (u16, Vec<u8>, Option<Vec<u8>>);
    /// By column family and key: which operation was the last, and what it left.
    type Last = BTreeMap<(u16, Vec<u8>), (u64, Option<Vec<u8>>)>;

    fn operations() -> impl Strategy<Value = Vec<Written>> {
        let key = prop::collection::vec(0..4_u8, 0..10);
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..50_000));
        prop::collection::vec((0..3_u16, key, value), 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn of_every_key_the_last_operation_is_left_wherever_the_runs_are_cut(
            operations in operations(), cut in 1..20_usize, on_disk: u8, from in prop::option::of(prop::collection::vec(0..4_u8, 0..4)),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let orders = [KeyOrder::Bytewise, KeyOrder::Reverse, KeyOrder::Bytewise];
            let mut last = Last::new();
            let mut runs = Vec::new();
            for (number, piece) in operations.chunks(cut).enumerate() {
                let first = (number * cut) as u64;
                let mut chunk = Chunk::new(orders.to_vec(), first);
                for (age, (family, key, value)) in (first..).zip(piece) {
                    let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
                    let bytes = value.as_deref().unwrap_or_default();
                    let version = Version { family: *family, key, age, kind, value: bytes };
                    prop_assert!(chunk.push(&version));
                    last.insert((*family, key.clone()), (age, value.clone()));
                }
                let sorted = chunk.sort();
                runs.push(match on_disk >> (number % 8) & 1 {
                    0 => Run::Memory(sorted),
                    _ => {
                        let path = directory.path().join(number.to_string());
                        Run::File(RunFile::write(&path, &sorted, &[], &orders).unwrap())
                    }
                });
            }
            for (family, order) in (0..).zip(orders) {
                let mut expected: Vec<_> = last.iter().filter(|((f, _), _)| *f == family).collect();
                expected.sort_by(|((_, a), _), ((_, b), _)| order.compare(a, b));
                let parts = [(None, from.clone()), (from.clone(), None)];
                let parts = if from.is_some() { &parts[..] } else { &parts[..1] };
                let mut found = Vec::new();
                for (from, to) in parts {
                    let part = Part { family, from: from.clone(), to: to.clone() };
                    let mut merge = Merge::new(&runs, part, order).unwrap();
                    while let Some(version) = merge.next().unwrap() {
                        let value = (version.kind == Kind::Put).then(|| version.value.to_vec());
                        found.push((version.key.to_vec(), (version.age, value)));
                    }
                }
                let expected: Vec<_> = expected.into_iter().map(|((_, key), last)| (key.clone(), last.clone())).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
