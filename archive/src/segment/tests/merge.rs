//! What merging promises: the entries, their hashes and every look at them are what they were.

use super::*;
use crate::{
    catalog::schema::{Merged, SegmentSummary},
    segment::writer::{MergeStart, SegmentMerger, Unmerged},
};

/// What a part gets: entries, looks `(after so many of its entries, at)`, and when nothing more was readable.
#[derive(Clone, Debug, Default)]
struct Part {
    entries: Vec<Entry>,
    looks: Vec<(usize, i64)>,
    through: Option<i64>,
}

fn build_parts(parts: &[Part], keyring: &Keyring) -> Vec<FinishedSegment> {
    let mut next = start(7);
    let mut seen = 0;
    let mut finished = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let random = SeededRandom::new(index as u64);
        let mut builder = SegmentBuilder::new(next.clone(), keyring, &random, Level::default()).unwrap();
        for count in 0..=part.entries.len() {
            for (_, at) in part.looks.iter().filter(|(after, _)| *after == count) {
                builder.look(Micros(seen), Micros(*at));
                seen = *at;
            }
            part.entries.get(count).map(|entry| push(&mut builder, entry));
        }
        part.through.into_iter().for_each(|at| builder.observed_through(Micros(at)));
        builder.boot_id(format!("boot {index}"));
        builder.sequence_model(serde_json::json!({ "of": index }));
        let done = builder.finish(Micros(9)).unwrap();
        next = SegmentStart::after(&done, ARCHIVE, TimelineId::FIRST, Epoch::new(2)).unwrap();
        finished.push(done);
    }
    finished
}

fn open(finished: &FinishedSegment, keyring: &Keyring) -> SegmentReader {
    let ordinals = finished.summary.ordinals();
    SegmentReader::open(&Wanted { ordinals, ..WANTED }, finished.body.clone(), keyring).unwrap()
}

fn try_merge(parts: &[FinishedSegment], keyring: &Keyring) -> Result<FinishedSegment, Unmerged> {
    let (first, last) = (&parts[0].summary, &parts[parts.len() - 1].summary);
    let start = MergeStart {
        archive: ARCHIVE,
        timeline: TimelineId::FIRST,
        ordinals: Ordinals::new(first.ordinal, last.ordinals().last()).unwrap(),
        epoch: Epoch::new(1),
        first: first.first,
        hash_before: first.hash_before,
    };
    let mut merger = SegmentMerger::new(start, keyring, &SeededRandom::new(99), Level::new(5)).unwrap();
    for part in parts {
        merger.push(&open(part, keyring))?;
    }
    Ok(merger.finish(Micros(1000))?)
}

fn merge(parts: &[FinishedSegment], keyring: &Keyring) -> FinishedSegment {
    try_merge(parts, keyring).unwrap()
}

/// Everything but what differs by nature: the account, and the size.
fn told(summary: &SegmentSummary) -> SegmentSummary {
    SegmentSummary { merged: None, object_bytes: 0, ..summary.clone() }
}

fn stream(finished: &[FinishedSegment], keyring: &Keyring) -> Vec<Placed> {
    finished.iter().flat_map(|part| open(part, keyring).entries().map(Result::unwrap).collect::<Vec<_>>()).collect()
}

/// The last look at or before a time, as a plan finds it: what it showed.
fn shown(finished: &[FinishedSegment], keyring: &Keyring, at: i64) -> Option<(Boundary, u64)> {
    let mut events = finished.iter().map(|part| part.summary.events.len() as u64).sum::<u64>();
    for part in finished.iter().rev() {
        let here = part.summary.events.len() as u64;
        events -= here;
        if part.summary.observed_through.is_some_and(|through| through.0 <= at) {
            return Some((part.summary.end, events + here));
        }
        let reader = open(part, keyring);
        if let Some(look) = reader.footer().samples.iter().rev().find(|look| look.at.0 <= at) {
            return Some((look.boundary, events + look.events));
        }
    }
    None
}

fn check(parts: &[Part], keyring: &Keyring) {
    let finished = build_parts(parts, keyring);
    let merged = merge(&finished, keyring);
    let reader = open(&merged, keyring);
    reader.verify().unwrap();
    assert_eq!(
        stream(&finished, keyring),
        stream(std::slice::from_ref(&merged), keyring),
        "the same entries and hashes"
    );
    let (first, last) = (&finished[0].summary, &finished[finished.len() - 1].summary);
    let now = &merged.summary;
    assert_eq!((now.first, now.hash_before), (first.first, first.hash_before));
    assert_eq!((now.end, now.hash_after, now.last_sequence), (last.end, last.hash_after, last.last_sequence));
    assert_eq!(now.plain_bytes, finished.iter().map(|part| part.summary.plain_bytes).sum::<u64>());
    for boundary in first.first.get()..=last.end.get() {
        let boundary = Boundary::new(boundary);
        let mut before: Vec<_> =
            finished.iter().flat_map(|part| open(part, keyring).hashes_at(boundary).unwrap()).collect();
        before.dedup();
        assert_eq!(reader.hashes_at(boundary).unwrap(), before, "boundary {boundary}");
    }
    for at in 0..200 {
        let one = std::slice::from_ref(&merged);
        assert_eq!(shown(one, keyring, at), shown(&finished, keyring, at), "at {at}: {parts:?}");
    }
    // What it says of its WALs is what one segment of all entries would say.
    let all: Vec<Entry> = parts.iter().flat_map(|part| part.entries.clone()).collect();
    assert_eq!(now.wals, build(start(7), &all, keyring, 1).summary.wals);
    assert_eq!(reader.footer().boot_id, Some(format!("boot {}", parts.len() - 1)));
    assert_eq!(reader.footer().sequence_model, serde_json::json!({ "of": parts.len() - 1 }));
    let original = finished.iter().map(|part| part.body.len() as u64).sum::<u64>();
    let account = now.merged.unwrap();
    assert_eq!((account.original_bytes, account.written_bytes), (original, original));
    assert_eq!(now.written_bytes(), original + merged.body.len() as u64);
    // Merging in two steps says the same, and that it cost more.
    if finished.len() > 2 {
        let half = merge(&finished[..2], keyring);
        let rest = finished[2..].to_vec();
        let twice = merge(&[vec![half.clone()], rest].concat(), keyring);
        assert_eq!(told(&twice.summary), told(now));
        let again = twice.summary.merged.unwrap();
        let written = original + half.body.len() as u64;
        assert_eq!(again, Merged { original_bytes: original, written_bytes: written, ..account });
    }
}

fn heartbeat(through: i64) -> Part {
    Part { through: Some(through), ..Part::default() }
}

fn part(entries: Vec<Entry>, looks: &[(usize, i64)], through: Option<i64>) -> Part {
    Part { entries, looks: looks.to_vec(), through }
}

#[test]
fn a_merged_segment_says_what_its_parts_said() {
    let all = sample();
    let parts = [
        part(all[..3].to_vec(), &[(3, 10)], None),
        heartbeat(20),
        heartbeat(30),
        part(all[3..6].to_vec(), &[(1, 40), (3, 50)], Some(55)),
        part(all[6..7].to_vec(), &[], None),
        heartbeat(60),
        part(all[7..].to_vec(), &[(1, 70)], None),
    ];
    for keyring in [Keyring::none(), sealed()] {
        check(&parts, &keyring);
        check(&parts[..4], &keyring);
        check(&parts[..2], &keyring);
        check(&[heartbeat(1), heartbeat(2), heartbeat(3)], &keyring);
    }
}

#[test]
fn parts_between_or_inside_which_the_clock_went_back_are_not_merged() {
    let keyring = Keyring::none();
    let all = sample();
    let with = |a: &[(usize, i64)], b: &[(usize, i64)], through| {
        let parts = [part(all[..3].to_vec(), a, None), part(all[3..].to_vec(), b, through)];
        try_merge(&build_parts(&parts, &keyring), &keyring)
    };
    with(&[(1, 10)], &[(1, 10), (2, 11)], Some(11)).unwrap();
    for (a, b, through) in [
        (&[(1, 10)][..], &[(1, 9)][..], None),
        (&[(1, 10), (2, 5)], &[(1, 20)], None),
        (&[(1, 10)], &[(1, 20), (2, 19)], None),
        (&[(1, 10)], &[(1, 20)], Some(19)),
    ] {
        assert!(matches!(with(a, b, through), Err(Unmerged::ClockWentBack { .. })), "{a:?} {b:?} {through:?}");
    }
}

#[test]
fn parts_that_do_not_follow_one_another_are_not_merged() {
    let keyring = Keyring::none();
    let all = sample();
    let cut = |at: &[usize]| {
        let edges: Vec<usize> = [0].into_iter().chain(at.iter().copied()).chain([all.len()]).collect();
        let parts: Vec<_> = edges.windows(2).map(|e| part(all[e[0]..e[1]].to_vec(), &[], None)).collect();
        build_parts(&parts, &keyring)
    };
    let parts = cut(&[3, 5]);
    let refused = |parts: &[FinishedSegment]| match try_merge(parts, &keyring) {
        Err(Unmerged::Failed(e)) => e.code(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&[parts[0].clone(), parts[2].clone()]), Code::ChainBroken, "one is left out");
    assert_eq!(
        refused(&[parts[0].clone(), cut(&[4])[1].clone(), parts[2].clone()]),
        Code::ChainBroken,
        "of another cut"
    );
    assert_eq!(refused(&[parts[0].clone(), parts[1].clone(), parts[1].clone()]), Code::ChainBroken, "one twice");
    let mut damaged = parts.clone();
    let mut body = damaged[1].body.to_vec();
    body[HEADER_LEN + 30] ^= 1;
    damaged[1].body = body.into();
    assert!(matches!(refused(&damaged), Code::SegmentDamaged | Code::ChainBroken));
}

#[test]
fn where_numbers_repeat_the_lowest_and_highest_do_not_tell_what_is_between() {
    let keyring = Keyring::none();
    let repeats = |starts: [u64; 3]| {
        let parts = starts.map(|at| part(vec![record(4, at, "x")], &[], None));
        let mut parts = parts.to_vec();
        parts[0].entries.insert(0, wal(4));
        merge(&build_parts(&parts, &keyring), &keyring).summary.merged.unwrap().numbers_repeat
    };
    assert!(!repeats([10, 20, 30]));
    assert!(repeats([10, 30, 20]) && repeats([10, 10, 20]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_the_parts_are_the_merged_segment_is_the_same_stream(
        cuts in proptest::collection::vec((0usize..5, 0usize..4, any::<bool>()), 2..8),
        encrypted in any::<bool>(),
    ) {
        let (mut offset, mut clock, mut number) = (0u64, 0i64, 4u64);
        let mut parts = Vec::new();
        for (index, (records, looks, through)) in cuts.into_iter().enumerate() {
            let mut entries = Vec::new();
            if index == 0 || records == 4 {
                number += 1;
                offset = 0;
                entries.push(wal(number));
            }
            for _ in 0..records {
                entries.push(record(number, offset, vec![7; records * 9]));
                offset += 100;
            }
            let looks: Vec<_> = (0..looks.min(entries.len())).map(|n| {
                clock += 3;
                (entries.len() - looks.min(entries.len()) + n + 1, clock)
            }).collect();
            clock += 2;
            parts.push(Part { entries, looks, through: through.then_some(clock) });
        }
        check(&parts, &if encrypted { sealed() } else { Keyring::none() });
    }
}
