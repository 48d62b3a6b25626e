//! Which bases the calendar keeps.
//!
//! Owns: the periods. They are those of UTC, weeks those of ISO 8601.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike as _, Timelike as _, Utc};

use super::{decide::Keep, policy::Policy};

/// A period: numbers that are the same for all times in it.
type Period = (i32, u32, u32);

/// So many periods, which, and the reason.
type Rule = (u32, fn(DateTime<Utc>) -> Period, Keep);

fn hour(at: DateTime<Utc>) -> Period {
    (at.year(), at.ordinal(), at.hour())
}

fn day(at: DateTime<Utc>) -> Period {
    (at.year(), at.ordinal(), 0)
}

fn week(at: DateTime<Utc>) -> Period {
    (at.iso_week().year(), at.iso_week().week(), 0)
}

fn month(at: DateTime<Utc>) -> Period {
    (at.year(), at.month(), 0)
}

fn year(at: DateTime<Utc>) -> Period {
    (at.year(), 0, 0)
}

/// The kept ones among bases that were taken at these times, newest first: index and reasons.
pub(super) fn kept(policy: &Policy, taken: &[DateTime<Utc>]) -> BTreeMap<usize, Vec<Keep>> {
    let mut kept: BTreeMap<usize, Vec<Keep>> = BTreeMap::new();
    for index in 0..taken.len().min(policy.last as usize) {
        kept.entry(index).or_default().push(Keep::Last);
    }
    let rules: [Rule; 5] = [
        (policy.hourly, hour, Keep::Hourly),
        (policy.daily, day, Keep::Daily),
        (policy.weekly, week, Keep::Weekly),
        (policy.monthly, month, Keep::Monthly),
        (policy.yearly, year, Keep::Yearly),
    ];
    for (count, period, why) in rules {
        let (mut left, mut before) = (count, None);
        for (index, at) in taken.iter().enumerate() {
            if left == 0 {
                break;
            }
            let here = Some(period(*at));
            if here != before {
                kept.entry(index).or_default().push(why.clone());
                before = here;
                left -= 1;
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> Policy {
        Policy { last: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0, ..Policy::default() }
    }

    fn taken(times: &[&str]) -> Vec<DateTime<Utc>> {
        times.iter().map(|t| format!("{t}Z").parse().unwrap()).collect()
    }

    fn indexes(policy: &Policy, times: &[&str]) -> Vec<usize> {
        kept(policy, &taken(times)).into_keys().collect()
    }

    #[test]
    fn the_newest_of_each_period_that_has_a_base_is_kept() {
        let times = [
            "2026-11-20T13:40:00",
            "2026-11-20T13:10:00",
            "2026-11-20T02:00:00",
            "2026-11-17T23:59:59",
            "2026-10-31T23:00:00",
            "2025-12-31T12:00:00",
            "2025-12-30T12:00:00",
        ];
        assert_eq!(indexes(&Policy { last: 2, ..none() }, &times), [0, 1]);
        assert_eq!(indexes(&Policy { hourly: 2, ..none() }, &times), [0, 2]);
        assert_eq!(indexes(&Policy { daily: 3, ..none() }, &times), [0, 3, 4], "days without a base do not count");
        assert_eq!(indexes(&Policy { monthly: 9, ..none() }, &times), [0, 4, 5]);
        assert_eq!(indexes(&Policy { yearly: 1, ..none() }, &times), [0]);
        assert_eq!(indexes(&none(), &times), Vec::<usize>::new());
    }

    #[test]
    fn a_week_begins_on_monday_also_around_new_year() {
        // Thursday, Monday, Sunday.
        let times = ["2026-01-01T00:00:00", "2025-12-29T00:00:00", "2025-12-28T23:59:59"];
        assert_eq!(indexes(&Policy { weekly: 2, ..none() }, &times), [0, 2]);
    }

    #[test]
    fn one_base_can_be_kept_for_several_reasons() {
        let policy = Policy { last: 1, daily: 1, yearly: 1, ..none() };
        assert_eq!(kept(&policy, &taken(&["2026-11-20T00:00:00"]))[&0], [Keep::Last, Keep::Daily, Keep::Yearly]);
    }
}
