//! Bases that are wanted, oldest first.
//!
//! Owns: which wishes one base satisfies together. Any base from now on satisfies everybody who asked before, so there is
//! at most one wish of somebody who must not wait (a run, an operator), and one of barriers behind it, whose turn comes
//! less often. An open of the server wants a base of its own. Pure.

use std::collections::VecDeque;

use pitr_archive::ids::Boundary;
use serde::{Deserialize, Serialize};

use super::BaseReason;

/// Why each base is wanted, and the end of the stream when it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wishes(VecDeque<(BaseReason, Boundary)>);

impl Wishes {
    /// Another one, at the end of the stream.
    pub fn add(&mut self, reason: BaseReason, at: Boundary) {
        match reason {
            BaseReason::SessionStarted { .. } => {}
            // Who asked before a barrier came need not wait for the barrier's turn, and may be served by a base without it.
            BaseReason::Barrier(_) => self.0.retain(|(other, _)| !matches!(other, BaseReason::Barrier(_))),
            BaseReason::RunStarted | BaseReason::Asked => {
                self.0.retain(|(other, _)| matches!(other, BaseReason::SessionStarted { .. }));
            }
        }
        self.0.push_back((reason, at));
    }

    /// Nothing is wanted any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The oldest.
    pub fn first(&self) -> Option<&BaseReason> {
        self.0.front().map(|(reason, _)| reason)
    }

    /// Whether something is wanted, and only because of barriers.
    pub fn only_barriers(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|(reason, _)| matches!(reason, BaseReason::Barrier(_)))
    }

    /// A base with this floor was published: it satisfies the oldest wish and every one that arose up to its floor, but
    /// barriers only if none of them still `concerns` it: more can have come while it was uploaded.
    pub fn satisfy(&mut self, floor: Boundary, concerns: bool) {
        if !matches!(self.first(), Some(BaseReason::Barrier(_))) {
            self.0.pop_front();
        }
        self.0.retain(|(reason, at)| match reason {
            BaseReason::Barrier(_) => concerns,
            _ => *at > floor,
        });
    }

    /// The base that the oldest wish asked for serves no target: the wish becomes one for any base that does, as urgent as
    /// it was.
    pub fn not_as_asked(&mut self) {
        if let Some((reason, _)) = self.0.front_mut()
            && matches!(reason, BaseReason::SessionStarted { .. })
        {
            *reason = BaseReason::Asked;
        }
    }
}

#[cfg(test)]
mod tests {
    use pitr_archive::segment::entry::BarrierReason;

    use super::*;

    const CHANGE: BaseReason = BaseReason::Barrier(BarrierReason::ChangeOutsideWal);

    fn at(boundary: u64) -> Boundary {
        Boundary::new(boundary)
    }

    #[test]
    fn a_barrier_that_came_while_a_base_was_uploaded_wants_the_next_one_and_waits_its_turn() {
        for first in [BaseReason::RunStarted, BaseReason::Asked, CHANGE] {
            let mut wishes = Wishes::default();
            wishes.add(first.clone(), at(0));
            wishes.add(CHANGE, at(20));
            wishes.satisfy(at(10), true);
            assert_eq!((wishes.first(), wishes.only_barriers()), (Some(&CHANGE), true), "{first:?}");
            wishes.satisfy(at(20), true);
            assert_eq!(wishes.first(), Some(&CHANGE), "a base at its very place can lack it");
            wishes.satisfy(at(20), false);
            assert!(wishes.is_empty());
        }
    }

    #[test]
    fn a_base_that_serves_nothing_makes_a_barriers_wish_no_more_urgent() {
        let mut wishes = Wishes::default();
        wishes.add(CHANGE, at(5));
        wishes.not_as_asked();
        assert_eq!((wishes.first(), wishes.only_barriers()), (Some(&CHANGE), true));
    }

    #[test]
    fn who_asks_does_not_wait_for_barriers_and_has_them_served_too() {
        let mut wishes = Wishes::default();
        wishes.add(CHANGE, at(5));
        wishes.add(BaseReason::Asked, at(6));
        assert!(!wishes.only_barriers());
        assert_eq!(wishes.first(), Some(&BaseReason::Asked));
        wishes.satisfy(at(6), false);
        assert!(wishes.is_empty());
    }
}
