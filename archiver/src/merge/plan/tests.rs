use std::collections::BTreeSet;

use pitr_archive::{
    Error,
    catalog::schema::{
        BoundaryDocument, DOCUMENT_VERSION, Extra, KeptSegments, ManifestDocument, Merged, PlacedEvent, TimeSample,
    },
    ids::{
        ArchiveId, Boundary, Epoch, FileNumber, ManifestNumber, Nonce, Ordinal, RunningHash, SequenceNumber, TimelineId,
    },
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;

const MINUTE: i64 = 60_000_000;

fn hash(n: u64) -> RunningHash {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    RunningHash(bytes)
}

/// Boundaries are ten an ordinal.
fn segment(first: u64, last: u64, looks: Option<(i64, i64)>, bytes: u64) -> SegmentSummary {
    let boundary = |n: u64| Boundary::new(n * 10);
    let look = |at| TimeSample { from: Micros(at), at: Micros(at), boundary: boundary(last + 1), events: 0 };
    serde_json::from_value(serde_json::json!({
        "ordinal": first, "last_ordinal": (first < last).then_some(last), "epoch": 1,
        "first": boundary(first), "end": boundary(last + 1), "hash_before": hash(first), "hash_after": hash(last + 1),
        "last_sequence": SequenceNumber::new(0), "wals": [], "plain_bytes": 0, "object_bytes": bytes,
        "observed": looks.map(|(first, last)| (look(first), look(last))),
    }))
    .unwrap()
}

fn plain(ordinal: u64, at: i64) -> SegmentSummary {
    segment(ordinal, ordinal, Some((at, at)), 1000)
}

fn begins_run(mut summary: SegmentSummary) -> SegmentSummary {
    let event = Event::RunStarted { run: 1, first_wal: FileNumber::new(4), db_id: String::new() };
    summary.events.push(PlacedEvent { at: summary.first, event });
    summary
}

fn manifest(number: u64, segments: Vec<SegmentSummary>, merged: Vec<SegmentSummary>) -> ManifestDocument {
    ManifestDocument {
        version: DOCUMENT_VERSION,
        archive: ArchiveId([0; 16]),
        timeline: TimelineId::FIRST,
        number: ManifestNumber::new(number),
        previous: None,
        rebuilt: false,
        segments,
        bases: Vec::new(),
        tags: Vec::new(),
        pruned: Vec::new(),
        merged,
        created: Micros(i64::try_from(number).unwrap()),
        epoch: Epoch::new(1),
        nonce: Nonce([0; 16]),
        extra: Extra::new(),
    }
}

fn take(ledger: &mut Ledger, document: &ManifestDocument) -> Vec<Error> {
    ledger.manifest(document, document.created)
}

/// These segments, and behind them a manifest of one more, a day later.
fn ledger_with(segments: Vec<SegmentSummary>, deleted: Option<BoundaryDocument>) -> Ledger {
    let next = segments.last().map_or(0, |s| s.ordinals().last().get() + 1);
    let later =
        segments.iter().filter_map(|s| s.observed).map(|(_, last)| last.at.0).max().unwrap_or(0) + 1440 * MINUTE;
    let mut ledger = Ledger::new(TimelineId::FIRST, deleted, ManifestNumber::new(0));
    assert!(take(&mut ledger, &manifest(0, segments, Vec::new())).is_empty());
    assert!(take(&mut ledger, &manifest(1, (0..2).map(|n| plain(next + n, later)).collect(), Vec::new())).is_empty());
    ledger
}

fn policy() -> Policy {
    Policy::default()
}

fn planned(ledger: &Ledger, policy: &Policy, now: i64) -> Vec<String> {
    let mut groups = groups(ledger, policy, &[], Micros(now));
    groups.sort_by_key(Group::ordinals);
    groups.iter().map(|group| group.ordinals().unwrap().to_string()).collect()
}

const LATE: i64 = 100 * 1440 * MINUTE;

fn minutes_only() -> Policy {
    Policy { levels: vec![Duration::from_secs(60)], ..policy() }
}

#[test]
fn the_seconds_of_a_minute_become_one_segment_once_the_minute_is_over() {
    let seconds = |from: i64, to: i64| (from..to).map(|n| plain(u64::try_from(n).unwrap(), n * 1_000_000)).collect();
    let all = ledger_with(seconds(0, 150), None);
    assert_eq!(planned(&all, &minutes_only(), LATE), ["0-59", "60-119", "120-149"]);
    assert_eq!(planned(&all, &policy(), LATE), ["0-149"], "a day's at once, where nobody merged before");
    assert_eq!(planned(&all, &minutes_only(), 2 * MINUTE), ["0-59", "60-119"], "the third is not over");
    // What is still to come belongs to the same minute.
    let mut ledger = Ledger::new(TimelineId::FIRST, None, ManifestNumber::new(0));
    take(&mut ledger, &manifest(0, seconds(0, 100), Vec::new()));
    take(&mut ledger, &manifest(1, seconds(100, 130), Vec::new()));
    assert_eq!(planned(&ledger, &minutes_only(), LATE), ["0-59"]);
    take(&mut ledger, &manifest(2, seconds(130, 140), Vec::new()));
    assert_eq!(planned(&ledger, &minutes_only(), LATE), ["0-59", "60-99", "100-119"]);
}

#[test]
fn a_group_lies_in_one_manifest_or_is_over_whole_ones() {
    // The last manifest is of another minute.
    let second = |n: u64| i64::try_from(if n < 40 { n } else { n + 60 }).unwrap() * 1_000_000;
    let ten = |manifest: u64| (manifest * 10..manifest * 10 + 10).map(|n| plain(n, second(n)));
    let manifests = |segments: [Vec<SegmentSummary>; 5]| {
        let mut ledger = Ledger::new(TimelineId::FIRST, None, ManifestNumber::new(0));
        for (segments, number) in segments.into_iter().zip(0..) {
            take(&mut ledger, &manifest(number, segments, Vec::new()));
        }
        ledger
    };
    let all: [Vec<_>; 5] = [0, 1, 2, 3, 4].map(|n| ten(n).collect());
    assert_eq!(planned(&manifests(all.clone()), &minutes_only(), LATE), ["0-39"]);
    let mut run = all.clone();
    run[1][4] = begins_run(run[1][4].clone());
    assert_eq!(planned(&manifests(run.clone()), &minutes_only(), LATE), ["0-9", "10-13", "14-19", "20-39"]);
    run[3][4] = begins_run(run[3][4].clone());
    assert_eq!(planned(&manifests(run), &minutes_only(), LATE), ["0-9", "10-13", "14-19", "20-29", "30-33", "34-39"]);
}

#[test]
fn the_newest_segments_and_those_of_the_last_manifest_stay() {
    let mut ledger = Ledger::new(TimelineId::FIRST, None, ManifestNumber::new(0));
    take(&mut ledger, &manifest(0, vec![plain(0, 1), plain(1, 2), plain(2, 3)], Vec::new()));
    assert!(planned(&ledger, &policy(), LATE).is_empty(), "all in the last manifest");
    take(&mut ledger, &manifest(1, vec![plain(3, LATE)], Vec::new()));
    // 2 and 3 are the newest two: 2 shares the period, and is not settled.
    assert!(planned(&ledger, &policy(), LATE).is_empty());
    take(&mut ledger, &manifest(2, vec![plain(4, LATE + 1)], Vec::new()));
    assert_eq!(planned(&ledger, &policy(), LATE), ["0-2"]);
}

#[test]
fn no_group_crosses_what_must_not_be_crossed() {
    let five = || (0..5).map(|n| plain(n, 1)).collect::<Vec<_>>();
    assert_eq!(planned(&ledger_with(five(), None), &policy(), LATE), ["0-4"]);
    let mut run = five();
    run[2] = begins_run(run[2].clone());
    assert_eq!(planned(&ledger_with(run, None), &policy(), LATE), ["0-1", "2-4"], "a run begins a group");
    let clock: Vec<_> = [10, 20, 15, 16, 17].iter().enumerate().map(|(n, at)| plain(n as u64, *at)).collect();
    assert_eq!(planned(&ledger_with(clock, None), &policy(), LATE), ["0-1", "2-4"], "the clock went back");
    let mut inside = five();
    inside[2] = segment(2, 2, Some((5, 1)), 1000);
    assert_eq!(planned(&ledger_with(inside, None), &policy(), LATE), ["0-1", "3-4"], "it went back inside one");
    let mut large = five();
    large[2] = segment(2, 2, Some((1, 1)), policy().max_size - 1500);
    assert_eq!(planned(&ledger_with(large, None), &policy(), LATE), ["0-1", "2-3"], "too large together");
    let mut left = ledger_with(five(), None);
    left.leave_alone(Ordinals::one(Ordinal::new(2)));
    assert_eq!(planned(&left, &policy(), LATE), ["0-1", "3-4"], "one that cannot be merged");
    let busy = [Ordinals::one(Ordinal::new(3))];
    assert!(groups(&ledger_with(five(), None), &policy(), &busy, Micros(LATE)).is_empty(), "one that was just merged");
}

fn kept(from: u64, to: u64) -> KeptSegments {
    KeptSegments {
        from: Ordinal::new(from),
        to: Ordinal::new(to),
        first: Boundary::new(from * 10),
        hash_before: hash(from),
        end: Boundary::new(to * 10),
        hash_after: hash(to),
        run: None,
        head: None,
    }
}

fn boundary(ordinal: u64, kept: Vec<KeptSegments>) -> BoundaryDocument {
    BoundaryDocument {
        version: DOCUMENT_VERSION,
        archive: ArchiveId([0; 16]),
        timeline: TimelineId::FIRST,
        ordinal: Ordinal::new(ordinal),
        first: Boundary::new(ordinal * 10),
        hash_before: hash(ordinal),
        revision: 0,
        run: None,
        head: None,
        kept,
        manifests: Vec::new(),
        unlogged: Vec::new(),
        created: Micros(0),
        epoch: Epoch::new(1),
        nonce: Nonce([0; 16]),
        extra: Extra::new(),
    }
}

#[test]
fn what_deletion_cut_is_not_joined_and_the_first_segment_behind_a_cut_stays() {
    let twelve = || (0..12).map(|n| plain(n, 1)).collect::<Vec<_>>();
    let deleted = boundary(8, vec![kept(2, 6)]);
    assert_eq!(planned(&ledger_with(twelve(), Some(deleted)), &policy(), LATE), ["3-5", "9-11"]);
}

#[test]
fn nothing_is_merged_that_would_cost_three_times_what_it_was() {
    let with = |original, written| {
        let mut parts = vec![segment(0, 1, Some((1, 1)), 1000), segment(2, 3, Some((1, 1)), 1000)];
        for part in &mut parts {
            part.merged = Some(Merged { original_bytes: original, written_bytes: written, numbers_repeat: false });
        }
        planned(&ledger_with(parts, None), &policy(), LATE)
    };
    // Written for each: before, itself, and its share of what would be written now.
    assert_eq!(with(1000, 999), ["0-3"]);
    assert!(with(1000, 1000).is_empty());
    assert_eq!(with(1001, 1000), ["0-3"]);
}

/// Any history, merged by this plan for as long as it finds something: the borders and the account hold in the end, too.
#[test]
fn whatever_the_history_is_merging_ends_and_keeps_borders_and_account() {
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut at = 0;
        let mut looks: Vec<(i64, i64)> = Vec::new();
        let mut segments = Vec::new();
        for n in 0..rng.random_range(1..120) {
            at += match rng.random_range(0..20) {
                0 => -rng.random_range(0..10 * MINUTE),
                1 => rng.random_range(0..180 * MINUTE),
                2..6 => rng.random_range(0..2 * MINUTE),
                _ => rng.random_range(0..2_000_000),
            };
            let last = at + rng.random_range(-100..1000).max(-50);
            let bytes =
                if rng.random_ratio(1, 30) { rng.random_range(0..80 << 20) } else { rng.random_range(900..5000) };
            let seen = rng.random_ratio(9, 10).then_some((at, last));
            looks.push(seen.unwrap_or((i64::MIN, i64::MAX)));
            let mut summary = segment(n, n, seen, bytes);
            if n == 0 || rng.random_ratio(1, 25) {
                summary = begins_run(summary);
            }
            segments.push(summary);
        }
        let count = segments.len() as u64;
        let deleted = (count > 10 && rng.random_ratio(1, 3)).then(|| {
            let cut = rng.random_range(5..count);
            boundary(cut, vec![kept(1, rng.random_range(2..5))])
        });
        let begun: BTreeSet<u64> = segments.iter().filter(|s| !s.events.is_empty()).map(|s| s.ordinal.get()).collect();
        let mut originals = std::collections::BTreeMap::new();
        originals.extend(segments.iter().map(|s| (s.ordinal, s.object_bytes)));
        let latest = segments.iter().filter_map(|s| s.observed).map(|(_, last)| last.at.0).max().unwrap_or(0);
        let (mut manifests, mut rest) = (Vec::new(), segments);
        while !rest.is_empty() {
            let behind = rest.split_off(rng.random_range(1..40).min(rest.len()));
            manifests.push(manifest(manifests.len() as u64, std::mem::replace(&mut rest, behind), Vec::new()));
        }
        let newest = (0..2).map(|n| plain(count + n, latest + 1440 * MINUTE)).collect();
        manifests.push(manifest(manifests.len() as u64, newest, Vec::new()));
        let borders: BTreeSet<u64> = manifests.iter().map(|m| m.segments[0].ordinal.get()).collect();
        let mut ledger = Ledger::new(TimelineId::FIRST, deleted.clone(), ManifestNumber::new(0));
        assert!(manifests.iter().all(|document| take(&mut ledger, document).is_empty()));
        let (mut number, mut next) = (manifests.len() as u64, count + 2);
        let is_along = |ordinals: Ordinals| {
            let (first, last) = (ordinals.first().get(), ordinals.last().get());
            let across = borders.range(first + 1..=last).next().is_some();
            !across || borders.contains(&first) && borders.contains(&(last + 1))
        };
        for round in 0.. {
            assert!(round < 20, "seed {seed}: merging does not end");
            // Whoever starts reads the newest manifests only.
            let newest = &manifests[rng.random_range(0..manifests.len())..];
            let mut started = Ledger::new(TimelineId::FIRST, deleted.clone(), ManifestNumber::new(number));
            newest.iter().rev().for_each(|document| started.manifest_before(document));
            let begun_with = groups(&started, &policy(), &[], Micros(LATE * 9));
            let begun_with: Vec<_> = begun_with.iter().filter_map(Group::ordinals).collect();
            assert!(begun_with.iter().copied().all(is_along), "seed {seed}: {begun_with:?}");
            let found = groups(&ledger, &policy(), &[], Micros(LATE * 9));
            if found.is_empty() {
                break;
            }
            let merged: Vec<SegmentSummary> = found
                .iter()
                .map(|group| {
                    let ordinals = group.ordinals().unwrap();
                    let (first, last) = (ordinals.first().get(), ordinals.last().get());
                    assert!(group.parts.len() > 1);
                    assert!(begun.range(first + 1..=last).next().is_none(), "seed {seed}: {ordinals} crosses a run");
                    assert!(is_along(ordinals), "seed {seed}: {ordinals} ends in the midst of a manifest");
                    assert!(
                        deleted.as_ref().is_none_or(|d| d.admits(ordinals)),
                        "seed {seed}: {ordinals} crosses a cut"
                    );
                    let inside = &looks[first as usize..=last as usize];
                    let told: Vec<i64> =
                        inside.iter().filter(|(first, _)| *first != i64::MIN).flat_map(|l| [l.0, l.1]).collect();
                    assert!(told.is_sorted(), "seed {seed}: {ordinals} crosses a clock that went back: {told:?}");
                    // What is merged can come out as large as its parts together.
                    let bytes: u64 = group.parts.iter().map(|part| part.object_bytes).sum();
                    assert!(bytes <= policy().max_size && group.affords(bytes));
                    let mut summary = segment(first, last, told.first().copied().zip(told.last().copied()), bytes);
                    summary.merged = Some(Merged {
                        original_bytes: group.parts.iter().map(SegmentSummary::original_bytes).sum(),
                        written_bytes: group.parts.iter().map(SegmentSummary::written_bytes).sum(),
                        numbers_repeat: false,
                    });
                    summary.events = group.parts[0].events.clone();
                    summary
                })
                .collect();
            manifests.push(manifest(number, vec![plain(next, LATE * 9 + number as i64)], merged));
            let wrong = take(&mut ledger, &manifests[manifests.len() - 1]);
            assert!(wrong.is_empty(), "seed {seed}: {wrong:?}");
            (number, next) = (number + 1, next + 1);
        }
        for entry in ledger.entries().filter(|entry| entry.ordinal.get() < count) {
            let (first, last) = (entry.ordinal, entry.ordinals().last());
            let original: u64 = originals.range(first..=last).map(|(_, bytes)| bytes).sum();
            assert_eq!(entry.original_bytes(), original, "seed {seed}");
            assert!(
                entry.merged.is_none() || entry.written_bytes() < AMPLIFICATION * original,
                "seed {seed}: {entry:?}"
            );
        }
        // Whoever reads the manifests backwards knows the same.
        let mut again = Ledger::new(TimelineId::FIRST, deleted, ManifestNumber::new(number));
        manifests.iter().rev().for_each(|document| again.manifest_before(document));
        assert!(again.entries().eq(ledger.entries()), "seed {seed}");
        let both =
            [&again, &ledger].map(|l| l.superseded().iter().map(|s| (s.ordinals, s.by)).collect::<BTreeSet<_>>());
        assert_eq!(both[0], both[1], "seed {seed}");
        assert_eq!(planned(&again, &policy(), LATE * 9), Vec::<String>::new(), "seed {seed}");
        // What was replaced is due a grace period later, not before, and never what is in use.
        let used: BTreeSet<Ordinals> = ledger.entries().map(SegmentSummary::ordinals).collect();
        let grace = policy().effective_grace();
        assert!(ledger.due(Micros(0), grace).is_empty());
        let due = ledger.due(Micros(LATE * 10), grace);
        assert_eq!(due.len(), ledger.superseded().len());
        assert!(due.iter().all(|s| !used.contains(&s.ordinals) && used.contains(&s.by)), "seed {seed}");
    }
}
