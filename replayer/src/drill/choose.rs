//! A position that nobody chose.
//!
//! Owns: that every record of the stretches that can be restored is as likely as every other, the end a little likelier than
//! that (it is what a restore is for most often), and which positions lie near one that a plan refuses.
//! Pure but for the randomness that it is given.

use pitr_archive::{
    Result,
    catalog::windows::Window,
    ids::{Boundary, RecordNumber},
    random::Random,
};

use crate::target::Target;

/// Of so many drills one goes to the end.
const ENDS: u64 = 8;
/// How far from a refused position others are tried, as a power of two.
const DOUBLINGS: u32 = 24;

/// Draws a target. Where nothing can be restored by a record, it is the end: the plan tells what stands against that.
pub fn draw(windows: &[Window], random: &dyn Random) -> Result<Target> {
    let records: u64 = windows.iter().map(|window| span(window).1).fold(0, u64::saturating_add);
    if records == 0 || below(ENDS, random)? == 0 {
        return Ok(Target::Latest);
    }
    let mut left = below(records, random)?;
    for window in windows {
        let (first, count) = span(window);
        if left < count {
            return Ok(Target::Record(RecordNumber::new(first + left)));
        }
        left -= count;
    }
    Ok(Target::Latest)
}

/// Records near another one that can be restored as far as is known, nearer ones first.
pub fn near(record: RecordNumber, windows: &[Window]) -> Vec<RecordNumber> {
    let at = record.get();
    let both = |distance: u64| [at.checked_sub(distance), at.checked_add(distance)];
    let inside = |record: &u64| {
        windows.iter().any(|window| {
            let (first, count) = span(window);
            *record >= first && *record - first < count
        })
    };
    let distances = (0..DOUBLINGS).map(|power| 1u64 << power);
    distances.flat_map(both).flatten().filter(inside).map(RecordNumber::new).collect()
}

/// The first record after which a window's database can be restored, and how many there are. Boundary 0 has none.
fn span(window: &Window) -> (u64, u64) {
    let from = window.from.max(Boundary::new(1)).get();
    (from - 1, (window.to.get() + 1).saturating_sub(from))
}

/// A number below `limit`, each as likely: those of the last, incomplete round are drawn again.
fn below(limit: u64, random: &dyn Random) -> Result<u64> {
    let limit = limit.max(1);
    let rounds = u64::MAX / limit * limit;
    loop {
        let drawn = u64::from_le_bytes(random.bytes()?);
        if drawn < rounds {
            return Ok(drawn % limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pitr_archive::{clock::Micros, random::SeededRandom};

    use super::*;

    fn window(from: u64, to: u64) -> Window {
        Window { from: Boundary::new(from), to: Boundary::new(to), since: Micros(0) }
    }

    #[test]
    fn every_record_of_every_window_is_as_likely_and_the_end_is_among_them() {
        // Records 0, 1, 2 and 9, 10: boundary 0 has no record before it.
        let windows = [window(0, 3), window(10, 11)];
        let mut drawn: BTreeMap<String, u32> = BTreeMap::new();
        let random = SeededRandom::new(7);
        for _ in 0..8000 {
            *drawn.entry(draw(&windows, &random).unwrap().to_string()).or_default() += 1;
        }
        let records = ["record 0", "record 1", "record 10", "record 2", "record 9"];
        let names: Vec<_> = drawn.keys().map(String::as_str).collect();
        assert_eq!(names, [&["latest"], &records[..]].concat());
        assert!((850..1150).contains(&drawn["latest"]), "{drawn:?}");
        assert!(records.iter().all(|record| (1250..1550).contains(&drawn[*record])), "{drawn:?}");
    }

    #[test]
    fn where_no_record_can_be_restored_it_is_the_end() {
        let random = SeededRandom::new(1);
        for windows in [&[][..], &[window(0, 0)]] {
            assert_eq!(draw(windows, &random).unwrap(), Target::Latest);
        }
    }

    #[test]
    fn what_is_near_lies_in_a_window_and_nearer_ones_come_first() {
        let windows = [window(5, 10), window(50, 60)];
        let found: Vec<_> = near(RecordNumber::new(9), &windows).into_iter().map(RecordNumber::get).collect();
        assert_eq!(found, [8, 7, 5]);
        let found: Vec<_> = near(RecordNumber::new(45), &windows).into_iter().map(RecordNumber::get).collect();
        assert_eq!(found, [49, 53]);
        assert!(near(RecordNumber::new(u64::MAX), &windows).is_empty());
    }
}
