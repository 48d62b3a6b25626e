//! Operations of a part of the log, in memory: as they come, then in the order of their keys.
//!
//! Owns: how they lie in memory, and that of each key only the last operation is left.
//! Bounded: whoever fills a chunk looks at [`Chunk::bytes`].

use std::cmp::Ordering;

use super::order::KeyOrder;

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Put,
    Delete,
}

/// The last operation on a key, as far as somebody has looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version<'a> {
    /// Index into the column families that are replayed.
    pub family: u16,
    pub key: &'a [u8],
    /// The how-manyth operation of the log it was.
    pub age: u64,
    pub kind: Kind,
    /// Empty where the key is deleted.
    pub value: &'a [u8],
}

/// Where an operation lies.
#[derive(Clone, Copy, Debug)]
struct Slot {
    prefix: u64,
    /// Of its key; the value follows.
    at: u32,
    key: u32,
    value: u32,
    /// Operations of the log before it, from the chunk's first on.
    age: u32,
    family: u16,
    kind: Kind,
}

/// Operations in memory.
#[derive(Debug)]
pub(crate) struct Chunk {
    orders: Vec<KeyOrder>,
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    /// Operations of the log before the first of these.
    first_age: u64,
}

impl Chunk {
    /// An empty one for operations from `first_age` on. `orders` are those of the column families.
    pub fn new(orders: Vec<KeyOrder>, first_age: u64) -> Self {
        Self { orders, bytes: Vec::new(), slots: Vec::new(), first_age }
    }

    /// What it takes of memory.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.slots.len() * size_of::<Slot>()
    }

    /// Takes one more; `false` where it has no room for it any more: offsets and ages have 32 bits.
    pub fn push(&mut self, version: &Version<'_>) -> bool {
        let Version { family, key, age, kind, value } = *version;
        let order = self.orders.get(usize::from(family)).copied().unwrap_or(KeyOrder::Bytewise);
        let of = |length: usize| u32::try_from(length).ok();
        let end = self.bytes.len() + key.len() + value.len();
        let (Some(at), Some(_), Some(key_length), Some(value_length), Some(age)) = (
            of(self.bytes.len()),
            of(end),
            of(key.len()),
            of(value.len()),
            age.checked_sub(self.first_age).and_then(|age| u32::try_from(age).ok()),
        ) else {
            return false;
        };
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        let prefix = order.prefix(key);
        self.slots.push(Slot { prefix, at, key: key_length, value: value_length, age, family, kind });
        true
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// In the order of the column families and their keys, of each key the last.
    pub fn sort(mut self) -> Sorted {
        let mut slots = std::mem::take(&mut self.slots);
        slots.sort_unstable_by(|a, b| self.compare(a, b).then(b.age.cmp(&a.age)));
        slots.dedup_by(|later, kept| self.compare(later, kept).is_eq());
        self.slots = slots;
        Sorted(self)
    }

    fn key(&self, slot: &Slot) -> &[u8] {
        self.bytes.get(slot.at as usize..).and_then(|from| from.get(..slot.key as usize)).unwrap_or_default()
    }

    fn compare(&self, a: &Slot, b: &Slot) -> Ordering {
        let by_key = || {
            let order = self.orders.get(usize::from(a.family)).copied().unwrap_or(KeyOrder::Bytewise);
            order.compare(self.key(a), self.key(b))
        };
        a.family.cmp(&b.family).then(a.prefix.cmp(&b.prefix)).then_with(by_key)
    }
}

/// A chunk in order, of each key the last operation.
#[derive(Debug)]
pub(crate) struct Sorted(Chunk);

impl Sorted {
    pub fn len(&self) -> usize {
        self.0.slots.len()
    }

    pub fn get(&self, index: usize) -> Option<Version<'_>> {
        let slot = self.0.slots.get(index)?;
        let value = (slot.at + slot.key) as usize;
        Some(Version {
            family: slot.family,
            key: self.0.key(slot),
            age: self.0.first_age + u64::from(slot.age),
            kind: slot.kind,
            value: self.0.bytes.get(value..).and_then(|from| from.get(..slot.value as usize)).unwrap_or_default(),
        })
    }

    /// The first of this column family whose key is not before `key`; of any key where there is none.
    pub fn seek(&self, family: u16, key: Option<&[u8]>) -> usize {
        self.0.slots.partition_point(|slot| match slot.family.cmp(&family) {
            Ordering::Equal => key.is_some_and(|key| {
                let order = self.0.orders.get(usize::from(family)).copied().unwrap_or(KeyOrder::Bytewise);
                order.compare(self.0.key(slot), key).is_lt()
            }),
            other => other.is_lt(),
        })
    }
}
