//! Which reports of drills are kept.
//!
//! Owns: the numbers. Nothing names a report and nothing is restored by one: a reader that has listed it and does not find it
//! goes on without. So it is deleted in one step, without a statement and without a grace period.

use chrono::{DateTime, TimeDelta, Utc};
use pitr_archive::{ids::BaseId, object_key::ObjectKey, store::Listed};

/// So many of the newest are kept, however old they are.
const NEWEST: usize = 100;
/// Of those behind them the ones that are not older than this.
const YEAR: TimeDelta = TimeDelta::days(366);
/// But so many in all: one page of a listing, whatever the schedule.
const MOST: usize = 1000;

/// The reports that are not kept, of a listing.
pub(super) fn old(listed: Vec<Listed>, now: DateTime<Utc>) -> Vec<Listed> {
    let named = listed.into_iter().filter_map(|listed| {
        let id: BaseId = listed.key.stem().parse().ok()?;
        (listed.key == ObjectKey::drill(&id)).then_some((id, listed))
    });
    let mut reports: Vec<(BaseId, Listed)> = named.collect();
    // By name, which is by time, the newest first.
    reports.sort_by(|(a, _), (b, _)| b.cmp(a));
    let is_old = |index: usize, id: &BaseId| {
        // Where the name holds no such day, nobody knows how old it is.
        let aged = id.time().is_some_and(|at| now.signed_duration_since(at) > YEAR);
        index >= MOST || index >= NEWEST && aged
    };
    let old = reports.into_iter().enumerate().filter(|(index, (id, _))| is_old(*index, id));
    old.map(|(_, (_, listed))| listed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(now: DateTime<Utc>, ages: impl Iterator<Item = TimeDelta>) -> Vec<Listed> {
        let key = |age| ObjectKey::drill(&BaseId::new(now - age, 7));
        ages.map(|age| Listed { key: key(age), size: 10 }).collect()
    }

    #[test]
    fn the_newest_stay_however_old_and_of_the_others_those_of_a_year() {
        let now = "2026-11-20T12:00:00Z".parse().unwrap();
        // Once in a month: nothing goes before there are more than a hundred.
        assert!(old(listed(now, (0..100).map(|n| TimeDelta::days(30 * n))), now).is_empty());
        let gone = old(listed(now, (0..104).map(|n| TimeDelta::days(30 * n))), now);
        let mut times: Vec<_> = gone.iter().map(|l| l.key.clone()).collect();
        times.sort();
        let expected = listed(now, (100..104).rev().map(|n| TimeDelta::days(30 * n)));
        assert_eq!(times, expected.into_iter().map(|l| l.key).collect::<Vec<_>>());
        // Once a day: those of the last year.
        assert_eq!(old(listed(now, (0..500).map(TimeDelta::days)), now).len(), 500 - 367);
        // Once an hour: not more than fit into one page.
        assert_eq!(old(listed(now, (0..1500).map(TimeDelta::hours)), now).len(), 500);
    }

    #[test]
    fn what_is_no_report_is_left_alone() {
        let now = "2026-11-20T12:00:00Z".parse().unwrap();
        let mut all = listed(now, (0..1200).map(TimeDelta::hours));
        all.retain(|l| l.key.as_str() < "drills/20261001");
        let foreign = ObjectKey::parse("drills/notes.txt").unwrap();
        all.push(Listed { key: foreign.clone(), size: 1 });
        assert!(old(all, now).iter().all(|l| l.key != foreign));
    }
}
