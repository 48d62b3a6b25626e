//! What the records of a frame write: which frames a reader of some column families, or of some keys, can leave out. And
//! which operations a segment has beside plain ones: whether its records can be brought in by the last one on each key.
//!
//! Owns: gathering that while a frame is filled, and judging it. Where anything is not known, everything can be there:
//! records that cannot be read, prepared transactions, more column families than are worth counting, deleted ranges.
//! Keys are compared byte by byte, whatever the comparator: bounds are of byte strings, not of an order.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    catalog::schema::{FrameIndex, KeyBounds, Special, Touched},
    ids::ColumnFamilyId,
    rocks::write_batch::{Op, WriteBatch},
};

/// Column families of one frame that are told apart.
const MOST_FAMILIES: usize = 16;
/// Bytes of a key that are kept: enough to tell tenants and tables apart, and little beside a frame.
const MOST_KEY: usize = 32;

/// What the records so far write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touches {
    unknown: bool,
    families: BTreeMap<ColumnFamilyId, Bounds>,
    /// Of all frames so far; `None` where a record could not be read.
    special: SpecialSoFar,
}

#[derive(Clone, Debug)]
struct SpecialSoFar(Option<BTreeSet<Special>>);

impl Default for SpecialSoFar {
    fn default() -> Self {
        Self(Some(BTreeSet::new()))
    }
}

#[derive(Clone, Debug)]
enum Bounds {
    Keys { from: Vec<u8>, to: Vec<u8> },
    Any,
}

impl Touches {
    /// The next entry: a record's batch, or nothing for an event.
    pub fn pass(&mut self, batch: &[u8]) {
        if batch.is_empty() {
            return;
        }
        if self.add(batch).is_none() {
            self.unknown = true;
            self.special.0 = None;
        }
        self.unknown |= self.families.len() > MOST_FAMILIES;
        if self.unknown {
            self.families.clear();
        }
    }

    fn add(&mut self, batch: &[u8]) -> Option<()> {
        for op in WriteBatch::parse(batch).ok()?.ops() {
            let op = op.ok()?;
            if let (Some(special), Some(so_far)) = (special(&op), &mut self.special.0) {
                so_far.insert(special);
            }
            match op {
                Op::LogData { .. } | Op::Noop => {}
                Op::DeleteRange { cf, .. } => {
                    self.families.insert(cf, Bounds::Any);
                }
                op => match (op.column_family(), op.key()) {
                    (Some(family), Some(key)) => self.key(family, key),
                    // What a transaction writes counts where it is committed.
                    _ => self.unknown = true,
                },
            }
        }
        Some(())
    }

    fn key(&mut self, family: ColumnFamilyId, key: &[u8]) {
        match self.families.get_mut(&family) {
            Some(Bounds::Any) => {}
            Some(Bounds::Keys { from, to }) => {
                if key < from.as_slice() {
                    key.clone_into(from);
                } else if key > to.as_slice() {
                    key.clone_into(to);
                }
            }
            None => {
                self.families.insert(family, Bounds::Keys { from: key.to_vec(), to: key.to_vec() });
            }
        }
    }

    /// What the frame's records write; the next frame begins with nothing.
    pub fn take(&mut self) -> Option<Vec<Touched>> {
        let (unknown, families) = (std::mem::take(&mut self.unknown), std::mem::take(&mut self.families));
        let cut = |key: &[u8]| STANDARD.encode(key.get(..MOST_KEY).unwrap_or(key));
        let touched = families.into_iter().map(|(family, bounds)| Touched {
            family,
            keys: match bounds {
                Bounds::Keys { from, to } => Some(KeyBounds { from: cut(&from), to: cut(&to) }),
                Bounds::Any => None,
            },
        });
        (!unknown).then(|| touched.collect())
    }

    /// Which operations all records had beside plain ones, where every one of them could be read.
    pub fn special(&self) -> Option<BTreeSet<Special>> {
        self.special.0.clone()
    }
}

const fn special(op: &Op<'_>) -> Option<Special> {
    match op {
        Op::Put { .. } | Op::Delete { .. } | Op::DeleteRange { .. } | Op::LogData { .. } => None,
        Op::SingleDelete { .. } => Some(Special::SingleDelete),
        Op::Merge { .. } => Some(Special::Merge),
        Op::PutEntity { .. } => Some(Special::Entity),
        Op::TimedPut { .. } => Some(Special::TimedPut),
        Op::BlobIndex { .. } => Some(Special::BlobIndex),
        Op::Noop
        | Op::BeginPrepare { .. }
        | Op::EndPrepare { .. }
        | Op::Commit { .. }
        | Op::CommitWithTimestamp { .. }
        | Op::Rollback { .. } => Some(Special::TwoPhase),
    }
}

impl FrameIndex {
    /// Whether the frame can hold anything for keys of the column family from `from` on and below `to`.
    pub fn may_touch(&self, family: ColumnFamilyId, from: &[u8], to: Option<&[u8]>) -> bool {
        let Some(touches) = &self.touches else { return true };
        touches.iter().any(|touched| touched.family == family && touched.overlaps(from, to))
    }
}

impl Touched {
    fn overlaps(&self, from: &[u8], to: Option<&[u8]>) -> bool {
        let Some(bounds) = &self.keys else { return true };
        let (Ok(lowest), Ok(highest)) = (STANDARD.decode(&bounds.from), STANDARD.decode(&bounds.to)) else {
            return true;
        };
        // What was cut stands for everything that begins with it.
        let reaches = highest.as_slice() >= from || from.starts_with(&highest);
        reaches && to.is_none_or(|to| lowest.as_slice() < to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ids::{Boundary, RunningHash, SequenceNumber},
        rocks::write_batch::{WriteBatchBuilder, WritePolicy},
    };

    fn batch(op: &Op<'_>) -> Vec<u8> {
        let mut builder = WriteBatchBuilder::new(SequenceNumber::new(7));
        builder.push(op);
        builder.finish()
    }

    fn frame(touches: Option<Vec<Touched>>) -> FrameIndex {
        let (first, hash_before) = (Boundary::START, RunningHash::ZERO);
        FrameIndex { offset: 0, stored: 0, plain: 0, first, hash_before, touches }
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        // Long common beginnings, so that cutting matters.
        (
            prop_oneof![Just(0_usize), Just(MOST_KEY - 1), Just(MOST_KEY), Just(MOST_KEY + 3)],
            prop::collection::vec(0_u8..3, 0..4),
        )
            .prop_map(|(long, tail)| [vec![1; long], tail].concat())
    }

    proptest! {
        #[test]
        fn a_frame_is_left_out_only_where_it_has_nothing(
            ops in prop::collection::vec((0_u32..3, key(), 0_u8..8), 0..12),
            asked in (0_u32..3, key(), prop::option::of(key())),
        ) {
            let mut touches = Touches::default();
            for (family, key, kind) in &ops {
                let cf = ColumnFamilyId::new(*family);
                let op = match kind {
                    0 => Op::Delete { cf, key },
                    1 => Op::Merge { cf, key, operand: b"x" },
                    2 => Op::DeleteRange { cf, begin: key, end: key },
                    _ => Op::Put { cf, key, value: b"v" },
                };
                touches.pass(&batch(&op));
                touches.pass(&[]);
            }
            let frame = frame(touches.take());
            prop_assert!(frame.touches.is_some());
            let (family, from, to) = asked;
            let holds = ops.iter().any(|(own, key, kind)| {
                *own == family && (*kind == 2 || (*key >= from && to.as_ref().is_none_or(|to| key < to)))
            });
            prop_assert!(!holds || frame.may_touch(ColumnFamilyId::new(family), &from, to.as_deref()));
        }
    }

    #[test]
    fn what_is_not_known_can_be_anywhere_and_what_is_known_is_left_out() {
        let (zero, one) = (ColumnFamilyId::new(0), ColumnFamilyId::new(1));
        let put = |cf, key: &[u8]| batch(&Op::Put { cf, key, value: b"" });
        let mut touches = Touches::default();
        touches.pass(&put(zero, b"m"));
        touches.pass(&put(zero, b"p"));
        let known = frame(touches.take());
        assert!(known.may_touch(zero, b"", None) && known.may_touch(zero, b"p", Some(b"q")));
        assert!(!known.may_touch(one, b"", None) && !known.may_touch(zero, b"q", None));
        assert!(!known.may_touch(zero, b"", Some(b"m")));
        assert_eq!(touches.special(), Some(BTreeSet::new()));
        touches.pass(&batch(&Op::SingleDelete { cf: zero, key: b"m" }));
        assert_eq!(touches.special(), Some(BTreeSet::from([Special::SingleDelete])));
        touches.pass(b"no batch at all");
        touches.pass(&put(zero, b"m"));
        assert!(frame(touches.take()).may_touch(one, b"", None));
        assert_eq!(touches.special(), None);
        touches.pass(&batch(&Op::BeginPrepare { policy: WritePolicy::WriteCommitted }));
        assert_eq!(touches.take(), None);
        for family in 0..=16 {
            touches.pass(&put(ColumnFamilyId::new(family), b"k"));
        }
        assert_eq!(touches.take(), None);
        assert_eq!(touches.take(), Some(Vec::new()));
    }
}
