use super::*;
use crate::{
    ids::{Boundary, Epoch, RunningHash, SequenceNumber},
    rocks::transactions::Transactions,
};

/// Ordinals `first..=last` with ten records each.
fn segment(first: u64, last: u64) -> SegmentSummary {
    let at = |n: u64| (Boundary::new(n * 10), RunningHash([u8::try_from(n).unwrap(); 32]));
    SegmentSummary {
        rolled_up: None,
        ordinal: Ordinal::new(first),
        last_ordinal: (first < last).then_some(Ordinal::new(last)),
        epoch: Epoch::new(1),
        first: at(first).0,
        end: at(last + 1).0,
        hash_before: at(first).1,
        hash_after: at(last + 1).1,
        min_sequence: None,
        max_sequence: None,
        last_sequence: SequenceNumber::new(0),
        transactions: Transactions::default(),
        special: None,
        wals: Vec::new(),
        observed: None,
        observed_through: None,
        plain_bytes: 0,
        events: Vec::new(),
        object_bytes: 0,
        merged: None,
    }
}

fn plain(ordinals: std::ops::Range<u64>) -> Vec<SegmentSummary> {
    ordinals.map(|n| segment(n, n)).collect()
}

fn named(first: u64, last: u64) -> NamedMerge {
    NamedMerge { summary: segment(first, last), since: Micros(i64::try_from(last).unwrap()) }
}

fn apply(segments: Vec<SegmentSummary>, merges: &[NamedMerge], manifests: Manifests) -> (String, usize) {
    let mut findings = Vec::new();
    let (segments, _) = in_place(TimelineId::FIRST, segments, merges.to_vec(), None, manifests, &mut findings);
    assert!(findings.iter().all(|e| e.code() == Code::SegmentMerged));
    let names: Vec<_> = segments.iter().map(|s| s.ordinals().to_string()).collect();
    (names.join(" "), findings.len())
}

#[test]
fn a_merged_segment_replaces_its_parts_and_a_larger_one_replaces_it() {
    let merges = [named(1, 2), named(3, 4), named(1, 4)];
    let after = |count: usize| apply(plain(0..6), &merges[..count], Manifests::All);
    assert_eq!(after(1), ("0 1-2 3 4 5".to_owned(), 0));
    assert_eq!(after(2), ("0 1-2 3-4 5".to_owned(), 0));
    assert_eq!(after(3), ("0 1-4 5".to_owned(), 0));
    let mut entries = Entries::new(plain(0..6));
    for merge in merges {
        entries.apply(TimelineId::FIRST, merge, None, Manifests::All).unwrap();
    }
    let since: Vec<_> = (0..6).map(|n| entries.since(Ordinal::new(n)).map(|at| at.0)).collect();
    assert_eq!(since, [None, Some(4), None, None, None, None]);
    assert_eq!(entries.at(Ordinal::new(3)).map(|s| s.ordinals().to_string()).as_deref(), Some("1-4"));
}

#[test]
fn one_that_is_named_twice_replaces_nothing_the_second_time() {
    let mut entries = Entries::new(plain(0..6));
    let mut apply = |since| {
        let merge = NamedMerge { since: Micros(since), ..named(1, 2) };
        entries.apply(TimelineId::FIRST, merge, None, Manifests::All).unwrap().unwrap().len()
    };
    assert_eq!((apply(5), apply(6)), (2, 0));
    assert_eq!(entries.since(Ordinal::new(1)), Some(Micros(5)));
}

#[test]
fn one_that_is_not_what_lies_there_is_a_finding_and_the_parts_stay() {
    let all = "0 1 2 3 4 5".to_owned();
    let mut other = named(1, 3);
    other.summary.hash_after = RunningHash([0xFF; 32]);
    assert_eq!(apply(plain(0..6), &[other], Manifests::All), (all.clone(), 1));
    let mut other = named(1, 3);
    other.summary.first = Boundary::new(11);
    assert_eq!(apply(plain(0..6), &[other], Manifests::All), (all.clone(), 1));
    assert_eq!(apply(plain(0..6), &[named(4, 8)], Manifests::All), (all, 1), "beyond the end");
    // Across the edge of another one.
    let merges = [named(1, 3), named(2, 4), named(3, 5)];
    assert_eq!(apply(plain(0..6), &merges, Manifests::All), ("0 1-3 4 5".to_owned(), 2));
}

#[test]
fn where_manifests_are_lost_a_merged_segment_fills_the_hole() {
    let parts: Vec<_> = plain(0..2).into_iter().chain(plain(4..6)).collect();
    let merges = [named(1, 4)];
    assert_eq!(
        apply(parts.clone(), &merges, Manifests::All),
        ("0 1 4 5".to_owned(), 1),
        "nothing is lost, so it is wrong"
    );
    assert_eq!(apply(parts.clone(), &merges, Manifests::SomeLost), ("0 1-4 5".to_owned(), 0));
    assert_eq!(apply(parts, &[named(2, 3)], Manifests::SomeLost), ("0 1 2-3 4 5".to_owned(), 0));
    let holes: Vec<_> = holes(&[segment(0, 1), segment(4, 4), segment(5, 5)]).map(|hole| hole.to_string()).collect();
    assert_eq!(holes, ["2-3"]);
}
